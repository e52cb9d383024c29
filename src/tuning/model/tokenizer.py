"""From text to ids and back, for every model: its own tokenizer, its chat or plain prompt.

ids = encode(prompt) + encode(answer) + end token: the same in training, scoring and generation.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuning.errors import DroppedTokenError
from tuning.tasks.items import Item
from tuning.tokens.subset import Subset
from tuning.tokens.vocabulary import Vocabulary, read_vocabulary, shown_string

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@contextlib.contextmanager
def naming(path: Path | str | None) -> Iterator[None]:
    """Say of which file a text is that needs a token which is not there."""
    try:
        yield
    except DroppedTokenError as error:
        raise DroppedTokenError(f"{path}: {error}") from error


class EncodedItem(NamedTuple):
    """The ids of one item."""

    prompt: list[int]
    answer: list[int]
    """Answer tokens with the end token last; the loss and the score read these alone."""


Shots = Sequence[tuple[str, str]]
"""Questions with their answers, put before the one that is asked."""


def plain_prompt(question: str, shots: Shots = ()) -> str:
    """Return the prompt of a base model: the question as it stands, ending in a line break."""
    return "".join([*(f"{asked}{answer}\n" for asked, answer in shots), question])


PromptOf = Callable[[str, Shots], str]
"""Turns a question, after examples, into a prompt."""


def chat_prompt(loaded: Any, *, thinking: bool = False) -> PromptOf:
    """Return the function that puts a question into a chat model's template.

    Args:
        loaded: The model's tokenizer, with its chat template.
        thinking: Whether the model may think before it answers; templates without such a mode
            pass over it.
    """

    def prompt(question: str, shots: Shots = ()) -> str:
        messages = []
        for asked, answer in shots:
            messages.append({"role": "user", "content": asked.strip()})
            messages.append({"role": "assistant", "content": answer})
        messages.append({"role": "user", "content": question.strip()})
        return str(
            loaded.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
            )
        )

    return prompt


@dataclass(frozen=True)
class TextTokenizer:
    """A tokenizer with what training and scoring need to know of it."""

    backend: Tokenizer
    """The genuine tokenizer; its ids are mapped by `kept_ids` where the model holds fewer rows."""
    end_ids: tuple[int, ...]
    """Tokens that end an answer, as ids of the model; training uses the first."""
    kept_ids: tuple[int, ...] | None = None
    """Genuine ids that the model has rows for, in the order of its rows; None when it has all."""
    prompt_of: PromptOf = plain_prompt
    """Turns a question, after examples, into the model's prompt: chat template or plain text."""
    thinking_prompt_of: PromptOf | None = None
    """The same with thinking on; None where the model has no such mode."""
    control_ids: tuple[int, ...] = ()
    """The tokenizer's own ids of what begins, ends and pads a text."""
    subset: Subset | None = None
    """The English part of the vocabulary that `kept_ids` is cut down to; None without one."""
    _row_of: dict[int, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.kept_ids is not None:
            self._row_of.update((token, row) for row, token in enumerate(self.kept_ids))

    @property
    def vocab_size(self) -> int:
        """Number of ids that texts can have."""
        return len(self.kept_ids) if self.kept_ids is not None else self.backend.get_vocab_size()

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens of the tokenizer, those included that the model has no row for.

        Raises:
            ModelError: The tokenizer is not byte-level.
        """
        return read_vocabulary(self.backend)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without any token added.

        Raises:
            DroppedTokenError: A text needs a token that the model does not have.
        """
        genuine = [e.ids for e in self.backend.encode_batch(list(texts), add_special_tokens=False)]
        try:
            return [self.rows(ids) for ids in genuine]
        except KeyError as error:
            text = next(t for t, ids in zip(texts, genuine, strict=True) if error.args[0] in ids)
            raise DroppedTokenError(self._lacks(error.args[0], text)) from error

    def _lacks(self, token: int, text: str) -> str:
        """Say that there is no row for a genuine token, which a text needs."""
        named = f"the token {shown_string(self.backend.id_to_token(token) or '')!r} (id {token})"
        needed = f"that {text[:80]!r} needs"
        if self.subset is not None:
            return (
                f"the subset {self.subset.rule.value} has no row for {named} {needed}; "
                f"choose another subset_rule, or use_english_only_tokens: false"
            )
        return f"the model has no row for {named} {needed}"

    def can_encode(self, texts: Sequence[str]) -> list[bool]:
        """Tell for each text whether the model has all of its tokens."""
        if self.kept_ids is None:
            return [True] * len(texts)
        genuine = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [all(token in self._row_of for token in e.ids) for e in genuine]

    def missing_tokens(self, text: str) -> list[str]:
        """Return the tokens of a text that the model does not have, as text, each once."""
        genuine = self.backend.encode(text, add_special_tokens=False).ids
        missing = dict.fromkeys(token for token in genuine if not self.has(token))
        return [shown_string(self.backend.id_to_token(token) or "") for token in missing]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of `ids`, special tokens left out."""
        return str(self.backend.decode(self.genuine(ids), skip_special_tokens=True))

    def genuine(self, ids: Sequence[int]) -> list[int]:
        """Return the tokenizer's own ids of the model's; the inverse of `rows`."""
        return list(ids) if self.kept_ids is None else [self.kept_ids[row] for row in ids]

    def rows(self, genuine: Sequence[int]) -> list[int]:
        """Return the model's ids of the tokenizer's own.

        Raises:
            KeyError: The model has no row for one.
        """
        return list(genuine) if self.kept_ids is None else [self._row_of[t] for t in genuine]

    def has(self, genuine: int) -> bool:
        """Tell whether the model has a row for a token of the tokenizer."""
        return self.kept_ids is None or genuine in self._row_of

    def encode_items(self, items: Sequence[Item]) -> list[EncodedItem]:
        """Return the ids of each item's prompt and answer, the end token included.

        Raises:
            DroppedTokenError: An item needs a token that the model does not have.
        """
        prompts = self.encode_batch([self.prompt_of(item.question, item.shots) for item in items])
        answers = self.encode_batch([item.answer for item in items])
        end = self.end_ids[0]
        return [EncodedItem(p, [*a, end]) for p, a in zip(prompts, answers, strict=True)]

    def cut(self, words: Sequence[str]) -> list[list[str]]:
        """Return the pieces of each word in the form with a leading space; a space shows as is."""
        pieces = self.backend.encode_batch([f" {w}" for w in words], add_special_tokens=False)
        return [[self.backend.decode([i]) for i in e.ids] for e in pieces]

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Return the genuine ids of each word in the form with a leading space.

        They are ids of the tokenizer, not of the model: it may have no row for some of them.
        """
        encoded = self.backend.encode_batch([f" {w}" for w in words], add_special_tokens=False)
        return [e.ids for e in encoded]

    def count_tokens(self, words: Sequence[str]) -> list[int]:
        """Return the number of tokens of each word in the form with a leading space."""
        return [len(ids) for ids in self.word_ids(words)]

    def single_token_ids(self, texts: Sequence[str]) -> list[int]:
        """Return the id of each text that is one token.

        Raises:
            DroppedTokenError: The model lacks the token.
            AssertionError: A text is several tokens: a fault of ours.
        """
        encoded = self.encode_batch(texts)
        assert all(len(ids) == 1 for ids in encoded)
        return [ids[0] for ids in encoded]
