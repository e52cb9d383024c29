"""Stored answers of a study's trials, paired item by item with those of the untouched model.

Everything is read from folders; what is missing or damaged there is said and got from the records,
as far as they go.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tuning import files
from tuning.measures import CHOICE, LENIENT, PREDICTIONS, STRICT, Gain
from tuning.mixed_effects import Run, mean_of_items
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.scoring import SYNERGY_WEIGHT, Focus, Weights
from tuning.statistics import Z
from tuning.tasks.items import SCORED_TASKS, Task, tasks_in

READINGS = (STRICT, CHOICE, LENIENT)
_KEY = ["task", "word", "template"]
_SHOWN = (*_KEY, STRICT, CHOICE, "choice", "prompt", "gold", "n", "letter", "stratum", "num_tokens")
"""Columns that a close look at a configuration needs."""


@dataclass(frozen=True, slots=True)
class TrialAnswers:
    """Gains of one trial over the untouched model, and the levels before; by task and reading."""

    gains: Mapping[tuple[Task, str], Run]
    before: Mapping[tuple[Task, str], Run]
    is_paired: bool
    """Whether it rests on answers item by item, and not on the record alone."""
    items: str = ""
    """Fingerprint of the items that were answered; empty where answers are gone."""

    def after(self, task: Task, reading: str = STRICT) -> Run:
        """Return the accuracy after training."""
        return self.before[task, reading] + self.gains[task, reading]

    def objective(self, focus: Focus, weights: Weights) -> Run:
        """Return what trials are ranked by, linearized where the score has a corner."""
        if focus is Focus.SPELLING:
            return self.gains[Task.SPELLING, STRICT]
        position, count = Task.POSITION, Task.COUNT
        if focus is Focus.TRANSFER:
            return (self.gains[position, STRICT] + self.gains[count, STRICT]) * 0.5
        spelling = self.after(Task.SPELLING)
        levels = (self.after(position), self.after(count))
        mean = (levels[0] + levels[1]) * 0.5
        synergy = spelling if spelling.value < mean.value else mean
        level = levels[0] * weights.position_weight + levels[1] * weights.count_weight
        return level + synergy * SYNERGY_WEIGHT


@dataclass
class StudyAnswers:
    """Answers of all completed trials of a study."""

    root: ResultsRoot
    records: Mapping[str, TrialRecord]
    trials: dict[str, TrialAnswers] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is missing, damaged or contradicts a record."""

    def frame(self, trial_id: str) -> pd.DataFrame | None:
        """Return all answers of a trial, or None if they are gone."""
        result = self.records[trial_id].result
        return _whole(_path(self.root, result.training_key, result.evaluation_key))

    def base_frame(self, trial_id: str) -> pd.DataFrame | None:
        """Return all answers of the untouched model that a trial is compared with, or None."""
        result = self.records[trial_id].result
        return _whole(_path(self.root, result.base_key, result.base_evaluation_key))


def read_answers(root: ResultsRoot, records: Sequence[TrialRecord]) -> StudyAnswers:
    """Read the answers of completed trials; never fails for what is missing.

    Args:
        root: All results hang off it.
        records: Completed ones.
    """
    answers = StudyAnswers(root, {record.trial_id: record for record in records})
    frames = _Frames(root)
    for record in records:
        # All words are numbered before anything is compared.
        frames.base(record.result.base_key, record.result.base_evaluation_key)
    made: dict[tuple[str, str], TrialAnswers] = {}
    for record in records:
        result = record.result
        key = (result.weights_key, result.evaluation_key or record.trial_id)
        if key not in made:
            made[key] = _trial_answers(frames, record, answers.notes)
        answers.trials[record.trial_id] = made[key]
    _have_one_source(answers)
    _have_same_words(answers.trials)
    answers.notes[:] = list(dict.fromkeys(answers.notes))
    return answers


def _have_one_source(answers: StudyAnswers) -> None:
    """Take all seeds of a configuration from their records if one of them has no answers.

    A recorded gain does not say on which words it rests, so beside a paired one it would look like
    one on other words, and the mean of both more certain than it is.
    """
    groups: dict[str, list[TrialRecord]] = {}
    for record in answers.records.values():
        key = files.sha256_of_json(dict(record.parameters))
        groups.setdefault(key, []).append(record)
    for records in groups.values():
        paired = [answers.trials[record.trial_id].is_paired for record in records]
        if any(paired) and not all(paired):
            for record in records:
                answers.trials[record.trial_id] = _from_record(record)


def _trial_answers(frames: _Frames, record: TrialRecord, notes: list[str]) -> TrialAnswers:
    result = record.result
    base = frames.base(result.base_key, result.base_evaluation_key)
    path = _path(frames.root, result.training_key, result.evaluation_key)
    tuned = _narrow(path)
    if base is None or tuned is None:
        who = "the untouched model" if base is None else f"trial {record.trial_id}"
        notes.append(f"answers of {who} are missing or damaged: gains are those of the record")
        return _from_record(record)
    if not base.fits(tuned):
        notes.append(
            f"trial {record.trial_id} was asked other items than the untouched model: gains are "
            "those of the record"
        )
        return _from_record(record)
    found = base.compare(tuned)
    for task in tasks_in(result.tasks):
        recorded, run = result.tasks[task.value], found.gains.get((task, STRICT))
        if run is not None and abs(run.value - recorded.gain.value) > 1e-9:
            notes.append(
                f"trial {record.trial_id}: stored answers give a {task} gain of {run.value:.4f}, "
                f"the record says {recorded.gain.value:.4f}; the answers are used"
            )
    return found


@dataclass
class _Frames:
    """The untouched models that trials are compared with, each read once."""

    root: ResultsRoot
    known: dict[tuple[str, str], _Base | None] = field(default_factory=dict)
    words: dict[str, int] = field(default_factory=dict)
    """Index of each word, the same for all trials of the study."""

    def base(self, key: str | None, evaluation_key: str | None) -> _Base | None:
        if key is None or evaluation_key is None:
            return None
        if (key, evaluation_key) not in self.known:
            table = _narrow(_path(self.root, key, evaluation_key))
            self.known[key, evaluation_key] = None if table is None else self._indexed(table)
        return self.known[key, evaluation_key]

    def _indexed(self, table: pa.Table) -> _Base:
        words = table.column("word").to_pylist()
        for word in words:
            self.words.setdefault(word, len(self.words))
        return _Base(table, np.array([self.words[word] for word in words]), self)


@dataclass
class _Base:
    """Answers of an untouched model, with what is the same for every trial on it."""

    table: pa.Table
    words_N: np.ndarray
    frames: _Frames

    def fits(self, tuned: pa.Table) -> bool:
        """Whether another table answers the same items in the same order."""
        return all(self.table.column(name).equals(tuned.column(name)) for name in _KEY)

    @functools.cached_property
    def rows(self) -> dict[Task, np.ndarray]:
        """Places of each task's items."""
        tasks_N = np.array(self.table.column("task").to_pylist())
        return {t: np.flatnonzero(tasks_N == t.value) for t in tasks_in(set(tasks_N.tolist()))}

    @functools.cached_property
    def items(self) -> str:
        """Fingerprint of what was asked."""
        return files.sha256_of_json([self.table.column(name).to_pylist() for name in _KEY])

    @functools.cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Readings as numbers, NaN where there is none."""
        return {name: _numbers(self.table, name) for name in READINGS}

    def compare(self, tuned: pa.Table) -> TrialAnswers:
        """Return the gains of a tuned model in every task and reading that both have."""
        num_words = len(self.frames.words)
        gains, before = {}, {}
        for reading in READINGS:
            after_N = _numbers(tuned, reading)
            for task, rows in self.rows.items():
                both = rows[~np.isnan(self.values[reading][rows]) & ~np.isnan(after_N[rows])]
                if len(both) == 0 or (reading is CHOICE and len(both) < len(rows)):
                    continue
                base_N, words_N = self.values[reading][both], self.words_N[both]
                gains[task, reading] = mean_of_items(after_N[both] - base_N, words_N, num_words)
                before[task, reading] = mean_of_items(base_N, words_N, num_words)
        return TrialAnswers(gains, before, is_paired=True, items=self.items)


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    column = table.column(name).cast(pa.float64())
    return np.asarray(column.to_numpy(), dtype=float)


def _path(root: ResultsRoot, key: str | None, evaluation_key: str | None) -> Path | None:
    if key is None or evaluation_key is None:
        return None
    return root.training(key).evaluation(evaluation_key) / PREDICTIONS


def _narrow(path: Path | None) -> pa.Table | None:
    """Return the columns that gains need, or None if the file is missing or damaged."""
    if path is None or not path.is_file():
        return None
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[n for n in (*_KEY, *READINGS) if n in names])
        table.validate(full=True)
        return table if _holds_answers(table) else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def _holds_answers(table: pa.Table) -> bool:
    """Whether there are strict answers to items of every task, each column of its kind."""
    if not {*_KEY, STRICT} <= set(table.column_names) or table.column(STRICT).null_count:
        return False
    texts = all(pa.types.is_large_string(t) or pa.types.is_string(t) for t in _types(table, _KEY))
    flags = all(pa.types.is_boolean(t) or pa.types.is_null(t) for t in _types(table, READINGS))
    tasks = set(table.column("task").unique().to_pylist())
    return texts and flags and {task.value for task in SCORED_TASKS} <= tasks


def _types(table: pa.Table, names: Sequence[str]) -> list[pa.DataType]:
    return [table.schema.field(name).type for name in names if name in table.column_names]


def _whole(path: Path | None) -> pd.DataFrame | None:
    if path is None or not path.is_file():
        return None
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None
    return frame if set(_SHOWN) <= set(frame) else None


def _from_record(record: TrialRecord) -> TrialAnswers:
    """Return runs as wide as the record's intervals; which word brings what is not known.

    Seeds of one configuration are taken to answer the same words alike, and configurations to
    answer them independently: either errs on the wide side.
    """
    gains, before = {}, {}
    pattern = files.sha256_of_json(dict(record.parameters))
    for task in tasks_in(record.result.tasks):
        result = record.result.tasks[task.value]
        for reading, gain, base in (
            (STRICT, result.gain, result.base),
            (CHOICE, result.choice_gain, result.choice_base),
            (LENIENT, result.lenient_gain, result.lenient_base),
        ):
            if gain is not None and base is not None:
                gains[task, reading] = run_of(gain, base.num_words, pattern)
                before[task, reading] = Run(base.value, np.zeros(base.num_words))
    return TrialAnswers(gains, before, is_paired=False)


def run_of(gain: Gain, num_words: int, pattern: str = "0") -> Run:
    """Return a run whose variance over words is that of a recorded interval.

    Args:
        gain: The recorded one.
        num_words: Words that it rests on.
        pattern: Hex digits; runs of one pattern are taken to answer the same words alike.
    """
    deviation = (gain.high - gain.low) / 2 / Z
    influence_C = np.random.default_rng(int(pattern, 16)).normal(size=num_words)
    influence_C -= influence_C.mean()
    influence_C *= deviation * np.sqrt((num_words - 1) / num_words / (influence_C**2).sum())
    return Run(gain.value, influence_C)


def _have_same_words(trials: dict[str, TrialAnswers]) -> None:
    """Pad influences to one length, so that any two runs can be compared."""
    size = max(
        (len(r.influence_C) for t in trials.values() for r in t.gains.values()),
        default=0,
    )
    for trial_id, trial in trials.items():
        trials[trial_id] = dataclasses.replace(
            trial,
            gains={key: _padded(run, size) for key, run in trial.gains.items()},
            before={key: _padded(run, size) for key, run in trial.before.items()},
        )


def _padded(run: Run, size: int) -> Run:
    missing = size - len(run.influence_C)
    return Run(run.value, np.pad(run.influence_C, (0, missing)), run.num_words) if missing else run
