"""The bench: a frozen base, its words and suites, and stored answers, so nothing is asked twice.

Owns the folders of evaluations: `predictions.parquet`, a row an item, and `scores.json` beside it.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from tuning import files, measures
from tuning.config import EvaluationConfig, ExperimentConfig, resolved_precision
from tuning.errors import ModelError
from tuning.evaluation.certificate import Certificate, certify
from tuning.evaluation.one_pass import OnePassScorer
from tuning.model.base import BaseModel, load_base, subject_words
from tuning.model.lora import stored_adapter
from tuning.model.tiny import tiny_words
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.tasks.items import EVALUATED_TASKS
from tuning.tasks.splits import Split, split_words
from tuning.tasks.suite import Suite, build_suite, fit_letter_guesser, word_blind_baselines

PREDICTIONS, SCORES = "predictions.parquet", "scores.json"


@dataclass(frozen=True)
class Bench:
    """What trials on one model share: the frozen base, the words, the suites."""

    base: BaseModel
    words: Mapping[Split, tuple[str, ...]]
    suite: Suite
    """The final evaluation."""
    monitor: Suite
    """A part of it, for evaluations on the way."""
    scorer: OnePassScorer
    baselines: Mapping[str, float]
    """Word-blind accuracy on the suite, by task."""


class Evaluation(NamedTuple):
    """Stored answers of one model to one suite."""

    key: str
    predictions: pd.DataFrame
    seconds: float


def load_bench(config: ExperimentConfig) -> Bench:
    """Return the bench of a configuration's model; the last one is kept, so trials start warm.

    Raises:
        ModelError: The model cannot be had.
    """
    if config.tokenizer_config.use_english_only_tokens:
        raise ModelError(
            "use_english_only_tokens needs the vocabulary slicing of model/vocabulary.py, "
            "which does not exist yet; set it to false"
        )
    precision = resolved_precision(config.training_config.precision)
    return _bench(config.tokenizer_config.model_name, precision, config.evaluation_config)


@functools.lru_cache(maxsize=1)
def _bench(model_name: str, precision: str, sizes: EvaluationConfig) -> Bench:
    held_out = split_words(subject_words(model_name))[Split.VALIDATION]
    return new_bench(model_name, precision, sizes, held_out)


def new_bench(
    model_name: str, precision: str, sizes: EvaluationConfig, asked: Sequence[str]
) -> Bench:
    """Return a bench whose suites ask about some of the words `asked`.

    Raises:
        UserError: The model cannot be had, or there are too few words.
    """
    base = load_base(model_name, precision)
    words = split_words(subject_words(model_name))
    count_tokens = base.tokenizer.count_tokens
    suite = build_suite(asked, sizes.num_words, count_tokens)
    guesser = fit_letter_guesser(words[Split.TRAIN])
    return Bench(
        base=base,
        words=words,
        suite=suite,
        monitor=build_suite(asked, sizes.num_monitor_words, count_tokens),
        scorer=OnePassScorer.for_base(base, suite.items),
        baselines={
            task.value: max(
                word_blind_baselines([i for i in suite.items if i.task is task], guesser).values()
            )
            for task in EVALUATED_TASKS
        },
    )


# --- evaluation -------------------------------------------------------------------------------


def evaluate_base(bench: Bench, root: ResultsRoot) -> Evaluation:
    """Return the untouched model's answers, from disk when they are there."""
    return _evaluate(bench, root.training(bench.base.key), f"{bench.base.key}@0")


def evaluate_adapter(bench: Bench, folder: TrainingFolder, step: int) -> Evaluation:
    """Return the answers with the adapter of `step`, from disk when they are there.

    Raises:
        ModelError: The adapter is damaged.
    """
    stored = _stored_evaluation(bench, folder, f"{folder.root.name}@{step}")
    if stored:
        return stored
    with stored_adapter(bench.base, folder.adapter(step)):
        return _evaluate(bench, folder, f"{folder.root.name}@{step}")


def _evaluation_key(bench: Bench, weights: str) -> str:
    return files.sha256_of_json([weights, bench.suite.key, bench.base.precision])[:16]


def _stored_evaluation(bench: Bench, folder: TrainingFolder, weights: str) -> Evaluation | None:
    key = _evaluation_key(bench, weights)
    place = folder.evaluation(key)
    if not (place / SCORES).is_file():
        return None
    try:
        return Evaluation(key, pd.read_parquet(place / PREDICTIONS), 0.0)
    except (OSError, ValueError):
        # Damaged predictions are made again: they are a function of weights that are still there.
        return None


def _evaluate(bench: Bench, folder: TrainingFolder, weights: str) -> Evaluation:
    stored = _stored_evaluation(bench, folder, weights)
    if stored:
        return stored
    clock = time.monotonic()
    predictions = bench.scorer.score(bench.suite)
    seconds = time.monotonic() - clock
    key = _evaluation_key(bench, weights)
    store_predictions(
        folder.evaluation(key), predictions, bench, {"weights": weights, "seconds": seconds}
    )
    return Evaluation(key, pd.read_parquet(folder.evaluation(key) / PREDICTIONS), seconds)


def store_predictions(
    place: Path, predictions: pd.DataFrame, bench: Bench, about: Mapping[str, Any]
) -> None:
    """Write predictions and their scores; the scores come last and say that both are whole.

    Raises:
        ResultsError: The disk refuses.
    """
    files.write_atomic(place / PREDICTIONS, predictions.to_parquet(index=False))
    scores = {
        "model": bench.base.says,
        "suite": bench.suite.key,
        "mix": bench.suite.mix(),
        "dropped_count_cells": bench.suite.num_dropped_count_cells,
        "margin": bench.scorer.margin,
        "decoded_for_real": int(predictions["decoded_for_real"].sum()),
        "baselines": dict(bench.baselines),
        "accuracy": {t: float(r[measures.STRICT].mean()) for t, r in predictions.groupby("task")},
        **about,
    }
    files.write_json(place / SCORES, scores)


# --- looking at a model without a trial --------------------------------------------------------


class Evaluated(NamedTuple):
    """A model scored on demand."""

    says: str
    results: Mapping[str, measures.TaskResult]
    tuned: pd.DataFrame
    """Predictions; of the untouched model when there is no adapter."""
    mix: Mapping[str, Mapping[str, int]]
    """Items by task and template, band and stratum: what the plain means are taken over."""


def evaluate_model(name: str, adapter: Path | None, word_set: str, num_words: int) -> Evaluated:
    """Score a model, and an adapter against it, on one set of words.

    Args:
        name: The model.
        adapter: Folder of an adapter, or none.
        word_set: validation, train, or pretraining (of tiny alone).
        num_words: Words a task.

    Raises:
        UserError: The model, the adapter or the words cannot be had.
    """
    bench = _bench_on_words(name, word_set, num_words)
    before = bench.scorer.score(bench.suite)
    after = before
    if adapter is not None:
        with stored_adapter(bench.base, adapter):
            after = bench.scorer.score(bench.suite)
    results = measures.task_results(before, after, bench.baselines)
    return Evaluated(bench.base.says, results, after, bench.suite.mix())


def _bench_on_words(name: str, word_set: str, num_words: int) -> Bench:
    sizes = EvaluationConfig(num_words=num_words, num_monitor_words=3)
    precision = resolved_precision("auto")
    if word_set == Split.VALIDATION.value:
        return _bench(name, precision, sizes)
    if word_set == Split.TRAIN.value:
        return new_bench(name, precision, sizes, split_words(subject_words(name))[Split.TRAIN])
    if name != "tiny":
        raise ModelError(f"only tiny says which words it was pretrained on, not {name}")
    return new_bench(name, precision, sizes, tiny_words().pretraining)


def certify_model(name: str, adapter: Path | None, num_items: int) -> Certificate:
    """Compare one-pass scoring with greedy decoding on a model, with or without an adapter.

    Raises:
        UserError: The model or the adapter cannot be had.
    """
    num_words = max(30, -(-num_items // 9) + 10)
    bench = _bench_on_words(name, Split.VALIDATION.value, num_words)
    with stored_adapter(bench.base, adapter) if adapter else contextlib.nullcontext():
        return certify(bench.base, bench.scorer, bench.suite, num_items)
