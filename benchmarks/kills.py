"""SIGKILL at random moments, to the driver, a worker or both: what a study loses by it.

A fixed list of trials on tiny is run once undisturbed. The same study is then run in other folders
while processes are killed; whatever ends is started again. At the end nothing may be lost, nothing
done twice, and every result equal bit for bit.

    python benchmarks/kills.py --kills 100
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from tuning import files
from tuning.paths import ResultsRoot
from tuning.study import load_study, ranking

SPACE: dict[str, Any] = {
    "strategy": "one_at_a_time",
    "replicates_of_default": 3,
    "pruning": "none",
    "experiment": {
        "tokenizer_config": {"model_name": "tiny"},
        "training_config": {
            "max_steps": 60,
            "warmup_steps": 5,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
        },
        "transfer_config": {"eval_frequency": 5},
        "evaluation_config": {"num_words": 60, "num_monitor_words": 6, "num_generated_items": 18},
    },
    # The longer and the shorter run are the default's training, gone on with or cut short.
    "HPARAM_CANDIDATES": {"lora_r": [4, 8], "max_steps": [30, 90], "learning_rate": [5e-4]},
}
STUDY = "kills"


@dataclasses.dataclass
class Tally:
    """What kills have done so far."""

    kills: Counter[str] = dataclasses.field(default_factory=Counter)
    rounds: int = 0
    lost: int = 0
    """Finished trials whose record was gone or other than before."""
    twice: int = 0
    """Trials that were completed, or trainings that reached the same budget, more than once."""
    different: int = 0
    """Rounds whose results or ranking are not those of the undisturbed study."""
    seconds: float = 0.0

    @property
    def num_kills(self) -> int:
        """All of them."""
        return sum(self.kills.values())


def start(space: Path, root: Path, workers: int) -> subprocess.Popen[bytes]:
    """Start the study as a user would."""
    command = [sys.executable, "-m", "tuning", "study", "run", "--space", str(space)]
    command += ["--name", STUDY, "--results-dir", str(root), "--quiet", "--workers", str(workers)]
    return subprocess.Popen(
        [*command, "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def workers_of(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Return the worker processes of a driver."""
    try:
        return psutil.Process(driver.pid).children()
    except psutil.Error:
        return []


def strike(driver: subprocess.Popen[bytes], chance: random.Random, tally: Tally) -> None:
    """Kill the driver, one of its workers, or both."""
    victim = chance.choice(["driver", "worker", "both"])
    workers = workers_of(driver)
    if victim != "driver" and not workers:
        victim = "driver"
    if victim != "driver":
        try:
            chance.choice(workers).send_signal(signal.SIGKILL)
        except psutil.Error:
            return
    if victim != "worker":
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    tally.kills[victim] += 1


def run_killed(
    space: Path, root: Path, chance: random.Random, tally: Tally, num_kills: int, workers: int
) -> None:
    """Run one study to its end, killing on the way until there were enough kills."""
    known: dict[Path, bytes] = {}
    driver = start(space, root, workers)
    while True:
        if tally.num_kills < num_kills:
            until = time.monotonic() + chance.uniform(0.5, 14)
            while driver.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
        else:
            driver.wait()
        if driver.poll() is None:
            strike(driver, chance, tally)
        for path, content in known.items():
            if not path.exists() or path.read_bytes() != content:
                tally.lost += 1
        known = {
            path: path.read_bytes() for path in root.glob(f"data/{STUDY}/trials/*/record.json")
        }
        if driver.poll() is not None:
            if driver.returncode == 0:
                return
            if driver.returncode != -signal.SIGKILL:
                said = driver.stderr.read().decode() if driver.stderr else ""
                raise SystemExit(f"the study ended with code {driver.returncode}: {said}")
            driver = start(space, root, workers)


def count_twice(root: ResultsRoot) -> int:
    """Return how many trials or budgets of trainings were completed more than once."""
    events = files.read_json_lines(root.study(STUDY).events)
    completed = Counter(e["trial_id"] for e in events if e["event"] == "completed")
    twice = sum(n - 1 for n in completed.values())
    for folder in root.trainings.glob("*"):
        if folder.name.startswith("base_"):
            continue
        ends = Counter(
            a["step"]
            for a in files.read_json_lines(folder / "attempts.jsonl")
            if a["event"] == "end"
        )
        twice += sum(n - 1 for n in ends.values())
    return twice


def outcome(root: ResultsRoot) -> str:
    """Return all results and the ranking as text, for comparison."""
    spec, records = load_study(root, STUDY)
    ranked = [
        (r.rank, r.contender.label, list(r.contender.objectives)) for r in ranking(spec, records)
    ]
    results = {record.trial_id: dataclasses.asdict(record.result) for record in records}
    return json.dumps([results, ranked], sort_keys=True)


def measure(
    folder: Path,
    num_kills: int,
    seed: int,
    workers: int = 2,
    said: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Kill until there were so many kills; compare every round with the undisturbed study."""
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump(SPACE))
    whole = ResultsRoot(folder / "undisturbed")
    clock = time.monotonic()
    undisturbed = start(space, whole.root, workers)
    if undisturbed.wait() != 0:
        assert undisturbed.stderr is not None
        raise SystemExit(undisturbed.stderr.read().decode())
    said(f"undisturbed: {time.monotonic() - clock:.0f} s")
    expected = outcome(whole)
    chance, tally = random.Random(seed), Tally()
    clock = time.monotonic()
    while tally.num_kills < num_kills:
        root = ResultsRoot(folder / f"round_{tally.rounds}")
        run_killed(space, root.root, chance, tally, num_kills, workers)
        tally.rounds += 1
        tally.twice += count_twice(root)
        tally.different += outcome(root) != expected
        said(
            f"round {tally.rounds}: {tally.num_kills} kills, {tally.lost} lost, "
            f"{tally.twice} twice, {tally.different} different"
        )
    tally.seconds = time.monotonic() - clock
    return tally


def main() -> None:
    """Print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        tally = measure(
            Path(folder),
            arguments.kills,
            arguments.seed,
            arguments.workers,
            lambda line: print(line, file=sys.stderr, flush=True),
        )
    if arguments.json:
        print(json.dumps(dataclasses.asdict(tally)))
        return
    print(
        f"{tally.num_kills} kills {dict(tally.kills)} in {tally.rounds} studies, "
        f"{tally.seconds:.0f} s: {tally.lost} finished trials lost, {tally.twice} completed twice, "
        f"{tally.different} studies with another result"
    )
    raise SystemExit(1 if tally.lost or tally.twice or tally.different else 0)


if __name__ == "__main__":
    main()
