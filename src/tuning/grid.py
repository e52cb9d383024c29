"""Search spaces: what is varied, which trials that makes, and how many.

A space file holds `HPARAM_CANDIDATES` (a list of values a hyperparameter), the experiment that is
varied, and how often the default is repeated with fresh seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tuning.config import (
    FLAT_NAMES,
    ExperimentConfig,
    build,
    read_mapping,
    step_scaled,
    with_parameters,
)
from tuning.errors import ConfigError, NotFoundError, nearest
from tuning.files import sha256_of_json
from tuning.paths import checked_name, shipped_config_dir

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
}
"""The discrete sets of the default space."""


def create_hyperparameter_grid() -> dict[str, list[Any]]:
    """Return the default search space: a list of candidates for each hyperparameter."""
    return {name: list(values) for name, values in HPARAM_CANDIDATES.items()}


class SearchSpace(BaseModel):
    """A search space as its file states it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Literal["one_at_a_time"] = "one_at_a_time"
    """Vary one hyperparameter, all others at the default."""
    candidates: Annotated[dict[str, list[Any]], Field(alias="HPARAM_CANDIDATES", min_length=1)]
    """Values of each hyperparameter; the default's own value is not tried twice."""
    replicates_of_default: Annotated[int, Field(ge=1, le=100, strict=True)] = 3
    """Seeds that the default configuration is trained with; their spread is what one seed hides."""
    step_scale: Annotated[float, Field(gt=0, le=1, strict=True)] = 1.0
    """Multiplies max_steps, warmup_steps and eval_frequency."""
    experiment: dict[str, Any] = Field(default_factory=dict)
    """Sections and keys in which the varied experiment differs from the defaults."""


class Proposal(BaseModel):
    """One trial to be made."""

    model_config = ConfigDict(frozen=True)

    trial_id: str
    parameters: dict[str, Any]
    """What differs from the default configuration; empty for the default itself."""
    seed: int
    config: ExperimentConfig


def load_space(name_or_path: str) -> SearchSpace:
    """Read a space of ours by its name, or a user's by its path.

    Raises:
        NotFoundError: There is no such space.
        ConfigError: It breaks a law.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml", ".json"):
        if path.exists():
            raise ConfigError(f"{path}: a space file must end in .yaml, .yml or .json")
        folder = shipped_config_dir() / "search_spaces"
        path = folder / f"{checked_name(name_or_path, 'space')}.yaml"
        if not path.is_file():
            known = [p.stem for p in folder.glob("*.yaml")]
            raise NotFoundError(
                f"space {name_or_path}: no such space; {nearest(name_or_path, known)}"
            )
    raw = read_mapping(path)
    try:
        space = SearchSpace.model_validate(raw)
    except ValidationError as error:
        lines = (
            f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg'][0].lower()}{e['msg'][1:]}"
            for e in error.errors()
        )
        raise ConfigError("\n".join(lines)) from error
    broken = []
    for name, values in space.candidates.items():
        if name not in FLAT_NAMES:
            broken.append(f"{path}: {name}: no such hyperparameter; {nearest(name, FLAT_NAMES)}")
        elif not values:
            broken.append(f"{path}: {name}: needs at least one candidate")
    if broken:
        raise ConfigError("\n".join(broken))
    return space


def base_experiment(space: SearchSpace, name: str, timestamp: str) -> ExperimentConfig:
    """Return the default configuration that a space varies, its steps not yet scaled.

    Raises:
        ConfigError: It breaks a law.
    """
    raw = {**space.experiment, "experiment_name": name, "timestamp": timestamp}
    return build(raw, "the space's experiment")


def proposals(
    space: SearchSpace, base: ExperimentConfig, step_scale: float, first_seed: int
) -> list[Proposal]:
    """Return the trials of a space, in order: the default with every seed, then each variation.

    Args:
        space: What is varied.
        base: The default configuration, steps not yet scaled.
        step_scale: Applied to every configuration.
        first_seed: Seed of all variations, and of the first default.

    Raises:
        ConfigError: A candidate breaks a law of its field; all such are reported together.
    """
    points, broken = _variations(space, base)
    seeds = range(first_seed, first_seed + space.replicates_of_default)
    planned: list[tuple[dict[str, Any], int]] = [({}, seed) for seed in seeds]
    planned += [(point, first_seed) for point in points]
    made = []
    for index, (parameters, seed) in enumerate(planned):
        try:
            config = step_scaled(with_parameters(base, parameters), step_scale)
        except ConfigError as error:
            broken.append(str(error))
            continue
        raw = config.model_dump(mode="json")
        raw["training_config"]["seed"] = seed
        made.append(
            Proposal(
                trial_id=f"{index:04d}-{sha256_of_json([parameters, seed])[:8]}",
                parameters=parameters,
                seed=seed,
                config=build(raw, "proposal"),
            )
        )
    if broken:
        raise ConfigError("\n".join(broken))
    return made


def _variations(
    space: SearchSpace, base: ExperimentConfig
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the points that differ from the default, as validated values, and what broke a law.

    Values are compared after validation: 1e-4, which YAML takes for text, is 0.0001.
    """
    raw = base.model_dump(mode="json")
    points: list[dict[str, Any]] = []
    broken = []
    for name, values in space.candidates.items():
        section, key = FLAT_NAMES[name].split(".")
        seen = [raw[section][key]]
        for value in values:
            try:
                varied = with_parameters(base, {name: value}).model_dump(mode="json")
            except ConfigError as error:
                broken.append(str(error))
                continue
            if varied[section][key] not in seen:
                seen.append(varied[section][key])
                points.append({name: varied[section][key]})
    return points, broken
