"""Was the winner lucky? What it scored when it was chosen, and again on fresh seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.analysis.answers import run_of
from tuning.analysis.configurations import ConfigurationSummary, Table
from tuning.mixed_effects import Estimate, estimate
from tuning.study import FinalTest


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """One reported configuration, chosen and trained again."""

    label: str
    parameters: Mapping[str, Any]
    chosen: Estimate
    """Objective when it was chosen."""
    fresh: Estimate
    """Objective on fresh seeds."""
    shrinkage: float
    """By how much the objective fell; negative if it rose."""
    chosen_over_default: Estimate | None
    fresh_over_default: Estimate | None
    """Above the default on the same seeds; None for the default itself."""
    fresh_row: ConfigurationSummary
    """Gains on fresh seeds, task by task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """The study that trained the winners again."""

    study: str
    num_seeds: int
    configurations: list[Confirmed]


def confirmation_of(chosen: Table, fresh: Table, study: str) -> Confirmation | None:
    """Return the winners' shrinkage, or None where no configuration is in both studies.

    Args:
        chosen: The study that chose.
        fresh: Its winners on fresh seeds.
        study: Name of the latter.
    """
    again = {_key(row): row for row in fresh.ranked}
    found = [
        Confirmed(
            label=row.label,
            parameters=row.parameters,
            chosen=row.objective,
            fresh=again[_key(row)].objective,
            shrinkage=row.objective.value - again[_key(row)].objective.value,
            chosen_over_default=row.over_default,
            fresh_over_default=again[_key(row)].over_default,
            fresh_row=again[_key(row)],
        )
        for row in chosen.ranked
        if _key(row) in again
    ]
    if not found:
        return None
    num_seeds = max(confirmed.fresh_row.num_seeds for confirmed in found)
    return Confirmation(study=study, num_seeds=num_seeds, configurations=found)


def _key(row: ConfigurationSummary) -> str:
    return repr(sorted(row.parameters.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalGain:
    """One reported configuration in one task on the test split, whose words chose nothing."""

    label: str
    task: str
    num_items: int
    num_words: int
    before: float
    after: float
    """Mean over seeds."""
    gain: Estimate


def gains_on_test(tests: Sequence[FinalTest]) -> list[FinalGain]:
    """Return what `tuning study test` found, over the seeds of each configuration."""
    found = []
    for test in tests:
        seeds = list(test.seeds.values())
        for task, first in (seeds[0] if seeds else {}).items():
            num_words = first.base.num_words
            gain = estimate([run_of(seed[task].gain, num_words) for seed in seeds])
            found.append(
                FinalGain(
                    label=test.label,
                    task=task,
                    num_items=first.base.num_items,
                    num_words=num_words,
                    before=first.base.value,
                    after=first.base.value + gain.value,
                    gain=gain,
                )
            )
    return found
