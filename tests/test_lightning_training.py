"""Jobs of the cloud that really train: they give what this computer gives, and go on from each other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_support import client_env, write_settings
from lightning_server import serving
from tests_support import small_mapping
from tuning import files
from tuning.config import build, save
from tuning.fingerprint import training_key
from tuning.jobs import write_wish
from tuning.paths import ResultsRoot
from tuning.records import read_record
from tuning.trial import TrialRequest, run_trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent


def wait(condition: Callable[[], Any], seconds: float = 120) -> Any:
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "nothing happened"
        time.sleep(0.02)
    return found


@pytest.mark.nightly
def test_a_job_goes_on_from_the_checkpoint_of_another_and_gives_the_local_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Job A is taken away; job B, of another computer, goes on from what A left on the drive."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = build(
        {
            **small_mapping(),
            "training_config": {"max_steps": 60, "warmup_steps": 2, "num_threads": 1},
            "transfer_config": {"eval_frequency": 10},
        },
        "test",
    )
    file = save(config, tmp_path)
    key = training_key(config)
    with serving(tmp_path / "cloud") as cloud:
        write_settings(tmp_path / "configs", cloud)

        def driver(results: str) -> subprocess.Popen[bytes]:
            command = ["lightning", "submit", "single", "--name", "one", "--config", str(file)]
            folders = ["--results-dir", str(tmp_path / results), "--config-dir"]
            return subprocess.Popen(
                [sys.executable, "-m", "tuning", *command, *folders, str(tmp_path / "configs")],
                env={**os.environ, **client_env(cloud.url, tmp_path)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )

        shared = ResultsRoot(cloud.shared / "tuning" / "results").training(key)
        first = driver("here")
        step = wait(lambda: max(files.steps_of(shared.checkpoints), default=0))
        first.kill()
        first.communicate()
        (job_a,) = cloud.jobs.values()
        cloud.preempt(job_a.name)
        assert step < 60

        # Other drivers have been here before: an attempt that comes after all of them may write.
        write_wish(shared, 7, stop=False)
        second = driver("there")
        _, said = second.communicate(timeout=120)
        assert second.returncode == 0, said.decode()[-3000:]
        job_a, job_b = cloud.jobs.values()
        assert job_a.state == "failed"
        assert job_b.state == "completed"
        lines = files.read_json_lines(shared.attempts)
        begun = [line["step"] for line in lines if line["event"] == "start"]
        assert begun[0] == 0
        assert begun[1] >= step
        assert cloud.running_studios == cloud.running_jobs == cloud.unknown == []

    there = ResultsRoot(tmp_path / "there").study("one")
    (trial,) = there.trials.iterdir()
    in_cloud = read_record(there.trial(trial.name).record)
    local = ResultsRoot(tmp_path / "local")
    request = TrialRequest(
        config=config, folder=local.study("one").trial(trial.name), trial_id=trial.name
    )
    assert in_cloud.result == run_trial(request, local).result
    # What it wrote is here too: adapter, answers, progress.
    fetched = ResultsRoot(tmp_path / "there").training(key)
    own = local.training(key)
    for name in ("adapters/step_60/adapter_model.safetensors", "progress.jsonl"):
        assert (fetched.root / name).read_bytes() == (own.root / name).read_bytes()
