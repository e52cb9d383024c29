"""Checkpoints as safetensors and JSON: never a pickle, and either whole or not there.

A Lightning checkpoint is a tree of numbers, names and tensors. The tensors go to one safetensors
file, the tree with their names to JSON; both in a folder that appears by one rename.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, save

from tuning import files
from tuning.errors import ResultsError

_TENSOR = "__tensor__"
_ITEMS = "__items__"


class SafetensorsCheckpointIO(CheckpointIO):
    """Lets Lightning write and read checkpoints of ours."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint folder; one that is already there is replaced.

        Raises:
            ResultsError: The disk refuses; nothing is left half-written.
        """
        folder = Path(path)
        temporary = folder.with_name(f".{folder.name}.partial")
        files.remove_folder(temporary)
        tensors: dict[str, torch.Tensor] = {}
        tree = _take_tensors(checkpoint, tensors, "")
        files.write_atomic(temporary / "tensors.safetensors", save(tensors))
        files.write_json(temporary / "tree.json", tree)
        files.write_atomic(temporary / "sha256.txt", _hashes(temporary))
        files.remove_folder(folder)
        files.publish_folder(temporary, folder)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint folder.

        Raises:
            ResultsError: It is incomplete or damaged.
        """
        folder = Path(path)
        check_is_checkpoint(folder)
        try:
            if _hashes(folder).encode() != (folder / "sha256.txt").read_bytes():
                raise ResultsError(
                    f"checkpoint {folder} is damaged: its files do not match their hashes"
                )
            tensors = load((folder / "tensors.safetensors").read_bytes())
        except (OSError, SafetensorError) as error:
            raise ResultsError(f"checkpoint {folder} is damaged: {error}") from error
        try:
            checkpoint = _put_tensors(files.read_json(folder / "tree.json"), tensors)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = error if isinstance(error, ResultsError) else "its tree names no such tensors"
            raise ResultsError(f"checkpoint {folder} is damaged: {reason}") from error
        if not isinstance(checkpoint, dict):
            raise ResultsError(f"checkpoint {folder} is damaged: its tree is no mapping")
        for key in _KEYS:
            if key not in checkpoint:
                raise ResultsError(f"checkpoint {folder} is none of ours: it holds no {key}")
        for key in ("global_step", "num_tokens"):
            if type(checkpoint[key]) is not int or checkpoint[key] < 0:
                raise ResultsError(
                    f"checkpoint {folder} is none of ours: {key} is {checkpoint[key]!r}"
                )
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint folder."""
        files.remove_folder(Path(path))


_NAMES = ("tensors.safetensors", "tree.json")
_KEYS = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "loops", "num_tokens")
"""What a run cannot go on without."""


def check_is_checkpoint(folder: Path) -> None:
    """Refuse what is no checkpoint of ours by its looks; reads nothing of it.

    Raises:
        ResultsError: It is not there, is a file, or lacks one of ours.
    """
    if folder.is_file():
        raise ResultsError(
            f"{folder} is a file, and a checkpoint of ours is a folder with "
            f"{' and '.join(_NAMES)}; it is not read: other formats can run code"
        )
    if not folder.is_dir():
        raise ResultsError(f"there is no checkpoint {folder}")
    for name in (*_NAMES, "sha256.txt"):
        if not (folder / name).is_file():
            raise ResultsError(f"checkpoint {folder} is damaged: {name} is missing")


def _hashes(folder: Path) -> str:
    return "".join(f"{files.sha256_of_file(folder / name)}  {name}\n" for name in _NAMES)


def _take_tensors(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """Return `value` with every tensor replaced by its name, and collect the tensors."""
    if isinstance(value, torch.Tensor):
        # A copy, as callbacks keep one tensor under several names, which no file may.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {_TENSOR: name}
    if isinstance(value, dict):
        items = [(k, _take_tensors(v, tensors, f"{name}/{k}")) for k, v in value.items()]
        return dict(items) if all(isinstance(k, str) for k in value) else {_ITEMS: items}
    if isinstance(value, list | tuple):
        return [_take_tensors(v, tensors, f"{name}/{i}") for i, v in enumerate(value)]
    assert value is None or isinstance(value, str | int | float | bool), f"{name}: {type(value)}"
    return value


def _put_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_put_tensors(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensors[value[_TENSOR]]
    if _ITEMS in value:
        return {k: _put_tensors(v, tensors) for k, v in value[_ITEMS]}
    return {k: _put_tensors(v, tensors) for k, v in value.items()}
