"""Influence of hyperparameters: planted effects are found, irrelevant ones are not."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from tuning.analysis.influence import (
    MIN_CONFIGURATIONS,
    Influence,
    _by_optuna,
    _Cells,
    _is_top,
    influences,
)
from tuning.analysis.marginals import Marginal, marginals
from tuning.analysis.parzen import divergences
from tuning.points import Condition, Parameter

MODULES = (["q_proj"], ["q_proj", "v_proj"], ["q_proj", "v_proj", "up_proj"])
PARAMETERS = (
    Parameter(
        name="learning_rate", key="training_config.learning_rate", low=1e-5, high=1e-2, is_log=True
    ),
    Parameter(name="lora_r", key="lora_config.r", values=(4, 8, 16, 32), is_integer=True),
    Parameter(name="target_modules", key="lora_config.target_modules", values=MODULES),
    Parameter(name="augment", key="spelling_config.augmentation", values=(False, True)),
    Parameter(
        name="warmup_steps",
        key="training_config.warmup_steps",
        low=0,
        high=500,
        step=50,
        is_integer=True,
        conditions=(Condition(parent="augment", values=(True,)),),
    ),
    Parameter(name="gpu_tier", key="lightning_config.gpu_tier", values=("cpu", "t4")),
)
BY_NAME = {p.name: p for p in PARAMETERS}

Point = dict[str, Any]


def draw(rng: np.random.Generator, number: int) -> list[Point]:
    """Return random points of the parameters above."""
    found = []
    for _ in range(number):
        point: Point = {
            "learning_rate": float(10 ** rng.uniform(-5, -2)),
            "lora_r": (4, 8, 16, 32)[rng.integers(4)],
            "target_modules": MODULES[rng.integers(3)],
            "augment": bool(rng.integers(2)),
            "gpu_tier": ("cpu", "t4")[rng.integers(2)],
        }
        if point["augment"]:
            point["warmup_steps"] = int(rng.integers(11) * 50)
        found.append(point)
    return found


def on_learning_rate(points: Sequence[Point], rng: np.random.Generator) -> list[float]:
    return [
        -((math.log10(p["learning_rate"]) + 3) ** 2) + 0.2 * float(rng.normal()) for p in points
    ]


def by_name(found: Sequence[Influence], target: str = "y") -> dict[str, Influence]:
    return {i.parameter: i for i in found if i.target == target}


@pytest.mark.parametrize("seed", range(3))
def test_the_planted_hyperparameter_is_first_and_above_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = draw(rng, 150)
    found = influences(points, PARAMETERS, {"y": on_learning_rate(points, rng)})
    first = found[0]
    assert first.parameter == "learning_rate"
    assert first.is_above_noise
    assert first.p_value is not None
    assert first.p_value <= 0.01
    for influence in found:
        if influence.importance is not None:
            assert influence.low is not None
            assert influence.high is not None
            assert 0 <= influence.low <= influence.importance <= influence.high <= 1


@pytest.mark.parametrize(
    ("name", "good"),
    [("target_modules", MODULES[2]), ("augment", True), ("lora_r", 32), ("warmup_steps", 0)],
)
def test_lists_booleans_candidates_and_conditions_work(name: str, good: Any) -> None:
    rng = np.random.default_rng(1)
    points = draw(rng, 200)
    values = [(p.get(name) == good) + 0.3 * float(rng.normal()) for p in points]
    found = by_name(influences(points, PARAMETERS, {"y": values}))
    assert found[name].is_above_noise
    assert not found["learning_rate"].is_above_noise


def test_a_target_dealt_at_random_is_rarely_above_noise() -> None:
    above = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        points = draw(rng, 60)
        found = influences(points, PARAMETERS, {"y": list(rng.normal(size=60))})
        above += [i.is_above_noise for i in found if i.importance is not None]
    # 200 tests at 5 %: 10 expected, 21 or more once in a thousand.
    assert len(above) == 200
    assert sum(above) <= 20


def test_each_target_has_its_own_influences() -> None:
    rng = np.random.default_rng(4)
    points = draw(rng, 120)
    targets = {
        "spelling": on_learning_rate(points, rng),
        "count": [p["lora_r"] + float(rng.normal()) for p in points],
    }
    found = influences(points, PARAMETERS, targets)
    assert [i.target for i in found] == ["spelling"] * 6 + ["count"] * 6
    assert found[0].parameter == "learning_rate"
    assert found[6].parameter == "lora_r"


def test_too_few_configurations_give_a_reason_and_no_number() -> None:
    rng = np.random.default_rng(0)
    points = draw(rng, MIN_CONFIGURATIONS - 1)
    # Seeds of one configuration do not make it two, nor does what trains nothing.
    again = [*points, points[0], {**points[1], "gpu_tier": "a100"}]
    found = by_name(influences(again, PARAMETERS, {"y": list(rng.normal(size=51))}))
    assert found["lora_r"].reason == "too few trials: 49 of at least 50 configurations"
    assert found["lora_r"].importance is None
    assert not found["lora_r"].is_above_noise


def test_seeds_of_one_configuration_are_averaged() -> None:
    rng = np.random.default_rng(2)
    points = draw(rng, 80)
    values = on_learning_rate(points, rng)
    once = influences(points, PARAMETERS, {"y": values})
    twice = influences(
        [*points, *points], PARAMETERS, {"y": [v - 0.1 for v in values] + [v + 0.1 for v in values]}
    )
    for a, b in zip(once, twice, strict=True):
        assert a.parameter == b.parameter
        assert a.importance == pytest.approx(b.importance)


def test_what_trains_nothing_or_was_not_varied_is_named_with_its_reason() -> None:
    rng = np.random.default_rng(3)
    points = [{**p, "lora_r": 8} for p in draw(rng, 60)]
    found = by_name(influences(points, PARAMETERS, {"y": on_learning_rate(points, rng)}))
    assert "changes the cost" in (found["gpu_tier"].reason or "")
    assert found["lora_r"].reason == "all configurations have the same value"
    flat = by_name(influences(points, PARAMETERS, {"y": [0.5] * 60}))
    assert "nothing to tell apart" in (flat["learning_rate"].reason or "")


def test_a_default_outside_the_candidates_counts_too() -> None:
    rng = np.random.default_rng(5)
    points = draw(rng, 60)
    points[0] = {**points[0], "lora_r": 64, "learning_rate": 0.5}
    found = by_name(influences(points, PARAMETERS, {"y": on_learning_rate(points, rng)}))
    assert found["lora_r"].importance is not None
    assert found["learning_rate"].importance is not None


def test_equal_data_give_equal_numbers() -> None:
    rng = np.random.default_rng(6)
    points = draw(rng, 70)
    targets = {"y": on_learning_rate(points, rng)}
    assert influences(points, PARAMETERS, targets) == influences(points, PARAMETERS, targets)


def test_repeats_use_the_very_sums_of_optuna() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        size = int(rng.integers(20, 200))
        values_N = np.round(rng.normal(size=size), int(rng.integers(0, 4)))
        cells = []
        for _ in range(3):
            num_cells = int(rng.integers(2, 51))
            own = np.where(
                rng.random(size) < rng.choice([0, 0.4]), -1, rng.integers(0, num_cells, size)
            )
            cells.append(_Cells(own, num_cells, bool(rng.integers(2))))
        tops = _is_top(values_N).astype(int)[None]
        ours = [divergences(*own, np.ones((1, size)), tops)[0] for own in cells]
        assert ours == pytest.approx(_by_optuna(cells, values_N), abs=1e-12)


def test_a_thousand_configurations_take_seconds() -> None:
    rng = np.random.default_rng(0)
    points = draw(rng, 1000)
    targets = {str(k): on_learning_rate(points, rng) for k in range(4)}
    clock = time.perf_counter()
    influences(points, PARAMETERS, targets)
    assert time.perf_counter() - clock < 15


# --- direction ----------------------------------------------------------------------------------


def test_marginal_means_say_the_direction() -> None:
    rng = np.random.default_rng(7)
    points = draw(rng, 120)
    values = [math.log10(p["learning_rate"]) + 0.1 * p["lora_r"] for p in points]
    found = marginals(points, PARAMETERS, {"y": values})
    assert {m.parameter for m in found} == set(BY_NAME) - {"gpu_tier"}
    ranks = [m for m in found if m.parameter == "lora_r"]
    assert [m.value for m in ranks] == ["4", "8", "16", "32"]
    assert [m.mean for m in ranks] == sorted(m.mean for m in ranks)
    assert sum(m.num_configurations for m in ranks) == 120
    rates = [m for m in found if m.parameter == "learning_rate"]
    assert len(rates) == 4
    assert all(m.num_configurations >= 29 for m in rates)
    assert all(" to " in m.value for m in rates)
    assert [m.mean for m in rates] == sorted(m.mean for m in rates)
    for m in found:
        assert m.low is None or m.low <= m.mean <= (m.high or math.inf)


def test_marginal_of_a_single_configuration_has_no_interval() -> None:
    (point,) = draw(np.random.default_rng(0), 1)
    found = marginals([point, point], [BY_NAME["lora_r"], BY_NAME["learning_rate"]], {"y": [1, 2]})
    assert [(m.mean, m.low, m.num_configurations) for m in found] == [(1.5, None, 1)] * 2
    assert isinstance(found[0], Marginal)
    assert " to " not in found[1].value
