"""`tuning evaluate`: score a model, with or without an adapter, and certify the scoring."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options

if TYPE_CHECKING:
    from tuning.evaluation.certificate import Certificate


class WordSet(StrEnum):
    """Which words are asked about."""

    VALIDATION = "validation"
    TRAIN = "train"
    PRETRAINING = "pretraining"


def evaluate(
    model: options.ModelOption = "tiny",
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of an adapter in PEFT's format.")
    ] = None,
    words: Annotated[
        WordSet, typer.Option(help="Held-out words, trained ones, or those tiny was pretrained on.")
    ] = WordSet.VALIDATION,
    num_words: Annotated[int, typer.Option(help="Words a task.", min=10, max=100_000)] = 1000,
    certify: Annotated[
        int | None,
        typer.Option(help="Compare this many one-pass decisions with real greedy decoding.", min=1),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write the predictions to this parquet file.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a model on spelling, position and count; with an adapter, also the gain it brings.

    Example: tuning evaluate --model tiny --certify 2000
    """
    from tuning.cli.progress import ERRORS
    from tuning.model.base import check_name

    check_name(model)
    from tuning.evaluation.bench import evaluate_model
    from tuning.model.machine import quiet_libraries

    with quiet_libraries():
        if certify is not None:
            _certify(model, adapter, certify, as_json=as_json)
            return
        show = ERRORS.status("scoring") if not quiet and ERRORS.is_terminal else nullcontext()
        with show:
            evaluated = evaluate_model(model, adapter, words.value, num_words)
    if output is not None:
        from tuning import files

        files.write_atomic(output, evaluated.tuned.to_parquet(index=False))
    if as_json:
        tasks = {task: dataclasses.asdict(r) for task, r in evaluated.results.items()}
        typer.echo(
            json.dumps(
                {
                    "model": evaluated.says,
                    "words": words.value,
                    "mix": evaluated.mix,
                    "tasks": tasks,
                }
            )
        )
        return
    from tuning.cli import tables

    title = (
        f"{evaluated.says}, {words.value} words{'' if adapter is None else f', adapter {adapter}'}"
    )
    tables.CONSOLE.print(
        tables.accuracy_table(evaluated.results, title)
        if adapter is None
        else tables.task_table(evaluated.results, title)
    )
    tables.CONSOLE.print(tables.mix_text(evaluated.mix))


def _certify(model: str, adapter: Path | None, count: int, *, as_json: bool) -> None:
    from tuning.evaluation.bench import certify_model

    certificate = certify_model(model, adapter, count)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(certificate)))
        return
    typer.echo(_certificate_text(certificate))


def _certificate_text(c: Certificate) -> str:
    return (
        f"{c.model}, {c.precision} on {c.device}: one pass against greedy decoding\n"
        f"agreement {100 * c.agreement:.2f} % of {c.num_items} items "
        f"({c.num_disagreements} differ)\n"
        f"decoded for real {100 * c.share_decoded:.2f} % (margin {c.margin:.2g} logits)\n"
        f"time {c.one_pass_seconds:.2f} s against {c.greedy_seconds:.2f} s: "
        f"{c.greedy_seconds / c.one_pass_seconds:.1f} times faster"
    )
