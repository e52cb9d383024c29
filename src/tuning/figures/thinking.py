"""Thinking and non-thinking at a glance: how long the texts are, and which tokens they use."""

from __future__ import annotations

from collections import Counter
from typing import Any

import altair as alt
import pandas as pd

from tuning.figures.figure import (
    BLUE,
    INK,
    ORANGE,
    elided,
    headed,
    inline,
    number_axis,
    panel_title,
    rows_axis,
    table,
)
from tuning.tokens.texts import Mode
from tuning.tokens.thinking import ThinkingAnalysis
from tuning.tokens.vocabulary import visible_text

TITLE = "Thinking and non-thinking: how many tokens, and which"
NUM_TOKENS = 20
"""Tokens drawn, the most frequent of both sets."""
WIDTH = 520
"""Pixels of a panel."""
MAX_TOKEN = 20
"""Characters of a token's label."""

MAX_SOURCE = 100
"""Characters of where the texts are from."""

TOKEN_COLUMNS = ("name", "id", "mode", "count", "share")
LENGTH_COLUMNS = ("name", "tokens", "texts")
_FONT = "DejaVu Sans Mono, monospace"
"""Has the symbols for spaces and line breaks; without it each label would change its font."""
_COLOURS = {Mode.THINKING.says: BLUE, Mode.NON_THINKING.says: ORANGE}


def thinking_data(analysis: ThinkingAnalysis) -> pd.DataFrame:
    """Return a row for each frequent token and mode: its count, and its share in percent.

    The most frequent come first, by the mean of both shares.
    """
    found: dict[int, dict[Mode, tuple[int, float]]] = {}
    texts: dict[int, str] = {}
    for mode, use in analysis.uses.items():
        for token in use.tokens:
            found.setdefault(token.id, {})[mode] = (token.count, token.share)
            texts[token.id] = token.text
    shares = {token: sum(share for _, share in of.values()) for token, of in found.items()}
    frequent = sorted(found, key=lambda token: (-shares[token], token))[:NUM_TOKENS]
    rows = (
        {"name": name, "id": token, "mode": mode.says, "count": count, "share": 100 * share}
        for token, name in zip(frequent, _names(frequent, texts), strict=True)
        for mode in Mode
        for count, share in [found[token].get(mode, (0, 0.0))]
    )
    return table(rows, TOKEN_COLUMNS)


def _names(tokens: list[int], texts: dict[int, str]) -> list[str]:
    """Return what each token is called; with its id where several would be called the same."""
    names = [elided(visible_text(texts[token]), MAX_TOKEN) for token in tokens]
    return [
        f"{name} #{token}" if names.count(name) > 1 else name
        for token, name in zip(tokens, names, strict=True)
    ]


def lengths_data(analysis: ThinkingAnalysis) -> pd.DataFrame:
    """Return a row for each mode and length in tokens: how many texts have it."""
    rows = (
        {"name": mode.says, "tokens": length, "texts": number}
        for mode, use in analysis.uses.items()
        for length, number in sorted(Counter(use.lengths).items())
    )
    return table(rows, LENGTH_COLUMNS)


def means_data(analysis: ThinkingAnalysis) -> pd.DataFrame:
    """Return a row for each mode: mean tokens per text, and that in words."""
    rows = (
        {"name": mode.says, "mean": use.tokens_per_text, "says": f"mean {use.tokens_per_text:.1f}"}
        for mode, use in analysis.uses.items()
    )
    return table(rows, ("name", "mean", "says"))


def draw_thinking(analysis: ThinkingAnalysis) -> Any:
    """Draw tokens per text above the shares of the most frequent tokens."""
    chart = alt.vconcat(_lengths(analysis), _shares(analysis), spacing=26)
    source = f"Texts: {elided(analysis.source, MAX_SOURCE)}"
    return headed(chart, TITLE, _says(analysis), source, WIDTH + 90)


def _lengths(analysis: ThinkingAnalysis) -> Any:
    y = rows_axis(list(_COLOURS))
    texts = alt.Chart(inline(lengths_data(analysis)))
    means = alt.Chart(inline(means_data(analysis))).encode(x="mean:Q", y=y)
    circles = texts.mark_circle(opacity=0.55).encode(
        x=number_axis("tokens", "tokens", zero=True),
        y=y,
        size=alt.Size("texts:Q", scale=alt.Scale(range=[30, 260], zero=True), legend=None),
        color=_colour("name"),
        tooltip=[alt.Tooltip("name:N", title="mode"), "tokens:Q", "texts:Q"],
    )
    layers = [
        circles,
        means.mark_point(shape="diamond", size=70, filled=True, opacity=1, color=INK),
        means.mark_text(dy=-17, fontSize=10.5).encode(text="says:N"),
    ]
    return alt.layer(*layers).properties(
        width=WIDTH, height=alt.Step(48), title=panel_title("tokens per text")
    )


def _shares(analysis: ThinkingAnalysis) -> Any:
    data = thinking_data(analysis)
    offset = alt.YOffset("mode:N", scale=alt.Scale(domain=list(_COLOURS), paddingInner=0))
    bars = (
        alt.Chart(inline(data))
        .mark_bar()
        .encode(
            x=number_axis("share", "share of the set's tokens, percent"),
            y=_token_axis(list(dict.fromkeys(data["name"]))),
            yOffset=offset,
            color=_colour("mode"),
            tooltip=[
                alt.Tooltip("name:N", title="token"),
                alt.Tooltip("id:Q"),
                alt.Tooltip("mode:N"),
                alt.Tooltip("count:Q", format=","),
                alt.Tooltip("share:Q", title="percent", format=".1f"),
            ],
        )
    )
    return bars.properties(
        width=WIDTH,
        height=alt.Step(22, **{"for": "position"}),
        title=_tokens_title(),
    )


def _token_axis(names: list[str]) -> alt.Y:
    axis = alt.Axis(labelLimit=0, labelFont=_FONT, ticks=False, domain=False, grid=True)
    return alt.Y("name:N", scale=alt.Scale(domain=names), title=None, axis=axis)


def _tokens_title() -> alt.TitleParams:
    title = panel_title("most frequent tokens")
    title.subtitle = [f"{visible_text(' ')} a space, {visible_text(chr(10))} a line break"]
    title.subtitleFont, title.subtitleFontSize = _FONT, 10
    return title


def _colour(field: str) -> alt.Color:
    scale = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    legend = alt.Legend(title=None, orient="top", direction="horizontal", symbolType="square")
    return alt.Color(f"{field}:N", scale=scale, legend=legend)


def _says(analysis: ThinkingAnalysis) -> list[str]:
    sizes = (
        f"{mode.says} {use.num_texts:,} texts, {use.num_tokens:,} tokens"
        for mode, use in analysis.uses.items()
    )
    warning = analysis.warning
    return [
        f"{warning[0].upper()}{warning[1:]}." if warning else "",
        *analysis.sentences,
        f"n: {'; '.join(sizes)}.",
        "Circles: texts of so many tokens, larger for more of them; diamonds: means.",
    ]
