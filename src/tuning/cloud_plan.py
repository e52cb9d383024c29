"""A study as jobs of the cloud: one a training, with its machine, hours, cost and place."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuning.cloud_settings import CloudSettings, family_of, machine_for
from tuning.config import ExperimentConfig
from tuning.errors import ConfigError, shown
from tuning.estimate import seconds_on
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Proposal
from tuning.jobs import Job
from tuning.lightning_jobs import precedence
from tuning.memory import MACHINES, check_fits
from tuning.paths import ResultsRoot
from tuning.ranking import Contender
from tuning.records import intact_record
from tuning.study import StudySpec, trial_index


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedJob:
    """One job: a training, and every trial that needs it."""

    training_key: str
    proposals: Sequence[Proposal]
    machine: str
    hours: float | None
    """Expected; None for a model whose size is not known before it is fetched."""
    per_hour: float
    impact: float
    """Expected, in points."""
    why: str
    """Why it stands where it stands."""

    @property
    def cost(self) -> float | None:
        """US dollars, expected."""
        return None if self.hours is None else self.hours * self.per_hour

    @property
    def has_default(self) -> bool:
        """Whether the default configuration is trained here, on its first seed or another."""
        return _is_default(self.proposals)


@dataclass(frozen=True, slots=True)
class CloudPlan:
    """All jobs of a study, in the order in which they begin."""

    jobs: Sequence[PlannedJob]
    num_trials: int
    num_finished: int
    """Trials that have a record already, and cost nothing."""
    num_open: int
    """Trials that follow from results, each taken to be a job like the first."""
    at_once: int

    @property
    def hours(self) -> float | None:
        """Of all machines together."""
        return _total([job.hours for job in self.jobs], self.num_open)

    @property
    def cost(self) -> float | None:
        """US dollars of all jobs."""
        return _total([job.cost for job in self.jobs], self.num_open)

    @property
    def clock_hours(self) -> float | None:
        """By the clock: each job begins, in order, on the machine that is free first."""
        hours = [job.hours for job in self.jobs]
        known = [h for h in hours if h is not None]
        if len(known) < len(hours):
            return None
        known += [known[0]] * self.num_open if known else []
        free = [0.0] * max(1, self.at_once)
        for needed in known:
            heapq.heapreplace(free, free[0] + needed)
        return max(free)

    @property
    def order(self) -> list[int]:
        """The indices of the trials in the order in which they begin; finished ones come last."""
        first = [p for job in self.jobs for p in job.proposals]
        begun = [trial_index(p.trial_id) for p in first]
        return [*begun, *sorted(set(range(self.num_trials)) - set(begun))]


def _total(values: Sequence[float | None], num_more: int) -> float | None:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(known) + (num_more * known[0] if known else 0.0)


def plan_jobs(
    spec: StudySpec,
    root: ResultsRoot,
    settings: CloudSettings,
    *,
    machine: str | None = None,
    impacts: Mapping[str, tuple[float, str]] | None = None,
    max_jobs: int | None = None,
) -> CloudPlan:
    """Return a study as jobs.

    Args:
        spec: The study.
        root: What is finished there costs nothing.
        settings: Machines, prices, bounds.
        machine: Of every job; that of each configuration if not given.
        impacts: Of trials, by id: expected impact in points, and what it rests on.
        max_jobs: At most so many at once.

    Raises:
        ConfigError: A configuration cannot fit on its machine, or names a file that only this
            computer has.
        NotFoundError: A machine has no price.
    """
    plan = spec.plan()
    folder = root.study(spec.name)
    known = list(plan.known())
    left = [p for p in known if intact_record(folder.trial(p.trial_id).record) is None]
    groups: dict[str, list[Proposal]] = {}
    for proposal in left:
        groups.setdefault(training_key(proposal.config), []).append(proposal)
    jobs = [
        _planned(key, proposals, settings, machine, impacts or {})
        for key, proposals in groups.items()
    ]
    places = {job.training_key: place for place, job in enumerate(jobs)}
    jobs.sort(
        key=lambda job: (
            not job.has_default,
            precedence(job.impact, job.cost, places[job.training_key]),
        )
    )
    bounds = settings.scheduler
    most = (
        (max_jobs or bounds.max_jobs) if spec.base.lightning_config.auto_scale else bounds.min_jobs
    )
    return CloudPlan(
        jobs=jobs,
        num_trials=plan.num_trials,
        num_finished=len(known) - len(left),
        num_open=plan.num_trials - len(known),
        at_once=most,
    )


def _planned(
    key: str,
    proposals: Sequence[Proposal],
    settings: CloudSettings,
    machine: str | None,
    impacts: Mapping[str, tuple[float, str]],
) -> PlannedJob:
    # The first one leads: the others wait for its training.
    named = machine or machine_for(proposals[0].config)
    for proposal in proposals:
        _check_files(proposal.config, settings)
        check_machine(proposal, named)
    longest = max(proposals, key=lambda p: p.config.training_config.max_steps)
    num_evaluations = len({weights_key(p.config) for p in proposals})
    seconds = seconds_on(longest.config, num_evaluations, family_of(named))
    points, why = max((impacts.get(p.trial_id, (0.0, "")) for p in proposals), key=lambda i: i[0])
    return PlannedJob(
        training_key=key,
        proposals=proposals,
        machine=named,
        hours=None if seconds is None else seconds / 3600,
        per_hour=settings.prices.per_hour(named),
        impact=points,
        why=_why(proposals, why),
    )


def _is_default(proposals: Sequence[Proposal]) -> bool:
    return any(not proposal.parameters for proposal in proposals)


def _why(proposals: Sequence[Proposal], why: str) -> str:
    if _is_default(proposals):
        return "the default, with which all others are compared: first"
    return why or "nothing is known of its worth: cheap first"


def check_machine(proposal: Proposal, machine: str) -> None:
    """Refuse a trial that cannot fit on a machine of the cloud.

    Raises:
        ConfigError: It needs more memory than there is.
    """
    family = family_of(machine)
    name = machine.lower() if machine.lower() in MACHINES else (family or "cpu").lower()
    if name in MACHINES:
        try:
            check_fits(proposal.config, MACHINES[name])
        except ConfigError as error:
            label = Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
            raise ConfigError(
                f"trial {proposal.trial_id} ({label}): {error}; or choose another machine for all: "
                f"--machine A100, or with --mode lightning --gpu-tier a100"
            ) from error


def _check_files(config: ExperimentConfig, settings: CloudSettings) -> None:
    """Refuse files of this computer, which no machine of the cloud has.

    Raises:
        ConfigError: The configuration names one outside the shared folder.
    """
    spelling, shared = config.spelling_config, settings.studio.shared_folder
    for name in ("word_list", "replay_file"):
        path = getattr(spelling, name)
        if path is not None and not str(path).startswith(f"{shared}/"):
            raise ConfigError(
                f"spelling_config.{name} must lie below {shared}, which every machine sees, got "
                f"{shown(path)}"
            )


def siblings(job: Job, plan: CloudPlan, root: ResultsRoot, spec: StudySpec) -> list[Job]:
    """Return other trials of a job's training that have no record yet, shortest first.

    A job that pauses brings none along: what becomes of it is not known yet.
    """
    if job.until is not None:
        return []
    group = next((j.proposals for j in plan.jobs if j.training_key == job.training_key), ())
    folder = root.study(spec.name)
    others = [
        p
        for p in group
        if p.trial_id != job.trial_id and intact_record(folder.trial(p.trial_id).record) is None
    ]
    others.sort(key=lambda p: p.config.training_config.max_steps)
    return [
        job.model_copy(
            update={
                "trial_id": p.trial_id,
                "config": p.config,
                "parameters": p.parameters,
                "seed": p.seed,
            }
        )
        for p in others[:_MAX_TOGETHER]
    ]


_MAX_TOGETHER = 64
"""Trials that come along in one job: what it is to do stands in a variable, and these are short."""
