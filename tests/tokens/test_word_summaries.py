"""Laws of `tuning.tokens.word_summaries`: each number counted again, word by word."""

from __future__ import annotations

import json
import random

import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.word_summaries import (
    WordAnalysis,
    borders_by_suffix,
    means_by_form,
    most_fragmented,
    rows_of,
    single_letters,
    stem_borders,
    tokens_by,
)
from tuning.tokens.words import Form, all_words, word_table


def cut_words(words: list[str]) -> pd.DataFrame:
    loaded = qwen3_tokenizer()
    return word_table(loaded.backend, loaded.vocabulary, words)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Return frequent and rare words, most frequent first."""
    words = all_words()
    places = sorted(random.Random(3).sample(range(len(words)), 3_000))
    return cut_words([*words[:3_000], *(words[i] for i in places if i >= 3_000), "zzqxv"])


@pytest.fixture(scope="module")
def rows(table: pd.DataFrame) -> list[dict[str, object]]:
    return table.to_dict("records")


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("column", ["frequency", "num_letters", "difficulty"])
def test_tokens_by_group(table: pd.DataFrame, column: str, form: Form) -> None:
    found = tokens_by(table, column, form)
    assert found["num_words"].sum() == len(table)
    assert set(found[column]) == set(table[column])
    for row in found.to_dict("records"):
        counts = list(table.loc[table[column] == row[column], f"num_tokens_{form}"])
        many = sum(count > 1 for count in counts)
        assert row["num_words"] == len(counts)
        assert row["mean_tokens"] == pytest.approx(sum(counts) / len(counts))
        assert row["multi_token_rate"] == pytest.approx(many / len(counts))
        low, high = proportion_confint(many, len(counts), method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)
        by_number = [row[f"num_words_of_{n}_tokens"] for n in range(1, 6)]
        assert by_number == [*map(counts.count, range(1, 5)), sum(c >= 5 for c in counts)]


def test_bands_stand_in_their_order(table: pd.DataFrame) -> None:
    assert list(tokens_by(table, "difficulty")["difficulty"]) == ["easy", "medium", "hard"]
    bands = list(tokens_by(table, "frequency")["frequency"])
    assert bands[0] == "7 and more"
    assert bands[-1] == "not listed"
    assert bands[1:-1] == sorted(bands[1:-1], reverse=True)


@pytest.mark.parametrize("shortest", [1, 2])
def test_cuts_at_stem_borders(table: pd.DataFrame, shortest: int) -> None:
    hits, expected = [], []
    for row in table.to_dict("records"):
        word, stem = row["word"], row["stem"]
        cuts = len(row["pieces_spaced"].strip(" |").split("|")) - 1
        if cuts and word.startswith(stem) and len(word) - len(stem) >= shortest:
            hits.append(any(p == stem for p in _beginnings(row["pieces_spaced"])))
            expected.append(cuts / (len(word) - 1))
    found = stem_borders(table, shortest)
    assert found is not None
    assert (found.num_words, found.num_cut_at_border) == (len(hits), sum(hits))
    assert found.rate == pytest.approx(sum(hits) / len(hits))
    assert found.rate_at_random == pytest.approx(sum(expected) / len(expected))
    low, high = proportion_confint(sum(hits), len(hits), method="wilson")
    assert found.interval == pytest.approx((low, high))


def _beginnings(pieces: str) -> list[str]:
    parts = pieces.split("|")
    return ["".join(parts[:n]).strip() for n in range(1, len(parts))]


def test_random_cuts_hit_the_border_as_often_as_is_said() -> None:
    rng = random.Random(0)
    table = cut_words(["walking", "unhappiness", "electrically", "nationhood"])
    words = table[table["stem_border"].notna() & (table["num_cuts"] > 0)]
    hits = total = 0
    for row in words.to_dict("records"):
        for _ in range(4_000):
            places = rng.sample(range(1, row["num_letters"]), row["num_cuts"])
            hits += row["stem_border"] in places
            total += 1
    found = stem_borders(table)
    assert found is not None
    assert found.rate_at_random == pytest.approx(hits / total, abs=0.02)


def test_suffixes_add_up_to_all_borders(table: pd.DataFrame) -> None:
    found, whole = borders_by_suffix(table, most=10**6), stem_borders(table)
    assert whole is not None
    assert found["num_words"].sum() == whole.num_words
    assert found["num_cut_at_border"].sum() == whole.num_cut_at_border
    assert list(found["num_words"]) == sorted(found["num_words"], reverse=True)
    assert list(borders_by_suffix(table, 3)["suffix"]) == list(found["suffix"][:3])


def test_no_word_with_a_border_has_no_rate() -> None:
    table = cut_words(["the", "strawberry"])
    assert stem_borders(table) is None
    assert borders_by_suffix(table).empty
    assert json.dumps(WordAnalysis("two words", table).to_json())


def test_single_letters_count_words_of_several_tokens(table: pd.DataFrame) -> None:
    found = single_letters(table)
    several = table[table["num_tokens_spaced"] > 1]
    assert found["num_words"].sum() == len(several)
    assert found["rate"].sum() == pytest.approx(1)
    for row in found.to_dict("records"):
        number = sum(
            sum(len(piece.strip()) == 1 for piece in pieces.split("|")) == row["num_single_letters"]
            for pieces in several["pieces_spaced"]
        )
        assert row["num_words"] == number


def test_the_most_fragmented_are_frequent_and_sorted(table: pd.DataFrame) -> None:
    found = most_fragmented(table, 50)
    frequent = table[table["zipf"] >= 3]
    fewest = frequent[["num_tokens_spaced", "num_tokens_capitalised"]].min(axis=1)
    assert (
        list(found[["num_tokens_spaced", "num_tokens_capitalised"]].min(axis=1))
        == sorted(fewest, reverse=True)[:50]
    )
    assert found["zipf"].min() >= 3
    rare = cut_words(["zzqxv", "zzqxvv"])
    assert set(most_fragmented(rare)["word"]) == {"zzqxv", "zzqxvv"}
    assert [row["zipf"] for row in rows_of(most_fragmented(rare))] == [None, None]


def test_means_by_form(table: pd.DataFrame) -> None:
    found = means_by_form(table).set_index("form")
    for form in Form:
        counts = list(table[f"num_tokens_{form}"])
        assert found.loc[form, "mean_tokens"] == pytest.approx(sum(counts) / len(counts))
        assert found.loc[form, "num_multi_token_words"] == sum(c > 1 for c in counts)


def test_the_analysis_as_json_holds_every_summary(table: pd.DataFrame) -> None:
    analysis = WordAnalysis("a list", table)
    found = json.loads(json.dumps(analysis.to_json(), allow_nan=False))
    assert found["num_words"] == len(table)
    for name, summary in analysis.summaries.items():
        assert len(found[name]) == len(summary)
        assert list(found[name][0]) == list(summary.columns)
