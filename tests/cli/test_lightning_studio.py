"""`tuning lightning studio`, `doctor` and `secret`: the real SDK against a cloud on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import in_process
from cloud_cli import cloud, in_cloud  # noqa: F401

from cloud_support import client_env
from lightning_server import KEY, Cloud

Run = Callable[..., Any]


@pytest.fixture
def tuning(in_cloud: Run) -> Run:
    """Return a function that runs the program, the SDK's waits cut short."""
    return in_cloud


@pytest.fixture
def untouched(cloud: Cloud, tmp_path: Path) -> Run:
    """Return a function that runs the program in a process of its own, the SDK as it is."""

    def run(*arguments: str, expect: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
        folders = ["--results-dir", str(tmp_path / "r"), "--config-dir", str(tmp_path / "configs")]
        place = arguments.index("--") if "--" in arguments else len(arguments)
        command = [*arguments[:place], *folders, *arguments[place:]]
        done = subprocess.run(
            [sys.executable, "-m", "tuning", *command],
            env={**os.environ, **client_env(cloud.url, tmp_path), **env},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == expect, (done.stdout, done.stderr[-3000:])
        assert "Traceback" not in done.stderr
        return done

    return run


def test_a_task_from_processor_to_gpus_and_the_end(
    cloud: Cloud, untouched: Run, in_cloud: Run
) -> None:
    tuning = untouched
    made = tuning("lightning", "studio", "create", "spell", "--json")
    assert json.loads(made.stdout)["studio"]["status"] == "Stopped"
    (studio,) = cloud.studios.values()
    assert studio.name == "tuning-spell"
    assert {e["name"]: e["value"] for e in studio.env}["TUNING_TASK"] == "spell"
    # Its environment is what this checkout says, every file of it.
    project = studio.folder / "tuning-project"
    for name in ("pyproject.toml", "constraints.txt", "src/tuning/__main__.py"):
        here = Path(__file__).parents[2] / name
        assert (project / name).read_bytes() == here.read_bytes()

    # Made again it is found, and nothing is uploaded twice.
    puts = sum(method == "PUT" and path.startswith("/put/") for method, path in cloud.requests)
    in_cloud("lightning", "studio", "create", "spell")
    assert puts == sum(m == "PUT" and p.startswith("/put/") for m, p in cloud.requests)

    tuning("lightning", "studio", "start", "spell")
    tuning("lightning", "studio", "switch", "spell", "test")
    assert "Running on T4" in in_cloud("lightning", "studio", "status", "spell").stdout
    said = tuning(
        "lightning",
        "studio",
        "run",
        "spell",
        "--phase",
        "train",
        "--then",
        "develop",
        "--",
        "sh",
        "-c",
        "nvidia-smi; exit 3",
        expect=3,
    )
    assert "A100" in said.stdout
    assert studio.in_use is not None
    assert studio.in_use.machine == "cpu-4"
    tuning("lightning", "studio", "stop", "spell")
    assert cloud.running_studios == []
    # Made on a processor and stopped, then: processor, T4, A100, processor, stopped.
    assert studio.machines[:2] == ["cpu-4", "stopped"]
    assert studio.machines[2:] == ["cpu-4", "lit-t4-1", "lit-a100-1", "cpu-4", "stopped"]
    # Nothing of ours kept it awake.
    assert studio.keep_alives == 0

    told = json.loads(in_cloud("lightning", "cost", "spell", "--json").stdout)
    assert [row["name"] for row in told["rows"]] == ["develop", "test", "train"]
    assert all(row["metered"] > 0 for row in told["rows"])
    assert told["total"] == pytest.approx(sum(row["metered"] for row in told["rows"]), abs=1e-6)

    in_cloud("lightning", "studio", "delete", "spell", "--yes")
    assert cloud.studios == {}
    assert json.loads(in_cloud("lightning", "cost", "spell", "--json").stdout)["total"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_no_machine_running(
    cloud: Cloud, tuning: Run, tmp_path: Path, number: signal.Signals
) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    folders = ["--results-dir", str(tmp_path / "r"), "--config-dir", str(tmp_path / "configs")]
    command = ["lightning", "studio", "run", "spell", "--phase", "test", *folders]
    process = subprocess.Popen(
        [sys.executable, "-m", "tuning", *command, "--", "sleep", "60"],
        env={**os.environ, **client_env(cloud.url, tmp_path)},
        stderr=subprocess.PIPE,
        # A run in the background inherits that SIGINT is ignored; a person at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until = time.monotonic() + 60
    while not any(b"sleep 60" in body for body in cloud.bodies):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert cloud.running_studios == ["tuning-spell"]
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert cloud.running_studios == []


def test_one_studio_one_task(cloud: Cloud, tuning: Run) -> None:
    tuning("lightning", "studio", "create", "one", "--no-setup")
    said = tuning(
        "lightning", "studio", "create", "two", "--no-setup", "--studio", "tuning-one", expect=2
    )
    assert "Studio tuning-one belongs to task one" in said.stderr
    said = tuning(
        "lightning", "studio", "create", "one", "--no-setup", "--studio", "other", expect=2
    )
    assert "task one has Studio tuning-one already" in said.stderr
    assert [s.name for s in cloud.studios.values()] == ["tuning-one"]


def test_a_studio_of_somebody_else_is_left_alone(cloud: Cloud, tuning: Run) -> None:
    cloud.answer("POST", "/v1/projects/p-1/cloudspaces", {}, {"name": "tuning-mine"})
    said = tuning("lightning", "studio", "create", "mine", "--no-setup", expect=2)
    assert "was not made by this program" in said.stderr


def test_sleep_settings_are_really_sent(cloud: Cloud, tuning: Run) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    (studio,) = cloud.studios.values()
    # A free processor is left as it is: any number of minutes would make it cost.
    tuning("lightning", "studio", "start", "spell")
    assert not [1 for m, p in cloud.requests if p.endswith("/sleepconfig")]
    tuning("lightning", "studio", "switch", "spell", "test")
    assert studio.sleep == {"disableAutoShutdown": False, "idleShutdownSeconds": 600}
    assert [1 for m, p in cloud.requests if p.endswith("/sleepconfig")]
    tuning("lightning", "studio", "switch", "spell", "train", "--no-sleep")
    assert studio.sleep["disableAutoShutdown"] is True


def test_a_machine_that_comes_up_as_a_processor_is_left_at_once(cloud: Cloud, tuning: Run) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    tuning("lightning", "studio", "start", "spell")
    cloud.come_up_as["lit-a100-1"] = "cpu-4"
    said = tuning("lightning", "studio", "switch", "spell", "train", expect=2)
    assert "was asked for A100 and has no such GPU" in said.stderr
    (studio,) = cloud.studios.values()
    assert studio.in_use is None or studio.in_use.machine == "cpu-4"


def test_no_machine_leaves_the_studio_where_it_is(cloud: Cloud, tuning: Run) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    tuning("lightning", "studio", "start", "spell")
    cloud.out_of_capacity.add("lit-a100-1")
    said = tuning("lightning", "studio", "switch", "spell", "train", expect=2)
    assert "no A100 can be had now; there are: CPU, H100, L4, T4" in said.stderr
    (studio,) = cloud.studios.values()
    assert studio.in_use is not None
    assert studio.in_use.machine == "cpu-4"


def test_a_machine_that_is_never_ready_is_given_up_and_the_studio_stopped(
    cloud: Cloud, tuning: Run, tmp_path: Path
) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    path = tmp_path / "configs" / "lightning" / "studio.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["deadlines"]["start"] = 0.05
    path.write_text(yaml.safe_dump(settings))
    cloud.ready_seconds = float("inf")
    said = tuning("lightning", "studio", "start", "spell", "--phase", "test", expect=2)
    assert "takes longer than 0.05 minutes and is given up" in said.stderr
    assert cloud.running_studios == []


def test_the_doctor_looks_and_changes_nothing(cloud: Cloud, tuning: Run) -> None:
    told = json.loads(tuning("lightning", "doctor", "--json").stdout)
    assert told["credentials"] == "LIGHTNING_API_KEY"
    assert told["teamspace"] == "tester/research"
    prices = {m["machine"]: (m["per_hour"], m["spot_per_hour"]) for m in told["machines"]}
    assert prices["T4"] == (0.98, 0.45)
    assert prices["L4"] == (1.58, None)
    assert told["problems"] == []
    assert {method for method, _ in cloud.requests} == {"GET"}
    cloud.out_of_capacity.add("lit-a100-1")
    said = tuning("lightning", "doctor", expect=2)
    assert "phase train wants A100, which cannot be had now" in said.stderr


def test_without_a_key_there_is_one_message_and_no_browser(cloud: Cloud, tuning: Run) -> None:
    for command in (
        ("studio", "status", "x"),
        ("studio", "create", "x"),
        ("submit", "token_analysis"),
        ("secret", "HOME"),
    ):
        done = tuning(
            "lightning",
            *command,
            expect=2,
            LIGHTNING_API_KEY="",
            LIGHTNING_USER_ID="",
            BROWSER="false",
        )
        assert done.stderr.count("\n") == 1
        assert "LIGHTNING_API_KEY and LIGHTNING_USER_ID" in done.stderr
    assert cloud.requests == []


def test_a_wrong_key_is_one_message(cloud: Cloud, untouched: Run) -> None:
    wrong = "w" * 36
    done = untouched("lightning", "studio", "status", "x", expect=2, LIGHTNING_API_KEY=wrong)
    assert "the key for Lightning.AI is refused" in done.stderr
    assert done.stderr.count("\n") == 1
    assert wrong not in done.stderr
    assert KEY not in done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LIGHTNING_TEAMSPACE": ""}, "as OWNER/NAME, got ''"),
        ({"LIGHTNING_TEAMSPACE": "tester/nosuch"}, "teamspace tester/nosuch"),
        ({"LIGHTNING_CLOUD_URL": "zzz"}, "LIGHTNING_CLOUD_URL must begin with https://"),
        ({"LIGHTNING_CLOUD_URL": "http://127.0.0.1:1"}, "Lightning.AI does not answer"),
    ],
)
def test_a_cloud_that_cannot_be_asked_is_one_line(
    cloud: Cloud, untouched: Run, variables: dict[str, str], message: str
) -> None:
    done = untouched("lightning", "doctor", expect=2, **variables)
    assert message in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert len(done.stderr) < 300


def test_a_spot_machine_is_one_and_says_its_own_price(cloud: Cloud, tuning: Run) -> None:
    tuning("lightning", "studio", "create", "spell", "--no-setup")
    said = tuning("lightning", "studio", "start", "spell", "--phase", "train", "--spot").stdout
    assert "it costs 2.90 USD an hour" in said
    (studio,) = cloud.studios.values()
    assert studio.in_use is not None
    assert studio.in_use.spot
    said = tuning("lightning", "studio", "switch", "spell", "train").stdout
    assert "it costs 5.68 USD an hour" in said
    assert not studio.in_use.spot
    done = tuning("lightning", "studio", "switch", "spell", "develop", "--spot", expect=2)
    assert "CPU does not come as a spot machine" in done.stderr


def test_plans_need_neither_key_nor_sdk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = in_process(tmp_path, monkeypatch, capsys)
    monkeypatch.setitem(sys.modules, "lightning_sdk", None)
    for command, cost in (
        (["studio", "create", "x"], "0.88"),
        (["studio", "switch", "x", "test"], "0.49"),
        (["studio", "run", "x", "--phase", "train"], "45.44"),
        (["studio", "stop", "x"], None),
        (["studio", "delete", "x"], None),
        (["studio", "status", "x"], None),
    ):
        rest = ["--", "true"] if "run" in command else []
        done = program("lightning", *command, "--dry-run", *rest)
        assert done.returncode == 0
        assert done.stdout.startswith("would ")
        if cost is not None:
            assert f"about {cost} USD; prices as of 2026-07-30, not verified" in done.stdout
    assert list(tmp_path.iterdir()) == []


SECRET = "s3cr3t-value-of-a-token"


def test_a_secret_can_be_replaced(cloud: Cloud, tuning: Run) -> None:
    for value in ("the-first-one", "the-second-one"):
        tuning("lightning", "secret", "HF_TOKEN", HF_TOKEN=value)
        assert cloud.secrets == {"HF_TOKEN": value}


@pytest.mark.parametrize("is_refused", [False, True])
def test_secrets_reach_the_store_and_nothing_else(
    cloud: Cloud, tuning: Run, tmp_path: Path, is_refused: bool
) -> None:
    if is_refused:
        cloud.status = lambda method, path: (
            403 if path.endswith("/secrets") and method == "POST" else None
        )
    done = tuning("lightning", "secret", "HF_TOKEN", expect=2 if is_refused else 0, HF_TOKEN=SECRET)
    assert cloud.secrets == ({} if is_refused else {"HF_TOKEN": SECRET})
    assert SECRET not in done.stdout + done.stderr
    # The call itself has it; no other request, and above all not the vendor's history of commands.
    bodies = [
        body
        for (method, path), body in zip(cloud.requests, cloud.bodies, strict=True)
        if not path.endswith("/secrets")
    ]
    assert not any(SECRET.encode() in body for body in bodies)
    assert cloud.telemetry == []
    assert not any(SECRET.encode() in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())


def test_the_sdk_by_itself_would_have_told_the_secret(cloud: Cloud, tmp_path: Path) -> None:
    """What the test above guards against is real."""
    cloud.status = lambda method, path: (
        403 if path.endswith("/secrets") and method == "POST" else None
    )
    script = "from lightning_sdk import Teamspace; Teamspace('tester/research').set_secret('HF_TOKEN', 's3cr3t-value-of-a-token')"
    env: dict[str, Any] = {**os.environ, **client_env(cloud.url, tmp_path)}
    subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, timeout=60, check=False
    )
    assert any(SECRET.encode() in body for body in cloud.telemetry)
    cloud.telemetry.clear()
