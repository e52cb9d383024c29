"""The files of `configs/hyperparameters/lightning/`: Studio, phases, scheduler, prices. No SDK.

Each is looked for in the user's folder of configurations first, then in ours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from tuning.config import ExperimentConfig
from tuning.documents import dotted, read_document
from tuning.errors import ConfigError, NotFoundError, nearest, shown
from tuning.paths import checked_name, shipped_config_dir
from tuning.schema import Flag, Law, Number, Section, Text, law_of_error

FOLDER = "lightning"
MACHINES_OF_TIERS: Mapping[str, str] = {"cpu": "CPU", "t4": "T4", "a100": "A100"}
STALE_DAYS = 30
"""A price table older than this is warned of."""

_Minutes = Annotated[Number, Field(gt=0, le=10_080)]
_Seconds = Annotated[Number, Field(gt=0, le=86_400)]
_Hours = Annotated[Number, Field(gt=0, le=1_000)]
_Count = Annotated[int, Field(ge=1, le=1_000, strict=True)]
_Price = Annotated[Number, Field(ge=0, le=10_000)]


def _machine(name: str) -> str:
    return name.strip().upper()


MachineName = Annotated[Text, AfterValidator(_machine)]
"""As the vendor's SDK calls it: T4, A100, H100_X_8."""


def _mounted(path: str) -> str:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError(f"must be an absolute path without .., got {shown(path)}")
    return path.rstrip("/")


def _on_drive(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError(f"must be a path on the drive without / before it or .., got {path!r}")
    return path.rstrip("/")


def _teamspace(name: str) -> str:
    if not re.fullmatch(r"[^/\s]{1,128}/[^/\s]{1,128}", name):
        raise ValueError(f"must be OWNER/NAME, got {shown(name)}")
    return name


def _command(text: str) -> str:
    for name in re.findall(r"\{([a-z_]+)\}", text):
        if name not in ("python", "constraints"):
            raise ValueError(f"{{{name}}} cannot be filled in; {{python}} and {{constraints}} can")
    return text


class Deadlines(Section):
    """Minutes after which a call of the cloud is given up."""

    start: _Minutes = 15.0
    switch: _Minutes = 20.0
    command: _Minutes = 240.0
    stop: _Minutes = 5.0
    call: _Minutes = 2.0
    """Of everything else."""


class StudioSettings(Section):
    """Where Studios live, and how their environment is made."""

    teamspace: Annotated[Text, AfterValidator(_teamspace)] | None = None
    cloud_account: Text | None = None
    prefix: Annotated[Text, AfterValidator(lambda name: checked_name(name, "prefix"))] = "tuning"
    python: Text = "python"
    shared_folder: Annotated[Text, AfterValidator(_mounted)] = "/teamspace/lightning_storage/tuning"
    drive_folder: Annotated[Text, AfterValidator(_on_drive)] = "lightning_storage/tuning"
    setup: tuple[Annotated[Text, AfterValidator(_command)], ...] = (
        "{python} -m pip install --quiet --constraint {constraints} '.[smollm2]'",
    )
    sleep_after_minutes: _Minutes = 10.0
    deadlines: Deadlines = Deadlines()


class Phase(Section):
    """A part of a task, on its machine."""

    machine: MachineName
    hours: _Hours
    """That a plan counts with."""


def _bounds(least: int, most: int) -> str | None:
    return None if least <= most else f"min_jobs must be at most max_jobs, got {least} > {most}"


class SchedulerSettings(Section):
    """How jobs are run."""

    laws = (Law(("min_jobs", "max_jobs"), _bounds),)

    min_jobs: _Count = 1
    max_jobs: _Count = 4
    max_jobs_on: Mapping[MachineName, _Count] = {}
    spot: Flag = False
    max_preemptions: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    max_hours: _Hours = 24.0
    retries: Annotated[int, Field(ge=0, le=100, strict=True)] = 2
    poll_seconds: _Seconds = 10.0
    pull_seconds: _Seconds = 30.0
    capacity_minutes: _Minutes = 60.0
    unreachable_minutes: _Minutes = 30.0


def _not_to_come(day: date) -> date:
    if day > datetime.now(UTC).date():
        raise ValueError(f"must not lie in the future, got {day}")
    return day


class PriceTable(Section):
    """What machines cost an hour, by cloud, as it was known on a day."""

    as_of: Annotated[date, AfterValidator(_not_to_come)]
    source: Text
    verified: Flag = False
    machines: Mapping[MachineName, Annotated[Mapping[Text, _Price], Field(min_length=1)]]

    def per_hour(self, machine: str, cloud: str | None = None) -> float:
        """Return US dollars an hour: of a cloud, else the most that any asks.

        Raises:
            NotFoundError: The table does not have the machine.
        """
        prices = self.machines.get(_machine(machine))
        if not prices:
            raise NotFoundError(
                f"no price of machine {shown(machine)} in prices.yaml; "
                f"{nearest(_machine(machine), self.machines)}"
            )
        return prices.get(cloud or "", max(prices.values()))

    def days_old(self, today: date | None = None) -> int:
        """Return the age of the table in days."""
        return ((today or datetime.now(UTC).date()) - self.as_of).days

    @property
    def says(self) -> str:
        """What a reader of a cost must know of its basis."""
        text = f"prices as of {self.as_of}{'' if self.verified else ', not verified'}"
        if self.days_old() > STALE_DAYS:
            text += (
                f"; they are {self.days_old()} days old: check them, and edit "
                f"configs/hyperparameters/{FOLDER}/prices.yaml"
            )
        return text


class CloudSettings(Section):
    """All of it."""

    studio: StudioSettings
    phases: Mapping[Text, Phase]
    scheduler: SchedulerSettings
    prices: PriceTable

    def phase(self, name: str) -> Phase:
        """Return a phase by its name.

        Raises:
            NotFoundError: There is none.
        """
        if name not in self.phases:
            known = nearest(name, self.phases)
            raise NotFoundError(f"no phase {shown(name)} in phases.yaml; {known}")
        return self.phases[name]


def read_settings(config_dirs: Sequence[Path] = ()) -> CloudSettings:
    """Read the files of the cloud.

    Args:
        config_dirs: Folders of the user's own, searched before ours.

    Raises:
        ConfigError: A file breaks a law; all that do in one file are reported together.
    """
    files = {name: settings_file(name, config_dirs) for name in _FILES}
    return CloudSettings(**{name: _read_file(files[name], kind) for name, kind in _FILES.items()})


def is_cloud_file(path: Path) -> bool:
    """Whether a file is one of the cloud's: settings, or a file of jobs among the templates."""
    folder = path.absolute().parent
    if folder.name == "templates":
        return folder.parent.name == FOLDER
    return folder.name == FOLDER and path.stem in _FILES


def check_cloud_file(path: Path) -> None:
    """Refuse a file of the cloud that breaks a law.

    Raises:
        ConfigError: It does; all laws that it breaks are told together.
    """
    _read_file(path, _FILES.get(path.stem, Template))


def settings_file(name: str, config_dirs: Sequence[Path]) -> Path:
    """Return a file of the cloud: the user's, or ours."""
    folders = [*config_dirs, shipped_config_dir()]
    candidates = [folder / FOLDER / f"{name}.yaml" for folder in folders]
    return next((path for path in candidates if path.is_file()), candidates[-1])


def _read_file(path: Path, kind: Any) -> Any:
    document = read_document(path)
    try:
        return TypeAdapter(kind).validate_python(document.data)
    except ValidationError as error:
        lines = [_explain(e, kind, document) for e in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error


def _explain(error: Any, kind: Any, document: Any) -> str:
    location = tuple(error["loc"])
    head = f"{document.place(location)}: {dotted(location) or 'all of it'}: "
    if error["type"] == "extra_forbidden":
        inner = kind if len(location) == 1 else _SECTIONS.get(str(location[0]), Phase)
        known = getattr(inner, "model_fields", {})
        return f"{head}no such key; {nearest(str(location[-1]), known)}"
    return head + law_of_error(error)


# --- machines ------------------------------------------------------------------------------------


def machine_for(config: ExperimentConfig) -> str:
    """Return the cloud machine that a configuration runs on: the one it names, or its tier's."""
    lightning = config.lightning_config
    return _machine(lightning.machine or MACHINES_OF_TIERS[lightning.gpu_tier])


def is_same_machine(one: str, other: str) -> bool:
    """Whether two names mean machines of the same kind, whatever memory their GPUs have."""
    return _kind_of(one) == _kind_of(other)


def _kind_of(machine: str) -> tuple[str, int]:
    found = _KIND.fullmatch(_machine(machine))
    if found is None:
        return _machine(machine), 1
    family, count = found["family"], found["count"]
    return family, int(count) if count else (4 if family == "CPU" else 1)


_KIND = re.compile(r"(?P<family>[A-Z0-9]+?)(?:_[0-9]+GB)?(?:_X_(?P<count>[0-9]+))?")


def family_of(machine: str) -> str | None:
    """Return how a machine's GPU calls itself in part, or None for one without: A100, T4, H100."""
    family = _machine(machine).split("_")[0]
    return None if family in ("CPU", "DATA") else {"RTXP": "RTX"}.get(family, family)


# --- templates -----------------------------------------------------------------------------------


def _inside(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise ValueError(f"must be a path below the results folder, got {shown(path)}")
    return path


class TemplateJob(Section):
    """A job of a file of jobs: one of our commands on a machine."""

    arguments: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The command, without `tuning` before it; {names} are filled in from the values."""
    machine: MachineName
    hours: _Hours | None = None
    """That it is expected to take."""
    max_hours: _Hours | None = None
    needs: tuple[Text, ...] = ()
    priority: Number = 0.0
    retries: Annotated[int, Field(ge=0, le=100, strict=True)] | None = None
    spot: Flag | None = None
    collect: tuple[Annotated[Text, AfterValidator(_inside)], ...] = ()
    """Files and folders below the results folder that come back."""


def _as_job(name: str) -> str:
    return checked_name(name, "job")


JobName = Annotated[Text, AfterValidator(_as_job)]


class TemplateStudy(Section):
    """A study, a job for each training."""

    space: Text | None = None
    """None for the default configuration alone."""
    replicates: _Count | None = None


def _one_of_both(study: TemplateStudy | None, jobs: Mapping[str, Any]) -> str | None:
    return None if (study is None) != (not jobs) else "must have either study or jobs"


class Template(Section):
    """A file of jobs: a study, or commands that may need each other."""

    laws = (Law(("study", "jobs"), _one_of_both),)

    about: Text
    values: Mapping[Text, Text | None] = {}
    """What {names} in arguments stand for; null must be given with --set."""
    study: TemplateStudy | None = None
    jobs: Mapping[JobName, TemplateJob] = {}

    def filled(self, given: Mapping[str, str]) -> Template:
        """Return the template with its values filled in.

        Raises:
            ConfigError: A value is given that there is not, or is missing.
        """
        for name in given:
            if name not in self.values:
                raise ConfigError(f"--set {name}: no such value; {nearest(name, self.values)}")
        values = {**self.values, **given}
        for name, value in values.items():
            if value is None:
                raise ConfigError(f"value {name} must be given: --set {name}=...")
        jobs = {
            name: job.model_copy(
                update={"arguments": tuple(_filled(text, values) for text in job.arguments)}
            )
            for name, job in self.jobs.items()
        }
        return self.model_copy(update={"jobs": jobs})


def _filled(text: str, values: Mapping[str, str | None]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value or "")
    return text


def template_names(config_dirs: Sequence[Path] = ()) -> list[str]:
    """Return the templates that there are."""
    folders = [*config_dirs, shipped_config_dir()]
    paths = (path for f in folders for path in (f / FOLDER / "templates").glob("*.yaml"))
    return sorted({path.stem for path in paths})


def read_template(name_or_path: str, config_dirs: Sequence[Path] = ()) -> Template:
    """Read a template by its name, or a file of jobs by its path.

    Raises:
        NotFoundError: There is none.
        ConfigError: It breaks a law.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml", ".json") or "/" in name_or_path:
        if not path.is_file():
            raise NotFoundError(f"{path}: no such file of jobs")
    else:
        known = template_names(config_dirs)
        if name_or_path not in known:
            hint = nearest(name_or_path, known)
            raise NotFoundError(f"template {shown(name_or_path)}: no such template; {hint}")
        path = settings_file(f"templates/{name_or_path}", config_dirs)
    found: Template = _read_file(path, Template)
    return found


_SECTIONS: Mapping[str, type[Section]] = {
    "deadlines": Deadlines,
    "study": TemplateStudy,
    "jobs": TemplateJob,
}
"""Whose keys are offered where an unknown one stands below."""

_FILES: Mapping[str, Any] = {
    "studio": StudioSettings,
    "phases": Mapping[Text, Phase],
    "scheduler": SchedulerSettings,
    "prices": PriceTable,
}
