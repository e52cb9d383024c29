"""What all tasks share: an item, and the templates that turn it into a question.

A question is the bare instruction, ending in a line break; a chat model's tokenizer wraps it.
The answer is the exact text that the question asks for, without a space before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

CountTokens = Callable[[Sequence[str]], list[int]]
"""Number of tokens of each text."""


class Task(StrEnum):
    """What an item asks."""

    SPELLING = "spelling"
    POSITION = "position"
    COUNT = "count"
    REPLAY = "replay"


EVALUATED_TASKS = (Task.SPELLING, Task.POSITION, Task.COUNT)
TRANSFER_TASKS = (Task.POSITION, Task.COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question with its one right answer."""

    task: Task | str
    """One of ours; in a user's own suite any name."""
    word: str
    template: str
    """Name of the template, which also names the separator or form where there are several."""
    question: str
    answer: str
    n: int | None = None
    """Position items: the 1-based position asked for."""
    letter: str | None = None
    """Count items: the letter counted. Position items: the letter that is right."""
    stratum: str = ""
    """Position: first, interior or last. Count: long (classes 0 to 3+) or short (0 to 2)."""
    subjects: tuple[str, ...] = ()
    """Every word that the item is about: spelled, joined, asked about, or repeated."""
    targets: tuple[str, ...] = ()
    """Other answers that are right too."""
    shots: tuple[tuple[str, str], ...] = ()
    """Questions with answers that stand before this one."""


@dataclass(frozen=True, slots=True)
class Template:
    """A wording of a question."""

    name: str
    text: str
    held_out: bool = False
    """Never used in training, only in evaluation."""

    def fill(self, **values: object) -> str:
        """Return the question."""
        return self.text.format(**values)


REPEAT = Template("repeat", "Repeat this: {phrase}.\n")
"""Asks to repeat words; the one template of replay that holds words of a list."""


def trained(templates: Sequence[Template]) -> tuple[Template, ...]:
    """Return the templates that training may use."""
    return tuple(template for template in templates if not template.held_out)
