"""`tuning tasks`: look at what models are trained on and asked."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from tuning.cli import options

app = typer.Typer(
    no_args_is_help=True,
    help="The items that models are trained on and asked.\n\nExample: tuning tasks preview -n 3",
)


@app.command("preview")
def preview(
    model: options.ModelOption = "tiny",
    count: Annotated[
        int, typer.Option("--count", "-n", help="Items of each kind.", min=1, max=1000)
    ] = 4,
    difficulty: Annotated[str, typer.Option(help="Band of the training words.")] = "medium",
    seed: Annotated[int, typer.Option(help="Seed of the training stream.", min=0)] = 0,
    as_json: options.Json = False,
) -> None:
    """Show training examples and evaluation items, as text, without loading a model's weights.

    Example: tuning tasks preview --model tiny -n 3
    """
    from tuning.errors import UserError, nearest
    from tuning.model.base import subject_words, tokenizer_of
    from tuning.tasks.difficulty import Band
    from tuning.tasks.items import EVALUATED_TASKS
    from tuning.tasks.splits import Split, split_words
    from tuning.tasks.stream import TrainingStream, words_in_band
    from tuning.tasks.suite import build_suite

    if difficulty not in list(Band):
        raise UserError(
            f"difficulty {difficulty!r}: no such band; {nearest(difficulty, list(Band))}"
        )
    tokenizer = tokenizer_of(model)
    words = split_words(subject_words(model))
    trained = words[Split.TRAIN]
    stream = TrainingStream(
        spelled_words=words_in_band(trained, Band(difficulty), tokenizer.count_tokens),
        replay_words=trained,
        data_ratio=0.7,
        augmentation=True,
        seed=seed,
    )
    suite = build_suite(words[Split.VALIDATION], max(30, 3 * count), tokenizer.count_tokens)
    shown = {"training": [stream.example(i) for i in range(count)]}
    for task in EVALUATED_TASKS:
        shown[f"evaluation: {task.value}"] = [i for i in suite.items if i.task is task][:count]
    for kind, items in shown.items():
        if not as_json:
            typer.secho(kind, bold=True)
        for item in items:
            if as_json:
                typer.echo(json.dumps({"kind": kind, **dataclasses.asdict(item)}))
            else:
                typer.echo(f"  {item.question!r} -> {item.answer!r}  ({item.template})")
