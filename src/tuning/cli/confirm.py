"""`tuning study confirm`: the winners of a study once more, on fresh seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options, study
from tuning.cli.progress import ERRORS

if TYPE_CHECKING:
    from tuning.confirming import Confirmation


def confirm(
    name: options.StudyName,
    seeds: Annotated[
        int, typer.Option(help="Fresh seeds of each winner and of the default.", min=1, max=100)
    ] = 3,
    top: Annotated[
        int, typer.Option(help="Configurations, from the first of the ranking on.", min=1)
    ] = 1,
    new_name: Annotated[
        str | None, typer.Option("--as", help="Name of the study that it makes.")
    ] = None,
    backend: options.Backend = options.BackendName.LOCAL,
    workers: options.Workers = None,
    per_gpu: options.PerGpu = 1,
    ray_address: options.RayAddress = None,
    machine: options.CloudMachine = None,
    spot: options.Spot = None,
    max_memory: options.MaxMemory = None,
    max_time: options.MaxTime = None,
    max_cost: options.MaxCost = None,
    hourly_price: options.HourlyPrice = 0.0,
    retry_failed: options.RetryFailed = False,
    tracking: options.Tracking = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Train the first of a ranking, and the default, again on seeds that have chosen nothing.

    Makes a study of its own, NAME_confirm; the same command goes on with it.

    Example: tuning study confirm first --seeds 5
    """
    from tuning.confirming import confirmation
    from tuning.paths import ResultsRoot

    resources = options.Resources(
        backend=backend,
        workers=workers,
        per_gpu=per_gpu,
        ray_address=ray_address,
        max_memory=max_memory,
        max_seconds=options.seconds_of(max_time),
        max_cost=max_cost,
        hourly_price=hourly_price,
        retry_failed=retry_failed,
        tracking=tracking,
        machine=machine,
        spot=spot,
        config_dir=config_dir,
    )
    root = ResultsRoot(results_dir)
    found = confirmation(root, name, new_name or f"{name}_confirm", seeds, top)
    _say(found, name)
    study.run_or_plan(
        found.spec, results_dir, resources, dry_run=dry_run, quiet=quiet, as_json=as_json
    )
    if not (as_json or dry_run):
        own = options.results_dir_option(results_dir)
        typer.echo(f"study: {root.study(found.spec.name).root}")
        typer.echo(f"what it says of study {name}: tuning report {name}{own}")


def _say(found: Confirmation, name: str) -> None:
    """Say on stderr what is confirmed, where that is not what a user would expect."""
    if not found.spec.space.configurations:
        _note(f"the default ranks first of study {name}, so it alone is trained again")
    left = found.num_unfinished
    if left:
        trials = "1 trial" if left == 1 else f"{left} trials"
        _note(f"study {name} has {trials} left, which may change its first")


def _note(text: str) -> None:
    ERRORS.print(f"note: {text}", highlight=False, soft_wrap=True)
