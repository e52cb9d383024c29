"""Laws of `tuning.paths`: no name leaves its folder, and every file has its documented place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning import paths
from tuning.errors import NameRefusedError, UserError

BAD_NAMES = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\\b",
    ".hidden",
    "-rf",
    "_x",
    "a b",
    "a\n",
    "\na",
    "a\x00",
    "é",
    "a:b",
    "a*",
    "~root",
    "x" * 129,
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_unsafe_names_are_refused_with_the_name(name: str) -> None:
    with pytest.raises(NameRefusedError, match="begin with a letter or digit") as caught:
        paths.checked_name(name, "study name")
    assert str(caught.value).startswith("study name must be")
    assert repr(name) in str(caught.value)
    assert isinstance(caught.value, UserError)


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-1", "x" * 128, "a..b", "20260101_000000"])
def test_safe_names_pass_unchanged(name: str) -> None:
    assert paths.checked_name(name) == name


@given(name=st.text(max_size=20) | st.text("./\\a~-_ \n\x00", max_size=6))
def test_whatever_passes_stays_a_direct_child_of_its_folder(name: str) -> None:
    try:
        paths.checked_name(name)
    except NameRefusedError:
        return
    root = Path("/results")
    assert (root / name).parent == root
    assert (root / name).resolve().parent == root.resolve()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_no_unsafe_name_becomes_a_folder(name: str) -> None:
    results = paths.ResultsRoot(Path("/r"))
    with pytest.raises(NameRefusedError):
        results.study(name)
    with pytest.raises(NameRefusedError):
        results.training(name)
    with pytest.raises(NameRefusedError):
        results.study("study").trial(name)


def test_a_study_cannot_take_the_folder_of_the_trainings() -> None:
    with pytest.raises(NameRefusedError, match="'trainings' is reserved"):
        paths.ResultsRoot().study("trainings")


def test_results_lie_where_the_specification_says() -> None:
    results = paths.ResultsRoot()
    assert {
        "data": str(results.data),
        "configs": str(results.best_configs),
        "figures": str(results.figures),
        "transfer": str(results.transfer),
        "reports": str(results.reports),
    } == {
        name: f"results/tuning/{name}"
        for name in ("data", "configs", "figures", "transfer", "reports")
    }
    assert Path("configs/hyperparameters") == paths.DEFAULT_CONFIG_DIR
    tokens = results.token_analysis
    assert str(tokens.root) == "results/tuning/token_analysis"
    assert tokens.stats == tokens.root / "tokenizer_stats.json"
    assert tokens.multi_token_words == tokens.root / "multi_token_words.json"
    assert tokens.english_vocab == tokens.root / "english_tokens" / "english_vocab.json"


def test_a_training_lies_where_the_design_says() -> None:
    folder = paths.ResultsRoot(Path("/r")).training("0a1b")
    root = Path("/r/data/trainings/0a1b")
    assert folder.root == root
    assert folder.config == root / "config.yaml"
    assert folder.progress == root / "progress.jsonl"
    assert folder.attempts == root / "attempts.jsonl"
    assert folder.log == root / "log.txt"
    assert folder.adapter(100) == root / "adapters" / "step_100"
    assert folder.checkpoint(100).parent == root / "checkpoints"
    assert folder.evaluation("ff") == root / "evaluations" / "ff"


def test_a_study_lies_where_the_design_says() -> None:
    folder = paths.ResultsRoot(Path("/r")).study("demo")
    root = Path("/r/data/demo")
    assert folder.spec == root / "study.yaml"
    assert folder.events == root / "events.jsonl"
    trial = folder.trial("0001-abc")
    assert trial.config == root / "trials" / "0001-abc" / "config.yaml"
    assert trial.record == root / "trials" / "0001-abc" / "record.json"
    assert trial.results == root / "trials" / "0001-abc" / "results.yaml"


def test_no_two_files_of_a_folder_share_a_path() -> None:
    results = paths.ResultsRoot(Path("/r"))
    for folder in (
        results,
        results.training("k"),
        results.study("s"),
        results.study("s").trial("t"),
        results.token_analysis,
    ):
        properties = [
            n for n in dir(type(folder)) if isinstance(getattr(type(folder), n), property)
        ]
        assert len(properties) >= 3
        found = [getattr(folder, name) for name in properties]
        values = [value if isinstance(value, Path) else value.root for value in found]
        assert len(set(values)) == len(values)
        assert all(value.is_relative_to(folder.root) for value in values)


def test_the_shipped_configurations_are_found_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (paths.shipped_config_dir() / "search_spaces" / "demo.yaml").is_file()


@pytest.mark.parametrize("text", ["~nobody-of-this-name/x", "~0", "plain", "/a/b"])
def test_a_home_that_does_not_exist_stays_as_it_was_written(text: str) -> None:
    assert paths.user_path(text) == Path(text)


def test_a_home_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.user_path("~/models") == tmp_path / "models"
