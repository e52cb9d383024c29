"""Jobs of a task as its ledger tells them: what was asked, given to the cloud, and what came of it.

The ledger is the truth: a line before every submission, and one after it. Who is killed in between
finds the job by its name when started again.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from tuning import files
from tuning.cloud_settings import MachineName
from tuning.errors import ResultsError, shown
from tuning.paths import CloudTaskFolder, checked_name


def _job_name(name: str) -> str:
    return checked_name(name, "job")


class JobSpec(BaseModel):
    """One job, as it is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, AfterValidator(_job_name)]
    command: str
    machine: MachineName
    env: Mapping[str, str] = {}
    """Never a secret."""
    needs: tuple[str, ...] = ()
    """Jobs that must have been done before."""
    priority: float = 0.0
    """Expected impact; the higher goes first."""
    why: str = ""
    """What the priority rests on."""
    hours: float | None = None
    """That it is expected to take; None where nothing is known."""
    max_hours: Annotated[float, Field(gt=0)] = 24.0
    """After which its machine ends it."""
    retries: Annotated[int, Field(ge=0)] = 0
    """Times that it is submitted again after its machine was lost."""
    spot: bool = False
    identity: str = ""
    """Of two jobs of one name, those with equal identity are the same work."""


class Stage(StrEnum):
    """How far a job has come."""

    WAITING = "waiting"
    SUBMITTED = "submitted"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Of its own fault, or because its machine was lost once too often."""
    LOST = "lost"
    """Its machine was taken away, and it may not be submitted again."""
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """What it needs was not done."""

    @property
    def is_live(self) -> bool:
        """Whether the cloud has it, as far as is known."""
        return self in (Stage.SUBMITTED, Stage.RUNNING)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return not self.is_live and self is not Stage.WAITING


@dataclass(slots=True, kw_only=True)
class Submission:
    """One time that a job was given to the cloud."""

    number: int
    cloud_name: str
    machine: str
    per_hour: float
    spot: bool
    env: Mapping[str, str] = field(default_factory=dict)
    cloud_id: str | None = None
    """None until the cloud has said that it has it."""
    at: float = 0.0
    started: float | None = None
    stopped: float | None = None
    metered: float = 0.0
    """US dollars, from its time and its price."""
    settled: float | None = None
    """US dollars, by the cloud, once they move no more."""
    said: list[float] = field(default_factory=list)
    """The last answers of the cloud, until they are equal."""

    def seconds(self, now: float) -> float:
        """Return how long it has had its machine."""
        if self.started is None:
            return 0.0
        return max(0.0, (self.stopped if self.stopped is not None else now) - self.started)

    def cost(self, now: float) -> float:
        """Return US dollars: settled, else metered so far."""
        if self.settled is not None:
            return self.settled
        return max(self.metered, self.seconds(now) * self.per_hour / 3600)


@dataclass(slots=True)
class JobRun:
    """A job and what has become of it."""

    spec: JobSpec
    place: int = 0
    """In the order in which jobs were planned."""
    stage: Stage = Stage.WAITING
    submissions: list[Submission] = field(default_factory=list)
    message: str = ""
    num_lost: int = 0
    """Times that its machine was taken away."""
    num_lost_since_planned: int = 0
    """The same since it was asked for last: who asks again may lose as many once more."""
    not_before: float = 0.0
    refused_since: float | None = None
    """When the cloud first had no machine for it, in a row."""
    is_cancelled: bool = False
    is_collected: bool = False
    """Whether what it wrote has been taken in."""
    unseen_since: float | None = None
    """When its outcome was first missed."""
    outcome: Outcome | None = None

    @property
    def current(self) -> Submission | None:
        """The newest submission."""
        return self.submissions[-1] if self.submissions else None

    def cost(self, now: float) -> float:
        """Return US dollars of all its submissions."""
        return sum(submission.cost(now) for submission in self.submissions)

    def estimate(self, price_of: Callable[[str], float]) -> float | None:
        """Return US dollars that it is expected to cost, or None where nothing is known."""
        return None if self.spec.hours is None else self.spec.hours * price_of(self.spec.machine)


class Outcome(BaseModel):
    """What a job says of itself when it ends; a job whose machine was lost says nothing."""

    model_config = ConfigDict(extra="ignore")

    is_well: bool
    message: str = ""
    trials: dict[str, tuple[str, str]] = {}
    """Of a job with trials: how each ended, and a message."""
    manifest: str = ""
    """SHA-256 of the list of what it left, so that an older list is not taken for the last."""


# --- the ledger ---------------------------------------------------------------------------------

_NUMBER = (int, float)
_EVENTS: Mapping[str, Mapping[str, Any]] = {
    "begun": {"id": str},
    "planned": {"job": str, "spec": dict},
    "submitting": {
        "job": str,
        "number": int,
        "cloud_name": str,
        "machine": str,
        "per_hour": _NUMBER,
    },
    "submitted": {"job": str, "cloud_name": str, "cloud_id": str},
    "running": {"job": str, "started": _NUMBER},
    "lost": {"job": str, "message": str},
    "waiting": {"job": str},
    "ended": {"job": str, "stage": str},
    "collected": {"job": str},
    "settled": {"job": str, "number": int, "cost": _NUMBER},
}
"""What lines of the ledger must hold; of others nothing is read."""


def _check_line(line: Mapping[str, Any]) -> None:
    files.check_types(line, {"event": str, "at": _NUMBER})
    files.check_types(line, _EVENTS.get(line["event"], {}))
    if line["event"] == "ended" and line["stage"] not in list(Stage):
        raise ValueError(f"stage is {shown(line['stage'])}")


@dataclass
class Ledger:
    """All jobs of a task, as its file tells them."""

    folder: CloudTaskFolder
    id: str = ""
    """Makes the names of its jobs its own in a teamspace."""
    runs: dict[str, JobRun] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: CloudTaskFolder) -> Ledger:
        """Read the ledger of a task; an empty one where there is none.

        Raises:
            ResultsError: It is damaged.
        """
        ledger = cls(folder)
        for line in files.read_json_lines(folder.jobs, _check_line):
            try:
                ledger._apply(line)
            except (ValidationError, KeyError) as error:
                raise ResultsError(f"{folder.jobs} is damaged: {error}") from error
        return ledger

    def note(self, event: str, **values: Any) -> None:
        """Write a line, and take it in.

        Raises:
            ResultsError: The disk refuses.
        """
        line = {"event": event, "at": time.time(), **values}
        files.append_json_line(self.folder.jobs, line)
        self._apply(line)

    def begin(self) -> None:
        """Give the task its id, once."""
        if not self.id:
            self.note("begun", id=secrets.token_hex(3))

    def cost(self, now: float | None = None) -> float:
        """Return US dollars of all jobs so far."""
        return sum(run.cost(time.time() if now is None else now) for run in self.runs.values())

    def _apply(self, line: Mapping[str, Any]) -> None:
        kind = line["event"]
        if kind == "begun":
            self.id = line["id"]
        elif kind == "planned":
            spec = JobSpec.model_validate(line["spec"])
            known = self.runs.get(spec.name)
            if known is None:
                self.runs[spec.name] = JobRun(spec, place=len(self.runs))
            else:
                known.spec, known.stage = spec, Stage.WAITING
                known.is_cancelled = known.is_collected = False
                known.outcome, known.message, known.num_lost_since_planned = None, "", 0
        elif kind in _EVENTS:
            _APPLY[kind](self.runs[line["job"]], line)


def _submitting(run: JobRun, line: Mapping[str, Any]) -> None:
    run.stage, run.unseen_since = Stage.SUBMITTED, None
    if run.submissions and run.submissions[-1].number == line["number"]:
        # The cloud never had it: this is the same one, tried again.
        run.submissions.pop()
    run.submissions.append(
        Submission(
            number=line["number"],
            cloud_name=line["cloud_name"],
            machine=line["machine"],
            per_hour=line["per_hour"],
            spot=bool(line.get("spot")),
            env=run.spec.env,
            at=line["at"],
        )
    )


def _submitted(run: JobRun, line: Mapping[str, Any]) -> None:
    submission = run.submissions[-1]
    submission.cloud_name, submission.cloud_id = line["cloud_name"], line["cloud_id"]


def _running(run: JobRun, line: Mapping[str, Any]) -> None:
    run.stage = Stage.RUNNING
    run.submissions[-1].started = line["started"]


def _lost(run: JobRun, line: Mapping[str, Any]) -> None:
    run.num_lost += 1
    run.num_lost_since_planned += 1
    run.message = line["message"]


def _waiting(run: JobRun, line: Mapping[str, Any]) -> None:
    """Take back a submission: it was refused, or is to be made again."""
    run.stage = Stage.WAITING
    run.message = line.get("message") or run.message
    _close(run, line)


def _ended(run: JobRun, line: Mapping[str, Any]) -> None:
    run.stage = Stage(line["stage"])
    run.message = line.get("message") or ""
    _close(run, line)


def _collected(run: JobRun, line: Mapping[str, Any]) -> None:
    run.is_collected = True


def _close(run: JobRun, line: Mapping[str, Any]) -> None:
    if run.submissions:
        last = run.submissions[-1]
        if last.stopped is None:
            last.started = line.get("started") or last.started
            last.stopped = line.get("stopped") or line["at"]
            last.metered = last.seconds(last.stopped) * last.per_hour / 3600


def _settled(run: JobRun, line: Mapping[str, Any]) -> None:
    for submission in run.submissions:
        if submission.number == line["number"]:
            submission.settled = line["cost"]


_APPLY: Mapping[str, Callable[[JobRun, Mapping[str, Any]], None]] = {
    "submitting": _submitting,
    "submitted": _submitted,
    "running": _running,
    "lost": _lost,
    "waiting": _waiting,
    "ended": _ended,
    "collected": _collected,
    "settled": _settled,
}
