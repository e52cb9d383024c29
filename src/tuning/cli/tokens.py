"""`tuning tokens`: the vocabulary of Qwen3, its English part, how words are cut, thinking."""

from __future__ import annotations

import typer

from tuning.cli import token_modes

app = typer.Typer(
    no_args_is_help=True,
    help="The tokens of Qwen3.\n\nExample: tuning tokens thinking",
)
app.command("thinking")(token_modes.thinking)
