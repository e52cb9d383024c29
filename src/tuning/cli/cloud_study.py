"""A study in the cloud: its plan with machines, hours and cost, and its run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tuning.cli import options
from tuning.cli.progress import ERRORS
from tuning.cli.study_request import stopping_says
from tuning.errors import UserError, numbered
from tuning.jobs import TRIAL_RUNNER

if TYPE_CHECKING:
    from rich.table import Table

    from tuning.cloud_plan import CloudPlan
    from tuning.cloud_settings import CloudSettings
    from tuning.executor import Outcome
    from tuning.paths import ResultsRoot
    from tuning.study import StudySpec

_MAX_SHOWN = 40


@dataclass(frozen=True)
class _Asked:
    """A study with all that decides on its jobs."""

    settings: CloudSettings
    plan: CloudPlan
    impacts: Mapping[str, tuple[float, str]]
    note: str
    """What the order rests on, where it is not the jobs' own worth."""
    budget: float | None = None
    """US dollars that the study may cost."""


def _ask(spec: StudySpec, root: ResultsRoot, resources: options.Resources) -> _Asked:
    from tuning.cloud_plan import plan_jobs
    from tuning.cloud_settings import read_settings

    settings = read_settings([resources.config_dir])
    if resources.spot is not None:
        scheduler = settings.scheduler.model_copy(update={"spot": resources.spot})
        settings = settings.model_copy(update={"scheduler": scheduler})
    impacts, note = _impacts(spec, root, resources.impact_from)
    machine = None if resources.machine is None else resources.machine.upper()
    plan = plan_jobs(
        spec, root, settings, machine=machine, impacts=impacts, max_jobs=resources.workers
    )
    return _Asked(settings, plan, impacts, note, resources.max_cost)


def _impacts(
    spec: StudySpec, root: ResultsRoot, study: str | None
) -> tuple[dict[str, tuple[float, str]], str]:
    """Return what each trial is expected to be worth, and why nothing is known if so."""
    plan = spec.plan()
    if plan.is_adaptive:
        return {}, "as trials follow from results"
    source = study or spec.name
    if study is None and not root.study(source).spec.exists():
        return (
            {},
            "cheap ones, as there are no results yet (--impact-from STUDY learns from another)",
        )
    from tuning.analysis.impact import expected_impacts

    known = list(plan.known())
    found = expected_impacts(root, source, [p.parameters for p in known])
    if found is None:
        return {}, f"cheap ones, as study {source} has too few results for a model"
    impacts = {p.trial_id: (i.points, i.why) for p, i in zip(known, found, strict=True)}
    return impacts, f"by what each is expected to teach about the best, from study {source}"


# --- the plan -----------------------------------------------------------------------------------


def print_cloud_plan(
    spec: StudySpec, results_dir: Path, resources: options.Resources, *, as_json: bool
) -> None:
    """Print a study's jobs with machines, hours and cost; needs neither SDK nor key.

    Raises:
        UserError: A configuration cannot fit on its machine, or the study was asked otherwise.
    """
    from tuning.grid import check_size
    from tuning.paths import ResultsRoot
    from tuning.study import read_spec
    from tuning.study_history import refuse_other

    check_size(spec.plan())
    root = ResultsRoot(results_dir)
    folder = root.study(spec.name)
    if folder.spec.exists():
        refuse_other(read_spec(folder), spec, folder)
    asked = _ask(spec, root, resources)
    if as_json:
        typer.echo(json.dumps(_plan_as_json(spec, asked)))
        return
    from tuning.cli import tables

    tables.CONSOLE.print(_plan_table(asked.plan))
    if len(asked.plan.jobs) > _MAX_SHOWN:
        typer.echo(f"... and {len(asked.plan.jobs) - _MAX_SHOWN} more jobs")
    for line in _plan_lines(spec, asked):
        typer.echo(line)


def _plan_as_json(spec: StudySpec, asked: _Asked) -> dict[str, Any]:
    plan = asked.plan
    return {
        "study": spec.name,
        "model": spec.base.tokenizer_config.model_name,
        "trials": plan.num_trials,
        "finished": plan.num_finished,
        "trainings": len(plan.jobs) + plan.num_open,
        "at_once": plan.at_once,
        "hours": plan.hours,
        "cost": plan.cost,
        "clock_hours": plan.clock_hours,
        "budget": asked.budget,
        "currency": "USD",
        "prices_as_of": str(asked.settings.prices.as_of),
        "order": asked.note,
        "jobs": [
            {
                "training": job.training_key,
                "trials": [p.trial_id for p in job.proposals],
                "machine": job.machine,
                "hours": job.hours,
                "cost": job.cost,
                "impact": job.impact,
                "why": job.why,
            }
            for job in plan.jobs
        ],
    }


def _plan_table(plan: CloudPlan) -> Table:
    from rich.table import Table

    from tuning.ranking import Contender

    table = Table(title="Jobs, in the order in which they begin", title_justify="left")
    table.add_column("job", justify="right")
    table.add_column("training of", overflow="fold", min_width=18, ratio=3)
    table.add_column("trials", justify="right")
    table.add_column("machine", no_wrap=True)
    for name in ("hours", "USD", "worth"):
        table.add_column(name, justify="right", no_wrap=True)
    for place, job in enumerate(plan.jobs[:_MAX_SHOWN], start=1):
        first = job.proposals[0]
        label = Contender(parameters=first.parameters, trial_ids=[], objectives=[]).label
        table.add_row(
            str(place),
            f"{label} (seed {first.seed})",
            str(len(job.proposals)),
            job.machine,
            _number(job.hours, ".2f"),
            _number(job.cost, ".2f"),
            f"{job.impact:.2f}" if job.impact else "–",
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _plan_lines(spec: StudySpec, asked: _Asked) -> list[str]:
    plan, prices = asked.plan, asked.settings.prices
    counts = Counter(job.machine for job in plan.jobs)
    machines = ", ".join(
        f"{count} on {machine} at {prices.per_hour(machine):.2f} USD an hour"
        for machine, count in counts.items()
    )
    num_trainings = len(plan.jobs) + plan.num_open
    lines = [
        f"model {spec.base.tokenizer_config.model_name}; {spec.plan().says}",
        f"{numbered(plan.num_trials, 'trial')} in {numbered(num_trainings, 'training')}, a job each"
        f"{f' ({plan.num_finished} trials are finished)' if plan.num_finished else ''}: "
        f"{machines or 'nothing is left to do'}",
    ]
    if plan.hours is not None and plan.cost is not None and plan.clock_hours is not None:
        lines.append(
            f"about {plan.hours:.2f} machine hours and {plan.cost:.2f} USD; {plan.at_once} at once "
            f"make it about {plan.clock_hours:.2f} hours by the clock"
        )
        lines.append(
            "hours follow from data sheets and the model's size, with 5 minutes to start a "
            "machine: right within a factor of about three"
        )
    else:
        lines.append("hours and cost are not known before the model is fetched")
    if asked.budget is not None:
        less = plan.cost is not None and asked.budget < plan.cost
        lines.append(
            f"budget {asked.budget:.2f} USD"
            f"{': less than that, so it ends before all trials have' if less else ''}"
        )
    scheduler = asked.settings.scheduler
    scale = spec.base.lightning_config.auto_scale
    lines.append(
        f"auto_scale {'lets up to' if scale else 'is off: always'} {plan.at_once} run at once; "
        f"{'spot machines' if scheduler.spot else 'machines that stay'}; "
        f"each job ends after {scheduler.max_hours:g} hours at the latest"
    )
    lines.append(stopping_says(spec))
    lines.append(f"order: the default first, then {asked.note}")
    lines.append(prices.says)
    return lines


def ensure_cloud(spec: StudySpec, results_dir: Path, resources: options.Resources) -> None:
    """Refuse what the cloud cannot run, or cannot be asked for, before anything is written.

    Raises:
        UserError: A configuration cannot fit, a machine has no price, or there is no key.
    """
    from tuning.lightning_integration import load_sdk
    from tuning.paths import ResultsRoot

    _ask(spec, ResultsRoot(results_dir), resources)
    load_sdk()


# --- the run ------------------------------------------------------------------------------------


def run_in_cloud(
    spec: StudySpec,
    root: ResultsRoot,
    resources: options.Resources,
    *,
    quiet: bool,
    again: str,
    runner: str = TRIAL_RUNNER,
) -> Outcome:
    """Run a study as jobs of Lightning.AI.

    Args:
        spec: The study.
        root: All results hang off it.
        resources: Machines, budgets.
        quiet: Show no progress.
        again: The command that goes on with it.
        runner: ``module:function`` that runs a trial in a job.

    Raises:
        UserError: There is no key, the cloud refuses, or a configuration cannot fit.
    """
    from tuning.backends.lightning import IDLE_SECONDS, LightningBackend
    from tuning.backends.process import Limits as WorkerLimits
    from tuning.cli.live import live_study
    from tuning.cli.stopping import graceful_stop
    from tuning.cloud_plan import siblings
    from tuning.executor import Limits, run_study
    from tuning.lightning_integration import Cloud
    from tuning.monitor import StudyMonitor
    from tuning.pruning import Pruning, pruner_of
    from tuning.studios import TaskStudio
    from tuning.study import read_spec

    asked = _ask(spec, root, resources)
    plan = asked.plan
    cloud = Cloud(asked.settings.studio)
    studio = TaskStudio(cloud, asked.settings, root, spec.name)
    prepare(studio, sleeps=spec.base.lightning_config.sleep_when_idle, quiet=quiet)
    machine = resources.machine.upper() if resources.machine else None
    hours = {job.training_key: job.hours for job in plan.jobs}
    pruner = pruner_of(spec.space.pruning, spec.space.pruning_arguments)
    # Where trials pause for each other, or follow from results, each is asked for by itself.
    pauses = spec.space.pruning is not Pruning.NONE and (pruner.pauses or spec.deterministic)
    joins = not (pauses or spec.plan().is_adaptive)
    folder = root.study(spec.name)
    stored = read_spec(folder) if folder.spec.exists() else None
    fixed = stored.num_threads if stored else None
    if fixed and resources.threads not in (None, fixed):
        raise UserError(
            f"--threads must be {fixed}, as study {spec.name} began, got {resources.threads}: "
            f"results depend on it"
        )
    settled = spec.model_copy(
        update={
            "num_threads": stored.num_threads if stored else resources.threads,
            "generation_size": stored.generation_size if stored else plan.at_once,
        }
    )
    memory = resources.max_memory
    worker_limits = WorkerLimits(
        memory_bytes=int(memory * 2**30) if memory else None, idle_seconds=IDLE_SECONDS
    )
    monitor = StudyMonitor(settled, root)
    try:
        with graceful_stop() as is_to_stop, live_study(monitor, 0.0, quiet=quiet) as watcher:
            backend = LightningBackend(
                root,
                cloud,
                asked.settings,
                spec.name,
                studio.name,
                auto_scale=spec.base.lightning_config.auto_scale,
                max_jobs=resources.workers,
                max_cost=resources.max_cost,
                machine_of=_machine_of(machine),
                together=(lambda job: siblings(job, plan, root, spec)) if joins else lambda job: (),
                priorities=asked.impacts,
                hours_of=lambda job, name: hours.get(job.training_key),
                num_threads=settled.num_threads,
                limits=worker_limits,
                runner=runner,
                said=watcher.said,
            )
            limits = Limits(
                max_seconds=resources.max_seconds,
                max_cost=resources.max_cost,
                spent=backend.cost,
                retry_failed=resources.retry_failed,
            )
            try:
                return run_study(
                    settled, root, backend, watcher, limits, is_to_stop, order=plan.order
                )
            finally:
                backend.close()
    except KeyboardInterrupt:
        ERRORS.print(f"tuning: stopped at once; go on with: {again}", soft_wrap=True)
        raise


def _machine_of(machine: str | None) -> Any:
    from tuning.cloud_settings import machine_for

    return machine_for if machine is None else lambda config: machine


def prepare(studio: Any, *, sleeps: bool, quiet: bool, project: Path | None = None) -> None:
    """Have the Studio of a task, with the environment of this checkout; it is stopped after.

    Raises:
        UserError: There is no checkout to make the environment from, or the cloud refuses.
    """
    from tuning.studios import DEVELOP, own_project

    studio.create()
    source = project or own_project()
    if source is None and studio.binding.project is None:
        raise UserError(
            "a Studio's environment is made from a checkout of this project: tuning lightning "
            f"studio create {studio.task} --project DIR"
        )
    if source is None or studio.has_environment_of(source):
        return
    if not quiet:
        ERRORS.print(f"note: making the environment of Studio {studio.name}", highlight=False)
    with studio.during(DEVELOP, stops=True, sleeps=sleeps):
        studio.set_up(source)
