"""One Studio for one task: made, moved from machine to machine, metered, and never left behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import shlex
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import tuning
from tuning import files
from tuning.cloud_settings import CloudSettings, Phase, family_of, is_same_machine
from tuning.errors import CapacityError, CloudError, NotFoundError, ResultsError, UserError, shown
from tuning.lightning_integration import Cloud, StudioState
from tuning.paths import CloudTaskFolder, ResultsRoot, checked_name

TASK_VARIABLE = "TUNING_TASK"
"""Says in a Studio itself to which task it belongs, so that another computer sees it too."""
DEVELOP = "develop"


class Binding(BaseModel):
    """Which Studio belongs to a task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    studio: str
    studio_id: str
    teamspace: str
    project: str | None = None
    """SHA-256 of the project that its environment was made from."""


def read_binding(folder: CloudTaskFolder) -> Binding | None:
    """Return the Studio of a task, or None where it has none yet.

    Raises:
        ResultsError: The file is damaged.
    """
    if not folder.studio.exists():
        return None
    try:
        return Binding.model_validate(files.read_json(folder.studio))
    except ValidationError as error:
        raise ResultsError(f"{folder.studio} is damaged: {error.errors()[0]['msg']}") from error


def studio_name(settings: CloudSettings, task: str) -> str:
    """Return how the Studio of a task is called."""
    return f"{settings.studio.prefix}-{checked_name(task, 'task')}"


# --- what it costs ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """A time that a Studio spent on a machine."""

    phase: str
    machine: str
    per_hour: float
    began: float
    """Seconds since 1970."""
    ended: float | None
    """None while it goes on."""

    def hours(self, now: float) -> float:
        """Return how long it was, or has been."""
        return max(0.0, (self.ended if self.ended is not None else now) - self.began) / 3600

    def cost(self, now: float) -> float:
        """Return US dollars."""
        return self.hours(now) * self.per_hour


def _check_stay(line: Mapping[str, Any]) -> None:
    files.check_types(line, {"event": str, "at": (int, float)})
    if line["event"] == "entered":
        files.check_types(line, {"phase": str, "machine": str, "per_hour": (int, float)})


def stays(folder: CloudTaskFolder) -> list[Stay]:
    """Return on which machines the Studio of a task was, in order.

    Raises:
        ResultsError: The ledger is damaged.
    """
    found: list[Stay] = []
    for line in files.read_json_lines(folder.phases, _check_stay):
        if found and found[-1].ended is None:
            last = found.pop()
            found.append(
                Stay(
                    phase=last.phase,
                    machine=last.machine,
                    per_hour=last.per_hour,
                    began=last.began,
                    ended=line["at"],
                )
            )
        if line["event"] == "entered":
            found.append(
                Stay(
                    phase=line["phase"],
                    machine=line["machine"],
                    per_hour=line["per_hour"],
                    began=line["at"],
                    ended=None,
                )
            )
    return found


# --- the Studio ---------------------------------------------------------------------------------


class TaskStudio:
    """The Studio of one task; every method leaves it where it was asked to be, or stopped."""

    def __init__(self, cloud: Cloud, settings: CloudSettings, root: ResultsRoot, task: str) -> None:
        """Look at what is known here of the task's Studio.

        Raises:
            ResultsError: What is known is damaged.
        """
        self.cloud, self.settings = cloud, settings
        self.task = checked_name(task, "task")
        self.folder = root.cloud_task(task)
        self.binding = read_binding(self.folder)
        self.name = self.binding.studio if self.binding else studio_name(settings, task)

    def state(self) -> StudioState | None:
        """Return how the cloud sees it; a Studio that fell asleep is noted as left.

        Raises:
            CloudError: The cloud does not answer.
        """
        state = self.cloud.studio(self.name)
        if state is None or state.status == "Stopped":
            self._note_left()
        return state

    def create(self, studio: str | None = None) -> StudioState:
        """Make the Studio of the task, or find it again.

        Args:
            studio: Its name; PREFIX-TASK if not given.

        Raises:
            UserError: The task has another Studio, or the Studio belongs to another task.
            CloudError: The cloud does not answer, or refuses.
        """
        name = studio or self.name
        if self.binding is not None and name != self.binding.studio:
            raise UserError(
                f"task {self.task} has Studio {self.binding.studio} already; a task has one Studio"
            )
        found = self.cloud.studio(name)
        owner = found.env.get(TASK_VARIABLE) if found is not None else None
        if found is not None and owner != self.task and not self._was_being_made(found):
            belongs = f"belongs to task {owner}" if owner else "was not made by this program"
            raise UserError(f"Studio {name} {belongs}; a Studio serves one task, name another")
        state = self.cloud.create_studio(name)
        # Before it is marked: a kill in between leaves a Studio that is known to be ours.
        self._bind(
            Binding(task=self.task, studio=name, studio_id=state.id, teamspace=self.cloud.teamspace)
            if self.binding is None or self.binding.studio_id != state.id
            else self.binding
        )
        if owner != self.task:
            self.cloud.mark_studio(
                name, {TASK_VARIABLE: self.task, **shared_variables(self.settings)}
            )
        self.name = name
        return state

    def _was_being_made(self, found: StudioState) -> bool:
        return self.binding is not None and self.binding.studio_id == found.id

    def _bind(self, binding: Binding) -> None:
        self.binding = binding
        files.write_json(self.folder.studio, binding.model_dump())

    def enter(self, phase: str, *, sleeps: bool = True, spot: bool = False) -> StudioState:
        """Have the Studio run on the machine of a phase, and prove that it does.

        Args:
            phase: A name of phases.yaml.
            sleeps: Whether it goes to sleep when nobody works.
            spot: Whether the machine may be taken away.

        Raises:
            CapacityError: There is no such machine now; the Studio stays where it was.
            CloudError: It could not be done; the Studio is back on its processor, or stopped.
        """
        wanted = self.settings.phase(phase)
        offer = self.cloud.offer_of(wanted.machine)
        if spot and offer.spot_per_hour is None:
            raise UserError(f"{wanted.machine} does not come as a spot machine; leave out --spot")
        state = self._existing()
        per_hour = offer.spot_per_hour if spot else offer.per_hour
        if per_hour is None:
            per_hour = self.settings.prices.per_hour(wanted.machine)
        try:
            if state.status != "Running":
                # From here on it may cost, whether or not the answer comes.
                self._note_entered(phase, wanted, per_hour)
                self.cloud.start_studio(self.name, wanted.machine, spot=spot)
            elif not self._is_on(state, wanted.machine) or state.spot != spot:
                self._note_entered(phase, wanted, per_hour)
                self.cloud.switch_studio(self.name, wanted.machine, spot=spot)
            self._wait_until_it_answers()
            self._check_hardware(wanted.machine)
            self._set_sleep(wanted.machine, sleeps=sleeps)
        except BaseException:
            self.retreat()
            raise
        return self._existing()

    def per_hour(self) -> float:
        """Return US dollars an hour of the machine that it has now; 0 where it has none."""
        last = stays(self.folder)[-1:]
        return last[0].per_hour if last and last[0].ended is None else 0.0

    def _existing(self) -> StudioState:
        state = self.cloud.studio(self.name)
        if state is None:
            raise NotFoundError(
                f"task {self.task} has no Studio; make it with: tuning lightning studio create "
                f"{self.task}"
            )
        return state

    def _is_on(self, state: StudioState, machine: str) -> bool:
        return state.machine is not None and is_same_machine(state.machine, machine)

    def _wait_until_it_answers(self) -> None:
        """Wait until a command runs: a Studio says that it runs some time before it does."""
        until = time.monotonic() + 60 * self.settings.studio.deadlines.start
        while True:
            said, code = self.cloud.run_in_studio(self.name, "echo ready", _PROBE_MINUTES)
            if code == 0 and "ready" in said:
                return
            if time.monotonic() > until:
                raise CloudError(f"Studio {self.name} runs, but no command does: {said[:200]}")
            time.sleep(_PROBE_SECONDS)

    def _check_hardware(self, machine: str) -> None:
        """Refuse a Studio that came up on something else: it would cost and help nobody.

        Raises:
            CloudError: It did.
        """
        family = family_of(machine)
        if family is None:
            return
        said, code = self.cloud.run_in_studio(self.name, HARDWARE_COMMAND, _PROBE_MINUTES)
        if code or family.lower() not in said.lower():
            found = " ".join(said.split())[:100] or "nothing"
            raise CloudError(
                f"Studio {self.name} was asked for {machine} and has no such GPU; nvidia-smi says: "
                f"{found}"
            )

    def _set_sleep(self, machine: str, *, sleeps: bool) -> None:
        minutes = self.settings.studio.sleep_after_minutes
        on_gpu = family_of(machine) is not None
        self.cloud.set_sleep(self.name, sleeps=sleeps, minutes=minutes if on_gpu else None)

    def retreat(self) -> None:
        """Bring the Studio back to its processor, or else stop it.

        Raises:
            CloudError: Neither can be done: somebody must look at it.
        """
        try:
            state = self.cloud.studio(self.name)
            if state is not None and state.status == "Running":
                develop = self.settings.phase(DEVELOP)
                if not self._is_on(state, develop.machine):
                    self.cloud.switch_studio(self.name, develop.machine)
                    self._note_entered(DEVELOP, develop, self._price_of(develop))
                return
        except CloudError:
            # It could not be moved, or not be seen: stopping is the other way to end the cost.
            pass
        self.stop()

    def _price_of(self, phase: Phase) -> float:
        with contextlib.suppress(CloudError, CapacityError):
            price = self.cloud.offer_of(phase.machine).per_hour
            if price is not None:
                return price
        return self.settings.prices.per_hour(phase.machine)

    def stop(self) -> None:
        """Stop the Studio; one that does not run is left alone.

        Raises:
            CloudError: It may still run, and cost.
        """
        try:
            if self.cloud.studio(self.name) is not None:
                self.cloud.stop_studio(self.name)
        except CloudError as error:
            raise CloudError(
                f"Studio {self.name} may still run and cost: {error}; stop it with: tuning "
                f"lightning studio stop {self.task}, or at lightning.ai"
            ) from error
        self._note_left()

    def delete(self) -> None:
        """Stop and delete the Studio; what its jobs cost stays known here.

        Raises:
            UserError: It belongs to another task.
            CloudError: The cloud does not answer, or refuses.
        """
        state = self.cloud.studio(self.name)
        if state is not None:
            if state.env.get(TASK_VARIABLE, self.task) != self.task:
                raise UserError(
                    f"Studio {self.name} belongs to task {state.env[TASK_VARIABLE]} and is not "
                    f"deleted"
                )
            self.stop()
            self.cloud.delete_studio(self.name)
        self.folder.studio.unlink(missing_ok=True)

    @contextlib.contextmanager
    def during(self, phase: str, *, stops: bool, sleeps: bool = True) -> Iterator[StudioState]:
        """Be in a phase, and leave it whatever happens.

        Args:
            phase: A name of phases.yaml.
            stops: Stop at the end; else go back to the processor.
            sleeps: Whether an idle Studio goes to sleep.
        """
        state = self.enter(phase, sleeps=sleeps)
        try:
            yield state
        finally:
            if stops:
                self.stop()
            else:
                self.retreat()

    # --- its environment --------------------------------------------------------------------------

    def has_environment_of(self, project: Path) -> bool:
        """Whether the Studio's environment was made from a checkout as it is now.

        Raises:
            NotFoundError: The folder is no checkout of this project.
        """
        assert self.binding is not None
        return self.binding.project == hashlib.sha256(project_archive(project)).hexdigest()

    def set_up(self, project: Path) -> bool:
        """Make the environment from a checkout of this project; return whether it was made anew.

        The Studio must run. What was uploaded is held against its checksum there, as files can
        land late.

        Raises:
            CloudError: A command fails; its last line is told.
        """
        assert self.binding is not None
        archive = project_archive(project)
        digest = hashlib.sha256(archive).hexdigest()
        if self.binding.project == digest:
            return False
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / _ARCHIVE
            path.write_bytes(archive)
            self.cloud.upload_to_studio(self.name, path, _ARCHIVE)
        self._run(f'test "$(sha256sum < {_ARCHIVE} | cut -d" " -f1)" = {digest}', _LANDING_SECONDS)
        self._run(f"rm -rf {_PROJECT} && mkdir {_PROJECT} && tar xzf {_ARCHIVE} -C {_PROJECT}")
        python = shlex.quote(self.settings.studio.python)
        for command in self.settings.studio.setup:
            filled = command.replace("{python}", python).replace("{constraints}", "constraints.txt")
            self._run(f"cd {_PROJECT} && {filled}")
        self._bind(self.binding.model_copy(update={"project": digest}))
        return True

    def _run(self, command: str, patience: float = 0.0) -> None:
        until = time.monotonic() + patience
        while True:
            said, code = self.cloud.run_in_studio(self.name, command)
            if code == 0:
                return
            if time.monotonic() >= until:
                last = said.strip().splitlines()[-1:] or ["no word"]
                raise CloudError(
                    f"Studio {self.name}: {shown(command)} ended with code {code}: {last[0][:300]}"
                )
            time.sleep(_PROBE_SECONDS)

    # --- the ledger -------------------------------------------------------------------------------

    def _note_entered(self, name: str, phase: Phase, per_hour: float) -> None:
        line = {"event": "entered", "phase": name, "machine": phase.machine, "per_hour": per_hour}
        files.append_json_line(self.folder.phases, {**line, "at": time.time()})

    def _note_left(self) -> None:
        last = stays(self.folder)[-1:]
        if last and last[0].ended is None:
            files.append_json_line(self.folder.phases, {"event": "left", "at": time.time()})


HARDWARE_COMMAND = "nvidia-smi --query-gpu=name --format=csv,noheader"
_PROBE_MINUTES = 2.0
_PROBE_SECONDS = 2.0
_LANDING_SECONDS = 60.0
_ARCHIVE = "tuning-project.tar.gz"
_PROJECT = "tuning-project"


def shared_variables(settings: CloudSettings) -> dict[str, str]:
    """Return the variables that have all Studios and jobs share weights that one has fetched."""
    shared = settings.studio.shared_folder
    return {"TUNING_CACHE": f"{shared}/cache", "HF_HOME": f"{shared}/cache/huggingface"}


# --- the project that travels -------------------------------------------------------------------

_TRAVELS = ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "NOTICE", "src", "configs")


def own_project() -> Path | None:
    """Return the checkout that this program runs from, or None where it was installed."""
    folder = Path(tuning.__file__).parents[2]
    return folder if _is_project(folder) else None


def _is_project(folder: Path) -> bool:
    needed = ("pyproject.toml", "constraints.txt", "src/tuning")
    return all((folder / name).exists() for name in needed)


def project_archive(project: Path) -> bytes:
    """Return the files that make the environment, packed so that equal files give equal bytes.

    Raises:
        NotFoundError: The folder is no checkout of this project.
    """
    if not _is_project(project):
        raise NotFoundError(
            f"{project} is no checkout of this project: pyproject.toml, constraints.txt and "
            f"src/tuning make a Studio's environment; name one with --project"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in _travelling(project):
            entry = tarfile.TarInfo(path.relative_to(project).as_posix())
            content = path.read_bytes()
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return _zipped(buffer.getvalue())


def _zipped(data: bytes) -> bytes:
    import gzip

    return gzip.compress(data, mtime=0)


def _travelling(project: Path) -> Sequence[Path]:
    found: list[Path] = []
    for name in _TRAVELS:
        path = project / name
        inner = path.rglob("*") if path.is_dir() else [path] if path.is_file() else []
        found += [p for p in inner if p.is_file() and not _is_left_behind(p)]
    return sorted(found)


def _is_left_behind(path: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.parts[-3:])
    return hidden or path.is_symlink() or "__pycache__" in path.parts or path.suffix == ".pyc"


# --- plans --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of a plan."""

    what: str
    machine: str
    hours: float
    per_hour: float

    @property
    def cost(self) -> float:
        """US dollars."""
        return self.hours * self.per_hour


def plan_of_phases(settings: CloudSettings, phases: Sequence[str]) -> list[Step]:
    """Return what phases cost by the price table, from the shipped files alone.

    Raises:
        NotFoundError: There is no such phase, or its machine has no price.
    """
    steps = []
    for name in phases:
        phase = settings.phase(name)
        price = settings.prices.per_hour(phase.machine)
        steps.append(Step(what=name, machine=phase.machine, hours=phase.hours, per_hour=price))
    return steps
