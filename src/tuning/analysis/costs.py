"""The ranking again at equal examples, and what a gain costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.patterns import Curve
from tuning.analysis.resources import Resources, resources_of
from tuning.records import TrialRecord
from tuning.scoring import Focus, Weights, calculate_transfer_score
from tuning.statistics import t_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualExamples:
    """One configuration after as many training examples as every other has seen."""

    rank: int
    label: str
    objective: float
    """On monitor words, mean over seeds; between two evaluations on the way interpolated."""
    low: float | None
    high: float | None
    """95 % t interval over seeds, on these words; None for a single seed."""
    num_seeds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run of a configuration costs, and what it brings for that."""

    label: str
    num_examples: int
    train_minutes: float | None
    transfer_gain: float
    """Unweighted mean of the gains in position and count, as a rate."""
    points_per_1000_examples: float
    points_per_minute: float | None
    resources: Resources
    """Tokens a second, memory, and seconds of evaluation, with their spread over its runs."""


def equal_examples(
    rows: Sequence[ConfigurationSummary],
    curves: Sequence[Curve],
    focus: Focus,
    weights: Weights,
) -> tuple[int, list[EqualExamples]]:
    """Rank configurations by their curves, cut at the examples that all of them have seen.

    Returns:
        That number of examples, and the ranking; 0 and nothing where curves are missing.
    """
    by_trial = {curve.trial_id: curve for curve in curves}
    usable = [row for row in rows if all(trial_id in by_trial for trial_id in row.trial_ids)]
    if len(usable) < 2:
        return 0, []
    budget = min(row.num_examples for row in usable)
    values = {
        row.rank: [_at(by_trial[t], budget, focus, weights) for t in row.trial_ids]
        for row in usable
    }
    ordered = sorted(usable, key=lambda row: -float(np.mean(values[row.rank])))
    return budget, [_equal(place, row, values[row.rank]) for place, row in enumerate(ordered, 1)]


def _equal(rank: int, row: ConfigurationSummary, values: Sequence[float]) -> EqualExamples:
    interval = t_interval(values) if len(values) > 1 else None
    return EqualExamples(
        rank=rank,
        label=row.label,
        objective=float(np.mean(values)),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        num_seeds=len(values),
    )


def _at(curve: Curve, budget: int, focus: Focus, weights: Weights) -> float:
    level: Mapping[str, float] = {
        task: float(np.interp(budget, curve.examples, values))
        for task, values in curve.accuracies.items()
    }
    gain = {task: level[task] - values[0] for task, values in curve.accuracies.items()}
    if focus is Focus.SPELLING:
        return gain["spelling"]
    if focus is Focus.TRANSFER:
        return (gain["position"] + gain["count"]) / 2
    return calculate_transfer_score(level["spelling"], level["position"], level["count"], *weights)


def costs_of(
    rows: Sequence[ConfigurationSummary], records: Mapping[str, TrialRecord]
) -> list[Cost]:
    """Return the cost of each configuration, most points for an example first.

    Args:
        rows: The configurations.
        records: Of their trials, by id.
    """
    found = []
    for row in rows:
        gain = (row.gains["position"].gain.value + row.gains["count"].gain.value) / 2
        minutes = row.train_seconds / 60 if row.train_seconds else None
        found.append(
            Cost(
                label=row.label,
                num_examples=row.num_examples,
                train_minutes=minutes,
                transfer_gain=gain,
                points_per_1000_examples=100 * gain / (row.num_examples / 1000),
                points_per_minute=100 * gain / minutes if minutes else None,
                resources=resources_of(records[trial_id] for trial_id in row.trial_ids),
            )
        )
    return sorted(found, key=lambda cost: -cost.points_per_1000_examples)
