"""`tuning study`: search, rank, report."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import completion, options, study_tools
from tuning.cli.progress import ERRORS
from tuning.cli.study_request import ARMS, StudyRequest, arms_of, make_spec, stopping_says
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.executor import Outcome
    from tuning.grid import Proposal
    from tuning.paths import ResultsRoot
    from tuning.study import StudySpec

app = typer.Typer(
    no_args_is_help=True,
    help="Search: run many trials, rank and compare them.\n\n"
    "Example: tuning study run --space demo --dry-run",
)

app.command("status")(study_tools.status)
app.command("stop")(study_tools.stop)
app.command("clean")(study_tools.clean)
app.command("rescore")(study_tools.rescore)
app.command("test")(study_tools.read_test)
app.command("dashboard")(study_tools.dashboard)


@app.command("run")
def run(
    space: Annotated[
        str | None,
        typer.Option(
            help="A space of ours by name, or a YAML file; with --arms the default alone if none.",
            autocompletion=completion.space_names,
        ),
    ] = None,
    overrides: options.Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; the space's, or arms, by default.")
    ] = None,
    config: options.ConfigFile = None,
    focus: options.FocusOption = None,
    step_scale: Annotated[
        float | None, typer.Option(help="Multiplies all step counts; the space's by default.")
    ] = None,
    num_trials: Annotated[
        int | None,
        typer.Option(help="Configurations that a random or bayesian space makes.", min=1),
    ] = None,
    arms: Annotated[
        str | None,
        typer.Option(
            help="Arms in which the default is trained, its own among them: "
            "spelling,format_control,direct."
        ),
    ] = None,
    replicates: Annotated[
        int | None,
        typer.Option(help="Seeds of every configuration, the default's too.", min=1, max=100),
    ] = None,
    seed: Annotated[int, typer.Option(help="First seed.", min=0, max=2**31)] = 0,
    max_failures: Annotated[int, typer.Option(help="Failed trials that end the study.", min=0)] = 5,
    pruning: Annotated[
        str | None,
        typer.Option(
            help="How trials are stopped early: poor_on_both, median, successive_halving, patience "
            "or none; the space's by default."
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="Proposals and prunings follow from committed results alone, never from who was "
            "faster.",
        ),
    ] = False,
    backend: options.Backend = options.BackendName.LOCAL,
    workers: options.Workers = None,
    threads: options.Threads = None,
    per_gpu: options.PerGpu = 1,
    ray_address: options.RayAddress = None,
    machine: options.CloudMachine = None,
    spot: options.Spot = None,
    impact_from: options.ImpactFrom = None,
    max_memory: options.MaxMemory = None,
    max_time: options.MaxTime = None,
    max_cost: options.MaxCost = None,
    hourly_price: options.HourlyPrice = 0.0,
    retry_failed: options.RetryFailed = False,
    tracking: options.Tracking = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Run a study, or go on with it where it was stopped.

    Ctrl-C once: running trials finish their step and write a checkpoint. Twice: stop now.

    Example: tuning study run --space demo --name first --focus transfer
    """
    resources = options.Resources(
        backend=backend,
        workers=workers,
        threads=threads,
        per_gpu=per_gpu,
        ray_address=ray_address,
        max_memory=max_memory,
        max_seconds=options.seconds_of(max_time),
        max_cost=max_cost,
        hourly_price=hourly_price,
        retry_failed=retry_failed,
        tracking=tracking,
        machine=machine,
        spot=spot,
        impact_from=impact_from,
        config_dir=config_dir,
    )
    request = StudyRequest(
        name=_named(space) if name is None else name,
        space=space,
        arms=None if arms is None else arms_of(arms),
        replicates=replicates,
        config=config,
        overrides=overrides or [],
        focus=focus,
        step_scale=step_scale,
        num_trials=num_trials,
        seed=seed,
        max_failures=max_failures,
        pruning=pruning,
        deterministic=deterministic,
        results_dir=results_dir,
        config_dir=config_dir,
    )
    spec = make_spec(request)
    run_or_plan(spec, results_dir, resources, dry_run=dry_run, quiet=quiet, as_json=as_json)


def run_or_plan(
    spec: StudySpec,
    results_dir: Path,
    resources: options.Resources,
    *,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a study and print what came out, or only say what it would take.

    Raises:
        UserError: The study, the model or a folder cannot be used.
        typer.Exit: It was stopped.
    """
    if not dry_run:
        run_and_print(spec, results_dir, resources, quiet=quiet, as_json=as_json)
    elif resources.backend is options.BackendName.LIGHTNING:
        from tuning.cli.cloud_study import print_cloud_plan

        print_cloud_plan(spec, results_dir, resources, as_json=as_json)
    else:
        print_plan(spec, results_dir, as_json=as_json)


def _named(space: str | None) -> str:
    return ARMS if space is None else Path(space).stem


@app.command("resume")
def resume(
    name: options.StudyName,
    max_failures: Annotated[
        int | None, typer.Option(help="Failed trials that end the study.", min=0)
    ] = None,
    backend: options.Backend = options.BackendName.LOCAL,
    workers: options.Workers = None,
    per_gpu: options.PerGpu = 1,
    ray_address: options.RayAddress = None,
    machine: options.CloudMachine = None,
    spot: options.Spot = None,
    impact_from: options.ImpactFrom = None,
    max_memory: options.MaxMemory = None,
    max_time: options.MaxTime = None,
    max_cost: options.MaxCost = None,
    hourly_price: options.HourlyPrice = 0.0,
    retry_failed: options.RetryFailed = False,
    tracking: options.Tracking = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Go on with a study, asked what it was asked before.

    Example: tuning study resume first --max-time 2h
    """
    from tuning.paths import ResultsRoot
    from tuning.study import existing_spec

    spec = existing_spec(ResultsRoot(results_dir), name)
    if max_failures is not None:
        spec = spec.model_copy(update={"max_failures": max_failures})
    resources = options.Resources(
        backend=backend,
        workers=workers,
        per_gpu=per_gpu,
        ray_address=ray_address,
        max_memory=max_memory,
        max_seconds=options.seconds_of(max_time),
        max_cost=max_cost,
        hourly_price=hourly_price,
        retry_failed=retry_failed,
        tracking=tracking,
        machine=machine,
        spot=spot,
        impact_from=impact_from,
        config_dir=config_dir,
    )
    run_and_print(spec, results_dir, resources, quiet=quiet, as_json=as_json)


def grid(request: StudyRequest, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """Write the default and every one-at-a-time variation as files, then run them.

    Raises:
        UserError: A configuration, the model or a folder cannot be used.
    """
    from tuning.cli.trial import ensure_model
    from tuning.grid import create_grid_search_configs

    spec = make_spec(request)
    if not dry_run:
        ensure_model(spec.base)
    files = create_grid_search_configs(
        request.name, space=spec.space, base=spec.base, config_dir=request.config_dir
    )
    if not (quiet or as_json):
        typer.echo(f"wrote {len(files)} configurations to {request.config_dir}")
    if dry_run:
        print_plan(spec, request.results_dir, as_json=as_json, files=files)
        return
    run_and_print(spec, request.results_dir, options.Resources(), quiet=quiet, as_json=as_json)


def in_cloud(
    request: StudyRequest, gpu_tier: str | None, *, dry_run: bool, quiet: bool, as_json: bool
) -> None:
    """Run a study as jobs of Lightning.AI, each on the machine of its own tier, or of one tier.

    Raises:
        UserError: There is no key, the cloud refuses, or a configuration cannot fit.
    """
    from tuning.cloud_settings import MACHINES_OF_TIERS

    resources = options.Resources(
        backend=options.BackendName.LIGHTNING,
        machine=MACHINES_OF_TIERS[gpu_tier] if gpu_tier is not None else None,
        config_dir=request.config_dir,
    )
    run_or_plan(
        make_spec(request),
        request.results_dir,
        resources,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
    )


@app.command("list")
def list_studies(
    as_json: options.Json = False, results_dir: options.ResultsDir = options.RESULTS_DIR
) -> None:
    """List the studies below the results folder.

    Example: tuning study list
    """
    from tuning.paths import ResultsRoot
    from tuning.study import load_study, lost_studies, study_names

    root = ResultsRoot(results_dir)
    rows: list[dict[str, Any]] = []
    mistakes = lost_studies(root)
    for name in study_names(root):
        try:
            spec, records = load_study(root, name)
            planned = spec.plan().num_trials
        except UserError as error:
            mistakes.append(str(error))
            continue
        statuses = Counter(record.result.status.value for record in records)
        counts = {status: statuses[status] for status in ("completed", "pruned", "failed")}
        rows.append({"study": name, "finished": len(records), "planned": planned, **counts})
    if as_json:
        typer.echo(json.dumps(rows))
    elif not rows and not mistakes:
        typer.echo(f"no studies in {root.data.absolute()}")
    for row in rows if not as_json else []:
        line = f"{row['study']}: {row['finished']} of {row['planned']} trials finished"
        if row["pruned"] or row["failed"]:
            ends = ("completed", "pruned", "failed")
            line += ": " + ", ".join(f"{row[end]} {end}" for end in ends if row[end])
        typer.echo(line)
    if mistakes:
        raise UserError("\n".join(mistakes))


_MAX_SHOWN = 200


def print_plan(
    spec: StudySpec, results_dir: Path, *, as_json: bool, files: Sequence[Path] = ()
) -> None:
    """Print the trials of a study, what they have in common, and what they cost.

    Raises:
        UserError: There are too many, or the study exists and was asked something else.
    """
    from tuning.cli.space import print_notes
    from tuning.estimate import estimate
    from tuning.fingerprint import training_key, weights_key
    from tuning.grid import check_size
    from tuning.paths import ResultsRoot
    from tuning.study import read_spec
    from tuning.study_history import refuse_other

    plan = spec.plan()
    check_size(plan)
    folder = ResultsRoot(results_dir).study(spec.name)
    if folder.spec.exists():
        refuse_other(read_spec(folder), spec, folder)
    known = list(plan.known())
    configs = [p.config for p in known]
    # A trial that follows from results is taken to cost what the default costs.
    open_trials = plan.num_trials - len(known)
    cost = estimate(configs, ResultsRoot(results_dir), num_like_first=open_trials)
    answer = {
        "model": spec.base.tokenizer_config.model_name,
        "pruning": spec.space.pruning.value,
        "trials": plan.num_trials,
        "weights": len({weights_key(c) for c in configs}) + open_trials,
        "trainings": len({training_key(c) for c in configs}) + open_trials,
        "steps": sum(c.training_config.max_steps for c in configs)
        + open_trials * configs[0].training_config.max_steps,
    }
    if as_json:
        estimated = dataclasses.asdict(cost)
        typer.echo(
            json.dumps({**answer, "estimate": estimated, "files": [str(path) for path in files]})
        )
        return
    _print_trials(known, open_trials)
    typer.echo(plan.says)
    typer.echo(
        f"{answer['trials']} trials, {answer['weights']} distinct weights in "
        f"{answer['trainings']} trainings, at most {answer['steps']:,} steps\n{cost.says}"
    )
    typer.echo(stopping_says(spec))
    print_notes(spec.space)


def _print_trials(known: Sequence[Proposal], open_trials: int) -> None:
    from tuning.ranking import Contender

    for proposal in known[:_MAX_SHOWN]:
        label = Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
        steps = proposal.config.training_config.max_steps
        typer.echo(f"{proposal.trial_id}  seed {proposal.seed}  {steps:>5} steps  {label}")
    if len(known) > _MAX_SHOWN:
        typer.echo(f"... and {len(known) - _MAX_SHOWN} more")
    if open_trials:
        typer.echo(f"{open_trials} trials that follow from the results before them")


def run_and_print(
    spec: StudySpec,
    results_dir: Path,
    resources: options.Resources,
    *,
    quiet: bool,
    as_json: bool,
    before_analysis: Callable[[], None] | None = None,
) -> None:
    """Run a study, analyse it and print what came out.

    Args:
        spec: The study.
        results_dir: Root of all results.
        resources: Where it runs, and how much it may use.
        quiet: Show no progress.
        as_json: Print the analysis as JSON.
        before_analysis: Called when every trial has ended.

    Raises:
        UserError: The model or the results folder cannot be used, or too many trials failed.
        typer.Exit: It was stopped.
    """
    from tuning.cli.mirroring import mirrored
    from tuning.cli.space import print_notes
    from tuning.cli.trial import ensure_model
    from tuning.executor import End
    from tuning.pruning import Pruning

    if resources.backend is options.BackendName.LIGHTNING:
        # A job of the cloud has the model, or fetches it there.
        from tuning.cli.cloud_study import ensure_cloud

        ensure_cloud(spec, results_dir, resources)
    else:
        ensure_model(spec.base)
    root = options.results_root(results_dir)
    if not quiet:
        print_notes(spec.space)
        is_new = not root.study(spec.name).spec.exists()
        if is_new and spec.space.pruning is not Pruning.NONE:
            ERRORS.print(f"note: {stopping_says(spec)}", highlight=False, soft_wrap=True)
    with mirrored(root, spec.name, resources.tracking):
        outcome = _run(spec, root, resources, quiet=quiet)
        if before_analysis is not None and outcome.end is End.FINISHED:
            before_analysis()
        go_on = _resume_command(spec, root, resources)
        print_outcome(spec, root, outcome, as_json=as_json, go_on=go_on)


def print_outcome(
    spec: StudySpec,
    root: ResultsRoot,
    outcome: Outcome,
    *,
    as_json: bool,
    go_on: str,
) -> None:
    """Analyse what was run and print what came out.

    Args:
        spec: The study.
        root: Where it is.
        outcome: What its run came to.
        as_json: Print the analysis as JSON.
        go_on: The command that goes on with it.

    Raises:
        typer.Exit: It was stopped.
        UserError: Every trial has ended, and none was completed.
    """
    from tuning.executor import End

    if outcome.end is not End.FINISHED:
        ERRORS.print(
            f"tuning: {outcome.message}; {len(outcome.records)} of {spec.plan().num_trials} trials "
            f"are finished; go on with: {go_on}",
            highlight=False,
            soft_wrap=True,
        )
    if outcome.end is End.STOPPED:
        raise typer.Exit(130)
    retry = f"{go_on} --retry-failed"
    failed = _failures(outcome, retry)
    if not any(record.result.metrics for record in outcome.records):
        if outcome.end is End.FINISHED:
            raise UserError(failed or "no trial was completed, so there is nothing to compare")
        return
    if failed:
        ERRORS.print(f"tuning: {failed}", highlight=False, soft_wrap=True)
    from tuning.cli.report import analyze_and_report

    analysis, path = analyze_and_report(root, spec.name)
    if as_json:
        typer.echo(json.dumps({"report": str(path), **dataclasses.asdict(analysis)}))
        return
    from tuning.cli import tables

    tables.CONSOLE.print(tables.ranking_table(analysis, tables.CONSOLE.width))
    if analysis.controls or analysis.base_arms:
        tables.CONSOLE.print(tables.arms_table(analysis))
    for note in analysis.notes:
        tables.CONSOLE.print(f"read with care: {note}")
    for sentence in analysis.verdict:
        tables.CONSOLE.print(f"- {sentence}")
    tables.CONSOLE.print(f"best configuration: {root.best_config(spec.name)}")
    tables.CONSOLE.print(f"report: {path}")


def _failures(outcome: Outcome, retry: str) -> str:
    """Return how many trials failed, why the last one did, and what to do; empty if none did."""
    from tuning.executor import is_failed

    failed = [record for record in outcome.records if is_failed(record)]
    if not failed:
        return ""
    last = failed[-1].result
    return (
        f"{len(failed)} of {len(outcome.records)} trials failed, the last one with "
        f"{last.error_type}: {last.error}; run them again with: {retry}"
    )


def _run(
    spec: StudySpec, root: ResultsRoot, resources: options.Resources, *, quiet: bool
) -> Outcome:
    """Run a study on the chosen backend."""
    if resources.backend is options.BackendName.LIGHTNING:
        from tuning.cli.cloud_study import run_in_cloud

        return run_in_cloud(
            spec, root, resources, quiet=quiet, again=_resume_command(spec, root, resources)
        )
    from tuning.cli.backend import open_backend
    from tuning.cli.live import live_study
    from tuning.cli.stopping import graceful_stop
    from tuning.executor import Limits, run_study
    from tuning.monitor import StudyMonitor

    limits = Limits(
        max_seconds=resources.max_seconds,
        max_cost=resources.max_cost,
        hourly_price=resources.hourly_price,
        retry_failed=resources.retry_failed,
    )
    with open_backend(spec, root, resources) as (backend, spec):
        monitor = StudyMonitor(spec, root)
        price = resources.hourly_price
        try:
            with graceful_stop() as is_to_stop, live_study(monitor, price, quiet=quiet) as watcher:
                return run_study(spec, root, backend, watcher, limits, is_to_stop)
        except KeyboardInterrupt:
            command = _resume_command(spec, root, resources)
            ERRORS.print(f"tuning: stopped at once; go on with: {command}", soft_wrap=True)
            raise


def _resume_command(spec: StudySpec, root: ResultsRoot, resources: options.Resources) -> str:
    where = ""
    if resources.backend is options.BackendName.LIGHTNING:
        where = " --backend lightning"
        where += f" --machine {resources.machine}" if resources.machine else ""
        where += "" if resources.spot is None else " --spot" if resources.spot else " --no-spot"
        where += f" --workers {resources.workers}" if resources.workers else ""
        if resources.config_dir != options.CONFIG_DIR:
            where += f" --config-dir {shlex.quote(str(resources.config_dir))}"
    return f"tuning study resume {spec.name}{where}{options.results_dir_option(root.root)}"
