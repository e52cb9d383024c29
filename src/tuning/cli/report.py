"""`tuning report` and `tuning analyze`: what a study shows, from its folder alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuning.cli import completion, options
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.paths import ResultsRoot
    from tuning.transfer_analysis import StudyAnalysis


def report(
    name: options.StudyName,
    compare: Annotated[
        str | None,
        typer.Option(
            "--compare",
            help="Another study; also writes NAME_vs_OTHER.html.",
            autocompletion=completion.study_names,
        ),
    ] = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Write the report of a study from what is on disk; needs no model.

    Examples: tuning report demo, tuning report first --compare second
    """
    import dataclasses
    import json

    from tuning.cli.progress import working
    from tuning.paths import ResultsRoot

    root = ResultsRoot(results_dir)
    if compare == name:
        raise UserError(f"--compare names the study itself, {name}; name another one")
    with working("analysing and drawing", quiet=quiet):
        analysis, path = analyze_and_report(root, name)
    answer: dict[str, Any] = {"report": str(path), **dataclasses.asdict(analysis)}
    sentences, paths = list(analysis.verdict), {"report": path}
    if compare is not None:
        from tuning.analysis.comparison import compare as compared
        from tuning.report import write_comparison
        from tuning.transfer_analysis import analyze as analyzed

        comparison = compared(analysis, analyzed(root, compare))
        paths["comparison"] = write_comparison(root, analysis, comparison)
        sentences += comparison.sentences
        answer["comparison"] = dataclasses.asdict(comparison)
        answer["comparison_report"] = str(paths["comparison"])
    if as_json:
        typer.echo(json.dumps(answer))
        return
    _say(sentences, analysis.notes, paths)


def analyze(
    name: options.StudyName,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    results_dir: options.ResultsDir = options.RESULTS_DIR,
) -> None:
    """Write the analysis of a study as JSON and tables, from what is on disk; draws nothing.

    Example: tuning analyze demo
    """
    import dataclasses
    import json

    from tuning.cli.progress import working
    from tuning.paths import ResultsRoot
    from tuning.transfer_analysis import analyze as analyzed
    from tuning.transfer_analysis import tables_of, write_analysis

    root = ResultsRoot(results_dir)
    with working("analysing", quiet=quiet):
        analysis = analyzed(root, name)
    paths = {"analysis": write_analysis(root, analysis)}
    for table in tables_of(analysis):
        paths[table] = root.transfer / f"{name}_{table}.csv"
    if as_json:
        files = {table: str(path) for table, path in paths.items()}
        typer.echo(json.dumps({"files": files, **dataclasses.asdict(analysis)}))
        return
    _say(analysis.verdict, analysis.notes, paths)


_MAX_NOTES = 5


def _say(sentences: Sequence[str], notes: Sequence[str], paths: Mapping[str, Path]) -> None:
    for note in notes[:_MAX_NOTES]:
        typer.echo(f"read with care: {note}")
    if len(notes) > _MAX_NOTES:
        typer.echo(f"read with care: {len(notes) - _MAX_NOTES} more notes stand in the report")
    for sentence in sentences:
        typer.echo(f"- {sentence}")
    for what, path in paths.items():
        typer.echo(f"{what}: {path}")


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
