"""`tuning config memory`, and trials that are refused because they cannot fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli_support import Program

from tests_support import small_mapping
from tuning.memory import GIB, Machine

LARGE = ("config", "memory", "models=qwen3-4b")


def test_a_trial_that_cannot_fit_is_refused_before_its_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, program: Program, tmp_path: Path
) -> None:
    small = Machine("this machine", GIB // 2, has_gpu=False, precision="32-true")
    monkeypatch.setattr("tuning.trial.this_machine", lambda: small)
    monkeypatch.setattr("tuning.memory.total_memory", lambda: GIB // 2)
    monkeypatch.setattr("tuning.trial.load_bench", lambda config: pytest.fail("it was loaded"))
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(small_mapping()), "utf-8")
    says = ("tiny needs about", "this machine has 0.5 GiB")
    for more in ((), ("--dry-run",)):
        program("trial", "--config", "exp.yaml", *more).assert_one_clear_line(*says)
    program("study", "run", "--space", "quick", "--quiet").assert_one_clear_line(*says)


def test_the_command_says_what_fits_and_refuses_what_does_not(program: Program) -> None:
    done = program(*LARGE, "--machine", "t4")
    assert done.returncode == 0
    assert done.stdout.startswith("Qwen/Qwen3-4B on a T4: about ")
    answer = json.loads(program(*LARGE, "--machine", "a100", "--json").stdout)
    assert answer["total"] < answer["usable"]
    refused = program(*LARGE, "batch_size=512", "grad_accum_steps=1", "--machine", "t4")
    assert refused.returncode == 2
    assert "grad_accum_steps=" in refused.stderr
    assert "would fit" in refused.stderr
    program(*LARGE, "--machine", "a1000").assert_one_clear_line("did you mean a100?")
    assert program("config", "memory", "models=tiny", "--machine", "here").returncode == 0
