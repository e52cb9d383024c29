"""A model's own answers with thinking on and with it off, kept beside its predictions.

They are an analysis alone: no score reads them. A model without a thinking mode answers once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuning import files
from tuning.errors import ResultsError
from tuning.evaluation.bench import Bench
from tuning.evaluation.generation import greedy_texts
from tuning.model.lora import stored_adapter
from tuning.model.tokenizer import EncodedItem
from tuning.tokens.texts import Mode


def keep_answers_in_both_modes(
    bench: Bench,
    adapter: Path,
    place: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write what a tuned model answers freely to items spread over the suite, a JSON line each.

    Fields: mode (thinking or non_thinking), task, word, template, prompt (as the model reads it),
    gold, text (special tokens left out), max_tokens. Answers that are there already stay.

    Args:
        bench: The model and its suite.
        adapter: Folder of the adapter.
        place: The file.
        on_progress: Told of modes done, and of all.

    Raises:
        ModelError: The adapter is damaged, or made for another model.
        ResultsError: The disk refuses.
    """
    if _is_there(bench, place):
        return
    rows: list[dict[str, Any]] = []
    with stored_adapter(bench.base, adapter):
        for done, mode in enumerate(_modes(bench)):
            on_progress(done, len(_modes(bench)))
            rows += _answers(bench, mode)
    files.write_json_lines(place, rows)


def _modes(bench: Bench) -> list[Mode]:
    has_mode = bench.base.tokenizer.thinking_prompt_of is not None
    return [Mode.THINKING, Mode.NON_THINKING] if has_mode else [Mode.NON_THINKING]


def _num_items(bench: Bench) -> int:
    return min(bench.sizes.num_thinking_items, len(bench.suite.items))


def _is_there(bench: Bench, place: Path) -> bool:
    """Tell whether a file holds as many and as long answers as are asked for."""
    if not place.is_file():
        return False
    try:
        stored = files.read_json_lines(place)
    except ResultsError:
        return False
    limits = {row.get("max_tokens") for row in stored}
    num_rows = _num_items(bench) * len(_modes(bench))
    return len(stored) == num_rows and limits == {bench.sizes.max_thinking_tokens}


def _answers(bench: Bench, mode: Mode) -> list[dict[str, Any]]:
    tokenizer, limit = bench.base.tokenizer, bench.sizes.max_thinking_tokens
    render = tokenizer.thinking_prompt_of if mode is Mode.THINKING else tokenizer.prompt_of
    assert render is not None
    items = [bench.suite.items[i] for i in bench.suite.spread(_num_items(bench))]
    prompts = [render(item.question, item.shots) for item in items]
    encoded = [EncodedItem(ids, []) for ids in tokenizer.encode_batch(prompts)]
    texts = greedy_texts(bench.base.network, tokenizer, encoded, limit)
    return [
        {
            "mode": mode.value,
            "task": str(item.task),
            "word": item.word,
            "template": item.template,
            "prompt": prompt,
            "gold": item.answer,
            "text": text,
            "max_tokens": limit,
        }
        for item, prompt, text in zip(items, prompts, texts, strict=True)
    ]
