"""Weights & Biases as a mirror of the folders: offline runs first, uploaded when asked; sweeps.

Training never imports wandb. Here finished trials become offline runs, each complete in one go and
known by an id that follows from the trial; a ledger of one small file a run says which are written
and which the server has. So the same call may be repeated, and cut off, at any time.

A sweep needs its server only to be registered and to hand out points. Without one, a study runs as
any other, and its runs are adopted into a sweep when they are uploaded.

Facts of wandb 0.31 that this rests on: `finish()` is no barrier for what is on disk, `teardown()`
is; the exit code of `wandb sync` is 0 also when nothing was sent, and its marker `.synced` may
stand beside a run of which the server refused all but the first rows; what is sent again is
appended; telemetry is off only if it was turned off before the import.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import yaml

from tuning import files
from tuning.errors import LockedError, ResultsError, UserError
from tuning.grid import create_hyperparameter_grid
from tuning.paths import DEFAULT_RESULTS_DIR, ResultsRoot, checked_name
from tuning.scoring import METRIC_PREFIX, TRANSFER_SCORE
from tuning.search_space import SearchSpace
from tuning.study import existing_spec, readable_records
from tuning.sweep_laws import Method, check_sweep
from tuning.sweeps import SweepLink, constants_of, sweep_definition
from tuning.tracked_analysis import analysis_run, analysis_run_id
from tuning.tracked_runs import STEP, Artifact, JobType, TrackedRun, runs_of
from tuning.wandb_views import build_workspace

PROJECT = "llm-spelling-transfer-learning"


class State(StrEnum):
    """How far a run has come."""

    WRITTEN = "written"
    """An offline run holds it."""
    SYNCED = "synced"
    """The server has it."""
    FAILED = "failed"
    """It could not be uploaded; the next call tries again."""


@dataclass(slots=True)
class Mirrored:
    """What a call left behind, by run id."""

    states: dict[str, State] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    """Why a run could not be uploaded."""
    num_new: int = 0
    """Runs that this call wrote."""
    num_sent: int = 0
    """Runs that this call brought to the server, or found there whole for the first time."""
    notes: list[str] = field(default_factory=list)
    """What is left out, since its record is damaged."""


def mirror(root: ResultsRoot, study: str) -> Mirrored:
    """Write the offline runs of a study that are not written yet; sends nothing.

    Args:
        root: Where the study is, and where its runs go.
        study: Its name.

    Raises:
        UserError: wandb is not installed, there is no such study, or the disk refuses.
    """
    _check_installed()
    mirrored = Mirrored()
    with _alone(root):
        for run, entry in _written(root, study, mirrored):
            mirrored.states[run.run_id] = entry.state
    return mirrored


def upload(root: ResultsRoot, study: str, seconds: float) -> Mirrored:
    """Write what is missing, and send every run that the server does not have whole.

    What arrived before something broke is not sent again: the server is asked how many rows it has,
    and gets the others. A run counts as sent when the server says that it has all of them. A study
    that was run as a sweep without a server becomes one when all its runs are there.

    Args:
        root: Where the study is, and where its runs go.
        study: Its name.
        seconds: For which one run may be on its way.

    Raises:
        UserError: As in `mirror`; or the server cannot be reached, or knows no such key.
    """
    _check_installed()
    mirrored = Mirrored()
    server: _Server | None = None
    trials: list[str] = []
    with _alone(root):
        link = SweepLink.read(root, study)
        if link is not None and link.entity is not None:
            os.environ["WANDB_ENTITY"] = link.entity
        # All are written before a server is asked for: without one they are all here.
        for run, entry in list(_written(root, study, mirrored)):
            state = entry.state
            if state is not State.SYNCED or entry.server != _server_name():
                server = server or _Server(root)
                if run.content is not None:
                    # What is written already comes back without what it says.
                    run = analysis_run(root, study) or run
                problem = _send(root, run, entry, server, seconds, _sweep_of(link, run))
                state = State.FAILED if problem else State.SYNCED
                if problem:
                    mirrored.problems[run.run_id] = problem
                else:
                    mirrored.num_sent += 1
                entry.written_as(root, state)
            mirrored.states[run.run_id] = state
            if run.job_type is JobType.TRIAL:
                trials.append(run.run_id)
        has_ended = not files.is_locked(root.study(study).lock)
        if link is not None and link.sweep is None and has_ended and not mirrored.problems:
            _adopt(root, link, trials, server or _Server(root))
    return mirrored


def _written(
    root: ResultsRoot, study: str, mirrored: Mirrored
) -> Iterator[tuple[TrackedRun, _Entry]]:
    """Yield the runs of a study, each once its offline run is there; the analysis last."""
    link = SweepLink.read(root, study)
    mirrored.notes += readable_records(existing_spec(root, study), root.study(study))[1]
    for run in _runs(root, study, link):
        entry = _Entry.read(root, run.run_id)
        if entry is None or not entry.is_there(root) or entry.content != run.content:
            entry = _write(root, run, sweep=_sweep_of(link, run))
            mirrored.num_new += 1
        yield run, entry


def _runs(root: ResultsRoot, study: str, link: SweepLink | None) -> Iterator[TrackedRun]:
    """Yield what is to be shown of a study: runs under the ids that a sweep's server gave them."""
    spec = existing_spec(root, study)
    default = spec.plan().point_of({})
    for run in runs_of(root, study):
        trial = run.config.get("trial", {})
        parameters = {k: v for k, v in trial.items() if k not in ("id", "seed")}
        known = link.run_ids_of(parameters, default) if link and trial else []
        for run_id in known or [run.run_id]:
            yield replace(run, run_id=run_id)
    if files.is_locked(root.study(study).lock):
        # More is to come; what is said of all is said when all have ended.
        return
    analysis_id = analysis_run_id(spec)
    entry = _Entry.read(root, analysis_id)
    known_content = entry.content if entry is not None and entry.is_there(root) else None
    analysis = analysis_run(root, study, known_content)
    if analysis is not None:
        yield analysis


def _sweep_of(link: SweepLink | None, run: TrackedRun) -> str | None:
    """Return the sweep that a run belongs to: trials do, and what is said of all does not."""
    if link is None or link.sweep is None or run.job_type is not JobType.TRIAL:
        return None
    if link.runs and run.run_id not in {own.run_id for own in link.runs}:
        # The default that an agent trains beside, for comparison.
        return None
    return link.sweep


@contextlib.contextmanager
def _alone(root: ResultsRoot) -> Iterator[None]:
    """Wait until no other process writes runs: a mirror ends a little after its study."""
    deadline = time.monotonic() + _TURN_SECONDS

    def wait() -> None:
        if time.monotonic() > deadline:
            raise LockedError(
                f"another process writes or sends the runs of Weights & Biases (lock {lock})"
            )

    lock = root.wandb / ".lock"
    with files.exclusive_lock(lock, "the runs of Weights & Biases", wait):
        yield


_TURN_SECONDS = 60.0


def _check_installed() -> None:
    if importlib.util.find_spec("wandb") is None:
        raise UserError(
            "Weights & Biases is not installed: pip install 'tuning[wandb]'; studies need it not"
        )


# --- the ledger ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is known of one run."""

    run_id: str
    folder: str
    """Its folder, below that of all runs."""
    state: State
    content: str | None = None
    """Fingerprint of what it says, for a run that may change."""
    first: int = 0
    """Rows that its offline run leaves out."""
    server: str | None = None
    """Where it was sent to."""

    @classmethod
    def path(cls, root: ResultsRoot, run_id: str) -> Path:
        return root.wandb / "ledger" / f"{checked_name(run_id, 'run id')}.json"

    @classmethod
    def read(cls, root: ResultsRoot, run_id: str) -> _Entry | None:
        path = cls.path(root, run_id)
        if not path.exists():
            return None
        try:
            raw = files.read_json(path)
            files.check_types(raw, {"folder": str, "state": str, "content": (str, type(None))})
            folder = checked_name(raw["folder"], "folder")
            return cls(
                run_id,
                folder,
                State(raw["state"]),
                raw.get("content"),
                int(raw.get("first", 0)),
                raw.get("server"),
            )
        except (ResultsError, ValueError, TypeError, AttributeError):
            # Written anew from the study's folders: nothing is lost.
            return None

    def file(self, root: ResultsRoot) -> Path:
        return root.wandb / self.folder / f"run-{self.run_id}.wandb"

    def is_there(self, root: ResultsRoot) -> bool:
        """Whether nothing is left to be written of it."""
        return self.state is State.SYNCED or self.file(root).is_file()

    def written_as(self, root: ResultsRoot, state: State) -> None:
        value = {
            "folder": self.folder,
            "state": state.value,
            "content": self.content,
            "first": self.first,
            "server": _server_name() if state is State.SYNCED else None,
        }
        files.write_json(self.path(root, self.run_id), value)


def _server_name() -> str:
    """Return the server and account that runs go to, as far as the environment tells."""
    return " ".join(os.environ.get(f"WANDB_{name}", "") for name in ("BASE_URL", "ENTITY"))


# --- writing ------------------------------------------------------------------------------------


def environment(root: ResultsRoot) -> dict[str, str]:
    """Return settings with which wandb writes below `root` alone and sends nothing by itself."""
    place = root.wandb.absolute()
    return {
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
        "WANDB_CONSOLE": "off",
        "WANDB_CACHE_DIR": str(place / "cache"),
        "WANDB_DATA_DIR": str(place / "data"),
        "WANDB_CONFIG_DIR": str(place / "config"),
        "WANDB_DISABLE_GIT": "true",
        "WANDB_DISABLE_CODE": "true",
    }


_NOT_OURS = ("RUN_ID", "NAME", "RUN_GROUP", "JOB_TYPE", "TAGS", "NOTES", "RESUME", "SWEEP_ID")
"""What wandb would take from its environment for a run; ours are named by themselves."""


def _settle(root: ResultsRoot, **more: str) -> None:
    """Set this process up for wandb, before its import."""
    for name in (*_NOT_OURS, "SWEEP_PARAM_PATH", "DIR", "MODE"):
        os.environ.pop(f"WANDB_{name}", None)
    os.environ.update(environment(root) | more)


def _write(root: ResultsRoot, run: TrackedRun, first: int = 0, sweep: str | None = None) -> _Entry:
    """Write one offline run, see that it is whole, and enter it in the ledger.

    Args:
        root: Where to.
        run: What it says.
        first: Rows that are left out, since the server has them.
        sweep: The sweep that it belongs to.
    """
    for old in root.wandb.glob(f"offline-run-*-{run.run_id}*"):
        files.remove_folder(old)
    files.make_folder(root.wandb)
    folder = _log(root, run, first, sweep)
    found = read_offline_run(folder / f"run-{run.run_id}.wandb")
    wanted = run.num_rows - (0 if run.content else first)
    if found.exit_code is None or len(found.rows) != wanted:
        raise ResultsError(f"{folder} holds {len(found.rows)} of {wanted} rows; is the disk full?")
    entry = _Entry(run.run_id, folder.name, State.WRITTEN, run.content, first)
    entry.written_as(root, State.WRITTEN)
    return entry


def _log(root: ResultsRoot, run: TrackedRun, first: int, sweep: str | None) -> Path:
    """Have wandb write the run; return its folder once everything is on disk."""
    _settle(root)
    import wandb

    try:
        tracked = wandb.init(
            project=PROJECT,
            id=run.run_id,
            name=run.name,
            group=run.group,
            job_type=run.job_type.value,
            tags=list(run.tags),
            config=dict(run.config),
            dir=str(root.root.absolute()),
            mode="offline",
            reinit="create_new",
            settings=wandb.Settings(**_LEAN, **({"sweep_id": sweep} if sweep else {})),
        )
        folder = Path(tracked.settings.sync_dir)
        tracked.define_metric(STEP, hidden=True)
        for prefix in METRIC_PREFIX.values():
            tracked.define_metric(f"{prefix}/*", step_metric=STEP)
        tracked.define_metric(TRANSFER_SCORE, step_metric=STEP)
        for number, row in enumerate(run.rows[first:], first):
            # At once, or the last row would overwrite what the summary is told below.
            tracked.log(dict(row), step=number, commit=True)
        tables = {name: _table(wandb, rows) for name, rows in run.tables.items()}
        if run.content is None:
            for name, table in tables.items():
                tracked.summary[name] = table
        else:
            # Charts are drawn of what was logged; the newest row is what is shown.
            tracked.log(_shown(wandb, run, tables), step=first, commit=True)
            tracked.summary[_CONTENT] = run.content
        for artifact in run.artifacts:
            tracked.log_artifact(_artifact(wandb, run, artifact), aliases=list(artifact.aliases))
        tracked.summary.update(dict(run.summary))
        tracked.finish(exit_code=int(run.is_failure))
    except (wandb.Error, OSError, ValueError) as error:
        raise ResultsError(_one_line(f"wandb cannot write run {run.run_id}: {error}")) from error
    finally:
        wandb.teardown()
    return folder


_LEAN: Mapping[str, Any] = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "label_disable": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    "x_transaction_log_flush_interval": 1.0,
}
"""Nothing of the machine, the code or the surroundings is written."""


_CONTENT = "content"
"""Under which the server remembers what a run that may change says."""


def _table(wandb: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    columns = list(rows[0])
    data = [[row[column] for column in columns] for row in rows]
    return wandb.Table(columns=columns, data=data, allow_mixed_types=True)


def _shown(wandb: Any, run: TrackedRun, tables: Mapping[str, Any]) -> dict[str, Any]:
    charts = {
        name: wandb.plot.scatter(tables[chart.table], chart.x, chart.y, title=chart.title)
        for name, chart in run.scatters.items()
    }
    pages = {name: wandb.Html(page, inject=False) for name, page in run.pages.items()}
    return {**tables, **charts, **pages}


def _artifact(wandb: Any, run: TrackedRun, given: Artifact) -> Any:
    artifact = wandb.Artifact(f"{given.kind}-{run.run_id}", type=given.kind)
    for path in given.paths:
        # No copy of what never changes again, such as the adapters of finished trials.
        policy = "immutable" if given.is_final else "mutable"
        artifact.add_file(str(path.absolute()), name=path.name, policy=policy)
    return artifact


# --- uploading ----------------------------------------------------------------------------------

_RETRIES = {
    "WANDB_X_GRAPHQL_RETRY_MAX": "1",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.2",
    "WANDB_X_GRAPHQL_RETRY_WAIT_MAX_SECONDS": "0.5",
    "WANDB_X_GRAPHQL_TIMEOUT_SECONDS": "10",
}
"""By itself the client asks a dead server for minutes."""


class _OnServer(NamedTuple):
    """What the server has of a run."""

    num_rows: int
    has_ended: bool
    state: str | None
    """What its summary says of how it ended: it comes last."""
    content: str | None = None
    sweep: str | None = None

    def is_whole(self, run: TrackedRun) -> bool:
        """Whether nothing is to be sent."""
        if not self.has_ended or self.state != run.summary["state"]:
            return False
        if run.content is not None:
            return self.content == run.content
        return self.num_rows == run.num_rows


class _Server:
    """The server and the account that wandb's own settings name; the key is wandb's business."""

    def __init__(self, root: ResultsRoot) -> None:
        """Log in.

        Raises:
            UserError: The server cannot be reached, or refuses.
        """
        _settle(root, **_RETRIES)
        import wandb

        self._wandb = wandb
        try:
            self._connect()
        # A setting that is none, such as an address, is a ValueError.
        except (wandb.Error, ValueError) as error:
            raise UserError(_one_line(f"Weights & Biases: {error}")) from error

    def _connect(self) -> Any:
        return self._wandb.Api(timeout=_ANSWER_SECONDS)

    def register(self, definition: Mapping[str, Any], prior_runs: Sequence[str]) -> str:
        """Register a sweep and return its id.

        Raises:
            UserError: The server refuses.
        """
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                return str(
                    self._wandb.sweep(
                        dict(definition), project=PROJECT, prior_runs=list(prior_runs)
                    )
                )
        except (self._wandb.Error, ValueError) as error:
            raise UserError(_one_line(f"the sweep was not registered: {error}")) from error

    def entity(self) -> str:
        """Return the account or team that runs go to.

        Raises:
            UserError: The server does not say.
        """
        try:
            connected = self._connect()
            return str(connected.settings.get("entity") or connected.default_entity)
        except (self._wandb.Error, ValueError) as error:
            raise UserError(_one_line(f"Weights & Biases: {error}")) from error

    def save(self, workspace: Any) -> None:
        """Save a workspace.

        Raises:
            UserError: The server refuses.
        """
        try:
            workspace.save()
        except (self._wandb.Error, ValueError) as error:
            raise UserError(_one_line(f"the workspace was not saved: {error}")) from error

    def sweep(self, sweep: str) -> dict[str, Any]:
        """Return the definition of a sweep.

        Raises:
            UserError: The server has none, or does not say.
        """
        path = sweep if "/" in sweep else f"{PROJECT}/{sweep}"
        try:
            return dict(self._connect().sweep(path).config)
        except (self._wandb.Error, ValueError) as error:
            raise UserError(_one_line(f"sweep {sweep}: {error}")) from error

    def find(self, run_id: str) -> _OnServer | None:
        """Return what it has of a run; None for nothing.

        Raises:
            ResultsError: It does not say.
        """
        try:
            # Anew each time: it would repeat its last answer, and ends with `teardown()`.
            run = self._connect().run(f"{PROJECT}/{run_id}")
            return _OnServer(
                int(run.history_line_count or 0),
                # Of an upload that was cut off it says crashed after a while.
                run.state in ("finished", "failed"),
                run.summary.get("state"),
                run.summary.get(_CONTENT),
                run.sweep_name,
            )
        except (self._wandb.Error, ValueError) as error:
            if "Could not find run" in str(error):
                return None
            raise ResultsError(_one_line(f"it does not say what it has: {error}")) from error


_ANSWER_SECONDS = 10


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _send(
    root: ResultsRoot,
    run: TrackedRun,
    entry: _Entry,
    server: _Server,
    seconds: float,
    sweep: str | None,
) -> str | None:
    """Upload what the server lacks of one run; return why it is not whole there, or None."""
    wanted = run.num_rows
    try:
        have = server.find(run.run_id)
        if have is not None and have.is_whole(run):
            return None
        if have is not None and run.content is None and have.num_rows > wanted:
            return f"the server has {have.num_rows} rows of {wanted}; they are left as they are"
        if have is not None or entry.first or entry.state is not State.WRITTEN:
            # Also without any rows there: wandb's marker may stand beside what was refused, and
            # what was written for a server that has some is not for one that has none.
            entry = _write(root, run, have.num_rows if have else 0, sweep)
        problem = _sync(root, entry, seconds)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (have := server.find(run.run_id)) is None or not have.is_whole(run):
            if problem is not None or time.monotonic() > deadline:
                rows = have.num_rows if have else 0
                return problem or f"the server has {rows} of {wanted} rows"
            time.sleep(0.5)
    except ResultsError as error:
        return str(error)
    return None


_SETTLE_SECONDS = 5.0
"""For which a server may be behind with what it says."""


def _sync(root: ResultsRoot, entry: _Entry, seconds: float) -> str | None:
    """Have wandb upload a folder; return what went wrong, or None.

    The uploading process holds a lock of its own: it outlives one that is killed here, and what two
    send at once is there twice.
    """
    folder = root.wandb / entry.folder
    # Else it would hand the work to the helper process of this one, which nothing here could end.
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    command = [sys.executable, "-m", "wandb", "sync", "--yes", str(folder.absolute())]
    with (root.wandb / ".sending.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return "an upload that was left alone is still at work"
        process = subprocess.Popen(
            command,
            env={**own, **environment(root), **_RETRIES},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=root.wandb,
            pass_fds=[lock.fileno()],
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            _kill_all(process.pid)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                return f"not sent within {seconds:g} s"
            raise
    if entry.file(root).with_suffix(".wandb.synced").is_file():
        return None
    lines = [line for line in said.splitlines() if line.strip()]
    return _one_line(lines[-1]) if lines else "wandb said nothing"


def _kill_all(pid: int) -> None:
    """Kill a process and those that it started: wandb sends in one of a session of its own."""
    try:
        parent = psutil.Process(pid)
        everyone = [*parent.children(recursive=True), parent]
    except psutil.NoSuchProcess:
        return
    for process in everyone:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(everyone[:-1], timeout=_KILL_SECONDS)


_KILL_SECONDS = 10.0


# --- sweeps -------------------------------------------------------------------------------------


def create_wandb_sweep(
    space: SearchSpace | None = None,
    *,
    name: str | None = None,
    method: Method | None = None,
    min_iterations: int | None = None,
    root: ResultsRoot | None = None,
) -> str:
    """Register a space as a sweep and return its id; needs a server and a key.

    Args:
        space: What is varied; all 13 hyperparameters of the default space if not given.
        name: Of the sweep.
        method: grid, random or bayes; by default what corresponds to the space's strategy.
        min_iterations: Evaluations after which hyperband may stop a run early; None for never.
        root: Below which wandb writes its own files.

    Raises:
        ConfigError: W&B has no such sweep; nothing was asked of the server.
        UserError: wandb is not installed, or the server cannot be reached, or refuses.
    """
    chosen = space or SearchSpace(candidates=create_hyperparameter_grid())
    definition = sweep_definition(chosen, name=name, method=method, min_iterations=min_iterations)
    return register_sweep(root or ResultsRoot(DEFAULT_RESULTS_DIR), definition)


def register_sweep(
    root: ResultsRoot, definition: Mapping[str, Any], prior_runs: Sequence[str] = ()
) -> str:
    """Register a sweep and return its id.

    Args:
        root: Below which wandb writes its own files.
        definition: In W&B's own format.
        prior_runs: Runs that the server has, to be taken into it.

    Raises:
        ConfigError: The definition breaks a law; nothing was asked of the server.
        UserError: wandb is not installed, or the server cannot be reached, or refuses.
    """
    check_sweep(definition)
    _check_installed()
    return _Server(root).register(definition, prior_runs)


def _adopt(root: ResultsRoot, link: SweepLink, trials: Sequence[str], server: _Server) -> None:
    """Make the sweep of a study that was run without a server, once, of the runs that are there."""
    if not trials or link.definition is None:
        return
    found = server.find(trials[0])
    # Cut off after the server made it, and before this was written down.
    link.sweep = (found and found.sweep) or server.register(link.definition, trials)
    link.write(root)


def constants_of_sweep(root: ResultsRoot, sweep: str) -> dict[str, Any]:
    """Return what a sweep sets and does not vary, by flat names.

    Args:
        root: Below which wandb writes its own files.
        sweep: Its id, or entity/project/id.

    Raises:
        UserError: The sweep cannot be had.
    """
    _check_installed()
    return constants_of(_Server(root).sweep(sweep))


class SweepJob(NamedTuple):
    """A point that a sweep's server wants to be tried."""

    run_id: str
    parameters: Mapping[str, Any]


def sweep_jobs(root: ResultsRoot, sweep: str, count: int) -> Iterator[SweepJob]:
    """Yield the points that a server hands out; wandb's agent keeps in touch meanwhile.

    Each counts as done when the next is asked for. Ends when the server has no more.

    Args:
        root: Below which wandb writes its own files.
        sweep: Its id, or entity/project/id.
        count: At most so many.

    Raises:
        UserError: The sweep cannot be had.
    """
    _check_installed()
    _Server(root)
    os.environ["WANDB_DIR"] = str(root.root.absolute())
    import wandb

    given: queue.Queue[SweepJob | Exception | None] = queue.Queue()
    is_over = threading.Event()
    done: dict[str, threading.Event] = {}

    def hand_over() -> None:
        if is_over.is_set():
            return
        run_id = os.environ["WANDB_RUN_ID"]
        told = yaml.safe_load(Path(os.environ["WANDB_SWEEP_PARAM_PATH"]).read_text("utf-8")) or {}
        is_done = done[run_id] = threading.Event()
        values = {k: v["value"] for k, v in told.items() if isinstance(v, Mapping)}
        # A wish of the server to end it early comes as an exception; it is short, and goes on.
        with contextlib.suppress(Exception):
            given.put(SweepJob(run_id, values))
            is_done.wait()

    def attend() -> None:
        try:
            wandb.agent(sweep, function=hand_over, project=PROJECT, count=count)
            given.put(None)
        except Exception as error:
            given.put(error)

    threading.Thread(target=attend, daemon=True).start()
    try:
        while True:
            try:
                job = given.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                # Ctrl-C is heard between two looks.
                continue
            if job is None:
                return
            if isinstance(job, Exception):
                raise UserError(_one_line(f"sweep {sweep}: {job}")) from job
            yield job
            done[job.run_id].set()
    finally:
        is_over.set()
        for is_done in done.values():
            is_done.set()


_LOOK_SECONDS = 0.5


# --- views --------------------------------------------------------------------------------------


def publish_views(root: ResultsRoot, study: str) -> str:
    """Save the workspace of a study on the server, or bring the saved one up to date.

    Args:
        root: Where the study is, and what was saved is remembered.
        study: Its name.

    Returns:
        Where to look at it.

    Raises:
        UserError: wandb or wandb-workspaces is not installed, there is no such study, or the server
            cannot be reached, or refuses.
    """
    _check_installed()
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("wandb-workspaces is not installed: pip install 'tuning[wandb]'")
    spec = existing_spec(root, study)
    parameters = [(p.key, p.is_log) for p in spec.space.points().parameters]
    remembered = root.wandb / "views" / f"{checked_name(study, 'study')}.json"
    with _alone(root):
        server = _Server(root)
        workspace = build_workspace(server.entity(), PROJECT, study, parameters)
        if remembered.exists():
            known = files.read_json(remembered)
            try:
                files.check_types(known, {"name": str, "id": str, "server": str})
            except (ValueError, AttributeError) as error:
                raise ResultsError(f"{remembered} is damaged; remove it: {error}") from error
        if remembered.exists() and known["server"] == _server_name():
            # The library's own way of saying which view it is, once read from an address.
            workspace._internal_name, workspace._internal_id = known["name"], known["id"]
        server.save(workspace)
        value = {
            "name": workspace._internal_name,
            "id": workspace._internal_id,
            "server": _server_name(),
        }
        files.write_json(remembered, value)
        return str(workspace.url)


# --- reading ------------------------------------------------------------------------------------


@dataclass(slots=True)
class OfflineRun:
    """What an offline run holds, as wandb's own file says."""

    run_id: str = ""
    project: str = ""
    name: str = ""
    group: str = ""
    job_type: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    step_metrics: dict[str, str] = field(default_factory=dict)
    """By metric or glob."""
    artifacts: list[str] = field(default_factory=list)
    exit_code: int | None = None
    """None for a run that has not ended."""


def read_offline_run(path: Path) -> OfflineRun:
    """Read a `.wandb` file; what follows a torn record is left out.

    Raises:
        ResultsError: It cannot be read, or is no such file.
    """
    from wandb.proto import wandb_internal_pb2

    found = OfflineRun()
    for body in _records(path):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(body)
        _take(found, record)
    return found


def _take(found: OfflineRun, record: Any) -> None:
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        found.run_id, found.project, found.name = run.run_id, run.project, run.display_name
        found.group, found.job_type, found.tags = run.run_group, run.job_type, list(run.tags)
        found.config |= _items(run.config.update)
    elif kind == "config":
        found.config |= _items(record.config.update)
    elif kind == "history":
        found.rows.append(_items(record.history.item))
    elif kind == "summary":
        found.summary |= _items(record.summary.update)
    elif kind == "metric":
        name = record.metric.glob_name or record.metric.name
        found.step_metrics[name] = record.metric.step_metric
    elif kind == "artifact":
        found.artifacts.append(record.artifact.name)
    elif kind == "exit":
        found.exit_code = record.exit.exit_code


def _items(items: Any) -> dict[str, Any]:
    return {".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _records(path: Path) -> Iterator[bytes]:
    """Yield the bodies of whole records: blocks of 32 KiB as LevelDB's log has them."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    if data[:4] != b":W&B":
        raise ResultsError(f"{path} is no file of wandb")
    place, parts = _HEADER, b""
    while place + _HEADER <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        checksum, length, kind = struct.unpack_from("<IHB", data, place)
        body = data[place + _HEADER : place + _HEADER + length]
        if len(body) < length or zlib.crc32(bytes([kind]) + body) != checksum:
            return
        place += _HEADER + length
        parts = body if kind in (_FULL, _FIRST) else parts + body
        if kind in (_FULL, _LAST):
            yield parts


_BLOCK = 32_768
_HEADER = 7
_FULL, _FIRST, _LAST = 1, 2, 4
