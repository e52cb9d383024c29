"""A study as Optuna's dashboard reads it: an export, made anew each time and never read back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tuning import files
from tuning.config import key_of, value_at
from tuning.jobs import read_progress
from tuning.paths import ResultsRoot
from tuning.pruning import Observation, metric_of
from tuning.ranking import short
from tuning.records import TrialRecord, TrialStatus
from tuning.search_space import ARM
from tuning.study import StudySpec


def export_study(spec: StudySpec, root: ResultsRoot, records: Sequence[TrialRecord]) -> None:
    """Write a study's finished trials to its `study.db`, all or nothing.

    Raises:
        ResultsError: The disk refuses.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = root.study(spec.name).optuna
    partial = path.with_name(f".{path.name}.partial")
    with files.readable_os_errors(path):
        partial.unlink(missing_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{partial.absolute()}")
    study = optuna.create_study(
        study_name=spec.name,
        storage=storage,
        directions=["maximize"] * len(spec.objectives),
        pruner=optuna.pruners.NopPruner(),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([focus.says for focus in spec.objectives])
    points = [_values(spec, record) for record in records]
    distributions = _distributions(points)
    for record, point in zip(records, points, strict=True):
        study.add_trial(_trial(spec, root, record, point, distributions))
    # Closes the file; the engine would keep it open.
    storage.remove_session()
    storage.engine.dispose()
    with files.readable_os_errors(path):
        partial.replace(path)


def _values(spec: StudySpec, record: TrialRecord) -> dict[str, Any]:
    """Return the value of every varied hyperparameter, in types that Optuna has."""
    raw = spec.config_of(record).model_dump(mode="json")
    keys = {p.name: p.key for p in spec.space.points().parameters}
    if spec.space.arms:
        # Without it a trial of another arm would look like the default.
        keys[ARM] = key_of(ARM)
    values = {name: value_at(raw, key) for name, key in keys.items()}
    return {n: v if isinstance(v, int | float | str) else short(v) for n, v in values.items()}


def _distributions(points: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the values that were tried, as choices: what was varied how is the space's to say."""
    import optuna

    found: dict[str, list[Any]] = {}
    for point in points:
        for name, value in point.items():
            choices = found.setdefault(name, [])
            if value not in choices:
                choices.append(value)
    distributions: dict[str, Any] = {}
    for name, choices in found.items():
        numbers = [c for c in choices if isinstance(c, int | float) and not isinstance(c, bool)]
        if len(numbers) < len(choices):
            distributions[name] = optuna.distributions.CategoricalDistribution(tuple(choices))
        elif all(isinstance(number, int) for number in numbers):
            distributions[name] = optuna.distributions.IntDistribution(min(numbers), max(numbers))
        else:
            low, high = float(min(numbers)), float(max(numbers))
            distributions[name] = optuna.distributions.FloatDistribution(low, high)
    return distributions


def _trial(
    spec: StudySpec,
    root: ResultsRoot,
    record: TrialRecord,
    point: Mapping[str, Any],
    distributions: Mapping[str, Any],
) -> Any:
    import optuna

    states = optuna.trial.TrialState
    state = {
        TrialStatus.COMPLETED: states.COMPLETE,
        TrialStatus.PRUNED: states.PRUNED,
        TrialStatus.FAILED: states.FAIL,
    }[record.result.status]
    is_complete = state is states.COMPLETE
    metrics = record.result.metrics
    trial = optuna.trial.create_trial(
        state=state,
        values=[focus.objective(metrics) for focus in spec.objectives] if is_complete else None,
        params=dict(point),
        distributions=dict(distributions),
        intermediate_values=_on_the_way(spec, root, record),
        user_attrs={
            "trial_id": record.trial_id,
            "seed": record.seed,
            **metrics,
            **({"reason": record.result.reason} if record.result.reason else {}),
            **({"error": record.result.error} if record.result.error else {}),
        },
    )
    trial.datetime_start = _time(record.execution.started_at)
    trial.datetime_complete = _time(record.execution.finished_at)
    return trial


def _on_the_way(spec: StudySpec, root: ResultsRoot, record: TrialRecord) -> dict[int, float]:
    """Return the objective on the small suite by step; Optuna has none with several objectives."""
    if len(spec.objectives) > 1:
        return {}
    metric = metric_of(spec.objectives[0], spec.weights)
    lines = read_progress(root.training(record.result.training_key))
    seen = [Observation.of(x) for x in lines if x["kind"] == "evaluation"]
    return {o.step: metric(o) for o in seen if o.step <= record.result.step}


def _time(text: str) -> datetime:
    """Return a time as Optuna keeps it: UTC without saying so."""
    return datetime.fromisoformat(text).replace(tzinfo=None)
