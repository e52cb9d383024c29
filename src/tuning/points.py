"""The points of a search space: counted, indexed, shuffled and inverted without being held.

A point maps the name of each parameter that exists in it to a value. Points of parameters with
finitely many values have an index, in the order of nested loops with the last parameter fastest.
Nothing here grows with the number of points.
"""

from __future__ import annotations

import functools
import graphlib
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from tuning.errors import ConfigError, nearest, shown

Point = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A parameter exists only where another one has one of these values."""

    parent: str
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A hyperparameter that is searched over, and its values."""

    name: str
    key: str
    """Its dotted key in a configuration."""
    values: tuple[Any, ...] = ()
    """Candidates; empty for a range."""
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    step: float | None = None
    """Distance of neighbours; None between real numbers."""
    is_integer: bool = False
    conditions: tuple[Condition, ...] = ()

    @property
    def num_values(self) -> int | None:
        """How many values it has; None for a range of real numbers."""
        if self.values:
            return len(self.values)
        if self.step is None:
            return None
        return int((_decimal(self.high) - _decimal(self.low)) / _decimal(self.step)) + 1

    def value(self, index: int) -> Any:
        """Return the value number `index`, from 0."""
        if self.values:
            return self.values[index]
        assert self.step is not None
        # In decimal, as the file means it: 0.1 + 2 * 0.1 is 0.3.
        value = _decimal(self.low) + index * _decimal(self.step)
        return int(value) if self.is_integer else float(value)

    def index_of(self, value: Any) -> int:
        """Return the number of a value.

        Raises:
            ConfigError: It is none of the parameter's.
        """
        if self.values:
            for index, own in enumerate(self.values):
                if _same(own, value):
                    return index
        elif self.step is not None and _is_number(value) and self.low <= value <= self.high:
            times, rest = divmod(_decimal(value) - _decimal(self.low), _decimal(self.step))
            if rest == 0:
                return int(times)
        raise ConfigError(f"{self.name}: {shown(value)} is none of its values")

    def holds(self, value: Any) -> bool:
        """Whether a value is one of the parameter's."""
        if not self.values and (self.step is None or self.is_log):
            is_whole = not self.is_integer or (_is_number(value) and value == int(value))
            return _is_number(value) and self.low <= value <= self.high and is_whole
        try:
            self.index_of(value)
        except ConfigError:
            return False
        return True

    def own(self, value: Any) -> Any:
        """Return a value that the parameter holds as the parameter has it: 8, not 8.0."""
        if self.values:
            return self.values[self.index_of(value)]
        return int(value) if self.is_integer else float(value)

    def at(self, unit: float) -> Any:
        """Return the value at a place in [0, 1): uniform, or uniform in the logarithm."""
        if self.is_log:
            # An integer takes the share of the logarithm that lies between it and the next one.
            high = self.high + 1 if self.is_integer else self.high
            value = math.exp(math.log(self.low) + unit * (math.log(high) - math.log(self.low)))
            return (
                int(min(max(value, self.low), self.high)) if self.is_integer else self.near(value)
            )
        count = self.num_values
        if count is None:
            return self.near(self.low + unit * (self.high - self.low))
        return self.value(min(int(unit * count), count - 1))

    def near(self, value: float) -> float:
        """Return a real value as a person would write it, with four digits, within the range."""
        return min(max(float(f"{value:.4g}"), float(self.low)), float(self.high))

    @property
    def ends(self) -> tuple[Any, ...]:
        """All candidates, or both ends of a range: where a law would break first."""
        if self.values:
            return self.values
        ends = (self.low, self.high)
        return tuple(int(end) if self.is_integer else float(end) for end in ends)


def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Points:
    """All points of some parameters."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        """Prepare for counting.

        Args:
            parameters: Their conditions name each other, lead to no circle, and name only parents
                with candidates.
        """
        self.parameters = tuple(parameters)
        self.by_name: Mapping[str, Parameter] = {p.name: p for p in self.parameters}
        self._groups = _groups(self.parameters)
        self.parents_first = _parents_first(self.parameters)

    @property
    def groups(self) -> list[tuple[Parameter, ...]]:
        """Parameters whose conditions hang together; the number of points is their product."""
        return [group.parameters for group in self._groups]

    @property
    def is_countable(self) -> bool:
        """Whether every parameter has finitely many values."""
        return all(p.num_values is not None for p in self.parameters)

    @functools.cached_property
    def count(self) -> int:
        """Number of points.

        Raises:
            ConfigError: A parameter has endlessly many values.
        """
        for parameter in self.parameters:
            if parameter.num_values is None:
                raise ConfigError(
                    f"{parameter.name}: a range of real numbers has no number of points; "
                    f"give it a step, or candidates"
                )
        return math.prod(group.count for group in self._groups)

    def at(self, index: int) -> Point:
        """Return the point number `index`, from 0.

        Raises:
            ConfigError: There is no such point, or points have no numbers.
        """
        if not 0 <= index < self.count:
            raise ConfigError(f"index must lie in [0, {self.count}), got {index}")
        found: Point = {}
        for group in reversed(self._groups):
            index, own = divmod(index, group.count)
            group.fill(own, found)
        return {p.name: found[p.name] for p in self.parameters if p.name in found}

    def index_of(self, point: Mapping[str, Any]) -> int:
        """Return the number of a point.

        Raises:
            ConfigError: It is no point of this space, or points have no numbers.
        """
        self.check(point)
        index = 0
        for group in self._groups:
            index = index * group.count + group.index_of(point)
        return index

    def __iter__(self) -> Iterator[Point]:
        """Yield all points in the order of their numbers."""
        return map(self.at, iter_range(self.count))

    def shuffled(self, index: int, seed: int) -> Point:
        """Return the point number `index` of a random order of all points: no point comes twice.

        The order is a pure function of the seed, and nothing of it is held.

        Raises:
            ConfigError: There is no such point, or points have no numbers.
        """
        if not 0 <= index < self.count:
            raise ConfigError(f"index must lie in [0, {self.count}), got {index}")
        return self.at(permuted(index, self.count, seed))

    def from_units(self, units: Sequence[float]) -> Point:
        """Return the point at a place in the unit cube.

        Args:
            units: Shape (P,), in [0, 1), one for each parameter.
        """
        places = {p.name: u for p, u in zip(self.parameters, units, strict=True)}
        found: Point = {}
        for parameter in self.parents_first:
            if exists(parameter, found):
                found[parameter.name] = parameter.at(places[parameter.name])
        return {p.name: found[p.name] for p in self.parameters if p.name in found}

    def existing(self, values: Mapping[str, Any]) -> Point:
        """Return the point of a configuration: the values of the parameters that exist in it.

        Args:
            values: A value for every parameter, whether it is one of its own or not.
        """
        found: Point = {}
        for parameter in self.parents_first:
            if exists(parameter, found):
                found[parameter.name] = values[parameter.name]
        return {p.name: found[p.name] for p in self.parameters if p.name in found}

    def holds(self, point: Mapping[str, Any]) -> bool:
        """Whether a mapping is a point of this space."""
        try:
            self.check(point)
        except ConfigError:
            return False
        return True

    def plain(self, point: Mapping[str, Any]) -> Point:
        """Return a point with its values as the parameters have them: 8, not 8.0 or numpy's.

        Raises:
            ConfigError: It is no point of this space.
        """
        found = {name: _without_numpy(value) for name, value in point.items()}
        self.check(found)
        return {p.name: p.own(found[p.name]) for p in self.parameters if p.name in found}

    def check(self, point: Mapping[str, Any]) -> None:
        """Refuse what is no point of this space.

        Raises:
            ConfigError: A parameter is unknown, missing, there though it should not exist, or has
                a value that is none of its own.
        """
        for name in point:
            if name not in self.by_name:
                raise ConfigError(
                    f"{name}: no parameter of the space; {nearest(name, self.by_name)}"
                )
        for parameter in self.parents_first:
            name, wanted = parameter.name, exists(parameter, point)
            if wanted and name not in point:
                raise ConfigError(f"{name}: the point must give it a value")
            if not wanted and name in point:
                raise ConfigError(f"{name}: does not exist in this point, its condition is not met")
            if wanted and not parameter.holds(point[name]):
                raise ConfigError(f"{name}: {shown(point[name])} is none of its values")


class ListedPoints(Points):
    """Points that a space lists itself: each gives values to some of the parameters."""

    def __init__(self, parameters: Sequence[Parameter], listed: Sequence[Point]) -> None:
        """Prepare.

        Args:
            parameters: Their values are those that stand in the list.
            listed: All points, in order; none twice.
        """
        super().__init__(parameters)
        self._listed = tuple(listed)

    @functools.cached_property
    def count(self) -> int:
        """Number of points."""
        return len(self._listed)

    def at(self, index: int) -> Point:
        """Return the point number `index`, from 0.

        Raises:
            ConfigError: There is no such point.
        """
        if not self.count:
            raise ConfigError("the space lists no configuration: it is the default alone")
        if not 0 <= index < self.count:
            raise ConfigError(f"index must lie in [0, {self.count}), got {index}")
        return dict(self._listed[index])

    def index_of(self, point: Mapping[str, Any]) -> int:
        """Return the number of a point.

        Raises:
            ConfigError: It is none of the list.
        """
        self.check(point)
        return self._listed.index(dict(point))

    def from_units(self, units: Sequence[float]) -> Point:
        """Return the point at a place of the list: that of the first number in [0, 1)."""
        return self.at(int(units[0] * self.count))

    def check(self, point: Mapping[str, Any]) -> None:
        """Refuse what is none of the list.

        Raises:
            ConfigError: It is none.
        """
        if dict(point) not in self._listed:
            raise ConfigError(f"{shown(dict(point))} is none of the listed configurations")


def _without_numpy(value: Any) -> Any:
    return value.item() if callable(getattr(value, "item", None)) else value


def exists(parameter: Parameter, point: Mapping[str, Any]) -> bool:
    """Whether a parameter's conditions are met by the values of its parents."""
    return all(
        c.parent in point and any(_same(point[c.parent], v) for v in c.values)
        for c in parameter.conditions
    )


def iter_range(count: int) -> Iterator[int]:
    """Return 0, 1, ... below `count`, which may be larger than a range can be."""
    return itertools.takewhile(lambda index: index < count, itertools.count())


# --- conditions -------------------------------------------------------------------------------


def _parents_first(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    by_name = {p.name: p for p in parameters}
    graph = {p.name: [c.parent for c in p.conditions] for p in parameters}
    return tuple(by_name[name] for name in graphlib.TopologicalSorter(graph).static_order())


class _Group:
    """Parameters whose conditions hang together; one without conditions is alone."""

    def __init__(self, parameters: Sequence[Parameter]) -> None:
        self.parameters = _parents_first(parameters)
        parents = {c.parent for p in parameters for c in p.conditions}
        self._is_parent = [p.name in parents for p in self.parameters]
        # Of what has been chosen, only parents of what is still to come change the count.
        self._relevant = [
            sorted({c.parent for p in self.parameters[i:] for c in p.conditions})
            for i in range(len(self.parameters) + 1)
        ]
        self._counts: dict[tuple[Any, ...], int] = {}

    @functools.cached_property
    def count(self) -> int:
        return self._rest(0, {})

    def _rest(self, i: int, chosen: Mapping[str, Any]) -> int:
        """Return in how many ways the parameters from number `i` on can be chosen."""
        if i == len(self.parameters):
            return 1
        relevant = (name for name in self._relevant[i] if name in chosen)
        state = (i, *((name, repr(chosen[name])) for name in relevant))
        if state not in self._counts:
            self._counts[state] = self._count_from(i, chosen)
        return self._counts[state]

    def _count_from(self, i: int, chosen: Mapping[str, Any]) -> int:
        parameter = self.parameters[i]
        if not exists(parameter, chosen):
            return self._rest(i + 1, chosen)
        if self._is_parent[i]:
            then = ({**chosen, parameter.name: value} for value in parameter.values)
            return sum(self._rest(i + 1, t) for t in then)
        return (parameter.num_values or 0) * self._rest(i + 1, chosen)

    def fill(self, index: int, found: Point) -> None:
        """Put the values of the group's point number `index` into `found`."""
        for i, parameter in enumerate(self.parameters):
            if not exists(parameter, found):
                continue
            if not self._is_parent[i]:
                own, index = divmod(index, self._rest(i + 1, found))
                found[parameter.name] = parameter.value(own)
                continue
            for value in parameter.values:
                found[parameter.name] = value
                count = self._rest(i + 1, found)
                if index < count:
                    break
                index -= count

    def index_of(self, point: Mapping[str, Any]) -> int:
        """Return the number of the group's values in a point."""
        index = 0
        chosen: Point = {}
        for i, parameter in enumerate(self.parameters):
            if not exists(parameter, chosen):
                continue
            own = parameter.index_of(point[parameter.name])
            if not self._is_parent[i]:
                index += own * self._rest(i + 1, chosen)
                continue
            for value in parameter.values[:own]:
                index += self._rest(i + 1, {**chosen, parameter.name: value})
            chosen[parameter.name] = parameter.values[own]
        return index


def _groups(parameters: Sequence[Parameter]) -> list[_Group]:
    """Return the parameters as groups, in the order of each group's first."""
    group_of = {p.name: {p.name} for p in parameters}
    for parameter in parameters:
        for condition in parameter.conditions:
            joined = group_of[parameter.name] | group_of[condition.parent]
            for name in joined:
                group_of[name] = joined
    made, seen = [], set()
    for parameter in parameters:
        if parameter.name not in seen:
            own = group_of[parameter.name]
            seen |= own
            made.append(_Group([p for p in parameters if p.name in own]))
    return made


# --- a random order without a list ------------------------------------------------------------


_ROUNDS = 6


def permuted(index: int, count: int, seed: int) -> int:
    """Return where a random permutation of 0 ... count - 1 puts `index`.

    A Feistel network over the smallest square of a power of two that holds `count`, walked until it
    comes back below `count` (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).

    Args:
        index: In [0, count).
        count: Any size.
        seed: Chooses the permutation.
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    while True:
        index = _encrypted(index, half, seed)
        if index < count:
            return index


def _encrypted(index: int, half: int, seed: int) -> int:
    left, right = divmod(index, 1 << half)
    for turn in range(_ROUNDS):
        key = f"{seed},{turn},{half},{right}".encode()
        digest = hashlib.shake_128(key).digest(half // 8 + 1)
        left, right = right, left ^ (int.from_bytes(digest) & ((1 << half) - 1))
    return (left << half) | right
