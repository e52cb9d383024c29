"""Laws of `tuning.token_analysis`: what is written exists in the tokenizer, and is all or nothing."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from tuning.errors import DataError, ModelError, NotFoundError, ResultsError, UserError
from tuning.files import sha256_of_file, sha256_of_json
from tuning.paths import ResultsRoot, TokenAnalysisFolder
from tuning.qwen3_tokenizer import TOKENIZER_SHA256, qwen3_tokenizer, tokenizer_source
from tuning.token_analysis import ALWAYS_LISTED, analyze_qwen3_tokenizer
from tuning.tokens.subset import SubsetRule
from tuning.tokens.texts import ThinkingTexts
from tuning.tokens.words import all_words

WORDS = ("the", "strawberry", "xylophonist", "banana", "unhappiness", "walking", "a", "ulysses")
FIGURES = ("token_distribution", "token_length", "tokens_per_word", "thinking")


@pytest.fixture(scope="module")
def word_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lists") / "mine.txt"
    path.write_text("# mine\n\n" + "\n".join(WORDS) + "\nthe\n")
    return path


class Analysed:
    """An analysis of a few words with everything asked for."""

    def __init__(self, root: Path, word_list: Path) -> None:
        self.told: list[str] = []
        self.stats = analyze_qwen3_tokenizer(
            True, True, results_dir=root, word_list=word_list, on_progress=self.told.append
        )
        self.folder = ResultsRoot(root).token_analysis


@pytest.fixture(scope="module")
def analysed(tmp_path_factory: pytest.TempPathFactory, word_list: Path) -> Analysed:
    return Analysed(tmp_path_factory.mktemp("results"), word_list)


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def test_what_is_returned_is_what_is_written(analysed: Analysed) -> None:
    assert analysed.folder.stats == analysed.folder.root / "tokenizer_stats.json"
    assert read(analysed.folder.stats) == analysed.stats


def test_the_counts_of_the_vocabulary(analysed: Analysed) -> None:
    stats = analysed.stats
    assert stats["vocab_size"] == 151_669
    assert stats["sizes"] == {
        "base_tokens": 151_643,
        "added_tokens": 26,
        "tokens": 151_669,
        "model_rows": 151_936,
        "padding_rows": 267,
    }
    assert stats["special_tokens"]["<|endoftext|>"] == 151_643
    assert stats["other_added_tokens"]["<think>"] == 151_667
    assert len(stats["special_tokens"]) + len(stats["other_added_tokens"]) == 26
    assert stats["tokens_by_rule"] == {
        "letters": 68_923,
        "printable": 90_913,
        "ascii": 94_358,
        "dictionary": 41_424,
    }
    assert stats["letters_with_leading_space"] == 41_547
    assert stats["not_utf8_alone"] == 1_448
    assert stats["ascii_as_raw_strings"] == 47_938
    assert stats["tokenizer"]["sha256"] == TOKENIZER_SHA256
    assert stats["tokenizer"]["path"] == str(tokenizer_source().path)


def test_english_tokens_are_those_of_the_saved_file(analysed: Analysed) -> None:
    stats = analysed.stats
    saved = read(analysed.folder.english_vocab)
    assert stats["english_token_count"] == len(saved)
    assert stats["english_token_percentage"] == pytest.approx(100 * len(saved) / 151_669)
    assert stats["english_rule_token_count"] == 90_913


def check_saved_subset(folder: TokenAnalysisFolder, rule: SubsetRule) -> None:
    """Every saved string and id is one of the tokenizer's, and the facts are those of the file."""
    saved, facts = read(folder.english_vocab), read(folder.english_meta)
    backend = qwen3_tokenizer().backend
    assert all(backend.token_to_id(string) == token for string, token in saved.items())
    ids = list(saved.values())
    assert ids == sorted(set(ids)) == list(qwen3_tokenizer().subset(rule).ids)
    assert facts["rule"] == rule
    assert facts["says"] == rule.says
    assert facts["num_tokens"] == len(ids) == sum(facts["num_by_reason"].values())
    assert facts["share"] == pytest.approx(len(ids) / 151_669)
    assert facts["sha256_of_ids"] == sha256_of_json(ids)
    assert facts["sha256_of_file"] == sha256_of_file(folder.english_vocab)
    assert facts["tokenizer_sha256"] == TOKENIZER_SHA256


def test_every_saved_token_exists_in_the_tokenizer(analysed: Analysed) -> None:
    assert analysed.folder.english_vocab.parent.name == "english_tokens"
    check_saved_subset(analysed.folder, SubsetRule.PRINTABLE)


def test_another_rule_is_saved_as_such(tmp_path: Path, word_list: Path) -> None:
    stats = analyze_qwen3_tokenizer(
        results_dir=tmp_path, subset_rule="letters", word_list=word_list, figures=False
    )
    folder = ResultsRoot(tmp_path).token_analysis
    check_saved_subset(folder, SubsetRule.LETTERS)
    assert stats["english_subset"]["num_by_reason"]["rule"] == 68_923
    assert not {"english_token_count", "thinking_mode"} & set(stats)
    assert list(folder.root.glob("*.png")) == []


# --- words --------------------------------------------------------------------------------------


def tokens_of(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the tokens of each word after a space, as the tokenizer itself gives them."""
    backend = qwen3_tokenizer().backend
    encoded = backend.encode_batch_fast([f" {word}" for word in words], add_special_tokens=False)
    names = {token: string for string, token in backend.get_vocab().items()}
    return {
        word: [names[token] for token in found.ids]
        for word, found in zip(words, encoded, strict=True)
    }


def check_multi_token_words(folder: TokenAnalysisFolder, tokens: dict[str, list[str]]) -> None:
    several = [w for w, found in tokens.items() if len(found) > 1 or w in ALWAYS_LISTED]
    added = tokens_of([word for word in ALWAYS_LISTED if word not in tokens])
    saved = read(folder.multi_token_words)
    assert list(saved) == [*several, *added]
    for word, entry in saved.items():
        found = tokens[word] if word in tokens else added[word]
        assert entry == {"tokens": found, "token_count": len(found)}


def test_multi_token_words_are_in_the_order_of_the_list(analysed: Analysed) -> None:
    check_multi_token_words(analysed.folder, tokens_of(WORDS))
    saved = read(analysed.folder.multi_token_words)
    assert saved["banana"] == {"tokens": ["Ġbanana"], "token_count": 1}
    assert saved["hyperparameter"] == {"tokens": ["Ġhyper", "parameter"], "token_count": 2}


def test_all_words_are_a_table(analysed: Analysed) -> None:
    table = pd.read_parquet(analysed.folder.words)
    assert list(table["word"]) == list(WORDS)
    by_word = table.set_index("word")
    assert list(by_word.loc["strawberry", "ids"]) == [72600]
    assert by_word.loc["strawberry", "pieces_bare"] == "str|aw|berry"
    for name in ("tokens_by_frequency", "tokens_by_length", "stem_borders", "most_fragmented"):
        assert len(pd.read_csv(analysed.folder.table(name))) == len(analysed.stats["words"][name])


# --- thinking, figures --------------------------------------------------------------------------


def test_both_modes_are_counted(analysed: Analysed) -> None:
    for mode in ("thinking_mode", "non_thinking_mode"):
        found = analysed.stats[mode]
        assert found["unique_tokens"] == len(found["token_distribution"]) > 0
    assert analysed.stats["thinking_comparison"]["warning"]


def test_texts_of_ones_own_are_compared(tmp_path: Path, word_list: Path) -> None:
    stats = analyze_qwen3_tokenizer(
        analyze_thinking_mode=True,
        results_dir=tmp_path,
        word_list=word_list,
        thinking_texts=ThinkingTexts(("a a a",), ("b",), "here"),
        figures=False,
    )
    assert stats["thinking_mode"]["unique_tokens"] == 2
    assert stats["thinking_comparison"]["source"] == "here"


def test_figures_are_written_in_three_formats(analysed: Analysed) -> None:
    for name in FIGURES:
        png = (analysed.folder.root / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        ElementTree.fromstring((analysed.folder.root / f"{name}.svg").read_text("utf-8"))
        page = (analysed.folder.root / f"{name}.html").read_text("utf-8")
        assert "vegaEmbed" in page
        assert 'src="http' not in page
    assert any("drawing" in what for what in analysed.told)


# --- what cannot be done ------------------------------------------------------------------------

BAD_LISTS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "needs at least one word, got none"),
    "empty lines": (b"\n\n  \n\n", "needs at least one word, got none"),
    "binary": (bytes(range(256)) * 9, "is binary, not text|is not UTF-8 text"),
    "no UTF-8": (b"word\n\xff\xfe\n", "line 2: is not UTF-8 text"),
    "one line of 10 MB": (b"a" * 10_000_000, "line 1: a line must have at most 1,024 bytes"),
    "capitals": (b"word\nBerlin\n", "line 2: a word must be 1 to 100 lower-case letters a-z"),
    "two words in a line": (b"two words\n", "line 1: a word must be"),
    "too long": (b"a" * 101, "line 1: a word must be 1 to 100"),
}


@pytest.mark.parametrize("name", BAD_LISTS)
def test_a_list_that_is_refused_writes_nothing(tmp_path: Path, name: str) -> None:
    content, message = BAD_LISTS[name]
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        analyze_qwen3_tokenizer(results_dir=tmp_path / "results", word_list=path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 300
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"subset_rule": "printabel"}, NotFoundError, "'printabel'; did you mean printable"),
        ({"word_list": Path("nowhere.txt")}, NotFoundError, "nowhere.txt: no such file"),
        ({"tokenizer": Path("nowhere.json")}, ModelError, "not found at nowhere.json"),
    ],
)
def test_what_does_not_exist_writes_nothing(
    tmp_path: Path,
    word_list: Path,
    options: dict[str, Any],
    error: type[UserError],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        analyze_qwen3_tokenizer(results_dir=tmp_path, **{"word_list": word_list, **options})
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_tokenizer_is_refused(tmp_path: Path, word_list: Path) -> None:
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(tokenizer_source().path.read_bytes().replace(b'"the"', b'"eht"', 1))
    with pytest.raises(ModelError, match="is not the genuine Qwen3 tokenizer"):
        analyze_qwen3_tokenizer(results_dir=tmp_path / "r", tokenizer=copy, word_list=word_list)
    assert list(tmp_path.iterdir()) == [copy]


def test_a_root_that_cannot_be_written_is_one_clear_line(tmp_path: Path, word_list: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot write"):
        analyze_qwen3_tokenizer(results_dir=tmp_path / "file" / "r", word_list=word_list)


# --- all words ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_words_of_wordfreq(tmp_path: Path) -> None:
    stats = analyze_qwen3_tokenizer(results_dir=tmp_path, figures=False)
    folder = ResultsRoot(tmp_path).token_analysis
    assert stats["words"]["num_words"] == 271_525
    words = all_words()
    table = pd.read_parquet(folder.words, columns=["word", "num_tokens_spaced"])
    assert list(table["word"]) == list(words)
    counts = dict(zip(words, table["num_tokens_spaced"], strict=True))
    saved = read(folder.multi_token_words)
    several = [word for word in words if counts[word] > 1 or word in ALWAYS_LISTED]
    assert list(saved) == several
    for word, tokens in tokens_of(random.Random(0).sample(words, 20_000)).items():
        assert counts[word] == len(tokens)
        assert word not in saved or saved[word]["tokens"] == tokens
    by_band = stats["words"]["tokens_by_frequency"]
    assert sum(band["num_words"] for band in by_band) == 271_525
    rates = [band["multi_token_rate"] for band in by_band]
    assert rates == sorted(rates), "the rarer a word, the more often it is cut"
