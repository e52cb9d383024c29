"""Letter position: which letter stands at position n. Positions are 1-based everywhere."""

from __future__ import annotations

import random

from tuning.tasks.items import Item, Task, Template

TEMPLATES = (
    Template("number", "What is letter number {n} of {word}? Answer with only the letter.\n"),
    Template("which", "Which letter is at position {n} in {word}? Reply with one letter.\n"),
    Template("name", "Name the {ordinal} letter of {word}. Only the letter.\n", held_out=True),
)


def letter_at(word: str, n: int) -> str:
    """Return the letter of `word` at 1-based position `n`.

    Raises:
        IndexError: `n` is not a position of the word.
    """
    if not 1 <= n <= len(word):
        raise IndexError(f"position must be from 1 to {len(word)} in {word!r}, got {n}")
    return word[n - 1]


def ordinal(n: int) -> str:
    """Return 1 as ``1st``, 2 as ``2nd``, 11 as ``11th``."""
    suffix = "th" if 11 <= n % 100 <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def stratum_of(n: int, num_letters: int) -> str:
    """Return first, last or interior: knowing first letters is common and says little."""
    if n == 1:
        return "first"
    return "last" if n == num_letters else "interior"


def position_item(word: str, n: int, template: Template) -> Item:
    """Return the item that asks for the letter at 1-based position `n` of `word`."""
    letter = letter_at(word, n)
    return Item(
        task=Task.POSITION,
        word=word,
        template=template.name,
        question=template.fill(n=n, ordinal=ordinal(n), word=word),
        answer=letter,
        n=n,
        letter=letter,
        stratum=stratum_of(n, len(word)),
        subjects=(word,),
    )


def random_item(word: str, rng: random.Random, templates: tuple[Template, ...] = TEMPLATES) -> Item:
    """Return an item at a position drawn uniformly, in a random template."""
    n = 1 + int(rng.random() * len(word))
    return position_item(word, n, templates[int(rng.random() * len(templates))])


def evaluation_items(word: str, rng: random.Random) -> list[Item]:
    """Return the item of one uniformly drawn position, in every template."""
    n = 1 + int(rng.random() * len(word))
    return [position_item(word, n, template) for template in TEMPLATES]
