"""What tests of the cloud's commands share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import Done, in_process

from cloud_support import address, client_env, write_settings
from lightning_server import Cloud

Program = Callable[..., Done]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """Yield an empty cloud at the address of this process."""
    with address().holding(tmp_path / "cloud") as cloud:
        write_settings(tmp_path / "configs", cloud)
        yield cloud
        assert cloud.unknown == []
        assert cloud.telemetry == []


@pytest.fixture
def in_cloud(
    cloud: Cloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Program:
    """Return a function that runs the program in this process, on a cloud on loopback.

    The SDK waits whole seconds between two looks; here it waits a twentieth.
    """
    run = in_process(tmp_path, monkeypatch, capsys)
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(min(seconds, 0.05)))
    for name, value in client_env(cloud.url, tmp_path).items():
        monkeypatch.setenv(name, value)

    def program(*arguments: str, expect: int = 0, **env: str) -> Done:
        folders = ["--results-dir", str(tmp_path / "r"), "--config-dir", str(tmp_path / "configs")]
        place = arguments.index("--") if "--" in arguments else len(arguments)
        with monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            done = run(*arguments[:place], *folders, *arguments[place:])
        assert done.returncode == expect, (done.stdout, done.stderr[-3000:])
        return done

    return program
