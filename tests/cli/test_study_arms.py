"""`study run --arms` and `study confirm`: the default in its arms, the winners on fresh seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Program, files_below

from backend_support import Remembers
from fake_backend import FakeBackend
from tests_support import small_mapping
from tuning import files
from tuning.config import build
from tuning.confirming import confirmation
from tuning.executor import run_study
from tuning.paths import ResultsRoot
from tuning.scoring import Focus
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study


def plan_of(program: Program, *arguments: str) -> list[list[str]]:
    """The trials of a plan: seed and label."""
    done = program("study", "run", *arguments, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not Path("results").exists()
    lines = [line.split() for line in done.stdout.splitlines() if " steps  " in line]
    return [[line[2], " ".join(line[5:])] for line in lines]


# --- arms ---------------------------------------------------------------------------------------


def test_arms_alone_are_the_default_in_each_of_them(program: Program) -> None:
    arms = ("--arms", "spelling,format_control,direct")
    assert plan_of(program, *arms, "--replicates", "3", "models=tiny") == [
        [str(seed), label]
        for label in ("default", "arm=format_control", "arm=direct")
        for seed in range(3)
    ]
    done = program("study", "run", *arms, "--replicates", "2", "--dry-run", "--json", "models=tiny")
    assert json.loads(done.stdout)["trainings"] == 6
    # Three seeds of the default are the rule.
    assert len(plan_of(program, *arms, "models=tiny")) == 9


def test_arms_and_replicates_change_a_space_of_any_strategy(program: Program) -> None:
    arms = ("--arms", "direct,spelling", "--replicates", "2", "models=tiny")
    first = [["0", "default"], ["1", "default"], ["0", "arm=direct"], ["1", "arm=direct"]]
    quick = plan_of(program, "--space", "quick", *arms)
    assert quick[:4] == first
    assert sorted(seed for seed, _ in quick[4:]) == sorted("01" * (len(quick) // 2 - 2))
    drawn = plan_of(program, "--space", "random", "--num-trials", "2", *arms)
    assert (drawn[:4], len(drawn)) == (first, 8)
    assert plan_of(program, "--space", "bayesian", "--num-trials", "1", *arms) == first
    # A space's own arms give way.
    assert plan_of(program, "--space", "arms", *arms) == first


def test_the_own_arm_is_that_of_the_configuration(program: Program) -> None:
    arms = ("--arms", "direct,spelling", "--replicates", "1", "models=tiny", "arm=direct")
    assert plan_of(program, *arms) == [["0", "default"], ["0", "arm=spelling"]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "study run needs --space NAME, what is varied, or --arms ARM,ARM"),
        (["--replicates", "3"], "study run needs --space NAME"),
        (["--arms", "spelling,drect"], "--arms: 'drect' is no arm; did you mean direct?"),
        (["--arms", ""], "--arms: '' is no arm; known: direct, format_control, spelling"),
        (["--arms", "spelling,spelling"], "--arms: spelling stands twice"),
        (
            ["--arms", "direct,format_control"],
            "--arms must contain spelling, the arm of the configuration itself, got "
            "direct,format_control; the override arm=ARM gives it another",
        ),
        (["--arms", "spelling", "arm=direct"], "--arms must contain direct"),
        (["--arms", "spelling", "--replicates", "0"], "--replicates"),
        (["--arms", "spelling", "--num-trials", "3"], "num_trials: belongs to random and bayesian"),
        (["--arms", "spelling", "--name", "../x"], "../x"),
        (["--space", "own.yaml", "--arms", "spelling"], "does not go with arm as a hyperparameter"),
    ],
)
def test_a_mistake_is_one_clear_line(program: Program, options: list[str], words: str) -> None:
    Path("own.yaml").write_text("HPARAM_CANDIDATES: {arm: [direct]}\n")
    done = program("study", "run", *options, "models=tiny")
    done.assert_one_clear_line(words)
    assert not Path("results").exists()


# --- spaces ---------------------------------------------------------------------------------------

LISTED = """strategy: listed
arms: [spelling, direct]
configurations:
  - {lora_r: 8, training_config.learning_rate: 1e-3}
  - {target_modules: [q_proj], gpu_tier: t4}
"""


def test_a_list_is_shown_counted_and_numbered(program: Program) -> None:
    Path("l.yaml").write_text(LISTED)
    first, second = "lora_r=8, learning_rate=0.001", "target_modules=q_proj, gpu_tier=t4"
    shown = program("space", "show", "l.yaml")
    assert shown.stdout.splitlines() == [
        *("listed", f"  {first}", f"  {second}", "arms of the default: spelling, direct"),
    ]
    assert shown.stderr.startswith("note: gpu_tier: changes the cost")
    assert program("space", "count", "l.yaml", "--unique-trainings").stdout.splitlines() == [
        "3 configurations, strategy listed; a study makes 8 trials of them, with 3 seeds of the "
        "default and 1 of the others; the default also in 1 other arm",
        "4 distinct trained weights in 4 trainings, on this machine and with one seed",
    ]
    assert program("space", "count", "arms").stdout == (
        "1 configuration, strategy listed; a study makes 9 trials of them, with 3 seeds of the "
        "default and 1 of the others; the default also in 2 other arms\n"
    )
    assert program("space", "point", "l.yaml", "1").stdout == f"1: {second}\n"
    drawn = program("space", "sample", "l.yaml", "-n", "9").stdout.splitlines()
    assert sorted(line.split(": ")[1] for line in drawn) == [first, second]
    assert program("config", "validate", "l.yaml").returncode == 0
    again = json.loads(program("space", "show", "l.yaml", "--json").stdout)
    assert again["configurations"][1] == {"target_modules": ["q_proj"], "gpu_tier": "t4"}


@pytest.mark.parametrize("command", [("sample", "arms"), ("point", "arms", "0")])
def test_a_list_without_configurations_has_no_point(
    program: Program, command: tuple[str, ...]
) -> None:
    program("space", *command).assert_one_clear_line("the space lists no configuration")


# --- studies that train ---------------------------------------------------------------------------


FEW_WORDS = {"num_words": 12, "num_monitor_words": 3, "num_generated_items": 9}


def written(name: str, content: Any) -> str:
    Path(name).write_text(yaml.safe_dump(content))
    return name


@pytest.mark.usefixtures("warm_studies")
@pytest.mark.nightly
def test_arms_are_trained_scored_exported_and_confirmed(program: Program) -> None:
    config = written("small.yaml", {**small_mapping(), "evaluation_config": FEW_WORDS})
    run = ("study", "run", "--config", config, "--workers", "1", "--quiet")
    done = program(*run, "--arms", "spelling,direct", "--replicates", "1", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["label"] for row in answer["configurations"]] == ["default"]
    assert [row["label"] for row in answer["controls"]] == ["arm=direct"]
    root = ResultsRoot(Path("results/tuning"))
    spec, records = load_study(root, "arms")
    assert [(r.parameters, r.seed) for r in records] == [({}, 0), ({"arm": "direct"}, 0)]
    assert records[0].result.training_key != records[1].result.training_key
    assert program("study", "resume", "arms", "--quiet", "--json").returncode == 0
    assert "of 2: 2 completed" in program("study", "status", "arms").stdout
    done = program("study", "rescore", "arms", "--focus", "transfer", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["controls"][0]["label"] == "arm=direct"
    done = program("study", "dashboard", "arms", "--export-only")
    assert "wrote 2 finished trials" in done.stdout
    done = program("study", "confirm", "arms", "--dry-run")
    assert done.stderr.startswith("note: the default ranks first of study arms, so it alone")
    assert [line.split()[2] for line in done.stdout.splitlines()[:3]] == ["1", "2", "3"]
    assert "3 trials" in done.stdout
    assert not root.study("arms_confirm").spec.exists()


@pytest.fixture
def root(program: Program) -> ResultsRoot:
    """Return results with a study, first, whose trainings were simulated: another rate won."""
    raw = small_mapping()
    raw["training_config"] |= {"learning_rate": 1e-1, "max_steps": 6}
    raw["evaluation_config"] = FEW_WORDS
    space = SearchSpace(candidates={"learning_rate": [1e-3]}, replicates_of_default=1)
    root = ResultsRoot(Path("results/tuning"))
    spec = StudySpec(
        name="first", space=space, base=build(raw, "test"), focus=Focus.SPELLING, num_threads=1
    )
    backend = FakeBackend(root, 1)
    run_study(spec, root, backend, Remembers())
    backend.close()
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("warm_studies")
def test_a_winner_is_confirmed_on_fresh_seeds(program: Program, root: ResultsRoot) -> None:
    winner = {"learning_rate": 1e-3}
    confirm = ("study", "confirm", "first", "--seeds", "1", "--workers", "1", "--quiet")
    done = program(*confirm)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == [
        "study: results/tuning/data/first_confirm",
        "what it says of study first: tuning report first",
    ]
    spec, records = load_study(root, "first_confirm")
    assert [(r.parameters, r.seed) for r in records] == [({}, 1), (winner, 1)]
    assert [r.result.status.value for r in records] == ["completed"] * 2
    assert (spec.confirms, spec.focus, spec.num_threads) == ("first", Focus.SPELLING, 1)
    # The same command again trains nothing.
    again = program(*confirm, "--json")
    assert json.loads(again.stdout)["num_completed"] == 2
    assert load_study(root, "first_confirm") == (spec, records)
    of_itself = program("study", "confirm", "first_confirm")
    of_itself.assert_one_clear_line("study first_confirm confirms first itself")


def test_a_confirmation_is_planned_without_running(program: Program, root: ResultsRoot) -> None:
    before = files_below(Path())
    done = program("study", "confirm", "first", "--dry-run", "--top", "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    plan = [line.split() for line in done.stdout.splitlines() if " steps  " in line]
    assert [(line[2], line[-1]) for line in plan] == [
        (seed, label) for label in ("default", "learning_rate=0.001") for seed in "123"
    ]
    assert "6 trials, 6 distinct weights in 6 trainings" in done.stdout
    assert files_below(Path()) == before


def test_a_confirmation_of_other_winners_is_one_clear_line(
    program: Program, root: ResultsRoot
) -> None:
    found = confirmation(root, "first", "first_confirm", 3, 1).spec
    other = found.space.model_copy(update={"configurations": [{"lora_r": 4}]})
    text = yaml.safe_dump(found.model_copy(update={"space": other}).model_dump(mode="json"))
    files.write_atomic(root.study("first_confirm").spec, text)
    done = program("study", "confirm", "first", "--quiet")
    done.assert_one_clear_line(
        "study first_confirm confirms lora_r=4, but the first of study first now: "
        "learning_rate=0.001; go on with it by tuning study resume first_confirm, or choose "
        "another name with --as"
    )
    as_new = program("study", "confirm", "first", "--as", "new", "--dry-run", "--json")
    assert json.loads(as_new.stdout)["trials"] == 6


def test_trials_that_are_left_may_change_the_winner(program: Program, root: ResultsRoot) -> None:
    last = sorted(root.study("first").trials.glob("*/record.json"))[0]
    last.unlink()
    done = program("study", "confirm", "first", "--dry-run")
    assert done.stderr == "note: study first has 1 trial left, which may change its first\n"


def test_what_is_not_there_cannot_be_confirmed(program: Program) -> None:
    program("study", "confirm", "first").assert_one_clear_line("study first: no such study")
    for option in ("--seeds", "--top"):
        done = program("study", "confirm", "first", option, "0")
        done.assert_one_clear_line(option, "greater than or equal to 1")
