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
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from tuning.errors import DataError
from tuning.files import numbered_lines

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
    return exclusions(words).kept


@dataclass(frozen=True)
class SubjectWords:
    """Words that a model may be trained on or asked about."""

    real: tuple[str, ...]
    pseudo: tuple[str, ...] = ()
    """Made-up ones."""

    @functools.cached_property
    def all(self) -> tuple[str, ...]:
        """Real words, then made-up ones."""
        return self.real + self.pseudo

    @functools.cached_property
    def pseudo_set(self) -> frozenset[str]:
        """The made-up ones, for look-ups."""
        return frozenset(self.pseudo)


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


# --- a user's own words, and what may not be a subject ------------------------------------------

MAX_LINE_BYTES = 1_024


def read_word_list(
    path: Path, shortest: int = MIN_LETTERS, longest: int = MAX_LETTERS
) -> tuple[str, ...]:
    """Read a user's own words: one a line, blank lines and lines that begin with # left out.

    Args:
        path: The file.
        shortest: Letters that a word must have.
        longest: Letters that a word may have.

    Returns:
        The words in the order of the file, each once.

    Raises:
        NotFoundError: There is no such file.
        DataError: A line is no word, or there is none.
    """
    found: dict[str, None] = {}
    letters = re.compile(rf"[a-z]{{{shortest},{longest}}}")
    for number, _, line in numbered_lines(path, MAX_LINE_BYTES):
        try:
            word = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: is not UTF-8 text") from error
        if not word or word.startswith("#"):
            continue
        if not letters.fullmatch(word):
            raise DataError(
                f"{path}, line {number}: a word must be {shortest} to {longest} "
                f"lower-case letters a-z, got {word[:40]!r}"
            )
        found[word] = None
    if not found:
        raise DataError(f"{path}: a word list needs at least one word, got none")
    return tuple(found)


class Exclusions(NamedTuple):
    """What the benchmark list takes out of a word list."""

    kept: tuple[str, ...]
    listed: tuple[str, ...]
    """Words that are on the list."""
    same_stem: tuple[str, ...]
    """Words that share a stem with one on the list."""


def exclusions(words: Sequence[str]) -> Exclusions:
    """Sort `words` into those that may be a subject of training, and those that may not."""
    on_list, excluded = benchmark_words(), benchmark_stems()
    kept, listed, same_stem = [], [], []
    for word, stem in zip(words, stems(words), strict=True):
        if word in on_list:
            listed.append(word)
        elif stem in excluded:
            same_stem.append(word)
        else:
            kept.append(word)
    return Exclusions(tuple(kept), tuple(listed), tuple(same_stem))


def words_in(texts: Iterable[str]) -> set[str]:
    """Return the words that occur in texts, in lower case."""
    return {word for text in texts for word in re.findall(r"[a-z]+", text.lower())}
