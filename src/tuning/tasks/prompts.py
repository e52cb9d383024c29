"""Other ways to put the same items: with examples before the question, or with the spelling told.

Both are asked without any training. Four examples show how much is knowledge of the format; the
oracle, whose prompt holds the spelling, shows the most that knowing the letters could be worth.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from enum import StrEnum

from tuning.tasks import count, position, spelling
from tuning.tasks.items import Item, Task, Template
from tuning.tasks.probes import PROBES
from tuning.tasks.suite import SUITE_SEED, Suite
from tuning.tasks.words import keyed_rng

NUM_SHOTS = 4


class Prompting(StrEnum):
    """How items are put to a model."""

    ZERO_SHOT = "zero_shot"
    FOUR_SHOT = "four_shot"
    ORACLE = "oracle"


def prompted(suite: Suite, prompting: Prompting, words: Sequence[str]) -> Suite:
    """Return the suite with its items put in another way.

    Args:
        suite: Zero-shot items of our own templates.
        prompting: How to put them.
        words: Words that examples may show: of the training split.
    """
    if prompting is Prompting.ZERO_SHOT:
        return suite
    if prompting is Prompting.ORACLE:
        items = tuple(with_spelling(item) for item in suite.items)
    else:
        shots = {key: _shots(*key, words) for key in {(i.task, i.template) for i in suite.items}}
        items = tuple(
            dataclasses.replace(item, shots=shots[item.task, item.template]) for item in suite.items
        )
    return dataclasses.replace(suite, items=items)


def with_spelling(item: Item) -> Item:
    """Return the item with the spelling of its word told before the question."""
    told = f"{item.word} is spelled {spelling.spell(item.word, ' ')}.\n"
    return dataclasses.replace(item, question=told + item.question)


def _shots(task: str, template: str, words: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return questions and answers of other words in the template of an item.

    They are the same for all items of a template, so that a model reads them once.
    """
    rng = keyed_rng(SUITE_SEED, "shots", str(task), template)
    shots: list[tuple[str, str]] = []
    while len(shots) < NUM_SHOTS:
        word = words[int(rng.random() * len(words))]
        item = _shot(task, template, word, rng)
        shots.append((item.question, item.answer))
    return tuple(shots)


def _shot(task: str, template: str, word: str, rng: random.Random) -> Item:
    if task == Task.SPELLING:
        return next(i for i in spelling.evaluation_items(word) if i.template == template)
    if task == Task.POSITION:
        return position.random_item(word, rng, _named(position.TEMPLATES, template))
    if task == Task.COUNT:
        return count.random_item(word, rng, _named(count.TEMPLATES, template))
    probe = next(probe for probe in PROBES if probe.task == task)
    (wording,) = _named(probe.templates, template)
    return probe.ask(word, wording, rng)


def _named(templates: Sequence[Template], name: str) -> tuple[Template, ...]:
    return tuple(t for t in templates if t.name == name)
