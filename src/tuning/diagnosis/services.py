"""Whether there are keys for Weights & Biases and Lightning.AI; never what they are."""

from __future__ import annotations

import importlib.util
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tuning.diagnosis.checks import Check, note, ok, warning

_WANDB_HOST = "api.wandb.ai"
_WANDB_MODES = ("online", "offline", "disabled", "shared", "dryrun")
_HOW_TO_LOG_IN_TO_WANDB = "wandb login, or set WANDB_API_KEY"


def look_at_wandb(env: Mapping[str, str] | None = None) -> Check:
    """Return whether runs are written for Weights & Biases, and whether they could be sent.

    Args:
        env: The environment; this process's by default.
    """
    env = os.environ if env is None else env
    if importlib.util.find_spec("wandb") is None:
        return note("wandb", "not installed: studies write no runs", "pip install 'tuning[wandb]'")
    mode = env.get("WANDB_MODE") or "offline"
    if mode not in _WANDB_MODES:
        says = "WANDB_MODE is none of online, offline and disabled"
        return warning("wandb", says, "export WANDB_MODE=offline")
    if mode == "disabled":
        todo = "unset WANDB_MODE, to have studies write runs"
        return note("wandb", "disabled by WANDB_MODE: studies write no runs", todo)
    source = _wandb_source(env)
    says = f"runs are written {mode}, key in {source}" if source else f"runs are written {mode}"
    if source is not None:
        return ok("wandb", says)
    if mode == "online":
        return warning("wandb", f"{says}, but there is no key", _HOW_TO_LOG_IN_TO_WANDB)
    return note("wandb", f"{says}; no key to send them with", _HOW_TO_LOG_IN_TO_WANDB)


def look_at_lightning(env: Mapping[str, str] | None = None) -> Check:
    """Return whether there is a key for Lightning.AI.

    Args:
        env: The environment; this process's by default.
    """
    from tuning.lightning_integration import HOW_TO_LOG_IN, credentials

    key = credentials(env)
    if not key.is_there:
        says = "no key; jobs of the cloud can be planned, not submitted"
        return note("lightning", says, f"{HOW_TO_LOG_IN}; then: tuning lightning doctor")
    return ok("lightning", f"key in {key.source}; more says: tuning lightning doctor")


def _wandb_source(env: Mapping[str, str]) -> str | None:
    """Return where a key is, as wandb would look for it, or None."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        if env.get(name):
            return name
    try:
        host = urlsplit(env.get("WANDB_BASE_URL", "")).hostname or _WANDB_HOST
        given = [Path(env["NETRC"])] if env.get("NETRC") else [Path("~/.netrc"), Path("~/_netrc")]
        for path in (p.expanduser() for p in given):
            if path.is_file() and host in netrc.netrc(path).hosts:
                return str(path)
    except (netrc.NetrcParseError, OSError, ValueError, RuntimeError):
        # What is wrong with it could only be said with a part of it.
        return None
    return None
