"""Adapters by PEFT: put on a base model, saved in PEFT's format, taken off again."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, PeftModelForCausalLM, get_peft_model
from peft.tuners.lora import LoraLayer
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from tuning import files
from tuning.config import LoraConfig
from tuning.errors import ModelError, ResultsError, nearest, shown
from tuning.model.base import BaseModel
from tuning.model.hub import base_of_adapter, tensor_shapes
from tuning.schema import law_of_error


@contextlib.contextmanager
def fresh_adapter(base: BaseModel, settings: LoraConfig, seed: int) -> Iterator[PeftModel]:
    """Put a new adapter on `base` for the time of the block; the base is then as it was.

    Args:
        base: The frozen model; shared between trials.
        settings: Size and places of the adapter.
        seed: Chooses A's first values; B begins at 0, so the first output is the base's.

    Raises:
        ModelError: A target module does not exist in this model.
    """
    _check_targets(base, settings)
    torch.manual_seed(seed)
    peft_config = PeftLoraConfig(
        r=settings.r,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(base.network, peft_config)
    _use_cheap_dropout(adapted)
    try:
        yield adapted
    finally:
        _take_off(adapted)


class CheapDropout(torch.nn.Module):
    """Dropout from 15 random bits a number: torch draws a whole number of 32 bits for each.

    The probability is the nearest multiple of 1/32,768, and what stays is scaled by exactly that.
    """

    def __init__(self, p: float) -> None:
        """Set the probability of dropping a number, in [0, 1)."""
        super().__init__()
        self._num_dropped = round(p * _CHANCES)

    def forward(self, x: Tensor) -> Tensor:
        """Drop some of `x`, of any shape, while training."""
        if not self.training or not self._num_dropped:
            return x
        size = x.numel()
        drawn = torch.empty(-(-size // 4), dtype=torch.int64, device=x.device)
        chances = drawn.random_(-(2**63), None).view(torch.int16)[:size].view(x.shape)
        # A chance below `num_dropped` becomes 0, any other 1. Whole numbers all the way: on a
        # processor a comparison and a fill by its outcome take several times as long.
        chances.bitwise_and_(_CHANCES - 1).sub_(self._num_dropped).bitwise_right_shift_(15).add_(1)
        return x * chances.to(x.dtype).mul_(_CHANCES / (_CHANCES - self._num_dropped))


_CHANCES = 2**15


def _use_cheap_dropout(adapted: PeftModel) -> None:
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for name, dropout in module.lora_dropout.items():
                if isinstance(dropout, torch.nn.Dropout):
                    module.lora_dropout[name] = CheapDropout(dropout.p)


def _take_off(adapted: Any) -> None:
    if sys.is_finalizing():
        # A script has ended with its adapter on: PEFT's progress bar would start a thread, which
        # Python does not let run any more, and wait for it for ever.
        return
    adapted.unload()
    network = adapted.get_base_model()
    if hasattr(network, "peft_config"):
        del network.peft_config
    network.requires_grad_(False)


def _check_targets(base: BaseModel, settings: LoraConfig) -> None:
    linears = {
        name.rsplit(".", 1)[-1]
        for name, module in base.network.named_modules()
        if isinstance(module, torch.nn.Linear)
    } - {"lm_head"}
    for target in settings.target_modules:
        if target not in linears:
            raise ModelError(
                f"target module {target!r} does not exist in {base.name}; "
                f"{nearest(target, linears)}"
            )


@contextlib.contextmanager
def recomputing(base: BaseModel) -> Iterator[None]:
    """For the time of the block keep no activations of `base`'s blocks, but compute them again."""
    # The other way of torch's needs inputs with gradients, which a frozen model does not have.
    base.network.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        base.network.gradient_checkpointing_disable()


@contextlib.contextmanager
def stored_adapter(
    base: BaseModel, folder: Path, *, is_trainable: bool = False
) -> Iterator[PeftModel]:
    """Put a stored adapter on `base` for the time of the block.

    Args:
        base: The model that it was made for.
        folder: Where it is, in PEFT's format.
        is_trainable: Whether it is to be trained further.

    Raises:
        ModelError: The folder holds no adapter, or one that does not fit this model.
    """
    check_is_adapter(folder)
    # The layers are put on before the weights are read: whatever is wrong with these, what was put
    # on is known, and is taken off again. The base is shared.
    settings = _stored_config(base, folder)
    settings.inference_mode = not is_trainable
    adapted = PeftModelForCausalLM(base.network, settings)
    if is_trainable:
        _use_cheap_dropout(adapted)
    try:
        _load_weights(base, adapted, folder)
        for name, tensor in adapted.named_parameters():
            if "lora_" in name and not bool(torch.isfinite(tensor).all()):
                raise ModelError(
                    f"the adapter in {folder} holds values that are no numbers: {name}"
                )
        yield adapted
    finally:
        _take_off(adapted)


def _stored_config(base: BaseModel, folder: Path) -> PeftLoraConfig:
    kind = _kind_of(base, folder)
    if kind != "LORA":
        raise _unfit(base, folder, f"it is {shown(kind)}, and this program knows LoRA alone")
    try:
        settings = PeftLoraConfig.from_pretrained(str(folder))
        targets = tuple(sorted(settings.target_modules))
        own = LoraConfig(r=settings.r, alpha=settings.lora_alpha, target_modules=targets)
    except ValidationError as error:
        (first, *_) = error.errors()
        where = ".".join(map(str, first["loc"]))
        raise _unfit(base, folder, f"{where}: {law_of_error(first)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unfit(base, folder, error) from error
    for name in _MORE_THAN_LORA:
        if getattr(settings, name, None):
            raise _unfit(base, folder, f"it uses {name}, which is more than LoRA on linear layers")
    if settings.init_lora_weights not in (True, False, "gaussian"):
        # These write into the base's own weights, and the base is shared.
        method = shown(settings.init_lora_weights)
        raise _unfit(base, folder, f"init_lora_weights {method} changes the base model itself")
    try:
        _check_targets(base, own)
    except ModelError as error:
        raise _unfit(base, folder, error) from error
    return settings


def _kind_of(base: BaseModel, folder: Path) -> object:
    try:
        config = files.read_json(folder / "adapter_config.json")
    except ResultsError as error:
        raise _unfit(base, folder, error) from error
    if not isinstance(config, dict):
        raise _unfit(base, folder, "adapter_config.json must hold a mapping")
    return config.get("peft_type")


_MORE_THAN_LORA = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "megatron_config",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "velora_config",
)
"""What PEFT's adapters may hold beside; each would change layers that are not an adapter's, or
import code by a name that stands in the file."""


def _load_weights(base: BaseModel, adapted: PeftModel, folder: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            loaded = adapted.load_adapter(str(folder), "default")
    except RuntimeError as error:
        raise _unfit(base, folder, _other_shape(adapted, folder) or error) from error
    except (ValueError, KeyError, TypeError, SafetensorError, UserWarning) as error:
        raise _unfit(base, folder, error) from error
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if missing or loaded.unexpected_keys:
        strange = (missing or loaded.unexpected_keys)[0]
        raise _unfit(base, folder, f"{strange} is {'missing' if missing else 'unexpected'}")
    adapted.eval()


def _other_shape(adapted: PeftModel, folder: Path) -> str:
    """Return which weights have another shape than the model has room for; empty if none have."""
    own = {
        name.replace(".default.", "."): tuple(tensor.shape)
        for name, tensor in adapted.named_parameters()
    }
    for name, shape in tensor_shapes(folder).items():
        if own.get(name, shape) != shape:
            layer = name.removeprefix("base_model.model.")
            return f"{layer} has the shape {shape}, and the model has room for {own[name]}"
    return ""


def _unfit(base: BaseModel, folder: Path, reason: object) -> ModelError:
    text = " ".join(str(reason).split())
    text = text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."
    return ModelError(
        f"the adapter in {folder} does not fit {base.name}: {text}{_made_for(folder)}"
    )


_LONGEST_REASON = 300


def _made_for(folder: Path) -> str:
    try:
        return f"; it says that it was made for {base_of_adapter(folder)}"
    except (ModelError, ResultsError):
        return ""


def adapter_hash(folder: Path) -> str:
    """Return the SHA-256 of an adapter's weights, 64 hex digits.

    Raises:
        ModelError: The folder holds no adapter.
    """
    check_is_adapter(folder)
    return files.sha256_of_file(folder / "adapter_model.safetensors")


def check_is_adapter(folder: Path) -> None:
    """Check that a folder holds an adapter in PEFT's format; reads nothing of it.

    Raises:
        ModelError: It does not.
    """
    if folder.is_file():
        raise ModelError(f"{folder} is a file, and an adapter is a folder: give that of the file")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / name).is_file():
            raise ModelError(f"{folder} holds no adapter: {name} is missing")


def save_adapter(adapted: PeftModel, folder: Path) -> None:
    """Write the adapter to `folder` in PEFT's format, or leave nothing.

    Raises:
        ResultsError: The disk refuses.
    """
    if folder.is_dir():
        return
    temporary = folder.with_name(f".{folder.name}.partial")
    files.remove_folder(temporary)
    files.make_folder(temporary)
    try:
        with files.readable_os_errors(folder):
            # PEFT's own choice would store whole embeddings after slicing, and ask the hub.
            adapted.save_pretrained(str(temporary), save_embedding_layers=False)
    except SafetensorError as error:
        reason = "the disk is full" if "os error 28" in str(error) else error
        raise ResultsError(f"cannot write {folder}: {reason}") from error
    files.publish_folder(temporary, folder)
