"""Which hyperparameters decide the result of a search: PED-ANOVA, its error, and what chance does.

For random, grid and bayesian searches; a one-at-a-time design shows its direct effects instead.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tuning.analysis.parzen import divergences
from tuning.analysis.table import Table, averaged, identity, is_scale, values_of
from tuning.points import Parameter
from tuning.search_space import not_learned

MIN_CONFIGURATIONS = 50
"""Fewer distinct configurations give no number: PED-ANOVA looks at the best tenth of them."""

TOP_SHARE = 0.1
"""Share of configurations that count as good."""

BOOTSTRAP_REPEATS = 200
PERMUTATIONS = 999

_CONFIGURATIONS_PER_CELL = 10
_MIN_CELLS, _MAX_CELLS = 8, 50
"""Cells of a range: 50 as in Optuna, fewer where configurations are few. Seen in simulation: at 50
configurations 8 cells find as much as 50, with intervals a third as wide."""

# Shapes: N configurations, G cells of a parameter, R repeats.


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """How much one hyperparameter decides whether a configuration is among the best tenth."""

    target: str
    parameter: str
    importance: float | None
    """Share of the variance of "among the best tenth" that this hyperparameter explains by itself,
    in [0, 1]: PED-ANOVA's value over that variance."""
    low: float | None
    high: float | None
    """95 % interval, by bootstrap over configurations."""
    noise: float | None
    """95 % quantile of the importance when the target is dealt out at random."""
    p_value: float | None
    """Share of such deals that reach the importance, the true one counted among them."""
    reason: str | None
    """Why there is no number."""
    num_configurations: int

    @property
    def is_above_noise(self) -> bool:
        """Whether fewer than 5 % of random deals come so far; of 20 such tests one is by chance."""
        return self.importance is not None and self.importance > (self.noise or 0.0)


def influences(
    points: Sequence[Mapping[str, Any]],
    parameters: Sequence[Parameter],
    targets: Mapping[str, Sequence[float]],
) -> list[Influence]:
    """Return the influence of every hyperparameter on every target; a pure function of the data.

    PED-ANOVA (Watanabe, Bansal and Hutter, arXiv 2304.10255; with conditions arXiv 2601.20800) is
    Optuna's. Its repeats on drawn configurations and random deals are `parzen.py`, the same sums.

    Args:
        points: The values of each configuration, without hyperparameters that do not exist in it.
            Equal ones, such as seeds of one configuration, are averaged.
        parameters: What was varied.
        targets: A value of each target for each of the points, higher is better.
    """
    learned = [p.name for p in parameters if not_learned(p.key) is None]
    # What differs only in what trains nothing is one configuration.
    table = averaged([{n: p[n] for n in learned if n in p} for p in points], targets)
    found = []
    for target, values_N in table.targets.items():
        reasons = {p.name: _no_number(p, table, values_N) for p in parameters}
        found += [
            _without_number(target, name, reason, table.size)
            for name, reason in reasons.items()
            if reason is not None
        ]
        usable = [p for p in parameters if reasons[p.name] is None]
        found += _measured(target, values_N, usable, table)
    order = {parameter.name: place for place, parameter in enumerate(parameters)}
    places = {target: place for place, target in enumerate(targets)}
    return sorted(found, key=lambda i: (places[i.target], -(i.importance or 0), order[i.parameter]))


def _no_number(parameter: Parameter, table: Table, values_N: np.ndarray) -> str | None:
    """Return why a parameter has no importance; None if it has one."""
    reason = not_learned(parameter.key)
    if reason is not None:
        return reason
    if table.size < MIN_CONFIGURATIONS:
        return f"too few trials: {table.size} of at least {MIN_CONFIGURATIONS} configurations"
    own = {identity(p[parameter.name]) for p in table.points if parameter.name in p}
    if len(own) < 2:
        return "all configurations have the same value"
    if _is_top(values_N).all():
        return "nothing to tell apart: the target is the same where it matters"
    return None


def _without_number(target: str, parameter: str, reason: str, size: int) -> Influence:
    return Influence(
        target=target,
        parameter=parameter,
        importance=None,
        low=None,
        high=None,
        noise=None,
        p_value=None,
        reason=reason,
        num_configurations=size,
    )


class _Cells(NamedTuple):
    """The values of one parameter as places in a row of cells."""

    cells_N: np.ndarray
    """The cell of each configuration; -1 where the parameter does not exist."""
    num_cells: int
    is_scale: bool
    """Whether neighbouring cells are alike."""


def _cells(parameter: Parameter, points: Sequence[Mapping[str, Any]]) -> _Cells:
    name = parameter.name
    if parameter.values:
        values = values_of(parameter, points)
        place = {identity(value): index for index, value in enumerate(values)}
        cells = [place[identity(p[name])] if name in p else -1 for p in points]
        return _Cells(np.array(cells), len(values), is_scale(values))
    scaled = math.log if parameter.is_log else float
    numbers = np.array([scaled(p[name]) if name in p else math.nan for p in points])
    low = min(scaled(parameter.low), np.nanmin(numbers))
    high = max(scaled(parameter.high), np.nanmax(numbers))
    wanted = min(max(len(points) // _CONFIGURATIONS_PER_CELL, _MIN_CELLS), _MAX_CELLS)
    num_cells = min(parameter.num_values or wanted, wanted)
    width = (high - low) / (num_cells - 1)
    places = np.rint((numbers - low) / width)
    return _Cells(np.where(np.isnan(places), -1, places).astype(int), num_cells, True)


# --- importance, its error, and chance ----------------------------------------------------------


def _measured(
    target: str, values_N: np.ndarray, parameters: Sequence[Parameter], table: Table
) -> list[Influence]:
    if not parameters:
        return []
    cells = [_cells(parameter, table.points) for parameter in parameters]
    is_top_N = _is_top(values_N)
    variance = is_top_N.mean() * (1 - is_top_N.mean())
    measured = _by_optuna(cells, values_N) / variance
    draws_RN = _draws(table.size)
    tops_RN = _tops(values_N, draws_RN)
    rates_R = tops_RN.sum(axis=1) / table.size
    variances_R = np.maximum(rates_R * (1 - rates_R), 1 / table.size**2)
    deals_RN = _deals(table.size, int(is_top_N.sum()))
    ones_RN = np.ones_like(deals_RN)
    found = []
    for parameter, own, importance in zip(parameters, cells, measured, strict=True):
        repeats_R = divergences(*own, draws_RN, tops_RN) / variances_R
        dealt_R = divergences(*own, ones_RN, deals_RN) / variance
        # A drawn sample repeats configurations, which looks like structure: only the spread counts.
        low, high = importance + np.quantile(repeats_R, [0.025, 0.975]) - repeats_R.mean()
        reached = int((dealt_R >= importance - 1e-12).sum())
        found.append(
            Influence(
                target=target,
                parameter=parameter.name,
                importance=float(importance),
                low=float(np.clip(low, 0, 1)),
                high=float(np.clip(high, 0, 1)),
                noise=float(np.quantile(dealt_R, 0.95)),
                p_value=(1 + reached) / (1 + PERMUTATIONS),
                reason=None,
                num_configurations=table.size,
            )
        )
    return found


def _is_top(values_N: np.ndarray) -> np.ndarray:
    """Return which configurations are in the best tenth; ties at its end are all in."""
    place = math.ceil(TOP_SHARE * len(values_N)) - 1
    is_top: np.ndarray = values_N >= np.sort(values_N)[::-1][place]
    return is_top


def _draws(size: int) -> np.ndarray:
    """Return how often each configuration is drawn in each repeat, shape (R, N); a fixed seed."""
    shares = np.full(size, 1 / size)
    return np.random.default_rng(0).multinomial(size, shares, BOOTSTRAP_REPEATS)


def _tops(values_N: np.ndarray, draws_RN: np.ndarray) -> np.ndarray:
    """Return how often each configuration is in the best tenth of each repeat, shape (R, N)."""
    order = np.argsort(-values_N, kind="stable")
    place = math.ceil(TOP_SHARE * len(values_N))
    reached_R = (np.cumsum(draws_RN[:, order], axis=1) >= place).argmax(axis=1)
    cutoff_R = values_N[order][reached_R]
    return np.where(values_N[None, :] >= cutoff_R[:, None], draws_RN, 0)


def _deals(size: int, num_top: int) -> np.ndarray:
    """Return random choices of as many configurations as are good, shape (R, N)."""
    ranks_RN = np.random.default_rng(1).random((PERMUTATIONS, size)).argsort(axis=1)
    return (ranks_RN < num_top).astype(int)


def _by_optuna(cells: Sequence[_Cells], values_N: np.ndarray) -> np.ndarray:
    """Return Optuna's PED-ANOVA of each parameter, not scaled to a sum of 1."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    own = [_distribution(c) for c in cells]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Optuna tells that a regime of one trial is left out, as `parzen.py` does.
        warnings.simplefilter("ignore", UserWarning)
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(
            target_quantile=TOP_SHARE, region_quantile=1.0, evaluate_on_local=True
        )
        study = optuna.create_study(direction="maximize", pruner=optuna.pruners.NopPruner())
        for index, value in enumerate(values_N):
            here = {str(k): c for k, c in enumerate(cells) if c.cells_N[index] >= 0}
            study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.COMPLETE,
                    value=float(value),
                    params={name: int(c.cells_N[index]) for name, c in here.items()},
                    distributions={name: own[int(name)] for name in here},
                )
            )
        names = [str(k) for k in range(len(cells))]
        found = evaluator.evaluate(study, params=names)
    return np.array([found[name] for name in names])


def _distribution(cells: _Cells) -> Any:
    import optuna

    if cells.is_scale:
        return optuna.distributions.IntDistribution(0, cells.num_cells - 1, log=False, step=1)
    return optuna.distributions.CategoricalDistribution(tuple(range(cells.num_cells)))
