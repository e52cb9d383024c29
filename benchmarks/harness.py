"""What the benchmarks share: medians of interleaved repeats, the machine's name, tables."""

from __future__ import annotations

import json
import platform
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Table:
    """Figures to be read."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        """Return it as markdown."""
        lines = [f"**{self.title}**", "", _row(self.head), _row(["---"] * len(self.head))]
        lines += [_row(cells) for cells in self.rows]
        return "\n".join([*lines, *(f"\n{note}" for note in self.notes)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over the runs."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def machine() -> str:
    """Return what the figures were measured on."""
    import torch

    names = re.findall(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = set(re.findall(r"avx512_bf16|amx_bf16|avx512f|avx2", _cpuinfo()))
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    processor = names[0] if names else platform.processor() or platform.machine()
    return (
        f"{processor} ({', '.join(sorted(flags))}), {torch.get_num_threads()} threads{gpu}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def print_answer(
    answer: Mapping[str, Any], as_json: bool, show: Callable[[dict[str, Any]], Table]
) -> None:
    """Print an answer as JSON, or as a table to read."""
    answer = {"machine": machine(), **answer}
    print(json.dumps(answer) if as_json else f"{show(answer)}\n\n{answer['machine']}")
