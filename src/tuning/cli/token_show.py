"""`tuning tokens show`: a word drawn as its tokens, letters and positions."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len

from tuning.cli import options
from tuning.errors import UserError, shown

if TYPE_CHECKING:
    from tuning.tokens.letters import CutForm, Piece

WordsArgument = Annotated[
    list[str], typer.Argument(help="Words in any language.", metavar="WORD...")
]


def show(
    words: WordsArgument,
    tokenizer: options.TokenizerFile = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Draw how words are cut: the tokens, their ids, and which letters each of them holds.

    Example: tuning tokens show strawberry
    """
    from tuning.qwen3_tokenizer import qwen3_tokenizer
    from tuning.tokens.letters import cut_letters

    given = [_checked(word) for word in words]
    loaded = qwen3_tokenizer(tokenizer)
    found = {word: cut_letters(loaded.backend, loaded.vocabulary, word) for word in given}
    facts = {word: _facts(word, cuts) for word, cuts in found.items()}
    if as_json:
        typer.echo(json.dumps(list(facts.values())))
        return
    from tuning.cli.tables import CONSOLE

    for word, cuts in found.items():
        typer.secho(_says(facts[word]), bold=True)
        for cut in cuts:
            for line in _drawn(cut, CONSOLE.width):
                typer.echo(line)


def _checked(word: str) -> str:
    """Return a word without white space around it.

    Raises:
        UserError: Nothing is left, or it is no Unicode text.
    """
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"a word must be Unicode text, got {shown(word)}") from error
    if not word.strip():
        raise UserError(f"a word needs at least one character, got {shown(word)}")
    return word.strip()


def _facts(word: str, cuts: Sequence[CutForm]) -> dict[str, Any]:
    from tuning.tasks.difficulty import band_of
    from tuning.tasks.words import is_word
    from tuning.tokens.words import zipf_frequencies

    zipf = float(zipf_frequencies([word.lower()])[0])
    return {
        "word": word,
        "num_letters": len(word),
        "zipf": None if math.isnan(zipf) else zipf,
        "difficulty": band_of(len(word), len(cuts[0].pieces)).value if is_word(word) else None,
        "forms": [dataclasses.asdict(cut) for cut in cuts],
    }


def _says(facts: dict[str, Any]) -> str:
    from tuning.tokens.vocabulary import visible_text

    number, zipf, band = facts["num_letters"], facts["zipf"], facts["difficulty"]
    parts = [
        f"{number} {'letter' if facts['word'].isalpha() else 'character'}{'s'[: number > 1]}",
        "not listed by wordfreq" if zipf is None else f"Zipf frequency {zipf:g}",
        *([f"difficulty {band}"] if band else []),
    ]
    return f"{visible_text(facts['word'])}: {', '.join(parts)}"


_SIDE, _BETWEEN = "  ", " | "


def _drawn(cut: CutForm, width: int) -> Iterator[str]:
    """Yield the lines of one form: letters, their positions, and the id of each token."""
    number = len(cut.pieces)
    yield f"{_SIDE}{cut.form.value}: {number} {'token' if number == 1 else 'tokens'}"
    columns = [_column(piece) for piece in cut.pieces]
    while columns:
        ends = itertools.accumulate(cell_len(column[0]) + len(_BETWEEN) for column in columns)
        num_fitting = max(1, sum(len(_SIDE) + end <= width for end in ends))
        row, columns = columns[:num_fitting], columns[num_fitting:]
        for lines in zip(*row, strict=True):
            yield f"{_SIDE}{_BETWEEN.join(lines)}".rstrip()


def _column(piece: Piece) -> tuple[str, str, str]:
    """Return letters, positions and id of a token, all of one width."""
    pairs = [(cell.text, str(cell.position or "")) for cell in piece.cells]
    widths = [max(1, *map(cell_len, pair)) for pair in pairs]
    letters, positions = (
        " ".join(_padded(text, width) for text, width in zip(texts, widths, strict=True))
        for texts in zip(*pairs, strict=True)
    )
    whole = max(cell_len(letters), len(str(piece.id)))
    return _padded(letters, whole), _padded(positions, whole), _padded(str(piece.id), whole)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - cell_len(text))
