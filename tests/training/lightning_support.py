"""What tests of Lightning's command line share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from safetensors.torch import load_file

from tuning.paths import ResultsRoot, TrainingFolder

EXPERIMENT: dict[str, Any] = {
    "experiment_name": "lightning",
    "timestamp": "20260101_000000",
    "tokenizer_config": {"model_name": "tiny"},
    "lora_config": {"r": 4},
    "training_config": {"max_steps": 6, "warmup_steps": 1, "learning_rate": 1e-3},
    "transfer_config": {"eval_frequency": 3},
    "evaluation_config": {"num_words": 12, "num_monitor_words": 6, "num_generated_items": 6},
}


def experiment_file(folder: Path) -> Path:
    path = folder / "exp.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT), "utf-8")
    return path


def start(
    *arguments: str, cwd: Path, program: tuple[str, ...] = (), env: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    before = program or (sys.executable,)
    return subprocess.Popen(
        [*before, "-m", "tuning.training.cli", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=250)
    assert process.returncode == 0, err
    return out


def only_training(results: Path) -> TrainingFolder:
    (root,) = (results / "data" / "trainings").glob("[0-9a-f]*")
    return ResultsRoot(results).training(root.name)


def adapter_of(folder: TrainingFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder.adapter(step) / "adapter_model.safetensors")


def moments_of(folder: TrainingFolder, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder.checkpoint(step) / "tensors.safetensors")


def losses_of(folder: TrainingFolder) -> dict[int, float]:
    lines = map(json.loads, folder.progress.read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


class Signalling(pl.Callback):
    """Sends this process a signal in the second step, once."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 1:
            os.kill(os.getpid(), self.number)


class Diverging(pl.Callback):
    """Spoils the adapter after the first step; takes a key, as loggers do."""

    def __init__(self, api_key: str) -> None:
        self.api_key = api_key

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter.data.fill_(float("nan"))
