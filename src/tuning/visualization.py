"""Figures: for each a pure `*_data` function, and a `draw_*` that only draws.

One chart definition gives PNG and SVG files and the interactive picture of the report. Colours are
Okabe and Ito's, told apart by shape too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from tuning import files
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS
from tuning.transfer_analysis import StudyAnalysis

TASK_COLOURS = {"spelling": "#0072B2", "position": "#D55E00", "count": "#009E73"}


def gains_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration and task: gain and interval, in points."""
    rows = [
        {
            "configuration": f"{row.rank}. {row.label}",
            "rank": row.rank,
            "task": task,
            "gain": 100 * gain.gain,
            "low": 100 * gain.low,
            "high": 100 * gain.high,
            "accuracy": 100 * gain.accuracy,
            "seeds": row.num_seeds,
        }
        for row in analysis.configurations
        for task, gain in row.gains.items()
    ]
    return pd.DataFrame(rows)


def draw_gains(analysis: StudyAnalysis) -> Any:
    """Draw the gains over the untouched model, a panel for each task."""
    data = gains_data(analysis)
    order = list(data.sort_values("rank")["configuration"].unique())
    y = alt.Y("configuration:N", sort=order, title=None, axis=alt.Axis(labelLimit=260))
    colour = _task_colour()
    base = alt.Chart(data)
    zero = base.mark_rule(color="#888", strokeDash=[3, 3]).encode(x=alt.datum(0))
    interval = base.mark_rule(strokeWidth=2).encode(
        y=y, x=alt.X("low:Q", title="gain, points"), x2="high:Q", color=colour
    )
    point = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y,
        x="gain:Q",
        color=colour,
        shape=_task_shape(),
        tooltip=["configuration", "task", *_rounded("gain", "low", "high", "accuracy"), "seeds"],
    )
    chart = alt.layer(zero, interval, point).properties(width=190, height=alt.Step(19))
    return chart.facet(
        column=alt.Column("task:N", sort=_names(), title=None, header=alt.Header(labelFontSize=13))
    )


def transfer_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration and transfer task: its gain beside the spelling gain."""
    rows = [
        {
            "configuration": row.label,
            "task": task.value,
            "spelling": 100 * row.gains["spelling"].gain,
            "spelling_low": 100 * row.gains["spelling"].low,
            "spelling_high": 100 * row.gains["spelling"].high,
            "gain": 100 * row.gains[task.value].gain,
            "low": 100 * row.gains[task.value].low,
            "high": 100 * row.gains[task.value].high,
        }
        for row in analysis.configurations
        for task in TRANSFER_TASKS
    ]
    return pd.DataFrame(rows)


def draw_transfer(analysis: StudyAnalysis) -> Any:
    """Draw spelling gain against the gain in each transfer task."""
    base = alt.Chart(transfer_data(analysis))
    colour = _task_colour(list(t.value for t in TRANSFER_TASKS))
    x = alt.X("spelling:Q", title="gain in spelling, points")
    y = alt.Y("gain:Q", title="gain in position or count, points")
    vertical = base.mark_rule(opacity=0.45).encode(x=x, y="low:Q", y2="high:Q", color=colour)
    horizontal = base.mark_rule(opacity=0.45).encode(
        x="spelling_low:Q", x2="spelling_high:Q", y=y, color=colour
    )
    point = base.mark_point(filled=True, size=80, opacity=1).encode(
        x=x,
        y=y,
        color=colour,
        shape=_task_shape(list(t.value for t in TRANSFER_TASKS)),
        tooltip=["configuration", "task", *_rounded("spelling", "gain", "low", "high")],
    )
    zero_x = base.mark_rule(color="#888", strokeDash=[3, 3]).encode(x=alt.datum(0))
    zero_y = base.mark_rule(color="#888", strokeDash=[3, 3]).encode(y=alt.datum(0))
    return alt.layer(zero_x, zero_y, vertical, horizontal, point).properties(width=430, height=320)


def curves_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each trial, task and evaluation on the way, in percent."""
    rows = [
        {
            "trial": c.trial_id,
            "configuration": c.label,
            "task": task,
            "step": step,
            "accuracy": 100 * a,
        }
        for c in analysis.curves
        for task, accuracies in c.accuracies.items()
        for step, a in zip(c.steps, accuracies, strict=True)
    ]
    return pd.DataFrame(rows, columns=["trial", "configuration", "task", "step", "accuracy"])


def draw_curves(analysis: StudyAnalysis) -> Any:
    """Draw accuracy over optimizer steps, a panel for each task, a line for each trial."""
    labels = [row.label for row in analysis.configurations]
    line = (
        alt.Chart(curves_data(analysis))
        .mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=1.6)
        .encode(
            x=alt.X("step:Q", title="optimizer steps"),
            y=alt.Y(
                "accuracy:Q", title="accuracy on monitor words, %", scale=alt.Scale(zero=False)
            ),
            color=alt.Color(
                "configuration:N",
                sort=labels,
                title=None,
                scale=alt.Scale(scheme="tableau20"),
                legend=alt.Legend(labelLimit=260),
            ),
            detail="trial:N",
            tooltip=["configuration", "task", "step", *_rounded("accuracy")],
        )
        .properties(width=220, height=210)
    )
    return line.facet(
        column=alt.Column("task:N", sort=_names(), title=None, header=alt.Header(labelFontSize=13))
    ).resolve_scale(y="independent")


def _names() -> list[str]:
    return [task.value for task in EVALUATED_TASKS]


def _task_colour(names: list[str] | None = None) -> alt.Color:
    names = names or _names()
    scale = alt.Scale(domain=names, range=[TASK_COLOURS[n] for n in names])
    return alt.Color(
        "task:N", scale=scale, legend=None if len(names) == 3 else alt.Legend(title=None)
    )


def _task_shape(names: list[str] | None = None) -> alt.Shape:
    names = names or _names()
    shapes = {"spelling": "circle", "position": "square", "count": "triangle-up"}
    scale = alt.Scale(domain=names, range=[shapes[n] for n in names])
    return alt.Shape(
        "task:N", scale=scale, legend=None if len(names) == 3 else alt.Legend(title=None)
    )


def _rounded(*names: str) -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".1f") for name in names]


FIGURES = {"gains": draw_gains, "transfer": draw_transfer, "curves": draw_curves}
"""Every figure by its name."""


def figures(analysis: StudyAnalysis) -> dict[str, Any]:
    """Return every figure that the analysis has data for."""
    if not analysis.configurations:
        return {}
    return {
        name: draw(analysis)
        for name, draw in FIGURES.items()
        if name != "curves" or analysis.curves
    }


def specification(chart: Any) -> str:
    """Return a chart as JSON that may stand inside an HTML script element."""
    text = json.dumps(chart.to_dict())
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def javascript() -> str:
    """Return the program that draws charts in a page, for use without a network."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script")


def save_figures(charts: Mapping[str, Any], folder: Path, study: str) -> list[Path]:
    """Write each chart as PNG and SVG and return the paths.

    Raises:
        ResultsError: The disk refuses.
    """
    import vl_convert

    paths = []
    for name, chart in charts.items():
        vega_lite = chart.to_dict()
        for ending, content in (
            ("svg", vl_convert.vegalite_to_svg(vega_lite)),
            ("png", vl_convert.vegalite_to_png(vega_lite, scale=2)),
        ):
            path = folder / f"{study}_{name}.{ending}"
            files.write_atomic(path, content)
            paths.append(path)
    return paths
