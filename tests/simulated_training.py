"""Trainings without a model: they leave the folders that real ones leave, in no time.

`SimulatedTraining` is stepped by the fake backend, and by `run`, the runner that contract tests
give to real worker processes. What a training learns is a function of its configuration.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from tuning import files
from tuning.config import ExperimentConfig
from tuning.errors import LockedError
from tuning.fingerprint import weights_key
from tuning.jobs import How, Job, SupersededError, Tell, Wish
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.records import (
    Execution,
    TrialRecord,
    TrialResult,
    TrialStatus,
    write_record,
)
from tuning.scoring import (
    METRIC_PREFIX,
    OWN_WEIGHTS_SCORE,
    TRANSFER_SCORE,
    accuracy_name,
    calculate_transfer_score,
    gain_name,
)
from tuning.tasks.items import EVALUATED_TASKS

LOSS_EVERY = 10
"""As a real training: optimizer steps between two lines of loss."""

BASE_ACCURACY = 0.1

Learns = Callable[[ExperimentConfig, str, int], Mapping[str, float]]
"""Accuracies, by public name, of a configuration with this training key after so many steps."""


def learns(config: ExperimentConfig, training_key: str, step: int) -> dict[str, float]:
    """Learn best at a learning rate of 1e-3 and a rank of 16, with noise that depends on all."""
    rate = abs(math.log10(config.training_config.learning_rate) + 3)
    rank = abs(math.log2(config.lora_config.r) - 4)
    quality = 0.75 * math.exp(-0.5 * rate - 0.15 * rank)
    found = {}
    for task in EVALUATED_TASKS:
        whole = quality * (0.8 + 0.2 * _unit(training_key, task.value))
        risen = BASE_ACCURACY + whole * (1 - math.exp(-step / 12))
        noise = 0.04 * (_unit(training_key, task.value, step) - 0.5) if step else 0.0
        found[accuracy_name(task)] = min(1.0, max(0.0, round(risen + noise, 6)))
    return found


def _unit(*what: Any) -> float:
    digest = hashlib.sha256(json.dumps(what).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


class SimulatedTraining:
    """One job's way, a step at a time; the caller decides how long a step takes."""

    def __init__(
        self,
        job: Job,
        root: ResultsRoot,
        is_to_stop: Callable[[], bool],
        learns: Learns = learns,
    ) -> None:
        """Take the training's lock and go back to its newest checkpoint.

        Raises:
            LockedError: Another process works on the training.
        """
        self.job, self.root, self.is_to_stop, self.learns = job, root, is_to_stop, learns
        self.key = job.training_key
        self.folder: TrainingFolder = root.training(self.key)
        self.max_steps = job.config.training_config.max_steps
        self.frequency = job.config.transfer_config.eval_frequency
        self.is_stopped = False
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(
            files.exclusive_lock(self.folder.lock, f"training {self.folder.root.name}")
        )
        self.step = self._first_step()
        self._written = _lines_of(self.folder.progress)
        if not self.is_over:
            self._note("start")
            if self.step == 0:
                self._measure()

    def _first_step(self) -> int:
        if _is_adapter(self.folder.adapter(self.max_steps)):
            return self.max_steps
        steps = files.steps_of(self.folder.checkpoints)
        usable = [step for step in steps if step <= self.max_steps]
        first = usable[-1] if usable else 0
        if self.job.until is not None and first >= self.job.until:
            self.is_stopped = True
        elif not any(step > first for step in steps):
            lines = files.read_json_lines(self.folder.progress)
            kept = [line for line in lines if line["step"] <= first]
            if kept != lines:
                files.write_json_lines(self.folder.progress, kept)
        return first

    @property
    def is_over(self) -> bool:
        """Whether no step is left for this job."""
        return self.is_stopped or self.step >= self.max_steps

    def advance(self) -> int:
        """Train one step, write what a real training would, and return the step."""
        self.step += 1
        step = self.step
        if step % LOSS_EVERY == 0 or step == self.max_steps:
            rate = self.job.config.training_config.learning_rate
            line = {"loss": 4 / (1 + step), "learning_rate": rate, "num_tokens": 100 * step}
            self._write("train", line)
        if step % self.frequency == 0 or step == self.max_steps:
            self._measure()
        if step < self.max_steps and (self.is_to_stop() or step == self.job.until):
            self.is_stopped = True
        if step in self.job.budgets or step == self.max_steps:
            _put_folder(self.folder.adapter(step), "adapter_model.safetensors")
        if step % self.frequency == 0 or self.is_over:
            self._save_checkpoint()
        return step

    def _measure(self) -> None:
        self._write("evaluation", self.learns(self.job.config, self.key, self.step))

    def _write(self, kind: str, values: Mapping[str, float]) -> None:
        if (self.step, kind) in self._written:
            return
        self._written.add((self.step, kind))
        self.folder.root.mkdir(parents=True, exist_ok=True)
        with self.folder.progress.open("a") as file:
            file.write(json.dumps({"step": self.step, "kind": kind, **values}) + "\n")

    def _save_checkpoint(self) -> None:
        older = files.steps_of(self.folder.checkpoints)
        if older and older[-1] >= self.step:
            return
        _put_folder(self.folder.checkpoint(self.step), "tree.json")
        for step in older:
            shutil.rmtree(self.folder.checkpoint(step))

    def _note(self, event: str) -> None:
        with self.folder.attempts.open("a") as file:
            file.write(json.dumps({"event": event, "at": _now(), "step": self.step}) + "\n")

    def finish(self, wish: Wish) -> None:
        """Write the record, unless the training stopped before its end, and let go of it.

        Raises:
            SupersededError: A newer attempt owns the training.
        """
        try:
            self._note("end")
            if not self.is_stopped:
                wish.check()
                write_simulated_record(self.job, self.root, self.learns)
        finally:
            self.let_go()

    def let_go(self) -> None:
        """Give the training's lock back, as the end of a process does."""
        self._lock.close()


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_model.safetensors").is_file()


def _put_folder(folder: Path, name: str) -> None:
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    (partial / name).write_text("{}")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _lines_of(path: Path) -> set[tuple[int, str]]:
    return {(line["step"], line["kind"]) for line in files.read_json_lines(path)}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# --- records ------------------------------------------------------------------------------------


def write_simulated_record(job: Job, root: ResultsRoot, learns: Learns = learns) -> None:
    """Write the record of a completed trial: a function of its configuration and seed."""
    steps = job.config.training_config.max_steps
    accuracies = learns(job.config, job.training_key, steps)
    metrics: dict[str, float] = {}
    for task in EVALUATED_TASKS:
        value = accuracies[accuracy_name(task)]
        metrics[accuracy_name(task)] = value
        metrics[gain_name(task)] = round(value - BASE_ACCURACY, 6)
        metrics[f"{METRIC_PREFIX[task]}/base_accuracy"] = BASE_ACCURACY
    values = [accuracies[accuracy_name(task)] for task in EVALUATED_TASKS]
    own = job.config.transfer_config
    own_weights = (own.position_task_weight, own.count_task_weight)
    metrics[TRANSFER_SCORE] = calculate_transfer_score(*values, *(job.weights or own_weights))
    metrics[OWN_WEIGHTS_SCORE] = calculate_transfer_score(*values, *own_weights)
    _write(job, root, TrialStatus.COMPLETED, step=steps, metrics=metrics)


def write_simulated_failure(job: Job, root: ResultsRoot, kind: str, text: str) -> None:
    """Write the record of a trial that raised."""
    _write(job, root, TrialStatus.FAILED, step=0, error_type=kind, error=text)


def _write(job: Job, root: ResultsRoot, status: TrialStatus, **result: Any) -> None:
    record = TrialRecord(
        trial_id=job.trial_id,
        parameters=job.parameters,
        seed=job.config.training_config.seed,
        result=TrialResult(
            status=status,
            training_key=job.training_key,
            weights_key=weights_key(job.config),
            model=job.config.tokenizer_config.model_name,
            **result,
        ),
        execution=Execution(
            started_at=_now(),
            finished_at=_now(),
            host="simulated",
            train_seconds=0.0,
            evaluation_seconds=0.0,
            num_trained_tokens=0,
            peak_memory_bytes=0,
            num_threads=1,
            device="cpu",
            num_attempts=job.attempt,
        ),
    )
    write_record(root.study(job.study).trial(job.trial_id), record)


# --- the runner ---------------------------------------------------------------------------------


class Does(StrEnum):
    """What a job does in a contract test; its parameter `does` says it."""

    WELL = "well"
    SLEEPS = "sleeps"
    """Comes to its fourth step and waits for ever."""
    EATS = "eats"
    """Comes to its fourth step and takes ever more memory."""
    DIES = "dies"
    """Ends its process before the first step."""
    CHATTERS = "chatters"
    """Prints what is no message at every step."""


STEP_SECONDS = 0.05
TURNING_STEP = 4
MEMORY_EATEN = 400 * 2**20


def run(job: Job, results: Path, tell: Tell) -> tuple[How, str]:
    """Run a job in a worker process; steps take a while, so that a test can come between."""
    does = Does(job.parameters.get("does", Does.WELL))
    root = ResultsRoot(results)
    wish = Wish(root.training(job.training_key), job.attempt)
    if does is Does.DIES:
        os._exit(3)
    try:
        training = SimulatedTraining(job, root, wish.is_to_stop)
    except LockedError as error:
        return How.BUSY, str(error)
    try:
        while not training.is_over:
            time.sleep(STEP_SECONDS)
            step = training.advance()
            tell(step, {"loss": 1.0})
            _misbehave(does, step)
        training.finish(wish)
    except SupersededError:
        training.let_go()
    return How.RETURNED, ""


def _misbehave(does: Does, step: int) -> None:
    if does is Does.CHATTERS:
        print('{"ended": "all", "how": "returned", "message": ""}\nno json \x00\xff', flush=True)
        os.write(1, b"\xff\xfe garbage without an end of line")
        sys.stderr.write("and on standard error\n")
    if step < TURNING_STEP:
        return
    if does is Does.SLEEPS:
        time.sleep(3600)
    if does is Does.EATS:
        eaten = bytearray(MEMORY_EATEN)
        # Memory counts when it is touched.
        eaten[::4096] = b"x" * len(eaten[::4096])
        time.sleep(3600)
