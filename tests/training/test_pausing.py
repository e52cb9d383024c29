"""A training that pauses, or is asked to stop, ends bit for bit like one that never did."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("whole")


def unbroken(config: Any, whole: Path) -> Path:
    """Return where a configuration was run without a pause; run it when it was not yet."""
    root = whole / f"{training_key(config)}_{config.training_config.max_steps}"
    if not root.exists():
        run(config, root)
    return root


# --- pausing ------------------------------------------------------------------------------------


# Evaluations are at 4, 8 and 12, lines of loss at 10 and 12, the warm-up ends at 2.
@pytest.mark.parametrize(
    "pauses",
    [(4, 8), (1, 2, 3, 5, 10, 11), (6, 8, 9)],
    ids=lambda pauses: "-".join(map(str, pauses)),
)
def test_a_run_that_paused_ends_like_one_that_did_not(
    small_config: Any, tmp_path: Path, whole: Path, pauses: tuple[int, ...]
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    for step in pauses:
        assert run_until(config, tmp_path, step) == step
        assert files.steps_of(folder.checkpoints) == [step]
        assert max(line["step"] for line in files.read_json_lines(folder.progress)) <= step
        assert not request_of(config, tmp_path).folder.record.exists()
        assert not folder.adapter(12).exists()
    record = run(config, tmp_path)
    assert starts(folder) == [0, *pauses]
    assert record.execution.num_attempts == len(pauses) + 1
    assert_same_end(config, tmp_path, unbroken(config, whole))


def test_a_pause_within_a_schedule_that_knows_its_end_is_exact_too(
    small_config: Any, tmp_path: Path, whole: Path
) -> None:
    config = small_config("training_config.schedule=cosine", "weight_decay=0.1", "lora_dropout=0.3")
    for step in (3, 7):
        run_until(config, tmp_path, step)
    run(config, tmp_path)
    assert_same_end(config, tmp_path, unbroken(config, whole))


@pytest.mark.parametrize("until", [12, 13, 1000])
def test_a_pause_at_or_after_the_end_is_none(
    small_config: Any, tmp_path: Path, whole: Path, until: int
) -> None:
    config = small_config()
    # What was trained already is enough to see that nobody pauses behind the last step.
    run_until(config, tmp_path, 11)
    run(config, tmp_path, until=until)
    assert_same_end(config, tmp_path, unbroken(config, whole))


def test_a_pause_behind_us_ends_at_once_and_trains_nothing(
    small_config: Any, tmp_path: Path
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    run_until(config, tmp_path, 6)
    before = contents(folder)
    told: list[int] = []
    for until in (1, 4, 6):
        with pytest.raises(TrainingStopped) as stopped:
            run(config, tmp_path, until=until, on_progress=steps_into(told))
        assert stopped.value.step == 6
    assert [step for step in told if step < 12] == []
    assert contents(folder) == before
    assert starts(folder) == [0]


def steps_into(told: list[int]) -> Any:
    def tell(step: int, metrics: Mapping[str, float]) -> None:
        if "evaluated" not in metrics:
            told.append(step)

    return tell


def contents(folder: TrainingFolder) -> dict[str, bytes]:
    files_ = (path for path in folder.root.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.root)): path.read_bytes() for path in files_}


def test_a_pause_mends_the_lines_that_the_file_has_lost(small_config: Any, tmp_path: Path) -> None:
    """The driver judges a paused trial by these lines."""
    config = small_config()
    folder = training_of(config, tmp_path)
    run_until(config, tmp_path, 8)
    lines = folder.progress.read_bytes()
    folder.progress.write_bytes(lines[:-20])
    assert run_until(config, tmp_path, 8) == 8
    assert folder.progress.read_bytes() == lines


def test_a_finished_training_does_not_pause(small_config: Any, tmp_path: Path, whole: Path) -> None:
    config = small_config()
    root = unbroken(config, whole)
    record = run(config, root, until=4)
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


@pytest.mark.parametrize("step", [5, 8])
def test_a_wish_to_stop_leaves_a_checkpoint_to_go_on_from(
    small_config: Any, tmp_path: Path, whole: Path, step: int
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    attempt = claim(folder)
    told = StopAt(folder, attempt, step)
    with pytest.raises(TrainingStopped) as stopped:
        run(config, tmp_path, on_progress=told, wish=EveryLook(folder, attempt))
    assert stopped.value.step == step
    assert max(told.steps) == step
    assert files.steps_of(folder.checkpoints) == [step]
    assert not request_of(config, tmp_path).folder.record.exists()
    run(config, tmp_path, wish=Wish(folder, claim(folder)))
    assert starts(folder) == [0, step]
    assert_same_end(config, tmp_path, unbroken(config, whole))


def test_a_wish_to_stop_is_known_soon_in_a_run_of_quick_steps(
    small_config: Any, tmp_path: Path
) -> None:
    config = small_config("max_steps=100000", "transfer_eval_frequency=100000")
    folder = training_of(config, tmp_path)
    attempt = claim(folder)
    told = StopAt(folder, attempt, 3)
    with pytest.raises(TrainingStopped) as stopped:
        run(config, tmp_path, on_progress=told, wish=Wish(folder, attempt))
    assert 3 <= stopped.value.step < 200
    assert files.steps_of(folder.checkpoints) == [stopped.value.step]


def test_a_wish_at_the_last_step_comes_too_late(
    small_config: Any, tmp_path: Path, whole: Path
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    run_until(config, tmp_path, 10)
    attempt = claim(folder)
    told = StopAt(folder, attempt, 12)
    run(config, tmp_path, on_progress=told, wish=EveryLook(folder, attempt))
    assert_same_end(config, tmp_path, unbroken(config, whole))


# --- superseded ---------------------------------------------------------------------------------


class Claim:
    """Is told of steps, and has another attempt take over at one of them."""

    def __init__(self, folder: TrainingFolder, when: str) -> None:
        self.folder, self.when = folder, when

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.when in metrics and step >= 6:
            claim(self.folder)
            self.when = "done"


@pytest.mark.parametrize("when", ["loss", "evaluated"], ids=["while training", "while evaluating"])
def test_an_attempt_that_was_superseded_writes_no_record(
    small_config: Any, tmp_path: Path, whole: Path, when: str
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    wish = EveryLook(folder, claim(folder))
    with pytest.raises(SupersededError, match="attempt 2 took over from 1"):
        run(config, tmp_path, on_progress=Claim(folder, when), wish=wish)
    assert not request_of(config, tmp_path).folder.record.exists()
    run(config, tmp_path, wish=Wish(folder, claim(folder)))
    assert_same_end(config, tmp_path, unbroken(config, whole))


# --- jobs ---------------------------------------------------------------------------------------


def jobs_of(config: Any, root: Path, pauses: Iterable[int | None]) -> Iterable[Job]:
    for until in pauses:
        attempt = claim(training_of(config, root))
        yield Job(study="study", trial_id="t", config=config, until=until, attempt=attempt)


def test_a_job_that_pauses_returns_and_its_folders_say_how_far_it_came(
    small_config: Any, tmp_path: Path, whole: Path
) -> None:
    config = small_config()
    folder = training_of(config, tmp_path)
    reached = []
    for job in jobs_of(config, tmp_path, [4, 6, None]):
        assert run_job(job, tmp_path, lambda step, metrics: None) == (How.RETURNED, "")
        reached.append(files.steps_of(folder.checkpoints))
    assert reached == [[4], [6], [12]]
    assert_same_end(config, tmp_path, unbroken(config, whole))


def test_a_job_whose_training_another_process_holds_is_busy(
    small_config: Any, tmp_path: Path
) -> None:
    config = small_config()
    (job,) = jobs_of(config, tmp_path, [4])
    with files.exclusive_lock(training_of(config, tmp_path).lock, "it"):
        how, message = run_job(job, tmp_path, lambda step, metrics: None)
    assert how is How.BUSY
    assert "another process is working on training" in message
    assert not request_of(config, tmp_path).folder.record.exists()


def test_a_training_of_another_base_is_refused_also_where_it_would_pause(
    small_config: Any, tmp_path: Path
) -> None:
    config = small_config()
    run_until(config, tmp_path, 2)
    folder = training_of(config, tmp_path)
    identity = files.read_json(folder.identity)
    files.write_json(folder.identity, {**identity, "weights": "0" * 64})
    with pytest.raises(ResultsError, match="begun with another weights"):
        run(config, tmp_path, until=2)
