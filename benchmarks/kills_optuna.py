"""The same killer on the peer: Optuna's own `optimize`, SQLite, heartbeat and retry.

Same trials, same training code, as its documentation advises: every trial is enqueued once, a
heartbeat marks trials whose process died, and the retry callback enqueues them again. Our training
code would continue each trial from its checkpoint, so every trial trains in a folder of its own, as
an objective of Optuna does.

    python benchmarks/kills_optuna.py --kills 30
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from kills import SPACE

HEARTBEAT_SECONDS, GRACE_SECONDS = 1, 2


def plan() -> list[Any]:
    """Return the trials of the fixed list."""
    from tuning.grid import Plan, base_experiment
    from tuning.search_space import SearchSpace

    space = SearchSpace.model_validate(SPACE)
    return list(Plan(space, base_experiment(space, "peer", "20260101_000000"), 1.0, 0))


def storage_at(folder: Path) -> Any:
    """Return a SQLite storage with heartbeat and retry."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    return optuna.storages.RDBStorage(
        f"sqlite:///{folder / 'peer.db'}",
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        failed_trial_callback=optuna.storages.RetryFailedTrialCallback(max_retry=None),
    )


def drive(folder: Path) -> None:
    """Optimize until every enqueued trial is complete."""
    import optuna

    from tuning.paths import ResultsRoot
    from tuning.trial import TrialRequest, run_trial

    proposals = {p.trial_id: p for p in plan()}
    ids = sorted(proposals)
    study = optuna.create_study(
        storage=storage_at(folder), study_name="peer", load_if_exists=True, direction="maximize"
    )
    if not study.trials:
        for place in range(len(ids)):
            study.enqueue_trial({"place": place})
    states = optuna.trial.TrialState

    def objective(trial: Any) -> float:
        proposal = proposals[ids[trial.suggest_int("place", 0, len(ids) - 1)]]
        root = ResultsRoot(folder / f"run_{trial.number}")
        request = TrialRequest(
            config=proposal.config,
            folder=root.study("peer").trial(proposal.trial_id),
            trial_id=proposal.trial_id,
        )
        return float(run_trial(request, root).result.metrics["transfer_learning_score"])

    def done() -> int:
        complete = study.get_trials(deepcopy=False, states=(states.COMPLETE,))
        return len({t.params["place"] for t in complete})

    # Without a bound it would go on sampling after the last enqueued trial.
    while done() < len(ids) and len(study.trials) < 20 * len(ids):
        waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
        if not waiting:
            # A stale trial is found when the next one is asked for.
            optuna.storages.fail_stale_trials(study)
            waiting = study.get_trials(deepcopy=False, states=(states.WAITING,))
            if not waiting:
                running = study.get_trials(deepcopy=False, states=(states.RUNNING,))
                if not running:
                    break
                time.sleep(0.5)
                continue
        study.optimize(objective, n_trials=1)


def report(folder: Path, num_kills: int, seconds: float) -> dict[str, Any]:
    """Return what the storage says, and how many steps were trained for it."""
    import optuna

    from tuning import files

    study = optuna.load_study(storage=storage_at(folder), study_name="peer")
    states = Counter(t.state.name for t in study.trials)
    complete = [t for t in study.trials if t.state.name == "COMPLETE"]
    places = Counter(t.params.get("place") for t in complete)
    planned = plan()
    trained = 0
    for path in folder.glob("run_*/data/trainings/*/progress.jsonl"):
        trained += max((line["step"] for line in files.read_json_lines(path)), default=0)
    wanted = sum(p.config.training_config.max_steps for p in planned)
    return {
        "kills": num_kills,
        "seconds": round(seconds),
        "states": dict(states),
        "planned": len(planned),
        "completed_distinct": len(places),
        "completed_twice": sum(n - 1 for n in places.values()),
        "never_completed": len(planned) - len(places),
        "steps_trained": trained,
        "steps_of_the_list": wanted,
    }


def main() -> None:
    """Kill the peer's process at random moments and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drive", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.drive is not None:
        drive(arguments.drive)
        return
    chance, num_kills, clock = random.Random(arguments.seed), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        while True:
            command = [sys.executable, __file__, "--drive", str(folder)]
            peer = subprocess.Popen(command, stderr=subprocess.PIPE)
            until = time.monotonic() + chance.uniform(0.5, 14)
            is_killing = num_kills < arguments.kills
            while peer.poll() is None and (time.monotonic() < until or not is_killing):
                time.sleep(0.02)
            if peer.poll() is None:
                peer.send_signal(signal.SIGKILL)
                num_kills += 1
            peer.wait()
            if peer.returncode == 0:
                break
            if peer.returncode != -signal.SIGKILL and peer.stderr is not None:
                print(peer.stderr.read().decode()[-500:], file=sys.stderr)
        print(json.dumps(report(folder, num_kills, time.monotonic() - clock), indent=1))


if __name__ == "__main__":
    main()
