"""Retention: what a training on spelling did to everything else. Drift is a cost.

Loss and KL divergence to the untouched model, on replay items about held-out words and on a short
text that ships with the program; nothing of either is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import torch
from peft import PeftModel
from torch import Tensor

from tuning.errors import DroppedTokenError
from tuning.evaluation.one_pass import BATCH_TOKENS, HEAD_ELEMENTS, head_logits
from tuning.measures import Drift
from tuning.model.base import BaseModel, device_of
from tuning.model.packing import answer_states, on, packed_batches
from tuning.model.tokenizer import EncodedItem
from tuning.tasks.replay import replay_item
from tuning.tasks.suite import SUITE_SEED
from tuning.tasks.words import keyed_rng

NUM_REPLAY_ITEMS = 120
MAX_TEXT_TOKENS = 512

# Shapes: A answer tokens, D hidden, V vocabulary.


States = dict[str, list[Tensor]]
"""By what is read, the untouched model's states that predict it, batch by batch."""


def retention(
    base: BaseModel, adapted: PeftModel, words: Sequence[str], untouched: States | None = None
) -> dict[str, Drift]:
    """Measure the drift of an adapter that is on `base`.

    Args:
        base: The model.
        adapted: The same with its adapter.
        words: Words of the validation split, for phrases to repeat.
        untouched: Kept between calls, so that the untouched model reads once for all adapters.

    Returns:
        Drift on `replay` (answer tokens) and on `text` (all tokens); where the model has no
        tokens for the text, a reason instead of numbers.
    """
    rngs = (keyed_rng(SUITE_SEED, "retention", i) for i in range(NUM_REPLAY_ITEMS))
    items = [replay_item(words, rng) for rng in rngs]
    known: States = {} if untouched is None else untouched
    encoded = base.tokenizer.encode_items(items)
    drifts = {"replay": _drift(base, adapted, encoded, known.setdefault("replay", []))}
    try:
        (ids,) = base.tokenizer.encode_batch([retention_text()])
        rows = [EncodedItem(ids[:1], ids[1:MAX_TEXT_TOKENS])]
        drifts["text"] = _drift(base, adapted, rows, known.setdefault("text", []))
    except DroppedTokenError:
        drifts["text"] = Drift(reason=f"{base.name} has no tokens for the text")
    return drifts


def retention_text() -> str:
    """Return the short text that ships with the program."""
    return resources.files("tuning").joinpath("data/retention_text.txt").read_text("utf-8").strip()


@torch.inference_mode()
def _drift(
    base: BaseModel, adapted: PeftModel, rows: Sequence[EncodedItem], untouched: list[Tensor]
) -> Drift:
    sums = torch.zeros(3, dtype=torch.float64)
    batches = packed_batches(rows, BATCH_TOKENS, together=base.packs)
    for number, (picks, packed) in enumerate(batches):
        gold_A: Tensor = torch.tensor([token for i in picks for token in rows[i].answer])
        here = on(packed, device_of(base.network))
        if number == len(untouched):
            with adapted.disable_adapter():
                untouched.append(answer_states(base.network, here))
        before_AD = untouched[number]
        after_AD = answer_states(base.network, here)
        size = max(1, HEAD_ELEMENTS // base.network.get_output_embeddings().weight.shape[0])
        for before, after, gold in zip(
            *(torch.split(t, size) for t in (before_AD, after_AD, gold_A)), strict=True
        ):
            sums += _sums(head_logits(base.network, before), head_logits(base.network, after), gold)
    num_tokens = sum(len(row.answer) for row in rows)
    base_loss, tuned_loss, divergence = (float(value) / num_tokens for value in sums)
    return Drift(
        base_loss=base_loss, tuned_loss=tuned_loss, kl_divergence=divergence, num_tokens=num_tokens
    )


def _sums(before_AV: Tensor, after_AV: Tensor, gold_A: Tensor) -> Tensor:
    """Return the summed losses before and after, and the summed KL(before, after), in nats."""
    before, after = before_AV.log_softmax(-1), after_AV.log_softmax(-1)
    gold = gold_A.to(before.device)[:, None]
    divergence = (before.exp() * (before - after)).sum()
    return torch.stack(
        [-before.gather(1, gold).sum(), -after.gather(1, gold).sum(), divergence]
    ).to("cpu", torch.float64)
