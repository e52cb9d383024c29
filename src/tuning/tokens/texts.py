"""Texts of a model that thinks and of one that answers at once: ours, or a user's files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tuning.errors import DataError, nearest, shown
from tuning.files import json_object, numbered_lines

MAX_LINE_BYTES = 1_048_576
"""Of one text; 32,768 tokens, the longest answer of a trial, are about 150,000 bytes."""
MAX_TEXTS = 10_000
"""Of one file; a comparison holds all of them in memory."""


class Mode(StrEnum):
    """How an answer was written; the names stand in a trial's thinking.jsonl."""

    THINKING = "thinking"
    NON_THINKING = "non_thinking"

    @property
    def says(self) -> str:
        """The mode in words."""
        return self.value.replace("_", "-")


@dataclass(frozen=True, slots=True)
class ThinkingTexts:
    """Two sets of texts to compare."""

    thinking: tuple[str, ...]
    direct: tuple[str, ...]
    """Answers without thinking."""
    source: str
    """Where they are from, in words."""

    def __post_init__(self) -> None:
        for mode, texts in ((Mode.THINKING, self.thinking), (Mode.NON_THINKING, self.direct)):
            if not texts or not all(text.strip() for text in texts):
                got = "a blank one" if texts else "none"
                raise DataError(
                    f"{self.source}: a comparison needs at least one {mode.says} text, and none "
                    f"that is blank; got {got}"
                )


EXAMPLES = ThinkingTexts(
    thinking=(
        "First I write moon one letter at a time, m, o, o, n, and then I walk along the letters "
        "until I reach the third one, which is o.",
        "Let me go through pepper slowly: p, e, p, p, e, r. I meet p at the start, again in third "
        "place and once more right after, so that makes three.",
        "The word basket has six letters, b, a, s, k, e, t; the last one comes after five others, "
        "so I step forward to the end and find t.",
    ),
    direct=("The third letter of moon is o.", "p occurs 3 times.", "The last letter is t."),
    source="three short examples of each kind, written for this program",
)
"""They show what a comparison looks like, and are far too few to say anything."""


def read_texts(path: Path) -> tuple[str, ...]:
    """Read texts: one a line, or, of a ``.jsonl`` file, the field `text` of each line's object.

    Blank lines are left out, and blank texts with them.

    Raises:
        NotFoundError: There is no such file.
        DataError: It cannot be read as such, or holds no text.
    """
    if path.suffix.lower() == ".jsonl":
        found = [_text(raw, place) for raw, place in _objects(path)]
    else:
        found = [text for text, _ in _lines(path)]
    texts = tuple(text for text in found if text.strip())
    if not texts:
        raise DataError(f"{path}: a file of texts needs at least one text, got none")
    return texts


def read_outputs(path: Path) -> ThinkingTexts:
    """Read a model's own outputs in both modes, as a trial writes them to thinking.jsonl.

    Each line is an object with `mode` (thinking or non_thinking) and `text`; other fields are
    passed over. Blank outputs are left out, and `source` says how many.

    Raises:
        NotFoundError: There is no such file.
        DataError: It cannot be read as such, or a mode has no text.
    """
    texts: dict[Mode, list[str]] = {mode: [] for mode in Mode}
    num_blank = 0
    for raw, place in _objects(path):
        mode, text = _mode(raw, place), _text(raw, place)
        if text.strip():
            texts[mode].append(text)
        else:
            num_blank += 1
    blank = f" (blank outputs left out: {num_blank:,})" if num_blank else ""
    missing = [mode for mode in Mode if not texts[mode]]
    if len(missing) == 1:
        raise DataError(
            f"{path}{blank}: a comparison needs at least one {missing[0].says} text, that is not "
            f"blank, got none; a model without a thinking mode answers in one mode alone"
        )
    return ThinkingTexts(
        thinking=tuple(texts[Mode.THINKING]),
        direct=tuple(texts[Mode.NON_THINKING]),
        source=f"{path}{blank}",
    )


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each line that is not blank, and its place for messages."""
    num_texts = 0
    for number, _, line in numbered_lines(path, MAX_LINE_BYTES):
        place = f"{path}, line {number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: is not UTF-8 text") from error
        if not text.strip():
            continue
        num_texts += 1
        if num_texts > MAX_TEXTS:
            raise DataError(f"{path}: a file of texts must have at most {MAX_TEXTS:,} texts")
        yield text, place


def _objects(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    return ((json_object(line.encode(), place), place) for line, place in _lines(path))


def _text(raw: dict[str, Any], place: str) -> str:
    if "text" not in raw:
        raise DataError(f"{place}: a line needs the field text; it has {_fields(raw)}")
    text = raw["text"]
    if not isinstance(text, str):
        raise DataError(f"{place}: text must be a text, got {shown(text)}")
    return text


def _mode(raw: dict[str, Any], place: str) -> Mode:
    if "mode" not in raw:
        raise DataError(f"{place}: a line needs the field mode; it has {_fields(raw)}")
    mode, known = raw["mode"], [mode.value for mode in Mode]
    if mode not in known:
        hint = nearest(mode if isinstance(mode, str) else "", known)
        raise DataError(f"{place}: mode must be {' or '.join(known)}, got {shown(mode)}; {hint}")
    return Mode(mode)


def _fields(raw: dict[str, Any]) -> str:
    return shown(", ".join(raw))[1:-1] or "none"
