"""How far two sets of texts differ in their tokens, beside what chance would give.

Texts are the units: tokens of one text depend on each other, so they are never shuffled alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse, stats
from scipy.spatial.distance import jensenshannon

NUM_SPLITS = 1_999
"""Random splits where there are more; a p near .05 is then known to about .005."""
_BATCH_NUMBERS = 4_000_000
"""Numbers of one array at most: 32 MB."""

Text = Sequence[int]
"""Token ids of one text."""

# Shapes: N texts, V tokens that occur, B splits.


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The Jensen-Shannon divergence of two sets of texts, with a permutation test over texts."""

    bits: float
    """In [0, 1]: 0 for equal shares of all tokens, 1 where no token is in both sets."""
    expected_bits: float
    """Its mean over the splits: what sets of this size differ by when nothing but chance does."""
    p_value: float
    """Share of splits that differ at least as much, one-sided."""
    num_splits: int
    """Distinct splits that were looked at; p cannot be below 1 over it."""
    is_exact: bool
    """Whether these are all splits that there are."""
    num_tokens: tuple[int, int]
    """Tokens of each set."""

    @property
    def smallest_p(self) -> float:
        """The p of a difference that no other split reaches."""
        return 1 / self.num_splits


def js_divergence(first_V: np.ndarray, second_V: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence in bits of counts along the last axis (Lin 1991).

    ``H((p + q) / 2) - (H(p) + H(q)) / 2`` with H to base 2, and p and q the counts as shares.

    Args:
        first_V: Counts or shares of each token. Shape (..., V).
        second_V: The same of the other side. Shape (..., V).
    """
    root: np.ndarray = jensenshannon(first_V, second_V, base=2, axis=-1)
    return np.asarray(root**2)


def divergence(first: Sequence[Text], second: Sequence[Text], seed: int) -> Divergence:
    """Compare two sets of texts; all tokens of a set count alike.

    The null hypothesis is that texts of both sets come from one source, so that any split of them
    into sets of these sizes was as likely. A difference in length alone breaks it too: the rarer
    tokens of a small set are off by chance, which a split that mixes long and short texts never
    shows. `at_equal_lengths` takes that away. A single text says nothing about the spread of its
    set: there is no other split then, and p is 1.

    Args:
        first: Texts with at least one token each.
        second: The same.
        seed: Of random splits.
    """
    counts = _counts([*first, *second])
    bits = float(js_divergence(counts[: len(first)].sum(axis=0), counts[len(first) :].sum(axis=0)))
    has_spread = min(len(first), len(second)) > 1
    test = _permutation_test(counts, len(first), seed) if has_spread else _Test(1.0, bits, 1, True)
    num_tokens = (sum(map(len, first)), sum(map(len, second)))
    return Divergence(bits=bits, num_tokens=num_tokens, **test._asdict())


class _Test(NamedTuple):
    p_value: float
    expected_bits: float
    num_splits: int
    is_exact: bool


def _permutation_test(counts: sparse.csr_array, num_first: int, seed: int) -> _Test:
    """Test the first rows against the others; over all splits where they are few."""
    num_texts, num_types = counts.shape
    total_V = np.asarray(counts.sum(axis=0))

    def statistic(first_BN: np.ndarray, second_BN: np.ndarray, axis: int) -> np.ndarray:
        is_first_BN = np.zeros((*first_BN.shape[:-1], num_texts))
        np.put_along_axis(is_first_BN, first_BN.astype(np.intp), 1.0, axis=-1)
        sums_BV = is_first_BN @ counts
        return js_divergence(sums_BV, total_V - sums_BV)

    places = np.arange(num_texts)
    found = stats.permutation_test(
        (places[:num_first], places[num_first:]),
        statistic,
        vectorized=True,
        n_resamples=NUM_SPLITS,
        batch=max(1, _BATCH_NUMBERS // max(num_types, num_texts)),
        alternative="greater",
        rng=np.random.default_rng(seed),
    )
    num_all = math.comb(num_texts, num_first)
    is_exact = num_all <= NUM_SPLITS
    # Sets of one size: a split and its mirror image are the same two sets.
    num_distinct = num_all // 2 if 2 * num_first == num_texts else num_all
    return _Test(
        p_value=float(found.pvalue),
        expected_bits=float(np.mean(found.null_distribution)),
        num_splits=num_distinct if is_exact else NUM_SPLITS + 1,
        is_exact=is_exact,
    )


def _counts(texts: Sequence[Text]) -> sparse.csr_array:
    """Return how often each token that occurs is in each text, shape (N, V)."""
    _, token = np.unique(
        np.concatenate([np.asarray(t, dtype=int) for t in texts]), return_inverse=True
    )
    text = np.repeat(np.arange(len(texts)), [len(t) for t in texts])
    counts = sparse.coo_array((np.ones(len(token)), (text, token)), (len(texts), token.max() + 1))
    return counts.tocsr()


def at_equal_lengths(
    first: Sequence[Text], second: Sequence[Text], seed: int
) -> tuple[list[Text], list[Text]]:
    """Return both sets with their longer texts drawn down to the lengths of the other set.

    Texts are matched by rank: the shortest with the shortest. Of the longer one as many tokens are
    kept as the other has, drawn at random without replacement. What then differs is which tokens
    are used, not how many.

    Args:
        first: Texts with at least one token each.
        second: The same.
        seed: Of the draws.
    """
    rng = np.random.default_rng(seed)
    return _drawn_down(first, second, rng), _drawn_down(second, first, rng)


def _drawn_down(
    texts: Sequence[Text], others: Sequence[Text], rng: np.random.Generator
) -> list[Text]:
    ranks_N = (stats.rankdata([len(t) for t in texts], method="ordinal") - 0.5) / len(texts)
    lengths_N = np.quantile([len(t) for t in others], ranks_N, method="nearest")
    return [
        text if len(text) <= length else rng.choice(text, int(length), replace=False).tolist()
        for text, length in zip(texts, lengths_N, strict=True)
    ]
