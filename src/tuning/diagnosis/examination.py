"""All checks, in the order in which a person would mend what they find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tuning.diagnosis import hardware, installation, services, sources, storage
from tuning.diagnosis.checks import Check, State, looked
from tuning.known_models import PACKAGED_MODELS


def examine(results_dir: Path, *, online: bool = False) -> list[Check]:
    """Return what every check finds; the only thing written is removed again.

    Args:
        results_dir: Where results would go.
        online: Also ask whether the Hugging Face Hub answers; else no network is used.
    """
    looks: dict[str, Callable[[], Check]] = {
        "python": installation.look_at_python,
        "packages": partial(installation.look_at_packages, installation.checkout()),
        **{f"extra {x}": partial(installation.look_at_extra, x) for x in installation.PURPOSES},
        "results": partial(storage.look_at_results_folder, results_dir),
        "disk": partial(storage.look_at_disk, results_dir),
        "memory": hardware.look_at_memory,
        "cores": hardware.look_at_cores,
        "gpu": hardware.look_at_gpu,
        "tiny": sources.look_at_tiny,
        "hub": sources.look_at_hub_cache,
        **({"hub online": sources.look_at_hub_online} if online else {}),
        **{name: partial(sources.look_at_packaged_model, name) for name in PACKAGED_MODELS},
        "wandb": services.look_at_wandb,
        "lightning": services.look_at_lightning,
    }
    return [looked(name, look) for name, look in looks.items()]


def can_run(checks: Sequence[Check]) -> bool:
    """Whether nothing stands in the way of trials on this machine."""
    return all(check.state is not State.FAILURE for check in checks)
