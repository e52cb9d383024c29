"""The report: one self-contained HTML file, rendered from an analysis; it computes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from tuning import files, visualization
from tuning.paths import ResultsRoot
from tuning.transfer_analysis import StudyAnalysis, points

CAPTIONS = {
    "gains": "Gain over the untouched model on the same items, best configuration first. Points: "
    "mean over seeds. Bars: 95 % intervals, over words, and over seeds where there are several.",
    "transfer": "Does a larger gain in spelling come with a larger gain elsewhere? Each "
    "configuration once for each transfer task, with 95 % intervals.",
    "curves": "Accuracy on a small set of words while training; step 0 is the untouched model.",
}
TITLES = {
    "gains": "Gains",
    "transfer": "Spelling against transfer",
    "curves": "Learning curves",
}


def percent(rate: float | None) -> str:
    """Return a rate in percent, one decimal; a dash for none."""
    return "–" if rate is None else f"{100 * rate:.1f} %"


def signed_points(rate: float | None) -> str:
    """Return a difference in points with a true minus sign; a dash for none."""
    return "–" if rate is None else points(rate).replace("-", "\N{MINUS SIGN}")


def render(analysis: StudyAnalysis, charts: dict[str, Any]) -> str:
    """Return the page.

    Args:
        analysis: What is shown; every text of it is escaped.
        charts: Figures by name.
    """
    environment = Environment(
        loader=PackageLoader("tuning", "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=signed_points)
    specifications = {name: Markup(visualization.specification(c)) for name, c in charts.items()}
    return environment.get_template("report.html.j2").render(
        a=analysis,
        charts=specifications,
        titles=TITLES,
        captions=CAPTIONS,
        javascript=Markup(visualization.javascript()) if charts else "",
    )


def write_report(root: ResultsRoot, analysis: StudyAnalysis) -> Path:
    """Write the report and its figures; return the path of the report.

    Raises:
        ResultsError: The disk refuses.
    """
    charts = visualization.figures(analysis)
    visualization.save_figures(charts, root.figures, analysis.study)
    path = root.reports / f"{analysis.study}.html"
    files.write_atomic(path, render(analysis, charts))
    return path
