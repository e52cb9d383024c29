"""Shared beginnings of prompts: a chat template's head, few-shot examples. Read once, not per item.

A prompt of 90 tokens of which 70 are the same for every item of a template costs 20.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tuning.model.base import device_of
from tuning.model.tokenizer import EncodedItem
from tuning.tasks.items import Item

MIN_PREFIX_TOKENS = 16
"""A shorter beginning is not worth its own batches."""
MIN_ROWS = 4

# Shapes: B rows, H key-value heads, P tokens of the prefix, D head size.


@dataclass(frozen=True)
class Prefix:
    """The keys and values of a beginning that several prompts share."""

    length: int
    layers: tuple[tuple[Tensor, Tensor], ...]
    """Keys and values of each layer, shape (1, H, P, D)."""

    def repeated(self, num_rows: int) -> DynamicCache:
        """Return a cache of its own for a batch of `num_rows` rows."""
        cache = DynamicCache()
        for layer, (keys, values) in enumerate(self.layers):
            cache.update(
                keys.expand(num_rows, -1, -1, -1), values.expand(num_rows, -1, -1, -1), layer
            )
        return cache


@torch.inference_mode()
def read_prefix(network: PreTrainedModel, ids: Sequence[int]) -> Prefix:
    """Pass a beginning through the model once."""
    ids_BT = torch.tensor([list(ids)], device=device_of(network))
    cache = network.get_decoder()(input_ids=ids_BT, use_cache=True).past_key_values
    return Prefix(len(ids), tuple((layer.keys, layer.values) for layer in cache.layers))


def common_length(prompts: Sequence[list[int]]) -> int:
    """Return how many tokens all prompts begin with, leaving each at least one of its own."""
    first, last = min(prompts), max(prompts)
    # Whatever the least and the greatest share, all between them share too.
    limit = min(len(prompt) for prompt in prompts) - 1
    for place in range(limit):
        if first[place] != last[place]:
            return place
    return max(0, limit)


def alike(
    items: Sequence[Item], encoded: Sequence[EncodedItem]
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield groups of rows with the tokens that all of a group begin with; last, all the others.

    Args:
        items: What is asked; items of one task and template begin alike.
        encoded: Their ids.
    """
    by_template: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        by_template[str(item.task), item.template].append(index)
    alone: list[int] = []
    for rows in by_template.values():
        prompts = [encoded[i].prompt for i in rows]
        length = common_length(prompts) if len(rows) >= MIN_ROWS else 0
        if length < MIN_PREFIX_TOKENS:
            alone += rows
            continue
        yield rows, prompts[0][:length]
    if alone:
        yield sorted(alone), []


def prefix_groups(
    network: PreTrainedModel, items: Sequence[Item], encoded: Sequence[EncodedItem]
) -> Iterator[tuple[list[int], Prefix | None]]:
    """Yield the same groups with their beginnings already read; None for the last.

    Args:
        network: The model, any adapter already on it.
        items: What is asked.
        encoded: Their ids.
    """
    for rows, ids in alike(items, encoded):
        yield rows, read_prefix(network, ids) if ids else None
