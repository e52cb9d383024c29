"""The same study by us and by the peer: `python benchmarks/study.py`.

Both are whole processes, started anew: ours is `tuning study run` as anyone runs it, the peer is
`peer.run_study`. Both train and then ask every item once: what ours measures on the way and decodes
freely beside is turned off, and what else the training did is measured by ours alone.

How agreement is judged: the untouched model must be equally right on both sides. Trained ones see
the same rows in the same order, but may begin with another adapter and drop other numbers, so they
differ as two seeds of one configuration do, or less, since those see other rows too. The mean
difference over all configurations should not be told from zero (a t interval of 95 %), and the
differences should not spread further than those of two seeds, which the default configuration with
several seeds tells (`--seeds`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from harness import Table, print_answer

from tuning.config import ExperimentConfig
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.study import load_study

TASKS = ("spelling", "position", "count")
SMOLLM2_SPACE = """\
HPARAM_CANDIDATES:
  lora_r: [8]
  learning_rate: [5.0e-4]
  max_steps: [500]
  spelling_data_ratio: [0.5]
  position_task_weight: [0.7]
"""
"""Six configurations with the default, of the kinds that the default space has."""


def main() -> None:
    """Run both sides in turn and print times, memory and agreement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--space", help="default: default for tiny, six configurations for others")
    parser.add_argument("--step-scale", type=float, default=0.1)
    parser.add_argument("--words", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=0, help="seeds that tell the seeds' spread")
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", nargs=2, metavar=("CONFIGS", "ANSWER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer_process(*map(Path, arguments.peer))
        return
    print_answer(measure(arguments), arguments.json, show)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run both sides `repeats` times in turn."""
    runs = []
    for number in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            ours = run_ours(Path(folder), arguments)
            peers = run_peer(Path(folder), ours.pop("configs"), arguments)
        print(
            f"{number}: ours {ours['seconds']:.1f} s, peer {peers['seconds']:.1f} s",
            file=sys.stderr,
        )
        runs.append({"ours": ours, "peer": peers})
    last = runs[-1]
    with tempfile.TemporaryDirectory() as folder:
        spread = seeds_spread(Path(folder), arguments) if arguments.seeds else None
    return {
        "study": f"{len(last['peer']['accuracy']) - 1} configurations, {arguments.model}, "
        f"{arguments.precision}, step scale {arguments.step_scale:g}, "
        f"{last['ours']['items']:,} items",
        "repeats": arguments.repeats,
        "seconds": {side: statistics.median(r[side]["seconds"] for r in runs) for side in last},
        "ratio": statistics.median(r["peer"]["seconds"] / r["ours"]["seconds"] for r in runs),
        "phases": {
            name: statistics.median(r["ours"][name] for r in runs)
            for name in ("seconds_to_last_trial", "train_seconds", "evaluation_seconds")
        },
        "peak_mib": {side: last[side]["peak_mib"] for side in last},
        "accuracy": {side: last[side]["accuracy"] for side in last},
        "agreement": agreement(last["ours"]["accuracy"], last["peer"]["accuracy"], spread),
    }


def run_ours(folder: Path, arguments: argparse.Namespace, seeds: int = 1) -> dict[str, Any]:
    """Run `tuning study run` on the default space or on the six, or on the default alone."""
    space = arguments.space or ("default" if arguments.model == "tiny" else "six.yaml")
    (folder / "six.yaml").write_text(SMOLLM2_SPACE, "utf-8")
    (folder / "alone.yaml").write_text(
        f"strategy: listed\nreplicates_of_default: {seeds}\n", "utf-8"
    )
    command = [
        *(sys.executable, "-m", "tuning", "study", "run", "--name", "bench", "--quiet"),
        *("--space", space if seeds == 1 else "alone.yaml", "--replicates", str(seeds)),
        *("--pruning", "none", "--step-scale", f"{arguments.step_scale:g}"),
        *("--results-dir", str(folder / "results"), f"models={arguments.model}"),
        f"evaluation_config.num_words={arguments.words}",
        f"training_config.precision={arguments.precision}",
        *("transfer_config.eval_frequency=100000", "evaluation_config.num_generated_items=0"),
        # The last step is always monitored; the peer monitors nothing.
        "evaluation_config.num_monitor_words=3",
    ]
    began, clock = time.time(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    seconds = time.perf_counter() - clock
    spec, records = load_study(ResultsRoot(folder / "results"), "bench")
    accuracy = {record.trial_id: _accuracy(record, "tuned") for record in records}
    accuracy["base"] = _accuracy(records[0], "base")
    return {
        "seconds": seconds,
        "seconds_to_last_trial": _latest_end(records) - began,
        "train_seconds": sum(r.execution.train_seconds for r in records),
        "evaluation_seconds": sum(r.execution.evaluation_seconds for r in records),
        "peak_mib": max(r.execution.peak_memory_bytes for r in records) / 2**20,
        "items": sum(task.base.num_items for task in records[0].result.tasks.values()),
        "accuracy": accuracy,
        "configs": {p.trial_id: p.config for p in spec.plan()},
    }


def _latest_end(records: Sequence[TrialRecord]) -> float:
    return max(datetime.fromisoformat(r.execution.finished_at).timestamp() for r in records)


def _accuracy(record: TrialRecord, name: str) -> dict[str, float]:
    return {task: getattr(record.result.tasks[task], name).value for task in TASKS}


def run_peer(
    folder: Path, configs: Mapping[str, ExperimentConfig], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Run the peer in a process of its own."""
    given, answer = folder / "configs.json", folder / "answer.json"
    given.write_text(json.dumps({name: c.model_dump(mode="json") for name, c in configs.items()}))
    clock = time.perf_counter()
    subprocess.run([sys.executable, __file__, "--peer", str(given), str(answer)], check=True)
    seconds = time.perf_counter() - clock
    return {"seconds": seconds, **json.loads(answer.read_text())}


def peer_process(given: Path, answer: Path) -> None:
    """Be the peer: read configurations, write accuracies and the peak of memory."""
    from peer import run_study

    from tuning.model.machine import peak_memory_bytes, quiet_libraries

    raw = json.loads(given.read_text())
    configs = {name: ExperimentConfig.model_validate(value) for name, value in raw.items()}
    bf16 = next(iter(configs.values())).training_config.precision == "bf16"
    with quiet_libraries():
        accuracy = run_study(configs, bf16)
    found = {"accuracy": accuracy, "peak_mib": peak_memory_bytes() / 2**20}
    answer.write_text(json.dumps(found))


def seeds_spread(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """Return the standard deviation of the accuracy over seeds of the default, by task."""
    found = run_ours(folder, arguments, arguments.seeds)["accuracy"]
    del found["base"]
    return {task: statistics.stdev(of[task] for of in found.values()) for task in TASKS}


def agreement(
    ours: Mapping[str, Mapping[str, float]],
    peers: Mapping[str, Mapping[str, float]],
    spread: Mapping[str, float] | None,
) -> dict[str, Any]:
    """Return by task how accuracies differ: mean with its interval, spread, and the seeds' own."""
    from scipy.stats import t

    found = {}
    names = [name for name in peers if name != "base"]
    for task in TASKS:
        differences = [ours[name][task] - peers[name][task] for name in names]
        mean, deviation = statistics.mean(differences), statistics.stdev(differences)
        half = t.ppf(0.975, len(names) - 1) * deviation / math.sqrt(len(names))
        found[task] = {
            "base_is_equal": ours["base"][task] == peers["base"][task],
            "mean": mean,
            "low": mean - half,
            "high": mean + half,
            "deviation": deviation,
            "of_two_seeds": None if spread is None else math.sqrt(2) * spread[task],
        }
    return found


def show(answer: dict[str, Any]) -> Table:
    """Return the answer as a table."""
    seconds, peak = answer["seconds"], answer["peak_mib"]
    rows = [
        ["ours", f"{seconds['ours']:.1f}", f"{answer['ratio']:.2f}", f"{peak['ours']:,.0f}"],
        ["peer", f"{seconds['peer']:.1f}", "1", f"{peak['peer']:,.0f}"],
    ]
    head = ["side", "seconds", "times as fast", "peak MiB of a process"]
    phases = answer["phases"]
    notes = [
        f"Ours: the last trial ended after {phases['seconds_to_last_trial']:.0f} s, then the "
        f"report; workers trained {phases['train_seconds']:.0f} s and evaluated "
        f"{phases['evaluation_seconds']:.0f} s, added up"
    ]
    notes += [_in_words(task, of) for task, of in answer["agreement"].items()]
    title = f"Study: {answer['study']}, median of {answer['repeats']}"
    return Table(title, head, rows, notes)


def _in_words(task: str, of: Mapping[str, Any]) -> str:
    base = "equal" if of["base_is_equal"] else "NOT EQUAL"
    text = (
        f"{task}: untouched model {base}; ours less the peer's {100 * of['mean']:+.2f} "
        f"[{100 * of['low']:+.2f}, {100 * of['high']:+.2f}] points, standard deviation "
        f"{100 * of['deviation']:.2f}"
    )
    if of["of_two_seeds"] is None:
        return text
    return f"{text}; of the difference of two seeds {100 * of['of_two_seeds']:.2f}"


def show_configurations(answer: Mapping[str, Any]) -> Table:
    """Return the accuracies of every configuration, side by side."""
    ours, peers = answer["accuracy"]["ours"], answer["accuracy"]["peer"]
    rows = [
        [name, *(f"{100 * ours[name][t]:.1f} / {100 * peers[name][t]:.1f}" for t in TASKS)]
        for name in sorted(peers)
    ]
    return Table("Accuracy, %, ours / peer", ["configuration", *TASKS], rows)


if __name__ == "__main__":
    main()
