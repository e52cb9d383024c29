"""`tuning tokens thinking`: what the mode of thinking changes in prompts and in texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options
from tuning.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from tuning.tokens.chat_modes import TemplateModes, Token
    from tuning.tokens.texts import ThinkingTexts
    from tuning.tokens.thinking import Contrast, ThinkingAnalysis

NUM_ROWS = 10
"""Tokens of a table on the terminal; the file has all."""

TextsOption = Annotated[
    Path | None,
    typer.Option(help="Texts written with thinking on: one a line, or JSONL with text."),
]
DirectOption = Annotated[
    Path | None, typer.Option(help="Texts written with thinking off, in the same form.")
]
OutputsOption = Annotated[
    Path | None,
    typer.Option(
        help="Instead of both: JSONL with mode and text, such as a trial's thinking.jsonl."
    ),
]


def thinking(
    thinking_texts: TextsOption = None,
    direct_texts: DirectOption = None,
    outputs: OutputsOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="Instead of files: what the model of this experiment answered, run with "
            "analyze_thinking_mode."
        ),
    ] = None,
    tokenizer: options.TokenizerFile = None,
    seed: Annotated[int, typer.Option(help="Of random splits and draws.", min=0)] = 0,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Compare thinking with non-thinking: what the chat template adds, and which tokens texts use.

    Writes thinking.json and a figure. Without files a few examples are compared.

    Example: tuning tokens thinking --thinking-texts thought.txt --direct-texts direct.txt
    """
    import json

    from tuning import files
    from tuning.cli.progress import working
    from tuning.composition import load
    from tuning.figures.thinking import TITLE, draw_thinking
    from tuning.qwen3_tokenizer import qwen3_tokenizer
    from tuning.token_analysis import own_outputs
    from tuning.tokens.thinking import analyze_thinking
    from tuning.visualization import save_chart

    files_given = (thinking_texts, direct_texts, outputs)
    if config is None:
        texts = _texts(*files_given)
    elif any(given is not None for given in files_given):
        raise UserError("--config has the texts of an experiment; give no files of texts")
    else:
        texts = own_outputs(
            load(config, config_dirs=[config_dir]), options.results_root(results_dir)
        )
    loaded = qwen3_tokenizer(tokenizer)
    with working("comparing and drawing", quiet=quiet):
        analysis = analyze_thinking(loaded, texts, seed=seed)
        place, found = options.results_root(results_dir).token_analysis.thinking, analysis.to_json()
        files.write_json(place, found)
        paths = [place, *save_chart(draw_thinking(analysis), place.parent, place.stem, TITLE)]
    if as_json:
        typer.echo(json.dumps({**found, "files": [str(path) for path in paths]}))
        return
    _show(analysis, paths)


def _texts(
    thinking: Path | None, direct: Path | None, outputs: Path | None
) -> ThinkingTexts | None:
    from tuning.tokens.texts import ThinkingTexts, read_outputs, read_texts

    if outputs is not None:
        if thinking is not None or direct is not None:
            raise UserError("--outputs holds both sets; give no --thinking-texts or --direct-texts")
        return read_outputs(outputs)
    if thinking is None and direct is None:
        return None
    if thinking is None or direct is None:
        given, other = ("thinking", "direct") if direct is None else ("direct", "thinking")
        raise UserError(f"--{given}-texts needs --{other}-texts: two sets are compared")
    return ThinkingTexts(read_texts(thinking), read_texts(direct), f"{thinking} and {direct}")


def _show(analysis: ThinkingAnalysis, paths: Sequence[Path]) -> None:
    from tuning.cli.tables import CONSOLE
    from tuning.tokens.texts import Mode

    CONSOLE.print(_template_table(analysis.template))
    CONSOLE.print(_use_table(analysis))
    for mode in Mode:
        CONSOLE.print(_typical_table(analysis.most_typical_of(mode)[:NUM_ROWS], mode))
    if analysis.warning:
        typer.echo(f"read with care: {analysis.warning}")
    for sentence in analysis.sentences:
        typer.echo(f"- {sentence}")
    typer.echo(f"texts: {analysis.source}")
    for path in paths:
        typer.echo(f"wrote {path}")


def _template_table(template: TemplateModes) -> Table:
    table = _table("The same questions in the chat template", "question", "task")
    for name in ("tokens alone", "thinking", "non-thinking", "added"):
        table.add_column(name, justify="right")
    for row in template.questions:
        sizes = (row.num_bare, row.num_thinking, row.num_non_thinking)
        table.add_row(row.question, row.task, *map(str, sizes), f"{row.overhead:+}")
    block = " ".join(f"{_visible(token)} ({token.id})" for token in template.think_block_tokens)
    added = len(template.added_by_thinking)
    table.caption = (
        f"Non-thinking adds an empty think block of {len(template.think_block_tokens)} tokens: "
        f"{block}. Thinking adds {added or 'no'} token: the model itself opens <think>."
    )
    table.caption_justify = "left"
    return table


def _use_table(analysis: ThinkingAnalysis) -> Table:
    table = _table("The texts", "mode")
    for name in ("texts", "tokens", "tokens per text", "unique tokens", "only here"):
        table.add_column(name, justify="right")
    for mode, use in analysis.uses.items():
        table.add_row(
            mode.says,
            f"{use.num_texts:,}",
            f"{use.num_tokens:,}",
            f"{use.tokens_per_text:.1f}",
            f"{len(use.tokens):,}",
            f"{len(analysis.only_in(mode)):,}",
        )
    return table


def _typical_table(contrasts: Sequence[Contrast], mode: str) -> Table:
    name = mode.replace("_", "-")
    table = _table(f"Most typical of {name} texts", "token")
    for column in ("id", "thinking", "non-thinking", "log2 odds", "z"):
        table.add_column(column, justify="right")
    for c in contrasts:
        counts = (f"{c.thinking:,}", f"{c.non_thinking:,}")
        table.add_row(_visible(c), str(c.id), *counts, f"{c.log_odds:+.1f}", f"{c.z:+.1f}")
    return table


def _table(title: str, *texts: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in texts:
        table.add_column(name, overflow="fold")
    return table


def _visible(token: Token) -> str:
    from rich.markup import escape

    from tuning.tokens.vocabulary import visible_text

    return escape(visible_text(token.text))
