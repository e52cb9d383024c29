"""Configurations weighed: the front of spelling and transfer, and what a gain costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from tuning.analysis.formats import signed
from tuning.figures.figure import (
    GREY,
    MAX_POINTS,
    Figure,
    elided,
    evenly,
    fading,
    inline,
    last_on_top,
    mean_transfer,
    number_axis,
    role_colour,
    role_of,
    role_shape,
    roles_in,
    sizes,
    table,
    tips,
    titled,
    zero_rule,
)
from tuning.scoring import dominates
from tuning.transfer_analysis import StudyAnalysis

# --- the front ----------------------------------------------------------------------------------

FRONT_COLUMNS = (
    "place",
    "configuration",
    "role",
    "spelling",
    "spelling_low",
    "spelling_high",
    "transfer",
    "transfer_low",
    "transfer_high",
    "is_front",
    "seeds",
)


def front_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration: gain in spelling, mean gain in transfer, in points.

    The front holds those that no other beats in both; in a study with several objectives, those
    that no other beats in its objectives.
    """
    rows: list[dict[str, Any]] = []
    for row in analysis.configurations:
        transfer, low, high = mean_transfer(row)
        spelling = row.gains["spelling"].gain
        rows.append(
            {
                "place": row.rank,
                "configuration": elided(row.label),
                "role": role_of(row),
                "spelling": 100 * spelling.value,
                "spelling_low": 100 * spelling.low,
                "spelling_high": 100 * spelling.high,
                "transfer": transfer,
                "transfer_low": low,
                "transfer_high": high,
                "seeds": row.num_seeds,
            }
        )
    for found, is_front in zip(rows, _on_front(analysis, rows), strict=True):
        found["is_front"] = is_front
    data = table(rows, FRONT_COLUMNS)
    return data if len(data) > 1 else data.iloc[:0]


def _on_front(analysis: StudyAnalysis, rows: Sequence[dict[str, Any]]) -> list[bool]:
    if analysis.front:
        members = {tuple(member.trial_ids) for member in analysis.front}
        return [tuple(row.trial_ids) in members for row in analysis.configurations]
    gains = [(row["spelling"], row["transfer"]) for row in rows]
    distinct = set(gains)
    beaten = {one for one in distinct if any(dominates(other, one) for other in distinct)}
    return [one not in beaten for one in gains]


def draw_front(analysis: StudyAnalysis) -> Any:
    """Draw gain in spelling against mean gain in transfer, and the front."""
    data = last_on_top(_with_labels(thinned(front_data(analysis), "is_front")))
    roles = roles_in(data)
    base = alt.Chart(inline(data))
    x = number_axis("spelling", "gain in spelling, points")
    y = number_axis("transfer", "mean gain in position and count, points", alt.Y)
    colour, shape = role_colour(roles), role_shape(roles)
    bar = base.transform_filter("isValid(datum.spelling_low)")
    vertical = bar.mark_rule(strokeOpacity=0.8).encode(
        x=x, y="transfer_low:Q", y2="transfer_high:Q", color=colour
    )
    horizontal = bar.mark_rule(strokeOpacity=0.8).encode(
        x="spelling_low:Q", x2="spelling_high:Q", y=y, color=colour
    )
    texts = [("place", "place"), ("configuration", "configuration"), ("seeds", "seeds")]
    point = base.mark_point(filled=True, size=75, opacity=1).encode(
        fillOpacity=fading(len(data)),
        x=x,
        y=y,
        color=colour,
        shape=shape,
        tooltip=tips(("spelling", "spelling"), ("transfer", "transfer"), texts=texts),
    )
    layers = [zero_rule(base, "x"), zero_rule(base, "y"), vertical, horizontal]
    members = base.transform_filter("datum.is_front")
    if _is_plain_front(analysis):
        step = members.mark_line(color=GREY, strokeWidth=1.5, interpolate="step-before")
        layers.append(step.encode(x=x, y=y))
    ring = members.mark_point(size=190, color=GREY, strokeWidth=1.5, opacity=1).encode(x=x, y=y)
    text = base.transform_filter("isValid(datum.label)").mark_text(
        align="left", dx=9, dy=-9, fontSize=11
    )
    layers += [ring, point, text.encode(x=x, y=y, text="label:N")]
    chart = alt.layer(*layers).properties(width=520, height=340)
    return titled(chart, FRONT.title, analysis, _front_says(analysis), 600)


MAX_INTERVALS = 12
"""Points that all have their intervals; more of them would hide each other."""


def thinned(data: pd.DataFrame, kept: str) -> pd.DataFrame:
    """Return what a scatter of configurations can hold.

    Beyond 1,500 configurations only some, evenly over the ranking, are drawn; beyond 12 only those
    that matter keep their intervals.

    Args:
        data: In the order of the ranking.
        kept: Column that is true for configurations that matter beside default and best.
    """
    matters = data[kept] | data["role"].isin(["best", "default"])
    if len(data) > MAX_POINTS:
        places = evenly(len(data), MAX_POINTS)
        data = data[matters | data.index.isin(data.index[places])]
        matters = matters[data.index]
    if len(data) <= MAX_INTERVALS:
        return data
    ends = [name for name in data.columns if name.endswith(("_low", "_high"))]
    return data.assign(**{name: data[name].where(matters) for name in ends})


def _with_labels(data: pd.DataFrame) -> pd.DataFrame:
    """Return places in the ranking as labels: of the front, best first, where there is room."""
    scaled = [data[name] / (np.ptp(data[name]) or 1.0) for name in ("spelling", "transfer")]
    kept: list[int] = []
    for place in data.index[data["is_front"]]:
        near = (
            abs(x[place] - x[kept]).to_numpy() < room
            for x, room in zip(scaled, (0.07, 0.05), strict=True)
        )
        if not np.logical_and(*near).any():
            kept.append(place)
    return data.assign(label=data["place"].astype(str).where(data.index.isin(kept)))


def _is_plain_front(analysis: StudyAnalysis) -> bool:
    """Whether the front is that of the two axes, so that a line along it means something."""
    data = front_data(analysis)
    gains = set(zip(data["spelling"], data["transfer"], strict=True))
    front = data[data["is_front"]]
    return not any(
        dominates(other, one)
        for one in zip(front["spelling"], front["transfer"], strict=True)
        for other in gains
    )


def _front_says(analysis: StudyAnalysis) -> list[str]:
    data = front_data(analysis)
    of = "the study's objectives" if analysis.front else "both gains"
    return [
        f"One mark a configuration, {len(data):,} of them. Ringed: the front, "
        f"{int(data['is_front'].sum())} that no other beats in {of}, by their means.",
        "Numbers: places in the ranking.",
        "Bars: 95 % intervals"
        + (", of the front, the best and the default." if len(data) > MAX_INTERVALS else "."),
        f"{MAX_POINTS:,} are drawn." if len(data) > MAX_POINTS else "",
        sizes(analysis),
    ]


def _front_caption(analysis: StudyAnalysis) -> str:
    return (
        "Gain in spelling against the mean of the gains in position and count, strict answers, in "
        "points, with 95 % intervals (of the mean: at least 95 %). Ringed: configurations that no "
        "other beats in both; neighbours whose intervals overlap may owe their place to chance."
    )


FRONT = Figure("front", "Spelling and transfer together", _front_caption, front_data, draw_front)

# --- what a gain costs --------------------------------------------------------------------------

COST_COLUMNS = (
    "place",
    "configuration",
    "role",
    "examples",
    "minutes",
    "spelling",
    "spelling_low",
    "spelling_high",
    "transfer",
    "transfer_low",
    "transfer_high",
    "per_1000",
    "is_cheap",
)


def cost_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration: examples seen, and gains in points.

    Empty where all configurations cost the same: then there is nothing to weigh.
    """
    costs = {cost.label: cost for cost in analysis.costs}
    front = front_data(analysis)
    if front.empty or len({row.num_examples for row in analysis.configurations}) < 2:
        return table([], COST_COLUMNS)
    found = [costs.get(row.label) for row in analysis.configurations]
    data = front.assign(
        examples=[row.num_examples for row in analysis.configurations],
        minutes=pd.Series([cost.train_minutes if cost else None for cost in found], dtype=float),
        per_1000=pd.Series(
            [cost.points_per_1000_examples if cost else None for cost in found], dtype=float
        ),
    )
    pairs = list(zip(-data["examples"], data["transfer"], strict=True))
    distinct = set(pairs)
    beaten = {one for one in distinct if any(dominates(other, one) for other in distinct)}
    data["is_cheap"] = [one not in beaten for one in pairs]
    return data[list(COST_COLUMNS)]


def draw_cost(analysis: StudyAnalysis) -> Any:
    """Draw examples seen against the gains they bring."""
    data = last_on_top(beside(thinned(cost_data(analysis), "is_cheap")))
    panels = [
        _cost_panel(data, "spelling", "gain in spelling, points"),
        _cost_panel(data, "transfer", "mean gain in position and count, points"),
    ]
    chart = alt.hconcat(*panels, spacing=28).resolve_scale(x="shared")
    return titled(chart, COST.title, analysis, _cost_says(analysis, data), 720)


def beside(data: pd.DataFrame) -> pd.DataFrame:
    """Return where marks of equal cost stand side by side: a column `where` beside `examples`.

    They keep within 5 % of the axis of their cost, in an order that has no meaning.
    """
    logs = np.log(data["examples"].astype(float))
    same = data.groupby("examples")["examples"]
    place, number = same.cumcount(), same.transform("size")
    # Multiples of the golden ratio fill a span evenly, however many there are.
    share = ((place + 1) * 0.618034) % 1 - 0.5
    spread = 0.1 * float(np.ptp(logs)) * (number / 12).clip(upper=1)
    return data.assign(where=np.exp(logs + (share * spread).where(number > 1, 0.0)))


def _cost_panel(data: pd.DataFrame, field: str, title: str) -> Any:
    roles = roles_in(data)
    base = alt.Chart(inline(data))
    x = alt.X(
        "where:Q",
        title="training examples seen, log scale",
        scale=alt.Scale(type="log", nice=False, padding=12),
        axis=alt.Axis(format="~s", labelOverlap=True),
    )
    y = number_axis(field, title, alt.Y)
    colour = role_colour(roles)
    interval = base.transform_filter(f"isValid(datum.{field}_low)").mark_rule(strokeOpacity=0.8)
    texts = [
        ("place", "place"),
        ("configuration", "configuration"),
        ("examples", "examples"),
        ("minutes", "minutes"),
    ]
    numbers = tips((field, "gain"), ("per_1000", "transfer per 1,000 examples"), texts=texts)
    point = base.mark_point(filled=True, size=70, opacity=1).encode(
        fillOpacity=fading(len(data)),
        x=x,
        y=y,
        color=colour,
        shape=role_shape(roles),
        tooltip=numbers,
    )
    bars = interval.encode(x=x, y=f"{field}_low:Q", y2=f"{field}_high:Q", color=colour)
    return alt.layer(zero_rule(base, "y"), bars, point).properties(width=310, height=270)


def _cost_says(analysis: StudyAnalysis, data: pd.DataFrame) -> list[str]:
    has_all = data["spelling_low"].notna().all()
    which = "." if has_all else ", of the best, the default, and those not beaten at their cost."
    return [
        f"One mark a configuration, {len(analysis.configurations):,} of them; examples of one run, "
        "replay included; side by side where they are equal.",
        f"Bars: 95 % intervals{which}",
        sizes(analysis),
    ]


def _cost_caption(analysis: StudyAnalysis) -> str:
    best = analysis.costs[0] if analysis.costs else None
    most = (
        f" Most transfer for its examples, by the means: {best.label}, "
        f"{signed(best.points_per_1000_examples, 2)} points for 1,000 examples."
        if best and best.transfer_gain > 0
        else ""
    )
    return (
        "Training examples that one run of each configuration sees, on a logarithmic scale, "
        "against its gain in spelling and its mean gain in position and count, in points, with "
        f"95 % intervals.{most}"
    )


COST = Figure("cost", "What a gain costs", _cost_caption, cost_data, draw_cost)
