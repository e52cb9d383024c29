"""`tuning space`: listed, shown, counted, indexed and sampled before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli_support import Done, Program, files_below

from tuning.grid import load_space


def good(program: Program, *arguments: str) -> Done:
    before = files_below(Path())
    done = program("space", *arguments)
    assert done.returncode == 0, done.stderr
    assert files_below(Path()) == before
    return done


OWN = """strategy: grid
replicates: 2
HPARAM_CANDIDATES:
  lora_r: [4, 8]
  training_config.schedule: [linear, cosine]
HPARAM_RANGE:
  warmup_steps: {low: 0, high: 100, step: 50}
conditions:
  warmup_steps: {training_config.schedule: linear}
"""
"""Of 2 x (3 + 1) points."""
POINTS = [
    {"lora_r": r, "training_config.schedule": schedule, **warmup}
    for r in (4, 8)
    for schedule, warmup in [
        *(("linear", {"warmup_steps": steps}) for steps in (0, 50, 100)),
        ("cosine", {}),
    ]
]


@pytest.fixture
def own(program: Program) -> tuple[str, ...]:
    """Make a space of the user's own; return it and the option that finds it."""
    folder = Path("own/search_spaces")
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(OWN)
    return ("mine", "--config-dir", "own")


# --- list and show --------------------------------------------------------------------------------


def test_list_names_every_space_with_its_trials(program: Program) -> None:
    done = good(program, "list")
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["arms", "listed", "9", "trials"],
        ["bayesian", "bayesian", "43", "trials"],
        ["default", "one_at_a_time", "33", "trials"],
        ["default_grid", "grid", "3981314", "trials"],
        ["demo", "one_at_a_time", "11", "trials"],
        ["english_subset", "listed", "12", "trials"],
        ["extended", "one_at_a_time", "13", "trials"],
        ["quick", "one_at_a_time", "4", "trials"],
        ["random", "random", "53", "trials"],
        ["rank_and_rate", "grid", "18", "trials"],
        ["small", "one_at_a_time", "29", "trials"],
        ["small_grid", "grid", "331778", "trials"],
    ]
    assert done.stderr == ""


def test_list_answers_in_json_and_finds_spaces_of_the_user(
    program: Program, own: tuple[str, ...]
) -> None:
    rows = json.loads(good(program, "list", "--json", *own[1:]).stdout)
    found = {row.pop("space"): row for row in rows}
    assert len(found) == 13
    assert found["mine"] == {"strategy": "grid", "num_configurations": 8, "num_trials": 19}
    assert found["bayesian"] == {
        "strategy": "bayesian",
        "num_configurations": None,
        "num_trials": 43,
    }


def test_show_names_values_ranges_and_conditions(program: Program, own: tuple[str, ...]) -> None:
    done = good(program, "show", *own)
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["grid"],
        ["lora_r", "4,", "8"],
        ["training_config.schedule", "linear,", "cosine"],
        [
            *("warmup_steps", "0", "to", "100,", "linear,", "step", "50"),
            *("(only", "where", "training_config.schedule", "is", "linear)"),
        ],
    ]
    shown = good(program, "show", "bayesian").stdout.splitlines()
    assert shown[0].startswith("bayesian, ")
    assert shown[0].endswith("by tpe")
    assert any(line.split() == "lora_r 4 to 64, log".split() for line in shown)
    assert good(program, "show", "random").stdout.splitlines()[0].endswith("by uniform")


def test_show_answers_in_json_that_is_a_space_again(program: Program, own: tuple[str, ...]) -> None:
    shown = good(program, "show", *own, "--json").stdout
    assert json.loads(shown)["HPARAM_CANDIDATES"]["lora_r"] == [4, 8]
    Path("again.json").write_text(
        json.dumps({k: v for k, v in json.loads(shown).items() if v is not None})
    )
    assert load_space("again.json") == load_space("mine", [Path("own")])


# --- count ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "begins"),
    [
        (["default"], "31 configurations, strategy one_at_a_time; a study makes 33 trials"),
        (["small"], "27 configurations, strategy one_at_a_time; a study makes 29 trials"),
        (["default_grid"], "3981312 configurations, strategy grid; a study makes 3981314 trials"),
        (["small_grid"], "331776 configurations, strategy grid; a study makes 331778 trials"),
        (["bayesian"], "endlessly many configurations, strategy bayesian; a study makes 43 "),
        (["random"], "3981312 configurations, strategy random; a study makes 53 trials"),
        (["extended"], "11 configurations, "),
        (["default", "lora_r=64"], "32 configurations, "),
        (["default", "lora_r=64", "lora_alpha=128"], "33 configurations, "),
        (["default", "models=tiny"], "31 configurations, "),
        (["default_grid", "lora_r=64"], "3981312 configurations, strategy grid; a study makes 3981315 "),
    ],
)  # fmt: skip
def test_a_space_is_counted_exactly(program: Program, arguments: list[str], begins: str) -> None:
    assert good(program, "count", *arguments).stdout.startswith(begins)


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ("default", "24 distinct trained weights in 21 trainings"),
        ("small", "23 distinct trained weights in 20 trainings"),
        ("default_grid", "73728 distinct trained weights in 18432 trainings"),
        ("bayesian", "the distinct trainings of a space of real values are as many as its trials"),
    ],
)
def test_configurations_of_equal_weights_can_be_counted_once(
    program: Program, space: str, says: str
) -> None:
    assert (
        good(program, "count", space, "--unique-trainings").stdout.splitlines()[1].startswith(says)
    )


def test_count_answers_in_json(program: Program, own: tuple[str, ...]) -> None:
    def counted(*arguments: str) -> Any:
        return json.loads(good(program, "count", *arguments, "--json").stdout)

    assert counted("default") == {"num_configurations": 31, "num_trials": 33}
    assert counted("default", "--unique-trainings") == {
        "num_configurations": 31,
        "num_trials": 33,
        "num_weights": 24,
        "num_trainings": 21,
    }
    assert counted("bayesian") == {"num_configurations": None, "num_trials": 43}
    assert counted(*own) == {"num_configurations": 8, "num_trials": 19}
    # The default's own point is one of the eight, and is trained as the default.
    assert counted(*own, "lora_r=4", "training_config.schedule=cosine")["num_trials"] == 17


def test_a_count_says_how_many_seeds_there_are(program: Program, own: tuple[str, ...]) -> None:
    assert good(program, "count", *own).stdout == (
        "8 configurations, strategy grid; a study makes 19 trials of them, with 3 seeds of the "
        "default and 2 of the others\n"
    )


@pytest.mark.parametrize("command", ["count", "show"])
def test_notes_say_what_is_no_hyperparameter(program: Program, command: str) -> None:
    notes = good(program, command, "default").stderr.splitlines()
    assert [note.split(": ")[:2] for note in notes] == [
        ["note", "position_task_weight and count_task_weight"],
        ["note", "gpu_tier"],
        ["note", "analyze_thinking_mode"],
    ]
    assert "--focus" in notes[0]
    assert "changes the cost" in notes[1]
    assert "changes an analysis" in notes[2]
    assert len(good(program, command, "small").stderr.splitlines()) == 1
    assert good(program, command, "extended").stderr == ""


# --- point and sample -----------------------------------------------------------------------------


def test_every_point_has_a_number_the_last_parameter_fastest(
    program: Program, own: tuple[str, ...]
) -> None:
    found = [json.loads(good(program, "point", own[0], str(i), *own[1:], "--json").stdout) for i in range(8)]  # fmt: skip
    assert found == POINTS
    assert good(program, "point", own[0], "3", *own[1:]).stdout == (
        "3: lora_r=4, training_config.schedule=cosine\n"
    )


def test_a_point_of_a_large_product_is_found_at_once(program: Program) -> None:
    first = json.loads(good(program, "point", "default_grid", "0", "--json").stdout)
    last = json.loads(good(program, "point", "default_grid", "3981311", "--json").stdout)
    assert list(first.values()) == [
        *(4, 8, 1e-4, 4, 1, 500, 0.5, "easy", 0.3, 0.3, "cpu", False, False),
    ]
    assert list(last.values()) == [
        *(32, 64, 1e-3, 32, 8, 5000, 0.9, "hard", 0.7, 0.7, "a100", True, True),
    ]
    second = json.loads(good(program, "point", "default_grid", "1", "--json").stdout)
    assert second == {**first, "analyze_thinking_mode": True}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["small_grid", "331776"], ["index must lie in [0, 331776), got 331776"]),
        (["small_grid", "--", "-1"], ["index must lie in [0, 331776), got -1"]),
        (["small_grid", "first"], ["'index'", "integer"]),
        (["bayesian", "0"], ["learning_rate: a range of real numbers has no number of points"]),
    ],
)
def test_a_point_that_is_not_there_is_one_clear_line(
    program: Program, arguments: list[str], words: list[str]
) -> None:
    program("space", "point", *arguments).assert_one_clear_line(*words)


def sampled(program: Program, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in good(program, "sample", *arguments, "--json").stdout.splitlines()]  # fmt: skip


def test_a_sample_is_repeatable_and_a_larger_one_begins_with_it(program: Program) -> None:
    five = sampled(program, "default_grid")
    assert len(five) == 5
    assert sampled(program, "default_grid", "--count", "8")[:5] == five
    assert sampled(program, "default_grid", "--seed", "0") == five
    assert sampled(program, "default_grid", "--seed", "1") != five
    text = good(program, "sample", "default_grid", "-n", "2").stdout.splitlines()
    assert [line.split(": ")[0] for line in text] == ["0", "1"]
    assert text[0].startswith(f"0: lora_r={five[0]['lora_r']}, ")


def test_a_sample_has_no_point_twice_and_in_the_end_all_of_them(
    program: Program, own: tuple[str, ...]
) -> None:
    drawn = sampled(program, *own, "-n", "100", "--seed", "3")
    assert sorted(map(repr, drawn)) == sorted(map(repr, POINTS))
    assert drawn != POINTS
    points = sampled(program, "small_grid", "-n", "300")
    assert len({repr(point) for point in points}) == 300


def test_ranges_of_real_numbers_can_be_sampled_too(program: Program) -> None:
    points = sampled(program, "bayesian", "-n", "40", "--seed", "1")
    assert points == sampled(program, "bayesian", "-n", "40", "--seed", "1")
    assert len({repr(point) for point in points}) == 40
    for point in points:
        assert 1e-5 <= point["learning_rate"] <= 5e-3
        decays = point["training_config.schedule"] == "cosine"
        assert ("training_config.weight_decay" in point) is decays


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["count", "defalt"], ["space defalt: no such space; did you mean default"]),
        (["show", "no.yaml"], ["no.yaml: no such file"]),
        (["count", "../x"], ["space must be 1 to 128 letters", "'../x'"]),
        (["count", "small", "lora_rr=8"], ["lora_rr: no such", "did you mean lora_r"]),
        (["count", "small", "warmup_steps=600"], ["max_steps=500", "got 600 > 500"]),
        (["count", "small", "lora_r=0"], ["override 'lora_r=0': lora_config.r"]),
        (["sample", "small", "-n", "0"], ["--count"]),
        (["sample", "small", "--seed", "-1"], ["--seed"]),
        (["cont", "small"], ["No such command 'cont'"]),
        (["count", "small", "--uniqe"], ["No such option: --uniqe"]),
        (["count"], ["Missing argument 'SPACE'"]),
        (["point", "small"], ["Missing argument"]),
    ],
)
def test_a_mistake_is_one_clear_line(
    program: Program, arguments: list[str], words: list[str]
) -> None:
    program("space", *arguments).assert_one_clear_line(*words)


def test_all_mistakes_of_a_space_are_reported_together(program: Program) -> None:
    Path("bad.yaml").write_text("HPARAM_CANDIDATES:\n  lora_r: [0]\n  lora_alfa: [8]\n")
    done = program("space", "count", "bad.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.split(": ")[1] for line in done.stderr.splitlines()] == [
        "bad.yaml, line 2",
        "bad.yaml, line 3",
    ]
