"""What a tracker is told of a study: a pure function of its folders, each step once."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from planted_study import Effect, always, write_planted_study
from tuning.jobs import read_progress
from tuning.paths import ResultsRoot
from tuning.records import TrialStatus
from tuning.scoring import METRIC_PREFIX, TRANSFER_SCORE
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.tracked_runs import STEP, JobType, TrackedRun, runs_of

SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4], "max_steps": [8, 24]}, "replicates_of_default": 2}


def planted(root: ResultsRoot, base: Any, name: str = "one", **given: Any) -> StudySpec:
    spec = StudySpec(name=name, space=SearchSpace.model_validate(SPACE), base=base)
    return write_planted_study(
        root,
        spec,
        always(Effect(spelling=0.2)),
        num_words=60,
        num_monitor_words=9,
        num_generated_items=30,
        exact_intervals=False,
        **given,
    )


@pytest.fixture
def root(small_config: Any, fast_path: Path) -> ResultsRoot:
    """Return a root with a study of five trials, of which one failed and one was stopped."""
    found = ResultsRoot(fast_path)
    planted(found, small_config(), failed=[1], pruned=[2])
    return found


def test_a_run_for_each_record_and_one_for_the_untouched_model(root: ResultsRoot) -> None:
    runs = list(runs_of(root, "one"))
    _, records = load_study(root, "one")
    assert [run.job_type for run in runs] == [JobType.BASE, *[JobType.TRIAL] * len(records)]
    assert {run.group for run in runs} == {"one"}
    assert len({run.run_id for run in runs}) == len(runs)
    for run in runs:
        assert re.fullmatch(r"[a-z0-9-]{1,64}", run.run_id)
        assert all(len(tag) <= 64 for tag in run.tags)


def test_the_same_folders_give_the_same_runs(root: ResultsRoot) -> None:
    assert list(runs_of(root, "one")) == list(runs_of(root, "one"))


def test_what_a_trial_measured_is_what_its_run_says(root: ResultsRoot) -> None:
    _, records = load_study(root, "one")
    for record, run in zip(records, list(runs_of(root, "one"))[1:], strict=True):
        assert run.config["trial"]["id"] == record.trial_id
        assert run.config["keys"]["weights"] == record.result.weights_key
        assert run.summary["state"] == record.result.status.value
        assert run.is_failure == (record.result.status is TrialStatus.FAILED)
        assert run.summary.get(TRANSFER_SCORE) == record.result.metrics.get(TRANSFER_SCORE)
        for task, prefix in METRIC_PREFIX.items():
            said = run.summary.get(f"final/{task.value}_accuracy")
            assert said == record.result.metrics.get(f"{prefix}/accuracy")
    failed, stopped = list(runs_of(root, "one"))[2:4]
    assert failed.summary["why"]
    assert stopped.summary["why"]


def test_each_step_is_one_row_up_to_the_trials_own_end(root: ResultsRoot) -> None:
    _, records = load_study(root, "one")
    families = (*(f"{prefix}/" for prefix in METRIC_PREFIX.values()), STEP, TRANSFER_SCORE)
    for record, run in zip(records, list(runs_of(root, "one"))[1:], strict=True):
        steps = [row[STEP] for row in run.rows]
        assert steps == sorted(set(steps))
        assert all(step <= record.result.step for step in steps)
        lines = read_progress(root.training(record.result.training_key))
        for line in lines:
            for name, value in line.items():
                if line["kind"] == "evaluation" and "/" in name and line["step"] in steps:
                    assert run.rows[steps.index(line["step"])][name] == value
        assert all(name.startswith(families) for row in run.rows for name in row)


def test_every_run_shows_the_same_questions(root: ResultsRoot) -> None:
    shown = [run.tables["answers"] for run in runs_of(root, "one") if run.tables]
    asked = [[(a["task"], a["word"], a["template"]) for a in answers] for answers in shown]
    assert len(asked) == 3
    assert asked[0] == asked[1] == asked[2]
    assert len(asked[0]) == 3 * 40
    json.dumps(shown, allow_nan=False)


def test_nothing_of_the_machine_is_told(root: ResultsRoot) -> None:
    for run in runs_of(root, "one"):
        told = dataclasses.asdict(dataclasses.replace(run, artifacts=()))
        text = json.dumps(told)
        assert str(root.root.absolute()) not in text
        assert f'"{socket.gethostname()}"' not in text


def test_a_study_made_anew_under_its_name_has_other_runs(
    root: ResultsRoot, small_config: Any, tmp_path: Path
) -> None:
    base = small_config()
    later = base.model_copy(update={"timestamp": "20990101_000000"})
    planted(ResultsRoot(tmp_path), later)
    ids = [{run.run_id for run in runs_of(r, "one")} for r in (root, ResultsRoot(tmp_path))]
    assert not ids[0] & ids[1]


def test_a_long_name_makes_no_long_id(small_config: Any, tmp_path: Path) -> None:
    name = "A.very_long-name" * 8
    planted(ResultsRoot(tmp_path), small_config(), name)
    for run in runs_of(ResultsRoot(tmp_path), name):
        assert re.fullmatch(r"[a-z0-9-]{1,64}", run.run_id)


def test_an_attempt_that_was_made_again_is_another_run(root: ResultsRoot) -> None:
    def failed() -> TrackedRun:
        return list(runs_of(root, "one"))[2]

    before = failed()
    _, records = load_study(root, "one")
    path = root.study("one").trial(records[1].trial_id).record
    raw = json.loads(path.read_text())
    raw["execution"]["started_at"] = "2031-01-01T00:00:00+00:00"
    path.write_text(json.dumps(raw))
    assert failed().run_id != before.run_id
