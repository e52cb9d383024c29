"""From the stream of examples to micro-batches: where a step's rows go, and what they weigh.

The rows of an optimizer step depend on the seed and the step alone, so that 8 x 4 and 32 x 1 see
the same ones. Within a step they are sorted and cut into micro-batches, so that
rows that begin alike come together.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tuning.config import ExperimentConfig
from tuning.evaluation.bench import Bench, load_bench
from tuning.evaluation.one_pass import Batch
from tuning.model.base import training_data_of
from tuning.model.packing import Packed, pack
from tuning.model.tokenizer import EncodedItem, TextTokenizer
from tuning.tasks.items import Item
from tuning.tasks.splits import Split
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
        *,
        packs: bool = True,
    ) -> None:
        """Set the sizes.

        Args:
            stream: The examples.
            tokenizer: The model's.
            batch_size: Rows of a step.
            packs: Whether several rows may share a sequence.
        """
        self.stream = stream
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.packs = packs

    @classmethod
    def of(
        cls, experiment: ExperimentConfig, bench: Bench, stream: TrainingStream | None = None
    ) -> StepBatches:
        """Return the batches that an experiment trains on.

        Args:
            experiment: Data settings and sizes.
            bench: The model and its words.
            stream: The examples, where they are known already.

        Raises:
            UserError: A file of the user's own cannot be used, or no word is left.
        """
        tokenizer = bench.base.tokenizer
        if stream is None:
            stream = training_data_of(experiment, bench.words[Split.TRAIN], tokenizer).stream
        size = experiment.training_config.effective_batch_size
        return cls(stream, tokenizer, size, packs=bench.base.packs)

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

    def step(
        self, step: int, num_parts: int = 1, wanted: Sequence[int] | None = None
    ) -> list[MicroBatch]:
        """Return micro-batches of optimizer step `step`, counted from 0.

        Args:
            step: Which step.
            num_parts: Micro-batches that its rows are cut into, over all processes.
            wanted: Which of these; None for all.
        """
        rows = self.rows(step)
        num_tokens = sum(len(row.answer) for row in rows)
        ends = [i * len(rows) // num_parts for i in range(num_parts + 1)]
        return [
            micro_batch(rows[ends[i] : ends[i + 1]], num_tokens, packs=self.packs)
            for i in (range(num_parts) if wanted is None else wanted)
        ]

    def first_hash(self) -> str:
        """Return a fingerprint of the rows of the first step: what a continuation must match."""
        text = repr([(row.prompt, row.answer) for row in self.rows(0)])
        return hashlib.sha256(text.encode()).hexdigest()


class _FromStep(IterableDataset[MicroBatch]):
    def __init__(
        self, batches: StepBatches, first_step: int, num_parts: int, wanted: Sequence[int]
    ) -> None:
        self.batches = batches
        self.first_step = first_step
        self.num_parts = num_parts
        self.wanted = wanted

    def __iter__(self) -> Iterator[MicroBatch]:
        step = self.first_step
        while True:
            yield from self.batches.step(step, self.num_parts, self.wanted)
            step += 1


class _Questions(IterableDataset[Batch]):
    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class SpellingData(pl.LightningDataModule):
    """Feeds a trainer: training rows from its own step on, and the questions of both suites.

    A step always has the rows that the experiment says; the trainer's ``accumulate_grad_batches``
    times its processes says into how many micro-batches they are cut, and each process gets its
    own. Lightning restores the count of steps, not the data, so these begin at the count.
    """

    def __init__(
        self,
        experiment: ExperimentConfig,
        bench: Bench | None = None,
        batches: StepBatches | None = None,
    ) -> None:
        """Set what is fed.

        Args:
            experiment: Data settings and sizes.
            bench: The model and its words; if not given, those of the trainer's module.
            batches: The training batches, where they are known already.
        """
        super().__init__()
        self.experiment = experiment
        self._bench = bench
        self._batches = batches

    @property
    def bench(self) -> Bench:
        """The model and its words.

        Raises:
            UserError: The model cannot be had.
        """
        if self._bench is None:
            module: Any = self.trainer.lightning_module if self.trainer else None
            self._bench = module.bench if module is not None else load_bench(self.experiment)
        return self._bench

    @property
    def batches(self) -> StepBatches:
        """The training batches.

        Raises:
            UserError: A file of the user's own cannot be used.
        """
        if self._batches is None:
            self._batches = StepBatches.of(self.experiment, self.bench)
        return self._batches

    def train_dataloader(self) -> DataLoader[MicroBatch]:
        """Return an endless loader that begins at the trainer's step."""
        if self.trainer is None:
            return DataLoader(_FromStep(self.batches, 0, 1, [0]), batch_size=None)
        passes = self.trainer.accumulate_grad_batches
        first = self.trainer.global_rank * passes
        own = _FromStep(
            self.batches,
            self.trainer.global_step,
            passes * self.trainer.world_size,
            range(first, first + passes),
        )
        return DataLoader(own, batch_size=None)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return this process's questions of the small suite."""
        own = self.bench.scorer.begin(self.bench.monitor).own_batches
        return DataLoader(_Questions(own), batch_size=None)

    def test_dataloader(self) -> DataLoader[Batch]:
        """Return this process's questions of the final suite."""
        own = self.bench.scorer.begin(self.bench.suite).own_batches
        return DataLoader(_Questions(own), batch_size=None)
