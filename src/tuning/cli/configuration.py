"""`tuning config`: show, explain, create and check configurations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import options
from tuning.cli.trial import check_model
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.composition import Composition
    from tuning.config import ExperimentConfig

app = typer.Typer(
    no_args_is_help=True,
    help="Configurations: composed, explained, checked.\n\n"
    "Example: tuning config show --explain models=tiny training=quick lora_r=8",
)


@app.command("show")
def show(
    overrides: options.Overrides = None,
    config: options.ConfigFile = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say what set each value: file and line, or override.")
    ] = False,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Print the whole configuration that a file and overrides make.

    Example: tuning config show --explain models=tiny training=quick lora_r=8
    """
    from tuning.config import build, to_yaml

    composed = compose(config, overrides or [], config_dir)
    built = build(composed.data, composed.place)
    if as_json:
        answer: dict[str, Any] = built.model_dump(mode="json")
        if explain:
            answer = {"config": answer, "origins": dict(_origins(composed))}
        typer.echo(json.dumps(answer, indent=1))
        return
    typer.echo(_explained(built, composed) if explain else to_yaml(built), nl=False)


def compose(config: Path | None, overrides: list[str], config_dir: Path) -> Composition:
    """Compose a file, or the defaults, with overrides on top.

    Raises:
        UserError: A file or an override cannot be read.
    """
    from tuning.composition import compose_document, compose_file
    from tuning.documents import Document

    if config is not None:
        return compose_file(config, overrides, [config_dir])
    document = Document("the schema", {"experiment_name": options.DEFAULT_NAME})
    return compose_document(document, overrides, [config_dir])


def _origins(composed: Composition) -> list[tuple[str, str]]:
    from tuning.config import KEYS

    found = ((key, composed.origin(tuple(key.split(".")))) for key in KEYS)
    return [(key, "default" if o.is_default else o.place) for key, o in found]


def _explained(config: ExperimentConfig, composed: Composition) -> str:
    """Return the configuration as YAML, each value with what set it as a comment."""
    from tuning.config import value_at
    from tuning.documents import one_line

    raw = config.model_dump(mode="json")
    lines: list[tuple[str, str]] = []
    section = ""
    for key, origin in _origins(composed):
        own, _, name = key.rpartition(".")
        if own != section:
            lines.append((f"{own}:", ""))
            section = own
        lines.append((f"{'  ' if own else ''}{one_line(name, value_at(raw, key))}", origin))
    width = max(len(text) for text, _ in lines)
    return "".join(f"{t:{width}}  # {origin}\n" if origin else f"{t}\n" for t, origin in lines)


@app.command("create")
def create(
    overrides: options.Overrides = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the experiment; that of the file by default.")
    ] = None,
    config: options.ConfigFile = None,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Write a whole configuration as NAME_TIMESTAMP.yaml and print its path.

    Example: tuning config create --name first models=tiny training=quick lora_r=8
    """
    from tuning.config import build, save
    from tuning.paths import checked_name

    composed = compose(config, overrides or [], config_dir)
    data = composed.data
    if not any(override.startswith("timestamp=") for override in overrides or []):
        data = {key: value for key, value in data.items() if key != "timestamp"}
    if name is not None:
        # Checked by itself first, so that a mistake is told where it was made.
        checked_name(name, "--name")
        data = {**data, "experiment_name": name}
    path = save(build(data, composed.place), config_dir)
    typer.echo(json.dumps({"path": str(path)}) if as_json else str(path))


@app.command("memory")
def memory(
    overrides: options.Overrides = None,
    config: options.ConfigFile = None,
    machine: Annotated[
        str | None,
        typer.Option(help="A tier or another machine: cpu, t4, l4, a100, h100, ...; or here."),
    ] = None,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Say how much memory a configuration takes on its tier; refuse it if it cannot fit.

    Example: tuning config memory models=qwen3-4b batch_size=32 grad_accum_steps=1 --machine t4
    """
    from tuning.config import build
    from tuning.errors import ConfigError
    from tuning.memory import GIB, check_fits, local_machine, machine_of, memory_of

    changes = [*(overrides or [])]
    if machine not in (None, "here"):
        changes.append(f"lightning_config.machine={machine}")
    composed = compose(config, changes, config_dir)
    built = build(composed.data, composed.place)
    where = local_machine() if machine == "here" else machine_of(built)
    model = built.tokenizer_config.model_name
    if where is None:
        raise ConfigError("--machine here: the memory of this GPU is not known; name one like it")
    found = memory_of(built, where)
    if found is None:
        raise ConfigError(f"{model}: its size is not known before it is fetched")
    if as_json:
        answer = dataclasses.asdict(found) | {"total": found.total, "usable": where.usable_bytes}
        typer.echo(json.dumps({"model": model, "machine": where.name, **answer}))
    else:
        total, usable = found.total / GIB, where.usable_bytes / GIB
        typer.echo(f"{model} on {where.name}: about {total:.1f} of {usable:.1f} GiB")
        rows = f", training: {found.num_rows} rows at once"
        training = {f"{name}{rows}": size for name, size in found.training.items()}
        evaluation = {f"{name}, evaluation": size for name, size in found.evaluation.items()}
        for name, size in {**found.always, **training, **evaluation}.items():
            typer.echo(f"  {name:44} {size / GIB:6.2f} GiB")
        typer.echo("  the total has the larger of training and evaluation")
    check_fits(built, where)


@app.command("validate")
def validate(
    files: Annotated[
        list[Path], typer.Argument(help="Configurations, spaces, files of the cloud.")
    ],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Check configurations and search spaces; report every mistake of every file.

    Example: tuning config validate configs/hyperparameters/tiny_default.yaml
    """
    mistakes = {str(path): _mistakes(path, config_dir) for path in files}
    if as_json:
        typer.echo(json.dumps([{"file": f, "mistakes": m} for f, m in mistakes.items()]))
    elif not quiet:
        for file in (file for file, found in mistakes.items() if not found):
            typer.echo(f"{file}: ok")
    found = [line for lines in mistakes.values() for line in lines]
    if not found:
        return
    if as_json:
        raise typer.Exit(2)
    raise UserError("\n".join(found))


def _mistakes(path: Path, config_dir: Path) -> list[str]:
    from tuning.cli.study_request import StudyRequest, make_spec
    from tuning.cloud_settings import check_cloud_file, is_cloud_file
    from tuning.composition import load
    from tuning.fingerprint import check_own_files
    from tuning.grid import check_size, is_space

    try:
        if is_cloud_file(path):
            check_cloud_file(path)
        elif is_space(path, [config_dir]):
            request = StudyRequest(name="validate", space=str(path), config_dir=config_dir)
            plan = make_spec(request).plan()
            # A whole product is there to be counted and drawn from.
            if plan.draws:
                check_size(plan)
        else:
            config = load(path, (), [config_dir])
            check_model(config)
            check_own_files(config)
    except UserError as error:
        lines = str(error).splitlines()
        return [line if str(path) in line else f"{path}: {line}" for line in lines]
    return []


@app.command("keys")
def keys(
    pattern: Annotated[str, typer.Argument(help="Only keys that contain this text.")] = "",
    as_json: options.Json = False,
) -> None:
    """List every key with its default, its law and its meaning.

    Example: tuning config keys lora
    """
    from tuning.config import describe_keys

    found = [k for k in describe_keys() if pattern in k.key or pattern in (k.flat_name or "")]
    if as_json:
        typer.echo(json.dumps([k._asdict() for k in found]))
        return
    for key in found:
        flat = f" ({key.flat_name})" if key.flat_name and key.flat_name != key.key else ""
        default = "none" if key.default is None else key.default
        typer.secho(f"{key.key}{flat}", bold=True)
        typer.echo(f"  {key.law}; default {default}\n  {' '.join(key.says.split())}")
    if not found:
        from tuning.config import FLAT_NAMES, KEYS
        from tuning.errors import NotFoundError, nearest

        raise NotFoundError(f"{pattern}: no such key; {nearest(pattern, [*KEYS, *FLAT_NAMES])}")
