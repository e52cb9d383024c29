"""A checkpoint that is not ours, or not of this run: one clear line, and nothing is executed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_support import adapter_of, experiment_file, only_training
from safetensors.torch import load, save

from tests_support import Trap, booby_trapped
from tuning import files
from tuning.model.base import subject_words
from tuning.tasks.splits import Split, split_subjects
from tuning.training.cli import main


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    config = str(experiment_file(folder))
    assert main(["fit", "--config", config, "--results-dir", str(folder / "results")]) == 0
    return folder


def rewritten(folder: Path, tree: Callable[[dict], object] | None, tensors: bytes | None) -> None:
    """Change a checkpoint as one could who knows our format: its hashes fit."""
    if tree is not None:
        content = json.loads((folder / "tree.json").read_text())
        changed = tree(content)
        (folder / "tree.json").write_text(json.dumps(content if changed is None else changed))
    if tensors is not None:
        (folder / "tensors.safetensors").write_bytes(tensors)
    names = ("tensors.safetensors", "tree.json")
    lines = [f"{files.sha256_of_file(folder / name)}  {name}\n" for name in names]
    (folder / "sha256.txt").write_text("".join(lines))


def without_one(tensors: bytes) -> bytes:
    held = load(tensors)
    del held[min(name for name in held if "state_dict" in name)]
    return save(held)


def with_nan(tensors: bytes) -> bytes:
    held = load(tensors)
    name = min(name for name in held if "state_dict" in name)
    held[name] = torch.full_like(held[name], float("nan"))
    return save(held)


def pickle_file(path: Path, trap: Path) -> Path:
    shutil.rmtree(path)
    torch.save({"state_dict": Trap(trap), "hyper_parameters": Trap(trap)}, path)
    return path


def no_key(key: str) -> Callable[[Path, Path], None]:
    return lambda path, trap: rewritten(path, lambda tree: tree.pop(key) and None, None)


DAMAGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "a Lightning checkpoint": (pickle_file, "is a file"),
    "a pickle as safetensors": (
        lambda path, trap: rewritten(path, None, booby_trapped(trap)),
        "is damaged",
    ),
    "a truncated file": (
        lambda path, trap: rewritten(
            path, None, (path / "tensors.safetensors").read_bytes()[:-100]
        ),
        "is damaged",
    ),
    "a flipped byte": (
        lambda path, trap: (path / "tree.json").write_bytes(
            (path / "tree.json").read_bytes().replace(b"6", b"7", 1)
        ),
        "do not match their hashes",
    ),
    "a missing file": (lambda path, trap: (path / "tree.json").unlink(), "tree.json is missing"),
    "nothing there": (lambda path, trap: shutil.rmtree(path), "there is no checkpoint"),
    "a tree that is a list": (
        lambda path, trap: rewritten(path, lambda t: [1], None),
        "no mapping",
    ),
    "no weights": (no_key("state_dict"), "it holds no state_dict"),
    "no optimiser": (no_key("optimizer_states"), "it holds no optimizer_states"),
    "a tensor less": (
        lambda path, trap: rewritten(
            path, None, without_one((path / "tensors.safetensors").read_bytes())
        ),
        "is damaged",
    ),
    "a step in words": (
        lambda path, trap: rewritten(path, lambda t: t.update(global_step="x"), None),
        "global_step is 'x'",
    ),
    "no numbers": (
        lambda path, trap: rewritten(
            path, None, with_nan((path / "tensors.safetensors").read_bytes())
        ),
        "values that are no numbers",
    ),
    "another base": (
        lambda path, trap: rewritten(path, lambda t: t.update(base="qwen3-4b 0123"), None),
        "another base model: qwen3-4b 0123, now tiny",
    ),
    "a strange key": (
        lambda path, trap: rewritten(
            path,
            lambda t: t["state_dict"].update(evil=next(iter(t["state_dict"].values()))),
            None,
        ),
        "evil is unexpected",
    ),
    "a missing key": (
        lambda path, trap: rewritten(path, lambda t: t["state_dict"].popitem() and None, None),
        "is missing",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_no_checkpoint_of_ours_is_refused_in_one_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    spoil, says = DAMAGES[damage]
    path = tmp_path / "step_6"
    shutil.copytree(only_training(trained / "results").checkpoint(6), path)
    spoil(path, tmp_path / "ran")
    arguments = ["--config", str(trained / "exp.yaml"), "--ckpt_path", str(path)]
    assert main(["validate", *arguments, "--results-dir", str(tmp_path / "results")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tuning: ")
    assert said.count("\n") == 1
    assert says in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("lora_config.r=8", "not (8, 128)"),
        ("lora_config.target_modules=[q_proj]", "is unexpected"),
        ("lora_config.target_modules=[q_proj,k_proj,v_proj,o_proj,up_proj]", "is missing"),
        ("training_config.learning_rate=0.0005", "belongs to training"),
        ("training_config.seed=1", "belongs to training"),
        ("training_config.max_steps=3", "is of step 6, past max_steps, 3"),
    ],
)
def test_a_checkpoint_of_another_run_does_not_go_on_in_this_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    path = only_training(trained / "results").checkpoint(6)
    arguments = ["--config", str(trained / "exp.yaml"), "--ckpt_path", str(path), change]
    arguments += ["--results-dir", str(tmp_path / "results")]
    assert main(["fit", *arguments]) == 2
    assert not (tmp_path / "results").exists()
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_a_checkpoint_goes_on_elsewhere_and_two_copies_of_the_data_are_one(tmp_path: Path) -> None:
    config = experiment_file(tmp_path)
    words = "\n".join(split_subjects(subject_words("tiny"))[Split.TRAIN].real[:60])
    places = [tmp_path / "disk" / "a", tmp_path / "mounted" / "elsewhere"]
    for place in places:
        place.mkdir(parents=True)
        (place / "words.txt").write_text(words)

    def fit(place: Path, steps: int, *more: str) -> Path:
        own = f"spelling_config.word_list={place / 'words.txt'}"
        arguments = ["--config", str(config), "--results-dir", str(place / "results"), own]
        assert main(["fit", *arguments, f"training_config.max_steps={steps}", *more]) == 0
        return place / "results"

    first = only_training(fit(places[0], 3))
    # Written here, copied by a file system, read there under another name.
    shutil.copytree(first.checkpoint(3), places[1] / "step_3")
    away = only_training(fit(places[1], 6, "--ckpt_path", str(places[1] / "step_3")))
    shutil.copy(places[0] / "words.txt", tmp_path)
    whole = only_training(fit(tmp_path, 6))
    assert first.root.name == away.root.name == whole.root.name
    # Lines too, those before the checkpoint among them; a run's last step has its loss written.
    lines = [files.read_json_lines(folder.progress) for folder in (away, whole)]
    assert [x for x in lines[0] if (x["step"], x["kind"]) != (3, "train")] == lines[1]
    expected, found = adapter_of(whole, 6), adapter_of(away, 6)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
