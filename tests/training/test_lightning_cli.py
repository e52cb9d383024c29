"""Lightning's command line over our experiment files: what wins, what is kept, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from lightning_support import EXPERIMENT, adapter_of, experiment_file, losses_of, only_training
from typer.testing import CliRunner

from tuning import files
from tuning.cli.main import app
from tuning.config import build
from tuning.fingerprint import training_key
from tuning.training.cli import COMMANDS, main


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return experiment_file(tmp_path)


def printed_config(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *arguments, "--print_config"])
    assert stopped.value.code == 0
    printed: dict = yaml.safe_load(capsys.readouterr().out)
    return printed


def test_what_the_file_says_becomes_arguments_and_what_the_user_says_wins(
    exp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ("--config", str(exp))
    printed = printed_config(capsys, *config)
    trainer = printed["trainer"]
    assert (trainer["max_steps"], trainer["precision"]) == (6, "32-true")
    assert (trainer["gradient_clip_val"], trainer["logger"]) == (1.0, False)
    assert build(printed["model"]["experiment"], "t") == build(EXPERIMENT, "t")
    changed = printed_config(
        capsys, *config, "lora_config.r=8", "--trainer.max_steps=3", "--trainer.devices", "2"
    )
    assert (changed["trainer"]["max_steps"], changed["trainer"]["devices"]) == (3, "2")
    assert changed["model"]["experiment"]["lora_config"]["r"] == 8


@pytest.mark.slow
def test_a_fit_is_the_training_of_a_trial_and_its_measures_are_the_trials(
    exp: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = ["--config", str(exp)]
    assert main(["fit", *config]) == 0
    folder = only_training(tmp_path / "results" / "tuning")
    assert folder.root.name == training_key(build(EXPERIMENT, "t"))
    assert list(losses_of(folder)) == [6]
    done = CliRunner().invoke(app, ["trial", *config, "--quiet", "--json"], catch_exceptions=False)
    record = json.loads(done.stdout)
    assert record["execution"]["train_seconds"] == 0.0
    capsys.readouterr()
    assert main(["test", *config]) == 0
    said = capsys.readouterr().out
    for task, name in (
        ("spelling", "spelling"),
        ("position", "transfer/position"),
        ("count", "transfer/count"),
    ):
        tuned = record["result"]["tasks"][task]["tuned"]
        line = next(x for x in said.splitlines() if x.startswith(f"{name} "))
        assert f"{tuned['value']:.1%} [{tuned['low']:.1%}, {tuned['high']:.1%}]" in line
        assert f"n = {tuned['num_items']};" in line
        assert f"{record['result']['tasks'][task]['baseline']:.1%}" in line
    assert "no evidence about Qwen3-4B" in said
    # A second call trains nothing.
    before = files.sha256_of_file(folder.adapter(6) / "adapter_model.safetensors")
    assert main(["fit", *config]) == 0
    assert "is there already" in capsys.readouterr().err
    assert files.sha256_of_file(folder.adapter(6) / "adapter_model.safetensors") == before


@pytest.mark.slow
def test_what_an_experiment_has_too_is_recorded_there(exp: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = ["--config", str(exp), "--results-dir", str(results)]
    assert (
        main(["fit", *arguments, "--trainer.max_steps=2", "--trainer.gradient_clip_val=0.5"]) == 0
    )
    folder = only_training(results)
    kept = yaml.safe_load(folder.config.read_text())["training_config"]
    assert (kept["max_steps"], kept["max_grad_norm"]) == (2, 0.5)
    assert (folder.adapter(2) / "adapter_model.safetensors").is_file()
    assert folder.root.name == training_key(build(yaml.safe_load(folder.config.read_text()), "t"))
    (begun, _) = files.read_json_lines(folder.attempts)
    assert begun["trainer"] == {"max_steps": 2, "gradient_clip_val": 0.5}
    # What Lightning was told runs again as it stands, its trainer section too.
    again = tmp_path / "again"
    written = folder.root / "lightning.yaml"
    told = ["--config", str(written), "--results-dir", str(again)]
    changed = tmp_path / "changed.yaml"
    changed.write_text(written.read_text().replace("max_steps: 2", "max_steps: 1"))
    other = ["--config", str(changed), "--results-dir", str(tmp_path / "other")]
    assert main(["fit", *other, "training_config.max_steps=2"]) == 0
    assert only_training(tmp_path / "other").adapter(1).is_dir()
    changed.write_text(written.read_text().replace("gradient_clip_val:", "gradient_clip_vl:"))
    assert main(["fit", *other]) == 2
    assert main(["fit", *told]) == 0
    a, b = adapter_of(folder, 2), adapter_of(only_training(again), 2)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_callbacks_and_loggers_of_the_user_take_part(exp: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    arguments = ["--config", str(exp), "--results-dir", str(results)]
    arguments += ["--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}"]
    arguments += ["--trainer.log_every_n_steps=1", "--trainer.callbacks+=LearningRateMonitor"]
    arguments += ["--trainer.callbacks+=ModelCheckpoint"]
    arguments += [f"--trainer.callbacks.dirpath={tmp_path / 'own'}"]
    arguments += [
        "--trainer.callbacks.every_n_train_steps=3",
        "--trainer.enable_checkpointing=true",
    ]
    assert main(["fit", *arguments]) == 0
    (table,) = tmp_path.glob("lightning_logs/version_0/metrics.csv")
    text = table.read_text()
    assert "train/loss" in text
    assert "transfer/position/accuracy" in text
    assert len(text.splitlines()) >= 8
    # Lightning's own checkpoints go through our writer too: folders, no pickles.
    own = sorted((tmp_path / "own").iterdir())
    assert own
    assert all((path / "tensors.safetensors").is_file() for path in own)
    # Callbacks may change what is learned: no trial takes this for its own.
    folder = only_training(results)
    assert folder.root.name != training_key(build(EXPERIMENT, "t"))


MISTAKES = {
    "no such option": (["--trainer.devces=1"], "did you mean trainer.devices?"),
    "no such logger": (["--trainer.logger=NoSuchLogger"], "NoSuchLogger"),
    "a logger without its folder": (["--trainer.logger=CSVLogger"], "it needs save_dir"),
    "no such strategy": (["--trainer.strategy=foo"], "Lightning refuses this trainer"),
    "devices in words": (["--trainer.devices=two"], "Lightning refuses this trainer"),
    "a seed of its own": (["--seed_everything=7"], "training_config.seed"),
    "no such place": (["exp.yaml"], "--config FILE"),
    "too many processes": (
        ["--trainer.devices=640", "--trainer.accelerator=cpu"],
        "each of 640 processes on this machine",
    ),
    "no number": (["--trainer.max_steps=many"], "trainer.max_steps"),
    "half precision everywhere": (["--trainer.precision=bf16-true"], "always trained in fp32"),
    "a law of ours": (["training_config.learning_rate=7"], "learning_rate"),
    "a law of ours by a trainer's name": (["--trainer.gradient_clip_val=-1"], "max_grad_norm"),
    "an unknown key": (["lora_config.rank=7"], "lora_config"),
    "no such machine": (["--trainer.accelerator=gpu"], "gpu"),
    "no checkpoint": (["--ckpt_path=no/such"], "there is no checkpoint no/such"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line_and_nothing_is_written(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: str
) -> None:
    more, says = MISTAKES[mistake]
    results = tmp_path / "results"
    assert main(["fit", "--config", str(exp), "--results-dir", str(results), *more]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.startswith("tuning: ")
    assert said.count("\n") == 1
    assert not results.exists()


def test_other_mistakes(exp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["fti", "--config", str(exp)], "did you mean fit?"),
        (["fit"], "--config FILE is needed"),
        (["fit", "--config", "no.yaml"], "no.yaml"),
        (["test", "--config", str(exp)], "nothing is trained yet"),
        (["predict", "--config", str(exp)], "no such subcommand"),
    ):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err
    assert main(["--help"]) == 0
    assert "examples:" in capsys.readouterr().out
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stopped:
            main([command, "--help"])
        assert stopped.value.code == 0
        assert "--trainer.devices" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_where_it_was(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = ["--config", str(exp), "--results-dir", str(tmp_path / "whole")]
    cut = ["--config", str(exp), "--results-dir", str(tmp_path / "cut")]
    assert main(["fit", *whole]) == 0
    assert main(["fit", *cut, "--trainer.max_steps=3"]) == 0
    assert main(["fit", *cut]) == 0
    folder = only_training(tmp_path / "cut")
    assert [line["step"] for line in files.read_json_lines(folder.attempts)] == [0, 3, 3, 6]
    a, b = adapter_of(only_training(tmp_path / "whole"), 6), adapter_of(folder, 6)
    assert all(torch.equal(a[name], b[name]) for name in a)
    # Lightning stops by the clock; the next call goes on.
    timed = ["--config", str(exp), "--results-dir", str(tmp_path / "timed")]
    assert main(["fit", *timed, "--trainer.max_time=00:00:00:00"]) == 0
    assert "0 steps of 6" in capsys.readouterr().err
    assert main(["fit", *timed]) == 0
    c = adapter_of(only_training(tmp_path / "timed"), 6)
    assert all(torch.equal(a[name], c[name]) for name in a)


@pytest.mark.slow
def test_a_run_that_diverges_says_so_and_no_key_is_kept(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    arguments = ["--config", str(exp), "--results-dir", str(results), "lora_config.alpha=64"]
    arguments += ["training_config.learning_rate=1", "training_config.max_grad_norm=1e30"]
    arguments += ["--trainer.callbacks+=lightning_support.Diverging"]
    arguments += ["--trainer.callbacks.api_key=hidden", "training_config.max_steps=40"]
    assert main(["fit", *arguments]) == 1
    assert "the loss is nan at step 2: a lower learning rate" in capsys.readouterr().err
    folder = only_training(results)
    for path in (folder.attempts, folder.root / "lightning.yaml", folder.config):
        assert "hidden" not in path.read_text()
    assert "api_key: '***'" in (folder.root / "lightning.yaml").read_text()


@pytest.mark.slow
def test_trying_out_writes_nothing_and_a_part_of_a_suite_says_nothing(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    arguments = ["--config", str(exp), "--results-dir", str(results)]
    assert main(["fit", *arguments, "--trainer.fast_dev_run=true"]) == 0
    assert "nothing is written" in capsys.readouterr().err
    assert not results.exists()
    assert main(["fit", *arguments]) == 0
    assert main(["validate", *arguments, "--trainer.limit_val_batches=2"]) == 2
    # A whole number, or a share as Lightning reads it where its types were imported otherwise.
    assert "batches" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_with_a_checkpoint(
    exp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    results = tmp_path / "results"
    arguments = ["--config", str(exp), "--results-dir", str(results)]
    arguments += ["--trainer.callbacks+=lightning_support.Signalling"]
    arguments += [f"--trainer.callbacks.number={int(number)}", "transfer_config.eval_frequency=50"]
    assert main(["fit", *arguments]) == 128 + number
    assert "stopped at step 2 of 6; the same command goes on" in capsys.readouterr().err
    folder = only_training(results)
    assert files.steps_of(folder.checkpoints) == [2]
    assert [line["event"] for line in files.read_json_lines(folder.attempts)] == ["start", "end"]
    before = signal.getsignal(number)
    assert main(["fit", *arguments]) == 0
    assert signal.getsignal(number) is before


LOADED = """
import sys
import tuning.training.cli, tuning.training.run, tuning.training.pretrain_tiny
from tuning.config import build
from lightning_support import EXPERIMENT
# A script that ends with its adapter on ends.
module = tuning.training.SpellingModule(build(EXPERIMENT, "t"))
module.configure_model()
print([name for name in ("lightning_sdk", "pytorch_lightning", "wandb") if name in sys.modules])
"""


def test_the_training_code_loads_no_cloud_and_one_lightning() -> None:
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LOADED],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *sys.path])},
    )
    assert done.stdout.strip() == "[]"


def test_pytorch_lightning_is_imported_nowhere() -> None:
    root = Path(__file__).parents[2]
    pattern = re.compile(r"^\s*(import|from) (pytorch_lightning|lightning_sdk)\b", re.MULTILINE)
    allowed = {"lightning_integration.py"}
    for path in [*root.glob("src/**/*.py"), *root.glob("benchmarks/*.py")]:
        assert path.name in allowed or not pattern.search(path.read_text("utf-8")), path
