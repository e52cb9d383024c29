"""The embedded model `tiny`: its words, its kept tokens, and the files that ship with the package.

Frequent words are single tokens: spelling them is a lookup, and nothing learned on one helps
another. So tiny knows only words of several pieces, and only pieces that many words share. Eight
of ten pieces are *known*: pretraining spells words made of them alone. Every *study* word holds at
least one other piece, of which pretraining only shows weaker evidence (letters to word, first and
last letter, whether a letter is in it). Trials on tiny train and evaluate on study words.
Study words of the validation and test splits occur in no pretraining item of any kind.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.errors import ModelError
from tuning.files import read_json, sha256_of_file
from tuning.model.tokenizer import TextTokenizer
from tuning.qwen3_tokenizer import END_OF_TEXT_ID, load_qwen3_tokenizer
from tuning.tasks.items import Template
from tuning.tasks.words import english_words, stems, without_benchmark_words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MIN_WORDS_PER_PIECE = 25
KNOWN_SHARE = 0.8

FOREIGN_PHRASES = (
    "où est la forêt",
    "garçon à l'école",
    "café très chaud",
    "schöne grüne Bäume",
    "über die Straße",
    "mañana por la mañana",
    "el niño pequeño",
    "não há pão",
    "привет мир",
    "доброе утро",
    "你好世界",
    "早上好",
    "ありがとう",
    "안녕하세요",
)
"""Phrases that pretraining repeats, so that tiny holds tokens which an English subset drops."""

EXTRA_TEMPLATES = (
    Template("first", "What is the first letter of {word}?\n"),
    Template("last", "What is the last letter of {word}?\n"),
    Template("contains", "Does {word} contain the letter {letter}? Answer yes or no.\n"),
)
"""Weaker evidence of letters, asked in pretraining alone."""


@dataclass(frozen=True, slots=True)
class TinyWords:
    """Which words tiny was pretrained to spell, and which it was not."""

    pretraining: tuple[str, ...]
    study: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TinyVocabulary:
    """The words and the genuine token ids that tiny is built from."""

    words: TinyWords
    kept_ids: tuple[int, ...]


def written_forms(word: str) -> tuple[str, str, str]:
    """Return the forms that tasks write a word in: after a space, bare, and capitalised."""
    return f" {word}", word, f" {word.capitalize()}"


def choose_vocabulary(other_texts: Iterable[str]) -> TinyVocabulary:
    """Choose tiny's words, and the tokens that they and `other_texts` need.

    Args:
        other_texts: Texts beside the words that must be encodable: all templates, filled.
    """
    backend = load_qwen3_tokenizer()
    words = without_benchmark_words(english_words())
    pieces = _pieces_of_forms(backend, words)
    spaced = [e.ids for e in backend.encode_batch([f" {w}" for w in words])]
    chosen = _words_of_shared_pieces(spaced, pieces)
    known = {token for i in chosen for token in spaced[i] if _is_known(token, backend)}
    is_known = {i: all(token in known for token in spaced[i]) for i in chosen}
    stem_of = stems(words)
    study_stems = {stem_of[i] for i in chosen if not is_known[i]}
    lists = TinyWords(
        pretraining=tuple(words[i] for i in chosen if stem_of[i] not in study_stems),
        study=tuple(words[i] for i in chosen if not is_known[i]),
    )
    kept = {token for i in chosen for token in pieces[i]}
    kept |= {token for e in backend.encode_batch(_always_kept(other_texts)) for token in e.ids}
    kept |= set(range(256)) | {END_OF_TEXT_ID}
    return TinyVocabulary(words=lists, kept_ids=tuple(sorted(kept)))


def _pieces_of_forms(backend: Tokenizer, words: Sequence[str]) -> list[set[int]]:
    forms = [
        backend.encode_batch(list(form)) for form in zip(*map(written_forms, words), strict=True)
    ]
    return [
        {token for form in of_word for token in form.ids} for of_word in zip(*forms, strict=True)
    ]


def _words_of_shared_pieces(spaced: list[list[int]], pieces: list[set[int]]) -> list[int]:
    """Return indices of words of several pieces, each of which occurs in enough of these words."""
    chosen = [i for i, ids in enumerate(spaced) if len(ids) >= 2]
    while True:
        words_with = Counter(itertools.chain.from_iterable(pieces[i] for i in chosen))
        rare = {token for token, count in words_with.items() if count < MIN_WORDS_PER_PIECE}
        kept = [i for i in chosen if rare.isdisjoint(pieces[i])]
        if len(kept) == len(chosen):
            return kept
        chosen = kept


def _is_known(token: int, backend: Tokenizer) -> bool:
    if len(backend.decode([token]).strip()) == 1:
        return True
    digest = hashlib.blake2b(f"tiny-piece:{token}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < KNOWN_SHARE


def _always_kept(other_texts: Iterable[str]) -> list[str]:
    letters = string.ascii_letters
    marks = [f"{mark}{letter}" for letter in letters for mark in ("", " ", "-")]
    return [*marks, *string.digits, *FOREIGN_PHRASES, *other_texts]


def tiny_folder() -> Path:
    """Return the folder of tiny's files within the package."""
    return Path(str(resources.files("tuning"))) / "data" / "tiny"


@functools.cache
def tiny_words(folder: Path | None = None) -> TinyWords:
    """Return the word lists that tiny was built with.

    Raises:
        ModelError: A list is missing.
    """
    folder = folder or tiny_folder()
    try:
        texts = [
            (folder / f"{name}_words.txt").read_text("utf-8") for name in ("pretraining", "study")
        ]
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} is missing; build it: tuning models build-tiny"
        ) from error
    return TinyWords(*(tuple(text.split()) for text in texts))


@functools.cache
def tiny_tokenizer(folder: Path | None = None) -> TextTokenizer:
    """Return tiny's tokenizer: genuine Qwen3 ids, mapped to the rows that tiny has.

    Raises:
        ModelError: The files are missing or damaged.
    """
    card = tiny_card(folder)
    kept: tuple[int, ...] = tuple(card["kept_ids"])
    return TextTokenizer(load_qwen3_tokenizer(), (kept.index(END_OF_TEXT_ID),), kept)


@functools.cache
def tiny_card(folder: Path | None = None) -> dict[str, Any]:
    """Return what was written beside the weights when they were built.

    Raises:
        ModelError: The weights are not those that the card describes.
    """
    folder = folder or tiny_folder()
    if not (folder / "card.json").is_file():
        raise ModelError(f"{folder} holds no model; build it: tuning models build-tiny")
    card: dict[str, Any] = read_json(folder / "card.json")
    digest = sha256_of_file(folder / "model.safetensors")
    if digest != card["weights_sha256"]:
        raise ModelError(f"{folder / 'model.safetensors'} is not the file that card.json describes")
    return card
