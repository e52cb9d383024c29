"""Lightning.AI: the contract on a cloud on loopback that runs jobs in processes of their own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import test_contract
from places import RUNNER, SMALL_LIMITS
from test_contract import *  # noqa: F403 - every test of the contract runs here again
from test_contract import Scene

from cloud_support import address, client_env, environment, settings_for
from tuning.backends.lightning import LightningBackend
from tuning.jobs import Job
from tuning.lightning_integration import Cloud
from tuning.paths import ResultsRoot


class LightningPlace:
    """Jobs of a cloud on loopback, which runs them in processes of their own."""

    def __init__(self, root: ResultsRoot, num_slots: int, *, auto_scale: bool = True) -> None:
        self._stack = contextlib.ExitStack()
        home = root.root / "home"
        self.cloud = self._stack.enter_context(address().holding(root.root / "cloud"))
        self._stack.enter_context(environment(client_env(address().url, home)))
        settings = settings_for(root.root / "configs", self.cloud, max_jobs=num_slots)
        client = Cloud(settings.studio)
        client.create_studio("tuning-study")
        self.backend = LightningBackend(
            root,
            client,
            settings,
            "study",
            "tuning-study",
            auto_scale=auto_scale,
            limits=SMALL_LIMITS,
            runner=RUNNER,
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


@pytest.fixture
def scene(tmp_path: Path, small_config: Callable[..., Any]) -> Iterator[Scene]:
    root = ResultsRoot(tmp_path)
    place = LightningPlace(root, 2)
    yield Scene(place, root, small_config)
    place.backend.close()
    assert not place.is_anything_left()


# What a worker process does is watched in the job as it is on this machine, and tested there. In
# every run one that is killed, and one that eats memory, tell that a job passes on limits and ends.


@pytest.mark.nightly
def test_a_job_that_waits_for_ever_is_given_up(scene: Scene) -> None:
    test_contract.test_a_job_that_waits_for_ever_is_given_up(scene)


@pytest.mark.nightly
def test_a_stopped_process_is_given_up(scene: Scene) -> None:
    test_contract.test_a_stopped_process_is_given_up(scene)


@pytest.mark.nightly
def test_a_worker_that_dies_before_its_first_step_is_reported_every_time(scene: Scene) -> None:
    test_contract.test_a_worker_that_dies_before_its_first_step_is_reported_every_time(scene)


@pytest.mark.nightly
def test_jobs_end_exactly_once_with_their_records_on_disk(scene: Scene) -> None:
    test_contract.test_jobs_end_exactly_once_with_their_records_on_disk(scene)


def test_without_auto_scale_the_lower_bound_runs_at_once(tmp_path: Path) -> None:
    place = LightningPlace(ResultsRoot(tmp_path), 2, auto_scale=False)
    assert place.backend.num_slots == 1
    place.backend.close()
    assert not place.is_anything_left()
