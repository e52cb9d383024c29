"""The base models: a name becomes weights, a tokenizer, and the words it may be asked about."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from tuning.config import ExperimentConfig
from tuning.errors import ModelError
from tuning.files import sha256_of_json
from tuning.known_models import HUB_IDS
from tuning.model import tiny
from tuning.model.hub import found_or_fetched, unavailable, weights_hash
from tuning.model.tokenizer import PromptOf, TextTokenizer, chat_prompt, naming
from tuning.paths import user_path
from tuning.tasks.pseudo_words import pseudo_words
from tuning.tasks.replay import ReplayFile
from tuning.tasks.words import SubjectWords, english_words, without_benchmark_words
from tuning.tokens.subset import SubsetRule
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
    packs: bool = True
    """Whether several rows may share a sequence; see `model.packing`."""

    @property
    def key(self) -> str:
        """Name of the folder of the untouched model's evaluations."""
        identity = [self.weights_hash, self.precision, self.tokenizer.vocab_size]
        subset = self.tokenizer.subset
        identity += [] if subset is None else [subset.rule.value, subset.hash]
        return f"base_{sha256_of_json(identity)[:16]}"

    @property
    def says(self) -> str:
        """Name and size, for pages that show numbers made with it."""
        size = f"{self.num_parameters / 1e6:.2f} M parameters"
        subset = self.tokenizer.subset
        if subset is not None:
            size += f", {self.tokenizer.vocab_size:,} tokens: {subset.rule.value}"
        return f"{self.name} ({size})"


def subject_words(name: str, subset: SubsetRule | None = None) -> SubjectWords:
    """Return the words that a model may be trained on or asked about, in a fixed order.

    For tiny its study words, for every other model all words less the benchmark ones; and words
    made up from them, as far as the model has tokens for them.

    Args:
        name: The model.
        subset: The rule that its vocabulary is sliced by. Only one that drops pieces of words
            leaves fewer of them.
    """
    if subset is not None and not subset.keeps_all_words:
        return _writable_subjects(name, subset)
    folder = _tiny_like(name)
    return _general_words() if folder is None else _tiny_subjects(folder)


@functools.lru_cache(maxsize=1)
def _writable_subjects(name: str, subset: SubsetRule) -> SubjectWords:
    words, tokenizer = subject_words(name), tokenizer_of(name, subset)
    return SubjectWords(encodable(words.real, tokenizer), encodable(words.pseudo, tokenizer))


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
        UserError: A file of the user's own cannot be used, needs a token that the model or its
            subset does not have, or no word is left.
    """

    def writable(listed: Sequence[str]) -> tuple[str, ...]:
        if tokenizer.subset is None:
            return encodable(listed, tokenizer)
        # What the whole model cannot write is left out and counted, as ever; what the subset
        # dropped is the user's choice, and a mistake.
        kept = encodable(listed, tokenizer_of(config.tokenizer_config.model_name))
        with naming(config.spelling_config.word_list):
            for forms in zip(*map(tiny.written_forms, kept), strict=True):
                tokenizer.encode_batch(forms)
        return kept

    data = training_data(config, words, tokenizer.count_tokens, writable)
    if tokenizer.kept_ids is not None and isinstance(data.stream.replay, ReplayFile):
        replay = data.stream.replay
        with naming(config.spelling_config.replay_file):
            for start in range(0, len(replay), 1000):
                end = min(start + 1000, len(replay))
                tokenizer.encode_items([replay[i] for i in range(start, end)])
    return data


def _tiny_like(name: str) -> Path | None:
    """Return the folder of tiny, or of a model that was built or merged from it."""
    if name == "tiny":
        return tiny.tiny_folder()
    folder = user_path(name)
    return folder if (folder / "card.json").is_file() else None


def load_base(name: str, precision: str = "32-true", subset: SubsetRule | None = None) -> BaseModel:
    """Return a model as `read_base` does; the last one is kept, and given again.

    Raises:
        ModelError: There is no such model, or its weights cannot be had here.
    """
    return last_base(name, precision, subset)


def read_base(name: str, precision: str, subset: SubsetRule | None = None) -> BaseModel:
    """Load a model and freeze it.

    Args:
        name: A known name, a Hub id, or a local folder.
        precision: 32-true, bf16 or fp16.
        subset: Slice the vocabulary to the English part by this rule.

    Raises:
        ModelError: There is no such model, or its weights cannot be had here.
    """
    folder = found_or_fetched(name)
    whole = tokenizer_of(name)

    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    from tuning.model.packing import can_pack

    dtype = {"32-true": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    try:
        network = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            # On a processor, rows of 24 to 176 tokens, forward and back: the fused kernel takes 1.0
            # to 1.4 times as long as plain products in fp32, and 3 to 10 times in bf16.
            attn_implementation="sdpa" if torch.cuda.is_available() else "eager",
            use_safetensors=True,
            local_files_only=True,
            # Without an answer of ours the library asks on the terminal.
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise unavailable(name, str(error).strip().splitlines()[0]) from error
    network.requires_grad_(False)
    network.eval()
    tokenizer = tokenizer_of(name, subset)
    if tokenizer.subset is not None:
        from tuning.model.vocabulary import slice_rows

        slice_rows(network, whole.rows(tokenizer.subset.ids))
    # What adapters say of their base: a name, never a place on this machine.
    network.name_or_path = HUB_IDS.get(name, name)
    network = _on_device(network)
    return BaseModel(
        name=name,
        network=network,
        tokenizer=tokenizer,
        precision=precision,
        weights_hash=weights_hash(name, folder),
        num_parameters=sum(p.numel() for p in network.parameters()),
        packs=can_pack(network),
    )


def _on_device(network: PreTrainedModel) -> PreTrainedModel:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device)


def tokenizer_of(name: str, subset: SubsetRule | None = None) -> TextTokenizer:
    """Return the tokenizer that a model brings; loads no weights.

    Args:
        name: The model.
        subset: Keep the English part of its vocabulary by this rule alone.

    Raises:
        ModelError: There is no such model, its tokenizer cannot be had here, or cannot be judged.
    """
    # A default that is left out and one that is given are two calls to a cache, and one to this.
    return _tokenizer(name, subset)


@functools.lru_cache(maxsize=8)
def _tokenizer(name: str, subset: SubsetRule | None) -> TextTokenizer:
    if subset is not None:
        from tuning.model.vocabulary import sliced_tokenizer

        return sliced_tokenizer(_tokenizer(name, None), subset, name)
    like_tiny = _tiny_like(name)
    if like_tiny is not None:
        return tiny.tiny_tokenizer(like_tiny)
    folder = found_or_fetched(name)

    from transformers import AutoTokenizer

    try:
        loaded = AutoTokenizer.from_pretrained(
            str(folder), use_fast=True, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise unavailable(name, str(error).strip().splitlines()[0]) from error
    if loaded.eos_token_id is None:
        raise ModelError(f"the tokenizer of {name} has no end token, so no answer would ever end")
    ends = (int(loaded.eos_token_id),)
    named = (loaded.bos_token_id, loaded.eos_token_id, loaded.pad_token_id)
    control = tuple(token for token in named if token is not None)
    if not loaded.chat_template:
        return TextTokenizer(loaded.backend_tokenizer, ends, control_ids=control)
    return TextTokenizer(
        loaded.backend_tokenizer,
        ends,
        control_ids=control,
        prompt_of=chat_prompt(loaded),
        thinking_prompt_of=_thinking_prompt(loaded),
    )


def _thinking_prompt(loaded: object) -> PromptOf | None:
    """Return how a chat model is asked with thinking on, if its template tells the modes apart."""
    off, on = chat_prompt(loaded), chat_prompt(loaded, thinking=True)
    return None if off("?", ()) == on("?", ()) else on


_T = TypeVar("_T")


class Last(Generic[_T]):
    """Keeps what was made last, and lets go of it before it makes another: two may not fit."""

    def __init__(self, make: Callable[..., _T]) -> None:
        """Wrap a function of hashable arguments."""
        self._make = make
        self._made: dict[Hashable, _T] = {}

    def __call__(self, *arguments: Hashable) -> _T:
        """Return what the function gives, made once while the arguments stay the same."""
        if arguments not in self._made:
            self.forget()
            self._made[arguments] = self._make(*arguments)
        return self._made[arguments]

    def forget(self) -> None:
        """Let go of what is kept."""
        self._made.clear()


last_base = Last(read_base)


def device_of(network: PreTrainedModel) -> torch.device:
    """Return the device that a model's inputs must be on."""
    device: torch.device = next(network.parameters()).device
    return device
