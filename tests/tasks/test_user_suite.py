"""Laws of `tuning.tasks.user_suite`: what a user asks is asked, and what is malformed is said so."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.errors import DataError, NotFoundError, SuiteError, UserError
from tuning.model.base import tokenizer_of
from tuning.tasks import count, position, spelling
from tuning.tasks.baselines import baseline, fit_letter_guesser
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Item, Task
from tuning.tasks.suite import Suite
from tuning.tasks.user_suite import read_suite

cut = tokenizer_of("tiny").cut

SPELL = {"task": "spelling", "word": "planet", "answer": "p l a n e t"}
POSITION = {"task": "position", "word": "planet", "position": 3, "answer": "a"}
COUNT = {"task": "count", "word": "banana", "letter": "a", "answer": 3}
OWN = {"task": "rhyme", "prompt": "What rhymes with cat?", "answer": "hat"}


def jsonl(tmp_path: Path, *lines: Any, name: str = "suite.jsonl") -> Path:
    path = tmp_path / name
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def twice(row: dict[str, Any], **other: Any) -> list[dict[str, Any]]:
    """A row, and one like it on another word, as an interval needs."""
    return [row, {**row, **other}]


def read(path: Path) -> Suite:
    return read_suite(path, cut)


def refused(path: Path, law: str, error: type[UserError] = UserError) -> str:
    """Read what must be refused in one line that begins with the file."""
    with pytest.raises(error, match=law) as caught:
        read(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    assert message.startswith(str(path)), message
    assert len(message) < len(str(path)) + 400
    return message


# --- JSONL ------------------------------------------------------------------------------------


def test_our_tasks_are_asked_in_our_words(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        *twice(SPELL, word="window", answer="w i n d o w"),
        *twice(POSITION, word="window", answer="n"),
        *twice(COUNT, word="planet", answer=1),
    )
    items = read(path).items
    template = position.TEMPLATES[0]
    assert items == (
        spelling.plain_item("planet"),
        spelling.plain_item("window"),
        position.position_item("planet", 3, template),
        position.position_item("window", 3, template),
        count.count_item("banana", "a", count.TEMPLATES[0]),
        count.count_item("planet", "a", count.TEMPLATES[0]),
    )
    assert all(isinstance(item.task, Task) for item in items)


def test_the_first_and_the_last_letter_may_be_asked_for(tmp_path: Path) -> None:
    rows = [
        {"task": "position", "word": "planet", "position": 1, "answer": "p"},
        {"task": "position", "word": "sky", "position": 3, "answer": "y"},
    ]
    assert [(item.n, item.answer) for item in read(jsonl(tmp_path, *rows)).items] == [
        (1, "p"),
        (3, "y"),
    ]


def test_a_cute_item_is_about_its_word_and_has_a_letter_only_where_one_is_looked_for(
    tmp_path: Path,
) -> None:
    looked_for = read(tsv(tmp_path, "contains_char", CUTE["contains_char"])).items
    assert [(i.subjects, i.letter) for i in looked_for] == [(("planet",), "a"), (("sky",), "z")]
    spelled = read(tsv(tmp_path, "spell", CUTE["spell"])).items
    assert all(i.subjects == (i.word,) and i.letter is None for i in spelled)


def test_all_fields_reach_the_item(tmp_path: Path) -> None:
    row = {
        "task": "position",
        "word": "Planet",
        "position": 3,
        "letter": "a",
        "prompt": "Third of Planet?",
        "answer": "a",
        "targets": ["A", "a.", "a"],
    }
    first, _ = read(jsonl(tmp_path, *twice(row, word="Window"))).items
    assert first == Item(
        task=Task.POSITION,
        word="Planet",
        template="own",
        question="Third of Planet?\n",
        answer="a",
        n=3,
        letter="a",
        subjects=("Planet",),
        targets=("A", "a."),
    )


@pytest.mark.parametrize("answer", [3, "3", " 3 "])
def test_a_count_may_be_a_number_or_text(tmp_path: Path, answer: Any) -> None:
    rows = twice({**COUNT, "answer": answer}, word="planet", answer=1)
    assert [item.answer for item in read(jsonl(tmp_path, *rows)).items] == ["3", "1"]


@pytest.mark.parametrize(
    "answer", ["p l a n e t", "p, l, a, n, e, t", "planet", "p-l-a-n-e-t", "p\nl\na\nn\ne\nt"]
)
def test_a_spelling_may_be_given_with_any_separator_and_is_asked_with_spaces(
    tmp_path: Path, answer: str
) -> None:
    rows = twice({**SPELL, "answer": answer}, word="sky", answer="sky")
    assert [i.answer for i in read(jsonl(tmp_path, *rows)).items] == ["p l a n e t", "s k y"]


def test_an_answer_in_the_other_case_is_the_right_one(tmp_path: Path) -> None:
    rows = twice({**POSITION, "answer": "A"}, word="window", answer="N")
    assert [i.answer for i in read(jsonl(tmp_path, *rows)).items] == ["a", "n"]


def test_other_right_answers_are_kept_once_and_without_the_answer(tmp_path: Path) -> None:
    rows = twice({**COUNT, "targets": ["three", "3", " thrice "]}, word="planet", answer=1)
    assert read(jsonl(tmp_path, *rows)).items[0].targets == ("three", "thrice")


def test_a_task_of_ones_own_needs_no_word_and_is_a_cluster_of_its_own(tmp_path: Path) -> None:
    items = read(jsonl(tmp_path, *twice(OWN, prompt="What rhymes with dog?", answer="fog"))).items
    assert [item.task for item in items] == ["rhyme", "rhyme"]
    assert [item.question for item in items] == [
        "What rhymes with cat?\n",
        "What rhymes with dog?\n",
    ]
    assert len({item.word for item in items}) == 2
    assert all(item.subjects == () for item in items)


def test_a_prompt_that_ends_in_a_line_break_is_left_as_it_is(tmp_path: Path) -> None:
    rows = twice({**OWN, "prompt": "  One.\nTwo?\n"}, prompt="Another?")
    assert read(jsonl(tmp_path, *rows)).items[0].question == "  One.\nTwo?\n"


def test_missing_values_may_be_null(tmp_path: Path) -> None:
    rows = twice(
        {**SPELL, "letter": None, "position": None, "prompt": None, "targets": None},
        word="sky",
        answer="s k y",
    )
    assert read(jsonl(tmp_path, *rows)).items[0] == spelling.plain_item("planet")


def test_items_carry_the_facts_of_their_words(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        *twice(POSITION, word="extraordinary", answer="t"),
        *twice(SPELL, word="sky", answer="sky"),
    )
    suite = read(path)
    assert [f.num_tokens for f in suite.facts] == [
        len(p) for p in cut([i.word for i in suite.items])
    ]
    assert [f.band for f in suite.facts][1] is Band.HARD
    assert not any(f.is_pseudo_word for f in suite.facts)
    assert [f.letter_token_length is None for f in suite.facts] == [False, False, True, True]


def test_the_same_file_is_the_same_suite_and_the_same_line_may_come_twice(tmp_path: Path) -> None:
    rows = twice(SPELL, word="sky", answer="s k y")
    once = read(jsonl(tmp_path, *rows))
    assert read(jsonl(tmp_path, *rows, name="copy.jsonl")).key == once.key
    again = read(jsonl(tmp_path, *rows, rows[0], name="again.jsonl"))
    assert len(again.items) == 3
    assert again.key != once.key


def test_blank_lines_line_ends_and_an_unfinished_last_line_do_no_harm(tmp_path: Path) -> None:
    rows = twice(SPELL, word="sky", answer="s k y")
    path = tmp_path / "suite.jsonl"
    text = "\n\r\n" + json.dumps(rows[0]) + "\r\n   \n\n" + json.dumps(rows[1])
    path.write_bytes(text.encode())
    assert [item.word for item in read(path).items] == ["planet", "sky"]
    ndjson = tmp_path / "suite.ndjson"
    path.rename(ndjson)
    assert [item.word for item in read(ndjson).items] == ["planet", "sky"]


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    rows = twice(SPELL, word="sky", answer="s k y")
    path = jsonl(tmp_path, *rows)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [item.word for item in read(path).items] == ["planet", "sky"]


WORD = st.from_regex("[a-z]{3,15}", fullmatch=True)


@given(words=st.lists(WORD, min_size=2, max_size=8, unique=True), data=st.data())
@settings(max_examples=40, deadline=None)
def test_what_is_right_is_read_and_what_is_wrong_is_refused(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("suite")
    rows: list[dict[str, Any]] = []
    for word in words:
        n = data.draw(st.integers(1, len(word)))
        letter = data.draw(st.sampled_from("abcxyz"))
        rows += [
            {"task": "spelling", "word": word, "answer": " ".join(word)},
            {"task": "position", "word": word, "position": n, "answer": word[n - 1]},
            {"task": "count", "word": word, "letter": letter, "answer": word.count(letter)},
        ]
    items = read(jsonl(folder, *rows)).items
    assert [item.answer for item in items] == [str(row["answer"]) for row in rows]
    place = data.draw(st.integers(0, len(rows) - 1))
    rows[place] |= {"answer": "#"}
    refused(jsonl(folder, *rows), rf"line {place + 1}: answer: must be ", SuiteError)


# --- JSONL that is not what it must be --------------------------------------------------------


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != key}


@pytest.mark.parametrize(
    ("line", "law"),
    [
        (without(SPELL, "task"), "task is missing"),
        (without(SPELL, "word"), "word is missing"),
        (without(SPELL, "answer"), "answer is missing"),
        (without(POSITION, "position"), "position is missing"),
        (without(COUNT, "letter"), "letter is missing"),
        (without(OWN, "answer"), "answer is missing"),
        (without(OWN, "task"), "task is missing"),
        ({**SPELL, "task": 3}, "task: must be a text that is not empty, got 3"),
        ({**SPELL, "task": ""}, "task: must be a text"),
        ({**SPELL, "word": ["planet"]}, "word: must be a text"),
        ({**SPELL, "word": "  "}, "word: must be a text"),
        ({**SPELL, "answer": 1.5}, "answer: must be a text"),
        ({**SPELL, "answer": True}, "answer: must be a text"),
        ({**SPELL, "answer": ""}, "answer: must be a text"),
        ({**SPELL, "answer": {}}, "answer: must be a text"),
        ({**OWN, "prompt": 5}, "prompt: must be a text"),
        ({**OWN, "prompt": " "}, "prompt: must be a text"),
        ({**OWN, "word": ""}, "word: must be a text"),
        ({**OWN, "word": 5}, "word: must be a text"),
        ({**POSITION, "position": "3"}, "position: must be a whole number from 1 to 6"),
        ({**POSITION, "position": 3.0}, "position: must be a whole number"),
        ({**POSITION, "position": True}, "position: must be a whole number"),
        ({**POSITION, "position": 0}, "from 1 to 6 in 'planet', got 0"),
        ({**POSITION, "position": -1}, "from 1 to 6 in 'planet', got -1"),
        ({**POSITION, "position": 7}, "from 1 to 6 in 'planet', got 7"),
        ({**POSITION, "position": 10**30}, "from 1 to 6 in 'planet'"),
        ({**COUNT, "letter": "an"}, "letter: must be one letter, got 'an'"),
        ({**COUNT, "letter": ""}, "letter: must be one letter"),
        ({**COUNT, "letter": 5}, "letter: must be one letter"),
        ({**SPELL, "targets": "planet"}, "targets: must be a list of texts"),
        ({**SPELL, "targets": [1]}, "targets: must be a list of texts"),
        ({**SPELL, "targets": [""]}, "targets: must be a list of texts"),
        ({**SPELL, "anser": "x"}, "anser: no such field; did you mean answer"),
        ({**SPELL, "n": 3}, "n: no such field; known: answer, letter, position"),
        ({**SPELL, "answer": "p l a n t"}, "answer: must be 'p l a n e t' for this spelling item"),
        ({**POSITION, "answer": "n"}, "must be 'a' for this position item on 'planet', got 'n'"),
        ({**COUNT, "answer": 2}, "must be '3' for this count item on 'banana', got '2'"),
        ({**SPELL, "task": "spellin"}, "task 'spellin' is not one of ours, so it needs a prompt"),
        ({**SPELL, "task": "replay"}, "task 'replay' is not one of ours, so it needs a prompt"),
        ("[]", "must be an object, got list"),
        ("null", "must be an object, got NoneType"),
        ("5", "must be an object, got int"),
        ('"planet"', "must be an object, got str"),
        ("{", "not JSON"),
        ("task,word,answer", "not JSON"),
        ("{'task': 'spelling'}", "not JSON"),
        ('{"task": "spelling"} trailing', "not JSON"),
        ("[" * 10_000, "not JSON"),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_a_malformed_line_is_one_line_that_names_file_and_line(
    tmp_path: Path, line: Any, law: str, number: int
) -> None:
    good = twice(SPELL, word="sky", answer="s k y")
    lines = [*good, *good]
    lines[number - 1] = line
    refused(jsonl(tmp_path, *lines), rf"line {number}: .*{law}", SuiteError)


def test_blank_lines_count_as_lines(tmp_path: Path) -> None:
    refused(jsonl(tmp_path, SPELL, "", "", without(SPELL, "word")), "line 4: word is missing")


@pytest.mark.parametrize("key", ["word", "task", "prompt", "answer"])
@pytest.mark.parametrize("text", ["two\nlines", "a\rb", "x" * 5000, "\u2028", "\x1b[31mred"])
def test_a_message_is_one_short_line_whatever_stands_in_the_file(
    tmp_path: Path, key: str, text: str
) -> None:
    row = {"task": "spelling", "word": "planet", "answer": "wrong", key: text}
    with pytest.raises(UserError) as caught:
        read(jsonl(tmp_path, row))
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert "\x1b" not in message
    assert len(message) < len(str(tmp_path)) + 500


@pytest.mark.parametrize("content", ["", "\n", "\n\n  \n\t\n"])
@pytest.mark.parametrize("name", ["suite.jsonl", "suite.ndjson"])
def test_a_file_without_items_is_refused(tmp_path: Path, content: str, name: str) -> None:
    (tmp_path / name).write_text(content)
    refused(tmp_path / name, "a suite needs at least one item, got none", SuiteError)


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"\x00" * 100, "line 1: is binary, not text"),
        (b'{"task": "spelling"}\n\x00\x01\x02', "line 1: word is missing"),
        (json.dumps(SPELL).encode() + b"\nab\x00cd\n", "line 2: is binary, not text"),
        (b"\xff\xfe{\x00}\x00", "line 1: (is binary|is not UTF-8|not JSON)"),
        (
            json.dumps(SPELL).encode() + b'\n{"task": "\xff\xfe"}\n',
            "line 2: (is not UTF-8|not JSON)",
        ),
        (b"PK\x03\x04\xe9\xe8", "line 1: (is not UTF-8|not JSON)"),
        (b"\x89PNG\r\n\x1a\n", "line 1: (is not UTF-8|not JSON)"),
    ],
)
def test_a_binary_file_is_refused(tmp_path: Path, content: bytes, law: str) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_bytes(content)
    refused(path, law)


def test_a_line_that_is_too_long_is_refused_with_its_number(tmp_path: Path) -> None:
    path = jsonl(tmp_path, SPELL, {**OWN, "prompt": "x" * 5_000_000})
    refused(path, "line 2: a line must have at most 65,536 bytes", DataError)


def test_a_line_of_just_the_limit_is_read(tmp_path: Path) -> None:
    row = {**OWN, "targets": [""]}
    row["targets"] = ["x" * (65_535 - len(json.dumps(row)))]
    path = jsonl(tmp_path, row, {**OWN, "prompt": "Another?"})
    assert len(path.read_bytes().splitlines(keepends=True)[0]) == 65_536
    assert len(read(path).items) == 2
    row["targets"] = [row["targets"][0] + "x"]
    refused(jsonl(tmp_path, row, OWN), "line 1: a line must have at most 65,536 bytes")


def test_a_sparse_file_without_line_breaks_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    with path.open("wb") as file:
        file.truncate(50_000_000)
    refused(path, "line 1: ")


@pytest.mark.nightly
@pytest.mark.parametrize("start", [b"", b'{"task": "spelling", "word": "planet"'])
def test_a_file_of_a_gigabyte_costs_neither_memory_nor_time(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "suite.jsonl"
    with path.open("wb") as file:
        file.write(start)
        file.truncate(1_000_000_000)
    code = """
import resource, sys, time
from pathlib import Path
from tuning.errors import UserError
from tuning.tasks.user_suite import read_suite
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
clock = time.monotonic()
try:
    read_suite(Path(sys.argv[1]), lambda words: [[w] for w in words])
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


# --- files that are none ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["suite.json", "suite.txt", "suite.csv", "suite", "suite.JSONL.gz"]
)
def test_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    path = jsonl(tmp_path, *twice(SPELL, word="sky", answer="sky"), name=name)
    message = refused(path, r"a suite must be \.jsonl or \.tsv, got", SuiteError)
    assert message.endswith(path.suffix or "no ending")


@pytest.mark.parametrize("ending", ["jsonl", "tsv"])
def test_a_missing_file_names_its_neighbours(tmp_path: Path, ending: str) -> None:
    jsonl(tmp_path, SPELL, name=f"mysuite.{ending}")
    path = tmp_path / f"mysuit.{ending}"
    refused(path, rf"no such file; did you mean mysuite\.{ending}", NotFoundError)
    refused(tmp_path / "no" / f"such.{ending}", "no such file", NotFoundError)


@pytest.mark.parametrize("name", ["suite.jsonl", "spell.tsv"])
def test_a_folder_is_no_suite(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "is no file", DataError)


@pytest.mark.parametrize("name", ["x" * 300 + ".jsonl", "a\0b.jsonl"])
def test_a_name_that_no_file_can_have_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        read(tmp_path / name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_clear_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, SPELL)
    path.chmod(0)
    refused(path, "cannot be read: Permission denied", DataError)


def test_one_word_has_no_interval(tmp_path: Path) -> None:
    other = {**COUNT, "word": "planet", "answer": 1}
    path = jsonl(tmp_path, SPELL, {**SPELL, "answer": "planet"}, COUNT, other)
    refused(path, "needs items on at least 2 words a task, got 1 for spelling", SuiteError)
    refused(jsonl(tmp_path, OWN, OWN), "at least 2 words a task, got 1 for rhyme", SuiteError)


def test_words_in_other_cases_or_duplicate_looking_words_are_words_of_their_own(
    tmp_path: Path,
) -> None:
    row = {**OWN, "word": "cat"}
    looks = ["Cat", "cat.", "c\u0430t", "CAT"]
    suite = read(jsonl(tmp_path, row, *({**row, "word": word} for word in looks)))
    assert [item.word for item in suite.items] == ["cat", *looks]
    assert len(suite.facts) == 5


def test_a_spelling_in_capitals_is_spelled_as_it_is_written(tmp_path: Path) -> None:
    rows = twice(
        {**SPELL, "word": "Planet", "answer": "P l a n e t"}, word="NASA", answer="N A S A"
    )
    assert [item.answer for item in read(jsonl(tmp_path, *rows)).items] == [
        "P l a n e t",
        "N A S A",
    ]


# --- CUTE -------------------------------------------------------------------------------------

# Name of the task: inputs and label of two rows, as in arXiv 2409.15452, and what must be asked of.
CUTE: dict[str, tuple[list[str], list[str]]] = {
    "spell": (["planet", "p l a n e t"], ["sky", "s k y"]),
    "spell_inverse": (["p l a n e t", "planet"], ["s k y", "sky"]),
    "contains_char": (["a", "planet", "Yes"], ["z", "sky", "No"]),
    "contains_word": (["cat", "The cat sat.", "Yes"], ["dog", "A bird flew.", "No"]),
    "orth": (["planet", "plane", "world", "plane"], ["sky", "sty", "heaven", "sty"]),
    "sem": (["planet", "plane", "world", "world"], ["sky", "sty", "heaven", "heaven"]),
    "ins_char": (["x", "a", "planet", "plaxnet"], ["o", "k", "sky", "skoy"]),
    "ins_word": (["big", "the", "the cat", "the big cat"], ["x", "a", "a dog", "a x dog"]),
    "del_char": (["a", "planet", "plnet"], ["k", "sky", "sy"]),
    "del_word": (["cat", "the cat sat", "the sat"], ["dog", "a dog ran", "a ran"]),
    "sub_char": (["a", "o", "planet", "plonet"], ["k", "t", "sky", "sty"]),
    "sub_word": (["cat", "dog", "the cat", "the dog"], ["a", "b", "a dog", "b dog"]),
    "swap_char": (["p", "t", "planet", "tlanep"], ["s", "y", "sky", "yks"]),
    "swap_word": (["cat", "sat", "cat sat", "sat cat"], ["a", "b", "a b c", "b a c"]),
}


def tsv(tmp_path: Path, name: str, rows: Sequence[Sequence[str]], header: bool = True) -> Path:
    path = tmp_path / f"{name}.tsv"
    columns = [f"input{i}" for i in range(1, len(rows[0]))] + ["label"]
    lines = [columns, *rows] if header else list(rows)
    path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_all_tasks_of_cute_are_known() -> None:
    assert len(CUTE) == 14


@pytest.mark.parametrize("task", CUTE)
@pytest.mark.parametrize("ending", ["", "_rand"])
def test_every_layout_of_cute_is_read(tmp_path: Path, task: str, ending: str) -> None:
    rows = CUTE[task]
    suite = read(tsv(tmp_path, task + ending, rows))
    assert len(suite.items) == len(suite.facts) == 2
    for item, (*inputs, label) in zip(suite.items, rows, strict=True):
        assert item.answer == label
        assert item.task == ("spelling" if task == "spell" else task)
        assert item.template == f"cute/{task}{ending}"
        assert item.question.endswith("\n")
        assert item.question.count("\n") == 1
        place = -1
        for text in inputs:
            # Each input stands in the question, in the order of the columns.
            place = item.question.index(text, place + 1)
    words = {
        "spell": "planet",
        "spell_inverse": "planet",
        "orth": "planet",
        "sem": "planet",
        "contains_char": "planet",
        "ins_char": "planet",
        "swap_char": "planet",
        "contains_word": "The cat sat.",
    }
    if task in words:
        assert suite.items[0].word == words[task]
    assert suite.items[0].word != suite.items[1].word


@pytest.mark.parametrize(
    ("task", "question"),
    [
        ("spell", "Spell the word planet, letters separated by spaces.\n"),
        ("spell_inverse", "Which word do these letters make: p l a n e t?\n"),
        ("contains_char", "Is the letter a in the word planet? Answer Yes or No.\n"),
        (
            "swap_char",
            "Swap the letters p and t in planet. Answer with only the result.\n",
        ),
        (
            "ins_char",
            "Put the letter x after every a in planet. Answer with only the result.\n",
        ),
        (
            "orth",
            "Which word is spelled more like planet: plane or world? Answer with only the word.\n",
        ),
    ],
)
def test_questions_of_cute_by_hand(tmp_path: Path, task: str, question: str) -> None:
    assert read(tsv(tmp_path, task, CUTE[task])).items[0].question == question


def test_spelling_of_cute_is_our_spelling_task(tmp_path: Path) -> None:
    first = read(tsv(tmp_path, "spell_rand", CUTE["spell"])).items[0]
    assert first.task is Task.SPELLING
    assert first.question == spelling.plain_item("planet").question
    assert first.answer == spelling.plain_item("planet").answer


def test_a_letter_asked_for_is_kept(tmp_path: Path) -> None:
    items = read(tsv(tmp_path, "contains_char", CUTE["contains_char"])).items
    assert [item.letter for item in items] == ["a", "z"]
    assert baseline(items, fit_letter_guesser(["abc"])) == 0.5


def test_line_ends_blank_lines_and_a_byte_order_mark_do_no_harm_to_cute(tmp_path: Path) -> None:
    path = tmp_path / "spell.tsv"
    path.write_bytes(b"\xef\xbb\xbfinput1\tlabel\r\nplanet\tp l a n e t\r\n\r\n sky \t s k y \r\n")
    assert [(i.word, i.answer) for i in read(path).items] == [
        ("planet", "p l a n e t"),
        ("sky", "s k y"),
    ]


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (
            "word\tlabel\nplanet\tp l\n",
            "the columns of spell must be input1, label, got word, label",
        ),
        ("input1\tinput2\tlabel\na\tb\tc\n", "must be input1, label, got input1, input2, label"),
        ("label\tinput1\nx\ty\n", "must be input1, label, got label, input1"),
        ("input1,label\nplanet,p l\n", "must be input1, label, got input1,label"),
        ("planet\tp l a n e t\nsky\ts k y\n", "must be input1, label, got planet, p l a n e t"),
        ("input1\tlabel\nplanet\n", "line 2: must have 2 cells that are not empty, got .'planet'"),
        ("input1\tlabel\nsky\ts k y\nplanet\tp\tq\n", "line 3: must have 2 cells"),
        ("input1\tlabel\nplanet\t\n", "line 2: must have 2 cells that are not empty"),
        ("input1\tlabel\n\tp l\n", "line 2: must have 2 cells that are not empty"),
        ("input1\tlabel\n", "a suite needs at least one item, got none"),
        ("", "a suite needs at least one item, got none"),
        ("input1\tlabel\nsky\ts k y\nsky\ts k y\n", "at least 2 words a task, got 1 for spelling"),
        ("\n\n", "the columns of spell must be input1, label, got "),
    ],
)
def test_a_malformed_cute_file_is_one_clear_line(tmp_path: Path, content: str, law: str) -> None:
    path = tmp_path / "spell.tsv"
    path.write_text(content, encoding="utf-8")
    refused(path, law, SuiteError)


@pytest.mark.parametrize(
    ("content", "law"),
    [
        (b"input1\tlabel\nsky\ts k y\n\xff\t\xfe\n", "line 3: is not UTF-8 text"),
        (b"\xff\xfei\x00n\x00", "line 1: is binary, not text"),
        (b"input1\tlabel\na\x00b\tc\n", "line 2: is binary, not text"),
        (b"input1\tlabel\n" + b"x" * 5_000_000, "line 2: a line must have at most 65,536 bytes"),
        (b"\xe9\t\xe8\n", "line 1: is not UTF-8 text"),
    ],
)
def test_a_binary_or_endless_cute_file_is_refused(tmp_path: Path, content: bytes, law: str) -> None:
    path = tmp_path / "spell.tsv"
    path.write_bytes(content)
    refused(path, law)


def test_an_unknown_task_of_cute_names_the_nearest(tmp_path: Path) -> None:
    refused(tsv(tmp_path, "contain_char", CUTE["contains_char"]), "did you mean contains_char")
    message = refused(tsv(tmp_path, "xyz", CUTE["spell"]), "must be named for its task, got 'xyz'")
    assert "known: contains_char, contains_word, del_char" in message


@pytest.mark.parametrize("label", ["p l a n t", "planet?", "s k y"])
def test_a_wrong_spelling_of_cute_is_refused(tmp_path: Path, label: str) -> None:
    path = tsv(tmp_path, "spell", [["sky", "s k y"], ["planet", label]])
    refused(path, "line 3: .*planet", SuiteError)


# --- large suites -----------------------------------------------------------------------------


def test_a_large_suite_is_read_in_a_moment(tmp_path: Path) -> None:
    rows = [
        {"task": "position", "word": f"planet{chr(97 + i % 26)}", "position": 3, "answer": "a"}
        for i in range(20_000)
    ]
    path = jsonl(tmp_path, *rows)
    clock, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read(path).items) == 20_000
    assert time.monotonic() - clock < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


# --- what a line may not hold -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "law"),
    [
        ('{"task": "x", "task": "y", "prompt": "a", "answer": "b"}', "the key 'task' stands twice"),
        ('{"task": "x", "prompt": "a\\ud800b", "answer": "b"}', "holds what is no Unicode text"),
        ('{"task": "\\u001b[31mred", "prompt": "a", "answer": "b"}', "task: must hold printable"),
        (json.dumps({"task": "x", "prompt": "y" * 4_001, "answer": "b"}), "at most 4,000 char"),
    ],
)
def test_what_a_line_may_not_hold(tmp_path: Path, line: str, law: str) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text(line + "\n", "utf-8")
    refused(path, f"line 1: .*{law}", SuiteError)
