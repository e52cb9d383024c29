"""Which files a configuration inherits from: found, checked, and free of circles.

Hydra composes what is named here. It is looked at first, so that a mistake is told with the line
that makes it, and so that nothing outside the folders of configurations is ever read.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tuning.documents import MISSING, SUFFIXES, Document, dotted, read_document
from tuning.errors import ConfigError, NotFoundError, nearest, shown

SPACES = "search_spaces"
"""The folder that is no group of experiments."""

NO_CHOICES = {"lightning": {"studio", "phases", "scheduler", "prices"}}
"""Files of the cloud that stand in a group, and are no configurations of an experiment."""

MAX_FOLLOWED = 256
"""Files that a configuration inherits, each as often as it is named."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_PATH = rf"{_NAME}(?:/{_NAME}){{0,7}}"
_PACKAGE = r"(?:@[A-Za-z0-9_.]{1,128})?"
_FILE = re.compile(rf"(?P<root>/?)(?P<path>{_PATH}){_PACKAGE}")
_GROUP = re.compile(rf"(?:(?P<how>optional|override) +)?(?P<root>/?)(?P<path>{_PATH}){_PACKAGE}")


# --- files ------------------------------------------------------------------------------------


def found(folders: Sequence[Path], config_path: str) -> Path | None:
    """Return the file of a configuration, in the first folder that has it.

    Args:
        folders: Searched in order.
        config_path: Names joined by ``/``, as `_PATH` has them; anything else is not found.
    """
    if not re.fullmatch(_PATH, config_path) or config_path.split("/")[0] == "hydra":
        return None
    bare = config_path.removesuffix(".yaml")
    candidates = (folder / f"{bare}{suffix}" for folder in folders for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def document_at(path: Path) -> Document:
    """Return a partial configuration, read once as long as the file stays the same.

    Raises:
        ConfigError: It cannot be read, or speaks to Hydra itself.
    """
    status = path.stat()
    return _document(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=256)
def _document(path: Path, modified: int, size: int) -> Document:
    document = read_document(path)
    check_is_ours(document)
    return document


def check_is_ours(document: Document) -> None:
    """Refuse what would change Hydra's own settings: they are ours, not a configuration's.

    Raises:
        ConfigError: The document has a section ``hydra``, or a package of that name.
    """
    if "hydra" in document.data or document.package.split(".")[0] == "hydra":
        raise ConfigError(
            f"{document.place(('hydra',))}: hydra: no such key; Hydra itself is not configured here"
        )


def group_names(folders: Sequence[Path]) -> list[str]:
    """Return the folders that hold partial configurations."""
    inner = {path.name for f in folders for path in f.iterdir() if path.is_dir()} - {SPACES}
    return sorted(name for name in inner if re.fullmatch(_NAME, name))


def choices(folders: Sequence[Path], group: str) -> list[str]:
    """Return the names of the configurations in a group, or beside a file where it is empty."""
    paths = (path for f in folders if (f / group).is_dir() for path in (f / group).iterdir())
    names = {path.stem for path in paths if path.suffix in SUFFIXES}
    return sorted(names - NO_CHOICES.get(group, set()))


# --- references ---------------------------------------------------------------------------------


class Reference(NamedTuple):
    """One entry of a list of defaults."""

    group: str
    """Empty for a file beside the one that names it."""
    choice: str
    place: str
    is_optional: bool = False
    is_choice: bool = True
    """Whether it chooses from a group, so that an override can choose otherwise."""

    @property
    def path(self) -> str:
        """Where the file is below a folder of configurations."""
        return f"{self.group}/{self.choice}" if self.group else self.choice


def references(document: Document, within: str) -> Iterator[Reference]:
    """Yield what a document inherits, in its order.

    Args:
        document: Its key ``defaults``, if it has one.
        within: The group that the document is in; what it names is looked for there.

    Raises:
        ConfigError: An entry has a form that is not one of ours.
    """
    entries = document.data.get("defaults", [])
    if not isinstance(entries, list):
        raise ConfigError(
            f"{document.place(('defaults',))}: defaults: must be a list of files and groups, "
            f"got {shown(entries)}"
        )
    if entries.count("_self_") > 1:
        raise ConfigError(f"{document.place(('defaults',))}: defaults: _self_ stands twice")
    for index, entry in enumerate(entries):
        place = document.place(("defaults", index))
        if entry != "_self_":
            yield from _of_entry(entry, within, place)


def _of_entry(entry: Any, within: str, place: str) -> Iterator[Reference]:
    if isinstance(entry, dict) and len(entry) == 1:
        ((key, chosen),) = entry.items()
        form = _GROUP.fullmatch(key)
        names = chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]
        if form and all(_is_choice(name) for name in names):
            group = _absolute(form, within, place)
            for name in names:
                yield Reference(group, name, place, form["how"] == "optional")
            return
    elif isinstance(entry, str) and (form := _FILE.fullmatch(entry)):
        group, _, name = _absolute(form, within, place).rpartition("/")
        yield Reference(group, name, place, is_choice=False)
        return
    raise ConfigError(
        f"{place}: defaults: an entry must be a file, a group and its choice such as "
        f"models: tiny, or _self_, got {shown(entry)}"
    )


def _is_choice(name: Any) -> bool:
    return isinstance(name, str) and (name == MISSING or bool(re.fullmatch(_PATH, name)))


def _absolute(form: re.Match[str], within: str, place: str) -> str:
    path = form["path"] if form["root"] or not within else f"{within}/{form['path']}"
    if path.split("/")[0] == "hydra":
        raise ConfigError(f"{place}: defaults: Hydra's own configurations are not inherited")
    return path


# --- the whole inheritance ----------------------------------------------------------------------


@dataclass
class Inheritance:
    """The documents that a configuration is made of, found by following every reference."""

    folders: Sequence[Path]
    overridden: Mapping[str, str]
    """Choices made by overrides: group to choice."""
    documents: list[Document] = field(default_factory=list)
    chosen: set[str] = field(default_factory=set)
    """Groups that some document chooses from."""
    num_followed: int = 0

    def follow(self, primary: Document) -> None:
        """Find all documents.

        Raises:
            NotFoundError: A file that is named does not exist.
            ConfigError: A document is damaged, or files inherit from each other in a circle.
        """
        check_is_ours(primary)
        self._visit(primary, "", [])
        for group, choice in self.overridden.items():
            if group not in self.chosen:
                place = f"override {shown(f'{group}={choice}')}"
                self._follow_one(Reference(group, choice, place), [])

    def _visit(self, document: Document, within: str, trail: list[str]) -> None:
        if document not in self.documents:
            self.documents.append(document)
        for reference in references(document, within):
            if reference.is_choice:
                self.chosen.add(reference.group)
            if reference.is_choice and reference.group in self.overridden:
                choice = self.overridden[reference.group]
                place = f"override {shown(f'{reference.group}={choice}')}"
                reference = Reference(reference.group, choice, place)
            self._follow_one(reference, [*trail, document.name])

    def _follow_one(self, reference: Reference, trail: list[str]) -> None:
        self.num_followed += 1
        if self.num_followed > MAX_FOLLOWED:
            # Files that each name the next one twice are read twice as often with each of them.
            raise ConfigError(f"{reference.place}: defaults name more than {MAX_FOLLOWED} files")
        if reference.choice == MISSING:
            raise ConfigError(
                f"{reference.place}: {reference.group}: must be given: {MISSING} leaves it open; "
                f"known: {', '.join(choices(self.folders, reference.group))}"
            )
        path = found(self.folders, reference.path)
        if path is None:
            if not reference.is_optional:
                raise NotFoundError(self._missing(reference))
            return
        document = document_at(path)
        # The file at the top may be named as it was written, and found again by its whole path.
        names = [Path(name).absolute() for name in trail]
        if path.absolute() in names:
            circle = " -> ".join([*trail, document.name])
            raise ConfigError(f"{reference.place}: defaults lead back to themselves: {circle}")
        self._visit(document, reference.path.rpartition("/")[0], trail)

    def _missing(self, reference: Reference) -> str:
        group, name = reference.group, reference.choice
        if group and not any((folder / group).is_dir() for folder in self.folders):
            known = nearest(group, group_names(self.folders))
            return f"{reference.place}: {group}: no such group; {known}"
        what = f"{group}={name}" if group else name
        known = nearest(name, choices(self.folders, group))
        return f"{reference.place}: {what}: no such configuration; {known}"

    def conflict(self) -> str | None:
        """Say where one document has a mapping and another one something else, if they do."""
        kinds: dict[tuple[str | int, ...], tuple[bool, Document]] = {}
        for document in self.documents:
            for key in document.lines:
                is_mapping = isinstance(_value(document.data, key), dict)
                was, other = kinds.setdefault(key, (is_mapping, document))
                if was != is_mapping:
                    wrong, right = (other, document) if is_mapping else (document, other)
                    return (
                        f"{wrong.place(key)}: {dotted(key)}: must be a mapping, as in "
                        f"{right.place(key)}, got {shown(_value(wrong.data, key))}"
                    )
        return None


def _value(data: Any, key: Sequence[str | int]) -> Any:
    return functools.reduce(lambda inner, part: inner[part], key, data)
