"""Figures of a vocabulary: what kinds of token it holds, how long they are, how words are cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from tuning.figures.figure import BLUE, INK, PALE, headed, inline
from tuning.tokens.categories import Category
from tuning.tokens.vocabulary import Vocabulary
from tuning.tokens.word_summaries import MAX_TOKENS, tokens_by_form_and_frequency
from tuning.tokens.words import Form

ALL, ENGLISH = "all tokens", "English part"
_COLOURS = alt.Scale(domain=[ALL, ENGLISH], range=["#B5B5B5", BLUE])


class Source(NamedTuple):
    """Whose vocabulary is drawn."""

    model: str
    rule: str
    """Of the English part."""
    words: str
    """Which list of words was cut."""


# --- all tokens and their English part ----------------------------------------------------------


def distribution_data(
    counts: Mapping[Category, int], english: Mapping[Category, int]
) -> pd.DataFrame:
    """Return a row for each category and each of both vocabularies.

    Columns: category, vocabulary, num_tokens, share. Shares are percent of the whole vocabulary,
    so those of the English part sum to its share of all tokens.

    Args:
        counts: Tokens of each category.
        english: Those of them that are kept.
    """
    size = sum(counts.values())
    rows = [
        (category.value, name, found[category], 100 * found[category] / size)
        for category in Category
        for name, found in ((ALL, counts), (ENGLISH, english))
        if counts[category]
    ]
    return pd.DataFrame(rows, columns=["category", "vocabulary", "num_tokens", "share"])


def draw_distribution(data: pd.DataFrame, source: Source) -> Any:
    """Draw how many tokens of each category there are, and how many the English part keeps."""
    by_category = data.pivot(index="category", columns="vocabulary", values="num_tokens")
    labels = by_category.apply(lambda row: _kept(row[ALL], row[ENGLISH]), axis=1)
    of_all = data["vocabulary"] == ALL
    drawn = data.assign(label=data["category"].map(labels).where(of_all))
    base = alt.Chart(inline(drawn))
    y = alt.Y(
        "category:N",
        scale=alt.Scale(domain=list(data["category"].unique())),
        title=None,
        axis=alt.Axis(labelLimit=0, ticks=False, domain=False),
    )
    largest = data["share"].max()
    x = alt.X(
        "share:Q",
        title="share of the vocabulary, %",
        # Room for the numbers beside the longest bar.
        scale=alt.Scale(domain=[0, 1.3 * largest], nice=False),
        axis=alt.Axis(values=list(range(0, int(largest) + 1, 5)), gridOpacity=0.5),
    )
    colour = _vocabulary_colour()
    tooltip = [
        alt.Tooltip("category:N"),
        alt.Tooltip("vocabulary:N"),
        alt.Tooltip("num_tokens:Q", title="tokens", format=","),
        alt.Tooltip("share:Q", title="share, %", format=".2f"),
    ]
    every = base.transform_filter(alt.datum.vocabulary == ALL)
    part = base.transform_filter(alt.datum.vocabulary == ENGLISH)
    layers = [
        every.mark_bar(height=17).encode(x=x, y=y, color=colour, tooltip=tooltip),
        part.mark_bar(height=9).encode(x=x, y=y, color=colour, tooltip=tooltip),
        every.mark_text(align="left", dx=5, fontSize=11).encode(x=x, y=y, text="label:N"),
    ]
    chart = alt.layer(*layers).properties(width=520, height=alt.Step(24))
    size, kept = (int(by_category[name].sum()) for name in (ALL, ENGLISH))
    sentences = [
        f"Of {size:,} tokens the rule {source.rule} keeps {kept:,}, {100 * kept / size:.2f} %, "
        "with those that prompts need and a few of padding.",
        "Beside each bar: tokens, and how many of them are kept.",
    ]
    return headed(
        chart, "All tokens and their English part, by what they hold", sentences, source.model, 700
    )


def _vocabulary_colour() -> alt.Color:
    legend = alt.Legend(title=None, orient="top", direction="horizontal", symbolType="square")
    return alt.Color("vocabulary:N", scale=_COLOURS, legend=legend)


def _kept(number: int, kept: int) -> str:
    if kept in (0, number):
        return f"{number:,}, {'all' if kept else 'none'} kept"
    return f"{number:,}, {kept:,} kept"


# --- how long tokens are ------------------------------------------------------------------------

MAX_LENGTH = 16
"""Longer tokens are one group."""
_UNITS = ("bytes", "characters")


def length_data(vocabulary: Vocabulary, english: Collection[int]) -> pd.DataFrame:
    """Return a row for each unit, vocabulary and length up to 16, which stands for 16 and more.

    Columns: unit, vocabulary, length, num_tokens, share (percent of that vocabulary). Characters
    are counted in tokens that are whole characters; added tokens count as their text.

    Args:
        vocabulary: All tokens.
        english: Ids of the English part.
    """
    added = {token.id: token.text.encode() for token in vocabulary.added}
    contents = {**vocabulary.base, **added}
    lengths: dict[str, dict[int, int]] = {unit: {} for unit in _UNITS}
    for token, content in contents.items():
        lengths["bytes"][token] = min(len(content), MAX_LENGTH)
        try:
            lengths["characters"][token] = min(len(content.decode()), MAX_LENGTH)
        except UnicodeDecodeError:
            continue
    rows = []
    for unit in _UNITS:
        for name, ids, size in (
            (ALL, contents, len(contents)),
            (ENGLISH, english, len(english)),
        ):
            found = Counter(lengths[unit][token] for token in ids if token in lengths[unit])
            rows += [
                (unit, name, length, found[length], 100 * found[length] / size)
                for length in range(1, MAX_LENGTH + 1)
            ]
    return pd.DataFrame(rows, columns=["unit", "vocabulary", "length", "num_tokens", "share"])


def draw_length(data: pd.DataFrame, source: Source) -> Any:
    """Draw which part of each vocabulary has which length, a panel for bytes and characters."""
    labels = {length: _or_more(length, MAX_LENGTH) for length in range(1, MAX_LENGTH + 1)}
    panel = "length in " + data["unit"]
    base = alt.Chart(inline(data.assign(label=data["length"].map(labels), panel=panel)))
    bars = base.mark_bar().encode(
        x=alt.X(
            "label:N",
            title=None,
            axis=alt.Axis(labelAngle=0, ticks=False),
            scale=alt.Scale(domain=list(labels.values()), paddingInner=0.25),
        ),
        xOffset=alt.XOffset("vocabulary:N", scale=alt.Scale(domain=[ALL, ENGLISH])),
        y=alt.Y("share:Q", title="share of all, or of the English part, %"),
        color=_vocabulary_colour(),
        tooltip=[
            alt.Tooltip("vocabulary:N"),
            alt.Tooltip("label:N", title="length"),
            alt.Tooltip("num_tokens:Q", title="tokens", format=","),
            alt.Tooltip("share:Q", title="share, %", format=".2f"),
        ],
    )
    panels = bars.properties(width=380, height=220).facet(
        column=alt.Column(
            "panel:N",
            sort=list(panel.unique()),
            title=None,
            header=alt.Header(
                labelFontSize=13,
                labelFontWeight="bold",
            ),
        ),
        spacing=24,
    )
    sizes = data[data["unit"] == "bytes"].groupby("vocabulary")["num_tokens"].sum()
    whole = data[data["unit"] == "characters"].groupby("vocabulary")["num_tokens"].sum()
    sentences = [
        f"Shares of {sizes[ALL]:,} tokens, and of the {sizes[ENGLISH]:,} that the rule "
        f"{source.rule} keeps. {MAX_LENGTH}+ is {MAX_LENGTH} and more. {sizes[ALL] - whole[ALL]:,} "
        "tokens are no whole characters and stand on the left alone.",
    ]
    return headed(panels, "How long tokens are", sentences, source.model, 800)


# --- tokens per word ----------------------------------------------------------------------------

_FORM_NAMES = {
    Form.SPACED: 'after a space: " word"',
    Form.BARE: 'bare: "word"',
    Form.CAPITALISED: 'capitalised: " Word"',
}
_BLUES = ("#C6DBEF", "#9ECAE1", "#6BAED6", "#2B7BBA", "#08519C")
_SMALLEST_LABEL = 10
"""Percent; a smaller part has no room for its number."""


def tokens_per_word_data(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each form, frequency band and number of tokens up to 5, 5 and more.

    Columns: form, frequency, num_tokens, num_words, band_words, share (percent of the words of the
    band), mean_tokens (of the band).

    Args:
        table: From `word_table`.
    """
    bands = tokens_by_form_and_frequency(table)
    rows = [
        {
            "form": band["form"],
            "frequency": band["frequency"],
            "num_tokens": number,
            "num_words": band[f"num_words_of_{number}_tokens"],
            "band_words": band["num_words"],
            "share": 100 * band[f"num_words_of_{number}_tokens"] / band["num_words"],
            "mean_tokens": band["mean_tokens"],
        }
        for band in bands.to_dict("records")
        for number in range(1, MAX_TOKENS + 1)
    ]
    return pd.DataFrame(rows)


def draw_tokens_per_word(data: pd.DataFrame, source: Source) -> Any:
    """Draw how many tokens words have by how frequent they are, a panel for each form."""
    numbers = {number: _or_more(number, MAX_TOKENS) for number in range(1, MAX_TOKENS + 1)}
    sizes = data["band_words"].map("{:,}".format)
    before = data.groupby(["form", "frequency"])["share"].cumsum() - data["share"]
    drawn = data.assign(
        band=data["frequency"] + " (n = " + sizes + ")",
        tokens=data["num_tokens"].map(numbers),
        middle=before + data["share"] / 2,
        label=data["share"].map("{:.0f} %".format).where(data["share"] >= _SMALLEST_LABEL),
        panel=data["form"].map({form.value: name for form, name in _FORM_NAMES.items()}),
    )
    base = alt.Chart(inline(drawn))
    y = alt.Y(
        "band:N",
        scale=alt.Scale(domain=list(drawn["band"].unique())),
        title="Zipf frequency of the word",
        axis=alt.Axis(labelLimit=0, ticks=False, domain=False),
    )
    bars = base.mark_bar(height=20).encode(
        x=alt.X("share:Q", stack=True, title="words, %", scale=alt.Scale(domain=[0, 100])),
        y=y,
        order=alt.Order("num_tokens:Q"),
        color=alt.Color(
            "tokens:N",
            scale=alt.Scale(domain=list(numbers.values()), range=list(_BLUES)),
            legend=alt.Legend(
                title="tokens of a word", orient="top", titleOrient="left", symbolType="square"
            ),
        ),
        tooltip=[
            alt.Tooltip("panel:N", title="form"),
            alt.Tooltip("frequency:N", title="Zipf frequency"),
            alt.Tooltip("tokens:N"),
            alt.Tooltip("num_words:Q", title="words", format=","),
            alt.Tooltip("share:Q", title="share, %", format=".2f"),
            alt.Tooltip("mean_tokens:Q", title="tokens a word", format=".2f"),
        ],
    )
    is_dark = alt.datum.num_tokens >= MAX_TOKENS - 1
    ink = alt.condition(is_dark, alt.value(PALE), alt.value(INK))
    text = base.mark_text(fontSize=11).encode(x="middle:Q", y=y, text="label:N", color=ink)
    chart = alt.layer(bars, text.transform_filter("isValid(datum.label)"))
    panels = chart.properties(width=230, height=alt.Step(26)).facet(
        column=alt.Column(
            "panel:N",
            sort=list(_FORM_NAMES.values()),
            title=None,
            header=alt.Header(labelFontSize=12.5, labelFontWeight="bold"),
        ),
        spacing=18,
    )
    of_one = data[(data["num_tokens"] == 1) & (data["form"] == Form.SPACED.value)]
    sentences = [
        f"{of_one['band_words'].sum():,} words of {source.words}.",
        "Zipf frequency: the base-10 logarithm of occurrences in a billion words.",
    ]
    return headed(panels, "Tokens of a word, by how frequent it is", sentences, source.model, 860)


def _or_more(number: int, last: int) -> str:
    return f"{number}+" if number == last else str(number)
