"""Evaluation suites: which items a model is asked, the same for base and tuned model.

A suite is a pure function of its words and sizes. Words come in equal thirds from the three bands,
as far as each band has words, half of the hard ones made up; positions are uniform, counts
balanced; every item is asked in every evaluation template.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tuning.errors import SuiteError
from tuning.files import sha256_of_json
from tuning.tasks import count, position, spelling
from tuning.tasks.difficulty import Band, band_of
from tuning.tasks.items import AnswerKind, Item, Probe, answer_kind
from tuning.tasks.probes import PROBES
from tuning.tasks.words import SubjectWords, keyed_rng

SUITE_SEED = 1
"""One seed for all suites: every model and trial answers the same items."""

CutWords = Callable[[Sequence[str]], list[list[str]]]
"""Pieces into which a tokenizer cuts each word, in the form with a leading space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordFacts:
    """What strata are made of: how a tokenizer sees the word of an item."""

    band: Band
    num_tokens: int
    """Tokens of the word, in the form with a leading space."""
    is_pseudo_word: bool
    letter_token_length: int | None = None
    """Where the answer is one letter: letters of the token that holds it."""
    tokens: tuple[str, ...] = ()
    """The word as its tokenizer cuts it, in the form with a leading space."""


def facts_of(item: Item, pieces: Sequence[str], *, is_pseudo_word: bool) -> WordFacts:
    """Return the facts of an item's word.

    Args:
        item: The item.
        pieces: The word as its tokenizer cuts it; the first piece may begin with a space.
        is_pseudo_word: Whether the word was made up.
    """
    return WordFacts(
        band=band_of(len(item.word), len(pieces), is_pseudo_word=is_pseudo_word),
        num_tokens=len(pieces),
        is_pseudo_word=is_pseudo_word,
        letter_token_length=_letter_token_length(item, pieces),
        tokens=tuple(pieces),
    )


def _letter_token_length(item: Item, pieces: Sequence[str]) -> int | None:
    if answer_kind(item.task) is not AnswerKind.LETTER or item.n is None:
        return None
    letters = [piece.strip() for piece in pieces]
    if "".join(letters) != item.word:
        return None  # Pieces that are parts of a character do not say where letters are.
    end = 0
    for piece in letters:
        end += len(piece)
        if item.n <= end:
            return len(piece)
    return None


@dataclass(frozen=True)
class Suite:
    """Items with what is known of the word of each."""

    items: tuple[Item, ...]
    facts: tuple[WordFacts, ...]
    num_dropped_count_cells: int = 0
    """Cells of letter x length left out because some class of answers had no word."""

    @functools.cached_property
    def key(self) -> str:
        """Fingerprint of the items, 16 hex digits."""
        return sha256_of_json([dataclasses.asdict(item) for item in self.items])[:16]

    def mix(self) -> dict[str, dict[str, int]]:
        """Return the number of items by task and stratum or template."""
        mixes: dict[str, Counter[str]] = {}
        for item, facts in zip(self.items, self.facts, strict=True):
            names = [item.template, facts.band.value]
            names += [item.stratum] if item.stratum else []
            names += ["pseudo-word"] if facts.is_pseudo_word else []
            mixes.setdefault(str(item.task), Counter()).update(names)
        return {task: dict(sorted(counts.items())) for task, counts in mixes.items()}

    def part(self, indices: Sequence[int]) -> Suite:
        """Return the suite of some of the items."""
        return dataclasses.replace(
            self,
            items=tuple(self.items[i] for i in indices),
            facts=tuple(self.facts[i] for i in indices),
        )

    def spread(self, num_items: int) -> list[int]:
        """Return indices of at most `num_items` items: equally many a task and template.

        One is drawn from each of as many equal stretches of a template: at equal distances they
        would keep step with the bands, which take turns.
        """
        groups: dict[str, dict[str, list[int]]] = {}
        for index, item in enumerate(self.items):
            of_task = groups.setdefault(str(item.task), {})
            of_task.setdefault(item.template, []).append(index)
        chosen: list[int] = []
        for share, templates in _shares(num_items, list(groups.values()), _num_items):
            for part, indices in _shares(share, list(templates.values()), len):
                rng = keyed_rng(SUITE_SEED, "spread", indices[0])
                ends = [i * len(indices) // part for i in range(part + 1)] if part else [0]
                chosen += [
                    indices[a + int(rng.random() * (b - a))]
                    for a, b in zip(ends, ends[1:], strict=False)
                ]
        return sorted(chosen)


def _num_items(templates: dict[str, list[int]]) -> int:
    return sum(map(len, templates.values()))


T = TypeVar("T")


def _shares(total: int, groups: Sequence[T], size: Callable[[T], int]) -> Iterator[tuple[int, T]]:
    """Yield groups with equal shares of `total`; what a small one cannot take goes to the rest."""
    left = total
    for rank, group in enumerate(sorted(groups, key=size)):
        share = min(size(group), left // (len(groups) - rank))
        left -= share
        yield share, group


def build_suite(words: SubjectWords, num_words: int, cut: CutWords) -> Suite:
    """Return the suite over `words`.

    Args:
        words: Words of one split; never those that were trained on, unless that is the question.
        num_words: Words a task.
        cut: The model's tokenizer.

    Raises:
        SuiteError: There are not enough words.
    """
    if len(words.all) < 10:
        raise SuiteError(f"a suite needs at least 10 words, got {len(words.all)}")
    pieces = dict(zip(words.all, cut(words.all), strict=True))
    asked = _thirds_by_band(words, num_words, pieces)
    counts = count.balanced_pairs(words.all, num_words, SUITE_SEED)
    if not counts.pairs:
        raise SuiteError(
            f"no letter and length has words for every count among {len(words.all)} words; "
            f"give more"
        )
    items: list[Item] = []
    for word in asked:
        items += spelling.evaluation_items(word)
    for word in asked:
        items += position.evaluation_items(word, keyed_rng(SUITE_SEED, "position", word))
    for word, letter in counts.pairs:
        items += count.evaluation_items(word, letter)
    for probe, word in itertools.product(PROBES, asked):
        items += probe_items(probe, word)
    return Suite(
        items=tuple(items),
        facts=tuple(
            facts_of(i, pieces[i.word], is_pseudo_word=i.word in words.pseudo_set) for i in items
        ),
        num_dropped_count_cells=counts.num_dropped_cells,
    )


def probe_items(probe: Probe, word: str) -> list[Item]:
    """Return the items of a probe that ask about one word, one in each wording."""
    return [
        probe.ask(word, template, keyed_rng(SUITE_SEED, probe.task.value, word))
        for template in probe.templates
    ]


def _thirds_by_band(words: SubjectWords, num_words: int, pieces: dict[str, list[str]]) -> list[str]:
    """Return words in turn from the bands; in the hard one, in turn real and made-up ones."""
    groups: dict[str, list[str]] = {band.value: [] for band in Band}
    for word in words.real:
        groups[band_of(len(word), len(pieces[word])).value].append(word)
    pseudo = list(words.pseudo)
    for name, members in (*groups.items(), ("pseudo", pseudo)):
        keyed_rng(SUITE_SEED, "suite-words", name).shuffle(members)
    groups[Band.HARD.value] = _in_turn([groups[Band.HARD.value], pseudo])
    return _in_turn(list(groups.values()))[:num_words]


def _in_turn(groups: Sequence[Sequence[str]]) -> list[str]:
    ranked = sorted(
        (rank, index, word)
        for index, members in enumerate(groups)
        for rank, word in enumerate(members)
    )
    return [word for _, _, word in ranked]


_CHOICES = {
    AnswerKind.LETTER: tuple(string.ascii_lowercase),
    AnswerKind.NUMBER: tuple(string.digits),
}


def choices_of(task: str) -> tuple[str, ...]:
    """Return the answers among which the choice reading decides; none for spelling."""
    return _CHOICES.get(answer_kind(task), ())
