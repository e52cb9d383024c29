"""From a search space to its trials: which there are, how many, and in which order.

The default configuration always comes first, once for each of its seeds; its spread is what one
seed hides.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from tuning.composition import compose_document
from tuning.config import (
    ExperimentConfig,
    Place,
    build,
    key_of,
    save,
    step_scaled,
    value_at,
    with_parameters,
)
from tuning.documents import SUFFIXES, dotted, read_document
from tuning.errors import ConfigError, NotFoundError, nearest, numbered
from tuning.files import sha256_of_json
from tuning.inheritance import SPACES
from tuning.paths import DEFAULT_CONFIG_DIR, checked_name, shipped_config_dir
from tuning.points import Point
from tuning.samplers import Seen, draws, propose, sampler_of
from tuning.schema import law_of_error
from tuning.search_space import ARM, CANDIDATES, RANGES, Range, SearchSpace, Strategy
from tuning.space_laws import check_space

HPARAM_CANDIDATES: Mapping[str, tuple[Any, ...]] = {
    "lora_r": (4, 8, 16, 32),
    "lora_alpha": (8, 16, 32, 64),
    "learning_rate": (1e-4, 2e-4, 5e-4, 1e-3),
    "batch_size": (4, 8, 16, 32),
    "grad_accum_steps": (1, 2, 4, 8),
    "max_steps": (500, 1000, 2000, 5000),
    "spelling_data_ratio": (0.5, 0.7, 0.9),
    "spelling_difficulty": ("easy", "medium", "hard"),
    "position_task_weight": (0.3, 0.5, 0.7),
    "count_task_weight": (0.3, 0.5, 0.7),
    "gpu_tier": ("cpu", "t4", "a100"),
    "use_english_only_tokens": (False, True),
    "analyze_thinking_mode": (False, True),
    "spelling_augmentation": (False, True),
    "transfer_eval_frequency": (50, 100, 200),
    "lora_dropout": (0.0, 0.05, 0.1),
    "warmup_steps": (0, 50, 100, 200),
    "target_modules": (
        ("q_proj", "v_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj"),
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    ),
}
"""Discrete sets of the hyperparameters that a space can vary; `extended` has the last five."""

_DEFAULT_SPACE = tuple(HPARAM_CANDIDATES)[:13]

HPARAM_RANGE: Mapping[str, Range] = {
    "lora_r": Range(low=4, high=64, scale="log"),
    "lora_alpha": Range(low=4, high=256, scale="log"),
    "lora_dropout": Range(low=0.0, high=0.3),
    "learning_rate": Range(low=1e-5, high=5e-3, scale="log"),
    "batch_size": Range(low=4, high=32, step=4),
    "grad_accum_steps": Range(low=1, high=8, step=1),
    "max_steps": Range(low=500, high=5000, step=500),
    "warmup_steps": Range(low=0, high=500, step=50),
    "spelling_data_ratio": Range(low=0.3, high=1.0),
    "transfer_eval_frequency": Range(low=50, high=500, step=50),
    "position_task_weight": Range(low=0.0, high=1.0),
    "count_task_weight": Range(low=0.0, high=1.0),
}
"""Ranges of every numeric hyperparameter."""


def create_hyperparameter_grid() -> dict[str, list[Any]]:
    """Return the default search space: a list of candidates for each hyperparameter."""
    return {name: list(HPARAM_CANDIDATES[name]) for name in _DEFAULT_SPACE}


# --- files ------------------------------------------------------------------------------------


def load_space(name_or_path: str, config_dirs: Sequence[Path] = ()) -> SearchSpace:
    """Read a space by its name, or by the path of its file.

    Args:
        name_or_path: A name is looked for in ``search_spaces`` of the folders, then in ours.
        config_dirs: Folders of the user's own.

    Raises:
        NotFoundError: There is no such space.
        ConfigError: It breaks a law; all such are reported together.
    """
    path = _space_file(name_or_path, config_dirs)
    document, folders = read_document(path), _space_folders(config_dirs)
    composed = compose_document(document, (), folders, path.parent)
    given = set(composed.data)
    if given and given <= set(ExperimentConfig.model_fields):
        raise ConfigError(
            f"{path}: is a configuration, not a search space: a space names {CANDIDATES} or "
            f"{RANGES}, and holds a configuration's sections under experiment"
        )
    space = parse_space(composed.data, composed.place)
    check_space(space, composed.place)
    return space


def is_space(path: Path, config_dirs: Sequence[Path] = ()) -> bool:
    """Tell a space from an experiment by a key that only spaces have, its own or inherited.

    Raises:
        UserError: The file, or one that it names, cannot be read.
    """
    own = {field.alias or name for name, field in SearchSpace.model_fields.items()}
    document = read_document(path)
    if own & set(document.data):
        return True
    if "defaults" not in document.data:
        return False
    composed = compose_document(document, (), _space_folders(config_dirs), path.parent)
    return bool(own & set(composed.data))


def _space_folders(config_dirs: Sequence[Path]) -> list[Path]:
    """Return where a space looks for what it inherits: small, not search_spaces/small."""
    spaces = [folder / SPACES for folder in (*config_dirs, shipped_config_dir())]
    return [*spaces, *config_dirs]


def space_names(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the names of the spaces that can be had by name."""
    folders = [folder / SPACES for folder in (*config_dirs, shipped_config_dir())]
    found = (path for f in folders if f.is_dir() for path in f.iterdir())
    return sorted({path.stem for path in found if path.suffix in SUFFIXES})


def _space_file(name_or_path: str, config_dirs: Sequence[Path]) -> Path:
    path = Path(name_or_path)
    if path.suffix in SUFFIXES:
        return path
    if path.is_file():
        raise ConfigError(f"{path}: a space file must end in {', '.join(SUFFIXES)}")
    name = checked_name(name_or_path, "space")
    for folder in (*config_dirs, shipped_config_dir()):
        for suffix in SUFFIXES:
            found = folder / SPACES / f"{name}{suffix}"
            if found.is_file():
                return found
    known = space_names(config_dirs)
    raise NotFoundError(f"space {name}: no such space; {nearest(name, known)}")


def parse_space(raw: Mapping[str, Any], place: Place) -> SearchSpace:
    """Validate the shape of a space, not yet its values.

    Raises:
        ConfigError: A key is unknown or of another type; all such are reported together.
    """
    try:
        return SearchSpace.model_validate(dict(raw))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(e, place) for e in error.errors())) from error


def _explain(error: Any, place: Place) -> str:
    location = error["loc"]
    head = f"{place(location)}: {dotted(location)}: "
    if error["type"] == "extra_forbidden":
        model = Range if location[0] == RANGES else SearchSpace
        known = [field.alias or name for name, field in model.model_fields.items()]
        return f"{head}no such key; {nearest(str(location[-1]), known)}"
    return head + law_of_error(error)


def base_experiment(space: SearchSpace, name: str, timestamp: str) -> ExperimentConfig:
    """Return the default configuration that a space varies, its steps not yet scaled.

    Raises:
        ConfigError: It breaks a law.
    """
    raw = {**space.experiment, "experiment_name": name, "timestamp": timestamp}
    return build(raw, "the space's experiment")


# --- trials -----------------------------------------------------------------------------------


class Proposal(BaseModel):
    """One trial to be made."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    parameters: dict[str, Any]
    """What differs from the default configuration; empty for the default itself."""
    seed: int
    config: ExperimentConfig


class Result(NamedTuple):
    """What came of a proposal: one value for each objective, or None."""

    proposal: Proposal
    objectives: tuple[float, ...] | None
    is_running: bool = False
    is_pruned: bool = False


class Plan(Sequence[Proposal]):
    """The trials of a study, in order, each made when it is asked for.

    A bayesian search knows a trial only when it knows the results before it: `propose`.
    """

    def __init__(
        self, space: SearchSpace, base: ExperimentConfig, step_scale: float, first_seed: int
    ) -> None:
        """Check the space and prepare.

        Args:
            space: What is varied.
            base: The default configuration, steps not yet scaled.
            step_scale: Applied to every configuration.
            first_seed: Seed of all variations, and of the first default.

        Raises:
            ConfigError: A candidate breaks a law; all such are reported together.
        """
        check_space(space, base=base)
        step_scaled(base, step_scale)
        self._space, self._base = space, base
        self._step_scale, self._first_seed = step_scale, first_seed
        self._points = space.points()
        self._raw = base.model_dump(mode="json")
        self._default = self.point_of({})
        self._num_defaults = max(space.replicates, space.replicates_of_default)
        own = base.spelling_config.arm
        self._controls = [{ARM: arm.value} for arm in space.arms if arm is not own]
        self._num_first = self._num_defaults * (1 + len(self._controls))

    def check_sampler(self) -> None:
        """Have the sampler made once, so that a mistake in its name is told before any trial.

        Raises:
            NotFoundError: There is no such sampler.
            ConfigError: It cannot be made.
        """
        if self._space.strategy.draws and self._space.sampler_name not in ("uniform", "sobol"):
            sampler_of(self._space)

    @property
    def draws(self) -> bool:
        """Whether it makes as many trials as it was asked for."""
        return self._space.strategy.draws

    def varied(self, key: str) -> tuple[Any, ...]:
        """Return the values that the space gives a dotted key; none if it does not vary it."""
        return next((p.values for p in self._points.parameters if p.key == key), ())

    @property
    def is_adaptive(self) -> bool:
        """Whether a trial depends on the results of those before it."""
        return self._space.strategy is Strategy.BAYESIAN

    @functools.cached_property
    def num_configurations(self) -> int:
        """Configurations beside the default and its other arms."""
        strategy = self._space.strategy
        if strategy in (Strategy.ONE_AT_A_TIME, Strategy.LISTED):
            return len(self._variations)
        if strategy is Strategy.GRID:
            return self._points.count - (self._place_of_default is not None)
        if self._space.num_trials is not None or not self._points.is_countable:
            return self._space.num_trials or DEFAULT_DRAWS
        left = self._points.count - (self._place_of_default is not None)
        return min(DEFAULT_DRAWS, left)

    @property
    def num_trials(self) -> int:
        """Number of trials, seeds of the default included; may be larger than a length can be."""
        return self._num_first + self.num_configurations * self._space.replicates

    @property
    def says(self) -> str:
        """Return what the trials are, in words."""
        default = f"the default on {numbered(self._num_defaults, 'seed')}"
        controls = numbered(len(self._controls), "control")
        each = f" on {self._space.replicates} seeds" if self._space.replicates > 1 else ""
        others = numbered(self.num_configurations, "other configuration") + each
        parts = [default]
        parts += [f"{controls} likewise"] if self._controls else []
        parts += [others] if self.num_configurations else []
        return f"{numbered(self.num_trials, 'trial')}: {', '.join(parts)}"

    @property
    def last_seed(self) -> int:
        """The largest seed of any trial."""
        return self._first_seed + self._num_defaults - 1

    def __len__(self) -> int:
        return self.num_trials

    def __getitem__(self, index: Any) -> Any:
        """Return a trial of a search that does not look at results."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index += self.num_trials if index < 0 else 0
        if not 0 <= index < self.num_trials:
            raise IndexError(index)
        if index < self._num_first:
            arm, replicate = divmod(index, self._num_defaults)
            parameters = self._controls[arm - 1] if arm else {}
            return self._proposal(index, parameters, self._first_seed + replicate)
        # All configurations with the first seed, then all with the next: a study that is stopped
        # early has tried them all.
        replicate, number = divmod(index - self._num_first, self.num_configurations)
        return self._proposal(index, self._point(number), self._first_seed + replicate)

    def known(self) -> Iterator[Proposal]:
        """Yield the trials that follow from no result."""
        last = self._num_first if self.is_adaptive else self.num_trials
        return (self[index] for index in range(last))

    def propose(self, index: int, results: Sequence[Result]) -> Proposal:
        """Return trial `index`, given the results of the trials before it.

        Raises:
            ConfigError: The sampler fails, or no point is left.
        """
        if not self.is_adaptive or index < self._num_first:
            proposal: Proposal = self[index]
            return proposal
        number, replicate = divmod(index - self._num_first, self._space.replicates)
        seed = self._first_seed + replicate
        if replicate:
            return self._proposal(index, results[-1].proposal.parameters, seed)
        seen = [
            Seen(self.point_of(r.proposal.parameters), r.objectives, r.is_running, r.is_pruned)
            for r in results
            if r.proposal.parameters not in self._controls
        ]
        sampler, own_seed = sampler_of(self._space), self._first_seed
        point = propose(sampler, self._points, number, own_seed, seen, self._default)
        return self._proposal(index, point, seed)

    def again(self, index: int, parameters: Mapping[str, Any], seed: int) -> Proposal:
        """Return a trial that was proposed before, from what was remembered of it."""
        return self._proposal(index, {**self.point_of({}), **parameters}, seed)

    def _proposal(self, index: int, point: Mapping[str, Any], seed: int) -> Proposal:
        parameters = {
            name: value
            for name, value in point.items()
            if value != value_at(self._raw, key_of(name))
        }
        return Proposal(
            trial_id=f"{index:04d}-{sha256_of_json([parameters, seed])[:8]}",
            parameters=parameters,
            seed=seed,
            config=configuration(self._base, parameters, seed, self._step_scale),
        )

    def point_of(self, parameters: Mapping[str, Any]) -> Point:
        """Return the values of all parameters that exist in a configuration.

        Args:
            parameters: What differs from the default.
        """
        at_default = {p.name: value_at(self._raw, p.key) for p in self._points.parameters}
        return self._points.existing({**at_default, **parameters})

    def _point(self, number: int) -> Point:
        strategy = self._space.strategy
        if strategy in (Strategy.ONE_AT_A_TIME, Strategy.LISTED):
            return self._variations[number]
        if strategy is Strategy.GRID:
            place = self._place_of_default
            return self._points.at(number + (place is not None and number >= place))
        while len(self._drawn) <= number:
            self._drawn.append(next(self._draws))
        return self._drawn[number]

    @functools.cached_property
    def _variations(self) -> list[Point]:
        if self._space.strategy is Strategy.LISTED:
            return [point for point in self._points if not self._is_default(point)]
        return [
            {parameter.name: value}
            for parameter in self._points.parameters
            for value in map(parameter.value, range(parameter.num_values or 0))
            if value != value_at(self._raw, parameter.key)
        ]

    def _is_default(self, point: Point) -> bool:
        return all(value == value_at(self._raw, key_of(name)) for name, value in point.items())

    @functools.cached_property
    def _place_of_default(self) -> int | None:
        try:
            return self._points.index_of(self._default)
        except ConfigError:
            return None

    @functools.cached_property
    def _draws(self) -> Iterator[Point]:
        return draws(self._space, self._points, self._first_seed, self._default)

    @functools.cached_property
    def _drawn(self) -> list[Point]:
        return []


DEFAULT_DRAWS = 20
"""Configurations that random and bayesian make if no number is given."""

MAX_TRIALS = 10_000
"""More trials than this are a mistake, not a study."""


def check_size(plan: Plan) -> None:
    """Refuse a plan that nobody could run.

    Raises:
        ConfigError: It has more than `MAX_TRIALS` trials.
    """
    if plan.num_trials > MAX_TRIALS:
        raise ConfigError(
            f"a study runs at most {MAX_TRIALS:,} trials, this space makes {plan.num_trials:,}; "
            f"draw from it with strategy: random and num_trials, or name fewer candidates"
        )


def configuration(
    base: ExperimentConfig, parameters: Mapping[str, Any], seed: int, step_scale: float
) -> ExperimentConfig:
    """Return the configuration of a trial.

    Raises:
        ConfigError: A value breaks a law.
    """
    config = step_scaled(with_parameters(base, parameters), step_scale)
    raw = config.model_dump(mode="json")
    raw["training_config"]["seed"] = seed
    return build(raw, "proposal")


# --- the default design as files ----------------------------------------------------------------


def create_grid_search_configs(
    base_name: str = "spelling_transfer_exp",
    *,
    space: SearchSpace | None = None,
    base: ExperimentConfig | None = None,
    step_scale: float = 1.0,
    config_dir: Path = DEFAULT_CONFIG_DIR,
) -> list[Path]:
    """Write the default configuration and every one-at-a-time variation; return the files.

    Args:
        base_name: Files are named ``{base_name}_default_...`` and
            ``{base_name}_{parameter}_{value}_...``.
        space: What is varied, one at a time; the default space if not given.
        base: The default configuration; the schema's if not given.
        step_scale: Applied to every configuration.
        config_dir: Where the files go.

    Raises:
        ConfigError: A name or a value breaks a law; nothing is written.
        ResultsError: The folder cannot be written.
    """
    chosen = space or SearchSpace(candidates=create_hyperparameter_grid())
    one_each = chosen.model_copy(update={"replicates": 1, "replicates_of_default": 1})
    if one_each.strategy is not Strategy.ONE_AT_A_TIME:
        raise ConfigError(
            f"a grid as files is the one_at_a_time design, got strategy {one_each.strategy}; "
            f"run such a space as a study: tuning study run --space ..."
        )
    start = base or build({"experiment_name": base_name}, "the default configuration")
    plan = Plan(one_each, start, step_scale, start.training_config.seed)
    named = [_renamed(p.config, f"{base_name}_{_suffix(p.parameters)}") for p in plan]
    return [save(config, config_dir) for config in named]


def _renamed(config: ExperimentConfig, name: str) -> ExperimentConfig:
    return build({**config.model_dump(mode="json"), "experiment_name": name}, "--name")


def _suffix(parameters: Mapping[str, Any]) -> str:
    if not parameters:
        return "default"
    ((name, value),) = parameters.items()
    return f"{name.replace('.', '_')}_{_as_name(value)}"


def _as_name(value: Any) -> str:
    if isinstance(value, list):
        return "-".join(map(str, value))
    text = f"{value:g}" if isinstance(value, float) else str(value).lower()
    # Of a model or a file, what cannot stand in a name.
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)
