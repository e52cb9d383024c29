"""Scores: the transfer score, what a study ranks by, and the names of all metrics."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from tuning.statistics import Interval, interval_from_spread
from tuning.tasks.items import Task

METRIC_PREFIX: Mapping[Task, str] = {
    Task.SPELLING: "spelling",
    Task.POSITION: "transfer/position",
    Task.COUNT: "transfer/count",
}
"""The three disjoint families of metric names."""

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

    ``position_weight * position + count_weight * count + 0.2 * min(spelling, (position + count) / 2)``

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

    position: float
    count: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One configuration with the objective of each of its seeds."""

    parameters: Mapping[str, Any]
    """What differs from the default; empty for the default."""
    trial_ids: Sequence[str]
    objectives: Sequence[float]

    @property
    def is_default(self) -> bool:
        """Whether it is the default configuration."""
        return not self.parameters

    @property
    def label(self) -> str:
        """Short name for tables and pictures."""
        pairs = (f"{k}={short(v)}" for k, v in self.parameters.items())
        return "default" if self.is_default else ", ".join(pairs)

    @property
    def mean(self) -> float:
        """Mean objective over seeds."""
        return sum(self.objectives) / len(self.objectives)


def short(value: Any) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "+".join(map(str, value))
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """A contender in its place."""

    rank: int
    contender: Contender
    interval: Interval | None
    """95 % over seeds; None when no configuration was repeated."""
    ties_with_best: bool
    """Not distinguishable from the best: seeds alone make differences as large."""
    beats_default: bool


def rank(contenders: Sequence[Contender]) -> list[Ranked]:
    """Rank configurations by their mean objective, best first.

    The spread between seeds is estimated on the default configuration, which is repeated, and used
    for the others too. The default is always a contender.

    Args:
        contenders: One entry a configuration.
    """
    ordered = sorted(contenders, key=lambda c: (-c.mean, not c.is_default, c.label))
    default = next((c for c in ordered if c.is_default), None)
    repeated = default is not None and len(default.objectives) >= 2
    spread = statistics.stdev(default.objectives) if default and repeated else None
    freedom = len(default.objectives) - 1 if default else 0

    def difference(a: Contender, b: Contender) -> Interval | None:
        if spread is None:
            return None
        runs = 1 / (1 / len(a.objectives) + 1 / len(b.objectives))
        return interval_from_spread(a.mean - b.mean, spread, runs, freedom)

    ranked = []
    for place, contender in enumerate(ordered, start=1):
        to_best = difference(ordered[0], contender)
        to_default = difference(contender, default) if default else None
        ranked.append(
            Ranked(
                rank=place,
                contender=contender,
                interval=None
                if spread is None
                else interval_from_spread(
                    contender.mean, spread, len(contender.objectives), freedom
                ),
                ties_with_best=to_best is None or to_best.low <= 0,
                beats_default=to_default is not None and to_default.low > 0,
            )
        )
    return ranked
