"""`tuning evaluate`: score a model, with or without an adapter, and certify the scoring."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import completion, options
from tuning.errors import ConfigError
from tuning.tasks.prompts import Prompting
from tuning.tokens.subset import SubsetRule

if TYPE_CHECKING:
    import pandas as pd

    from tuning.evaluation.certificate import Certificate
    from tuning.evaluation.on_demand import Evaluated, Question
    from tuning.paths import ResultsRoot


class WordSet(StrEnum):
    """Which words are asked about."""

    VALIDATION = "validation"
    TRAIN = "train"
    PRETRAINING = "pretraining"


class Precision(StrEnum):
    """Type of numbers of the model."""

    AUTO = "auto"
    FP32 = "32-true"
    BF16 = "bf16"
    FP16 = "fp16"


def evaluate(
    model: Annotated[
        str | None,
        typer.Option(
            help="Known name, Hub id or folder; by default the adapter's own, or tiny.",
            autocompletion=completion.model_names,
        ),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of an adapter in PEFT's format.")
    ] = None,
    words: Annotated[
        WordSet, typer.Option(help="Held-out words, trained ones, or those tiny was pretrained on.")
    ] = WordSet.VALIDATION,
    suite: Annotated[
        Path | None,
        typer.Option(help="Your own items instead: .jsonl, or .tsv in CUTE's layout."),
    ] = None,
    num_words: Annotated[int, typer.Option(help="Words a task.", min=10, max=100_000)] = 1000,
    num_generated: Annotated[
        int, typer.Option(help="Items decoded freely, for the lenient reading.", min=0)
    ] = 300,
    prompting: Annotated[
        Prompting, typer.Option(help="Put items with four examples, or with the spelling told.")
    ] = Prompting.ZERO_SHOT,
    precision: Annotated[
        Precision, typer.Option(help="Of the model; auto is what the machine has.")
    ] = Precision.AUTO,
    subset: Annotated[
        str | None,
        typer.Option(
            help="Ask on the English part of the vocabulary alone: letters, printable, ascii or "
            "dictionary."
        ),
    ] = None,
    strata: Annotated[
        bool, typer.Option("--strata", help="Also show every stratum with its own baseline.")
    ] = False,
    certify: Annotated[
        int | None,
        typer.Option(help="Compare this many one-pass decisions with real greedy decoding.", min=1),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Also write the predictions here: .parquet, .csv, .jsonl.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Score a model on spelling, position and count; with an adapter, also the gain it brings.

    Answers are kept in the results folder: the same question is not asked twice.

    Examples: tuning evaluate --model tiny --certify 2000

    tuning evaluate --suite items.jsonl --output predictions.csv
    """
    name = options.model_of(model, adapter)
    if adapter is not None and prompting is not Prompting.ZERO_SHOT:
        raise ConfigError(
            f"--prompting {prompting.value} is asked of the untouched model; leave out --adapter"
        )
    if suite is not None and prompting is not Prompting.ZERO_SHOT:
        raise ConfigError(
            f"--prompting {prompting.value} is for our own items; write your own prompts into "
            f"{suite}"
        )
    if output is not None and certify is not None:
        raise ConfigError(
            "--certify compares decisions and makes no predictions; leave out --output"
        )
    if output is not None and output.suffix not in _WRITERS:
        raise ConfigError(
            f"--output must end in {', '.join(_WRITERS)}, got {output.suffix or str(output)!r}"
        )
    from tuning.cli.progress import item_progress
    from tuning.config import EvaluationConfig
    from tuning.evaluation.on_demand import Question, evaluate_model
    from tuning.model.machine import quiet_libraries, threads
    from tuning.paths import ResultsRoot

    sizes = EvaluationConfig(
        num_words=num_words, num_monitor_words=3, num_generated_items=num_generated
    )
    question = Question(
        model=name,
        adapter=adapter,
        words=words.value,
        suite=suite,
        prompting=prompting,
        sizes=sizes,
        precision=precision.value,
        subset=SubsetRule.named(subset) if subset is not None else None,
    )
    root = ResultsRoot(results_dir)
    with quiet_libraries(), threads(None), item_progress(quiet=quiet) as on_progress:
        if certify is not None:
            _certify(question, root, certify, as_json=as_json)
            return
        evaluated = evaluate_model(
            question, root, with_strata=strata or as_json, on_progress=on_progress
        )
    if output is not None:
        _write(evaluated.predictions, output)
    if as_json:
        typer.echo(_as_json(question, evaluated))
    else:
        _print(question, evaluated)


def _parquet(predictions: pd.DataFrame) -> bytes:
    written: bytes = predictions.to_parquet(index=False)
    return written


def _csv(predictions: pd.DataFrame) -> str:
    written: str = predictions.to_csv(index=False)
    return written


def _jsonl(predictions: pd.DataFrame) -> str:
    written: str = predictions.to_json(orient="records", lines=True)
    return written


_WRITERS: Mapping[str, Callable[[pd.DataFrame], bytes | str]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}


def _write(predictions: pd.DataFrame, output: Path) -> None:
    from tuning import files

    files.write_atomic(output, _WRITERS[output.suffix](predictions))


def _as_json(question: Question, evaluated: Evaluated) -> str:
    return json.dumps(
        {
            "model": evaluated.says,
            "words": str(question.suite or question.words),
            "prompting": question.prompting.value,
            "mix": evaluated.mix,
            "tasks": {task: dataclasses.asdict(r) for task, r in evaluated.results.items()},
            "strata": [dataclasses.asdict(s) for s in evaluated.strata],
            "retention": {name: dataclasses.asdict(d) for name, d in evaluated.retention.items()},
            "num_decoded": evaluated.num_decoded,
            "num_disagreements": evaluated.num_disagreements,
            "predictions": str(evaluated.place / "predictions.parquet"),
        }
    )


def _print(question: Question, evaluated: Evaluated) -> None:
    from tuning.cli import tables

    asked = str(question.suite) if question.suite else f"{question.words} words"
    title = f"{evaluated.says}, {asked}, {question.prompting.value.replace('_', '-')}"
    is_tuned = question.adapter is not None
    if is_tuned:
        title += f", adapter {question.adapter}"
    show = tables.CONSOLE.print
    show((tables.task_table if is_tuned else tables.accuracy_table)(evaluated.results, title))
    show(tables.readings_table(evaluated.results, is_tuned=is_tuned))
    if evaluated.strata:
        show(tables.strata_table(evaluated.strata, is_tuned=is_tuned))
    for text in (
        tables.mix_text(evaluated.mix),
        tables.retention_text(evaluated.retention),
        tables.agreement_text(evaluated.num_decoded, evaluated.num_disagreements),
        f"predictions: {evaluated.place / 'predictions.parquet'}",
    ):
        if text:
            show(text, soft_wrap=True)
    short = _words_short(question, evaluated)
    if short:
        show(short, soft_wrap=True)


def _words_short(question: Question, evaluated: Evaluated) -> str:
    """Say when there are fewer words than were asked for."""
    if question.suite is not None:
        return ""
    found = {task: r.base.num_words for task, r in evaluated.results.items() if task != "count"}
    fewest = min(found.values(), default=question.sizes.num_words)
    if fewest >= question.sizes.num_words:
        return ""
    return f"asked for {question.sizes.num_words} words a task; there are only {fewest}"


def _certify(question: Question, root: ResultsRoot, count: int, *, as_json: bool) -> None:
    from tuning.evaluation.on_demand import certify_model

    certificate = certify_model(
        dataclasses.replace(
            question,
            sizes=question.sizes.model_copy(update={"num_words": max(30, -(-count // 9) + 10)}),
        ),
        root,
        count,
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(certificate)))
        return
    typer.echo(certificate_text(certificate))


def certificate_text(c: Certificate) -> str:
    """Return a certificate in words."""
    return (
        f"{c.model}, {c.weights}, {c.precision} on {c.device}: one pass against greedy decoding\n"
        f"agreement {100 * c.agreement:.2f} % of {c.num_items} items "
        f"({c.num_disagreements} differ)\n"
        f"decoded for real {100 * c.share_decoded:.2f} % (margin {c.margin:.2g} logits)\n"
        f"time {c.one_pass_seconds:.2f} s against {c.greedy_seconds:.2f} s: "
        f"{c.greedy_seconds / c.one_pass_seconds:.1f} times faster"
    )
