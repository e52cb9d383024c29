"""A study: fixed trials, one record each, and nothing lost or done twice."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend_support import Remembers, WarmWorker
from fake_backend import FakeBackend
from tuning import files
from tuning.composition import load
from tuning.errors import NotFoundError, ResultsError, UserError
from tuning.executor import End, run_study
from tuning.fingerprint import training_key
from tuning.grid import Proposal
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import Focus
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study, ranking

FEW_WORDS = tuple(
    f"evaluation_config.{name}"
    for name in ("num_words=10", "num_monitor_words=3", "num_generated_items=3")
)


def spec_of(base: Any, candidates: dict[str, list[Any]], **changes: Any) -> StudySpec:
    space = SearchSpace.model_validate(
        {"HPARAM_CANDIDATES": candidates, "replicates_of_default": 2}
    )
    return StudySpec(name="study", space=space, base=base, **changes)


Run = Callable[..., list[TrialRecord]]


@pytest.fixture
def study(warm_worker: WarmWorker) -> Run:
    """Return a function that runs a study to its end with real trainings."""

    def run(spec: StudySpec, root: ResultsRoot, watcher: Any = None) -> list[TrialRecord]:
        outcome = run_study(spec, root, warm_worker.at(root), watcher or Remembers())
        assert outcome.end is End.FINISHED
        return outcome.records

    return run


@pytest.fixture
def simulated() -> Run:
    """Return a function that runs a study to its end with trainings by a fake clock."""

    def run(spec: StudySpec, root: ResultsRoot, watcher: Any = None) -> list[TrialRecord]:
        backend = FakeBackend(root, 1)
        try:
            outcome = run_study(spec, root, backend, watcher or Remembers())
        finally:
            backend.close()
        assert outcome.end is End.FINISHED
        return outcome.records

    return run


def results_of(records: list[TrialRecord]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(record.result) for record in records]


def test_a_study_records_every_trial_once_and_can_be_asked_again(
    small_config: Any, tmp_path: Path, study: Run
) -> None:
    root = ResultsRoot(tmp_path)
    spec = spec_of(small_config("max_steps=4", *FEW_WORDS), {"lora_r": [4, 16], "max_steps": [8]})
    first = Remembers()
    records = study(spec, root, first)
    assert [r.parameters for r in records] == [{}, {}, {"lora_r": 4}, {"max_steps": 8}]
    assert [r.seed for r in records] == [0, 1, 0, 0]
    assert all(r.result.status is TrialStatus.COMPLETED for r in records)
    assert first.there == [False] * 4

    # The default with seed 0 and the longer budget are one training.
    assert records[0].result.training_key == records[3].result.training_key
    assert len({r.result.weights_key for r in records}) == 4

    again = Remembers()
    assert results_of(study(spec, root, again)) == results_of(records)
    assert again.there == [True] * 4
    assert load_study(root, "study")[1] == records
    events = [e["event"] for e in files.read_json_lines(root.study("study").events)]
    assert events.count("proposed") == events.count("completed") == 4


def test_the_best_configuration_is_a_file_that_can_be_run(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    root = ResultsRoot(tmp_path)
    spec = spec_of(small_config("max_steps=4"), {"lora_r": [4]}, focus=Focus.SPELLING)
    records = simulated(spec, root)
    best = ranking(spec, records)[0]
    path = root.best_configs / "study_best.yaml"
    chosen = next(p for p in spec.plan() if p.trial_id == best.contender.trial_ids[0])
    assert load(path) == chosen.config
    assert "gain in spelling" in path.read_text().splitlines()[0]


def test_focus_changes_weights_and_what_ranks(
    small_config: Any, tmp_path: Path, study: Run
) -> None:
    root = ResultsRoot(tmp_path)
    base = small_config("max_steps=4", *FEW_WORDS)
    for focus in Focus:
        spec = spec_of(base, {"lora_r": [4]}, focus=focus)
        records = study(spec.model_copy(update={"name": focus.value}), root)
        weights = {Focus.SPELLING: 0.3, Focus.TRANSFER: 0.6, Focus.BALANCED: 0.5}[focus]
        m = records[0].result.metrics
        position, count = m["transfer/position/accuracy"], m["transfer/count/accuracy"]
        mean = (position + count) / 2
        score = weights * (position + count) + 0.2 * min(m["spelling/accuracy"], mean)
        assert m["transfer_learning_score"] == pytest.approx(score)
        objective = ranking(spec, records)[0].contender.mean
        ranked_by = {
            Focus.SPELLING: lambda r: r["spelling/gain"],
            Focus.TRANSFER: lambda r: (r["transfer/position/gain"] + r["transfer/count/gain"]) / 2,
            Focus.BALANCED: lambda r: r["transfer_learning_score"],
        }[focus]
        by_configuration = [
            (ranked_by(records[0].result.metrics) + ranked_by(records[1].result.metrics)) / 2,
            ranked_by(records[2].result.metrics),
        ]
        assert objective == pytest.approx(max(by_configuration))
    # The three studies shared every training.
    assert len(list(root.trainings.iterdir())) == 3 + 1


def unusable_words(path: Path) -> str:
    """Return a word list that passes every check but the last: a benchmark's word is no subject."""
    path.write_text(f"{path.stem[0] * 3}\nstrawberry\n")
    return str(path)


def test_a_failing_trial_is_recorded_and_the_study_goes_on(
    small_config: Any, tmp_path: Path, study: Run
) -> None:
    root = ResultsRoot(tmp_path)
    base = small_config("max_steps=4", *FEW_WORDS)
    words = unusable_words(tmp_path / "words.txt")
    spec = spec_of(base, {"spelling_config.word_list": [words], "lora_r": [4]})
    records = study(spec, root)
    statuses = [r.result.status.value for r in records]
    assert statuses == ["completed", "completed", "failed", "completed"]
    assert records[2].result.error_type == "DataError"
    assert words in (records[2].result.error or "")
    assert "Traceback" in records[2].execution.log_tail
    assert not root.study("study").trial(records[2].trial_id).results.exists()
    assert all("word_list" not in r.contender.label for r in ranking(spec, records))


def test_too_many_failures_end_the_study(small_config: Any, tmp_path: Path, study: Run) -> None:
    lists = [unusable_words(tmp_path / f"{name}.txt") for name in "abc"]
    spec = spec_of(
        small_config("max_steps=4", *FEW_WORDS),
        {"spelling_config.word_list": lists},
        max_failures=1,
    )
    with pytest.raises(UserError, match="2 trials failed, at most 1 may.*b.txt"):
        study(spec, ResultsRoot(tmp_path))


def test_a_study_of_the_same_name_with_other_settings_is_left_alone(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    root = ResultsRoot(tmp_path)
    spec = spec_of(small_config("max_steps=4"), {"lora_r": [4]})
    simulated(spec, root)
    before = root.study("study").spec.read_text()
    for change in ({"seed": 5}, {"focus": Focus.TRANSFER}, {"step_scale": 0.5}):
        with pytest.raises(ResultsError, match=f"another {next(iter(change)).replace('_', ' ')}"):
            simulated(spec.model_copy(update=change), root)
    assert root.study("study").spec.read_text() == before


def test_a_listed_study_may_become_longer(
    tmp_path: Path, small_config: Any, simulated: Run
) -> None:
    root = ResultsRoot(tmp_path)

    def listed(*ranks: int) -> StudySpec:
        space = SearchSpace.model_validate(
            {
                "strategy": "listed",
                "configurations": [{"lora_r": rank} for rank in ranks],
                "replicates_of_default": 1,
            }
        )
        return StudySpec(name="study", space=space, base=small_config())

    first = simulated(listed(4), root)
    longer = simulated(listed(4, 8), root)
    assert [r.trial_id for r in longer][:2] == [r.trial_id for r in first]
    assert [r.parameters for r in longer] == [{}, {"lora_r": 4}, {"lora_r": 8}]
    assert len(load_study(root, "study")[1]) == 3
    for other in (listed(8, 4), listed(4)):
        with pytest.raises(ResultsError, match="exists with another space"):
            simulated(other, root)


def test_a_missing_study_names_those_that_exist(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    root = ResultsRoot(tmp_path)
    simulated(spec_of(small_config("max_steps=4"), {"lora_r": [16]}), root)
    with pytest.raises(NotFoundError, match="did you mean study"):
        load_study(root, "studdy")


class KillsTheWorker(Remembers):
    """A watcher that kills the worker once, when a training has its first checkpoint."""

    def __init__(self, root: ResultsRoot, worker: WarmWorker) -> None:
        super().__init__()
        self._root, self._worker, self._is_done = root, worker, False

    def study_moved(self) -> None:
        super().study_moved()
        if not self._is_done and any(self._root.trainings.glob("*/checkpoints/step_*")):
            self._is_done = True
            os.kill(self._worker.pid, signal.SIGKILL)


@pytest.mark.nightly
def test_a_killed_worker_is_replaced_and_its_training_goes_on(
    small_config: Any, tmp_path: Path, study: Run, warm_worker: WarmWorker
) -> None:
    space = SearchSpace(candidates={"lora_r": [16]}, replicates_of_default=1)
    base = small_config("max_steps=24", "transfer_eval_frequency=8", *FEW_WORDS)
    spec = StudySpec(name="study", space=space, base=base)
    expected = study(spec, ResultsRoot(tmp_path / "whole"))
    root = ResultsRoot(tmp_path / "killed")
    (record,) = study(spec, root, KillsTheWorker(root, warm_worker))
    ends = [e for e in files.read_json_lines(root.study("study").events) if e["event"] == "ended"]
    assert [e["how"] for e in ends] == ["killed", "returned"]
    assert record.execution.num_attempts == 2
    assert results_of([record]) == results_of(expected)


@pytest.mark.nightly
def test_a_killed_driver_loses_nothing(tmp_path: Path, small_config: Any) -> None:
    """SIGKILL to the whole program between and within trials; the ranking is the same."""
    base = small_config("max_steps=6")
    space = {
        "HPARAM_CANDIDATES": {"lora_r": [4]},
        "replicates_of_default": 2,
        "experiment": base.model_dump(mode="json", exclude={"experiment_name", "timestamp"}),
    }
    space_file = tmp_path / "space.yaml"
    space_file.write_text(yaml.safe_dump(space))

    def start(root: Path) -> subprocess.Popen[bytes]:
        arguments = ["--space", str(space_file), "--results-dir", str(root), "--quiet"]
        return subprocess.Popen(
            [sys.executable, "-m", "tuning", "study", "run", *arguments],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )

    whole = ResultsRoot(tmp_path / "whole")
    assert start(whole.root).wait(timeout=250) == 0
    killed = ResultsRoot(tmp_path / "killed")
    for num_finished in (0, 1):
        process = start(killed.root)
        progress_seen = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < progress_seen:
            records = list(killed.data.glob("space/trials/*/record.json"))
            steps = sum(
                len(p.read_text().splitlines()) for p in killed.trainings.glob("*/progress.jsonl")
            )
            if len(records) >= num_finished and steps >= 2 * num_finished + 2:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed.root).wait(timeout=250) == 0
    (spec, expected), (_, found) = load_study(whole, "space"), load_study(killed, "space")
    assert results_of(found) == results_of(expected)
    assert ranking(spec, found) == ranking(spec, expected)
    completed = [
        e["trial_id"]
        for e in files.read_json_lines(killed.study("space").events)
        if e["event"] == "completed"
    ]
    assert len(completed) == len(set(completed))
    keys = {training_key(p.config) for p in spec.plan()}
    assert {p.name for p in killed.trainings.iterdir() if not p.name.startswith("base_")} == keys


class StopsAfter(Remembers):
    """A watcher that ends the study after so many trials, as Ctrl-C would."""

    def __init__(self, num_trials: int) -> None:
        super().__init__()
        self.num_trials = num_trials

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        super().trial_finished(proposal, record, was_there=was_there)
        if len(self.there) == self.num_trials:
            raise KeyboardInterrupt


def bayesian_spec(base: Any, **changes: Any) -> StudySpec:
    space = SearchSpace.model_validate(
        {
            "strategy": "bayesian",
            "num_trials": 4,
            "replicates_of_default": 1,
            "sampler_arguments": {"num_startup_trials": 2},
            "objectives": ["spelling", "transfer"],
            "HPARAM_RANGE": {"learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}},
            **changes,
        }
    )
    return StudySpec(name="study", space=space, base=base)


def test_a_bayesian_study_goes_on_as_if_it_had_not_been_stopped(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    spec = bayesian_spec(small_config("max_steps=3"))
    whole, stopped = ResultsRoot(tmp_path / "whole"), ResultsRoot(tmp_path / "stopped")
    records = simulated(spec, whole)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            simulated(spec, stopped, StopsAfter(3))
    seen, known = load_study(stopped, "study")
    assert (seen, len(known)) == (spec, 3)
    watcher = Remembers()
    again = simulated(spec, stopped, watcher)
    assert watcher.there == [True, True, True, False, False]
    assert [r.trial_id for r in again] == [r.trial_id for r in records]
    assert results_of(again) == results_of(records)
    rates = [r.parameters.get("learning_rate") for r in records]
    assert rates[0] is None
    assert len(set(rates)) == 5
    assert load_study(stopped, "study")[1] == again
    best = load(stopped.best_configs / "study_best.yaml").training_config.learning_rate
    assert best in [*rates[1:], spec.base.training_config.learning_rate]


def test_a_bayesian_study_learns_from_results_and_repeats_each_point_by_seed(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    spec = bayesian_spec(small_config("max_steps=3"), num_trials=2, replicates=2)
    records = simulated(spec, ResultsRoot(tmp_path))
    # The default takes the seeds of the others too, so that they can be compared.
    assert [r.seed for r in records] == [0, 1, 0, 1, 0, 1]
    rates = [r.parameters.get("learning_rate") for r in records]
    assert rates[:2] == [None, None]
    assert rates[2] == rates[3] != rates[4] == rates[5]


def test_a_grid_that_nobody_could_run_is_refused(
    small_config: Any, tmp_path: Path, simulated: Run
) -> None:
    space = SearchSpace.model_validate(
        {"strategy": "grid", "HPARAM_RANGE": {"max_steps": {"low": 1000, "high": 12000}}}
    )
    spec = StudySpec(name="study", space=space, base=small_config())
    with pytest.raises(UserError, match="at most 10,000 trials, this space makes 11,0"):
        simulated(spec, ResultsRoot(tmp_path))
    assert not (tmp_path / "data").exists()
