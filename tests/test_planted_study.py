"""Planted studies: real readers read them, and what was planted is in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import planted_answers
from planted_answers import CHOICE_LEAD, Answers, Population, Questions, questions
from planted_study import CONTROLS, SCORES, Effect, always, base_key, write_planted_study
from tuning import files, measures
from tuning.errors import NotFoundError
from tuning.jobs import read_progress
from tuning.measures import TaskResult
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, check_event, load_study, ranking
from tuning.tasks.lenient import read_leniently
from tuning.transfer_analysis import analyze

LEARNS = Effect(spelling=0.2, position=0.1)
ONE = {"HPARAM_CANDIDATES": {"lora_r": [16]}, "replicates_of_default": 1}
SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4, 8, 32]}, "replicates_of_default": 2}
SMALL = {"num_words": 60, "num_monitor_words": 12, "num_generated_items": 45}

Plant = Callable[..., tuple[ResultsRoot, StudySpec, list[TrialRecord]]]


@pytest.fixture
def plant(small_config: Any, fast_path: Path) -> Plant:
    """Return a function that writes a small study and reads it back."""

    def write(
        effect: Any = LEARNS,
        space: Mapping[str, Any] = SPACE,
        name: str = "planted",
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> tuple[ResultsRoot, StudySpec, list[TrialRecord]]:
        root = ResultsRoot(fast_path / name)
        spec = StudySpec(
            name="planted", space=SearchSpace.model_validate(space), base=small_config(*overrides)
        )
        effect_of = always(effect) if isinstance(effect, Effect) else effect
        write_planted_study(root, spec, effect_of, **{**SMALL, **options})
        return root, *load_study(root, "planted")

    return write


def predictions(root: ResultsRoot, record: TrialRecord) -> pd.DataFrame:
    result = record.result
    place = root.training(result.training_key).evaluation(result.evaluation_key or "")
    return pd.read_parquet(place / measures.PREDICTIONS)


def base_predictions(root: ResultsRoot, record: TrialRecord) -> pd.DataFrame:
    result = record.result
    place = root.training(result.base_key or "").evaluation(result.base_evaluation_key or "")
    return pd.read_parquet(place / measures.PREDICTIONS)


# --- files --------------------------------------------------------------------------------------


def test_real_readers_read_a_planted_study(plant: Plant) -> None:
    root, spec, records = plant(failed=[2], pruned=[3])
    assert [r.result.status for r in records] == [
        TrialStatus.COMPLETED,
        TrialStatus.COMPLETED,
        TrialStatus.FAILED,
        TrialStatus.PRUNED,
        TrialStatus.COMPLETED,
    ]
    assert spec.base.evaluation_config.num_words == SMALL["num_words"]
    events = files.read_json_lines(root.study("planted").events, check_event)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert kinds.count("proposed") == kinds.count("ended") == len(records)
    assert kinds.count("completed") == 3
    analysis = analyze(root, "planted")
    assert (analysis.num_completed, analysis.num_failed, analysis.num_pruned) == (3, 1, 1)
    assert analysis.tasks["spelling"].mix["spell/spaces"] == SMALL["num_words"]
    assert len(analysis.curves) == 3
    assert list(analysis.notes) == []


def test_progress_has_an_evaluation_at_every_evaluated_step(plant: Plant) -> None:
    root, _, records = plant(pruned=[3])
    steps = {}
    for record in records:
        lines = read_progress(root.training(record.result.training_key))
        steps[record.trial_id] = [x["step"] for x in lines if x["kind"] == "evaluation"]
        assert [x["step"] for x in lines if x["kind"] == "train"] == (
            [10, 12] if record.result.step == 12 else [8]
        )
    assert [steps[r.trial_id] for r in records] == [
        [0, 4, 8, 12],
        [0, 4, 8, 12],
        [0, 4, 8, 12],
        [0, 4, 8],
        [0, 4, 8, 12],
    ]


@pytest.mark.slow
def test_a_planted_evaluation_has_the_files_of_a_real_one(
    plant: Plant, small_config: Any, tmp_path: Path
) -> None:
    from tuning.evaluation.bench import load_bench
    from tuning.evaluation.stored import evaluate_base

    bench = load_bench(small_config())
    real = evaluate_base(bench, ResultsRoot(tmp_path))
    (real_scores,) = tmp_path.rglob(SCORES)
    root, spec, records = plant()
    planted = base_predictions(root, records[0])
    assert planted.dtypes.to_dict() == real.predictions.dtypes.to_dict()
    assert set(predictions(root, records[0])) == {*planted, "seen_tokens"}
    for path in root.root.rglob(SCORES):
        assert list(files.read_json(path)) == list(files.read_json(real_scores))
    assert root.training(base_key(spec.base)).root.is_dir()


def test_the_same_seed_writes_the_same_files(plant: Plant) -> None:
    def contents(root: ResultsRoot) -> dict[str, bytes]:
        paths = (p for p in root.root.rglob("*") if p.is_file())
        return {str(p.relative_to(root.root)): p.read_bytes() for p in paths}

    first, again, other = (
        contents(plant(name=name, seed=seed)[0]) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again
    assert first.keys() == other.keys()
    assert first != other


def test_trials_that_share_weights_share_answers(plant: Plant) -> None:
    candidates = {"gpu_tier": ["cpu", "t4"], "max_steps": [6, 12, 20]}
    space = {"HPARAM_CANDIDATES": candidates, "replicates_of_default": 1}
    root, _, records = plant(
        lambda parameters, seed: Effect(spelling=0.01 * parameters.get("max_steps", 12)), space
    )
    results = [r.result for r in records]
    assert len({r.training_key for r in results}) == 1
    by_weights: dict[str, list[Mapping[str, TaskResult]]] = {}
    for result in results:
        by_weights.setdefault(result.weights_key, []).append(result.tasks)
    assert sorted(len(tasks) for tasks in by_weights.values()) == [1, 1, 2]
    assert all(tasks[0] == tasks[-1] for tasks in by_weights.values())
    lines = read_progress(root.training(results[0].training_key))
    assert [x["step"] for x in lines if x["kind"] == "evaluation"] == [0, 4, 6, 8, 12, 16, 20]


def test_a_search_that_looks_at_results_can_be_planted(plant: Plant) -> None:
    space = {
        "strategy": "bayesian",
        "num_trials": 3,
        "replicates_of_default": 1,
        "HPARAM_RANGE": {"learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}},
    }
    _, spec, records = plant(space=space)
    assert len(records) == 4
    assert len(ranking(spec, records)) == 4


def test_answers_can_be_cleaned_away_and_trials_missing(plant: Plant) -> None:
    root, _, records = plant(with_predictions=False, missing=[1, 4])
    assert len(records) == 3
    assert not list(root.root.rglob("*.parquet"))
    assert {r.result.status for r in records} == {TrialStatus.COMPLETED}
    events = files.read_json_lines(root.study("planted").events, check_event)
    assert events[-1]["event"] == "completed"
    with pytest.raises(NotFoundError):
        load_study(root, "another")


# --- answers ------------------------------------------------------------------------------------


def test_all_runs_answer_the_same_items(plant: Plant) -> None:
    root, _, records = plant()
    base = base_predictions(root, records[0])
    for record in records:
        tuned = predictions(root, record)
        constant = ["task", "word", "template", "prompt", "gold", "n", "letter", "stratum"]
        pd.testing.assert_frame_equal(base[constant], tuned[constant])
        again = measures.task_results(base, tuned, lambda rows: 0.2)
        stored = record.result.tasks
        assert {t: r.gain for t, r in again.items()} == {t: r.gain for t, r in stored.items()}


def test_readings_of_an_item_agree_with_each_other(plant: Plant) -> None:
    root, _, records = plant(Effect(spelling=0.1, position=0.1, position_choice=0.0))
    rows = predictions(root, records[0])
    asked = rows[rows["task"] != "spelling"]
    assert (asked["choice_correct"] == (asked["choice"] == asked["gold"])).all()
    assert asked[asked["strict_correct"]]["choice_correct"].all()
    assert rows[rows["task"] == "spelling"]["choice"].isna().all()
    assert rows["text"].notna().sum() == SMALL["num_generated_items"]
    decoded = rows[rows["text"].notna()]
    for item, row in zip(measures.items_of(decoded), decoded.itertuples(), strict=True):
        read = read_leniently(item, row.text)
        assert row.outcome == read.outcome.value
        assert row.strict_correct == (row.text == row.gold)
        assert row.lenient_correct == (read.outcome.value == "correct")
        if item.task == "spelling":
            assert row.character_error_rate == read.character_error_rate
            assert row.length_error == read.length_error


def test_pseudo_words_strata_and_balanced_classes_are_there() -> None:
    frame = questions(120, 0).table.to_pandas()
    assert 0 < frame["is_pseudo_word"].mean() < 0.5
    assert set(frame["seen_tokens"]) == {"all", "some", "none"}
    assert set(frame["band"]) == {"easy", "medium", "hard"}
    count = frame[frame["task"] == "count"]
    classes = count["gold"].clip(upper="3").groupby(count["stratum"]).value_counts()
    assert classes["long"].nunique() == classes["short"].nunique() == 1
    assert set(frame.groupby("task")["template"].nunique()) == {3}


def mean_gains(effect: Effect, num_studies: int = 150) -> pd.DataFrame:
    """Return mean and standard error of gains over studies that differ in words and seeds."""
    asked, gains = questions(60, 0), []
    for seed in range(num_studies):
        population = population_of(seed)
        base = planted_answers.base_said(population, asked)
        tuned = planted_answers.tuned_said(population, asked, effect, "a", "a 0")
        gains.append(_gains(asked, base, tuned))
    found = pd.DataFrame(gains)
    return pd.DataFrame({"mean": found.mean(), "error": found.sem()})


def population_of(seed: int, rates: tuple[float, float, float] = (0.35, 0.4, 0.35)) -> Population:
    return Population(
        base_rates=rates,
        base_answers=Answers.PLANTED,
        seed_deviation=0.01,
        word_deviation=0.05,
        word_seed_deviation=0.05,
        churn=0.1,
        seed=seed,
    )


def _gains(asked: Questions, base: Any, tuned: Any) -> dict[str, float]:
    gains = {}
    for k, task in enumerate(("spelling", "position", "count")):
        at = asked.task_N == k
        gains[task] = tuned.strict_N[at].mean() - base.strict_N[at].mean()
        right = [said.chosen_N[at] == asked.gold_N[at] for said in (base, tuned)]
        gains[f"{task} by choice"] = right[1].mean() - right[0].mean()
    return gains


@pytest.mark.parametrize(
    "effect",
    [
        Effect(),
        Effect(spelling=0.3, position=0.05, count=-0.05),
        Effect(spelling=-0.1, position=0.1, position_choice=0.0, count=0.0, count_choice=0.08),
    ],
    ids=["nothing", "both readings", "one reading"],
)
def test_a_planted_effect_is_recovered_on_average(effect: Effect) -> None:
    found = mean_gains(effect)
    wanted = dict(
        zip(("spelling", "position", "count"), effect.strict_K, strict=True),
        **{f"{t} by choice": effect.choice_K[k] for k, t in ((1, "position"), (2, "count"))},
    )
    for name, gain in wanted.items():
        row = found.loc[name]
        assert abs(row["mean"] - gain) < 3.5 * row["error"], name
        assert row["error"] < 0.01


def test_the_untouched_model_scores_what_was_asked() -> None:
    asked = questions(60, 0)
    rates = []
    for seed in range(100):
        said = planted_answers.base_said(population_of(seed, (0.5, 0.4, 0.9)), asked)
        right = said.chosen_N == asked.gold_N
        rates.append(
            [said.strict_N[asked.task_N == k].mean() for k in range(3)]
            + [right[asked.task_N == k].mean() for k in (1, 2)]
        )
    wanted = [0.5, 0.4, 0.9, 0.4 + CHOICE_LEAD, 0.95]
    errors = np.std(rates, axis=0) / 10
    assert (np.abs(np.mean(rates, axis=0) - wanted) < 3.5 * errors).all()


def test_words_are_able_in_all_tasks_and_readings() -> None:
    asked, means = questions(200, 0), []
    for seed in range(20):
        said = planted_answers.base_said(population_of(seed), asked)
        frame = pd.DataFrame({"word": asked.word_N, "task": asked.task_N, "right": said.strict_N})
        means.append(frame.groupby(["word", "task"])["right"].mean().unstack())
    correlation = pd.concat(means).corr().to_numpy()
    assert (correlation > 0.15).all()


def test_quick_results_differ_from_real_ones_in_intervals_alone(plant: Plant) -> None:
    effect = Effect(spelling=0.2, position=0.1, count=-0.1)
    exact, quick = (
        plant(
            effect,
            name=name,
            exact_intervals=is_exact,
            num_words=150,
            num_generated_items=900,
        )[2]
        for name, is_exact in (("exact", True), ("quick", False))
    )
    for a, b in zip(exact, quick, strict=True):
        assert a.result.metrics == pytest.approx(b.result.metrics)
        for task, result in a.result.tasks.items():
            _same(dataclasses.asdict(result), dataclasses.asdict(b.result.tasks[task]), task)


def _same(exact: Any, quick: Any, place: str) -> None:
    if isinstance(exact, Mapping):
        assert list(exact) == list(quick), place
        for key, value in exact.items():
            _same(value, quick[key], f"{place}.{key}")
    elif place.endswith((".low", ".high")):
        assert quick == pytest.approx(exact, abs=0.025), place
    else:
        assert quick == (pytest.approx(exact) if isinstance(exact, float) else exact), place


# --- curves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["rise", "rise_then_decay", "fall", "flat"])
def test_curves_have_the_shape_that_was_planted(plant: Plant, curve: str) -> None:
    end = {"rise": 0.2, "rise_then_decay": 0.05, "fall": -0.2, "flat": 0.0}[curve]
    effect = Effect(spelling=0.3, position=end, count=end, curve=curve, peak=0.2)
    long = ["training_config.max_steps=40"]
    root, _, (record,) = plant(effect, ONE, overrides=long, num_monitor_words=300, seed=3)
    lines = [
        x
        for x in read_progress(root.training(record.result.training_key))
        if x["kind"] == "evaluation"
    ]
    curve_of = np.array([x["transfer/position/accuracy"] for x in lines])
    gains = curve_of - curve_of[0]
    assert gains[-1] == pytest.approx(end, abs=0.06)
    peak = {"rise": 0.2, "rise_then_decay": 0.25, "fall": 0.0, "flat": 0.0}[curve]
    assert gains.max() == pytest.approx(peak, abs=0.06)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"curve": "up"}, "'up' is not a valid"),
        ({"curve": "fall", "count": 0.1}, r"cannot end at \+0.1"),
        ({"curve": "flat", "count": 0.1}, "ends at 0"),
    ],
)
def test_effects_that_contradict_themselves_are_refused(wrong: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Effect(**wrong)


def test_an_effect_without_room_is_refused(plant: Plant) -> None:
    with pytest.raises(ValueError, match="position: the effect takes 0.5 of the items from"):
        plant(Effect(position=0.5))
    with pytest.raises(ValueError, match="knows in another format"):
        plant(Effect(position=0.3, position_choice=0.0))


# --- controls -----------------------------------------------------------------------------------


@pytest.fixture
def control(plant: Plant) -> Callable[[str], tuple[ResultsRoot, TrialRecord]]:
    def write(name: str) -> tuple[ResultsRoot, TrialRecord]:
        wanted = CONTROLS[name]
        root, _, records = plant(
            wanted.effect,
            ONE,
            base_rates=wanted.base_rates,
            base_answers=wanted.base_answers,
            num_words=300,
        )
        return root, records[0]

    return write


def test_the_word_blind_model_never_looks_at_the_word(control: Any) -> None:
    root, record = control("word_blind")
    rows = predictions(root, record)
    assert (rows[rows["task"] == "position"].groupby("n")["choice"].nunique() == 1).all()
    assert set(rows[rows["task"] == "count"]["choice"]) == {"1"}
    for task in ("position", "count"):
        result = record.result.tasks[task]
        assert result.gain.value == 0
        assert result.tuned.value <= result.baseline + 1e-9
    assert record.result.tasks["count"].tuned.value == pytest.approx(
        record.result.tasks["count"].baseline
    )
    assert record.result.tasks["spelling"].gain.low > 0.2


def test_the_oracle_is_always_right(control: Any) -> None:
    _, record = control("oracle")
    for result in record.result.tasks.values():
        assert result.tuned.value == 1
        assert result.lenient_tuned.value == 1
        assert result.choice_tuned is None or result.choice_tuned.value == 1


def test_the_speller_only_spells(control: Any) -> None:
    tasks = control("speller")[1].result.tasks
    assert tasks["spelling"].gain.low > 0.2
    assert tasks["position"].gain.low <= 0 <= tasks["position"].gain.high
    assert tasks["count"].gain.low <= 0 <= tasks["count"].gain.high


def test_at_the_ceiling_there_is_nothing_to_gain(control: Any) -> None:
    spelling = control("ceiling")[1].result.tasks["spelling"]
    assert spelling.base.value > 0.96
    assert spelling.gain.low <= 0 <= spelling.gain.high
    assert abs(spelling.gain.value) < 0.02


def test_a_gain_in_format_leaves_the_choice(control: Any) -> None:
    tasks = control("format_only")[1].result.tasks
    for task in ("position", "count"):
        assert tasks[task].gain.low > 0
        assert tasks[task].choice_gain.low <= 0 <= tasks[task].choice_gain.high
