"""The vocabulary sliced to its English part: fewer rows of embedding and head, the same body.

A sliced model gives the logits of the whole one, to the last bits, on the tokens that are left. So
an adapter, which never touches these rows, is good for both: trained on one, it loads on the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tuning.errors import ModelError
from tuning.model.tokenizer import TextTokenizer, plain_prompt
from tuning.tokens.prompts import every_question
from tuning.tokens.subset import SubsetRule, subset_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def sliced_tokenizer(whole: TextTokenizer, rule: SubsetRule, name: str) -> TextTokenizer:
    """Return a tokenizer that has rows for the English part of what `whole` has rows for.

    Args:
        whole: The model's own tokenizer.
        rule: Which tokens are English.
        name: The model, for the message.

    Raises:
        ModelError: The tokenizer is not byte-level, so tokens cannot be judged.
    """
    ends = whole.genuine(whole.end_ids)
    try:
        vocabulary = whole.vocabulary
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error
    control = {*ends, *whole.control_ids}
    subset = subset_of(vocabulary, whole.backend, rule, control, _prompts(whole), whole.has)
    sliced = dataclasses.replace(whole, kept_ids=subset.ids, subset=subset)
    return dataclasses.replace(sliced, end_ids=tuple(sliced.rows(ends)))


def _prompts(whole: TextTokenizer) -> list[str]:
    """Return every prompt, in plain text and as the model is asked, thinking on where it can."""
    styles = [plain_prompt, whole.prompt_of]
    styles += [whole.thinking_prompt_of] if whole.thinking_prompt_of else []
    texts = [answer for _, answer in every_question()]
    for question, answer in every_question():
        texts += [style(question, ((question, answer),)) for style in styles]
    return texts


def slice_rows(network: PreTrainedModel, rows: Sequence[int]) -> None:
    """Keep only some rows of a model's embedding and head, in place.

    Args:
        network: Causal model. A head tied to the embedding is tied again.
        rows: Ids that stay, in order; row i of the result is `rows[i]`.
    """
    new_id = {old: new for new, old in enumerate(rows)}
    index = torch.tensor(rows, device=network.get_input_embeddings().weight.device)
    embedding, head = network.get_input_embeddings(), network.get_output_embeddings()
    is_tied = head.weight is embedding.weight
    weight = embedding.weight.detach()[index]
    kept = nn.Embedding(
        len(rows), weight.shape[1], new_id.get(embedding.padding_idx), device="meta"
    )
    kept.weight = nn.Parameter(weight, requires_grad=embedding.weight.requires_grad)
    network.set_input_embeddings(kept)
    head.weight = (
        kept.weight
        if is_tied
        else nn.Parameter(head.weight.detach()[index], requires_grad=head.weight.requires_grad)
    )
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[index], requires_grad=head.bias.requires_grad)
    head.out_features = len(rows)
    network.config.vocab_size = len(rows)
    for settings in (network.config, network.generation_config):
        _remap_ids(settings, new_id)


def _remap_ids(settings: Any, new_id: dict[int, int]) -> None:
    """Give special tokens their new ids; one that is gone has none."""
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        old = getattr(settings, name, None)
        if isinstance(old, list):
            setattr(settings, name, [new_id[token] for token in old if token in new_id] or None)
        elif old is not None:
            setattr(settings, name, new_id.get(old))
