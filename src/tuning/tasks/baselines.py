"""Word-blind baselines: what a guesser scores on these very items without looking at the word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from tuning.tasks.items import AnswerKind, Item, Task, answer_kind


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


def guesser_to_json(guesser: LetterGuesser) -> dict[str, Any]:
    """Return a guesser as JSON holds it."""
    best = guesser.by_position_and_length
    cells = [[n, length, letter] for (n, length), letter in sorted(best.items())]
    return {"most_common": guesser.most_common, "best": cells}


def guesser_from_json(raw: Any) -> LetterGuesser:
    """Return the guesser that `guesser_to_json` wrote.

    Raises:
        ValueError: It is none.
    """
    try:
        best = {(int(n), int(length)): str(letter) for n, length, letter in raw["best"]}
        return LetterGuesser(str(raw["most_common"]), best)
    except (TypeError, KeyError) as error:
        raise ValueError(f"no letter guesser: {error}") from error


def guesses(item: Item, guesser: LetterGuesser) -> dict[str, float]:
    """Return, for each way to guess one letter of a word, the probability that it is right.

    The random letter of the word does look at the word, but not at its order: a model that knows
    which letters there are, and nothing of where, scores so much.
    """
    cells = guesser.by_position_and_length
    word = item.word.lower()
    return {
        "most common letter": float(item.answer == guesser.most_common),
        "best letter by position and length": float(
            item.answer == cells.get((item.n or 0, len(word)), guesser.most_common)
        ),
        "random letter of the word": word.count(item.answer.lower()) / max(1, len(word)),
    }


def word_blind_baselines(items: Sequence[Item], guesser: LetterGuesser) -> dict[str, float]:
    """Return the accuracy of guessers that never look at the word, on these very items.

    Args:
        items: Items of one task.
        guesser: Fitted on training words.

    Returns:
        Rates by the name of the guesser; the largest is the baseline. Spelling has none above 0;
        other tasks than ours have that of the commonest answer.
    """
    kind = answer_kind(items[0].task) if items else AnswerKind.SPELLED
    if kind is AnswerKind.SPELLED:
        return {"none": 0.0}
    if items[0].task == Task.COUNT:
        return _count_baselines(items)
    if kind is AnswerKind.LETTER:
        rates = [guesses(item, guesser) for item in items]
        return {name: sum(r[name] for r in rates) / len(items) for name in rates[0]}
    commonest = Counter(item.answer for item in items).most_common(1)[0][1]
    return {"commonest answer": commonest / len(items)}


def baseline(items: Sequence[Item], guesser: LetterGuesser) -> float:
    """Return the largest word-blind baseline on items of one task."""
    return max(word_blind_baselines(items, guesser).values())


MIN_CELL_WORDS = 10
"""Smaller cells take the majority of the next larger group: a cell of one word is never wrong."""


def _count_baselines(items: Sequence[Item]) -> dict[str, float]:
    """Score the majority answer: overall, by letter, by letter and length; within the strata."""
    whole: list[tuple[object, ...]] = [() for _ in items]
    by_stratum = [(i.stratum,) for i in items]
    by_letter = [(i.stratum, i.letter) for i in items]
    by_length = [(i.stratum, i.letter, len(i.word)) for i in items]
    return {
        "majority": _majority(items, [by_stratum, whole]),
        "majority by letter": _majority(items, [by_letter, by_stratum, whole]),
        "majority by letter and length": _majority(
            items, [by_length, by_letter, by_stratum, whole]
        ),
    }


def _majority(items: Sequence[Item], levels: Sequence[Sequence[tuple[object, ...]]]) -> float:
    """Return the accuracy of the commonest class of each item's cell.

    Args:
        items: The items.
        levels: The cell of each item, from the finest level to the coarsest.
    """
    best: list[dict[tuple[object, ...], str]] = []
    for level in levels:
        classes: dict[tuple[object, ...], Counter[str]] = {}
        words: dict[tuple[object, ...], set[str]] = {}
        for cell, item in zip(level, items, strict=True):
            classes.setdefault(cell, Counter())[count_class(item.answer)] += 1
            words.setdefault(cell, set()).add(item.word)
        is_last = level is levels[-1]
        best.append(
            {
                cell: counts.most_common(1)[0][0]
                for cell, counts in classes.items()
                if is_last or len(words[cell]) >= MIN_CELL_WORDS
            }
        )
    hits = 0
    for index, item in enumerate(items):
        cells = zip(levels, best, strict=True)
        guess = next(b[level[index]] for level, b in cells if level[index] in b)
        hits += guess == count_class(item.answer)
    return hits / len(items)


def count_class(answer: str) -> str:
    """Return the class of a count: 0, 1, 2 or 3+."""
    return "3+" if answer.isdigit() and int(answer) >= 3 else answer
