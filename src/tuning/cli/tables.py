"""Tables on the terminal. Every accuracy stands with its n, interval and baseline."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tuning.measures import Accuracy, Gain, TaskResult
    from tuning.transfer_analysis import StudyAnalysis

CONSOLE = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
"""What is not a terminal has room for whole tables."""


def percent(value: Accuracy | None) -> str:
    """Return an accuracy with its interval."""
    if value is None:
        return "–"
    return f"{100 * value.value:.1f} % [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def points(value: Gain | None) -> str:
    """Return a gain with its interval."""
    if value is None:
        return "–"
    return f"{100 * value.value:+.1f} [{100 * value.low:+.1f}, {100 * value.high:+.1f}]"


def task_table(results: Mapping[str, TaskResult], title: str) -> Table:
    """Return before, after and gain of each task."""
    table = Table(title=title, title_justify="left")
    for name in (
        "task",
        "untouched",
        "tuned",
        "gain, points",
        "choice gain",
        "baseline",
        "items",
        "words",
    ):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, r in results.items():
        table.add_row(
            task,
            percent(r.base),
            percent(r.tuned),
            points(r.gain),
            points(r.choice_gain),
            f"{100 * r.baseline:.1f} %",
            str(r.base.num_items),
            str(r.base.num_words),
        )
    return table


def accuracy_table(results: Mapping[str, TaskResult], title: str) -> Table:
    """Return the accuracy of an untouched model in each task."""
    table = Table(title=title, title_justify="left")
    for name in ("task", "accuracy", "choice", "baseline", "items", "words"):
        table.add_column(name, justify="left" if name == "task" else "right")
    for task, r in results.items():
        sizes = (str(r.base.num_items), str(r.base.num_words))
        table.add_row(
            task, percent(r.base), percent(r.choice_base), f"{100 * r.baseline:.1f} %", *sizes
        )
    return table


def mix_text(mix: Mapping[str, Mapping[str, int]]) -> str:
    """Return what the plain means are taken over, a line a task."""
    lines = (
        f"  {task}: {', '.join(f'{name} {count}' for name, count in counts.items())}"
        for task, counts in mix.items()
    )
    return "\n".join(["items by template, band and stratum:", *lines])


WIDE = 120
"""Columns of a terminal that has room for intervals in a ranking."""


def ranking_table(analysis: StudyAnalysis, width: int) -> Table:
    """Return the ranking of a study; in a narrow terminal without the intervals."""
    table = Table(title=f"Ranking by {analysis.focus_says}", title_justify="left")
    table.add_column("configuration", no_wrap=True)
    for name in ("seeds", "objective", *analysis.base, "tie"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in analysis.configurations:
        interval = f" [{row.low:.3f}, {row.high:.3f}]" if row.low is not None else ""
        gains = [
            (f"{100 * g.gain:+.1f}", f" [{100 * g.low:+.1f}, {100 * g.high:+.1f}]")
            for g in row.gains.values()
        ]
        table.add_row(
            f"{row.rank}. {row.label}",
            str(row.num_seeds),
            f"{row.objective:.3f}{interval if width >= WIDE else ''}",
            *(gain + (spread if width >= WIDE else "") for gain, spread in gains),
            "=" if row.ties_with_best else "",
        )
    table.caption = (
        "Gains over the untouched model in points; 95 % intervals in brackets and in the report. "
        f"The untouched model: {analysis.untouched_objective or 0:.3f}. "
        "= cannot be told from the best by the spread of the repeated default."
    )
    table.caption_justify = "left"
    return table
