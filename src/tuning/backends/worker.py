"""The process that runs jobs: `python -m tuning.backends.worker RESULTS RUNNER`.

It reads a job a line from standard input and keeps the libraries and the base model loaded between
them. What it says on standard output only wakes its owner: the facts are in the folders. It ends
when its owner does.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from tuning.jobs import How, Job, Runner

BEAT_SECONDS = 0.5
"""Time between two signs of life."""


class Worker:
    """Runs one job after another."""

    def __init__(self, results: Path, runner: Runner, owner: IO[str]) -> None:
        """Set what runs jobs, below which results root, and who is told."""
        self._results = results
        self._runner = runner
        self._owner = owner
        self._telling = threading.Lock()
        self._moves = 0
        self._job: str | None = None
        self.jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def say(self, **message: Any) -> None:
        """Tell the owner; when it is gone, end."""
        with self._telling:
            try:
                self._owner.write(json.dumps(message) + "\n")
                self._owner.flush()
            except OSError:
                os._exit(1)

    def moved(self, step: int, metrics: Mapping[str, float]) -> None:
        """Count a step forward: a worker that makes none hangs."""
        self._moves += 1

    def beat(self) -> None:
        """Give signs of life, with the processor time used so far."""
        while True:
            self.say(beat=time.process_time(), moves=self._moves)
            time.sleep(BEAT_SECONDS)

    def work(self) -> None:
        """Run jobs for ever."""
        while True:
            job = self.jobs.get()
            self.say(began=job.trial_id)
            how, message = self._runner(job, self._results, self.moved)
            self.say(ended=job.trial_id, how=how.value, message=message)


def read_jobs(worker: Worker) -> None:
    """Read jobs until the owner is gone, and end with it: an orphan must not write."""
    for line in sys.stdin:
        worker.jobs.put(Job.model_validate_json(line))
    os._exit(0)


def die_with_owner() -> None:
    """Have Linux kill this process with the one that made it, even where it is stopped."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            pr_set_pdeathsig = 1
            ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def main() -> None:
    """Run jobs that standard input brings."""
    die_with_owner()
    results, runner = Path(sys.argv[1]), sys.argv[2]
    # Libraries that print must not disturb the owner: their output is the log.
    owner = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker(results, _late(runner), owner)
    for task in (worker.beat, lambda: read_jobs(worker)):
        threading.Thread(target=task, daemon=True).start()
    # Ctrl-C is the owner's business.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _load(runner)
        worker.work()
    except BaseException:
        # The usual end of a process waits for locks that its threads hold, and may abort.
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _late(name: str) -> Runner:
    def run(job: Job, results: Path, tell: Any) -> tuple[How, str]:
        how, message = _load(name)(job, results, tell)
        return how, message

    return run


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    main()
