"""`tuning models`: what can be trained, and the making of the embedded model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuning.cli import options

app = typer.Typer(no_args_is_help=True, help="The base models.\n\nExample: tuning models list")


@app.command("list")
def list_models() -> None:
    """List the models that have a name here.

    Example: tuning models list
    """
    from tuning.config import HUB_IDS
    from tuning.model.tiny import tiny_card

    size = f"{int(str(tiny_card()['num_parameters'])) / 1e6:.2f} M parameters"
    typer.echo(f"{'tiny':14} embedded, {size}, works offline")
    for name, hub_id in HUB_IDS.items():
        typer.echo(f"{name:14} {hub_id}, from the Hub")


@app.command("build-tiny")
def build_tiny(
    output: Annotated[Path, typer.Option(help="Folder for weights, card and word lists.")],
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps; fewer for a try.", min=4)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.", min=0)] = 0,
    num_threads: Annotated[int, typer.Option(help="Processor threads.", min=1)] = 2,
    quiet: options.Quiet = False,
) -> None:
    """Pretrain the embedded model from nothing, as the shipped one was made.

    Example: tuning models build-tiny --output tiny_again
    """
    import dataclasses

    import torch
    from rich.progress import Progress

    from tuning.training.pretrain_tiny import PretrainingSettings, pretrain

    torch.set_num_threads(num_threads)
    settings = PretrainingSettings(seed=seed)
    if steps is not None:
        settings = dataclasses.replace(
            settings, num_steps=steps, warmup_steps=min(settings.warmup_steps, steps // 2)
        )
    with Progress(disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task("pretraining", total=settings.num_steps)

        def on_step(step: int, loss: float) -> None:
            progress.update(task, completed=step, description=f"pretraining, loss {loss:.3f}")
            if not quiet and step % 500 == 0 and not sys.stderr.isatty():
                typer.echo(f"step {step} of {settings.num_steps}: loss {loss:.3f}", err=True)

        pretrain(output, settings, on_step)
    typer.echo(f"wrote {output}")
