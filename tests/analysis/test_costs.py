"""Rankings at equal examples, interpolated by hand, and what a gain costs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from analysis_support import Planted, plant
from planted_study import Effect
from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.costs import costs_of, equal_examples
from tuning.analysis.patterns import Curve
from tuning.analysis.resources import resources_of
from tuning.scoring import Focus, Weights, calculate_transfer_score
from tuning.statistics import t_interval


@functools.cache
def study() -> Planted:
    """Return a default of 12 steps of 8 examples, one of 4 steps, one of 16 examples a step."""
    space = {
        "HPARAM_CANDIDATES": {"max_steps": [4], "batch_size": [8]},
        "replicates_of_default": 3,
    }

    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        share = 0.3 if "max_steps" in parameters else 1.0
        return Effect(spelling=0.3 * share, position=0.2 * share, count=0.1 * share)

    return plant(effect_of, space)


def rows() -> dict[str, ConfigurationSummary]:
    return {row.label: row for row in study().analysis.configurations}


def curve(trial_id: str, examples: Sequence[int], *accuracies: Sequence[float]) -> Curve:
    names = ("spelling", "position", "count")
    return Curve(
        label="",
        trial_id=trial_id,
        training_key=trial_id,
        parameters={},
        steps=[e // 8 for e in examples],
        examples=examples,
        accuracies=dict(zip(names, accuracies, strict=True)),
        num_words=30,
    )


def row_of(label: str, rank: int, num_examples: int, *trial_ids: str) -> ConfigurationSummary:
    return dataclasses.replace(
        rows()["default"], label=label, rank=rank, num_examples=num_examples, trial_ids=trial_ids
    )


LONG = curve("a", [0, 80, 160], [0.2, 0.4, 0.8], [0.3, 0.3, 0.5], [0.4, 0.4, 0.4])
SHORT = curve("b", [0, 40, 100], [0.2, 0.5, 0.6], [0.3, 0.35, 0.4], [0.4, 0.4, 0.3])
WEIGHTS = Weights(0.5, 0.5)


@pytest.mark.parametrize(
    ("focus", "long", "short"),
    [
        # At 100 examples the long one is a quarter of the way from 80 to 160.
        (Focus.SPELLING, 0.5 - 0.2, 0.6 - 0.2),
        (Focus.TRANSFER, (0.05 + 0.0) / 2, (0.1 - 0.1) / 2),
        (
            Focus.BALANCED,
            calculate_transfer_score(0.5, 0.35, 0.4),
            calculate_transfer_score(0.6, 0.4, 0.3),
        ),
    ],
)
def test_values_between_two_evaluations_are_interpolated(
    focus: Focus, long: float, short: float
) -> None:
    given = [row_of("long", 1, 160, "a"), row_of("short", 2, 100, "b")]
    budget, found = equal_examples(given, [LONG, SHORT], focus, WEIGHTS)
    assert budget == 100, "as many as all have seen"
    assert {e.label: e.objective for e in found} == pytest.approx({"long": long, "short": short})
    assert [e.rank for e in found] == [1, 2]
    assert found[0].objective >= found[1].objective
    assert all(e.low is e.high is None and e.num_seeds == 1 for e in found)


def test_the_order_may_turn_at_equal_examples() -> None:
    given = [row_of("long", 1, 160, "a"), row_of("short", 2, 100, "b")]
    _, found = equal_examples(given, [LONG, SHORT], Focus.SPELLING, WEIGHTS)
    assert [e.label for e in found] == ["short", "long"]


def test_several_seeds_have_a_t_interval() -> None:
    again = dataclasses.replace(SHORT, trial_id="c", accuracies={**LONG.accuracies})
    given = [row_of("long", 1, 160, "a"), row_of("short", 2, 100, "b", "c")]
    _, found = equal_examples(given, [LONG, SHORT, again], Focus.SPELLING, WEIGHTS)
    two = next(e for e in found if e.label == "short")
    assert two.num_seeds == 2
    values = [0.6 - 0.2, 0.8 - 0.2]
    assert two.objective == pytest.approx(np.mean(values))
    assert (two.low, two.high) == pytest.approx(tuple(t_interval(values)))


@pytest.mark.parametrize("curves", [[], [LONG]])
def test_without_two_curves_nothing_is_compared(curves: list[Curve]) -> None:
    given = [row_of("long", 1, 160, "a"), row_of("short", 2, 100, "b")]
    assert equal_examples(given, curves, Focus.SPELLING, WEIGHTS) == (0, [])


def test_a_configuration_without_all_its_curves_is_left_out() -> None:
    given = [
        row_of("long", 1, 160, "a"),
        row_of("short", 2, 100, "b"),
        row_of("half", 3, 50, "b", "gone"),
    ]
    budget, found = equal_examples(given, [LONG, SHORT], Focus.SPELLING, WEIGHTS)
    assert (budget, len(found)) == (100, 2)


def test_a_planted_study_is_compared_at_the_fewest_examples() -> None:
    analysis = study().analysis
    assert analysis.equal_examples_budget == 32
    assert {row.num_examples for row in analysis.configurations} == {96, 32, 192}
    curves = {curve.trial_id: curve for curve in analysis.curves}
    for found in analysis.equal_examples:
        row = rows()[found.label]
        values = []
        for trial_id in row.trial_ids:
            known = curves[trial_id]
            levels = [
                np.interp(32, known.examples, known.accuracies[task])
                for task in ("spelling", "position", "count")
            ]
            values.append(calculate_transfer_score(*map(float, levels)))
        assert found.objective == pytest.approx(np.mean(values))
    for known in curves.values():
        assert known.examples == [s * known.examples[-1] // known.steps[-1] for s in known.steps]


def test_costs_are_gains_over_examples_and_minutes() -> None:
    for cost in study().analysis.costs:
        row = rows()[cost.label]
        gain = (row.gains["position"].gain.value + row.gains["count"].gain.value) / 2
        assert cost.transfer_gain == pytest.approx(gain)
        assert cost.points_per_1000_examples == pytest.approx(100 * gain / row.num_examples * 1000)
        seconds = max(study().records[t].execution.train_seconds for t in row.trial_ids)
        assert cost.train_minutes == pytest.approx(seconds / 60)
        assert cost.points_per_minute == pytest.approx(100 * gain / (seconds / 60))
        assert cost.resources == resources_of(study().records[t] for t in row.trial_ids)
    per_example = [cost.points_per_1000_examples for cost in study().analysis.costs]
    assert per_example == sorted(per_example, reverse=True)


def test_weights_that_others_had_trained_have_no_minutes() -> None:
    (cost,) = costs_of(
        [dataclasses.replace(rows()["default"], train_seconds=None)], study().records
    )
    assert cost.train_minutes is cost.points_per_minute is None
    assert cost.points_per_1000_examples != 0
