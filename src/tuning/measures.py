"""From stored predictions to accuracies and paired gains. Needs no model.

`*/accuracy` is the plain mean over all items of a task: every item under every template, all bands
and strata together, in the suite's fixed mix. Its interval resamples words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuning import statistics
from tuning.errors import ResultsError
from tuning.scoring import METRIC_PREFIX, TRANSFER_SCORE, Weights, calculate_transfer_score
from tuning.tasks import baselines
from tuning.tasks.baselines import LetterGuesser
from tuning.tasks.items import SCORED_TASKS, Item, Task, tasks_in
from tuning.tasks.lenient import Outcome

PREDICTIONS = "predictions.parquet"
"""Name of the file of a model's answers, in the folder of an evaluation."""

STRICT, CHOICE, LENIENT = "strict_correct", "choice_correct", "lenient_correct"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """A rate with what it rests on."""

    value: float
    """Rate in [0, 1]."""
    low: float
    high: float
    """95 % interval, clustered by word."""
    num_items: int
    num_words: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A tuned model against the untouched one on the same items."""

    value: float
    """After minus before, as a rate; 0.05 is 5 points."""
    low: float
    high: float
    """95 % interval, clustered by word. One run: of this adapter, not of this configuration."""
    num_better: int
    num_worse: int
    p_value: float
    """McNemar's test over items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far a training moved a model on text that it was not trained on."""

    base_loss: float | None = None
    """Mean loss of a token under the untouched model, in nats."""
    tuned_loss: float | None = None
    kl_divergence: float | None = None
    """Mean KL divergence of the tuned model's next token from the untouched one's, in nats."""
    num_tokens: int = 0
    reason: str | None = None
    """Why there are no numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateSpread:
    """Paraphrases of one question, before and after."""

    worst: str
    """The template with the lowest accuracy after training."""
    worst_accuracy: float
    worst_base: str
    worst_base_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SpellingErrors:
    """How wrong spellings are, on the items that were decoded freely."""

    character_error_rate: float
    """Mean edits to the right letters, over the length of the word."""
    mean_length_error: float
    """Mean of letters too many (positive) or missing, without sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountDetail:
    """Counts beyond accuracy. Classes are the balanced ones: 0, 1, 2, 3+."""

    recall: Mapping[str, float]
    """Strict accuracy of the items of each class."""
    balanced_accuracy: float
    """Mean recall over classes."""
    mean_absolute_error: float | None
    """Of the likeliest digit; None where no right answer is a number."""
    answers: Mapping[str, int]
    """How often each digit was the likeliest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """One task before and after."""

    baseline: float
    """Accuracy of the best guesser that never looks at the word, on these items."""
    base: Accuracy
    tuned: Accuracy
    gain: Gain
    choice_base: Accuracy | None = None
    choice_tuned: Accuracy | None = None
    choice_gain: Gain | None = None
    """The likelihood reading; a gain that is only in the strict one is a gain in format."""
    lenient_base: Accuracy | None = None
    lenient_tuned: Accuracy | None = None
    lenient_gain: Gain | None = None
    """What the freely decoded answers mean, on the part of the items that was decoded."""
    unparseable_base: int = 0
    unparseable_tuned: int = 0
    """Decoded answers in which nothing could be read; counted as wrong."""
    templates: TemplateSpread | None = None
    spelling_errors_base: SpellingErrors | None = None
    spelling_errors_tuned: SpellingErrors | None = None
    count_base: CountDetail | None = None
    count_tuned: CountDetail | None = None


def accuracy(predictions: pd.DataFrame, column: str = STRICT) -> Accuracy:
    """Return the accuracy over rows of predictions.

    Args:
        predictions: Rows of one task or stratum.
        column: The reading.

    Raises:
        ValueError: There are no rows.
    """
    values = predictions[column].to_numpy(dtype=float)
    words = predictions["word"].to_numpy()
    low, high = statistics.clustered_interval(values, words)
    return Accuracy(
        value=float(values.mean()),
        low=low,
        high=high,
        num_items=len(values),
        num_words=int(predictions["word"].nunique()),
    )


def accuracies(predictions: pd.DataFrame, column: str = STRICT) -> dict[str, Accuracy]:
    """Return the accuracy of each task."""
    return {str(task): accuracy(rows, column) for task, rows in predictions.groupby("task")}


def gain(before: pd.DataFrame, after: pd.DataFrame, column: str = STRICT) -> Gain:
    """Compare two sets of predictions, item by item.

    Raises:
        ResultsError: They are not over the same items.
    """
    key = ["task", "template", "prompt"]
    if not before[key].reset_index(drop=True).equals(after[key].reset_index(drop=True)):
        raise ResultsError(
            "a paired gain needs both models' answers to the same items, in one order"
        )
    paired = statistics.paired_gain(
        before[column].to_numpy(dtype=float),
        after[column].to_numpy(dtype=float),
        after["word"].to_numpy(),
    )
    return Gain(
        value=paired.gain,
        low=paired.interval.low,
        high=paired.interval.high,
        num_better=paired.num_better,
        num_worse=paired.num_worse,
        p_value=paired.p_value,
    )


BaselineOf = Callable[[pd.DataFrame], float]
"""Word-blind accuracy on rows of predictions of one task."""


def baseline_from(guesser: LetterGuesser) -> BaselineOf:
    """Return the function that scores word-blind guessing on the very rows it is given."""

    def baseline_of(rows: pd.DataFrame) -> float:
        return baselines.baseline(items_of(rows), guesser)

    return baseline_of


def items_of(predictions: pd.DataFrame) -> list[Item]:
    """Return the items that rows of predictions answer."""
    columns = ["task", "word", "template", "prompt", "gold", "n", "letter", "stratum"]
    return [
        Item(
            task=task,
            word=word,
            template=template,
            question=prompt,
            answer=gold,
            n=None if pd.isna(n) else int(n),
            letter=None if pd.isna(letter) else str(letter),
            stratum=stratum,
        )
        for task, word, template, prompt, gold, n, letter, stratum in predictions[
            columns
        ].itertuples(index=False)
    ]


def task_results(
    base: pd.DataFrame, tuned: pd.DataFrame, baseline_of: BaselineOf
) -> dict[str, TaskResult]:
    """Compare a tuned model with the untouched one on every task.

    Args:
        base: Predictions of the untouched model.
        tuned: Predictions of the tuned model on the same items.
        baseline_of: Word-blind accuracy on rows of one task.

    Raises:
        ResultsError: The two are not over the same items.
    """
    return {
        str(task): task_result(
            base[base["task"] == task], tuned[tuned["task"] == task], baseline_of
        )
        for task in tuned["task"].unique()
    }


def task_result(before: pd.DataFrame, after: pd.DataFrame, baseline_of: BaselineOf) -> TaskResult:
    """Compare two models on rows of one task.

    Raises:
        ResultsError: The two are not over the same items.
    """
    has_choice = bool(after[CHOICE].notna().all())
    decoded = _decoded(before) & _decoded(after)
    free_before, free_after = before[decoded], after[decoded]
    has_free = free_after["word"].nunique() >= 2
    task = str(after["task"].iloc[0])
    return TaskResult(
        baseline=baseline_of(after),
        base=accuracy(before),
        tuned=accuracy(after),
        gain=gain(before, after),
        choice_base=accuracy(before, CHOICE) if has_choice else None,
        choice_tuned=accuracy(after, CHOICE) if has_choice else None,
        choice_gain=gain(before, after, CHOICE) if has_choice else None,
        lenient_base=accuracy(free_before, LENIENT) if has_free else None,
        lenient_tuned=accuracy(free_after, LENIENT) if has_free else None,
        lenient_gain=gain(free_before, free_after, LENIENT) if has_free else None,
        unparseable_base=_num_unparseable(free_before),
        unparseable_tuned=_num_unparseable(free_after),
        templates=_template_spread(before, after),
        spelling_errors_base=_spelling_errors(free_before) if task == Task.SPELLING else None,
        spelling_errors_tuned=_spelling_errors(free_after) if task == Task.SPELLING else None,
        count_base=_count_detail(before) if task == Task.COUNT and has_choice else None,
        count_tuned=_count_detail(after) if task == Task.COUNT and has_choice else None,
    )


def _decoded(predictions: pd.DataFrame) -> np.ndarray:
    """Return which rows were decoded freely, by place: the two tables may be indexed otherwise."""
    if LENIENT not in predictions:
        return np.zeros(len(predictions), dtype=bool)
    decoded: np.ndarray = predictions[LENIENT].notna().to_numpy()
    return decoded


def _num_unparseable(decoded: pd.DataFrame) -> int:
    if LENIENT not in decoded:
        return 0
    return int((decoded["outcome"] == Outcome.UNPARSEABLE.value).sum())


def _template_spread(before: pd.DataFrame, after: pd.DataFrame) -> TemplateSpread:
    rates = [frame.groupby("template")[STRICT].mean() for frame in (before, after)]
    return TemplateSpread(
        worst=str(rates[1].idxmin()),
        worst_accuracy=float(rates[1].min()),
        worst_base=str(rates[0].idxmin()),
        worst_base_accuracy=float(rates[0].min()),
    )


def _spelling_errors(decoded: pd.DataFrame) -> SpellingErrors | None:
    if decoded.empty:
        return None
    return SpellingErrors(
        character_error_rate=float(decoded["character_error_rate"].mean()),
        mean_length_error=float(decoded["length_error"].abs().mean()),
    )


def _count_detail(predictions: pd.DataFrame) -> CountDetail:
    classes = predictions["gold"].map(baselines.count_class)
    recall = predictions[STRICT].groupby(classes).mean()
    # A question of a user's own may have an answer in words: it has no distance.
    gold = pd.to_numeric(predictions["gold"], errors="coerce")
    errors = (predictions["choice"].astype(float) - gold).abs()
    counts = predictions["choice"].value_counts()
    return CountDetail(
        recall={str(name): float(rate) for name, rate in recall.items()},
        balanced_accuracy=float(recall.mean()),
        mean_absolute_error=float(errors.mean()) if errors.notna().any() else None,
        answers={str(digit): int(n) for digit, n in sorted(counts.items())},
    )


# --- strata -------------------------------------------------------------------------------------

STRATA: Mapping[str, str] = {
    "band": "difficulty",
    "stratum": "place, or length of word",
    "template": "template",
    "num_tokens": "tokens of the word",
    "letter_token_length": "letters of the token that holds the letter",
    "n": "position",
    "is_pseudo_word": "made-up word",
    "seen_tokens": "tokens of the word seen in training",
}
"""Columns of predictions by which results are shown apart, and what they say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StratumResult:
    """Rows of one task that share a value."""

    task: str
    column: str
    value: str
    result: TaskResult


def strata_results(
    base: pd.DataFrame, tuned: pd.DataFrame, baseline_of: BaselineOf
) -> list[StratumResult]:
    """Compare two models stratum by stratum, each against its own baseline.

    A stratum of fewer than 2 words has no interval and is left out.

    Raises:
        ResultsError: The two are not over the same items.
    """
    found = []
    for task in tuned["task"].unique():
        before, after = (
            frame[frame["task"] == task].reset_index(drop=True) for frame in (base, tuned)
        )
        for column in (c for c in STRATA if c in after):
            for value, rows in after.groupby(column, dropna=True, observed=True):
                is_whole = len(rows) == len(after)
                if rows["word"].nunique() < 2 or is_whole or value == "":
                    continue
                result = task_result(before.loc[rows.index], rows, baseline_of)
                found.append(
                    StratumResult(task=str(task), column=column, value=str(value), result=result)
                )
    return found


def flat_metrics(results: Mapping[str, TaskResult], weights: Weights) -> dict[str, float]:
    """Return the metrics of a trial by their public names."""
    metrics: dict[str, float] = {}
    for task in tasks_in(results):
        prefix, result = METRIC_PREFIX[task], results[task.value]
        metrics[f"{prefix}/accuracy"] = result.tuned.value
        metrics[f"{prefix}/gain"] = result.gain.value
        metrics[f"{prefix}/base_accuracy"] = result.base.value
        if result.choice_tuned is not None and result.choice_gain is not None:
            metrics[f"{prefix}/choice_accuracy"] = result.choice_tuned.value
            metrics[f"{prefix}/choice_gain"] = result.choice_gain.value
        if result.lenient_tuned is not None and result.lenient_gain is not None:
            metrics[f"{prefix}/lenient_accuracy"] = result.lenient_tuned.value
            metrics[f"{prefix}/lenient_gain"] = result.lenient_gain.value
    metrics[TRANSFER_SCORE] = score_of(metrics, weights)
    return metrics


def score_of(metrics: Mapping[str, float], weights: Weights) -> float:
    """Return the transfer score of accuracies given by their public names."""
    spelling, position, count = (metrics[f"{METRIC_PREFIX[t]}/accuracy"] for t in SCORED_TASKS)
    return calculate_transfer_score(spelling, position, count, *weights)


def strict_accuracies(tasks: Sequence[Task], correct: Sequence[bool]) -> dict[str, float]:
    """Return the plain mean of each task's strict readings, by public name."""
    metrics = {}
    for task in tasks_in(set(tasks)):
        hits = [c for t, c in zip(tasks, correct, strict=True) if t is task]
        metrics[f"{METRIC_PREFIX[task]}/accuracy"] = sum(hits) / len(hits)
    return metrics


def honest_accuracies(predictions: pd.DataFrame, baseline_of: BaselineOf) -> dict[str, float]:
    """Return each task's accuracy by public name, with what it must be read with.

    Beside ``{task}/accuracy`` stand ``accuracy_low`` and ``accuracy_high`` (95 %, clustered by
    word), ``num_items``, and ``baseline``: the accuracy of the best guesser that never looks at the
    word.

    Args:
        predictions: A row an item.
        baseline_of: That guesser.
    """
    metrics: dict[str, float] = {}
    for task, rows in predictions.groupby("task"):
        prefix, found = METRIC_PREFIX[Task(str(task))], accuracy(rows)
        metrics |= {
            f"{prefix}/accuracy": found.value,
            f"{prefix}/accuracy_low": found.low,
            f"{prefix}/accuracy_high": found.high,
            f"{prefix}/num_items": float(found.num_items),
            f"{prefix}/baseline": baseline_of(rows),
        }
    return metrics
