"""Laws of `tuning.documents`: files are read strictly, and every key knows its line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tuning.documents import Document, parse_yaml, read_document, to_yaml
from tuning.errors import ConfigError, NotFoundError


def written(folder: Path, content: str | bytes, name: str = "f.yaml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(folder: Path, content: str | bytes, name: str = "f.yaml") -> Document:
    return read_document(written(folder, content, name))


def refused(folder: Path, content: str | bytes, name: str = "f.yaml") -> str:
    """Return the one line that refuses a file, without the file's own name."""
    path = written(folder, content, name)
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    assert message.count(str(path)) == 1, "the file is named once"
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


# --- what is no YAML ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3),
        ("a:\n\tb: 1\n", 2),
        ("a: 1\nb: {c: 1\n", 2),
        ("a: 1\nb: 'open\n", 2),
        ("a: 1\n b: 2\n", 2),
        ("a: 1\nb: *nothing\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 1\nb: @x\n", 2),
    ],
)
def test_what_is_no_yaml_names_the_line(tmp_path: Path, content: str, line: int) -> None:
    assert refused(tmp_path, content).startswith(f", line {line}: not YAML: ")


def test_a_control_character_is_refused(tmp_path: Path) -> None:
    assert ": not YAML: unacceptable character" in refused(tmp_path, 'a: "\x07"\n')


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ", line 3: the key 'a' stands twice"),
        ("a:\n  b:\n    c: 1\n    c: 2\n", ", line 4: the key 'c' stands twice"),
        ("a:\n  - {b: 1}\n  - {b: 1, b: 2}\n", ", line 3: the key 'b' stands twice"),
        ('a: 1\n"a": 2\n', ", line 2: the key 'a' stands twice"),
        ("a: &x {b: 1}\n? b\n: c\nb: 2\n", ", line 4: the key 'b' stands twice"),
    ],
)
def test_a_repeated_key_is_refused_at_any_depth(tmp_path: Path, content: str, message: str) -> None:
    assert refused(tmp_path, content) == message


@pytest.mark.parametrize(
    ("key", "written_as"),
    [
        ("1", "'1'"),
        ("1.5", "'1.5'"),
        ("1e-4", "'1e-4'"),
        ("yes", "'yes'"),
        ("no", "'no'"),
        ("true", "'true'"),
        ("~", "'~'"),
        ("null", "'null'"),
        ("[a]", "a list or mapping"),
        ("{a: b}", "a list or mapping"),
    ],
)
def test_a_key_that_is_no_text_is_refused(tmp_path: Path, key: str, written_as: str) -> None:
    content = f"a: 1\nb:\n  {key}: 2\n"
    assert refused(tmp_path, content) == f", line 3: a key must be text, got {written_as}"


def test_a_key_in_quotes_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, '"1": a\n"yes": b\n2026-01-01: c\n').data == {
        "1": "a",
        "yes": "b",
        "2026-01-01": "c",
    }


# --- anchors ------------------------------------------------------------------------------------


def test_anchors_that_would_explode_are_refused(tmp_path: Path) -> None:
    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)
    )
    assert refused(tmp_path, laughs) == (
        ": must hold at most 30,000 values with its anchors written out, got 490,329,064"
    )


def test_merged_anchors_that_would_explode_are_refused(tmp_path: Path) -> None:
    laughs = "a0: &a0 {x: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n" + "".join(
        f"a{i}: &a{i} {{<<: *a{i - 1}, {', '.join(f'k{i}{j}: *a{i - 1}' for j in range(9))}}}\n"
        for i in range(1, 9)
    )
    assert "must hold at most 30,000 values" in refused(tmp_path, laughs)


@pytest.mark.parametrize("content", ["a: 1\nb: &b [1, *b]\n", "a: 1\nb: &b\n  c: *b\n"])
def test_an_anchor_that_holds_itself_is_refused(tmp_path: Path, content: str) -> None:
    assert refused(tmp_path, content) == ", line 2: an anchor holds itself"


def test_an_anchor_is_a_copy_with_the_lines_of_what_it_copies(tmp_path: Path) -> None:
    document = read(tmp_path, "a: &x\n  b: 1\nc: *x\n")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.lines == {("a",): 1, ("a", "b"): 2, ("c",): 3, ("c", "b"): 2}


def test_merge_keys_work_and_keep_the_lines_of_what_they_merge(tmp_path: Path) -> None:
    document = read(
        tmp_path,
        "base: &base\n  x: 1\n  y: 2\nmore: &more {y: 4, z: 5}\n"
        "own:\n  <<: *base\n  y: 3\nboth:\n  <<: [*base, *more]\n",
    )
    assert document.data["own"] == {"x": 1, "y": 3}
    assert document.data["both"] == {"x": 1, "y": 2, "z": 5}
    assert document.lines["own", "x"] == 2
    assert document.lines["own", "y"] == 7
    assert document.lines["both", "y"] == 3
    assert document.lines["both", "z"] == 4


def test_a_merge_key_that_merges_no_mapping_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path, "a:\n  <<: 5\n").startswith(", line 2: not YAML: ")


# --- size and depth -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["f.yaml", "f.json"])
def test_32_levels_are_read_and_33_are_refused(tmp_path: Path, name: str) -> None:
    def nested(levels: int) -> str:
        return '{"a": ' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    document = read(tmp_path, nested(32), name)
    assert document.lines["a",] == 1
    assert "nested more than 32 levels deep" in refused(tmp_path, nested(33), name)


def test_the_line_where_yaml_becomes_too_deep_is_named(tmp_path: Path) -> None:
    deep = "".join(f"{'  ' * level}a:\n" for level in range(40))
    assert refused(tmp_path, deep) == ", line 33: nested more than 32 levels deep"


@pytest.mark.parametrize("name", ["f.yaml", "f.json"])
@pytest.mark.parametrize("opening", ["[", '{"a": '])
def test_a_file_of_nothing_but_openings_is_refused(tmp_path: Path, name: str, opening: str) -> None:
    content = opening * (900_000 // len(opening))
    assert "nested more than 32 levels deep" in refused(tmp_path, content, name)


@pytest.mark.parametrize("name", ["f.yaml", "f.json"])
def test_a_file_may_have_a_million_bytes_and_no_more(tmp_path: Path, name: str) -> None:
    frame = '{"a": ""}'
    most = frame.replace('""', f'"{"x" * (1_000_000 - len(frame))}"')
    assert len(read(tmp_path, most, name).data["a"]) == 1_000_000 - len(frame)
    assert refused(tmp_path, most + "\n", name) == (
        ": a configuration must have at most 1,000,000 bytes"
    )


def test_a_file_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="/dev/zero: is no file, but a pipe or a device"):
        read_document(Path("/dev/zero"))


def test_a_pipe_that_nobody_writes_to_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="is no file, but a pipe or a device"):
        read_document(tmp_path / "pipe.yaml")


# --- bytes --------------------------------------------------------------------------------------


def test_what_is_not_utf_8_names_its_line(tmp_path: Path) -> None:
    assert refused(tmp_path, b"a: 1\nb: 2\nc: \xff\n") == ", line 3: is not UTF-8 text"
    assert refused(tmp_path, "a: 1\n".encode("utf-16")) == ", line 1: is not UTF-8 text"


@pytest.mark.parametrize(("name", "content"), [("f.yaml", "# c\na: 1\n"), ("f.json", '\n{"a": 1}')])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str, content: str) -> None:
    document = read(tmp_path, b"\xef\xbb\xbf" + content.encode(), name)
    assert document.data == {"a": 1}
    assert document.lines == {("a",): 2}


def test_lines_may_end_as_on_windows(tmp_path: Path) -> None:
    document = read(tmp_path, "# @package x\r\na:\r\n  b: 1\r\nc: text\r\n")
    assert document.data == {"a": {"b": 1}, "c": "text"}
    assert document.lines == {("a",): 2, ("a", "b"): 3, ("c",): 4}
    assert document.package == "x"


# --- files --------------------------------------------------------------------------------------


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_document(tmp_path)
    assert str(caught.value) == f"{tmp_path}: is a folder, not a configuration file"


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    for name in ("first.yaml", "second.yml", "third.json", "notes.txt"):
        (tmp_path / name).write_text("a: 1")
    with pytest.raises(NotFoundError) as caught:
        read_document(tmp_path / "frst.yaml")
    assert str(caught.value) == f"{tmp_path}/frst.yaml: no such file; did you mean first.yaml?"
    with pytest.raises(NotFoundError) as caught:
        read_document(tmp_path / "quite-another")
    assert str(caught.value) == (
        f"{tmp_path}/quite-another: no such file; known: first.yaml, second.yml, third.json"
    )


def test_a_missing_file_in_a_missing_folder_has_no_neighbours(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as caught:
        read_document(tmp_path / "no" / "such.yaml")
    assert str(caught.value) == f"{tmp_path}/no/such.yaml: no such file"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x\0y.yaml", "embedded null byte"),
        ("y" * 5000 + ".yaml", "File name too long"),
        ("f.yaml/x.yaml", "Not a directory"),
    ],
)
def test_a_name_that_no_file_can_have_is_one_short_line(
    tmp_path: Path, name: str, reason: str
) -> None:
    written(tmp_path, "a: 1")
    with pytest.raises(ConfigError, match=reason) as caught:
        read_document(tmp_path / name)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 200


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "nothing"),
        ("# only a comment\n", "nothing"),
        ("null", "nothing"),
        ("- a\n- b\n", "list"),
        ("text", "str"),
        ("5", "int"),
    ],
)
def test_what_holds_no_mapping_is_refused(tmp_path: Path, content: str, found: str) -> None:
    assert refused(tmp_path, content) == f": must hold a mapping of sections, got {found}"


# --- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ('"1e-4"', "1e-4"),
        ("-2E+3", -2000.0),
        ("5.e-4", 5e-4),
        (".5e-3", 5e-4),
        ("1e", "1e"),
        ("1e-4x", "1e-4x"),
        ("3e8f1a", "3e8f1a"),
        ("2026-01-01", "2026-01-01"),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z"),
        ("2026-13-45", "2026-13-45"),
        ("null", None),
        ("true", True),
        ('"true"', "true"),
        ("!!str 5", "5"),
    ],
)
def test_a_plain_value_is_what_people_take_it_for(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, f"a: {text}\n").data["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object:os.system {}",
        "!!python/object/apply:os.system [echo]",
        "!!python/name:os.system",
        "!own 5",
        "=",
    ],
)
def test_a_tag_that_makes_an_object_is_refused(tmp_path: Path, value: str) -> None:
    assert refused(tmp_path, f"a: 1\nb: {value}\n").startswith(", line 2: not YAML: ")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("!!binary aGVsbG8=", "bytes"),
        ("!!set {x, y}", "set"),
        ("!!timestamp 2026-01-01", "date"),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, value: str, kind: str) -> None:
    content = f"a:\n  b: {value}\n"
    assert refused(tmp_path, content) == f", line 2: a.b: must be plain data, got {kind}"


@pytest.mark.parametrize("tag", ["int", "float", "bool", "timestamp", "binary"])
def test_a_tag_that_its_value_does_not_fit_is_refused(tmp_path: Path, tag: str) -> None:
    message = refused(tmp_path, f'a: 1\nb: !!{tag} "é"\n')
    assert "cannot be read" in message or "not YAML" in message


# --- interpolations -----------------------------------------------------------------------------

INTERPOLATION = "${oc.env:HOME}"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("a:\n  b: TEXT\n", "line 2: a.b"),
        ("a:\n  b: before TEXT after\n", "line 2: a.b"),
        ("a:\n  b:\n    - x\n    - TEXT\n", "line 4: a.b.1"),
        ('a:\n  "TEXT": 1\n', "line 2: a.TEXT"),
        ("a: 1\ndefaults:\n  - TEXT\n", "line 3: defaults.0"),
        ("a: 1\ndefaults:\n  - models: TEXT\n", "line 3: defaults.0.models"),
        ('a: 1\ndefaults:\n  - "TEXT": tiny\n', "line 3: defaults.0.TEXT"),
    ],
)
@pytest.mark.parametrize("is_json", [False, True])
def test_an_interpolation_is_refused_wherever_it_stands(
    tmp_path: Path, content: str, place: str, is_json: bool
) -> None:
    content = content.replace("TEXT", INTERPOLATION)
    place = place.replace("TEXT", INTERPOLATION)
    if is_json:
        content = json.dumps(parse_yaml(content, "f")[0])
        place = f"line 1: {place.split(': ', 1)[1]}"
    message = refused(tmp_path, content, "f.json" if is_json else "f.yaml")
    assert message.startswith(f", {place}: interpolations such as ${{...}} are not resolved")


def test_a_dollar_or_a_brace_alone_is_text(tmp_path: Path) -> None:
    document = read(tmp_path, "a: $5 {x} $x\nb: |\n  $\n  {x}\n")
    assert document.data == {"a": "$5 {x} $x", "b": "$\n{x}\n"}


# --- lines --------------------------------------------------------------------------------------

NESTED = """
# a comment
first: 1
second:
  inner:
    - a
    -
      b
    - deep: {x: 1,
        y: 2}
  text: |
    several
    lines
last: [1,
  2]
"""
NESTED_LINES = {
    ("first",): 3,
    ("second",): 4,
    ("second", "inner"): 5,
    ("second", "inner", 0): 6,
    ("second", "inner", 1): 8,
    ("second", "inner", 2): 9,
    ("second", "inner", 2, "deep"): 9,
    ("second", "inner", 2, "deep", "x"): 9,
    ("second", "inner", 2, "deep", "y"): 10,
    ("second", "text"): 11,
    ("last",): 14,
    ("last", 0): 14,
    ("last", 1): 15,
}


def test_every_key_and_every_item_of_a_list_has_its_line(tmp_path: Path) -> None:
    assert read(tmp_path, NESTED).lines == NESTED_LINES


def test_the_place_of_a_key_that_is_not_written_is_that_of_what_holds_it(tmp_path: Path) -> None:
    document = read(tmp_path, NESTED)
    assert document.place(("second", "text")) == f"{tmp_path}/f.yaml, line 11"
    assert document.place(("second", "inner", 7, "x")) == f"{tmp_path}/f.yaml, line 5"
    assert document.place(("third", "x")) == f"{tmp_path}/f.yaml"
    assert document.place(()) == f"{tmp_path}/f.yaml"


@pytest.mark.parametrize(
    ("first_line", "package"),
    [
        ("# @package lora_config", "lora_config"),
        ("#@package a.b", "a.b"),
        ("# @package lora_config and more", "_global_"),
        ("# a comment", "_global_"),
    ],
)
def test_the_first_line_may_name_the_package(tmp_path: Path, first_line: str, package: str) -> None:
    assert read(tmp_path, f"{first_line}\na: 1\n").package == package
    assert read(tmp_path, f"b: 1\n{first_line}\na: 1\n").package == "_global_"


# --- JSON ---------------------------------------------------------------------------------------


def test_json_with_tabs_keeps_its_lines(tmp_path: Path) -> None:
    document = read(
        tmp_path, '{\n\t"a": {\n\t\t"b":\t1,\n\t\t"c": [\n\t\t\t1,\n\t\t\t2]}}', "f.json"
    )
    assert document.data == {"a": {"b": 1, "c": [1, 2]}}
    assert document.lines == {
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 6,
    }


@pytest.mark.parametrize("text", ["größe", "a/b", "tab\t", "😀"])
def test_json_as_python_writes_it_keeps_its_lines(tmp_path: Path, text: str) -> None:
    content = json.dumps({"a": text, "b": {"c": 1e-7}}, indent=1)
    document = read(tmp_path, content, "f.json")
    assert document.data == {"a": text, "b": {"c": 1e-7}}
    assert document.lines == {("a",): 2, ("b",): 3, ("b", "c"): 4}


TRAILING_COMMA = 1 if sys.version_info >= (3, 13) else 2
"""Lines before the one that Python names: since 3.13 that of the comma, before that the next."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": {"b": 1, "b": 2}}', ": the key 'b' stands twice"),
        ('{\n"a": 1,\n}', f", line {TRAILING_COMMA + 1}: not JSON: "),
        ('{\n"a": 1,\n// comment\n"b": 2}', ", line 3: not JSON: "),
        ("", ", line 1: not JSON: "),
        ("a: 1\n", ", line 1: not JSON: "),
        ("[1]", ": must hold a mapping of sections, got list"),
        ("null", ": must hold a mapping of sections, got nothing"),
        ('{"a": "\\ud83d"}', ", line 1: holds what is no Unicode text"),
        ('{"\\ud83d": 1}', ": holds what is no Unicode text"),
        (f'{{"a": {"9" * 5000}}}', ": cannot be read: "),
    ],
)
def test_what_is_no_json_is_refused(tmp_path: Path, content: str, message: str) -> None:
    assert refused(tmp_path, content, "f.json").startswith(message)


def test_nan_in_json_is_read_as_what_it_is_and_left_to_the_laws(tmp_path: Path) -> None:
    document = read(tmp_path, '{\n"a": NaN,\n"b": -Infinity}', "f.json")
    assert str(document.data) == "{'a': nan, 'b': -inf}"
    assert document.lines == {("a",): 2, ("b",): 3}


# --- writing ------------------------------------------------------------------------------------

TRAPS = [
    *("1", "-1", "1e-4", "1e-07", "0x10", "010", "1_000", "1:30", ".5", ".inf", ".nan", "0b_"),
    *("yes", "no", "on", "off", "true", "True", "null", "~", "", " ", "2026-01-01", "12:30:00"),
    *("<<", "=", "-", "- a", "a: b", "a #b", "# a", "&a", "*a", "!a", "@a", "`a", "%a", "|", ">"),
    *("{a", "[a", "a,b", "'", '"', "\\", "a\nb", "a\n", "\ta", "a\x85b", "a\u2028b", "\ufeffa"),
    *("größe", "😀", "???", "a  b", "key: |", "---", "...", "?", "? a", "\x07", "x" * 200),
]
TEXT = st.sampled_from(TRAPS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.sampled_from([1e-07, 1e-4, 1e16, 5e-324, -0.0, 1.0]) | st.floats(
    allow_nan=False, allow_infinity=False
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | FLOATS | TEXT
DATA = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(data=st.dictionaries(TEXT, DATA, max_size=5))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_written_as_yaml_is_read_as_the_same_data(data: dict[str, Any]) -> None:
    value, lines = parse_yaml(to_yaml(data), "f")
    # As text, so that 1, 1.0 and True are not the same.
    assert repr(value) == repr(data)
    assert {key for key in lines if len(key) == 1} == {(key,) for key in data}


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_stays_a_text(text: str) -> None:
    data = {text: text, "list": [text]}
    assert parse_yaml(to_yaml(data), "f")[0] == data


KEYS = st.sampled_from(["alpha", "beta", "gamma"])
SECTIONS = st.recursive(
    st.integers(0, 9), lambda inner: st.dictionaries(KEYS, inner, min_size=1), max_leaves=12
)


@given(data=st.dictionaries(KEYS, SECTIONS, min_size=1))
@settings(max_examples=50, deadline=None)
def test_the_line_of_a_key_is_the_line_it_stands_on(data: dict[str, Any]) -> None:
    text = to_yaml(data)
    _, lines = parse_yaml(text, "f")
    found = {line: f"{'  ' * (len(key) - 1)}{key[-1]}:" for key, line in lines.items()}
    assert len(found) == len(lines) == text.count("\n")
    for number, line in enumerate(text.splitlines(), start=1):
        assert line.startswith(found[number])
