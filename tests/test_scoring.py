"""Laws of `tuning.scoring`: the transfer score, the focus, the names of metrics."""

from __future__ import annotations

import inspect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning import scoring
from tuning.scoring import Focus, calculate_transfer_score, dominates
from tuning.tasks.items import Task

RATES = st.floats(0, 1)


def test_the_published_example() -> None:
    assert calculate_transfer_score(0.85, 0.75, 0.70) == pytest.approx(0.870, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # 0.3*0.5 + 0.6*1.0 + 0.2*min(0.1, 0.75)
        ((0.1, 0.5, 1.0, 0.3, 0.6), 0.15 + 0.6 + 0.02),
        # The synergy follows the smaller of spelling and the mean of the other two.
        ((1.0, 0.2, 0.4, 0.0, 0.0), 0.2 * 0.3),
        ((0.25, 0.2, 0.4, 0.0, 0.0), 0.2 * 0.25),
        ((0.0, 0.0, 0.0), 0.0),
        ((1.0, 1.0, 1.0), 1.2),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 2.2),
    ],
)
def test_the_score_by_hand(arguments: tuple[float, ...], expected: float) -> None:
    assert calculate_transfer_score(*arguments) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1])
@pytest.mark.parametrize("place", range(5))
def test_what_is_no_rate_is_refused_by_name(value: float, place: int) -> None:
    arguments = [0.5] * 5
    arguments[place] = value
    name = list(inspect.signature(calculate_transfer_score).parameters)[place]
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got {value}"):
        calculate_transfer_score(*arguments)


@given(
    before=st.tuples(RATES, RATES, RATES), after=st.tuples(RATES, RATES, RATES), w=RATES, v=RATES
)
def test_no_better_accuracy_ever_lowers_the_score(
    before: tuple[float, ...], after: tuple[float, ...], w: float, v: float
) -> None:
    low = tuple(map(min, zip(before, after, strict=True)))
    high = tuple(map(max, zip(before, after, strict=True)))
    assert calculate_transfer_score(*low, w, v) <= calculate_transfer_score(*high, w, v)


@given(spelling=RATES, position=RATES, count=RATES, w=RATES, v=RATES)
def test_the_score_is_symmetric_in_the_transfer_tasks_and_bounded(
    spelling: float, position: float, count: float, w: float, v: float
) -> None:
    score = calculate_transfer_score(spelling, position, count, w, v)
    assert score == pytest.approx(calculate_transfer_score(spelling, count, position, v, w))
    assert 0 <= score <= w + v + 0.2 + 1e-12


@pytest.mark.parametrize(
    ("focus", "weight"), [("spelling", 0.3), ("transfer", 0.6), ("balanced", 0.5)]
)
def test_a_focus_sets_both_weights(focus: str, weight: float) -> None:
    assert Focus(focus).weights == (weight, weight)
    assert Focus(focus).weights.position_weight == Focus(focus).weights.count_weight


METRICS = {
    "spelling/accuracy": 0.9,
    "spelling/gain": 0.31,
    "transfer/position/accuracy": 0.5,
    "transfer/position/gain": 0.02,
    "transfer/count/accuracy": 0.4,
    "transfer/count/gain": -0.06,
    "transfer_learning_score": 0.77,
    "own_weights_score": 0.99,
}


@pytest.mark.parametrize(
    ("focus", "objective"), [("spelling", 0.31), ("transfer", -0.02), ("balanced", 0.77)]
)
def test_a_focus_says_what_is_ranked_by(focus: str, objective: float) -> None:
    assert Focus(focus).objective(METRICS) == pytest.approx(objective)
    assert Focus(focus).says


def test_there_are_exactly_three_focuses() -> None:
    assert [focus.value for focus in Focus] == ["spelling", "transfer", "balanced"]


def test_metric_names_are_those_of_the_specification() -> None:
    assert scoring.accuracy_name(Task.SPELLING) == "spelling/accuracy"
    assert scoring.accuracy_name(Task.POSITION) == "transfer/position/accuracy"
    assert scoring.accuracy_name(Task.COUNT) == "transfer/count/accuracy"
    assert scoring.gain_name(Task.COUNT) == "transfer/count/gain"
    assert scoring.TRANSFER_SCORE == "transfer_learning_score"
    assert scoring.OWN_WEIGHTS_SCORE == "own_weights_score"


# --- one list of values against another ---------------------------------------------------------

VALUES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("better", "worse"), [((0.5, 0.2), (0.4, 0.2)), ((0.4, 0.3), (0.4, 0.2)), ((1.0,), (0.0,))]
)
def test_what_is_nowhere_worse_and_somewhere_better_dominates(
    better: tuple[float, ...], worse: tuple[float, ...]
) -> None:
    assert dominates(better, worse)
    assert dominates(list(better), worse), "lists and tuples are compared by their values"
    assert not dominates(worse, better)


def test_neither_a_trade_nor_an_equal_dominates() -> None:
    assert not dominates((0.5, 0.1), (0.4, 0.2))
    assert not dominates((0.4, 0.2), (0.5, 0.1))
    assert not dominates((0.4, 0.2), [0.4, 0.2])


def test_only_as_many_values_can_be_compared() -> None:
    with pytest.raises(ValueError, match="shorter"):
        dominates((0.5, 0.5), (0.4,))


@given(points=VALUES)
def test_of_any_points_one_is_dominated_by_none(points: list[tuple[int, int]]) -> None:
    best = [p for p in points if not any(dominates(q, p) for q in points)]
    assert best
    assert all(p in best or any(dominates(q, p) for q in best) for p in points)
