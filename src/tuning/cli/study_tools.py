"""`tuning study status | stop | clean | rescore | test | dashboard`."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options
from tuning.cli.progress import ERRORS
from tuning.errors import UserError
from tuning.scoring import Focus, Weights

if TYPE_CHECKING:
    from tuning.study import FinalTest


def status(
    name: options.StudyName,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again and again.")] = False,
    hourly_price: options.HourlyPrice = 0.0,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Show how a study goes on: every trial, both families of metrics, speed, time left, cost.

    Reads the folders alone, so it works from any machine that sees them.

    Example: tuning study status first --watch
    """
    from tuning.cli.live import status_table
    from tuning.cli.tables import CONSOLE
    from tuning.monitor import StudyMonitor
    from tuning.paths import ResultsRoot
    from tuning.study import existing_spec

    root = ResultsRoot(results_dir)
    monitor = StudyMonitor(existing_spec(root, name), root)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(monitor.status())))
        return
    if not watch:
        CONSOLE.print(status_table(monitor.status(), CONSOLE.width, hourly_price))
        return
    from rich.live import Live

    try:
        with Live(console=CONSOLE, auto_refresh=False) as live:
            while True:
                now = monitor.status()
                table = status_table(now, CONSOLE.width, hourly_price)
                live.update(table, refresh=True)
                if not now.is_running:
                    return
                time.sleep(_WATCH_SECONDS)
    except KeyboardInterrupt:
        return


_WATCH_SECONDS = 1.0


def stop(
    name: options.StudyName,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until its driver has ended.")
    ] = True,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Ask the driver of a study to stop: running trials finish their step and write a checkpoint.

    Example: tuning study stop first
    """
    from tuning import files
    from tuning.paths import ResultsRoot
    from tuning.study import existing_folder

    root = ResultsRoot(results_dir)
    folder = existing_folder(root, name)
    if not files.is_locked(folder.lock):
        raise UserError(f"study {name}: no driver runs it, so there is nothing to stop")
    files.write_json(folder.control, {"stop": True})
    while wait and files.is_locked(folder.lock):
        time.sleep(0.2)
    typer.echo(f"study {name} {'has stopped' if wait else 'was asked to stop'}")


def clean(
    name: options.StudyName,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole", help="Remove the study itself, and trainings that no other study asks for."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Remove what is of no use: half-written files, weights of trials that were pruned or failed.

    Example: tuning study clean first --dry-run
    """
    from tuning.cleaning import find_waste, remove_waste
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    waste = find_waste(root, name, whole=whole)
    if as_json:
        listed = [str(path) for path in waste.paths]
        typer.echo(json.dumps({"paths": listed, "bytes": waste.num_bytes}))
    else:
        for path in waste.paths:
            typer.echo(str(path))
        typer.echo(f"{len(waste.paths)} files and folders, {waste.num_bytes / 2**20:.1f} MiB")
    if dry_run or not waste.paths:
        return
    if not yes and not typer.confirm("remove them?", err=True):
        raise typer.Exit(1)
    remove_waste(root, name, waste)


def rescore(
    name: options.StudyName,
    focus: Annotated[Focus | None, typer.Option(help="What trials are to be ranked by.")] = None,
    position_weight: Annotated[
        float | None, typer.Option(help="Weight of position in the score.", min=0, max=1)
    ] = None,
    count_weight: Annotated[
        float | None, typer.Option(help="Weight of count in the score.", min=0, max=1)
    ] = None,
    new_name: Annotated[
        str | None, typer.Option("--as", help="Name of the study that it makes.")
    ] = None,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Rank a study by something else, from its stored answers: trains nothing, loads no model.

    Makes a study of its own, with its own report; it can be resumed.

    Example: tuning study rescore first --focus transfer
    """
    from tuning.cli.report import analyze_and_report
    from tuning.cli.tables import CONSOLE, ranking_table
    from tuning.paths import ResultsRoot
    from tuning.rescoring import rescore as rescored
    from tuning.study import load_study
    from tuning.study_history import save_best

    weights = _weights(focus, position_weight, count_weight)
    suffix = focus.value if focus else f"p{position_weight:g}_c{count_weight:g}"
    root, chosen = ResultsRoot(results_dir), focus or Focus.BALANCED
    spec = rescored(root, name, new_name or f"{name}_{suffix}", chosen, weights)
    save_best(spec, root, load_study(root, spec.name)[1])
    analysis, path = analyze_and_report(root, spec.name)
    if as_json:
        typer.echo(json.dumps({"report": str(path), **dataclasses.asdict(analysis)}))
        return
    CONSOLE.print(ranking_table(analysis, CONSOLE.width))
    CONSOLE.print(f"study: {spec.name}\nreport: {path}")


def _weights(
    focus: Focus | None, position_weight: float | None, count_weight: float | None
) -> Weights | None:
    if position_weight is None and count_weight is None:
        if focus is None:
            raise UserError("rescore needs --focus, or --position-weight and --count-weight")
        return None
    if position_weight is None or count_weight is None:
        raise UserError("--position-weight and --count-weight belong together: give both")
    if focus is not None:
        raise UserError("--focus has weights of its own: give it, or the two weights, not both")
    return Weights(position_weight, count_weight)


def read_test(
    name: options.StudyName,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Score the first of the ranking, and the default, on the words of the test split.

    Validation words have chosen; each configuration is asked about test words once, the read is
    an event of the study, and its answer is given again from then on.

    Example: tuning study test first
    """
    from tuning.cli.progress import item_progress
    from tuning.cli.tables import CONSOLE, task_table
    from tuning.final_test import read_test_split
    from tuning.paths import ResultsRoot

    with item_progress(quiet=quiet) as on_progress:
        tests = read_test_split(ResultsRoot(results_dir), name, on_progress)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(test) for test in tests]))
        return
    for found in tests:
        for trial_id, results in found.seeds.items():
            title = f"Test words: {found.label}, trial {trial_id}"
            CONSOLE.print(task_table(results, title))
    CONSOLE.print(_flattery(tests))


def _flattery(tests: list[FinalTest]) -> str:
    return (
        "Chosen on validation words, asked here about words that chose nothing: these are the "
        f"numbers to report, over {len(tests[0].seeds)} seed(s) of the first of the ranking."
    )


def dashboard(
    name: options.StudyName,
    port: Annotated[int, typer.Option(help="Port on this machine.", min=0, max=65535)] = 8080,
    export_only: Annotated[
        bool, typer.Option("--export-only", help="Write study.db and open nothing.")
    ] = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Export a study to study.db and show it with Optuna's dashboard, to this machine alone.

    Example: tuning study dashboard first --port 8081
    """
    from tuning.optuna_export import export_study
    from tuning.paths import ResultsRoot
    from tuning.study import load_study

    root = ResultsRoot(results_dir)
    spec, records = load_study(root, name)
    export_study(spec, root, records)
    path = root.study(name).optuna
    typer.echo(f"wrote {len(records)} finished trials to {path}")
    if not export_only:
        _serve(path, port)


def _serve(path: Path, port: int) -> None:
    try:
        import optuna_dashboard
    except ModuleNotFoundError as error:
        raise UserError(
            "the dashboard needs the package optuna-dashboard: pip install 'tuning[dashboard]'"
        ) from error
    ERRORS.print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", highlight=False)
    try:
        optuna_dashboard.run_server(f"sqlite:///{path.absolute()}", host="127.0.0.1", port=port)
    except OSError as error:
        raise UserError(
            f"port {port} cannot be had: {error.strerror}; choose another with --port"
        ) from error
    except KeyboardInterrupt:
        return
