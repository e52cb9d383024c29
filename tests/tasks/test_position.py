"""Laws of `tuning.tasks.position`: 1-based, uniform, one letter."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from tuning.tasks import position
from tuning.tasks.items import Item, Task
from tuning.tasks.position import TEMPLATES, letter_at, ordinal, stratum_of
from tuning.tasks.words import keyed_rng

WORDS = st.from_regex(r"[a-z]{3,15}", fullmatch=True)


@given(word=WORDS)
def test_the_letters_at_all_positions_make_the_word(word: str) -> None:
    assert "".join(letter_at(word, n) for n in range(1, len(word) + 1)) == word


def test_positions_count_from_one() -> None:
    assert [letter_at("planet", n) for n in (1, 3, 6)] == ["p", "a", "t"]


@pytest.mark.parametrize("n", [0, -1, 7, -6])
def test_what_is_no_position_is_refused(n: int) -> None:
    with pytest.raises(IndexError, match=rf"from 1 to 6 in 'planet', got {n}"):
        letter_at("planet", n)


def test_ordinals_are_english() -> None:
    expected = (
        "1st 2nd 3rd 4th 5th 6th 7th 8th 9th 10th 11th 12th 13th 14th 15th 16th 17th 18th 19th "
        "20th 21st 22nd 23rd 24th"
    )
    assert " ".join(map(ordinal, range(1, 25))) == expected
    assert [ordinal(n) for n in (101, 102, 111, 112, 113)] == [
        "101st",
        "102nd",
        "111th",
        "112th",
        "113th",
    ]


@given(word=WORDS)
def test_there_is_one_first_one_last_and_the_rest_is_interior(word: str) -> None:
    found = [stratum_of(n, len(word)) for n in range(1, len(word) + 1)]
    assert found == ["first", *["interior"] * (len(word) - 2), "last"]


def asked_position(item: Item) -> int:
    """Read the position out of the question, as a person would."""
    (number,) = re.findall(r"\d+", item.question)
    return int(number)


@given(word=WORDS, seed=st.integers(0, 10**6))
def test_every_answer_is_the_letter_that_its_question_asks_for(word: str, seed: int) -> None:
    items = [position.random_item(word, random.Random(seed))]
    items += position.evaluation_items(word, random.Random(seed))
    for item in items:
        n = asked_position(item)
        assert item.n == n
        assert item.answer == item.letter == word[n - 1]
        assert item.task is Task.POSITION
        assert item.stratum == stratum_of(n, len(word))
        assert re.search(rf"\b{word}\b", item.question)
        assert item.question.endswith("\n")


def assert_uniform(positions: list[int], num_letters: int) -> None:
    counts = Counter(positions)
    assert set(counts) == set(range(1, num_letters + 1))
    assert chisquare([counts[n] for n in range(1, num_letters + 1)]).pvalue > 0.001


def test_random_items_are_uniform_over_positions_and_templates() -> None:
    rng = random.Random(1)
    items = [position.random_item("bookkeeper", rng) for _ in range(10_000)]
    assert_uniform([item.n or 0 for item in items], 10)
    counts = Counter(item.template for item in items)
    assert set(counts) == {t.name for t in TEMPLATES}
    assert chisquare(list(counts.values())).pvalue > 0.001


def test_evaluation_items_are_uniform_over_positions() -> None:
    drawn = [position.evaluation_items("planet", keyed_rng(1, i))[0].n or 0 for i in range(6000)]
    assert_uniform(drawn, 6)


def test_evaluation_asks_one_position_in_every_template_one_of_them_unseen() -> None:
    items = position.evaluation_items("planet", random.Random(0))
    assert [item.template for item in items] == [t.name for t in TEMPLATES]
    assert len({item.n for item in items}) == len({item.answer for item in items}) == 1
    assert len(TEMPLATES) >= 3
    assert any(t.held_out for t in TEMPLATES)
    assert "th letter" in position.position_item("planet", 5, TEMPLATES[-1]).question


def test_evaluation_reaches_every_position() -> None:
    drawn = {position.evaluation_items("planet", keyed_rng(i))[0].n for i in range(60)}
    assert drawn == {1, 2, 3, 4, 5, 6}
