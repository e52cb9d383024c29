"""Ranking: configurations by their mean objective, and what seeds alone could have done."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.statistics import Interval, interval_from_spread


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
