"""Ranking: configurations by their mean objective. What seeds could have done is the analysis's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


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


class Ranked(NamedTuple):
    """A contender in its place."""

    rank: int
    contender: Contender


def rank(contenders: Sequence[Contender]) -> list[Ranked]:
    """Rank configurations by their mean objective, best first; of equals the default first.

    Args:
        contenders: One entry a configuration.
    """
    ordered = sorted(contenders, key=lambda c: (-c.mean, not c.is_default, c.label))
    return [Ranked(place, contender) for place, contender in enumerate(ordered, start=1)]
