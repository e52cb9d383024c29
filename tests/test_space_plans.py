"""Laws of `tuning.grid`: plans of all four strategies, counting, and the shipped spaces."""

from __future__ import annotations

import functools
import itertools
import math
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuning import composition
from tuning import config as configs
from tuning.config import ExperimentConfig, build, field_value, kind_of, with_parameters
from tuning.counting import size_of, unique_trainings
from tuning.errors import ConfigError
from tuning.fingerprint import training_key, weights_key
from tuning.grid import (
    HPARAM_CANDIDATES,
    HPARAM_RANGE,
    Plan,
    Proposal,
    Result,
    base_experiment,
    check_size,
    create_grid_search_configs,
    create_hyperparameter_grid,
    load_space,
)
from tuning.search_space import SearchSpace

STAMP = "20260102_030405"
BASE = build({"experiment_name": "base", "timestamp": STAMP}, "test")

Raw = dict[str, Any]
Parameters = dict[str, Any]


def space(strategy: str, candidates: Raw | None = None, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {"strategy": strategy, "HPARAM_CANDIDATES": candidates or {}, **more}
    )


def planned(chosen: SearchSpace, seed: int = 0, step_scale: float = 1.0) -> Plan:
    return Plan(chosen, BASE, step_scale, seed)


def asked(proposals: Sequence[Proposal]) -> list[tuple[Parameters, int]]:
    return [(p.parameters, p.seed) for p in proposals]


# --- the whole product --------------------------------------------------------------------------


def test_a_grid_is_the_default_with_its_seeds_and_every_other_point_once() -> None:
    chosen = space("grid", {"lora_r": [4, 16], "spelling_difficulty": ["easy", "medium"]})
    plan = planned(chosen, seed=7)
    assert asked(list(plan)) == [
        ({}, 7),
        ({}, 8),
        ({}, 9),
        ({"lora_r": 4, "spelling_difficulty": "easy"}, 7),
        ({"lora_r": 4}, 7),
        ({"spelling_difficulty": "easy"}, 7),
    ]
    assert len(plan) == plan.num_trials == 3 + 3
    assert plan.num_configurations == 3
    assert not plan.is_adaptive


def test_a_grid_without_the_default_has_all_its_points_beside_it() -> None:
    plan = planned(space("grid", {"lora_r": [4, 8], "batch_size": [4, 16, 32]}))
    assert len(plan) == 3 + 6
    assert [p.parameters for p in plan[3:]] == [
        {"lora_r": r, "batch_size": b} for r in (4, 8) for b in (4, 16, 32)
    ]


def test_a_grid_of_nothing_but_the_default_has_its_seeds() -> None:
    assert asked(list(planned(space("grid", {"lora_r": [16]})))) == [({}, 0), ({}, 1), ({}, 2)]


def test_a_grid_has_ranges_with_steps_and_leaves_out_what_its_conditions_do() -> None:
    chosen = space(
        "grid",
        {"training_config.schedule": ["constant_with_warmup", "cosine"]},
        HPARAM_RANGE={"training_config.weight_decay": {"low": 0.1, "high": 0.3, "step": 0.1}},
        conditions={"training_config.weight_decay": {"training_config.schedule": "cosine"}},
    )
    made = list(planned(chosen))
    cosine = {"training_config.schedule": "cosine"}
    assert [p.parameters for p in made[3:]] == [
        {**cosine, "training_config.weight_decay": decay} for decay in (0.1, 0.2, 0.3)
    ]
    assert [p.config.training_config.weight_decay for p in made] == [0.0] * 3 + [0.1, 0.2, 0.3]


def test_a_trial_is_had_by_its_number_and_there_are_no_others() -> None:
    plan = planned(space("grid", {"lora_r": [4, 8, 16], "batch_size": [4, 8]}))
    made = list(plan)
    assert [plan[i] for i in range(len(plan))] == made
    assert plan[2:5] == made[2:5]
    with pytest.raises(IndexError):
        plan[len(plan)]
    assert [p.trial_id.split("-")[0] for p in made] == [f"{i:04d}" for i in range(len(plan))]
    assert len({p.trial_id for p in made}) == len(made)
    assert plan.propose(4, []) == made[4]
    assert list(plan.known()) == made


# --- seeds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_at_a_time", "grid", "random"])
def test_all_configurations_have_the_first_seed_before_any_has_the_second(strategy: str) -> None:
    more = {"num_trials": 2} if strategy == "random" else {}
    chosen = space(strategy, {"lora_r": [4, 8]}, replicates=2, **more)
    made = asked(list(planned(chosen, seed=5)))
    assert made[:3] == [({}, 5), ({}, 6), ({}, 7)]
    assert sorted(p["lora_r"] for p, _ in made[3:5]) == [4, 8]
    assert [seed for _, seed in made[3:]] == [5, 5, 6, 6]
    assert [p for p, _ in made[5:]] == [p for p, _ in made[3:5]]


def test_the_default_has_at_least_as_many_seeds_as_the_others() -> None:
    chosen = space("grid", {"lora_r": [4]}, replicates=4, replicates_of_default=2)
    assert asked(list(planned(chosen))) == [
        *(({}, seed) for seed in range(4)),
        *(({"lora_r": 4}, seed) for seed in range(4)),
    ]


def result_of(proposal: Proposal) -> Result:
    rate = proposal.config.training_config.learning_rate
    return Result(proposal, (-abs(math.log10(rate) + 3.5),))


def run(plan: Plan, count: int) -> list[Result]:
    results: list[Result] = []
    for index in range(count):
        results.append(result_of(plan.propose(index, results)))
    return results


BAYESIAN: Raw = {
    "HPARAM_RANGE": {"learning_rate": {"low": 1e-5, "high": 5e-3, "scale": "log"}},
    "sampler_arguments": {"num_startup_trials": 4},
}


def test_a_bayesian_search_has_the_seeds_of_a_configuration_together() -> None:
    chosen = space("bayesian", {"lora_r": [4, 8, 16]}, num_trials=3, replicates=2, **BAYESIAN)
    plan = planned(chosen, seed=5)
    assert plan.num_trials == 3 + 3 * 2
    made = asked([r.proposal for r in run(plan, plan.num_trials)])
    assert made[:3] == [({}, 5), ({}, 6), ({}, 7)]
    assert [seed for _, seed in made[3:]] == [5, 6, 5, 6, 5, 6]
    pairs = [(made[i][0], made[i + 1][0]) for i in (3, 5, 7)]
    assert all(first == second for first, second in pairs)
    assert len({repr(first) for first, _ in pairs}) == 3


# --- random -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_a_larger_random_plan_begins_with_the_smaller_one_and_repeats_nothing(sampler: str) -> None:
    candidates = create_hyperparameter_grid()
    few = list(planned(space("random", candidates, sampler=sampler, num_trials=20), seed=3))
    many = list(planned(space("random", candidates, sampler=sampler, num_trials=50), seed=3))
    assert len(few) == 23
    assert len(many) == 53
    assert asked(many[:23]) == asked(few)
    assert many[:23] == few
    drawn = [configs.to_yaml(p.config) for p in many[3:]]
    assert len(set(drawn)) == 50
    assert all(p.parameters for p in many[3:])
    other = planned(space("random", candidates, sampler=sampler, num_trials=20), seed=4)
    assert [p.parameters for p in other[3:]] != [p.parameters for p in few[3:]]


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_twenty_configurations_are_drawn_if_no_number_is_given(strategy: str) -> None:
    assert planned(space(strategy, **BAYESIAN | {"sampler_arguments": {}})).num_configurations == 20


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_of_few_points_all_are_drawn_if_no_number_is_given(strategy: str) -> None:
    without = planned(space(strategy, {"lora_r": [4, 8]}))
    assert sorted(r.proposal.parameters["lora_r"] for r in run(without, 5)[3:]) == [4, 8]
    # The default, r 16, is tried anyway, so that one is left.
    plan = planned(space(strategy, {"lora_r": [8, 16]}))
    assert plan.num_configurations == 1
    assert [r.proposal.parameters for r in run(plan, plan.num_trials)][3:] == [{"lora_r": 8}]


# --- every strategy -----------------------------------------------------------------------------------

# What several of these make together breaks no law, but for r and alpha; they are not searched
# together here.
SEPARATE = [name for name in HPARAM_CANDIDATES if name != "lora_alpha"]


@st.composite
def spaces(draw: st.DrawFn, strategy: str) -> SearchSpace:
    names = draw(st.lists(st.sampled_from(SEPARATE), min_size=2, max_size=5, unique=True))
    candidates: Raw = {}
    ranges: Raw = {}
    for name in names:
        own = HPARAM_RANGE.get(name)
        is_countable = own is not None and (own.step is not None or name == "lora_r")
        may_be_range = own is not None and (strategy != "grid" or is_countable)
        if may_be_range and draw(st.booleans()):
            ranges[name] = own
        else:
            values = HPARAM_CANDIDATES[name]
            candidates[name] = [
                list(v) if isinstance(v, tuple) else v
                for v in draw(st.lists(st.sampled_from(values), min_size=1, unique=True))
            ]
    parents = [name for name in names if name in candidates and name != "target_modules"]
    conditions: Raw = {}
    if parents and draw(st.booleans()):
        parent = draw(st.sampled_from(parents))
        child = draw(st.sampled_from([n for n in names if n != parent]))
        # Where it does not exist it has its default, which is legal with all values of others.
        conditions[child] = {parent: draw(st.sampled_from(candidates[parent]))}
    made = SearchSpace.model_validate(
        {
            "strategy": strategy,
            "HPARAM_CANDIDATES": candidates,
            "HPARAM_RANGE": ranges,
            "conditions": conditions,
            "sampler": draw(st.sampled_from(SAMPLERS[strategy])),
        }
    )
    if strategy == "grid":
        return made
    # One of the points may be the default, which is not drawn.
    points = made.points()
    most = min(9, points.count - 1) if points.is_countable else 9
    assume(most > 0)
    return made.model_copy(update={"num_trials": most})


SAMPLERS: dict[str, list[str | None]] = {
    "grid": [None],
    "random": [None, "sobol"],
    "bayesian": [None],
}


@pytest.mark.parametrize("strategy", SAMPLERS)
@given(data=st.data(), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_every_proposal_is_a_configuration_of_its_parameters_and_none_comes_twice(
    strategy: str, data: st.DataObject, seed: int
) -> None:
    plan = planned(data.draw(spaces(strategy)), seed)
    count = min(plan.num_trials, 12)
    results: list[Result] = []
    for index in range(count):
        proposal = plan.propose(index, results)
        results.append(Result(proposal, (float(index % 3),)))
    for index, (proposal, *_) in enumerate(results):
        expected = with_parameters(BASE, proposal.parameters).model_dump(mode="json")
        expected["training_config"]["seed"] = proposal.seed
        assert proposal.config == build(expected, "test")
        assert (proposal.parameters == {}) == (index < 3)
    texts = {configs.to_yaml(r.proposal.config) for r in results}
    assert len(texts) == count


# --- bayesian -------------------------------------------------------------------------------------------


def test_a_bayesian_search_goes_on_after_an_interruption_as_if_there_were_none() -> None:
    chosen = space("bayesian", {"lora_r": [4, 8, 16]}, num_trials=8, **BAYESIAN)
    plan = planned(chosen)
    assert plan.is_adaptive
    results = run(plan, 11)
    assert plan.propose(9, results[:9]) == plan.propose(9, results[:9]) == results[9].proposal
    resumed = planned(chosen)
    assert resumed.propose(9, results[:9]) == results[9].proposal
    assert resumed.propose(10, results[:10]) == results[10].proposal
    assert asked([r.proposal for r in run(resumed, 11)]) == asked([r.proposal for r in results])
    assert list(plan.known()) == [r.proposal for r in results[:3]]


def test_a_bayesian_search_hangs_on_its_results() -> None:
    chosen = space("bayesian", num_trials=8, **BAYESIAN)
    results = run(planned(chosen), 9)
    other = [r._replace(objectives=(-r.objectives[0],)) for r in results if r.objectives]
    assert planned(chosen).propose(9, other) != planned(chosen).propose(9, results)


@pytest.mark.parametrize(
    ("strategy", "given", "says"),
    [
        ("listed", {}, "1 trial: the default on 1 seed"),
        ("grid", {"lora_r": [4, 8]}, "3 trials: the default on 1 seed, 2 other configurations"),
        (
            "grid",
            {"lora_r": [4], "replicates": 2},
            "4 trials: the default on 2 seeds, 1 other configuration on 2 seeds",
        ),
        (
            "one_at_a_time",
            {"arms": ["direct"], "lora_r": [4], "replicates_of_default": 3},
            "7 trials: the default on 3 seeds, 1 control likewise, 1 other configuration",
        ),
    ],
)
def test_a_plan_says_what_its_trials_are(strategy: str, given: dict[str, Any], says: str) -> None:
    counts = {k: given[k] for k in given if k.startswith("replicates") or k == "arms"}
    lists = {k: given[k] for k in given if k not in counts}
    chosen = space(strategy, lists, **{"replicates_of_default": 1, **counts})
    assert planned(chosen).says == says
    assert int(says.split()[0]) == planned(chosen).num_trials


def test_running_and_failed_trials_are_no_hindrance() -> None:
    chosen = space("bayesian", {"lora_r": [4, 8, 32]}, **BAYESIAN)
    plan = planned(chosen)
    results = run(plan, 8)
    results[5] = Result(results[5].proposal, None)
    results[7] = Result(results[7].proposal, None, is_running=True)
    found = plan.propose(8, results)
    assert found.parameters not in [r.proposal.parameters for r in results]


def test_a_bayesian_search_hangs_on_its_first_seed() -> None:
    chosen = space("bayesian", num_trials=8, **BAYESIAN)
    first, again, other = (planned(chosen, seed).propose(3, []) for seed in (1, 1, 2))
    assert first == again
    assert first.parameters != other.parameters


RECORDER = """
SEEN = []

class Recorder:
    def propose(self, points, index, seed, seen):
        SEEN.append([(dict(s.point), s.objectives, s.is_running) for s in seen])
        return points.at(index)
"""


@pytest.fixture
def recorder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[Any]]]:
    """A module with a sampler of the user's own, and what it has been shown."""
    (tmp_path / "recorder_of_a_test.py").write_text(RECORDER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda: list(sys.modules["recorder_of_a_test"].SEEN)
    sys.modules.pop("recorder_of_a_test", None)


def test_a_sampler_sees_steps_as_the_space_has_them_not_as_they_are_scaled(
    recorder: Callable[[], list[Any]],
) -> None:
    chosen = space(
        "bayesian",
        {"max_steps": [500, 2000]},
        sampler="recorder_of_a_test:Recorder",
        replicates_of_default=1,
    )
    plan = planned(chosen, step_scale=0.1)
    results = [Result(plan.propose(0, []), (1.0,))]
    results.append(Result(plan.propose(1, results), (2.0,), is_running=False))
    results.append(Result(plan.propose(2, results), None, is_running=True))
    assert [r.proposal.config.training_config.max_steps for r in results] == [100, 50, 200]
    assert recorder() == [
        [({"max_steps": 1000}, (1.0,), False)],
        [({"max_steps": 1000}, (1.0,), False), ({"max_steps": 500}, (2.0,), False)],
    ]
    plan.propose(2, [results[0], results[1]._replace(objectives=None, is_running=True)])
    assert recorder()[-1][-1] == ({"max_steps": 500}, None, True)


def test_a_sampler_sees_whole_points_though_trials_name_only_what_differs(
    recorder: Callable[[], list[Any]],
) -> None:
    chosen = space(
        "bayesian",
        {
            "lora_r": [4, 16],
            "spelling_difficulty": ["easy", "medium"],
            "batch_size": [4, 8],
        },
        conditions={"batch_size": {"spelling_difficulty": "medium"}},
        sampler="recorder_of_a_test:Recorder",
        replicates_of_default=1,
    )
    plan = planned(chosen)
    results = run(plan, 3)
    assert [r.proposal.parameters for r in results] == [
        {},
        {"lora_r": 4, "spelling_difficulty": "easy"},
        {"lora_r": 4, "batch_size": 4},
    ]
    plan.propose(3, results)
    assert [point for point, *_ in recorder()[-1]] == [
        {"lora_r": 16, "spelling_difficulty": "medium", "batch_size": 8},
        {"lora_r": 4, "spelling_difficulty": "easy"},
        {"lora_r": 4, "spelling_difficulty": "medium", "batch_size": 4},
    ]


# --- counting ---------------------------------------------------------------------------------------------

VALUES: Raw = {
    "lora_r": [4, 16],
    "learning_rate": [1e-4, 2e-4],
    "max_steps": [500, 1000, 2000],
    "spelling_difficulty": ["easy", "medium", "hard"],
    "position_task_weight": [0.3, 0.5],
    "gpu_tier": ["cpu", "a100"],
    "analyze_thinking_mode": [False, True],
    "transfer_eval_frequency": [50, 100],
    "training_config.schedule": ["constant_with_warmup", "cosine"],
    "training_config.weight_decay": [0.0, 0.1],
    "target_modules": [["q_proj", "v_proj"], ["v_proj", "q_proj"], ["q_proj"]],
}
STEPPED: dict[str, tuple[Raw, list[Any]]] = {
    "warmup_steps": ({"low": 0, "high": 100, "step": 50}, [0, 50, 100]),
    "lora_dropout": ({"low": 0.1, "high": 0.3, "step": 0.1}, [0.1, 0.2, 0.3]),
    "count_task_weight": ({"low": 0.25, "high": 0.5, "step": 0.25}, [0.25, 0.5]),
}


@st.composite
def small_products(draw: st.DrawFn) -> tuple[Raw, dict[str, list[Any]], Raw]:
    """A space of at most 108 points as a mapping, its values by name, and its conditions."""
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True))
    stepped = draw(st.lists(st.sampled_from(sorted(STEPPED)), max_size=1))
    values = {name: VALUES[name] for name in names} | {n: STEPPED[n][1] for n in stepped}
    conditions: Raw = {}
    for place, child in enumerate([*names, *stepped]):
        parents = [n for n in names[:place] if n != "target_modules"]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            wanted = st.lists(st.sampled_from(VALUES[parent]), min_size=1, max_size=2, unique=True)
            conditions[child] = {parent: draw(wanted)}
    raw: Raw = {
        "strategy": "grid",
        "HPARAM_CANDIDATES": {n: VALUES[n] for n in names},
        "HPARAM_RANGE": {n: STEPPED[n][0] for n in stepped},
        "conditions": conditions,
    }
    return raw, values, conditions


def every_configuration(values: dict[str, list[Any]], conditions: Raw) -> list[ExperimentConfig]:
    """All combinations, in which a child whose condition is not met has its default."""
    found = []
    for choice in itertools.product(*values.values()):
        point = dict(zip(values, choice, strict=True))
        # A parent always stands before its children.
        for child in values:
            for parent, wanted in conditions.get(child, {}).items():
                if point.get(parent) not in wanted:
                    point.pop(child, None)
        found.append(with_parameters(BASE, point))
    return found


@given(product=small_products())
@settings(max_examples=40, deadline=None)
def test_unique_trainings_are_those_that_listing_all_configurations_finds(
    product: tuple[Raw, dict[str, list[Any]], Raw],
) -> None:
    raw, values, conditions = product
    listed = every_configuration(values, conditions)
    found = unique_trainings(SearchSpace.model_validate(raw), BASE)
    assert found is not None
    assert found.num_weights == len({weights_key(c) for c in listed})
    assert found.num_trainings == len({training_key(c) for c in listed})


def test_under_another_schedule_each_length_is_a_training_of_its_own() -> None:
    """500 is a part of 1000 under the constant schedule, and none under cosine."""
    schedules = {"training_config.schedule": ["constant_with_warmup", "cosine"]}
    assert unique_trainings(space("grid", {**schedules, "max_steps": [500, 1000]}), BASE) == (4, 3)
    lengths = {"max_steps": {"low": 500, "high": 1000, "step": 100}}
    assert unique_trainings(space("grid", schedules, HPARAM_RANGE=lengths), BASE) == (12, 7)


def test_values_that_are_legal_only_together_are_counted() -> None:
    """With the default's warm-up of 100 steps, 50 steps are illegal."""
    warmups = {"warmup_steps": [0, 10]}
    assert unique_trainings(space("grid", {**warmups, "max_steps": [50, 200]}), BASE) == (4, 2)
    lengths = {"max_steps": {"low": 50, "high": 200, "step": 50}}
    assert unique_trainings(space("grid", warmups, HPARAM_RANGE=lengths), BASE) == (8, 2)
    pairs = {"lora_r": [1024], "lora_alpha": [64, 128]}
    assert unique_trainings(space("grid", pairs), BASE) == (2, 2)


def test_a_range_of_real_numbers_has_no_number_of_trainings() -> None:
    assert unique_trainings(space("random", **BAYESIAN | {"sampler_arguments": {}}), BASE) is None


def test_one_at_a_time_is_counted_with_its_default_and_one_seed() -> None:
    chosen = space("one_at_a_time", {"lora_r": [4, 16], "max_steps": [500]}, replicates=3)
    assert unique_trainings(chosen, BASE) == (3, 2)
    # Default, r 4 and 500 steps, three seeds each.
    assert size_of(chosen, BASE) == (3, 9)


def test_what_breaks_a_law_is_not_counted() -> None:
    for count in (unique_trainings, size_of):
        with pytest.raises(ConfigError, match=r"HPARAM_CANDIDATES\.lora_r\.0"):
            count(space("grid", {"lora_r": [0]}), BASE)


def shipped(name: str) -> tuple[SearchSpace, ExperimentConfig]:
    chosen = load_space(name)
    return chosen, base_experiment(chosen, name, STAMP)


@pytest.mark.parametrize(
    ("name", "num_configurations", "num_trials", "num_weights", "num_trainings"),
    [
        ("default", 31, 33, 24, 21),
        ("small", 27, 29, 23, 20),
        # 4^6 * 3^5 * 2^2 points, the default among them.
        ("default_grid", 3_981_312, 3_981_314, 73_728, 18_432),
        # 4^6 * 3^4 points.
        ("small_grid", 331_776, 331_778, 36_864, 9_216),
        ("random", 3_981_312, 53, 73_728, 18_432),
    ],
)
def test_shipped_spaces_have_as_many_trials_and_trainings_as_their_numbers_say(
    name: str, num_configurations: int, num_trials: int, num_weights: int, num_trainings: int
) -> None:
    chosen, base = shipped(name)
    assert size_of(chosen, base) == (num_configurations, num_trials)
    assert unique_trainings(chosen, base) == (num_weights, num_trainings)


def test_the_shipped_bayesian_space_cannot_be_counted() -> None:
    chosen, base = shipped("bayesian")
    assert size_of(chosen, base) == (None, 43)
    assert unique_trainings(chosen, base) is None


def test_a_plan_that_nobody_could_run_is_refused() -> None:
    law = "a study runs at most 10,000 trials, this space makes 3,981,314; draw from it with"
    chosen, base = shipped("default_grid")
    with pytest.raises(ConfigError, match=law):
        check_size(Plan(chosen, base, 1.0, 0))
    for name in ("default", "random", "demo", "bayesian"):
        chosen, base = shipped(name)
        check_size(Plan(chosen, base, chosen.step_scale, 0))


def test_the_largest_plan_that_may_run_has_ten_thousand_trials() -> None:
    values = {"max_steps": {"low": 100, "high": 10_096, "step": 1}}
    chosen = space("grid", HPARAM_RANGE=values, replicates_of_default=3)
    # 9,997 values, of which the default's own is not tried twice.
    assert planned(chosen).num_trials == 9_999
    check_size(planned(chosen))
    check_size(planned(chosen.model_copy(update={"replicates_of_default": 4})))
    with pytest.raises(ConfigError, match=r"at most 10,000 trials, this space makes 10,001"):
        check_size(planned(chosen.model_copy(update={"replicates_of_default": 5})))


def test_counting_and_picking_hold_no_list_of_points() -> None:
    chosen, base = shipped("default_grid")
    plan = Plan(chosen, base, 1.0, 0)
    generator = random.Random(0)
    tracemalloc.start()
    try:
        points = chosen.points()
        assert points.count == 3_981_312
        found = [points.at(generator.randrange(points.count)) for _ in range(1000)]
        found += [points.shuffled(index, seed=1) for index in range(100)]
        assert plan[plan.num_trials - 1].parameters
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == 1100
    assert peak < 5 * 2**20


# --- the default design as files -----------------------------------------------------------------------

FILES = {
    "default",
    "lora_r_4",
    "lora_r_8",
    "lora_r_32",
    "lora_alpha_8",
    "lora_alpha_16",
    "lora_alpha_64",
    "learning_rate_0.0001",
    "learning_rate_0.0005",
    "learning_rate_0.001",
    "batch_size_4",
    "batch_size_16",
    "batch_size_32",
    "grad_accum_steps_1",
    "grad_accum_steps_2",
    "grad_accum_steps_8",
    "max_steps_500",
    "max_steps_2000",
    "max_steps_5000",
    "spelling_data_ratio_0.5",
    "spelling_data_ratio_0.9",
    "spelling_difficulty_easy",
    "spelling_difficulty_hard",
    "position_task_weight_0.3",
    "position_task_weight_0.7",
    "count_task_weight_0.3",
    "count_task_weight_0.7",
    "gpu_tier_t4",
    "gpu_tier_a100",
    "use_english_only_tokens_true",
    "analyze_thinking_mode_true",
}


def flat_keys(raw: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(raw, dict):
        return {prefix: raw}
    parts = (flat_keys(value, f"{prefix}.{key}".lstrip(".")) for key, value in raw.items())
    return functools.reduce(lambda a, b: a | b, parts, {})


def test_the_default_design_is_31_files_that_differ_from_the_default_in_one_key(
    tmp_path: Path,
) -> None:
    written = create_grid_search_configs(config_dir=tmp_path)
    loaded = [composition.load(path) for path in written]
    stamp = loaded[0].timestamp
    names = [path.name.removesuffix(f"_{stamp}.yaml") for path in written]
    assert sorted(tmp_path.iterdir()) == sorted(written)
    assert len(names) == 31
    assert set(names) == {f"spelling_transfer_exp_{name}" for name in FILES}
    assert [config.experiment_name for config in loaded] == names
    assert names[0] == "spelling_transfer_exp_default"
    default, *others = (flat_keys(config.model_dump(mode="json")) for config in loaded)
    changed = [{k for k in d if d[k] != default[k]} - {"experiment_name"} for d in others]
    assert all(len(keys) == 1 for keys in changed)
    expected = {configs.FLAT_NAMES[name] for name in create_hyperparameter_grid()}
    assert set().union(*changed) == expected


def test_files_have_the_flat_name_however_the_space_writes_it(tmp_path: Path) -> None:
    dotted = {
        "lora_config.r": [4],
        "training_config.weight_decay": [0.1],
        "target_modules": [["q_proj", "v_proj"]],
        "spelling_config.augmentation": [False],
    }
    chosen = space("one_at_a_time", dotted)
    written = create_grid_search_configs("mine", space=chosen, base=BASE, config_dir=tmp_path)
    assert [path.name for path in written] == [
        f"mine_default_{STAMP}.yaml",
        f"mine_lora_r_4_{STAMP}.yaml",
        f"mine_training_config_weight_decay_0.1_{STAMP}.yaml",
        f"mine_target_modules_q_proj-v_proj_{STAMP}.yaml",
        f"mine_spelling_augmentation_false_{STAMP}.yaml",
    ]
    assert composition.load(written[1]).lora_config.r == 4


def test_seeds_are_not_written_twice_and_steps_are_scaled(tmp_path: Path) -> None:
    chosen = space("one_at_a_time", {"max_steps": [500]}, replicates=3)
    written = create_grid_search_configs(
        "x", space=chosen, base=BASE, step_scale=0.1, config_dir=tmp_path
    )
    assert [composition.load(p).training_config.max_steps for p in written] == [100, 50]


def test_only_one_at_a_time_is_written_as_files(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="a grid as files is the one_at_a_time design, got strategy grid"
    ):
        create_grid_search_configs(space=space("grid", {"lora_r": [4]}), config_dir=tmp_path / "x")
    with pytest.raises(ConfigError, match=r"lora_r\.0"):
        create_grid_search_configs(
            space=space("one_at_a_time", {"lora_r": [0]}), config_dir=tmp_path / "x"
        )
    assert not (tmp_path / "x").exists()


def test_a_model_is_varied_in_files_too(tmp_path: Path) -> None:
    """Its name holds a slash, which the name of a file cannot."""
    chosen = space("one_at_a_time", {"tokenizer_config.model_name": ["Qwen/Qwen3-0.6B"]})
    written = create_grid_search_configs("x", space=chosen, base=BASE, config_dir=tmp_path)
    found = [composition.load(path).tokenizer_config.model_name for path in written]
    assert found == ["Qwen/Qwen3-4B", "Qwen/Qwen3-0.6B"]


# --- the sets that ship --------------------------------------------------------------------------------


def test_every_numeric_hyperparameter_has_candidates_and_a_range() -> None:
    numeric = {n for n, key in configs.FLAT_NAMES.items() if kind_of(key) in ("integer", "number")}
    assert len(numeric) == 12
    assert set(HPARAM_RANGE) == numeric
    assert numeric < set(HPARAM_CANDIDATES)
    # An arm is a control, not a hyperparameter; a rule is how a subset is made, if there is one;
    # the others only turn machines on and off.
    rest = {"arm", "subset_rule", "auto_scale", "sleep_when_idle"}
    assert set(configs.FLAT_NAMES) - set(HPARAM_CANDIDATES) == rest


@pytest.mark.parametrize("name", HPARAM_CANDIDATES)
def test_all_shipped_candidates_are_legal(name: str) -> None:
    for value in HPARAM_CANDIDATES[name]:
        plain = list(value) if isinstance(value, tuple) else value
        assert field_value(configs.FLAT_NAMES[name], plain) == plain
        with_parameters(BASE, {name: plain})


@pytest.mark.parametrize("name", HPARAM_RANGE)
def test_the_ends_of_all_shipped_ranges_are_legal(name: str) -> None:
    for end in (HPARAM_RANGE[name].low, HPARAM_RANGE[name].high):
        assert field_value(configs.FLAT_NAMES[name], end) == end
        with_parameters(BASE, {name: end})
    assert HPARAM_RANGE[name].low < HPARAM_RANGE[name].high


def test_all_shipped_ranges_are_a_space_together() -> None:
    chosen = space("random", HPARAM_RANGE=dict(HPARAM_RANGE), num_trials=30)
    made = list(planned(chosen))
    assert len({configs.to_yaml(p.config) for p in made}) == 33


def test_the_default_set_is_the_file_of_its_name() -> None:
    found = load_space("default")
    assert list(found.candidates.items()) == list(create_hyperparameter_grid().items())
    assert not found.ranges


def test_the_last_five_sets_are_the_extended_space() -> None:
    found = load_space("extended")
    last = {name: HPARAM_CANDIDATES[name] for name in list(HPARAM_CANDIDATES)[-5:]}
    assert list(found.candidates) == list(last)
    for name, values in last.items():
        assert found.candidates[name] == [list(v) if isinstance(v, tuple) else v for v in values]


def design(values: Raw, **more: Any) -> list[str]:
    """Return the names of the files of a small design."""
    written = create_grid_search_configs(space=space("one_at_a_time", values), base=BASE, **more)
    return [path.name.removesuffix(f"_{STAMP}.yaml") for path in written]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"learning_rate": [1e-5]}, "learning_rate_1e-05"),
        ({"learning_rate": [0.00025]}, "learning_rate_0.00025"),
        ({"target_modules": [["q_proj", "v_proj"]]}, "target_modules_q_proj-v_proj"),
        (
            {"tokenizer_config.model_name": ["Org/Model 1"]},
            "tokenizer_config_model_name_org-model-1",
        ),
    ],
)
def test_a_file_is_named_for_what_it_varies(tmp_path: Path, values: Raw, name: str) -> None:
    assert design(values, base_name="mine", config_dir=tmp_path) == ["mine_default", f"mine_{name}"]


def test_files_go_to_the_configurations_of_the_folder_one_works_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert design({"lora_r": [4]})[0] == "spelling_transfer_exp_default"
    assert len(list((tmp_path / "configs/hyperparameters").iterdir())) == 2


def test_a_name_that_is_no_file_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--name: experiment_name"):
        design({"lora_r": [4]}, base_name="../mine", config_dir=tmp_path)
    with pytest.raises(ConfigError, match="the default configuration: experiment_name"):
        create_grid_search_configs("../mine", config_dir=tmp_path)
    assert not list(tmp_path.iterdir())
