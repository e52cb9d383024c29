"""Gains over the untouched model, configuration by configuration, and seed by seed."""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from tuning.figures.figure import (
    GREY,
    Figure,
    inline,
    names_of,
    role_of,
    rows_axis,
    shown,
    sizes,
    table,
    task_colour,
    task_columns,
    task_shape,
    tips,
    titled,
    width_of,
    zero_rule,
)
from tuning.mixed_effects import Basis, Estimate
from tuning.transfer_analysis import StudyAnalysis

PANEL = 190
"""Pixels of one task's panel."""
PANELS = 3 * PANEL + 2 * 18

GAIN_COLUMNS = (
    "name",
    "configuration",
    "rank",
    "role",
    "task",
    "reading",
    "gain",
    "low",
    "high",
    "before",
    "seeds",
    "items",
    "words",
    "basis",
)


def gains_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each configuration, task and reading: gain and interval, in points."""
    rows = [*shown(analysis.configurations).rows, *analysis.controls]
    found = []
    for name, row in zip(names_of(rows), rows, strict=True):
        for task, gain in row.gains.items():
            for reading, estimate in (("strict", gain.gain), ("choice", gain.choice)):
                if estimate is None:
                    continue
                before = gain.before if reading == "strict" else gain.choice_before
                found.append(
                    {
                        "name": _with_seeds(name, row.num_seeds),
                        "configuration": row.label,
                        "rank": row.rank,
                        "role": role_of(row),
                        "task": task,
                        "reading": reading,
                        **_points(estimate),
                        "before": None if before is None else 100 * before,
                        "seeds": row.num_seeds,
                        "items": gain.num_items,
                        "words": gain.num_words,
                        "basis": estimate.basis.value,
                    }
                )
    return table(found, GAIN_COLUMNS)


def _with_seeds(name: str, seeds: int) -> str:
    return f"{name} (n = {seeds})" if seeds > 1 else name


def _points(found: Estimate) -> dict[str, float]:
    return {"gain": 100 * found.value, "low": 100 * found.low, "high": 100 * found.high}


def draw_gains(analysis: StudyAnalysis) -> Any:
    """Draw the gains as a forest plot, a panel for each task, each with its own axis."""
    data = gains_data(analysis)
    names = list(dict.fromkeys(data["name"]))
    y = rows_axis(names)
    offset = alt.YOffset("reading:N", scale=alt.Scale(domain=["strict", "choice"]))
    base = alt.Chart(inline(data.drop(columns=["rank"])))
    band = base.mark_rect(fillOpacity=0.15, color=GREY).encode(y=y)
    low = alt.X("low:Q", title="gain, points", scale=alt.Scale(nice=True))
    interval = base.mark_rule(strokeWidth=1.8).encode(
        y=y, yOffset=offset, x=low, x2="high:Q", color=task_colour(), strokeDash=_basis_dash(data)
    )
    layers = [
        band.transform_filter(f"{alt.datum.role == 'default'} && {alt.datum.reading == 'strict'}"),
        zero_rule(base),
        interval,
        *(_marks(base, y, offset, reading) for reading in ("strict", "choice")),
    ]
    chart = alt.layer(*layers).properties(width=PANEL, height=alt.Step(24, **{"for": "position"}))
    faceted = chart.facet(column=task_columns(), spacing=18).resolve_scale(x="independent")
    return titled(faceted, GAINS.title, analysis, _gains_says(analysis), width_of(names, PANELS))


def _marks(base: Any, y: alt.Y, offset: alt.YOffset, reading: str) -> Any:
    """Return the points of one reading: strict filled, choice hollow."""
    texts = [
        ("configuration", "configuration"),
        ("task", "task"),
        ("reading", "reading"),
        ("seeds", "seeds"),
        ("words", "words"),
        ("basis", "interval over"),
    ]
    numbers = tips(("gain", "gain"), ("low", "low"), ("high", "high"), texts=texts)
    mark = base.mark_point(filled=reading == "strict", size=55, opacity=1, strokeWidth=1.6)
    return mark.encode(
        y=y,
        yOffset=offset,
        x="gain:Q",
        color=task_colour(),
        shape=task_shape(),
        tooltip=numbers,
    ).transform_filter(alt.datum.reading == reading)


def _basis_dash(data: pd.DataFrame) -> alt.StrokeDash:
    dashes: dict[Basis, list[float]] = {
        Basis.SEEDS: [1, 0],
        Basis.BORROWED: [5, 2],
        Basis.WORDS: [1.5, 2],
    }
    present = [basis.value for basis in dashes if basis.value in set(data["basis"])]
    legend = alt.Legend(
        title="95 % intervals over",
        orient="bottom",
        direction="vertical",
        labelLimit=0,
        titleLimit=0,
        symbolStrokeColor=GREY,
        symbolType="stroke",
    )
    scale = alt.Scale(domain=present, range=[dashes[Basis(name)] for name in present])
    return alt.StrokeDash("basis:N", scale=scale, legend=legend)


def _gains_says(analysis: StudyAnalysis) -> list[str]:
    return [
        "Filled: strict answers, one mark a configuration; hollow below it: likeliest choice.",
        "Bars: 95 % intervals. Each task has its own axis; shaded: the default.",
        "n: seeds, one where none is said.",
        "C: control arms, not ranked." if analysis.controls else "",
        sizes(analysis),
        shown(analysis.configurations).says,
    ]


def _gains_caption(analysis: StudyAnalysis) -> str:
    return (
        "Gain over the untouched model on the same items, in points, best configuration first, a "
        "panel for each task. Filled marks: strict answers. Hollow marks: the likeliest choice; a "
        "gain only in strict answers is a gain in format. Bars: 95 % intervals, over what the "
        "legend says. Numbers in front: places in the ranking. "
        f"{shown(analysis.configurations).says}"
    ).strip()


GAINS = Figure(
    "gains",
    "Gains over the untouched model",
    _gains_caption,
    gains_data,
    draw_gains,
)


# --- seeds --------------------------------------------------------------------------------------

SEED_COLUMNS = ("name", "configuration", "task", "kind", "seed", "gain", "low", "high", "seeds")


def seeds_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each seed's gain, and one for their mean, where there are several seeds."""
    trials = {trial.trial_id: trial for trial in analysis.trials}
    rows = [*_repeated(analysis).rows, *(row for row in analysis.controls if row.num_seeds > 1)]
    found = []
    for name, row in zip(names_of(rows), rows, strict=True):
        for task, gain in row.gains.items():
            known = {"name": name, "configuration": row.label, "task": task}
            found += [
                {**known, "kind": "seed", "seed": seed, "gain": 100 * trials[trial].gain[task]}
                for trial, seed in zip(row.trial_ids, row.seeds, strict=True)
                if trial in trials and task in trials[trial].gain
            ]
            mean = {**_points(gain.gain), "seeds": row.num_seeds}
            found.append({**known, "kind": "mean", **mean})
    return table(found, SEED_COLUMNS)


def _repeated(analysis: StudyAnalysis) -> Any:
    return shown([row for row in analysis.configurations if row.num_seeds > 1])


def draw_seeds(analysis: StudyAnalysis) -> Any:
    """Draw one dot a seed, and below it their mean with its interval."""
    data = seeds_data(analysis)
    names = list(dict.fromkeys(data["name"]))
    y = rows_axis(names)
    offset = alt.YOffset("kind:N", scale=alt.Scale(domain=["seed", "mean"]))
    base = alt.Chart(inline(data.drop(columns="configuration")))
    where = {"y": y, "yOffset": offset, "color": task_colour()}
    x = alt.X("gain:Q", title="gain, points", scale=alt.Scale(nice=True))
    seeds = base.mark_point(filled=False, size=50, opacity=1, strokeWidth=1.5).encode(
        x=x,
        shape=task_shape(),
        tooltip=tips(("gain", "gain"), texts=[("name", "configuration"), ("seed", "seed")]),
        **where,
    )
    interval = base.mark_rule(strokeWidth=2).encode(x="low:Q", x2="high:Q", **where)
    numbers = tips(
        ("gain", "mean"), ("low", "low"), ("high", "high"), texts=[("name", "configuration")]
    )
    mean = base.mark_point(filled=True, shape="diamond", size=70, opacity=1).encode(
        x=x, tooltip=numbers, **where
    )
    is_mean = alt.datum.kind == "mean"
    layers = [
        zero_rule(base),
        interval.transform_filter(is_mean),
        seeds.transform_filter(alt.datum.kind == "seed"),
        mean.transform_filter(is_mean),
    ]
    chart = alt.layer(*layers).properties(width=PANEL, height=alt.Step(30, **{"for": "position"}))
    faceted = chart.facet(column=task_columns(), spacing=18).resolve_scale(x="independent")
    return titled(faceted, SEEDS.title, analysis, _seeds_says(analysis), width_of(names, PANELS))


def _seeds_says(analysis: StudyAnalysis) -> list[str]:
    rows = _repeated(analysis)
    counts = sorted({row.num_seeds for row in rows.rows})
    numbers = " or ".join(map(str, counts))
    return [
        "Hollow: one mark a seed, strict answers. Diamond: their mean; bar: its 95 % interval over "
        "seeds and words.",
        f"{numbers} seeds a configuration." if counts else "",
        "Each task has its own axis.",
        sizes(analysis),
        rows.says,
    ]


def _seeds_caption(analysis: StudyAnalysis) -> str:
    return (
        "The same configuration trained again with other seeds: gain of each seed in strict "
        "answers, in points, and their mean with its 95 % interval over seeds and words. What "
        "seeds differ by is what a single run cannot tell from an effect. "
        f"{_repeated(analysis).says}"
    ).strip()


SEEDS = Figure("seeds", "What seeds alone change", _seeds_caption, seeds_data, draw_seeds)
