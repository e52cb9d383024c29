"""Laws of `tuning.tokens.thinking`: counts add up, and a small sample says that it is small."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.chat_modes import token_counts
from tuning.tokens.texts import Mode
from tuning.tokens.thinking import (
    MIN_TEXTS,
    MIN_TOKENS,
    ThinkingAnalysis,
    ThinkingTexts,
    TokenUse,
    analyze_thinking,
)

WORDS = ("apple", "river", "stone", "moonlight", "basket", "window", "garden")


def analysis_of(thinking: list[str], direct: list[str], seed: int = 0) -> ThinkingAnalysis:
    texts = ThinkingTexts(tuple(thinking), tuple(direct), "a test")
    return analyze_thinking(qwen3_tokenizer(), texts, seed=seed)


def reasoning(rng: random.Random) -> str:
    word = rng.choice(WORDS)
    steps = "\n".join(f"{place}. {letter}" for place, letter in enumerate(word, 1))
    return f"<think>\nI go through {word}.\n{steps}\n</think>\n\nDone."


def sentence(rng: random.Random) -> str:
    return " ".join(rng.choices([*WORDS, "and", "the", "a", "or", "with", "of"], k=20))


@pytest.fixture(scope="module")
def examples() -> ThinkingAnalysis:
    return analyze_thinking(qwen3_tokenizer())


@pytest.fixture(scope="module")
def many() -> ThinkingAnalysis:
    rng = random.Random(0)
    return analysis_of([reasoning(rng) for _ in range(25)], [sentence(rng) for _ in range(30)])


TEXTS = st.lists(st.text(min_size=1, max_size=30).filter(str.strip), min_size=1, max_size=4)


@given(thinking=TEXTS, direct=TEXTS)
@settings(deadline=None, max_examples=40)
def test_counts_add_up_whatever_the_texts(thinking: list[str], direct: list[str]) -> None:
    found = analysis_of(thinking, direct)
    for texts, use in ((thinking, found.thinking), (direct, found.non_thinking)):
        ids = [qwen3_tokenizer().backend.encode(text).ids for text in texts]
        assert use.lengths == tuple(map(len, ids))
        assert {token.id: token.count for token in use.tokens} == Counter(
            token for text in ids for token in text
        )
        assert math.isclose(sum(token.share for token in use.tokens), 1)
        counts = [token.count for token in use.tokens]
        assert counts == sorted(counts, reverse=True)
        assert list(use.distribution.values()) == counts
    for contrast in found.contrasts:
        assert contrast.thinking + contrast.non_thinking > 0
    json.dumps(found.to_json(), allow_nan=False)


def test_every_token_of_the_vocabulary_has_a_key_of_its_own() -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    every = [*vocabulary.base, *vocabulary.added_by_id]
    tokens = token_counts(vocabulary, Counter(every))
    keys = TokenUse(tokens, (len(every),)).distribution
    assert len(keys) == len(every) == 151_669
    assert {" the", "\n\n", "<think>"} <= keys.keys()


def test_texts_that_look_alike_are_told_apart_by_their_strings() -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    texts = Counter(vocabulary.text(token) for token in vocabulary.base)
    shared = [token for token in vocabulary.base if texts[vocabulary.text(token)] > 1]
    tokens = token_counts(vocabulary, Counter(shared))
    keys = TokenUse(tokens, (len(shared),)).distribution
    assert set(keys) == {vocabulary.string(token) for token in shared}


# --- the json -----------------------------------------------------------------------------------


def test_the_json_has_the_agreed_keys(many: ThinkingAnalysis) -> None:
    found = many.to_json()
    assert list(found) == ["thinking_mode", "non_thinking_mode", "thinking_comparison"]
    for name, use in (("thinking_mode", many.thinking), ("non_thinking_mode", many.non_thinking)):
        mode = found[name]
        assert mode["unique_tokens"] == len(mode["token_distribution"]) == len(use.tokens)
        assert sum(mode["token_distribution"].values()) == mode["num_tokens"] == use.num_tokens
        counts = list(mode["token_distribution"].values())
        assert counts == sorted(counts, reverse=True)
        assert mode["num_texts"] == len(mode["lengths"])
    assert found["thinking_mode"]["token_distribution"]["<think>"] == 25
    comparison = found["thinking_comparison"]
    assert comparison["warning"] is None
    assert comparison["template"]["think_block"] == "<think>\n\n</think>\n\n"
    measures = comparison["jensen_shannon"]
    assert measures["as_written"]["bits"] == many.as_written.bits
    assert measures["at_equal_lengths"]["smallest_p"] == 1 / 2_000


def test_what_only_one_set_holds_is_what_the_other_lacks(many: ThinkingAnalysis) -> None:
    thinking, direct = ({t.id for t in use.tokens} for use in many.uses.values())
    assert {t.id for t in many.only_in(Mode.THINKING)} == thinking - direct
    assert {t.id for t in many.only_in(Mode.NON_THINKING)} == direct - thinking
    assert thinking & direct


def test_the_typical_tokens_are_those_with_clear_odds(many: ThinkingAnalysis) -> None:
    thinking = many.most_typical_of(Mode.THINKING)
    assert {"<think>", "</think>", "\n"} <= {contrast.text for contrast in thinking}
    assert all(contrast.z > 0 for contrast in thinking)
    z_values = [contrast.z for contrast in many.most_typical_of(Mode.NON_THINKING)]
    assert z_values == sorted(z_values)
    assert max(z_values) < 0


def test_log_odds_are_those_of_the_formula() -> None:
    found = analysis_of(["a a a"], ["b b"])
    tokens = {contrast.text: contrast for contrast in found.contrasts}
    # " a" is 2 of 3 tokens here and 0 of 2 there; half is added to each count.
    odds = (2.5 / 1.5) / (0.5 / 2.5)
    assert tokens[" a"].log_odds == pytest.approx(math.log2(odds))
    error = math.sqrt(1 / 2.5 + 1 / 1.5 + 1 / 0.5 + 1 / 2.5)
    assert tokens[" a"].z == pytest.approx(math.log(odds) / error)


# --- what may be concluded ----------------------------------------------------------------------


def test_the_examples_say_that_they_are_too_few(examples: ThinkingAnalysis) -> None:
    warning = examples.warning
    assert "too few texts to say anything" in warning
    assert "p cannot be below 0.10 (distinct splits: 10)" in warning
    assert "3 thinking texts" in warning
    assert "3 non-thinking texts" in warning
    assert f"below {MIN_TEXTS} texts or {MIN_TOKENS} tokens" in warning
    assert "the smallest possible" in examples.sentences[0]


def test_enough_texts_that_differ_are_told_apart_without_a_warning(many: ThinkingAnalysis) -> None:
    assert many.warning == ""
    assert many.as_written.p_value == many.at_equal_lengths.p_value == 1 / 2_000
    assert many.at_equal_lengths.bits > 3 * many.at_equal_lengths.expected_bits


def test_enough_texts_of_one_kind_are_not_told_apart() -> None:
    rng = random.Random(1)
    found = analysis_of([sentence(rng) for _ in range(20)], [sentence(rng) for _ in range(20)])
    assert found.warning == ""
    assert found.as_written.p_value > 0.05
    assert found.as_written.bits < 1.3 * found.as_written.expected_bits


@pytest.mark.parametrize(
    ("num_thinking", "num_direct", "words", "says"),
    [
        (1, 60, 20, "p cannot be below 1.00 (distinct splits: 1)"),
        (4, 60, 20, "4 thinking texts"),
        (19, 20, 20, "19 thinking texts"),
        (20, 19, 20, "19 non-thinking texts"),
        (20, 20, 14, "20 thinking texts of 280 tokens in all and 20 non-thinking"),
        (20, 20, 15, ""),
    ],
)
def test_a_warning_names_the_set_that_is_too_small(
    num_thinking: int, num_direct: int, words: int, says: str
) -> None:
    # Each word after the first is one token with its space, and so is the first.
    text = " ".join(["one"] * words)
    found = analysis_of([text] * num_thinking, [text] * num_direct)
    assert says in found.warning
    assert bool(found.warning) == bool(says)


def test_the_same_seed_gives_the_same_analysis(many: ThinkingAnalysis) -> None:
    rng = random.Random(0)
    texts = [reasoning(rng) for _ in range(25)], [sentence(rng) for _ in range(30)]
    assert analysis_of(*texts) == many
    assert analysis_of(*texts, seed=1).at_equal_lengths != many.at_equal_lengths


def test_thinking_is_analysed_without_torch() -> None:
    code = (
        "import sys; from tuning.tokens.thinking import analyze_thinking as a;"
        "from tuning.qwen3_tokenizer import qwen3_tokenizer as q; a(q());"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert answer.stdout.strip() == "[]"
