"""How much memory a configuration takes, and what would fit: before a model is loaded. No torch.

The parts are counted from the model's shape. What a block keeps of a token for the way back was
measured once (`benchmarks/full_size.py` holds the whole estimate against a measurement).
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tuning.config import ExperimentConfig
from tuning.errors import ConfigError, nearest
from tuning.known_models import Architecture, architecture_of

GIB = 2**30
ROW_TOKENS = 20
"""About what a row adds to a micro-batch, its beginning shared."""
ANSWER_TOKENS = 9
"""Of these are predicted."""
CPU_PASS_BYTES = 5 * 2**28
"""What one micro-batch may keep on a processor: 1.25 GiB."""

_ADAPTER_BYTES = 16
"""Of a trained number, always in fp32: itself, its gradient, and AdamW's two moments."""
_LOGITS_KEPT = 3
"""Tensors of logits at once: themselves, their logarithms, and the gradient."""
_SHARED_TOKENS = 40
"""What the rows of a micro-batch begin with, a chat template as a rule."""
_CPU_LIBRARIES = 0.8 * GIB
_PIECES = 0.05
"""Of the weights: what an allocator holds and nobody uses, as seen at full size."""
_GPU_CONTEXT = 0.6 * GIB
_EVALUATION_TOKENS = 4096
_EVALUATION_LOGITS = 2**28
_WIDEST_SEQUENCE = 512
_USABLE = 0.95
"""Share of a machine's memory that a process gets."""

_ITEM_BYTES: Mapping[str, int] = {"32-true": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a trial runs, as far as memory goes."""

    name: str
    num_bytes: int
    """Memory of the GPU, or of the machine where there is none."""
    has_gpu: bool
    precision: str
    """What `auto` means there."""

    @property
    def usable_bytes(self) -> int:
        """What a process can have of it."""
        return int(_USABLE * self.num_bytes)


def _gpu(name: str, gigabytes: int, precision: str = "bf16") -> Machine:
    return Machine(name, gigabytes * 10**9, has_gpu=True, precision=precision)


MACHINES: Mapping[str, Machine] = {
    "cpu": Machine("a machine of 4 cores", 16 * 10**9, has_gpu=False, precision="32-true"),
    "t4": _gpu("a T4", 16, "fp16"),
    "l4": _gpu("an L4", 24),
    "a10g": _gpu("an A10G", 24),
    "l40s": _gpu("an L40S", 48),
    "a100": _gpu("an A100, the smaller kind", 40),
    "h100": _gpu("an H100", 80),
    "h200": _gpu("an H200", 141),
}
"""Tiers, and other machines that have a name, with the memory that their makers state."""


def machine_of(config: ExperimentConfig) -> Machine:
    """Return the machine that a configuration names, else that of its tier.

    Raises:
        ConfigError: Nothing is known of a machine by that name.
    """
    name = config.lightning_config.machine or config.lightning_config.gpu_tier
    if name.lower() not in MACHINES:
        raise ConfigError(
            f"lightning_config.machine: the memory of {name} is not known here; "
            f"{nearest(name.lower(), MACHINES)}"
        )
    return MACHINES[name.lower()]


def local_machine() -> Machine | None:
    """Return what trials run on here, as far as it can be known without torch.

    Returns:
        None where there is a GPU that has no name in `MACHINES`; a trial asks torch.
    """
    found = [path.read_text() for path in Path("/proc/driver/nvidia/gpus").glob("*/information")]
    if not found:
        return Machine("this machine", total_memory(), has_gpu=False, precision="32-true")
    words = {word.lower() for text in found for word in text.replace("-", " ").split()}
    known = [machine for name, machine in MACHINES.items() if name in words]
    return min(known, key=lambda machine: machine.num_bytes, default=None)


def total_memory() -> int:
    """Return the memory of this machine, or of the container, in bytes."""
    limits = [int(psutil.virtual_memory().total)]
    for path in _CONTAINER_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(path.read_text()))
    return min(limits)


_CONTAINER_LIMITS = tuple(
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory/memory.limit_in_bytes")
)
"""Of the newer kind of control groups, and of the older."""


def usable_cores() -> int:
    """Return the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# --- activations --------------------------------------------------------------------------------


def logits_bytes(num_rows: int, vocab_size: int) -> int:
    """Return what the logits of so many rows take, in fp32, with what their loss keeps."""
    return num_rows * ANSWER_TOKENS * vocab_size * 4 * _LOGITS_KEPT


def block_bytes(
    num_layers: int, hidden: int, inner: int, item_bytes: int, *, recomputes: bool = False
) -> int:
    """Return what the blocks keep of one row for the way back, attention apart.

    Args:
        num_layers: Blocks of the model.
        hidden: Size of its states.
        inner: Size within its feed-forward parts.
        item_bytes: Bytes of a number.
        recomputes: With gradient checkpointing a block keeps its input alone, and one at a time
            is computed again.
    """
    of_block = 30 * hidden + 8 * inner
    kept = num_layers * hidden + of_block if recomputes else num_layers * of_block
    return ROW_TOKENS * kept * item_bytes


def num_passes(config: ExperimentConfig, bytes_of_row: int, pass_bytes: int) -> int:
    """Return into how many micro-batches the rows of a step are cut.

    The configuration says how many are surely few enough for the memory. Small ones leave
    processors and GPUs idle, so as many are joined as `pass_bytes` have room for; what a step
    learns is the same up to rounding.

    Args:
        config: Batch size and accumulation.
        bytes_of_row: What a row keeps: `block_bytes` and `logits_bytes`.
        pass_bytes: What one micro-batch may keep.
    """
    training = config.training_config
    wanted = math.ceil(training.effective_batch_size * bytes_of_row / pass_bytes)
    return max(1, min(wanted, training.gradient_accumulation_steps))


def pass_bytes(gpu_bytes: int | None, resident_bytes: int) -> int:
    """Return what one micro-batch may keep.

    Args:
        gpu_bytes: Memory of the GPU; None for a processor, where it is 1.25 GiB.
        resident_bytes: What the model takes, as `resident_bytes` says.

    Returns:
        On a GPU a third of what the model leaves: the estimate may be off, and memory in pieces.
    """
    if gpu_bytes is None:
        return CPU_PASS_BYTES
    return max(1, int(_USABLE * gpu_bytes - _GPU_CONTEXT - resident_bytes) // 3)


def resident_bytes(num_parameters: int, head_numbers: int, item_bytes: int) -> int:
    """Return what a model takes, with the copy of its head in fp32 that half precision needs."""
    head = 4 * head_numbers if item_bytes == 2 else 0
    return num_parameters * item_bytes + head


# --- the whole ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a trial takes at its peak, in bytes."""

    always: Mapping[str, int]
    """Parts that are there all the time."""
    training: Mapping[str, int]
    """What comes on top in a step."""
    evaluation: Mapping[str, int]
    """What comes on top in an evaluation."""
    num_rows: int
    """Rows that pass through the model at once in training."""

    @property
    def total(self) -> int:
        """The larger of both peaks."""
        on_top = max(sum(self.training.values()), sum(self.evaluation.values()))
        return sum(self.always.values()) + on_top


def memory_of(config: ExperimentConfig, machine: Machine) -> MemoryEstimate | None:
    """Return what a configuration takes on a machine.

    Returns:
        None for a model whose shape is not known before it is fetched.
    """
    shape = architecture_of(config.tokenizer_config.model_name)
    if shape is None:
        return None
    training, lora = config.training_config, config.lora_config
    precision = machine.precision if training.precision == "auto" else training.precision
    item = _ITEM_BYTES[precision]
    of_blocks = block_bytes(
        shape.num_hidden_layers,
        shape.hidden_size,
        shape.intermediate_size,
        item,
        recomputes=training.gradient_checkpointing,
    )
    head_numbers = shape.vocab_size * shape.hidden_size
    resident = resident_bytes(shape.num_parameters, head_numbers, item)
    room = pass_bytes(machine.num_bytes if machine.has_gpu else None, resident)
    of_row = of_blocks + logits_bytes(1, shape.vocab_size)
    rows = math.ceil(training.effective_batch_size / num_passes(config, of_row, room))
    tokens = rows * ROW_TOKENS + _SHARED_TOKENS
    adapter = shape.num_adapter_parameters(lora.target_modules, lora.r)
    layers = 1 if training.gradient_checkpointing else shape.num_hidden_layers
    return MemoryEstimate(
        always={
            "libraries": int(_GPU_CONTEXT if machine.has_gpu else _CPU_LIBRARIES),
            "weights": int((1 + _PIECES) * shape.num_parameters * item),
            "adapter and optimiser": adapter * _ADAPTER_BYTES,
            "head in fp32": resident - shape.num_parameters * item,
        },
        training={
            "activations": tokens * of_blocks // ROW_TOKENS,
            "attention": 0 if machine.has_gpu else layers * _kept_chances(shape, tokens, item),
            "logits": logits_bytes(rows, shape.vocab_size),
        },
        evaluation={
            "activations": _EVALUATION_TOKENS
            * (8 * shape.hidden_size + 3 * shape.intermediate_size)
            * item,
            # Scores and chances stand side by side for a moment; a GPU's kernel holds neither.
            "attention": 0
            if machine.has_gpu
            else 2 * _kept_chances(shape, _EVALUATION_TOKENS, item),
            "logits": _EVALUATION_LOGITS,
        },
        num_rows=rows,
    )


def _kept_chances(shape: Architecture, tokens: int, item: int) -> int:
    """Return what a block's attention keeps: its chances, in fp32 and in the model's own type."""
    width = min(tokens, _WIDEST_SEQUENCE)
    each = 4 if item == 4 else 4 + item
    return shape.num_attention_heads * tokens * width * each


# --- what fits ----------------------------------------------------------------------------------


def check_fits(config: ExperimentConfig, machine: Machine) -> None:
    """Refuse a configuration that cannot fit, and say what would.

    Raises:
        ConfigError: It needs more than the machine has.
    """
    estimate = memory_of(config, machine)
    if estimate is None or estimate.total <= machine.usable_bytes:
        return
    raise ConfigError(
        f"{config.tokenizer_config.model_name} needs about {estimate.total / GIB:.1f} GiB, and "
        f"{machine.name} has {machine.usable_bytes / GIB:.1f} GiB to use; "
        f"{_advice(config, machine)}"
    )


def fitting(config: ExperimentConfig, machine: Machine) -> ExperimentConfig | None:
    """Return the configuration with the largest batch that fits, its rows a step the same.

    Gradient checkpointing is turned on where nothing fits without. None where nothing fits at all.
    """
    training = config.training_config
    rows = training.effective_batch_size
    sizes = [n for n in range(training.per_device_train_batch_size, 0, -1) if rows % n == 0]
    for recomputes in dict.fromkeys((training.gradient_checkpointing, True)):
        for size in sizes:
            changed = training.model_copy(
                update={
                    "per_device_train_batch_size": size,
                    "gradient_accumulation_steps": rows // size,
                    "gradient_checkpointing": recomputes,
                }
            )
            proposed = config.model_copy(update={"training_config": changed})
            estimate = memory_of(proposed, machine)
            if estimate is not None and estimate.total <= machine.usable_bytes:
                return proposed
    return None


def _advice(config: ExperimentConfig, machine: Machine) -> str:
    proposed = fitting(config, machine)
    if proposed is None:
        return "it does not fit there at any batch size"
    training = proposed.training_config
    more = " gradient_checkpointing=true" if training.gradient_checkpointing else ""
    return (
        f"batch_size={training.per_device_train_batch_size} "
        f"grad_accum_steps={training.gradient_accumulation_steps}{more} would fit"
    )
