"""One trial: data -> model -> train -> evaluate -> folders. Everything else only arranges trials.

Read `run_trial` top to bottom; it is the main path of the program.
"""

from __future__ import annotations

import itertools
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuning import files, measures
from tuning.config import ExperimentConfig, to_yaml
from tuning.errors import LockedError, ResultsError, without_secrets
from tuning.evaluation.bench import load_bench
from tuning.evaluation.stored import evaluate_adapter, evaluate_base
from tuning.evaluation.thinking import keep_answers_in_both_modes
from tuning.fingerprint import training_key, weights_key
from tuning.jobs import How, Job, SupersededError, Tell, Wish
from tuning.memory import check_fits
from tuning.model.base import device_of, training_data_of
from tuning.model.hub import found_or_fetched
from tuning.model.machine import (
    default_threads,
    peak_gpu_memory_bytes,
    peak_memory_bytes,
    quiet_libraries,
    reset_peak_memory,
    this_machine,
    threads,
    versions,
)
from tuning.paths import ResultsRoot, TrialFolder
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.scoring import OWN_WEIGHTS_SCORE, Weights
from tuning.tasks.prompts import Prompting
from tuning.tasks.splits import Split
from tuning.tasks.stream import read_training_text
from tuning.training.callbacks import OnProgress, TrainingStopped
from tuning.training.run import num_micro_batches, train

_runs = itertools.count()
"""Numbers the trials of this process."""


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """What a study, or a user, asks of one trial."""

    config: ExperimentConfig
    folder: TrialFolder
    trial_id: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights | None = None
    """The study's score weights; without a study the configuration's own."""
    budgets: frozenset[int] = frozenset()
    """Steps at which other trials will ask for the same training's adapter."""
    until: int | None = None
    """Step after which to pause; None to go to the end."""


def run_trial(
    request: TrialRequest,
    root: ResultsRoot,
    on_progress: OnProgress | None = None,
    wish: Wish | None = None,
) -> TrialRecord:
    """Train and evaluate one configuration, or use what is already there.

    Args:
        request: The configuration, and where its record goes.
        root: All results hang off it.
        on_progress: Told of every step.
        wish: What a driver wishes on the way.

    Returns:
        The record, which is also on disk. A second call with the same request trains nothing and
        gives an equal `result`.

    Raises:
        TrainingStopped: It was asked to stop, or came to where it pauses.
        UserError: The model, its adapter or the results folder cannot be used.
    """
    started, clock = _now(), time.monotonic()
    is_first_of_process = next(_runs) == 0
    config = request.config
    steps = config.training_config.max_steps
    reset_peak_memory()
    found_or_fetched(config.tokenizer_config.model_name)
    check_fits(config, this_machine())
    with quiet_libraries(), threads(config.training_config.num_threads):
        bench = load_bench(config)
        data = training_data_of(config, bench.words[Split.TRAIN], bench.base.tokenizer)
        text = read_training_text(data.stream, steps * config.training_config.effective_batch_size)
        on_items = _share_of_items(on_progress, steps, wish)
        files.write_atomic(request.folder.config, to_yaml(config))
        base = evaluate_base(bench, root, on_progress=on_items)
        base_arms = {
            p.value: evaluate_base(bench, root, p, on_items) for p in _base_promptings(config)
        }
        folder = root.training(training_key(config))
        with files.exclusive_lock(folder.lock, f"training {folder.root.name}"):
            trained = train(
                config,
                bench,
                data.stream,
                folder,
                request.budgets,
                on_progress,
                request.until,
                wish.is_to_stop if wish else lambda: False,
            )
            tuned = evaluate_adapter(
                bench, folder.adapter(steps), folder, steps, text.words, on_items
            )
            if config.tokenizer_config.analyze_thinking_mode:
                place = folder.thinking(tuned.key)
                keep_answers_in_both_modes(bench, folder.adapter(steps), place, on_items)
    tasks = measures.task_results(base.predictions, tuned.predictions, bench.baseline_of)
    own_weights = Weights(
        config.transfer_config.position_task_weight, config.transfer_config.count_task_weight
    )
    metrics = measures.flat_metrics(tasks, request.weights or own_weights)
    metrics[OWN_WEIGHTS_SCORE] = measures.score_of(metrics, own_weights)
    record = TrialRecord(
        trial_id=request.trial_id,
        parameters=dict(request.parameters),
        seed=config.training_config.seed,
        result=TrialResult(
            status=TrialStatus.COMPLETED,
            training_key=folder.root.name,
            weights_key=weights_key(config),
            step=steps,
            model=bench.base.says,
            num_vocabulary_rows=int(bench.base.network.config.vocab_size),
            evaluation_key=tuned.key,
            base_key=bench.base.key,
            base_evaluation_key=base.key,
            metrics=metrics,
            tasks=tasks,
            base_arms={
                name: measures.accuracies(evaluation.predictions)
                for name, evaluation in base_arms.items()
            },
            retention=tuned.retention,
            num_decoded=base.num_decoded + tuned.num_decoded,
            num_disagreements=base.num_disagreements + tuned.num_disagreements,
            left_out_words=data.left_out,
        ),
        execution=Execution(
            started_at=started,
            finished_at=_now(),
            host=socket.gethostname(),
            train_seconds=round(trained.seconds, 3),
            evaluation_seconds=round(time.monotonic() - clock - trained.seconds, 3),
            num_trained_tokens=trained.num_tokens,
            peak_memory_bytes=peak_memory_bytes(),
            peak_gpu_memory_bytes=peak_gpu_memory_bytes(),
            num_micro_batches=num_micro_batches(folder),
            is_first_of_process=is_first_of_process,
            num_threads=config.training_config.num_threads or default_threads(),
            device=str(device_of(bench.base.network)),
            num_attempts=sum(a["event"] == "start" for a in files.read_json_lines(folder.attempts)),
            versions=versions(),
        ),
    )
    if wish:
        wish.check()
    write_record(request.folder, record)
    return record


def run_job(job: Job, results: Path, tell: Tell) -> tuple[How, str]:
    """Bring a trial forward; what came of it is in the folders.

    Args:
        job: What a driver asks for.
        results: The root of the results, on this machine.
        tell: Told of every step.

    Returns:
        How it ended, and a message where no folder could say it.
    """
    root = ResultsRoot(results)
    request = TrialRequest(
        config=job.config,
        folder=root.study(job.study).trial(job.trial_id),
        trial_id=job.trial_id,
        parameters=job.parameters,
        weights=Weights(*job.weights) if job.weights else None,
        budgets=frozenset(job.budgets),
        until=job.until,
    )
    started = _now()
    try:
        run_trial(request, root, tell, Wish(root.training(job.training_key), job.attempt))
    except (TrainingStopped, SupersededError):
        pass
    except LockedError as error:
        return How.BUSY, str(error)
    except ResultsError as error:
        # The disk, not the trial: nothing could be recorded either.
        return How.DISK, str(error)
    except Exception as error:
        try:
            record_failure(request, error, started)
        except ResultsError as refused:
            return How.DISK, str(refused)
    return How.RETURNED, ""


def _share_of_items(
    on_progress: OnProgress | None, steps: int, wish: Wish | None
) -> Callable[[int, int], None]:
    """Return what an evaluation tells of its items, as progress of the trial.

    Who is asked to stop does not finish an evaluation first: it may take minutes, and is asked
    again later.
    """

    def on_items(done: int, total: int) -> None:
        if wish is not None and wish.is_to_stop():
            raise TrainingStopped(steps)
        if on_progress is not None:
            on_progress(steps, {"evaluated": done / total})

    return on_items


def _base_promptings(config: ExperimentConfig) -> list[Prompting]:
    """Return the arms without training that the configuration asks for."""
    sizes = config.evaluation_config
    wanted = {Prompting.FOUR_SHOT: sizes.four_shot, Prompting.ORACLE: sizes.oracle}
    return [prompting for prompting, is_wanted in wanted.items() if is_wanted]


def record_failure(request: TrialRequest, error: Exception, started: str) -> TrialRecord:
    """Write and return the record of a trial that raised.

    Raises:
        ResultsError: The disk refuses.
    """
    config = request.config
    tail = without_secrets("".join(traceback.format_exception(error)))[-4000:]
    record = TrialRecord(
        trial_id=request.trial_id,
        parameters=dict(request.parameters),
        seed=config.training_config.seed,
        result=TrialResult(
            status=TrialStatus.FAILED,
            training_key=training_key(config),
            weights_key=weights_key(config),
            step=0,
            model=config.tokenizer_config.model_name,
            error_type=type(error).__name__,
            error=without_secrets(str(error)) or type(error).__name__,
        ),
        execution=Execution(
            started_at=started,
            finished_at=_now(),
            host=socket.gethostname(),
            train_seconds=0.0,
            evaluation_seconds=0.0,
            num_trained_tokens=0,
            peak_memory_bytes=peak_memory_bytes(),
            peak_gpu_memory_bytes=peak_gpu_memory_bytes(),
            num_threads=config.training_config.num_threads or default_threads(),
            device="",
            num_attempts=1,
            versions=versions(),
            log_tail=tail,
        ),
    )
    write_record(request.folder, record)
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
