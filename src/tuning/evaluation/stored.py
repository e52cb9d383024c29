"""Stored answers: a model is asked a suite once, and what it said is kept beside its weights.

Owns the folders of evaluations: `predictions.parquet`, a row an item, and `scores.json` beside it.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError

from tuning import files, measures
from tuning.errors import ResultsError
from tuning.evaluation.bench import Bench
from tuning.evaluation.generation import greedy_texts
from tuning.evaluation.one_pass import OnProgress
from tuning.evaluation.retention import retention
from tuning.measures import Drift
from tuning.model.lora import stored_adapter
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.tasks.baselines import guesser_to_json
from tuning.tasks.lenient import Outcome, read_leniently
from tuning.tasks.prompts import Prompting, prompted
from tuning.tasks.splits import Split
from tuning.tasks.suite import Suite

SCORES = "scores.json"
EXTRA_TOKENS = 16
"""Free answers may be so much longer than the right one before they are cut."""

_DRIFTS = TypeAdapter(dict[str, Drift])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Answers of one model to one suite."""

    key: str
    predictions: pd.DataFrame
    num_decoded: int
    """Items that were decoded freely."""
    num_disagreements: int
    """Of these, items whose decoded text gives another strict verdict than one pass."""
    retention: Mapping[str, Drift] = field(default_factory=dict)
    """Of a tuned model: how far it has moved from the untouched one."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to ask, and of which weights."""

    suite: Suite
    folder: TrainingFolder
    """Where the answers go."""
    weights: str
    """Names the weights: part of the evaluation's key."""
    trained_words: frozenset[str] | None = None
    """Words of the training text; None for a model that was not trained here."""

    def key(self, bench: Bench) -> str:
        """Return the fingerprint of weights, items, precision and sizes, 16 hex digits."""
        decoded = bench.sizes.num_generated_items
        identity = [self.weights, self.suite.key, bench.base.precision, decoded]
        subset = bench.base.tokenizer.subset
        if subset is not None:
            # The same adapter may be asked on the whole vocabulary and on a part.
            identity.append(subset.hash)
        if self.trained_words is not None:
            identity.append(files.sha256_of_json(sorted(self.trained_words)))
        return files.sha256_of_json(identity)[:16]


def evaluate_base(
    bench: Bench,
    root: ResultsRoot,
    prompting: Prompting = Prompting.ZERO_SHOT,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Return the untouched model's answers, from disk when they are there.

    Args:
        bench: The model.
        root: Where answers are kept.
        prompting: How items are put to it.
        on_progress: Told of items done, and of all.
    """
    suite = prompted(bench.suite, prompting, bench.words[Split.TRAIN].real)
    asked = Asked(suite=suite, folder=root.training(bench.base.key), weights=f"{bench.base.key}@0")
    stored = _stored(bench, asked)
    if stored:
        return stored
    # Trials that begin at once need the same answers: one asks, the others wait.
    waiting = functools.partial(on_progress, 0, 1)
    with files.exclusive_lock(asked.folder.lock, f"untouched {bench.base.name}", waiting):
        return _stored(bench, asked) or _evaluate(bench, asked, on_progress)


def evaluate_adapter(
    bench: Bench,
    adapter: Path,
    folder: TrainingFolder,
    step: int,
    trained_words: frozenset[str] | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluation:
    """Return the answers with an adapter, from disk when they are there.

    Args:
        bench: The model it was made for.
        adapter: Its folder.
        folder: The training that answers are kept with.
        step: Optimizer steps of the adapter.
        trained_words: Words of the training text, for the strata of what was seen.
        on_progress: Told of items done, and of all.

    Raises:
        ModelError: The adapter is damaged, or made for another model.
    """
    asked = Asked(
        suite=bench.suite,
        folder=folder,
        weights=f"{folder.root.name}@{step}",
        trained_words=trained_words,
    )
    stored = _stored(bench, asked)
    if stored:
        return stored
    with stored_adapter(bench.base, adapter) as adapted:
        return _evaluate(
            bench,
            asked,
            on_progress,
            lambda: retention(
                bench.base, adapted, bench.words[Split.VALIDATION].real, bench.untouched
            ),
        )


def _stored(bench: Bench, asked: Asked) -> Evaluation | None:
    key = asked.key(bench)
    place = asked.folder.evaluation(key)
    if not (place / SCORES).is_file():
        return None
    try:
        scores = files.read_json(place / SCORES)
        return Evaluation(
            key=key,
            predictions=pd.read_parquet(place / measures.PREDICTIONS),
            num_decoded=scores["num_decoded"],
            num_disagreements=scores["num_disagreements"],
            retention=_DRIFTS.validate_python(scores["retention"]),
        )
    except (OSError, ValueError, KeyError, TypeError, ResultsError, ValidationError):
        # Damaged answers are asked again: they are a function of weights that are still there.
        return None


def _evaluate(
    bench: Bench,
    asked: Asked,
    on_progress: OnProgress,
    drift: Callable[[], Mapping[str, Drift]] = dict,
) -> Evaluation:
    clock = time.monotonic()
    predictions = score(bench, asked.suite, on_progress)
    if asked.trained_words is not None:
        predictions["seen_tokens"] = seen_tokens(bench, asked.suite, asked.trained_words)
    decoded = predictions[measures.LENIENT].notna()
    num_disagreements = sum(
        (text in (item.answer, *item.targets)) != bool(strict)
        for item, text, strict, is_decoded in zip(
            asked.suite.items,
            predictions["text"],
            predictions[measures.STRICT],
            decoded,
            strict=True,
        )
        if is_decoded
    )
    evaluation = Evaluation(
        key=asked.key(bench),
        predictions=predictions,
        num_decoded=int(decoded.sum()),
        num_disagreements=num_disagreements,
        retention=dict(drift()),
    )
    _store(bench, asked, evaluation, time.monotonic() - clock)
    stored = _stored(bench, asked)
    assert stored is not None
    return stored


def score(
    bench: Bench, suite: Suite, on_progress: OnProgress = lambda done, total: None
) -> pd.DataFrame:
    """Return predictions in the strict and choice readings, and on a part in the lenient one.

    Columns beside those of one pass, missing where an item was not decoded freely: text,
    extracted, outcome, lenient_correct, character_error_rate, length_error.
    """
    predictions = bench.scorer.score(suite, on_progress)
    chosen = suite.spread(bench.sizes.num_generated_items)
    items = [suite.items[i] for i in chosen]
    encoded = bench.base.tokenizer.encode_items(items)
    texts = greedy_texts(bench.base.network, bench.base.tokenizer, encoded, EXTRA_TOKENS)
    readings = [read_leniently(item, text) for item, text in zip(items, texts, strict=True)]
    free = pd.DataFrame(
        {
            "text": pd.array([r.text for r in readings], dtype="string"),
            "extracted": pd.array([r.extracted for r in readings], dtype="string"),
            "outcome": pd.array([r.outcome.value for r in readings], dtype="string"),
            measures.LENIENT: pd.array(
                [r.outcome is Outcome.CORRECT for r in readings], dtype="boolean"
            ),
            "character_error_rate": pd.array(
                [r.character_error_rate for r in readings], dtype="Float64"
            ),
            "length_error": pd.array([r.length_error for r in readings], dtype="Int64"),
        },
        index=pd.Index(chosen, dtype="int64"),
    )
    return predictions.join(free)


def seen_tokens(bench: Bench, suite: Suite, trained_words: Iterable[str]) -> list[str]:
    """Return for each item whether all, some or none of its word's tokens were in trained words."""
    tokenizer = bench.base.tokenizer
    trained = {token for ids in tokenizer.word_ids(sorted(trained_words)) for token in ids}
    shares = [
        np.mean([token in trained for token in ids])
        for ids in tokenizer.word_ids([item.word for item in suite.items])
    ]
    return ["all" if s == 1 else "none" if s == 0 else "some" for s in shares]


def _store(bench: Bench, asked: Asked, evaluation: Evaluation, seconds: float) -> None:
    """Write predictions and their scores; the scores come last and say that both are whole."""
    place = asked.folder.evaluation(evaluation.key)
    predictions = evaluation.predictions
    files.write_atomic(place / measures.PREDICTIONS, predictions.to_parquet(index=False))
    by_task = predictions.groupby("task")
    scores: dict[str, Any] = {
        "model": bench.base.says,
        "weights": asked.weights,
        "suite": asked.suite.key,
        "mix": asked.suite.mix(),
        "dropped_count_cells": asked.suite.num_dropped_count_cells,
        "margin": bench.scorer.margin,
        "decoded_for_real": int(predictions["decoded_for_real"].sum()),
        "num_decoded": evaluation.num_decoded,
        "num_disagreements": evaluation.num_disagreements,
        "letter_guesser": guesser_to_json(bench.guesser),
        "baselines": {task: bench.baseline_of(rows) for task, rows in by_task},
        "accuracy": {task: float(rows[measures.STRICT].mean()) for task, rows in by_task},
        "retention": {name: dataclasses.asdict(d) for name, d in evaluation.retention.items()},
        "seconds": seconds,
    }
    files.write_json(place / SCORES, scores)
