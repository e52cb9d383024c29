"""Laws of `tuning.grid`: plans of listed configurations, and the default's other arms in any plan."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.config import build, field_value, key_of, value_at, with_parameters
from tuning.counting import size_of, unique_trainings
from tuning.errors import ConfigError
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Plan, Proposal, Result, create_grid_search_configs, load_space
from tuning.search_space import SearchSpace, notes

STAMP = "20260102_030405"
BASE = build({"experiment_name": "base", "timestamp": STAMP}, "test")
RAW = BASE.model_dump(mode="json")

Raw = dict[str, Any]


def listed(*configurations: Raw, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {"strategy": "listed", "configurations": list(configurations), **more}
    )


def asked(proposals: Sequence[Proposal]) -> list[tuple[Raw, int]]:
    return [(p.parameters, p.seed) for p in proposals]


# --- lists --------------------------------------------------------------------------------------


def test_a_list_is_tried_in_its_order_after_the_default_all_with_each_seed() -> None:
    chosen = listed(
        {"training_config.learning_rate": "1e-3", "lora_r": 8},
        {"target_modules": ["q_proj"]},
        replicates=2,
        replicates_of_default=1,
    )
    plan = Plan(chosen, BASE, 1.0, 7)
    first = {"learning_rate": 1e-3, "lora_r": 8}
    second = {"target_modules": ["q_proj"]}
    assert asked(plan) == [({}, 7), ({}, 8), (first, 7), (second, 7), (first, 8), (second, 8)]
    assert plan.num_configurations == 2
    assert list(plan.known()) == list(plan)
    assert plan[3].config.lora_config.target_modules == ("q_proj",)
    assert not plan.is_adaptive
    assert not plan.draws


def test_what_the_default_has_is_neither_named_nor_tried_twice() -> None:
    chosen = listed({"lora_r": 16}, {"lora_r": 8, "lora_alpha": 32}, {"lora_alpha": 32})
    assert asked(Plan(chosen, BASE, 1.0, 0)[3:]) == [({"lora_r": 8}, 0)]
    other = with_parameters(BASE, {"lora_r": 8})
    # Around another default the same list is another one.
    assert asked(Plan(chosen, other, 1.0, 0)[3:]) == [({"lora_r": 16}, 0)]


def test_a_trial_has_the_name_that_other_strategies_give_it() -> None:
    one = SearchSpace.model_validate({"HPARAM_CANDIDATES": {"lora_config.r": [8]}})
    own = listed({"lora_r": 8})
    assert [p.trial_id for p in Plan(own, BASE, 0.1, 3)] == [p.trial_id for p in Plan(one, BASE, 0.1, 3)]  # fmt: skip


def test_a_trial_of_a_list_can_be_made_again_from_what_was_remembered() -> None:
    plan = Plan(
        listed({"batch_size": 4, "lora_r": 8}, {"lora_r": 4}, arms=["direct"]), BASE, 1.0, 0
    )
    assert [plan.again(i, p.parameters, p.seed) for i, p in enumerate(plan)] == list(plan)
    assert [plan.propose(i, []) for i in range(len(plan))] == list(plan)


def test_models_of_a_list_are_known_so_that_their_names_are_checked() -> None:
    name = "tokenizer_config.model_name"
    plan = Plan(listed({name: "tiny"}, {name: "tiny", "lora_r": 8}, {"lora_r": 4}), BASE, 1.0, 0)
    assert plan.varied("tokenizer_config.model_name") == ("tiny",)


def test_a_list_is_counted_and_numbered() -> None:
    chosen = listed(
        {"lora_r": 8}, {"lora_r": 8, "gpu_tier": "t4"}, {"max_steps": 500}, {"lora_r": 16}
    )
    assert size_of(chosen, BASE) == (4, 6)
    # The tier trains nothing else, and 500 steps are a part of the default's.
    assert unique_trainings(chosen, BASE) == (3, 2)
    points = chosen.points()
    found = list(points)
    assert found == [{"lora_r": 8}, {"lora_r": 8, "gpu_tier": "t4"}, {"max_steps": 500}, {"lora_r": 16}]  # fmt: skip
    assert [points.index_of(point) for point in found] == [0, 1, 2, 3]
    assert all(points.holds(point) for point in found)
    assert points.from_units([0.3, 0.9, 0.9]) == found[1]
    assert {str(points.shuffled(i, 1)) for i in range(4)} == set(map(str, found))
    assert not points.holds({"lora_r": 4})
    with pytest.raises(ConfigError, match=r"{'lora_r': 4} is none of the listed configurations"):
        points.index_of({"lora_r": 4})
    with pytest.raises(ConfigError, match=r"index must lie in \[0, 4\), got 4"):
        points.at(4)
    with pytest.raises(ConfigError, match="lists no configuration: it is the default alone"):
        listed().points().at(0)
    assert [note.split(":")[0] for note in notes(chosen)] == ["gpu_tier"]


VALUES: dict[str, list[Any]] = {
    "lora_r": [4, 8, 16],
    "lora_config.alpha": [16, 32],
    "learning_rate": [1e-4, 2e-4, "5e-4"],
    "spelling_difficulty": ["easy", "medium"],
    "target_modules": [["q_proj"], ["v_proj", "q_proj"]],
    "spelling_config.augmentation": [True, False],
}
CONFIGURATIONS = st.lists(
    st.fixed_dictionaries(
        {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
    ).filter(bool),
    max_size=8,
)


def differing(configuration: Raw) -> Raw:
    """What a configuration changes, by dotted keys."""
    legal = {
        key_of(name): field_value(key_of(name), value) for name, value in configuration.items()
    }
    return {key: value for key, value in legal.items() if value != value_at(RAW, key)}


@given(
    drawn=CONFIGURATIONS,
    replicates=st.integers(1, 3),
    of_default=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_every_listed_configuration_is_tried_with_each_seed_exactly_once(
    drawn: list[Raw], replicates: int, of_default: int, seed: int
) -> None:
    by_what = {str(sorted(differing(c).items())): c for c in drawn}
    own = list(by_what.values())
    chosen = listed(*own, replicates=replicates, replicates_of_default=of_default)
    plan = Plan(chosen, BASE, 1.0, seed)
    made = list(plan)
    assert len(made) == len(plan) == plan.num_trials
    assert len({p.trial_id for p in made}) == len(made)
    assert len({weights_key(p.config) for p in made}) == len(made)
    num_defaults = max(replicates, of_default)
    assert asked(made[:num_defaults]) == [({}, seed + i) for i in range(num_defaults)]
    found = Counter(str(sorted(differing(p.parameters).items())) for p in made[num_defaults:])
    assert found == {what: replicates for what in by_what if what != "[]"}
    assert max(p.seed for p in made) == plan.last_seed
    for proposal in made:
        expected = with_parameters(
            BASE, {**proposal.parameters, "training_config.seed": proposal.seed}
        )
        assert proposal.config == expected


# --- arms ---------------------------------------------------------------------------------------

SPACES: dict[str, Raw] = {
    "one_at_a_time": {"HPARAM_CANDIDATES": {"lora_r": [4, 8]}},
    "grid": {"HPARAM_CANDIDATES": {"lora_r": [4, 16], "batch_size": [4, 8]}},
    "random": {"HPARAM_RANGE": {"lora_alpha": {"low": 8, "high": 64}}, "num_trials": 3},
    "listed": {"configurations": [{"lora_r": 4}, {"lora_r": 8}]},
}


@pytest.mark.parametrize("strategy", SPACES)
def test_other_arms_of_the_default_come_after_it_with_its_seeds_and_change_nothing_else(
    strategy: str,
) -> None:
    raw = {"strategy": strategy, "replicates_of_default": 2, **SPACES[strategy]}
    arms = ["direct", "spelling", "format_control"]
    without = Plan(SearchSpace.model_validate(raw), BASE, 0.5, 5)
    plan = Plan(SearchSpace.model_validate({**raw, "arms": arms}), BASE, 0.5, 5)
    assert asked(plan[:6]) == [
        ({}, 5),
        ({}, 6),
        ({"arm": "direct"}, 5),
        ({"arm": "direct"}, 6),
        ({"arm": "format_control"}, 5),
        ({"arm": "format_control"}, 6),
    ]
    assert asked(plan[6:]) == asked(without[2:])
    assert len(plan) == plan.num_trials == len(without) + 4
    assert [p.config.spelling_config.arm.value for p in plan[1:5]] == [
        *("spelling", "direct", "direct", "format_control"),
    ]
    assert len({p.trial_id for p in plan}) == len(plan)
    assert plan[-1] == list(plan)[-1]


def test_the_own_arm_adds_nothing_whichever_it_is() -> None:
    chosen = listed(arms=["spelling", "direct"], replicates_of_default=1)
    assert asked(Plan(listed(arms=["spelling"], replicates_of_default=1), BASE, 1.0, 0)) == [
        ({}, 0)
    ]
    direct = with_parameters(BASE, {"arm": "direct"})
    assert asked(Plan(chosen, direct, 1.0, 0)) == [({}, 0), ({"arm": "spelling"}, 0)]


@pytest.mark.parametrize("strategy", ["one_at_a_time", "grid", "listed"])
def test_other_arms_are_trainings_of_their_own(strategy: str) -> None:
    raw = {"strategy": strategy, **SPACES[strategy]}
    without = unique_trainings(SearchSpace.model_validate(raw), BASE)
    chosen = SearchSpace.model_validate({**raw, "arms": ["spelling", "direct", "format_control"]})
    found = unique_trainings(chosen, BASE)
    assert without is not None
    assert found is not None
    assert found == (without.num_weights + 2, without.num_trainings + 2)
    first_seed = [p.config for p in Plan(chosen, BASE, 1.0, 0) if p.seed == 0]
    assert found == (
        len({weights_key(config) for config in first_seed}),
        len({training_key(config) for config in first_seed}),
    )


def test_files_of_the_one_at_a_time_design_have_other_arms_too(tmp_path: Path) -> None:
    chosen = SearchSpace.model_validate({"HPARAM_CANDIDATES": {"lora_r": [4]}, "arms": ["direct"]})
    written = create_grid_search_configs("x", space=chosen, base=BASE, config_dir=tmp_path)
    assert [path.name.removesuffix(f"_{STAMP}.yaml") for path in written] == [
        *("x_default", "x_arm_direct", "x_lora_r_4"),
    ]


RECORDER = """
SEEN = []

class Recorder:
    def propose(self, points, index, seed, seen):
        SEEN.append((index, [(dict(s.point), s.objectives) for s in seen]))
        return points.at(index)
"""


def test_a_sampler_is_never_shown_a_control(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recorder_of_arms.py").write_text(RECORDER, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    raw = {
        "strategy": "bayesian",
        "HPARAM_CANDIDATES": {"lora_r": [4, 8, 32]},
        "sampler": "recorder_of_arms:Recorder",
        "replicates": 2,
        "num_trials": 2,
        "arms": ["direct", "format_control"],
    }
    plan = Plan(SearchSpace.model_validate(raw), BASE, 1.0, 0)
    assert plan.num_trials == 3 * 3 + 2 * 2
    assert asked(list(plan.known())) == [
        ({**arm}, seed)
        for arm in ({}, {"arm": "direct"}, {"arm": "format_control"})
        for seed in range(3)
    ]
    results: list[Result] = []
    for index in range(plan.num_trials):
        # Objectives tell who is who.
        results.append(Result(plan.propose(index, results), (float(index),)))
    assert asked([r.proposal for r in results[9:]]) == [
        ({"lora_r": r}, seed) for r in (4, 8) for seed in (0, 1)
    ]
    assert [plan.again(i, r.proposal.parameters, r.proposal.seed) for i, r in enumerate(results)] == [
        r.proposal for r in results
    ]  # fmt: skip
    seen = sys.modules.pop("recorder_of_arms").SEEN
    default = [({"lora_r": 16}, (float(i),)) for i in range(3)]
    assert seen == [
        (0, default),
        (1, [*default, ({"lora_r": 4}, (9.0,)), ({"lora_r": 4}, (10.0,))]),
    ]


def test_the_shipped_arms_are_the_default_in_all_three() -> None:
    chosen = load_space("arms")
    plan = Plan(chosen, BASE, chosen.step_scale, 0)
    assert Counter(p.config.spelling_config.arm.value for p in plan) == {
        "spelling": 3,
        "format_control": 3,
        "direct": 3,
    }
