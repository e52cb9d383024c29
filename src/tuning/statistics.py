"""Intervals and tests. Paraphrases of one question are one observation: clusters are words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
BOOTSTRAP_REPEATS = 2000

# Shapes: N items, C clusters (words), R repeats.


class Interval(NamedTuple):
    """A 95 % interval."""

    low: float
    high: float

    def excludes_zero(self) -> bool:
        """Tell whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def wilson_interval(num_correct: int, num_items: int) -> Interval:
    """Return the Wilson score interval of a rate whose items are independent.

    Raises:
        ValueError: There are no items.
    """
    if num_items < 1:
        raise ValueError(f"an interval needs at least 1 item, got {num_items}")
    low, high = proportion_confint(num_correct, num_items, 1 - CONFIDENCE, method="wilson")
    return Interval(float(low), float(high))


def clustered_interval(values_N: np.ndarray, words_N: Sequence[str] | np.ndarray) -> Interval:
    """Return the interval of a mean whose items share words, by bootstrap over the words.

    Falls back to Wilson when all items agree, where resampling would claim certainty.

    Args:
        values_N: 0 or 1 for an accuracy, -1 to 1 for a paired difference. Shape (N,).
        words_N: The word of each item. Shape (N,).

    Raises:
        ValueError: There are no items.
    """
    if len(values_N) and np.all(values_N == values_N[0]) and values_N[0] in (0, 1):
        num_words = len(np.unique(np.asarray(words_N)))
        return wilson_interval(int(values_N[0]) * num_words, num_words)
    means_R = _bootstrap_means(values_N, words_N)
    low, high = np.quantile(means_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _bootstrap_means(values_N: np.ndarray, words_N: Sequence[str] | np.ndarray) -> np.ndarray:
    if len(values_N) == 0:
        raise ValueError("an interval needs at least 1 item, got 0")
    _, cluster_N = np.unique(np.asarray(words_N), return_inverse=True)
    sums_C = np.bincount(cluster_N, weights=values_N)
    sizes_C = np.bincount(cluster_N).astype(float)
    num_words = len(sums_C)
    # A fixed seed: the interval is a pure function of the data.
    draws_RC = np.random.default_rng(0).multinomial(
        num_words, np.full(num_words, 1 / num_words), BOOTSTRAP_REPEATS
    )
    means_R: np.ndarray = (draws_RC @ sums_C) / (draws_RC @ sizes_C)
    return means_R


class PairedGain(NamedTuple):
    """A change between two measurements of the same items."""

    gain: float
    """After minus before, as a rate."""
    interval: Interval
    num_better: int
    """Items wrong before and right after."""
    num_worse: int
    """Items right before and wrong after."""
    p_value: float
    """McNemar's test; it treats items as independent, so the interval is what counts."""


def paired_gain(
    before_N: np.ndarray, after_N: np.ndarray, words_N: Sequence[str] | np.ndarray
) -> PairedGain:
    """Compare two measurements of the same items.

    Args:
        before_N: Whether each item was right before. Shape (N,).
        after_N: Whether it is right after. Shape (N,).
        words_N: The word of each item. Shape (N,).

    Raises:
        ValueError: There are no items.
    """
    difference_N = after_N.astype(float) - before_N.astype(float)
    num_better, num_worse = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    return PairedGain(
        gain=float(difference_N.mean()),
        interval=clustered_interval(difference_N, words_N),
        num_better=num_better,
        num_worse=num_worse,
        p_value=mcnemar_p_value(num_better, num_worse),
    )


def mcnemar_p_value(num_better: int, num_worse: int) -> float:
    """Return McNemar's two-sided p: exact below 25 discordant pairs, else with correction."""
    discordant = num_better + num_worse
    if discordant == 0:
        return 1.0
    if discordant < 25:
        return float(stats.binomtest(num_better, discordant, 0.5).pvalue)
    statistic = (abs(num_better - num_worse) - 1) ** 2 / discordant
    return float(stats.chi2.sf(statistic, 1))


def t_interval(values: Sequence[float]) -> Interval:
    """Return the t interval of a mean over seeds, with S - 1 degrees of freedom.

    Raises:
        ValueError: Fewer than 2 values; their spread cannot be estimated.
    """
    if len(values) < 2:
        raise ValueError(f"a spread over seeds needs at least 2 seeds, got {len(values)}")
    return interval_from_spread(
        float(np.mean(values)), float(np.std(values, ddof=1)), len(values), len(values) - 1
    )


def interval_from_spread(mean: float, spread: float, num_runs: float, freedom: int) -> Interval:
    """Return a t interval from a spread that may have been estimated on other runs.

    Args:
        mean: Mean of the runs.
        spread: Standard deviation between runs that differ in the seed alone.
        num_runs: Runs that the mean is taken over; for a difference of two means the harmonic
            sum of both.
        freedom: Degrees of freedom of `spread`.
    """
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * spread / np.sqrt(num_runs))
    return Interval(mean - half, mean + half)


def detectable_gain(num_words: int, discordant_share: float) -> float:
    """Return the smallest gain found with 80 % power at level .05, as a rate.

    Normal approximation of McNemar's test over independent words:
    ``(1.960 + 0.842) * sqrt(discordant_share / num_words)``.
    """
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    return float(z * np.sqrt(discordant_share / num_words))
