"""A training that pauses, or is asked to stop, ends bit for bit like one that never did."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tuning import files
from tuning.errors import ResultsError
from tuning.fingerprint import training_key
from tuning.jobs import How, Job, SupersededError, Wish, claim, write_wish
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.records import TrialRecord, read_record
from tuning.training.callbacks import TrainingStopped
from tuning.trial import TrialRequest, run_job, run_trial


def request_of(config: Any, root: Path, until: int | None = None, name: str = "t") -> TrialRequest:
    folder = ResultsRoot(root).study("study").trial(name)
    return TrialRequest(config=config, folder=folder, trial_id=name, until=until)


def run(config: Any, root: Path, **how: Any) -> TrialRecord:
    until = how.pop("until", None)
    return run_trial(request_of(config, root, until), ResultsRoot(root), **how)


def run_until(config: Any, root: Path, step: int) -> int:
    """Run to where a trial pauses; return the step that it says it stopped after."""
    with pytest.raises(TrainingStopped) as stopped:
        run(config, root, until=step)
    return stopped.value.step


def training_of(config: Any, root: Path) -> TrainingFolder:
    return ResultsRoot(root).training(training_key(config))


def adapter_of(config: Any, root: Path) -> dict[str, torch.Tensor]:
    steps = config.training_config.max_steps
    return load_file(training_of(config, root).adapter(steps) / "adapter_model.safetensors")


def starts(folder: TrainingFolder) -> list[int]:
    """Return the steps at which attempts began."""
    lines = files.read_json_lines(folder.attempts)
    return [line["step"] for line in lines if line["event"] == "start"]


def predictions(folder: TrainingFolder) -> list[pd.DataFrame]:
    evaluations = sorted((folder.root / "evaluations").iterdir())
    return [pd.read_parquet(path / "predictions.parquet") for path in evaluations]


def assert_same_end(config: Any, root: Path, whole: Path) -> None:
    """Compare everything that a training and its trial leave, bit for bit."""
    paused, unbroken = training_of(config, root), training_of(config, whole)
    assert paused.progress.read_bytes() == unbroken.progress.read_bytes()
    ours, theirs = adapter_of(config, root), adapter_of(config, whole)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name
    for mine, expected in zip(predictions(paused), predictions(unbroken), strict=True):
        pd.testing.assert_frame_equal(mine, expected, check_exact=True)
    results = [
        dataclasses.asdict(read_record(request_of(config, place).folder.record).result)
        for place in (root, whole)
    ]
    assert json.dumps(results[0]) == json.dumps(results[1])


@pytest.fixture
def config(small_config: Any) -> Any:
    """Evaluations are at 4, 8 and 12, lines of loss at 10 and 12, the warm-up ends at 2."""
    return small_config(*FEW_ITEMS)


FEW_ITEMS = tuple(
    f"evaluation_config.{name}"
    for name in ("num_words=10", "num_monitor_words=3", "num_generated_items=3")
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
def whole(config: Any, roots: Path) -> Path:
    """Return where the configuration was run without a pause."""
    if not (roots / "whole").exists():
        run(config, roots / "whole")
    return roots / "whole"


@pytest.fixture
def paused(config: Any, roots: Path, tmp_path: Path) -> Path:
    """Return a copy of where it paused after step 6."""
    if not (roots / "paused").exists():
        run_until(config, roots / "paused", 6)
    return Path(shutil.copytree(roots / "paused", tmp_path / "paused"))


# --- pausing ------------------------------------------------------------------------------------


def test_a_run_that_paused_ends_like_one_that_did_not(
    config: Any, tmp_path: Path, whole: Path
) -> None:
    folder = training_of(config, tmp_path)
    # In the warm-up, on evaluation steps, between them, and before the last step.
    pauses = [1, 4, 6, 8, 11]
    for step in pauses:
        assert run_until(config, tmp_path, step) == step
        assert files.steps_of(folder.checkpoints) == [step]
        assert max(line["step"] for line in files.read_json_lines(folder.progress)) <= step
        assert not request_of(config, tmp_path).folder.record.exists()
        assert not folder.adapter(12).exists()
    record = run(config, tmp_path)
    assert starts(folder) == [0, *pauses]
    assert record.execution.num_attempts == len(pauses) + 1
    assert_same_end(config, tmp_path, whole)


def test_a_pause_within_a_schedule_that_knows_its_end_is_exact_too(
    small_config: Any, tmp_path: Path
) -> None:
    other = small_config(
        *FEW_ITEMS,
        "max_steps=6",
        "lora_dropout=0.3",
        "training_config.schedule=cosine",
        "training_config.weight_decay=0.1",
    )
    run_until(other, tmp_path / "paused", 3)
    run(other, tmp_path / "paused")
    run(other, tmp_path / "whole")
    assert_same_end(other, tmp_path / "paused", tmp_path / "whole")


def test_a_pause_at_the_end_or_after_it_is_none(config: Any, paused: Path, whole: Path) -> None:
    for until in (12, 13):
        run(config, paused, until=until)
        assert_same_end(config, paused, whole)
    assert starts(training_of(config, paused)) == [0, 6]


def test_a_pause_behind_us_ends_at_once_and_trains_nothing(config: Any, paused: Path) -> None:
    folder = training_of(config, paused)
    before = contents(folder)
    told: list[int] = []
    for until in (1, 6):
        with pytest.raises(TrainingStopped) as stopped:
            run(config, paused, until=until, on_progress=steps_into(told))
        assert stopped.value.step == 6
    assert told == []
    assert contents(folder) == before


def steps_into(told: list[int]) -> Any:
    def tell(step: int, metrics: Mapping[str, float]) -> None:
        if "evaluated" not in metrics:
            told.append(step)

    return tell


def contents(folder: TrainingFolder) -> dict[str, bytes]:
    found = (path for path in folder.root.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in found}


def test_a_pause_behind_us_mends_the_lines_that_the_file_has_lost(
    config: Any, paused: Path
) -> None:
    """The driver judges a paused trial by these lines."""
    folder = training_of(config, paused)
    lines = folder.progress.read_bytes()
    folder.progress.write_bytes(lines[:-20])
    assert run_until(config, paused, 6) == 6
    assert folder.progress.read_bytes() == lines


def test_a_finished_training_does_not_pause(config: Any, whole: Path) -> None:
    record = run(config, whole, until=4)
    assert record.result.step == 12
    assert record.execution.train_seconds == 0


# --- a wish to stop -----------------------------------------------------------------------------


class StopAt:
    """Is told of steps, and wishes an attempt to stop when one is reached."""

    def __init__(self, folder: TrainingFolder, attempt: int, step: int) -> None:
        self.folder, self.attempt, self.step = folder, attempt, step
        self.steps: list[int] = []

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if "evaluated" in metrics:
            return
        self.steps.append(step)
        if step == self.step:
            write_wish(self.folder, self.attempt, stop=True)


class EveryLook(Wish):
    """A wish that is looked at anew at every step, as if steps took long."""

    def is_to_stop(self) -> bool:
        self._looked = 0.0
        return super().is_to_stop()


def test_a_wish_to_stop_leaves_a_checkpoint_to_go_on_from(
    config: Any, tmp_path: Path, whole: Path
) -> None:
    folder = training_of(config, tmp_path)
    attempt = claim(folder)
    told = StopAt(folder, attempt, 5)
    with pytest.raises(TrainingStopped) as stopped:
        run(config, tmp_path, on_progress=told, wish=EveryLook(folder, attempt))
    assert stopped.value.step == 5
    assert max(told.steps) == 5
    assert files.steps_of(folder.checkpoints) == [5]
    assert not request_of(config, tmp_path).folder.record.exists()
    run(config, tmp_path, wish=Wish(folder, claim(folder)))
    assert starts(folder) == [0, 5]
    assert_same_end(config, tmp_path, whole)


def test_a_wish_to_stop_is_known_soon_where_steps_are_quick(
    small_config: Any, tmp_path: Path
) -> None:
    long = small_config(*FEW_ITEMS, "max_steps=2000", "transfer_eval_frequency=2000")
    folder = training_of(long, tmp_path)
    attempt = claim(folder)
    told = StopAt(folder, attempt, 3)
    with pytest.raises(TrainingStopped) as stopped:
        run(long, tmp_path, on_progress=told, wish=Wish(folder, attempt))
    assert 3 <= stopped.value.step < 200
    assert files.steps_of(folder.checkpoints) == [stopped.value.step]


def test_a_wish_at_the_last_step_is_obeyed_in_the_evaluation_and_no_step_is_lost(
    config: Any, paused: Path, whole: Path
) -> None:
    folder = training_of(config, paused)
    attempt = claim(folder)
    told = StopAt(folder, attempt, 12)
    with pytest.raises(TrainingStopped) as stopped:
        run(config, paused, on_progress=told, wish=EveryLook(folder, attempt))
    assert stopped.value.step == 12
    assert files.steps_of(folder.checkpoints) == [12]
    assert not request_of(config, paused).folder.record.exists()
    record = run(config, paused, wish=Wish(folder, claim(folder)))
    assert record.execution.train_seconds == 0
    assert starts(folder) == [0, 6]
    assert_same_end(config, paused, whole)


# --- superseded ---------------------------------------------------------------------------------


class TakenOver:
    """Is told of steps, and has another attempt take over at one of them."""

    def __init__(self, folder: TrainingFolder, when: str) -> None:
        self.folder, self.when = folder, when

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.when in metrics and step > 8:
            claim(self.folder)
            self.when = "never again"


@pytest.mark.parametrize("when", ["loss", "evaluated"], ids=["while training", "while evaluating"])
def test_an_attempt_that_was_superseded_writes_no_record(
    config: Any, paused: Path, whole: Path, when: str
) -> None:
    folder = training_of(config, paused)
    wish = EveryLook(folder, claim(folder))
    with pytest.raises(SupersededError, match="attempt 2 took over from 1"):
        run(config, paused, on_progress=TakenOver(folder, when), wish=wish)
    assert not request_of(config, paused).folder.record.exists()
    run(config, paused, wish=Wish(folder, claim(folder)))
    assert_same_end(config, paused, whole)


# --- jobs ---------------------------------------------------------------------------------------


def job_of(config: Any, root: Path, until: int | None) -> Job:
    attempt = claim(training_of(config, root))
    return Job(study="study", trial_id="t", config=config, until=until, attempt=attempt)


def test_a_job_that_pauses_returns_and_its_folders_say_how_far_it_came(
    config: Any, paused: Path, whole: Path
) -> None:
    folder = training_of(config, paused)
    for until, reached in ((8, 8), (None, 12)):
        ended = run_job(job_of(config, paused, until), paused, lambda step, metrics: None)
        assert ended == (How.RETURNED, "")
        assert files.steps_of(folder.checkpoints) == [reached]
    assert_same_end(config, paused, whole)


def test_a_job_whose_training_another_process_holds_is_busy(config: Any, paused: Path) -> None:
    job = job_of(config, paused, None)
    with files.exclusive_lock(training_of(config, paused).lock, "it"):
        how, message = run_job(job, paused, lambda step, metrics: None)
    assert how is How.BUSY
    assert "another process is working on training" in message
    assert not request_of(config, paused).folder.record.exists()


def test_a_training_of_another_base_is_refused_also_where_it_would_pause(
    config: Any, paused: Path
) -> None:
    folder = training_of(config, paused)
    identity = files.read_json(folder.identity)
    files.write_json(folder.identity, {**identity, "weights": "0" * 64})
    with pytest.raises(ResultsError, match="begun with another weights"):
        run(config, paused, until=2)
