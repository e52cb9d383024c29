"""Keys are found and never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuning.diagnosis import services
from tuning.diagnosis.checks import State


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_key_in_a_variable_is_found_and_not_shown(home: Path) -> None:
    found = services.look_at_wandb({"WANDB_API_KEY": "MARKER", "WANDB_MODE": "online"})
    assert found.state is State.OK
    assert "WANDB_API_KEY" in found.says
    assert "MARKER" not in str(found)


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_a_key_in_a_netrc_is_found_and_not_shown(home: Path, name: str) -> None:
    (home / name).write_text("machine api.wandb.ai\n  login user\n  password MARKER\n")
    env = {"NETRC": str(home / name)} if name == "elsewhere" else {}
    found = services.look_at_wandb(env)
    assert found.state is State.OK
    assert str(home / name) in found.says
    assert "MARKER" not in str(found)


@pytest.mark.parametrize(
    "content", ["machine elsewhere login a password MARKER", "machine MARKER no sense", "\xff"]
)
def test_a_netrc_of_others_or_a_damaged_one_is_no_key(home: Path, content: str) -> None:
    (home / ".netrc").write_bytes(content.encode("latin-1"))
    found = services.look_at_wandb({})
    assert found.state is State.NOTE
    assert "MARKER" not in str(found)


def test_a_server_of_ones_own_has_its_own_key(home: Path) -> None:
    (home / ".netrc").write_text("machine wandb.example login user password MARKER\n")
    assert services.look_at_wandb({}).state is State.NOTE
    found = services.look_at_wandb({"WANDB_BASE_URL": "https://wandb.example:8080"})
    assert found.state is State.OK


@pytest.mark.parametrize(
    ("mode", "state"),
    [("online", State.WARNING), ("disabled", State.NOTE), ("MARKER", State.WARNING)],
)
def test_a_mode_that_sends_needs_a_key(home: Path, mode: str, state: State) -> None:
    found = services.look_at_wandb({"WANDB_MODE": mode})
    assert found.state is state
    assert found.todo
    assert "MARKER" not in str(found)


def test_lightning_has_a_key_or_says_how_to_have_one(home: Path) -> None:
    found = services.look_at_lightning({"LIGHTNING_API_KEY": "MARKER"})
    assert found.state is State.OK
    assert "tuning lightning doctor" in found.says
    assert "MARKER" not in str(found)
    none = services.look_at_lightning({})
    assert none.state is State.NOTE
    assert "LIGHTNING_API_KEY" in str(none.todo)
