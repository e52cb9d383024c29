"""What kinds of token a vocabulary holds, and how many of each; judged on bytes."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

from tuning.tokens.subset import SubsetRule, chosen_by
from tuning.tokens.vocabulary import Vocabulary


class Category(StrEnum):
    """One kind of token; every token has exactly one. The order is that of tables and figures."""

    SPACED_LETTERS = "letters after a space"
    """One space, then a-z A-Z alone."""
    LETTERS = "letters"
    """a-z A-Z alone."""
    MIXED = "letters with signs"
    """a-z A-Z beside punctuation, symbols or white space, as code has them."""
    DIGITS = "digits"
    """Numerals of any script."""
    PUNCTUATION = "punctuation and symbols"
    """With or without white space around it."""
    BLANK = "white space and control"
    LATIN = "other Latin"
    """At least one letter is not a-z A-Z: é, ß, ł."""
    CJK = "Chinese, Japanese, Korean"
    CYRILLIC = "Cyrillic"
    OTHER_SCRIPTS = "other scripts"
    """Arabic, Hebrew, Thai, Greek and all others, and letters of mathematics."""
    NOT_WHOLE = "no whole characters"
    """Not valid UTF-8 alone: a part of a character."""
    ADDED = "added"
    """Control tokens of chats, tools and code."""


_ASCII = (
    (Category.SPACED_LETTERS, re.compile(r" [A-Za-z]+")),
    (Category.LETTERS, re.compile(r"[A-Za-z]+")),
    (Category.DIGITS, re.compile(r" ?[0-9]+")),
    (Category.BLANK, re.compile(r"[\x00-\x20\x7f]+")),
    (Category.MIXED, re.compile(r".*[A-Za-z].*", re.DOTALL)),
)
"""The first that fits all of a token; what is left is punctuation."""

_SCRIPTS = {
    "LATIN": Category.LATIN,
    "CYRILLIC": Category.CYRILLIC,
    **dict.fromkeys(
        ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"),
        Category.CJK,
    ),
}


def category_of(token: bytes) -> Category:
    """Return the kind of a base token."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return Category.NOT_WHOLE
    if text.isascii():
        return next((c for c, fits in _ASCII if fits.fullmatch(text)), Category.PUNCTUATION)
    kinds = {_kind(character) for character in text}
    foreign = (_kind(c) for c in text if not c.isascii())
    scripts = [kind for kind in foreign if kind in _FOREIGN_SCRIPTS]
    if scripts:
        return scripts[0]
    by_weight = (Category.LETTERS, Category.PUNCTUATION, Category.DIGITS, Category.BLANK)
    found = next(kind for kind in by_weight if kind in kinds)
    return Category.MIXED if found is Category.LETTERS else found


_FOREIGN_SCRIPTS = frozenset(
    {Category.LATIN, Category.CJK, Category.CYRILLIC, Category.OTHER_SCRIPTS}
)


@functools.cache
def _kind(character: str) -> Category:
    """Return what one character is by Unicode."""
    general = unicodedata.category(character)[0]
    if general in "LM":
        if character.isascii():
            return Category.LETTERS
        script = unicodedata.name(character, "").partition(" ")[0]
        return _SCRIPTS.get(script, Category.OTHER_SCRIPTS)
    kinds = {"N": Category.DIGITS, "P": Category.PUNCTUATION, "S": Category.PUNCTUATION}
    return kinds.get(general, Category.BLANK)


def categories_of(vocabulary: Vocabulary) -> dict[int, Category]:
    """Return the kind of every token, base and added, by id."""
    of_base = {token: category_of(content) for token, content in vocabulary.base.items()}
    return {**of_base, **dict.fromkeys(vocabulary.added_by_id, Category.ADDED)}


def counted(found: Iterable[Category]) -> dict[Category, int]:
    """Return how often each category was found, in the order of categories."""
    counts = Counter(found)
    return {category: counts[category] for category in Category}


class Counts(NamedTuple):
    """How many base tokens are what."""

    by_rule: Mapping[SubsetRule, int]
    """Chosen by each rule for English tokens, without what prompts need beside it."""
    with_leading_space: int
    """Of those of the rule `letters`."""
    not_utf8: int
    """Not valid UTF-8 alone."""
    raw_strings_ascii: int
    """Whose *vocabulary string* is ASCII and does not begin with "<": what a judgement of raw
    strings takes for English. All tokens with a leading space are missed by it."""


def counts_of(vocabulary: Vocabulary, categories: Mapping[int, Category]) -> Counts:
    """Count the base tokens by every rule, and by the judgement of raw strings.

    Args:
        vocabulary: The tokens.
        categories: Of each of them, from `categories_of`.
    """
    found = counted(categories.values())
    raw = vocabulary.strings.values()
    return Counts(
        by_rule={rule: len(chosen_by(rule, vocabulary)) for rule in SubsetRule},
        with_leading_space=found[Category.SPACED_LETTERS],
        not_utf8=found[Category.NOT_WHOLE],
        raw_strings_ascii=sum(string.isascii() and not string.startswith("<") for string in raw),
    )
