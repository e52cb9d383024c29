"""Spelling against transfer, run by run."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy import special

from tuning.analysis.formats import signed, signed_interval
from tuning.analysis.relations import MIN_RUNS, RunCorrelation
from tuning.figures.figure import (
    MAX_POINTS,
    TASK_COLOURS,
    TASK_SHAPES,
    Figure,
    elided,
    evenly,
    inline,
    number_axis,
    opacity_of,
    table,
    tips,
    titled,
    zero_rule,
)
from tuning.statistics import CONFIDENCE
from tuning.tasks.items import TRANSFER_TASKS
from tuning.transfer_analysis import StudyAnalysis

TRANSFER = [task.value for task in TRANSFER_TASKS]

# --- spelling against transfer, run by run ----------------------------------------------------

RUN_COLUMNS = ("trial", "configuration", "role", "spelling", "position", "count")
FIT_COLUMNS = ("task", "spelling", "fit", "low", "high")
FIT_POINTS = 25


def transfer_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each run: its gain in spelling, position and count, in points."""
    runs = [analysis.runs[place] for place in evenly(len(analysis.runs), MAX_POINTS)]
    default = set(analysis.default.trial_ids) if analysis.default else set()
    rows = (
        {
            "trial": run.trial_id,
            "configuration": elided(run.label),
            "role": "default" if run.trial_id in default else "other",
            "spelling": 100 * run.spelling,
            "position": 100 * run.position,
            "count": 100 * run.count,
        }
        for run in runs
    )
    return table(rows, RUN_COLUMNS)


def fit_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return least-squares lines of transfer on spelling with 95 % confidence bands, in points.

    Empty for fewer than 5 runs, or where all gained the same in spelling. A band is that of the
    mean, pointwise, for runs that are independent.
    """
    spelling_N = 100 * np.array([run.spelling for run in analysis.runs])
    if len(spelling_N) < MIN_RUNS or np.ptp(spelling_N) == 0:
        return table([], FIT_COLUMNS)
    grid_G = np.linspace(spelling_N.min(), spelling_N.max(), FIT_POINTS)
    tables = []
    for task in TRANSFER:
        gain_N = 100 * np.array([getattr(run, task) for run in analysis.runs])
        fit_G, half_G = _line(spelling_N, gain_N, grid_G)
        columns = {"spelling": grid_G, "fit": fit_G, "low": fit_G - half_G, "high": fit_G + half_G}
        tables.append(pd.DataFrame({"task": task, **columns}, columns=list(FIT_COLUMNS)))
    return pd.concat(tables, ignore_index=True)


def _line(x_N: np.ndarray, y_N: np.ndarray, grid_G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a least-squares line and half the width of its confidence band."""
    num, centred_N = len(x_N), x_N - x_N.mean()
    spread = float((centred_N**2).sum())
    slope = float((centred_N * y_N).sum()) / spread
    fit_G = y_N.mean() + slope * (grid_G - x_N.mean())
    residual_N = y_N - y_N.mean() - slope * centred_N
    error = np.sqrt((residual_N**2).sum() / (num - 2))
    t = float(special.stdtrit(num - 2, (1 + CONFIDENCE) / 2))
    return fit_G, t * error * np.sqrt(1 / num + (grid_G - x_N.mean()) ** 2 / spread)


def draw_transfer(analysis: StudyAnalysis) -> Any:
    """Draw spelling gain against the gain in each transfer task, one mark a run."""
    runs, fits = transfer_data(analysis), fit_data(analysis)
    panels = [_run_panel(runs, fits, task) for task in TRANSFER]
    chart = alt.hconcat(*panels, spacing=28).resolve_scale(
        x="shared", y="shared", shape="independent"
    )
    return titled(chart, RUNS.title, analysis, _transfer_says(analysis), 720)


def _run_panel(runs: pd.DataFrame, fits: pd.DataFrame, task: str) -> Any:
    colour = TASK_COLOURS[task]
    base = alt.Chart(inline(runs))
    x = number_axis("spelling", "gain in spelling, points")
    title = f"gain in {task}, points"
    texts = [("configuration", "configuration"), ("trial", "trial")]
    point = base.mark_point(
        filled=True, size=65, opacity=1, fillOpacity=opacity_of(len(runs)), color=colour
    ).encode(
        x=x,
        y=number_axis(task, title, alt.Y),
        shape=alt.Shape(
            "role:N",
            scale=alt.Scale(domain=["default", "other"], range=["diamond", TASK_SHAPES[task]]),
            legend=None,
        ),
        tooltip=tips(("spelling", "spelling"), (task, task), texts=texts),
    )
    layers = [zero_rule(base, "x"), zero_rule(base, "y")]
    if fits.empty:
        layers.append(point)
    else:
        line = alt.Chart(inline(fits[fits["task"] == task])).encode(x=x)
        layers += [
            line.mark_area(opacity=1, fillOpacity=0.18, color=colour).encode(
                y=number_axis("low", title, alt.Y), y2="high:Q"
            ),
            point,
            line.mark_line(color=colour, strokeWidth=2, strokeDash=[6, 3]).encode(
                y=number_axis("fit", title, alt.Y)
            ),
        ]
    return alt.layer(*layers).properties(width=310, height=290)


def _transfer_says(analysis: StudyAnalysis) -> list[str]:
    num = len(analysis.runs)
    dots = f"One mark a run, {num:,} runs; diamonds: the default."
    thinned = f"{MAX_POINTS:,} of them are drawn." if num > MAX_POINTS else ""
    lines = (
        f"Lines: least squares over all {num:,} runs, with a 95 % confidence band for the mean."
        if not fit_data(analysis).empty
        else f"No line: fewer than {MIN_RUNS} runs, or equal gains."
    )
    return [dots, thinned, lines, *_correlations(analysis)]


def _correlations(analysis: StudyAnalysis) -> list[str]:
    """Return r and rho of each task, or why there are none, and how large they must be."""
    found = []
    for task in TRANSFER:
        both = [c for c in analysis.correlations if c.task == task and c.value is not None]
        if both:
            found.append(f"{task}: {', '.join(_correlation(c) for c in both)}.")
    critical = next((c.critical for c in analysis.correlations if c.critical is not None), None)
    if found and critical is not None:
        num = analysis.correlations[0].num_runs
        found.append(f"n = {num:,}: |r| of {critical:.2f} is needed for p < .05.")
    return found


def _correlation(found: RunCorrelation) -> str:
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    symbol = {"pearson": "r", "spearman": "rank correlation"}.get(found.method, found.method)
    text = f"{symbol} {signed(found.value, 2)} {signed_interval(found.low, found.high, 2)}"
    if found.without_one is None:
        return text
    return f"{text}, without the run that weighs most {signed(found.without_one, 2)}"


def _transfer_caption(analysis: StudyAnalysis) -> str:
    return (
        "Does a larger gain in spelling come with a larger gain elsewhere? Each run is a mark: its "
        "gain in spelling against that in position and in count, strict answers, in points. "
        + " ".join(_correlations(analysis))
    ).strip()


RUNS = Figure(
    "transfer", "Spelling against transfer", _transfer_caption, transfer_data, draw_transfer
)
