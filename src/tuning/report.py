"""The report: one self-contained HTML file, and a Markdown summary, rendered from an analysis.

Pure in the analysis: no clock, no paths, no numbers of its own. What is arranged here are rows; how
they look is in `templates/`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tuning import files, visualization
from tuning.analysis import formats
from tuning.analysis.comparison import Comparison
from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.effects import DirectEffect
from tuning.analysis.strata import CountConfusion, Stratum
from tuning.analysis.terms import TERMS, families, method_sentences, subject_of
from tuning.measures import STRATA, Drift
from tuning.paths import ResultsRoot
from tuning.records import TrialStatus
from tuning.tasks.items import EVALUATED_TASKS, TRANSFER_TASKS
from tuning.transfer_analysis import StudyAnalysis

LIMIT = 20
"""Rows of a table that are open at once; a button opens the others."""

SECTIONS = (
    ("ranking", "Ranking"),
    ("transfer", "Transfer"),
    ("arms", "Controls"),
    ("confirmation", "Confirmation"),
    ("influence", "Influence"),
    ("training", "Training"),
    ("strata", "Strata"),
    ("retention", "Retention"),
    ("trials", "Trials"),
    ("cost", "Cost"),
    ("methods", "Methods"),
    ("provenance", "Provenance"),
)
"""Of every page, in order; each has a template of its name."""

VOCABULARY = ("vocabulary", "Vocabulary")
"""The section before that of costs, of a study that compares vocabularies."""

PLACED = (
    *("gains", "seeds", "transfer", "front", "influence", "parallel", "curves", "strata"),
    *("positions", "confusion", "cost", "vocabularies"),
)
"""Figures that have a place in a section; any other stands under methods."""

TRIAL_COLUMNS = (
    *("Trial", "Configuration", "Seed", "Status", "Objective"),
    *(
        name
        for task in EVALUATED_TASKS
        for name in (f"{formats.task_title(task)}, %", f"{formats.task_title(task)} gain")
    ),
    *(f"{task.capitalize()} choice gain" for task in TRANSFER_TASKS),
    *("Score, own weights", "Steps", "Examples", "Training, s", "Evaluation, s", "Remark"),
)

STATUS_NAMES = {
    status.value: "stopped early" if status is TrialStatus.PRUNED else status.value
    for status in TrialStatus
}


def render(
    analysis: StudyAnalysis, charts: Mapping[str, Any], comparison: Comparison | None = None
) -> str:
    """Return the page.

    Args:
        analysis: What is shown; every text of it is escaped.
        charts: Figures by name.
        comparison: With another study, shown first.
    """
    title = analysis.study
    if comparison is not None:
        title = f"{comparison.a} against {comparison.b}"
    data = {"summary": markdown(analysis), "analysis": dataclasses.asdict(analysis)}
    return (
        _environment(autoescape=True)
        .get_template("report.html.j2")
        .render(
            **_shared(analysis),
            title=title,
            comparison=comparison,
            charts={n: Markup(visualization.specification(c)) for n, c in charts.items()},
            figures=visualization.FIGURES,
            captions={name: visualization.FIGURES[name].caption(analysis) for name in charts},
            placed=PLACED,
            sections=_sections(analysis),
            javascript=Markup(visualization.javascript()) if charts else "",
            style=_file("report.css"),
            script=_file("report.js"),
            data=Markup(_json_in_html(data)),
            arms=[*([analysis.default] if analysis.default else []), *analysis.controls],
            rank_of={row.label: row.rank for row in analysis.configurations},
            no_recovery=_no_recovery(analysis.configurations),
            one_seed=sum(row.num_seeds == 1 for row in analysis.configurations),
            monitor_words=analysis.curves[0].num_words if analysis.curves else 0,
            effects=_effect_rows(analysis.effects),
            effect_targets=list(dict.fromkeys(e.target for e in analysis.effects)),
            strata=_strata_groups(analysis.strata),
            strata_names={**STRATA, "letter": "letter"},
            confusion=_confusion_groups(analysis.confusion),
            retention=_retention_rows(analysis),
            all_tasks=[task.value for task in EVALUATED_TASKS],
            trial_columns=TRIAL_COLUMNS,
            status_names=STATUS_NAMES,
            statuses=sorted({STATUS_NAMES[trial.status] for trial in analysis.trials}),
            ended=[t for t in analysis.trials if t.status != TrialStatus.COMPLETED.value],
        )
    )


def _sections(analysis: StudyAnalysis) -> list[tuple[str, str]]:
    found = list(SECTIONS)
    if analysis.vocabularies:
        found.insert([name for name, _ in SECTIONS].index("cost"), VOCABULARY)
    return found


def markdown(analysis: StudyAnalysis) -> str:
    """Return a summary of the report as Markdown."""
    text = _environment(autoescape=False).get_template("summary.md.j2").render(_shared(analysis))
    return re.sub(r"\n{3,}", "\n\n", text)


def write_report(root: ResultsRoot, analysis: StudyAnalysis) -> Path:
    """Write the report, its summary and its figures; return the path of the report.

    Raises:
        ResultsError: The disk refuses.
    """
    charts = visualization.figures(analysis)
    visualization.save_figures(charts, root.figures, analysis.study)
    path = root.reports / f"{analysis.study}.html"
    files.write_atomic(path, render(analysis, charts))
    files.write_atomic(path.with_name(f"{analysis.study}.md"), markdown(analysis))
    return path


def write_comparison(root: ResultsRoot, analysis: StudyAnalysis, comparison: Comparison) -> Path:
    """Write the report of a study with its comparison in front; return the path.

    Raises:
        ResultsError: The disk refuses.
    """
    path = root.reports / f"{comparison.a}_vs_{comparison.b}.html"
    charts = visualization.figures(analysis)
    files.write_atomic(path, render(analysis, charts, comparison))
    return path


# --- what templates need ------------------------------------------------------------------------


@functools.cache
def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader("tuning", "templates"),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = _markdown_text
    environment.globals.update(f=formats, LIMIT=LIMIT)
    return environment


def _shared(analysis: StudyAnalysis) -> dict[str, Any]:
    best = analysis.configurations[:1]
    default = [analysis.default] if analysis.default else []
    return {
        "a": analysis,
        "subject": subject_of(analysis),
        "shown": [*default, *(row for row in best if not row.is_default)],
        "methods": method_sentences(analysis),
        "families": families(analysis),
        "terms": TERMS,
        "transfer_tasks": [task.value for task in TRANSFER_TASKS],
    }


def _markdown_text(text: str) -> str:
    """Return a text that Markdown shows as it is, also within a table."""
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", " ".join(text.split()))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _json_in_html(value: Any) -> str:
    """Return JSON that may stand inside a script element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _file(name: str) -> Markup:
    return Markup(resources.files("tuning").joinpath("templates", name).read_text("utf-8"))


def _effect_rows(effects: Sequence[DirectEffect]) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], dict[str, DirectEffect]] = {}
    for effect in effects:
        rows.setdefault((effect.parameter, effect.value), {})[effect.target] = effect
    return [
        {"parameter": parameter, "value": value, "by_target": by_target}
        for (parameter, value), by_target in sorted(rows.items())
    ]


def _no_recovery(rows: Sequence[ConfigurationSummary]) -> str | None:
    """Return the reason why no configuration has a performance gap recovered, if it is one."""
    found = {(q.value, q.reason) for row in rows for q in row.recovered.values()}
    value, reason = found.pop() if len(found) == 1 else (None, None)
    return reason if value is None else None


def _strata_groups(strata: Sequence[Stratum]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[Stratum]] = {}
    for stratum in strata:
        groups.setdefault((stratum.label, stratum.task), []).append(stratum)
    return [{"label": label, "task": task, "rows": rows} for (label, task), rows in groups.items()]


def _confusion_groups(confusion: Sequence[CountConfusion]) -> list[dict[str, Any]]:
    groups: dict[str, dict[str, dict[str, CountConfusion]]] = {}
    for cell in confusion:
        groups.setdefault(cell.label, {}).setdefault(cell.true, {})[cell.answer] = cell
    answers = {label: {c.answer for c in confusion if c.label == label} for label in groups}
    return [
        {"label": label, "answers": sorted(answers[label]), "rows": rows}
        for label, rows in groups.items()
    ]


def _retention_rows(analysis: StudyAnalysis) -> list[dict[str, Any]]:
    rows: Sequence[ConfigurationSummary] = (*analysis.configurations, *analysis.controls)
    drifts: list[tuple[ConfigurationSummary, str, Drift]] = [
        (row, text, drift) for row in rows for text, drift in row.retention.items()
    ]
    return [{"row": row, "text": text, "drift": drift} for row, text, drift in drifts]
