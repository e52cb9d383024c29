"""Trials as jobs of Lightning.AI: one job a training, on the machine of its configuration.

What jobs write comes back by their artifacts, each file held against its checksum; a record is
taken last, so its presence says that all the rest is here. Jobs outlive the driver: one that is
started again finds them by its ledger.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pydantic import ValidationError

from tuning import files
from tuning.backends import transport
from tuning.backends.cloud_job import HOME, MANIFEST, OUTCOME, PARCELS, VARIABLE, Entry, Manifest
from tuning.backends.cloud_job import Payload as JobPayload
from tuning.backends.process import Limits
from tuning.backends.transport import Parcel
from tuning.cloud_ledger import JobRun, JobSpec, Outcome, Stage
from tuning.cloud_settings import CloudSettings, family_of, machine_for
from tuning.config import ExperimentConfig
from tuning.errors import CloudError, LockedError, NotFoundError, ResultsError
from tuning.jobs import TRIAL_RUNNER, Ended, How, Job, write_wish
from tuning.lightning_integration import Cloud
from tuning.lightning_jobs import Scheduler
from tuning.paths import ResultsRoot, checked_name
from tuning.records import intact_record
from tuning.studios import shared_variables


class Drive:
    """What jobs have left in their homes, and wishes for those that run."""

    def __init__(self, cloud: Cloud, settings: CloudSettings) -> None:
        """Set where jobs are."""
        self._cloud, self._settings = cloud, settings

    def outcome(self, run: JobRun) -> Outcome | None:
        """Return what a job said when it ended, or None where it said nothing (yet).

        Raises:
            CloudError: The cloud does not answer.
        """
        assert run.current is not None
        raw = self._read(f"{self._home(run)}/{OUTCOME}")
        if raw is None:
            return None
        try:
            return Outcome.model_validate_json(raw)
        except ValidationError:
            # A file that has not landed whole.
            return None

    def manifest(self, run: JobRun) -> tuple[Manifest, bool]:
        """Return what a job offers, and whether that is its last word.

        Raises:
            CloudError: The cloud does not answer.
        """
        raw = self._read(f"{self._home(run)}/{MANIFEST}") or b"{}"
        wanted = run.outcome.manifest if run.outcome is not None else ""
        is_last = wanted in ("", hashlib.sha256(raw).hexdigest())
        with contextlib.suppress(ValidationError):
            return Manifest.model_validate_json(raw), is_last
        return Manifest(), False

    def parcel(
        self, run: JobRun, folder: str, name: str, inner: Mapping[str, Entry]
    ) -> Parcel | None:
        """Fetch one parcel, or return None where it has not landed whole, or is gone.

        Raises:
            ResultsError: A name would leave its folder.
            CloudError: The cloud does not answer.
        """
        content: dict[str, bytes] = {}
        for file, entry in inner.items():
            path = _safe(f"{folder}/{name}/{file}" if file else f"{folder}/{name}")
            raw = self._read(f"{self._home(run)}/{PARCELS}/{path}")
            if raw is None or hashlib.sha256(raw).hexdigest() != entry.sha256:
                return None
            content[file] = raw
        return Parcel(name, tuple((f, len(c), 0) for f, c in sorted(content.items())), content)

    def _home(self, run: JobRun) -> str:
        assert run.current is not None
        return f"{self._cloud.artifacts_of(run.current.cloud_name)}/{HOME}"

    def _read(self, path: str) -> bytes | None:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "file"
            try:
                self._cloud.download(path, target)
            except NotFoundError:
                return None
            return target.read_bytes() if target.is_file() else None

    def newest_attempt(self, training_key: str) -> int:
        """Return the attempt that owns a training on the drive, whichever driver began it.

        Returns:
            0 where nobody has worked on it, or where it cannot be said.
        """
        path = ResultsRoot(Path()).training(training_key).control.as_posix()
        with contextlib.suppress(CloudError, ValueError, KeyError, TypeError):
            raw = self._read(f"{self._settings.studio.drive_folder}/results/{path}")
            return int(json.loads(raw or b"{}").get("attempt", 0))
        return 0

    def write_wish(self, training_key: str, attempt: int) -> None:
        """Have a running job's training stop after its step.

        Raises:
            CloudError: The cloud does not answer.
        """
        with tempfile.TemporaryDirectory() as folder:
            own = ResultsRoot(Path(folder)).training(training_key)
            write_wish(own, attempt, stop=True)
            path = own.control.relative_to(folder).as_posix()
            self._cloud.upload(own.control, f"{self._settings.studio.drive_folder}/results/{path}")


def collect(drive: Drive, run: JobRun, root: ResultsRoot) -> bool:
    """Bring what a command wrote below its results folder to the same places below ours.

    Returns:
        Whether all of it is here.

    Raises:
        ResultsError: The disk refuses, or a name would leave the folder.
        CloudError: The cloud does not answer.
    """
    offered, is_whole = drive.manifest(run)
    for name, inner in offered.folders.get("results", {}).items():
        parcel = drive.parcel(run, "results", name, inner)
        if parcel is None:
            is_whole = False
            continue
        transport.unpack(root.root, [parcel])
    return is_whole


def _safe(path: str) -> str:
    """Refuse a path that would leave its folder.

    Raises:
        ResultsError: It would.
    """
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ResultsError(f"a job offers a file of an unsafe name: {path!r}")
    return path


def shared_results(settings: CloudSettings) -> str:
    """Return the results root that all jobs of a teamspace share."""
    return f"{settings.studio.shared_folder}/results"


def command_of(settings: CloudSettings, max_hours: float) -> str:
    """Return what every job of ours runs: what it does stands in its variables."""
    seconds = int(3600 * max_hours)
    return (
        f"timeout --kill-after=120 {seconds} {settings.studio.python} -m tuning.backends.cloud_job"
    )


@dataclass
class _Handle:
    """A trial that the driver waits for."""

    job: Job
    run: JobRun | None = None
    """None where its record was fetched with another trial's."""
    ended: Ended | None = None
    pulled_at: float = 0.0
    missing_since: float | None = None
    wishes_to_stop: bool = False
    locks: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class LightningBackend:
    """Jobs of Lightning.AI; implements `jobs.Backend`."""

    def __init__(
        self,
        root: ResultsRoot,
        cloud: Cloud,
        settings: CloudSettings,
        task: str,
        studio: str,
        *,
        auto_scale: bool = True,
        max_jobs: int | None = None,
        max_cost: float | None = None,
        machine_of: Callable[[ExperimentConfig], str] = machine_for,
        together: Callable[[Job], Sequence[Job]] = lambda job: (),
        priorities: Mapping[str, tuple[float, str]] | None = None,
        hours_of: Callable[[Job, str], float | None] = lambda job, machine: None,
        num_threads: int | None = None,
        limits: Limits | None = None,
        runner: str = TRIAL_RUNNER,
        said: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Take up the task's jobs.

        Args:
            root: The driver's results.
            cloud: The teamspace.
            settings: Of the cloud.
            task: Whose jobs these are; held by one driver at a time.
            studio: Whose environment they have.
            auto_scale: Let the number of jobs at once follow what waits.
            max_jobs: At most so many at once.
            max_cost: US dollars after which nothing more is submitted.
            machine_of: On what a configuration runs.
            together: Other trials of a job's training that run in the same job.
            priorities: Of trials: their expected impact, and what it rests on.
            hours_of: What a job is expected to take.
            num_threads: Processor threads of a job; the machine's own if not given.
            limits: When a worker is given up.
            runner: ``module:function`` that runs a job.
            said: Told of what a person should know.

        Raises:
            UserError: Another driver has the task, or its ledger is damaged.
        """
        self._root, self._settings = root, settings
        self._drive = Drive(cloud, settings)
        self._machine_of, self._together, self._hours_of = machine_of, together, hours_of
        self._priorities = priorities or {}
        self._threads, self._runner = num_threads, runner
        self._limits = limits or Limits(idle_seconds=IDLE_SECONDS)
        self._stack = contextlib.ExitStack()
        folder = root.cloud_task(task)
        self._stack.enter_context(files.exclusive_lock(folder.lock, f"task {task}"))
        self.scheduler = Scheduler(
            cloud,
            settings,
            folder,
            studio,
            outcome_of=self._drive.outcome,
            auto_scale=auto_scale,
            max_jobs=max_jobs,
            max_cost=max_cost,
            said=said,
        )
        self._handles: dict[str, _Handle] = {}
        self._known: dict[str, Manifest] = {}
        """Of each submission: what was fetched of it."""
        self._is_closed = False

    # --- the protocol -----------------------------------------------------------------------------

    @property
    def num_slots(self) -> int:
        """Jobs at once, as far as machines can be had."""
        return self.scheduler.at_once

    def cost(self) -> float:
        """Return US dollars of all jobs of the task so far."""
        return self.scheduler.ledger.cost()

    def submit(self, job: Job) -> None:
        """Have a trial brought forward by a job; one that runs already is adopted."""
        handle = self._handles[job.trial_id] = _Handle(job)
        record = intact_record(self._root.study(job.study).trial(job.trial_id).record)
        if record is not None:
            # It came back with another trial of its training.
            handle.ended = Ended(job, How.RETURNED)
            return
        lock = self._root.training(job.training_key).lock
        try:
            handle.locks.enter_context(files.exclusive_lock(lock, f"training {job.training_key}"))
        except LockedError as error:
            handle.ended = Ended(job, How.BUSY, str(error))
            return
        handle.run = self.scheduler.add(self._spec(job))
        # What is wrong now is said by the next poll.
        with contextlib.suppress(CloudError):
            self.scheduler.step()

    def _spec(self, job: Job) -> JobSpec:
        machine = self._machine_of(job.config)
        settings = self._settings.scheduler
        hours = self._hours_of(job, machine)
        impact, why = self._priorities.get(job.trial_id, (0.0, ""))
        # The drive may know of attempts of another driver, which this one comes after.
        attempt = max(job.attempt, self._drive.newest_attempt(job.training_key) + 1)
        jobs = (job, *self._together(job))
        payload = JobPayload(
            results=shared_results(self._settings),
            jobs=tuple(j.model_copy(update={"attempt": attempt}) for j in jobs),
            hardware=family_of(machine),
            environment={"OMP_NUM_THREADS": str(self._threads)} if self._threads else {},
            limits=dataclasses.asdict(self._limits),
            runner=self._runner,
            publish_seconds=settings.pull_seconds,
        )
        return JobSpec(
            name=job.trial_id,
            command=command_of(self._settings, settings.max_hours),
            machine=machine,
            env={VARIABLE: payload.packed(), **shared_variables(self._settings)},
            priority=impact,
            why=why,
            hours=hours,
            max_hours=settings.max_hours,
            spot=settings.spot,
            identity=_identity(payload, machine),
        )

    def poll(self, seconds: float) -> list[Ended]:
        """Return the trials whose jobs ended; wait for one up to so many seconds.

        Raises:
            UserError: The cloud is silent for too long, or refuses the key.
        """
        until = self.now() + seconds
        while True:
            self.scheduler.step()
            found = [e for h in list(self._handles.values()) if (e := self._ended(h)) is not None]
            left = until - self.now()
            if found or left <= 0:
                return found
            time.sleep(min(left, _LOOK_SECONDS))

    def _ended(self, handle: _Handle) -> Ended | None:
        if handle.ended is None and handle.run is not None and handle.run.stage.is_over:
            if self._fetched_at_last(handle):
                handle.ended = self._end_of(handle)
        if handle.ended is None:
            return None
        del self._handles[handle.job.trial_id]
        if handle.run is not None:
            self.scheduler.collected(handle.run)
        handle.locks.close()
        return handle.ended

    def _fetched_at_last(self, handle: _Handle) -> bool:
        """Fetch all that a job left; return whether it is here, or will never be."""
        if self.now() - handle.pulled_at < min(1.0, self._settings.scheduler.pull_seconds):
            return False
        handle.pulled_at = self.now()
        with contextlib.suppress(CloudError):
            if self._fetch(handle):
                return True
        if handle.missing_since is None:
            handle.missing_since = self.now()
        waited = self.now() - handle.missing_since
        assert handle.run is not None
        was_well = handle.run.stage is Stage.DONE
        return waited > (60 * self._settings.scheduler.unreachable_minutes if was_well else 0.0)

    def _end_of(self, handle: _Handle) -> Ended:
        job, run = handle.job, handle.run
        assert run is not None
        last = run.current
        seconds = last.seconds(time.time()) if last is not None else 0.0
        if run.stage is Stage.CANCELLED:
            # By the driver itself, or by a person.
            how = How.KILLED if run.is_cancelled else How.CANCELLED
            return Ended(job, how, run.message, seconds)
        said = run.outcome.trials.get(job.trial_id) if run.outcome is not None else None
        if said is not None and how_of(said[0]) is not None:
            return Ended(job, how_of(said[0]) or How.KILLED, said[1], seconds)
        where = f"job {last.cloud_name}" if last is not None else "its job"
        return Ended(job, How.KILLED, f"{where} brought nothing: {run.message}", seconds)

    def pull(self, job: Job) -> None:
        """Fetch what is new of a job that runs, now and then."""
        handle = self._handles.get(job.trial_id)
        if handle is None or handle.run is None or handle.run.stage is not Stage.RUNNING:
            return
        if self.now() - handle.pulled_at < self._settings.scheduler.pull_seconds:
            return
        handle.pulled_at = self.now()
        with contextlib.suppress(CloudError):
            if handle.wishes_to_stop:
                self._send_wish(handle)
            self._fetch(handle)

    def _fetch(self, handle: _Handle) -> bool:
        """Fetch what a job offers and is not here yet; return whether that was all of it.

        Raises:
            CloudError: The cloud does not answer.
        """
        run = handle.run
        if run is None or run.current is None:
            return True
        known = self._known.setdefault(run.current.cloud_name, Manifest())
        offered, is_whole = self._drive.manifest(run)
        # Trainings first: a record says that all the rest is there.
        for folder in sorted(offered.folders):
            place = self._place(folder, run)
            if place is None or (folder.startswith("trial/") and not is_whole):
                continue
            have = known.folders.setdefault(folder, {})
            for name, inner in offered.folders[folder].items():
                if have.get(name) == inner:
                    continue
                parcel = self._drive.parcel(run, folder, name, inner)
                if parcel is None:
                    is_whole = False
                    continue
                if not self._may_write(handle, folder):
                    continue
                transport.unpack(place, [parcel])
                have[name] = inner
        return is_whole

    def _place(self, folder: str, run: JobRun) -> Path | None:
        """Return where a folder that a job offers belongs, or None where it is not ours."""
        kind, _, name = folder.partition("/")
        payload = JobPayload.unpacked(run.spec.env[VARIABLE])
        trials = {job.trial_id: job for job in payload.jobs}
        if kind == "training":
            return self._root.training(checked_name(name, "training key")).root
        if kind == "trial" and name in trials:
            return self._root.study(trials[name].study).trial(name).root
        return None

    def _may_write(self, handle: _Handle, folder: str) -> bool:
        """Whether no newer attempt has taken the trial over meanwhile."""
        if not folder.startswith("trial/"):
            return True
        control = self._root.training(handle.job.training_key).control
        with contextlib.suppress(ResultsError, KeyError, TypeError):
            return bool(files.read_json(control)["attempt"] <= handle.job.attempt)
        return True

    def request_stop(self, job: Job) -> None:
        """Have a running job finish its step, write a checkpoint and return."""
        handle = self._handles.get(job.trial_id)
        if handle is None or handle.run is None:
            return
        if not handle.run.stage.is_live:
            self.scheduler.cancel(handle.run.spec.name)
            return
        handle.wishes_to_stop = True
        with contextlib.suppress(CloudError):
            self._send_wish(handle)

    def _send_wish(self, handle: _Handle) -> None:
        assert handle.run is not None
        payload = JobPayload.unpacked(handle.run.spec.env[VARIABLE])
        self._drive.write_wish(handle.job.training_key, payload.jobs[0].attempt)

    def cancel(self, job: Job) -> None:
        """Stop a job's machine at once; it is still reported by `poll`."""
        handle = self._handles.get(job.trial_id)
        if handle is not None and handle.run is not None and not handle.run.stage.is_over:
            self.scheduler.cancel(handle.run.spec.name)

    def close(self) -> None:
        """Stop what still runs, and look for jobs of which nobody knows."""
        if self._is_closed:
            return
        self._is_closed = True
        for handle in self._handles.values():
            handle.locks.close()
        self._handles.clear()
        try:
            self.scheduler.stop_all("the driver ended")
            self.scheduler.remove_strays()
            self.scheduler.settle(_SETTLE_POLLS * self._settings.scheduler.poll_seconds)
        finally:
            self._stack.close()

    def now(self) -> float:
        """Return the monotonic time."""
        return time.monotonic()


def how_of(text: str) -> How | None:
    """Return how a trial ended, of what its job said."""
    return How(text) if text in list(How) else None


def _identity(payload: JobPayload, machine: str) -> str:
    """Return what is equal for two jobs that do the same work, whichever attempt it is."""
    plain = payload.model_dump(mode="json")
    for job in plain["jobs"]:
        del job["attempt"]
    return files.sha256_of_json({"payload": plain, "machine": machine})


_LOOK_SECONDS = 0.1
_SETTLE_POLLS = 4
IDLE_SECONDS = 600.0
"""A processor that waits for its GPU looks idle."""
