"""How many workers, with how many threads; and how soon a warm worker starts the next trial.

python benchmarks/workers.py --repeats 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuning.backends.local import LocalBackend
from tuning.executor import run_study
from tuning.grid import Proposal, base_experiment
from tuning.jobs import How, Job
from tuning.memory import usable_cores
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.search_space import SearchSpace
from tuning.study import StudySpec

SPACE: dict[str, Any] = {
    "replicates_of_default": 2,
    "pruning": "none",
    "experiment": {
        "tokenizer_config": {"model_name": "tiny"},
        "training_config": {"max_steps": 60, "warmup_steps": 5, "learning_rate": 1e-3},
        "transfer_config": {"eval_frequency": 20},
        "evaluation_config": {"num_words": 200, "num_monitor_words": 30},
    },
    "HPARAM_CANDIDATES": {"lora_r": [4, 8, 32], "learning_rate": [5e-4, 2e-3], "lora_alpha": [8]},
}


class Quiet:
    """A watcher that says nothing."""

    def study_moved(self) -> None:
        """Do nothing."""

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        """Do nothing."""

    def said(self, message: str) -> None:
        """Do nothing."""


def note_time(job: Job, results: Path, tell: Any) -> tuple[How, str]:
    """Run a job that only says when it began; runs in the worker."""
    return How.RETURNED, str(time.time())


def study_seconds(workers: int, threads: int) -> tuple[float, float]:
    """Return the seconds of a study with its workers' start, and from the first trial's end on."""
    space = SearchSpace.model_validate(SPACE)
    base = base_experiment(space, "workers", "20260101_000000")
    spec = StudySpec(name="workers", space=space, base=base, num_threads=threads)
    environment: Mapping[str, str] = {"OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        root = ResultsRoot(Path(folder))
        backend = LocalBackend(root, [environment] * workers)
        try:
            clock = time.monotonic()
            outcome = run_study(spec, root, backend, Quiet())
            whole = time.monotonic() - clock
        finally:
            backend.close()
        busy = sum(
            r.execution.train_seconds + r.execution.evaluation_seconds for r in outcome.records
        )
    return whole, busy / workers


def warm_start_milliseconds(num_jobs: int) -> list[float]:
    """Return for each job the time from its submission to its beginning in a warm worker."""
    space = SearchSpace.model_validate(SPACE)
    base = base_experiment(space, "workers", "20260101_000000")
    found = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PYTHONPATH": str(Path(__file__).parent)}
        backend = LocalBackend(ResultsRoot(Path(folder)), [environment], runner="workers:note_time")
        try:
            for number in range(num_jobs + 1):
                job = Job(study="workers", trial_id=f"{number}", config=base)
                submitted = time.time()
                backend.submit(job)
                (ended,) = backend.poll(60)
                found.append(1000 * (float(ended.message) - submitted))
        finally:
            backend.close()
    # The first one waits for the process.
    return found[1:]


def main() -> None:
    """Print medians of interleaved repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    cores = usable_cores()
    shapes = sorted({(cores, 1), (1, cores), (1, 1), (cores, cores)})
    whole: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    for repeat in range(arguments.repeats):
        for shape in shapes:
            whole[shape].append(study_seconds(*shape)[0])
            print(f"{repeat}: {shape} {whole[shape][-1]:.1f} s", file=sys.stderr, flush=True)
    warm = warm_start_milliseconds(30)
    answer = {
        "cores": cores,
        "study_seconds": {
            f"{w} workers x {t} threads": statistics.median(times)
            for (w, t), times in whole.items()
        },
        "warm_start_ms": {"median": statistics.median(warm), "max": max(warm)},
    }
    if arguments.json:
        print(json.dumps(answer))
        return
    one = statistics.median(whole[1, cores])
    for (workers, threads), times in whole.items():
        middle = statistics.median(times)
        print(
            f"{workers} workers x {threads} threads: {middle:.1f} s for 8 trials, "
            f"{one / middle:.2f} times as fast as one worker with all threads"
        )
    print(
        f"a warm worker starts a trial after {statistics.median(warm):.1f} ms (median of 30), "
        f"{max(warm):.1f} ms at most"
    )


if __name__ == "__main__":
    os.environ.pop("OMP_NUM_THREADS", None)
    main()
