"""The screen of a running study: a table on a terminal, a line a trial elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tuning.cli.progress import ERRORS, summary

if TYPE_CHECKING:
    from tuning.grid import Proposal
    from tuning.monitor import StudyMonitor, StudyStatus, TrialView
    from tuning.records import TrialRecord

_REFRESH_SECONDS = 0.5
_MOVING = ("running", "evaluating", "interrupted", "paused")


class LiveStudy:
    """Shows how a study goes on; implements `executor.Watcher`."""

    def __init__(
        self, monitor: StudyMonitor, live: Live | None, hourly_price: float, *, quiet: bool
    ) -> None:
        """Draw on `live`, or print lines, or be quiet."""
        self._monitor = monitor
        self._live = live
        self._price = hourly_price
        self._quiet = quiet
        self._num_finished = 0
        self._drawn = 0.0

    def study_moved(self) -> None:
        """Draw the table again, a few times a second."""
        if self._live is None or time.monotonic() - self._drawn < _REFRESH_SECONDS:
            return
        status = self._monitor.status()
        self._live.update(status_table(status, self._price, only_moving=True), refresh=True)
        self._drawn = time.monotonic()

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        """Print what came out."""
        from tuning.ranking import Contender

        self._num_finished += 1
        if self._quiet:
            return
        label = Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
        total = self._monitor.num_planned
        self._print(
            f"{self._num_finished}/{total} {label} (seed {proposal.seed}): {summary(record)}"
            f"{' (was there)' if was_there else ''}"
        )

    def said(self, message: str) -> None:
        """Print what a person should know."""
        if not self._quiet:
            self._print(f"note: {message}")

    def _print(self, line: str) -> None:
        console: Console = self._live.console if self._live else ERRORS
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextlib.contextmanager
def live_study(monitor: StudyMonitor, hourly_price: float, *, quiet: bool) -> Iterator[LiveStudy]:
    """Show a study for the time of the block."""
    if quiet or not sys.stderr.isatty():
        yield LiveStudy(monitor, None, hourly_price, quiet=quiet)
        return
    with Live(console=ERRORS, auto_refresh=False, transient=True) as live:
        yield LiveStudy(monitor, live, hourly_price, quiet=False)


def status_table(
    status: StudyStatus, hourly_price: float = 0.0, *, only_moving: bool = False
) -> Group:
    """Return a study as a table: both families of metrics, speed, time left and cost."""
    table = Table(box=None, pad_edge=False)
    for name in ("trial", "differs in"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    table.add_column("state")
    numbers = ("step", "loss", "spelling", "position", "count", "score", "steps/s", "left", "cost")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for view in status.trials:
        if view.state in _MOVING or not only_moving:
            table.add_row(*_row(view, hourly_price))
    return Group(table, Text(headline(status, hourly_price)))


def headline(status: StudyStatus, hourly_price: float = 0.0) -> str:
    """Return one line on a study."""
    counts = ", ".join(f"{n} {state}" for state, n in sorted(status.counts.items()))
    left = f", about {_duration(status.eta_seconds)} left" if status.eta_seconds else ""
    running = "running" if status.is_running else "no driver runs"
    spent = _cost(status.worker_seconds, hourly_price)
    return f"study {status.study}: {running}; of {status.num_planned}: {counts}; {spent}{left}"


def _row(view: TrialView, hourly_price: float) -> list[str]:
    return [
        f"{view.trial_id} s{view.seed}",
        view.label,
        view.state,
        f"{view.step}/{view.max_steps}",
        "" if view.loss is None else f"{view.loss:.3f}",
        _percent(view.spelling),
        _percent(view.position),
        _percent(view.count),
        "" if view.score is None else f"{view.score:.3f}",
        "" if view.steps_per_second is None else f"{view.steps_per_second:.2g}",
        "" if view.eta_seconds is None else _duration(view.eta_seconds),
        _cost(view.seconds, hourly_price),
    ]


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f} %"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{rest:02d}"
    return f"{minutes}:{rest:02d}"


def _cost(seconds: float, hourly_price: float) -> str:
    time_spent = _duration(seconds)
    return f"{time_spent} ({seconds / 3600 * hourly_price:.2f})" if hourly_price else time_spent
