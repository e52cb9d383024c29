"""Laws of `tuning.mixed_effects`: intervals over seeds and words, by formulas of other people."""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from statsmodels.regression.linear_model import OLS

from tuning.mixed_effects import (
    Basis,
    Estimate,
    Run,
    SeedSpread,
    difference,
    estimate,
    mean_of_items,
    mean_of_runs,
    spread_over_seeds,
    word_variance,
)
from tuning.statistics import wilson_interval

SEEDS = st.integers(0, 2**32 - 1)
Z = 1.959963984540054


def gains(
    rng: np.random.Generator,
    num_seeds: int = 1,
    num_words: int = 100,
    mean: float = 0.05,
    seed_deviation: float = 0.02,
    word_deviation: float = 0.05,
    word_seed_deviation: float = 0.05,
) -> np.ndarray:
    """Return gains of words whose expectation is normal around the mean, shape (S, C)."""
    seed_S = rng.normal(0, seed_deviation, (num_seeds, 1))
    word_C = rng.normal(0, word_deviation, num_words)
    return mean + seed_S + word_C + rng.normal(0, word_seed_deviation, (num_seeds, num_words))


def runs_of(gains_SC: np.ndarray) -> list[Run]:
    """Return one run a seed, one item a word."""
    num_words = gains_SC.shape[1]
    return [mean_of_items(gains_C, np.arange(num_words), num_words) for gains_C in gains_SC]


def close(a: Estimate, b: Estimate) -> None:
    for name in ("value", "low", "high", "p_value", "standard_error", "freedom", "detectable"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-6, abs=1e-9), name


# --- runs ---------------------------------------------------------------------------------------

ITEMS = hnp.arrays(float, st.integers(2, 60), elements=st.sampled_from([-1.0, 0.0, 1.0]))


@given(values=ITEMS, data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_words_bring_sums_to_nothing(values: np.ndarray, data: st.DataObject) -> None:
    words = data.draw(hnp.arrays(int, len(values), elements=st.integers(0, 9)))
    run = mean_of_items(values, words, 12)
    assert run.value == pytest.approx(values.mean())
    assert run.influence_C.sum() == pytest.approx(0, abs=1e-12)
    assert run.influence_C.shape == (12,)
    assert run.num_words == len(np.unique(words)), "words without an item are not counted"


@given(seed=SEEDS, factor=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_runs_add_and_scale_as_their_items_do(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    a_N, b_N, words_N = rng.normal(size=30), rng.normal(size=30), rng.integers(0, 10, 30)
    a, b = (mean_of_items(values, words_N, 10) for values in (a_N, b_N))
    for made, wanted in (
        (a + b, mean_of_items(a_N + b_N, words_N, 10)),
        (a - b, mean_of_items(a_N - b_N, words_N, 10)),
        (a * factor, mean_of_items(a_N * factor, words_N, 10)),
        (mean_of_runs([a, b]), mean_of_items((a_N + b_N) / 2, words_N, 10)),
    ):
        assert made.value == pytest.approx(wanted.value)
        assert made.influence_C == pytest.approx(wanted.influence_C)
        assert made.num_words == wanted.num_words


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_word_variance_is_the_clustered_one(seed: int) -> None:
    """Stata's and statsmodels' clustered variance of a mean, less the factor (N - 1) / (N - 1)."""
    rng = np.random.default_rng(seed)
    words_N = np.sort(np.concatenate([np.arange(20), rng.integers(0, 20, 40)]))
    values_N = (rng.random(60) < rng.random(20)[words_N]).astype(float)
    assume(np.ptp(values_N) > 0)
    fitted = OLS(values_N, np.ones(60)).fit(
        cov_type="cluster", cov_kwds={"groups": words_N, "use_correction": True}
    )
    run = mean_of_items(values_N, words_N, 20)
    assert word_variance(run) == pytest.approx(float(fitted.cov_params()[0, 0]))


def test_word_variance_of_the_style_guides_example() -> None:
    # style.md's clustered_stderr: deviations summed by word, squared, times C / (C - 1), over N.
    values_N, words_N = np.array([1.0, 1, 0, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    # Mean .5; word sums of deviations +.5 and -.5: sqrt(.5 * 2) / 6.
    assert word_variance(mean_of_items(values_N, words_N, 2)) == pytest.approx(1 / 36)


def test_words_that_did_not_change_are_words_too() -> None:
    """One better and one worse among 300 words: the mean is 0, and 298 words bring nothing."""
    changes = np.zeros(300)
    changes[:2] = 1, -1
    found = estimate(runs_of(changes[None]))
    assert found.freedom == 299
    half = stats.t.ppf(0.975, 299) * math.sqrt(2 / 299 / 300)
    assert found.interval == pytest.approx((-half, half))


def test_padding_and_sums_keep_the_number_of_words() -> None:
    few, many = Run(0.1, np.zeros(9), 4), Run(0.2, np.zeros(9), 7)
    assert Run(0.1, np.zeros(9)).num_words == 9
    assert {(few + many).num_words, (many - few).num_words, many.over(few).num_words} == {7}
    assert (few * 2).num_words == 4


@given(seed=SEEDS)
@settings(max_examples=5, deadline=None)
def test_the_ratio_of_two_has_the_width_of_a_bootstrap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    above_C, below_C = gains(rng, 2, 400, mean=0.3)
    above_C = 0.4 * above_C + 0.2 * below_C
    a, b = runs_of(np.stack([above_C, below_C]))
    ratio = a.over(b)
    assert ratio.value == pytest.approx(above_C.mean() / below_C.mean())
    assert ratio.influence_C.sum() == pytest.approx(0, abs=1e-9)
    drawn_RC = rng.integers(0, 400, (4000, 400))
    means = above_C[drawn_RC].mean(axis=1) / below_C[drawn_RC].mean(axis=1)
    assert math.sqrt(word_variance(ratio)) == pytest.approx(means.std(), rel=0.06)


# --- one configuration --------------------------------------------------------------------------


@given(seed=SEEDS, num_words=st.integers(3, 400))
@settings(max_examples=30, deadline=None)
def test_one_run_alone_has_the_t_interval_over_words(seed: int, num_words: int) -> None:
    gains_SC = gains(np.random.default_rng(seed), 1, num_words)
    found = estimate(runs_of(gains_SC))
    wanted = stats.ttest_1samp(gains_SC[0], 0)
    interval = wanted.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high))
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert found.freedom == pytest.approx(num_words - 1)
    assert (found.basis, found.num_seeds) == (Basis.WORDS, 1)


def anova(gains_SC: np.ndarray) -> tuple[float, float, float]:
    """Return mean squares of seeds, of words and of the rest: a two-way table without repeats."""
    num_seeds, num_words = gains_SC.shape
    mean = gains_SC.mean()
    of_seed, of_word = gains_SC.mean(axis=1, keepdims=True), gains_SC.mean(axis=0, keepdims=True)
    ms_seed = num_words * ((of_seed - mean) ** 2).sum() / (num_seeds - 1)
    ms_word = num_seeds * ((of_word - mean) ** 2).sum() / (num_words - 1)
    rest = ((gains_SC - of_seed - of_word + mean) ** 2).sum()
    return ms_seed, ms_word, rest / (num_seeds - 1) / (num_words - 1)


@given(seed=SEEDS, num_seeds=st.integers(2, 6), num_words=st.integers(5, 200))
@settings(max_examples=60, deadline=None)
def test_variances_are_those_of_the_two_way_anova(
    seed: int, num_seeds: int, num_words: int
) -> None:
    """Expected mean squares of Cornfield and Tukey (1956), written anew here."""
    gains_SC = gains(np.random.default_rng(seed), num_seeds, num_words)
    ms_seed, ms_word, ms_rest = anova(gains_SC)
    runs = runs_of(gains_SC)
    spread = spread_over_seeds([runs])
    assert spread is not None
    assert spread.variance == pytest.approx(ms_seed / num_words)
    assert spread.word_variance == pytest.approx(ms_rest / num_words)
    assert spread.freedom == num_seeds - 1
    own_variance = max(0.0, (ms_seed - ms_rest) / num_words)
    assert spread.own_variance == pytest.approx(own_variance, abs=1e-15)
    words = ms_word / num_words / num_seeds
    found = estimate(runs)
    assert found.standard_error == pytest.approx(math.sqrt(own_variance / num_seeds + words))
    squares = stats.t.ppf(0.975, num_seeds - 1) ** 2 * own_variance / num_seeds
    squares += stats.t.ppf(0.975, num_words - 1) ** 2 * words
    half = math.sqrt(squares)
    assert found.interval == pytest.approx((gains_SC.mean() - half, gains_SC.mean() + half))
    assert (found.basis, found.num_seeds) == (Basis.SEEDS, num_seeds)


def test_variances_of_a_table_computed_by_hand() -> None:
    # Two seeds, two words: means of seeds 1 and 3, of words 1.5 and 2.5, rest +-.5.
    spread = spread_over_seeds([runs_of(np.array([[0.0, 2.0], [3.0, 3.0]]))])
    assert spread is not None
    # Between seeds (1 - 2)**2 + (3 - 2)**2 = 2; rest 4 * .25 = 1, over 2 words.
    assert (spread.variance, spread.word_variance, spread.freedom) == pytest.approx((2, 0.5, 1))
    assert spread.own_variance == pytest.approx(1.5)
    assert spread.deviation == pytest.approx(math.sqrt(2))


@given(seed=SEEDS, borrowed=st.booleans(), num_seeds=st.integers(1, 5), mean=st.floats(-0.1, 0.1))
@settings(max_examples=80, deadline=None)
def test_p_is_below_5_percent_just_where_the_interval_excludes_0(
    seed: int, borrowed: bool, num_seeds: int, mean: float
) -> None:
    rng = np.random.default_rng(seed)
    runs = runs_of(gains(rng, num_seeds, 60, mean))
    others = runs_of(gains(rng, 3, 60, 0.0))
    spread = spread_over_seeds([others]) if borrowed else None
    found = [estimate(runs, spread), difference(runs, others, spread)]
    for one in found:
        assume(abs(one.p_value - 0.05) > 1e-6)
        assert (one.p_value < 0.05) == one.interval.excludes_zero() == (one.direction != 0)
        assert 0 <= one.p_value <= 1
        assert one.low <= one.value <= one.high
        assert one.detectable > one.value - one.low - 1e-12, "an effect as large as its half width"


@given(seed=SEEDS, num_seeds=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_order_of_seeds_and_words_does_not_matter(seed: int, num_seeds: int) -> None:
    rng = np.random.default_rng(seed)
    gains_SC = gains(rng, num_seeds, 50)
    shuffled_SC = gains_SC[rng.permutation(num_seeds)][:, rng.permutation(50)]
    close(estimate(runs_of(gains_SC)), estimate(runs_of(shuffled_SC)))


@given(seed=SEEDS, factor=st.floats(0.01, 50), sign=st.sampled_from([-1, 1]))
@settings(max_examples=30, deadline=None)
def test_units_do_not_matter(seed: int, factor: float, sign: int) -> None:
    gains_SC = gains(np.random.default_rng(seed), 3, 50)
    points, rates = estimate(runs_of(sign * factor * gains_SC)), estimate(runs_of(gains_SC))
    assert points.p_value == pytest.approx(rates.p_value, rel=1e-6, abs=1e-12)
    assert points.freedom == pytest.approx(rates.freedom)
    assert points.detectable == pytest.approx(factor * rates.detectable)
    ends = sorted((sign * factor * rates.low, sign * factor * rates.high))
    assert points.interval == pytest.approx(tuple(ends))


def test_identical_seeds_leave_the_interval_of_the_words() -> None:
    (run,) = runs_of(gains(np.random.default_rng(0), 1, 80))
    once, thrice = estimate([run]), estimate([run] * 3)
    assert thrice.interval == pytest.approx(once.interval)
    assert thrice.basis is Basis.SEEDS


@pytest.mark.parametrize("num_seeds", [1, 3])
@pytest.mark.parametrize("change", [0.0, 1.0, -1.0])
def test_no_variance_is_not_certainty(change: float, num_seeds: int) -> None:
    found = estimate(runs_of(np.full((num_seeds, 40), change)))
    unseen = wilson_interval(0, 40).high
    assert found.interval == pytest.approx((change - unseen, change + unseen))
    assert found.direction == np.sign(change)
    assert (found.p_value < 0.05) == (change != 0)
    assert found.detectable > unseen
    assert 0 < found.standard_error < unseen


@given(words=st.integers(2, 500), share=st.sampled_from([1 / 3, 2 / 3, -1 / 3]))
def test_words_that_all_changed_by_a_third_are_no_certainty_either(
    words: int, share: float
) -> None:
    items = np.tile([math.copysign(k < round(3 * abs(share)), share) for k in range(3)], words)
    found = estimate([mean_of_items(items, np.repeat(np.arange(words), 3), words)])
    assert found.value == pytest.approx(share)
    assert found.high - found.low == pytest.approx(2 * wilson_interval(0, words).high)
    assert (found.p_value < 0.05) == (found.direction != 0)


def test_the_spread_is_pooled_over_groups_by_their_freedom() -> None:
    rng = np.random.default_rng(4)
    groups = [runs_of(gains(rng, n, 30)) for n in (2, 1, 4)]
    pooled = spread_over_seeds(groups)
    two, four = (spread_over_seeds([groups[i]]) for i in (0, 2))
    assert pooled is not None
    assert two is not None
    assert four is not None
    assert pooled.freedom == 1 + 3
    assert pooled.variance == pytest.approx((two.variance + 3 * four.variance) / 4)
    assert pooled.word_variance == pytest.approx((two.word_variance + 3 * four.word_variance) / 4)
    assert spread_over_seeds([groups[1]]) is None
    assert spread_over_seeds([]) is None


def test_one_seed_borrows_the_whole_spread() -> None:
    rng = np.random.default_rng(2)
    default, (single,) = runs_of(gains(rng, 3, 80)), runs_of(gains(rng, 1, 80))
    spread = spread_over_seeds([default])
    assert spread is not None
    found = estimate([single], spread)
    assert found.basis is Basis.BORROWED
    words = word_variance(single) - spread.word_variance
    squares = stats.t.ppf(0.975, 2) ** 2 * spread.variance + stats.t.ppf(0.975, 79) ** 2 * words
    assert found.high - found.value == pytest.approx(math.sqrt(squares))
    close(estimate(default, spread), estimate(default))


# --- what can be found --------------------------------------------------------------------------


def test_more_words_and_more_seeds_find_smaller_effects() -> None:
    def median(num_seeds: int, num_words: int) -> float:
        rng = np.random.default_rng([num_seeds, num_words])
        found = [
            estimate(runs_of(gains(rng, num_seeds, num_words, seed_deviation=0.005))).detectable
            for _ in range(60)
        ]
        return float(np.median(found))

    by_words = [median(3, words) for words in (20, 60, 200)]
    by_seeds = [median(seeds, 60) for seeds in (2, 3, 6)]
    assert by_words == sorted(by_words, reverse=True)
    assert by_seeds == sorted(by_seeds, reverse=True)


@pytest.mark.parametrize("num_words", [30, 150, 1000])
def test_the_detectable_effect_of_one_run_has_80_percent_power(num_words: int) -> None:
    """By the noncentral t distribution, as in any textbook of power."""
    found = estimate(runs_of(gains(np.random.default_rng(0), 1, num_words)))
    away, freedom = found.detectable / found.standard_error, num_words - 1
    critical = stats.t.ppf(0.975, freedom)
    assert 1 - stats.nct.cdf(critical, freedom, away) == pytest.approx(0.8, abs=0.002)


# --- two configurations -------------------------------------------------------------------------


@given(seed=SEEDS, sizes=st.tuples(st.integers(2, 5), st.integers(2, 5)))
@settings(max_examples=30, deadline=None)
def test_where_words_add_nothing_a_difference_is_students_t_test(
    seed: int, sizes: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    word_C = rng.normal(0, 0.1, 40)
    a_SC, b_SC = (rng.normal(0, 0.02, (n, 1)) + word_C for n in sizes)
    a, b = runs_of(a_SC), runs_of(b_SC)
    found = difference(a, b, spread_over_seeds([a, b]))
    wanted = stats.ttest_ind(a_SC.mean(axis=1), b_SC.mean(axis=1))
    interval = wanted.confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-6)
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-5, abs=1e-9)
    assert found.freedom == pytest.approx(sum(sizes) - 2, rel=1e-4)


@given(seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_a_difference_is_the_other_way_round_in_the_mirror(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = runs_of(gains(rng, 2, 40)), runs_of(gains(rng, 3, 40))
    spread = spread_over_seeds([a, b])
    there, back = difference(a, b, spread), difference(b, a, spread)
    assert there.interval == pytest.approx((-back.high, -back.low))
    assert there.p_value == pytest.approx(back.p_value)


def test_words_that_both_answer_alike_cancel() -> None:
    rng = np.random.default_rng(1)
    quiet = {"seed_deviation": 0.0, "word_seed_deviation": 0.0, "word_deviation": 0.3}
    base_SC = gains(rng, 1, 40, **quiet)
    a, b = (runs_of(base_SC + rng.normal(0, 0.01, base_SC.shape)) for _ in range(2))
    found = difference(a, b, None)
    assert found.high - found.low < 0.2 * (estimate(a).high - estimate(a).low)
    assert found.basis is Basis.WORDS


def test_nothing_between_two_configurations_is_not_certainty() -> None:
    runs = runs_of(gains(np.random.default_rng(0), 1, 40))
    found = difference(runs, runs, None)
    assert (found.value, found.p_value) == (0, 1)
    assert found.interval == pytest.approx(
        (-wilson_interval(0, 40).high, wilson_interval(0, 40).high)
    )


def test_a_difference_with_a_single_run_says_that_it_borrows() -> None:
    rng = np.random.default_rng(3)
    a, b = runs_of(gains(rng, 3, 40)), runs_of(gains(rng, 1, 40))
    found = difference(a, b, spread_over_seeds([a, b]))
    assert (found.basis, found.num_seeds) == (Basis.BORROWED, 1)
    spread = SeedSpread(0.04**2, 0.0, 2)
    half = stats.t.ppf(0.975, 2) * 0.04 * math.sqrt(1 / 3 + 1)
    flat = Run(0.0, np.zeros(40))
    alone = difference([flat] * 3, [flat], spread)
    assert alone.interval == pytest.approx((-half, half), rel=1e-6)


# --- calibration, in short ----------------------------------------------------------------------
# `benchmarks/calibration.py` in full; here few repeats with a fixed seed. A band is the promised
# one, widened by twice the standard error of a share over so many repeats.

REPEATS = 300


@functools.cache
def calibration() -> Any:
    path = Path(__file__).parents[1] / "benchmarks" / "calibration.py"
    specification = importlib.util.spec_from_file_location("calibration", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["calibration"] = module
    specification.loader.exec_module(module)
    return module


def slack(share: float, repeats: int = REPEATS) -> float:
    return 2 * math.sqrt(share * (1 - share) / repeats)


@pytest.mark.parametrize(("num_seeds", "borrowed"), [(3, 0), (5, 0), (1, 3), (1, 5)])
@pytest.mark.parametrize("deviation", [0.005, 0.015])
def test_intervals_cover_the_truth_as_often_as_they_promise(
    deviation: float, num_seeds: int, borrowed: int
) -> None:
    bench = calibration()
    world = bench.World(num_words=300, seed_deviation=deviation)
    found = [
        bench.gain_results(world, effect, num_seeds, REPEATS, 11, borrowed)
        for effect in (0.0, 0.05, -0.05)
    ]
    coverages = [one.coverage for one in found]
    assert 0.93 - slack(0.93) <= min(coverages) <= max(coverages) <= 0.97 + slack(0.97)
    assert 0.03 - slack(0.03) <= found[0].rejected <= 0.07 + slack(0.07)


def test_an_effect_of_the_stated_size_is_found_with_the_stated_power() -> None:
    bench = calibration()
    for num_seeds in (3, 5):
        found = bench.power_result(bench.World(num_words=300), num_seeds, REPEATS, 11)
        assert 0.75 - slack(0.8) <= found.power <= 0.9 + slack(0.8), num_seeds


@pytest.mark.parametrize(("default_seeds", "seeds"), [(3, 1), (5, 1), (3, 3)])
def test_a_search_without_a_winner_has_none(default_seeds: int, seeds: int) -> None:
    bench = calibration()
    repeats = 200
    found = bench.search_result(bench.World(num_words=100), 12, default_seeds, seeds, repeats, 5)
    assert found.false_winner <= 0.05 + slack(0.05, repeats)
    assert found.best_in_ties >= 0.95 - slack(0.05, repeats)
    # What most searches do: one seed each, and the largest wins.
    assert found.peer_false_winner > 0.8
    assert found.peer_optimism > 0.01


def test_a_true_winner_is_found_and_stays_in_the_set() -> None:
    bench = calibration()
    found = bench.search_result(bench.World(), 8, 3, 3, 150, 5, advantage=0.08)
    assert found.found > 0.8
    assert found.best_in_ties >= 0.95 - slack(0.05, 150)
    assert found.false_winner <= 0.05 + slack(0.05, 150)


def test_a_t_interval_over_seeds_alone_is_not_better_than_ours() -> None:
    """The plain peer: it knows 3 numbers, so it is wider than the interval of seeds and words."""
    bench = calibration()
    rng, widths = np.random.default_rng(0), []
    world = bench.World(num_words=300, seed_deviation=0.005)
    for _ in range(150):
        runs, _ = bench._study(world, rng, 0.0, 3, 0)
        values: Sequence[float] = [run.value for run in runs]
        half = stats.t.ppf(0.975, 2) * stats.sem(values)
        found = estimate(runs)
        widths.append((2 * half, found.high - found.low))
    plain, ours = np.mean(widths, axis=0)
    assert ours < plain
