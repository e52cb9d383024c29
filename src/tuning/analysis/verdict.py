"""The verdict in words: what is true, how sure, and what it is no evidence of."""

from __future__ import annotations

from tuning.analysis.configurations import ConfigurationSummary, Reading, TaskGain
from tuning.analysis.results import StudyAnalysis
from tuning.mixed_effects import Basis, Estimate
from tuning.statistics import holm
from tuning.tasks.items import TRANSFER_TASKS, Task


def points(rate: float) -> str:
    """Return a difference of rates in points, with its sign: 0.053 is ``+5.3``."""
    text = f"{100 * rate:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def bound(rate: float) -> str:
    """Return a bound of an interval in points, with as many decimals as show its sign.

    A gain that is found is one whose interval leaves 0 out, which ``[0.0, +2.1]`` would not show.
    """
    for decimals in (1, 2, 3):
        text = f"{100 * rate:+.{decimals}f}"
        if text.strip("+-0."):
            return text
    return "0.0"


def interval_points(found: Estimate) -> str:
    """Return a difference with its interval, such as ``+5.3 [+2.1, +8.5]``."""
    return f"{points(found.value)} [{bound(found.low)}, {bound(found.high)}]"


def verdict(analysis: StudyAnalysis) -> list[str]:
    """Return what the study shows, in sentences; the first is the one to remember."""
    if not analysis.configurations:
        return [
            f"No trial of {analysis.num_planned} completed"
            f"{_ended(analysis)}: there is nothing to conclude."
        ]
    best, default = analysis.configurations[0], analysis.default
    subject = default or best
    sentences = [headline(subject), _gains_sentence(analysis, subject)]
    if default is not None:
        sentences += _family_sentence(default)
    if best is not subject:
        sentences += [_best_sentence(best), _gains_sentence(analysis, best)]
    sentences += [_control_sentence(analysis, control) for control in analysis.controls]
    sentences += _unfinished_sentences(analysis)
    if len(analysis.configurations) > 1:
        sentences.append(_ranking_sentence(analysis))
        sentences += _luck_sentences(analysis)
    sentences += analysis.vocabulary_sentences
    sentences += _test_sentence(analysis)
    sentences.append(_size_sentence(subject))
    if analysis.is_embedded_model:
        sentences.append(
            f"All of this was measured on {analysis.model}, a model made to exercise the program: "
            "it is no evidence about Qwen3-4B or any other model."
        )
    return sentences


def headline(row: ConfigurationSummary) -> str:
    """Return what one configuration shows, in one sentence without numbers."""
    learned = {
        Reading.LEARNED: "Training on spelling improved spelling",
        Reading.SAME: "Training on spelling did not measurably change spelling",
        Reading.WORSE: "Training on spelling made spelling worse",
    }[row.gains[Task.SPELLING.value].reading]
    where = "in the default configuration" if row.is_default else f"with {row.label}"
    if row.gains[Task.SPELLING.value].gain.basis is Basis.WORDS:
        where = f"in this one run {'of' if row.is_default else 'with'} {where.split(' ', 1)[1]}"
    said = " and ".join(_said(task, row.gains[task.value]) for task in TRANSFER_TASKS)
    return f"{learned} {where}; {said}."


def _said(task: Task, gain: TaskGain) -> str:
    return {
        Reading.TRANSFER: f"{task} improved too: transfer",
        Reading.FORMAT: f"{task} improved in format only",
        Reading.GUESSING: f"{task} improved, but no further than guessing without the word reaches",
        Reading.CONTROL: f"{task} improved, but not measurably more than the format control",
        Reading.CHANCE: f"{task} improved, as one of so many configurations may by chance",
        Reading.SAME: f"{task} did not measurably change",
        Reading.WORSE: f"{task} got worse",
        Reading.WORSE_FORMAT: f"{task} got worse in format only",
        Reading.CHANCE_WORSE: f"{task} got worse, as one of so many configurations may by chance",
        Reading.LEARNED: f"{task} improved",
    }[gain.reading]


_ARMS_SAY = {
    "format_control": "The control, trained on the letters of other words,",
    "direct": "The ceiling, trained on position and count themselves,",
}


def _who(row: ConfigurationSummary) -> str:
    return "The default" if row.is_default else f"The configuration with {row.label}"


def _gains_sentence(analysis: StudyAnalysis, row: ConfigurationSummary, who: str = "") -> str:
    parts = (
        f"{task} {interval_points(gain.gain)} ({gain.num_items} items, {gain.num_words} words)"
        for task, gain in row.gains.items()
    )
    basis = row.gains[Task.SPELLING.value].gain.basis
    kind = {
        Basis.SEEDS: f"mean of {row.num_seeds} seeds, intervals over seeds and words",
        Basis.BORROWED: "one seed, intervals over words and the spread of the repeated default",
        Basis.WORDS: "one seed, intervals over words: of this adapter, not of this configuration",
    }[basis]
    return (
        f"{who or _who(row)} against the untouched model, in points with 95 % intervals: "
        f"{', '.join(parts)}; {kind}."
    )


def _control_sentence(analysis: StudyAnalysis, row: ConfigurationSummary) -> str:
    arm = str(row.parameters.get("arm"))
    who = f"{_ARMS_SAY[arm]} ({row.label})" if arm in _ARMS_SAY else ""
    return _gains_sentence(analysis, row, who)


def _family_sentence(default: ConfigurationSummary) -> list[str]:
    """Return the tests that were named in advance: position and count of the default."""
    adjusted = holm([default.gains[task.value].gain.p_value for task in TRANSFER_TASKS])
    said = ", ".join(
        f"{task} p = {p:.3f}" if p >= 0.001 else f"{task} p < 0.001"
        for task, p in zip(TRANSFER_TASKS, adjusted, strict=True)
    )
    return [f"Named in advance, position and count of the default, Holm over 2 tests: {said}."]


def _best_sentence(best: ConfigurationSummary) -> str:
    said = " and ".join(_said(task, best.gains[task.value]) for task in TRANSFER_TASKS)
    return f"With {best.label}, which ranks first, {said}."


def _ended(analysis: StudyAnalysis) -> str:
    counts = ((analysis.num_failed, "failed"), (analysis.num_pruned, "were stopped early"))
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    return f" ({said})" if said else ""


def _unfinished_sentences(analysis: StudyAnalysis) -> list[str]:
    ended = analysis.num_completed + analysis.num_failed + analysis.num_pruned
    sentences = []
    if analysis.num_planned > ended:
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
    return sentences


def _ranking_sentence(analysis: StudyAnalysis) -> str:
    ties = sum(row.ties_with_best for row in analysis.configurations) - 1
    untouched = analysis.untouched_objective or 0.0
    ranked_by = f"Ranked by {analysis.focus_says} (untouched: {untouched:.3f})"
    if analysis.seed_deviation.get("objective") is None:
        return f"{ranked_by}; no spread over seeds is known, so this cannot be told from noise."
    tests = sum(row.over_default is not None for row in analysis.configurations)
    winners = sum(row.beats_default for row in analysis.configurations)
    beats = (
        f"{winners} of {tests} others beat the default"
        if winners
        else "no configuration beats the default"
    )
    if not tests:
        beats = "nothing was compared with the default"
    return (
        f"{ranked_by}, {beats} (over seeds and words, Holm over {tests} comparison(s)); "
        f"{ties} cannot be told from the best."
    )


def _held(over_default: Estimate) -> str:
    """Return whether what was chosen is above the default on fresh seeds too."""
    value, low, high = over_default.value, over_default.low, over_default.high
    difference = f"{value:+.3f} [{low:+.3f}, {high:+.3f}] against the default on the same seeds"
    if low > 0:
        return f"it held: {difference}"
    if high < 0:
        return f"it did not hold, and is worse: {difference}"
    return f"it did not hold: {difference}, which cannot be told from nothing"


def _luck_sentences(analysis: StudyAnalysis) -> list[str]:
    if analysis.confirms is not None:
        return [
            f"Chosen in study {analysis.confirms} and trained again here on fresh seeds, "
            f"{row.label}: {_held(row.over_default)}."
            for row in analysis.configurations
            if row.over_default is not None
        ]
    confirmation = analysis.confirmation
    if confirmation is None:
        return [
            "The best of several was chosen on the words it is reported on, so its numbers flatter "
            f"it; fresh seeds (tuning study confirm {analysis.study}) show by how much."
        ]
    sentences = []
    for found in confirmation.configurations:
        against = found.fresh_over_default
        beside = "" if against is None else f"; {_held(against)}"
        sentences.append(
            f"Trained again on {found.fresh_row.num_seeds} fresh seeds, {found.label} went from "
            f"{found.chosen.value:.3f} to {found.fresh.value:.3f}{beside}."
        )
    return sentences


def _test_sentence(analysis: StudyAnalysis) -> list[str]:
    """Return what the words say that chose nothing, where they were asked."""
    labels = dict.fromkeys(found.label for found in analysis.final_gains)
    sentences = []
    for label in labels:
        own = [found for found in analysis.final_gains if found.label == label]
        gains = ", ".join(f"{found.task} {interval_points(found.gain)}" for found in own)
        seeds = own[0].gain.num_seeds
        of = "this adapter alone" if seeds == 1 else f"{seeds} seeds"
        sentences.append(f"On words of the test split, {label}, {of}: {gains}.")
    return sentences


def _size_sentence(row: ConfigurationSummary) -> str:
    sizes = ", ".join(
        f"{task} {100 * row.gains[task.value].detectable:.1f}" for task in TRANSFER_TASKS
    )
    return (
        f"With these seeds and words a gain is found with 80 % power from so many points: {sizes}."
    )
