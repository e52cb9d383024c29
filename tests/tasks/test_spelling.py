"""Laws of `tuning.tasks.spelling`: letters in order out, and nothing held out ever trained."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.tasks import spelling
from tuning.tasks.items import Item, Task, Template, trained
from tuning.tasks.spelling import SEPARATORS, TEMPLATES, augmented_item, join, spell

WORDS = st.from_regex(r"[a-z]{3,15}", fullmatch=True)
SEPARATOR_TEXTS = {"spaces": " ", "commas": ", ", "lines": "\n", "dashes": "-"}
DRAWS = 10_000


# Made anew for each test: what is shared is not counted by the mutation tester as a test's own.
@pytest.fixture
def draws() -> list[Item]:
    rng = random.Random(0)
    words = ["planet", "orchard", "sky", "bookkeeper", "extraordinarily", "moon"]
    return [augmented_item(words[int(rng.random() * len(words))], rng) for _ in range(DRAWS)]


# --- spelling and joining ---------------------------------------------------------------------


@given(word=WORDS, separator=st.sampled_from(SEPARATORS))
def test_joining_a_spelling_gives_the_word(word: str, separator: spelling.Separator) -> None:
    spelled = spell(word, separator.text)
    assert join(spelled, separator.text) == word
    assert len(spelled) == len(word) + (len(word) - 1) * len(separator.text)


@pytest.mark.parametrize(
    ("separator", "spelled"),
    [(" ", "m o o n"), (", ", "m, o, o, n"), ("\n", "m\no\no\nn"), ("-", "m-o-o-n")],
)
def test_a_spelling_by_hand(separator: str, spelled: str) -> None:
    assert spell("moon", separator) == spelled


def test_the_separators_are_those_of_the_specification_and_one_is_held_out() -> None:
    assert {s.name: s.text for s in SEPARATORS} == SEPARATOR_TEXTS
    assert sum(s.held_out for s in SEPARATORS) == 1


def test_there_are_several_templates_and_at_least_one_is_held_out() -> None:
    assert len(TEMPLATES) >= 3
    assert 1 <= sum(t.held_out for t in TEMPLATES) < len(TEMPLATES)
    assert len({t.text for t in TEMPLATES}) == len({t.name for t in TEMPLATES}) == len(TEMPLATES)
    assert trained(TEMPLATES) == tuple(t for t in TEMPLATES if not t.held_out)


# --- answers can be derived from questions ----------------------------------------------------


def pattern(template: Template, **groups: str) -> re.Pattern[str]:
    """Return what matches the template's questions, with a group for each blank."""
    text = re.escape(template.text)
    for name, group in groups.items():
        text = text.replace(rf"\{{{name}\}}", f"(?P<{name}>{group})")
    return re.compile(text)


FORWARD = [pattern(t, word='"?[A-Za-z]+"?', separator="[a-z]+") for t in TEMPLATES]
INVERSE = [pattern(t, letters=r"[a-z, \n-]+?") for t in spelling.INVERSE_TEMPLATES]


def derived_answer(question: str) -> str:
    """Answer as a person would who reads the question and nothing else."""
    for template in FORWARD:
        if found := template.search(question):
            letters = re.sub('"', "", found["word"])
            return SEPARATOR_TEXTS[found["separator"]].join(letters)
    (found,) = (m for t in INVERSE if (m := t.fullmatch(question)))
    return re.sub(r"[, \n-]", "", found["letters"])


def test_every_answer_is_what_its_question_asks_for(draws: list[Item]) -> None:
    for item in draws:
        assert item.task is Task.SPELLING
        assert item.answer == derived_answer(item.question)
        assert item.question.endswith("\n")
        letters = re.sub("[^a-z]", "", item.answer.lower())
        assert letters == item.word


@given(word=WORDS, seed=st.integers(0, 10**6))
def test_every_answer_is_derivable_for_any_word(word: str, seed: int) -> None:
    item = augmented_item(word, random.Random(seed))
    assert item.answer == derived_answer(item.question)
    for asked in (*spelling.evaluation_items(word), spelling.plain_item(word)):
        assert asked.word == word
        assert asked.answer == derived_answer(asked.question)


def test_no_question_shows_its_answer(draws: list[Item]) -> None:
    assert not any(item.answer in item.question for item in draws)


# --- what training may see --------------------------------------------------------------------


def test_nothing_held_out_is_ever_trained(draws: list[Item]) -> None:
    names = {t.name for t in TEMPLATES if t.held_out} | {s.name for s in SEPARATORS if s.held_out}
    assert names == {"apart", "dashes"}
    for item in draws:
        assert not names & set(item.template.split("/"))
        text = item.question + item.answer
        assert "-" not in text
        assert "dashes" not in text
        assert "apart" not in text


def form_of(item: Item) -> str:
    if any(template.fullmatch(item.question) for template in INVERSE):
        return "inverse"
    if any(item.question.startswith(c.format(word=item.word)) for c in spelling.CARRIERS):
        return "carrier"
    if f'"{item.word}"' in item.question:
        return "quoted"
    return "capital" if item.word.capitalize() in item.question else "plain"


def test_every_trained_template_separator_and_form_is_seen(draws: list[Item]) -> None:
    seen = Counter(item.template for item in draws)
    questions = [*trained(TEMPLATES), *spelling.INVERSE_TEMPLATES]
    expected = {f"{t.name}/{s}" for t in questions for s in ("spaces", "commas", "lines")}
    assert set(seen) == expected
    assert min(seen.values()) > DRAWS * 0.015
    carriers = Counter(
        item.question.split(item.word)[0] for item in draws if form_of(item) == "carrier"
    )
    assert len(carriers) == len(spelling.CARRIERS) >= 2


def test_the_forms_come_in_their_shares(draws: list[Item]) -> None:
    shares = {form: n / DRAWS for form, n in Counter(map(form_of, draws)).items()}
    expected = {"inverse": 0.15, "carrier": 0.1, "quoted": 0.1, "capital": 0.1, "plain": 0.55}
    # The standard error of a share of 10,000 draws is at most half a point.
    assert shares == pytest.approx(expected, abs=0.02)


def test_a_capital_is_asked_for_and_given_back(draws: list[Item]) -> None:
    item = next(item for item in draws if form_of(item) == "capital")
    assert item.answer[0] == item.word[0].upper()
    assert item.answer[1:] == item.answer[1:].lower()


def test_an_item_depends_on_its_word_and_its_generator_alone() -> None:
    items = [augmented_item("planet", random.Random(i)) for i in range(30)]
    assert items == [augmented_item("planet", random.Random(i)) for i in range(30)]


def test_without_augmentation_there_is_one_template_with_spaces() -> None:
    items = [spelling.plain_item(word) for word in ("planet", "sky")]
    assert {item.template for item in items} == {"spell/spaces"}
    assert [item.answer for item in items] == ["p l a n e t", "s k y"]
    assert items[0].question == "Spell the word planet, letters separated by spaces.\n"


# --- evaluation -------------------------------------------------------------------------------


def test_evaluation_asks_in_three_ways_of_which_the_last_was_never_trained() -> None:
    items = spelling.evaluation_items("planet")
    assert [item.template for item in items] == ["spell/spaces", "write/commas", "apart/dashes"]
    assert [item.answer for item in items] == ["p l a n e t", "p, l, a, n, e, t", "p-l-a-n-e-t"]
    held_out = {t.name for t in TEMPLATES if t.held_out} | {
        s.name for s in SEPARATORS if s.held_out
    }
    assert [held_out <= set(item.template.split("/")) for item in items] == [False, False, True]
    assert not any(held_out & set(item.template.split("/")) for item in items[:2])


def test_templates_and_separators_can_be_chosen_from_outside() -> None:
    rng = random.Random(0)
    items = [augmented_item("planet", rng, TEMPLATES, SEPARATORS) for _ in range(2000)]
    names = {name for item in items for name in item.template.split("/")}
    assert {t.name for t in TEMPLATES} | {s.name for s in SEPARATORS} <= names
