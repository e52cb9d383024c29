"""Trials on this machine: warm worker processes, each with its share of processors or a GPU."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuning.backends.process import Limits, WorkerProcess
from tuning.config import ExperimentConfig
from tuning.jobs import TRIAL_RUNNER, Ended, Job, write_wish
from tuning.known_models import architecture_of
from tuning.memory import total_memory, usable_cores
from tuning.paths import ResultsRoot

DEFAULT_LIMITS = Limits()


class LocalBackend:
    """A fixed number of worker processes on this machine; implements `jobs.Backend`."""

    def __init__(
        self,
        root: ResultsRoot,
        environments: Sequence[Mapping[str, str]],
        limits: Limits = DEFAULT_LIMITS,
        runner: str = TRIAL_RUNNER,
    ) -> None:
        """Prepare workers; they start when they are first needed.

        Args:
            root: The results.
            environments: One for each worker: its threads, its GPU.
            limits: When a worker is given up.
            runner: ``module:function`` that runs a job.
        """
        self._root = root
        self._workers = [
            WorkerProcess(root.root.absolute(), root.worker_log(i), environment, limits, runner)
            for i, environment in enumerate(environments)
        ]
        self._ended: list[Ended] = []

    @property
    def num_slots(self) -> int:
        """Number of workers."""
        return len(self._workers)

    @property
    def pids(self) -> list[int]:
        """The processes that run now."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def submit(self, job: Job) -> None:
        """Hand a job to a free worker: one with its model loaded, or else one that runs."""
        free = [worker for worker in self._workers if worker.job is None]
        model = job.config.tokenizer_config.model_name
        best = min(free, key=lambda worker: (worker.model != model, worker.pid is None))
        best.submit(job)

    def poll(self, seconds: float) -> list[Ended]:
        """Return the jobs that ended; wait for one up to so many seconds."""
        until = self.now() + seconds
        while True:
            found = [ended for worker in self._workers for ended in worker.ended()]
            left = until - self.now()
            if found or left <= 0:
                return found
            self._wait(min(left, _LOOK_SECONDS))

    def _wait(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            for worker in self._workers:
                if worker.output is not None:
                    selector.register(worker.output, selectors.EVENT_READ)
            if selector.get_map():
                selector.select(seconds)
            else:
                time.sleep(seconds)

    def pull(self, job: Job) -> None:
        """Do nothing: workers write into the driver's own folders."""

    def request_stop(self, job: Job) -> None:
        """Have a running job finish its step, write a checkpoint and return."""
        write_wish(self._root.training(job.training_key), job.attempt, stop=True)

    def cancel(self, job: Job) -> None:
        """Kill the worker that runs a job."""
        for worker in self._workers:
            if worker.job is not None and worker.job.trial_id == job.trial_id:
                worker.cancel()

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers:
            worker.close()

    def now(self) -> float:
        """Return the monotonic time."""
        return time.monotonic()


_LOOK_SECONDS = 0.5


# --- how many workers, and what each gets -------------------------------------------------------


def environments_of(
    config: ExperimentConfig, num_workers: int | None, num_threads: int | None, per_gpu: int = 1
) -> list[dict[str, str]]:
    """Return an environment for each worker: its GPU, or its share of the processors.

    Args:
        config: The study's default configuration; its model decides how many fit into memory.
        num_workers: As many as asked for; None chooses: as many as keep the cores busy and fit.
        num_threads: Processor threads of a worker; None takes OMP_NUM_THREADS, or divides the
            cores.
        per_gpu: Workers of each visible GPU.
    """
    gpus = visible_gpus()
    cores = usable_cores()
    num_threads = num_threads or _threads_of_the_environment()
    if gpus:
        places = [gpu for gpu in gpus for _ in range(per_gpu)]
        chosen = places[:num_workers] if num_workers else places
        threads = num_threads or max(1, cores // len(chosen))
        return [{"CUDA_VISIBLE_DEVICES": gpu, **_threads(threads)} for gpu in chosen]
    enough = num_threads or useful_threads(config)
    count = num_workers or max(1, min(cores // enough, workers_that_fit(config)))
    return [_threads(num_threads or max(1, cores // count))] * count


def threads_of(environment: Mapping[str, str]) -> int:
    """Return the processor threads that a worker has."""
    return int(environment["OMP_NUM_THREADS"])


def _threads_of_the_environment() -> int | None:
    text = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(text)) if text.isdigit() else None


def _threads(count: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that CUDA_VISIBLE_DEVICES leaves, as it names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    folder = Path("/proc/driver/nvidia/gpus")
    return [str(number) for number, _ in enumerate(folder.glob("*"))]


def useful_threads(config: ExperimentConfig) -> int:
    """Return how many threads a training of this model keeps busy, at least 1.

    A small model's products are too small to share; a large model's share well, while two of them
    side by side also share caches, and pay for calibration and the untouched model twice.
    """
    shape = architecture_of(config.tokenizer_config.model_name)
    return 1 + (shape.num_parameters // _PARAMETERS_OF_A_THREAD if shape else 0)


_PARAMETERS_OF_A_THREAD = 60_000_000


def workers_that_fit(config: ExperimentConfig) -> int:
    """Return how many workers' models fit into memory on a processor, at least 1."""
    shape = architecture_of(config.tokenizer_config.model_name)
    weights = 4 * shape.num_parameters if shape else 0
    return max(1, int(total_memory() * _SHARE_OF_MEMORY / (_LIBRARIES_BYTES + 2 * weights)))


def memory_limit(num_workers: int) -> int:
    """Return the resident size, in bytes, that each of so many workers may reach."""
    return int(total_memory() * _SHARE_OF_MEMORY / num_workers)


_SHARE_OF_MEMORY = 0.9
_LIBRARIES_BYTES = 2**30
"""What a worker needs beside the model: torch and its buffers."""
