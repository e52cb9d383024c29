"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Accuracies of one trial on the way, on the small monitor suite."""

    label: str
    trial_id: str
    training_key: str
    parameters: Mapping[str, Any]
    steps: Sequence[int]
    examples: Sequence[int]
    accuracies: Mapping[str, Sequence[float]]
    num_words: int
