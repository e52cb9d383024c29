"""The program as a person meets it: answers, and one clear line for a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_support import Program

from tests_support import small_mapping


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(small_mapping()))
    return path


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


MISTAKES: dict[str, tuple[str | bytes | None, tuple[str, ...], tuple[str, ...]]] = {
    "missing": (None, (), ("small.yaml", "no such file")),
    "not yaml": ("a: [1,", (), ("small.yaml", "not YAML")),
    "a list": ("- 1\n- 2\n", (), ("must hold a mapping", "list")),
    "binary": (b"\xff\xfe\x00\x01", (), ("line 1", "is not UTF-8 text")),
    "no name": ("{}", (), ("experiment_name",)),
    "unknown section": ("experiment_name: a\nlora: {}\n", (), ("lora", "lora_config")),
    "unknown key": (
        "experiment_name: a\nlora_config: {rr: 4}\n",
        (),
        ("lora_config.rr", "did you mean r"),
    ),
    "range": ("experiment_name: a\nlora_config: {r: 0}\n", (), ("lora_config.r", "got 0")),
    "a truth for a number": (
        "experiment_name: a\nlora_config: {r: true}\n",
        (),
        ("lora_config.r",),
    ),
    "warm-up": (
        "experiment_name: a\ntraining_config: {max_steps: 5}\n",
        (),
        ("warmup_steps must be at most max_steps", "100 > 5"),
    ),
    "path as name": ("experiment_name: ../x\n", (), ("experiment_name", "../x")),
    "reserved name": (
        "experiment_name: trainings\ntokenizer_config: {model_name: tiny}\n",
        (),
        ("reserved",),
    ),
    "unknown model": (
        "experiment_name: a\ntokenizer_config: {model_name: tinny}\n",
        (),
        ("unknown model 'tinny'", "did you mean tiny"),
    ),
    "unreachable model": ("experiment_name: a\n", (), ("Qwen/Qwen3-4B", "models=tiny")),
    "bad override": ("experiment_name: a\n", ("lora_r",), ("key=value",)),
    "unknown override": ("experiment_name: a\n", ("lora_q=3",), ("lora_q", "did you mean lora_r")),
    "unknown group": (
        "experiment_name: a\n",
        ("models=tinny",),
        ("models=tinny", "did you mean tiny"),
    ),
    "group as path": ("experiment_name: a\n", ("models=../x",), ("models", "../x")),
    "step scale": ("experiment_name: a\n", ("--step-scale", "0"), ("(0, 1]", "got 0")),
    "unknown rule": (
        "experiment_name: a\ntokenizer_config: {model_name: tiny, subset_rule: letter}\n",
        (),
        ("subset_rule", "'dictionary'", "'letter'", "did you mean letters"),
    ),
}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_clear_line_and_leaves_nothing(
    program: Program, tmp_path: Path, name: str
) -> None:
    content, extra, words = MISTAKES[name]
    path = tmp_path / "small.yaml"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    results = tmp_path / "results"
    done = program("trial", "--config", path, "--results-dir", results, *extra)
    done.assert_one_clear_line(*words)
    left = [p for p in results.rglob("*") if p.is_file() and p.name != "config.yaml"]
    assert left == []


def test_all_mistakes_of_a_file_come_together(run_program: Any, tmp_path: Path) -> None:
    """As a process of its own, as a person starts it; the other mistakes save its start."""
    path = tmp_path / "c.yaml"
    path.write_text("experiment_name: a\nlora_config: {r: 0, dropout: 2}\nnope: 1\n")
    done = run_program("trial", "--config", str(path))
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 3
    assert all(str(path) in line for line in done.stderr.strip().splitlines())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("study", "run", "--space", "demmo"), ("demmo", "did you mean demo")),
        (("study", "run", "--space", "../x"), ("space", "../x")),
        (("study", "run", "--space", "demo", "--name", "../x"), ("../x",)),
        (("study", "run", "--space", "demo", "lora_r=0"), ("lora_config.r", "got 0")),
        (("study", "run", "--space", "nowhere.yaml"), ("nowhere.yaml", "no such file")),
        (("report", "nothing"), ("nothing", "no such study")),
        (("evaluate", "--model", "tinny"), ("tinny", "tiny")),
        (("evaluate", "--model", "tiny", "--adapter", "nowhere"), ("nowhere", "no adapter")),
        (("--count", "3"), ("--count belongs to --mode sweep",)),
        (("--mode", "lightning"), ("Qwen/Qwen3-4B needs about", "--gpu-tier a100")),
        (("--mode", "lightning", "--gpu-tier", "a100"), ("no key for Lightning.AI",)),
        (("--mode", "token-analysis", "--focus", "transfer"), ("--focus", "trains nothing")),
        (
            ("tasks", "preview", "spelling_difficulty=hardd"),
            ("spelling_config.difficulty", "hardd"),
        ),
    ],
)
def test_other_mistakes_are_one_clear_line(
    program: Program, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    program(*arguments).assert_one_clear_line(*words)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_results_folder_is_one_clear_line(
    program: Program, tmp_path: Path, config_file: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = program("trial", "--config", config_file, "--results-dir", tmp_path / "file")
    done.assert_one_clear_line("cannot write", "file")


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """Mount a file system of 300 KiB; skip where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line_and_no_half_file(
    program: Program, small_disk: Path, config_file: Path
) -> None:
    done = program("trial", "--config", config_file, "--results-dir", small_disk)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "cannot write" in done.stderr
    assert list(small_disk.rglob("record.json")) == []


def test_single_mode_trains_a_file_and_prints_json(
    run_program: Any, tmp_path: Path, config_file: Path
) -> None:
    done = run_program("--mode", "single", "--config", str(config_file), "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    record = json.loads(done.stdout)
    assert record["result"]["status"] == "completed"
    folder = tmp_path / "results" / "tuning" / "data" / "small" / "trials" / record["trial_id"]
    assert json.loads((folder / "record.json").read_text()) == record
    old_names = yaml.safe_load((folder / "results.yaml").read_text())
    metrics = record["result"]["metrics"]
    assert old_names == {
        "spelling_accuracy": metrics["spelling/accuracy"],
        "position_accuracy": metrics["transfer/position/accuracy"],
        "count_accuracy": metrics["transfer/count/accuracy"],
        "transfer_score": metrics["transfer_learning_score"],
    }


@pytest.mark.usefixtures("offline")
def test_single_mode_without_a_file_writes_one_first(program: Program, tmp_path: Path) -> None:
    done = program("--name", "mine")
    assert done.returncode == 2
    assert "models=tiny" in done.stderr
    written = list((tmp_path / "configs" / "hyperparameters").glob("mine_*.yaml"))
    assert len(written) == 1
    config = yaml.safe_load(written[0].read_text())
    assert config["tokenizer_config"]["model_name"] == "Qwen/Qwen3-4B"


def test_a_dry_run_of_single_mode_writes_the_configuration_and_nothing_else(
    program: Program, tmp_path: Path
) -> None:
    done = program("--name", "mine", "--gpu-tier", "t4", "--dry-run")
    assert done.returncode == 0, done.stderr
    printed = yaml.safe_load(done.stdout)
    assert printed["lightning_config"]["gpu_tier"] == "t4"
    assert "1 evaluation to make: about" in done.stdout
    (written,) = (p for p in tmp_path.rglob("*") if p.is_file())
    assert written.parent == tmp_path / "configs" / "hyperparameters"
    assert yaml.safe_load(written.read_text()) == printed


def test_a_dry_run_prints_the_plan_and_writes_nothing(program: Program, tmp_path: Path) -> None:
    done = program("study", "run", "--space", "demo", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["trials"] >= 10
    assert plan["trainings"] < plan["weights"] <= plan["trials"]
    assert list(tmp_path.iterdir()) == []


def test_preview_shows_questions_with_their_answers(program: Program) -> None:
    done = program("tasks", "preview", "-n", "5", "--json")
    assert done.returncode == 0, done.stderr
    items = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(items) == 20
    for item in items:
        if item["kind"] == "evaluation: position":
            assert item["answer"] == item["word"][item["position"] - 1]
        if item["kind"] == "evaluation: count":
            assert item["answer"] == str(item["word"].count(item["letter"]))


def test_evaluate_prints_n_interval_and_baseline(program: Program) -> None:
    done = program("evaluate", "--num-words", "30", "--json")
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout)["tasks"]
    for name in ("spelling", "position", "count"):
        base = tasks[name]["base"]
        assert 0 <= base["low"] <= base["value"] <= base["high"] <= 1
        assert base["num_items"] > base["num_words"] > 0
    assert tasks["spelling"]["baseline"] == 0


@pytest.mark.parametrize("command", [("--help",), ("study", "run", "--help"), ("trial", "--help")])
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['tuning', *{command!r}]\n"
        "from tuning.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'scipy', 'pandas', 'altair', 'lightning', 'peft'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, config_file: Path) -> None:
    root = tmp_path / "results"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuning", "trial", "--config", str(config_file)),
            *("--results-dir", str(root), "max_steps=5000", "evaluation_config.num_words=10"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A run in the background inherits that SIGINT is ignored; a person at a terminal does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(root.glob("data/trainings/*/checkpoints/step_*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (
        errors.strip().splitlines()[-1] == "tuning: stopped; run the same command again to continue"
    )
    assert "Traceback" not in errors
    assert output == ""
