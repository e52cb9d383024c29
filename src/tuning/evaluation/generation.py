"""Real greedy decoding: for items too close to call in one pass, for free answers, and as proof."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tuning.model.base import device_of
from tuning.model.prefix import MIN_PREFIX_TOKENS, MIN_ROWS, common_length, read_prefix
from tuning.model.tokenizer import EncodedItem, TextTokenizer

ROWS_AT_ONCE = 256


@torch.inference_mode()
def greedy_texts(
    network: PreTrainedModel,
    tokenizer: TextTokenizer,
    rows: Sequence[EncodedItem],
    extra_tokens: int | None = None,
) -> list[str]:
    """Return what greedy decoding answers to each prompt, up to the end token.

    Rows of equal prompt length go together, so that nothing is padded before the answer.

    Args:
        network: Causal model with a key-value cache.
        tokenizer: Its tokenizer.
        rows: Prompts; gold answers set how long decoding may go on.
        extra_tokens: Decode so many tokens past the gold answers' length. By default decoding
            stops where the text must already differ from the gold answer in length.
    """
    texts = [""] * len(rows)
    by_length: dict[int, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        by_length[len(row.prompt)].append(i)
    for indices in by_length.values():
        for start in range(0, len(indices), ROWS_AT_ONCE):
            chosen = indices[start : start + ROWS_AT_ONCE]
            answers = _generate(network, tokenizer, [rows[i] for i in chosen], extra_tokens)
            for i, text in zip(chosen, answers, strict=True):
                texts[i] = text
    return texts


def _generate(
    network: PreTrainedModel,
    tokenizer: TextTokenizer,
    rows: Sequence[EncodedItem],
    extra_tokens: int | None,
) -> list[str]:
    prompts_BT = torch.tensor([row.prompt for row in rows], device=device_of(network))
    if extra_tokens is None:
        # A text as long as the gold one in more tokens is at most its bytes; one more tells "too
        # long".
        longest = max(len(tokenizer.decode(row.answer).encode()) for row in rows) + 1
    else:
        longest = max(len(row.answer) for row in rows) + extra_tokens
    shared = common_length([row.prompt for row in rows]) if len(rows) >= MIN_ROWS else 0
    cache = None
    if shared >= MIN_PREFIX_TOKENS:
        cache = read_prefix(network, rows[0].prompt[:shared]).repeated(len(rows))
    output_BT = network.generate(
        prompts_BT,
        attention_mask=torch.ones_like(prompts_BT),
        past_key_values=cache,
        max_new_tokens=longest,
        do_sample=False,
        use_cache=True,
        eos_token_id=list(tokenizer.end_ids),
        pad_token_id=tokenizer.end_ids[0],
    )
    answers = output_BT[:, prompts_BT.shape[1] :].tolist()
    return [tokenizer.decode(up_to_end(answer, tokenizer.end_ids)) for answer in answers]


def up_to_end(ids: Sequence[int], end_ids: Sequence[int]) -> list[int]:
    """Return the ids before the first end token."""
    ends = [i for i, token in enumerate(ids) if token in end_ids]
    return list(ids[: ends[0]] if ends else ids)


@torch.inference_mode()
def cached_answer_logits(network: PreTrainedModel, rows: Sequence[EncodedItem]) -> list[Tensor]:
    """Return the fp32 logits of gold answers, computed token by token with a cache.

    Args:
        network: Causal model.
        rows: Prompts of one length, so that nothing is padded before the answers.

    Returns:
        For each row the shape (answer tokens, V), on the processor.
    """
    device = device_of(network)
    head, decoder = network.get_output_embeddings(), network.get_decoder()
    output = decoder(
        input_ids=torch.tensor([row.prompt for row in rows], device=device), use_cache=True
    )
    hidden = [output.last_hidden_state[:, -1]]
    for place in range(max(len(row.answer) for row in rows) - 1):
        # What follows a shorter answer is read by nobody.
        tokens = [row.answer[min(place, len(row.answer) - 1)] for row in rows]
        output = decoder(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            past_key_values=output.past_key_values,
            use_cache=True,
        )
        hidden.append(output.last_hidden_state[:, -1])
    weight: Tensor = head.weight
    return [
        torch.nn.functional.linear(states_AD[: len(row.answer)].float(), weight.float()).cpu()
        for row, states_AD in zip(rows, torch.stack(hidden, dim=1), strict=True)
    ]
