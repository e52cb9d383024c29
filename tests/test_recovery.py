"""Torn files, damaged checkpoints, full disks: the same result again, or one clear line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from recovery_support import HUNGRY_BATCH, Puppet
from tuning import files
from tuning.backends.local import LocalBackend
from tuning.cli.main import main
from tuning.config import ExperimentConfig
from tuning.errors import ResultsError, UserError
from tuning.executor import End, Outcome, run_study
from tuning.fingerprint import training_key
from tuning.grid import Proposal
from tuning.jobs import Backend, How, Job, claim
from tuning.monitor import StudyMonitor
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.records import TrialRecord, intact_record, read_record
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.training.callbacks import PROGRESS, ProgressFile, TrainingStopped
from tuning.training.checkpoint import SafetensorsCheckpointIO
from tuning.training.run import _mend_progress
from tuning.trial import TrialRequest, run_job, run_trial

FEW_ITEMS = tuple(
    f"evaluation_config.{name}"
    for name in ("num_words=10", "num_monitor_words=3", "num_generated_items=3")
)


class Silent:
    """A watcher that only remembers."""

    def __init__(self) -> None:
        self.was_there: dict[str, bool] = {}
        self.messages: list[str] = []

    def study_moved(self) -> None:
        pass

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        self.was_there[record.trial_id] = was_there

    def said(self, message: str) -> None:
        self.messages.append(message)


def results_of(records: list[TrialRecord]) -> str:
    return json.dumps([[r.trial_id, dataclasses.asdict(r.result)] for r in records])


@pytest.fixture
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read afterwards does not depend on it, and thousands of files are written."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def is_one_line(error: BaseException) -> bool:
    return isinstance(error, UserError) and "\n" not in str(error)


# --- one training -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("roots")


@pytest.fixture
def config(small_config: Any) -> ExperimentConfig:
    made: ExperimentConfig = small_config(*FEW_ITEMS)
    return made


def request_of(config: ExperimentConfig, root: Path, until: int | None = None) -> TrialRequest:
    folder = ResultsRoot(root).study("study").trial("t")
    return TrialRequest(config=config, folder=folder, trial_id="t", until=until)


def run(config: ExperimentConfig, root: Path) -> TrialRecord:
    return run_trial(request_of(config, root), ResultsRoot(root))


@pytest.fixture
def whole(config: ExperimentConfig, roots: Path) -> Path:
    """Return where a trial is finished; for reading only."""
    if not (roots / "whole").exists():
        run(config, roots / "whole")
    return roots / "whole"


@pytest.fixture
def paused(config: ExperimentConfig, roots: Path, tmp_path: Path) -> Path:
    """Return a copy of where the trial stopped after step 6."""
    if not (roots / "paused").exists():
        request = request_of(config, roots / "paused", until=6)
        with pytest.raises(TrainingStopped):
            run_trial(request, ResultsRoot(roots / "paused"))
    return Path(shutil.copytree(roots / "paused", tmp_path / "paused"))


def training_of(config: ExperimentConfig, root: Path) -> TrainingFolder:
    return ResultsRoot(root).training(training_key(config))


def assert_same_end(config: ExperimentConfig, root: Path, whole: Path) -> None:
    ours, theirs = training_of(config, root), training_of(config, whole)
    assert ours.progress.read_bytes() == theirs.progress.read_bytes()
    name = "adapter_model.safetensors"
    assert (ours.adapter(12) / name).read_bytes() == (theirs.adapter(12) / name).read_bytes()
    records = [read_record(request_of(config, place).folder.record) for place in (root, whole)]
    assert results_of(records[:1]) == results_of(records[1:])


# --- (a) torn files -----------------------------------------------------------------------------


def remembered(folder: TrainingFolder, step: int) -> list[dict[str, Any]]:
    checkpoint = SafetensorsCheckpointIO().load_checkpoint(folder.checkpoint(step))
    lines: list[dict[str, Any]] = checkpoint[PROGRESS]
    return lines


@pytest.mark.usefixtures("no_fsync")
def test_progress_that_is_torn_at_any_byte_is_mended_before_a_run_goes_on(
    config: ExperimentConfig, paused: Path, whole: Path
) -> None:
    folder = training_of(config, paused)
    known = remembered(folder, 6)
    # A run that was killed later left lines that the checkpoint of step 6 knows nothing of.
    content = training_of(config, whole).progress.read_bytes()
    lines = files.read_json_lines(training_of(config, whole).progress)
    expected = [line for line in lines if line["step"] <= 6]
    assert known == expected
    for length in range(len(content) + 1):
        folder.progress.write_bytes(content[:length])
        ProgressFile(folder.progress).go_on_after(6, known)
        assert files.read_json_lines(folder.progress) == expected, f"torn at byte {length}"


@pytest.mark.usefixtures("no_fsync")
def test_progress_of_a_finished_training_that_is_torn_at_any_byte_is_mended(
    config: ExperimentConfig, whole: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "copy"))
    folder = training_of(config, root)
    content, lines = folder.progress.read_bytes(), files.read_json_lines(folder.progress)
    lost = []
    for length in range(len(content)):
        folder.progress.write_bytes(content[:length])
        _mend_progress(folder, 12)
        if files.read_json_lines(folder.progress) != lines:
            lost.append(length)
    assert lost == [], "lengths after which lines are lost for good"


@pytest.mark.parametrize("cut", [1, 200, None], ids=["last byte", "last two lines", "all"])
def test_a_finished_trial_without_record_and_with_torn_progress_ends_the_same(
    config: ExperimentConfig, whole: Path, tmp_path: Path, cut: int | None
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "copy"))
    folder = training_of(config, root)
    content = folder.progress.read_bytes()
    folder.progress.write_bytes(content[: -cut if cut else 0])
    request_of(config, root).folder.record.unlink()
    assert run(config, root).execution.train_seconds == 0
    assert_same_end(config, root, whole)


def test_a_half_done_trial_with_torn_progress_ends_the_same(
    config: ExperimentConfig, paused: Path, whole: Path
) -> None:
    folder = training_of(config, paused)
    content = folder.progress.read_bytes()
    folder.progress.write_bytes(content[: len(content) // 3])
    run(config, paused)
    assert_same_end(config, paused, whole)


def test_a_damaged_line_amid_the_progress_is_one_clear_line(
    config: ExperimentConfig, paused: Path
) -> None:
    folder = training_of(config, paused)
    content = folder.progress.read_bytes()
    folder.progress.write_bytes(b"#" + content[1:])
    with pytest.raises(ResultsError, match=rf"{folder.progress} line 1 is damaged") as caught:
        run(config, paused)
    assert is_one_line(caught.value)


def test_a_record_that_is_torn_at_any_byte_is_told_from_a_whole_one(
    config: ExperimentConfig, whole: Path, tmp_path: Path
) -> None:
    record = read_record(request_of(config, whole).folder.record)
    path = Path(shutil.copy(request_of(config, whole).folder.record, tmp_path))
    # All that it says is there but for its last byte, the end of the line.
    length = path.stat().st_size - 1
    os.truncate(path, length)
    assert read_record(path) == record
    found = set()
    while length:
        length -= 1
        os.truncate(path, length)
        found.add(mistake_in(path))
    assert found == {f"{path} is damaged"}
    assert intact_record(path) is None


def mistake_in(path: Path) -> str:
    """Return how the one line begins that is said of a record."""
    try:
        read_record(path)
    except ResultsError as error:
        return str(error).partition(": ")[0] if is_one_line(error) else "more than a line"
    return "nothing"


def test_a_torn_identity_is_one_clear_line(config: ExperimentConfig, paused: Path) -> None:
    folder = training_of(config, paused)
    content = folder.identity.read_bytes()
    for length in (0, len(content) // 2, len(content) - 2):
        folder.identity.write_bytes(content[:length])
        with pytest.raises(ResultsError, match=rf"{folder.identity} is damaged") as caught:
            run(config, paused)
        assert is_one_line(caught.value)


# --- a study, without any training --------------------------------------------------------------


def spec_of(base: ExperimentConfig, space: dict[str, Any], **changes: Any) -> StudySpec:
    made = SearchSpace.model_validate({"replicates_of_default": 1, **space})
    return StudySpec(name="study", space=made, base=base, **changes)


def halving_spec(config: ExperimentConfig, *, deterministic: bool = True) -> StudySpec:
    """Return a study in which trials pause at step 4 and most of them go no further."""
    space = {
        "HPARAM_CANDIDATES": {"lora_r": [64, 8, 32, 4]},
        "pruning": "successive_halving",
        "pruning_arguments": {"min_steps": 4, "factor": 3},
    }
    return spec_of(config, space, deterministic=deterministic)


def bayesian_spec(config: ExperimentConfig) -> StudySpec:
    """Return a study whose trials follow from each other's results."""
    space = {
        "strategy": "bayesian",
        "HPARAM_RANGE": {"lora_r": {"low": 4, "high": 64}},
        "sampler_arguments": {"num_startup_trials": 1},
        "num_trials": 3,
        "pruning": "none",
    }
    return spec_of(config, space, deterministic=True)


SPECS = {"halving": (halving_spec, 5), "bayesian": (bayesian_spec, 3)}
"""Studies, and how many jobs of each are done when its driver is killed."""


def level_of(config: ExperimentConfig) -> float:
    return config.lora_config.r / 128


def puppets(
    spec: StudySpec, root: Path, die_after: int = 10**9
) -> tuple[Outcome | None, Puppet, Silent]:
    """Run a study; None is the outcome of a driver that was killed."""
    backend, watcher = Puppet(ResultsRoot(root), level_of, die_after), Silent()
    with contextlib.suppress(KeyboardInterrupt):
        return run_study(spec, ResultsRoot(root), backend, watcher), backend, watcher
    return None, backend, watcher


@dataclasses.dataclass
class Told:
    """A study whose end is known, and a copy of it in the middle."""

    spec: StudySpec
    expected: str
    half_done: Path
    finished: Path


@pytest.fixture(params=list(SPECS))
def told(
    request: pytest.FixtureRequest, config: ExperimentConfig, tmp_path: Path, no_fsync: None
) -> Told:
    spec_of_kind, die_after = SPECS[request.param]
    spec = spec_of_kind(config)
    outcome, _, _ = puppets(spec, tmp_path / "finished")
    assert outcome is not None
    assert outcome.end is End.FINISHED
    assert puppets(spec, tmp_path / "half", die_after)[0] is None
    return Told(spec, results_of(outcome.records), tmp_path / "half", tmp_path / "finished")


def torn_lengths(content: bytes) -> list[int]:
    """Return every length within the last two lines, and all at which a line ends or almost does."""
    ends = [place for place, byte in enumerate(content) if byte == ord("\n")]
    around = (end + i for end in ends for i in (-1, 0, 1))
    return sorted({0, 1, *around, *range(ends[-3], len(content) + 1)})


def again(told: Told, root: Path) -> str:
    outcome, _, _ = puppets(told.spec, root)
    assert outcome is not None
    return results_of(outcome.records)


def test_half_a_study_ends_as_if_it_had_not_been_interrupted(told: Told) -> None:
    assert again(told, told.half_done) == told.expected


def test_half_a_study_whose_events_are_torn_ends_the_same(told: Told, tmp_path: Path) -> None:
    content = ResultsRoot(told.half_done).study("study").events.read_bytes()
    for length in torn_lengths(content)[::4]:
        root = Path(shutil.copytree(told.half_done, tmp_path / str(length)))
        ResultsRoot(root).study("study").events.write_bytes(content[:length])
        assert again(told, root) == told.expected, f"torn at byte {length}"


def test_a_finished_study_whose_events_are_torn_is_still_finished(told: Told) -> None:
    events = ResultsRoot(told.finished).study("study").events
    content = events.read_bytes()
    for length in torn_lengths(content)[::8]:
        events.write_bytes(content[:length])
        outcome, backend, watcher = puppets(told.spec, told.finished)
        assert outcome is not None
        assert results_of(outcome.records) == told.expected
        assert backend.submitted == []
        assert all(watcher.was_there.values())


def test_events_that_are_torn_at_any_byte_can_be_shown(told: Told) -> None:
    root = ResultsRoot(told.finished)
    events = root.study("study").events
    for length in reversed(torn_lengths(events.read_bytes())):
        os.truncate(events, length)
        status = StudyMonitor(told.spec, root).status()
        assert sum(status.counts.values()) == told.spec.plan().num_trials


def test_a_damaged_line_amid_the_events_is_one_clear_line(told: Told) -> None:
    events = ResultsRoot(told.half_done).study("study").events
    events.write_bytes(b"#" + events.read_bytes()[1:])
    with pytest.raises(ResultsError, match=rf"{events} line 1 is damaged") as caught:
        puppets(told.spec, told.half_done)
    assert is_one_line(caught.value)


def test_a_torn_record_of_a_study_is_said_or_made_again(told: Told) -> None:
    root = ResultsRoot(told.finished)
    trial_id = json.loads(told.expected)[0][0]
    path = root.study("study").trial(trial_id).record
    content = path.read_bytes()
    for length in (0, 1, len(content) // 2, len(content) - 2):
        path.write_bytes(content[:length])
        with pytest.raises(ResultsError, match=rf"{path} is damaged") as caught:
            load_study(root, "study")
        assert is_one_line(caught.value)
        assert again(told, told.finished) == told.expected
        assert read_record(path).trial_id == trial_id


@pytest.mark.parametrize(
    ("deterministic", "die_after", "num_there"),
    [(True, 4, 0), (False, 5, 2)],
    ids=["all wait at a rung", "two are finished"],
)
def test_trials_are_judged_by_progress_that_is_torn_as_by_whole_progress(
    config: ExperimentConfig,
    tmp_path: Path,
    no_fsync: None,
    deterministic: bool,
    die_after: int,
    num_there: int,
) -> None:
    spec = halving_spec(config, deterministic=deterministic)
    expected, _, _ = puppets(spec, tmp_path / "whole")
    assert expected is not None
    statuses = [record.result.status.value for record in expected.records]
    assert statuses == ["completed", "completed", "pruned", "pruned", "pruned"]
    half = tmp_path / "half"
    puppets(spec, half, die_after)
    assert len(list(half.glob("data/study/trials/*/record.json"))) == num_there
    wrong = []
    for path in sorted(ResultsRoot(half).trainings.glob("*/progress.jsonl")):
        content, key = path.read_bytes(), path.parent.name
        for length in range(0, len(content), 25):
            root = Path(shutil.copytree(half, tmp_path / f"{key}_{length}"))
            ResultsRoot(root).training(key).progress.write_bytes(content[:length])
            found, _, _ = puppets(spec, root)
            assert found is not None
            if results_of(found.records) != results_of(expected.records):
                wrong.append((key, length))
    assert wrong == []


# --- (b) damaged checkpoints --------------------------------------------------------------------


def flip(path: Path, place: int, mask: int = 0x11) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= mask
    path.write_bytes(bytes(content))


CHECKPOINT_FILES = ("tensors.safetensors", "tree.json", "sha256.txt")


@pytest.mark.parametrize("name", CHECKPOINT_FILES)
@pytest.mark.parametrize("mask", [0x01, 0x80], ids=["last bit", "first bit"])
def test_a_byte_that_was_flipped_in_a_checkpoint_is_noticed(
    config: ExperimentConfig, paused: Path, name: str, mask: int
) -> None:
    checkpoint = training_of(config, paused).checkpoint(6)
    path = checkpoint / name
    content = path.read_bytes()
    silent, other = [], []
    for place in range(0, len(content), max(1, len(content) // 150)):
        flip(path, place, mask)
        try:
            SafetensorsCheckpointIO().load_checkpoint(checkpoint)
            silent.append(place)
        except Exception as error:
            if not (isinstance(error, ResultsError) and is_one_line(error)):
                other.append((place, type(error).__name__))
        path.write_bytes(content)
    assert silent == [], "bytes whose damage nobody notices"
    assert other == [], "bytes whose damage is an error of ours"


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("tensors.safetensors", "flipped"),
        ("sha256.txt", "flipped"),
        ("tensors.safetensors", "removed"),
        ("tree.json", "removed"),
    ],
)
def test_a_damaged_checkpoint_is_set_aside_and_the_training_begins_earlier(
    config: ExperimentConfig, paused: Path, whole: Path, name: str, damage: str
) -> None:
    folder = training_of(config, paused)
    path = folder.checkpoint(6) / name
    if damage == "flipped":
        flip(path, len(path.read_bytes()) // 2, 0x80)
    else:
        path.unlink()
    run(config, paused)
    assert_same_end(config, paused, whole)
    said = folder.log.read_text()
    assert str(folder.checkpoint(6)) in said
    assert "set aside and the run begins earlier" in said
    starts = [x["step"] for x in files.read_json_lines(folder.attempts) if x["event"] == "start"]
    assert starts == [0, 0]


# --- (c), (d) disks that refuse -----------------------------------------------------------------


@contextlib.contextmanager
def mounted(folder: Path, *how: str) -> Iterator[None]:
    try:
        subprocess.run(["mount", *how, str(folder)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    with mounted(folder, "--bind", str(folder)):
        command = ["mount", "-o", "remount,ro,bind", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        yield


REAL_SPACE = {
    "HPARAM_CANDIDATES": {"lora_r": [64]},
    "replicates_of_default": 1,
    "step_scale": 1.0,
    "pruning": "none",
}


@pytest.fixture(scope="module")
def real(roots: Path) -> Iterator[tuple[ResultsRoot, Backend]]:
    """Yield a results root, and one real worker that studies of it share."""
    root = ResultsRoot(roots / "real")
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    runner = "recovery_support:run_some_in_little_memory"
    backend = LocalBackend(root, [environment], runner=runner)
    yield root, backend
    backend.close()


def real_space() -> dict[str, Any]:
    from tests_support import small_mapping

    experiment = small_mapping()
    for name in ("experiment_name", "timestamp"):
        del experiment[name]
    experiment["training_config"]["max_steps"] = 4
    experiment["evaluation_config"] = {
        "num_words": 10,
        "num_monitor_words": 3,
        "num_generated_items": 3,
    }
    return {**REAL_SPACE, "experiment": experiment}


@pytest.mark.usefixtures("warm_studies")
@pytest.mark.nightly
def test_a_full_disk_ends_a_study_in_one_clear_line_and_it_goes_on_when_there_is_room(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    real: tuple[ResultsRoot, Backend],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(real_space()))
    command = ["tuning", "study", "run", "--space", "space.yaml", "--name", "study", "--quiet"]
    command += ["--workers", "1", "--threads", "1", "--results-dir", "disk"]
    monkeypatch.setattr("sys.argv", command)
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=48m", "tmpfs"):
        ballast = disk / "ballast"
        # The first training fits, the second does not.
        ballast.write_bytes(b"b" * (48 * 2**20 - 1_900_000))
        with pytest.raises(SystemExit) as stopped:
            main()
        said = capsys.readouterr().err
        assert stopped.value.code == 2, said
        assert len(said.splitlines()) == 1, said
        assert said.startswith("tuning: cannot write ")
        assert said.endswith(": the disk is full\n")
        assert len(list(disk.glob("data/study/trials/*/record.json"))) == 1
        ballast.unlink()
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, capsys.readouterr().err
        spec, records = load_study(ResultsRoot(disk), "study")
    root, backend = real
    expected = run_study(spec, root, backend, Silent())
    assert len(records) == 2
    assert results_of(records) == results_of(expected.records)


def test_a_read_only_results_folder_is_one_clear_line(
    config: ExperimentConfig, paused: Path, run_program: Any, tmp_path: Path
) -> None:
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(real_space()))
    job = Job(study="study", trial_id="t", config=config)
    before = sorted(str(path) for path in paused.rglob("*"))
    with read_only(paused):
        refused = run_program("study", "run", "--space", "space.yaml", "--results-dir", str(paused))
        assert refused.returncode == 2
        assert len(refused.stderr.splitlines()) == 1, refused.stderr
        assert refused.stderr.endswith(": the file system is read-only\n")
        with pytest.raises(ResultsError, match="the file system is read-only"):
            claim(training_of(config, paused))
        how, message = run_job(job, paused, lambda step, metrics: None)
        assert how is How.DISK
        assert message.endswith("the file system is read-only")
    assert sorted(str(path) for path in paused.rglob("*")) == before


# --- (e), (f) trials that fail ------------------------------------------------------------------


def test_a_study_goes_on_after_trials_that_diverge_or_cannot_have_memory(
    small_config: Any, real: tuple[ResultsRoot, Backend]
) -> None:
    root, backend = real
    base = small_config(
        *FEW_ITEMS,
        "max_steps=16",
        "warmup_steps=0",
        "transfer_eval_frequency=16",
        "training_config.learning_rate=1",
    )
    # With a weight decay of 10 every step multiplies the weights by -9.
    space = {
        "HPARAM_CANDIDATES": {
            "training_config.weight_decay": [10.0],
            "batch_size": [HUNGRY_BATCH],
            "learning_rate": [0.001],
        },
        "pruning": "none",
    }
    spec = spec_of(base, space).model_copy(update={"name": "failing"})
    outcome = run_study(spec, root, backend, Silent())
    assert outcome.end is End.FINISHED
    default, diverged, hungry, good = outcome.records
    assert default.result.status == good.result.status == "completed"
    assert diverged.result.status == "failed"
    assert diverged.result.error_type == "NotANumberError"
    assert diverged.result.error is not None
    assert diverged.result.error.startswith("the loss is nan at step ")
    assert "NotANumberError" in diverged.execution.log_tail
    assert hungry.result.status == "failed"
    assert hungry.result.error_type == "RuntimeError"
    assert hungry.result.error is not None
    assert "can't allocate memory" in hungry.result.error
