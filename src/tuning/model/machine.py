"""The machine that runs: threads, memory, versions, and quiet libraries."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import resource
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from tuning.fingerprint import resolved_precision
from tuning.memory import Machine, total_memory, usable_cores


def default_threads() -> int:
    """Return the threads of a trial unless told: OMP_NUM_THREADS, or the cores it may use."""
    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        return max(1, int(os.environ["OMP_NUM_THREADS"]))
    return usable_cores()


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Use `count` processor threads for the time of the block: results repeat at equal threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or default_threads())
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep the libraries from writing over our progress."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", message=".*num_workers.*|.*isinstance.treespec.*")
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\..*")
        yield


_STATUS = Path("/proc/self/status")


def reset_peak_memory() -> None:
    """Begin to measure anew: a process that keeps models warm would report an earlier trial's peak.

    Linux alone can; elsewhere the peak stays that of the process.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Return the largest resident size of this process since `reset_peak_memory`, in bytes."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
    except OSError:
        found = None
    if found is not None:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_gpu_memory_bytes() -> int:
    """Return the most that tensors took on the GPU since `reset_peak_memory`; 0 without one."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def gpu_bytes(device: torch.device) -> int | None:
    """Return the memory of a GPU, in bytes; None for a processor."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def this_machine() -> Machine:
    """Return what trials run on here: the GPU that torch would take, else the processor."""
    total = gpu_bytes(torch.device("cuda")) if torch.cuda.is_available() else None
    if total is None:
        return Machine("this machine", total_memory(), has_gpu=False, precision="32-true")
    precision = resolved_precision("auto")
    return Machine(torch.cuda.get_device_name(), total, has_gpu=True, precision=precision)


def versions() -> dict[str, str]:
    """Return the versions that results depend on."""
    names: Sequence[str] = ("tuning", "torch", "transformers", "peft", "lightning", "wordfreq")
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
