"""What runs took: which of them count, and ratios by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from planted_records import EXECUTION
from tuning.analysis.formats import MEBIBYTE, NONE, ratio, spread
from tuning.analysis.resources import ratio_of, resources_of, spread_of
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus
from tuning.statistics import Interval, welch_interval


def record(**changes: float) -> TrialRecord:
    execution: Execution = dataclasses.replace(EXECUTION, **changes)
    result = TrialResult(
        status=TrialStatus.FAILED, training_key="a", weights_key="a@1", step=1, model="m", error="e"
    )
    return TrialRecord(trial_id="a", parameters={}, seed=0, result=result, execution=execution)


def test_speed_is_of_runs_that_trained_all_in_one_attempt() -> None:
    found = resources_of(
        [
            record(train_seconds=10, num_trained_tokens=1000, evaluation_seconds=2),
            record(train_seconds=5, num_trained_tokens=1000, evaluation_seconds=4),
            # Another trial had trained the weights, or the first half of them.
            record(train_seconds=0, num_trained_tokens=1000, peak_memory_bytes=1),
            record(train_seconds=0.01, num_trained_tokens=1000, num_attempts=2),
        ]
    )
    assert found.tokens_per_second == spread_of([100, 200])
    assert found.tokens_per_second is not None
    assert dataclasses.astuple(found.tokens_per_second) == (150, 100, 200, (100, 200))
    assert found.evaluation_seconds == spread_of([2, 4, 1, 1])
    assert found.peak_memory_bytes == spread_of([2**30] * 3)
    assert found.peak_gpu_memory_bytes is None


def test_nothing_is_known_of_no_runs() -> None:
    assert set(dataclasses.astuple(resources_of([]))) == {None}
    assert resources_of([record(train_seconds=0, num_trained_tokens=0)]).tokens_per_second is None
    assert ratio_of(None, spread_of([1])) is ratio_of(spread_of([1]), None) is None


def test_a_ratio_of_few_runs_has_the_smallest_and_largest() -> None:
    found = ratio_of(spread_of([2, 8]), spread_of([1, 4, 2]))
    assert found is not None
    assert not found.is_interval
    assert (found.value, found.low, found.high) == pytest.approx((2, 0.5, 8))


def test_a_ratio_of_three_runs_has_an_interval() -> None:
    own, other = [2.0, 4.0, 8.0], [1.0, 1.0, 1.0]
    found = ratio_of(spread_of(own), spread_of(other))
    assert found is not None
    # Logarithms 1, 2, 3 times ln 2 against 0: t of 2 degrees of freedom, error ln 2 / sqrt(3).
    half = 4.302653 * math.log(2) / math.sqrt(3)
    assert found.is_interval
    assert found.value == pytest.approx(4)
    assert (found.low, found.high) == pytest.approx((4 / math.exp(half), 4 * math.exp(half)))


def test_ratios_of_constants_are_sure() -> None:
    found = ratio_of(spread_of([3, 3, 3]), spread_of([2, 2, 2]))
    assert found is not None
    assert (found.low, found.value, found.high) == pytest.approx((1.5, 1.5, 1.5))


def test_the_interval_is_welchs() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 5)) * [[1], [3]]
    wanted = stats.ttest_ind(a, b[:4], equal_var=False).confidence_interval()
    assert welch_interval(a, b[:4]) == pytest.approx(Interval(wanted.low, wanted.high))
    with pytest.raises(ValueError, match="at least 2 values, got 1 and 2"):
        welch_interval([1], [1, 2])


def test_how_they_are_written() -> None:
    assert spread(spread_of([1000, 1500])) == "1,250 (1,000 to 1,500)"
    assert spread(spread_of([2**30, 2**30]), MEBIBYTE) == "1,024"
    assert spread(spread_of([5.07])) == "5.07"
    assert ratio(ratio_of(spread_of([2, 8]), spread_of([1, 4]))) == "2.00 (0.50 to 8.00)"
    assert ratio(ratio_of(spread_of([3] * 3), spread_of([2] * 3))) == "1.50 [1.50, 1.50]"
    assert spread(None) == ratio(None) == NONE
