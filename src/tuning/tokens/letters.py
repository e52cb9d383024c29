"""One word, letter by letter: which token holds which letter, in every form of the word."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuning.tokens.vocabulary import Vocabulary, visible_text
from tuning.tokens.words import Form

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Cell:
    """What a token holds of one character: all of it, or a single byte."""

    text: str
    """The character, or the byte in hexadecimal, such as E4."""
    position: int | None
    """1-based among the word's characters; None for the space before it."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of a word."""

    id: int
    string: str
    """As the tokenizer's file writes it."""
    text: str
    """As a person reads it."""
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class CutForm:
    """A word in one form, cut."""

    form: Form
    text: str
    pieces: tuple[Piece, ...]


def cut_letters(backend: Tokenizer, vocabulary: Vocabulary, word: str) -> tuple[CutForm, ...]:
    """Return the tokens of a word in each form, with the letters of each.

    Forms that are the same text, as of a word with a capital letter, are there once.

    Args:
        backend: The tokenizer.
        vocabulary: Its tokens.
        word: Any text without white space around it.
    """
    texts = {form.of([word])[0]: form for form in reversed(Form)}
    found = {
        form: CutForm(form, text, tuple(_pieces(backend, vocabulary, text)))
        for text, form in texts.items()
    }
    return tuple(found[form] for form in Form if form in found)


def _pieces(backend: Tokenizer, vocabulary: Vocabulary, text: str) -> Iterator[Piece]:
    normalizer = backend.normalizer
    text = text if normalizer is None else normalizer.normalize_str(text)
    # Which character each byte belongs to.
    owners = [place for place, character in enumerate(text) for _ in character.encode()]
    start = 0
    for token in backend.encode(text, add_special_tokens=False).ids:
        content = _bytes(vocabulary, token)
        end = start + len(content)
        cells = _cells(text, owners[start:end], content)
        yield Piece(token, vocabulary.string(token), vocabulary.text(token), tuple(cells))
        start = end
    assert start == len(owners)


def _bytes(vocabulary: Vocabulary, token: int) -> bytes:
    added = vocabulary.added_by_id.get(token)
    return added.text.encode() if added else vocabulary.base[token]


def _cells(text: str, owners: Sequence[int], content: bytes) -> Iterator[Cell]:
    num_before = text.startswith(" ")
    for place in dict.fromkeys(owners):
        position = place + 1 - num_before or None
        held = bytes(byte for byte, owner in zip(content, owners, strict=True) if owner == place)
        if held == text[place].encode():
            yield Cell(visible_text(text[place]), position)
        else:
            yield from (Cell(f"{byte:02X}", position) for byte in held)
