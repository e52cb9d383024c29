"""Letter count: how often a letter occurs in a word. Classes are balanced within cells.

A cell is one letter and one word length. Within a cell every class has equally many words, so
always giving the majority class, or the majority by letter, or by letter and length, scores
exactly one over the number of classes. Cells that cannot be filled are dropped, and counted.
"""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.tasks.items import Item, Task, Template
from tuning.tasks.words import keyed_rng

MAX_COUNT = 4
LONG_WORD_LETTERS = 7
"""Words this long have the classes 0, 1, 2 and 3+; shorter ones 0, 1 and 2."""

TEMPLATES = (
    Template(
        "times",
        "How many times does the letter {letter} occur in {word}? Answer with only the number.\n",
    ),
    Template("count", "Count the letter {letter} in {word}. Reply with a number.\n"),
    Template("often", "How often is {letter} used in {word}? Only the number.\n", held_out=True),
)


def count_letter(word: str, letter: str) -> int:
    """Return how often `letter` occurs in `word`."""
    return word.count(letter)


def stratum_of(num_letters: int) -> str:
    """Return long for words with four classes of answers, short for those with three."""
    return "long" if num_letters >= LONG_WORD_LETTERS else "short"


def classes_of(stratum: str) -> int:
    """Return the number of classes in a stratum; one over it is the word-blind baseline."""
    return {"long": 4, "short": 3}[stratum]


def count_item(word: str, letter: str, template: Template) -> Item:
    """Return the item that asks how often `letter` occurs in `word`."""
    return Item(
        task=Task.COUNT,
        word=word,
        template=template.name,
        question=template.fill(letter=letter, word=word),
        answer=str(count_letter(word, letter)),
        letter=letter,
        stratum=stratum_of(len(word)),
        subjects=(word,),
    )


def random_item(word: str, rng: random.Random, templates: tuple[Template, ...] = TEMPLATES) -> Item:
    """Return an item with a random letter, in a random template.

    The answer is drawn first, uniformly among those that the word has a letter for, so that rare
    answers are not drowned by 0 and 1.
    """
    letters_of: dict[int, list[str]] = {}
    for letter in string.ascii_lowercase:
        letters_of.setdefault(count_letter(word, letter), []).append(letter)
    answers = sorted(letters_of)
    letters = letters_of[answers[int(rng.random() * len(answers))]]
    letter = letters[int(rng.random() * len(letters))]
    return count_item(word, letter, templates[int(rng.random() * len(templates))])


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancedCounts:
    """Word and letter pairs whose classes are balanced within every cell."""

    pairs: tuple[tuple[str, str], ...]
    num_cells: int
    num_dropped_cells: int
    """Cells of a letter and a length for which some class has no word left."""


def balanced_pairs(words: Sequence[str], num_pairs: int, seed: int) -> BalancedCounts:
    """Choose about `num_pairs` pairs of a word and a letter, balanced within letter x length.

    Args:
        words: Words to choose from.
        num_pairs: How many are wanted; the two strata get half each, where words allow.
        seed: Same seed, same pairs.

    Returns:
        At most `num_pairs` pairs; a word may occur with several letters, a pair only once.
    """
    cells = _cells(words, seed)
    filled = {cell: classes for cell, classes in cells.items() if all(classes)}
    rounds = {stratum: _rounds(filled, stratum, seed) for stratum in ("long", "short")}
    pairs: list[tuple[str, str]] = []
    for stratum, share in (("long", num_pairs // 2), ("short", num_pairs)):
        size = classes_of(stratum)
        budget = (share if stratum == "long" else num_pairs - len(pairs)) // size
        for group in rounds[stratum][:budget]:
            pairs.extend(group)
    return BalancedCounts(
        pairs=tuple(pairs), num_cells=len(filled), num_dropped_cells=len(cells) - len(filled)
    )


def _cells(words: Sequence[str], seed: int) -> dict[tuple[str, int], list[list[str]]]:
    """Sort words into cells (letter, length), and within each into the classes of answers."""
    order = list(words)
    keyed_rng(seed, "count-words").shuffle(order)
    cells: dict[tuple[str, int], list[list[str]]] = {}
    for word in order:
        num_classes = classes_of(stratum_of(len(word)))
        largest = MAX_COUNT if num_classes == 4 else 2
        for letter in string.ascii_lowercase:
            number = count_letter(word, letter)
            if number <= largest:
                empty: list[list[str]] = [[] for _ in range(num_classes)]
                cells.setdefault((letter, len(word)), empty)[min(number, 3)].append(word)
    return cells


def _rounds(
    cells: dict[tuple[str, int], list[list[str]]], stratum: str, seed: int
) -> list[list[tuple[str, str]]]:
    """Return groups of one pair a class, from the cells in turn, so that no cell dominates."""
    of_stratum = sorted(cell for cell in cells if stratum_of(cell[1]) == stratum)
    keyed_rng(seed, "count-cells", stratum).shuffle(of_stratum)
    depth = {cell: min(map(len, cells[cell])) for cell in of_stratum}
    groups = []
    for turn in range(max(depth.values(), default=0)):
        for cell in of_stratum:
            if turn < depth[cell]:
                groups.append([(words[turn], cell[0]) for words in cells[cell]])
    return groups


def evaluation_items(word: str, letter: str) -> list[Item]:
    """Return the items that ask for one letter of one word, in every template."""
    return [count_item(word, letter, template) for template in TEMPLATES]
