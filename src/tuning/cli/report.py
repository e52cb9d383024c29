"""`tuning report`: analyse a study and write its HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuning.cli import options

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot
    from tuning.transfer_analysis import StudyAnalysis


def report(
    name: Annotated[str, typer.Argument(help="Name of the study.")],
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Write the report of a study from what is on disk; needs no model.

    Example: tuning report demo
    """
    import dataclasses
    import json

    from tuning.paths import ResultsRoot

    analysis, path = analyze_and_report(ResultsRoot(results_dir), name)
    if as_json:
        typer.echo(json.dumps({"report": str(path), **dataclasses.asdict(analysis)}))
        return
    for sentence in analysis.verdict:
        typer.echo(f"- {sentence}")
    typer.echo(f"report: {path}")


def analyze_and_report(root: ResultsRoot, name: str) -> tuple[StudyAnalysis, Path]:
    """Analyse a study, write analysis, figures and report; return the analysis and the report.

    Raises:
        UserError: There is no such study, a record is damaged, or the disk refuses.
    """
    from tuning.report import write_report
    from tuning.transfer_analysis import analyze, write_analysis

    analysis = analyze(root, name)
    write_analysis(root, analysis)
    return analysis, write_report(root, analysis)
