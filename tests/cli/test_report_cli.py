"""`tuning report` and `tuning analyze`: files, words and JSON from a results root alone."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Program, in_process

from planted_study import Effect, always, write_planted_study
from tuning import visualization
from tuning.cli.tables import arms_table, ranking_table
from tuning.paths import ResultsRoot
from tuning.search_space import SearchSpace
from tuning.study import StudySpec
from tuning.transfer_analysis import analyze

SPACE = {
    "HPARAM_CANDIDATES": {"arm": ["format_control"], "lora_r": [4]},
    "replicates_of_default": 2,
}


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    # Pictures are the business of another test.
    monkeypatch.setattr(visualization, "save_figures", lambda *arguments: [])
    return in_process(tmp_path, monkeypatch, capsys)


@pytest.fixture
def root(small_config: Any, fast_path: Path) -> ResultsRoot:
    """Return a results root with the studies one and two."""
    found = ResultsRoot(fast_path)
    for name, space in (("one", SPACE), ("two", {**SPACE, "replicates_of_default": 3})):
        spec = StudySpec(name=name, space=SearchSpace.model_validate(space), base=small_config())
        write_planted_study(
            found,
            spec,
            always(Effect(spelling=0.2)),
            num_words=60,
            num_monitor_words=9,
            num_generated_items=30,
            exact_intervals=False,
        )
    return found


def test_report_writes_page_and_summary_and_says_the_verdict(
    root: ResultsRoot, program: Program
) -> None:
    done = program("report", "one", "--results-dir", root.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("- Training on spelling")
    assert f"report: {root.reports / 'one.html'}" in done.stdout
    assert (root.reports / "one.html").stat().st_size > 100_000
    assert (root.reports / "one.md").read_text().startswith("# one\n")
    assert root.analysis("one").is_file()


def test_report_as_json(root: ResultsRoot, program: Program) -> None:
    done = program("report", "one", "--json", "--compare", "two", "--results-dir", root.root)
    answer = json.loads(done.stdout)
    assert answer["study"] == "one"
    assert answer["report"] == str(root.reports / "one.html")
    assert answer["comparison"]["b"] == "two"
    assert answer["comparison_report"] == str(root.reports / "one_vs_two.html")


def test_report_against_another_study(root: ResultsRoot, program: Program) -> None:
    done = program("report", "one", "--compare", "two", "--results-dir", root.root)
    assert done.returncode == 0, done.stderr
    assert "cannot be told apart" in done.stdout or "differ" in done.stdout
    assert f"comparison: {root.reports / 'one_vs_two.html'}" in done.stdout
    assert "one against two" in (root.reports / "one_vs_two.html").read_text()


def test_analyze_writes_tables_and_draws_nothing(root: ResultsRoot, program: Program) -> None:
    done = program("analyze", "one", "--results-dir", root.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("- Training on spelling")
    for line in done.stdout.splitlines():
        if not line.startswith("- "):
            name, _, path = line.partition(": ")
            assert Path(path).is_file(), line
            assert name in path
    assert not root.reports.exists()
    answer = json.loads(program("analyze", "one", "--json", "--results-dir", root.root).stdout)
    assert answer["files"]["analysis"] == str(root.analysis("one"))
    assert answer["num_completed"] == 4


@pytest.mark.parametrize(
    "arguments",
    [("report", "oen"), ("analyze", "oen"), ("report", "one", "--compare", "tow")],
)
def test_a_study_that_is_not_there_is_one_line(
    root: ResultsRoot, program: Program, arguments: tuple[str, ...]
) -> None:
    done = program(*arguments, "--results-dir", root.root)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert arguments[-1] in done.stderr


@pytest.mark.parametrize("name", ["a" * 128, "../one"])
def test_names_that_make_no_file_are_refused(
    root: ResultsRoot, program: Program, name: str
) -> None:
    done = program("report", "one", "--compare", name, "--results-dir", root.root)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_tables_on_the_terminal_have_intervals_where_there_is_room(root: ResultsRoot) -> None:
    from rich.console import Console

    analysis = analyze(root, "one")
    for width, has_intervals in ((160, True), (100, False)):
        console = Console(width=width, record=True, file=io.StringIO())
        console.print(ranking_table(analysis, width))
        text = console.export_text()
        first = next(line for line in text.splitlines() if "1. " in line)
        assert ("[" in first) == has_intervals
        gain = analysis.configurations[0].gains["spelling"].gain.value
        assert f"{100 * gain:+.1f}" in first
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(arms_table(analysis))
    text = console.export_text()
    for arm in ("untouched", "default", "arm=format_control"):
        assert arm in text
