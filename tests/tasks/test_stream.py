"""Laws of `tuning.tasks.stream`: example i is a function of settings, seed and i; no leaks."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from streams_support import GENERAL, band_words, letters_of, stream_of, words_by_split
from tuning.errors import DataError, LeakError
from tuning.model.base import tokenizer_of
from tuning.model.tiny import tiny_words
from tuning.tasks import count, position, replay, spelling
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Item, Task
from tuning.tasks.replay import ShippedReplay
from tuning.tasks.splits import Split, split_of_stem, split_words
from tuning.tasks.stream import (
    Arm,
    TrainingStream,
    read_training_text,
    words_in_band,
)
from tuning.tasks.words import benchmark_stems, benchmark_words, stems

SMALL = TrainingStream(
    spelled_words=("planet", "orchard", "kettle", "window"),
    replay=ShippedReplay(("silver", "basket", "garden")),
    data_ratio=0.7,
    augmentation=True,
    seed=3,
)
NUM_EXAMPLES = 50_000


count_tokens = tokenizer_of("tiny").count_tokens


@pytest.fixture(scope="module")
def splits() -> dict[Split, tuple[str, ...]]:
    return split_words(tiny_words().study)


@pytest.fixture(scope="module")
def examples() -> list[Item]:
    return stream_of(band_words("tiny", Band.MEDIUM), ratio=0.5).step(0, NUM_EXAMPLES)


# --- purity -----------------------------------------------------------------------------------


@given(order=st.permutations(range(40)))
@settings(max_examples=10)
def test_an_example_does_not_depend_on_what_was_made_before(order: list[int]) -> None:
    in_order = [SMALL.example(i) for i in range(40)]
    random.seed(0)  # the global generator has no say
    fresh = dataclasses.replace(SMALL)
    assert {i: fresh.example(i) for i in order} == dict(enumerate(in_order))


def test_streams_of_other_seeds_are_other_streams() -> None:
    def first(seed: int) -> list[Item]:
        return dataclasses.replace(SMALL, seed=seed).step(0, 50)

    assert first(3) == SMALL.step(0, 50)
    same = sum(a == b for a, b in zip(first(3), first(4), strict=True))
    assert same < 10


def test_eight_times_four_and_thirty_two_times_one_are_one_stream() -> None:
    by_8 = [item for step in range(16) for item in SMALL.step(step, 8)]
    by_32 = [item for step in range(4) for item in SMALL.step(step, 32)]
    assert by_8 == by_32 == [SMALL.example(i) for i in range(128)]


@given(batch=st.integers(1, 40), steps=st.integers(1, 6))
def test_steps_follow_one_another_without_gap_or_overlap(batch: int, steps: int) -> None:
    joined = [item for step in range(steps) for item in SMALL.step(step, batch)]
    assert joined == SMALL.step(0, batch * steps)
    assert len(joined) == batch * steps


# --- ratio ------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.7, 0.9, 1.0])
def test_the_number_of_examples_is_the_same_and_the_share_of_spelling_the_ratio(
    ratio: float,
) -> None:
    items = dataclasses.replace(SMALL, data_ratio=ratio).step(0, 4000)
    assert len(items) == 4000
    assert {item.task for item in items} <= {Task.SPELLING, Task.REPLAY}
    share = sum(item.task is Task.SPELLING for item in items) / 4000
    assert share == pytest.approx(ratio, abs=4 * math.sqrt(ratio * (1 - ratio) / 4000))


def test_a_larger_ratio_turns_replay_into_spelling_and_no_spelling_into_replay() -> None:
    low = dataclasses.replace(SMALL, data_ratio=0.5).step(0, 1000)
    high = dataclasses.replace(SMALL, data_ratio=0.9).step(0, 1000)
    assert all(b == a for a, b in zip(low, high, strict=True) if a.task is Task.SPELLING)
    assert all(a == b for a, b in zip(low, high, strict=True) if b.task is Task.REPLAY)


def test_without_augmentation_every_spelling_is_the_plain_one() -> None:
    items = dataclasses.replace(SMALL, augmentation=False, data_ratio=1.0).step(0, 200)
    assert items == [spelling.plain_item(item.word) for item in items]
    assert {item.word for item in items} == set(SMALL.spelled_words)


def test_with_augmentation_the_spelling_varies() -> None:
    items = dataclasses.replace(SMALL, data_ratio=1.0).step(0, 500)
    assert len({item.template for item in items}) > 9


def test_all_words_come_about_equally_often() -> None:
    items = dataclasses.replace(SMALL, data_ratio=1.0).step(0, 4000)
    for word in SMALL.spelled_words:
        assert sum(item.word == word for item in items) == pytest.approx(1000, abs=120)


def test_an_empty_band_is_refused_with_what_to_do() -> None:
    with pytest.raises(DataError, match="choose another band"):
        dataclasses.replace(SMALL, spelled_words=())


# --- bands ------------------------------------------------------------------------------------


def test_words_are_sorted_into_bands_by_letters_and_tokens() -> None:
    tokens = {"sky": 1, "moon": 2, "tide": 3, "planet": 2, "abcd": 4, "extraordinary": 2}

    def given_counts(words: list[str] | tuple[str, ...]) -> list[int]:
        return [tokens[word] for word in words]

    words = tuple(tokens)
    assert words_in_band(words, Band.EASY, given_counts) == ("sky", "moon")
    assert words_in_band(words, Band.MEDIUM, given_counts) == ("tide", "planet")
    assert words_in_band(words, Band.HARD, given_counts) == ("abcd", "extraordinary")


def test_every_training_word_of_tiny_is_in_one_band_and_no_band_is_empty(
    splits: dict[Split, tuple[str, ...]],
) -> None:
    words = splits[Split.TRAIN]
    bands = [words_in_band(words, band, count_tokens) for band in Band]
    assert all(bands)
    assert sorted(word for band in bands for word in band) == sorted(words)


# --- leaks ------------------------------------------------------------------------------------


def subjects(items: list[Item]) -> set[str]:
    """Return the words that are spelled, joined or repeated, read from the text alone."""
    found = set()
    for item in items:
        if item.task is Task.SPELLING:
            found.add(re.sub("[^a-z]", "", item.answer.lower()))
        elif phrase := re.fullmatch(r"Repeat this: (.+)\.\n", item.question):
            found |= set(phrase[1].split()) | set(item.answer.split())
    return found


def test_no_subject_has_the_stem_of_a_benchmark_word(examples: list[Item]) -> None:
    found = subjects(examples)
    assert len(found) > 15_000
    assert not found & benchmark_words()
    assert not set(stems(sorted(found))) & benchmark_stems()


def test_no_subject_is_held_out(examples: list[Item], splits: dict[Split, tuple[str, ...]]) -> None:
    found = subjects(examples)
    assert not found & set(splits[Split.VALIDATION])
    assert not found & set(splits[Split.TEST])
    assert found <= set(splits[Split.TRAIN])


def test_no_held_out_word_stands_anywhere_in_the_text_but_in_the_fixed_wording(
    examples: list[Item], splits: dict[Split, tuple[str, ...]]
) -> None:
    held_out = set(splits[Split.VALIDATION]) | set(splits[Split.TEST])
    seen = {w for item in examples for w in re.findall("[a-z]{3,}", item.question.lower())}
    assert seen & held_out == set()


def test_no_example_asks_about_positions_counts_or_lengths(examples: list[Item]) -> None:
    about = re.compile(
        r"(?i)letter number|position|how many|how often|\bcount\b|\d+(st|nd|rd|th)\b|\blong\b"
        r"|\blength\b|\bcontain|[0-9]\s*[:.)]\s*[a-z]\b"
    )
    assert not any(about.search(item.question + item.answer) for item in examples)


def test_spelled_words_are_of_the_band_asked_for(examples: list[Item]) -> None:
    spelled = sorted({item.word for item in examples if item.task is Task.SPELLING})
    assert words_in_band(spelled, Band.MEDIUM, count_tokens) == tuple(spelled)


def test_a_made_up_word_is_hard_whatever_its_length() -> None:
    def one_token(words: list[str] | tuple[str, ...]) -> list[int]:
        return [1] * len(words)

    words = ("moon", "miun", "window", "plonet")
    pseudo = frozenset({"miun", "plonet"})
    assert words_in_band(words, Band.EASY, one_token, pseudo) == ("moon",)
    assert words_in_band(words, Band.MEDIUM, one_token, pseudo) == ("window",)
    assert words_in_band(words, Band.HARD, one_token, pseudo) == ("miun", "plonet")


# --- arms -------------------------------------------------------------------------------------

BANDS = [(model, band) for model in ("tiny", GENERAL) for band in Band]
IN_BANDS = pytest.mark.parametrize(
    ("model", "band"), BANDS, ids=[f"{model}-{band.value}" for model, band in BANDS]
)


def shape_of(answer: str) -> str:
    """Everything of an answer but which letters it has: number, case and what stands between."""
    return re.sub("[A-Z]", "A", re.sub("[a-z]", "a", answer))


def check_control(spelled: Item, control: Item, words: Iterable[str]) -> None:
    if spelled.task is Task.REPLAY:
        assert control == spelled
        return
    assert spelled.answer != control.answer
    assert shape_of(control.answer) == shape_of(spelled.answer)
    letters = letters_of(control)
    assert letters != spelled.word
    assert letters in words
    assert control.subjects == (spelled.word, letters)
    same = dataclasses.replace(control, answer=spelled.answer, subjects=spelled.subjects)
    assert same == spelled, "something else than the answer differs"


@IN_BANDS
@pytest.mark.parametrize("augmentation", [True, False])
def test_the_format_control_differs_from_spelling_in_the_answer_alone(
    model: str, band: Band, augmentation: bool
) -> None:
    words = frozenset(band_words(model, band))
    spelled, control = (
        stream_of(band_words(model, band), arm, augmentation=augmentation).step(0, 1500)
        for arm in (Arm.SPELLING, Arm.FORMAT_CONTROL)
    )
    for one, other in zip(spelled, control, strict=True):
        check_control(one, other, words)
    assert {item.task for item in spelled} == {Task.SPELLING, Task.REPLAY}


SAME_LENGTHS = st.sampled_from(range(3, 10)).flatmap(
    lambda n: st.lists(
        st.from_regex(rf"[a-c]{{{n}}}", fullmatch=True), min_size=2, max_size=9, unique=True
    )
)


@given(
    words=st.lists(SAME_LENGTHS, min_size=1, max_size=3),
    seed=st.integers(0, 10**6),
    augmentation=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_format_control_holds_for_any_words(
    words: list[list[str]], seed: int, augmentation: bool
) -> None:
    distinct = tuple(dict.fromkeys(w for of_length in words for w in of_length))
    spelling_stream = TrainingStream(distinct, ShippedReplay(distinct), 0.8, augmentation, seed)
    control_stream = dataclasses.replace(spelling_stream, arm=Arm.FORMAT_CONTROL)
    for index in range(40):
        check_control(spelling_stream.example(index), control_stream.example(index), distinct)


def test_the_letters_of_the_control_are_drawn_evenly_from_all_other_words() -> None:
    words = ("planet", "kettle", "window", "garden", "basket")
    items = stream_of(words, Arm.FORMAT_CONTROL, ratio=1.0).step(0, 20_000)
    for word in words:
        drawn = Counter(letters_of(item) for item in items if item.word == word)
        assert set(drawn) == set(words) - {word}
        assert chisquare(list(drawn.values())).pvalue > 0.001


def test_a_control_by_hand() -> None:
    upper = spelling.spelling_item(
        "planet", spelling.TEMPLATES[1], spelling.SEPARATORS[1], written="Planet"
    )
    assert spelling.with_letters_of(upper, "window").answer == "W, i, n, d, o, w"
    inverse = spelling.inverse_item("sky", spelling.SEPARATORS[2], spelling.INVERSE_TEMPLATES[0])
    control = spelling.with_letters_of(inverse, "tea")
    assert control.answer == "tea"
    assert control.question == "Which word do these letters make: s\nk\ny?\n"
    assert control.subjects == ("sky", "tea")


@pytest.mark.parametrize("words", [("planet",), ("planet", "kettle", "sky")])
def test_a_control_with_one_word_of_a_length_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="at least 2 words of each length") as caught:
        stream_of(words, Arm.FORMAT_CONTROL)
    assert f"{words[-1]!r} with {len(words[-1])} letters" in str(caught.value)
    assert "\n" not in str(caught.value)
    stream_of(words, Arm.SPELLING)


@IN_BANDS
def test_the_direct_arm_asks_position_and_count_of_the_words_that_are_spelled(
    model: str, band: Band
) -> None:
    words = band_words(model, band)
    spelled = stream_of(words).step(0, 2000)
    direct = stream_of(words, Arm.DIRECT).step(0, 2000)
    held_out = {t.name for t in (*position.TEMPLATES, *count.TEMPLATES) if t.held_out}
    assert held_out == {"name", "often"}
    for one, other in zip(spelled, direct, strict=True):
        if one.task is Task.REPLAY:
            assert other == one
            continue
        assert other.word == one.word
        assert other.subjects == (one.word,)
        assert other.template not in held_out
        if other.task is Task.POSITION:
            assert other.n is not None
            assert other.answer == other.word[other.n - 1]
        else:
            assert other.task is Task.COUNT
            assert other.letter is not None
            assert other.answer == str(other.word.count(other.letter))
    tasks = Counter(item.task for item in direct)
    templates = {item.template for item in direct if item.task is not Task.REPLAY}
    assert templates == {t.name for t in (*position.TEMPLATES, *count.TEMPLATES)} - held_out
    share = tasks[Task.POSITION] / (tasks[Task.POSITION] + tasks[Task.COUNT])
    assert share == pytest.approx(0.5, abs=0.05)
    assert all(n in asked for asked in [{i.n for i in direct}] for n in (1, 2, 3))


@pytest.mark.parametrize("ratio", [0.1, 0.7, 1.0])
def test_all_arms_have_as_many_examples_of_their_own_as_spelling(ratio: float) -> None:
    words = band_words("tiny", Band.MEDIUM)
    streams = {arm: stream_of(words, arm, ratio=ratio).step(2, 1000) for arm in Arm}
    places = {
        arm: [i for i, item in enumerate(items) if item.task is Task.REPLAY]
        for arm, items in streams.items()
    }
    assert all(len(items) == 1000 for items in streams.values())
    assert places[Arm.SPELLING] == places[Arm.FORMAT_CONTROL] == places[Arm.DIRECT]
    share = 1 - len(places[Arm.SPELLING]) / 1000
    assert share == pytest.approx(ratio, abs=0.05)


@given(order=st.permutations(range(40)), arm=st.sampled_from(Arm))
@settings(max_examples=20, deadline=None)
def test_no_example_of_any_arm_depends_on_what_was_made_before(order: list[int], arm: Arm) -> None:
    stream = dataclasses.replace(
        SMALL, arm=arm, spelled_words=("planet", "kettle", "window", "orchard", "lantern")
    )
    in_order = [stream.example(i) for i in range(40)]
    random.seed(0)
    fresh = dataclasses.replace(stream)
    assert {i: fresh.example(i) for i in order} == dict(enumerate(in_order))


def test_the_arms_are_named_as_in_configurations() -> None:
    assert [arm.value for arm in Arm] == ["spelling", "format_control", "direct"]


def mean_tokens(items: list[Item]) -> float:
    """Prompt and answer tokens of an example, the end token included."""
    encoded = tokenizer_of("tiny").encode_items(items)
    return sum(len(e.prompt) + len(e.answer) for e in encoded) / len(encoded)


@pytest.mark.parametrize("band", list(Band))
def test_the_format_control_costs_the_tokens_of_spelling(band: Band) -> None:
    words = band_words("tiny", band)
    spelled, control = (
        mean_tokens(stream_of(words, arm).step(0, 2000))
        for arm in (Arm.SPELLING, Arm.FORMAT_CONTROL)
    )
    assert control / spelled == pytest.approx(1, abs=0.01)


# Measured on tiny, replay included: questions are of one length, answers are not. The direct arm
# has the same number of examples, and fewer tokens.
DIRECT_TOKENS = {Band.EASY: 0.922, Band.MEDIUM: 0.801, Band.HARD: 0.710}


@pytest.mark.parametrize("band", list(Band))
def test_the_direct_arm_has_fewer_tokens_than_spelling_by_what_was_measured(band: Band) -> None:
    words = band_words("tiny", band)
    spelled, direct = (
        mean_tokens(stream_of(words, arm).step(0, 2000)) for arm in (Arm.SPELLING, Arm.DIRECT)
    )
    assert direct / spelled == pytest.approx(DIRECT_TOKENS[band], abs=0.02)


# --- what is read before training -------------------------------------------------------------


class SpeakingReplay:
    """A replay that says one thing."""

    def __init__(self, question: str) -> None:
        self.question = question

    def item(self, rng: random.Random) -> Item:
        return Item(task=Task.REPLAY, word="", template="own", question=self.question, answer="six")


LEAKING = SpeakingReplay("What is the third letter of planet?\n")


@pytest.mark.parametrize("arm", list(Arm))
def test_what_was_read_is_what_a_run_would_train_on(arm: Arm) -> None:
    stream = stream_of(band_words("tiny", Band.EASY), arm)
    read = read_training_text(stream, 700)
    items = stream.step(0, 700)
    assert read.num_examples == 700
    assert read.num_replay == sum(item.task is Task.REPLAY for item in items)
    assert read.words == {item.word for item in items if item.task is not Task.REPLAY}
    assert read_training_text(stream, 0) == (0, 0, frozenset())


@pytest.mark.parametrize("arm", [Arm.SPELLING, Arm.FORMAT_CONTROL])
def test_a_leak_in_the_training_text_is_refused(arm: Arm) -> None:
    words = ("planet", "kettle")
    stream = TrainingStream(words, LEAKING, 0.5, augmentation=True, seed=0, arm=arm)
    with pytest.raises(LeakError, match="position content .'third letter'.*planet") as caught:
        read_training_text(stream, 100)
    assert "\n" not in str(caught.value)
    harmless = dataclasses.replace(stream, replay=SpeakingReplay("What is 3 + 3?\n"))
    assert read_training_text(harmless, 100).num_examples == 100


def test_the_direct_arm_is_what_it_is_and_not_scanned() -> None:
    stream = TrainingStream(("planet", "kettle"), LEAKING, 0.5, True, 0, Arm.DIRECT)
    assert read_training_text(stream, 100).num_examples == 100


# --- subjects ---------------------------------------------------------------------------------


def text_subjects(item: Item) -> set[str]:
    """Words that an example is about, read from its text alone."""
    if item.task is Task.SPELLING:
        return {letters_of(item), item.word}
    if item.task in (Task.POSITION, Task.COUNT):
        return {item.word}
    return set(item.answer.split()) if item.template == "repeat" else set()


def check_subjects(model: str, num_examples: int) -> None:
    words = words_by_split(model)[Split.TRAIN].all
    found: set[str] = set()
    for arm in Arm:
        stream = dataclasses.replace(
            stream_of(words, arm, seed=11),
            replay=ShippedReplay(words_by_split(model)[Split.TRAIN].real),
        )
        for index in range(num_examples // len(Arm)):
            item = stream.example(index)
            found.update(item.subjects)
            assert text_subjects(item) == set(item.subjects)
    assert len(found) > min(num_examples // 5, len(words) // 2)
    stem_of = dict(zip(sorted(found), stems(sorted(found)), strict=True))
    assert not found & benchmark_words()
    assert not set(stem_of.values()) & benchmark_stems()
    assert {split_of_stem(stem) for stem in stem_of.values()} == {Split.TRAIN}


@pytest.mark.parametrize("model", ["tiny", GENERAL])
def test_no_subject_of_any_arm_is_excluded_or_held_out(model: str) -> None:
    check_subjects(model, 30_000)


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["tiny", GENERAL])
def test_no_subject_among_a_million_examples_is_excluded_or_held_out(model: str) -> None:
    check_subjects(model, 1_000_000)


def test_the_days_and_months_of_replay_are_no_subjects() -> None:
    items = stream_of(("planet", "kettle"), ratio=0.01).step(0, 500)
    fixed = [i for i in items if i.task is Task.REPLAY and i.template != "repeat"]
    assert fixed
    assert all(item.subjects == () for item in fixed)
    assert {i.answer for i in fixed} & {*replay.DAYS, *replay.MONTHS}


# --- more for the direct arm --------------------------------------------------------------------


def test_more_direct_items_ask_about_the_words_of_the_step_in_turn_and_never_end() -> None:
    stream = dataclasses.replace(SMALL, arm=Arm.DIRECT)
    items = stream.step(2, 6)
    words = [item.word for item in items if item.task is not Task.REPLAY]
    assert 1 < len(words) < 6, "some of the step is replay"
    more = list(itertools.islice(stream.more_direct(2, items), 200))
    assert [item.word for item in more] == [words[i % len(words)] for i in range(200)]
    assert {item.task for item in more} == {Task.POSITION, Task.COUNT}
    assert len({item.question for item in more}) > 30
    assert more == list(itertools.islice(stream.more_direct(2, items), 200))
    assert more != list(itertools.islice(stream.more_direct(3, items), 200))
    other = dataclasses.replace(stream, seed=4)
    assert more != list(itertools.islice(other.more_direct(2, items), 200))


def test_a_step_of_replay_alone_has_no_more_direct_items() -> None:
    assert list(SMALL.more_direct(0, [SMALL.replay.item(random.Random(0))])) == []
    assert list(SMALL.more_direct(0, [])) == []


def test_a_tokenizer_that_loses_a_word_is_found_out() -> None:
    with pytest.raises(ValueError, match="shorter"):
        words_in_band(["moon", "planet"], Band.EASY, lambda words: [1])


def test_a_seed_has_the_same_examples_in_every_version() -> None:
    # A run that goes on with a later version goes on with the examples that it began with.
    def told(arm: Arm) -> list[tuple[str, str]]:
        words = ("planet", "kettle", "window")
        items = dataclasses.replace(SMALL, spelled_words=words, arm=arm).step(0, 3)
        return [(item.word, item.answer) for item in items]

    assert told(Arm.SPELLING) == [
        ("planet", "planet"),
        ("planet", "planet"),
        ("planet", "p, l, a, n, e, t"),
    ]
    assert told(Arm.FORMAT_CONTROL) == [
        ("planet", "kettle"),
        ("planet", "kettle"),
        ("planet", "k, e, t, t, l, e"),
    ]
    direct = itertools.islice(SMALL.more_direct(0, SMALL.step(0, 3)), 3)
    assert [(item.question, item.answer) for item in direct] == [
        ("Which letter is at position 2 in planet? Reply with one letter.\n", "l"),
        ("Which letter is at position 4 in planet? Reply with one letter.\n", "n"),
        ("Count the letter j in planet. Reply with a number.\n", "0"),
    ]
