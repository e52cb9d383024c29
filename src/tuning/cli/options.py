"""Options that several commands share, and what they mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuning.paths import DEFAULT_CONFIG_DIR, DEFAULT_RESULTS_DIR, ResultsRoot
from tuning.scoring import Focus

ResultsDir = Annotated[
    Path, typer.Option("--results-dir", help="Root of all results.", show_default=True)
]
ConfigDir = Annotated[
    Path,
    typer.Option(
        "--config-dir",
        help="Where generated configurations go, and where groups, spaces and what a file inherits "
        "are looked for before ours.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
FocusOption = Annotated[
    Focus | None,
    typer.Option(
        "--focus",
        help="What trials are ranked by, balanced if not given; also sets both task weights, "
        "to 0.3, 0.6 or 0.5.",
    ),
]
StepScale = Annotated[float, typer.Option(help="Multiplies all step counts, in (0, 1].")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The configuration, YAML or JSON.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides: lora_r=8, training_config.seed=1, models=tiny.", metavar="[KEY=VALUE]..."
    ),
]

RESULTS_DIR = DEFAULT_RESULTS_DIR
CONFIG_DIR = DEFAULT_CONFIG_DIR
DEFAULT_NAME = "spelling_transfer_exp"


def results_root(folder: Path) -> ResultsRoot:
    """Return the results root, made if need be.

    Raises:
        ResultsError: It cannot be written.
    """
    from tuning import files

    files.make_folder(folder)
    return ResultsRoot(folder)


def focus_overrides(focus: Focus | None) -> list[str]:
    """Return the overrides that a focus means: both task weights."""
    if focus is None:
        return []
    return [
        f"transfer_config.position_task_weight={focus.weights.position_weight}",
        f"transfer_config.count_task_weight={focus.weights.count_weight}",
    ]
