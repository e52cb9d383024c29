"""`tuning doctor`: what trials on this machine need, looked at and said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options

if TYPE_CHECKING:
    from tuning.diagnosis.checks import Check


def doctor(
    online: Annotated[
        bool,
        typer.Option("--online", help="Also ask whether the Hugging Face Hub answers."),
    ] = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Look at Python, packages, machine, models and keys; say what to do. Changes nothing.

    Exit code 1 if something fails that trials on this machine need; notes and warnings are no
    failure. Without --online no network is used. Keys are looked for, and never printed.

    Example: tuning doctor --results-dir /data/results
    """
    from tuning.diagnosis.examination import can_run, examine

    checks = examine(results_dir, online=online)
    is_ready = can_run(checks)
    if as_json:
        rows = [dataclasses.asdict(check) for check in checks]
        typer.echo(json.dumps({"is_ready": is_ready, "checks": rows}))
    else:
        _print(checks, is_ready=is_ready)
    if not is_ready:
        raise typer.Exit(1)


_COLOURS = {"ok": "green", "note": "cyan", "warning": "yellow", "failure": "red"}


def _print(checks: Sequence[Check], *, is_ready: bool) -> None:
    from tuning.diagnosis.checks import State

    width = max(len(check.name) for check in checks)
    for check in checks:
        state = typer.style(f"{check.state:7}", fg=_COLOURS[check.state])
        typer.echo(f"{state}  {check.name:{width}}  {check.says}")
        if check.todo is not None:
            typer.echo(f"{'':7}  {'':{width}}  -> {check.todo}")
    count = sum(check.state is State.FAILURE for check in checks)
    if is_ready:
        typer.echo("all that trials on this machine need is there; to see it: tuning demo")
    else:
        typer.echo(f"{count} failure{'s' if count > 1 else ''}: mend what -> says, then look again")
