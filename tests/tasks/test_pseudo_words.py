"""Laws of `tuning.tasks.pseudo_words`: no one has seen them, and everyone makes the same ones."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams_support import GENERAL, words_by_split
from tuning.model.base import encodable, subject_words, tokenizer_of
from tuning.model.tiny import tiny_words
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Task
from tuning.tasks.pseudo_words import pseudo_words
from tuning.tasks.splits import Split, split_of_stem
from tuning.tasks.stream import Arm
from tuning.tasks.words import (
    SubjectWords,
    benchmark_stems,
    benchmark_words,
    english_words,
    hash_of_words,
    stems,
)
from tuning.training_data import TrainingData, training_data

BOTH = pytest.mark.parametrize("model", ["tiny", GENERAL])


def test_made_up_words_are_a_pure_function_of_the_words() -> None:
    study = tiny_words().study
    random.seed(1)
    assert pseudo_words(study) == pseudo_words(study)
    assert pseudo_words(list(study)) == pseudo_words(study)
    assert set(pseudo_words(study)) != set(pseudo_words(study[1000:]))


def test_another_process_makes_the_same_ones() -> None:
    code = """
import json
from tuning.tasks.pseudo_words import pseudo_words
from tuning.tasks.words import english_words, hash_of_words
print(json.dumps(hash_of_words(pseudo_words(english_words()[:3000]))))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(answer.stdout) == hash_of_words(pseudo_words(english_words()[:3000]))


@BOTH
def test_none_is_an_english_word_or_has_the_stem_of_a_benchmark_word(model: str) -> None:
    words = subject_words(model)
    made = set(words.pseudo)
    assert not made & set(english_words())
    assert not made & set(words.real)
    assert not made & benchmark_words()
    assert not set(stems(sorted(made))) & benchmark_stems()


@BOTH
def test_they_are_distinct_and_have_5_to_15_letters(model: str) -> None:
    made = subject_words(model).pseudo
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[a-z]{5,15}", word) for word in made)
    assert len(set(map(len, made))) > 8


def test_they_are_about_a_tenth() -> None:
    general = subject_words(GENERAL)
    assert len(general.pseudo) == pytest.approx(0.1 * len(general.real), rel=0.03)
    made = pseudo_words(tiny_words().study)
    assert len(made) == pytest.approx(0.1 * len(tiny_words().study), rel=0.03)
    # Of these, tiny has tokens for most.
    kept = subject_words("tiny").pseudo
    assert set(kept) <= set(made)
    assert kept == encodable(made, tokenizer_of("tiny"))
    assert 0.05 < len(kept) / len(tiny_words().study) <= 0.1


def test_each_joins_a_beginning_to_an_end_where_a_vowel_meets_a_consonant() -> None:
    words = english_words()[:2000]
    begins = {w[:i] for w in words for i in range(2, len(w) - 1)}
    ends = {w[i:] for w in words for i in range(2, len(w) - 1)}
    for made in pseudo_words(words):
        joints = [
            i
            for i in range(2, len(made) - 1)
            if made[i - 1] in "aeiouy"
            and made[i] not in "aeiouy"
            and made[:i] in begins
            and made[i:] in ends
        ]
        assert joints, made


@given(words=st.lists(st.from_regex("[a-e]{3,9}", fullmatch=True), max_size=200, unique=True))
@settings(max_examples=30, deadline=None)
def test_any_words_give_at_most_a_tenth_of_well_formed_ones(words: list[str]) -> None:
    made = pseudo_words(words)
    assert len(made) <= len(words) / 10
    assert all(re.fullmatch("[a-z]{5,15}", word) for word in made)
    assert not set(made) & (set(words) | set(english_words()))
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("words", [(), ("sky",), ("tsk",) * 3, tuple(f"b{c}d" for c in "cdfghjkl")])
def test_words_without_a_cut_give_none(words: tuple[str, ...]) -> None:
    assert pseudo_words(words) == ()


# --- splits -----------------------------------------------------------------------------------


@BOTH
def test_each_is_of_the_split_of_its_own_stem(model: str) -> None:
    words = subject_words(model)
    parts = words_by_split(model)
    for split, part in parts.items():
        assert {split_of_stem(stem) for stem in stems(part.pseudo)} == {split}
        assert {split_of_stem(stem) for stem in stems(part.real)} == {split}
    assert Counter(w for p in parts.values() for w in p.all) == Counter(words.all)
    shares = {s.value: len(p.pseudo) / len(words.pseudo) for s, p in parts.items()}
    assert shares == pytest.approx({"train": 0.8, "validation": 0.1, "test": 0.1}, abs=0.02)


def test_subjects_are_real_words_then_made_up_ones() -> None:
    words = SubjectWords(("planet", "sky"), ("plonet",))
    assert words.all == ("planet", "sky", "plonet")
    assert words.pseudo_set == {"plonet"}
    assert SubjectWords(("planet",)).all == ("planet",)


# --- training ---------------------------------------------------------------------------------


def data_of(small_config: Any, *overrides: str) -> TrainingData:
    tokenizer = tokenizer_of("tiny")
    return training_data(
        small_config(*overrides),
        words_by_split("tiny")[Split.TRAIN],
        tokenizer.count_tokens,
        lambda words: encodable(words, tokenizer),
    )


@pytest.mark.parametrize("band", list(Band))
@pytest.mark.parametrize("augmentation", [True, False])
def test_they_are_trained_in_the_hard_band_with_augmentation_and_nowhere_else(
    small_config: Any, band: Band, augmentation: bool
) -> None:
    data = data_of(
        small_config, f"spelling_difficulty={band.value}", f"spelling_augmentation={augmentation}"
    )
    made = subject_words("tiny").pseudo
    found = set(data.stream.spelled_words) & set(made)
    if band is Band.HARD and augmentation:
        assert found == set(words_by_split("tiny")[Split.TRAIN].pseudo)
    else:
        assert found == set()
    assert data.left_out == {}


@pytest.mark.parametrize("arm", list(Arm))
def test_all_arms_have_the_same_made_up_words_and_none_is_replayed(
    small_config: Any, arm: Arm
) -> None:
    data = data_of(small_config, "spelling_difficulty=hard", f"arm={arm.value}")
    made = set(subject_words("tiny").pseudo)
    items = data.stream.step(0, 3000)
    asked = {item.word for item in items if item.task is not Task.REPLAY}
    assert asked & made
    repeated = {w for item in items if item.task is Task.REPLAY for w in item.subjects}
    assert repeated
    assert not repeated & made
