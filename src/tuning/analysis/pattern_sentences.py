"""Patterns of learning curves in plain English; each sentence says how many trainings it is of."""

from __future__ import annotations

from tuning.analysis.patterns import (
    Patterns,
    Shape,
    ShapeSummary,
    SharedSetting,
    TaskPattern,
    TrialPattern,
)
from tuning.analysis.verdict import points

MAX_TOLD_ALONE = 3
"""So few trainings are described one by one."""


def sentences(patterns: Patterns) -> list[str]:
    """Return the patterns in plain English, with the number of trainings that each rests on."""
    if not patterns.trials:
        return ["There is no learning curve: nothing is known of the way."]
    told = [_reading_aid(patterns)]
    if len(patterns.trials) <= MAX_TOLD_ALONE:
        told += [_trial_sentence(trial) for trial in patterns.trials]
    else:
        told += [_summary_sentence(summary) for summary in patterns.summaries]
    told += [s for summary in patterns.summaries for s in _lead_sentences(summary)]
    told += [s for summary in patterns.summaries for s in _forgetting_sentences(summary)]
    told += [_shared_sentence(setting) for setting in patterns.shared]
    return told


def _reading_aid(patterns: Patterns) -> str:
    bands = ", ".join(f"{s.task} {100 * s.noise:.1f}" for s in patterns.summaries)
    words = " or ".join(f"{n:,}" for n in patterns.num_words)
    nested = (
        f" {patterns.num_nested} trial(s) with a training that stands there already are not "
        "counted again."
        if patterns.num_nested
        else ""
    )
    return (
        f"Seen on the way, on {words} monitor words a task, in {_trainings(len(patterns.trials))}: "
        "described, not tested. Smaller movements than these are taken for noise, in points: "
        f"{bands}.{nested}"
    )


def _trainings(number: int) -> str:
    return f"{number:,} training{'' if number == 1 else 's'}"


def _trial_sentence(trial: TrialPattern) -> str:
    parts = (f"{task} {_told(pattern)}" for task, pattern in trial.tasks.items())
    return f"{trial.trial_id} ({trial.label}): {'; '.join(parts)}."


def _told(pattern: TaskPattern) -> str:
    extent = _extent(pattern.shape, pattern.peak_gain, pattern.peak_step, pattern.final_gain)
    start = "" if pattern.shape is Shape.FLAT else f" from step {pattern.starts_at_step} on"
    return f"{pattern.shape.says}{start} ({extent})"


def _extent(shape: Shape, peak_gain: float, peak_step: float, final_gain: float) -> str:
    end = f"end {points(final_gain)}"
    if shape is Shape.FLAT:
        return end
    name = "peak" if shape.is_rise else "lowest"
    return f"{name} {points(peak_gain)} at step {peak_step:g}, {end}"


def _summary_sentence(summary: ShapeSummary) -> str:
    shapes = ", ".join(f"{shape.says} in {n:,}" for shape, n in summary.shapes.items())
    moved = (
        f"; where it moved, it began at step {summary.median_start_step:g} "
        f"({summary.median_start_examples:,.0f} examples; medians)"
        if summary.median_start_step is not None
        else ""
    )
    return f"In {_trainings(summary.num_trainings)} {summary.task} {shapes}{moved}."


def _lead_sentences(summary: ShapeSummary) -> list[str]:
    if summary.median_lead is None:
        return []
    if summary.median_lead == 0:
        when = "at the same evaluation as spelling"
    else:
        side = "after" if summary.median_lead > 0 else "before"
        when = f"{abs(summary.median_lead):g} steps {side} spelling"
    both = _trainings(summary.num_lead)
    return [f"{summary.task.capitalize()} began to rise {when} (median of {both} with both)."]


def _forgetting_sentences(summary: ShapeSummary) -> list[str]:
    if not summary.num_forgotten:
        return []
    return [
        f"In {summary.num_forgotten:,} of {_trainings(summary.num_trainings)} {summary.task} ended "
        "below the untouched model by more than noise."
    ]


def _shared_sentence(setting: SharedSetting) -> str:
    extent = _extent(setting.shape, setting.peak_gain, setting.peak_step, setting.final_gain)
    return (
        f"In {setting.num_with_shape:,} of {setting.num_with:,} trials with "
        f"{setting.parameter}={setting.value} {setting.task} {setting.shape.says} ({extent}), "
        f"against {setting.num_without_shape:,} of {setting.num_without:,} others."
    )
