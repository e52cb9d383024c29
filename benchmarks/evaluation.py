"""One-pass scoring against batched greedy decoding, interleaved: `make bench`.

Prints the median time of each, their ratio, and the agreement item by item.
"""

from __future__ import annotations

import argparse
import platform
import statistics

import torch

from tuning.evaluation.bench import certify_model
from tuning.model.machine import quiet_libraries


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with quiet_libraries():
        runs = [certify_model("tiny", None, arguments.items) for _ in range(arguments.repeats)]
    one_pass = statistics.median(run.one_pass_seconds for run in runs)
    greedy = statistics.median(run.greedy_seconds for run in runs)
    ratio = statistics.median(run.greedy_seconds / run.one_pass_seconds for run in runs)
    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads")
    print(f"{runs[0].model}, {runs[0].num_items} items, {len(runs)} interleaved repeats")
    print(f"one pass {one_pass:.2f} s, greedy decoding {greedy:.2f} s, ratio {ratio:.1f}")
    print(f"agreement {100 * min(run.agreement for run in runs):.2f} %")


if __name__ == "__main__":
    main()
