"""One-pass scoring against batched greedy decoding, interleaved: `make bench`.

Prints the median time of each, their ratio, and the agreement item by item.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
from pathlib import Path

import torch

from tuning.config import EvaluationConfig
from tuning.evaluation.on_demand import Question, certify_model
from tuning.model.machine import quiet_libraries
from tuning.paths import ResultsRoot


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sizes = EvaluationConfig(num_words=-(-arguments.items // 9) + 10)
    question = Question(model=arguments.model, sizes=sizes)
    with quiet_libraries(), tempfile.TemporaryDirectory() as folder:
        root = ResultsRoot(Path(folder))
        runs = [certify_model(question, root, arguments.items) for _ in range(arguments.repeats)]
    one_pass = statistics.median(run.one_pass_seconds for run in runs)
    greedy = statistics.median(run.greedy_seconds for run in runs)
    ratio = statistics.median(run.greedy_seconds / run.one_pass_seconds for run in runs)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    print(f"{runs[0].model}, {runs[0].num_items} items, {len(runs)} interleaved repeats")
    print(f"one pass {one_pass:.2f} s, greedy decoding {greedy:.2f} s, ratio {ratio:.1f}")
    print(f"agreement {100 * min(run.agreement for run in runs):.2f} %")


if __name__ == "__main__":
    main()
