"""Write into NOTICE which licences the packages have that the program needs: `make notices`."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAD = "Packages that it needs"


def direct_packages(project: Path = ROOT / "pyproject.toml") -> dict[str, str]:
    """Return the packages that the program names itself, and the extra that brings each, or ``""``.

    Args:
        project: The pyproject.toml.
    """
    told = tomllib.loads(project.read_text("utf-8"))["project"]
    groups = {"": told["dependencies"], **told["optional-dependencies"]}
    return {
        re.split(r"[^A-Za-z0-9._-]", text)[0]: extra
        for extra, texts in groups.items()
        for text in texts
        if extra != "dev"
    }


def licence_of(name: str) -> str:
    """Return the licence that an installed package states, in its own words.

    Raises:
        PackageNotFoundError: It is not installed.
    """
    about = importlib.metadata.metadata(name)
    classified = [
        text.rpartition("::")[2].strip()
        for text in about.get_all("Classifier") or []
        if text.startswith("License ::")
    ]
    # Some give the whole text, which begins with whose it is.
    free = (about.get("License") or "").splitlines()[:1]
    short = [text for text in free if not text.startswith("Copyright")]
    stated = [about.get("License-Expression"), ", ".join(classified), *short]
    return next((text for text in stated if text), "see the package")


def notices() -> str:
    """Return the part of NOTICE that is made."""
    lines = [HEAD, "-" * len(HEAD), ""]
    lines += [
        "They are installed beside it, none is part of it. Licences as each states its own.",
        "",
    ]
    for name, extra in sorted(direct_packages().items(), key=lambda pair: pair[0].lower()):
        lines.append(f"{name + (f' [{extra}]' if extra else ''):34} {licence_of(name)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    path = ROOT / "NOTICE"
    text = path.read_text("utf-8")
    path.write_text(text[: text.index(HEAD)] + notices(), "utf-8")
