"""What a job of the cloud runs: `python -m tuning.backends.cloud_job`, told what by TUNING_JOB.

It looks whether its machine is the one that was asked for, brings the trials of one training
forward in a worker that is watched as everywhere else, or runs one of our commands, and puts what
they write where the driver can fetch it: into the job's own folder, beside a list of what is there
with checksums. Trainings and studies stand in the folder that all jobs of the teamspace share, so
the next job goes on from the checkpoint of this one.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tuning import files
from tuning.backends import transport
from tuning.backends.process import Limits, WorkerProcess
from tuning.backends.transport import Stamp
from tuning.cloud_ledger import Outcome
from tuning.jobs import TRIAL_RUNNER, Ended, How, Job, write_wish
from tuning.paths import ResultsRoot
from tuning.records import intact_record

VARIABLE = "TUNING_JOB"
HOME = "tuning-out"
"""The folder of a job's home that the driver looks into."""
OUTCOME, MANIFEST, PARCELS = "outcome.json", "manifest.json", "parcels"


class Payload(BaseModel):
    """What a job is to do."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    results: str
    """The results root that all jobs share."""
    jobs: tuple[Job, ...] = ()
    """Trials of one training, one after the other."""
    arguments: tuple[str, ...] = ()
    """Else: one of our commands, without `tuning` before it."""
    collect: tuple[str, ...] = ()
    """Of a command: files and folders below the results root that are wanted back."""
    hardware: str | None = None
    """Part of the name of the GPU that there must be."""
    environment: dict[str, str] = {}
    limits: dict[str, float | int | None] = {}
    runner: str = TRIAL_RUNNER
    publish_seconds: float = 10.0

    def packed(self) -> str:
        """Return it as the text of a variable, which may not be long."""
        return base64.b64encode(zlib.compress(self.model_dump_json().encode(), 9)).decode()

    @classmethod
    def unpacked(cls, text: str) -> Payload:
        """Return what `packed` made a text of."""
        return cls.model_validate_json(zlib.decompress(base64.b64decode(text)))


class Entry(BaseModel):
    """A file that is there to be fetched."""

    model_config = ConfigDict(frozen=True)

    size: int
    sha256: str


class Manifest(BaseModel):
    """What is there to be fetched, in the order in which it must be written."""

    folders: dict[str, dict[str, dict[str, Entry]]] = {}
    """Of each folder (`training/KEY`, `trial/ID`, `results`) its parcels, and of these their
    files; under "" the file that the parcel is."""


class Outbox:
    """The folder from which the driver fetches."""

    def __init__(self, home: Path) -> None:
        """Begin with nothing in it."""
        self._home = home
        self._known: dict[str, dict[str, Stamp]] = {}
        self._manifest = Manifest()

    def put(self, name: str, root: Path, stamps: Mapping[str, Stamp]) -> None:
        """Bring a folder of the outbox up to date.

        Args:
            name: Of the folder.
            root: What it is a copy of.
            stamps: The parcels of that, as they are now.
        """
        known = self._known.setdefault(name, {})
        parcels = transport.pack(root, stamps, known)
        place = self._home / PARCELS / name
        transport.unpack(place, parcels)
        listed = self._manifest.folders.setdefault(name, {})
        for parcel in parcels:
            known[parcel.name] = parcel.stamp
            listed[parcel.name] = {
                inner: Entry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
                for inner, data in parcel.content.items()
            }
        for gone in [n for n in listed if not (place / n).exists()]:
            del listed[gone]

    def publish(self) -> str:
        """Write the list of what is there, last, so that it never names what is not.

        Returns:
            SHA-256 of the list.
        """
        text = self._manifest.model_dump_json()
        files.write_atomic(self._home / MANIFEST, text)
        return hashlib.sha256(text.encode()).hexdigest()


def run(payload: Payload, home: Path) -> Outcome:
    """Do what a job is to do, and leave what came of it in its home.

    Returns:
        What it says of itself.
    """
    wrong = _wrong_hardware(payload.hardware)
    if wrong is not None:
        outcome = Outcome(is_well=False, message=wrong)
    elif payload.jobs:
        outcome = _run_trials(payload, Outbox(home))
    else:
        outcome = _run_command(payload, Outbox(home))
    files.write_atomic(home / OUTCOME, outcome.model_dump_json())
    return outcome


def _wrong_hardware(wanted: str | None) -> str | None:
    """Return what is wrong with the machine: an unknown one may come up as a processor."""
    if wanted is None:
        return None
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        found = done.stdout if done.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    print(f"hardware: {' '.join(found.split()) or 'no GPU'}", flush=True)
    if wanted.lower() in found.lower():
        return None
    return f"a machine with {wanted} was asked for, and this one has {found.strip() or 'no GPU'}"


# --- trials of one training ---------------------------------------------------------------------


def _run_trials(payload: Payload, outbox: Outbox) -> Outcome:
    root = ResultsRoot(Path(payload.results))
    files.make_folder(root.root)
    process = WorkerProcess(
        root.root,
        root.root / "logs" / f"job_{os.uname().nodename}_{os.getpid()}.log",
        payload.environment,
        Limits(**payload.limits),  # type: ignore[arg-type]
        payload.runner,
    )
    found: dict[str, tuple[str, str]] = {}
    try:
        for job in payload.jobs:
            ended = _run_trial(process, job, root, outbox, payload.publish_seconds)
            found[job.trial_id] = (ended.how.value, ended.message)
            print(f"{job.trial_id}: {ended.how.value} {ended.message}", flush=True)
            record = root.study(job.study).trial(job.trial_id).record
            if ended.how is not How.RETURNED or intact_record(record) is None:
                # Killed, or asked to stop: the others are asked for again.
                break
    finally:
        process.close()
    first = found[payload.jobs[0].trial_id]
    is_well = all(how == How.RETURNED.value for how, _ in found.values())
    return Outcome(is_well=is_well, message=first[1], trials=found, manifest=outbox.publish())


def _run_trial(
    process: WorkerProcess, job: Job, root: ResultsRoot, outbox: Outbox, publish_seconds: float
) -> Ended:
    folder = root.training(job.training_key)
    trial = root.study(job.study).trial(job.trial_id)
    # Of two attempts only the newer may write, also where the older comes up later.
    newest = files.read_json(folder.control)["attempt"] if folder.control.exists() else 0
    if newest > job.attempt:
        return Ended(job, How.RETURNED, f"attempt {newest} took over from {job.attempt}")
    write_wish(folder, job.attempt, stop=False)
    # A record that an earlier attempt left here is no answer to this one.
    trial.record.unlink(missing_ok=True)
    process.submit(job)
    published = time.monotonic()
    with _stopping_on_sigterm(root, job) as is_leaving:
        while True:
            for ended in process.ended():
                _put(outbox, root, job)
                outbox.publish()
                if is_leaving():
                    # The machine is being taken away: whoever says nothing goes on elsewhere.
                    sys.exit(_TAKEN_AWAY)
                return ended
            if time.monotonic() - published > publish_seconds:
                _put(outbox, root, job)
                outbox.publish()
                published = time.monotonic()
            time.sleep(_LOOK_SECONDS)


def _put(outbox: Outbox, root: ResultsRoot, job: Job) -> None:
    training = root.training(job.training_key)
    trial = root.study(job.study).trial(job.trial_id)
    outbox.put(f"training/{job.training_key}", training.root, transport.training_stamps(training))
    record = intact_record(trial.record)
    if record is not None and record.result.base_key is not None:
        base = root.training(record.result.base_key)
        outbox.put(f"training/{record.result.base_key}", base.root, transport.training_stamps(base))
    outbox.put(f"trial/{job.trial_id}", trial.root, transport.trial_stamps(trial))


@contextlib.contextmanager
def _stopping_on_sigterm(root: ResultsRoot, job: Job) -> Iterator[Any]:
    """Have the trial write a checkpoint when the machine is about to be taken away."""
    was_told: list[int] = []

    def stop(number: int, frame: Any) -> None:
        was_told.append(number)
        write_wish(root.training(job.training_key), job.attempt, stop=True)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield lambda: bool(was_told)
    finally:
        signal.signal(signal.SIGTERM, before)


# --- a command ----------------------------------------------------------------------------------


def _run_command(payload: Payload, outbox: Outbox) -> Outcome:
    root = Path(payload.results)
    files.make_folder(root)
    command = [sys.executable, "-m", "tuning", *payload.arguments, "--results-dir", str(root)]
    print(f"tuning {' '.join(payload.arguments)}", flush=True)
    env = {**os.environ, **payload.environment}
    env.pop(VARIABLE, None)
    before = {name: stamp for place in payload.collect for name, stamp in _wanted(root, place)}
    done = subprocess.run(command, env=env, check=False, stderr=subprocess.PIPE, text=True)
    sys.stderr.write(done.stderr)
    # The folder is everybody's: only what this command has written is wanted back.
    after = {name: stamp for place in payload.collect for name, stamp in _wanted(root, place)}
    written = {name: stamp for name, stamp in after.items() if before.get(name) != stamp}
    outbox.put("results", root, written)
    last = (done.stderr.strip().splitlines()[-1:] or [""])[0].removeprefix("tuning: ")
    message = "" if done.returncode == 0 else f"exit code {done.returncode}: {last[:500]}"
    return Outcome(is_well=done.returncode == 0, message=message, manifest=outbox.publish())


def _wanted(root: Path, name: str) -> Iterator[tuple[str, Stamp]]:
    place = root / name
    inner = sorted(place.rglob("*")) if place.is_dir() else [place]
    for path in inner:
        if path.is_file() and not path.name.startswith(".") and not path.is_symlink():
            status = path.stat()
            stamp = (("", status.st_size, status.st_mtime_ns),)
            yield path.relative_to(root).as_posix(), stamp


_LOOK_SECONDS = 0.2
_TAKEN_AWAY = 143


def main() -> None:
    """Do what TUNING_JOB says."""
    payload = Payload.unpacked(os.environ[VARIABLE])
    home = Path(os.environ.get("LIGHTNING_ARTIFACTS_DIR") or ".") / HOME
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    sys.exit(0 if run(payload, home).is_well else 1)


if __name__ == "__main__":
    main()
