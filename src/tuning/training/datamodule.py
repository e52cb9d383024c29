"""From the stream of examples to micro-batches: where a step's rows go, and what they weigh.

The rows of an optimizer step depend on the seed and the step alone, so that 8 x 4 and 32 x 1 see
the same ones. Within a step they are sorted and cut into micro-batches, so that
rows that begin alike come together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tuning.model.packing import Packed, pack
from tuning.model.tokenizer import EncodedItem, TextTokenizer
from tuning.tasks.items import Item
from tuning.tasks.stream import Arm, TrainingStream

# Shapes: A answer tokens of the micro-batch.


class MicroBatch(NamedTuple):
    """Rows that pass through the model at once."""

    packed: Packed
    target_A: Tensor
    """The answer tokens."""
    num_step_tokens: Tensor
    """Answer tokens of the whole optimizer step, over all its micro-batches; a scalar."""
    num_tokens: Tensor
    """Prompt and answer tokens of these rows, each row counted in full; a scalar."""


def micro_batch(rows: Sequence[EncodedItem], num_step_tokens: int, *, packs: bool) -> MicroBatch:
    """Lay rows into as few tokens as they need."""
    return MicroBatch(
        pack(rows, together=packs),
        torch.tensor([token for row in rows for token in row.answer]),
        torch.tensor(num_step_tokens),
        torch.tensor(_num_tokens(rows)),
    )


def _num_tokens(rows: Sequence[EncodedItem]) -> int:
    return sum(len(row.prompt) + len(row.answer) for row in rows)


class StepBatches:
    """The micro-batches of every optimizer step."""

    def __init__(
        self,
        stream: TrainingStream,
        tokenizer: TextTokenizer,
        batch_size: int,
        num_passes: int,
        *,
        packs: bool = True,
    ) -> None:
        """Set the sizes.

        Args:
            stream: The examples.
            tokenizer: The model's.
            batch_size: Rows of a step.
            num_passes: Micro-batches that they are cut into.
            packs: Whether several rows may share a sequence.
        """
        self.stream = stream
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.num_passes = num_passes
        self.packs = packs

    def rows(self, step: int) -> list[EncodedItem]:
        """Return the rows of optimizer step `step`, counted from 0; neighbours begin alike."""
        items = self.stream.step(step, self.batch_size)
        rows = self.tokenizer.encode_items(items)
        if self.stream.arm is Arm.DIRECT:
            rows += self._rows_to_match(step, items, rows)
        return sorted(rows, key=lambda row: (row.prompt, row.answer))

    def _rows_to_match(
        self, step: int, items: Sequence[Item], rows: Sequence[EncodedItem]
    ) -> list[EncodedItem]:
        """Return the rows that the direct arm needs for as many tokens as the spelling arm."""
        spelling = dataclasses.replace(self.stream, arm=Arm.SPELLING)
        wanted = self.tokenizer.encode_items(spelling.step(step, len(items)))
        missing = _num_tokens(wanted) - _num_tokens(rows)
        more: list[EncodedItem] = []
        for item in self.stream.more_direct(step, items):
            row = self.tokenizer.encode_items([item])
            # The last row is taken if that comes nearer than leaving it.
            if missing < _num_tokens(row) / 2:
                break
            more += row
            missing -= _num_tokens(row)
        return more

    def step(self, step: int) -> list[MicroBatch]:
        """Return the micro-batches of optimizer step `step`, counted from 0."""
        rows = self.rows(step)
        num_tokens = sum(len(row.answer) for row in rows)
        ends = [i * len(rows) // self.num_passes for i in range(self.num_passes + 1)]
        return [
            micro_batch(rows[a:b], num_tokens, packs=self.packs)
            for a, b in zip(ends, ends[1:], strict=False)
        ]

    def first_hash(self) -> str:
        """Return a fingerprint of the rows of the first step: what a continuation must match."""
        text = repr([(row.prompt, row.answer) for row in self.rows(0)])
        return hashlib.sha256(text.encode()).hexdigest()


class _FromStep(IterableDataset[MicroBatch]):
    def __init__(self, batches: StepBatches, first_step: int) -> None:
        self.batches = batches
        self.first_step = first_step

    def __iter__(self) -> Iterator[MicroBatch]:
        step = self.first_step
        while True:
            yield from self.batches.step(step)
            step += 1


class SpellingData(pl.LightningDataModule):
    """Feeds a trainer from its own step on: Lightning restores the count, not the data."""

    def __init__(self, batches: StepBatches) -> None:
        """Wrap `batches`."""
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader[MicroBatch]:
        """Return an endless loader that begins at the trainer's step."""
        first_step = self.trainer.global_step if self.trainer else 0
        return DataLoader(_FromStep(self.batches, first_step), batch_size=None)
