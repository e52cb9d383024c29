"""The English part of a vocabulary: named rules over the bytes of tokens.

A rule chooses base tokens. Whatever the rule, a subset also keeps what tasks and prompts need:
digits, the separators of spellings, the control tokens of chats, and the tokens of every wording.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from tuning.errors import NotFoundError, nearest, shown
from tuning.files import sha256_of_json
from tuning.tasks.spelling import SEPARATORS
from tuning.tokens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class SubsetRule(StrEnum):
    """Which base tokens count as English; judged on a token's bytes."""

    LETTERS = "letters"
    """One space or none, then letters a-z A-Z alone."""
    PRINTABLE = "printable"
    """Printable ASCII alone, the space included: 0x20 to 0x7E."""
    ASCII = "ascii"
    """ASCII alone, line breaks and other control characters included."""
    DICTIONARY = "dictionary"
    """As `letters`, and the letters are a word that is frequent enough."""

    @property
    def says(self) -> str:
        """What the rule keeps, in words."""
        return {
            SubsetRule.LETTERS: "an optional leading space, then a-z A-Z only",
            SubsetRule.PRINTABLE: "printable ASCII only (0x20 to 0x7E)",
            SubsetRule.ASCII: "ASCII only, control characters included",
            SubsetRule.DICTIONARY: f"as letters, and a word of wordfreq at Zipf frequency "
            f"{MIN_ZIPF_FREQUENCY:g} or more",
        }[self]

    @property
    def keeps_all_words(self) -> bool:
        """Whether every word a-z can still be written.

        Its pieces are letters, whatever the cut, or the lone space that stands before some words,
        which every subset keeps.
        """
        return self is not SubsetRule.DICTIONARY

    @classmethod
    def named(cls, name: str) -> SubsetRule:
        """Return a rule by its name.

        Raises:
            NotFoundError: There is none of that name.
        """
        if name not in list(cls):
            raise NotFoundError(f"no subset rule is called {shown(name)}; {nearest(name, cls)}")
        return cls(name)


MIN_ZIPF_FREQUENCY = 3.0
"""Of a word of the dictionary rule: once in a million words, on wordfreq's Zipf scale."""

_LETTERS = re.compile(rb" ?[A-Za-z]+")
_PRINTABLE = re.compile(rb"[ -~]+")
_ASCII = re.compile(rb"[\x00-\x7f]+")
ROWS_MULTIPLE = 8
"""Matrix kernels read rows in blocks: with 69,003 of them a head took 1.3 times as long as with
69,008. Other added tokens fill the last block."""

_DIGITS = re.compile(rb" ?[0-9]+")


@functools.cache
def _frequent_words() -> frozenset[str]:
    from wordfreq import get_frequency_dict

    # Zipf frequency: the base-10 logarithm of occurrences in 10^9 words.
    least = 10 ** (MIN_ZIPF_FREQUENCY - 9)
    return frozenset(w for w, f in get_frequency_dict("en").items() if f >= least)


def _in_dictionary(token: bytes) -> bool:
    return _LETTERS.fullmatch(token) is not None and (
        token.decode("ascii").strip().lower() in _frequent_words()
    )


_ACCEPTS: Mapping[SubsetRule, Callable[[bytes], object]] = {
    SubsetRule.LETTERS: _LETTERS.fullmatch,
    SubsetRule.PRINTABLE: _PRINTABLE.fullmatch,
    SubsetRule.ASCII: _ASCII.fullmatch,
    SubsetRule.DICTIONARY: _in_dictionary,
}


def accepts(rule: SubsetRule, token: bytes) -> bool:
    """Tell whether a rule keeps a base token with these bytes."""
    return bool(_ACCEPTS[rule](token))


def chosen_by(rule: SubsetRule, vocabulary: Vocabulary) -> list[int]:
    """Return the ids of the base tokens that a rule chooses, in order."""
    return [token for token, content in vocabulary.base.items() if accepts(rule, content)]


@dataclass(frozen=True)
class Subset:
    """The tokens that a rule keeps of one vocabulary."""

    rule: SubsetRule
    ids: tuple[int, ...]
    """All that is kept, in order; the row of a token in a sliced model is its place here."""
    counts: Mapping[str, int]
    """How many are kept for which reason, each token under the first that holds: rule, digits,
    separators, control, prompts, padding."""

    @functools.cached_property
    def hash(self) -> str:
        """Fingerprint of the kept ids, 64 hex digits."""
        return sha256_of_json(list(self.ids))


def subset_of(
    vocabulary: Vocabulary,
    backend: Tokenizer,
    rule: SubsetRule,
    control: Iterable[int],
    texts: Iterable[str],
    has: Callable[[int], bool] = lambda token: True,
) -> Subset:
    """Return what a rule keeps, and what prompts need beside it.

    Args:
        vocabulary: The tokens of `backend`.
        backend: The tokenizer.
        rule: Which base tokens count as English.
        control: Added tokens that end answers; those within `texts` are kept as well.
        texts: Every prompt and answer that tasks can ask, filled with example words.
        has: Whether the model has a row for a token; by default for all.
    """
    encoded = backend.encode_batch([*texts], add_special_tokens=False)
    in_texts = {token for text in encoded for token in text.ids}
    separators = backend.encode_batch([s.text for s in SEPARATORS], add_special_tokens=False)
    reasons: dict[str, Iterable[int]] = {
        "rule": chosen_by(rule, vocabulary),
        "digits": [t for t, content in vocabulary.base.items() if _DIGITS.fullmatch(content)],
        "separators": [token for text in separators for token in text.ids],
        "control": [*control, *(in_texts & vocabulary.added_by_id.keys())],
        "prompts": in_texts,
    }
    kept: set[int] = set()
    counts = {}
    for reason, ids in reasons.items():
        before = len(kept)
        kept.update(filter(has, ids))
        counts[reason] = len(kept) - before
    others = (t for t in (*vocabulary.added_by_id, *vocabulary.base) if t not in kept and has(t))
    padding = list(itertools.islice(others, -len(kept) % ROWS_MULTIPLE))
    kept.update(padding)
    counts["padding"] = len(padding)
    return Subset(rule=rule, ids=tuple(sorted(kept)), counts=counts)
