"""Laws of `tuning.measures`: paired, by word, under public names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from tuning import measures
from tuning.errors import ResultsError
from tuning.measures import Accuracy, Gain, TaskResult
from tuning.scoring import Weights
from tuning.tasks.items import Task


def predictions(
    strict: list[int], choice: list[int] | None = None, task: str = "position", templates: int = 1
) -> pd.DataFrame:
    """Rows of one task, `templates` of them a word."""
    rows = range(len(strict))
    return pd.DataFrame(
        {
            "task": task,
            "word": [f"w{i // templates}" for i in rows],
            "template": [f"t{i % templates}" for i in rows],
            "prompt": [f"{task} {i}" for i in rows],
            "strict_correct": np.array(strict, dtype=bool),
            "choice_correct": np.array(strict if choice is None else choice, dtype=bool),
        }
    )


def test_an_accuracy_is_the_plain_mean_with_what_it_rests_on() -> None:
    found = measures.accuracy(predictions([1, 1, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1], templates=3))
    assert found.value == pytest.approx(8 / 12)
    assert (found.num_items, found.num_words) == (12, 4)
    assert 0 <= found.low < found.value < found.high <= 1


def test_each_reading_is_its_own() -> None:
    frame = predictions([1, 0, 0, 0], [1, 1, 1, 0])
    assert measures.accuracy(frame).value == 0.25
    assert measures.accuracy(frame, "choice_correct").value == 0.75


def test_an_accuracy_is_clustered_by_word() -> None:
    answers = [1, 0] * 50
    alone = measures.accuracy(predictions(np.repeat(answers, 3).tolist(), templates=1))
    together = measures.accuracy(predictions(np.repeat(answers, 3).tolist(), templates=3))
    assert alone.value == together.value
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_no_rows_have_no_accuracy() -> None:
    with pytest.raises(ValueError, match="at least 2 words, got 0"):
        measures.accuracy(predictions([]))


def test_a_gain_counts_what_became_better_and_worse() -> None:
    found = measures.gain(predictions([0, 0, 0, 0, 1, 1]), predictions([1, 1, 1, 0, 1, 0]))
    assert found.value == pytest.approx(2 / 6)
    assert (found.num_better, found.num_worse) == (3, 1)
    assert found.p_value == pytest.approx(2 * 5 / 16)
    assert found.low < found.value < found.high


def test_a_gain_reads_the_column_asked_for() -> None:
    before, after = predictions([0] * 4, [0, 0, 1, 1]), predictions([0] * 4, [1, 1, 1, 1])
    assert measures.gain(before, after).value == 0
    assert measures.gain(before, after, "choice_correct").value == 0.5


def test_a_gain_does_not_care_how_rows_are_numbered() -> None:
    before, after = predictions([0, 1]), predictions([1, 1])
    assert measures.gain(before.set_index(pd.Index([7, 9])), after) == measures.gain(before, after)


@pytest.mark.parametrize("column", ["task", "template", "prompt"])
def test_a_gain_over_different_items_is_refused(column: str) -> None:
    before, after = predictions([0, 1, 0]), predictions([1, 1, 0])
    after.loc[1, column] = "another"
    with pytest.raises(ResultsError, match="the same items"):
        measures.gain(before, after)


def test_a_gain_over_other_order_or_number_of_items_is_refused() -> None:
    before, after = predictions([0, 1, 0]), predictions([1, 1, 0])
    with pytest.raises(ResultsError, match="in one order"):
        measures.gain(before, after.iloc[::-1])
    with pytest.raises(ResultsError, match="the same items"):
        measures.gain(before, after.iloc[:2])


def gain(low: float, high: float) -> Gain:
    return Gain(value=(low + high) / 2, low=low, high=high, num_better=3, num_worse=1, p_value=0.5)


def rate(value: float) -> Accuracy:
    return Accuracy(value=value, low=value - 0.1, high=value + 0.1, num_items=30, num_words=10)


@pytest.mark.parametrize(
    ("strict", "choice", "transfer"),
    [
        ((0.01, 0.2), (0.01, 0.2), True),
        ((0.01, 0.2), (-0.01, 0.2), False),  # a gain in format
        ((-0.01, 0.2), (0.01, 0.2), False),
        ((-0.2, -0.1), (-0.2, -0.1), False),  # a loss excludes 0, and is no transfer
        ((0.01, 0.2), (-0.2, -0.1), False),
        ((0.0, 0.2), (0.01, 0.2), False),
        ((0.01, 0.2), (0.0, 0.2), False),
        ((0.01, 0.2), None, False),
    ],
)
def test_transfer_needs_both_readings(
    strict: tuple[float, float], choice: tuple[float, float] | None, transfer: bool
) -> None:
    result = TaskResult(
        baseline=0.1,
        base=rate(0.2),
        tuned=rate(0.3),
        gain=gain(*strict),
        choice_gain=gain(*choice) if choice else None,
    )
    assert result.is_transfer is transfer


@pytest.mark.parametrize(
    ("low", "high", "excludes"),
    [(0.01, 0.2, True), (-0.2, -0.01, True), (-0.1, 0.1, False), (0.0, 0.1, False)],
)
def test_a_gain_excludes_zero_on_either_side(low: float, high: float, excludes: bool) -> None:
    assert gain(low, high).excludes_zero is excludes


BASELINES = {"spelling": 0.0, "position": 0.17, "count": 0.29}


@pytest.fixture
def results() -> dict[str, TaskResult]:
    base = pd.concat(
        [
            predictions([0, 0, 0, 0, 0, 0, 0, 1, 0, 0], task="spelling"),
            predictions([0, 0, 1, 0, 1], [0, 0, 1, 1, 1], task="position"),
            predictions([1, 0, 0, 0], [1, 0, 0, 1], task="count"),
        ]
    )
    tuned = pd.concat(
        [
            predictions([1, 1, 1, 1, 1, 1, 0, 1, 1, 1], task="spelling"),
            predictions([1, 0, 1, 0, 1], [1, 1, 1, 1, 1], task="position"),
            predictions([1, 1, 0, 0], [0, 0, 0, 1], task="count"),
        ]
    )
    return measures.task_results(base, tuned, BASELINES)


def test_results_keep_tasks_and_readings_apart(results: dict[str, TaskResult]) -> None:
    assert list(results) == ["spelling", "position", "count"]
    assert {task: r.baseline for task, r in results.items()} == BASELINES
    spelling, position = results["spelling"], results["position"]
    assert (spelling.base.value, spelling.tuned.value) == (0.1, 0.9)
    assert spelling.choice_base is spelling.choice_tuned is spelling.choice_gain is None
    assert position.choice_base is not None
    assert position.choice_tuned is not None
    assert (position.base.value, position.tuned.value) == (0.4, 0.6)
    assert (position.choice_base.value, position.choice_tuned.value) == (0.6, 1.0)


def test_flat_metrics_have_the_public_names_and_values(results: dict[str, TaskResult]) -> None:
    found = measures.flat_metrics(results, Weights(0.3, 0.6))
    assert found == pytest.approx(
        {
            "spelling/accuracy": 0.9,
            "spelling/gain": 0.8,
            "spelling/base_accuracy": 0.1,
            "transfer/position/accuracy": 0.6,
            "transfer/position/gain": 0.2,
            "transfer/position/base_accuracy": 0.4,
            "transfer/position/choice_accuracy": 1.0,
            "transfer/position/choice_gain": 0.4,
            "transfer/count/accuracy": 0.5,
            "transfer/count/gain": 0.25,
            "transfer/count/base_accuracy": 0.25,
            "transfer/count/choice_accuracy": 0.25,
            "transfer/count/choice_gain": -0.25,
            # 0.3 * 0.6 + 0.6 * 0.5 + 0.2 * min(0.9, 0.55)
            "transfer_learning_score": 0.18 + 0.3 + 0.11,
        }
    )
    assert all(type(value) is float for value in found.values()), "records are plain JSON"


def test_a_score_uses_the_weights_it_is_given() -> None:
    metrics = {
        "spelling/accuracy": 0.85,
        "transfer/position/accuracy": 0.75,
        "transfer/count/accuracy": 0.70,
    }
    assert measures.score_of(metrics, Weights(0.5, 0.5)) == pytest.approx(0.870)
    assert measures.score_of(metrics, Weights(1.0, 0.0)) == pytest.approx(0.75 + 0.145)
    assert measures.score_of(metrics, Weights(0.0, 1.0)) == pytest.approx(0.70 + 0.145)


def test_strict_accuracies_are_plain_means_by_task() -> None:
    tasks = [Task.COUNT, Task.SPELLING, Task.POSITION, Task.COUNT, Task.COUNT, Task.COUNT]
    correct = [True, False, True, False, False, False]
    assert measures.strict_accuracies(tasks, correct) == {
        "spelling/accuracy": 0.0,
        "transfer/position/accuracy": 1.0,
        "transfer/count/accuracy": 0.25,
    }
    with pytest.raises(ValueError, match="zip"):
        measures.strict_accuracies(tasks, correct[:-1])


def test_measures_cannot_be_changed_after_the_fact(results: dict[str, TaskResult]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        results["count"].baseline = 0.0  # type: ignore[misc]
