"""What a tracker is told of a whole study: coefficients, charts, the best adapter."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from planted_study import Effect, always, write_planted_study
from tuning.figures.heat_map import heat_map_data
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.tracked_analysis import analysis_run
from tuning.tracked_runs import TrackedRun
from tuning.transfer_analysis import StudyAnalysis, analyze

SPACE = {
    "strategy": "grid",
    "HPARAM_CANDIDATES": {"lora_r": [4, 8, 16], "learning_rate": [1e-4, 1e-3]},
    "replicates_of_default": 1,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> ResultsRoot:
    """Return a root with a study of seven trials, each with an adapter."""
    from conftest import SMALL
    from tuning.config import build

    found = ResultsRoot(tmp_path_factory.mktemp("analysis"))
    space = SearchSpace.model_validate(SPACE)
    write_planted_study(
        found,
        StudySpec(name="one", space=space, base=build(SMALL, "test")),
        always(Effect(spelling=0.2, position=0.1)),
        num_words=60,
        num_monitor_words=9,
        num_generated_items=30,
        exact_intervals=False,
    )
    for record in load_study(found, "one")[1]:
        adapter = found.training(record.result.training_key).adapter(record.result.step)
        adapter.mkdir(parents=True, exist_ok=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (adapter / name).write_bytes(b"{}")
    return found


@pytest.fixture(scope="module")
def analysis(root: ResultsRoot) -> StudyAnalysis:
    return analyze(root, "one")


@pytest.fixture(scope="module")
def run(root: ResultsRoot) -> TrackedRun:
    found = analysis_run(root, "one")
    assert found is not None
    return found


def test_coefficients_are_those_of_the_analysis(run: TrackedRun, analysis: StudyAnalysis) -> None:
    assert len(run.tables["correlations"]) == len(analysis.correlations) == 4
    for told, found in zip(run.tables["correlations"], analysis.correlations, strict=True):
        assert told["and gain in"] == found.task
        assert [told[k] for k in ("value", "low", "high", "runs")] == [
            found.value,
            found.low,
            found.high,
            found.num_runs,
        ]
        name = f"corr/{found.method}_spelling_{found.task}"
        assert run.summary[f"{name}_runs"] == found.num_runs
        assert run.summary.get(name) == found.value


def test_a_scatter_for_each_transfer_task(run: TrackedRun, analysis: StudyAnalysis) -> None:
    assert set(run.scatters) == {"position_against_spelling", "count_against_spelling"}
    for chart in run.scatters.values():
        rows = run.tables[chart.table]
        assert len(rows) == len(analysis.runs)
        assert {chart.x, chart.y} <= set(rows[0])
    first = analysis.runs[0]
    assert run.tables["runs"][0]["spelling_gain"] == pytest.approx(100 * first.spelling)


def test_the_heat_map_is_a_picture_of_the_correlations(
    run: TrackedRun, analysis: StudyAnalysis
) -> None:
    assert run.pages["heat_map"].startswith("<svg")
    steps = [float(i) for i in range(len(analysis.runs))]
    of = [100 * r.position for r in analysis.runs]
    data = heat_map_data(analysis, {"copy": of, "place": steps, "kind": ["a"] * len(of)})
    quantities = set(data["quantity"])
    assert quantities == {"gain in spelling", "copy", "place"}
    copied = data[(data["quantity"] == "copy") & (data["gain"] == "position")]
    assert copied["correlation"].tolist() == [pytest.approx(1.0)]
    assert not ((data["quantity"] == "gain in spelling") & (data["gain"] == "spelling")).any()
    few = dataclasses.replace(analysis, runs=analysis.runs[:4])
    assert heat_map_data(few, {}).empty


def test_the_best_adapter_has_its_alias(
    root: ResultsRoot, run: TrackedRun, analysis: StudyAnalysis
) -> None:
    (adapter,) = [a for a in run.artifacts if a.kind == "lora-adapter"]
    assert adapter.aliases == ("latest", "best")
    best = analysis.configurations[0].trial_ids[0]
    (record,) = [r for r in load_study(root, "one")[1] if r.trial_id == best]
    folder = root.training(record.result.training_key).adapter(record.result.step)
    assert {path.parent for path in adapter.paths} == {folder}
    assert run.summary["best/trial"] == best


def test_what_is_known_is_not_made_again(
    root: ResultsRoot, run: TrackedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuning.tracked_analysis

    def refuse(*given: Any) -> None:
        raise AssertionError("analysed again")

    monkeypatch.setattr(tuning.tracked_analysis, "analyze", refuse)
    known = analysis_run(root, "one", run.content)
    assert known is not None
    assert (known.run_id, known.content) == (run.run_id, run.content)
    with pytest.raises(AssertionError, match="analysed again"):
        analysis_run(root, "one", "something else")


def test_a_report_changes_what_is_said(root: ResultsRoot, run: TrackedRun) -> None:
    path = root.reports / "one.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<p>")
    try:
        later = analysis_run(root, "one")
    finally:
        path.unlink()
    assert later is not None
    assert later.run_id == run.run_id
    assert later.content != run.content
    (report,) = [a for a in later.artifacts if a.kind == "report"]
    assert not report.is_final


def test_a_study_without_a_completed_trial_has_no_analysis(
    tmp_path: Path, small_config: Any
) -> None:
    root = ResultsRoot(tmp_path)
    space = SearchSpace.model_validate(
        {"HPARAM_CANDIDATES": {"lora_r": [4]}, "replicates_of_default": 1}
    )
    write_planted_study(
        root,
        StudySpec(name="one", space=space, base=small_config()),
        always(Effect()),
        num_words=30,
        num_monitor_words=6,
        num_generated_items=0,
        exact_intervals=False,
        failed=[0, 1],
    )
    assert analysis_run(root, "one") is None
