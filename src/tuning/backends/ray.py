"""Trials on a Ray cluster: on each node warm workers, whose folders travel if no disk is shared.

An actor (a station) owns one worker process, as the local backend does, so killing, hanging and
memory are handled alike everywhere. When a node dies its stations are gone: their jobs are reported
killed, and go on elsewhere from what was pulled last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning import files
from tuning.backends import transport
from tuning.backends.process import Limits, WorkerProcess
from tuning.backends.transport import Parcel, Stamp
from tuning.errors import ResultsError, UserError
from tuning.jobs import TRIAL_RUNNER, Ended, How, Job, write_wish
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.records import intact_record


class Station:
    """One worker on a node; lives in a Ray actor."""

    def __init__(
        self,
        results: str | None,
        probe: tuple[str, str],
        environment: Mapping[str, str],
        limits: Mapping[str, Any],
        runner: str,
    ) -> None:
        """Find the results root of this node.

        Args:
            results: The driver's root, if this node may share its disk.
            probe: A file below it and what it holds: who can read it shares the disk.
            environment: Of the worker.
            limits: When the worker is given up.
            runner: ``module:function`` that runs a job.
        """
        path, secret = Path(probe[0]), probe[1]
        with contextlib.suppress(OSError):
            self._shares = results is not None and path.read_text() == secret
        self._shares = getattr(self, "_shares", False)
        own = Path.home() / ".cache" / "tuning" / "nodes" / _node_id()
        base = os.environ.get("TUNING_NODE_RESULTS")
        own = Path(base) / _node_id() if base else own
        root = Path(results) if results and self._shares else own
        files.make_folder(root)
        self._root = ResultsRoot(root)
        # Actors of one node are apart by their process.
        self._process = WorkerProcess(
            root,
            self._root.worker_log(os.getpid()),
            environment,
            Limits(**limits),
            runner,
        )
        self._lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Return where this is, and whether the driver's disk is seen from here."""
        return {
            "host": socket.gethostname(),
            "node": _node_id(),
            "root": str(self._root.root),
            "shares": self._shares,
        }

    def state_of(self, training_key: str) -> tuple[int, dict[str, Stamp]]:
        """Return the newest checkpoint and the parcels of a training that are here."""
        folder = self._root.training(training_key)
        return transport.newest_step(folder), transport.training_stamps(folder)

    def submit(self, job: str, parcels: Sequence[Parcel]) -> None:
        """Begin a job, with what the driver knows of its training."""
        asked = Job.model_validate_json(job)
        folder = self._root.training(asked.training_key)
        transport.unpack(folder.root, parcels)
        if not self._shares:
            # A record that an earlier attempt left here is no answer to this one.
            trial = self._root.study(asked.study).trial(asked.trial_id)
            trial.record.unlink(missing_ok=True)
            write_wish(folder, asked.attempt, stop=False)
        with self._lock:
            self._process.submit(asked)

    def poll(self, seconds: float) -> list[tuple[str, str, float]]:
        """Return how the job ended, if it did; wait up to so many seconds."""
        until = time.monotonic() + seconds
        while True:
            with self._lock:
                ended = self._process.ended()
            if ended or time.monotonic() > until:
                return [(e.how.value, e.message, e.seconds) for e in ended]
            time.sleep(_LOOK_SECONDS)

    def pull(self, job: str, known: Mapping[str, Mapping[str, Stamp]]) -> dict[str, list[Parcel]]:
        """Return what is new of a job's training and trial, and of the untouched model."""
        asked = Job.model_validate_json(job)
        training = self._root.training(asked.training_key)
        trial = self._root.study(asked.study).trial(asked.trial_id)
        found = {
            "training": transport.pack(
                training.root, transport.training_stamps(training), known.get("training", {})
            )
        }
        record = intact_record(trial.record)
        if record is not None and record.result.base_key is not None:
            base = self._root.training(record.result.base_key)
            found[record.result.base_key] = transport.pack(
                base.root,
                transport.training_stamps(base),
                known.get(record.result.base_key, {}),
            )
        # The record comes last: its presence says that all the rest is there.
        found["trial"] = transport.pack(
            trial.root, transport.trial_stamps(trial), known.get("trial", {})
        )
        return found

    def request_stop(self, job: str) -> None:
        """Have the job finish its step, write a checkpoint and return."""
        asked = Job.model_validate_json(job)
        write_wish(self._root.training(asked.training_key), asked.attempt, stop=True)

    def cancel(self) -> None:
        """Kill the worker with its job."""
        self._process.cancel()


def _node_id() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@dataclass(eq=False)
class _Slot:
    """A station, seen from the driver."""

    actor: Any
    hello: Any
    """Answer that says that it is up."""
    place: dict[str, Any] | None = None
    job: Job | None = None
    begun: Any = None
    """Answer to the job's submission."""
    polled: Any = None
    pulled_at: float = 0.0
    submitted: float = 0.0


class RayBackend:
    """Workers on a Ray cluster; implements `jobs.Backend`."""

    def __init__(
        self,
        root: ResultsRoot,
        *,
        address: str | None = None,
        num_workers: int | None = None,
        num_threads: int = 1,
        limits: Limits | None = None,
        runner: str = TRIAL_RUNNER,
        may_share: bool = True,
    ) -> None:
        """Connect to a cluster, or start one on this machine, and ask for workers.

        Args:
            root: The driver's results.
            address: Of an existing cluster; None starts one here.
            num_workers: Trials at once; as many as the cluster has room for if not given.
            num_threads: Processors of each.
            limits: When a worker is given up.
            runner: ``module:function`` that runs a job.
            may_share: Let nodes that see the driver's disk write there.

        Raises:
            UserError: Ray is not installed, or there is no such cluster.
        """
        self._root = root
        self._threads = num_threads
        self._limits = dataclasses.asdict(limits or Limits())
        self._runner = runner
        self._may_share = may_share
        self._owns = _connect(address, num_workers, num_threads)
        self._probe = root.root.absolute() / f".shared-{secrets.token_hex(8)}"
        files.write_atomic(self._probe, self._probe.name)
        self._wanted = num_workers or self._room()
        self._slots = [self._new_slot() for _ in range(self._wanted)]
        self._known: dict[str, dict[str, dict[str, Stamp]]] = {}
        self._lost: list[Ended] = []

    def _room(self) -> int:
        import ray

        total = ray.cluster_resources()
        gpus = int(total.get("GPU", 0))
        return max(1, gpus or int(total.get("CPU", 1)) // self._threads)

    def _new_slot(self) -> _Slot:
        import ray

        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        threads = str(self._threads)
        environment = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        actor = (
            ray.remote(Station)
            .options(
                num_cpus=self._threads,
                num_gpus=1 if has_gpus else 0,
                max_restarts=0,
                max_concurrency=_CALLS_AT_ONCE,
                scheduling_strategy="SPREAD",
            )
            .remote(
                str(self._root.root.absolute()) if self._may_share else None,
                (str(self._probe), self._probe.name),
                environment,
                self._limits,
                self._runner,
            )
        )
        return _Slot(actor, actor.describe.remote())

    # --- the protocol -------------------------------------------------------------------------

    @property
    def num_slots(self) -> int:
        """Stations that are up."""
        self._greet()
        return sum(slot.place is not None for slot in self._slots)

    @property
    def places(self) -> list[dict[str, Any]]:
        """Where the stations are that are up: host, node, results root, whether it is shared."""
        self._greet()
        return [slot.place for slot in self._slots if slot.place is not None]

    def submit(self, job: Job) -> None:
        """Hand a job to a free station, with what is known of its training."""
        slot = next(s for s in self._slots if s.place is not None and s.job is None)
        slot.job, slot.submitted = job, self.now()
        self._known[job.trial_id] = {}
        try:
            parcels = [] if _shares(slot) else self._parcels_for(slot, job)
            slot.begun = slot.actor.submit.remote(job.model_dump_json(), parcels)
            slot.polled = slot.actor.poll.remote(_STATION_SECONDS)
        except _ray_errors() as error:
            self._lose(slot, error)

    def _parcels_for(self, slot: _Slot, job: Job) -> list[Parcel]:
        """Return what a station lacks of a training, unless it is further than we are."""
        import ray

        folder = self._root.training(job.training_key)
        step, there = ray.get(slot.actor.state_of.remote(job.training_key))
        here = transport.training_stamps(folder)
        if there and step >= transport.newest_step(folder):
            here = {name: s for name, s in here.items() if "/" in name and name not in there}
            here = {name: s for name, s in here.items() if not name.startswith("checkpoints/")}
        return transport.pack(folder.root, here, {})

    def poll(self, seconds: float) -> list[Ended]:
        """Return the jobs that ended; wait for one up to so many seconds."""
        import ray

        until = self.now() + seconds
        while True:
            self._greet()
            found, self._lost = self._lost, []
            for slot in list(self._slots):
                found += self._ended(slot)
            left = until - self.now()
            if found or self._lost or left <= 0:
                return [*found, *self._taken_losses()]
            refs = [slot.polled for slot in self._slots if slot.polled is not None]
            if refs:
                ray.wait(refs, timeout=min(left, _LOOK_SECONDS))
            else:
                time.sleep(min(left, _LOOK_SECONDS))

    def _taken_losses(self) -> list[Ended]:
        found, self._lost = self._lost, []
        return found

    def _ended(self, slot: _Slot) -> list[Ended]:
        import ray

        if slot.job is None:
            return []
        try:
            ready, _ = ray.wait([slot.polled], timeout=0)
            if not ready:
                return []
            said = ray.get(slot.polled)
            # The submission may have failed where polling did not.
            begun, _ = ray.wait([slot.begun], timeout=0)
            if begun:
                ray.get(slot.begun)
            job = slot.job
            if said:
                self._fetch(slot, job)
        except _ray_errors() as error:
            self._lose(slot, error)
            return []
        if not said:
            slot.polled = slot.actor.poll.remote(_STATION_SECONDS)
            return []
        how, message, taken = said[0]
        slot.job = slot.polled = slot.begun = None
        return [Ended(job, How(how), message, taken)]

    def pull(self, job: Job) -> None:
        """Fetch what is new of a job that runs; what has ended was fetched with its end."""
        slot = self._slot_of(job)
        if slot is None or _shares(slot) or self.now() - slot.pulled_at < _PULL_SECONDS:
            return
        try:
            self._fetch(slot, job)
        except _ray_errors() as error:
            self._lose(slot, error)

    def _fetch(self, slot: _Slot, job: Job) -> None:
        import ray

        if _shares(slot):
            return
        known = self._known.setdefault(job.trial_id, {})
        found = ray.get(slot.actor.pull.remote(job.model_dump_json(), known))
        for what, parcels in found.items():
            if what == "trial":
                place = self._root.study(job.study).trial(job.trial_id).root
            else:
                key = job.training_key if what == "training" else what
                place = self._training(key).root
            transport.unpack(place, parcels)
            known.setdefault(what, {}).update({p.name: p.stamp for p in parcels})
        slot.pulled_at = self.now()

    def _training(self, key: str) -> TrainingFolder:
        return self._root.training(key)

    def request_stop(self, job: Job) -> None:
        """Have a running job finish its step, write a checkpoint and return."""
        slot = self._slot_of(job)
        if slot is None:
            return
        with contextlib.suppress(*_ray_errors()):
            slot.actor.request_stop.remote(job.model_dump_json())

    def cancel(self, job: Job) -> None:
        """Kill the worker that runs a job."""
        slot = self._slot_of(job)
        if slot is None:
            return
        with contextlib.suppress(*_ray_errors()):
            slot.actor.cancel.remote()

    def close(self) -> None:
        """End all stations, and the cluster if it was started here."""
        import ray

        for slot in self._slots:
            with contextlib.suppress(*_ray_errors()):
                ray.kill(slot.actor)
        self._slots = []
        self._probe.unlink(missing_ok=True)
        if self._owns:
            ray.shutdown()

    def now(self) -> float:
        """Return the monotonic time."""
        return time.monotonic()

    # --- stations that come and go --------------------------------------------------------------

    def _greet(self) -> None:
        """Take in stations that have come up; replace those that could not."""
        import ray

        for slot in list(self._slots):
            if slot.place is not None:
                continue
            ready, _ = ray.wait([slot.hello], timeout=0)
            if not ready:
                continue
            try:
                slot.place = ray.get(slot.hello)
            except _ray_errors() as error:
                self._lose(slot, error)

    def _lose(self, slot: _Slot, error: Exception) -> None:
        """Report the job of a station that is gone, and ask for another station."""
        if slot not in self._slots:
            return
        self._slots.remove(slot)
        place = slot.place or {}
        if slot.job is not None:
            where = place.get("host", "a node")
            text = f"its worker on {where} is gone: {' '.join(str(error).split())[:200]}"
            self._lost.append(Ended(slot.job, How.KILLED, text, self.now() - slot.submitted))
        elif slot.place is None and not _is_death(error):
            raise ResultsError(f"a worker on the cluster cannot begin: {error}") from error
        with contextlib.suppress(*_ray_errors()):
            import ray

            ray.kill(slot.actor)
        self._slots.append(self._new_slot())

    def _slot_of(self, job: Job) -> _Slot | None:
        return next(
            (s for s in self._slots if s.job is not None and s.job.trial_id == job.trial_id), None
        )


_CALLS_AT_ONCE = 4
"""A station answers pulls and wishes while it is polled."""
_LOOK_SECONDS = 0.05
_STATION_SECONDS = 1.0
_PULL_SECONDS = 1.0
"""Least time between two pulls of a running training."""


def _shares(slot: _Slot) -> bool:
    return bool(slot.place and slot.place["shares"])


def _ray_errors() -> tuple[type[Exception], ...]:
    import ray

    return (ray.exceptions.RayError,)


def _is_death(error: Exception) -> bool:
    import ray

    return isinstance(error, ray.exceptions.RayActorError | ray.exceptions.NodeDiedError) and not (
        isinstance(error, ray.exceptions.RayTaskError)
    )


def _connect(address: str | None, num_workers: int | None, num_threads: int) -> bool:
    """Connect to a cluster; return whether it was started here and must be ended here.

    Raises:
        UserError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("--backend ray needs the package ray: pip install 'tuning[ray]'") from error
    if ray.is_initialized():
        return False
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    # What trials people run is nobody else's business.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            says = " ".join(str(error).split())[:200]
            raise UserError(f"no Ray cluster at {address}: {says}") from error
        return True
    cores = (num_workers or 0) * num_threads or None
    # Else Ray would look for a cluster in the environment, and refuse to be told its size.
    ray.init(address="local", num_cpus=cores, include_dashboard=False, **quiet)
    return True


def _knock(address: str) -> None:
    """Fail soon where nobody listens: Ray itself would try for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


_KNOCK_SECONDS = 5.0
