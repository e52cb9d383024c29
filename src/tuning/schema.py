"""What a pydantic model says of its fields, in words; and laws over several fields.

Knows nothing of experiments: `config.py` has the sections, `search_space.py` the file of a space.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, ClassVar, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from tuning.documents import MISSING
from tuning.errors import nearest, shown


def number_of(value: Any) -> Any:
    """Read what YAML 1.1 takes for text, such as 1e-4, and refuse truth values."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, got {value}")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError(f"must be a number, got {shown(value)}") from None
    if not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {shown(value)}")
    return value


def _plain(value: str) -> str:
    if "${" in value:
        raise ValueError(f"interpolations such as ${{...}} are not resolved, got {shown(value)}")
    if value == MISSING:
        raise ValueError(f"must be given: {MISSING} leaves it open")
    return value


Number = Annotated[float, BeforeValidator(number_of), Field(allow_inf_nan=False)]
Rate = Annotated[Number, Field(ge=0, le=1)]
Steps = Annotated[int, Field(ge=1, le=10_000_000, strict=True)]
Size = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(min_length=1), AfterValidator(_plain)]


class Law(NamedTuple):
    """A rule over several values."""

    keys: tuple[str, ...]
    """Dotted keys below the section that states the law; the first one is blamed."""
    broken_by: Callable[..., str | None]
    """Takes the values of the keys; returns what is wrong with them, or None."""


class Section(BaseModel):
    """A part of a configuration: frozen, and closed to names that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    laws: ClassVar[tuple[Law, ...]] = ()

    @model_validator(mode="after")
    def _laws_hold(self) -> Self:
        for law in self.laws:
            message = law.broken_by(*(_attribute(self, key) for key in law.keys))
            if message is not None:
                raise PydanticCustomError("law", "{message}", {"message": message})
        return self


def _attribute(section: BaseModel, key: str) -> Any:
    return functools.reduce(getattr, key.split("."), section)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted key and the field of every value of a model, sections opened."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def all_laws(model: type[Section], prefix: str = "") -> Iterator[Law]:
    """Yield the laws of a model and of its sections, with whole dotted keys."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from all_laws(field.annotation, f"{prefix}{name}.")
    for law in model.laws:
        yield law._replace(keys=tuple(prefix + key for key in law.keys))


def adapter_of(field: FieldInfo) -> TypeAdapter[Any]:
    """Return what validates a value by its field alone."""
    kind: Any = field.annotation
    return TypeAdapter(Annotated[kind, *field.metadata] if field.metadata else kind)


def schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return the JSON schema of a field's values, null left out."""
    schema = adapter.json_schema()
    schema = schema.get("$defs", {}).get(str(schema.get("$ref", "")).rsplit("/", 1)[-1], schema)
    kinds = (kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null")
    return dict(next(kinds))


def law_in_words(field: FieldInfo, schema: dict[str, Any]) -> str:
    """Return what a field takes, such as ``integer in [1, 1024]``."""
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))

    def bound(constraint: str, keyword: str) -> int | float | None:
        # The schema has it, or the constraint that the schema lost it to.
        held = (getattr(meta, constraint, None) for meta in field.metadata)
        found = next((value for value in held if value is not None), schema.get(keyword))
        return found if found is None or isinstance(found, int) else float(found)

    low, high = bound("ge", "minimum"), bound("le", "maximum")
    above, below = bound("gt", "exclusiveMinimum"), bound("lt", "exclusiveMaximum")
    left = f"[{low}" if low is not None else f"({above}" if above is not None else "("
    right = f"{high}]" if high is not None else f"{below})" if below is not None else ")"
    bounds = f" in {left}, {right}" if (left, right) != ("(", ")") else ""
    names = {"boolean": "true or false", "string": "text", "array": "list of text"}
    return names.get(schema["type"], str(schema["type"])) + bounds


def law_of_error(error: Any) -> str:
    """Return what is wrong in an error of pydantic, without its place."""
    if error["input"] == MISSING:
        return f"must be given: {MISSING} leaves it open"
    law = error["msg"].removeprefix("Value error, ")
    if error["type"] in ("value_error", "law"):
        return str(law)
    if error["type"] == "missing":
        return "must be given"
    if error["type"] == "int_type" and isinstance(error["input"], float):
        return f"must be an integer, written without point or exponent, got {error['input']!r}"
    if error["type"] == "enum":
        known = [name.strip("'") for name in re.split(r", | or ", error["ctx"]["expected"])]
        hint = nearest(str(error["input"]), known)
        # The law has named all of them.
        hint = f"; {hint}" if hint.startswith("did you mean") else ""
        return f"must be {error['ctx']['expected']}, got {shown(error['input'])}{hint}"
    law = _SHOULD.sub("must ", law).partition(" after validation")[0].partition(" or instance")[0]
    for theirs, ours in _WORDS.items():
        law = law.replace(theirs, ours)
    return f"{law[0].lower()}{law[1:]}, got {shown(error['input'])}"


_WORDS = {
    "be a valid i": "be an i",
    "be a valid ": "be a ",
    "dictionary": "mapping",
    "tuple": "list",
}
"""What pydantic says in words of Python, and what a file's author calls it."""

_SHOULD = re.compile(r"^[A-Z][a-z]+ should ")
