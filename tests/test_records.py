"""Laws of `tuning.records`: what was written comes back, what is damaged is said so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import ResultsError
from tuning.measures import (
    Accuracy,
    CountDetail,
    Drift,
    Gain,
    SpellingErrors,
    TaskResult,
    TemplateSpread,
)
from tuning.paths import TrialFolder
from tuning.records import (
    Execution,
    TrialRecord,
    TrialResult,
    TrialStatus,
    read_record,
    write_record,
)

METRICS = {
    "spelling/accuracy": 0.85,
    "transfer/position/accuracy": 0.75,
    "transfer/count/accuracy": 0.7,
    "transfer_learning_score": 0.87,
    "own_weights_score": 0.5,
}
EXECUTION = Execution(
    started_at="2026-11-22T09:00:00+00:00",
    finished_at="2026-11-22T09:10:00+00:00",
    host="laptop",
    train_seconds=12.5,
    evaluation_seconds=0.1,
    num_trained_tokens=123_456,
    peak_memory_bytes=2**31,
    num_threads=2,
    device="cpu",
    num_attempts=1,
    versions={"torch": "2.13.0"},
    log_tail="größer\n你好",
)
RATE = Accuracy(value=0.85, low=0.8, high=0.9, num_items=300, num_words=100)
GAIN = Gain(value=0.1, low=-0.05, high=0.25, num_better=40, num_worse=10, p_value=1e-5)
TASK = TaskResult(
    baseline=0.25,
    base=RATE,
    tuned=RATE,
    gain=GAIN,
    choice_base=RATE,
    choice_tuned=RATE,
    choice_gain=GAIN,
)
SPREAD = TemplateSpread(
    worst="apart/dashes", worst_accuracy=0.1, worst_base="spell/spaces", worst_base_accuracy=0.0
)
ERRORS = SpellingErrors(character_error_rate=1 / 6, mean_length_error=0.25)
DETAIL = CountDetail(
    recall={"0": 0.5, "1": 1.0, "2": 0.25, "3+": 0.0},
    balanced_accuracy=0.4375,
    mean_absolute_error=1.5,
    answers={"0": 3, "7": 1},
)
DRIFT = Drift(base_loss=2.5, tuned_loss=2.75, kl_divergence=0.125, num_tokens=511)
WHOLE = dataclasses.replace(
    TASK,
    lenient_base=RATE,
    lenient_tuned=RATE,
    lenient_gain=GAIN,
    unparseable_base=3,
    unparseable_tuned=0,
    templates=SPREAD,
    spelling_errors_base=ERRORS,
    spelling_errors_tuned=ERRORS,
    count_base=DETAIL,
    count_tuned=DETAIL,
)


def completed(**changes: Any) -> TrialRecord:
    result = TrialResult(
        status=TrialStatus.COMPLETED,
        training_key="0123456789abcdef0123",
        weights_key="0123456789abcdef0123@100",
        step=100,
        model="tiny (1.38 M parameters)",
        evaluation_key="ee",
        base_key="base_1",
        base_evaluation_key="ff",
        metrics=METRICS,
        tasks={"spelling": dataclasses.replace(TASK, choice_gain=None), "count": TASK},
    )
    record = TrialRecord(
        trial_id="0001-abc",
        parameters={"lora_r": 4},
        seed=3,
        result=result,
        execution=EXECUTION,
    )
    return dataclasses.replace(record, **changes)


def in_full() -> TrialRecord:
    """A record in which every field has a value of its own."""
    result = dataclasses.replace(
        completed().result,
        tasks={"spelling": WHOLE, "position": TASK, "count": WHOLE},
        base_arms={"four_shot": {"spelling": RATE, "count": RATE}, "oracle": {"position": RATE}},
        retention={"replay": DRIFT, "text": Drift(reason="tiny has no tokens for the text")},
        num_decoded=600,
        num_disagreements=2,
        left_out_words={"benchmark words": 3, "of another band": 0},
    )
    return completed(result=result)


def failed() -> TrialRecord:
    result = TrialResult(
        status=TrialStatus.FAILED,
        training_key="k",
        weights_key="k@1",
        step=0,
        model="tiny",
        error_type="OutOfMemoryError",
        error="no memory",
    )
    return completed(result=result)


@pytest.mark.parametrize(
    "record", [completed(), in_full(), failed()], ids=["completed", "in full", "failed"]
)
def test_a_record_comes_back_as_it_was_written(tmp_path: Path, record: TrialRecord) -> None:
    folder = TrialFolder(tmp_path / "trial")
    write_record(folder, record)
    again = read_record(folder.record)
    assert again == record
    assert isinstance(again.result.status, TrialStatus)
    assert all(isinstance(task, TaskResult) for task in again.result.tasks.values())
    first = folder.record.read_bytes()
    write_record(folder, again)
    assert folder.record.read_bytes() == first


def test_drift_comes_back_with_numbers_or_with_a_reason(tmp_path: Path) -> None:
    write_record(TrialFolder(tmp_path), in_full())
    found = read_record(tmp_path / "record.json").result.retention
    assert found == {"replay": DRIFT, "text": Drift(reason="tiny has no tokens for the text")}
    assert found["text"].base_loss is None
    assert found["text"].num_tokens == 0
    assert isinstance(found["replay"], Drift)


def test_details_of_a_task_come_back(tmp_path: Path) -> None:
    write_record(TrialFolder(tmp_path), in_full())
    found = read_record(tmp_path / "record.json").result
    assert found.tasks["count"].count_tuned == DETAIL
    assert found.tasks["count"].templates == SPREAD
    assert found.tasks["spelling"].spelling_errors_base == ERRORS
    assert found.tasks["position"].lenient_gain is None
    assert found.base_arms["oracle"]["position"] == RATE
    assert found.left_out_words == {"benchmark words": 3, "of another band": 0}


def test_a_record_without_what_later_versions_measure_is_read(tmp_path: Path) -> None:
    """Records of before the lenient reading, strata and retention are still records."""
    path = tmp_path / "record.json"
    write_record(TrialFolder(tmp_path), completed())
    raw = json.loads(path.read_text("utf-8"))
    for key in ("base_arms", "retention", "num_decoded", "num_disagreements", "left_out_words"):
        del raw["result"][key]
    for task in raw["result"]["tasks"].values():
        for key in ("lenient_gain", "templates", "count_base", "unparseable_base"):
            del task[key]
    path.write_text(json.dumps(raw))
    assert read_record(path) == completed()


PARAMETERS = st.dictionaries(
    st.sampled_from(["lora_r", "learning_rate", "spelling_difficulty", "target_modules"]),
    st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.text(),
)


@given(
    parameters=PARAMETERS,
    metrics=st.dictionaries(st.text(max_size=9), st.floats(-1, 2)),
    tail=st.text(max_size=30),
)
@settings(max_examples=30, deadline=None)
def test_numbers_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    parameters: dict[str, Any],
    metrics: dict[str, float],
    tail: str,
) -> None:
    record = completed(
        parameters=parameters,
        result=dataclasses.replace(completed().result, metrics=metrics | METRICS),
        execution=dataclasses.replace(EXECUTION, log_tail=tail),
    )
    folder = TrialFolder(tmp_path_factory.mktemp("record"))
    write_record(folder, record)
    again = read_record(folder.record)
    assert again == record
    assert {k: type(v) for k, v in again.parameters.items()} == {
        k: type(v) for k, v in parameters.items()
    }


def test_results_and_execution_are_separate_sections(tmp_path: Path) -> None:
    write_record(TrialFolder(tmp_path), completed())
    written = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert set(written) == {"trial_id", "parameters", "seed", "result", "execution"}
    costs = {"host", "started_at", "finished_at", "train_seconds", "peak_memory_bytes"}
    assert costs <= set(written["execution"])
    assert not costs & set(written["result"])


def test_results_yaml_holds_the_four_old_names(tmp_path: Path) -> None:
    write_record(TrialFolder(tmp_path), completed())
    assert yaml.safe_load((tmp_path / "results.yaml").read_text("utf-8")) == {
        "spelling_accuracy": 0.85,
        "position_accuracy": 0.75,
        "count_accuracy": 0.7,
        "transfer_score": 0.87,
    }


def test_a_failed_trial_has_a_record_and_no_results(tmp_path: Path) -> None:
    write_record(TrialFolder(tmp_path), failed())
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_the_record_comes_last_so_that_its_presence_means_done(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path / "trial")
    (tmp_path / "trial" / "results.yaml").mkdir(parents=True)
    with pytest.raises((OSError, ResultsError)):
        write_record(folder, completed())
    assert not folder.record.exists()


def test_completed_without_metrics_is_refused() -> None:
    with pytest.raises(ValueError, match="completed trial needs metrics"):
        dataclasses.replace(completed().result, metrics={})


def test_failed_without_a_message_is_refused() -> None:
    with pytest.raises(ValueError, match="failed trial needs an error message"):
        dataclasses.replace(failed().result, error=None)


def test_no_metric_may_be_nan(tmp_path: Path) -> None:
    metrics = METRICS | {"spelling/gain": float("nan")}
    record = completed(result=dataclasses.replace(completed().result, metrics=metrics))
    with pytest.raises(ValueError, match="JSON"):
        write_record(TrialFolder(tmp_path), record)
    assert not (tmp_path / "record.json").exists()


def test_a_trial_is_finished_when_it_ended_whatever_the_end() -> None:
    assert {status: status.is_finished for status in TrialStatus} == {
        TrialStatus.WAITING: False,
        TrialStatus.RUNNING: False,
        TrialStatus.PAUSED: False,
        TrialStatus.COMPLETED: True,
        TrialStatus.FAILED: True,
        TrialStatus.PRUNED: True,
    }


def damaged(tmp_path: Path, *keys: str, value: Any) -> Path:
    """Write a good record, then replace one value."""
    write_record(TrialFolder(tmp_path), completed())
    path = tmp_path / "record.json"
    raw = json.loads(path.read_text("utf-8"))
    place = raw
    for key in keys[:-1]:
        place = place[key]
    if value is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(raw), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("result",), ...),
        (("result", "step"), ...),
        (("result", "step"), "many"),
        (("result", "status"), "pending"),
        (("result", "metrics"), {"spelling/accuracy": "high"}),
        (("result", "metrics"), {}),
        (("result", "tasks", "count", "gain", "low"), None),
        (("result", "retention"), {"text": {"base_loss": "much"}}),
        (("result", "base_arms"), {"oracle": {"count": 0.5}}),
        (("result", "left_out_words"), {"benchmark words": "three"}),
        (("result", "num_decoded"), None),
        (("execution", "host"), None),
        (("seed",), None),
    ],
)
def test_a_damaged_record_is_one_clear_error(
    tmp_path: Path, keys: tuple[str, ...], value: Any
) -> None:
    path = damaged(tmp_path, *keys, value=value)
    with pytest.raises(ResultsError, match=rf"{path} is damaged: {keys[0]}") as caught:
        read_record(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"trial_id": "x"}'])
def test_what_is_no_record_is_one_clear_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=rf"{path} is damaged"):
        read_record(path)


def test_a_missing_record_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="is missing"):
        read_record(tmp_path / "record.json")
