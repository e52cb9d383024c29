"""Python and packages, looked at by processes that really have them otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuning.diagnosis import installation
from tuning.diagnosis.checks import State


def plant(folder: Path, name: str, version: str) -> None:
    """Have a package seem installed in a version; found before the real one."""
    place = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def packages_seen(folder: Path, root: Path | None) -> dict[str, str]:
    code = (
        "import dataclasses, json, pathlib, sys\n"
        "from tuning.diagnosis.installation import look_at_packages\n"
        "root = pathlib.Path(sys.argv[1]) if sys.argv[1:] else None\n"
        "print(json.dumps(dataclasses.asdict(look_at_packages(root))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *([str(root)] if root else [])],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def test_a_package_outside_its_range_is_named_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    plant(tmp_path, "numpy", "1.26.4")
    found = packages_seen(tmp_path, None)
    assert found["state"] == "failure"
    assert found["says"] == "numpy 1.26.4 must be >=2"
    assert found["todo"] == "pip install 'numpy>=2'"


def test_a_package_that_is_pinned_otherwise_is_a_warning_in_a_checkout(tmp_path: Path) -> None:
    root = tmp_path / "checkout with a space"
    root.mkdir()
    (root / "constraints.txt").write_text("# exact\nnumpy==2.0.1\nnot-here==1\n")
    plant(tmp_path / "other", "numpy", "2.0.2")
    found = packages_seen(tmp_path / "other", root)
    assert found["state"] == "warning"
    assert found["says"] == "other versions: numpy 2.0.2, not 2.0.1"
    assert found["todo"] == f"pip install -c '{root}/constraints.txt' -e '{root}'"


def test_a_build_of_a_pinned_version_is_that_version(tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("torch==2.9.0\n")
    plant(tmp_path / "other", "torch", "2.9.0+cpu")
    assert packages_seen(tmp_path / "other", tmp_path)["state"] == "ok"


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["not-at-all-there>=3", "numpy", "no-such; extra == 'dev'", "other; python_version<'3'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: texts)
    found = installation.look_at_packages()
    assert found.state is State.FAILURE
    assert found.says == "not-at-all-there is missing"
    assert found.todo == "pip install 'not-at-all-there>=3'"


def test_an_extra_is_a_note_until_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["numpy", "not-at-all-there>=3; extra == 'ray'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: texts)
    found = installation.look_at_extra("ray")
    assert (found.state, found.todo) == (State.NOTE, "pip install 'tuning[ray]'")
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy>=2; extra == 'ray'"])
    assert installation.look_at_extra("ray").state is State.OK
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy>99; extra == 'ray'"])
    assert installation.look_at_extra("ray").state is State.WARNING


def test_every_extra_for_users_has_its_purpose() -> None:
    from importlib.metadata import metadata

    extras = set(metadata("tuning").get_all("Provides-Extra") or [])
    assert set(installation.PURPOSES) == extras - {"dev"}


def test_a_checkout_is_told_from_a_wheel(tmp_path: Path) -> None:
    package = tmp_path / "src" / "tuning"
    assert installation.checkout(package) is None
    (tmp_path / "pyproject.toml").touch()
    assert installation.checkout(package) == tmp_path
    assert installation.checkout(tmp_path / "site-packages" / "tuning") is None


def test_an_interpreter_that_is_shared_or_old_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    shared = installation.look_at_python()
    assert shared.state is State.WARNING
    assert "no virtual environment" in shared.says
    assert "-m venv .venv" in str(shared.todo)
    monkeypatch.setattr(installation, "OLDEST_PYTHON", (3, 99))
    assert installation.look_at_python().state is State.FAILURE
