"""Laws of `tuning.model.packing`: rows that share a sequence come out as they do alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    PreTrainedModel,
    Qwen3Config,
)
from transformers.models.auto import AutoModelForCausalLM

from tuning.model.packing import (
    SEQUENCE_TOKENS,
    Packed,
    answer_states,
    can_pack,
    pack,
    packed_batches,
)
from tuning.model.prefix import read_prefix
from tuning.model.tokenizer import EncodedItem

SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}

# Few tokens, so that rows often begin alike.
tokens = st.integers(1, 4)
rows = st.lists(
    st.builds(
        EncodedItem,
        st.lists(tokens, min_size=1, max_size=30),
        st.lists(tokens, min_size=1, max_size=12),
    ),
    min_size=1,
    max_size=24,
)


def random_model(settings: Any, implementation: str = "eager") -> PreTrainedModel:
    torch.manual_seed(0)
    network: PreTrainedModel = AutoModelForCausalLM.from_config(
        settings, attn_implementation=implementation
    )
    return network.eval()


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def network(request: pytest.FixtureRequest) -> PreTrainedModel:
    return random_model(Qwen3Config(**SMALL), request.param)


def texts(given_rows: list[EncodedItem]) -> list[list[int]]:
    return [(row.prompt + row.answer)[:-1] for row in given_rows]


def seen_by(packed: Packed, row: int, token: int) -> list[int]:
    """Return the ids that a token sees, in the order of their positions."""
    assert packed.seen_BTT is not None
    places = torch.nonzero(packed.seen_BTT[row, token]).flatten().tolist()
    places.sort(key=lambda place: int(packed.position_BT[row, place]))
    return [int(packed.ids_BT[row, place]) for place in places]


@given(rows)
def test_every_answer_token_sees_its_own_row_and_nothing_else(
    given_rows: list[EncodedItem],
) -> None:
    packed = pack(given_rows)
    at = iter(zip(packed.row_A.tolist(), packed.token_A.tolist(), strict=True))
    for row, text in zip(given_rows, texts(given_rows), strict=True):
        for number in range(len(row.answer)):
            assert seen_by(packed, *next(at)) == text[: len(row.prompt) + number]
    assert next(at, None) is None


@given(rows)
def test_beginnings_are_laid_once(given_rows: list[EncodedItem]) -> None:
    packed = pack(given_rows)
    assert packed.ids_BT.shape[1] % 8 == 0
    if len(packed.ids_BT) == 1:
        beginnings = {tuple(text[: n + 1]) for text in texts(given_rows) for n in range(len(text))}
        assert packed.ids_BT.shape[1] - len(beginnings) < 8


@given(rows)
def test_sequences_are_no_wider_than_they_need_be(given_rows: list[EncodedItem]) -> None:
    longest = max(map(len, texts(given_rows)))
    packed = pack(given_rows)
    assert packed.ids_BT.shape[1] <= max(*SEQUENCE_TOKENS, longest) + 7
    apart = pack(given_rows, together=False)
    assert apart.seen_BTT is None
    assert len(apart.ids_BT) == len(given_rows)
    assert packed.ids_BT.numel() <= max(apart.ids_BT.numel(), SEQUENCE_TOKENS[0] + longest)


def test_rows_that_begin_alike_for_long_share_longer_sequences() -> None:
    head = list(range(1, 41))
    alike = [EncodedItem([*head, 50 + i], [i % 7] * 4) for i in range(40)]
    others = [EncodedItem([50 + i, *head], [i % 7] * 4) for i in range(40)]
    widths = [pack(rows).ids_BT.shape[1] for rows in (alike, others)]
    assert widths[0] > SEQUENCE_TOKENS[0] + 7
    assert widths[1] <= SEQUENCE_TOKENS[0] + 7


@given(rows, st.integers(1, 600))
def test_batches_hold_each_row_once(given_rows: list[EncodedItem], batch_tokens: int) -> None:
    found: list[int] = []
    for indices, packed in packed_batches(given_rows, batch_tokens):
        found += indices
        expected = [token for i in indices for token in given_rows[i].answer]
        assert len(packed.row_A) == len(expected)
        width = packed.ids_BT.shape[1]
        assert len(packed.ids_BT) == 1 or packed.ids_BT.numel() <= max(batch_tokens, width) + 8 * 60
    assert sorted(found) == list(range(len(given_rows)))


def alone(network: PreTrainedModel, row: EncodedItem) -> Tensor:
    """Return the states of one row, from the model as transformers runs it."""
    ids_BT = torch.tensor([(row.prompt + row.answer)[:-1]])
    hidden_BTD: Tensor = network.get_decoder()(input_ids=ids_BT).last_hidden_state
    return hidden_BTD[0, len(row.prompt) - 1 :]


@given(rows)
def test_states_are_those_of_each_row_alone(
    network: PreTrainedModel, given_rows: list[EncodedItem]
) -> None:
    with torch.inference_mode():
        expected_AD = torch.cat([alone(network, row) for row in given_rows])
        for together in (True, False):
            found_AD = answer_states(network, pack(given_rows, together=together))
            torch.testing.assert_close(found_AD, expected_AD, rtol=0, atol=1e-5)


@given(rows, st.lists(tokens, min_size=1, max_size=20))
def test_states_behind_a_prefix_that_was_read_before(
    network: PreTrainedModel, given_rows: list[EncodedItem], begun: list[int]
) -> None:
    with torch.inference_mode():
        whole = [EncodedItem(begun + row.prompt, row.answer) for row in given_rows]
        expected_AD = torch.cat([alone(network, row) for row in whole])
        found_AD = answer_states(network, pack(given_rows), read_prefix(network, begun))
        torch.testing.assert_close(found_AD, expected_AD, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_rows_one_by_one(network: PreTrainedModel) -> None:
    some = [
        EncodedItem([1, 2, 3], [4, 5]),
        EncodedItem([1, 2, 9], [5]),
        EncodedItem([1, 2, 3], [4, 7, 7]),
    ]
    weight = network.get_decoder().layers[0].self_attn.q_proj.weight

    def gradient(states_AD: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(states_AD.square().sum(), weight)
        return found

    expected = sum(gradient(alone(network, row)) for row in some)
    torch.testing.assert_close(
        gradient(answer_states(network, pack(some))), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Qwen3Config(**SMALL), True),
        (LlamaConfig(**SMALL), True),
        (GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4), True),
        (MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whether_a_model_can_share_sequences_is_tried(settings: Any, expected: bool) -> None:
    assert can_pack(random_model(settings)) is expected


def test_half_precision_can_share_sequences_too() -> None:
    assert can_pack(random_model(Qwen3Config(**SMALL)).to(torch.bfloat16))


def test_a_packed_batch_is_a_tuple_of_tensors_that_lightning_can_move() -> None:
    packed = pack([EncodedItem([1], [2])])
    assert {type(t) for t in packed} == {Tensor}
    assert dataclasses.is_dataclass(packed) is False
