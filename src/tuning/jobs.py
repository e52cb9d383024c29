"""What a driver and the places where trials run say to each other. No torch.

A job is one attempt to bring one trial forward. Facts travel in folders; what a backend says of a
job only tells the driver to look.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict

from tuning import files
from tuning.config import ExperimentConfig
from tuning.errors import ResultsError
from tuning.fingerprint import training_key
from tuning.paths import TrainingFolder
from tuning.scoring import accuracy_name
from tuning.tasks.items import SCORED_TASKS


class Job(BaseModel):
    """One attempt to bring a trial forward: to its end, or to a step where it pauses."""

    model_config = ConfigDict(frozen=True)

    study: str
    trial_id: str
    config: ExperimentConfig
    parameters: dict[str, Any] = {}
    seed: int = 0
    weights: tuple[float, float] | None = None
    """The study's score weights."""
    budgets: tuple[int, ...] = ()
    """Steps at which other trials will ask for the same training's adapter."""
    until: int | None = None
    """Step at which it pauses; None to go to the end."""
    attempt: int = 1
    """Fencing number: of two attempts on one training, only the higher may write."""

    @property
    def training_key(self) -> str:
        """The training that the trial needs."""
        return training_key(self.config)


class How(StrEnum):
    """How a job ended."""

    RETURNED = "returned"
    """The folders say what came of it."""
    BUSY = "busy"
    """Another process works on the training; try again later."""
    KILLED = "killed"
    """Its process, or its machine, is gone."""
    HUNG = "hung"
    """It made no progress and was killed."""
    OUT_OF_MEMORY = "out_of_memory"
    """It used more memory than it may and was killed."""
    CANCELLED = "cancelled"
    """A person ended it, where it ran."""
    DISK = "disk"
    """Its results could not be written."""


class Ended(NamedTuple):
    """A job that ended."""

    job: Job
    how: How
    message: str = ""
    seconds: float = 0.0
    """For which it held a worker."""


class Backend(Protocol):
    """A place where trials run. The driver sees nothing else of it."""

    @property
    def num_slots(self) -> int:
        """Jobs that it runs at once, as far as is known now."""

    def submit(self, job: Job) -> None:
        """Begin a job; called when fewer than `num_slots` are running."""

    def poll(self, seconds: float) -> list[Ended]:
        """Return the jobs that ended; wait for one up to so many seconds.

        Raises:
            UserError: Nothing can run here any more.
        """

    def pull(self, job: Job) -> None:
        """Bring the driver's copy of the job's training and trial up to date."""

    def request_stop(self, job: Job) -> None:
        """Have a running job finish its step, write a checkpoint and return."""

    def cancel(self, job: Job) -> None:
        """End a running job at once; it is still reported by `poll`."""

    def close(self) -> None:
        """End everything at once."""

    def now(self) -> float:
        """Return the time in seconds, from any beginning."""


# --- wishes -----------------------------------------------------------------------------------


class SupersededError(RuntimeError):
    """A newer attempt owns the training: this one must not write any more."""


def claim(folder: TrainingFolder) -> int:
    """Make a new attempt the owner of a training, and return its fencing number.

    Only for who holds the training's `driver_lock`: whoever else has an attempt under way loses it.

    Raises:
        ResultsError: The disk refuses.
    """
    last = _read(folder.control).get("attempt")
    attempt = last + 1 if isinstance(last, int) else 1
    write_wish(folder, attempt, stop=False)
    return attempt


def was_overtaken(folder: TrainingFolder, attempt: int) -> bool:
    """Whether a newer attempt owns the training."""
    newest = _read(folder.control).get("attempt")
    return isinstance(newest, int) and newest > attempt


def write_wish(folder: TrainingFolder, attempt: int, *, stop: bool) -> None:
    """Say which attempt owns a training, and whether it is to stop.

    Raises:
        ResultsError: The disk refuses.
    """
    files.write_json(folder.control, {"attempt": attempt, "stop": stop})


class Wish:
    """Reads what the driver wishes of an attempt; cheap enough to be asked at every step."""

    def __init__(self, folder: TrainingFolder, attempt: int) -> None:
        """Read the wishes for one attempt on a training."""
        self._path = folder.control
        self._attempt = attempt
        self._looked = 0.0
        self._stop = False

    def is_to_stop(self) -> bool:
        """Whether the attempt is to stop after the step under way.

        Raises:
            SupersededError: A newer attempt owns the training.
        """
        if time.monotonic() - self._looked > _LOOK_SECONDS:
            self.check()
            self._looked = time.monotonic()
        return self._stop

    def check(self) -> None:
        """Look now.

        Raises:
            SupersededError: A newer attempt owns the training.
        """
        wish = _read(self._path)
        if wish.get("attempt", self._attempt) != self._attempt:
            raise SupersededError(f"attempt {wish['attempt']} took over from {self._attempt}")
        self._stop = bool(wish.get("stop", False))


_LOOK_SECONDS = 0.1


def _read(path: Path) -> dict[str, Any]:
    try:
        found = files.read_json(path)
    except ResultsError:
        # Not there, or torn by a kill from outside: nobody wishes anything.
        return {}
    return found if isinstance(found, dict) else {}


# --- progress ---------------------------------------------------------------------------------


class Tail:
    """Reads the new whole lines of an append-only file of JSON lines."""

    def __init__(self, path: Path, check: Callable[[Mapping[str, Any]], None]) -> None:
        """Begin at the first line; `check` raises ValueError for what no line may be."""
        self._path = path
        self._check = check
        self._offset = self._num_lines = 0
        self._stamp: tuple[int, int] | None = None

    def is_rewritten(self) -> bool:
        """Whether the file is another one, or shorter, than when it was read last."""
        try:
            status = self._path.stat()
        except OSError:
            return self._stamp is not None
        return self._stamp is not None and (
            status.st_ino != self._stamp[0] or status.st_size < self._offset
        )

    def restart(self) -> None:
        """Begin at the first line again."""
        self._offset, self._num_lines, self._stamp = 0, 0, None

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines that were added; a torn last line is left for later.

        Raises:
            ResultsError: A whole line is damaged.
        """
        try:
            status = self._path.stat()
            if self._stamp is not None and status.st_size == self._offset:
                return []
            files.check_is_readable(self._path)
            with self._path.open("rb") as file:
                file.seek(self._offset)
                raw = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ResultsError(f"cannot read {self._path}: {error.strerror}") from error
        whole = raw.rfind(b"\n") + 1
        # Before what was read counts as told: who asks again after an error must get it again.
        found = [
            files.checked_line(line, f"{self._path} line {number}", self._check)
            for number, line in enumerate(raw[:whole].split(b"\n")[:-1], self._num_lines + 1)
        ]
        self._offset += whole
        self._num_lines += len(found)
        self._stamp = (status.st_ino, self._offset)
        return found


def check_progress(line: Mapping[str, Any]) -> None:
    """Refuse what is no line of a training's progress.

    Raises:
        ValueError: It is none.
    """
    files.check_types(line, {"step": int, "kind": str})
    if line["kind"] == "train":
        files.check_types(line, {"loss": (int, float), "num_tokens": int})
    elif line["kind"] == "evaluation":
        files.check_types(line, {accuracy_name(task): (int, float) for task in SCORED_TASKS})


def read_progress(folder: TrainingFolder) -> list[dict[str, Any]]:
    """Return the lines of a training's progress.

    Raises:
        ResultsError: One is damaged.
    """
    return files.read_json_lines(folder.progress, check_progress)


Tell = Callable[[int, Mapping[str, float]], None]
"""Told of every optimizer step, and of the share of an evaluation that is done."""

Runner = Callable[[Job, Path, Tell], tuple[How, str]]
"""Runs a job below a results root, in the worker."""

TRIAL_RUNNER = "tuning.trial:run_job"
"""The one that trains and evaluates: ``module:function``."""
