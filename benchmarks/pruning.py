"""Early stopping, replayed: what each pruner would have saved of a study that was run to its end.

The driver runs the study again over its recorded learning curves, by a fake clock. Saved compute is
counted in training examples; a pruner is wrong where it stops one of the final best.

    tuning study run --space default --name design --step-scale 0.2 --pruning none models=tiny
    python benchmarks/pruning.py design
    python benchmarks/pruning.py --simulated 20

Simulated are random searches where spelling and transfer rise together, more or less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from backend_support import Remembers
from fake_backend import WELL, FakeBackend, Fate, Kind
from tuning import files
from tuning.config import ExperimentConfig
from tuning.executor import run_study
from tuning.fingerprint import training_key
from tuning.grid import base_experiment
from tuning.jobs import Job
from tuning.paths import ResultsRoot
from tuning.pruning import Pruning
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import Focus, accuracy_name
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.tasks.items import EVALUATED_TASKS


class Replay:
    """A study's recorded curves."""

    def __init__(self, root: ResultsRoot, name: str) -> None:
        """Read a study that was run to its end."""
        self.spec, self.records = load_study(root, name)
        self._root = root
        self._curves: dict[str, Mapping[int, Mapping[str, float]]] = {}
        self.batch = {
            training_key(c): c.training_config.effective_batch_size
            for c in map(self.spec.config_of, self.records)
        }

    def _curve(self, key: str) -> Mapping[int, Mapping[str, float]]:
        lines = files.read_json_lines(self._root.training(key).progress)
        curve = {
            x["step"]: {k: v for k, v in x.items() if "/" in k}
            for x in lines
            if x["kind"] == "evaluation"
        }
        # A trial that failed before its first step has none, and none is asked for.
        return curve or {0: {accuracy_name(task): 0.0 for task in EVALUATED_TASKS}}

    def learns(self, config: ExperimentConfig, key: str, step: int) -> Mapping[str, float]:
        """Return the accuracies that were measured."""
        if key not in self._curves:
            self._curves[key] = self._curve(key)
        curve = self._curves[key]
        return curve[max(at for at in curve if at <= step)]

    def fate(self, job: Job) -> Fate:
        """Return what became of a trial."""
        failed = {r.trial_id for r in self.records if r.result.status is TrialStatus.FAILED}
        return Fate(Kind.RAISES) if job.trial_id in failed else WELL

    def best(self, focus: Focus, count: int) -> list[TrialRecord]:
        """Return the final best of distinct weights, by the full evaluation."""
        found: dict[str, TrialRecord] = {}
        for record in self.records:
            if record.result.status is TrialStatus.COMPLETED:
                found.setdefault(record.result.weights_key, record)
        by_objective = sorted(found.values(), key=lambda r: -focus.objective(r.result.metrics))
        return by_objective[:count]

    def examples(self, pruning: Pruning, slots: int, arguments: Mapping[str, Any]) -> Any:
        """Return the examples that a pruner trains, and the trials that it stops."""
        space = self.spec.space.model_copy(
            update={"pruning": pruning, "pruning_arguments": dict(arguments)}
        )
        spec: StudySpec = self.spec.model_copy(update={"space": space})
        with tempfile.TemporaryDirectory() as folder:
            root = ResultsRoot(Path(folder))
            backend = FakeBackend(root, slots, learns=self.learns, fate=self.fate)
            records = run_study(spec, root, backend, Remembers()).records
        trained = sum(n * self.batch[key] for (key, _), n in backend.ledger.steps.items())
        stopped = [r.trial_id for r in records if r.result.status is TrialStatus.PRUNED]
        return trained, stopped


SIMULATED: dict[str, Any] = {
    "strategy": "random",
    "num_trials": 24,
    "replicates_of_default": 3,
    "pruning": "none",
    "experiment": {
        "tokenizer_config": {"model_name": "tiny"},
        "training_config": {"max_steps": 100, "warmup_steps": 10},
        "transfer_config": {"eval_frequency": 10},
    },
    "HPARAM_RANGE": {"learning_rate": {"low": 1e-5, "high": 2e-2, "scale": "log"}},
    "HPARAM_CANDIDATES": {
        "lora_r": [4, 8, 16, 32],
        "batch_size": [4, 8],
        "grad_accum_steps": [2, 4],
    },
}


def simulated(root: ResultsRoot, seed: int) -> Replay:
    """Run a simulated search to its end."""
    space = SearchSpace.model_validate(SIMULATED)
    base = base_experiment(space, "simulated", "20260101_000000")
    spec = StudySpec(name="simulated", space=space, base=base, seed=seed)
    run_study(spec, root, FakeBackend(root, 2), Remembers())
    return Replay(root, "simulated")


def show_simulated(num_studies: int, pruners: Sequence[str], arguments: Mapping[str, Any]) -> None:
    """Print what each pruner saves of simulated searches."""
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in pruners}
    for seed in range(num_studies):
        with tempfile.TemporaryDirectory() as folder:
            replay = simulated(ResultsRoot(Path(folder)), seed)
            whole, _ = replay.examples(Pruning.NONE, 2, {})
            for name in pruners:
                trained, stopped = replay.examples(Pruning(name), 2, arguments)
                best = replay.best(Focus.BALANCED, 3)
                wrong = sum(r.trial_id in stopped for r in best)
                found[name].append((1 - trained / whole, wrong))
    for name, rows in found.items():
        saved = statistics.fmean(share for share, _ in rows)
        wrong = sum(count for _, count in rows)
        print(
            f"{name}, {num_studies} simulated searches: {100 * saved:.0f} % of examples "
            f"saved, {wrong} of the {3 * num_studies} final top 3 stopped"
        )


def main() -> None:
    """Print what each pruner saves, and whom it stops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="?")
    parser.add_argument("--simulated", type=int, default=0)
    parser.add_argument("--results-dir", type=Path, default=Path("results/tuning"))
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pruners", nargs="+", default=[p.value for p in Pruning])
    parser.add_argument("--arguments", type=json.loads, default={})
    options = parser.parse_args()
    if options.simulated:
        show_simulated(options.simulated, options.pruners, options.arguments)
    if options.study is None:
        return
    replay = Replay(ResultsRoot(options.results_dir), options.study)
    for name in options.pruners:
        for slots in options.slots:
            whole, _ = replay.examples(Pruning.NONE, slots, {})
            trained, stopped = replay.examples(Pruning(name), slots, options.arguments)
            wrong = {
                focus.value: sum(r.trial_id in stopped for r in replay.best(focus, 3))
                for focus in Focus
            }
            print(
                f"{name}, {slots} slots: {100 * (1 - trained / whole):.0f} % of {whole:,} examples "
                f"saved, {len(stopped)} of {len(replay.records)} trials stopped; of the final "
                f"top 3 by objective: {wrong}"
            )


if __name__ == "__main__":
    main()
