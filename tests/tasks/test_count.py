"""Laws of `tuning.tasks.count`: counts are counts, and no guesser beats one over the classes."""

from __future__ import annotations

import random
import re
import string
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from tuning.model.tiny import tiny_words
from tuning.tasks import count
from tuning.tasks.count import BalancedCounts, balanced_pairs
from tuning.tasks.items import Item, Task
from tuning.tasks.splits import Split, split_words

# Few letters make all counts from 0 to 5 common.
FEW_LETTERS = st.lists(st.from_regex(r"[abc]{3,10}", fullmatch=True), unique=True, max_size=60)
NUM_PAIRS = 1000


@pytest.fixture(scope="module")
def words() -> tuple[str, ...]:
    return split_words(tiny_words().study)[Split.VALIDATION]


@pytest.fixture(scope="module")
def balanced(words: tuple[str, ...]) -> BalancedCounts:
    return balanced_pairs(words, NUM_PAIRS, seed=1)


def class_of(word: str, letter: str) -> int:
    return min(word.count(letter), 3)


def stratum(word: str) -> str:
    return "long" if len(word) >= 7 else "short"


# --- counting ---------------------------------------------------------------------------------


@given(
    word=st.from_regex(r"[a-z]{3,15}", fullmatch=True),
    letter=st.sampled_from(string.ascii_lowercase),
)
def test_a_count_is_what_a_finger_counts(word: str, letter: str) -> None:
    assert count.count_letter(word, letter) == word.count(letter)
    assert count.count_letter(word, letter) == sum(1 for c in word if c == letter)


@given(word=st.from_regex(r"[a-e]{3,15}", fullmatch=True), seed=st.integers(0, 10**6))
def test_every_answer_is_what_its_question_asks_for(word: str, seed: int) -> None:
    rng = random.Random(seed)
    for item in (count.random_item(word, rng), *count.evaluation_items(word, "a")):
        assert item.task is Task.COUNT
        assert item.letter is not None
        assert item.answer == str(word.count(item.letter))
        assert re.search(rf"\b{word}\b", item.question)
        assert re.search(rf"\b{item.letter}\b", item.question.replace("is a used", "is  a  used"))
        assert item.stratum == stratum(word)


def test_evaluation_asks_in_every_template_one_of_them_unseen() -> None:
    items = count.evaluation_items("banana", "a")
    assert [item.answer for item in items] == ["3"] * len(count.TEMPLATES)
    assert len({item.question for item in items}) == len(count.TEMPLATES) >= 3
    assert any(t.held_out for t in count.TEMPLATES)


def test_random_items_ask_for_letters_in_the_word_and_not_in_it() -> None:
    rng = random.Random(0)
    items = [count.random_item("banana", rng) for _ in range(2000)]
    answers = Counter(item.answer for item in items)
    assert set(answers) == {"0", "1", "2", "3"}
    assert min(answers.values()) > 100
    assert {item.template for item in items} == {t.name for t in count.TEMPLATES}


@pytest.mark.parametrize(("word", "answers"), [("banana", "0123"), ("sky", "01"), ("aaaa", "04")])
def test_rare_answers_are_not_drowned(word: str, answers: str) -> None:
    rng = random.Random(0)
    drawn = Counter(count.random_item(word, rng).answer for _ in range(4000))
    assert set(drawn) == set(answers)
    assert chisquare(list(drawn.values())).pvalue > 0.001


def test_letters_of_an_answer_are_drawn_alike() -> None:
    rng = random.Random(0)
    drawn = Counter(count.random_item("orchard", rng).letter for _ in range(8000))
    assert set(drawn) == set(string.ascii_lowercase)
    for answer in (0, 1, 2):
        of_answer = [n for letter, n in drawn.items() if "orchard".count(letter or "") == answer]
        assert len(of_answer) == 1 or chisquare(of_answer).pvalue > 0.001


@pytest.mark.parametrize(("letters", "name", "classes"), [(6, "short", 3), (7, "long", 4)])
def test_long_words_have_four_classes_and_short_ones_three(
    letters: int, name: str, classes: int
) -> None:
    assert count.stratum_of(letters) == name
    assert count.classes_of(name) == classes


# --- balance ----------------------------------------------------------------------------------


def check_balance(found: BalancedCounts, words: list[str] | tuple[str, ...]) -> None:
    assert len(set(found.pairs)) == len(found.pairs), "a pair occurs twice"
    cells: dict[tuple[str, int], Counter[int]] = {}
    for word, letter in found.pairs:
        assert word in words
        assert word.count(letter) <= (4 if stratum(word) == "long" else 2)
        cells.setdefault((letter, len(word)), Counter())[class_of(word, letter)] += 1
    for (letter, length), classes in cells.items():
        expected = {0, 1, 2, 3} if length >= 7 else {0, 1, 2}
        assert set(classes) == expected, f"{letter} in words of {length}"
        assert len(set(classes.values())) == 1, f"{letter} in words of {length}: {classes}"


def test_classes_are_equally_many_within_every_letter_and_length(
    balanced: BalancedCounts, words: tuple[str, ...]
) -> None:
    check_balance(balanced, words)
    assert {w.count(letter) for w, letter in balanced.pairs} == {0, 1, 2, 3, 4}


@given(words=FEW_LETTERS, num_pairs=st.integers(0, 60), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_balance_holds_for_any_words(words: list[str], num_pairs: int, seed: int) -> None:
    found = balanced_pairs(words, num_pairs, seed)
    check_balance(found, words)
    assert len(found.pairs) <= num_pairs
    assert found == balanced_pairs(words, num_pairs, seed)


@given(words=FEW_LETTERS)
@settings(max_examples=40, deadline=None)
def test_cells_that_cannot_be_filled_are_dropped_and_counted(words: list[str]) -> None:
    found = balanced_pairs(words, 10_000, seed=0)
    classes: dict[tuple[str, int], set[int]] = {}
    for word in words:
        for letter in string.ascii_lowercase:
            if word.count(letter) <= (4 if len(word) >= 7 else 2):
                classes.setdefault((letter, len(word)), set()).add(class_of(word, letter))
    full = {cell for cell, c in classes.items() if len(c) == (4 if cell[1] >= 7 else 3)}
    assert found.num_cells == len(full)
    assert found.num_dropped_cells == len(classes) - len(full)
    assert {(letter, len(word)) for word, letter in found.pairs} == full


def test_as_many_pairs_as_asked_for_half_of_them_long(balanced: BalancedCounts) -> None:
    assert NUM_PAIRS - 7 < len(balanced.pairs) <= NUM_PAIRS
    long = sum(stratum(word) == "long" for word, _ in balanced.pairs)
    assert long == NUM_PAIRS // 2


def test_no_cell_dominates(balanced: BalancedCounts) -> None:
    cells = Counter((letter, len(word)) for word, letter in balanced.pairs)
    assert len(cells) > 50
    assert max(cells.values()) <= 0.05 * len(balanced.pairs)


def test_another_seed_gives_other_pairs(words: tuple[str, ...], balanced: BalancedCounts) -> None:
    other = balanced_pairs(words, NUM_PAIRS, seed=2)
    assert set(other.pairs) != set(balanced.pairs)


# --- guessers that never look at the word -----------------------------------------------------


@pytest.mark.parametrize(("name", "chance"), [("long", 1 / 4), ("short", 1 / 3)])
def test_majority_guessers_score_exactly_one_over_the_classes(
    balanced: BalancedCounts, name: str, chance: float
) -> None:
    pairs = [(w, letter) for w, letter in balanced.pairs if stratum(w) == name]
    assert len(pairs) > 100
    for key in (
        lambda w, letter: None,
        lambda w, letter: letter,
        lambda w, letter: len(w),
        lambda w, letter: (letter, len(w)),
    ):
        cells: dict[object, Counter[int]] = {}
        for word, letter in pairs:
            cells.setdefault(key(word, letter), Counter())[class_of(word, letter)] += 1
        right = sum(max(classes.values()) for classes in cells.values())
        assert right / len(pairs) == pytest.approx(chance, abs=1e-12)


@pytest.mark.parametrize("answer", ["0", "1", "2", "3", "4"])
@pytest.mark.parametrize(("name", "chance"), [("long", 1 / 4), ("short", 1 / 3)])
def test_no_constant_answer_beats_the_majority(
    balanced: BalancedCounts, answer: str, name: str, chance: float
) -> None:
    items: list[Item] = [
        item
        for word, letter in balanced.pairs
        if stratum(word) == name
        for item in count.evaluation_items(word, letter)
    ]
    right = sum(item.answer == answer for item in items) / len(items)
    assert right <= chance + 1e-12
    if answer == "1":
        assert right == pytest.approx(chance)


# --- the same pairs for everyone ----------------------------------------------------------------

MANY = tuple(
    a + b + c + d
    for a in ("ba", "se", "mo", "ti")
    for b in ("na", "le", "ro", "ti")
    for c in ("na", "e", "rot")
    for d in ("", "sa")
)


def test_half_of_the_pairs_are_long_and_short_words_take_what_is_left() -> None:
    found = balanced_pairs(MANY, 24, seed=1).pairs
    assert Counter(stratum(word) for word, _ in found) == {"long": 12, "short": 12}
    only_short = [word for word in MANY if stratum(word) == "short"]
    assert len(balanced_pairs(only_short, 24, seed=1).pairs) == 24


def test_no_words_make_no_pairs() -> None:
    assert balanced_pairs([], 10, seed=1) == BalancedCounts(
        pairs=(), num_cells=0, num_dropped_cells=0
    )


def test_a_seed_has_the_same_pairs_in_every_version() -> None:
    # What was scored before stays comparable with what is scored now.
    first = (
        ("senaesa", "t"),
        ("barorot", "t"),
        ("tinarot", "t"),
        ("titirot", "t"),
        ("barona", "e"),
        ("setina", "e"),
        ("selena", "e"),
    )
    assert balanced_pairs(MANY, 8, seed=1).pairs == first
    assert balanced_pairs(MANY, 8, seed=2).pairs != first
    assert {w for w, _ in balanced_pairs(MANY, 48, 1).pairs} != {
        w for w, _ in balanced_pairs(MANY, 48, 2).pairs
    }
