"""The making of the embedded model: what it may see, and that the shipped one was made so."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tuning.errors import ConfigError, ModelError
from tuning.fingerprint import embedded_weights_hash
from tuning.model.base import load_base
from tuning.model.tiny import (
    TinyVocabulary,
    choose_vocabulary,
    tiny_card,
    tiny_folder,
    tiny_tokenizer,
    tiny_words,
)
from tuning.tasks.splits import Split, split_words
from tuning.tasks.words import benchmark_stems, is_word, keyed_rng, stems
from tuning.training import pretrain_tiny
from tuning.training.pretrain_tiny import (
    PretrainingSettings,
    PretrainingWords,
    batches,
    every_template_filled,
    new_model,
    pretrain,
    pretraining_item,
)


def words_of_pretraining() -> PretrainingWords:
    words = tiny_words()
    return PretrainingWords(
        words.pretraining, (*words.pretraining, *split_words(words.study)[Split.TRAIN])
    )


def test_pretraining_never_shows_a_held_out_or_a_benchmark_word() -> None:
    words, rng = words_of_pretraining(), keyed_rng("test")
    study = split_words(tiny_words().study)
    held_out = {*study[Split.VALIDATION], *study[Split.TEST]}
    shown = set()
    for _ in range(60_000):
        item = pretraining_item(words, rng)
        text = f"{item.question} {item.answer}"
        shown |= {w for w in text.replace(".", " ").replace("?", " ").split() if is_word(w)}
    assert not shown & held_out
    subjects = {pretraining_item(words, rng).word for _ in range(20_000)} - {""}
    plain = [word for word in subjects if is_word(word)]
    assert not set(stems(plain)) & benchmark_stems()


def test_study_words_are_never_spelled_or_asked_in_pretraining() -> None:
    words, rng = words_of_pretraining(), keyed_rng("test", 2)
    study = set(tiny_words().study)
    kinds: Counter[str] = Counter()
    for _ in range(20_000):
        item = pretraining_item(words, rng)
        if item.word in study:
            kinds[item.template.split("/")[0]] += 1
    assert set(kinds) == {"join", "put", "first", "last", "contains", "repeat"}


@pytest.fixture(scope="module")
def chosen() -> TinyVocabulary:
    """Return what the rules choose; they take seconds."""
    return choose_vocabulary(every_template_filled())


@pytest.mark.nightly
def test_the_shipped_words_and_tokens_are_those_that_the_rules_choose(
    chosen: TinyVocabulary,
) -> None:
    assert chosen.words == tiny_words()
    assert list(chosen.kept_ids) == tiny_card()["kept_ids"]


def test_the_card_describes_the_shipped_weights() -> None:
    card = tiny_card()
    assert card["weights_sha256"] == embedded_weights_hash()
    assert (tiny_folder() / "model.safetensors").stat().st_size < 10 * 2**20
    base = load_base("tiny")
    assert card["num_parameters"] == base.num_parameters
    assert 1e6 < base.num_parameters < 4e6
    assert base.network.config.model_type == "qwen3"
    assert card["settings"] == {
        name: getattr(PretrainingSettings(), name) for name in card["settings"]
    }
    assert tiny_tokenizer().vocab_size == base.network.config.vocab_size


def test_batches_and_first_weights_repeat() -> None:
    settings = PretrainingSettings(num_steps=4, warmup_steps=2, batch_size=8)
    words, tokenizer = words_of_pretraining(), tiny_tokenizer()
    streams = [batches(words, tokenizer, settings) for _ in range(2)]
    for _ in range(10):
        assert next(streams[0]) == next(streams[1])
    first, second = (new_model(tokenizer.vocab_size, 0, settings) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
def test_pretraining_writes_a_model_that_loads(
    tmp_path: Path, chosen: TinyVocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrain_tiny, "choose_vocabulary", lambda texts: chosen)
    losses: list[float] = []
    settings = PretrainingSettings(num_steps=4, warmup_steps=2, batch_size=8)
    pretrain(tmp_path, settings, lambda step, loss: losses.append(loss))
    assert len(losses) == 4
    card = tiny_card(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sum(p.numel() for p in loaded.parameters()) == card["num_parameters"]
    assert tiny_words(tmp_path) == tiny_words()
    (tmp_path / "model.safetensors").write_bytes(b"other")
    tiny_card.cache_clear()
    with pytest.raises(ModelError, match=r"is not the file that card\.json describes"):
        tiny_card(tmp_path)


@pytest.mark.parametrize("warmup", [1, 10, 11])
def test_a_warm_up_that_cannot_be_is_refused(warmup: int) -> None:
    with pytest.raises(ConfigError, match=f"fewer than all 10, got {warmup}"):
        PretrainingSettings(num_steps=10, warmup_steps=warmup)
