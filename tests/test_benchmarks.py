"""Every speed comparison runs, in its smallest form; figures are made by `make bench`, never here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "evaluation",
        *(
            pytest.param(n, marks=pytest.mark.nightly)
            for n in ("study", "step", "growth", "startup")
        ),
    ],
)
def test_a_comparison_runs(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CHECKOUT / "benchmarks" / "run.py"), "--quick", "--only", name],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"## {name}" in done.stdout
    assert done.stdout.count("| --- |") >= 1


@pytest.mark.nightly
def test_the_estimate_of_memory_is_near_what_a_model_as_wide_as_qwen3_4b_takes() -> None:
    program = str(CHECKOUT / "benchmarks" / "full_size.py")
    done = subprocess.run(
        [sys.executable, program, "--layers", "4", "--json"],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
    for row in json.loads(done.stdout.splitlines()[-1])["rows"]:
        for phase in ("train", "evaluate"):
            assert 0.75 < row["estimate"][phase] / row[phase]["bytes"] < 1.35
