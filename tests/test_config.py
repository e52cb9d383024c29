"""Laws of `tuning.config`: files round-trip, mistakes are named, the key holds what trains."""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tuning import composition, fingerprint
from tuning import config as configs
from tuning.composition import load
from tuning.config import ExperimentConfig, build
from tuning.errors import ConfigError, NameRefusedError, NotFoundError, UserError
from tuning.fingerprint import training_key, weights_key
from tuning.tokens.subset import SubsetRule

STAMP = "20260102_030405"
BASE = {"experiment_name": "base", "timestamp": STAMP}

# Section 3 of the specification, to the letter: all keys that it names, and all defaults.
SPECIFIED = """
experiment_name: base
timestamp: "20260102_030405"
lora_config:      {r: 16, alpha: 32, dropout: 0.05, target_modules: [q_proj, k_proj, v_proj, o_proj]}
training_config:  {learning_rate: 2.0e-4, per_device_train_batch_size: 8,
                   gradient_accumulation_steps: 4, max_steps: 1000, warmup_steps: 100}
spelling_config:  {data_ratio: 0.7, augmentation: true, difficulty: medium}
transfer_config:  {eval_frequency: 100, position_task_weight: 0.5, count_task_weight: 0.5}
lightning_config: {gpu_tier: cpu, auto_scale: true, sleep_when_idle: true}
tokenizer_config: {model_name: Qwen/Qwen3-4B, use_english_only_tokens: false,
                   analyze_thinking_mode: false}
"""


def leaves(model: type[BaseModel] = ExperimentConfig, prefix: str = "") -> Iterator[str]:
    """Yield the dotted key of every field of the schema."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def changed(dotted: str, value: Any, **base: Any) -> ExperimentConfig:
    return build(merged(BASE | base, configs.nested(dotted, value)), "test")


def merged(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    both = {k: merged(base[k], v) for k, v in top.items() if isinstance(base.get(k), dict)}
    return {**base, **top, **both}


# --- every legal configuration ----------------------------------------------------------------

RATES = st.floats(0, 1)
STEPS = st.integers(1, 10_000_000)
TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\x85")
"""All but surrogates, which are no text; NEL has a test of its own."""
NAME = st.text(TEXT, min_size=1, max_size=12).filter(lambda t: "${" not in t and t != "???")
"""Hydra's signs for an interpolation and for a value left open are no names."""
R = st.integers(1, 1024)


def steps_and_warmup() -> st.SearchStrategy[dict[str, int]]:
    return st.tuples(STEPS, STEPS).map(
        lambda pair: {"max_steps": max(pair), "warmup_steps": min(pair)}
    )


def r_and_alpha() -> st.SearchStrategy[dict[str, float]]:
    return R.flatmap(
        lambda r: st.fixed_dictionaries(
            {"r": st.just(r), "alpha": st.floats(r / 16, min(4096, r * 64))}
        )
    )


def joined(
    pair: st.SearchStrategy[dict[str, Any]], rest: dict[str, st.SearchStrategy[Any]]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(pair, st.fixed_dictionaries(rest)).map(lambda both: both[0] | both[1])


LEGAL = st.fixed_dictionaries(
    {
        "experiment_name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True),
        "timestamp": st.datetimes().map(lambda t: f"{t.year:04}" + t.strftime("%m%d_%H%M%S")),
        "lora_config": joined(
            r_and_alpha(),
            {
                "dropout": st.floats(0, 1, exclude_max=True),
                "target_modules": st.lists(
                    st.text("abz_.019", min_size=1, max_size=9), min_size=1, max_size=4, unique=True
                ),
            },
        ),
        "training_config": joined(
            steps_and_warmup(),
            {
                "learning_rate": st.floats(0, 1, exclude_min=True),
                "per_device_train_batch_size": st.integers(1, 65536),
                "gradient_accumulation_steps": st.integers(1, 65536),
                "schedule": st.sampled_from(["constant_with_warmup", "linear", "cosine"]),
                "weight_decay": st.floats(0, 10),
                "adam_beta1": st.floats(0, 1, exclude_max=True),
                "adam_beta2": st.floats(0, 1, exclude_max=True),
                "max_grad_norm": st.floats(0, 1e300, exclude_min=True),
                "seed": st.integers(0, 2**32 - 1),
                "precision": st.sampled_from(["auto", "32-true", "bf16", "fp16"]),
                "gradient_checkpointing": st.booleans(),
                "num_threads": st.none() | st.integers(1, 1024),
            },
        ),
        "spelling_config": st.fixed_dictionaries(
            {
                "data_ratio": st.floats(0, 1, exclude_min=True),
                "augmentation": st.booleans(),
                "difficulty": st.sampled_from(["easy", "medium", "hard"]),
                "arm": st.sampled_from(["spelling", "format_control", "direct"]),
                "word_list": st.none() | st.just(os.devnull),
                "replay_file": st.none() | st.just(os.devnull),
            }
        ),
        "transfer_config": st.fixed_dictionaries(
            {
                "eval_frequency": STEPS,
                "position_task_weight": RATES,
                "count_task_weight": RATES,
            }
        ),
        "lightning_config": st.fixed_dictionaries(
            {
                "gpu_tier": st.sampled_from(["cpu", "t4", "a100"]),
                "auto_scale": st.booleans(),
                "sleep_when_idle": st.booleans(),
                "machine": st.none() | NAME,
            }
        ),
        "tokenizer_config": st.fixed_dictionaries(
            {
                "model_name": NAME,
                "use_english_only_tokens": st.booleans(),
                "subset_rule": st.sampled_from([rule.value for rule in SubsetRule]),
                "analyze_thinking_mode": st.booleans(),
            }
        ),
        "evaluation_config": st.fixed_dictionaries(
            {
                "num_words": st.integers(10, 100_000),
                "num_monitor_words": st.integers(3, 100_000),
                "num_generated_items": st.integers(0, 100_000),
                "four_shot": st.booleans(),
                "oracle": st.booleans(),
                "num_thinking_items": st.integers(1, 10_000),
                "max_thinking_tokens": st.integers(1, 32_768),
            }
        ),
    }
).filter(
    lambda raw: (
        raw["training_config"]["precision"] != "bf16"
        or "t4" not in (raw["lightning_config"]["machine"] or raw["lightning_config"]["gpu_tier"])
    )
)
"""No T4 has bf16; the other laws between keys hold by how values are drawn."""
ROUND_TRIP = settings(
    # An example has every field, and takes half a second.
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def flattened(raw: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in raw.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@given(raw=LEGAL)
@settings(max_examples=1, suppress_health_check=[HealthCheck.too_slow])
def test_the_round_trip_below_covers_every_field_of_the_schema(raw: dict[str, Any]) -> None:
    assert set(flattened(raw)) == set(leaves())


@given(raw=LEGAL)
@ROUND_TRIP
def test_yaml_and_json_give_back_the_same_configuration(
    raw: dict[str, Any], tmp_path: Path
) -> None:
    config = build(raw, "test")
    path = configs.save(config, tmp_path)
    assert path.name == f"{raw['experiment_name']}_{raw['timestamp']}.yaml"
    from_yaml = load(path)
    (tmp_path / "config.json").write_text(config.model_dump_json(), encoding="utf-8")
    from_json = load(tmp_path / "config.json")
    path.unlink()
    assert from_yaml == config
    assert from_json == config
    assert configs.to_yaml(from_yaml) == configs.to_yaml(config)
    assert from_json.model_dump_json() == config.model_dump_json()
    assert weights_key(from_yaml) == weights_key(from_json) == weights_key(config)


@pytest.mark.parametrize(
    "name", ["a\x85b", "a\u2028b", "\u2029", "größer 你好", "a\tb", "no", "1e3"]
)
def test_rare_line_breaks_survive_yaml(name: str) -> None:
    config = changed("tokenizer_config.model_name", name)
    assert build(yaml.safe_load(configs.to_yaml(config)), "test") == config


@given(raw=LEGAL)
@ROUND_TRIP
def test_every_value_of_a_file_is_the_value_of_the_configuration(raw: dict[str, Any]) -> None:
    assert build(raw, "test").model_dump(mode="json") == raw


# --- the specification ------------------------------------------------------------------------


def test_a_file_with_only_the_specified_keys_loads_and_is_the_default(tmp_path: Path) -> None:
    path = tmp_path / "specified.yaml"
    path.write_text(SPECIFIED, encoding="utf-8")
    assert load(path) == build(BASE, "test")


def test_every_specified_default_is_written_into_a_full_file() -> None:
    written = yaml.safe_load(configs.to_yaml(build(BASE, "test")))
    specified = yaml.safe_load(SPECIFIED)
    for section, keys in specified.items():
        if isinstance(keys, dict):
            assert {k: written[section][k] for k in keys} == keys
        else:
            assert written[section] == keys


def test_the_timestamp_is_set_at_creation() -> None:
    config = build({"experiment_name": "x"}, "test")
    assert re.fullmatch(r"20\d{6}_\d{6}", config.timestamp)


def test_a_configuration_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build(BASE, "test").lora_config.r = 4  # type: ignore[misc]


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("experiment_name", 2024),
        ("experiment_name", None),
        ("timestamp", "2026-01-02"),
        ("timestamp", 2026010203040),
        ("timestamp", True),
        ("lora_config", None),
        ("lora_config", 5),
        ("lora_config.r", 0),
        ("lora_config.r", 1025),
        ("lora_config.r", 8.0),
        ("lora_config.r", "8"),
        ("lora_config.r", True),
        ("lora_config.alpha", 0),
        ("lora_config.alpha", math.nan),
        ("lora_config.alpha", math.inf),
        ("lora_config.alpha", 0.9),  # alpha / r below 1/16
        ("lora_config.alpha", 1025),  # alpha / r above 64
        ("lora_config.dropout", 1.0),
        ("lora_config.dropout", -0.1),
        ("lora_config.target_modules", []),
        ("lora_config.target_modules", "q_proj"),
        ("training_config.learning_rate", 0),
        ("training_config.learning_rate", 1.5),
        ("training_config.learning_rate", math.nan),
        ("training_config.learning_rate", "fast"),
        ("training_config.per_device_train_batch_size", 0),
        ("training_config.gradient_accumulation_steps", 1.5),
        ("training_config.max_steps", 0),
        ("training_config.max_steps", 99),  # fewer than the 100 steps of warm-up
        ("training_config.warmup_steps", -1),
        ("training_config.warmup_steps", 1001),
        ("training_config.schedule", "exponential"),
        ("training_config.weight_decay", -0.1),
        ("training_config.adam_beta1", 1.0),
        ("training_config.adam_beta1", math.nan),
        ("training_config.adam_beta2", math.nan),
        ("training_config.max_grad_norm", 0),
        ("training_config.seed", -1),
        ("training_config.seed", 2**32),
        ("training_config.precision", "16"),
        ("training_config.num_threads", 0),
        ("spelling_config.data_ratio", 0),
        ("spelling_config.data_ratio", 1.01),
        ("spelling_config.augmentation", "yes"),
        ("spelling_config.augmentation", 1),
        ("spelling_config.difficulty", "extreme"),
        ("spelling_config.arm", "control"),
        ("spelling_config.arm", None),
        ("spelling_config.word_list", ""),
        ("spelling_config.word_list", 5),
        ("spelling_config.replay_file", ""),
        ("transfer_config.eval_frequency", 0),
        ("transfer_config.position_task_weight", -0.1),
        ("transfer_config.count_task_weight", 1.1),
        ("lightning_config.gpu_tier", "h100"),
        ("tokenizer_config.model_name", ""),
        ("evaluation_config.num_words", 9),
        ("evaluation_config.num_monitor_words", 2),
        ("evaluation_config.num_generated_items", -1),
        ("evaluation_config.num_generated_items", 1.5),
        ("evaluation_config.num_generated_items", True),
        ("evaluation_config.four_shot", 1),
        ("evaluation_config.oracle", "no"),
    ],
)
def test_a_value_outside_its_law_is_refused_with_key_and_file(dotted: str, value: Any) -> None:
    section, _, key = dotted.rpartition(".")
    with pytest.raises(ConfigError, match=re.escape(section or key)) as caught:
        build(merged(BASE, configs.nested(dotted, value)), "my.yaml")
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith("my.yaml: ")
    assert key in str(caught.value)


@pytest.mark.parametrize(
    ("dotted", "value"),
    [
        ("lora_config.alpha", 1),
        ("lora_config.alpha", 1024),
        ("training_config.max_steps", 100),
        ("training_config.warmup_steps", 0),
        ("spelling_config.data_ratio", 1),
        ("transfer_config.position_task_weight", 0),
        ("spelling_config.arm", "direct"),
        ("spelling_config.word_list", None),
        ("evaluation_config.num_generated_items", 0),
        ("training_config.learning_rate", "1e-3"),  # YAML 1.1 reads 1e-3 as text
    ],
)
def test_a_value_at_the_edge_of_its_law_is_allowed(dotted: str, value: Any) -> None:
    changed(dotted, value)


def test_a_broken_scale_says_which_values_are_legal() -> None:
    with pytest.raises(ConfigError, match="for r 4 choose alpha between 0.25 and 256"):
        build(BASE | {"lora_config": {"r": 4, "alpha": 4000}}, "f")


@pytest.mark.parametrize(
    ("dotted", "hint"),
    [
        ("training_config.learning_rat", "did you mean learning_rate"),
        ("lora_config.bias", "known: alpha, dropout, r, target_modules"),
        ("lora_confg", "did you mean lora_config"),
        (
            "spelling_config.max_steps",
            "known: arm, augmentation, data_ratio, difficulty, replay_file, word_list",
        ),
        ("spelling_config.wordlist", "did you mean word_list"),
    ],
)
def test_an_unknown_key_names_the_nearest(dotted: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=rf"my.yaml: {dotted}: no such key; {hint}"):
        build(merged(BASE, configs.nested(dotted, 1)), "my.yaml")


def test_all_mistakes_of_a_file_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "timestamp: yesterday\n"
        "lora_config: {r: 0, allpha: 3}\n"
        "training_config: {learning_rate: 7, max_steps: 10}\n"
        "spelling_config: {difficulty: extreme}\n"
        "loraconfig: {}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).splitlines() == [
        f"{path}: experiment_name: must be given",
        f"{path}, line 1: timestamp: must match pattern '^[0-9]{{8}}_[0-9]{{6}}$', got 'yesterday'",
        f"{path}, line 2: lora_config.r: must be greater than or equal to 1, got 0",
        f"{path}, line 2: lora_config.allpha: no such key; did you mean alpha?",
        f"{path}, line 3: training_config.learning_rate: must be less than or equal to 1, got 7",
        f"{path}, line 4: spelling_config.difficulty: must be 'easy', 'medium' or 'hard', "
        "got 'extreme'",
        f"{path}, line 5: loraconfig: no such key; did you mean lora_config?",
        f"{path}, line 3: training_config.warmup_steps: warmup_steps must be at most max_steps, "
        "got 100 > 10",
    ]


def test_an_unsafe_name_is_reported_together_with_the_other_mistakes() -> None:
    with pytest.raises(ConfigError) as caught:
        build({"experiment_name": "../x", "lora_config": {"r": 0}}, "f")
    assert "experiment_name" in str(caught.value)
    assert "lora_config.r" in str(caught.value)


@pytest.mark.parametrize("name", ["../x", "", "a/b", ".x", "-x", "x" * 129, "a b", "a\n", "é"])
def test_a_name_that_could_leave_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="experiment_name must be 1 to 128 letters"):
        build({"experiment_name": name}, "f")
    with pytest.raises(ConfigError):
        configs.create_experiment_config(name, config_dir=tmp_path / "inner")
    assert list(tmp_path.rglob("*")) == []


# --- files ------------------------------------------------------------------------------------


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("experiment_name: x")
    with pytest.raises(NotFoundError, match="no such file; did you mean experiment.yaml"):
        load(tmp_path / "experimnt.yaml")
    with pytest.raises(NotFoundError, match="no such file"):
        load(tmp_path / "no" / "such" / "folder.yaml")


@pytest.mark.parametrize(
    ("name", "content", "law"),
    [
        ("f.yaml", "a: [", ", line 1: not YAML"),
        ("f.yaml", "{[1, 2]: 3}", ", line 1: a key must be text, got a list or mapping"),
        ("f.yaml", "!!python/object:os.system {}", ", line 1: not YAML"),
        ("f.yaml", "- 1", ": must hold a mapping of sections, got list"),
        ("f.yaml", "", ": must hold a mapping of sections, got nothing"),
        ("f.json", "{", ", line 1: not JSON"),
        ("f.json", "[]", ": must hold a mapping of sections, got list"),
        ("f.yaml", b"\xff\xfe\x00", ", line 1: is not UTF-8 text"),
        ("f.yaml", "1: 2\nexperiment_name: x", ", line 1: a key must be text, got '1'"),
    ],
)
def test_what_is_no_configuration_is_one_clear_error(
    tmp_path: Path, name: str, content: str | bytes, law: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=f"{path}{law}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        load(tmp_path)


@pytest.mark.parametrize(
    "content", ["timestamp: 2026-13-45", "experiment_name: !!int x", "experiment_name: !!bool x"]
)
def test_a_value_that_yaml_itself_cannot_read_is_one_clear_error(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / "f.yaml").write_text(content)
    with pytest.raises(UserError):
        load(tmp_path / "f.yaml")


# --- overrides --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "dotted", "value"),
    [
        ("lora_r=8", "lora_config.r", 8),
        ("lora_config.r=8", "lora_config.r", 8),
        ("learning_rate=1e-3", "training_config.learning_rate", 0.001),
        ("batch_size=2", "training_config.per_device_train_batch_size", 2),
        ("spelling_augmentation=false", "spelling_config.augmentation", False),
        ("arm=direct", "spelling_config.arm", "direct"),
        ("spelling_config.arm=format_control", "spelling_config.arm", "format_control"),
        ("evaluation_config.oracle=true", "evaluation_config.oracle", True),
        ("target_modules=[q_proj, up_proj]", "lora_config.target_modules", ["q_proj", "up_proj"]),
        ("experiment_name=other", "experiment_name", "other"),
        ("models=tiny", "tokenizer_config.model_name", "tiny"),
        ("training_config.num_threads=null", "training_config.num_threads", None),
    ],
)
def test_an_override_changes_its_key_and_no_other(override: str, dotted: str, value: Any) -> None:
    config = build(BASE, "test")
    assert composition.overridden(config, [override]) == changed(dotted, value)


def test_overrides_on_a_file_win_over_it_and_later_ones_over_earlier(tmp_path: Path) -> None:
    path = configs.save(changed("lora_config.r", 4), tmp_path)
    assert load(path).lora_config.r == 4
    assert load(path, ["lora_r=8"]).lora_config.r == 8
    assert load(path, ["lora_r=8", "lora_config.r=32"]).lora_config.r == 32
    assert load(path, ["models=tiny"]).lora_config.r == 4


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("lora_r", ConfigError, "must be key=value, got 'lora_r'"),
        ("=3", ConfigError, "must be key=value"),
        (
            "lora_rr=3",
            ConfigError,
            "lora_rr: no such hyperparameter, key or group; did you mean lora_r",
        ),
        ("lora_config.q=3", ConfigError, "lora_config.q: no such key"),
        ("lora_r=0", ConfigError, "lora_config.r: .* got 0"),
        ("lora_config.r.deeper=3", ConfigError, "lora_config.r"),
        ("models=tinny", NotFoundError, "models=tinny: no such configuration; did you mean tiny"),
        ("models=../../x", NameRefusedError, "models must be 1 to 128 letters"),
        ("evaluation=slow", NotFoundError, "known: fast, full"),
    ],
)
def test_a_wrong_override_is_one_clear_error(
    override: str, error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        composition.overridden(build(BASE, "test"), [override])


@pytest.mark.parametrize("override", ["lora_r=[", "lora_r=2026-13-45", "experiment_name='x"])
def test_an_override_that_is_no_yaml_is_one_clear_error(override: str) -> None:
    with pytest.raises(UserError):
        composition.overridden(build(BASE, "test"), [override])


# --- flat names -------------------------------------------------------------------------------

SPECIFIED_FLAT = {
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "learning_rate": 2e-4,
    "batch_size": 8,
    "grad_accum_steps": 4,
    "max_steps": 1000,
    "warmup_steps": 100,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "spelling_data_ratio": 0.7,
    "spelling_augmentation": True,
    "spelling_difficulty": "medium",
    "transfer_eval_frequency": 100,
    "position_task_weight": 0.5,
    "count_task_weight": 0.5,
    "gpu_tier": "cpu",
    "auto_scale": True,
    "sleep_when_idle": True,
    "use_english_only_tokens": False,
    "analyze_thinking_mode": False,
}
OTHER_FLAT = {
    "lora_r": (8, "lora_config.r"),
    "lora_alpha": (64.0, "lora_config.alpha"),
    "lora_dropout": (0.1, "lora_config.dropout"),
    "learning_rate": (5e-4, "training_config.learning_rate"),
    "batch_size": (2, "training_config.per_device_train_batch_size"),
    "grad_accum_steps": (3, "training_config.gradient_accumulation_steps"),
    "max_steps": (777, "training_config.max_steps"),
    "warmup_steps": (7, "training_config.warmup_steps"),
    "target_modules": (["up_proj"], "lora_config.target_modules"),
    "spelling_data_ratio": (0.9, "spelling_config.data_ratio"),
    "spelling_augmentation": (False, "spelling_config.augmentation"),
    "spelling_difficulty": ("hard", "spelling_config.difficulty"),
    "arm": ("format_control", "spelling_config.arm"),
    "subset_rule": ("letters", "tokenizer_config.subset_rule"),
    "transfer_eval_frequency": (33, "transfer_config.eval_frequency"),
    "position_task_weight": (0.3, "transfer_config.position_task_weight"),
    "count_task_weight": (0.7, "transfer_config.count_task_weight"),
    "gpu_tier": ("t4", "lightning_config.gpu_tier"),
    "auto_scale": (False, "lightning_config.auto_scale"),
    "sleep_when_idle": (False, "lightning_config.sleep_when_idle"),
    "use_english_only_tokens": (True, "tokenizer_config.use_english_only_tokens"),
    "analyze_thinking_mode": (True, "tokenizer_config.analyze_thinking_mode"),
}


def test_the_arguments_of_create_experiment_config_are_those_specified() -> None:
    parameters = inspect.signature(configs.create_experiment_config).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional[0].name == "exp_name"
    defaults = {p.name: p.default for p in positional[1:]}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()} == (
        SPECIFIED_FLAT
    )
    assert list(defaults) == list(SPECIFIED_FLAT)


def test_the_names_of_hyperparameters_are_those_specified() -> None:
    # Two are ours: a search space may vary them, the specified function does not take them.
    assert set(configs.FLAT_NAMES) == {*SPECIFIED_FLAT, "arm", "subset_rule"} == set(OTHER_FLAT)


def test_create_experiment_config_writes_name_and_timestamp_and_returns_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = configs.create_experiment_config("my_exp")
    assert path.parent == Path("configs/hyperparameters")
    assert re.fullmatch(r"my_exp_20\d{6}_\d{6}\.yaml", path.name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    config = load(path)
    assert path.stem == f"my_exp_{config.timestamp}"
    expected = build({"experiment_name": "my_exp", "timestamp": config.timestamp}, "test")
    assert config == expected


@pytest.mark.parametrize("name", SPECIFIED_FLAT)
def test_every_argument_reaches_its_key_and_no_other(name: str, tmp_path: Path) -> None:
    value, dotted = OTHER_FLAT[name]
    path = configs.create_experiment_config("e", **{name: value}, config_dir=tmp_path)
    written = load(path)
    assert written == changed(dotted, value, experiment_name="e", timestamp=written.timestamp)
    assert written != build(BASE | {"experiment_name": "e", "timestamp": written.timestamp}, "t")


@pytest.mark.parametrize("name", OTHER_FLAT)
def test_every_hyperparameter_reaches_its_key_and_no_other(name: str) -> None:
    value, dotted = OTHER_FLAT[name]
    config = build(BASE, "test")
    assert configs.with_parameters(config, {name: value}) == changed(dotted, value)
    assert config == build(BASE, "test"), "the original is untouched"


def test_an_illegal_argument_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="e: lora_config.r: .* got 0"):
        configs.create_experiment_config("e", lora_r=0, config_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_hyperparameter_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="lora_rank: no such hyperparameter; did you mean lora_r"):
        configs.with_parameters(build(BASE, "test"), {"lora_rank": 8})


# --- step scale -------------------------------------------------------------------------------


@given(
    thousandths=st.integers(1, 1000),
    max_steps=st.integers(1, 1_000_000),
    warmup=st.integers(0, 1_000_000),
    cadence=st.integers(1, 100_000),
)
@settings(deadline=None)
def test_a_step_scale_is_decimal_arithmetic_rounded_up(
    thousandths: int, max_steps: int, warmup: int, cadence: int
) -> None:
    config = build(
        BASE
        | {
            "training_config": {"max_steps": max_steps, "warmup_steps": min(warmup, max_steps)},
            "transfer_config": {"eval_frequency": cadence},
        },
        "test",
    )
    scaled = configs.step_scaled(config, thousandths / 1000)

    def expected(steps: int) -> int:
        return math.ceil(Decimal(steps) * Decimal(thousandths) / 1000)

    assert scaled.training_config.max_steps == expected(max_steps)
    assert scaled.training_config.warmup_steps == expected(min(warmup, max_steps))
    assert scaled.transfer_config.eval_frequency == expected(cadence)


@pytest.mark.parametrize(
    ("steps", "scale", "expected"),
    [
        (200, 0.07, 14),  # 14.000000000000002 in binary
        (100, 0.28, 28),  # 28.000000000000004
        (100, 0.55, 55),  # 55.00000000000001
        (100, 0.29, 29),  # 28.999999999999996
        (1000, 0.1, 100),
        (15, 0.1, 2),
        (1, 0.001, 1),
        (1000, 1.0, 1000),
    ],
)
def test_a_step_scale_rounds_up_and_not_for_binary_dust(
    steps: int, scale: float, expected: int
) -> None:
    config = changed("training_config", {"max_steps": steps, "warmup_steps": 0})
    assert configs.step_scaled(config, scale).training_config.max_steps == expected


@pytest.mark.parametrize(
    ("steps", "scale", "expected"), [(9_999_000, 0.553, 5_529_447), (1000, 1e-13, 1)]
)
def test_a_step_scale_holds_at_the_ends_of_its_range(
    steps: int, scale: float, expected: int
) -> None:
    config = changed("training_config", {"max_steps": steps, "warmup_steps": 0})
    assert configs.step_scaled(config, scale).training_config.max_steps == expected


def test_a_step_scale_changes_nothing_else() -> None:
    config = changed("training_config.seed", 5)
    raw = configs.step_scaled(config, 0.1).model_dump()
    before = config.model_dump()
    assert raw["training_config"].pop("max_steps") == 100
    assert raw["training_config"].pop("warmup_steps") == 10
    assert raw["transfer_config"].pop("eval_frequency") == 10
    for name in ("max_steps", "warmup_steps"):
        before["training_config"].pop(name)
    before["transfer_config"].pop("eval_frequency")
    assert raw == before
    assert configs.step_scaled(config, 1) == config


@pytest.mark.parametrize("scale", [0, -0.1, 1.01, math.nan, math.inf])
def test_a_step_scale_outside_its_law_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match=r"step scale must lie in \(0, 1\]"):
        configs.step_scaled(build(BASE, "test"), scale)


# --- the key of a training --------------------------------------------------------------------

CHANGES_WEIGHTS = {
    "lora_config.r": 8,
    "lora_config.alpha": 16,
    "lora_config.dropout": 0.1,
    "lora_config.target_modules": ["q_proj", "v_proj"],
    "training_config.learning_rate": 3e-4,
    "training_config.per_device_train_batch_size": 4,
    "training_config.gradient_accumulation_steps": 2,
    "training_config.warmup_steps": 99,
    "training_config.schedule": "cosine",
    "training_config.weight_decay": 0.01,
    "training_config.adam_beta1": 0.8,
    "training_config.adam_beta2": 0.99,
    "training_config.max_grad_norm": 0.5,
    "training_config.seed": 1,
    "training_config.precision": "fp16",
    "spelling_config.data_ratio": 0.5,
    "spelling_config.augmentation": False,
    "spelling_config.difficulty": "hard",
    "spelling_config.arm": "direct",
    # Files that exist everywhere: a key needs their content.
    "spelling_config.word_list": os.devnull,
    "spelling_config.replay_file": os.devnull,
    "tokenizer_config.model_name": "Qwen/Qwen3-0.6B",
    "tokenizer_config.use_english_only_tokens": True,
}
CHANGES_NO_WEIGHT = {
    "experiment_name": "other",
    "timestamp": "20300101_000000",
    # Bit identity is promised at equal threads only; the number is recorded, not part of the key.
    "training_config.num_threads": 3,
    "training_config.gradient_checkpointing": True,
    "transfer_config.eval_frequency": 7,
    "transfer_config.position_task_weight": 0.1,
    "transfer_config.count_task_weight": 0.1,
    "lightning_config.gpu_tier": "a100",
    "lightning_config.auto_scale": False,
    "lightning_config.sleep_when_idle": False,
    "lightning_config.machine": "H100",
    "tokenizer_config.analyze_thinking_mode": True,
    "evaluation_config.num_words": 50,
    "evaluation_config.num_monitor_words": 30,
    "evaluation_config.num_generated_items": 0,
    "evaluation_config.four_shot": True,
    "evaluation_config.oracle": True,
    "evaluation_config.num_thinking_items": 3,
    "evaluation_config.max_thinking_tokens": 16,
}
DEPENDS_ON_SCHEDULE = {"training_config.max_steps": 2000}
DEPENDS_ON_SUBSET = {"tokenizer_config.subset_rule": "letters"}


def test_every_field_of_the_schema_is_said_to_change_the_weights_or_not() -> None:
    said = [*CHANGES_WEIGHTS, *CHANGES_NO_WEIGHT, *DEPENDS_ON_SCHEDULE, *DEPENDS_ON_SUBSET]
    assert len(said) == len(set(said))
    assert set(said) == set(leaves()), "say of the new field whether it can change the weights"


@pytest.mark.parametrize("schedule", ["constant_with_warmup", "linear"])
@pytest.mark.parametrize("dotted", CHANGES_WEIGHTS)
def test_the_key_changes_with_whatever_can_change_the_weights(dotted: str, schedule: str) -> None:
    base = changed("training_config.schedule", schedule)
    other = merged(base.model_dump(mode="json"), configs.nested(dotted, CHANGES_WEIGHTS[dotted]))
    assert training_key(build(other, "test")) != training_key(base)
    assert weights_key(build(other, "test")) != weights_key(base)


def test_the_rule_of_a_subset_is_in_the_key_only_where_the_vocabulary_is_sliced() -> None:
    (dotted, rule), english = *DEPENDS_ON_SUBSET.items(), "tokenizer_config.use_english_only_tokens"
    whole, sliced = changed(english, False), changed(english, True)
    for base, is_other in ((whole, False), (sliced, True)):
        other = build(merged(base.model_dump(mode="json"), configs.nested(dotted, rule)), "test")
        assert (training_key(other) != training_key(base)) is is_other


@pytest.mark.parametrize("schedule", ["constant_with_warmup", "linear"])
@pytest.mark.parametrize("dotted", CHANGES_NO_WEIGHT)
def test_the_key_changes_with_nothing_else(dotted: str, schedule: str) -> None:
    base = changed("training_config.schedule", schedule)
    other = merged(base.model_dump(mode="json"), configs.nested(dotted, CHANGES_NO_WEIGHT[dotted]))
    assert build(other, "test") != base
    assert training_key(build(other, "test")) == training_key(base)
    assert weights_key(build(other, "test")) == weights_key(base)


@pytest.mark.parametrize(
    ("schedule", "in_key"), [("constant_with_warmup", False), ("linear", True), ("cosine", True)]
)
def test_a_longer_run_is_another_training_only_when_the_schedule_says_so(
    schedule: str, in_key: bool
) -> None:
    short = changed("training_config", {"schedule": schedule, "max_steps": 1000})
    long = changed("training_config", {"schedule": schedule, "max_steps": 2000})
    assert (training_key(short) != training_key(long)) is in_key
    assert weights_key(short) != weights_key(long)


def test_no_two_changes_share_a_key() -> None:
    keys = {training_key(changed(dotted, value)) for dotted, value in CHANGES_WEIGHTS.items()}
    assert len(keys) == len(CHANGES_WEIGHTS)


def test_equal_batches_of_another_shape_stay_distinct_trainings() -> None:
    def shaped(rows: int, batches: int) -> ExperimentConfig:
        sizes = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": batches}
        return changed("training_config", sizes)

    assert shaped(4, 4).training_config.effective_batch_size == 16
    assert training_key(shaped(4, 4)) != training_key(shaped(8, 2))


def test_how_a_value_is_written_does_not_change_the_key() -> None:
    base = training_key(build(BASE, "test"))
    assert training_key(changed("lora_config.alpha", 32.0)) == base
    assert training_key(changed("lora_config.alpha", 32)) == base
    assert training_key(changed("training_config.learning_rate", "2e-4")) == base
    modules = ["o_proj", "v_proj", "k_proj", "q_proj"]
    assert training_key(changed("lora_config.target_modules", modules)) == base
    assert training_key(
        changed("training_config.precision", fingerprint.resolved_precision("auto"))
    ) == (base)


def test_the_version_is_that_of_random_numbers_by_micro_batch() -> None:
    assert fingerprint.TRAINING_VERSION == 6


@pytest.mark.parametrize("key", ["word_list", "replay_file"])
def test_a_file_of_the_users_own_counts_by_its_content_not_by_its_name(
    tmp_path: Path, key: str
) -> None:
    for name, content in (("a", "planet\n"), ("b", "planet\n"), ("c", "planets\n")):
        (tmp_path / name).write_text(content)
    keys = {
        name: training_key(changed(f"spelling_config.{key}", str(tmp_path / name)))
        for name in "abc"
    }
    assert keys["a"] == keys["b"]
    assert keys["a"] != keys["c"]
    assert training_key(build(BASE, "test")) not in keys.values()
    (tmp_path / "a").write_text("orchard\n")
    assert training_key(changed(f"spelling_config.{key}", str(tmp_path / "a"))) != keys["a"]


def test_the_same_file_as_words_and_as_replay_are_two_trainings(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("planet\n")
    keys = {
        training_key(changed(f"spelling_config.{key}", str(path)))
        for key in ("word_list", "replay_file")
    }
    assert len(keys) == 2


@pytest.mark.parametrize("key", ["word_list", "replay_file"])
@pytest.mark.parametrize("name", ["no/such/file.txt", "", "x\0y", "y" * 5000])
def test_a_file_of_the_users_own_that_cannot_be_read_is_one_clear_line(
    tmp_path: Path, key: str, name: str
) -> None:
    config = changed(f"spelling_config.{key}", f"{tmp_path}/{name}")
    with pytest.raises(
        NotFoundError, match=rf"^spelling_config\.{key}: .*cannot be read"
    ) as caught:
        training_key(config)
    assert "\n" not in str(caught.value)


def test_raising_the_version_changes_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = training_key(build(BASE, "test"))
    monkeypatch.setattr(fingerprint, "TRAINING_VERSION", fingerprint.TRAINING_VERSION + 1)
    assert training_key(build(BASE, "test")) != before


def test_the_key_of_the_embedded_model_is_that_of_its_weights_not_of_its_name() -> None:
    identity = fingerprint.training_identity(changed("tokenizer_config.model_name", "tiny"))
    assert identity["model"] == fingerprint.embedded_weights_hash()
    assert re.fullmatch("[0-9a-f]{64}", identity["model"])


def test_keys_are_safe_as_names_of_folders() -> None:
    config = changed("training_config.max_steps", 500)
    assert re.fullmatch("[0-9a-f]{20}", training_key(config))
    assert weights_key(config) == f"{training_key(config)}@500"


@pytest.mark.parametrize("precision", ["32-true", "bf16", "fp16"])
def test_a_precision_that_is_asked_for_is_what_is_meant(precision: str) -> None:
    assert fingerprint.resolved_precision(precision) == precision
    assert fingerprint.resolved_precision("auto") in ("32-true", "bf16", "fp16")


def test_another_process_computes_the_same_key_without_torch() -> None:
    code = """
import json, sys
from tuning.config import build
from tuning.fingerprint import weights_key
config = build({"experiment_name": "base", "timestamp": "20260102_030405"}, "t")
heavy = [m for m in ("torch", "transformers", "peft", "lightning", "scipy") if m in sys.modules]
print(json.dumps([heavy, weights_key(config)]))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(answer.stdout) == [[], weights_key(build(BASE, "test"))]
