"""Configurations laid on top of each other: inheritance, groups and overrides, by Hydra.

Hydra decides which files take part, in which order, and how an override is read. Its files come
through a source of ours, so that each is checked before anything is expanded, and so that we know
on which line of which file a value stands.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tuning.config import FLAT_NAMES, KEYS, ExperimentConfig, build
from tuning.documents import SUFFIXES, Document, Key, read_document
from tuning.errors import ConfigError, NotFoundError, UserError, nearest, shown
from tuning.paths import checked_name, shipped_config_dir

SPACES = "search_spaces"
"""The folder that is no group of experiments."""

_PRIMARY = "primary"


class _CheckedSource(ConfigSource):
    """A folder of configurations, read by `documents.py`."""

    @staticmethod
    def scheme() -> str:
        return "tuning"

    def load_config(self, config_path: str) -> ConfigResult:
        path = _file(Path(self.path), config_path)
        if path is None:
            raise ConfigLoadError(f"{config_path} is not in {self.path}")
        document = _document(path, _stamp(path))
        return ConfigResult(
            provider=self.provider,
            path=self.full_path(),
            config=OmegaConf.create(document.data),
            header={"package": document.package},
        )

    def available(self) -> bool:
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path != SPACES and (Path(self.path) / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        return _file(Path(self.path), config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        folder = Path(self.path) / config_path
        return sorted({path.stem for path in folder.iterdir() if path.suffix in SUFFIXES})


def _file(folder: Path, config_path: str) -> Path | None:
    """Return the file of a configuration in one folder; none outside it is found."""
    if ".." in PurePosixPath(config_path).parts:
        return None
    bare = config_path.removesuffix(".yaml")
    candidates = (folder / f"{bare}{suffix}" for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


@functools.lru_cache(maxsize=256)
def _document(path: Path, stamp: tuple[int, int]) -> Document:
    return read_document(path)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


Plugins.instance().register(_CheckedSource)


# --- what a composition is --------------------------------------------------------------------


class Origin(NamedTuple):
    """What set a value."""

    place: str
    """File and line, an override, or the schema's default."""
    is_default: bool = False


@dataclass(frozen=True)
class Composition:
    """The outcome of laying files and overrides on top of each other, and where each value is from.

    Validated by nobody yet.
    """

    data: dict[str, Any]
    primary: Document
    folders: tuple[Path, ...]
    group_overrides: tuple[str, ...]
    value_overrides: tuple[_Value, ...]

    def place(self, key: Key) -> str:
        """Return where a key was written: file and line, or the override."""
        return self.origin(key).place

    def origin(self, key: Key) -> Origin:
        """Return what set a key: the last override that did, else the last file."""
        for value in reversed(self.value_overrides):
            depth = min(len(value.key), len(key))
            if value.key[:depth] == key[:depth]:
                return Origin(f"override {shown(value.text)}")
        for length in range(len(key), 0, -1):
            for document, package in reversed(self._layers):
                inner = _below(package, key[:length])
                if inner is not None and inner in document.lines:
                    return Origin(document.place(inner), is_default=length < len(key))
        return Origin(self.primary.name, is_default=True)

    @functools.cached_property
    def _layers(self) -> list[tuple[Document, Key]]:
        """The documents that took part, the lowest first, each with the keys that it hangs off."""
        with _hydra(self.primary.data, self.folders) as search_path:
            loader = GlobalHydra.instance().config_loader()
            overrides = [search_path, *self.group_overrides]
            ordered = loader.compute_defaults_list(_PRIMARY, overrides, RunMode.RUN).defaults
        return [layer for default in ordered if (layer := self._layer(default)) is not None]

    def _layer(self, default: ResultDefault) -> tuple[Document, Key] | None:
        package = tuple(default.package.split(".")) if default.package else ()
        if default.primary:
            return self.primary, package
        found = _found(self.folders, default.config_path or "")
        return (_document(found, _stamp(found)), package) if found is not None else None


def _below(package: Key, key: Key) -> Key | None:
    return key[len(package) :] if key[: len(package)] == package else None


def _found(folders: Sequence[Path], config_path: str) -> Path | None:
    return next((f for folder in folders if (f := _file(folder, config_path))), None)


class _Value(NamedTuple):
    """An override of one key."""

    text: str
    """As the user wrote it."""
    key: Key
    hydra: str
    """As Hydra takes it, whether or not the key is there already."""


# --- composing --------------------------------------------------------------------------------


def compose_document(
    primary: Document,
    overrides: Sequence[str] = (),
    config_dirs: Sequence[Path] = (),
    beside: Path | None = None,
) -> Composition:
    """Lay what a document inherits, the document, and overrides on top of each other.

    Args:
        primary: Its key ``defaults`` lists what it inherits, as Hydra's does.
        overrides: ``key=value``: a dotted key, a flat hyperparameter name, or a group such as
            ``models=tiny``; a later one wins.
        config_dirs: Folders that are searched before the shipped one, the first one first.
        beside: The folder that is searched before all others.

    Raises:
        NotFoundError: What is inherited, or a group's file, does not exist.
        ConfigError: A file or an override cannot be read.
    """
    folders = _folders([*([beside] if beside is not None else []), *config_dirs])
    groups, values = _sorted_overrides(overrides, folders)
    group_overrides = tuple(
        _group_override(primary, name, choice) for name, choice in groups.items()
    )
    with _hydra(primary.data, folders) as search_path:
        every = [search_path, *group_overrides, *(value.hydra for value in values)]
        try:
            composed = compose(_PRIMARY, overrides=every)
        except MissingConfigException as error:
            raise _missing(primary, error, folders) from error
        except RecursionError as error:
            raise ConfigError(_cycle(primary, folders)) from error
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise ConfigError(f"{primary.name}: cannot be composed: {_first(error)}") from error
    data = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(data, dict)
    return Composition(
        {str(key): value for key, value in data.items()},
        primary,
        folders,
        group_overrides,
        tuple(values),
    )


def _folders(own: Sequence[Path]) -> tuple[Path, ...]:
    """Return the folders to search, each once, ours last."""
    every = (folder.absolute() for folder in (*own, shipped_config_dir()))
    return tuple(dict.fromkeys(folder for folder in every if folder.is_dir()))


@contextlib.contextmanager
def _hydra(primary: Mapping[str, Any], folders: Sequence[Path]) -> Iterator[str]:
    """Have Hydra know a primary configuration; yields the override that names our folders."""
    with initialize(config_path=None, job_name="tuning", version_base="1.3"):
        ConfigStore.instance().store(_PRIMARY, OmegaConf.create(dict(primary)))
        try:
            quoted = ",".join(_quoted(f"{_CheckedSource.scheme()}://{f}") for f in folders)
            yield f"hydra.searchpath=[{quoted}]"
        finally:
            ConfigStore.instance().repo.pop(f"{_PRIMARY}.yaml", None)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# --- overrides --------------------------------------------------------------------------------


def _sorted_overrides(
    overrides: Sequence[str], folders: Sequence[Path]
) -> tuple[dict[str, str], list[_Value]]:
    """Return the overrides of groups, the last of each, and those of values."""
    groups: dict[str, str] = {}
    values = []
    for text in overrides:
        key, separator, value = text.partition("=")
        key = key.strip().lstrip("+")
        if not separator or not key:
            hint = "; a file is named with --config" if text.endswith(SUFFIXES) else ""
            raise ConfigError(f"an override must be key=value, got {shown(text)}{hint}")
        if "${" in text:
            raise ConfigError(
                f"override {shown(text)}: interpolations such as ${{...}} are not resolved"
            )
        if key in group_names(folders):
            groups[key] = checked_name(value, key)
        else:
            values.append(_value_override(text, key, value, folders))
    return groups, values


def group_names(folders: Sequence[Path]) -> list[str]:
    """Return the folders that hold partial configurations."""
    found = {path.name for f in folders for path in f.iterdir() if path.is_dir()} - {SPACES}
    return sorted(name for name in found if not name.startswith((".", "_")))


def _value_override(text: str, key: str, value: str, folders: Sequence[Path]) -> _Value:
    whole = FLAT_NAMES.get(key, key)
    if "." not in whole and whole not in ExperimentConfig.model_fields:
        known = [*FLAT_NAMES, *ExperimentConfig.model_fields, *group_names(folders), *KEYS]
        raise ConfigError(f"{key}: no such hyperparameter, key or group; {nearest(key, known)}")
    hydra = f"++{whole}={value}"
    parsed = _parsed(text, hydra)
    if parsed.is_sweep_override():
        raise ConfigError(
            f"override {shown(text)} names several values; to search over them put "
            f"{key}: [{value}] into HPARAM_CANDIDATES of a search space"
        )
    return _Value(text, tuple(whole.split(".")), hydra)


def _parsed(text: str, hydra: str) -> Override:
    try:
        return OverridesParser.create().parse_override(hydra)
    except (HydraException, ValueError, RecursionError) as error:
        raise ConfigError(
            f"override {shown(text)} cannot be read: {_first(error)}; "
            f"put a value with special characters into quotes: {text.partition('=')[0]}=\"'...'\""
        ) from error


def _group_override(primary: Document, group: str, choice: str) -> str:
    """Replace the choice of a document that inherits from the group; else lay it on top."""
    inherits = primary.data.get("defaults")
    chosen = isinstance(inherits, list) and any(
        isinstance(entry, dict) and group in (key.split()[-1].strip("/") for key in entry)
        for entry in inherits
    )
    return f"{'' if chosen else '+'}{group}={choice}"


# --- what can be wrong with inheritance ----------------------------------------------------------


def _missing(
    primary: Document, error: MissingConfigException, folders: Sequence[Path]
) -> NotFoundError:
    wanted = str(error.missing_cfg_file or "").strip("/")
    group, _, name = wanted.rpartition("/")
    known = sorted(
        {
            path.stem
            for folder in folders
            if (folder / group).is_dir()
            for path in (folder / group).iterdir()
            if path.suffix in SUFFIXES
        }
    )
    what = f"{group}={name}" if group else name
    return NotFoundError(
        f"{primary.place(('defaults',))}: {what}: no such configuration; {nearest(name, known)}"
    )


def _cycle(primary: Document, folders: Sequence[Path]) -> str:
    """Say through which files the inheritance leads back to where it came from."""
    trail: list[str] = []

    def walk(document: Document, group: str) -> bool:
        if document.name in trail:
            trail.append(document.name)
            return True
        trail.append(document.name)
        for child in _inherited(document, group):
            found = _found(folders, child)
            if found is not None:
                below = str(PurePosixPath(child).parent).removeprefix(".")
                if walk(_document(found, _stamp(found)), below):
                    return True
        trail.pop()
        return False

    return (
        f"{primary.place(('defaults',))}: defaults lead back to themselves: {' -> '.join(trail)}"
        if walk(primary, "")
        else f"{primary.name}: inherits through too many files"
    )


def _inherited(document: Document, group: str) -> Iterator[str]:
    entries = document.data.get("defaults")
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, str) and entry != "_self_":
            parts = [("", entry)]
        elif isinstance(entry, dict):
            parts = [(key.split()[-1], str(value)) for key, value in entry.items()]
        else:
            parts = []
        for key, name in parts:
            path = f"{key}/{name}" if key else name
            relative = f"{group}/{path}" if group else path
            yield path.lstrip("/") if path.startswith("/") else relative


# --- experiments --------------------------------------------------------------------------------


def load(
    path: Path, overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()
) -> ExperimentConfig:
    """Read an experiment's configuration: what it inherits, itself, and overrides on top.

    Args:
        path: YAML or JSON file.
        overrides: As `compose_document` takes them.
        config_dirs: Folders that are searched before the shipped one.

    Raises:
        NotFoundError: The file, or one that it names, does not exist.
        ConfigError: A law is broken; all such are reported together.
    """
    composed = compose_file(path, overrides, config_dirs)
    return build(composed.data, composed.place)


def compose_file(
    path: Path, overrides: Sequence[str] = (), config_dirs: Sequence[Path] = ()
) -> Composition:
    """Read a file and compose it, as `load` does, without validating.

    Raises:
        NotFoundError: The file, or one that it names, does not exist.
        ConfigError: A file or an override cannot be read.
    """
    return compose_document(read_document(path), overrides, config_dirs, path.parent)


def overridden(
    config: ExperimentConfig, overrides: Sequence[str], config_dirs: Sequence[Path] = ()
) -> ExperimentConfig:
    """Return `config` with overrides on top.

    Raises:
        NotFoundError: A group's file does not exist.
        ConfigError: A law is broken.
    """
    if not overrides:
        return config
    document = Document(" ".join(overrides), config.model_dump(mode="json"))
    composed = compose_document(document, overrides, config_dirs)
    return build(composed.data, composed.place)
