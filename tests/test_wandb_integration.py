"""Weights & Biases by its real client: offline files read back, and a server on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from planted_study import Effect, always, write_planted_study
from tuning.errors import ResultsError
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.tracked_runs import STEP, TrackedRun, runs_of
from tuning.wandb_integration import PROJECT, OfflineRun, read_offline_run
from wandb_server import KEY, Server, loopback

SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4]}, "replicates_of_default": 2}
NIGHTLY = pytest.mark.nightly
SECRET = "hunter2-of-the-environment"


@pytest.fixture
def root(small_config: Any, fast_path: Path) -> ResultsRoot:
    """Return a root with the study one: three trials, one of which failed, with their adapters."""
    found = ResultsRoot(fast_path)
    write_planted_study(
        found,
        StudySpec(name="one", space=SearchSpace.model_validate(SPACE), base=small_config()),
        always(Effect(spelling=0.2)),
        num_words=60,
        num_monitor_words=9,
        num_generated_items=30,
        exact_intervals=False,
        failed=[1],
    )
    for record in load_study(found, "one")[1]:
        adapter = found.training(record.result.training_key).adapter(record.result.step)
        adapter.mkdir(parents=True, exist_ok=True)
        (adapter / "adapter_config.json").write_text("{}")
        (adapter / "adapter_model.safetensors").write_bytes(bytes(1000))
    return found


@pytest.fixture
def server() -> Iterator[Server]:
    with loopback() as found:
        yield found


def environment(url: str) -> dict[str, str]:
    own = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    return {**own, "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "A_SECRET": SECRET}


def command(root: ResultsRoot, *options: str) -> list[str]:
    where = ("--results-dir", str(root.root))
    return [sys.executable, "-m", "tuning", "wandb", "sync", "one", "--json", *where, *options]


def sync(root: ResultsRoot, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *options),
        env=environment(url),
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
    )


def offline_runs(root: ResultsRoot) -> dict[str, OfflineRun]:
    paths = root.wandb.glob("offline-run-*/*.wandb")
    return {found.run_id: found for found in map(read_offline_run, paths)}


def assert_whole(run: TrackedRun, rows: list[dict[str, Any]]) -> None:
    """Every row of a run is there once, in order, with every value."""
    assert [row["_step"] for row in rows] == list(range(len(run.rows)))
    for told, found in zip(run.rows, rows, strict=True):
        assert {k: v for k, v in found.items() if not k.startswith("_")} == told


def assert_all_sent(root: ResultsRoot, server: Server) -> None:
    runs = list(runs_of(root, "one"))
    assert set(server.runs) == {run.run_id for run in runs}
    for run in runs:
        found = server.runs[run.run_id]
        assert_whole(run, found.rows)
        assert found.is_complete
        assert found.exit_code == int(run.is_failure)
        for name, value in run.summary.items():
            assert found.summary[name] == value


def test_offline_runs_hold_everything_and_ask_nobody(root: ResultsRoot, server: Server) -> None:
    done = sync(root, server.url, "--offline")
    assert done.returncode == 0, done.stderr
    assert server.requests == []
    found = offline_runs(root)
    runs = list(runs_of(root, "one"))
    assert set(found) == {run.run_id for run in runs}
    for run in runs:
        offline = found[run.run_id]
        assert_whole(run, offline.rows)
        assert offline.project == PROJECT
        assert (offline.name, offline.group) == (run.name, run.group)
        assert offline.job_type == run.job_type.value
        assert offline.tags == list(run.tags)
        assert {k: v for k, v in offline.config.items() if k != "_wandb"} == run.config
        assert {name: offline.summary[name] for name in run.summary} == run.summary
        assert offline.step_metrics == {
            STEP: "",
            "spelling/*": STEP,
            "transfer/position/*": STEP,
            "transfer/count/*": STEP,
        }
        names = {f"{kind}-{run.run_id}" for kind in run.artifacts}
        assert names <= set(offline.artifacts)
        assert offline.exit_code == int(run.is_failure)


def test_wandb_itself_reads_the_same(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url, "--offline").returncode == 0
    run = list(runs_of(root, "one"))[1]
    (folder,) = root.wandb.glob(f"offline-run-*-{run.run_id}")
    inspect = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(inspect, env=environment(server.url), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    text = json.dumps(records)
    assert text.count('"spelling/train_loss"') >= sum("spelling/train_loss" in r for r in run.rows)
    assert run.run_id in text


def test_a_second_call_writes_nothing(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url, "--offline").returncode == 0
    before = {p: p.read_bytes() for p in root.wandb.glob("offline-run-*/*.wandb")}
    again = json.loads(sync(root, server.url, "--offline").stdout)
    assert again["studies"]["one"]["new"] == 0
    assert {p: p.read_bytes() for p in root.wandb.glob("offline-run-*/*.wandb")} == before


def test_no_secret_and_nothing_of_the_machine_is_written(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url).returncode == 0
    written = [p.read_bytes() for p in root.wandb.rglob("*") if p.is_file()]
    for secret in (SECRET, KEY):
        assert not any(secret.encode() in content for content in written)
        assert not any(secret.encode() in body for body in server.bodies)


def test_every_run_arrives_once_and_a_second_call_sends_nothing(
    root: ResultsRoot, server: Server
) -> None:
    done = sync(root, server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.unknown == []
    assert_all_sent(root, server)
    assert {a["state"] for a in server.artifacts.values()} == {"COMMITTED"}
    assert any(name.endswith("adapter_config.json") for name in server.uploads)
    before = len(server.requests)
    assert sync(root, server.url).returncode == 0
    assert len(server.requests) == before


@NIGHTLY
def test_studies_that_were_sent_offline_first(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url, "--offline").returncode == 0
    assert sync(root, server.url).returncode == 0
    assert_all_sent(root, server)


@pytest.mark.parametrize(
    "status", [400, pytest.param(429, marks=NIGHTLY), pytest.param(500, marks=NIGHTLY)]
)
def test_what_was_cut_off_is_completed_and_nothing_sent_twice(
    root: ResultsRoot, server: Server, status: int
) -> None:
    streams = Counter[str]()

    def refuse(what: str) -> int | None:
        if "file_stream" in what:
            streams[what] += 1
        return status if streams[what] > 1 else None

    server.status = refuse
    done = sync(root, server.url, "--seconds", "8")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["studies"]["one"]["problems"]
    server.status = lambda what: None
    done = sync(root, server.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_sent(root, server)


def test_a_kill_in_the_middle_loses_and_repeats_nothing(root: ResultsRoot, server: Server) -> None:
    server.seconds = 0.3
    process = subprocess.Popen(
        command(root), env=environment(server.url), stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 60
    while not any("file_stream" in path for _, path in server.requests):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.seconds = 0.0
    # Whom the killed one left behind may still be sending; until it is done the next one waits.
    for _ in range(10):
        done = sync(root, server.url)
        if done.returncode == 0:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_sent(root, server)


@pytest.mark.parametrize(
    "where", ["401", *(pytest.param(w, marks=NIGHTLY) for w in ("nobody", "500"))]
)
def test_without_a_server_the_runs_stay_here(root: ResultsRoot, server: Server, where: str) -> None:
    url = "http://127.0.0.1:9" if where == "nobody" else server.url
    server.status = lambda what: int(where)
    began = time.monotonic()
    done = sync(root, url)
    assert time.monotonic() - began < 60
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("tuning: Weights & Biases: ")
    assert KEY not in done.stderr
    assert len(offline_runs(root)) >= 1
    server.status = lambda what: None
    assert sync(root, server.url).returncode == 0
    assert_all_sent(root, server)


def test_a_torn_file_is_read_up_to_its_last_whole_record(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url, "--offline").returncode == 0
    run = list(runs_of(root, "one"))[1]
    (path,) = root.wandb.glob(f"offline-run-*-{run.run_id}/*.wandb")
    whole = path.read_bytes()
    num_rows = []
    for size in range(7, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:size])
        with contextlib.suppress(ResultsError):
            num_rows.append(len(read_offline_run(path).rows))
    assert num_rows == sorted(num_rows)
    path.write_bytes(b"no file of wandb")
    with pytest.raises(ResultsError, match="is no file of wandb"):
        read_offline_run(path)
