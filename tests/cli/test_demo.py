"""`tuning demo` says what it does, in the numbers of what it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli_support import Program

from tuning.cli import demo
from tuning.cli.main import why_refused
from tuning.cli.study_request import StudyRequest, make_spec

SMALL_DEMO = {
    "strategy": "one_at_a_time",
    "replicates_of_default": 2,
    "step_scale": 0.004,
    "pruning": "none",
    "experiment": {
        "tokenizer_config": {"model_name": "tiny"},
        "evaluation_config": {
            "num_words": 12,
            "num_monitor_words": 3,
            "num_generated_items": 3,
        },
    },
    "HPARAM_CANDIDATES": {"lora_r": [4]},
}


def test_what_is_said_of_the_search_is_what_the_search_is() -> None:
    said = demo.search_text(make_spec(StudyRequest(name="demo", space="demo")))
    assert said.startswith("11 trials follow.")
    assert "for 150 steps or fewer" in said
    assert "to spell 400 words" in said


def test_the_next_commands_are_commands_of_this_program() -> None:
    said = demo.reading_text(Path("out"))
    commands = [line.split() for line in said.splitlines() if line.startswith("  tuning ")]
    assert len(commands) == 3
    for _, *arguments in commands:
        assert why_refused(arguments) is None
        assert arguments[-2:] == ["--results-dir", "out"]


@pytest.fixture
def small_demo(tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "hyperparameters" / "search_spaces"
    folder.mkdir(parents=True)
    (folder / "demo.yaml").write_text(yaml.safe_dump(SMALL_DEMO))


@pytest.mark.nightly
@pytest.mark.usefixtures("small_demo", "warm_studies")
def test_the_demo_says_each_step_before_it_and_what_to_do_next(
    program: Program, tmp_path: Path
) -> None:
    done = program("demo", "--results-dir", "out")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stderr.split())
    assert "3 trials follow" in said
    assert "for 4 steps or fewer" in said
    assert "to spell 12 words" in said
    places = [said.index(x) for x in ("1. Search", "1/3", "2. Analysis", "3. What to look at")]
    assert places == sorted(places)
    assert "tuning study confirm demo --results-dir out" in said
    assert (tmp_path / "out" / "reports" / "demo.html").is_file()

    quiet = program("demo", "--results-dir", "out", "--quiet")
    assert quiet.stderr == ""
    as_json = program("demo", "--results-dir", "out", "--json")
    assert "Search" not in as_json.stderr
    assert json.loads(as_json.stdout)["num_completed"] == 3
