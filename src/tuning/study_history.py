"""What a study was asked and what has happened to it, written and read back.

The driver (`executor.py`) decides; here its decisions become lines of `events.jsonl`, and lines
become what an earlier run of the study decided. Best configurations are written here too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import yaml

from tuning import files
from tuning.config import to_yaml
from tuning.errors import LockedError, ResultsError
from tuning.jobs import read_progress
from tuning.paths import ResultsRoot, StudyFolder, TrainingFolder
from tuning.records import TrialRecord, TrialStatus, intact_record
from tuning.study import StudySpec, check_event, front, ranking, read_spec, trial_index

# --- what it was asked ------------------------------------------------------------------------


def agreed_spec(folder: StudyFolder, spec: StudySpec) -> StudySpec:
    """Write what the study is asked, or take what it was asked before.

    Raises:
        ResultsError: It was asked something else.
    """
    if not folder.spec.exists():
        _write_spec(folder, spec)
        return spec
    stored = read_spec(folder)
    refuse_other(stored, spec, folder)
    if stored.space != spec.space:
        stored = stored.model_copy(update={"space": spec.space})
        _write_spec(folder, stored)
    return stored.model_copy(update={"max_failures": spec.max_failures})


def _write_spec(folder: StudyFolder, spec: StudySpec) -> None:
    text = yaml.safe_dump(spec.model_dump(mode="json", by_alias=True), sort_keys=False)
    files.write_atomic(folder.spec, text)


def _is_longer(spec: StudySpec, stored: StudySpec) -> bool:
    """Whether a study only lists more configurations behind those it had: trials stay the same."""
    listed, known = spec.space.configurations, stored.space.configurations
    as_before = spec.space.model_copy(update={"configurations": known})
    return len(listed) > len(known) and listed[: len(known)] == known and as_before == stored.space


def refuse_other(stored: StudySpec, spec: StudySpec, folder: StudyFolder) -> None:
    """Refuse to go on with a study that was asked something else; a list may become longer.

    Raises:
        ResultsError: It was.
    """
    if _is_longer(spec, stored):
        stored = stored.model_copy(update={"space": spec.space})
    for name in ("space", "base", "focus", "step_scale", "seed", "score_weights", "deterministic"):
        if getattr(stored, name) != getattr(spec, name):
            raise ResultsError(
                f"study {spec.name} exists with another {name.replace('_', ' ')}; "
                f"choose another --name, or remove {folder.root}"
            )


# --- what happened ----------------------------------------------------------------------------


@dataclass
class Past:
    """What the events tell of trials that are not finished."""

    proposed: dict[int, tuple[dict[str, Any], int]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    """Trials that were submitted at least once."""
    finished: set[str] = field(default_factory=set)
    pruning: dict[str, tuple[int, str]] = field(default_factory=dict)
    promoted: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def past_of(folder: StudyFolder) -> Past:
    """Read what earlier runs of the study decided.

    Raises:
        ResultsError: The events are damaged.
    """
    past = Past()
    for event in files.read_json_lines(folder.events, check_event):
        trial_id, kind = event.get("trial_id"), event["event"]
        if kind == "proposed":
            past.proposed[trial_index(event["trial_id"])] = (event["parameters"], event["seed"])
        elif kind == "submitted":
            past.begun.add(event["trial_id"])
        elif kind == "pruning":
            past.pruning[event["trial_id"]] = (event["step"], event["reason"])
        elif kind == "promoted":
            past.promoted[event["trial_id"]] = event["step"]
        elif kind == "ended":
            past.seconds += event["seconds"]
        elif trial_id is not None and TrialStatus.__members__.get(kind.upper()):
            past.finished.add(trial_id)
    return past


def recall_lost(folder: StudyFolder, past: Past) -> None:
    """Have the records tell what lost events would have told of proposals."""
    for record in recorded(folder):
        past.proposed.setdefault(
            trial_index(record.trial_id), (dict(record.parameters), record.seed)
        )


def recorded(folder: StudyFolder) -> Iterator[TrialRecord]:
    """Yield the intact records of a study, in the order of its trials; others do not count."""
    for path in sorted(folder.trials.glob("*/record.json")):
        record = intact_record(path)
        if record is not None and trial_index(record.trial_id) >= 0:
            yield record


def log_event(folder: StudyFolder, event: str, **values: Any) -> None:
    """Append what happened to the study's events.

    Raises:
        ResultsError: The disk refuses.
    """
    at = datetime.now(UTC).isoformat(timespec="seconds")
    told = {name: value for name, value in values.items() if value is not None}
    files.append_json_line(folder.events, {"event": event, "at": at, **told})


def mend_progress(folder: TrainingFolder) -> None:
    """Write lines that the file has lost again, from the newest checkpoint's memory of them."""
    steps = files.steps_of(folder.checkpoints)
    if not steps:
        return
    with contextlib.suppress(LockedError), files.exclusive_lock(folder.lock, "a training"):
        lines = read_progress(folder)
        try:
            known = files.read_json(folder.checkpoint(steps[-1]) / "tree.json")["progress"]
        except (ResultsError, KeyError, TypeError):
            return
        if len(known) > sum(line["step"] <= steps[-1] for line in lines):
            later = [line for line in lines if line["step"] > steps[-1]]
            files.write_json_lines(folder.progress, [*known, *later])


# --- what was found ---------------------------------------------------------------------------


def save_best(spec: StudySpec, root: ResultsRoot, records: Sequence[TrialRecord]) -> None:
    """Write the first of the ranking as a file that `--config` takes, with why it was chosen.

    With several objectives also every configuration that no other beats in all of them.

    Raises:
        ResultsError: The disk refuses.
    """
    ranked = ranking(spec, records)
    if not ranked:
        return
    by_id: Mapping[str, TrialRecord] = {record.trial_id: record for record in records}
    best = ranked[0]
    why = (
        f"# First of {len(ranked)} configurations of study {spec.name} by {spec.focus.says} on\n"
        f"# validation words: {best.contender.mean:.4f} over {len(best.contender.objectives)} "
        f"seed(s). The report says which others cannot be told from it.\n"
        f"# Differs from the default in: {best.contender.label}. Step scale {spec.step_scale:g}.\n"
    )
    winner = by_id[best.contender.trial_ids[0]]
    files.write_atomic(root.best_config(spec.name), why + to_yaml(spec.config_of(winner)))
    for place, member in enumerate(front(spec, records), start=1):
        values = ", ".join(
            f"{focus.says} {value:.4f}"
            for focus, value in zip(spec.objectives, member.values, strict=True)
        )
        why = (
            f"# {place} of the configurations of study {spec.name} that no other beats in all of\n"
            f"# its objectives on validation words: {values}.\n"
            f"# Differs from the default in: {member.label}. Step scale {spec.step_scale:g}.\n"
        )
        config = spec.config_of(by_id[member.trial_ids[0]])
        files.write_atomic(root.best_config(spec.name, place), why + to_yaml(config))
