"""`tuning doctor` as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from cli_support import Program

MARKER = "never-to-be-shown"


def test_a_machine_that_is_well_has_a_line_for_every_check(
    program: Program, tmp_path: Path
) -> None:
    done = program("doctor")
    assert done.returncode == 0, done.stdout
    for name in ("python", "packages", "extra ray", "disk", "results", "memory", "cores", "gpu"):
        assert f"  {name}" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("tuning demo")
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ok_says_what_to_do(program: Program, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    done = program("doctor", "--json", "--results-dir", tmp_path / "results")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert answer["is_ready"] is False
    states = {check["name"]: check["state"] for check in answer["checks"]}
    assert states["results"] == "failure"
    assert states["tiny"] == "ok"
    assert all(check["todo"] for check in answer["checks"] if check["state"] != "ok")


def test_a_process_shows_no_key_uses_no_network_and_loads_no_torch(tmp_path: Path) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*_):\n    raise AssertionError('the network was used')\n"
        "socket.socket.connect = refuse\nsocket.getaddrinfo = refuse\n"
        "from tuning.cli.main import main\n"
        "sys.argv = ['tuning', 'doctor']\n"
        "try:\n    main()\nfinally:\n"
        "    from tuning.diagnosis import hardware\n"
        "    if not any(p.exists() for p in hardware._DEVICES):\n"
        "        assert 'torch' not in sys.modules\n"
    )
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {MARKER}\n")
    names = ("WANDB_API_KEY", "LIGHTNING_API_KEY", "LIGHTNING_USER_ID", "HF_TOKEN")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **dict.fromkeys(names, MARKER), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WANDB_API_KEY" not in done.stderr
    assert "key in LIGHTNING_API_KEY" in done.stdout
    assert MARKER not in done.stdout + done.stderr
