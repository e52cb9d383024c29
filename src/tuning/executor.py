"""Runs the trials of a study: propose, submit, watch, prune or promote, record.

The folders are the truth. The driver can be killed at any moment: a trial with a record is
finished, every other one is begun or continued when the study is run again. Where trials run is a
backend's business, and who proposes them the plan's.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from tuning import files
from tuning.config import to_yaml
from tuning.errors import LockedError, ResultsError, UserError
from tuning.fingerprint import training_key
from tuning.grid import Proposal, Result, check_size
from tuning.jobs import Backend, Ended, How, Job, Tail, check_progress, claim, was_overtaken
from tuning.paths import ResultsRoot
from tuning.pruning import Curve, Objectives, Observation, Pruner, Pruning, metric_of, pruner_of
from tuning.records import TrialRecord, TrialStatus, ended_early, intact_record, write_record
from tuning.study import StudySpec
from tuning.study_history import (
    agreed_spec,
    log_event,
    mend_progress,
    past_of,
    recall_lost,
    save_best,
)


class Watcher(Protocol):
    """Is told how a study goes on; draws progress, or nothing."""

    def study_moved(self) -> None:
        """Something may have changed; called a few times a second."""

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        """A trial ended, or was found finished."""

    def said(self, message: str) -> None:
        """Something happened that a person should know."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long one run of a study may go on, and what it puts up with."""

    max_seconds: float | None = None
    """Of this run, by the clock."""
    max_cost: float | None = None
    """Of the study, all its runs together."""
    hourly_price: float = 0.0
    """Of one worker."""
    spent: Callable[[], float] | None = None
    """What the study has cost so far, where its place knows better than hours times price."""
    max_attempts: int = 5
    """Attempts without any progress, after which a trial whose worker dies has failed."""
    retry_failed: bool = False
    """Run trials again that failed before."""


class End(StrEnum):
    """Why a run of a study ended."""

    FINISHED = "finished"
    STOPPED = "stopped"
    BUDGET = "budget"


class Outcome(NamedTuple):
    """What a run of a study came to."""

    end: End
    records: list[TrialRecord]
    """Of all finished trials, in the order of the trials."""
    message: str = ""


def run_study(
    spec: StudySpec,
    root: ResultsRoot,
    backend: Backend,
    watcher: Watcher,
    limits: Limits | None = None,
    is_to_stop: Callable[[], bool] = lambda: False,
    order: Sequence[int] = (),
) -> Outcome:
    """Run every trial of the study that has no record yet.

    Args:
        spec: What to do. A study of this name that was asked something else is left alone.
        root: All results hang off it.
        backend: Where trials run; closed by the caller.
        watcher: Told of everything.
        limits: Budgets of this run.
        is_to_stop: Asked again and again; once true, running trials finish their step, write a
            checkpoint, and the run ends.
        order: In which trials are begun, each index once; as they are numbered if empty. Trials
            that follow from results keep their own.

    Raises:
        UserError: The study exists with other settings, another driver runs it, the results
            cannot be written, or more than `max_failures` trials failed.
    """
    plan = spec.plan()
    check_size(plan)
    folder = root.study(spec.name)
    with files.exclusive_lock(folder.lock, f"study {spec.name}"):
        spec = agreed_spec(folder, spec)
        driver = _Driver(spec, root, backend, watcher, limits or Limits(), is_to_stop)
        if order and not plan.is_adaptive:
            assert sorted(order) == list(range(plan.num_trials))
            driver.order = order
        return driver.run()


@dataclass
class _Trial:
    """What the driver knows of a trial that is not finished."""

    index: int
    proposal: Proposal
    training_key: str
    curve: Curve
    tail: Tail
    status: TrialStatus = TrialStatus.WAITING
    job: Job | None = None
    passed: int = 0
    """The last rung that it was allowed to pass."""
    rung: int | None = None
    """Where it pauses, or has paused."""
    prune_reason: str | None = None
    dead_ends: int = 0
    """Attempts in a row that brought nothing."""
    known: list[Observation] = field(default_factory=list)
    """Its training's evaluations; those of steps that are its own are its curve."""
    first_step: int = 0
    """Checkpoint from which its attempt under way began."""
    submitted: float = 0.0
    owned: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """Its training, which no other driver may have made meanwhile."""
    not_before: float = 0.0
    is_known_to_wait: bool = False
    seconds: float = 0.0
    """That its attempts in this run took."""


class _Driver:
    def __init__(
        self,
        spec: StudySpec,
        root: ResultsRoot,
        backend: Backend,
        watcher: Watcher,
        limits: Limits,
        is_to_stop: Callable[[], bool],
    ) -> None:
        self.spec, self.root, self.backend, self.watcher = spec, root, backend, watcher
        self.limits, self.is_to_stop = limits, is_to_stop
        self.folder = root.study(spec.name)
        self.plan = spec.plan()
        self.pruner: Pruner = pruner_of(spec.space.pruning, spec.space.pruning_arguments)
        self.is_pruning = spec.space.pruning is not Pruning.NONE
        self.pauses = self.is_pruning and (self.pruner.pauses or spec.deterministic)
        self.objectives: Objectives = [
            (focus.value, metric_of(focus, spec.weights)) for focus in spec.objectives
        ]
        self.budgets = {} if self.plan.is_adaptive else _budgets(self.plan)
        self.order: Sequence[int] = range(self.plan.num_trials)
        self.next_index = 0
        """Place in the order of the trial that is proposed next."""
        self.open: dict[str, _Trial] = {}
        """Proposed and not finished, in order."""
        self.running: dict[str, _Trial] = {}
        self.busy_trainings: set[str] = set()
        self.records: dict[int, TrialRecord] = {}
        self.results: dict[int, Result] = {}
        self.curves: dict[str, Curve] = {}
        self.has_news = True
        """Whether a trial has come to a rung, or ended, since paused ones were judged."""
        self.num_failed = 0
        self.last_failure: TrialRecord | None = None
        self.ending: End | None = None
        self.end_message = ""
        self.spent_seconds = 0.0
        self.began = backend.now()

    # --- the loop -----------------------------------------------------------------------------

    def run(self) -> Outcome:
        self.folder.control.unlink(missing_ok=True)
        self.past = past_of(self.folder)
        if self.plan.is_adaptive:
            recall_lost(self.folder, self.past)
        self.spent_seconds = self.past.seconds
        self._log("started", num_trials=self.plan.num_trials, slots=self.backend.num_slots)
        try:
            while self._go_on():
                pass
        finally:
            self._abandon()
            for trial in self.open.values():
                trial.owned.close()
        self._check_failures()
        records = [self.records[index] for index in sorted(self.records)]
        end = self.ending or End.FINISHED
        if end is End.FINISHED:
            save_best(self.spec, self.root, records)
        self._log(end.value, num_trials=len(records), message=self.end_message)
        return Outcome(end, records, self.end_message)

    def _go_on(self) -> bool:
        """Do what can be done now; return whether anything is left."""
        self._look_for_an_end()
        if self.ending is None:
            self._fill_slots()
        if not self.running:
            is_all_proposed = self.next_index >= self.plan.num_trials
            if self.ending is not None or (is_all_proposed and not self.open):
                return False
            # Without a slot nothing was proposed: a cluster's workers take a while to come up.
            if self.open and not self._is_any_waiting() and self.backend.num_slots:
                self._settle()
                return True
        for ended in self.backend.poll(_POLL_SECONDS):
            self._take_back(ended)
        for trial in list(self.running.values()):
            assert trial.job is not None
            self.backend.pull(trial.job)
            self._observe(trial)
        self.watcher.study_moved()
        return True

    def _look_for_an_end(self) -> None:
        if self.ending is not None:
            return
        limits = self.limits
        elapsed = self.backend.now() - self.began
        cost = limits.spent() if limits.spent is not None else self._cost_by_time()
        if self.is_to_stop() or self.folder.control.exists():
            self._end(End.STOPPED, "stopped on request")
        elif limits.max_seconds is not None and elapsed >= limits.max_seconds:
            self._end(End.BUDGET, f"the time budget of {limits.max_seconds:g} s is used up")
        elif limits.max_cost is not None and cost >= limits.max_cost:
            self._end(End.BUDGET, f"the cost budget of {limits.max_cost:g} is used up")
        elif self._has_failed():
            self._end(End.STOPPED, "too many failures")

    def _cost_by_time(self) -> float:
        running = sum(self.backend.now() - t.submitted for t in self.running.values())
        return (self.spent_seconds + running) / 3600 * self.limits.hourly_price

    def _end(self, end: End, message: str) -> None:
        """Have running trials write a checkpoint; start nothing more."""
        self.ending, self.end_message = end, message
        if self.running:
            self.watcher.said(f"{message}; running trials finish their step and write a checkpoint")
        for trial in self.running.values():
            assert trial.job is not None
            self.backend.request_stop(trial.job)

    def _abandon(self) -> None:
        """End what still runs, after an error or a second Ctrl-C; folders stay as they are."""
        for trial in self.running.values():
            assert trial.job is not None
            self.backend.cancel(trial.job)
        patience = _ABANDON_POLLS
        while self.running and patience:
            for ended in self.backend.poll(_POLL_SECONDS):
                self.running.pop(ended.job.trial_id, None)
            patience -= 1

    # --- which trial next -----------------------------------------------------------------------

    def _fill_slots(self) -> None:
        while len(self.running) < self.backend.num_slots:
            trial = self._promoted() or self._waiting() or self._new()
            if trial is None:
                return
            if self._owns(trial):
                self._submit(trial)

    def _waiting(self) -> _Trial | None:
        now = self.backend.now()
        for trial in self.open.values():
            if (
                trial.status is TrialStatus.WAITING
                and trial.training_key not in self.busy_trainings
                and trial.not_before <= now
            ):
                return trial
        return None

    def _is_any_waiting(self) -> bool:
        return any(trial.status is TrialStatus.WAITING for trial in self.open.values())

    def _new(self) -> _Trial | None:
        """Propose until a trial can start now; what is finished already is only taken in."""
        while self.next_index < self.plan.num_trials and len(self.open) < self._lookahead:
            if not self._may_propose(self.next_index):
                return None
            index, self.next_index = self.order[self.next_index], self.next_index + 1
            trial = self._propose(index)
            if trial is not None and trial.training_key not in self.busy_trainings:
                if trial.status is TrialStatus.WAITING:
                    return trial
        return None

    @property
    def _lookahead(self) -> int:
        """Trials that may be open at once: paused ones wait for peers, so there is no end there."""
        if self.pauses:
            return self.plan.num_trials + 1
        return self.backend.num_slots + _LOOKAHEAD

    def _may_propose(self, index: int) -> bool:
        if not self.plan.is_adaptive:
            return True
        if not self.spec.deterministic:
            return len(self.open) < self.backend.num_slots or self.pauses
        return all(i in self.results for i in range(self._generation(index)[0]))

    def _generation(self, index: int) -> tuple[int, int]:
        """Return the first trial of a generation, and the first of the next."""
        if not self.plan.is_adaptive:
            return 0, self.plan.num_trials
        size = self.spec.generation_size
        first = index // size * size
        return first, min(first + size, self.plan.num_trials)

    def _propose(self, index: int) -> _Trial | None:
        """Return trial `index`, or None when it is finished."""
        proposal = self._proposal(index)
        key = training_key(proposal.config)
        # A control explains, and competes not.
        own = self.spec.base.spelling_config.arm
        is_spared = not proposal.parameters or proposal.config.spelling_config.arm is not own
        curve = Curve.begin(proposal.trial_id, key, proposal.config, is_spared=is_spared)
        trial = _Trial(
            index, proposal, key, curve, Tail(self.root.training(key).progress, check_progress)
        )
        if self.is_pruning:
            self.curves[proposal.trial_id] = curve
            mend_progress(self.root.training(key))
        path = self.folder.trial(proposal.trial_id).record
        record = intact_record(path)
        if record is not None and self.limits.retry_failed and is_failed(record):
            path.unlink()
            record = None
        if record is not None:
            if self.is_pruning:
                self._read_curve(trial, record.result.step)
            self._commit(trial, record, was_there=True)
            return None
        if index not in self.past.proposed:
            self._log(
                "proposed",
                trial_id=proposal.trial_id,
                parameters=proposal.parameters,
                seed=proposal.seed,
            )
        self.open[proposal.trial_id] = trial
        self._remember(trial)
        return trial if trial.proposal.trial_id in self.open else None

    def _proposal(self, index: int) -> Proposal:
        known = self.past.proposed.get(index)
        if self.plan.is_adaptive and known is not None:
            # A function of what was known then; that cannot be asked again.
            return self.plan.again(index, *known)
        if not self.plan.is_adaptive:
            return self.plan.propose(index, [])
        return self.plan.propose(index, [self._result(i, index) for i in range(index)])

    def _result(self, index: int, asking: int) -> Result:
        """Return what trial `asking` may know of trial `index`."""
        hidden = self.spec.deterministic and index >= self._generation(asking)[0]
        if index in self.results and not hidden:
            return self.results[index]
        if index in self.results:
            return Result(self.results[index].proposal, None, is_running=True)
        return Result(self._open_at(index).proposal, None, is_running=True)

    def _open_at(self, index: int) -> _Trial:
        return next(trial for trial in self.open.values() if trial.index == index)

    def _remember(self, trial: _Trial) -> None:
        """Take up a trial that an earlier run began: its prunings and rungs."""
        trial_id = trial.proposal.trial_id
        step = self._checkpoint_step(trial)
        decided = self.past.pruning.get(trial_id)
        if decided is not None:
            at, trial.prune_reason = decided
            job = self._job(trial, attempt=0)
            self._finish_pruned(trial, job, at if self.pauses else step)
            return
        trial.passed = self.past.promoted.get(trial_id, 0)
        rung = self._next_rung(trial)
        if rung is not None and step >= rung:
            trial.rung, trial.status = rung, TrialStatus.PAUSED
            self._read_curve(trial, rung)

    # --- one trial ------------------------------------------------------------------------------

    def _owns(self, trial: _Trial) -> bool:
        """Have this driver alone make the trial's training, or have the trial wait."""
        folder = self.root.training(trial.training_key)
        lock = files.exclusive_lock(folder.driver_lock, f"training {trial.training_key}", tries=1)
        try:
            trial.owned.enter_context(lock)
        except LockedError as error:
            self._wait_for_others(trial, str(error))
            return False
        return True

    def _wait_for_others(self, trial: _Trial, why: str) -> None:
        """Ask again in a while; a person is told once."""
        trial.not_before = self.backend.now() + _BUSY_SECONDS
        if not trial.is_known_to_wait:
            trial.is_known_to_wait = True
            self.watcher.said(f"{trial.proposal.trial_id} waits: {why}")

    def _submit(self, trial: _Trial) -> None:
        trial.rung = self._next_rung(trial)
        job = self._job(trial, claim(self.root.training(trial.training_key)))
        trial_folder = self.folder.trial(job.trial_id)
        files.write_atomic(trial_folder.config, to_yaml(job.config))
        self._log("submitted", trial_id=job.trial_id, attempt=job.attempt, until=job.until)
        trial.job, trial.status = job, TrialStatus.RUNNING
        trial.submitted, trial.first_step = self.backend.now(), self._checkpoint_step(trial)
        if job.trial_id in self.past.begun and trial.first_step:
            self.past.begun.discard(job.trial_id)
            of = trial.curve.max_steps
            self.watcher.said(f"{job.trial_id} goes on from step {trial.first_step} of {of}")
        self.running[job.trial_id] = trial
        self.busy_trainings.add(trial.training_key)
        self.backend.submit(job)

    def _next_rung(self, trial: _Trial) -> int | None:
        if not self.pauses:
            return None
        return next((r for r in self.pruner.rungs(trial.curve) if r > trial.passed), None)

    def _job(self, trial: _Trial, attempt: int) -> Job:
        return Job(
            study=self.spec.name,
            trial_id=trial.proposal.trial_id,
            config=trial.proposal.config,
            parameters=trial.proposal.parameters,
            seed=trial.proposal.seed,
            weights=tuple(self.spec.weights),
            budgets=tuple(sorted(self.budgets.get(trial.training_key, ()))),
            until=trial.rung,
            attempt=attempt,
        )

    def _take_back(self, ended: Ended) -> None:
        """Look what came of a job that ended."""
        trial = self.running.pop(ended.job.trial_id, None)
        if trial is None:
            return
        self.backend.pull(ended.job)
        self._observe(trial)
        self.busy_trainings.discard(trial.training_key)
        trial.owned.close()
        self.has_news = True
        trial.job, trial.status = None, TrialStatus.WAITING
        trial.seconds += ended.seconds
        self.spent_seconds += ended.seconds
        self._log(
            "ended",
            trial_id=ended.job.trial_id,
            how=ended.how.value,
            seconds=round(ended.seconds, 3),
            message=ended.message or None,
        )
        if ended.how is How.DISK:
            raise ResultsError(ended.message)
        if ended.how is How.BUSY:
            self._wait_for_others(trial, ended.message)
            return
        record = intact_record(self.folder.trial(ended.job.trial_id).record)
        if record is not None:
            self._commit(trial, record, was_there=False)
            return
        self._go_on_with(trial, ended)

    def _go_on_with(self, trial: _Trial, ended: Ended) -> None:
        """Prune, pause, try again or give up a trial that has no record yet."""
        step = self._checkpoint_step(trial)
        if trial.prune_reason is not None:
            self._finish_pruned(trial, ended.job, step)
        elif ended.how is How.OUT_OF_MEMORY:
            self._finish_failed(trial, ended, "MemoryLimitError", step)
        elif ended.how is How.CANCELLED:
            self._finish_failed(trial, ended, "CancelledError", step)
        elif trial.rung is not None and step >= trial.rung and ended.how is How.RETURNED:
            trial.status = TrialStatus.PAUSED
            self._log("paused", trial_id=ended.job.trial_id, step=trial.rung)
        elif was_overtaken(self.root.training(trial.training_key), ended.job.attempt):
            # By a driver that does not see our lock: no fault of the trial.
            self._wait_for_others(trial, "another driver has taken its training over")
        elif self.ending is None:
            trial.dead_ends = 0 if step > trial.first_step else trial.dead_ends + 1
            if ended.how is not How.RETURNED:
                self.watcher.said(
                    f"{ended.job.trial_id}: {ended.message}; it goes on from step {step}"
                )
            if trial.dead_ends >= self.limits.max_attempts:
                kind = {How.HUNG: "WorkerHungError", How.KILLED: "WorkerKilledError"}
                self._finish_failed(trial, ended, kind.get(ended.how, "NoProgressError"), step)

    def _finish_failed(self, trial: _Trial, ended: Ended, kind: str, step: int) -> None:
        text = ended.message or "its attempts end without a result"
        if trial.dead_ends:
            text = f"{text}, {trial.dead_ends} attempts in a row without progress"
        record = ended_early(ended.job, TrialStatus.FAILED, step, trial.seconds, (kind, text))
        write_record(self.folder.trial(ended.job.trial_id), record)
        self._commit(trial, record, was_there=False)

    def _finish_pruned(self, trial: _Trial, job: Job, step: int) -> None:
        assert trial.prune_reason is not None
        why = ("pruned", trial.prune_reason)
        record = ended_early(job, TrialStatus.PRUNED, step, trial.seconds, why)
        write_record(self.folder.trial(job.trial_id), record)
        self._commit(trial, record, was_there=False)

    def _commit(self, trial: _Trial, record: TrialRecord, *, was_there: bool) -> None:
        """Take in a finished trial."""
        self.open.pop(record.trial_id, None)
        self.records[trial.index] = record
        is_pruned = record.result.status is TrialStatus.PRUNED
        objectives = _objectives(self.spec, record)
        self.results[trial.index] = Result(trial.proposal, objectives, is_pruned=is_pruned)
        if is_failed(record):
            self.num_failed += 1
            self.last_failure = record
        if record.trial_id not in self.past.finished or not was_there:
            self._log(
                record.result.status.value,
                trial_id=record.trial_id,
                step=record.result.step,
                reason=record.result.reason,
                error=record.result.error,
            )
        self.watcher.trial_finished(trial.proposal, record, was_there=was_there)

    def _checkpoint_step(self, trial: _Trial) -> int:
        steps = files.steps_of(self.root.training(trial.training_key).checkpoints)
        return min(steps[-1], trial.curve.max_steps) if steps else 0

    # --- early stopping -------------------------------------------------------------------------

    def _observe(self, trial: _Trial) -> None:
        """Read what a running trial has measured; ask it to stop if it is poor."""
        if not self.is_pruning:
            return
        limit = trial.rung if trial.rung is not None else trial.curve.max_steps
        if not self._read_curve(trial, limit) or self.pauses or trial.job is None:
            return
        if trial.prune_reason is None and self.ending is None:
            step = trial.curve.step
            reason = self.pruner.judge(trial.curve, self._peers(trial), step, self.objectives)
            if reason is not None:
                trial.prune_reason = reason
                self._log("pruning", trial_id=trial.proposal.trial_id, step=step, reason=reason)
                self.backend.request_stop(trial.job)

    def _read_curve(self, trial: _Trial, limit: int) -> bool:
        """Read new evaluations up to a step; return whether there were any."""
        if trial.tail.is_rewritten():
            trial.tail.restart()
            trial.known.clear()
        new = [Observation.of(x) for x in trial.tail.lines() if x["kind"] == "evaluation"]
        trial.known += new
        before = len(trial.curve.seen)
        trial.curve.seen = [seen for seen in trial.known if seen.step <= limit]
        return len(trial.curve.seen) > before

    def _peers(self, trial: _Trial) -> list[Curve]:
        return [
            c for c in self.curves.values() if c is not trial.curve and c.arm is trial.curve.arm
        ]

    def _promoted(self) -> _Trial | None:
        """Return a paused trial that may go on."""
        if not self.pauses:
            return None
        paused = [t for t in self.open.values() if t.status is TrialStatus.PAUSED]
        if self.spec.deterministic:
            self._judge_together(paused)
            return None
        if not self.has_news:
            return None
        for trial in self._candidates(paused):
            self._promote(trial)
            return trial
        self.has_news = False
        return None

    def _candidates(self, paused: Sequence[_Trial]) -> Iterator[_Trial]:
        """Yield paused trials that may go on: of the highest rung first, there the best first."""
        by_rung: dict[int, list[_Trial]] = defaultdict(list)
        for trial in paused:
            if trial.training_key not in self.busy_trainings:
                by_rung[trial.rung or 0].append(trial)
        metric = self.objectives[0][1]
        for rung in sorted(by_rung, reverse=True):
            best_first = sorted(
                by_rung[rung],
                key=lambda t: (not t.curve.is_spared, -(t.curve.level(metric, t.rung or 0) or 0)),
            )
            for trial in best_first:
                if self._verdict(trial) is None:
                    yield trial
                elif len(self.objectives) == 1:
                    # The others are no better.
                    break

    def _verdict(self, trial: _Trial) -> str | None:
        assert trial.rung is not None
        return self.pruner.judge(trial.curve, self._peers(trial), trial.rung, self.objectives)

    def _promote(self, trial: _Trial) -> None:
        assert trial.rung is not None
        trial.passed, trial.status = trial.rung, TrialStatus.WAITING
        self._log("promoted", trial_id=trial.proposal.trial_id, step=trial.passed)

    def _judge_together(self, paused: Sequence[_Trial]) -> None:
        """Judge the lowest rung of a generation when all that can reach it have."""
        if not paused or self.running or self._is_any_waiting():
            return
        last = self._generation(paused[0].index)[1]
        if self.next_index < last:
            return
        lowest = min(trial.rung or 0 for trial in paused)
        at_rung = [trial for trial in paused if trial.rung == lowest]
        verdicts = [self._verdict(trial) for trial in at_rung]
        for trial, reason in zip(at_rung, verdicts, strict=True):
            if reason is None:
                self._promote(trial)
            else:
                self._prune_paused(trial, reason)

    def _prune_paused(self, trial: _Trial, reason: str) -> None:
        trial_id = trial.proposal.trial_id
        self._log("pruning", trial_id=trial_id, step=trial.rung, reason=reason)
        trial.prune_reason = reason
        assert trial.rung is not None
        self._finish_pruned(trial, self._job(trial, attempt=0), trial.rung)

    def _settle(self) -> None:
        """Nothing more can come to a rung: who is not promoted now is out."""
        paused = list(self.open.values())
        if self.spec.deterministic:
            self._judge_together(paused)
            return
        for trial in paused:
            reason = self._verdict(trial)
            if reason is None:
                self._promote(trial)
            else:
                self._prune_paused(trial, reason)

    # --- failures, events -------------------------------------------------------------------------

    def _has_failed(self) -> bool:
        most = self.spec.max_failures
        all_failed = self.num_failed == len(self.records) and self.num_failed == most
        return self.num_failed > most or (self.num_failed > 0 and all_failed)

    def _check_failures(self) -> None:
        if self._has_failed():
            assert self.last_failure is not None
            result = self.last_failure.result
            most = self.spec.max_failures
            law = f"{self.num_failed} trials failed, at most {most} may"
            if self.num_failed <= most:
                law = f"all {self.num_failed} trials so far have failed"
            raise UserError(
                f"{law}; the last one with {result.error_type}: {result.error}; go on with "
                f"--retry-failed, or a higher --max-failures"
            )

    def _log(self, event: str, **values: Any) -> None:
        log_event(self.folder, event, **values)


_POLL_SECONDS = 0.2
_BUSY_SECONDS = 1.0
_LOOKAHEAD = 64
_ABANDON_POLLS = 25


def is_failed(record: TrialRecord) -> bool:
    """Whether a trial failed."""
    return record.result.status is TrialStatus.FAILED


def _objectives(spec: StudySpec, record: TrialRecord) -> tuple[float, ...] | None:
    if record.result.status is not TrialStatus.COMPLETED:
        return None
    return tuple(focus.objective(record.result.metrics) for focus in spec.objectives)


def _budgets(planned: Sequence[Proposal]) -> dict[str, frozenset[int]]:
    """Return for each training the steps at which some trial wants its adapter."""
    steps: dict[str, set[int]] = defaultdict(set)
    for proposal in planned:
        steps[training_key(proposal.config)].add(proposal.config.training_config.max_steps)
    return {key: frozenset(budgets) for key, budgets in steps.items()}
