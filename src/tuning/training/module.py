"""The LightningModule: the loss of a step, its optimiser, and its random numbers."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from peft import PeftModel
from torch import Tensor
from transformers import get_scheduler

from tuning.config import TrainingConfig
from tuning.evaluation.one_pass import head_logits
from tuning.model.packing import answer_states
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


def step_seed(seed: int, step: int) -> int:
    """Return the seed of the random numbers (dropout) of optimizer step `step`."""
    return int(keyed_rng(seed, "dropout", step).random() * 2**53)


class SpellingModule(pl.LightningModule):
    """Trains the adapter on a frozen model with an answer-only loss."""

    def __init__(self, adapted: PeftModel, settings: TrainingConfig) -> None:
        """Wrap a model with its adapter.

        Args:
            adapted: The model; only its adapter is trained.
            settings: Optimiser, schedule and seed.
        """
        super().__init__()
        self.adapted = adapted
        self.settings = settings
        self.strict_loading = False
        self.step_loss = 0.0
        """Mean loss per answer token of the optimizer step under way, summed over micro-batches."""
        self.num_tokens = 0
        """Prompt and answer tokens trained on so far, over all attempts."""

    def on_train_batch_start(self, batch: MicroBatch, batch_idx: int) -> None:
        """Seed the random numbers of a step by (seed, step), whatever ran in between."""
        if batch_idx % self.trainer.accumulate_grad_batches == 0:
            torch.manual_seed(step_seed(self.settings.seed, self.trainer.global_step))
            self.step_loss = 0.0

    def training_step(self, batch: MicroBatch, batch_idx: int) -> Tensor:
        """Return the micro-batch's share of the step's mean loss, as Lightning needs it.

        Lightning divides by the number of micro-batches, and DDP by the number of processes, so
        both are multiplied in: the gradient is that of the mean over all answer tokens.
        """
        loss_sum = answer_loss_sum(self.adapted.get_base_model(), batch)
        self.num_tokens += int(batch.num_tokens)
        self.step_loss += float(loss_sum.detach()) / int(batch.num_step_tokens)
        shares = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return loss_sum * (shares / batch.num_step_tokens)

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained tensors alone: the frozen model is known by its hash."""
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["num_tokens"] = self.num_tokens
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {name: t for name, t in state.items() if name in trained}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting tokens."""
        self.num_tokens = checkpoint["num_tokens"]
