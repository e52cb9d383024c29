"""Laws of `tuning.tasks.words`: which words there are, and which are nobody's subject."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from snowballstemmer.english_stemmer import EnglishStemmer

from tuning.model.tiny import tiny_words
from tuning.tasks import words
from tuning.tasks.words import (
    benchmark_stems,
    benchmark_words,
    english_words,
    is_word,
    keyed_rng,
    stems,
    without_benchmark_words,
)


@pytest.mark.parametrize("text", ["cat", "a" * 15, "planet"])
def test_lower_case_a_to_z_of_3_to_15_letters_is_a_word(text: str) -> None:
    assert is_word(text)


@pytest.mark.parametrize(
    "text",
    ["", "at", "a" * 16, "Cat", "don't", "naïve", "cat ", "cat\n", "c4t", "ice-cream", "мир"],
)
def test_nothing_else_is_a_word(text: str) -> None:
    assert not is_word(text)


@given(text=st.text(max_size=17) | st.from_regex(r"[a-z]{0,17}", fullmatch=True))
def test_a_word_by_its_letters_one_by_one(text: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert is_word(text) == (3 <= len(text) <= 15 and all(c in letters for c in text))


def test_the_english_words_are_many_distinct_and_words() -> None:
    found = english_words()
    assert len(found) > 200_000
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[a-z]{3,15}", word) for word in found)


def test_the_english_words_come_most_frequent_first() -> None:
    place = {word: i for i, word in enumerate(english_words())}
    assert place["the"] == 0
    assert place["the"] < place["people"] < place["planet"] < place["sesquipedalian"]


@pytest.mark.parametrize(
    "family",
    [
        ("run", "runs", "running"),
        ("planet", "planets"),
        ("happy", "happiness"),
        ("connect", "connected", "connection", "connecting", "connections"),
    ],
)
def test_inflections_share_a_stem(family: tuple[str, ...]) -> None:
    assert len(set(stems(family))) == 1


def test_stems_are_those_of_the_reference_implementation() -> None:
    # snowballstemmer hands over to the C library PyStemmer where it is installed.
    sample = english_words()[::100]
    reference = EnglishStemmer()
    assert stems(sample) == [reference.stemWord(word) for word in sample]


def test_benchmark_words_are_there_and_clean() -> None:
    found = benchmark_words()
    assert len(found) > 5000
    assert all(word == word.strip().lower() and word for word in found)
    assert benchmark_stems() == set(stems(sorted(found)))
    assert len(benchmark_stems()) > 1000


def test_no_word_with_the_stem_of_a_benchmark_word_survives() -> None:
    kept = without_benchmark_words(english_words())
    assert not set(kept) & benchmark_words()
    reference = EnglishStemmer()
    forbidden = {reference.stemWord(word) for word in benchmark_words()}
    assert not set(stems(kept)) & forbidden
    assert len(kept) > 100_000


def test_every_other_word_survives_in_its_order() -> None:
    sample = english_words()[:20_000]
    kept = set(without_benchmark_words(sample))
    dropped = [word for word in sample if word not in kept]
    assert dropped
    assert set(stems(dropped)) <= benchmark_stems()
    assert without_benchmark_words(sample) == tuple(word for word in sample if word in kept)


def test_an_inflection_of_a_benchmark_word_falls_with_it() -> None:
    base = next(
        w for w in sorted(benchmark_words()) if w + "s" not in benchmark_words() and len(w) > 5
    )
    assert stems([base]) == stems([base + "s"])
    assert without_benchmark_words([base, base + "s", "zzzqx"]) == ("zzzqx",)


def test_tiny_knows_no_word_with_the_stem_of_a_benchmark_word() -> None:
    lists = tiny_words()
    assert lists.pretraining
    assert lists.study
    assert not set(stems(lists.pretraining)) & benchmark_stems()
    assert not set(stems(lists.study)) & benchmark_stems()


def test_tinys_pretraining_and_study_share_no_word_and_no_stem() -> None:
    lists = tiny_words()
    assert not set(lists.pretraining) & set(lists.study)
    assert not set(stems(lists.pretraining)) & set(stems(lists.study))


def test_tinys_lists_hold_distinct_english_words() -> None:
    lists = tiny_words()
    both = lists.pretraining + lists.study
    assert len(set(both)) == len(both)
    assert set(both) <= set(english_words())


# --- generators -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "seed", "first"),
    [
        # printf '1\x1ftrain\x1f0' | b2sum -l 64
        ((1, "train", 0), 0xC443A8A31CFE66D9, 0.2526835192346085),
        # printf '0\x1ftrain\x1f7' | b2sum -l 64
        ((0, "train", 7), 0xD2756EEC38AAC8A6, 0.9200244067483717),
    ],
)
def test_a_keyed_generator_gives_these_numbers_on_every_platform(
    key: tuple[object, ...], seed: int, first: float
) -> None:
    assert keyed_rng(*key).random() == first
    text = "\x1f".join(map(str, key)).encode()
    assert int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") == seed


def test_keys_are_told_apart_part_by_part() -> None:
    keys = [(1, "a", 23), (1, "a2", 3), (1, "a", 2, 3), (11, "a", 23), ("1a23",), (1, "b", 23)]
    assert len({keyed_rng(*key).random() for key in keys}) == len(keys)


def test_generators_of_one_key_do_not_disturb_one_another() -> None:
    first, second = keyed_rng("k"), keyed_rng("k")
    ahead = [first.random() for _ in range(5)]
    assert [second.random() for _ in range(5)] == ahead


def test_the_fingerprint_of_a_list_depends_on_words_and_order() -> None:
    assert words.hash_of_words(["cat", "dog"]) == hashlib.sha256(b"cat\ndog").hexdigest()
    assert words.hash_of_words(["cat", "dog"]) != words.hash_of_words(["dog", "cat"])
    assert words.hash_of_words(["cat", "dog"]) != words.hash_of_words(["catdog"])
