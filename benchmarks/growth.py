"""How cost grows: `python benchmarks/growth.py`.

The driver's time by trials, the workers' memory by workers, an evaluation's time by items, a
report's time by trials. The exponent is the slope of log cost over log size. Two are given: over
all sizes, which a fixed start makes smaller, and over the last step alone, which it hardly touches.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import executor
import numpy as np
import psutil
from harness import Table, print_answer

import analysis

MOST = 1.1
"""The exponent that is still good."""

SIZES: Mapping[str, Sequence[int]] = {
    "driver, seconds by trials": (10, 100, 1_000, 10_000),
    "workers, MiB by workers": (1, 2, 3, 4),
    "evaluation, seconds by items": (100, 1_000, 10_000),
    "report, seconds by trials": (10, 100, 1_000),
}


def main() -> None:
    """Print costs and exponents."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, help="only so many sizes of each, the smallest")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    print_answer(measure(arguments.first), arguments.json, show)


def measure(first: int | None) -> dict[str, Any]:
    """Return the cost at every size, and the exponents."""
    cost_of: dict[str, Callable[[int], float]] = {
        "driver, seconds by trials": _driver_seconds,
        "workers, MiB by workers": _workers_mib,
        "evaluation, seconds by items": _evaluation_seconds,
        "report, seconds by trials": lambda size: analysis.measure(size)["seconds"],
    }
    found = {}
    for name, sizes in SIZES.items():
        asked = list(sizes)[:first]
        costs = [cost_of[name](size) for size in asked]
        found[name] = {"sizes": asked, "costs": costs, **_exponents(asked, costs)}
    return {"growth": found}


def _exponents(sizes: Sequence[int], costs: Sequence[float]) -> dict[str, float | None]:
    if len(sizes) < 2:
        return {"exponent": None, "last_exponent": None}
    x, y = np.log(sizes), np.log(costs)
    return {
        "exponent": float(np.polyfit(x, y, 1)[0]),
        "last_exponent": float((y[-1] - y[-2]) / (x[-1] - x[-2])),
    }


def _driver_seconds(num_trials: int) -> float:
    return 1e-3 * num_trials * executor.one_study(num_trials, "poor_on_both", None)["ms_per_trial"]


def _evaluation_seconds(num_items: int) -> float:
    from tuning.config import EvaluationConfig
    from tuning.evaluation.bench import validation_bench
    from tuning.model.machine import quiet_libraries

    sizes = EvaluationConfig(num_words=-(-num_items // 9) + 10, num_monitor_words=3)
    with quiet_libraries():
        bench = validation_bench("tiny", "32-true", sizes)
        suite = bench.suite.part(bench.suite.spread(num_items))
        bench.scorer.score(suite)
        clock = time.perf_counter()
        bench.scorer.score(suite)
        return time.perf_counter() - clock


def _workers_mib(num_workers: int) -> float:
    """Return the most memory that so many workers held at once while they trained."""
    import workers

    from tuning.backends.local import LocalBackend
    from tuning.executor import run_study
    from tuning.grid import base_experiment
    from tuning.paths import ResultsRoot
    from tuning.search_space import SearchSpace
    from tuning.study import StudySpec

    short = {"max_steps": 6, "warmup_steps": 1, "learning_rate": 1e-3}
    experiment = {**workers.SPACE["experiment"], "training_config": short}
    space = SearchSpace.model_validate({**workers.SPACE, "experiment": experiment})
    base = base_experiment(space, "growth", "20260101_000000")
    spec = StudySpec(name="growth", space=space, base=base, num_threads=1)
    with tempfile.TemporaryDirectory() as folder:
        root = ResultsRoot(Path(folder))
        backend = LocalBackend(root, [{"OMP_NUM_THREADS": "1"}] * num_workers)
        watched = _Watched(backend)
        try:
            run_study(spec, root, backend, workers.Quiet())
        finally:
            watched.end()
            backend.close()
    return watched.most / 2**20


class _Watched:
    """Looks again and again how much memory of their own the workers hold."""

    def __init__(self, backend: Any) -> None:
        self.most = 0
        self._backend = backend
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(0.2):
            used = 0
            for pid in self._backend.pids:
                try:
                    used += psutil.Process(pid).memory_full_info().uss
                except psutil.Error:
                    continue
            self.most = max(self.most, used)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


def show(answer: dict[str, Any]) -> Table:
    """Return the answer as a table."""
    rows = [
        [
            name,
            ", ".join(f"{size:,}: {cost:.3g}" for size, cost in zip(*_columns(of), strict=True)),
            *("-" if of[k] is None else f"{of[k]:.2f}" for k in ("exponent", "last_exponent")),
        ]
        for name, of in answer["growth"].items()
    ]
    head = ["what", "size: cost", "exponent, all sizes", "exponent, last step"]
    return Table(f"Growth, at most {MOST} wanted", head, rows)


def _columns(of: Mapping[str, Any]) -> tuple[Sequence[int], Sequence[float]]:
    return of["sizes"], of["costs"]


if __name__ == "__main__":
    main()
