"""How long does a report take, and how large is the page? Synthetic studies, no model.

python benchmarks/analysis.py --trials 31 100 1000
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from planted_study import Effect, write_planted_study
from tuning.config import build
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec

NUM_WORDS = 334
"""Words a task, three items each: about 1,000 items."""


def plant(root: ResultsRoot, num_trials: int) -> None:
    """Write a random search in which the learning rate matters."""
    space = SearchSpace.model_validate(
        {
            "strategy": "random",
            "num_trials": num_trials - 3,
            "replicates_of_default": 3,
            "HPARAM_CANDIDATES": {
                "learning_rate": [1e-4, 2e-4, 5e-4, 1e-3],
                "lora_r": [4, 8, 16, 32],
                "lora_alpha": [8, 16, 32, 64],
                "batch_size": [4, 8, 16, 32],
                "max_steps": [500, 1000, 2000],
                "spelling_data_ratio": [0.5, 0.7, 0.9],
                "spelling_difficulty": ["easy", "medium", "hard"],
            },
        }
    )
    base = build({"experiment_name": "planted", "tokenizer_config": {"model_name": "tiny"}}, "here")
    spec = StudySpec(name="planted", space=space, base=base)
    write_planted_study(
        root,
        spec,
        lambda parameters, seed: Effect(
            spelling=0.1, position=0.04 * (parameters.get("learning_rate") == 1e-3)
        ),
        num_words=NUM_WORDS,
        exact_intervals=num_trials < 200,
    )


def measure(num_trials: int) -> dict[str, float]:
    """Return what the report of a study costs: seconds, processor seconds, GiB, and MiB of page."""
    with tempfile.TemporaryDirectory() as folder:
        root = ResultsRoot(Path(folder))
        plant(root, num_trials)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        clock = time.monotonic()
        command = ("-m", "tuning", "report", "planted", "--quiet", "--results-dir", folder)
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - clock
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "seconds": seconds,
            "processor_seconds": used.ru_utime - before,
            "gib": used.ru_maxrss / 2**20,
            "page_mib": (root.reports / "planted.html").stat().st_size / 2**20,
        }


def main() -> None:
    """Print seconds, memory and size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[31, 100, 1000])
    for num_trials in parser.parse_args().trials:
        cost = measure(num_trials)
        print(
            f"{num_trials} trials: analysis and report {cost['seconds']:.1f} s "
            f"(processor {cost['processor_seconds']:.1f} s), at most {cost['gib']:.2f} GiB, "
            f"page {cost['page_mib']:.2f} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
