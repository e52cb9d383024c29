"""Laws of `tuning.tasks.suite`: the same items for everyone, with what is known of each word."""

from __future__ import annotations

import dataclasses
import random
import string
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.errors import SuiteError
from tuning.model.base import subject_words, tokenizer_of
from tuning.tasks import count, position, spelling
from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.items import Item, Probe, Task, Template
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite, choices_of, facts_of, probe_items
from tuning.tasks.words import SubjectWords

NUM_WORDS = 300


def count_tokens(words: Sequence[str]) -> list[int]:
    """Stand in for a tokenizer: one token for every three letters, and one more after a vowel."""
    return [len(word) // 3 + (word[-1] in "aeiou") for word in words]


def cut(words: Sequence[str]) -> list[list[str]]:
    """The same tokenizer's pieces, about equally long, the first after a space."""
    found = []
    for word, n in zip(words, count_tokens(words), strict=True):
        places = [i * len(word) // n for i in range(n + 1)]
        pieces = [word[a:b] for a, b in zip(places, places[1:], strict=False)]
        found.append([f" {pieces[0]}", *pieces[1:]])
    return found


@pytest.fixture(scope="module")
def asked() -> SubjectWords:
    return split_subjects(subject_words("tiny"))[Split.VALIDATION]


@pytest.fixture(scope="module")
def suite(asked: SubjectWords) -> Suite:
    return build_suite(asked, NUM_WORDS, cut)


def of_task(suite: Suite, task: Task) -> list[Item]:
    return [item for item in suite.items if item.task is task]


# --- words and bands --------------------------------------------------------------------------


def test_no_word_comes_from_outside(suite: Suite, asked: SubjectWords) -> None:
    assert {item.word for item in suite.items} <= set(asked.all)


@pytest.mark.parametrize("task", [Task.SPELLING, Task.POSITION])
def test_the_bands_come_in_equal_thirds(suite: Suite, asked: SubjectWords, task: Task) -> None:
    words = sorted({item.word for item in of_task(suite, task)})
    assert len(words) == NUM_WORDS
    bands = Counter(
        band_of(len(w), n, is_pseudo_word=w in asked.pseudo_set)
        for w, n in zip(words, count_tokens(words), strict=True)
    )
    assert bands == {Band.EASY: 100, Band.MEDIUM: 100, Band.HARD: 100}
    assert len(set(words) & asked.pseudo_set) == 50, "half of the hard words are made up"


def test_a_band_without_enough_words_is_filled_from_the_others(asked: SubjectWords) -> None:
    short = [w for w in asked.real if band_of(len(w), count_tokens([w])[0]) is Band.EASY][:20]
    long = [w for w in asked.real if len(w) >= 9][:200]
    found = build_suite(SubjectWords((*short, *long)), 100, cut)
    words = {item.word for item in of_task(found, Task.SPELLING)}
    assert len(words) == 100
    assert len(words & set(short)) == 20


def test_too_few_made_up_words_leave_their_places_to_real_ones(asked: SubjectWords) -> None:
    few = SubjectWords(asked.real, asked.pseudo[:7])
    words = {item.word for item in of_task(build_suite(few, NUM_WORDS, cut), Task.SPELLING)}
    assert len(words) == NUM_WORDS
    assert len(words & few.pseudo_set) == 7


def test_real_words_alone_make_a_suite_in_equal_thirds_too(asked: SubjectWords) -> None:
    found = build_suite(SubjectWords(asked.real), NUM_WORDS, cut)
    facts = {
        i.word: f for i, f in zip(found.items, found.facts, strict=True) if i.task == "spelling"
    }
    assert Counter(f.band for f in facts.values()) == dict.fromkeys(Band, 100)
    assert not any(f.is_pseudo_word for f in found.facts)


def test_every_item_carries_the_facts_of_its_word(suite: Suite, asked: SubjectWords) -> None:
    assert len(suite.items) == len(suite.facts)
    for item, facts in zip(suite.items, suite.facts, strict=True):
        assert [facts.num_tokens] == count_tokens([item.word])
        assert facts.is_pseudo_word == (item.word in asked.pseudo)
        assert [list(facts.tokens)] == cut([item.word])
        assert facts.band is band_of(
            len(item.word), facts.num_tokens, is_pseudo_word=facts.is_pseudo_word
        )
        assert (facts.letter_token_length is not None) == (item.task is Task.POSITION)


@pytest.mark.parametrize(
    ("pieces", "lengths"),
    [
        ([" planet"], [6] * 6),
        ([" pl", "anet"], [2, 2, 4, 4, 4, 4]),
        ([" p", "l", "ane", "t"], [1, 1, 3, 3, 3, 1]),
        ([" ", "planet"], [6] * 6),  # a tokenizer may give the space a token of its own
        (["p", "lanet"], [1, 5, 5, 5, 5, 5]),
    ],
)
def test_a_letter_is_in_the_token_that_holds_it(pieces: list[str], lengths: list[int]) -> None:
    for n, length in enumerate(lengths, start=1):
        item = position.position_item("planet", n, position.TEMPLATES[0])
        facts = facts_of(item, pieces, is_pseudo_word=False)
        assert facts.letter_token_length == length
        assert facts.num_tokens == len(pieces)


@pytest.mark.parametrize("pieces", [[" plan"], [" plä", "net"], [" pla", "\ufffd", "net"], []])
def test_pieces_that_are_not_the_letters_do_not_say_where_letters_are(pieces: list[str]) -> None:
    item = position.position_item("planet", 3, position.TEMPLATES[0])
    assert facts_of(item, pieces, is_pseudo_word=False).letter_token_length is None


@given(word=st.from_regex("[a-z]{3,15}", fullmatch=True))
def test_with_a_genuine_tokenizer_every_letter_is_in_some_token(word: str) -> None:
    (pieces,) = tokenizer_of("tiny").cut([word])
    assert "".join(pieces) == f" {word}"
    for n in range(1, len(word) + 1):
        item = position.position_item(word, n, position.TEMPLATES[0])
        length = facts_of(item, pieces, is_pseudo_word=False).letter_token_length
        assert length in {len(p.strip()) for p in pieces}


def test_other_tasks_have_no_letter_to_look_for() -> None:
    for item in (
        spelling.plain_item("planet"),
        count.count_item("planet", "a", count.TEMPLATES[0]),
    ):
        assert facts_of(item, [" planet"], is_pseudo_word=False).letter_token_length is None


def test_every_question_is_asked_in_three_templates_of_which_one_is_unseen(suite: Suite) -> None:
    for task, unseen in (
        (Task.SPELLING, "apart/dashes"),
        (Task.POSITION, "name"),
        (Task.COUNT, "often"),
    ):
        templates = defaultdict(list)
        for item in of_task(suite, task):
            templates[item.word, item.n, item.letter].append(item.template)
        assert all(len(set(t)) == len(t) == 3 for t in templates.values())
        assert all(unseen in t for t in templates.values())
    questions = [item.question for item in suite.items]
    assert len(set(questions)) == len(questions)


def test_all_positions_of_a_length_are_asked(suite: Suite) -> None:
    asked_at = Counter((len(i.word), i.n) for i in of_task(suite, Task.POSITION))
    for length in (4, 5, 6):
        counts = [asked_at[length, n] for n in range(1, length + 1)]
        assert min(counts) > 0.4 * sum(counts) / length


def test_a_suite_is_the_same_every_time(suite: Suite, asked: SubjectWords) -> None:
    again = build_suite(asked, NUM_WORDS, cut)
    assert again == suite
    assert again.key == suite.key


def test_too_few_words_are_refused() -> None:
    with pytest.raises(SuiteError, match="at least 10 words, got 9"):
        build_suite(SubjectWords(tuple(f"ab{c}" for c in "cdefghijk")), 10, cut)


def test_a_suite_that_leaves_a_task_without_items_is_refused(asked: SubjectWords) -> None:
    with pytest.raises(SuiteError, match="words for every count among 12 words"):
        build_suite(SubjectWords(asked.real[:12]), 12, cut)


def test_the_mix_counts_every_item(suite: Suite) -> None:
    mix = suite.mix()
    assert set(mix) == {"spelling", "position", "count"}
    for task in (Task.SPELLING, Task.POSITION, Task.COUNT):
        total = len(of_task(suite, task))
        by_band = sum(mix[task.value].get(band.value, 0) for band in Band)
        by_template = sum(mix[task.value][t] for t in {i.template for i in of_task(suite, task)})
        assert by_band == by_template == total
    assert mix["position"]["first"] + mix["position"]["interior"] + mix["position"]["last"] == 900
    assert mix["count"]["long"] + mix["count"]["short"] == len(of_task(suite, Task.COUNT))
    assert mix["spelling"]["pseudo-word"] == mix["position"]["pseudo-word"] == 3 * 50


# --- parts ------------------------------------------------------------------------------------


def test_a_part_keeps_items_with_their_facts(suite: Suite) -> None:
    chosen = [5, 0, 700, 1200]
    part = suite.part(chosen)
    assert part.items == tuple(suite.items[i] for i in chosen)
    assert part.facts == tuple(suite.facts[i] for i in chosen)
    assert part.key != suite.key
    assert suite.part(range(len(suite.items))).key == suite.key
    assert suite.part([]).items == ()


def test_a_spread_has_distinct_items_of_all_tasks_in_order(suite: Suite) -> None:
    for num_items in (*range(40), *range(41, 4000, 47), 899, 900, 901, 10**6):
        chosen = suite.spread(num_items)
        assert chosen == sorted(set(chosen)), num_items
        assert len(chosen) == min(num_items, len(suite.items))
        assert all(0 <= i < len(suite.items) for i in chosen)
        tasks = Counter(str(suite.items[i].task) for i in chosen)
        if num_items <= 2400:
            sizes = [tasks[task] for task in ("spelling", "position", "count")]
            assert max(sizes) - min(sizes) <= 1


def test_a_spread_reaches_from_one_end_of_each_task_to_the_other(suite: Suite) -> None:
    chosen = suite.spread(300)
    for task in (Task.SPELLING, Task.POSITION, Task.COUNT):
        places = [i for i, item in enumerate(suite.items) if item.task is task]
        of_task_ = [i for i in chosen if suite.items[i].task is task]
        assert len(of_task_) == 100
        tenths = Counter((i - places[0]) * 10 // len(places) for i in of_task_)
        assert set(tenths) == set(range(10))
        assert 6 <= min(tenths.values())
        assert max(tenths.values()) <= 14


@pytest.mark.parametrize("num_words", [30, 90, 200, 300])
@pytest.mark.parametrize("num_items", [90, 100, 150, 300])
def test_a_spread_asks_as_often_in_every_template_and_in_all_bands(
    asked: SubjectWords, num_words: int, num_items: int
) -> None:
    suite = build_suite(asked, num_words, cut)
    chosen = suite.spread(num_items)
    for task in (Task.SPELLING, Task.POSITION, Task.COUNT):
        templates = Counter(i.template for i in suite.items if i.task is task)
        found = Counter(suite.items[i].template for i in chosen if suite.items[i].task is task)
        assert set(found) == set(templates)
        assert max(found.values()) - min(found.values()) <= 0.2 * sum(found.values())
        if task is not Task.COUNT:
            bands = {suite.facts[i].band for i in chosen if suite.items[i].task is task}
            assert bands == set(Band)


def test_a_task_with_few_items_leaves_its_share_to_the_others(suite: Suite) -> None:
    spelled = [i for i, item in enumerate(suite.items) if item.task is Task.SPELLING]
    asked_at = [i for i, item in enumerate(suite.items) if item.task is Task.POSITION]
    part = suite.part([*spelled[:6], *asked_at])
    tasks = Counter(part.items[i].task for i in part.spread(60))
    assert tasks == {Task.SPELLING: 6, Task.POSITION: 54}


# --- the key ----------------------------------------------------------------------------------

OTHER_VALUES = {
    "task": Task.REPLAY,
    "word": "zzz",
    "template": "zzz",
    "question": "zzz",
    "answer": "zzz",
    "n": 99,
    "letter": "#",
    "stratum": "zzz",
    "subjects": ("zzz",),
    "targets": ("zzz",),
    "shots": (("zzz", "zzz"),),
}


def with_items(suite: Suite, items: Sequence[Item]) -> Suite:
    return dataclasses.replace(suite, items=tuple(items))


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Item)])
@pytest.mark.parametrize("place", [0, 450, -1])
def test_the_key_changes_with_any_part_of_any_item(suite: Suite, field: str, place: int) -> None:
    items = list(suite.items)
    items[place] = dataclasses.replace(items[place], **{field: OTHER_VALUES[field]})
    assert with_items(suite, items).key != suite.key


def test_the_key_changes_when_an_item_goes_or_moves(suite: Suite) -> None:
    items = suite.items
    others = [items[1:], items[:-1], items[:9] + items[10:], (items[1], items[0], *items[2:])]
    keys = {with_items(suite, other).key for other in others}
    assert len(keys | {suite.key}) == 5


def test_the_key_is_a_safe_name(suite: Suite) -> None:
    assert len(suite.key) == 16
    assert set(suite.key) <= set(string.hexdigits.lower())


# --- what the choice reading decides among -----------------------------------------------------


def test_the_choice_reading_has_26_letters_or_ten_digits() -> None:
    assert choices_of(Task.POSITION) == tuple("abcdefghijklmnopqrstuvwxyz")
    assert choices_of(Task.COUNT) == tuple("0123456789")
    assert choices_of(Task.SPELLING) == choices_of(Task.REPLAY) == ()


# --- the same suite for everyone ----------------------------------------------------------------


def test_words_have_the_same_suite_in_every_version(asked: SubjectWords) -> None:
    # Answers are stored by the key of the suite: a base model's are used by later studies.
    found = build_suite(asked, 60, cut)
    assert found.key == "128e88878579d9cb"
    assert found.spread(9) == [31, 51, 56, 214, 257, 336, 421, 431, 483]
    assert found.num_dropped_count_cells == 187


def test_a_made_up_word_is_hard_and_says_so() -> None:
    item = spelling.plain_item("moon")
    made_up = facts_of(item, [" moon"], is_pseudo_word=True)
    assert (made_up.band, made_up.is_pseudo_word, made_up.tokens) == (Band.HARD, True, (" moon",))
    assert facts_of(item, [" moon"], is_pseudo_word=False).band is Band.EASY


def test_ten_words_are_enough_words_and_nine_are_not() -> None:
    words = ("banana", "sodden", "planet", "eleven", "orchard", "window", "muffin", "kettle")
    with pytest.raises(SuiteError, match="at least 10 words, got 9"):
        build_suite(SubjectWords((*words, "aaabab")), 3, cut)
    with pytest.raises(SuiteError, match="for every count among 10 words"):
        build_suite(SubjectWords((*words, "silver", "basket")[:10]), 0, cut)


def test_a_tokenizer_that_loses_a_word_is_found_out(asked: SubjectWords) -> None:
    with pytest.raises(ValueError, match="shorter"):
        build_suite(asked, 60, lambda words: cut(words)[:-1])


def test_a_probe_asks_about_a_word_in_each_wording_with_the_same_draw() -> None:
    wordings = (Template("a", "Letter of {word}?\n"), Template("b", "One of {word}:\n"))

    def ask(word: str, template: Template, rng: random.Random) -> Item:
        n = 1 + int(rng.random() * len(word))
        question = template.fill(word=word)
        return Item(
            task=Task.POSITION,
            word=word,
            template=template.name,
            question=question,
            answer="a",
            n=n,
        )

    probe = Probe(task=Task.POSITION, templates=wordings, ask=ask)
    asked = {word: probe_items(probe, word) for word in ("planet", "moonlight", "strawberries")}
    for word, items in asked.items():
        assert [item.template for item in items] == ["a", "b"]
        assert items == probe_items(probe, word)
        assert len({item.n for item in items}) == 1
    assert len({items[0].n for items in asked.values()}) > 1
