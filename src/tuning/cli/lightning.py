"""`tuning lightning`: Studios, jobs and costs of Lightning.AI."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import cloud_costs, cloud_jobs, completion, options
from tuning.cli.progress import ERRORS
from tuning.cli.stopping import ending_tidily
from tuning.errors import CloudError, UserError

if TYPE_CHECKING:
    from tuning.cloud_settings import CloudSettings
    from tuning.lightning_integration import StudioState
    from tuning.studios import TaskStudio

app = typer.Typer(
    no_args_is_help=True,
    help="Lightning.AI: a Studio for each task, jobs, machines and costs.\n\n"
    "Example: tuning lightning doctor",
)
studio_app = typer.Typer(
    no_args_is_help=True,
    help="The Studio of a task: one task, one Studio.\n\n"
    "Example: tuning lightning studio create first --dry-run",
)
app.add_typer(studio_app, name="studio")
app.command("submit")(cloud_jobs.submit)
app.command("jobs")(cloud_jobs.jobs)
app.command("logs")(cloud_jobs.logs)
app.command("cancel")(cloud_jobs.cancel)
app.command("running")(cloud_jobs.running)
app.command("cost")(cloud_costs.cost)

Task = Annotated[
    str,
    typer.Argument(
        help="Name of the task; of a study, the study's.", autocompletion=completion.task_names
    ),
]
PhaseName = Annotated[str, typer.Argument(help="A phase of phases.yaml: develop, test, train.")]
NoSleep = Annotated[
    bool,
    typer.Option("--no-sleep", help="Keep it awake when idle: a free machine then costs too."),
]


# --- doctor -------------------------------------------------------------------------------------


@app.command("doctor")
def doctor(
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Check credentials, teamspace, machines and prices; changes nothing.

    Example: tuning lightning doctor
    """
    from tuning.cloud_settings import read_settings
    from tuning.lightning_integration import HOW_TO_LOG_IN, credentials, is_installed

    settings = read_settings([config_dir])
    key = credentials()
    found: dict[str, Any] = {
        "sdk": _sdk_version() if is_installed() else None,
        "credentials": key.source,
        "prices_as_of": str(settings.prices.as_of),
        "prices": settings.prices.says,
    }
    if not dry_run and key.is_there and is_installed():
        found |= _asked_of_cloud(settings)
    problems = []
    if not is_installed():
        problems.append("lightning-sdk is not installed: pip install 'tuning[lightning]'")
    if not key.is_there:
        problems.append(f"no key for Lightning.AI; {HOW_TO_LOG_IN}")
    problems += found.pop("problems", [])
    if as_json:
        typer.echo(json.dumps({**found, "problems": problems}))
    else:
        _print_doctor(found, dry_run=dry_run)
    if problems and not dry_run:
        raise UserError("\n".join(problems))
    for problem in problems:
        ERRORS.print(f"note: {problem}", highlight=False, soft_wrap=True)


def _sdk_version() -> str:
    from importlib.metadata import version

    return version("lightning-sdk")


def _asked_of_cloud(settings: CloudSettings) -> dict[str, Any]:
    """Return what the cloud says of teamspace and machines."""
    from tuning.lightning_integration import Cloud

    try:
        cloud = Cloud(settings.studio)
        offers = cloud.offers()
    except CloudError as error:
        return {"problems": [str(error)]}
    there = {offer.machine: offer for offer in sorted(offers, key=lambda o: -(o.per_hour or 0))}
    problems = [
        f"phase {name} wants {phase.machine}, which cannot be had now"
        for name, phase in settings.phases.items()
        if phase.machine not in there
    ]
    machines = []
    for name, offer in sorted(there.items()):
        own = settings.prices.machines.get(name)
        machines.append(
            {
                "machine": name,
                "per_hour": offer.per_hour,
                "spot_per_hour": offer.spot_per_hour,
                "cloud": offer.cloud,
                "table": max(own.values()) if own else None,
            }
        )
    return {"teamspace": cloud.teamspace, "machines": machines, "problems": problems}


def _print_doctor(found: Mapping[str, Any], *, dry_run: bool) -> None:
    from rich.table import Table

    from tuning.cli import tables

    typer.echo(f"sdk:         {found['sdk'] or 'not installed'}")
    typer.echo(f"credentials: {found['credentials'] or 'none'}")
    if dry_run:
        typer.echo("would ask:   who I am, the teamspace, its machines and their prices")
    if "teamspace" in found:
        typer.echo(f"teamspace:   {found['teamspace']}")
        table = Table(title="Machines that can be had now, USD an hour", title_justify="left")
        table.add_column("machine", no_wrap=True)
        for name in ("today", "as spot", "prices.yaml"):
            table.add_column(name, justify="right", no_wrap=True)
        for machine in found["machines"]:
            prices = (machine[name] for name in ("per_hour", "spot_per_hour", "table"))
            table.add_row(machine["machine"], *("–" if p is None else f"{p:.2f}" for p in prices))
        tables.CONSOLE.print(table)
    typer.echo(f"{found['prices']}")


# --- Studios ------------------------------------------------------------------------------------


def _settings(config_dir: Path) -> CloudSettings:
    from tuning.cloud_settings import read_settings

    return read_settings([config_dir])


def _open(task: str, results_dir: Path, settings: CloudSettings) -> TaskStudio:
    """Return a task's Studio; talks to the cloud.

    Raises:
        UserError: There is no key, or no SDK.
    """
    from tuning.lightning_integration import Cloud
    from tuning.studios import TaskStudio

    root = options.results_root(results_dir)
    return TaskStudio(Cloud(settings.studio), settings, root, task)


def _say(state: StudioState | None, task: str, *, as_json: bool) -> None:
    import dataclasses

    if as_json:
        told = None if state is None else dataclasses.asdict(state)
        if told is not None:
            # Variables of a Studio may hold what is nobody's business.
            told.pop("env")
        typer.echo(json.dumps({"task": task, "studio": told}))
    elif state is None:
        typer.echo(f"task {task} has no Studio")
    else:
        machine = f" on {state.machine}" if state.machine else ""
        sleep = f"sleeps after {state.sleep_seconds} s" if state.auto_sleep else "never sleeps"
        typer.echo(f"{state.name}: {state.status}{machine}; {sleep} without work")


def _say_plan(
    settings: CloudSettings, phases: Sequence[str], what: Sequence[str], *, as_json: bool
) -> None:
    """Print what a command would do, and what it would cost."""
    from tuning.studios import plan_of_phases

    steps = plan_of_phases(settings, phases)
    total = sum(step.cost for step in steps)
    if as_json:
        rows = [
            {"phase": s.what, "machine": s.machine, "hours": s.hours, "cost": s.cost} for s in steps
        ]
        typer.echo(json.dumps({"would": list(what), "phases": rows, "cost": total}))
        return
    for line in what:
        typer.echo(f"would {line}")
    if not steps:
        return
    for step in steps:
        typer.echo(
            f"{step.what}: {step.hours:g} h on {step.machine} at {step.per_hour:.2f} USD an hour, "
            f"{step.cost:.2f} USD"
        )
    typer.echo(f"in all about {total:.2f} USD; {settings.prices.says}")


@studio_app.command("create")
def create(
    task: Task,
    studio: Annotated[
        str | None, typer.Option(help="Its name; by default the prefix and the task.")
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(help="Checkout that its environment is made from; this program's by default."),
    ] = None,
    setup: Annotated[bool, typer.Option("--setup/--no-setup", help="Make its environment.")] = True,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Make the Studio of a task, with the environment of this project, and stop it again.

    A Studio serves one task; a task has one Studio.

    Example: tuning lightning studio create first
    """
    from tuning.cli.cloud_study import prepare
    from tuning.studios import studio_name

    settings = _settings(config_dir)
    if dry_run:
        name = studio or studio_name(settings, task)
        what = [f"create Studio {name} for task {task}"]
        if setup:
            commands = "; ".join(settings.studio.setup) or "nothing"
            what.append(
                "start it on a processor, upload pyproject.toml, constraints.txt, src and "
                f"configs, run there: {commands}; and stop it"
            )
        _say_plan(settings, ["develop"] if setup else [], what, as_json=as_json)
        return
    opened = _open(task, results_dir, settings)
    with ending_tidily():
        opened.create(studio)
        if setup:
            prepare(opened, sleeps=True, quiet=quiet, project=project)
    _say(opened.state(), task, as_json=as_json)


@studio_app.command("start")
def start(
    task: Task,
    phase: Annotated[str, typer.Option(help="A phase of phases.yaml.")] = "develop",
    no_sleep: NoSleep = False,
    spot: Annotated[bool, typer.Option("--spot", help="A machine that may be taken away.")] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Start a task's Studio on the machine of a phase, the processor by default.

    Example: tuning lightning studio start first
    """
    _enter(task, phase, no_sleep, spot, dry_run, as_json, results_dir, config_dir)


@studio_app.command("switch")
def switch(
    task: Task,
    phase: PhaseName,
    no_sleep: NoSleep = False,
    spot: Annotated[bool, typer.Option("--spot", help="A machine that may be taken away.")] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Move a task's Studio to the machine of another phase, and prove that it is there.

    If it cannot be done the Studio goes back to its processor, or is stopped.

    Example: tuning lightning studio switch first test
    """
    _enter(task, phase, no_sleep, spot, dry_run, as_json, results_dir, config_dir)


def _enter(
    task: str,
    phase: str,
    no_sleep: bool,
    spot: bool,
    dry_run: bool,
    as_json: bool,
    results_dir: Path,
    config_dir: Path,
) -> None:
    settings = _settings(config_dir)
    wanted = settings.phase(phase)
    if dry_run:
        what = [f"have the Studio of task {task} run on {wanted.machine}, look whether it does"]
        _say_plan(settings, [phase], what, as_json=as_json)
        return
    opened = _open(task, results_dir, settings)
    with ending_tidily():
        state = opened.enter(phase, sleeps=not no_sleep, spot=spot)
    _say(state, task, as_json=as_json)
    if not as_json:
        price = opened.per_hour()
        typer.echo(f"it costs {price:.2f} USD an hour until: tuning lightning studio stop {task}")


@studio_app.command("run", context_settings={"ignore_unknown_options": True})
def run(
    task: Task,
    command: Annotated[list[str], typer.Argument(help="After --: the command.")],
    phase: Annotated[str, typer.Option(help="A phase of phases.yaml.")] = "develop",
    then: Annotated[
        str, typer.Option(help="Afterwards, whatever happened: stop, or develop.")
    ] = "stop",
    minutes: Annotated[
        float | None, typer.Option(help="Give the command up after so long.", min=0.01)
    ] = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Run a command in a task's Studio on the machine of a phase, and leave the machine.

    Ends with the command's own exit code.

    Example: tuning lightning studio run first --phase test -- tuning trial lightning=t4
    """
    settings = _settings(config_dir)
    if then not in ("stop", "develop"):
        raise UserError(f"--then must be stop or develop, got {then}")
    wanted, text = settings.phase(phase), shlex.join(command)
    if dry_run:
        end = "stop it" if then == "stop" else "bring it back to its processor"
        what = [
            f"have the Studio of task {task} run on {wanted.machine}",
            f"run there: {text}",
            f"{end}, whatever happens",
        ]
        _say_plan(settings, [phase], what, as_json=as_json)
        return
    opened = _open(task, results_dir, settings)
    with ending_tidily(), opened.during(phase, stops=then == "stop"):
        said, code = opened.cloud.run_in_studio(opened.name, text, minutes)
    if as_json:
        typer.echo(json.dumps({"output": said, "code": code}))
    else:
        typer.echo(said)
    if code:
        raise typer.Exit(code if 0 < code < 126 else 1)


@studio_app.command("status")
def status(
    task: Task,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Say how a task's Studio is: running, on what, whether it goes to sleep. Never wakes it.

    Example: tuning lightning studio status first
    """
    settings = _settings(config_dir)
    if dry_run:
        _say_plan(settings, [], [f"ask for the Studio of task {task}"], as_json=as_json)
        return
    _say(_open(task, results_dir, settings).state(), task, as_json=as_json)


@studio_app.command("stop")
def stop(
    task: Task,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Stop a task's Studio; its files stay.

    Example: tuning lightning studio stop first
    """
    settings = _settings(config_dir)
    if dry_run:
        _say_plan(settings, [], [f"stop the Studio of task {task}"], as_json=as_json)
        return
    opened = _open(task, results_dir, settings)
    opened.stop()
    _say(opened.state(), task, as_json=as_json)


@studio_app.command("delete")
def delete(
    task: Task,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Delete a task's Studio with its files; what it has cost stays known.

    Example: tuning lightning studio delete first --yes
    """
    settings = _settings(config_dir)
    if dry_run:
        what = [f"stop and delete the Studio of task {task}, with its files"]
        _say_plan(settings, [], what, as_json=as_json)
        return
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"deleting the Studio of task {task} cannot be undone; say --yes")
        typer.confirm(f"Delete the Studio of task {task} with its files?", abort=True)
    opened = _open(task, results_dir, settings)
    opened.delete()
    if as_json:
        _say(None, task, as_json=True)
    else:
        typer.echo(
            f"task {task} has no Studio any more; what it has cost: tuning lightning cost {task}"
        )


# --- secrets ------------------------------------------------------------------------------------


@app.command("secret")
def secret(
    name: Annotated[
        str, typer.Argument(help="Of a variable of this shell, such as HF_TOKEN or WANDB_API_KEY.")
    ],
    dry_run: options.DryRun = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Keep a secret in the teamspace's own store: Studios and jobs have it as a variable.

    Its value is read from the variable of that name here; it is printed and logged nowhere.

    Example: HF_TOKEN=... tuning lightning secret HF_TOKEN
    """
    settings = _settings(config_dir)
    if dry_run:
        typer.echo(f"would keep the value of variable {name} in the teamspace's store")
        return
    value = os.environ.get(name)
    if not value:
        raise UserError(f"variable {name} is not set here: its value is what would be kept")
    from tuning.lightning_integration import Cloud

    Cloud(settings.studio).set_secret(name, value)
    typer.echo(f"{name} is kept in the teamspace's store; jobs that begin from now on have it")
