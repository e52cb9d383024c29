"""The default one-at-a-time design on tiny: nothing trained twice, each result that of a run alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from backend_support import Remembers, WarmWorker
from tuning import files
from tuning.config import build
from tuning.executor import run_study
from tuning.fingerprint import training_key, weights_key
from tuning.grid import load_space
from tuning.model.machine import default_threads
from tuning.paths import ResultsRoot
from tuning.pruning import Pruning
from tuning.records import TrialStatus
from tuning.scoring import Focus
from tuning.study import StudySpec
from tuning.trial import TrialRequest, run_trial


def the_design() -> StudySpec:
    space = load_space("default").model_copy(
        update={"replicates_of_default": 1, "pruning": Pruning.NONE}
    )
    base = build(
        {
            "experiment_name": "design",
            "timestamp": "20260101_000000",
            "tokenizer_config": {"model_name": "tiny"},
            "evaluation_config": {
                "num_words": 20,
                "num_monitor_words": 4,
                "num_generated_items": 9,
            },
        },
        "test",
    )
    return StudySpec(
        name="design", space=space, base=base, step_scale=0.005, num_threads=1, max_failures=1
    )


ALL = 24


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("num_alone", [4, pytest.param(ALL, marks=pytest.mark.nightly)])
def test_31_configurations_are_24_weights_in_21_trainings_each_as_if_run_alone(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, num_alone: int
) -> None:
    spec = the_design()
    plan = list(spec.plan())
    assert len(plan) == 31
    assert len({weights_key(p.config) for p in plan}) == 24
    assert len({training_key(p.config) for p in plan}) == 21

    assert default_threads() == 1
    worker = WarmWorker(tmp_path_factory.mktemp("worker"))
    root = ResultsRoot(tmp_path / "together")
    records = run_study(spec, root, worker.at(root), Remembers()).records
    worker.close()

    completed = [r for r in records if r.result.status is TrialStatus.COMPLETED]
    assert len(completed) == 31
    assert len({r.result.weights_key for r in completed}) == 24
    folders = {p.name for p in root.trainings.iterdir() if (p / "adapters").is_dir()}
    assert len(folders) == 21
    assert folders == {r.result.training_key for r in completed}

    # No step was trained twice: what each training's attempts trained is its longest budget.
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

    # Those of the sliced vocabulary come first, whose base is another one.
    completed.sort(key=lambda r: not r.parameters.get("use_english_only_tokens", False))
    by_id = {p.trial_id: p for p in plan}
    known: dict[str, Path] = {}
    for record in completed:
        config = by_id[record.trial_id].config
        key = record.result.weights_key
        if key in known or len(known) == num_alone:
            continue
        alone = ResultsRoot(tmp_path / key)
        known[key] = alone.root
        request = TrialRequest(
            config=config,
            folder=alone.study("alone").trial(record.trial_id),
            trial_id=record.trial_id,
            parameters=record.parameters,
            weights=Focus.BALANCED.weights,
        )
        expected = run_trial(request, alone)
        assert dataclasses.asdict(record.result) == dataclasses.asdict(expected.result)
        tensors = "adapter_model.safetensors"
        step, training = record.result.step, record.result.training_key
        together = root.training(training).adapter(step) / tensors
        assert (
            together.read_bytes() == (alone.training(training).adapter(step) / tensors).read_bytes()
        )
    assert len(known) == num_alone
