"""What a study shows: gains with intervals, ranking, curves, and a verdict in words.

Reads records alone; needs no model. `analyze` writes `analysis.json`, and the report draws it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuning import files
from tuning.errors import ResultsError
from tuning.jobs import read_progress
from tuning.measures import Accuracy, Gain, TaskResult
from tuning.paths import ResultsRoot
from tuning.ranking import Contender, Ranked
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import METRIC_PREFIX, Focus, calculate_transfer_score
from tuning.statistics import Interval, detectable_gain, t_interval
from tuning.study import OnFront, StudySpec, contenders, front, is_control, load_study, ranking
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS, Task

__all__ = ["StudyAnalysis", "analyze", "calculate_transfer_score", "write_analysis"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GainSummary:
    """The gain of one configuration in one task, over its seeds."""

    accuracy: float
    """Mean over seeds."""
    gain: float
    low: float
    high: float
    """95 % interval: over seeds and words if there are several seeds, else over words alone."""
    choice_gain: float | None
    choice_low: float | None
    choice_high: float | None
    over_seeds: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationSummary:
    """One row of the ranking."""

    rank: int
    label: str
    parameters: Mapping[str, Any]
    is_default: bool
    num_seeds: int
    objective: float
    low: float | None
    high: float | None
    """95 % interval from the spread of the repeated default; none if nothing was repeated."""
    ties_with_best: bool
    beats_default: bool
    gains: Mapping[str, GainSummary]
    num_examples: int
    """Training examples seen by one run."""
    train_seconds: float
    trial_ids: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracies of one trial on the way, on the small monitor suite."""

    label: str
    trial_id: str
    steps: Sequence[int]
    accuracies: Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyAnalysis:
    """Everything that a report shows."""

    study: str
    model: str
    is_embedded_model: bool
    focus: str
    focus_says: str
    weights: tuple[float, float]
    step_scale: float
    untouched_objective: float | None
    """What the untouched model itself would rank with."""
    num_planned: int
    num_completed: int
    num_failed: int
    num_pruned: int
    """Stopped early: poor on the way, with no final evaluation."""
    verdict: Sequence[str]
    base: Mapping[str, Accuracy]
    baselines: Mapping[str, float]
    mix: Mapping[str, Mapping[str, int]]
    """Items by task and template, band and stratum: what the plain means are taken over."""
    detectable: Mapping[str, float]
    """Smallest gain found with 80 % power by task, at the share of changed answers seen."""
    configurations: Sequence[ConfigurationSummary]
    controls: Sequence[ConfigurationSummary]
    """Configurations of other arms; not ranked."""
    base_arms: Mapping[str, Mapping[str, Accuracy]]
    """The untouched model put otherwise: four_shot, oracle; by task."""
    curves: Sequence[Curve]
    failures: Sequence[Mapping[str, str]]
    prunings: Sequence[Mapping[str, str]]
    """Trials that were stopped early, and why."""
    front: Sequence[OnFront]
    """With several objectives: the configurations that no other beats in all of them."""
    provenance: Mapping[str, Any]


def analyze(root: ResultsRoot, name: str) -> StudyAnalysis:
    """Return the analysis of a study's finished trials.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: A record is damaged.
    """
    spec, records = load_study(root, name)
    completed = [r for r in records if r.result.status is TrialStatus.COMPLETED]
    failed = [r for r in records if r.result.status is TrialStatus.FAILED]
    pruned = [r for r in records if r.result.status is TrialStatus.PRUNED]
    by_id = {r.trial_id: r for r in completed}
    rows = [_configuration(spec, ranked, by_id) for ranked in ranking(spec, completed)]
    controls = [
        _configuration(spec, _unranked(c), by_id)
        for c in contenders(spec, completed)
        if is_control(spec, c)
    ]
    first = completed[0].result.tasks if completed else {}
    analysis = StudyAnalysis(
        study=name,
        model=completed[0].result.model if completed else spec.base.tokenizer_config.model_name,
        is_embedded_model=spec.base.tokenizer_config.model_name == "tiny",
        focus=spec.focus.value,
        focus_says=spec.focus.says,
        weights=spec.weights,
        step_scale=spec.step_scale,
        untouched_objective=_untouched_objective(spec, first) if first else None,
        num_planned=spec.plan().num_trials,
        num_completed=len(completed),
        num_failed=len(failed),
        num_pruned=len(pruned),
        verdict=(),
        base={task: result.base for task, result in first.items()},
        baselines={task: result.baseline for task, result in first.items()},
        mix=_mix(root, completed[0]) if completed else {},
        detectable={task: _detectable(result) for task, result in first.items()},
        configurations=rows,
        controls=controls,
        base_arms=completed[0].result.base_arms if completed else {},
        curves=[curve for r in completed if (curve := _curve(root, r, [*rows, *controls]))],
        prunings=[{"trial_id": r.trial_id, "reason": r.result.reason or ""} for r in pruned],
        front=front(spec, completed),
        failures=[
            {"trial_id": r.trial_id, "error": f"{r.result.error_type}: {r.result.error}"}
            for r in failed
        ],
        provenance=_provenance(spec, completed),
    )
    return dataclasses.replace(analysis, verdict=verdict(analysis))


def write_analysis(root: ResultsRoot, analysis: StudyAnalysis) -> Path:
    """Write the analysis to `transfer/{study}_analysis.json` and return the path.

    Raises:
        ResultsError: The disk refuses.
    """
    path = root.transfer / f"{analysis.study}_analysis.json"
    files.write_json(path, dataclasses.asdict(analysis))
    return path


def _untouched_objective(spec: StudySpec, tasks: Mapping[str, TaskResult]) -> float:
    if spec.focus is not Focus.BALANCED:
        return 0.0
    spelling, position, count = (tasks[task.value].base.value for task in EVALUATED_TASKS)
    return calculate_transfer_score(spelling, position, count, *spec.weights)


def _unranked(contender: Contender) -> Ranked:
    return Ranked(
        rank=0, contender=contender, interval=None, ties_with_best=False, beats_default=False
    )


def _configuration(
    spec: StudySpec, ranked: Ranked, by_id: Mapping[str, TrialRecord]
) -> ConfigurationSummary:
    contender = ranked.contender
    runs = [by_id[trial_id] for trial_id in contender.trial_ids]
    training = spec.config_of(runs[0]).training_config
    return ConfigurationSummary(
        rank=ranked.rank,
        label=contender.label,
        parameters=contender.parameters,
        is_default=contender.is_default,
        num_seeds=len(runs),
        objective=contender.mean,
        low=ranked.interval.low if ranked.interval else None,
        high=ranked.interval.high if ranked.interval else None,
        ties_with_best=ranked.ties_with_best,
        beats_default=ranked.beats_default,
        gains={task.value: _gain_over_runs(task, runs) for task in EVALUATED_TASKS},
        num_examples=training.max_steps * training.effective_batch_size,
        train_seconds=max(r.execution.train_seconds for r in runs),
        trial_ids=list(contender.trial_ids),
    )


def _gain_over_runs(task: Task, runs: Sequence[TrialRecord]) -> GainSummary:
    results = [r.result.tasks[task.value] for r in runs]
    accuracy = sum(r.tuned.value for r in results) / len(results)
    gains = [r.gain.value for r in results]
    choices = [r.choice_gain for r in results if r.choice_gain is not None]
    if len(results) == 1:
        strict, choice = results[0].gain, results[0].choice_gain
        return GainSummary(
            accuracy=accuracy,
            gain=strict.value,
            low=strict.low,
            high=strict.high,
            choice_gain=choice.value if choice else None,
            choice_low=choice.low if choice else None,
            choice_high=choice.high if choice else None,
            over_seeds=False,
        )
    low, high = _over_seeds_and_words([r.gain for r in results])
    choice_interval = _over_seeds_and_words(choices) if choices else None
    return GainSummary(
        accuracy=accuracy,
        gain=sum(gains) / len(gains),
        low=low,
        high=high,
        choice_gain=sum(c.value for c in choices) / len(choices) if choices else None,
        choice_low=choice_interval.low if choice_interval else None,
        choice_high=choice_interval.high if choice_interval else None,
        over_seeds=True,
    )


def _over_seeds_and_words(gains: Sequence[Gain]) -> Interval:
    """Return an interval for the mean gain of several seeds on the same words.

    Seeds differ, and the words are a sample: both widths are added in quadrature. The width over
    words is the mean of those of the single runs, which is at least that of their mean: the
    interval errs on the wide side.
    """
    mean = sum(gain.value for gain in gains) / len(gains)
    seeds = t_interval([gain.value for gain in gains])
    below = sum(gain.value - gain.low for gain in gains) / len(gains)
    above = sum(gain.high - gain.value for gain in gains) / len(gains)
    return Interval(
        mean - math.hypot(mean - seeds.low, below), mean + math.hypot(seeds.high - mean, above)
    )


def _mix(root: ResultsRoot, record: TrialRecord) -> dict[str, dict[str, int]]:
    """Return the mix that the evaluation stored; nothing if that folder is gone."""
    folder = root.training(record.result.training_key)
    scores = folder.evaluation(record.result.evaluation_key or "none") / "scores.json"
    mix: dict[str, dict[str, int]] = files.read_json(scores)["mix"] if scores.is_file() else {}
    return mix


def _detectable(result: TaskResult) -> float:
    gain, base = result.gain, result.base
    discordant = (gain.num_better + gain.num_worse) / base.num_items
    return detectable_gain(base.num_words, max(discordant, 1 / base.num_items))


def _curve(
    root: ResultsRoot, record: TrialRecord, rows: Sequence[ConfigurationSummary]
) -> Curve | None:
    try:
        lines = read_progress(root.training(record.result.training_key))
    except ResultsError:
        return None
    on_the_way = sorted(
        (x for x in lines if x["kind"] == "evaluation" and x["step"] <= record.result.step),
        key=lambda x: int(x["step"]),
    )
    if not on_the_way:
        return None
    label = next(row.label for row in rows if record.trial_id in row.trial_ids)
    return Curve(
        label=label,
        trial_id=record.trial_id,
        steps=[x["step"] for x in on_the_way],
        accuracies={
            task.value: [x[f"{METRIC_PREFIX[task]}/accuracy"] for x in on_the_way]
            for task in EVALUATED_TASKS
        },
    )


def _provenance(spec: StudySpec, completed: Sequence[TrialRecord]) -> dict[str, Any]:
    return {
        "created": spec.base.timestamp,
        "training keys": sorted({r.result.training_key for r in completed}),
        "base": completed[0].result.base_key if completed else None,
        "hosts": sorted({r.execution.host for r in completed}),
        "versions": dict(completed[0].execution.versions) if completed else {},
        "threads": sorted({r.execution.num_threads for r in completed}),
        "training minutes": round(sum(r.execution.train_seconds for r in completed) / 60, 2),
        "evaluation minutes": round(sum(r.execution.evaluation_seconds for r in completed) / 60, 2),
        "peak memory, MiB": max(
            (r.execution.peak_memory_bytes // 2**20 for r in completed), default=None
        ),
        "trained tokens": sum(r.execution.num_trained_tokens for r in completed),
    }


# --- the verdict ------------------------------------------------------------------------------


def points(rate: float) -> str:
    """Return a difference of rates in points, with its sign: 0.053 is ``+5.3``."""
    text = f"{100 * rate:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def verdict(analysis: StudyAnalysis) -> list[str]:
    """Return what the study shows, in sentences; the first is the one to remember."""
    if not analysis.configurations:
        return [f"No trial of {analysis.num_planned} completed: there is nothing to conclude."]
    best = analysis.configurations[0]
    default = next((row for row in analysis.configurations if row.is_default), None)
    sentences = [_transfer_sentence(best), _gains_sentence(analysis, best)]
    if default is not None and default is not best:
        sentences.append(_gains_sentence(analysis, default))
    sentences += [_gains_sentence(analysis, control) for control in analysis.controls]
    ended = analysis.num_completed + analysis.num_failed + analysis.num_pruned
    unfinished = analysis.num_planned - ended
    if unfinished:
        sentences.append(
            f"Only {analysis.num_completed} of {analysis.num_planned} trials have completed, "
            f"{analysis.num_failed} failed: all of this may change."
        )
    elif analysis.num_failed:
        sentences.append(
            f"{analysis.num_failed} of {analysis.num_planned} trials failed and are left out."
        )
    if analysis.num_pruned:
        sentences.append(
            f"{analysis.num_pruned} of {analysis.num_planned} trials were stopped early for being "
            f"poor on the way; they are not ranked."
        )
    if len(analysis.configurations) > 1:
        sentences.append(_ranking_sentence(analysis, best, default))
        sentences.append(
            "The best of several was chosen on the words it is reported on, so its numbers flatter "
            "it; fresh seeds and test words would show by how much."
        )
    if analysis.is_embedded_model:
        sentences.append(
            f"All of this was measured on {analysis.model}, a model made to exercise the program: "
            "it is no evidence about Qwen3-4B or any other model."
        )
    return sentences


def _transfer_sentence(row: ConfigurationSummary) -> str:
    spelling = row.gains[Task.SPELLING.value]
    found = {task: _reading(row.gains[task.value]) for task in TRANSFER_TASKS}
    said = " and ".join(f"{task.value} {words}" for task, words in found.items())
    moved = _moved(spelling.low, spelling.high)
    best = (
        "in the default, which ranks first"
        if row.is_default
        else f"with {row.label}, which ranks first"
    )
    learned = {
        1: "Spelling improved",
        0: "Spelling did not measurably change",
        -1: "Spelling got worse",
    }
    return f"{learned[moved]} {best}; {said}."


def _moved(low: float, high: float) -> int:
    return 1 if low > 0 else (-1 if high < 0 else 0)


def _reading(gain: GainSummary) -> str:
    strict = _moved(gain.low, gain.high)
    choice = _moved(gain.choice_low or 0, gain.choice_high or 0)
    if strict > 0:
        return "improved too: transfer" if choice > 0 else "improved in format only"
    if strict < 0:
        return "got worse" if choice < 0 else "got worse in format only"
    return "did not measurably change"


_ARMS_SAY = {
    "format_control": "The control, trained on the letters of other words,",
    "direct": "The ceiling, trained on position and count themselves,",
}


def _gains_sentence(analysis: StudyAnalysis, row: ConfigurationSummary) -> str:
    parts = []
    for task, gain in row.gains.items():
        interval = f"[{points(gain.low)}, {points(gain.high)}]"
        base = analysis.base[task]
        size = f"{base.num_items} items, {base.num_words} words"
        parts.append(f"{task} {points(gain.gain)} {interval} ({size})")
    kind = (
        f"mean of {row.num_seeds} seeds, intervals over seeds and words"
        if row.gains[Task.SPELLING.value].over_seeds
        else "one seed, intervals over words: of this adapter, not of this configuration"
    )
    who = "The default" if row.is_default else f"The configuration with {row.label}"
    arm = row.parameters.get("arm")
    if row in analysis.controls and arm in _ARMS_SAY:
        who = f"{_ARMS_SAY[arm]} ({row.label})"
    return (
        f"{who} against the untouched model, in points with 95 % intervals: "
        f"{', '.join(parts)}; {kind}."
    )


def _ranking_sentence(
    analysis: StudyAnalysis, best: ConfigurationSummary, default: ConfigurationSummary | None
) -> str:
    ties = sum(row.ties_with_best for row in analysis.configurations) - 1
    ranked_by = f"Ranked by {analysis.focus_says} (untouched: {analysis.untouched_objective:.3f})"
    if best.low is None:
        return f"{ranked_by}; no spread over seeds is known, so this cannot be told from noise."
    if not any(row.beats_default for row in analysis.configurations):
        beats = "no configuration beats the default"
    else:
        winners = sum(row.beats_default for row in analysis.configurations)
        beats = f"{winners} of {len(analysis.configurations) - 1} others beat the default"
    seeds = f"the spread over {default.num_seeds} seeds of the default" if default else "no spread"
    tests = len(analysis.configurations) - 1
    return (
        f"{ranked_by}, {beats} (judged by {seeds}, Holm over {tests} comparison(s)); "
        f"{ties} cannot be told from the best."
    )
