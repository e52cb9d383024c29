"""Spelling: a word in, its letters in order out, one separator between them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from tuning.tasks.items import Item, Task, Template, trained


@dataclass(frozen=True, slots=True)
class Separator:
    """What stands between letters. It decides which letter tokens are trained: " a" is not "a"."""

    name: str
    text: str
    held_out: bool = False


SEPARATORS = (
    Separator("spaces", " "),
    Separator("commas", ", "),
    Separator("lines", "\n"),
    Separator("dashes", "-", held_out=True),
)

TEMPLATES = (
    Template("spell", "Spell the word {word}, letters separated by {separator}.\n"),
    Template("how", "How is {word} spelled? Use {separator} between the letters.\n"),
    Template("write", "Write the letters of {word} with {separator} in between.\n"),
    Template("apart", "Take {word} apart: one letter at a time, {separator} between.\n", True),
)

INVERSE_TEMPLATES = (
    Template("join", "Which word do these letters make: {letters}?\n"),
    Template("put", "Put the letters {letters} together to a word.\n"),
)

CARRIERS = (
    "I read about {word} today. ",
    "They talked of {word} again. ",
    "We found {word} in a book. ",
)

_TRAINED_TEMPLATES = trained(TEMPLATES)
_TRAINED_SEPARATORS = tuple(s for s in SEPARATORS if not s.held_out)
_BY_NAME = {t.name: t for t in TEMPLATES}
_SEPARATOR_BY_NAME = {s.name: s for s in SEPARATORS}
_INVERSE_NAMES = frozenset(t.name for t in INVERSE_TEMPLATES)

EVALUATION_VARIANTS = (("spell", "spaces"), ("write", "commas"), ("apart", "dashes"))
"""Template and separator of the three ways to ask for a word; the last is never trained."""


def spell(word: str, separator: str) -> str:
    """Return the letters of `word` with `separator` between them."""
    return separator.join(word)


def join(spelled: str, separator: str) -> str:
    """Return the word of a spelling; the inverse of `spell`."""
    return "".join(spelled.split(separator))


def spelling_item(
    word: str,
    template: Template,
    separator: Separator,
    *,
    written: str | None = None,
    quote: str = "",
    carrier: str = "",
) -> Item:
    """Return the item that asks for the letters of a word.

    Args:
        word: The word, lower-case.
        template: The wording.
        separator: What stands between the letters of the answer.
        written: The word as question and answer write it; by default as it is.
        quote: What stands around the word; a quote takes the leading space from it.
        carrier: A sentence put before the question.
    """
    written = word if written is None else written
    shown = f"{quote}{written}{quote}"
    return Item(
        task=Task.SPELLING,
        word=word,
        template=f"{template.name}/{separator.name}",
        question=carrier + template.fill(word=shown, separator=separator.name),
        answer=spell(written, separator.text),
        subjects=(word,),
    )


def evaluation_items(word: str) -> list[Item]:
    """Return the three items that ask for the spelling of `word`."""
    return [
        spelling_item(word, _BY_NAME[template], _SEPARATOR_BY_NAME[separator])
        for template, separator in EVALUATION_VARIANTS
    ]


def plain_item(word: str) -> Item:
    """Return the item used when augmentation is off: one template, spaces between letters."""
    return spelling_item(word, TEMPLATES[0], SEPARATORS[0])


INVERSE_SHARE = 0.15
CARRIER_SHARE = 0.1
QUOTED_SHARE = 0.1
CAPITAL_SHARE = 0.1


def augmented_item(
    word: str,
    rng: random.Random,
    templates: Sequence[Template] = _TRAINED_TEMPLATES,
    separators: Sequence[Separator] = _TRAINED_SEPARATORS,
) -> Item:
    """Return a spelling item in a random template, separator, form and direction.

    Args:
        word: The word to be spelled.
        rng: Source of the choice.
        templates: Templates to choose from; by default those that training may use.
        separators: Separators to choose from; by default those that training may use.
    """
    template = templates[int(rng.random() * len(templates))]
    separator = separators[int(rng.random() * len(separators))]
    kind = rng.random()
    if kind < INVERSE_SHARE:
        return inverse_item(word, separator, INVERSE_TEMPLATES[int(rng.random() * 2)])
    kind -= INVERSE_SHARE
    if kind < CARRIER_SHARE:
        carrier = CARRIERS[int(rng.random() * len(CARRIERS))].format(word=word)
        return spelling_item(word, template, separator, carrier=carrier)
    kind -= CARRIER_SHARE
    if kind < QUOTED_SHARE:
        return spelling_item(word, template, separator, quote='"')
    kind -= QUOTED_SHARE
    if kind < CAPITAL_SHARE:
        return spelling_item(word, template, separator, written=word.capitalize())
    return spelling_item(word, template, separator)


def inverse_item(word: str, separator: Separator, template: Template) -> Item:
    """Return the item that gives the letters and asks for the word."""
    return Item(
        task=Task.SPELLING,
        word=word,
        template=f"{template.name}/{separator.name}",
        question=template.fill(letters=spell(word, separator.text)),
        answer=word,
        subjects=(word,),
    )


def with_letters_of(item: Item, other: str) -> Item:
    """Return a spelling item whose answer has the letters of another word of the same length.

    Question, separator, case and direction stay: what is left to learn is the format.
    """
    assert len(other) == len(item.word)
    template, _, separator = item.template.partition("/")
    if template in _INVERSE_NAMES:
        answer = other
    else:
        written = other.capitalize() if item.answer[0].isupper() else other
        answer = spell(written, _SEPARATOR_BY_NAME[separator].text)
    return dataclasses.replace(item, answer=answer, subjects=(*item.subjects, other))
