"""The places where the contract of backends is tested; a further one is a further factory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from cloud_support import address, client_env, environment, settings_for
from fake_backend import FakeBackend, Fate, Kind
from simulated_training import TURNING_STEP, Does
from tuning.backends.lightning import LightningBackend
from tuning.backends.local import LocalBackend
from tuning.backends.process import Limits
from tuning.jobs import Backend, How, Job
from tuning.lightning_integration import Cloud
from tuning.paths import ResultsRoot

RUNNER = "simulated_training:run"

SMALL_LIMITS = Limits(memory_bytes=400 * 2**20, silent_seconds=6, idle_seconds=8, stuck_seconds=60)


class Place(Protocol):
    """A backend with what a test does to it from outside."""

    backend: Backend

    def kill(self, job: Job) -> None:
        """Kill the process of a job with SIGKILL."""

    def freeze(self, job: Job) -> None:
        """Stop the process of a job, which then does not move and does not say so."""

    def is_anything_left(self) -> bool:
        """Whether a process of the place lives."""


class FakePlace:
    """Simulated trainings by a fake clock."""

    def __init__(self, root: ResultsRoot, num_slots: int) -> None:
        self.backend = FakeBackend(root, num_slots, steps_per_second=20, fate=self._fate)

    @staticmethod
    def _fate(job: Job) -> Fate:
        kinds = {
            Does.SLEEPS: Fate(Kind.HANGS, TURNING_STEP),
            Does.EATS: Fate(Kind.OUT_OF_MEMORY, TURNING_STEP),
            Does.DIES: Fate(Kind.DIES),
        }
        return kinds.get(Does(job.parameters.get("does", "well")), Fate())

    def kill(self, job: Job) -> None:
        self.backend.end(job, How.KILLED, "its process was killed by SIGKILL")

    def freeze(self, job: Job) -> None:
        self.backend.end(job, How.HUNG, "gave no sign of life for 15 s")

    def is_anything_left(self) -> bool:
        return not self.backend.is_closed


class LocalPlace:
    """Real worker processes of this machine, with a runner that needs no torch."""

    def __init__(self, root: ResultsRoot, num_slots: int) -> None:
        environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        self.backend = LocalBackend(root, [environment] * num_slots, SMALL_LIMITS, RUNNER)
        self._known: set[int] = set()

    def _pid(self, job: Job) -> int:
        self._known.update(self.backend.pids)
        workers = [w for w in self.backend._workers if w.job and w.job.trial_id == job.trial_id]
        assert workers[0].pid is not None
        return workers[0].pid

    def kill(self, job: Job) -> None:
        os.kill(self._pid(job), signal.SIGKILL)

    def freeze(self, job: Job) -> None:
        os.kill(self._pid(job), signal.SIGSTOP)

    def is_anything_left(self) -> bool:
        self._known.update(self.backend.pids)
        return any(psutil.pid_exists(pid) for pid in self._known)


class LightningPlace:
    """Jobs of a cloud on loopback, which runs them in processes of their own."""

    def __init__(self, root: ResultsRoot, num_slots: int) -> None:
        self._stack = contextlib.ExitStack()
        home = root.root / "home"
        self.cloud = self._stack.enter_context(address().holding(root.root / "cloud"))
        self._stack.enter_context(environment(client_env(address().url, home)))
        settings = settings_for(root.root / "configs", self.cloud, max_jobs=num_slots)
        client = Cloud(settings.studio)
        client.create_studio("tuning-study")
        self.backend = LightningBackend(
            root, client, settings, "study", "tuning-study", limits=SMALL_LIMITS, runner=RUNNER
        )
        # In the job: the machine has this checkout and its tests.
        tests = str(Path(__file__).parents[1])
        self._stack.enter_context(environment({"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}))

    def _worker(self, job: Job) -> psutil.Process:
        """Return the process that runs a trial, on the machine of its job."""
        run = self.backend.scheduler.ledger.runs[job.trial_id]
        assert run.current is not None
        on_cloud = self.cloud._named(run.current.cloud_name)
        assert on_cloud.process is not None
        family = psutil.Process(on_cloud.process.pid).children(recursive=True)
        return next(p for p in family if "tuning.backends.worker" in p.cmdline())

    def kill(self, job: Job) -> None:
        self._worker(job).kill()

    def freeze(self, job: Job) -> None:
        self._worker(job).suspend()

    def is_anything_left(self) -> bool:
        until = time.monotonic() + 5
        while self.cloud.running_jobs and time.monotonic() < until:
            self.cloud.look()
            time.sleep(0.1)
        left = bool(self.cloud.running_jobs or self.cloud.unknown)
        self._stack.close()
        return left


PLACES: dict[str, Callable[[ResultsRoot, int], Place]] = {
    "fake": FakePlace,
    "local": LocalPlace,
    "lightning": LightningPlace,
}
