"""What a table of cut words shows: by frequency, length and difficulty, at stem borders, at worst.

Shares are in [0, 1]. All but `tokens_by` speak of the form with a leading space.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tuning.statistics import Interval, wilson_interval
from tuning.tasks.words import hash_of_words
from tuning.tokens.subset import MIN_ZIPF_FREQUENCY
from tuning.tokens.words import Form

MAX_TOKENS = 5
"""Words of so many tokens and more are one group."""
NUM_SUFFIXES = 12
"""Of the table of stem borders."""


def tokens_by(table: pd.DataFrame, column: str, form: Form = Form.SPACED) -> pd.DataFrame:
    """Return how many tokens words have, a row for each value of a column that occurs.

    Columns: the value; num_words; mean_tokens; multi_token_rate with its interval low and high;
    and num_words_of_<n>_tokens up to 5, which stands for 5 and more.

    Args:
        table: From `word_table`.
        column: frequency, num_letters or difficulty.
        form: Of the words.
    """
    num_tokens = table[f"num_tokens_{form.value}"]
    groups = num_tokens.groupby(table[column], observed=True)
    found = groups.agg(num_words="size", mean_tokens="mean")
    num_multiple = groups.agg(lambda counts: int((counts > 1).sum()))
    found["multi_token_rate"] = num_multiple / found["num_words"]
    ends = [
        wilson_interval(many, of) for many, of in zip(num_multiple, found["num_words"], strict=True)
    ]
    found[["low", "high"]] = pd.DataFrame(ends, index=found.index, columns=["low", "high"])
    capped = num_tokens.clip(upper=MAX_TOKENS)
    for number in range(1, MAX_TOKENS + 1):
        counts = (capped == number).groupby(table[column], observed=True).sum()
        found[f"num_words_of_{number}_tokens"] = counts
    return found.reset_index()


@dataclass(frozen=True, slots=True, kw_only=True)
class StemBorders:
    """Whether tokens end where suffixes begin, among words of several tokens that have a suffix."""

    num_words: int
    num_cut_at_border: int
    rate: float
    interval: Interval
    """Of Wilson; every word counts by itself, also where several share a stem."""
    rate_at_random: float
    """Expected if the same number of cuts fell on random places between letters."""


def stem_borders(table: pd.DataFrame, shortest_suffix: int = 1) -> StemBorders | None:
    """Return how often a token ends at the stem border; None where no word has one.

    Args:
        table: From `word_table`.
        shortest_suffix: Letters that a suffix must have. Half of those of one letter are the final
            e of a word, which the stemmer takes off and no one would call a suffix.
    """
    words = _with_border(table)
    words = words[words["num_letters"] - words["stem_border"] >= shortest_suffix]
    if words.empty:
        return None
    num_cut = int(words["is_cut_at_border"].sum())
    return StemBorders(
        num_words=len(words),
        num_cut_at_border=num_cut,
        rate=num_cut / len(words),
        interval=wilson_interval(num_cut, len(words)),
        rate_at_random=float(words["rate_at_random"].mean()),
    )


def borders_by_suffix(table: pd.DataFrame, most: int = NUM_SUFFIXES) -> pd.DataFrame:
    """Return the same for each of the most frequent suffixes.

    Columns: suffix, num_words, num_cut_at_border, rate, low, high, rate_at_random.
    """
    words = _with_border(table)
    suffixes = [
        word[border:] for word, border in zip(words["word"], words["stem_border"], strict=True)
    ]
    groups = words.assign(suffix=suffixes).groupby("suffix", sort=False)
    found = groups.agg(
        num_words=("word", "size"),
        num_cut_at_border=("is_cut_at_border", "sum"),
        rate_at_random=("rate_at_random", "mean"),
    )
    found = found.sort_values("num_words", ascending=False, kind="stable").head(most)
    ends = [
        wilson_interval(int(cut), int(of))
        for cut, of in zip(found["num_cut_at_border"], found["num_words"], strict=True)
    ]
    found["rate"] = found["num_cut_at_border"] / found["num_words"]
    found[["low", "high"]] = pd.DataFrame(ends, index=found.index, columns=["low", "high"])
    order = ["num_words", "num_cut_at_border", "rate", "low", "high", "rate_at_random"]
    return found[order].reset_index()


def _with_border(table: pd.DataFrame) -> pd.DataFrame:
    """Return the words that have a suffix and a cut, with how likely a random cut is to hit."""
    words = table[table["stem_border"].notna() & (table["num_cuts"] > 0)]
    return words.assign(rate_at_random=words["num_cuts"] / (words["num_letters"] - 1))


def single_letters(table: pd.DataFrame) -> pd.DataFrame:
    """Return how many words of several tokens have 0, 1, ... tokens of a single letter.

    Columns: num_single_letters, num_words, rate.
    """
    counts = table.loc[table["num_tokens_spaced"] > 1, "num_single_letters"].value_counts()
    found = counts.sort_index().rename("num_words").reset_index()
    return found.assign(rate=found["num_words"] / max(1, int(counts.sum())))


def most_fragmented(table: pd.DataFrame, most: int = 20) -> pd.DataFrame:
    """Return the words of most tokens, frequent ones alone; of equals, the more frequent first.

    Frequent is Zipf frequency 3 or more: once in a million words. A list without such a word is
    taken whole. What counts is the better of the forms with a space: a name in lower case is no
    spelling that many texts have.

    Columns: word, zipf, num_letters, difficulty, num_tokens_spaced, pieces_spaced, and these of
    the capitalised form.
    """
    frequent = table[table["zipf"] >= MIN_ZIPF_FREQUENCY]
    words = table if frequent.empty else frequent
    both = [f"num_tokens_{form.value}" for form in (Form.SPACED, Form.CAPITALISED)]
    ranked = words.assign(fewest=words[both].min(axis=1)).sort_values(
        ["fewest", "num_tokens_spaced", "zipf"], ascending=False, kind="stable"
    )
    columns = ["word", "zipf", "num_letters", "difficulty"]
    columns += [f"{what}_{form}" for form in ("spaced", "capitalised") for what in _CUT]
    return ranked[columns].head(most).reset_index(drop=True)


_CUT = ("num_tokens", "pieces")


def means_by_form(table: pd.DataFrame) -> pd.DataFrame:
    """Return for each form how words are cut: form, mean_tokens, num_multi_token_words, rate."""
    rows = []
    for form in Form:
        num_tokens = table[f"num_tokens_{form.value}"]
        num_multiple = int((num_tokens > 1).sum())
        rows.append(
            {
                "form": form.value,
                "mean_tokens": float(np.mean(num_tokens)),
                "num_multi_token_words": num_multiple,
                "multi_token_rate": num_multiple / len(table),
            }
        )
    return pd.DataFrame(rows)


# --- all of them --------------------------------------------------------------------------------

LONGER_SUFFIX = 2
"""Letters of a suffix that is more than a final e or s."""


@dataclass(frozen=True)
class WordAnalysis:
    """A list of words, cut."""

    source: str
    """Which list it is, in words."""
    table: pd.DataFrame
    """From `word_table`."""

    @functools.cached_property
    def summaries(self) -> Mapping[str, pd.DataFrame]:
        """Every summary that is a table, by name."""
        return {
            "tokens_by_form": means_by_form(self.table),
            "tokens_by_frequency": tokens_by(self.table, "frequency"),
            "tokens_by_length": tokens_by(self.table, "num_letters"),
            "tokens_by_difficulty": tokens_by(self.table, "difficulty"),
            "stem_borders": borders_by_suffix(self.table),
            "single_letters": single_letters(self.table),
            "most_fragmented": most_fragmented(self.table),
        }

    def to_json(self) -> dict[str, Any]:
        """Return the summaries as JSON holds them."""
        borders: Mapping[str, StemBorders | None] = {
            "all_suffixes": stem_borders(self.table),
            f"suffixes_of_{LONGER_SUFFIX}_letters_or_more": stem_borders(self.table, LONGER_SUFFIX),
        }
        return {
            "source": self.source,
            "num_words": len(self.table),
            "sha256": hash_of_words(self.table["word"]),
            "cuts_at_stem_borders": {
                name: dataclasses.asdict(found) if found else None
                for name, found in borders.items()
            },
            **{name: rows_of(summary) for name, summary in self.summaries.items()},
        }


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table as JSON holds it: a mapping for each row, null for what is missing."""
    rows: list[dict[str, Any]] = json.loads(table.to_json(orient="records"))
    return rows
