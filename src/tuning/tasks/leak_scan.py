"""The leak scanner: reads the final training text and refuses what would teach the transfer tasks.

A training on spelling may show letters in their order and nothing else: not where a letter stands,
how often it occurs, how long a word is, whether it holds a letter, nor letters with numbers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tuning.errors import LeakError
from tuning.tasks.items import Item


class Leak(StrEnum):
    """What a text gives away."""

    POSITION = "position"
    INDEX = "index"
    COUNT = "count"
    LENGTH = "length"
    CONTAINS = "contains"
    NUMBERED = "numbered letters"


_LETTER = r"(?:letters?|characters?|chars?|vowels?|consonants?|alphabets?)"
_ORDINAL = (
    r"(?:\d+\s*(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
    r"|eleventh|twelfth|last|final|middle|initial|penultimate|next[- ]to[- ]last|n-?th)"
)
_NUMBER = (
    r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice|thrice)"
)
_ONE_LETTER = r"""(?:["'`“‘]?(?<![\w'])[a-z](?![\w'])["'`”’]?)"""
_VERB = r"(?:occurs?|appears?|(?:is|are) (?:used|found|present)|show(?:s|ing)? up|repeats?|come up)"

_PATTERNS: tuple[tuple[Leak, str], ...] = (
    (Leak.POSITION, rf"\b{_ORDINAL}(?:[- ]\w+)?[- ]{_LETTER}\b"),
    (Leak.POSITION, rf"\b{_LETTER}\s*(?:number|no\.?|nr\.?|#)\s*{_NUMBER}"),
    (Leak.POSITION, rf"\b{_LETTER}\b[^.?!]*\b(?:position|place|slot|spot)\b"),
    (Leak.POSITION, rf"\b(?:position|place|slot|spot)\s*(?:number\s*)?(?:{_NUMBER}|{_ORDINAL})\b"),
    (Leak.POSITION, rf"\b{_ORDINAL}\s+(?:position|place|slot|spot)\b"),
    (
        Leak.POSITION,
        rf"\b(?:starts?|begins?|ends?)\s+(?:with|in|on)\b.*{_LETTER}|"
        rf"\b(?:starts?|begins?|ends?)\s+(?:with|in|on)\s+{_ONE_LETTER}",
    ),
    (Leak.POSITION, rf"\b{_LETTER}\b[^.?!]*\b(?:before|after|follows|precedes)\b"),
    (Leak.INDEX, r"\b(?:index|indices|offset)\b"),
    (Leak.INDEX, r"\w\[\s*-?\d+\s*\]"),
    (Leak.COUNT, rf"\bhow (?:many|often)\b.*\b(?:{_LETTER}|times|{_VERB})"),
    (Leak.COUNT, rf"\bhow (?:many|often)\b[^.?!]*{_ONE_LETTER}"),
    (Leak.COUNT, rf"\b(?:count|tally|number|frequency|occurrences?)\b[^.?!]*\b{_LETTER}\b"),
    (Leak.COUNT, rf"\b{_LETTER}\b[^.?!]*\b(?:{_VERB}|{_NUMBER}\s+times?|count)\b"),
    (Leak.COUNT, rf"\bcount\s+(?:the\s+)?(?:{_ONE_LETTER}|\w'?s\b)"),
    (Leak.COUNT, rf"\b{_NUMBER}\s+(?:times\s+)?(?:{_LETTER}|{_ONE_LETTER}'?s)\b"),
    (Leak.COUNT, rf"{_ONE_LETTER}\s+(?:{_VERB})"),
    (Leak.LENGTH, r"\b(?:length|size)\s+of\b|\bhow long\b|\blen\s*\("),
    (Leak.LENGTH, rf"\b{_NUMBER}[- ]{_LETTER}\b|\bnumber of {_LETTER}\b"),
    (
        Leak.CONTAINS,
        rf"\b(?:contain|includ|hold)(?:s|e|es|ed|ing)?\b[^.?!]*"
        rf"(?:\b{_LETTER}\b|{_ONE_LETTER})",
    ),
    (Leak.CONTAINS, rf"\b(?:is|are) there (?:an? |any )?(?:\b{_LETTER}\b|{_ONE_LETTER})"),
    (Leak.CONTAINS, rf"\b(?:has|have|with|without)\s+(?:an?|the)?\s*{_LETTER}\s+{_ONE_LETTER}"),
    (Leak.CONTAINS, rf"\b{_LETTER}\s+{_ONE_LETTER}\s+(?:in|part of|among)\b"),
    (Leak.CONTAINS, rf"{_ONE_LETTER}\s+(?:in|part of|among)\s+\w{{3,}}"),
    (Leak.NUMBERED, rf"(?<!\w)\d+\s*[.:)=\-]\s*{_ONE_LETTER}"),
    (Leak.NUMBERED, r"(?<!\w)[a-z]\s*[:=(\-]\s*\d+"),
    (Leak.NUMBERED, r"(?<!\w)[a-z]\d+(?:[\s,;-]+[a-z]\d+)+"),
    (Leak.NUMBERED, r"(?<!\w)\d+\s?[a-z](?:[\s,;-]+\d+\s?[a-z])+(?!\w)"),
    (Leak.NUMBERED, rf"\b{_NUMBER}\s+(?:is|=)\s+{_ONE_LETTER}(?!\w)"),
)
_COMPILED = tuple((leak, re.compile(p, re.IGNORECASE | re.DOTALL)) for leak, p in _PATTERNS)
# Nearly every example is clean: one search over all patterns is enough to say so.
_ANY = re.compile("|".join(f"(?:{p})" for _, p in _PATTERNS), re.IGNORECASE | re.DOTALL)

MASK = "something"


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a text gives something away."""

    leak: Leak
    text: str
    """The words that do."""


@functools.lru_cache(maxsize=2**16)
def find_leak(text: str) -> Finding | None:
    """Return the first leak in a text, or None.

    Args:
        text: A question and its answer as `masked_text` gives them: what is left is mostly the
            wording of templates, so that few texts are ever searched.
    """
    if not _ANY.search(text):
        return None
    for leak, pattern in _COMPILED:
        match = pattern.search(text)
        if match:
            return Finding(leak, match.group(0).strip())
    return None


_SPELLED = re.compile(r"(?<![^\W_])([a-z])(?:[^\w]{1,3}[a-z](?![^\W_])){2,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]{2,}")


def masked_text(question: str, answer: str, subjects: Sequence[str]) -> str:
    """Return the text of an example as the scanner reads it.

    Subject words are replaced, wherever they stand whole: the word `index` may be spelled. Of three
    letters and more in a row, the first stands for all: a spelling is what training may show.
    """
    text = _SPELLED.sub(r"\1…", f"{question.rstrip()}\n{answer}")
    if not subjects:
        return text
    return _WORD.sub(lambda m: MASK if m.group().lower() in subjects else m.group(), text)


def check_item(item: Item) -> None:
    """Refuse a training example that gives away more than the order of letters.

    Raises:
        LeakError: It does; the message says what, and shows the text.
    """
    finding = find_leak(masked_text(item.question, item.answer, item.subjects))
    if finding is not None:
        raise LeakError(
            f"a training text must not teach the transfer tasks, but this one holds "
            f"{finding.leak} content ({finding.text!r}): {item.question.strip()[:160]!r} -> "
            f"{item.answer[:80]!r}"
        )


def check_items(items: Iterable[Item]) -> int:
    """Check all items and return how many there were.

    Raises:
        LeakError: One of them leaks.
    """
    count = 0
    for item in items:
        check_item(item)
        count += 1
    return count
