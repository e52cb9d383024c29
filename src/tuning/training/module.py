"""The LightningModule: the loss of a step, its optimiser, its random numbers, its measures."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from peft import PeftModel
from torch import Tensor
from transformers import get_scheduler

from tuning.config import ExperimentConfig
from tuning.errors import ResultsError
from tuning.evaluation.bench import Bench, last_bench, load_bench
from tuning.evaluation.one_pass import Batch, SuiteReading, head_logits
from tuning.fingerprint import training_key
from tuning.measures import honest_accuracies
from tuning.model.base import last_base
from tuning.model.lora import fresh_adapter, recomputing, stored_adapter
from tuning.model.packing import answer_states
from tuning.model.processes import summed
from tuning.tasks.suite import Suite
from tuning.tasks.words import keyed_rng
from tuning.training.datamodule import MicroBatch

# Shapes: A answer tokens of the micro-batch, V vocabulary.


def answer_loss_sum(network: Any, batch: MicroBatch) -> Tensor:
    """Return the summed cross-entropy of the answer tokens; prompts never reach the head.

    Args:
        network: Causal model, any adapter already on it.
        batch: Rows of one micro-batch.
    """
    logits_AV = head_logits(network, answer_states(network, batch.packed))
    return torch.nn.functional.cross_entropy(logits_AV, batch.target_A, reduction="sum")


def part_seed(seed: int, step: int, part: int) -> int:
    """Return the seed of the random numbers (dropout) of one micro-batch.

    Args:
        seed: The training's.
        step: Optimizer step, from 0.
        part: Which micro-batch of the step, over all processes, from 0.
    """
    # A step that is not cut draws what it always drew.
    key = (step, part) if part else (step,)
    return int(keyed_rng(seed, "dropout", *key).random() * 2**53)


class SpellingModule(pl.LightningModule):
    """A frozen model with an adapter: trains it on answers alone, and measures what it can do.

    The adapter is put on the model when a trainer begins, or by `configure_model`. Use as a context
    manager, or call `close`, where the model is to be used again without it.

    Logged are ``train/loss`` and ``learning_rate`` of each optimizer step; in validation
    ``spelling/accuracy``, ``transfer/position/accuracy`` and ``transfer/count/accuracy`` over the
    small suite that training is watched with, each with its 95 % interval, its number of items and
    what a guesser reaches that never looks at the word; in a test the same over the final suite.
    """

    adapted: PeftModel
    """The model with its adapter, once that is on it."""

    def __init__(
        self,
        experiment: ExperimentConfig,
        bench: Bench | None = None,
        adapter: Path | None = None,
    ) -> None:
        """Set what is trained.

        Args:
            experiment: Model, adapter, optimiser, schedule and seed.
            bench: The model, and what it is asked. If not given it is loaded when it is needed,
                for this module alone.
            adapter: Folder of a stored adapter in PEFT's format to begin with, or to measure; None
                for a new one.
        """
        super().__init__()
        self.experiment = experiment
        self.settings = experiment.training_config
        self.adapter = adapter
        self.strict_loading = False
        self.step_loss = 0.0
        """Mean loss per answer token of the optimizer step under way, summed over micro-batches;
        when the step has ended, over all processes."""
        self.num_tokens = 0
        """Prompt and answer tokens trained on so far, over all attempts and processes."""
        self.num_micro_batches = 1
        """Micro-batches that a step is cut into, over all processes; known from `setup` on."""
        self.training_key = training_key(experiment)
        """Names what is trained: a checkpoint of something else does not go on with it."""
        self._bench = bench
        self._step_tokens = 0
        self._on_base = contextlib.ExitStack()
        self._reading: SuiteReading | None = None
        self._is_whole = True

    @property
    def bench(self) -> Bench:
        """The model, and what it is asked.

        Raises:
            UserError: The model cannot be had.
        """
        if self._bench is None:
            self._bench = load_bench(self.experiment)
            # Another module of this process must not find this one's adapter on its model.
            last_bench.forget()
            last_base.forget()
        return self._bench

    def configure_model(self) -> None:
        """Put the adapter on the model, unless it is there.

        Raises:
            UserError: The model cannot be had, or the adapter does not fit it.
        """
        if "adapted" in self._modules:
            return
        base, lora = self.bench.base, self.experiment.lora_config
        if self.adapter is None:
            put_on = fresh_adapter(base, lora, self.settings.seed)
        else:
            put_on = stored_adapter(base, self.adapter, is_trainable=True)
        adapted = self._on_base.enter_context(put_on)
        if self.settings.gradient_checkpointing:
            self._on_base.enter_context(recomputing(base))
        self.adapted = adapted

    def close(self) -> None:
        """Take the adapter off the model."""
        self._modules.pop("adapted", None)
        self._on_base.close()

    def cpu(self) -> Self:
        """Do nothing: Lightning ends a run with this, and would take a shared model off its GPU."""
        return self

    def __enter__(self) -> Self:
        """Return the module."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the adapter off the model."""
        self.close()

    # --- training ---------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """See into how many micro-batches a step is cut."""
        self.num_micro_batches = self.trainer.accumulate_grad_batches * self.trainer.world_size

    def on_train_batch_start(self, batch: MicroBatch, batch_idx: int) -> None:
        """Seed the random numbers of a micro-batch by (seed, step, part), whatever ran before."""
        passes = self.trainer.accumulate_grad_batches
        number = batch_idx % passes
        if number == 0:
            self.step_loss, self._step_tokens = 0.0, 0
        part = self.trainer.global_rank * passes + number
        torch.manual_seed(part_seed(self.settings.seed, self.trainer.global_step, part))

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's share of the step's mean loss, as Lightning needs it.

        Lightning divides by the number of micro-batches, and DDP by the number of processes, so
        both are multiplied in: the gradient is that of the mean over all answer tokens.
        """
        loss_sum = answer_loss_sum(self.adapted.get_base_model(), batch)
        self._step_tokens += int(batch.num_tokens)
        self.step_loss += float(loss_sum.detach()) / int(batch.num_step_tokens)
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches == 0:
            self._end_step()
        return loss_sum * (self.num_micro_batches / batch.num_step_tokens)

    def _end_step(self) -> None:
        """Add up what all processes saw of the step, and log it."""
        own = torch.tensor([self.step_loss, self._step_tokens], dtype=torch.float64)
        loss, num_tokens = summed(own).tolist()
        self.step_loss = loss
        self.num_tokens += int(num_tokens)
        if self.trainer.loggers:
            rate = self.trainer.optimizers[0].param_groups[0]["lr"]
            self.log_dict({"train/loss": loss, "learning_rate": rate}, batch_size=1)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Return AdamW over the adapter, and its schedule by optimizer step."""
        settings = self.settings
        optimizer = torch.optim.AdamW(
            [p for p in self.parameters() if p.requires_grad],
            lr=settings.learning_rate,
            # One kernel for all tensors; fused ones refuse clipping under fp16.
            foreach=True,
            betas=(settings.adam_beta1, settings.adam_beta2),
            weight_decay=settings.weight_decay,
        )
        schedule = get_scheduler(
            settings.schedule.value, optimizer, settings.warmup_steps, settings.max_steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    # --- measuring --------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Begin with the small suite."""
        self._begin(self.bench.monitor, self.trainer.limit_val_batches)

    def on_test_epoch_start(self) -> None:
        """Begin with the final suite."""
        self._begin(self.bench.suite, self.trainer.limit_test_batches)

    def _begin(self, suite: Suite, limit: float | None) -> None:
        # Of a part nothing can be said: what a task asks is spread over the whole.
        self._is_whole = not self.trainer.sanity_checking and not (
            getattr(self.trainer, "fast_dev_run", False)
        )
        # A whole number counts batches, so that 1 is one batch and 1.0 are all.
        is_all = limit is None or (isinstance(limit, float) and limit == 1.0)
        if self._is_whole and not is_all:
            raise MisconfigurationException(
                f"a suite is asked as a whole, and the trainer is told to take {limit} of its "
                f"batches; evaluation_config.num_words and num_monitor_words make smaller ones"
            )
        self._reading = self.bench.scorer.begin(suite)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Have one batch of questions read."""
        assert self._reading is not None
        self._reading.read(batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Have one batch of questions read."""
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Log the accuracies over the answers of all processes, and what they rest on."""
        assert self._reading is not None
        if self._is_whole:
            table = self._reading.table()
            self.log_dict(honest_accuracies(table, self.bench.baseline_of))

    def on_test_epoch_end(self) -> None:
        """Log the same of the final suite."""
        self.on_validation_epoch_end()

    # --- checkpoints ------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors alone: the frozen model is known by its hash."""
        checkpoint["num_tokens"] = self.num_tokens
        checkpoint["base"] = self._base_identity()
        checkpoint["training"] = self.training_key
        checkpoint["micro_batches"] = self.num_micro_batches
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: state[name] for name in self._trained()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting tokens.

        Raises:
            ResultsError: The checkpoint is not of this model with this adapter.
        """
        self.check_fits(checkpoint)
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_continues(checkpoint)
            self._count_own_batches(checkpoint)
        self.num_tokens = checkpoint["num_tokens"]

    def _count_own_batches(self, checkpoint: Mapping[str, Any]) -> None:
        """Have the loop's count of batches be this process's own, at the end of a step.

        Lightning finds the end of a step by that count. Another number of processes made another
        number of batches, and data begin anew with the step in any case.
        """
        counts = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        own = checkpoint["global_step"] * self.trainer.accumulate_grad_batches
        missing = own - counts["current"]["ready"]
        for kind in ("total", "current"):
            counts[kind] = {name: number + missing for name, number in counts[kind].items()}

    def check_continues(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another training, or of one whose steps were cut otherwise.

        Raises:
            ResultsError: It is one.
        """
        if checkpoint.get("training") != self.training_key:
            raise ResultsError(
                f"the checkpoint belongs to training {checkpoint.get('training')}, this is "
                f"{self.training_key}: a run goes on with the settings that it was begun with"
            )
        step, made = checkpoint["global_step"], _steps_of_optimizer(checkpoint)
        if made > step:
            # Fewer may be: in fp16 a step that overflows is left out.
            raise ResultsError(f"the checkpoint says step {step}, and its optimiser {made}")
        parts = checkpoint.get("micro_batches")
        if parts != self.num_micro_batches:
            raise ResultsError(
                f"the checkpoint was made with {parts} micro-batches a step over all processes, "
                f"now {self.num_micro_batches}; processes times accumulate_grad_batches must be "
                f"{parts}"
            )

    def check_fits(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another base model, or of another adapter.

        Raises:
            ResultsError: It does not fit; says where.
        """
        if checkpoint.get("base") != self._base_identity():
            raise ResultsError(
                f"the checkpoint was made on another base model: {checkpoint.get('base')}, "
                f"now {self._base_identity()}"
            )
        state = checkpoint["state_dict"]
        trained = self._trained()
        for name in sorted(trained.keys() ^ state.keys()):
            raise ResultsError(
                f"the checkpoint does not fit this adapter: {name} is "
                f"{'missing' if name in trained else 'unexpected'}"
            )
        for name, parameter in trained.items():
            if state[name].shape != parameter.shape:
                raise ResultsError(
                    f"the checkpoint does not fit this adapter: {name} is "
                    f"{tuple(state[name].shape)}, not {tuple(parameter.shape)}"
                )
            if not bool(torch.isfinite(state[name]).all()):
                raise ResultsError(f"the checkpoint holds values that are no numbers: {name}")

    def _trained(self) -> dict[str, torch.nn.Parameter]:
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def _base_identity(self) -> str:
        return f"{self.bench.base.name} {self.bench.base.weights_hash[:16]}"


def _steps_of_optimizer(checkpoint: Mapping[str, Any]) -> int:
    """Return how many steps the optimiser of a checkpoint has made."""
    try:
        (optimizer,) = checkpoint["optimizer_states"]
        return max((int(state["step"]) for state in optimizer["state"].values()), default=0)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ResultsError("the checkpoint's optimizer_states are none of AdamW's") from error
