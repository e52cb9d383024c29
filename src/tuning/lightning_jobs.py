"""Jobs of the cloud: put in order, submitted once, watched, metered, and found again.

Nothing here knows of trainings: what a job does travels as text, and what it is worth is told as a
number.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from tuning.cloud_ledger import JobRun, JobSpec, Ledger, Outcome, Stage, Submission
from tuning.cloud_settings import CloudSettings
from tuning.errors import (
    CapacityError,
    CloudError,
    ConfigError,
    NotFoundError,
    UnreachableError,
    nearest,
    shown,
)
from tuning.lightning_integration import JobPhase, JobState, Offer, Order
from tuning.paths import CloudTaskFolder


class JobsOfCloud(Protocol):
    """What a scheduler wants of the cloud; `lightning_integration.Cloud` has it."""

    def submit(self, order: Order, studio: str) -> JobState:
        """Submit a job."""

    def job(self, name: str) -> JobState | None:
        """Return a job by its name."""

    def jobs(self) -> list[JobState]:
        """Return the jobs that there are."""

    def stop_job(self, name: str) -> None:
        """Stop a job."""

    def remove_job(self, name: str) -> None:
        """Stop and delete a job."""

    def offers(self) -> list[Offer]:
        """Return the machines that can be had."""


# --- the order of jobs --------------------------------------------------------------------------


def check_needs(specs: Sequence[JobSpec]) -> None:
    """Refuse jobs that need one that there is not, or each other.

    Raises:
        ConfigError: They do; a circle is told in full.
    """
    by_name = {spec.name: spec for spec in specs}
    if len(by_name) < len(specs):
        names = [spec.name for spec in specs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two jobs are called {twice}; a job has a name of its own")
    for spec in specs:
        for need in spec.needs:
            if need not in by_name:
                hint = nearest(need, by_name)
                raise ConfigError(f"job {spec.name} needs {shown(need)}, which is no job; {hint}")
    _refuse_circles(by_name)


def _refuse_circles(by_name: Mapping[str, JobSpec]) -> None:
    done: set[str] = set()
    for first in by_name:
        path: list[str] = []
        # Depth first, without recursion: a chain may be long.
        stack: list[tuple[str, bool]] = [(first, False)]
        while stack:
            name, is_left = stack.pop()
            if is_left:
                path.pop()
                done.add(name)
                continue
            if name in path:
                circle = " -> ".join([*path[path.index(name) :], name])
                raise ConfigError(f"jobs need each other in a circle: {circle}")
            if name in done:
                continue
            path.append(name)
            stack.append((name, True))
            stack.extend((need, False) for need in by_name[name].needs)


def precedence(priority: float, cost: float | None, place: int) -> tuple[float, float, int]:
    """Return by what jobs are sorted: expected impact, then cheap first, then as they were planned.

    A job of unknown cost comes behind those whose cost is known.
    """
    return (-priority, float("inf") if cost is None else cost, place)


def in_order(specs: Sequence[JobSpec], price_of: Callable[[str], float]) -> list[JobSpec]:
    """Return jobs in the order in which one machine would run them: each after what it needs.

    Raises:
        ConfigError: One needs a job that there is not, or they need each other.
    """
    check_needs(specs)
    waits = {spec.name: set(spec.needs) for spec in specs}
    heap: list[tuple[tuple[float, float, int], JobSpec]] = []
    places = {spec.name: place for place, spec in enumerate(specs)}

    def offer(spec: JobSpec) -> None:
        cost = None if spec.hours is None else spec.hours * price_of(spec.machine)
        heapq.heappush(heap, (precedence(spec.priority, cost, places[spec.name]), spec))

    for spec in specs:
        if not waits[spec.name]:
            offer(spec)
    found: list[JobSpec] = []
    while heap:
        spec = heapq.heappop(heap)[1]
        found.append(spec)
        for other in specs:
            if spec.name in waits[other.name]:
                waits[other.name].discard(spec.name)
                if not waits[other.name]:
                    offer(other)
    return found


# --- the scheduler ------------------------------------------------------------------------------


class Scheduler:
    """Runs the jobs of a task, so many at once; the caller holds the task's lock.

    `step` does what can be done now and never waits. The order is that of `precedence`; a job
    that the cloud has no machine for lets the next one go first.
    """

    def __init__(
        self,
        cloud: JobsOfCloud,
        settings: CloudSettings,
        folder: CloudTaskFolder,
        studio: str,
        *,
        outcome_of: Callable[[JobRun], Outcome | None],
        auto_scale: bool = True,
        max_jobs: int | None = None,
        max_cost: float | None = None,
        said: Callable[[str], None] = lambda message: None,
    ) -> None:
        """Take up what the ledger knows: jobs that still run are adopted.

        Args:
            cloud: Where jobs run.
            settings: Bounds, patience, prices.
            folder: Of the task.
            studio: Whose environment jobs have.
            outcome_of: Reads what a job said when it ended; None where it said nothing (yet).
            auto_scale: Let the number at once follow what waits, between both bounds; else it is
                the lower bound.
            max_jobs: The upper bound, if not that of the settings.
            max_cost: US dollars after which nothing more is submitted.
            said: Told of what a person should know.

        Raises:
            ResultsError: The ledger is damaged.
        """
        self.cloud, self.settings, self.studio = cloud, settings, studio
        self.ledger = Ledger.read(folder)
        self.ledger.begin()
        self._outcome_of, self._said = outcome_of, said
        bounds = settings.scheduler
        self._most = (max_jobs or bounds.max_jobs) if auto_scale else bounds.min_jobs
        self._least = min(bounds.min_jobs, self._most)
        self._room = self._most
        """So many machines could be had lately."""
        self._room_until = 0.0
        self.max_cost = max_cost
        self._looked = 0.0
        self._silent_since: float | None = None
        self._prices: dict[str, Offer] = {}
        self._prices_at = 0.0

    # --- what is asked ----------------------------------------------------------------------------

    def add(self, spec: JobSpec) -> JobRun:
        """Have a job run; one of the same name and identity that the cloud has is adopted.

        Returns:
            The job. One that was done, and whose results nobody has taken in, is handed over as it
            is; where another one of that name is over it begins anew.

        Raises:
            ResultsError: The disk refuses.
        """
        known = self.ledger.runs.get(spec.name)
        if known is not None and not known.stage.is_over:
            if known.spec.identity == spec.identity:
                return known
            self._remove(known, "another job of its name is asked for")
        elif known is not None and self._waits_to_be_collected(known, spec):
            return known
        self.ledger.note("planned", job=spec.name, spec=spec.model_dump(mode="json"))
        return self.ledger.runs[spec.name]

    def _waits_to_be_collected(self, known: JobRun, spec: JobSpec) -> bool:
        """Whether a job was done, and the driver killed before it took in what came of it."""
        if known.stage is not Stage.DONE or known.is_collected:
            return False
        if known.spec.identity != spec.identity:
            return False
        if known.outcome is None:
            known.outcome = self._outcome_of(known)
        return known.outcome is not None

    def collected(self, run: JobRun) -> None:
        """Note that what a job wrote has been taken in.

        Raises:
            ResultsError: The disk refuses.
        """
        if not run.is_collected:
            self.ledger.note("collected", job=run.spec.name)

    def add_once(self, spec: JobSpec) -> JobRun:
        """Have a job run unless the same work was done before.

        Raises:
            ResultsError: The disk refuses.
        """
        known = self.ledger.runs.get(spec.name)
        if known is not None and known.stage is Stage.DONE and known.spec.identity == spec.identity:
            return known
        return self.add(spec)

    def cancel(self, name: str) -> None:
        """Stop a job; `step` tells of its end."""
        run = self.ledger.runs[name]
        run.is_cancelled = True
        self._looked = 0.0

    def stop_all(self, message: str) -> None:
        """Stop every job that runs or waits, as far as the cloud can be reached.

        Raises:
            CloudError: A job may still run.
        """
        failed: list[str] = []
        for run in self.ledger.runs.values():
            if run.stage.is_over:
                continue
            try:
                self._remove(run, message)
            except CloudError as error:
                failed.append(f"{run.spec.name}: {error}")
        if failed:
            raise CloudError("jobs may still run: " + "; ".join(failed))

    @property
    def at_once(self) -> int:
        """Jobs that may be live at once, as far as is known now."""
        if time.time() > self._room_until:
            self._room = self._most
        return max(self._least, min(self._room, self._most))

    @property
    def live(self) -> list[JobRun]:
        """The jobs that the cloud has."""
        return [run for run in self.ledger.runs.values() if run.stage.is_live]

    @property
    def is_over_budget(self) -> bool:
        """Whether the jobs have cost as much as they may."""
        return self.max_cost is not None and self.ledger.cost() >= self.max_cost

    def price_of(self, machine: str) -> float:
        """Return US dollars an hour: today's where they are known, else the table's.

        Raises:
            NotFoundError: Neither knows the machine.
        """
        offer = self._prices.get(machine)
        if offer is not None and offer.per_hour is not None:
            return offer.per_hour
        return self.settings.prices.per_hour(machine)

    # --- one step ---------------------------------------------------------------------------------

    def step(self) -> list[JobRun]:
        """Look at live jobs, submit what may be; return the jobs that ended.

        Raises:
            UnreachableError: The cloud has been silent for too long. Jobs go on; the same command
                adopts them later.
            CloudError: The cloud refuses a job, or the key.
        """
        ended: list[JobRun] = []
        now = time.time()
        try:
            if now - self._looked >= self.settings.scheduler.poll_seconds:
                self._looked = now
                self._look(ended)
            self._fill(ended)
        except UnreachableError as error:
            self._bear(error)
        else:
            if self._silent_since is not None:
                self._said("Lightning.AI answers again")
                self._silent_since = None
        return ended

    def _bear(self, error: UnreachableError) -> None:
        """Put up with a silent cloud for a while.

        Raises:
            UnreachableError: It has been too long.
        """
        now = time.time()
        if self._silent_since is None:
            self._silent_since = now
            self._said(f"{error}; jobs go on, and are asked for again")
        elif now - self._silent_since > 60 * self.settings.scheduler.unreachable_minutes:
            raise error

    def _look(self, ended: list[JobRun]) -> None:
        for run in self.live:
            if run.is_cancelled:
                self._stop(run)
            self._look_at(run, ended)
        for run in list(self.ledger.runs.values()):
            if run.is_cancelled and run.stage is Stage.WAITING:
                self._end(run, Stage.CANCELLED, "cancelled", ended)
        self._settle()

    def _look_at(self, run: JobRun, ended: list[JobRun]) -> None:
        submission = run.current
        assert submission is not None
        state = self.cloud.job(submission.cloud_name)
        if state is None:
            if submission.cloud_id is None:
                # Its submission was never heard of: it is made again, under the same name.
                self.ledger.note("waiting", job=run.spec.name)
            else:
                self._lose(run, None, "the cloud does not know it any more", ended)
            return
        if submission.cloud_id is None:
            self._take(run, state)
        if state.phase is JobPhase.RUNNING and run.stage is not Stage.RUNNING:
            self.ledger.note("running", job=run.spec.name, started=state.started or time.time())
        if state.phase.is_over:
            self._finish(run, state, ended)

    def _take(self, run: JobRun, state: JobState) -> None:
        self.ledger.note("submitted", job=run.spec.name, cloud_name=state.name, cloud_id=state.id)

    def _finish(self, run: JobRun, state: JobState, ended: list[JobRun]) -> None:
        """Take in a job that is over."""
        if run.is_cancelled or state.phase is JobPhase.STOPPED:
            outside = "stopped from outside: by tuning lightning cancel, or in the cloud"
            by = "cancelled" if run.is_cancelled else outside
            self._end(run, Stage.CANCELLED, by, ended, state)
            return
        run.outcome = self._outcome_of(run)
        if run.outcome is not None:
            stage = Stage.DONE if run.outcome.is_well else Stage.FAILED
            self._end(run, stage, run.outcome.message, ended, state)
        elif state.phase is JobPhase.COMPLETED and not self._has_waited(run):
            # Files land late.
            return
        else:
            self._lose(run, state, state.message or "it ended without a word", ended)

    def _has_waited(self, run: JobRun) -> bool:
        if run.unseen_since is None:
            run.unseen_since = time.time()
        return time.time() - run.unseen_since > _LANDING_SECONDS

    def _lose(self, run: JobRun, state: JobState | None, message: str, ended: list[JobRun]) -> None:
        """Submit a job again whose machine was lost, or give it up."""
        self.ledger.note("lost", job=run.spec.name, message=message)
        if run.num_lost_since_planned <= run.spec.retries:
            self._said(f"{run.spec.name}: {message}; it is submitted again")
            self.ledger.note("waiting", job=run.spec.name, **_times(state))
            return
        self._end(run, Stage.LOST, message, ended, state)

    def _end(
        self,
        run: JobRun,
        stage: Stage,
        message: str,
        ended: list[JobRun],
        state: JobState | None = None,
    ) -> None:
        self.ledger.note(
            "ended", job=run.spec.name, stage=stage.value, message=message, **_times(state)
        )
        ended.append(run)

    def _stop(self, run: JobRun) -> None:
        assert run.current is not None
        self.cloud.stop_job(run.current.cloud_name)

    def _remove(self, run: JobRun, message: str) -> None:
        """End a job now, whatever it does."""
        if run.stage.is_live:
            self._stop(run)
            assert run.current is not None
            state = self.cloud.job(run.current.cloud_name)
            self._end(run, Stage.CANCELLED, message, [], state)
        else:
            self._end(run, Stage.CANCELLED, message, [])

    # --- submissions ------------------------------------------------------------------------------

    def _fill(self, ended: list[JobRun]) -> None:
        self._skip(ended)
        if self.is_over_budget:
            return
        now = time.time()
        for run in self._ready():
            if len(self.live) >= self.at_once:
                return
            if run.not_before <= now and self._has_room_on(run.spec.machine):
                self._submit(run, ended)

    def _ready(self) -> list[JobRun]:
        """Return the jobs that nothing keeps from running, the most worth first."""
        waiting = [r for r in self.ledger.runs.values() if r.stage is Stage.WAITING]
        ready = [r for r in waiting if all(self._is_done(need) for need in r.spec.needs)]
        return sorted(
            ready, key=lambda r: precedence(r.spec.priority, r.estimate(self.price_of), r.place)
        )

    def _is_done(self, name: str) -> bool:
        return self.ledger.runs[name].stage is Stage.DONE

    def _has_room_on(self, machine: str) -> bool:
        most = self.settings.scheduler.max_jobs_on.get(machine)
        used = sum(r.current is not None and r.current.machine == machine for r in self.live)
        return most is None or used < most

    def _skip(self, ended: list[JobRun]) -> None:
        """Leave out what needs a job that was not done, and what needs that, and so on."""
        again = True
        while again:
            again = False
            for run in self.ledger.runs.values():
                if run.stage is not Stage.WAITING:
                    continue
                broken = [n for n in run.spec.needs if self._is_broken(n)]
                if broken:
                    what = _HOW_ENDED[self.ledger.runs[broken[0]].stage]
                    self._end(run, Stage.SKIPPED, f"{broken[0]} {what}", ended)
                    again = True

    def _is_broken(self, name: str) -> bool:
        stage = self.ledger.runs[name].stage
        return stage.is_over and stage is not Stage.DONE

    def _submit(self, run: JobRun, ended: list[JobRun]) -> None:
        spec = run.spec
        self._refresh_prices()
        spot = spec.spot and run.num_lost < max(1, self.settings.scheduler.max_preemptions)
        offer = self._prices.get(spec.machine)
        if spot and (offer is None or offer.spot_per_hour is None):
            spot = False
        price = offer.spot_per_hour if spot and offer else None
        number = len(run.submissions) + 1
        last = run.current
        if last is not None and last.cloud_id is None:
            # Nobody has heard of it: the name is still free, or it is the very job.
            number, name = last.number, last.cloud_name
        else:
            name = self._cloud_name(spec.name, number)
        self.ledger.note(
            "submitting",
            job=spec.name,
            number=number,
            cloud_name=name,
            machine=spec.machine,
            per_hour=self.price_of(spec.machine) if price is None else price,
            spot=spot,
        )
        order = Order(
            name=name, command=spec.command, machine=spec.machine, env=spec.env, spot=spot
        )
        try:
            state = self.cloud.submit(order, self.studio)
        except CapacityError as error:
            self._refused(run, error, ended)
            return
        except (UnreachableError, NotFoundError):
            raise
        except CloudError as error:
            self._end(run, Stage.FAILED, f"the cloud refuses it: {error}", ended)
            return
        if run.refused_since is not None:
            self._said(f"{spec.name} has its {spec.machine} now")
            run.refused_since = None
        self._take(run, state)

    def _refused(self, run: JobRun, error: CapacityError, ended: list[JobRun]) -> None:
        now = time.time()
        since = run.refused_since or now
        # Nothing was submitted: the line before it is taken back.
        self.ledger.note("waiting", job=run.spec.name, message=str(error))
        run.refused_since = since
        self._room = max(self._least, len(self.live))
        pause = min(_REFUSED_SECONDS, 6 * self.settings.scheduler.poll_seconds)
        run.not_before = self._room_until = now + pause
        patience = self.settings.scheduler.capacity_minutes
        if now - since > 60 * patience:
            text = f"no {run.spec.machine} could be had for {patience:g} minutes"
            self._end(run, Stage.FAILED, text, ended)
        elif since == now:
            self._said(f"{run.spec.name} waits: {error}")

    def _refresh_prices(self) -> None:
        now = time.time()
        if now - self._prices_at < _PRICES_SECONDS:
            return
        found: dict[str, Offer] = {}
        for offer in self.cloud.offers():
            known = found.get(offer.machine)
            if known is None or (offer.per_hour or 0) < (known.per_hour or 0):
                found[offer.machine] = offer
        self._prices, self._prices_at = found, now

    def _cloud_name(self, job: str, number: int) -> str:
        """Return the name under which the cloud has a submission: unique in a teamspace."""
        task = self.ledger.folder.root.name
        plain = re.sub(r"[^a-z0-9]+", "-", f"{task}-{job}".lower()).strip("-")
        if len(plain) > _NAME_LENGTH:
            plain = f"{plain[: _NAME_LENGTH - 9]}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"
        return f"{plain}-{self.ledger.id}-r{number}"

    # --- the end ----------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Ask what jobs that are over cost in the end: three equal answers in a row."""
        for run in self.ledger.runs.values():
            for submission in _unsettled(run):
                state = self.cloud.job(submission.cloud_name)
                if state is None:
                    continue
                said = submission.said = [*submission.said[-2:], state.cost]
                if len(said) == 3 and state.cost > 0 and len(set(said)) == 1:
                    cost = round(state.cost, 6)
                    self.ledger.note(
                        "settled", job=run.spec.name, number=submission.number, cost=cost
                    )

    def settle(self, seconds: float) -> bool:
        """Ask for final costs for so many seconds; return whether all are known."""
        until = time.time() + seconds
        while True:
            try:
                self._settle()
            except CloudError:
                return False
            open_ = [s for run in self.ledger.runs.values() for s in _unsettled(run)]
            if not open_ or time.time() >= until:
                return not open_
            time.sleep(min(self.settings.scheduler.poll_seconds, max(0.0, until - time.time())))

    def remove_strays(self) -> list[str]:
        """Stop and delete jobs of this task's names that the ledger does not know; return them.

        Raises:
            CloudError: The cloud does not answer.
        """
        ours = {s.cloud_name for run in self.ledger.runs.values() for s in run.submissions}
        strays = [state.name for state in self.cloud.jobs() if _is_stray(state.name, ours)]
        for name in strays:
            self._said(f"job {name} is a second one of a lost answer, and is removed")
            self.cloud.remove_job(name)
        return strays


def _unsettled(run: JobRun) -> list[Submission]:
    """Return the submissions of a job that are over, and whose final cost is not known."""
    over = run.submissions if not run.stage.is_live else run.submissions[:-1]
    return [s for s in over if s.cloud_id is not None and s.settled is None]


def _is_stray(name: str, ours: Iterable[str]) -> bool:
    """Whether the cloud made a name for a repeated request: ours, a hyphen and a number."""
    return any(
        name != own and name.startswith(f"{own}-") and name[len(own) + 1 :].isdigit()
        for own in ours
    ) and name not in set(ours)


def _times(state: JobState | None) -> dict[str, float]:
    if state is None:
        return {}
    found = {"started": state.started, "stopped": state.stopped}
    return {name: value for name, value in found.items() if value is not None}


_HOW_ENDED = {
    Stage.FAILED: "failed",
    Stage.LOST: "lost its machine",
    Stage.CANCELLED: "was cancelled",
    Stage.SKIPPED: "was skipped",
}
_LANDING_SECONDS = 60.0
"""For which the outcome of a completed job may be under way."""
_REFUSED_SECONDS = 60.0
"""Until a machine is asked for again that nobody had."""
_PRICES_SECONDS = 300.0
_NAME_LENGTH = 44
