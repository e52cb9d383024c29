"""Laws of `tuning.tasks.stream`: example i is a function of settings, seed and i; no leaks."""

from __future__ import annotations

import dataclasses
import math
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import SuiteError
from tuning.model.tiny import tiny_words
from tuning.qwen3_tokenizer import load_qwen3_tokenizer
from tuning.tasks import spelling
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Item, Task
from tuning.tasks.splits import Split, split_words
from tuning.tasks.stream import TrainingStream, words_in_band
from tuning.tasks.words import benchmark_stems, benchmark_words, stems

SMALL = TrainingStream(
    spelled_words=("planet", "orchard", "kettle", "window"),
    replay_words=("silver", "basket", "garden"),
    data_ratio=0.7,
    augmentation=True,
    seed=3,
)
NUM_EXAMPLES = 50_000


def count_tokens(words: list[str] | tuple[str, ...]) -> list[int]:
    encoded = load_qwen3_tokenizer().encode_batch(
        [f" {w}" for w in words], add_special_tokens=False
    )
    return [len(e.ids) for e in encoded]


@pytest.fixture(scope="module")
def splits() -> dict[Split, tuple[str, ...]]:
    return split_words(tiny_words().study)


@pytest.fixture(scope="module")
def examples(splits: dict[Split, tuple[str, ...]]) -> list[Item]:
    words = splits[Split.TRAIN]
    medium = words_in_band(words, Band.MEDIUM, count_tokens)
    stream = TrainingStream(medium, words, data_ratio=0.5, augmentation=True, seed=0)
    return stream.step(0, NUM_EXAMPLES)


# --- purity -----------------------------------------------------------------------------------


@given(order=st.permutations(range(40)))
@settings(max_examples=10)
def test_an_example_does_not_depend_on_what_was_made_before(order: list[int]) -> None:
    in_order = [SMALL.example(i) for i in range(40)]
    random.seed(0)  # the global generator has no say
    fresh = dataclasses.replace(SMALL)
    assert {i: fresh.example(i) for i in order} == dict(enumerate(in_order))


def test_streams_of_other_seeds_are_other_streams() -> None:
    def first(seed: int) -> list[Item]:
        return dataclasses.replace(SMALL, seed=seed).step(0, 50)

    assert first(3) == SMALL.step(0, 50)
    same = sum(a == b for a, b in zip(first(3), first(4), strict=True))
    assert same < 10


def test_eight_times_four_and_thirty_two_times_one_are_one_stream() -> None:
    by_8 = [item for step in range(16) for item in SMALL.step(step, 8)]
    by_32 = [item for step in range(4) for item in SMALL.step(step, 32)]
    assert by_8 == by_32 == [SMALL.example(i) for i in range(128)]


@given(batch=st.integers(1, 40), steps=st.integers(1, 6))
def test_steps_follow_one_another_without_gap_or_overlap(batch: int, steps: int) -> None:
    joined = [item for step in range(steps) for item in SMALL.step(step, batch)]
    assert joined == SMALL.step(0, batch * steps)
    assert len(joined) == batch * steps


# --- ratio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.7, 0.9, 1.0])
def test_the_number_of_examples_is_the_same_and_the_share_of_spelling_the_ratio(
    ratio: float,
) -> None:
    items = dataclasses.replace(SMALL, data_ratio=ratio).step(0, 4000)
    assert len(items) == 4000
    assert {item.task for item in items} <= {Task.SPELLING, Task.REPLAY}
    share = sum(item.task is Task.SPELLING for item in items) / 4000
    assert share == pytest.approx(ratio, abs=4 * math.sqrt(ratio * (1 - ratio) / 4000))


def test_a_larger_ratio_turns_replay_into_spelling_and_no_spelling_into_replay() -> None:
    low = dataclasses.replace(SMALL, data_ratio=0.5).step(0, 1000)
    high = dataclasses.replace(SMALL, data_ratio=0.9).step(0, 1000)
    assert all(b == a for a, b in zip(low, high, strict=True) if a.task is Task.SPELLING)
    assert all(a == b for a, b in zip(low, high, strict=True) if b.task is Task.REPLAY)


def test_without_augmentation_every_spelling_is_the_plain_one() -> None:
    items = dataclasses.replace(SMALL, augmentation=False, data_ratio=1.0).step(0, 200)
    assert items == [spelling.plain_item(item.word) for item in items]
    assert {item.word for item in items} == set(SMALL.spelled_words)


def test_with_augmentation_the_spelling_varies() -> None:
    items = dataclasses.replace(SMALL, data_ratio=1.0).step(0, 500)
    assert len({item.template for item in items}) > 9


def test_all_words_come_about_equally_often() -> None:
    items = dataclasses.replace(SMALL, data_ratio=1.0).step(0, 4000)
    for word in SMALL.spelled_words:
        assert sum(item.word == word for item in items) == pytest.approx(1000, abs=120)


def test_an_empty_band_is_refused_with_what_to_do() -> None:
    with pytest.raises(SuiteError, match="choose another band"):
        dataclasses.replace(SMALL, spelled_words=())


# --- bands ------------------------------------------------------------------------------------


def test_words_are_sorted_into_bands_by_letters_and_tokens() -> None:
    tokens = {"sky": 1, "moon": 2, "tide": 3, "planet": 2, "abcd": 4, "extraordinary": 2}

    def given_counts(words: list[str] | tuple[str, ...]) -> list[int]:
        return [tokens[word] for word in words]

    words = tuple(tokens)
    assert words_in_band(words, Band.EASY, given_counts) == ("sky", "moon")
    assert words_in_band(words, Band.MEDIUM, given_counts) == ("tide", "planet")
    assert words_in_band(words, Band.HARD, given_counts) == ("abcd", "extraordinary")


def test_every_training_word_of_tiny_is_in_one_band_and_no_band_is_empty(
    splits: dict[Split, tuple[str, ...]],
) -> None:
    words = splits[Split.TRAIN]
    bands = [words_in_band(words, band, count_tokens) for band in Band]
    assert all(bands)
    assert sorted(word for band in bands for word in band) == sorted(words)


# --- leaks ------------------------------------------------------------------------------------


def subjects(items: list[Item]) -> set[str]:
    """Return the words that are spelled, joined or repeated, read from the text alone."""
    found = set()
    for item in items:
        if item.task is Task.SPELLING:
            found.add(re.sub("[^a-z]", "", item.answer.lower()))
        elif phrase := re.fullmatch(r"Repeat this: (.+)\.\n", item.question):
            found |= set(phrase[1].split()) | set(item.answer.split())
    return found


def test_no_subject_has_the_stem_of_a_benchmark_word(examples: list[Item]) -> None:
    found = subjects(examples)
    assert len(found) > 15_000
    assert not found & benchmark_words()
    assert not set(stems(sorted(found))) & benchmark_stems()


def test_no_subject_is_held_out(examples: list[Item], splits: dict[Split, tuple[str, ...]]) -> None:
    found = subjects(examples)
    assert not found & set(splits[Split.VALIDATION])
    assert not found & set(splits[Split.TEST])
    assert found <= set(splits[Split.TRAIN])


def test_no_held_out_word_stands_anywhere_in_the_text_but_in_the_fixed_wording(
    examples: list[Item], splits: dict[Split, tuple[str, ...]]
) -> None:
    held_out = set(splits[Split.VALIDATION]) | set(splits[Split.TEST])
    seen = {w for item in examples for w in re.findall("[a-z]{3,}", item.question.lower())}
    assert seen & held_out == set()


def test_no_example_asks_about_positions_counts_or_lengths(examples: list[Item]) -> None:
    about = re.compile(
        r"(?i)letter number|position|how many|how often|\bcount\b|\d+(st|nd|rd|th)\b|\blong\b"
        r"|\blength\b|\bcontain|[0-9]\s*[:.)]\s*[a-z]\b"
    )
    assert not any(about.search(item.question + item.answer) for item in examples)


def test_spelled_words_are_of_the_band_asked_for(examples: list[Item]) -> None:
    spelled = sorted({item.word for item in examples if item.task is Task.SPELLING})
    assert words_in_band(spelled, Band.MEDIUM, count_tokens) == tuple(spelled)
