"""What the chat template tells the model about thinking: the same questions in both modes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuning.tasks import count, position, replay, spelling
from tuning.tasks.items import Task

if TYPE_CHECKING:
    from tuning.qwen3_tokenizer import Qwen3Tokenizer
    from tuning.tokens.vocabulary import Vocabulary

WORD = "moonlight"
"""Of the questions; which word it is changes no difference between the modes."""


def example_questions() -> tuple[tuple[Task, str], ...]:
    """Return two wordings of each task, as a model is asked them."""
    of_task = {
        Task.SPELLING: [t.fill(word=WORD, separator="spaces") for t in spelling.TEMPLATES[:2]],
        Task.POSITION: [t.fill(word=WORD, n=3) for t in position.TEMPLATES[:2]],
        Task.COUNT: [t.fill(word=WORD, letter="o") for t in count.TEMPLATES[:2]],
        Task.REPLAY: [
            replay.ADD.fill(a=17, b=25),
            replay.AFTER.fill(noun="day", name=replay.DAYS[0]),
        ],
    }
    return tuple(
        (task, question.strip()) for task, questions in of_task.items() for question in questions
    )


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a text."""

    id: int
    text: str
    """As a person reads it."""
    string: str
    """As the tokenizer's file writes it."""


@dataclass(frozen=True, slots=True)
class TokenCount(Token):
    """How often a token occurs."""

    count: int
    share: float
    """Of all tokens that were counted, in [0, 1]."""


def token_counts(vocabulary: Vocabulary, counts: Counter[int]) -> tuple[TokenCount, ...]:
    """Return counted tokens, the most frequent first, equally frequent ones by id."""
    total = counts.total()
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(
        TokenCount(token, vocabulary.text(token), vocabulary.string(token), number, number / total)
        for token, number in ordered
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedQuestion:
    """The length in tokens of one question in both modes."""

    task: str
    question: str
    num_bare: int
    """The question alone, without a template."""
    num_thinking: int
    num_non_thinking: int

    @property
    def overhead(self) -> int:
        """Tokens that thinking off adds to the prompt."""
        return self.num_non_thinking - self.num_thinking


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateModes:
    """What the mode of thinking changes in a prompt."""

    questions: tuple[RenderedQuestion, ...]
    think_block: str
    """What thinking off puts before the answer; thinking on puts nothing in its place."""
    think_block_tokens: tuple[Token, ...]
    """Its tokens, in order."""
    added_by_non_thinking: tuple[TokenCount, ...]
    """Tokens that only thinking off adds, counted over all questions."""
    added_by_thinking: tuple[TokenCount, ...]
    """The same of thinking on; there are none: the model itself opens <think>."""


def template_modes(tokenizer: Qwen3Tokenizer) -> TemplateModes:
    """Render the same questions in both modes and return how they differ.

    Raises:
        ModelError: The chat template cannot be found, or is not the official one.
    """
    rows, blocks = [], set()
    added, missing = Counter[int](), Counter[int]()
    for task, question in example_questions():
        message = {"role": "user", "content": question}
        on, off = (tokenizer.chat([message], thinking=thinking) for thinking in (True, False))
        ids_on, ids_off, bare = (_ids(tokenizer, text) for text in (on, off, question))
        blocks.add(off.removeprefix(on))
        added += Counter(ids_off) - Counter(ids_on)
        missing += Counter(ids_on) - Counter(ids_off)
        rows.append(
            RenderedQuestion(
                task=task.value,
                question=question,
                num_bare=len(bare),
                num_thinking=len(ids_on),
                num_non_thinking=len(ids_off),
            )
        )
    # The template's hash is checked, and it is this that it does.
    (block,) = blocks
    vocabulary = tokenizer.vocabulary
    return TemplateModes(
        questions=tuple(rows),
        think_block=block,
        think_block_tokens=tuple(
            Token(token, vocabulary.text(token), vocabulary.string(token))
            for token in _ids(tokenizer, block)
        ),
        added_by_non_thinking=token_counts(vocabulary, added),
        added_by_thinking=token_counts(vocabulary, missing),
    )


def _ids(tokenizer: Qwen3Tokenizer, text: str) -> list[int]:
    return list(tokenizer.backend.encode(text, add_special_tokens=False).ids)
