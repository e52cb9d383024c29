"""The distinct configurations of a study and their targets, as plain data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tuning.points import Parameter


class Table(NamedTuple):
    """Distinct configurations and their mean targets."""

    points: Sequence[Mapping[str, Any]]
    targets: Mapping[str, np.ndarray]
    """By name, a value for each configuration."""

    @property
    def size(self) -> int:
        """Number of configurations."""
        return len(self.points)


def averaged(points: Sequence[Mapping[str, Any]], targets: Mapping[str, Sequence[float]]) -> Table:
    """Return distinct configurations in the order of their first run, seeds averaged.

    Args:
        points: The values of each run.
        targets: By name, a value for each run.
    """
    groups: dict[str, list[int]] = {}
    for index, point in enumerate(points):
        groups.setdefault(identity(sorted(point.items())), []).append(index)
    means = {
        target: np.array([np.mean([values[i] for i in own]) for own in groups.values()])
        for target, values in targets.items()
    }
    return Table([points[own[0]] for own in groups.values()], means)


def identity(value: Any) -> str:
    """Return a text that equal values, and no others, share: true is not 1, lists are as tuples."""
    return json.dumps(value, default=list)


def values_of(parameter: Parameter, points: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return the candidates of a parameter and what else was tried, numbers in their order.

    A default that is no candidate was tried too.
    """
    seen = [point[parameter.name] for point in points if parameter.name in point]
    found = list({identity(value): value for value in (*parameter.values, *seen)}.values())
    return sorted(found) if is_scale(found) else found


def is_scale(values: Iterable[Any]) -> bool:
    """Whether values are numbers; true and false are none."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
