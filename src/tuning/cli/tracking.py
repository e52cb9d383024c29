"""`tuning wandb`: studies as runs of Weights & Biases."""

from __future__ import annotations

import contextlib
import functools
import json
import select
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import completion, mirroring, options, sweeping
from tuning.errors import LockedError, UserError

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot
    from tuning.wandb_integration import Mirrored

app = typer.Typer(
    no_args_is_help=True,
    help="Show studies in Weights & Biases.\n\nExample: tuning wandb sync demo --offline",
)


@app.callback()
def group() -> None:
    """Show studies in Weights & Biases; they need it not, and never wait for it."""


app.command("sweep")(sweeping.sweep)
app.command("agent")(sweeping.agent)


@app.command("sync")
def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Studies; all of them by default.",
            metavar="[NAME]…",
            autocompletion=completion.study_names,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Write the offline runs, and send nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until no driver of these studies runs.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option(mirroring.FOLLOW, hidden=True, help="Go on until the standard input ends."),
    ] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", help="For which one run may be on its way.", min=1)
    ] = 120.0,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Bring Weights & Biases up to date with studies: every run once, whatever was cut off before.

    Makes a run of every finished trial, and of the untouched model, from the folders alone; then
    asks the server what it has, and sends the rest. The key is wandb's own business: `wandb login`,
    or WANDB_API_KEY.

    Examples: tuning wandb sync, tuning wandb sync demo --offline, tuning wandb sync demo --watch
    """
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    is_over: Callable[[float], bool] | None = _ended_input if follow else None
    studies = _follow_from(root, names or []) if follow else _studies(root, names or [])
    if dry_run:
        plan = {name: _planned(root, name) for name in studies}
        _answer({"dry_run": True, "runs": plan}, _plan_lines(plan), as_json=as_json)
        return
    if watch and is_over is None:
        is_over = _no_driver(root, studies)
    look = functools.partial(
        _once, root, studies, None if offline else seconds, quiet=quiet or as_json
    )
    found = look() if is_over is None else _watch(look, is_over)
    answer = {
        name: {
            "runs": {run: state.value for run, state in of.states.items()},
            "new": of.num_new,
            "sent": of.num_sent,
            "notes": of.notes,
            "problems": of.problems,
        }
        for name, of in found.items()
    }
    _answer({"folder": str(root.wandb), "studies": answer}, _lines(root, found), as_json=as_json)
    if any(of.problems for of in found.values()):
        raise typer.Exit(1)


@app.command("publish-views")
def publish_views(
    name: options.StudyName,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Save a workspace that shows the transfer: scatter plots, parallel coordinates, importance.

    Once after the first sync; again, it brings the same workspace up to date.

    Example: tuning wandb publish-views demo
    """
    from tuning.cli.progress import working
    from tuning.paths import ResultsRoot
    from tuning.study import existing_folder
    from tuning.wandb_integration import publish_views as published

    root = ResultsRoot(results_dir)
    existing_folder(root, name)
    if dry_run:
        line = f"would save the workspace of study {name}"
        _answer({"dry_run": True, "study": name}, [line], as_json=as_json)
        return
    with working(f"saving the workspace of {name}", quiet=quiet or as_json):
        url = published(root, name)
    _answer({"workspace": url}, [f"workspace: {url}"], as_json=as_json)


def _planned(root: ResultsRoot, name: str) -> list[str]:
    from tuning.study import existing_spec
    from tuning.tracked_analysis import analysis_run_id
    from tuning.tracked_runs import JobType, runs_of

    runs = list(runs_of(root, name))
    planned = [run.run_id for run in runs]
    # Where there is an untouched model to compare with, there is an analysis.
    if any(run.job_type is JobType.BASE for run in runs):
        planned.append(analysis_run_id(existing_spec(root, name)))
    return planned


def _watch(
    look: Callable[[], dict[str, Mirrored]], is_over: Callable[[float], bool]
) -> dict[str, Mirrored]:
    """Look again and again, and a last time when it is over; a server that is away may return.

    Args:
        look: Brings all up to date.
        is_over: Waits so many seconds, unless it is over before; tells whether it is.

    Raises:
        UserError: The last look failed.
    """
    seconds, said = 0.0, ""
    while not is_over(seconds):
        began = time.monotonic()
        try:
            look()
        except UserError as error:
            if str(error) != said:
                said = str(error)
                typer.echo(f"tuning: {said}; trying again", err=True)
        # A long look is followed by a long rest: the trials come first.
        seconds = max(_WATCH_SECONDS, _REST * (time.monotonic() - began))
    for _ in range(_LAST_TRIES):
        # Another study's runs may be on their way for long.
        with contextlib.suppress(LockedError):
            return look()
    return look()


_LAST_TRIES = 30


_WATCH_SECONDS = 5.0
_REST = 10
"""Rests, in looks."""


def _no_driver(root: ResultsRoot, studies: list[str]) -> Callable[[float], bool]:
    def is_over(seconds: float) -> bool:
        time.sleep(seconds)
        return not _is_running(root, studies)

    return is_over


def _ended_input(seconds: float) -> bool:
    """Wait for the end of the standard input; nothing is ever written to it."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


def _follow_from(root: ResultsRoot, names: list[str]) -> list[str]:
    """Return the studies once they are there; none if their starter ends before."""
    while not all(root.study(name).spec.exists() for name in names):
        if _ended_input(_WATCH_SECONDS / 10):
            return [name for name in names if root.study(name).spec.exists()]
    return names


def _studies(root: ResultsRoot, names: list[str]) -> list[str]:
    """Return the studies meant.

    Raises:
        UserError: One does not exist, or there is none.
    """
    from tuning.study import existing_folder, study_names

    for name in names:
        existing_folder(root, name)
    found = list(dict.fromkeys(names)) or study_names(root)
    if not found:
        raise UserError(f"there is no study in {root.data}; run one first: tuning demo")
    return found


def _once(
    root: ResultsRoot, studies: list[str], seconds: float | None, *, quiet: bool
) -> dict[str, Mirrored]:
    """Bring all up to date; without `seconds` nothing is sent."""
    from tuning.cli.progress import working
    from tuning.wandb_integration import mirror, upload

    found = {}
    for name in studies:
        doing = "writing" if seconds is None else "sending"
        with working(f"{doing} the runs of {name}", quiet=quiet):
            if seconds is None:
                found[name] = mirror(root, name)
            else:
                found[name] = upload(root, name, seconds)
    return found


def _is_running(root: ResultsRoot, studies: list[str]) -> bool:
    from tuning import files

    return any(files.is_locked(root.study(name).lock) for name in studies)


def _plan_lines(plan: dict[str, list[str]]) -> list[str]:
    return [f"{name}: {len(runs)} runs" for name, runs in plan.items()]


def _lines(root: ResultsRoot, found: dict[str, Mirrored]) -> list[str]:
    lines = []
    for name, of in found.items():
        counts: dict[str, int] = {}
        for state in of.states.values():
            counts[state.value] = counts.get(state.value, 0) + 1
        told = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no run yet"
        lines.append(f"{name}: {told}; {of.num_new} new, {of.num_sent} sent")
        lines += [f"  {note}" for note in of.notes]
        lines += [f"  {run}: {problem}" for run, problem in of.problems.items()]
    return [*lines, f"runs: {root.wandb}"]


def _answer(value: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value))
        return
    for line in lines:
        typer.echo(line)
