"""What runs took of a machine: tokens trained a second, seconds, memory; and ratios of two samples.

Unlike results, these are of the machine and of what else it did at that time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tuning.records import TrialRecord
from tuning.statistics import welch_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What several runs took."""

    mean: float
    low: float
    """Of the smallest of them."""
    high: float
    """Of the largest."""
    values: tuple[float, ...]
    """Of each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What the runs of one configuration took; None where no run tells."""

    tokens_per_second: Spread | None
    """Tokens trained a second, with the time of evaluations on the way. Only of runs that trained
    all steps in one attempt, in a process that had trained before: of others the seconds are not
    those of the tokens."""
    evaluation_seconds: Spread | None
    """The rest of a trial: loading the model, and evaluating it; that of the untouched model is in
    it for the first run alone."""
    peak_memory_bytes: Spread | None
    """Largest resident size of the process, of runs that trained."""
    peak_gpu_memory_bytes: Spread | None
    """The most that tensors took on the GPU, of runs that trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """What one configuration takes, as a multiple of another: ratio of geometric means."""

    value: float
    low: float
    high: float
    is_interval: bool
    """Whether low and high are a 95 % t interval (Welch, of logarithms); of fewer than 3 runs on
    either side they are the smallest and the largest ratio of any two runs."""


def spread_of(values: Iterable[float]) -> Spread | None:
    """Return the spread of what runs took; those that took nothing were not measured."""
    known = tuple(float(value) for value in values if value > 0)
    if not known:
        return None
    return Spread(mean=float(np.mean(known)), low=min(known), high=max(known), values=known)


def resources_of(records: Iterable[TrialRecord]) -> Resources:
    """Return what the completed runs of one configuration took."""
    executions = [record.execution for record in records]
    trained = [e for e in executions if e.train_seconds > 0]
    return Resources(
        tokens_per_second=spread_of(
            e.num_trained_tokens / e.train_seconds
            for e in trained
            if e.num_attempts == 1 and not e.is_first_of_process
        ),
        evaluation_seconds=spread_of(e.evaluation_seconds for e in executions),
        peak_memory_bytes=spread_of(e.peak_memory_bytes for e in trained),
        peak_gpu_memory_bytes=spread_of(e.peak_gpu_memory_bytes for e in trained),
    )


def ratio_of(own: Spread | None, other: Spread | None) -> Ratio | None:
    """Return what one takes as a multiple of the other; None where either is not known."""
    if own is None or other is None:
        return None
    above, below = np.log(own.values), np.log(other.values)
    value = float(np.exp(above.mean() - below.mean()))
    if min(len(above), len(below)) < MIN_FOR_INTERVAL:
        return Ratio(
            value=value, low=own.low / other.high, high=own.high / other.low, is_interval=False
        )
    low, high = np.exp(welch_interval(above, below))
    return Ratio(value=value, low=float(low), high=float(high), is_interval=True)


MIN_FOR_INTERVAL = 3
"""Runs on either side from which on a ratio has an interval."""
