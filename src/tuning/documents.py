"""YAML and JSON files that people write: read strictly, with the line of every key.

Nothing is expanded before it is known to be small: a file has a largest size, depth and, with its
anchors written out, number of values. Interpolations are refused, for they could copy a secret
from the environment into a configuration.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tuning.errors import ConfigError, NotFoundError, UserError, nearest, shown
from tuning.files import MAX_NUMBER, RepeatedKeyError, unique_keys, whole_number

MISSING = "???"
"""Hydra's sign for a value that a file leaves to those who use it."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
MAX_KEY = 128
MAX_VALUES = 30_000
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"

Key = tuple[str | int, ...]
"""Where a value stands: the keys and list indexes that lead to it."""


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds, and where."""

    name: str
    """The file as messages call it."""
    data: dict[str, Any]
    lines: Mapping[Key, int] = field(default_factory=dict)
    """Line, from 1, of each key and list item."""
    package: str = "_global_"
    """Where Hydra puts it; a first line ``# @package lora_config`` changes it."""

    def place(self, key: Key) -> str:
        """Return file and line of a key, or of what holds it where it is not written itself."""
        for end in range(len(key), 0, -1):
            if key[:end] in self.lines:
                return f"{self.name}, line {self.lines[key[:end]]}"
        return self.name


# --- what YAML means here -----------------------------------------------------------------------

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$")
_FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?$"
    r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
)
"""Numbers as YAML 1.2 has them. YAML 1.1 takes 1e-4 for text, 0200 for 128 and 1:30 for 90."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Plain data only; a date is text."""


class _OwnLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """What `yaml.safe_dump` wrote."""


class _Dumper(yaml.SafeDumper):
    """Puts into quotes every text that a loader could take for something else."""


_OTHERWISE = [f"tag:yaml.org,2002:{kind}" for kind in ("timestamp", "int", "float")]
_Loader.yaml_implicit_resolvers = {
    first: [(tag, law) for tag, law in laws if tag not in _OTHERWISE]
    for first, laws in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
# The dumper keeps what YAML 1.1 says too, so that other readers understand a file as we do.
for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
    _class.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as YAML, keys in their order."""
    return yaml.dump(dict(data), Dumper=_Dumper, sort_keys=False)


def one_line(name: str, value: Any) -> str:
    """Return ``name: value`` as YAML on a single line."""
    if isinstance(value, list):
        return f"{name}: {_dumped(value, flow=True)}"
    text = _dumped({name: value}, flow=False)
    # A text of several lines is one line as JSON writes it, which is YAML too.
    return f"{name}: {json.dumps(value)}" if "\n" in text else text


def _dumped(value: Any, *, flow: bool) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=flow, width=math.inf, allow_unicode=True
    )
    return text.rstrip("\n")


MAX_OWN_VALUES = 1_000_000
"""Of a file that the program wrote, such as a study of many listed configurations."""


def parse_own_yaml(text: str, name: str) -> Any:
    """Return the value of a YAML text that the program wrote, as every reader of YAML 1.1 does.

    It is bounded as a user's file is: a folder of results may come from someone else.

    Raises:
        ConfigError: As `parse_yaml`.
    """
    return parse_yaml(text, name, _OwnLoader, MAX_OWN_VALUES)[0]


def parse_yaml(
    text: str, name: str, kind: type = _Loader, max_values: int = MAX_VALUES
) -> tuple[Any, dict[Key, int]]:
    """Return the value of a YAML text and the line of each key.

    Args:
        text: YAML.
        name: The file as messages call it.
        kind: What a plain value means.
        max_values: With anchors written out.

    Raises:
        ConfigError: It is not YAML, is too large or deep, has a key twice, or holds what is no
            plain data.
    """
    loader = kind(text)
    try:
        _check_depth(text, name, max_values)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        _check_nodes(node, name, max_values)
        value = loader.construct_document(node)
    except UserError:
        raise
    except yaml.MarkedYAMLError as error:
        mark: Any = error.problem_mark
        # What is missing at the end is missed on the last line, not after it.
        line = f", line {min(mark.line, text.rstrip().count(chr(10))) + 1}" if mark else ""
        raise ConfigError(f"{name}{line}: not YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        # A tag on a value that it does not fit, such as !!bool x.
        raise ConfigError(f"{name}: cannot be read: {_first_line(error)}") from error
    finally:
        loader.dispose()
    return value, dict(_lines(node, ()))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def _check_depth(text: str, name: str, max_values: int) -> None:
    """Refuse a text that is nested too deeply or endless, before anything is made of it."""
    depth = values = 0
    for event in yaml.parse(text, Loader=_Loader):
        depth += isinstance(event, _OPENING) - isinstance(event, _CLOSING)
        values += isinstance(event, yaml.NodeEvent)
        if values > max_values:
            raise ConfigError(f"{name}: must hold at most {max_values:,} values")
        if depth > MAX_DEPTH:
            mark: Any = event.start_mark
            line = mark.line + 1
            raise ConfigError(f"{name}, line {line}: {_TOO_DEEP}")


def _check_nodes(root: yaml.Node, name: str, max_values: int) -> None:
    """Refuse repeated keys, keys that are no text, and anchors that would explode."""
    sizes: dict[int, int] = {}
    open_nodes: set[int] = set()

    def size(node: yaml.Node) -> int:
        if id(node) in open_nodes:
            raise ConfigError(f"{_at(name, node)}: an anchor holds itself")
        if id(node) not in sizes:
            open_nodes.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _check_keys(node, name)
            if node.tag in _NUMBER_TAGS and len(node.value) > MAX_NUMBER:
                # Its digits would be turned into a number in the square of their count.
                raise ConfigError(f"{_at(name, node)}: a number has at most {MAX_NUMBER} digits")
            sizes[id(node)] = 1 + sum(size(child) for child in _children(node))
            open_nodes.remove(id(node))
        return sizes[id(node)]

    if size(root) > max_values:
        raise ConfigError(
            f"{name}: must hold at most {max_values:,} values with its anchors written out, "
            f"got {size(root):,}"
        )


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _check_keys(node: yaml.MappingNode, name: str) -> None:
    seen = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag not in _KEY_TAGS:
            written = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
            raise ConfigError(f"{_at(name, key)}: a key must be text, got {written}")
        if key.value in seen:
            raise ConfigError(f"{_at(name, key)}: the key {shown(key.value)} stands twice")
        seen.add(key.value)


_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_KEY_TAGS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")


def _at(name: str, node: yaml.Node) -> str:
    return f"{name}, line {node.start_mark.line + 1}"


def _lines(node: yaml.Node, place: Key) -> Iterator[tuple[Key, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1
            yield from _lines(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*place, index), value.start_mark.line + 1
            yield from _lines(value, (*place, index))


# --- files ------------------------------------------------------------------------------------


def read_document(path: Path) -> Document:
    """Read a YAML or JSON file that must hold a mapping.

    Raises:
        NotFoundError: There is no such file.
        ConfigError: It cannot be read, is no mapping, has a key twice, or is too large.
    """
    name = str(path)
    text = _text(path)
    if path.suffix == ".json":
        value, lines = _parse_json(text, name)
    else:
        value, lines = parse_yaml(text, name)
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise ConfigError(f"{name}: must hold a mapping of sections, got {found}")
    document = Document(name, value, lines, _package(text))
    _check_values(document, value, ())
    return document


def _text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            # A pipe without a writer would be waited for without end.
            raise ConfigError(f"{path}: is no file, but a pipe or a device")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except IsADirectoryError as error:
        raise ConfigError(f"{path}: is a folder, not a configuration file") from error
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: no such file{_neighbours(path)}") from error
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{shown(str(path))}: cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: a configuration must have at most {MAX_BYTES:,} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: is not UTF-8 text") from error


def _neighbours(path: Path) -> str:
    siblings: list[str] = []
    if path.parent.is_dir():
        siblings = [p.name for p in path.parent.iterdir() if p.suffix in SUFFIXES]
    return f"; {nearest(path.name, siblings)}" if siblings else ""


SUFFIXES = (".yaml", ".yml", ".json")
"""Endings of configuration files."""


def _parse_json(text: str, name: str) -> tuple[Any, dict[Key, int]]:
    try:
        value = json.loads(text, object_pairs_hook=unique_keys, parse_int=whole_number)
    except RepeatedKeyError as error:
        raise ConfigError(f"{name}: {error}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{name}, line {error.lineno}: not JSON: {error.msg}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: {_TOO_DEEP}") from error
    except ValueError as error:
        raise ConfigError(f"{name}: cannot be read: {_first_line(error)}") from error
    if _is_endless(value):
        raise ConfigError(f"{name}: must hold at most {MAX_VALUES:,} values")
    try:
        # JSON is YAML but for tabs, which stand only between its values, and surrogate pairs. What
        # is no YAML all the same costs a message its line.
        return value, parse_yaml(_SURROGATE.sub("_", text.replace("\t", " ")), name)[1]
    except ConfigError:
        return value, {}


def _is_endless(value: Any) -> bool:
    """Whether a value holds more values than a configuration may; keys count as YAML's do."""
    left, count = [value], 0
    while left and count <= MAX_VALUES:
        inner = left.pop()
        count += 1 + (len(inner) if isinstance(inner, dict) else 0)
        if isinstance(inner, dict | list):
            left.extend(inner.values() if isinstance(inner, dict) else inner)
    return count > MAX_VALUES


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


_PACKAGE = re.compile(r"#\s*@package\s+(\S+)\s*")


def _package(text: str) -> str:
    found = _PACKAGE.fullmatch(text.split("\n", 1)[0].strip())
    return found[1] if found else "_global_"


def _check_values(document: Document, value: Any, place: Key) -> None:
    """Refuse what is no plain data, and interpolations."""
    if isinstance(value, dict | list) and len(place) >= MAX_DEPTH:
        raise ConfigError(f"{document.place(place)}: {_TOO_DEEP}")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_text(document, key, (*place, key))
            _check_values(document, inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _check_values(document, inner, (*place, index))
    elif isinstance(value, str):
        _check_text(document, value, place)
    elif not isinstance(value, bool | int | float | None):
        raise ConfigError(
            f"{document.place(place)}: {dotted(place)}: must be plain data, "
            f"got {type(value).__name__}"
        )


def _check_text(document: Document, text: str, place: Key) -> None:
    is_key = len(place) > 0 and text == place[-1]
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{document.place(place)}: holds what is no Unicode text") from error
    # A message names keys as they are.
    if is_key and not text.isprintable():
        raise ConfigError(f"{document.place(place)}: a key must be one line, got {shown(text)}")
    if is_key and len(text) > MAX_KEY:
        raise ConfigError(
            f"{document.place(place)}: a key has at most {MAX_KEY} characters, got {shown(text)}"
        )
    if "${" in text:
        raise ConfigError(
            f"{document.place(place)}: {dotted(place)}: interpolations such as ${{...}} are not "
            f"resolved, so that no secret of the environment gets into a file; got {shown(text)}"
        )


def dotted(place: Key) -> str:
    """Return a key as people write it, such as ``lora_config.r``."""
    return ".".join(str(part) for part in place)
