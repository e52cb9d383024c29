"""Names of models, and texts that a model cannot read."""

from __future__ import annotations

import pytest

from tuning.errors import DroppedTokenError, ModelError
from tuning.model.base import encodable, load_base, subject_words, tokenizer_of
from tuning.model.tiny import tiny_words, written_forms
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
    with pytest.raises(DroppedTokenError, match=r"no row for the token ' philosophy'"):
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
    assert set(words.real) < set(english_words())
    assert len(words.real) > 200_000
    assert len(words.pseudo) == len(words.real) // 10
    assert not words.pseudo_set & set(english_words())


def test_tiny_is_asked_about_study_words_and_made_up_ones_that_it_can_write() -> None:
    words = subject_words("tiny")
    assert words.real == tiny_words().study
    assert 0.05 * len(words.real) < len(words.pseudo) <= 0.1 * len(words.real)
    assert not words.pseudo_set & set(english_words())
    tokenizer = tokenizer_of("tiny")
    assert all(tokenizer.can_encode([form for w in words.pseudo for form in written_forms(w)]))


def test_words_that_a_model_cannot_write_in_some_form_are_left_out() -> None:
    study = tiny_words().study[:2]
    assert encodable((study[0], "philosophy", study[1]), tokenizer_of("tiny")) == study
    assert encodable((), tokenizer_of("tiny")) == ()


def test_weights_that_cannot_be_had_name_the_embedded_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="models=tiny"):
        load_base("nobody/no-such-model-here")


def test_the_last_base_is_kept() -> None:
    assert load_base("tiny") is load_base("tiny")
