"""Direct effects of a one-at-a-time design."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from analysis_support import Planted, plant
from planted_study import Effect
from tuning.mixed_effects import Basis
from tuning.statistics import benjamini_hochberg

TARGETS = ["spelling", "position", "count", "objective"]


@functools.cache
def study() -> Planted:
    space = {
        "HPARAM_CANDIDATES": {
            "lora_r": [4, 32],
            "learning_rate": [0.0005, 0.002],
            "target_modules": [["q_proj"]],
            "position_task_weight": [0.3],
        },
        "replicates_of_default": 5,
    }

    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        position = 0.3 if parameters.get("learning_rate") == 0.002 else 0.05
        return Effect(spelling=0.15, position=position)

    return plant(effect_of, space, seed_deviation=0.005)


def test_every_changed_value_has_an_effect_on_each_task_and_the_objective() -> None:
    found = [(e.parameter, e.value, e.target) for e in study().analysis.effects]
    values = [
        ("lora_r", "4"),
        ("lora_r", "32"),
        ("learning_rate", "0.0005"),
        ("learning_rate", "0.002"),
        ("target_modules", "q_proj"),
    ]
    assert sorted(found) == sorted((*value, target) for value in values for target in TARGETS)


def test_what_trains_the_same_weights_has_no_effect() -> None:
    same = study().row("position_task_weight=0.3")
    assert same.same_weights_as == "default"
    assert not any(e.parameter == "position_task_weight" for e in study().analysis.effects)


def test_an_effect_is_the_difference_of_means_over_seeds() -> None:
    records, default = study().records, study().row("default")
    for effect in study().analysis.effects:
        label = f"{effect.parameter}={effect.value}"
        (trial_id,) = study().row(label).trial_ids
        name = {
            "spelling": "spelling/accuracy",
            "position": "transfer/position/accuracy",
            "count": "transfer/count/accuracy",
            "objective": "transfer_learning_score",
        }[effect.target]
        base = np.mean([records[t].result.metrics[name] for t in default.trial_ids])
        wanted = records[trial_id].result.metrics[name] - base
        assert effect.effect.value == pytest.approx(wanted)
        assert effect.effect.basis is Basis.BORROWED


def test_a_planted_effect_is_found_and_others_are_not() -> None:
    found = {(e.value, e.target): e for e in study().analysis.effects}
    large = found["0.002", "position"]
    assert large.effect.low > 0
    assert large.q_value < 0.05
    assert large.effect.low < 0.25 < large.effect.high
    quiet = [e for e in study().analysis.effects if e.value != "0.002"]
    assert sum(e.q_value < 0.05 for e in quiet) == 0


def test_effects_are_corrected_for_their_number() -> None:
    effects = study().analysis.effects
    wanted = benjamini_hochberg([e.effect.p_value for e in effects])
    assert [e.q_value for e in effects] == pytest.approx(wanted)


def test_an_effect_on_the_objective_is_that_of_the_ranking() -> None:
    for effect in study().analysis.effects:
        if effect.target == "objective":
            row = study().row(f"{effect.parameter}={effect.value}")
            assert row.over_default == effect.effect


def test_without_the_default_there_are_no_effects() -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 1}
    assert plant(Effect(), space, failed=[0], num_words=30).analysis.effects == []


def test_configurations_that_differ_in_two_values_have_none() -> None:
    space = {
        "strategy": "grid",
        "HPARAM_CANDIDATES": {"lora_r": [8, 16], "learning_rate": [0.001, 0.002]},
        "replicates_of_default": 2,
    }
    effects = plant(Effect(), space, num_words=30).analysis.effects
    assert {(e.parameter, e.value) for e in effects} == {
        ("lora_r", "8"),
        ("learning_rate", "0.002"),
    }
