"""Memory, cores and GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuning import memory
from tuning.diagnosis import hardware
from tuning.diagnosis.checks import State
from tuning.memory import GIB


@pytest.mark.parametrize("kind", range(2), ids=("newer control groups", "older"))
def test_the_limit_of_a_container_is_the_memory_there_is(
    kind: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [tmp_path / "new", tmp_path / "old"]
    limits[kind].write_text(f"{GIB // 2}\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", tuple(limits))
    assert memory.total_memory() == GIB // 2
    found = hardware.look_at_memory()
    assert found.state is State.WARNING
    assert found.says.endswith("of 0.5 GiB by its container's limit")
    assert "--workers 1" in str(found.todo)


def test_no_limit_is_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "new").write_text("max\n")
    monkeypatch.setattr(memory, "_CONTAINER_LIMITS", (tmp_path / "new", tmp_path / "none"))
    assert memory.total_memory() > GIB // 2


@pytest.mark.parametrize(
    ("told", "state", "words"),
    [
        ("", State.OK, "OMP_NUM_THREADS is not set"),
        ("1", State.OK, "OMP_NUM_THREADS is 1"),
        ("99999", State.WARNING, "more than there are"),
        ("many", State.WARNING, "no number"),
    ],
)
def test_threads_that_were_told_are_held_against_cores(
    told: str, state: State, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    found = hardware.look_at_cores()
    assert found.state is state
    assert words in found.says


def test_without_a_gpu_torch_is_not_loaded() -> None:
    code = (
        "import sys\n"
        "from tuning.diagnosis import hardware\n"
        "found = hardware.look_at_gpu(())\n"
        "assert found.state == 'note' and 'tiny' in found.says, found\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_gpu_that_torch_was_not_built_for_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.9.0+cpu")
    found = hardware.look_at_gpu([tmp_path / "nvidiactl"])
    assert found.state is State.WARNING
    assert "pip install" in str(found.todo)


def test_a_gpu_that_torch_does_not_see_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nvidiactl").touch()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.9.0")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = hardware.look_at_gpu([tmp_path / "nvidiactl"])
    assert found.state is State.WARNING
    assert "torch 2.9.0 sees none" in found.says
