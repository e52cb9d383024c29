"""How a tokenizer cuts words: any list, in three forms, as one table.

Token counts depend on the form: "strawberry" is three tokens, " strawberry" one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.words import WORDFREQ_DEPTH, stems
from tuning.tokens.vocabulary import Vocabulary, string_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Shapes: W words, T tokens of all words one after the other.

OnForm = Callable[[str], None]
"""Told which form is being cut."""


class Form(StrEnum):
    """In which form a word stands in a text."""

    SPACED = "spaced"
    """After a space, as within a sentence; the form of all counts that have no form named."""
    BARE = "bare"
    """At the beginning of a text, or after a quotation mark."""
    CAPITALISED = "capitalised"
    """After a space, with a capital letter."""

    def of(self, words: Sequence[str]) -> list[str]:
        """Return words in this form."""
        if self is Form.BARE:
            return list(words)
        if self is Form.SPACED:
            return [f" {word}" for word in words]
        return [f" {word[:1].upper()}{word[1:]}" for word in words]


@functools.cache
def all_words() -> tuple[str, ...]:
    """Return the words of one or more letters a-z among `wordfreq`'s 300,000, frequent first."""
    from wordfreq import top_n_list

    is_word = re.compile(r"[a-z]+").fullmatch
    return tuple(word for word in top_n_list("en", WORDFREQ_DEPTH) if is_word(word))


# --- cutting ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cuts:
    """The tokens of many texts."""

    ids_T: np.ndarray
    ends_W: np.ndarray
    """Where each text ends among the tokens. Shape (W,), ascending."""

    @classmethod
    def of(cls, ids: pd.Series) -> Cuts:
        """Return the tokens that a column of lists holds."""
        found = pa.array(ids)
        lists = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
        ends_W = np.cumsum(pc.list_value_length(lists).to_numpy(), dtype=int)
        return cls(lists.flatten().to_numpy(), ends_W)

    @property
    def num_tokens_W(self) -> np.ndarray:
        """Tokens of each text. Shape (W,)."""
        return np.diff(self.ends_W, prepend=0)

    @property
    def word_T(self) -> np.ndarray:
        """The place of each token's text. Shape (T,)."""
        return np.repeat(np.arange(len(self.ends_W)), self.num_tokens_W)

    def lists(self, values_T: pa.Array) -> pa.ListArray:
        """Return a value of each token as a list for each text."""
        offsets = np.concatenate([[0], self.ends_W])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values_T)

    @functools.cached_property
    def distinct(self) -> Distinct:
        """The tokens that occur."""
        return _distinct(self.ids_T)

    def joined(self, text_of: Callable[[int], str], between: str) -> pa.Array:
        """Return for each text what its tokens are called, as one string."""
        texts = pa.array(map(text_of, self.distinct.ids), pa.string())
        return pc.binary_join(self.lists(texts.take(pa.array(self.distinct.place_T))), between)


class Distinct(NamedTuple):
    """The tokens that occur in texts, each once."""

    ids: list[int]
    place_T: np.ndarray
    """Where in `ids` each token of the texts stands."""


def _distinct(ids_T: np.ndarray) -> Distinct:
    ids = np.flatnonzero(np.bincount(ids_T))
    places = np.zeros(ids_T.max(initial=0) + 1, int)
    places[ids] = np.arange(len(ids))
    return Distinct(ids.tolist(), places[ids_T])


_CHUNK = 5_000
"""Words in one text: long enough to save calls, and enough texts for every core."""
_LINES = re.compile(r"(?: ?[A-Za-z]++\n)*+")
_SPACE = string_of(b" ")


def cut(backend: Tokenizer, texts: Sequence[str]) -> Cuts:
    """Return the tokens of each text, without any token added.

    Words of letters are cut many in one text, which is several times faster; see
    `_word_tokenizer` for why they come out the same.
    """
    words = _word_tokenizer(backend)
    lines = "\n".join([*texts, ""])
    is_words = lines.count("\n") == len(texts) and _LINES.fullmatch(lines)
    if words is None or not is_words:
        return _cut_alone(backend, texts)
    chunks = [
        "\n".join(texts[start : start + _CHUNK]).replace(" ", _SPACE)
        for start in range(0, len(texts), _CHUNK)
    ]
    encoded = words.encode_batch_fast(chunks, add_special_tokens=False)
    ids_T = np.concatenate([np.empty(0, int), *(np.array(text.ids) for text in encoded)])
    # No token crosses a word's end, so lengths say where words end.
    ids, place_T = _distinct(ids_T)
    num_bytes = np.array([len(backend.id_to_token(token) or "") for token in ids], int)
    read_T, written_W = np.cumsum(num_bytes[place_T]), np.cumsum(list(map(len, texts)), dtype=int)
    last_W = np.searchsorted(read_T, written_W)
    if not np.array_equal(np.append(read_T, -1)[last_W], written_W):
        return _cut_alone(backend, texts)
    return Cuts(ids_T, last_W + 1)


def _cut_alone(backend: Tokenizer, texts: Sequence[str]) -> Cuts:
    encoded = backend.encode_batch_fast([*texts], add_special_tokens=False)
    ids_T = np.array([token for text in encoded for token in text.ids], int)
    return Cuts(ids_T, np.cumsum([len(text.ids) for text in encoded], dtype=int))


def _word_tokenizer(backend: Tokenizer) -> Tokenizer | None:
    """Return a tokenizer of words in the alphabet of bytes, a line for each.

    It has the model of `backend`, and so the same merges, but no need to find out where words end:
    a text is split at line breaks and nowhere else. None where `backend` does not hand a word of
    letters, with its space, to the model as it is.
    """
    from tokenizers import Tokenizer, pre_tokenizers

    splitter, normalizer = backend.pre_tokenizer, backend.normalizer
    is_whole = splitter is not None and all(
        [part for part, _ in splitter.pre_tokenize_str(probe)] == [probe.replace(" ", _SPACE)]
        and (normalizer is None or normalizer.normalize_str(probe) == probe)
        for probe in ("Aaa", " aaa")
    )
    added = backend.get_added_tokens_decoder().values()
    if not is_whole or any(_LINES.fullmatch(f"{token.content}\n") for token in added):
        return None
    words = Tokenizer(backend.model)
    words.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("\n")
    return words


# --- the table ----------------------------------------------------------------------------------

UNLISTED = "not listed"
_BANDS = ("below 1", *(f"{low} to {low + 1}" for low in range(1, 7)), "7 and more")
FREQUENCY_BANDS = (*reversed(_BANDS), UNLISTED)
"""By Zipf frequency, the base-10 logarithm of occurrences in 10^9 words; frequent first."""


def frequency_bands(zipf: np.ndarray) -> pd.Categorical:
    """Return the band of each Zipf frequency; NaN is of a word that is not listed."""
    found = pd.cut(zipf, [-np.inf, *range(1, 8), np.inf], right=False, labels=list(_BANDS))
    return found.set_categories(list(FREQUENCY_BANDS), ordered=True).fillna(UNLISTED)


def word_table(
    backend: Tokenizer,
    vocabulary: Vocabulary,
    words: Sequence[str],
    on_form: OnForm = lambda form: None,
) -> pd.DataFrame:
    """Return a row for each word, in their order.

    Columns: word; zipf (NaN where wordfreq does not list it); frequency, its band; num_letters;
    difficulty; stem; stem_border, the letters before the suffix (missing unless the stem is a
    beginning of the word that leaves a rest); is_cut_at_border, whether a token of the spaced form
    ends there; num_cuts, how many of them end between two letters; num_single_letters, tokens that
    hold one letter; ids, the tokens; and for each form num_tokens_<form> and pieces_<form>, these
    with "|" between them.

    Args:
        backend: The tokenizer.
        vocabulary: Its tokens.
        words: Lower-case letters a-z.
        on_form: Told which form is being cut.
    """
    cuts = {}
    for form in Form:
        on_form(form.value)
        cuts[form] = cut(backend, form.of(words))
    spaced = cuts[Form.SPACED]
    zipf = zipf_frequencies(words)
    table = pd.DataFrame(
        {
            "word": list(words),
            "zipf": zipf,
            "frequency": frequency_bands(zipf),
            "num_letters": [len(word) for word in words],
            "difficulty": pd.Categorical(
                [
                    band_of(len(word), num_tokens).value
                    for word, num_tokens in zip(words, spaced.num_tokens_W.tolist(), strict=True)
                ],
                [band.value for band in Band],
                ordered=True,
            ),
            **_letters_and_stems(words, spaced, vocabulary),
            "ids": _column(spaced.lists(pa.array(spaced.ids_T, pa.int32()))),
        }
    )
    for form, found in cuts.items():
        table[f"num_tokens_{form.value}"] = found.num_tokens_W
        table[f"pieces_{form.value}"] = _column(found.joined(vocabulary.text, "|"))
    return table


def zipf_frequencies(words: Sequence[str]) -> np.ndarray:
    """Return the Zipf frequency of each word by wordfreq, NaN where it lists none. Shape (W,)."""
    from wordfreq import get_frequency_dict

    frequencies = get_frequency_dict("en")
    found_W = np.array([frequencies.get(word, np.nan) for word in words])
    zipf_W: np.ndarray = np.round(np.log10(found_W) + 9, 2)
    return zipf_W


def _letters_and_stems(words: Sequence[str], cuts: Cuts, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return the columns that need to know which letters each token holds."""
    ids, place_T = cuts.distinct
    letters = np.array([len(vocabulary.base[token].strip()) for token in ids], int)
    letters_T, word_T = letters[place_T], cuts.word_T
    found = stems(words)
    border_W = np.array(
        [
            len(stem) if len(stem) < len(word) and word.startswith(stem) else 0
            for word, stem in zip(words, found, strict=True)
        ],
        int,
    )
    read_T = np.cumsum(letters_T)
    before_W = np.concatenate([[0], read_T[cuts.ends_W[:-1] - 1]])
    ends_at_border_T = read_T - before_W[word_T] == border_W[word_T]
    num_words, is_missing_W = len(words), border_W == 0
    is_cut_W = np.bincount(word_T[ends_at_border_T], minlength=num_words) > 0
    return {
        "stem": found,
        "stem_border": pd.arrays.IntegerArray(border_W, is_missing_W),
        "is_cut_at_border": pd.arrays.BooleanArray(is_cut_W, is_missing_W),
        # A token may be the space alone, and that is no cut within the word.
        "num_cuts": np.bincount(word_T[letters_T > 0], minlength=num_words) - 1,
        "num_single_letters": np.bincount(word_T[letters_T == 1], minlength=num_words),
    }


def _column(values: pa.Array) -> pd.api.extensions.ExtensionArray:
    return pd.arrays.ArrowExtensionArray(values)
