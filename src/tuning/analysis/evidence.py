"""What a study has tried: settings of the hyperparameters that are learned, with every seed.

Trials that were made from recommended files count too, so that one recommendation follows from what
came of the one before.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from tuning.analysis.table import identity, values_of
from tuning.config import LAWS, ExperimentConfig, build, value_at
from tuning.documents import read_document
from tuning.errors import UserError
from tuning.fingerprint import weights_key
from tuning.grid import configuration
from tuning.measures import score_of
from tuning.paths import ResultsRoot
from tuning.points import Parameter, Point, Points, exists
from tuning.records import TrialRecord, TrialStatus, intact_record
from tuning.scoring import TRANSFER_SCORE, Focus
from tuning.search_space import Strategy, not_learned
from tuning.study import StudySpec, existing_spec, readable_records, study_names

Setting = Mapping[str, Any]
"""A value of every learned hyperparameter; one whose condition is not met is at the default."""

MIN_CONFIGURATIONS = 4
"""Fewer distinct configurations give no model."""

_ARM = "spelling_config.arm"


class Learned:
    """The hyperparameters of a study that can change what is trained; its own arm alone."""

    def __init__(self, spec: StudySpec) -> None:
        """Take them from the study's space.

        Args:
            spec: Of a one-at-a-time design, the space is the product of its values and the
                default's.
        """
        self.spec = spec
        self._raw = spec.base.model_dump(mode="json")
        known = spec.space.points()
        own = [p for p in known.parameters if not_learned(p.key) is None and p.key != _ARM]
        self.left_out = [p.name for p in known.parameters if p not in own and p.key != _ARM]
        self._fixed = {p.name: value_at(self._raw, p.key) for p in known.parameters if p not in own}
        self.default: Point = {p.name: value_at(self._raw, p.key) for p in own}
        self.points = Points([found for p in own for found in self._free(p)])
        self.parameters = self.points.parameters
        self.default = {p.name: self.default[p.name] for p in self.parameters}

    def _free(self, parameter: Parameter) -> Iterator[Parameter]:
        """Yield a parameter without conditions on what is not learned, if these are met."""
        fixed = [c for c in parameter.conditions if c.parent in self._fixed]
        if not exists(replace(parameter, conditions=tuple(fixed)), self._fixed):
            return
        left = tuple(c for c in parameter.conditions if c not in fixed)
        values = parameter.values
        if values and self.spec.space.strategy is Strategy.ONE_AT_A_TIME:
            values = tuple(values_of(parameter, [self.default]))
        yield replace(parameter, conditions=left, values=values)

    def setting(self, parameters: Mapping[str, Any]) -> Setting:
        """Return the setting of a configuration that differs from the default in some values."""
        given = {**self.default, **{n: v for n, v in parameters.items() if n in self.default}}
        return self.full(self.points.existing(given))

    def full(self, point: Mapping[str, Any]) -> Setting:
        """Return a point of the space as a setting."""
        return {**self.default, **point}

    def difference(self, setting: Setting) -> dict[str, Any]:
        """Return what differs from the default configuration."""
        return {n: v for n, v in setting.items() if identity(v) != identity(self.default[n])}

    def is_legal(self, setting: Setting) -> bool:
        """Whether a setting is a point of the space and breaks no law over several values."""
        if not self.points.holds(self.points.existing(setting)):
            return False
        own = {p.key: setting[p.name] for p in self.parameters}
        return not any(
            law.broken_by(*(own[k] if k in own else value_at(self._raw, k) for k in law.keys))
            for law in self._laws
        )

    @functools.cached_property
    def _laws(self) -> list[Any]:
        keys = {p.key for p in self.parameters}
        return [law for law in LAWS if keys & set(law.keys)]

    def config(self, setting: Setting, seed: int) -> ExperimentConfig:
        """Return the configuration of a trial, its steps scaled as the study's.

        Raises:
            ConfigError: It breaks a law.
        """
        difference = self.difference(setting)
        return configuration(self.spec.base, difference, seed, self.spec.step_scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One setting and what came of it."""

    setting: Setting
    objectives: Sequence[float]
    """Of each seed that completed."""
    seeds: Sequence[int]
    """All seeds that ended or are planned."""
    is_pruned: bool = False
    """Whether a seed was stopped early for being poor."""

    @property
    def mean(self) -> float:
        """Mean objective over seeds."""
        return sum(self.objectives) / len(self.objectives)


class Evidence(NamedTuple):
    """Everything that was tried, in the order of the trials."""

    completed: Sequence[Tried]
    open: Sequence[Tried]
    """Settings without a result: failed, stopped early, or planned and not run yet."""
    num_followups: int
    """Trials that were made from recommended files."""
    seconds_per_row: float | None
    """Seconds of training for a row of a batch; None if no trial was timed."""
    evaluation_seconds: float

    @property
    def num_runs(self) -> int:
        """Runs that completed."""
        return sum(len(tried.objectives) for tried in self.completed)

    @property
    def first(self) -> Tried:
        """The setting with the best mean."""
        return max(self.completed, key=lambda tried: tried.mean)

    @property
    def pruned(self) -> list[Tried]:
        """Settings that were only ever stopped early, each at the lowest mean that is known.

        What they would have come to is not known, but without them a model takes their
        neighbourhood for unexplored, and proposes it again.
        """
        lowest = min((tried.mean for tried in self.completed), default=0.0)
        return [replace(t, objectives=[lowest]) for t in self.open if t.is_pruned]

    @property
    def is_too_little(self) -> bool:
        """Whether there are too few settings for a model."""
        return len(self.completed) < MIN_CONFIGURATIONS

    @property
    def is_flat(self) -> bool:
        """Whether all settings have the same mean."""
        return len({tried.mean for tried in self.completed}) < 2

    def seconds(self, config: ExperimentConfig) -> float | None:
        """Return about how long a trial takes; None if nothing is known of it."""
        if self.seconds_per_row is None:
            return None
        return _rows(config) * self.seconds_per_row + self.evaluation_seconds


class _Run(NamedTuple):
    setting: Setting
    seed: int
    objective: float | None
    is_pruned: bool = False


def read_evidence(
    root: ResultsRoot, learned: Learned, records: Sequence[TrialRecord], focus: Focus
) -> Evidence:
    """Return what a study has tried; configurations that train the same weights are one run.

    Args:
        root: Where trials of recommended files are.
        learned: The hyperparameters of the study.
        records: Of its finished trials.
        focus: What is to be as high as possible.
    """
    again = _confirming_records(root, learned.spec.name)
    own = list(_own_runs(learned, [*records, *again], focus))
    later = [run for run in followups(root, learned, focus)]
    runs = [*own, *later, *_planned(learned, records)]
    groups: dict[str, dict[int, _Run]] = {}
    for run in runs:
        group = groups.setdefault(identity(sorted(run.setting.items())), {})
        # What was measured outweighs what failed, or is only planned.
        if run.seed not in group or group[run.seed].objective is None:
            group[run.seed] = run
    tried = [
        Tried(
            setting=next(iter(group.values())).setting,
            objectives=[r.objective for r in group.values() if r.objective is not None],
            seeds=sorted(group),
            is_pruned=any(r.is_pruned for r in group.values()),
        )
        for group in groups.values()
    ]
    completed = [r for r in records if r.result.status is TrialStatus.COMPLETED]
    return Evidence(
        completed=[t for t in tried if t.objectives],
        open=[t for t in tried if not t.objectives],
        num_followups=len(later),
        seconds_per_row=_median(
            r.execution.train_seconds / _rows(learned.spec.config_of(r))
            for r in completed
            if r.execution.train_seconds
        ),
        evaluation_seconds=_median(r.execution.evaluation_seconds for r in completed) or 0.0,
    )


def _confirming_records(root: ResultsRoot, name: str) -> list[TrialRecord]:
    """Return what came of the study's winners on fresh seeds; nothing of what cannot be read."""
    found: list[TrialRecord] = []
    for other in study_names(root):
        with contextlib.suppress(UserError):
            spec = existing_spec(root, other)
            if spec.confirms == name:
                found += readable_records(spec, root.study(other))[0]
    return found


def _own_runs(learned: Learned, records: Sequence[TrialRecord], focus: Focus) -> Iterator[_Run]:
    arm = learned.spec.base.spelling_config.arm.value
    for record in records:
        if record.parameters.get("arm", arm) == arm:
            is_complete = record.result.status is TrialStatus.COMPLETED
            objective = focus.objective(record.result.metrics) if is_complete else None
            is_pruned = record.result.status is TrialStatus.PRUNED
            yield _Run(learned.setting(record.parameters), record.seed, objective, is_pruned)


def _planned(learned: Learned, records: Sequence[TrialRecord]) -> Iterator[_Run]:
    """Yield the trials that the study will make and has no record of."""
    plan = learned.spec.plan()
    if len(records) >= plan.num_trials:
        return
    finished = {record.trial_id for record in records}
    arm = learned.spec.base.spelling_config.arm.value
    for proposal in plan.known():
        is_own = proposal.parameters.get("arm", arm) == arm
        if is_own and proposal.trial_id not in finished:
            yield _Run(learned.setting(proposal.parameters), proposal.seed, None)


def _rows(config: ExperimentConfig) -> int:
    training = config.training_config
    return training.max_steps * training.effective_batch_size


def _median(values: Iterable[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None


# --- trials of recommended files ----------------------------------------------------------------


def experiment_name(study: str, place: int) -> str:
    """Return the name of the experiment that a recommendation is written as."""
    return f"{study}_next_{place}"


def followups(root: ResultsRoot, learned: Learned, focus: Focus) -> Iterator[_Run]:
    """Yield the completed trials of recommended files that are as the study's own.

    What they train and are asked must be what the study would train and ask; a file that was edited
    elsewhere is no trial of this study.
    """
    pattern = f"{experiment_name(learned.spec.name, 0)[:-1]}*/trials/single-*/record.json"
    for path in sorted(root.data.glob(pattern)):
        record = intact_record(path)
        if record is None or record.result.status is not TrialStatus.COMPLETED:
            continue
        found = _as_own(learned, path.with_name("config.yaml"))
        if found is not None:
            metrics = dict(record.result.metrics)
            # A single trial was scored with its own weights.
            metrics[TRANSFER_SCORE] = score_of(metrics, learned.spec.weights)
            yield _Run(found, record.seed, focus.objective(metrics))


def _as_own(learned: Learned, path: Path) -> Setting | None:
    """Return the setting of a configuration that the study could have made; else None."""
    try:
        config = build(read_document(path).data, str(path))
        raw = config.model_dump(mode="json")
        setting = learned.full(
            {p.name: _unscaled(p, value_at(raw, p.key), learned) for p in learned.parameters}
        )
        twin = learned.config(setting, config.training_config.seed)
        is_same = weights_key(twin) == weights_key(config)
    except UserError:
        return None
    return setting if is_same and twin.evaluation_config == config.evaluation_config else None


_SCALED = ("training_config.max_steps", "training_config.warmup_steps")


def _unscaled(parameter: Parameter, value: Any, learned: Learned) -> Any:
    """Return the value before steps were scaled; of several that scale to it, a known one."""
    if parameter.key not in _SCALED:
        return value
    scale = Decimal(repr(learned.spec.step_scale))
    known = (learned.default[parameter.name], *parameter.values)
    return next((v for v in known if math.ceil(scale * v) == value), int(value / scale))
