"""The default and the best looked at closely: strata, positions, and answers to counts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from tuning.analysis.formats import signed_points
from tuning.analysis.strata import Stratum
from tuning.figures.figure import (
    ALL_TASKS,
    BLUE,
    GREY,
    INK,
    ORANGE,
    PALE,
    SKY,
    VERMILLION,
    Figure,
    elided,
    inline,
    natural,
    panel_title,
    span,
    table,
    tips,
    titled,
)
from tuning.transfer_analysis import StudyAnalysis

# --- strata ---------------------------------------------------------------------------------------

HEADINGS: Mapping[str, str] = {
    "band": "difficulty",
    "num_tokens": "tokens of the word",
    "seen_tokens": "its tokens seen in training",
    "is_pseudo_word": "made-up word",
    "stratum": "place, or length",
    "letter_token_length": "letters of the asked token",
    "template": "template",
}
"""Columns of the heat map from top to bottom. Positions have a figure of their own; letters, about
20 of one task, are in the table of strata alone."""

MAX_STRATA = 36

STRATA_COLUMNS = (
    "configuration",
    "task",
    "column",
    "value",
    "name",
    "gain",
    "low",
    "high",
    "choice",
    "items",
    "words",
    "has_zero",
    "label",
)

UNCLEAR = "\N{WHITE CIRCLE}"
"""Beside a gain whose interval includes 0."""


def strata_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return a row for each stratum of the default and the best: gain and interval, in points."""
    rows = [
        _stratum_row(stratum, column)
        for column in HEADINGS
        for stratum in sorted(
            analysis.strata, key=lambda s: (ALL_TASKS.index(s.task), natural(s.value))
        )
        if stratum.column == column
    ]
    kept = list(dict.fromkeys(row["name"] for row in rows))[:MAX_STRATA]
    return table((row for row in rows if row["name"] in kept), STRATA_COLUMNS)


def _stratum_row(stratum: Stratum, column: str) -> dict[str, Any]:
    has_zero = stratum.low <= 0 <= stratum.high
    gain = signed_points(stratum.gain)
    return {
        "configuration": stratum.label,
        "task": stratum.task,
        "column": column,
        "value": stratum.value,
        "name": f"{HEADINGS[column]}: {elided(_said(stratum.value), 30)}",
        "gain": 100 * stratum.gain,
        "low": 100 * stratum.low,
        "high": 100 * stratum.high,
        "choice": None if stratum.choice_gain is None else 100 * stratum.choice_gain,
        "items": stratum.num_items,
        "words": stratum.num_words,
        "has_zero": has_zero,
        "label": f"{gain} {UNCLEAR}" if has_zero else gain,
    }


def _said(value: str) -> str:
    return {"True": "yes", "False": "no"}.get(value, value)


def draw_strata(analysis: StudyAnalysis) -> Any:
    """Draw gains by stratum as a heat map, a panel for each configuration."""
    data = strata_data(analysis)
    panels = [_strata_panel(data, label, i == 0) for i, label in enumerate(_labels(data))]
    chart = alt.hconcat(*panels, spacing=18)
    return titled(chart, STRATA_FIGURE.title, analysis, _strata_says(data), 300 + 210 * len(panels))


def _labels(data: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(data["configuration"]))


def _strata_panel(data: pd.DataFrame, label: str, is_first: bool) -> Any:
    end = max(1, math.ceil(data["gain"].abs().max()))
    own = data[data["configuration"] == label]
    base = alt.Chart(inline(own.drop(columns=["configuration", "column", "value"])))
    x = alt.X(
        "task:N",
        scale=alt.Scale(domain=[task for task in ALL_TASKS if task in set(data["task"])]),
        title=None,
        axis=alt.Axis(orient="top", labelAngle=0, ticks=False, domain=False),
    )
    y = alt.Y(
        "name:N",
        scale=alt.Scale(domain=_with_gaps(data)),
        title=None,
        axis=alt.Axis(labelLimit=0, labels=is_first, ticks=False, domain=False),
    )
    colour = alt.Color(
        "gain:Q",
        scale=alt.Scale(domain=[-end, 0, end], range=[ORANGE, PALE, SKY], type="linear"),
        legend=alt.Legend(title="gain, points", gradientLength=140, values=[-end, 0, end]),
    )
    numbers = tips(
        ("gain", "gain"),
        ("low", "low"),
        ("high", "high"),
        ("choice", "choice"),
        texts=[(name, name) for name in ("task", "items", "words")],
    )
    text = {"x": x, "y": y, "text": "label:N"}
    layers = [
        base.mark_rect().encode(x=x, y=y, color=colour, tooltip=numbers),
        base.mark_text(color=INK, fontSize=11).encode(**text).transform_filter(alt.datum.has_zero),
        base.mark_text(color=INK, fontSize=11, fontWeight="bold")
        .encode(**text)
        .transform_filter("!datum.has_zero"),
    ]
    chart = alt.layer(*layers).properties(width=210, height=alt.Step(19))
    return chart.properties(title=panel_title(label))


def _with_gaps(data: pd.DataFrame) -> list[str]:
    """Return the rows from top to bottom, with an empty one between two columns."""
    names = data.drop_duplicates("name")
    found: list[str] = []
    for place, (_, rows) in enumerate(names.groupby("column", sort=False)):
        found += [*([" " * place] if place else []), *rows["name"]]
    return found


def _strata_says(data: pd.DataFrame) -> list[str]:
    return [
        "Gain in strict answers, in points: default, and best where it is another.",
        f"{UNCLEAR}: the 95 % interval includes 0; bold: it does not.",
        f"{span(data['items'], 'items')} of {span(data['words'], 'words')} a cell.",
        f"Of {len(data)} cells about one in 20 is bold by chance alone.",
    ]


def _strata_caption(analysis: StudyAnalysis) -> str:
    return (
        "Gain of the default and of the best configuration, in points, on items set apart by "
        "difficulty, tokens, place and template. A circle: the 95 % interval includes 0. Colours "
        "go from orange (worse) over pale (no change) to blue (better); the number says the same. "
        "Strata of fewer than 10 words are left out; letters are in the table."
    )


STRATA_FIGURE = Figure("strata", "Where the gains are", _strata_caption, strata_data, draw_strata)

# --- answers to counts ----------------------------------------------------------------------------

CONFUSION_COLUMNS = ("configuration", "true", "answer", "share", "items", "is_right", "label")


def confusion_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return how often each true count got each answer, in percent of the items with that count."""
    answers = sorted({found.answer for found in analysis.confusion})
    shares = {(f.label, f.true, f.answer): f.share for f in analysis.confusion}
    items = {(f.label, f.true): f.num_items for f in analysis.confusion}
    rows = []
    for (label, true), number in items.items():
        for answer in answers:
            # An answer that one model never gives is missing from its table: its share is 0.
            share = 100 * shares.get((label, true, answer), 0.0)
            rows.append(
                {
                    "configuration": label,
                    "true": true,
                    "answer": answer,
                    "share": share,
                    "items": number,
                    "is_right": answer == true or (true == "3+" and answer in ("3", "4+")),
                    "label": f"{share:.0f} %",
                }
            )
    return table(rows, CONFUSION_COLUMNS)


def draw_confusion(analysis: StudyAnalysis) -> Any:
    """Draw true counts against answers, the untouched model beside the tuned ones."""
    data = confusion_data(analysis)
    panels = [_confusion_panel(data, label, i == 0) for i, label in enumerate(_labels(data))]
    chart = alt.hconcat(*panels, spacing=18)
    return titled(chart, CONFUSION.title, analysis, _confusion_says(data), 130 + 235 * len(panels))


def _confusion_panel(data: pd.DataFrame, label: str, is_first: bool) -> Any:
    own = data[data["configuration"] == label]
    base = alt.Chart(inline(own.drop(columns="configuration")))
    x = alt.X(
        "answer:N",
        scale=alt.Scale(domain=sorted(set(data["answer"]))),
        title="likeliest answer",
        axis=alt.Axis(labelAngle=0, ticks=False, domain=False),
    )
    y = alt.Y(
        "true:N",
        scale=alt.Scale(domain=sorted(set(data["true"]))),
        title="true count" if is_first else None,
        axis=alt.Axis(labels=is_first, labelPadding=6, ticks=False, domain=False),
    )
    colour = alt.Color(
        "share:Q",
        scale=alt.Scale(domain=[0, 100], range=[PALE, SKY]),
        legend=alt.Legend(title="share, %", gradientLength=110),
    )
    numbers = [
        alt.Tooltip("true:N", title="true count"),
        alt.Tooltip("answer:N"),
        alt.Tooltip("share:Q", title="share, %", format=".1f"),
        alt.Tooltip("items:Q"),
    ]
    cells = base.mark_rect().encode(x=x, y=y, color=colour, tooltip=numbers)
    right = (
        base.mark_rect(filled=False, stroke=VERMILLION, strokeWidth=2)
        .encode(x=x, y=y)
        .transform_filter("datum.is_right")
    )
    text = base.mark_text(color=INK, fontSize=11).encode(x=x, y=y, text="label:N")
    chart = alt.layer(cells, right, text).properties(width=215, height=alt.Step(38))
    return chart.properties(title=panel_title(label))


def _confusion_says(data: pd.DataFrame) -> list[str]:
    items = data.drop_duplicates("true").sort_values("true")
    counts = ", ".join(
        f"{n:,} of {true}" for true, n in zip(items["true"], items["items"], strict=True)
    )
    return [
        "Share of the items with each true count that got each answer, by the likeliest digit, "
        "mean over seeds; rows add up to 100 %. Framed: right.",
        f"Items: {counts}. No intervals.",
    ]


def _confusion_caption(analysis: StudyAnalysis) -> str:
    return (
        "How often each digit is the likeliest answer to a question for a count, by the true "
        "count: the untouched model beside the default and the best. A column that is dark from "
        "top to bottom is an answer given whatever is asked. Framed cells are right."
    )


CONFUSION = Figure(
    "confusion", "Answers to counts", _confusion_caption, confusion_data, draw_confusion
)

# --- positions ------------------------------------------------------------------------------------

POSITION_COLUMNS = ("configuration", "n", "kind", "accuracy", "low", "high", "items", "words")
UNTOUCHED, TUNED, BLIND = "untouched", "tuned", "word-blind guess"
_KIND_COLOURS = {UNTOUCHED: GREY, TUNED: BLUE, BLIND: VERMILLION}
_KIND_DASHES: Mapping[str, list[float]] = {UNTOUCHED: [5, 3], TUNED: [1, 0], BLIND: [1.5, 2.5]}
_KIND_SHAPES = {UNTOUCHED: "square", TUNED: "circle", BLIND: "cross"}


def positions_data(analysis: StudyAnalysis) -> pd.DataFrame:
    """Return accuracy by position asked for: before, after, and of a guess, in percent.

    The interval is that of the gain, set around the accuracy after.
    """
    rows: list[dict[str, Any]] = []
    for found in analysis.strata:
        if found.column != "n" or found.task != "position":
            continue
        known = {
            "configuration": found.label,
            "n": int(float(found.value)),
            "items": found.num_items,
            "words": found.num_words,
        }
        ends = {
            "low": max(0.0, 100 * (found.before + found.low)),
            "high": min(100.0, 100 * (found.before + found.high)),
        }
        rows.append({**known, "kind": UNTOUCHED, "accuracy": 100 * found.before})
        rows.append({**known, "kind": TUNED, "accuracy": 100 * found.after, **ends})
        if found.baseline is not None:
            rows.append({**known, "kind": BLIND, "accuracy": 100 * found.baseline})
    return table(rows, POSITION_COLUMNS)


def draw_positions(analysis: StudyAnalysis) -> Any:
    """Draw accuracy by position, before and after, a panel for each configuration."""
    data = positions_data(analysis)
    panels = [_position_panel(data, label) for label in _labels(data)]
    chart = alt.hconcat(*panels, spacing=24).resolve_scale(y="shared")
    return titled(chart, POSITIONS.title, analysis, _positions_says(data), 110 + 300 * len(panels))


def _position_panel(data: pd.DataFrame, label: str) -> Any:
    own = data[data["configuration"] == label]
    kinds = [kind for kind in _KIND_COLOURS if kind in set(data["kind"])]
    base = alt.Chart(inline(own.drop(columns="configuration")))
    x = alt.X("n:O", title="position asked for", axis=alt.Axis(labelAngle=0))
    y = alt.Y("accuracy:Q", title="accuracy, %", scale=alt.Scale(zero=True, nice=True))
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1)
    colour, shape = (
        channel(
            "kind:N",
            scale=alt.Scale(domain=kinds, range=[values[kind] for kind in kinds]),
            legend=legend,
        )
        for channel, values in ((alt.Color, _KIND_COLOURS), (alt.Shape, _KIND_SHAPES))
    )
    texts = [(name, name) for name in ("kind", "n", "items", "words")]
    numbers = [*tips(texts=texts), alt.Tooltip("accuracy:Q", title="accuracy, %", format=".1f")]
    interval = base.transform_filter("isValid(datum.low)").mark_rule(
        strokeWidth=2, strokeOpacity=0.75
    )
    layers = [
        interval.encode(x=x, y="low:Q", y2="high:Q", color=colour),
        # A dash of its own for each layer: encoded, it would cut the outlines of the legend.
        *(
            base.transform_filter(alt.datum.kind == kind)
            .mark_line(strokeWidth=1.8, strokeDash=_KIND_DASHES[kind])
            .encode(x=x, y=y, color=colour)
            for kind in kinds
        ),
        base.mark_point(filled=True, size=50, opacity=1).encode(
            x=x, y=y, color=colour, shape=shape, tooltip=numbers
        ),
    ]
    chart = alt.layer(*layers).properties(width=280, height=230)
    return chart.properties(title=panel_title(label))


def _positions_says(data: pd.DataFrame) -> list[str]:
    first = data.drop_duplicates(["n"]).sort_values("n")
    counts = ", ".join(f"{w} at {n}" for n, w in zip(first["n"], first["words"], strict=True))
    return [
        "Strict answers by the position asked for. Bars: 95 % intervals of the change from the "
        "untouched model on the same items.",
        f"Words: {counts}.",
        "Word-blind guess: the best that never looks at the word."
        if BLIND in set(data["kind"])
        else "",
    ]


def _positions_caption(analysis: StudyAnalysis) -> str:
    return (
        "Accuracy in strict answers by the position asked for, first letter at the left: the "
        "untouched model, the tuned ones with 95 % intervals of the change, and the best guess "
        "that never looks at the word. First letters are often known and say little. Positions "
        "of fewer than 10 words are left out."
    )


POSITIONS = Figure(
    "positions", "Accuracy by position", _positions_caption, positions_data, draw_positions
)
