"""Laws of `tuning.tokens.letters`: every letter of a word is in one token, at its position."""

from __future__ import annotations

import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.letters import Cell, CutForm, cut_letters
from tuning.tokens.words import Form


def cut(word: str) -> tuple[CutForm, ...]:
    loaded = qwen3_tokenizer()
    return cut_letters(loaded.backend, loaded.vocabulary, word)


def test_strawberry_in_three_forms() -> None:
    spaced, bare, capitalised = cut("strawberry")
    assert [form.form for form in (spaced, bare, capitalised)] == list(Form)
    assert [piece.id for piece in spaced.pieces] == [72600]
    assert [(piece.id, piece.text) for piece in bare.pieces] == [
        (495, "str"),
        (672, "aw"),
        (15357, "berry"),
    ]
    assert bare.pieces[1].cells == (Cell("a", 4), Cell("w", 5))
    assert spaced.pieces[0].cells[:2] == (Cell("␣", None), Cell("s", 1))
    assert capitalised.pieces[0].string == "ĠStrawberry"


def test_forms_of_the_same_text_are_there_once() -> None:
    assert [form.form for form in cut("Berlin")] == [Form.SPACED, Form.BARE]


def test_a_character_of_several_tokens_is_shown_byte_by_byte() -> None:
    (bare,) = (form for form in cut("ዼ") if form.form is Form.BARE)
    cells = [cell for piece in bare.pieces for cell in piece.cells]
    assert len(bare.pieces) > 1
    assert all(cell.position == 1 for cell in cells)
    assert bytes.fromhex("".join(cell.text for cell in cells)).decode() == "ዼ"


_WORD = st.text(min_size=1, max_size=12).map(str.strip).filter(bool)


@given(word=_WORD | st.sampled_from(["<think>", "naïve", "e\u0301clair", "日本語", "🧪🧪"]))
@settings(deadline=None, max_examples=150)
def test_letters_stand_in_order_and_none_is_lost(word: str) -> None:
    backend = qwen3_tokenizer().backend
    for form in cut(word):
        assert form.text in (word, f" {word}", f" {word[:1].upper()}{word[1:]}")
        assert [piece.id for piece in form.pieces] == backend.encode(
            form.text, add_special_tokens=False
        ).ids
        text = unicodedata.normalize("NFC", form.text)
        positions = [
            cell.position for piece in form.pieces for cell in piece.cells if cell.position
        ]
        assert positions == sorted(positions)
        num_letters = len(text) - (form.form is not Form.BARE)
        assert sorted(set(positions)) == list(range(1, num_letters + 1))
