"""Every wording that tasks can ask or train, with a letter in the place of the word.

A subset keeps the tokens of these texts whatever its rule. Which words it keeps is the rule's
affair: none is in here.
"""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Iterator

from tuning.tasks import count, position, replay, spelling
from tuning.tasks.items import REPEAT
from tuning.tasks.probes import PROBES
from tuning.tasks.suite import choices_of, probe_items
from tuning.tasks.words import MAX_LETTERS

Question = tuple[str, str]
"""A question and an answer in the right format."""

_WORD = "a"
_LETTERS = string.ascii_lowercase + "a"
"""Every letter after another one, the first too: a separator may be one token with what follows."""
_LARGEST_NUMBER = 98
"""Of replay's arithmetic."""


@functools.cache
def every_question() -> tuple[Question, ...]:
    """Return questions with answers that hold every token beside those of words, each once."""
    parts = (_spelling(), _inverse(), _position(), _count(), _probes(), _replay())
    return tuple(dict.fromkeys(itertools.chain(*parts)))


def _spelling() -> Iterator[Question]:
    carriers = ("", *(carrier.format(word=_WORD) for carrier in spelling.CARRIERS))
    for separator in spelling.SEPARATORS:
        for letters in (_LETTERS, _LETTERS.upper()):
            answer = spelling.spell(letters, separator.text)
            for template in spelling.TEMPLATES:
                for carrier, quote in itertools.product(carriers, ("", '"')):
                    word = f"{quote}{letters[0]}{quote}"
                    yield carrier + template.fill(word=word, separator=separator.name), answer


def _inverse() -> Iterator[Question]:
    for separator, template in itertools.product(spelling.SEPARATORS, spelling.INVERSE_TEMPLATES):
        letters = spelling.spell(_LETTERS, separator.text)
        yield template.fill(letters=letters), _WORD


def _position() -> Iterator[Question]:
    told = f"{_WORD} is spelled {spelling.spell(_LETTERS, ' ')}.\n"
    for template, n in itertools.product(position.TEMPLATES, range(1, MAX_LETTERS + 1)):
        question = template.fill(n=n, ordinal=position.ordinal(n), word=_WORD)
        yield question, string.ascii_lowercase[n - 1]
        yield told + question, string.ascii_lowercase[n - 1]


def _count() -> Iterator[Question]:
    for template, letter in itertools.product(count.TEMPLATES, string.ascii_lowercase):
        for times in range(10):
            yield template.fill(letter=letter, word=_WORD), str(times)


def _probes() -> Iterator[Question]:
    for probe in PROBES:
        for letter in string.ascii_lowercase:
            for item in probe_items(probe, letter):
                yield item.question, item.answer
                yield from ((item.question, choice) for choice in choices_of(probe.task))


def _replay() -> Iterator[Question]:
    for number in range(_LARGEST_NUMBER + 1):
        yield replay.ADD.fill(a=number, b=number), str(number)
        yield replay.SUBTRACT.fill(a=number, b=number), str(number)
    yield REPEAT.fill(phrase=_WORD), _WORD
    for noun, names in (("day", replay.DAYS), ("month", replay.MONTHS)):
        for name in names:
            yield replay.AFTER.fill(noun=noun, name=name), name
            yield replay.BEFORE.fill(noun=noun, name=name), name
