"""Learning curves."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from tuning.figures.figure import (
    ALL_TASKS,
    GREY,
    TASKS,
    Figure,
    elided,
    evenly,
    inline,
    panel_title,
    role_colour,
    role_dash,
    role_of,
    roles_in,
    span,
    table,
    titled,
)
from tuning.transfer_analysis import StudyAnalysis

MAX_CURVES = 60
MAX_STEPS = 25
"""Evaluations of one curve that are drawn, the first and the last among them."""

CURVE_COLUMNS = ("trial", "configuration", "role", "step", *ALL_TASKS)


def curves_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each trial and evaluation on the way: accuracies in percent."""
    roles = _roles(analysis)
    rows = [
        {
            "trial": curve.trial_id,
            "configuration": elided(curve.label),
            "role": roles.get(curve.trial_id, "control"),
            "step": curve.steps[place],
            **{task: 100 * values[place] for task, values in curve.accuracies.items()},
        }
        for curve in _curves(analysis)
        for place in evenly(len(curve.steps), MAX_STEPS)
    ]
    return table(rows, CURVE_COLUMNS)


def _roles(analysis: StudyAnalysis) -> dict[str, str]:
    rows = [*analysis.configurations, *analysis.controls]
    return {trial_id: role_of(row) for row in rows for trial_id in row.trial_ids}


def _curves(analysis: StudyAnalysis) -> list[Any]:
    """Return the curves that are drawn: best, default and controls, and others evenly."""
    roles = _roles(analysis)
    place = {t: row.rank for row in analysis.configurations for t in row.trial_ids}
    named = [c for c in analysis.curves if roles.get(c.trial_id, "control") != "other"]
    others = [c for c in analysis.curves if roles.get(c.trial_id, "control") == "other"]
    others.sort(key=lambda curve: place[curve.trial_id])
    room = max(0, MAX_CURVES - len(named))
    # Named ones come last: they are drawn on top.
    return [*(others[i] for i in evenly(len(others), room)), *named[:MAX_CURVES]]


def band_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return for each task the untouched model's accuracy and the band of noise around it, in %."""
    starts = [c.accuracies for c in analysis.curves if c.steps[0] == 0]
    rows = []
    for summary in analysis.patterns.summaries if starts else ():
        found = [values[summary.task][0] for values in starts if summary.task in values]
        untouched = 100 * float(np.median(found))
        noise = 100 * summary.noise
        ends = {"low": max(0.0, untouched - noise), "high": min(100.0, untouched + noise)}
        rows.append({"task": summary.task, "untouched": untouched, **ends})
    return table(rows, ("task", "untouched", "low", "high"))


def draw_curves(analysis: StudyAnalysis) -> Any:
    """Draw accuracy over optimizer steps, a panel for each task, a line for each trial."""
    data, bands = inline(curves_data(analysis)), band_data(analysis)
    tasks = [task for task in ALL_TASKS if task in TASKS or data[task].notna().any()]
    panels = [_panel(data, bands[bands["task"] == task], task) for task in tasks]
    chart = alt.hconcat(*panels, spacing=20)
    return titled(chart, CURVES.title, analysis, _curves_says(analysis), 790)


def _panel(data: pd.DataFrame, band: pd.DataFrame, task: str) -> Any:
    roles = roles_in(data)
    base = alt.Chart(data)
    x = alt.X("step:Q", title="optimizer steps")
    title = "accuracy on monitor words, %" if task == TASKS[0] else None
    scale = alt.Scale(zero=False, nice=True)
    y = alt.Y(field=task, type="quantitative", title=title, scale=scale)
    tooltip = [
        alt.Tooltip("configuration:N"),
        alt.Tooltip("trial:N"),
        alt.Tooltip("step:Q"),
        alt.Tooltip(field=task, type="quantitative", title="accuracy, %", format=".1f"),
    ]
    lines = [
        base.transform_filter(alt.datum.role == role)
        .mark_line(
            strokeWidth=1.2 if role == "other" else 2,
            strokeOpacity=_opacity(role, data["trial"].nunique()),
        )
        .encode(
            x=x,
            y=y,
            color=role_colour(roles),
            strokeDash=role_dash(roles),
            detail="trial:N",
            tooltip=tooltip,
        )
        for role in reversed(roles)
    ]
    ends = {"y": alt.Y("low:Q", title=title, scale=scale), "y2": "high:Q"}
    noise = alt.Chart(inline(band)).mark_rect(fillOpacity=0.16, color=GREY).encode(**ends)
    start = (
        base.transform_filter(alt.datum.step == 0)
        .mark_point(size=90, color=GREY, strokeWidth=1.6, opacity=1)
        .encode(x=x, y=y)
    )
    layers = [*([] if band.empty else [noise]), *lines, start]
    return alt.layer(*layers).properties(width=225, height=220, title=panel_title(task, "middle"))


def _opacity(role: str, number: int) -> float:
    return 0.95 if role != "other" else 0.5 if number <= 30 else 0.35


def _curves_says(analysis: StudyAnalysis) -> list[str]:
    drawn, known = len(_curves(analysis)), len(analysis.curves)
    which = (
        f"{drawn} of {known:,} trials, evenly over the ranking"
        if drawn < known
        else (f"{known} trials")
    )
    words = span((curve.num_words for curve in analysis.curves), "words a task")
    return [
        f"One line a trial, {which}; on {words}, with no intervals.",
        "Ringed: step 0, the untouched model"
        + ("; shaded: what is within noise of it. " if _has_band(analysis) else ". ")
        + "Each task has its own axis.",
    ]


def _has_band(analysis: StudyAnalysis) -> bool:
    return not band_data(analysis).empty


def _curves_caption(analysis: StudyAnalysis) -> str:
    words = span((curve.num_words for curve in analysis.curves), "monitor words")
    return (
        f"Accuracy while training, on {words} a task, by optimizer step; step 0 is the untouched "
        "model. The best configuration, the default and control arms stand out, others are grey. "
        "Within the shaded band an evaluation differs from it by no more than noise: what "
        "counts is the gain at the end, on more words."
    )


CURVES = Figure("curves", "Learning curves", _curves_caption, curves_data, draw_curves)
