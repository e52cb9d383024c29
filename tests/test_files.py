"""Laws of `tuning.files`: whole files or nothing, whole lines or none, one holder of a lock."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning import files
from tuning.errors import DataError, NotFoundError, ResultsError, UserError

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**53), max_value=2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine does not let us mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def run_python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def start_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- whole files ------------------------------------------------------------------------------


@given(content=st.binary(max_size=5000) | st.text(max_size=500))
@settings(max_examples=15, deadline=None)
def test_a_file_holds_exactly_what_was_written_last(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes
) -> None:
    path = tmp_path_factory.mktemp("write") / "new" / "folder" / "file"
    files.write_atomic(path, b"something older and longer" * 300)
    files.write_atomic(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode("utf-8"))
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_written_file_has_the_rights_that_the_umask_leaves(tmp_path: Path) -> None:
    # mkstemp makes files that their owner alone can read; others read results too.
    before = os.umask(0o027)
    try:
        files.write_atomic(tmp_path / "file", "x")
        assert os.umask(0o027) == 0o027, "the umask itself must be as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.parametrize(("umask", "rights"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_file_is_given_the_rights_of_an_ordinary_one(
    tmp_path: Path, umask: int, rights: int
) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    path.chmod(0o600)
    before = os.umask(umask)
    try:
        files.readable_by_all(path)
        assert os.umask(umask) == umask, "the umask is left as it was"
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == rights


def test_a_full_disk_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "results.json"
    files.write_atomic(path, "old")
    with pytest.raises(ResultsError, match=rf"cannot write {path}: the disk is full"):
        files.write_atomic(path, b"x" * 1_000_000)
    assert path.read_text() == "old"
    assert [p.name for p in small_disk.iterdir()] == ["results.json"]


def test_a_full_disk_costs_the_last_line_and_no_other(small_disk: Path) -> None:
    path, ballast = small_disk / "events.jsonl", small_disk / "ballast"
    ballast.write_bytes(b"b" * 32_000)
    written: list[int] = []

    def fill_the_disk() -> None:
        for number in range(1000):
            files.append_json_line(path, {"number": number, "text": "t" * 1500})
            written.append(number)

    with pytest.raises(ResultsError, match="the disk is full"):
        fill_the_disk()
    assert len(written) > 3
    assert [r["number"] for r in files.read_json_lines(path)] == written
    ballast.unlink()
    files.append_json_line(path, {"number": -1})
    assert [r["number"] for r in files.read_json_lines(path)] == [*written, -1]


def test_a_read_only_disk_is_one_clear_line(small_disk: Path) -> None:
    files.write_atomic(small_disk / "file", "old")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ResultsError, match="the file system is read-only"):
        files.write_atomic(small_disk / "file", "new")
    with pytest.raises(ResultsError, match="the file system is read-only"):
        files.make_folder(small_disk / "folder")
    with pytest.raises(ResultsError, match="the file system is read-only"):
        files.append_json_line(small_disk / "file.jsonl", {})
    assert (small_disk / "file").read_text() == "old"


def test_a_limit_on_file_size_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    code = """
        import pathlib, resource, signal, sys
        from tuning import files
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        files.write_atomic(pathlib.Path(sys.argv[1]), b"x" * 100_000)
    """
    assert run_python(code, path).returncode != 0
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_readers_and_kills_at_any_moment_find_one_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    size = 2_000_000
    whole = (b"a" * size, b"b" * size)
    code = """
        import pathlib, sys
        from tuning import files
        path, size = pathlib.Path(sys.argv[1]), int(sys.argv[2])
        while True:
            for letter in b"ab":
                files.write_atomic(path, bytes([letter]) * size)
                print("written")
    """
    rng = random.Random(0)
    for _ in range(3):
        process = start_python(code, path, size)
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == "written\n"
            for _ in range(60):
                assert path.read_bytes() in whole
            time.sleep(rng.random() * 0.02)
            process.send_signal(signal.SIGKILL)
        assert path.read_bytes() in whole


def test_a_file_in_the_way_of_a_folder_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResultsError, match="a file is in the way"):
        files.make_folder(tmp_path / "file")
    with pytest.raises(ResultsError, match="not a folder|in the way"):
        files.write_atomic(tmp_path / "file" / "below" / "it", "y")
    assert (tmp_path / "file").read_text() == "x"


def test_errors_that_no_user_can_cause_pass_through(tmp_path: Path) -> None:
    with (
        pytest.raises(InterruptedError),
        files.readable_os_errors(tmp_path),
    ):
        raise InterruptedError(4, "interrupted")


# --- folders ----------------------------------------------------------------------------------


def test_a_published_folder_has_its_name_and_all_its_files(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "deep" / "folder"
    (temporary / "inner").mkdir(parents=True)
    (temporary / "a").write_text("1")
    (temporary / "inner" / "b").write_text("2")
    files.publish_folder(temporary, folder)
    assert not temporary.exists()
    assert (folder / "a").read_text() == "1"
    assert (folder / "inner" / "b").read_text() == "2"


def test_publishing_never_mixes_into_a_folder_that_is_there(tmp_path: Path) -> None:
    temporary, folder = tmp_path / "temporary", tmp_path / "folder"
    for path, text in ((temporary, "new"), (folder, "old")):
        path.mkdir()
        (path / "file").write_text(text)
    with contextlib.suppress(OSError, ResultsError):
        files.publish_folder(temporary, folder)
    kept = [p.read_text() for p in folder.iterdir()]
    assert kept in (["old"], ["new"])


def test_removing_takes_all_and_needs_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "file").write_text("x")
    files.remove_folder(folder)
    assert not folder.exists()
    files.remove_folder(folder)


# --- JSON -------------------------------------------------------------------------------------


@given(value=JSON_VALUES)
@settings(max_examples=40, deadline=None)
def test_json_comes_back_as_it_went(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value
    assert json.loads(path.read_text("utf-8")) == value


@given(value=st.dictionaries(st.text(), st.integers() | st.text()))
@settings(max_examples=40, deadline=None)
def test_a_large_map_has_an_entry_a_line(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    path = tmp_path_factory.mktemp("json") / "map.json"
    files.write_json_map(path, value)
    assert files.read_json(path) == value
    assert path.read_bytes().count(b"\n") == max(1, len(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_refuses_what_is_no_number_and_leaves_the_old_file(
    tmp_path: Path, value: float
) -> None:
    path = tmp_path / "value.json"
    files.write_json(path, 1)
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"accuracy": value})
    with pytest.raises(ValueError, match="JSON"):
        files.append_json_line(tmp_path / "lines.jsonl", {"accuracy": value})
    with pytest.raises(ValueError, match="JSON"):
        files.sha256_of_json([value])
    assert files.read_json(path) == 1
    assert not (tmp_path / "lines.jsonl").exists()


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"\xff\xfe{}", b"{} {}"])
def test_damaged_json_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    path.write_bytes(content)
    with pytest.raises(ResultsError, match=rf"{path} is damaged"):
        files.read_json(path)


def test_missing_json_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=rf"{tmp_path / 'value.json'} is missing"):
        files.read_json(tmp_path / "value.json")


# --- lines ------------------------------------------------------------------------------------


RECORDS = [{"step": 1, "says": "größer 你好"}, {"step": 2}, {"step": 3, "says": 'a "b"\n'}]


def lines_of(folder: Path) -> bytes:
    path = folder / "whole.jsonl"
    for record in RECORDS:
        files.append_json_line(path, record)
    content = path.read_bytes()
    assert [json.loads(line) for line in content.decode().splitlines()] == RECORDS
    return content


def test_a_kill_at_every_byte_costs_the_torn_line_and_no_other(tmp_path: Path) -> None:
    content = lines_of(tmp_path)
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 3
    for cut in range(len(content) + 1):
        path = tmp_path / f"{cut}.jsonl"
        path.write_bytes(content[:cut])
        whole = RECORDS[: sum(end <= cut for end in ends)]
        assert files.read_json_lines(path) == whole, f"read after a cut at byte {cut}"
        assert path.read_bytes() == content[:cut], "reading must not write"
        files.append_json_line(path, {"step": 99})
        assert files.read_json_lines(path) == [*whole, {"step": 99}], f"appended at byte {cut}"
        kept = content[: max([0, *(end for end in ends if end <= cut)])]
        assert path.read_bytes() == kept + b'{"step": 99}\n'


def test_a_torn_line_longer_than_any_buffer_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    for whole in (b"", b'{"a": 1}\n', b'{"a": 1}\n' * 20_000):
        path.write_bytes(whole + b'{"torn": "' + b"x" * 300_000)
        files.append_json_line(path, {"b": 2})
        assert path.read_bytes() == whole + b'{"b": 2}\n'


@pytest.mark.parametrize("damage", [b"{", b"", b"\xff\xfe", b'{"step": 1}{"step": 2}', b"\x00" * 9])
def test_a_damaged_line_in_the_middle_is_an_error_that_names_it(
    tmp_path: Path, damage: bytes
) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"step": 1}\n' + damage + b'\n{"step": 3}\n')
    with pytest.raises(ResultsError, match=rf"{path} line 2 is damaged"):
        files.read_json_lines(path)


def test_every_damaged_byte_of_a_middle_line_is_found_or_changes_its_value_alone(
    tmp_path: Path,
) -> None:
    content = lines_of(tmp_path)
    path = tmp_path / "damaged.jsonl"
    first_end = content.index(b"\n")
    for place in range(first_end):
        path.write_bytes(content[:place] + b"\x01" + content[place + 1 :])
        with pytest.raises(ResultsError, match="line 1 is damaged"):
            files.read_json_lines(path)


@given(
    records=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3), max_size=5),
    rewritten=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3), max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_lines_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict], rewritten: list[dict]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "folder" / "lines.jsonl"
    assert files.read_json_lines(path) == []
    for record in records:
        files.append_json_line(path, record)
    assert files.read_json_lines(path) == records
    files.write_json_lines(path, rewritten)
    assert files.read_json_lines(path) == rewritten
    files.append_json_line(path, {"last": True})
    assert files.read_json_lines(path) == [*rewritten, {"last": True}]


# --- lock -------------------------------------------------------------------------------------

HOLD = """
    import pathlib, sys
    from tuning import files
    with files.exclusive_lock(pathlib.Path(sys.argv[1]), "study one"):
        print("held")
        sys.stdin.readline()
    print("released")
    sys.stdin.readline()
"""
TRY = """
    import pathlib, sys
    from tuning import errors, files
    try:
        with files.exclusive_lock(pathlib.Path(sys.argv[1]), "study one"):
            print("held")
    except errors.ResultsError as error:
        print("refused:", error)
"""


def test_a_second_process_is_refused_until_the_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "study" / ".lock"
    with start_python(HOLD, path) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(ResultsError, match="another process is working on study one"),
            files.exclusive_lock(path, "study one"),
        ):
            pytest.fail("two processes hold one lock")
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "released\n"
        with files.exclusive_lock(path, "study one"):
            answer = run_python(TRY, path)
            assert answer.stdout.startswith("refused: another process"), answer
            assert str(path) in answer.stdout
        holder.stdin.close()
    assert run_python(TRY, path).stdout == "held\n"


def test_the_lock_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with start_python(HOLD, path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
        assert path.exists(), "the file stays behind and means nothing"
        with files.exclusive_lock(path, "study one"):
            pass


def test_a_lock_is_let_go_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with pytest.raises(KeyError), files.exclusive_lock(path, "x"):
        raise KeyError
    with files.exclusive_lock(path, "x"):
        pass


def test_two_locks_do_not_disturb_one_another(tmp_path: Path) -> None:
    with files.exclusive_lock(tmp_path / "a", "a"), files.exclusive_lock(tmp_path / "b", "b"):
        pass


# --- hashes -----------------------------------------------------------------------------------


def shuffled(value: object, rng: random.Random) -> object:
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(v, rng) for v in value] if isinstance(value, list) else value


@given(value=JSON_VALUES, seed=st.integers(0, 1000))
def test_the_hash_of_json_does_not_depend_on_the_order_of_keys(value: object, seed: int) -> None:
    assert files.sha256_of_json(value) == files.sha256_of_json(shuffled(value, random.Random(seed)))


def test_the_hash_of_json_is_that_of_its_canonical_text() -> None:
    text = b'{"a":[1,2.5,null,true],"b":{"c":"\\u00e4","d":1e-05}}'
    value = {"b": {"d": 1e-5, "c": "ä"}, "a": [1, 2.5, None, True]}
    assert files.sha256_of_json(value) == hashlib.sha256(text).hexdigest()


@pytest.mark.parametrize(
    "other", [[1, 2, 4], [2, 1, 3], [1, 2], ["1", 2, 3], {"1": 2}, [[1, 2, 3]]]
)
def test_the_hash_of_json_tells_values_apart(other: object) -> None:
    assert files.sha256_of_json([1, 2, 3]) != files.sha256_of_json(other)


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    # The example of FIPS 180-2, appendix B.1.
    (tmp_path / "abc").write_bytes(b"abc")
    assert files.sha256_of_file(tmp_path / "abc") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


# --- text files of the user's own -------------------------------------------------------------


LINES = st.lists(
    st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"x").replace(b"\0", b"y")), max_size=8
)


@given(lines=LINES, unfinished=st.booleans())
@settings(max_examples=60, deadline=None)
def test_lines_come_with_their_numbers_and_places(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], unfinished: bool
) -> None:
    path = tmp_path_factory.mktemp("lines") / "file.txt"
    content = b"\n".join(lines) if unfinished else b"".join(line + b"\n" for line in lines)
    path.write_bytes(content)
    found = list(files.numbered_lines(path, 100))
    assert [line for _, _, line in found] == content.splitlines(keepends=True) or b"\r" in content
    assert b"".join(line for _, _, line in found) == content
    assert [number for number, _, _ in found] == list(range(1, len(found) + 1))
    for _, offset, line in found:
        assert content[offset : offset + len(line)] == line
    assert all(line.endswith(b"\n") for _, _, line in found[:-1])


def test_lines_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_bytes(b"good\n" * 3 + b"\x00bad\n")
    lines = files.numbered_lines(path, 100)
    assert [next(lines) for _ in range(3)] == [
        (1, 0, b"good\n"),
        (2, 5, b"good\n"),
        (3, 10, b"good\n"),
    ]
    with pytest.raises(DataError, match=rf"{path}, line 4: is binary, not text"):
        next(lines)


@pytest.mark.parametrize(("extra", "fits"), [(0, True), (1, False), (5_000_000, False)])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_a_line_may_have_so_many_bytes_and_no_more(
    tmp_path: Path, extra: int, fits: bool, end: bytes
) -> None:
    path = tmp_path / "file.txt"
    line = b"x" * (1000 - len(end) + extra) + end
    path.write_bytes(b"first\n" + line)
    lines = files.numbered_lines(path, 1000)
    assert next(lines) == (1, 0, b"first\n")
    if fits:
        assert next(lines) == (2, 6, line)
    else:
        with pytest.raises(DataError, match="line 2: a line must have at most 1,000 bytes"):
            next(lines)


def test_an_endless_line_is_never_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with path.open("wb") as file:
        file.truncate(500_000_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="line 1: "):
        list(files.numbered_lines(path, 1000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_file_that_is_missing_or_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("planet")
    for path, error, law in (
        (tmp_path / "wrds.txt", NotFoundError, "no such file; did you mean words.txt"),
        (tmp_path / "no" / "such" / "folder.txt", NotFoundError, "no such file"),
        (tmp_path / "words.txt" / "inside.txt", NotFoundError, "no such file"),
        (tmp_path, DataError, "is no file"),
        (Path("/dev/null"), DataError, "is no file"),
    ):
        with pytest.raises(error, match=law) as caught:
            list(files.numbered_lines(path, 100))
        assert len(str(caught.value).splitlines()) == 1
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x" * 5000])
def test_a_name_that_no_file_can_have_is_one_clear_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError) as caught:
        list(files.numbered_lines(tmp_path / name, 100))
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_of_many_files_does_not_make_a_long_message(tmp_path: Path) -> None:
    for i in range(500):
        (tmp_path / f"file_{i:03}").write_text("")
    with pytest.raises(NotFoundError) as caught:
        list(files.numbered_lines(tmp_path / "words.txt", 100))
    assert len(str(caught.value)) < len(str(tmp_path)) + 1000


def test_the_nearest_name_is_found_in_a_folder_of_many_files(tmp_path: Path) -> None:
    for i in range(100):
        (tmp_path / f"file_{i:03}").write_text("")
    (tmp_path / "words.txt").write_text("planet")
    with pytest.raises(NotFoundError, match=r"did you mean words\.txt"):
        list(files.numbered_lines(tmp_path / "word.txt", 100))


@given(rows=st.lists(st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3), max_size=6))
@settings(max_examples=40, deadline=None)
def test_rows_are_written_a_line_each_with_the_hash_of_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    written = files.write_jsonl(path, iter(rows))
    content = path.read_bytes()
    assert written.num_lines == len(rows) == content.count(b"\n")
    assert written.sha256 == hashlib.sha256(content).hexdigest() == files.sha256_of_file(path)
    assert [json.loads(line) for line in content.split(b"\n")[:-1]] == rows


def test_rows_are_plain_text_that_people_can_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    files.write_jsonl(path, [{"prompt": "größer 你好\nzwei"}])
    assert path.read_bytes() == '{"prompt": "größer 你好\\nzwei"}\n'.encode()


def test_more_rows_than_memory_should_hold_are_written_as_they_come(tmp_path: Path) -> None:
    tracemalloc.start()
    written = files.write_jsonl(
        tmp_path / "rows.jsonl", ({"i": i, "text": "x" * 1000} for i in range(10_000))
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written.num_lines == 10_000
    assert peak < 1_000_000


def test_rows_on_a_full_disk_are_one_clear_line(small_disk: Path) -> None:
    rows = ({"text": "x" * 1000} for _ in range(1000))
    with pytest.raises(ResultsError, match="the disk is full") as caught:
        files.write_jsonl(small_disk / "rows.jsonl", rows)
    assert "\n" not in str(caught.value)


def test_rows_into_a_folder_that_is_not_there_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="its folder does not exist"):
        files.write_jsonl(tmp_path / "no" / "rows.jsonl", [{}])


def test_a_folder_in_the_place_of_lines_is_a_clean_error(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="cannot read .*: Is a directory"):
        files.read_json_lines(tmp_path)
