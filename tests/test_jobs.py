"""What a driver and its workers say to each other: who owns a training, wishes, new lines."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning import files
from tuning.config import FLAT_NAMES, build, with_parameters
from tuning.errors import ConfigError, ResultsError
from tuning.fingerprint import training_key
from tuning.grid import HPARAM_CANDIDATES
from tuning.jobs import Job, SupersededError, Tail, Wish, claim, write_wish
from tuning.paths import ResultsRoot, TrainingFolder


@pytest.fixture
def folder(tmp_path: Path) -> TrainingFolder:
    return ResultsRoot(tmp_path).training("a" * 20)


# --- who owns a training ------------------------------------------------------------------------


def test_every_claim_has_a_higher_number_and_owns_the_training(folder: TrainingFolder) -> None:
    assert [claim(folder) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert files.read_json(folder.control) == {"attempt": 5, "stop": False}


def test_a_claim_takes_back_a_wish_to_stop(folder: TrainingFolder) -> None:
    write_wish(folder, claim(folder), stop=True)
    attempt = claim(folder)
    assert attempt == 2
    assert not Wish(folder, attempt).is_to_stop()


def test_a_claim_is_made_whatever_is_left_of_the_last_one(folder: TrainingFolder) -> None:
    claim(folder)
    whole = folder.control.read_bytes()
    for length in range(len(whole) + 1):
        folder.control.write_bytes(whole[:length])
        attempt = claim(folder)
        # All that the file says is there but for its last byte, the end of the line.
        assert attempt == (2 if length >= len(whole) - 1 else 1), length
        Wish(folder, attempt).check()


@pytest.mark.parametrize(
    "content", ["null", "[]", "3", '{"attempt": null}', '{"attempt": "x"}', '{"stop": 1}']
)
def test_a_claim_is_made_where_something_else_was_written(
    folder: TrainingFolder, content: str
) -> None:
    files.make_folder(folder.root)
    folder.control.write_text(content)
    attempt = claim(folder)
    assert files.read_json(folder.control) == {"attempt": attempt, "stop": False}


# --- wishes -------------------------------------------------------------------------------------


def test_nobody_wishes_anything_of_a_training_without_a_driver(folder: TrainingFolder) -> None:
    assert not Wish(folder, 1).is_to_stop()


def test_the_owner_is_asked_to_stop_and_goes_on_being_asked(folder: TrainingFolder) -> None:
    attempt = claim(folder)
    wish = Wish(folder, attempt)
    assert not wish.is_to_stop()
    write_wish(folder, attempt, stop=True)
    wish.check()
    assert wish.is_to_stop()
    assert wish.is_to_stop()


def test_who_was_superseded_is_told_so(folder: TrainingFolder) -> None:
    old = Wish(folder, claim(folder))
    old.check()
    new = Wish(folder, claim(folder))
    with pytest.raises(SupersededError, match="attempt 2 took over from 1"):
        old.check()
    assert not new.is_to_stop()


def test_a_torn_wish_changes_nothing_for_the_owner(folder: TrainingFolder) -> None:
    attempt = claim(folder)
    write_wish(folder, attempt, stop=True)
    whole = folder.control.read_bytes()
    for length in range(len(whole)):
        folder.control.write_bytes(whole[:length])
        Wish(folder, attempt).check()


def test_looking_at_every_step_reads_a_file_ten_times_a_second(
    folder: TrainingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = claim(folder)
    looks: list[Path] = []
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    real = files.read_json
    monkeypatch.setattr(files, "read_json", lambda path: looks.append(path) or real(path))
    wish = Wish(folder, attempt)
    write_wish(folder, attempt, stop=True)
    for _ in range(1000):
        assert wish.is_to_stop()
        now[0] += 0.001
    assert 8 <= len(looks) <= 11


def test_a_wish_is_known_within_a_fifth_of_a_second(folder: TrainingFolder) -> None:
    attempt = claim(folder)
    wish = Wish(folder, attempt)
    assert not wish.is_to_stop()
    write_wish(folder, attempt, stop=True)
    asked = time.monotonic()
    while not wish.is_to_stop():
        assert time.monotonic() - asked < 0.2
        time.sleep(0.005)


# --- new lines ----------------------------------------------------------------------------------


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def test_only_new_whole_lines_are_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path, lambda line: None)
    assert tail.lines() == []
    append(path, '{"step": 1}\n{"step": 2}\n{"st')
    assert tail.lines() == [{"step": 1}, {"step": 2}]
    assert tail.lines() == []
    append(path, 'ep": 3}')
    assert tail.lines() == []
    append(path, '\n{"step": 4}\n')
    assert tail.lines() == [{"step": 3}, {"step": 4}]
    assert tail.lines() == []
    assert not tail.is_rewritten()


@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2), max_size=6
    ),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_lines_come_once_and_in_order_however_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], cuts: list[int]
) -> None:
    path = tmp_path_factory.mktemp("tail") / "lines.jsonl"
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    tail, told = Tail(path, lambda line: None), []
    for begin, end in zip(places[:-1], places[1:], strict=True):
        with path.open("ab") as file:
            file.write(content[begin:end])
        told += tail.lines()
        assert not tail.is_rewritten()
    assert told == rows


def test_a_torn_line_that_is_cut_by_the_next_writer_is_never_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path, lambda line: None)
    append(path, '{"step": 1}\n{"step": 2, "to')
    assert tail.lines() == [{"step": 1}]
    files.append_json_line(path, {"step": 9})
    assert not tail.is_rewritten()
    assert tail.lines() == [{"step": 9}]


def test_a_rewritten_file_is_noticed_and_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path, lambda line: None)
    files.write_json_lines(path, [{"step": 1}, {"step": 2}])
    tail.lines()
    # As long as before, and longer: only the file is another one.
    for rows in ([{"step": 1}, {"step": 3}], [{"step": 1}, {"step": 3}, {"step": 4}]):
        files.write_json_lines(path, rows)
        assert tail.is_rewritten()
        tail.restart()
        assert not tail.is_rewritten()
        assert tail.lines() == rows
        assert not tail.is_rewritten()


@pytest.mark.parametrize("length", [0, 3, 12, 15])
def test_a_shortened_file_is_noticed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "lines.jsonl"
    append(path, '{"step": 1}\n{"step": 2}\n')
    tail = Tail(path, lambda line: None)
    assert len(tail.lines()) == 2
    os.truncate(path, length)
    assert tail.is_rewritten()
    tail.restart()
    assert tail.lines() == ([{"step": 1}] if length >= 12 else [])


def test_a_removed_file_is_noticed_and_one_that_never_was_is_not(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path, lambda line: None)
    assert not tail.is_rewritten()
    append(path, '{"step": 1}\n')
    assert not tail.is_rewritten()
    tail.lines()
    path.unlink()
    assert tail.is_rewritten()
    tail.restart()
    assert not tail.is_rewritten()
    assert tail.lines() == []


@pytest.mark.parametrize("damage", ["{", "", "[1]", "3", '{"a": 1}{"b": 2}', '{"loss": NaN}'])
def test_a_damaged_line_is_said_again_until_it_is_mended(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "lines.jsonl"
    tail = Tail(path, lambda line: None)
    append(path, '{"step": 1}\n')
    assert tail.lines() == [{"step": 1}]
    append(path, f'{{"step": 2}}\n{damage}\n{{"step": 3}}\n')
    # Whoever goes on after the first complaint must not have lost the good lines beside it.
    for _ in range(2):
        with pytest.raises(ResultsError, match=rf"{path}.* is damaged"):
            tail.lines()


def test_what_is_no_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=f"cannot read {tmp_path}: Is a directory"):
        Tail(tmp_path, lambda line: None).lines()


# --- jobs ---------------------------------------------------------------------------------------

BASE = build({"experiment_name": "job", "timestamp": "20260101_000000"}, "test")
flat_parameters = st.dictionaries(
    st.sampled_from(sorted(set(HPARAM_CANDIDATES) & set(FLAT_NAMES))), st.integers(0, 3)
)


@st.composite
def some_jobs(draw: st.DrawFn) -> Job:
    chosen = draw(flat_parameters)
    parameters: dict[str, Any] = {
        name: HPARAM_CANDIDATES[name][place % len(HPARAM_CANDIDATES[name])]
        for name, place in chosen.items()
    }
    config = BASE
    for name, value in parameters.items():
        try:
            config = with_parameters(config, {name: value})
        except ConfigError:
            continue
    raw = config.model_dump(mode="json")
    raw["training_config"]["learning_rate"] = draw(st.floats(1e-300, 1, exclude_min=False))
    raw["training_config"]["seed"] = draw(st.integers(0, 2**31))
    rate = st.floats(0, 1)
    return Job(
        study=draw(st.sampled_from(["study", "s-1.x"])),
        trial_id="0001-0123abcd",
        config=build(raw, "test"),
        parameters=json.loads(json.dumps(parameters)),
        seed=raw["training_config"]["seed"],
        weights=draw(st.none() | st.tuples(rate, rate)),
        budgets=tuple(draw(st.lists(st.integers(1, 10**7), max_size=3))),
        until=draw(st.none() | st.integers(1, 10**7)),
        attempt=draw(st.integers(0, 2**40)),
    )


@given(job=some_jobs())
@settings(max_examples=60, deadline=None)
def test_a_job_arrives_as_it_was_sent(job: Job) -> None:
    line = job.model_dump_json()
    assert "\n" not in line, "a job is one line"
    arrived = Job.model_validate_json(line)
    assert arrived == job
    assert arrived.model_dump_json() == line
    assert arrived.training_key == training_key(job.config)


def test_a_job_of_words_in_any_script_arrives_as_it_was_sent() -> None:
    parameters = {
        "spelling_config.word_list": 'größe 你好\n\u2028\u0085 "x".txt',
        "target_modules": ["q"],
    }
    job = Job(study="s", trial_id="t", config=BASE, parameters=parameters)
    line = job.model_dump_json().encode()
    assert b"\n" not in line
    assert Job.model_validate_json(line) == job
