"""`tuning try`: ask a tuned model, and the untouched one beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tuning.cli import completion, options
from tuning.errors import UserError

HINT = (
    "Ask anything, or: spell WORD · position N WORD · count LETTER WORD. "
    "An empty line or Ctrl-D ends."
)


def try_out(
    questions: Annotated[
        list[str] | None,
        typer.Argument(help="Questions to ask and be done; without them, ask on the terminal."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of an adapter in PEFT's format.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="The base; by default the one the adapter names, or tiny.",
            autocompletion=completion.model_names,
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(help="Longest answer, in tokens.", min=1, max=4096)
    ] = 64,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Ask a tuned model questions, with the untouched model's answers beside its own.

    Example: tuning try "spell moonlight" "position 3 parrot" "count r parrot"
    """
    name = options.model_of(model, adapter)
    from tuning.evaluation.ask import conversation
    from tuning.model.machine import quiet_libraries, threads

    with quiet_libraries(), threads(None), conversation(name, adapter, max_tokens) as ask:
        for text in questions or _typed(quiet=quiet):
            try:
                answers = ask(question_of(text))
            except UserError as error:
                if questions:
                    raise
                typer.echo(f"tuning: {error}", err=True)
                continue
            if as_json:
                typer.echo(json.dumps({"question": text, **answers}))
                continue
            if questions and len(questions) > 1:
                typer.echo(text)
            for who, answer in answers.items():
                typer.echo(f"  {who:10} {answer!r}")


def _typed(*, quiet: bool) -> Iterator[str]:
    """Yield lines from the terminal, or from a pipe."""
    is_terminal = sys.stdin.isatty()
    if is_terminal and not quiet:
        typer.echo(HINT)
    while True:
        try:
            line = input("> ") if is_terminal else sys.stdin.readline()
        except EOFError:
            return
        if not line.strip():
            return
        yield line.strip()


def question_of(text: str) -> str:
    """Return the question that a line stands for: a short form of ours, or the line itself.

    Raises:
        UserError: A short form names a position that its word does not have.
    """
    from tuning.tasks import count, position, spelling

    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError("a question must be Unicode text") from None
    parts = text.split()
    if len(parts) == 2 and parts[0].lower() == "spell":
        return spelling.plain_item(parts[1]).question
    if len(parts) == 3 and parts[0].lower() == "position" and parts[1].isdigit():
        n, word = int(parts[1]), parts[2]
        if not 1 <= n <= len(word):
            raise UserError(f"position must be from 1 to {len(word)} in {word!r}, got {n}")
        return position.position_item(word, n, position.TEMPLATES[0]).question
    if len(parts) == 3 and parts[0].lower() == "count" and len(parts[1]) == 1:
        return count.count_item(parts[2], parts[1], count.TEMPLATES[0]).question
    return f"{text}\n"
