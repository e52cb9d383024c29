"""Ranking: configurations by their mean objective, and what seeds alone could have done."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.statistics import Interval, holm, interval_from_spread, t_p_value


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
    """Better than the default at level .05 when all configurations are tested at once (Holm)."""


def rank(contenders: Sequence[Contender]) -> list[Ranked]:
    """Rank configurations by their mean objective, best first.

    The spread between seeds is estimated on the default configuration, which is repeated, and used
    for the others too.

    Args:
        contenders: One entry a configuration.
    """
    ordered = sorted(contenders, key=lambda c: (-c.mean, not c.is_default, c.label))
    default = next((c for c in ordered if c.is_default), None)
    spread = _Spread.of(default)
    beating = _beating(ordered, default, spread)
    return [
        Ranked(
            rank=place,
            contender=contender,
            interval=spread.interval(contender) if spread else None,
            ties_with_best=spread is None or spread.difference(ordered[0], contender).low <= 0,
            beats_default=contender in beating,
        )
        for place, contender in enumerate(ordered, start=1)
    ]


@dataclass(frozen=True, slots=True)
class _Spread:
    """Standard deviation between runs that differ in the seed alone."""

    value: float
    freedom: int

    @classmethod
    def of(cls, default: Contender | None) -> _Spread | None:
        """Estimate it on the repeated default; None if it was not repeated or never varied."""
        if default is None or len(default.objectives) < 2:
            return None
        value = statistics.stdev(default.objectives)
        return cls(value, len(default.objectives) - 1) if value > 0 else None

    def interval(self, contender: Contender) -> Interval:
        """Return the interval of a contender's mean."""
        runs = len(contender.objectives)
        return interval_from_spread(contender.mean, self.value, runs, self.freedom)

    def difference(self, a: Contender, b: Contender) -> Interval:
        """Return the interval of the difference of two means."""
        return interval_from_spread(a.mean - b.mean, self.value, _runs(a, b), self.freedom)

    def p_value(self, a: Contender, b: Contender) -> float:
        """Return the two-sided p of the difference of two means."""
        return t_p_value(a.mean - b.mean, self.value, _runs(a, b), self.freedom)


def _runs(a: Contender, b: Contender) -> float:
    return 1 / (1 / len(a.objectives) + 1 / len(b.objectives))


def _beating(
    contenders: Sequence[Contender], default: Contender | None, spread: _Spread | None
) -> list[Contender]:
    """Return those better than the default when all of them are tested at once (Holm)."""
    if default is None or spread is None:
        return []
    others = [c for c in contenders if not c.is_default]
    rejected = holm([spread.p_value(other, default) for other in others])
    return [
        c
        for c, is_other in zip(others, rejected, strict=True)
        if is_other and c.mean > default.mean
    ]
