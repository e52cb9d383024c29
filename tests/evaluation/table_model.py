"""A network that answers from a table: what it says to a prompt is known by construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tuning.evaluation.bench import Bench
from tuning.evaluation.one_pass import OnePassScorer
from tuning.tasks.suite import Suite


class TableModel(nn.Module):
    """Looks up the next token by all ids so far; what is not in the table ends.

    Has what scoring and decoding use of a causal model: a decoder with a cache (its keys are the
    ids themselves), an output embedding whose rows are unit vectors, and greedy decoding.
    """

    def __init__(self, table: Mapping[tuple[int, ...], int], vocab_size: int, end: int) -> None:
        super().__init__()
        self.table = table
        self.end = end
        spoken = sorted({*table.values(), end})
        self.place = {token: place for place, token in enumerate(spoken)}
        weight = torch.zeros(vocab_size, len(spoken))
        weight[spoken, range(len(spoken))] = 1.0
        self.head = nn.Linear(len(spoken), vocab_size, bias=False)
        self.head.weight = nn.Parameter(weight, requires_grad=False)

    def next_token(self, ids: Sequence[int]) -> int:
        return self.table.get(tuple(ids), self.end)

    def get_decoder(self) -> Any:
        return self.decode

    def get_output_embeddings(self) -> nn.Linear:
        return self.head

    def decode(
        self,
        input_ids: Tensor,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = True,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
    ) -> SimpleNamespace:
        cache = DynamicCache() if past_key_values is None else past_key_values
        ids_B1T1 = input_ids.double()[:, None, :, None]
        known_B1P1, _ = cache.update(ids_B1T1, ids_B1T1, 0)
        rows = known_B1P1[:, 0, :, 0].long().tolist()
        num_new = input_ids.shape[1]
        hidden = torch.zeros(len(rows), num_new, len(self.place))
        for i, row in enumerate(rows):
            for j in range(num_new):
                seen = row[: len(row) - num_new + j + 1]
                if attention_mask is not None:
                    is_seen = (attention_mask[i, 0, j] == 0).tolist()
                    seen = [token for token, sees in zip(row, is_seen, strict=True) if sees]
                hidden[i, j, self.place[self.next_token(seen)]] = 1.0
        return SimpleNamespace(last_hidden_state=hidden, past_key_values=cache)

    def generate(
        self, prompts_BT: Tensor, max_new_tokens: int, eos_token_id: list[int], **ignored: Any
    ) -> Tensor:
        rows = []
        for prompt in prompts_BT.tolist():
            ids = list(prompt)
            while len(ids) < len(prompt) + max_new_tokens and ids[-1] not in eos_token_id:
                ids.append(self.next_token(ids))
            rows.append(ids + [self.end] * (len(prompt) + max_new_tokens - len(ids)))
        return torch.tensor(rows)


def bench_that_says(
    bench: Bench, suite: Suite, answers: Sequence[str] | Sequence[Sequence[int]]
) -> Bench:
    """Return a bench over `suite` whose model gives `answers`, as texts or as token ids."""
    tokenizer = bench.base.tokenizer
    table: dict[tuple[int, ...], int] = {}
    for row, answer in zip(tokenizer.encode_items(suite.items), answers, strict=True):
        spoken = tokenizer.encode_batch([answer])[0] if isinstance(answer, str) else answer
        for done, token in enumerate(spoken):
            table[(*row.prompt, *spoken[:done])] = token
    network: Any = TableModel(table, tokenizer.vocab_size, tokenizer.end_ids[0])
    base = dataclasses.replace(bench.base, network=network)
    return dataclasses.replace(
        bench, base=base, suite=suite, scorer=OnePassScorer.for_base(base, suite.items)
    )
