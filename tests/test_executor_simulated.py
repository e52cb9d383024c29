"""The driver by a fake clock: thousands of trials, every misfortune, stops at any moment."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from backend_support import Remembers
from fake_backend import WELL, FakeBackend, Fate, Kind, Ledger
from simulated_training import learns
from tuning import files
from tuning.composition import load
from tuning.errors import LockedError, ResultsError, UserError
from tuning.executor import End, Limits, Outcome, run_study
from tuning.fingerprint import training_key
from tuning.jobs import Job, Wish, claim
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, front, load_study, ranking


class Killed(BaseException):
    """Stands for the end of the driver's process."""


class Study:
    """One study with its results root, run as often as a test likes."""

    def __init__(self, spec: StudySpec, root: ResultsRoot) -> None:
        self.spec, self.root = spec, root
        self.folder = root.study(spec.name)
        self.ledger = Ledger()
        self.watcher = Remembers()

    def run(
        self,
        num_slots: int = 2,
        *,
        limits: Limits | None = None,
        is_to_stop: Callable[[], bool] = lambda: False,
        watcher: Remembers | None = None,
        **backend: Any,
    ) -> Outcome:
        self.watcher = watcher or Remembers()
        place = FakeBackend(self.root, num_slots, ledger=self.ledger, **backend)
        try:
            return run_study(self.spec, self.root, place, self.watcher, limits, is_to_stop)
        finally:
            place.close()

    def run_with_stops(self, rng: random.Random, **options: Any) -> Outcome:
        """Run to the end with stops on request, and ends of the driver, at random moments."""
        for _ in range(500):
            kind = rng.choice(["stop", "kill", "kill", "none"])
            moment = rng.randrange(1, 12)
            slots = rng.choice([1, 2, 4])
            try:
                outcome = self.run(
                    slots,
                    rng=rng,
                    is_to_stop=_AfterAsked(moment if kind == "stop" else None),
                    watcher=_EndsAfter(moment if kind == "kill" else None),
                    steps_per_second=30.0,
                    **options,
                )
            except Killed:
                continue
            if outcome.end is End.FINISHED:
                return outcome
        raise AssertionError("the study does not come to its end")

    @property
    def events(self) -> list[dict[str, Any]]:
        return files.read_json_lines(self.folder.events)

    def events_of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    def records(self) -> list[TrialRecord]:
        return load_study(self.root, self.spec.name)[1]

    def steps_trained_twice(self) -> dict[tuple[str, int], int]:
        return {step: n for step, n in self.ledger.steps.items() if n > 1}


class _AfterAsked:
    """Says stop when it was asked so many times; None never does."""

    def __init__(self, times: int | None) -> None:
        self._left = times

    def __call__(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left <= 0


class _EndsAfter(Remembers):
    """Ends the driver after so many looks or finished trials; None never does."""

    def __init__(self, times: int | None) -> None:
        super().__init__()
        self._left = times

    def study_moved(self) -> None:
        super().study_moved()
        self._count()

    def trial_finished(self, *arguments: Any, was_there: bool) -> None:
        super().trial_finished(*arguments, was_there=was_there)
        if not was_there:
            self._count()

    def _count(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                raise Killed


Make = Callable[..., Study]


@pytest.fixture
def make(small_config: Callable[..., Any], fast_path: Path) -> Make:
    """Return a function that makes a study from changes to a small space."""

    def study(place: str = "a", overrides: tuple[str, ...] = (), **changes: Any) -> Study:
        of_spec = {k: changes.pop(k) for k in list(changes) if k in StudySpec.model_fields}
        space = SearchSpace.model_validate(
            {"pruning": "none", "replicates_of_default": 2, **changes}
        )
        config = small_config("max_steps=12", "warmup_steps=0", *overrides)
        spec = StudySpec(**{"name": "study", "space": space, "base": config, **of_spec})
        return Study(spec, ResultsRoot(fast_path / place))

    return study


RATES = {"learning_rate": [1e-4, 2e-4, 5e-4, 2e-3, 5e-3, 1e-2]}
GRID = {"learning_rate": [1e-4, 5e-4, 1e-3, 5e-3], "lora_r": [4, 8, 16, 32]}
MANY = {"strategy": "random", "HPARAM_RANGE": {"learning_rate": {"low": 1e-5, "high": 1e-1}}}
BAYESIAN = {
    "strategy": "bayesian",
    "sampler_arguments": {"num_startup_trials": 3},
    "HPARAM_RANGE": {"learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}},
}


def results_of(records: list[TrialRecord]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(record.result) for record in records]


def statuses_of(records: list[TrialRecord]) -> list[str]:
    return [record.result.status.value for record in records]


def seeds(total: int, always: int = 1) -> list[Any]:
    """Return the first seeds for every run, and the others for the night."""
    rest = range(always, total)
    return [*range(always), *(pytest.param(seed, marks=pytest.mark.nightly) for seed in rest)]


def by_id(fates: Mapping[int, Fate]) -> Callable[[Job], Fate]:
    return lambda job: fates.get(int(job.trial_id[:4]), WELL)


# --- many trials --------------------------------------------------------------------------------


@pytest.mark.parametrize("num_trials", [500, pytest.param(2000, marks=pytest.mark.nightly)])
def test_many_trials_end_in_seconds_each_recorded_once(make: Make, num_trials: int) -> None:
    study = make(**MANY, num_trials=num_trials - 2, pruning="poor_on_both")
    clock = time.monotonic()
    outcome = study.run(8, is_cheap=True)
    assert time.monotonic() - clock < 60
    assert outcome.end is End.FINISHED
    ids = [record.trial_id for record in outcome.records]
    assert ids == [proposal.trial_id for proposal in study.spec.plan()]
    assert len(set(ids)) == num_trials
    assert set(study.ledger.attempts.values()) == {1}
    completed = Counter(event["trial_id"] for event in study.events_of("completed"))
    assert completed == Counter(ids)
    assert study.ledger.most_at_once == 8
    assert study.watcher.there == [False] * num_trials


def test_trials_of_one_training_never_run_at_once_and_train_no_step_twice(make: Make) -> None:
    # The number of steps and the evaluation's weights change no training: the fake refuses a job
    # of a training that runs.
    study = make(
        HPARAM_CANDIDATES={
            "max_steps": [4, 8, 16, 24],
            "position_task_weight": [0.1, 0.2, 0.3],
            "lora_r": [4, 32],
        }
    )
    outcome = study.run(4, rng=random.Random(1))
    assert len(outcome.records) == 11
    assert set(statuses_of(outcome.records)) == {"completed"}
    assert len({record.result.training_key for record in outcome.records}) == 4
    assert study.steps_trained_twice() == {}


# --- stops, kills, deaths -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", seeds(6, always=2))
def test_stops_at_random_moments_change_nothing(make: Make, seed: int) -> None:
    rng = random.Random(seed)
    candidates = {**RATES, "max_steps": [6, 20]}
    whole = make("whole", HPARAM_CANDIDATES=candidates)
    stopped = make("stopped", HPARAM_CANDIDATES=candidates)
    expected = whole.run(1)
    found = stopped.run_with_stops(rng)
    assert results_of(found.records) == results_of(expected.records)
    assert ranking(stopped.spec, found.records) == ranking(whole.spec, expected.records)
    assert stopped.records() == found.records
    finished = [e["trial_id"] for e in stopped.events_of("completed")]
    assert sorted(finished) == sorted(record.trial_id for record in found.records)


@pytest.mark.parametrize("seed", seeds(6, always=2))
def test_workers_that_die_and_hang_at_random_change_nothing(make: Make, seed: int) -> None:
    rng = random.Random(seed)

    def fate(job: Job) -> Fate:
        kind = rng.choice([Kind.WELL, Kind.DIES, Kind.HANGS])
        return Fate(kind, rng.randrange(4, 12))

    space = {"HPARAM_CANDIDATES": GRID, "strategy": "grid"}
    whole, hurt = make("whole", **space), make("hurt", **space)
    expected = whole.run(1)
    found = hurt.run(3, rng=rng, fate=fate)
    assert results_of(found.records) == results_of(expected.records)
    assert ranking(hurt.spec, found.records) == ranking(whole.spec, expected.records)
    assert {event["how"] for event in hurt.events_of("ended")} == {"returned", "killed", "hung"}


def test_a_stop_on_request_writes_checkpoints_and_trains_no_step_twice(make: Make) -> None:
    study = make(HPARAM_CANDIDATES=RATES)
    outcome = study.run(2, is_to_stop=_AfterAsked(2), steps_per_second=10.0)
    assert (outcome.end, outcome.records) == (End.STOPPED, [])
    assert study.watcher.messages == [
        "stopped on request; running trials finish their step and write a checkpoint"
    ]
    again = study.run()
    assert again.end is End.FINISHED
    assert len(again.records) == 8
    begun = [event["trial_id"] for event in study.events_of("submitted")][:2]
    assert len(study.watcher.messages) == 2
    for trial_id, said in zip(begun, sorted(study.watcher.messages), strict=True):
        assert re.fullmatch(rf"{trial_id} goes on from step [1-9]\d* of 12", said)
    assert study.steps_trained_twice() == {}


def test_a_control_file_stops_the_driver_and_the_next_run_takes_no_heed_of_it(make: Make) -> None:
    study = make(HPARAM_CANDIDATES=RATES)

    class Asks(Remembers):
        def study_moved(self) -> None:
            files.write_json(study.folder.control, {"stop": True})

    outcome = study.run(watcher=Asks(), steps_per_second=10.0)
    assert outcome.end is End.STOPPED
    assert outcome.message == "stopped on request"
    assert study.run().end is End.FINISHED


def test_a_second_driver_on_the_same_study_is_refused(make: Make) -> None:
    study = make(HPARAM_CANDIDATES=RATES)
    refused: list[str] = []

    class RunsAgain(Remembers):
        def study_moved(self) -> None:
            if not refused:
                with pytest.raises(LockedError) as caught:
                    make(HPARAM_CANDIDATES=RATES).run()
                refused.append(str(caught.value))

    assert study.run(watcher=RunsAgain()).end is End.FINISHED
    assert "another process is working on study study" in refused[0]


def test_a_training_that_another_process_works_on_is_waited_for(make: Make) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4]})
    key = next(iter(study.spec.plan())).config
    lock = files.exclusive_lock(study.root.training(training_key(key)).lock, "it")
    lock.__enter__()

    class LetsGo(Remembers):
        def study_moved(self) -> None:
            super().study_moved()
            if self.num_moves == 30:
                lock.__exit__(None, None, None)

    outcome = study.run(watcher=LetsGo())
    assert statuses_of(outcome.records) == ["completed"] * 3
    hows = [e["how"] for e in study.events_of("ended") if e["trial_id"].startswith("0000")]
    assert hows.count("busy") in (4, 5, 6)
    assert hows[-1] == "returned"
    assert len(study.watcher.messages) == 1
    assert study.watcher.messages[0].startswith("0000-")
    assert "waits: another process is working on training" in study.watcher.messages[0]


def test_what_another_driver_has_made_is_not_taken_from_it(make: Make) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4]})
    first = next(iter(study.spec.plan()))
    folder = study.root.training(training_key(first.config))
    number = claim(folder)

    class LetsGo(Remembers):
        def study_moved(self) -> None:
            super().study_moved()
            if self.num_moves == 30:
                assert Wish(folder, number).is_to_stop() is False
                assert study.ledger.attempts[first.trial_id] == 0
                # Whatever else there is to do was done meanwhile.
                assert len(self.finished) == 2
                lock.close()

    with contextlib.ExitStack() as lock:
        lock.enter_context(files.exclusive_lock(folder.driver_lock, "it"))
        outcome = study.run(watcher=LetsGo())
    assert statuses_of(outcome.records) == ["completed"] * 3
    assert study.ledger.attempts[first.trial_id] == 1
    assert len(study.watcher.messages) == 1
    assert f"{first.trial_id} waits: another process is working on" in study.watcher.messages[0]


def test_a_trial_does_not_fail_for_what_another_driver_takes_from_it(make: Make) -> None:
    """Two machines whose shared disk has no locks see nothing of each other but the attempt."""
    study = make(strategy="listed", replicates_of_default=1)
    (trial,) = study.spec.plan()
    folder = study.root.training(training_key(trial.config))

    def taken(job: Job) -> Fate:
        # More often than a trial may be tried in vain.
        if study.ledger.attempts[job.trial_id] <= 8:
            claim(folder)
        return WELL

    outcome = study.run(fate=taken)
    assert study.ledger.attempts[trial.trial_id] == 9
    assert statuses_of(outcome.records) == ["completed"]
    assert study.watcher.messages == [
        f"{trial.trial_id} waits: another driver has taken its training over"
    ]


@pytest.mark.parametrize("pruning", ["none", "successive_halving"])
def test_drivers_at_once_share_trainings_and_train_no_step_twice(make: Make, pruning: str) -> None:
    spec = {"HPARAM_CANDIDATES": {"lora_r": [4, 8, 32], "max_steps": [6, 20]}, "pruning": pruning}
    # Without generations, who is stopped early depends on who ends first.
    spec["deterministic"] = True
    alone = make("alone", **spec).run(1)
    studies = [make("both", name=name, **spec) for name in ("one", "other", "third")]
    for study in studies:
        study.ledger = studies[0].ledger
    with ThreadPoolExecutor(len(studies)) as pool:
        ran = [pool.submit(study.run, 2, rng=random.Random(study.spec.name)) for study in studies]
        outcomes = [future.result(timeout=60) for future in ran]
    for outcome in outcomes:
        assert outcome.end is End.FINISHED
        assert results_of(outcome.records) == results_of(alone.records)
    assert studies[0].steps_trained_twice() == {}


# --- failures -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error"), [(Kind.DIES, "WorkerKilledError"), (Kind.HANGS, "WorkerHungError")]
)
def test_five_attempts_without_progress_fail_a_trial(make: Make, kind: Kind, error: str) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4, 8]})
    outcome = study.run(fate=by_id({2: Fate(kind, 2)}))
    assert statuses_of(outcome.records) == ["completed", "completed", "failed", "completed"]
    result = outcome.records[2].result
    assert result.error_type == error
    assert "5 attempts in a row without progress" in (result.error or "")
    assert study.ledger.attempts[outcome.records[2].trial_id] == 5


def test_attempts_that_bring_progress_are_never_too_many(make: Make) -> None:
    # Each dies after its next checkpoint: 25 attempts, all of some use.
    study = make(overrides=("max_steps=100",), HPARAM_CANDIDATES={"lora_r": [4]})
    outcome = study.run(fate=by_id({2: Fate(Kind.DIES, 5)}))
    assert statuses_of(outcome.records) == ["completed"] * 3
    assert study.ledger.attempts[outcome.records[2].trial_id] > 15


@pytest.mark.parametrize(
    ("kind", "error", "says"),
    [
        (Kind.OUT_OF_MEMORY, "MemoryLimitError", "8 MiB are allowed"),
        (Kind.RAISES, "DataError", "no words are left"),
        (Kind.NAN, "NotANumberError", "the loss is nan at step 6"),
    ],
)
def test_a_failure_is_recorded_at_once_and_the_study_goes_on(
    make: Make, kind: Kind, error: str, says: str
) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4, 8]})
    outcome = study.run(fate=by_id({2: Fate(kind, 5)}))
    assert statuses_of(outcome.records) == ["completed", "completed", "failed", "completed"]
    failed = outcome.records[2]
    assert failed.result.error_type == error
    assert says in (failed.result.error or "")
    assert study.ledger.attempts[failed.trial_id] == 1
    (event,) = study.events_of("failed")
    assert (event["trial_id"], event["error"]) == (failed.trial_id, failed.result.error)


def test_a_full_disk_ends_the_run_and_fails_no_trial(make: Make) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4, 8]})
    with pytest.raises(ResultsError, match="the disk is full"):
        study.run(fate=by_id({2: Fate(Kind.DISK, 5)}))
    assert statuses_of(study.run().records) == ["completed"] * 4


def test_too_many_failures_end_the_study_and_those_that_run_write_a_checkpoint(make: Make) -> None:
    study = make(HPARAM_CANDIDATES=RATES, max_failures=1)
    fates = {2: Fate(Kind.RAISES, 2), 3: Fate(Kind.RAISES, 2)}
    with pytest.raises(UserError, match="2 trials failed, at most 1 may.*DataError: no words"):
        study.run(4, fate=by_id(fates))
    assert study.steps_trained_twice() == {}
    with pytest.raises(UserError, match="2 trials failed, at most 1 may"):
        study.run()
    study.spec = study.spec.model_copy(update={"max_failures": 2})
    assert Counter(statuses_of(study.run().records)) == {"completed": 6, "failed": 2}


def test_failed_trials_are_run_again_when_asked(make: Make) -> None:
    study = make(HPARAM_CANDIDATES={"lora_r": [4, 8]})
    first = study.run(fate=by_id({2: Fate(Kind.NAN, 5), 3: Fate(Kind.OUT_OF_MEMORY, 5)}))
    assert statuses_of(first.records) == ["completed", "completed", "failed", "failed"]
    assert study.run().records == first.records
    again = study.run(limits=Limits(retry_failed=True))
    assert statuses_of(again.records) == ["completed"] * 4
    assert study.watcher.there == [True, True, False, False]
    whole = make("whole", HPARAM_CANDIDATES={"lora_r": [4, 8]}).run()
    assert results_of(again.records) == results_of(whole.records)


# --- budgets ------------------------------------------------------------------------------------


def test_a_budget_of_time_ends_a_run_and_the_next_one_goes_on(make: Make) -> None:
    study = make(HPARAM_CANDIDATES=RATES)
    num_finished = [0]
    for _ in range(100):
        outcome = study.run(2, limits=Limits(max_seconds=2.0), steps_per_second=10.0)
        num_finished.append(len(outcome.records))
        if outcome.end is End.FINISHED:
            break
        assert outcome.end is End.BUDGET
        assert outcome.message == "the time budget of 2 s is used up"
    assert num_finished == sorted(num_finished)
    assert 3 <= len(num_finished) <= 6
    assert num_finished[-1] == 8
    assert study.steps_trained_twice() == {}


def test_a_budget_of_money_counts_all_runs_of_a_study(make: Make) -> None:
    # 8 trials of 1.2 s each, at 1 a second.
    study = make(HPARAM_CANDIDATES=RATES)

    def run(most: float) -> Outcome:
        limits = Limits(max_cost=most, hourly_price=3600.0)
        return study.run(2, limits=limits, steps_per_second=10.0)

    first = run(5.0)
    assert first.end is End.BUDGET
    assert first.message == "the cost budget of 5 is used up"
    assert 2 <= len(first.records) <= 4
    spent = sum(event["seconds"] for event in study.events_of("ended"))
    assert 5.0 <= spent < 6.0
    nothing = run(5.0)
    assert (nothing.end, len(nothing.records)) == (End.BUDGET, 0) or len(nothing.records) == len(
        first.records
    )
    assert sum(event["seconds"] for event in study.events_of("ended")) == spent
    assert run(50.0).end is End.FINISHED
    assert study.steps_trained_twice() == {}


# --- early stopping -----------------------------------------------------------------------------


def pruned_of(records: list[TrialRecord]) -> list[TrialRecord]:
    return [r for r in records if r.result.status is TrialStatus.PRUNED]


LONG = ("max_steps=40", "warmup_steps=10")
PRUNERS: dict[str, dict[str, Any]] = {
    "poor_on_both": {},
    "median": {},
    "patience": {"evaluations": 2, "min_delta": 0.2},
    "successive_halving": {"min_steps": 12},
}


@pytest.mark.parametrize("pruning", PRUNERS)
@pytest.mark.parametrize("is_deterministic", [False, True])
def test_what_is_poor_is_stopped_after_its_warm_up_with_a_reason_and_never_the_default(
    make: Make, pruning: str, is_deterministic: bool
) -> None:
    study = make(
        overrides=LONG,
        HPARAM_CANDIDATES=GRID,
        strategy="grid",
        pruning=pruning,
        pruning_arguments=PRUNERS[pruning],
        deterministic=is_deterministic,
    )
    outcome = study.run(3, rng=random.Random(5))
    assert outcome.end is End.FINISHED
    assert len(outcome.records) == 17
    pruned = pruned_of(outcome.records)
    assert 2 <= len(pruned) <= 15
    assert statuses_of(outcome.records[:2]) == ["completed", "completed"]
    told = {event["trial_id"]: event for event in study.events_of("pruned")}
    assert set(told) == {record.trial_id for record in pruned}
    for record in pruned:
        assert 10 < record.result.step < 40
        assert record.result.reason
        assert told[record.trial_id]["reason"] == record.result.reason
        assert record.result.metrics == {}
    assert [r.trial_id for r in pruned_of(study.records())] == [r.trial_id for r in pruned]
    assert study.steps_trained_twice() == {}
    # A second look changes nothing.
    assert study.run().records == outcome.records
    assert set(study.watcher.there) == {True}


def poor_space(**changes: Any) -> dict[str, Any]:
    return {
        "overrides": LONG,
        "HPARAM_CANDIDATES": {"learning_rate": [5e-4, 8e-4, 1.2e-3, 2e-3, 1e-5]},
        "pruning": "poor_on_both",
        "pruning_arguments": {"share": 0.05},
        **changes,
    }


def test_a_decision_to_prune_survives_the_end_of_the_driver(make: Make) -> None:
    study = make(**poor_space())

    class EndsWhenDecided(Remembers):
        def study_moved(self) -> None:
            if study.events_of("pruning"):
                raise Killed

    with pytest.raises(Killed):
        study.run(1, watcher=EndsWhenDecided(), steps_per_second=20.0)
    (decided,) = study.events_of("pruning")
    assert study.events_of("pruned") == []
    found = {record.trial_id: record for record in pruned_of(study.run(1).records)}
    pruned = found[decided["trial_id"]]
    assert pruned.result.reason == decided["reason"]
    assert study.ledger.attempts[pruned.trial_id] == 1


def test_a_decision_to_prune_survives_the_death_of_the_worker_and_of_its_checkpoint(
    make: Make,
) -> None:
    study = make(**poor_space())
    places: list[FakeBackend] = []

    class DiesWhenDecided(Remembers):
        """The worker wrote its evaluation and died before its checkpoint."""

        is_done = False

        def study_moved(self) -> None:
            if study.events_of("pruning") and not self.is_done:
                self.is_done = True
                (job,) = places[0].running
                for step in files.steps_of(study.root.training(job.training_key).checkpoints):
                    files.remove_folder(study.root.training(job.training_key).checkpoint(step))
                places[0].cancel(job)

    place = FakeBackend(study.root, 1, ledger=study.ledger, steps_per_second=20.0)
    places.append(place)
    records = run_study(study.spec, study.root, place, DiesWhenDecided()).records
    decided = {event["trial_id"] for event in study.events_of("pruning")}
    assert decided
    assert decided == {record.trial_id for record in pruned_of(records)}


def test_halving_continues_what_it_promotes_and_trains_no_step_twice(make: Make) -> None:
    study = make(
        overrides=("max_steps=36",),
        HPARAM_CANDIDATES=GRID,
        strategy="grid",
        pruning="successive_halving",
        pruning_arguments={"min_steps": 4},
    )
    outcome = study.run(3, rng=random.Random(3))
    assert study.steps_trained_twice() == {}
    promoted = study.events_of("promoted")
    assert {event["step"] for event in promoted} == {4, 12}
    assert {record.result.step for record in pruned_of(outcome.records)} <= {4, 12}
    whole = 36 * len({r.result.training_key for r in outcome.records})
    assert sum(study.ledger.steps.values()) < 0.7 * whole
    # Who was promoted goes on from its checkpoint, in a further attempt.
    for event in promoted:
        assert study.ledger.attempts[event["trial_id"]] >= 2


# --- deterministic ------------------------------------------------------------------------------


def spaces() -> dict[str, dict[str, Any]]:
    halving = {"pruning": "successive_halving", "pruning_arguments": {"min_steps": 4}}
    candidates = {"learning_rate": [1e-4, 5e-4, 2e-3, 1e-2], "lora_r": [4, 32]}
    # Poor trainings too are asked for with several numbers of steps.
    steps = {"learning_rate": candidates["learning_rate"], "max_steps": [60, 28, 20]}
    shared = {"strategy": "grid", "HPARAM_CANDIDATES": steps}
    batches = {**candidates, "batch_size": [2, 8, 16], "grad_accum_steps": [1, 4]}
    bayesian = {**BAYESIAN, "num_trials": 10, "generation_size": 3}
    return {
        "one at a time, poor on both": {"HPARAM_CANDIDATES": candidates, "pruning": "poor_on_both"},
        "one at a time, halving": {"HPARAM_CANDIDATES": candidates, **halving},
        "shared trainings, poor on both": {**shared, "pruning": "poor_on_both"},
        "shared trainings, halving": {**shared, **halving},
        "batch sizes, median": {"HPARAM_CANDIDATES": batches, "pruning": "median"},
        "bayesian, not pruned": bayesian,
        "bayesian, median": {
            **bayesian,
            "pruning": "median",
            "pruning_arguments": {"min_peers": 2},
        },
        "bayesian, halving": {**bayesian, **halving},
    }


def what_came_of(study: Study, outcome: Outcome) -> dict[str, Any]:
    return {
        "proposals": [(r.trial_id, dict(r.parameters), r.seed) for r in outcome.records],
        "prunings": [
            (r.trial_id, r.result.step, r.result.reason) for r in pruned_of(outcome.records)
        ],
        "results": results_of(outcome.records),
    }


@pytest.mark.parametrize("space", spaces())
def test_a_deterministic_study_does_not_depend_on_who_was_faster(make: Make, space: str) -> None:
    changes = {"overrides": ("max_steps=40",), "deterministic": True, **spaces()[space]}
    found = []
    for num_slots in (1, 2, 4):
        study = make(f"{num_slots}", **changes)
        outcome = study.run(num_slots, rng=random.Random(num_slots))
        assert outcome.end is End.FINISHED
        found.append(what_came_of(study, outcome))
    if "not pruned" not in space:
        assert found[0]["prunings"]
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("seed", seeds(4))
@pytest.mark.parametrize("space", spaces())
def test_a_deterministic_study_does_not_depend_on_stops(make: Make, space: str, seed: int) -> None:
    changes = {"overrides": ("max_steps=40",), "deterministic": True, **spaces()[space]}
    whole, stopped = make("whole", **changes), make("stopped", **changes)
    expected = what_came_of(whole, whole.run(2))
    found = what_came_of(stopped, stopped.run_with_stops(random.Random(seed)))
    assert found["proposals"] == expected["proposals"]
    assert found["prunings"] == expected["prunings"]
    assert found == expected


@pytest.mark.parametrize("seed", seeds(3))
@pytest.mark.parametrize("pruning", ["poor_on_both", "median", "successive_halving"])
def test_a_study_that_is_not_deterministic_comes_to_its_end_whatever_happens(
    make: Make, pruning: str, seed: int
) -> None:
    rng = random.Random(seed)

    def fate(job: Job) -> Fate:
        kind = rng.choice([Kind.WELL, Kind.WELL, Kind.DIES, Kind.HANGS])
        return Fate(kind, rng.randrange(4, 12))

    candidates = {"learning_rate": [1e-4, 5e-4, 2e-3, 1e-2], "max_steps": [20, 60]}
    study = make(overrides=("max_steps=40",), HPARAM_CANDIDATES=candidates, pruning=pruning)
    outcome = study.run_with_stops(rng, fate=fate)
    assert len(outcome.records) == 8
    assert set(statuses_of(outcome.records)) <= {"completed", "pruned"}
    finished = Counter(e["trial_id"] for k in ("completed", "pruned") for e in study.events_of(k))
    assert set(finished.values()) == {1}


# --- several objectives -------------------------------------------------------------------------


def opposed(config: Any, training_key: str, step: int) -> dict[str, float]:
    """Learn spelling the better, and the rest the worse, the higher the rate is."""
    found = learns(config, training_key, step)
    share = min(1.0, config.training_config.learning_rate / 1e-2)
    return {
        name: round(0.2 + 0.5 * (share if name.startswith("spelling") else 1 - share), 6)
        for name in found
    }


def test_several_objectives_give_a_front_of_files(make: Make) -> None:
    study = make(
        **{**BAYESIAN, "objectives": ["spelling", "transfer"]}, num_trials=6, generation_size=2
    )
    outcome = study.run(2, learns=opposed)
    members = front(study.spec, outcome.records)
    # All are on it, as nothing is better in both: six and the default.
    assert len(members) == 7
    written = sorted(study.root.best_configs.glob("study_front_*.yaml"))
    assert len(written) == 7
    for place, member in enumerate(members, start=1):
        path = study.root.best_config("study", place)
        record = next(r for r in outcome.records if r.trial_id == member.trial_ids[0])
        assert load(path) == study.spec.config_of(record)
        assert path.read_text().startswith(f"# {place} of the configurations of study study")
    values = [member.values for member in members]
    assert values == sorted(values, reverse=True)


def test_a_bayesian_study_asks_for_results_as_they_come(make: Make) -> None:
    study = make(**BAYESIAN, num_trials=12)
    outcome = study.run(4, rng=random.Random(0))
    rates = [record.parameters.get("learning_rate") for record in outcome.records]
    assert rates[:2] == [None, None]
    assert len(set(rates[2:])) == 12
    again = study.run(1)
    assert again.records == outcome.records
