"""`tuning tasks`: what is trained on and asked, as text and as files; what is never a subject."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Done, Program, files_below

from tests_support import small_mapping
from tuning.config import build
from tuning.fingerprint import training_key
from tuning.model.base import encodable, subject_words, tokenizer_of
from tuning.tasks.splits import Split, split_subjects
from tuning.tasks.words import benchmark_stems, benchmark_words, hash_of_words, stems
from tuning.training_data import training_data


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_mapping()))
    return path


def rows_of(done: Done) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- preview ------------------------------------------------------------------------------------


def test_preview_shows_as_many_of_each_kind_as_asked_for(program: Program) -> None:
    rows = rows_of(program("tasks", "preview", "-n", "5", "--json"))
    kinds = ["training, arm spelling", *(f"evaluation: {t}" for t in ("spelling", "position"))]
    assert [row["kind"] for row in rows] == [
        k for kind in (*kinds, "evaluation: count") for k in [kind] * 5
    ]
    for row in rows:
        if row["kind"] == "evaluation: position":
            assert row["answer"] == row["word"][row["position"] - 1]
        if row["kind"] == "evaluation: count":
            assert row["answer"] == str(row["word"].count(row["letter"]))
        assert row["prompt"] == row["question"]
    shown = program("tasks", "preview", "-n", "5").stdout
    for row in rows:
        assert f"  {row['question']!r} -> {row['answer']!r}  ({row['template']})" in shown


def test_preview_shows_the_arm_of_the_overrides(program: Program) -> None:
    rows = rows_of(program("tasks", "preview", "arm=direct", "spelling_data_ratio=1", "--json"))
    trained = [row for row in rows if row["kind"] == "training, arm direct"]
    assert len(trained) == 4
    assert {row["task"] for row in trained} <= {"position", "count"}


def test_preview_says_what_is_wrong_with_an_override(program: Program, tmp_path: Path) -> None:
    done = program("tasks", "preview", "arm=direkt")
    done.assert_one_clear_line("spelling_config.arm", "direkt")
    done = program("tasks", "preview", "--model", "tinny")
    done.assert_one_clear_line("'tinny'", "did you mean tiny")
    assert list(tmp_path.iterdir()) == []


# --- export -------------------------------------------------------------------------------------


def test_an_export_is_what_the_manifest_says(program: Program, config_file: Path) -> None:
    done = program("tasks", "export", "--config", config_file, "--output", "out", "--steps", "5")
    assert done.returncode == 0, done.stderr
    assert "train.jsonl 40 lines" in done.stdout
    folder = Path("out")
    assert files_below(folder) == ["manifest.json", "train.jsonl", "validation.jsonl"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == {"train.jsonl", "validation.jsonl"}
    for name, said in manifest["files"].items():
        content = (folder / name).read_bytes()
        assert said["sha256"] == hashlib.sha256(content).hexdigest()
        assert said["num_lines"] == content.count(b"\n")
    config = build(small_mapping(), "test")
    assert manifest["training_key"] == training_key(config)
    assert manifest["benchmark_words_sha256"] == hash_of_words(sorted(benchmark_words()))
    assert manifest["config"] == config.model_dump(mode="json")
    assert sum(manifest["mix"]["spelling"].values()) > 0


def test_an_export_holds_the_very_examples_of_a_run(program: Program, config_file: Path) -> None:
    assert program("tasks", "export", "--config", config_file, "--output", "out").returncode == 0
    rows = [json.loads(line) for line in Path("out/train.jsonl").read_text().splitlines()]
    config = build(small_mapping(), "test")
    tokenizer = tokenizer_of("tiny")
    words = split_subjects(subject_words("tiny"))
    stream = training_data(
        config, words[Split.TRAIN], tokenizer.count_tokens, lambda w: encodable(w, tokenizer)
    ).stream
    assert [row["step"] for row in rows] == [step for step in range(1, 13) for _ in range(8)]
    for index, row in enumerate(rows):
        item = stream.example(index)
        assert (row["question"], row["answer"]) == (item.question, item.answer)
    asked = [json.loads(line) for line in Path("out/validation.jsonl").read_text().splitlines()]
    held_out = set(words[Split.VALIDATION].all)
    assert {row["word"] for row in asked} <= held_out
    assert not {row["word"] for row in rows} & held_out
    assert {row["band"] for row in asked} == {"easy", "medium", "hard"}


def test_the_same_export_twice_is_the_same_bytes(program: Program, config_file: Path) -> None:
    for name in ("a", "b"):
        done = program("tasks", "export", "--config", config_file, "--output", name, "--quiet")
        assert (done.returncode, done.stdout) == (0, "")
    for name in files_below(Path("a")):
        assert Path("a", name).read_bytes() == Path("b", name).read_bytes(), name


def test_an_export_never_writes_over_a_folder(program: Program, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    program("tasks", "export", "--output", "out").assert_one_clear_line("out exists", "new folder")
    assert files_below(tmp_path) == ["out/mine.txt"]


def test_an_export_that_fails_leaves_nothing(program: Program, tmp_path: Path) -> None:
    done = program("tasks", "export", "--output", "out", "spelling_config.word_list=nowhere.txt")
    done.assert_one_clear_line("nowhere.txt")
    assert list(tmp_path.iterdir()) == []


def test_an_export_of_ones_own_words_says_what_was_left_out(
    program: Program, tmp_path: Path
) -> None:
    from tuning.model.tiny import tiny_words

    train = split_subjects(subject_words("tiny"))[Split.TRAIN].real
    held_out = split_subjects(subject_words("tiny"))[Split.VALIDATION].real
    own = [*train[:50], *held_out[:7], "strawberry", "philosophy", tiny_words().pretraining[0]]
    (tmp_path / "words.txt").write_text("\n".join(own))
    done = program(
        *("tasks", "export", "--output", "out", "--steps", "2"),
        *("spelling_config.word_list=words.txt", "evaluation_config.num_words=30"),
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads(Path("out/manifest.json").read_text())
    left_out = manifest["left_out"]
    assert left_out["benchmark words"] == 1
    assert left_out["of the validation and test splits"] >= 7
    assert manifest["trained_words"]["count"] == len(own) - sum(left_out.values())
    rows = [json.loads(line) for line in Path("out/train.jsonl").read_text().splitlines()]
    spelled = {row["word"] for row in rows if row["task"] == "spelling"}
    assert spelled <= {*train[:50], tiny_words().pretraining[0]}


# --- exclusions ---------------------------------------------------------------------------------


def test_exclusions_are_counted_for_every_list(program: Program) -> None:
    (report,) = rows_of(program("tasks", "exclusions", "--json"))
    assert report["num_benchmark_words"] == len(benchmark_words())
    assert list(report["lists"]) == [
        *("English words of wordfreq", "pretraining of tiny", "study words of tiny")
    ]
    for counts in report["lists"].values():
        assert counts["num_words"] == (
            counts["num_listed"] + counts["num_same_stem"] + counts["num_kept"]
        )
    english = report["lists"]["English words of wordfreq"]
    assert len(report["left_out"]) == english["num_words"] - english["num_kept"] > 0
    for name in ("pretraining of tiny", "study words of tiny"):
        assert report["lists"][name]["num_words"] == report["lists"][name]["num_kept"]
    assert set(report["exempt"]) <= benchmark_words()


def test_exclusions_of_ones_own_list_are_named(program: Program, tmp_path: Path) -> None:
    listed = sorted(benchmark_words() - {"a"})[0]
    related = next(w for w in (f"{listed}s", f"{listed}ed") if stems([w])[0] in benchmark_stems())
    (tmp_path / "mine.txt").write_text(f"# mine\nmoonlight\n{listed}\n\n{related}\n")
    (report,) = rows_of(program("tasks", "exclusions", "--words", "mine.txt", "--json"))
    assert report["lists"]["mine.txt"]["num_kept"] == 1
    assert set(report["left_out"]) == {listed, related}
    shown = program("tasks", "exclusions", "--words", "mine.txt", "--list").stdout
    assert {listed, related} <= set(shown.splitlines())
    assert "mine.txt: 3 words" in shown
    assert listed not in program("tasks", "exclusions", "--words", "mine.txt").stdout.splitlines()


def test_a_list_that_is_none_is_one_clear_line(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("moonlight\nMoon Light\n")
    done = program("tasks", "exclusions", "--words", "mine.txt")
    done.assert_one_clear_line("mine.txt, line 2", "lower-case")
    program("tasks", "exclusions", "--words", "no.txt").assert_one_clear_line("no such file")


# --- scan ---------------------------------------------------------------------------------------


def test_a_scan_finds_every_line_that_leaks(program: Program, tmp_path: Path) -> None:
    lines = [
        {"prompt": "Say hello.", "answer": "hello"},
        {"prompt": "What is the third letter of moonlight?", "answer": "o"},
        {"prompt": "Which day comes after Monday?", "answer": "Tuesday"},
        {"prompt": "How many times does o occur in moonlight?", "answer": "2"},
    ]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, lines)))
    done = program("tasks", "scan", "text.jsonl", "--json")
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert found["num_lines"] == 4
    assert [(row["line"], row["leak"]) for row in found["findings"]] == [
        (2, "position"),
        (4, "count"),
    ]
    shown = program("tasks", "scan", "text.jsonl")
    assert "text.jsonl, line 2: position content: 'third letter'" in shown.stdout
    assert "4 lines read, 2 with letter-level content" in shown.stdout


def test_a_scan_of_clean_text_ends_well(program: Program, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"prompt": "Say hello.", "answer": "hello"}\n')
    done = program("tasks", "scan", "text.jsonl")
    assert done.returncode == 0
    assert "1 lines read, 0 with letter-level content" in done.stdout
    program("tasks", "scan", "no.jsonl").assert_one_clear_line("no such file")
