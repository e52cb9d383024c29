"""One trial: data -> model -> train -> evaluate -> folders. Everything else only arranges trials.

Read `run_trial` top to bottom; it is the main path of the program.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import platform
import resource
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pandas as pd
import torch

from tuning import files, measures
from tuning.config import (
    EvaluationConfig,
    ExperimentConfig,
    resolved_precision,
    to_yaml,
    training_identity,
    training_key,
    weights_key,
)
from tuning.errors import ModelError, ResultsError
from tuning.evaluation.certificate import Certificate, certify
from tuning.evaluation.one_pass import OnePassScorer
from tuning.model.base import BaseModel, device_of, load_base, subject_words
from tuning.model.lora import fresh_adapter, save_adapter, stored_adapter
from tuning.model.tiny import tiny_words
from tuning.paths import ResultsRoot, TrainingFolder, TrialFolder
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.scoring import OWN_WEIGHTS_SCORE, Weights
from tuning.tasks.items import EVALUATED_TASKS
from tuning.tasks.splits import Split, split_words
from tuning.tasks.stream import TrainingStream, words_in_band
from tuning.tasks.suite import Suite, build_suite, fit_letter_guesser, word_blind_baselines
from tuning.training.callbacks import (
    OnProgress,
    ProgressFile,
    StepCheckpoints,
    TransferEvaluation,
    newest_usable_checkpoint,
)
from tuning.training.checkpoint import SafetensorsCheckpointIO, steps_of
from tuning.training.datamodule import SpellingData, StepBatches
from tuning.training.module import SpellingModule

PREDICTIONS, SCORES = "predictions.parquet", "scores.json"


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """What a study, or a user, asks of one trial."""

    config: ExperimentConfig
    folder: TrialFolder
    trial_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    """The study's score weights; without a study the configuration's own."""
    budgets: frozenset[int] = frozenset()
    """Steps at which other trials will ask for the same training's adapter."""


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


def run_trial(
    request: TrialRequest, root: ResultsRoot, on_progress: OnProgress | None = None
) -> TrialRecord:
    """Train and evaluate one configuration, or use what is already there.

    Args:
        request: The configuration, and where its record goes.
        root: All results hang off it.
        on_progress: Told of every step.

    Returns:
        The record, which is also on disk. A second call with the same request trains nothing and
        gives an equal `result`.

    Raises:
        UserError: The model, its adapter or the results folder cannot be used.
    """
    started, clock = _now(), time.monotonic()
    config = request.config
    files.write_atomic(request.folder.config, to_yaml(config))
    with quiet_libraries(), threads(config.training_config.num_threads):
        bench = load_bench(config)
        base = evaluate_base(bench, root)
        folder = root.training(training_key(config))
        with files.exclusive_lock(folder.lock, f"training {folder.root.name}"):
            trained = train(config, bench, folder, request.budgets, on_progress)
            tuned = evaluate_adapter(bench, folder, config.training_config.max_steps)
    tasks = measures.task_results(base.predictions, tuned.predictions, bench.baselines)
    own_weights = Weights(
        config.transfer_config.position_task_weight, config.transfer_config.count_task_weight
    )
    metrics = measures.flat_metrics(tasks, request.weights or own_weights)
    metrics[OWN_WEIGHTS_SCORE] = measures.score_of(metrics, own_weights)
    record = TrialRecord(
        trial_id=request.trial_id,
        parameters=dict(request.parameters),
        seed=config.training_config.seed,
        result=TrialResult(
            status=TrialStatus.COMPLETED,
            training_key=folder.root.name,
            weights_key=weights_key(config),
            step=config.training_config.max_steps,
            model=bench.base.says,
            evaluation_key=tuned.key,
            base_key=bench.base.key,
            base_evaluation_key=base.key,
            metrics=metrics,
            tasks=tasks,
        ),
        execution=Execution(
            started_at=started,
            finished_at=_now(),
            host=socket.gethostname(),
            train_seconds=round(trained.seconds, 3),
            evaluation_seconds=round(time.monotonic() - clock - trained.seconds, 3),
            num_trained_tokens=trained.num_tokens,
            peak_memory_bytes=peak_memory_bytes(),
            num_threads=config.training_config.num_threads or default_threads(),
            device=str(device_of(bench.base.network)),
            num_attempts=sum(a["event"] == "start" for a in files.read_json_lines(folder.attempts)),
            versions=versions(),
        ),
    )
    write_record(request.folder, record)
    return record


# --- the bench --------------------------------------------------------------------------------


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


def batches_of(config: ExperimentConfig, bench: Bench) -> StepBatches:
    """Return the training batches of a configuration."""
    spelling, training = config.spelling_config, config.training_config
    words = bench.words[Split.TRAIN]
    stream = TrainingStream(
        spelled_words=words_in_band(words, spelling.difficulty, bench.base.tokenizer.count_tokens),
        replay_words=words,
        data_ratio=spelling.data_ratio,
        augmentation=spelling.augmentation,
        seed=training.seed,
    )
    return StepBatches(
        stream,
        bench.base.tokenizer,
        training.per_device_train_batch_size,
        training.gradient_accumulation_steps,
    )


# --- training ---------------------------------------------------------------------------------


class Trained(NamedTuple):
    """What training cost."""

    seconds: float
    num_tokens: int


def train(
    config: ExperimentConfig,
    bench: Bench,
    folder: TrainingFolder,
    budgets: frozenset[int] = frozenset(),
    on_progress: OnProgress | None = None,
) -> Trained:
    """See to it that `folder` holds the adapter after `max_steps` steps.

    Continues from the newest checkpoint; does nothing when the adapter is there. The caller holds
    the folder's lock.

    Raises:
        ResultsError: The folder belongs to another base model, other data or another precision.
    """
    steps = config.training_config.max_steps
    batches = batches_of(config, bench)
    _check_identity(config, bench, folder, batches)
    if (folder.adapter(steps) / "adapter_model.safetensors").is_file():
        return Trained(0.0, _trained_tokens(folder, steps))
    first = newest_usable_checkpoint(folder, steps, SafetensorsCheckpointIO().load_checkpoint)
    progress = ProgressFile(folder.progress, on_progress)
    if not any(step > first for step in steps_of(folder.checkpoints)):
        progress.cut_after(first)
    clock = time.monotonic()
    _note(folder, "start", step=first)
    with fresh_adapter(bench.base, config.lora_config, config.training_config.seed) as adapted:
        module = SpellingModule(adapted, config.training_config)
        if first == steps:
            state = SafetensorsCheckpointIO().load_checkpoint(folder.checkpoint(first))
            module.load_state_dict(state["state_dict"], strict=False)
            save_adapter(adapted, folder.adapter(steps))
        else:
            trainer = _trainer(config, bench, folder, progress, budgets | {steps})
            checkpoint = str(folder.checkpoint(first)) if first else None
            trainer.fit(module, SpellingData(batches), ckpt_path=checkpoint, weights_only=True)
    seconds = time.monotonic() - clock
    _note(folder, "end", step=steps, seconds=round(seconds, 3))
    return Trained(seconds, _trained_tokens(folder, steps))


def _trainer(
    config: ExperimentConfig,
    bench: Bench,
    folder: TrainingFolder,
    progress: ProgressFile,
    budgets: frozenset[int],
) -> pl.Trainer:
    frequency = config.transfer_config.eval_frequency
    monitored = bench.base.tokenizer.encode_items(bench.monitor.items)
    tasks = [item.task for item in bench.monitor.items]

    def evaluate() -> dict[str, float]:
        readings = bench.scorer.read(bench.monitor.items, monitored)
        return measures.strict_accuracies(tasks, [reading.correct for reading in readings])

    return pl.Trainer(
        accelerator="auto",
        devices=1,
        precision=_LIGHTNING_PRECISION[bench.base.precision],  # type: ignore[arg-type]
        max_steps=config.training_config.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=config.training_config.gradient_accumulation_steps,
        gradient_clip_val=config.training_config.max_grad_norm,
        callbacks=[
            progress,
            TransferEvaluation(evaluate, frequency, progress),
            StepCheckpoints(folder, frequency, set(budgets)),
        ],
        plugins=[SafetensorsCheckpointIO()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


_LIGHTNING_PRECISION = {"32-true": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def _check_identity(
    config: ExperimentConfig, bench: Bench, folder: TrainingFolder, batches: StepBatches
) -> None:
    """Write what a continuation must match, or compare with what is there."""
    identity = {
        "weights": bench.base.weights_hash,
        "first_step": batches.first_hash(),
        "precision": bench.base.precision,
        "asked": training_identity(config),
    }
    if not folder.identity.exists():
        files.write_atomic(folder.config, to_yaml(config))
        files.write_json(folder.identity, identity)
        return
    stored = files.read_json(folder.identity)
    for name, value in identity.items():
        if stored.get(name) != value:
            raise ResultsError(
                f"{folder.root} was begun with another {name.replace('_', ' ')} "
                f"({str(stored.get(name))[:60]}, now {str(value)[:60]}); "
                f"remove the folder to train anew"
            )


def _note(folder: TrainingFolder, event: str, **values: object) -> None:
    who = {"event": event, "at": _now(), "host": socket.gethostname(), "pid": os.getpid()}
    files.append_json_line(folder.attempts, {**who, **values})


def _trained_tokens(folder: TrainingFolder, steps: int) -> int:
    lines = files.read_json_lines(folder.progress)
    done = [x["num_tokens"] for x in lines if x["kind"] == "train" and x["step"] <= steps]
    return int(max(done, default=0))


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
    return Evaluation(key, pd.read_parquet(place / PREDICTIONS), 0.0)


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
    return Evaluated(bench.base.says, measures.task_results(before, after, bench.baselines), after)


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


# --- failures, and the machine ----------------------------------------------------------------


def record_failure(request: TrialRequest, error: Exception, started: str) -> TrialRecord:
    """Write and return the record of a trial that raised.

    Raises:
        ResultsError: The disk refuses.
    """
    config = request.config
    tail = "".join(traceback.format_exception(error))[-4000:]
    record = TrialRecord(
        trial_id=request.trial_id,
        parameters=dict(request.parameters),
        seed=config.training_config.seed,
        result=TrialResult(
            status=TrialStatus.FAILED,
            training_key=training_key(config),
            weights_key=weights_key(config),
            step=0,
            model=config.tokenizer_config.model_name,
            error_type=type(error).__name__,
            error=str(error) or type(error).__name__,
        ),
        execution=Execution(
            started_at=started,
            finished_at=_now(),
            host=socket.gethostname(),
            train_seconds=0.0,
            evaluation_seconds=0.0,
            num_trained_tokens=0,
            peak_memory_bytes=peak_memory_bytes(),
            num_threads=config.training_config.num_threads or default_threads(),
            device="",
            num_attempts=1,
            versions=versions(),
            log_tail=tail,
        ),
    )
    write_record(request.folder, record)
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def default_threads() -> int:
    """Return the number of processor threads that a trial uses unless told."""
    return os.cpu_count() or 1


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use `count` processor threads for the time of the block: results repeat at equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or default_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries from writing over our progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*num_workers.*|.*isinstance.treespec.*")
        yield


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    names: Sequence[str] = ("tuning", "torch", "transformers", "peft", "lightning", "wordfreq")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
