"""What only holds on one machine: workers end with their owner, and output is a log."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from places import RUNNER

from tuning.backends.local import LocalBackend
from tuning.jobs import How, Job
from tuning.paths import ResultsRoot

TESTS = Path(__file__).parents[1]

OWNER = """
import sys, time
from pathlib import Path
from tuning.backends.local import LocalBackend
from tuning.jobs import Job
from tuning.paths import ResultsRoot
job = Job.model_validate_json(Path(sys.argv[2]).read_text())
root = ResultsRoot(Path(sys.argv[1]))
backend = LocalBackend(root, [{}], runner=sys.argv[3])
backend.submit(job)
while not root.training(job.training_key).checkpoints.exists():
    backend.poll(0.1)
print(backend.pids[0], flush=True)
time.sleep(3600)
"""


def a_job(small_config: Callable[..., Any], **parameters: Any) -> Job:
    config = small_config("max_steps=4000")
    return Job(study="study", trial_id="0000-00000000", config=config, parameters=parameters)


def with_tests_on_the_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(TESTS)}


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.skipif(sys.platform != "linux", reason="a stopped orphan is a matter of Linux")
def test_an_orphan_ends_by_itself(
    small_config: Callable[..., Any], tmp_path: Path, is_frozen: bool
) -> None:
    job_file = tmp_path / "job.json"
    job_file.write_text(a_job(small_config).model_dump_json())
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), str(job_file), RUNNER],
        stdout=subprocess.PIPE,
        text=True,
        env=with_tests_on_the_path(),
    )
    assert owner.stdout is not None
    orphan = psutil.Process(int(owner.stdout.readline()))
    if is_frozen:
        orphan.send_signal(signal.SIGSTOP)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 10
    while orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker outlives its owner"
        time.sleep(0.05)


def test_what_a_job_prints_is_in_the_workers_log(
    small_config: Callable[..., Any], tmp_path: Path
) -> None:
    root = ResultsRoot(tmp_path)
    backend = LocalBackend(root, [{"PYTHONPATH": str(TESTS)}], runner=RUNNER)
    backend.submit(a_job(small_config, does="chatters").model_copy(update={"until": 2}))
    ended = []
    while not ended:
        ended = backend.poll(1.0)
    backend.close()
    assert ended[0].how is How.RETURNED
    said = root.worker_log(0).read_bytes()
    assert b"no json" in said
    assert b"garbage" in said
    assert b"and on standard error" in said


def test_a_runner_that_cannot_be_imported_says_so(
    small_config: Callable[..., Any], tmp_path: Path
) -> None:
    backend = LocalBackend(ResultsRoot(tmp_path), [{}], runner="no_such_module:run")
    backend.submit(a_job(small_config))
    ended = []
    while not ended:
        ended = backend.poll(1.0)
    backend.close()
    assert ended[0].how is How.KILLED
    assert "no_such_module" in ended[0].message
    assert str(ResultsRoot(tmp_path).worker_log(0)) in ended[0].message
