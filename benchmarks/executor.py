"""What the driver of a study costs beside its trials: `python benchmarks/executor.py`.

Trials do nothing: a simulated backend writes their records at once. Measured is everything that
the driver does for a trial, the record included, and how long it takes to find a study finished.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SIZES = (10, 100, 1_000, 10_000)
TARGETS = {"ms a trial at 100": 10.0, "ms a trial at 10000": 15.0, "s to resume 1000": 2.0}
NUM_SLOTS = 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--pruning", default="poor_on_both")
    parser.add_argument(
        "--folder", type=Path, help="where results go: a disk waits for fsync, memory does not"
    )
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = measure(arguments.sizes, arguments.repeats, arguments.pruning, arguments.folder)
    if arguments.json:
        print(json.dumps({"rows": rows, "targets": TARGETS}, indent=1))
    else:
        show(rows)


def measure(
    sizes: Sequence[int], repeats: int, pruning: str, folder: Path | None
) -> list[dict[str, Any]]:
    """Return a row for each size: medians of the time for a trial and for a resumed study."""
    rows = []
    for size in sizes:
        # The largest takes minutes on a disk; its many trials are repeats enough.
        runs = [one_study(size, pruning, folder) for _ in range(repeats if size < 10_000 else 1)]
        row: dict[str, Any] = {"trials": size, "repeats": len(runs)}
        for name in runs[0]:
            row[name] = statistics.median(run[name] for run in runs)
        rows.append(row)
    return rows


def one_study(size: int, pruning: str, folder: Path | None) -> dict[str, float]:
    """Run one study of trials that do nothing, and then again when all of them are finished."""
    from tuning.executor import run_study
    from tuning.paths import ResultsRoot

    with tempfile.TemporaryDirectory(dir=folder) as name:
        root, spec = ResultsRoot(Path(name)), spec_of(size, pruning)
        times, in_records = [], []
        for _ in range(2):
            backend, clock = cheap_backend(root), time.perf_counter()
            outcome = run_study(spec, root, backend, Silent())
            times.append(time.perf_counter() - clock)
            in_records.append(backend.seconds_in_records)
            assert len(outcome.records) == size
    return {
        "ms_per_trial": 1e3 * (times[0] - in_records[0]) / size,
        "ms_of_the_record": 1e3 * in_records[0] / size,
        "seconds_to_resume": times[1],
    }


def spec_of(size: int, pruning: str) -> Any:
    """Return a study of so many trials, the default's two included."""
    from tuning.config import build
    from tuning.search_space import SearchSpace
    from tuning.study import StudySpec

    space = SearchSpace.model_validate(
        {
            "strategy": "random",
            "num_trials": size - 2,
            "replicates_of_default": 2,
            "pruning": pruning,
            "HPARAM_RANGE": {
                "learning_rate": {"low": 1e-5, "high": 1e-1, "scale": "log"},
                "lora_dropout": {"low": 0.0, "high": 0.3},
            },
        }
    )
    raw = {"experiment_name": "bench", "tokenizer_config": {"model_name": "tiny"}}
    return StudySpec(name="bench", space=space, base=build(raw, "benchmark"))


def cheap_backend(root: Any) -> Any:
    """Return a backend that writes records alone, and says how long these took."""
    from fake_backend import FakeBackend

    class Timed(FakeBackend):
        seconds_in_records = 0.0

        def _move(self, run: Any) -> None:
            clock = time.perf_counter()
            super()._move(run)
            self.seconds_in_records += time.perf_counter() - clock

    return Timed(root, NUM_SLOTS, is_cheap=True)


class Silent:
    """A watcher that does nothing."""

    def study_moved(self) -> None:
        """Do nothing."""

    def trial_finished(self, *arguments: Any, **told: Any) -> None:
        """Do nothing."""

    def said(self, message: str) -> None:
        """Do nothing."""


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as a table, and the targets."""
    print(f"{'trials':>8} {'driver ms/trial':>16} {'record ms/trial':>16} {'resume s':>9}")
    for row in rows:
        print(
            f"{row['trials']:>8,} {row['ms_per_trial']:>16.2f} {row['ms_of_the_record']:>16.2f} "
            f"{row['seconds_to_resume']:>9.2f}"
        )
    print(f"targets: {', '.join(f'{name}: at most {most:g}' for name, most in TARGETS.items())}")


if __name__ == "__main__":
    main()
