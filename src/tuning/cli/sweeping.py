"""`tuning wandb sweep` and `agent`, and `tuning --mode sweep`: sweeps of Weights & Biases."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tuning.cli import completion, options
from tuning.cli.study_request import StudyRequest, make_spec
from tuning.errors import UserError, shown

if TYPE_CHECKING:
    from tuning.executor import Outcome
    from tuning.jobs import Backend
    from tuning.paths import ResultsRoot
    from tuning.scoring import Focus
    from tuning.search_space import SearchSpace
    from tuning.study import StudySpec
    from tuning.sweeps import SweepLink

DEFAULT_COUNT = 20

Count = Annotated[int, typer.Option("--count", help="Points of the sweep to try.", min=1)]
MethodOption = Annotated[
    Literal["grid", "random", "bayes"] | None,
    typer.Option("--method", help="How points are chosen; by default as the space says."),
]
MinIterations = Annotated[
    int | None,
    typer.Option(
        "--early-terminate",
        help="Evaluations after which hyperband may stop a run early.",
        min=1,
        metavar="N",
    ),
]


def sweep(
    space: Annotated[
        str,
        typer.Option(
            help="A space by name, or a YAML file.", autocompletion=completion.space_names
        ),
    ] = "default",
    name: Annotated[str | None, typer.Option(help="Name of the sweep.")] = None,
    method: MethodOption = None,
    early_terminate: MinIterations = None,
    dry_run: options.DryRun = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Register a space as a sweep, and print its id; --dry-run prints what would be registered.

    Examples: tuning wandb sweep --dry-run, tuning wandb sweep --space random --method bayes
    """
    from tuning.grid import load_space
    from tuning.paths import ResultsRoot
    from tuning.sweep_laws import Method
    from tuning.sweeps import not_kept, sweep_definition
    from tuning.wandb_integration import register_sweep

    chosen = load_space(space, [config_dir])
    definition = sweep_definition(
        chosen,
        name=name or Path(space).stem,
        method=None if method is None else Method(method),
        min_iterations=early_terminate,
    )
    for note in not_kept(chosen) if not as_json else ():
        typer.echo(f"note: {note}", err=True)
    if dry_run:
        print_definition(definition, as_json=as_json)
        return
    sweep_id = register_sweep(ResultsRoot(results_dir), definition)
    if as_json:
        typer.echo(json.dumps({"sweep": sweep_id}))
        return
    typer.echo(f"sweep: {sweep_id}\ntry points of it: tuning wandb agent {sweep_id} --count 5")


def print_definition(definition: Mapping[str, Any], *, as_json: bool) -> None:
    """Print a sweep as W&B would be told it."""
    import yaml

    text = yaml.safe_dump(dict(definition), sort_keys=False, default_flow_style=None)
    typer.echo(json.dumps(definition) if as_json else text.rstrip())


def agent(
    sweep_id: Annotated[str, typer.Argument(help="The sweep's id, or ENTITY/PROJECT/ID.")],
    count: Count = DEFAULT_COUNT,
    name: Annotated[
        str | None, typer.Option(help="Name of the study; sweep-ID by default.")
    ] = None,
    focus: options.FocusOption = None,
    max_failures: Annotated[int, typer.Option(help="Failed trials that end the study.", min=0)] = 5,
    retry_failed: options.RetryFailed = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Try points that a sweep's server hands out, one after the other, as trials of a study.

    The default configuration is trained beside them: it is what every report compares with. Each
    trial is sent when it ends. Cut off, the same command finishes what it had begun first.

    Example: tuning wandb agent abc123 --count 5
    """
    request = AgentRequest(
        sweep=sweep_id,
        count=count,
        name=name,
        focus=focus,
        max_failures=max_failures,
        retry_failed=retry_failed,
        threads=threads,
        quiet=quiet,
        as_json=as_json,
        results_dir=results_dir,
    )
    run_agent(request)


@dataclass(frozen=True, kw_only=True)
class AgentRequest:
    """What is asked of an agent."""

    sweep: str
    count: int
    name: str | None = None
    focus: Focus | None = None
    max_failures: int = 5
    retry_failed: bool = False
    threads: int | None = None
    quiet: bool = False
    as_json: bool = False
    results_dir: Path = options.RESULTS_DIR


_SWEEP = re.compile(
    r"(?:(?P<entity>[A-Za-z0-9_.-]{1,128})/(?P<project>[A-Za-z0-9_.-]{1,128})/)?"
    r"(?P<id>[A-Za-z0-9_-]{1,64})"
)


def run_agent(request: AgentRequest) -> None:
    """Try points of a sweep.

    Raises:
        UserError: The sweep cannot be had, or has a point that breaks a law.
        typer.Exit: It was stopped.
    """
    from tuning.cli.study import print_outcome
    from tuning.sweeps import SweepLink, SweepRun
    from tuning.wandb_integration import PROJECT, constants_of_sweep, sweep_jobs

    found = _SWEEP.fullmatch(request.sweep)
    if found is None or found["project"] not in (None, PROJECT):
        raise UserError(
            f"a sweep is ID or ENTITY/{PROJECT}/ID, the project that runs go to, got "
            f"{shown(request.sweep)}"
        )
    root = options.results_root(request.results_dir)
    name = request.name or f"sweep-{found['id']}"
    link = SweepLink.read(root, name)
    if link is None:
        _check_name_is_free(root, name)
        constants = constants_of_sweep(root, request.sweep)
        link = SweepLink(name, sweep=found["id"], constants=constants, entity=found["entity"])
    elif (link.sweep, link.entity) != (found["id"], found["entity"] or link.entity):
        raise UserError(f"study {name} belongs to sweep {link.sweep}; choose another --name")
    agent = _Agent(root, link, request)
    with contextlib.closing(agent):
        agent.ensure_model()
        # What an earlier call was given and had not finished comes first.
        outcome = agent.go_on() if link.runs else None
        jobs = () if _was_stopped(outcome) else sweep_jobs(root, request.sweep, request.count)
        for job in jobs:
            link.runs.append(SweepRun(job.run_id, link.varied(job.parameters)))
            agent.check()
            link.write(root)
            outcome = agent.go_on()
            if _was_stopped(outcome):
                break
    if outcome is None:
        typer.echo(f"sweep {request.sweep} has no points left", err=True)
        return
    again = f"tuning wandb agent {request.sweep} --count {request.count}"
    again += f" --name {name}" if request.name else ""
    again += options.results_dir_option(root.root)
    try:
        print_outcome(agent.spec(), root, outcome, as_json=request.as_json, go_on=again)
    except UserError:
        # That all trials failed is also a result.
        agent.send()
        raise
    agent.send()


def _was_stopped(outcome: Outcome | None) -> bool:
    """Whether the user ended the run of a study."""
    from tuning.executor import End

    return outcome is not None and outcome.end is not End.FINISHED


def _check_name_is_free(root: ResultsRoot, name: str) -> None:
    """Refuse the name of a study that is no sweep.

    Raises:
        UserError: There is one.
    """
    if root.study(name).spec.exists():
        raise UserError(f"study {name} exists and is no sweep; choose another --name")


class _Agent:
    """Runs the trials of a sweep's study, and sends them."""

    def __init__(self, root: ResultsRoot, link: SweepLink, request: AgentRequest) -> None:
        self.root = root
        self.link = link
        self.request = request
        self._stack = contextlib.ExitStack()
        self._backend: tuple[Backend, StudySpec] | None = None

    def close(self) -> None:
        """End the worker."""
        self._stack.close()

    def spec(self) -> StudySpec:
        """Return the study as it is with all points so far."""
        spec = make_spec(
            StudyRequest(
                name=self.link.study,
                space=self.link.space(),
                focus=self.request.focus,
                max_failures=self.request.max_failures,
                results_dir=self.request.results_dir,
            )
        )
        if self._backend is None:
            return spec
        # As its first worker settled it.
        settled = self._backend[1]
        threads = {"num_threads": settled.num_threads, "generation_size": settled.generation_size}
        return spec.model_copy(update=threads)

    def check(self) -> None:
        """Refuse a point that breaks a law.

        Raises:
            UserError: It does.
        """
        try:
            self.spec()
        except UserError as error:
            raise UserError(
                f"sweep {self.link.sweep} asks for an illegal point: {error}"
            ) from error

    def ensure_model(self) -> None:
        """Refuse a model that cannot be had, before a point is asked for.

        Raises:
            UserError: It cannot, or the sweep sets what no configuration has.
        """
        from tuning.cli.trial import ensure_model

        ensure_model(self.spec().base)

    def go_on(self) -> Outcome:
        """Run the trials that have no record yet, and send them."""
        from tuning.cli.backend import open_backend
        from tuning.cli.live import live_study
        from tuning.cli.stopping import graceful_stop
        from tuning.executor import Limits, run_study
        from tuning.monitor import StudyMonitor

        if self._backend is None:
            spec = self.spec()
            resources = options.Resources(workers=1, threads=self.request.threads)
            self._backend = self._stack.enter_context(open_backend(spec, self.root, resources))
        spec = self.spec()
        monitor = StudyMonitor(spec, self.root)
        limits = Limits(retry_failed=self.request.retry_failed)
        try:
            with (
                graceful_stop() as is_to_stop,
                live_study(monitor, 0.0, quiet=self.request.quiet) as watcher,
            ):
                backend = self._backend[0]
                return run_study(spec, self.root, backend, watcher, limits, is_to_stop)
        finally:
            self.send()

    def send(self) -> None:
        """Send what the server lacks, in a process of its own; it may be sent later too."""
        command = [sys.executable, "-m", "tuning", "wandb", "sync", self.link.study, "--quiet"]
        command += ["--results-dir", str(self.root.root.absolute())]
        # Else it would hand its work to the helper process that wandb has here.
        own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
        done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            typer.echo(f"not sent yet: {said[-1] if said else 'no answer'}", err=True)


# --- --mode sweep -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What `--mode sweep` is asked."""

    study: StudyRequest
    count: int
    offline: bool
    dry_run: bool
    quiet: bool
    as_json: bool


def run_sweep(request: SweepRequest) -> None:
    """Register a space as a sweep, print its id, and try points of it; or do so without a server.

    Raises:
        UserError: W&B has no such sweep, or the server cannot be reached.
    """
    from tuning.cli.study import print_plan, run_and_print
    from tuning.cli.trial import ensure_model
    from tuning.paths import ResultsRoot
    from tuning.sweeps import SweepLink, sweep_definition

    asked = request.study
    spec = make_spec(asked)
    space = _with_constants(spec)
    definition = sweep_definition(space, name=asked.name)
    if request.dry_run and not request.offline:
        print_definition(definition, as_json=request.as_json)
        return
    root = ResultsRoot(asked.results_dir)
    link = SweepLink.read(root, asked.name)
    if link is not None and link.definition != definition:
        raise UserError(f"study {asked.name} is another sweep; choose another --name")
    if request.offline:
        spec = make_spec(_replaced(asked, _drawn(space, request.count)))
        if request.dry_run:
            print_plan(spec, asked.results_dir, as_json=request.as_json)
            return
        _check_can_run(spec, asked.results_dir)
        (link or SweepLink(asked.name, definition=definition)).write(root)
        run_and_print(
            spec,
            asked.results_dir,
            options.Resources(),
            quiet=request.quiet,
            as_json=request.as_json,
        )
        return
    if link is None:
        _check_name_is_free(root, asked.name)
        ensure_model(spec.base)
        link = _registered(root, asked.name, definition)
    if link.sweep is None:
        raise UserError(
            f"study {asked.name} is a sweep without a server; tuning wandb sync {asked.name} makes "
            f"one of it, or choose another --name"
        )
    if not request.as_json:
        typer.echo(f"sweep: {link.sweep}")
    run_agent(
        AgentRequest(
            sweep=link.sweep,
            count=request.count,
            name=asked.name,
            focus=asked.focus,
            quiet=request.quiet,
            as_json=request.as_json,
            results_dir=asked.results_dir,
        )
    )


def _registered(root: ResultsRoot, name: str, definition: Mapping[str, Any]) -> SweepLink:
    """Register a sweep and remember it at once.

    Raises:
        UserError: The server cannot be reached, or refuses.
    """
    from tuning.sweeps import SweepLink, constants_of
    from tuning.wandb_integration import register_sweep

    try:
        sweep_id = register_sweep(root, definition)
    except UserError as error:
        raise UserError(f"{error}; without a server: tuning --mode sweep --offline") from error
    link = SweepLink(name, definition, sweep_id, constants=constants_of(definition))
    link.write(root)
    return link


def _check_can_run(spec: StudySpec, results_dir: Path) -> None:
    """Refuse what the executor would refuse, before anything is written.

    Raises:
        UserError: The model cannot be had, or the study was asked something else.
    """
    from tuning.cli.trial import ensure_model
    from tuning.paths import ResultsRoot
    from tuning.study import read_spec
    from tuning.study_history import refuse_other

    ensure_model(spec.base)
    folder = ResultsRoot(results_dir).study(spec.name)
    if folder.spec.exists():
        refuse_other(read_spec(folder), spec, folder)


def _replaced(request: StudyRequest, space: SearchSpace) -> StudyRequest:
    import dataclasses

    # What the file and the overrides say stands in the space now.
    return dataclasses.replace(request, space=space, config=None, overrides=())


def _with_constants(spec: StudySpec) -> SearchSpace:
    """Return the space with all that its base configuration sets beside the defaults."""
    from tuning.config import build
    from tuning.sweeps import differences

    base = spec.base.model_dump(mode="json")
    named = {key: base[key] for key in ("experiment_name", "timestamp")}
    default = build(named, "the defaults").model_dump(mode="json")
    return spec.space.model_copy(
        update={"experiment": differences(base, default), "step_scale": spec.step_scale}
    )


def _drawn(space: SearchSpace, count: int) -> SearchSpace:
    """Return a space of which our executor tries so many points, as the sweep's server would."""
    from tuning.search_space import Strategy

    changed: Mapping[str, Any] = {"num_trials": count, "replicates_of_default": 1}
    if not space.strategy.draws:
        changed = {**changed, "strategy": Strategy.RANDOM}
    return space.model_copy(update=dict(changed))
