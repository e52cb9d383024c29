"""Laws of `tuning.space_laws`: each is refused with its place and value, all of them together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tuning.config import ExperimentConfig, build, with_parameters
from tuning.errors import ConfigError
from tuning.grid import load_space
from tuning.search_space import SearchSpace
from tuning.space_laws import check_space

STAMP = "20260102_030405"
BASE = build({"experiment_name": "base", "timestamp": STAMP}, "test")

Raw = dict[str, Any]


def space(raw: Raw) -> SearchSpace:
    return SearchSpace.model_validate(raw)


def broken(raw: Raw, base: ExperimentConfig | None = None) -> list[str]:
    """The lines that a faulty space is refused with."""
    with pytest.raises(ConfigError) as caught:
        check_space(space(raw), base=base)
    return str(caught.value).splitlines()


def candidates(**named: Any) -> Raw:
    return {"HPARAM_CANDIDATES": named}


def ranged(name: str, low: Any, high: Any, strategy: str = "random", **more: Any) -> Raw:
    return {
        "strategy": strategy,
        "HPARAM_RANGE": {name: {"low": low, "high": high, **more}},
    }


# --- single parameters ------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_at_a_time", "grid", "random", "bayesian"])
def test_a_space_without_parameters_is_refused(strategy: str) -> None:
    law = "HPARAM_CANDIDATES: the space is empty: HPARAM_CANDIDATES or HPARAM_RANGE must name"
    (line,) = broken({"strategy": strategy})
    assert line.startswith(law)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            candidates(lora_rank=[4]),
            "HPARAM_CANDIDATES.lora_rank: no such hyperparameter; did you mean lora_r?",
        ),
        (
            {"HPARAM_CANDIDATES": {"lora_config.rr": [4]}},
            "HPARAM_CANDIDATES.lora_config.rr: no such hyperparameter; did you mean lora_config.r?",
        ),
        (
            ranged("learning_rates", 1e-5, 1e-3),
            "HPARAM_RANGE.learning_rates: no such hyperparameter; did you mean learning_rate",
        ),
        (candidates(seed=[1]), "HPARAM_CANDIDATES.seed: no such hyperparameter; "),
        (
            {"HPARAM_CANDIDATES": {"training_config.seed": [1, 2]}},
            "HPARAM_CANDIDATES.training_config.seed: is no hyperparameter: "
            "seeds are repetitions; use replicates and the study's --seed",
        ),
        (
            ranged("training_config.seed", 0, 9),
            "HPARAM_RANGE.training_config.seed: is no hyperparameter: seeds are repetitions",
        ),
        (
            candidates(timestamp=[STAMP]),
            "HPARAM_CANDIDATES.timestamp: is no hyperparameter: it is set at creation",
        ),
        (
            candidates(experiment_name=["a"]),
            "HPARAM_CANDIDATES.experiment_name: is no hyperparameter: "
            "every trial gets its own name",
        ),
    ],
)
def test_what_is_no_hyperparameter_is_refused(raw: Raw, line: str) -> None:
    (found,) = broken(raw)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            {"HPARAM_CANDIDATES": {"lora_r": [4], "lora_config.r": [8]}},
            "HPARAM_CANDIDATES.lora_config.r: is given twice, here and as HPARAM_CANDIDATES.lora_r",
        ),
        (
            {
                "strategy": "random",
                "HPARAM_CANDIDATES": {"lora_r": [4]},
                "HPARAM_RANGE": {"lora_r": {"low": 4, "high": 8}},
            },
            "HPARAM_RANGE.lora_r: is given twice, here and as HPARAM_CANDIDATES.lora_r",
        ),
    ],
    ids=["flat and dotted", "candidates and range"],
)
def test_a_hyperparameter_that_is_given_twice_is_refused(raw: Raw, line: str) -> None:
    assert broken(raw) == [line]


@pytest.mark.parametrize(
    ("name", "values", "line"),
    [
        ("lora_r", [], ": needs at least one candidate"),
        (
            "lora_r",
            [4, 0],
            ".1: lora_config.r: must be greater than or equal to 1, got 0",
        ),
        (
            "lora_r",
            [4.5],
            ".0: lora_config.r: must be an integer, written without point or exponent, got 4.5",
        ),
        (
            "lora_r",
            [8.0],
            ".0: lora_config.r: must be an integer, written without point or exponent, got 8.0",
        ),
        ("lora_r", [True], ".0: lora_config.r: must be a"),
        ("learning_rate", ["fast"], ".0: training_config.learning_rate: must be a number"),
        ("learning_rate", [2], ".0: training_config.learning_rate: must be less than or equal to"),
        ("lora_dropout", [0.0, 1.0], ".1: lora_config.dropout: must be less than 1, got 1.0"),
        (
            "spelling_difficulty",
            ["easy", "brutal"],
            ".1: spelling_config.difficulty: must be 'easy', 'medium' or 'hard', got 'brutal'",
        ),
        ("gpu_tier", ["h100"], ".0: lightning_config.gpu_tier: must be 'cpu', 't4' or 'a100'"),
        (
            "spelling_augmentation",
            [0],
            ".0: spelling_config.augmentation: must be a boolean, got 0",
        ),
        ("target_modules", [[]], ".0: lora_config.target_modules: "),
        (
            "target_modules",
            [["q_proj", "q_proj"]],
            ".0: lora_config.target_modules: target_modules must differ, got 'q_proj' twice",
        ),
        ("learning_rate", ["1e-4", 0.0001], ".1: the candidate 0.0001 stands twice"),
        ("learning_rate", [0.0001, "1e-4"], ".1: the candidate '1e-4' stands twice"),
        ("lora_alpha", [32, 16, 32.0], ".2: the candidate 32.0 stands twice"),
        ("batch_size", [4, 8, 4], ".2: the candidate 4 stands twice"),
        (
            "target_modules",
            [["q_proj", "v_proj"], ["q_proj", "v_proj"]],
            ".1: the candidate ['q_proj', 'v_proj'] stands twice",
        ),
    ],
)
def test_candidates_that_break_a_law_are_refused(name: str, values: list[Any], line: str) -> None:
    (found,) = broken(candidates(**{name: values}))
    assert found.startswith(f"HPARAM_CANDIDATES.{name}{line}")


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (
            ranged("spelling_difficulty", 1, 2),
            [
                "spelling_difficulty: is no number, so it has no range; "
                "list its values in HPARAM_CANDIDATES"
            ],
        ),
        (ranged("spelling_augmentation", 0, 1), ["spelling_augmentation: is no number"]),
        (ranged("target_modules", 0, 1), ["target_modules: is no number"]),
        (ranged("lora_r", 8, 8), ["lora_r.high: must be above low, got 8 and 8"]),
        (ranged("lora_r", 9, 8), ["lora_r.high: must be above low, got 8 and 9"]),
        (
            ranged("learning_rate", 0, 0.5),
            ["learning_rate.low: training_config.learning_rate: must be greater than 0, got 0"],
        ),
        (
            ranged("lora_dropout", -0.5, 1),
            [
                "lora_dropout.low: lora_config.dropout: must be greater than or equal to 0",
                "lora_dropout.high: lora_config.dropout: must be less than 1, got 1",
            ],
        ),
        (
            ranged("lora_r", 4.0, 8),
            ["lora_r.low: lora_config.r: must be an integer, written without point or exponent"],
        ),
        (
            ranged("warmup_steps", 0, 100, scale="log"),
            ["warmup_steps.low: a log range must begin above 0, got 0"],
        ),
        (
            ranged("lora_r", 4, 64, scale="log", step=4),
            ["lora_r.step: a log range has no step; list its values as candidates"],
        ),
        (
            ranged("lora_dropout", 0.0, 0.5, step=0),
            ["lora_dropout.step: must be above 0, got 0"],
        ),
        (ranged("lora_dropout", 0.0, 0.5, step=-0.1), ["lora_dropout.step: must be above 0"]),
        (ranged("lora_r", 4, 8, step=0), ["lora_r.step: must be a whole number above 0, got 0"]),
        (ranged("lora_r", 4, 8, step=-2), ["lora_r.step: must be a whole number above 0, got -2"]),
        (ranged("lora_r", 4, 8, step=0.5), ["lora_r.step: must be a whole number above 0"]),
        (ranged("lora_r", 4, 8, step=2.0), ["lora_r.step: must be a whole number above 0"]),
        (
            ranged("batch_size", 4, 31, step=4),
            [
                "batch_size.high: must be low plus a multiple of step, got 31; "
                "the nearest are 28 and 32"
            ],
        ),
        (
            ranged("lora_dropout", 0.1, 0.35, step=0.1),
            [
                "lora_dropout.high: must be low plus a multiple of step, got 0.35; "
                "the nearest are 0.3 and 0.4"
            ],
        ),
    ],
)
def test_ranges_that_break_a_law_are_refused(raw: Raw, lines: list[str]) -> None:
    found = broken(raw)
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert line.startswith(f"HPARAM_RANGE.{expected}")


@pytest.mark.parametrize(
    "raw",
    [
        ranged("lora_dropout", 0.1, 0.3, step=0.1),
        ranged("lora_dropout", 0.0, 0.9, step=0.05),
        ranged("batch_size", 4, 32, step=4),
        ranged("learning_rate", "1e-5", "5e-3", scale="log"),
        ranged("lora_r", 4, 64, scale="log"),
        ranged("training_config.num_threads", 1, 4),
        ranged("training_config.weight_decay", 0, 10),
    ],
)
def test_ranges_that_keep_the_laws_are_taken(raw: Raw) -> None:
    check_space(space(raw))


def test_a_step_that_makes_more_values_than_decimals_can_count_is_one_clear_error() -> None:
    with pytest.raises(ConfigError):
        check_space(space(ranged("lora_dropout", 0.0, 0.3, step=1e-30)))


# --- conditions -------------------------------------------------------------------------------

TWO = {"lora_r": [8, 16], "batch_size": [4, 8]}


def conditional(
    conditions: Raw, strategy: str = "random", named: Raw | None = None, **more: Any
) -> Raw:
    return {
        "strategy": strategy,
        "HPARAM_CANDIDATES": named or TWO,
        "conditions": conditions,
        **more,
    }


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            conditional({"lora_rr": {"batch_size": 4}}),
            "conditions.lora_rr: is no parameter of the space; did you mean lora_r?",
        ),
        (
            conditional({"lora_r": {"batch_sizes": 4}}),
            "conditions.lora_r.batch_sizes: is no parameter with candidates; "
            "did you mean batch_size?",
        ),
        (
            # A hyperparameter, but none of this space.
            conditional({"lora_r": {"spelling_difficulty": "easy"}}),
            "conditions.lora_r.spelling_difficulty: is no parameter with candidates; known: ",
        ),
        (
            conditional(
                {"lora_r": {"max_steps": 500}},
                HPARAM_RANGE={"max_steps": {"low": 500, "high": 1000, "step": 500}},
            ),
            "conditions.lora_r.max_steps: has a range; "
            "a condition needs its values listed in HPARAM_CANDIDATES",
        ),
        (
            conditional({"lora_r": {"batch_size": 16}}),
            "conditions.lora_r.batch_size: can never be met: 16 is no candidate of batch_size "
            "(4, 8)",
        ),
        (
            conditional({"lora_r": {"batch_size": [4, 16]}}),
            "conditions.lora_r.batch_size: can never be met: 16 is no candidate of batch_size",
        ),
        (
            conditional({"lora_r": {"batch_size": "four"}}),
            "conditions.lora_r.batch_size: can never be met: 'four' is no candidate of batch_size",
        ),
        (
            conditional({"lora_r": {"batch_size": []}}),
            "conditions.lora_r.batch_size: ",
        ),
        (conditional({"lora_r": {}}), "conditions.lora_r: needs at least one parent"),
        (
            conditional({"lora_r": {"batch_size": 4}, "batch_size": {"lora_r": 8}}),
            "conditions: lead back to themselves: ",
        ),
        (
            conditional({"lora_r": {"lora_r": 8}}),
            "conditions: lead back to themselves: lora_r -> lora_r",
        ),
    ],
    ids=[
        "unknown child",
        "unknown parent",
        "parent of another space",
        "parent with a range",
        "value that is no candidate",
        "one of two values",
        "value of another kind",
        "no value",
        "no parent",
        "circle",
        "itself",
    ],
)
def test_conditions_that_break_a_law_are_refused(raw: Raw, line: str) -> None:
    (found,) = broken(raw)
    assert found.startswith(line)


def test_a_circle_of_three_is_named() -> None:
    named = {"lora_r": [8, 16], "batch_size": [4, 8], "grad_accum_steps": [1, 2]}
    circle = {
        "lora_r": {"batch_size": 4},
        "batch_size": {"grad_accum_steps": 1},
        "grad_accum_steps": {"lora_r": 8},
    }
    (line,) = broken(conditional(circle, named=named))
    assert re.fullmatch(r"conditions: lead back to themselves: (\w+) -> \w+ -> \w+ -> \1", line)


def test_one_at_a_time_refuses_what_exists_only_away_from_the_default() -> None:
    """The default's batch size is 8."""
    law = "conditions.lora_r: is not met by the default configuration, which one_at_a_time varies"
    assert broken(conditional({"lora_r": {"batch_size": 4}}, "one_at_a_time")) == [law]
    check_space(space(conditional({"lora_r": {"batch_size": 8}}, "one_at_a_time")))
    check_space(space(conditional({"lora_r": {"batch_size": 4}}, "grid")))
    other = {"experiment": {"training_config": {"per_device_train_batch_size": 4}}}
    check_space(space(conditional({"lora_r": {"batch_size": 4}}, "one_at_a_time", **other)))


# --- strategies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (
            ranged("lora_dropout", 0.0, 0.3, "grid"),
            "HPARAM_RANGE.lora_dropout: grid needs values that can be counted: "
            "give a step or candidates",
        ),
        (
            ranged("learning_rate", 1e-5, 1e-3, "one_at_a_time", scale="log"),
            "HPARAM_RANGE.learning_rate: one_at_a_time needs values that can be counted",
        ),
        (
            {**candidates(lora_r=[4, 8]), "strategy": "grid", "num_trials": 2},
            "num_trials: belongs to random and bayesian; grid makes what its values make",
        ),
        (
            {**candidates(lora_r=[4, 8]), "num_trials": 2},
            "num_trials: belongs to random and bayesian; one_at_a_time makes what its values make",
        ),
        (
            {**candidates(lora_r=[4, 8], batch_size=[4]), "strategy": "random", "num_trials": 3},
            "num_trials: must be at most the 2 points beside the default, got 3",
        ),
        (
            {**candidates(lora_r=[4, 8]), "strategy": "bayesian", "num_trials": 5},
            "num_trials: must be at most the 2 points beside the default, got 5",
        ),
        (
            {**candidates(lora_r=[4, 8]), "strategy": "grid", "sampler": "uniform"},
            "sampler: belongs to random and bayesian; grid makes what its values make",
        ),
        (
            {**candidates(lora_r=[4, 8]), "sampler": "tpe"},
            "sampler: belongs to random and bayesian; one_at_a_time makes what its values make",
        ),
        (
            {**candidates(lora_r=[4, 8]), "strategy": "random", "sampler": "tpe"},
            "sampler: random takes uniform or sobol, got tpe",
        ),
        (
            {**candidates(lora_r=[4, 8]), "strategy": "bayesian", "sampler": "sobol"},
            "sampler: bayesian takes tpe or gp, got sobol",
        ),
    ],
)
def test_what_a_strategy_does_not_take_is_refused(raw: Raw, line: str) -> None:
    (found,) = broken(raw)
    assert found.startswith(line)


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
def test_the_default_is_no_point_that_is_left_to_draw(strategy: str) -> None:
    """The default, r 16, comes first by itself, so that one of two points is left."""
    raw = {**candidates(lora_r=[8, 16]), "strategy": strategy}
    check_space(space({**raw, "num_trials": 1}))
    (line,) = broken({**raw, "num_trials": 2})
    assert line.startswith("num_trials: must be at most")


@pytest.mark.parametrize(
    ("sampler", "arguments", "line"),
    [
        (
            "tpe",
            {"n_startup_trials": 3},
            "sampler_arguments.n_startup_trials: no such argument of tpe; "
            "did you mean num_startup_trials",
        ),
        ("tpe", {"num_ei_candidates": 0}, "sampler_arguments.num_ei_candidates: must be greater"),
        ("tpe", {"multivariate": "perhaps"}, "sampler_arguments.multivariate: must be a boolean"),
        ("gp", {"multivariate": True}, "sampler_arguments.multivariate: no such argument of gp"),
        ("gp", {"num_startup_trials": 1.5}, "sampler_arguments.num_startup_trials: must be "),
    ],
)
def test_arguments_that_a_sampler_does_not_take_are_refused(
    sampler: str, arguments: Raw, line: str
) -> None:
    raw = {**candidates(lora_r=[4, 8]), "strategy": "bayesian", "sampler": sampler}
    (found,) = broken({**raw, "sampler_arguments": arguments})
    assert found.startswith(line)


def test_arguments_are_checked_for_a_sampler_that_the_strategy_chose() -> None:
    raw = {**candidates(lora_r=[4, 8]), "sampler_arguments": {"scramble": True}}
    (line,) = broken({**raw, "strategy": "random"})
    assert line.startswith("sampler_arguments.scramble: no such argument of uniform")
    (line,) = broken({**raw, "strategy": "bayesian"})
    assert line.startswith("sampler_arguments.scramble: no such argument of tpe")
    check_space(space({**raw, "strategy": "random", "sampler": "sobol"}))


def test_objectives_must_differ() -> None:
    raw = {**candidates(lora_r=[4, 8]), "strategy": "bayesian"}
    assert broken({**raw, "objectives": ["spelling", "spelling"]}) == ["objectives: must differ"]
    check_space(space({**raw, "objectives": ["spelling", "transfer"]}))


# --- combinations -----------------------------------------------------------------------------

TINY = {"experiment": {"tokenizer_config": {"model_name": "tiny"}}}
COMBINATIONS: dict[str, tuple[Raw, list[str]]] = {
    "lora_r and lora_alpha": (
        candidates(lora_r=[4, 256], lora_alpha=[8, 32]),
        [
            "HPARAM_CANDIDATES.lora_r: lora_r=256, lora_alpha=8.0: "
            "alpha / r must lie in [1/16, 64], got 8 / 256 = 0.03125; "
            "for r 256 choose alpha between 16 and 4096"
        ],
    ),
    "two of them": (
        candidates(lora_r=[4, 256], lora_alpha=[4, 8, 32]),
        ["HPARAM_CANDIDATES.lora_r: lora_r=256, lora_alpha=4.0: .* (and 1 more such)"],
    ),
    "max_steps and warmup_steps": (
        candidates(max_steps=[150, 500], warmup_steps=[0, 200]),
        [
            "HPARAM_CANDIDATES.max_steps: max_steps=150, warmup_steps=200: "
            "warmup_steps must be at most max_steps, got 200 > 150"
        ],
    ),
    "precision and gpu_tier": (
        {
            "HPARAM_CANDIDATES": {
                "training_config.precision": ["fp16", "bf16"],
                "gpu_tier": ["t4", "a100"],
            }
        },
        [
            "HPARAM_CANDIDATES.training_config.precision: "
            "training_config.precision=bf16, gpu_tier=t4: precision bf16 does not exist on a T4; "
            "choose auto or fp16, or a machine of the Ampere generation or later, "
            "such as gpu_tier a100"
        ],
    ),
}


@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
@pytest.mark.parametrize("name", COMBINATIONS)
def test_combinations_that_break_a_law_are_refused(name: str, strategy: str) -> None:
    raw, lines = COMBINATIONS[name]
    found = broken({**raw, "strategy": strategy})
    assert len(found) == len(lines)
    for line, expected in zip(found, lines, strict=True):
        assert re.fullmatch(re.escape(expected).replace(r"\.\*", ".*"), line)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_one_at_a_time_never_combines(name: str) -> None:
    check_space(space({**COMBINATIONS[name][0], "strategy": "one_at_a_time"}))


@pytest.mark.parametrize("strategy", ["one_at_a_time", "grid", "random"])
@pytest.mark.parametrize(
    ("raw", "law"),
    [
        (candidates(lora_r=[4, 1024]), "HPARAM_CANDIDATES.lora_r: lora_r=1024: alpha / r must"),
        (candidates(max_steps=[50, 500]), "HPARAM_CANDIDATES.max_steps: max_steps=50: warmup_st"),
        (
            {
                "HPARAM_CANDIDATES": {"training_config.precision": ["fp16", "bf16"]},
                "experiment": {"lightning_config": {"gpu_tier": "t4"}},
            },
            "HPARAM_CANDIDATES.training_config.precision: training_config.precision=bf16: "
            "precision bf16 does not exist on a T4",
        ),
        (
            {
                "HPARAM_CANDIDATES": {"gpu_tier": ["t4", "a100"]},
                "experiment": {"training_config": {"precision": "bf16"}},
            },
            "HPARAM_CANDIDATES.gpu_tier: gpu_tier=t4: precision bf16 does not exist on a T4",
        ),
        (
            {**candidates(target_modules=[["q_proj"], ["q_proj", "v_prj"]]), **TINY},
            "HPARAM_CANDIDATES.target_modules: target_modules=['q_proj', 'v_prj']: target_modules "
            "must be linear layers of tiny (family qwen3), got 'v_prj'; did you mean v_proj",
        ),
        (
            {
                "HPARAM_CANDIDATES": {"target_modules": [["q_proj"], ["lm_head"]]},
                "experiment": {
                    "tokenizer_config": {
                        "model_name": "no/such-model",
                        "use_english_only_tokens": True,
                    }
                },
            },
            "HPARAM_CANDIDATES.target_modules: target_modules=['lm_head']: "
            "with use_english_only_tokens the vocabulary is sliced",
        ),
    ],
    ids=["r", "max_steps", "precision on t4", "t4 with bf16", "layer of tiny", "sliced vocabulary"],
)
def test_a_value_that_breaks_a_law_with_the_experiment_is_refused(
    raw: Raw, law: str, strategy: str
) -> None:
    (line,) = broken({**raw, "strategy": strategy})
    assert line.startswith(law)


def test_the_varied_experiment_may_be_another_than_the_space_s_own() -> None:
    raw = candidates(lora_r=[4, 1024])
    check_space(space(raw), base=with_parameters(BASE, {"lora_alpha": 256}))
    assert len(broken(candidates(lora_r=[4]), with_parameters(BASE, {"lora_alpha": 1024}))) == 1


def test_the_ends_of_ranges_are_combined() -> None:
    raw: Raw = {
        "strategy": "random",
        "HPARAM_RANGE": {
            "warmup_steps": {"low": 0, "high": 500, "step": 50},
            "max_steps": {"low": 450, "high": 5000, "step": 50},
        },
    }
    (line,) = broken(raw)
    assert line.startswith("HPARAM_RANGE.warmup_steps: warmup_steps=500, max_steps=450: ")
    raw["HPARAM_RANGE"]["max_steps"]["low"] = 500
    check_space(space(raw))


# --- conditions and combinations --------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["grid", "random", "bayesian"])
def test_a_condition_that_excludes_the_illegal_combination_makes_it_legal(strategy: str) -> None:
    named = {"lora_r": [4, 256], "lora_alpha": [8, 16]}
    (line,) = broken(conditional({}, strategy, named))
    assert "lora_r=256, lora_alpha=8.0" in line
    # Elsewhere alpha stays at 32, and 32 / 256 is legal.
    check_space(space(conditional({"lora_alpha": {"lora_r": 4}}, strategy, named)))
    (line,) = broken(conditional({"lora_alpha": {"lora_r": 256}}, strategy, named))
    assert "lora_r=256, lora_alpha=8.0" in line


def test_where_a_child_does_not_exist_it_has_its_default_and_keeps_the_laws_too() -> None:
    """With r 1024 alpha stays at 32, and 32 / 1024 is illegal."""
    named = {"lora_r": [4, 1024], "lora_alpha": [8, 16]}
    (line,) = broken(conditional({"lora_alpha": {"lora_r": 4}}, "grid", named))
    assert line.startswith(
        "HPARAM_CANDIDATES.lora_r: lora_r=1024: alpha / r must lie in [1/16, 64]"
    )


def test_a_condition_on_another_parameter_leaves_the_child_at_its_default_elsewhere() -> None:
    """Where the words are hard, alpha stays at 32."""
    named = {"lora_r": [1024], "lora_alpha": [64], "spelling_difficulty": ["easy", "hard"]}
    check_space(space(conditional({}, "grid", named)))
    (line,) = broken(conditional({"lora_alpha": {"spelling_difficulty": "easy"}}, "grid", named))
    assert "alpha / r must lie in [1/16, 64], got 32 / 1024" in line


def test_a_condition_on_a_parameter_outside_the_law_can_be_met() -> None:
    named = {"lora_r": [4, 256], "lora_alpha": [8, 32], "spelling_difficulty": ["easy", "hard"]}
    (line,) = broken(conditional({"lora_alpha": {"spelling_difficulty": "hard"}}, "grid", named))
    assert "lora_r=256, lora_alpha=8.0" in line


def test_children_that_never_exist_together_break_no_law_together() -> None:
    """512 with the default's 32, and 8 with the default's 16, are legal; 8 / 512 never happens."""
    named = {"lora_r": [512], "lora_alpha": [8], "spelling_difficulty": ["easy", "hard"]}
    conditions = {
        "lora_r": {"spelling_difficulty": "hard"},
        "lora_alpha": {"spelling_difficulty": "easy"},
    }
    check_space(space(conditional(conditions, "grid", named)))


NAMED: Raw = {
    "lora_r": [4, 512, 1024],
    "lora_alpha": [8, 64],
    "max_steps": [50, 150, 500],
    "warmup_steps": [0, 100, 200],
    "spelling_difficulty": ["easy", "hard"],
}


CHOSEN = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(st.sampled_from(values), min_size=1, unique=True)
        for name, values in NAMED.items()
    },
).filter(bool)


def is_taken_exactly_when_every_point_is_a_configuration(chosen: SearchSpace) -> bool:
    is_legal = is_taken = True
    for point in chosen.points():
        try:
            with_parameters(BASE, point)
        except ConfigError:
            is_legal = False
    try:
        check_space(chosen)
    except ConfigError as error:
        # A parameter that never exists breaks no point, and is refused all the same.
        assume("can never be met" not in str(error))
        is_taken = False
    return is_legal == is_taken


@given(named=CHOSEN)
@settings(max_examples=60, deadline=None)
def test_a_grid_is_taken_exactly_when_each_of_its_points_is_a_configuration(named: Raw) -> None:
    chosen = space({"strategy": "grid", "HPARAM_CANDIDATES": named})
    assert is_taken_exactly_when_every_point_is_a_configuration(chosen)


@given(named=CHOSEN, data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_grid_with_conditions_is_taken_exactly_when_its_points_are_configurations(
    named: Raw, data: st.DataObject
) -> None:
    names = data.draw(st.permutations(sorted(named)))
    conditions: Raw = {}
    for place, child in enumerate(names[1:], start=1):
        parents = data.draw(st.lists(st.sampled_from(names[:place]), max_size=2, unique=True))
        if parents:
            values = {p: st.lists(st.sampled_from(named[p]), min_size=1) for p in parents}
            conditions[child] = {p: data.draw(values[p]) for p in parents}
    assert is_taken_exactly_when_every_point_is_a_configuration(
        space(conditional(conditions, "grid", named))
    )


# --- together, and in files -------------------------------------------------------------------


def test_all_mistakes_are_reported_together() -> None:
    raw = {
        "strategy": "random",
        "HPARAM_CANDIDATES": {
            "lora_rank": [4],
            "learning_rate": [2, 1e-3, "1e-3"],
            "batch_size": [],
            "max_steps": [50],
        },
        "HPARAM_RANGE": {
            "lora_dropout": {"low": 0.0, "high": 0.25, "step": 0.1},
            "lora_alpha": {"low": 64, "high": 8},
        },
        "conditions": {"max_steps": {"batch_sizes": 4}},
    }
    assert [line.split(": ")[0] for line in broken(raw)] == [
        "HPARAM_CANDIDATES.lora_rank",
        "HPARAM_CANDIDATES.learning_rate.0",
        "HPARAM_CANDIDATES.learning_rate.2",
        "HPARAM_CANDIDATES.batch_size",
        "HPARAM_RANGE.lora_dropout.high",
        "HPARAM_RANGE.lora_alpha.high",
        "conditions.max_steps.batch_sizes",
        "HPARAM_CANDIDATES.max_steps",
    ]


def test_mistakes_of_the_strategy_are_reported_together() -> None:
    raw = {
        "strategy": "grid",
        "HPARAM_RANGE": {
            "lora_dropout": {"low": 0.0, "high": 0.3},
            "spelling_data_ratio": {"low": 0.3, "high": 1.0},
        },
        "num_trials": 4,
        "sampler": "sobol",
    }
    assert [line.split(": ")[0] for line in broken(raw)] == [
        "HPARAM_RANGE.lora_dropout",
        "HPARAM_RANGE.spelling_data_ratio",
        "num_trials",
        "sampler",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r:\n    - 4\n    - 0\n",
            [(5, "HPARAM_CANDIDATES.lora_r.1: lora_config.r: must be greater than or equal to 1")],
        ),
        (
            "HPARAM_CANDIDATES:\n  batch_size: [4]\n  lora_rank: [4]\n",
            [(3, "HPARAM_CANDIDATES.lora_rank: no such hyperparameter; did you mean")],
        ),
        (
            "HPARAM_CANDIDATES:\n  learning_rate:\n    - 0.0001\n    - 1e-4\n",
            [(4, "HPARAM_CANDIDATES.learning_rate.1: the candidate 0.0001 stands twice")],
        ),
        (
            "strategy: random\nHPARAM_RANGE:\n  batch_size:\n    low: 4\n    high: 30\n    step: 4",
            [
                (
                    5,
                    "HPARAM_RANGE.batch_size.high: must be low plus a multiple of step, got 30; "
                    "the nearest are 28 and 32",
                )
            ],
        ),
        (
            "strategy: random\nHPARAM_RANGE:\n  learning_rate: {low: 1e-5, high: 5, scale: log}",
            [(3, "HPARAM_RANGE.learning_rate.high: training_config.learning_rate: must be less")],
        ),
        (
            "strategy: random\nHPARAM_RANGE:\n  learning_rate: [1e-4, 3e-4]\n",
            [(3, "HPARAM_RANGE.learning_rate: must be {low: ..., high: ...}; a list of values be")],
        ),
        (
            "strategy: random\nHPARAM_CANDIDATES:\n  learning_rate: {low: 1e-5, high: 1e-3}\n",
            [(3, "HPARAM_CANDIDATES.learning_rate: must be a list of values; a range belongs to ")],
        ),
        (
            "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r: [4, 256]\n  lora_alpha: [8]\n",
            [(3, "HPARAM_CANDIDATES.lora_r: lora_r=256, lora_alpha=8.0: alpha / r must lie in")],
        ),
        (
            "strategy: grid\nHPARAM_CANDIDATES:\n  lora_r: [4, 8]\n  batch_size: [4, 8]\n"
            "conditions:\n  lora_r:\n    batch_size: 5\n",
            [(7, "conditions.lora_r.batch_size: can never be met: 5 is no candidate of batch_")],
        ),
        (
            "strategy: random\nnum_trials: 9\nHPARAM_CANDIDATES: {lora_r: [4, 8]}\n",
            [(2, "num_trials: must be at most the 2 points beside the default, got 9")],
        ),
        (
            "strategy: bayesian\nsampler_arguments:\n  multivariat: true\n"
            "HPARAM_CANDIDATES: {lora_r: [4, 8]}\n",
            [(3, "sampler_arguments.multivariat: no such argument of tpe; did you mean multiv")],
        ),
        (
            "HPARAM_CANDIDATES:\n  lora_r: [4, 0]\n  batch_size: []\n  max_steps: [50]\n",
            [
                (2, "HPARAM_CANDIDATES.lora_r.1: lora_config.r: must be greater than or equal"),
                (3, "HPARAM_CANDIDATES.batch_size: needs at least one candidate"),
                (4, "HPARAM_CANDIDATES.max_steps: max_steps=50: warmup_steps must be at most"),
            ],
        ),
        (
            "strategy: grid\nHPARAM_RANGE:\n  lora_dropout: {low: 0.0, high: 0.3}\n",
            [(3, "HPARAM_RANGE.lora_dropout: grid needs values that can be counted")],
        ),
        (
            "strategy: grid\nHPARAM_RANGE:\n  lora_config.dropout: {low: 0.0, high: 0.3}\n",
            [(3, "HPARAM_RANGE.lora_config.dropout: grid needs values that can be counted")],
        ),
        (
            "HPARAM_CANDIDATES:\n  lora_config.r: [4, 8]\n  batch_size: [4, 8]\n"
            "conditions:\n  lora_config.r: {batch_size: 4}\n",
            [(5, "conditions.lora_config.r: is not met by the default configuration")],
        ),
    ],
)
def test_a_faulty_file_is_refused_with_file_line_key_value_and_law(
    tmp_path: Path, text: str, lines: list[tuple[int, str]]
) -> None:
    path = tmp_path / "faulty.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_space(str(path))
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    for line, (number, law) in zip(found, lines, strict=True):
        assert line.startswith(f"{path}, line {number}: {law}")


def test_a_mistake_in_an_inherited_file_is_placed_there(tmp_path: Path) -> None:
    (tmp_path / "below.yaml").write_text("HPARAM_CANDIDATES:\n  lora_r: [4, 0]\n")
    top = tmp_path / "top.yaml"
    top.write_text("defaults: [below, _self_]\nHPARAM_CANDIDATES:\n  batch_size: [0]\n")
    with pytest.raises(ConfigError) as caught:
        load_space(str(top))
    found = str(caught.value).splitlines()
    assert len(found) == 2
    assert found[0].startswith(f"{tmp_path / 'below.yaml'}, line 2: HPARAM_CANDIDATES.lora_r.1: ")
    assert found[1].startswith(f"{top}, line 3: HPARAM_CANDIDATES.batch_size.0: ")
