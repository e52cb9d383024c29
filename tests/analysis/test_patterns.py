"""Patterns of learning curves: what is planted is found, and noise is called noise."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planted_study import Effect, write_planted_study
from tuning.analysis.pattern_sentences import sentences
from tuning.analysis.patterns import (
    MAX_SHARED,
    Curve,
    Shape,
    noise_band,
    patterns_of,
    shape_of,
    smoothed,
    task_pattern,
)
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec
from tuning.transfer_analysis import analyze

NUM_WORDS = 1000
"""A band of at most 4.4 points."""

RISES = [0.4, 0.45, 0.5, 0.5, 0.5]
DECAYS = [0.4, 0.45, 0.5, 0.45, 0.4]
FLAT = [0.4] * 5
MADE = itertools.count()


def curve(
    position: Sequence[float] = FLAT,
    spelling: Sequence[float] = RISES,
    parameters: Mapping[str, Any] | None = None,
    key: str = "",
    num_words: int = NUM_WORDS,
) -> Curve:
    steps = [20 * i for i in range(len(position))]
    number = next(MADE)
    return Curve(
        label="label",
        trial_id=f"trial {number}",
        training_key=key or f"training {number}",
        parameters=parameters or {},
        steps=steps,
        examples=[8 * step for step in steps],
        accuracies={"spelling": spelling, "position": position, "count": [0.3] * len(steps)},
        num_words=num_words,
    )


# --- one curve ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "shape", "start", "peak"),
    [
        (RISES, Shape.RISES, 20, 40),
        (DECAYS, Shape.RISES_THEN_DECAYS, 20, 20),
        ([0.4, 0.35, 0.3, 0.3, 0.3], Shape.FALLS, 20, 40),
        ([0.4, 0.3, 0.3, 0.3, 0.4], Shape.FALLS_THEN_RECOVERS, 20, 20),
        (FLAT, Shape.FLAT, None, 0),
        ([0.4, 0.42, 0.44, 0.43, 0.41], Shape.FLAT, None, 40),
        ([0.4, 0.41, 0.42, 0.5, 0.55], Shape.RISES, 60, 80),
        ([0.4, 0.5, 0.5, 0.3, 0.3], Shape.RISES_THEN_DECAYS, 20, 20),
        ([0.4, 0.3, 0.3, 0.5, 0.5], Shape.FALLS_THEN_RECOVERS, 20, 20),
        ([0.4, 0.6], Shape.RISES, 20, 20),
    ],
)
def test_a_shape_is_told_with_its_start_and_peak(
    levels: list[float], shape: Shape, start: int | None, peak: int
) -> None:
    found = task_pattern(curve(levels, levels), "position")
    assert (found.shape, found.starts_at_step, found.peak_step) == (shape, start, peak)
    assert found.starts_at_examples == (None if start is None else 8 * start)
    assert found.final_gain == pytest.approx(levels[-1] - levels[0])
    assert found.decay == pytest.approx(abs(found.peak_gain - found.final_gain))


def test_one_noisy_evaluation_is_no_peak() -> None:
    assert task_pattern(curve([0.4, 0.4, 0.9, 0.4, 0.4]), "position").shape is Shape.FLAT
    found = task_pattern(curve([0.4, 0.4, 0.6, 0.6, 0.4]), "position")
    assert found.shape is Shape.RISES_THEN_DECAYS


def test_the_band_is_the_stated_formula() -> None:
    half = np.array([0.5, 0.5])
    assert noise_band(half, 90) == pytest.approx(1.96 * np.sqrt(2 * 0.25 / 90), abs=1e-3)
    assert noise_band(half, 90) == pytest.approx(0.146, abs=0.001)
    assert noise_band(half, 300) == pytest.approx(0.080, abs=0.001)
    assert noise_band(np.array([0.1, 0.45]), 90) == pytest.approx(noise_band(half, 90), abs=0.01)
    assert noise_band(np.array([0.0, 0.0]), 90) > 0.02


def test_the_lead_says_which_task_moved_first() -> None:
    later = [0.4, 0.4, 0.4, 0.5, 0.5]
    (after,) = patterns_of([curve(later, RISES)]).trials
    (before,) = patterns_of([curve(RISES, later)]).trials
    (never,) = patterns_of([curve(FLAT, RISES)]).trials
    assert (after.lead, before.lead, never.lead) == ({"position": 40}, {"position": -40}, {})


def test_forgetting_is_an_end_below_the_beginning() -> None:
    falls = [0.4, 0.35, 0.3, 0.3, 0.3]
    patterns = patterns_of([curve(falls), curve(DECAYS), curve(FLAT)])
    assert [s.num_forgotten for s in patterns.summaries] == [0, 1, 0]
    assert "In 1 of 3 trainings position ended below the untouched model" in "\n".join(
        sentences(patterns)
    )


LEVELS = st.lists(st.floats(0.0, 1.0), min_size=2, max_size=12)


@given(LEVELS, st.floats(-1, 1), st.floats(0.01, 0.3))
def test_shifting_all_accuracies_leaves_the_shape(
    levels: list[float], shift: float, noise: float
) -> None:
    # Rounded, so that a shift changes no difference in its last bits.
    gains = [np.round(smoothed(x) - x[0], 9) for x in (levels, [v + shift for v in levels])]
    assert shape_of(gains[0], noise) is shape_of(gains[1], noise)


MIRRORED = {
    Shape.RISES: Shape.FALLS,
    Shape.RISES_THEN_DECAYS: Shape.FALLS_THEN_RECOVERS,
    Shape.FALLS: Shape.RISES,
    Shape.FALLS_THEN_RECOVERS: Shape.RISES_THEN_DECAYS,
    Shape.FLAT: Shape.FLAT,
}


EIGHTHS = st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=2, max_size=12)


@given(EIGHTHS)
def test_wrong_answers_move_as_right_ones_mirrored(levels: list[float]) -> None:
    found = task_pattern(curve(levels, levels), "position")
    mirrored = [1 - level for level in levels]
    other = task_pattern(curve(mirrored, mirrored), "position")
    assert other.shape is MIRRORED[found.shape]
    assert other.starts_at_step == found.starts_at_step
    assert other.peak_step == found.peak_step
    assert other.noise == pytest.approx(found.noise)


@given(EIGHTHS, st.integers(2, 100))
def test_larger_batches_change_examples_alone(levels: list[float], factor: int) -> None:
    small = curve(levels, levels)
    large = dataclasses.replace(small, examples=[factor * n for n in small.examples])
    found, other = task_pattern(small, "position"), task_pattern(large, "position")
    if found.starts_at_examples is not None:
        assert other.starts_at_examples == factor * found.starts_at_examples
    assert dataclasses.replace(other, starts_at_examples=found.starts_at_examples) == found


@given(LEVELS)
def test_what_a_pattern_says_fits_together(levels: list[float]) -> None:
    found = task_pattern(curve(levels, levels), "position")
    assert (found.starts_at_step is None) == (found.shape is Shape.FLAT)
    assert found.decay >= 0
    if found.shape.is_rise:
        assert found.peak_gain > found.noise
        assert found.starts_at_step <= found.peak_step
    if found.is_forgotten:
        assert found.shape not in (Shape.RISES, Shape.FLAT)


# --- many curves --------------------------------------------------------------------------------


def design() -> list[Curve]:
    """Three trainings at a rate of 0.01 that decay, and eight others, one of which does too."""
    rates = [{"learning_rate": 0.01}] * 3 + [{"learning_rate": 0.001}] * 4 + [{"lora_r": 8}] * 2
    ways = [DECAYS] * 3 + [RISES] * 5 + [DECAYS]
    curves = [curve(way, RISES, rate) for way, rate in zip(ways, rates, strict=True)]
    return [*curves, curve(RISES), curve(RISES)]


def test_a_setting_that_shares_a_shape_is_named() -> None:
    patterns = patterns_of(design())
    first = next(
        s for s in patterns.shared if (s.task, s.shape) == ("position", Shape.RISES_THEN_DECAYS)
    )
    assert (first.parameter, first.value) == ("learning_rate", "0.01")
    assert (first.num_with, first.num_with_shape) == (3, 3)
    assert (first.num_without, first.num_without_shape) == (8, 1)
    assert (
        "In 3 of 3 trials with learning_rate=0.01 position rose and then decayed "
        "(peak +5.0 at step 20, end 0.0), against 1 of 8 others." in sentences(patterns)
    )


def test_values_of_single_trials_are_not_named() -> None:
    patterns = patterns_of([curve(DECAYS, RISES, {"lora_r": 4}), curve(), curve()])
    assert list(patterns.shared) == []


def test_what_all_trials_have_explains_nothing() -> None:
    patterns = patterns_of([curve(DECAYS, RISES, {"lora_r": 4}) for _ in range(4)])
    assert list(patterns.shared) == []


def test_numbers_of_a_random_search_are_named_by_thirds() -> None:
    rates = np.geomspace(1e-5, 1e-2, 30)
    curves = [
        curve(DECAYS if rate > 1e-3 else RISES, RISES, {"learning_rate": float(rate)})
        for rate in rates
    ]
    shared = [s for s in patterns_of(curves).shared if s.task == "position"]
    decayed = next(s for s in shared if s.shape is Shape.RISES_THEN_DECAYS)
    assert decayed.value.endswith("to 0.01")
    assert (decayed.num_with, decayed.num_with_shape, decayed.num_without_shape) == (10, 10, 0)
    assert all(s.num_with == 10 for s in shared)


def test_at_most_five_settings_are_named_for_a_shape() -> None:
    curves = [curve(DECAYS, RISES, {f"own.key_{i}": 1}) for i in range(8) for _ in range(2)] + [
        curve() for _ in range(40)
    ]
    shared = [s for s in patterns_of(curves).shared if s.shape is Shape.RISES_THEN_DECAYS]
    assert len(shared) == MAX_SHARED


def test_nested_budgets_are_counted_once() -> None:
    short, long = curve(RISES[:3], RISES[:3], key="k"), curve(DECAYS, RISES, key="k")
    again = curve(DECAYS, RISES, key="k")
    patterns = patterns_of([short, long, again, curve(FLAT)])
    assert [trial.trial_id for trial in patterns.trials][:1] == [long.trial_id]
    assert (len(patterns.trials), patterns.num_nested) == (2, 2)
    assert "2 trial(s) with a training that stands there already" in sentences(patterns)[0]


def test_curves_without_a_beginning_are_left_out() -> None:
    late = dataclasses.replace(curve(), steps=[20, 40, 60, 80, 100])
    only_base = curve([0.4], [0.3])
    patterns = patterns_of([late, only_base])
    assert (len(patterns.trials), patterns.num_too_short) == (0, 2)


def test_no_curve_is_said_to_be_none() -> None:
    assert sentences(patterns_of([])) == [
        "There is no learning curve: nothing is known of the way."
    ]


def test_few_curves_are_told_one_by_one() -> None:
    one = curve(DECAYS)
    said = sentences(patterns_of([one]))
    assert "in 1 training: described, not tested" in said[0]
    assert said[1] == (
        f"{one.trial_id} (label): spelling rose from step 20 on (peak +10.0 at step 40, end +10.0); "
        "position rose and then decayed from step 20 on (peak +5.0 at step 20, end 0.0); "
        "count did not leave the noise (end 0.0)."
    )
    assert said[2] == (
        "Position began to rise at the same evaluation as spelling "
        "(median of 1 training with both)."
    )


def test_many_curves_are_summed_up() -> None:
    said = sentences(patterns_of(design()))
    assert said[2] == (
        "In 11 trainings position rose in 7, rose and then decayed in 4; where it moved, it began "
        "at step 20 (160 examples; medians)."
    )
    assert said[3] == "In 11 trainings count did not leave the noise in 11."


def test_flat_curves_mostly_stay_flat() -> None:
    rng, flat = np.random.default_rng(0), 0
    for _ in range(400):
        words = rng.random((90, 1)) < 0.4
        # A tenth of the words change from one evaluation to the next.
        changed = rng.random((90, 8)) < 0.1
        right = np.where(changed, rng.random((90, 8)) < 0.4, words)
        levels = [float(words.mean()), *right.mean(axis=0)]
        flat += task_pattern(curve(levels, levels, num_words=90), "position").shape is Shape.FLAT
    assert flat > 390


def test_a_thousand_curves_take_less_than_two_seconds() -> None:
    rng = np.random.default_rng(0)
    curves = [
        curve(
            list(rng.random(30)),
            list(rng.random(30)),
            {"learning_rate": float(rng.random()), "lora_r": int(rng.integers(2, 64))},
        )
        for _ in range(1000)
    ]
    started = time.process_time()
    assert sentences(patterns_of(curves))
    assert time.process_time() - started < 2


# --- from planted folders -----------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_a_planted_pattern_is_found_in_a_study(
    small_config: Any, fast_path: Path, seed: int
) -> None:
    space = {
        "strategy": "grid",
        "HPARAM_CANDIDATES": {"learning_rate": [0.001, 0.01], "lora_r": [4, 8, 32]},
        "replicates_of_default": 3,
    }
    base = small_config("training_config.max_steps=80", "transfer_config.eval_frequency=8")
    spec = StudySpec(name="planted", space=SearchSpace.model_validate(space), base=base)

    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        if parameters.get("learning_rate") == 0.01:
            decays = {"curve": "rise_then_decay", "peak": 0.25}
            return Effect(spelling=0.3, position=0.02, count=0.02, **decays)
        return Effect(spelling=0.3, position=0.2)

    root = ResultsRoot(fast_path)
    write_planted_study(
        root,
        spec,
        effect_of,
        num_words=120,
        num_monitor_words=400,
        seed_deviation=0.0,
        num_generated_items=18,
        seed=seed,
    )
    patterns = patterns_of(analyze(root, "planted").curves)
    assert len(patterns.trials) == 9
    for trial in patterns.trials:
        is_fast = trial.parameters.get("learning_rate") == 0.01
        wanted = Shape.RISES_THEN_DECAYS if is_fast else Shape.RISES
        assert trial.tasks["position"].shape is wanted
        assert trial.tasks["spelling"].shape is Shape.RISES
        assert is_fast or trial.tasks["count"].shape is Shape.FLAT
    first = next(
        s for s in patterns.shared if (s.task, s.shape) == ("position", Shape.RISES_THEN_DECAYS)
    )
    assert (first.parameter, first.value) == ("learning_rate", "0.01")
    assert (first.num_with_shape, first.num_without_shape) == (3, 0)
