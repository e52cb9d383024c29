"""The old spelling: five modes and four options, and what each changes in what is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Program, files_below
from typer.testing import CliRunner

from tuning.cli.main import app
from tuning.config import FLAT_OF, KEYS, value_at

MODES = ("single", "grid", "sweep", "lightning")
FOCUS_TRANSFER = {
    "transfer_config.position_task_weight": 0.6,
    "transfer_config.count_task_weight": 0.6,
}
OPTIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "--focus": (["--focus", "transfer"], FOCUS_TRANSFER),
    "--gpu-tier": (["--gpu-tier", "t4"], {"lightning_config.gpu_tier": "t4"}),
    "--english-only": (["--english-only"], {"tokenizer_config.use_english_only_tokens": True}),
    "--analyze-thinking": (
        ["--analyze-thinking"],
        {"tokenizer_config.analyze_thinking_mode": True},
    ),
}
OWN = ("experiment_name", "timestamp")


Written = Callable[[Path], dict[str, dict[str, Any]]]


def written(folder: Path) -> dict[str, dict[str, Any]]:
    """Return every configuration below a folder, by what its name says before the time."""
    return {
        path.stem.rsplit("_", 2)[0]: yaml.safe_load(path.read_text("utf-8"))
        for path in folder.rglob("*.yaml")
    }


def changed(config: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value_at(config, key)
        for key in KEYS
        if key not in OWN and value_at(config, key) != value_at(other, key)
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what single and grid write without any option."""
    folder = tmp_path_factory.mktemp("plain")
    for mode in ("single", "grid"):
        arguments = ["--mode", mode, "--dry-run", "--config-dir", str(folder / mode)]
        assert CliRunner().invoke(app, arguments).exit_code == 0
    return {mode: written(folder / mode) for mode in ("single", "grid")}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("mode", MODES)
def test_each_option_changes_what_it_says_and_nothing_else(
    program: Program, tmp_path: Path, plain: Any, mode: str, option: str
) -> None:
    arguments, expected = OPTIONS[option]
    if mode == "lightning":
        check_mode_lightning(program, arguments, changes_training=option == "--english-only")
        assert list(tmp_path.iterdir()) == []
        return
    done = program("--mode", mode, *arguments, "--dry-run", "--config-dir", "with")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path / "with")
    if mode == "sweep":
        assert found == {}
        parameters = yaml.safe_load(done.stdout)["parameters"]
        assert len(parameters) == 13
        assert all(value in parameters[FLAT_OF[key]]["values"] for key, value in expected.items())
        return
    if mode == "single":
        assert list(found) == ["spelling_transfer_exp"]
        assert changed(found["spelling_transfer_exp"], plain[mode]["spelling_transfer_exp"]) == (
            expected
        )
        return
    default = found["spelling_transfer_exp_default"]
    assert changed(default, plain[mode]["spelling_transfer_exp_default"]) == expected
    # Every other file is one step away from that default.
    others = {name: config for name, config in found.items() if config is not default}
    assert all(len(changed(config, default)) == 1 for config in others.values())
    # A weight of 0.6 is no candidate, so each weight has one variation more.
    assert len(found) == (33 if option == "--focus" else 31)


def check_mode_lightning(program: Program, arguments: list[str], changes_training: bool) -> None:
    """What would be submitted is the study that the options ask for, on the machine of the tier."""
    tier = [] if "--gpu-tier" in arguments else ["--gpu-tier", "a100"]
    plain = ["--mode", "lightning", "--dry-run", "--json"]
    done = program(*plain, *arguments, *tier)
    if not tier:
        # One variation is too large for a T4, and is named.
        done.assert_one_clear_line("(batch_size=32)", "a T4 has 14.2 GiB to use", "would fit")
        return
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert {job["machine"] for job in plan["jobs"]} == {"A100"}
    before = json.loads(program(*plain, "--gpu-tier", "a100").stdout)
    trained = [{job["training"] for job in p["jobs"]} for p in (plan, before)]
    assert (trained[0] != trained[1]) is changes_training


@pytest.mark.usefixtures("warm_studies")
@pytest.mark.parametrize(
    ("focus", "weight", "ranked_by"),
    [
        pytest.param("transfer", 0.6, "transfer", marks=pytest.mark.nightly),
        pytest.param("spelling", 0.3, "spelling", marks=pytest.mark.nightly),
        pytest.param("balanced", 0.5, "balanced", marks=pytest.mark.nightly),
    ],
)
def test_the_focus_is_recorded_as_weights_and_as_what_is_ranked_by(
    program: Program, tmp_path: Path, focus: str, weight: float, ranked_by: str
) -> None:
    done = program(
        *("study", "run", "--space", "quick", "--name", "s", "--focus", focus, "--quiet"),
        *("--step-scale", "0.002", "evaluation_config.num_words=10"),
        *("evaluation_config.num_monitor_words=3", "evaluation_config.num_generated_items=0"),
    )
    assert done.returncode == 0, done.stderr
    data = tmp_path / "results" / "tuning" / "data" / "s"
    assert yaml.safe_load((data / "study.yaml").read_text())["focus"] == ranked_by
    for path in data.glob("trials/*/config.yaml"):
        transfer = yaml.safe_load(path.read_text())["transfer_config"]
        assert transfer["position_task_weight"] == transfer["count_task_weight"] == weight
        metrics = json.loads((path.parent / "record.json").read_text())["result"]["metrics"]
        assert metrics["own_weights_score"] == metrics["transfer_learning_score"]


def test_a_grid_of_a_file_varies_that_file(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "experiment_name: mine\nlora_config: {r: 64}\ntokenizer_config: {model_name: tiny}\n"
    )
    done = program("--mode", "grid", "--config", "mine.yaml", "--name", "big", "--dry-run")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path / "configs")
    assert len(found) == 32, "64 is no candidate of the space"
    assert found["big_default"]["lora_config"]["r"] == 64
    assert found["big_default"]["tokenizer_config"]["model_name"] == "tiny"
    assert found["big_lora_r_8"]["lora_config"]["r"] == 8


def test_a_dry_run_of_grid_writes_31_files_and_prints_plan_and_cost(
    program: Program, tmp_path: Path
) -> None:
    done = program("--mode", "grid", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(files_below(tmp_path)) == 31
    assert "wrote 31 configurations to configs/hyperparameters" in done.stdout
    assert "33 trials: the default on 3 seeds, 30 other configurations" in done.stdout
    assert "33 trials, 26 distinct weights in 23 trainings" in done.stdout
    assert (
        "stopped early (poor_on_both, by a monitor of 90 words; never the default)" in done.stdout
    )
    assert "so luck decides much" not in done.stdout
    assert "on disk" in done.stdout
    assert "gpu_tier: changes the cost, not the accuracy" in done.stderr


def test_a_name_that_is_given_wins_over_that_of_the_file(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "experiment_name: mine\ntokenizer_config: {model_name: tiny}\n"
    )
    for arguments, name in (((), "mine"), (("--name", "other"), "other")):
        done = program("--config", "mine.yaml", *arguments, "--dry-run")
        assert yaml.safe_load(done.stdout)["experiment_name"] == name


def test_a_space_and_a_configuration_are_told_apart(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("HPARAM_CANDIDATES: {lora_r: [4]}\nstrategy: grid\n")
    program("trial", "--config", "mine.yaml", "--dry-run").assert_one_clear_line(
        "mine.yaml: is a search space, not a configuration", "study run --space mine.yaml"
    )
    (tmp_path / "one.yaml").write_text("tokenizer_config: {model_name: tiny}\n")
    program("study", "run", "--space", "one.yaml", "--dry-run").assert_one_clear_line(
        "one.yaml: is a configuration, not a search space", "sections under experiment"
    )


def test_a_missing_file_is_compared_with_files_of_its_kind(
    program: Program, tmp_path: Path
) -> None:
    for name in ("replay.jsonl", "notes.txt", "results"):
        (tmp_path / name).touch()
    program("tasks", "scan", "reply.jsonl").assert_one_clear_line("did you mean replay.jsonl?")
    done = program("tasks", "scan", "other.csv")
    done.assert_one_clear_line("other.csv: no such file")
    assert "known" not in done.stderr


def test_a_plan_says_when_the_monitor_is_too_small_to_stop_anyone(program: Program) -> None:
    plan = ("study", "run", "--space", "quick", "--dry-run")
    few = (*plan, "evaluation_config.num_monitor_words=6", "--pruning", "poor_on_both")
    assert "unsure by 40 points, so luck decides much" in program(*few).stdout
    assert "no trial is stopped early" in program(*plan).stdout
    told = json.loads(program(*few, "--json").stdout)
    assert (told["model"], told["pruning"]) == ("tiny", "poor_on_both")


def test_a_grid_of_the_small_space_writes_27_files(program: Program, tmp_path: Path) -> None:
    done = program("--mode", "grid", "--space", "small", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(files_below(tmp_path)) == 27
    assert "29 trials, 25 distinct weights in 22 trainings" in done.stdout


def test_a_product_is_not_written_as_files(program: Program, tmp_path: Path) -> None:
    done = program("--mode", "grid", "--space", "small_grid", "--dry-run")
    done.assert_one_clear_line("one_at_a_time", "got strategy grid", "tuning study run")
    assert files_below(tmp_path) == []


def test_a_dry_run_of_grid_as_json_names_files_and_cost(program: Program, tmp_path: Path) -> None:
    done = program("--mode", "grid", "--dry-run", "--json")
    answer = json.loads(done.stdout)
    assert len(answer["files"]) == 31
    assert all(Path(tmp_path, name).is_file() for name in answer["files"])
    assert answer["trials"] == 33
    assert answer["estimate"]["seconds"] > 0
    assert answer["estimate"]["num_bytes"] > 0


def test_a_grid_whose_model_cannot_be_had_writes_nothing(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = program("--mode", "grid")
    done.assert_one_clear_line("Qwen/Qwen3-4B", "models=tiny")
    assert files_below(tmp_path) == []


@pytest.mark.slow
@pytest.mark.usefixtures("warm_studies")
def test_the_grid_runs_and_ranks(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "experiment_name: mine\n"
        "tokenizer_config: {model_name: tiny}\n"
        "training_config: {max_steps: 2, warmup_steps: 1}\n"
        "evaluation_config: {num_words: 10, num_monitor_words: 3, num_generated_items: 0}\n"
    )
    (tmp_path / "own" / "search_spaces").mkdir(parents=True)
    (tmp_path / "own" / "search_spaces" / "default.yaml").write_text(
        "HPARAM_CANDIDATES: {lora_r: [4]}\nreplicates_of_default: 1\n"
    )
    done = program(
        *("--mode", "grid", "--config", "mine.yaml", "--name", "g", "--config-dir", "own"),
        *("--quiet", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert {c["label"] for c in json.loads(done.stdout)["configurations"]} == {
        "default",
        "lora_r=4",
    }
    assert sorted(written(tmp_path / "own"))[:2] == ["default", "g_default"]
