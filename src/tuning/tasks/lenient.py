"""The lenient reading: what an answer means, whatever its form. Needs generated text.

strict asks whether the text is the gold answer; this asks whether it holds it. A model that gains
only in strict has learned the format.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz.distance import Levenshtein

from tuning.tasks.items import AnswerKind, Item, answer_kind


class Outcome(StrEnum):
    """What came of an answer."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSEABLE = "unparseable"
    """No letter, number or spelling is in it; also wrong, and counted apart."""


@dataclass(frozen=True, slots=True)
class LenientReading:
    """An answer with what was read from it."""

    text: str
    """The raw output, up to the end token."""
    extracted: str | None
    """The letter, number or word that was found in it."""
    outcome: Outcome
    character_error_rate: float | None = None
    """Spelling: edits from the letters found to those of the word, over the word's length."""
    length_error: int | None = None
    """Spelling: letters found less letters of the word."""


NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen".split()
    )
} | {"once": "1", "twice": "2", "thrice": "3", "none": "0", "never": "0"}

_NUMBER = re.compile(rf"\d+|\b(?:{'|'.join(NUMBER_WORDS)})\b", re.IGNORECASE)
# What an apostrophe cuts off ("that's", "isn't") is no letter.
_ALONE = r"(?<![^\W_])(?<![^\W_]['’])"
_LONE_LETTER = re.compile(rf"{_ALONE}[a-z](?![^\W_])", re.IGNORECASE)
_SPELLED = re.compile(rf"{_ALONE}[a-z](?:[^a-z0-9]{{1,4}}[a-z](?![a-z0-9]))+", re.IGNORECASE)


def read_leniently(item: Item, text: str) -> LenientReading:
    """Return what an answer says, by the kind of answer that its task has.

    A letter: the last one that stands alone. A number: the last number or number word. A spelling:
    the longest run of letters that stand apart from each other; a word that is merely repeated is
    not spelled. Any text: itself without case, outer space and full stop.

    Args:
        item: What was asked.
        text: What was answered, up to the end token.
    """
    kind = answer_kind(item.task)
    if kind is AnswerKind.SPELLED:
        return _read_spelling(item, text)
    extracted = _extracted(kind, text)
    if extracted is None:
        return LenientReading(text, None, Outcome.UNPARSEABLE)
    right = {_normal(answer) for answer in (item.answer, *item.targets)}
    outcome = Outcome.CORRECT if extracted in right else Outcome.WRONG
    return LenientReading(text, extracted, outcome)


def _extracted(kind: AnswerKind, text: str) -> str | None:
    if kind is AnswerKind.LETTER:
        letters = _LONE_LETTER.findall(text)
        return letters[-1].lower() if letters else None
    if kind is AnswerKind.NUMBER:
        numbers = _NUMBER.findall(text)
        if not numbers:
            return None
        last = numbers[-1].lower()
        return NUMBER_WORDS.get(last) or last.lstrip("0") or "0"
    return _normal(text) or None


def _normal(text: str) -> str:
    return text.strip().rstrip(".").strip().strip("\"'").lower()


def spelled_letters(text: str) -> str | None:
    """Return the letters of the longest run of letters that stand apart, or None."""
    runs = [re.sub(r"[^a-z]", "", run.lower()) for run in _SPELLED.findall(text)]
    return max(runs, key=len) if runs else None


def _read_spelling(item: Item, text: str) -> LenientReading:
    letters = spelled_letters(text)
    found = letters or ""
    right = [re.sub(r"[^a-z]", "", answer.lower()) for answer in (item.answer, *item.targets)]
    # Of several right answers, the errors are those against the nearest.
    gold = min(right, key=lambda word: Levenshtein.distance(found, word))
    if letters is None:
        outcome = Outcome.UNPARSEABLE
    else:
        outcome = Outcome.CORRECT if letters == gold else Outcome.WRONG
    return LenientReading(
        text,
        letters,
        outcome,
        character_error_rate=Levenshtein.distance(found, gold) / max(1, len(gold)),
        length_error=len(found) - len(gold),
    )
