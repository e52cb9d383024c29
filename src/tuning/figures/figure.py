"""What figures share: their record, colours, titles, and which configurations fit into one.

Colours are Okabe and Ito's, those that read on white and on near black; tasks and roles are told
apart by shape or dash too, for grey. Colours of text and background are left to the page. Texts of
users (labels, values, names) reach a chart as data or as the domain of a scale, never in an
expression.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from tuning.analysis.configurations import ConfigurationSummary
from tuning.tasks.items import EVALUATED_TASKS, SCORED_TASKS
from tuning.transfer_analysis import StudyAnalysis

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, ORANGE = "#56B4E9", "#E69F00"
"""Light enough for dark text, too light for thin marks."""
GREY = "#888888"
PALE = "#F7F7F7"
INK = "#111111"
"""Text inside a coloured cell, which is its background in every theme."""

TASKS = [task.value for task in SCORED_TASKS]
ALL_TASKS = [task.value for task in EVALUATED_TASKS]
_NUM_PROBES = len(ALL_TASKS) - len(TASKS)
_COLOURS = (BLUE, VERMILLION, GREEN, *(PURPLE,) * _NUM_PROBES)
_SHAPES = ("circle", "square", "triangle-up", *("diamond",) * _NUM_PROBES)
TASK_COLOURS = dict(zip(ALL_TASKS, _COLOURS, strict=True))
TASK_SHAPES = dict(zip(ALL_TASKS, _SHAPES, strict=True))

ROLES = ("best", "default", "control", "other")
ROLE_COLOURS = dict(zip(ROLES, (BLUE, VERMILLION, GREEN, GREY), strict=True))
ROLE_SHAPES = dict(zip(ROLES, ("square", "diamond", "triangle-up", "circle"), strict=True))
ROLE_DASHES: Mapping[str, list[float]] = {
    "best": [1, 0],
    "default": [6, 3],
    "control": [2, 2],
    "other": [1, 0],
}

MAX_CONFIGURATIONS = 30
"""Rows of one figure that has a row for each configuration; controls come on top."""
MAX_POINTS = 1500
"""Points of one scatter."""
MAX_LABEL = 46
"""Characters of a configuration's label."""


@dataclass(frozen=True)
class Figure:
    """One figure of the report."""

    name: str
    title: str
    caption: Callable[[StudyAnalysis], str]
    """How to read it, for those who see it and for those who do not."""
    data: Callable[..., pd.DataFrame]
    """What is drawn; empty where there is nothing to draw."""
    draw: Callable[[StudyAnalysis], Any]

    def has_data(self, analysis: StudyAnalysis) -> bool:
        """Whether there is anything to draw."""
        return not self.data(analysis).empty


# --- which configurations ---------------------------------------------------------------------


class Shown(NamedTuple):
    """Configurations that fit into a figure."""

    rows: list[ConfigurationSummary]
    says: str
    """What is left out; empty if nothing is."""


def shown(rows: Sequence[ConfigurationSummary], limit: int = MAX_CONFIGURATIONS) -> Shown:
    """Return the first of a ranking, and the default wherever it stands."""
    if len(rows) <= limit:
        return Shown(list(rows), "")
    kept = list(rows[:limit])
    if not any(row.is_default for row in kept):
        kept = [*kept[:-1], *(row for row in rows if row.is_default)] or kept
    says = f"{len(kept):,} of {len(rows):,} configurations shown, the first of the ranking"
    has_default = any(row.is_default for row in kept)
    return Shown(kept, f"{says} and the default." if has_default else f"{says}.")


def role_of(row: ConfigurationSummary) -> str:
    """Return best, default, control or other; a default that is the best is the default."""
    if row.is_default:
        return "default"
    return {0: "control", 1: "best"}.get(row.rank, "other")


def elided(label: str, limit: int = MAX_LABEL) -> str:
    """Return a label that fits beside a chart, on one line."""
    line = " ".join(label.split())
    # The library that draws ends the whole process at a control character.
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def names_of(rows: Sequence[ConfigurationSummary]) -> list[str]:
    """Return a short name for each row: its place in the ranking, or C1, C2 for controls."""
    controls = 0
    names = []
    for row in rows:
        controls += row.rank == 0
        place = f"{row.rank}." if row.rank else f"C{controls}"
        names.append(f"{place} {elided(row.label)}")
    return names


def mean_transfer(row: ConfigurationSummary) -> tuple[float, float, float]:
    """Return the mean gain of position and count with its interval, in points.

    The ends are the means of both tasks' ends: whatever their correlation, that is wide enough.
    """
    gains = [row.gains[task].gain for task in ("position", "count")]
    low, value, high = (
        100 * sum(getattr(gain, end) for gain in gains) / 2 for end in ("low", "value", "high")
    )
    return value, low, high


def evenly(number: int, limit: int) -> list[int]:
    """Return at most so many places of a sequence, evenly spread, the two ends among them."""
    if number <= limit:
        return list(range(number))
    return sorted({int(place) for place in np.linspace(0, number - 1, limit).round()})


# --- data ---------------------------------------------------------------------------------------


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table that has its columns even when it is empty."""
    return pd.DataFrame(list(rows), columns=list(columns))


def inline(data: pd.DataFrame, decimals: int = 3) -> pd.DataFrame:
    """Return a table as a chart embeds it: rounded, and nothing infinite."""
    return data.round(decimals).replace([np.inf, -np.inf], np.nan).reset_index(drop=True)


_ORDERS = (
    ("easy", "medium", "hard"),
    ("first", "interior", "last"),
    ("short", "long"),
    ("none", "some", "all"),
    ("False", "True"),
)


def natural(value: Any) -> tuple[float, str]:
    """Return where a value stands among its like: numbers by size, bands by ease, else by name."""
    text = str(value)
    for order in _ORDERS:
        if text in order:
            return float(order.index(text)), text
    try:
        return float(text), text
    except ValueError:
        return np.inf, text


def span(values: Iterable[int], unit: str) -> str:
    """Return how many there are: ``400 words``, or ``208 to 400 words``."""
    numbers = sorted(set(values))
    if not numbers:
        return f"0 {unit}"
    low, high = numbers[0], numbers[-1]
    return f"{low:,} {unit}" if low == high else f"{low:,} to {high:,} {unit}"


def sizes(analysis: StudyAnalysis) -> str:
    """Return the items and words of each task."""
    parts = (
        f"{task} {found.base.num_items:,} on {found.base.num_words:,} words"
        for task, found in analysis.tasks.items()
    )
    return f"Items: {'; '.join(parts)}."


# --- parts of charts --------------------------------------------------------------------------


def titled(
    chart: Any, title: str, analysis: StudyAnalysis, sentences: Iterable[str], width: int
) -> Any:
    """Return a chart with its title; below it what n is, what bars are, and whose model it is.

    Args:
        chart: Any chart.
        title: One line.
        analysis: The study.
        sentences: Of the subtitle; empty ones are left out.
        width: Of the whole chart in pixels; lines are broken there.
    """
    return headed(chart, title, sentences, f"Study {analysis.study}, {analysis.model}", width)


def headed(chart: Any, title: str, sentences: Iterable[str], source: str, width: int) -> Any:
    """Return a chart with its title; below it sentences, and on a line of its own what it shows.

    Args:
        chart: Any chart.
        title: One line.
        sentences: Of the subtitle; empty ones are left out.
        source: The last line.
        width: Of the whole chart in pixels; lines are broken there.
    """
    text = " ".join(sentence for sentence in sentences if sentence)
    lines = textwrap.wrap(text, max(40, int(width / 5.4)))
    heading = alt.TitleParams(
        text=title,
        subtitle=[*lines, source],
        anchor="start",
        frame="bounds",
        fontSize=15,
        subtitleFontSize=11,
        subtitlePadding=5,
        offset=14,
    )
    return chart.properties(title=heading).configure_view(stroke=None)


def panel_title(label: str, anchor: Literal["start", "middle"] = "start") -> alt.TitleParams:
    """Return the heading of one panel, which may be a user's label."""
    return alt.TitleParams(
        text=elided(label, 34), fontSize=12.5, anchor=anchor, offset=8, frame="group"
    )


def width_of(names: Sequence[str], panels: int) -> int:
    """Return the pixels of panels in a row, with the names of their rows in front."""
    return panels + round(5.6 * max(map(len, names), default=0))


def rows_axis(names: Sequence[str], *, has_labels: bool = True) -> alt.Y:
    """Return the axis of a figure that has a row for each name."""
    axis = alt.Axis(labels=has_labels, labelLimit=0, ticks=False, domain=False, grid=True)
    return alt.Y("name:N", scale=alt.Scale(domain=list(names)), title=None, axis=axis)


def number_axis(field: str, title: str | None, channel: Any = alt.X, **scale: Any) -> Any:
    """Return an axis of numbers."""
    return channel(
        field=field, type="quantitative", title=title, scale=alt.Scale(nice=True, **scale)
    )


def zero_rule(base: Any, channel: str = "x") -> Any:
    """Return the line of no change."""
    return base.mark_rule(color=GREY, strokeDash=[3, 3]).encode(**{channel: alt.datum(0)})


def task_colour(tasks: Sequence[str] = ALL_TASKS, channel: Any = alt.Color) -> Any:
    """Return the colour of tasks, with no legend: panels say which is which."""
    return channel("task:N", scale=_scale(TASK_COLOURS, tasks), legend=None)


def task_shape(tasks: Sequence[str] = ALL_TASKS) -> alt.Shape:
    """Return the shape of tasks, with no legend."""
    return alt.Shape("task:N", scale=_scale(TASK_SHAPES, tasks), legend=None)


def task_columns(tasks: Sequence[str] = ALL_TASKS) -> alt.Column:
    """Return one panel for each task."""
    header = alt.Header(labelFontSize=13, labelFontWeight="bold", labelPadding=4)
    return alt.Column("task:N", sort=list(tasks), title=None, header=header)


def last_on_top(data: pd.DataFrame) -> pd.DataFrame:
    """Return configurations with those that stand out at the end, where they are drawn on top."""
    places = {role: -i for i, role in enumerate(ROLES)}
    return data.sort_values("role", key=lambda roles: roles.map(places), kind="stable")


def roles_in(data: pd.DataFrame) -> list[str]:
    """Return the roles that occur, in their order."""
    return [role for role in ROLES if role in set(data["role"])]


def role_legend(roles: Sequence[str]) -> alt.Legend | None:
    """Return a legend above the chart; none for a single role."""
    if len(roles) < 2:
        return None
    return alt.Legend(title=None, orient="top", direction="horizontal", symbolOpacity=1)


def role_colour(roles: Sequence[str]) -> alt.Color:
    """Return the colour of roles."""
    return alt.Color("role:N", scale=_scale(ROLE_COLOURS, roles), legend=role_legend(roles))


def role_shape(roles: Sequence[str]) -> alt.Shape:
    """Return the shape of roles."""
    return alt.Shape("role:N", scale=_scale(ROLE_SHAPES, roles), legend=role_legend(roles))


def opacity_of(number: int) -> float:
    """Return an opacity at which a crowd of points still shows where it is dense."""
    return 0.9 if number <= 50 else 0.6 if number <= 200 else 0.35


def fading(number: int) -> Any:
    """Return that opacity for the many, and full colour for best and default."""
    return alt.condition(alt.datum.role == "other", alt.value(opacity_of(number)), alt.value(1))


def role_dash(roles: Sequence[str]) -> alt.StrokeDash:
    """Return the dashes of roles."""
    return alt.StrokeDash("role:N", scale=_scale(ROLE_DASHES, roles), legend=role_legend(roles))


def _scale(values: Mapping[str, Any], names: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=[values[name] for name in names])


def tips(*fields: tuple[str, str], texts: Sequence[tuple[str, str]] = ()) -> list[alt.Tooltip]:
    """Return what is shown on hovering: texts first, then numbers with one decimal.

    Args:
        fields: Name of a field of numbers, and what to call it.
        texts: The same for texts and whole numbers.
    """
    return [
        *(alt.Tooltip(field=name, type="nominal", title=title) for name, title in texts),
        *(
            alt.Tooltip(field=name, type="quantitative", title=title, format="+.1f")
            for name, title in fields
        ),
    ]
