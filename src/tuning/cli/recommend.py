"""`tuning recommend`: what to try next in a study, as files that run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options
from tuning.cli.progress import ERRORS
from tuning.scoring import Focus

if TYPE_CHECKING:
    from rich.table import Table

    from tuning.analysis.recommendation import Recommendation, Recommendations
    from tuning.paths import ResultsRoot


def recommend(
    name: options.StudyName,
    num: Annotated[int, typer.Option("--n", help="How many runs.", min=1, max=100)] = 5,
    focus: Annotated[
        Focus | None,
        typer.Option("--focus", help="What is to be as high as possible; the study's by default."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the list and write no file.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Say which runs would teach most about the best configuration, and write them as files.

    A Gaussian process over all results of the study says what to expect; more seeds of what was
    tried compete with what is new. Needs no model.

    Example: tuning recommend first --n 3 --dry-run
    """
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    with _status(quiet=quiet):
        from tuning.analysis.recommendation import recommend as recommended

        found = recommended(root, name, num=num, focus=focus)
    files = [] if dry_run else _write(root, found, config_dir)
    if as_json:
        answer = {**dataclasses.asdict(found), "files": [str(path) for path in files]}
        typer.echo(json.dumps(answer))
        return
    _print(found, files, results_dir)


def _status(*, quiet: bool) -> contextlib.AbstractContextManager[object]:
    """Show on a terminal that work is going on."""
    if quiet or not ERRORS.is_terminal:
        return contextlib.nullcontext()
    return ERRORS.status("fitting a model to the results")


def _write(root: ResultsRoot, found: Recommendations, config_dir: Path) -> list[Path]:
    """Write a file for each run, and the list; return the files."""
    from tuning.analysis.recommendation import config_of, write_recommendations
    from tuning.config import save
    from tuning.study import existing_spec

    spec = existing_spec(root, found.study)
    configs = [
        config_of(spec, recommendation, place)
        for place, recommendation in enumerate(found.recommendations, start=1)
    ]
    files = [save(config, config_dir) for config in configs]
    write_recommendations(root, found)
    return files


def _print(found: Recommendations, files: Sequence[Path], results_dir: Path) -> None:
    from tuning.cli import tables

    show = tables.CONSOLE.print
    show(_table(found))
    for note in found.notes:
        show(f"- {note}", soft_wrap=True)
    is_usual = results_dir == options.RESULTS_DIR
    own = "" if is_usual else f" --results-dir {shlex.quote(str(results_dir))}"
    for path in files:
        show(f"tuning trial --config {shlex.quote(str(path))}{own}", soft_wrap=True)


def _table(found: Recommendations) -> Table:
    from rich.table import Table

    table = Table(title=f"What to try next, by {found.focus_says}", title_justify="left")
    table.add_column("run", overflow="fold", min_width=16, ratio=3)
    for name in ("gain, points", "P(better)", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold", min_width=20, ratio=4)
    for place, run in enumerate(found.recommendations, start=1):
        label = f"{place}. {run.label} (seed {run.seed}, {run.kind.value.replace('_', ' ')})"
        table.add_row(label, _gain(run), _probability(run), _time(run), run.reason)
    table.caption = _caption(found)
    table.caption_justify = "left"
    return table


def _gain(run: Recommendation) -> str:
    if run.gain is None or run.low is None or run.high is None or run.probability is None:
        return "–"
    return f"{100 * run.gain:+.1f} [{100 * run.low:+.1f}, {100 * run.high:+.1f}]"


def _probability(run: Recommendation) -> str:
    return "–" if run.probability is None else f"{run.probability:.2f}"


def _time(run: Recommendation) -> str:
    from tuning.estimate import in_words

    return "–" if run.seconds is None else in_words(run.seconds)


def _caption(found: Recommendations) -> str:
    by = "By the model the best" if found.num_candidates else "The best"
    base = (
        f"{by} of {found.num_configurations} configurations in {found.num_runs} runs: {found.best}."
    )
    if found.spread is None or not found.num_candidates:
        return base
    known = "" if found.is_spread_known else ", a guess"
    return (
        f"{base} Gains over it and probabilities are those of a model of the results, with 95 % "
        f"intervals; {found.num_candidates:,} configurations were compared, and stand in the order "
        "of what a run is expected to teach about the best. Spread over seeds: "
        f"{100 * found.spread:.1f} points{known}."
    )
