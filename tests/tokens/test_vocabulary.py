"""Laws of `tuning.tokens.vocabulary`: bytes and strings of tokens, and the way back."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from tuning.errors import ModelError
from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.vocabulary import (
    Vocabulary,
    byte_alphabet,
    bytes_of,
    read_vocabulary,
    shown_text,
    string_of,
)


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return qwen3_tokenizer().vocabulary


def test_every_byte_has_one_character_that_prints() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert all(character.isprintable() and character != " " for character in alphabet)
    assert [string_of(raw) for raw in (b" ", b"\n", b"a", "é".encode())] == ["Ġ", "Ċ", "a", "Ã©"]


@given(raw=st.binary())
def test_bytes_and_their_string_are_inverse(raw: bytes) -> None:
    assert bytes_of(string_of(raw)) == raw


def test_strings_of_the_vocabulary_and_their_bytes_are_inverse(vocabulary: Vocabulary) -> None:
    for token, string in vocabulary.strings.items():
        assert string_of(vocabulary.base[token]) == string
    assert len(set(vocabulary.base.values())) == len(vocabulary.base)


_ADDED = st.sampled_from(["<think>", "</think>", "<|im_end|>", "<|im_start|>", "<tool_call>"])
_TEXT = st.lists(st.text() | _ADDED, max_size=6).map("".join)


@given(text=_TEXT)
@settings(deadline=None, max_examples=200)
def test_any_text_comes_back_from_ids_through_bytes(text: str) -> None:
    # The tokenizer itself brings texts into this form.
    text = unicodedata.normalize("NFC", text)
    loaded = qwen3_tokenizer()
    vocabulary = loaded.vocabulary
    ids = loaded.backend.encode(text, add_special_tokens=False).ids
    parts = (
        vocabulary.base.get(token) or vocabulary.added_by_id[token].text.encode() for token in ids
    )
    assert b"".join(parts).decode() == text


def test_sizes_and_names_of_qwen3(vocabulary: Vocabulary) -> None:
    assert (len(vocabulary.base), len(vocabulary.added), vocabulary.size) == (151_643, 26, 151_669)
    assert sorted({*vocabulary.base, *vocabulary.added_by_id}) == list(range(151_669))
    special = {token.text for token in vocabulary.added if token.is_special}
    assert len(special) == 14
    assert {"<|endoftext|>", "<|im_start|>", "<|im_end|>"} <= special
    assert {"<think>", "</think>"}.isdisjoint(special)


def test_names_of_tokens_are_those_of_the_tokenizer(vocabulary: Vocabulary) -> None:
    backend = qwen3_tokenizer().backend
    for token in (*range(0, 151_643, 997), *range(151_643, 151_669)):
        assert vocabulary.string(token) == backend.id_to_token(token)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b" word", " word"),
        ("日".encode(), "日"),
        ("日".encode()[:2], "<0xE6><0x97>"),
        ("é".encode() + b"\xff", "é<0xFF>"),
    ],
)
def test_what_is_no_whole_character_is_shown_as_bytes(raw: bytes, text: str) -> None:
    assert shown_text(raw) == text


def test_a_vocabulary_of_words_is_no_byte_level_one() -> None:
    backend = Tokenizer(models.WordLevel({"a b": 0}, unk_token="a b"))
    with pytest.raises(ModelError, match="mine is no byte-level tokenizer: .* ' '"):
        read_vocabulary(backend, "mine")
