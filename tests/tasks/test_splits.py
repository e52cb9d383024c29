"""Laws of `tuning.tasks.splits`: one split a stem, for every task, model and seed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.model.tiny import tiny_words
from tuning.tasks.splits import Split, split_of_stem, split_words
from tuning.tasks.words import english_words, stems


def test_no_stem_is_in_two_splits_over_the_whole_list() -> None:
    parts = split_words(english_words())
    stems_of = {split: set(stems(part)) for split, part in parts.items()}
    assert not stems_of[Split.TRAIN] & stems_of[Split.VALIDATION]
    assert not stems_of[Split.TRAIN] & stems_of[Split.TEST]
    assert not stems_of[Split.VALIDATION] & stems_of[Split.TEST]


def test_every_word_is_in_one_split_in_the_order_given() -> None:
    words = english_words()
    parts = split_words(words)
    place = {word: i for i, word in enumerate(words)}
    assert sorted(w for part in parts.values() for w in part) == sorted(words)
    for part in parts.values():
        places = [place[word] for word in part]
        assert places == sorted(places)


@pytest.mark.parametrize("words", [english_words, lambda: tiny_words().study], ids=["all", "tiny"])
def test_shares_are_80_10_10_within_a_point(words: Callable[[], tuple[str, ...]]) -> None:
    parts = split_words(words())
    total = sum(map(len, parts.values()))
    shares = {split.value: len(part) / total for split, part in parts.items()}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.01)


@pytest.mark.parametrize(
    ("word", "split"),
    [
        # printf 'tuning-split-1:STEM' | b2sum -l 64
        # Below 0x1999... it is test, below 0x3333... validation.
        ("castle", "test"),  # castl 05e3190d463f8c24
        ("purple", "test"),  # purpl 0483eeff04669028
        ("button", "test"),  # button 037e1dba769aa877
        ("buttons", "test"),
        ("chair", "validation"),  # chair 1e294b6cc00e6c33
        ("chairs", "validation"),
        ("pencil", "train"),  # pencil 3835cb5528e5c5ec
        ("planet", "train"),  # planet c3ad9bc6b34cc561
        ("running", "train"),  # run f088b2a3770b5c19
        ("island", "train"),  # island b1b5c8e3a7cbd2d8
    ],
)
def test_these_words_have_this_split_on_every_platform(word: str, split: str) -> None:
    assert split_words([word])[Split(split)] == (word,)


@given(st.lists(st.from_regex("[a-z]{3,9}", fullmatch=True), unique=True))
def test_a_split_does_not_depend_on_the_other_words(words: list[str]) -> None:
    together = split_words(words)
    assert set(together) == set(Split)
    for word, stem in zip(words, stems(words), strict=True):
        assert word in together[split_of_stem(stem)]
        assert split_words([word])[split_of_stem(stem)] == (word,)
