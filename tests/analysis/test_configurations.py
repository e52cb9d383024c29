"""What may be said of a configuration: controls, arms, ratios, comparisons, on planted studies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from analysis_support import DEFAULT_ONLY, Planted, arms, control, plant
from planted_study import Answers, Effect
from tuning.analysis.answers import read_answers
from tuning.analysis.configurations import (
    CEILING,
    ConfigurationSummary,
    Reading,
    Table,
    table_of,
)
from tuning.measures import STRICT
from tuning.mixed_effects import Basis, mean_of_runs
from tuning.records import TrialStatus
from tuning.statistics import benjamini_hochberg, holm
from tuning.tasks.items import TRANSFER_TASKS, Task


def said(study: Planted) -> str:
    return " ".join(study.analysis.verdict)


def table(study: Planted) -> Table:
    """Return the table anew, with what it rests on."""
    records = [r for r in study.records.values() if r.result.status is TrialStatus.COMPLETED]
    return table_of(study.spec, read_answers(study.root, records), records)


# --- controls -----------------------------------------------------------------------------------


def test_a_word_blind_guesser_scores_the_baseline_and_is_no_transfer() -> None:
    study = control("word_blind")
    for task in ("position", "count"):
        gain = study.gain(task)
        assert gain.gain.value == 0
        assert gain.reading is Reading.SAME
        assert gain.after <= gain.baseline + 1e-9
    assert study.gain("count").after == pytest.approx(study.gain("count").baseline)
    assert study.gain("spelling").reading is Reading.LEARNED
    assert ": transfer" not in said(study)


def test_learning_to_guess_without_the_word_is_no_transfer() -> None:
    """Count from below the baseline up to it: both readings gain, yet no word was looked at."""
    study = plant(
        Effect(spelling=0.2, answers=Answers.WORD_BLIND),
        DEFAULT_ONLY,
        base_rates=(0.35, 0.12, 0.0),
        num_words=200,
        seed_deviation=0.0,
    )
    gain = study.gain("count")
    assert gain.gain.low > 0
    assert gain.choice is not None
    assert gain.choice.low > 0
    assert gain.choice_after is not None
    assert gain.choice_after.value == pytest.approx(gain.baseline)
    assert gain.reading is Reading.GUESSING
    assert "no further than guessing without the word reaches" in study.analysis.verdict[0]
    assert ": transfer" not in said(study)


def test_an_oracle_is_always_right_and_no_more_certain_than_its_words() -> None:
    study = control("oracle")
    for task in ("spelling", "position", "count"):
        gain = study.gain(task)
        assert gain.after == pytest.approx(1)
        assert gain.corrected_after == pytest.approx(1)
        assert gain.normalized.value == pytest.approx(1)
    choice = study.gain("position").choice_after
    assert choice is not None
    assert choice.value == pytest.approx(1)
    assert 0.9 < choice.low < 1
    for task in ("position", "count"):
        assert study.row("default").efficiency[task].value == pytest.approx(1)
        assert study.gain(task).reading is Reading.TRANSFER


def test_a_speller_that_cannot_count_has_an_efficiency_of_about_0() -> None:
    study = control("speller")
    for task in ("position", "count"):
        efficiency = study.row("default").efficiency[task]
        assert efficiency.value == pytest.approx(0, abs=0.12)
        assert efficiency.low is not None
        assert efficiency.high is not None
        assert efficiency.low < 0 < efficiency.high
        assert efficiency.high - efficiency.low < 0.5
        assert study.gain(task).reading is Reading.SAME


def test_at_the_ceiling_efficiency_is_undefined_with_the_reason() -> None:
    study = control("ceiling")
    before = study.gain("spelling").before
    assert before >= CEILING
    reason = f"the untouched model is at the ceiling ({100 * before:.1f} %)"
    assert study.gain("spelling").normalized.reason == reason
    for task in ("position", "count"):
        efficiency = study.row("default").efficiency[task]
        assert efficiency.value is efficiency.low is efficiency.high is None
        assert efficiency.reason == f"spelling: {reason}"


def test_without_a_measurable_gain_in_spelling_efficiency_is_undefined() -> None:
    study = plant(Effect(position=0.1), DEFAULT_ONLY)
    spelling = study.gain("spelling").gain
    assert spelling.low < 0 < spelling.high
    efficiency = study.row("default").efficiency["position"]
    assert efficiency.value is None
    assert efficiency.reason is not None
    assert efficiency.reason.startswith("the spelling gain, ")
    assert "is not distinguishable from 0" in efficiency.reason
    assert f"[{100 * spelling.low:+.1f}, {100 * spelling.high:+.1f}]" in efficiency.reason


def test_a_gain_in_format_alone_is_never_called_transfer() -> None:
    study = control("format_only")
    for task in ("position", "count"):
        gain = study.gain(task)
        assert gain.gain.low > 0
        assert gain.choice is not None
        assert gain.choice.low < 0 < gain.choice.high
        assert gain.reading is Reading.FORMAT
    named = said(study).replace("transfer_learning_score", "")
    assert "transfer" not in named


def test_negative_efficiency_is_kept() -> None:
    study = plant(
        Effect(spelling=0.25, position=-0.15, count=-0.1), DEFAULT_ONLY, seed_deviation=0.003
    )
    efficiency = study.row("default").efficiency["position"]
    assert efficiency.value is not None
    assert efficiency.high is not None
    assert efficiency.high < 0
    normalized = [study.gain(task).normalized.value for task in ("position", "spelling")]
    assert efficiency.value == pytest.approx(normalized[0] / normalized[1])
    assert study.gain("position").reading is Reading.WORSE
    assert "position got worse" in study.analysis.verdict[0]


# --- numbers ------------------------------------------------------------------------------------


def test_numbers_of_a_configuration_follow_from_the_answers() -> None:
    study = control("speller")
    row = study.row("default")
    for task, gain in row.gains.items():
        frames = [study.answers(trial_id) for trial_id in row.trial_ids]
        base = study.base_answers(row.trial_ids[0])
        a0 = base.loc[base["task"] == task, "strict_correct"].mean()
        a1 = np.mean([f.loc[f["task"] == task, "strict_correct"].mean() for f in frames])
        b = gain.baseline
        assert (gain.before, gain.after) == pytest.approx((a0, a1))
        assert gain.gain.value == pytest.approx(a1 - a0)
        assert gain.normalized.value == pytest.approx((a1 - a0) / (1 - a0))
        assert gain.corrected_before == pytest.approx((a0 - b) / (1 - b))
        assert gain.corrected_after == pytest.approx((a1 - b) / (1 - b))
        assert (gain.num_items, gain.num_words) == (
            len(base[base["task"] == task]),
            base.loc[base["task"] == task, "word"].nunique(),
        )
        if task != "spelling":
            c0 = base.loc[base["task"] == task, "choice_correct"].astype(float).mean()
            assert gain.choice_before == pytest.approx(c0)
            assert gain.choice_after is not None
            assert gain.choice is not None
            assert gain.choice_after.value - gain.choice.value == pytest.approx(c0)
    scores = [study.records[t].result.metrics["transfer_learning_score"] for t in row.trial_ids]
    assert row.scores["transfer_learning_score"] == pytest.approx(np.mean(scores))
    assert row.objective.value == pytest.approx(np.mean(scores))
    assert row.seeds == [0, 1, 2]
    assert row.num_examples == 12 * 8


def test_the_interval_of_an_efficiency_is_that_of_a_bootstrap_over_words() -> None:
    """One seed and nothing repeated: words alone, which a bootstrap knows too."""
    study = plant(
        Effect(spelling=0.3, position=0.15),
        {"HPARAM_CANDIDATES": {"lora_r": [16]}, "replicates_of_default": 1},
        num_words=150,
    )
    row = study.row("default")
    (trial_id,) = row.trial_ids
    frames = (study.base_answers(trial_id), study.answers(trial_id))
    tasks = ("spelling", "position")
    a0, a1 = (
        f[f["task"].isin(tasks)]
        .groupby(["word", "task"])["strict_correct"]
        .agg(["sum", "count"])
        .unstack(fill_value=0)
        for f in frames
    )
    rng = np.random.default_rng(0)
    drawn_RC = rng.multinomial(len(a0), np.full(len(a0), 1 / len(a0)), 4000)

    def normalized(task: str) -> np.ndarray:
        size = drawn_RC @ a0["count", task]
        before, after = (drawn_RC @ frame["sum", task] / size for frame in (a0, a1))
        return (after - before) / (1 - before)

    low, high = np.quantile(normalized("position") / normalized("spelling"), [0.025, 0.975])
    efficiency = row.efficiency["position"]
    assert efficiency.low is not None
    assert efficiency.high is not None
    assert (efficiency.low, efficiency.high) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_ratios_of_one_seed_borrow_the_spread_that_its_gains_do() -> None:
    study = plant(
        Effect(spelling=0.25, position=0.15),
        {"HPARAM_CANDIDATES": {"lora_r": [8]}, "replicates_of_default": 3},
        seed_deviation=0.012,
    )
    single, repeated = study.row("lora_r=8"), study.row("default")
    assert single.gains["position"].gain.basis is Basis.BORROWED
    one, three = single.efficiency["position"], repeated.efficiency["position"]
    assert one.value is not None
    assert three.value is not None
    standing = table(study).standing
    rooms = {task: 1 - single.gains[task].before for task in ("position", "spelling")}
    position, spelling = (
        np.array([run.value for run in standing.gains(standing.lenders[0], task, STRICT)])
        / rooms[task.value]
        for task in (Task.POSITION, Task.SPELLING)
    )
    # What the ratio of one seed strays by, told by three: t(2) = 4.303.
    size = single.gains["spelling"].gain.value / rooms["spelling"]
    strays = float(np.std(position - one.value * spelling, ddof=1)) / size
    assert one.low is not None
    assert one.high is not None
    assert (one.high - one.low) / 2 >= 4.302 * strays


# --- arms ---------------------------------------------------------------------------------------


def test_a_format_control_that_gains_as_much_explains_the_gain() -> None:
    study = arms(control_gain=0.15, direct_gain=0.3)
    gain = study.gain("position")
    assert gain.gain.low > 0
    assert gain.choice is not None
    assert gain.choice.low > 0
    assert gain.reading is Reading.CONTROL
    assert "not measurably more than the format control" in study.analysis.verdict[0]
    assert ": transfer" not in said(study)


def test_a_format_control_that_gains_nothing_leaves_the_transfer() -> None:
    study = arms(control_gain=0.0, direct_gain=0.3)
    assert study.gain("position").reading is Reading.TRANSFER
    assert "position improved too: transfer" in study.analysis.verdict[0]


def test_controls_are_not_ranked_and_never_said_to_transfer() -> None:
    study = arms(control_gain=0.15, direct_gain=0.3)
    assert {row.label for row in study.analysis.configurations} == {"default", "lora_r=8"}
    assert {row.rank for row in study.analysis.controls} == {0}
    assert study.gain("position", "arm=direct").reading is Reading.LEARNED
    assert study.gain("position", "arm=format_control").reading in (Reading.CONTROL, Reading.SAME)
    for row in study.analysis.controls:
        assert not row.beats_default
        assert row.over_default is None


def test_the_share_of_the_direct_arms_gain_that_spelling_recovers() -> None:
    study = arms(control_gain=0.0, direct_gain=0.3)
    own, direct = study.gain("position"), study.gain("position", "arm=direct")
    recovered = study.row("default").recovered["position"]
    assert recovered.value == pytest.approx(own.gain.value / direct.gain.value)
    assert recovered.low is not None
    assert recovered.high is not None
    assert recovered.low < 0.5 < recovered.high
    # The direct arm has one seed: what that may stray by is part of the interval.
    spread = table(study).standing.spread[f"position/{STRICT}"]
    assert spread is not None
    ratio = recovered.value
    seeds = spread.deviation * (1 / 3 + ratio**2) ** 0.5 / direct.gain.value
    assert (recovered.high - recovered.low) / 2 > 4.30 * seeds
    alone = study.row("arm=direct").recovered["position"]
    assert (alone.value, alone.reason) == (None, "this is the direct arm")


def test_without_a_direct_arm_or_its_gain_nothing_is_recovered() -> None:
    missing = control("speller").row("default").recovered["position"]
    assert (missing.value, missing.reason) == (None, "no direct arm was trained")
    study = arms(control_gain=0.0, direct_gain=0.0)
    direct = study.gain("position", "arm=direct").gain
    assert direct.low < 0 < direct.high
    recovered = study.row("default").recovered["position"]
    assert recovered.value is recovered.low is None
    assert recovered.reason is not None
    assert f"[{100 * direct.low:+.1f}, {100 * direct.high:+.1f}]" in recovered.reason
    assert recovered.reason.endswith("is not distinguishable from 0")


def test_a_direct_arm_is_as_uncertain_in_a_ratio_as_in_its_own_row() -> None:
    """Whether its gain is there is decided by the interval that its row shows, seeds included."""
    for direct_gain in (0.04, 0.06, 0.08):
        study = plant(
            lambda parameters, seed, gain=direct_gain: Effect(
                position=gain if parameters.get("arm") == "direct" else 0.0
            ),
            {"HPARAM_CANDIDATES": {"arm": ["direct"]}, "replicates_of_default": 3},
            seed_deviation=0.02,
        )
        is_there = study.gain("position", "arm=direct").gain.direction != 0
        assert (study.row("default").recovered["position"].value is not None) == is_there


# --- against the default ------------------------------------------------------------------------


def varied(parameters: Mapping[str, Any], seed: int) -> Effect:
    if parameters.get("lora_r") == 32:
        return Effect(spelling=0.2, position=0.25, count=0.1)
    return Effect(spelling=0.2)


@functools.cache
def winner() -> Planted:
    """Return a study with one better configuration, and one that trains the default's weights."""
    space = {
        "HPARAM_CANDIDATES": {"lora_r": [4, 8, 32], "gpu_tier": ["cpu", "t4"]},
        "replicates": 3,
        "replicates_of_default": 3,
    }
    return plant(varied, space, seed_deviation=0.005)


def others(study: Planted) -> list[ConfigurationSummary]:
    return [row for row in study.analysis.configurations if row.over_default is not None]


def test_a_better_configuration_is_said_to_beat_the_default() -> None:
    study = winner()
    first = study.analysis.configurations[0]
    assert (first.label, first.rank, first.beats_default) == ("lora_r=32", 1, True)
    assert first.over_default is not None
    assert first.over_default.low > 0
    assert sum(row.beats_default for row in study.analysis.configurations) == 1
    assert first.ties_with_best
    assert not any(row.ties_with_best for row in study.analysis.configurations[1:])
    assert any("1 of 3 others beat the default" in s for s in study.analysis.verdict)


def test_comparisons_are_corrected_together() -> None:
    rows = others(winner())
    raw = [row.over_default.p_value for row in rows if row.over_default]
    assert [row.p_default for row in rows] == pytest.approx(holm(raw))
    assert winner().analysis.num_tests["configurations against the default"] == len(rows) == 3
    assert winner().analysis.num_tests[
        "gains in position and count, all configurations"
    ] == 2 * len(winner().analysis.configurations)


def test_the_same_weights_are_never_tested_against_themselves() -> None:
    same = [row for row in winner().analysis.configurations if "gpu_tier" in row.parameters]
    assert same
    for row in same:
        assert row.same_weights_as == "default"
        assert row.over_default is row.p_default is None
        assert not row.beats_default
        assert row.gains["position"].gain == winner().gain("position").gain
    assert not any(e.parameter == "gpu_tier" for e in winner().analysis.effects)


def test_a_run_that_stands_in_two_configurations_is_one_observation() -> None:
    """Freedom of the spread: 2 for each of four trained configurations, none for the shared one."""
    standing = table(winner()).standing
    objective = standing.spread["objective"]
    assert objective is not None
    assert objective.freedom == 2 * 4
    gains = standing.spread[f"position/{STRICT}"]
    assert gains is not None
    assert gains.freedom == 2, "gains borrow from the default alone"


def test_without_the_default_gains_borrow_from_all_that_was_repeated() -> None:
    space = {
        "HPARAM_CANDIDATES": {"lora_r": [4, 8]},
        "replicates": 2,
        "replicates_of_default": 2,
    }
    study = plant(Effect(), space, failed=[0, 1], num_words=60)
    assert study.analysis.default is None
    spread = table(study).standing.spread[f"position/{STRICT}"]
    assert spread is not None
    assert spread.freedom == 2
    assert any("nothing was compared with the default" in s for s in study.analysis.verdict)


def test_without_any_repetition_nothing_beats_anything() -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 1}
    study = plant(varied, space)
    assert not any(row.beats_default for row in study.analysis.configurations)
    assert all(row.ties_with_best for row in study.analysis.configurations)
    assert study.gain("position").gain.basis is Basis.WORDS
    assert any("no spread over seeds is known" in s for s in study.analysis.verdict)


# --- one of many --------------------------------------------------------------------------------


@functools.cache
def search(seed: int) -> Planted:
    """Return a search of 24 configurations that all do the same: nothing."""
    values = {
        "lora_r": [
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            15,
            17,
            18,
            19,
            20,
            21,
            22,
            23,
            24,
            25,
        ]
    }
    space = {"HPARAM_CANDIDATES": values, "replicates_of_default": 5}
    return plant(
        Effect(spelling=0.2),
        space,
        seed=seed,
        num_words=60,
        num_monitor_words=6,
        seed_deviation=0.0,
        word_seed_deviation=0.1,
    )


def test_q_values_are_those_of_all_configurations_and_both_tasks() -> None:
    rows = search(0).analysis.configurations
    gains = [row.gains[task.value] for row in rows for task in TRANSFER_TASKS]
    wanted = benjamini_hochberg([gain.gain.p_value for gain in gains])
    assert [gain.q_value for gain in gains] == pytest.approx(wanted)
    assert all(row.gains["spelling"].q_value is None for row in rows)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_of_many_is_called_transfer_only_after_correction(seed: int) -> None:
    study = search(seed)
    for row in study.analysis.configurations:
        for task in TRANSFER_TASKS:
            gain = row.gains[task.value]
            if gain.reading is Reading.TRANSFER and not row.is_default:
                assert gain.q_value is not None
                assert gain.q_value < 0.05
            if gain.reading is Reading.CHANCE:
                assert gain.gain.low > 0
                assert gain.q_value is not None
                assert gain.q_value >= 0.05
    assert not any(row.beats_default for row in study.analysis.configurations)


def test_some_of_many_improve_by_chance_and_that_is_what_is_said() -> None:
    found = [
        row.gains[task.value].reading
        for seed in range(3)
        for row in search(seed).analysis.configurations
        for task in TRANSFER_TASKS
        if not row.is_default
    ]
    assert Reading.CHANCE in found
    assert Reading.TRANSFER not in found


def test_objectives_of_runs_are_those_of_the_records() -> None:
    standing = table(winner()).standing
    contender = next(c for c in (*standing.lenders,) if c.is_default)
    values = [run.value for run in standing.objectives(contender)]
    assert values == pytest.approx(list(contender.objectives))
    mean = mean_of_runs(standing.gains(contender, Task.POSITION, STRICT))
    assert mean.value == pytest.approx(winner().gain("position").gain.value)
