"""The places where the contract of backends is tested; a further one is a further factory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil

from fake_backend import FakeBackend, Fate, Kind
from simulated_training import TURNING_STEP, Does
from tuning.backends.local import LocalBackend
from tuning.backends.process import Limits
from tuning.jobs import Backend, How, Job
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


PLACES: dict[str, Callable[[ResultsRoot, int], Place]] = {"fake": FakePlace, "local": LocalPlace}
