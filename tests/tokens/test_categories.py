"""Laws of `tuning.tokens.categories`: every token is of one kind, and counts add up."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.qwen3_tokenizer import qwen3_tokenizer
from tuning.tokens.categories import Category, categories_of, category_of, counted, counts_of
from tuning.tokens.subset import SubsetRule


@pytest.fixture(scope="module")
def categories() -> dict[int, Category]:
    return categories_of(qwen3_tokenizer().vocabulary)


@pytest.mark.parametrize(
    ("token", "category"),
    [
        (" word", Category.SPACED_LETTERS),
        ("Word", Category.LETTERS),
        ("  word", Category.MIXED),
        ("_get", Category.MIXED),
        ("\treturn", Category.MIXED),
        ("’s", Category.MIXED),
        ("7", Category.DIGITS),
        ("²", Category.DIGITS),
        (" (", Category.PUNCTUATION),
        ("};\n", Category.PUNCTUATION),
        ("🙂", Category.PUNCTUATION),
        (" ", Category.BLANK),
        ("\r\n", Category.BLANK),
        ("\u3000", Category.BLANK),
        ("é", Category.LATIN),
        (" naïve", Category.LATIN),
        ("日本", Category.CJK),
        ("ひらがな", Category.CJK),
        ("カ", Category.CJK),
        (" 한국", Category.CJK),
        ("привет", Category.CYRILLIC),
        (" שלום", Category.OTHER_SCRIPTS),
        ("สวัสดี", Category.OTHER_SCRIPTS),
        ("λ", Category.OTHER_SCRIPTS),
        (b"\xe6\x97", Category.NOT_WHOLE),
        (b" \xff", Category.NOT_WHOLE),
    ],
)
def test_known_tokens_are_of_their_kind(token: str | bytes, category: Category) -> None:
    assert category_of(token if isinstance(token, bytes) else token.encode()) is category


@given(token=st.binary(min_size=1, max_size=12) | st.text(min_size=1).map(str.encode))
def test_whatever_the_bytes_they_are_of_one_kind(token: bytes) -> None:
    assert category_of(token) in set(Category) - {Category.ADDED}


def test_counts_of_qwen3(categories: dict[int, Category]) -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    found = counted(categories.values())
    assert list(found) == list(Category)
    assert sum(found.values()) == 151_669
    assert found == {category: Counter(categories.values())[category] for category in Category}
    assert (found[Category.SPACED_LETTERS], found[Category.LETTERS]) == (41_547, 68_923 - 41_547)
    counts = counts_of(vocabulary, categories)
    assert counts.by_rule[SubsetRule.ASCII] == 94_358
    assert counts.by_rule[SubsetRule.PRINTABLE] == 90_913
    assert counts.by_rule[SubsetRule.LETTERS] == 68_923
    assert (counts.with_leading_space, counts.not_utf8) == (41_547, 1_448)
    assert counts.raw_strings_ascii == 47_938


def test_the_judgement_of_raw_strings_misses_every_token_with_a_leading_space() -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    spaced = [token for token, raw in vocabulary.base.items() if raw.startswith(b" ")]
    assert not any(vocabulary.strings[token].isascii() for token in spaced)
