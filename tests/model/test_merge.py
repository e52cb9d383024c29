"""Merging: the folder is a model of its own, and answers as base and adapter did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_support import save_random_model
from safetensors.torch import load_file

from tuning.config import LoraConfig
from tuning.errors import ModelError
from tuning.evaluation.one_pass import OnePassScorer
from tuning.files import sha256_of_file
from tuning.model.base import load_base, read_base, subject_words
from tuning.model.hub import base_of_adapter
from tuning.model.lora import fresh_adapter, save_adapter, stored_adapter
from tuning.model.merge import merge_adapter
from tuning.model.tiny import tiny_folder, tiny_words
from tuning.tasks import position, spelling
from tuning.tasks.splits import Split, split_words

PROMPT = torch.tensor([[5, 100, 900, 44, 1200, 7]])


def save_shaken_adapter(name: str, folder: Path, settings: LoraConfig) -> Path:
    """Write an adapter for a model that changes what it says."""
    with fresh_adapter(load_base(name), settings, 0) as adapted:
        generator = torch.Generator().manual_seed(3)
        for key, parameter in adapted.named_parameters():
            if "lora_B" in key:
                parameter.data = torch.randn(parameter.shape, generator=generator) / 20
        save_adapter(adapted, folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = LoraConfig(target_modules=("q_proj", "v_proj", "down_proj"))
    return save_shaken_adapter("tiny", tmp_path_factory.mktemp("adapter") / "a", settings)


@pytest.fixture(scope="module")
def merged(adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "model"
    merge_adapter("tiny", adapter, folder)
    return folder


@torch.inference_mode()
def logits(network: Any, prompt: torch.Tensor = PROMPT) -> torch.Tensor:
    return network(prompt).logits


def test_a_merged_folder_gives_the_logits_of_base_and_adapter(adapter: Path, merged: Path) -> None:
    base = load_base("tiny")
    untouched = logits(base.network)
    with stored_adapter(base, adapter):
        expected = logits(base.network)
    assert float((expected - untouched).abs().max()) > 0.1
    loaded = read_base(str(merged), "32-true")
    torch.testing.assert_close(logits(loaded.network), expected, rtol=0, atol=1e-4)
    assert loaded.num_parameters == base.num_parameters
    assert loaded.weights_hash != base.weights_hash
    assert loaded.key != base.key


def test_a_merged_folder_gives_the_same_strict_verdicts(adapter: Path, merged: Path) -> None:
    words = split_words(tiny_words().study)[Split.VALIDATION][:20]
    items = [item for word in words for item in spelling.evaluation_items(word)]
    items += [position.position_item(word, 2, position.TEMPLATES[0]) for word in words]
    base = load_base("tiny")
    scorer = OnePassScorer.for_base(base, items)
    encoded = base.tokenizer.encode_items(items)
    untouched = [reading.correct for reading in scorer.read(items, encoded)]
    with stored_adapter(base, adapter):
        tuned = [reading.correct for reading in scorer.read(items, encoded)]
    own = load_base(str(merged))
    assert own.tokenizer.encode_items(items) == encoded
    own_scorer = OnePassScorer.for_base(own, items)
    assert [reading.correct for reading in own_scorer.read(items, encoded)] == tuned
    assert tuned != untouched


def test_a_merged_tiny_is_asked_about_the_words_of_tiny(merged: Path) -> None:
    assert subject_words(str(merged)) == subject_words("tiny")


def test_merging_leaves_the_cached_base_untouched(adapter: Path, tmp_path: Path) -> None:
    base = load_base("tiny")
    before = {name: tensor.clone() for name, tensor in base.network.state_dict().items()}
    expected = logits(base.network)
    merge_adapter("tiny", adapter, tmp_path / "m")
    assert load_base("tiny") is base
    after = base.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert torch.equal(logits(base.network), expected)


def test_a_merged_folder_holds_the_tensors_of_the_base_and_nothing_of_the_adapter(
    merged: Path,
) -> None:
    ours, base = (load_file(f / "model.safetensors") for f in (merged, tiny_folder()))
    assert {k: t.shape for k, t in ours.items()} == {k: t.shape for k, t in base.items()}
    assert all(tensor.dtype == torch.float32 for tensor in ours.values())
    changed = {key for key in ours if not torch.allclose(ours[key], base[key].float(), atol=1e-7)}
    assert {key.split(".")[-2] for key in changed} == {"q_proj", "v_proj", "down_proj"}
    card = json.loads((merged / "card.json").read_text())
    assert card["weights_sha256"] == sha256_of_file(merged / "model.safetensors")
    assert card["name"].endswith(", merged")
    original = json.loads((tiny_folder() / "card.json").read_text())
    assert card["kept_ids"] == original["kept_ids"]


def test_a_merged_model_can_be_trained_and_merged_again(merged: Path, tmp_path: Path) -> None:
    adapter = save_shaken_adapter(str(merged), tmp_path / "b", LoraConfig(r=4))
    assert base_of_adapter(adapter) == str(merged)
    merge_adapter(str(merged), adapter, tmp_path / "again")
    base = load_base(str(merged))
    with stored_adapter(base, adapter):
        expected = logits(base.network)
    again = read_base(str(tmp_path / "again"), "32-true")
    torch.testing.assert_close(logits(again.network), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_other_models_are_merged_with_their_tokenizer_and_template(
    tmp_path: Path, kind: str
) -> None:
    name = str(save_random_model(tmp_path / kind, kind))
    settings = LoraConfig(target_modules=("q_proj", "o_proj", "gate_proj"))
    adapter = save_shaken_adapter(name, tmp_path / "a", settings)
    merge_adapter(name, adapter, tmp_path / "merged")
    base = load_base(name)
    prompt = torch.tensor([[5, 100, 44, 7]])
    with stored_adapter(base, adapter):
        expected = logits(base.network, prompt)
    loaded = read_base(str(tmp_path / "merged"), "32-true")
    torch.testing.assert_close(logits(loaded.network, prompt), expected, rtol=0, atol=1e-4)
    question = "Spell the word parrot, letters separated by spaces.\n"
    assert loaded.tokenizer.prompt_of(question, ()) == base.tokenizer.prompt_of(question, ())
    assert "<think></think>" in loaded.tokenizer.prompt_of(question, ())


# --- refusals -----------------------------------------------------------------------------------


def test_an_output_that_exists_is_refused(adapter: Path, tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "file"):
        if output != tmp_path:
            output.write_text("mine")
        with pytest.raises(ModelError, match="exists; name a new folder"):
            merge_adapter("tiny", adapter, output)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_what_is_no_adapter_of_this_model_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no adapter"):
        merge_adapter("tiny", tmp_path / "nowhere", tmp_path / "m")
    other = str(save_random_model(tmp_path / "llama"))
    adapter = save_shaken_adapter(other, tmp_path / "a", LoraConfig())
    with pytest.raises(ModelError, match="does not fit tiny"):
        merge_adapter("tiny", adapter, tmp_path / "m")
    with pytest.raises(ModelError, match="unknown model 'tinny'"):
        merge_adapter("tinny", adapter, tmp_path / "m")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "llama"]
