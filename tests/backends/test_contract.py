"""What the driver relies on, whatever the place: every test runs on every backend."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import PLACES, Place

from tuning import files
from tuning.jobs import Ended, How, Job, claim
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.records import TrialRecord, TrialStatus, intact_record

PATIENCE = 60.0
"""Seconds, by the place's own clock, in which anything must have happened."""

SHORT, LONG = 12, 4000
"""Steps of a job that ends by itself soon, and of one that a test must end."""


class Scene:
    """A place with a results root, and jobs for it."""

    def __init__(self, place: Place, root: ResultsRoot, small_config: Callable[..., Any]) -> None:
        self.place, self.root = place, root
        self.backend = place.backend
        self._config = small_config
        self._numbers = itertools.count()

    def job(self, steps: int = SHORT, does: str = "well", until: int | None = None) -> Job:
        """Return the first attempt of a new trial on a training of its own."""
        number = next(self._numbers)
        config = self._config(f"max_steps={steps}", f"training_config.seed={number}")
        return self.again(
            Job(
                study="study",
                trial_id=f"{number:04d}-00000000",
                config=config,
                parameters={"does": does},
                seed=number,
                until=until,
            )
        )

    def again(self, job: Job, until: int | None = None) -> Job:
        """Return the next attempt of a trial."""
        attempt = claim(self.training(job))
        return job.model_copy(update={"attempt": attempt, "until": until or job.until})

    def training(self, job: Job) -> TrainingFolder:
        return self.root.training(job.training_key)

    def checkpoints(self, job: Job) -> list[int]:
        return files.steps_of(self.training(job).checkpoints)

    def record(self, job: Job) -> TrialRecord | None:
        return intact_record(self.root.study("study").trial(job.trial_id).record)

    def first_steps(self, job: Job) -> list[int]:
        """Return where each attempt that began the training took it up."""
        lines = files.read_json_lines(self.training(job).attempts)
        return [line["step"] for line in lines if line["event"] == "start"]

    def wait(self, condition: Callable[[], bool]) -> list[Ended]:
        """Poll until something is so; return the jobs that ended meanwhile."""
        ended: list[Ended] = []
        patience = self.backend.now() + PATIENCE
        while not condition():
            assert self.backend.now() < patience, f"nothing happened; ended: {ended}"
            ended += self.backend.poll(0.1)
        return ended

    def ends(self, count: int = 1) -> list[Ended]:
        """Return the next jobs that end: so many, or more if they end together."""
        ended: list[Ended] = []
        patience = self.backend.now() + PATIENCE
        while len(ended) < count:
            assert self.backend.now() < patience, f"only {ended}"
            ended += self.backend.poll(0.5)
        return ended

    def wait_for_checkpoint(self, *jobs: Job) -> None:
        """Wait until all have written a checkpoint while none has ended."""

        def are_there() -> bool:
            for job in jobs:
                self.backend.pull(job)
            return all(self.checkpoints(job) for job in jobs)

        assert self.wait(are_there) == []


@pytest.fixture(params=PLACES)
def scene(
    request: pytest.FixtureRequest, tmp_path: Path, small_config: Callable[..., Any]
) -> Iterator[Scene]:
    root = ResultsRoot(tmp_path)
    place = PLACES[request.param](root, 2)
    yield Scene(place, root, small_config)
    place.backend.close()
    assert not place.is_anything_left()


def test_jobs_end_exactly_once_with_their_records_on_disk(scene: Scene) -> None:
    jobs = [scene.job() for _ in range(5)]
    left, ended = list(jobs), []
    while len(ended) < len(jobs):
        while left and len(jobs) - len(left) - len(ended) < scene.backend.num_slots:
            scene.backend.submit(left.pop(0))
        ended += scene.ends()
    assert scene.backend.poll(1.0) == []
    assert len(ended) == len(jobs)
    assert {e.job.trial_id for e in ended} == {job.trial_id for job in jobs}
    for job, how, message, seconds in ended:
        assert (how, message) == (How.RETURNED, "")
        assert seconds > 0
        record = scene.record(job)
        assert record is not None
        assert record.result.status is TrialStatus.COMPLETED
        assert record.result.training_key == job.training_key
        assert scene.checkpoints(job) == [SHORT]
        lines = files.read_json_lines(scene.training(job).progress)
        assert [x["step"] for x in lines if x["kind"] == "evaluation"] == [0, 4, 8, 12]


def test_as_many_jobs_run_at_once_as_there_are_slots(scene: Scene) -> None:
    assert scene.backend.num_slots == 2
    jobs = [scene.job(LONG), scene.job(LONG)]
    for job in jobs:
        scene.backend.submit(job)
    scene.wait_for_checkpoint(*jobs)


def test_a_job_that_is_asked_to_stop_returns_with_a_checkpoint_and_goes_on_from_there(
    scene: Scene,
) -> None:
    job = scene.job(LONG)
    scene.backend.submit(job)
    scene.wait_for_checkpoint(job)
    scene.backend.request_stop(job)
    (ended,) = scene.ends()
    assert ended.how is How.RETURNED
    assert scene.record(job) is None
    (step,) = scene.checkpoints(job)
    assert 4 <= step < LONG

    scene.backend.submit(scene.again(job, until=step + 3))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.checkpoints(job) == [step + 3]
    assert scene.first_steps(job) == [0, step]


def test_a_job_pauses_where_it_is_told_and_another_attempt_ends_it(scene: Scene) -> None:
    job = scene.job(until=6)
    scene.backend.submit(job)
    assert scene.ends()[0].how is How.RETURNED
    assert scene.record(job) is None
    assert scene.checkpoints(job) == [6]

    # One that is already there returns without a step.
    scene.backend.submit(scene.again(job))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.checkpoints(job) == [6]

    scene.backend.submit(scene.again(job, until=SHORT))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.record(job) is not None
    assert scene.first_steps(job) == [0, 6]


def test_a_cancelled_job_ends_at_once_is_reported_and_disturbs_no_other(scene: Scene) -> None:
    job, other = scene.job(LONG), scene.job(40)
    scene.backend.submit(job)
    scene.backend.submit(other)
    scene.wait_for_checkpoint(job)
    scene.backend.cancel(job)
    first, second = scene.ends(2)
    assert (first.job.trial_id, first.how) == (job.trial_id, How.KILLED)
    assert (second.job.trial_id, second.how) == (other.trial_id, How.RETURNED)
    assert scene.record(job) is None
    assert scene.record(other) is not None


def test_a_killed_worker_is_noticed_and_the_next_attempt_continues(scene: Scene) -> None:
    job = scene.job(60)
    scene.backend.submit(job)
    scene.wait_for_checkpoint(job)
    before = scene.backend.now()
    scene.place.kill(job)
    (ended,) = scene.ends()
    assert scene.backend.now() - before < 5
    assert ended.how is How.KILLED
    assert "SIGKILL" in ended.message
    assert scene.record(job) is None

    (step,) = scene.checkpoints(job)
    scene.backend.submit(scene.again(job))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.first_steps(job) == [0, step]
    assert scene.record(job) is not None
    steps = [x["step"] for x in files.read_json_lines(scene.training(job).progress)]
    assert len([s for s in steps if s % 4 == 0 and s % 10]) == len(
        {s for s in steps if s % 4 == 0 and s % 10}
    )


def test_a_worker_that_dies_before_its_first_step_is_reported_every_time(scene: Scene) -> None:
    job = scene.job(does="dies")
    for _ in range(3):
        scene.backend.submit(job)
        (ended,) = scene.ends()
        assert ended.how is How.KILLED
        assert ended.message
        assert scene.checkpoints(job) == []
        job = scene.again(job)


def test_a_job_that_waits_for_ever_is_given_up(scene: Scene) -> None:
    job = scene.job(does="sleeps")
    scene.backend.submit(job)
    (ended,) = scene.ends()
    assert ended.how is How.HUNG
    assert "step" in ended.message
    assert scene.record(job) is None
    assert scene.checkpoints(job) == [4]


def test_a_stopped_process_is_given_up(scene: Scene) -> None:
    job = scene.job(LONG)
    scene.backend.submit(job)
    scene.wait_for_checkpoint(job)
    scene.place.freeze(job)
    (ended,) = scene.ends()
    assert ended.how is How.HUNG
    assert "no sign of life" in ended.message


def test_a_job_that_eats_memory_is_ended_and_the_place_works_on(scene: Scene) -> None:
    job = scene.job(does="eats")
    scene.backend.submit(job)
    (ended,) = scene.ends()
    assert ended.how is How.OUT_OF_MEMORY
    assert "MiB are allowed" in ended.message
    assert scene.record(job) is None

    other = scene.job()
    scene.backend.submit(other)
    assert scene.ends()[0].how is How.RETURNED


def test_a_training_that_another_process_works_on_is_busy(scene: Scene) -> None:
    job = scene.job()
    with files.exclusive_lock(scene.training(job).lock, "the training"):
        scene.backend.submit(job)
        (ended,) = scene.ends()
        assert ended.how is How.BUSY
        assert "another process is working on" in ended.message
    scene.backend.submit(scene.again(job))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.record(job) is not None


def test_an_attempt_that_a_newer_one_took_over_from_records_nothing(scene: Scene) -> None:
    job = scene.job(LONG // 40)
    scene.backend.submit(job)
    scene.wait_for_checkpoint(job)
    claim(scene.training(job))
    assert scene.ends()[0].how is How.RETURNED
    assert scene.record(job) is None


def test_what_a_job_prints_does_no_harm(scene: Scene) -> None:
    job = scene.job(does="chatters")
    scene.backend.submit(job)
    (ended,) = scene.ends()
    assert (ended.job.trial_id, ended.how) == (job.trial_id, How.RETURNED)
    assert scene.record(job) is not None


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_polling_waits_no_longer_than_asked(scene: Scene, seconds: float) -> None:
    def polled() -> float:
        before = scene.backend.now()
        assert scene.backend.poll(seconds) == []
        return scene.backend.now() - before

    assert seconds - 0.001 <= polled() < seconds + 0.2
    job = scene.job(LONG)
    scene.backend.submit(job)
    scene.wait_for_checkpoint(job)
    assert seconds - 0.001 <= polled() < seconds + 0.2


def test_closing_ends_what_still_runs(scene: Scene) -> None:
    jobs = [scene.job(LONG), scene.job(LONG, does="sleeps")]
    for job in jobs:
        scene.backend.submit(job)
    scene.wait_for_checkpoint(*jobs)
    scene.backend.close()
    assert not scene.place.is_anything_left()
    scene.backend.close()
