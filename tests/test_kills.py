"""SIGKILL and Ctrl-C to a study's processes: nothing lost, nothing twice, equal bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

from kills import SPACE, STUDY, count_twice, measure, outcome, start, workers_of

from tuning import files
from tuning.cli.main import app
from tuning.paths import ResultsRoot
from tuning.study import load_study

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


# In every run: a driver killed (below), a job killed (tests/backends/test_contract.py), and a trial killed
# three times (tests/training/test_exactness.py). Five kills of a whole study take two minutes.
@pytest.mark.nightly
def test_five_kills_lose_nothing(tmp_path: Path) -> None:
    tally = measure(tmp_path, num_kills=5, seed=5, workers=1)
    assert tally.num_kills == 5
    assert (tally.lost, tally.twice, tally.different) == (0, 0, 0)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    tally = measure(tmp_path, num_kills=100, seed=0, workers=2)
    assert tally.num_kills == 100
    assert (tally.lost, tally.twice, tally.different) == (0, 0, 0)


FEW_WORDS = {"num_words": 15, "num_monitor_words": 6, "num_generated_items": 6}
SMALL_SPACE = {
    **SPACE,
    "replicates_of_default": 1,
    "experiment": {**SPACE["experiment"], "evaluation_config": FEW_WORDS},
    "HPARAM_CANDIDATES": {"lora_r": [4]},
}
"""Two trials."""


@pytest.fixture
def space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SMALL_SPACE))
    return path


GoesOn = Callable[..., None]


@pytest.fixture
def go_on(space: Path, warm_studies: None) -> GoesOn:
    """Return a function that runs the study to its end, in this process and a warm worker."""

    def run(root: ResultsRoot, name: str = STUDY) -> None:
        arguments = ["study", "run", "--space", str(space), "--name", name, "--quiet"]
        arguments += ["--workers", "1", "--threads", "1", "--results-dir", str(root.root)]
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output

    return run


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_driver_is_refused_and_takes_over_from_a_killed_one(
    tmp_path: Path, space: Path, go_on: GoesOn
) -> None:
    root = ResultsRoot(tmp_path / "results")
    first = start(space, root.root, workers=1)
    wait_for(root.study(STUDY).events, first)
    second = start(space, root.root, workers=1)
    assert second.stderr is not None
    said = second.stderr.read().decode().strip().splitlines()
    assert second.wait() == 2
    assert len(said) == 1
    assert "another process is working on study kills" in said[0]

    # Its worker is stopped, so that it cannot even notice that its driver is gone.
    deadline = time.monotonic() + 60
    while not list(root.trainings.glob("*/checkpoints/step_*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    orphans = workers_of(first)
    assert len(orphans) == 1
    if sys.platform == "linux":
        orphans[0].send_signal(signal.SIGSTOP)
    first.send_signal(signal.SIGKILL)
    first.wait()
    go_on(root)
    gone = psutil.wait_procs(orphans, timeout=10)[0]
    assert gone == orphans
    assert count_twice(root) == 0

    undisturbed = ResultsRoot(tmp_path / "undisturbed")
    go_on(undisturbed)
    assert outcome(root) == outcome(undisturbed)


def test_two_studies_at_once_make_what_they_share_once(
    tmp_path: Path, space: Path, go_on: GoesOn
) -> None:
    root = ResultsRoot(tmp_path / "results")
    first = start(space, root.root, workers=1)
    wait_for(root.study(STUDY).events, first)
    go_on(root, "second")
    assert first.wait(timeout=120) == 0
    assert count_twice(root) == 0
    for training in root.trainings.glob("*/attempts.jsonl"):
        events = [line["event"] for line in files.read_json_lines(training)]
        assert events in ([], ["start", "end"]), training
    results = [[record.result for record in load_study(root, s)[1]] for s in (STUDY, "second")]
    assert results[0] == results[1]
    assert [result.status.value for result in results[0]] == ["completed"] * 2


@pytest.mark.usefixtures("warm_studies")
@pytest.mark.nightly
def test_the_first_interrupt_finishes_the_step_and_the_study_is_resumed_there(
    tmp_path: Path, space: Path
) -> None:
    root = ResultsRoot(tmp_path / "results")
    driver = start(space, root.root, workers=1)
    deadline = time.monotonic() + 120
    while not list(root.trainings.glob("*/progress.jsonl")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.send_signal(signal.SIGINT)
    assert driver.wait(timeout=60) == 130
    assert driver.stderr is not None
    said = driver.stderr.read().decode()
    assert "go on with: tuning study resume kills" in said
    assert "Traceback" not in said
    last = files.read_json_lines(root.study(STUDY).events)[-1]
    assert last["event"] == "stopped"
    steps = [step for t in root.trainings.glob("*") for step in files.steps_of(t / "checkpoints")]
    assert len(steps) == 1

    arguments = ["study", "resume", STUDY, "--quiet", "--results-dir", str(root.root)]
    resumed = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert resumed.exit_code == 0, resumed.output
    starts = [
        line["step"]
        for path in root.trainings.glob("*/attempts.jsonl")
        for line in files.read_json_lines(path)
        if line["event"] == "start"
    ]
    assert steps[0] in starts
