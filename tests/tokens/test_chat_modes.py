"""Laws of chats: rendered as transformers renders them; what the mode of thinking adds."""

from __future__ import annotations

from typing import Any

import pytest

from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tasks.items import Task
from tuning.tokens.chat_modes import WORD, example_questions, template_modes

SYSTEM = {"role": "system", "content": "You spell words."}
ASKED = {"role": "user", "content": "Spell moonlight,\n  please: ünï 東 <|im_end|>"}
ANSWERED = {"role": "assistant", "content": "m o o n l i g h t"}
THOUGHT = {"role": "assistant", "content": "<think>\nLetter by letter.\n</think>\n\nm o o n"}
CONVERSATIONS = {
    "one question": [ASKED],
    "system": [SYSTEM, ASKED],
    "several turns": [SYSTEM, ASKED, ANSWERED, ASKED],
    "earlier thinking": [ASKED, THOUGHT, ASKED],
    "thinking in the last turn": [ASKED, THOUGHT],
    "empty": [{"role": "user", "content": ""}],
}


@pytest.fixture(scope="module")
def official() -> Any:
    from transformers import PreTrainedTokenizerFast

    genuine = qwen3_tokenizer()
    return PreTrainedTokenizerFast(
        tokenizer_file=str(genuine.source.path), chat_template=genuine.chat_template
    )


@pytest.mark.parametrize("thinking", [True, False])
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_chats_are_rendered_as_transformers_renders_them(
    official: Any, messages: list[dict[str, str]], thinking: bool
) -> None:
    theirs = official.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinking
    )
    ours = qwen3_tokenizer().chat(messages, thinking=thinking)
    assert ours == theirs
    ids = official(theirs, add_special_tokens=False).input_ids
    assert qwen3_tokenizer().backend.encode(ours, add_special_tokens=False).ids == ids


def test_questions_are_of_every_task_and_hold_no_placeholder() -> None:
    questions = example_questions()
    assert {task for task, _ in questions} == set(Task)
    for task, question in questions:
        assert "{" not in question
        assert (WORD in question) == (task is not Task.REPLAY)


def test_non_thinking_adds_an_empty_think_block_and_thinking_nothing() -> None:
    found = template_modes(qwen3_tokenizer())
    assert found.think_block == "<think>\n\n</think>\n\n"
    assert [token.id for token in found.think_block_tokens] == [151667, 271, 151668, 271]
    assert [token.string for token in found.think_block_tokens] == [
        *("<think>", "ĊĊ", "</think>", "ĊĊ")
    ]
    assert found.added_by_thinking == ()
    num = len(found.questions)
    added = {token.id: token.count for token in found.added_by_non_thinking}
    assert added == {271: 2 * num, 151667: num, 151668: num}
    for row in found.questions:
        assert row.overhead == 4
        # <|im_start|>user\n ... <|im_end|>\n<|im_start|>assistant\n
        assert row.num_thinking == row.num_bare + 8
        assert qwen3_tokenizer().backend.encode(row.question).ids
