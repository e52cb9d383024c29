"""Do gains go together? Across runs with the one that matters most, across items by strata."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import StratifiedTable

from analysis_support import Planted, control, plant
from planted_study import Effect
from tuning.analysis.relations import (
    MIN_RUNS,
    MIN_WORDS,
    PlottedRun,
    RunCorrelation,
    item_relations,
    run_correlations,
)
from tuning.statistics import critical_correlation, pearson, spearman

# --- across runs --------------------------------------------------------------------------------


def runs(spelling: Sequence[float], position: Sequence[float]) -> list[PlottedRun]:
    return [
        PlottedRun(trial_id=f"{i:04d}", label=f"run {i}", spelling=a, position=b, count=-b)
        for i, (a, b) in enumerate(zip(spelling, position, strict=True))
    ]


def found(spelling: Sequence[float], position: Sequence[float]) -> dict[str, RunCorrelation]:
    """Return the correlations with position, by method."""
    every = run_correlations(runs(spelling, position))
    assert [(r.task, r.method) for r in every] == [
        ("position", "spearman"),
        ("position", "pearson"),
        ("count", "spearman"),
        ("count", "pearson"),
    ]
    return {r.method: r for r in every if r.task == "position"}


@pytest.mark.parametrize("num_runs", [0, 1, 4])
def test_below_five_runs_there_is_no_correlation(num_runs: int) -> None:
    values = list(range(num_runs))
    for r in found(values, values).values():
        assert r.value is r.low is r.p_value is r.critical is r.without_one is None
        assert r.num_runs == num_runs
        assert r.reason == f"{num_runs} runs are too few, at least {MIN_RUNS} are needed"


def test_runs_that_all_gained_the_same_have_none() -> None:
    for r in found([0.1] * 6, [0.1, 0.2, 0.3, 0.1, 0.2, 0.5]).values():
        assert (r.value, r.reason) == (None, "all runs gained the same")
        assert r.critical == pytest.approx(critical_correlation(6))


def test_a_correlation_has_its_number_of_runs_and_what_they_need() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 10))
    both = found(list(a), list(b))
    for method, correlate in (("spearman", spearman), ("pearson", pearson)):
        r, wanted = both[method], correlate(a, b)
        assert (r.value, r.p_value) == (wanted.value, wanted.p_value)
        assert (r.low, r.high) == tuple(wanted.interval)
        assert r.num_runs == 10
        assert round(r.critical or 0, 2) == 0.63


def test_the_run_that_makes_the_correlation_is_named() -> None:
    # Six runs without a relation, and one far away in both.
    spelling = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.90]
    position = [0.02, 0.05, 0.01, 0.04, 0.01, 0.03, 0.80]
    r = found(spelling, position)["pearson"]
    assert r.value is not None
    assert r.value > 0.98
    assert r.that_one == "run 6"
    assert r.without_one == pytest.approx(pearson(spelling[:-1], position[:-1]).value)
    assert abs(r.without_one) < 0.3


def test_without_the_only_run_that_moved_nothing_is_left() -> None:
    for place in range(5):
        moved = [float(i == place) for i in range(5)]
        for r in found(moved, moved).values():
            assert r.value == pytest.approx(1)
            assert (r.that_one, r.without_one) == (f"run {place}", None)


PAIRS = st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=5, max_size=14).filter(
    lambda pairs: all(len(set(side)) > 1 for side in zip(*pairs, strict=True))
)


@given(PAIRS)
@settings(max_examples=60, deadline=None)
def test_the_run_that_matters_most_is_found_as_by_leaving_out_each(
    pairs: list[tuple[int, int]],
) -> None:
    a, b = ([float(x) for x in side] for side in zip(*pairs, strict=True))
    both = found(a, b)
    for method, correlate in (("spearman", spearman), ("pearson", pearson)):
        whole, changes = correlate(a, b).value, {}
        for i in range(len(a)):
            try:
                rest = correlate([*a[:i], *a[i + 1 :]], [*b[:i], *b[i + 1 :]]).value
            except ValueError:
                rest = math.inf
            changes[f"run {i}"] = abs(rest - whole)
        r = both[method]
        assert r.that_one is not None
        assert changes[r.that_one] == pytest.approx(max(changes.values()), abs=1e-9)


def test_budgets_of_one_training_count_once() -> None:
    """Four of seven trials are budgets of one training; three have one of their own."""
    space = {
        "HPARAM_CANDIDATES": {"max_steps": [4, 8, 20], "lora_r": [4, 8, 32]},
        "replicates_of_default": 1,
    }
    study = plant(Effect(spelling=0.1), space, num_words=30, num_monitor_words=12)
    assert study.analysis.num_completed == 7
    assert len(study.analysis.runs) == 4
    labels = [run.label for run in study.analysis.runs]
    assert labels == ["max_steps=20", "lora_r=4", "lora_r=8", "lora_r=32"], "the longest counts"
    assert {r.num_runs for r in study.analysis.correlations} == {4}
    assert {r.reason for r in study.analysis.correlations} == {
        "4 runs are too few, at least 5 are needed"
    }


def test_planted_gains_that_go_together_are_found_together() -> None:
    space = {
        "HPARAM_CANDIDATES": {
            "lora_r": [2, 4, 8, 32, 64, 128],
            "arm": ["direct", "format_control"],
        },
        "replicates_of_default": 3,
    }

    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        if "arm" in parameters:
            return Effect(position=0.3)
        size = math.log2(parameters.get("lora_r", 16)) / 7
        return Effect(spelling=0.35 * size, position=0.25 * size)

    study = plant(effect_of, space, seed_deviation=0.003)
    assert len(study.analysis.runs) == 9, "the default's three, six variations, no control arm"
    by_key = {(r.task, r.method): r for r in study.analysis.correlations}
    for method in ("spearman", "pearson"):
        r = by_key["position", method]
        assert r.value is not None
        assert r.critical is not None
        assert r.value > r.critical
        assert r.p_value is not None
        assert r.p_value < 0.05
        unrelated = by_key["count", method]
        assert unrelated.value is not None
        assert unrelated.low is not None
        assert unrelated.high is not None
        assert unrelated.low <= unrelated.value <= unrelated.high


# --- across items -------------------------------------------------------------------------------


def answers(words: Mapping[str, tuple[bool, float]], num_tokens: int = 1) -> pd.DataFrame:
    """Return answers: each word spelled or not, and its share of right positions of four."""
    rows = []
    for word, (is_spelled, share) in words.items():
        rows.append(("spelling", word, is_spelled))
        rows += [("position", word, k < round(4 * share)) for k in range(4)]
    frame = pd.DataFrame(rows, columns=["task", "word", "strict_correct"])
    return frame.assign(num_tokens=num_tokens)


def word(length: int, number: int) -> str:
    return "abcdefghij"[number // 10] + "abcdefghij"[number % 10] + "x" * (length - 2)


def cell(length: int, first: int, size: int, is_spelled: bool, right: int) -> dict[str, Any]:
    """Return words of one length, of which so many are right in all positions."""
    names = [word(length, first + k) for k in range(size)]
    return {name: (is_spelled, float(k < right)) for k, name in enumerate(names)}


def test_a_relation_computed_by_hand_after_mantel_and_haenszel() -> None:
    # Length 4: 8 of 10 right if spelled, 2 of 5 if not; length 6: 6 of 10 against 9 of 30.
    words = {
        **cell(4, 0, 10, True, 8),
        **cell(4, 20, 5, False, 2),
        **cell(6, 0, 10, True, 6),
        **cell(6, 40, 30, False, 9),
    }
    (relation,) = item_relations([answers(words)], "tuned", "default")
    assert (relation.num_spelled, relation.num_unspelled, relation.num_strata) == (20, 35, 2)
    assert relation.accuracy_spelled == pytest.approx(14 / 20)
    assert relation.accuracy_unspelled == pytest.approx(11 / 35)
    # Weights 10 * 5 / 15 and 10 * 30 / 40; differences .4 and .3.
    first, second = 50 / 15, 300 / 40
    difference = (first * 0.4 + second * 0.3) / (first + second)
    assert relation.difference == pytest.approx(difference)
    # Within cells 1.6 + 1.2 + 2.4 + 6.3 squares on 55 words less 4 cells.
    variance = 11.5 / 51
    squares = variance * (first**2 * (1 / 10 + 1 / 5) + second**2 * (1 / 10 + 1 / 30))
    half = 1.959964 * math.sqrt(squares) / (first + second)
    assert (relation.low, relation.high) == pytest.approx((difference - half, difference + half))
    # The pooled odds ratio of the same tables leans the same way.
    tables = [np.array([[8, 2], [2, 3]]), np.array([[6, 4], [9, 21]])]
    assert StratifiedTable(tables).oddsratio_pooled > 1


def test_a_relation_that_length_alone_makes_is_none_within_lengths() -> None:
    """Simpson: short words are spelled and right, long ones neither; within a length no relation."""
    words = {
        **cell(4, 0, 40, True, 32),
        **cell(4, 50, 10, False, 8),
        **cell(8, 0, 10, True, 2),
        **cell(8, 50, 40, False, 8),
    }
    (relation,) = item_relations([answers(words)], "tuned", "default")
    assert relation.accuracy_spelled is not None
    assert relation.accuracy_unspelled is not None
    assert relation.accuracy_spelled - relation.accuracy_unspelled > 0.3
    assert relation.difference == pytest.approx(0)
    assert relation.low is not None
    assert relation.low < 0


def test_the_number_of_tokens_makes_strata_too() -> None:
    one = answers({**cell(4, 0, 10, True, 8), **cell(4, 20, 10, False, 4)}, num_tokens=1)
    two = answers({**cell(4, 40, 10, True, 5), **cell(4, 60, 10, False, 5)}, num_tokens=2)
    (relation,) = item_relations([pd.concat([one, two])], "tuned", "default")
    assert relation.num_strata == 2
    assert relation.difference == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({**cell(4, 0, 9, True, 5), **cell(4, 20, 30, False, 5)}, "9 words spelled, 30 not"),
        ({**cell(4, 0, 30, True, 5)}, "30 words spelled, 0 not"),
        ({**cell(4, 0, 12, True, 5), **cell(5, 20, 12, False, 5)}, "12 words spelled, 12 not"),
    ],
)
def test_too_few_words_of_a_kind_are_refused_with_the_numbers(
    words: dict[str, Any], says: str
) -> None:
    (relation,) = item_relations([answers(words)], "tuned", "default")
    assert relation.difference is relation.low is relation.accuracy_spelled is None
    assert relation.reason is not None
    assert says in relation.reason
    rest = f"needs {MIN_WORDS} words of each kind", "no length and number of tokens has words"
    assert any(part in relation.reason for part in rest)


def test_seeds_are_averaged_before_words_are_compared() -> None:
    words = {**cell(4, 0, 10, True, 8), **cell(4, 20, 10, False, 4)}
    other = {**cell(4, 0, 10, True, 6), **cell(4, 20, 10, False, 4)}
    (relation,) = item_relations([answers(words), answers(other)], "tuned", "default")
    assert (relation.num_spelled, relation.num_unspelled) == (10, 10)
    assert relation.difference == pytest.approx(0.7 - 0.4)


def test_planted_words_differ_in_ability_so_items_are_related_where_gains_are_not() -> None:
    study: Planted = control("speller")
    models = [(r.model, r.task) for r in study.analysis.item_relations]
    assert models == [(m, t) for m in ("untouched", "tuned") for t in ("position", "count")]
    trial_ids = study.row("default").trial_ids
    frames = [study.answers(trial_id) for trial_id in trial_ids]
    relation = next(
        r for r in study.analysis.item_relations if (r.model, r.task) == ("tuned", "position")
    )
    # Derived again by pandas: mean of strata weighted by words of both kinds.
    every = pd.concat(frames)
    means = every.groupby(["task", "word"])["strict_correct"].mean().unstack(0)
    means = means.dropna(subset=["spelling", "position"])
    tokens = every.groupby("word")["num_tokens"].first()
    means["length"], means["tokens"] = means.index.str.len(), tokens[means.index]
    means["spelled"] = means["spelling"] > 0.5
    assert relation.num_spelled == means["spelled"].sum()
    total = weights = 0.0
    for _, rows in means.groupby(["length", "tokens"]):
        yes, no = (rows[rows["spelled"] == kind]["position"] for kind in (True, False))
        if len(yes) and len(no):
            weight = stats.hmean([len(yes), len(no)]) / 2
            total += weight * (yes.mean() - no.mean())
            weights += weight
    assert relation.difference == pytest.approx(total / weights)
