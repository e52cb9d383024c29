"""The base models: a name becomes weights, a tokenizer, and the words it may be asked about."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.config import HUB_IDS
from tuning.errors import ModelError, nearest
from tuning.files import sha256_of_file, sha256_of_json
from tuning.model import tiny
from tuning.model.tokenizer import TextTokenizer
from tuning.tasks.words import english_words, without_benchmark_words

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NAMES = ("tiny", *HUB_IDS)


@dataclass(frozen=True)
class BaseModel:
    """An untouched model, loaded and frozen."""

    name: str
    network: PreTrainedModel
    tokenizer: TextTokenizer
    precision: str
    """What was really loaded: 32-true, bf16 or fp16."""
    weights_hash: str
    """SHA-256 that stands for the weights."""
    num_parameters: int

    @property
    def key(self) -> str:
        """Name of the folder of the untouched model's evaluations."""
        identity = [self.weights_hash, self.precision, self.tokenizer.vocab_size]
        return f"base_{sha256_of_json(identity)[:16]}"

    @property
    def says(self) -> str:
        """Name and size, for pages that show numbers made with it."""
        return f"{self.name} ({self.num_parameters / 1e6:.2f} M parameters)"

    @property
    def is_embedded(self) -> bool:
        """Whether it is the embedded model, whose numbers say nothing about another one."""
        return self.name == "tiny"


def subject_words(name: str) -> tuple[str, ...]:
    """Return the words that a model may be trained on or asked about, in a fixed order.

    For tiny its study words; for every other model all words less the benchmark ones.
    """
    if name == "tiny":
        return tiny.tiny_words().study
    return without_benchmark_words(english_words())


@functools.lru_cache(maxsize=1)
def load_base(name: str, precision: str = "32-true") -> BaseModel:
    """Load a model and freeze it. The last one loaded is kept, and given again.

    Args:
        name: A known name, a Hub id, or a local folder.
        precision: 32-true, bf16 or fp16.

    Raises:
        ModelError: There is no such model, or its weights cannot be had here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"32-true": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    source = str(tiny.tiny_folder()) if name == "tiny" else _located(name)
    tokenizer = tokenizer_of(name)
    try:
        network = AutoModelForCausalLM.from_pretrained(
            source, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise _unavailable(name, error) from error
    network.requires_grad_(False)
    network.eval()
    return BaseModel(
        name=name,
        network=_on_device(network),
        tokenizer=tokenizer,
        precision=precision,
        weights_hash=_weights_hash(source, network),
        num_parameters=sum(p.numel() for p in network.parameters()),
    )


def tokenizer_of(name: str) -> TextTokenizer:
    """Return the tokenizer that a model brings; loads no weights.

    Raises:
        ModelError: There is no such model, or its tokenizer cannot be had here.
    """
    return tiny.tiny_tokenizer() if name == "tiny" else _tokenizer_of(_located(name), name)


def _on_device(network: PreTrainedModel) -> PreTrainedModel:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device)


def _located(name: str) -> str:
    if name in HUB_IDS:
        return HUB_IDS[name]
    if name.startswith((".", "/", "~")) and not (Path(name) / "config.json").is_file():
        raise ModelError(f"{name!r} is no folder of a model: it holds no config.json")
    if name and ("/" in name or Path(name).is_dir()):
        return name
    raise ModelError(f"unknown model {name!r}; {nearest(name, NAMES)}")


def check_name(name: str) -> None:
    """Check, without loading anything, that a model of this name can exist.

    Raises:
        ModelError: It is no known name, Hub id or folder.
    """
    if name != "tiny":
        _located(name)


def _unavailable(name: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0]
    return ModelError(
        f"the weights of {name} cannot be had here ({reason}); connect to the network, give a "
        f"local folder as tokenizer_config.model_name, or use the embedded model: models=tiny"
    )


def _tokenizer_of(source: str, name: str) -> TextTokenizer:
    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(source, use_fast=True)
    except (OSError, ValueError) as error:
        raise _unavailable(name, error) from error

    def chat_prompt(question: str) -> str:
        messages = [{"role": "user", "content": question.strip()}]
        return str(
            loaded.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    end = loaded.eos_token_id
    if loaded.chat_template:
        return TextTokenizer(loaded.backend_tokenizer, (end,), prompt_of=chat_prompt)
    return TextTokenizer(loaded.backend_tokenizer, (end,))


def _weights_hash(source: str, network: PreTrainedModel) -> str:
    if Path(source).is_dir():
        return sha256_of_json(
            [sha256_of_file(p) for p in sorted(Path(source).glob("*.safetensors"))]
        )
    return sha256_of_json([source, str(getattr(network.config, "_commit_hash", None))])


def device_of(network: PreTrainedModel) -> torch.device:
    """Return the device that a model's inputs must be on."""
    device: torch.device = next(network.parameters()).device
    return device
