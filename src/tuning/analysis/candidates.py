"""The settings among which the next run is chosen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tuning.analysis.evidence import Evidence, Learned, Setting, Tried
from tuning.analysis.table import identity
from tuning.samplers import random_points

_ALL_POINTS = 1500
"""A space of up to so many points is looked at whole."""

_DRAWN_POINTS = 1000
_BEST_FEW = 3
"""Of a larger space: random points, and all neighbours of the best few settings."""

_NEIGHBOURS_OF_RANGE = 12


def candidates(learned: Learned, evidence: Evidence) -> Iterator[Setting]:
    """Yield legal settings without a result: all of a small space, else a sample.

    What failed, was stopped early or is still to run is left out.
    """
    taken = {key_of(t.setting) for t in (*evidence.completed, *evidence.open)}
    points = learned.points
    if points.parameters and points.is_countable and points.count <= _ALL_POINTS:
        pool: Iterator[Setting] = map(learned.full, points)
    elif points.parameters:
        drawn = map(learned.full, random_points(points, learned.spec.seed))
        near = (s for t in _best_few(evidence) for s in neighbours(learned, t.setting))
        pool = itertools.chain(near, itertools.islice(drawn, _DRAWN_POINTS))
    else:
        pool = iter(())
    for setting in pool:
        if key_of(setting) not in taken and learned.is_legal(setting):
            taken.add(key_of(setting))
            yield setting


def _best_few(evidence: Evidence) -> list[Tried]:
    return sorted(evidence.completed, key=lambda t: -t.mean)[:_BEST_FEW]


def neighbours(learned: Learned, setting: Setting) -> Iterator[Setting]:
    """Yield the settings that differ in one hyperparameter, of a range at even places of it."""
    for parameter in learned.parameters:
        places = ((k + 0.5) / _NEIGHBOURS_OF_RANGE for k in range(_NEIGHBOURS_OF_RANGE))
        for value in parameter.values or map(parameter.at, places):
            changed = {**setting, parameter.name: value}
            yield learned.full(learned.points.existing(changed))


def key_of(setting: Setting) -> str:
    """Return a text that equal settings share."""
    return identity(sorted(setting.items()))
