"""Evaluation suites: which items a model is asked, the same for base and tuned model.

A suite is a pure function of its words and sizes. Words come in equal thirds from the three bands,
as far as each band has words; positions are uniform, counts balanced; every item is asked in every
evaluation template.
"""

from __future__ import annotations

import dataclasses
import functools
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tuning.errors import SuiteError
from tuning.files import sha256_of_json
from tuning.tasks import count, position, spelling
from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.items import CountTokens, Item, Task
from tuning.tasks.words import keyed_rng

SUITE_SEED = 1
"""One seed for all suites: every model and trial answers the same items."""


@dataclass(frozen=True)
class Suite:
    """Items with the band of each."""

    items: tuple[Item, ...]
    bands: tuple[Band, ...]
    num_tokens: tuple[int, ...]
    """Tokens of each item's word, in the form with a leading space."""
    num_dropped_count_cells: int
    """Cells of letter x length left out because some class of answers had no word."""

    @functools.cached_property
    def key(self) -> str:
        """Fingerprint of the items, 16 hex digits."""
        return sha256_of_json([dataclasses.asdict(item) for item in self.items])[:16]

    def mix(self) -> dict[str, dict[str, int]]:
        """Return the number of items by task and stratum or template."""
        mixes: dict[str, Counter[str]] = {}
        for item, band in zip(self.items, self.bands, strict=True):
            names = [item.template, band.value] + ([item.stratum] if item.stratum else [])
            mixes.setdefault(item.task.value, Counter()).update(names)
        return {task: dict(sorted(counts.items())) for task, counts in mixes.items()}


def build_suite(words: Sequence[str], num_words: int, count_tokens: CountTokens) -> Suite:
    """Return the suite over `words`.

    Args:
        words: Words of one split; never those that were trained on, unless that is the question.
        num_words: Words a task.
        count_tokens: The model's tokenizer.

    Raises:
        SuiteError: There are not enough words.
    """
    if len(words) < 10:
        raise SuiteError(f"a suite needs at least 10 words, got {len(words)}")
    tokens = dict(zip(words, count_tokens(words), strict=True))
    asked = _thirds_by_band(words, num_words, tokens)
    counts = count.balanced_pairs(words, num_words, SUITE_SEED)
    if not counts.pairs:
        raise SuiteError(
            f"no letter and length has words for every count among {len(words)} words; give more"
        )
    items: list[Item] = []
    for word in asked:
        items += spelling.evaluation_items(word)
    for word in asked:
        items += position.evaluation_items(word, keyed_rng(SUITE_SEED, "position", word))
    for word, letter in counts.pairs:
        items += count.evaluation_items(word, letter)
    return Suite(
        items=tuple(items),
        bands=tuple(band_of(len(item.word), tokens[item.word]) for item in items),
        num_tokens=tuple(tokens[item.word] for item in items),
        num_dropped_count_cells=counts.num_dropped_cells,
    )


def _thirds_by_band(words: Sequence[str], num_words: int, tokens: dict[str, int]) -> list[str]:
    by_band: dict[Band, list[str]] = {band: [] for band in Band}
    for word in words:
        by_band[band_of(len(word), tokens[word])].append(word)
    for band, members in by_band.items():
        keyed_rng(SUITE_SEED, "suite-words", band.value).shuffle(members)
    ranked = sorted(
        (rank, band_index, word)
        for band_index, members in enumerate(by_band.values())
        for rank, word in enumerate(members)
    )
    return [word for _, _, word in ranked[:num_words]]


class LetterGuesser(NamedTuple):
    """What is known of letters without looking at the word asked about."""

    most_common: str
    by_position_and_length: dict[tuple[int, int], str]


def fit_letter_guesser(words: Sequence[str]) -> LetterGuesser:
    """Return the best word-blind guesses, fitted on words other than those asked about."""
    overall: Counter[str] = Counter()
    cells: dict[tuple[int, int], Counter[str]] = {}
    for word in words:
        overall.update(word)
        for n, letter in enumerate(word, start=1):
            cells.setdefault((n, len(word)), Counter())[letter] += 1
    best = {cell: counts.most_common(1)[0][0] for cell, counts in cells.items()}
    return LetterGuesser(overall.most_common(1)[0][0], best)


def word_blind_baselines(items: Sequence[Item], guesser: LetterGuesser) -> dict[str, float]:
    """Return the accuracy of guessers that never look at the word, on these very items.

    Args:
        items: Items of one task.
        guesser: Fitted on training words.

    Returns:
        Rates by the name of the guesser; the largest is the baseline. Spelling has none above 0.
    """
    if not items or items[0].task is Task.SPELLING:
        return {"none": 0.0}
    if items[0].task is Task.COUNT:
        return _count_baselines(items)
    cells = guesser.by_position_and_length
    right: dict[str, list[float]] = {
        "most common letter": [i.answer == guesser.most_common for i in items],
        "best letter by position and length": [
            i.answer == cells.get((i.n or 0, len(i.word)), guesser.most_common) for i in items
        ],
        "random letter of the word": [i.word.count(i.answer) / len(i.word) for i in items],
    }
    return {name: sum(hits) / len(items) for name, hits in right.items()}


def _count_baselines(items: Sequence[Item]) -> dict[str, float]:
    """Score the majority answer: overall, by letter, by letter and length; within the strata."""

    def majority(keys: Sequence[tuple[object, ...]]) -> float:
        cells: dict[tuple[object, ...], Counter[str]] = {}
        for key, item in zip(keys, items, strict=True):
            cells.setdefault(key, Counter())[_count_class(item)] += 1
        return sum(max(counts.values()) for counts in cells.values()) / len(items)

    return {
        "majority": majority([(i.stratum,) for i in items]),
        "majority by letter": majority([(i.stratum, i.letter) for i in items]),
        "majority by letter and length": majority([(i.letter, len(i.word)) for i in items]),
    }


def _count_class(item: Item) -> str:
    return "3+" if item.answer in ("3", "4") else item.answer


LETTERS = tuple(string.ascii_lowercase)
DIGITS = tuple(string.digits)


def choices_of(task: Task) -> tuple[str, ...]:
    """Return the answers among which the choice reading decides; none for spelling."""
    return {Task.POSITION: LETTERS, Task.COUNT: DIGITS}.get(task, ())
