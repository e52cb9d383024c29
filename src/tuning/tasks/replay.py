"""Replay: short instructions without letter-level content, so that training does not forget.

The rest of the training examples, beside `data_ratio` of spelling: ours, or a user's own file.
"""

from __future__ import annotations

import hashlib
import random
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tuning.errors import DataError, LeakError, shown
from tuning.files import json_object, numbered_lines
from tuning.tasks.items import REPEAT, Item, Task, Template
from tuning.tasks.leak_scan import Finding, check_item, find_leak, masked_text

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
ADD = Template("add", "What is {a} + {b}?\n")
SUBTRACT = Template("subtract", "What is {a} - {b}?\n")
AFTER = Template("after", "Which {noun} comes after {name}?\n")
BEFORE = Template("before", "Which {noun} comes before {name}?\n")


class Replay(Protocol):
    """Where replay examples come from."""

    def item(self, rng: random.Random) -> Item:
        """Return a random example."""
        ...


class ShippedReplay:
    """Phrases to repeat, arithmetic, the order of days and months."""

    def __init__(self, words: Sequence[str]) -> None:
        """Set the words that phrases may hold; training words only."""
        self.words = words

    def item(self, rng: random.Random) -> Item:
        """Return a random example."""
        return replay_item(self.words, rng)


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
    return _item(REPEAT.name, REPEAT.fill(phrase=phrase), phrase, words)


def _arithmetic(rng: random.Random) -> Item:
    a, b = int(rng.random() * 50), int(rng.random() * 50)
    if rng.random() < 0.5:
        return _item(ADD.name, ADD.fill(a=a, b=b), str(a + b))
    return _item(SUBTRACT.name, SUBTRACT.fill(a=a + b, b=a), str(b))


def _neighbour(noun: str, names: Sequence[str], rng: random.Random) -> Item:
    i = int(rng.random() * len(names))
    if rng.random() < 0.5:
        question = AFTER.fill(noun=noun, name=names[i])
        return _item(f"{noun}_{AFTER.name}", question, names[(i + 1) % len(names)])
    question = BEFORE.fill(noun=noun, name=names[i])
    return _item(f"{noun}_{BEFORE.name}", question, names[i - 1])


def _item(template: str, question: str, answer: str, words: Sequence[str] = ()) -> Item:
    return Item(
        task=Task.REPLAY,
        word=words[0] if words else "",
        template=template,
        question=question,
        answer=answer,
        subjects=tuple(words),
    )


def fixed_texts() -> list[str]:
    """Return the wording of every replay item that holds no word of a list."""
    neighbours = [
        template.fill(noun=noun, name=name).strip()
        for noun, names in (("day", DAYS), ("month", MONTHS))
        for template in (AFTER, BEFORE)
        for name in names
    ]
    openings = [template.text.partition("{")[0].strip() for template in (REPEAT, ADD)]
    return [*neighbours, *openings]


MAX_LINE_BYTES = 16_384
MAX_CHARACTERS = 1_000
"""Of a question or an answer: replay items are short."""


class ReplayFile:
    """A user's own replay: a JSON object a line, with `prompt` and `answer`.

    The file is read once from end to end, and checked; then only the places of its lines are kept,
    so that it may be larger than memory. The answer may be empty in no line.
    """

    def __init__(self, path: Path) -> None:
        """Check every line of `path`.

        Raises:
            DataError: A line is not what it must be.
            LeakError: A line holds letter-level content.
        """
        self.path = path
        self.offsets = array("Q")
        digest = hashlib.sha256()
        for number, offset, line in numbered_lines(path, MAX_LINE_BYTES):
            digest.update(line)
            if not line.strip():
                continue
            try:
                check_item(_parsed(line, f"{path}, line {number}"))
            except LeakError as error:
                raise LeakError(f"{path}, line {number}: {error}") from error
            self.offsets.append(offset)
        if not self.offsets:
            raise DataError(f"{path}: a replay file needs at least one line, got none")
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        """Return the number of examples."""
        return len(self.offsets)

    def item(self, rng: random.Random) -> Item:
        """Return a random example."""
        return self[int(rng.random() * len(self.offsets))]

    def __getitem__(self, index: int) -> Item:
        """Return example `index`, read from disk."""
        try:
            with self.path.open("rb") as file:
                file.seek(self.offsets[index])
                line = file.readline()
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read any more: {error.strerror}") from error
        return _parsed(line, f"{self.path}, example {index + 1}")

    def __iter__(self) -> Iterator[Item]:
        """Yield all examples in order."""
        return (self[i] for i in range(len(self)))


def _parsed(line: bytes, place: str) -> Item:
    return _checked(json_object(line, place), place)


def _checked(raw: Mapping[str, Any], place: str) -> Item:
    for key in ("prompt", "answer"):
        value = raw.get(key)
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{place}: {key} must be a text that is not empty, got {shown(value)}")
        if len(value) > MAX_CHARACTERS:
            raise DataError(
                f"{place}: {key} must have at most {MAX_CHARACTERS:,} characters, "
                f"got {len(value):,}"
            )
    for key in raw:
        if key not in ("prompt", "answer"):
            raise DataError(f"{place}: {shown(key)[1:-1]}: no such field; known: prompt, answer")
    question = raw["prompt"].rstrip() + "\n"
    return _item("own", question, raw["answer"].strip())


def leaks_in(path: Path) -> Iterator[tuple[int, Finding | None]]:
    """Yield the number of each line of a training text, and what it gives away.

    Raises:
        DataError: A line is not what it must be.
    """
    for number, _, line in numbered_lines(path, MAX_LINE_BYTES):
        if line.strip():
            raw = json_object(line, f"{path}, line {number}")
            # An exported text says more of its examples; the bare question stands in `question`.
            kept = {key: raw.get(key) for key in ("prompt", "answer")}
            kept["prompt"] = raw.get("question", kept["prompt"])
            item = _checked(kept, f"{path}, line {number}")
            yield number, find_leak(masked_text(item.question, item.answer, ()))
