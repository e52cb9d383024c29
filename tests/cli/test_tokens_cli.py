"""`tuning tokens` and `--mode token-analysis`: what they print, write and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import Program, files_below, in_process

from tuning.paths import shipped_config_dir
from tuning.qwen3_tokenizer import tokenizer_source

ANALYSIS = "results/tuning/token_analysis"
COUNTS = ("68,923", "90,913", "94,358", "47,938", "41,547", "1,448")


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    (tmp_path / "mine.txt").write_text("xylophonist\nobfuscatory\nsesquipedalian\n")
    return in_process(tmp_path, monkeypatch, capsys)


@pytest.fixture
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the list of all words hold a few of them."""
    monkeypatch.setattr("tuning.token_analysis.all_words", lambda: ("the", "strawberry", "xylem"))


# --- the whole analysis -------------------------------------------------------------------------


@pytest.mark.usefixtures("few_words")
def test_the_mode_prints_sizes_and_english_tokens_and_writes_all(
    program: Program, tmp_path: Path
) -> None:
    done = program("--mode", "token-analysis", "--english-only", "--analyze-thinking")
    assert done.returncode == 0, done.stderr
    assert "vocabulary size: 151,669 tokens, 151,643 of merged bytes and 26 added" in done.stdout
    assert "151,936 rows, the last 267 padding" in done.stdout
    assert "English tokens: 90,928 of 151,669, 59.95 %: 90,913 by the rule printable" in done.stdout
    for count in COUNTS:
        assert count in done.stdout
    found = set(files_below(tmp_path / ANALYSIS))
    for name in ("token_distribution", "token_length", "tokens_per_word", "thinking"):
        assert {f"{name}.png", f"{name}.svg", f"{name}.html"} <= found
    assert {"tokenizer_stats.json", "multi_token_words.json", "words.parquet"} <= found
    assert "english_tokens/english_vocab.json" in found


@pytest.mark.usefixtures("few_words")
def test_without_english_only_no_english_tokens_are_counted(program: Program) -> None:
    stats = json.loads(program("tokens", "analyze", "--no-figures", "--json", "--quiet").stdout)
    assert stats["vocab_size"] == 151_669
    assert "english_token_count" not in stats
    assert "thinking_mode" not in stats


@pytest.mark.usefixtures("few_words")
def test_settings_of_a_configuration_count_and_options_win(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(
        "experiment_name: mine\n"
        "tokenizer_config: {model_name: tiny, use_english_only_tokens: true,\n"
        "  analyze_thinking_mode: true, subset_rule: letters}\n"
    )
    options = ("--config", "mine.yaml", "--no-figures", "--json")
    stats = json.loads(program("tokens", "analyze", *options).stdout)
    assert stats["english_subset"]["rule"] == "letters"
    assert stats["english_rule_token_count"] == 68_923
    assert stats["thinking_mode"]["unique_tokens"] > 0
    done = program("tokens", "analyze", *options, "--rule", "ascii")
    assert json.loads(done.stdout)["english_rule_token_count"] == 94_358
    assert "not that of" not in done.stderr
    assert "a few examples are compared instead" in done.stderr


@pytest.mark.usefixtures("few_words")
def test_the_shipped_parts_of_configurations_count(program: Program) -> None:
    shipped = shipped_config_dir() / "token_analysis"
    for name, key in (("english", "english_token_count"), ("thinking", "thinking_mode")):
        options = ("--config", shipped / f"{name}.yaml", "--no-figures", "--json")
        done = program("tokens", "analyze", *options)
        assert {"english_token_count", "thinking_mode"} & set(json.loads(done.stdout)) == {key}


@pytest.mark.usefixtures("few_words")
def test_a_configuration_of_another_model_is_told_whose_tokenizer_this_is(
    program: Program, tmp_path: Path
) -> None:
    (tmp_path / "other.yaml").write_text(
        "experiment_name: other\ntokenizer_config: {model_name: smollm2-135m}\n"
    )
    done = program("tokens", "analyze", "--config", "other.yaml", "--no-figures", "--json")
    assert "the tokenizer of Qwen3 is analysed, not that of smollm2-135m" in done.stderr
    assert json.loads(done.stdout)["vocab_size"] == 151_669


@pytest.mark.usefixtures("few_words")
def test_outputs_of_a_model_are_compared(program: Program, tmp_path: Path) -> None:
    lines = [{"mode": "thinking", "text": "so so so"}, {"mode": "non_thinking", "text": "yes"}]
    (tmp_path / "out.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ("--outputs", "out.jsonl", "--no-figures", "--json")
    done = program("tokens", "analyze", "--analyze-thinking", *options)
    assert json.loads(done.stdout)["thinking_comparison"]["source"] == "out.jsonl"
    program("tokens", "analyze", *options).assert_one_clear_line("--outputs", "--analyze-thinking")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--focus", "transfer"),
        ("--gpu-tier", "t4"),
        ("--space", "small"),
        ("--name", "mine"),
        ("--dry-run", None),
    ],
)
def test_an_option_that_changes_a_training_is_refused(
    program: Program, tmp_path: Path, option: str, value: str | None
) -> None:
    done = program("--mode", "token-analysis", option, *([value] if value else []))
    done.assert_one_clear_line(option, "trains nothing")
    assert files_below(tmp_path) == ["mine.txt"]


# --- words, subset ------------------------------------------------------------------------------


def test_words_of_a_file_are_cut_and_written(program: Program, tmp_path: Path) -> None:
    done = program("tokens", "words", "--words", "mine.txt", "--top", "1")
    assert done.returncode == 0, done.stderr
    assert "words: 3 of mine.txt" in done.stdout
    assert "obfuscatory" in done.stdout
    assert "xylophonist" not in done.stdout
    written = [f"{ANALYSIS}/{name}" for name in files_below(tmp_path / ANALYSIS)]
    assert sorted(line.removeprefix("wrote ") for line in done.stdout.splitlines()[-10:]) == written
    facts = json.loads(program("tokens", "words", "--words", "mine.txt", "--json").stdout)
    assert facts["num_words"] == 3
    assert sorted(facts["files"]) == written
    words = [row["word"] for row in facts["most_fragmented"]]
    assert words == ["obfuscatory", "sesquipedalian", "xylophonist"]


BAD: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "no such file"),
    "empty lines": (b"\n\n\n", "needs at least one word, got none"),
    "binary": (b"\x00\x01\x02", "is binary, not text"),
    "one line of 10 MB": (b"a" * 10_000_000, "at most 1,024 bytes"),
    "no word": (b"don't\n", "1 to 100 lower-case letters a-z"),
}


@pytest.mark.parametrize("command", ["words", "analyze"])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_list_is_one_clear_line_and_writes_nothing(
    program: Program, tmp_path: Path, name: str, command: str
) -> None:
    content, message = BAD[name]
    if content is not None:
        (tmp_path / "bad.txt").write_bytes(content)
    done = program("tokens", command, "--words", "bad.txt", "--results-dir", "out")
    done.assert_one_clear_line("bad.txt", message)
    assert [name for name in files_below(tmp_path) if name.startswith("out/")] == []


def test_the_subset_is_written_and_explained(program: Program, tmp_path: Path) -> None:
    done = program("tokens", "subset", "--rule", "letters")
    assert "English tokens: 69,008 of 151,669, 45.50 %: 68,923 by the rule letters" in done.stdout
    assert files_below(tmp_path / ANALYSIS) == [
        "english_tokens/english_vocab.json",
        "english_tokens/english_vocab.meta.json",
    ]
    facts = json.loads(program("tokens", "subset", "--json").stdout)
    saved = json.loads((tmp_path / ANALYSIS / "english_tokens/english_vocab.json").read_text())
    assert facts["rule"] == "printable"
    assert facts["num_tokens"] == len(saved)


def test_another_models_tokenizer_is_only_looked_at(program: Program, tmp_path: Path) -> None:
    facts = json.loads(program("tokens", "subset", "--model", "tiny", "--json").stdout)
    assert facts["model"] == "tiny"
    assert facts["num_tokens"] < facts["vocabulary_size"] < 10_000
    assert files_below(tmp_path) == ["mine.txt"]
    done = program("tokens", "subset", "--model", "tiny", "--tokenizer", "x")
    done.assert_one_clear_line("--model", "--tokenizer")


@pytest.mark.parametrize("command", ["subset", "analyze"])
def test_an_unknown_rule_names_the_nearest(program: Program, tmp_path: Path, command: str) -> None:
    done = program("tokens", command, "--rule", "printible")
    done.assert_one_clear_line("'printible'", "did you mean printable")
    assert files_below(tmp_path) == ["mine.txt"]


@pytest.mark.parametrize(
    "arguments", [("words",), ("subset",), ("analyze",), ("show", "word"), ("thinking",)]
)
def test_a_tampered_tokenizer_is_refused(
    program: Program, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_source().path.read_bytes()[:-1])
    done = program("tokens", *arguments, "--tokenizer", "tokenizer.json")
    done.assert_one_clear_line("tokenizer.json is not the genuine Qwen3 tokenizer", "SHA-256")
    assert files_below(tmp_path) == ["mine.txt", "tokenizer.json"]


# --- show ---------------------------------------------------------------------------------------


def test_strawberry_is_drawn(program: Program, tmp_path: Path) -> None:
    done = program("tokens", "show", "strawberry")
    assert done.stdout.splitlines() == [
        "strawberry: 10 letters, Zipf frequency 3.72, difficulty hard",
        "  spaced: 1 token",
        "  ␣ s t r a w b e r r y",
        "    1 2 3 4 5 6 7 8 9 10",
        "  72600",
        "  bare: 3 tokens",
        "  s t r | a w | b e r r y",
        "  1 2 3 | 4 5 | 6 7 8 9 10",
        "  495   | 672 | 15357",
        "  capitalised: 1 token",
        "  ␣ S t r a w b e r r y",
        "    1 2 3 4 5 6 7 8 9 10",
        "  87977",
    ]
    assert files_below(tmp_path) == ["mine.txt"]


def test_words_of_any_language_are_drawn(program: Program) -> None:
    done = program("tokens", "show", "ዼ", "naïve", "<think>", "a\x1bb")
    assert done.returncode == 0
    assert "ዼ: 1 letter, not listed by wordfreq" in done.stdout
    assert "<think>: 7 characters" in done.stdout
    assert "\x1b" not in done.stdout
    assert " E1 " in done.stdout


def test_a_long_word_is_broken_between_tokens(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    monkeypatch.setattr("tuning.cli.tables.CONSOLE", Console(width=40))
    done = program("tokens", "show", "supercalifragilisticexpialidocious")
    assert max(map(len, done.stdout.splitlines()[1:])) <= 40
    assert done.stdout.count("5416") == 1


def test_words_as_json_have_positions(program: Program) -> None:
    (facts,) = json.loads(program("tokens", "show", "Berlin", "--json").stdout)
    assert facts["word"] == "Berlin"
    assert facts["difficulty"] is None
    spaced, bare = facts["forms"]
    assert [cell["position"] for cell in spaced["pieces"][0]["cells"]] == [None, 1, 2, 3, 4, 5, 6]
    assert bare["pieces"][0]["id"] == 94409


@pytest.mark.parametrize("word", ["", "  ", "\udcff"])
def test_what_is_no_word_is_one_clear_line(program: Program, word: str) -> None:
    program("tokens", "show", word).assert_one_clear_line("a word")


@pytest.mark.parametrize("command", ["analyze", "words", "subset", "show", "thinking"])
def test_help_has_an_example(program: Program, command: str) -> None:
    done = program("tokens", command, "--help")
    assert done.returncode == 0
    assert f"tuning tokens {command}" in " ".join(done.stdout.split())
