"""`tuning tasks`: what models are trained on and asked, and what is never a subject."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import options
from tuning.errors import ConfigError

if TYPE_CHECKING:
    from tuning.config import ExperimentConfig
    from tuning.model.tokenizer import TextTokenizer
    from tuning.tasks.items import Item
    from tuning.tasks.suite import Suite
    from tuning.training_data import TrainingData

app = typer.Typer(
    no_args_is_help=True,
    help="The items that models are trained on and asked.\n\nExample: tuning tasks preview -n 3",
)

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="A configuration whose data to show.")
]


@dataclasses.dataclass(frozen=True)
class _Data:
    config: ExperimentConfig
    tokenizer: TextTokenizer
    training: TrainingData
    suite: Suite


def _data(config: ExperimentConfig, num_words: int | None) -> _Data:
    """Return training examples and evaluation items of a configuration; loads no weights."""
    from tuning.model.base import subject_words, tokenizer_of, training_data_of
    from tuning.tasks.splits import Split, split_subjects
    from tuning.tasks.suite import build_suite

    name, subset = config.tokenizer_config.model_name, config.tokenizer_config.subset
    tokenizer = tokenizer_of(name, subset)
    words = split_subjects(subject_words(name, subset))
    training = training_data_of(config, words[Split.TRAIN], tokenizer)
    size = num_words or config.evaluation_config.num_words
    return _Data(
        config, tokenizer, training, build_suite(words[Split.VALIDATION], size, tokenizer.cut)
    )


def _configuration(path: Path | None, overrides: list[str]) -> ExperimentConfig:
    from tuning.composition import load, overridden
    from tuning.config import build

    if path is not None:
        return load(path, overrides)
    raw = {"experiment_name": "preview", "tokenizer_config": {"model_name": "tiny"}}
    return overridden(build(raw, "tuning tasks"), overrides)


@app.command("preview")
def preview(
    overrides: options.Overrides = None,
    config: ConfigOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Instead of the model given.")
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", help="Items of each kind.", min=1, max=1000)
    ] = 4,
    as_prompts: Annotated[
        bool, typer.Option("--prompts", help="Show whole prompts, chat template included.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Show training examples and evaluation items, as text, without loading a model's weights.

    An item that the model has no tokens for is marked. With --json each item is a line.

    Example: tuning tasks preview -n 3 spelling_difficulty=hard arm=format_control
    """
    from tuning.tasks.items import EVALUATED_TASKS

    given = [*(overrides or []), *([f"tokenizer_config.model_name={model}"] if model else [])]
    data = _data(_configuration(config, given), max(30, 3 * count))
    stream = data.training.stream
    shown = {f"training, arm {stream.arm.value}": [stream.example(i) for i in range(count)]}
    for task in EVALUATED_TASKS:
        of_task = [i for i in data.suite.items if i.task == task]
        shown[f"evaluation: {task.value}"] = of_task[:count]
    if as_json:
        for kind, items in shown.items():
            for item in items:
                row = {"kind": kind, **_row(item, data.tokenizer)}
                typer.echo(json.dumps({**row, "lacks": _lacks(item, data.tokenizer)}))
        return
    for kind, items in shown.items():
        typer.secho(kind, bold=True)
        for item in items:
            asked = (
                data.tokenizer.prompt_of(item.question, item.shots) if as_prompts else item.question
            )
            typer.echo(f"  {asked!r} -> {item.answer!r}  ({item.template})")
            if lacking := _lacks(item, data.tokenizer):
                typer.echo(f"    cannot be asked: the model has no token for {_quoted(lacking)}")


def _lacks(item: Item, tokenizer: TextTokenizer) -> list[str]:
    """Return the tokens that the model would need to be asked an item, and to answer it."""
    prompt = tokenizer.prompt_of(item.question, item.shots)
    missing = (*tokenizer.missing_tokens(prompt), *tokenizer.missing_tokens(item.answer))
    return list(dict.fromkeys(missing))


def _quoted(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, texts))


def _row(item: Item, tokenizer: TextTokenizer) -> dict[str, Any]:
    return {
        "task": str(item.task),
        "word": item.word,
        "template": item.template,
        "question": item.question,
        "prompt": tokenizer.prompt_of(item.question, item.shots),
        "answer": item.answer,
        "position": item.n,
        "letter": item.letter,
        "stratum": item.stratum,
    }


@app.command("export")
def export(
    output: Annotated[Path, typer.Option(help="New folder for the files.")],
    overrides: options.Overrides = None,
    config: ConfigOption = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps of training; by default all.", min=1)
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write what a configuration trains on and is asked: JSONL, with a manifest of hashes.

    Example: tuning tasks export --config configs/hyperparameters/tiny_default.yaml --output data
    """
    from tuning import files
    from tuning.fingerprint import training_key
    from tuning.tasks.words import benchmark_words, hash_of_words

    chosen = _configuration(config, overrides or [])
    if output.exists():
        raise ConfigError(f"{output} exists; name a new folder")
    data = _data(chosen, None)
    size = chosen.training_config.effective_batch_size
    num_examples = (steps or chosen.training_config.max_steps) * size
    stream = data.training.stream
    temporary = output.with_name(f".{output.name}.partial")
    files.remove_folder(temporary)
    files.make_folder(temporary)
    rows = {
        "train.jsonl": (
            {"step": i // size + 1, **_row(stream.example(i), data.tokenizer)}
            for i in range(num_examples)
        ),
        "validation.jsonl": (
            {**_row(item, data.tokenizer), "band": facts.band.value, "tokens": facts.num_tokens}
            for item, facts in zip(data.suite.items, data.suite.facts, strict=True)
        ),
    }
    written = {name: files.write_jsonl(temporary / name, lines) for name, lines in rows.items()}
    manifest = {
        "files": {name: count_and_hash._asdict() for name, count_and_hash in written.items()},
        "training_key": training_key(chosen),
        "suite": data.suite.key,
        "mix": data.suite.mix(),
        "trained_words": {
            "count": len(stream.spelled_words),
            "sha256": hash_of_words(stream.spelled_words),
        },
        "benchmark_words_sha256": hash_of_words(sorted(benchmark_words())),
        "left_out": dict(data.training.left_out),
        "config": chosen.model_dump(mode="json"),
    }
    files.write_json(temporary / "manifest.json", manifest)
    files.publish_folder(temporary, output)
    if not quiet:
        lines = (f"{name} {w.num_lines:,} lines" for name, w in written.items())
        typer.echo(f"wrote {output}: {', '.join(lines)}, manifest.json")


@app.command("exclusions")
def exclusions(
    words: Annotated[
        Path | None, typer.Option("--words", help="Your own word list instead of ours.")
    ] = None,
    list_words: Annotated[bool, typer.Option("--list", help="Also name the words.")] = False,
    as_json: options.Json = False,
) -> None:
    """Report which words are never a subject of training, which are exempt, and why.

    Example: tuning tasks exclusions
    """
    from tuning.model.tiny import EXTRA_TEMPLATES, tiny_words
    from tuning.tasks.words import english_words, read_word_list
    from tuning.training_data import exclusion_report

    lists = (
        {str(words): read_word_list(words)}
        if words is not None
        else {
            "English words of wordfreq": english_words(),
            "pretraining of tiny": tiny_words().pretraining,
            "study words of tiny": tiny_words().study,
        }
    )
    report = exclusion_report(lists, EXTRA_TEMPLATES)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(report)))
        return
    typer.echo(f"benchmark words: {report.num_benchmark_words:,}")
    for name, counts in report.lists.items():
        typer.echo(
            f"{name}: {counts.num_words:,} words; left out {counts.num_listed:,} that are listed "
            f"and {counts.num_same_stem:,} of the same stem; kept {counts.num_kept:,}"
        )
    typer.echo(
        f"exempt, because they stand in the wording of templates and fixed replay, never as a "
        f"subject: {', '.join(report.exempt)}"
    )
    if list_words:
        for word in report.left_out:
            typer.echo(word)


@app.command("scan")
def scan(
    file: Annotated[Path, typer.Argument(help="Training text: JSON lines with prompt and answer.")],
    as_json: options.Json = False,
) -> None:
    """Find every line of a training text that teaches position, count, length or contents.

    Exits with 2 when a line does. The same scanner reads every example before a training begins.

    Example: tuning tasks scan examples/replay.jsonl
    """
    from tuning.tasks.replay import leaks_in

    found = []
    num_lines = 0
    for number, finding in leaks_in(file):
        num_lines += 1
        if finding is not None:
            found.append({"line": number, "leak": finding.leak.value, "text": finding.text})
    if as_json:
        typer.echo(json.dumps({"num_lines": num_lines, "findings": found}))
    else:
        for row in found:
            typer.echo(f"{file}, line {row['line']}: {row['leak']} content: {row['text']!r}")
        typer.echo(f"{num_lines:,} lines read, {len(found):,} with letter-level content")
    if found:
        raise typer.Exit(2)
