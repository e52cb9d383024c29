"""Laws of `tuning.tokens.words`: words cut many at once are words cut one by one."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import snowballstemmer
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from wordfreq import zipf_frequency

from tuning.qwen3_tokenizer import qwen3_tokenizer, tokenizer_source
from tuning.tasks.difficulty import band_of
from tuning.tokens.words import Cuts, Form, all_words, cut, word_table

FORMS = pytest.mark.parametrize("form", Form)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def lists(cuts: Cuts) -> list[list[int]]:
    found: list[list[int]] = cuts.lists(cuts.ids_T).tolist()
    return found


def sample(number: int, seed: int = 0) -> list[str]:
    return random.Random(seed).sample(all_words(), number)


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return what transformers makes of the same file."""
    from transformers import AutoTokenizer

    folder: Path = tmp_path_factory.mktemp("peer")
    source = tokenizer_source().path
    shutil.copyfile(source, folder / "tokenizer.json")
    beside = source.with_name("tokenizer_config.json")
    if beside.is_file():
        shutil.copyfile(beside, folder / "tokenizer_config.json")
    return AutoTokenizer.from_pretrained(str(folder))


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    loaded = qwen3_tokenizer()
    words = [*sample(2_000), "strawberry", "ulysses", "a", "qzxvjk", "a" * 60]
    return word_table(loaded.backend, loaded.vocabulary, words)


def test_all_words_are_271_525_of_letters() -> None:
    words = all_words()
    assert len(words) == len(set(words)) == 271_525
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words)
    assert words[:3] == ("the", "to", "and")


@FORMS
def test_ids_and_pieces_of_1000_words_are_those_of_transformers(peer: Any, form: Form) -> None:
    texts = form.of(sample(1_000, seed=7))
    cuts = cut(qwen3_tokenizer().backend, texts)
    strings = qwen3_tokenizer().vocabulary.strings
    for text, ids in zip(texts, lists(cuts), strict=True):
        assert ids == peer(text, add_special_tokens=False)["input_ids"]
        assert [strings[token] for token in ids] == peer.tokenize(text)


@FORMS
def test_many_words_at_once_are_cut_as_each_alone(form: Form) -> None:
    backend = qwen3_tokenizer().backend
    texts = form.of(sample(12_345))
    alone = backend.encode_batch(texts, add_special_tokens=False)
    assert lists(cut(backend, texts)) == [encoded.ids for encoded in alone]


@given(texts=st.lists(st.from_regex(r" ?[A-Za-z]{1,12}", fullmatch=True) | st.text(max_size=8)))
@settings(deadline=None)
def test_any_texts_are_cut_as_each_alone(texts: list[str]) -> None:
    backend = qwen3_tokenizer().backend
    alone = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    assert lists(cut(backend, texts)) == alone


def _like_qwen3(**changes: Any) -> Tokenizer:
    """Return a tokenizer with the model of Qwen3 and other parts around it."""
    loaded = Tokenizer(qwen3_tokenizer().backend.model)
    loaded.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name, value in changes.items():
        setattr(loaded, name, value)
    return loaded


def _with_word() -> Tokenizer:
    loaded = _like_qwen3()
    loaded.add_tokens([AddedToken("berry")])
    return loaded


def _of_few_bytes(**unknown: str) -> Tokenizer:
    loaded = Tokenizer(models.BPE({"Ġ": 0, "a": 1, "b": 2, "Ġa": 3}, [("Ġ", "a")], **unknown))
    loaded.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return loaded


@pytest.mark.parametrize(
    "backend",
    [
        _like_qwen3(),
        _like_qwen3(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)),
        _like_qwen3(
            pre_tokenizer=pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split("a", "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        ),
        _like_qwen3(pre_tokenizer=pre_tokenizers.Metaspace()),
        _with_word(),
        _of_few_bytes(),
        _of_few_bytes(unk_token="b"),
    ],
    ids=["gpt-2", "prefix space", "at a", "sentencepiece", "a word", "few bytes", "unknown bytes"],
)
def test_other_tokenizers_are_never_cut_by_a_short_way_that_differs(backend: Tokenizer) -> None:
    words = ["strawberry", "banana", "ab", "b"]
    for form in Form:
        texts = form.of(words)
        alone = [backend.encode(text, add_special_tokens=False).ids for text in texts]
        assert lists(cut(backend, texts)) == alone


# --- the table ----------------------------------------------------------------------------------


def test_every_row_is_what_the_tokens_say(table: pd.DataFrame) -> None:
    loaded = qwen3_tokenizer()
    for row in table.to_dict("records"):
        word = row["word"]
        for form in Form:
            (text,) = form.of([word])
            encoded = loaded.backend.encode(text, add_special_tokens=False)
            assert row[f"num_tokens_{form}"] == len(encoded.ids)
            assert row[f"pieces_{form}"].replace("|", "") == text
            assert row[f"pieces_{form}"] == "|".join(map(loaded.vocabulary.text, encoded.ids))
        ids = loaded.backend.encode(f" {word}", add_special_tokens=False).ids
        assert list(row["ids"]) == ids
        pieces = [loaded.vocabulary.text(token).strip() for token in ids]
        assert row["num_single_letters"] == sum(len(piece) == 1 for piece in pieces)
        ends = {e for e in np.cumsum([len(piece) for piece in pieces]) if 0 < e < len(word)}
        assert row["num_cuts"] == len(ends)
        assert row["difficulty"] == band_of(len(word), len(ids))
        stem = snowballstemmer.stemmer("english").stemWord(word)
        assert row["stem"] == stem
        if word.startswith(stem) and word != stem:
            assert row["stem_border"] == len(stem)
            assert row["is_cut_at_border"] == (len(stem) in ends)
        else:
            assert pd.isna(row["stem_border"])
            assert pd.isna(row["is_cut_at_border"])


def test_frequencies_are_those_of_wordfreq(table: pd.DataFrame) -> None:
    for row in table.sample(300, random_state=0).to_dict("records"):
        assert row["zipf"] == pytest.approx(zipf_frequency(row["word"], "en"), abs=0.005)
        low = int(row["frequency"].partition(" ")[0])
        assert low <= row["zipf"] < low + 1
    unknown = table[table["word"] == "qzxvjk"].iloc[0]
    assert math.isnan(unknown["zipf"])
    assert unknown["frequency"] == "not listed"


def test_a_space_that_is_a_token_alone_is_no_cut_within_the_word(table: pd.DataFrame) -> None:
    row = table[table["word"] == "ulysses"].iloc[0]
    assert row["pieces_spaced"] == " |uly|ss|es"
    assert (row["num_tokens_spaced"], row["num_cuts"]) == (4, 2)


@given(words=st.lists(st.text(LETTERS, min_size=1, max_size=40), max_size=12))
@settings(deadline=None, max_examples=40)
def test_any_list_has_a_row_for_each_word_in_order(words: list[str]) -> None:
    loaded = qwen3_tokenizer()
    found = word_table(loaded.backend, loaded.vocabulary, words)
    assert list(found["word"]) == words
    assert list(found["num_letters"]) == list(map(len, words))
    assert list(found["pieces_bare"].str.replace("|", "")) == words
    cuts = Cuts.of(found["ids"])
    assert list(cuts.num_tokens_W) == list(found["num_tokens_spaced"])


def test_progress_is_told_form_by_form() -> None:
    loaded, told = qwen3_tokenizer(), []
    word_table(loaded.backend, loaded.vocabulary, ["a"], told.append)
    assert told == list(Form)
