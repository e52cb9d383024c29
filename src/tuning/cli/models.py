"""`tuning models`: what can be trained, where its weights are, and the making of new ones."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import completion, options

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot

app = typer.Typer(no_args_is_help=True, help="The base models.\n\nExample: tuning models list")

NameArgument = Annotated[
    str,
    typer.Argument(
        help="A known name, a Hub id, or a local folder.",
        metavar="MODEL",
        autocompletion=completion.model_names,
    ),
]


@app.command("list")
def list_models(as_json: options.Json = False) -> None:
    """List the models that have a name here, and which of them are on this machine.

    Example: tuning models list
    """
    from tuning.known_models import HUB_IDS, PACKAGED_MODELS
    from tuning.model.hub import NAMES, local_folder

    sources = {"tiny": "embedded"}
    sources |= {name: f"package {m.requirement}" for name, m in PACKAGED_MODELS.items()}
    sources |= {name: f"Hub, {hub_id}" for name, hub_id in HUB_IDS.items()}
    rows = [
        {"name": name, "source": sources[name], "is_here": local_folder(name) is not None}
        for name in NAMES
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        state = "here" if row["is_here"] else f"tuning models fetch {row['name']}"
        typer.echo(f"{row['name']:16} {row['source']:40} {state}")
    typer.echo("Any other Hub id (owner/model) or local folder can be given too.")


@app.command("fetch")
def fetch(
    name: NameArgument,
    index_url: Annotated[
        str | None, typer.Option(help="Package index for models that come from a package.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Download a model's weights into a cache, checked by hash; do nothing if they are here.

    Example: tuning models fetch smollm2-135m-q4
    """
    from tuning.cli.progress import ERRORS
    from tuning.model.hub import fetch, local_folder

    found = local_folder(name)
    if found is not None:
        typer.echo(f"{name} is here: {found}")
        return
    index = ("--index-url", index_url) if index_url else ()
    if quiet or not ERRORS.is_terminal:
        folder = fetch(name, index)
    else:
        with ERRORS.status(f"fetching {name}"):
            folder = fetch(name, index)
    typer.echo(f"fetched {name}: {folder}")


@app.command("info")
def info(
    name: NameArgument,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Show a model's size, layers, prompt and certificates, without loading its weights.

    Example: tuning models info tiny
    """
    from tuning.paths import ResultsRoot

    facts = _facts(name, ResultsRoot(results_dir))
    if as_json:
        typer.echo(json.dumps(facts))
        return
    certificates = facts.pop("certificates", [])
    for key, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        typer.echo(f"{key.replace('_', ' '):18} {shown}")
    for c in certificates:
        typer.echo(
            f"{'certificate':18} {c['weights']}, {c['precision']} on {c['device']}: one pass "
            f"agrees with greedy decoding on {100 * c['agreement']:.2f} % of "
            f"{c['num_items']} items"
        )
    if not certificates:
        typer.echo(f"{'certificate':18} none yet: tuning evaluate --model {name} --certify 200")


def _facts(name: str, root: ResultsRoot) -> dict[str, Any]:
    from tuning.errors import ModelError
    from tuning.files import read_json
    from tuning.fingerprint import resolved_precision
    from tuning.model.base import tokenizer_of
    from tuning.model.hub import linear_layers, local_folder, tensor_shapes

    folder = local_folder(name)
    if folder is None:
        raise ModelError(f"{name} is not on this machine; fetch it: tuning models fetch {name}")
    settings = read_json(folder / "config.json")
    shapes = tensor_shapes(folder)
    tokenizer = tokenizer_of(name)
    prompt = tokenizer.prompt_of("Spell the word planet, letters separated by spaces.\n", ())
    num_parameters = sum(_product(shape) for shape in shapes.values())
    return {
        "name": name,
        "folder": str(folder),
        "parameters": f"{num_parameters:,}",
        "architecture": settings.get("model_type", "unknown"),
        "layers": settings.get("num_hidden_layers"),
        "hidden_size": settings.get("hidden_size"),
        "vocabulary": settings.get("vocab_size"),
        "target_modules": linear_layers(shapes),
        "precision_here": resolved_precision("auto"),
        "prompt": repr(prompt),
        "certificates": _certificates(name, num_parameters, root),
    }


def _product(shape: tuple[int, ...]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _certificates(name: str, num_parameters: int, root: ResultsRoot) -> list[dict[str, Any]]:
    from tuning.evaluation.certificate import stored_certificates

    says = f"{name} ({num_parameters / 1e6:.2f} M parameters)"
    return [dataclasses.asdict(c) for c in stored_certificates(root) if c.model == says]


@app.command("merge")
def merge(
    adapter: Annotated[Path, typer.Option(help="Folder of an adapter in PEFT's format.")],
    output: Annotated[Path, typer.Option(help="New folder for the merged model.")],
    model: Annotated[
        str | None, typer.Option(help="The base; by default the one the adapter names.")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write a model with an adapter merged into its weights, to load like any other.

    Example: tuning models merge --adapter ADAPTER --output merged
    """
    name = options.model_of(model, adapter)
    from tuning.model.machine import quiet_libraries
    from tuning.model.merge import merge_adapter

    with quiet_libraries():
        merge_adapter(name, adapter, output)
    typer.echo(f"wrote {output}")
    if not quiet:
        typer.echo(f"use it with: tuning evaluate --model {output}", err=True)


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
