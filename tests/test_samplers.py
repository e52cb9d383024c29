"""Laws of `tuning.samplers`: who proposes what, the same again, nothing twice, and how it fails."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import ConfigError, NotFoundError, UserError
from tuning.points import Point
from tuning.samplers import Seen, draws, propose, random_points, sampler_of
from tuning.search_space import SearchSpace


def space(strategy: str, sampler: str | None = None, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate({"strategy": strategy, "sampler": sampler, **more})


SMALL: dict[str, Any] = {
    "HPARAM_CANDIDATES": {
        "lora_r": [4, 8, 16],
        "spelling_difficulty": ["easy", "medium", "hard"],
        "use_english_only_tokens": [False, True],
    }
}
DEFAULT: Point = {
    "lora_r": 16,
    "spelling_difficulty": "medium",
    "use_english_only_tokens": False,
}
CONDITIONAL: dict[str, Any] = {
    "HPARAM_CANDIDATES": {
        "training_config.weight_decay": [0.0, 0.01, 0.1],
        "training_config.schedule": ["constant_with_warmup", "cosine", "linear"],
    },
    "HPARAM_RANGE": {"warmup_steps": {"low": 0, "high": 500, "step": 50}},
    "conditions": {
        "training_config.weight_decay": {"training_config.schedule": ["cosine", "linear"]},
        "warmup_steps": {"training_config.schedule": "linear"},
    },
}
MIXED: dict[str, Any] = {
    "HPARAM_CANDIDATES": {
        "target_modules": [["q_proj", "v_proj"], ["q_proj"], ["v_proj", "o_proj"]],
        "batch_size": [32, 4, 16],
        "lora_alpha": [8, 16, 32],
        "spelling_augmentation": [False, True],
    },
    "HPARAM_RANGE": {
        "lora_r": {"low": 4, "high": 64, "scale": "log"},
        "learning_rate": {"low": 1e-5, "high": 5e-3, "scale": "log"},
        "lora_dropout": {"low": 0.1, "high": 0.7, "step": 0.1},
        "max_steps": {"low": 500, "high": 5000, "step": 500},
        "spelling_data_ratio": {"low": 0.3, "high": 1.0},
    },
}


def drawn(chosen: SearchSpace, count: int, seed: int = 0, default: Point = DEFAULT) -> list[Point]:
    return list(itertools.islice(draws(chosen, chosen.points(), seed, default), count))


def written(point: Any) -> str:
    return json.dumps(point, sort_keys=True)


def asked(
    chosen: SearchSpace, seen: Sequence[Seen], seed: int = 0, default: Point = DEFAULT
) -> Point:
    """What is proposed after what has been seen, by a sampler made anew."""
    return propose(sampler_of(chosen), chosen.points(), len(seen), seed, seen, default)


def learned(
    chosen: SearchSpace,
    count: int,
    objectives: Callable[[Point], tuple[float, ...]],
    seed: int = 0,
    default: Point = DEFAULT,
) -> list[Seen]:
    """Propose one point after another, each with the results of all before it."""
    seen: list[Seen] = []
    for _ in range(count):
        point = asked(chosen, seen, seed, default)
        seen.append(Seen(point, objectives(point)))
    return seen


# --- draws that look at no results ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_a_whole_small_space_is_drawn_each_point_once_and_never_the_default(sampler: str) -> None:
    chosen = space("random", sampler, **SMALL)
    stream = draws(chosen, chosen.points(), 3, DEFAULT)
    found = [written(next(stream)) for _ in range(17)]
    assert len(set(found)) == 17
    assert set(found) == {written(p) for p in chosen.points()} - {written(DEFAULT)}
    with pytest.raises(ConfigError, match="^all 18 points of the space are used up$"):
        next(stream)


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_the_number_of_points_that_are_used_up_is_that_of_the_space(sampler: str) -> None:
    """The default, r 16, is none of its two points."""
    chosen = space("random", sampler, HPARAM_CANDIDATES={"lora_r": [4, 8]})
    stream = draws(chosen, chosen.points(), 0, {"lora_r": 16})
    assert sorted(next(stream)["lora_r"] for _ in range(2)) == [4, 8]
    with pytest.raises(ConfigError, match="^all 2 points of the space are used up$"):
        next(stream)


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
@pytest.mark.parametrize("parts", [SMALL, CONDITIONAL, MIXED], ids=["small", "conditions", "mixed"])
def test_draws_follow_from_the_seed_and_a_larger_number_begins_with_the_same(
    sampler: str, parts: dict[str, Any]
) -> None:
    few = drawn(space("random", sampler, num_trials=5, **parts), 5, seed=7)
    many = drawn(space("random", sampler, num_trials=15, **parts), 15, seed=7)
    assert many[:5] == few
    assert drawn(space("random", sampler, **parts), 15, seed=8) != many
    assert len({written(point) for point in many}) == 15


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_draws_from_real_ranges_differ_and_are_points(sampler: str) -> None:
    chosen = space("random", sampler, **MIXED)
    found = drawn(chosen, 150)
    assert len({written(point) for point in found}) == 150
    for point in found:
        chosen.points().check(point)


def test_a_log_range_is_drawn_from_in_its_logarithm_and_used_up_all_the_same() -> None:
    chosen = space("random", HPARAM_RANGE={"lora_r": {"low": 4, "high": 9, "scale": "log"}})
    stream = draws(chosen, chosen.points(), 0, {"lora_r": 7})
    assert sorted(next(stream)["lora_r"] for _ in range(5)) == [4, 5, 6, 8, 9]
    with pytest.raises(ConfigError, match="used up"):
        next(stream)
    wide = space("random", HPARAM_RANGE={"lora_r": {"low": 1, "high": 1024, "scale": "log"}})
    points = itertools.islice(random_points(wide.points(), 0), 400)
    # Half of the logarithm is below 32; of a linear range only 3 % would be.
    assert sum(point["lora_r"] < 32 for point in points) in range(160, 241)


class _StillBusyError(Exception):
    pass


@contextlib.contextmanager
def ends(cpu_seconds: float) -> Iterator[None]:
    """Fail, instead of hanging, when the body does not come to an end."""

    def stop(*_: Any) -> None:
        raise _StillBusyError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, cpu_seconds)
    is_busy = False
    try:
        yield
    except _StillBusyError:
        is_busy = True
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    if is_busy:
        pytest.fail(f"does not end within {cpu_seconds} s")


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_a_range_too_narrow_for_four_digits_is_used_up_too(sampler: str) -> None:
    """Written with four digits it has only one or two values, though it cannot be counted."""
    narrow = {"learning_rate": {"low": 1e-4, "high": 1.0001e-4}}
    chosen = space("random", sampler, HPARAM_RANGE=narrow)
    with ends(cpu_seconds=3), pytest.raises(ConfigError):
        drawn(chosen, 20)


def quarters(sampler: str, seed: int) -> list[int]:
    weight = {"position_task_weight": {"low": 0.0, "high": 1.0}}
    found = drawn(space("random", sampler, HPARAM_RANGE=weight), 64, seed)
    counts = Counter(int(4 * point["position_task_weight"]) for point in found)
    return [counts[quarter] for quarter in range(4)]


def test_sobol_fills_a_range_evenly_and_independent_draws_do_not() -> None:
    assert [quarters("sobol", seed) for seed in range(3)] == [[16, 16, 16, 16]] * 3
    assert [16, 16, 16, 16] not in [quarters("uniform", seed) for seed in range(3)]


def test_sobol_fills_a_plane_evenly() -> None:
    weights = ("position_task_weight", "count_task_weight")
    chosen = space("random", "sobol", HPARAM_RANGE={w: {"low": 0.0, "high": 1.0} for w in weights})
    found = [[int(4 * point[w]) for w in weights] for point in drawn(chosen, 64)]
    assert Counter(map(tuple, found)) == {(i, j): 4 for i in range(4) for j in range(4)}


def test_sobol_without_scrambling_does_not_hang_on_the_seed() -> None:
    chosen = space("random", "sobol", sampler_arguments={"scramble": False}, **MIXED)
    assert drawn(chosen, 8, seed=0) == drawn(chosen, 8, seed=1)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_any_seed_draws(seed: int) -> None:
    for sampler in ("uniform", "sobol"):
        assert len({written(p) for p in drawn(space("random", sampler, **SMALL), 17, seed)}) == 17


# --- conditions -------------------------------------------------------------------------------------


def sum_of_numbers(point: Point) -> tuple[float, ...]:
    return (float(sum(v for v in point.values() if isinstance(v, int | float))),)


@pytest.mark.parametrize("sampler", ["uniform", "sobol", "tpe", "gp"])
def test_a_child_is_proposed_only_where_its_condition_is_met(sampler: str) -> None:
    if sampler in ("uniform", "sobol"):
        found = drawn(space("random", sampler, **CONDITIONAL), 20)
    else:
        few = {"num_startup_trials": 8}
        chosen = space("bayesian", sampler, sampler_arguments=few, **CONDITIONAL)
        found = [dict(s.point) for s in learned(chosen, 12, sum_of_numbers)]
    schedules = {point["training_config.schedule"] for point in found}
    assert len(schedules) > 1
    for point in found:
        schedule = point["training_config.schedule"]
        assert ("training_config.weight_decay" in point) == (schedule != "constant_with_warmup")
        assert ("warmup_steps" in point) == (schedule == "linear")


# --- TPE and GP -----------------------------------------------------------------------------------

LEARNERS = pytest.mark.parametrize("sampler", ["tpe", "gp"])


def bayesian(sampler: str, **more: Any) -> SearchSpace:
    arguments = {"num_startup_trials": 4}
    return space("bayesian", sampler, sampler_arguments=arguments, **more)


@functools.cache
def history(sampler: str) -> tuple[SearchSpace, list[Seen]]:
    chosen = bayesian(sampler, **MIXED)
    return chosen, learned(chosen, 10, sum_of_numbers)


@LEARNERS
def test_a_proposal_follows_from_the_seed_the_number_and_what_was_seen(sampler: str) -> None:
    chosen, seen = history(sampler)
    for index in (0, 3, 7, 9):
        assert asked(chosen, seen[:index]) == seen[index].point
    assert asked(chosen, seen) == asked(chosen, list(seen))
    assert asked(chosen, seen, seed=1) != asked(chosen, seen)
    assert asked(chosen, seen[:1], seed=1) != asked(chosen, seen[:1])


@LEARNERS
def test_a_proposal_hangs_on_the_results(sampler: str) -> None:
    chosen, seen = history(sampler)
    assert seen[-1].objectives is not None
    other = [Seen(s.point, (-s.objectives[0],)) for s in seen if s.objectives]
    assert asked(chosen, other) != asked(chosen, seen)


@LEARNERS
def test_every_proposal_has_values_of_its_parameters_and_none_comes_twice(sampler: str) -> None:
    chosen, seen = history(sampler)
    assert len({written(s.point) for s in seen}) == len(seen)
    for point in (one.point for one in seen):
        assert list(point) == [p.name for p in chosen.points().parameters]
        assert point["target_modules"] in MIXED["HPARAM_CANDIDATES"]["target_modules"]
        assert point["batch_size"] in (32, 4, 16)
        assert point["lora_alpha"] in (8.0, 16.0, 32.0)
        assert point["spelling_augmentation"] in (False, True)
        assert type(point["lora_r"]) is int
        assert 4 <= point["lora_r"] <= 64
        assert 1e-5 <= point["learning_rate"] <= 5e-3
        assert point["learning_rate"] == float(f"{point['learning_rate']:.4g}")
        # Exactly a tenth, not what tenths add up to.
        assert point["lora_dropout"] in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
        assert type(point["max_steps"]) is int
        assert point["max_steps"] in range(500, 5001, 500)
        assert 0.3 <= point["spelling_data_ratio"] <= 1.0


@LEARNERS
def test_a_small_space_is_used_up_without_the_default_and_then_says_so(sampler: str) -> None:
    candidates = {"lora_r": [4, 8, 16], "spelling_difficulty": ["hard", "easy"]}
    default: Point = {"lora_r": 8, "spelling_difficulty": "easy"}
    chosen = bayesian(sampler, HPARAM_CANDIDATES=candidates)
    seen = learned(chosen, 5, sum_of_numbers, default=default)
    found = {written(s.point) for s in seen}
    assert len(found) == 5
    assert written(default) not in found
    with pytest.raises(ConfigError, match="^all points of the space are used up after 5 proposals"):
        asked(chosen, seen, default=default)


@LEARNERS
def test_two_objectives_are_learned_from(sampler: str) -> None:
    rate = {"lora_dropout": {"low": 0.0, "high": 0.9}}
    chosen = bayesian(sampler, HPARAM_RANGE=rate, objectives=["spelling", "transfer"])

    def both(point: Point) -> tuple[float, ...]:
        # The front lies between 0.2 and 0.3.
        return -abs(point["lora_dropout"] - 0.2), -abs(point["lora_dropout"] - 0.3)

    seen = learned(chosen, 9, both)
    assert len({s.point["lora_dropout"] for s in seen}) == 9
    assert asked(chosen, seen) == asked(chosen, seen)
    swapped = [Seen(s.point, (0.0, float(s.point["lora_dropout"]))) for s in seen]
    assert asked(chosen, swapped) != asked(chosen, seen)


@LEARNERS
def test_running_and_failed_trials_are_taken_and_not_proposed_again(sampler: str) -> None:
    candidates = {"lora_r": [4, 8, 16], "batch_size": [4, 8, 16]}
    chosen = bayesian(sampler, HPARAM_CANDIDATES=candidates)
    seen: list[Seen] = []
    for index in range(9):
        point = asked(chosen, seen, default={})
        state = (Seen(point, (1.0,)), Seen(point, None), Seen(point, None, is_running=True))
        seen.append(state[index % 3])
    assert {written(s.point) for s in seen} == {written(p) for p in chosen.points()}


@LEARNERS
def test_a_seen_point_that_the_space_does_not_have_teaches_nothing_and_harms_nothing(
    sampler: str,
) -> None:
    """The default of a study may lie outside the values that are searched."""
    chosen = bayesian(sampler, HPARAM_CANDIDATES={"lora_r": [4, 8], "batch_size": [4, 16]})
    outside = Seen({"lora_r": 16, "batch_size": 4}, (1.0,))
    point = asked(chosen, [outside] * 6)
    chosen.points().check(point)


def distance(point: Any) -> float:
    return abs(math.log10(point["learning_rate"]) - math.log10(3e-4))


@pytest.mark.parametrize(("sampler", "num_asked"), [("tpe", 20), ("gp", 3)])
def test_after_25_results_proposals_are_nearer_to_the_optimum_than_independent_draws(
    sampler: str, num_asked: int
) -> None:
    parts: dict[str, Any] = {
        "HPARAM_RANGE": {"learning_rate": {"low": 1e-6, "high": 1e-1, "scale": "log"}},
        "HPARAM_CANDIDATES": {"spelling_difficulty": ["easy", "medium", "hard"]},
    }
    chance = drawn(space("random", **parts), 200)
    seen = [Seen(point, (-distance(point),)) for point in chance[:25]]
    chosen = space("bayesian", sampler, **parts)
    found = [distance(asked(chosen, seen, seed)) for seed in range(num_asked)]
    assert sum(found) / num_asked < 0.5 * sum(map(distance, chance)) / len(chance)


@pytest.mark.parametrize(("sampler", "num_asked"), [("tpe", 20), ("gp", 3)])
def test_where_trials_were_stopped_early_is_no_unknown_land(sampler: str, num_asked: int) -> None:
    parts: dict[str, Any] = {
        "HPARAM_RANGE": {"learning_rate": {"low": 1e-6, "high": 1e-1, "scale": "log"}}
    }
    chosen = space("bayesian", sampler, **parts)

    def share_of_high(is_pruned: bool) -> float:
        seen = [
            # The higher, the better, until all of them are stopped.
            Seen(point, (math.log10(point["learning_rate"]),))
            if point["learning_rate"] < 1e-4
            else Seen(point, None, is_pruned=is_pruned)
            for point in drawn(space("random", **parts), 25)
        ]
        found = [asked(chosen, seen, seed)["learning_rate"] for seed in range(num_asked)]
        return sum(rate > 1e-3 for rate in found) / num_asked

    assert share_of_high(is_pruned=True) < 0.2 < share_of_high(is_pruned=False)


# --- samplers of the user's own -------------------------------------------------------------------

OWN = """
import math

class Scripted:
    '''Proposes what it is told, one after another.'''

    def __init__(self, script=({"lora_r": 8},)):
        self.script = script

    def propose(self, points, index, seed, seen):
        return self.script[min(index, len(self.script) - 1)]

class ByUnits:
    '''Uses everything that a sampler is given.'''

    def propose(self, points, index, seed, seen):
        assert len(seen) == index
        units = [math.modf((seed % 1000 + i) * 0.618)[0] for i, _ in enumerate(points.parameters)]
        return points.from_units(units)

class Refusing:
    def __init__(self):
        raise OSError("no\\n  licence")

class Failing:
    def propose(self, points, index, seed, seen):
        raise KeyError("lost\\nand found")

class Leaving:
    def propose(self, points, index, seed, seen):
        return None

class Mute:
    pass

class Learned:
    '''Proposes the successor of the last point.'''

    def propose(self, points, index, seed, seen):
        return points.at(points.index_of(seen[-1].point) + 1 if seen else 0)

number = 3
"""
RANK = {"HPARAM_CANDIDATES": {"lora_r": [4, 8, 16, 32]}}


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the search path with the module `own_sampler_of_a_test`."""
    (tmp_path / "own_sampler_of_a_test.py").write_text(OWN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("own_sampler_of_a_test", None)


def own(name: str, strategy: str = "random", **more: Any) -> SearchSpace:
    return space(strategy, f"own_sampler_of_a_test:{name}", **{**RANK, **more})


@pytest.mark.usefixtures("own_module")
def test_an_own_class_gets_its_arguments_and_its_points_are_taken_in_order() -> None:
    script = [{"lora_r": 8}, {"lora_r": 32}, {"lora_r": 4}]
    chosen = own("Scripted", sampler_arguments={"script": script})
    assert drawn(chosen, 3) == script


@pytest.mark.usefixtures("own_module")
def test_an_own_class_that_repeats_itself_is_helped_out_with_random_points() -> None:
    stream = draws(own("Scripted"), own("Scripted").points(), 0, {"lora_r": 16})
    found = [next(stream)["lora_r"] for _ in range(3)]
    assert found[0] == 8
    assert sorted(found[1:]) == [4, 32]
    with pytest.raises(ConfigError, match="^all points of the space are used up after 3 proposals"):
        next(stream)


@pytest.mark.usefixtures("own_module")
def test_an_own_class_is_given_the_space_and_a_seed_of_each_draw() -> None:
    chosen = own("ByUnits", **MIXED)
    found = drawn(chosen, 12, seed=5)
    assert len({written(point) for point in found}) == 12
    assert drawn(chosen, 12, seed=5) == found
    assert drawn(chosen, 12, seed=6) != found


@pytest.mark.usefixtures("own_module")
def test_an_own_class_sees_what_was_proposed_before() -> None:
    assert [p["lora_r"] for p in drawn(own("Learned"), 3, default={"lora_r": 32})] == [4, 8, 16]


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "kind", "law"),
    [
        (
            "own_sampler_of_a_test:Mute",
            ConfigError,
            "sampler own_sampler_of_a_test:Mute has no method propose(points, index, seed, seen)",
        ),
        (
            "own_sampler_of_a_test:Refusing",
            ConfigError,
            "sampler own_sampler_of_a_test:Refusing cannot be made: OSError: no licence",
        ),
        (
            "own_sampler_of_a_test:number",
            ConfigError,
            "sampler own_sampler_of_a_test:number cannot be made: "
            "TypeError: 'int' object is not callable",
        ),
        (
            "own_sampler_of_a_test:Missing",
            ConfigError,
            "sampler own_sampler_of_a_test:Missing cannot be imported: AttributeError: "
            "module 'own_sampler_of_a_test' has no attribute 'Missing'",
        ),
        (
            "no_such_module:Any",
            ConfigError,
            "sampler no_such_module:Any cannot be imported: "
            "ModuleNotFoundError: No module named 'no_such_module'",
        ),
        (
            ":Any",
            ConfigError,
            "sampler :Any cannot be imported: ValueError: Empty module name",
        ),
        (
            "unifrom",
            NotFoundError,
            "sampler unifrom: no such sampler; did you mean uniform?, or module:name",
        ),
    ],
)
def test_a_sampler_that_cannot_be_had_is_one_clear_line(
    name: str, kind: type[UserError], law: str
) -> None:
    for strategy in ("random", "bayesian"):
        with pytest.raises(kind) as caught:
            sampler_of(space(strategy, name, **RANK))
        assert str(caught.value) == law
    with pytest.raises(kind) as caught:
        drawn(space("random", name, **RANK), 1)
    assert str(caught.value) == law


@pytest.mark.usefixtures("own_module")
def test_arguments_that_an_own_class_does_not_take_are_one_clear_line() -> None:
    with pytest.raises(ConfigError, match=r"^sampler .*:Scripted cannot be made: TypeError: .*dpi"):
        sampler_of(own("Scripted", sampler_arguments={"dpi": 3}))


@pytest.mark.usefixtures("own_module")
def test_a_module_that_fails_on_import_is_one_clear_line(own_module: Path) -> None:
    (own_module / "broken_sampler_of_a_test.py").write_text("def (", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be imported: SyntaxError: ") as caught:
        sampler_of(space("random", "broken_sampler_of_a_test:Any", **RANK))
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "arguments", "law"),
    [
        ("Failing", {}, "sampler Failing failed at proposal 0: KeyError: 'lost\\nand found'"),
        (
            "Leaving",
            {},
            "sampler Leaving failed at proposal 0: AttributeError: 'NoneType' object has no attribute 'items'",
        ),
        (
            "Scripted",
            {"script": [{"lora_r": 5}]},
            "sampler Scripted failed at proposal 0: ConfigError: lora_r: 5 is none of its values",
        ),
        (
            "Scripted",
            {"script": [{"lora_r": 4, "rank": 8}]},
            "sampler Scripted failed at proposal 0: ConfigError: rank: no parameter of the space; "
            "known: lora_r",
        ),
        (
            "Scripted",
            {"script": [{}]},
            "sampler Scripted failed at proposal 0: ConfigError: "
            "lora_r: the point must give it a value",
        ),
    ],
)
def test_an_own_class_that_fails_is_one_clear_line(
    name: str, arguments: dict[str, Any], law: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        drawn(own(name, sampler_arguments=arguments), 1)
    assert str(caught.value) == law
    with pytest.raises(ConfigError) as caught:
        asked(own(name, "bayesian", sampler_arguments=arguments), [])
    assert str(caught.value) == law


@pytest.mark.usefixtures("own_module")
def test_a_later_failure_names_its_proposal() -> None:
    script = [{"lora_r": 8}, {"lora_r": 4}, {"lora_r": "many"}]
    chosen = own("Scripted", sampler_arguments={"script": script})
    with pytest.raises(ConfigError, match="failed at proposal 2: .*'many' is none of its values"):
        drawn(chosen, 3)


NUMPY = """
import numpy

class Candidates:
    def propose(self, points, index, seed, seen):
        return {"lora_r": numpy.int64(8)}

class Range:
    def propose(self, points, index, seed, seen):
        return {"lora_dropout": numpy.float64(0.1)}
"""


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("Candidates", RANK),
        ("Range", {"HPARAM_RANGE": {"lora_dropout": {"low": 0.0, "high": 0.9}}}),
        ("Range", {"HPARAM_RANGE": {"lora_dropout": {"low": 0.0, "high": 0.9, "step": 0.1}}}),
    ],
    ids=["candidates", "range", "stepped range"],
)
def test_numbers_of_numpy_become_plain_data(
    own_module: Path, name: str, parts: dict[str, Any]
) -> None:
    (own_module / "numpy_sampler_of_a_test.py").write_text(NUMPY, encoding="utf-8")
    chosen = space("random", f"numpy_sampler_of_a_test:{name}", **parts)
    ((value,),) = (point.values() for point in drawn(chosen, 1, default={}))
    assert value in (8, 0.1)
    # A trial's parameters are written to JSON and compared as such.
    assert written(value) in ("8", "0.1")


@pytest.mark.usefixtures("own_module")
def test_a_whole_number_is_the_same_value_with_and_without_a_point() -> None:
    """A point with 5.0 for an integer is neither a new one, nor one that no configuration takes."""
    chosen = own(
        "Scripted",
        HPARAM_CANDIDATES={},
        HPARAM_RANGE={"lora_r": {"low": 4, "high": 6}},
        sampler_arguments={"script": [{"lora_r": 5}, {"lora_r": 5.0}]},
    )
    with contextlib.suppress(ConfigError):
        found = [point["lora_r"] for point in drawn(chosen, 2)]
        assert found[0] == 5
        assert found[1] in (4, 6)
        assert all(type(value) is int for value in found)


# --- entry points ---------------------------------------------------------------------------------


def test_a_package_can_offer_a_sampler_by_its_name(own_module: Path) -> None:
    folder = own_module / "fake_samplers-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: fake-samplers\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(
        "[tuning.samplers]\n"
        "scripted = own_sampler_of_a_test:Scripted\n"
        "gone = own_sampler_of_a_test:Gone\n"
    )
    chosen = space("random", "scripted", sampler_arguments={"script": [{"lora_r": 32}]}, **RANK)
    assert drawn(chosen, 1) == [{"lora_r": 32}]
    with pytest.raises(NotFoundError, match="sampler skripted: .*did you mean scripted"):
        sampler_of(space("random", "skripted", **RANK))
    with pytest.raises(ConfigError, match="^sampler gone cannot be imported: AttributeError: "):
        sampler_of(space("random", "gone", **RANK))
