"""One configuration looked at closely: by stratum, by position, and what it answers for counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tuning.measures import CHOICE, STRATA, STRICT, BaselineOf
from tuning.mixed_effects import Run, SeedSpread, estimate, mean_of_items
from tuning.tasks.baselines import count_class
from tuning.tasks.items import Task, tasks_in


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """Items of one task that share a value, before and after."""

    label: str
    """The configuration."""
    task: str
    column: str
    """By what items are set apart."""
    value: str
    num_items: int
    num_words: int
    before: float
    after: float
    gain: float
    low: float
    high: float
    choice_gain: float | None
    choice_low: float | None
    choice_high: float | None
    baseline: float | None
    """Word-blind, of these very items; None where no guesser was stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CountConfusion:
    """How often a true count got an answer, by the likeliest digit."""

    label: str
    """The configuration, or untouched."""
    true: str
    """0, 1, 2 or 3+."""
    answer: str
    """A digit; of 4 and more, 4+."""
    share: float
    """Of the items with this true count."""
    num_items: int
    """With this true count, one seed."""


MIN_WORDS = 10
"""A stratum of fewer words is not shown: its interval would say nothing."""


def strata_of(
    label: str,
    before: pd.DataFrame,
    after: Sequence[pd.DataFrame],
    baseline_of: BaselineOf | None,
    spread: Mapping[str, SeedSpread | None],
) -> list[Stratum]:
    """Compare a configuration with the untouched model, stratum by stratum.

    Args:
        label: The configuration.
        before: Answers of the untouched model.
        after: Answers of each seed to the same items, in the same order.
        baseline_of: Word-blind accuracy of rows of one task.
        spread: Between seeds, by task and reading, for a configuration with one seed.
    """
    words_N, names = pd.factorize(before["word"])
    answered = {r: [_numbers(frame, r) for frame in (before, *after)] for r in (STRICT, CHOICE)}
    # Rows are picked again and again, which Arrow's texts make slow.
    before = before.astype(object)
    found = []
    for task in tasks_in(set(before["task"])):
        of_task = before[before["task"] == task.value]
        for column in (c for c in (*STRATA, "letter") if c in after[0]):
            if column == "letter" and task is not Task.COUNT:
                continue
            values = after[0].loc[of_task.index, column]
            for value, rows in values.groupby(values, observed=True):
                places = rows.index.to_numpy()
                num_words = len(np.unique(words_N[places]))
                if num_words < MIN_WORDS or len(places) == len(of_task) or value == "":
                    continue
                asked = before.loc[places]
                gains = _gains(answered, places, words_N, len(names))
                baseline = None if baseline_of is None else baseline_of(asked)
                where = (label, task.value, column, str(value))
                found.append(_stratum(where, gains, asked, spread, baseline))
    return found


def _gains(
    answered: Mapping[str, Sequence[np.ndarray]],
    places: np.ndarray,
    words_N: np.ndarray,
    num_words: int,
) -> dict[str, list[Run]]:
    """Return the gains of each seed on some items, in each reading that they have."""
    found = {}
    for reading, answers in answered.items():
        base_N, *tuned = (values[places] for values in answers)
        if not any(np.isnan(values).any() for values in (base_N, *tuned)):
            found[reading] = [
                mean_of_items(values - base_N, words_N[places], num_words) for values in tuned
            ]
    return found


def _numbers(frame: pd.DataFrame, reading: str) -> np.ndarray:
    return frame[reading].to_numpy(dtype=float, na_value=np.nan)


def _stratum(
    where: tuple[str, str, str, str],
    gains: dict[str, list[Run]],
    rows: pd.DataFrame,
    spread: Mapping[str, SeedSpread | None],
    baseline: float | None,
) -> Stratum:
    label, task, column, value = where
    strict = estimate(gains[STRICT], spread.get(f"{task}/{STRICT}"))
    choice = None
    if CHOICE in gains:
        choice = estimate(gains[CHOICE], spread.get(f"{task}/{CHOICE}"))
    before = float(_numbers(rows, STRICT).mean())
    return Stratum(
        label=label,
        task=task,
        column=column,
        value=value,
        num_items=len(rows),
        num_words=int(rows["word"].nunique()),
        before=before,
        after=before + strict.value,
        gain=strict.value,
        low=strict.low,
        high=strict.high,
        choice_gain=choice.value if choice else None,
        choice_low=choice.low if choice else None,
        choice_high=choice.high if choice else None,
        baseline=baseline,
    )


def confusion_of(label: str, frames: Sequence[pd.DataFrame]) -> list[CountConfusion]:
    """Return what is answered for each true count, mean over seeds.

    Args:
        label: The configuration, or untouched.
        frames: Answers of each seed.
    """
    counts = pd.concat(
        [frame[frame["task"] == Task.COUNT.value] for frame in frames], ignore_index=True
    )
    counts = counts[counts["choice"].notna()]
    if counts.empty:
        return []
    true = counts["gold"].map(count_class)
    answer = counts["choice"].astype(str).map(lambda digit: digit if digit in "0123" else "4+")
    table = pd.crosstab(true, answer)
    return [
        CountConfusion(
            label=label,
            true=str(name),
            answer=str(digit),
            share=float(number / row.sum()),
            num_items=int(row.sum() // len(frames)),
        )
        for name, row in table.iterrows()
        for digit, number in row.items()
    ]
