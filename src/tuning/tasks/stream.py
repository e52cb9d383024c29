"""The stream of training examples: example i is a pure function of (data settings, seed, i).

The stream has no length and no epochs. Optimizer step s reads examples s*B to (s+1)*B, so that a
longer run passes through a shorter one, and a run can continue anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.errors import SuiteError
from tuning.tasks import replay, spelling
from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.items import CountTokens, Item
from tuning.tasks.words import keyed_rng


def words_in_band(words: Sequence[str], band: Band, count_tokens: CountTokens) -> tuple[str, ...]:
    """Return the words of one difficulty band, in order."""
    counts = count_tokens(words)
    return tuple(w for w, n in zip(words, counts, strict=True) if band_of(len(w), n) is band)


@dataclass(frozen=True)
class TrainingStream:
    """Spelling and replay examples in a given ratio."""

    spelled_words: Sequence[str]
    """Words of the training split and of one band."""
    replay_words: Sequence[str]
    """Words of the training split that phrases may hold."""
    data_ratio: float
    """Share of spelling examples, (0, 1]."""
    augmentation: bool
    seed: int

    def __post_init__(self) -> None:
        if not self.spelled_words:
            raise SuiteError(
                "no training word is left in this difficulty band; choose another band"
            )

    def example(self, index: int) -> Item:
        """Return example `index`, counted from 0."""
        rng = keyed_rng(self.seed, "train", index)
        if rng.random() >= self.data_ratio:
            return replay.replay_item(self.replay_words, rng)
        word = self.spelled_words[int(rng.random() * len(self.spelled_words))]
        return (
            spelling.augmented_item(word, rng) if self.augmentation else spelling.plain_item(word)
        )

    def step(self, step: int, batch_size: int) -> list[Item]:
        """Return the `batch_size` examples of optimizer step `step`, counted from 0."""
        return [self.example(i) for i in range(step * batch_size, (step + 1) * batch_size)]
