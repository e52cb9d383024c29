"""Laws of `tuning.tokens.divergence`: the divergence by hand, a test that errs as often as it says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuning.tokens import divergence as module
from tuning.tokens.divergence import Text, at_equal_lengths, divergence, js_divergence

COUNTS = st.lists(st.integers(0, 1_000), min_size=4, max_size=4).filter(any)
TEXTS = st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=9), min_size=1, max_size=6)


def entropy(shares: list[float]) -> float:
    return -sum(share * math.log2(share) for share in shares if share)


def by_hand(first: list[Text], second: list[Text]) -> float:
    """The divergence from its definition, without an array."""
    p, q = ([t for text in texts for t in text] for texts in (first, second))
    kinds = sorted({*p, *q})
    p_V, q_V = ([side.count(kind) / len(side) for kind in kinds] for side in (p, q))
    middle_V = [(a + b) / 2 for a, b in zip(p_V, q_V, strict=True)]
    return entropy(middle_V) - (entropy(p_V) + entropy(q_V)) / 2


# --- the measure --------------------------------------------------------------------------------


def test_a_value_worked_out_with_a_pencil() -> None:
    # p = (1/2, 1/2, 0), q = (1/2, 0, 1/2), middle (1/2, 1/4, 1/4): 1.5 bits less 1 bit.
    assert js_divergence(np.array([1, 1, 0]), np.array([3, 0, 3])) == pytest.approx(0.5)


@given(first=COUNTS, second=COUNTS)
def test_it_is_symmetric_between_0_and_1_and_0_only_for_equal_shares(
    first: list[int], second: list[int]
) -> None:
    p, q = np.array(first, float), np.array(second, float)
    bits = float(js_divergence(p, q))
    assert bits == pytest.approx(float(js_divergence(q, p)), abs=1e-12)
    assert -1e-12 <= bits <= 1 + 1e-12
    assert float(js_divergence(p, 7 * p)) == pytest.approx(0, abs=1e-12)
    if not np.allclose(p / p.sum(), q / q.sum()):
        assert bits > 0
    apart = js_divergence(np.append(p, np.zeros(4)), np.append(np.zeros(4), q))
    assert float(apart) == pytest.approx(1)


@given(first=TEXTS, second=TEXTS)
@settings(deadline=None, max_examples=40)
def test_sets_are_compared_by_the_formula(first: list[Text], second: list[Text]) -> None:
    found = divergence(first, second, seed=0)
    assert found.bits == pytest.approx(by_hand(first, second), abs=1e-9)
    assert found.num_tokens == (sum(map(len, first)), sum(map(len, second)))


# --- the test -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_first", "num_second"), [(3, 3), (2, 4), (4, 3)])
def test_few_texts_are_split_in_every_way(num_first: int, num_second: int) -> None:
    rng = np.random.default_rng(num_first)
    texts = [rng.integers(0, 9, 5 + i).tolist() for i in range(num_first + num_second)]
    found = divergence(texts[:num_first], texts[num_first:], seed=0)
    every = []
    for chosen in itertools.combinations(range(len(texts)), num_first):
        others = [text for place, text in enumerate(texts) if place not in chosen]
        every.append(by_hand([texts[place] for place in chosen], others))
    observed = by_hand(texts[:num_first], texts[num_first:])
    assert found.is_exact
    assert found.num_splits == len(every) // (2 if num_first == num_second else 1)
    assert found.p_value == pytest.approx(np.mean([bits >= observed - 1e-12 for bits in every]))
    assert found.expected_bits == pytest.approx(float(np.mean(every)))


def test_p_cannot_be_below_one_over_the_distinct_splits() -> None:
    found = divergence([[1]] * 3, [[2]] * 3, seed=0)
    assert (found.num_splits, found.p_value, found.smallest_p) == (10, 0.1, 0.1)
    found = divergence([[1]] * 4, [[2]] * 4, seed=0)
    assert (found.num_splits, found.p_value) == (35, pytest.approx(1 / 35))
    found = divergence([[1]] * 40, [[2]] * 30, seed=0)
    assert (found.is_exact, found.num_splits) == (False, module.NUM_SPLITS + 1)
    assert found.p_value == found.smallest_p == 1 / 2_000


def test_a_single_text_is_no_sample() -> None:
    for first, second in (([[1, 2]], [[3], [4], [5]]), ([[3], [4]], [[1]]), ([[1]], [[2]])):
        found = divergence(first, second, seed=0)
        assert (found.bits, found.p_value, found.smallest_p) == (pytest.approx(1), 1, 1)


def test_a_seed_repeats_and_another_differs() -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 50, 8).tolist() for _ in range(24)]
    found = [divergence(texts[:12], texts[12:], seed) for seed in (0, 0, 1)]
    assert found[0] == found[1]
    assert found[0].bits == found[2].bits
    assert found[0].expected_bits != found[2].expected_bits


def test_many_texts_are_split_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    texts = [rng.integers(0, 50, 8).tolist() for _ in range(24)]
    whole = divergence(texts[:12], texts[12:], 0)
    monkeypatch.setattr(module, "_BATCH_NUMBERS", 500)
    assert divergence(texts[:12], texts[12:], 0) == whole


def sampled(
    rng: np.random.Generator, num_texts: int, length: float, kinds: int = 200
) -> list[Text]:
    """Texts whose words repeat within a text, of Zipf's frequencies."""
    shares = 1 / np.arange(1, kinds + 1)
    shares /= shares.sum()
    return [
        rng.choice(kinds, 1 + rng.poisson(length), p=rng.dirichlet(30 * shares)).tolist()
        for _ in range(num_texts)
    ]


def test_texts_of_one_source_differ_as_often_as_p_says() -> None:
    rng = np.random.default_rng(0)
    p_values = [
        divergence(sampled(rng, 5, 20), sampled(rng, 5, 20), seed=0).p_value for _ in range(500)
    ]
    assert 0.03 <= np.mean(np.array(p_values) <= 0.05) <= 0.07
    assert stats.kstest(p_values, "uniform").statistic < 0.07


@pytest.mark.parametrize(("kinds", "bits"), [(300, 0.25), (20_000, 0.6)])
def test_small_sets_of_one_source_differ_by_chance(kinds: int, bits: float) -> None:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, kinds + 1)
    sets = rng.multinomial(300, shares / shares.sum(), (50, 2))
    assert js_divergence(sets[:, 0], sets[:, 1]).mean() == pytest.approx(bits, abs=0.02)


def test_texts_of_another_source_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    first = sampled(rng, 20, 20)
    other = [[token + 5 for token in text] for text in sampled(rng, 20, 20)]
    found = divergence(first, other, seed=0)
    assert found.p_value < 0.01
    assert found.bits > 1.3 * found.expected_bits


# --- equal lengths ------------------------------------------------------------------------------


def test_length_alone_is_a_difference_as_written_and_none_at_equal_lengths() -> None:
    rng = np.random.default_rng(0)
    as_written, at_equal = [], []
    for seed in range(100):
        long, short = sampled(rng, 15, 50), sampled(rng, 12, 5)
        as_written.append(divergence(long, short, seed).p_value)
        at_equal.append(divergence(*at_equal_lengths(long, short, seed), seed).p_value)
    assert np.mean(np.array(as_written) <= 0.05) > 0.95
    assert np.mean(np.array(at_equal) <= 0.05) < 0.1
    assert 0.4 < np.mean(at_equal) < 0.6


@given(first=TEXTS, second=TEXTS, seed=st.integers(0, 99))
def test_texts_are_drawn_down_never_up_and_never_changed(
    first: list[Text], second: list[Text], seed: int
) -> None:
    drawn = at_equal_lengths(first, second, seed)
    for before, after in zip((first, second), drawn, strict=True):
        for text, kept in zip(before, after, strict=True):
            assert 1 <= len(kept) <= len(text)
            assert all(kept.count(token) <= text.count(token) for token in kept)
    if len(first) == len(second):
        assert sorted(map(len, drawn[0])) == sorted(map(len, drawn[1]))
        shorter = zip(sorted(map(len, first)), sorted(map(len, second)), strict=True)
        assert sorted(map(len, drawn[0])) == [min(pair) for pair in shorter]


def test_equal_lengths_change_nothing() -> None:
    first, second = [[1, 2], [3, 4]], [[5, 6], [7, 8]]
    assert at_equal_lengths(first, second, 0) == (first, second)
