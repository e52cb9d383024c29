"""Whether Python and the packages are those that the program was tried with."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.diagnosis.checks import Check, failure, note, ok, warning

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROGRAM = "tuning"
OLDEST_PYTHON = (3, 11)
PURPOSES: Mapping[str, str] = {
    "dashboard": "Optuna's dashboard of a study",
    "lightning": "jobs and Studios of Lightning.AI",
    "ray": "a cluster of one's own",
    "smollm2": "a real model from the package index",
    "wandb": "runs of Weights & Biases",
}
"""What an extra of the program is for; an extra that is not named here is for developers."""
_MAX_LISTED = 8


def checkout(package: Path = Path(__file__).parents[1]) -> Path | None:
    """Return the folder of the checkout that runs, or None for an installed wheel."""
    root = package.parents[1]
    return root if (root / "pyproject.toml").is_file() and package.parent.name == "src" else None


def look_at_python() -> Check:
    """Return whether the interpreter is new enough, and one of its own for this project."""
    says = f"{platform.python_version()}, {sys.prefix}"
    own = f"python{OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} -m venv .venv && . .venv/bin/activate"
    if sys.version_info < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return failure("python", f"{says}; must be {oldest} or newer", own)
    if sys.prefix == sys.base_prefix and "CONDA_PREFIX" not in os.environ:
        return warning("python", f"{says}, shared: no virtual environment", own)
    return ok("python", says)


def look_at_packages(root: Path | None = None) -> Check:
    """Return whether all packages are there, in the versions that are asked for.

    Args:
        root: The checkout, whose exact versions count too; None for a wheel.
    """
    try:
        needed = list(_requirements(extra=""))
    except importlib.metadata.PackageNotFoundError:
        how = f"pip install -c constraints.txt -e {shlex.quote(str(root or '.'))}"
        return failure("packages", f"{PROGRAM} itself is not installed", how)
    wrong = [text for text in map(_mistake, needed) if text]
    if wrong:
        return failure("packages", _listed(wrong), _how_to_install(root, needed))
    pins = root / "constraints.txt" if root else None
    if root is None or pins is None or not pins.is_file():
        return ok("packages", f"{len(needed)} in the ranges that {PROGRAM} asks for")
    others = [f"{name} {own}, not {pin}" for name, pin, own in _unpinned(pins)]
    if others:
        return warning("packages", f"other versions: {_listed(others)}", _pinned(root))
    return ok("packages", f"{len(needed)} needed, all in the versions of {pins.name}")


def look_at_extra(name: str) -> Check:
    """Return whether what an extra adds is there; none is needed on this machine alone."""
    purpose = PURPOSES[name]
    needed = list(_requirements(extra=name))
    wrong = [text for text in map(_mistake, needed) if text]
    how = f"pip install '{PROGRAM}[{name}]'"
    if not wrong and needed:
        versions = ", ".join(f"{r.name} {_version(r.name)}" for r in needed)
        return ok(f"extra {name}", f"{versions}: {purpose}")
    if any(_version(r.name) for r in needed):
        return warning(f"extra {name}", f"{_listed(wrong)}: {purpose}", how)
    return note(f"extra {name}", f"not installed: {purpose}", how)


def _requirements(extra: str) -> Iterator[Requirement]:
    """Yield what the program needs on this machine, or what one of its extras adds.

    Raises:
        PackageNotFoundError: The program is not installed.
    """
    from packaging.requirements import Requirement

    for text in importlib.metadata.requires(PROGRAM) or []:
        needed = Requirement(text)
        is_of_extra = needed.marker is not None and "extra" in str(needed.marker)
        if is_of_extra is bool(extra) and (
            needed.marker is None or needed.marker.evaluate({"extra": extra})
        ):
            yield needed


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _mistake(needed: Requirement) -> str | None:
    own = _version(needed.name)
    if own is None:
        return f"{needed.name} is missing"
    if not needed.specifier.contains(own, prereleases=True):
        return f"{needed.name} {own} must be {needed.specifier}"
    return None


def _unpinned(pins: Path) -> Iterator[tuple[str, str, str]]:
    """Yield name, exact version and own version where both differ, builds left out."""
    from packaging.requirements import Requirement

    for line in pins.read_text("utf-8").splitlines():
        if "==" not in line or line.startswith("#"):
            continue
        pinned = Requirement(line)
        own = _version(pinned.name)
        if own is not None and not pinned.specifier.contains(own, prereleases=True):
            yield pinned.name, str(pinned.specifier).removeprefix("=="), own


def _how_to_install(root: Path | None, needed: Sequence[Requirement]) -> str:
    if root is not None:
        return _pinned(root)
    ranges = (shlex.quote(f"{r.name}{r.specifier}") for r in needed if _mistake(r))
    return f"pip install {' '.join(ranges)}"


def _pinned(root: Path) -> str:
    place = shlex.quote(str(root))
    return f"pip install -c {shlex.quote(str(root / 'constraints.txt'))} -e {place}"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_LISTED} more" if len(texts) > _MAX_LISTED else ""
    return ", ".join(texts[:_MAX_LISTED]) + more
