"""The analysis of a study as a tracker shows it: what trackers cannot compute themselves.

Coefficients with intervals and numbers of runs, gain in spelling against the other gains, a heat
map, the best adapter and the report. Made from the folders alone, again whenever these changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tuning import files
from tuning.analysis.relations import RunCorrelation
from tuning.figures.heat_map import draw_heat_map, heat_map_data
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus
from tuning.scoring import TRANSFER_SCORE
from tuning.study import StudySpec, existing_spec, readable_records
from tuning.tasks.items import SCORED_TASKS, TRANSFER_TASKS, Task
from tuning.tracked_runs import (
    Artifact,
    JobType,
    Scatter,
    TrackedRun,
    adapter_artifact,
    run_id,
    tags_of,
)
from tuning.transfer_analysis import StudyAnalysis, analyze

_RUNS = "runs"


def analysis_run(root: ResultsRoot, study: str, known: str | None = None) -> TrackedRun | None:
    """Return the run of a study's analysis; None if no trial of it was completed.

    Args:
        root: Where the study is.
        study: Its name.
        known: Content of the run that exists; while that is what would be made, nothing is
            analysed, and what comes back has its name and content alone.

    Raises:
        UserError: There is no such study, or its study.yaml is damaged.
    """
    spec = existing_spec(root, study)
    records, _ = readable_records(spec, root.study(study))
    by_id = {r.trial_id: r for r in records if r.result.status is TrialStatus.COMPLETED}
    if not by_id:
        return None
    content = _content(root, spec, records)
    bare = TrackedRun(
        run_id=analysis_run_id(spec),
        name="analysis",
        group=spec.name,
        job_type=JobType.ANALYSIS,
        tags=tags_of(spec, TrialStatus.COMPLETED),
        config={},
        content=content,
    )
    if content == known:
        return bare
    analysis = analyze(root, study)
    best = analysis.configurations[0] if analysis.configurations else None
    runs = _plotted(analysis)
    return dataclasses.replace(
        bare,
        config={
            "model": analysis.model,
            "focus": analysis.focus,
            "strategy": analysis.strategy,
            "step_scale": analysis.step_scale,
        },
        summary=_summary(analysis),
        tables=_tables(analysis, runs),
        scatters={
            f"{task.value}_against_spelling": Scatter(
                _RUNS,
                f"{Task.SPELLING.value}_gain",
                f"{task.value}_gain",
                f"Gain in {task.value} against gain in spelling, points",
            )
            for task in TRANSFER_TASKS
            if runs
        },
        pages=_pages(spec, analysis),
        artifacts=[
            *(adapter_artifact(root, by_id[best.trial_ids[0]], "best") if best else ()),
            *_report(root, study),
        ],
    )


def analysis_run_id(spec: StudySpec) -> str:
    """Return the id of the run; it stays while what it says changes."""
    return run_id(spec, "analysis")


def _content(root: ResultsRoot, spec: StudySpec, records: Sequence[TrialRecord]) -> str:
    """Return a fingerprint of what the run is made from."""
    reports = [files.sha256_of_file(path) for a in _report(root, spec.name) for path in a.paths]
    ended = [
        (r.trial_id, r.result.status, r.result.evaluation_key, r.execution.finished_at)
        for r in records
    ]
    return files.sha256_of_json([spec.focus, ended, reports])[:16]


def _report(root: ResultsRoot, study: str) -> list[Artifact]:
    path = root.reports / f"{study}.html"
    return [Artifact("report", [path], is_final=False)] if path.is_file() else []


def _plotted(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    """Return a row for each run: its gains, in points."""
    scores = {row.trial_id: row.transfer_learning_score for row in analysis.trials}
    return [
        {
            "trial": run.trial_id,
            "configuration": run.label,
            **{f"{t.value}_gain": 100 * getattr(run, t.value) for t in SCORED_TASKS},
            TRANSFER_SCORE: scores.get(run.trial_id),
        }
        for run in analysis.runs
    ]


def _tables(analysis: StudyAnalysis, runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found = {
        "correlations": [_correlation(row) for row in analysis.correlations],
        _RUNS: runs,
        "verdict": [{"sentence": text} for text in (*analysis.verdict, *analysis.notes)],
    }
    return {name: rows for name, rows in found.items() if rows}


def _correlation(row: RunCorrelation) -> dict[str, Any]:
    return {
        "gain in": Task.SPELLING.value,
        "and gain in": row.task,
        "method": row.method,
        "value": row.value,
        "low": row.low,
        "high": row.high,
        "runs": row.num_runs,
        "p": row.p_value,
        "without the run that matters most": row.without_one,
        "why there is none": row.reason,
    }


def _summary(analysis: StudyAnalysis) -> dict[str, float | str | None]:
    found: dict[str, float | str | None] = {
        "state": "analysis",
        "num_completed": analysis.num_completed,
        "num_failed": analysis.num_failed,
        "num_pruned": analysis.num_pruned,
    }
    for row in analysis.correlations:
        name = f"corr/{row.method}_{Task.SPELLING.value}_{row.task}"
        if row.value is not None:
            found |= {name: row.value, f"{name}_low": row.low, f"{name}_high": row.high}
        found[f"{name}_runs"] = row.num_runs
    if analysis.configurations:
        best = analysis.configurations[0]
        found["best/trial"], found["best/configuration"] = best.trial_ids[0], best.label
    return found


def _pages(spec: StudySpec, analysis: StudyAnalysis) -> dict[str, str]:
    plan = spec.plan()
    changed: Mapping[str, Mapping[str, Any]] = {
        row.trial_id: row.parameters for row in analysis.trials
    }
    points = [plan.point_of(changed.get(run.trial_id, {})) for run in analysis.runs]
    names = sorted({name for point in points for name in point})
    settings = {
        name: [point[name] for point in points]
        for name in names
        if all(name in point for point in points)
    }
    data = heat_map_data(analysis, settings)
    if data.empty:
        return {}
    import vl_convert

    return {"heat_map": vl_convert.vegalite_to_svg(draw_heat_map(analysis, data).to_dict())}
