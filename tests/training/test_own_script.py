"""Module, data and callbacks in a script of the user's own, under the user's trainer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from lightning_support import EXPERIMENT, experiment_file, losses_of, only_training

from tuning.config import ExperimentConfig, build
from tuning.evaluation.bench import load_bench
from tuning.model.lora import save_adapter
from tuning.training import (
    SafetensorsCheckpointIO,
    SpellingData,
    SpellingModule,
    TransferEvaluation,
    trainer_arguments,
)
from tuning.training.cli import main

POSITION = "transfer/position/accuracy"


@pytest.fixture(scope="module")
def experiment() -> ExperimentConfig:
    return build(EXPERIMENT, "test")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Losses(pl.Callback):
    """A callback of the user's."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *_: Any) -> None:
        self.seen.append(module.step_loss)


def trained(experiment: ExperimentConfig, **changes: Any) -> tuple[SpellingModule, list[float]]:
    losses = Losses()
    callbacks = [losses, *changes.pop("callbacks", [])]
    module = SpellingModule(experiment)
    trainer = pl.Trainer(**trainer_arguments(experiment, callbacks=callbacks, **changes))
    trainer.fit(module, SpellingData(experiment))
    return module, losses.seen


@pytest.mark.slow
def test_a_script_trains_what_the_program_trains(
    experiment: ExperimentConfig, tmp_path: Path
) -> None:
    arguments = ["--config", str(experiment_file(tmp_path)), "--results-dir", str(tmp_path)]
    assert main(["fit", *arguments]) == 0
    folder = only_training(tmp_path)
    module, losses = trained(experiment)
    assert len(losses) == 6
    assert losses[-1] == losses_of(folder)[6]
    save_adapter(module.adapted, tmp_path / "own")
    weights = "adapter_model.safetensors"
    assert (tmp_path / "own" / weights).read_bytes() == (folder.adapter(6) / weights).read_bytes()
    # A stored adapter is measured, or trained further.
    reader = SpellingModule(experiment, adapter=tmp_path / "own")
    trainer = pl.Trainer(logger=False, enable_progress_bar=False)
    (read,) = trainer.validate(reader, SpellingData(experiment), verbose=False)
    (kept,) = trainer.validate(module, SpellingData(experiment), verbose=False)
    assert read == kept
    assert 0 <= read[f"{POSITION}_low"] <= read[POSITION] <= read[f"{POSITION}_high"] <= 1
    assert read["transfer/position/num_items"] == 18
    assert read["transfer/position/baseline"] > 0
    again, more = SpellingModule(experiment, adapter=tmp_path / "own"), Losses()
    trainer = pl.Trainer(**trainer_arguments(experiment, callbacks=[more], max_steps=2))
    trainer.fit(again, SpellingData(experiment))
    assert more.seen[0] < losses[0]


@pytest.mark.slow
def test_lightnings_own_validation_early_stopping_and_checkpoints(
    experiment: ExperimentConfig, tmp_path: Path
) -> None:
    stop = EarlyStopping(POSITION, mode="max", patience=0, min_delta=1.0)
    keep = ModelCheckpoint(tmp_path / "kept", monitor="transfer/position/accuracy", save_last=True)
    _, losses = trained(
        experiment,
        callbacks=[stop, keep],
        limit_val_batches=1.0,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        enable_checkpointing=True,
        logger=CSVLogger(tmp_path),
        log_every_n_steps=1,
        plugins=[SafetensorsCheckpointIO()],
    )
    assert len(losses) == 4  # the second look is no better by 100 points
    (table,) = tmp_path.glob("lightning_logs/*/metrics.csv")
    assert "transfer/count/baseline" in table.read_text()
    assert (tmp_path / "kept" / "last.ckpt" / "tensors.safetensors").is_file()
    module = SpellingModule(experiment)
    trainer = pl.Trainer(
        **trainer_arguments(experiment, plugins=[SafetensorsCheckpointIO()], logger=False)
    )
    path = str(tmp_path / "kept" / "last.ckpt")
    trainer.fit(module, SpellingData(experiment), ckpt_path=path, weights_only=True)
    whole, _ = trained(experiment)
    a, b = dict(module.named_parameters()), dict(whole.named_parameters())
    assert all(torch.equal(a[name], b[name]) for name in b)


@pytest.mark.slow
def test_a_wandb_logger_gets_every_measure(
    experiment: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    from tuning.wandb_integration import read_offline_run

    run = wandb.init(project="own", dir=str(tmp_path), mode="offline")
    trained(
        experiment,
        logger=WandbLogger(experiment=run),
        log_every_n_steps=1,
        callbacks=[TransferEvaluation(3)],
    )
    run.finish()
    wandb.teardown()  # `finish()` alone is no barrier for what is on disk.
    (path,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    rows = read_offline_run(path).rows
    assert sum("train/loss" in row for row in rows) == 6
    assert sum(POSITION in row for row in rows) == 3


@pytest.mark.slow
def test_recomputing_activations_changes_no_weight(experiment: ExperimentConfig) -> None:
    raw = copy.deepcopy(EXPERIMENT)
    raw["training_config"]["gradient_checkpointing"] = True
    recomputed, losses = trained(build(raw, "test"))
    kept, expected = trained(experiment)
    assert recomputed.bench.base.network.model.layers[0].gradient_checkpointing
    assert losses == expected
    a, b = dict(recomputed.named_parameters()), dict(kept.named_parameters())
    assert all(torch.equal(a[name], b[name]) for name in b)
    recomputed.close()
    assert not recomputed.bench.base.network.model.layers[0].gradient_checkpointing


def test_modules_of_one_process_do_not_share_a_model(experiment: ExperimentConfig) -> None:
    one, two = SpellingModule(experiment), SpellingModule(experiment)
    one.configure_model()
    two.configure_model()
    assert one.adapted.get_base_model() is not two.adapted.get_base_model()
    assert load_bench(experiment) is not one.bench


def test_a_module_leaves_a_shared_model_clean_and_where_it_is(
    experiment: ExperimentConfig,
) -> None:
    bench = load_bench(experiment)
    before = {name: id(p) for name, p in bench.base.network.named_parameters()}
    with SpellingModule(experiment, bench) as module:
        module.configure_model()
        assert any("lora_" in name for name, _ in module.named_parameters())
        # Lightning ends every run with this, and a GPU's model would go to the processor.
        moved: list[str] = []
        module._apply = lambda *_: moved.append("moved") or module  # type: ignore[method-assign]
        assert module.cpu() is module
        assert moved == []
    assert {name: id(p) for name, p in bench.base.network.named_parameters()} == before
    assert load_bench(experiment) is bench


def test_data_can_be_looked_at_without_a_trainer(experiment: ExperimentConfig) -> None:
    data = SpellingData(experiment)
    first = next(iter(data.train_dataloader()))
    assert len(first.target_A) == int(first.num_step_tokens)
    asked = [i for batch in data.val_dataloader() for i in batch.indices]
    assert sorted(asked) == list(range(len(asked)))
    assert len(list(data.test_dataloader())) >= 1
