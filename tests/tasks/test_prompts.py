"""Laws of `tuning.tasks.prompts`: the same items put otherwise, and no word of theirs shown."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.model.base import subject_words, tokenizer_of
from tuning.model.tokenizer import plain_prompt
from tuning.tasks import count, position, spelling
from tuning.tasks.items import Task
from tuning.tasks.prompts import NUM_SHOTS, Prompting, prompted, with_spelling
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite, facts_of
from tuning.tasks.words import SubjectWords

WORD = st.from_regex("[a-z]{3,15}", fullmatch=True)


@pytest.fixture(scope="module")
def splits() -> dict[Split, SubjectWords]:
    return split_subjects(subject_words("tiny"))


@pytest.fixture(scope="module")
def suite(splits: dict[Split, SubjectWords]) -> Suite:
    return build_suite(splits[Split.VALIDATION], 60, tokenizer_of("tiny").cut)


@pytest.fixture(scope="module")
def four_shot(suite: Suite, splits: dict[Split, SubjectWords]) -> Suite:
    return prompted(suite, Prompting.FOUR_SHOT, splits[Split.TRAIN].real)


@pytest.fixture(scope="module")
def oracle(suite: Suite, splits: dict[Split, SubjectWords]) -> Suite:
    return prompted(suite, Prompting.ORACLE, splits[Split.TRAIN].real)


def derived_answer(question: str) -> str:
    """Answer a question of any task as a person would who reads it and nothing else."""
    separators = {s.name: s.text for s in spelling.SEPARATORS}
    for template in spelling.TEMPLATES:
        text = re.escape(template.text).replace(r"\{word\}", "(?P<w>[a-z]+)")
        if found := re.fullmatch(text.replace(r"\{separator\}", "(?P<s>[a-z]+)"), question):
            return separators[found["s"]].join(found["w"])
    for template in position.TEMPLATES:
        text = re.escape(template.text).replace(r"\{word\}", "(?P<w>[a-z]+)")
        text = text.replace(r"\{n\}", r"(?P<n>\d+)").replace(r"\{ordinal\}", r"(?P<n>\d+)[a-z]+")
        if found := re.fullmatch(text, question):
            return found["w"][int(found["n"]) - 1]
    for template in count.TEMPLATES:
        text = re.escape(template.text).replace(r"\{word\}", "(?P<w>[a-z]+)")
        if found := re.fullmatch(text.replace(r"\{letter\}", "(?P<l>[a-z])"), question):
            return str(found["w"].count(found["l"]))
    raise AssertionError(question)


def test_zero_shot_is_the_suite_itself(suite: Suite) -> None:
    assert prompted(suite, Prompting.ZERO_SHOT, ()) is suite
    assert all(item.shots == () for item in suite.items)
    assert [p.value for p in Prompting] == ["zero_shot", "four_shot", "oracle"]


# --- four examples ----------------------------------------------------------------------------


def test_four_shot_items_differ_in_their_examples_alone(suite: Suite, four_shot: Suite) -> None:
    assert four_shot.facts == suite.facts
    assert four_shot.num_dropped_count_cells == suite.num_dropped_count_cells
    for item, asked in zip(suite.items, four_shot.items, strict=True):
        assert dataclasses.replace(asked, shots=()) == item
        assert len(asked.shots) == NUM_SHOTS == 4


def test_every_example_is_answered_right(four_shot: Suite) -> None:
    for shots in {item.shots for item in four_shot.items}:
        for question, answer in shots:
            assert answer == derived_answer(question)


def test_examples_are_in_the_wording_of_the_item(four_shot: Suite) -> None:
    wording = {
        **{("position", t.name): t.text for t in position.TEMPLATES},
        **{("count", t.name): t.text for t in count.TEMPLATES},
    }
    for item in four_shot.items:
        if item.task is Task.SPELLING:
            name, separator = item.template.split("/")
            text = next(t.text for t in spelling.TEMPLATES if t.name == name)
            texts = {text.format(word="SUBJECT", separator=separator)}
        else:
            texts = {wording[str(item.task), item.template]}
        (text,) = texts
        pattern = re.escape(text).replace("SUBJECT", "[a-z]+")
        pattern = re.sub(r"\\\{\w+\\\}", "[a-z0-9]+", pattern)
        assert all(re.fullmatch(pattern, question) for question, _ in item.shots)


def test_all_items_of_a_template_share_their_examples(four_shot: Suite) -> None:
    shots: dict[tuple[str, str], set[object]] = {}
    for item in four_shot.items:
        shots.setdefault((str(item.task), item.template), set()).add(item.shots)
    assert len(shots) == 9
    assert all(len(found) == 1 for found in shots.values())
    assert len({next(iter(found)) for found in shots.values()}) == 9


def test_examples_show_words_of_the_training_split_alone(
    four_shot: Suite, splits: dict[Split, SubjectWords]
) -> None:
    text = {w for i in four_shot.items for q, _ in i.shots for w in re.findall("[a-z]+", q)}
    trained = splits[Split.TRAIN].real
    assert len(text & set(trained)) >= 9
    asked = {item.word for item in four_shot.items}
    assert not text & asked
    assert not text & {*splits[Split.VALIDATION].all, *splits[Split.TEST].all}


def test_examples_are_the_same_every_time(
    suite: Suite, four_shot: Suite, splits: dict[Split, SubjectWords]
) -> None:
    again = prompted(suite, Prompting.FOUR_SHOT, splits[Split.TRAIN].real)
    assert again == four_shot
    assert again.key == four_shot.key


def test_four_examples_of_a_template_are_not_one(four_shot: Suite) -> None:
    for item in four_shot.items:
        assert len({question for question, _ in item.shots}) == 4


def test_examples_and_question_make_one_prompt(four_shot: Suite) -> None:
    item = next(item for item in four_shot.items if item.task is Task.POSITION)
    prompt = plain_prompt(item.question, item.shots)
    assert prompt == "".join(f"{q}{a}\n" for q, a in item.shots) + item.question
    assert prompt.endswith(item.question)


# --- the spelling told ------------------------------------------------------------------------


def test_the_oracle_tells_the_spelling_and_asks_the_same(suite: Suite, oracle: Suite) -> None:
    assert oracle.facts == suite.facts
    for item, asked in zip(suite.items, oracle.items, strict=True):
        told = f"{item.word} is spelled {' '.join(item.word)}.\n"
        assert asked.question == told + item.question
        assert dataclasses.replace(asked, question=item.question) == item


def test_an_oracle_by_hand() -> None:
    item = position.position_item("planet", 3, position.TEMPLATES[0])
    assert with_spelling(item).question == (
        "planet is spelled p l a n e t.\n"
        "What is letter number 3 of planet? Answer with only the letter.\n"
    )
    assert with_spelling(item).answer == "a"


@given(word=WORD, n=st.integers(1, 3))
def test_whoever_reads_the_told_spelling_answers_right(word: str, n: int) -> None:
    item = with_spelling(position.position_item(word, n, position.TEMPLATES[0]))
    told = re.match(r"[a-z]+ is spelled ([a-z ]+)\.\n", item.question)
    assert told
    assert told[1].split(" ")[n - 1] == item.answer


def test_the_three_ways_to_put_a_suite_are_three_suites(
    suite: Suite, four_shot: Suite, oracle: Suite
) -> None:
    assert len({suite.key, four_shot.key, oracle.key}) == 3


def test_four_examples_are_the_same_in_every_version() -> None:
    words = ("planet", "orchard", "kettle", "window", "basket", "silver")
    items = (
        spelling.evaluation_items("moon")[1],
        position.position_item("moon", 1, position.TEMPLATES[1]),
        count.count_item("moon", "o", count.TEMPLATES[2]),
    )
    facts = tuple(facts_of(item, [" moon"], is_pseudo_word=False) for item in items)
    shots = [item.shots for item in prompted(Suite(items, facts), Prompting.FOUR_SHOT, words).items]
    for item, of_item in zip(items, shots, strict=True):
        for question, answer in of_item:
            assert answer == derived_answer(question)
            assert question.split()[0] == item.question.split()[0], "the wording of the item"
    assert [[answer for _, answer in of_item] for of_item in shots] == [
        ["w, i, n, d, o, w", "k, e, t, t, l, e", "p, l, a, n, e, t", "s, i, l, v, e, r"],
        ["e", "p", "i", "s"],
        ["0", "1", "1", "2"],
    ]
