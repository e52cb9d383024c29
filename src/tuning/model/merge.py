"""Merging: a base model and an adapter become one folder that loads like any other model."""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file

from tuning import files
from tuning.errors import ModelError
from tuning.model.base import read_base
from tuning.model.hub import FETCHED, found_or_fetched
from tuning.model.lora import stored_adapter


def merge_adapter(name: str, adapter: Path, output: Path) -> None:
    """Write the merged model to a new folder, in fp32, or leave nothing.

    Args:
        name: The base model.
        adapter: Folder of an adapter in PEFT's format.
        output: The new folder.

    Raises:
        ModelError: The model or the adapter cannot be had, or do not fit.
        ResultsError: The folder exists, or cannot be written.
    """
    if output.exists():
        raise ModelError(f"{output} exists; name a new folder")
    # Merging changes weights in place, so the base is read anew: a cached one is shared.
    base = read_base(name, "32-true")
    with stored_adapter(base, adapter) as adapted:
        adapted.merge_adapter(safe_merge=True)
        tensors = {
            key.replace(".base_layer.", "."): tensor.detach().contiguous()
            for key, tensor in base.network.state_dict().items()
            if "lora_" not in key
        }
    if base.network.config.tie_word_embeddings:
        tensors.pop("lm_head.weight", None)
    temporary = output.with_name(f".{output.name}.partial")
    files.remove_folder(temporary)
    files.make_folder(temporary)
    with files.readable_os_errors(output):
        save_file(tensors, str(temporary / "model.safetensors"), metadata={"format": "pt"})
        files.readable_by_all(temporary / "model.safetensors")
        _copy_the_rest(found_or_fetched(name), temporary)
    files.publish_folder(temporary, output)


def _copy_the_rest(source: Path, target: Path) -> None:
    """Copy configuration, tokenizer, template and word lists: all but weights."""
    for path in source.iterdir():
        is_weights = ".safetensors" in path.suffixes
        if path.suffix in (".json", ".txt", ".jinja", ".model") and not is_weights:
            if path.name not in (FETCHED, "model.safetensors.index.json"):
                shutil.copyfile(path, target / path.name)
    card = target / "card.json"
    if card.is_file():
        about = files.read_json(card)
        about["weights_sha256"] = files.sha256_of_file(target / "model.safetensors")
        about["name"] = f"{about['name']}, merged"
        files.write_json(card, about)
