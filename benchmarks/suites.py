"""A user's suite against our own items, interleaved: `python benchmarks/suites.py`.

Writes 5,000 of our items as JSONL with own prompts, and 5,000 spellings in CUTE's layout; prints
the median processor time that a thousand items of each take, reading the file included.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from tuning.config import EvaluationConfig
from tuning.evaluation.bench import Bench, validation_bench
from tuning.model.machine import quiet_libraries, threads
from tuning.tasks.suite import Suite
from tuning.tasks.user_suite import read_suite

NUM_ITEMS = 5_000


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    sizes = EvaluationConfig(num_words=5_000, num_monitor_words=3)
    with quiet_libraries(), threads(None), tempfile.TemporaryDirectory() as folder:
        bench = validation_bench(arguments.model, "32-true", sizes)
        own = bench.suite.part(bench.suite.spread(NUM_ITEMS))
        paths = [_as_jsonl(own, Path(folder)), _as_cute(bench, Path(folder))]
        times: dict[str, list[float]] = {"ours": []} | {path.name: [] for path in paths}
        for _ in range(arguments.repeats):
            times["ours"].append(_seconds(bench, own))
            for path in paths:
                clock = time.process_time()
                suite = read_suite(path, bench.base.tokenizer.cut)
                reading = time.process_time() - clock
                share = NUM_ITEMS / len(suite.items)
                times[path.name].append((reading + _seconds(bench, suite)) * share)
    ours = statistics.median(times["ours"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f"{name:16} {median / NUM_ITEMS * 1000:.3f} s a thousand items, {median / ours:.2f}")


def _seconds(bench: Bench, suite: Suite) -> float:
    clock = time.process_time()
    bench.scorer.score(suite)
    return time.process_time() - clock


def _as_jsonl(suite: Suite, folder: Path) -> Path:
    path = folder / "own.jsonl"
    rows = (
        {"task": i.task, "word": i.word, "prompt": i.question, "answer": i.answer}
        for i in suite.items
    )
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def _as_cute(bench: Bench, folder: Path) -> Path:
    path = folder / "spell.tsv"
    words = [i.word for i in bench.suite.items if i.template == "spell/spaces"][:NUM_ITEMS]
    lines = ["input1\tlabel", *(f"{word}\t{' '.join(word)}" for word in words)]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    main()
