"""What the words of a report mean, and how its numbers were made: said once, for every format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.influence import Influence
from tuning.analysis.relations import ItemRelation, RunCorrelation
from tuning.mixed_effects import Basis
from tuning.scoring import SYNERGY_WEIGHT
from tuning.tasks.items import Task

if TYPE_CHECKING:
    from tuning.transfer_analysis import StudyAnalysis


class Term(NamedTuple):
    """A word with its meaning."""

    name: str
    meaning: str


TERMS = (
    Term(
        "Untouched model",
        "The model before any training. Every gain is against it, on the same items.",
    ),
    Term(
        "Spelling, position, count",
        "Spelling: write a word's letters in order; this is what is trained. Position: which "
        "letter stands at a place, from 1. Count: how often a letter occurs. The last two are "
        "never trained, except in the direct arm.",
    ),
    Term("Item", "One question: one word under one wording (template)."),
    Term(
        "Strict, choice, lenient",
        "Three readings of an answer. Strict: the whole output equals the right answer in the "
        "format asked for; it alone feeds the objective. Choice: the likeliest of the 26 letters "
        "or 10 digits, whatever the model would have written. Lenient: what freely written text "
        "means, on the part of the items that was decoded; text in which nothing can be "
        "read is wrong.",
    ),
    Term(
        "Gain",
        "Accuracy after training minus accuracy before, on the same items, in points: 5 points is "
        "from 40 % to 45 %.",
    ),
    Term(
        "95 % interval",
        "The range in brackets. Intervals made in this way hold the true value in 95 of 100 "
        "studies. A gain whose interval includes 0 is not told from no change.",
    ),
    Term(
        "Transfer",
        "Said of position or count only where the strict and the choice gain both have intervals "
        "above 0, the tuned model beats guessing without the word, and, if a format control was "
        "trained, gains more than it.",
    ),
    Term(
        "In format only",
        "The strict gain is above 0 and the choice gain is not: the model writes its answers in "
        "the form asked for more often, and need not know more.",
    ),
    Term(
        "Word-blind baseline",
        "Accuracy of the best guesser that never looks at the word, on these very items.",
    ),
    Term(
        "Objective",
        "What configurations are ranked by. transfer_learning_score is a level, not a transfer: "
        "position weight times position accuracy, plus count weight times count accuracy, plus "
        f"{SYNERGY_WEIGHT:g} times the smaller of spelling accuracy and the mean of the other two. "
        "An untouched good model has a high one.",
    ),
    Term(
        "Normalized gain",
        "gain / (1 \N{MINUS SIGN} accuracy before): the share of what was left to learn. "
        "Undefined from 95 % accuracy before.",
    ),
    Term(
        "TE, transfer efficiency",
        "Normalized gain of position or count, over that of spelling: what a step in spelling is "
        "worth elsewhere. Undefined where the spelling gain is not distinguishable from 0.",
    ),
    Term(
        "PGR, performance gap recovered",
        "The gain over that of the direct arm, which trained on the task itself: 1 would be all "
        "that direct training brings. Undefined where the direct arm's gain includes 0.",
    ),
    Term(
        "k, chance-corrected accuracy",
        "(accuracy \N{MINUS SIGN} baseline) / (1 \N{MINUS SIGN} baseline): 0 is word-blind "
        "guessing, 1 is all right.",
    ),
    Term(
        "Tie",
        "A configuration that cannot be told from the first of the ranking: their difference has "
        "p \N{GREATER-THAN OR EQUAL TO} .05 with all of them compared at once.",
    ),
    Term(
        "p, q",
        "p: how often chance alone would make a difference as large. Holm: p adjusted so that the "
        "chance of any false alarm in the family stays 5 %. q: p adjusted (Benjamini and Hochberg) "
        "so that of those below .05 at most 5 % are expected to be false.",
    ),
    Term(
        "Seed",
        "The number that starts a training's random choices. Runs that differ in it alone show how "
        "much luck there is.",
    ),
    Term(
        "KL divergence",
        "How far the tuned model's guesses for the next token have moved from the untouched "
        "model's, in nats; 0 is not at all. Loss is in nats a token too.",
    ),
)


def method_sentences(analysis: StudyAnalysis) -> list[str]:
    """Return how the numbers of a study were made: intervals, tests, and what they can find."""
    sentences = [
        "Accuracies of one model have intervals by a bootstrap over words: wordings of one "
        "question are one observation.",
        _interval_sentence(analysis),
        "Differences between configurations are taken on the same words; their p values are "
        "two-sided t tests of the same model.",
    ]
    subject = subject_of(analysis)
    if subject is not None:
        sentences.append(_power_sentence(subject))
    return sentences


class Family(NamedTuple):
    """Tests whose number is corrected for together, or is not."""

    name: str
    num_tests: int
    correction: str


_HOLM, _HOCHBERG = "Holm", "Benjamini and Hochberg (q)"
_NONE = "none, exploratory: each interval stands alone"
_EACH = "none, exploratory: of 20 such tests one is below .05 by chance"
_CORRECTIONS = {
    "default against untouched, position and count": f"{_HOLM}; named in advance",
    "configurations against the default": _HOLM,
    "configurations against the best": _HOLM,
    "gains in position and count, all configurations": _HOCHBERG,
}


def families(analysis: StudyAnalysis) -> list[Family]:
    """Return every family of tests with its size; those of no test are left out."""
    found = [
        *(
            Family(name, number, _CORRECTIONS.get(name, "see the verdict"))
            for name, number in analysis.num_tests.items()
        ),
        Family("effects of single settings", len(analysis.effects), _HOCHBERG),
        Family("vocabularies against the whole one", _num_vocabulary_tests(analysis), _HOLM),
        Family("influences of settings", _num_known(analysis.influences), _EACH),
        Family("correlations across runs", _num_known(analysis.correlations), _NONE),
        Family("relations across words", _num_known(analysis.item_relations), _NONE),
        Family("strata, strict and choice", _num_strata_tests(analysis), _NONE),
    ]
    return [family for family in found if family.num_tests]


def _num_known(rows: Sequence[RunCorrelation | ItemRelation | Influence]) -> int:
    return sum(row.reason is None for row in rows)


def _num_strata_tests(analysis: StudyAnalysis) -> int:
    return sum(1 + (row.choice_gain is not None) for row in analysis.strata)


def _num_vocabulary_tests(analysis: StudyAnalysis) -> int:
    return sum(
        task.over_whole is not None for row in analysis.vocabularies for task in row.tasks.values()
    )


def _interval_sentence(analysis: StudyAnalysis) -> str:
    bases = {g.gain.basis for row in analysis.configurations for g in row.gains.values()}
    said = {
        Basis.SEEDS: "over seeds and words where a configuration has several seeds",
        Basis.BORROWED: "over words and the spread of the repeated runs where it has one",
        Basis.WORDS: "over words alone where nothing was repeated: they speak of that adapter, not "
        "of the configuration",
    }
    parts = "; ".join(text for basis, text in said.items() if basis in bases) or "over words"
    return (
        "Gains and differences have intervals from a mixed model with two samples, the seeds of a "
        f"training and the words it is asked about (Obuchowski and Rockette 1995): {parts}."
    )


def _power_sentence(row: ConfigurationSummary) -> str:
    found = ", ".join(
        f"{task} {100 * gain.detectable:.1f} points ({gain.num_words} words)"
        for task, gain in row.gains.items()
        if task != Task.SPELLING
    )
    return (
        f"Smallest gain found with 80 % power by {row.num_seeds} seed(s) of {row.label}: {found}. "
        "A smaller true gain would often be missed: no measurable change is not no change."
    )


def subject_of(analysis: StudyAnalysis) -> ConfigurationSummary | None:
    """Return the configuration that a study speaks of first: the default, or else the best."""
    return analysis.default or next(iter(analysis.configurations), None)
