"""Laws of `tuning.statistics`, against printed tables, other libraries, and simulated truth."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from tuning.scoring import calculate_transfer_score
from tuning.statistics import (
    Interval,
    TooFewWordsError,
    benjamini_hochberg,
    clustered_difference_interval,
    clustered_interval,
    critical_correlation,
    holm,
    mcnemar_p_value,
    paired_gain,
    pearson,
    spearman,
    t_interval,
    wilson_interval,
)

# --- Wilson -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "items", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(
    right: int, items: int, low: float, high: float
) -> None:
    assert wilson_interval(right, items) == pytest.approx((low, high), abs=5.1e-5)


@given(data=st.data(), items=st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_wilson_agrees_with_scipy(data: st.DataObject, items: int) -> None:
    right = data.draw(st.integers(0, items))
    expected = stats.binomtest(right, items).proportion_ci(0.95, method="wilson")
    assert wilson_interval(right, items) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(data=st.data(), items=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_wilson_is_the_same_seen_from_the_errors(data: st.DataObject, items: int) -> None:
    right = data.draw(st.integers(0, items))
    low, high = wilson_interval(right, items)
    assert wilson_interval(items - right, items) == pytest.approx((1 - high, 1 - low))
    assert -1e-12 <= low <= right / items + 1e-12
    assert right / items - 1e-12 <= high <= 1 + 1e-12


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="at least 1 item, got 0"):
        wilson_interval(0, 0)
    with pytest.raises(ValueError, match="at least 2 words, got 0"):
        clustered_interval(np.array([]), [])


def test_wilson_of_none_or_all_right_ends_exactly_at_0_or_1() -> None:
    for items in (*range(1, 500), 1000, 1750, 3000):
        assert wilson_interval(0, items).low == 0
        assert wilson_interval(items, items).high == 1


# --- McNemar ----------------------------------------------------------------------------------


@given(better=st.integers(0, 24), worse=st.integers(0, 24))
def test_few_discordant_pairs_get_the_exact_test(better: int, worse: int) -> None:
    if not 1 <= better + worse < 25:
        return
    table = [[7, better], [worse, 11]]
    expected = stats.binomtest(better, better + worse, 0.5).pvalue
    assert mcnemar_p_value(better, worse) == pytest.approx(expected, rel=1e-9)
    assert expected == pytest.approx(min(1, mcnemar(table, exact=True).pvalue), rel=1e-9)


@given(better=st.integers(0, 400), worse=st.integers(0, 400))
def test_many_discordant_pairs_get_the_corrected_test(better: int, worse: int) -> None:
    if better + worse < 25:
        return
    table = [[7, better], [worse, 11]]
    expected = mcnemar(table, exact=False, correction=True).pvalue
    assert mcnemar_p_value(better, worse) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [
        (0, 0, 1.0),
        # Exact, by hand: 2 * (1 + 10) / 2**10, and 2 / 2**5.
        (9, 1, 22 / 1024),
        (0, 5, 2 / 32),
        # 24 pairs are still exact; 25 are not: (|20 - 5| - 1)**2 / 25 = 7.84 on 1 degree.
        (24, 0, 2 / 2**24),
        (20, 5, math.erfc(math.sqrt(7.84 / 2))),
    ],
)
def test_mcnemar_by_hand(better: int, worse: int, p: float) -> None:
    assert mcnemar_p_value(better, worse) == pytest.approx(p, rel=1e-9)
    assert mcnemar_p_value(worse, better) == pytest.approx(p, rel=1e-9)


# --- over seeds -------------------------------------------------------------------------------


@given(values=st.lists(st.floats(-1, 1), min_size=2, max_size=12))
@settings(max_examples=50, deadline=None)
def test_the_t_interval_agrees_with_scipy(values: list[float]) -> None:
    error = stats.sem(values)
    if error < 1e-12:
        return
    expected = stats.t.interval(0.95, len(values) - 1, np.mean(values), error)
    assert t_interval(values) == pytest.approx(expected, abs=1e-9)


def test_the_t_interval_by_a_printed_table() -> None:
    # Mean 2, standard deviation 1, t(2) = 4.303 and t(4) = 2.776.
    assert t_interval([1, 2, 3]) == pytest.approx(
        (2 - 4.303 / 3**0.5, 2 + 4.303 / 3**0.5), abs=1e-3
    )
    assert t_interval([0.4, 0.4, 0.5, 0.6, 0.6]) == pytest.approx(
        (0.5 - 2.776 * 0.1 / 5**0.5, 0.5 + 2.776 * 0.1 / 5**0.5), abs=1e-4
    )


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        t_interval([0.5])


# --- clusters ---------------------------------------------------------------------------------


def test_with_one_item_a_word_the_bootstrap_is_the_normal_interval() -> None:
    values = np.array([1.0] * 300 + [0.0] * 700)
    low, high = clustered_interval(values, [f"w{i}" for i in range(1000)])
    half = 1.959964 * math.sqrt(0.3 * 0.7 / 1000)
    assert low == pytest.approx(0.3 - half, abs=0.1 * half)
    assert high == pytest.approx(0.3 + half, abs=0.1 * half)


def test_asking_every_item_three_times_does_not_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    values = (rng.random(200) < 0.4).astype(float)
    words = np.arange(200)
    once = clustered_interval(values, words)
    thrice = clustered_interval(np.repeat(values, 3), np.repeat(words, 3))
    assert thrice == pytest.approx(once, abs=1e-12)
    as_if_independent = clustered_interval(np.repeat(values, 3), np.arange(600))
    naive, honest = (i.high - i.low for i in (as_if_independent, thrice))
    assert honest == pytest.approx(naive * math.sqrt(3), rel=0.1)


def test_words_of_many_items_weigh_by_their_items() -> None:
    # 50 words of one wrong item, 50 words of nine right ones: the mean over items is 0.9.
    values = np.array([0.0] * 50 + [1.0] * 450)
    words = np.array([*range(50), *np.repeat(np.arange(50, 100), 9)])
    low, high = clustered_interval(values, words)
    assert low < 0.9 < high
    assert 0.8 < low
    assert high < 0.95


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_items_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = rng.choice(["ant", "bee", "cat", "dog", "eel", "fox"], 30)
    values = (rng.random(30) < 0.5).astype(float)
    order = rng.permutation(30)
    expected = clustered_interval(values, words)
    assert clustered_interval(values[order], words[order]) == pytest.approx(expected)
    assert clustered_interval(values, words) == expected, "the same data, the same interval"
    assert expected.low <= values.mean() <= expected.high


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_agreement_of_all_items_is_not_certainty(value: float) -> None:
    # 30 words, three items each: as wide as 30 independent items, not 90.
    low, high = clustered_interval(np.full(90, value), np.repeat(np.arange(30), 3))
    assert (low, high) == pytest.approx(wilson_interval(30 * int(value), 30))
    assert high - low > 0.1


def test_one_word_is_not_certainty() -> None:
    with pytest.raises(TooFewWordsError, match="at least 2 words, got 1"):
        clustered_interval(np.array([1.0, 0.0, 1.0]), ["cat"] * 3)


# --- paired gains -----------------------------------------------------------------------------


def test_a_gain_by_hand() -> None:
    before = np.array([0, 0, 0, 1, 1, 1, 0, 0, 1, 0])
    after = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1])
    found = paired_gain(before, after, [f"w{i}" for i in range(10)])
    assert (found.num_better, found.num_worse) == (4, 1)
    assert found.gain == pytest.approx(0.3)
    assert found.p_value == pytest.approx(2 * (1 + 5) / 32)
    assert found.interval.low < 0.3 < found.interval.high
    assert not found.interval.excludes_zero()


def test_a_gain_agrees_with_the_normal_interval_of_paired_differences() -> None:
    # 1,000 words, 150 better and 50 worse: mean 0.1, variance 0.2 - 0.01.
    before = np.array([0] * 150 + [1] * 50 + [0] * 400 + [1] * 400)
    after = np.array([1] * 150 + [0] * 50 + [0] * 400 + [1] * 400)
    found = paired_gain(before, after, np.arange(1000))
    half = 1.959964 * math.sqrt(0.19 / 1000)
    assert found.interval == pytest.approx((0.1 - half, 0.1 + half), abs=0.1 * half)
    assert found.interval.excludes_zero()


def random_pairs(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    before, after = rng.random(60) < 0.4, rng.random(60) < 0.6
    return before.astype(float), after.astype(float), np.repeat(np.arange(20), 3)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_loss_is_a_gain_in_the_mirror(seed: int) -> None:
    before, after, words = random_pairs(np.random.default_rng(seed))
    there, back = paired_gain(before, after, words), paired_gain(after, before, words)
    assert back.gain == pytest.approx(-there.gain)
    assert back.interval == pytest.approx((-there.interval.high, -there.interval.low))
    assert (back.num_better, back.num_worse) == (there.num_worse, there.num_better)
    assert back.p_value == pytest.approx(there.p_value)


def test_all_worse_is_all_better_in_the_mirror() -> None:
    zeros, ones, words = np.zeros(5), np.ones(5), np.arange(5)
    better, worse = paired_gain(zeros, ones, words), paired_gain(ones, zeros, words)
    assert worse.interval == pytest.approx((-better.interval.high, -better.interval.low))
    assert worse.interval.high > worse.interval.low


@pytest.mark.parametrize("words", [3, 300, 400, 1000])
def test_no_change_is_never_a_gain(words: int) -> None:
    answers = np.tile([0.0, 1.0], words)[:words]
    found = paired_gain(answers, answers, np.arange(words))
    assert found.gain == 0
    assert not found.interval.excludes_zero()


def test_no_change_leaves_room_on_both_sides() -> None:
    answers = np.ones(50)
    low, high = paired_gain(answers, answers, np.arange(50)).interval
    assert low == pytest.approx(-high)
    assert low < 0 < high


def planted(
    rng: np.random.Generator, gain: float, num_words: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three items a word; words differ in skill s, uniform in [0, 1], so that items agree.

    Three answers in ten are given anew, right with chance s + k * (1 - s): the expected gain is
    0.3 * k * (1 - 1/2), so k = gain / 0.15.
    """
    words = np.repeat(np.arange(num_words), 3)
    skill = np.repeat(rng.random(num_words), 3)
    before = rng.random(len(words)) < skill
    lifted = rng.random(len(words)) < skill + gain / 0.15 * (1 - skill)
    after = np.where(rng.random(len(words)) < 0.3, lifted, before)
    return before, after, words


@pytest.mark.parametrize("gain", [0.0, 0.1])
def test_the_interval_covers_a_planted_gain(gain: float) -> None:
    rng = np.random.default_rng(3)
    found = [paired_gain(*planted(rng, gain, num_words=80)) for _ in range(200)]
    assert np.mean([f.gain for f in found]) == pytest.approx(gain, abs=0.01)
    covered = sum(f.interval.low <= gain <= f.interval.high for f in found)
    # 95 % of 200 is 190, give or take 3; the bootstrap of 80 words loses about 1 point.
    assert 178 <= covered <= 199
    alarms = sum(f.interval.excludes_zero() for f in found)
    assert alarms == 200 - covered if gain == 0 else alarms > 150


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False), (0.0, 0.1, False)],
)
def test_zero_is_excluded_only_when_it_lies_outside(
    low: float, high: float, excludes: bool
) -> None:
    assert Interval(low, high).excludes_zero() is excludes


# --- many tests at once -------------------------------------------------------------------------

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=25)


@given(P_VALUES)
@settings(max_examples=12, deadline=None)
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    expected = multipletests(p_values, 0.05, method="holm")[1]
    assert holm(p_values) == pytest.approx(list(expected))


@given(P_VALUES)
@settings(max_examples=12, deadline=None)
def test_benjamini_hochberg_is_that_of_statsmodels_and_scipy(p_values: list[float]) -> None:
    found = benjamini_hochberg(p_values)
    assert found == pytest.approx(list(multipletests(p_values, 0.05, method="fdr_bh")[1]))
    assert found == pytest.approx(list(stats.false_discovery_control(p_values, method="bh")))


def test_holm_by_hand() -> None:
    # Four tests: .01 * 4, .02 * 3, and .03 * 2 = .04 * 1 raised to what stands before them.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0], "no p is above 1"
    assert holm([]) == benjamini_hochberg([]) == []


def test_benjamini_hochberg_gives_the_published_example() -> None:
    """Benjamini and Hochberg (1995), 15 endpoints of thrombolysis: q .05 rejects four, Holm three."""
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p_values += [0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert sum(q <= 0.05 for q in benjamini_hochberg(p_values)) == 4
    assert sum(p <= 0.05 for p in holm(p_values)) == 3


@given(P_VALUES, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_adjusted_values_follow_their_own_whatever_the_order(
    p_values: list[float], rng: Any
) -> None:
    order = list(range(len(p_values)))
    rng.shuffle(order)
    for adjust in (holm, benjamini_hochberg):
        straight, shuffled = adjust(p_values), adjust([p_values[i] for i in order])
        assert shuffled == pytest.approx([straight[i] for i in order])
        assert all(p <= q + 1e-12 for p, q in zip(p_values, straight, strict=True))
        ranked = sorted(zip(p_values, straight, strict=True))
        assert all(a[1] <= b[1] for a, b in itertools.pairwise(ranked))
    both = zip(benjamini_hochberg(p_values), holm(p_values), strict=True)
    assert all(q <= p + 1e-12 for q, p in both), "a false discovery rate costs less than a family"


# --- correlations -------------------------------------------------------------------------------

PAIRS = st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=4, max_size=25).filter(
    lambda pairs: all(len(set(side)) > 1 for side in zip(*pairs, strict=True))
)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_correlations_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    a, b = ([float(x) for x in side] for side in zip(*pairs, strict=True))
    linear, ranks = pearson(a, b), spearman(a, b)
    wanted = stats.pearsonr(a, b)
    assert linear.value == pytest.approx(wanted.statistic)
    assert linear.p_value == pytest.approx(wanted.pvalue)
    assert ranks.value == pytest.approx(stats.spearmanr(a, b).statistic)
    assert ranks.value == pytest.approx(pearson(stats.rankdata(a), stats.rankdata(b)).value)
    for found in (linear, ranks):
        assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1
    if abs(linear.value) < 1 - 1e-9:
        half = 1.959963984540054 / math.sqrt(len(a) - 3)
        ends = np.tanh([math.atanh(linear.value) - half, math.atanh(linear.value) + half])
        assert linear.interval == pytest.approx(tuple(ends))


def test_spearman_by_hand() -> None:
    # Ranks 1..5 against 2, 1, 4, 3, 5: sum of squared differences 4, 1 - 6 * 4 / (5 * 24) = .8.
    found = spearman([10, 20, 30, 40, 50], [2, 1, 4, 3, 5])
    assert found.value == pytest.approx(0.8)
    # Bonett and Wright (2000): atanh(.8) = 1.0986; 1.96 * sqrt((1 + .32) / 2) = 1.5923.
    half = 1.959964 * math.sqrt((1 + 0.8**2 / 2) / 2)
    assert found.interval == pytest.approx(
        (math.tanh(1.0986123 - half), math.tanh(1.0986123 + half)), abs=1e-6
    )
    # t = .8 * sqrt(3 / (1 - .64)) = 2.3094 on 3 degrees of freedom.
    assert found.p_value == pytest.approx(2 * stats.t.sf(2.309401, 3), abs=1e-6)
    assert found.p_value == pytest.approx(0.104, abs=5e-4)


def test_pearson_gives_a_published_example() -> None:
    """Anscombe (1973): his four sets of 11 pairs all have r = .816, and look quite unlike."""
    x = [10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5]
    y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68]
    found = pearson(x, y)
    assert found.value == pytest.approx(0.816, abs=5e-4)
    assert found.p_value == pytest.approx(0.00217, abs=5e-6)
    assert found.interval == pytest.approx((0.424, 0.951), abs=1e-3)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("runs", [4, 5, 8, 30])
def test_a_perfect_order_in_a_sample_is_no_certainty(runs: int, sign: int) -> None:
    """One of `runs`! orders is perfect, and one the reverse: so often chance makes one of them."""
    a = np.arange(runs, dtype=float)
    found = spearman(list(a), list(sign * a**2))
    assert found.value == sign
    assert found.p_value == pytest.approx(2 / math.factorial(runs), rel=1e-6)
    near, far = sorted(found.interval, key=abs, reverse=True)
    assert near == sign
    # With two neighbours swapped it would be so much, which is the next smaller there is.
    swapped = 1 - 12 / (runs**3 - runs)
    half = 1.959963984540054 * math.sqrt((1 + swapped**2 / 2) / (runs - 3))
    assert far == pytest.approx(sign * math.tanh(math.atanh(swapped) - half))


@pytest.mark.parametrize("correlate", [pearson, spearman])
@pytest.mark.parametrize(
    ("a", "b"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4]), ([1, 2, 3, 4], [0] * 4)]
)
def test_what_does_not_vary_has_no_correlation(
    correlate: Any, a: list[float], b: list[float]
) -> None:
    with pytest.raises(ValueError, match="at least 4 pairs that vary on both sides"):
        correlate(a, b)


@pytest.mark.parametrize(
    ("runs", "r"), [(5, 0.88), (8, 0.71), (10, 0.63), (15, 0.51), (20, 0.44), (30, 0.36)]
)
def test_the_correlation_that_is_needed_is_that_of_the_printed_table(runs: int, r: float) -> None:
    assert round(critical_correlation(runs), 2) == r


@given(st.integers(4, 40), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_p_is_below_5_percent_just_above_the_critical_correlation(runs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=runs)
    b = a * rng.uniform(-1, 1) + rng.normal(size=runs) * rng.uniform(0.1, 1)
    for found in (pearson(a, b), spearman(a, b)):
        if abs(found.p_value - 0.05) > 1e-6 and abs(found.value) < 1:
            assert (found.p_value < 0.05) == (abs(found.value) > critical_correlation(runs))


# --- the bootstrap is scipy's -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["accuracy", "gain"])
def test_the_bootstrap_over_words_is_that_of_scipy(kind: str) -> None:
    rng = np.random.default_rng(8)
    skill_W = rng.random(150)
    before, after = (rng.random((150, 3)) < skill_W[:, None] for _ in range(2))
    values = (after if kind == "accuracy" else after.astype(float) - before).astype(float)
    ours = (clustered_interval if kind == "accuracy" else clustered_difference_interval)(
        values.ravel(), np.repeat(np.arange(150), 3)
    )
    # With equally many items a word, the mean over items is that over words.
    wanted = stats.bootstrap(
        (values.mean(axis=1),), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    width = wanted.high - wanted.low
    assert ours == pytest.approx((wanted.low, wanted.high), abs=0.06 * width)


# --- the score ----------------------------------------------------------------------------------


def test_the_transfer_score_of_the_specification() -> None:
    assert calculate_transfer_score(0.85, 0.75, 0.70) == pytest.approx(0.870, abs=1e-12)
