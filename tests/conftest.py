"""What tests share: small configurations of the embedded model, and the program as a process."""

from __future__ import annotations

import os

# Two workers share two cores; a thread each also makes results repeat. Before torch is imported.
os.environ["OMP_NUM_THREADS"] = "1"
# Studies have a mirror process by default; tests that want one say so.
os.environ["WANDB_MODE"] = "disabled"

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

# For make mutants: the first failing example is enough, and every run tries the same ones.
settings.register_profile(
    "mutants", phases=[Phase.explicit, Phase.generate], derandomize=True, deadline=None
)

SMALL: dict[str, Any] = {
    "experiment_name": "small",
    "timestamp": "20260101_000000",
    "tokenizer_config": {"model_name": "tiny"},
    "training_config": {
        "learning_rate": 1e-3,
        "max_steps": 12,
        "warmup_steps": 2,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_threads": 1,
    },
    "transfer_config": {"eval_frequency": 4},
    "evaluation_config": {"num_words": 30, "num_monitor_words": 6, "num_generated_items": 18},
}


@pytest.fixture
def small_config() -> Callable[..., Any]:
    """Return a function that builds a small configuration with dotted overrides."""
    from tuning.composition import overridden
    from tuning.config import build

    def make(*overrides: str) -> Any:
        return overridden(build(SMALL, "test"), overrides)

    return make


@pytest.fixture
def run_program(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs `python -m tuning` in an empty folder."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tuning", *arguments],
            cwd=options.pop("cwd", tmp_path),
            env={**os.environ, "COLUMNS": "200", **options.pop("env", {})},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )

    return run


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    """Return the program, run in an empty folder within this process; for tests/cli."""
    from cli_support import in_process

    return in_process(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="session")
def warm_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return one real worker process, which a test binds to its own results."""
    from backend_support import WarmWorker

    worker = WarmWorker(tmp_path_factory.mktemp("worker"))
    yield worker
    worker.close()


@pytest.fixture
def warm_studies(warm_worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have studies of the program use the warm worker: a start takes longer than they train."""
    warm_worker.serve(monkeypatch)


@pytest.fixture
def fast_path() -> Iterator[Path]:
    """Return an empty folder in memory, for tests that write thousands of files."""
    from backend_support import folder_in_memory

    with folder_in_memory() as folder:
        yield folder
