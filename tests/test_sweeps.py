"""Sweeps as data: made from our spaces, and refused before any call where W&B has none such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuning.errors import ConfigError, ResultsError
from tuning.grid import create_hyperparameter_grid, load_space
from tuning.paths import ResultsRoot
from tuning.points import Points
from tuning.search_space import SearchSpace, Strategy
from tuning.sweep_laws import Method, check_sweep
from tuning.sweeps import (
    SweepLink,
    SweepRun,
    configurations,
    differences,
    not_kept,
    sweep_definition,
)


def space(**given: Any) -> SearchSpace:
    return SearchSpace.model_validate({"strategy": "random", **given})


def test_the_default_sweep_has_all_parameters_the_metric_and_the_goal() -> None:
    found = sweep_definition(load_space("default"))
    assert found["method"] == "grid"
    assert found["metric"] == {"name": "transfer_learning_score", "goal": "maximize"}
    assert {name: of["values"] for name, of in found["parameters"].items()} == dict(
        create_hyperparameter_grid()
    )
    assert len(found["parameters"]) == 13


@pytest.mark.parametrize("name", ["default_grid", "small", "random", "bayesian", "extended"])
def test_our_spaces_are_sweeps(name: str) -> None:
    ours = load_space(name)
    found = sweep_definition(ours)
    check_sweep(found)
    varied = {n: of for n, of in found["parameters"].items() if "value" not in of}
    points: Points = ours.points()
    assert list(varied) == [p.name for p in points.parameters]


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            {"learning_rate": {"low": 1e-5, "high": 1e-3, "scale": "log"}},
            {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-3},
        ),
        (
            {"lora_dropout": {"low": 0, "high": 0.2}},
            {"distribution": "uniform", "min": 0.0, "max": 0.2},
        ),
        (
            {"lora_dropout": {"low": 0.0, "high": 0.2, "step": 0.05}},
            {"distribution": "q_uniform", "q": 0.05, "min": 0.0, "max": 0.2},
        ),
        ({"lora_r": {"low": 4, "high": 32}}, {"distribution": "int_uniform", "min": 4, "max": 32}),
        (
            {"max_steps": {"low": 500, "high": 5000, "step": 500}},
            {"distribution": "q_uniform", "q": 500, "min": 500, "max": 5000},
        ),
        (
            {"lora_r": {"low": 4, "high": 64, "scale": "log"}},
            {"distribution": "q_log_uniform_values", "q": 1, "min": 4, "max": 64},
        ),
    ],
)
def test_ranges(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    (name,) = given
    found = sweep_definition(space(HPARAM_RANGE=given))["parameters"][name]
    assert found == wanted
    assert all(type(found[end]) is type(wanted[end]) for end in ("min", "max"))


def test_a_grid_over_a_range_of_steps_names_its_values() -> None:
    given = {"max_steps": {"low": 500, "high": 2000, "step": 500}}
    found = sweep_definition(space(HPARAM_RANGE=given), method=Method.GRID)
    assert found["parameters"]["max_steps"] == {"values": [500, 1000, 1500, 2000]}
    with pytest.raises(ConfigError, match="a grid needs single values"):
        sweep_definition(
            space(HPARAM_RANGE={"lora_dropout": {"low": 0.0, "high": 0.2}}), method=Method.GRID
        )


def test_what_the_space_sets_travels_as_parameters_of_one_value() -> None:
    given = {"tokenizer_config": {"model_name": "tiny"}, "training_config": {"max_steps": 40}}
    ours = space(HPARAM_CANDIDATES={"lora_r": [4, 8]}, experiment=given, step_scale=0.5)
    found = sweep_definition(ours, min_iterations=3)
    assert found["parameters"] == {
        "tokenizer_config.model_name": {"value": "tiny"},
        "max_steps": {"value": 40},
        "step_scale": {"value": 0.5},
        "lora_r": {"values": [4, 8]},
    }
    assert found["early_terminate"] == {"type": "hyperband", "min_iter": 3}


def test_a_listed_space_is_no_sweep() -> None:
    ours = SearchSpace.model_validate({"strategy": "listed", "configurations": [{"lora_r": 4}]})
    with pytest.raises(ConfigError, match="a listed space is no sweep"):
        sweep_definition(ours)


GOOD: dict[str, Any] = {
    "method": "bayes",
    "metric": {"name": "transfer_learning_score", "goal": "maximize"},
    "parameters": {"lora_r": {"values": [4, 8]}, "lora_dropout": {"min": 0.0, "max": 0.2}},
}


@pytest.mark.parametrize(
    ("change", "law"),
    [
        ({"method": "bayesian"}, "method must be one of grid, random, bayes, got 'bayesian'"),
        ({"metric": None}, "metric must have a name and a goal"),
        ({"metric": {"name": "loss", "goal": "maximize"}}, "metric.name must be transfer"),
        (
            {"metric": {"name": "transfer_learning_score", "goal": "minimize"}},
            "metric.goal must be maximize, got 'minimize'",
        ),
        ({"methods": "grid"}, "methods: no such key; did you mean method"),
        ({"parameters": {}}, "parameters must name at least one"),
        ({"parameters": {"lora_rr": {"values": [1]}}}, "parameters.lora_rr: "),
        ({"parameters": {"lora_r": 4}}, "must have a value, values or a range, got 4"),
        ({"parameters": {"lora_r": {"values": []}}}, "at least one"),
        ({"parameters": {"lora_r": {"values": [4, 4]}}}, "values must differ"),
        ({"parameters": {"lora_r": {"values": [4], "min": 1}}}, "must have one of"),
        ({"parameters": {"lora_r": {"min": 1}}}, "min and max must be numbers"),
        ({"parameters": {"lora_dropout": {"min": 0, "max": 0.2}}}, "both be whole or both be real"),
        (
            {"parameters": {"lora_r": {"min": 8, "max": 4}}},
            "min must be less than max, got 8 and 4",
        ),
        (
            {
                "parameters": {
                    "learning_rate": {
                        "min": 0.0,
                        "max": 1.0,
                        "distribution": "log_uniform_values",
                    }
                }
            },
            "needs a min above 0",
        ),
        (
            {"parameters": {"lora_r": {"min": 1, "max": 2, "distribution": "uniforn"}}},
            "no such distribution; did you mean uniform",
        ),
        (
            {"parameters": {"lora_r": {"min": 1, "max": 9, "q": 0, "distribution": "q_uniform"}}},
            "q must be a number above 0",
        ),
        (
            {"method": "grid", "parameters": {"lora_dropout": {"min": 0.0, "max": 0.1}}},
            "a grid needs values",
        ),
        ({"early_terminate": {"type": "median"}}, "must be hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "needs either min_iter"),
        ({"early_terminate": {"type": "hyperband", "max_iter": 9}}, "max_iter needs s"),
        ({"early_terminate": {"type": "hyperband", "min_iter": 0}}, "must be a number above 0"),
        ({"run_cap": 0}, "run_cap must be a whole number of at least 1"),
    ],
)
def test_malformed_sweeps(change: dict[str, Any], law: str) -> None:
    check_sweep(GOOD)
    with pytest.raises(ConfigError) as caught:
        check_sweep({**GOOD, **change})
    assert law in str(caught.value)
    assert all(line.startswith("sweep: ") for line in str(caught.value).splitlines())


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        check_sweep({"method": "x", "metric": 1, "parameters": {"lora_r": 1}})
    assert len(str(caught.value).splitlines()) == 3


def test_one_at_a_time_becomes_a_product_with_the_defaults_own_values() -> None:
    ours = SearchSpace.model_validate(
        {"HPARAM_CANDIDATES": {"lora_r": [4], "lora_alpha": [8, 32]}, "arms": ["direct"]}
    )
    found = sweep_definition(ours)["parameters"]
    assert found == {"lora_r": {"values": [4, 16]}, "lora_alpha": {"values": [8, 32]}}
    assert [note.split(":")[0] for note in not_kept(ours)] == ["arms", "strategy one_at_a_time"]


def test_what_exists_only_sometimes_is_varied_everywhere_and_that_is_said() -> None:
    ours = load_space("bayesian")
    told = " ".join(not_kept(ours))
    assert "weight_decay" in told
    assert "objectives" in told
    assert any("weight_decay" in name for name in sweep_definition(ours)["parameters"])


# --- what ties a study to a sweep ---------------------------------------------------------------


def test_a_link_comes_back_as_it_was(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    assert SweepLink.read(root, "one") is None
    runs = [
        SweepRun("a", {"lora_r": 4}),
        SweepRun("b", {"lora_r": 8}),
        SweepRun("c", {"lora_r": 4}),
    ]
    link = SweepLink("one", None, "s", runs, {"step_scale": 0.5})
    link.write(root)
    assert SweepLink.read(root, "one") == link
    assert configurations(link.runs) == [{"lora_r": 4}, {"lora_r": 8}]
    assert link.run_ids_of({"lora_r": 4}, {"lora_r": 16}) == ["a", "c"]
    assert link.run_ids_of({}, {"lora_r": 8}) == ["b"]


@pytest.mark.parametrize(
    "raw",
    [
        "[]",
        "{}",
        '{"sweep": 1}',
        '{"sweep": null, "definition": null, "runs": [1], "constants": {}}',
    ],
)
def test_a_damaged_link_is_one_clear_line(tmp_path: Path, raw: str) -> None:
    root = ResultsRoot(tmp_path)
    path = SweepLink.path(root, "one")
    path.parent.mkdir(parents=True)
    path.write_text(raw)
    with pytest.raises(ResultsError, match="is damaged"):
        SweepLink.read(root, "one")


def test_names_as_a_web_page_writes_them_are_ours() -> None:
    link = SweepLink("one", None, "s", [])
    assert link.varied({"lora_config.r": 8.0, "nosuch": 1}) == {"lora_r": 8, "nosuch": 1}


def test_a_step_scale_that_is_none(tmp_path: Path) -> None:
    link = SweepLink("one", None, "s", [], {"step_scale": "two"})
    with pytest.raises(ConfigError, match="step_scale must be in"):
        link.space()
    with pytest.raises(ConfigError, match="step_scale is a constant of the sweep"):
        check_sweep({**GOOD, "parameters": {"step_scale": {"values": [0.1, 1]}}})


def test_points_of_a_server_become_ours() -> None:
    constants = {"tokenizer_config.model_name": "tiny", "step_scale": 0.25}
    link = SweepLink("one", None, "s", [], constants)
    point = link.varied({"max_steps": 40.0, "learning_rate": 1.0, **constants})
    assert point == {"max_steps": 40, "learning_rate": 1.0}
    assert isinstance(point["max_steps"], int)
    link.runs.append(SweepRun("a", point))
    made = link.space()
    assert made.strategy is Strategy.LISTED
    assert made.step_scale == 0.25
    assert made.experiment == {"tokenizer_config": {"model_name": "tiny"}}


def test_differences_are_what_a_configuration_changes() -> None:
    default = {"a": 1, "b": {"c": 2, "d": [1]}, "e": {"f": 0}}
    own = {"a": 1, "b": {"c": 3, "d": [1]}, "e": {"f": 0}}
    assert differences(own, default) == {"b": {"c": 3}}
    assert differences(default, default) == {}
