"""How long a list of configurations will take, and how much disk: before any of them runs.

Time is taken from trials of the same model that were run here, where there are any. Else it is
arithmetic from the model's size and the speed of this machine, which is measured; such an estimate
is right within a factor of about three.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuning.config import ExperimentConfig
from tuning.errors import ResultsError, numbered
from tuning.fingerprint import training_key, weights_key
from tuning.known_models import architecture_of
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, read_record
from tuning.tasks.items import EVALUATED_TASKS

TEMPLATES = 3
"""Templates that every word is asked in."""

# Seen in docs/log.md: tiny, plain text, 20.7 tokens a row; SmolLM2 with its chat template, 50.7.
_TOKENS_OF_A_ROW = {"tiny": 21}
_TOKENS_OF_A_CHAT_ROW = 51

_PASSES = 4
"""Operations a weight and token in training: 2 forward, 2 for the gradient of activations."""

_BATCH_SECONDS = 0.02
"""What a micro-batch costs however small the model is."""

_GPUS = {
    "T4": 65e12,
    "V100": 125e12,
    "A100": 312e12,
    "L4": 121e12,
    "L40S": 362e12,
    "H100": 990e12,
    "H200": 990e12,
}
"""Peak half-precision operations a second, by the makers' data sheets."""

_GPU_SHARE = 0.3
"""Of its peak, what short rows get."""

_RENTED_PROCESSORS = 100e9
"""Operations a second of the four cores that a small rented machine has."""

_START_SECONDS = 300.0
"""Until a rented machine is there, and has loaded libraries and model."""

_BYTES_OF_AN_ITEM = 16
"""Of a stored prediction, compressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is still to be done, as far as it can be known."""

    num_trainings_left: int
    num_evaluations_left: int
    seconds: float | None
    """None for a model whose size is not known before it is fetched."""
    num_bytes: int | None
    """New files; None as above."""
    basis: str
    """What the time is taken from."""

    @property
    def says(self) -> str:
        """The estimate in words."""
        if not self.num_evaluations_left:
            return f"nothing to do: {self.basis}"
        what = (
            f"{numbered(self.num_trainings_left, 'training')} and "
            f"{numbered(self.num_evaluations_left, 'evaluation')}"
        )
        if self.seconds is None:
            return f"{what} to make; how long is not known before the model is fetched"
        disk = "an unknown size" if self.num_bytes is None else f"{self.num_bytes / 2**20:,.0f} MiB"
        return (
            f"{what} to make: about {in_words(self.seconds)} one after another and {disk} on disk "
            f"(from {self.basis})"
        )


@dataclass(frozen=True, slots=True)
class _Work:
    """A training that is still to be made, or continued, and what is evaluated of it."""

    config: ExperimentConfig
    num_steps: int
    num_evaluations: int
    num_monitored: int


def estimate(
    configs: Sequence[ExperimentConfig], root: ResultsRoot, num_like_first: int = 0
) -> Estimate:
    """Estimate what configurations cost that are not yet in the results.

    Args:
        configs: Of all trials; equal trainings are counted once, a longer one for a shorter one.
        root: Where results of earlier trials are.
        num_like_first: Trials that are not known yet, taken to cost what the first one costs.
    """
    work = [*_work(configs, root), *[_whole(configs[0])] * num_like_first]
    longest = max(config.training_config.max_steps for config in configs)
    speed = _speed(configs[0].tokenizer_config.model_name, root, longest)
    seconds: float | None = 0.0
    num_bytes: int | None = 0
    for part in work:
        size = _bytes(part)
        own = speed.seconds(part)
        seconds = None if seconds is None or own is None else seconds + own
        num_bytes = None if num_bytes is None or size is None else num_bytes + size
    return Estimate(
        num_trainings_left=sum(part.num_steps > 0 for part in work),
        num_evaluations_left=sum(part.num_evaluations for part in work),
        seconds=seconds,
        num_bytes=num_bytes,
        basis=speed.basis if work else "everything is there already",
    )


def _work(configs: Sequence[ExperimentConfig], root: ResultsRoot) -> list[_Work]:
    by_training: dict[str, dict[str, ExperimentConfig]] = {}
    for config in configs:
        by_training.setdefault(training_key(config), {})[weights_key(config)] = config
    work = []
    for key, budgets in by_training.items():
        folder = root.training(key)
        left = [
            c
            for c in budgets.values()
            if not (folder.adapter(c.training_config.max_steps) / "adapter_config.json").is_file()
        ]
        if left:
            longest = max(left, key=lambda c: c.training_config.max_steps)
            work.append(_whole(longest, len(left)))
    return work


def _whole(config: ExperimentConfig, num_evaluations: int = 1) -> _Work:
    steps = config.training_config.max_steps
    monitored = steps // config.transfer_config.eval_frequency
    return _Work(config, steps, num_evaluations, monitored)


def seconds_on(config: ExperimentConfig, num_evaluations: int, gpu: str | None) -> float | None:
    """Return how long one job of a rented machine takes for a training, its start included.

    Args:
        config: The longest of those that share the training.
        num_evaluations: Of its adapters, in full.
        gpu: Its kind; None for a machine of processors alone.

    Returns:
        By data sheets, right within a factor of about three; None for a model whose size is not
        known before it is fetched, and for a GPU without a data sheet here.
    """
    if gpu is not None and gpu not in _GPUS:
        return None
    speed = _GPUS[gpu] * _GPU_SHARE if gpu is not None else _RENTED_PROCESSORS
    seconds = _Speed("", speed).seconds(_whole(config, num_evaluations))
    return None if seconds is None else seconds + _START_SECONDS


# --- time -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Speed:
    """Seconds from operations, or from what earlier trials took."""

    basis: str
    operations_a_second: float = 0.0
    seconds_a_token: float = 0.0
    seconds_an_evaluation_item: float = 0.0

    def seconds(self, work: _Work) -> float | None:
        training = work.config.training_config
        rows = work.num_steps * training.effective_batch_size
        tokens = rows * _tokens_of_a_row(work.config)
        items = _num_items(work)
        if self.seconds_a_token:
            return tokens * self.seconds_a_token + items * self.seconds_an_evaluation_item
        shape = architecture_of(work.config.tokenizer_config.model_name)
        if shape is None:
            return None
        read = items * _tokens_of_a_row(work.config)
        operations = shape.num_parameters * (_PASSES * tokens + 2 * read)
        batches = work.num_steps * training.gradient_accumulation_steps
        return operations / self.operations_a_second + batches * _BATCH_SECONDS


def _tokens_of_a_row(config: ExperimentConfig) -> int:
    return _TOKENS_OF_A_ROW.get(config.tokenizer_config.model_name, _TOKENS_OF_A_CHAT_ROW)


def _num_items(work: _Work) -> int:
    sizes = work.config.evaluation_config
    words = work.num_evaluations * sizes.num_words + work.num_monitored * sizes.num_monitor_words
    return words * TEMPLATES * len(EVALUATED_TASKS)


_FEWEST_STEPS = 30
"""Trials that are shorter than this, and much shorter than what is asked, tell how long a start
takes, not a step."""


def _speed(model: str, root: ResultsRoot, num_steps: int) -> _Speed:
    """Return how fast this machine is at so many steps: by what it did before, or by arithmetic."""
    fewest = min(_FEWEST_STEPS, num_steps / 2)
    records = [
        r
        for r in _records_of(model, root)
        if r.execution.num_trained_tokens and r.result.step >= fewest
    ]
    tokens = sum(r.execution.num_trained_tokens for r in records if r.execution.train_seconds)
    trained = sum(r.execution.train_seconds for r in records)
    if tokens and trained:
        items = sum(task.tuned.num_items for r in records for task in r.result.tasks.values())
        evaluated = sum(r.execution.evaluation_seconds for r in records)
        return _Speed(
            f"{len(records)} earlier trials of {model} in {root.root}",
            seconds_a_token=trained / tokens,
            seconds_an_evaluation_item=evaluated / max(1, items),
        )
    gpu = _gpu()
    if gpu is not None:
        return _Speed(f"the data sheet of a {gpu}; rough", _GPUS[gpu] * _GPU_SHARE)
    speed = _processor_speed()
    says = f"the model's size and {speed / 1e9:.0f} GFLOP/s of this machine, measured now; rough"
    return _Speed(says, speed)


def _records_of(model: str, root: ResultsRoot) -> list[TrialRecord]:
    found = []
    for path in sorted(root.data.glob("*/trials/*/record.json")):
        try:
            record = read_record(path)
        except ResultsError:
            # What is damaged is said by the study that it belongs to.
            continue
        if record.result.tasks and record.result.model.startswith(f"{model} ("):
            found.append(record)
    return found


def _gpu() -> str | None:
    paths = Path("/proc/driver/nvidia/gpus").glob("*/information")
    text = " ".join(path.read_text() for path in paths)
    # L40S before L4.
    return next((name for name in sorted(_GPUS, key=len, reverse=True) if name in text), None)


def _processor_speed() -> float:
    """Return single-precision operations a second of a matrix product, on all cores."""
    import numpy as np

    size = 512
    matrix = np.ones((size, size), dtype=np.float32)
    matrix @ matrix
    times: list[float] = []
    # The best of many: what else runs here now will not run all the time.
    until = time.perf_counter() + 0.3
    while time.perf_counter() < until or len(times) < 5:
        clock = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - clock)
    return float(2 * size**3 / min(times))


# --- disk -------------------------------------------------------------------------------------


def _bytes(work: _Work) -> int | None:
    shape = architecture_of(work.config.tokenizer_config.model_name)
    if shape is None:
        return None
    lora = work.config.lora_config
    adapter = 4 * shape.num_adapter_parameters(lora.target_modules, lora.r)
    # The newest checkpoint holds the adapter and two moments of it.
    weights = adapter * (work.num_evaluations + 3)
    items = work.num_evaluations * work.config.evaluation_config.num_words * TEMPLATES
    return weights + items * len(EVALUATED_TASKS) * _BYTES_OF_AN_ITEM


def in_words(seconds: float) -> str:
    """Return a duration as a person would say it."""
    units: Mapping[str, float] = {"days": 86_400, "hours": 3_600, "minutes": 60}
    for name, length in units.items():
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} seconds"
