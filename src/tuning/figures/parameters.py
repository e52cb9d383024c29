"""Hyperparameters: all at once as parallel coordinates, and what each does by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd

from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.effects import DirectEffect
from tuning.analysis.influence import Influence
from tuning.config import key_of, value_at
from tuning.errors import ConfigError
from tuning.figures.figure import (
    BLUE,
    GREY,
    VERMILLION,
    Figure,
    elided,
    evenly,
    inline,
    natural,
    role_colour,
    role_dash,
    role_of,
    roles_in,
    rows_axis,
    span,
    table,
    tips,
    titled,
    width_of,
    zero_rule,
)
from tuning.ranking import short
from tuning.transfer_analysis import StudyAnalysis

# --- parallel coordinates -----------------------------------------------------------------------

PARALLEL_COLUMNS = ("place", "configuration", "role", "axis", "height", "value")
NUM_LEADERS = 10
"""Of the ranking, drawn in colour; as many again and more are spread evenly over the rest."""
MAX_LINES = 40
MAX_TICKS = 6
OBJECTIVE = "objective"


class Axis(NamedTuple):
    """One hyperparameter, or the objective, from bottom to top."""

    name: str
    values: list[Any]
    """Of each configuration, in the order of the ranking."""
    heights: list[float]
    """Of the same, from 0 to 1."""


def _axes(analysis: StudyAnalysis) -> list[Axis]:
    rows = analysis.configurations
    names = sorted({name for row in rows for name in row.parameters})
    axes = [_axis(name, [_value(analysis, row, name) for row in rows]) for name in names]
    axes = [axis for axis in axes if len(set(map(short, axis.values))) > 1]
    if len(axes) < 2:
        return []
    return [*axes, _axis(OBJECTIVE, [row.objective.value for row in rows])]


def _value(analysis: StudyAnalysis, row: ConfigurationSummary, name: str) -> Any:
    """Return a configuration's value: its own, or that of the default."""
    if name in row.parameters:
        return row.parameters[name]
    try:
        return value_at(analysis.provenance["default configuration"], key_of(name))
    except (KeyError, TypeError, ConfigError):
        return "default"


def _axis(name: str, values: list[Any]) -> Axis:
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        return Axis(name, values, _scaled(np.array(values, dtype=float)).tolist())
    known = sorted({short(value) for value in values}, key=natural)
    places = {value: i / max(1, len(known) - 1) for i, value in enumerate(known)}
    return Axis(name, values, [places[short(value)] for value in values])


def _scaled(numbers_N: np.ndarray) -> np.ndarray:
    """Return numbers from 0 to 1: their logarithms, if those fill a wide range more evenly."""
    candidates = [numbers_N]
    if numbers_N.min() > 0 and numbers_N.max() / numbers_N.min() >= 8:
        candidates.append(np.log(numbers_N))
    heights = [(x - x.min()) / np.ptp(x) if np.ptp(x) else np.full(len(x), 0.5) for x in candidates]
    # Of many draws each counts; of a few chosen values each once, however often it was kept.
    is_drawn = len(np.unique(numbers_N)) > 10
    uneven = [abs(float(np.median(x if is_drawn else np.unique(x))) - 0.5) for x in heights]
    return heights[int(np.argmin(uneven))]


def _lines(analysis: StudyAnalysis) -> list[int]:
    """Return the places of configurations that are drawn: leaders, others evenly, the default."""
    rows = analysis.configurations
    rest = range(NUM_LEADERS, len(rows))
    spread = [rest[i] for i in evenly(len(rest), MAX_LINES - NUM_LEADERS)]
    default = [i for i, row in enumerate(rows) if row.is_default]
    return sorted({*range(min(NUM_LEADERS, len(rows))), *spread, *default})


def parallel_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration drawn and each axis: a value, and how high it stands.

    Empty where fewer than two hyperparameters vary: their influence says all then.
    """
    axes = _axes(analysis)
    rows = [
        {
            "place": row.rank,
            "configuration": elided(row.label),
            "role": _parallel_role(row, len(analysis.configurations)),
            "axis": axis.name,
            "height": axis.heights[place],
            "value": short(axis.values[place]),
        }
        for place in _lines(analysis)
        for row in [analysis.configurations[place]]
        for axis in axes
    ]
    return table(rows, PARALLEL_COLUMNS)


def _parallel_role(row: ConfigurationSummary, number: int) -> str:
    role = role_of(row)
    leaders = min(NUM_LEADERS, max(1, number // 5))
    return "best" if role == "other" and row.rank <= leaders else role


def ticks_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return the labels along each axis, at most 6: its values, or some of them and both ends."""
    rows = []
    for axis in _axes(analysis):
        values = dict(zip(axis.heights, axis.values, strict=True))
        for height in _apart(sorted(values)):
            label = elided(_tick(axis, values[height]), 14)
            rows.append({"axis": axis.name, "height": height, "label": label})
    return table(rows, ("axis", "height", "label"))


def _tick(axis: Axis, value: Any) -> str:
    if axis.name == OBJECTIVE:
        return f"{value:.3f}"
    return f"{value:.3g}" if isinstance(value, float) else short(value)


def _apart(heights: Sequence[float]) -> list[float]:
    """Return heights that leave room for their labels, the two ends among them."""
    kept = [heights[0]]
    for height in heights[1:-1]:
        if height - kept[-1] >= 1 / MAX_TICKS and heights[-1] - height >= 1 / MAX_TICKS:
            kept.append(height)
    return [*kept, heights[-1]] if len(heights) > 1 else kept


def draw_parallel(analysis: StudyAnalysis) -> Any:
    """Draw a line for each configuration through its hyperparameters to its objective."""
    data, axes = parallel_data(analysis), [axis.name for axis in _axes(analysis)]
    roles = roles_in(data)
    x = alt.X(
        "axis:N",
        scale=alt.Scale(domain=axes, type="point", padding=0.4),
        title=None,
        axis=alt.Axis(
            orient="top",
            labelAngle=-20 if len(axes) > 5 else 0,
            domain=False,
            ticks=False,
            labelLimit=150,
            labelPadding=16,
            grid=False,
        ),
    )
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(inline(data.drop(columns="configuration")))
    ticks = alt.Chart(inline(ticks_data(analysis)))
    lines = [
        base.transform_filter(alt.datum.role == role)
        .mark_line(
            strokeWidth=1.2 if role == "other" else 2,
            strokeOpacity=0.45 if role == "other" else 0.9,
        )
        .encode(
            x=x,
            y=y,
            color=role_colour(roles),
            strokeDash=role_dash(roles),
            detail="place:N",
            tooltip=tips(texts=[("place", "place"), ("axis", "axis"), ("value", "value")]),
        )
        for role in reversed(roles)
    ]
    layers = [
        ticks.mark_rule(color=GREY, strokeOpacity=0.6).encode(x=x),
        *lines,
        ticks.mark_point(shape="stroke", color=GREY, size=60, opacity=1).encode(x=x, y=y),
        ticks.mark_text(align="left", dx=7, dy=-6, fontSize=10).encode(x=x, y=y, text="label:N"),
    ]
    width = max(420, 105 * len(axes))
    chart = alt.layer(*layers).properties(width=width, height=300)
    return titled(chart, PARALLEL.title, analysis, _parallel_says(analysis), width)


def _parallel_says(analysis: StudyAnalysis) -> list[str]:
    drawn, known = len(_lines(analysis)), len(analysis.configurations)
    leaders = min(NUM_LEADERS, max(1, known // 5))
    which = f", the first {leaders} of the ranking" if leaders > 1 else ""
    return [
        f"One line a configuration, from its hyperparameters to its objective "
        f"({analysis.focus_says}); blue: the best{which}.",
        f"{drawn} of {known:,} configurations shown: leaders, default, and others evenly over the "
        "ranking."
        if drawn < known
        else f"{known} configurations.",
        "Wide ranges are on a log scale. No intervals: see the ranking for what chance can do.",
    ]


def _parallel_caption(analysis: StudyAnalysis) -> str:
    return (
        "Each line is a configuration: its value of every hyperparameter that the study varied, "
        f"and at the right its objective, {analysis.focus_says}, higher is better. Where the lines "
        "of the best come together, a value may matter; whether it does, the ranking's intervals "
        "say."
    )


PARALLEL = Figure(
    "parallel", "Hyperparameters and objective", _parallel_caption, parallel_data, draw_parallel
)

# --- what each hyperparameter does --------------------------------------------------------------

INFLUENCE_COLUMNS = (
    "kind",
    "target",
    "parameter",
    "value",
    "name",
    "effect",
    "low",
    "high",
    "q_value",
    "noise",
    "is_clear",
)
EFFECT, IMPORTANCE = "effect", "importance"
MAX_ROWS = 32


def influence_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each changed value and target, or for each hyperparameter's importance.

    Effects are in points (of the objective: hundredths), importances in percent. A study has
    effects if it changed one value at a time, else importances if it had trials enough.
    """
    rows = _effect_rows(analysis.effects) or _importance_rows(analysis.influences)
    return table(rows, INFLUENCE_COLUMNS)


def _effect_rows(effects: Sequence[DirectEffect]) -> list[dict[str, Any]]:
    size: dict[tuple[str, str], float] = {}
    for effect in effects:
        key = (effect.parameter, effect.value)
        size[key] = max(size.get(key, 0.0), abs(effect.effect.value))
    kept = set(sorted(size, key=lambda key: -size[key])[:MAX_ROWS])
    return [
        {
            "kind": EFFECT,
            "target": effect.target,
            "parameter": effect.parameter,
            "value": effect.value,
            "name": elided(f"{effect.parameter} = {effect.value}"),
            "effect": 100 * effect.effect.value,
            "low": 100 * effect.effect.low,
            "high": 100 * effect.effect.high,
            "q_value": effect.q_value,
            "noise": None,
            "is_clear": effect.effect.direction != 0,
        }
        for effect in effects
        if (effect.parameter, effect.value) in kept
    ]


def _importance_rows(influences: Sequence[Influence]) -> list[dict[str, Any]]:
    rows = []
    for found in influences:
        if found.importance is None:
            continue
        ends = {end: _percent(getattr(found, end)) for end in ("low", "high", "noise")}
        rows.append(
            {
                "kind": IMPORTANCE,
                "target": found.target,
                "parameter": found.parameter,
                "value": "",
                "name": elided(found.parameter),
                "effect": 100 * found.importance,
                "q_value": None,
                "is_clear": found.is_above_noise,
                **ends,
            }
        )
    return rows


def _percent(rate: float | None) -> float | None:
    return None if rate is None else 100 * rate


def draw_influence(analysis: StudyAnalysis) -> Any:
    """Draw effects, or importances, with their intervals: a panel for each target."""
    data = influence_data(analysis)
    is_effect = data["kind"].iloc[0] == EFFECT
    order = data.groupby("parameter")["effect"].apply(lambda effects: effects.abs().max())
    rows = data.assign(size=-data["parameter"].map(order), place=data["value"].map(natural))
    names = list(dict.fromkeys(rows.sort_values(["size", "parameter", "place"])["name"]))
    y = rows_axis(names)
    targets = list(dict.fromkeys(data["target"]))
    base = alt.Chart(inline(data.drop(columns=["parameter", "value", "kind"])))
    title = "effect, points" if is_effect else "importance, %"
    x = alt.X("effect:Q", title=title, scale=alt.Scale(nice=True))
    colour = alt.Color(
        "is_clear:N", scale=alt.Scale(domain=[True, False], range=[BLUE, GREY]), legend=None
    )
    interval = base.mark_rule(strokeWidth=2).encode(y=y, x="low:Q", x2="high:Q", color=colour)
    texts = [("name", "changed"), ("target", "target")]
    numbers = tips(("effect", title), ("low", "low"), ("high", "high"), texts=texts)
    point = base.mark_point(size=60, opacity=1, strokeWidth=1.6).encode(
        y=y,
        x=x,
        color=colour,
        fill=alt.Fill(
            "is_clear:N",
            scale=alt.Scale(domain=[True, False], range=[BLUE, "transparent"]),
            legend=None,
        ),
        tooltip=numbers if not is_effect else [*numbers, alt.Tooltip("q_value:Q", format=".3f")],
    )
    noise = base.mark_tick(color=VERMILLION, opacity=1, thickness=2, size=14).encode(
        y=y, x="noise:Q"
    )
    layers = [zero_rule(base), interval, *([] if is_effect else [noise]), point]
    width = 620 // max(3, len(targets))
    chart = alt.layer(*layers).properties(width=width, height=alt.Step(20))
    column = alt.Column(
        "target:N",
        sort=targets,
        title=None,
        header=alt.Header(labelFontSize=13, labelFontWeight="bold", labelPadding=4),
    )
    faceted = chart.facet(column=column, spacing=18)
    if is_effect:
        faceted = faceted.resolve_scale(x="independent")
    return titled(
        faceted, INFLUENCE.title, analysis, _influence_says(analysis, data), width_of(names, 690)
    )


def _influence_says(analysis: StudyAnalysis, data: pd.DataFrame) -> list[str]:
    if data["kind"].iloc[0] == IMPORTANCE:
        return [
            "Importance: share of the variance of being among the best that a hyperparameter "
            "explains by itself (PED-ANOVA).",
            "Bars: 95 % intervals. Upright: what chance alone reaches once in 20 times.",
            "Filled: above it; hollow: not.",
            f"{span((f.num_configurations for f in analysis.influences), 'configurations')}.",
        ]
    tests = len(analysis.effects)
    false = sum(effect.q_value < 0.05 for effect in analysis.effects)
    drawn, known = data["name"].nunique(), len({(e.parameter, e.value) for e in analysis.effects})
    return [
        "Each value against the default, all else equal. Bars: 95 % intervals; filled: without 0.",
        f"{tests} tests, of which {false} hold at a false discovery rate of 5 %.",
        "Each panel has its own axis; of the objective, a point is 0.01.",
        f"{drawn} of {known} changed values shown, those with the largest effects."
        if drawn < known
        else "",
        _seeds(analysis.configurations),
    ]


def _seeds(rows: Sequence[ConfigurationSummary]) -> str:
    default = span([row.num_seeds for row in rows if row.is_default], "seed(s) of the default")
    return f"n: {default}, {span([r.num_seeds for r in rows if not r.is_default], 'of others')}."


def _influence_caption(analysis: StudyAnalysis) -> str:
    data = influence_data(analysis)
    if not data.empty and data["kind"].iloc[0] == IMPORTANCE:
        return (
            "Which hyperparameters decide whether a configuration is among the best: PED-ANOVA's "
            "importance with 95 % intervals by bootstrap over configurations, and what it reaches "
            "when results are dealt out at random."
        )
    return (
        "What one changed value does to the gain in each task, and to the objective, with all "
        "others as in the default: difference in points with its 95 % interval. With so many tests "
        "some intervals leave 0 by chance; the table of effects has q values."
    )


INFLUENCE = Figure(
    "influence",
    "What each hyperparameter does",
    _influence_caption,
    influence_data,
    draw_influence,
)
