"""The leak scanner: reads the final training text and refuses what would teach the transfer tasks.

A training on spelling may show letters in their order and nothing else: not where a letter stands,
how often it occurs, how long a word is, whether it holds a letter, nor letters with numbers.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tuning.errors import LeakError
from tuning.tasks import spelling
from tuning.tasks.items import REPEAT, Item


class Leak(StrEnum):
    """What a text gives away."""

    POSITION = "position"
    INDEX = "index"
    COUNT = "count"
    LENGTH = "length"
    CONTAINS = "contains"
    NUMBERED = "numbered letters"


_LETTER = r"(?:letters?|lettered|characters?|chars?|vowels?|consonants?|alphabets?)"
_ORDINAL = (
    r"(?:\d+\s?(?:st|nd|rd|th)|first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth"
    r"|eleventh|twelfth|last|final|middle|initial|penultimate|next[- ]to[- ]last|n-?th)"
)
_NUMBER = (
    r"(?:\d+|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|once|twice|thrice)"
)
# A letter that stands alone. `a` and `i` are words too, and are letters only where no word would
# stand: after `an` or `no`, and `a` also at an end or before what no article stands before.
_ANY_LETTER = r"(?:(?<![\w'])[a-z](?![\w'…]))"
_LONE_LETTER = (
    r"(?:(?<![\w'])(?:[b-hj-z]|(?<=\ban )[ai]|(?<=\bno )[ai]|i(?= (?:in|is)\b)"
    r"|a(?=$|[.?!,;:)]| (?:in|is|and|or|of|at|among|comes?|stands?|before|after|follow\w*"
    r"|precede\w*|once|twice|thrice|\w+ times)\b))(?![\w'…]))"
)
_VERB = r"(?:occurs?|appears?|(?:is|are) (?:used|found|present)|shows? up|repeats?|comes? up)"
_USED = r"(?:used|found|present|written|there)"
_PLACE = r"(?:position|place|slot|spot)"

_PATTERNS: tuple[tuple[Leak, str], ...] = (
    (Leak.NUMBERED, rf"(?<!\w)\d+ ?[.:)=\-] ?{_ANY_LETTER}"),
    (Leak.NUMBERED, r"(?<!\w)[a-z] ?[:=(\-] ?\d+"),
    (Leak.NUMBERED, r"(?<!\w)[a-z] ?\d+(?:[ ,;-]+[a-z] ?\d+)+(?!\w)"),
    (Leak.NUMBERED, r"(?<!\w)\d+ ?[a-z](?:[ ,;-]+\d+ ?[a-z])+(?!\w)"),
    (Leak.NUMBERED, r"(?<!\w)(?:[a-z]\d){2,}"),
    (Leak.NUMBERED, rf"\b{_NUMBER} (?:is|=) {_LONE_LETTER}"),
    (Leak.INDEX, r"\b(?:index|indices|offset)\b"),
    (Leak.INDEX, r"\w ?\[ ?-?\d+ ?\]"),
    (Leak.LENGTH, r"\blength\b|\blen ?\("),
    (
        Leak.LENGTH,
        r"\bhow long (?:is|are) (?:[^.?!]*\b(?:words?|names?)\b"
        rf"|[^.?!]*[.?!]+ (?:\d{{1,2}}|{_NUMBER})$)",
    ),
    (Leak.LENGTH, rf"\bsize of (?:the )?word\b|^(?:size of )?[a-z]{{2,}}[?.:=]* {_NUMBER}$"),
    (Leak.LENGTH, r"\b(?:longer|longest|shorter|shortest) words?\b"),
    (Leak.LENGTH, rf"\b{_NUMBER}[- ]{_LETTER}\b|\bnumber of {_LETTER}\b"),
    (Leak.LENGTH, r"\bhow many (?:letters|characters|chars)\b"),
    (Leak.COUNT, rf"\bhow (?:many|often)\b[^.?!]*(?:\b{_LETTER}\b|{_ANY_LETTER} {_VERB})"),
    (Leak.COUNT, rf"\bhow (?:many|often)\b[^.?!]*{_ANY_LETTER} {_USED}\b"),
    (Leak.COUNT, rf"\b(?:count|tally|number|frequency|occurrences?)\b[^.?!]*\b{_LETTER}\b"),
    (Leak.COUNT, rf"\b{_LETTER}\b[^.?!]*\b(?:{_VERB}|{_NUMBER} times?|count)\b"),
    (Leak.COUNT, rf"{_ANY_LETTER} {_VERB}\b"),
    (Leak.COUNT, rf"\b(?:has|have|are) {_NUMBER} [a-z]s?(?!\w)"),
    (Leak.COUNT, r"(?<![\w'])[a-z]'s(?!\w)"),
    (Leak.COUNT, rf"[:,/|] ?[a-z][?.]? {_NUMBER}$"),
    (Leak.COUNT, r" ([a-z])\1+$"),
    (Leak.CONTAINS, rf"\b(?:contain|includ)\w*\b[^.?!]*(?:\b{_LETTER}\b|{_LONE_LETTER})"),
    (Leak.CONTAINS, rf"\b(?:is|are) there (?:an? |any |no )?(?:{_LETTER}\b|{_LONE_LETTER})"),
    (Leak.CONTAINS, rf"\b(?:has|have|with|without) (?:an? |the )?(?:{_LETTER}\b|{_LONE_LETTER})"),
    (Leak.CONTAINS, rf"{_LONE_LETTER} (?:in|part of|among)\b"),
    (Leak.POSITION, rf"\b{_ORDINAL}(?:[- ](?!{_LETTER})\w+)?[- ]{_LETTER}\b"),
    (Leak.POSITION, rf"\b{_LETTER} ?(?:number |no\.? |nr\.? |#)? ?{_NUMBER}\b"),
    (Leak.POSITION, rf"\b{_LETTER}\b[^.?!]*\b{_PLACE}\b"),
    (Leak.POSITION, rf"\b{_PLACE} (?:number )?(?:{_NUMBER}|{_ORDINAL})\b"),
    (Leak.POSITION, rf"\b{_ORDINAL} {_PLACE}\b"),
    # What is left that speaks of letters, or shows one: where it stands, more often than not.
    (Leak.POSITION, rf"\b{_LETTER}\b"),
    (Leak.POSITION, _LONE_LETTER),
    # Letters of other scripts that look like ours.
    (Leak.POSITION, r"(?<!\w)[\u0370-\u04ff](?!\w)"),
    (Leak.POSITION, r"\b(?:prefix|suffix|backwards?|revers\w+|anagrams?|palindromes?)\b"),
    (Leak.POSITION, r"\w ?\[ ?-?\d* ?: ?-?\d* ?\]"),
    # A spelling outside our own forms.
    (Leak.POSITION, r"(?<!\w)[a-z]…"),
)
_COMPILED = tuple((leak, re.compile(p)) for leak, p in _PATTERNS)
_QUOTES = re.compile(r"[\"`“”„*_]|(?<![a-z])['‘’]|['‘’](?![a-z])")
_ABBREVIATION = re.compile(r"(?<![\w'])(?:[a-z]\.){2,}", re.IGNORECASE)

MASK = "something"
OWN_FORM = "a question of ours that is answered by a spelling, or by repeating words"
"""Stands for the whole text of an example that has such a form."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Where a text gives something away."""

    leak: Leak
    text: str
    """The words that do."""


@functools.lru_cache(maxsize=2**16)
def find_leak(text: str) -> Finding | None:
    """Return the first leak in a text, or None.

    A question of ours about spelling, answered by one, is what training is for. Every other text
    may not so much as speak of letters, or show one that stands alone. That refuses some that
    are harmless; none that is not should pass.

    Args:
        text: A question and its answer as `masked_text` gives them: what is left is mostly the
            wording of templates, so that few texts are ever searched.
    """
    if text == OWN_FORM:
        return None
    plain = _QUOTES.sub("", " ".join(text.lower().replace("’", "'").split()))
    for leak, pattern in _COMPILED:
        match = pattern.search(plain)
        if match:
            return Finding(leak, match.group(0).strip())
    return None


@functools.cache
def _spelling_forms() -> re.Pattern[str]:
    """Return the pattern of our spelling questions with their answers, spellings collapsed."""
    word, letters = r'"?[A-Za-z]+"?', "[A-Za-z]…"
    carriers = "|".join(_as_pattern(c, word=word) for c in spelling.CARRIERS)
    separators = "|".join(s.name for s in spelling.SEPARATORS)
    spelled = "|".join(
        _as_pattern(t.text.rstrip(), word=word, separator=f"(?:{separators})")
        for t in spelling.TEMPLATES
    )
    joined = "|".join(
        _as_pattern(t.text.rstrip(), letters=letters) for t in spelling.INVERSE_TEMPLATES
    )
    return re.compile(rf"(?:{carriers})?(?:{spelled})\n{letters}|(?:{joined})\n[A-Za-z]+")


def _as_pattern(text: str, **values: str) -> str:
    parts = re.split(r"\{(\w+)\}", text)
    return "".join(values[p] if i % 2 else re.escape(p) for i, p in enumerate(parts))


_SPELLED = re.compile(r"(?<![^\W_])([a-z])(?:[^\w]{1,3}[a-z](?![^\W_])){2,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]{2,}")


def masked_text(question: str, answer: str, subjects: Sequence[str]) -> str:
    """Return the text of an example as the scanner reads it.

    Of three letters and more in a row, the first stands for all: a spelling is what training may
    show. Elsewhere subject words are replaced wherever they stand whole, unless they are words for
    letters themselves.
    """
    text = unicodedata.normalize("NFKC", f"{question.rstrip()}\n{answer}")
    text = _ABBREVIATION.sub("", text)
    text = _SPELLED.sub(r"\1…", text)
    phrase = " ".join(subjects)
    repeated = REPEAT.fill(phrase=phrase) + phrase
    if _spelling_forms().fullmatch(text) or (subjects and text == repeated):
        return OWN_FORM
    masked = {word for word in subjects if not re.fullmatch(_LETTER, word)}
    if not masked:
        return text
    return _WORD.sub(lambda m: MASK if m.group().lower() in masked else m.group(), text)


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
            f"{item.answer[:80]!r}; reword it or leave it out"
        )
