"""What prompts share is read once, and that changes nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from bench_support import bench_of, disturb
from hypothesis import given
from hypothesis import strategies as st

from tuning.config import LoraConfig
from tuning.evaluation import generation
from tuning.evaluation.bench import Bench
from tuning.evaluation.certificate import certify
from tuning.evaluation.generation import greedy_texts
from tuning.evaluation.one_pass import largest_difference
from tuning.model import prefix
from tuning.model.lora import fresh_adapter
from tuning.model.packing import answer_states, pack
from tuning.model.prefix import MIN_PREFIX_TOKENS, common_length, prefix_groups, read_prefix
from tuning.model.tokenizer import EncodedItem
from tuning.tasks.items import Item
from tuning.tasks.prompts import Prompting, prompted
from tuning.tasks.splits import Split
from tuning.tasks.suite import Suite

# --- how much is shared -------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=8))
def test_common_length_is_that_of_the_definition(prompts: list[list[int]]) -> None:
    shared = 0
    shortest = min(len(p) for p in prompts)
    while shared < shortest - 1 and len({p[shared] for p in prompts}) == 1:
        shared += 1
    assert common_length(prompts) == shared


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_every_prompt_keeps_a_token_of_its_own(common: list[int], data: st.DataObject) -> None:
    tails = data.draw(st.lists(st.lists(st.integers(0, 9), max_size=4), min_size=1, max_size=6))
    prompts = [common + tail for tail in tails]
    shared = common_length(prompts)
    assert len(common) - 1 <= shared < min(len(p) for p in prompts)
    assert len({tuple(p[:shared]) for p in prompts}) == 1


def test_a_prompt_that_begins_another_is_not_swallowed() -> None:
    assert common_length([[1, 2, 3], [1, 2, 3, 4]]) == 2
    assert common_length([[1, 2, 3]]) == 2
    assert common_length([[1, 2, 3], [1, 2, 3]]) == 2
    assert common_length([[7], [7, 8]]) == 0
    assert common_length([[1, 2, 3], [2, 2, 3]]) == 0


# --- the same readings --------------------------------------------------------------------------


@pytest.fixture
def small_bench() -> Bench:
    return bench_of(12, 30)


@pytest.fixture(params=[False, True], ids=["untouched", "adapter"])
def bench(request: pytest.FixtureRequest, small_bench: Bench) -> Iterator[Bench]:
    if not request.param:
        yield small_bench
        return
    with fresh_adapter(small_bench.base, LoraConfig(dropout=0), 0) as adapted:
        disturb(adapted)
        yield small_bench


def put(bench: Bench, prompting: Prompting) -> Suite:
    return prompted(bench.suite, prompting, bench.words[Split.TRAIN].real)


def no_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every beginning be too short to be worth it."""
    monkeypatch.setattr(prefix, "MIN_PREFIX_TOKENS", 10**9)
    monkeypatch.setattr(generation, "MIN_PREFIX_TOKENS", 10**9)


def with_prefix(
    bench: Bench, items: tuple[Item, ...], encoded: list[EncodedItem]
) -> list[tuple[list[int], prefix.Prefix]]:
    with torch.inference_mode():
        groups = list(prefix_groups(bench.base.network, items, encoded))
    assert sorted(i for rows, _ in groups for i in rows) == list(range(len(items)))
    return [(rows, begun) for rows, begun in groups if begun is not None]


def test_examples_are_shared_by_every_item_of_a_template(small_bench: Bench) -> None:
    items = put(small_bench, Prompting.FOUR_SHOT).items
    encoded = small_bench.base.tokenizer.encode_items(items)
    groups = with_prefix(small_bench, items, encoded)
    assert len(groups) == len({(item.task, item.template) for item in items}) == 9
    for rows, begun in groups:
        assert len({(items[i].task, items[i].template) for i in rows}) == 1
        assert begun.length >= MIN_PREFIX_TOKENS
        shots = "".join(f"{q}{a}\n" for q, a in items[rows[0]].shots)
        told = small_bench.base.tokenizer.decode(encoded[rows[0]].prompt[: begun.length])
        # A last token of the examples may hold the first letter of the question too.
        assert told.startswith(shots) or shots.startswith(told)
        assert len(told) > len(shots) - 8


def test_hidden_states_with_a_prefix_are_those_without(bench: Bench) -> None:
    items = put(bench, Prompting.FOUR_SHOT).items
    encoded = bench.base.tokenizer.encode_items(items)
    network = bench.base.network
    with torch.inference_mode():
        for rows, begun in with_prefix(bench, items, encoded):
            whole = [encoded[i] for i in rows]
            rest = [EncodedItem(row.prompt[begun.length :], row.answer) for row in whole]
            expected = answer_states(network, pack(whole, together=False))
            hidden = answer_states(network, pack(rest), begun)
            assert len(hidden) == sum(len(row.answer) for row in whole)
            torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-4)


def test_a_prefix_may_be_read_again_and_again(small_bench: Bench) -> None:
    """A batch writes into a cache of its own, not into what others will read."""
    items = put(small_bench, Prompting.FOUR_SHOT).items
    encoded = small_bench.base.tokenizer.encode_items(items)
    with torch.inference_mode():
        rows, begun = with_prefix(small_bench, items, encoded)[0]
        rest = [EncodedItem(encoded[i].prompt[begun.length :], encoded[i].answer) for i in rows]
        first = answer_states(small_bench.base.network, pack(rest), begun)
        again = answer_states(small_bench.base.network, pack(rest), begun)
    assert torch.equal(first, again)
    assert {keys.shape[:1] + keys.shape[2:3] for keys, _ in begun.layers} == {(1, begun.length)}


@pytest.mark.parametrize("prompting", [Prompting.FOUR_SHOT, Prompting.ORACLE])
def test_readings_with_shared_prefixes_are_those_without(
    bench: Bench, prompting: Prompting, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = put(bench, prompting).items
    encoded = bench.base.tokenizer.encode_items(items)
    shared = bench.scorer.read(items, encoded)
    no_prefixes(monkeypatch)
    assert with_prefix(bench, items, encoded) == []
    alone = bench.scorer.read(items, encoded)
    for a, b in zip(shared, alone, strict=True):
        assert a._replace(margin=0) == b._replace(margin=0)
        assert a.margin == pytest.approx(b.margin, abs=1e-4)


def test_greedy_texts_with_and_without_a_shared_prefix_are_identical(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [i for i in put(bench, Prompting.FOUR_SHOT).items if i.template == "write/commas"]
    encoded = bench.base.tokenizer.encode_items(items)
    lengths = Counter(len(row.prompt) for row in encoded)
    rows = [row for row in encoded if len(row.prompt) == lengths.most_common(1)[0][0]]
    assert len(rows) >= prefix.MIN_ROWS
    assert common_length([row.prompt for row in rows]) >= MIN_PREFIX_TOKENS
    shared = greedy_texts(bench.base.network, bench.base.tokenizer, rows, 4)
    no_prefixes(monkeypatch)
    assert greedy_texts(bench.base.network, bench.base.tokenizer, rows, 4) == shared
    for row, text in zip(rows, shared, strict=True):
        assert by_definition(bench, row.prompt, len(row.answer) + 4) == text


def by_definition(bench: Bench, prompt: list[int], longest: int) -> str:
    """Decode without cache, batch, padding or prefix."""
    ids = list(prompt)
    for _ in range(longest):
        with torch.inference_mode():
            token = int(bench.base.network(torch.tensor([ids])).logits[0, -1].argmax())
        if token in bench.base.tokenizer.end_ids:
            break
        ids.append(token)
    return bench.base.tokenizer.decode(ids[len(prompt) :])


@pytest.mark.parametrize("prompting", [Prompting.FOUR_SHOT, Prompting.ORACLE])
def test_the_strict_verdict_is_greedy_decoding_however_items_are_put(
    bench: Bench, prompting: Prompting
) -> None:
    suite = put(bench, prompting)
    strict = bench.scorer.score(suite)["strict_correct"]
    assert 0 < strict.mean() < 1
    encoded = bench.base.tokenizer.encode_items(suite.items)
    for i in range(0, len(suite.items), 13):
        text = by_definition(bench, encoded[i].prompt, len(encoded[i].answer) + 2)
        assert strict[i] == (text == suite.items[i].answer), suite.items[i]
    certificate = certify(bench.base, bench.scorer, suite, 54)
    assert certificate.num_items == 54
    assert certificate.num_disagreements == 0


def test_the_margin_is_measured_with_prefixes_too(small_bench: Bench) -> None:
    items = put(small_bench, Prompting.FOUR_SHOT).items[:18]
    encoded = small_bench.base.tokenizer.encode_items(items)
    assert with_prefix(small_bench, items, encoded)
    difference = largest_difference(small_bench.base.network, items, encoded)
    assert 0 < difference < 1e-3


def test_reading_a_beginning_gives_keys_for_each_of_its_tokens(small_bench: Bench) -> None:
    begun = read_prefix(small_bench.base.network, [5, 100, 900])
    config = small_bench.base.network.config
    assert begun.length == 3
    assert len(begun.layers) == config.num_hidden_layers
    cache = begun.repeated(5)
    assert cache.get_seq_length() == 3
    assert {tuple(layer.keys.shape) for layer in cache.layers} == {
        (5, config.num_key_value_heads, 3, config.head_dim)
    }
