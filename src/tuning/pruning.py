"""Early stopping: which trials are not worth their compute. Pure functions of learning curves.

Trials are compared with their peers on the way, on the small monitor suite: at equal optimizer
steps, and at equal training examples where batch sizes differ. The default configuration is never
stopped, and nothing is stopped in its warm-up.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuning.config import ExperimentConfig
from tuning.errors import ConfigError, nearest
from tuning.schema import Number, Rate, law_of_error
from tuning.scoring import Focus, Weights, accuracy_name, calculate_transfer_score, dominates
from tuning.tasks.items import SCORED_TASKS
from tuning.tasks.stream import Arm


@dataclass(frozen=True, slots=True)
class Observation:
    """Accuracies on the monitor suite after so many optimizer steps, each in [0, 1]."""

    step: int
    spelling: float
    position: float
    count: float

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Observation:
        """Read a line of a training's progress."""
        spelling, position, count = (float(line[accuracy_name(t)]) for t in SCORED_TASKS)
        return cls(int(line["step"]), spelling, position, count)


Metric = Callable[[Observation], float]
Objectives = Sequence[tuple[str, Metric]]
"""What trials are ranked by, as it is known on the way: name and metric, higher is better."""


def spelling(seen: Observation) -> float:
    """Return the metric of the trained task."""
    return seen.spelling


def transfer(seen: Observation) -> float:
    """Return the metric of the tasks that were never trained: mean of position and count."""
    return (seen.position + seen.count) / 2


def metric_of(focus: Focus, weights: Weights) -> Metric:
    """Return what stands on the way for what a focus ranks by at the end.

    The untouched model is the same for all peers, so levels rank as gains do.
    """
    if focus is Focus.SPELLING:
        return spelling
    if focus is Focus.TRANSFER:
        return transfer

    def score(seen: Observation) -> float:
        return calculate_transfer_score(seen.spelling, seen.position, seen.count, *weights)

    return score


@dataclass
class Curve:
    """The way of one trial so far."""

    trial_id: str
    training_key: str
    batch_size: int
    """Examples of an optimizer step."""
    warmup_steps: int
    max_steps: int
    eval_frequency: int
    arm: Arm
    is_spared: bool
    """Never stopped: the default configuration, and controls, which explain and compete not."""
    seen: list[Observation] = field(default_factory=list)
    """In order of steps; step 0 is the untouched model."""
    _levels: dict[tuple[Metric, float], float] = field(default_factory=dict)
    """What the past was like: it does not change."""

    @classmethod
    def begin(
        cls, trial_id: str, training_key: str, config: ExperimentConfig, *, is_spared: bool
    ) -> Curve:
        """Return the curve of a trial that has not begun."""
        training = config.training_config
        return cls(
            trial_id,
            training_key,
            training.effective_batch_size,
            training.warmup_steps,
            training.max_steps,
            config.transfer_config.eval_frequency,
            config.spelling_config.arm,
            is_spared,
        )

    @property
    def step(self) -> int:
        """The last step seen."""
        return self.seen[-1].step if self.seen else 0

    def observed_steps(self, wanted: Iterable[int]) -> list[int]:
        """Return the steps at which the trial is evaluated that are next to the wanted ones."""
        every = self.eval_frequency
        steps = {max(every, -(-step // every) * every) for step in wanted}
        return sorted(step for step in steps if step < self.max_steps)

    def upto(self, step: float) -> list[Observation]:
        """Return what was seen after at least one step and at most so many."""
        return [seen for seen in self.seen if 0 < seen.step <= step]

    def level(self, metric: Metric, step: float) -> float | None:
        """Return the mean of the metric over the way to a step; None if the trial is not there yet.

        A single look at the small monitor suite is noise by several points: the running mean is
        what the median rule of Google Vizier (Golovin et al. 2017) compares too.
        """
        if self.step < step:
            return None
        known = self._levels.get((metric, step))
        if known is None:
            known = self._levels[metric, step] = self._mean_before(metric, step)
        return known

    def _mean_before(self, metric: Metric, step: float) -> float:
        # Before its first evaluation a trial is the untouched model.
        return statistics.fmean(metric(seen) for seen in self.upto(step) or self.seen[:1])


class Pruner(Protocol):
    """Decides when a trial is stopped."""

    pauses: bool
    """Whether trials pause at rungs until they are judged there."""

    def rungs(self, curve: Curve) -> Sequence[int]:
        """Return the steps at which trials that pause are judged, ascending."""

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return why a trial should stop after `step`, or None to let it go on.

        Args:
            curve: The trial; it has come at least so far.
            peers: The other trials of the study.
            step: Nothing that this trial saw later is looked at.
            objectives: What trials are ranked by.
        """


# --- comparing --------------------------------------------------------------------------------


class _Place(NamedTuple):
    """How a trial stands among its peers by one metric, at equal steps or at equal examples."""

    value: float
    quantile: float
    num_peers: int
    axis: str

    def is_below(self, margin: float = 0.0) -> bool:
        """Whether it is below the quantile by more than a margin, and than rounding."""
        return self.value < self.quantile - margin - _ROUNDING


_ROUNDING = 1e-9


def _distinct(curve: Curve, peers: Sequence[Curve]) -> list[Curve]:
    """Return the other trainings, each by that of its trials which has come furthest."""
    found = {peer.training_key: peer for peer in sorted(peers, key=lambda p: p.step)}
    found.pop(curve.training_key, None)
    return list(found.values())


def _places(
    curve: Curve, peers: Sequence[Curve], metric: Metric, step: int, share: float
) -> list[_Place]:
    """Return where a trial stands at equal steps, and at equal examples if batch sizes differ.

    `share` is the quantile that is compared with.
    """
    value = curve.level(metric, step)
    if value is None:
        return []
    others = _distinct(curve, peers)
    axes: list[tuple[str, Callable[[Curve], float]]] = [("steps", lambda peer: step)]
    if any(peer.batch_size != curve.batch_size for peer in others):
        examples = step * curve.batch_size
        axes.append(("examples", lambda peer: examples / peer.batch_size))
    found = []
    for axis, step_of in axes:
        levels = [level for p in others if (level := p.level(metric, step_of(p))) is not None]
        quantile = _quantile(levels, share) if levels else 0.0
        found.append(_Place(value, quantile, len(levels), axis))
    return found


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


def _says(name: str, places: Sequence[_Place]) -> str:
    parts = (
        f"{100 * p.value:.1f} % against {100 * p.quantile:.1f} % of {p.num_peers} peers at equal "
        f"{p.axis}"
        for p in places
    )
    return f"{name} {' and '.join(parts)}"


# --- the pruners --------------------------------------------------------------------------------

_FILE = ConfigDict(extra="forbid", frozen=True)


class _Settings(BaseModel):
    model_config = _FILE

    def rungs(self, curve: Curve) -> Sequence[int]:
        """Return the steps of synchronous decisions: quarters of the trial's own way."""
        return curve.observed_steps(curve.max_steps * part // 4 for part in (1, 2, 3))


class _Patient(_Settings):
    warmup_share: Rate = 0.1
    """Share of a trial's own steps before which it is never stopped; nor in its warm-up."""

    def is_protected(self, curve: Curve, step: int) -> bool:
        """Whether nothing may stop a trial yet: the default, ever; others in their warm-up."""
        warm = max(curve.warmup_steps, self.warmup_share * curve.max_steps)
        return curve.is_spared or step <= warm or step >= curve.max_steps


class _Comparing(_Patient):
    min_peers: Annotated[int, Field(ge=1, strict=True)] = 3
    """Other trainings that must have come as far."""


class PoorOnBoth(_Comparing):
    """Stops what is poor on spelling and on transfer alike."""

    pauses: ClassVar[bool] = False
    share: Annotated[Number, Field(gt=0, lt=1)] = 0.67
    """Quantile of the peers below which a trial is poor: not among the best third."""
    margin: Annotated[Number, Field(ge=0, lt=1)] = 0.005
    """As a rate; who is nearer to the quantile is not poor: that much is noise."""

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return a reason if the trial is below its peers in both, by steps and by examples."""
        if self.is_protected(curve, step):
            return None
        says = []
        for name, metric in (("spelling", spelling), ("transfer", transfer)):
            places = _places(curve, peers, metric, step, self.share)
            if not places or any(p.num_peers < self.min_peers for p in places):
                return None
            if not all(p.is_below(self.margin) for p in places):
                return None
            says.append(_says(name, places))
        return f"poor on both at step {step}: {'; '.join(says)}"


class Median(_Comparing):
    """Stops what is below the median of its peers in every objective."""

    pauses: ClassVar[bool] = False

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return a reason if the trial is below the median in every objective."""
        if self.is_protected(curve, step):
            return None
        says = []
        for name, metric in objectives:
            places = _places(curve, peers, metric, step, 0.5)
            if not places or any(p.num_peers < self.min_peers for p in places):
                return None
            if not all(p.is_below() for p in places):
                return None
            says.append(_says(name, places))
        return f"below the median at step {step}: {'; '.join(says)}"


class Patience(_Patient):
    """Stops what has not improved for a while, neither on spelling nor on transfer."""

    pauses: ClassVar[bool] = False
    evaluations: Annotated[int, Field(ge=1, strict=True)] = 5
    """Evaluations on the way without an improvement."""
    min_delta: Annotated[Number, Field(ge=0, lt=1)] = 0.01
    """What counts as an improvement, as a rate."""

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return a reason if the last evaluations were no better than those before."""
        seen = [o for o in curve.seen if o.step <= step]
        if self.is_protected(curve, step) or len(seen) <= self.evaluations:
            return None
        for metric in (spelling, transfer):
            before = max(map(metric, seen[: -self.evaluations]))
            gained = max(map(metric, seen[-self.evaluations :])) - before
            if gained > _ROUNDING and gained >= self.min_delta - _ROUNDING:
                return None
        return (
            f"no improvement of {100 * self.min_delta:g} points on spelling or transfer in the "
            f"last {self.evaluations} evaluations before step {step}"
        )


class SuccessiveHalving(_Settings):
    """Asynchronous successive halving: at each rung the best part goes on, from its checkpoint."""

    pauses: ClassVar[bool] = True
    min_steps: Annotated[int, Field(ge=1, strict=True)] | None = None
    """First rung; a tenth of the trial's own steps, but after the warm-up, if not given."""
    factor: Annotated[int, Field(ge=2, strict=True)] = 3
    """One in so many goes on; rungs lie so much further apart."""

    def rungs(self, curve: Curve) -> Sequence[int]:
        """Return the steps at which trials pause."""
        warm = max(curve.warmup_steps, curve.max_steps // 10, 1)
        step = max(self.min_steps or warm, curve.warmup_steps)
        found = []
        while step < curve.max_steps:
            found.append(step)
            step *= self.factor
        return curve.observed_steps(found)

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return a reason if the trial is not among the best part of those at its rung."""
        if curve.is_spared:
            return None
        own = _values(curve, step, objectives)
        if own is None:
            return None
        others = [
            v for p in _distinct(curve, peers) if (v := _values(p, step, objectives)) is not None
        ]
        num_better = sum(dominates(other, own) for other in others)
        allowed = max(1, (len(others) + 1) // self.factor)
        if num_better < allowed:
            return None
        return (
            f"place {num_better + 1} of {len(others) + 1} at the rung of step {step}; "
            f"{allowed} go on"
        )


def _values(curve: Curve, step: int, objectives: Objectives) -> tuple[float, ...] | None:
    levels = [curve.level(metric, step) for _, metric in objectives]
    return None if None in levels else tuple(v for v in levels if v is not None)


class Never(_Settings):
    """Stops nothing."""

    pauses: ClassVar[bool] = False

    def judge(
        self, curve: Curve, peers: Sequence[Curve], step: int, objectives: Objectives
    ) -> str | None:
        """Return None."""
        return None


class Pruning(StrEnum):
    """How trials are stopped early."""

    POOR_ON_BOTH = "poor_on_both"
    MEDIAN = "median"
    SUCCESSIVE_HALVING = "successive_halving"
    PATIENCE = "patience"
    NONE = "none"


_PRUNERS: Mapping[Pruning, type[_Settings]] = {
    Pruning.POOR_ON_BOTH: PoorOnBoth,
    Pruning.MEDIAN: Median,
    Pruning.SUCCESSIVE_HALVING: SuccessiveHalving,
    Pruning.PATIENCE: Patience,
    Pruning.NONE: Never,
}


def pruner_of(name: Pruning, arguments: Mapping[str, Any]) -> Pruner:
    """Return a pruner with its settings.

    Raises:
        ConfigError: A setting is unknown or breaks its law; all such are reported together.
    """
    broken = [f"pruning_arguments.{key}: {law}" for key, law in broken_arguments(name, arguments)]
    if broken:
        raise ConfigError("\n".join(broken))
    return _PRUNERS[name].model_validate(dict(arguments))  # type: ignore[return-value]


def broken_arguments(name: Pruning, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings of a pruner that are unknown or break a law, and what they break."""
    kind = _PRUNERS[name]
    try:
        kind.model_validate(dict(arguments))
    except ValidationError as error:
        return [(".".join(map(str, e["loc"])), _law(name, kind, e)) for e in error.errors()]
    return []


def _law(name: Pruning, kind: type[_Settings], error: Any) -> str:
    if error["type"] != "extra_forbidden":
        return law_of_error(error)
    known = nearest(str(error["loc"][0]), kind.model_fields) if kind.model_fields else "it has none"
    return f"{name} has no such argument; {known}"
