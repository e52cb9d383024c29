"""Runs the trials of a study, one after another, and can be killed at any moment.

The folders are the truth: a trial with a record is finished, every other one is begun or continued
when the study is run again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tuning import files
from tuning.config import ExperimentConfig, to_yaml, training_key
from tuning.errors import NotFoundError, ResultsError, UserError, nearest
from tuning.grid import Proposal, SearchSpace, proposals
from tuning.paths import RESERVED_STUDY_NAMES, ResultsRoot, StudyFolder
from tuning.ranking import Contender, Ranked, rank
from tuning.records import TrialRecord, TrialStatus, read_record
from tuning.scoring import Focus
from tuning.trial import TrialRequest, record_failure, run_trial


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

    def proposals(self) -> list[Proposal]:
        """Return the trials of the study, in order."""
        return proposals(self.space, self.base, self.step_scale, self.seed)


class Watcher(Protocol):
    """Is told how a study goes on; draws progress, or nothing."""

    def trial_started(self, proposal: Proposal, index: int, total: int) -> None:
        """Trial `index` of `total`, counted from 1, begins."""

    def trial_moved(self, step: int, metrics: Mapping[str, float]) -> None:
        """The trial under way has made optimizer step `step`."""

    def trial_finished(self, record: TrialRecord, *, was_there: bool) -> None:
        """A trial ended, or was found finished."""


def run_study(spec: StudySpec, root: ResultsRoot, watcher: Watcher) -> list[TrialRecord]:
    """Run every trial of the study that has no record yet.

    Args:
        spec: What to do. A study of this name that was asked something else is left alone.
        root: All results hang off it.
        watcher: Told of everything.

    Returns:
        The records of all trials, in the order of the trials.

    Raises:
        UserError: The study exists with other settings, another driver runs it, the results
            cannot be written, or more than `max_failures` trials failed.
    """
    folder = root.study(spec.name)
    planned = spec.proposals()
    with files.exclusive_lock(folder.lock, f"study {spec.name}"):
        _write_spec(folder, spec)
        log_event(folder, "started", num_trials=len(planned))
        budgets = _budgets(planned)
        records: list[TrialRecord] = []
        for index, proposal in enumerate(planned, start=1):
            watcher.trial_started(proposal, index, len(planned))
            record, was_there = _finished(folder, proposal), True
            if record is None:
                record, was_there = _run(spec, folder, root, proposal, budgets, watcher), False
            records.append(record)
            watcher.trial_finished(record, was_there=was_there)
            _check_failures(records, spec.max_failures)
        save_best(spec, root, records)
        log_event(folder, "finished", num_trials=len(records))
    return records


def _write_spec(folder: StudyFolder, spec: StudySpec) -> None:
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
    if not folder.spec.exists():
        files.write_atomic(folder.spec, text)
        return
    stored = read_spec(folder)
    for name in ("space", "base", "focus", "step_scale", "seed"):
        if getattr(stored, name) != getattr(spec, name):
            raise ResultsError(
                f"study {spec.name} exists with another {name.replace('_', ' ')}; "
                f"choose another --name, or remove {folder.root}"
            )


def read_spec(folder: StudyFolder) -> StudySpec:
    """Read what a study was asked to do.

    Raises:
        ResultsError: study.yaml is missing or damaged.
    """
    try:
        return StudySpec.model_validate(yaml.safe_load(folder.spec.read_text("utf-8")))
    except FileNotFoundError as error:
        raise ResultsError(f"{folder.spec} is missing") from error
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ResultsError(
            f"{folder.spec} is damaged: {' '.join(str(error).split())[:200]}"
        ) from error


def existing_timestamp(root: ResultsRoot, name: str) -> str | None:
    """Return the time stamp of a study that is there, so that running it again continues it."""
    folder = root.study(name)
    return read_spec(folder).base.timestamp if folder.spec.exists() else None


def load_study(root: ResultsRoot, name: str) -> tuple[StudySpec, list[TrialRecord]]:
    """Return a study and the records of its finished trials.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: A file of it is damaged.
    """
    folder = root.study(name)
    if not folder.spec.exists():
        raise NotFoundError(
            f"study {name}: no such study in {root.data}; {nearest(name, study_names(root))}"
        )
    spec = read_spec(folder)
    found = (_finished(folder, proposal) for proposal in spec.proposals())
    return spec, [record for record in found if record is not None]


def study_names(root: ResultsRoot) -> list[str]:
    """Return the names of the studies below a results root."""
    if not root.data.is_dir():
        return []
    return sorted(
        p.parent.name
        for p in root.data.glob("*/study.yaml")
        if p.parent.name not in RESERVED_STUDY_NAMES
    )


def _finished(folder: StudyFolder, proposal: Proposal) -> TrialRecord | None:
    path = folder.trial(proposal.trial_id).record
    return read_record(path) if path.exists() else None


def _budgets(planned: Sequence[Proposal]) -> dict[str, frozenset[int]]:
    """Return for each training the steps at which some trial wants its adapter."""
    steps: dict[str, set[int]] = defaultdict(set)
    for proposal in planned:
        steps[training_key(proposal.config)].add(proposal.config.training_config.max_steps)
    return {key: frozenset(budgets) for key, budgets in steps.items()}


def _run(
    spec: StudySpec,
    folder: StudyFolder,
    root: ResultsRoot,
    proposal: Proposal,
    budgets: Mapping[str, frozenset[int]],
    watcher: Watcher,
) -> TrialRecord:
    log_event(
        folder,
        "proposed",
        trial_id=proposal.trial_id,
        parameters=proposal.parameters,
        seed=proposal.seed,
    )
    request = TrialRequest(
        config=proposal.config,
        folder=folder.trial(proposal.trial_id),
        trial_id=proposal.trial_id,
        parameters=proposal.parameters,
        weights=spec.focus.weights,
        budgets=budgets[training_key(proposal.config)],
    )
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        record = run_trial(request, root, watcher.trial_moved)
    except ResultsError:
        # The disk, not the trial: nothing could be recorded either.
        raise
    except Exception as error:
        record = record_failure(request, error, started)
    log_event(
        folder, record.result.status.value, trial_id=proposal.trial_id, error=record.result.error
    )
    return record


def _check_failures(records: Sequence[TrialRecord], max_failures: int) -> None:
    failed = [r for r in records if r.result.status is TrialStatus.FAILED]
    if len(failed) > max_failures or (
        failed and failed == list(records) and len(failed) == max_failures
    ):
        raise UserError(
            f"{len(failed)} trials failed, at most {max_failures} may; the last one with "
            f"{failed[-1].result.error_type}: {failed[-1].result.error}"
        )


def log_event(folder: StudyFolder, event: str, **values: Any) -> None:
    """Append what happened to the study's events.

    Raises:
        ResultsError: The disk refuses.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    files.append_json_line(folder.events, {"event": event, "at": at, **values})


def ranking(spec: StudySpec, records: Sequence[TrialRecord]) -> list[Ranked]:
    """Rank the completed configurations of a study by its focus, seeds taken together."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.result.status is TrialStatus.COMPLETED:
            groups[files.sha256_of_json(dict(record.parameters))].append(record)
    return rank(
        [
            Contender(
                parameters=group[0].parameters,
                trial_ids=[r.trial_id for r in group],
                objectives=[spec.focus.objective(r.result.metrics) for r in group],
            )
            for group in groups.values()
        ]
    )


def save_best(spec: StudySpec, root: ResultsRoot, records: Sequence[TrialRecord]) -> None:
    """Write the first of the ranking as a file that `--config` takes, with why it was chosen.

    Raises:
        ResultsError: The disk refuses.
    """
    ranked = ranking(spec, records)
    if not ranked:
        return
    best = ranked[0]
    chosen = next(p for p in spec.proposals() if p.trial_id == best.contender.trial_ids[0])
    ties = sum(r.ties_with_best for r in ranked) - 1
    why = (
        f"# First of {len(ranked)} configurations of study {spec.name} by {spec.focus.says} on\n"
        f"# validation words: {best.contender.mean:.4f} over {len(best.contender.objectives)} "
        f"seed(s); {ties} other(s) cannot be told from it.\n"
        f"# Differs from the default in: {best.contender.label}. Step scale {spec.step_scale:g}.\n"
    )
    files.write_atomic(root.best_configs / f"{spec.name}_best.yaml", why + to_yaml(chosen.config))
