"""A Gaussian process over settings, and what one more observation of each would be worth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from tuning.analysis.evidence import Setting, Tried
from tuning.analysis.table import identity, is_scale, values_of
from tuning.points import Parameter
from tuning.statistics import CONFIDENCE

# Shapes: N tried settings, C candidates, D columns of the unit cube, Z nodes of a normal.


# --- settings as numbers ------------------------------------------------------------------------


class Encoding:
    """Settings as points of the unit cube."""

    def __init__(self, parameters: Sequence[Parameter], tried: Sequence[Setting]) -> None:
        """Take the scale of every column from the space and from what was tried."""
        self._parts = [_columns(parameter, tried) for parameter in parameters]

    def __call__(self, settings: Sequence[Setting]) -> np.ndarray:
        """Return the settings, shape (C, D)."""
        rows = [[x for part in self._parts for x in part(setting)] for setting in settings]
        return np.array(rows, dtype=float).reshape(len(settings), -1)


_Columns = Callable[[Setting], Sequence[float]]


def _columns(parameter: Parameter, tried: Sequence[Setting]) -> _Columns:
    name = parameter.name
    values = values_of(parameter, tried)
    if not parameter.values:
        values = sorted([parameter.low, parameter.high, *values])
    if not is_scale(values):
        return _categories(name, values)
    is_log = values[0] > 0 and (parameter.is_log or _is_geometric(values, parameter))
    scaled: Callable[[float], float] = math.log if is_log else float
    low, high = scaled(values[0]), scaled(values[-1])
    width = (high - low) or 1.0
    return lambda setting: [(scaled(setting[name]) - low) / width]


def _categories(name: str, values: Sequence[Any]) -> _Columns:
    """Return a column for each category; two categories share one, and all are 1 apart."""
    known = [identity(value) for value in values]
    if len(known) <= 2:
        return lambda setting: [float(identity(setting[name]) == known[-1])]
    unit = math.sqrt(0.5)
    return lambda setting: [unit * (identity(setting[name]) == own) for own in known]


def _is_geometric(values: Sequence[float], parameter: Parameter) -> bool:
    """Whether ratios of neighbouring candidates are more alike than their differences."""
    if not parameter.values or len(values) < 3:
        return False
    steps, ratios = np.diff(values), np.diff(np.log(values))
    return bool(ratios.std() / ratios.mean() < steps.std() / steps.mean())


# --- the process --------------------------------------------------------------------------------

_LONG, _SHORT = 1.5, 0.4
"""Length scales from which the fit starts."""

_NOISE = 0.1
"""Variance between seeds from which it starts, in units of the variance between settings."""

_MAX_FITTED = 300
"""Runs from which length scales are taken: time grows with the third power of them."""


class Posterior(NamedTuple):
    """What is known of the mean objective of some settings."""

    mean_C: np.ndarray
    covariance_CC: np.ndarray

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """Return mean and standard deviation of one setting minus another."""
        variance = (
            self.covariance_CC[a, a] + self.covariance_CC[b, b] - 2 * self.covariance_CC[a, b]
        )
        return float(self.mean_C[a] - self.mean_C[b]), math.sqrt(max(0.0, float(variance)))


class Surrogate:
    """A Gaussian process over the mean objective of a setting, seeds being noise."""

    def __init__(self, encoding: Encoding, tried: Sequence[Tried]) -> None:
        """Fit it; every seed is an observation.

        Args:
            encoding: Of settings.
            tried: At least 2 settings with different means.
        """
        from sklearn.gaussian_process import GaussianProcessRegressor

        self._encoding = encoding
        runs = [(t.setting, objective) for t in tried for objective in t.objectives]
        inputs_ND = encoding([setting for setting, _ in runs])
        objectives_N = np.array([objective for _, objective in runs])
        means = np.array([t.mean for t in tried])
        self._shift, self._scale = float(means.mean()), float(means.std())
        outputs_N = (objectives_N - self._shift) / self._scale
        kernel, noise = _fitted(inputs_ND, outputs_N)
        self.noise = noise * self._scale**2
        """Variance between seeds of one setting."""
        self._process = GaussianProcessRegressor(
            kernel=kernel, alpha=noise, optimizer=None, normalize_y=False, copy_X_train=True
        ).fit(inputs_ND, outputs_N)

    def posterior(self, settings: Sequence[Setting]) -> Posterior:
        """Return what is known of some settings."""
        mean_C, covariance_CC = self._process.predict(self._encoding(settings), return_cov=True)
        return Posterior(
            self._shift + self._scale * mean_C, np.asarray(covariance_CC) * self._scale**2
        )


def _fitted(inputs_ND: np.ndarray, outputs_N: np.ndarray) -> tuple[Any, float]:
    """Return the kernel without noise, and the variance of the noise."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    # Of many runs evenly from the best to the worst.
    size, columns = inputs_ND.shape
    order = np.argsort(-outputs_N, kind="stable")
    chosen = order[np.unique(np.linspace(0, size - 1, min(size, _MAX_FITTED)).astype(int))]
    kernel = ConstantKernel(1.0, (0.01, 20.0)) * Matern(
        length_scale=np.full(columns, _LONG), length_scale_bounds=(0.05, 30.0), nu=2.5
    )
    process = GaussianProcessRegressor(
        kernel=kernel + WhiteKernel(_NOISE, (1e-4, 4.0)),
        alpha=1e-8,
        optimizer=_Penalized(columns),
        n_restarts_optimizer=0,
        normalize_y=False,
        copy_X_train=True,
    )
    with warnings.catch_warnings():
        # A length scale at its bound means a hyperparameter without influence.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = process.fit(inputs_ND[chosen], outputs_N[chosen]).kernel_
    return found.k1, float(found.k2.noise_level)


class _Penalized:
    """Maximizes the posterior density of the kernel's parameters instead of their likelihood.

    With few runs the likelihood is flat, and its maximum lies at a bound. The priors are normal in
    the logarithm: of length scales around 1.5 cubes (a factor of 4 either way), of the variances of
    signal and noise around that of the objectives and a tenth of it (factors of 3 and 7). Seeds of
    one setting say what is noise as far as they go: two or three alone would say it badly. A length
    scale for every column pays even where settings are few: on planted studies of 16 to 21 settings
    and 7 to 11 columns the recommended ones came up to 4.5 points further than with a common one.
    """

    def __init__(self, columns: int) -> None:
        lengths = [math.log(_LONG)] * columns
        self._center = np.array([0.0, *lengths, math.log(_NOISE)])
        self._spread = np.array([1.0, *[math.log(4.0)] * columns, 2.0])
        self._lengths = slice(1, 1 + columns)

    def __call__(
        self, objective: Callable[..., Any], initial: np.ndarray, bounds: np.ndarray
    ) -> tuple[np.ndarray, float]:
        from scipy.optimize import minimize

        def penalized(theta: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = objective(theta, eval_gradient=True)
            off = (theta - self._center) / self._spread
            return float(value) + 0.5 * float(off @ off), np.asarray(gradient) + off / self._spread

        limits = [(float(low), float(high)) for low, high in bounds]
        short = np.array(initial)
        short[self._lengths] = math.log(_SHORT)
        found = [
            minimize(penalized, start, jac=True, bounds=limits, method="L-BFGS-B")
            for start in (initial, short)
        ]
        best = min(found, key=lambda result: float(result.fun))
        return np.asarray(best.x), float(best.fun)


def noise_p_value(tried: Sequence[Tried], noise: float | None) -> float | None:
    """Return the p of an F test of means between settings against seeds; None without repeats."""
    freedom = sum(len(t.objectives) - 1 for t in tried)
    if noise is None or len(tried) < 2:
        return None
    counts, means = np.array([len(t.objectives) for t in tried]), np.array([t.mean for t in tried])
    middle = float((counts * means).sum() / counts.sum())
    between = float((counts * (means - middle) ** 2).sum()) / (len(tried) - 1)
    return float(special.fdtrc(len(tried) - 1, freedom, between / noise)) if noise else 0.0


def seeds_explain(p_value: float | None) -> bool:
    """Whether settings differ no more than seeds alone could make them, at level .05."""
    return p_value is not None and p_value > 1 - CONFIDENCE


def pooled_noise(tried: Sequence[Tried]) -> float | None:
    """Return the variance between seeds of one setting, pooled; None if nothing was repeated."""
    repeated = [np.array(t.objectives) for t in tried if len(t.objectives) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return None
    return sum(float(((v - v.mean()) ** 2).sum()) for v in repeated) / freedom


# --- what an observation is worth ---------------------------------------------------------------

_NODES = 32
"""Equally likely values of a normal variable over which the gain is averaged."""


def knowledge_gradients(posterior: Posterior, noise: float) -> np.ndarray:
    """Return by how much one run of each setting is expected to raise the best posterior mean.

    ``E[max_j(mean_j + change_ji * Z)] - max_j(mean_j)`` with ``change_ji = covariance_ji /
    sqrt(covariance_ii + noise)`` (Frazier, Powell and Dayanik 2009), never negative.

    Args:
        posterior: Of all settings among which the best will be chosen.
        noise: Variance between seeds.

    Returns:
        Shape (C,), in units of the objective.
    """
    mean_C, covariance_CC = posterior
    spread_C = np.sqrt(np.maximum(np.diag(covariance_CC) + noise, 1e-18))
    change_CC = covariance_CC / spread_C[None, :]
    nodes_Z = special.ndtri((np.arange(_NODES) + 0.5) / _NODES)
    # Who cannot come first however a run ends needs no look.
    reach_C = mean_C + nodes_Z[-1] * np.abs(change_CC).max(axis=1)
    in_play = reach_C >= mean_C.max()
    means, changes = mean_C[in_play, None], change_CC[in_play]
    best_C = np.mean([(means + z * changes).max(axis=0) for z in nodes_Z], axis=0)
    gains_C: np.ndarray = np.maximum(best_C - mean_C.max(), 0.0)
    return gains_C


def believed(posterior: Posterior, chosen: int, noise: float) -> Posterior:
    """Return what will be known after one more run: less uncertain, the means as they are."""
    covariance_CC = posterior.covariance_CC
    column_C = covariance_CC[:, chosen]
    less = np.outer(column_C, column_C) / max(float(column_C[chosen]) + noise, 1e-18)
    return Posterior(posterior.mean_C, covariance_CC - less)
