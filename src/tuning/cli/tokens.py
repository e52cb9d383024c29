"""`tuning tokens`: the vocabulary of Qwen3, its English part, how words are cut, thinking."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import options, token_modes, token_show
from tuning.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from tuning.config import ExperimentConfig
    from tuning.tokens.subset import SubsetRule

app = typer.Typer(
    no_args_is_help=True,
    help="The tokens of Qwen3.\n\nExample: tuning tokens show strawberry",
)

RuleOption = Annotated[
    str | None,
    typer.Option(
        "--rule",
        help="Which tokens count as English: letters, printable, ascii or dictionary.",
        show_default="printable",
    ),
]
WordsFile = Annotated[
    Path | None,
    typer.Option("--words", help="Your own words, one a line, instead of wordfreq's 271,525."),
]


@dataclass(frozen=True, kw_only=True)
class AnalysisRequest:
    """What is analysed, and how it is shown."""

    english_only: bool = False
    thinking: bool = False
    rule: str | None = None
    config: Path | None = None
    words: Path | None = None
    outputs: Path | None = None
    tokenizer: Path | None = None
    figures: bool = True
    quiet: bool = False
    as_json: bool = False
    results_dir: Path = options.RESULTS_DIR
    config_dir: Path = options.CONFIG_DIR


@app.command("analyze")
def analyze(
    english_only: Annotated[
        bool, typer.Option("--english-only", help="Also count the English tokens.")
    ] = False,
    thinking: Annotated[
        bool, typer.Option("--analyze-thinking", help="Also compare both modes of thinking.")
    ] = False,
    rule: RuleOption = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Take these settings from a configuration.")
    ] = None,
    words: WordsFile = None,
    outputs: Annotated[
        Path | None,
        typer.Option(help="A model's outputs in both modes, such as a trial's thinking.jsonl."),
    ] = None,
    tokenizer: options.TokenizerFile = None,
    figures: Annotated[
        bool, typer.Option("--figures/--no-figures", help="Whether to draw.")
    ] = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Analyse the whole vocabulary, and how 271,525 words are cut; write numbers and figures.

    Example: tuning tokens analyze --english-only --analyze-thinking
    """
    run_analysis(
        AnalysisRequest(
            english_only=english_only,
            thinking=thinking,
            rule=rule,
            config=config,
            words=words,
            outputs=outputs,
            tokenizer=tokenizer,
            figures=figures,
            quiet=quiet,
            as_json=as_json,
            results_dir=results_dir,
            config_dir=config_dir,
        )
    )


def run_analysis(request: AnalysisRequest) -> None:
    """Analyse, write and print."""
    from tuning.cli.progress import telling
    from tuning.config import TokenizerConfig
    from tuning.token_analysis import analyze_qwen3_tokenizer, own_outputs
    from tuning.tokens.texts import read_outputs

    config = _configuration(request)
    settings = config.tokenizer_config if config is not None else TokenizerConfig()
    if "qwen3" not in settings.model_name.lower() and settings.model_name != "tiny":
        note = f"the tokenizer of Qwen3 is analysed, not that of {settings.model_name}"
        typer.echo(f"read with care: {note}", err=True)
    thinking = request.thinking or settings.analyze_thinking_mode
    if request.outputs is not None and not thinking:
        raise UserError("--outputs needs --analyze-thinking: outputs of both modes are compared")
    texts = read_outputs(request.outputs) if request.outputs else None
    if texts is None and thinking and config is not None:
        try:
            texts = own_outputs(config, options.results_root(request.results_dir))
        except NotFoundError as error:
            typer.echo(f"read with care: {error}; a few examples are compared instead", err=True)
    with telling(quiet=request.quiet) as on_progress:
        stats = analyze_qwen3_tokenizer(
            request.english_only or settings.use_english_only_tokens,
            thinking,
            results_dir=options.results_root(request.results_dir).root,
            tokenizer=request.tokenizer,
            subset_rule=request.rule or settings.subset_rule,
            word_list=request.words,
            thinking_texts=texts,
            figures=request.figures,
            on_progress=on_progress,
        )
    if request.as_json:
        typer.echo(json.dumps(stats))
        return
    _say_vocabulary(stats)
    _say_words(stats["words"])
    comparison = stats.get("thinking_comparison", {})
    if comparison.get("warning"):
        typer.echo(f"read with care: {comparison['warning']}")
    for sentence in comparison.get("sentences", []):
        typer.echo(f"- {sentence}")
    typer.echo(f"wrote {options.results_root(request.results_dir).token_analysis.root}")


def _configuration(request: AnalysisRequest) -> ExperimentConfig | None:
    from tuning.composition import load

    if request.config is None:
        return None
    # The files of configs/hyperparameters/token_analysis have no name of their own.
    return load(request.config, ["experiment_name=tokens"], [request.config_dir])


# --- the English part ---------------------------------------------------------------------------


@app.command("subset")
def subset(
    rule: RuleOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Another model, whose own tokenizer is only looked at."),
    ] = None,
    tokenizer: options.TokenizerFile = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Write the English part of the vocabulary: a map of tokens to ids, and by which rule.

    Example: tuning tokens subset --rule letters
    """
    from tuning.cli.progress import working
    from tuning.token_analysis import subset_json
    from tuning.tokens.subset import SubsetRule

    chosen = SubsetRule.named(rule) if rule is not None else SubsetRule.PRINTABLE
    if model is not None:
        if tokenizer is not None:
            raise UserError("--model brings its own tokenizer; give no --tokenizer")
        with working("reading the tokenizer", quiet=quiet):
            facts = _subset_of_model(model, chosen)
    else:
        from tuning.qwen3_tokenizer import qwen3_tokenizer
        from tuning.token_analysis import write_subset

        with working("reading the tokenizer", quiet=quiet):
            loaded = qwen3_tokenizer(tokenizer)
            kept = loaded.subset(chosen)
            folder = options.results_root(results_dir).token_analysis
            paths = write_subset(folder, loaded, kept)
        facts = {**subset_json(kept), "files": [str(path) for path in paths]}
    if as_json:
        typer.echo(json.dumps(facts))
        return
    _say_subset(facts)
    for path in facts.get("files", []):
        typer.echo(f"wrote {path}")


def _subset_of_model(name: str, rule: SubsetRule) -> dict[str, Any]:
    from tuning.model.base import tokenizer_of
    from tuning.token_analysis import subset_json

    sliced = tokenizer_of(name, rule).subset
    assert sliced is not None
    return {"model": name, **subset_json(sliced, tokenizer_of(name).vocab_size)}


def _say_subset(facts: Mapping[str, Any]) -> None:
    reasons = facts["num_by_reason"]
    beside = facts["num_tokens"] - reasons["rule"] - reasons["padding"]
    typer.echo(
        f"English tokens: {facts['num_tokens']:,} of {facts['vocabulary_size']:,}, "
        f"{100 * facts['share']:.2f} %: {reasons['rule']:,} by the rule {facts['rule']} "
        f"({facts['says']}), {beside:,} that prompts need, {reasons['padding']} of padding"
    )


# --- words --------------------------------------------------------------------------------------


@app.command("words")
def words(
    words: WordsFile = None,
    top: Annotated[
        int, typer.Option("--top", help="Most fragmented words to list.", min=1, max=1000)
    ] = 20,
    tokenizer: options.TokenizerFile = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Cut a list of words: tokens by frequency and length, stem borders, the worst; write all.

    Example: tuning tokens words --words examples/words.txt
    """
    from tuning.cli.progress import telling
    from tuning.qwen3_tokenizer import qwen3_tokenizer
    from tuning.token_analysis import analyze_words, words_of, write_words
    from tuning.tokens.word_summaries import most_fragmented, rows_of

    listed = words_of(words)
    with telling(quiet=quiet) as on_progress:
        loaded = qwen3_tokenizer(tokenizer)
        found = analyze_words(loaded, listed, on_progress)
        on_progress("writing")
        paths = write_words(options.results_root(results_dir).token_analysis, loaded, found)
    facts = {**found.to_json(), "most_fragmented": rows_of(most_fragmented(found.table, top))}
    if as_json:
        typer.echo(json.dumps({**facts, "files": [str(path) for path in paths]}))
        return
    _say_words(facts)
    for path in paths:
        typer.echo(f"wrote {path}")


app.command("show")(token_show.show)
app.command("thinking")(token_modes.thinking)


# --- on the terminal ----------------------------------------------------------------------------


def _say_vocabulary(stats: Mapping[str, Any]) -> None:
    sizes, source = stats["sizes"], stats["tokenizer"]
    typer.echo(
        f"vocabulary size: {stats['vocab_size']:,} tokens, {sizes['base_tokens']:,} of merged "
        f"bytes and {sizes['added_tokens']} added; the model has {sizes['model_rows']:,} rows, "
        f"the last {sizes['padding_rows']} padding"
    )
    typer.echo(f"tokenizer: {source['path']} ({source['source']})")
    if "english_token_count" in stats:
        _say_subset(stats["english_subset"])
    _print(
        "Tokens by what they hold",
        stats["tokens_by_category"],
        {"category": str, "num_tokens": _whole, "num_english": _whole},
    )
    rules = [{"rule": rule, "tokens": number} for rule, number in stats["tokens_by_rule"].items()]
    naive = {"rule": "ASCII as raw strings", "tokens": stats["ascii_as_raw_strings"]}
    _print("Base tokens by rule", [*rules, naive], {"rule": str, "tokens": _whole})


def _say_words(facts: Mapping[str, Any]) -> None:
    typer.echo(f"words: {facts['num_words']:,} of {facts['source']}")
    shares = {"num_words": _whole, "mean_tokens": _decimals, "multi_token_rate": _percent}
    _print(
        "By form",
        facts["tokens_by_form"],
        {"form": str, "mean_tokens": _decimals, "multi_token_rate": _percent},
    )
    _print("By Zipf frequency", facts["tokens_by_frequency"], {"frequency": str, **shares})
    _print(
        "Tokens of one letter, in words of several tokens",
        facts["single_letters"],
        {"num_single_letters": _whole, "num_words": _whole, "rate": _percent},
    )
    _print("By letters", facts["tokens_by_length"], {"num_letters": _whole, **shares})
    _print("By difficulty", facts["tokens_by_difficulty"], {"difficulty": str, **shares})
    rates = {"rate": _percent, "low": _percent, "high": _percent, "rate_at_random": _percent}
    _print(
        "Cuts where a suffix begins",
        facts["stem_borders"],
        {"suffix": str, "num_words": _whole, **rates},
    )
    for name, borders in facts["cuts_at_stem_borders"].items():
        if borders is not None:
            low, high = borders["interval"]
            typer.echo(
                f"{name.replace('_', ' ')}: a token ends at the stem border in "
                f"{100 * borders['rate']:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of "
                f"{borders['num_words']:,} words, random cuts would in "
                f"{100 * borders['rate_at_random']:.1f} %"
            )
    _print(
        "Most fragmented words",
        facts["most_fragmented"],
        {"word": str, "zipf": _decimals, "pieces_spaced": str, "pieces_capitalised": str},
    )


def _whole(value: int) -> str:
    return f"{value:,}"


def _decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _print(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, Callable[[Any], str]],
) -> None:
    """Print columns of rows as a table; none where there are no rows."""
    from rich.markup import escape
    from rich.table import Table

    from tuning.cli.tables import CONSOLE

    if not rows:
        return
    table = Table(title=title, title_justify="left")
    for name, written in columns.items():
        heading = name.removeprefix("num_").replace("_", " ")
        table.add_column(heading, justify="left" if written is str else "right")
    for row in rows:
        table.add_row(*(escape(written(row[name])) for name, written in columns.items()))
    CONSOLE.print(table)
