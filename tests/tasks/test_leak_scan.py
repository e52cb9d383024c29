"""Laws of `tuning.tasks.leak_scan`: every planted leak is caught, and nothing that is none."""

from __future__ import annotations

import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams_support import GENERAL, band_words, stream_of
from tuning.errors import DataError, LeakError
from tuning.model.tiny import EXTRA_TEMPLATES
from tuning.tasks import count, position, replay, spelling
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Item, Task
from tuning.tasks.leak_scan import (
    MASK,
    Leak,
    check_item,
    find_leak,
    masked_text,
)
from tuning.tasks.replay import ShippedReplay
from tuning.tasks.stream import Arm, TrainingStream

WORDS = st.from_regex(r"[a-z]{3,15}", fullmatch=True)

# What is asked, and what is answered. The words asked about are planet, banana, stair and sky.
PLANTED: dict[Leak, list[tuple[str, str]]] = {
    Leak.POSITION: [
        ("The third letter of planet is a.", "Right."),
        ("PLANET: THE THIRD LETTER IS A.", "Right."),
        ("What is the third\nletter of planet?", "a"),
        ("What is the third  letter of planet?", "a"),
        ("What is the first letter of planet?", "p"),
        ("What is the last letter of planet?", "t"),
        ("What is the 3rd letter of planet?", "a"),
        ("What is the 3rd character in planet?", "a"),
        ("The middle letter of stair is a.", "Right."),
        ("The second-to-last letter of planet is e.", "Right."),
        ("The penultimate letter of planet is e.", "Right."),
        ("Give the nth letter of planet for n = 3.", "a"),
        ("The third of the letters of planet is a.", "Right."),
        ("first letter: p, last letter: t", "planet"),
        ("Letter 3 of planet is a.", "Right."),
        ("What is letter 3 of planet?", "a"),
        ("What is letter number 3 of planet?", "a"),
        ("What is letter number three of planet?", "a"),
        ("What is letter no. 3 of planet?", "a"),
        ("What is letter #3 of planet?", "a"),
        ("Which letter is at position 3 in planet?", "a"),
        ("Position 3 of planet holds a.", "Right."),
        ("In planet, a stands in third position.", "Right."),
        ("In planet, a is at place 3.", "Right."),
        ("Which letter is in slot 4 of planet?", "n"),
        ("In planet the first is p and the second is l.", "Right."),
        ("planet starts with p.", "Right."),
        ("planet begins with the letter p.", "Right."),
        ("planet ends in t.", "Right."),
        ("Which letter does planet start with?", "p"),
        ("Which letter does planet end with?", "t"),
        ("Name a word that starts with the letter p.", "planet"),
        ("the e in planet comes after n", "Right."),
        ("Which letters stand before e in planet?", "p l a n"),
        ("Which letter comes after n in planet?", "e"),
        ("In planet, n precedes e.", "Right."),
        ("In planet, n is followed by e.", "Right."),
        ("letters before e in planet", "p l a n"),
        ("reverse planet", "tenalp"),
        ("planet backwards", "tenalp"),
        ("planet prefix", "pl"),
        ("apple starts with a.", "Right."),
        ("What does apple start with?", "a"),
        ("banana ends in a.", "Right."),
        ("The third is a.", "planet"),
        ("What stands third in planet?", "n"),
        ("What stands third in p l a n e t?", "a"),
    ],
    Leak.INDEX: [
        ("word[2]", "r"),
        ("What is planet[2]?", "a"),
        ("What is planet[-1]?", "t"),
        ("What is 'planet'[2]?", "a"),
        ("What is planet [ 0 ]?", "p"),
        ("planet[:3]", "pla"),
        ("The index of a in planet is 2.", "Right."),
        ("Which letter has index 2 in planet?", "a"),
        ("At offset 2 planet has a.", "Right."),
    ],
    Leak.COUNT: [
        ("there are two a's in banana", "Right."),
        ("There are 3 a's in banana.", "Right."),
        ("banana has three a's.", "Right."),
        ("How many a's are in banana?", "3"),
        ("How many a's does banana have?", "3"),
        ("How many times does a occur in banana?", "3"),
        ("How many times is the letter a used in banana?", "3"),
        ("How often does the letter a appear in banana?", "3"),
        ('How often does "a" appear in banana?', "3"),
        ("Count the letter a in banana.", "3"),
        ("Count the a's in banana.", "3"),
        ("What is the number of a's in banana?", "3"),
        ("The letter a occurs three times in banana.", "Right."),
        ("The letter 'a' occurs three times in banana.", "Right."),
        ("a occurs 3 times in banana.", "Right."),
        ("In banana a appears thrice.", "Right."),
        ("The frequency of the letter a in banana is 3.", "Right."),
        ("banana uses the letter a 3 times.", "Right."),
        ("How many vowels are in banana?", "3"),
        ("There are 3 as in banana.", "Right."),
        ("banana has 3 a.", "Right."),
        ("banana: a", "3"),
        ("banana / a", "three"),
        ("banana", "aaa"),
        ("банан: а", "3"),
        ("What is the number of a in banana?", "3"),
        ("banana has a three times.", "Right."),
        ("How often is there an i in mississippi?", "4"),
        ("How many in b a n a n a?", "6"),
    ],
    Leak.LENGTH: [
        ("planet has 6 letters", "Right."),
        ("planet is six letters long.", "Right."),
        ("planet consists of 6 characters.", "Right."),
        ("How many letters are in planet?", "6"),
        ("How many characters does planet have?", "6"),
        ("Name a six-letter word.", "planet"),
        ("Name a 6-letter word.", "planet"),
        ("How long is the word planet?", "6"),
        ("What is the length of planet?", "6"),
        ("What is the length of the word planet?", "6"),
        ("planet has length 6.", "Right."),
        ("planet", "6"),
        ("Size of the word planet", "6"),
        ("How long is planet?", "six"),
        ("Name a five-lettered word.", "topaz"),
        ("Which is the longer word, cat or planet?", "planet"),
        ("What is len(planet)?", "6"),
        ("len('planet') is 6", "Right."),
        ("The number of letters in planet is 6.", "Right."),
    ],
    Leak.CONTAINS: [
        ("planet contains an l", "Right."),
        ("planet contains the letter l.", "Right."),
        ("Does planet contain the letter y", "no"),
        ("Does planet contain y?", "no"),
        ("Does planet contain 'y'?", "no"),
        ("Does planet include an e?", "yes"),
        ("Is there an e in planet?", "yes"),
        ("Is there a letter e in planet?", "yes"),
        ("There is no z in planet.", "Right."),
        ("Is e in planet?", "yes"),
        ("Is 'e' in planet?", "yes"),
        ("Is the letter e in planet?", "yes"),
        ("Is the letter e part of planet?", "yes"),
        ("Does planet have an e?", "yes"),
        ("planet has a t in it.", "Right."),
        ("Which of these has the letter k: planet or sky?", "sky"),
        ("Name a word without the letter e.", "sky"),
        ("Is there an a in banana?", "yes"),
        ("Is there an i in stair?", "yes"),
        ("Does banana contain an a?", "yes"),
        ("Does banana contain a?", "yes"),
        ("Does banana contain 'a'?", "yes"),
        ("Is a in banana?", "yes"),
        ("Is i in stair?", "yes"),
        ("Is 'a' in banana?", "yes"),
        ("banana has an a.", "Right."),
        ("There is no i in banana.", "Right."),
    ],
    Leak.NUMBERED: [
        ("Spell stair.", "1:s 2:t 3:a 4:i 5:r"),
        ("Spell stair.", "1: s, 2: t, 3: a, 4: i, 5: r"),
        ("Spell stair.", "s1 t2 a3 i4 r5"),
        ("Spell stair.", "s₁ t₂ a₃ i₄ r₅"),
        ("Spell sky.", "s1k2y3"),
        ("Spell stair.", "s1, t2, a3"),
        ("Spell stair.", "1. s\n2. t\n3. a\n4. i\n5. r"),
        ("Spell stair.", "1) s 2) t 3) a"),
        ("Spell stair.", "(1) s (2) t (3) a"),
        ("Spell stair.", "1-s, 2-t, 3-a"),
        ("Spell stair.", "1s 2t 3a 4i 5r"),
        ("Spell stair.", "1 s 2 t 3 a 4 i 5 r"),
        ("Spell stair.", "s 1 t 2 a 3 i 4 r 5"),
        ("Spell stair.", "s=1, t=2, a=3"),
        ("Spell stair.", "s(1) t(2) a(3)"),
        ("Spell stair.", "one is s, two is t, three is a"),
        ("1:s 2:t 3:a 4:i 5:r", "stair"),
        ("Put together: 1 = s, 2 = k, 3 = y.", "sky"),
    ],
}
PLANTS = [(leak, *texts) for leak, planted in PLANTED.items() for texts in planted]
SUBJECTS = ("planet", "banana", "stair", "sky")


def test_plants_of_every_kind_are_many() -> None:
    assert set(PLANTED) == set(Leak)
    assert len(set(PLANTS)) == len(PLANTS) >= 45


@pytest.mark.parametrize("subjects", [(), SUBJECTS], ids=["as it stands", "masked"])
@pytest.mark.parametrize(
    ("leak", "question", "answer"), PLANTS, ids=[f"{q} -> {a}" for _, q, a in PLANTS]
)
def test_a_planted_leak_is_caught(
    leak: Leak, question: str, answer: str, subjects: tuple[str, ...]
) -> None:
    assert find_leak(masked_text(f"{question}\n", answer, subjects)), leak


@pytest.mark.parametrize("leak", list(Leak))
def test_every_kind_of_leak_has_its_name(leak: Leak) -> None:
    found = [find_leak(masked_text(q, a, ())) for q, a in PLANTED[leak]]
    assert any(f is not None and f.leak is leak for f in found)


def item_of(question: str, answer: str, subjects: tuple[str, ...] = ()) -> Item:
    return Item(
        task=Task.REPLAY,
        word="",
        template="own",
        question=question,
        answer=answer,
        subjects=subjects,
    )


def test_a_leak_is_one_line_that_shows_kind_and_text() -> None:
    item = item_of("Think.\nWhat is the third letter of planet?\n", "a\nOf course.")
    with pytest.raises(LeakError, match="position content .'third letter'") as caught:
        check_item(item)
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)
    assert "What is the third letter of planet?" in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_harmless_item_passes_and_a_leaking_one_is_refused() -> None:
    check_item(item_of("What is 3 + 4?\n", "7"))
    with pytest.raises(LeakError, match="How many letters are in planet"):
        check_item(item_of("How many letters are in planet?\n", "6"))


def test_a_leak_may_lie_in_the_answer_alone() -> None:
    with pytest.raises(LeakError, match="six letters"):
        check_item(item_of("Say something.\n", "The word planet has six letters."))


def test_a_subject_hides_no_leak_around_it() -> None:
    with pytest.raises(LeakError, match="third letter"):
        check_item(item_of("What is the third letter of index?\n", "d", ("index",)))
    # A word that is no subject is part of the wording.
    with pytest.raises(LeakError, match="index"):
        check_item(item_of("What is the index of planet?\n", "2", ("planet",)))


# --- what the transfer tasks ask --------------------------------------------------------------


@given(word=WORDS, seed=st.integers(0, 10**6), letter=st.sampled_from(string.ascii_lowercase))
@settings(max_examples=60, deadline=None)
def test_every_item_of_the_transfer_tasks_is_caught(word: str, seed: int, letter: str) -> None:
    items = [
        position.position_item(word, n, template)
        for n in range(1, len(word) + 1)
        for template in position.TEMPLATES
    ]
    items += count.evaluation_items(word, letter)
    items += [count.random_item(word, random.Random(seed))]
    for item in items:
        for subjects in ((), item.subjects):
            assert find_leak(masked_text(item.question, item.answer, subjects)), item.question


@pytest.mark.parametrize("word", ["index", "count", "letter", "first", "contain", "sky"])
def test_transfer_items_on_words_of_the_scanner_are_caught(word: str) -> None:
    for n in range(1, len(word) + 1):
        for template in position.TEMPLATES:
            with pytest.raises(LeakError):
                check_item(position.position_item(word, n, template))
    for letter in string.ascii_lowercase:
        for item in count.evaluation_items(word, letter):
            with pytest.raises(LeakError):
                check_item(item)


@pytest.mark.parametrize("template", EXTRA_TEMPLATES, ids=lambda t: t.name)
@pytest.mark.parametrize("letter", list(string.ascii_lowercase))
def test_the_weaker_evidence_of_tinys_pretraining_is_caught(template: object, letter: str) -> None:
    assert template in EXTRA_TEMPLATES
    question = template.fill(word="planet", letter=letter)  # type: ignore[attr-defined]
    for answer in (letter, "yes", "no"):
        for subjects in ((), ("planet",)):
            assert find_leak(masked_text(question, answer, subjects))


# --- no false alarm ---------------------------------------------------------------------------

# Words that the scanner itself looks for.
SCANNED = tuple(
    """
    index count letter first contain length position third last final middle initial vowel number
    place slot spot start starts begin begins end ends offset indices times often occur occurs
    appear appears used found present repeat repeats contains include includes hold holds letters
    character characters before after follows precedes tally frequency size long how many there
    two three six one once twice part among with without zero alphabet consonant len word spell
    """.split()
)
LONG_ENOUGH = tuple(dict.fromkeys(w for w in SCANNED if len(w) >= 3))


def false_alarms(items: list[Item]) -> list[tuple[str, str]]:
    return [
        (item.question, item.answer)
        for item in items
        if find_leak(masked_text(item.question, item.answer, item.subjects))
    ]


@pytest.mark.parametrize("augmentation", [True, False], ids=["augmented", "plain"])
@pytest.mark.parametrize("arm", [Arm.SPELLING, Arm.FORMAT_CONTROL], ids=lambda arm: arm.value)
@pytest.mark.parametrize("model", ["tiny", GENERAL])
@pytest.mark.parametrize("band", list(Band), ids=lambda band: band.value)
def test_no_training_example_is_a_false_alarm(
    model: str, band: Band, arm: Arm, augmentation: bool
) -> None:
    stream = stream_of(band_words(model, band), arm, augmentation=augmentation, seed=7)
    assert false_alarms(stream.step(0, 2000)) == []


@pytest.mark.parametrize("augmentation", [True, False], ids=["augmented", "plain"])
@pytest.mark.parametrize("arm", [Arm.SPELLING, Arm.FORMAT_CONTROL], ids=lambda arm: arm.value)
def test_words_of_the_scanner_may_be_spelled_and_repeated(arm: Arm, augmentation: bool) -> None:
    lengths = [len(w) for w in LONG_ENOUGH]
    words = tuple(w for w in LONG_ENOUGH if lengths.count(len(w)) > 1)
    assert {"index", "count", "letter", "first", "contain", "length", "position"} <= set(words)
    stream = TrainingStream(words, ShippedReplay(words), 0.6, augmentation, seed=1, arm=arm)
    items = stream.step(0, 4000)
    assert {word for item in items for word in item.subjects} == set(words)
    assert false_alarms(items) == []


@pytest.mark.parametrize("word", LONG_ENOUGH)
def test_every_way_to_spell_a_word_of_the_scanner_is_harmless(word: str) -> None:
    items = [spelling.plain_item(word), replay.repeat_item([word, "index", word])]
    for separator in spelling.SEPARATORS:
        if separator.held_out:
            continue
        items += [spelling.inverse_item(word, separator, t) for t in spelling.INVERSE_TEMPLATES]
        for template in spelling.TEMPLATES:
            if template.held_out:
                continue
            items += [
                spelling.spelling_item(word, template, separator),
                spelling.spelling_item(word, template, separator, quote='"'),
                spelling.spelling_item(word, template, separator, written=word.capitalize()),
            ]
            items += [
                spelling.spelling_item(word, template, separator, carrier=c.format(word=word))
                for c in spelling.CARRIERS
            ]
    assert false_alarms(items) == []


@given(word=WORDS, other=WORDS, seed=st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_no_spelling_of_any_letters_is_a_false_alarm(word: str, other: str, seed: int) -> None:
    item = spelling.augmented_item(word, random.Random(seed))
    assert false_alarms([item, replay.repeat_item([word, other, word])]) == []


def test_no_fixed_replay_item_is_a_false_alarm() -> None:
    rng = random.Random(0)
    assert false_alarms([replay.replay_item(("planet",), rng) for _ in range(5000)]) == []


HARMLESS = [
    ("Translate good morning to French.", "bonjour"),
    ("What is 3 + 4?", "7"),
    ("What is 5 - 3?", "2"),
    ("What is the square root of 81?", "9"),
    ("Name a fruit.", "apple"),
    ("Which city is the capital of France?", "Paris"),
    ("Who wrote Hamlet?", "William Shakespeare"),
    ("What color is the sky on a clear day?", "blue"),
    ("Repeat this: the cat sat on the mat.", "the cat sat on the mat"),
    ("What is the opposite of hot?", "cold"),
    ("Name the largest ocean.", "the Pacific"),
    ("What is the boiling point of water in degrees Celsius?", "100"),
    ("How many continents are there?", "7"),
    ("How many minutes are there in an hour?", "60"),
    ("How many people live in Berlin?", "About 3.7 million"),
    ("Which month comes after March?", "April"),
    ("What comes before Tuesday?", "Monday"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
    ("Write a sentence about rain.", "Rain fell all night."),
    ("In which year did the Second World War end?", "1945"),
    ("Who was the first president of the United States?", "George Washington"),
    ("What is the third planet from the sun?", "Earth"),
    ("What is the last month of the year?", "December"),
    ("What is the plural of child?", "children"),
    ("Give me a word that rhymes with cat.", "hat"),
    ("Summarise: I went to the shop and bought a loaf of bread.", "I bought bread."),
    ("Does milk contain calcium?", "Yes"),
    ("List three animals.", "1. cat 2. dog 3. cow"),
    ("Count to five.", "one two three four five"),
    ("Finish the sentence: an apple a day keeps", "the doctor away"),
    ("Is a tomato a fruit?", "Yes"),
    # `a` and `I` as words.
    ("How many legs does a spider have?", "8"),
    ("How many days are in a week?", "7"),
    ("How long is a marathon?", "42.195 km"),
    ("How often do leap years occur?", "Every four years"),
    ("Is there a bus to the airport?", "Yes"),
    ("Does the soup contain a nut?", "No"),
    ("The bag contains a book. What is in it?", "a book"),
    ("What starts with a bang?", "The universe"),
    ("I live in Rome. Where do I live?", "In Rome"),
    ("Was it a cat in a hat?", "Yes"),
    ("What do bees make?", "A sweet thing: honey"),
    ("What did the U.S.A. buy from Russia?", "Alaska"),
    ("Isn't that Tom's dog?", "It's his."),
]


@pytest.mark.parametrize(("question", "answer"), HARMLESS, ids=[q for q, _ in HARMLESS])
def test_what_has_nothing_to_do_with_letters_is_harmless(question: str, answer: str) -> None:
    assert find_leak(masked_text(f"{question}\n", answer, ())) is None


# --- masking ----------------------------------------------------------------------------------


def test_subjects_are_masked_where_they_stand_whole_in_any_case() -> None:
    text = masked_text("Index, index and indexes.\n", "INDEX", ("index",))
    assert text == f"{MASK}, {MASK} and indexes.\n{MASK}"


def test_of_a_spelling_the_first_letter_stands_for_all() -> None:
    assert masked_text("Spell sky.\n", "s k y", ()) == "Spell sky.\ns…"
    assert masked_text("Spell sky.\n", "S, k, y", ()) == "Spell sky.\nS…"
    assert masked_text("Which word is s\nk\ny?\n", "sky", ()) == "Which word is s…?\nsky"
    # Two letters are no spelling: what stands around them is read.
    assert masked_text("Is a b?\n", "no", ()) == "Is a b?\nno"


def test_numbers_between_letters_are_not_masked() -> None:
    assert masked_text("Spell sky.\n", "1 s 2 k 3 y", ()) == "Spell sky.\n1 s 2 k 3 y"
