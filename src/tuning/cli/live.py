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
        width = self._live.console.width
        table = status_table(status, width, self._price, only_moving=True)
        self._live.update(table, refresh=True)
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
    status: StudyStatus, width: int, hourly_price: float = 0.0, *, only_moving: bool = False
) -> Group:
    """Return a study as a table: both families of metrics, speed, time left and cost.

    Where it is narrow, whole columns are left out: half a number is none.
    """
    is_narrow = width < _WIDE
    table = Table(box=None, pad_edge=False)
    rows = [_row(v, hourly_price) for v in status.trials if v.state in _MOVING or not only_moving]
    names = [name for name in _COLUMNS if not (is_narrow and name in _ONLY_WHERE_WIDE)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows), 0) for name in names}
    taken = sum(w for name, w in widths.items() if name != _LABEL) + _GAP * len(names)
    if _LABEL in widths:
        widths[_LABEL] = min(widths[_LABEL], max(len(_LABEL), width - taken))
    for name in names:
        is_text = name in ("trial", _LABEL, "state")
        table.add_column(
            name,
            justify="left" if is_text else "right",
            overflow="ellipsis",
            no_wrap=True,
            width=widths[name],
        )
    for row in rows:
        table.add_row(*(row[name] for name in names))
    notes = [
        f"{view.trial_id}: {view.note}"
        for view in status.trials
        if view.note and (view.state in _MOVING or not only_moving)
    ]
    return Group(table, Text("\n".join([*notes, headline(status, hourly_price)])))


_WIDE = 110
_GAP = 2
_LABEL = "differs in"
_COLUMNS = (
    *("trial", _LABEL, "state", "step", "loss", "spelling", "position", "count", "score"),
    *("steps/s", "left", "cost"),
)
_ONLY_WHERE_WIDE = (_LABEL, "steps/s", "score", "cost")


def headline(status: StudyStatus, hourly_price: float = 0.0) -> str:
    """Return one line on a study."""
    from tuning.records import TrialStatus

    counts = ", ".join(f"{n} {state}" for state, n in sorted(status.counts.items()))
    left = f", about {_duration(status.eta_seconds)} left" if status.eta_seconds else ""
    num_ended = sum(status.counts.get(s.value, 0) for s in TrialStatus if s.is_finished)
    how = "finished" if num_ended == status.num_planned else "no driver runs"
    running = "running" if status.is_running else how
    spent = _cost(status.worker_seconds, hourly_price)
    return f"study {status.study}: {running}; of {status.num_planned}: {counts}; {spent}{left}"


def _row(view: TrialView, hourly_price: float) -> dict[str, str]:
    is_training = view.state == "running"
    rate, left = view.steps_per_second, view.eta_seconds
    return {
        "trial": f"{view.trial_id} s{view.seed}",
        "differs in": view.label,
        "state": view.state,
        "step": f"{view.step}/{view.max_steps}",
        "loss": "" if view.loss is None else f"{view.loss:.3f}",
        "spelling": _percent(view.spelling),
        "position": _percent(view.position),
        "count": _percent(view.count),
        "score": "" if view.score is None else f"{view.score:.3f}",
        "steps/s": f"{rate:.2g}" if rate is not None and is_training else "",
        "left": _duration(left) if left is not None and is_training else "",
        "cost": _cost(view.seconds, hourly_price),
    }


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
