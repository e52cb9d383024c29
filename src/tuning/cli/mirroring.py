"""The mirror process: while a study runs, its trials become runs of Weights & Biases.

It reads the folders alone. Nothing waits for it, and if it dies a later `tuning wandb sync` does
what it has not done. It ends when its standard input does: with the process that started it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuning.cli.options import TrackingMode
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot

FOLLOW = "--follow"
"""The hidden option of `tuning wandb sync` with which it goes on until its input ends."""


@contextlib.contextmanager
def mirrored(root: ResultsRoot, study: str, mode: TrackingMode | None) -> Iterator[None]:
    """Have a mirror process follow a study until the block ends.

    Args:
        root: Where the study is.
        study: Its name.
        mode: None takes wandb's own WANDB_MODE, or offline; then a machine without wandb is no
            mistake.

    Raises:
        UserError: The mode was asked for, and wandb is not installed.
    """
    chosen = mode or _mode_of_the_environment()
    is_installed = importlib.util.find_spec("wandb") is not None
    if mode not in (None, TrackingMode.DISABLED) and not is_installed:
        raise UserError(
            f"--tracking {chosen} needs Weights & Biases: pip install 'tuning[wandb]'; --tracking "
            f"disabled does without"
        )
    if chosen is TrackingMode.DISABLED or not is_installed:
        yield
        return
    process = _started(root, study, chosen)
    try:
        yield
    finally:
        assert process.stdin is not None
        # Its sign to look a last time, and to end.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


def _mode_of_the_environment() -> TrackingMode:
    said = os.environ.get("WANDB_MODE", "")
    return TrackingMode(said) if said in list(TrackingMode) else TrackingMode.OFFLINE


def _started(root: ResultsRoot, study: str, mode: TrackingMode) -> subprocess.Popen[bytes]:
    from tuning import files

    command = [sys.executable, "-m", "tuning", "wandb", "sync", study, FOLLOW, "--quiet"]
    command += ["--results-dir", str(root.root.absolute())]
    if mode is TrackingMode.OFFLINE:
        command.append("--offline")
    log = root.mirror_log(study)
    files.make_folder(log.parent)
    with files.readable_os_errors(log), log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the study.
            start_new_session=True,
        )
    _give_way(process.pid)
    return process


def _give_way(pid: int) -> None:
    """Let trials go first wherever both want the processor."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(pid).nice(_NICENESS)


_NICENESS = 10
