"""Intervals and tests. Paraphrases of one question are one observation: clusters are words."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
Z = 1.959963984540054
"""Normal quantile of a 95 % interval."""
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
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / np.sqrt(len(values))
    half = float(special.stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * error)
    return Interval(mean - half, mean + half)


def welch_interval(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Interval:
    """Return the t interval of the difference of two means, `a` less `b` (Welch 1947).

    Raises:
        ValueError: Fewer than 2 values on either side; their spread cannot be estimated.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a spread needs at least 2 values, got {len(a)} and {len(b)}")
    variances = [float(np.var(values, ddof=1)) / len(values) for values in (a, b)]
    apart = float(np.mean(a) - np.mean(b))
    if sum(variances) == 0:
        return Interval(apart, apart)
    below = sum(v**2 / (len(x) - 1) for v, x in zip(variances, (a, b), strict=True))
    freedom = sum(variances) ** 2 / below
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2) * np.sqrt(sum(variances)))
    return Interval(apart - half, apart + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for their number by Holm's method (1979).

    One below .05 rejects at a family-wise level of .05. statsmodels has it too, but collects
    garbage at each call: 20 to 40 ms.
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted to control the false discovery rate (Benjamini, Hochberg 1995).

    Of those below .05, at most 5 % are expected to be false.
    """
    adjusted, smallest = [1.0] * len(p_values), 1.0
    order = np.argsort(p_values, kind="stable")
    for rank, i in zip(range(len(p_values), 0, -1), order[::-1], strict=True):
        smallest = min(smallest, p_values[i] * len(p_values) / rank)
        adjusted[i] = smallest
    return adjusted


class Correlation(NamedTuple):
    """A correlation with its interval."""

    value: float
    interval: Interval
    p_value: float


def pearson(a: Sequence[float], b: Sequence[float]) -> Correlation:
    """Return Pearson's correlation with Fisher's interval.

    Raises:
        ValueError: Fewer than 4 pairs, or one side does not vary.
    """
    found = stats.pearsonr(*_varying(a, b))
    interval = found.confidence_interval(CONFIDENCE)
    return Correlation(
        float(found.statistic),
        Interval(float(interval.low), float(interval.high)),
        float(found.pvalue),
    )


def spearman(a: Sequence[float], b: Sequence[float]) -> Correlation:
    """Return Spearman's rank correlation.

    The interval is Fisher's with the standard error of Bonett and Wright (2000),
    ``sqrt((1 + r**2 / 2) / (n - 3))``. Of a perfect order it is that of the next smaller value, and
    the p is that of chance: both know no doubt otherwise.

    Raises:
        ValueError: Fewer than 4 pairs, or one side does not vary.
    """
    found = stats.spearmanr(*_varying(a, b))
    r, n = float(np.clip(found.statistic, -1, 1)), len(a)
    swapped = 1 - 12 / (n**3 - n)
    if 1 - abs(r) > 1e-9:
        return Correlation(r, _bonett_wright(r, n), float(found.pvalue))
    far = _bonett_wright(swapped, n).low
    interval = Interval(far, 1.0) if r > 0 else Interval(-1.0, -far)
    return Correlation(float(np.sign(r)), interval, 2 / float(special.factorial(n)))


def _bonett_wright(r: float, num_pairs: int) -> Interval:
    half = float(special.ndtri((1 + CONFIDENCE) / 2)) * np.sqrt((1 + r**2 / 2) / (num_pairs - 3))
    low, high = np.tanh([np.arctanh(r) - half, np.arctanh(r) + half])
    return Interval(float(low), float(high))


def _varying(a: Sequence[float], b: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(x) < 4 or np.ptp(x) == 0 or np.ptp(y) == 0:
        raise ValueError("a correlation needs at least 4 pairs that vary on both sides")
    return x, y


def critical_correlation(num_pairs: int) -> float:
    """Return the |r| that so many pairs need for p < .05, two-sided; .88 for 5, .36 for 30."""
    freedom = num_pairs - 2
    t = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
    return t / float(np.sqrt(freedom + t**2))
