"""Laws of `tuning.points`: every point has one number, and nothing else has."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import ConfigError
from tuning.points import Condition, Parameter, Point, Points, exists, iter_range, permuted

ABSENT = object()


class Drawn(NamedTuple):
    """A parameter, and its values as written down independently of it."""

    parameter: Parameter
    values: list[Any]


def candidates(
    name: str, *values: Any, when: Mapping[str, Sequence[Any]] | None = None
) -> Parameter:
    return Parameter(name=name, key=name, values=values, conditions=conditions(when or {}))


def conditions(when: Mapping[str, Sequence[Any]]) -> tuple[Condition, ...]:
    return tuple(Condition(parent=p, values=tuple(values)) for p, values in when.items())


def stepped(name: str, low: float, high: float, step: float, **more: Any) -> Parameter:
    return Parameter(name=name, key=name, low=low, high=high, step=step, **more)


def real(name: str, low: float, high: float, **more: Any) -> Parameter:
    return Parameter(name=name, key=name, low=low, high=high, **more)


# --- random parameter sets --------------------------------------------------------------------

# 1 and True, and 0 and False, are equal in Python and different here.
SOME_VALUES: tuple[Any, ...] = ("a", "b", 0, 1, 2.5, True, False, None, ("x", "y"))


@st.composite
def drawn_ranges(draw: st.DrawFn, name: str) -> Drawn:
    count = draw(st.integers(2, 4))
    low, width = draw(st.integers(-20, 20)), draw(st.integers(1, 7))
    # The quotient of two integers is the float that the decimal number means.
    parts = draw(st.sampled_from([1, 10, 20, 1000]))
    numbers = [low + i * width for i in range(count)]
    values: list[Any] = numbers if parts == 1 else [n / parts for n in numbers]
    step = width if parts == 1 else width / parts
    made = stepped(name, values[0], values[-1], step, is_integer=parts == 1)
    return Drawn(made, values)


@st.composite
def drawn_candidates(draw: st.DrawFn, name: str) -> Drawn:
    values = draw(
        st.lists(st.sampled_from(SOME_VALUES), min_size=1, max_size=4, unique_by=lambda v: repr(v))
    )
    return Drawn(candidates(name, *values), values)


@st.composite
def parameter_sets(draw: st.DrawFn, *, with_conditions: bool = True) -> list[Drawn]:
    made: list[Drawn] = []
    for i in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from([drawn_candidates, drawn_candidates, drawn_ranges]))
        parameter, values = draw(kind(f"p{i}"))
        possible = [d for d in made if d.parameter.values] if with_conditions else []
        parents = (
            draw(st.lists(st.sampled_from(possible), max_size=2, unique_by=id)) if possible else []
        )
        when = {
            p.parameter.name: draw(
                st.lists(st.sampled_from(p.values), min_size=1, unique_by=lambda v: repr(v))
            )
            for p in parents
        }
        made.append(Drawn(dataclasses.replace(parameter, conditions=conditions(when)), values))
    # A file may name a child before its parent.
    return draw(st.permutations(made))


def points_of(drawn: Sequence[Drawn]) -> Points:
    return Points([d.parameter for d in drawn])


def brute_force(drawn: Sequence[Drawn]) -> list[str]:
    """Every choice of values or none for each parameter, less what conditions do not allow."""
    found = []
    for choice in itertools.product(*([*d.values, ABSENT] for d in drawn)):
        chosen = {d.parameter.name: v for d, v in zip(drawn, choice, strict=True)}
        if all((chosen[d.parameter.name] is not ABSENT) == allowed(d, chosen) for d in drawn):
            found.append(written({n: v for n, v in chosen.items() if v is not ABSENT}))
    return found


def allowed(drawn: Drawn, chosen: Mapping[str, Any]) -> bool:
    return all(
        any(repr(chosen[c.parent]) == repr(value) for value in c.values)
        for c in drawn.parameter.conditions
    )


def written(point: Mapping[str, Any]) -> str:
    return repr(sorted(point.items(), key=lambda item: item[0]))


# --- counting and numbering ---------------------------------------------------------------------


@given(drawn=parameter_sets())
@settings(max_examples=150, deadline=None)
def test_iterating_gives_every_point_that_the_conditions_allow_once(drawn: list[Drawn]) -> None:
    points = points_of(drawn)
    expected = brute_force(drawn)
    listed = [written(point) for point in points]
    assert points.count == len(expected)
    assert Counter(listed) == Counter(expected)
    assert max(Counter(listed).values()) == 1


@given(drawn=parameter_sets())
@settings(max_examples=100, deadline=None)
def test_the_number_of_a_point_leads_back_to_it(drawn: list[Drawn]) -> None:
    points = points_of(drawn)
    for index in range(points.count):
        point = points.at(index)
        points.check(point)
        assert points.index_of(point) == index
        assert list(point) == [d.parameter.name for d in drawn if d.parameter.name in point]


@given(drawn=parameter_sets(with_conditions=False))
@settings(max_examples=50, deadline=None)
def test_without_conditions_points_are_nested_loops_with_the_last_parameter_fastest(
    drawn: list[Drawn],
) -> None:
    points = points_of(drawn)
    assert points.count == math.prod(len(d.values) for d in drawn)
    expected = itertools.product(*(d.values for d in drawn))
    assert [repr(list(p.values())) for p in points] == [repr(list(e)) for e in expected]


def test_the_order_is_that_of_nested_loops() -> None:
    points = Points([candidates("a", 1, 2), stepped("b", 0, 4, 2, is_integer=True)])
    assert list(points) == [
        {"a": 1, "b": 0},
        {"a": 1, "b": 2},
        {"a": 1, "b": 4},
        {"a": 2, "b": 0},
        {"a": 2, "b": 2},
        {"a": 2, "b": 4},
    ]


def test_a_child_exists_only_where_its_parent_has_the_value() -> None:
    points = Points(
        [
            candidates("decay", 0.0, 0.1, when={"schedule": ["cosine"]}),
            candidates("schedule", "constant", "cosine"),
        ]
    )
    assert list(points) == [
        {"schedule": "constant"},
        {"decay": 0.0, "schedule": "cosine"},
        {"decay": 0.1, "schedule": "cosine"},
    ]


def test_a_grandchild_needs_its_parent_to_exist_and_a_child_of_two_needs_both() -> None:
    chain = [
        candidates("a", 1, 2),
        candidates("b", 1, 2, 3, when={"a": [2]}),
        candidates("c", 1, 2, 3, 4, when={"b": [1, 3]}),
    ]
    # a=1; a=2 with b=2; a=2 with b=1 or 3 and each of four c.
    assert Points(chain).count == 1 + 1 + 2 * 4
    two = [candidates("a", 1, 2), candidates("b", 1, 2, 3)]
    two.append(candidates("c", 1, 2, 3, 4, when={"a": [2], "b": [1, 3]}))
    assert Points(two).count == 4 + 2 * 4


def test_a_parent_whose_value_is_none_is_not_one_that_does_not_exist() -> None:
    """As a number of threads is, or a machine in the cloud."""
    points = Points(
        [
            candidates("a", 1, 2),
            candidates("b", None, 5, when={"a": [1]}),
            candidates("c", 1, 2, when={"b": [None]}),
        ]
    )
    expected: list[Point] = [
        {"a": 1, "b": None, "c": 1},
        {"a": 1, "b": None, "c": 2},
        {"a": 1, "b": 5},
    ]
    assert points.count == 4
    assert list(points) == [*expected, {"a": 2}]
    assert [points.index_of(point) for point in expected] == [0, 1, 2]


def test_parameters_without_a_common_condition_are_counted_apart() -> None:
    points = Points(
        [
            candidates("a", 1, 2),
            candidates("alone", 1, 2, 3, 4, 5),
            candidates("b", 1, 2, 3, when={"a": [2]}),
        ]
    )
    assert [{p.name for p in group} for group in points.groups] == [{"a", "b"}, {"alone"}]
    assert points.count == (1 + 3) * 5


def test_a_truth_value_is_no_number_in_a_condition() -> None:
    child = candidates("c", 1, when={"a": [True]})
    assert exists(child, {"a": True})
    assert not exists(child, {"a": 1})
    assert not exists(child, {})


def test_tenths_are_tenths() -> None:
    points = Points([stepped("x", 0.1, 0.3, 0.1)])
    assert list(points) == [{"x": 0.1}, {"x": 0.2}, {"x": 0.3}]
    assert points.index_of({"x": 0.3}) == 2
    # What 0.1 + 2 * 0.1 is in binary.
    with pytest.raises(ConfigError, match="x: 0.30000000000000004 is none of its values"):
        points.index_of({"x": 0.30000000000000004})
    assert [p["x"] for p in Points([stepped("x", 0, 1, 0.05)])] == [i / 20 for i in range(21)]


@pytest.mark.parametrize("index", [-1, 6, 10**30])
def test_an_index_out_of_range_is_one_clear_error(index: int) -> None:
    points = Points([candidates("a", 1, 2), candidates("b", 1, 2, 3)])
    with pytest.raises(ConfigError, match=rf"^index must lie in \[0, 6\), got {index}$"):
        points.at(index)
    with pytest.raises(ConfigError, match=rf"^index must lie in \[0, 6\), got {index}$"):
        points.shuffled(index, seed=0)


def test_a_range_of_real_numbers_has_no_number_of_points() -> None:
    points = Points([candidates("a", 1, 2), real("x", 0.0, 1.0)])
    assert not points.is_countable
    assert Points([candidates("a", 1, 2)]).is_countable
    for ask in (lambda: points.count, lambda: points.at(0), lambda: points.index_of({"a": 1})):
        with pytest.raises(ConfigError, match="^x: "):
            ask()
    with pytest.raises(ConfigError, match="a range of real numbers has no number of points"):
        points.shuffled(0, seed=1)


def test_candidates_may_be_numbers_that_only_differ_in_kind_from_truth_values() -> None:
    parameter = candidates("a", 1, True, 0, False)
    assert [parameter.index_of(v) for v in (1, True, 0, False)] == [0, 1, 2, 3]


# --- more points than a machine can count ---------------------------------------------------------

HUGE = Points(
    [
        *(candidates(f"c{i}", "a", "b", "c") for i in range(45)),
        stepped("r", 0, 10_000, 1, is_integer=True),
        candidates("child", *range(7), when={"c0": ["b"]}),
    ]
)


def test_numbers_above_two_to_the_63_are_counted_and_led_back() -> None:
    assert HUGE.count == (1 + 7 + 1) * 3**44 * 10_001
    assert HUGE.count > 2**63
    generator = random.Random(0)
    indexes = [0, 2**63, HUGE.count - 1, *(generator.randrange(HUGE.count) for _ in range(50))]
    assert [HUGE.index_of(HUGE.at(i)) for i in indexes] == indexes
    assert HUGE.at(HUGE.count - 1) == {
        **dict.fromkeys([f"c{i}" for i in range(45)], "c"),
        "r": 10**4,
    }
    assert [p["r"] for p in itertools.islice(HUGE, 3)] == [0, 1, 2]
    assert list(itertools.islice(iter_range(2**80), 3)) == [0, 1, 2]


def test_a_huge_space_is_shuffled_without_a_list() -> None:
    found = [HUGE.index_of(HUGE.shuffled(i, seed=4)) for i in range(100)]
    assert len(set(found)) == 100
    assert sum(index >= HUGE.count // 2 for index in found) in range(30, 71)
    last = HUGE.index_of(HUGE.shuffled(HUGE.count - 1, seed=4))
    assert last not in found


# --- shuffling ------------------------------------------------------------------------------------


@given(count=st.integers(1, 300), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_a_shuffle_is_a_permutation(count: int, seed: int) -> None:
    assert sorted(permuted(i, count, seed) for i in range(count)) == list(range(count))


@given(drawn=parameter_sets(), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_shuffled_points_are_all_points_each_once(drawn: list[Drawn], seed: int) -> None:
    points = points_of(drawn)
    found = [written(points.shuffled(i, seed)) for i in range(points.count)]
    assert sorted(found) == sorted(map(written, points))


def test_each_seed_shuffles_in_its_own_way() -> None:
    points = Points([stepped("r", 1, 20, 1, is_integer=True)])
    orders = {tuple(points.shuffled(i, seed)["r"] for i in range(20)) for seed in range(50)}
    assert len(orders) == 50


def test_a_shuffle_knows_only_the_index_the_count_and_the_seed() -> None:
    one = Points([stepped("r", 1, 12, 1, is_integer=True)])
    other = Points([candidates("a", "x", "y", "z"), candidates("b", *range(4))])
    assert one.count == other.count == 12
    for seed in range(5):
        order = [one.index_of(one.shuffled(i, seed)) for i in range(12)]
        assert [other.index_of(other.shuffled(i, seed)) for i in reversed(range(12))] == order[::-1]


SHUFFLED_10_BY_0 = [4, 5, 2, 0, 6, 7, 8, 9, 3, 1]
SHUFFLED_10_BY_1 = [5, 3, 7, 2, 0, 6, 4, 9, 8, 1]


def test_the_shuffle_of_a_seed_stays_what_it_was() -> None:
    """A study that was begun with an earlier version goes on with the same order."""
    assert [permuted(i, 10, 0) for i in range(10)] == SHUFFLED_10_BY_0
    assert [permuted(i, 10, 1) for i in range(10)] == SHUFFLED_10_BY_1


def test_every_place_is_equally_likely() -> None:
    found = Counter(permuted(0, 6, seed) for seed in range(3000))
    statistic = sum((found[place] - 500) ** 2 / 500 for place in range(6))
    # Chi-square with 5 degrees of freedom exceeds 25.7 once in ten thousand.
    assert statistic < 25.7


# --- the unit cube ----------------------------------------------------------------------------------

UNITS = st.floats(0, 1, exclude_max=True)


@given(drawn=parameter_sets(), data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_place_in_the_unit_cube_is_a_point(drawn: list[Drawn], data: st.DataObject) -> None:
    points = Points(
        [
            *(d.parameter for d in drawn),
            real("real", 0.123456, 0.654321),
            real("log", 1e-5, 5e-3, is_log=True),
            real("ints", 4, 64, is_log=True, is_integer=True, step=1),
        ]
    )
    size = len(points.parameters)
    units = data.draw(st.lists(UNITS, min_size=size, max_size=size))
    point = points.from_units(units)
    points.check(point)
    assert {"real", "log", "ints"} <= set(point)
    assert type(point["ints"]) is int
    assert 4 <= point["ints"] <= 64


def test_the_unit_interval_is_shared_equally_among_values() -> None:
    three = Points([candidates("a", "x", "y", "z")])
    found = [three.from_units([u])["a"] for u in (0.0, 0.33, 0.34, 0.66, 0.67, 1 - 2**-53)]
    assert found == ["x", "x", "y", "y", "z", "z"]
    tenths = Points([stepped("a", 0.1, 0.3, 0.1)])
    assert [tenths.from_units([u])["a"] for u in (0.0, 0.5, 0.99)] == [0.1, 0.2, 0.3]


def test_each_parameter_has_a_place_of_its_own_whether_or_not_it_exists() -> None:
    points = Points([candidates("c", 1, 2, when={"a": ["y"]}), candidates("a", "x", "y")])
    assert points.from_units([0.9, 0.9]) == {"c": 2, "a": "y"}
    assert points.from_units([0.9, 0.1]) == {"a": "x"}


def test_a_log_range_of_integers_is_uniform_in_the_logarithm() -> None:
    parameter = real("r", 4, 63, is_log=True, is_integer=True, step=1)
    generator = random.Random(0)
    found = [parameter.at(generator.random()) for _ in range(4000)]
    assert all(type(value) is int for value in found)
    assert (min(found), max(found)) == (4, 63)
    # 4-7, 8-15, 16-31, 32-63: four octaves, 1000 expected in each.
    octaves = Counter(int(math.log2(value)) for value in found)
    assert set(octaves) == {2, 3, 4, 5}
    assert sum((n - 1000) ** 2 / 1000 for n in octaves.values()) < 21
    # Within an octave too: 4 takes log(5/4) / log(64/4) of all.
    assert found.count(4) == pytest.approx(4000 * math.log(5 / 4) / math.log(16), rel=0.15)


def test_a_log_range_of_real_numbers_is_uniform_in_the_logarithm() -> None:
    parameter = real("x", 1e-5, 1e-2, is_log=True)
    generator = random.Random(0)
    found = [parameter.at(generator.random()) for _ in range(3000)]
    decades = Counter(math.floor(math.log10(value)) for value in found)
    assert sum((decades[decade] - 1000) ** 2 / 1000 for decade in (-5, -4, -3)) < 18
    # Half of a linear range would lie above 5e-3.
    assert sum(value > 5e-3 for value in found) < 500


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_a_rounded_value_stays_in_its_range(data: st.DataObject) -> None:
    low = data.draw(st.floats(1e-9, 1e6))
    high = data.draw(st.floats(low, low * 10, exclude_min=True))
    is_log = data.draw(st.booleans())
    parameter = real("x", low, high, is_log=is_log)
    assert low <= parameter.near(data.draw(st.floats(low, high))) <= high
    for unit in (0.0, data.draw(UNITS), 1 - 2**-53):
        assert low <= parameter.at(unit) <= high


def test_real_values_are_written_with_four_digits() -> None:
    parameter = real("x", 0.0, 1.0)
    assert parameter.near(0.123456) == 0.1235
    assert parameter.near(0.000123449) == 0.0001234
    assert real("x", 0.0, 0.65432).near(0.65432) == 0.6543
    assert real("x", 0.654321, 1.0).near(0.654321) == 0.654321


# --- what is no point -----------------------------------------------------------------------------

SPACE = Points(
    [
        candidates("schedule", "constant", "cosine"),
        candidates("decay", 0.0, 0.1, when={"schedule": ["cosine"]}),
        stepped("steps", 100, 300, 100, is_integer=True),
        real("rate", 0.25, 0.5),
    ]
)
GOOD: Point = {"schedule": "cosine", "decay": 0.1, "steps": 200, "rate": 0.3}


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"step": 100}, "step: no parameter of the space; did you mean steps?"),
        ({"steps": ABSENT}, "steps: the point must give it a value"),
        ({"decay": ABSENT}, "decay: the point must give it a value"),
        (
            {"schedule": "constant"},
            "decay: does not exist in this point, its condition is not met",
        ),
        ({"schedule": "linear"}, "schedule: 'linear' is none of its values"),
        ({"steps": 150}, "steps: 150 is none of its values"),
        ({"steps": 400}, "steps: 400 is none of its values"),
        ({"steps": 0}, "steps: 0 is none of its values"),
        ({"steps": "100"}, "steps: '100' is none of its values"),
        ({"steps": None}, "steps: None is none of its values"),
        ({"decay": False}, "decay: False is none of its values"),
        ({"rate": 0.51}, "rate: 0.51 is none of its values"),
        ({"rate": True}, "rate: True is none of its values"),
        ({"rate": float("nan")}, "rate: nan is none of its values"),
    ],
)
def test_what_is_no_point_is_refused_and_says_why(changes: dict[str, Any], law: str) -> None:
    point = {n: v for n, v in {**GOOD, **changes}.items() if v is not ABSENT}
    with pytest.raises(ConfigError) as caught:
        SPACE.check(point)
    assert str(caught.value) == law


def test_a_point_is_accepted_in_any_order_and_at_the_ends_of_its_ranges() -> None:
    SPACE.check(GOOD)
    SPACE.check({"rate": 0.25, "steps": 300, "schedule": "constant"})
    SPACE.check({"rate": 0.5, "steps": 100, "schedule": "constant"})


def test_what_is_no_point_has_no_number() -> None:
    points = Points([candidates("a", 1, 2), candidates("b", 1, 2, when={"a": [2]})])
    for wrong in ({"a": 3}, {"a": 1, "b": 1}, {"a": 2}, {"a": 1, "z": 1}):
        with pytest.raises(ConfigError):
            points.index_of(wrong)


def test_the_ends_of_a_parameter_are_its_candidates_or_the_ends_of_its_range() -> None:
    assert candidates("a", 3, 1, 2).ends == (3, 1, 2)
    assert stepped("a", 1, 9, 2, is_integer=True).ends == (1, 9)
    assert real("a", 0, 1).ends == (0.0, 1.0)
