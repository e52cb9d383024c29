"""How a study goes on, read from its folders alone: by the driver's screen and by anyone else."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tuning import files
from tuning.errors import ResultsError
from tuning.fingerprint import training_key
from tuning.grid import Proposal
from tuning.jobs import Tail, check_progress
from tuning.paths import ResultsRoot
from tuning.ranking import Contender
from tuning.records import TrialStatus, intact_record
from tuning.scoring import TRANSFER_SCORE, accuracy_name, calculate_transfer_score
from tuning.study import StudySpec, check_event, trial_index
from tuning.tasks.items import SCORED_TASKS

_ENDED = ("completed", "failed", "pruned")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialView:
    """One trial as a table shows it."""

    trial_id: str
    label: str
    seed: int
    state: str
    step: int
    max_steps: int
    loss: float | None = None
    spelling: float | None = None
    position: float | None = None
    count: float | None = None
    """Accuracies: of the final evaluation once it is there, else of the small one on the way."""
    score: float | None = None
    steps_per_second: float | None = None
    eta_seconds: float | None = None
    seconds: float = 0.0
    """That workers spent on it."""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStatus:
    """A study as a table shows it."""

    study: str
    is_running: bool
    """Whether a driver holds it now."""
    num_planned: int
    counts: Mapping[str, int]
    """Trials by state; those not yet proposed are waiting."""
    worker_seconds: float
    eta_seconds: float | None
    trials: Sequence[TrialView]
    """Those that began, in order."""


@dataclass
class _Known:
    """What is known of a trial."""

    trial_id: str
    parameters: Mapping[str, Any]
    seed: int
    state: str = TrialStatus.WAITING.value
    note: str = ""
    seconds: float = 0.0
    began_at: float = 0.0
    began_step: int = 0
    proposal: Proposal | None = None
    tail: Tail | None = None
    lines: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """The newest line of progress of each kind."""
    final: TrialView | None = None


class StudyMonitor:
    """Follows a study; cheap to ask again, for only what is new is read."""

    def __init__(self, spec: StudySpec, root: ResultsRoot) -> None:
        """Begin to follow."""
        self.spec = spec
        self._root = root
        self._folder = root.study(spec.name)
        self._plan = spec.plan()
        self._events = Tail(self._folder.events, check_event)
        self._trials: dict[str, _Known] = {}
        self._has_recalled = False

    @property
    def num_planned(self) -> int:
        """Trials that the study makes."""
        return self._plan.num_trials

    def status(self) -> StudyStatus:
        """Return how the study stands now.

        Raises:
            ResultsError: Its events are damaged.
        """
        for event in self._events.lines():
            self._take(event)
        if not self._has_recalled:
            self._recall()
        is_running = files.is_locked(self._folder.lock)
        views = [self._view(t, is_running) for t in self._ordered()]
        counts = Counter(view.state for view in views)
        unseen = self._plan.num_trials - len(views)
        if unseen > 0:
            counts[TrialStatus.WAITING.value] += unseen
        return StudyStatus(
            study=self.spec.name,
            is_running=is_running,
            num_planned=self._plan.num_trials,
            counts=dict(counts),
            worker_seconds=sum(t.seconds for t in self._trials.values()),
            eta_seconds=self._eta(views, is_running),
            trials=views,
        )

    def _recall(self) -> None:
        """Take up trials whose events were lost: a record says what became of them."""
        self._has_recalled = True
        for path in sorted(self._folder.trials.glob("*/record.json")):
            known = self._trials.get(path.parent.name)
            if known is not None and known.state in _ENDED:
                continue
            record = intact_record(path)
            if record is None or trial_index(record.trial_id) < 0:
                continue
            result, done = record.result, record.execution
            known = known or _Known(record.trial_id, record.parameters, record.seed)
            known.state, known.note = result.status.value, result.reason or result.error or ""
            known.seconds = known.seconds or done.train_seconds + done.evaluation_seconds
            self._trials[record.trial_id] = known

    def _ordered(self) -> Iterator[_Known]:
        return (self._trials[key] for key in sorted(self._trials, key=trial_index))

    def _take(self, event: Mapping[str, Any]) -> None:
        trial_id = event.get("trial_id")
        if trial_id is None:
            return
        kind = event["event"]
        trial = self._trials.get(trial_id)
        if trial is None:
            parameters, seed = event.get("parameters", {}), event.get("seed", 0)
            trial = self._trials[trial_id] = _Known(trial_id, parameters, seed)
        if kind == "submitted":
            trial.state, trial.note = TrialStatus.RUNNING.value, ""
            trial.began_at = datetime.fromisoformat(event["at"]).timestamp()
            trial.began_step = -1
        elif kind == "ended":
            trial.seconds += event["seconds"]
            trial.state, trial.note = TrialStatus.WAITING.value, event.get("message") or ""
        elif kind == "pruning":
            trial.note = event["reason"]
        elif kind in ("paused", *_ENDED):
            trial.state, trial.final = kind, None
            trial.note = event.get("reason") or event.get("error") or ""
        elif kind == "promoted":
            trial.state = TrialStatus.WAITING.value

    def _proposal(self, trial: _Known) -> Proposal:
        if trial.proposal is None:
            again = self._plan.again(trial_index(trial.trial_id), trial.parameters, trial.seed)
            trial.proposal = again
            trial.tail = Tail(
                self._root.training(training_key(again.config)).progress, check_progress
            )
        return trial.proposal

    def _view(self, trial: _Known, is_driven: bool) -> TrialView:
        if trial.final is not None:
            return trial.final
        proposal = self._proposal(trial)
        if trial.state in _ENDED:
            trial.final = self._finished(trial, proposal)
            return trial.final
        self._read(trial, proposal.config.training_config.max_steps)
        step = max((int(line["step"]) for line in trial.lines.values()), default=0)
        return self._moving(trial, proposal, step, is_driven)

    def _read(self, trial: _Known, max_steps: int) -> None:
        assert trial.tail is not None
        if trial.tail.is_rewritten():
            trial.tail.restart()
            trial.lines.clear()
        try:
            lines = trial.tail.lines()
        except ResultsError as error:
            trial.note = str(error)
            return
        for line in lines:
            if line["step"] <= max_steps:
                trial.lines[line["kind"]] = line

    def _moving(self, trial: _Known, proposal: Proposal, step: int, is_driven: bool) -> TrialView:
        running = trial.state == TrialStatus.RUNNING.value
        max_steps = proposal.config.training_config.max_steps
        if trial.began_step < 0:
            trial.began_step = step
        rate = None
        elapsed = time.time() - trial.began_at
        if running and elapsed > 0 and step > trial.began_step:
            rate = (step - trial.began_step) / elapsed
        state = trial.state
        if running and not is_driven:
            state = "interrupted"
        elif running and step >= max_steps:
            state = "evaluating"
        seen = trial.lines.get("evaluation")
        accuracies = [seen[accuracy_name(task)] for task in SCORED_TASKS] if seen else None
        return TrialView(
            trial_id=trial.trial_id,
            label=_label(proposal),
            seed=proposal.seed,
            state=state,
            step=step,
            max_steps=max_steps,
            loss=trial.lines.get("train", {}).get("loss"),
            spelling=accuracies[0] if accuracies else None,
            position=accuracies[1] if accuracies else None,
            count=accuracies[2] if accuracies else None,
            score=self._score(accuracies),
            steps_per_second=rate,
            eta_seconds=(max_steps - step) / rate if rate and running else None,
            seconds=trial.seconds + (elapsed if running and is_driven else 0.0),
            note=trial.note,
        )

    def _score(self, accuracies: Sequence[float] | None) -> float | None:
        if accuracies is None:
            return None
        spelling, position, count = accuracies
        return calculate_transfer_score(spelling, position, count, *self.spec.weights)

    def _finished(self, trial: _Known, proposal: Proposal) -> TrialView:
        record = intact_record(self._folder.trial(trial.trial_id).record)
        metrics = record.result.metrics if record else {}
        names = [accuracy_name(task) for task in SCORED_TASKS]
        spelling, position, count = (metrics.get(name) for name in names)
        return TrialView(
            trial_id=trial.trial_id,
            label=_label(proposal),
            seed=proposal.seed,
            state=trial.state if record else "damaged",
            step=record.result.step if record else 0,
            max_steps=proposal.config.training_config.max_steps,
            spelling=spelling,
            position=position,
            count=count,
            score=metrics.get(TRANSFER_SCORE),
            seconds=trial.seconds,
            note=trial.note,
        )

    def _eta(self, views: Sequence[TrialView], is_running: bool) -> float | None:
        """Return the time left, if the trials to come are like those that were completed."""
        done = [view for view in views if view.state == "completed" and view.seconds > 0]
        moving = sum(view.state in ("running", "evaluating") for view in views)
        if not is_running or not done or not moving:
            return None
        left = self._plan.num_trials - sum(v.state in _ENDED for v in views)
        mean = sum(view.seconds for view in done) / len(done)
        half_way = sum(v.seconds for v in views if v.state in ("running", "evaluating"))
        return max(0.0, left * mean - half_way) / moving


def _label(proposal: Proposal) -> str:
    return Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
