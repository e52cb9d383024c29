"""Scores: the transfer score, what a study ranks by, and the names of all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from tuning.tasks.items import EVALUATED_TASKS, Task

METRIC_PREFIX: Mapping[Task, str] = {
    task: "spelling" if task is Task.SPELLING else f"transfer/{task.value}"
    for task in EVALUATED_TASKS
}
"""Disjoint families of metric names, such as ``transfer/position``."""

TRANSFER_SCORE = "transfer_learning_score"
OWN_WEIGHTS_SCORE = "own_weights_score"
SYNERGY_WEIGHT = 0.2


def accuracy_name(task: Task) -> str:
    """Return the name of a task's accuracy, such as ``transfer/position/accuracy``."""
    return f"{METRIC_PREFIX[task]}/accuracy"


def gain_name(task: Task) -> str:
    """Return the name of a task's gain over the untouched base model."""
    return f"{METRIC_PREFIX[task]}/gain"


def calculate_transfer_score(
    spelling_accuracy: float,
    position_accuracy: float,
    count_accuracy: float,
    position_weight: float = 0.5,
    count_weight: float = 0.5,
) -> float:
    """Return the weighted level of the three accuracies; a level, not a transfer.

    ``position_weight * position + count_weight * count
    + 0.2 * min(spelling, (position + count) / 2)``

    Args:
        spelling_accuracy: Rate in [0, 1].
        position_accuracy: Rate in [0, 1].
        count_accuracy: Rate in [0, 1].
        position_weight: In [0, 1]; the two weights need not sum to 1.
        count_weight: In [0, 1].

    Returns:
        A score that may exceed 1.

    Raises:
        ValueError: An input is outside [0, 1], or NaN.
    """
    for name, value in dict(locals()).items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
    level = position_weight * position_accuracy + count_weight * count_accuracy
    synergy = min(spelling_accuracy, (position_accuracy + count_accuracy) / 2)
    return level + SYNERGY_WEIGHT * synergy


class Weights(NamedTuple):
    """Weights of the two transfer tasks in the score."""

    position_weight: float
    count_weight: float


class Focus(StrEnum):
    """What a study's trials are ranked by."""

    SPELLING = "spelling"
    TRANSFER = "transfer"
    BALANCED = "balanced"

    @property
    def weights(self) -> Weights:
        """The weights that the focus gives to both transfer tasks."""
        weight = {Focus.SPELLING: 0.3, Focus.TRANSFER: 0.6, Focus.BALANCED: 0.5}[self]
        return Weights(weight, weight)

    @property
    def says(self) -> str:
        """What trials are ranked by, in words."""
        return {
            Focus.SPELLING: "gain in spelling",
            Focus.TRANSFER: "mean of the gains in position and count",
            Focus.BALANCED: TRANSFER_SCORE,
        }[self]

    def objective(self, metrics: Mapping[str, float]) -> float:
        """Return what trials are ranked by, higher is better.

        Args:
            metrics: Accuracies, gains and scores by their names.
        """
        if self is Focus.SPELLING:
            return metrics[gain_name(Task.SPELLING)]
        if self is Focus.TRANSFER:
            gains = (metrics[gain_name(Task.POSITION)], metrics[gain_name(Task.COUNT)])
            return sum(gains) / 2
        return metrics[TRANSFER_SCORE]


def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether `a` is nowhere worse than `b` and somewhere better; higher is better."""
    return all(x >= y for x, y in zip(a, b, strict=True)) and tuple(a) != tuple(b)
