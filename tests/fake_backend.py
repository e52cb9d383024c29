"""A place where simulated trainings run by a clock of its own: thousands of trials in seconds."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from simulated_training import (
    Learns,
    SimulatedTraining,
    learns,
    write_simulated_failure,
    write_simulated_record,
)
from tuning.errors import LockedError
from tuning.jobs import Ended, How, Job, SupersededError, Wish
from tuning.paths import ResultsRoot


class Kind(StrEnum):
    """How an attempt ends."""

    WELL = "well"
    DIES = "dies"
    HANGS = "hangs"
    OUT_OF_MEMORY = "out_of_memory"
    RAISES = "raises"
    NAN = "nan"
    DISK = "disk"


@dataclass(frozen=True)
class Fate:
    """What happens to an attempt."""

    kind: Kind = Kind.WELL
    after_steps: int = 0
    """Steps that it trains before."""


WELL = Fate()


@dataclass
class Ledger:
    """What was trained and run, over all drivers of a test."""

    steps: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each step of each training was trained."""
    attempts: Counter[str] = field(default_factory=Counter)
    """How often each trial was submitted."""
    most_at_once: int = 0


@dataclass
class _Run:
    job: Job
    number: int
    began: float
    seconds_per_step: float
    next_at: float
    fate: Fate
    training: SimulatedTraining | None = None
    num_steps: int = 0
    is_stopping: bool = False
    ended: tuple[How, str] | None = None
    ends_at: float = 0.0


class FakeBackend:
    """Implements `jobs.Backend`; nothing in it waits.

    A job moves by one step of its training at a time, all jobs by the same clock. Every misfortune
    that a real place has can be asked for.
    """

    def __init__(
        self,
        root: ResultsRoot,
        num_slots: int = 2,
        *,
        steps_per_second: float = 100.0,
        fate: Callable[[Job], Fate] = lambda job: WELL,
        rng: random.Random | None = None,
        learns: Learns = learns,
        ledger: Ledger | None = None,
        is_cheap: bool = False,
    ) -> None:
        """Set how it behaves.

        Args:
            root: The results.
            num_slots: Jobs at once.
            steps_per_second: Of every job, by the fake clock.
            fate: What becomes of an attempt.
            rng: Makes some attempts faster than others, so that they end in any order.
            learns: What trainings learn.
            ledger: Counts over several backends.
            is_cheap: Trains nothing and writes records alone.
        """
        self.root, self._num_slots = root, num_slots
        self._speed, self._fate, self._rng = steps_per_second, fate, rng
        self._learns, self._is_cheap = learns, is_cheap
        self.ledger = ledger or Ledger()
        self.is_closed = False
        self._clock = 0.0
        self._running: dict[str, _Run] = {}
        self._count = 0

    # --- the protocol ---------------------------------------------------------------------------

    @property
    def num_slots(self) -> int:
        return self._num_slots

    @property
    def running(self) -> list[Job]:
        """The jobs that run now."""
        return [run.job for run in self._running.values()]

    def now(self) -> float:
        return self._clock

    def submit(self, job: Job) -> None:
        assert len(self._running) < self._num_slots, "more jobs than slots"
        assert job.trial_id not in self._running, f"{job.trial_id} runs twice"
        self.ledger.attempts[job.trial_id] += 1
        per_step = 1 / self._speed * (self._rng.uniform(0.5, 2) if self._rng else 1.0)
        self._count += 1
        run = _Run(job, self._count, self._clock, per_step, self._clock + per_step, self._fate(job))
        self._running[job.trial_id] = run
        self.ledger.most_at_once = max(self.ledger.most_at_once, len(self._running))
        if not self._is_cheap:
            others = [r.job.training_key for r in self._running.values() if r is not run]
            assert job.training_key not in others, f"two jobs of training {job.training_key}"
            self._begin(run)

    def poll(self, seconds: float) -> list[Ended]:
        until = self._clock + seconds
        while self._running:
            at = min(run.next_at for run in self._running.values())
            if at > until:
                break
            self._clock = max(self._clock, at)
            due = [run for run in self._running.values() if run.next_at <= self._clock]
            for run in sorted(due, key=lambda r: (r.next_at, r.number)):
                self._move(run)
            ended = [run for run in due if run.ended and run.ends_at <= self._clock]
            if ended:
                return [self._take_out(run) for run in sorted(ended, key=lambda r: r.number)]
        self._clock = until
        return []

    def pull(self, job: Job) -> None:
        pass

    def request_stop(self, job: Job) -> None:
        self._running[job.trial_id].is_stopping = True

    def cancel(self, job: Job) -> None:
        self.end(job, How.KILLED, "cancelled")

    def close(self) -> None:
        for run in self._running.values():
            if run.training is not None:
                run.training.let_go()
        self._running.clear()
        self.is_closed = True

    # --- what tests do to it --------------------------------------------------------------------

    def end(self, job: Job, how: How, message: str) -> None:
        """End a job from outside; it is reported by the next poll."""
        run = self._running[job.trial_id]
        if run.ended is None:
            self._end(run, how, message)

    # --- a job's way ----------------------------------------------------------------------------

    def _begin(self, run: _Run) -> None:
        try:
            run.training = SimulatedTraining(
                run.job, self.root, lambda: run.is_stopping, self._learns
            )
        except LockedError as error:
            self._end(run, How.BUSY, str(error))

    def _move(self, run: _Run) -> None:
        if run.ended is not None:
            return
        run.next_at += run.seconds_per_step
        if run.fate.kind is not Kind.WELL and run.num_steps >= run.fate.after_steps:
            self._meet_fate(run)
        elif self._is_cheap:
            write_simulated_record(run.job, self.root, self._learns)
            self._end(run, How.RETURNED)
        else:
            self._train(run)

    def _train(self, run: _Run) -> None:
        training = run.training
        assert training is not None
        if not training.is_over:
            self.ledger.steps[training.key, training.advance()] += 1
            run.num_steps += 1
        if training.is_over:
            try:
                training.finish(Wish(training.folder, run.job.attempt))
            except SupersededError:
                pass
            self._end(run, How.RETURNED)

    def _meet_fate(self, run: _Run) -> None:
        match run.fate.kind:
            case Kind.DIES:
                self._end(run, How.KILLED, "its process was killed by SIGKILL")
            case Kind.HANGS:
                text = f"made no step for {HANGING_SECONDS:g} s"
                self._end(run, How.HUNG, text, after=HANGING_SECONDS)
            case Kind.OUT_OF_MEMORY:
                self._end(run, How.OUT_OF_MEMORY, "used 9 MiB of memory, 8 MiB are allowed")
            case Kind.DISK:
                self._end(run, How.DISK, "cannot write record.json: the disk is full")
            case Kind.RAISES:
                write_simulated_failure(run.job, self.root, "DataError", "no words are left")
                self._end(run, How.RETURNED)
            case Kind.NAN:
                text = f"the loss is nan at step {run.num_steps + 1}"
                write_simulated_failure(run.job, self.root, "NotANumberError", text)
                self._end(run, How.RETURNED)

    def _end(self, run: _Run, how: How, message: str = "", after: float = 0.0) -> None:
        run.ended, run.ends_at = (how, message), self._clock + after
        run.next_at = run.ends_at
        if run.training is not None:
            run.training.let_go()

    def _take_out(self, run: _Run) -> Ended:
        assert run.ended is not None
        del self._running[run.job.trial_id]
        how, message = run.ended
        return Ended(run.job, how, message, self._clock - run.began)


HANGING_SECONDS = 15.0
"""After which a job that makes no step is given up, by the fake clock."""
