"""A search space as its file states it: what is varied, and how trials are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tuning.config import FLAT_OF, field_value, key_of, kind_of
from tuning.errors import ConfigError, shown
from tuning.points import Condition, ListedPoints, Parameter, Point, Points
from tuning.pruning import Pruning
from tuning.schema import number_of
from tuning.scoring import Focus
from tuning.tasks.stream import Arm

CANDIDATES = "HPARAM_CANDIDATES"
RANGES = "HPARAM_RANGE"

ARM = "arm"
"""The name under which a trial of another arm than the study's own is recorded."""

_FILE = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

Bound = Annotated[int | float, BeforeValidator(number_of), Field(allow_inf_nan=False)]


class Strategy(StrEnum):
    """How the trials of a space are chosen."""

    ONE_AT_A_TIME = "one_at_a_time"
    GRID = "grid"
    RANDOM = "random"
    BAYESIAN = "bayesian"
    LISTED = "listed"

    @property
    def draws(self) -> bool:
        """Whether it makes as many trials as it is asked for."""
        return self in (Strategy.RANDOM, Strategy.BAYESIAN)


class Range(BaseModel):
    """Values between two ends, both included."""

    model_config = _FILE

    @model_validator(mode="before")
    @classmethod
    def _is_mapping(cls, given: object) -> object:
        if isinstance(given, list):
            law = f"must be {{low: ..., high: ...}}; a list of values belongs to {CANDIDATES}"
            raise ValueError(f"{law}, got {shown(given)}")
        return given

    low: Bound
    """Smallest value."""
    high: Bound
    """Largest value."""
    scale: Literal["linear", "log"] = "linear"
    """Uniform in the value, or in its logarithm."""
    step: Bound | None = None
    """Distance of neighbours; integers have 1 if none is given."""


class UniformArguments(BaseModel):
    """Independent draws; without replacement where every value can be counted."""

    model_config = _FILE


class SobolArguments(BaseModel):
    """A scrambled Sobol sequence: fills the space more evenly than independent draws."""

    model_config = _FILE

    scramble: bool = True
    """Owen's scrambling, by the study's seed."""


class TpeArguments(BaseModel):
    """Optuna's tree-structured Parzen estimator."""

    model_config = _FILE

    num_startup_trials: Annotated[int, Field(ge=1)] = 10
    """Random trials before the first model."""
    num_ei_candidates: Annotated[int, Field(ge=1)] = 24
    """Points among which the most promising is taken."""
    multivariate: bool = True
    """Model parameters together; one objective only."""
    group: bool = True
    """With multivariate: a model for each set of parameters that exist together."""
    constant_liar: bool = True
    """Take running trials for bad ones, so that parallel trials differ."""


class GpArguments(BaseModel):
    """Optuna's Gaussian process; needs no more than a few hundred trials."""

    model_config = _FILE

    num_startup_trials: Annotated[int, Field(ge=1)] = 10
    """Random trials before the first model."""
    deterministic_objective: bool = False
    """Whether the same point always gives the same value; seeds make it false."""


SAMPLERS: Mapping[str, type[BaseModel]] = {
    "uniform": UniformArguments,
    "sobol": SobolArguments,
    "tpe": TpeArguments,
    "gp": GpArguments,
}
"""Samplers of ours and their arguments."""

SAMPLERS_OF: Mapping[Strategy, tuple[str, ...]] = {
    Strategy.RANDOM: ("uniform", "sobol"),
    Strategy.BAYESIAN: ("tpe", "gp"),
}
"""Samplers of ours that a strategy takes."""


ENTRY_POINTS = "tuning.samplers"
"""Group of entry points that a package can offer samplers in."""


def offered_samplers() -> Sequence[EntryPoint]:
    """Return the samplers that installed packages offer."""
    return tuple(entry_points(group=ENTRY_POINTS))


def _with_underscores(value: Any) -> Any:
    return value.replace("-", "_") if isinstance(value, str) else value


def _no_range(given: object) -> object:
    if isinstance(given, dict) and set(given) & {"low", "high"}:
        law = f"must be a list of values; a range belongs to {RANGES}"
        raise ValueError(f"{law}, got {shown(given)}")
    return given


class SearchSpace(BaseModel):
    """A search space as its file states it."""

    model_config = _FILE

    strategy: Annotated[Strategy, BeforeValidator(_with_underscores)] = Strategy.ONE_AT_A_TIME
    """One hyperparameter varied at a time; or the whole product; or draws; or a list."""
    candidates: dict[str, Annotated[list[Any], BeforeValidator(_no_range)]] = Field(
        alias=CANDIDATES, default_factory=dict
    )
    """Values of each hyperparameter; in one_at_a_time the default's own is not tried twice."""
    ranges: dict[str, Range] = Field(alias=RANGES, default_factory=dict)
    """Ranges of numeric hyperparameters."""
    conditions: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """``child: {parent: value or list of values}``: elsewhere the child stays at its default."""
    configurations: list[dict[str, Any]] = Field(default_factory=list)
    """With listed: what differs from the default in each; the default itself is not tried twice."""
    arms: tuple[Arm, ...] = ()
    """Arms that the default is trained in beside its own, each with the default's seeds."""
    num_trials: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Configurations that random and bayesian make beside the default; 20 if not given."""
    sampler: str | None = None
    """uniform or sobol (random), tpe or gp (bayesian), an entry point, or ``module:name``."""
    sampler_arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the sampler."""
    objectives: tuple[Focus, ...] = ()
    """What a bayesian search maximizes; several give a front. The study's focus if empty."""
    replicates: Annotated[int, Field(ge=1, le=100, strict=True)] = 1
    """Seeds of every configuration."""
    replicates_of_default: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    """Seeds that the default configuration is trained with; their spread is what one seed hides."""
    pruning: Annotated[Pruning, BeforeValidator(_with_underscores)] = Pruning.POOR_ON_BOTH
    """How trials are stopped early: poor_on_both, median, successive_halving, patience, none."""
    pruning_arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the pruner."""
    step_scale: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """Multiplies max_steps, warmup_steps and eval_frequency."""
    experiment: dict[str, Any] = Field(default_factory=dict)
    """Sections and keys in which the varied experiment differs from the defaults."""

    @property
    def sampler_name(self) -> str:
        """The sampler, also where the file leaves it to the strategy."""
        default = "tpe" if self.strategy is Strategy.BAYESIAN else "uniform"
        return self.sampler or default

    def points(self) -> Points:
        """Return the points of a space that breaks no law."""
        parameters = parameters_of(self)
        if self.strategy is Strategy.LISTED:
            return ListedPoints(parameters, _listed(self, parameters))
        return Points(parameters)


# --- its parameters -----------------------------------------------------------------------------


def parameters_of(space: SearchSpace) -> tuple[Parameter, ...]:
    """Return the parameters of a space that breaks no law."""
    if space.strategy is Strategy.LISTED:
        return _listed_parameters(space)
    made = []
    for name, values in space.candidates.items():
        key = key_of(name)
        legal = tuple(field_value(key, value) for value in values)
        made.append(
            Parameter(
                name=_canonical(key),
                key=key,
                values=legal,
                conditions=_conditions(space, key),
            )
        )
    for name, given in space.ranges.items():
        key = key_of(name)
        is_integer = kind_of(key) == "integer"
        step = given.step
        if step is None and is_integer:
            step = 1
        made.append(
            Parameter(
                name=_canonical(key),
                key=key,
                low=given.low,
                high=given.high,
                is_log=given.scale == "log",
                step=step,
                is_integer=is_integer,
                conditions=_conditions(space, key),
            )
        )
    return tuple(made)


def _listed_parameters(space: SearchSpace) -> tuple[Parameter, ...]:
    """Return what the listed configurations vary, in the order in which it comes up."""
    values: dict[str, list[Any]] = {}
    for configuration in space.configurations:
        for key, value in legal_configuration(configuration).items():
            known = values.setdefault(key, [])
            if value not in known:
                known.append(value)
    return tuple(
        Parameter(name=_canonical(key), key=key, values=tuple(own)) for key, own in values.items()
    )


def _listed(space: SearchSpace, parameters: Sequence[Parameter]) -> list[Point]:
    listed = [legal_configuration(configuration) for configuration in space.configurations]
    return [{p.name: own[p.key] for p in parameters if p.key in own} for own in listed]


def legal_configuration(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a listed configuration by dotted keys, its values as their fields take them.

    Raises:
        ConfigError: A name is unknown or a value breaks its field's law.
    """
    keys = ((key_of(name), value) for name, value in configuration.items())
    return {key: field_value(key, value) for key, value in keys}


def _canonical(key: str) -> str:
    """Return the one name under which a hyperparameter is recorded, however a file writes it."""
    return FLAT_OF.get(key, key)


def _conditions(space: SearchSpace, key: str) -> tuple[Condition, ...]:
    return tuple(
        Condition(
            parent=_canonical(key_of(parent)),
            values=tuple(legal_values(parent, as_list(wanted))),
        )
        for child, parents in space.conditions.items()
        if key_of(child) == key
        for parent, wanted in parents.items()
    )


def written_names(space: SearchSpace) -> dict[str, str]:
    """Return how a space writes each parameter, by its dotted key; unknown ones by themselves."""
    found: dict[str, str] = {}
    listed = (name for configuration in space.configurations for name in configuration)
    for name in (*space.candidates, *space.ranges, *listed):
        try:
            found.setdefault(key_of(name), name)
        except ConfigError:
            found[name] = name
    return found


def as_list(value: Any) -> list[Any]:
    """Return a list as it is, and a single value as a list of one."""
    return value if isinstance(value, list) else [value]


def legal_values(name: str, values: Sequence[Any]) -> list[Any]:
    """Return the values as a hyperparameter's field takes them; none if one breaks its law."""
    try:
        key = key_of(name)
        return [field_value(key, value) for value in values]
    except ConfigError:
        return []


# --- what a user should know --------------------------------------------------------------------

_NOT_LEARNED = {
    "transfer_config.position_task_weight": "the score is made of them: the largest weight wins by "
    "arithmetic. Trials are ranked by the study's --focus; the score with a trial's own weights is "
    "recorded beside it as own_weights_score",
    "lightning_config.gpu_tier": "changes the cost, not the accuracy; configurations that differ "
    "in it alone share one training",
    "tokenizer_config.analyze_thinking_mode": "changes an analysis, not the training; "
    "configurations that differ in it alone share one training",
}
_NOT_LEARNED["transfer_config.count_task_weight"] = _NOT_LEARNED[
    "transfer_config.position_task_weight"
]


def not_learned(key: str) -> str | None:
    """Return why a hyperparameter cannot change what is trained; None for one that can."""
    if key == "transfer_config.eval_frequency":
        return (
            "changes how often a training is looked at, not the training; configurations that "
            "differ in it alone share one training"
        )
    return _NOT_LEARNED.get(key)


def notes(space: SearchSpace) -> list[str]:
    """Return what a user should know of parameters that are not really hyperparameters."""
    by_reason: dict[str, list[str]] = {}
    for key in written_names(space):
        reason = _NOT_LEARNED.get(key)
        if reason is not None:
            by_reason.setdefault(reason, []).append(FLAT_OF[key])
    return [f"{' and '.join(names)}: {reason}" for reason, names in by_reason.items()]
