"""What happens beside the steps: evaluations on the way, the progress file, checkpoints.

None of them touches weights, data or random numbers, so how often they act changes no result.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from tuning import files
from tuning.errors import ResultsError
from tuning.jobs import check_progress
from tuning.model.lora import save_adapter
from tuning.model.processes import is_first, said_by_any, said_by_first
from tuning.paths import TrainingFolder
from tuning.training.module import SpellingModule

PROGRESS = "progress"
"""Key of a checkpoint under which the lines of progress are."""

LOSS_EVERY = 10
"""Optimizer steps between two lines of loss."""

OnProgress = Callable[[int, Mapping[str, float]], None]
"""Called with the optimizer step and what was just measured."""


class NotANumberError(RuntimeError):
    """The loss is NaN or infinite: the run has diverged."""


class TrainingStopped(Exception):
    """A training stopped before its end, with a checkpoint to go on from."""

    def __init__(self, step: int) -> None:
        """Say after which optimizer step."""
        super().__init__(f"stopped after step {step}")
        self.step = step


class StepCallback(pl.Callback):
    """Acts after whole optimizer steps."""

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Call `on_step_end` when a micro-batch was the last of its step."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            assert isinstance(pl_module, SpellingModule)
            self.on_step_end(trainer, pl_module, trainer.global_step)

    def on_step_end(self, trainer: pl.Trainer, module: SpellingModule, step: int) -> None:
        """Act after optimizer step `step`, counted from 1."""


class ProgressFile(StepCallback):
    """Writes a line every 10 steps of loss, and one for every evaluation.

    Lines of steps that are already in the file are not written again: a run that goes over old
    ground, or continues, leaves each step once.
    """

    def __init__(self, path: Path, on_progress: OnProgress | None = None) -> None:
        """Open the progress of one training.

        Args:
            path: The file of JSON lines.
            on_progress: Told of every measurement, written or not.
        """
        self.path = path
        self.on_progress = on_progress or (lambda step, metrics: None)
        self.written = {
            (line["step"], line["kind"]) for line in files.read_json_lines(path, check_progress)
        }

    def go_on_after(self, step: int, known: Sequence[Mapping[str, Any]] = ()) -> None:
        """Have exactly the lines up to `step`, the checkpoint that a run continues from.

        Args:
            step: Later lines are forgotten.
            known: The lines that the checkpoint remembers, for what the file has lost.
        """
        lines = files.read_json_lines(self.path, check_progress)
        kept = [line for line in lines if line["step"] <= step]
        remembered = [dict(line) for line in known if line["step"] <= step]
        if len(remembered) > len(kept):
            kept = remembered
        if kept != lines:
            files.write_json_lines(self.path, kept)
        self.written = {(line["step"], line["kind"]) for line in kept}

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the checkpoint remember the lines up to its step: a file can lose its end."""
        lines = files.read_json_lines(self.path, check_progress)
        checkpoint[PROGRESS] = [line for line in lines if line["step"] <= trainer.global_step]

    def write(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Write one line unless the file has it; of several processes the first one does."""
        if not is_first():
            return
        self.on_progress(step, metrics)
        if (step, kind) not in self.written:
            files.append_json_line(self.path, {"step": step, "kind": kind, **metrics})
            self.written.add((step, kind))

    def on_step_end(self, trainer: pl.Trainer, module: SpellingModule, step: int) -> None:
        """Write the loss.

        Raises:
            NotANumberError: The loss is not finite.
        """
        if not math.isfinite(module.step_loss):
            raise NotANumberError(f"the loss is {module.step_loss} at step {step}")
        if step % LOSS_EVERY == 0 or step == trainer.max_steps:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            line = {
                "loss": module.step_loss,
                "learning_rate": rate,
                "num_tokens": module.num_tokens,
            }
            self.write(step, "train", line)
        elif is_first():
            self.on_progress(step, {"loss": module.step_loss})


class TransferEvaluation(StepCallback):
    """Measures spelling, position and count on the way, every `frequency` steps and at the end."""

    def __init__(self, frequency: int, progress: ProgressFile | None = None) -> None:
        """Set how often, and where it goes.

        The metrics also go to the trainer's loggers, and where other callbacks look for them.

        Args:
            frequency: Optimizer steps between two measurements.
            progress: A file of a line for each.
        """
        self.frequency = frequency
        self.progress = progress

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the untouched model: the adapter still adds zero."""
        assert isinstance(pl_module, SpellingModule)
        if trainer.global_step == 0:
            pl_module.eval()
            metrics = pl_module.bench.monitored_base
            pl_module.train()
            self._tell(trainer, 0, metrics)

    def on_step_end(self, trainer: pl.Trainer, module: SpellingModule, step: int) -> None:
        """Measure when it is time."""
        if step % self.frequency == 0 or step == trainer.max_steps:
            module.eval()
            metrics = module.bench.monitored()
            module.train()
            # Loggers are told apart from this: Lightning passes on every so many steps alone.
            module.log_dict(dict(metrics), logger=False)
            self._tell(trainer, step, metrics)

    def _tell(self, trainer: pl.Trainer, step: int, metrics: Mapping[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(dict(metrics), step)
        if self.progress is not None:
            self.progress.write(step, "evaluation", metrics)


class StopOnWish(StepCallback):
    """Ends the run after a step, when it is asked to or where it is to pause."""

    def __init__(self, until: int | None, is_to_stop: Callable[[], bool]) -> None:
        """Set where to pause, and who may ask."""
        self.until = until
        self.is_to_stop = is_to_stop

    def on_step_end(self, trainer: pl.Trainer, module: SpellingModule, step: int) -> None:
        """Stop when it is time; the last step ends the run by itself."""
        is_asked = said_by_any(self.is_to_stop() or step == self.until)
        if is_asked and step < trainer.max_steps:
            trainer.should_stop = True


class StopOnSignal(StopOnWish):
    """Ends the run after a step on Ctrl-C or SIGTERM, with a checkpoint; at once when told twice.

    Lightning's own way with SIGTERM ends without a checkpoint, as a success.
    """

    def __init__(self) -> None:
        """Wait for a signal."""
        super().__init__(None, lambda: self.signal is not None)
        self.signal: int | None = None
        """What came, if anything did."""
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals, over Lightning's handlers."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._take)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the signals back, before Lightning does."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the signals back."""
        self.on_train_end(trainer, pl_module)

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


class StepCheckpoints(StepCallback):
    """Saves on evaluation steps and where a run stops.

    Keeps the newest checkpoint, and the adapter of every budget.
    """

    def __init__(self, folder: TrainingFolder, frequency: int, budgets: set[int]) -> None:
        """Set where and when to save.

        Args:
            folder: The training's.
            frequency: Optimizer steps between two checkpoints.
            budgets: Steps whose adapter someone asked for.
        """
        self.folder = folder
        self.frequency = frequency
        self.budgets = budgets

    def on_step_end(self, trainer: pl.Trainer, module: SpellingModule, step: int) -> None:
        """Save when it is time."""
        if step in self.budgets and is_first():
            save_adapter(module.adapted, self.folder.adapter(step))
        is_last = step == trainer.max_steps or trainer.should_stop
        if step % self.frequency == 0 or is_last:
            self._save(trainer, step)

    def _save(self, trainer: pl.Trainer, step: int) -> None:
        older = files.steps_of(self.folder.checkpoints)
        # All processes take part in saving, and one decides: what others see of its files may lag.
        if said_by_first(bool(older) and older[-1] >= step):
            return
        trainer.save_checkpoint(self.folder.checkpoint(step), weights_only=False)
        if is_first():
            for old in older:
                files.remove_folder(self.folder.checkpoint(old))


def newest_usable_checkpoint(
    folder: TrainingFolder, at_most: int, read: Callable[[Path], object]
) -> int:
    """Return the step of the newest checkpoint that can be read, or 0 to begin anew.

    Args:
        folder: The training's.
        at_most: A later checkpoint is of no use to a shorter run.
        read: Reads a checkpoint, and raises ResultsError if it is damaged.
    """
    for step in reversed(files.steps_of(folder.checkpoints)):
        if step > at_most:
            continue
        try:
            read(folder.checkpoint(step))
        except ResultsError as error:
            with folder.log.open("a", encoding="utf-8") as log:
                log.write(f"{error}; it is set aside and the run begins earlier\n")
            files.remove_folder(folder.checkpoint(step))
            continue
        return step
    return 0
