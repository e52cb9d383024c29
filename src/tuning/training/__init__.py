"""Learning: a LightningModule, its data, and what happens beside its steps; usable on their own."""

from tuning.training.callbacks import TransferEvaluation
from tuning.training.checkpoint import SafetensorsCheckpointIO
from tuning.training.datamodule import SpellingData
from tuning.training.module import SpellingModule
from tuning.training.run import trainer_arguments

__all__ = [
    "SafetensorsCheckpointIO",
    "SpellingData",
    "SpellingModule",
    "TransferEvaluation",
    "trainer_arguments",
]
