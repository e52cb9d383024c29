"""Words and streams of training examples that several test files read."""

from __future__ import annotations

import functools
from collections import Counter

from tuning.model.base import subject_words, tokenizer_of
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Item, Task
from tuning.tasks.replay import ShippedReplay
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.stream import Arm, TrainingStream, words_in_band
from tuning.tasks.words import SubjectWords

GENERAL = "smollm2-135m"
"""A model with the general words; its files are never read."""


@functools.cache
def words_by_split(model: str) -> dict[Split, SubjectWords]:
    return split_subjects(subject_words(model))


@functools.cache
def band_words(model: str, band: Band) -> tuple[str, ...]:
    """Training words of a band; of the general words every tenth, cut as tiny cuts them."""
    words = words_by_split(model)[Split.TRAIN]
    candidates = words.all if model == "tiny" else words.all[::10]
    count_tokens = tokenizer_of("tiny").count_tokens
    found = words_in_band(candidates, band, count_tokens, words.pseudo_set)
    lengths = Counter(map(len, found))
    # A tenth may hold one word of some length, which the format control could not answer.
    return tuple(word for word in found if model == "tiny" or lengths[len(word)] > 1)


def stream_of(
    words: tuple[str, ...],
    arm: Arm = Arm.SPELLING,
    *,
    augmentation: bool = True,
    ratio: float = 0.7,
    seed: int = 0,
) -> TrainingStream:
    return TrainingStream(
        spelled_words=words,
        replay=ShippedReplay(words_by_split("tiny")[Split.TRAIN].real),
        data_ratio=ratio,
        augmentation=augmentation,
        seed=seed,
        arm=arm,
    )


def letters_of(item: Item) -> str:
    """The letters of a spelling item's answer, lower-case, read from the text alone."""
    assert item.task is Task.SPELLING
    return "".join(c for c in item.answer.lower() if c.isalpha())
