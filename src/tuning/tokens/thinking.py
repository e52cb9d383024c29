"""Thinking and non-thinking: what the mode changes in a prompt, and in the texts that follow.

`tuning tokens thinking` shows it. The texts are given: no model runs here.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuning.tokens.chat_modes import (
    TemplateModes,
    Token,
    TokenCount,
    template_modes,
    token_counts,
)
from tuning.tokens.divergence import Divergence, Text, at_equal_lengths, divergence
from tuning.tokens.texts import EXAMPLES, Mode, ThinkingTexts, read_outputs, read_texts

if TYPE_CHECKING:
    from tuning.qwen3_tokenizer import Qwen3Tokenizer
    from tuning.tokens.vocabulary import Vocabulary

__all__ = ["ThinkingAnalysis", "ThinkingTexts", "analyze_thinking", "read_outputs", "read_texts"]

MIN_TEXTS, MIN_TOKENS = 20, 300
"""Of each set; a warning is given below. A rule of thumb: of two sets of 300 tokens from one source
chance alone makes 0.25 bits of difference (300 kinds of tokens, Zipf) to 0.6 (20,000 kinds)."""
LEVEL = 0.05
"""A p below it counts as a difference."""
NUM_CONTRASTS = 20
"""Tokens listed as over-represented, on each side."""


@dataclass(frozen=True, slots=True)
class TokenUse:
    """The tokens of one set of texts."""

    tokens: tuple[TokenCount, ...]
    """Most frequent first."""
    lengths: tuple[int, ...]
    """Tokens of each text, in the order given."""

    @property
    def num_texts(self) -> int:
        """Number of texts."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all texts together."""
        return sum(self.lengths)

    @property
    def tokens_per_text(self) -> float:
        """Mean number of tokens of a text."""
        return self.num_tokens / self.num_texts

    @property
    def distribution(self) -> dict[str, int]:
        """How often each token occurs, by its text; by its raw string where several share one."""
        shared = Counter(token.text for token in self.tokens)
        return {
            token.text if shared[token.text] == 1 else token.string: token.count
            for token in self.tokens
        }

    def to_json(self) -> dict[str, Any]:
        """Return the set as JSON holds it."""
        return {
            "num_texts": self.num_texts,
            "num_tokens": self.num_tokens,
            "tokens_per_text": self.tokens_per_text,
            "unique_tokens": len(self.tokens),
            "token_distribution": self.distribution,
            "lengths": list(self.lengths),
            "tokens": [dataclasses.asdict(token) for token in self.tokens],
        }


@dataclass(frozen=True, slots=True)
class Contrast(Token):
    """How much more one set uses a token than the other."""

    thinking: int
    """How often it occurs there."""
    non_thinking: int
    log_odds: float
    """Log2 of the odds ratio, each count plus 1/2 (Haldane 1956, Anscombe 1956); above 0 for
    thinking."""
    z: float
    """The same over its standard error (Gart 1966), which puts frequent tokens before rare ones.
    Only for order: it takes tokens of one text for independent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingAnalysis:
    """All that is known of the two modes."""

    source: str
    """Where the texts are from."""
    template: TemplateModes
    thinking: TokenUse
    non_thinking: TokenUse
    as_written: Divergence
    """A difference in length counts."""
    at_equal_lengths: Divergence
    """The longer texts drawn down to the lengths of the others: which tokens, not how many."""
    contrasts: tuple[Contrast, ...]
    """Every token that occurs, from the most typical of thinking to that of non-thinking."""

    @property
    def uses(self) -> dict[Mode, TokenUse]:
        """Both sets."""
        return {Mode.THINKING: self.thinking, Mode.NON_THINKING: self.non_thinking}

    @property
    def warning(self) -> str:
        """Why nothing can be concluded from the samples; empty if something can."""
        reasons = []
        if (smallest := self.as_written.smallest_p) >= LEVEL:
            reasons.append(
                f"too few texts to say anything, p cannot be below {smallest:.2f} (distinct "
                f"splits: {self.as_written.num_splits})"
            )
        small = [
            f"{use.num_texts:,} {mode.says} texts of {use.num_tokens:,} tokens in all"
            for mode, use in self.uses.items()
            if use.num_texts < MIN_TEXTS or use.num_tokens < MIN_TOKENS
        ]
        if small:
            reasons.append(
                f"small samples, {' and '.join(small)}: below {MIN_TEXTS} texts or {MIN_TOKENS} "
                "tokens a set much of a divergence can be chance"
            )
        return "; ".join(reasons)

    @property
    def sentences(self) -> list[str]:
        """What is found, in words."""
        return [
            f"As written, length included: {_says(self.as_written)}.",
            f"At equal lengths: {_says(self.at_equal_lengths)}.",
        ]

    def only_in(self, mode: Mode) -> tuple[TokenCount, ...]:
        """Return the tokens that the other set does not hold, most frequent first."""
        other = self.uses[Mode.NON_THINKING if mode is Mode.THINKING else Mode.THINKING]
        known = {token.id for token in other.tokens}
        return tuple(token for token in self.uses[mode].tokens if token.id not in known)

    def most_typical_of(self, mode: Mode) -> tuple[Contrast, ...]:
        """Return the most over-represented tokens of a set, the clearest first."""
        if mode is Mode.THINKING:
            return tuple(c for c in self.contrasts if c.log_odds > 0)[:NUM_CONTRASTS]
        return tuple(c for c in reversed(self.contrasts) if c.log_odds < 0)[:NUM_CONTRASTS]

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as JSON holds it."""
        return {
            "thinking_mode": self.thinking.to_json(),
            "non_thinking_mode": self.non_thinking.to_json(),
            "thinking_comparison": {
                "source": self.source,
                "warning": self.warning or None,
                "sentences": self.sentences,
                "template": dataclasses.asdict(self.template),
                "jensen_shannon": {
                    "as_written": _divergence_json(self.as_written),
                    "at_equal_lengths": _divergence_json(self.at_equal_lengths),
                },
                "only_in": {mode.value: _rows(self.only_in(mode)) for mode in Mode},
                "most_typical_of": {mode.value: _rows(self.most_typical_of(mode)) for mode in Mode},
            },
        }


def _divergence_json(found: Divergence) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "smallest_p": found.smallest_p}


def _rows(tokens: Iterable[Token]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(token) for token in tokens]


def _says(found: Divergence) -> str:
    limit = ", the smallest possible" if found.p_value <= found.smallest_p else ""
    kind = "all" if found.is_exact else "random"
    return (
        f"{found.bits:.3f} bits apart ({found.expected_bits:.3f} by chance), "
        f"p = {found.p_value:.2g} over {kind} {found.num_splits:,} splits{limit}"
    )


def analyze_thinking(
    tokenizer: Qwen3Tokenizer, texts: ThinkingTexts | None = None, *, seed: int = 0
) -> ThinkingAnalysis:
    """Compare the two modes: their prompts, and texts written in them.

    Args:
        tokenizer: The genuine tokenizer.
        texts: The texts; by default a few examples of ours.
        seed: Of random splits and draws.

    Raises:
        ModelError: The chat template cannot be found, or is not the official one.
    """
    given = texts or EXAMPLES
    thinking, direct = _encoded(tokenizer, given.thinking), _encoded(tokenizer, given.direct)
    uses = [_use(tokenizer.vocabulary, of_set) for of_set in (thinking, direct)]
    return ThinkingAnalysis(
        source=given.source,
        template=template_modes(tokenizer),
        thinking=uses[0],
        non_thinking=uses[1],
        as_written=divergence(thinking, direct, seed),
        at_equal_lengths=divergence(*at_equal_lengths(thinking, direct, seed), seed),
        contrasts=_contrasts(*uses),
    )


def _encoded(tokenizer: Qwen3Tokenizer, texts: Sequence[str]) -> list[Text]:
    found = tokenizer.backend.encode_batch([*texts], add_special_tokens=False)
    return [encoding.ids for encoding in found]


def _use(vocabulary: Vocabulary, texts: Sequence[Text]) -> TokenUse:
    counts = Counter(token for text in texts for token in text)
    return TokenUse(token_counts(vocabulary, counts), tuple(map(len, texts)))


def _contrasts(thinking: TokenUse, direct: TokenUse) -> tuple[Contrast, ...]:
    tokens = {token.id: token for token in (*thinking.tokens, *direct.tokens)}
    counts_2V = np.array([_counts(use, tokens) for use in (thinking, direct)])
    rest_2V = np.array([[thinking.num_tokens], [direct.num_tokens]]) - counts_2V
    logits_2V = np.log2((counts_2V + 0.5) / (rest_2V + 0.5))
    log_odds_V = logits_2V[0] - logits_2V[1]
    variance_V = (1 / (counts_2V + 0.5) + 1 / (rest_2V + 0.5)).sum(axis=0)
    z_V = log_odds_V * np.log(2) / np.sqrt(variance_V)
    found = [
        Contrast(
            token.id,
            token.text,
            token.string,
            thinking=int(counts_2V[0, place]),
            non_thinking=int(counts_2V[1, place]),
            log_odds=float(log_odds_V[place]),
            z=float(z_V[place]),
        )
        for place, token in enumerate(tokens.values())
    ]
    return tuple(sorted(found, key=lambda contrast: (-contrast.z, contrast.id)))


def _counts(use: TokenUse, tokens: Iterable[int]) -> list[int]:
    found = {token.id: token.count for token in use.tokens}
    return [found.get(token, 0) for token in tokens]
