"""What a study has on disk that is of no use any more, and removing it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tuning import files
from tuning.config import ExperimentConfig
from tuning.documents import parse_own_yaml
from tuning.fingerprint import training_key
from tuning.paths import ResultsRoot, StudyFolder
from tuning.records import TrialStatus, intact_record
from tuning.study import existing_folder, study_names


class Waste(NamedTuple):
    """Files and folders that can go."""

    paths: Sequence[Path]
    num_bytes: int


def find_waste(root: ResultsRoot, name: str, *, whole: bool) -> Waste:
    """Return what can be removed of a study.

    Args:
        root: All results hang off it.
        name: The study.
        whole: Everything of it, with trainings that no other study asks for. Otherwise what
            kills have left half-written, and the checkpoints and adapters of trainings whose
            trials were all pruned or failed.

    Raises:
        NotFoundError: There is no such study.
    """
    folder = existing_folder(root, name)
    own = _trainings(folder)
    others = {
        key for other in study_names(root) if other != name for key in _trainings(root.study(other))
    }
    paths: list[Path] = []
    for key, useful in own.items():
        training = root.training(key)
        if whole and key not in others:
            paths.append(training.root)
            continue
        if not useful and key not in others:
            paths += [training.checkpoints, training.root / "adapters"]
        paths += _half_written(training.root)
    paths += [folder.root] if whole else _half_written(folder.root)
    found = [path for path in paths if path.exists() and _is_ours(root, path)]
    return Waste(found, sum(map(_size, found)))


def remove_waste(root: ResultsRoot, name: str, waste: Waste) -> None:
    """Remove it, unless someone is working there.

    Raises:
        LockedError: A driver runs the study, or a worker one of its trainings.
        ResultsError: The disk refuses.
    """
    folder = root.study(name)
    trainings = set(_own_trainings(root, waste))
    with contextlib.ExitStack() as held:
        held.enter_context(files.exclusive_lock(folder.lock, f"study {name}"))
        for key in sorted(trainings):
            lock = root.training(key).lock
            held.enter_context(files.exclusive_lock(lock, f"training {key}"))
        for path in waste.paths:
            if path.is_dir():
                files.remove_folder(path)
            else:
                with files.readable_os_errors(path):
                    path.unlink(missing_ok=True)


def _own_trainings(root: ResultsRoot, waste: Waste) -> Iterator[str]:
    for path in waste.paths:
        if path.is_relative_to(root.trainings):
            yield path.relative_to(root.trainings).parts[0]


def _trainings(folder: StudyFolder) -> dict[str, bool]:
    """Return the trainings of a study, and whether any trial of each may still use it."""
    found: dict[str, bool] = {}
    for place in folder.trials.glob("*"):
        record = intact_record(place / "record.json")
        if record is not None:
            key = record.result.training_key
            useful = record.result.status is TrialStatus.COMPLETED
        else:
            try:
                raw = parse_own_yaml(files.read_text(place / "config.yaml"), "config.yaml")
                key, useful = training_key(ExperimentConfig.model_validate(raw)), True
            except (ValueError, RecursionError):
                continue
        found[key] = found.get(key, False) or useful
    return found


def _half_written(folder: Path) -> list[Path]:
    """Return what a kill has left of files that were being written."""
    return [path for path in folder.rglob(".*") if not path.name.endswith(".lock")]


def _is_ours(root: ResultsRoot, path: Path) -> bool:
    """Whether a path stays below the results: what a link leads to is not ours to remove."""
    return path.parent.resolve().is_relative_to(root.data.resolve())


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(inner.stat().st_size for inner in path.rglob("*") if inner.is_file())
