"""Weights & Biases as a mirror of the folders: offline runs first, uploaded when asked.

Training never imports wandb. Here finished trials become offline runs, each complete in one go and
known by an id that follows from the trial; a ledger of one small file a run says which are written
and which the server has. So the same call may be repeated, and cut off, at any time.

Facts of wandb 0.31 that this rests on: `finish()` is no barrier for what is on disk, `teardown()`
is; the exit code of `wandb sync` is 0 also when nothing was sent, and its marker `.synced` may
stand beside a run of which the server refused all but the first rows; what is sent again is
appended; telemetry is off only if it was turned off before the import.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tuning import files
from tuning.errors import ResultsError, UserError
from tuning.paths import ResultsRoot, checked_name
from tuning.scoring import METRIC_PREFIX
from tuning.tracked_runs import STEP, TrackedRun, runs_of

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
    and gets the others. A run counts as sent when the server says that it has all of them.

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
    with _alone(root):
        # All are written before a server is asked for: without one they are all here.
        for run, entry in list(_written(root, study, mirrored)):
            state = entry.state
            if state is not State.SYNCED:
                server = server or _Server(root)
                problem = _send(root, run, entry, server, seconds)
                state = State.FAILED if problem else State.SYNCED
                if problem:
                    mirrored.problems[run.run_id] = problem
                entry.written_as(root, state)
            mirrored.states[run.run_id] = state
    return mirrored


def _written(
    root: ResultsRoot, study: str, mirrored: Mirrored
) -> Iterator[tuple[TrackedRun, _Entry]]:
    """Yield the runs of a study, each once its offline run is there."""
    for run in runs_of(root, study):
        entry = _Entry.read(root, run.run_id)
        if entry is None or not (entry.state is State.SYNCED or entry.file(root).is_file()):
            entry = _write(root, run)
            mirrored.num_new += 1
        yield run, entry


def _alone(root: ResultsRoot) -> contextlib.AbstractContextManager[None]:
    return files.exclusive_lock(root.wandb / ".lock", "the runs of Weights & Biases")


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
            files.check_types(raw, {"folder": str, "state": str})
            folder = checked_name(raw["folder"], "folder")
            return cls(run_id, folder, State(raw["state"]))
        except (ResultsError, ValueError, TypeError, AttributeError):
            # Written anew from the study's folders: nothing is lost.
            return None

    def file(self, root: ResultsRoot) -> Path:
        return root.wandb / self.folder / f"run-{self.run_id}.wandb"

    def written_as(self, root: ResultsRoot, state: State) -> None:
        value = {"folder": self.folder, "state": state.value}
        files.write_json(self.path(root, self.run_id), value)


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


def _write(root: ResultsRoot, run: TrackedRun, first: int = 0) -> _Entry:
    """Write one offline run, see that it is whole, and enter it in the ledger.

    Args:
        root: Where to.
        run: What it says.
        first: Rows that are left out, since the server has them.
    """
    for old in root.wandb.glob(f"offline-run-*-{run.run_id}*"):
        files.remove_folder(old)
    files.make_folder(root.wandb)
    folder = _log(root, run, first)
    found = read_offline_run(folder / f"run-{run.run_id}.wandb")
    wanted = len(run.rows) - first
    if found.exit_code is None or len(found.rows) != wanted:
        raise ResultsError(f"{folder} holds {len(found.rows)} of {wanted} rows; is the disk full?")
    entry = _Entry(run.run_id, folder.name, State.WRITTEN)
    entry.written_as(root, State.WRITTEN)
    return entry


def _log(root: ResultsRoot, run: TrackedRun, first: int) -> Path:
    """Have wandb write the run; return its folder once everything is on disk."""
    os.environ.update(environment(root))
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
            settings=wandb.Settings(**_LEAN),
        )
        folder = Path(tracked.settings.sync_dir)
        tracked.define_metric(STEP, hidden=True)
        for prefix in METRIC_PREFIX.values():
            tracked.define_metric(f"{prefix}/*", step_metric=STEP)
        for number, row in enumerate(run.rows[first:], first):
            tracked.log(dict(row), step=number)
        if run.answers:
            tracked.summary["answers"] = _table(wandb, run)
        for kind, paths in run.artifacts.items():
            tracked.log_artifact(_artifact(wandb, run, kind, paths), aliases=["latest"])
        tracked.summary.update(dict(run.summary))
        tracked.finish(exit_code=int(run.is_failure))
    except (wandb.Error, OSError) as error:
        raise ResultsError(f"wandb cannot write run {run.run_id}: {error}") from error
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


def _table(wandb: Any, run: TrackedRun) -> Any:
    columns = list(run.answers[0])
    return wandb.Table(columns=columns, data=[[row[c] for c in columns] for row in run.answers])


def _artifact(wandb: Any, run: TrackedRun, kind: str, paths: Sequence[Path]) -> Any:
    artifact = wandb.Artifact(f"{kind}-{run.run_id}", type=kind)
    for path in paths:
        # No copy: adapters and configurations of finished trials never change.
        artifact.add_file(str(path.absolute()), name=path.name, policy="immutable")
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


class _Server:
    """The server and the account that wandb's own settings name; the key is wandb's business."""

    def __init__(self, root: ResultsRoot) -> None:
        """Log in.

        Raises:
            UserError: The server cannot be reached, or refuses.
        """
        os.environ.update(environment(root) | _RETRIES)
        import wandb

        self._wandb = wandb
        try:
            self._connect()
        except wandb.Error as error:
            raise UserError(_one_line(f"Weights & Biases: {error}; the runs stay here")) from error

    def _connect(self) -> Any:
        return self._wandb.Api(timeout=_ANSWER_SECONDS)

    def find(self, run_id: str) -> _OnServer | None:
        """Return what it has of a run; None for nothing.

        Raises:
            ResultsError: It does not say.
        """
        try:
            # Anew each time: it would repeat its last answer, and ends with `teardown()`.
            run = self._connect().run(f"{PROJECT}/{run_id}")
            return _OnServer(int(run.history_line_count or 0), run.state != "running")
        except (self._wandb.Error, ValueError) as error:
            if "Could not find run" in str(error):
                return None
            raise ResultsError(_one_line(f"it does not say what it has: {error}")) from error


_ANSWER_SECONDS = 10


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _send(
    root: ResultsRoot, run: TrackedRun, entry: _Entry, server: _Server, seconds: float
) -> str | None:
    """Upload what the server lacks of one run; return why it is not whole there, or None."""
    wanted = len(run.rows)
    try:
        have = server.find(run.run_id)
        if have == (wanted, True):
            return None
        if have is not None and have.num_rows > wanted:
            return f"the server has {have.num_rows} rows of {wanted}; delete the run there"
        if have is not None:
            entry = _write(root, run, first=have.num_rows)
        problem = _sync(root, entry, seconds)
        deadline = time.monotonic() + _SETTLE_SECONDS
        while (have := server.find(run.run_id)) != (wanted, True):
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
