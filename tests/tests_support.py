"""Data that several test files share."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from conftest import SMALL


def small_mapping() -> dict[str, Any]:
    """Return the small configuration as a mapping of its own."""
    return copy.deepcopy(SMALL)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Set which."""
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        """Have `pickle` make it."""
        return (os.mkdir, (str(self.path),))


def booby_trapped(path: Path) -> bytes:
    """Return a pickle that makes the folder `path` when it is loaded."""
    import pickle  # noqa: TID251

    return pickle.dumps({"state_dict": Trap(path)})
