"""Laws of `tuning.training.datamodule`: which rows a step has, and how they are cut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tuning.model.base import encodable, subject_words, tokenizer_of
from tuning.tasks.splits import Split, split_subjects
from tuning.training.datamodule import StepBatches
from tuning.training_data import training_data


def batches(config: Any) -> StepBatches:
    tokenizer = tokenizer_of("tiny")
    words = split_subjects(subject_words("tiny"))[Split.TRAIN]
    data = training_data(config, words, tokenizer.count_tokens, lambda w: encodable(w, tokenizer))
    return StepBatches(data.stream, tokenizer, 32)


def num_tokens(of: StepBatches, steps: int) -> int:
    return sum(len(r.prompt) + len(r.answer) for step in range(steps) for r in of.rows(step))


@pytest.mark.parametrize("augmentation", [True, False])
@pytest.mark.parametrize(
    "band",
    ["easy", *(pytest.param(band, marks=pytest.mark.nightly) for band in ("medium", "hard"))],
)
def test_every_arm_trains_on_as_many_tokens(
    small_config: Callable[..., Any], band: str, augmentation: bool
) -> None:
    tokens = {}
    for arm in ("spelling", "format_control", "direct"):
        overrides = (f"spelling_difficulty={band}", f"spelling_augmentation={augmentation}")
        config = small_config(*overrides, f"arm={arm}")
        tokens[arm] = num_tokens(batches(config), 40)
    if augmentation:
        assert tokens["direct"] == pytest.approx(tokens["spelling"], rel=0.01)
    else:
        # Where direct items are as long as plain spellings, none has to be added.
        assert tokens["direct"] >= 0.99 * tokens["spelling"]
    assert tokens["format_control"] == pytest.approx(tokens["spelling"], rel=0.01)


def test_rows_added_to_the_direct_arm_ask_about_the_words_of_their_step(
    small_config: Callable[..., Any],
) -> None:
    of = batches(small_config("arm=direct"))
    items = of.stream.step(3, 32)
    words = {item.word for item in items if item.task in ("position", "count")}
    more = of.stream.more_direct(3, items)
    assert {next(more).word for _ in range(200)} == words


@pytest.mark.parametrize("arm", ["spelling", "direct"])
@pytest.mark.parametrize("num_parts", [1, 2, 4, 8, 16, 32])
def test_a_step_is_cut_into_as_many_micro_batches_as_asked_for(
    small_config: Callable[..., Any], arm: str, num_parts: int
) -> None:
    of = batches(small_config(f"arm={arm}"))
    parts = of.step(0, num_parts)
    assert len(parts) == num_parts
    # Each answer ends once.
    sizes = [int((part.target_A == of.tokenizer.end_ids[0]).sum()) for part in parts]
    assert sum(sizes) == len(of.rows(0))
    assert max(sizes) - min(sizes) <= 1
    answer_tokens = sum(len(part.target_A) for part in parts)
    assert {int(part.num_step_tokens) for part in parts} == {answer_tokens}
    tokens = sum(len(row.prompt) + len(row.answer) for row in of.rows(0))
    assert sum(int(part.num_tokens) for part in parts) == tokens
