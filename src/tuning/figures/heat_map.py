"""What goes together: rank correlations of settings and gains over runs, as a heat map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pandas as pd

from tuning.analysis.relations import MIN_RUNS
from tuning.figures.figure import INK, TASKS, inline, table, titled
from tuning.statistics import spearman
from tuning.transfer_analysis import StudyAnalysis

COLUMNS = ("quantity", "gain", "correlation", "low", "high", "runs")


def heat_map_data(analysis: StudyAnalysis, settings: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Return Spearman's correlation of each quantity that varies with the gain in each task.

    Empty for fewer than 5 runs.

    Args:
        analysis: Of the study; its runs are the observations.
        settings: Values of each hyperparameter, one for each run; those that are no numbers are
            left out.
    """
    if len(analysis.runs) < MIN_RUNS:
        return table([], COLUMNS)
    gains = {task: [float(getattr(run, task)) for run in analysis.runs] for task in TASKS}
    numeric = {
        name: [float(value) for value in values]
        for name, values in settings.items()
        if all(isinstance(value, int | float) for value in values)
    }
    rows = []
    for quantity, values in {f"gain in {TASKS[0]}": gains[TASKS[0]], **numeric}.items():
        for task in TASKS:
            try:
                found = spearman(values, gains[task])
            except ValueError:
                # One side does not vary.
                continue
            if values is not gains[task]:
                interval = {"low": found.interval.low, "high": found.interval.high}
                row = {"quantity": quantity, "gain": task, "correlation": found.value}
                rows.append({**row, **interval, "runs": len(values)})
    return table(rows, COLUMNS)


def draw_heat_map(analysis: StudyAnalysis, data: pd.DataFrame) -> Any:
    """Draw a cell for each quantity and task, its colour and number the correlation."""
    base = alt.Chart(inline(data)).encode(
        x=alt.X("gain:N", sort=TASKS, title="gain in", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("quantity:N", sort=None, title=None),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "correlation:Q",
            scale=alt.Scale(domain=[-1, 1], scheme="blueorange"),
            legend=alt.Legend(title="rank correlation"),
        )
    )
    numbers = base.mark_text(color=INK, fontSize=12).encode(
        text=alt.Text("correlation:Q", format="+.2f")
    )
    chart = alt.layer(cells, numbers).properties(width=300, height=alt.Step(30))
    says = [f"Spearman over {len(analysis.runs):,} runs; few runs tell little: see the intervals."]
    return titled(chart, "What goes with a gain", analysis, says, 560)
