"""The base models: a name becomes weights, a tokenizer, and the words it may be asked about."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.config import ExperimentConfig
from tuning.errors import ModelError
from tuning.files import sha256_of_json
from tuning.known_models import HUB_IDS
from tuning.model import tiny
from tuning.model.hub import found_or_fetched, unavailable, weights_hash
from tuning.model.tokenizer import TextTokenizer, chat_prompt
from tuning.paths import user_path
from tuning.tasks.pseudo_words import pseudo_words
from tuning.tasks.words import SubjectWords, english_words, without_benchmark_words
from tuning.training_data import TrainingData, training_data

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


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


def subject_words(name: str) -> SubjectWords:
    """Return the words that a model may be trained on or asked about, in a fixed order.

    For tiny its study words, for every other model all words less the benchmark ones; and words
    made up from them, as far as the model has tokens for them.
    """
    folder = _tiny_like(name)
    if folder is None:
        return _general_words()
    return _tiny_subjects(folder)


@functools.lru_cache(maxsize=2)
def _tiny_subjects(folder: Path) -> SubjectWords:
    study = tiny.tiny_words(folder).study
    return SubjectWords(study, encodable(pseudo_words(study), tiny.tiny_tokenizer(folder)))


@functools.cache
def _general_words() -> SubjectWords:
    words = without_benchmark_words(english_words())
    return SubjectWords(words, pseudo_words(words))


def encodable(words: Sequence[str], tokenizer: TextTokenizer) -> tuple[str, ...]:
    """Return the words that a model has tokens for in every form that tasks write them in."""
    forms = [
        tokenizer.can_encode(form) for form in zip(*map(tiny.written_forms, words), strict=True)
    ]
    return tuple(w for w, *has in zip(words, *forms, strict=True) if all(has))


def training_data_of(
    config: ExperimentConfig, words: SubjectWords, tokenizer: TextTokenizer
) -> TrainingData:
    """Return what a configuration trains a model with this tokenizer on.

    Raises:
        UserError: A file of the user's own cannot be used, or no word is left.
    """
    return training_data(
        config, words, tokenizer.count_tokens, lambda listed: encodable(listed, tokenizer)
    )


def _tiny_like(name: str) -> Path | None:
    """Return the folder of tiny, or of a model that was built or merged from it."""
    if name == "tiny":
        return tiny.tiny_folder()
    folder = user_path(name)
    return folder if (folder / "card.json").is_file() else None


@functools.lru_cache(maxsize=1)
def load_base(name: str, precision: str = "32-true") -> BaseModel:
    """Return a model as `read_base` does; the last one is kept, and given again.

    Raises:
        ModelError: There is no such model, or its weights cannot be had here.
    """
    return read_base(name, precision)


def read_base(name: str, precision: str) -> BaseModel:
    """Load a model and freeze it.

    Args:
        name: A known name, a Hub id, or a local folder.
        precision: 32-true, bf16 or fp16.

    Raises:
        ModelError: There is no such model, or its weights cannot be had here.
    """
    folder = found_or_fetched(name)
    tokenizer = tokenizer_of(name)

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    dtype = {"32-true": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    try:
        network = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise unavailable(name, str(error).strip().splitlines()[0]) from error
    network.requires_grad_(False)
    network.eval()
    # What adapters say of their base: a name, never a place on this machine.
    network.name_or_path = HUB_IDS.get(name, name)
    return BaseModel(
        name=name,
        network=_on_device(network),
        tokenizer=tokenizer,
        precision=precision,
        weights_hash=weights_hash(name, folder),
        num_parameters=sum(p.numel() for p in network.parameters()),
    )


def _on_device(network: PreTrainedModel) -> PreTrainedModel:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device)


@functools.lru_cache(maxsize=4)
def tokenizer_of(name: str) -> TextTokenizer:
    """Return the tokenizer that a model brings; loads no weights.

    Raises:
        ModelError: There is no such model, or its tokenizer cannot be had here.
    """
    like_tiny = _tiny_like(name)
    if like_tiny is not None:
        return tiny.tiny_tokenizer(like_tiny)
    folder = found_or_fetched(name)

    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), use_fast=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise unavailable(name, str(error).strip().splitlines()[0]) from error
    if loaded.eos_token_id is None:
        raise ModelError(f"the tokenizer of {name} has no end token, so no answer would ever end")
    ends = (int(loaded.eos_token_id),)
    if loaded.chat_template:
        return TextTokenizer(loaded.backend_tokenizer, ends, prompt_of=chat_prompt(loaded))
    return TextTokenizer(loaded.backend_tokenizer, ends)


def device_of(network: PreTrainedModel) -> torch.device:
    """Return the device that a model's inputs must be on."""
    device: torch.device = next(network.parameters()).device
    return device
