"""The figure of both modes: its numbers are those of the analysis, and every token has a name."""

from __future__ import annotations

import dataclasses

import pytest
import vl_convert

from tuning.figures.thinking import (
    NUM_TOKENS,
    draw_thinking,
    lengths_data,
    means_data,
    thinking_data,
)
from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.thinking import ThinkingAnalysis, ThinkingTexts, analyze_thinking

# Two tokens whose bytes are no whole character, and that look alike when shortened.
HOSTILE = "x=</script><script>alert(1)</script>\"'`\\ ${7*7} datum.share \x1b[31m 東\t\n\n \u202e"


@pytest.fixture(scope="module")
def analysis() -> ThinkingAnalysis:
    thinking = (
        "I think of b.\n\nThen of c, and of c again.",
        "First a,\nthen b.",
        "One, two, three; now d.",
    )
    return analyze_thinking(qwen3_tokenizer(), ThinkingTexts(thinking, ("It is b.", "c"), "a test"))


def test_the_most_frequent_tokens_stand_with_both_shares(analysis: ThinkingAnalysis) -> None:
    data = thinking_data(analysis)
    assert len(data) == 2 * NUM_TOKENS
    uses = {
        mode.says: {token.id: token for token in use.tokens} for mode, use in analysis.uses.items()
    }
    for row in data.itertuples():
        token = uses[row.mode].get(row.id)
        assert row.count == (token.count if token else 0)
        assert row.share == pytest.approx(100 * token.share if token else 0)
    sums = data.groupby("id", sort=False)["share"].sum()
    assert list(sums) == sorted(sums, reverse=True)
    every = {token for of_mode in uses.values() for token in of_mode}
    assert len(every) > NUM_TOKENS
    for token in every - set(sums.index):
        share = sum(of_mode[token].share for of_mode in uses.values() if token in of_mode)
        assert 100 * share <= sums.min() + 1e-9


def test_spaces_and_line_breaks_can_be_seen(analysis: ThinkingAnalysis) -> None:
    names = set(thinking_data(analysis)["name"])
    assert {"␣b", "␣of", "."} <= names
    assert names & {"⏎", ".⏎⏎", ",⏎"}


def test_lengths_and_means_are_those_of_the_texts(analysis: ThinkingAnalysis) -> None:
    data = lengths_data(analysis)
    for mode, use in analysis.uses.items():
        of_mode = data[data["name"] == mode.says]
        assert of_mode["texts"].sum() == use.num_texts
        assert (of_mode["tokens"] * of_mode["texts"]).sum() == use.num_tokens
    means = means_data(analysis).set_index("name")["mean"]
    assert means["thinking"] == analysis.thinking.num_tokens / 3


def test_tokens_that_look_alike_have_names_of_their_own(analysis: ThinkingAnalysis) -> None:
    token = analysis.thinking.tokens[0]
    twin = dataclasses.replace(token, id=token.id + 1)
    use = dataclasses.replace(analysis.thinking, tokens=(twin, *analysis.thinking.tokens))
    data = thinking_data(dataclasses.replace(analysis, thinking=use))
    assert data["name"].nunique() == data["id"].nunique() == NUM_TOKENS
    assert f"{token.text} #{token.id}" in set(data["name"])


def test_the_subtitle_holds_the_numbers_and_the_warning(analysis: ThinkingAnalysis) -> None:
    heading = draw_thinking(analysis).to_dict()["title"]
    text = " ".join(heading["subtitle"])
    found = analysis.at_equal_lengths
    assert f"{found.bits:.3f} bits apart" in text
    assert f"p = {found.p_value:.2g}" in text
    assert "Too few texts to say anything" in text
    assert "thinking 3 texts" in text
    assert heading["subtitle"][-1] == "Texts: a test"


@pytest.mark.parametrize("text", [HOSTILE, "a", "東" * 300])
def test_any_text_is_drawn(text: str) -> None:
    texts = ThinkingTexts((text, text), (text,), text)
    chart = draw_thinking(analyze_thinking(qwen3_tokenizer(), texts))
    svg = vl_convert.vegalite_to_svg(chart.to_dict())
    assert "tokens per text" in svg
    assert "<script" not in svg
    assert "\x1b" not in svg
