"""The stream of training examples: example i is a pure function of (data settings, seed, i).

The stream has no length and no epochs. Optimizer step s reads examples s*B to (s+1)*B, so that a
longer run passes through a shorter one, and a run can continue anywhere.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tuning.errors import DataError
from tuning.tasks import count, position, spelling
from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.items import CountTokens, Item, Task, trained
from tuning.tasks.leak_scan import check_item
from tuning.tasks.replay import Replay
from tuning.tasks.words import keyed_rng


class Arm(StrEnum):
    """What takes the place of spelling among the training examples."""

    SPELLING = "spelling"
    FORMAT_CONTROL = "format_control"
    """The same questions; the answers have the letters of another word of the same length."""
    DIRECT = "direct"
    """Position and count of the same words, as many tokens: the ceiling."""


def words_in_band(
    words: Sequence[str], band: Band, count_tokens: CountTokens, pseudo: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the words of one difficulty band, in order.

    Args:
        words: The words.
        band: The band wanted.
        count_tokens: The model's tokenizer.
        pseudo: Those of `words` that are made up; they are hard whatever their length.
    """
    counts = count_tokens(words)
    return tuple(
        w
        for w, n in zip(words, counts, strict=True)
        if band_of(len(w), n, is_pseudo_word=w in pseudo) is band
    )


_POSITION_TEMPLATES = trained(position.TEMPLATES)
_COUNT_TEMPLATES = trained(count.TEMPLATES)


@dataclass(frozen=True)
class TrainingStream:
    """Spelling and replay examples in a given ratio."""

    spelled_words: Sequence[str]
    """Words of the training split and of one band."""
    replay: Replay
    data_ratio: float
    """Share of examples that are not replay, (0, 1]."""
    augmentation: bool
    seed: int
    arm: Arm = Arm.SPELLING

    def __post_init__(self) -> None:
        if not self.spelled_words:
            raise DataError("no training word is left in this difficulty band; choose another band")
        if self.arm is Arm.FORMAT_CONTROL:
            for length, words in self._by_length.items():
                if len(words) < 2:
                    raise DataError(
                        f"format_control needs at least 2 words of each length to swap letters "
                        f"between, got only {words[0]!r} with {length} letters"
                    )

    @functools.cached_property
    def _by_length(self) -> Mapping[int, Sequence[str]]:
        lengths: dict[int, list[str]] = {}
        for word in self.spelled_words:
            lengths.setdefault(len(word), []).append(word)
        return lengths

    def example(self, index: int) -> Item:
        """Return example `index`, counted from 0.

        Index by index, all arms have the same replay items and the same words.
        """
        rng = keyed_rng(self.seed, "train", index)
        if rng.random() >= self.data_ratio:
            return self.replay.item(rng)
        word = self.spelled_words[int(rng.random() * len(self.spelled_words))]
        if self.arm is Arm.DIRECT:
            return _direct_item(word, rng)
        item = (
            spelling.augmented_item(word, rng) if self.augmentation else spelling.plain_item(word)
        )
        if self.arm is Arm.FORMAT_CONTROL:
            return spelling.with_letters_of(item, self._other_word(word, index))
        return item

    def _other_word(self, word: str, index: int) -> str:
        """Return another word of the same length; its own generator leaves the example as it is."""
        words = self._by_length[len(word)]
        rng = keyed_rng(self.seed, "format-control", index)
        other = words[int(rng.random() * (len(words) - 1))]
        # Uniform over the others: the last one stands in where the word itself was drawn.
        return words[-1] if other == word else other

    def step(self, step: int, batch_size: int) -> list[Item]:
        """Return the `batch_size` examples of optimizer step `step`, counted from 0."""
        return [self.example(i) for i in range(step * batch_size, (step + 1) * batch_size)]

    def more_direct(self, step: int, items: Sequence[Item]) -> Iterator[Item]:
        """Yield more position and count items on the words of a step, without end.

        They are shorter than spellings: the direct arm needs more of them for as many tokens.
        """
        words = [item.word for item in items if item.task is not Task.REPLAY]
        for number in itertools.count() if words else ():
            rng = keyed_rng(self.seed, "more-direct", step, number)
            yield _direct_item(words[number % len(words)], rng)


def _direct_item(word: str, rng: random.Random) -> Item:
    if rng.random() < 0.5:
        return position.random_item(word, rng, _POSITION_TEMPLATES)
    return count.random_item(word, rng, _COUNT_TEMPLATES)


class TrainingText(NamedTuple):
    """What a run trains on, read from end to end."""

    num_examples: int
    num_replay: int
    words: frozenset[str]
    """Words that were spelled, or asked about."""


def read_training_text(stream: TrainingStream, num_examples: int) -> TrainingText:
    """Read the first `num_examples` of a stream, as a run will, and scan them for leaks.

    The direct arm is what it is, and not scanned.

    Raises:
        LeakError: A text teaches position, count, length, contents or numbered letters.
    """
    num_replay, words = 0, set()
    for index in range(num_examples):
        item = stream.example(index)
        if stream.arm is not Arm.DIRECT:
            check_item(item)
        if item.task is Task.REPLAY:
            num_replay += 1
        else:
            words.add(item.word)
    return TrainingText(num_examples, num_replay, frozenset(words))
