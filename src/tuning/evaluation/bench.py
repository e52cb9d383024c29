"""The bench: what trials on one model share. A frozen base, its words, its suites, its scorer."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuning.config import EvaluationConfig, ExperimentConfig
from tuning.evaluation.one_pass import OnePassScorer
from tuning.evaluation.retention import States
from tuning.fingerprint import resolved_precision
from tuning.measures import BaselineOf, baseline_from, strict_accuracies
from tuning.model.base import BaseModel, Last, load_base, subject_words
from tuning.tasks.baselines import LetterGuesser, fit_letter_guesser
from tuning.tasks.items import EVALUATED_TASKS
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.suite import Suite, build_suite
from tuning.tasks.words import SubjectWords
from tuning.tokens.subset import SubsetRule


@dataclass(frozen=True)
class Bench:
    """What trials on one model share."""

    base: BaseModel
    words: Mapping[Split, SubjectWords]
    suite: Suite
    """The final evaluation."""
    monitor: Suite
    """A part of it, for evaluations on the way."""
    scorer: OnePassScorer
    guesser: LetterGuesser
    """Guesses letters without looking at the word."""
    baseline_of: BaselineOf
    """Word-blind accuracy on rows of predictions."""
    sizes: EvaluationConfig
    untouched: States = field(default_factory=dict, repr=False, compare=False)
    """What retention keeps of the untouched model."""

    def monitored(self) -> dict[str, float]:
        """Return the strict accuracies on the monitor, with whatever adapter is on the base."""
        items = self.monitor.items
        tasks = [task for item in items for task in EVALUATED_TASKS if task == item.task]
        return strict_accuracies(tasks, self.scorer.verdicts(self.monitor))

    @functools.cached_property
    def monitored_base(self) -> Mapping[str, float]:
        """The same of the untouched model, asked once: every training begins there."""
        return self.monitored()


def load_bench(config: ExperimentConfig) -> Bench:
    """Return the bench of a configuration's model; the last one is kept, so trials start warm.

    Raises:
        UserError: The model cannot be had, or there are too few words.
    """
    model = config.tokenizer_config
    precision = resolved_precision(config.training_config.precision)
    return validation_bench(model.model_name, precision, config.evaluation_config, model.subset)


def validation_bench(
    model_name: str, precision: str, sizes: EvaluationConfig, subset: SubsetRule | None = None
) -> Bench:
    """Return the bench that asks about words of the validation split; the last one is kept.

    Raises:
        UserError: The model cannot be had, or there are too few words.
    """
    return last_bench(model_name, precision, sizes, subset)


def _validation_bench(
    model_name: str, precision: str, sizes: EvaluationConfig, subset: SubsetRule | None
) -> Bench:
    held_out = split_subjects(subject_words(model_name, subset))[Split.VALIDATION]
    return new_bench(model_name, precision, sizes, held_out, subset)


last_bench = Last(_validation_bench)


def new_bench(
    model_name: str,
    precision: str,
    sizes: EvaluationConfig,
    asked: SubjectWords,
    subset: SubsetRule | None = None,
) -> Bench:
    """Return a bench whose suites ask about some of the words `asked`.

    Raises:
        UserError: The model cannot be had, or there are too few words.
    """
    cut = load_base(model_name, precision, subset).tokenizer.cut
    suite = build_suite(asked, sizes.num_words, cut)
    monitor = build_suite(asked, sizes.num_monitor_words, cut)
    return bench_on(model_name, precision, sizes, suite, monitor, subset)


def bench_on(
    model_name: str,
    precision: str,
    sizes: EvaluationConfig,
    suite: Suite,
    monitor: Suite,
    subset: SubsetRule | None = None,
) -> Bench:
    """Return a bench over given suites.

    Raises:
        UserError: The model cannot be had, or it or its subset lacks tokens for an item.
    """
    base = load_base(model_name, precision, subset)
    if subset is not None:
        # Every item, before anything is trained or asked.
        base.tokenizer.encode_items(suite.items)
    words = split_subjects(subject_words(model_name, subset))
    guesser = fit_letter_guesser(words[Split.TRAIN].real)
    return Bench(
        base=base,
        words=words,
        suite=suite,
        monitor=monitor,
        scorer=OnePassScorer.for_base(base, suite.items),
        guesser=guesser,
        baseline_of=baseline_from(guesser),
        sizes=sizes,
    )
