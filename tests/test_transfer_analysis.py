"""The analysis of a whole study: honest at every size, in every state of its folders."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from analysis_support import NAME, Planted, control, copy_of, plant
from planted_study import Effect
from tuning import files
from tuning.errors import NotFoundError, ResultsError, UserError
from tuning.measures import PREDICTIONS
from tuning.paths import ResultsRoot
from tuning.scoring import calculate_transfer_score
from tuning.study import existing_spec, readable_records
from tuning.transfer_analysis import (
    StudyAnalysis,
    analyze,
    read_analysis,
    tables_of,
    to_csv,
    write_analysis,
)

SPACE = {"HPARAM_CANDIDATES": {"lora_r": [4, 32]}, "replicates_of_default": 2}
SMALL = {"num_words": 30, "num_monitor_words": 6, "num_generated_items": 18}
LEARNS = Effect(spelling=0.2, position=0.1)


@pytest.fixture(scope="module")
def study() -> Planted:
    return plant(LEARNS, SPACE, **SMALL)


@pytest.fixture
def root(study: Planted, fast_path: Path) -> ResultsRoot:
    """Return a copy of the study's folders, to be damaged."""
    return copy_of(study, fast_path)


def written(root: ResultsRoot, name: str = NAME) -> StudyAnalysis:
    """Return the analysis, as it is read back from its file, and check what was written."""
    analysis = analyze(root, name)
    write_analysis(root, analysis)
    assert read_analysis(root, name) == analysis
    for table, rows in tables_of(analysis).items():
        frame = pd.read_csv(root.transfer / f"{name}_{table}.csv")
        assert len(frame) == len(rows)
    assert analysis.verdict
    assert isinstance(analysis.notes, list)
    return analysis


# --- at every size ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({"missing": range(4)}, (0, 0, 0)),
        ({"missing": [1, 2, 3]}, (1, 0, 0)),
        ({"missing": [2, 3]}, (2, 0, 0)),
        ({"missing": [0, 1]}, (2, 0, 0)),
        ({"failed": range(4)}, (0, 4, 0)),
        ({"pruned": range(4)}, (0, 0, 4)),
        ({"failed": [0, 1]}, (2, 2, 0)),
        ({"failed": [0], "pruned": [3]}, (2, 1, 1)),
        ({"with_predictions": False}, (4, 0, 0)),
        ({"with_predictions": False, "missing": [1, 2, 3]}, (1, 0, 0)),
    ],
    ids=str,
)
def test_a_study_of_any_size_has_an_analysis(options: Any, counts: tuple[int, int, int]) -> None:
    study = plant(LEARNS, SPACE, **SMALL, **options)
    analysis = written(study.root)
    assert analysis.num_planned == 4
    found = (analysis.num_completed, analysis.num_failed, analysis.num_pruned)
    assert found == counts
    assert len(analysis.trials) == sum(counts)
    assert len(analysis.configurations) <= counts[0]
    if counts[0] == 0:
        assert "nothing to conclude" in analysis.verdict[0]
        assert analysis.untouched_objective is None
        assert not analysis.tasks
    if counts[0] == 1:
        assert any("of this adapter, not of this configuration" in s for s in analysis.verdict)
    if not options.get("with_predictions", True):
        assert any("gains are those of the record" in note for note in analysis.notes)
        assert analysis.strata == analysis.item_relations == analysis.confusion == []
    else:
        assert analysis.notes == []


def test_every_trial_has_a_row_with_what_became_of_it() -> None:
    study = plant(LEARNS, SPACE, failed=[2], pruned=[3], **SMALL)
    rows = {row.trial_id: row for row in study.analysis.trials}
    for trial_id, record in study.records.items():
        row, result = rows[trial_id], record.result
        assert (row.seed, row.status, row.num_steps) == (
            record.seed,
            result.status.value,
            result.step,
        )
        assert row.num_examples == 8 * result.step
        if result.status == "completed":
            assert row.remark == ""
            assert row.objective == result.metrics["transfer_learning_score"]
            assert row.gain == {t: r.gain.value for t, r in result.tasks.items()}
            assert set(row.choice_gain) == {"position", "count"}
            levels = [row.accuracy[t] for t in ("spelling", "position", "count")]
            assert row.transfer_learning_score == pytest.approx(calculate_transfer_score(*levels))
        else:
            assert row.objective is None
            assert row.accuracy == {}
    assert [row.remark for row in rows.values()][2:] == [
        "RuntimeError: planted failure",
        "planted: poor at step 8",
    ]


def test_the_analysis_is_a_pure_function_of_the_folders(study: Planted) -> None:
    assert analyze(study.root, NAME) == analyze(study.root, NAME) == study.analysis


def test_the_untouched_models_own_objective(study: Planted) -> None:
    base = [study.analysis.tasks[t].base.value for t in ("spelling", "position", "count")]
    assert study.analysis.untouched_objective == pytest.approx(calculate_transfer_score(*base))


def test_the_mix_of_items_is_printed_with_the_tasks(study: Planted) -> None:
    mix = study.analysis.tasks["spelling"].mix
    assert mix["spell/spaces"] == SMALL["num_words"]


# --- what cannot be had -------------------------------------------------------------------------


def test_a_study_that_is_not_there_is_named_with_those_that_are(study: Planted) -> None:
    with pytest.raises(NotFoundError, match="no such study"):
        analyze(study.root, "plantet")


@pytest.mark.parametrize("content", ["", "a: [1", "name: planted", "[]", "\x00", "space: {}\n"])
def test_a_damaged_study_yaml_is_one_clean_line(root: ResultsRoot, content: str) -> None:
    root.study(NAME).spec.write_text(content)
    with pytest.raises(ResultsError, match=r"study.yaml is damaged") as raised:
        analyze(root, NAME)
    assert "\n" not in str(raised.value)


# --- damage -------------------------------------------------------------------------------------


def records_of(root: ResultsRoot) -> list[Path]:
    return sorted(root.study(NAME).trials.glob("*/record.json"))


@pytest.mark.parametrize(
    "content", ["", "{", "{}", "[]", "null", '{"trial_id": 3}', "\x00\x01", "NaN"]
)
def test_a_damaged_record_leaves_its_trial_out(root: ResultsRoot, content: str) -> None:
    path = records_of(root)[2]
    path.write_text(content)
    analysis = written(root)
    assert analysis.num_completed == 3
    (note,) = analysis.notes
    assert note.startswith(f"trial {path.parent.name} is left out: ")
    assert "\n" not in note


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of everything in a record."""
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


def without(record: Any, place: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(record)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    return changed


def with_value(record: Any, place: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(record)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    return changed


def test_a_record_without_any_one_of_its_parts_never_ends_the_analysis(root: ResultsRoot) -> None:
    """Each key deleted in turn: the trial is left out with a note, or the key was not needed."""
    path, folder, spec = records_of(root)[2], root.study(NAME), existing_spec(root, NAME)
    whole = json.loads(path.read_text())
    every = list(places(whole))
    assert len(every) > 200
    accepted = []
    for place in every:
        path.write_text(json.dumps(without(whole, place)))
        records, notes = readable_records(spec, folder)
        if len(records) == 4:
            accepted.append(place)
        else:
            (note,) = notes
            assert note.startswith(f"trial {path.parent.name} is left out: ")
    assert 10 < len(accepted) < len(every) - 50
    rng = np.random.default_rng(0)
    for index in rng.choice(len(accepted), 10, replace=False):
        path.write_text(json.dumps(without(whole, accepted[index])))
        assert analyze(root, NAME).num_completed == 4, accepted[index]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("trial_id",), "0000-00000000"),
        (("parameters",), {"lora_r": "many"}),
        (("parameters",), {"no_such": 3}),
        (("result", "training_key"), "../../elsewhere"),
        (("result", "base_key"), "a/b"),
        (("result", "tasks", "position", "base", "value"), 4.0),
        (("result", "tasks", "position", "base", "num_words"), 0),
        (("result", "metrics"), {"spelling/accuracy": 0.3}),
        (("result", "tasks"), {}),
    ],
    ids=str,
)
def test_a_record_that_reads_well_but_cannot_be_is_left_out(
    root: ResultsRoot, place: tuple[str, ...], value: Any
) -> None:
    path = records_of(root)[2]
    path.write_text(json.dumps(with_value(json.loads(path.read_text()), place, value)))
    analysis = written(root)
    assert analysis.num_completed == 3
    (note,) = analysis.notes
    assert note.startswith(f"trial {path.parent.name} is left out: ")


@pytest.mark.parametrize(
    "content",
    [b"{\n", b"[]\n", b'{"kind": "evaluation", "step": 0}\n', b"\xff\xfe\n", b"{}\n{}\n"],
    ids=str,
)
def test_damaged_progress_leaves_out_the_curve(root: ResultsRoot, content: bytes) -> None:
    paths = sorted(root.trainings.glob("*/progress.jsonl"))
    paths[0].write_bytes(content)
    analysis = written(root)
    assert len(analysis.curves) == 3
    (note,) = analysis.notes
    assert "no learning curve: " in note
    assert analysis.num_completed == 4


def test_progress_that_is_gone_or_torn_is_said(root: ResultsRoot) -> None:
    first, second, *_ = sorted(root.trainings.glob("*/progress.jsonl"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:-9])
    analysis = written(root)
    assert len(analysis.curves) == 3
    (note,) = analysis.notes
    assert note.endswith("no learning curve: nothing was measured")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"mix": 3, "letter_guesser": 4}',
        '{"mix": {"spelling": [1]}}',
        '{"letter_guesser": {"most_common": "e", "best": [[1]]}}',
    ],
)
def test_damaged_scores_leave_out_what_they_hold(root: ResultsRoot, content: str) -> None:
    for path in root.trainings.rglob("scores.json"):
        path.write_text(content)
    analysis = written(root)
    assert analysis.num_completed == 4
    assert all(not task.mix for task in analysis.tasks.values())
    assert analysis.strata
    assert all(stratum.baseline is None for stratum in analysis.strata)
    assert all(row.gains for row in analysis.configurations)


def test_without_the_untouched_models_answers_the_records_speak(root: ResultsRoot) -> None:
    (base,) = root.trainings.glob("base_*")
    shutil.rmtree(base)
    analysis = written(root)
    assert analysis.num_completed == 4
    assert (
        "answers of the untouched model are missing or damaged: gains are those of the record"
        in (analysis.notes)
    )
    assert analysis.strata == []


def test_records_and_answers_give_the_same_gains(study: Planted, root: ResultsRoot) -> None:
    for path in root.trainings.rglob(PREDICTIONS):
        path.unlink()
    recorded = written(root)
    for row in recorded.configurations:
        paired = study.row(row.label)
        for task, gain in row.gains.items():
            assert gain.gain.value == pytest.approx(paired.gains[task].gain.value)
            width, wanted = (g.gain.high - g.gain.low for g in (gain, paired.gains[task]))
            assert width > 0.9 * wanted, "what is not known does not make the interval narrower"


# --- mixtures -----------------------------------------------------------------------------------


def changed(root: ResultsRoot, index: int, change: Callable[[Any], None]) -> None:
    path = records_of(root)[index]
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_mixed_versions_and_threads_are_said(root: ResultsRoot) -> None:
    for index, version in enumerate(("2.8.0", "2.8.0", "2.9.0", "2.8.0")):
        changed(
            root,
            index,
            lambda record, v=version, n=index: record["execution"].update(
                versions={"torch": v, "python": "3.11"}, num_threads=1 + n // 3
            ),
        )
    notes = written(root).notes
    assert "trials ran with different versions of torch" in notes
    assert "trials ran with different numbers of threads (1, 2)" in notes


def test_mixed_precisions_have_two_untouched_models_and_each_its_own_gain(
    root: ResultsRoot,
) -> None:
    """Half of the trials are compared with the base in another precision: two keys, two bases."""
    (base,) = root.trainings.glob("base_*")
    other = base.with_name(f"{base.name}b")
    shutil.copytree(base, other)
    (path,) = other.rglob(PREDICTIONS)
    frame = pd.read_parquet(path)
    frame.loc[frame["task"] == "position", "strict_correct"] = False
    frame.to_parquet(path, index=False)
    for index in (2, 3):
        changed(root, index, lambda record: record["result"].update(base_key=other.name))
    analysis = written(root)
    assert any(
        note.startswith("trials were compared with 2 different untouched")
        for note in analysis.notes
    )
    gains = {row.label: row.gains["position"] for row in analysis.configurations}
    assert gains["lora_r=4"].before == 0
    assert gains["default"].before > 0
    assert len(analysis.provenance["untouched models"]) == 2


# --- half deleted -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(15))
def test_a_folder_half_deleted_never_ends_the_analysis(root: ResultsRoot, seed: int) -> None:
    rng = np.random.default_rng(seed)
    spec = root.study(NAME).spec
    every = sorted(p for p in root.root.rglob("*") if p not in (spec, *spec.parents))
    for path in every:
        if rng.random() < 0.25 * rng.random() * 2 and path.exists():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    analysis = written(root)
    assert analysis.num_completed <= 4
    assert analysis.verdict
    if analysis.num_completed and not list(root.trainings.rglob(PREDICTIONS)):
        assert any("gains are those of the record" in note for note in analysis.notes)


@pytest.mark.parametrize("seed", range(15))
def test_files_cut_short_or_scrambled_never_end_the_analysis(root: ResultsRoot, seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = sorted(p for p in root.root.rglob("*") if p.is_file() and p.name != "study.yaml")
    hit = [every[i] for i in rng.choice(len(every), 6, replace=False)]
    for path in hit:
        content = bytearray(path.read_bytes())
        if rng.random() < 0.5:
            path.write_bytes(bytes(content[: int(rng.integers(len(content)))]))
            continue
        for place in rng.integers(0, len(content), 5):
            content[place] = int(rng.integers(256))
        path.write_bytes(bytes(content))
    analysis = written(root)
    needed = {"record.json", PREDICTIONS}
    assert analysis.num_completed + len(analysis.notes) >= 4 or not needed & {p.name for p in hit}


def test_only_the_study_yaml_is_needed(root: ResultsRoot) -> None:
    for path in sorted(root.root.rglob("*"), reverse=True):
        if path.is_file() and path.name != "study.yaml":
            path.unlink()
    analysis = written(root)
    assert (analysis.num_completed, analysis.num_planned) == (0, 4)
    shutil.rmtree(root.trainings)
    shutil.rmtree(root.study(NAME).trials)
    assert written(root).verdict == analysis.verdict


def test_folders_in_the_place_of_files_are_damage_too(root: ResultsRoot) -> None:
    first, *_, record = records_of(root)
    training = root.training(json.loads(first.read_text())["result"]["training_key"])
    (parquet, *_), progress = sorted(training.root.rglob(PREDICTIONS)), training.progress
    for path in (record, parquet, progress):
        path.unlink()
        path.mkdir()
    analysis = written(root)
    assert analysis.num_completed == 3
    assert len(analysis.notes) >= 2


# --- files --------------------------------------------------------------------------------------


def test_an_analysis_reads_back_as_it_was(study: Planted, root: ResultsRoot) -> None:
    path = write_analysis(root, study.analysis)
    assert path == root.analysis(NAME)
    assert read_analysis(root, NAME) == study.analysis
    assert "NaN" not in path.read_text()
    assert "Infinity" not in path.read_text()
    full = control("speller")
    write_analysis(root, full.analysis)
    assert read_analysis(root, NAME) == full.analysis


@pytest.mark.parametrize("content", ["", "{}", '{"study": 3}'])
def test_a_damaged_analysis_is_one_clean_line(root: ResultsRoot, content: str) -> None:
    files.write_atomic(root.analysis(NAME), content)
    with pytest.raises(ResultsError, match="is damaged"):
        read_analysis(root, NAME)
    root.analysis(NAME).unlink()
    with pytest.raises(UserError, match="is missing"):
        read_analysis(root, NAME)


def test_tables_hold_the_numbers_of_the_analysis(study: Planted, root: ResultsRoot) -> None:
    write_analysis(root, study.analysis)
    frame = pd.read_csv(root.transfer / f"{NAME}_configurations.csv")
    for found, row in zip(frame.itertuples(), study.analysis.configurations, strict=True):
        assert found.label == row.label
        assert json.loads(found.parameters) == dict(row.parameters)
        assert json.loads(found.trial_ids) == list(row.trial_ids)
    values = frame["gains.position.gain.value"]
    wanted = [row.gains["position"].gain.value for row in study.analysis.configurations]
    assert list(values) == pytest.approx(wanted)
    trials = pd.read_csv(root.transfer / f"{NAME}_trials.csv", dtype={"trial_id": str})
    assert list(trials["trial_id"]) == [row.trial_id for row in study.analysis.trials]
    assert list(trials["gain.count"]) == pytest.approx(
        [row.gain["count"] for row in study.analysis.trials]
    )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_text_is_a_formula(text: str) -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([{"label": text, "value": -0.5}]), newline=""))
    assert row["label"] == f"'{text}"
    assert float(row["value"]) == -0.5, "numbers are numbers"


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines", "déjà", "lora_r=4"])
def test_texts_come_back_as_they_were(text: str) -> None:
    found = pd.read_csv(io.StringIO(to_csv([{"label": text}, {"label": "x", "more": 1}])))
    assert found["label"][0] == text
    assert math.isnan(found["more"][0])


def test_a_label_that_would_be_a_formula_is_none_in_the_tables(
    study: Planted, root: ResultsRoot
) -> None:
    first = dataclasses.replace(study.analysis.configurations[0], label='=HYPERLINK("x")')
    rest = study.analysis.configurations[1:]
    write_analysis(root, dataclasses.replace(study.analysis, configurations=[first, *rest]))
    frame = pd.read_csv(root.transfer / f"{NAME}_configurations.csv")
    assert frame["label"][0] == '\'=HYPERLINK("x")'


def test_a_table_without_rows_has_its_heads() -> None:
    study = plant(LEARNS, SPACE, missing=range(4), **SMALL)
    write_analysis(study.root, study.analysis)
    for name in tables_of(study.analysis):
        frame = pd.read_csv(study.root.transfer / f"{NAME}_{name}.csv")
        assert len(frame) == 0
        assert len(frame.columns) > 3, name


# --- provenance ---------------------------------------------------------------------------------


def test_where_it_came_from_is_told() -> None:
    study = plant(LEARNS, SPACE, failed=[2], **SMALL)
    told: Mapping[str, Any] = study.analysis.provenance
    records = list(study.records.values())
    assert told["hosts"] == ["planted"]
    assert told["devices"] == ["cpu"]
    assert told["trainings"] == 3
    minutes = sum(r.execution.train_seconds for r in records) / 60
    assert told["training minutes"] == pytest.approx(minutes, abs=0.005)
    lost = sum(r.execution.train_seconds for r in records if r.result.status == "failed") / 60
    assert told["minutes of trials that failed or were stopped"] == pytest.approx(lost, abs=0.005)
    assert told["default configuration"]["experiment_name"] == "small"


# --- what is lost never makes a study surer ---------------------------------------------------


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_seed_without_answers_makes_no_interval_narrower(
    study: Planted, root: ResultsRoot, damage: str
) -> None:
    lost = study.records[study.row("default").trial_ids[0]].result
    path = root.training(lost.training_key).evaluation(lost.evaluation_key or "")
    path = path / PREDICTIONS
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:1000])
    found = analyze(root, study.spec.name)
    default = found.default
    assert default is not None
    for task, whole in study.row("default").gains.items():
        less = default.gains[task]
        assert less.gain.value == pytest.approx(whole.gain.value, abs=1e-9)
        assert less.gain.standard_error >= 0.97 * whole.gain.standard_error
    assert any("missing or damaged" in note for note in found.notes)


def test_lost_records_are_said(study: Planted, root: ResultsRoot) -> None:
    for trial in root.study(study.spec.name).trials.iterdir():
        shutil.rmtree(trial)
    found = analyze(root, study.spec.name)
    assert found.num_completed == 0
    assert any("have ended but have no record" in note for note in found.notes)


def test_damaged_events_are_said(study: Planted, root: ResultsRoot) -> None:
    root.study(study.spec.name).events.write_bytes(b"\x00\xff{\nbroken\n{}\n")
    assert any("events" in note for note in analyze(root, study.spec.name).notes)
