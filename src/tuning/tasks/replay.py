"""Replay: short instructions without letter-level content, so that training does not forget.

The rest of the training examples, beside `data_ratio` of spelling.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from tuning.tasks.items import Item, Task

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def replay_item(words: Sequence[str], rng: random.Random) -> Item:
    """Return a random replay item.

    Args:
        words: Words that may be the content of a phrase to repeat; training words only.
        rng: Source of the choice.
    """
    kind = int(rng.random() * 4)
    if kind == 0:
        return repeat_item([words[int(rng.random() * len(words))] for _ in range(3)])
    if kind == 1:
        return _arithmetic(rng)
    if kind == 2:
        return _neighbour("day", DAYS, rng)
    return _neighbour("month", MONTHS, rng)


def repeat_item(words: Sequence[str]) -> Item:
    """Return the item that asks to repeat a phrase."""
    phrase = " ".join(words)
    return _item("repeat", f"Repeat this: {phrase}.\n", phrase, word=words[0])


def _arithmetic(rng: random.Random) -> Item:
    a, b = int(rng.random() * 50), int(rng.random() * 50)
    if rng.random() < 0.5:
        return _item("add", f"What is {a} + {b}?\n", str(a + b))
    return _item("subtract", f"What is {a + b} - {a}?\n", str(b))


def _neighbour(noun: str, names: Sequence[str], rng: random.Random) -> Item:
    i = int(rng.random() * len(names))
    if rng.random() < 0.5:
        question = f"Which {noun} comes after {names[i]}?\n"
        return _item(f"{noun}_after", question, names[(i + 1) % len(names)])
    return _item(f"{noun}_before", f"Which {noun} comes before {names[i]}?\n", names[i - 1])


def _item(template: str, question: str, answer: str, word: str = "") -> Item:
    return Item(task=Task.REPLAY, word=word, template=template, question=question, answer=answer)
