"""`tuning wandb`: studies as runs of Weights & Biases."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import options
from tuning.errors import UserError

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


@app.command("sync")
def sync(
    names: Annotated[
        list[str] | None, typer.Argument(help="Studies; all of them by default.", metavar="[NAME]…")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Write the offline runs, and send nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on until no driver of these studies runs.")
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
    from tuning.tracked_runs import runs_of

    root = ResultsRoot(results_dir)
    studies = _studies(root, names or [])
    if dry_run:
        plan = {name: [run.run_id for run in runs_of(root, name)] for name in studies}
        _answer({"dry_run": True, "runs": plan}, _plan_lines(plan), as_json=as_json)
        return
    within = None if offline else seconds
    found = _once(root, studies, within, quiet=quiet or as_json)
    while watch and _is_running(root, studies):
        time.sleep(_WATCH_SECONDS)
        found = _once(root, studies, within, quiet=quiet or as_json)
    if watch:
        # What ended between the last look and the end of the drivers.
        found = _once(root, studies, within, quiet=quiet or as_json)
    answer = {
        name: {
            "runs": {run: state.value for run, state in of.states.items()},
            "new": of.num_new,
            "problems": of.problems,
        }
        for name, of in found.items()
    }
    _answer({"folder": str(root.wandb), "studies": answer}, _lines(root, found), as_json=as_json)
    if any(of.problems for of in found.values()):
        raise typer.Exit(1)


_WATCH_SECONDS = 5.0


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
        lines.append(f"{name}: {told}; {of.num_new} new")
        lines += [f"  {run}: {problem}" for run, problem in of.problems.items()]
    return [*lines, f"runs: {root.wandb}"]


def _answer(value: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value))
        return
    for line in lines:
        typer.echo(line)
