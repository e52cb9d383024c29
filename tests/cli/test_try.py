"""`tuning try`: questions and answers, given, piped, and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Program, TrainedAdapter, trained_adapter

from tuning.cli.try_out import question_of
from tuning.errors import UserError


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    return trained_adapter(tmp_path_factory.getbasetemp() / "trained")


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("spell parrot", "Spell the word parrot, letters separated by spaces.\n"),
        ("SPELL parrot", "Spell the word parrot, letters separated by spaces.\n"),
        (
            "position 3 parrot",
            "What is letter number 3 of parrot? Answer with only the letter.\n",
        ),
        (
            "count r parrot",
            "How many times does the letter r occur in parrot? Answer with only the number.\n",
        ),
        ("spell it out", "spell it out\n"),
        ("position three parrot", "position three parrot\n"),
        ("count rr parrot", "count rr parrot\n"),
        ("What is 3 + 4?", "What is 3 + 4?\n"),
    ],
)
def test_a_short_form_stands_for_a_question(text: str, question: str) -> None:
    assert question_of(text) == question


@pytest.mark.parametrize("n", [0, 7, 99])
def test_a_position_that_the_word_does_not_have_is_refused(n: int) -> None:
    with pytest.raises(UserError, match=f"1 to 6 in 'parrot', got {n}"):
        question_of(f"position {n} parrot")


def test_questions_given_are_answered_by_the_untouched_model(program: Program) -> None:
    done = program("try", "position 1 parrot", "What is 3 + 4?")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "position 1 parrot"
    assert lines[1] == "  untouched  'p'"
    assert lines[2] == "What is 3 + 4?"
    assert lines[3].startswith("  untouched  '")
    assert len(lines) == 4


def test_the_tuned_answer_stands_beside_the_untouched_one(
    program: Program, trained: TrainedAdapter
) -> None:
    question = "spell moonlight"
    done = program("try", question, "--adapter", trained.adapter, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == ["question", "untouched", "tuned"]
    alone = json.loads(program("try", question, "--json").stdout)
    assert alone == {"question": question, "untouched": answer["untouched"]}
    shown = program("try", question, "--adapter", trained.adapter).stdout.splitlines()
    assert shown == [
        f"  untouched  {answer['untouched']!r}",
        f"  tuned      {answer['tuned']!r}",
    ]


def test_a_longest_answer_is_kept(program: Program) -> None:
    short = json.loads(program("try", "spell moonlight", "--max-tokens", "2", "--json").stdout)
    whole = json.loads(program("try", "spell moonlight", "--json").stdout)
    assert whole["untouched"].startswith(short["untouched"])
    assert len(short["untouched"]) < len(whole["untouched"])


def test_questions_are_read_from_a_pipe_until_an_empty_line(program: Program) -> None:
    typed = "position 1 parrot\nposition 1 garfield\n\nposition 1 canals\n"
    done = program("try", "--json", typed=typed)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["question"] for a in answers] == ["position 1 parrot", "position 1 garfield"]
    assert [a["untouched"] for a in answers] == ["p", "g"]
    assert program("try", typed="").stdout == ""


@pytest.mark.parametrize(
    ("mistake", "words"),
    [("Is philosophy hard?", "no row for the token"), ("position 9 parrot", "1 to 6")],
)
def test_a_mistake_does_not_end_a_session(program: Program, mistake: str, words: str) -> None:
    done = program("try", "--json", typed=f"{mistake}\nposition 1 parrot\n")
    assert done.returncode == 0, done.stderr
    (answer,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert answer == {"question": "position 1 parrot", "untouched": "p"}
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("tuning: ")
    assert words in line


@pytest.mark.parametrize("mistake", ["Is philosophy hard?", "position 9 parrot"])
def test_a_mistake_in_a_question_given_is_one_clear_line(program: Program, mistake: str) -> None:
    program("try", mistake).assert_one_clear_line()


def test_what_cannot_be_loaded_is_one_clear_line(program: Program, tmp_path: Path) -> None:
    program("try", "x", "--model", "tinny").assert_one_clear_line("'tinny'", "did you mean tiny")
    program("try", "x", "--adapter", "no").assert_one_clear_line("no", "holds no adapter")
    assert list(tmp_path.iterdir()) == []
