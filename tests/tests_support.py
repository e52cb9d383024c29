"""Data that several test files share."""

from __future__ import annotations

import copy
from typing import Any

from conftest import SMALL


def small_mapping() -> dict[str, Any]:
    """Return the small configuration as a mapping of its own."""
    return copy.deepcopy(SMALL)
