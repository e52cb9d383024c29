"""The words: which exist, which are never a subject of training, and their stems.

A word is lower-case a-z of 3 to 15 letters. Benchmark words, and every word of the same stem, are
never a subject: not spelled, joined, asked about, nor the content of a replay phrase.
"""

from __future__ import annotations

import functools
import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from importlib import resources

MIN_LETTERS = 3
MAX_LETTERS = 15
WORDFREQ_DEPTH = 300_000

_WORD = re.compile(rf"[a-z]{{{MIN_LETTERS},{MAX_LETTERS}}}")


def is_word(text: str) -> bool:
    """Tell whether `text` is lower-case a-z of 3 to 15 letters."""
    return _WORD.fullmatch(text) is not None


@functools.cache
def english_words() -> tuple[str, ...]:
    """Return the words among `wordfreq`'s 300,000 English ones, most frequent first."""
    from wordfreq import top_n_list

    return tuple(word for word in top_n_list("en", WORDFREQ_DEPTH) if is_word(word))


@functools.cache
def benchmark_words() -> frozenset[str]:
    """Return the words that other people's benchmarks ask about."""
    text = resources.files("tuning").joinpath("data/benchmark_words.txt").read_text("utf-8")
    return frozenset(text.split())


@functools.cache
def _stemmer() -> object:
    import snowballstemmer

    return snowballstemmer.stemmer("english")


def stems(words: Sequence[str]) -> list[str]:
    """Return the Snowball (English) stem of each word; inflections of one word share it."""
    return list(_stemmer().stemWords(list(words)))  # type: ignore[attr-defined]


@functools.cache
def benchmark_stems() -> frozenset[str]:
    """Return the stems that no subject of training may have."""
    return frozenset(stems(sorted(benchmark_words())))


def without_benchmark_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return `words` less those that share a stem with a benchmark word, in the same order."""
    excluded = benchmark_stems()
    return tuple(w for w, stem in zip(words, stems(words), strict=True) if stem not in excluded)


def hash_of_words(words: Iterable[str]) -> str:
    """Return a fingerprint of an ordered word list, 64 hex digits."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def keyed_rng(*key: object) -> random.Random:
    """Return a generator that is a pure function of `key`, the same on every platform.

    Example `i` of a stream uses ``keyed_rng(seed, "train", i)``: it can be made without its
    predecessors, which is what lets a run stop, resume and be extended exactly.
    """
    text = "\x1f".join(map(str, key))
    return random.Random(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()))
