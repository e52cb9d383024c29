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

from tuning import files
from tuning.config import to_yaml
from tuning.errors import ResultsError, UserError
from tuning.fingerprint import training_key
from tuning.grid import Proposal, Result, check_size
from tuning.paths import ResultsRoot, StudyFolder
from tuning.records import TrialRecord, TrialStatus, intact_record
from tuning.study import StudySpec, ranking, read_spec
from tuning.trial import TrialRequest, record_failure, run_trial


class Watcher(Protocol):
    """Is told how a study goes on; draws progress, or nothing."""

    def trial_started(self, proposal: Proposal, index: int, total: int) -> None:
        """Trial `index` of `total`, counted from 1, begins."""

    def trial_moved(self, step: int, metrics: Mapping[str, float]) -> None:
        """The trial under way has made optimizer step `step`."""

    def trial_finished(self, record: TrialRecord, *, was_there: bool) -> None:
        """A trial ended, or was found finished."""


def run_study(
    spec: StudySpec, root: ResultsRoot, watcher: Watcher, *, retry_failed: bool = False
) -> list[TrialRecord]:
    """Run every trial of the study that has no record yet.

    Args:
        spec: What to do. A study of this name that was asked something else is left alone.
        root: All results hang off it.
        watcher: Told of everything.
        retry_failed: Run trials again that failed before.

    Returns:
        The records of all trials, in the order of the trials.

    Raises:
        UserError: The study exists with other settings, another driver runs it, the results
            cannot be written, or more than `max_failures` trials failed.
    """
    folder = root.study(spec.name)
    plan = spec.plan()
    check_size(plan)
    with files.exclusive_lock(folder.lock, f"study {spec.name}"):
        _write_spec(folder, spec)
        log_event(folder, "started", num_trials=plan.num_trials)
        budgets = {} if plan.is_adaptive else _budgets(plan)
        records: list[TrialRecord] = []
        results: list[Result] = []
        for index in range(plan.num_trials):
            # A function of the results before it, so the same after any interruption.
            proposal = plan.propose(index, results)
            watcher.trial_started(proposal, index + 1, plan.num_trials)
            record = intact_record(folder.trial(proposal.trial_id).record)
            was_there = True
            if record is None or (retry_failed and record.result.status is TrialStatus.FAILED):
                record, was_there = _run(spec, folder, root, proposal, budgets, watcher), False
            records.append(record)
            results.append(Result(proposal, _objectives(spec, record)))
            watcher.trial_finished(record, was_there=was_there)
            _check_failures(records, spec.max_failures)
        save_best(spec, root, records)
        log_event(folder, "finished", num_trials=len(records))
    return records


def _objectives(spec: StudySpec, record: TrialRecord) -> tuple[float, ...] | None:
    if record.result.status is not TrialStatus.COMPLETED:
        return None
    return tuple(focus.objective(record.result.metrics) for focus in spec.objectives)


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
        budgets=budgets.get(training_key(proposal.config), frozenset()),
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


def save_best(spec: StudySpec, root: ResultsRoot, records: Sequence[TrialRecord]) -> None:
    """Write the first of the ranking as a file that `--config` takes, with why it was chosen.

    Raises:
        ResultsError: The disk refuses.
    """
    ranked = ranking(spec, records)
    if not ranked:
        return
    best = ranked[0]
    winner = next(r for r in records if r.trial_id == best.contender.trial_ids[0])
    ties = sum(r.ties_with_best for r in ranked) - 1
    why = (
        f"# First of {len(ranked)} configurations of study {spec.name} by {spec.focus.says} on\n"
        f"# validation words: {best.contender.mean:.4f} over {len(best.contender.objectives)} "
        f"seed(s); {ties} other(s) cannot be told from it.\n"
        f"# Differs from the default in: {best.contender.label}. Step scale {spec.step_scale:g}.\n"
    )
    files.write_atomic(
        root.best_configs / f"{spec.name}_best.yaml", why + to_yaml(spec.config_of(winner))
    )
