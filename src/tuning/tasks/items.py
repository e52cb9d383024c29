"""What all tasks share: an item, and the templates that turn it into a question.

A question is the bare instruction, ending in a line break; a chat model's tokenizer wraps it.
The answer is the exact text that the question asks for, without a space before it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping, Sequence
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


class AnswerKind(StrEnum):
    """What kind of text answers a task: it decides how answers are read and guessed."""

    SPELLED = "spelled"
    """The letters of a word, one by one."""
    LETTER = "letter"
    NUMBER = "number"
    TEXT = "text"


SCORED_TASKS = (Task.SPELLING, Task.POSITION, Task.COUNT)
"""Those that the score is made of."""
TRANSFER_TASKS = (Task.POSITION, Task.COUNT)
"""Those of the score that are never trained."""
EVALUATED_TASKS = tuple(task for task in Task if task is not Task.REPLAY)
"""Those that every model is asked: the scored ones, then probes (`tasks/probes.py`)."""

_ANSWER_KINDS: Mapping[str, AnswerKind] = {
    Task.SPELLING: AnswerKind.SPELLED,
    Task.POSITION: AnswerKind.LETTER,
    Task.COUNT: AnswerKind.NUMBER,
}


def answer_kind(task: str) -> AnswerKind:
    """Return what answers a task; any text for a task that is not ours."""
    return _ANSWER_KINDS.get(task, AnswerKind.TEXT)


def tasks_in(names: Container[str]) -> list[Task]:
    """Return the evaluated tasks that occur among names: older results lack a newer probe."""
    return [task for task in EVALUATED_TASKS if task.value in names]


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
    """Where the answer is one letter: its 1-based position."""
    letter: str | None = None
    """Count items: the letter counted. Where the answer is one letter: that one."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """A task that is only evaluated; listed in `tasks/probes.py`."""

    task: Task
    templates: tuple[Template, ...]
    """Wordings of its question; each word is asked about in all of them."""
    ask: Callable[[str, Template, random.Random], Item]
    """Return the item about a word in one wording; what it draws is the same in each."""


REPEAT = Template("repeat", "Repeat this: {phrase}.\n")
"""Asks to repeat words; the one template of replay that holds words of a list."""


def trained(templates: Sequence[Template]) -> tuple[Template, ...]:
    """Return the templates that training may use."""
    return tuple(template for template in templates if not template.held_out)
