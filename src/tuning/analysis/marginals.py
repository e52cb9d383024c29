"""In which direction a hyperparameter moves the result: means over the values that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tuning.analysis.table import averaged, identity, values_of
from tuning.points import Parameter
from tuning.ranking import short
from tuning.search_space import not_learned
from tuning.statistics import t_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Marginal:
    """The mean of a target over the configurations that share a value of one hyperparameter."""

    target: str
    parameter: str
    value: str
    """The value, or a range of values that holds about a quarter of the configurations."""
    mean: float
    low: float | None
    high: float | None
    """95 % t interval over configurations; None for a single one."""
    num_configurations: int


def marginals(
    points: Sequence[Mapping[str, Any]],
    parameters: Sequence[Parameter],
    targets: Mapping[str, Sequence[float]],
) -> list[Marginal]:
    """Return the mean of every target at every value of every hyperparameter that is learned.

    A range is cut into at most 4 parts with about as many configurations each. Other
    hyperparameters are not held fixed: what was drawn together is seen together.

    Args:
        points: As in `influences`.
        parameters: As in `influences`.
        targets: As in `influences`.
    """
    learned = [p for p in parameters if not_learned(p.key) is None]
    own = [{p.name: point[p.name] for p in learned if p.name in point} for point in points]
    table = averaged(own, targets)
    found = []
    for parameter in learned:
        for label, chosen in _parts(parameter, table.points):
            for target, values_N in table.targets.items():
                values = values_N[chosen]
                interval = t_interval(list(values)) if len(values) > 1 else None
                found.append(
                    Marginal(
                        target=target,
                        parameter=parameter.name,
                        value=label,
                        mean=float(values.mean()),
                        low=interval.low if interval else None,
                        high=interval.high if interval else None,
                        num_configurations=len(values),
                    )
                )
    return found


def _parts(
    parameter: Parameter, points: Sequence[Mapping[str, Any]]
) -> list[tuple[str, np.ndarray]]:
    """Return labels and the configurations that share a value, or a quarter of a range."""
    name = parameter.name
    at = [index for index, point in enumerate(points) if name in point]
    values = [points[index][name] for index in at]
    if parameter.values:
        by_value: dict[str, list[int]] = {}
        for index, value in zip(at, values, strict=True):
            by_value.setdefault(identity(value), []).append(index)
        known = ((short(v), by_value.get(identity(v))) for v in values_of(parameter, points))
        return [(label, np.array(own)) for label, own in known if own is not None]
    edges = np.unique(np.quantile(values, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
    numbers, places = np.array(values), np.array(at)
    inner = np.searchsorted(edges[1:-1], numbers, side="right")
    chosen = [places[inner == part] for part in range(max(1, len(edges) - 1))]
    ends = [[points[i][name] for i in own] for own in chosen]
    return [
        (_range_label(min(own), max(own)), part) for part, own in zip(chosen, ends, strict=True)
    ]


def _range_label(low: Any, high: Any) -> str:
    return short(low) if low == high else f"{short(low)} to {short(high)}"
