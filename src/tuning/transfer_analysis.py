"""Everything that a study shows, from its folder alone: `tuning analyze`. Needs no model.

`analyze` reads records, stored answers and progress, `write_analysis` writes `analysis.json` and
tables, and the report draws what is in it. The parts are in `analysis/`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pydantic import TypeAdapter, ValidationError
from scipy import special

from tuning import files
from tuning.analysis.answers import StudyAnswers, TrialAnswers, read_answers
from tuning.analysis.configurations import ConfigurationSummary, Table, table_of
from tuning.analysis.confirmation import (
    Confirmation,
    FinalGain,
    confirmation_of,
    gains_on_test,
)
from tuning.analysis.costs import costs_of, equal_examples
from tuning.analysis.effects import DirectEffect, direct_effects
from tuning.analysis.influence import influences
from tuning.analysis.marginals import marginals
from tuning.analysis.pattern_sentences import sentences
from tuning.analysis.patterns import Curve, patterns_of
from tuning.analysis.relations import (
    ItemRelation,
    RunCorrelation,
    item_relations,
    plotted_runs,
    run_correlations,
)
from tuning.analysis.results import StudyAnalysis, TaskSummary, TrialRow
from tuning.analysis.strata import CountConfusion, Stratum, confusion_of, strata_of
from tuning.analysis.verdict import verdict
from tuning.analysis.vocabularies import VocabularyRow, missing_vocabularies, vocabularies_of
from tuning.analysis.vocabulary_sentences import vocabulary_sentences
from tuning.errors import ResultsError, UserError
from tuning.jobs import read_progress
from tuning.measures import STRICT, BaselineOf, baseline_from
from tuning.mixed_effects import word_variance
from tuning.paths import ResultsRoot
from tuning.ranking import Contender
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import Focus, accuracy_name, calculate_transfer_score
from tuning.search_space import Strategy
from tuning.statistics import CONFIDENCE
from tuning.study import (
    StudySpec,
    existing_spec,
    front,
    readable_records,
    stored_tests,
    study_names,
)
from tuning.tasks.baselines import guesser_from_json
from tuning.tasks.items import EVALUATED_TASKS, SCORED_TASKS, Task

__all__ = ["StudyAnalysis", "analyze", "calculate_transfer_score", "write_analysis"]


def analyze(root: ResultsRoot, name: str) -> StudyAnalysis:
    """Return the analysis of a study's finished trials.

    What is missing or damaged beside `study.yaml` is left out and said in `notes`.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: study.yaml is damaged.
    """
    spec = existing_spec(root, name)
    records, notes = readable_records(spec, root.study(name))
    completed = _with_status(records, TrialStatus.COMPLETED)
    answers = read_answers(root, completed)
    table = table_of(spec, answers, completed)
    curves, curve_notes = _curves(root, spec, completed, answers)
    patterns = patterns_of(curves)
    vocabularies = vocabularies_of(table)
    looks = _looks(answers, _shown(table))
    final_gains, test_notes = _final_gains(root, name)
    confirmation, fresh_notes = _confirmation(root, spec, table)
    first = completed[0].result if completed else None
    budget, equal = equal_examples(table.ranked, curves, spec.focus, spec.weights)
    runs = plotted_runs(table.standing)
    points, targets = _searched(spec, table)
    parameters = spec.space.points().parameters
    analysis = StudyAnalysis(
        study=name,
        model=first.model if first else spec.base.tokenizer_config.model_name,
        is_embedded_model=spec.base.tokenizer_config.model_name == "tiny",
        focus=spec.focus.value,
        focus_says=spec.focus.says,
        weights=(spec.weights.position_weight, spec.weights.count_weight),
        step_scale=spec.step_scale,
        confirms=spec.confirms,
        strategy=spec.space.strategy.value,
        untouched_objective=_untouched_objective(spec, completed),
        num_planned=spec.plan().num_trials,
        num_completed=len(completed),
        num_failed=len(_with_status(records, TrialStatus.FAILED)),
        num_pruned=len(_with_status(records, TrialStatus.PRUNED)),
        verdict=(),
        notes=[
            *(*_lost_records(root, name, records), *notes),
            *(*_mixtures(spec, completed), *answers.notes, *_no_guesser(root, completed)),
            *(*curve_notes, *test_notes, *fresh_notes),
        ],
        tasks=_tasks(root, completed, table.standing.tasks),
        configurations=table.ranked,
        controls=table.controls,
        base_arms=first.base_arms if first else {},
        num_tests=_num_tests(table),
        seed_deviation={
            key.removesuffix("/strict_correct"): spread.deviation if spread else None
            for key, spread in table.standing.spread.items()
            if key == "objective" or key.endswith("/strict_correct")
        },
        trials=[_trial_row(spec, record) for record in records],
        runs=runs,
        correlations=run_correlations(runs) if completed else [],
        item_relations=_item_relations(looks),
        effects=direct_effects(table),
        influences=influences(points, parameters, targets) if points else [],
        marginals=marginals(points, parameters, targets) if points else [],
        equal_examples_budget=budget,
        equal_examples=equal,
        costs=costs_of(table.ranked, table.standing.records),
        curves=curves,
        patterns=patterns,
        pattern_sentences=sentences(patterns),
        vocabularies=vocabularies,
        vocabulary_sentences=vocabulary_sentences(
            vocabularies, missing_vocabularies(vocabularies, spec, records)
        ),
        strata=_strata(root, answers, table, looks),
        confusion=_confusion(looks),
        confirmation=confirmation,
        final_gains=final_gains,
        front=front(spec, completed),
        provenance=_provenance(spec, records),
    )
    return dataclasses.replace(analysis, verdict=verdict(analysis))


def _with_status(records: Sequence[TrialRecord], status: TrialStatus) -> list[TrialRecord]:
    return [record for record in records if record.result.status is status]


def _shown(table: Table) -> list[ConfigurationSummary]:
    """Return the configurations that are looked at closely: the default and the best."""
    default = [table.default] if table.default else []
    best = table.ranked[:1]
    return [*default, *(row for row in best if not row.is_default)]


def _untouched_objective(spec: StudySpec, completed: Sequence[TrialRecord]) -> float | None:
    if not completed:
        return None
    if spec.focus is not Focus.BALANCED:
        return 0.0
    tasks = completed[0].result.tasks
    spelling, position, count = (tasks[task.value].base.value for task in SCORED_TASKS)
    return calculate_transfer_score(spelling, position, count, *spec.weights)


def _mixtures(spec: StudySpec, completed: Sequence[TrialRecord]) -> list[str]:
    """Say where trials of one study were not measured alike."""
    notes = []
    bases = {(r.result.base_key, r.result.base_evaluation_key) for r in completed}
    # Each vocabulary has an untouched model of its own, which the study asked for.
    vocabularies = {spec.config_of(r).tokenizer_config.subset for r in completed}
    other_words = [rule for rule in vocabularies if rule is not None and not rule.keeps_all_words]
    if other_words and len(vocabularies) > 1:
        notes.append(
            f"the vocabulary {other_words[0].value} was asked about other words: levels and "
            "rankings across vocabularies are not of one kind"
        )
    if len(bases) > max(1, len(vocabularies)):
        notes.append(
            f"trials were compared with {len(bases)} different untouched models or suites (model, "
            "precision or evaluation sizes differ): each gain is against its own, but levels and "
            "rankings across them are not of one kind"
        )
    differing = sorted(
        name
        for name in {name for r in completed for name in r.execution.versions}
        if len({r.execution.versions.get(name) for r in completed}) > 1
    )
    if differing:
        notes.append(f"trials ran with different versions of {', '.join(differing)}")
    threads = {r.execution.num_threads for r in completed}
    if len(threads) > 1:
        numbers = ", ".join(map(str, sorted(threads)))
        notes.append(f"trials ran with different numbers of threads ({numbers})")
    return notes


def _tasks(
    root: ResultsRoot, completed: Sequence[TrialRecord], tasks: Sequence[Task]
) -> dict[str, TaskSummary]:
    if not completed:
        return {}
    result = completed[0].result
    raw = _scores(root, result.training_key, result.evaluation_key).get("mix")
    mix = raw if isinstance(raw, dict) else {}
    of_task = {task.value: result.tasks[task.value] for task in tasks}
    return {
        task: TaskSummary(
            base=found.base,
            choice=found.choice_base,
            lenient=found.lenient_base,
            baseline=found.baseline,
            mix=_counts(mix.get(task)),
        )
        for task, found in of_task.items()
    }


def _counts(raw: Any) -> dict[str, int]:
    """Return numbers of items by name, as far as a file holds them."""
    items = raw.items() if isinstance(raw, dict) else ()
    return {name: number for name, number in items if isinstance(number, int)}


def _scores(root: ResultsRoot, key: str | None, evaluation_key: str | None) -> dict[str, Any]:
    """Return what an evaluation stored beside its answers; nothing if that is gone."""
    if key is None or evaluation_key is None:
        return {}
    path = root.training(key).evaluation(evaluation_key) / "scores.json"
    try:
        found = files.read_json(path) if path.is_file() else {}
    except ResultsError:
        return {}
    return found if isinstance(found, dict) else {}


def _num_tests(table: Table) -> dict[str, int]:
    compared = sum(row.over_default is not None for row in table.ranked)
    return {
        "default against untouched, position and count": 2 if table.default else 0,
        "configurations against the default": compared,
        "configurations against the best": max(0, len(table.ranked) - 1),
        "gains in position and count, all configurations": 2 * len(table.ranked),
    }


def _searched(spec: StudySpec, table: Table) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Return the points of a search and what came of them; nothing for a one-at-a-time design."""
    if spec.space.strategy in (Strategy.ONE_AT_A_TIME, Strategy.LISTED) or not table.ranked:
        return [], {}
    plan = spec.plan()
    points = [dict(plan.point_of(row.parameters)) for row in table.ranked]
    targets = {
        task.value: [row.gains[task.value].gain.value for row in table.ranked]
        for task in SCORED_TASKS
    }
    return points, {**targets, "objective": [row.objective.value for row in table.ranked]}


def _trial_row(spec: StudySpec, record: TrialRecord) -> TrialRow:
    result, execution = record.result, record.execution
    training = spec.config_of(record).training_config
    bare = Contender(parameters=record.parameters, trial_ids=[], objectives=[])
    row = TrialRow(
        trial_id=record.trial_id,
        label=bare.label,
        parameters=record.parameters,
        seed=record.seed,
        status=result.status.value,
        num_steps=result.step,
        num_examples=result.step * training.effective_batch_size,
        train_seconds=execution.train_seconds,
        evaluation_seconds=execution.evaluation_seconds,
        training_key=result.training_key,
        remark=result.reason or (f"{result.error_type}: {result.error}" if result.error else ""),
    )
    if result.status is not TrialStatus.COMPLETED:
        return row
    return dataclasses.replace(
        row,
        objective=spec.focus.objective(result.metrics),
        accuracy={task: found.tuned.value for task, found in result.tasks.items()},
        gain={task: found.gain.value for task, found in result.tasks.items()},
        choice_gain={
            task: found.choice_gain.value
            for task, found in result.tasks.items()
            if found.choice_gain is not None
        },
        transfer_learning_score=result.metrics.get("transfer_learning_score"),
        own_weights_score=result.metrics.get("own_weights_score"),
    )


def _curves(
    root: ResultsRoot,
    spec: StudySpec,
    completed: Sequence[TrialRecord],
    answers: StudyAnswers,
) -> tuple[list[Curve], list[str]]:
    curves, notes = [], []
    for record in completed:
        try:
            lines = read_progress(root.training(record.result.training_key))
        except ResultsError as error:
            notes.append(f"trial {record.trial_id}: no learning curve: {error}")
            continue
        curve = _curve(spec, record, lines, answers.trials[record.trial_id])
        if curve is None:
            notes.append(f"trial {record.trial_id}: no learning curve: nothing was measured")
        else:
            curves.append(curve)
    return curves, notes


def _curve(
    spec: StudySpec,
    record: TrialRecord,
    lines: Sequence[Mapping[str, Any]],
    answers: TrialAnswers,
) -> Curve | None:
    on_the_way = sorted(
        (x for x in lines if x["kind"] == "evaluation" and x["step"] <= record.result.step),
        key=lambda x: int(x["step"]),
    )
    if not on_the_way:
        return None
    config = spec.config_of(record)
    size = config.training_config.effective_batch_size
    sizes = config.evaluation_config
    # The monitor suite is a part of the final one, so its gains vary as much more as it is smaller.
    scale = (sizes.num_words / sizes.num_monitor_words) ** 0.5
    # A band for the whole curve: as many looks as evaluations after the first (Bonferroni).
    looks = max(1, len(on_the_way) - 1)
    scale *= float(special.ndtri(1 - (1 - CONFIDENCE) / 2 / looks))
    return Curve(
        label=Contender(parameters=record.parameters, trial_ids=[], objectives=[]).label,
        trial_id=record.trial_id,
        training_key=record.result.training_key,
        parameters=record.parameters,
        steps=[int(x["step"]) for x in on_the_way],
        examples=[int(x["step"]) * size for x in on_the_way],
        accuracies={
            task.value: [x[accuracy_name(task)] for x in on_the_way]
            for task in EVALUATED_TASKS
            if all(accuracy_name(task) in x for x in on_the_way)
        },
        num_words=sizes.num_monitor_words,
        noise={
            task.value: scale * word_variance(answers.gains[task, STRICT]) ** 0.5
            for task in EVALUATED_TASKS
            if (task, STRICT) in answers.gains
        },
    )


# --- the default and the best, item by item ---------------------------------------------------


class _Look(NamedTuple):
    """One configuration with all its answers."""

    row: ConfigurationSummary
    base: pd.DataFrame
    frames: list[pd.DataFrame]
    """Of each seed."""
    is_first: bool
    """Whether the untouched model is described beside it."""


def _looks(answers: StudyAnswers, shown: Sequence[ConfigurationSummary]) -> list[_Look]:
    """Return the configurations that have stored answers for every seed."""
    found = []
    for place, row in enumerate(shown):
        if not all(answers.trials[trial_id].is_paired for trial_id in row.trial_ids):
            continue
        base = answers.base_frame(row.trial_ids[0])
        frames = [f for f in map(answers.frame, row.trial_ids) if f is not None]
        if base is not None and frames:
            found.append(_Look(row, base, frames, place == 0))
    return found


def _item_relations(looks: Sequence[_Look]) -> list[ItemRelation]:
    found = []
    for look in looks:
        if look.is_first:
            found += item_relations([look.base], "untouched", "untouched")
        found += item_relations(look.frames, "tuned", look.row.label)
    return found


def _confusion(looks: Sequence[_Look]) -> list[CountConfusion]:
    found = []
    for look in looks:
        if look.is_first:
            found += confusion_of("untouched", [look.base])
        found += confusion_of(look.row.label, look.frames)
    return found


def _strata(
    root: ResultsRoot, answers: StudyAnswers, table: Table, looks: Sequence[_Look]
) -> list[Stratum]:
    found = []
    for row, base, frames, _ in looks:
        baseline_of = _baseline_of(root, answers.records[row.trial_ids[0]])
        found += strata_of(row.label, base, frames, baseline_of, table.standing.spread)
    return found


def _no_guesser(root: ResultsRoot, completed: Sequence[TrialRecord]) -> list[str]:
    if not completed or _baseline_of(root, completed[0]) is not None:
        return []
    return [
        "the evaluation stored no letter guesser (scores.json is damaged, or of an older version): "
        "strata have no word-blind baseline"
    ]


def _baseline_of(root: ResultsRoot, record: TrialRecord) -> BaselineOf | None:
    result = record.result
    for keys in (
        (result.base_key, result.base_evaluation_key),
        (result.training_key, result.evaluation_key),
    ):
        try:
            return baseline_from(guesser_from_json(_scores(root, *keys).get("letter_guesser")))
        except ValueError:
            continue
    return None


def _confirmation(
    root: ResultsRoot, spec: StudySpec, table: Table
) -> tuple[Confirmation | None, list[str]]:
    """Return what fresh seeds say, if `tuning study confirm` was run; the newest such study."""
    found, unread = [], []
    for name in study_names(root):
        try:
            fresh = existing_spec(root, name)
            if fresh.confirms == spec.name:
                read = readable_records(fresh, root.study(name))
                found.append((fresh.base.timestamp, name, fresh, read))
        except UserError as error:
            if name.startswith(f"{spec.name}_confirm"):
                unread.append(f"what fresh seeds say is left out: {error}")
    for _, name, fresh, (records, notes) in sorted(found, key=lambda f: f[:2], reverse=True):
        completed = _with_status(records, TrialStatus.COMPLETED)
        answers = read_answers(root, completed)
        confirmation = confirmation_of(table, table_of(fresh, answers, completed), name)
        if confirmation is not None:
            told = [f"study {name}: {note}" for note in (*notes, *answers.notes)]
            return confirmation, [*unread, *told]
        unread += [f"study {name} confirms nothing that can be read: {note}" for note in notes]
    return None, unread


def _lost_records(root: ResultsRoot, name: str, records: Sequence[TrialRecord]) -> list[str]:
    """Say which trials have ended by the study's events, and have no record."""
    try:
        events = files.read_json_lines(root.study(name).events)
    except ResultsError as error:
        return [f"the list of events is damaged, so lost trials would not be noticed: {error}"]
    ended = {
        str(event.get("trial_id"))
        for event in events
        if event.get("event") in ("completed", "failed", "pruned")
    }
    folder = root.study(name)
    known = {record.trial_id for record in records}
    lost = sorted(t for t in ended - known if not folder.trial(t).record.exists())
    if not lost:
        return []
    some = ", ".join(lost[:3]) + (", ..." if len(lost) > 3 else "")
    return [f"{len(lost)} trials have ended but have no record: {some}"]


def _final_gains(root: ResultsRoot, name: str) -> tuple[list[FinalGain], list[str]]:
    try:
        return gains_on_test(stored_tests(root, name)), []
    except ResultsError as error:
        return [], [f"what was read of the test split is left out: {error}"]


def _provenance(spec: StudySpec, records: Sequence[TrialRecord]) -> dict[str, Any]:
    completed = _with_status(records, TrialStatus.COMPLETED)
    return {
        "created": spec.base.timestamp,
        "seed": spec.seed,
        "space": spec.space.strategy.value,
        "default configuration": spec.base.model_dump(mode="json"),
        "untouched models": sorted({r.result.base_key for r in completed if r.result.base_key}),
        "trainings": len({r.result.training_key for r in completed}),
        "hosts": sorted({r.execution.host for r in records}),
        "devices": sorted({r.execution.device for r in completed}),
        "versions": dict(completed[0].execution.versions) if completed else {},
        "threads": sorted({r.execution.num_threads for r in completed}),
        "training minutes": round(sum(r.execution.train_seconds for r in records) / 60, 2),
        "evaluation minutes": round(sum(r.execution.evaluation_seconds for r in records) / 60, 2),
        "minutes of trials that failed or were stopped": round(
            sum(r.execution.train_seconds for r in records if r not in completed) / 60, 2
        ),
        "peak memory, MiB": max(
            (r.execution.peak_memory_bytes // 2**20 for r in completed), default=None
        ),
        "trained tokens": sum(r.execution.num_trained_tokens for r in completed),
        "answers decoded freely": sum(r.result.num_decoded for r in completed),
        "of these unlike one pass": sum(r.result.num_disagreements for r in completed),
    }


# --- files --------------------------------------------------------------------------------------

_ANALYSIS = TypeAdapter(StudyAnalysis)


def write_analysis(root: ResultsRoot, analysis: StudyAnalysis) -> Path:
    """Write `transfer/{study}_analysis.json`, and tables of it as CSV; return its path.

    Raises:
        ResultsError: The disk refuses.
    """
    path = root.analysis(analysis.study)
    files.write_json(path, dataclasses.asdict(analysis))
    for name, rows in tables_of(analysis).items():
        heads = [field.name for field in dataclasses.fields(_ROWS[name])]
        files.write_atomic(root.transfer / f"{analysis.study}_{name}.csv", to_csv(rows, heads))
    return path


def read_analysis(root: ResultsRoot, name: str) -> StudyAnalysis:
    """Read an analysis that was written.

    Raises:
        ResultsError: It is missing or damaged.
    """
    path = root.analysis(name)
    try:
        return _ANALYSIS.validate_json(json.dumps(files.read_json(path)))
    except ValidationError as error:
        raise ResultsError(f"{path} is damaged: {error.errors()[0]['msg']}") from error


def tables_of(analysis: StudyAnalysis) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of an analysis, flat, by name: configurations, trials, and more."""
    return {
        "configurations": [_flat(row) for row in (*analysis.configurations, *analysis.controls)],
        "trials": [_flat(row) for row in analysis.trials],
        "correlations": [_flat(row) for row in analysis.correlations],
        "effects": [_flat(row) for row in analysis.effects],
        "vocabularies": [_flat(row) for row in analysis.vocabularies],
        "strata": [_flat(row) for row in analysis.strata],
    }


_ROWS: Mapping[str, type[Any]] = {
    "configurations": ConfigurationSummary,
    "trials": TrialRow,
    "correlations": RunCorrelation,
    "effects": DirectEffect,
    "vocabularies": VocabularyRow,
    "strata": Stratum,
}
"""What the rows of each table are."""


def _flat(row: Any) -> dict[str, Any]:
    """Return a record as one row: nested names are joined with dots."""
    found: dict[str, Any] = {}

    def add(name: str, value: Any) -> None:
        if isinstance(value, dict) and name != "parameters":
            for key, inner in value.items():
                add(f"{name}.{key}" if name else key, inner)
        elif isinstance(value, dict | list | tuple):
            found[name] = json.dumps(value, sort_keys=True)
        else:
            found[name] = value

    add("", dataclasses.asdict(row))
    return found


def to_csv(rows: Sequence[Mapping[str, Any]], heads: Sequence[str] = ()) -> str:
    """Return rows as CSV. What a spreadsheet would run as a formula is preceded by a quote.

    Args:
        rows: The rows.
        heads: Names of the columns where there are no rows.
    """
    names = list(dict.fromkeys(name for row in rows for name in row)) or list(heads)
    text = io.StringIO()
    # As RFC 4180 has it; a lone carriage return within a text is quoted only so.
    writer = csv.DictWriter(text, names, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


_FORMULA = ("=", "+", "-", "@", "\t", "\r")
