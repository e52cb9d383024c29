"""Laws of `tuning.tasks.lenient`: what an answer means, whatever its form."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.tasks import count, position, spelling
from tuning.tasks.items import Item, Task
from tuning.tasks.lenient import NUMBER_WORDS, Outcome, read_leniently, spelled_letters
from tuning.tasks.spelling import SEPARATORS

WORD = st.from_regex("[a-z]{3,15}", fullmatch=True)
CORRECT, WRONG, UNPARSEABLE = Outcome.CORRECT, Outcome.WRONG, Outcome.UNPARSEABLE

# The fourth letter of planet is n.
FOURTH = position.position_item("planet", 4, position.TEMPLATES[0])
# There are two n in cannot.
TWO = count.count_item("cannot", "n", count.TEMPLATES[0])
PLANET = spelling.plain_item("planet")


def own(task: str, answer: str, *targets: str) -> Item:
    return Item(
        task=task, word="planet", template="own", question="?\n", answer=answer, targets=targets
    )


# --- position ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "extracted", "outcome"),
    [
        ("n", "n", CORRECT),
        ("N", "n", CORRECT),
        (" n\n", "n", CORRECT),
        ("n.", "n", CORRECT),
        ("**n**", "n", CORRECT),
        ("`n`", "n", CORRECT),
        ("_n_", "n", CORRECT),
        ('"n"', "n", CORRECT),
        ("'n'", "n", CORRECT),
        ("(n)", "n", CORRECT),
        ("n!", "n", CORRECT),
        ("-n", "n", CORRECT),
        ("The third letter is n.", "n", CORRECT),
        ("The letter number 4 of planet is N.", "n", CORRECT),
        ("Answer: n", "n", CORRECT),
        ("p, l, a, n", "n", CORRECT),
        ("It's n.", "n", CORRECT),
        ("It is not a, it is n.", "n", CORRECT),
        ("Not n but e.", "e", WRONG),
        ("e", "e", WRONG),
        ("A", "a", WRONG),
        ("The fourth letter is e.", "e", WRONG),
        ("", None, UNPARSEABLE),
        (" \n", None, UNPARSEABLE),
        ("planet", None, UNPARSEABLE),
        ("4", None, UNPARSEABLE),
        ("nn", None, UNPARSEABLE),
        ("n4", None, UNPARSEABLE),
        ("4n", None, UNPARSEABLE),
        ("No letter here", None, UNPARSEABLE),
        ("你好", None, UNPARSEABLE),
        ("ñ", None, UNPARSEABLE),
        ("ño", None, UNPARSEABLE),
        ("…", None, UNPARSEABLE),
    ],
)
def test_a_position_is_read_from_the_last_letter_that_stands_alone(
    text: str, extracted: str | None, outcome: Outcome
) -> None:
    found = read_leniently(FOURTH, text)
    assert (found.extracted, found.outcome) == (extracted, outcome)
    assert found.text == text
    assert found.character_error_rate is found.length_error is None


@pytest.mark.parametrize(
    "text", ["The letter is n, isn't it?", "n, that's it.", "n (I'm sure, and that’s that)."]
)
def test_what_an_apostrophe_cuts_off_is_no_letter(text: str) -> None:
    assert read_leniently(FOURTH, text).extracted != "t"
    assert read_leniently(FOURTH, text).extracted != "s"


# --- count ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "extracted", "outcome"),
    [
        ("2", "2", CORRECT),
        ("2.", "2", CORRECT),
        (" 2 \n", "2", CORRECT),
        ("**2**", "2", CORRECT),
        ("02", "2", CORRECT),
        ("two", "2", CORRECT),
        ("Two", "2", CORRECT),
        ("TWO.", "2", CORRECT),
        ("twice", "2", CORRECT),
        ("There are 2.", "2", CORRECT),
        ("There are two n's in cannot.", "2", CORRECT),
        ("The letter n occurs twice.", "2", CORRECT),
        ("Not 3 but 2", "2", CORRECT),
        ("1 + 1 = 2", "2", CORRECT),
        ("2x", "2", CORRECT),
        ("3", "3", WRONG),
        ("zero", "0", WRONG),
        ("0", "0", WRONG),
        ("none", "0", WRONG),
        ("never", "0", WRONG),
        ("once", "1", WRONG),
        ("thrice", "3", WRONG),
        ("fifteen", "15", WRONG),
        ("22", "22", WRONG),
        ("2 or 3", "3", WRONG),
        ("", None, UNPARSEABLE),
        ("\n", None, UNPARSEABLE),
        ("n", None, UNPARSEABLE),
        ("n n", None, UNPARSEABLE),
        ("many", None, UNPARSEABLE),
        ("cannot", None, UNPARSEABLE),
        ("twofold", None, UNPARSEABLE),
        ("someone", None, UNPARSEABLE),
        ("二", None, UNPARSEABLE),
        ("²", None, UNPARSEABLE),
    ],
)
def test_a_count_is_read_from_the_last_number_or_number_word(
    text: str, extracted: str | None, outcome: Outcome
) -> None:
    found = read_leniently(TWO, text)
    assert (found.extracted, found.outcome) == (extracted, outcome)


@pytest.mark.parametrize("number", range(16))
def test_number_words_reach_from_zero_to_fifteen(number: int) -> None:
    names = (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
        " fifteen"
    )
    assert read_leniently(TWO, names.split()[number]).extracted == str(number)
    assert read_leniently(TWO, f"It is {names.split()[number].upper()}!").extracted == str(number)
    assert set(NUMBER_WORDS.values()) == {str(n) for n in range(16)}


def test_an_endless_number_is_wrong_and_no_fault() -> None:
    found = read_leniently(TWO, "2" * 5000)
    assert found.outcome is WRONG
    assert found.text == "2" * 5000


# --- spelling ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "extracted", "outcome"),
    [
        ("p l a n e t", "planet", CORRECT),
        ("P L A N E T", "planet", CORRECT),
        ("P-L-A-N-E-T", "planet", CORRECT),
        ("p, l, a, n, e, t", "planet", CORRECT),
        ("p\nl\na\nn\ne\nt", "planet", CORRECT),
        ("p. l. a. n. e. t.", "planet", CORRECT),
        ("p - l - a - n - e - t", "planet", CORRECT),
        ("p → l → a → n → e → t", "planet", CORRECT),
        ("**p l a n e t**", "planet", CORRECT),
        ("'p' 'l' 'a' 'n' 'e' 't'", "planet", CORRECT),
        ("p/l/a/n/e/t", "planet", CORRECT),
        ("p_l_a_n_e_t", "planet", CORRECT),
        ("The word planet is spelled p l a n e t.", "planet", CORRECT),
        ("planet: p-l-a-n-e-t", "planet", CORRECT),
        ("planet is spelled: P, L, A, N, E, T!", "planet", CORRECT),
        ("Sure! Here is how: p l a n e t. Anything else?", "planet", CORRECT),
        ("p l a n t", "plant", WRONG),
        ("p l a n e t s", "planets", WRONG),
        ("p l a n t e", "plante", WRONG),
        ("o r b", "orb", WRONG),
        ("p l", "pl", WRONG),
        ("planet", None, UNPARSEABLE),
        ("Planet.", None, UNPARSEABLE),
        ("The word is planet", None, UNPARSEABLE),
        ("p", None, UNPARSEABLE),
        ("", None, UNPARSEABLE),
        ("  \n ", None, UNPARSEABLE),
        ("123", None, UNPARSEABLE),
        ("1 2 3", None, UNPARSEABLE),
        ("п л а н е т", None, UNPARSEABLE),
        ("你 好", None, UNPARSEABLE),
    ],
)
def test_a_spelling_is_the_longest_run_of_letters_that_stand_apart(
    text: str, extracted: str | None, outcome: Outcome
) -> None:
    found = read_leniently(PLANET, text)
    assert (found.extracted, found.outcome) == (extracted, outcome)
    assert spelled_letters(text) == extracted


@pytest.mark.parametrize(
    "text", ["It's p l a n e t.", "That’s p l a n e t", "You'd write p-l-a-n-e-t."]
)
def test_what_an_apostrophe_cuts_off_is_not_spelled(text: str) -> None:
    assert read_leniently(PLANET, text).extracted == "planet"


@given(word=WORD, separator=st.sampled_from(SEPARATORS), capital=st.booleans())
def test_the_right_spelling_is_right_with_every_separator(
    word: str, separator: spelling.Separator, capital: bool
) -> None:
    written = word.capitalize() if capital else word
    for item in (*spelling.evaluation_items(word), spelling.plain_item(word)):
        found = read_leniently(item, spelling.spell(written, separator.text))
        assert found.outcome is CORRECT
        assert found.extracted == word
        assert (found.character_error_rate, found.length_error) == (0.0, 0)


@given(word=WORD, separator=st.sampled_from(SEPARATORS), data=st.data())
def test_a_letter_left_out_is_one_edit_over_the_length(
    word: str, separator: spelling.Separator, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(word) - 1))
    letters = word[:place] + word[place + 1 :]
    found = read_leniently(spelling.plain_item(word), spelling.spell(letters, separator.text))
    assert found.outcome is WRONG
    assert found.character_error_rate == pytest.approx(1 / len(word))
    assert found.length_error == -1


@given(word=WORD, letter=st.sampled_from(string.ascii_lowercase), data=st.data())
def test_a_letter_too_many_or_another_one_is_one_edit_over_the_length(
    word: str, letter: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(word) - 1))
    more = read_leniently(spelling.plain_item(word), " ".join(word[:place] + letter + word[place:]))
    assert more.character_error_rate == pytest.approx(1 / len(word))
    assert (more.outcome, more.length_error) == (WRONG, 1)
    other = word[:place] + letter + word[place + 1 :]
    swapped = read_leniently(spelling.plain_item(word), " ".join(other))
    edits = int(other != word)
    assert swapped.character_error_rate == pytest.approx(edits / len(word))
    assert (swapped.outcome is CORRECT) == (edits == 0)
    assert swapped.length_error == 0


@pytest.mark.parametrize(
    ("text", "rate", "length_error"),
    [
        ("p l a n e t", 0.0, 0),
        ("p l a n t", 1 / 6, -1),
        ("p l a n n e t", 1 / 6, 1),
        ("p l e n a t", 2 / 6, 0),
        ("x y z", 1.0, -3),
        ("planet", 1.0, -6),  # nothing was spelled
        ("", 1.0, -6),
        ("b c d f g h i j k m o s", 12 / 6, 6),
    ],
)
def test_error_rates_by_hand(text: str, rate: float, length_error: int) -> None:
    found = read_leniently(PLANET, text)
    assert found.character_error_rate == pytest.approx(rate)
    assert found.length_error == length_error


# --- other tasks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Yes", CORRECT),
        ("yes", CORRECT),
        (" YES. ", CORRECT),
        ('"yes"', CORRECT),
        ("yes\n", CORRECT),
        ("no", WRONG),
        ("yes it does", WRONG),
        ("", UNPARSEABLE),
        (".", UNPARSEABLE),
        ("  ", UNPARSEABLE),
    ],
)
def test_other_tasks_are_read_without_case_and_outer_marks(text: str, outcome: Outcome) -> None:
    assert read_leniently(own("contains_char", "Yes"), text).outcome is outcome


@pytest.mark.parametrize("text", ["grey", "Gray.", "GREY"])
def test_other_right_answers_are_right(text: str) -> None:
    assert read_leniently(own("word", "grey", "gray"), text).outcome is CORRECT
    assert read_leniently(own("word", "gray"), "grey").outcome is WRONG


def test_other_right_answers_of_our_tasks_are_right_too() -> None:
    assert read_leniently(own("position", "n", "e"), "It is E.").outcome is CORRECT
    assert read_leniently(own("count", "2", "3"), "three").outcome is CORRECT
    item = Item(
        task=Task.SPELLING,
        word="grey",
        template="own",
        question="Spell the colour.\n",
        answer="g r e y",
        targets=("g r a y",),
    )
    assert read_leniently(item, "g-r-a-y").outcome is CORRECT


# --- all tasks --------------------------------------------------------------------------------


@given(word=WORD, data=st.data())
def test_a_right_answer_is_always_read_as_right(word: str, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, len(word)))
    letter = data.draw(st.sampled_from(string.ascii_lowercase))
    items = [position.position_item(word, n, t) for t in position.TEMPLATES]
    items += count.evaluation_items(word, letter) + spelling.evaluation_items(word)
    for item in items:
        for text in (item.answer, item.answer.upper(), f" {item.answer} \n", f"**{item.answer}**"):
            assert read_leniently(item, text).outcome is CORRECT


@given(text=st.text(max_size=60), item=st.sampled_from([FOURTH, TWO, PLANET, own("x", "Yes")]))
@settings(max_examples=300)
def test_any_text_is_read(text: str, item: Item) -> None:
    found = read_leniently(item, text)
    assert found.text == text
    assert (found.extracted is None) == (found.outcome is UNPARSEABLE)
    assert (found.character_error_rate is not None) == (item.task is Task.SPELLING)
    if found.outcome is UNPARSEABLE and item.task is Task.SPELLING:
        assert found.length_error == -6


@given(before=st.text(" .,;:!?*\n", max_size=6), after=st.text(" .,;:!?*\n", max_size=6))
def test_marks_around_an_answer_change_nothing(before: str, after: str) -> None:
    for item, answer in ((FOURTH, "n"), (TWO, "2"), (PLANET, "p l a n e t")):
        assert read_leniently(item, before + answer + after).outcome is CORRECT


def test_outcomes_have_the_names_that_are_stored() -> None:
    assert [o.value for o in Outcome] == ["correct", "wrong", "unparseable"]
