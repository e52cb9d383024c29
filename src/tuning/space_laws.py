"""The laws of a search space: every candidate, range, condition and combination, before it is used.

What is legal for a configuration is asked of its schema; no rule is written here twice.
"""

from __future__ import annotations

import graphlib
import itertools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from tuning.config import (
    LAWS,
    ExperimentConfig,
    Law,
    Place,
    build,
    field_value,
    key_of,
    kind_of,
    law_of_error,
    value_at,
)
from tuning.documents import Key, dotted
from tuning.errors import ConfigError, nearest, shown
from tuning.points import Condition, Parameter, Point, Points, exists
from tuning.search_space import (
    CANDIDATES,
    RANGES,
    SAMPLERS,
    SAMPLERS_OF,
    Range,
    SearchSpace,
    Strategy,
    as_list,
    legal_values,
    parameters_of,
)

Broken = tuple[Key, str]
"""A key of the space, and what is wrong with it."""


def check_space(
    space: SearchSpace, place: Place | None = None, base: ExperimentConfig | None = None
) -> None:
    """Refuse a space that breaks a law.

    Args:
        space: What to check.
        place: Where each key was written.
        base: The default configuration that is varied; the space's own if not given.

    Raises:
        ConfigError: All broken laws together, a line each.
    """
    found = list(_broken(space))
    sound = _sound_part(space, found)
    raw = {**space.experiment, "experiment_name": "space"}
    own = base or build(raw, lambda key: place(("experiment", *key)) if place else "experiment")
    if not found:
        found += _broken_strategy(space, own)
    found += _broken_combinations(sound, own)
    if found:
        heads = (f"{place(key)}: {dotted(key)}" if place else dotted(key) for key, _ in found)
        raise ConfigError(
            "\n".join(
                f"{head}: {law}"
                for head, (_, laws) in zip(heads, found, strict=True)
                for law in laws.splitlines()
            )
        )


def _sound_part(space: SearchSpace, found: Sequence[Broken]) -> SearchSpace:
    """Return the space without parameters and conditions that are broken by themselves."""
    broken = {key[1] for key, _ in found if key[0] in (CANDIDATES, RANGES) and len(key) > 1}
    has_conditions = not any(key[0] == "conditions" for key, _ in found)
    left = {*space.candidates, *space.ranges} - broken
    return space.model_copy(
        update={
            "candidates": {n: v for n, v in space.candidates.items() if n in left},
            "ranges": {n: v for n, v in space.ranges.items() if n in left},
            "conditions": {
                child: parents
                for child, parents in space.conditions.items()
                if has_conditions and child in left and left.issuperset(parents)
            },
        }
    )


def _broken(space: SearchSpace) -> Iterator[Broken]:
    """Yield what is wrong with single parameters and conditions."""
    if not space.candidates and not space.ranges:
        yield (CANDIDATES,), f"the space is empty: {CANDIDATES} or {RANGES} must name a parameter"
    seen: dict[str, str] = {}
    named = [((CANDIDATES, name), name) for name in space.candidates]
    named += [((RANGES, name), name) for name in space.ranges]
    for place, name in named:
        try:
            key = key_of(name)
        except ConfigError as error:
            yield place, str(error)
            continue
        if key in _NO_PARAMETERS:
            yield place, f"is no hyperparameter: {_NO_PARAMETERS[key]}"
        elif key in seen:
            yield place, f"is given twice, here and as {seen[key]}"
        elif place[0] == CANDIDATES:
            yield from _broken_candidates(place, key, space.candidates[name])
        else:
            yield from _broken_range(place, key, space.ranges[name])
        seen[key] = dotted(place)
    yield from _broken_conditions(space)


_NO_PARAMETERS = {
    "training_config.seed": "seeds are repetitions; use replicates and the study's --seed",
    "experiment_name": "every trial gets its own name",
    "timestamp": "it is set at creation",
}


def _broken_candidates(place: Key, key: str, values: Sequence[Any]) -> Iterator[Broken]:
    if not values:
        yield place, "needs at least one candidate"
    seen: list[Any] = []
    for index, value in enumerate(values):
        try:
            legal = field_value(key, value)
        except ConfigError as error:
            yield (*place, index), str(error)
            continue
        if legal in seen:
            yield (*place, index), f"the candidate {shown(value)} stands twice"
        seen.append(legal)


def _broken_range(place: Key, key: str, given: Range) -> Iterator[Broken]:
    kind = kind_of(key)
    if kind not in ("integer", "number"):
        yield place, f"is no number, so it has no range; list its values in {CANDIDATES}"
        return
    for end in ("low", "high"):
        try:
            field_value(key, getattr(given, end))
        except ConfigError as error:
            yield (*place, end), str(error)
    if given.low >= given.high:
        yield (*place, "high"), f"must be above low, got {given.high} and {given.low}"
    elif given.scale == "log":
        if given.low <= 0:
            yield (*place, "low"), f"a log range must begin above 0, got {given.low}"
        if given.step is not None:
            yield (*place, "step"), "a log range has no step; list its values as candidates"
    elif given.step is not None:
        yield from _broken_step(place, given, kind)


def _broken_step(place: Key, given: Range, kind: str) -> Iterator[Broken]:
    step = given.step
    assert step is not None
    if step <= 0 or (kind == "integer" and not isinstance(step, int)):
        what = "a whole number above 0" if kind == "integer" else "above 0"
        yield (*place, "step"), f"must be {what}, got {step}"
        return
    low, high, width = (Decimal(repr(x)) for x in (given.low, given.high, step))
    times, rest = divmod(high - low, width)
    if rest:
        below, above = low + times * width, low + (times + 1) * width
        yield (
            (*place, "high"),
            f"must be low plus a multiple of step, got {given.high}; the nearest are "
            f"{below} and {above}",
        )


def _broken_conditions(space: SearchSpace) -> Iterator[Broken]:
    graph: dict[str, list[str]] = {}
    names = {*space.candidates, *space.ranges}
    for child, parents in space.conditions.items():
        place: Key = ("conditions", child)
        if child not in names:
            yield place, f"is no parameter of the space; {nearest(child, names)}"
        if not parents:
            yield place, "needs at least one parent"
        for parent, wanted in parents.items():
            graph.setdefault(child, []).append(parent)
            yield from _broken_condition((*place, parent), space, parent, wanted)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(map(str, error.args[1]))
        yield ("conditions",), f"lead back to themselves: {circle}"


def _broken_condition(place: Key, space: SearchSpace, parent: str, wanted: Any) -> Iterator[Broken]:
    if parent not in space.candidates:
        hint = (
            f"; it has a range, list its values in {CANDIDATES}" if parent in space.ranges else ""
        )
        known = nearest(parent, space.candidates)
        yield place, f"is no parameter with candidates{hint or f'; {known}'}"
        return
    values = legal_values(parent, space.candidates[parent])
    for value in as_list(wanted):
        legal = legal_values(parent, [value])
        if not legal or legal[0] not in values:
            yield (
                place,
                f"can never be met: {shown(value)} is no candidate of {parent} "
                f"({', '.join(map(str, values))})",
            )


def _broken_strategy(space: SearchSpace, base: ExperimentConfig) -> Iterator[Broken]:
    points = Points(parameters_of(space))
    if not space.strategy.draws:
        for parameter in points.parameters:
            if parameter.num_values is None:
                yield (
                    (RANGES, parameter.name),
                    f"{space.strategy} needs values that can be counted: give a step or candidates",
                )
        if space.num_trials is not None:
            yield (
                ("num_trials",),
                f"belongs to random and bayesian; {space.strategy} makes what its values make",
            )
        if space.sampler is not None:
            yield ("sampler",), f"belongs to random and bayesian, got strategy {space.strategy}"
    elif points.is_countable and (space.num_trials or 1) > points.count:
        yield ("num_trials",), f"must be at most the {points.count} points, got {space.num_trials}"
    if space.strategy is Strategy.ONE_AT_A_TIME:
        raw = base.model_dump(mode="json")
        at_base = {p.name: value_at(raw, p.key) for p in points.parameters}
        for parameter in points.parameters:
            if not exists(parameter, at_base):
                yield (
                    ("conditions", parameter.name),
                    "is not met by the default configuration, which one_at_a_time varies",
                )
    yield from _broken_sampler(space)


def _broken_sampler(space: SearchSpace) -> Iterator[Broken]:
    if not space.strategy.draws:
        return
    name = space.sampler_name
    ours = SAMPLERS_OF[space.strategy]
    if name in SAMPLERS:
        if name not in ours:
            yield ("sampler",), f"{space.strategy} takes {' or '.join(ours)}, got {name}"
            return
        try:
            SAMPLERS[name].model_validate(space.sampler_arguments)
        except ValidationError as error:
            known = SAMPLERS[name].model_fields
            for e in error.errors():
                law = law_of_error(e)
                if e["type"] == "extra_forbidden":
                    law = f"no such argument of {name}; {nearest(str(e['loc'][-1]), known)}"
                yield ("sampler_arguments", *e["loc"]), law
    if len(space.objectives) != len(set(space.objectives)):
        yield ("objectives",), "must differ"


def _broken_combinations(space: SearchSpace, base: ExperimentConfig) -> Iterator[Broken]:
    """Yield combinations of values that are legal by themselves and together break a law."""
    parameters = parameters_of(space)
    for law in LAWS:
        involved = [p for p in parameters if p.key in law.keys]
        if not involved:
            continue
        broken = list(_broken_points(law, involved, space, base))
        if broken:
            point, message = broken[0]
            more = f" (and {len(broken) - 1} more such)" if len(broken) > 1 else ""
            named = ", ".join(f"{name}={value}" for name, value in point.items())
            yield _place_of(space, involved[0].key), f"{named}: {message}{more}"


def _place_of(space: SearchSpace, key: str) -> Key:
    """Return where a space writes the parameter of a dotted key."""
    places = [(CANDIDATES, name) for name in space.candidates]
    places += [(RANGES, name) for name in space.ranges]
    return next(place for place in places if key_of(place[1]) == key)


def _broken_points(
    law: Law, involved: Sequence[Parameter], space: SearchSpace, base: ExperimentConfig
) -> Iterator[tuple[Point, str]]:
    raw = base.model_dump(mode="json")
    at_base = {key: value_at(raw, key) for key in law.keys}
    for point in _combinations(involved, space.strategy):
        values = at_base | {p.key: point[p.name] for p in involved if p.name in point}
        message = law.broken_by(*(values[key] for key in law.keys))
        if message is not None:
            yield point, message


def _combinations(involved: Sequence[Parameter], strategy: Strategy) -> Iterator[Point]:
    """Yield the points that could break a law first: candidates, and ends of ranges."""
    if strategy is Strategy.ONE_AT_A_TIME:
        for parameter in involved:
            for value in parameter.ends:
                yield {parameter.name: value}
        return
    names = {p.name for p in involved}
    for values in itertools.product(*(p.ends for p in involved)):
        point = {p.name: value for p, value in zip(involved, values, strict=True)}
        # A condition on a parameter that the law does not speak of can be met.
        if all(
            c.parent not in names or exists(_with_only(p, c), point)
            for p in involved
            for c in p.conditions
        ):
            yield point


def _with_only(parameter: Parameter, condition: Condition) -> Parameter:
    return Parameter(name=parameter.name, key=parameter.key, conditions=(condition,))
