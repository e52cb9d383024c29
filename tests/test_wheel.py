"""What ships: the wheel and the archive of sources, and that the program runs from a wheel alone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def tracked(*under: str) -> set[str]:
    """Return the files of the repository; skip where this is no checkout."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run([*command, *under], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("this is no checkout")
    return {name for name in done.stdout.splitlines() if (ROOT / name).is_file()}


def built(kind: str, source: Path, folder: Path) -> Path:
    """Build a wheel or an archive of sources, without a network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


def files_of(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("RECORD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    package = {name.removeprefix("src/") for name in tracked("src/tuning")}
    configs = {f"tuning/{name}" for name in tracked("configs")}
    about = {
        f"tuning-0.1.0.dist-info/{name}"
        for name in ("METADATA", "WHEEL", "entry_points.txt", "licenses/LICENSE", "licenses/NOTICE")
    }
    assert "tuning/py.typed" in package
    assert files_of(wheel) == package | configs | about


def test_the_archive_of_sources_holds_the_repository(tmp_path: Path) -> None:
    wanted = tracked()
    with tarfile.open(built("sdist", ROOT, tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == wanted | {"PKG-INFO"}


def notices() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notices", ROOT / "tools" / "notices.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notice_names_every_package_that_is_needed_and_all_data() -> None:
    text = (ROOT / "NOTICE").read_text("utf-8")
    for name in notices().direct_packages():
        assert re.search(rf"^{re.escape(name)}\b", text, re.MULTILINE), f"{name}: make notices"
    for path in (ROOT / "src" / "tuning" / "data").iterdir():
        assert path.name in text, path


def test_the_version_has_one_source() -> None:
    import tomllib

    stated = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    said = subprocess.run(
        [sys.executable, "-m", "tuning", "--version"], capture_output=True, text=True, check=True
    )
    assert said.stdout == f"tuning {stated}\n"


# --- the program from a wheel -------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel alone; what it needs is that of this environment, our checkout is not."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False, symlinks=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = place / "lib" / version / "site-packages"
    # A .pth that is found through another one is not read: the checkout stays unknown.
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()))
    command = [sys.executable, "-m", "pip", "--python", str(place), "install", "--quiet"]
    subprocess.run([*command, "--no-deps", "--no-index", str(wheel)], check=True)
    for path in sorted((packages / "tuning").rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    return place


QUICK = {
    "strategy": "one_at_a_time",
    "replicates_of_default": 1,
    "step_scale": 0.004,
    "experiment": {
        "tokenizer_config": {"model_name": "tiny"},
        "evaluation_config": {"num_words": 12, "num_monitor_words": 3, "num_generated_items": 3},
    },
    "HPARAM_CANDIDATES": {"lora_r": [4]},
}

STEPS: list[list[str]] = [
    ["--version"],
    ["config", "show", "models=tiny"],
    ["config", "validate", "own.yaml"],
    ["space", "count", "default"],
    ["study", "run", "--space", "quick", "--quiet"],
    ["study", "status", "quick"],
    ["report", "quick", "--quiet"],
    ["doctor"],
]


@pytest.mark.nightly
def test_a_wheel_outside_of_the_checkout_searches_and_reports(
    installed: Path, tmp_path: Path
) -> None:
    spaces = tmp_path / "configs" / "hyperparameters" / "search_spaces"
    spaces.mkdir(parents=True)
    (spaces / "quick.yaml").write_text(yaml.safe_dump(QUICK))
    (tmp_path / "own.yaml").write_text("experiment_name: own\n")
    package = next(installed.glob("lib/*/site-packages/tuning"))
    before = state_of(package)
    for step in STEPS:
        done = ran(installed, tmp_path, *step)
        assert done.returncode == 0, f"{step}\n{done.stderr}\n{done.stdout}"
        assert done.stdout.strip(), step
    assert state_of(package) == before
    assert (tmp_path / "results" / "tuning" / "reports" / "quick.html").is_file()
    said = json.loads(ran(installed, tmp_path, "doctor", "--json").stdout)
    packages = next(check for check in said["checks"] if check["name"] == "packages")
    assert packages["says"].endswith("in the ranges that tuning asks for")


def ran(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(installed / "bin" / "tuning"), *arguments],
        cwd=folder,
        env={**env, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def state_of(folder: Path) -> dict[str, Any]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*")}


@pytest.mark.nightly
def test_the_archive_of_sources_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "sdist").mkdir()
    archive = built("sdist", ROOT, tmp_path / "sdist")
    shutil.unpack_archive(archive, tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    again = built("wheel", source, tmp_path / "again")
    assert files_of(again) == files_of(wheel)
