"""`tuning recommend`: a table, files that run, and clear refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_support import Program, files_below

from planted_records import spec_of, write_study
from tuning.paths import ResultsRoot

SPACE: dict[str, Any] = {
    "HPARAM_CANDIDATES": {"learning_rate": [3e-4, 3e-3], "lora_r": [4, 8], "gpu_tier": ["t4"]},
    "replicates_of_default": 3,
}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Return a results root with a study whose score rises with the learning rate."""
    root = ResultsRoot(tmp_path / "results")

    def surface(proposal: Any) -> float:
        rate = proposal.config.training_config.learning_rate
        return 0.5 + 20 * rate + 0.002 * proposal.seed

    write_study(root, spec_of(SPACE), surface)
    return root.root


def test_the_table_says_what_to_run_and_the_files_are_valid(study: Path, program: Program) -> None:
    done = program("recommend", "planted", "--n", "3", "--results-dir", study, "--config-dir", "c")
    assert done.returncode == 0, done.stderr
    for word in ("What to try next", "P(better)", "learning_rate=0.003", "no evidence about"):
        assert word in done.stdout
    commands = [line for line in done.stdout.splitlines() if line.startswith("tuning trial")]
    assert len(commands) == 3
    assert all(f"--results-dir {study}" in command for command in commands)
    made = [Path(command.split()[3]) for command in commands]
    assert [path.name for path in made] == [
        f"planted_next_{place}_20260101_000000.yaml" for place in (1, 2, 3)
    ]
    assert program("config", "validate", *made).returncode == 0
    again = program("recommend", "planted", "--n", "3", "--results-dir", study, "--config-dir", "c")
    assert again.stdout == done.stdout
    assert files_below(Path("c")) == [path.name for path in made]


def test_json_is_the_list_that_is_written(study: Path, program: Program) -> None:
    done = program("recommend", "planted", "--json", "--results-dir", study, "--config-dir", "c")
    answer = json.loads(done.stdout)
    stored = json.loads((study / "transfer" / "planted_recommendations.json").read_text())
    assert {**stored, "files": answer["files"]} == answer
    assert len(answer["files"]) == len(answer["recommendations"]) == 5
    assert {"new", "more_seeds"} >= {run["kind"] for run in answer["recommendations"]}


def test_a_dry_run_writes_nothing(study: Path, program: Program) -> None:
    before = files_below(study.parent)
    done = program("recommend", "planted", "--dry-run", "--results-dir", study, "--quiet")
    assert done.returncode == 0
    assert "tuning trial" not in done.stdout
    assert files_below(study.parent) == before


def test_another_focus_is_named(study: Path, program: Program) -> None:
    options = ("--focus", "transfer", "--dry-run", "--results-dir", study)
    done = program("recommend", "planted", *options)
    assert "by mean of the gains in position and count" in done.stdout


def test_mistakes_are_one_clear_line(study: Path, tmp_path: Path, program: Program) -> None:
    where = ("--results-dir", study)
    program("recommend", "plantd", *where).assert_one_clear_line("plantd", "planted")
    program("recommend", "planted", "--n", "0", *where).assert_one_clear_line("--n", "1")
    program("recommend", "planted", "--focus", "speling", *where).assert_one_clear_line("speling")
    program("recommend", "../planted", *where).assert_one_clear_line("study name")
    write_study(ResultsRoot(tmp_path / "failed"), spec_of(SPACE), lambda p: None)
    program("recommend", "planted", "--results-dir", "failed").assert_one_clear_line(
        "no trial of 8 has completed", "tuning study resume planted"
    )


def test_a_folder_that_cannot_be_written_is_one_clear_line(study: Path, program: Program) -> None:
    Path("c").write_text("in the way")
    options = ("--results-dir", study, "--config-dir", "c")
    program("recommend", "planted", *options).assert_one_clear_line("c")


@pytest.mark.slow
def test_a_recommended_file_runs_and_counts_in_the_next_list(study: Path, program: Program) -> None:
    where = ("--results-dir", study, "--config-dir", "c")
    first = json.loads(program("recommend", "planted", "--n", "1", "--json", *where).stdout)
    done = program("trial", "--config", first["files"][0], "--quiet", "--results-dir", study)
    assert done.returncode == 0, done.stderr
    second = json.loads(program("recommend", "planted", "--n", "1", "--json", *where).stdout)
    assert second["num_runs"] == first["num_runs"] + 1
    assert "1 trial of recommended files counted too." in second["notes"]


def test_help_loads_no_statistics() -> None:
    script = (
        "import sys\n"
        "from tuning.cli.main import app\n"
        "print([m for m in ('sklearn', 'scipy', 'optuna', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
