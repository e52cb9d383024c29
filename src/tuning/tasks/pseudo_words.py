"""Pseudo-words: words that no one has seen, so that spelling them cannot be remembered.

Each joins the beginning of one word to the end of another, cut where a vowel meets a consonant. A
pseudo-word belongs to the hard band, and to the split of its own stem.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuning.tasks.words import (
    english_words,
    is_word,
    keyed_rng,
    without_benchmark_words,
)

PSEUDO_SHARE = 0.1
"""Pseudo-words for each word they are made from."""
MIN_PSEUDO_LETTERS = 5
_VOWELS = frozenset("aeiouy")


def pseudo_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return made-up words, about a tenth as many as `words`; a pure function of `words`.

    None is an English word, and none shares a stem with a benchmark word.
    """
    taken = {*english_words(), *words}
    cuts = [(word, places) for word in words if (places := _cuts(word))]
    made: dict[str, None] = {}
    wanted = int(PSEUDO_SHARE * len(words))
    # Twice as many draws as wanted: some join to a real word, or to one too short or too long.
    for index in range(2 * wanted if cuts else 0):
        rng = keyed_rng("pseudo-word", index)
        head, places = cuts[int(rng.random() * len(cuts))]
        begin = head[: places[int(rng.random() * len(places))]]
        tail, places = cuts[int(rng.random() * len(cuts))]
        word = begin + tail[places[int(rng.random() * len(places))] :]
        if len(word) >= MIN_PSEUDO_LETTERS and is_word(word) and word not in taken:
            made[word] = None
    return without_benchmark_words(list(made))[:wanted]


def _cuts(word: str) -> list[int]:
    """Return the places inside `word` where a vowel is followed by a consonant."""
    return [i for i in range(2, len(word) - 1) if word[i - 1] in _VOWELS and word[i] not in _VOWELS]
