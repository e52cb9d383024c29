"""Progress and the guard against divergence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tuning import files
from tuning.training.callbacks import NotANumberError, ProgressFile


def trainer(step: int) -> Any:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.5}])
    return SimpleNamespace(optimizers=[optimizer], max_steps=100, global_step=step)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, loss: float) -> None:
    module = cast(Any, SimpleNamespace(step_loss=loss, num_tokens=1))
    with pytest.raises(NotANumberError, match="at step 3"):
        ProgressFile(tmp_path / "p.jsonl").on_step_end(trainer(3), module, 3)


def test_a_line_is_written_every_ten_steps_and_once(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    module = cast(Any, SimpleNamespace(step_loss=1.5, num_tokens=7))
    for _ in range(2):
        progress = ProgressFile(path)
        for step in range(1, 31):
            progress.on_step_end(trainer(step), module, step)
    lines = files.read_json_lines(path)
    assert [line["step"] for line in lines] == [10, 20, 30]
    assert lines[0]["loss"] == 1.5
    assert lines[0]["learning_rate"] == 0.5


def test_lines_past_a_checkpoint_are_cut(tmp_path: Path) -> None:
    progress = ProgressFile(tmp_path / "p.jsonl")
    for step in (10, 20, 30):
        progress.write(step, "train", {"loss": 1.0, "num_tokens": 8 * step})
    progress.go_on_after(20)
    assert [line["step"] for line in files.read_json_lines(progress.path)] == [10, 20]
    progress.write(30, "train", {"loss": 2.0})
    assert files.read_json_lines(progress.path)[-1] == {"step": 30, "kind": "train", "loss": 2.0}
