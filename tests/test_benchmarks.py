"""Every speed comparison runs, in its smallest form; figures are made by `make bench`, never here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "step", "evaluation", "growth", "startup"])
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
