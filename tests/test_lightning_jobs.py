"""Studies as jobs of a cloud on loopback, through everything that goes wrong there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_driver import FAILS_AT
from cloud_support import client_env, write_settings
from lightning_server import ENDED, Cloud, serving
from tuning import files
from tuning.cloud_ledger import Ledger, Stage
from tuning.paths import ResultsRoot

HERE = Path(__file__).parent

# In every run: jobs in order, lost machines and budgets (tests/cli/test_lightning_submit.py).
pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    # Machines of the cloud have this checkout and its tests.
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with serving(tmp_path / "cloud") as cloud:
        yield cloud
        assert cloud.unknown == []
        assert cloud.telemetry == []


Driver = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def driver(cloud: Cloud, tmp_path: Path) -> Iterator[Driver]:
    """Return a function that starts a driver of the study in a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(scale: float, *more: str) -> subprocess.Popen[str]:
        arguments = [str(tmp_path / "r"), str(tmp_path / "configs"), str(scale), *more]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "cloud_driver.py"), *arguments],
            env={**os.environ, **client_env(cloud.url, tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a driver says when it has ended well."""
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-4000:]
    found: dict[str, Any] = {**json.loads(out), "said": err}
    return found


def wait(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Return what a condition is once it is true."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


def running(cloud: Cloud) -> list[str]:
    """Return the jobs that run now, by the cloud's names, the youngest first."""
    cloud.look()
    found = [job for job in list(cloud.jobs.values()) if job.state == "running"]
    return [job.name for job in sorted(found, key=lambda job: -(job.started or 0))]


SMALL = {
    "HPARAM_CANDIDATES": {
        "lora_r": [4, 8, 32],
        "learning_rate": [1e-4, FAILS_AT, 5e-4],
        "batch_size": [4, 16],
        "spelling_data_ratio": [0.5, 0.9],
        "gpu_tier": ["t4", "a100"],
    },
    "experiment": {"training_config": {"max_steps": 1000, "warmup_steps": 100}},
}


@pytest.mark.parametrize(("num_trials", "silence"), [(13, 3.0), (31, 10.0)])
def test_all_configurations_come_through_everything_that_goes_wrong(
    cloud: Cloud, driver: Driver, tmp_path: Path, num_trials: int, silence: float
) -> None:
    """One fails, one is cancelled, one preempted; a reply is lost, machines run out, silence."""
    write_settings(tmp_path / "configs", cloud, max_jobs=4, spot=True)
    cloud.lost.append(r"POST /v1/projects/[^/]+/jobs$")
    most: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(0.05):
            most.append(len(running(cloud)))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        process = driver(0.02, space_of(num_trials, tmp_path))
        wait(lambda: len(cloud.jobs) >= 3)
        preempted = wait(lambda: running(cloud))[0]
        cloud.preempt(preempted)
        wait(lambda: sum(job.state == "completed" for job in list(cloud.jobs.values())) >= 3)
        cloud.out_of_capacity.add("cpu-4")
        time.sleep(2)
        cloud.out_of_capacity.clear()
        wait(lambda: sum(job.state == "completed" for job in list(cloud.jobs.values())) >= 4)
        cancelled = wait(lambda: running(cloud))[0]
        cloud.kill(cloud._named(cancelled), "stopped")
        wait(lambda: sum(job.state == "completed" for job in list(cloud.jobs.values())) >= 6)
        cloud.is_dead = True
        time.sleep(silence)
        cloud.is_dead = False
        found = ended(process)
    finally:
        is_over.set()
        watcher.join()

    assert found["end"] == "finished"
    records = found["records"]
    assert len(records) == num_trials
    states = Counter(record["result"]["status"] for record in records)
    failed = [r for r in records if r["result"]["status"] == "failed"]
    assert sorted(r["result"]["error_type"] for r in failed) == [
        "CancelledError",
        "NotANumberError",
    ]
    assert states["completed"] == num_trials - 2
    (by_itself,) = [r for r in failed if r["result"]["error_type"] == "NotANumberError"]
    assert by_itself["parameters"] == {"learning_rate": FAILS_AT}

    # The lost reply left no second job; four at once, as asked; nothing runs on.
    assert max(most) == 4
    assert all(job.state in ENDED for job in cloud.jobs.values())
    assert cloud.running_studios == []
    names = [job.name for job in cloud.jobs.values()]
    assert not [name for name in names if name.rsplit("-", 1)[-1].isdigit()]
    # What was taken away went on from its checkpoint, as a second submission.
    ledger = Ledger.read(ResultsRoot(tmp_path / "r").cloud_task("study"))
    (lost,) = [run for run in ledger.runs.values() if run.num_lost]
    assert lost.stage is Stage.DONE
    assert [s.cloud_name for s in lost.submissions][0] == preempted
    assert "answers again" in found["said"]

    # Every cent: what the ledger knows is what the cloud asks for.
    asked = sum(job.cost(time.time()) for job in cloud.jobs.values())
    assert ledger.cost() == pytest.approx(asked, abs=1e-5)
    # One job a training.
    trainings = {r["result"]["training_key"] for r in records}
    assert len([run for run in ledger.runs.values() if run.submissions]) <= len(trainings) + 1


def space_of(num_trials: int, tmp_path: Path) -> str:
    """Return a space of so many trials: the default one, or a small one in a file."""
    if num_trials == 31:
        return "default"
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return str(path)


def test_a_killed_driver_finds_its_jobs_again(cloud: Cloud, driver: Driver, tmp_path: Path) -> None:
    write_settings(tmp_path / "configs", cloud, max_jobs=2)
    path = tmp_path / "few.yaml"
    few = {"lora_r": [4, 8], "learning_rate": [1e-4, FAILS_AT]}
    path.write_text(yaml.safe_dump({**SMALL, "HPARAM_CANDIDATES": few}))
    space = str(path)
    first = driver(0.05, space)
    wait(lambda: any(job.state == "completed" for job in list(cloud.jobs.values())))
    at_work = set(wait(lambda: running(cloud)))
    first.send_signal(signal.SIGKILL)
    first.wait()
    submitted = set(cloud.jobs)
    found = ended(driver(0.05, space))
    assert found["end"] == "finished"
    states = Counter(record["result"]["status"] for record in found["records"])
    assert states == {"completed": 4, "failed": 1}
    # What ran went on: nothing of it was submitted or trained again.
    again = [cloud.jobs[id].name for id in cloud.jobs if id not in submitted]
    assert not at_work & set(again)
    assert all(cloud._named(name).state == "completed" for name in at_work)
    assert not [name for name in again if not name.endswith("-r1")]
    assert cloud.running_jobs == []
    shared = ResultsRoot(cloud.shared / "tuning" / "results")
    for folder in shared.trainings.iterdir():
        lines = files.read_json_lines(shared.training(folder.name).attempts)
        starts = [line["step"] for line in lines if line["event"] == "start"]
        assert starts[:1] in ([0], [])
        assert len(starts) == len(set(starts))
