"""Adapters: PEFT's own loader reads ours, and the shared base is left as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tuning.config import LoraConfig
from tuning.errors import ModelError
from tuning.model.base import load_base
from tuning.model.lora import fresh_adapter, save_adapter, stored_adapter
from tuning.model.tiny import tiny_folder

PROMPT = torch.tensor([[5, 100, 900, 44, 1200, 7]])


def shaken(adapted: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 20
    adapted.eval()
    return adapted


@torch.inference_mode()
def logits(network: Any) -> torch.Tensor:
    return network(PROMPT).logits


def test_plain_peft_gives_the_same_logits(tmp_path: Path) -> None:
    base = load_base("tiny")
    with fresh_adapter(base, LoraConfig(), 0) as adapted:
        expected = logits(shaken(adapted))
        save_adapter(adapted, tmp_path / "a")
    fresh = AutoModelForCausalLM.from_pretrained(tiny_folder(), dtype=torch.float32)
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "a").eval()
    assert float((logits(loaded) - expected).abs().max()) == 0.0
    with stored_adapter(base, tmp_path / "a"):
        assert torch.equal(logits(base.network), expected)


def test_the_base_is_left_as_it_was(tmp_path: Path) -> None:
    base = load_base("tiny")
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    expected = logits(base.network)
    for _ in range(2):
        with fresh_adapter(base, LoraConfig(), 0) as adapted:
            assert not torch.equal(logits(shaken(adapted)), expected)
    after = base.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert torch.equal(logits(base.network), expected)
    assert not any(p.requires_grad for p in base.network.parameters())


def test_a_new_adapter_changes_nothing_and_depends_on_its_seed() -> None:
    base = load_base("tiny")
    expected = logits(base.network)
    first = []
    for seed in (0, 0, 1):
        with fresh_adapter(base, LoraConfig(), seed) as adapted:
            adapted.eval()
            assert torch.equal(logits(adapted), expected)
            first.append(next(p.clone() for n, p in adapted.named_parameters() if "lora_A" in n))
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


def test_only_the_adapter_is_trained_and_it_is_fp32() -> None:
    with fresh_adapter(load_base("tiny"), LoraConfig(r=4), 0) as adapted:
        trained = {n: p for n, p in adapted.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    # 4 layers; q 128->128, k and v 128->64, o 128->128; rank 4 times inputs plus outputs.
    assert sum(p.numel() for p in trained.values()) == 4 * 4 * (256 + 192 + 192 + 256)


def test_an_unknown_target_module_names_the_nearest() -> None:
    with (
        pytest.raises(ModelError, match="'q_prj' does not exist in tiny; did you mean .*q_proj"),
        fresh_adapter(load_base("tiny"), LoraConfig(target_modules=("q_prj",)), 0),
    ):
        pass


def test_folders_that_hold_no_fitting_adapter_are_refused(tmp_path: Path) -> None:
    base = load_base("tiny")
    with fresh_adapter(base, LoraConfig(r=4), 0) as adapted:
        save_adapter(adapted, tmp_path / "good")
    cases = {
        "empty": {},
        "torn": {"adapter_model.safetensors": b"\x00" * 20},
        "no_json": {"adapter_config.json": b"{"},
    }
    for name, damage in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        for path in (tmp_path / "good").iterdir() if name != "empty" else []:
            (folder / path.name).write_bytes(damage.get(path.name, path.read_bytes()))
        with pytest.raises(ModelError, match=name), stored_adapter(base, folder):
            pass
    assert torch.equal(logits(base.network), logits(load_base("tiny").network))
