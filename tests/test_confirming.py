"""Laws of `tuning.confirming`, and of studies with lists and arms that a fake backend runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend_support import Remembers
from fake_backend import FakeBackend, Ledger
from simulated_training import learns
from tuning import files
from tuning.config import ExperimentConfig
from tuning.confirming import confirmation, confirming, says_winners
from tuning.errors import NotFoundError, UserError
from tuning.executor import End, Outcome, run_study
from tuning.optuna_export import export_study
from tuning.paths import ResultsRoot
from tuning.scoring import Focus
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, contenders, is_control, load_study, ranking, read_spec

BAYESIAN = {
    "strategy": "bayesian",
    "sampler_arguments": {"num_startup_trials": 2},
    "num_trials": 6,
    "HPARAM_RANGE": {"learning_rate": {"low": 1e-5, "high": 1e-1, "scale": "log"}},
}
RATES = {"HPARAM_CANDIDATES": {"learning_rate": [1e-5, 1e-4, 5e-3]}}

Make = Callable[..., StudySpec]


@pytest.fixture
def make(small_config: Callable[..., ExperimentConfig]) -> Make:
    def spec(name: str = "first", **changes: Any) -> StudySpec:
        of_spec = {k: changes.pop(k) for k in list(changes) if k in StudySpec.model_fields}
        space = SearchSpace.model_validate(
            {"replicates_of_default": 2, "pruning": "none", **changes}
        )
        # Far from the best rate, so that others win.
        base = small_config("max_steps=12", "warmup_steps=0", "learning_rate=1e-1")
        return StudySpec(name=name, space=space, base=base, **of_spec)

    return spec


@pytest.fixture
def root(fast_path: Path) -> ResultsRoot:
    return ResultsRoot(fast_path / "results")


def run(spec: StudySpec, root: ResultsRoot, **more: Any) -> Outcome:
    backend = FakeBackend(root, 2, ledger=Ledger(), **more.pop("backend", {}))
    try:
        return run_study(spec, root, backend, Remembers(), **more)
    finally:
        backend.close()


def stored(spec: StudySpec, root: ResultsRoot) -> StudySpec:
    """Return a study as its file tells it."""
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
    files.write_atomic(root.study(spec.name).spec, text)
    return read_spec(root.study(spec.name))


# --- confirming ---------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [RATES, BAYESIAN], ids=["one_at_a_time", "bayesian"])
def test_winners_are_trained_again_on_seeds_that_chose_nothing(
    make: Make, root: ResultsRoot, space: dict[str, Any]
) -> None:
    spec = make(
        **space, replicates=3, seed=5, focus=Focus.TRANSFER, step_scale=0.5, num_threads=1,
        score_weights=(0.3, 0.4), max_failures=2, deterministic=True,
    )  # fmt: skip
    records = run(spec, root).records
    first, second = (r.contender.parameters for r in ranking(spec, records)[:2])
    assert first
    made = confirming(spec, records, "again", 4, 2)
    assert stored(made, root) == made
    assert made.space.configurations == [dict(p) for p in (first, second) if p]
    fresh = range(8, 12)
    plan = made.plan()
    assert [(p.parameters, p.seed) for p in plan if not p.parameters] == [({}, s) for s in fresh]
    for winner in made.space.configurations:
        assert [p.seed for p in plan if p.parameters == winner] == list(fresh)
    assert {p.seed for p in plan}.isdisjoint(r.seed for r in records)
    kept = ("base", "focus", "step_scale", "num_threads", "score_weights", "max_failures")
    assert all(getattr(made, field) == getattr(spec, field) for field in kept)
    assert (made.confirms, made.space.pruning.value) == ("first", "none")
    # Each winner differs from its first training in the seed alone.
    asked = {p.config.model_copy(update={"training_config": None}) for p in plan if p.parameters == first}  # fmt: skip
    before = next(spec.config_of(r) for r in records if r.parameters == first)
    assert asked == {before.model_copy(update={"training_config": None})}
    assert run(made, root).end is End.FINISHED


def test_the_default_is_trained_once_however_it_ranks(make: Make, root: ResultsRoot) -> None:
    spec = make(HPARAM_CANDIDATES={"learning_rate": [1e-6]}, arms=["direct"])
    records = run(spec, root).records
    assert [r.contender.label for r in ranking(spec, records)][0] == "default"
    alone = confirming(spec, records, "again", 3, 1)
    assert [(p.parameters, p.seed) for p in alone.plan()] == [({}, 2), ({}, 3), ({}, 4)]
    assert says_winners(alone) == "the default alone"
    # More than there are: all, and no control among them.
    both = confirming(spec, records, "again", 1, 99)
    assert [p.parameters for p in both.plan()] == [{}, {"learning_rate": 1e-6}]
    assert says_winners(both) == "learning_rate=1e-06"


def test_seeds_of_trials_that_are_only_planned_are_not_fresh(make: Make, root: ResultsRoot) -> None:
    spec = make(**RATES, replicates_of_default=6)
    records = run(spec, root).records
    assert confirming(spec, records[6:7], "again", 1, 1).seed == 6
    late = dataclasses.replace(records[6], seed=40)
    assert confirming(spec, [late], "again", 1, 1).seed == 41


def test_a_confirmation_goes_on_while_the_winners_stay(make: Make, root: ResultsRoot) -> None:
    spec = make(**RATES)
    run(spec, root)
    found = confirmation(root, "first", "again", 2, 2)
    assert (found.is_begun, found.num_unfinished) == (False, 0)
    run(found.spec, root, is_to_stop=_after(3))
    begun = confirmation(root, "first", "again", 2, 2)
    assert begun.is_begun
    assert begun.spec == read_spec(root.study("again"))
    assert begun.spec.plan()[0] == found.spec.plan()[0]
    outcome = run(begun.spec, root)
    assert outcome.end is End.FINISHED
    assert [r.trial_id for r in outcome.records] == [p.trial_id for p in found.spec.plan()]


def _after(times: int) -> Callable[[], bool]:
    asked = iter(range(times))
    return lambda: next(asked, None) is None


def test_a_confirmation_of_something_else_is_left_alone(make: Make, root: ResultsRoot) -> None:
    run(make(**RATES), root)
    two = confirmation(root, "first", "again", 2, 2).spec.space.configurations
    best, second = (float(of["learning_rate"]) for of in two)
    run(confirmation(root, "first", "again", 2, 1).spec, root)
    on = "; go on with it by tuning study resume again, or choose another name with --as"
    cases: list[tuple[tuple[str, str, int, int], str]] = [
        (("first", "again", 3, 1), f"study again began with --seeds 2, got 3{on}"),
        (
            ("first", "again", 2, 2),
            f"study again confirms learning_rate={best:g}, but the first of study first now: "
            f"learning_rate={best:g}; learning_rate={second:g}{on}",
        ),
        (("first", "first", 2, 1), "study first exists and is no confirmation of first; "),
        (("again", "more", 2, 1), "study again confirms first itself; confirm that one with "),
    ]
    for arguments, law in cases:
        with pytest.raises(UserError) as caught:
            confirmation(root, *arguments)
        assert str(caught.value).startswith(law)
    # The study was removed and run anew, asked something else.
    other = confirmation(root, "first", "again", 2, 1).spec.model_copy(update={"step_scale": 0.5})
    stored(other, root)
    with pytest.raises(UserError, match="began when first had another step scale; go on with it"):
        confirmation(root, "first", "again", 2, 1)


def test_winners_in_another_order_are_the_same(make: Make, root: ResultsRoot) -> None:
    run(make(**RATES), root)
    spec = confirmation(root, "first", "again", 2, 2).spec
    turned = [*reversed(spec.space.configurations)]
    assert len(turned) == 2
    changed = spec.space.model_copy(update={"configurations": turned})
    other = stored(spec.model_copy(update={"space": changed}), root)
    assert confirmation(root, "first", "again", 2, 2).spec == other


def test_without_a_winner_there_is_nothing_to_confirm(make: Make, root: ResultsRoot) -> None:
    with pytest.raises(NotFoundError, match="study first: no such study"):
        confirmation(root, "first", "again", 3, 1)
    spec = stored(make(**RATES), root)
    with pytest.raises(UserError, match="first: no trial has completed, so there is no winner"):
        confirmation(root, "first", "again", 3, 1)
    assert spec.confirms is None


# --- lists and arms as studies ------------------------------------------------------------------


def fakes_that_favour_controls(
    config: ExperimentConfig, training_key: str, step: int
) -> Mapping[str, float]:
    """Learn as ever, but a control far more than anything else."""
    found = learns(config, training_key, step)
    if config.spelling_config.arm.value == "spelling":
        return found
    return {name: 0.99 for name in found}


@pytest.mark.parametrize(
    "space",
    [{**BAYESIAN, "pruning": "poor_on_both"}, RATES,
     {"strategy": "listed", "configurations": [{"learning_rate": 1e-3}, {"learning_rate": 1e-5}]}],
    ids=["bayesian", "one_at_a_time", "listed"],
)  # fmt: skip
@pytest.mark.parametrize("deterministic", [False, True])
def test_controls_explain_and_change_nothing_else(
    make: Make, fast_path: Path, space: dict[str, Any], deterministic: bool
) -> None:
    alone, beside = (
        make(**space, **arms, deterministic=deterministic)
        for arms in ({}, {"arms": ["direct", "spelling", "format_control"]})
    )
    one, other = ResultsRoot(fast_path / "one"), ResultsRoot(fast_path / "other")
    learning = {"backend": {"learns": fakes_that_favour_controls}}
    without = run_one_by_one(alone, one, learning)
    records = run_one_by_one(beside, other, learning)
    controls = [r for r in records if "arm" in r.parameters]
    assert [(r.parameters["arm"], r.seed) for r in controls] == [
        *(("direct", 0), ("direct", 1), ("format_control", 0), ("format_control", 1)),
    ]
    rest = [r for r in records if r not in controls]
    assert [(r.parameters, r.seed, r.result) for r in rest] == [
        (r.parameters, r.seed, r.result) for r in without
    ]
    ranked = [r.contender.parameters for r in ranking(beside, records)]
    assert ranked == [r.contender.parameters for r in ranking(alone, without)]
    assert sum(is_control(beside, c) for c in contenders(beside, records)) == 2


def run_one_by_one(spec: StudySpec, root: ResultsRoot, learning: dict[str, Any]) -> list[Any]:
    backend = FakeBackend(root, 1, ledger=Ledger(), **learning["backend"])
    try:
        outcome = run_study(spec, root, backend, Remembers())
    finally:
        backend.close()
    assert load_study(root, spec.name)[1] == outcome.records
    return outcome.records


def test_a_study_with_arms_that_is_stopped_goes_on_with_the_same_proposals(
    make: Make, fast_path: Path
) -> None:
    spec = make(**BAYESIAN, arms=["direct"], deterministic=True)
    whole = run(spec, ResultsRoot(fast_path / "whole")).records
    root = ResultsRoot(fast_path / "stopped")
    rng = random.Random(3)
    for _ in range(100):
        outcome = run(spec, root, is_to_stop=_after(rng.randrange(1, 12)))
        if outcome.end is End.FINISHED:
            break
    assert [(r.trial_id, r.result) for r in outcome.records] == [(r.trial_id, r.result) for r in whole]  # fmt: skip


def test_an_export_tells_controls_from_the_default(make: Make, root: ResultsRoot) -> None:
    space = {"strategy": "listed", "configurations": [{"lora_r": 4}, {"batch_size": 2}]}
    spec = make(**space, arms=["direct"], replicates_of_default=1)
    records = run(spec, root).records
    export_study(spec, root, records)
    assert exported(root.study("first").optuna) == [
        {"lora_r": 16, "batch_size": 4, "arm": "spelling"},
        {"lora_r": 16, "batch_size": 4, "arm": "direct"},
        {"lora_r": 4, "batch_size": 4, "arm": "spelling"},
        {"lora_r": 16, "batch_size": 2, "arm": "spelling"},
    ]


def exported(path: Path) -> list[dict[str, Any]]:
    """The parameters of each trial, as the database has them."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            "SELECT trial_id, param_name, param_value, distribution_json FROM trial_params"
        ).fetchall()
    found: dict[int, dict[str, Any]] = {}
    for trial_id, name, value, text in rows:
        choices = json.loads(text)["attributes"].get("choices")
        found.setdefault(trial_id, {})[name] = choices[int(value)] if choices else value
    return [found[trial_id] for trial_id in sorted(found)]
