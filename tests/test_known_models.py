"""Laws of `tuning.known_models`: the shape of a model, without its weights and without a network."""

from __future__ import annotations

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from tuning.known_models import HUB_IDS, Architecture, architecture_of

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}


def known(name: str) -> Architecture:
    found = architecture_of(name)
    assert found is not None
    return found


def folder(tmp_path: Path, content: str | bytes | dict[str, Any]) -> str:
    text = json.dumps(content) if isinstance(content, dict) else content
    raw = text.encode() if isinstance(text, str) else text
    (tmp_path / "config.json").write_bytes(raw)
    return str(tmp_path)


# --- sizes ------------------------------------------------------------------------------------


def test_the_size_of_tiny_is_that_of_its_file() -> None:
    path = resources.files("tuning").joinpath("data/tiny/model.safetensors")
    with safe_open(str(path), framework="np") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}
    real = sum(math.prod(shape) for shape in shapes.values())
    assert known("tiny").num_parameters == pytest.approx(real, rel=0.01)
    # Only norms are left out.
    matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) == 2)
    assert known("tiny").num_parameters == matrices


def test_the_layers_of_tiny_are_those_of_its_file() -> None:
    path = resources.files("tuning").joinpath("data/tiny/model.safetensors")
    with safe_open(str(path), framework="np") as weights:
        shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    found = {
        name.split(".")[-2]: (inputs, outputs)
        for name, (outputs, inputs) in ((n, s) for n, s in shapes.items() if len(s) == 2)
        if ".layers.0." in name
    }
    assert found == dict(known("tiny").linear_layers)


@pytest.mark.parametrize(
    ("name", "millions"),
    # Model cards; the embeddings are counted once, for they are tied.
    [("smollm2-135m", 134.5), ("smollm2-135m-q4", 134.5), ("qwen3-0.6b", 596), ("qwen3-4b", 4022)],
)
def test_the_sizes_of_named_models_are_those_of_their_cards(name: str, millions: float) -> None:
    assert known(name).num_parameters == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("name", HUB_IDS)
def test_a_short_name_and_the_hub_id_are_one_model(name: str) -> None:
    assert known(name) == known(HUB_IDS[name])


def test_untied_embeddings_count_twice(tmp_path: Path) -> None:
    tied = known(folder(tmp_path, {**LLAMA, "tie_word_embeddings": True}))
    untied = known(folder(tmp_path, {**LLAMA, "tie_word_embeddings": False}))
    assert untied.num_parameters - tied.num_parameters == 1000 * 64


# --- adapters ---------------------------------------------------------------------------------


def test_an_adapter_has_r_times_inputs_and_outputs_of_each_layer() -> None:
    """Tiny: 4 blocks, hidden 128, 4 heads and 2 key-value heads of 32, inner 384."""
    tiny = known("tiny")
    assert tiny.num_adapter_parameters(("q_proj",), 1) == 4 * (128 + 128)
    assert tiny.num_adapter_parameters(("k_proj", "v_proj"), 1) == 4 * 2 * (128 + 64)
    assert tiny.num_adapter_parameters(("down_proj",), 8) == 4 * 8 * (384 + 128)
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    assert tiny.num_adapter_parameters(attention, 16) == 4 * 16 * (256 + 192 + 192 + 256)


def test_heads_need_not_fill_the_hidden_size() -> None:
    """Qwen3 0.6B: 28 blocks, hidden 1024, 16 heads of 128 make 2048."""
    qwen = known("qwen3-0.6b")
    assert qwen.num_adapter_parameters(("q_proj",), 4) == 28 * 4 * (1024 + 2048)
    assert qwen.num_adapter_parameters(("o_proj",), 4) == 28 * 4 * (2048 + 1024)
    assert qwen.num_adapter_parameters(("k_proj",), 4) == 28 * 4 * (1024 + 1024)


def test_layers_that_the_model_does_not_have_get_no_adapter() -> None:
    tiny = known("tiny")
    assert tiny.num_adapter_parameters(("q_proj", "lm_head"), 2) == 4 * 2 * 256
    assert tiny.num_adapter_parameters((), 2) == 0


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_read(tmp_path: Path) -> None:
    found = known(folder(tmp_path, LLAMA))
    assert found == Architecture(
        model_type="llama",
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=1000,
        tie_word_embeddings=False,
    )
    block = 64 * 64 + 2 * 64 * 16 + 64 * 64 + 3 * 64 * 160
    assert found.num_parameters == 3 * block + 2 * 1000 * 64


def test_a_folder_may_give_the_size_of_heads_and_leave_out_key_value_heads(tmp_path: Path) -> None:
    settings = {k: v for k, v in LLAMA.items() if k != "num_key_value_heads"}
    found = known(folder(tmp_path, {**settings, "head_dim": 32}))
    assert (found.num_key_value_heads, found.head_dim) == (8, 32)
    assert known(folder(tmp_path, {**LLAMA, "num_key_value_heads": None})).num_key_value_heads == 8


@pytest.mark.parametrize("family", ["qwen3", "qwen2", "llama", "mistral", "smollm3"])
def test_families_with_these_layers_are_known(tmp_path: Path, family: str) -> None:
    assert known(folder(tmp_path, {**LLAMA, "model_type": family})).model_type == family


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        '"llama"',
        b"\xff\xfe{}",
        {},
        {**LLAMA, "model_type": "gpt2"},
        {**LLAMA, "model_type": None},
        {**LLAMA, "model_type": ["llama"]},
        {k: v for k, v in LLAMA.items() if k != "vocab_size"},
        {k: v for k, v in LLAMA.items() if k != "num_attention_heads"},
        {**LLAMA, "hidden_size": "64"},
        {**LLAMA, "hidden_size": 0},
        {**LLAMA, "num_hidden_layers": -3},
        {**LLAMA, "intermediate_size": 160.5},
        {**LLAMA, "head_dim": -8},
        {**LLAMA, "hidden_size": 4, "num_attention_heads": 8},
        "[" * 100_000,
    ],
    ids=[
        "empty",
        "cut off",
        "list",
        "null",
        "text",
        "no Unicode",
        "no keys",
        "other family",
        "no family",
        "list of families",
        "no vocabulary",
        "no heads",
        "size as text",
        "size 0",
        "negative size",
        "half a size",
        "negative head",
        "more heads than numbers",
        "nested without end",
    ],
)
def test_what_is_no_known_configuration_is_none(
    tmp_path: Path, content: str | bytes | dict[str, Any]
) -> None:
    assert architecture_of(folder(tmp_path, content)) is None


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    for name in ("no/such-model", str(tmp_path), str(tmp_path / "none"), "~nobody/model", "a\0b"):
        assert architecture_of(name) is None
    (tmp_path / "config.json").mkdir()
    assert architecture_of(str(tmp_path)) is None
