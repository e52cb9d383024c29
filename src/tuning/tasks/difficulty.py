"""Difficulty bands: one definition for training data and for reports."""

from __future__ import annotations

from enum import StrEnum


class Band(StrEnum):
    """How hard a word is to spell, by its letters and by how the tokenizer cuts it."""

    EASY = "easy"
    MEDIUM = "medium"
    HARD = "hard"


def band_of(num_letters: int, num_tokens: int, *, is_pseudo_word: bool = False) -> Band:
    """Return the band of a word.

    Args:
        num_letters: Letters of the word.
        num_tokens: Tokens of the word in the form with a leading space.
        is_pseudo_word: Whether the word was made up.

    Returns:
        hard: 9 letters or more, or 4 tokens or more, or a pseudo-word; easy: 3 to 5 letters in at
        most 2 tokens; medium: everything else.
    """
    if is_pseudo_word or num_letters >= 9 or num_tokens >= 4:
        return Band.HARD
    if 3 <= num_letters <= 5 and num_tokens <= 2:
        return Band.EASY
    return Band.MEDIUM
