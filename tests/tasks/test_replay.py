"""Laws of `tuning.tasks.replay`: true answers, and nothing about letters."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.tasks import replay
from tuning.tasks.items import Item, Task

WORDS = ("planet", "orchard", "kettle", "moon")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)


@pytest.fixture(scope="module")
def draws() -> list[Item]:
    rng = random.Random(0)
    return [replay.replay_item(WORDS, rng) for _ in range(4000)]


def derived_answer(question: str) -> str:
    """Answer as a person would who reads the question and nothing else."""
    if found := re.fullmatch(r"Repeat this: (.+)\.\n", question):
        return found[1]
    if found := re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?\n", question):
        a, b = int(found[1]), int(found[3])
        return str(a + b if found[2] == "+" else a - b)
    found = re.fullmatch(r"Which (day|month) comes (after|before) (\w+)\?\n", question)
    assert found, question
    names = DAYS if found[1] == "day" else MONTHS
    step = 1 if found[2] == "after" else -1
    return names[(names.index(found[3]) + step) % len(names)]


def test_every_answer_is_what_its_question_asks_for(draws: list[Item]) -> None:
    for item in draws:
        assert item.task is Task.REPLAY
        assert item.answer == derived_answer(item.question)


def test_every_kind_comes_as_often(draws: list[Item]) -> None:
    kinds = Counter(item.template.split("_")[0] for item in draws)
    assert set(kinds) == {"repeat", "add", "subtract", "day", "month"}
    kinds["sum"] = kinds.pop("add") + kinds.pop("subtract")
    assert all(900 < n < 1100 for n in kinds.values())


def test_all_days_and_months_are_asked_in_both_directions(draws: list[Item]) -> None:
    asked = {item.question for item in draws if item.template.startswith(("day", "month"))}
    assert len(asked) == 2 * (7 + 12)


def test_phrases_hold_three_of_the_given_words_and_name_one(draws: list[Item]) -> None:
    phrases = [item for item in draws if item.template == "repeat"]
    assert all(len(item.answer.split()) == 3 for item in phrases)
    assert {word for item in phrases for word in item.answer.split()} == set(WORDS)
    assert all(item.word in item.answer.split() for item in phrases)


def test_nothing_speaks_of_letters(draws: list[Item]) -> None:
    about = re.compile(r"(?i)letter|spell|position|count|how many|\b[a-z]\b|\b[a-z] [a-z] [a-z]\b")
    for item in draws:
        assert not about.search(item.question), item.question
        assert not about.search(item.answer), item.answer


def test_no_result_of_arithmetic_is_negative(draws: list[Item]) -> None:
    assert all(0 <= int(i.answer) <= 98 for i in draws if i.template in ("add", "subtract"))


@given(phrase=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
def test_a_phrase_is_repeated_as_it_is(phrase: list[str]) -> None:
    item = replay.repeat_item(phrase)
    assert item.answer == " ".join(phrase) == derived_answer(item.question)
    assert item.word == phrase[0]
