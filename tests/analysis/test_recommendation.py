"""What to try next: better than chance, honest about noise, legal, and always the same."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planted_records import EXECUTION, result_of, spec_of, write_study
from tuning import files
from tuning.analysis.evidence import Learned, read_evidence
from tuning.analysis.recommendation import (
    Kind,
    Recommendation,
    Recommendations,
    config_of,
    recommend,
    write_recommendations,
)
from tuning.composition import load
from tuning.config import ExperimentConfig, save, to_yaml
from tuning.errors import NotFoundError, ResultsError
from tuning.fingerprint import weights_key
from tuning.grid import Proposal
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus, read_record, write_record
from tuning.samplers import random_points
from tuning.scoring import Focus
from tuning.study import StudySpec, load_study

MODULES = [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj", "o_proj"]]

RANDOM: dict[str, Any] = {
    "strategy": "random",
    "num_trials": 12,
    "HPARAM_RANGE": {"learning_rate": {"low": 1e-5, "high": 1e-2, "scale": "log"}},
    "HPARAM_CANDIDATES": {"lora_r": [4, 8, 16, 32], "target_modules": MODULES},
    "replicates_of_default": 2,
}

ONE_AT_A_TIME: dict[str, Any] = {
    "HPARAM_CANDIDATES": {
        "learning_rate": [1e-4, 3e-4, 3e-3],
        "lora_r": [4, 8, 32],
        "spelling_difficulty": ["easy", "hard"],
        "gpu_tier": ["t4"],
        "count_task_weight": [0.7],
    },
    "replicates_of_default": 3,
}

GRID: dict[str, Any] = {
    "strategy": "grid",
    "HPARAM_CANDIDATES": {"learning_rate": [3e-4, 1e-3, 3e-3], "lora_r": [4, 8, 32]},
    "replicates_of_default": 3,
}


def truth(config: ExperimentConfig) -> float:
    """Return a surface with its top at a learning rate of 2e-3, high in the rank."""
    rate = math.log10(config.training_config.learning_rate) + 2.7
    return 0.5 - 0.1 * rate**2 + 0.01 * math.log2(config.lora_config.r)


def noise_of(proposal: Proposal) -> float:
    return float(np.random.default_rng(int(proposal.trial_id[-8:], 16)).normal())


def surface(noise: float) -> Any:
    return lambda proposal: truth(proposal.config) + noise * noise_of(proposal)


def written(folder: Path, space: dict[str, Any], noise: float = 0.005, **given: Any) -> ResultsRoot:
    root = ResultsRoot(folder)
    write_study(root, spec_of(space, **given), surface(noise))
    return root


def config_at(spec: StudySpec, run: Recommendation) -> ExperimentConfig:
    return config_of(spec, run, 1)


# --- what is recommended ------------------------------------------------------------------------


def test_recommended_runs_are_better_than_chance(tmp_path: Path) -> None:
    better, margins = 0, []
    for seed in range(20):
        root = written(tmp_path / str(seed), RANDOM, 0.01, seed=seed)
        found = recommend(root, "planted", num=2)
        spec, _ = load_study(root, "planted")
        learned = Learned(spec)
        own = [truth(config_at(spec, run)) for run in found.recommendations]
        drawn = itertools.islice(random_points(learned.points, 1000 + seed), 40)
        chance = [truth(learned.config(learned.full(point), 0)) for point in drawn]
        margins.append(np.mean(own) - np.mean(chance))
        better += max(own) >= np.median(chance)
    assert better >= 18
    assert np.mean(margins) > 0.05


def test_what_the_model_expects_covers_the_truth(tmp_path: Path) -> None:
    covered = []
    for seed in range(8):
        root = written(tmp_path / str(seed), RANDOM, 0.01, seed=seed)
        spec, _ = load_study(root, "planted")
        for run in recommend(root, "planted", num=4).recommendations:
            assert run.expected is not None
            assert run.expected_sd is not None
            off = abs(run.expected - truth(config_at(spec, run)))
            covered.append(off <= 1.96 * run.expected_sd + 0.01)
    assert np.mean(covered) >= 0.85


def test_one_at_a_time_is_followed_by_what_was_good_together(tmp_path: Path) -> None:
    found = recommend(written(tmp_path, ONE_AT_A_TIME, 0.002), "planted")
    together = [r for r in found.recommendations if len(r.parameters) >= 2]
    assert together
    assert any(r.parameters.get("learning_rate") == 3e-3 for r in together)
    assert found.num_candidates == 4 * 4 * 3
    first = next(r for r in together if r.gain is not None and r.gain > 0.0005)
    assert "expected to give +" in first.reason
    assert first.low is not None
    assert first.high is not None
    assert first.gain is not None
    assert first.low < first.gain < first.high
    assert first.probability is not None
    assert first.probability > 0.5


def test_what_trains_nothing_stays_at_the_default(tmp_path: Path) -> None:
    found = recommend(written(tmp_path, ONE_AT_A_TIME), "planted", num=8)
    for run in found.recommendations:
        assert not {"gpu_tier", "count_task_weight"} & set(run.parameters)
    assert any("gpu_tier, count_task_weight" in note for note in found.notes)
    # The variations in them are the default again: not repeats that never vary.
    assert found.num_configurations == 1 + 3 + 3 + 2
    assert found.num_runs == 3 + 3 + 3 + 2


def test_where_seeds_decide_more_seeds_come_first(tmp_path: Path) -> None:
    first = []
    for seed in range(10):
        root = ResultsRoot(tmp_path / str(seed))
        space = {**ONE_AT_A_TIME, "replicates_of_default": 5}
        write_study(root, spec_of(space, seed=seed), lambda p: 0.5 + 0.05 * noise_of(p))
        found = recommend(root, "planted", num=4)
        half = [run.kind for run in found.recommendations[:2]]
        first.append(half == [Kind.MORE_SEEDS, Kind.MORE_SEEDS])
        is_said = any("no more than seeds alone" in note for note in found.notes)
        assert first[-1] or not is_said
    # The F test takes 1 study of 20 for more than noise.
    assert sum(first) >= 8


def test_where_everything_was_tried_only_seeds_are_left(tmp_path: Path) -> None:
    found = recommend(written(tmp_path, GRID, 0.05), "planted", num=6)
    assert {run.kind for run in found.recommendations} == {Kind.MORE_SEEDS}
    assert found.best in [run.label for run in found.recommendations]
    assert "its single run may be luck: the spread over seeds is" in found.recommendations[0].reason


def test_more_seeds_are_seeds_that_were_not_run(tmp_path: Path) -> None:
    root = written(tmp_path, GRID, 0.05)
    spec, records = load_study(root, "planted")
    run = {(files.sha256_of_json(dict(r.parameters)), r.seed) for r in records}
    for found in recommend(root, "planted", num=10).recommendations:
        pair = (files.sha256_of_json(found.parameters), found.seed)
        assert pair not in run
        run.add(pair)


def test_a_lucky_single_run_is_not_taken_at_its_word(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)

    def lucky(proposal: Proposal) -> float:
        jump = 0.05 if proposal.parameters.get("lora_r") == 4 else 0.0
        return 0.5 + jump + 0.03 * noise_of(proposal)

    write_study(root, spec_of(ONE_AT_A_TIME), lucky)
    found = recommend(root, "planted")
    expected = [r.expected for r in found.recommendations if r.expected is not None]
    assert max(expected) < 0.56


# --- what is legal ------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [RANDOM, ONE_AT_A_TIME, GRID], ids=lambda s: s.get("strategy"))
def test_every_file_is_one_that_the_study_could_have_made(
    tmp_path: Path, space: dict[str, Any]
) -> None:
    root = written(tmp_path / "results", space, step_scale=0.5)
    spec, _ = load_study(root, "planted")
    learned = Learned(spec)
    for place, run in enumerate(recommend(root, "planted", num=6).recommendations, start=1):
        config = config_of(spec, run, place)
        loaded = load(save(config, tmp_path / "configs"))
        assert loaded.experiment_name == f"planted_next_{place}"
        assert loaded.training_config.seed == run.seed
        assert loaded.training_config.num_threads == 1
        twin = learned.config(learned.setting(run.parameters), run.seed)
        assert weights_key(loaded) == weights_key(twin)
        assert loaded.training_config.max_steps == 6


def test_combinations_that_break_a_law_are_not_recommended(tmp_path: Path) -> None:
    # Each by itself is legal beside the default; together warm-up would be longer than training.
    space = {
        "HPARAM_CANDIDATES": {"max_steps": [4, 8, 20], "warmup_steps": [0, 4, 10]},
        "replicates_of_default": 2,
    }
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(space), lambda p: 0.5 + 0.01 * p.config.training_config.warmup_steps)
    found = recommend(root, "planted", num=10)
    # Of 4 x 4 combinations 10 steps of warm-up fit 12 and 20 steps, all others fit.
    assert found.num_candidates == 16 - 2
    for run in found.recommendations:
        assert run.parameters.get("warmup_steps", 2) <= run.parameters.get("max_steps", 12)


def test_conditions_hold_in_what_is_recommended(tmp_path: Path) -> None:
    space = {
        "strategy": "random",
        "num_trials": 14,
        "HPARAM_CANDIDATES": {"spelling_augmentation": [False, True], "lora_r": [4, 8, 16, 32]},
        "HPARAM_RANGE": {"lora_dropout": {"low": 0.0, "high": 0.3}},
        "conditions": {"lora_dropout": {"spelling_augmentation": True}},
        "replicates_of_default": 2,
    }
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(space), surface(0.01))
    spec, _ = load_study(root, "planted")
    learned = Learned(spec)
    for run in recommend(root, "planted", num=6).recommendations:
        setting = learned.setting(run.parameters)
        if not setting["spelling_augmentation"]:
            assert "lora_dropout" not in run.parameters
        assert not run.parameters or learned.is_legal(setting)


def test_what_failed_or_is_still_to_run_is_not_recommended(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    fails = {"learning_rate": 3e-3}
    spec = spec_of(ONE_AT_A_TIME)
    write_study(root, spec, lambda p: None if p.parameters == fails else truth(p.config), number=9)
    found = recommend(root, "planted", num=12)
    assert all(run.parameters != fails for run in found.recommendations)
    waiting = [p.parameters for p in spec.plan()][9:]
    assert all(run.parameters not in waiting for run in found.recommendations)
    assert any("Without a result yet: 4 planned trials" in note for note in found.notes)


def test_where_trials_were_stopped_early_is_no_unknown_land(tmp_path: Path) -> None:
    def rates_of(place: str, status: TrialStatus) -> tuple[list[float], list[str]]:
        root, spec = ResultsRoot(tmp_path / place), spec_of(RANDOM)
        write_study(root, spec, lambda p: truth(p.config) if rate_of(p) < 1e-3 else None)
        for path in root.data.glob("planted/trials/*/record.json"):
            record = read_record(path)
            if record.result.status is TrialStatus.FAILED:
                reason = "poor" if status is TrialStatus.PRUNED else None
                result = dataclasses.replace(record.result, status=status, reason=reason)
                write_record(
                    root.study("planted").trial(record.trial_id),
                    dataclasses.replace(record, result=result),
                )
        found = recommend(root, "planted", num=8)
        new = [r for r in found.recommendations if r.kind is Kind.NEW]
        configs = [config_at(spec, run) for run in new]
        return [c.training_config.learning_rate for c in configs], found.notes

    # By what was completed, the higher the better; what is higher still was stopped early.
    failed, _ = rates_of("failed", TrialStatus.FAILED)
    pruned, notes = rates_of("pruned", TrialStatus.PRUNED)
    assert sum(rate > 3e-3 for rate in failed) > sum(rate > 3e-3 for rate in pruned)
    assert any(n.startswith("Stopped early for being poor, and taken for no better") for n in notes)


def rate_of(proposal: Proposal) -> float:
    return proposal.config.training_config.learning_rate


def test_control_arms_say_nothing_of_the_study(tmp_path: Path) -> None:
    space = {
        "HPARAM_CANDIDATES": {"arm": ["direct"], "lora_r": [4, 8, 32], "learning_rate": [3e-3]},
        "replicates_of_default": 2,
    }
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(space), lambda p: 0.9 if "arm" in p.parameters else truth(p.config))
    found = recommend(root, "planted", num=8)
    assert found.num_configurations == 5
    assert "arm" not in found.best
    assert all("arm" not in run.parameters for run in found.recommendations)


# --- honesty ------------------------------------------------------------------------------------


def test_too_few_results_give_no_model_and_say_so(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(GRID), surface(0.01), number=3)
    found = recommend(root, "planted", num=3)
    assert found.num_configurations == 1
    assert "Too few results for a model: 1 of at least 4" in found.notes[0]
    assert found.recommendations[0].kind is Kind.MORE_SEEDS
    assert found.recommendations[0].seed == 3
    assert all(run.gain is None and run.value is None for run in found.recommendations)


def test_without_a_model_values_that_were_never_tried_are_named(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    space = {**RANDOM, "num_trials": 1}
    write_study(root, spec_of(space), surface(0.01))
    found = recommend(root, "planted", num=6)
    assert [run.kind for run in found.recommendations[:3]].count(Kind.MORE_SEEDS) <= 2
    new = [run for run in found.recommendations if run.kind is Kind.NEW]
    assert new
    assert all("has not been tried" in run.reason for run in new)
    assert all(len(run.parameters) == 1 for run in new)


def test_equal_results_give_no_model(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(GRID), lambda p: 0.5)
    found = recommend(root, "planted")
    assert any("the same result" in note for note in found.notes)
    assert found.recommendations[0].kind is Kind.MORE_SEEDS


def test_a_spread_that_nobody_measured_is_called_a_guess(tmp_path: Path) -> None:
    found = recommend(written(tmp_path, {**GRID, "replicates_of_default": 1}), "planted")
    assert not found.is_spread_known
    assert any("the spread between seeds is a guess" in note for note in found.notes)
    assert any("no evidence about Qwen3-4B" in note for note in found.notes)


def test_nothing_completed_is_one_clear_sentence(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    write_study(root, spec_of(GRID), lambda p: None)
    with pytest.raises(ResultsError, match="no trial of 12 has completed"):
        recommend(root, "planted")
    with pytest.raises(NotFoundError, match="planted"):
        recommend(root, "plantedd")


# --- another focus, the same answer, what came of it ---------------------------------------------


def test_another_focus_asks_for_something_else(tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path)
    spec = spec_of(GRID)
    write_study(root, spec, surface(0.001))
    # Spelling gains most where the score is worst.
    for proposal in spec.plan():
        folder = root.study("planted").trial(proposal.trial_id)
        result = result_of(proposal.config, truth(proposal.config))
        metrics = {**result.metrics, "spelling/gain": -truth(proposal.config)}
        record = TrialRecord(
            trial_id=proposal.trial_id,
            parameters=proposal.parameters,
            seed=proposal.seed,
            result=dataclasses.replace(result, metrics=metrics),
            execution=EXECUTION,
        )
        write_record(folder, record)
    score = recommend(root, "planted")
    spelling = recommend(root, "planted", focus=Focus.SPELLING)
    assert score.best != spelling.best
    assert spelling.focus == "spelling"


def test_the_list_is_a_pure_function_of_the_folders(tmp_path: Path) -> None:
    root = written(tmp_path, RANDOM, 0.01)
    first, second = recommend(root, "planted"), recommend(root, "planted")
    assert first == second
    path = write_recommendations(root, first)
    assert path == tmp_path / "transfer" / "planted_recommendations.json"
    assert json.loads(path.read_text()) == json.loads(json.dumps(dataclasses.asdict(second)))


def test_trials_of_recommended_files_count_in_the_next_list(tmp_path: Path) -> None:
    root = written(tmp_path, ONE_AT_A_TIME, 0.005, step_scale=0.5)
    spec, _ = load_study(root, "planted")
    before = recommend(root, "planted")
    run = before.recommendations[0]
    _leave(root, config_of(spec, run, 1), 0.61)
    after = recommend(root, "planted")
    assert after.num_runs == before.num_runs + 1
    assert "1 trial of recommended files counted too." in after.notes
    assert run.label == after.best
    again = [r.seed for r in after.recommendations if r.label == run.label]
    assert run.seed not in again


def test_a_recommended_file_that_was_edited_is_no_trial_of_the_study(tmp_path: Path) -> None:
    root = written(tmp_path, ONE_AT_A_TIME, 0.005)
    spec, records = load_study(root, "planted")
    config = config_of(spec, recommend(root, "planted").recommendations[0], 1)
    raw = config.model_dump(mode="json")
    raw["spelling_config"]["data_ratio"] = 0.5
    _leave(root, ExperimentConfig.model_validate(raw), 0.61)
    evidence = read_evidence(root, Learned(spec), records, spec.focus)
    assert evidence.num_followups == 0


def _leave(root: ResultsRoot, config: ExperimentConfig, value: float) -> None:
    """Leave what `tuning trial` leaves."""
    folder = root.study(config.experiment_name).trial("single-0123abcd")
    files.write_atomic(folder.config, to_yaml(config))
    record = TrialRecord(
        trial_id="single-0123abcd",
        parameters={},
        seed=config.training_config.seed,
        result=result_of(config, value),
        execution=EXECUTION,
    )
    write_record(folder, record)


def test_costs_are_those_of_the_trials_before(tmp_path: Path) -> None:
    found = recommend(written(tmp_path, GRID), "planted")
    # 9.6 seconds for 12 steps of 8 rows, and 1 second of evaluation.
    assert [run.seconds for run in found.recommendations] == [10.6] * 5
    assert isinstance(found, Recommendations)
