"""Spelling against transfer, run by run; the front of the two; and what a gain costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from scipy import special

from tuning.analysis.relations import MIN_RUNS, RunCorrelation
from tuning.figures.figure import (
    GREY,
    MAX_POINTS,
    TASK_COLOURS,
    TASK_SHAPES,
    Figure,
    elided,
    evenly,
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
        filled=True, size=65, opacity=1, fillOpacity=_opacity(len(runs)), color=colour
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


def _opacity(number: int) -> float:
    """Return an opacity at which a crowd of points still shows where it is dense."""
    return 0.9 if number <= 50 else 0.6 if number <= 200 else 0.35


def _fading(number: int) -> Any:
    """Return that opacity for the many, and full colour for best and default."""
    return alt.condition(alt.datum.role == "other", alt.value(_opacity(number)), alt.value(1))


def _transfer_says(analysis: StudyAnalysis) -> list[str]:
    num = len(analysis.runs)
    dots = f"One mark a run, {num:,} runs; diamonds: the default."
    thinned = f"{MAX_POINTS:,} of them are drawn." if num > MAX_POINTS else ""
    lines = (
        f"Lines: least squares over all {num:,} runs, with a 95 % confidence band for the mean; "
        "one run far out can make a line."
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
    symbol = {"pearson": "r", "spearman": "rank correlation"}.get(found.method, found.method)
    text = f"{symbol} {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    return text.replace("-", "\N{MINUS SIGN}")


def _transfer_caption(analysis: StudyAnalysis) -> str:
    return (
        "Does a larger gain in spelling come with a larger gain elsewhere? Each run is a mark: its "
        "gain in spelling against that in position and in count, strict answers, in points. "
        + " ".join(_correlations(analysis))
    ).strip()


RUNS = Figure(
    "transfer", "Spelling against transfer", _transfer_caption, transfer_data, draw_transfer
)

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
        fillOpacity=_fading(len(data)),
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
        fillOpacity=_fading(len(data)),
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
        f"{best.points_per_1000_examples:+.2f} points for 1,000 examples."
        if best and best.transfer_gain > 0
        else ""
    )
    return (
        "Training examples that one run of each configuration sees, on a logarithmic scale, "
        "against its gain in spelling and its mean gain in position and count, in points, with "
        f"95 % intervals.{most}"
    )


COST = Figure("cost", "What a gain costs", _cost_caption, cost_data, draw_cost)
