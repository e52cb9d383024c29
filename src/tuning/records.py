"""What is remembered of a trial: the result, compared bit for bit, and the execution, never."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from tuning import files
from tuning.errors import ResultsError
from tuning.fingerprint import weights_key
from tuning.jobs import Job
from tuning.measures import Accuracy, Drift, TaskResult
from tuning.paths import TrialFolder
from tuning.schema import law_of_error
from tuning.scoring import TRANSFER_SCORE


class TrialStatus(StrEnum):
    """How far a trial has come."""

    WAITING = "waiting"
    """Proposed; never in a record."""
    RUNNING = "running"
    """A worker has it; never in a record."""
    PAUSED = "paused"
    """Stopped at a rung, where it may go on; never in a record."""
    COMPLETED = "completed"
    FAILED = "failed"
    PRUNED = "pruned"
    """Stopped early, for a reason that its record tells."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (TrialStatus.COMPLETED, TrialStatus.FAILED, TrialStatus.PRUNED)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What came out: a pure function of configuration, seed, code and machine."""

    status: TrialStatus
    training_key: str
    weights_key: str
    step: int
    """Optimizer steps trained."""
    model: str
    """Name and size of the base model."""
    num_vocabulary_rows: int = 0
    """Tokens among which the model decides: rows of its embedding; 0 where none was loaded."""
    evaluation_key: str | None = None
    base_key: str | None = None
    base_evaluation_key: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Accuracies, gains and scores by their public names."""
    tasks: Mapping[str, TaskResult] = field(default_factory=dict)
    """The same with intervals and baselines, by task."""
    base_arms: Mapping[str, Mapping[str, Accuracy]] = field(default_factory=dict)
    """The untouched model put otherwise: four_shot, oracle; by task."""
    retention: Mapping[str, Drift] = field(default_factory=dict)
    """Drift from the untouched model on `replay` and on `text`."""
    num_decoded: int = 0
    """Items of both models that were decoded freely."""
    num_disagreements: int = 0
    """Of these, items whose text gives another verdict than one pass."""
    left_out_words: Mapping[str, int] = field(default_factory=dict)
    """Words of the user's own list that were not trained on, by reason."""
    error_type: str | None = None
    error: str | None = None
    reason: str | None = None
    """Why it was pruned."""

    def __post_init__(self) -> None:
        if not self.status.is_finished:
            raise ValueError(f"a record is of a finished trial, not of one that is {self.status}")
        if self.status is TrialStatus.PRUNED and not self.reason:
            raise ValueError("a pruned trial needs a reason")
        if self.status is TrialStatus.COMPLETED and not self.metrics:
            raise ValueError("a completed trial needs metrics")
        if self.status is TrialStatus.FAILED and not self.error:
            raise ValueError("a failed trial needs an error message")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How it came about: times, machine, costs."""

    started_at: str
    """ISO 8601, UTC."""
    finished_at: str
    host: str
    train_seconds: float
    """Time spent on optimizer steps in this attempt; 0 when another trial had trained them."""
    evaluation_seconds: float
    num_trained_tokens: int
    """Prompt and answer tokens that passed through the model in training, all steps."""
    peak_memory_bytes: int
    """Largest resident size of the process in this attempt."""
    num_threads: int
    device: str
    num_attempts: int
    """Times that work on the training was begun."""
    versions: Mapping[str, str] = field(default_factory=dict)
    log_tail: str = ""
    peak_gpu_memory_bytes: int = 0
    """The most that tensors took on the GPU in this attempt; 0 without one."""
    num_micro_batches: int = 0
    """Into how many parts each step's rows were cut, over all processes: as threads do, they decide
    the last bits, and dropout's random numbers."""
    is_first_of_process: bool = False
    """Whether libraries had to warm up in it: its seconds tell nothing of its configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One trial of a study: what it was asked, what came of it, how."""

    trial_id: str
    parameters: Mapping[str, Any]
    """Flat hyperparameters that differ from the study's base configuration."""
    seed: int
    result: TrialResult
    execution: Execution


_RECORD = TypeAdapter(TrialRecord)


def ended_early(
    job: Job, status: TrialStatus, step: int, seconds: float, why: tuple[str, str]
) -> TrialRecord:
    """Return the record of a trial that its worker did not end by itself.

    Args:
        job: Its last attempt.
        status: Failed or pruned.
        step: Optimizer steps whose checkpoint there is.
        seconds: That its attempts took.
        why: Type and text of the error; for a pruned trial, of the decision.
    """
    kind, text = why
    is_failed = status is TrialStatus.FAILED
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return TrialRecord(
        trial_id=job.trial_id,
        parameters=job.parameters,
        seed=job.seed,
        result=TrialResult(
            status=status,
            training_key=job.training_key,
            weights_key=weights_key(job.config),
            step=step,
            model=job.config.tokenizer_config.model_name,
            error_type=kind if is_failed else None,
            error=text if is_failed else None,
            reason=None if is_failed else text,
        ),
        execution=Execution(
            started_at=now,
            finished_at=now,
            host=socket.gethostname(),
            train_seconds=round(seconds, 3),
            evaluation_seconds=0.0,
            num_trained_tokens=0,
            peak_memory_bytes=0,
            num_threads=0,
            device="",
            num_attempts=job.attempt,
        ),
    )


def write_record(folder: TrialFolder, record: TrialRecord) -> None:
    """Write `record.json`, and `results.yaml` with the four old names beside it.

    Raises:
        ResultsError: The disk refuses.
    """
    folder.results.unlink(missing_ok=True)
    if record.result.status is TrialStatus.COMPLETED:
        metrics = record.result.metrics
        old_names = {
            "spelling_accuracy": metrics["spelling/accuracy"],
            "position_accuracy": metrics["transfer/position/accuracy"],
            "count_accuracy": metrics["transfer/count/accuracy"],
            "transfer_score": metrics[TRANSFER_SCORE],
        }
        files.write_atomic(folder.results, yaml.safe_dump(old_names, sort_keys=False))
    # The record comes last: its presence says that the trial is done.
    files.write_json(folder.record, dataclasses.asdict(record))


def read_record(path: Path) -> TrialRecord:
    """Read a trial's record.

    Raises:
        ResultsError: It is missing, damaged or not a record.
    """
    try:
        return _RECORD.validate_json(json.dumps(files.read_json(path)))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        place = f"{where}: " if where else ""
        raise ResultsError(f"{path} is damaged: {place}{law_of_error(first)}") from error


def intact_record(path: Path) -> TrialRecord | None:
    """Return a trial's record, or None when it is missing or damaged and must be made again."""
    try:
        return read_record(path)
    except ResultsError:
        return None
