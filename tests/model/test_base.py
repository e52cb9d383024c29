"""Names of models, and texts that a model cannot read."""

from __future__ import annotations

import pytest

from tuning.errors import DroppedTokenError, ModelError
from tuning.model.base import check_name, load_base, subject_words, tokenizer_of
from tuning.model.tiny import tiny_words
from tuning.qwen3_tokenizer import load_qwen3_tokenizer
from tuning.tasks.words import english_words


def test_ids_of_tiny_are_genuine_qwen3_ids() -> None:
    tokenizer, genuine = tokenizer_of("tiny"), load_qwen3_tokenizer()
    for word in tiny_words().study[::977]:
        rows = tokenizer.encode_batch([f" {word}"])[0]
        assert [tokenizer.kept_ids[row] for row in rows] == genuine.encode(f" {word}").ids
        assert tokenizer.decode(rows) == f" {word}"
        assert "".join(tokenizer.cut([word])[0]) == f" {word}"


def test_a_text_with_a_dropped_token_is_refused_by_name() -> None:
    tokenizer = tokenizer_of("tiny")
    with pytest.raises(DroppedTokenError, match=r"no row for the token 'Ġphilosophy'"):
        tokenizer.encode_batch(["Spell the word philosophy."])
    assert tokenizer.can_encode(["Spell the word philosophy.", "Spell the word"]) == [False, True]


def test_every_study_word_can_be_written_in_every_form() -> None:
    tokenizer = tokenizer_of("tiny")
    words = tiny_words().study
    for form in (" {}", ' "{}"'):
        assert all(tokenizer.can_encode([form.format(w) for w in words]))
    assert all(tokenizer.can_encode([f" {w.capitalize()}" for w in words]))


def test_every_study_word_has_several_tokens() -> None:
    assert min(tokenizer_of("tiny").count_tokens(tiny_words().study)) >= 2


def test_other_models_are_asked_about_all_words() -> None:
    words = subject_words("qwen3-4b")
    assert set(words) < set(english_words())
    assert len(words) > 200_000


@pytest.mark.parametrize("name", ["tinny", "", "qwen3"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="unknown model"):
        check_name(name)


@pytest.mark.parametrize("name", ["tiny", "qwen3-4b", "Qwen/Qwen3-4B"])
def test_known_names_and_hub_ids_pass(name: str) -> None:
    check_name(name)


def test_weights_that_cannot_be_had_name_the_embedded_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="models=tiny"):
        load_base("nobody/no-such-model-here")


def test_the_last_base_is_kept() -> None:
    assert load_base("tiny") is load_base("tiny")
