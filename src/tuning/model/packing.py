"""Several rows in one sequence: nothing padded, shared beginnings passed through the model once.

Rows of a batch are short and of many lengths, and many begin with the same words. Sorted, they are
laid one after the other into sequences, each token once behind the tokens that stand before it in
its row: a tree, of which every row is a path. A mask lets a token see its own path alone, and its
position is its depth, so each row is computed as if it stood alone, up to rounding. Tree attention
is known from speculative decoding (Miao et al. 2023, arXiv:2305.09781, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tuning.model.base import device_of
from tuning.model.prefix import Prefix
from tuning.model.tokenizer import EncodedItem

# Shapes: B sequences, T tokens, P tokens of what stands before, A answer tokens of all rows, one
# row after the other, D hidden.

SEQUENCE_TOKENS = (128, 256, 384, 512)
"""A sequence is filled up to one of these: where rows begin alike for long, as by a chat template,
long ones save more than their attention costs."""
ATTENTION_TOKENS = 2500
"""In a sequence of so many tokens each costs about twice as much as in a very short one, on a
processor: `benchmarks/step.py` with sequences of 128 to 1,200."""
WIDTH_STEP = 8
"""Widths are whole multiples: attention on a GPU wants it."""


class Packed(NamedTuple):
    """Rows as they pass through the model."""

    ids_BT: Tensor
    position_BT: Tensor
    """Depth of each token in its row."""
    seen_BTT: Tensor | None
    """Whether a token sees another one of its sequence; None if it sees all before it."""
    row_A: Tensor
    """Sequence of the position that predicts each answer token."""
    token_A: Tensor
    """Place of that position in its sequence."""


def pack(rows: Sequence[EncodedItem], *, together: bool = True) -> Packed:
    """Lay rows into sequences of about equal length, one of `SEQUENCE_TOKENS` or less.

    Args:
        rows: Prompts and answers; of each the last token is left out, as it predicts nothing.
        together: Several rows in one sequence; False gives each its own, padded on the right.
    """
    tree = _Tree.of(rows, together=together)
    return tree.packed(tree.starts(tree.width()), range(len(rows)))


def packed_batches(
    rows: Sequence[EncodedItem], batch_tokens: int, *, together: bool = True
) -> Iterator[tuple[list[int], Packed]]:
    """Yield each row once: indices of rows, and these rows in about `batch_tokens` tokens."""
    tree = _Tree.of(rows, together=together)
    width = tree.width()
    starts = tree.starts(width)
    at_once = max(1, batch_tokens // width)
    for first in range(0, len(starts), at_once):
        chosen = starts[first : first + at_once]
        end = starts[first + at_once] if first + at_once < len(starts) else len(rows)
        indices = tree.order[chosen[0] : end]
        yield indices, tree.packed(chosen, indices)


@dataclass(frozen=True)
class _Tree:
    """Rows in sorted order, where no earlier row shares more with a row than the one before it."""

    rows: Sequence[EncodedItem]
    texts: list[list[int]]
    order: list[int]
    """Rows, sorted by their tokens."""
    shared: list[int]
    """How many tokens each begins with as the one before it, in sorted order."""
    together: bool
    """Whether sequences hold more than one row."""

    @classmethod
    def of(cls, rows: Sequence[EncodedItem], *, together: bool) -> _Tree:
        texts = [(row.prompt + row.answer)[:-1] for row in rows]
        key = texts.__getitem__ if together else lambda i: len(texts[i])
        order = sorted(range(len(rows)), key=key)
        in_order = [texts[i] for i in order]
        return cls(rows, texts, order, [0, *map(_num_shared, in_order, in_order[1:])], together)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.texts), default=0)

    def starts(self, width: int) -> list[int]:
        """Return at which places of the order new sequences of at most `width` tokens begin."""
        if not self.together:
            return list(range(len(self.rows)))
        starts: list[int] = []
        used = width
        for place, row in enumerate(self.order):
            length = len(self.texts[row])
            new = length - self.shared[place]
            if used + new > width:
                starts.append(place)
                used, new = 0, length
            used += new
        return starts

    def width(self) -> int:
        """Return up to how many tokens sequences are to be filled so that all take least time."""
        if not self.together:
            return self.longest
        widths = [self._even_width(max(limit, self.longest)) for limit in SEQUENCE_TOKENS]
        return min(widths, key=self._cost)

    def _cost(self, width: int) -> float:
        return len(self.starts(width)) * width * (1 + width / ATTENTION_TOKENS)

    def _even_width(self, most: int) -> int:
        """Return the least width that needs no more sequences than `most`."""
        least = self.longest
        num_sequences = len(self.starts(most))
        while least < most:
            middle = (least + most) // 2
            if len(self.starts(middle)) > num_sequences:
                least = middle + 1
            else:
                most = middle
        return most

    def packed(self, starts: Sequence[int], indices: Sequence[int]) -> Packed:
        """Return the sequences that begin at `starts`; answers in the order of `indices`."""
        end = starts[0] + len(indices)
        laid = [
            self._lay(self.order[a:b], a) for a, b in zip(starts, [*starts[1:], end], strict=True)
        ]
        longest = max(len(ids) for ids, _ in laid)
        width = -(-longest // WIDTH_STEP) * WIDTH_STEP
        ids_BT = np.zeros((len(laid), width), dtype=np.int64)
        position_BT = np.zeros_like(ids_BT)
        # What fills up sees itself: a softmax over nothing is not a number.
        seen_BTT = np.repeat(np.eye(width, dtype=bool)[None], len(laid), axis=0)
        places: dict[int, tuple[int, list[int]]] = {}
        for number, (ids, paths) in enumerate(laid):
            ids_BT[number, : len(ids)] = ids
            for row, path in paths.items():
                position_BT[number, path] = np.arange(len(path))
                seen_BTT[number][np.ix_(path, path)] |= np.tri(len(path), dtype=bool)
                first = len(self.rows[row].prompt) - 1
                places[row] = number, path[first : first + len(self.rows[row].answer)]
        answers = [places[row] for row in indices]
        return Packed(
            torch.from_numpy(ids_BT),
            torch.from_numpy(position_BT),
            torch.from_numpy(seen_BTT) if self.together else None,
            torch.tensor([number for number, path in answers for _ in path]),
            torch.tensor([place for _, path in answers for place in path]),
        )

    def _lay(self, rows: Sequence[int], start: int) -> tuple[list[int], dict[int, list[int]]]:
        """Return the tokens of one sequence, and of each of its rows where its tokens are."""
        ids: list[int] = []
        paths: dict[int, list[int]] = {}
        path: list[int] = []
        for place, row in enumerate(rows, start):
            text = self.texts[row]
            shared = self.shared[place] if place > start else 0
            path = [*path[:shared], *range(len(ids), len(ids) + len(text) - shared)]
            ids += text[shared:]
            paths[row] = path
        return ids, paths


def _num_shared(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    for count, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return count
    return min(len(a), len(b))


def answer_states(network: PreTrainedModel, packed: Packed, prefix: Prefix | None = None) -> Tensor:
    """Return the hidden state that predicts each answer token, shape (A, D).

    Args:
        network: Causal model, any adapter already on it.
        packed: The rows; where there is a prefix, without it. On the model's device.
        prefix: What stands before every row, already read.
    """
    before = prefix.length if prefix else 0
    cache: DynamicCache | None = prefix.repeated(len(packed.ids_BT)) if prefix else None
    seen: dict[str, Tensor] = {}
    if packed.seen_BTT is not None:
        dtype = network.get_output_embeddings().weight.dtype
        seen["attention_mask"] = _additive_mask(packed.seen_BTT, before, dtype)
        seen["position_ids"] = packed.position_BT + before
    hidden_BTD: Tensor = network.get_decoder()(
        input_ids=packed.ids_BT, past_key_values=cache, use_cache=cache is not None, **seen
    ).last_hidden_state
    return hidden_BTD[packed.row_A, packed.token_A]


def _additive_mask(seen_BTT: Tensor, before: int, dtype: torch.dtype) -> Tensor:
    """Return what is added to attention scores, shape (B, 1, T, P + T): 0, or nearly -infinity."""
    size, width, _ = seen_BTT.shape
    mask = torch.zeros((size, 1, width, before + width), dtype=dtype, device=seen_BTT.device)
    mask[..., before:].masked_fill_(~seen_BTT[:, None], torch.finfo(dtype).min)
    return mask


@torch.inference_mode()
def can_pack(network: PreTrainedModel) -> bool:
    """Return whether rows that share a sequence come out as they do alone, tried on this model.

    They do where tokens meet in attention alone; convolutions and recurrences know no mask.
    """
    rows = [EncodedItem([1, 2, 3], [4, 5, 6]), EncodedItem([1, 2, 7, 8], [9, 10])]
    device = device_of(network)
    alone, together = (on(pack(rows, together=how), device) for how in (False, True))
    expected_AD = answer_states(network, alone).float()
    try:
        found_AD = answer_states(network, together).float()
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError):
        return False
    return bool((found_AD - expected_AD).abs().max() <= _SAME * expected_AD.abs().max())


_SAME = 0.05
"""Share of the largest state by which two ways of computing may differ, in half precision too."""


def on(packed: Packed, device: torch.device) -> Packed:
    """Return the same on another device."""
    seen_BTT = None if packed.seen_BTT is None else packed.seen_BTT.to(device)
    return Packed(
        packed.ids_BT.to(device),
        packed.position_BT.to(device),
        seen_BTT,
        packed.row_A.to(device),
        packed.token_A.to(device),
    )
