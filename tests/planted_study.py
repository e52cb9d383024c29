"""Whole synthetic studies without a model: every folder and file that real ones leave.

`write_planted_study` plants a known effect for each configuration and writes what an executor,
trainings and evaluations would have written, for the real readers. Pure in its seed.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from planted_answers import (
    CONTROLS,
    EXACT,
    Answers,
    Control,
    CurveShape,
    Effect,
    Population,
    Questions,
    Said,
    accuracies_on_the_way,
    base_said,
    questions,
    table_of,
    tuned_said,
)
from planted_results import QuickResults
from tuning import files, measures
from tuning.config import ExperimentConfig, to_yaml
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Proposal, Result
from tuning.measures import Drift, TaskResult, baseline_from
from tuning.paths import ResultsRoot
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record
from tuning.scoring import OWN_WEIGHTS_SCORE, Weights, accuracy_name
from tuning.study import StudySpec
from tuning.tasks.baselines import guesser_to_json
from tuning.tasks.items import EVALUATED_TASKS, Task

__all__ = [
    "CONTROLS",
    "Answers",
    "Control",
    "Effect",
    "EffectOf",
    "always",
    "base_key",
    "write_planted_study",
]

EffectOf = Callable[[Mapping[str, Any], int], Effect]
"""The effect of a configuration, by its parameters and seed."""

SCORES = "scores.json"
"""As `evaluation/stored.py` names it, which imports torch."""

LOSS_EVERY = 10
"""As a real training: optimizer steps between two lines of loss."""

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def always(effect: Effect) -> EffectOf:
    """Return the same effect for every configuration."""
    return lambda parameters, seed: effect


def base_key(config: ExperimentConfig) -> str:
    """Return the name of the folder of the untouched model's evaluations."""
    return f"base_{files.sha256_of_json(config.tokenizer_config.model_name)[:16]}"


def write_planted_study(
    root: ResultsRoot,
    spec: StudySpec,
    effect_of: EffectOf,
    *,
    num_words: int = 300,
    num_monitor_words: int = 90,
    num_generated_items: int = 300,
    base_rates: tuple[float, float, float] = (0.35, 0.4, 0.35),
    base_answers: Answers = Answers.PLANTED,
    seed_deviation: float = 0.01,
    word_deviation: float = 0.05,
    word_seed_deviation: float = 0.05,
    churn: float = 0.1,
    seed: int = 0,
    with_predictions: bool = True,
    exact_intervals: bool = True,
    failed: Collection[int] = (),
    pruned: Collection[int] = (),
    missing: Collection[int] = (),
) -> StudySpec:
    """Write a finished study below a results root.

    Trials with equal weights share one run: the effect is that of the first of them. Trials that
    share a training share its progress, which passes through the effect of each budget.

    Args:
        root: Where the study goes.
        spec: What it was asked. Its evaluation sizes are replaced by those given here.
        effect_of: What is planted in each trial.
        num_words: Words a task; three items each.
        num_monitor_words: Words a task of the evaluations on the way.
        num_generated_items: Items decoded freely, spread over the tasks.
        base_rates: Expected strict accuracy of the untouched model in spelling, position, count.
        base_answers: How the untouched model answers.
        seed_deviation: Standard deviation of a task's gain between seeds, as a rate.
        word_deviation: Of a configuration's effect between words.
        word_seed_deviation: Of a run's effect between words, beside the former.
        churn: Share of strict answers that change where nothing is planted.
        seed: Same seed, same files.
        with_predictions: Whether answers are stored, or were cleaned away.
        exact_intervals: By `measures.task_results`, or 20 times faster by a normal formula.
        failed: Places of trials in the plan that failed.
        pruned: Places of trials that were stopped half-way.
        missing: Places of trials that were not begun.

    Returns:
        The specification as it was written.

    Raises:
        ValueError: The untouched model leaves no room for an effect.
    """
    sizes = {
        "num_words": num_words,
        "num_monitor_words": num_monitor_words,
        "num_generated_items": num_generated_items,
    }
    evaluation = spec.base.evaluation_config.model_copy(update=sizes)
    base = spec.base.model_copy(update={"evaluation_config": evaluation})
    written = spec.model_copy(update={"base": base})
    population = Population(
        base_rates=base_rates,
        base_answers=base_answers,
        seed_deviation=seed_deviation,
        word_deviation=word_deviation,
        word_seed_deviation=word_seed_deviation,
        churn=churn,
        seed=seed,
    )
    asked = questions(num_words, num_generated_items)
    writer = _Writer(
        root=root,
        spec=written,
        effect_of=effect_of,
        population=population,
        asked=asked,
        monitor=questions(num_monitor_words, 0),
        base=base_said(population, asked),
        with_predictions=with_predictions,
        exact_intervals=exact_intervals,
    )
    ends = dict.fromkeys(failed, TrialStatus.FAILED) | dict.fromkeys(pruned, TrialStatus.PRUNED)
    writer.write(ends, missing)
    return written


class Trained(NamedTuple):
    """A run as its configuration names it."""

    effect: Effect
    configuration: str
    run: str


class Answered(NamedTuple):
    """What came of one set of weights."""

    said: Said
    tasks: Mapping[str, TaskResult]


class Asking(NamedTuple):
    """What one trial asks of a training."""

    step: int
    """Optimizer steps after which it ended."""
    budget: int
    """Those it was asked for."""
    frequency: int
    trained: Trained


@dataclass
class _Writer:
    root: ResultsRoot
    spec: StudySpec
    effect_of: EffectOf
    population: Population
    asked: Questions
    monitor: Questions
    base: Said
    with_predictions: bool
    exact_intervals: bool
    answered: dict[str, Answered] = field(default_factory=dict)
    """By weights key."""
    trainings: dict[str, list[Asking]] = field(default_factory=lambda: defaultdict(list))
    """By training key."""
    results: list[Result] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)

    def write(self, ends: Mapping[int, TrialStatus], missing: Collection[int]) -> None:
        folder, plan = self.root.study(self.spec.name), self.spec.plan()
        text = yaml.safe_dump(self.spec.model_dump(mode="json", by_alias=True), sort_keys=False)
        files.write_atomic(folder.spec, text)
        self._say("started", num_trials=plan.num_trials, slots=1)
        for index in range(plan.num_trials):
            proposal = plan.propose(index, self.results)
            if index in missing:
                self.results.append(Result(proposal, None))
                continue
            self._write_trial(proposal, ends.get(index, TrialStatus.COMPLETED))
        for key, askings in self.trainings.items():
            self._write_training(key, askings)
        if not missing:
            self._say("finished", num_trials=plan.num_trials, message="")
        files.write_json_lines(folder.events, self.events)

    # --- trials ---------------------------------------------------------------------------------

    def _write_trial(self, proposal: Proposal, status: TrialStatus) -> None:
        config, folder = proposal.config, self.root.study(self.spec.name).trial(proposal.trial_id)
        _put(folder.config, to_yaml(config).encode())
        steps = config.training_config.max_steps
        effect = self.effect_of(proposal.parameters, proposal.seed)
        self.population.check(effect)
        key = files.sha256_of_json(proposal.parameters)
        trained = Trained(effect, key, f"{key} {proposal.seed}")
        step = steps if status is TrialStatus.COMPLETED else _half_way(config)
        asking = Asking(step, steps, config.transfer_config.eval_frequency, trained)
        self.trainings[training_key(config)].append(asking)
        if status is TrialStatus.COMPLETED:
            result = self._completed(proposal, trained)
        else:
            result = _ended(proposal, status, step)
        record = TrialRecord(
            trial_id=proposal.trial_id,
            parameters=proposal.parameters,
            seed=proposal.seed,
            result=result,
            execution=self._execution(config, step),
        )
        write_record(folder, record)
        self._tell_of(proposal, result)
        is_ranked = status is TrialStatus.COMPLETED
        objectives = tuple(f.objective(result.metrics) for f in self.spec.objectives if is_ranked)
        self.results.append(Result(proposal, objectives or None))

    def _completed(self, proposal: Proposal, trained: Trained) -> TrialResult:
        config, weights = proposal.config, weights_key(proposal.config)
        if weights not in self.answered:
            self.answered[weights] = self._answer(config, trained)
        said, tasks = self.answered[weights]
        own = config.transfer_config
        own_weights = Weights(own.position_task_weight, own.count_task_weight)
        metrics = measures.flat_metrics(tasks, self.spec.weights)
        metrics[OWN_WEIGHTS_SCORE] = measures.score_of(metrics, own_weights)
        key = base_key(config)
        return TrialResult(
            status=TrialStatus.COMPLETED,
            training_key=training_key(config),
            weights_key=weights,
            step=config.training_config.max_steps,
            model=_says(config),
            evaluation_key=self._evaluation_key(weights),
            base_key=key,
            base_evaluation_key=self._evaluation_key(f"{key}@0"),
            metrics=metrics,
            tasks=tasks,
            retention=_retention(trained.effect),
            num_decoded=2 * len(said.readings),
        )

    def _answer(self, config: ExperimentConfig, trained: Trained) -> Answered:
        said = tuned_said(self.population, self.asked, *trained)
        table = table_of(self.asked, said, is_tuned=True)
        self._store_base(config)
        self._store(training_key(config), weights_key(config), table, said, trained.effect)
        if not self.exact_intervals:
            return Answered(said, self._quick.task_results(said))
        frames = [t.to_pandas() for t in (self._base_table, table)]
        return Answered(said, measures.task_results(*frames, self._baseline_of))

    @functools.cached_property
    def _baseline_of(self) -> measures.BaselineOf:
        # Items are the same in every table.
        real, known = baseline_from(self.asked.guesser), {}

        def baseline_of(rows: Any) -> float:
            task = rows["task"].iloc[0]
            if task not in known:
                known[task] = real(rows)
            return known[task]

        return baseline_of

    @functools.cached_property
    def _quick(self) -> QuickResults:
        return QuickResults.of(self.asked, self.base, self._baseline_of)

    @functools.cached_property
    def _base_table(self) -> pa.Table:
        return table_of(self.asked, self.base, is_tuned=False)

    # --- evaluations ----------------------------------------------------------------------------

    def _evaluation_key(self, weights: str) -> str:
        identity = [weights, self.asked.suite.key, "32-true", len(self.asked.decoded_D)]
        return files.sha256_of_json(identity)[:16]

    def _store_base(self, config: ExperimentConfig) -> None:
        key = base_key(config)
        if not self.root.training(key).root.exists():
            self._store(key, f"{key}@0", self._base_table, self.base, None)

    def _store(
        self, training: str, weights: str, table: pa.Table, said: Said, effect: Effect | None
    ) -> None:
        if not self.with_predictions:
            return
        place = self.root.training(training).evaluation(self._evaluation_key(weights))
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, place / measures.PREDICTIONS)
        is_task = {task.value: self.asked.task_N == k for k, task in enumerate(EVALUATED_TASKS)}
        drifts = _retention(effect) if effect else {}
        scores = {
            "model": f"planted, {training}",
            "weights": weights,
            "suite": self.asked.suite.key,
            "mix": self._mix,
            "dropped_count_cells": self.asked.suite.num_dropped_count_cells,
            "margin": 0.001,
            "decoded_for_real": 0,
            "num_decoded": len(said.readings),
            "num_disagreements": 0,
            "letter_guesser": self._guesser,
            "baselines": dict(self._quick.baselines),
            "accuracy": {task: float(said.strict_N[at].mean()) for task, at in is_task.items()},
            "retention": {name: dataclasses.asdict(drift) for name, drift in drifts.items()},
            "seconds": 1.0,
        }
        _put(place / SCORES, json.dumps(scores).encode())

    @functools.cached_property
    def _guesser(self) -> dict[str, Any]:
        return guesser_to_json(self.asked.guesser)

    @functools.cached_property
    def _mix(self) -> dict[str, dict[str, int]]:
        return self.asked.suite.mix()

    # --- trainings ------------------------------------------------------------------------------

    def _write_training(self, key: str, askings: Sequence[Asking]) -> None:
        folder = self.root.training(key)
        # Every trial that asks for more steps goes on from the one before it.
        budgets = {asking.budget: asking.trained for asking in reversed(askings)}
        steps = {asking.step for asking in askings}
        last = max(steps)
        for asking in askings:
            steps.update(range(0, asking.step + 1, asking.frequency))
        config = self._configs[key]
        measured = _Path(self.population, self.monitor, sorted(budgets.items()))
        lines = _progress(config, last, measured.accuracies(sorted(steps)))
        _put(folder.config, to_yaml(config).encode())
        _put(folder.progress, "".join(json.dumps(line) + "\n" for line in lines).encode())

    @functools.cached_property
    def _configs(self) -> dict[str, ExperimentConfig]:
        """The configuration that began each training."""
        configs: dict[str, ExperimentConfig] = {}
        for result in self.results:
            configs.setdefault(training_key(result.proposal.config), result.proposal.config)
        return configs

    # --- events ---------------------------------------------------------------------------------

    def _tell_of(self, proposal: Proposal, result: TrialResult) -> None:
        say = functools.partial(self._say, trial_id=proposal.trial_id)
        say("proposed", parameters=proposal.parameters, seed=proposal.seed)
        say("submitted", attempt=1)
        if result.reason is not None:
            say("pruning", step=result.step, reason=result.reason)
        say("ended", how="returned", seconds=1.0)
        told = {"step": result.step, "reason": result.reason, "error": result.error}
        say(result.status.value, **{k: v for k, v in told.items() if v is not None})

    def _say(self, event: str, **values: Any) -> None:
        self.events.append({"event": event, "at": _at(len(self.events)), **values})

    def _execution(self, config: ExperimentConfig, step: int) -> Execution:
        begun = len(self.events)
        training = config.training_config
        return Execution(
            started_at=_at(begun),
            finished_at=_at(begun + 1),
            host="planted",
            train_seconds=round(0.01 * step, 3),
            evaluation_seconds=1.0,
            num_trained_tokens=TOKENS_OF_EXAMPLE * step * training.effective_batch_size,
            peak_memory_bytes=2**28,
            num_threads=1,
            device="cpu",
            num_attempts=1,
        )


TOKENS_OF_EXAMPLE = 40


def _at(seconds: int) -> str:
    return (BEGAN + timedelta(seconds=seconds)).isoformat(timespec="seconds")


def _put(path: Path, content: bytes) -> None:
    """Write without fsync: nobody needs a planted study to survive a loss of power."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _says(config: ExperimentConfig) -> str:
    return f"{config.tokenizer_config.model_name} (planted)"


def _half_way(config: ExperimentConfig) -> int:
    """Return the first evaluation in the second half of a training."""
    frequency, steps = config.transfer_config.eval_frequency, config.training_config.max_steps
    return min(steps, frequency * math.ceil(steps / 2 / frequency))


def _ended(proposal: Proposal, status: TrialStatus, step: int) -> TrialResult:
    """Return the result of a trial that failed or was stopped."""
    is_failed = status is TrialStatus.FAILED
    return TrialResult(
        status=status,
        training_key=training_key(proposal.config),
        weights_key=weights_key(proposal.config),
        step=step,
        model=_says(proposal.config),
        error_type="RuntimeError" if is_failed else None,
        error="planted failure" if is_failed else None,
        reason=None if is_failed else f"planted: poor at step {step}",
    )


def _retention(effect: Effect) -> dict[str, Drift]:
    """Return a drift that grows with what was learned of spelling."""
    drift = 0.005 + 0.05 * abs(effect.spelling)
    return {
        "replay": Drift(base_loss=1.0, tuned_loss=1.0 + drift, kl_divergence=drift, num_tokens=450),
        "text": Drift(
            base_loss=3.0, tuned_loss=3.0 + 2 * drift, kl_divergence=2 * drift, num_tokens=300
        ),
    }


# --- on the way ---------------------------------------------------------------------------------


class Measured(NamedTuple):
    """An evaluation on the way."""

    step: int
    accuracies: Mapping[str, float]


@dataclass(frozen=True)
class _Path:
    """A training's way through the effects of its budgets."""

    population: Population
    monitor: Questions
    budgets: Sequence[tuple[int, Trained]]
    """Steps and what was planted there, ascending."""

    def accuracies(self, steps: Sequence[int]) -> list[Measured]:
        gains_TK = np.array([self._gains(step) for step in steps])
        share_T = np.array([min(1.0, 4 * step / self.budgets[-1][0]) for step in steps])
        _, configuration, run = self.budgets[-1][1]
        accuracies_TK = accuracies_on_the_way(
            self.population, self.monitor, gains_TK, share_T, configuration, run
        )
        return [
            Measured(
                step,
                {accuracy_name(t): float(a) for t, a in zip(EVALUATED_TASKS, row, strict=True)},
            )
            for step, row in zip(steps, accuracies_TK, strict=True)
        ]

    def _gains(self, step: int) -> np.ndarray:
        """Return the expected gain of each task after so many steps."""
        before, start_K = 0, np.zeros(len(EVALUATED_TASKS))
        for budget, trained in self.budgets:
            end_K = self._end(trained.effect)
            if step <= budget:
                share = (step - before) / (budget - before) if budget > before else 1.0
                return _between(start_K, end_K, share, trained.effect)
            before, start_K = budget, end_K
        return start_K

    def _end(self, effect: Effect) -> np.ndarray:
        exact_K = self.population.masses_KS[:, EXACT]
        if effect.answers is Answers.ORACLE:
            return 1 - exact_K
        if effect.answers is Answers.WORD_BLIND:
            is_right_N = self.monitor.blind_N == self.monitor.gold_N
            blind_K = [is_right_N[self.monitor.task_N == k].mean() for k in range(3)]
            return np.array([effect.spelling, *(np.array(blind_K) - exact_K)[1:]])
        return effect.strict_K


def _between(start_K: np.ndarray, end_K: np.ndarray, share: float, effect: Effect) -> np.ndarray:
    """Return gains on the way from one budget's effect to the next."""
    rise = (1 - math.exp(-4 * share)) / (1 - math.exp(-4))
    shape = CurveShape(effect.curve)
    way_K = np.full(len(EVALUATED_TASKS), share if shape is CurveShape.FALL else rise)
    way_K[EVALUATED_TASKS.index(Task.SPELLING)] = rise
    gains_K = start_K + (end_K - start_K) * way_K
    if shape is CurveShape.RISE_THEN_DECAY:
        gains_K[1:] += effect.peak * math.sin(math.pi * share**0.75)
    return gains_K


def _progress(
    config: ExperimentConfig, last: int, measured: Sequence[Measured]
) -> Iterator[dict[str, Any]]:
    """Yield the lines of a training: at one step the loss stands before the evaluation."""
    training = config.training_config
    by_step = dict(measured)
    losses = {*range(LOSS_EVERY, last + 1, LOSS_EVERY), last} - {0}
    for step in sorted({*by_step, *losses}):
        if step in losses:
            warm = min(1.0, step / training.warmup_steps) if training.warmup_steps else 1.0
            yield {
                "step": step,
                "kind": "train",
                "loss": 0.5 + 3.5 * math.exp(-4 * step / last),
                "learning_rate": training.learning_rate * warm,
                "num_tokens": TOKENS_OF_EXAMPLE * step * training.effective_batch_size,
            }
        if step in by_step:
            yield {"step": step, "kind": "evaluation", **by_step[step]}
