"""What a shell offers for names: read from folders alone, for a key is waited on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import typer

from tuning.paths import (
    DEFAULT_CONFIG_DIR,
    DEFAULT_RESULTS_DIR,
    RESERVED_STUDY_NAMES,
    ResultsRoot,
    shipped_config_dir,
)


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the studies below the results folder that begin so."""
    root = ResultsRoot(_folder(context, "results_dir", DEFAULT_RESULTS_DIR))
    names = {path.parent.name for path in root.data.glob("*/study.yaml")}
    return _beginning(incomplete, names - RESERVED_STUDY_NAMES)


def task_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the tasks of the cloud that begin so, and the studies."""
    root = ResultsRoot(_folder(context, "results_dir", DEFAULT_RESULTS_DIR))
    tasks = [path.name for path in root.cloud.glob("*/") if not path.name.startswith(".")]
    return _beginning(incomplete, {*tasks, *study_names(context, incomplete)})


def space_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the search spaces that begin so, ours and the user's own."""
    from tuning.inheritance import SPACES, choices

    return _beginning(incomplete, choices(_config_folders(context), SPACES))


def model_names(incomplete: str) -> list[str]:
    """Return the models that have a name here and begin so."""
    from tuning.known_models import HUB_IDS, PACKAGED_MODELS

    return _beginning(incomplete, ("tiny", *PACKAGED_MODELS, *HUB_IDS))


def overrides(context: typer.Context, incomplete: str) -> list[str]:
    """Return the choices of groups that begin so, such as ``models=tiny``."""
    from tuning.inheritance import choices, group_names

    folders = _config_folders(context)
    groups = group_names(folders)
    before = list(context.params.get("overrides") or ())
    # bash breaks words at "=": the group and its sign then stand before what is typed.
    if before[-1:] == ["="] and before[-2:-1] and before[-2] in groups:
        return _beginning(incomplete, choices(folders, before[-2]))
    every = (f"{group}={name}" for group in groups for name in choices(folders, group))
    return _beginning(incomplete, every)


def _config_folders(context: typer.Context) -> list[Path]:
    own = _folder(context, "config_dir", DEFAULT_CONFIG_DIR)
    return [folder for folder in (own, shipped_config_dir()) if folder.is_dir()]


def _folder(context: typer.Context, name: str, default: Path) -> Path:
    """Return a folder that stands on the command line so far, or the default."""
    return Path(context.params.get(name) or default)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))
