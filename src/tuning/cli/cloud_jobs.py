"""`tuning lightning submit`, `jobs`, `logs` and `cancel`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tuning.cli import completion, options
from tuning.cli.cloud_costs import checked_task, known_tasks
from tuning.cli.progress import ERRORS
from tuning.errors import UserError, nearest, numbered, shown
from tuning.paths import checked_name

if TYPE_CHECKING:
    from rich.table import Table

    from tuning.cloud_ledger import JobRun, JobSpec, Ledger
    from tuning.cloud_settings import CloudSettings, Template
    from tuning.lightning_jobs import Scheduler
    from tuning.paths import ResultsRoot

_MAX_SHOWN = 40


# --- submit -------------------------------------------------------------------------------------


def submit(
    template: Annotated[
        str,
        typer.Argument(
            help="single, one_at_a_time, grid, sweep_agent, evaluation, token_analysis, or a "
            "YAML file of jobs."
        ),
    ],
    overrides: options.Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the task; the template's by default.")
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="Fill in a value of the template: NAME=VALUE.", metavar="N=V"),
    ] = None,
    config: options.ConfigFile = None,
    machine: options.CloudMachine = None,
    gpu_tier: Annotated[
        Literal["cpu", "t4", "a100"] | None, typer.Option(help="The same by class of machine.")
    ] = None,
    spot: options.Spot = None,
    max_cost: options.MaxCost = None,
    workers: options.Workers = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Run a template in the cloud: a study with a job for each training, or commands as jobs.

    Jobs may need each other; what depends on a failed one is skipped. Killed, the same command
    finds its jobs again. What they write is brought back.

    Examples: tuning lightning submit token_analysis --dry-run

    tuning lightning submit grid --name grid models=qwen3-4b --machine A100 --dry-run
    """
    from tuning.cloud_settings import MACHINES_OF_TIERS, read_template

    given = _pairs(values or [])
    read = read_template(template, [config_dir])
    task = checked_name(name or Path(template).stem, "task")
    if gpu_tier is not None:
        if machine is not None:
            raise UserError("--machine and --gpu-tier both name the machine; leave one out")
        machine = MACHINES_OF_TIERS[gpu_tier]
    if read.study is not None:
        if given:
            raise UserError("--set belongs to templates of jobs; a study takes overrides KEY=VALUE")
        request = _Request(
            task,
            read,
            overrides or [],
            config,
            machine,
            spot,
            max_cost,
            workers,
            results_dir,
            config_dir,
        )
        _submit_study(request, dry_run=dry_run, quiet=quiet, as_json=as_json)
        return
    if overrides or config is not None:
        raise UserError(
            "overrides and --config belong to templates of studies; use --set NAME=VALUE"
        )
    request = _Request(
        task,
        read.filled(given),
        [],
        None,
        machine,
        spot,
        max_cost,
        workers,
        results_dir,
        config_dir,
    )
    _submit_jobs(request, dry_run=dry_run, quiet=quiet, as_json=as_json)


@dataclass(frozen=True)
class _Request:
    task: str
    template: Template
    overrides: Sequence[str]
    config: Path | None
    machine: str | None
    spot: bool | None
    max_cost: float | None
    workers: int | None
    results_dir: Path
    config_dir: Path


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"--set takes NAME=VALUE, got {shown(text)}")
        found[name] = value
    return found


def _submit_study(request: _Request, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    from tuning.cli.study import run_or_plan
    from tuning.cli.study_request import StudyRequest, make_spec

    study = request.template.study
    assert study is not None
    resources = options.Resources(
        backend=options.BackendName.LIGHTNING,
        machine=request.machine,
        spot=request.spot,
        max_cost=request.max_cost,
        workers=request.workers,
        config_dir=request.config_dir,
    )
    # The default alone is a space without anything to vary, in the arm that it has anyway.
    asked = StudyRequest(
        name=request.task,
        space=study.space if study.space is not None else _nothing_varied(),
        replicates=study.replicates,
        config=request.config,
        overrides=request.overrides,
        results_dir=request.results_dir,
        config_dir=request.config_dir,
    )
    run_or_plan(
        make_spec(asked),
        request.results_dir,
        resources,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
    )


def _nothing_varied() -> Any:
    from tuning.pruning import Pruning
    from tuning.search_space import SearchSpace, Strategy

    return SearchSpace(strategy=Strategy.LISTED, pruning=Pruning.NONE)


def _submit_jobs(request: _Request, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    from tuning.cloud_settings import read_settings
    from tuning.lightning_jobs import in_order

    settings = read_settings([request.config_dir])
    if request.workers is not None:
        bounds = {
            "max_jobs": request.workers,
            "min_jobs": min(request.workers, settings.scheduler.min_jobs),
        }
        scheduler = settings.scheduler.model_copy(update=bounds)
        settings = settings.model_copy(update={"scheduler": scheduler})
    specs = in_order(_specs(request, settings), settings.prices.per_hour)
    if dry_run:
        _print_jobs_plan(specs, settings, request, as_json=as_json)
        return
    runs = _run_jobs(specs, settings, request, quiet=quiet)
    _print_runs(request.task, runs, as_json=as_json)
    if any(run.stage.value != "done" for run in runs):
        raise typer.Exit(1)


def _specs(request: _Request, settings: CloudSettings) -> list[JobSpec]:
    from tuning.backends.cloud_job import VARIABLE, Payload
    from tuning.backends.lightning import command_of, shared_results
    from tuning.cloud_ledger import JobSpec
    from tuning.cloud_settings import family_of
    from tuning.files import sha256_of_json
    from tuning.studios import shared_variables

    found = []
    for name, job in request.template.jobs.items():
        machine = (request.machine or job.machine).upper()
        settings.prices.per_hour(machine)
        _check_arguments(name, job.arguments)
        payload = Payload(
            results=shared_results(settings),
            arguments=job.arguments,
            collect=job.collect,
            hardware=family_of(machine),
            publish_seconds=settings.scheduler.pull_seconds,
        )
        spots = (request.spot, job.spot, settings.scheduler.spot)
        max_hours = job.max_hours or settings.scheduler.max_hours
        retries = settings.scheduler.retries if job.retries is None else job.retries
        found.append(
            JobSpec(
                name=name,
                command=command_of(settings, max_hours),
                machine=machine,
                env={VARIABLE: payload.packed(), **shared_variables(settings)},
                needs=job.needs,
                priority=job.priority,
                hours=job.hours,
                max_hours=max_hours,
                retries=retries,
                spot=next(value for value in spots if value is not None),
                identity=sha256_of_json(payload.model_dump(mode="json")),
            )
        )
    return found


def _check_arguments(job: str, arguments: Sequence[str]) -> None:
    """Refuse a command that this program does not have, or an option of it, before it costs.

    Raises:
        UserError: It does not.
    """
    from tuning.cli.main import why_refused

    wrong = why_refused(arguments)
    if wrong is not None:
        raise UserError(f"job {job}: tuning {' '.join(arguments)}: {wrong}")


def _print_jobs_plan(
    specs: Sequence[JobSpec], settings: CloudSettings, request: _Request, *, as_json: bool
) -> None:
    rows: list[dict[str, Any]] = []
    for spec in specs:
        price = settings.prices.per_hour(spec.machine)
        rows.append(
            {
                "job": spec.name,
                "machine": spec.machine,
                "hours": spec.hours,
                "cost": None if spec.hours is None else spec.hours * price,
                "needs": list(spec.needs),
                "priority": spec.priority,
                "command": " ".join(request.template.jobs[spec.name].arguments),
            }
        )

    known = [row["cost"] for row in rows if row["cost"] is not None]
    total = sum(known) if len(known) == len(rows) else None
    if as_json:
        typer.echo(json.dumps({"task": request.task, "jobs": rows, "cost": total}))
        return
    typer.echo(request.template.about)
    for place, row in enumerate(rows, start=1):
        needs = f", after {', '.join(row['needs'])}" if row["needs"] else ""
        worth = f", priority {row['priority']:g}" if row["priority"] else ""
        takes = "an unknown time"
        if row["hours"] is not None:
            takes = f"{row['hours']:g} h, {row['cost']:.2f} USD"
        typer.echo(f"{place}. {row['job']} on {row['machine']}: {takes}{needs}{worth}")
        typer.echo(f"   tuning {row['command']}")
    typer.echo(
        f"{numbered(len(rows), 'job')}, at most {settings.scheduler.max_jobs} at once, "
        f"{'cost not known' if total is None else f'about {total:.2f} USD'}; {settings.prices.says}"
    )


def _run_jobs(
    specs: Sequence[JobSpec], settings: CloudSettings, request: _Request, *, quiet: bool
) -> list[JobRun]:
    """Run jobs that may need each other, and bring back what they wrote."""
    from tuning import files
    from tuning.backends.lightning import Drive, collect
    from tuning.cli.cloud_study import prepare
    from tuning.cli.stopping import graceful_stop
    from tuning.lightning_integration import Cloud
    from tuning.lightning_jobs import Scheduler
    from tuning.studios import TaskStudio

    root = options.results_root(request.results_dir)
    cloud = Cloud(settings.studio)
    studio = TaskStudio(cloud, settings, root, request.task)
    folder = root.cloud_task(request.task)
    say = (
        (lambda text: None)
        if quiet
        else (lambda text: ERRORS.print(f"note: {text}", highlight=False, soft_wrap=True))
    )
    with files.exclusive_lock(folder.lock, f"task {request.task}"), graceful_stop() as is_to_stop:
        prepare(studio, sleeps=True, quiet=quiet)
        drive = Drive(cloud, settings)
        scheduler = Scheduler(
            cloud,
            settings,
            folder,
            studio.name,
            outcome_of=drive.outcome,
            max_cost=request.max_cost,
            said=say,
        )
        runs = [scheduler.add_once(spec) for spec in specs]
        try:
            _drive(scheduler, runs, is_to_stop, say)
        finally:
            scheduler.stop_all("the command that submitted it ended")
            scheduler.remove_strays()
        for run in runs:
            if run.stage.value == "done":
                collect(drive, run, root)
                scheduler.collected(run)
        scheduler.settle(4 * settings.scheduler.poll_seconds)
    return runs


def _drive(scheduler: Scheduler, runs: Sequence[JobRun], is_to_stop: Any, say: Any) -> None:
    seen: dict[str, str] = {}
    while not all(run.stage.is_over for run in runs):
        scheduler.step()
        for run in runs:
            if seen.get(run.spec.name) != run.stage.value:
                seen[run.spec.name] = run.stage.value
                why = f": {run.message}" if run.message and run.stage.is_over else ""
                say(f"{run.spec.name} on {run.spec.machine}: {run.stage.value}{why}")
        if is_to_stop():
            raise KeyboardInterrupt
        if scheduler.is_over_budget and not scheduler.live:
            say(f"the budget of {scheduler.max_cost:g} USD is used up")
            return
        time.sleep(0.2)


def _print_runs(task: str, runs: Sequence[JobRun], *, as_json: bool) -> None:
    now = time.time()
    if as_json:
        typer.echo(json.dumps({"jobs": [_as_json(task, run, now) for run in runs]}))
        return
    for run in runs:
        why = f": {run.message}" if run.message else ""
        typer.echo(f"{run.spec.name}: {run.stage.value}, {run.cost(now):.4f} USD{why}")


# --- monitoring ---------------------------------------------------------------------------------


def jobs(
    task: Annotated[
        str | None,
        typer.Argument(
            help="A task or study; all of them if not given.",
            autocompletion=completion.task_names,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on showing them.")] = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Show jobs: how far they are, on what, for how long and how much.

    Reads the ledger that whoever submitted them keeps, so it needs no key and disturbs nobody.

    Example: tuning lightning jobs first --watch
    """
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    if watch and not as_json:
        _watch(root, task)
        return
    while True:
        rows = _rows(root, task)
        if as_json:
            typer.echo(json.dumps(rows))
        else:
            _print_table(rows, root)
        if not watch:
            return
        time.sleep(_WATCH_SECONDS)


def _watch(root: ResultsRoot, task: str | None) -> None:
    from rich.live import Live

    from tuning.cli import tables

    rows = _rows(root, task)
    with Live(_table(rows), console=tables.CONSOLE, auto_refresh=False) as live:
        while any(row["is_watched"] for row in rows):
            time.sleep(_WATCH_SECONDS)
            rows = _rows(root, task)
            live.update(_table(rows), refresh=True)
    typer.echo("nobody runs jobs any more")


_WATCH_SECONDS = 1.0


def _rows(root: ResultsRoot, task: str | None) -> list[dict[str, Any]]:
    from tuning import files
    from tuning.cloud_ledger import Ledger

    tasks = known_tasks(root) if task is None else [checked_task(root, task)]
    found, now = [], time.time()
    for name in tasks:
        folder = root.cloud_task(name)
        is_watched = files.is_locked(folder.lock)
        for run in Ledger.read(folder).runs.values():
            found.append({**_as_json(name, run, now), "is_watched": is_watched})
    return found


def _as_json(task: str, run: JobRun, now: float) -> dict[str, Any]:
    last = run.current
    return {
        "task": task,
        "job": run.spec.name,
        "stage": run.stage.value,
        "machine": run.spec.machine,
        "spot": bool(last and last.spot),
        "submissions": len({s.number for s in run.submissions}),
        "cloud_name": last.cloud_name if last else None,
        "hours": sum(s.seconds(now) for s in run.submissions) / 3600,
        "cost": run.cost(now),
        "priority": run.spec.priority,
        "why": run.spec.why,
        "needs": list(run.spec.needs),
        "message": run.message,
    }


def _print_table(rows: Sequence[Mapping[str, Any]], root: ResultsRoot) -> None:
    from tuning.cli import tables

    if not rows:
        typer.echo(f"no jobs in {root.cloud}")
        return
    tables.CONSOLE.print(_table(rows))
    unwatched = {r["task"] for r in rows if r["stage"] in _LIVE and not r["is_watched"]}
    for task in sorted(unwatched):
        typer.echo(
            f"task {task}: nobody watches its jobs; what runs goes on in the cloud until it ends. "
            f"The command that submitted them finds them again"
        )


_LIVE = ("submitted", "running")


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    from collections import Counter

    from rich.table import Table

    counts = Counter(row["stage"] for row in rows)
    said = ", ".join(f"{count} {stage}" for stage, count in counts.items())
    total = sum(row["cost"] for row in rows)
    table = Table(title=f"Jobs: {said}; {total:.4f} USD", title_justify="left")
    for name in ("task", "job", "stage", "machine"):
        table.add_column(name, overflow="fold")
    for name in ("tries", "hours", "USD"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold", ratio=1)
    order = {"running": 0, "submitted": 1, "failed": 2, "lost": 2, "cancelled": 2, "waiting": 3}
    for row in sorted(rows, key=lambda r: order.get(r["stage"], 4))[:_MAX_SHOWN]:
        table.add_row(
            row["task"],
            row["job"],
            row["stage"],
            f"{row['machine']}{' (spot)' if row['spot'] else ''}",
            str(row["submissions"]),
            f"{row['hours']:.3f}",
            f"{row['cost']:.4f}",
            row["message"] or row["why"],
        )
    if len(rows) > _MAX_SHOWN:
        table.caption = f"and {len(rows) - _MAX_SHOWN} more; --json has all"
    return table


TaskName = Annotated[
    str, typer.Argument(help="The task or study.", autocompletion=completion.task_names)
]
JobName = Annotated[str, typer.Argument(help="The job: of a study, the id of its trial.")]


def logs(
    task: TaskName,
    job: JobName,
    tail: Annotated[int | None, typer.Option(help="Only the last lines.", min=1)] = None,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Print what a job has said so far.

    Example: tuning lightning logs first 0003-1a2b3c4d --tail 20
    """
    from tuning.cloud_settings import read_settings
    from tuning.lightning_integration import Cloud

    name = _cloud_name(results_dir, task, job)
    typer.echo(Cloud(read_settings([config_dir]).studio).logs(name, tail).rstrip("\n"))


def cancel(
    task: TaskName,
    job: JobName,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Stop a job now. Its trial counts as failed; --retry-failed runs it again.

    To have it write a checkpoint first, stop the study: tuning study stop NAME

    Example: tuning lightning cancel first 0003-1a2b3c4d
    """
    from tuning.cloud_settings import read_settings
    from tuning.lightning_integration import Cloud

    name = _cloud_name(results_dir, task, job)
    cloud = Cloud(read_settings([config_dir]).studio)
    state = cloud.job(name)
    if state is None or state.phase.is_over:
        typer.echo(f"{job} is over already: {'gone' if state is None else state.phase.value}")
        return
    cloud.stop_job(name)
    typer.echo(f"{job} is stopped")


def running(
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Show everything in the teamspace that costs now, whoever began it: Studios and jobs.

    Example: tuning lightning running
    """
    from tuning.cloud_settings import read_settings
    from tuning.lightning_integration import Cloud
    from tuning.studios import TASK_VARIABLE

    cloud = Cloud(read_settings([config_dir]).studio)
    rows = [
        {
            "kind": "studio",
            "name": s.name,
            "state": s.status,
            "machine": s.machine or "",
            "task": s.env.get(TASK_VARIABLE),
        }
        for s in cloud.studios()
        if s.status != "Stopped"
    ]
    rows += [
        {"kind": "job", "name": j.name, "state": j.phase.value, "machine": j.machine, "task": None}
        for j in cloud.jobs()
        if not j.phase.is_over
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        whose = f", task {row['task']}" if row["task"] else ""
        typer.echo(f"{row['kind']} {row['name']}: {row['state']} on {row['machine']}{whose}")
    if not rows:
        typer.echo(f"nothing runs in teamspace {cloud.teamspace}")


def _cloud_name(results_dir: Path, task: str, job: str) -> str:
    """Return how the cloud calls the newest submission of a job.

    Raises:
        NotFoundError: There is no such task or job, or it was never submitted.
    """
    from tuning.cloud_ledger import Ledger
    from tuning.errors import NotFoundError
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    ledger: Ledger = Ledger.read(root.cloud_task(checked_task(root, task)))
    run = ledger.runs.get(job)
    if run is None:
        raise NotFoundError(f"task {task} has no job {shown(job)}; {nearest(job, ledger.runs)}")
    if run.current is None:
        raise NotFoundError(f"job {job} has not been submitted yet; it is {run.stage.value}")
    return run.current.cloud_name
