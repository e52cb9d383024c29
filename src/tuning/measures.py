"""From stored predictions to accuracies and paired gains. Needs no model.

`*/accuracy` is the plain mean over all items of a task: every item under every template, all bands
and strata together, in the suite's fixed mix. Its interval resamples words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tuning import statistics
from tuning.errors import ResultsError
from tuning.scoring import METRIC_PREFIX, TRANSFER_SCORE, Weights, calculate_transfer_score
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS, Task

STRICT, CHOICE = "strict_correct", "choice_correct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A rate with what it rests on."""

    value: float
    """Rate in [0, 1]."""
    low: float
    high: float
    """95 % interval, clustered by word."""
    num_items: int
    num_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A tuned model against the untouched one on the same items."""

    value: float
    """After minus before, as a rate; 0.05 is 5 points."""
    low: float
    high: float
    """95 % interval, clustered by word. One run: of this adapter, not of this configuration."""
    num_better: int
    num_worse: int
    p_value: float
    """McNemar's test over items."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One task before and after."""

    baseline: float
    """Accuracy of the best guesser that never looks at the word, on these items."""
    base: Accuracy
    tuned: Accuracy
    gain: Gain
    choice_base: Accuracy | None = None
    choice_tuned: Accuracy | None = None
    choice_gain: Gain | None = None
    """The likelihood reading; a gain that is only in the strict one is a gain in format."""

    @property
    def is_transfer(self) -> bool:
        """Whether both readings improved, each with an interval above 0."""
        return self.gain.low > 0 and self.choice_gain is not None and self.choice_gain.low > 0


def accuracy(predictions: pd.DataFrame, column: str = STRICT) -> Accuracy:
    """Return the accuracy over rows of predictions.

    Args:
        predictions: Rows of one task or stratum.
        column: The reading.

    Raises:
        ValueError: There are no rows.
    """
    values = predictions[column].to_numpy(dtype=float)
    words = predictions["word"].to_numpy()
    low, high = statistics.clustered_interval(values, words)
    return Accuracy(
        value=float(values.mean()),
        low=low,
        high=high,
        num_items=len(values),
        num_words=int(predictions["word"].nunique()),
    )


def gain(before: pd.DataFrame, after: pd.DataFrame, column: str = STRICT) -> Gain:
    """Compare two sets of predictions, item by item.

    Raises:
        ResultsError: They are not over the same items.
    """
    key = ["task", "template", "prompt"]
    if not before[key].reset_index(drop=True).equals(after[key].reset_index(drop=True)):
        raise ResultsError(
            "a paired gain needs both models' answers to the same items, in one order"
        )
    paired = statistics.paired_gain(
        before[column].to_numpy(dtype=float),
        after[column].to_numpy(dtype=float),
        after["word"].to_numpy(),
    )
    return Gain(
        value=paired.gain,
        low=paired.interval.low,
        high=paired.interval.high,
        num_better=paired.num_better,
        num_worse=paired.num_worse,
        p_value=paired.p_value,
    )


def task_results(
    base: pd.DataFrame, tuned: pd.DataFrame, baselines: Mapping[str, float]
) -> dict[str, TaskResult]:
    """Compare a tuned model with the untouched one on every task.

    Args:
        base: Predictions of the untouched model.
        tuned: Predictions of the tuned model on the same items.
        baselines: Word-blind accuracy by task.
    """
    results = {}
    for task in EVALUATED_TASKS:
        before, after = base[base["task"] == task.value], tuned[tuned["task"] == task.value]
        has_choice = task in TRANSFER_TASKS
        results[task.value] = TaskResult(
            baseline=baselines[task.value],
            base=accuracy(before),
            tuned=accuracy(after),
            gain=gain(before, after),
            choice_base=accuracy(before, CHOICE) if has_choice else None,
            choice_tuned=accuracy(after, CHOICE) if has_choice else None,
            choice_gain=gain(before, after, CHOICE) if has_choice else None,
        )
    return results


def flat_metrics(results: Mapping[str, TaskResult], weights: Weights) -> dict[str, float]:
    """Return the metrics of a trial by their public names."""
    metrics: dict[str, float] = {}
    for task in EVALUATED_TASKS:
        prefix, result = METRIC_PREFIX[task], results[task.value]
        metrics[f"{prefix}/accuracy"] = result.tuned.value
        metrics[f"{prefix}/gain"] = result.gain.value
        metrics[f"{prefix}/base_accuracy"] = result.base.value
        if result.choice_tuned is not None and result.choice_gain is not None:
            metrics[f"{prefix}/choice_accuracy"] = result.choice_tuned.value
            metrics[f"{prefix}/choice_gain"] = result.choice_gain.value
    metrics[TRANSFER_SCORE] = score_of(metrics, weights)
    return metrics


def score_of(metrics: Mapping[str, float], weights: Weights) -> float:
    """Return the transfer score of accuracies given by their public names."""
    spelling, position, count = (metrics[f"{METRIC_PREFIX[t]}/accuracy"] for t in EVALUATED_TASKS)
    return calculate_transfer_score(spelling, position, count, *weights)


def strict_accuracies(tasks: list[Task], correct: list[bool]) -> dict[str, float]:
    """Return the plain mean of each task's strict readings, by public name."""
    metrics = {}
    for task in EVALUATED_TASKS:
        hits = [c for t, c in zip(tasks, correct, strict=True) if t is task]
        metrics[f"{METRIC_PREFIX[task]}/accuracy"] = sum(hits) / len(hits)
    return metrics
