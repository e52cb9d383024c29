"""The test split: read here and nowhere else, once for each configuration that is reported.

Validation words choose. Reading test words for one configuration after another, and then
reporting the best, would be choosing by them; so each read is an event of the study, and its
answer is kept and given again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tuning import files, measures
from tuning.config import ExperimentConfig
from tuning.errors import UserError
from tuning.evaluation.bench import Bench, new_bench
from tuning.evaluation.one_pass import OnProgress
from tuning.evaluation.stored import evaluate_adapter, evaluate_base
from tuning.fingerprint import resolved_precision
from tuning.measures import TaskResult
from tuning.model.base import subject_words, training_data_of
from tuning.model.machine import quiet_libraries, threads
from tuning.paths import ResultsRoot
from tuning.ranking import Contender
from tuning.records import TrialRecord
from tuning.study import (
    FinalTest,
    StudySpec,
    contenders,
    load_study,
    ranking,
    stored_tests,
)
from tuning.study_history import log_event
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.stream import read_training_text


def read_test_split(
    root: ResultsRoot, name: str, on_progress: OnProgress = lambda done, total: None
) -> list[FinalTest]:
    """Return what the first of the ranking, and the default, score on the test split.

    What was read before is given again; what was not is read now, and the read is an event.

    Args:
        root: All results hang off it.
        name: The study.
        on_progress: Told of items done, and of all, for each model.

    Raises:
        UserError: There is no such study, nothing of it is completed, or it is running.
    """
    spec, records = load_study(root, name)
    folder = root.study(name)
    with files.exclusive_lock(folder.lock, f"study {name}"):
        stored = stored_tests(root, name)
        known = {files.sha256_of_json(dict(test.parameters)): test for test in stored}
        reported = _reported(spec, records)
        for contender in reported:
            key = files.sha256_of_json(dict(contender.parameters))
            if key in known:
                continue
            log_event(
                folder,
                "test_read",
                parameters=dict(contender.parameters),
                trial_ids=list(contender.trial_ids),
            )
            known[key] = _read(spec, root, records, contender, on_progress)
            files.write_json(
                folder.final_test, [dataclasses.asdict(test) for test in known.values()]
            )
        return [known[files.sha256_of_json(dict(c.parameters))] for c in reported]


def _reported(spec: StudySpec, records: Sequence[TrialRecord]) -> list[Contender]:
    """Return the first of the ranking, and the default to compare it with."""
    ranked = ranking(spec, records)
    if not ranked:
        raise UserError(f"study {spec.name}: no trial has completed, so there is nothing to report")
    best = ranked[0].contender
    return [best, *(c for c in contenders(spec, records) if c.is_default and not best.is_default)]


def _read(
    spec: StudySpec,
    root: ResultsRoot,
    records: Sequence[TrialRecord],
    contender: Contender,
    on_progress: OnProgress,
) -> FinalTest:
    seeds = {}
    for record in records:
        if record.trial_id not in contender.trial_ids:
            continue
        config = spec.config_of(record)
        count = config.training_config.num_threads or spec.num_threads
        with quiet_libraries(), threads(count):
            bench = _test_bench(config)
            seeds[record.trial_id] = _results(root, bench, config, record, on_progress)
    return FinalTest(label=contender.label, parameters=dict(contender.parameters), seeds=seeds)


def _test_bench(config: ExperimentConfig) -> Bench:
    model, subset = config.tokenizer_config.model_name, config.tokenizer_config.subset
    words = split_subjects(subject_words(model, subset))[Split.TEST]
    precision = resolved_precision(config.training_config.precision)
    return new_bench(model, precision, config.evaluation_config, words, subset)


def _results(
    root: ResultsRoot,
    bench: Bench,
    config: ExperimentConfig,
    record: TrialRecord,
    on_progress: OnProgress,
) -> dict[str, TaskResult]:
    training, step = root.training(record.result.training_key), record.result.step
    data = training_data_of(config, bench.words[Split.TRAIN], bench.base.tokenizer)
    size = config.training_config.effective_batch_size
    trained = read_training_text(data.stream, step * size).words
    before = evaluate_base(bench, root, on_progress=on_progress)
    after = evaluate_adapter(bench, training.adapter(step), training, step, trained, on_progress)
    return measures.task_results(before.predictions, after.predictions, bench.baseline_of)
