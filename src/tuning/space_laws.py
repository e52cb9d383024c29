"""The laws of a search space: every candidate, range, condition and combination, before it is used.

What is legal for a configuration is asked of its schema; no rule is written here twice.
"""

from __future__ import annotations

import dataclasses
import graphlib
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from tuning.config import (
    LAWS,
    ExperimentConfig,
    Place,
    build,
    field_value,
    key_of,
    kind_of,
    value_at,
)
from tuning.documents import Key, dotted
from tuning.errors import ConfigError, nearest, shown
from tuning.listed_laws import (
    LISTED,
    NO_PARAMETERS,
    Broken,
    broken_configurations,
    broken_together,
    broken_twins,
)
from tuning.points import Parameter, Point, Points, exists
from tuning.pruning import broken_arguments
from tuning.schema import Law, law_of_error
from tuning.search_space import (
    ARM,
    CANDIDATES,
    RANGES,
    SAMPLERS,
    SAMPLERS_OF,
    Range,
    SearchSpace,
    Strategy,
    as_list,
    legal_values,
    offered_samplers,
    parameters_of,
    written_names,
)


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
    lines: list[str] = []
    try:
        own = base or _own_experiment(space, place)
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        raw = own.model_dump(mode="json")
        found += [] if found else _broken_strategy(space, raw)
        found += _broken_combinations(sound, raw)
    for key, laws in found:
        where = [place(key)] if place else []
        head = [*where, *([dotted(key)] if key else [])]
        lines += [": ".join([*head, law]) for law in laws.splitlines()]
    if lines:
        raise ConfigError("\n".join(lines))


def _own_experiment(space: SearchSpace, place: Place | None) -> ExperimentConfig:
    raw = {**space.experiment, "experiment_name": "space"}
    return build(raw, place or (lambda key: "the space"), within=("experiment",))


def _sound_part(space: SearchSpace, found: Sequence[Broken]) -> SearchSpace:
    """Return the space without what is broken by itself: parameters, conditions, configurations."""
    faulty = {key[1] for key, _ in found if key[0] == LISTED and len(key) > 1}
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
                if has_conditions and _are_among(left, child, *parents)
            },
            # Those left keep their numbers.
            "configurations": [
                {} if index in faulty else configuration
                for index, configuration in enumerate(space.configurations)
            ],
        }
    )


def _are_among(names: set[str], *wanted: str) -> bool:
    keys = {key_of(name) for name in names}
    return all(key_of(name) in keys for name in wanted)


def _broken(space: SearchSpace) -> Iterator[Broken]:
    """Yield what is wrong with single parameters and conditions."""
    if space.strategy is Strategy.LISTED:
        yield from broken_configurations(space)
    elif not space.candidates and not space.ranges:
        yield (
            (CANDIDATES,),
            f"the space is empty: {CANDIDATES} or {RANGES} must name a parameter; the default "
            f"alone is strategy: listed",
        )
    if space.configurations and space.strategy is not Strategy.LISTED:
        yield (LISTED,), f"belongs to listed; {space.strategy} makes its own"
    yield from _broken_arms(space)
    seen: dict[str, str] = {}
    named = [((CANDIDATES, name), name) for name in space.candidates]
    named += [((RANGES, name), name) for name in space.ranges]
    for place, name in named:
        try:
            key = key_of(name)
        except ConfigError as error:
            yield place, str(error).removeprefix(f"{name}: ")
            continue
        if key in NO_PARAMETERS:
            yield place, f"is no hyperparameter: {NO_PARAMETERS[key]}"
        elif key in seen:
            yield place, f"is given twice, here and as {seen[key]}"
        elif place[0] == CANDIDATES:
            yield from _broken_candidates(place, key, space.candidates[name])
        else:
            yield from _broken_range(place, key, space.ranges[name])
        seen[key] = dotted(place)
    yield from _broken_conditions(space)
    for name, law in broken_arguments(space.pruning, space.pruning_arguments):
        yield ("pruning_arguments", name), law


def _broken_arms(space: SearchSpace) -> Iterator[Broken]:
    for index, arm in enumerate(space.arms):
        if arm in space.arms[:index]:
            yield ("arms", index), f"the arm {arm} stands twice"
    if space.arms and key_of(ARM) in written_names(space):
        yield ("arms",), f"does not go with {ARM} as a hyperparameter: leave one of them out"


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
    if (given.high - given.low) / step > _MAX_VALUES:
        yield (*place, "step"), f"makes more than {_MAX_VALUES:,} values, got {step}"
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


_MAX_VALUES = 10**9
MAX_VARIATIONS = 10_000
"""Variations of the default that can be listed."""


def _broken_conditions(space: SearchSpace) -> Iterator[Broken]:
    graph: dict[str, list[str]] = {}
    names = written_names(space)
    for child, parents in space.conditions.items():
        place: Key = ("conditions", child)
        if _key(child) not in names:
            yield place, f"is no parameter of the space; {nearest(child, names.values())}"
        if not parents:
            yield place, "needs at least one parent"
        for parent, wanted in parents.items():
            graph.setdefault(_key(child), []).append(_key(parent))
            written = names.get(_key(parent), parent)
            yield from _broken_condition((*place, parent), space, written, wanted)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        circle = " -> ".join(names.get(key, key) for key in error.args[1])
        yield ("conditions",), f"lead back to themselves: {circle}"


def _key(name: str) -> str:
    try:
        return key_of(name)
    except ConfigError:
        return name


def _broken_condition(place: Key, space: SearchSpace, parent: str, wanted: Any) -> Iterator[Broken]:
    if parent in space.ranges:
        yield place, f"has a range; a condition needs its values listed in {CANDIDATES}"
        return
    if parent not in space.candidates:
        known = nearest(parent, space.candidates)
        yield place, f"is no parameter with candidates; {known}"
        return
    values = legal_values(parent, space.candidates[parent])
    if not as_list(wanted):
        yield place, f"needs at least one value of {parent}"
    for value in as_list(wanted):
        legal = legal_values(parent, [value])
        if not legal or legal[0] not in values:
            yield (
                place,
                f"can never be met: {shown(value)} is no candidate of {parent} "
                f"({', '.join(map(str, values))})",
            )


# --- strategy and sampler -----------------------------------------------------------------------


def _broken_strategy(space: SearchSpace, raw: Mapping[str, Any]) -> Iterator[Broken]:
    if space.strategy is Strategy.LISTED:
        yield from broken_twins(space, raw)
    points = Points(parameters_of(space))
    at_base = {p.name: value_at(raw, p.key) for p in points.parameters}
    for parameter in points.parameters:
        if parameter.conditions and not _can_exist(parameter, points.parameters):
            yield (
                ("conditions", _written_condition(space, parameter.key)),
                "can never be met: its conditions exclude each other",
            )
    if space.strategy.draws:
        yield from _broken_number(space, points, at_base)
        yield from _broken_sampler(space)
    else:
        yield from _broken_list(space, points)
    if space.strategy is Strategy.ONE_AT_A_TIME:
        for parameter in points.parameters:
            if not exists(parameter, at_base):
                yield (
                    ("conditions", _written_condition(space, parameter.key)),
                    "is not met by the default configuration, which one_at_a_time varies",
                )
    if space.objectives and space.strategy is not Strategy.BAYESIAN:
        yield ("objectives",), f"belongs to bayesian; {space.strategy} looks at no result"
    if len(space.objectives) != len(set(space.objectives)):
        yield ("objectives",), "must differ"


def _can_exist(parameter: Parameter, parameters: Sequence[Parameter]) -> bool:
    own = dataclasses.replace(parameter, values=parameter.ends[:1])
    return any(parameter.name in point for point in Points(_with_parents([own], parameters)))


def _written_condition(space: SearchSpace, key: str) -> str:
    return next(child for child in space.conditions if key_of(child) == key)


def _broken_list(space: SearchSpace, points: Points) -> Iterator[Broken]:
    """Yield what a strategy that makes all its values cannot have."""
    for parameter in points.parameters:
        if parameter.num_values is None:
            yield (
                (RANGES, written_names(space)[parameter.key]),
                f"{space.strategy} needs values that can be counted: give a step or candidates",
            )
    many = sum(p.num_values or 0 for p in points.parameters)
    if space.strategy is Strategy.ONE_AT_A_TIME and many > MAX_VARIATIONS:
        yield (), f"makes {many:,} variations; one_at_a_time makes at most {MAX_VARIATIONS:,}"
    made = "it lists" if space.strategy is Strategy.LISTED else "its values make"
    for name in ("num_trials", "sampler", "sampler_arguments"):
        if getattr(space, name):
            yield (
                (name,),
                f"belongs to random and bayesian; {space.strategy} makes what {made}",
            )


def _broken_number(
    space: SearchSpace, points: Points, at_base: Mapping[str, Any]
) -> Iterator[Broken]:
    if not points.is_countable:
        return
    left = points.count - points.holds(points.existing(at_base))
    if (space.num_trials or 1) > left:
        yield (
            ("num_trials",),
            f"must be at most the {left} points beside the default, got {space.num_trials or 1}",
        )


def _broken_sampler(space: SearchSpace) -> Iterator[Broken]:
    name = space.sampler_name
    ours = SAMPLERS_OF[space.strategy]
    if name not in SAMPLERS:
        known = [*ours, *(point.name for point in offered_samplers())]
        if ":" not in name and name not in known:
            yield (
                ("sampler",),
                f"no such sampler: {shown(name)[1:-1]}; {nearest(name, known)}, or module:name",
            )
        return
    if name not in ours:
        yield ("sampler",), f"{space.strategy} takes {' or '.join(ours)}, got {name}"
        return
    try:
        SAMPLERS[name].model_validate(space.sampler_arguments)
    except ValidationError as error:
        arguments = SAMPLERS[name].model_fields
        for e in error.errors():
            law = law_of_error(e)
            if e["type"] == "extra_forbidden":
                law = f"no such argument of {name}; {nearest(str(e['loc'][-1]), arguments)}"
            yield ("sampler_arguments", *e["loc"]), law


# --- combinations -------------------------------------------------------------------------------


def _broken_combinations(space: SearchSpace, raw: Mapping[str, Any]) -> Iterator[Broken]:
    """Yield combinations of values that are legal by themselves and together break a law."""
    if space.strategy is Strategy.LISTED:
        yield from broken_together(space, raw)
        return
    parameters = parameters_of(space)
    for law in LAWS:
        involved = [p for p in parameters if p.key in law.keys]
        if not involved:
            continue
        broken = _broken_points(law, involved, parameters, space.strategy, raw)
        if broken:
            named, message = next(iter(broken.items()))
            more = f" (and {len(broken) - 1} more such)" if len(broken) > 1 else ""
            yield _place_of(space, involved[0].key), f"{named}{message}{more}"


def _place_of(space: SearchSpace, key: str) -> Key:
    """Return where a space writes the parameter of a dotted key."""
    name = written_names(space)[key]
    return (CANDIDATES if name in space.candidates else RANGES, name)


def _broken_points(
    law: Law,
    involved: Sequence[Parameter],
    parameters: Sequence[Parameter],
    strategy: Strategy,
    raw: Mapping[str, Any],
) -> dict[str, str]:
    """Return what is wrong with each combination of the involved parameters that breaks a law."""
    at_base = {key: value_at(raw, key) for key in law.keys}
    found = {}
    for point in _combinations(involved, parameters, strategy):
        own = {p.key: point[p.name] for p in involved if p.name in point}
        message = law.broken_by(*({**at_base, **own}[key] for key in law.keys))
        if message is not None:
            named = ", ".join(
                f"{p.name}={str(point[p.name])[:MAX_SHOWN]}" for p in involved if p.name in point
            )
            found[f"{named}: " if named else ""] = message
    return found


MAX_SHOWN = 80
"""Characters of a value that a message about several names."""


def _combinations(
    involved: Sequence[Parameter], parameters: Sequence[Parameter], strategy: Strategy
) -> Iterator[Point]:
    """Yield the points that could break a law first: candidates, and ends of ranges.

    A parameter that does not exist in a point stays at the default there, so what the involved ones
    depend on is varied with them.
    """
    if strategy is Strategy.ONE_AT_A_TIME:
        for parameter in involved:
            for value in parameter.ends:
                yield {parameter.name: value}
        return
    wanted = _with_parents(involved, parameters)
    parents = {c.parent for p in wanted for c in p.conditions}
    yield from Points(
        [dataclasses.replace(p, values=p.ends if p.name in parents else _ends(p)) for p in wanted]
    )


def _ends(parameter: Parameter) -> tuple[Any, ...]:
    """Return the candidates, of many numbers the smallest and the largest: laws are monotone."""
    values = parameter.ends
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(values) <= _MANY or len(numbers) < len(values):
        return values
    return (min(numbers), max(numbers))


_MANY = 20


def _with_parents(own: Sequence[Parameter], parameters: Sequence[Parameter]) -> list[Parameter]:
    """Return parameters and all that their conditions name, directly or not."""
    by_name = {p.name: p for p in parameters}
    wanted = {p.name: p for p in own}
    for parameter in (found := list(own)):
        for condition in parameter.conditions:
            if condition.parent not in wanted:
                wanted[condition.parent] = by_name[condition.parent]
                found.append(by_name[condition.parent])
    return found
