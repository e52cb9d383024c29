"""The whole vocabulary against its English parts: accuracy, gains, speed and memory.

Compared are configurations that are equal but for their vocabulary: those of the default. Each part
is held against the whole one on the same words, seeds pooled over all of them; a part that cannot
write every word was asked about others, and is compared as an independent sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuning.analysis.configurations import Standing, Table
from tuning.analysis.resources import Ratio, Resources, ratio_of, resources_of
from tuning.measures import STRICT
from tuning.mixed_effects import (
    Basis,
    Estimate,
    Run,
    SeedSpread,
    difference,
    estimate,
    independent_difference,
    spread_over_seeds,
)
from tuning.ranking import LEVEL, Contender
from tuning.records import TrialRecord
from tuning.statistics import holm
from tuning.study import StudySpec, contenders, is_control
from tuning.tasks.items import SCORED_TASKS, Task

WHOLE = "whole"
"""Name of the vocabulary that nothing was taken from; others are named for their rule."""

_PARAMETERS = {"use_english_only_tokens", "subset_rule"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OverWhole:
    """One part of the vocabulary above the whole one in one task, strict answers."""

    level: Estimate
    """Of the accuracies after training."""
    gain: Estimate
    """Of the gains, each over the untouched model on its own vocabulary."""
    is_same_items: bool
    """Whether both answered the same items, so that words cancel. Else two independent samples are
    compared (Welch): other words were asked about, or answers are gone."""
    p_adjusted: float = 1.0
    """Of the difference of accuracies, for all parts and tasks (Holm)."""

    @property
    def is_told_apart(self) -> bool:
        """Whether accuracies differ with all parts and tasks compared at once.

        Without any repetition they may differ by the seed alone.
        """
        return self.p_adjusted < LEVEL and self.level.basis is not Basis.WORDS


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyTask:
    """One vocabulary in one task, over its seeds, strict answers."""

    before: float
    """Accuracy of the untouched model on this vocabulary."""
    level: Estimate
    """Accuracy after training."""
    baseline: float
    """Best guess without looking at the word."""
    gain: Estimate
    num_items: int
    num_words: int
    over_whole: OverWhole | None
    """None for the whole vocabulary itself, and where it has no completed run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyRow:
    """One vocabulary among configurations that differ in nothing else."""

    name: str
    label: str
    """Of the configuration."""
    num_rows: int | None
    """Tokens among which the model decides; None where no record tells."""
    seeds: Sequence[int]
    tasks: Mapping[str, VocabularyTask]
    resources: Resources
    speed_ratio: Ratio | None
    """Tokens a second, as a multiple of those with the whole vocabulary; None for itself."""
    memory_ratio: Ratio | None
    gpu_memory_ratio: Ratio | None


def vocabularies_of(table: Table) -> list[VocabularyRow]:
    """Return the vocabularies of a study, the whole one first, then by size.

    Nothing where all configurations like the default have one vocabulary.
    """
    group = _Group.of(table.standing)
    if len(group.contenders) < 2:
        return []
    over_whole = group.over_whole()
    rows = [_row(group, name, over_whole) for name in group.contenders]
    return sorted(rows, key=lambda row: (row.name != WHOLE, -(row.num_rows or 0)))


def missing_vocabularies(
    rows: Sequence[VocabularyRow], spec: StudySpec, records: Sequence[TrialRecord]
) -> list[str]:
    """Return the vocabularies that finished trials like the default had, and none completed.

    Args:
        rows: Those of which runs completed.
        spec: What the study was asked.
        records: Of all finished trials, whatever became of them.
    """
    tried = {_name(spec, record) for record in records if set(record.parameters) <= _PARAMETERS}
    return sorted(tried - {row.name for row in rows})


def _name(spec: StudySpec, record: TrialRecord) -> str:
    return str(spec.config_of(record).tokenizer_config.subset or WHOLE)


@dataclass(frozen=True, slots=True)
class _Group:
    """Configurations that differ in their vocabulary alone."""

    standing: Standing
    contenders: Mapping[str, Contender]
    """The first of each vocabulary."""
    spread: Mapping[Task, SeedSpread | None]
    """Between seeds, within all of them; the default's, if none was repeated."""

    @classmethod
    def of(cls, standing: Standing) -> _Group:
        """Find the configurations like the default."""
        spec, records = standing.spec, standing.records
        found: dict[str, Contender] = {}
        for contender in contenders(spec, list(records.values())):
            if not is_control(spec, contender) and set(contender.parameters) <= _PARAMETERS:
                found.setdefault(_name(spec, records[contender.trial_ids[0]]), contender)
        spread = {
            task: spread_over_seeds([standing.gains(c, task, STRICT) for c in found.values()])
            or standing.spread[f"{task}/{STRICT}"]
            for task in SCORED_TASKS
        }
        return cls(standing, found, spread)

    def records(self, name: str) -> list[TrialRecord]:
        """Return the records of one vocabulary; none where it has no completed run."""
        found = self.contenders.get(name)
        return [self.standing.records[t] for t in found.trial_ids] if found else []

    def over_whole(self) -> dict[tuple[str, Task], OverWhole]:
        """Compare each part with the whole vocabulary in each task, all at once."""
        whole = self.contenders.get(WHOLE)
        found = {
            (name, task): self._over_whole(task, own, whole)
            for name, own in self.contenders.items()
            for task in SCORED_TASKS
            if whole and own is not whole
        }
        adjusted = holm([over.level.p_value for over in found.values()])
        return {
            key: dataclasses.replace(over, p_adjusted=p_value)
            for (key, over), p_value in zip(found.items(), adjusted, strict=True)
        }

    def _over_whole(self, task: Task, own: Contender, whole: Contender) -> OverWhole:
        standing, spread = self.standing, self.spread[task]
        both = (own, whole)
        items = {standing.answers.trials[t].items for c in both for t in c.trial_ids}
        is_same = len(items) == 1 and "" not in items

        def above(a: Sequence[Run], b: Sequence[Run]) -> Estimate:
            if is_same:
                return difference(a, b, spread)
            return independent_difference(estimate(a, spread), estimate(b, spread))

        return OverWhole(
            level=above(*(standing.levels(c, task, STRICT) for c in both)),
            gain=above(*(standing.gains(c, task, STRICT) for c in both)),
            is_same_items=is_same,
        )


def _row(
    group: _Group, name: str, over_whole: Mapping[tuple[str, Task], OverWhole]
) -> VocabularyRow:
    records = group.records(name)
    own, whole = resources_of(records), resources_of(group.records(WHOLE))
    if name == WHOLE:
        whole = resources_of([])
    return VocabularyRow(
        name=name,
        label=group.contenders[name].label,
        num_rows=max(record.result.num_vocabulary_rows for record in records) or None,
        seeds=[record.seed for record in records],
        tasks={
            task.value: _task(group, name, task, over_whole.get((name, task)))
            for task in SCORED_TASKS
        },
        resources=own,
        speed_ratio=ratio_of(own.tokens_per_second, whole.tokens_per_second),
        memory_ratio=ratio_of(own.peak_memory_bytes, whole.peak_memory_bytes),
        gpu_memory_ratio=ratio_of(own.peak_gpu_memory_bytes, whole.peak_gpu_memory_bytes),
    )


def _task(group: _Group, name: str, task: Task, over_whole: OverWhole | None) -> VocabularyTask:
    standing, own, spread = group.standing, group.contenders[name], group.spread[task]
    recorded = standing.records[own.trial_ids[0]].result.tasks[task.value]
    return VocabularyTask(
        before=standing.before(own, task).value,
        level=estimate(standing.levels(own, task, STRICT), spread),
        baseline=recorded.baseline,
        gain=estimate(standing.gains(own, task, STRICT), spread),
        num_items=recorded.base.num_items,
        num_words=recorded.base.num_words,
        over_whole=over_whole,
    )
