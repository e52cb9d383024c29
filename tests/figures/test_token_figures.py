"""Figures of tokens: what is drawn is what was counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd
import pytest

from tuning.figures import tokens
from tuning.figures.tokens import ALL, ENGLISH
from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.categories import Category, categories_of, counted
from tuning.tokens.subset import Subset, SubsetRule
from tuning.tokens.words import Form, all_words, word_table
from tuning.visualization import specification

SOURCE = tokens.Source("a tokenizer", "letters", "a list")
SIZE = 151_669


@pytest.fixture(scope="module")
def subset() -> Subset:
    return qwen3_tokenizer().subset(SubsetRule.LETTERS)


@pytest.fixture(scope="module")
def distribution(subset: Subset) -> pd.DataFrame:
    categories = categories_of(qwen3_tokenizer().vocabulary)
    kept = counted(categories[token] for token in subset.ids)
    return tokens.distribution_data(counted(categories.values()), kept)


@pytest.fixture(scope="module")
def lengths(subset: Subset) -> pd.DataFrame:
    return tokens.length_data(qwen3_tokenizer().vocabulary, subset.ids)


@pytest.fixture(scope="module")
def cut() -> pd.DataFrame:
    loaded = qwen3_tokenizer()
    words = [*all_words()[:2_000], *all_words()[::200], "zzqxv"]
    return word_table(loaded.backend, loaded.vocabulary, words)


def drawn(chart: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(specification(chart))
    return found


def test_shares_are_counts_over_the_vocabulary(distribution: pd.DataFrame, subset: Subset) -> None:
    assert list(distribution["share"]) == pytest.approx(
        list(100 * distribution["num_tokens"] / SIZE)
    )
    sums = distribution.groupby("vocabulary")[["num_tokens", "share"]].sum()
    assert dict(sums["num_tokens"]) == {ALL: SIZE, ENGLISH: len(subset.ids)}
    assert sums.loc[ALL, "share"] == pytest.approx(100)
    assert sums.loc[ENGLISH, "share"] == pytest.approx(100 * len(subset.ids) / SIZE)
    assert list(distribution["category"].unique()) == [category.value for category in Category]


def test_what_is_drawn_is_the_data_and_says_what_is_kept(distribution: pd.DataFrame) -> None:
    chart = drawn(tokens.draw_distribution(distribution, SOURCE))
    (values,) = chart["datasets"].values()
    assert [row["num_tokens"] for row in values] == list(distribution["num_tokens"])
    assert [row["share"] for row in values] == pytest.approx(list(distribution["share"]), abs=1e-3)
    labels = {row["category"]: row["label"] for row in values if row["vocabulary"] == ALL}
    assert labels["letters"] == "27,376, all kept"
    assert labels["Cyrillic"] == "4,142, none kept"
    assert labels["digits"] == "31, 10 kept"
    assert "45.50 %" in " ".join(chart["title"]["subtitle"])


def test_a_category_without_tokens_is_left_out() -> None:
    counts = {category: 0 for category in Category} | {Category.LETTERS: 4}
    data = tokens.distribution_data(counts, counts)
    assert list(data["category"]) == ["letters", "letters"]
    assert list(data["share"]) == [100, 100]


def test_lengths_are_counted_again_token_by_token(lengths: pd.DataFrame, subset: Subset) -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    for name, ids in ((ALL, range(SIZE)), (ENGLISH, subset.ids)):
        contents = [
            vocabulary.base.get(token) or vocabulary.added_by_id[token].text.encode()
            for token in ids
        ]
        characters = [len(text) for text in map(_text, contents) if text]
        for unit, found in (("bytes", map(len, contents)), ("characters", characters)):
            counts = Counter(min(16, length) for length in found)
            own = lengths[(lengths["unit"] == unit) & (lengths["vocabulary"] == name)]
            assert list(own["length"]) == list(range(1, 17))
            assert list(own["num_tokens"]) == [counts[length] for length in range(1, 17)]
            assert list(own["share"]) == pytest.approx(list(100 * own["num_tokens"] / len(ids)))


def _text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


def test_lengths_are_drawn_with_what_16_means(lengths: pd.DataFrame) -> None:
    chart = drawn(tokens.draw_length(lengths, SOURCE))
    (values,) = chart["datasets"].values()
    assert len(values) == len(lengths)
    assert {row["label"] for row in values} == {*map(str, range(1, 16)), "16+"}
    assert "1,448" in " ".join(chart["title"]["subtitle"])


def test_tokens_per_word_add_up_in_every_band(cut: pd.DataFrame) -> None:
    data = tokens.tokens_per_word_data(cut)
    for (form, band), rows in data.groupby(["form", "frequency"], observed=True):
        counts = list(cut.loc[cut["frequency"] == band, f"num_tokens_{form}"])
        assert rows["num_words"].sum() == len(counts) == rows["band_words"].iloc[0]
        assert rows["share"].sum() == pytest.approx(100)
        assert list(rows["num_words"][:4]) == [counts.count(number) for number in range(1, 5)]
        assert rows["mean_tokens"].iloc[0] == pytest.approx(sum(counts) / len(counts))
    assert set(data["form"]) == set(Form)


def test_tokens_per_word_are_drawn_with_n(cut: pd.DataFrame) -> None:
    chart = drawn(tokens.draw_tokens_per_word(tokens.tokens_per_word_data(cut), SOURCE))
    (values,) = chart["datasets"].values()
    assert f"7 and more (n = {(cut['zipf'] >= 7).sum()})" in {row["band"] for row in values}
    assert "not listed (n = 1)" in {row["band"] for row in values}
    assert f"{len(cut):,} words of a list" in " ".join(chart["title"]["subtitle"])
