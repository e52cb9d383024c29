"""A small bench of tiny, and adapters that push the model around; made once a process."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch

from tuning.config import EvaluationConfig, LoraConfig
from tuning.evaluation.bench import Bench, new_bench
from tuning.model.base import subject_words
from tuning.model.lora import fresh_adapter, save_adapter
from tuning.tasks.splits import Split, split_subjects


@functools.cache
def bench_of(num_words: int, num_generated: int) -> Bench:
    """Return a bench of tiny over held-out words."""
    words = split_subjects(subject_words("tiny"))[Split.VALIDATION]
    sizes = EvaluationConfig(
        num_words=num_words, num_monitor_words=3, num_generated_items=num_generated
    )
    return new_bench("tiny", "32-true", sizes, words)


def disturb(adapted: Any, size: float = 0.01) -> None:
    """Give an adapter values that make many answers wrong."""
    generator = torch.Generator().manual_seed(2)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * size
    adapted.eval()


@functools.cache
def adapters_in(folder: Path) -> Path:
    """Write the adapters `zero`, which adds nothing, and `disturbed`; return their folder."""
    with fresh_adapter(bench_of(12, 30).base, LoraConfig(dropout=0), 0) as adapted:
        save_adapter(adapted, folder / "zero")
        disturb(adapted)
        save_adapter(adapted, folder / "disturbed")
    return folder
