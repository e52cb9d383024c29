"""Laws of `tuning.ranking`: order by the mean, and no verdict that seeds alone could have made."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuning.mixed_effects import Basis, Run, SeedSpread, spread_over_seeds
from tuning.ranking import LEVEL, Compared, Contender, compare_with, rank, short

NUM_WORDS = 60


def contender(objectives: list[float], **parameters: object) -> Contender:
    ids = [f"{i}-{parameters}" for i in range(len(objectives))]
    return Contender(parameters=parameters, trial_ids=ids, objectives=objectives)


def runs(values: Sequence[float]) -> list[Run]:
    """Return runs that differ in the seed alone: all answer the words alike."""
    return [Run(value, np.zeros(NUM_WORDS)) for value in values]


def compared(default: Sequence[float], *others: Sequence[float]) -> list[Compared]:
    groups = [runs(default), *map(runs, others)]
    return compare_with(groups[0], groups[1:], spread_over_seeds(groups))


# --- order --------------------------------------------------------------------------------------

OBJECTIVES = st.lists(st.floats(-1, 2), min_size=1, max_size=4)


@given(default=OBJECTIVES, others=st.lists(OBJECTIVES, max_size=6))
def test_everyone_is_ranked_once_and_the_default_is_always_there(
    default: list[float], others: list[list[float]]
) -> None:
    contenders = [contender(o, lora_r=i) for i, o in enumerate(others)]
    contenders.insert(len(others) // 2, contender(default))
    ranked = rank(contenders)
    assert [r.rank for r in ranked] == list(range(1, len(others) + 2))
    means = [r.contender.mean for r in ranked]
    assert means == sorted(means, reverse=True)
    assert {id(r.contender) for r in ranked} == {id(c) for c in contenders}
    assert sum(r.contender.is_default for r in ranked) == 1


@given(default=st.lists(st.floats(-1, 2), min_size=2, max_size=4), others=st.lists(OBJECTIVES))
def test_the_order_of_the_contenders_does_not_matter(
    default: list[float], others: list[list[float]]
) -> None:
    contenders = [contender(default)] + [contender(o, lora_r=i) for i, o in enumerate(others)]
    assert rank(contenders) == rank(contenders[::-1])


def test_equal_means_put_the_default_first() -> None:
    ranked = rank([contender([0.5], a=1), contender([0.5, 0.5]), contender([0.5], b=1)])
    assert [r.contender.label for r in ranked] == ["default", "a=1", "b=1"]


def test_labels_are_what_a_person_would_write() -> None:
    assert contender([1.0]).label == "default"
    assert contender([1.0], learning_rate=2e-4, lora_r=8).label == "learning_rate=0.0002, lora_r=8"
    assert short(["q_proj", "v_proj"]) == "q_proj+v_proj"
    assert short(True) == "True"


# --- against a reference ------------------------------------------------------------------------


def test_a_comparison_is_students_over_the_pooled_spread() -> None:
    # Standard deviation 1 on 2 degrees of freedom; a mean of 3 and one run: sqrt(1/3 + 1).
    (found,) = compared([1.0, 2.0, 3.0], [7.0])
    half = stats.t.ppf(0.975, 2) * (1 / 3 + 1) ** 0.5
    assert found.difference.value == pytest.approx(5)
    assert found.difference.interval == pytest.approx((5 - half, 5 + half), rel=1e-6)
    assert found.difference.basis is Basis.BORROWED
    wanted = 2 * stats.t.sf(5 / (1 / 3 + 1) ** 0.5, 2)
    assert found.p_adjusted == pytest.approx(wanted, rel=1e-6), "one test has no correction"


@pytest.mark.parametrize(("excess", "beats"), [(4.9, False), (5.0, True)])
def test_to_be_told_apart_takes_more_than_both_means_can_stray(excess: float, beats: bool) -> None:
    # Half width of the difference of a mean of 3 and one run: 4.3027 * sqrt(1/3 + 1) = 4.968.
    (found,) = compared([1.0, 2.0, 3.0], [2.0 + excess])
    assert found.is_told_apart is beats


def test_nothing_repeated_tells_nothing_apart() -> None:
    found = compared([0.1], [0.9], [0.5])
    assert not any(one.is_told_apart for one in found)
    assert {one.difference.basis for one in found} == {Basis.WORDS}


def test_many_comparisons_take_more_than_one_does() -> None:
    alone = compared([0.50, 0.51, 0.52], [0.58])[0]
    among = compared([0.50, 0.51, 0.52], [0.58], [0.51], [0.5], [0.52], [0.49])
    assert alone.is_told_apart
    assert not among[0].is_told_apart
    assert among[0].p_adjusted == pytest.approx(5 * alone.p_adjusted, rel=1e-6)
    assert among[0].difference == alone.difference


def test_p_values_are_holms() -> None:
    spread = SeedSpread(0.01**2, 0.0, 20)
    others = [runs([0.5 + away]) for away in (0.05, 0.03, 0.0)]
    found = compare_with(runs([0.5] * 5), others, spread)
    error = 0.01 * (1 / 5 + 1) ** 0.5
    raw = [2 * stats.t.sf(away / error, 20) for away in (0.05, 0.03, 0.0)]
    wanted = [3 * raw[0], 2 * raw[1], 1.0]
    assert [one.p_adjusted for one in found] == pytest.approx(wanted, rel=1e-5)
    assert [one.is_told_apart for one in found] == [p < LEVEL for p in wanted]


@given(
    default=st.lists(st.floats(0, 1), min_size=2, max_size=4),
    others=st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=1, max_size=5),
)
@settings(max_examples=40, deadline=None)
def test_adjusted_values_are_never_below_their_own(
    default: list[float], others: list[list[float]]
) -> None:
    for one in compared(default, *others):
        assert one.difference.p_value - 1e-9 <= one.p_adjusted <= 1
        if one.is_told_apart:
            assert one.difference.interval.excludes_zero()


def test_more_seeds_of_a_contender_make_its_interval_narrower() -> None:
    once, repeated = (one.difference for one in compared([0.0, 1.0, 2.0], [9.0], [8.0] * 4))
    assert repeated.high - repeated.low < once.high - once.low


def test_noise_alone_beats_nothing() -> None:
    found = compared([0.500, 0.520, 0.510], [0.525], [0.515], [0.490])
    assert not any(one.is_told_apart for one in found)


def test_a_huge_planted_effect_beats_the_default() -> None:
    found = compared([0.500, 0.520, 0.510], [0.900], [0.515])
    assert [one.is_told_apart for one in found] == [True, False]


def test_one_named_variation_without_effect_is_told_apart_once_in_twenty() -> None:
    rng = random.Random(0)
    repeats, alarms = 1000, 0
    for _ in range(repeats):
        default = [rng.gauss(0.5, 0.01) for _ in range(3)]
        (found,) = compared(default, [rng.gauss(0.5, 0.01)])
        alarms += found.is_told_apart
    # 5 % of 1000 is 50, give or take 7.
    assert 30 <= alarms <= 70


def test_words_that_two_configurations_answer_unlike_widen_their_difference() -> None:
    rng = np.random.default_rng(0)
    unlike_C = rng.normal(0, 0.3, NUM_WORDS)
    unlike_C -= unlike_C.mean()
    alike = runs([0.50, 0.51, 0.52])
    other = [Run(0.6, unlike_C / NUM_WORDS)]
    spread = spread_over_seeds([alike])
    (same,), (wide,) = (compare_with(alike, [one], spread) for one in (runs([0.6]), other))
    assert wide.difference.high - wide.difference.low > same.difference.high - same.difference.low
    assert wide.difference.value == pytest.approx(same.difference.value)
