"""Configurations laid on top of each other: inheritance, groups and overrides, by Hydra.

Hydra decides which files take part, in which order, and how an override is read. Its files come
through a source of ours, so that each is checked before anything is expanded, and so that we know
on which line of which file a value stands.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose, initialize
from hydra.core.config_store import ConfigStore
from hydra.core.default_element import ResultDefault
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tuning.config import FLAT_NAMES, KEYS, ExperimentConfig, build
from tuning.documents import SUFFIXES, Document, Key, read_document
from tuning.errors import ConfigError, nearest, shown
from tuning.inheritance import SPACES, Inheritance, choices, document_at, found, group_names
from tuning.paths import checked_name, shipped_config_dir

_PRIMARY = "tuning_primary"


class _CheckedSource(ConfigSource):
    """A folder of configurations, read by `documents.py`."""

    @staticmethod
    def scheme() -> str:
        return "tuning"

    def load_config(self, config_path: str) -> ConfigResult:
        path = found([Path(self.path)], config_path)
        if path is None:
            raise ConfigLoadError(f"{config_path} is not in {self.path}")
        document = document_at(path)
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
        return found([Path(self.path)], config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        return choices([Path(self.path)], config_path)


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
            if value.sets(key):
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
        path = found(self.folders, default.config_path or "")
        return (document_at(path), package) if path is not None else None


def _below(package: Key, key: Key) -> Key | None:
    return key[len(package) :] if key[: len(package)] == package else None


class _Value(NamedTuple):
    """An override of one key."""

    text: str
    """As the user wrote it."""
    key: Key
    hydra: str
    """As Hydra takes it, whether or not the key is there already."""
    value: Any

    def sets(self, key: Key) -> bool:
        """Whether the override gives this key, or a part of it, its value."""
        depth = min(len(self.key), len(key))
        if self.key[:depth] != key[:depth]:
            return False
        inner = self.value
        for part in key[depth:]:
            if not isinstance(inner, dict) or part not in inner:
                # A text is no section, so all below it is of the override too.
                return not isinstance(inner, dict)
            inner = inner[part]
        return True


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
    inheritance = Inheritance(folders, groups)
    inheritance.follow(primary)
    # A choice that some file makes is replaced; else the group is laid on top.
    group_overrides = tuple(
        f"{'' if group in inheritance.chosen else '+'}{group}={_quoted(choice)}"
        for group, choice in groups.items()
    )
    with _hydra(primary.data, folders) as search_path:
        every = [search_path, *group_overrides, *(value.hydra for value in values)]
        try:
            composed = compose(_PRIMARY, overrides=every)
        except (HydraException, OmegaConfBaseException, ValueError, TypeError) as error:
            says = _says(error).replace(_PRIMARY, primary.name)
            reason = inheritance.conflict() or f"{primary.name}: cannot be composed: {says}"
            raise ConfigError(reason) from error
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
    """Have Hydra know a primary configuration; yields the override that names our folders.

    What another program in this process has told Hydra is as before afterwards.
    """
    singleton = GlobalHydra.instance()
    outer, singleton.hydra = singleton.hydra, None
    stored = ConfigStore.instance().repo
    try:
        with warnings.catch_warnings(), initialize(None, job_name="tuning", version_base="1.3"):
            # That a file does not say where it stands itself is no mistake: it comes last.
            warnings.simplefilter("ignore", UserWarning)
            ConfigStore.instance().store(_PRIMARY, OmegaConf.create(dict(primary)))
            paths = ",".join(_quoted(f"{_CheckedSource.scheme()}://{f}") for f in folders)
            yield f"hydra.searchpath=[{paths}]"
    finally:
        stored.pop(f"{_PRIMARY}.yaml", None)
        # Hydra puts another object into the place of its singleton.
        GlobalHydra.instance().hydra = outer


def _quoted(text: str) -> str:
    quoted: str = QuotedString(text, Quote.single).with_quotes()
    return quoted


def _says(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- overrides --------------------------------------------------------------------------------


def _sorted_overrides(
    overrides: Sequence[str], folders: Sequence[Path]
) -> tuple[dict[str, str], list[_Value]]:
    """Return the overrides of groups, the last of each, and those of values."""
    groups: dict[str, str] = {}
    values = []
    names = group_names(folders)
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
        if key in names and key not in _NO_GROUPS:
            # The last choice of a group counts, and lies on top of groups named before.
            groups.pop(key, None)
            groups[key] = checked_name(value.strip(), key)
        else:
            values.append(_value_override(text, key, value, names))
    return groups, values


_NO_GROUPS = {*ExperimentConfig.model_fields, *FLAT_NAMES}
"""A folder of such a name is no group: its key is what an override means."""


def _value_override(text: str, key: str, value: str, groups: Sequence[str]) -> _Value:
    whole = FLAT_NAMES.get(key, key)
    if whole.split(".")[0] not in ExperimentConfig.model_fields:
        # The bare name of a key in some section is more likely meant than what looks like it.
        bare = [k for k in KEYS if k.endswith(f".{key}")]
        known = [*FLAT_NAMES, *ExperimentConfig.model_fields, *groups, *KEYS]
        hint = f"did you mean {' or '.join(bare)}?" if bare else nearest(key, known)
        raise ConfigError(f"{shown(key)[1:-1]}: no such hyperparameter, key or group; {hint}")
    hydra = f"++{whole}={value}"
    parsed = _parsed(text, hydra)
    if parsed.is_sweep_override():
        raise ConfigError(
            f"override {shown(text)} names several values; to search over them put "
            f"{key}: [{value}] into HPARAM_CANDIDATES of a search space"
        )
    return _Value(text, tuple(whole.split(".")), hydra, parsed.value())


def _parsed(text: str, hydra: str) -> Override:
    try:
        return OverridesParser.create().parse_override(hydra)
    except (HydraException, ValueError, RecursionError) as error:
        reason = _says(error).partition(" See https")[0]
        raise ConfigError(
            f"override {shown(text)} cannot be read: {reason}; "
            f"put a value with special characters into quotes: {text.partition('=')[0]}=\"'...'\""
        ) from error


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
    is_experiment = bool(set(composed.data) & set(ExperimentConfig.model_fields))
    if not is_experiment and any(str(key).startswith(_OF_SPACES) for key in composed.data):
        raise ConfigError(
            f"{path}: is a search space, not a configuration; try it with "
            f"tuning study run --space {path} --dry-run"
        )
    return build(composed.data, composed.place)


_OF_SPACES = "HPARAM_"


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
