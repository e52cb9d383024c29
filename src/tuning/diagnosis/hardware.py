"""Memory, cores and GPU, as far as trials of this machine can have them."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path

from tuning.diagnosis.checks import Check, note, ok, warning

GIB = 2**30
_ENOUGH_MEMORY = 2 * GIB
"""A worker takes about 1 GiB with the embedded model, and the driver reads results beside it."""

# The way that the kernel shows a GPU: without one of these, torch need not be loaded to ask.
_DEVICES = tuple(map(Path, ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd")))


def look_at_memory() -> Check:
    """Return the memory of this machine or container, and what of it is free."""
    import psutil

    from tuning.memory import total_memory

    total = total_memory()
    free = min(total, int(psutil.virtual_memory().available))
    limit = " by its container's limit" if total < psutil.virtual_memory().total else ""
    says = f"{free / GIB:.1f} GiB free of {total / GIB:.1f} GiB{limit}"
    if free < _ENOUGH_MEMORY:
        todo = "end other programs, or run one trial at a time: tuning study run --workers 1 ..."
        return warning("memory", says, todo)
    return ok("memory", says)


def look_at_cores() -> Check:
    """Return how many cores trials may use, and whether OMP_NUM_THREADS leaves any idle."""
    from tuning.memory import usable_cores

    cores = usable_cores()
    told = os.environ.get("OMP_NUM_THREADS", "")
    says = f"{cores} usable"
    if not told:
        return ok("cores", f"{says}; OMP_NUM_THREADS is not set, workers share them")
    if not told.isdigit() or int(told) < 1:
        return warning("cores", f"{says}; OMP_NUM_THREADS is no number", "unset OMP_NUM_THREADS")
    if int(told) > cores:
        says += f"; OMP_NUM_THREADS is {int(told)}, more than there are"
        return warning("cores", says, "unset OMP_NUM_THREADS")
    return ok("cores", f"{says}; OMP_NUM_THREADS is {int(told)}")


def look_at_gpu(devices: Sequence[Path] = _DEVICES) -> Check:
    """Return the GPU that torch would take.

    Args:
        devices: Files of which a machine with a GPU has one.
    """
    small = "tiny and SmolLM2-135M train on the processor"
    if not any(path.exists() for path in devices):
        todo = "for qwen3-4b: tuning study run --backend lightning ..., or a machine with a GPU"
        return note("gpu", f"none; {small}", todo)
    build = importlib.metadata.version("torch")
    if build.endswith("+cpu"):
        todo = (
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128"
        )
        return warning("gpu", f"there is one, but torch {build} cannot use it; {small}", todo)
    from tuning.model.machine import this_machine

    machine = this_machine()
    if not machine.has_gpu:
        todo = "nvidia-smi and echo $CUDA_VISIBLE_DEVICES say why"
        return warning("gpu", f"there is one, but torch {build} sees none; {small}", todo)
    says = f"{machine.name}, {machine.num_bytes / GIB:.0f} GiB, precision {machine.precision}"
    return ok("gpu", says)
