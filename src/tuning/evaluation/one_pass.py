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


class _Batch(NamedTuple):
    """Rows that pass through the model at once."""

    indices: list[int]
    """Which items they are."""
    rows: list[EncodedItem]
    """Without what stands before all of their group."""
    packed: Packed
    choices: list[list[int]]


class _Group(NamedTuple):
    """Rows that begin alike."""

    beginning: list[int]
    batches: list[_Batch]


class _Prepared(NamedTuple):
    """All that does not depend on the weights: a suite is asked of many adapters."""

    items: Sequence[Item]
    encoded: Sequence[EncodedItem]
    groups: list[_Group]


@dataclass(frozen=True)
class OnePassScorer:
    """Scores items on a model, with or without an adapter on it."""

    network: PreTrainedModel
    tokenizer: TextTokenizer
    margin: float
    """Decisions closer than this are decoded for real; in logits."""
    packs: bool = True
    """Whether several rows may share a sequence."""
    _kept: dict[str, tuple[_Prepared, list[int]]] = field(
        default_factory=dict, repr=False, compare=False
    )

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
        prepared, owner = self._prepared(suite)
        asked, encoded = prepared.items, prepared.encoded
        readings = self._read(prepared, on_progress)
        verdicts = np.array([reading.correct for reading in readings])
        decode = self._to_decode(asked, encoded, readings)
        texts = greedy_texts(self.network, self.tokenizer, [encoded[i] for i in decode])
        for i, text in zip(decode, texts, strict=True):
            verdicts[i] = text == asked[i].answer
        strict = np.zeros(len(suite.items), dtype=bool)
        np.logical_or.at(strict, owner, verdicts)
        return _table(suite, strict, readings, {owner[i] for i in decode})

    def verdicts(self, suite: Suite) -> list[bool]:
        """Return for each item whether one pass calls it right; nothing is decoded."""
        prepared, _ = self._prepared(suite)
        return [reading.correct for reading in self._read(prepared)[: len(suite.items)]]

    def read(
        self,
        items: Sequence[Item],
        encoded: Sequence[EncodedItem],
        on_progress: OnProgress = lambda done, total: None,
    ) -> list[AnswerReading]:
        """Return the reading of each item, from one pass over prompt and gold answer."""
        return self._read(self._prepare(items, encoded), on_progress)

    @torch.inference_mode()
    def _read(
        self, prepared: _Prepared, on_progress: OnProgress = lambda done, total: None
    ) -> list[AnswerReading]:
        readings: dict[int, AnswerReading] = {}
        for beginning, batches in prepared.groups:
            prefix = read_prefix(self.network, beginning) if beginning else None
            for batch in batches:
                read = read_batch(self.network, batch.rows, batch.packed, batch.choices, prefix)
                readings.update(zip(batch.indices, read, strict=True))
                on_progress(len(readings), len(prepared.items))
        return [readings[i] for i in range(len(prepared.items))]

    def _prepared(self, suite: Suite) -> tuple[_Prepared, list[int]]:
        """Return a suite's items ready to be asked, and of which item each is an answer."""
        if suite.key not in self._kept:
            if len(self._kept) == _MOST_KEPT:
                self._kept.clear()
            asked, owner = _with_targets(suite.items)
            self._kept[suite.key] = (
                self._prepare(asked, self.tokenizer.encode_items(asked)),
                owner,
            )
        return self._kept[suite.key]

    def _prepare(self, items: Sequence[Item], encoded: Sequence[EncodedItem]) -> _Prepared:
        choice_ids = {task: self._choice_ids(task) for task in {str(item.task) for item in items}}
        groups = []
        for of_group, beginning in alike(items, encoded):
            rest = [_without(len(beginning), encoded[i]) for i in of_group]
            batches = []
            for picks, packed in packed_batches(rest, BATCH_TOKENS, together=self.packs):
                indices = [of_group[i] for i in picks]
                choices = [choice_ids[str(items[i].task)] for i in indices]
                batches.append(_Batch(indices, [rest[i] for i in picks], packed, choices))
            groups.append(_Group(beginning, batches))
        return _Prepared(items, encoded, groups)

    def _choice_ids(self, task: str) -> list[int]:
        return self.tokenizer.single_token_ids(choices_of(task))

    def _to_decode(
        self,
        items: Sequence[Item],
        encoded: Sequence[EncodedItem],
        readings: Sequence[AnswerReading],
    ) -> list[int]:
        """Return the items whose decision is too close, or whose wrong token may still be right."""
        close = [i for i, r in enumerate(readings) if r.margin < self.margin]
        respelled = [
            i
            for i, r in enumerate(readings)
            if r.wrong_token >= 0 and self._could_still_match(items[i], encoded[i], r)
        ]
        return sorted({*close, *respelled})

    def _could_still_match(self, item: Item, encoded: EncodedItem, reading: AnswerReading) -> bool:
        if reading.predicted in self.tokenizer.end_ids:
            # Another end token at the end is right; an end before it is wrong.
            return encoded.answer[reading.wrong_token] in self.tokenizer.end_ids
        done = self.tokenizer.decode(encoded.answer[: reading.wrong_token])
        piece = self.tokenizer.decode([reading.predicted])
        rest = item.answer[len(done) :]
        return rest.startswith(piece) or "\ufffd" in piece


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
