"""Shared prompt beginnings read once against read for every item: `python benchmarks/prefix.py`.

Prints the processor time of one pass over zero-shot and four-shot items of a chat model, with
shared beginnings and without, interleaved, and the ratio of the medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tuning.config import EvaluationConfig
from tuning.evaluation import prefix
from tuning.evaluation.bench import Bench, validation_bench
from tuning.model.machine import quiet_libraries, threads
from tuning.tasks.prompts import Prompting, prompted
from tuning.tasks.splits import Split
from tuning.tasks.suite import Suite


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m-q4")
    parser.add_argument("--items", type=int, default=180)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with quiet_libraries(), threads(None):
        sizes = EvaluationConfig(num_words=60, num_monitor_words=3)
        bench = validation_bench(arguments.model, "32-true", sizes)
        for prompting in (Prompting.ZERO_SHOT, Prompting.FOUR_SHOT):
            suite = prompted(bench.suite, prompting, bench.words[Split.TRAIN].real)
            compare(bench, prompting, suite.part(suite.spread(arguments.items)), arguments.repeats)


def compare(bench: Bench, prompting: Prompting, suite: Suite, repeats: int) -> None:
    """Print the times of one pass over a suite with and without shared beginnings."""
    shared, alone = [], []
    for _ in range(repeats):
        shared.append(_seconds(bench, suite, prefix.MIN_PREFIX_TOKENS))
        alone.append(_seconds(bench, suite, 10**9))
    with_prefix, without = statistics.median(shared), statistics.median(alone)
    print(
        f"{bench.base.says}, {prompting.value}, {len(suite.items)} items: {with_prefix:.2f} s "
        f"with shared beginnings, {without:.2f} s without, {without / with_prefix:.1f} times faster"
    )


def _seconds(bench: Bench, suite: Suite, min_tokens: int) -> float:
    encoded = bench.base.tokenizer.encode_items(suite.items)
    before, prefix.MIN_PREFIX_TOKENS = prefix.MIN_PREFIX_TOKENS, min_tokens
    clock = time.process_time()
    try:
        bench.scorer.read(suite.items, encoded)
    finally:
        prefix.MIN_PREFIX_TOKENS = before
    return time.process_time() - clock


if __name__ == "__main__":
    main()
