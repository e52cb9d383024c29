"""Do gains go together? Correlations across runs, and within one model across items."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tuning.analysis.configurations import Standing
from tuning.measures import STRICT
from tuning.statistics import Correlation, Z, critical_correlation, pearson, spearman
from tuning.study import contenders, is_control
from tuning.tasks.items import TRANSFER_TASKS, Task

MIN_RUNS = 5
"""Fewer runs have no correlation: 4 points lie near a line too easily."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCorrelation:
    """Gain in spelling against gain in a transfer task, over runs."""

    task: str
    method: str
    """spearman or pearson."""
    num_runs: int
    """Trainings: of several budgets of one training the longest counts."""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    critical: float | None = None
    """|r| that so many runs need for p < .05."""
    without_one: float | None = None
    """The correlation without the one run that matters most for it; None if nothing varies then."""
    that_one: str | None = None
    """The configuration of that run."""
    reason: str | None = None
    """Why there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlottedRun:
    """One run as a point: what `RunCorrelation` is taken over."""

    trial_id: str
    label: str
    spelling: float
    position: float
    count: float


def plotted_runs(standing: Standing) -> list[PlottedRun]:
    """Return one point for each training of the study's own arm."""
    longest: dict[str, tuple[int, str, str]] = {}
    for contender in contenders(standing.spec, list(standing.records.values())):
        if is_control(standing.spec, contender):
            continue
        for trial_id in contender.trial_ids:
            result = standing.records[trial_id].result
            entry = (result.step, trial_id, contender.label)
            known = longest.get(result.training_key)
            # Checkpoints of one run are one observation.
            if known is None or entry[0] > known[0]:
                longest[result.training_key] = entry
    points = []
    for _, trial_id, label in sorted(longest.values(), key=lambda entry: entry[1]):
        gains = standing.answers.trials[trial_id].gains
        spelling, position, count = (
            gains[task, STRICT].value for task in (Task.SPELLING, *TRANSFER_TASKS)
        )
        points.append(
            PlottedRun(
                trial_id=trial_id, label=label, spelling=spelling, position=position, count=count
            )
        )
    return points


def run_correlations(runs: Sequence[PlottedRun]) -> list[RunCorrelation]:
    """Return Spearman's and Pearson's correlation for each transfer task."""
    spelling = [run.spelling for run in runs]
    found = []
    for task in TRANSFER_TASKS:
        gains = [getattr(run, task.value) for run in runs]
        for method, correlate in (("spearman", spearman), ("pearson", pearson)):
            bare = RunCorrelation(task=task.value, method=method, num_runs=len(runs))
            labels = [run.label for run in runs]
            found.append(_correlated(bare, correlate, spelling, gains, labels))
    return found


def _correlated(
    bare: RunCorrelation,
    correlate: Callable[[Sequence[float], Sequence[float]], Correlation],
    spelling: Sequence[float],
    gains: Sequence[float],
    labels: Sequence[str],
) -> RunCorrelation:
    if bare.num_runs < MIN_RUNS:
        reason = f"{bare.num_runs} runs are too few, at least {MIN_RUNS} are needed"
        return dataclasses.replace(bare, reason=reason)
    critical = critical_correlation(bare.num_runs)
    try:
        r = correlate(spelling, gains)
    except ValueError:
        return dataclasses.replace(bare, critical=critical, reason="all runs gained the same")
    that = _most_influential(bare.method, spelling, gains)
    try:
        rest = correlate(_without(spelling, that), _without(gains, that)).value
    except ValueError:
        rest = None
    return dataclasses.replace(
        bare,
        value=r.value,
        low=r.interval.low,
        high=r.interval.high,
        p_value=r.p_value,
        critical=critical,
        without_one=rest,
        that_one=labels[that],
    )


def _without(values: Sequence[float], place: int) -> list[float]:
    return [*values[:place], *values[place + 1 :]]


def _most_influential(method: str, a: Sequence[float], b: Sequence[float]) -> int:
    """Return the place of the pair without which the correlation changes most.

    One whose loss leaves nothing that varies comes first.
    """
    known = [np.asarray(side, dtype=float) for side in (a, b)]
    if method == "spearman":
        known = [rankdata(side) for side in known]
    x, y = (_ranks_without(s) if method == "spearman" else _values_without(s) for s in known)
    squares = (x**2).sum(axis=1) * (y**2).sum(axis=1)
    varies = squares > 1e-24 * squares.max()
    rest = np.full(len(a), np.inf)
    rest[varies] = (x * y).sum(axis=1)[varies] / np.sqrt(squares[varies])
    whole = np.corrcoef(known[0], known[1])[0, 1]
    return int(np.argmax(np.abs(rest - whole)))


# Row i of what these return is without value i, around its mean: shape (N, N).


def _values_without(values: np.ndarray) -> np.ndarray:
    return _centred(np.broadcast_to(values, (len(values), len(values))))


def _ranks_without(values: np.ndarray) -> np.ndarray:
    """Return ranks of the others: those above a lost value move down, its equals by a half."""
    above = values > values[:, None]
    return _centred(rankdata(values) - above - (values == values[:, None]) / 2)


def _centred(rows: np.ndarray) -> np.ndarray:
    others = ~np.eye(len(rows), dtype=bool)
    means = rows.mean(axis=1, where=others, keepdims=True)
    centred: np.ndarray = np.where(others, rows - means, 0.0)
    return centred


# --- across items -----------------------------------------------------------------------------

MIN_WORDS = 10
"""Of each kind: spelled, and not spelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRelation:
    """Accuracy on words that the same model spells, against words that it does not."""

    task: str
    model: str
    """untouched or tuned."""
    label: str
    """The configuration."""
    num_spelled: int
    """Words; a word is spelled if most of its templates are answered right."""
    num_unspelled: int
    accuracy_spelled: float | None = None
    accuracy_unspelled: float | None = None
    difference: float | None = None
    """Within words of the same length and number of tokens (weights of Mantel and Haenszel)."""
    low: float | None = None
    high: float | None = None
    num_strata: int = 0
    """Pairs of length and number of tokens that have words of both kinds."""
    reason: str | None = None


def item_relations(frames: Sequence[pd.DataFrame], model: str, label: str) -> list[ItemRelation]:
    """Return the relation of spelling to each transfer task, over words.

    Args:
        frames: Answers of one configuration, one table a seed; means over seeds are used.
        model: untouched or tuned.
        label: The configuration.
    """
    answers = pd.concat(frames, ignore_index=True)
    answers = answers.assign(correct=answers[STRICT].astype(float))
    means = answers.groupby(["task", "word"])["correct"].mean()
    words = answers.drop_duplicates("word").set_index("word")["num_tokens"]
    if Task.SPELLING.value not in means.index.get_level_values(0):
        return []
    spelled = means[Task.SPELLING.value] > 0.5
    return [
        _item_relation(means[task.value], spelled, words, (task.value, model, label))
        for task in TRANSFER_TASKS
        if task.value in means.index.get_level_values(0)
    ]


def _item_relation(
    accuracy: pd.Series, spelled: pd.Series, num_tokens: pd.Series, known: tuple[str, str, str]
) -> ItemRelation:
    task, model, label = known
    table = pd.DataFrame({"accuracy": accuracy, "spelled": spelled}).dropna()
    table["spelled"] = table["spelled"].astype(bool)
    table["stratum"] = [(len(word), int(num_tokens[word])) for word in table.index]
    kinds = {kind: rows["accuracy"] for kind, rows in table.groupby("spelled")}
    yes, no = (kinds.get(kind, pd.Series(dtype=float)) for kind in (True, False))
    bare = ItemRelation(
        task=task, model=model, label=label, num_spelled=len(yes), num_unspelled=len(no)
    )
    if min(len(yes), len(no)) < MIN_WORDS:
        return _refused(bare, f"needs {MIN_WORDS} words of each kind")
    stratified = _stratified_difference(table)
    if stratified is None:
        return _refused(bare, "no length and number of tokens has words of both kinds")
    value, error, num_strata = stratified
    return dataclasses.replace(
        bare,
        accuracy_spelled=float(yes.mean()),
        accuracy_unspelled=float(no.mean()),
        difference=value,
        low=value - Z * error,
        high=value + Z * error,
        num_strata=num_strata,
    )


def _refused(bare: ItemRelation, reason: str) -> ItemRelation:
    counts = f"{bare.num_spelled} words spelled, {bare.num_unspelled} not"
    return dataclasses.replace(bare, reason=f"{counts}: {reason}")


def _stratified_difference(table: pd.DataFrame) -> tuple[float, float, int] | None:
    """Return difference, standard error and number of strata with both kinds of words.

    Weights are Mantel and Haenszel's, ``n1 * n0 / (n1 + n0)``; the variance within a kind is pooled
    over strata, since most strata are small.
    """
    groups = table.groupby(["stratum", "spelled"])["accuracy"].agg(["mean", "size"]).unstack()
    groups = groups.dropna()
    if groups.empty:
        return None
    yes, no = groups["size"][True].to_numpy(), groups["size"][False].to_numpy()
    weights = yes * no / (yes + no)
    apart = (groups["mean"][True] - groups["mean"][False]).to_numpy()
    centred = table["accuracy"] - table.groupby(["stratum", "spelled"])["accuracy"].transform(
        "mean"
    )
    num_groups = table.groupby(["stratum", "spelled"]).ngroups
    variance = float((centred**2).sum() / max(1, len(table) - num_groups))
    error = np.sqrt((weights**2 * variance * (1 / yes + 1 / no)).sum()) / weights.sum()
    return float((weights * apart).sum() / weights.sum()), float(error), len(groups)
