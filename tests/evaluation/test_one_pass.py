"""One pass must give the verdict of greedy decoding, whatever the model answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from tuning.config import EvaluationConfig, LoraConfig
from tuning.evaluation.bench import Bench, new_bench
from tuning.evaluation.certificate import certify
from tuning.evaluation.generation import greedy_texts
from tuning.evaluation.one_pass import AnswerReading
from tuning.model.base import subject_words
from tuning.model.lora import fresh_adapter
from tuning.tasks.items import Task
from tuning.tasks.splits import Split, split_subjects


@pytest.fixture(scope="module")
def bench() -> Bench:
    words = split_subjects(subject_words("tiny"))[Split.VALIDATION]
    return new_bench("tiny", "32-true", EvaluationConfig(num_words=60, num_monitor_words=3), words)


@pytest.fixture
def disturbed(bench: Bench) -> Iterator[Bench]:
    """The base with an adapter that pushes it around, so that many answers are wrong."""
    with fresh_adapter(bench.base, LoraConfig(dropout=0), 0) as adapted:
        generator = torch.Generator().manual_seed(2)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) / 100
        yield bench


def greedy_by_hand(bench: Bench, prompt: list[int], longest: int) -> list[int]:
    """Decode without cache, batch or padding: the definition itself."""
    ids = list(prompt)
    for _ in range(longest):
        with torch.inference_mode():
            token = int(bench.base.network(torch.tensor([ids])).logits[0, -1].argmax())
        if token in bench.base.tokenizer.end_ids:
            break
        ids.append(token)
    return ids[len(prompt) :]


def test_strict_reading_is_greedy_decoding_by_definition(disturbed: Bench) -> None:
    predictions = disturbed.scorer.score(disturbed.suite)
    tokenizer = disturbed.base.tokenizer
    for i in range(0, len(predictions), 23):
        item = disturbed.suite.items[i]
        encoded = tokenizer.encode_items([item])[0]
        answer = tokenizer.decode(
            greedy_by_hand(disturbed, encoded.prompt, len(encoded.answer) + 3)
        )
        assert predictions["strict_correct"][i] == (answer == item.answer), item


def test_certificate_agrees_on_every_item(disturbed: Bench) -> None:
    certificate = certify(disturbed.base, disturbed.scorer, disturbed.suite, 10_000)
    assert certificate.num_items == len(disturbed.suite.items)
    assert certificate.agreement == 1.0
    correct = disturbed.scorer.score(disturbed.suite)["strict_correct"]
    assert 0.02 < correct.mean() < 0.98


def test_items_too_close_to_call_are_decoded_and_give_the_same(disturbed: Bench) -> None:
    suspicious = dataclasses.replace(disturbed.scorer, margin=1.0)
    plain, decoded = disturbed.scorer.score(disturbed.suite), suspicious.score(disturbed.suite)
    assert 0 < decoded["decoded_for_real"].mean() < 1
    assert (plain["strict_correct"] == decoded["strict_correct"]).all()
    close = plain["margin"] < 1.0
    assert decoded["decoded_for_real"][close].all()


def test_a_wrong_decision_is_corrected_by_decoding(bench: Bench, monkeypatch: Any) -> None:
    """Planted ties: readings that are wrong but close must be overruled by real decoding."""
    scorer = bench.scorer
    truth = scorer.score(bench.suite)["strict_correct"].to_numpy()
    read = type(scorer).read

    def flipped(self: Any, *arguments: Any) -> list[AnswerReading]:
        return [r._replace(correct=not r.correct, margin=0.0) for r in read(self, *arguments)]

    monkeypatch.setattr(type(scorer), "read", flipped)
    assert (scorer.score(bench.suite)["strict_correct"].to_numpy() == truth).all()


def test_a_wrong_token_that_may_still_spell_the_answer_is_decoded(bench: Bench) -> None:
    """A space alone is a prefix of " l": another cut of the same text is not wrong."""
    tokenizer = bench.base.tokenizer
    item = next(i for i in bench.suite.items if i.template == "spell/spaces")
    encoded = tokenizer.encode_items([item])[0]
    space, letter = (ids[0] for ids in tokenizer.encode_batch([" ", "Q"]))
    reading = AnswerReading(False, 9.0, 1, space, -1)
    assert bench.scorer._could_still_match(item, encoded, reading)
    assert not bench.scorer._could_still_match(item, encoded, reading._replace(predicted=letter))
    end = tokenizer.end_ids[0]
    assert not bench.scorer._could_still_match(item, encoded, reading._replace(predicted=end))


def test_choice_is_the_likeliest_of_the_tasks_own_answers(bench: Bench) -> None:
    predictions = bench.scorer.score(bench.suite)
    for task, choices in (
        (Task.POSITION, "abcdefghijklmnopqrstuvwxyz"),
        (Task.COUNT, "0123456789"),
    ):
        rows = predictions[predictions["task"] == task.value]
        row = rows.iloc[7]
        item = bench.suite.items[rows.index[7]]
        prompt = bench.base.tokenizer.encode_items([item])[0].prompt
        with torch.inference_mode():
            logits = bench.base.network(torch.tensor([prompt])).logits[0, -1]
        ids = [bench.base.tokenizer.encode_batch([c])[0][0] for c in choices]
        assert row["choice"] == choices[int(logits[ids].argmax())]
    assert predictions[predictions["task"] == "spelling"]["choice_correct"].isna().all()


def test_prompts_never_reach_the_head(bench: Bench, monkeypatch: Any) -> None:
    seen: list[int] = []
    linear = torch.nn.functional.linear

    def spy(x: Any, weight: Any, bias: Any = None) -> Any:
        if weight.shape[0] == bench.base.network.config.vocab_size:
            seen.append(x.shape[0])
        return linear(x, weight, bias)

    monkeypatch.setattr(torch.nn.functional, "linear", spy)
    encoded = bench.base.tokenizer.encode_items(bench.suite.items)
    bench.scorer.read(bench.suite.items, encoded)
    assert sum(seen) == sum(len(row.answer) for row in encoded)


def test_greedy_texts_keep_the_order_of_their_rows(bench: Bench) -> None:
    tokenizer = bench.base.tokenizer
    rows = tokenizer.encode_items([i for i in bench.suite.items if i.task is Task.POSITION][:20])
    together = greedy_texts(bench.base.network, tokenizer, rows)
    alone = [greedy_texts(bench.base.network, tokenizer, [row])[0] for row in rows]
    assert together == alone
