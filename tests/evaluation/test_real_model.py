"""One pass, shared prefixes and retention on a real chat model: SmolLM2-135M, 4-bit made fp32."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from bench_support import disturb

from tuning.config import EvaluationConfig, LoraConfig
from tuning.evaluation.bench import Bench, new_bench
from tuning.evaluation.certificate import certify
from tuning.evaluation.stored import evaluate_adapter
from tuning.model.base import subject_words
from tuning.model.hub import fetch, local_folder
from tuning.model.lora import fresh_adapter, save_adapter
from tuning.model.prefix import prefix_groups
from tuning.paths import ResultsRoot
from tuning.tasks.prompts import Prompting, prompted
from tuning.tasks.splits import Split, split_subjects

NAME = "smollm2-135m-q4"

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def bench() -> Bench:
    if local_folder(NAME) is None:
        fetch(NAME)
    words = split_subjects(subject_words(NAME))[Split.VALIDATION]
    sizes = EvaluationConfig(num_words=10, num_monitor_words=3, num_generated_items=18)
    return new_bench(NAME, "32-true", sizes, words)


def test_every_prompt_stands_in_the_chat_template(bench: Bench) -> None:
    for item in bench.suite.items:
        prompt = bench.base.tokenizer.prompt_of(item.question, item.shots)
        assert item.question.strip() in prompt
        assert prompt.startswith("<|im_start|>")
        assert prompt.endswith("<|im_start|>assistant\n")


def test_the_head_of_the_template_is_read_once(bench: Bench) -> None:
    encoded = bench.base.tokenizer.encode_items(bench.suite.items)
    with torch.inference_mode():
        groups = list(prefix_groups(bench.base.network, bench.suite.items, encoded))
    assert len(groups) == 9
    assert all(prefix is not None and prefix.length >= 16 for _, prefix in groups)


@pytest.mark.parametrize("prompting", list(Prompting))
def test_one_pass_is_greedy_decoding(bench: Bench, prompting: Prompting) -> None:
    suite = prompted(bench.suite, prompting, bench.words[Split.TRAIN].real)
    certificate = certify(bench.base, bench.scorer, suite, 36)
    assert certificate.num_items == 36
    assert certificate.num_disagreements == 0


def test_an_adapter_moves_it_on_replay_and_on_text(bench: Bench, tmp_path: Path) -> None:
    root = ResultsRoot(tmp_path / "results")
    few = dataclasses.replace(bench, suite=bench.suite.part([0, 1, 2, 40, 41, 42]))
    drifts = {}
    for name, size in (("zero", 0.0), ("disturbed", 0.02)):
        with fresh_adapter(bench.base, LoraConfig(dropout=0), 0) as adapted:
            disturb(adapted, size)
            save_adapter(adapted, tmp_path / name)
        tuned = evaluate_adapter(few, tmp_path / name, root.training(name), 1)
        assert (tuned.num_decoded, tuned.num_disagreements) == (6, 0)
        drifts[name] = tuned.retention
    for kind in ("replay", "text"):
        zero, disturbed = drifts["zero"][kind], drifts["disturbed"][kind]
        assert zero.kl_divergence == pytest.approx(0, abs=1e-6)
        assert zero.base_loss == zero.tuned_loss == disturbed.base_loss
        assert (disturbed.kl_divergence or 0) > 1e-3
    assert drifts["zero"]["text"].num_tokens > 200
