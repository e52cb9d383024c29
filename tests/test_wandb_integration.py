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

import psutil
import pytest
import yaml

from planted_study import Effect, always, write_planted_study
from tuning.errors import ConfigError, ResultsError
from tuning.paths import ResultsRoot
from tuning.scoring import TRANSFER_SCORE
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.tracked_analysis import analysis_run
from tuning.tracked_runs import STEP, TrackedRun, runs_of
from tuning.wandb_integration import (
    PROJECT,
    OfflineRun,
    create_wandb_sweep,
    read_offline_run,
)
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


def wandb(server: Server, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuning", "wandb", *given],
        env=environment(server.url),
        capture_output=True,
        text=True,
        timeout=200,
        stdin=subprocess.DEVNULL,
    )


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


def told(root: ResultsRoot) -> list[TrackedRun]:
    """Return all that W&B is to be told of the study: its trials, and the analysis of them."""
    analysis = analysis_run(root, "one")
    assert analysis is not None
    return [*runs_of(root, "one"), analysis]


def assert_whole(run: TrackedRun, rows: list[dict[str, Any]]) -> None:
    """Every row of a run is there once, in order, with every value."""
    assert [row["_step"] for row in rows] == list(range(run.num_rows))
    if run.content is not None:
        # What is shown of it is one row of tables, charts and pages.
        shown = {name.split(".")[0] for name in rows[0]}
        assert {*run.tables, *run.pages} <= shown
        assert {f"{name}_table" for name in run.scatters} <= shown
        return
    for said, found in zip(run.rows, rows, strict=True):
        assert {k: v for k, v in found.items() if not k.startswith("_")} == said


def assert_all_sent(root: ResultsRoot, server: Server) -> None:
    runs = told(root)
    assert set(server.runs) == {run.run_id for run in runs}
    for run in runs:
        found = server.runs[run.run_id]
        assert_whole(run, found.rows)
        assert found.is_complete
        assert found.exit_code == int(run.is_failure)
        for name, value in run.summary.items():
            assert found.summary[name] == value


def assert_completed_after_a_kill(root: ResultsRoot, server: Server) -> None:
    """Whom a killed one left behind may still be sending; until it is done the next one waits."""
    for _ in range(10):
        done = sync(root, server.url)
        if done.returncode == 0:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_all_sent(root, server)


def test_offline_runs_hold_everything_and_ask_nobody(root: ResultsRoot, server: Server) -> None:
    done = sync(root, server.url, "--offline")
    assert done.returncode == 0, done.stderr
    assert server.requests == []
    found = offline_runs(root)
    runs = told(root)
    assert set(found) == {run.run_id for run in runs}
    for run in runs:
        offline = found[run.run_id]
        assert_whole(run, offline.rows)
        assert offline.project == PROJECT
        assert (offline.name, offline.group) == (run.name, run.group)
        assert offline.job_type == run.job_type.value
        assert offline.tags == list(run.tags)
        own = {k: v for k, v in offline.config.items() if not k.startswith("_wandb")}
        assert own == run.config
        charts = {f"_wandb.visualize.{name}" for name in run.scatters}
        assert charts == {k for k in offline.config if k.startswith("_wandb.visualize")}
        assert {name: offline.summary[name] for name in run.summary} == run.summary
        assert offline.step_metrics == {
            STEP: "",
            "spelling/*": STEP,
            "transfer/position/*": STEP,
            "transfer/count/*": STEP,
            TRANSFER_SCORE: STEP,
        }
        names = {f"{artifact.kind}-{run.run_id}" for artifact in run.artifacts}
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
    "status", [pytest.param(status, marks=NIGHTLY) for status in (400, 429, 500)]
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
    assert_completed_after_a_kill(root, server)


def test_an_address_that_is_none_is_one_clear_line(root: ResultsRoot) -> None:
    done = sync(root, "notaurl")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "base_url" in done.stderr


def test_a_damaged_record_is_named(root: ResultsRoot, server: Server) -> None:
    record = load_study(root, "one")[1][-1]
    root.study("one").trial(record.trial_id).record.write_text("[]")
    planned = json.loads(sync(root, server.url, "--dry-run").stdout)["runs"]["one"]
    done = json.loads(sync(root, server.url, "--offline").stdout)["studies"]["one"]
    assert list(done["runs"]) == planned
    assert record.trial_id in " ".join(done["notes"])


@pytest.mark.parametrize(
    "where", [pytest.param(where, marks=NIGHTLY) for where in ("401", "nobody", "500")]
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


@NIGHTLY
def test_a_run_whose_upload_was_cut_off_after_its_last_row_is_completed(
    root: ResultsRoot, server: Server
) -> None:
    assert sync(root, server.url).returncode == 0
    for told_run in runs_of(root, "one"):
        run = server.runs[told_run.run_id]
        run.state, run.is_complete, run.summary = "crashed", False, {}
        entry = root.wandb / "ledger" / f"{run.name}.json"
        entry.write_text(json.dumps({**json.loads(entry.read_text()), "state": "written"}))
    assert sync(root, server.url).returncode == 0
    assert_all_sent(root, server)


@NIGHTLY
def test_another_server_gets_everything_too(root: ResultsRoot, server: Server) -> None:
    assert sync(root, server.url).returncode == 0
    with loopback() as other:
        assert sync(root, other.url).returncode == 0
        assert_all_sent(root, other)


# --- what all trials together show --------------------------------------------------------------


@pytest.mark.nightly
def test_the_analysis_is_sent_anew_when_the_study_has_changed(
    root: ResultsRoot, server: Server
) -> None:
    assert sync(root, server.url).returncode == 0
    first = analysis_run(root, "one")
    assert first is not None
    found = server.runs[first.run_id]
    assert found.fields["jobType"] == "analysis"
    for name, value in first.summary.items():
        assert found.summary[name] == value
    assert {"corr/pearson_spelling_position_runs", "best/trial"} <= set(found.summary)
    root.reports.mkdir(parents=True, exist_ok=True)
    (root.reports / "one.html").write_text("<p>a report</p>")
    assert sync(root, server.url).returncode == 0
    assert found.summary["content"] != first.content
    assert [row["_step"] for row in found.rows] == [0, 1]
    assert b"<p>a report</p>" in server.uploads.values()
    before = len(server.requests)
    assert sync(root, server.url).returncode == 0
    assert len(server.requests) == before


def test_a_workspace_is_saved_once_and_then_brought_up_to_date(
    root: ResultsRoot, server: Server
) -> None:
    def publish() -> dict[str, Any]:
        asked = ["publish-views", "one", "--json", "--results-dir", str(root.root)]
        done = wandb(server, *asked)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    first = publish()
    assert publish() == first
    assert server.unknown == []
    ((_, view),) = server.views.items()
    panels = view["spec"]
    for shown in ("Scatter Plot", "Parallel Coordinates Plot", "Parameter Importance"):
        assert shown in panels
    assert '"showLinearRegression":true' in panels
    assert "config:lora_config.value.r" in panels


# --- while a study runs -------------------------------------------------------------------------

RUNNING = """\
strategy: random
num_trials: 3
replicates_of_default: 1
HPARAM_CANDIDATES: {lora_r: [4, 8], learning_rate: [1.0e-3, 5.0e-3]}
step_scale: 0.02
experiment:
  tokenizer_config: {model_name: tiny}
  evaluation_config: {num_words: 30, num_monitor_words: 6}
"""
POINT = {
    "tokenizer_config.model_name": "tiny",
    "evaluation_config.num_words": 30,
    "evaluation_config.num_monitor_words": 6,
    "step_scale": 0.02,
    "lora_r": 4,
    "learning_rate": 1e-3,
}


def run_study(folder: Path, url: str, *given: str) -> subprocess.CompletedProcess[str]:
    (folder / "space.yaml").write_text(RUNNING)
    asked = ["study", "run", "--space", "space.yaml", "--name", "one", "--workers", "1", *given]
    return program(folder, url, *asked)


def program(folder: Path, url: str, *given: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tuning", *given, "--results-dir", str(folder / "results")],
        cwd=folder,
        env={name: x for name, x in environment(url).items() if name != "WANDB_MODE"},
        capture_output=True,
        text=True,
        timeout=250,
        stdin=subprocess.DEVNULL,
    )


def wait_for_the_mirror(root: ResultsRoot, study: str = "one") -> list[TrackedRun]:
    """Wait until all runs are written: the mirror ends a little after the study."""
    deadline = time.monotonic() + 60
    analysis = analysis_run(root, study)
    assert analysis is not None
    runs = [*runs_of(root, study), analysis]
    while not {run.run_id for run in runs} <= set(offline_runs(root)):
        assert time.monotonic() < deadline, root.mirror_log(study).read_text()
        time.sleep(0.5)
    return runs


@pytest.mark.nightly
def test_a_study_of_four_trials_writes_its_runs_while_it_runs_and_asks_nobody(
    fast_path: Path, server: Server
) -> None:
    done = run_study(fast_path, server.url, "--quiet")
    assert done.returncode == 0, done.stderr
    root = ResultsRoot(fast_path / "results")
    runs = wait_for_the_mirror(root)
    assert [run.job_type.value for run in runs] == ["base", *["trial"] * 4, "analysis"]
    found = offline_runs(root)
    for run in runs[:-1]:
        assert_whole(run, found[run.run_id].rows)
    curves = {name for run in runs[1:5] for row in run.rows for name in row}
    assert curves == {
        name
        for run in runs[1:5]
        for row in found[run.run_id].rows
        for name in row
        if not name.startswith("_")
    }
    assert server.requests == []


@NIGHTLY
def test_a_mirror_that_is_killed_harms_no_trial_and_loses_nothing(
    fast_path: Path, server: Server
) -> None:
    server.seconds = 0.5
    (fast_path / "space.yaml").write_text(RUNNING)
    asked = ["study", "run", "--space", "space.yaml", "--name", "one", "--workers", "1"]
    asked += ["--tracking", "online", "--quiet", "--results-dir", "results"]
    own = {name: x for name, x in environment(server.url).items() if name != "WANDB_MODE"}
    study = subprocess.Popen(
        [sys.executable, "-m", "tuning", *asked],
        cwd=fast_path,
        env=own,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    mirrors: list[psutil.Process] = []
    # Found while the study runs: trials of tiny may end before the first row is on its way.
    while not (mirrors and any("file_stream" in path for _, path in server.requests)):
        assert time.monotonic() < deadline
        if not mirrors:
            children = psutil.Process(study.pid).children()
            mirrors = [child for child in children if "--follow" in child.cmdline()]
        time.sleep(0.1)
    (mirror,) = mirrors
    mirror.kill()
    assert study.wait(timeout=200) == 0
    server.seconds = 0.0
    root = ResultsRoot(fast_path / "results")
    statuses = [record.result.status.value for record in load_study(root, "one")[1]]
    assert len(statuses) == 4
    assert "failed" not in statuses
    assert_completed_after_a_kill(root, server)


@NIGHTLY
def test_a_study_that_is_tracked_online_is_there_when_its_mirror_has_ended(
    fast_path: Path, server: Server
) -> None:
    done = run_study(fast_path, server.url, "--tracking", "online", "--quiet")
    assert done.returncode == 0, done.stderr
    root = ResultsRoot(fast_path / "results")
    deadline = time.monotonic() + 90
    analysis = told(root)[-1]
    while not (analysis.run_id in server.runs and server.runs[analysis.run_id].is_complete):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert_all_sent(root, server)


@NIGHTLY
def test_a_study_whose_server_is_away_ends_as_well_and_is_sent_later(
    fast_path: Path, server: Server
) -> None:
    server.status = lambda what: 500
    done = run_study(fast_path, server.url, "--tracking", "online", "--quiet")
    assert done.returncode == 0, done.stderr
    root = ResultsRoot(fast_path / "results")
    assert len(load_study(root, "one")[1]) == 4
    wait_for_the_mirror(root)
    assert server.runs == {}
    server.status = lambda what: None
    assert sync(root, server.url).returncode == 0
    assert_all_sent(root, server)


@pytest.mark.nightly
def test_a_sweep_its_agent_and_what_the_server_sees(fast_path: Path, server: Server) -> None:
    (fast_path / "space.yaml").write_text(RUNNING)
    made = program(fast_path, server.url, "wandb", "sweep", "--space", "space.yaml", "--json")
    assert made.returncode == 0, made.stderr
    sweep = json.loads(made.stdout)["sweep"]
    definition = yaml.safe_load(server.sweeps[sweep]["config"])
    assert definition["metric"] == {"name": TRANSFER_SCORE, "goal": "maximize"}
    assert definition["parameters"]["lora_r"] == {"values": [4, 8]}
    assert server.sweeps[sweep]["projectName"] == PROJECT
    arguments = {name: {"value": value} for name, value in POINT.items()}
    # The second asks for the same point again: it is answered, and not trained twice.
    server.commands = [{"type": "run", "run_id": f"given{i}", "args": arguments} for i in range(2)]
    done = program(fast_path, server.url, "wandb", "agent", sweep, "--count", "2", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    root = ResultsRoot(fast_path / "results")
    _, records = load_study(root, f"sweep-{sweep}")
    assert [record.parameters for record in records] == [
        {},
        {"lora_r": 4, "learning_rate": 1e-3},
    ]
    for run_id in ("given0", "given1"):
        found = server.runs[run_id]
        assert found.fields["sweep"] == sweep
        assert found.is_complete
        assert found.exit_code == 0
        assert found.summary[TRANSFER_SCORE] == records[1].result.metrics[TRANSFER_SCORE]
        assert {"spelling/accuracy", "transfer/count/accuracy", TRANSFER_SCORE} <= set(
            found.rows[-1]
        )
        assert found.config["lora_config"]["r"] == 4
    others = [run for name, run in server.runs.items() if not name.startswith("given")]
    assert all(run.fields.get("sweep") is None for run in others)
    assert server.unknown == []


@NIGHTLY
def test_the_old_spelling_registers_a_sweep_and_runs_it(fast_path: Path, server: Server) -> None:
    (fast_path / "space.yaml").write_text(RUNNING)
    arguments = {name: {"value": value} for name, value in POINT.items()}
    server.commands = [{"type": "run", "run_id": "given", "args": arguments}]
    asked = ["--mode", "sweep", "--space", "space.yaml", "--count", "1", "--name", "one"]
    done = program(fast_path, server.url, *asked, "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sweep: sweep0\n")
    assert list(server.sweeps) == ["sweep0"]
    assert server.runs["given"].fields["sweep"] == "sweep0"
    assert server.runs["given"].is_complete


@NIGHTLY
def test_a_sweep_without_a_server_is_adopted_once_there_is_one(
    fast_path: Path, server: Server
) -> None:
    (fast_path / "space.yaml").write_text(RUNNING)
    asked = ["--mode", "sweep", "--offline", "--space", "space.yaml", "--name", "one"]
    done = program(fast_path, server.url, *asked, "--count", "2", "--quiet")
    assert done.returncode == 0, done.stderr
    assert server.requests == []
    root = ResultsRoot(fast_path / "results")
    wait_for_the_mirror(root)
    assert sync(root, server.url).returncode == 0
    assert_all_sent(root, server)
    ((sweep, given),) = server.sweeps.items()
    assert yaml.safe_load(given["config"])["method"] == "random"
    trials = {name for name, run in server.runs.items() if run.fields["jobType"] == "trial"}
    assert len(trials) == 3
    adopted = {name for name, run in server.runs.items() if run.fields.get("sweep") == sweep}
    assert adopted == trials
    # Cut off after the server made it and before that was written down: no second one.
    path = root.wandb / "sweeps" / "one.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sweep": None}))
    assert sync(root, server.url).returncode == 0
    assert list(server.sweeps) == [sweep]
    assert json.loads(path.read_text())["sweep"] == sweep


@pytest.mark.nightly
def test_malformed_sweeps_are_refused_before_any_call(
    fast_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server.url).items():
        monkeypatch.setenv(name, value)
    listed = SearchSpace.model_validate({"strategy": "listed", "configurations": [{"lora_r": 4}]})
    with pytest.raises(ConfigError, match="a listed space is no sweep"):
        create_wandb_sweep(listed, root=ResultsRoot(fast_path))
    done = program(fast_path, server.url, "wandb", "sweep", "--space", "defualt")
    assert done.returncode == 2
    assert "did you mean default" in done.stderr
    for illegal in ("a b", "me/another-project/abc", "../x"):
        done = program(fast_path, server.url, "wandb", "agent", illegal)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert server.requests == []
    done = program(fast_path, server.url, "wandb", "agent", "nosuch")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_default_sweep_is_registered(fast_path: Path, server: Server) -> None:
    code = "from tuning.wandb_integration import create_wandb_sweep; print(create_wandb_sweep())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=fast_path,
        env=environment(server.url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "sweep0", done.stderr
    definition = yaml.safe_load(server.sweeps["sweep0"]["config"])
    assert len(definition["parameters"]) == 13
    assert definition["method"] == "grid"
