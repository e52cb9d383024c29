"""What an English part of the vocabulary changed, in sentences with their sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tuning.analysis import formats
from tuning.analysis.verdict import interval_points
from tuning.analysis.vocabularies import WHOLE, OverWhole, VocabularyRow
from tuning.tasks.items import SCORED_TASKS


class _Compared(NamedTuple):
    """One part of the vocabulary in one task."""

    name: str
    task: str
    over: OverWhole


def vocabulary_sentences(rows: Sequence[VocabularyRow], missing: Sequence[str]) -> list[str]:
    """Return what the vocabulary changed; nothing where there is one vocabulary.

    Args:
        rows: Of the analysis.
        missing: Vocabularies of which no run completed.
    """
    if not rows:
        return []
    compared = [
        _Compared(row.name, task, found.over_whole)
        for row in rows
        for task, found in row.tasks.items()
        if found.over_whole
    ]
    sentences = _accuracy_sentences(compared) + _cost_sentences(rows) if compared else []
    return [*sentences, *_missing_sentences(rows, missing)]


def _accuracy_sentences(compared: Sequence[_Compared]) -> list[str]:
    apart = [
        f"{c.name} {c.task} {interval_points(c.over.level)}"
        for c in compared
        if c.over.is_told_apart
    ]
    told = (
        f"accuracy differs from that with the whole one, in points with 95 % intervals: "
        f"{', '.join(apart)}; nothing else is told apart"
        if apart
        else "no accuracy is told from that with the whole one"
    )
    basis = " or ".join(sorted({c.over.level.basis.value for c in compared}))
    same = [c for c in compared if c.over.is_same_items]
    return [
        f"Trained and evaluated on an English part of the vocabulary ({_names(compared)}), {told} "
        f"(Holm over {len(compared)} comparisons; intervals over {basis}).",
        *([f"On the same items {_detectable(same)}."] if same else []),
        *_unlike_sentences([c for c in compared if not c.over.is_same_items]),
    ]


def _unlike_sentences(compared: Sequence[_Compared]) -> list[str]:
    if not compared:
        return []
    gains = ", ".join(f"{c.name} {c.task} {interval_points(c.over.gain)}" for c in compared)
    return [
        f"{_names(compared)}: independent samples, for other words were asked about or answers are "
        f"gone, so levels differ by the words too, and {_detectable(compared)}. Gains, each over "
        f"the untouched model on its own items, above those with the whole one, not corrected for "
        f"their number: {gains}."
    ]


def _names(compared: Sequence[_Compared]) -> str:
    return ", ".join(dict.fromkeys(c.name for c in compared))


def _detectable(compared: Sequence[_Compared]) -> str:
    """Return the sizes that a single comparison finds, by task: the largest of all parts."""
    largest = ", ".join(
        f"{task} {100 * max(c.over.level.detectable for c in compared if c.task == task):.1f}"
        for task in SCORED_TASKS
    )
    return f"a single difference is found with 80 % power from so many points: {largest}"


def _cost_sentences(rows: Sequence[VocabularyRow]) -> list[str]:
    whole = next(row for row in rows if row.name == WHOLE)
    said = [
        f"{row.name}{_rows_of(row, whole)} {', '.join(ratios)}"
        for row in rows
        if (ratios := _ratios(row))
    ]
    if not said:
        return ["No run tells what an English part of the vocabulary takes in time or memory."]
    return [f"As a multiple of the whole vocabulary: {'; '.join(said)}."]


def _rows_of(row: VocabularyRow, whole: VocabularyRow) -> str:
    if not row.num_rows or not whole.num_rows:
        return ""
    return f" ({row.num_rows:,} of {whole.num_rows:,} rows)"


def _ratios(row: VocabularyRow) -> list[str]:
    named = (
        ("tokens per second", row.speed_ratio),
        ("peak memory", row.memory_ratio),
        ("peak GPU memory", row.gpu_memory_ratio),
    )
    return [f"{name} {formats.ratio(ratio)}" for name, ratio in named if ratio]


def _missing_sentences(rows: Sequence[VocabularyRow], missing: Sequence[str]) -> list[str]:
    first = (
        []
        if any(row.name == WHOLE for row in rows)
        else ["The whole vocabulary has no completed run: its parts have nothing to be held to."]
    )
    parts = (name for name in missing if name != WHOLE)
    return [*first, *(f"No run on the vocabulary {name} has completed." for name in parts)]
