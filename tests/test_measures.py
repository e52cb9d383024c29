"""Laws of `tuning.measures`: paired, by word, under public names."""

from __future__ import annotations

import dataclasses
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tuning import measures
from tuning.errors import ResultsError
from tuning.measures import Accuracy, Gain, StratumResult, TaskResult
from tuning.model.base import subject_words, tokenizer_of
from tuning.scoring import Weights
from tuning.tasks.baselines import fit_letter_guesser
from tuning.tasks.items import Item, Task
from tuning.tasks.lenient import read_leniently
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite, choices_of


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
            "gold": "1",
            "choice": pd.array(["1"] * len(strict), dtype="string"),
            "strict_correct": np.array(strict, dtype=bool),
            # Spelling has no choice, as in what is scored.
            "choice_correct": pd.array(
                [None] * len(strict)
                if task == "spelling"
                else [bool(c) for c in (strict if choice is None else choice)],
                dtype="boolean",
            ),
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
    return measures.task_results(base, tuned, named_baseline)


def named_baseline(rows: pd.DataFrame) -> float:
    (task,) = rows["task"].unique()
    return BASELINES[task]


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


# --- what is scored of a suite ----------------------------------------------------------------

Answer = Callable[[Item], str]
GUESSER = fit_letter_guesser(["abc", "bca", "aab"])


@pytest.fixture(scope="module")
def suite() -> Suite:
    words = split_subjects(subject_words("tiny"))[Split.VALIDATION]
    return build_suite(words, 90, tokenizer_of("tiny").cut)


def by_hash(share: float, key: str = "") -> Answer:
    """Answer rightly on a share of the items, and otherwise nothing of use."""

    def answer(item: Item) -> str:
        is_right = random.Random(f"{key}{item.question}").random() < share
        return item.answer if is_right else {"position": "#", "count": "9"}.get(item.task, "no")

    return answer


def table(suite: Suite, answer: Answer, decoded: range | list[int] = range(0)) -> pd.DataFrame:
    """Rows as scoring writes them, of a model that answers so; `decoded` in the lenient reading."""
    items = suite.items
    texts = [answer(item) for item in items]
    read = {i: read_leniently(items[i], texts[i]) for i in decoded}

    def column(name: str, dtype: str) -> Any:
        return pd.array(
            [getattr(read[i], name) if i in read else None for i in range(len(items))], dtype=dtype
        )

    # The likeliest of letters or digits; what is neither is read as the first of them.
    allowed = [choices_of(str(item.task)) for item in items]
    choices = [
        (text if text in known else known[0]) if known else None
        for text, known in zip(texts, allowed, strict=True)
    ]
    return pd.DataFrame(
        {
            "task": [str(item.task) for item in items],
            "word": [item.word for item in items],
            "template": [item.template for item in items],
            "prompt": [item.question for item in items],
            "gold": [item.answer for item in items],
            "n": pd.array([item.n for item in items], dtype="Int64"),
            "letter": pd.array([item.letter for item in items], dtype="string"),
            "stratum": [item.stratum for item in items],
            "band": [facts.band.value for facts in suite.facts],
            "num_tokens": [facts.num_tokens for facts in suite.facts],
            "is_pseudo_word": [facts.is_pseudo_word for facts in suite.facts],
            "letter_token_length": pd.array(
                [facts.letter_token_length for facts in suite.facts], dtype="Int64"
            ),
            "strict_correct": [t == i.answer for t, i in zip(texts, items, strict=True)],
            "choice_correct": pd.array(
                [None if c is None else c == i.answer for c, i in zip(choices, items, strict=True)],
                dtype="boolean",
            ),
            "choice": pd.array(choices, dtype="string"),
            "text": column("text", "string"),
            "extracted": column("extracted", "string"),
            "outcome": pd.array(
                [read[i].outcome.value if i in read else None for i in range(len(items))],
                dtype="string",
            ),
            "lenient_correct": pd.array(
                [read[i].outcome == "correct" if i in read else None for i in range(len(items))],
                dtype="boolean",
            ),
            "character_error_rate": column("character_error_rate", "Float64"),
            "length_error": column("length_error", "Int64"),
        }
    )


baseline_of = measures.baseline_from(GUESSER)


def results_of(
    suite: Suite, before: Answer, after: Answer, decoded: bool = False
) -> dict[str, TaskResult]:
    chosen = range(len(suite.items)) if decoded else range(0)
    return measures.task_results(
        table(suite, before, chosen), table(suite, after, chosen), baseline_of
    )


def test_an_oracle_scores_one_on_every_task_and_reading(suite: Suite) -> None:
    found = results_of(suite, by_hash(0.0), lambda item: item.answer, decoded=True)
    assert set(found) == {"spelling", "position", "count"}
    for result in found.values():
        assert result.tuned.value == 1.0
        assert result.base.value == 0.0
        assert result.gain.value == 1.0
        assert result.lenient_tuned is not None
        assert result.lenient_tuned.value == 1.0
        assert result.unparseable_tuned == 0
        assert result.baseline < 0.5


def shuffled(frame: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same rows in the same order under other numbers, some of them twice."""
    rng = np.random.default_rng(seed)
    return frame.set_index(pd.Index(rng.integers(0, len(frame), len(frame))))


@pytest.mark.parametrize("seed", [0, 1])
def test_numbers_do_not_depend_on_how_rows_are_numbered(suite: Suite, seed: int) -> None:
    decoded = list(range(0, len(suite.items), 3))
    before = table(suite, by_hash(0.3, "a"), decoded)
    after = table(suite, by_hash(0.6, "b"), decoded)
    expected = measures.task_results(before, after, baseline_of)
    assert measures.task_results(shuffled(before, seed), after, baseline_of) == expected
    assert measures.task_results(before, shuffled(after, seed), baseline_of) == expected
    strata = measures.strata_results(before, after, baseline_of)
    assert (
        measures.strata_results(shuffled(before, seed), shuffled(after, seed + 9), baseline_of)
        == strata
    )


# --- the lenient reading ----------------------------------------------------------------------


def test_without_decoded_rows_there_is_no_lenient_reading(suite: Suite) -> None:
    for result in results_of(suite, by_hash(0.3), by_hash(0.5)).values():
        assert result.lenient_base is result.lenient_tuned is result.lenient_gain is None
        assert result.unparseable_base == result.unparseable_tuned == 0
        assert result.spelling_errors_base is result.spelling_errors_tuned is None


def test_rows_without_the_columns_of_the_lenient_reading_are_compared_too() -> None:
    found = measures.task_result(predictions([0, 1, 0]), predictions([1, 1, 0]), named_baseline)
    assert found.lenient_gain is None
    assert found.gain.value == pytest.approx(1 / 3)


def test_a_gain_in_format_is_none_in_the_lenient_reading(suite: Suite) -> None:
    def in_a_sentence(item: Item) -> str:
        return f"The answer is: {item.answer}."

    found = results_of(suite, in_a_sentence, lambda item: item.answer, decoded=True)
    for result in found.values():
        assert result.gain.value == 1.0
        assert result.lenient_base is not None
        assert result.lenient_gain is not None
        assert result.lenient_base.value == 1.0
        assert result.lenient_gain.value == 0.0


def test_the_lenient_reading_is_of_the_decoded_rows_alone(suite: Suite) -> None:
    decoded = list(range(0, len(suite.items), 7))
    before = table(suite, by_hash(0.2, "a"), decoded)
    after = table(suite, by_hash(0.7, "b"), decoded)
    found = measures.task_results(before, after, baseline_of)
    for task, result in found.items():
        rows = [i for i in decoded if suite.items[i].task == task]
        right = sum(by_hash(0.7, "b")(suite.items[i]) == suite.items[i].answer for i in rows)
        assert result.lenient_tuned is not None
        assert result.lenient_tuned.num_items == len(rows)
        assert result.lenient_tuned.value == pytest.approx(right / len(rows))
        assert result.tuned.num_items > len(rows)


def test_rows_that_one_model_alone_decoded_are_left_out(suite: Suite) -> None:
    before = table(suite, by_hash(0.5), list(range(0, len(suite.items), 2)))
    after = table(suite, by_hash(0.5), list(range(0, len(suite.items), 3)))
    for result in measures.task_results(before, after, baseline_of).values():
        assert result.lenient_base is not None
        assert result.lenient_tuned is not None
        assert result.lenient_base == result.lenient_tuned
        assert result.lenient_base.num_items == pytest.approx(result.base.num_items / 6, abs=1)


def test_decoded_rows_of_one_word_have_no_interval_and_no_lenient_reading(suite: Suite) -> None:
    frame = table(suite, by_hash(0.5), [0, 1, 2])
    assert frame["word"][:3].nunique() == 1
    found = measures.task_results(frame, frame, baseline_of)
    assert found["spelling"].lenient_gain is None


def test_what_cannot_be_read_is_counted_apart(suite: Suite) -> None:
    found = results_of(suite, lambda item: "", by_hash(0.0), decoded=True)
    for task, result in found.items():
        total = sum(item.task == task for item in suite.items)
        assert result.unparseable_base == total
        # "#" and "no" cannot be read; "9" can, and is wrong.
        assert result.unparseable_tuned == (0 if task == "count" else total)


def test_spelling_errors_are_means_over_decoded_rows(suite: Suite) -> None:
    def without_last(item: Item) -> str:
        return " ".join(item.word[:-1]) if item.task is Task.SPELLING else item.answer

    found = results_of(suite, lambda item: "no", without_last, decoded=True)["spelling"]
    words = [item.word for item in suite.items if item.task is Task.SPELLING]
    assert found.spelling_errors_tuned is not None
    assert found.spelling_errors_base is not None
    assert found.spelling_errors_tuned.character_error_rate == pytest.approx(
        sum(1 / len(word) for word in words) / len(words)
    )
    assert found.spelling_errors_tuned.mean_length_error == pytest.approx(1.0)
    assert found.spelling_errors_base.character_error_rate == pytest.approx(1.0)
    assert found.spelling_errors_base.mean_length_error == pytest.approx(
        sum(map(len, words)) / len(words)
    )
    others = results_of(suite, without_last, without_last, decoded=True)
    assert others["position"].spelling_errors_tuned is None
    assert others["count"].spelling_errors_base is None


def test_lenient_rates_have_their_public_names(suite: Suite) -> None:
    with_lenient = measures.flat_metrics(
        results_of(suite, by_hash(0.2), by_hash(0.6), decoded=True), Weights(0.5, 0.5)
    )
    without = measures.flat_metrics(
        results_of(suite, by_hash(0.2), by_hash(0.6)), Weights(0.5, 0.5)
    )
    names = {
        f"{prefix}/lenient_{kind}"
        for prefix in ("spelling", "transfer/position", "transfer/count")
        for kind in ("accuracy", "gain")
    }
    assert set(with_lenient) - set(without) == names
    assert {k: with_lenient[k] for k in without} == without
    assert all(type(value) is float for value in with_lenient.values())


# --- counts and templates ---------------------------------------------------------------------


def test_count_details_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "task": "count",
            "word": [f"w{i}" for i in range(6)],
            "template": "t",
            "prompt": [str(i) for i in range(6)],
            "gold": ["0", "1", "2", "3", "4", "0"],
            "choice": pd.array(["0", "2", "2", "3", "9", "1"], dtype="string"),
            "strict_correct": [True, False, True, True, False, False],
            "choice_correct": pd.array([True, False, True, True, False, False], dtype="boolean"),
        }
    )
    found = measures.task_result(frame, frame, named_baseline).count_tuned
    assert found is not None
    assert found.recall == {"0": 0.5, "1": 0.0, "2": 1.0, "3+": 0.5}
    assert found.balanced_accuracy == pytest.approx(0.5)
    # Distances: 0, 1, 0, 0, 5, 1.
    assert found.mean_absolute_error == pytest.approx(7 / 6)
    assert found.answers == {"0": 1, "1": 1, "2": 2, "3": 1, "9": 1}
    assert list(found.answers) == sorted(found.answers)


def test_a_constant_answer_has_the_recall_of_one_class(suite: Suite) -> None:
    found = results_of(suite, lambda item: "1", lambda item: item.answer)["count"]
    assert found.count_base is not None
    assert found.count_tuned is not None
    assert found.count_base.recall == {"0": 0.0, "1": 1.0, "2": 0.0, "3+": 0.0}
    assert found.count_base.balanced_accuracy == 0.25
    assert found.count_base.answers == {"1": sum(i.task is Task.COUNT for i in suite.items)}
    assert found.count_tuned.recall == {"0": 1.0, "1": 1.0, "2": 1.0, "3+": 1.0}
    assert found.count_tuned.mean_absolute_error == 0.0


def test_other_tasks_have_no_count_details(suite: Suite) -> None:
    found = results_of(suite, by_hash(0.5), by_hash(0.5))
    assert found["position"].count_tuned is found["spelling"].count_base is None


@pytest.mark.parametrize("answer", ["three", "3 or 4", "many"])
def test_a_users_count_that_is_no_number_is_compared_too(answer: str) -> None:
    """A count item with the user's own prompt may have any text as its answer."""
    frame = predictions([1, 0, 1], task="count").assign(gold=["1", answer, "2"])
    found = measures.task_result(frame, frame, named_baseline)
    assert found.tuned.value == pytest.approx(2 / 3)


def test_the_template_spread_names_the_worst_before_and_after() -> None:
    before = predictions([1, 0, 1, 1, 0, 1], templates=3)
    after = predictions([1, 1, 0, 1, 1, 0], templates=3)
    found = measures.task_result(before, after, named_baseline).templates
    assert found == measures.TemplateSpread(
        worst="t2", worst_accuracy=0.0, worst_base="t1", worst_base_accuracy=0.0
    )


def test_with_one_template_the_worst_is_the_mean() -> None:
    found = measures.task_result(predictions([1, 0]), predictions([1, 1]), named_baseline).templates
    assert found is not None
    assert (found.worst, found.worst_accuracy, found.worst_base_accuracy) == ("t0", 1.0, 0.5)


# --- strata -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strata(suite: Suite) -> list[StratumResult]:
    return measures.strata_results(
        table(suite, by_hash(0.3, "a")), table(suite, by_hash(0.6, "b")), baseline_of
    )


def test_strata_agree_with_rows_picked_by_hand(suite: Suite, strata: list[StratumResult]) -> None:
    before, after = by_hash(0.3, "a"), by_hash(0.6, "b")
    values: dict[str, Callable[[int], object]] = {
        "band": lambda i: suite.facts[i].band.value,
        "stratum": lambda i: suite.items[i].stratum,
        "template": lambda i: suite.items[i].template,
        "num_tokens": lambda i: suite.facts[i].num_tokens,
        "letter_token_length": lambda i: suite.facts[i].letter_token_length,
        "n": lambda i: suite.items[i].n,
        "is_pseudo_word": lambda i: suite.facts[i].is_pseudo_word,
    }
    groups: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    sizes = Counter(str(item.task) for item in suite.items)
    for i, item in enumerate(suite.items):
        for column, value in values.items():
            if value(i) not in (None, ""):
                groups[str(item.task), column, str(value(i))].append(i)
    expected = {
        key: rows
        for key, rows in groups.items()
        if len({suite.items[i].word for i in rows}) >= 2 and len(rows) < sizes[key[0]]
    }
    assert {(s.task, s.column, s.value) for s in strata} == set(expected)
    for stratum in strata:
        rows = expected[stratum.task, stratum.column, stratum.value]
        right = [
            sum(answer(suite.items[i]) == suite.items[i].answer for i in rows) / len(rows)
            for answer in (before, after)
        ]
        assert stratum.result.base.value == pytest.approx(right[0])
        assert stratum.result.tuned.value == pytest.approx(right[1])
        assert stratum.result.gain.value == pytest.approx(right[1] - right[0])
        assert stratum.result.tuned.num_items == len(rows)


def test_each_stratum_has_a_baseline_of_its_own(strata: list[StratumResult]) -> None:
    found = {
        s.value: s.result.baseline for s in strata if s.task == "count" and s.column == "stratum"
    }
    assert found == pytest.approx({"long": 1 / 4, "short": 1 / 3})
    position = [s.result.baseline for s in strata if s.task == "position" and s.column == "n"]
    assert len(set(position)) > 3


def test_all_columns_of_strata_are_named_and_a_stratum_seen_in_training_too(suite: Suite) -> None:
    frame = table(suite, by_hash(0.5))
    seen = ["all", "some", "none"]
    frame["seen_tokens"] = [seen[len(word) % 3] for word in frame["word"]]
    found = measures.strata_results(frame, frame, baseline_of)
    columns = {s.column for s in found}
    assert columns == set(measures.STRATA)
    assert {s.value for s in found if s.column == "seen_tokens"} == set(seen)


def test_strata_of_a_column_sum_to_the_whole(suite: Suite, strata: list[StratumResult]) -> None:
    whole = Counter(str(item.task) for item in suite.items)
    for column in ("band", "template"):
        for task in ("spelling", "position", "count"):
            sizes = [
                s.result.tuned.num_items for s in strata if (s.task, s.column) == (task, column)
            ]
            assert sum(sizes) == whole[task]


def test_a_stratum_of_one_word_or_of_all_rows_is_left_out() -> None:
    frame = predictions([1, 0, 1, 1]).assign(
        band=["easy", "hard", "hard", "hard"], stratum="", num_tokens=2
    )
    found = measures.strata_results(frame, frame, named_baseline)
    assert [(s.column, s.value) for s in found] == [("band", "hard")]
    assert found[0].result.tuned.value == pytest.approx(2 / 3)


def test_strata_over_other_items_are_refused(suite: Suite) -> None:
    frame = table(suite, by_hash(0.5))
    other = frame.assign(prompt=frame["prompt"] + "x")
    with pytest.raises(ResultsError, match="the same items"):
        measures.strata_results(other, frame, baseline_of)
    with pytest.raises((ResultsError, KeyError)):
        measures.strata_results(frame[:-1], frame, baseline_of)


# --- accuracies of one model ------------------------------------------------------------------


def test_accuracies_are_those_of_each_task(suite: Suite) -> None:
    frame = table(suite, by_hash(0.4))
    found = measures.accuracies(frame)
    assert set(found) == {"spelling", "position", "count"}
    for task, rate_ in found.items():
        assert rate_ == measures.accuracy(frame[frame["task"] == task])
    assert not any(math.isnan(r.value) for r in found.values())
