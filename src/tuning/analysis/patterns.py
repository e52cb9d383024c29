"""Learning curves, and their patterns: when a task starts to move, peaks, decays.

Patterns are described, never tested: checkpoints of one run are not independent, and the words of
the small monitor suite are few. What stays within a band of noise is called no movement. Pure
functions of curves; nothing is read from disk.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from tuning.ranking import short
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS, Task

MIN_WITH_VALUE = 2
"""Trials that must have a value, and of them show a shape, before both are named together."""
MIN_CONTRAST = 0.2
"""Smaller differences between two shares are not worth a sentence."""
MAX_SHARED = 5
"""Settings that are named for one task and shape."""
MAX_VALUES = 6
"""A number with more values than this is cut into thirds of the trials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracies of one trial on the way, on the small monitor suite."""

    label: str
    trial_id: str
    training_key: str
    parameters: Mapping[str, Any]
    """What differs from the default configuration."""
    steps: Sequence[int]
    """Optimizer steps of the evaluations, ascending; step 0 is the untouched model."""
    examples: Sequence[int]
    """Training examples seen by then."""
    accuracies: Mapping[str, Sequence[float]]
    """By task, rates in [0, 1]."""
    num_words: int
    """Words a task of the monitor suite."""
    noise: Mapping[str, float] = field(default_factory=dict)
    """Half width of the band of a gain on the monitor suite by task, where it is known better than
    by `noise_band`: from the paired answers of the final evaluation."""


class Shape(StrEnum):
    """How a task moves during training, against the untouched model."""

    RISES = "rises"
    RISES_THEN_DECAYS = "rises then decays"
    """Ends below its peak by more than noise."""
    FALLS = "falls"
    FALLS_THEN_RECOVERS = "falls then recovers"
    """Ends above its lowest point by more than noise."""
    FLAT = "flat"
    """Never leaves the band of noise."""

    @property
    def is_rise(self) -> bool:
        """Whether the first movement is upwards."""
        return self in (Shape.RISES, Shape.RISES_THEN_DECAYS)

    @property
    def says(self) -> str:
        """The shape as a verb."""
        return {
            Shape.RISES: "rose",
            Shape.RISES_THEN_DECAYS: "rose and then decayed",
            Shape.FALLS: "fell",
            Shape.FALLS_THEN_RECOVERS: "fell and then recovered",
            Shape.FLAT: "did not leave the noise",
        }[self]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPattern:
    """How one task moved in one training; gains are rates against step 0, smoothed."""

    task: str
    shape: Shape
    starts_at_step: int | None
    """First evaluation outside the band, on the side of the shape; None if flat."""
    starts_at_examples: int | None
    peak_step: int
    """Where the gain is largest; in a shape that falls, where it is smallest."""
    peak_gain: float
    final_gain: float
    decay: float
    """From the peak, or lowest point, back to the end; at least 0."""
    noise: float
    """Half width of the band, as a rate."""

    @property
    def is_forgotten(self) -> bool:
        """Whether the task ends below the untouched model by more than noise."""
        return self.final_gain < -self.noise


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialPattern:
    """One training."""

    trial_id: str
    label: str
    parameters: Mapping[str, Any]
    tasks: Mapping[str, TaskPattern]
    lead: Mapping[str, int]
    """By how many steps position and count start to rise after spelling; negative: before it, 0: at
    the same evaluation. Only where both rise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeSummary:
    """One task over all trainings."""

    task: str
    num_trainings: int
    shapes: Mapping[Shape, int]
    """Trainings of each shape that occurs, the commonest first."""
    median_start_step: float | None
    """Over the trainings in which the task moves; None if there is none."""
    median_start_examples: float | None
    num_forgotten: int
    """Trainings that end below the untouched model by more than noise."""
    median_lead: float | None
    """Steps after spelling, over the trainings in which both rise; None for spelling."""
    num_lead: int
    noise: float
    """The median band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedSetting:
    """A value whose trials share a shape more often than the others do; described, not tested."""

    task: str
    shape: Shape
    parameter: str
    value: str
    """As a person writes it; a range where a number has many values."""
    num_with: int
    num_with_shape: int
    num_without: int
    num_without_shape: int
    peak_step: float
    """Median over the trials with value and shape, as the next two."""
    peak_gain: float
    final_gain: float

    @property
    def contrast(self) -> float:
        """Share of the shape with the value, less its share among the others."""
        return self.num_with_shape / self.num_with - self.num_without_shape / self.num_without


@dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """What the learning curves of a study look like."""

    trials: Sequence[TrialPattern]
    summaries: Sequence[ShapeSummary]
    shared: Sequence[SharedSetting]
    num_words: Sequence[int]
    """Sizes of the monitor suites, ascending."""
    num_nested: int
    """Curves left out: the same training stands there already, at least as long."""
    num_too_short: int
    """Curves left out: no evaluation of the untouched model, or none after it."""


def patterns_of(curves: Sequence[Curve]) -> Patterns:
    """Return the patterns of a study's learning curves.

    Args:
        curves: One a trial. Of those that share a training only the longest counts.
    """
    usable = [curve for curve in curves if len(curve.steps) > 1 and curve.steps[0] == 0]
    distinct = _distinct(usable)
    trials = [trial_pattern(curve) for curve in distinct]
    return Patterns(
        trials=trials,
        summaries=[summary for task in EVALUATED_TASKS for summary in _summaries(task, trials)],
        shared=shared_settings(trials),
        num_words=sorted({curve.num_words for curve in distinct}),
        num_nested=len(usable) - len(distinct),
        num_too_short=len(curves) - len(usable),
    )


def _distinct(curves: Sequence[Curve]) -> list[Curve]:
    """Return the longest curve of each training: a shorter budget is a prefix of it."""
    longest: dict[str, Curve] = {}
    for curve in curves:
        known = longest.get(curve.training_key)
        if known is None or curve.steps[-1] > known.steps[-1]:
            longest[curve.training_key] = curve
    return [curve for curve in curves if longest[curve.training_key] is curve]


# --- one training -------------------------------------------------------------------------------


def trial_pattern(curve: Curve) -> TrialPattern:
    """Return the pattern of a curve that has step 0 and at least one later evaluation."""
    tasks = {task: task_pattern(curve, task) for task in curve.accuracies}
    return TrialPattern(
        trial_id=curve.trial_id,
        label=curve.label,
        parameters=curve.parameters,
        tasks=tasks,
        lead=_leads(tasks),
    )


def _leads(tasks: Mapping[str, TaskPattern]) -> dict[str, int]:
    starts = {
        task: pattern.starts_at_step
        for task, pattern in tasks.items()
        if pattern.shape.is_rise and pattern.starts_at_step is not None
    }
    spelling = starts.get(Task.SPELLING.value)
    if spelling is None:
        return {}
    return {t.value: starts[t.value] - spelling for t in TRANSFER_TASKS if t.value in starts}


def task_pattern(curve: Curve, task: str) -> TaskPattern:
    """Return how one task moves along a curve that has at least two evaluations."""
    levels_T = smoothed(curve.accuracies[task])
    gains_T = levels_T - levels_T[0]
    noise = curve.noise.get(task) or noise_band(levels_T, curve.num_words)
    shape = shape_of(gains_T, noise)
    peak = _peak(gains_T, shape)
    start = _start(gains_T, shape, noise)
    return TaskPattern(
        task=task,
        shape=shape,
        starts_at_step=None if start is None else curve.steps[start],
        starts_at_examples=None if start is None else curve.examples[start],
        peak_step=curve.steps[peak],
        peak_gain=float(gains_T[peak]),
        final_gain=float(gains_T[-1]),
        decay=abs(float(gains_T[peak] - gains_T[-1])),
        noise=noise,
    )


def smoothed(accuracies: Sequence[float]) -> np.ndarray:
    """Return the running median of three evaluations; the first and the last stay as they are.

    One evaluation that stands out between two others is no peak. The first is the untouched model,
    and a median would take the last one, which is what the run comes to, from its neighbours.
    """
    levels_T = np.asarray(accuracies, dtype=float)
    if len(levels_T) > 2:
        triples = np.stack([levels_T[:-2], levels_T[1:-1], levels_T[2:]])
        levels_T = np.concatenate([levels_T[:1], np.median(triples, axis=0), levels_T[-1:]])
    return levels_T


def noise_band(levels_T: np.ndarray, num_words: int) -> float:
    """Return what a difference of two evaluations must exceed to be called movement, as a rate.

    ``1.96 * sqrt(2 * p * (1 - p) / num_words)``, p the accuracy of the curve that is nearest to
    1/2, drawn towards it by two right and two wrong words: 14.5 points for 90 words at 1/2, 8.0 for
    300. It errs on the wide side: both evaluations ask the same words, so that their errors partly
    cancel, and a word's three templates are counted as one.

    Args:
        levels_T: Accuracies, rates in [0, 1].
        num_words: Words of the monitor suite.
    """
    drawn_T = (levels_T * num_words + 2) / (num_words + 4)
    return float(1.96 * np.sqrt(2 * (drawn_T * (1 - drawn_T)).max() / num_words))


def shape_of(gains_T: np.ndarray, noise: float) -> Shape:
    """Return the shape of smoothed gains; of two movements the first names it.

    Args:
        gains_T: Rates against step 0, which is the first.
        noise: Half width of the band, as a rate.
    """
    first = next((gain for gain in gains_T if abs(gain) > noise), None)
    if first is None:
        return Shape.FLAT
    if first > 0:
        is_back = gains_T.max() - gains_T[-1] > noise
        return Shape.RISES_THEN_DECAYS if is_back else Shape.RISES
    is_back = gains_T[-1] - gains_T.min() > noise
    return Shape.FALLS_THEN_RECOVERS if is_back else Shape.FALLS


def _peak(gains_T: np.ndarray, shape: Shape) -> int:
    if shape is Shape.FLAT:
        return int(np.abs(gains_T).argmax())
    return int(gains_T.argmax() if shape.is_rise else gains_T.argmin())


def _start(gains_T: np.ndarray, shape: Shape, noise: float) -> int | None:
    """Return the first evaluation outside the band; it is on the side that named the shape."""
    return None if shape is Shape.FLAT else int((np.abs(gains_T) > noise).argmax())


# --- all trainings ------------------------------------------------------------------------------


def _summaries(task: Task, trials: Sequence[TrialPattern]) -> Iterator[ShapeSummary]:
    """Yield the summary of a task, if any training measured it."""
    found = [trial.tasks[task.value] for trial in trials if task.value in trial.tasks]
    if not found:
        return
    leads = [trial.lead[task.value] for trial in trials if task.value in trial.lead]
    yield ShapeSummary(
        task=task.value,
        num_trainings=len(found),
        shapes=dict(Counter(pattern.shape for pattern in found).most_common()),
        median_start_step=_median(pattern.starts_at_step for pattern in found),
        median_start_examples=_median(pattern.starts_at_examples for pattern in found),
        num_forgotten=sum(pattern.is_forgotten for pattern in found),
        median_lead=_median(leads),
        num_lead=len(leads),
        noise=statistics.median(pattern.noise for pattern in found),
    )


def _median(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(statistics.median(known)) if known else None


class _Group(NamedTuple):
    """Trials that have one value, or one range of values."""

    parameter: str
    value: str
    members: frozenset[int]
    """Their places among the trials."""


def shared_settings(trials: Sequence[TrialPattern]) -> list[SharedSetting]:
    """Return which values go with which shape, those that set trials apart most first.

    A value is listed if at least two of its trials show the shape, and its share exceeds that of
    the other trials by `MIN_CONTRAST`. The default's own values are what the others are compared
    with, and are not listed.
    """
    groups = _groups(trials)
    found = []
    for task in EVALUATED_TASKS:
        by_shape: dict[Shape, dict[int, TaskPattern]] = {shape: {} for shape in Shape}
        for place, trial in enumerate(trials):
            if task.value in trial.tasks:
                pattern = trial.tasks[task.value]
                by_shape[pattern.shape][place] = pattern
        for shown in by_shape.values():
            found += _strongest(
                _setting(group, shown, len(trials))
                for group in groups
                if len(group.members & shown.keys()) >= MIN_WITH_VALUE
            )
    return found


def _strongest(settings: Iterable[SharedSetting]) -> list[SharedSetting]:
    kept = [setting for setting in settings if setting.contrast >= MIN_CONTRAST]
    return sorted(kept, key=lambda s: (-s.contrast, -s.num_with, s.parameter, s.value))[:MAX_SHARED]


def _setting(group: _Group, shown: Mapping[int, TaskPattern], num_trials: int) -> SharedSetting:
    """Return how often a shape occurs with a value and without it.

    Args:
        group: The trials with the value.
        shown: The patterns that have the shape, by their places among the trials.
        num_trials: Of the study.
    """
    both = [pattern for place, pattern in shown.items() if place in group.members]
    return SharedSetting(
        task=both[0].task,
        shape=both[0].shape,
        parameter=group.parameter,
        value=group.value,
        num_with=len(group.members),
        num_with_shape=len(both),
        num_without=num_trials - len(group.members),
        num_without_shape=len(shown) - len(both),
        peak_step=float(statistics.median(pattern.peak_step for pattern in both)),
        peak_gain=statistics.median(pattern.peak_gain for pattern in both),
        final_gain=statistics.median(pattern.final_gain for pattern in both),
    )


def _groups(trials: Sequence[TrialPattern]) -> list[_Group]:
    """Return the trials of each value that at least two, and not all, of them have."""
    parameters = sorted({name for trial in trials for name in trial.parameters})
    groups = []
    for parameter in parameters:
        values = {
            place: trial.parameters[parameter]
            for place, trial in enumerate(trials)
            if parameter in trial.parameters
        }
        name_of = _naming(list(values.values()))
        members: dict[str, set[int]] = defaultdict(set)
        for place, value in values.items():
            members[name_of(value)].add(place)
        groups += [_Group(parameter, v, frozenset(places)) for v, places in members.items()]
    return [group for group in groups if MIN_WITH_VALUE <= len(group.members) < len(trials)]


def _naming(values: Sequence[Any]) -> Callable[[Any], str]:
    """Return what names a value: itself, or the third of the trials that a number is in."""
    is_number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not is_number or len(set(values)) <= MAX_VALUES:
        return short
    ordered = sorted(values)
    # Equal values stay together, so that a third may be a little larger than the others.
    ends = sorted({ordered[len(ordered) * part // 3 - 1] for part in (1, 2, 3)})
    names, low = [], ordered[0]
    for end in ends:
        inside = [value for value in ordered if low <= value <= end]
        names.append(f"{short(inside[0])} to {short(inside[-1])}")
        low = next((value for value in ordered if value > end), end)
    return lambda value: names[int(np.searchsorted(ends, value))]
