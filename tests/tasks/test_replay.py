"""Laws of `tuning.tasks.replay`: true answers, and nothing about letters."""

from __future__ import annotations

import hashlib
import json
import random
import re
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import DataError, LeakError, NotFoundError, UserError
from tuning.tasks import replay
from tuning.tasks.items import Item, Task
from tuning.tasks.leak_scan import Leak
from tuning.tasks.replay import ReplayFile, ShippedReplay, leaks_in
from tuning.tasks.stream import TrainingStream, read_training_text

WORDS = ("planet", "orchard", "kettle", "moon")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December".split()
)


@pytest.fixture(scope="module")
def draws() -> list[Item]:
    rng = random.Random(0)
    return [replay.replay_item(WORDS, rng) for _ in range(4000)]


def derived_answer(question: str) -> str:
    """Answer as a person would who reads the question and nothing else."""
    if found := re.fullmatch(r"Repeat this: (.+)\.\n", question):
        return found[1]
    if found := re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?\n", question):
        a, b = int(found[1]), int(found[3])
        return str(a + b if found[2] == "+" else a - b)
    found = re.fullmatch(r"Which (day|month) comes (after|before) (\w+)\?\n", question)
    assert found, question
    names = DAYS if found[1] == "day" else MONTHS
    step = 1 if found[2] == "after" else -1
    return names[(names.index(found[3]) + step) % len(names)]


def test_every_answer_is_what_its_question_asks_for(draws: list[Item]) -> None:
    for item in draws:
        assert item.task is Task.REPLAY
        assert item.answer == derived_answer(item.question)


def test_every_kind_comes_as_often(draws: list[Item]) -> None:
    kinds = Counter(item.template.split("_")[0] for item in draws)
    assert set(kinds) == {"repeat", "add", "subtract", "day", "month"}
    kinds["sum"] = kinds.pop("add") + kinds.pop("subtract")
    assert all(900 < n < 1100 for n in kinds.values())


def test_all_days_and_months_are_asked_in_both_directions(draws: list[Item]) -> None:
    asked = {item.question for item in draws if item.template.startswith(("day", "month"))}
    assert len(asked) == 2 * (7 + 12)


def test_phrases_hold_three_of_the_given_words_and_name_one(draws: list[Item]) -> None:
    phrases = [item for item in draws if item.template == "repeat"]
    assert all(len(item.answer.split()) == 3 for item in phrases)
    assert {word for item in phrases for word in item.answer.split()} == set(WORDS)
    assert all(item.word in item.answer.split() for item in phrases)


def test_nothing_speaks_of_letters(draws: list[Item]) -> None:
    about = re.compile(r"(?i)letter|spell|position|count|how many|\b[a-z]\b|\b[a-z] [a-z] [a-z]\b")
    for item in draws:
        assert not about.search(item.question), item.question
        assert not about.search(item.answer), item.answer


def test_no_result_of_arithmetic_is_negative(draws: list[Item]) -> None:
    assert all(0 <= int(i.answer) <= 98 for i in draws if i.template in ("add", "subtract"))


@given(phrase=st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
def test_a_phrase_is_repeated_as_it_is(phrase: list[str]) -> None:
    item = replay.repeat_item(phrase)
    assert item.answer == " ".join(phrase) == derived_answer(item.question)
    assert item.word == phrase[0]


def test_the_words_of_a_phrase_are_its_subjects(draws: list[Item]) -> None:
    for item in draws:
        expected = tuple(item.answer.split()) if item.template == "repeat" else ()
        assert item.subjects == expected


def test_shipped_replay_is_drawn_from_its_generator_alone() -> None:
    shipped = ShippedReplay(WORDS)
    drawn = [shipped.item(random.Random(i)) for i in range(50)]
    assert drawn == [replay.replay_item(WORDS, random.Random(i)) for i in range(50)]
    assert drawn == [ShippedReplay(WORDS).item(random.Random(i)) for i in range(50)]


def test_the_fixed_texts_are_the_wording_of_all_items_without_words(draws: list[Item]) -> None:
    texts = replay.fixed_texts()
    for item in draws:
        assert any(item.question.startswith(text) for text in texts), item.question


# --- a file of the user's own -----------------------------------------------------------------

GOOD = [
    {"prompt": "Translate good morning to French.", "answer": "bonjour"},
    {"prompt": "What is 3 + 4?", "answer": "7"},
    {"prompt": "Name a fruit.\n", "answer": " größer 你好 "},
]


def written(tmp_path: Path, *lines: Any, name: str = "replay.jsonl") -> Path:
    path = tmp_path / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def refused(path: Path, law: str, error: type[UserError] = DataError) -> str:
    with pytest.raises(error, match=law) as caught:
        ReplayFile(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    return message


def test_every_line_is_an_example_in_order(tmp_path: Path) -> None:
    found = ReplayFile(written(tmp_path, *GOOD))
    assert len(found) == 3
    assert [(i.question, i.answer) for i in found] == [
        ("Translate good morning to French.\n", "bonjour"),
        ("What is 3 + 4?\n", "7"),
        ("Name a fruit.\n", "größer 你好"),
    ]
    assert list(found) == [found[i] for i in range(3)]
    for item in found:
        assert item.task is Task.REPLAY
        assert item.template == "own"
        assert (item.word, item.subjects, item.targets, item.shots) == ("", (), (), ())


def test_blank_lines_other_line_ends_and_an_unfinished_last_line_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "replay.jsonl"
    lines = [json.dumps(row).encode() for row in GOOD]
    path.write_bytes(b"\n\r\n" + lines[0] + b"\r\n  \n" + lines[1] + b"\n\n" + lines[2])
    assert [i.answer for i in ReplayFile(path)] == ["bonjour", "7", "größer 你好"]


def test_a_drawn_example_is_one_of_the_file_all_of_them_alike(tmp_path: Path) -> None:
    found = ReplayFile(written(tmp_path, *GOOD))
    rng = random.Random(0)
    drawn = Counter(found.item(rng).answer for _ in range(3000))
    assert set(drawn) == {"bonjour", "7", "größer 你好"}
    assert min(drawn.values()) > 900
    assert [found.item(random.Random(i)) for i in range(20)] == [
        found.item(random.Random(i)) for i in range(20)
    ]


# Without letters or digits of ours, which could happen to be a leak.
STRANGE = st.text("äß你好\u2028\n\t €'\"{}[]\\\U0001f600", max_size=20)


@given(
    rows=st.lists(st.tuples(STRANGE, STRANGE), min_size=1, max_size=12),
    blanks=st.lists(st.integers(0, 12), max_size=4),
)
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_read_wherever_it_stands(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], blanks: list[int]
) -> None:
    lines = [
        json.dumps({"prompt": f"Say {q}.", "answer": f"yes{a}yes"}, ensure_ascii=False)
        for q, a in rows
    ]
    for place in blanks:
        lines.insert(place, "")
    path = tmp_path_factory.mktemp("replay") / "replay.jsonl"
    path.write_bytes("\n".join(lines).encode())
    found = [(i.question, i.answer) for i in ReplayFile(path)]
    assert found == [(f"Say {q}.\n", f"yes{a}yes") for q, a in rows]


def test_the_hash_is_that_of_the_content(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    assert ReplayFile(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    other = written(tmp_path, *GOOD, "", name="other.jsonl")
    assert ReplayFile(other).sha256 != ReplayFile(path).sha256


def test_a_stream_reads_the_users_replay(tmp_path: Path) -> None:
    own = ReplayFile(written(tmp_path, *GOOD))
    stream = TrainingStream(("planet", "orchard"), own, 0.5, augmentation=True, seed=0)
    items = [item for item in stream.step(0, 400) if item.task is Task.REPLAY]
    assert 150 < len(items) < 250
    assert {item.answer for item in items} == {"bonjour", "7", "größer 你好"}
    assert read_training_text(stream, 400).num_replay == len(items)


@pytest.mark.parametrize(
    ("line", "law"),
    [
        ({"prompt": "Hello?"}, "answer must be a text that is not empty, got None"),
        ({"answer": "Hello"}, "prompt must be a text that is not empty, got None"),
        ({"prompt": "Hello?", "answer": ""}, "answer must be a text that is not empty"),
        ({"prompt": " \n", "answer": "Hello"}, "prompt must be a text that is not empty"),
        ({"prompt": "Hello?", "answer": 7}, "answer must be a text that is not empty, got 7"),
        ({"prompt": ["Hello?"], "answer": "Hi"}, "prompt must be a text"),
        ({"prompt": "Hello?", "answer": "Hi", "task": "x"}, "task: no such field; known: prompt"),
        ({"prompt": "x" * 1001, "answer": "Hi"}, "prompt must have at most 1,000 .*got 1,001"),
        ({"prompt": "Hello?", "answer": "y " * 600}, "answer must have at most 1,000 .*got 1,200"),
        ("[]", "must be an object, got list"),
        ("3", "must be an object, got int"),
        ("{", "not JSON"),
        ("Hello", "not JSON"),
        ("[" * 10_000, "not JSON"),
        ("x" * 20_000, "a line must have at most 16,384 bytes"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_malformed_line_is_one_line_that_names_file_and_line(
    tmp_path: Path, line: Any, law: str, number: int
) -> None:
    lines: list[Any] = [*GOOD]
    lines.insert(number - 1, line)
    refused(written(tmp_path, *lines), rf"line {number}: .*{law}")


@pytest.mark.parametrize("value", ["Hi\nthere", "x" * 1000, "\u2028"])
def test_a_value_of_any_length_or_form_up_to_the_limit_is_read(tmp_path: Path, value: str) -> None:
    row = {"prompt": f"0{value}"[:1000], "answer": f"0{value}"[:1000]}
    assert ReplayFile(written(tmp_path, row))[0].answer == f"0{value}"[:1000].strip()


@pytest.mark.parametrize("text", ["x" * 900, "a\nb", "\x1b[31m", "\u2028"])
@pytest.mark.parametrize("key", ["prompt", "answer", "other"])
def test_a_message_is_one_short_line_whatever_stands_in_the_file(
    tmp_path: Path, key: str, text: str
) -> None:
    row = {"prompt": "Hello?", "answer": "Hi", key: [text]}
    message = refused(written(tmp_path, row), "line 1: ")
    assert len(message) < len(str(tmp_path)) + 500


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"", "a replay file needs at least one line, got none"),
        (b"\n \n\n", "a replay file needs at least one line, got none"),
        (b"\x00\x01", "line 1: is binary, not text"),
        (b"\xff\xfe\xe9", "line 1: (is not UTF-8|not JSON)"),
        (b'{"prompt": "\xe9", "answer": "x"}', "line 1: (is not UTF-8|not JSON)"),
        (b"x" * 5_000_000, "line 1: a line must have at most 16,384 bytes"),
    ],
)
def test_what_is_no_replay_file_is_one_clear_line(tmp_path: Path, content: bytes, law: str) -> None:
    path = tmp_path / "replay.jsonl"
    path.write_bytes(content)
    refused(path, law)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, *GOOD)
    refused(tmp_path / "replays.jsonl", "no such file; did you mean replay.jsonl", NotFoundError)
    refused(tmp_path, "is no file")


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("What is the third letter of planet?", "a"),
        ("How many letters are in planet?", "6"),
        ("Does planet contain the letter e?", "yes"),
        ("Spell sky.", "1: s 2: k 3: y"),
        ("Name something.", "The word planet has six letters."),
    ],
)
def test_a_line_that_teaches_letters_is_refused_with_file_and_line(
    tmp_path: Path, prompt: str, answer: str
) -> None:
    path = written(tmp_path, *GOOD, "", {"prompt": prompt, "answer": answer})
    refused(path, "line 5: a training text must not teach the transfer tasks", LeakError)


def test_every_line_of_a_text_is_scanned_with_its_number(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        GOOD[0],
        "",
        {"prompt": "What is the third letter of planet?", "answer": "a"},
        GOOD[1],
        {"prompt": "Spell sky.", "answer": "1: s 2: k 3: y"},
    )
    found = [(number, finding and finding.leak) for number, finding in leaks_in(path)]
    assert found == [(1, None), (3, Leak.POSITION), (4, None), (5, Leak.NUMBERED)]


def test_a_text_to_scan_must_be_well_formed_too(tmp_path: Path) -> None:
    lines = leaks_in(written(tmp_path, GOOD[0], {"prompt": "Hello?"}))
    assert next(lines) == (1, None)
    with pytest.raises(DataError, match=r"replay\.jsonl, line 2: answer must be a text"):
        next(lines)
    with pytest.raises(NotFoundError, match="no such file"):
        list(leaks_in(tmp_path / "missing.jsonl"))


def test_of_an_exported_text_the_bare_question_is_scanned(tmp_path: Path) -> None:
    harmless, leaking = "Say hello.", "What is the third letter of planet?"
    path = written(
        tmp_path,
        {"prompt": leaking, "question": harmless, "answer": "hello", "task": "replay"},
        {"prompt": harmless, "question": leaking, "answer": "a"},
    )
    found = [finding and finding.leak for _, finding in leaks_in(path)]
    assert found == [None, Leak.POSITION]


def test_a_broken_line_of_a_text_to_scan_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"replay\.jsonl, line 1: not JSON"):
        list(leaks_in(written(tmp_path, "{")))


def test_a_file_that_is_gone_is_one_clear_line(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    found = ReplayFile(path)
    path.unlink()
    with pytest.raises(DataError, match=r"replay\.jsonl: cannot be read any more: No such file"):
        found[0]


def test_a_file_that_changed_after_it_was_checked_is_one_clear_line(tmp_path: Path) -> None:
    path = written(tmp_path, "", *GOOD)
    found = ReplayFile(path)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(DataError, match="example 2: not JSON") as caught:
        found[1]
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("num_rows", "num_bytes"),
    [(5_000, 8_750_000), pytest.param(20_000, 35_000_000, marks=pytest.mark.nightly)],
)
def test_a_large_file_is_not_kept_in_memory(tmp_path: Path, num_rows: int, num_bytes: int) -> None:
    path = tmp_path / "replay.jsonl"
    row = json.dumps({"prompt": "Say " + "blah " * 190, "answer": "blah " * 190}) + "\n"
    with path.open("w") as file:
        file.writelines([row] * num_rows)
    tracemalloc.start()
    found = ReplayFile(path)
    item = found[num_rows - 1]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found) == num_rows
    assert item.answer.startswith("blah blah")
    assert path.stat().st_size > num_bytes
    assert peak < 3_000_000


@pytest.mark.nightly
def test_a_gigabyte_without_line_breaks_costs_neither_memory_nor_time(tmp_path: Path) -> None:
    path = tmp_path / "replay.jsonl"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)
    code = """
import resource, sys, time
from pathlib import Path
from tuning.errors import UserError
from tuning.tasks.replay import ReplayFile
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clock = time.monotonic()
try:
    ReplayFile(Path(sys.argv[1]))
except UserError as error:
    print(error)
print(time.monotonic() - clock)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    answer = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    message, seconds, kibibytes = answer.stdout.splitlines()
    assert message.startswith(f"{path}, line 1: ")
    assert float(seconds) < 5
    assert int(kibibytes) < 50_000
