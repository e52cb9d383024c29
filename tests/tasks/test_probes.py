"""A task is added as the guide says, to a copy of the sources, and is measured like the others."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tuning.tasks.items import (
    EVALUATED_TASKS,
    SCORED_TASKS,
    AnswerKind,
    Task,
    answer_kind,
    tasks_in,
)
from tuning.tasks.probes import PROBES

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "transfer_learning.md"
QUICK = [
    *("study", "run", "--space", "quick", "--step-scale", "0.003", "--replicates", "1"),
    *("evaluation_config.num_words=12", "evaluation_config.num_monitor_words=3"),
    *("evaluation_config.num_generated_items=3", "--quiet"),
]


def test_every_evaluated_task_is_scored_or_a_probe() -> None:
    assert EVALUATED_TASKS == (*SCORED_TASKS, *(probe.task for probe in PROBES))


def test_results_older_than_a_probe_have_the_tasks_that_they_have() -> None:
    assert tasks_in({"count", "spelling", "gone", "replay"}) == [Task.SPELLING, Task.COUNT]


@pytest.fixture(scope="module")
def patch() -> str:
    (block,) = re.findall(
        r"^```diff\n(.*?)^```", GUIDE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    return block


def test_a_task_touches_at_most_three_files(patch: str) -> None:
    assert len(re.findall(r"^\+\+\+ b/(.+)$", patch, re.MULTILINE)) <= 3


@pytest.fixture(scope="module")
def copy(patch: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with our sources, changed as the guide says."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("src", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "task.diff").write_text(patch, "utf-8")
    # Within a repository, `git apply` would leave out what lies outside of it without a word.
    apart = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", "task.diff"], cwd=folder, env=apart, check=True)
    return folder


def tuning(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tuning", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_new_task_is_shown_asked_and_guessed(copy: Path) -> None:
    asked = json.loads(tuning(copy, "evaluate", "--num-words", "12", "--json"))
    found = asked["tasks"]["last_letter"]
    assert found["base"]["num_words"] == 12
    assert found["choice_base"] is not None
    assert 0 < found["baseline"] < 1
    shown = tuning(copy, "tasks", "preview", "-n", "1", "--json")
    (item,) = (x for x in map(json.loads, shown.splitlines()) if x["task"] == "last_letter")
    assert item["answer"] == item["word"][-1]


@pytest.mark.slow
def test_a_wording_that_the_model_has_no_tokens_for_is_marked(copy: Path) -> None:
    path = copy / "src/tuning/tasks/last_letter.py"
    before = path.read_text("utf-8")
    try:
        path.write_text(before.replace("What is the last letter", "Quickly, which final glyph"))
        assert path.read_text("utf-8") != before
        shown = tuning(copy, "tasks", "preview", "-n", "1", "--json")
        by_task = {x["task"]: x["lacks"] for x in map(json.loads, shown.splitlines())}
        assert " glyph" in "".join(by_task["last_letter"])
        assert by_task["count"] == []
        text = tuning(copy, "tasks", "preview", "-n", "1")
        assert text.count("cannot be asked: the model has no token for") == 1
    finally:
        path.write_text(before)


@pytest.mark.nightly
def test_the_new_task_is_trained_around_and_reported_but_not_scored(copy: Path) -> None:
    tuning(copy, *QUICK, "--name", "probed")
    record = first_record(copy, "probed")
    found = record["tasks"]["last_letter"]
    assert 0 < found["baseline"] < 1
    assert found["gain"]["low"] <= found["gain"]["value"] <= found["gain"]["high"]
    assert found["choice_gain"] is not None
    assert record["metrics"]["transfer/last_letter/accuracy"] == found["tuned"]["value"]

    page = (copy / "results/tuning/reports/probed.html").read_text("utf-8")
    assert "Last letter gain" in page
    lines = (copy / "results/tuning/data/trainings").glob("*/progress.jsonl")
    assert all('"transfer/last_letter/accuracy"' in path.read_text("utf-8") for path in lines)

    # Without the probe the study's results are readable, and the same in all that is scored.
    (copy / "src" / "tuning" / "tasks" / "last_letter.py").unlink()
    for name in ("items.py", "probes.py"):
        shutil.copy(ROOT / "src/tuning/tasks" / name, copy / "src/tuning/tasks" / name)
    tuning(copy, "report", "probed")
    assert "Last letter" not in (copy / "results/tuning/reports/probed.html").read_text("utf-8")
    tuning(copy, *QUICK, "--name", "plain")
    plain = first_record(copy, "plain")
    assert plain["metrics"] == {
        k: v for k, v in record["metrics"].items() if "last_letter" not in k
    }


def first_record(folder: Path, study: str) -> dict[str, Any]:
    trials = sorted((folder / "results/tuning/data" / study / "trials").glob("*/record.json"))
    result: dict[str, Any] = json.loads(trials[0].read_text("utf-8"))["result"]
    return result


def test_what_answers_a_task_is_known_of_ours_and_any_text_else() -> None:
    kinds = {task.value: answer_kind(task) for task in Task}
    assert kinds == {
        "spelling": AnswerKind.SPELLED,
        "position": AnswerKind.LETTER,
        "count": AnswerKind.NUMBER,
        "replay": AnswerKind.TEXT,
    }
    assert answer_kind("orth") is AnswerKind.TEXT
