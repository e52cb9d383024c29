"""Laws of `tuning.tasks.difficulty`: the table of science.md, section 2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.tasks.difficulty import Band, band_of

# Rows: letters 3 to 15. Columns: tokens 1 to 5. e(asy), m(edium), h(ard).
TABLE = {
    3: "eemhh",
    4: "eemhh",
    5: "eemhh",
    6: "mmmhh",
    7: "mmmhh",
    8: "mmmhh",
    9: "hhhhh",
    10: "hhhhh",
    11: "hhhhh",
    12: "hhhhh",
    13: "hhhhh",
    14: "hhhhh",
    15: "hhhhh",
}


@pytest.mark.parametrize("num_letters", TABLE)
def test_the_bands_are_those_of_the_table(num_letters: int) -> None:
    found = "".join(band_of(num_letters, num_tokens).value[0] for num_tokens in range(1, 6))
    assert found == TABLE[num_letters]


@given(num_letters=st.integers(3, 15), num_tokens=st.integers(1, 10))
def test_a_pseudo_word_is_always_hard(num_letters: int, num_tokens: int) -> None:
    assert band_of(num_letters, num_tokens, is_pseudo_word=True) is Band.HARD


@given(num_letters=st.integers(3, 14), num_tokens=st.integers(1, 10))
def test_no_more_letters_or_tokens_make_a_word_easier(num_letters: int, num_tokens: int) -> None:
    order = [Band.EASY, Band.MEDIUM, Band.HARD]
    here = order.index(band_of(num_letters, num_tokens))
    assert order.index(band_of(num_letters + 1, num_tokens)) >= here
    assert order.index(band_of(num_letters, num_tokens + 1)) >= here


def test_there_are_three_bands_named_as_in_configurations() -> None:
    assert [band.value for band in Band] == ["easy", "medium", "hard"]
