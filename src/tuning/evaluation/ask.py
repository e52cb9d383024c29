"""Asking freely: one question, the untouched model's answer and the tuned one's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tuning.evaluation.generation import greedy_texts
from tuning.fingerprint import resolved_precision
from tuning.model.base import load_base
from tuning.model.lora import stored_adapter
from tuning.model.tokenizer import EncodedItem

Ask = Callable[[str], dict[str, str]]
"""From a question to the answers of `untouched` and, with an adapter, `tuned`."""


@contextlib.contextmanager
def conversation(name: str, adapter: Path | None, max_tokens: int) -> Iterator[Ask]:
    """Load a model, and an adapter on it, for the time of the block.

    Args:
        name: The model.
        adapter: Folder of an adapter, or none.
        max_tokens: Longest answer.

    Raises:
        ModelError: The model or the adapter cannot be had.
    """
    base = load_base(name, resolved_precision("auto"))

    def answer(question: str) -> str:
        (prompt,) = base.tokenizer.encode_batch([base.tokenizer.prompt_of(question, ())])
        rows = [EncodedItem(prompt, [])]
        return greedy_texts(base.network, base.tokenizer, rows, max_tokens)[0]

    if adapter is None:
        yield lambda question: {"untouched": answer(question)}
        return
    with stored_adapter(base, adapter) as adapted:

        def ask(question: str) -> dict[str, str]:
            with adapted.disable_adapter():
                untouched = answer(question)
            return {"untouched": untouched, "tuned": answer(question)}

        yield ask
