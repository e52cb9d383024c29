"""Folders on their way between machines that share no disk.

A folder travels as parcels: files that grow, and inner folders that are whole or not there. The
receiver writes each parcel atomically, and what says that a trial is done comes last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tuning import files
from tuning.paths import TrainingFolder, TrialFolder

Stamp = tuple[tuple[str, int, int], ...]
"""Name, size and, of files that grow, time of change of all files of a parcel."""


class Parcel(NamedTuple):
    """A part of a folder."""

    name: str
    """Path in the folder."""
    stamp: Stamp
    content: Mapping[str, bytes]
    """Files by their path in an inner folder; under "" the file that the parcel is."""


_TRAINING_FOLDERS = ("evaluations", "adapters", "checkpoints")
_TRAINING_FILES = ("config.yaml", "identity.json", "log.txt", "attempts.jsonl", "progress.jsonl")
_TRIAL_FILES = ("config.yaml", "results.yaml", "record.json")
"""In the order of writing: a record says that a trial is done."""


def training_stamps(folder: TrainingFolder) -> dict[str, Stamp]:
    """Return the parcels of a training, in the order in which they must be written."""
    return {name: stamp for name, stamp in _training(folder.root) if stamp}


def trial_stamps(folder: TrialFolder) -> dict[str, Stamp]:
    """Return the parcels of a trial, in the order in which they must be written."""
    return {name: stamp for name in _TRIAL_FILES if (stamp := _stamp_of_file(folder.root / name))}


def _training(root: Path) -> Iterator[tuple[str, Stamp]]:
    for kind in _TRAINING_FOLDERS:
        for inner in sorted((root / kind).glob("*")):
            is_whole = kind != "evaluations" or (inner / "scores.json").is_file()
            if inner.is_dir() and is_whole and not inner.name.startswith("."):
                yield f"{kind}/{inner.name}", _stamp_of_folder(inner)
    for name in _TRAINING_FILES:
        yield name, _stamp_of_file(root / name)


def _stamp_of_folder(folder: Path) -> Stamp:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return tuple((p.relative_to(folder).as_posix(), p.stat().st_size, 0) for p in found)


def _stamp_of_file(path: Path) -> Stamp:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return (("", status.st_size, status.st_mtime_ns),)


def pack(root: Path, stamps: Mapping[str, Stamp], known: Mapping[str, Stamp]) -> list[Parcel]:
    """Return the parcels that a receiver does not have yet.

    Args:
        root: The folder.
        stamps: Its parcels.
        known: What the receiver has, as this sender stamped it.
    """
    parcels = []
    for name, stamp in stamps.items():
        if known.get(name) == stamp:
            continue
        try:
            content = {inner: (root / name / inner).read_bytes() for inner, _, _ in stamp}
        except FileNotFoundError:
            # An older checkpoint that made room for a newer one meanwhile.
            continue
        parcels.append(Parcel(name, stamp, content))
    return parcels


def unpack(root: Path, parcels: Sequence[Parcel]) -> None:
    """Write parcels into a folder; older checkpoints make room for newer ones.

    Raises:
        ResultsError: The disk refuses.
    """
    for parcel in parcels:
        place = root / parcel.name
        if set(parcel.content) == {""}:
            files.write_atomic(place, parcel.content[""])
            continue
        if place.is_dir() and _stamp_of_folder(place) == parcel.stamp:
            continue
        partial = place.with_name(f".{place.name}.partial")
        files.remove_folder(partial)
        for inner, content in parcel.content.items():
            files.write_atomic(partial / inner, content)
        files.remove_folder(place)
        files.publish_folder(partial, place)
    for step in files.steps_of(root / "checkpoints")[:-1]:
        files.remove_folder(root / "checkpoints" / f"step_{step}")


def newest_step(folder: TrainingFolder) -> int:
    """Return the step of the newest checkpoint, or 0."""
    return max(files.steps_of(folder.checkpoints), default=0)
