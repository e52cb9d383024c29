"""Where results go: folders that cannot be written, or that keep no lock."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuning.diagnosis import storage
from tuning.diagnosis.checks import State


def test_a_folder_that_does_not_exist_is_looked_at_and_not_made(tmp_path: Path) -> None:
    found = storage.look_at_results_folder(tmp_path / "results" / "tuning")
    assert found.state is State.OK
    assert str(tmp_path) in found.says
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    found = storage.look_at_results_folder(tmp_path / "results")
    assert found.state is State.FAILURE
    assert "--results-dir" in str(found.todo)
    assert (tmp_path / "results").read_text() == "in the way"


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that may not be written, also by root; skip where none can be made."""
    folder = tmp_path / "locked"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=100k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_an_unwritable_folder_is_a_failure_with_what_to_do(unwritable: Path) -> None:
    found = storage.look_at_results_folder(unwritable)
    assert found.state is State.FAILURE
    assert f"{unwritable} cannot be written" in found.says
    assert str(found.todo).startswith(f"chmod u+w {unwritable}")


def test_locks_that_keep_nobody_out_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", lambda file, how: None)
    found = storage.look_at_results_folder(tmp_path)
    assert found.state is State.FAILURE
    assert "do not keep another process out" in found.says
    assert list(tmp_path.iterdir()) == []


def test_locks_that_the_file_system_does_not_know_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: object, how: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    found = storage.look_at_results_folder(tmp_path)
    assert found.says.endswith("locks (flock) do not work: Operation not supported")


def test_little_room_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.look_at_disk(tmp_path / "new").says.endswith(str(tmp_path))
    monkeypatch.setattr(storage, "_ENOUGH_DISK", 1e30)
    found = storage.look_at_disk(tmp_path)
    assert found.state is State.WARNING
    assert "tuning study clean" in str(found.todo)
