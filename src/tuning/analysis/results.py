"""The analysis of a study as one record: what `analysis.json` holds, and what a report shows."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.confirmation import Confirmation, FinalGain
from tuning.analysis.costs import Cost, EqualExamples
from tuning.analysis.effects import DirectEffect
from tuning.analysis.influence import Influence
from tuning.analysis.marginals import Marginal
from tuning.analysis.patterns import Curve, Patterns
from tuning.analysis.relations import ItemRelation, PlottedRun, RunCorrelation
from tuning.analysis.strata import CountConfusion, Stratum
from tuning.analysis.vocabularies import VocabularyRow
from tuning.measures import Accuracy
from tuning.study import OnFront
from tuning.tasks.items import TRANSFER_TASKS, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """One task as the untouched model does it, and what the evaluation can find."""

    base: Accuracy
    choice: Accuracy | None
    lenient: Accuracy | None
    baseline: float
    """Accuracy of the best guesser that never looks at the word."""
    mix: Mapping[str, int]
    """Items by template, band and stratum: what the plain mean is taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial as it ended; every known trial has one."""

    trial_id: str
    label: str
    parameters: Mapping[str, Any]
    seed: int
    status: str
    objective: float | None = None
    accuracy: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gain: Mapping[str, float] = dataclasses.field(default_factory=dict)
    choice_gain: Mapping[str, float] = dataclasses.field(default_factory=dict)
    transfer_learning_score: float | None = None
    own_weights_score: float | None = None
    num_steps: int = 0
    num_examples: int = 0
    train_seconds: float = 0.0
    evaluation_seconds: float = 0.0
    training_key: str = ""
    remark: str = ""
    """Why it failed or was stopped."""


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
    strategy: str
    untouched_objective: float | None
    """What the untouched model itself would rank with."""
    num_planned: int
    num_completed: int
    num_failed: int
    num_pruned: int
    """Stopped early: poor on the way, with no final evaluation."""
    verdict: Sequence[str]
    """In sentences; the first is the one to remember."""
    notes: Sequence[str]
    """What could not be read, or does not fit together."""
    tasks: Mapping[str, TaskSummary]
    configurations: Sequence[ConfigurationSummary]
    controls: Sequence[ConfigurationSummary]
    """Configurations of other arms; not ranked."""
    base_arms: Mapping[str, Mapping[str, Accuracy]]
    """The untouched model put otherwise: four_shot, oracle; by task."""
    num_tests: Mapping[str, int]
    """Tests of each family."""
    seed_deviation: Mapping[str, float | None]
    """Standard deviation between seeds: of the objective, and of each task's strict accuracy."""
    trials: Sequence[TrialRow]
    runs: Sequence[PlottedRun]
    correlations: Sequence[RunCorrelation]
    item_relations: Sequence[ItemRelation]
    effects: Sequence[DirectEffect]
    """Of a one-at-a-time design; a search has influences instead."""
    influences: Sequence[Influence]
    """Of a search, on spelling, position, count and the objective."""
    marginals: Sequence[Marginal]
    """Means of the same at each value that a search tried."""
    equal_examples_budget: int
    equal_examples: Sequence[EqualExamples]
    costs: Sequence[Cost]
    curves: Sequence[Curve]
    patterns: Patterns
    """What the curves look like."""
    pattern_sentences: Sequence[str]
    vocabularies: Sequence[VocabularyRow]
    """Where configurations differ in their vocabulary alone: the whole one and its parts."""
    vocabulary_sentences: Sequence[str]
    strata: Sequence[Stratum]
    """Of the default and of the first of the ranking."""
    confusion: Sequence[CountConfusion]
    confirmation: Confirmation | None
    """The winners on fresh seeds, if they were trained again."""
    confirms: str | None = None
    """The study whose winners are trained again in this one."""
    final_gains: Sequence[FinalGain]
    """On the test split, as far as it was read."""
    front: Sequence[OnFront]
    """With several objectives: the configurations that no other beats in all of them."""
    provenance: Mapping[str, Any]

    @property
    def run_deviation(self) -> Mapping[str, float]:
        """Standard deviation over runs of the gain in each task; empty for fewer than two."""
        if len(self.runs) < 2:
            return {}
        tasks = (Task.SPELLING, *TRANSFER_TASKS)
        return {t.value: statistics.stdev(getattr(r, t.value) for r in self.runs) for t in tasks}

    @property
    def default(self) -> ConfigurationSummary | None:
        """The default configuration."""
        return next((row for row in self.configurations if row.is_default), None)
