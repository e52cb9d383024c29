"""Train, validation and test: by a hash of the word's stem, before any example is made.

The split of a word is the same for every task, model, seed and study.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from enum import StrEnum

from tuning.tasks.words import SubjectWords, stems

SPLIT_SALT = "tuning-split-1"
VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1


class Split(StrEnum):
    """What a word may be used for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


def split_of_stem(stem: str) -> Split:
    """Return the split of a stem: 80 % train, 10 % validation, 10 % test."""
    digest = hashlib.blake2b(f"{SPLIT_SALT}:{stem}".encode(), digest_size=8).digest()
    share = int.from_bytes(digest) / 2**64
    if share < TEST_SHARE:
        return Split.TEST
    if share < TEST_SHARE + VALIDATION_SHARE:
        return Split.VALIDATION
    return Split.TRAIN


def split_words(words: Sequence[str]) -> dict[Split, tuple[str, ...]]:
    """Sort `words` into the three splits, each in the order given. No stem is in two of them."""
    parts: dict[Split, list[str]] = {split: [] for split in Split}
    for word, stem in zip(words, stems(words), strict=True):
        parts[split_of_stem(stem)].append(word)
    return {split: tuple(part) for split, part in parts.items()}


@functools.lru_cache(maxsize=2)
def split_subjects(words: SubjectWords) -> Mapping[Split, SubjectWords]:
    """Sort real and made-up words into the three splits."""
    real, pseudo = split_words(words.real), split_words(words.pseudo)
    return {split: SubjectWords(real[split], pseudo[split]) for split in Split}
