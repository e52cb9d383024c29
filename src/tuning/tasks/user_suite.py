"""A user's own evaluation suite: JSONL with a field a column, or a TSV file in CUTE's layout.

JSONL: `task` and `answer` on every line; `word` and `position` or `letter` for our tasks; with
`prompt` the question is the user's own and the task may be any. `targets` are other right answers.

TSV, as CUTE (arXiv 2409.15452) has it: the file is named for its task, the columns are `input1` to
`input3` and `label`, the word in the last input.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuning.errors import SuiteError, nearest, shown
from tuning.files import json_object, numbered_lines
from tuning.tasks import count, position, spelling
from tuning.tasks.items import Item, Task
from tuning.tasks.suite import CutWords, Suite, facts_of

MAX_LINE_BYTES = 65_536
MAX_ITEMS = 1_000_000
MAX_PROMPT_CHARACTERS = 4_000
_FIELDS = ("task", "word", "letter", "position", "answer", "prompt", "targets")


def read_suite(path: Path, cut: CutWords) -> Suite:
    """Read a user's suite.

    Args:
        path: `.jsonl`, or `.tsv` in CUTE's layout.
        cut: The model's tokenizer.

    Raises:
        NotFoundError: There is no such file.
        UserError: A line is not what it must be; the message names file, line and field.
    """
    if path.suffix == ".tsv":
        items = list(_from_tsv(path))
    elif path.suffix in (".jsonl", ".ndjson"):
        items = list(_from_jsonl(path))
    else:
        raise SuiteError(
            f"{path}: a suite must be .jsonl or .tsv, got {path.suffix or 'no ending'}"
        )
    if not items:
        raise SuiteError(f"{path}: a suite needs at least one item, got none")
    _check_words(path, items)
    words = sorted({item.word for item in items})
    pieces = dict(zip(words, cut(words), strict=True))
    facts = tuple(facts_of(item, pieces[item.word], is_pseudo_word=False) for item in items)
    return Suite(tuple(items), facts)


def _check_words(path: Path, items: Sequence[Item]) -> None:
    words: dict[str, set[str]] = {}
    for item in items:
        words.setdefault(str(item.task), set()).add(item.word)
    for task, of_task in words.items():
        if len(of_task) < 2:
            raise SuiteError(
                f"{path}: an interval needs items on at least 2 words a task, "
                f"got {len(of_task)} for {task}"
            )


# --- JSONL --------------------------------------------------------------------------------------


def _from_jsonl(path: Path) -> Iterator[Item]:
    for number, _, line in numbered_lines(path, MAX_LINE_BYTES):
        if not line.strip():
            continue
        if number > MAX_ITEMS:
            raise SuiteError(f"{path}: a suite must have at most {MAX_ITEMS:,} lines")
        place = f"{path}, line {number}"
        raw = json_object(line, place, SuiteError)
        for key in raw:
            if key not in _FIELDS:
                hint = nearest(key, _FIELDS)
                raise SuiteError(f"{place}: {shown(key)[1:-1]}: no such field; {hint}")
        yield _item(raw, place)


def _item(raw: Mapping[str, Any], place: str) -> Item:
    task = _text(raw, "task", place)
    if raw.get("prompt") is not None:
        return _own_question(raw, task, place)
    if task not in (Task.SPELLING, Task.POSITION, Task.COUNT):
        raise SuiteError(
            f"{place}: task {shown(task)} is not one of ours, so it needs a prompt; "
            f"known without one: spelling, position, count"
        )
    word, answer = _text(raw, "word", place), _answer(raw, place)
    if task == Task.SPELLING:
        item = spelling.plain_item(word)
    elif task == Task.POSITION:
        item = position.position_item(word, _position(raw, word, place), position.TEMPLATES[0])
    else:
        item = count.count_item(word, _letter(raw, place), count.TEMPLATES[0])
    return _checked(item, answer, _targets(raw, place), place)


def _checked(item: Item, answer: str, targets: tuple[str, ...], place: str) -> Item:
    """Return the item if the user's answer is the right one."""
    if item.task == Task.SPELLING:
        agrees = "".join(c for c in answer if c.isalpha()) == item.word
    else:
        agrees = answer.lower() == item.answer.lower()
    if not agrees:
        raise SuiteError(
            f"{place}: answer: must be {shown(item.answer)} for this {item.task} item on "
            f"{shown(item.word)}, got {shown(answer)}; give a prompt to ask something else"
        )
    return dataclasses.replace(item, targets=tuple(t for t in targets if t != item.answer))


def _own_question(raw: Mapping[str, Any], task: str, place: str) -> Item:
    question = _text(raw, "prompt", place)
    answer = _answer(raw, place)
    word = raw.get("word")
    if word is not None and (not isinstance(word, str) or not word):
        raise SuiteError(f"{place}: word: must be a text that is not empty, got {word!r}")
    known = {member.value: member for member in Task}
    has_position = word is not None and raw.get("position") is not None
    return Item(
        task=known.get(task, task),
        # Items without a word are clusters of their own.
        word=word or question,
        template="own",
        question=question if question.endswith("\n") else f"{question}\n",
        answer=answer,
        n=_position(raw, str(word), place) if has_position else None,
        letter=_letter(raw, place) if raw.get("letter") is not None else None,
        subjects=(word,) if word else (),
        targets=tuple(t for t in _targets(raw, place) if t != answer),
    )


def _text(raw: Mapping[str, Any], key: str, place: str) -> str:
    value = raw.get(key)
    if value is None:
        raise SuiteError(f"{place}: {key} is missing")
    if not isinstance(value, str) or not value.strip():
        raise SuiteError(f"{place}: {key}: must be a text that is not empty, got {shown(value)}")
    if key == "prompt":
        if len(value) > MAX_PROMPT_CHARACTERS:
            raise SuiteError(
                f"{place}: prompt: must have at most {MAX_PROMPT_CHARACTERS:,} characters, "
                f"got {len(value):,}"
            )
        return value
    if key in ("task", "word") and not value.strip().isprintable():
        raise SuiteError(f"{place}: {key}: must hold printable characters, got {shown(value)}")
    return value.strip()


def _answer(raw: Mapping[str, Any], place: str) -> str:
    value = raw.get("answer")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(raw, "answer", place)


def _position(raw: Mapping[str, Any], word: str, place: str) -> int:
    value = raw.get("position")
    if value is None:
        raise SuiteError(f"{place}: position is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= len(word):
        raise SuiteError(
            f"{place}: position: must be a whole number from 1 to {len(word)} in {shown(word)}, "
            f"got {shown(value)}"
        )
    return value


def _letter(raw: Mapping[str, Any], place: str) -> str:
    value = raw.get("letter")
    if value is None:
        raise SuiteError(f"{place}: letter is missing")
    if not isinstance(value, str) or len(value.strip()) != 1:
        raise SuiteError(f"{place}: letter: must be one letter, got {shown(value)}")
    return value.strip()


def _targets(raw: Mapping[str, Any], place: str) -> tuple[str, ...]:
    value = raw.get("targets")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise SuiteError(f"{place}: targets: must be a list of texts, got {shown(value)}")
    return tuple(v.strip() for v in value)


# --- CUTE ---------------------------------------------------------------------------------------

_CUTE_QUESTIONS: Mapping[str, str] = {
    "spell": "Spell the word {0}, letters separated by spaces.\n",
    "spell_inverse": "Which word do these letters make: {0}?\n",
    "contains_char": "Is the letter {0} in the word {1}? Answer Yes or No.\n",
    "contains_word": "Is the word {0} in this sentence: {1}? Answer Yes or No.\n",
    "orth": "Which word is spelled more like {0}: {1} or {2}? Answer with only the word.\n",
    "sem": "Which word means more nearly the same as {0}: {1} or {2}? Answer with only the word.\n",
    "ins_char": "Put the letter {0} after every {1} in {2}. Answer with only the result.\n",
    "ins_word": "Put the word {0} after every {1} in: {2}. Answer with only the result.\n",
    "del_char": "Delete every letter {0} in {1}. Answer with only the result.\n",
    "del_word": "Delete every word {0} in: {1}. Answer with only the result.\n",
    "sub_char": "Replace every letter {0} by {1} in {2}. Answer with only the result.\n",
    "sub_word": "Replace every word {0} by {1} in: {2}. Answer with only the result.\n",
    "swap_char": "Swap the letters {0} and {1} in {2}. Answer with only the result.\n",
    "swap_word": "Swap the words {0} and {1} in: {2}. Answer with only the result.\n",
}
"""Our wording of CUTE's tasks; the inputs in the order of its files."""


def _from_tsv(path: Path) -> Iterator[Item]:
    task = path.stem.removesuffix("_rand")
    lines = numbered_lines(path, MAX_LINE_BYTES)
    header = next(lines, None)
    if header is None:
        raise SuiteError(f"{path}: a suite needs at least one item, got none")
    columns = _cells(header[2], path, 1)
    if task not in _CUTE_QUESTIONS:
        raise SuiteError(
            f"{path}: a TSV file must be named for its task, got {path.stem!r}; "
            f"{nearest(task, _CUTE_QUESTIONS)}"
        )
    question = _CUTE_QUESTIONS[task]
    inputs = [f"input{i + 1}" for i in range(question.count("{"))]
    if columns != [*inputs, "label"]:
        raise SuiteError(
            f"{path}: the columns of {task} must be {', '.join([*inputs, 'label'])}, "
            f"got {', '.join(columns)[:200]}"
        )
    for number, _, line in lines:
        if not line.strip():
            continue
        cells = _cells(line, path, number)
        if len(cells) != len(columns) or not all(cells):
            raise SuiteError(
                f"{path}, line {number}: must have {len(columns)} cells that are not empty, "
                f"got {[c[:40] for c in cells]!r}"
            )
        if task == "spell" and cells[1].replace(" ", "") != cells[0]:
            raise SuiteError(
                f"{path}, line {number}: label: must be the letters of {shown(cells[0])} with "
                f"spaces between, got {shown(cells[1])}"
            )
        yield _cute_item(path.stem, task, question, cells)


def _cells(line: bytes, path: Path, number: int) -> list[str]:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}, line {number}: is not UTF-8 text") from error
    return [cell.strip() for cell in text.rstrip("\r\n").split("\t")]


def _cute_item(name: str, task: str, question: str, cells: Sequence[str]) -> Item:
    *inputs, label = cells
    is_spelling = task == "spell"
    word = label if task == "spell_inverse" else inputs[0 if task in ("orth", "sem") else -1]
    return Item(
        task=Task.SPELLING if is_spelling else task,
        word=word,
        template=f"cute/{name}",
        question=question.format(*inputs),
        answer=label,
        letter=inputs[0] if task == "contains_char" else None,
        subjects=(word,),
    )
