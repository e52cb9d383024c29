"""The laws of a space that lists its configurations itself: of each, and of all together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuning.config import FLAT_OF, LAWS, field_value, key_of, value_at
from tuning.documents import Key
from tuning.errors import ConfigError
from tuning.files import sha256_of_json
from tuning.ranking import short
from tuning.search_space import CANDIDATES, RANGES, SearchSpace, legal_configuration

Broken = tuple[Key, str]
"""A key of the space, and what is wrong with it."""

NO_PARAMETERS = {
    "training_config.seed": "seeds are repetitions; use replicates and the study's --seed",
    "experiment_name": "every trial gets its own name",
    "timestamp": "it is set at creation",
}
"""Keys that no space varies, and what to do instead."""

LISTED = "configurations"
"""The key of a space below which the list stands."""


def broken_configurations(space: SearchSpace) -> Iterator[Broken]:
    """Yield what is wrong with single listed configurations, and what does not go with a list."""
    for name, given in (
        (CANDIDATES, space.candidates),
        (RANGES, space.ranges),
        ("conditions", space.conditions),
    ):
        if given:
            yield (name,), f"does not go with strategy listed, whose {LISTED} hold every value"
    for index, configuration in enumerate(space.configurations):
        place: Key = (LISTED, index)
        if not configuration:
            yield place, "names no hyperparameter; the default is trained anyway"
        seen: dict[str, str] = {}
        for name, value in configuration.items():
            yield from _broken_value((*place, name), name, value, seen)


def _broken_value(place: Key, name: str, value: Any, seen: dict[str, str]) -> Iterator[Broken]:
    """Yield what is wrong with one value of a listed configuration; add its key to those seen."""
    try:
        key = key_of(name)
        if key in NO_PARAMETERS:
            yield place, f"is no hyperparameter: {NO_PARAMETERS[key]}"
        elif key in seen:
            yield place, f"is given twice, here and as {seen[key]}"
        else:
            field_value(key, value)
        seen[key] = name
    except ConfigError as error:
        yield place, str(error).removeprefix(f"{name}: ")


def broken_twins(space: SearchSpace, raw: Mapping[str, Any]) -> Iterator[Broken]:
    """Yield listed configurations that are another one again; those equal to the default may be."""
    seen: dict[str, int] = {}
    for index, configuration in enumerate(space.configurations):
        legal = legal_configuration(configuration)
        own = {key: value for key, value in legal.items() if value != value_at(raw, key)}
        first = seen.setdefault(sha256_of_json(own), index)
        if own and first != index:
            pairs = (f"{FLAT_OF.get(key, key)}={short(value)}" for key, value in own.items())
            yield (LISTED, index), f"is the same as {LISTED}.{first}: {', '.join(pairs)}"


def broken_together(space: SearchSpace, raw: Mapping[str, Any]) -> Iterator[Broken]:
    """Yield listed configurations whose values are legal by themselves and together break a law."""
    for index, configuration in enumerate(space.configurations):
        own = legal_configuration(configuration)
        for law in LAWS:
            if own.keys().isdisjoint(law.keys):
                continue
            values = (own[key] if key in own else value_at(raw, key) for key in law.keys)
            message = law.broken_by(*values)
            if message is not None:
                yield (LISTED, index), message
