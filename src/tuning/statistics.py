"""Intervals and tests. Paraphrases of one question are one observation: clusters are words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats
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
    # The ends are 0 and 1 exactly; rounding must not lift them over a limit.
    return Interval(
        0.0 if num_correct == 0 else float(low), 1.0 if num_correct == num_items else float(high)
    )


class TooFewWordsError(ValueError):
    """Fewer than 2 words: their spread cannot be estimated."""


def clustered_interval(values_N: np.ndarray, words_N: Sequence[str] | np.ndarray) -> Interval:
    """Return the interval of a mean of answers (0 or 1) that share words, by bootstrap over words.

    Falls back to Wilson over words when all items agree, where resampling would claim certainty.

    Args:
        values_N: 0 or 1. Shape (N,).
        words_N: The word of each item. Shape (N,).

    Raises:
        TooFewWordsError: Fewer than 2 words.
    """
    num_words = _num_words(words_N)
    if np.all(values_N == values_N[0]):
        return wilson_interval(int(values_N[0]) * num_words, num_words)
    return _bootstrap_interval(values_N, words_N)


def clustered_difference_interval(
    values_N: np.ndarray, words_N: Sequence[str] | np.ndarray
) -> Interval:
    """Return the interval of a mean of paired differences (-1, 0 or 1), by bootstrap over words.

    Where all items agree, the limits are those of Wilson: no change among n words is compatible
    with as many gains, or losses, as an event that was never seen among n.

    Raises:
        TooFewWordsError: Fewer than 2 words.
    """
    num_words = _num_words(words_N)
    if not np.all(values_N == values_N[0]):
        return _bootstrap_interval(values_N, words_N)
    if values_N[0] == 0:
        unseen = wilson_interval(0, num_words).high
        return Interval(-unseen, unseen)
    always = wilson_interval(num_words, num_words)
    return always if values_N[0] > 0 else Interval(-always.high, -always.low)


def _num_words(words_N: Sequence[str] | np.ndarray) -> int:
    num_words = len(np.unique(np.asarray(words_N)))
    if num_words < 2:
        raise TooFewWordsError(f"an interval needs items on at least 2 words, got {num_words}")
    return num_words


def _bootstrap_interval(values_N: np.ndarray, words_N: Sequence[str] | np.ndarray) -> Interval:
    means_R = _bootstrap_means(values_N, words_N)
    low, high = np.quantile(means_R, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(low), float(high))


def _bootstrap_means(values_N: np.ndarray, words_N: Sequence[str] | np.ndarray) -> np.ndarray:
    _, cluster_N = np.unique(np.asarray(words_N), return_inverse=True)
    sums_C = np.bincount(cluster_N, weights=values_N)
    sizes_C = np.bincount(cluster_N).astype(float)
    draws_RC = _word_draws(len(sums_C))
    means_R: np.ndarray = (draws_RC @ sums_C) / (draws_RC @ sizes_C)
    return means_R


@functools.lru_cache(maxsize=4)
def _word_draws(num_words: int) -> np.ndarray:
    """Return how often each word is drawn in each repeat, shape (R, C).

    The seed is fixed: an interval is a pure function of the data, and equal sizes share the draws.
    """
    shares = np.full(num_words, 1 / num_words)
    draws_RC = np.random.default_rng(0).multinomial(num_words, shares, BOOTSTRAP_REPEATS)
    return draws_RC.astype(np.float32)


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
        TooFewWordsError: Fewer than 2 words.
    """
    difference_N = after_N.astype(float) - before_N.astype(float)
    num_better, num_worse = int((difference_N > 0).sum()), int((difference_N < 0).sum())
    return PairedGain(
        gain=float(difference_N.mean()),
        interval=clustered_difference_interval(difference_N, words_N),
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
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * spread / np.sqrt(num_runs))
    return Interval(mean - half, mean + half)


def t_p_value(mean: float, spread: float, num_runs: float, freedom: int) -> float:
    """Return the two-sided p of a mean against 0; the arguments of `interval_from_spread`."""
    return float(2 * special.stdtr(freedom, -abs(mean) / (spread / np.sqrt(num_runs))))


def holm(p_values: Sequence[float]) -> list[bool]:
    """Return which of a family of tests reject at level .05 by Holm's method.

    statsmodels has it too, but collects garbage at each call: 20 to 40 ms.
    """
    rejected = [False] * len(p_values)
    for rank, i in enumerate(np.argsort(p_values)):
        if p_values[i] > (1 - CONFIDENCE) / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


def detectable_gain(num_words: int, discordant_share: float) -> float:
    """Return the smallest gain found with 80 % power at level .05, as a rate.

    Normal approximation of McNemar's test over independent words:
    ``(1.960 + 0.842) * sqrt(discordant_share / num_words)``.
    """
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    return float(z * np.sqrt(discordant_share / num_words))
