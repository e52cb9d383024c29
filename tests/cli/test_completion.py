"""What a shell is offered, asked as shells ask: through variables of the environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tuning.cli import completion
from tuning.cli.main import app

SCRIPT = "import sys\nsys.argv = ['tuning']\nfrom tuning.cli.main import main\nmain()\n"


def offered(line: str, folder: Path, shell: str = "bash") -> list[str]:
    """Return what stands behind the last word of a command line."""
    words = line.split(" ")
    asked = {
        "bash": {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)},
        "zsh": {"_TYPER_COMPLETE_ARGS": line},
        "fish": {"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **asked, "_TUNING_COMPLETE": f"complete_{shell}"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    for name in ("first", "second", "trainings"):
        folder = tmp_path / "results" / "tuning" / "data" / name
        folder.mkdir(parents=True)
        (folder / "study.yaml").touch()
    return tmp_path


def test_bash_completes_commands_names_and_choices(studies: Path) -> None:
    assert offered("tuning doc", studies) == ["doctor"]
    assert offered("tuning report ", studies) == ["first", "second"]
    assert offered("tuning --gpu-tier ", studies) == ["cpu", "t4", "a100"]
    # bash breaks words at the sign.
    assert offered("tuning trial models = ti", studies) == ["tiny"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_names_too(studies: Path, shell: str) -> None:
    said = " ".join(offered("tuning study run --space arm", studies, shell))
    assert "arms" in said
    assert "quick" not in said


def test_nothing_heavy_is_loaded_for_a_key(studies: Path) -> None:
    code = (
        f"{SCRIPT.removesuffix('main()')[:-1]}\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'hydra', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    env = {"_TUNING_COMPLETE": "complete_bash", "COMP_WORDS": "tuning trial mod", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        cwd=studies,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "models=tiny" in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "_TUNING_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"_TUNING_COMPLETE=complete_{shell}" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


def test_the_options_that_install_it_are_there() -> None:
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert "--install-completion" in said
    assert "--show-completion" in said


def context(**params: object) -> typer.Context:
    made = typer.Context(typer.main.get_command(app))
    made.params.update(params)
    return made


def test_names_come_from_the_folders_of_the_command_line(tmp_path: Path) -> None:
    study = tmp_path / "r" / "data" / "mine"
    study.mkdir(parents=True)
    (study / "study.yaml").touch()
    (tmp_path / "r" / "lightning" / "task").mkdir(parents=True)
    asked = context(results_dir=tmp_path / "r", config_dir=tmp_path / "c")
    assert completion.study_names(asked, "m") == ["mine"]
    assert completion.study_names(asked, "x") == []
    assert completion.task_names(asked, "") == ["mine", "task"]
    spaces = tmp_path / "c" / "search_spaces"
    spaces.mkdir(parents=True)
    (spaces / "own.yaml").touch()
    assert completion.space_names(asked, "ow") == ["own"]
    assert "demo" in completion.space_names(asked, "")
    assert completion.model_names("qwen3-0") == ["qwen3-0.6b"]


def test_files_that_are_no_choice_are_not_offered() -> None:
    assert completion.overrides(context(), "lightning=p") == []
    assert completion.overrides(context(), "lightning=t") == ["lightning=t4"]
    assert completion.overrides(context(overrides=["models", "="]), "qwen3-4") == ["qwen3-4b"]
