"""The default one-at-a-time design on tiny: nothing trained twice, each result that of a run alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from backend_support import Remembers, WarmWorker
from tuning import files
from tuning.config import build
from tuning.executor import run_study
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Proposal, load_space
from tuning.model.machine import default_threads
from tuning.paths import ResultsRoot
from tuning.pruning import Pruning
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import Focus
from tuning.study import StudySpec
from tuning.trial import TrialRequest, run_trial


def design(**candidates: Any) -> StudySpec:
    """Return the default design, or that of other candidates."""
    changes = {"replicates_of_default": 1, "pruning": Pruning.NONE}
    if candidates:
        changes |= {"candidates": candidates}
    space = load_space("default").model_copy(update=changes)
    base = build(
        {
            "experiment_name": "design",
            "timestamp": "20260101_000000",
            "tokenizer_config": {"model_name": "tiny"},
            "evaluation_config": {
                "num_words": 10,
                "num_monitor_words": 3,
                "num_generated_items": 3,
            },
        },
        "test",
    )
    return StudySpec(
        name="design", space=space, base=base, step_scale=0.005, num_threads=1, max_failures=1
    )


class Counted(NamedTuple):
    """What a plan holds, or what came of it."""

    trials: int
    weights: int
    trainings: int


def counted(plan: Iterable[Proposal]) -> Counted:
    configs = [p.config for p in plan]
    weights, trainings = {weights_key(c) for c in configs}, {training_key(c) for c in configs}
    return Counted(len(configs), len(weights), len(trainings))


def assert_each_as_if_run_alone(spec: StudySpec, folder: Path, worker: WarmWorker) -> None:
    """Run a study; compare all that was trained with each trial run by itself."""
    assert default_threads() == 1
    expected = counted(spec.plan())
    root = ResultsRoot(folder / "together")
    records = run_study(spec, root, worker.at(root), Remembers()).records
    completed = [r for r in records if r.result.status is TrialStatus.COMPLETED]
    weights = {r.result.weights_key for r in completed}
    folders = {p.name for p in root.trainings.iterdir() if (p / "adapters").is_dir()}
    assert folders == {r.result.training_key for r in completed}
    assert Counted(len(completed), len(weights), len(folders)) == expected
    assert_no_step_was_trained_twice(root, completed)

    by_id = {p.trial_id: p for p in spec.plan()}
    # Trials with equal weights differ in nothing that is trained: one of them is enough.
    for record in {r.result.weights_key: r for r in reversed(completed)}.values():
        assert_as_if_run_alone(by_id[record.trial_id], record, root, folder / record.trial_id)


def assert_no_step_was_trained_twice(root: ResultsRoot, completed: Sequence[TrialRecord]) -> None:
    """Check that what each training's attempts trained is its longest budget."""
    longest: Counter[str] = Counter()
    for record in completed:
        key = record.result.training_key
        longest[key] = max(longest[key], record.result.step)
    for key, steps in longest.items():
        trained, at = 0, 0
        for line in files.read_json_lines(root.training(key).attempts):
            if line["event"] == "start":
                at = line["step"]
            else:
                trained += line["step"] - at
        assert trained == steps, key


def assert_as_if_run_alone(
    proposal: Proposal, record: TrialRecord, root: ResultsRoot, folder: Path
) -> None:
    alone = ResultsRoot(folder)
    request = TrialRequest(
        config=proposal.config,
        folder=alone.study("alone").trial(record.trial_id),
        trial_id=record.trial_id,
        parameters=record.parameters,
        weights=Focus.BALANCED.weights,
    )
    expected = run_trial(request, alone)
    assert dataclasses.asdict(record.result) == dataclasses.asdict(expected.result)
    key, step = record.result.training_key, record.result.step
    together, by_itself = (
        place.training(key).adapter(step) / "adapter_model.safetensors" for place in (root, alone)
    )
    assert together.read_bytes() == by_itself.read_bytes()


def test_the_default_design_is_31_configurations_24_weights_and_21_trainings() -> None:
    assert counted(design().plan()) == (31, 24, 21)


@pytest.mark.nightly
def test_trials_that_share_weights_or_a_training_are_each_as_if_run_alone(
    tmp_path: Path, warm_worker: WarmWorker
) -> None:
    # The sliced vocabulary is another base, which the worker has to load between two trials.
    spec = design(
        use_english_only_tokens=[True],
        max_steps=[500, 2000],
        gpu_tier=["t4"],
        count_task_weight=[0.3],
    )
    assert counted(spec.plan()) == (6, 4, 2)
    assert_each_as_if_run_alone(spec, tmp_path, warm_worker)


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_each_trial_of_the_default_design_is_as_if_run_alone(
    tmp_path: Path, warm_worker: WarmWorker
) -> None:
    assert_each_as_if_run_alone(design(), tmp_path, warm_worker)
