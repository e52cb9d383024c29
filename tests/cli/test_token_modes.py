"""`tuning tokens thinking`: what it shows and writes, and one clear line for a mistake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_support import Program, files_below

from tuning.qwen3_tokenizer import tokenizer_source

FOLDER = Path("results/tuning/token_analysis")
WRITTEN = [f"thinking.{ending}" for ending in ("html", "json", "png", "svg")]


def write_outputs(path: Path, num_texts: int) -> None:
    rows = [
        {"mode": mode, "text": text.format(i), "task": "position"}
        for i in range(num_texts)
        for mode, text in (
            ("thinking", "<think>\nI look at letter {} and go on from there.\n</think>\n\nb"),
            ("non_thinking", "The letter asked for at place number {} of this word must be b."),
        )
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_without_files_examples_are_compared_and_called_too_few(program: Program) -> None:
    done = program("tokens", "thinking")
    assert done.returncode == 0, done.stderr
    assert files_below(FOLDER) == WRITTEN
    for words in (
        "<think> (151667) ⏎⏎ (271) </think> (151668) ⏎⏎ (271)",
        "Thinking adds no token",
        "read with care: too few texts to say anything",
        "- At equal lengths: ",
        f"wrote {FOLDER}/thinking.png",
    ):
        assert words in done.stdout
    assert (FOLDER / "thinking.png").read_bytes().startswith(b"\x89PNG")


def test_outputs_of_a_trial_are_compared_as_json(program: Program, tmp_path: Path) -> None:
    write_outputs(tmp_path / "thinking.jsonl", 25)
    done = program(
        *("tokens", "thinking", "--outputs", "thinking.jsonl", "--json", "--results-dir", "r")
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert sorted(Path(path).name for path in answer.pop("files")) == WRITTEN
    assert answer == json.loads(Path("r/token_analysis/thinking.json").read_text())
    assert answer["thinking_mode"]["token_distribution"]["<think>"] == 25
    assert answer["non_thinking_mode"]["num_texts"] == 25
    comparison = answer["thinking_comparison"]
    assert comparison["source"] == "thinking.jsonl"
    assert comparison["warning"] is None
    assert comparison["jensen_shannon"]["at_equal_lengths"]["p_value"] < 0.01


def test_two_files_are_compared_and_a_seed_repeats(program: Program, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("[bold]I think[/bold] so.\nIt may be b.\n")
    (tmp_path / "d.jsonl").write_text('{"text": "b"}\n{"text": "\\u001b[31mc"}\n')
    given = ("tokens", "thinking", "--thinking-texts", "t.txt", "--direct-texts", "d.jsonl")
    done = program(*given, "--seed", "3", "--quiet")
    assert "texts: t.txt and d.jsonl" in done.stdout
    assert "[" in done.stdout
    assert "\x1b" not in done.stdout
    first = (FOLDER / "thinking.json").read_bytes()
    assert program(*given, "--seed", "3", "--json").returncode == 0
    assert (FOLDER / "thinking.json").read_bytes() == first


def test_a_tokenizer_of_ones_own_must_be_genuine(program: Program, tmp_path: Path) -> None:
    shutil.copyfile(tokenizer_source().path, tmp_path / "tokenizer.json")
    assert program("tokens", "thinking", "--tokenizer", ".", "--json").returncode == 0
    with (tmp_path / "tokenizer.json").open("ab") as file:
        file.write(b" ")
    done = program("tokens", "thinking", "--tokenizer", "tokenizer.json", "--results-dir", "new")
    done.assert_one_clear_line("tokenizer.json is not the genuine Qwen3 tokenizer")
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--thinking-texts", "t.txt"], ["--thinking-texts needs --direct-texts"]),
        (["--direct-texts", "t.txt"], ["--direct-texts needs --thinking-texts"]),
        (["--outputs", "o.jsonl", "--direct-texts", "t.txt"], ["--outputs holds both sets"]),
        (["--outputs", "no.jsonl"], ["no.jsonl: no such file", "did you mean o.jsonl"]),
        (["--outputs", "o.jsonl"], ["o.jsonl, line 1", "'thinkin'", "did you mean thinking"]),
        (["--thinking-texts", "e.txt", "--direct-texts", "t.txt"], ["e.txt", "got none"]),
        (["--seed", "-1"], ["--seed"]),
        (["--tokenizer", "nowhere"], ["not found at nowhere"]),
        (["--results-dir", "t.txt"], ["t.txt"]),
    ],
)
def test_a_mistake_is_one_clear_line(
    program: Program, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "t.txt").write_text("a text\n")
    (tmp_path / "e.txt").write_text("\n\n")
    (tmp_path / "o.jsonl").write_text('{"mode": "thinkin", "text": "a"}\n')
    program("tokens", "thinking", *arguments).assert_one_clear_line(*words)
    assert files_below(tmp_path) == ["e.txt", "o.jsonl", "t.txt"]
