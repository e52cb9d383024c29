"""One training: continue a folder until it holds the adapter after so many steps."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import lightning.pytorch as pl
import torch

from tuning import files
from tuning.config import ExperimentConfig, to_yaml
from tuning.errors import ResultsError
from tuning.evaluation.bench import Bench
from tuning.fingerprint import training_identity
from tuning.jobs import read_progress
from tuning.model.base import BaseModel, device_of
from tuning.model.lora import fresh_adapter, save_adapter
from tuning.paths import TrainingFolder
from tuning.tasks.stream import TrainingStream
from tuning.training.callbacks import (
    PROGRESS,
    OnProgress,
    ProgressFile,
    StepCheckpoints,
    StopOnWish,
    TrainingStopped,
    TransferEvaluation,
    newest_usable_checkpoint,
)
from tuning.training.checkpoint import SafetensorsCheckpointIO
from tuning.training.datamodule import SpellingData, StepBatches
from tuning.training.module import SpellingModule


def batches_of(config: ExperimentConfig, bench: Bench, stream: TrainingStream) -> StepBatches:
    """Return the training batches of a configuration."""
    return StepBatches(
        stream,
        bench.base.tokenizer,
        config.training_config.effective_batch_size,
        num_passes(config, bench.base),
        packs=bench.base.packs,
    )


def num_passes(config: ExperimentConfig, base: BaseModel) -> int:
    """Return into how many micro-batches the rows of a step are cut.

    The configuration says how many are surely few enough for the memory. Small ones leave
    processors and GPUs idle, so as many are joined as `pass_bytes` have room for; what a step
    learns is the same up to rounding.
    """
    training = config.training_config
    shape = base.network.config
    inner = getattr(shape, "intermediate_size", 4 * shape.hidden_size)
    # What a block keeps for the way back, as measured (31,000 numbers a token of SmolLM2's).
    numbers = shape.num_hidden_layers * (30 * shape.hidden_size + 8 * inner)
    row_bytes = _ROW_TOKENS * numbers * base.network.dtype.itemsize
    num_bytes: int = training.effective_batch_size * row_bytes
    wanted = math.ceil(num_bytes / pass_bytes(device_of(base.network)))
    return min(wanted, training.gradient_accumulation_steps)


def pass_bytes(device: torch.device) -> int:
    """Return the memory for what one micro-batch keeps: a quarter of a GPU's, or 1.25 GiB."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    return 5 * 2**28


_ROW_TOKENS = 20
"""About what a row adds to a micro-batch, its beginning shared."""


class Trained(NamedTuple):
    """What training cost."""

    seconds: float
    num_tokens: int


def train(
    config: ExperimentConfig,
    bench: Bench,
    stream: TrainingStream,
    folder: TrainingFolder,
    budgets: frozenset[int] = frozenset(),
    on_progress: OnProgress | None = None,
    until: int | None = None,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> Trained:
    """See to it that `folder` holds the adapter after `max_steps` steps.

    Continues from the newest checkpoint; does nothing when the adapter is there. The caller holds
    the folder's lock.

    Args:
        config: What to train.
        bench: The base model and what it is asked on the way.
        stream: The examples.
        folder: The training's.
        budgets: Steps whose adapter is kept too.
        on_progress: Told of every step.
        until: Step after which to stop; None to go to the end.
        is_to_stop: Asked after every step whether to stop.

    Raises:
        TrainingStopped: It stopped before the end, with a checkpoint.
        ResultsError: The folder belongs to another base model, other data or another precision.
    """
    steps = config.training_config.max_steps
    batches = batches_of(config, bench, stream)
    _check_identity(config, bench, folder, batches)
    if (folder.adapter(steps) / "adapter_model.safetensors").is_file():
        _mend_progress(folder, steps)
        return Trained(0.0, _trained_tokens(folder, steps))
    read = SafetensorsCheckpointIO().load_checkpoint
    first = newest_usable_checkpoint(folder, steps, read)
    progress = ProgressFile(folder.progress, on_progress)
    if not any(step > first for step in files.steps_of(folder.checkpoints)):
        known = read(folder.checkpoint(first)).get(PROGRESS, []) if first else []
        progress.go_on_after(first, known)
    if until is not None and first >= until:
        raise TrainingStopped(first)
    clock = time.monotonic()
    _note(folder, "start", step=first)
    with fresh_adapter(bench.base, config.lora_config, config.training_config.seed) as adapted:
        module = SpellingModule(adapted, config.training_config)
        if first == steps:
            state = read(folder.checkpoint(first))
            module.load_state_dict(state["state_dict"], strict=False)
            save_adapter(adapted, folder.adapter(steps))
        else:
            stop = StopOnWish(until, is_to_stop)
            trainer = _trainer(config, bench, folder, progress, stop, budgets | {steps})
            checkpoint = str(folder.checkpoint(first)) if first else None
            _fit(trainer, module, SpellingData(batches), checkpoint)
            first = trainer.global_step
    seconds = time.monotonic() - clock
    _note(folder, "end", step=first, seconds=round(seconds, 3))
    if first < steps:
        raise TrainingStopped(first)
    return Trained(seconds, _trained_tokens(folder, steps))


def _mend_progress(folder: TrainingFolder, steps: int) -> None:
    """Write lines that the file has lost again, from the newest checkpoint's memory of them."""
    lines = read_progress(folder)
    # The evaluation of the last step is the last line that a run writes.
    if any(line["step"] == steps and line["kind"] == "evaluation" for line in lines):
        return
    for step in reversed(files.steps_of(folder.checkpoints)):
        try:
            known = SafetensorsCheckpointIO().load_checkpoint(folder.checkpoint(step))
        except ResultsError:
            continue
        if len(known.get(PROGRESS, [])) > len(lines):
            files.write_json_lines(folder.progress, known[PROGRESS])
            return


def _fit(
    trainer: pl.Trainer, module: SpellingModule, data: SpellingData, checkpoint: str | None
) -> None:
    """Train; Ctrl-C stays what it is, where Lightning would end the process with code 1."""
    try:
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from stop
        raise


def _trainer(
    config: ExperimentConfig,
    bench: Bench,
    folder: TrainingFolder,
    progress: ProgressFile,
    stop: StopOnWish,
    budgets: frozenset[int],
) -> pl.Trainer:
    frequency = config.transfer_config.eval_frequency
    return pl.Trainer(
        accelerator="auto",
        devices=1,
        precision=_LIGHTNING_PRECISION[bench.base.precision],  # type: ignore[arg-type]
        max_steps=config.training_config.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=num_passes(config, bench.base),
        gradient_clip_val=config.training_config.max_grad_norm,
        callbacks=[
            progress,
            TransferEvaluation(bench, frequency, progress),
            stop,
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
    subset = bench.base.tokenizer.subset
    identity = {
        "weights": bench.base.weights_hash,
        "vocabulary": None if subset is None else subset.hash,
        "first_step": batches.first_hash(),
        "precision": bench.base.precision,
        "asked": training_identity(config),
    }
    if not folder.identity.exists():
        files.write_atomic(folder.config, to_yaml(config))
        files.write_json(folder.identity, identity)
        return
    stored = files.read_json(folder.identity)
    if not isinstance(stored, dict):
        raise ResultsError(f"{folder.identity} is damaged; remove {folder.root} to train anew")
    for name, value in identity.items():
        if stored.get(name) != value:
            raise ResultsError(
                f"{folder.root} was begun with another {name.replace('_', ' ')} "
                f"({str(stored.get(name))[:60]}, now {str(value)[:60]}); "
                f"remove the folder to train anew"
            )


def _note(folder: TrainingFolder, event: str, **values: object) -> None:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    who = {"event": event, "at": at, "host": socket.gethostname(), "pid": os.getpid()}
    files.append_json_line(folder.attempts, {**who, **values})


def _trained_tokens(folder: TrainingFolder, steps: int) -> int:
    lines = read_progress(folder)
    done = [x["num_tokens"] for x in lines if x["kind"] == "train" and x["step"] <= steps]
    return int(max(done, default=0))
