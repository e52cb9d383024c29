"""Laws of `tuning.listed_laws`, and of arms: each mistake has its place, value and a way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuning.config import ExperimentConfig, build
from tuning.errors import ConfigError
from tuning.grid import Plan, load_space
from tuning.search_space import SearchSpace
from tuning.space_laws import check_space

BASE = build({"experiment_name": "base", "timestamp": "20260102_030405"}, "test")

Raw = dict[str, Any]


def listed(*configurations: Raw, **more: Any) -> SearchSpace:
    return SearchSpace.model_validate(
        {"strategy": "listed", "configurations": list(configurations), **more}
    )


def broken(space: SearchSpace, base: ExperimentConfig | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_space(space, base=base)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("configurations", "lines"),
    [
        (
            [{"lora_r": 8}, {"lora_rank": 8}],
            [
                "configurations.1.lora_rank: no such hyperparameter; "
                "did you mean lora_r?"
            ],
        ),
        (
            [{"lora_config.rr": 8}],
            [
                "configurations.0.lora_config.rr: no such hyperparameter; "
                "did you mean lora_config.r?"
            ],
        ),
        (
            [{"lora_r": 0, "learning_rate": 7}],
            [
                "configurations.0.lora_r: lora_config.r: must be greater than or equal to 1, got 0",
                "configurations.0.learning_rate: training_config.learning_rate: "
                "must be less than or equal to 1, got 7",
            ],
        ),
        (
            [{"lora_r": 8, "lora_config.r": 4}],
            ["configurations.0.lora_config.r: is given twice, here and as lora_r"],
        ),
        (
            [{"training_config.seed": 3}],
            [
                "configurations.0.training_config.seed: is no hyperparameter: "
                "seeds are repetitions; use replicates and the study's --seed"
            ],
        ),
        (
            [{}],
            ["configurations.0: names no hyperparameter; the default is trained anyway"],
        ),
        (
            [{"lora_r": 8}, {"max_steps": 50}],
            ["configurations.1: warmup_steps must be at most max_steps, got 100 > 50"],
        ),
        (
            [{"lora_r": 8, "gpu_tier": "t4"}, {"lora_alpha": 8}, {"gpu_tier": "t4", "lora_config.r": 8}],
            ["configurations.2: is the same as configurations.0: gpu_tier=t4, lora_r=8"],
        ),
        (
            # The default's own value adds nothing.
            [{"lora_r": 8}, {"lora_r": 8, "lora_alpha": 32}],
            ["configurations.1: is the same as configurations.0: lora_r=8"],
        ),
    ],
    ids=[
        *("unknown", "unknown dotted", "two values", "twice in one", "seed", "empty"),
        *("together", "the same otherwise written", "the same by a default value"),
    ],
)  # fmt: skip
def test_a_faulty_list_is_refused_with_its_places(
    configurations: list[Raw], lines: list[str]
) -> None:
    assert broken(listed(*configurations)) == lines


def test_values_that_are_legal_only_together_are_legal() -> None:
    check_space(listed({"max_steps": 50, "warmup_steps": 10}))


def test_a_configuration_is_judged_against_the_base_that_is_varied() -> None:
    space = listed({"max_steps": 500})
    check_space(space)
    later = build({**BASE.model_dump(mode="json"), "training_config": {"warmup_steps": 600}}, "x")
    assert broken(space, later) == [
        "configurations.0: warmup_steps must be at most max_steps, got 600 > 500"
    ]


def test_all_mistakes_of_a_list_come_together_with_what_does_not_go_with_it() -> None:
    space = listed(
        {"lora_rank": 8},
        {"max_steps": 50},
        HPARAM_CANDIDATES={"lora_r": [4]},
        HPARAM_RANGE={"lora_alpha": {"low": 8, "high": 16}},
        conditions={"lora_alpha": {"lora_r": 4}},
    )
    does_not_go = "does not go with strategy listed, whose configurations hold every value"
    assert broken(space) == [
        f"HPARAM_CANDIDATES: {does_not_go}",
        f"HPARAM_RANGE: {does_not_go}",
        f"conditions: {does_not_go}",
        "configurations.0.lora_rank: no such hyperparameter; did you mean lora_r?",
        "configurations.1: warmup_steps must be at most max_steps, got 100 > 50",
    ]


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"num_trials": 3}, "num_trials: belongs to random and bayesian; listed makes what it lists"),
        ({"sampler": "tpe"}, "sampler: belongs to random and bayesian; listed makes what it lists"),
        (
            {"objectives": ["spelling", "transfer"]},
            "objectives: belongs to bayesian; listed looks at no result",
        ),
    ],
)  # fmt: skip
def test_a_list_has_no_sampler(more: Raw, line: str) -> None:
    assert broken(listed({"lora_r": 8}, **more)) == [line]


@pytest.mark.parametrize("strategy", ["one_at_a_time", "grid", "random", "bayesian"])
def test_only_listed_has_a_list(strategy: str) -> None:
    space = SearchSpace.model_validate(
        {
            "strategy": strategy,
            "HPARAM_CANDIDATES": {"lora_r": [4, 8]},
            "configurations": [{"lora_r": 4}],
        }
    )
    assert broken(space) == [f"configurations: belongs to listed; {strategy} makes its own"]


def test_a_mistake_in_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("strategy: listed\nconfigurations:\n  - lora_r: 8\n  - lora_r: 0\n")
    with pytest.raises(
        ConfigError, match=r"space.yaml, line 4: configurations\.1\.lora_r: .*got 0"
    ):
        load_space(str(path))
    path.write_text("strategy: listed\nconfigurations: {lora_r: 8}\n")
    with pytest.raises(ConfigError, match=r"space.yaml, line 2: configurations: must be a list"):
        load_space(str(path))


# --- arms ---------------------------------------------------------------------------------------


def test_an_unknown_arm_is_refused_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("strategy: listed\narms:\n  - drect\n")
    law = "line 3: arms.0: must be 'spelling', 'format_control' or 'direct', got 'drect'"
    with pytest.raises(ConfigError, match=law):
        load_space(str(path))


def test_an_arm_stands_once() -> None:
    assert broken(listed(arms=["direct", "spelling", "direct"])) == [
        "arms.2: the arm direct stands twice"
    ]


@pytest.mark.parametrize("name", ["arm", "spelling_config.arm"])
def test_arms_are_asked_for_in_one_way_only(name: str) -> None:
    law = "arms: does not go with arm as a hyperparameter: leave one of them out"
    own: Raw = {"strategy": "grid", "HPARAM_CANDIDATES": {name: ["spelling", "direct"]}}
    check_space(SearchSpace.model_validate(own))
    assert broken(SearchSpace.model_validate({**own, "arms": ["direct"]})) == [law]
    assert broken(listed({name: "direct"}, arms=["direct"])) == [law]


def test_an_empty_list_is_the_default_alone_and_other_spaces_say_so() -> None:
    assert [p.parameters for p in Plan(listed(), BASE, 1.0, 0)] == [{}, {}, {}]
    (line,) = broken(SearchSpace.model_validate({"arms": ["direct"]}))
    assert line.endswith("must name a parameter; the default alone is strategy: listed")
