"""`tuning study`, and `tuning demo`: search, rank, report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options
from tuning.scoring import Focus

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot
    from tuning.study import StudySpec

app = typer.Typer(
    no_args_is_help=True,
    help="Search: run many trials, rank and compare them.\n\n"
    "Example: tuning study run --space demo --dry-run",
)

DEMO = "demo"


@app.command("run")
def run(
    space: Annotated[str, typer.Option(help="A space of ours by name, or a YAML file.")],
    overrides: options.Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; the space's by default.")
    ] = None,
    focus: options.FocusOption = Focus.BALANCED,
    step_scale: Annotated[
        float | None, typer.Option(help="Multiplies all step counts; the space's by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed.", min=0)] = 0,
    max_failures: Annotated[int, typer.Option(help="Failed trials that end the study.", min=0)] = 5,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run trials again that failed before.")
    ] = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Run a study, or go on with it where it was stopped.

    Example: tuning study run --space demo --name first --focus transfer
    """
    from tuning.paths import ResultsRoot

    study_name = Path(space).stem if name is None else name
    spec = _spec(
        ResultsRoot(results_dir),
        study_name,
        space,
        overrides or [],
        focus,
        step_scale,
        seed,
        max_failures,
    )
    if dry_run:
        _print_plan(spec, as_json=as_json)
        return
    root = options.results_root(results_dir)
    _run_and_print(spec, root, quiet=quiet, as_json=as_json, retry_failed=retry_failed)


def demo(
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Search, train, evaluate and report on the embedded model: offline, in minutes.

    Example: tuning demo --results-dir /tmp/demo
    """
    from tuning.paths import ResultsRoot

    spec = _spec(ResultsRoot(results_dir), DEMO, DEMO, [], Focus.BALANCED, None, 0, 5)
    _run_and_print(spec, options.results_root(results_dir), quiet=quiet, as_json=as_json)


@app.command("list")
def list_studies(
    as_json: options.Json = False, results_dir: options.ResultsDir = options.RESULTS_DIR
) -> None:
    """List the studies below the results folder.

    Example: tuning study list
    """
    from tuning.paths import ResultsRoot
    from tuning.study import load_study, study_names

    root = ResultsRoot(results_dir)
    rows = []
    for name in study_names(root):
        spec, records = load_study(root, name)
        rows.append({"study": name, "finished": len(records), "planned": len(spec.proposals())})
    if as_json:
        typer.echo(json.dumps(rows))
    for row in rows if not as_json else []:
        typer.echo(f"{row['study']}: {row['finished']} of {row['planned']} trials finished")


def _spec(
    root: ResultsRoot,
    name: str,
    space_name: str,
    overrides: list[str],
    focus: Focus,
    step_scale: float | None,
    seed: int,
    max_failures: int,
) -> StudySpec:
    from datetime import UTC, datetime

    from tuning.cli.trial import check_model
    from tuning.config import overridden, step_scaled
    from tuning.grid import base_experiment, load_space
    from tuning.study import StudySpec, existing_timestamp

    space = load_space(space_name)
    now = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    base = base_experiment(space, name, existing_timestamp(root, name) or now)
    base = overridden(base, overrides)
    check_model(base)
    step_scaled(base, space.step_scale if step_scale is None else step_scale)
    return StudySpec(
        name=name,
        space=space,
        base=base,
        focus=focus,
        step_scale=space.step_scale if step_scale is None else step_scale,
        seed=seed,
        max_failures=max_failures,
    )


def _print_plan(spec: StudySpec, *, as_json: bool) -> None:
    from tuning.config import training_key, weights_key
    from tuning.ranking import Contender

    planned = spec.proposals()
    plan = {
        "trials": len(planned),
        "weights": len({weights_key(p.config) for p in planned}),
        "trainings": len({training_key(p.config) for p in planned}),
        "steps": sum(p.config.training_config.max_steps for p in planned),
    }
    if as_json:
        typer.echo(json.dumps(plan))
        return
    for proposal in planned:
        label = Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
        steps = proposal.config.training_config.max_steps
        typer.echo(f"{proposal.trial_id}  seed {proposal.seed}  {steps:>5} steps  {label}")
    typer.echo(
        f"{plan['trials']} trials, {plan['weights']} distinct weights in {plan['trainings']} "
        f"trainings, at most {plan['steps']:,} steps"
    )


def _run_and_print(
    spec: StudySpec, root: ResultsRoot, *, quiet: bool, as_json: bool, retry_failed: bool = False
) -> None:
    from tuning.cli.progress import trial_progress
    from tuning.executor import run_study

    with trial_progress(quiet=quiet) as progress:
        run_study(spec, root, progress, retry_failed=retry_failed)
    from tuning.cli.report import analyze_and_report

    analysis, path = analyze_and_report(root, spec.name)
    if as_json:
        typer.echo(json.dumps({"report": str(path), **dataclasses.asdict(analysis)}))
        return
    from tuning.cli import tables

    tables.CONSOLE.print(tables.ranking_table(analysis, tables.CONSOLE.width))
    if analysis.controls or analysis.base_arms:
        tables.CONSOLE.print(tables.arms_table(analysis))
    for sentence in analysis.verdict:
        tables.CONSOLE.print(f"- {sentence}")
    tables.CONSOLE.print(f"best configuration: {root.best_configs / f'{spec.name}_best.yaml'}")
    tables.CONSOLE.print(f"report: {path}")
