"""Stored answers, paired item by item: what is there, what is missing, what contradicts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from analysis_support import Planted, copy_of, plant
from planted_study import Effect
from tuning import measures
from tuning.analysis.answers import TrialAnswers, read_answers, run_of
from tuning.measures import CHOICE, LENIENT, STRICT, Gain
from tuning.mixed_effects import Run, difference, estimate, mean_of_runs, word_variance
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.scoring import Focus, Weights, calculate_transfer_score
from tuning.tasks.items import EVALUATED_TASKS, Task

SPACE = {"HPARAM_CANDIDATES": {"lora_r": [8]}, "replicates_of_default": 2}
POSITION, COUNT, SPELLING = Task.POSITION, Task.COUNT, Task.SPELLING


@pytest.fixture(scope="module")
def study() -> Planted:
    return plant(Effect(spelling=0.2, position=0.1), SPACE, num_words=60)


@pytest.fixture
def damaged(study: Planted, tmp_path: Path) -> tuple[ResultsRoot, list[TrialRecord]]:
    """Return a copy that a test may damage, and its records."""
    return copy_of(study, tmp_path), list(study.records.values())


def predictions(root: ResultsRoot, record: TrialRecord, *, of_base: bool = False) -> Path:
    result = record.result
    keys = (result.base_key, result.base_evaluation_key)
    key, evaluation = keys if of_base else (result.training_key, result.evaluation_key)
    return root.training(key or "").evaluation(evaluation or "") / measures.PREDICTIONS


# --- what is there ------------------------------------------------------------------------------


def test_gains_are_those_of_the_records_and_their_intervals_much_the_same(study: Planted) -> None:
    records = list(study.records.values())
    found = read_answers(study.root, records)
    assert found.notes == []
    for record in records:
        trial = found.trials[record.trial_id]
        assert trial.is_paired
        for task, result in record.result.tasks.items():
            for reading, gain, base in (
                (STRICT, result.gain, result.base),
                (CHOICE, result.choice_gain, result.choice_base),
                (LENIENT, result.lenient_gain, result.lenient_base),
            ):
                if gain is None or base is None:
                    assert (Task(task), reading) not in trial.gains
                    continue
                run = trial.gains[Task(task), reading]
                assert run.value == pytest.approx(gain.value)
                assert trial.before[Task(task), reading].value == pytest.approx(base.value)
                assert trial.before[Task(task), reading].num_words == base.num_words
                # Recorded ends are mean +- 1.96 clustered standard errors.
                width = 2 * 1.96 * math.sqrt(word_variance(run))
                assert gain.high - gain.low == pytest.approx(width, rel=1e-6)


@pytest.mark.parametrize("focus", list(Focus))
def test_objectives_are_those_that_studies_rank_by(study: Planted, focus: Focus) -> None:
    records = list(study.records.values())
    found = read_answers(study.root, records)
    for record in records:
        run = found.trials[record.trial_id].objective(focus, Weights(0.5, 0.5))
        assert run.value == pytest.approx(focus.objective(record.result.metrics))
        assert run.influence_C.sum() == pytest.approx(0, abs=1e-9)


def test_the_objective_moves_with_words_as_the_score_does() -> None:
    """Words' parts in the score, by what it becomes when one word weighs a little more."""
    rng = np.random.default_rng(0)
    levels = {SPELLING: 0.3, POSITION: 0.5, COUNT: 0.6}
    parts = {task: rng.normal(0, 0.01, 20) for task in EVALUATED_TASKS}
    still = {(task, STRICT): Run(0.0, np.zeros(20)) for task in EVALUATED_TASKS}
    before = {(t, STRICT): Run(level, parts[t]) for t, level in levels.items()}
    run = TrialAnswers(still, before, is_paired=True).objective(Focus.BALANCED, Weights(0.3, 0.6))
    small = 1e-4
    for word in range(20):
        moved = [levels[t] + small * parts[t][word] for t in EVALUATED_TASKS]
        slope = calculate_transfer_score(*moved, 0.3, 0.6) - run.value
        assert run.influence_C[word] == pytest.approx(slope / small, rel=1e-6, abs=1e-9)


def test_trials_of_the_same_weights_share_their_answers(study: Planted) -> None:
    record = next(iter(study.records.values()))
    twin = dataclasses.replace(record, trial_id="0099-00000000")
    found = read_answers(study.root, [record, twin])
    assert (
        found.trials[record.trial_id].gains[POSITION, STRICT]
        is (found.trials[twin.trial_id].gains[POSITION, STRICT])
    )


# --- what is missing or damaged -----------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(b"PAR1 this is no table PAR1")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without(column: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        pq.write_table(pq.read_table(path).drop_columns([column]), path)

    damage.__name__ = f"without {column}"
    return damage


def without_count(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame[frame["task"] != "count"].to_parquet(path, index=False)


def some_missing(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame["strict_correct"] = frame["strict_correct"].astype("boolean")
    frame.loc[3, "strict_correct"] = pd.NA
    frame.to_parquet(path, index=False)


def as_text(path: Path) -> None:
    frame = pd.read_parquet(path)
    frame.assign(strict_correct=frame["strict_correct"].astype(str)).to_parquet(path, index=False)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [
    Path.unlink,
    cut,
    garbage,
    empty,
    without("strict_correct"),
    without("word"),
    without("task"),
    without_count,
    some_missing,
    as_text,
    a_folder,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.strip("_"))
def test_answers_that_cannot_be_read_are_replaced_by_the_record(
    damaged: tuple[ResultsRoot, list[TrialRecord]], damage: Callable[[Path], None]
) -> None:
    root, records = damaged
    damage(predictions(root, records[0]))
    found = read_answers(root, records)
    broken = found.trials[records[0].trial_id]
    # Seeds of one configuration rest on one kind of source: else words would look independent.
    for record in records:
        is_same = record.parameters == records[0].parameters
        assert found.trials[record.trial_id].is_paired is not is_same
    assert found.notes == [
        f"answers of trial {records[0].trial_id} are missing or damaged: gains are those of the "
        "record"
    ]
    for task, result in records[0].result.tasks.items():
        run = broken.gains[Task(task), STRICT]
        assert run.value == result.gain.value
        assert run.influence_C.sum() == pytest.approx(0, abs=1e-12)
        width = 2 * 1.959964 * math.sqrt(word_variance(run))
        assert width == pytest.approx(result.gain.high - result.gain.low, rel=1e-4)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__.strip("_"))
def test_without_the_untouched_model_all_gains_are_those_of_the_records(
    damaged: tuple[ResultsRoot, list[TrialRecord]], damage: Callable[[Path], None]
) -> None:
    root, records = damaged
    damage(predictions(root, records[0], of_base=True))
    found = read_answers(root, records)
    assert not any(trial.is_paired for trial in found.trials.values())
    assert found.notes == [
        "answers of the untouched model are missing or damaged: gains are those of the record"
    ]


def test_answers_to_other_items_are_not_paired(
    damaged: tuple[ResultsRoot, list[TrialRecord]],
) -> None:
    root, records = damaged
    path = predictions(root, records[1])
    frame = pd.read_parquet(path)
    frame.loc[[0, 1]] = frame.loc[[1, 0]].to_numpy()
    frame.iloc[::-1].to_parquet(path, index=False)
    found = read_answers(root, records)
    assert not found.trials[records[1].trial_id].is_paired
    (note,) = found.notes
    assert note.startswith(f"trial {records[1].trial_id} was asked other items")


def test_answers_that_contradict_the_record_are_used_and_the_contradiction_said(
    damaged: tuple[ResultsRoot, list[TrialRecord]],
) -> None:
    root, records = damaged
    path = predictions(root, records[2])
    frame = pd.read_parquet(path)
    frame.loc[frame["task"] == "count", "strict_correct"] = True
    frame.to_parquet(path, index=False)
    found = read_answers(root, records)
    (note,) = found.notes
    assert note.startswith(f"trial {records[2].trial_id}: stored answers give a count gain of ")
    assert note.endswith("the answers are used")
    run = found.trials[records[2].trial_id].after(COUNT)
    assert run.value == pytest.approx(1)


def test_a_flipped_byte_never_ends_the_reading(study: Planted, tmp_path: Path) -> None:
    record = next(iter(study.records.values()))
    root = copy_of(study, tmp_path)
    rng = np.random.default_rng(0)
    for of_base in (False, True):
        path = predictions(root, record, of_base=of_base)
        whole = path.read_bytes()
        for _ in range(60):
            flipped = bytearray(whole)
            for place in rng.integers(0, len(whole), 8):
                flipped[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(flipped))
            found = read_answers(root, [record])
            found.frame(record.trial_id)
            found.base_frame(record.trial_id)
            assert (POSITION, STRICT) in found.trials[record.trial_id].gains
        path.write_bytes(whole)


# --- from the record alone ----------------------------------------------------------------------


def recorded(value: float, half: float) -> Gain:
    return Gain(
        value=value, low=value - half, high=value + half, num_better=9, num_worse=3, p_value=0.1
    )


@pytest.mark.parametrize("num_words", [2, 3, 61, 300])
def test_a_recorded_interval_keeps_its_width(num_words: int) -> None:
    run = run_of(recorded(0.1, 0.05), num_words, "ab12")
    assert run.influence_C.sum() == pytest.approx(0, abs=1e-12)
    assert math.sqrt(word_variance(run)) == pytest.approx(0.05 / 1.959964)
    if num_words == 300:
        found = estimate([run])
        assert found.interval == pytest.approx((0.05, 0.15), abs=3e-4)


def test_seeds_of_a_record_do_not_average_words_away() -> None:
    runs = [run_of(recorded(0.1, 0.05), 300, "a") for _ in range(3)]
    assert word_variance(mean_of_runs(runs)) == pytest.approx(word_variance(runs[0]))


def test_two_configurations_without_answers_are_not_alike_word_by_word() -> None:
    """What words bring to their difference is not known: as if they answered independently."""
    a, b = (run_of(recorded(0.1, 0.05), 1000, pattern) for pattern in ("a", "b"))
    assert math.sqrt(word_variance(a - b)) == pytest.approx(
        math.sqrt(2) * 0.05 / 1.959964, rel=0.06
    )


def test_without_answers_and_repetition_nothing_differs_for_sure(tmp_path: Path) -> None:
    space = {"HPARAM_CANDIDATES": {"lora_r": [4, 8, 32]}, "replicates_of_default": 1}
    study = plant(Effect(spelling=0.2), space, with_predictions=False)
    records = list(study.records.values())
    answers = read_answers(study.root, records)
    default, *others = (
        answers.trials[r.trial_id].objective(Focus.BALANCED, Weights(0.5, 0.5)) for r in records
    )
    for other in others:
        found = difference([other], [default], None)
        assert found.low < 0 < found.high
        assert found.p_value > 0.05
    assert not any(effect.effect.direction for effect in study.analysis.effects)
    assert all(effect.q_value > 0.05 for effect in study.analysis.effects)
