"""Whether results can be kept where they go: room, rights, locks, and renames that are whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tuning import files
from tuning.diagnosis.checks import Check, failure, ok, warning
from tuning.errors import UserError

_ENOUGH_DISK = 2e9
_ELSEWHERE = "name a folder on a disk of this machine: --results-dir FOLDER"
_SECONDS = 30

_TRY_TO_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "a")
try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
"""


def look_at_disk(results_dir: Path) -> Check:
    """Return how much room there is for results."""
    place = _nearest(results_dir)
    free = shutil.disk_usage(place).free
    says = f"{free / 1e9:.1f} GB free in {place.absolute()}"
    if free < _ENOUGH_DISK:
        todo = "make room, see what studies can spare: tuning study clean NAME --dry-run"
        return warning("disk", says, todo)
    return ok("disk", says)


def look_at_results_folder(results_dir: Path) -> Check:
    """Return whether a folder of this place can be written, locked and renamed into.

    Writes, as a trial does, into a temporary folder, and removes it.
    """
    place = _nearest(results_dir)
    new = "" if place == results_dir else f" ({results_dir} will be made there)"
    try:
        with tempfile.TemporaryDirectory(dir=place, prefix=".tuning_doctor_") as temporary:
            problem = _problem(Path(temporary))
    except (UserError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        says = f"{place.absolute()} cannot be written: {reason}"
        return failure("results", says, f"chmod u+w {place}, or {_ELSEWHERE}")
    if problem:
        return failure("results", f"{place.absolute()}: {problem}", _ELSEWHERE)
    return ok("results", f"{place.absolute()} takes files, locks and renames{new}")


def _nearest(folder: Path) -> Path:
    """Return the folder, or the nearest above it that exists: looking makes nothing."""
    existing = (p for p in (folder, *folder.absolute().parents) if p.exists())
    return next(existing)


def _problem(folder: Path) -> str | None:
    """Return what a trial could not rely on in a folder, or None.

    Raises:
        UserError: It cannot be written.
        OSError: Likewise, for a reason that has no words of ours.
    """
    file = folder / "file"
    for content in ("old", "new"):
        files.write_atomic(file, content)
    if file.read_text("utf-8") != "new":
        return "a renamed file does not replace the old one"
    lock = folder / "lock"
    # Another process must ask: on some network file systems, locks bind processes, not files.
    command = [sys.executable, "-I", "-S", "-c", _TRY_TO_LOCK, str(lock)]
    try:
        with files.exclusive_lock(lock, "a look"):
            done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except OSError as error:
        return f"locks (flock) do not work: {error.strerror}"
    except subprocess.TimeoutExpired:
        return "locks (flock) do not answer"
    if done.returncode != 3:
        return "locks (flock) do not keep another process out"
    return None
