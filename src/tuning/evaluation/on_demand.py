"""Looking at a model without a trial: scores on words or a user's own suite, and certificates."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tuning import files, measures
from tuning.composition import load
from tuning.config import EvaluationConfig
from tuning.errors import ModelError, SuiteError, shown
from tuning.evaluation.bench import Bench, bench_on, new_bench, validation_bench
from tuning.evaluation.certificate import Certificate, certify, store_certificate
from tuning.evaluation.one_pass import OnProgress
from tuning.evaluation.stored import evaluate_adapter, evaluate_base
from tuning.fingerprint import resolved_precision
from tuning.measures import Drift, StratumResult, TaskResult
from tuning.model.base import load_base, subject_words, tokenizer_of, training_data_of
from tuning.model.lora import adapter_hash, check_is_adapter, stored_adapter
from tuning.model.tiny import tiny_words
from tuning.model.tokenizer import naming
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.tasks.prompts import Prompting, prompted
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.stream import read_training_text
from tuning.tasks.suite import Suite
from tuning.tasks.user_suite import read_suite
from tuning.tasks.words import SubjectWords
from tuning.tokens.subset import SubsetRule


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a user wants to know of a model."""

    model: str
    adapter: Path | None = None
    words: str = Split.VALIDATION.value
    """validation, train, or pretraining (of tiny alone)."""
    suite: Path | None = None
    """A file of the user's own items, instead of words."""
    prompting: Prompting = Prompting.ZERO_SHOT
    """Of the untouched model; with an adapter zero-shot alone."""
    sizes: EvaluationConfig = EvaluationConfig()
    precision: str = "auto"
    """32-true, bf16, fp16, or what the machine has."""
    subset: SubsetRule | None = None
    """Ask the model on this English part of its vocabulary."""


class Evaluated(NamedTuple):
    """A model scored on demand."""

    says: str
    results: Mapping[str, TaskResult]
    strata: Sequence[StratumResult]
    predictions: pd.DataFrame
    """Of the tuned model; of the untouched one when there is no adapter."""
    place: Path
    """The folder where the answers are kept."""
    mix: Mapping[str, Mapping[str, int]]
    """Items by task and template, band and stratum: what the plain means are taken over."""
    retention: Mapping[str, Drift]
    num_decoded: int
    num_disagreements: int
    """Freely decoded items whose text gives another verdict than one pass; untouched and tuned."""


def evaluate_model(
    question: Question,
    root: ResultsRoot,
    *,
    with_strata: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> Evaluated:
    """Score a model, and an adapter against it; what was asked before is read from disk.

    Args:
        question: What to ask, of which model.
        root: Where answers are kept.
        with_strata: Also compare stratum by stratum.
        on_progress: Told of items done, and of all; for the untouched and then the tuned model.

    Raises:
        UserError: The model, the adapter, the words or the suite cannot be had.
    """
    if question.adapter is not None:
        check_is_adapter(question.adapter)
    bench = bench_of(question)
    if question.adapter is not None:
        with stored_adapter(bench.base, question.adapter):
            pass  # One that does not fit is refused before anything is asked.
    files.make_folder(root.root)
    before = evaluate_base(bench, root, question.prompting, on_progress)
    after, folder = before, root.training(bench.base.key)
    if question.adapter is not None:
        folder, step = _folder_of(question.adapter, root)
        trained = _trained_words(bench, question.adapter)
        after = evaluate_adapter(bench, question.adapter, folder, step, trained, on_progress)
    asked = (before.predictions, after.predictions, bench.baseline_of)
    both = (before,) if after is before else (before, after)
    return Evaluated(
        says=bench.base.says,
        results=measures.task_results(*asked),
        strata=measures.strata_results(*asked) if with_strata else (),
        predictions=after.predictions,
        place=folder.evaluation(after.key),
        mix=bench.suite.mix(),
        retention=after.retention,
        num_decoded=sum(e.num_decoded for e in both),
        num_disagreements=sum(e.num_disagreements for e in both),
    )


def bench_of(question: Question) -> Bench:
    """Return the bench that a question needs.

    Raises:
        UserError: The model, the words or the suite cannot be had.
    """
    name, sizes, subset = question.model, question.sizes, question.subset
    precision = resolved_precision(question.precision)
    if question.suite is not None:
        suite = read_suite(question.suite, tokenizer_of(name).cut)
        _check_lengths(suite, question.suite, name, precision, subset)
        return bench_on(name, precision, sizes, suite, suite, subset)
    if question.words == Split.VALIDATION.value:
        return validation_bench(name, precision, sizes, subset)
    if question.words == Split.TRAIN.value:
        words = split_subjects(subject_words(name, subset))[Split.TRAIN]
        return new_bench(name, precision, sizes, words, subset)
    if name != "tiny":
        raise ModelError(f"only tiny says which words it was pretrained on, not {name}")
    return new_bench(name, precision, sizes, SubjectWords(tiny_words().pretraining), subset)


def _check_lengths(
    suite: Suite, path: Path, name: str, precision: str, subset: SubsetRule | None
) -> None:
    """Refuse items that are longer than the model's context.

    Raises:
        SuiteError: One is.
    """
    base = load_base(name, precision, subset)
    limit = int(base.network.config.max_position_embeddings)
    with naming(path):
        encoded = base.tokenizer.encode_items(suite.items)
    for item, row in zip(suite.items, encoded, strict=True):
        length = len(row.prompt) + len(row.answer)
        if length > limit:
            raise SuiteError(
                f"{path}: an item must have at most the {limit:,} tokens of {name}'s context, got "
                f"{length:,} in {shown(item.question)}"
            )


def _folder_of(adapter: Path, root: ResultsRoot) -> tuple[TrainingFolder, int]:
    """Return the training that answers with an adapter are kept with, and the adapter's step."""
    whole = adapter.resolve()
    training = whole.parent.parent
    if training.parent == root.trainings.resolve() and whole.name.startswith("step_"):
        return root.training(training.name), int(whole.name.removeprefix("step_"))
    return root.training(f"adapter_{adapter_hash(adapter)[:16]}"), 0


def _trained_words(bench: Bench, adapter: Path) -> frozenset[str] | None:
    """Return the words that an adapter was trained on, where its training says so."""
    config_path = adapter.resolve().parent.parent / "config.yaml"
    step = adapter.name.removeprefix("step_")
    if not (config_path.is_file() and step.isdigit()):
        return None
    config = load(config_path)
    # What was trained on is a matter of the training's vocabulary, not of the one asked on now.
    name, subset = bench.base.name, config.tokenizer_config.subset
    words = split_subjects(subject_words(name, subset))[Split.TRAIN]
    data = training_data_of(config, words, tokenizer_of(name, subset))
    size = config.training_config.effective_batch_size
    return read_training_text(data.stream, int(step) * size).words


def certify_model(question: Question, root: ResultsRoot, num_items: int) -> Certificate:
    """Compare one-pass scoring with greedy decoding, with or without an adapter; keep the proof.

    Raises:
        UserError: The model or the adapter cannot be had.
    """
    bench = bench_of(question)
    adapter = question.adapter
    folder, weights = root.training(bench.base.key), f"{bench.base.key}@0"
    if adapter is not None:
        folder, step = _folder_of(adapter, root)
        weights = f"{folder.root.name}@{step}"
    with stored_adapter(bench.base, adapter) if adapter else contextlib.nullcontext():
        suite = prompted(bench.suite, question.prompting, bench.words[Split.TRAIN].real)
        certificate = certify(bench.base, bench.scorer, suite, num_items, weights)
    store_certificate(folder, certificate)
    return certificate
