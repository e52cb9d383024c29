"""`tuning lightning cost`: estimated before, metered while, settled after."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import completion, options
from tuning.errors import NotFoundError, nearest

if TYPE_CHECKING:
    from tuning.cloud_ledger import Ledger
    from tuning.paths import ResultsRoot


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """What one part of a task cost."""

    task: str
    kind: str
    """trial, or phase."""
    name: str
    machine: str
    hours: float
    estimate: float | None
    metered: float
    settled: float | None

    @property
    def best_known(self) -> float:
        return self.metered if self.settled is None else self.settled


def cost(
    task: Annotated[
        str | None,
        typer.Argument(
            help="A task or study; all of them if not given.",
            autocompletion=completion.task_names,
        ),
    ] = None,
    settle: Annotated[
        bool, typer.Option("--settle", help="Ask the cloud for the final cost of what is over.")
    ] = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
    config_dir: options.ConfigDir = options.CONFIG_DIR,
) -> None:
    """Say what jobs and Studios have cost: for each trial, phase and study, in US dollars.

    Estimated is what the plan said, metered is hours times price, settled is what the cloud says
    once it changes no more.

    Example: tuning lightning cost first
    """
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    tasks = known_tasks(root) if task is None else [checked_task(root, task)]
    if settle:
        for name in tasks:
            _settle(root, name, config_dir)
    rows = [row for name in tasks for row in _rows(root, name, config_dir)]
    if as_json:
        totals = {name: _total([r for r in rows if r.task == name]) for name in tasks}
        answer = {"rows": [asdict(r) for r in rows], "tasks": totals, "total": _total(rows)}
        typer.echo(json.dumps(answer))
        return
    if not rows:
        typer.echo(f"nothing has cost anything in {root.cloud}")
        return
    _print(rows)


def known_tasks(root: ResultsRoot) -> list[str]:
    """Return the tasks that have been in the cloud."""
    if not root.cloud.is_dir():
        return []
    return sorted(path.name for path in root.cloud.iterdir() if path.is_dir())


def checked_task(root: ResultsRoot, task: str) -> str:
    """Return a task that has been in the cloud.

    Raises:
        NotFoundError: It has not.
    """
    known = known_tasks(root)
    if task not in known:
        hint = nearest(task, known) if known else "none has been in the cloud"
        raise NotFoundError(f"task {task}: nothing is known of it in {root.cloud}; {hint}")
    return task


def _settle(root: ResultsRoot, task: str, config_dir: Path) -> None:
    from tuning import files
    from tuning.cloud_settings import read_settings
    from tuning.lightning_integration import Cloud
    from tuning.lightning_jobs import Scheduler

    settings = read_settings([config_dir])
    folder = root.cloud_task(task)
    if not folder.jobs.exists():
        return
    with files.exclusive_lock(folder.lock, f"task {task}"):
        scheduler = Scheduler(
            Cloud(settings.studio), settings, folder, "", outcome_of=lambda run: None
        )
        scheduler.settle(4 * settings.scheduler.poll_seconds)


def _rows(root: ResultsRoot, task: str, config_dir: Path) -> list[_Row]:
    from tuning.cloud_ledger import Ledger
    from tuning.cloud_settings import read_settings
    from tuning.studios import stays

    folder, now = root.cloud_task(task), time.time()
    prices = read_settings([config_dir]).prices
    rows = []
    phases: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for stay in stays(folder):
        total = phases[stay.phase, stay.machine]
        total[0] += stay.hours(now)
        total[1] += stay.cost(now)
    for (phase, machine), (hours, spent) in phases.items():
        rows.append(
            _Row(
                task=task,
                kind="phase",
                name=phase,
                machine=machine,
                hours=hours,
                estimate=None,
                metered=spent,
                settled=None,
            )
        )
    ledger: Ledger = Ledger.read(folder)
    for run in ledger.runs.values():
        settled = [s.settled for s in run.submissions if s.cloud_id is not None]
        known = [value for value in settled if value is not None]
        rows.append(
            _Row(
                task=task,
                kind="job",
                name=run.spec.name,
                machine=run.spec.machine,
                hours=sum(s.seconds(now) for s in run.submissions) / 3600,
                estimate=run.estimate(prices.per_hour),
                metered=sum(
                    max(s.metered, s.seconds(now) * s.per_hour / 3600) for s in run.submissions
                ),
                settled=sum(known) if known and len(known) == len(settled) else None,
            )
        )
    return rows


def _total(rows: Sequence[_Row]) -> float:
    return round(sum(row.best_known for row in rows), 6)


def _print(rows: Sequence[_Row]) -> None:
    from rich.table import Table

    from tuning.cli import tables

    table = Table(title="Cost in US dollars", title_justify="left")
    for name in ("task", "what", "machine"):
        table.add_column(name, overflow="fold")
    for name in ("hours", "estimated", "metered", "settled"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.task,
            f"{row.kind} {row.name}",
            row.machine,
            f"{row.hours:.3f}",
            "–" if row.estimate is None else f"{row.estimate:.3f}",
            f"{row.metered:.4f}",
            "–" if row.settled is None else f"{row.settled:.4f}",
        )
    tables.CONSOLE.print(table)
    phases = _total([row for row in rows if row.kind == "phase"])
    jobs = _total([row for row in rows if row.kind == "job"])
    typer.echo(f"Studios {phases:.4f}, jobs {jobs:.4f}, in all {phases + jobs:.4f} USD")
