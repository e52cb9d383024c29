"""Who is stopped early, and who never is: specifications, and laws over all learning curves."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import ConfigError
from tuning.pruning import (
    Curve,
    Median,
    Metric,
    Never,
    Objectives,
    Observation,
    Patience,
    PoorOnBoth,
    Pruner,
    Pruning,
    SuccessiveHalving,
    metric_of,
    pruner_of,
    spelling,
    transfer,
)
from tuning.scoring import Focus, Weights, calculate_transfer_score
from tuning.tasks.stream import Arm

BALANCED: Objectives = [("balanced", metric_of(Focus.BALANCED, Weights(0.5, 0.5)))]
BOTH: Objectives = [("spelling", spelling), ("transfer", transfer)]


def curve(
    seen: Sequence[tuple[int, float, float, float]],
    name: str = "t",
    *,
    key: str | None = None,
    batch_size: int = 8,
    warmup_steps: int = 0,
    max_steps: int = 100,
    eval_frequency: int = 10,
    is_spared: bool = False,
) -> Curve:
    """Return the curve of a trial that was seen at (step, spelling, position, count)."""
    return Curve(
        trial_id=name,
        training_key=name if key is None else key,
        batch_size=batch_size,
        warmup_steps=warmup_steps,
        max_steps=max_steps,
        eval_frequency=eval_frequency,
        arm=Arm.SPELLING,
        is_spared=is_spared,
        seen=[Observation(*values) for values in seen],
    )


def flat(
    spelled: float, transferred: float, name: str = "t", *, upto: int = 50, **of: Any
) -> Curve:
    """Return a curve that stands at two levels from its first evaluation on."""
    every = of.get("eval_frequency", 10)
    steps = range(every, upto + 1, every)
    levels = [(step, spelled, transferred, transferred) for step in steps]
    return curve([(0, 0.0, 0.0, 0.0), *levels], name, **of)


def peers_at(spelled: float, transferred: float, count: int = 4, **of: Any) -> list[Curve]:
    return [flat(spelled, transferred, f"peer{i}", **of) for i in range(count)]


def poor_on_both(trial: Curve, peers: Sequence[Curve], step: int = 50, **of: Any) -> str | None:
    return PoorOnBoth(**{**PLAIN, **of}).judge(trial, peers, step, BALANCED)


PLAIN = {"warmup_share": 0.2, "min_peers": 4, "share": 0.5, "margin": 0.0}
"""Settings under which numbers are easy to follow; the defaults are tested at the end."""


# --- what is compared ---------------------------------------------------------------------------


def test_transfer_is_the_mean_of_position_and_count() -> None:
    assert transfer(Observation(step=10, spelling=0.9, position=0.25, count=0.75)) == 0.5


def test_an_observation_is_a_line_of_progress() -> None:
    line = {
        "step": 40,
        "kind": "evaluation",
        "spelling/accuracy": 0.5,
        "transfer/position/accuracy": 0.25,
        "transfer/count/accuracy": 1,
    }
    assert Observation.of(line) == Observation(step=40, spelling=0.5, position=0.25, count=1.0)


@pytest.mark.parametrize("weights", [Weights(0.5, 0.5), Weights(0.3, 0.9)])
def test_a_focus_ranks_on_the_way_by_what_it_ranks_by_at_the_end(weights: Weights) -> None:
    seen = Observation(step=10, spelling=0.75, position=0.5, count=0.25)
    assert metric_of(Focus.SPELLING, weights)(seen) == 0.75
    assert metric_of(Focus.TRANSFER, weights)(seen) == 0.375
    assert metric_of(Focus.BALANCED, weights)(seen) == calculate_transfer_score(
        0.75, 0.5, 0.25, *weights
    )


def test_a_level_is_the_mean_over_the_way() -> None:
    trial = curve([(step, step / 100, 0, 0) for step in range(0, 91, 10)])
    # The untouched model at step 0 is no part of the way.
    assert trial.level(spelling, 90) == pytest.approx(0.5)
    assert trial.level(spelling, 30) == pytest.approx(0.2)
    assert trial.level(spelling, 39) == pytest.approx(0.2)
    assert trial.level(spelling, 100) is None


# --- poor on both: the default ------------------------------------------------------------------


def test_what_is_poor_on_both_stops_and_the_reason_has_the_numbers() -> None:
    peers = [flat(s, t, f"p{s}") for s, t in [(0.3, 0.2), (0.4, 0.3), (0.6, 0.5), (0.7, 0.6)]]
    assert poor_on_both(flat(0.25, 0.125), peers) == (
        "poor on both at step 50: "
        "spelling 25.0 % against 50.0 % of 4 peers at equal steps; "
        "transfer 12.5 % against 40.0 % of 4 peers at equal steps"
    )


@pytest.mark.parametrize(
    ("spelled", "transferred", "stops"),
    [
        (0.4, 0.4, True),
        (0.4, 0.5, False),
        (0.5, 0.4, False),
        (0.4, 0.9, False),
        (0.9, 0.4, False),
        (0.5, 0.5, False),
        (0.9, 0.9, False),
    ],
)
def test_poor_on_one_of_both_is_no_reason(spelled: float, transferred: float, stops: bool) -> None:
    found = poor_on_both(flat(spelled, transferred), peers_at(0.5, 0.5))
    assert (found is not None) is stops


def test_poor_on_count_alone_is_not_poor_on_transfer() -> None:
    trial = curve([(step, 0.1, 0.9, 0.1) for step in range(0, 51, 10)])
    assert poor_on_both(trial, peers_at(0.5, 0.5)) is None
    trial = curve([(step, 0.1, 0.7, 0.1) for step in range(0, 51, 10)])
    assert poor_on_both(trial, peers_at(0.5, 0.5)) is not None


def test_the_share_says_below_which_part_of_the_peers_a_trial_is_poor() -> None:
    peers = [flat(level / 10, level / 10, f"p{level}") for level in (1, 2, 3, 4, 5)]
    trial = flat(0.25, 0.25)
    assert poor_on_both(trial, peers, share=0.5) is not None
    assert poor_on_both(trial, peers, share=0.25) is None
    assert "30.0 % of 5 peers" in str(poor_on_both(trial, peers))


@pytest.mark.parametrize(("level", "stops"), [(0.375, True), (0.4375, False), (0.5, False)])
def test_who_is_nearer_than_the_margin_is_not_poor(level: float, stops: bool) -> None:
    for trial in (flat(level, 0.0), flat(0.0, level)):
        reason = poor_on_both(trial, peers_at(0.5, 0.5), margin=0.0625)
        assert (reason is not None) is stops


def test_trials_are_compared_at_equal_steps() -> None:
    # All learn alike; the peers have only come further.
    learning = [(step, step / 100, step / 100, step / 100) for step in range(0, 101, 10)]
    peers = [curve(learning, f"p{i}", max_steps=200) for i in range(6)]
    assert poor_on_both(curve(learning[:6]), peers) is None


def by_examples(batch_size: int, examples_to_learn: int, upto: int, name: str) -> Curve:
    """Return a trial that learns by the examples that it has seen, whatever its steps."""
    levels = [
        (step, *[min(1.0, step * batch_size / examples_to_learn)] * 3)
        for step in range(0, upto + 1, 10)
    ]
    return curve(levels, name, batch_size=batch_size, max_steps=1000)


def test_a_small_batch_is_poor_only_if_it_is_poor_at_equal_examples_too() -> None:
    peers = [by_examples(32, 32_000, 1000, f"p{i}") for i in range(4)]
    better = by_examples(8, 24_000, 400, "t")
    assert better.seen[-1].spelling < peers[0].seen[40].spelling / 2, "behind at equal steps"
    assert poor_on_both(better, peers, 400) is None
    worse = by_examples(8, 64_000, 400, "t")
    reason = poor_on_both(worse, peers, 400)
    assert reason is not None
    assert reason.count("peers at equal steps and") == 2
    assert reason.count("peers at equal examples") == 2


def test_a_large_batch_is_poor_only_if_it_is_poor_at_equal_steps_too() -> None:
    # At equal examples the peers have made four times the steps.
    peers = [flat(0.5, 0.5, f"p{i}", upto=1000, batch_size=8, max_steps=1000) for i in range(4)]
    for peer in peers:
        early = [dataclasses.replace(seen, spelling=0.1) for seen in peer.seen if seen.step <= 300]
        peer.seen[: len(early)] = early
    trial = flat(0.2, 0.2, upto=250, batch_size=32, max_steps=1000)
    assert poor_on_both(trial, peers, 250) is None
    for peer in peers:
        peer.seen = [dataclasses.replace(seen, spelling=0.5) for seen in peer.seen]
        peer._levels.clear()
    assert poor_on_both(trial, peers, 250) is not None


@pytest.mark.parametrize("num_peers_so_far", [0, 1, 3])
def test_without_peers_at_equal_examples_nothing_is_poor(num_peers_so_far: int) -> None:
    """A batch of 32 has seen at step 250 what a batch of 8 sees at step 1000."""
    of: dict[str, Any] = {"batch_size": 8, "max_steps": 1000}
    far = [flat(0.9, 0.9, f"far{i}", upto=1000, **of) for i in range(num_peers_so_far)]
    near = [flat(0.9, 0.9, f"near{i}", upto=500, **of) for i in range(6)]
    trial = flat(0.1, 0.1, upto=250, batch_size=32, max_steps=1000)
    assert poor_on_both(trial, [*far, *near], 250) is None


def test_without_peers_at_equal_steps_nothing_is_poor() -> None:
    short = [flat(0.9, 0.9, f"p{i}", upto=100, batch_size=32, max_steps=110) for i in range(6)]
    trial = flat(0.1, 0.1, upto=300, batch_size=8, max_steps=1000)
    assert poor_on_both(trial, short, 300) is None


def test_the_default_is_never_stopped() -> None:
    for name in Pruning:
        pruner = pruner_of(name, {})
        default = flat(0.0, 0.0, upto=90, is_spared=True)
        peers = peers_at(1.0, 1.0, 20, upto=90)
        for step in range(1, 101):
            assert pruner.judge(default, peers, step, BALANCED) is None, (name, step)


@pytest.mark.parametrize(
    ("warmup_steps", "warmup_share", "first"),
    [(0, 0.2, 21), (20, 0.2, 21), (30, 0.2, 31), (5, 0.5, 51), (0, 0.0, 1), (0, 1.0, None)],
)
def test_nothing_is_stopped_before_the_longer_of_both_warm_ups(
    warmup_steps: int, warmup_share: float, first: int | None
) -> None:
    trial = flat(0.1, 0.1, upto=99, eval_frequency=1, warmup_steps=warmup_steps)
    peers = peers_at(0.9, 0.9, upto=99, eval_frequency=1)
    for pruner in (PoorOnBoth(warmup_share=warmup_share), Median(warmup_share=warmup_share)):
        stops = [s for s in range(1, 100) if pruner.judge(trial, peers, s, BALANCED)]
        assert stops == ([] if first is None else list(range(first, 100)))


def test_the_share_of_the_warm_up_is_of_the_trials_own_steps() -> None:
    peers = peers_at(0.9, 0.9, upto=90)
    long = flat(0.1, 0.1, upto=90, max_steps=1000)
    short = flat(0.1, 0.1, upto=90, max_steps=100)
    assert poor_on_both(long, peers, 90) is None
    assert poor_on_both(short, peers, 90) is not None


@pytest.mark.parametrize("min_peers", [1, 3, 4])
def test_so_many_other_trainings_must_have_come_as_far(min_peers: int) -> None:
    trial = flat(0.1, 0.1)
    for kind in (PoorOnBoth(min_peers=min_peers), Median(min_peers=min_peers)):
        enough = peers_at(0.9, 0.9, min_peers)
        behind = peers_at(0.9, 0.9, 10, upto=40)
        assert kind.judge(trial, enough, 50, BALANCED) is not None
        assert kind.judge(trial, enough[1:], 50, BALANCED) is None
        slow = [dataclasses.replace(p, training_key=f"slow{i}") for i, p in enumerate(behind)]
        assert kind.judge(trial, [*enough[1:], *slow], 50, BALANCED) is None


def test_one_training_under_several_names_is_one_peer() -> None:
    trial = flat(0.1, 0.1)
    three = peers_at(0.9, 0.9, 3)
    again = [flat(0.9, 0.9, f"again{i}", key="peer0") for i in range(10)]
    assert poor_on_both(trial, [*three, *again]) is None
    assert poor_on_both(trial, [*three, *again, flat(0.9, 0.9, "other")]) is not None


def test_a_trial_is_no_peer_of_its_own_training() -> None:
    # The same training, asked for with other task weights.
    trial = flat(0.1, 0.1)
    same = flat(0.9, 0.9, "u", key=trial.training_key)
    assert poor_on_both(trial, [*peers_at(0.9, 0.9, 3), same]) is None


# --- median -------------------------------------------------------------------------------------


def test_median_stops_what_is_below_the_median_and_says_by_how_much() -> None:
    peers = [flat(s, 0.5, f"p{s}") for s in (0.1, 0.2, 0.4, 0.5)]
    objectives: Objectives = [("spelling", spelling)]
    assert Median().judge(flat(0.25, 0.5), peers, 50, objectives) == (
        "below the median at step 50: spelling 25.0 % against 30.0 % of 4 peers at equal steps"
    )


def test_what_stands_at_the_median_is_not_below_it() -> None:
    # Half of 0.2 and 0.4 is 0.30000000000000004 to a computer.
    peers = [flat(s, 0.5, f"p{s}") for s in (0.1, 0.2, 0.4, 0.5)]
    assert Median().judge(flat(0.3, 0.0), peers, 50, [("spelling", spelling)]) is None


@pytest.mark.parametrize(
    ("spelled", "transferred", "stops"),
    [(0.4, 0.4, True), (0.6, 0.4, False), (0.4, 0.6, False), (0.6, 0.6, False)],
)
def test_with_several_objectives_median_stops_what_is_below_it_in_all(
    spelled: float, transferred: float, stops: bool
) -> None:
    found = Median().judge(flat(spelled, transferred), peers_at(0.5, 0.5), 50, BOTH)
    assert (found is not None) is stops


# --- patience -----------------------------------------------------------------------------------


def judge_alone(pruner: Pruner, values: Sequence[tuple[float, float]], step: int) -> str | None:
    """Judge a trial that was seen at (spelling, transfer) every 10 steps from step 0 on."""
    seen = [(10 * i, s, t, t) for i, (s, t) in enumerate(values)]
    return pruner.judge(curve(seen), [], step, BALANCED)


def test_patience_ends_after_so_many_evaluations_without_improvement() -> None:
    levels = [(0.0, 0.0), (0.2, 0.3), *[(0.2, 0.3)] * 8]
    pruner = Patience(evaluations=4)
    assert [judge_alone(pruner, levels, step) is not None for step in range(10, 91, 10)] == [
        *[False] * 4,
        *[True] * 5,
    ]
    assert judge_alone(pruner, levels, 50) == (
        "no improvement of 1 points on spelling or transfer in the last 4 evaluations "
        "before step 50"
    )


@pytest.mark.parametrize("better", [(0.5, 0.3), (0.2, 0.5)], ids=["spelling", "transfer"])
def test_an_improvement_on_either_renews_patience(better: tuple[float, float]) -> None:
    levels = [(0.0, 0.0), (0.2, 0.3), (0.2, 0.3), (0.2, 0.3), better, better, better, better]
    pruner = Patience(evaluations=3)
    stops = [step for step in range(10, 71, 10) if judge_alone(pruner, levels, step)]
    assert stops == [70]


@pytest.mark.parametrize(("last", "stops"), [(0.3125, True), (0.375, False), (0.5, False)])
def test_a_small_gain_is_no_improvement(last: float, stops: bool) -> None:
    levels = [(0.25, 0.0)] * 5 + [(last, 0.0)]
    reason = judge_alone(Patience(evaluations=3, min_delta=0.125), levels, 50)
    assert (reason is not None) is stops


def test_patience_ends_even_if_the_least_gain_would_do() -> None:
    # Nothing was gained at all.
    assert judge_alone(Patience(evaluations=3, min_delta=0.0), [(0.25, 0.25)] * 8, 70) is not None


# --- successive halving -------------------------------------------------------------------------


def test_rungs_lie_on_evaluations_and_a_factor_apart() -> None:
    pruner = SuccessiveHalving()
    assert list(pruner.rungs(flat(0, 0, max_steps=900))) == [90, 270, 810]
    assert list(pruner.rungs(flat(0, 0, max_steps=900, eval_frequency=50))) == [100, 300, 850]
    assert list(pruner.rungs(flat(0, 0, max_steps=900, warmup_steps=200))) == [200, 600]
    assert list(SuccessiveHalving(factor=2).rungs(flat(0, 0))) == [10, 20, 40, 80]
    assert list(SuccessiveHalving(min_steps=25).rungs(flat(0, 0))) == [30, 80]
    assert list(pruner.rungs(flat(0, 0, max_steps=10, eval_frequency=50))) == []


@given(
    pruner=st.builds(
        SuccessiveHalving,
        min_steps=st.none() | st.integers(1, 500),
        factor=st.integers(2, 5),
    )
    | st.builds(PoorOnBoth)
    | st.builds(Median),
    max_steps=st.integers(1, 1000),
    warmup=st.floats(0, 1),
    every=st.integers(1, 300),
)
@settings(max_examples=100, deadline=None)
def test_every_rung_is_an_evaluation_step_on_the_way(
    pruner: Pruner, max_steps: int, warmup: float, every: int
) -> None:
    warmup_steps = int(warmup * max_steps)
    trial = flat(0, 0, max_steps=max_steps, warmup_steps=warmup_steps, eval_frequency=every)
    rungs = list(pruner.rungs(trial))
    assert rungs == sorted(set(rungs))
    assert all(rung % every == 0 and 0 < rung < max_steps for rung in rungs)
    if isinstance(pruner, SuccessiveHalving):
        assert all(rung >= warmup_steps for rung in rungs)


def test_one_in_so_many_goes_on() -> None:
    trials = [flat(i / 16, 0.0, f"t{i}") for i in range(9)]
    goes_on = going_on(SuccessiveHalving(factor=3), trials, [("spelling", spelling)])
    assert goes_on == ["t6", "t7", "t8"]
    others = [other for other in trials if other.trial_id != "t5"]
    assert SuccessiveHalving().judge(trials[5], others, 50, [("spelling", spelling)]) == (
        "place 4 of 9 at the rung of step 50; 3 go on"
    )


def going_on(pruner: Pruner, trials: Sequence[Curve], objectives: Objectives) -> list[str]:
    return [
        trial.trial_id
        for trial in trials
        if pruner.judge(trial, [t for t in trials if t is not trial], 50, objectives) is None
    ]


@given(
    levels=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=9),
    factor=st.integers(2, 5),
    objectives=st.sampled_from([BALANCED, BOTH, BOTH[:1]]),
)
@settings(max_examples=100, deadline=None)
def test_at_least_one_goes_on_and_at_least_the_promised_part(
    levels: list[tuple[int, int]], factor: int, objectives: Objectives
) -> None:
    trials = [flat(s / 8, t / 8, f"t{i}") for i, (s, t) in enumerate(levels)]
    num_going_on = len(going_on(SuccessiveHalving(factor=factor), trials, objectives))
    assert num_going_on >= max(1, len(trials) // factor)


def test_with_several_objectives_what_no_other_beats_in_all_goes_on() -> None:
    levels = [(0.1, 0.9), (0.5, 0.5), (0.9, 0.1), (0.4, 0.4), (0.3, 0.3), (0.2, 0.2)]
    trials = [flat(s, t, f"t{i}") for i, (s, t) in enumerate(levels)]
    # Two in six go on; of the three on the front none can be told from the others.
    assert going_on(SuccessiveHalving(factor=3), trials, BOTH) == ["t0", "t1", "t2", "t3"]


def test_the_default_goes_on_from_every_rung_and_is_a_peer() -> None:
    trials = [flat(i / 16, 0.0, f"t{i}", is_spared=i == 0) for i in range(6)]
    assert going_on(SuccessiveHalving(factor=3), trials, BOTH[:1]) == ["t0", "t4", "t5"]


def test_a_trial_is_judged_among_those_that_reached_the_rung() -> None:
    trial = flat(0.5, 0.5)
    better_later = [flat(0.9, 0.9, f"b{i}", upto=40) for i in range(9)]
    assert SuccessiveHalving().judge(trial, better_later, 50, BALANCED) is None
    better_now = [flat(0.9, 0.9, f"b{i}", upto=50) for i in range(9)]
    assert SuccessiveHalving().judge(trial, better_now, 50, BALANCED) is not None


def test_halving_counts_a_training_once_however_far_its_names_have_come() -> None:
    trial = flat(0.5, 0.5)
    better = flat(0.9, 0.9, "far", key="shared", upto=90)
    begun = flat(0.9, 0.9, "near", key="shared", upto=0)
    for peers in ([better, begun], [begun, better]):
        assert SuccessiveHalving().judge(trial, peers, 50, BALANCED) is not None, [
            peer.trial_id for peer in peers
        ]


# --- laws over all curves -----------------------------------------------------------------------

PRUNERS: list[Pruner] = [
    PoorOnBoth(),
    PoorOnBoth(**PLAIN),
    PoorOnBoth(share=0.25, min_peers=1, warmup_share=0.0),
    PoorOnBoth(min_peers=2, warmup_share=0.1),
    Median(min_peers=1, warmup_share=0.0),
    Median(min_peers=2, warmup_share=0.1),
    Patience(evaluations=2),
    SuccessiveHalving(factor=2),
    SuccessiveHalving(),
    Never(),
]
pruners = st.sampled_from(PRUNERS)
objective_lists = st.sampled_from([BALANCED, BOTH, BOTH[:1]])
LEVELS = st.integers(0, 8).map(lambda eighths: eighths / 8)
KEYS = "abcdefgh"
EVERY = {key: (5, 10, 20, 5)[i % 4] for i, key in enumerate(KEYS)}
BATCH_SIZE = {key: (8, 8, 16, 4)[i // 2] for i, key in enumerate(KEYS)}


@st.composite
def studies(draw: st.DrawFn) -> tuple[Curve, list[Curve]]:
    """Draw a trial and its peers; trials of one training have seen the same, up to some step."""
    whole = {
        key: [(step, draw(LEVELS), draw(LEVELS), draw(LEVELS)) for step in range(0, 81, EVERY[key])]
        for key in KEYS[: draw(st.integers(2, len(KEYS)))]
    }

    def trial(name: str) -> Curve:
        key = draw(st.sampled_from(list(whole)))
        return curve(
            whole[key][: draw(st.integers(0, len(whole[key])))],
            name,
            key=key,
            batch_size=BATCH_SIZE[key],
            eval_frequency=EVERY[key],
            max_steps=100,
        )

    peers = [trial(f"p{i}") for i in range(draw(st.integers(2, 10)))]
    return trial("t"), peers


def fresh(trial: Curve, seen: Sequence[Observation] | None = None, **changes: Any) -> Curve:
    """Return a curve that remembers nothing that was asked before."""
    kept = list(trial.seen if seen is None else seen)
    return dataclasses.replace(trial, seen=kept, _levels={}, **changes)


def later(trial: Curve) -> list[Observation]:
    """Return what a trial has seen, and more that is unlike all before."""
    return [*trial.seen, *(Observation(trial.step + 7 * i, i / 3, 1 / i, 0.5) for i in (1, 2, 3))]


@given(
    study=studies(),
    pruner=pruners,
    objectives=objective_lists,
    step=st.integers(1, 80),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_peers_does_not_matter(
    study: tuple[Curve, list[Curve]], pruner: Pruner, objectives: Objectives, step: int, order: Any
) -> None:
    trial, peers = study
    said = pruner.judge(fresh(trial), [fresh(p) for p in peers], step, objectives)
    shuffled = [fresh(p) for p in peers]
    order.shuffle(shuffled)
    assert pruner.judge(fresh(trial), shuffled, step, objectives) == said


@given(study=studies(), pruner=pruners, objectives=objective_lists, step=st.integers(1, 80))
@settings(max_examples=200, deadline=None)
def test_what_is_seen_later_does_not_matter(
    study: tuple[Curve, list[Curve]], pruner: Pruner, objectives: Objectives, step: int
) -> None:
    trial, peers = study
    if trial.step < step:
        return
    said = pruner.judge(fresh(trial), [fresh(p) for p in peers], step, objectives)
    assert pruner.judge(fresh(trial, later(trial)), peers, step, objectives) == said
    # A peer that has passed the point of comparison has no more to say either.
    grown = [
        fresh(p, later(p))
        if p.step >= max(step, step * trial.batch_size / p.batch_size)
        and p.step == max(q.step for q in peers if q.training_key == p.training_key)
        else fresh(p)
        for p in peers
    ]
    assert pruner.judge(fresh(trial), grown, step, objectives) == said


def test_before_its_first_evaluation_a_peer_is_the_untouched_model() -> None:
    # Evaluated at steps 40 and 80 alone: what it is at step 20 is the same then and later.
    peer = curve([(0, 0.25, 0, 0), (40, 0.5, 0, 0), (80, 1, 0, 0)], eval_frequency=40)
    assert peer.level(spelling, 20) == 0.25
    assert fresh(peer, peer.seen[:2]).level(spelling, 20) == 0.25
    assert peer.level(spelling, 40) == 0.5
    assert peer.level(spelling, 79) == 0.5
    assert fresh(peer, peer.seen[:1]).level(spelling, 20) is None


@given(study=studies(), pruner=pruners, objectives=objective_lists, step=st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_asking_again_gives_the_same_answer(
    study: tuple[Curve, list[Curve]], pruner: Pruner, objectives: Objectives, step: int
) -> None:
    trial, peers = study
    said = [pruner.judge(trial, peers, step, objectives) for _ in range(2)]
    assert said[0] == said[1]


flat_studies = st.lists(st.tuples(LEVELS, LEVELS), min_size=2, max_size=9)


@given(levels=flat_studies, pruner=pruners, objectives=objective_lists)
@settings(max_examples=200, deadline=None)
def test_a_peer_that_is_worse_than_all_sends_nobody_out(
    levels: list[tuple[float, float]], pruner: Pruner, objectives: Objectives
) -> None:
    """Where there are enough peers already: one more can make up the number that is asked for."""
    trial, *peers = (flat(s, t, f"t{i}") for i, (s, t) in enumerate(levels))
    if len(peers) < getattr(pruner, "min_peers", 0):
        return
    goes_on = pruner.judge(trial, peers, 50, objectives) is None
    if goes_on:
        worst = flat(0.0, 0.0, "worst")
        assert pruner.judge(trial, [*peers, worst], 50, objectives) is None


@given(levels=flat_studies, pruner=pruners, objectives=objective_lists)
@settings(max_examples=200, deadline=None)
def test_a_peer_that_is_better_than_all_saves_nobody(
    levels: list[tuple[float, float]], pruner: Pruner, objectives: Objectives
) -> None:
    trial, *peers = (flat(s, t, f"t{i}") for i, (s, t) in enumerate(levels))
    if pruner.judge(trial, peers, 50, objectives) is not None:
        best = flat(1.0, 1.0, "best")
        assert pruner.judge(trial, [*peers, best], 50, objectives) is not None


@given(levels=flat_studies, pruner=pruners, objectives=objective_lists, gain=st.integers(0, 8))
@settings(max_examples=200, deadline=None)
def test_being_better_sends_nobody_out(
    levels: list[tuple[float, float]], pruner: Pruner, objectives: Objectives, gain: int
) -> None:
    trial, *peers = (flat(s, t, f"t{i}") for i, (s, t) in enumerate(levels))
    if pruner.judge(trial, peers, 50, objectives) is None:
        spelled, transferred = (min(1.0, level + gain / 8) for level in levels[0])
        better = flat(spelled, transferred, trial.trial_id)
        assert pruner.judge(better, peers, 50, objectives) is None


@given(study=studies(), objectives=objective_lists, step=st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_what_poor_on_both_stops_is_below_the_quantile_at_equal_steps_in_both(
    study: tuple[Curve, list[Curve]], objectives: Objectives, step: int
) -> None:
    """The law, written down once more in a slower way."""
    trial, peers = study
    reason = PoorOnBoth(**{**PLAIN, "min_peers": 2}).judge(trial, peers, step, objectives)
    if reason is None:
        return
    assert 20 < step < 100
    for metric in (spelling, transfer):
        levels = {p.training_key: level_of(p, metric, step) for p in peers if p.step >= step}
        levels.pop(trial.training_key, None)
        assert len(levels) >= 2
        assert level_of(trial, metric, step) < statistics.median(levels.values()) + 1e-12


def level_of(trial: Curve, metric: Metric, step: int) -> float:
    seen = [o for o in trial.seen if 0 < o.step <= step] or trial.seen[:1]
    return math.fsum(map(metric, seen)) / len(seen)


@given(study=studies(), step=st.integers(1, 80))
@settings(max_examples=50, deadline=None)
def test_none_stops_nothing(study: tuple[Curve, list[Curve]], step: int) -> None:
    assert pruner_of(Pruning.NONE, {}).judge(*study, step, BALANCED) is None


# --- settings -----------------------------------------------------------------------------------


def test_the_default_pruner_has_the_settings_that_are_documented() -> None:
    pruner = pruner_of(Pruning.POOR_ON_BOTH, {})
    assert pruner == PoorOnBoth(warmup_share=0.1, min_peers=3, share=0.67, margin=0.005)
    assert [name for name in Pruning if pruner_of(name, {}).pauses] == ["successive_halving"]


def test_settings_are_those_that_were_given() -> None:
    given_ = {"factor": 2, "min_steps": 30}
    pruner = pruner_of(Pruning.SUCCESSIVE_HALVING, given_)
    assert list(pruner.rungs(flat(0, 0))) == [30, 60]


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            Pruning.POOR_ON_BOTH,
            {"min_peer": 2},
            "pruning_arguments.min_peer: poor_on_both has no such argument; did you mean min_peers?",
        ),
        (
            Pruning.PATIENCE,
            {"evaluation": 2},
            "pruning_arguments.evaluation: patience has no such argument; did you mean evaluations?",
        ),
        (
            Pruning.POOR_ON_BOTH,
            {"share": 1.5},
            "pruning_arguments.share: must be less than 1, got 1.5",
        ),
        (
            Pruning.MEDIAN,
            {"min_peers": 0},
            "pruning_arguments.min_peers: must be greater than or equal to 1, got 0",
        ),
        (
            Pruning.SUCCESSIVE_HALVING,
            {"factor": 1},
            "pruning_arguments.factor: must be greater than or equal to 2, got 1",
        ),
        (
            Pruning.PATIENCE,
            {"min_delta": -0.5},
            "pruning_arguments.min_delta: must be greater than or equal to 0, got -0.5",
        ),
        (
            Pruning.MEDIAN,
            {"warmup_share": -1, "factor": 3},
            "pruning_arguments.warmup_share: must be greater than or equal to 0, got -1\n"
            "pruning_arguments.factor: median has no such argument; "
            "known: min_peers, warmup_share",
        ),
    ],
)
def test_what_breaks_a_law_is_refused_in_clear_words(
    name: Pruning, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        pruner_of(name, arguments)
    assert str(caught.value) == message


@pytest.mark.parametrize("value", [True, "4", 4.0, None, [4], {}])
def test_a_number_of_peers_is_an_integer_and_nothing_like_it(value: object) -> None:
    with pytest.raises(ConfigError, match=r"pruning_arguments\.min_peers: must be an integer"):
        pruner_of(Pruning.MEDIAN, {"min_peers": value})


@pytest.mark.parametrize("name", ["warmup_share", "share"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_setting_is_infinite_or_no_number(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"pruning_arguments\.{name}: must be "):
        pruner_of(Pruning.POOR_ON_BOTH, {name: value})


@pytest.mark.parametrize("value", [True, "wide", None])
def test_a_share_is_a_number_and_no_truth_value(value: object) -> None:
    with pytest.raises(ConfigError, match=r"pruning_arguments\.warmup_share: must be a number"):
        pruner_of(Pruning.MEDIAN, {"warmup_share": value})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (Pruning.NONE, {"min_peers": 2}),
        (Pruning.PATIENCE, {"min_peers": 2}),
        (Pruning.SUCCESSIVE_HALVING, {"min_peers": 2}),
        (Pruning.SUCCESSIVE_HALVING, {"warmup_share": 0.5}),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(
    name: Pruning, arguments: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match=f"{name} has no such argument"):
        pruner_of(name, arguments)
