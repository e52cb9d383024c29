"""When a study has a mirror process, and when it has none."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tuning.cli.mirroring import FOLLOW, mirrored
from tuning.cli.options import TrackingMode
from tuning.errors import UserError
from tuning.paths import ResultsRoot


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands of the processes that would be started; each ends at once."""
    commands: list[list[str]] = []
    real = subprocess.Popen

    def remember(command: list[str], **given: Any) -> Any:
        commands.append(command)
        return real(["true"], **given)

    monkeypatch.setattr(subprocess, "Popen", remember)
    return commands


@pytest.mark.parametrize(
    ("asked", "environment", "is_offline"),
    [
        (None, None, True),
        (None, "online", False),
        (None, "disabled", None),
        (None, "dryrun", True),
        (TrackingMode.DISABLED, "online", None),
        (TrackingMode.OFFLINE, "online", True),
        (TrackingMode.ONLINE, "disabled", False),
    ],
)
def test_what_is_asked_wins_over_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    started: list[list[str]],
    asked: TrackingMode | None,
    environment: str | None,
    is_offline: bool | None,
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    if environment is not None:
        monkeypatch.setenv("WANDB_MODE", environment)
    with mirrored(ResultsRoot(tmp_path), "one", asked):
        assert len(started) == (is_offline is not None)
    for command in started:
        assert FOLLOW in command
        assert ("--offline" in command) == is_offline


def test_without_wandb_only_what_was_asked_for_is_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[list[str]]
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for asked in (None, TrackingMode.DISABLED):
        with mirrored(ResultsRoot(tmp_path), "one", asked):
            pass
    with (
        pytest.raises(UserError, match="--tracking online needs Weights & Biases: pip install"),
        mirrored(ResultsRoot(tmp_path), "one", TrackingMode.ONLINE),
    ):
        pass
    assert started == []
