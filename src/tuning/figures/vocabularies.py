"""The English parts of the vocabulary against the whole one: accuracy, speed and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt
import pandas as pd

from tuning.analysis.resources import Ratio
from tuning.analysis.vocabularies import WHOLE, VocabularyRow
from tuning.figures.figure import (
    BLUE,
    GREY,
    PURPLE,
    TASKS,
    Figure,
    inline,
    panel_title,
    rows_axis,
    span,
    table,
    task_colour,
    task_shape,
    tips,
    titled,
    width_of,
)
from tuning.transfer_analysis import StudyAnalysis

COLUMNS = (
    "name",
    "vocabulary",
    "task",
    "reading",
    "value",
    "low",
    "high",
    "seeds",
    "words",
    "basis",
)
READINGS = ("accuracy", "gain")
QUANTITIES = ("speed", "memory", "GPU memory")
PANEL = 170
"""Pixels of one panel."""


def vocabularies_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return differences from the whole vocabulary, in points, and ratios to it.

    A row for each part of the vocabulary, task and reading, and one for each part and quantity: the
    latter have no task. What was asked about other items has no difference of accuracy: it would be
    one of words.
    """
    rows = [row for row in analysis.vocabularies if row.name != WHOLE]
    found = [x for row in rows for x in (*_differences(row), *_ratios(row))]
    return table(found, COLUMNS)


def _name(row: VocabularyRow) -> str:
    size = f"{row.num_rows:,} rows, " if row.num_rows else ""
    return f"{row.name} ({size}n = {len(row.seeds)})"


def _differences(row: VocabularyRow) -> Iterator[dict[str, Any]]:
    for task, found in row.tasks.items():
        over = found.over_whole
        if over is None:
            continue
        readings = {"accuracy": over.level, "gain": over.gain}
        if not over.is_same_items:
            del readings["accuracy"]
        for reading, difference in readings.items():
            yield {
                **_known(row),
                "task": task,
                "reading": reading,
                "value": 100 * difference.value,
                "low": 100 * difference.low,
                "high": 100 * difference.high,
                "words": found.num_words,
                "basis": "same items" if over.is_same_items else "independent samples",
            }


def _ratios(row: VocabularyRow) -> Iterator[dict[str, Any]]:
    ratios: tuple[Ratio | None, ...] = (row.speed_ratio, row.memory_ratio, row.gpu_memory_ratio)
    for quantity, ratio in zip(QUANTITIES, ratios, strict=True):
        if ratio is not None:
            yield {
                **_known(row),
                "reading": quantity,
                "value": ratio.value,
                "low": ratio.low,
                "high": ratio.high,
                "basis": "95 % interval" if ratio.is_interval else "smallest and largest",
            }


def _known(row: VocabularyRow) -> dict[str, Any]:
    return {"name": _name(row), "vocabulary": row.name, "seeds": len(row.seeds)}


def draw_vocabularies(analysis: StudyAnalysis) -> Any:
    """Draw differences, a panel for each task, and beside them speed and memory."""
    data = vocabularies_data(analysis)
    names = list(dict.fromkeys(data["name"]))
    panels = [
        _task_panel(data[data["task"] == task], task, names, is_first=task == TASKS[0])
        for task in TASKS
    ]
    ratios = data[data["task"].isna()]
    if not ratios.empty:
        panels.append(_ratio_panel(ratios, names))
    chart = alt.hconcat(*panels, spacing=16).resolve_scale(
        color="independent", shape="independent", yOffset="independent"
    )
    width = width_of(names, PANEL * len(panels) + 100)
    return titled(chart, VOCABULARIES.title, analysis, _says(analysis), width)


def _task_panel(data: pd.DataFrame, task: str, names: list[str], *, is_first: bool) -> Any:
    base = alt.Chart(inline(data))
    y = rows_axis(names, has_labels=is_first)
    offset = alt.YOffset("reading:N", scale=alt.Scale(domain=list(READINGS)))
    bar = base.mark_rule(strokeWidth=1.8).encode(
        y=y,
        yOffset=offset,
        x=alt.X("low:Q", title="difference, points", scale=alt.Scale(nice=True)),
        x2="high:Q",
        color=task_colour(),
        strokeDash=alt.condition(
            alt.datum.basis == "same items", alt.value([1, 0]), alt.value([4, 3])
        ),
    )
    texts = [
        *(("vocabulary", "vocabulary"), ("reading", "difference of"), ("seeds", "seeds")),
        *(("words", "words"), ("basis", "compared")),
    ]
    mark = base.mark_point(size=38, opacity=1, strokeWidth=1.5).encode(
        y=y,
        yOffset=offset,
        x="value:Q",
        color=task_colour(),
        fill=task_colour(channel=alt.Fill),
        fillOpacity=alt.condition(alt.datum.reading == READINGS[0], alt.value(1), alt.value(0)),
        shape=task_shape(),
        tooltip=tips(("value", "difference"), ("low", "low"), ("high", "high"), texts=texts),
    )
    return _panel(base, 0, bar, mark, task)


def _ratio_panel(data: pd.DataFrame, names: list[str]) -> Any:
    known = [quantity for quantity in QUANTITIES if quantity in set(data["reading"])]
    base = alt.Chart(inline(data, decimals=4))
    y = rows_axis(names, has_labels=False)
    offset = alt.YOffset("reading:N", scale=alt.Scale(domain=known))
    legend = alt.Legend(title=None, orient="bottom", direction="horizontal", symbolOpacity=1)
    colours = dict(zip(QUANTITIES, (PURPLE, GREY, BLUE), strict=True))
    shapes = dict(zip(QUANTITIES, ("diamond", "square", "circle"), strict=True))
    colour = alt.Color(
        "reading:N",
        scale=alt.Scale(domain=known, range=[colours[name] for name in known]),
        legend=legend,
    )
    bar = base.mark_rule(strokeWidth=1.8).encode(
        y=y,
        yOffset=offset,
        x=alt.X(
            "low:Q",
            title="times the whole one, log scale",
            scale=alt.Scale(type="log", nice=False, padding=10),
            axis=alt.Axis(format=".3~g", values=_ticks(data)),
        ),
        x2="high:Q",
        color=colour,
    )
    mark = base.mark_point(filled=True, size=50, opacity=1).encode(
        y=y,
        yOffset=offset,
        x="value:Q",
        color=colour,
        shape=alt.Shape(
            "reading:N",
            scale=alt.Scale(domain=known, range=[shapes[name] for name in known]),
            legend=legend,
        ),
        tooltip=[
            *tips(texts=[("vocabulary", "vocabulary"), ("reading", "of"), ("basis", "bar")]),
            *(
                alt.Tooltip(field=f, type="quantitative", format=".3f")
                for f in ("value", "low", "high")
            ),
        ],
    )
    return _panel(base, 1, bar, mark, "speed and memory")


def _ticks(data: pd.DataFrame) -> list[float]:
    """Return round ratios within what is drawn: a log scale of less than a decade has few."""
    low, high = data["low"].min(), data["high"].max()
    wanted = (0.25, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 2, 4)
    inside = [tick for tick in wanted if low <= tick <= high or tick == 1]
    wide = (0.25, 0.5, 1, 2, 4)
    return inside if high / low < MAX_CLOSE else [tick for tick in inside if tick in wide]


MAX_CLOSE = 2.5
"""Ratio of the ends of an axis up to which tenths of a ratio have room."""


def _panel(base: Any, same: float, bar: Any, mark: Any, title: str) -> Any:
    """Return a panel with a line where the whole vocabulary stands."""
    rule = base.mark_rule(color=GREY, strokeDash=[3, 3]).encode(x=alt.datum(same))
    return alt.layer(rule, bar, mark).properties(
        width=PANEL, height=alt.Step(26, **{"for": "position"}), title=panel_title(title, "middle")
    )


def _says(analysis: StudyAnalysis) -> list[str]:
    data = vocabularies_data(analysis)
    is_ratio = data["task"].isna()
    words = (
        f"{task} {span(data.loc[data['task'] == task, 'words'].astype(int), 'words')}"
        for task in TASKS
    )
    has_intervals = set(data.loc[is_ratio, "basis"]) == {"95 % interval"}
    spread = "95 % intervals over runs" if has_intervals else "the spread of runs"
    return [
        "Each part less the whole one, strict answers. Filled: accuracy after training; hollow "
        "below it: gain over its own untouched model. Bars: 95 % intervals.",
        "Dashed: other items, so gain alone, and words do not cancel."
        if "independent samples" in set(data["basis"])
        else "",
        f"Right: speed above 1 and memory below 1 are savings; bars are {spread}."
        if is_ratio.any()
        else "",
        f"n: seeds. {', '.join(words)}.",
    ]


def _caption(analysis: StudyAnalysis) -> str:
    return (
        "What training and evaluating on an English part of the vocabulary changes, all else "
        "equal. Left: accuracy (filled) and gain (hollow) less those with the whole vocabulary, in "
        "points, with 95 % intervals; what is not told from 0 is not told from no change. Right: "
        "tokens trained a second and peak memory as a multiple of those with the whole "
        "vocabulary, the dashed line."
    )


VOCABULARIES = Figure(
    "vocabularies",
    "An English part of the vocabulary, against the whole one",
    _caption,
    vocabularies_data,
    draw_vocabularies,
)
