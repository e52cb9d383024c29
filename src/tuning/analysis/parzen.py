"""PED-ANOVA's divergence for many resampled studies at once: the sums of Optuna's, vectorized.

Optuna takes 20 ms for one study of 1,000 trials and 10 parameters; an interval and a noise
reference need a thousand of them. A test holds both to the same numbers.
"""

from __future__ import annotations

import numpy as np
from scipy import special

# Shapes: N configurations, G cells of a parameter, R repeats.

_PRIOR_WEIGHT = 1.0
"""Weight of the kernel that covers all cells, in trials."""

_TINY = 1e-12


def divergences(
    cells_N: np.ndarray,
    num_cells: int,
    is_scale: bool,
    counts_RN: np.ndarray,
    tops_RN: np.ndarray,
) -> np.ndarray:
    """Return PED-ANOVA's importance of one parameter in each repeat.

    ``share_of_top**2 * sum(p * (p_top / p - 1)**2)`` over cells, p being a Parzen estimate over all
    configurations and p_top over the good ones. Where the parameter exists in some configurations
    only, the sum is over these, weighted by ``(good ones that have it)**2 / those that have it``.

    Args:
        cells_N: The cell of each configuration, -1 where the parameter does not exist.
        num_cells: Number of cells.
        is_scale: Whether neighbouring cells are alike.
        counts_RN: How often each configuration is in each repeat.
        tops_RN: How often it is there and good.

    Returns:
        Shape (R,).
    """
    has_it = cells_N >= 0
    one_hot_NG = np.eye(num_cells)[cells_N[has_it]]
    counts_RG = counts_RN[:, has_it] @ one_hot_NG
    tops_RG = tops_RN[:, has_it] @ one_hot_NG
    density = _scale_density if is_scale else _category_density
    p_RG, top_RG = density(counts_RG) + _TINY, density(tops_RG) + _TINY
    divergence_R = (p_RG * (top_RG / p_RG - 1) ** 2).sum(axis=1)
    num_R, num_top_R = counts_RN.sum(axis=1), tops_RN.sum(axis=1)
    own_R, own_top_R = counts_RG.sum(axis=1), tops_RG.sum(axis=1)
    weight_R = (own_top_R / num_top_R) ** 2 / np.maximum(own_R / num_R, _TINY)
    # One trial is no group to look at.
    is_there_R = (own_R >= 2) & (own_top_R >= 1)
    importance_R: np.ndarray = np.where(
        is_there_R, weight_R * divergence_R * (num_top_R / num_R) ** 2, 0.0
    )
    return importance_R


def _category_density(counts_RG: np.ndarray) -> np.ndarray:
    """Return the Parzen estimate over categories: each kernel has a little of every other one."""
    num_cells = counts_RG.shape[1]
    prior_R1 = _PRIOR_WEIGHT / ((counts_RG > 0).sum(axis=1, keepdims=True) + 1)
    total_R1 = counts_RG.sum(axis=1, keepdims=True)
    kernels_RG = (counts_RG + total_R1 * prior_R1) / (1 + num_cells * prior_R1)
    density_RG: np.ndarray = (kernels_RG + _PRIOR_WEIGHT / num_cells) / (total_R1 + _PRIOR_WEIGHT)
    return density_RG


def _scale_density(counts_RG: np.ndarray) -> np.ndarray:
    """Return the Parzen estimate over a scale: normal kernels cut off at both ends."""
    num_cells = counts_RG.shape[1]
    sigma_R = _bandwidth(counts_RG)
    cells_G = np.arange(num_cells)
    # Equal bandwidths share their kernels: most repeats have the smallest one.
    sigmas, which_R = np.unique(sigma_R, return_inverse=True)
    kernels = np.stack([_kernels(cells_G.astype(float), sigma, num_cells) for sigma in sigmas])
    total_R1 = counts_RG.sum(axis=1, keepdims=True)
    summed_RG = np.einsum("rg,rgk->rk", counts_RG, kernels[which_R])
    wide_1G = _kernels(np.array([(num_cells - 1) / 2]), float(num_cells), num_cells)
    density_RG: np.ndarray = (summed_RG + _PRIOR_WEIGHT * wide_1G) / (total_R1 + _PRIOR_WEIGHT)
    return density_RG


def _kernels(centers: np.ndarray, sigma: float, num_cells: int) -> np.ndarray:
    """Return the mass in each cell of normal kernels, one a row."""
    edges = np.arange(num_cells + 1) - 0.5
    below = special.ndtr((edges[None, :] - centers[:, None]) / sigma)
    mass = np.diff(below, axis=1)
    normed: np.ndarray = mass / mass.sum(axis=1, keepdims=True)
    return normed


def _bandwidth(counts_RG: np.ndarray) -> np.ndarray:
    """Return Scott's bandwidth as Optuna takes it: of the smaller of two spreads, at least 0.3."""
    cells_G = np.arange(counts_RG.shape[1])
    total_R = np.maximum(counts_RG.sum(axis=1), 1.0)
    mean_R = counts_RG @ cells_G / total_R
    squares_R = (counts_RG * (cells_G[None, :] - mean_R[:, None]) ** 2).sum(axis=1)
    spread_R = np.sqrt(squares_R / np.maximum(1, total_R - 1))
    summed_RG = counts_RG.cumsum(axis=1)
    low_R = (summed_RG >= (total_R // 4)[:, None]) & (counts_RG > 0)
    high_R = (summed_RG > (total_R * 3 // 4)[:, None]) & (counts_RG > 0)
    last_R = counts_RG.shape[1] - 1 - (counts_RG > 0)[:, ::-1].argmax(axis=1)
    quarter_R = np.where(high_R.any(axis=1), high_R.argmax(axis=1), last_R) - low_R.argmax(axis=1)
    sigma_R = 1.059 * np.minimum(quarter_R / 1.34, spread_R) * total_R**-0.2
    at_least: np.ndarray = np.maximum(sigma_R, 0.5 / 1.64)
    return at_least
