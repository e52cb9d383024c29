"""How many configurations a search space has, and how many distinct trainings they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tuning.config import LAWS, ExperimentConfig, with_parameters
from tuning.fingerprint import training_key, weights_key
from tuning.grid import Plan
from tuning.points import Parameter, Points
from tuning.search_space import SearchSpace, Strategy
from tuning.space_laws import check_space


class Size(NamedTuple):
    """How large a space is. Infinite sizes are None."""

    num_configurations: int | None
    """One-at-a-time, listed: the default and its variations. Else: the points. Without arms."""
    num_trials: int
    """Seeds and the default included."""


def size_of(space: SearchSpace, base: ExperimentConfig) -> Size:
    """Count the configurations of a space and the trials that a study makes of them.

    Raises:
        ConfigError: The space breaks a law.
    """
    plan = Plan(space, base, 1.0, 0)
    points = space.points()
    if space.strategy in (Strategy.ONE_AT_A_TIME, Strategy.LISTED):
        return Size(plan.num_configurations + 1, plan.num_trials)
    return Size(points.count if points.is_countable else None, plan.num_trials)


class UniqueTrainings(NamedTuple):
    """What is left of a space when points that train the same weights count once."""

    num_weights: int
    """Distinct trained weights."""
    num_trainings: int
    """Runs that make them: a longer one passes through a shorter one."""


def unique_trainings(space: SearchSpace, base: ExperimentConfig) -> UniqueTrainings | None:
    """Count the distinct weights that a space trains, on this machine, with one seed.

    Most keys of a configuration do not change what another one does to the weights, so the number
    is that of distinct values of each, multiplied. Parameters that hang together, by conditions, by
    a law, or as schedule and steps do, are listed together.

    Returns:
        None where a parameter has real values, or too many hang together to be listed.

    Raises:
        ConfigError: The space breaks a law.
    """
    check_space(space, base=base)
    if space.strategy in (Strategy.ONE_AT_A_TIME, Strategy.LISTED):
        one_each = space.model_copy(update={"replicates": 1, "replicates_of_default": 1})
        configs = [p.config for p in Plan(one_each, base, 1.0, 0)]
        return _distinct(configs)
    points = space.points()
    if not points.is_countable:
        return None
    # Other arms of the default train what no point does, for no point varies the arm.
    num_arms = len(set(space.arms) - {base.spelling_config.arm})
    num_weights = num_trainings = 1
    for group in _tied(points):
        found = _distinct_of_group(group, base)
        if found is None:
            return None
        num_weights *= found.num_weights
        num_trainings *= found.num_trainings
    return UniqueTrainings(num_weights + num_arms, num_trainings + num_arms)


_MAX_LISTED = 5_000

_TIES = [
    *(frozenset(law.keys) for law in LAWS),
    # Under a schedule that knows its end, a shorter run is no part of a longer one.
    frozenset({"training_config.schedule", "training_config.max_steps"}),
    # A rule means nothing where the vocabulary is whole.
    frozenset({"tokenizer_config.use_english_only_tokens", "tokenizer_config.subset_rule"}),
]


def _tied(points: Points) -> list[list[Parameter]]:
    """Return the parameters in groups that do not change what each other's values mean."""
    groups: list[list[Parameter]] = []
    for group in points.groups:
        merged = list(group)
        keys = {p.key for p in group}
        ties = [tie for tie in _TIES if tie & keys]
        for other in [g for g in groups if any(tie & {p.key for p in g} for tie in ties)]:
            groups.remove(other)
            merged = [*other, *merged]
        groups.append(merged)
    return groups


def _distinct_of_group(
    group: Sequence[Parameter], base: ExperimentConfig
) -> UniqueTrainings | None:
    only = group[0]
    if len(group) == 1 and not only.values:
        # A range changes the weights with every value, or with none.
        first, second = (with_parameters(base, {only.name: only.value(i)}) for i in (0, 1))
        count = only.num_values or 1
        two = _distinct([first, second])
        return UniqueTrainings(
            count if two.num_weights > 1 else 1, count if two.num_trainings > 1 else 1
        )
    own = Points(group)
    if own.count > _MAX_LISTED:
        return None
    return _distinct([with_parameters(base, point) for point in own])


def _distinct(configs: Sequence[ExperimentConfig]) -> UniqueTrainings:
    return UniqueTrainings(
        len({weights_key(c) for c in configs}), len({training_key(c) for c in configs})
    )
