"""Places where trials run, for tests of recovery: a puppet, and a real worker short of memory."""

from __future__ import annotations

import contextlib
import re
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tuning import files
from tuning.config import ExperimentConfig
from tuning.fingerprint import weights_key
from tuning.jobs import Ended, How, Job, Tell
from tuning.paths import ResultsRoot
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.scoring import TRANSFER_SCORE, accuracy_name, gain_name
from tuning.tasks.items import EVALUATED_TASKS
from tuning.training.callbacks import PROGRESS
from tuning.training.checkpoint import SafetensorsCheckpointIO
from tuning.trial import run_job


class Puppet:
    """Implements `jobs.Backend`: a job is done, and its files written, when it is submitted.

    How well a trial does is a function of its configuration, so results can be foretold.
    """

    num_slots = 1

    def __init__(
        self, root: ResultsRoot, level: Callable[[ExperimentConfig], float], die_after: int = 10**9
    ) -> None:
        """Set how well a configuration does, and the job before which the driver is killed."""
        self.root, self.level, self.die_after = root, level, die_after
        self.submitted: list[str] = []
        self._ended: list[Ended] = []

    def submit(self, job: Job) -> None:
        if len(self.submitted) == self.die_after:
            raise KeyboardInterrupt
        self.submitted.append(job.trial_id)
        self._train(job)
        self._ended.append(Ended(job, How.RETURNED, "", 1.0))

    def _train(self, job: Job) -> None:
        steps = job.config.training_config.max_steps
        end = steps if job.until is None else min(job.until, steps)
        folder = self.root.training(job.training_key)
        every, level = job.config.transfer_config.eval_frequency, self.level(job.config)
        scores = {accuracy_name(task): level for task in EVALUATED_TASKS}
        lines = [{"step": s, "kind": "evaluation", **scores} for s in range(0, end + 1, every)]
        # Whole again, as a worker has it from the memory of its checkpoint.
        files.write_json_lines(folder.progress, lines)
        SafetensorsCheckpointIO().save_checkpoint({PROGRESS: lines}, folder.checkpoint(end))
        for step in files.steps_of(folder.checkpoints)[:-1]:
            files.remove_folder(folder.checkpoint(step))
        if end == steps:
            self._record(job, level)

    def _record(self, job: Job, level: float) -> None:
        accuracies = {accuracy_name(task): level for task in EVALUATED_TASKS}
        gains = {gain_name(task): level for task in EVALUATED_TASKS}
        result = TrialResult(
            status=TrialStatus.COMPLETED,
            training_key=job.training_key,
            weights_key=weights_key(job.config),
            step=job.config.training_config.max_steps,
            model="puppet",
            metrics={**accuracies, **gains, TRANSFER_SCORE: level},
        )
        execution = Execution(
            started_at="",
            finished_at="",
            host="",
            train_seconds=1.0,
            evaluation_seconds=0.0,
            num_trained_tokens=0,
            peak_memory_bytes=0,
            num_threads=1,
            device="",
            num_attempts=1,
        )
        record = TrialRecord(
            trial_id=job.trial_id,
            parameters=job.parameters,
            seed=job.seed,
            result=result,
            execution=execution,
        )
        write_record(self.root.study(job.study).trial(job.trial_id), record)

    def poll(self, seconds: float) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def pull(self, job: Job) -> None:
        pass

    def request_stop(self, job: Job) -> None:
        pass

    def cancel(self, job: Job) -> None:
        pass

    def close(self) -> None:
        pass

    def now(self) -> float:
        return time.monotonic()


# --- a runner of real workers -------------------------------------------------------------------

HUNGRY_BATCH = 512
"""Trials with a batch of this size are run with little memory."""


def run_some_in_little_memory(job: Job, results: Path, tell: Tell) -> tuple[How, str]:
    """Run a job as ever, but give one kind of trial next to no memory."""
    if job.config.training_config.per_device_train_batch_size != HUNGRY_BATCH:
        return run_job(job, results, tell)
    with little_memory(16 * 2**20):
        return run_job(job, results, tell)


@contextlib.contextmanager
def little_memory(num_bytes: int) -> Iterator[None]:
    """Let this process take so many bytes more than it has, and no more."""
    found = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(found[1]) * 1024 + num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
