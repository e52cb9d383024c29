"""Configurations side by side: gains with intervals, ranking, and what can be told apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np

from tuning.analysis.answers import StudyAnswers
from tuning.fingerprint import weights_key
from tuning.measures import CHOICE, LENIENT, STRICT, Drift
from tuning.mixed_effects import (
    Estimate,
    Run,
    SeedSpread,
    difference,
    estimate,
    mean_of_runs,
    spread_over_seeds,
)
from tuning.ranking import LEVEL, Contender, compare_with
from tuning.records import TrialRecord
from tuning.statistics import benjamini_hochberg
from tuning.study import StudySpec, contenders, is_control, ranking
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number with its 95 % interval, or the reason why there is none."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str | None = None


class Reading(StrEnum):
    """What may be said of a change."""

    TRANSFER = "transfer"
    FORMAT = "better in format only"
    GUESSING = "better, but no better than guessing without the word"
    CONTROL = "better, but not measurably more than the format control"
    CHANCE = "better, but not when corrected for the number of configurations"
    SAME = "no measurable change"
    WORSE = "worse"
    WORSE_FORMAT = "worse in format only"
    CHANCE_WORSE = "worse, but not when corrected for the number of configurations"
    LEARNED = "learned"
    """What was trained improved: spelling, or in the direct arm the task itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGain:
    """One configuration in one task, over its seeds."""

    before: float
    """Strict accuracy of the untouched model."""
    after: float
    """Mean over seeds."""
    baseline: float
    """Best guess without looking at the word."""
    num_items: int
    num_words: int
    gain: Estimate
    choice: Estimate | None
    """Gain in the likelihood reading."""
    lenient: Estimate | None
    choice_before: float | None
    choice_after: Estimate | None
    normalized: Quantity
    """gain / (1 - before)."""
    corrected_before: float
    """(accuracy - baseline) / (1 - baseline)."""
    corrected_after: float
    detectable: float
    """Smallest gain found with 80 % power with the seeds and words that there are."""
    over_control: Estimate | None = None
    """The gain above that of the format control; None where there is none."""
    q_value: float | None = None
    """Of the gain, Benjamini-Hochberg over all configurations and transfer tasks."""
    reading: Reading = Reading.SAME


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationSummary:
    """One row of the ranking."""

    rank: int
    """0 for a control arm."""
    label: str
    parameters: Mapping[str, Any]
    is_default: bool
    trial_ids: Sequence[str]
    seeds: Sequence[int]
    objective: Estimate
    """What the study ranks by."""
    over_default: Estimate | None
    """Objective above that of the default."""
    p_default: float | None
    """Of that difference, adjusted for the number of configurations (Holm)."""
    beats_default: bool
    p_best: float | None
    """Of the distance to the best, adjusted likewise."""
    ties_with_best: bool
    same_weights_as: str | None
    """A configuration before it that trains the very same weights."""
    gains: Mapping[str, TaskGain]
    efficiency: Mapping[str, Quantity]
    """Normalized gain of each transfer task over that of spelling."""
    recovered: Mapping[str, Quantity]
    """Share of the direct arm's gain that spelling alone brings."""
    retention: Mapping[str, Drift]
    """Mean over seeds."""
    scores: Mapping[str, float]
    """transfer_learning_score and own_weights_score, mean over seeds."""
    num_examples: int
    """Training examples seen by one run."""
    num_steps: int
    train_seconds: float | None
    """Longest of its runs; None where other trials had trained the weights."""

    @property
    def num_seeds(self) -> int:
        """Runs that it rests on."""
        return len(self.trial_ids)


@dataclass(frozen=True, slots=True)
class Standing:
    """What rows have in common."""

    spec: StudySpec
    answers: StudyAnswers
    records: Mapping[str, TrialRecord]
    spread: Mapping[str, SeedSpread | None]
    """Between seeds, of the objective and of each task and reading."""
    lenders: Sequence[Contender]
    """Whose seeds tell what a gain of one seed strays by: the default, or all if it is missing."""
    direct: Contender | None
    control: Contender | None
    tasks: Sequence[Task]
    """Those that every trial was asked."""

    @classmethod
    def of(cls, spec: StudySpec, answers: StudyAnswers, records: Sequence[TrialRecord]) -> Standing:
        """Prepare the comparison of a study's completed trials."""
        by_id = {record.trial_id: record for record in records}
        found = contenders(spec, records)
        by_arm = {c.parameters.get("arm"): c for c in found if set(c.parameters) == {"arm"}}
        own = _distinct([c for c in found if not is_control(spec, c)], by_id)
        lenders = [c for c in own if c.is_default] or own
        arms = (by_arm.get("direct"), by_arm.get("format_control"))
        tasks = [task for task in EVALUATED_TASKS if _is_known(task, answers, records)]
        bare = cls(spec, answers, by_id, {}, lenders, *arms, tasks)
        spread: dict[str, SeedSpread | None] = {
            "objective": spread_over_seeds([bare.objectives(c) for c in own])
        }
        for task in tasks:
            for reading in (STRICT, CHOICE, LENIENT):
                groups = [bare.gains(c, task, reading) for c in lenders]
                spread[f"{task}/{reading}"] = spread_over_seeds(groups)
        return dataclasses.replace(bare, spread=spread)

    def gains(self, contender: Contender, task: Task, reading: str) -> list[Run]:
        """Return the gain of each seed; none if not all seeds have the reading."""
        trials = [self.answers.trials[trial_id].gains for trial_id in contender.trial_ids]
        runs = [gains.get((task, reading)) for gains in trials]
        return [run for run in runs if run is not None] if None not in runs else []

    def levels(self, contender: Contender, task: Task, reading: str) -> list[Run]:
        """Return the accuracy of each seed after training."""
        trials = (self.answers.trials[trial_id] for trial_id in contender.trial_ids)
        return [trial.after(task, reading) for trial in trials]

    def before(self, contender: Contender, task: Task) -> Run:
        """Return the strict accuracy of the untouched model."""
        return self.answers.trials[contender.trial_ids[0]].before[task, STRICT]

    def objectives(self, contender: Contender) -> list[Run]:
        """Return what the study ranks by, of each seed."""
        focus, weights = self.spec.focus, self.spec.weights
        trials = (self.answers.trials[trial_id] for trial_id in contender.trial_ids)
        return [trial.objective(focus, weights) for trial in trials]


def _is_known(task: Task, answers: StudyAnswers, records: Sequence[TrialRecord]) -> bool:
    """Whether there are results of a task for all trials: a probe may be younger than some."""
    return all((task, STRICT) in trial.gains for trial in answers.trials.values()) and all(
        task.value in record.result.tasks for record in records
    )


def _distinct(own: Sequence[Contender], records: Mapping[str, TrialRecord]) -> list[Contender]:
    """Return configurations of which no two share a training: the same run is one observation."""
    kept, known = [], set[str]()
    for contender in sorted(own, key=lambda c: (not c.is_default, -len(c.trial_ids))):
        keys = {records[trial_id].result.training_key for trial_id in contender.trial_ids}
        if not keys & known:
            kept.append(contender)
            known |= keys
    return kept


@dataclass(frozen=True, slots=True)
class Table:
    """All configurations of a study."""

    ranked: list[ConfigurationSummary]
    controls: list[ConfigurationSummary]
    standing: Standing

    @property
    def default(self) -> ConfigurationSummary | None:
        """The default configuration."""
        return next((row for row in self.ranked if row.is_default), None)


def table_of(spec: StudySpec, answers: StudyAnswers, records: Sequence[TrialRecord]) -> Table:
    """Return the configurations of a study, ranked, and its control arms.

    Args:
        spec: What the study was asked.
        answers: Of the completed trials.
        records: Of the completed trials.
    """
    standing = Standing.of(spec, answers, records)
    order = [ranked.contender for ranked in ranking(spec, records)]
    rows = [_row(standing, c, place) for place, c in enumerate(order, start=1)]
    rows = _against_default(standing, rows, order)
    rows = _with_ties(standing, rows, order)
    controls = [_row(standing, c, 0) for c in contenders(spec, records) if is_control(spec, c)]
    return Table(_with_q_values(rows), controls, standing)


def _row(standing: Standing, contender: Contender, rank: int) -> ConfigurationSummary:
    runs = [standing.records[trial_id] for trial_id in contender.trial_ids]
    training = standing.spec.config_of(runs[0]).training_config
    gains = {task: _task_gain(standing, contender, task) for task in standing.tasks}
    seconds = max(run.execution.train_seconds for run in runs)
    known = (set(run.result.metrics) for run in runs)
    names = sorted(name for name in set.intersection(*known) if "score" in name)
    return ConfigurationSummary(
        rank=rank,
        label=contender.label,
        parameters=contender.parameters,
        is_default=contender.is_default,
        trial_ids=list(contender.trial_ids),
        seeds=[run.seed for run in runs],
        objective=estimate(standing.objectives(contender), standing.spread["objective"]),
        over_default=None,
        p_default=None,
        beats_default=False,
        p_best=None,
        ties_with_best=False,
        same_weights_as=None,
        gains={task.value: gain for task, gain in gains.items()},
        efficiency={t.value: _efficiency(standing, contender, gains, t) for t in TRANSFER_TASKS},
        recovered={t.value: _recovered(standing, contender, t) for t in TRANSFER_TASKS},
        retention=_mean_drift([run.result.retention for run in runs]),
        scores={n: float(np.mean([run.result.metrics[n] for run in runs])) for n in names},
        num_examples=training.max_steps * training.effective_batch_size,
        num_steps=training.max_steps,
        train_seconds=seconds or None,
    )


# --- one configuration in one task ------------------------------------------------------------


def _task_gain(standing: Standing, contender: Contender, task: Task) -> TaskGain:
    recorded = standing.records[contender.trial_ids[0]].result.tasks[task.value]
    before = standing.before(contender, task)
    found = _estimated(standing, contender, task, STRICT)
    assert found is not None
    choice = _estimated(standing, contender, task, CHOICE)
    levels = standing.levels(contender, task, CHOICE) if choice else []
    spread = standing.spread[f"{task}/{CHOICE}"]
    after = before.value + found.value
    gain = TaskGain(
        before=before.value,
        after=after,
        baseline=recorded.baseline,
        num_items=recorded.base.num_items,
        num_words=recorded.base.num_words,
        gain=found,
        choice=choice,
        lenient=_estimated(standing, contender, task, LENIENT),
        choice_before=levels[0].value - standing.gains(contender, task, CHOICE)[0].value
        if levels
        else None,
        choice_after=estimate(levels, spread) if levels else None,
        normalized=_normalized(standing, contender, task),
        corrected_before=_chance_corrected(before.value, recorded.baseline),
        corrected_after=_chance_corrected(after, recorded.baseline),
        detectable=found.detectable,
        over_control=_over_control(standing, contender, task),
    )
    return dataclasses.replace(gain, reading=_reading(standing, contender, task, gain))


def _estimated(
    standing: Standing, contender: Contender, task: Task, reading: str
) -> Estimate | None:
    runs = standing.gains(contender, task, reading)
    return estimate(runs, standing.spread[f"{task}/{reading}"]) if runs else None


def _chance_corrected(accuracy: float, baseline: float) -> float:
    return (accuracy - baseline) / (1 - baseline) if baseline < 1 else 0.0


CEILING = 0.95
"""From this accuracy on there is nothing left to gain, and ratios explode."""


def _room(before: Run) -> Run:
    return Run(1 - before.value, -before.influence_C, before.num_words)


def _normalized(standing: Standing, contender: Contender, task: Task) -> Quantity:
    before = standing.before(contender, task)
    if before.value >= CEILING:
        return Quantity(
            reason=f"the untouched model is at the ceiling ({100 * before.value:.1f} %)"
        )

    def fraction(of: Contender) -> _Fraction:
        runs = standing.gains(of, task, STRICT)
        return _Fraction(runs, [_room(before)] * len(runs))

    return _ratio(fraction(contender), [fraction(lender) for lender in standing.lenders])


class _Fraction(NamedTuple):
    """What a ratio is of, seed by seed."""

    above: Sequence[Run]
    below: Sequence[Run]

    def less(self, ratio: float) -> list[Run]:
        """Return what is above, less a ratio of what is below."""
        return [a - b * ratio for a, b in zip(self.above, self.below, strict=True)]


def _ratio(own: _Fraction, lenders: Sequence[_Fraction]) -> Quantity:
    """Return the ratio of two means, linearized around it (delta method).

    Args:
        own: Of the configuration.
        lenders: Of configurations whose seeds tell how far one seed strays.
    """
    size = mean_of_runs(own.below).value
    ratio = mean_of_runs(own.above).value / size
    borrowed = spread_over_seeds([lender.less(ratio) for lender in lenders])
    return _around(ratio, estimate(own.less(ratio), borrowed), size)


def _around(ratio: float, rest: Estimate, size: float) -> Quantity:
    half = (rest.high - rest.low) / 2 / abs(size)
    return Quantity(value=ratio, low=ratio - half, high=ratio + half)


def _reading(standing: Standing, contender: Contender, task: Task, gain: TaskGain) -> Reading:
    strict = gain.gain.direction
    if task is Task.SPELLING:
        return {1: Reading.LEARNED, 0: Reading.SAME, -1: Reading.WORSE}[strict]
    choice = gain.choice.direction if gain.choice else 0
    if strict < 0:
        return Reading.WORSE if choice < 0 else Reading.WORSE_FORMAT
    if strict == 0:
        return Reading.SAME
    if contender.parameters.get("arm") == "direct":
        return Reading.LEARNED
    if choice <= 0:
        return Reading.FORMAT
    assert gain.choice_after is not None
    if gain.choice_after.low <= gain.baseline:
        return Reading.GUESSING
    is_control_itself = contender == standing.control
    if is_control_itself or (gain.over_control is not None and gain.over_control.low <= 0):
        return Reading.CONTROL
    return Reading.TRANSFER


def _over_control(standing: Standing, contender: Contender, task: Task) -> Estimate | None:
    """Return how much more a configuration gains than the format control, on the same items."""
    control = standing.control
    if control is None or control == contender:
        return None
    runs = standing.gains(contender, task, STRICT), standing.gains(control, task, STRICT)
    return difference(*runs, _pooled(standing, task, runs))


def _pooled(standing: Standing, task: Task, groups: Sequence[Sequence[Run]]) -> SeedSpread | None:
    return spread_over_seeds(groups) or standing.spread[f"{task}/{STRICT}"]


def _efficiency(
    standing: Standing, contender: Contender, gains: Mapping[Task, TaskGain], task: Task
) -> Quantity:
    spelling, target = gains[Task.SPELLING], gains[task]
    for name, gain in ((Task.SPELLING, spelling), (task, target)):
        if gain.normalized.value is None:
            return Quantity(reason=f"{name}: {gain.normalized.reason}")
    if spelling.gain.direction <= 0:
        why = "is a loss" if spelling.gain.direction else "is not distinguishable from 0"
        return Quantity(reason=f"the spelling gain, {_points(spelling.gain)}, {why}")
    rooms = [_room(standing.before(contender, name)) for name in (task, Task.SPELLING)]

    def fraction(of: Contender) -> _Fraction:
        sides = (
            [run.over(room) for run in standing.gains(of, name, STRICT)]
            for name, room in zip((task, Task.SPELLING), rooms, strict=True)
        )
        return _Fraction(*sides)

    return _ratio(fraction(contender), [fraction(lender) for lender in standing.lenders])


def _recovered(standing: Standing, contender: Contender, task: Task) -> Quantity:
    if standing.direct is None:
        return Quantity(reason="no direct arm was trained")
    if contender == standing.direct:
        return Quantity(reason="this is the direct arm")
    direct, own = (standing.gains(c, task, STRICT) for c in (standing.direct, contender))
    ceiling = estimate(direct, standing.spread[f"{task}/{STRICT}"])
    if ceiling.direction == 0:
        return Quantity(
            reason=f"the direct arm's gain, {_points(ceiling)}, is not distinguishable from 0"
        )
    ratio = mean_of_runs(own).value / ceiling.value
    rest = difference(own, direct, _pooled(standing, task, (own, direct)), ratio)
    return _around(ratio, rest, ceiling.value)


def _points(found: Estimate) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"


_DRIFTS = ("base_loss", "tuned_loss", "kl_divergence")


def _mean_drift(drifts: Sequence[Mapping[str, Drift]]) -> dict[str, Drift]:
    found = {}
    for name in sorted({name for drift in drifts for name in drift}):
        known = [
            drift[name]
            for drift in drifts
            if name in drift and None not in (getattr(drift[name], field) for field in _DRIFTS)
        ]
        if not known:
            found[name] = next(d[name] for d in drifts if name in d)
            continue
        base, tuned, divergence = (
            float(np.mean([getattr(drift, field) for drift in known])) for field in _DRIFTS
        )
        found[name] = Drift(
            base_loss=base,
            tuned_loss=tuned,
            kl_divergence=divergence,
            num_tokens=known[0].num_tokens,
        )
    return found


# --- configurations against each other --------------------------------------------------------


def _against_default(
    standing: Standing, rows: list[ConfigurationSummary], order: Sequence[Contender]
) -> list[ConfigurationSummary]:
    """Compare every configuration with the default, all at once (Holm)."""
    rows = _with_same_weights(standing, rows)
    default = next((c for c in order if c.is_default), None)
    if default is None:
        return rows
    others = {
        row.rank: standing.objectives(contender)
        for row, contender in zip(rows, order, strict=True)
        if contender is not default and row.same_weights_as != default.label
    }
    spread = standing.spread["objective"]
    found = compare_with(standing.objectives(default), list(others.values()), spread)
    compared = dict(zip(others, found, strict=True))
    return [
        dataclasses.replace(
            row,
            over_default=compared[row.rank].difference,
            p_default=compared[row.rank].p_adjusted,
            beats_default=compared[row.rank].is_told_apart
            and compared[row.rank].difference.value > 0,
        )
        if row.rank in compared
        else row
        for row in rows
    ]


def _with_same_weights(
    standing: Standing, rows: Sequence[ConfigurationSummary]
) -> list[ConfigurationSummary]:
    """Mark configurations that train the same weights as one before: they cannot differ."""
    first: dict[str, str] = {}
    marked = []
    for row in sorted(rows, key=lambda row: (not row.is_default, row.rank)):
        keys = [
            weights_key(standing.spec.config_of(standing.records[trial_id]))
            for trial_id in row.trial_ids
        ]
        known = {first.get(key) for key in keys}
        same = known.pop() if len(known) == 1 else None
        for key in keys:
            first.setdefault(key, row.label)
        marked.append(dataclasses.replace(row, same_weights_as=same))
    return sorted(marked, key=lambda row: row.rank)


def _with_ties(
    standing: Standing, rows: list[ConfigurationSummary], order: Sequence[Contender]
) -> list[ConfigurationSummary]:
    """Mark what cannot be told from the best, with all of them compared at once (Holm)."""
    if not rows:
        return rows
    best, *others = (standing.objectives(contender) for contender in order)
    found = compare_with(best, others, standing.spread["objective"])
    behind = [
        dataclasses.replace(
            row, p_best=compared.p_adjusted, ties_with_best=not compared.is_told_apart
        )
        for row, compared in zip(rows[1:], found, strict=True)
    ]
    return [dataclasses.replace(rows[0], ties_with_best=True), *behind]


def _with_q_values(rows: list[ConfigurationSummary]) -> list[ConfigurationSummary]:
    """Correct the gains of all configurations for their number.

    The default was named in advance; any other is one of many, and is said to transfer only if
    that survives the correction.
    """
    places = [(row.rank, task.value) for row in rows for task in TRANSFER_TASKS]
    p_values = [row.gains[task.value].gain.p_value for row in rows for task in TRANSFER_TASKS]
    q_values = dict(zip(places, benjamini_hochberg(p_values), strict=True))
    return [
        dataclasses.replace(
            row,
            gains={
                task: _corrected_for_number(row, gain, q_values.get((row.rank, task)))
                for task, gain in row.gains.items()
            },
        )
        for row in rows
    ]


def _corrected_for_number(
    row: ConfigurationSummary, gain: TaskGain, q_value: float | None
) -> TaskGain:
    reading = gain.reading
    if not row.is_default and (q_value or 0) >= LEVEL:
        reading = {
            Reading.TRANSFER: Reading.CHANCE,
            Reading.WORSE: Reading.CHANCE_WORSE,
            Reading.WORSE_FORMAT: Reading.CHANCE_WORSE,
        }.get(reading, reading)
    return dataclasses.replace(gain, q_value=q_value, reading=reading)
