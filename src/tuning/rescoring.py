"""Another objective over the same answers: every score of a study made again, without a model."""

from __future__ import annotations

import dataclasses

import pandas as pd
import yaml

from tuning import files, measures
from tuning.errors import ResultsError, UserError
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus, write_record
from tuning.scoring import OWN_WEIGHTS_SCORE, TRANSFER_SCORE, Focus, Weights, accuracy_name
from tuning.study import StudySpec, load_study, read_spec
from tuning.tasks.items import Task


def rescore(
    root: ResultsRoot, name: str, new_name: str, focus: Focus, weights: Weights | None
) -> StudySpec:
    """Make a study that asks what another one asked, ranked by something else.

    Its trials have the records that they would have if the study had been run so from the start;
    it can be resumed, and a bayesian search then follows the new objective.

    Args:
        root: All results hang off it.
        name: The study that was run.
        new_name: The study to make; one that was made so before is made again.
        focus: What trials are ranked by.
        weights: Of the transfer score, if not those of the focus.

    Returns:
        What the new study is asked.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: Stored answers are missing or do not give what a record says.
        UserError: Another study has the new name.
    """
    spec, records = load_study(root, name)
    folder = root.study(new_name)
    if folder.spec.exists() and read_spec(folder).rescored_from != name:
        raise UserError(f"study {new_name} exists and is no rescoring of {name}; choose another")
    made = spec.model_copy(
        update={
            "name": new_name,
            "focus": focus,
            "score_weights": tuple(weights) if weights else None,
            "rescored_from": name,
        }
    )
    rescored = [_rescored(root, made, record) for record in records]
    with files.exclusive_lock(folder.lock, f"study {new_name}"):
        for record in rescored:
            place = folder.trial(record.trial_id)
            files.write_atomic(
                place.config, root.study(name).trial(record.trial_id).config.read_bytes()
            )
            write_record(place, record)
        # What was proposed, and what was pruned for which reason, stays true.
        kept = files.read_json_lines(root.study(name).events)
        files.write_json_lines(folder.events, [e for e in kept if e["event"] in _KEPT])
        text = yaml.safe_dump(made.model_dump(mode="json", by_alias=True), sort_keys=False)
        files.write_atomic(folder.spec, text)
    return made


_KEPT = ("proposed", "pruning", "promoted", "completed", "failed", "pruned")


def _rescored(root: ResultsRoot, spec: StudySpec, record: TrialRecord) -> TrialRecord:
    result = record.result
    if result.status is not TrialStatus.COMPLETED:
        return record
    metrics = {**result.metrics, **_stored_accuracies(root, record)}
    metrics[TRANSFER_SCORE] = measures.score_of(metrics, spec.weights)
    own = spec.config_of(record).transfer_config
    metrics[OWN_WEIGHTS_SCORE] = measures.score_of(
        metrics, Weights(own.position_task_weight, own.count_task_weight)
    )
    return dataclasses.replace(record, result=dataclasses.replace(result, metrics=metrics))


def _stored_accuracies(root: ResultsRoot, record: TrialRecord) -> dict[str, float]:
    """Return the accuracies of a trial's stored answers.

    Raises:
        ResultsError: They are missing, or other than the record says.
    """
    result = record.result
    assert result.evaluation_key is not None
    path = root.training(result.training_key).evaluation(result.evaluation_key)
    path = path / measures.PREDICTIONS
    try:
        answers = pd.read_parquet(path, columns=["task", measures.STRICT])
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"{path} is missing or damaged; run the study again, which asks the model anew"
        ) from error
    found = {}
    for task, rows in answers.groupby("task"):
        name = accuracy_name(Task(str(task)))
        found[name] = float(rows[measures.STRICT].to_numpy(dtype=float).mean())
        if found[name] != result.metrics[name]:
            raise ResultsError(
                f"{path} gives {name} {found[name]}, the record of trial {record.trial_id} says "
                f"{result.metrics[name]}; one of them was changed"
            )
    return found
