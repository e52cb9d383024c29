"""One worker process, seen from its owner: jobs in, signs of life out, killed when it must be."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tuning import files
from tuning.errors import without_secrets
from tuning.jobs import TRIAL_RUNNER, Ended, How, Job


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a worker is given up."""

    memory_bytes: int | None = None
    """Resident size, children included, at which it is killed."""
    silent_seconds: float = 20.0
    """Without any sign of life: the process is stopped."""
    idle_seconds: float = 60.0
    """Without a step and without using the processor: it waits for something that never comes."""
    stuck_seconds: float = 1800.0
    """Without a step, however busy."""


@dataclass
class _Life:
    """What is known of a running process."""

    last_sign: float
    last_move: float
    last_use: float
    """Time at which it was seen to have used the processor."""
    used: float = 0.0
    moves: int = 0


@dataclass
class WorkerProcess:
    """A worker, started when it is first needed and again when it died."""

    results: Path
    log: Path
    """Where its output goes."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    runner: str = TRIAL_RUNNER

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self.job: Job | None = None
        self.model: str | None = None
        """The base model that the process has loaded."""
        self._submitted = 0.0
        self._cancelled = False
        self._looked = 0.0

    # --- its life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process; it loads the libraries while nothing is asked of it yet."""
        if self._process is not None:
            return
        files.make_folder(self.log.parent)
        with files.readable_os_errors(self.log), self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tuning.backends.worker", str(self.results), self.runner],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **self.environment},
                # Ctrl-C on the terminal is for the driver, which lets a step be finished.
                start_new_session=True,
            )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._rest = b""
        now = time.monotonic()
        self._life = _Life(last_sign=now, last_move=now, last_use=now)

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return self._process.pid if self._process else None

    @property
    def output(self) -> Any:
        """What becomes readable when the worker says something."""
        return self._process.stdout if self._process else None

    def submit(self, job: Job) -> None:
        """Hand over a job; the worker must have none."""
        assert self.job is None
        self.start()
        assert self._process is not None
        assert self._process.stdin is not None
        self.job, self._submitted, self._cancelled = job, time.monotonic(), False
        self.model = job.config.tokenizer_config.model_name
        self._life.last_move = self._life.last_use = self._submitted
        # A worker that died meanwhile is noticed by `ended`.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(job.model_dump_json().encode() + b"\n")
            self._process.stdin.flush()

    def cancel(self) -> None:
        """Kill the process with its job."""
        self._cancelled = True
        self._kill()

    def close(self) -> None:
        """End the process, with its job if it has one."""
        self.job = None
        self._kill()
        self._reap()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self) -> int:
        assert self._process is not None or self.job is None
        if self._process is None:
            return 0
        code = self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
        self._process = self.model = None
        return code

    # --- what it says -------------------------------------------------------------------------

    def ended(self) -> list[Ended]:
        """Return the job that ended since the last call, if one did; start anew what died."""
        if self._process is None:
            return []
        said, is_gone = self._read()
        found = []
        for message in said:
            self._note(message)
            if "ended" in message and self.job is not None:
                found.append(self._end(How(message["how"]), message["message"]))
        if is_gone:
            code = self._reap()
            if self.job is not None:
                found.append(self._end(How.KILLED, self._last_words(code)))
            return found
        if self.job is not None:
            given_up = self._reason_to_give_up()
            if given_up is not None:
                self._kill()
                self._reap()
                found.append(self._end(*given_up))
        return found

    def _end(self, how: How, message: str) -> Ended:
        assert self.job is not None
        job, self.job = self.job, None
        return Ended(job, how, message, time.monotonic() - self._submitted)

    def _read(self) -> tuple[list[dict[str, Any]], bool]:
        """Return what the worker said, and whether it is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        is_gone = False
        while True:
            try:
                chunk = os.read(self._process.stdout.fileno(), 65536)
            except BlockingIOError:
                break
            if not chunk:
                is_gone = True
                break
            self._rest += chunk
        *lines, self._rest = self._rest.split(b"\n")
        return [json.loads(line) for line in lines], is_gone

    def _note(self, message: Mapping[str, Any]) -> None:
        life = self._life
        life.last_sign = now = time.monotonic()
        if "beat" not in message:
            life.last_move = life.last_use = now
            return
        if message["moves"] != life.moves:
            life.moves, life.last_move = message["moves"], now
        # Beating itself uses a little.
        if message["beat"] - life.used > _IDLE_SHARE * (now - life.last_use):
            life.used, life.last_use = message["beat"], now

    def _reason_to_give_up(self) -> tuple[How, str] | None:
        now, life, limits = time.monotonic(), self._life, self.limits
        if now - self._looked > _LOOK_SECONDS:
            self._looked = now
            used = self._resident_bytes()
            if limits.memory_bytes is not None and used > limits.memory_bytes:
                return How.OUT_OF_MEMORY, (
                    f"used {used / 2**20:,.0f} MiB of memory, {limits.memory_bytes / 2**20:,.0f} "
                    f"MiB are allowed; allow more with --max-memory, or use a smaller "
                    f"per_device_train_batch_size"
                )
        if now - life.last_sign > limits.silent_seconds:
            return How.HUNG, f"gave no sign of life for {limits.silent_seconds:g} s"
        # Only what it has said itself counts: of a process that says nothing, nothing is known.
        still, unused = life.last_sign - life.last_move, life.last_sign - life.last_use
        if still > limits.idle_seconds and unused > limits.idle_seconds:
            return How.HUNG, f"neither stepped nor used the processor for {still:.0f} s"
        if still > limits.stuck_seconds:
            return How.HUNG, f"made no step for {still:.0f} s"
        return None

    def _resident_bytes(self) -> int:
        assert self._process is not None
        try:
            process = psutil.Process(self._process.pid)
            family = [process, *process.children(recursive=True)]
            return sum(p.memory_info().rss for p in family)
        except psutil.Error:
            return 0

    def _last_words(self, code: int) -> str:
        if self._cancelled:
            return "cancelled"
        if code < 0:
            return f"its process was killed by {signal.Signals(-code).name}"
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = self.log.read_text("utf-8", "replace").strip().splitlines()[-1:]
        words = without_secrets(" ".join(tail))
        return f"its process ended with code {code}: {words} (see {self.log})"


_IDLE_SHARE = 0.02
"""Of a processor; who uses less is idle."""

_LOOK_SECONDS = 0.5
"""Time between two looks at a worker's memory."""
