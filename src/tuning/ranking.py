"""Ranking: configurations by their mean objective, and which of them can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tuning.mixed_effects import Estimate, Run, SeedSpread, difference
from tuning.statistics import holm


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


LEVEL = 0.05
"""Family-wise: of all comparisons with one reference."""


class Compared(NamedTuple):
    """A configuration against a reference."""

    difference: Estimate
    """How much it is above the reference."""
    p_adjusted: float
    """Of the difference, adjusted for the number of comparisons (Holm)."""
    is_told_apart: bool
    """Whether there is a difference at level .05 when all comparisons are made at once."""


def compare_with(
    reference: Sequence[Run], others: Sequence[Sequence[Run]], spread: SeedSpread | None
) -> list[Compared]:
    """Compare configurations with a reference, all at once.

    Args:
        reference: Its runs.
        others: The runs of each other configuration.
        spread: Between seeds, of all that were repeated. Without it nothing can be told apart: one
            run of each may differ by the seed alone.
    """
    differences = [difference(runs, reference, spread) for runs in others]
    adjusted = holm([found.p_value for found in differences])
    return [
        Compared(found, p_value, spread is not None and p_value < LEVEL)
        for found, p_value in zip(differences, adjusted, strict=True)
    ]
