"""Writing that survives a kill: whole files or nothing, lines that are checked when read.

Owns how bytes reach the disk. What is written where is decided in `paths.py`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import itertools
import json
import math
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from tuning.errors import (
    DataError,
    LockedError,
    NotFoundError,
    ResultsError,
    UserError,
    nearest,
    shown,
)


@contextlib.contextmanager
def readable_os_errors(path: Path) -> Iterator[None]:
    """Turn "disk full", "read-only" and "permission denied" into one clear line about `path`.

    Raises:
        ResultsError: The operating system refused to write.
    """
    try:
        yield
    except OSError as error:
        laws = {
            errno.ENOENT: "its folder does not exist and cannot be made",
            errno.ENOSPC: "the disk is full",
            errno.EDQUOT: "the disk quota is used up",
            errno.EROFS: "the file system is read-only",
            errno.EACCES: "permission denied",
            errno.EPERM: "operation not permitted",
            errno.ENOTDIR: "a part of the path is not a folder",
            errno.EEXIST: "a file is in the way",
            errno.EISDIR: "a folder is in the way",
            errno.ENOTEMPTY: "a folder with files is in the way",
            errno.EFBIG: "the file would be too large",
            errno.ELOOP: "too many symbolic links",
            errno.ENAMETOOLONG: "the path is too long",
        }
        if error.errno not in laws:
            raise
        raise ResultsError(f"cannot write {path}: {laws[error.errno]}") from error


def make_folder(path: Path) -> Path:
    """Create `path` and its parents; return it.

    Raises:
        ResultsError: The folder cannot be created.
    """
    with readable_os_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`, or leave it as it was: temp file, fsync, rename.

    Raises:
        ResultsError: The disk is full or refuses; the old file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    make_folder(path.parent)
    with readable_os_errors(path):
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync(path.parent)


def readable_by_all(path: Path) -> None:
    """Give a file the rights of an ordinary one: some writers keep it to its owner."""
    path.chmod(0o666 & ~_umask())


def _umask() -> int:
    current = os.umask(0o022)
    os.umask(current)
    return current


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name: fsync of every file, then one rename.

    Raises:
        ResultsError: The disk refuses.
    """
    with readable_os_errors(folder):
        for path in temporary.rglob("*"):
            _sync(path)
        make_folder(folder.parent)
        os.replace(temporary, folder)
        _sync(folder.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder of ours with all it holds; a folder that is not there is no error.

    Raises:
        ResultsError: The disk refuses.
    """
    if path.is_symlink():
        raise ResultsError(f"{path} is a symbolic link, not a folder of ours; remove it by hand")
    with readable_os_errors(path):
        shutil.rmtree(path, ignore_errors=not path.exists())


def write_json(path: Path, value: Any) -> None:
    """Write `value` atomically as indented JSON; NaN and infinity are refused.

    Raises:
        ResultsError: The disk refuses.
        ValueError: `value` holds NaN or infinity, a fault of ours.
    """
    write_atomic(path, json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def write_json_map(path: Path, value: Mapping[str, Any]) -> None:
    """Write a large flat mapping atomically as JSON, an entry a line.

    Raises:
        ResultsError: The disk refuses.
        ValueError: `value` holds NaN or infinity, a fault of ours.
    """
    # Indentation would take the encoder that is written in Python, ten times slower.
    text = json.dumps(value, separators=(",\n", ": "), allow_nan=False, ensure_ascii=False)
    write_atomic(path, f"{text}\n")


def read_json(path: Path) -> Any:
    """Read JSON that we wrote.

    Raises:
        ResultsError: The file is missing, or is not JSON.
    """
    try:
        return strict_json(read_text(path))
    except (ValueError, RecursionError) as error:
        raise _damaged(str(path), error) from error


def read_text(path: Path) -> str:
    """Read a text that we wrote.

    Raises:
        ResultsError: The file is missing, is no file, is far larger than any of ours, or no text.
    """
    try:
        check_is_readable(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ResultsError(f"{path} is missing") from error
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is damaged: it is not UTF-8 text") from error


MAX_BYTES = 2**28
"""Of one file of ours that is read whole; the largest, an analysis, has a few million."""


def check_is_readable(path: Path) -> None:
    """Refuse a pipe, which would be waited for without end, and what no memory would hold.

    Raises:
        FileNotFoundError: There is nothing.
        ResultsError: It is no file, or too large for one of ours.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise ResultsError(f"cannot read {path}: is no file, but a pipe or a device")
    if status.st_size > MAX_BYTES:
        raise ResultsError(
            f"{path} is damaged: it has {status.st_size:,} bytes, and a file of ours at most "
            f"{MAX_BYTES:,}"
        )


def _damaged(what: str, error: Exception) -> ResultsError:
    """Return the error for a file whose content is not what we wrote, on one short line."""
    if isinstance(error, RecursionError):
        return ResultsError(f"{what} is damaged: nested too deeply")
    return ResultsError(f"{what} is damaged: {' '.join(str(error).split())[:200]}")


def strict_json(text: str | bytes) -> Any:
    """Return the value of a JSON text of ours.

    Raises:
        ValueError: It is not JSON, or holds NaN, infinity or a number too large to reckon with.
        RecursionError: It is nested too deeply.
    """
    return json.loads(
        text, parse_constant=_refuse_constant, parse_int=whole_number, parse_float=_finite_number
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


MAX_NUMBER = 256
"""Characters of a number: even in hexadecimal it is below the largest float."""


def whole_number(digits: str) -> int:
    """Return an integer; for `json.loads(parse_int=)`.

    Raises:
        ValueError: It has so many digits that reckoning with it, or showing it, would fail.
    """
    if len(digits) > MAX_NUMBER:
        raise ValueError(f"a number has at most {MAX_NUMBER} digits, got {len(digits):,}")
    return int(digits)


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{shown(text, limit=40)} is too large a number")
    return number


def append_json_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line and fsync; a torn line that a kill left at the end is cut first.

    Raises:
        ResultsError: The disk refuses.
    """
    line = json.dumps(value, allow_nan=False, ensure_ascii=False).encode() + b"\n"
    make_folder(path.parent)
    if path.is_symlink():
        # What a kill left at the end is cut, and a link may lead to what is not ours.
        raise ResultsError(f"{path} is a symbolic link, not a file of ours; remove it by hand")
    with readable_os_errors(path), path.open("ab+") as file:
        end = _end_of_last_whole_line(file.name)
        if end != file.seek(0, os.SEEK_END):
            file.truncate(end)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _end_of_last_whole_line(name: str) -> int:
    size = os.path.getsize(name)
    with open(name, "rb") as file:
        position = size
        while position > 0:
            start = max(0, position - 65536)
            file.seek(start)
            newline = file.read(position - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            position = start
    return 0


def read_json_lines(
    path: Path, check: Callable[[Mapping[str, Any]], None] = lambda line: None
) -> list[dict[str, Any]]:
    """Read the whole lines of an append-only file; a torn last line is left out.

    Args:
        path: The file.
        check: Raises ValueError for a line that is not what the file holds.

    Raises:
        ResultsError: A line that is not the last one is damaged, or the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        check_is_readable(path)
        raw = path.read_bytes()
    except OSError as error:
        raise ResultsError(f"cannot read {path}: {error.strerror}") from error
    lines = raw.split(b"\n")
    whole, torn = lines[:-1], lines[-1]
    assert torn == b"" or not raw.endswith(b"\n")
    records = []
    for number, line in enumerate(whole, start=1):
        records.append(checked_line(line, f"{path} line {number}", check))
    return records


def checked_line(
    line: bytes, place: str, check: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Return the mapping that one line of a file of ours holds.

    Args:
        line: JSON.
        place: File and line, for messages.
        check: Raises ValueError for a line that is not what the file holds.

    Raises:
        ResultsError: It is damaged.
    """
    try:
        record = strict_json(line)
        if not isinstance(record, dict):
            raise ValueError("it is no mapping")
        check(record)
    except (ValueError, RecursionError) as error:
        raise _damaged(place, error) from error
    return record


def check_types(line: Mapping[str, Any], wanted: Mapping[str, type | tuple[type, ...]]) -> None:
    """Refuse a line of a file of ours that lacks a key, or has another type under it.

    Raises:
        ValueError: It does.
    """
    for name, kind in wanted.items():
        value = line.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is {shown(value, limit=40)}")


def write_json_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Replace an append-only file by `records`, atomically.

    Raises:
        ResultsError: The disk refuses.
    """
    lines = (json.dumps(r, allow_nan=False, ensure_ascii=False) + "\n" for r in records)
    write_atomic(path, "".join(lines))


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, where json would silently take the last of two equal keys.

    Raises:
        RepeatedKeyError: A key stands twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RepeatedKeyError(f"the key {shown(key)} stands twice")
        found[key] = value
    return found


class RepeatedKeyError(ValueError):
    """A JSON object has a key twice."""


def json_object(line: bytes, place: str, error: type[UserError] = DataError) -> dict[str, Any]:
    """Return the object that one line of a user's file holds.

    Args:
        line: The line.
        place: File and line, for messages.
        error: What is raised.

    Raises:
        UserError: It is not JSON, no object, has a key twice, or holds what is no Unicode text.
    """
    try:
        value = json.loads(line, object_pairs_hook=unique_keys)
        json.dumps(value, ensure_ascii=False).encode()
    except RepeatedKeyError as cause:
        raise error(f"{place}: {cause}") from cause
    except UnicodeDecodeError as cause:
        raise error(f"{place}: is not UTF-8 text") from cause
    except UnicodeError as cause:
        raise error(f"{place}: holds what is no Unicode text") from cause
    except RecursionError as cause:
        raise error(f"{place}: not JSON: nested too deeply") from cause
    except ValueError as cause:
        reason = cause.msg if isinstance(cause, json.JSONDecodeError) else "a number is too long"
        raise error(f"{place}: not JSON: {reason}") from cause
    if not isinstance(value, dict):
        raise error(f"{place}: must be an object, got {type(value).__name__}")
    return value


class WrittenLines(NamedTuple):
    """What a file of JSON lines holds."""

    num_lines: int
    sha256: str


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> WrittenLines:
    """Write JSON lines as they come, for files that may be larger than memory.

    The caller publishes the folder when all of it is written.

    Raises:
        ResultsError: The disk refuses.
    """
    digest, num_lines = hashlib.sha256(), 0
    with readable_os_errors(path), path.open("wb") as file:
        for row in rows:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            digest.update(line)
            file.write(line)
            num_lines += 1
        file.flush()
        os.fsync(file.fileno())
    return WrittenLines(num_lines, digest.hexdigest())


_LOCK_SECONDS = 0.1
_LOCK_TRIES = 3


@contextlib.contextmanager
def exclusive_lock(
    path: Path,
    holder: str,
    while_waiting: Callable[[], None] | None = None,
    tries: int = _LOCK_TRIES,
) -> Iterator[None]:
    """Hold `path` by flock until the block ends or the process dies.

    Args:
        path: The lock file; it stays behind, empty, and means nothing by existing.
        holder: What holds it, for the message.
        while_waiting: Called again and again until the lock is free; without it, no waiting.
        tries: Without waiting, how often it is tried: who only looks whether a lock is held has
            it for a moment.

    Raises:
        LockedError: Another process holds it.
    """
    make_folder(path.parent)
    with readable_os_errors(path):
        file = path.open("a")
    with file:
        while not _locks(file):
            tries -= 1
            if while_waiting is not None:
                while_waiting()
            elif tries <= 0:
                raise LockedError(f"another process is working on {holder} (lock {path})")
            time.sleep(_LOCK_SECONDS)
        yield


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a living process holds a lock; on a shared disk, also one of another machine."""
    try:
        with path.open("a") as file:
            return not _locks(file)
    except OSError:
        return False


def sha256_of_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`: sorted keys, no spaces, no NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def numbered_lines(path: Path, max_bytes: int) -> Iterator[tuple[int, int, bytes]]:
    """Yield number (from 1), offset and content of each line of a user's text file, streamed.

    Raises:
        NotFoundError: There is no such file.
        DataError: It cannot be read, is binary, or a line is longer than `max_bytes`.
    """
    try:
        is_there = path.exists()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{shown(str(path))}: cannot be read: {reason}") from error
    if not is_there:
        # Of the same kind: whatever else lies there is no guess.
        siblings = [p.name for p in path.parent.glob(f"*{glob.escape(path.suffix)}") if p.is_file()]
        hint = f"; {nearest(path.name, siblings)}" if siblings else ""
        raise NotFoundError(f"{path}: no such file{hint}")
    if not path.is_file():
        raise DataError(f"{path}: is no file")
    offset = 0
    try:
        with path.open("rb") as file:
            for number in itertools.count(1):
                line = file.readline(max_bytes + 1)
                if not line:
                    return
                if len(line) > max_bytes:
                    raise DataError(
                        f"{path}, line {number}: a line must have at most {max_bytes:,} bytes"
                    )
                if b"\x00" in line:
                    raise DataError(f"{path}, line {number}: is binary, not text")
                yield number, offset, line
                offset += len(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def steps_of(folder: Path) -> list[int]:
    """Return the numbers of the folders `step_<n>` in a folder, ascending."""
    if not folder.is_dir():
        return []
    steps = (p.name.removeprefix("step_") for p in folder.glob("step_*") if p.is_dir())
    return sorted(int(step) for step in steps if step.isdigit())
