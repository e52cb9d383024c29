"""Tables on the terminal. Every accuracy stands with its n, interval and baseline."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from tuning.measures import Accuracy, Drift, Gain, StratumResult, TaskResult
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
    from tuning.analysis.verdict import bound

    return f"{100 * value.value:+.1f} [{bound(value.low)}, {bound(value.high)}]"


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


def readings_table(results: Mapping[str, TaskResult], *, is_tuned: bool) -> Table:
    """Return the three readings of each task, and what lies beside accuracy."""
    table = Table(title="Readings", title_justify="left")
    heads = ["task", "reading", "untouched", *(["tuned", "gain, points"] if is_tuned else [])]
    for name in (*heads, "items", "unparseable", "worst template"):
        table.add_column(name, justify="left" if name in ("task", "reading") else "right")
    for task, r in results.items():
        readings = (
            ("strict", r.base, r.tuned, r.gain),
            ("choice", r.choice_base, r.choice_tuned, r.choice_gain),
            ("lenient", r.lenient_base, r.lenient_tuned, r.lenient_gain),
        )
        for name, base, tuned, gain in readings:
            if base is None:
                continue
            cells = [percent(tuned), points(gain)] if is_tuned else []
            is_strict, is_lenient = name == "strict", name == "lenient"
            unread = r.unparseable_tuned if is_tuned else r.unparseable_base
            table.add_row(
                task if is_strict else "",
                name,
                percent(base),
                *cells,
                str(base.num_items),
                str(unread) if is_lenient else "",
                _worst(r, is_tuned=is_tuned) if is_strict else "",
            )
    lines = [line for task, r in results.items() for line in _detail_lines(task, r, is_tuned)]
    table.caption = "\n".join(lines)
    table.caption_justify = "left"
    return table


def _worst(result: TaskResult, *, is_tuned: bool) -> str:
    spread = result.templates
    if spread is None:
        return ""
    if is_tuned:
        return f"{spread.worst} {100 * spread.worst_accuracy:.1f} %"
    return f"{spread.worst_base} {100 * spread.worst_base_accuracy:.1f} %"


def _detail_lines(task: str, result: TaskResult, is_tuned: bool) -> list[str]:
    lines = []
    for who, errors, counts in (
        ("untouched", result.spelling_errors_base, result.count_base),
        ("tuned", result.spelling_errors_tuned, result.count_tuned),
    ):
        if who == "tuned" and not is_tuned:
            continue
        if errors is not None:
            lines.append(
                f"{task}, {who}: character error rate {100 * errors.character_error_rate:.1f} %, "
                f"mean length error {errors.mean_length_error:.2f} letters"
            )
        if counts is not None:
            recall = ", ".join(f"{c}: {100 * v:.1f} %" for c, v in counts.recall.items())
            answers = ", ".join(f"{digit}: {n}" for digit, n in counts.answers.items())
            error = counts.mean_absolute_error
            lines.append(
                f"{task}, {who}: balanced accuracy {100 * counts.balanced_accuracy:.1f} %, "
                f"recall {recall}; mean absolute error {'–' if error is None else f'{error:.2f}'}; "
                f"likeliest digits {answers}"
            )
    return lines


def strata_table(strata: Sequence[StratumResult], *, is_tuned: bool) -> Table:
    """Return every stratum of every task, each with its own baseline."""
    from tuning.measures import STRATA

    table = Table(title="Strata, strict reading", title_justify="left")
    heads = ["task", "by", "value", "untouched", *(["tuned", "gain, points"] if is_tuned else [])]
    for name in (*heads, "baseline", "items", "words"):
        is_text = name in ("task", "by", "value")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "by")
    last = ("", "")
    for s in strata:
        r = s.result
        place = (s.task, s.column)
        if last[1] and place != last:
            table.add_section()
        table.add_row(
            s.task if s.task != last[0] else "",
            STRATA[s.column] if place != last else "",
            s.value,
            percent(r.base),
            *([percent(r.tuned), points(r.gain)] if is_tuned else []),
            f"{100 * r.baseline:.1f} %",
            str(r.base.num_items),
            str(r.base.num_words),
        )
        last = place
    table.caption = "A stratum of fewer than 2 words has no interval and is not shown."
    table.caption_justify = "left"
    return table


def retention_text(retention: Mapping[str, Drift]) -> str:
    """Return how far a tuned model has moved on what it was not trained on."""
    lines = []
    for name, drift in retention.items():
        if drift.base_loss is None or drift.tuned_loss is None or drift.kl_divergence is None:
            lines.append(f"retention, {name}: not measured, {drift.reason}")
            continue
        lines.append(
            f"retention, {name}: loss {drift.base_loss:.3f} to {drift.tuned_loss:.3f}, KL "
            f"divergence {drift.kl_divergence:.3f} nats a token over {drift.num_tokens} tokens"
        )
    return "\n".join(lines)


def base_arm_text(name: str, accuracies: Mapping[str, Accuracy]) -> str:
    """Return the untouched model put otherwise: with examples, or with the spelling told."""
    parts = (f"{task} {percent(value)}" for task, value in accuracies.items())
    return f"untouched, {name.replace('_', '-')}: {', '.join(parts)}"


def left_out_text(left_out: Mapping[str, int]) -> str:
    """Return how many words of a user's own list were not trained on, and why."""
    parts = (f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return f"words of your list left out: {', '.join(parts) or 'none'}"


def agreement_text(num_decoded: int, num_disagreements: int) -> str:
    """Return how often freely decoded answers confirm one pass."""
    if num_decoded == 0:
        return ""
    share = 100 * (1 - num_disagreements / num_decoded)
    return f"one pass agrees with {num_decoded} freely decoded answers: {share:.2f} %"


def mix_text(mix: Mapping[str, Mapping[str, int]]) -> str:
    """Return what the plain means are taken over, a line a task."""
    lines = (
        f"  {task}: {', '.join(f'{name} {count}' for name, count in counts.items())}"
        for task, counts in mix.items()
    )
    return "\n".join(["items by template, band and stratum:", *lines])


def arms_table(analysis: StudyAnalysis) -> Table:
    """Return the arms of a study side by side: what was put otherwise, and what was trained."""
    from tuning.analysis import formats

    table = Table(title="Arms, strict reading", title_justify="left")
    table.add_column("arm", no_wrap=True)
    table.add_column("seeds", justify="right")
    for task in analysis.tasks:
        table.add_column(f"{task}: accuracy", justify="right")
    table.add_row("untouched", "–", *(percent(task.base) for task in analysis.tasks.values()))
    for name, accuracies in analysis.base_arms.items():
        values = (percent(accuracies.get(task)) for task in analysis.tasks)
        table.add_row(f"untouched, {name.replace('_', '-')}", "–", *values)
    default = [analysis.default] if analysis.default else []
    for row in (*default, *analysis.controls):
        cells = (
            f"{formats.percent(gain.after)}, {formats.points_with_interval(gain.gain)}"
            for gain in row.gains.values()
        )
        table.add_row(row.label, str(row.num_seeds), *cells)
    table.caption = (
        "Trained arms: accuracy, then gain over the untouched model in points with its interval."
    )
    table.caption_justify = "left"
    return table


WIDE = 120
"""Columns of a terminal that has room for intervals in a ranking."""


def ranking_table(analysis: StudyAnalysis, width: int) -> Table:
    """Return the ranking of a study; in a narrow terminal without the intervals."""
    from tuning.analysis import formats

    table = Table(title=f"Ranking by {analysis.focus_says}", title_justify="left")
    table.add_column("configuration", overflow="fold", min_width=16)
    for name in ("seeds", "objective", *analysis.tasks, "tie"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in analysis.configurations:
        objective, gains = row.objective, [gain.gain for gain in row.gains.values()]
        if width >= WIDE:
            cells = [
                formats.score_with_interval(objective),
                *map(formats.points_with_interval, gains),
            ]
        else:
            cells = [
                formats.decimals(objective.value),
                *(formats.signed_points(gain.value) for gain in gains),
            ]
        place = (f"{row.rank}. {row.label}", str(row.num_seeds))
        table.add_row(*place, *cells, "=" if row.ties_with_best else "")
    table.caption = (
        "Gains over the untouched model in points; 95 % intervals in brackets and in the report. "
        f"The untouched model: {analysis.untouched_objective or 0:.3f}. "
        "= cannot be told from the best: over seeds and words, all compared at once."
    )
    table.caption_justify = "left"
    return table
