"""Laws of files of texts: what is read, and one clear line for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.errors import DataError, NotFoundError, UserError
from tuning.tokens import texts as module
from tuning.tokens.texts import EXAMPLES, ThinkingTexts, read_outputs, read_texts

LINE = st.text(st.characters(exclude_characters="\r\n\x00\ufeff", codec="utf-8"), max_size=20)


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@given(lines=st.lists(LINE, max_size=8))
def test_lines_and_objects_hold_the_same_texts(
    lines: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "t.txt").write_bytes("\n".join(lines).encode())
    written(folder / "t.jsonl", *({"text": line, "more": 1} for line in lines))
    kept = tuple(line for line in lines if line.strip())
    for name in ("t.txt", "t.jsonl"):
        if kept:
            assert read_texts(folder / name) == kept
        else:
            with pytest.raises(DataError, match="needs at least one text, got none"):
                read_texts(folder / name)


def test_a_file_of_windows_is_read_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbffirst\r\n\r\n  second \r\n")
    assert read_texts(tmp_path / "t.txt") == ("first", "  second ")


def test_a_text_of_several_lines_needs_jsonl(tmp_path: Path) -> None:
    assert read_texts(written(tmp_path / "t.JSONL", {"text": "a\nb"})) == ("a\nb",)


def test_outputs_are_sorted_by_mode_and_blank_ones_counted(tmp_path: Path) -> None:
    path = written(
        tmp_path / "thinking.jsonl",
        {"mode": "thinking", "text": "<think>\nhm\n</think>\n\nb", "task": "position", "gold": "b"},
        {"mode": "non_thinking", "text": "b"},
        {"mode": "non_thinking", "text": " \n"},
        {"mode": "non_thinking", "text": "c"},
    )
    assert read_outputs(path) == ThinkingTexts(
        thinking=("<think>\nhm\n</think>\n\nb",),
        direct=("b", "c"),
        source=f"{path} (blank outputs left out: 1)",
    )


BAD_TEXTS: dict[str, tuple[bytes, str]] = {
    "empty lines": (b"\n\n  \n\r\n", "a file of texts needs at least one text, got none"),
    "nothing": (b"", "a file of texts needs at least one text, got none"),
    "binary": (b"text\n\x00\x01\n", "line 2: is binary, not text"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", "line 1: is not UTF-8 text"),
    "one long line": (b"a" * 10_000_000, r"line 1: a line must have at most 1,048,576 bytes"),
}


@pytest.mark.parametrize(("content", "says"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_file_that_holds_no_texts_says_what_it_holds(
    content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"^{tmp_path}/t.txt(:|, ) ?{says}$") as caught:
        read_texts(tmp_path / "t.txt")
    assert "\n" not in str(caught.value)


BAD_OUTPUTS: dict[str, tuple[str, str]] = {
    "broken": ('{"mode": "thinking", "text"', "line 1: not JSON"),
    "no object": ("[1]", "line 1: must be an object, got list"),
    "no mode": ('{"text": "a", "moed": 1}', "needs the field mode; it has text, moed"),
    "no text": ('{"mode": "thinking"}', "needs the field text; it has mode"),
    "nothing": ("{}", "needs the field mode; it has none"),
    "number": ('{"mode": "thinking", "text": 3}', "text must be a text, got 3"),
    "unknown mode": (
        '{"mode": "non-thinking", "text": "a"}',
        "must be thinking or non_thinking, got 'non-thinking'; did you mean non_thinking",
    ),
    "mode of no text": ('{"mode": ["thinking"], "text": "a"}', r"got \['thinking'\]; known:"),
    "half a character": ('{"mode": "thinking", "text": "\\ud800"}', "no Unicode text"),
    "key twice": ('{"mode": "thinking", "mode": "thinking"}', "'mode' stands twice"),
    "one side": ('{"mode": "thinking", "text": "a"}', "one non-thinking text, .* got none"),
    "other side": ('{"mode": "non_thinking", "text": "a"}', "one thinking text, .* got none"),
    "blank side": (
        '{"mode": "thinking", "text": " "}\n{"mode": "non_thinking", "text": "a"}',
        r"blank outputs left out: 1\).* one thinking text",
    ),
    "empty lines": ("\n\n", "one thinking text, .* got none"),
}


@pytest.mark.parametrize(("content", "says"), BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
def test_a_file_that_holds_no_outputs_says_what_it_holds(
    content: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "o.jsonl").write_text(content)
    with pytest.raises(DataError, match=says) as caught:
        read_outputs(tmp_path / "o.jsonl")
    assert str(caught.value).startswith(f"{tmp_path}/o.jsonl")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_no_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "thinking.jsonl").touch()
    for read in (read_texts, read_outputs):
        with pytest.raises(NotFoundError, match=r"no such file; did you mean thinking\.jsonl"):
            read(tmp_path / "thinkng.jsonl")
        with pytest.raises(DataError, match="is no file"):
            read(tmp_path)


def test_too_many_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXTS", 3)
    (tmp_path / "t.txt").write_text("a\n\nb\nc\n")
    assert read_texts(tmp_path / "t.txt") == ("a", "b", "c")
    (tmp_path / "t.txt").write_text("a\nb\nc\nd\n")
    with pytest.raises(DataError, match="at most 3 texts"):
        read_texts(tmp_path / "t.txt")


def test_a_set_without_a_text_is_refused() -> None:
    for thinking, direct in (((), ("a",)), (("a",), ()), (("a",), (" ",))):
        with pytest.raises(UserError, match="mine: a comparison needs at least one"):
            ThinkingTexts(thinking, direct, "mine")


def test_the_examples_are_three_of_each_kind() -> None:
    assert (len(EXAMPLES.thinking), len(EXAMPLES.direct)) == (3, 3)
