"""One training: continue a folder until it holds the adapter after so many steps."""

from __future__ import annotations

import math
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import lightning.pytorch as pl

from tuning import files, memory
from tuning.config import ExperimentConfig, to_yaml
from tuning.errors import ConfigError, ResultsError
from tuning.evaluation.bench import Bench
from tuning.fingerprint import resolved_precision, training_identity
from tuning.jobs import read_progress
from tuning.model.base import BaseModel, device_of
from tuning.model.lora import save_adapter
from tuning.model.machine import gpu_bytes
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


def num_passes(config: ExperimentConfig, base: BaseModel) -> int:
    """Return into how many micro-batches the rows of a step are cut; see `memory.num_passes`."""
    shape = base.network.config
    of_row = memory.block_bytes(
        shape.num_hidden_layers,
        shape.hidden_size,
        getattr(shape, "intermediate_size", 4 * shape.hidden_size),
        base.network.dtype.itemsize,
        recomputes=config.training_config.gradient_checkpointing,
    ) + memory.logits_bytes(1, shape.vocab_size)
    head = base.network.get_output_embeddings().weight.numel()
    resident = memory.resident_bytes(base.num_parameters, head, base.network.dtype.itemsize)
    room = memory.pass_bytes(gpu_bytes(device_of(base.network)), resident)
    return memory.num_passes(config, of_row, room)


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
    batches = StepBatches.of(config, bench, stream)
    num_parts = claim(config, bench, folder, batches)
    if is_trained(folder, steps):
        _mend_progress(folder, steps)
        return Trained(0.0, _trained_tokens(folder, steps))
    first = continue_from(folder, steps)
    checkpoint = folder.checkpoint(first) if first else None
    progress = begin_progress(folder, first, checkpoint, on_progress)
    if until is not None and first >= until:
        raise TrainingStopped(first)
    clock = time.monotonic()
    note(folder, "start", step=first)
    with SpellingModule(config, bench) as module:
        if first == steps:
            save_adapter_of(module, folder.checkpoint(steps), folder.adapter(steps))
        else:
            stop = StopOnWish(until, is_to_stop)
            settings = trainer_arguments(
                config,
                devices=1,
                accumulate_grad_batches=num_parts,
                callbacks=callbacks_of(config, folder, progress, budgets, stop),
                plugins=[SafetensorsCheckpointIO()],
            )
            trainer = pl.Trainer(**settings)
            data = SpellingData(config, bench, batches)
            fit(trainer, module, data, checkpoint)
            first = trainer.global_step
    seconds = time.monotonic() - clock
    note(folder, "end", step=first, seconds=round(seconds, 3))
    if first < steps:
        raise TrainingStopped(first)
    return Trained(seconds, _trained_tokens(folder, steps))


def is_trained(folder: TrainingFolder, steps: int) -> bool:
    """Return whether the adapter after so many steps is there."""
    return (folder.adapter(steps) / "adapter_model.safetensors").is_file()


def save_adapter_of(module: SpellingModule, checkpoint: Path, place: Path) -> None:
    """Write the adapter that a checkpoint holds, where only the checkpoint is left of it.

    Raises:
        ResultsError: The checkpoint does not fit the module.
    """
    module.configure_model()
    state = SafetensorsCheckpointIO().load_checkpoint(checkpoint)
    module.check_fits(state)
    module.load_state_dict(state["state_dict"], strict=False)
    save_adapter(module.adapted, place)


def continue_from(folder: TrainingFolder, steps: int) -> int:
    """Return the step of the checkpoint to go on from, 0 to begin anew."""
    return newest_usable_checkpoint(folder, steps, SafetensorsCheckpointIO().load_checkpoint)


def begin_progress(
    folder: TrainingFolder,
    first: int,
    checkpoint: Path | None,
    on_progress: OnProgress | None = None,
    *,
    writes: bool = True,
) -> ProgressFile:
    """Return the file of progress, with exactly the lines up to step `first`.

    Args:
        folder: The training's.
        first: The step to go on from.
        checkpoint: The checkpoint of that step, which remembers lines.
        on_progress: Told of every step.
        writes: Whether this process may change files; of several that train together one does.
    """
    progress = ProgressFile(folder.progress, on_progress)
    if writes and not any(step > first for step in files.steps_of(folder.checkpoints)):
        read = SafetensorsCheckpointIO().load_checkpoint
        known = read(checkpoint).get(PROGRESS, []) if checkpoint else []
        progress.go_on_after(first, known)
    return progress


def callbacks_of(
    config: ExperimentConfig,
    folder: TrainingFolder,
    progress: ProgressFile,
    budgets: frozenset[int] = frozenset(),
    stop: StopOnWish | None = None,
) -> list[pl.Callback]:
    """Return what happens beside the steps of a run that writes to `folder`, in this order."""
    frequency = config.transfer_config.eval_frequency
    steps = config.training_config.max_steps
    return [
        progress,
        TransferEvaluation(frequency, progress),
        # What is asked to stop says so before a checkpoint is thought of.
        *([stop] if stop else []),
        StepCheckpoints(folder, frequency, set(budgets | {steps})),
    ]


def trainer_arguments(config: ExperimentConfig, **changes: Any) -> dict[str, Any]:
    """Return what a configuration says to a Lightning trainer, as its keyword arguments.

    Args:
        config: The configuration.
        **changes: Arguments that are added, or replace what the configuration says: callbacks,
            devices, a logger, and `accumulate_grad_batches`, by which the rows of a step are cut.
    """
    training = config.training_config
    return {
        "precision": LIGHTNING_PRECISION[resolved_precision(training.precision)],
        "max_steps": training.max_steps,
        # Data have no end, so there are no epochs.
        "max_epochs": -1,
        "gradient_clip_val": training.max_grad_norm,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        **changes,
    }


LIGHTNING_PRECISION = {"32-true": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
"""Our names of precisions, and Lightning's: adapters stay in fp32 whatever the base is in."""


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


def fit(
    trainer: pl.Trainer, module: SpellingModule, data: SpellingData, checkpoint: Path | None
) -> None:
    """Train; Ctrl-C stays what it is, where Lightning would end the process with code 1."""
    path = str(checkpoint) if checkpoint else None
    try:
        trainer.fit(module, data, ckpt_path=path, weights_only=True)
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt from stop
        raise


def claim(
    config: ExperimentConfig,
    bench: Bench,
    folder: TrainingFolder,
    batches: StepBatches,
    num_processes: int = 1,
    num_passes_asked: int | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
    *,
    writes: bool = True,
) -> int:
    """Write what a continuation of a training must match, or compare with what is there.

    The first process of a run calls it, before anything is trained.

    Args:
        config: What is trained.
        bench: The model.
        folder: The training's.
        batches: Its data.
        num_processes: That share each step.
        num_passes_asked: Micro-batches of a process and step; None to choose.
        extra: More that changes the weights and stands in no configuration.
        writes: Whether what is not there is written.

    Returns:
        Micro-batches that each step is cut into, over all processes. They decide dropout's random
        numbers and the order of sums, so a run keeps those that it was begun with: any number of
        processes that shares them evenly continues it exactly.

    Raises:
        ResultsError: The folder belongs to another base model, other data or another precision, or
            the processes cannot share its micro-batches.
    """
    subset = bench.base.tokenizer.subset
    identity = {
        "weights": bench.base.weights_hash,
        "vocabulary": None if subset is None else subset.hash,
        "first_step": batches.first_hash(),
        "precision": bench.base.precision,
        "asked": {**training_identity(config), **extra},
    }
    if not folder.identity.exists():
        num_parts = _num_parts(config, bench, num_processes, num_passes_asked)
        if writes:
            files.write_atomic(folder.config, to_yaml(config))
            files.write_json(folder.identity, {**identity, _PARTS: num_parts})
        return num_parts
    stored = files.read_json(folder.identity)
    if not isinstance(stored, dict) or not isinstance(stored.get(_PARTS), int):
        raise ResultsError(f"{folder.identity} is damaged; remove {folder.root} to train anew")
    for name, value in identity.items():
        if stored.get(name) != value:
            raise ResultsError(
                f"{folder.root} was begun with another {name.replace('_', ' ')} "
                f"({str(stored.get(name))[:60]}, now {str(value)[:60]}); "
                f"remove the folder to train anew"
            )
    parts = int(stored[_PARTS])
    asked = parts if num_passes_asked is None else num_processes * num_passes_asked
    if asked != parts or parts % num_processes:
        fitting = ", ".join(str(n) for n in range(1, parts + 1) if parts % n == 0)
        raise ResultsError(
            f"{folder.root} was begun with {_counted(parts, 'micro-batch')} a step, and "
            f"{_counted(num_processes, 'process')} "
            f"{f'with {num_passes_asked} each ' if num_passes_asked else ''}cannot share "
            f"them evenly; go on with as many processes as divide it ({fitting}), or remove the "
            f"folder to train anew"
        )
    return parts


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 'es'}"


def num_micro_batches(folder: TrainingFolder) -> int:
    """Return how many micro-batches a training cuts its steps into; 0 where nobody knows."""
    try:
        identity = files.read_json(folder.identity)
    except ResultsError:
        return 0
    return int(identity.get(_PARTS, 0)) if isinstance(identity, dict) else 0


_PARTS = "micro_batches"


def _num_parts(
    config: ExperimentConfig, bench: Bench, num_processes: int, num_passes_asked: int | None
) -> int:
    passes = num_passes_asked or math.ceil(num_passes(config, bench.base) / num_processes)
    num_rows = config.training_config.effective_batch_size
    if num_processes * passes > num_rows:
        raise ConfigError(
            f"{_counted(num_processes, 'process')} with {_counted(passes, 'micro-batch')} each "
            f"cannot share the "
            f"{num_rows} rows of a step (per_device_train_batch_size times "
            f"gradient_accumulation_steps)"
        )
    return num_processes * passes


def note(folder: TrainingFolder, event: str, **values: object) -> None:
    """Write a line about this attempt: that it began or ended, where, and when."""
    at = datetime.now(UTC).isoformat(timespec="seconds")
    who = {"event": event, "at": at, "host": socket.gethostname(), "pid": os.getpid()}
    files.append_json_line(folder.attempts, {**who, **values})


def _trained_tokens(folder: TrainingFolder, steps: int) -> int:
    lines = read_progress(folder)
    done = [x["num_tokens"] for x in lines if x["kind"] == "train" and x["step"] <= steps]
    return int(max(done, default=0))
