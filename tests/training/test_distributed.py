"""One training by several processes: the same weights, the same answers, and how it goes on."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from lightning_support import (
    EXPERIMENT,
    adapter_of,
    ended,
    experiment_file,
    losses_of,
    moments_of,
    only_training,
    start,
)
from test_processes import free_port

from tuning import files
from tuning.config import build
from tuning.errors import ConfigError, ResultsError
from tuning.evaluation.bench import load_bench
from tuning.paths import ResultsRoot
from tuning.training.cli import main
from tuning.training.datamodule import StepBatches
from tuning.training.run import claim

CUT = "--trainer.accumulate_grad_batches=2"
GLOO = ("--trainer.devices=2", "--trainer.accelerator=cpu")


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with results: three steps by one process, three more by two with gloo."""
    folder = tmp_path_factory.mktemp("two")
    run_alone(folder, CUT, "--trainer.max_steps=3")
    config = str(folder / "exp.yaml")
    ended(start("fit", "--config", config, "--results-dir", "results", *GLOO, cwd=folder))
    return folder


def run_alone(folder: Path, *arguments: str) -> Path:
    config = str(experiment_file(folder))
    results = folder / "results"
    assert main(["fit", "--config", config, "--results-dir", str(results), *arguments]) == 0
    return results


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_two_processes_go_on_with_the_very_weights_of_one_with_as_many_micro_batches(
    by_two: Path, tmp_path: Path
) -> None:
    two = only_training(by_two / "results")
    one = only_training(run_alone(tmp_path, CUT))
    assert [line["processes"] for line in files.read_json_lines(two.attempts)[::2]] == [1, 2]
    assert two.root.name == one.root.name
    assert_same_bits(adapter_of(two, 6), adapter_of(one, 6))
    # Adam's moments too, so they also go on alike.
    assert_same_bits(moments_of(two, 6), moments_of(one, 6))
    assert losses_of(two)[6] == losses_of(one)[6]


@pytest.mark.slow
def test_a_step_that_is_cut_has_the_curve_of_one_that_is_not_up_to_rounding(
    tmp_path: Path,
) -> None:
    """With the test above this holds two processes against one that does not cut its steps."""
    # Dropout draws for each micro-batch, so it is left out where these differ.
    more = ("lora_config.dropout=0", "training_config.max_steps=12")
    found = {}
    for name, cut in (("whole", ()), ("cut", (CUT,))):
        (tmp_path / name).mkdir()
        found[name] = losses_of(only_training(run_alone(tmp_path / name, *more, *cut)))
    assert list(found["cut"]) == [10, 12]
    assert found["cut"] == pytest.approx(found["whole"], rel=1e-5)


@pytest.mark.nightly
def test_an_evaluation_by_two_processes_says_what_one_says(
    by_two: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--config", str(by_two / "exp.yaml"), "--results-dir", str(by_two / "results")]
    two = start("test", *arguments, "--trainer.devices=2", "--trainer.accelerator=cpu", cwd=by_two)
    assert main(["test", *arguments]) == 0
    alone = capsys.readouterr().out
    assert ended(two) == alone
    # Every item once: 12 words in 3 templates, count with its balanced classes.
    assert re.findall(r"n = (\d+)", alone)[:2] == ["36", "36"]


@pytest.mark.slow
def test_another_number_of_processes_goes_on_exactly_or_is_refused(
    by_two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(by_two / "results", tmp_path / "results")
    folder = only_training(tmp_path / "results")
    arguments = ["--config", str(experiment_file(tmp_path)), "--results-dir"]
    arguments += [str(tmp_path / "results"), "training_config.max_steps=9"]
    assert main(["fit", *arguments]) == 0
    (tmp_path / "whole").mkdir()
    whole = only_training(run_alone(tmp_path / "whole", CUT, "training_config.max_steps=9"))
    assert_same_bits(adapter_of(folder, 9), adapter_of(whole, 9))
    # An adapter that was lost is written again from the last checkpoint, and nothing is trained.
    shutil.rmtree(folder.root / "adapters")
    assert main(["fit", *arguments]) == 0
    assert "is of checkpoint" in capsys.readouterr().err
    assert_same_bits(adapter_of(folder, 9), adapter_of(whole, 9))
    shutil.rmtree(folder.root / "adapters")
    assert main(["fit", *arguments, "--trainer.accumulate_grad_batches=3"]) == 2
    said = capsys.readouterr().err
    assert "was begun with 2 micro-batches a step" in said
    assert "as many processes as divide it (1, 2)" in said


def test_how_processes_share_the_rows_of_a_step(tmp_path: Path) -> None:
    config = build(EXPERIMENT, "test")
    bench = load_bench(config)
    batches = StepBatches.of(config, bench)
    folders = [ResultsRoot(tmp_path).training(name) for name in "abcd"]
    assert claim(config, bench, folders[0], batches, num_processes=3) == 3
    assert claim(config, bench, folders[0], batches, num_processes=1) == 3
    with pytest.raises(ResultsError, match="begun with 3 micro-batches a step, and 2 processes"):
        claim(config, bench, folders[0], batches, num_processes=2)
    assert claim(config, bench, folders[1], batches, 2, num_passes_asked=4) == 8
    assert claim(config, bench, folders[1], batches, num_processes=4) == 8
    with pytest.raises(ConfigError, match="33 processes with 1 micro-batch each cannot share"):
        claim(config, bench, folders[2], batches, num_processes=33)
    assert not folders[2].identity.exists()
    with pytest.raises(ResultsError, match="begun with another asked"):
        claim(config, bench, folders[0], batches, extra={"trainer": {"overfit_batches": 1}})


@pytest.mark.nightly
def test_torchrun_and_two_nodes_train_the_same_weights(by_two: Path, tmp_path: Path) -> None:
    expected = adapter_of(only_training(by_two / "results"), 6)
    config = str(experiment_file(tmp_path))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    arguments = ("fit", "--config", config, "--trainer.accelerator=cpu")
    ended(
        start(
            *arguments, "--results-dir", "a", "--trainer.devices=2", cwd=tmp_path, program=torchrun
        )
    )
    assert_same_bits(adapter_of(only_training(tmp_path / "a"), 6), expected)
    port = str(free_port())
    nodes = [
        start(
            *arguments,
            "--results-dir",
            "b",
            "--trainer.devices=1",
            "--trainer.num_nodes=2",
            cwd=tmp_path,
            env={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    for node in nodes:
        ended(node)
    assert_same_bits(adapter_of(only_training(tmp_path / "b"), 6), expected)
