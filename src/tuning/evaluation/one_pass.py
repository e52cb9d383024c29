"""Exact match under greedy decoding without generation: gold answers are scored in one pass.

An answer is what greedy decoding would give if and only if at each of its positions, the end token
included, the gold token has the largest logit. Cached decoding computes the same logits in another
order, so they differ in the last bits: where a decision hangs on less than 10 times the largest
difference measured, and where a wrong token could still spell the right text, the item is decoded
for real.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuning.evaluation.generation import cached_answer_logits, greedy_texts
from tuning.model.base import BaseModel, device_of
from tuning.model.packing import Packed, answer_states, on, pack, packed_batches
from tuning.model.prefix import Prefix, alike, prefix_groups, read_prefix
from tuning.model.processes import gathered, num_processes, process_index
from tuning.model.tokenizer import EncodedItem, TextTokenizer
from tuning.tasks.items import Item
from tuning.tasks.suite import Suite, choices_of
from tuning.tasks.words import keyed_rng

# Shapes: B rows, T tokens, A answer tokens of the batch (all rows), D hidden, V vocabulary.

BATCH_TOKENS = 4_096
"""Tokens of a batch, padding included. On a processor 2,048 to 4,096 pass 1.7 times faster than
16,384, which leave its caches."""
HEAD_ELEMENTS = 2**25
"""Logits held at once."""
MARGIN_FACTOR = 10
CALIBRATION_ITEMS = 48
_MOST_KEPT = 3
"""Suites that a scorer keeps ready."""

OnProgress = Callable[[int, int], None]
"""Called with items done and items in all."""


class AnswerReading(NamedTuple):
    """What one pass says of an item's answer."""

    correct: bool
    """Whether the gold token has the largest logit at every position."""
    margin: float
    """Smallest distance by which a decision fell, up to the first wrong token; in logits."""
    wrong_token: int
    """Number of right tokens before the first wrong one; -1 if there is none."""
    predicted: int
    """The token with the largest logit at that place; -1 if there is none."""
    choice: int
    """Index of the likeliest of the task's choices; -1 where the task has none."""


class Batch(NamedTuple):
    """Rows that pass through the model at once."""

    beginning: list[int]
    """Tokens that stand before all of these rows, and of their neighbours."""
    indices: list[int]
    """Which items they are."""
    rows: list[EncodedItem]
    """Without what stands before them."""
    packed: Packed
    choices: list[list[int]]


class _Prepared(NamedTuple):
    """All that does not depend on the weights: a suite is asked of many adapters."""

    items: Sequence[Item]
    encoded: Sequence[EncodedItem]
    batches: list[Batch]
    """Those with one beginning follow each other."""
    owner: list[int]
    """Of which item of the suite each is an answer."""


@dataclass(frozen=True)
class OnePassScorer:
    """Scores items on a model, with or without an adapter on it."""

    network: PreTrainedModel
    tokenizer: TextTokenizer
    margin: float
    """Decisions closer than this are decoded for real; in logits."""
    packs: bool = True
    """Whether several rows may share a sequence."""
    _kept: dict[str, _Prepared] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def for_base(cls, base: BaseModel, items: Sequence[Item]) -> OnePassScorer:
        """Return a scorer whose margin is measured on this model, type and device.

        Args:
            base: The untouched model; an adapter put on it later is scored too.
            items: Items to measure with.
        """
        sample, encoded = _calibration_sample(items, base.tokenizer)
        difference = largest_difference(base.network, sample, encoded, packs=base.packs)
        return cls(base.network, base.tokenizer, MARGIN_FACTOR * difference, base.packs)

    def score(
        self, suite: Suite, on_progress: OnProgress = lambda done, total: None
    ) -> pd.DataFrame:
        """Return a row for each item of `suite`, in its order.

        Columns: task, word, template, prompt, gold, n, letter, stratum, band, tokens (of the word,
        with | between), num_tokens, is_pseudo_word, letter_token_length, strict_correct,
        choice_correct (missing where there is no choice), choice, margin, decoded_for_real.
        """
        return self._read_own(suite, on_progress).table()

    def verdicts(self, suite: Suite) -> list[bool]:
        """Return for each item whether one pass calls it right; nothing is decoded."""
        return self._read_own(suite).verdicts()

    def begin(self, suite: Suite) -> SuiteReading:
        """Return a reading of a suite in which nothing has been read."""
        return SuiteReading(self, suite)

    def _read_own(
        self, suite: Suite, on_progress: OnProgress = lambda done, total: None
    ) -> SuiteReading:
        reading = self.begin(suite)
        num_asked = len(reading.prepared.items)
        for batch in reading.own_batches:
            reading.read(batch)
            on_progress(min(len(reading.readings) * num_processes(), num_asked), num_asked)
        return reading

    def read(self, items: Sequence[Item], encoded: Sequence[EncodedItem]) -> list[AnswerReading]:
        """Return the reading of each item, from one pass over prompt and gold answer.

        This process reads them all, whoever else is there.
        """
        readings: dict[int, AnswerReading] = {}
        passes = _Passes(self.network)
        for batch in self._batches(items, encoded):
            readings.update(passes.read(batch))
        return [readings[i] for i in range(len(items))]

    def prepared(self, suite: Suite) -> _Prepared:
        """Return a suite's items ready to be asked; the last ones are kept."""
        if suite.key not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                self._kept.clear()
            asked, owner = _with_targets(suite.items)
            encoded = self.tokenizer.encode_items(asked)
            batches = self._batches(asked, encoded)
            self._kept[suite.key] = _Prepared(asked, encoded, batches, owner)
        return self._kept[suite.key]

    def _batches(self, items: Sequence[Item], encoded: Sequence[EncodedItem]) -> list[Batch]:
        choice_ids = {task: self._choice_ids(task) for task in {str(item.task) for item in items}}
        batches = []
        for of_group, beginning in alike(items, encoded):
            rest = [_without(len(beginning), encoded[i]) for i in of_group]
            for picks, packed in packed_batches(rest, BATCH_TOKENS, together=self.packs):
                indices = [of_group[i] for i in picks]
                choices = [choice_ids[str(items[i].task)] for i in indices]
                batches.append(Batch(beginning, indices, [rest[i] for i in picks], packed, choices))
        return batches

    def _choice_ids(self, task: str) -> list[int]:
        return self.tokenizer.single_token_ids(choices_of(task))

    def is_to_decode(self, item: Item, encoded: EncodedItem, reading: AnswerReading) -> bool:
        """Return whether a decision is too close, or a wrong token may still be right."""
        if reading.margin < self.margin:
            return True
        return reading.wrong_token >= 0 and self._could_still_match(item, encoded, reading)

    def _could_still_match(self, item: Item, encoded: EncodedItem, reading: AnswerReading) -> bool:
        if reading.predicted in self.tokenizer.end_ids:
            # Another end token at the end is right; an end before it is wrong.
            return encoded.answer[reading.wrong_token] in self.tokenizer.end_ids
        done = self.tokenizer.decode(encoded.answer[: reading.wrong_token])
        piece = self.tokenizer.decode([reading.predicted])
        rest = item.answer[len(done) :]
        return rest.startswith(piece) or "\ufffd" in piece


class _Passes:
    """Batches through one network, its weights unchanged; a shared beginning is read once."""

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._beginning: list[int] = []
        self._prefix: Prefix | None = None

    @torch.inference_mode()
    def read(self, batch: Batch) -> dict[int, AnswerReading]:
        if batch.beginning != self._beginning:
            self._beginning = batch.beginning
            self._prefix = read_prefix(self._network, batch.beginning) if batch.beginning else None
        read = read_batch(self._network, batch.rows, batch.packed, batch.choices, self._prefix)
        return dict(zip(batch.indices, read, strict=True))


class SuiteReading:
    """A suite under way through one network, by one process or by several that share it.

    Each batch belongs to exactly one process, so no item is asked twice, whatever their number; and
    batches are the same for any number of processes, so the answers are too.
    """

    def __init__(self, scorer: OnePassScorer, suite: Suite) -> None:
        """Begin; see `OnePassScorer.begin`."""
        self.suite = suite
        self.prepared = scorer.prepared(suite)
        self.readings: dict[int, AnswerReading] = {}
        """What this process has read, by the number of the item asked."""
        self._scorer = scorer
        self._passes = _Passes(scorer.network)

    @property
    def own_batches(self) -> Sequence[Batch]:
        """The batches of this process."""
        return self.prepared.batches[process_index() :: num_processes()]

    def read(self, batch: Batch) -> None:
        """Have one batch of this process pass through the network."""
        self.readings.update(self._passes.read(batch))

    def verdicts(self) -> list[bool]:
        """Return for each item of the suite whether one pass calls it right; nothing is decoded.

        Every process must call this after its own batches, and gets the whole answer.
        """
        own = {i: [reading.correct] for i, reading in self.readings.items()}
        correct = gathered(own, len(self.prepared.items), 1)[: len(self.suite.items), 0]
        return [bool(value) for value in correct]

    def table(self) -> pd.DataFrame:
        """Return a row for each item of the suite; see `OnePassScorer.score`.

        Every process must call this after its own batches, and gets the whole table. What is too
        close is decoded for real by the process that has read it.
        """
        asked, encoded, _, owner = self.prepared
        decode = [
            i
            for i, reading in sorted(self.readings.items())
            if self._scorer.is_to_decode(asked[i], encoded[i], reading)
        ]
        texts = greedy_texts(
            self._scorer.network, self._scorer.tokenizer, [encoded[i] for i in decode]
        )
        decoded = dict(zip(decode, texts, strict=True))
        own = {
            i: [
                *reading,
                i in decoded,
                decoded[i] == asked[i].answer if i in decoded else reading.correct,
            ]
            for i, reading in self.readings.items()
        }
        width = len(AnswerReading._fields)
        rows = gathered(own, len(asked), width + 2)
        readings = [_reading(row[:width]) for row in rows.tolist()]
        strict = np.zeros(len(self.suite.items), dtype=bool)
        np.logical_or.at(strict, owner, rows[:, -1] != 0)
        was_decoded = {owner[i] for i in np.flatnonzero(rows[:, width]).tolist()}
        return _table(self.suite, strict, readings, was_decoded)


def _reading(row: Sequence[float]) -> AnswerReading:
    correct, margin, wrong_token, predicted, choice = row
    return AnswerReading(bool(correct), margin, int(wrong_token), int(predicted), int(choice))


def _with_targets(items: Sequence[Item]) -> tuple[list[Item], list[int]]:
    """Return the items, then each again for every other right answer, and whose each one is."""
    asked, owner = list(items), list(range(len(items)))
    for index, item in enumerate(items):
        for target in item.targets:
            asked.append(dataclasses.replace(item, answer=target, targets=()))
            owner.append(index)
    return asked, owner


def _without(length: int, row: EncodedItem) -> EncodedItem:
    return EncodedItem(row.prompt[length:], row.answer) if length else row


def read_batch(
    network: PreTrainedModel,
    rows: Sequence[EncodedItem],
    packed: Packed,
    choices: Sequence[Sequence[int]],
    prefix: Prefix | None = None,
) -> list[AnswerReading]:
    """Return the reading of each row.

    Args:
        network: Causal model.
        rows: Prompts and gold answers; where there is a prefix, without it.
        packed: The same, as they pass through the model.
        choices: For each row the token ids to choose from as its first answer token, or none.
        prefix: What stands before every row, already read.
    """
    hidden_AD = answer_states(network, on(packed, device_of(network)), prefix)
    lengths = [len(row.answer) for row in rows]
    starts = np.cumsum([0, *lengths[:-1]])
    gold_A = np.concatenate([row.answer for row in rows])
    predicted_A, gap_A = _largest_logits(network, hidden_AD)
    wrong_A = predicted_A != gold_A
    chosen = _choose(network, hidden_AD[starts], choices)
    readings = []
    for start, length, choice in zip(starts, lengths, chosen, strict=True):
        wrong = wrong_A[start : start + length]
        first = int(wrong.argmax()) if wrong.any() else -1
        decided = length if first < 0 else first + 1
        margin = float(gap_A[start : start + decided].min())
        predicted = -1 if first < 0 else int(predicted_A[start + first])
        readings.append(AnswerReading(first < 0, margin, first, predicted, choice))
    return readings


def _largest_logits(network: PreTrainedModel, hidden_AD: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the likeliest token of each position, and its lead over the second, in logits."""
    vocab_size = network.get_output_embeddings().weight.shape[0]
    predicted, gaps = [], []
    for part_AD in torch.split(hidden_AD, max(1, HEAD_ELEMENTS // vocab_size)):
        values, ids = head_logits(network, part_AD).topk(2, dim=-1)
        predicted.append(ids[:, 0].cpu())
        gaps.append((values[:, 0] - values[:, 1]).cpu())
    return torch.cat(predicted).numpy(), torch.cat(gaps).numpy()


def _choose(
    network: PreTrainedModel, first_BD: Tensor, choices: Sequence[Sequence[int]]
) -> list[int]:
    """Return for each row the index of its likeliest choice; -1 where it has none."""
    head = network.get_output_embeddings()
    chosen = [-1] * len(choices)
    for ids in {tuple(c) for c in choices if c}:
        rows = [i for i, c in enumerate(choices) if tuple(c) == ids]
        weight_CD = head.weight[list(ids)].float()
        best = (first_BD[rows].float() @ weight_CD.T).argmax(dim=-1)
        for row, choice in zip(rows, best.tolist(), strict=True):
            chosen[row] = choice
    return chosen


def head_logits(network: PreTrainedModel, hidden_AD: Tensor) -> Tensor:
    """Return logits in fp32, the head included, whatever the type of the model."""
    head = network.get_output_embeddings()
    weight: Tensor = head.weight
    return torch.nn.functional.linear(hidden_AD.float(), weight.float())


@torch.inference_mode()
def largest_difference(
    network: PreTrainedModel,
    items: Sequence[Item],
    encoded: Sequence[EncodedItem],
    *,
    packs: bool = True,
) -> float:
    """Return the largest difference of a logit between one pass and cached decoding."""
    largest, largest_logit = 0.0, 0.0
    for indices, prefix in prefix_groups(network, items, encoded):
        rows = [encoded[i] for i in indices]
        length = prefix.length if prefix else 0
        packed = pack([_without(length, row) for row in rows], together=packs)
        hidden_AD = answer_states(network, on(packed, device_of(network)), prefix)
        one_pass_AV = head_logits(network, hidden_AD).cpu()
        largest_logit = max(largest_logit, float(one_pass_AV.abs().max()))
        lengths = [len(row.answer) for row in rows]
        found = torch.split(one_pass_AV, lengths)
        by_length: dict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            by_length[len(row.prompt)].append(i)
        for same in by_length.values():
            cached = cached_answer_logits(network, [rows[i] for i in same])
            for i, logits_AV in zip(same, cached, strict=True):
                largest = max(largest, float((found[i] - logits_AV).abs().max()))
    # Two computations may agree to the last bit on a sample; rounding of fp32 is the floor.
    return max(largest, largest_logit * 2.0**-23)


def _calibration_sample(
    items: Sequence[Item], tokenizer: TextTokenizer
) -> tuple[list[Item], list[EncodedItem]]:
    """Return items for calibration, of few prompt lengths: prompts of one length decode at once."""
    drawn = sample_of(items, 4 * CALIBRATION_ITEMS)
    encoded = tokenizer.encode_items(drawn)
    lengths = [len(row.prompt) for row in encoded]
    common = Counter(lengths)
    order = sorted(range(len(drawn)), key=lambda i: (-common[lengths[i]], lengths[i], i))
    chosen = order[:CALIBRATION_ITEMS]
    return [drawn[i] for i in chosen], [encoded[i] for i in chosen]


def sample_of(items: Sequence[Item], count: int) -> list[Item]:
    """Return at most `count` items, always the same; equal distances keep step with templates."""
    return keyed_rng("calibration").sample(list(items), min(count, len(items)))


def _table(
    suite: Suite, strict: np.ndarray, readings: Sequence[AnswerReading], decoded: set[int]
) -> pd.DataFrame:
    """Return the predictions; readings past the items are of their other right answers."""
    items = suite.items
    choices = [
        choices_of(str(item.task))[reading.choice] if reading.choice >= 0 else None
        for item, reading in zip(items, readings, strict=False)
    ]
    return pd.DataFrame(
        {
            "task": [str(item.task) for item in items],
            "word": [item.word for item in items],
            "template": [item.template for item in items],
            "prompt": [item.question for item in items],
            "gold": [item.answer for item in items],
            "n": pd.array([item.n for item in items], dtype="Int64"),
            "letter": pd.array([item.letter for item in items], dtype="string"),
            "stratum": [item.stratum for item in items],
            "band": [facts.band.value for facts in suite.facts],
            "tokens": ["|".join(facts.tokens) for facts in suite.facts],
            "num_tokens": [facts.num_tokens for facts in suite.facts],
            "is_pseudo_word": [facts.is_pseudo_word for facts in suite.facts],
            "letter_token_length": pd.array(
                [facts.letter_token_length for facts in suite.facts], dtype="Int64"
            ),
            "strict_correct": strict,
            "choice_correct": pd.array(
                [
                    None if c is None else c in (i.answer, *i.targets)
                    for c, i in zip(choices, items, strict=True)
                ],
                dtype="boolean",
            ),
            "choice": pd.array(choices, dtype="string"),
            "margin": np.array([r.margin for r in readings[: len(items)]], dtype=np.float32),
            "decoded_for_real": [i in decoded for i in range(len(items))],
        }
    )
