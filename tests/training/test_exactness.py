"""The exactness laws: what changes no weight, and what a killed or extended run gives."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file

from tuning import files
from tuning.config import to_yaml
from tuning.errors import ResultsError
from tuning.evaluation.bench import load_bench
from tuning.files import sha256_of_json
from tuning.fingerprint import training_key
from tuning.model.machine import quiet_libraries
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, read_record
from tuning.training.datamodule import SpellingData
from tuning.training.module import SpellingModule
from tuning.training.run import num_passes
from tuning.trial import TrialRequest, run_trial

Make = Callable[..., Any]
Alone = Callable[[Any], Path]


def run(config: Any, root: Path, name: str = "t") -> Any:
    results = ResultsRoot(root)
    folder = results.study("study").trial(name)
    return run_trial(TrialRequest(config=config, folder=folder, trial_id=name), results)


def record_of(root: Path) -> TrialRecord:
    return read_record(ResultsRoot(root).study("study").trial("t").record)


def adapter(config: Any, root: Path, step: int) -> dict[str, torch.Tensor]:
    folder = ResultsRoot(root).training(training_key(config)).adapter(step)
    return load_file(folder / "adapter_model.safetensors")


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


@pytest.fixture
def config(small_config: Any) -> Make:
    """Return a function that builds a configuration which is asked little."""
    sizes = ("num_words=10", "num_monitor_words=3", "num_generated_items=3")
    few = [f"evaluation_config.{size}" for size in sizes]
    return lambda *overrides: small_config(*few, *overrides)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone")


@pytest.fixture
def alone(places: Path) -> Alone:
    """Return a function that says where a configuration was run by itself, once for all tests."""

    def place_of(config: Any) -> Path:
        place = places / sha256_of_json(config.model_dump(mode="json"))
        if not place.exists():
            run(config, place)
        return place

    return place_of


class Gradients(pl.Callback):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.found = {n: p.grad.clone() for n, p in pl_module.named_parameters() if p.requires_grad}


def gradient_of_first_step(config: Any) -> dict[str, torch.Tensor]:
    """Return the gradient that Lightning hands to the optimiser, in float64 and before clipping."""
    with quiet_libraries():
        bench = load_bench(config)
        # Parts of the model are in fp32 whatever its type; they round alike only where every row is
        # computed alike, so each has its own sequence, and attention is the one in float64.
        bench = dataclasses.replace(bench, base=dataclasses.replace(bench.base, packs=False))
        seen = Gradients()
        attention = bench.base.network.config._attn_implementation
        bench.base.network.set_attn_implementation("sdpa")
        with SpellingModule(config, bench) as module:
            module.configure_model()
            # B begins at 0, and A's gradient with it: give both a value.
            generator = torch.Generator().manual_seed(1)
            for name, parameter in module.adapted.named_parameters():
                if "lora_B" in name:
                    parameter.data = torch.randn(parameter.shape, generator=generator) / 50
            trainer = pl.Trainer(
                accelerator="cpu",
                precision="64-true",
                max_steps=1,
                accumulate_grad_batches=num_passes(config, bench.base),
                callbacks=[seen],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                limit_val_batches=0,
            )
            trainer.fit(module, SpellingData(config, bench))
        bench.base.network.float()
        bench.base.network.set_attn_implementation(attention)
    return seen.found


def test_gradient_does_not_depend_on_how_a_step_is_cut_into_micro_batches(
    small_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.memory.pass_bytes", lambda *_: 1)

    def gradient(batch: int, accumulation: int) -> dict[str, torch.Tensor]:
        return gradient_of_first_step(
            small_config(
                "lora_dropout=0", f"batch_size={batch}", f"grad_accum_steps={accumulation}"
            )
        )

    whole, cut, fine = gradient(32, 1), gradient(8, 4), gradient(4, 8)
    assert max(float(g.abs().max()) for g in whole.values()) > 1e-3
    for name, expected in whole.items():
        torch.testing.assert_close(cut[name], expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(fine[name], expected, rtol=0, atol=1e-12)


def test_same_configuration_gives_the_same_result_section(
    config: Make, alone: Alone, tmp_path: Path
) -> None:
    same = config()
    first, second = record_of(alone(same)), run(same, tmp_path)
    assert dataclasses.asdict(first.result) == dataclasses.asdict(second.result)
    assert_same_bits(adapter(same, alone(same), 12), adapter(same, tmp_path, 12))


def test_another_seed_gives_other_weights(config: Make, alone: Alone, tmp_path: Path) -> None:
    first, other = config(), config("training_config.seed=1")
    run(other, tmp_path)
    a, b = adapter(first, alone(first), 12), adapter(other, tmp_path, 12)
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_a_short_run_is_a_prefix_of_a_long_one_whatever_the_cadence(
    config: Make, tmp_path: Path
) -> None:
    short = config("max_steps=10", "transfer_eval_frequency=3")
    long = config("max_steps=20", "transfer_eval_frequency=7")
    root = ResultsRoot(tmp_path / "long")
    request = TrialRequest(
        config=long, folder=root.study("s").trial("t"), trial_id="t", budgets=frozenset({10, 20})
    )
    run_trial(request, root)
    run(short, tmp_path / "short")
    assert training_key(short) == training_key(long)
    assert_same_bits(adapter(short, tmp_path / "short", 10), adapter(long, tmp_path / "long", 10))


@pytest.mark.parametrize("steps", [(8, 16), (16, 8)], ids=["extended", "shortened"])
def test_budgets_share_one_folder_exactly(
    config: Make, alone: Alone, tmp_path: Path, steps: tuple[int, int]
) -> None:
    for i, budget in enumerate(steps):
        run(config(f"max_steps={budget}"), tmp_path / "shared", f"t{i}")
    for budget in steps:
        one = config(f"max_steps={budget}")
        assert_same_bits(
            adapter(one, tmp_path / "shared", budget), adapter(one, alone(one), budget)
        )
    trainings = ResultsRoot(tmp_path / "shared").trainings
    assert len([p for p in trainings.iterdir() if not p.name.startswith("base_")]) == 1


def test_a_finished_trial_trains_nothing_again(config: Make, alone: Alone) -> None:
    finished = config()
    first = record_of(alone(finished))
    again = run(finished, alone(finished))
    assert again.execution.train_seconds == 0
    assert dataclasses.asdict(again.result) == dataclasses.asdict(first.result)
    assert again.execution.num_trained_tokens == first.execution.num_trained_tokens > 0


def lines(path: Path) -> list[dict[str, Any]]:
    return files.read_json_lines(path) if path.exists() else []


def kill_when(config_file: Path, root: Path, progress: Path, num_lines: int) -> None:
    """Run the trial as a process and kill it once its progress has so many lines."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tuning", "trial", "--quiet"),
            *("--config", str(config_file), "--results-dir", str(root)),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 120
    while len(lines(progress)) < num_lines and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize("kills", [(3,), pytest.param((1, 3, 6), marks=pytest.mark.nightly)])
def test_a_trial_that_was_killed_ends_like_one_that_was_not(
    config: Make, alone: Alone, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    """Killed when its progress has so many lines."""
    long = config("max_steps=24")
    whole = record_of(alone(long))
    config_file = tmp_path / "config.yaml"
    config_file.write_text(to_yaml(long))
    root = ResultsRoot(tmp_path / "killed")
    progress = root.training(training_key(long)).progress
    for num_lines in kills:
        kill_when(config_file, root.root, progress, num_lines)
    resumed = run(long, root.root)
    assert json.dumps(dataclasses.asdict(resumed.result)) == json.dumps(
        dataclasses.asdict(whole.result)
    )
    assert_same_bits(adapter(long, root.root, 24), adapter(long, alone(long), 24))
    unbroken = ResultsRoot(alone(long)).training(training_key(long)).progress
    assert lines(progress) == lines(unbroken)
    assert resumed.execution.num_attempts == len(kills) + 1


@pytest.mark.parametrize("name", ["tensors.safetensors", "tree.json", "sha256.txt"])
def test_a_damaged_checkpoint_is_set_aside_and_the_result_is_exact(
    config: Make, alone: Alone, tmp_path: Path, name: str
) -> None:
    short, long = config("max_steps=8"), config("max_steps=12")
    place = Path(shutil.copytree(alone(short), tmp_path / "damaged"))
    folder = ResultsRoot(place).training(training_key(short))
    damaged = folder.checkpoint(8) / name
    damaged.write_bytes(damaged.read_bytes()[:-3])
    run(long, place, "u")
    assert_same_bits(adapter(long, place, 12), adapter(long, alone(long), 12))
    assert "damaged" in folder.log.read_text()


def test_a_folder_of_another_base_is_not_continued(
    config: Make, alone: Alone, tmp_path: Path
) -> None:
    short = config("max_steps=4")
    place = Path(shutil.copytree(alone(short), tmp_path / "other"))
    folder = ResultsRoot(place).training(training_key(short))
    identity = files.read_json(folder.identity)
    files.write_json(folder.identity, {**identity, "weights": "0" * 64})
    with pytest.raises(ResultsError, match="begun with another weights"):
        run(config("max_steps=8"), place, "u")


def test_checkpoints_hold_no_pickle_and_no_frozen_weight(config: Make, alone: Alone) -> None:
    short = config("max_steps=4")
    folder = ResultsRoot(alone(short)).training(training_key(short)).root
    endings = {path.suffix for path in folder.rglob("*") if path.is_file()}
    assert endings <= {".safetensors", ".json", ".jsonl", ".yaml", ".parquet", ".txt", ".md", ""}
    tensors = load_file(folder / "checkpoints" / "step_4" / "tensors.safetensors")
    trained = [name for name in tensors if name.startswith("/state_dict")]
    assert trained
    assert all("lora_" in name for name in trained)
    moments = [name for name in tensors if "exp_avg" in name]
    assert len(moments) == 2 * len(trained)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_200_steps_are_the_first_half_of_400(small_config: Any, tmp_path: Path) -> None:
    """The law at the length and batch of the default configuration."""
    shape = ("batch_size=8", "grad_accum_steps=4", "warmup_steps=20")
    short = small_config("max_steps=200", "transfer_eval_frequency=30", *shape)
    long = small_config("max_steps=400", "transfer_eval_frequency=70", *shape)
    root = ResultsRoot(tmp_path / "long")
    run_trial(
        TrialRequest(
            config=long,
            folder=root.study("s").trial("t"),
            trial_id="t",
            budgets=frozenset({200, 400}),
        ),
        root,
    )
    run(short, tmp_path / "short")
    assert_same_bits(adapter(short, tmp_path / "short", 200), adapter(long, tmp_path / "long", 200))
