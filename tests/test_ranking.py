"""Laws of `tuning.ranking`: order by the mean, and no verdict that seeds alone could have made."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.ranking import Contender, Ranked, rank, short

T_2 = 4.302652730  # Student's t, 2 degrees of freedom, two-sided 95 %: any printed table


def contender(objectives: list[float], **parameters: object) -> Contender:
    ids = [f"{i}-{parameters}" for i in range(len(objectives))]
    return Contender(parameters=parameters, trial_ids=ids, objectives=objectives)


def default_of(ranked: list[Ranked]) -> Ranked:
    (found,) = (r for r in ranked if r.contender.is_default)
    return found


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
    assert ranked[0].ties_with_best, "the best is not distinguishable from itself"
    assert not default_of(ranked).beats_default


@given(default=st.lists(st.floats(-1, 2), min_size=2, max_size=4), others=st.lists(OBJECTIVES))
def test_the_order_of_the_contenders_does_not_matter(
    default: list[float], others: list[list[float]]
) -> None:
    contenders = [contender(default)] + [contender(o, lora_r=i) for i, o in enumerate(others)]
    assert rank(contenders) == rank(contenders[::-1])


def test_nothing_repeated_gives_no_interval_and_everything_ties() -> None:
    ranked = rank([contender([0.1]), contender([0.9], lora_r=4), contender([0.5], lora_r=8)])
    assert [r.contender.label for r in ranked] == ["lora_r=4", "lora_r=8", "default"]
    assert all(r.interval is None for r in ranked)
    assert all(r.ties_with_best for r in ranked)
    assert not any(r.beats_default for r in ranked)


def test_the_interval_is_students_over_the_spread_of_the_default() -> None:
    # The default's seeds 1, 2, 3 have mean 2 and standard deviation exactly 1.
    ranked = rank([contender([1.0, 2.0, 3.0]), contender([7.0], lora_r=4)])
    once, default = ranked
    assert default.interval == pytest.approx((2 - T_2 / math.sqrt(3), 2 + T_2 / math.sqrt(3)))
    assert once.interval == pytest.approx((7 - T_2, 7 + T_2))


@pytest.mark.parametrize(("excess", "beats"), [(4.9, False), (5.0, True)])
def test_to_beat_the_default_takes_more_than_both_means_can_stray(
    excess: float, beats: bool
) -> None:
    # Half width of the difference of a mean of 3 and one run: 4.3027 * sqrt(1/3 + 1) = 4.968.
    ranked = rank([contender([1.0, 2.0, 3.0]), contender([2.0 + excess], lora_r=4)])
    assert ranked[0].beats_default is beats
    assert default_of(ranked).ties_with_best is not beats


@pytest.mark.parametrize(("behind", "ties"), [(6.0, True), (6.2, False)])
def test_two_single_runs_tie_while_their_difference_can_be_seeds(behind: float, ties: bool) -> None:
    # 4.3027 * sqrt(1 + 1) = 6.085
    contenders = [contender([1.0, 2.0, 3.0]), contender([20.0], a=1), contender([20 - behind], a=2)]
    assert rank(contenders)[1].ties_with_best is ties


def test_more_seeds_of_a_contender_make_its_interval_narrower() -> None:
    ranked = rank([contender([0.0, 1.0, 2.0]), contender([9.0], a=1), contender([8.0] * 4, a=2)])
    once, repeated = ranked[0].interval, ranked[1].interval
    assert once is not None
    assert repeated is not None
    assert once.high - once.low == pytest.approx(2 * (repeated.high - repeated.low))


def test_noise_alone_beats_nothing() -> None:
    ranked = rank(
        [
            contender([0.500, 0.520, 0.510]),
            contender([0.525], lora_r=4),
            contender([0.515], lora_r=8),
            contender([0.490], lora_r=32),
        ]
    )
    assert ranked[0].contender.label == "lora_r=4"
    assert not any(r.beats_default for r in ranked)
    assert all(r.ties_with_best for r in ranked)


def test_a_huge_planted_effect_beats_the_default_and_stands_alone() -> None:
    ranked = rank(
        [
            contender([0.500, 0.520, 0.510]),
            contender([0.900], learning_rate=1e-3),
            contender([0.515], lora_r=8),
        ]
    )
    assert ranked[0].contender.label == "learning_rate=0.001"
    assert [r.beats_default for r in ranked] == [True, False, False]
    assert [r.ties_with_best for r in ranked] == [True, False, False]


def test_one_named_variation_without_effect_beats_the_default_once_in_forty() -> None:
    rng = random.Random(0)
    repeats, wins = 2000, 0
    for _ in range(repeats):
        default = contender([rng.gauss(0.5, 0.01) for _ in range(3)])
        ranked = rank([default, contender([rng.gauss(0.5, 0.01)], lora_r=4)])
        wins += any(r.beats_default for r in ranked)
    # One side of a 95 % interval: 2.5 % of 2000 is 50, give or take 7.
    assert 25 <= wins <= 75


def test_equal_means_put_the_default_first() -> None:
    ranked = rank([contender([0.5], a=1), contender([0.5, 0.5]), contender([0.5], b=1)])
    assert ranked[0].contender.is_default
    assert all(r.ties_with_best for r in ranked)


def test_labels_are_what_a_person_would_write() -> None:
    assert contender([1.0]).label == "default"
    assert contender([1.0], learning_rate=2e-4, lora_r=8).label == "learning_rate=0.0002, lora_r=8"
    assert short(["q_proj", "v_proj"]) == "q_proj+v_proj"
    assert short(True) == "True"
