"""A study as its folder holds it: what was asked, what has a record, who ranks where. No torch."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tuning import files
from tuning.config import ExperimentConfig
from tuning.documents import parse_own_yaml
from tuning.errors import NotFoundError, ResultsError, UserError, nearest, shown
from tuning.grid import Plan, configuration
from tuning.measures import Accuracy, TaskResult
from tuning.paths import RESERVED_STUDY_NAMES, ResultsRoot, StudyFolder, checked_name
from tuning.ranking import Contender, Ranked, rank
from tuning.records import TrialRecord, TrialStatus, read_record
from tuning.scoring import Focus, Weights, dominates
from tuning.search_space import SearchSpace
from tuning.tasks.items import SCORED_TASKS


class StudySpec(BaseModel):
    """What a study was asked to do; written once, and never changed by a later run."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: str
    space: SearchSpace
    base: ExperimentConfig
    """The default configuration, steps not yet scaled."""
    focus: Focus = Focus.BALANCED
    step_scale: float = 1.0
    seed: int = 0
    max_failures: int = 5
    """Failed trials that end the study."""
    deterministic: bool = False
    """Proposals and prunings are functions of committed results alone, not of who was faster."""
    generation_size: int = 1
    """With deterministic: proposals that follow from results are made so many at a time."""
    num_threads: int | None = None
    """Processor threads of a trial, fixed when the study began: results depend on them."""
    score_weights: tuple[float, float] | None = None
    """Weights of position and count in the score; the focus's own if not given."""
    rescored_from: str | None = None
    """The study whose answers this one scores anew."""
    confirms: str | None = None
    """The study whose winners this one trains again on fresh seeds."""

    def plan(self) -> Plan:
        """Return the trials of the study, in order."""
        return Plan(self.space, self.base, self.step_scale, self.seed)

    def config_of(self, record: TrialRecord) -> ExperimentConfig:
        """Return the configuration of a trial that was run."""
        return configuration(self.base, record.parameters, record.seed, self.step_scale)

    @property
    def weights(self) -> Weights:
        """The study's weights in the transfer score."""
        return Weights(*self.score_weights) if self.score_weights else self.focus.weights

    @property
    def objectives(self) -> tuple[Focus, ...]:
        """What a bayesian search maximizes."""
        return self.space.objectives or (self.focus,)


def read_spec(folder: StudyFolder) -> StudySpec:
    """Read what a study was asked to do.

    Raises:
        ResultsError: study.yaml is missing or damaged.
    """
    try:
        raw = parse_own_yaml(files.read_text(folder.spec), folder.spec.name)
        return StudySpec.model_validate(raw)
    except ResultsError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise ResultsError(f"{folder.spec} is damaged: {place}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ResultsError(
            f"{folder.spec} is damaged: {' '.join(str(error).split())[:200]}"
        ) from error


def existing_timestamp(root: ResultsRoot, name: str) -> str | None:
    """Return the time stamp of a study that is there, so that running it again continues it."""
    folder = root.study(name)
    return read_spec(folder).base.timestamp if folder.spec.exists() else None


def existing_spec(root: ResultsRoot, name: str) -> StudySpec:
    """Return what a study was asked to do.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: study.yaml is damaged.
    """
    return read_spec(existing_folder(root, name))


def existing_folder(root: ResultsRoot, name: str) -> StudyFolder:
    """Return the folder of a study that is there, whatever state it is in.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: It has trials, and what it was asked is gone.
    """
    folder = root.study(name)
    if not folder.spec.exists() and folder.events.exists():
        raise ResultsError(_lost(folder))
    if not folder.spec.exists():
        known = study_names(root)
        hint = nearest(name, known) if known else "there is none"
        raise NotFoundError(f"study {name}: no such study in {root.data}; {hint}")
    return folder


def load_study(root: ResultsRoot, name: str) -> tuple[StudySpec, list[TrialRecord]]:
    """Return a study and the records of its finished trials.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: A file of it is damaged.
    """
    spec, folder = existing_spec(root, name), root.study(name)
    found = (finished_record(folder, trial_id) for trial_id in known_trials(spec, folder))
    return spec, [record for record in found if record is not None]


def readable_records(spec: StudySpec, folder: StudyFolder) -> tuple[list[TrialRecord], list[str]]:
    """Return the records of a study that can be read, and what is wrong with the others."""
    records, damaged = [], []
    for trial_id in known_trials(spec, folder):
        try:
            record = finished_record(folder, trial_id)
            if record is not None:
                _check_record(spec, trial_id, record)
                records.append(record)
        except UserError as error:
            damaged.append(f"trial {trial_id} is left out: {error}")
    return records, damaged


def _check_record(spec: StudySpec, trial_id: str, record: TrialRecord) -> None:
    """Refuse a record that is not of this trial, or lacks what every analysis needs.

    Raises:
        UserError: It is, or does.
    """
    result = record.result
    if record.trial_id != trial_id:
        raise ResultsError(f"its record is of trial {shown(record.trial_id)}")
    spec.config_of(record)
    for key in (result.training_key, result.base_key):
        checked_name(key or "none", "its training key")
    if result.status is not TrialStatus.COMPLETED:
        return
    try:
        for focus in {spec.focus, *spec.objectives}:
            focus.objective(result.metrics)
        levels = [level for t in SCORED_TASKS for level in _levels(result.tasks[t.value])]
    except KeyError as error:
        raise ResultsError(f"its record lacks {error}") from error
    if not all(0 <= level.value <= 1 and level.num_words >= 2 for level in levels):
        raise ResultsError("its record has accuracies that are no rates, or of fewer than 2 words")


def _levels(result: TaskResult) -> list[Accuracy]:
    found = (result.base, result.tuned, result.choice_base, result.choice_tuned)
    return [level for level in (*found, result.lenient_base, result.lenient_tuned) if level]


def known_trials(spec: StudySpec, folder: StudyFolder) -> Iterator[str]:
    """Yield the ids of the trials that are known so far, in order."""
    plan = spec.plan()
    if not plan.is_adaptive:
        yield from (proposal.trial_id for proposal in plan)
        return
    # A trial that follows from results is known once it was begun.
    begun = (path.name for path in folder.trials.glob("*") if _TRIAL_ID.fullmatch(path.name))
    yield from sorted(begun, key=lambda trial_id: int(trial_id.split("-")[0]))


_TRIAL_ID = re.compile(r"[0-9]{4,}-[0-9a-f]{8}")


def trial_index(trial_id: str) -> int:
    """Return the place of a trial in its study, or -1 for one of no study."""
    return int(trial_id.split("-")[0]) if _TRIAL_ID.fullmatch(trial_id) else -1


def study_names(root: ResultsRoot) -> list[str]:
    """Return the names of the studies below a results root."""
    if not root.data.is_dir():
        return []
    return sorted(
        p.parent.name
        for p in root.data.glob("*/study.yaml")
        if p.parent.name not in RESERVED_STUDY_NAMES
    )


def lost_studies(root: ResultsRoot) -> list[str]:
    """Return a sentence for each study whose events are there and whose settings are gone."""
    found = sorted(path.parent for path in root.data.glob("*/events.jsonl"))
    return [_lost(StudyFolder(folder)) for folder in found if not StudyFolder(folder).spec.exists()]


def _lost(folder: StudyFolder) -> str:
    return (
        f"study {folder.root.name}: {folder.spec} is gone; the command that began the study writes "
        f"it again"
    )


def finished_record(folder: StudyFolder, trial_id: str) -> TrialRecord | None:
    """Return the record of a trial that ended, or None.

    Raises:
        ResultsError: It is damaged.
    """
    path = folder.trial(trial_id).record
    return read_record(path) if path.exists() else None


def contenders(spec: StudySpec, records: Sequence[TrialRecord]) -> list[Contender]:
    """Return the completed configurations of a study, seeds taken together."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.result.status is TrialStatus.COMPLETED:
            groups[files.sha256_of_json(dict(record.parameters))].append(record)
    return [
        Contender(
            parameters=group[0].parameters,
            trial_ids=[r.trial_id for r in group],
            objectives=[spec.focus.objective(r.result.metrics) for r in group],
        )
        for group in groups.values()
    ]


_NUMBER = (int, float)
_EVENTS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "proposed": {"trial_id": str, "parameters": dict, "seed": int},
    "submitted": {"trial_id": str, "at": str},
    "ended": {"trial_id": str, "seconds": _NUMBER},
    "paused": {"trial_id": str},
    "promoted": {"trial_id": str, "step": int},
    "pruning": {"trial_id": str, "step": int, "reason": str},
    "completed": {"trial_id": str},
    "failed": {"trial_id": str},
    "pruned": {"trial_id": str},
}
"""What events must hold; of others nothing is read."""


def check_event(event: Mapping[str, Any]) -> None:
    """Refuse what is no event of a study.

    Raises:
        ValueError: It is none.
    """
    files.check_types(event, {"event": str})
    files.check_types(event, _EVENTS.get(event["event"], {}))
    trial_id = event.get("trial_id")
    if trial_id is not None and trial_index(str(trial_id)) < 0:
        raise ValueError(f"trial_id is {trial_id!r}")


class OnFront(NamedTuple):
    """A configuration that no other beats in all objectives."""

    label: str
    trial_ids: Sequence[str]
    values: tuple[float, ...]
    """Mean over seeds of each of the study's objectives."""


def front(spec: StudySpec, records: Sequence[TrialRecord]) -> list[OnFront]:
    """Return the Pareto set of a study with several objectives, best in the first one first."""
    if len(spec.objectives) < 2:
        return []
    by_id = {record.trial_id: record for record in records}
    found = []
    for contender in contenders(spec, records):
        if is_control(spec, contender):
            continue
        metrics = [by_id[trial_id].result.metrics for trial_id in contender.trial_ids]
        values = tuple(
            sum(map(focus.objective, metrics)) / len(metrics) for focus in spec.objectives
        )
        found.append(OnFront(contender.label, contender.trial_ids, values))
    kept = [c for c in found if not any(dominates(other.values, c.values) for other in found)]
    return sorted(kept, key=lambda c: tuple(-value for value in c.values))


def is_control(spec: StudySpec, contender: Contender) -> bool:
    """Whether a configuration is of another arm than the study: it explains, and competes not."""
    own = spec.base.spelling_config.arm.value
    return bool(contender.parameters.get("arm", own) != own)


def ranking(spec: StudySpec, records: Sequence[TrialRecord]) -> list[Ranked]:
    """Rank the configurations of a study by its focus; those of control arms are left out."""
    return rank([c for c in contenders(spec, records) if not is_control(spec, c)])


# --- the test split ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalTest:
    """What one configuration scores on the test split."""

    label: str
    parameters: Mapping[str, Any]
    seeds: Mapping[str, Mapping[str, TaskResult]]
    """For each of its trials: each task before and after."""


_TESTS = TypeAdapter(list[FinalTest])


def stored_tests(root: ResultsRoot, name: str) -> list[FinalTest]:
    """Return what was read of the test split so far; `final_test.py` reads it.

    Raises:
        ResultsError: The file is damaged.
    """
    path = root.study(name).final_test
    if not path.exists():
        return []
    try:
        return _TESTS.validate_python(files.read_json(path))
    except ValidationError as error:
        raise ResultsError(f"{path} is damaged: {error.errors()[0]['msg']}") from error
