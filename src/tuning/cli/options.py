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
ConfigDir = Annotated[Path, typer.Option("--config-dir", help="Where generated configurations go.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and do nothing.")]
FocusOption = Annotated[Focus, typer.Option("--focus", help="What trials are ranked by.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="Overrides: lora_r=8, training_config.seed=1, models=tiny.", metavar="[KEY=VALUE]..."
    ),
]

RESULTS_DIR = DEFAULT_RESULTS_DIR
CONFIG_DIR = DEFAULT_CONFIG_DIR


def results_root(folder: Path) -> ResultsRoot:
    """Return the results root, made if need be.

    Raises:
        ResultsError: It cannot be written.
    """
    from tuning import files

    files.make_folder(folder)
    return ResultsRoot(folder)
