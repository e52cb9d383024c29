"""Every setting of the data trains without special cases, and the record says all of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tuning import files
from tuning.errors import DataError, LeakError, NotFoundError
from tuning.evaluation.bench import load_bench
from tuning.fingerprint import training_key
from tuning.model.base import subject_words
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord, TrialStatus, read_record
from tuning.tasks.splits import Split, split_subjects
from tuning.trial import TrialRequest, run_trial

pytestmark = pytest.mark.slow

CHEAP = (
    "max_steps=2",
    "batch_size=4",
    "grad_accum_steps=1",
    "evaluation_config.num_words=30",
    "evaluation_config.num_monitor_words=3",
    "evaluation_config.num_generated_items=9",
)
"""All trials below share one warm bench."""

VALUES = [
    ("easy", "medium", "hard"),
    (True, False),
    (0.5, 0.7, 0.9),
    ("spelling", "format_control", "direct"),
]
"""Band, augmentation, ratio, arm."""

# Every value occurs.
FEW_COMBINATIONS = [
    ("easy", True, 0.5, "spelling"),
    ("easy", False, 0.7, "format_control"),
    ("medium", True, 0.7, "direct"),
    ("hard", False, 0.9, "direct"),
]
# With these every pair of values does: band x augmentation, band x ratio, band x arm,
# augmentation x ratio, augmentation x arm, ratio x arm.
MORE_COMBINATIONS = [
    ("easy", True, 0.9, "direct"),
    ("easy", False, 0.5, "direct"),
    ("medium", False, 0.9, "spelling"),
    ("medium", True, 0.5, "format_control"),
    ("medium", False, 0.7, "spelling"),
    ("hard", True, 0.9, "format_control"),
    ("hard", False, 0.5, "spelling"),
    ("hard", True, 0.7, "spelling"),
    ("hard", False, 0.5, "format_control"),
    ("hard", True, 0.7, "direct"),
]


def test_the_combinations_cover_every_value_and_every_pair_of_values() -> None:
    for i in range(4):
        assert {row[i] for row in FEW_COMBINATIONS} == set(VALUES[i])
        for j in range(i):
            pairs = {(row[i], row[j]) for row in (*FEW_COMBINATIONS, *MORE_COMBINATIONS)}
            assert pairs == {(a, b) for a in VALUES[i] for b in VALUES[j]}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ResultsRoot:
    """Return one root for all trials: the untouched model is asked once."""
    return ResultsRoot(tmp_path_factory.mktemp("every"))


def run(config: Any, root: ResultsRoot, name: str) -> TrialRecord:
    request = TrialRequest(config=config, folder=root.study("s").trial(name), trial_id=name)
    record = run_trial(request, root)
    stored = read_record(request.folder.record)
    assert json.dumps(dataclasses.asdict(stored)) == json.dumps(dataclasses.asdict(record))
    return record


@pytest.mark.parametrize(
    ("band", "augmentation", "ratio", "arm"),
    [
        *FEW_COMBINATIONS,
        *(pytest.param(*row, marks=pytest.mark.nightly) for row in MORE_COMBINATIONS),
    ],
)
def test_a_setting_trains_and_is_evaluated_like_any_other(
    small_config: Any, results: ResultsRoot, band: str, augmentation: bool, ratio: float, arm: str
) -> None:
    config = small_config(
        *CHEAP,
        f"spelling_difficulty={band}",
        f"spelling_augmentation={str(augmentation).lower()}",
        f"spelling_data_ratio={ratio}",
        f"arm={arm}",
        "warmup_steps=0",
    )
    name = f"{band}-{augmentation}-{ratio}-{arm}".replace(".", "_")
    result = run(config, results, name).result
    assert result.status is TrialStatus.COMPLETED
    assert result.step == 2
    assert result.num_decoded == 18
    assert result.num_disagreements == 0
    assert set(result.retention) == {"replay", "text"}
    assert (result.retention["replay"].kl_divergence or 0) > 0
    assert result.retention["text"].reason
    assert result.left_out_words == {}
    assert result.base_arms == {}
    assert {task: r.base.num_words for task, r in result.tasks.items()}.keys() == {
        *("spelling", "position", "count")
    }
    # The evaluation is the same for all, whatever is trained on.
    (base,) = {p.name for p in results.trainings.glob("base_*/evaluations/*")}
    assert result.base_evaluation_key == base
    progress = files.read_json_lines(results.training(result.training_key).progress)
    assert [line["step"] for line in progress if line["kind"] == "train"] == [2]


def test_the_untouched_model_is_also_asked_with_examples_and_with_the_spelling(
    small_config: Any, tmp_path: Path
) -> None:
    more = ("evaluation_config.four_shot=true", "evaluation_config.oracle=true", "warmup_steps=0")
    config = small_config(*CHEAP, *more)
    # A root of its own: trials of the other tests share one that holds one evaluation of the base.
    result = run(config, ResultsRoot(tmp_path), "arms").result
    assert set(result.base_arms) == {"four_shot", "oracle"}
    for accuracies in result.base_arms.values():
        assert set(accuracies) == {"spelling", "position", "count"}
        for task, accuracy in accuracies.items():
            base = result.tasks[task].base
            assert 0 <= accuracy.low <= accuracy.value <= accuracy.high <= 1
            assert (accuracy.num_items, accuracy.num_words) == (base.num_items, base.num_words)
    assert result.base_arms["four_shot"] != result.base_arms["oracle"]
    # What is asked of the untouched model changes nothing of what is trained.
    assert training_key(config) == training_key(small_config(*CHEAP, "warmup_steps=0"))


# --- files of the user's own --------------------------------------------------------------------


def own_files(tmp_path: Path, replay: list[dict[str, str]]) -> tuple[Path, Path]:
    words = split_subjects(subject_words("tiny"))
    own = [*words[Split.TRAIN].real[:60], *words[Split.VALIDATION].real[:5], "strawberry"]
    (tmp_path / "words.txt").write_text("# mine\n" + "\n".join([*own, "philosophy"]) + "\n")
    (tmp_path / "replay.jsonl").write_text("".join(json.dumps(row) + "\n" for row in replay))
    return tmp_path / "words.txt", tmp_path / "replay.jsonl"


CLEAN = [
    {"prompt": "What is 3 + 4?", "answer": "7"},
    {"prompt": "Which day comes after Monday?", "answer": "Tuesday"},
]
LEAKING = [*CLEAN, {"prompt": "What is letter number 2 of parrot?", "answer": "a"}]


def own_config(small_config: Any, words: Path, replay: Path) -> Any:
    return small_config(
        *CHEAP,
        f"spelling_config.word_list={words}",
        f"spelling_config.replay_file={replay}",
        "spelling_data_ratio=0.5",
        "warmup_steps=0",
    )


def test_a_run_on_words_and_replay_of_ones_own(
    small_config: Any, results: ResultsRoot, tmp_path: Path
) -> None:
    words, replay = own_files(tmp_path, CLEAN)
    config = own_config(small_config, words, replay)
    result = run(config, results, "own").result
    left_out = result.left_out_words
    assert left_out["benchmark words"] == 1
    assert left_out["of the validation and test splits"] >= 5
    assert sum(left_out.values()) >= 7
    assert result.num_disagreements == 0
    shared = training_key(small_config(*CHEAP, "spelling_data_ratio=0.5", "warmup_steps=0"))
    assert result.training_key != shared
    # The files count by what they hold, not by where they lie.
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in (words, replay):
        (moved / path.name).write_bytes(path.read_bytes())
    again = own_config(small_config, moved / words.name, moved / replay.name)
    assert training_key(again) == result.training_key
    (moved / replay.name).write_text('{"prompt": "What is 1 + 1?", "answer": "2"}\n')
    assert training_key(again) != result.training_key


def test_a_replay_file_that_leaks_stops_the_run_before_anything_is_trained(
    small_config: Any, tmp_path: Path
) -> None:
    words, replay = own_files(tmp_path, LEAKING)
    config = own_config(small_config, words, replay)
    load_bench(config)
    root = ResultsRoot(tmp_path / "results")
    request = TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t")
    with pytest.raises(LeakError, match=r"replay\.jsonl, line 3"):
        run_trial(request, root)
    assert not root.trainings.exists()
    assert not request.folder.record.exists()


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("words.txt", None, NotFoundError, "words.txt"),
        ("words.txt", "Not A Word\n", DataError, "line 1"),
        ("words.txt", "strawberry\n", DataError, "no word is left"),
        ("replay.jsonl", None, NotFoundError, "replay.jsonl"),
        ("replay.jsonl", "{}\n", DataError, "prompt"),
        ("replay.jsonl", "", DataError, "at least one line"),
    ],
)
def test_a_bad_file_of_ones_own_leaves_nothing_half_written(
    small_config: Any,
    tmp_path: Path,
    name: str,
    content: str | None,
    error: type[Exception],
    words: str,
) -> None:
    paths = own_files(tmp_path, CLEAN)
    path = tmp_path / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    config = own_config(small_config, *paths)
    root = ResultsRoot(tmp_path / "results")
    request = TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t")
    with pytest.raises(error, match=words):
        run_trial(request, root)
    assert not root.trainings.exists()
    assert not request.folder.record.exists()
