"""`tuning lightning submit`, `jobs`, `logs`, `cancel` and `cost`: commands as jobs that need each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloud_cli import cloud, in_cloud  # noqa: F401

from lightning_server import ENDED, Cloud
from tuning.cloud_ledger import Ledger
from tuning.paths import ResultsRoot

Run = Callable[..., Any]

JOBS: dict[str, Any] = {
    "about": "Laws first, then what follows from them.",
    "values": {"name": "small"},
    "jobs": {
        "late": {"arguments": ["space", "show", "{name}"], "machine": "CPU", "hours": 0.1},
        "first": {
            "arguments": ["space", "list"],
            "machine": "T4",
            "hours": 0.2,
            "priority": 3.5,
        },
        "second": {
            "arguments": ["space", "show", "{name}"],
            "machine": "T4",
            "needs": ["first"],
        },
        "broken": {"arguments": ["space", "show", "nonsense"], "machine": "CPU", "hours": 0.2},
        "after": {"arguments": ["space", "list"], "machine": "CPU", "needs": ["broken"]},
        "last": {"arguments": ["space", "list"], "machine": "CPU", "needs": ["after", "first"]},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(JOBS, sort_keys=False))
    return path


def rows(in_cloud: Run) -> dict[str, dict[str, Any]]:
    found = json.loads(in_cloud("lightning", "jobs", "--json").stdout)
    return {row["job"]: row for row in found}


def test_jobs_run_in_order_and_what_depends_on_a_failure_is_skipped(
    cloud: Cloud, in_cloud: Run, file: Path, tmp_path: Path
) -> None:
    plan = json.loads(in_cloud("lightning", "submit", str(file), "--dry-run", "--json").stdout)
    names = [job["job"] for job in plan["jobs"]]
    # The most worth first, then the cheapest; each after what it needs.
    assert names == ["first", "late", "broken", "second", "after", "last"]
    assert cloud.requests == []

    in_cloud("lightning", "submit", str(file), "--name", "plan", expect=1)
    found = rows(in_cloud)
    stages = {name: row["stage"] for name, row in found.items()}
    assert stages == {
        "late": "done",
        "first": "done",
        "second": "done",
        "broken": "failed",
        "after": "skipped",
        "last": "skipped",
    }
    assert found["after"]["message"] == "broken failed"
    assert "nonsense" in found["broken"]["message"]
    assert not found["broken"]["message"].startswith("tuning:")
    by_start = sorted(cloud.jobs.values(), key=lambda job: job.created)
    order = [job.name.split("-")[1] for job in by_start]
    assert order[0] == "first"
    assert order.index("first") < order.index("second")
    assert all(job.state in ENDED for job in cloud.jobs.values())
    assert cloud.running_studios == []
    # A command that fails has failed for a reason of its own, and is not tried again.
    assert [row["submissions"] for row in found.values()] == [1, 1, 1, 1, 0, 0]

    # Asked again, what was done is not done twice.
    submitted = len(cloud.jobs)
    in_cloud("lightning", "submit", str(file), "--name", "plan", expect=1)
    assert len(cloud.jobs) == submitted + 1

    told = json.loads(in_cloud("lightning", "cost", "plan", "--settle", "--json").stdout)
    asked = sum(job.cost(0) for job in cloud.jobs.values())
    jobs = [row for row in told["rows"] if row["kind"] == "job"]
    assert sum(row["settled"] or 0 for row in jobs) == pytest.approx(asked, abs=1e-5)
    assert {row["name"]: row["estimate"] for row in jobs}["first"] == pytest.approx(0.2 * 0.98)
    said = in_cloud("lightning", "logs", "plan", "broken").stdout
    assert "nonsense" in said


def test_a_job_whose_machine_is_lost_is_tried_again(
    cloud: Cloud, in_cloud: Run, tmp_path: Path
) -> None:
    job = {"arguments": ["space", "list"], "machine": "CPU", "retries": 1}
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump({"about": "One.", "jobs": {"one": job}}))
    cloud.taken_away = 1
    in_cloud("lightning", "submit", str(file), "--name", "one")
    assert [job.state for job in cloud.jobs.values()] == ["failed", "completed"]
    ledger = Ledger.read(ResultsRoot(tmp_path / "r").cloud_task("one"))
    assert ledger.runs["one"].num_lost == 1
    assert len(ledger.runs["one"].submissions) == 2

    cloud.taken_away = 2
    again = {**job, "arguments": ["space", "show", "small"]}
    file.write_text(yaml.safe_dump({"about": "One.", "jobs": {"one": again}}))
    said = in_cloud("lightning", "submit", str(file), "--name", "one", expect=1)
    assert "one: lost" in said.stdout
    # Asked for again it may lose as many once more: two submissions as before.
    assert [job.state for job in cloud.jobs.values()] == ["failed", "completed", "failed", "failed"]


def test_a_budget_stops_new_jobs(cloud: Cloud, in_cloud: Run, tmp_path: Path) -> None:
    job = {"arguments": ["space", "list"], "machine": "A100"}
    jobs = {"one": job, "two": {**job, "needs": ["one"]}}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump({"about": "Two.", "jobs": jobs}))
    said = in_cloud(
        "lightning", "submit", str(file), "--name", "two", "--max-cost", "0.00001", expect=1
    )
    assert "the budget of 1e-05 USD is used up" in said.stderr
    assert len(cloud.jobs) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"needs": ["nobody"]}, "job one needs 'nobody', which is no job"),
        ({"needs": ["one"]}, "jobs need each other in a circle: one -> one"),
        ({"machine": "A10G"}, "no price of machine 'A10G'"),
        ({"collect": ["../secrets"]}, "must be a path below the results folder"),
        ({"machin": "CPU"}, "no such key; did you mean machine?"),
        ({"arguments": []}, "arguments"),
        ({"arguments": ["space", "shwo"]}, "job one: tuning space shwo: No such command"),
        ({"arguments": ["evaluate", "--num-words", "3"]}, "greater than or equal to 10"),
        ({"arguments": ["tokens"]}, "a command is missing"),
        ({"arguments": ["space", "--help"]}, "it only shows help"),
    ],
)
def test_files_of_jobs_that_break_a_law(
    cloud: Cloud, in_cloud: Run, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    job = {"arguments": ["space", "list"], "machine": "CPU", **change}
    file = tmp_path / "bad.yaml"
    file.write_text(yaml.safe_dump({"about": "Bad.", "jobs": {"one": job}}))
    said = in_cloud("lightning", "submit", str(file), expect=2)
    assert message in said.stderr
    assert cloud.requests == []


def test_what_is_not_known_is_said(cloud: Cloud, in_cloud: Run, file: Path) -> None:
    said = in_cloud("lightning", "cancel", "nothing", "x", expect=2)
    assert "none has been in the cloud" in said.stderr
    said = in_cloud("lightning", "submit", "tokens_analysis", expect=2)
    assert "did you mean token_analysis?" in said.stderr
    said = in_cloud("lightning", "submit", "token_analysis", "lora_r=8", expect=2)
    assert "overrides and --config belong to templates of studies" in said.stderr
    for name in ("../x", "a b", "$(id)", "x" * 200):
        said = in_cloud(
            "lightning", "submit", "token_analysis", "--name", name, "--dry-run", expect=2
        )
        assert "task must be 1 to 128 letters" in said.stderr


def test_what_runs_in_the_teamspace_is_shown_whoever_began_it(
    cloud: Cloud, in_cloud: Run, tmp_path: Path
) -> None:
    assert "nothing runs in teamspace tester/research" in in_cloud("lightning", "running").stdout
    in_cloud("lightning", "studio", "create", "mine", "--no-setup")
    in_cloud("lightning", "studio", "start", "mine", "--phase", "test")
    spec = {"instanceName": "lit-a100-1", "command": "sleep 60"}
    cloud.answer("POST", "/v1/projects/p-1/jobs", {}, {"name": "other", "spec": spec})
    said = json.loads(in_cloud("lightning", "running", "--json").stdout)
    assert [(row["kind"], row["name"], row["machine"], row["task"]) for row in said] == [
        ("studio", "tuning-mine", "T4", "mine"),
        ("job", "other", "lit-a100-1", None),
    ]
    (studio,) = cloud.studios.values()
    assert studio.keep_alives == 0


def test_a_command_brings_back_what_it_wrote_and_nothing_of_others(
    cloud: Cloud, in_cloud: Run, tmp_path: Path
) -> None:
    shared = cloud.shared / "tuning" / "results" / "token_analysis"
    shared.mkdir(parents=True)
    (shared / "of_others.json").write_text("{}")
    job = {
        "arguments": ["tokens", "subset", "--rule", "letters", "--quiet"],
        "machine": "CPU",
        "collect": ["token_analysis"],
    }
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump({"about": "One.", "jobs": {"one": job}}))
    in_cloud("lightning", "submit", str(file), "--name", "one")
    here = tmp_path / "r" / "token_analysis"
    found = {path.name for path in here.rglob("*") if path.is_file()}
    assert "english_vocab.json" in found
    assert "of_others.json" not in found


def test_mode_lightning_plans_each_training_with_machine_hours_and_cost(
    in_cloud: Run, tmp_path: Path
) -> None:
    told = json.loads(
        in_cloud("--mode", "lightning", "--dry-run", "--gpu-tier", "a100", "--json").stdout
    )
    assert (told["trials"], told["trainings"]) == (33, 23)
    assert {job["machine"] for job in told["jobs"]} == {"A100"}
    assert told["cost"] == pytest.approx(sum(job["hours"] * 5.68 for job in told["jobs"]))
    assert told["hours"] == pytest.approx(sum(job["hours"] for job in told["jobs"]))
    assert sum(len(job["trials"]) for job in told["jobs"]) == 33
    said = in_cloud("--mode", "lightning", "--dry-run", "--gpu-tier", "a100").stdout
    assert "33 trials in 23 trainings, a job each: 23 on A100 at 5.68 USD an hour" in said
    assert "model Qwen/Qwen3-4B; 33 trials: the default on 3 seeds, 30 other" in said
    assert "prices as of 2026-07-30, not verified" in said
    # Each on its own tier: Qwen3-4B does not fit on a processor of 16 GB.
    said = in_cloud("--mode", "lightning", "--dry-run", expect=2)
    assert "--gpu-tier a100" in said.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("auto_scale", "at_once"), [("true", 4), ("false", 1)])
def test_auto_scale_decides_how_many_run_at_once(
    in_cloud: Run, auto_scale: str, at_once: int
) -> None:
    told = in_cloud(
        *("study", "run", "--space", "quick", "--backend", "lightning", "--dry-run", "--json"),
        f"lightning_config.auto_scale={auto_scale}",
    )
    assert json.loads(told.stdout)["at_once"] == at_once


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--machine", "A100"], "--machine belongs to --backend lightning"),
        (["--backend", "lightning", "--hourly-price", "2"], "--hourly-price belongs to your own"),
        (["--backend", "lightning", "--per-gpu", "2"], "--per-gpu belongs to your own"),
        (["--backend", "lightning", "--machine", "T5", "--dry-run"], "no price of machine 'T5'"),
    ],
)
def test_options_that_do_not_go_together(in_cloud: Run, options: list[str], message: str) -> None:
    said = in_cloud("study", "run", "--space", "quick", *options, expect=2)
    assert message in said.stderr
