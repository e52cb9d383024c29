"""Results of planted answers without pandas, for studies of hundreds of trials.

Equal to `measures.task_results` in every number but the ends of intervals, which are here
``mean +- 1.96 standard errors``, clustered by word, where the real ones resample words.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from planted_answers import Questions, Said
from tuning import statistics
from tuning.measures import (
    Accuracy,
    BaselineOf,
    CountDetail,
    Gain,
    SpellingErrors,
    TaskResult,
    TemplateSpread,
)
from tuning.statistics import Interval
from tuning.tasks.baselines import count_class
from tuning.tasks.items import EVALUATED_TASKS, Task
from tuning.tasks.lenient import Outcome


class Reading(NamedTuple):
    """One reading of some items."""

    right_N: np.ndarray
    word_N: np.ndarray
    """From 0 without gaps."""


@dataclass(frozen=True)
class QuickResults:
    """Compares tuned models with one untouched model on one suite."""

    asked: Questions
    base: Said
    baselines: Mapping[str, float]

    @classmethod
    def of(cls, asked: Questions, base: Said, baseline_of: BaselineOf) -> QuickResults:
        """Prepare what all comparisons share."""
        by_task = asked.table.to_pandas().groupby("task")
        return cls(asked, base, {str(task): baseline_of(rows) for task, rows in by_task})

    def task_results(self, tuned: Said) -> dict[str, TaskResult]:
        """Return the result of each task."""
        return {task.value: self._task_result(k, task, tuned) for k, task in enumerate(self._tasks)}

    _tasks = EVALUATED_TASKS

    def _task_result(self, k: int, task: Task, tuned: Said) -> TaskResult:
        both = (self.base, tuned)
        strict = [self._strict(k, said) for said in both]
        choice = [self._choice(k, said) for said in both] if task is not Task.SPELLING else []
        lenient = [self._lenient(k, said) for said in both] if self._is_decoded(k) else []
        unparseable = [self._num_unparseable(k, said) for said in both]
        errors = [self._spelling_errors(k, said) for said in both]
        details = [self._count_detail(k, said) for said in both] if task is Task.COUNT else []
        return TaskResult(
            baseline=self.baselines[task.value],
            base=_accuracy(strict[0]),
            tuned=_accuracy(strict[1]),
            gain=_gain(*strict),
            choice_base=_accuracy(choice[0]) if choice else None,
            choice_tuned=_accuracy(choice[1]) if choice else None,
            choice_gain=_gain(*choice) if choice else None,
            lenient_base=_accuracy(lenient[0]) if lenient else None,
            lenient_tuned=_accuracy(lenient[1]) if lenient else None,
            lenient_gain=_gain(*lenient) if lenient else None,
            unparseable_base=unparseable[0],
            unparseable_tuned=unparseable[1],
            templates=self._templates(k, *strict),
            spelling_errors_base=errors[0] if task is Task.SPELLING else None,
            spelling_errors_tuned=errors[1] if task is Task.SPELLING else None,
            count_base=details[0] if details else None,
            count_tuned=details[1] if details else None,
        )

    @functools.cached_property
    def _at(self) -> list[np.ndarray]:
        """Places of each task's items."""
        return [np.flatnonzero(self.asked.task_N == k) for k in range(len(EVALUATED_TASKS))]

    @functools.cached_property
    def _decoded_at(self) -> list[np.ndarray]:
        """Places of each task among the decoded items."""
        task_D = self.asked.task_N[self.asked.decoded_D]
        return [np.flatnonzero(task_D == k) for k in range(len(EVALUATED_TASKS))]

    @functools.cached_property
    def _words(self) -> list[np.ndarray]:
        return [_dense(self.asked.word_N[at]) for at in self._at]

    @functools.cached_property
    def _decoded_words(self) -> list[np.ndarray]:
        word_D = self.asked.word_N[self.asked.decoded_D]
        return [_dense(word_D[at]) for at in self._decoded_at]

    def _strict(self, k: int, said: Said) -> Reading:
        return Reading(said.strict_N[self._at[k]], self._words[k])

    def _choice(self, k: int, said: Said) -> Reading:
        at = self._at[k]
        return Reading(said.chosen_N[at] == self.asked.gold_N[at], self._words[k])

    def _lenient(self, k: int, said: Said) -> Reading:
        return Reading(said.lenient_D[self._decoded_at[k]], self._decoded_words[k])

    def _is_decoded(self, k: int) -> bool:
        return len(set(self._decoded_words[k])) >= 2

    def _num_unparseable(self, k: int, said: Said) -> int:
        readings = (said.readings[i] for i in self._decoded_at[k])
        return sum(reading.outcome is Outcome.UNPARSEABLE for reading in readings)

    def _spelling_errors(self, k: int, said: Said) -> SpellingErrors | None:
        readings = [said.readings[i] for i in self._decoded_at[k]]
        if not readings:
            return None
        return SpellingErrors(
            character_error_rate=float(np.mean([r.character_error_rate or 0 for r in readings])),
            mean_length_error=float(np.mean([abs(r.length_error or 0) for r in readings])),
        )

    def _templates(self, k: int, before: Reading, after: Reading) -> TemplateSpread:
        at = self._at[k]
        names = sorted({self.asked.items[i].template for i in at})
        sizes = np.bincount(self.asked.template_N[at])
        base, tuned = (
            np.bincount(self.asked.template_N[at], weights=reading.right_N) / sizes
            for reading in (before, after)
        )
        return TemplateSpread(
            worst=names[tuned.argmin()],
            worst_accuracy=float(tuned.min()),
            worst_base=names[base.argmin()],
            worst_base_accuracy=float(base.min()),
        )

    @functools.cached_property
    def _classes(self) -> np.ndarray:
        at = self._at[EVALUATED_TASKS.index(Task.COUNT)]
        return np.array([count_class(self.asked.items[i].answer) for i in at])

    def _count_detail(self, k: int, said: Said) -> CountDetail:
        at = self._at[k]
        right_N, chosen_N = said.strict_N[at], said.chosen_N[at]
        recall = {
            str(name): float(right_N[self._classes == name].mean())
            for name in np.unique(self._classes)
        }
        digits, counts = np.unique(chosen_N, return_counts=True)
        return CountDetail(
            recall=recall,
            balanced_accuracy=sum(recall.values()) / len(recall),
            mean_absolute_error=float(np.abs(chosen_N - self.asked.gold_N[at]).mean()),
            answers={str(d): int(n) for d, n in zip(digits, counts, strict=True)},
        )


def _dense(words: np.ndarray) -> np.ndarray:
    return np.unique(words, return_inverse=True)[1]


def _accuracy(reading: Reading) -> Accuracy:
    right_N, word_N = reading
    interval = _interval(right_N.astype(float), word_N)
    if np.all(right_N == right_N[0]):
        interval = statistics.clustered_interval(right_N.astype(float), word_N)
    return Accuracy(
        value=float(right_N.mean()),
        low=max(0.0, interval.low),
        high=min(1.0, interval.high),
        num_items=len(right_N),
        num_words=int(word_N.max()) + 1,
    )


def _gain(before: Reading, after: Reading) -> Gain:
    difference_N = after.right_N.astype(float) - before.right_N
    better, worse = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    interval = _interval(difference_N, after.word_N)
    if np.all(difference_N == difference_N[0]):
        interval = statistics.clustered_difference_interval(difference_N, after.word_N)
    return Gain(
        value=float(difference_N.mean()),
        low=interval.low,
        high=interval.high,
        num_better=better,
        num_worse=worse,
        p_value=statistics.mcnemar_p_value(better, worse),
    )


def _interval(values_N: np.ndarray, word_N: np.ndarray) -> Interval:
    mean = float(values_N.mean())
    sums_C = np.bincount(word_N, weights=values_N - mean)
    num_words = len(sums_C)
    half = 1.96 * float(np.sqrt(num_words / (num_words - 1) * (sums_C**2).sum())) / len(values_N)
    return Interval(mean - half, mean + half)
