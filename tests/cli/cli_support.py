"""The program run within the test process: libraries are loaded once, not for every command."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests_support import small_mapping
from tuning.cli.main import main
from tuning.config import build
from tuning.fingerprint import training_key
from tuning.paths import ResultsRoot
from tuning.trial import TrialRequest, run_trial


class Done(NamedTuple):
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str

    def assert_one_clear_line(self, *words: str) -> None:
        assert self.returncode == 2, self.stderr
        assert self.stdout == ""
        lines = self.stderr.strip().splitlines()
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("tuning: ")
        for word in words:
            assert word in lines[0]


Program = Callable[..., Done]


def in_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    """Return a function that runs the program in a folder."""
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path, typed: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["tuning", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        capsys.readouterr()
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        assert isinstance(code, int)
        return Done(code, *capsys.readouterr())

    return run


def files_below(folder: Path) -> list[str]:
    """Return the names of all files in a folder and below."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


class TrainedAdapter(NamedTuple):
    """An adapter that a trial made, with the results it belongs to."""

    adapter: Path
    results: Path


@functools.cache
def trained_adapter(folder: Path) -> TrainedAdapter:
    """Train tiny for four steps, as any trial would; once for all test files of a process."""
    raw = small_mapping()
    raw["training_config"]["max_steps"] = 4
    raw["evaluation_config"] = {
        "num_words": 10,
        "num_monitor_words": 3,
        "num_generated_items": 9,
    }
    config = build(raw, "test")
    root = ResultsRoot(folder)
    run_trial(TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t"), root)
    return TrainedAdapter(root.training(training_key(config)).adapter(4), root.root)
