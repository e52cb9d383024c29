"""Sweeps of Weights & Biases as data: made from our search spaces, checked before any call.

A sweep is a dictionary in W&B's own format (docs.wandb.ai, "sweep configuration"), with flat names
as the schema has them. What ties a study to one, its id and the runs that the server handed out,
is a small file of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuning import files
from tuning.config import FLAT_OF, key_of, kind_of, value_at
from tuning.errors import ConfigError, ResultsError, shown
from tuning.grid import MAX_TRIALS, base_experiment
from tuning.paths import ResultsRoot, checked_name
from tuning.points import Parameter
from tuning.pruning import Pruning
from tuning.scoring import TRANSFER_SCORE
from tuning.search_space import SearchSpace, Strategy
from tuning.sweep_laws import STEP_SCALE, Method, check_sweep

METHOD_OF: Mapping[Strategy, Method] = {
    Strategy.ONE_AT_A_TIME: Method.GRID,
    Strategy.GRID: Method.GRID,
    Strategy.RANDOM: Method.RANDOM,
    Strategy.BAYESIAN: Method.BAYES,
}


def sweep_definition(
    space: SearchSpace,
    *,
    name: str | None = None,
    method: Method | None = None,
    min_iterations: int | None = None,
) -> dict[str, Any]:
    """Return the sweep of a space: metric `transfer_learning_score`, to be maximized.

    What the space sets beside what it varies becomes parameters of one value, so that an agent
    knows all from the sweep alone.

    Args:
        space: What is varied. One at a time becomes the grid over the same candidates.
        name: Of the sweep.
        method: By default the one that corresponds to the space's strategy.
        min_iterations: Evaluations after which hyperband may stop a run early; None for no
            stopping.

    Raises:
        ConfigError: W&B has no such sweep.
    """
    if space.strategy is Strategy.LISTED:
        raise ConfigError(
            "a listed space is no sweep: W&B chooses points itself, by grid, random or bayes; run "
            "it as a study: tuning study run --space ..."
        )
    chosen = method or METHOD_OF[space.strategy]
    parameters = {p.name: _parameter(p, chosen) for p in space.points().parameters}
    if space.strategy is Strategy.ONE_AT_A_TIME:
        _add_defaults(space, parameters)
    definition: dict[str, Any] = {
        "method": chosen.value,
        "metric": {"name": TRANSFER_SCORE, "goal": "maximize"},
        "parameters": {**_constants(space, parameters), **parameters},
    }
    if name is not None:
        definition["name"] = name
    if min_iterations is not None:
        definition["early_terminate"] = {"type": "hyperband", "min_iter": min_iterations}
    check_sweep(definition)
    return definition


def not_kept(space: SearchSpace) -> list[str]:
    """Return what a sweep of a space does otherwise than a study of it, a line each."""
    found = [
        f"conditions.{child}: W&B has no parameters that exist only sometimes; {child} is varied "
        f"everywhere"
        for child in space.conditions
    ]
    if space.objectives:
        wanted = ", ".join(objective.value for objective in space.objectives)
        found.append(f"objectives {wanted}: a sweep maximizes {TRANSFER_SCORE}")
    if space.arms:
        found.append("arms: W&B knows no controls; a study trains them")
    if space.strategy is Strategy.ONE_AT_A_TIME:
        found.append("strategy one_at_a_time: W&B's grid is the product of all candidates")
    if space.strategy.draws and space.sampler is not None:
        found.append(f"sampler {space.sampler}: W&B uses its own")
    return found


def _add_defaults(space: SearchSpace, parameters: Mapping[str, dict[str, Any]]) -> None:
    """Add the default's own values, which a variation of one at a time leaves unsaid."""
    raw = base_experiment(space, "sweep", "20000101_000000").model_dump(mode="json")
    for name, parameter in parameters.items():
        own = value_at(raw, key_of(name))
        if "values" in parameter and own not in parameter["values"]:
            parameter["values"].append(own)


def _parameter(parameter: Parameter, method: Method) -> dict[str, Any]:
    if parameter.values:
        return {"values": list(parameter.values)}
    if method is Method.GRID:
        number = parameter.num_values
        if number is None or number > MAX_TRIALS:
            raise ConfigError(
                f"{parameter.name}: a grid needs single values, got the range from "
                f"{parameter.low:g} to {parameter.high:g}; give it a step, or candidates, or use "
                f"--method random"
            )
        return {"values": [parameter.value(i) for i in range(number)]}
    number_type = int if parameter.is_integer else float
    ends: dict[str, Any] = {
        "min": number_type(parameter.low),
        "max": number_type(parameter.high),
    }
    steps = parameter.step is not None and not (parameter.is_integer and parameter.step == 1)
    if parameter.is_integer and not parameter.is_log and not steps:
        return {"distribution": "int_uniform", **ends}
    is_rounded = steps or parameter.is_integer
    kind = "log_uniform_values" if parameter.is_log else "uniform"
    if not is_rounded:
        return {"distribution": kind, **ends}
    return {"distribution": f"q_{kind}", "q": number_type(parameter.step or 1), **ends}


def _constants(space: SearchSpace, varied: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        name: {"value": value}
        for key, value in _leaves(space.experiment)
        if (name := FLAT_OF.get(key, key)) not in varied
    }
    if space.step_scale != 1:
        found[STEP_SCALE] = {"value": space.step_scale}
    return found


def _leaves(section: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def differences(own: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections and keys in which a configuration is not the default."""
    found: dict[str, Any] = {}
    for name, value in own.items():
        other = default.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            inner = differences(value, other)
            if inner:
                found[name] = inner
        elif value != other:
            found[name] = value
    return found


# --- what ties a study to a sweep ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SweepRun:
    """A run that the server handed out."""

    run_id: str
    parameters: Mapping[str, Any]


@dataclass(slots=True)
class SweepLink:
    """The sweep that a study belongs to."""

    study: str
    definition: Mapping[str, Any] | None = None
    """What was, or will be, registered from here; None for a sweep that was only joined."""
    sweep: str | None = None
    """Its id; None while there is none."""
    runs: list[SweepRun] = field(default_factory=list)
    constants: Mapping[str, Any] = field(default_factory=dict)
    """What the sweep sets and does not vary, by flat names."""
    entity: str | None = None
    """Whose sweep it is; None for wandb's own default."""

    def varied(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return a point without the sweep's constants, whole numbers as such.

        Servers draw whole numbers of a step as real ones.
        """
        return {
            flat_name(name): int(value)
            if isinstance(value, float) and value.is_integer() and _takes_whole(name)
            else value
            for name, value in parameters.items()
            if flat_name(name) not in self.constants
        }

    def space(self) -> SearchSpace:
        """Return the space of the study: the points so far, on what the sweep sets.

        Raises:
            ConfigError: A constant is no key of a configuration.
        """
        experiment: dict[str, Any] = {}
        for name, value in self.constants.items():
            if name != STEP_SCALE:
                *sections, last = key_of(name).split(".")
                inner = experiment
                for section in sections:
                    inner = inner.setdefault(section, {})
                inner[last] = value
        return SearchSpace(
            strategy=Strategy.LISTED,
            configurations=configurations(self.runs),
            replicates_of_default=1,
            pruning=Pruning.NONE,
            step_scale=_step_scale(self.constants.get(STEP_SCALE, 1.0)),
            experiment=experiment,
        )

    @staticmethod
    def path(root: ResultsRoot, study: str) -> Path:
        """Return the file."""
        return root.wandb / "sweeps" / f"{checked_name(study, 'study')}.json"

    @classmethod
    def read(cls, root: ResultsRoot, study: str) -> SweepLink | None:
        """Return what ties a study to a sweep, or None.

        Raises:
            ResultsError: The file is damaged.
        """
        path = cls.path(root, study)
        if not path.exists():
            return None
        raw = files.read_json(path)
        try:
            files.check_types(
                raw,
                {
                    "sweep": (str, type(None)),
                    "definition": (dict, type(None)),
                    "runs": list,
                    "constants": dict,
                    "entity": (str, type(None)),
                },
            )
            runs = [SweepRun(str(run["run_id"]), dict(run["parameters"])) for run in raw["runs"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultsError(f"{path} is damaged: {error}") from error
        return cls(study, raw["definition"], raw["sweep"], runs, raw["constants"], raw["entity"])

    def write(self, root: ResultsRoot) -> None:
        """Write it."""
        runs = [{"run_id": run.run_id, "parameters": dict(run.parameters)} for run in self.runs]
        value = {
            "sweep": self.sweep,
            "definition": self.definition,
            "constants": self.constants,
            "entity": self.entity,
            "runs": runs,
        }
        files.write_json(self.path(root, self.study), value)

    def run_ids_of(self, parameters: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
        """Return the server's runs of one trial: the sweep may ask for a point twice.

        Args:
            parameters: In which the trial differs from the default.
            default: Values of the default.
        """
        point = {**default, **parameters}
        return [
            run.run_id
            for run in self.runs
            if all(point.get(name) == value for name, value in run.parameters.items())
        ]


def constants_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a sweep sets and does not vary, by flat names."""
    parameters: Mapping[str, Mapping[str, Any]] = definition.get("parameters", {})
    return {flat_name(name): of["value"] for name, of in parameters.items() if "value" in of}


def _step_scale(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1:
        return float(value)
    raise ConfigError(f"the sweep's {STEP_SCALE} must be in (0, 1], got {shown(value)}")


def flat_name(name: str) -> str:
    """Return the one name that a hyperparameter is recorded under, however a sweep writes it."""
    try:
        key = key_of(name)
    except ConfigError:
        return name
    return FLAT_OF.get(key, key)


def _takes_whole(name: str) -> bool:
    try:
        return kind_of(key_of(name)) == "integer"
    except ConfigError:
        return False


def configurations(runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """Return the points of a sweep's runs, each once, in order."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        found.setdefault(files.sha256_of_json(dict(run.parameters)), dict(run.parameters))
    return list(found.values())
