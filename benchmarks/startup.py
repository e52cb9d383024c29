"""How soon something happens: `python benchmarks/startup.py`.

Whole commands, and the first optimizer step of a trial: cold, from the start of its process on, and
warm, from the moment a worker is given the second trial on the same model. Beside them the same two
for the peer, whose second trial loads its model anew.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import Table, medians, print_answer

COMMANDS = {
    "tuning --help": ("--help",),
    "tuning config show": ("config", "show", "models=tiny"),
}
SIDES = {"first step of a trial": "ours", "first step of a trial of the peer": "peer"}


def main() -> None:
    """Print medians of interleaved repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, metavar=("SIDE", "BEGAN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        side, began = arguments.one
        print(json.dumps(first_steps(side, arguments.model, float(began))))
        return
    print_answer(measure(arguments.model, arguments.repeats), arguments.json, show)


def measure(model: str, repeats: int) -> dict[str, Any]:
    """Return the median seconds of everything, measured in turn."""
    runs = [_once(model) for _ in range(repeats)]
    return {"model": model, "repeats": repeats, "seconds": medians(runs)}


def _once(model: str) -> dict[str, float]:
    found = {}
    for name, words in COMMANDS.items():
        clock = time.perf_counter()
        command = [sys.executable, "-m", "tuning", *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found[name] = time.perf_counter() - clock
    for name, side in SIDES.items():
        command = [sys.executable, __file__, "--model", model, "--one", side, str(time.time())]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        cold, warm = json.loads(done.stdout.splitlines()[-1])
        found |= {f"{name}, cold": cold, f"{name}, warm": warm}
    return found


def first_steps(side: str, model: str, began: float) -> list[float]:
    """Return the seconds to the first step, from the process's start and from a second trial's."""
    run = _our_trial if side == "ours" else _peer_trial
    cold = run(model, 1e-3) - began
    began = time.time()
    return [cold, run(model, 2e-3) - began]


def _config(model: str, rate: float) -> Any:
    from tuning.config import build

    raw = {
        "experiment_name": "startup",
        "tokenizer_config": {"model_name": model},
        "training_config": {"max_steps": 1, "warmup_steps": 0, "learning_rate": rate},
        "evaluation_config": {"num_words": 10, "num_monitor_words": 3, "num_generated_items": 3},
    }
    return build(raw, __file__)


_FOLDER = tempfile.TemporaryDirectory()


def _our_trial(model: str, rate: float) -> float:
    """Return the time at which a trial's first step ended."""
    from tuning.paths import ResultsRoot
    from tuning.trial import TrialRequest, run_trial

    times: list[float] = []

    def on_progress(step: int, metrics: Any) -> None:
        if step == 1:
            times.append(time.time())

    root = ResultsRoot(Path(_FOLDER.name))
    name = f"rate{rate}"
    request = TrialRequest(
        config=_config(model, rate), folder=root.study("startup").trial(name), trial_id=name
    )
    run_trial(request, root, on_progress)
    return times[0]


def _peer_trial(model: str, rate: float) -> float:
    """Return the time at which the peer's first step ended; it asks nothing before."""
    from peer import Peer, Questions, StepTimes

    from tuning.model.machine import quiet_libraries

    class End(StepTimes):
        at = 0.0

        def on_step_end(self, *arguments: Any, **told: Any) -> None:
            self.at = time.time()

    config, end = _config(model, rate), End()
    with quiet_libraries(), contextlib.redirect_stdout(sys.stderr):
        Peer(Questions.of(config)).train(config, end)
    return end.at


def show(answer: dict[str, Any]) -> Table:
    """Return the answer as a table."""
    rows = [[name, f"{seconds:.2f}"] for name, seconds in answer["seconds"].items()]
    return Table(f"Start-up, {answer['model']}", ["what", "seconds"], rows)


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main()
