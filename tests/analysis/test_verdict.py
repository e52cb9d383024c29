"""The verdict's sentences, in every state that a study can be in."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import pytest

from analysis_support import DEFAULT_ONLY, Planted, arms, control, plant
from planted_study import Effect
from tuning.analysis.configurations import ConfigurationSummary, Reading
from tuning.analysis.formats import percent_interval
from tuning.analysis.verdict import bound, headline, interval_points, points, verdict
from tuning.mixed_effects import Basis
from tuning.transfer_analysis import StudyAnalysis

SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 3}
SMALL = {"num_words": 40, "num_monitor_words": 12, "num_generated_items": 30}


def found(study: Planted, start: str) -> str:
    """Return the one sentence that begins so."""
    (sentence,) = [s for s in study.analysis.verdict if s.startswith(start)]
    return sentence


def reread(row: ConfigurationSummary, **readings: Reading) -> ConfigurationSummary:
    gains = {
        task: dataclasses.replace(gain, reading=readings.get(task, gain.reading))
        for task, gain in row.gains.items()
    }
    return dataclasses.replace(row, gains=gains)


@functools.cache
def winner() -> Planted:
    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        better = parameters.get("lora_r") == 32
        return Effect(spelling=0.2, position=0.3 if better else 0.0)

    space = {**SPACE, "replicates_of_default": 5}
    return plant(effect_of, space, seed_deviation=0.005)


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.021, "+2.1"),
        (-0.021, "-2.1"),
        (0.0004, "+0.04"),
        (-0.00003, "-0.003"),
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (1e-9, "0.0"),
    ],
)
def test_a_bound_shows_on_which_side_of_0_it_is(rate: float, text: str) -> None:
    assert bound(rate) == text
    if text != "0.0":
        assert (float(bound(rate)) > 0) == (rate > 0)


def test_an_interval_of_a_rate_stays_between_0_and_100() -> None:
    assert percent_interval(-0.02, 0.314) == "[0.0, 31.4]"
    assert percent_interval(0.941, 1.04) == "[94.1, 100.0]"


# --- words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.053, "+5.3"),
        (-0.1, "-10.0"),
        (0.0, "0.0"),
        (-0.0002, "0.0"),
        (0.0004, "0.0"),
        (1, "+100.0"),
    ],
)
def test_points_have_a_sign_and_zero_has_none(rate: float, text: str) -> None:
    assert points(rate) == text


SAYS = {
    Reading.TRANSFER: "position improved too: transfer",
    Reading.FORMAT: "position improved in format only",
    Reading.GUESSING: "position improved, but no further than guessing without the word reaches",
    Reading.CONTROL: "position improved, but not measurably more than the format control",
    Reading.CHANCE: "position improved, as one of so many configurations may by chance",
    Reading.SAME: "position did not measurably change",
    Reading.WORSE: "position got worse",
    Reading.WORSE_FORMAT: "position got worse in format only",
    Reading.CHANCE_WORSE: "position got worse, as one of so many configurations may by chance",
    Reading.LEARNED: "position improved",
}


@pytest.mark.parametrize("reading", list(Reading))
def test_every_reading_has_its_words_and_one_alone_says_transfer(reading: Reading) -> None:
    row = reread(control("speller").row("default"), position=reading, count=Reading.SAME)
    said = headline(row)
    assert said == (
        "Training on spelling improved spelling in the default configuration; "
        f"{SAYS[reading]} and count did not measurably change."
    )
    assert ("transfer" in said) == (reading is Reading.TRANSFER)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        (Reading.LEARNED, "Training on spelling improved spelling"),
        (Reading.SAME, "Training on spelling did not measurably change spelling"),
        (Reading.WORSE, "Training on spelling made spelling worse"),
    ],
)
def test_what_became_of_spelling_comes_first(reading: Reading, says: str) -> None:
    assert headline(reread(control("speller").row("default"), spelling=reading)).startswith(says)


def test_spelling_can_get_worse() -> None:
    study = plant(Effect(spelling=-0.2), DEFAULT_ONLY, seed_deviation=0.003)
    assert study.analysis.verdict[0].startswith("Training on spelling made spelling worse")


# --- the default --------------------------------------------------------------------------------


def test_the_first_sentence_is_about_the_default_though_another_ranks_first() -> None:
    study = winner()
    assert study.analysis.configurations[0].label == "lora_r=32"
    assert study.analysis.verdict[0] == headline(study.row("default"))
    assert "in the default configuration" in study.analysis.verdict[0]
    best = found(study, "With lora_r=32, which ranks first, ")
    assert "position improved too: transfer" in best


def test_gains_come_with_intervals_sizes_and_what_they_are_over() -> None:
    said = found(control("speller"), "The default against the untouched model")
    for task, gain in control("speller").row("default").gains.items():
        part = f"{task} {interval_points(gain.gain)}"
        assert f"{part} ({gain.num_items} items, {gain.num_words} words)" in said
    assert said.endswith("mean of 3 seeds, intervals over seeds and words.")


def test_one_seed_says_what_its_interval_is_of() -> None:
    once = {"HPARAM_CANDIDATES": {"lora_r": [4]}, "replicates_of_default": 1}
    said = found(plant(Effect(), once, **SMALL), "The default against the untouched model")
    assert said.endswith(
        "one seed, intervals over words: of this adapter, not of this configuration."
    )
    best = found(winner(), "The configuration with lora_r=32 against the untouched model")
    assert best.endswith("one seed, intervals over words and the spread of the repeated default.")
    assert winner().gain("position", "lora_r=32").gain.basis is Basis.BORROWED


def test_the_tests_that_were_named_in_advance_have_corrected_p_values() -> None:
    study = control("speller")
    said = found(study, "Named in advance, position and count of the default, Holm over 2 tests: ")
    raw = sorted((study.gain(task).gain.p_value, task) for task in ("position", "count"))
    first, second = min(1, 2 * raw[0][0]), max(min(1, 2 * raw[0][0]), raw[1][0])
    for task, p in zip((raw[0][1], raw[1][1]), (first, second), strict=True):
        assert (f"{task} p = {p:.3f}" if p >= 0.001 else f"{task} p < 0.001") in said


def test_what_could_have_been_found_is_said() -> None:
    study = control("speller")
    said = found(study, "With these seeds and words a gain is found with 80 % power")
    for task in ("position", "count"):
        assert f"{task} {100 * study.gain(task).detectable:.1f}" in said
        assert study.gain(task).detectable > 0
    blind = control("word_blind")
    assert blind.gain("position").detectable > 0.02, "no variance is not certainty"


# --- the ranking --------------------------------------------------------------------------------


def test_a_winner_is_counted_among_all_that_were_compared() -> None:
    said = found(winner(), "Ranked by transfer_learning_score (untouched: ")
    assert (
        "1 of 2 others beat the default (over seeds and words, Holm over 2 comparison(s))" in said
    )
    assert said.endswith("0 cannot be told from the best.")
    untouched = winner().analysis.untouched_objective
    assert untouched is not None
    assert f"(untouched: {untouched:.3f})" in said


def test_no_configuration_beats_the_default_is_a_verdict() -> None:
    study = plant(Effect(spelling=0.2), SPACE, **SMALL)
    said = found(study, "Ranked by ")
    assert "no configuration beats the default" in said
    assert "2 cannot be told from the best" in said


def test_without_repetition_a_ranking_is_noise() -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 1}
    said = found(plant(Effect(), space, **SMALL), "Ranked by ")
    assert said.endswith("no spread over seeds is known, so this cannot be told from noise.")


@pytest.mark.parametrize("focus", ["spelling", "transfer"])
def test_other_focuses_rank_by_gains_and_the_untouched_model_has_none(focus: str) -> None:
    study = plant(Effect(spelling=0.2), SPACE, fields={"focus": focus}, **SMALL)
    said = found(study, f"Ranked by {study.analysis.focus_says} (untouched: 0.000)")
    assert study.analysis.untouched_objective == 0
    assert said
    name = {"spelling": ["spelling"], "transfer": ["position", "count"]}[focus]
    for row in study.analysis.configurations:
        gains = [row.gains[task].gain.value for task in name]
        assert row.objective.value == pytest.approx(sum(gains) / len(gains))


def test_the_best_of_several_is_called_flattered() -> None:
    assert "its numbers flatter it" in found(
        winner(), "The best of several was chosen on the words"
    )


# --- arms ---------------------------------------------------------------------------------------


def test_controls_are_said_to_be_what_they_are() -> None:
    study = arms(control_gain=0.0, direct_gain=0.3)
    other = found(study, "The control, trained on the letters of other words, (arm=format_control)")
    ceiling = found(study, "The ceiling, trained on position and count themselves, (arm=direct)")
    direct = study.gain("position", "arm=direct").gain
    assert f"position {interval_points(direct)}" in ceiling
    assert "transfer" not in other + ceiling


# --- unfinished ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"missing": range(5)}, "No trial of 5 completed: there is nothing to conclude."),
        ({"failed": range(5)}, "No trial of 5 completed (5 failed): there is nothing to conclude."),
        (
            {"pruned": range(5)},
            "No trial of 5 completed (5 were stopped early): there is nothing to conclude.",
        ),
        (
            {"failed": [0, 1], "pruned": [2]},
            "No trial of 5 completed (2 failed, 1 were stopped early): there is nothing to "
            "conclude.",
        ),
    ],
)
def test_where_nothing_completed_nothing_is_concluded(options: Any, says: str) -> None:
    options = {"missing": [3, 4], **options} if 5 not in map(len, options.values()) else options
    study = plant(Effect(), SPACE, **SMALL, **options)
    assert list(study.analysis.verdict) == [says]


def test_trials_that_failed_are_counted() -> None:
    study = plant(Effect(), SPACE, failed=[3], **SMALL)
    assert found(study, "1 of 5 trials failed and are left out.")


def test_a_study_that_goes_on_says_that_all_may_change() -> None:
    study = plant(Effect(), SPACE, missing=[3, 4], failed=[2], **SMALL)
    assert found(study, "Only 2 of 5 trials have completed, 1 failed: all of this may change.")


def test_trials_that_were_stopped_are_not_ranked() -> None:
    study = plant(Effect(), SPACE, pruned=[4], **SMALL)
    assert found(study, "1 of 5 trials were stopped early")
    assert [row.label for row in study.analysis.configurations] in (
        ["default", "lora_r=4"],
        ["lora_r=4", "default"],
    )


def test_without_the_default_the_best_is_spoken_of_and_nothing_named_in_advance() -> None:
    study = plant(Effect(spelling=0.2), SPACE, failed=[0, 1, 2], **SMALL)
    first = study.analysis.configurations[0]
    assert f"with {first.label};" in study.analysis.verdict[0]
    assert not any(s.startswith("Named in advance") for s in study.analysis.verdict)
    assert "nothing was compared with the default" in " ".join(study.analysis.verdict) or (
        "no spread over seeds is known" in " ".join(study.analysis.verdict)
    )


# --- what it is no evidence of ------------------------------------------------------------------


def test_the_embedded_model_is_no_evidence_of_another() -> None:
    analysis: StudyAnalysis = control("speller").analysis
    assert analysis.verdict[-1].endswith("it is no evidence about Qwen3-4B or any other model.")
    real = dataclasses.replace(analysis, is_embedded_model=False, model="Qwen3-4B")
    assert not any("no evidence" in s for s in verdict(real))
    assert verdict(real) == list(analysis.verdict[:-1])
