"""Laws of `tuning.tokens.subset`: what each rule keeps, judged anew from the tokenizer's file."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tuning.errors import NotFoundError
from tuning.qwen3_tokenizer import qwen3_tokenizer, tokenizer_source
from tuning.tasks.words import english_words
from tuning.tokens.prompts import every_question
from tuning.tokens.subset import ROWS_MULTIPLE, Subset, SubsetRule, accepts, chosen_by

COUNTS = {
    SubsetRule.LETTERS: 68_923,
    SubsetRule.PRINTABLE: 90_913,
    SubsetRule.ASCII: 94_358,
    SubsetRule.DICTIONARY: 41_424,
}
RULES = pytest.mark.parametrize("rule", SubsetRule)


@pytest.fixture(scope="module")
def subsets() -> dict[SubsetRule, Subset]:
    loaded = qwen3_tokenizer()
    return {rule: loaded.subset(rule) for rule in SubsetRule}


@pytest.fixture(scope="module")
def texts() -> dict[int, str | None]:
    """Return the text of every base token by the decoder of the tokenizer; None for no text."""
    content: Any = json.loads(tokenizer_source().path.read_text("utf-8"))
    backend = qwen3_tokenizer().backend
    ids = list(content["model"]["vocab"].values())
    found = backend.decode_batch([[token] for token in ids], skip_special_tokens=False)
    return {t: None if "\ufffd" in text else text for t, text in zip(ids, found, strict=True)}


def _is_letters(text: str) -> bool:
    word = text.removeprefix(" ")
    return word.isascii() and word.isalpha()


@RULES
def test_rules_choose_what_a_second_judgement_of_the_texts_chooses(
    rule: SubsetRule, texts: dict[int, str | None]
) -> None:
    chosen = chosen_by(rule, qwen3_tokenizer().vocabulary)
    assert len(chosen) == COUNTS[rule]
    assert chosen == sorted(chosen)
    judged = {
        SubsetRule.LETTERS: _is_letters,
        SubsetRule.PRINTABLE: lambda text: text.isascii() and text.isprintable(),
        SubsetRule.ASCII: str.isascii,
        SubsetRule.DICTIONARY: lambda text: (
            _is_letters(text) and accepts(rule, text.lower().encode())
        ),
    }[rule]
    # One token is the replacement character itself.
    assert chosen == [token for token in sorted(texts) if (t := texts[token]) and judged(t)]


def test_rules_lie_within_each_other() -> None:
    vocabulary = qwen3_tokenizer().vocabulary
    order = (SubsetRule.DICTIONARY, SubsetRule.LETTERS, SubsetRule.PRINTABLE, SubsetRule.ASCII)
    sets = [set(chosen_by(rule, vocabulary)) for rule in order]
    assert sets == sorted(sets, key=len)
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False))


@pytest.mark.parametrize(
    ("token", "rules"),
    [
        (b" the", "dictionary letters printable ascii"),
        (b"The", "dictionary letters printable ascii"),
        (b" zqxv", "letters printable ascii"),
        (b"  a", "printable ascii"),
        (b" ", "printable ascii"),
        (b"a1", "printable ascii"),
        (b"\n", "ascii"),
        (b"\x7f", "ascii"),
        ("é".encode(), ""),
        (b"\xc3", ""),
    ],
)
def test_what_each_rule_accepts(token: bytes, rules: str) -> None:
    assert {rule for rule in SubsetRule if accepts(rule, token)} == set(rules.split())


@RULES
def test_a_subset_has_what_prompts_need_in_whole_blocks(
    rule: SubsetRule, subsets: dict[SubsetRule, Subset]
) -> None:
    loaded, subset = qwen3_tokenizer(), subsets[rule]
    kept = set(subset.ids)
    assert list(subset.ids) == sorted(kept)
    assert sum(subset.counts.values()) == len(kept)
    assert len(kept) % ROWS_MULTIPLE == 0
    assert set(chosen_by(rule, loaded.vocabulary)) <= kept
    texts = [text for question in every_question() for text in question]
    for encoded in loaded.backend.encode_batch([*texts, "0123456789", ",", "-", "<|im_end|>"]):
        assert kept.issuperset(encoded.ids)


def test_subsets_by_characters_keep_the_pieces_of_every_word(
    subsets: dict[SubsetRule, Subset],
) -> None:
    loaded = qwen3_tokenizer()
    forms = [form for word in english_words() for form in (word, f" {word}", f" {word.title()}")]
    needed = {token for text in loaded.backend.encode_batch(forms) for token in text.ids}
    assert len(needed) > 50_000
    for rule, subset in subsets.items():
        if rule.keeps_all_words:
            assert needed <= set(subset.ids)


def test_a_rule_is_found_by_name_and_an_unknown_one_names_the_nearest() -> None:
    assert [SubsetRule.named(rule.value) for rule in SubsetRule] == list(SubsetRule)
    assert SubsetRule.named(SubsetRule.ASCII) is SubsetRule.ASCII
    with pytest.raises(NotFoundError, match="'printible'; did you mean printable"):
        SubsetRule.named("printible")
    with pytest.raises(NotFoundError, match="known: ascii, dictionary, letters, printable"):
        SubsetRule.named("")
