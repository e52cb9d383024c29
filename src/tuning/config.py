"""The configuration of an experiment: sections and laws.

Every default of the product is written here, once, beside its law. How files are laid on top of
each other is in `composition.py`, what of a configuration is trained in `fingerprint.py`.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tuning import documents, files
from tuning.documents import Key, dotted
from tuning.errors import ConfigError, nearest, shown
from tuning.known_models import architecture_of
from tuning.paths import DEFAULT_CONFIG_DIR, checked_name
from tuning.schema import (
    Flag,
    Law,
    Number,
    Rate,
    Section,
    Size,
    Steps,
    Text,
    adapter_of,
    all_laws,
    law_in_words,
    law_of_error,
    leaves,
    schema_of,
)
from tuning.tasks.difficulty import Band
from tuning.tasks.stream import Arm
from tuning.tokens.subset import SubsetRule


def _time_stamp(value: Any) -> Any:
    """Read what YAML 1.1 takes for an integer: 20260101_000000 without quotes."""
    text = str(value)
    is_integer = isinstance(value, int) and not isinstance(value, bool) and len(text) == 14
    return f"{text[:8]}_{text[8:]}" if is_integer else value


def _safe_name(value: str) -> str:
    return checked_name(value, "experiment_name")


class Schedule(StrEnum):
    """How the learning rate moves over the steps."""

    CONSTANT_WITH_WARMUP = "constant_with_warmup"
    LINEAR = "linear"
    COSINE = "cosine"

    @property
    def depends_on_max_steps(self) -> bool:
        """Whether a run of fewer steps is no prefix of a longer one."""
        return self is not Schedule.CONSTANT_WITH_WARMUP


def _different(names: tuple[str, ...]) -> tuple[str, ...]:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"target_modules must differ, got {shown(name)} twice")
    return names


def _scale_is_sane(alpha: float, r: int) -> str | None:
    scale = alpha / r
    if 1 / 16 <= scale <= 64:
        return None
    return (
        f"alpha / r must lie in [1/16, 64], got {alpha:g} / {r} = {scale:g}; "
        f"for r {r} choose alpha between {r / 16:g} and {min(r * 64, 4096):g}"
    )


class LoraConfig(Section):
    """The adapter; the update added to a frozen weight is ``(alpha / r) * B @ A``."""

    laws = (Law(("alpha", "r"), _scale_is_sane),)

    r: Annotated[int, Field(ge=1, le=1024, strict=True)] = 16
    """Inner size of A and B. Trainable parameters grow linearly with it."""
    alpha: Annotated[Number, Field(gt=0, le=4096)] = 32
    """Scale numerator, dimensionless. The scale alpha / r must lie in [1/16, 64]."""
    dropout: Annotated[Number, Field(ge=0, lt=1)] = 0.05
    """Share of the adapter's inputs set to zero in training."""
    target_modules: Annotated[tuple[Text, ...], Field(min_length=1), AfterValidator(_different)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    """Names of the linear layers that get an adapter; they must exist in the model."""


def _warmup_fits(warmup_steps: int, max_steps: int) -> str | None:
    if warmup_steps <= max_steps:
        return None
    return f"warmup_steps must be at most max_steps, got {warmup_steps} > {max_steps}"


class TrainingConfig(Section):
    """The optimiser (AdamW), its schedule, and how it runs."""

    laws = (Law(("warmup_steps", "max_steps"), _warmup_fits),)

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
    gradient_checkpointing: Flag = False
    """Compute activations again on the way back instead of keeping them: less memory, more time,
    the same weights."""
    num_threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
    """Processor threads of a trial; all cores if not given. Results repeat bit for bit only at
    equal threads."""

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
    word_list: Text | None = None
    """A file of words to train on instead of ours, one a line. Evaluation stays as it is."""
    replay_file: Text | None = None
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
    machine: Text | None = None
    """Any other cloud machine, by its name; wins over the tier."""


class TokenizerConfig(Section):
    """The model, which always brings its own tokenizer, and what is done with its vocabulary."""

    model_name: Text = "Qwen/Qwen3-4B"
    """A model of `tuning models list`, a Hub id, or a local folder."""
    use_english_only_tokens: Flag = False
    """Train and evaluate on the English part of the vocabulary alone."""
    subset_rule: SubsetRule = SubsetRule.PRINTABLE
    """Which tokens count as English; all but dictionary keep every word a-z."""
    analyze_thinking_mode: Flag = False
    """Also record the model's answers with thinking on. Changes an analysis, not the training."""

    @property
    def subset(self) -> SubsetRule | None:
        """The rule that slices the vocabulary; None where the model has it whole."""
        return self.subset_rule if self.use_english_only_tokens else None


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
    num_thinking_items: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 30
    """With analyze_thinking_mode: items answered freely with thinking on, and again with it off."""
    max_thinking_tokens: Annotated[int, Field(ge=1, le=32_768, strict=True)] = 256
    """With analyze_thinking_mode: longest answer; thinking counts."""


def _now() -> str:
    return datetime.now(UTC).strftime(_STAMP)


def _targets_exist(targets: Sequence[str], model: str) -> str | None:
    architecture = architecture_of(model)
    if architecture is None:
        # A model that is not known before it is fetched is checked when it is loaded.
        return None
    for target in targets:
        if target not in architecture.linear_layers:
            return (
                f"target_modules must be linear layers of {model} (family "
                f"{architecture.model_type}), got {shown(target)}; "
                f"{nearest(target, architecture.linear_layers)}"
            )
    return None


def _subset_has_no_embedding_target(targets: Sequence[str], english_only: bool) -> str | None:
    for target in targets:
        if english_only and target in ("embed_tokens", "lm_head"):
            return (
                f"with use_english_only_tokens the vocabulary is sliced, so target_modules must "
                f"not hold {target}, whose rows are tokens"
            )
    return None


def _machine_has_precision(precision: str, tier: str, machine: str | None) -> str | None:
    name = machine or tier
    if precision != "bf16" or "t4" not in name.lower():
        return None
    return (
        f"precision bf16 does not exist on a {name.upper()}; choose auto or fp16, "
        f"or a machine of the Ampere generation or later, such as gpu_tier a100"
    )


class ExperimentConfig(Section):
    """One experiment: everything that a trial needs to know."""

    laws = (
        Law(("lora_config.target_modules", "tokenizer_config.model_name"), _targets_exist),
        Law(
            ("lora_config.target_modules", "tokenizer_config.use_english_only_tokens"),
            _subset_has_no_embedding_target,
        ),
        Law(
            (
                "training_config.precision",
                "lightning_config.gpu_tier",
                "lightning_config.machine",
            ),
            _machine_has_precision,
        ),
    )

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
    "subset_rule": "tokenizer_config.subset_rule",
    "analyze_thinking_mode": "tokenizer_config.analyze_thinking_mode",
}
"""The hyperparameter names of search spaces, and the dotted key of each."""


# --- keys -------------------------------------------------------------------------------------


KEYS: Mapping[str, FieldInfo] = dict(leaves(ExperimentConfig))
"""Every dotted key of a configuration."""

FLAT_OF: Mapping[str, str] = {key: flat for flat, key in FLAT_NAMES.items()}
"""The flat name of a dotted key that has one."""


def key_of(name: str) -> str:
    """Return the dotted key of a flat hyperparameter name, or of a dotted key itself.

    Raises:
        ConfigError: There is neither; the nearest are named.
    """
    key = FLAT_NAMES.get(name, name)
    if key not in KEYS:
        known = [*FLAT_NAMES, *KEYS] if "." in name else FLAT_NAMES
        raise ConfigError(f"{name}: no such hyperparameter; {nearest(name, known)}")
    return key


@functools.cache
def _adapter(key: str) -> TypeAdapter[Any]:
    return adapter_of(KEYS[key])


def field_value(key: str, value: Any) -> Any:
    """Return a value as its field alone takes it, as plain data.

    Args:
        key: A dotted key.
        value: What a file or a search space gives it.

    Raises:
        ConfigError: The value breaks the field's law.
    """
    adapter = _adapter(key)
    try:
        return adapter.dump_python(adapter.validate_python(value), mode="json")
    except ValidationError as error:
        raise ConfigError("\n".join(f"{key}: {law_of_error(e)}" for e in error.errors())) from error


class KeyDoc(NamedTuple):
    """What a person needs to know of a key."""

    key: str
    flat_name: str | None
    default: Any
    law: str
    says: str


def describe_keys() -> list[KeyDoc]:
    """Return every key with its flat name, default, law and meaning, in the order of a file."""
    return [
        KeyDoc(
            key,
            FLAT_OF.get(key),
            _default(field),
            law_in_words(field, _schema(key)),
            field.description or "",
        )
        for key, field in KEYS.items()
    ]


def _default(field: FieldInfo) -> Any:
    if field.default is PydanticUndefined:
        return None
    return list(field.default) if isinstance(field.default, tuple) else field.default


@functools.cache
def _schema(key: str) -> dict[str, Any]:
    return schema_of(_adapter(key))


def kind_of(key: str) -> str:
    """Return what a key holds: integer, number, boolean, string or array."""
    return str(_schema(key)["type"])


# --- building ---------------------------------------------------------------------------------

Place = Callable[[Key], str]
"""Says where a key was written: file and line, an override, or another origin."""


def build(raw: Mapping[str, Any], source: str | Place, within: Key = ()) -> ExperimentConfig:
    """Validate a nested mapping.

    Args:
        raw: Sections and keys, as in a file.
        source: File or other origin, for messages; or where each key was written.
        within: The key of a file that the mapping hangs off, for messages.

    Raises:
        ConfigError: All broken laws together, a line each.
    """
    try:
        return ExperimentConfig.model_validate(dict(raw))
    except ValidationError as error:
        place = source if callable(source) else _same_place(source)
        broken = [_explain(e, place, within) for e in error.errors() if e["type"] != "law"]
        for key, law in _broken_laws(raw):
            broken.append(f"{place((*within, *key))}: {dotted((*within, *key))}: {law}")
        raise ConfigError("\n".join(dict.fromkeys(broken))) from error


def _same_place(source: str) -> Place:
    return lambda key: source


def _explain(error: Any, place: Place, within: Key) -> str:
    location = error["loc"]
    written = (*within, *location)
    head = f"{place(written)}: {dotted(written)}: "
    if error["type"] == "extra_forbidden":
        return f"{head}no such key; {_hint(str(location[-1]), location[:-1])}"
    return head + law_of_error(error)


def _hint(name: str, section: Key) -> str:
    if not section and FLAT_NAMES.get(name):
        first, _, rest = FLAT_NAMES[name].partition(".")
        return f"in a file {name} is written {first}: {{{rest}: ...}}"
    return nearest(name, _keys_at(section))


def _keys_at(location: Sequence[Any]) -> list[str]:
    model: Any = ExperimentConfig
    for part in location:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


LAWS: tuple[Law, ...] = tuple(all_laws(ExperimentConfig))
"""Every rule over several values, with whole dotted keys."""


def _broken_laws(raw: Mapping[str, Any]) -> Iterator[tuple[Key, str]]:
    """Yield what is wrong between values that are legal by themselves."""
    for law in LAWS:
        try:
            values = [_own_value(raw, key) for key in law.keys]
        except ConfigError:
            continue
        message = law.broken_by(*values)
        if message is not None:
            yield tuple(law.keys[0].split(".")), message


def _own_value(raw: Mapping[str, Any], key: str) -> Any:
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: its section is no mapping")
        if part not in value:
            return KEYS[key].default
        value = value[part]
    return field_value(key, value)


def value_at(raw: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key in a whole configuration as plain data."""
    return functools.reduce(lambda inner, part: inner[part], key.split("."), raw)


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return ``{a: {b: value}}`` for ``a.b``."""
    for part in reversed(key.split(".")):
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
    """Return `config` with hyperparameters replaced, by their flat names or dotted keys.

    Raises:
        ConfigError: A name is unknown or a value breaks a law.
    """
    raw = config.model_dump(mode="json")
    for name, value in parameters.items():
        raw = _merge(raw, nested(key_of(name), value))
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
    return documents.to_yaml(config.model_dump(mode="json"))


def save(config: ExperimentConfig, config_dir: Path = DEFAULT_CONFIG_DIR) -> Path:
    """Write `{experiment_name}_{timestamp}.yaml` and return its path.

    Where another configuration has this name and second, the next free second is taken.

    Raises:
        ResultsError: The folder cannot be written.
    """
    path, text = _named(config, config_dir)
    while path.exists() and path.read_bytes() != text.encode():
        later = datetime.strptime(config.timestamp, _STAMP).replace(tzinfo=UTC) + timedelta(0, 1)
        config = config.model_copy(update={"timestamp": later.strftime(_STAMP)})
        path, text = _named(config, config_dir)
    files.write_atomic(path, text)
    return path


_STAMP = "%Y%m%d_%H%M%S"


def _named(config: ExperimentConfig, config_dir: Path) -> tuple[Path, str]:
    return config_dir / f"{config.experiment_name}_{config.timestamp}.yaml", to_yaml(config)


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
    for name, key in FLAT_NAMES.items():
        if name not in given:
            continue
        value = list(given[name]) if name == "target_modules" else given[name]
        raw = _merge(raw, nested(key, value))
    raw = _merge(raw, nested("tokenizer_config.model_name", model_name))
    return save(build(raw, exp_name), config_dir)
