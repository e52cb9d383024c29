"""`tuning space`: search spaces, counted, indexed and sampled before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import completion, options
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.config import ExperimentConfig
    from tuning.points import Parameter
    from tuning.search_space import SearchSpace

app = typer.Typer(
    no_args_is_help=True,
    help="Search spaces: counted, indexed and sampled.\n\n"
    "Example: tuning space count default --unique-trainings",
)

SpaceArgument = Annotated[
    str,
    typer.Argument(
        help="A space of ours by name, or a YAML file.",
        metavar="SPACE",
        autocompletion=completion.space_names,
    ),
]


@app.command("list")
def list_spaces(
    as_json: options.Json = False, config_dir: options.ConfigDir = options.CONFIG_DIR
) -> None:
    """List the search spaces that can be had by name, and how many trials each makes.

    Example: tuning space list
    """
    from tuning.counting import size_of
    from tuning.grid import load_space, space_names

    rows, mistakes = [], []
    for name in space_names([config_dir]):
        try:
            space = load_space(name, [config_dir])
            size = size_of(space, _base(space, name, []))
        except UserError as error:
            mistakes.append(str(error))
            continue
        rows.append({"space": name, "strategy": space.strategy.value, **size._asdict()})
    if as_json:
        typer.echo(json.dumps(rows))
    for row in rows if not as_json else []:
        typer.echo(f"{row['space']:14} {row['strategy']:14} {row['num_trials']:>9} trials")
    if mistakes:
        raise UserError("\n".join(mistakes))


@app.command("show")
def show(
    space: SpaceArgument,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Show the parameters of a space: candidates, ranges, conditions.

    Example: tuning space show bayesian
    """
    from tuning.counting import size_of
    from tuning.grid import load_space
    from tuning.points import ListedPoints

    loaded = load_space(space, [config_dir])
    if as_json:
        typer.echo(json.dumps(loaded.model_dump(mode="json", by_alias=True)))
        return
    size = size_of(loaded, _base(loaded, space, []))
    draws = f", {size.num_trials} trials, drawn by {loaded.sampler_name}"
    typer.echo(f"{loaded.strategy}{draws if loaded.strategy.draws else ''}")
    points = loaded.points()
    if isinstance(points, ListedPoints):
        for found in points:
            typer.echo(f"  {_pairs(found)}")
    else:
        for parameter in points.parameters:
            typer.echo(f"  {parameter.name:24} {_values(parameter)}{_conditions(parameter)}")
    if loaded.arms:
        typer.echo(f"arms of the default: {', '.join(loaded.arms)}")
    print_notes(loaded)


def _values(parameter: Parameter) -> str:
    from tuning.ranking import short

    if parameter.values:
        return ", ".join(map(short, parameter.values))
    scale = "log" if parameter.is_log else "linear"
    step = "" if parameter.step is None or parameter.is_log else f", step {parameter.step:g}"
    return f"{parameter.low:g} to {parameter.high:g}, {scale}{step}"


def _conditions(parameter: Parameter) -> str:
    from tuning.ranking import short

    met = (f"{c.parent} is {' or '.join(map(short, c.values))}" for c in parameter.conditions)
    text = " and ".join(met)
    return f"  (only where {text})" if text else ""


def print_notes(space: SearchSpace) -> None:
    """Say on stderr what of a space is not really a hyperparameter."""
    from tuning.search_space import notes

    for note in notes(space):
        typer.echo(f"note: {note}", err=True)


def _base(space: SearchSpace, name: str, overrides: list[str]) -> ExperimentConfig:
    from tuning.composition import overridden
    from tuning.grid import base_experiment

    return overridden(base_experiment(space, Path(name).stem, "20260101_000000"), overrides)


@app.command("count")
def count(
    space: SpaceArgument,
    overrides: options.Overrides = None,
    unique: Annotated[
        bool,
        typer.Option(
            "--unique-trainings", help="Also count what is left when equal weights count once."
        ),
    ] = False,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Count the configurations of a space, exactly and without listing them.

    Example: tuning space count default_grid --unique-trainings
    """
    from tuning.counting import size_of, unique_trainings
    from tuning.grid import load_space

    loaded = load_space(space, [config_dir])
    base = _base(loaded, space, overrides or [])
    size = size_of(loaded, base)
    trainings = unique_trainings(loaded, base) if unique else None
    if as_json:
        answer: dict[str, Any] = size._asdict()
        if unique:
            answer |= trainings._asdict() if trainings else {"num_weights": None}
        typer.echo(json.dumps(answer))
        return
    seeds = max(loaded.replicates, loaded.replicates_of_default)
    number = size.num_configurations
    plural = "" if number == 1 else "s"
    others = len(set(loaded.arms) - {base.spelling_config.arm})
    arms = f"; the default also in {others} other arm{'s' * (others > 1)}" if others else ""
    typer.echo(
        f"{'endlessly many' if number is None else number} configuration{plural}, strategy "
        f"{loaded.strategy}; a study makes {size.num_trials} trials of them, with {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'} of the default and {loaded.replicates} of the "
        f"others{arms}"
    )
    if unique and trainings is None:
        typer.echo("the distinct trainings of a space of real values are as many as its trials")
    elif trainings is not None:
        typer.echo(
            f"{trainings.num_weights} distinct trained weights in {trainings.num_trainings} "
            f"trainings, on this machine and with one seed"
        )
    print_notes(loaded)


@app.command("point")
def point(
    space: SpaceArgument,
    index: Annotated[int, typer.Argument(help="From 0; the last parameter moves fastest.")],
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Print one point of the product of a space, by its number.

    Example: tuning space point default_grid 3000000
    """
    from tuning.grid import load_space

    _print_point(index, load_space(space, [config_dir]).points().at(index), as_json=as_json)


@app.command("sample")
def sample(
    space: SpaceArgument,
    num_points: Annotated[int, typer.Option("--count", "-n", help="Points.", min=1)] = 5,
    seed: Annotated[int, typer.Option(help="Chooses the points.", min=0)] = 0,
    as_json: options.Json = False,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Draw points of a space, none twice; a larger count begins with the same points.

    Example: tuning space sample default_grid -n 3 --seed 1
    """
    import itertools

    from tuning.grid import load_space
    from tuning.samplers import random_points

    points = load_space(space, [config_dir]).points()
    if points.is_countable:
        # A list may have none, which is a mistake here and no silence.
        points.at(0)
    for number, drawn in enumerate(itertools.islice(random_points(points, seed), num_points)):
        _print_point(number, drawn, as_json=as_json)


def _print_point(number: int, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{number}: {_pairs(found)}")


def _pairs(found: dict[str, Any]) -> str:
    from tuning.ranking import short

    return ", ".join(f"{name}={short(value)}" for name, value in found.items())
