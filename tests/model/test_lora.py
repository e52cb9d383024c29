"""Adapters: PEFT's own loader reads ours, and the shared base is left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests_support import booby_trapped
from tuning.config import LoraConfig
from tuning.errors import ModelError
from tuning.model.base import BaseModel, load_base, read_base
from tuning.model.lora import (
    CheapDropout,
    adapter_hash,
    fresh_adapter,
    save_adapter,
    stored_adapter,
)
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
    # Another implementation of attention rounds otherwise.
    attention = base.network.config._attn_implementation
    fresh = AutoModelForCausalLM.from_pretrained(
        tiny_folder(), dtype=torch.float32, attn_implementation=attention
    )
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


def tensors_of(base: BaseModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in base.network.state_dict().items()}


def changed_config(folder: Path, **values: object) -> bytes:
    config = json.loads((folder / "adapter_config.json").read_bytes())
    return json.dumps({**config, **values}).encode()


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "no_weights",
        "torn",
        "no_json",
        "not_utf8",
        "other_rank",
        "other_layers",
        "not_lora",
        "pickle",
        "pickle_renamed",
        "megatron_config",
        "layer_replication",
        "modules_to_save",
        "pissa",
    ],
)
def test_a_folder_that_holds_no_fitting_adapter_is_refused_and_the_base_stays_clean(
    tmp_path: Path, damage: str
) -> None:
    base = read_base("tiny", "32-true")
    before = tensors_of(base)
    good, bad = tmp_path / "good", tmp_path / damage
    with fresh_adapter(base, LoraConfig(r=4), 0) as adapted:
        expected = logits(shaken(adapted))
        save_adapter(adapted, good)
    weights, config = "adapter_model.safetensors", "adapter_config.json"
    contents: dict[str, bytes | None] = {p.name: p.read_bytes() for p in good.iterdir()}
    contents |= {
        "empty": {weights: None, config: None},
        "no_weights": {weights: None},
        "torn": {weights: b"\x00" * 20},
        "no_json": {config: b"{"},
        "not_utf8": {config: b"\xff\xfe{"},
        "other_rank": {config: changed_config(good, r=8)},
        "other_layers": {config: changed_config(good, target_modules=["c_attn"])},
        "not_lora": {config: changed_config(good, peft_type="NO_SUCH_TYPE")},
        "pickle": {weights: None, "adapter_model.bin": booby_trapped(tmp_path / "ran")},
        "pickle_renamed": {weights: booby_trapped(tmp_path / "ran")},
        "megatron_config": {config: changed_config(good, megatron_config={"a": 1})},
        "layer_replication": {config: changed_config(good, layer_replication=[[0, 2]])},
        "modules_to_save": {config: changed_config(good, modules_to_save=["lm_head"])},
        "pissa": {config: changed_config(good, init_lora_weights="pissa")},
    }[damage]
    bad.mkdir()
    for name, content in contents.items():
        if content is not None:
            (bad / name).write_bytes(content)
    with pytest.raises(ModelError, match=damage) as refused, stored_adapter(base, bad):
        pass
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "ran").exists()
    after = tensors_of(base)
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    with stored_adapter(base, good):
        assert torch.equal(logits(base.network), expected)


def test_an_adapter_with_values_that_are_no_numbers_is_refused(tmp_path: Path) -> None:
    base = load_base("tiny")
    before = tensors_of(base)
    with fresh_adapter(base, LoraConfig(r=4), 0) as adapted:
        next(p for n, p in adapted.named_parameters() if "lora_B" in n).data[0, 0] = float("nan")
        save_adapter(adapted, tmp_path / "nan")
    with (
        pytest.raises(ModelError, match="values that are no numbers"),
        stored_adapter(base, tmp_path / "nan"),
    ):
        pass
    assert tensors_of(base).keys() == before.keys()


def test_the_hash_of_an_adapter_is_that_of_its_weights(tmp_path: Path) -> None:
    base = load_base("tiny")
    hashes = []
    for seed in (0, 0, 1):
        with fresh_adapter(base, LoraConfig(r=4), seed) as adapted:
            folder = tmp_path / f"a{len(hashes)}"
            save_adapter(adapted, folder)
        hashes.append(adapter_hash(folder))
    assert hashes[0] == hashes[1] != hashes[2]
    assert all(len(h) == 64 for h in hashes)
    with pytest.raises(ModelError, match="holds no adapter"):
        adapter_hash(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.05, 0.1, 0.5])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    x = torch.ones(301, 333, dtype=dtype, requires_grad=True)
    y = CheapDropout(p)(x)
    y.float().sum().backward()
    dropped = float((y == 0).float().mean())
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / x.numel()) ** 0.5 + 2**-15)
    assert len(set(y.detach().flatten().tolist())) == (2 if p else 1)
    assert float(y.detach().float().max()) == pytest.approx(1 / (1 - p), rel=4e-3)
    assert torch.equal(x.grad, y.detach())  # what was dropped learns nothing


def test_dropout_follows_the_seed_and_rests_in_evaluation() -> None:
    x, dropout = torch.ones(50, 41), CheapDropout(0.3)
    torch.manual_seed(2)
    first = dropout(x)
    torch.manual_seed(2)
    assert torch.equal(first, dropout(x))
    assert not torch.equal(first, dropout(x))
    assert dropout.eval()(x) is x
