"""The table of a study: whole numbers at any width, and why a trial ended."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tuning.cli.live import status_table
from tuning.monitor import StudyStatus, TrialView


def a_status() -> StudyStatus:
    running = TrialView(
        trial_id="0012-f6fa7209",
        label="learning_rate=0.0005, lora_r=16, spelling_difficulty=hard",
        seed=0,
        state="running",
        step=1250,
        max_steps=5000,
        loss=1.2345,
        spelling=0.378,
        position=0.644,
        count=0.569,
        score=0.701,
        steps_per_second=1.25,
        eta_seconds=3000,
        seconds=1000,
    )
    pruned = TrialView(
        trial_id="0013-adaa8091",
        label="lora_r=4",
        seed=0,
        state="pruned",
        step=300,
        max_steps=1000,
        note="poor on both at step 300",
    )
    return StudyStatus(
        study="s",
        is_running=True,
        num_planned=30,
        counts={"running": 1, "pruned": 1, "waiting": 28},
        worker_seconds=1200,
        eta_seconds=None,
        trials=[running, pruned],
    )


def drawn(width: int, *, only_moving: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(status_table(a_status(), width, only_moving=only_moving))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    return text


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_numbers_are_whole_at_any_width(width: int) -> None:
    text = drawn(width)
    for number in ("1250/5000", "1.234", "37.8 %", "64.4 %", "56.9 %", "running", "50:00"):
        assert number in text, number
    assert "poor on both at step 300" in text


def test_what_is_wide_also_says_what_a_trial_differs_in_and_costs() -> None:
    text = drawn(160)
    assert "learning_rate=0.0005" in text
    assert "16:40" in text
    assert "learning_rate" not in drawn(80)


def test_the_screen_of_a_running_study_shows_what_moves() -> None:
    text = drawn(120, only_moving=True)
    assert "0012-f6fa7209" in text
    assert "0013-adaa8091" not in text
    assert "of 30: 1 pruned, 1 running, 28 waiting" in text
