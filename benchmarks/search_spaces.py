"""Configurations and search spaces: `python benchmarks/search_spaces.py`.

Counts and indexes the whole default product beside Optuna's GridSampler on the same space, each in
a process of its own, and times composing, explaining and validating configurations.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

OURS = """
import json, random, resource, time
from tuning.grid import load_space
from tuning.points import Points
from tuning.search_space import parameters_of
space = load_space("default_grid")
parameters = parameters_of(space)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clock = time.perf_counter()
points = Points(parameters)
count = points.count
counted = time.perf_counter() - clock
clock = time.perf_counter()
first = points.shuffled(0, 0)
proposed = time.perf_counter() - clock
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"count": count, "seconds_to_count": counted, "seconds_to_first": proposed,
                  "mib": (after - before) / 1024}))
"""

PEER = """
import json, resource, time
import optuna
from tuning.grid import create_hyperparameter_grid
optuna.logging.set_verbosity(optuna.logging.ERROR)
space = create_hyperparameter_grid()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clock = time.perf_counter()
sampler = optuna.samplers.GridSampler(space, seed=0)
counted = time.perf_counter() - clock
study = optuna.create_study(sampler=sampler)
clock = time.perf_counter()
trial = study.ask()
for name, values in space.items():
    trial.suggest_categorical(name, values)
proposed = time.perf_counter() - clock
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"count": len(sampler._all_grids), "seconds_to_count": counted,
                  "seconds_to_first": proposed, "mib": (after - before) / 1024}))
"""


def main() -> None:
    """Run all comparisons and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    compare_grids(arguments.repeats)
    time_points()
    time_configurations()


def compare_grids(repeats: int) -> None:
    """Print the default product in our hands and in the peer's, interleaved."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "optuna GridSampler": []}
    for _ in range(repeats):
        for name, code in zip(runs, (OURS, PEER), strict=True):
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            runs[name].append(json.loads(done.stdout))
    for name, found in runs.items():
        middle = {key: statistics.median(run[key] for run in found) for key in found[0]}
        print(
            f"{name:20} {middle['count']:,.0f} points: counted in "
            f"{1e3 * middle['seconds_to_count']:,.2f} ms, first point drawn in "
            f"{1e3 * middle['seconds_to_first']:,.2f} ms, {middle['mib']:,.1f} MiB more"
        )


def time_points() -> None:
    """Print what one point costs, and what a thousand leave behind."""
    from tuning.grid import load_space

    points = load_space("default_grid").points()
    count = points.count
    indexes = range(0, count, count // 1_000)
    for name, call in (
        ("point of an index", points.at),
        ("index of a point", lambda i: points.index_of(points.at(i))),
        ("point of a random order", lambda i: points.shuffled(i, 0)),
    ):
        print(f"{name:24} {1e6 * median_seconds(call, indexes):6.1f} microseconds")
    tracemalloc.start()
    for index in indexes:
        points.at(index)
    print(f"memory after 1,000 points {tracemalloc.get_traced_memory()[1] / 2**20:.2f} MiB")
    tracemalloc.stop()


def time_configurations() -> None:
    """Print what composing, explaining and validating cost."""
    from tuning.composition import compose_file, load
    from tuning.grid import create_grid_search_configs

    with tempfile.TemporaryDirectory() as folder:
        files = create_grid_search_configs("e", config_dir=Path(folder))
        load(files[0])
        print(f"load a file              {1e3 * median_seconds(load, files):6.1f} ms")

        def overridden(path: Path) -> None:
            load(path, ["models=tiny", "training=quick", "lora_r=8", "learning_rate=5e-4"])

        print(f"with four overrides      {1e3 * median_seconds(overridden, files):6.1f} ms")

        def explained(path: Path) -> None:
            compose_file(path, ["models=tiny", "lora_r=8"]).origin(("lora_config", "r"))

        print(f"with one value explained {1e3 * median_seconds(explained, files):6.1f} ms")
        command = [sys.executable, "-m", "tuning", "config", "validate", *map(str, files)]
        clock = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        whole = time.perf_counter() - clock
        print(f"config validate, {len(files)} files, whole process {whole:.2f} s")


def median_seconds(call: Callable[[Any], Any], arguments: Any) -> float:
    """Return the median time of a call over its arguments."""
    times = []
    for argument in arguments:
        clock = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - clock)
    return statistics.median(times)


if __name__ == "__main__":
    main()
    print(f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
