"""Intervals for what is measured with several seeds on the same words.

Two things are samples: the seeds of a training and the words it is asked about. A run is an
estimate together with what each word adds to it, so gains, scores and differences of both have one
kind of interval. Its variance is that of the two-way random-effects model of multi-reader studies
(Obuchowski and Rockette 1995), seeds in the place of readers, words in the place of cases: what
seeds bring in beyond their answers to single words, plus what words bring in. Each part has the
quantile of its own degrees of freedom, and the half widths add in quadrature (the modified
large-sample method of Graybill and Wang 1980). `benchmarks/calibration.py` measures the coverage; a
bootstrap of 3 seeds covers 80 to 83 % instead of 95.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from scipy import optimize, special

from tuning.statistics import CONFIDENCE, Interval, wilson_interval

# Shapes: N items, C clusters (words), S runs that differ in the seed alone.


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One run's estimate of a quantity, and what each word adds to it."""

    value: float
    influence_C: np.ndarray
    """By how much the value would move without sampling noise of that word; sums to 0. The
    variance over words is ``C / (C - 1) * sum(influence ** 2)``. Shape (C,)."""
    num_words: int = 0
    """Words that it rests on: one that brings nothing is one of them, one without items is none.
    All if not given."""

    def __post_init__(self) -> None:
        if not self.num_words:
            object.__setattr__(self, "num_words", len(self.influence_C))

    def __add__(self, other: Run) -> Run:
        return self._with(self.value + other.value, self.influence_C + other.influence_C, other)

    def __sub__(self, other: Run) -> Run:
        return self + other * -1

    def __mul__(self, factor: float) -> Run:
        return self._with(self.value * factor, self.influence_C * factor)

    def over(self, other: Run) -> Run:
        """Return the ratio of two, by the delta method."""
        ratio = self.value / other.value
        influence_C = (self.influence_C - ratio * other.influence_C) / other.value
        return self._with(ratio, influence_C, other)

    def _with(self, value: float, influence_C: np.ndarray, other: Run | None = None) -> Run:
        return Run(value, influence_C, max(self.num_words, other.num_words if other else 0))


def mean_of_items(values_N: np.ndarray, words_N: np.ndarray, num_words: int) -> Run:
    """Return the mean of items that share words.

    Args:
        values_N: Shape (N,).
        words_N: Index of each item's word, below `num_words`. Shape (N,).
        num_words: Words of the whole suite; some may have no item here.
    """
    sizes_C = np.bincount(words_N, minlength=num_words)
    sums_C = np.bincount(words_N, weights=values_N, minlength=num_words)
    mean = float(values_N.mean())
    used = int(np.count_nonzero(sizes_C))
    return Run(mean, (sums_C - mean * sizes_C) / len(values_N), used)


def mean_of_runs(runs: Sequence[Run]) -> Run:
    """Return the mean over seeds."""
    total = functools.reduce(operator.add, runs)
    return Run(total.value / len(runs), total.influence_C / len(runs), total.num_words)


def word_variance(run: Run) -> float:
    """Return the variance that the choice of words gives to a value."""
    used = max(2, run.num_words)
    return float(used / (used - 1) * (run.influence_C**2).sum())


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """What runs that differ in the seed alone differ by."""

    variance: float
    """Between the values of single runs."""
    word_variance: float
    """Part of it that single words bring in, and that more words would take away."""
    freedom: int
    """Degrees of freedom of both."""

    @property
    def own_variance(self) -> float:
        """What is left for the seeds themselves when that part is taken away."""
        return max(0.0, self.variance - self.word_variance)

    @property
    def deviation(self) -> float:
        """Standard deviation between single runs."""
        return float(np.sqrt(self.variance))


def spread_over_seeds(groups: Sequence[Sequence[Run]]) -> SeedSpread | None:
    """Pool the spread within groups of runs that differ in the seed alone.

    Args:
        groups: Runs of one configuration each; those of one run say nothing and are left out.

    Returns:
        The spread, or None if nothing was repeated.
    """
    repeated = [runs for runs in groups if len(runs) > 1]
    freedom = sum(len(runs) - 1 for runs in repeated)
    if freedom == 0:
        return None
    between = words = 0.0
    for runs in repeated:
        mean = mean_of_runs(runs)
        between += sum((run.value - mean.value) ** 2 for run in runs)
        words += sum(word_variance(run - mean) for run in runs)
    return SeedSpread(between / freedom, words / freedom, freedom)


class Basis(StrEnum):
    """What an interval is taken over."""

    SEEDS = "seeds and words"
    BORROWED = "words, and the spread of the repeated runs"
    WORDS = "words alone: of this adapter, not of this configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quantity with its 95 % interval."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, against 0."""
    standard_error: float
    freedom: float
    """Degrees of freedom at which one t interval would be as wide."""
    detectable: float
    """Smallest true value that is found with 80 % power with as many seeds and words."""
    basis: Basis
    num_seeds: int

    @property
    def interval(self) -> Interval:
        """The 95 % interval."""
        return Interval(self.low, self.high)

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies above or below 0, else 0."""
        return 1 if self.low > 0 else (-1 if self.high < 0 else 0)


def estimate(runs: Sequence[Run], borrowed: SeedSpread | None = None) -> Estimate:
    """Return the mean over seeds with its interval over seeds and words.

    Args:
        runs: Of one configuration.
        borrowed: Spread of other, repeated configurations, for a configuration with one run.
    """
    own = spread_over_seeds([runs])
    basis = Basis.SEEDS if own else Basis.BORROWED if borrowed else Basis.WORDS
    mean, spread = mean_of_runs(runs), own or borrowed
    words, num_words = word_variance(mean), _num_words(mean)
    if words + (spread.variance if spread else 0.0) < _NOTHING:
        return _estimate_of_constant(mean, basis, len(runs))
    if spread is None:
        return _Parts(0.0, 1, words, num_words - 1).estimate(mean.value, basis, len(runs))
    share = 1 / len(runs)
    # The spread taken whole errs on the wide side, which suits what is borrowed or promised: its
    # own part is often cut at 0.
    rest = max(0.0, words - share * spread.word_variance)
    whole = _Parts(share * spread.variance, spread.freedom, rest, num_words - 1)
    own_part = _Parts(share * spread.own_variance, spread.freedom, words, num_words - 1)
    found = (own_part if own else whole).estimate(mean.value, basis, len(runs))
    return dataclasses.replace(found, detectable=whole.detectable())


def difference(
    a: Sequence[Run], b: Sequence[Run], spread: SeedSpread | None, factor: float = 1.0
) -> Estimate:
    """Return how much configuration `a` is above `factor` times `b` on the same words.

    Words matter as far as the two answer them unlike more than seeds do. Here many comparisons
    share one spread and are judged far out in the tails, so the spread is taken whole: where
    nothing else differs this is the plain t test.

    Args:
        a: Runs of one configuration.
        b: Runs of the other.
        spread: Of all repeated configurations; None leaves the interval over words alone.
        factor: By which `b` is multiplied.
    """
    apart = mean_of_runs(a) - mean_of_runs(b) * factor
    words, num_words = word_variance(apart), _num_words(apart)
    is_single = 1 in (len(a), len(b))
    num_seeds = min(len(a), len(b))
    share = 1 / len(a) + factor**2 / len(b)
    if words + (share * spread.variance if spread else 0.0) < _NOTHING:
        return _estimate_of_constant(apart, Basis.SEEDS if spread else Basis.WORDS, num_seeds)
    if spread is None:
        return _Parts(0.0, 1, words, num_words - 1).estimate(apart.value, Basis.WORDS, num_seeds)
    words = max(0.0, words - share * spread.word_variance)
    parts = _Parts(share * spread.variance, spread.freedom, words, num_words - 1)
    return parts.estimate(apart.value, Basis.BORROWED if is_single else Basis.SEEDS, num_seeds)


_NOTHING = 1e-20
"""Smaller variances are rounding."""


def _estimate_of_constant(mean: Run, basis: Basis, num_seeds: int) -> Estimate:
    """Return the estimate of what is the same for every word and seed, which is not certainty.

    No change among n words is compatible with as many gains, or losses, as an event that was never
    seen among n; ends are those of Wilson, as is the p at which they touch 0.
    """
    num_words, size = _num_words(mean), abs(mean.value)
    z, z_power = special.ndtri([(1 + CONFIDENCE) / 2, POWER])
    half = wilson_interval(0, num_words).high
    touching = np.sqrt(num_words * size / (1 - size)) if size < 1 else np.inf
    detectable = (z + z_power) ** 2 / (num_words + (z + z_power) ** 2)
    return Estimate(
        value=mean.value,
        low=mean.value - half,
        high=mean.value + half,
        p_value=float(2 * special.ndtr(-touching)),
        standard_error=half / z,
        freedom=float(num_words - 1),
        detectable=float(detectable),
        basis=basis,
        num_seeds=num_seeds,
    )


def independent_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return how much one estimate is above another that shares nothing with it (Welch 1947)."""
    variances = [found.standard_error**2 for found in (a, b)]
    below = sum(v**2 / found.freedom for v, found in zip(variances, (a, b), strict=True))
    freedom = sum(variances) ** 2 / below if below > 0 else min(a.freedom, b.freedom)
    basis = max(a.basis, b.basis, key=list(Basis).index)
    parts = _Parts(0.0, 1, sum(variances), freedom)
    return parts.estimate(a.value - b.value, basis, min(a.num_seeds, b.num_seeds))


def _num_words(mean: Run) -> int:
    return max(2, mean.num_words)


@dataclass(frozen=True, slots=True)
class _Parts:
    """The two parts of a variance, each with its degrees of freedom."""

    seeds: float
    seed_freedom: float
    words: float
    word_freedom: float

    def half(self, p_value: float) -> float:
        """Return the half width of an interval that leaves out `p_value`."""
        quantile = 1 - p_value / 2
        squares = 0.0
        for variance, freedom in (
            (self.seeds, self.seed_freedom),
            (self.words, self.word_freedom),
        ):
            if variance > 0:
                squares += float(special.stdtrit(freedom, quantile)) ** 2 * variance
        return float(np.sqrt(squares))

    def p_value(self, value: float) -> float:
        """Return the p at which the interval just touches 0."""
        if self.seeds + self.words == 0:
            return 1.0 if value == 0 else 0.0
        if self.seeds == 0:
            return float(2 * special.stdtr(self.word_freedom, -abs(value) / self.error))
        if value == 0:
            return 1.0
        smallest = 1e-12
        if self.half(smallest) < abs(value):
            return smallest
        found = optimize.brentq(
            lambda log: self.half(float(np.exp(log))) - abs(value), np.log(smallest), 0.0
        )
        return float(np.exp(found))

    @property
    def error(self) -> float:
        """Standard error."""
        return float(np.sqrt(self.seeds + self.words))

    def estimate(self, value: float, basis: Basis, num_seeds: int) -> Estimate:
        """Return a value with its interval."""
        half = self.half(1 - CONFIDENCE)
        return Estimate(
            value=value,
            low=value - half,
            high=value + half,
            p_value=self.p_value(value),
            standard_error=self.error,
            freedom=self.freedom,
            detectable=self.detectable(),
            basis=basis,
            num_seeds=num_seeds,
        )

    @property
    def freedom(self) -> float:
        """Degrees of freedom at which one t interval would be as wide."""
        if self.seeds == 0:
            return float(self.word_freedom)
        found = float(
            special.stdtridf((1 + CONFIDENCE) / 2, self.half(1 - CONFIDENCE) / self.error)
        )
        return float(min(max(found, self.seed_freedom), self.word_freedom))

    def detectable(self) -> float:
        """Return the smallest effect that is found with 80 % power at level .05, two-sided.

        The effect at which a noncentral t exceeds its critical value with probability .8. A
        variance from few seeds is below the truth more often than above it, so more would be
        promised than is found: its median is put right first.
        """
        typical = float(special.chdtri(self.seed_freedom, 0.5)) / self.seed_freedom
        parts = _Parts(self.seeds / typical, self.seed_freedom, self.words, self.word_freedom)
        freedom = parts.freedom
        critical = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
        if freedom > 200:
            return (critical + float(special.ndtri(POWER))) * parts.error
        return float(special.nctdtrinc(freedom, 1 - POWER, critical)) * parts.error


POWER = 0.8
