"""What a tracker shows of a study: runs made from the folders alone. No tracker, no torch.

A run is a pure function of the folders: whoever asks again gets the same runs under the same ids,
so that a tracker can be brought up to date at any time, also after a loss.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tuning import files
from tuning.jobs import read_progress
from tuning.measures import PREDICTIONS
from tuning.paths import ResultsRoot
from tuning.ranking import Contender
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import (
    METRIC_PREFIX,
    TRANSFER_SCORE,
    accuracy_name,
    calculate_transfer_score,
)
from tuning.study import StudySpec, existing_spec, readable_records, trial_index
from tuning.tasks.items import EVALUATED_TASKS, SCORED_TASKS, tasks_in

STEP = "trainer/step"
"""The axis of every curve: optimizer steps."""

NUM_SHOWN_ANSWERS = 40
"""Answers of each task in a run's table."""

_ANSWER_COLUMNS = ("task", "word", "template", "prompt", "gold", "strict_correct", "text", "margin")
_MAX_TAG = 64
_MAX_GROUP = 40


class JobType(StrEnum):
    """What a run is of."""

    TRIAL = "trial"
    BASE = "base"
    CONFIRM = "confirm"
    ANALYSIS = "analysis"


class Artifact(NamedTuple):
    """Files that belong together."""

    kind: str
    paths: Sequence[Path]
    aliases: Sequence[str] = ("latest",)
    is_final: bool = True
    """Whether the files never change again."""


class Scatter(NamedTuple):
    """A chart of one column of a table against another."""

    table: str
    x: str
    y: str
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """One run of a tracker, complete."""

    run_id: str
    """Of `[a-z0-9-]`, at most 64; the same for the same attempt on the same trial, for ever."""
    name: str
    group: str
    """The study."""
    job_type: JobType
    tags: Sequence[str]
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]] = ()
    """What was logged, each with its `trainer/step`, in order."""
    summary: Mapping[str, float | str | None] = field(default_factory=dict)
    """Single values, `final/*` among them."""
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Tables by name; all rows of one have the same columns."""
    scatters: Mapping[str, Scatter] = field(default_factory=dict)
    pages: Mapping[str, str] = field(default_factory=dict)
    """HTML by name."""
    artifacts: Sequence[Artifact] = ()
    content: str | None = None
    """Of a run that may change: a fingerprint of what it says now. None for one that never does."""
    is_failure: bool = False

    @property
    def num_rows(self) -> int:
        """Rows that a tracker has of it: one more shows what may change."""
        return len(self.rows) + (self.content is not None)


def runs_of(root: ResultsRoot, study: str) -> Iterator[TrackedRun]:
    """Yield the runs of a study: the untouched model's, then one for each finished trial.

    Raises:
        UserError: There is no such study, or a file of it is damaged.
    """
    spec = existing_spec(root, study)
    records, _ = readable_records(spec, root.study(study))
    completed = [r for r in records if r.result.status is TrialStatus.COMPLETED]
    if completed:
        yield _base_run(spec, completed[0])
    for record in records:
        yield _trial_run(root, spec, record)


def run_id(spec: StudySpec, what: str, began: str = "") -> str:
    """Return the id of a run: study, what it is of, and a hash that tells equal names apart.

    Args:
        spec: The study. Its time stamp is hashed, so a study made anew under an old name has
            other runs.
        what: Such as ``t0012``.
        began: When the attempt began that its record is of; another attempt has another run.
    """
    identity = [spec.name, spec.base.timestamp, what, began]
    readable = re.sub(r"[^a-z0-9]+", "-", spec.name.lower())[:_MAX_GROUP].strip("-") or "study"
    return f"{readable}-{what}-{files.sha256_of_json(identity)[:8]}"


def _base_run(spec: StudySpec, record: TrialRecord) -> TrackedRun:
    """Return the untouched model's run, read off a trial that was compared with it."""
    summary: dict[str, float | str | None] = {"state": TrialStatus.COMPLETED.value}
    for task in tasks_in(record.result.tasks):
        result = record.result.tasks[task.value]
        summary |= {
            f"final/{task.value}_accuracy": result.base.value,
            f"final/{task.value}_num_items": result.base.num_items,
            f"final/{task.value}_baseline": result.baseline,
        }
    model = record.result.model
    return TrackedRun(
        run_id=run_id(spec, "base"),
        name=f"untouched {model}",
        group=spec.name,
        job_type=JobType.BASE,
        tags=tags_of(spec, TrialStatus.COMPLETED),
        config={"model": model, "keys": {"base": record.result.base_key}},
        summary=summary,
    )


def _trial_run(root: ResultsRoot, spec: StudySpec, record: TrialRecord) -> TrackedRun:
    """Return a trial's run; nothing in it changes when other trials end later."""
    result, place = record.result, trial_index(record.trial_id)
    label = Contender(parameters=record.parameters, trial_ids=(), objectives=()).label
    config = spec.config_of(record)
    return TrackedRun(
        run_id=run_id(spec, f"t{place:04d}", record.execution.started_at),
        name=f"{place:04d} {label} seed {record.seed}",
        group=spec.name,
        job_type=JobType.CONFIRM if spec.confirms else JobType.TRIAL,
        tags=tags_of(spec, result.status),
        config={
            **config.model_dump(mode="json"),
            "trial": {"id": record.trial_id, "seed": record.seed, **record.parameters},
            "model": result.model,
            "keys": {
                "training": result.training_key,
                "weights": result.weights_key,
                "evaluation": result.evaluation_key,
                "base": result.base_key,
            },
        },
        rows=_rows(root, spec, record),
        summary=_summary(root, record),
        tables=_answers(root, record),
        artifacts=_artifacts(root, spec, record),
        is_failure=result.status is TrialStatus.FAILED,
    )


def tags_of(spec: StudySpec, status: TrialStatus) -> list[str]:
    """Return the tags of a run: study, strategy, model, and how it ended."""
    tags = (
        f"study:{spec.name}",
        f"strategy:{spec.space.strategy.value}",
        f"model:{spec.base.tokenizer_config.model_name}",
        f"state:{status.value}",
    )
    return [tag[:_MAX_TAG] for tag in tags]


def _rows(root: ResultsRoot, spec: StudySpec, record: TrialRecord) -> list[dict[str, float]]:
    """Return a row for each step that something is known of, up to the trial's own last one."""
    by_step: dict[int, dict[str, float]] = {}
    for line in read_progress(root.training(record.result.training_key)):
        if line["step"] > record.result.step:
            continue
        row = by_step.setdefault(line["step"], {STEP: line["step"]})
        if line["kind"] == "train":
            row |= {f"spelling/train_{k}": v for k, v in line.items() if k not in ("step", "kind")}
            continue
        row |= {k: v for k, v in line.items() if k not in ("step", "kind")}
        spelling, position, count = (line[accuracy_name(task)] for task in SCORED_TASKS)
        # Of few words, as the curves are; the trial's own stands in the summary.
        row[TRANSFER_SCORE] = calculate_transfer_score(spelling, position, count, *spec.weights)
    return [by_step[step] for step in sorted(by_step)]


def _summary(root: ResultsRoot, record: TrialRecord) -> dict[str, float | str | None]:
    result, execution = record.result, record.execution
    found: dict[str, float | str | None] = {
        "state": result.status.value,
        "cost/train_seconds": execution.train_seconds,
        "cost/evaluation_seconds": execution.evaluation_seconds,
        "cost/trained_tokens": execution.num_trained_tokens,
    }
    if result.error or result.reason:
        why = result.reason or f"{result.error_type}: {result.error}"
        # Errors name files; whose machine they are on is nobody's business.
        results = root.root.absolute()
        for place, name in (
            (results, "RESULTS"),
            (results.resolve(), "RESULTS"),
            (Path.home(), "HOME"),
        ):
            if len(place.parts) > 1:
                why = why.replace(str(place), name)
        found["why"] = why
    for task in EVALUATED_TASKS:
        prefix = f"{METRIC_PREFIX[task]}/"
        for name, value in result.metrics.items():
            if name.startswith(prefix):
                found[f"final/{task.value}_{name.removeprefix(prefix)}"] = value
        of = result.tasks.get(task.value)
        if of is not None:
            found |= {
                f"final/{task.value}_accuracy_low": of.tuned.low,
                f"final/{task.value}_accuracy_high": of.tuned.high,
                f"final/{task.value}_num_items": of.tuned.num_items,
                f"final/{task.value}_baseline": of.baseline,
            }
    if TRANSFER_SCORE in result.metrics:
        found[TRANSFER_SCORE] = result.metrics[TRANSFER_SCORE]
    return found


def _answers(root: ResultsRoot, record: TrialRecord) -> dict[str, list[dict[str, Any]]]:
    """Return the same few questions of each task for every run, with what was answered."""
    result = record.result
    if result.evaluation_key is None:
        return {}
    path = root.training(result.training_key).evaluation(result.evaluation_key) / PREDICTIONS
    try:
        table = pd.read_parquet(path, columns=list(_ANSWER_COLUMNS))
    except (OSError, ValueError, KeyError):
        return {}
    hashed = pd.util.hash_pandas_object(table[["task", "word", "template"]], index=False)
    shown = table.assign(order=hashed).sort_values("order").groupby("task", sort=True)
    sample = shown.head(NUM_SHOWN_ANSWERS).sort_values(["task", "order"])[list(_ANSWER_COLUMNS)]
    sample["margin"] = sample["margin"].round(3).astype(float)
    rows = sample.astype(object).where(sample.notna(), None).to_dict("records")
    named = [{str(name): value for name, value in row.items()} for row in rows]
    return {"answers": named} if named else {}


def _artifacts(root: ResultsRoot, spec: StudySpec, record: TrialRecord) -> list[Artifact]:
    """Return files that are there; an adapter may have been cleaned away."""
    training = root.training(record.result.training_key)
    wanted = {
        "trial-config": [root.study(spec.name).trial(record.trial_id).config],
        "dataset-manifest": [training.identity],
    }
    found = {kind: [p for p in paths if p.is_file()] for kind, paths in wanted.items()}
    made = [Artifact(kind, paths) for kind, paths in found.items() if paths]
    return [*adapter_artifact(root, record), *made]


def adapter_artifact(root: ResultsRoot, record: TrialRecord, *aliases: str) -> Iterator[Artifact]:
    """Yield the adapter of a trial if it is there, under `latest` and other aliases."""
    adapter = root.training(record.result.training_key).adapter(record.result.step)
    paths = [adapter / "adapter_config.json", adapter / "adapter_model.safetensors"]
    if all(path.is_file() for path in paths):
        yield Artifact("lora-adapter", paths, ("latest", *aliases))
