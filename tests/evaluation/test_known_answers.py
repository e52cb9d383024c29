"""The whole scorer on networks whose every answer is known beforehand."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from bench_support import bench_of
from table_model import bench_that_says

from tuning.evaluation.bench import Bench
from tuning.evaluation.stored import score
from tuning.tasks.baselines import fit_letter_guesser, word_blind_baselines
from tuning.tasks.items import Item, Task
from tuning.tasks.splits import Split
from tuning.tasks.suite import Suite


@pytest.fixture
def bench() -> Bench:
    return bench_of(40, 60)


def of_task(suite: Suite, task: Task) -> Suite:
    return suite.part([i for i, item in enumerate(suite.items) if item.task == task])


def golds(suite: Suite) -> list[str]:
    return [item.answer for item in suite.items]


def test_an_oracle_is_right_everywhere_in_every_reading(bench: Bench) -> None:
    oracle = bench_that_says(bench, bench.suite, golds(bench.suite))
    predictions = score(oracle, oracle.suite)
    assert predictions["strict_correct"].all()
    chosen = predictions[predictions["task"] != "spelling"]
    assert chosen["choice_correct"].all()
    assert (chosen["choice"] == chosen["gold"]).all()
    assert not predictions["decoded_for_real"].any()
    assert predictions["lenient_correct"].dropna().all()
    assert predictions["lenient_correct"].notna().sum() == 60
    decoded = predictions[predictions["text"].notna()]
    assert (decoded["text"] == decoded["gold"]).all()
    assert (decoded["character_error_rate"].dropna() == 0).all()


def test_a_model_that_never_looks_at_the_word_scores_exactly_its_baseline(bench: Bench) -> None:
    suite = of_task(bench.suite, Task.POSITION)
    guesser = fit_letter_guesser(bench.words[Split.TRAIN].real)

    def guess(item: Item) -> str:
        cell = (item.n or 0, len(item.word))
        return guesser.by_position_and_length.get(cell, guesser.most_common)

    blind = bench_that_says(bench, suite, [guess(item) for item in suite.items])
    predictions = blind.scorer.score(suite)
    baselines = word_blind_baselines(suite.items, guesser)
    expected = baselines["best letter by position and length"]
    assert 0 < expected < 0.5
    assert predictions["strict_correct"].mean() == expected
    assert predictions["choice_correct"].mean() == expected
    assert bench.baseline_of(predictions) == max(baselines.values()) >= expected


def test_a_model_that_always_answers_1_scores_one_over_the_number_of_classes(bench: Bench) -> None:
    suite = of_task(bench.suite, Task.COUNT)
    predictions = bench_that_says(bench, suite, ["1"] * len(suite.items)).scorer.score(suite)
    for reading in ("strict_correct", "choice_correct"):
        for stratum, share in (("long", Fraction(1, 4)), ("short", Fraction(1, 3))):
            rows = predictions[predictions["stratum"] == stratum]
            assert len(rows) >= 36
            assert Fraction(int(rows[reading].sum()), len(rows)) == share
            assert bench.baseline_of(rows) >= float(share)
    assert set(predictions["choice"]) == {"1"}


def test_a_silent_model_is_wrong_everywhere(bench: Bench) -> None:
    silent = bench_that_says(bench, bench.suite, [""] * len(bench.suite.items))
    predictions = score(silent, silent.suite)
    assert not predictions["strict_correct"].any()
    assert not predictions["lenient_correct"].dropna().any()
    assert (predictions["outcome"].dropna() == "unparseable").all()
    assert (predictions["text"].dropna() == "").all()


def test_a_model_that_goes_on_talking_is_wrong_in_strict_and_right_in_choice(bench: Bench) -> None:
    suite = of_task(bench.suite, Task.POSITION)
    talking = bench_that_says(bench, suite, [f"{gold} {gold}" for gold in golds(suite)])
    predictions = score(talking, suite)
    assert not predictions["strict_correct"].any()
    assert predictions["choice_correct"].all()
    assert predictions["lenient_correct"].dropna().all()


def test_a_spelling_in_other_tokens_is_still_right(bench: Bench) -> None:
    """A space and a letter apart spell the same text as the token that is both."""
    suite = of_task(bench.suite, Task.SPELLING)
    suite = suite.part([i for i, x in enumerate(suite.items) if x.template == "spell/spaces"])
    letters = bench.base.tokenizer.encode_batch
    answers = [[ids[0] for ids in letters(list(gold))] for gold in golds(suite)]
    usual = [row.answer[:-1] for row in bench.base.tokenizer.encode_items(suite.items)]
    assert all(a != b for a, b in zip(answers, usual, strict=True))
    predictions = bench_that_says(bench, suite, answers).scorer.score(suite)
    assert predictions["strict_correct"].all()
    assert predictions["decoded_for_real"].all()


def test_one_wrong_letter_anywhere_is_wrong(bench: Bench) -> None:
    suite = of_task(bench.suite, Task.SPELLING)

    def slipped(item: Item, place: int) -> str:
        """Return the gold answer with one of its letters changed."""
        places = [i for i, c in enumerate(item.answer) if c.isalpha()]
        at = places[place % len(places)]
        other = "q" if item.answer[at] != "q" else "z"
        return item.answer[:at] + other + item.answer[at + 1 :]

    answers = [slipped(item, i) for i, item in enumerate(suite.items)]
    predictions = score(bench_that_says(bench, suite, answers), suite)
    assert not predictions["strict_correct"].any()
    decoded = predictions[predictions["lenient_correct"].notna()]
    assert not decoded["lenient_correct"].any()
    expected = [1 / len(word) for word in decoded["word"]]
    assert decoded["character_error_rate"].tolist() == pytest.approx(expected)
    assert (decoded["length_error"] == 0).all()


# --- several right answers ----------------------------------------------------------------------


def with_targets(suite: Suite, golds: list[str], targets: list[tuple[str, ...]]) -> Suite:
    items = tuple(
        dataclasses.replace(item, answer=gold, targets=others)
        for item, gold, others in zip(suite.items, golds, targets, strict=True)
    )
    return dataclasses.replace(suite, items=items)


SAID = ["a", "b", "c", "d", "e"]
GOLDS = ["a", "x", "x", "x", "x"]
TARGETS: list[tuple[str, ...]] = [("y",), ("b",), ("y", "c"), ("y",), ()]
RIGHT = [True, True, True, False, False]


@pytest.fixture
def letters_with_targets(bench: Bench) -> Bench:
    """Return a bench of five position items: gold right, a target right, or nothing right."""
    suite = of_task(bench.suite, Task.POSITION).part(range(0, 15, 3))
    return bench_that_says(bench, with_targets(suite, GOLDS, TARGETS), SAID)


def test_any_right_answer_counts_also_when_the_gold_one_is_wrong(
    letters_with_targets: Bench,
) -> None:
    predictions = score(letters_with_targets, letters_with_targets.suite)
    assert predictions["strict_correct"].tolist() == RIGHT
    assert predictions["gold"].tolist() == GOLDS
    assert predictions["text"].tolist() == SAID
    assert predictions["lenient_correct"].tolist() == RIGHT


def test_any_right_answer_counts_in_the_choice_reading_too(letters_with_targets: Bench) -> None:
    predictions = letters_with_targets.scorer.score(letters_with_targets.suite)
    assert predictions["choice"].tolist() == SAID
    assert predictions["choice_correct"].tolist() == RIGHT


def test_any_right_spelling_counts_in_the_lenient_reading_too(bench: Bench) -> None:
    suite = of_task(bench.suite, Task.SPELLING).part([0, 3, 6])
    right = golds(suite)
    suite = with_targets(suite, ["q q q"] * 3, [(right[0],), (right[1],), ("z z",)])
    predictions = score(bench_that_says(bench, suite, right), suite)
    assert predictions["strict_correct"].tolist() == [True, True, False]
    assert predictions["lenient_correct"].tolist() == [True, True, False]
