"""Studies whose results are a function that a test chooses: records without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import yaml

from tests_support import small_mapping
from tuning import files
from tuning.config import ExperimentConfig, build
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Proposal, parse_space
from tuning.paths import ResultsRoot
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.scoring import Focus
from tuning.study import StudySpec
from tuning.study_history import log_event

Surface = Callable[[Proposal], float | None]
"""The transfer score and spelling gain of a trial; None for one that fails."""

EXECUTION = Execution(
    started_at="2026-01-01T00:00:00+00:00",
    finished_at="2026-01-01T00:01:00+00:00",
    host="here",
    train_seconds=9.6,
    evaluation_seconds=1.0,
    num_trained_tokens=1000,
    peak_memory_bytes=2**30,
    num_threads=1,
    device="cpu",
    num_attempts=1,
)


def spec_of(space: Mapping[str, Any], *, focus: Focus = Focus.BALANCED, **given: Any) -> StudySpec:
    """Return a study called `planted` of a space as a file states it."""
    base = build({**small_mapping(), **given.pop("experiment", {})}, "test")
    made = parse_space(space, lambda key: "test")
    spec = StudySpec(name="planted", space=made, base=base, focus=focus, num_threads=1, **given)
    spec.plan()
    return spec


def write_study(root: ResultsRoot, spec: StudySpec, surface: Surface, number: int = 10**6) -> None:
    """Write a study of which the first `number` trials were run."""
    folder = root.study(spec.name)
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
    files.write_atomic(folder.spec, text)
    log_event(folder, "started", num_trials=spec.plan().num_trials)
    for _, proposal in zip(range(number), spec.plan(), strict=False):
        write_record(folder.trial(proposal.trial_id), record_of(proposal, surface(proposal)))


def record_of(proposal: Proposal, value: float | None) -> TrialRecord:
    """Return what a trial would have left that came to a value."""
    return TrialRecord(
        trial_id=proposal.trial_id,
        parameters=proposal.parameters,
        seed=proposal.seed,
        result=result_of(proposal.config, value),
        execution=EXECUTION,
    )


def result_of(config: ExperimentConfig, value: float | None) -> TrialResult:
    """Return a completed result whose every objective is the value; a failed one for None."""
    common: dict[str, Any] = {
        "training_key": training_key(config),
        "weights_key": weights_key(config),
        "step": config.training_config.max_steps,
        "model": "tiny (1.38 M parameters)",
    }
    if value is None:
        failed = {"error_type": "RuntimeError", "error": "out of memory"}
        return TrialResult(status=TrialStatus.FAILED, **failed, **common)
    # 0.5 * a + 0.5 * a + 0.2 * a with equal weights.
    accuracy = value / 1.2
    metrics = {"transfer_learning_score": value}
    for family in ("spelling", "transfer/position", "transfer/count"):
        metrics |= {f"{family}/accuracy": accuracy, f"{family}/gain": value}
    return TrialResult(status=TrialStatus.COMPLETED, metrics=metrics, **common)
