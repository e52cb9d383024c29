"""The door to Lightning.AI: the only file that imports its SDK.

What the SDK leaves open is closed here. Every call has a deadline. No call reaches the login that
opens a browser. Observing a Studio never keeps it awake. Call arguments are never sent to the
vendor's telemetry. Every error becomes one of ours, which says whether trying again can help.

Facts of lightning-sdk 2026.10 that this rests on: `start`, `switch_machine`, `stop` and commands
block without end; a Studio object that runs starts a thread that keeps the Studio awake, unless it
was made under `skip_studio_setup`; a request whose answer was lost is sent again, so one
submission may leave two jobs, the second under another name; a machine that the cloud does not
know is only warned of, and may come up as a processor; its address is read when it is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from tuning.cloud_settings import StudioSettings
from tuning.errors import (
    CapacityError,
    CloudError,
    CredentialsError,
    NotFoundError,
    UnreachableError,
    nearest,
    shown,
    without_secrets,
)

T = TypeVar("T")

_TEAMSPACE = re.compile(r"[^/\s]{1,128}/[^/\s]{1,128}")

HOW_TO_LOG_IN = (
    "set LIGHTNING_API_KEY and LIGHTNING_USER_ID, both from your account's settings at "
    "lightning.ai under Keys; --dry-run needs neither"
)
_KEYS = ("LIGHTNING_AUTH_TOKEN", "LIGHTNING_API_KEY")


# --- before anything is loaded ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """Whether there is a key for the cloud, never what it is."""

    source: str | None
    """Where it is; None where there is none."""

    @property
    def is_there(self) -> bool:
        """Whether there is one."""
        return self.source is not None


def credentials(env: Mapping[str, str] | None = None) -> Credentials:
    """Return where the key for the cloud is; imports nothing and prints nothing of it."""
    env = os.environ if env is None else env
    for name in _KEYS:
        if env.get(name):
            return Credentials(name)
    stored = Path(env.get("LIGHTNING_CREDENTIAL_PATH") or "~/.lightning/credentials.json")
    with contextlib.suppress(RuntimeError, OSError):
        if stored.expanduser().is_file():
            return Credentials(str(stored))
    return Credentials(None)


def is_installed() -> bool:
    """Whether the SDK can be imported."""
    return importlib.util.find_spec("lightning_sdk") is not None


def load_sdk() -> Any:
    """Import the SDK, mute what it says to others, and return it.

    Raises:
        CredentialsError: There is no key; the SDK would open a browser and wait.
        CloudError: It is not installed.
    """
    if not is_installed():
        raise CloudError(
            "the cloud needs the package lightning-sdk: pip install 'tuning[lightning]'"
        )
    if not credentials().is_there:
        raise CredentialsError(f"no key for Lightning.AI; {HOW_TO_LOG_IN}")
    url = os.environ.get("LIGHTNING_CLOUD_URL")
    if url and not re.match(r"https?://.", url):
        raise CloudError(f"LIGHTNING_CLOUD_URL must begin with https://, got {shown(url)}")
    # Else the import asks the package index for news, without a deadline.
    os.environ.setdefault("LIGHTNING_DISABLE_VERSION_CHECK", "1")
    with _a_real_stderr(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning_sdk
        import lightning_sdk.utils.logging as telemetry

    # On every error it would send all arguments of the call, a secret's value among them.
    telemetry.cached_lightning_client = _refuse_telemetry
    logging.getLogger("lightning_sdk").setLevel(logging.ERROR)
    # Retries of the wire are its own business; what comes of them is told once.
    for name in ("lightning_sdk.job", "lightning_sdk.studio", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return lightning_sdk


def _refuse_telemetry(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("call arguments are not sent to anybody")


@contextlib.contextmanager
def _a_real_stderr() -> Iterator[None]:
    """Lend the import a standard error with a number, which it wants and a test may not have."""
    try:
        sys.stderr.fileno()
    except (OSError, AttributeError, ValueError):
        own = sys.stderr
        with open(os.devnull, "w") as nowhere:
            sys.stderr = nowhere
            try:
                yield
            finally:
                sys.stderr = own
    else:
        yield


def bounded(call: Callable[[], T], minutes: float, what: str) -> T:
    """Return what a call returns, or give it up after so many minutes.

    A call that is given up goes on in a thread that ends with this process.

    Raises:
        CloudError: It takes longer.
    """
    found: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True, name=f"cloud: {what}")
    thread.start()
    thread.join(60 * minutes)
    if thread.is_alive():
        raise DeadlineError(f"{what} takes longer than {minutes:g} minutes and is given up")
    if raised:
        raise raised[0]
    return found[0]


class DeadlineError(UnreachableError):
    """A call was given up."""


# --- what is known of Studios, jobs and machines ------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioState:
    """A Studio, as the cloud sees it."""

    id: str
    name: str
    status: str
    """Running, Stopped, Pending, Stopping, Failed."""
    machine: str | None
    """Under a running one, as the SDK calls it."""
    spot: bool
    """Whether that machine may be taken away."""
    auto_sleep: bool
    sleep_seconds: int
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


class JobPhase(StrEnum):
    """How far a job of the cloud has come."""

    PENDING = "pending"
    RUNNING = "running"
    ENDING = "ending"
    """Its command has ended; what it wrote is being saved."""
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self in (JobPhase.COMPLETED, JobPhase.FAILED, JobPhase.STOPPED)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """A job, as the cloud sees it."""

    name: str
    id: str
    phase: JobPhase
    cost: float
    """US dollars; of a job that has just ended, not yet final."""
    started: float | None
    """Seconds since 1970."""
    stopped: float | None
    message: str
    machine: str = ""
    """As the cloud calls it."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A job to be submitted."""

    name: str
    command: str
    machine: str
    env: Mapping[str, str] = field(default_factory=dict)
    """Never a secret: these stand in the teamspace's own store."""
    spot: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """A machine that can be had now."""

    machine: str
    per_hour: float | None
    spot_per_hour: float | None
    """None where the machine does not come as a spot one."""
    cloud: str


_PHASES = {
    "Pending": JobPhase.PENDING,
    "Running": JobPhase.RUNNING,
    "Stopping": JobPhase.ENDING,
    "Stopped": JobPhase.STOPPED,
    "Completed": JobPhase.COMPLETED,
    "Failed": JobPhase.FAILED,
}


class Cloud:
    """A teamspace of Lightning.AI."""

    def __init__(self, settings: StudioSettings) -> None:
        """Find the teamspace.

        Raises:
            CredentialsError: There is no key, or it is refused.
            CloudError: There is no such teamspace, or the cloud does not answer.
        """
        self.settings = settings
        self._sdk = load_sdk()
        named = settings.teamspace or os.environ.get("LIGHTNING_TEAMSPACE") or ""
        if not _TEAMSPACE.fullmatch(named):
            raise CloudError(
                "name the teamspace in configs/hyperparameters/lightning/studio.yaml, or in "
                f"LIGHTNING_TEAMSPACE, as OWNER/NAME, got {shown(named)}"
            )
        self._space = self._ask(lambda: self._sdk.Teamspace(named), f"teamspace {named}")
        self._jobs: dict[str, Any] = {}

    def _ask(self, call: Callable[[], T], what: str, minutes: float | None = None) -> T:
        """Call the SDK, within a deadline and with our errors.

        Raises:
            CloudError: Of the kind that fits.
        """
        deadline = self.settings.deadlines.call if minutes is None else minutes
        try:
            return bounded(call, deadline, what)
        except CloudError:
            raise
        except Exception as error:
            raise _ours(error, what) from error

    @property
    def teamspace(self) -> str:
        """Owner and name."""
        return f"{self._space.owner.name}/{self._space.name}"

    # --- machines ---------------------------------------------------------------------------------

    def known_machines(self) -> list[str]:
        """Return every machine that the SDK has a name for."""
        kinds = vars(self._sdk.Machine).values()
        return sorted({m.name for m in kinds if isinstance(m, self._sdk.Machine)})

    def _machine(self, name: str) -> Any:
        """Return the SDK's machine of a name.

        Raises:
            NotFoundError: It has none; taken as it is, a Studio may come up on a processor.
        """
        known = self.known_machines()
        if name.upper() not in known:
            raise NotFoundError(f"machine {shown(name)}: {nearest(name.upper(), known)}")
        return getattr(self._sdk.Machine, name.upper())

    def offers(self) -> list[Offer]:
        """Return the machines that can be had now, with today's prices.

        Raises:
            CloudError: The cloud does not answer.
        """
        account = self.settings.cloud_account
        found = self._ask(lambda: self._space.list_machines(cloud_account=account), "machines")
        kinds = vars(self._sdk.Machine).values()
        named = [m for m in kinds if isinstance(m, self._sdk.Machine) and m._include_in_cli]
        offers = []
        for machine in found:
            # Equal by family and number of GPUs, whatever a cloud calls it; its own slug first.
            own = [m for m in named if m == machine]
            own.sort(key=lambda m: m.slug != machine.slug)
            if own:
                offers.append(_offer(own[0].name, machine))
        return offers

    def offer_of(self, machine: str) -> Offer:
        """Return the cheapest offer of a machine.

        Raises:
            CapacityError: Nobody has it now.
            NotFoundError: There is no machine of that name.
        """
        wanted = self._machine(machine)
        offers = self.offers()
        found = [o for o in offers if self._machine(o.machine) == wanted]
        if not found:
            there = ", ".join(sorted({o.machine for o in offers})) or "none at all"
            raise CapacityError(f"no {wanted.name} can be had now; there are: {there}")
        return min(found, key=lambda o: o.per_hour if o.per_hour is not None else float("inf"))

    # --- Studios ----------------------------------------------------------------------------------

    def _handle(self, name: str, *, create: bool = False) -> Any:
        """Return the SDK's Studio, made so that it never keeps the Studio awake."""
        from lightning_sdk.utils.resolve import skip_studio_setup

        def make() -> Any:
            with skip_studio_setup():
                return self._sdk.Studio(
                    name,
                    teamspace=self._space,
                    cloud=self.settings.cloud_account if create else None,
                    create_ok=create,
                )

        return self._ask(make, f"Studio {name}")

    def studio(self, name: str) -> StudioState | None:
        """Return a Studio, or None where there is none of that name.

        Raises:
            CloudError: The cloud does not answer.
        """
        try:
            handle = self._handle(name)
        except NotFoundError:
            return None
        return self._ask(lambda: _studio_state(handle), f"Studio {name}")

    def studios(self) -> list[StudioState]:
        """Return all Studios of the teamspace; keeps none of them awake.

        Raises:
            CloudError: The cloud does not answer.
        """
        found = self._ask(lambda: self._space.studios, "Studios")
        return [self._ask(lambda h=handle: _studio_state(h), "Studios") for handle in found]  # type: ignore[misc]

    def create_studio(self, name: str) -> StudioState:
        """Make a Studio, or return the one that is there.

        Raises:
            CloudError: The cloud does not answer, or refuses.
        """
        handle = self._handle(name, create=True)
        return self._ask(lambda: _studio_state(handle), f"Studio {name}")

    def start_studio(self, name: str, machine: str, *, spot: bool = False) -> None:
        """Start a stopped Studio, and wait until it runs.

        Raises:
            CapacityError: There is no such machine now.
            CloudError: It takes too long, or the cloud refuses.
        """
        wanted, handle = self._machine(machine), self._handle(name)
        self.offer_of(machine)
        self._strictly(
            lambda: handle.start(wanted, interruptible=spot),
            f"starting Studio {name} on {wanted.name}",
            self.settings.deadlines.start,
        )

    def switch_studio(self, name: str, machine: str, *, spot: bool = False) -> None:
        """Move a running Studio to another machine, and wait until it runs there.

        Raises:
            CapacityError: There is no such machine now; the Studio stays where it is.
            CloudError: It takes too long, or the cloud refuses.
        """
        wanted, handle = self._machine(machine), self._handle(name)
        self.offer_of(machine)
        self._strictly(
            lambda: handle.switch_machine(wanted, interruptible=spot),
            f"switching Studio {name} to {wanted.name}",
            self.settings.deadlines.switch,
        )

    def _strictly(self, call: Callable[[], T], what: str, minutes: float) -> T:
        """Call with the SDK's warning of an unknown machine as an error."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=UserWarning)
            warnings.filterwarnings("error", message=".*custom instance type.*")
            return self._ask(call, what, minutes)

    def stop_studio(self, name: str) -> None:
        """Stop a Studio and wait until it has; one that does not run is left alone.

        Raises:
            CloudError: It takes too long, or the cloud does not answer.
        """
        handle = self._handle(name)

        def stop() -> None:
            if str(handle.status) in ("Running", "Pending"):
                handle.stop()

        self._ask(stop, f"stopping Studio {name}", self.settings.deadlines.stop)

    def delete_studio(self, name: str) -> None:
        """Delete a Studio with its files.

        Raises:
            CloudError: The cloud does not answer, or refuses.
        """
        handle = self._handle(name)
        minutes = self.settings.deadlines.stop
        self._ask(handle.delete, f"deleting Studio {name}", minutes)

    def set_sleep(self, name: str, *, sleeps: bool, minutes: float | None = None) -> None:
        """Say whether an idle Studio goes to sleep, and after how long.

        Args:
            name: The Studio.
            sleeps: Whether it does.
            minutes: After how long; None leaves what the cloud has, as anything else turns a free
                Studio into one that is paid for.

        Raises:
            CloudError: The cloud does not answer.
        """
        handle = self._handle(name)

        def send() -> None:
            if handle.auto_sleep != sleeps:
                handle.auto_sleep = sleeps
            if sleeps and minutes is not None:
                handle.auto_sleep_time = int(60 * minutes)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            self._ask(send, f"sleep settings of Studio {name}")

    def mark_studio(self, name: str, variables: Mapping[str, str]) -> None:
        """Set variables of a Studio, beside those that it has; never a secret.

        Raises:
            CloudError: The cloud does not answer.
        """
        handle = self._handle(name)
        self._ask(lambda: handle.set_env(dict(variables), partial=True), f"marking Studio {name}")

    def run_in_studio(
        self, name: str, command: str, minutes: float | None = None
    ) -> tuple[str, int]:
        """Run a command in a running Studio; return what it printed, and its exit code.

        Raises:
            CloudError: It takes too long, or the cloud does not answer.
        """
        handle = self._handle(name)
        output, code = self._ask(
            lambda: handle.run_with_exit_code(command),
            f"the command in Studio {name}",
            self.settings.deadlines.command if minutes is None else minutes,
        )
        return str(output), int(code)

    def upload_to_studio(self, name: str, path: Path, remote: str) -> None:
        """Send a file into a Studio's home.

        Raises:
            CloudError: The cloud does not answer, or refuses.
        """
        handle = self._handle(name)
        self._ask(
            lambda: handle.upload_file(str(path), remote, progress_bar=False),
            f"uploading {path.name}",
            self.settings.deadlines.command,
        )

    # --- jobs -------------------------------------------------------------------------------------

    def submit(self, order: Order, studio: str) -> JobState:
        """Submit a job, and return the one that exists for it: never two, as far as can be seen.

        When the answer to a submission is lost it is sent again, and a second job comes into
        being under another name. Then the first is kept, and the second stopped and deleted.

        Raises:
            CapacityError: There is no such machine now; nothing was submitted.
            UnreachableError: Nobody knows whether it exists: ask `job` by its name later.
            CloudError: The cloud refuses it.
        """
        machine = self._machine(order.machine)
        self.offer_of(order.machine)
        handle = self._handle(studio)
        with warnings.catch_warnings():
            # A name that was taken is looked at below.
            warnings.simplefilter("ignore", UserWarning)
            job = self._ask(
                lambda: self._sdk.Job.run(
                    name=order.name,
                    machine=machine,
                    command=order.command,
                    studio=handle,
                    env=dict(order.env),
                    interruptible=order.spot,
                    max_run_attempts=1,
                ),
                f"submitting job {order.name}",
            )
        self._jobs[job.name] = job
        if job.name != order.name:
            first = self.job(order.name)
            if first is not None and is_same(first, order):
                self.remove_job(job.name)
                return first
        return _job_state(job)

    def job(self, name: str) -> JobState | None:
        """Return a job by its name, or None where there is none.

        Raises:
            CloudError: The cloud does not answer.
        """

        def look() -> JobState:
            known = self._jobs.get(name)
            if known is None:
                known = self._jobs[name] = self._sdk.Job(name, teamspace=self._space)
            else:
                # Asks the cloud anew.
                _ = known._latest_job
            return _job_state(known)

        try:
            return self._ask(look, f"job {name}")
        except NotFoundError:
            self._jobs.pop(name, None)
            return None

    def jobs(self) -> list[JobState]:
        """Return the jobs of the teamspace, as far as the cloud lists them on its first page.

        Raises:
            CloudError: The cloud does not answer.
        """
        found = self._ask(self._space.list_jobs, "jobs")
        return [_job_state(job) for job in found]

    def stop_job(self, name: str) -> None:
        """Stop a job and wait until it has.

        Raises:
            CloudError: It takes too long, or the cloud does not answer.
        """
        if self.job(name) is not None:
            handle = self._jobs[name]
            self._ask(handle.stop, f"stopping job {name}", self.settings.deadlines.stop)

    def remove_job(self, name: str) -> None:
        """Stop a job and delete it, with what it wrote.

        Raises:
            CloudError: It takes too long, or the cloud does not answer.
        """
        self.stop_job(name)
        handle = self._jobs.pop(name, None)
        if handle is not None:
            self._ask(handle.delete, f"deleting job {name}")

    def logs(self, name: str, tail: int | None = None) -> str:
        """Return what a job has printed so far.

        Raises:
            NotFoundError: There is no such job.
            CloudError: The cloud does not answer.
        """
        if self.job(name) is None:
            raise NotFoundError(f"no job {shown(name)} in teamspace {self.teamspace}")
        handle = self._jobs[name]
        return str(self._ask(lambda: handle.logs(tail=tail), f"logs of job {name}"))

    # --- files ------------------------------------------------------------------------------------

    def download(self, path: str, target: Path) -> None:
        """Bring a file of the drive here.

        Raises:
            NotFoundError: It is not there.
            CloudError: The cloud does not answer.
        """
        # The public method draws a bar for every file.
        files_of_space = self._space._teamspace_api
        self._ask(
            lambda: files_of_space.download_file(
                path=path,
                target_path=str(target),
                teamspace_id=self._space.id,
                progress_bar=False,
            ),
            f"file {path}",
        )

    def upload(self, path: Path, remote: str) -> None:
        """Send a file to the drive.

        Raises:
            CloudError: The cloud does not answer, or refuses.
        """
        account = self.settings.cloud_account or self._space.default_cloud_account
        self._ask(
            lambda: self._space.upload_file(
                path, remote, progress_bar=False, cloud_account=account
            ),
            f"uploading {remote}",
        )

    def artifacts_of(self, job: str) -> str:
        """Return where on the drive stands what a job wrote into its home."""
        return f"jobs/{job}"

    def set_secret(self, name: str, value: str) -> None:
        """Keep a secret in the teamspace's store: Studios and jobs have it as a variable.

        Raises:
            CloudError: The cloud does not answer, or refuses the name.
        """
        self._ask(lambda: self._space.set_secret(name, value), f"secret {name}")


def is_same(state: JobState, order: Order) -> bool:
    """Whether a job is the one that was ordered, and no other that has its name."""
    return state.command == order.command and dict(state.env) == dict(order.env)


# --- from the SDK's values to ours ----------------------------------------------------------------


def _offer(name: str, machine: Any) -> Offer:
    spot = machine.interruptible_cost
    return Offer(
        machine=name,
        per_hour=machine.cost or None,
        # 0 means that there is none, and it may be dearer than the machine itself.
        spot_per_hour=spot if spot and spot < (machine.cost or float("inf")) else None,
        cloud=str(machine.provider or ""),
    )


def _studio_state(handle: Any) -> StudioState:
    try:
        status = str(handle.status)
    except KeyError:
        # A phase that the SDK has no name for: it is being made.
        status = "Pending"
    machine = handle.machine if status == "Running" else None
    return StudioState(
        id=handle.id,
        name=handle.name,
        status=status,
        machine=None if machine is None else machine.name,
        spot=bool(handle.interruptible) if machine is not None else False,
        auto_sleep=bool(handle.auto_sleep),
        sleep_seconds=int(handle.auto_sleep_time or 0),
        env=dict(handle.env),
    )


def _job_state(job: Any) -> JobState:
    """Read a job's newest payload: asking its properties would be a request each."""
    told = job._job
    phase = _PHASES[str(job._job_api._job_state_to_external(told.state))]
    env = {entry.name: entry.value for entry in getattr(told.spec, "env", None) or []}
    return JobState(
        name=told.name,
        id=told.id,
        phase=phase,
        cost=float(told.total_cost or 0.0),
        started=_seconds(told.started_at),
        stopped=_seconds(told.stopped_at),
        message=str(getattr(told, "message", "") or ""),
        machine=str(told.spec.instance_name or ""),
        env=env,
        command=str(told.spec.command or ""),
    )


def _seconds(value: Any) -> float | None:
    """Read a time, which is text or a datetime, depending on what else is installed."""
    if not value:
        return None
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    # The year 1 stands for a job that has not begun.
    return float(value.timestamp()) if value.year > 1970 else None


_CODE = re.compile(r"response: (\d{3})|\((\d{3})\)|[Ss]tatus code: (\d{3})|HTTP (\d{3})")


def _ours(error: Exception, what: str) -> Exception:
    """Return our error for one of the SDK's."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    code = getattr(error, "status", None) or getattr(error, "status_code", None)
    found = _CODE.search(text)
    if code is None and found:
        code = int(next(group for group in found.groups() if group))
    says = f"{what}: {without_secrets(_said_by(error))[:300] or kind}"
    if "Authentication failed" in text or code == 401 or "should be exported" in text:
        return CredentialsError(f"the key for Lightning.AI is refused; {HOW_TO_LOG_IN}")
    if kind == "OutOfCapacityError" or "capacity" in text.lower() or code == 429:
        return CapacityError(says)
    if code == 404 or "does not exist" in text or isinstance(error, FileNotFoundError):
        return NotFoundError(says)
    if _is_passing(error, code, text):
        return UnreachableError(f"Lightning.AI does not answer: {says}")
    return CloudError(says)


def _said_by(error: Exception) -> str:
    """Return an error's own words, without the headers and addresses around them."""
    body = getattr(error, "body", None)
    if body:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            message = json.loads(body)["message"]
            return f"{message} ({getattr(error, 'status', 'no status')})"
    text = " ".join(str(error).split())
    found = _WIRE.search(text)
    return found[0] if found else text


_WIRE = re.compile(r"\[Errno \d+\] [A-Za-z ]+|Failed to resolve '[^']{1,200}'|Read timed out")


def _is_passing(error: Exception, code: int | None, text: str) -> bool:
    """Whether an error may be over by itself."""
    if code is not None:
        return code >= 500 or code == 408
    names = {cls.__name__ for cls in type(error).__mro__}
    wire = {"ConnectionError", "HTTPError", "Timeout", "TimeoutError", "RequestException"}
    return bool(names & wire) or "failed to reach the server" in text
