"""Laws of `tuning.tasks.words`: which words there are, and which are nobody's subject."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from snowballstemmer.english_stemmer import EnglishStemmer

from tuning.errors import DataError, NotFoundError, UserError
from tuning.model.tiny import tiny_words
from tuning.tasks import words
from tuning.tasks.words import (
    benchmark_stems,
    benchmark_words,
    english_words,
    exclusions,
    is_word,
    keyed_rng,
    read_word_list,
    stems,
    without_benchmark_words,
    words_in,
)


@pytest.mark.parametrize("text", ["cat", "a" * 15, "planet"])
def test_lower_case_a_to_z_of_3_to_15_letters_is_a_word(text: str) -> None:
    assert is_word(text)


@pytest.mark.parametrize(
    "text",
    ["", "at", "a" * 16, "Cat", "don't", "naïve", "cat ", "cat\n", "c4t", "ice-cream", "мир"],
)
def test_nothing_else_is_a_word(text: str) -> None:
    assert not is_word(text)


@given(text=st.text(max_size=17) | st.from_regex(r"[a-z]{0,17}", fullmatch=True))
def test_a_word_by_its_letters_one_by_one(text: str) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert is_word(text) == (3 <= len(text) <= 15 and all(c in letters for c in text))


def test_the_english_words_are_many_distinct_and_words() -> None:
    found = english_words()
    assert len(found) > 200_000
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[a-z]{3,15}", word) for word in found)


def test_the_english_words_come_most_frequent_first() -> None:
    place = {word: i for i, word in enumerate(english_words())}
    assert place["the"] == 0
    assert place["the"] < place["people"] < place["planet"] < place["sesquipedalian"]


@pytest.mark.parametrize(
    "family",
    [
        ("run", "runs", "running"),
        ("planet", "planets"),
        ("happy", "happiness"),
        ("connect", "connected", "connection", "connecting", "connections"),
    ],
)
def test_inflections_share_a_stem(family: tuple[str, ...]) -> None:
    assert len(set(stems(family))) == 1


def test_stems_are_those_of_the_reference_implementation() -> None:
    # snowballstemmer hands over to the C library PyStemmer where it is installed.
    sample = english_words()[::100]
    reference = EnglishStemmer()
    assert stems(sample) == [reference.stemWord(word) for word in sample]


def test_benchmark_words_are_there_and_clean() -> None:
    found = benchmark_words()
    assert len(found) > 5000
    assert all(word == word.strip().lower() and word for word in found)
    assert benchmark_stems() == set(stems(sorted(found)))
    assert len(benchmark_stems()) > 1000


def test_no_word_with_the_stem_of_a_benchmark_word_survives() -> None:
    kept = without_benchmark_words(english_words())
    assert not set(kept) & benchmark_words()
    reference = EnglishStemmer()
    forbidden = {reference.stemWord(word) for word in benchmark_words()}
    assert not set(stems(kept)) & forbidden
    assert len(kept) > 100_000


def test_every_other_word_survives_in_its_order() -> None:
    sample = english_words()[:20_000]
    kept = set(without_benchmark_words(sample))
    dropped = [word for word in sample if word not in kept]
    assert dropped
    assert set(stems(dropped)) <= benchmark_stems()
    assert without_benchmark_words(sample) == tuple(word for word in sample if word in kept)


def test_an_inflection_of_a_benchmark_word_falls_with_it() -> None:
    base = next(
        w for w in sorted(benchmark_words()) if w + "s" not in benchmark_words() and len(w) > 5
    )
    assert stems([base]) == stems([base + "s"])
    assert without_benchmark_words([base, base + "s", "zzzqx"]) == ("zzzqx",)


def test_tiny_knows_no_word_with_the_stem_of_a_benchmark_word() -> None:
    lists = tiny_words()
    assert lists.pretraining
    assert lists.study
    assert not set(stems(lists.pretraining)) & benchmark_stems()
    assert not set(stems(lists.study)) & benchmark_stems()


def test_tinys_pretraining_and_study_share_no_word_and_no_stem() -> None:
    lists = tiny_words()
    assert not set(lists.pretraining) & set(lists.study)
    assert not set(stems(lists.pretraining)) & set(stems(lists.study))


def test_tinys_lists_hold_distinct_english_words() -> None:
    lists = tiny_words()
    both = lists.pretraining + lists.study
    assert len(set(both)) == len(both)
    assert set(both) <= set(english_words())


# --- generators -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "seed", "first"),
    [
        # printf '1\x1ftrain\x1f0' | b2sum -l 64
        ((1, "train", 0), 0xC443A8A31CFE66D9, 0.2526835192346085),
        # printf '0\x1ftrain\x1f7' | b2sum -l 64
        ((0, "train", 7), 0xD2756EEC38AAC8A6, 0.9200244067483717),
    ],
)
def test_a_keyed_generator_gives_these_numbers_on_every_platform(
    key: tuple[object, ...], seed: int, first: float
) -> None:
    assert keyed_rng(*key).random() == first
    text = "\x1f".join(map(str, key)).encode()
    assert int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") == seed


def test_keys_are_told_apart_part_by_part() -> None:
    keys = [(1, "a", 23), (1, "a2", 3), (1, "a", 2, 3), (11, "a", 23), ("1a23",), (1, "b", 23)]
    assert len({keyed_rng(*key).random() for key in keys}) == len(keys)


def test_generators_of_one_key_do_not_disturb_one_another() -> None:
    first, second = keyed_rng("k"), keyed_rng("k")
    ahead = [first.random() for _ in range(5)]
    assert [second.random() for _ in range(5)] == ahead


def test_the_fingerprint_of_a_list_depends_on_words_and_order() -> None:
    assert words.hash_of_words(["cat", "dog"]) == hashlib.sha256(b"cat\ndog").hexdigest()
    assert words.hash_of_words(["cat", "dog"]) != words.hash_of_words(["dog", "cat"])
    assert words.hash_of_words(["cat", "dog"]) != words.hash_of_words(["catdog"])


# --- what may not be a subject ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["pretraining_words.txt", "study_words.txt"])
def test_no_word_of_tinys_files_is_excluded(name: str) -> None:
    text = resources.files("tuning").joinpath(f"data/tiny/{name}").read_text("utf-8")
    listed = text.split()
    assert len(listed) > 1000
    assert not set(listed) & benchmark_words()
    assert not set(stems(listed)) & benchmark_stems()
    assert exclusions(listed) == (tuple(listed), (), ())


def test_exclusions_sort_every_word_once_in_its_order() -> None:
    sample = english_words()[:20_000]
    found = exclusions(sample)
    place = {word: i for i, word in enumerate(sample)}
    assert sorted((*found.kept, *found.listed, *found.same_stem)) == sorted(sample)
    for part in found:
        assert [place[w] for w in part] == sorted(place[w] for w in part)
    assert set(found.listed) == set(sample) & benchmark_words()
    assert found.same_stem
    assert not set(found.same_stem) & benchmark_words()
    assert set(stems(found.same_stem)) <= benchmark_stems()
    assert found.kept == without_benchmark_words(sample)


@given(words=st.lists(st.sampled_from(english_words()[:3000]), max_size=30, unique=True))
@settings(deadline=None)
def test_whether_a_word_is_excluded_does_not_depend_on_the_others(words: list[str]) -> None:
    together = exclusions(words)
    for word in words:
        alone = exclusions([word])
        for part, of_all in zip(alone, together, strict=True):
            assert (word in part) == (word in of_all)


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["Spell the word {word}."], {"spell", "the", "word"}),
        (["Don't", "CAN't"], {"don", "t", "can"}),
        (["s1k2y3", "ice-cream"], {"s", "k", "y", "ice", "cream"}),
        ([], set()),
        (["", "123"], set()),
    ],
)
def test_words_are_found_in_texts(texts: list[str], found: set[str]) -> None:
    assert words_in(texts) == found


# --- a list of the user's own -----------------------------------------------------------------


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("planet\norchard\n", ("planet", "orchard")),
        ("planet", ("planet",)),
        ("planet\r\norchard\r\n", ("planet", "orchard")),
        ("\n\n  planet \n\t\norchard\n\n", ("planet", "orchard")),
        ("# a list\nplanet\n  # more\norchard\n#", ("planet", "orchard")),
        ("planet\norchard\nplanet\n", ("planet", "orchard")),
        ("zebra\napple\nmoon\n", ("zebra", "apple", "moon")),
        ("# größer 你好\nsky\n", ("sky",)),
        ("abc\n" + "a" * 15, ("abc", "a" * 15)),
    ],
)
def test_a_list_has_a_word_a_line(tmp_path: Path, content: str, found: tuple[str, ...]) -> None:
    assert read_word_list(written(tmp_path, content)) == found


def test_a_list_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    assert read_word_list(written(tmp_path, b"\xef\xbb\xbfplanet\nsky\n")) == ("planet", "sky")


def test_a_byte_order_mark_in_a_later_line_is_no_letter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 2: a word must be"):
        read_word_list(written(tmp_path, b"planet\n\xef\xbb\xbfsky\n"))


def test_a_list_may_ask_for_other_lengths(tmp_path: Path) -> None:
    path = written(tmp_path, "ox\nsky\n")
    assert read_word_list(path, shortest=2) == ("ox", "sky")
    with pytest.raises(DataError, match="2 to 2 lower-case letters a-z, got 'sky'"):
        read_word_list(path, 2, 2)


@given(words=st.lists(st.from_regex("[a-z]{3,15}", fullmatch=True), min_size=1, max_size=30))
@settings(max_examples=40, deadline=None)
def test_a_list_comes_back_in_its_order_each_word_once(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    path = written(tmp_path_factory.mktemp("words"), "\n".join(words))
    assert read_word_list(path) == tuple(dict.fromkeys(words))


@pytest.mark.parametrize(
    ("line", "law"),
    [
        ("Planet", "a word must be 3 to 15 lower-case letters a-z, got 'Planet'"),
        ("sk", "got 'sk'"),
        ("a" * 16, "got 'a{16}'"),
        ("two words", "got 'two words'"),
        ("planet # the earth", "got 'planet # the earth'"),
        ("naïve", "got 'naïve'"),
        ("don't", 'got "don\'t"'),
        ("c4t", "got 'c4t'"),
        ("planet,sky", "got 'planet,sky'"),
        ("x" * 1000, "got 'x{40}'"),
        ("x" * 1025, "a line must have at most 1,024 bytes"),
        (b"pl\xffanet", "is not UTF-8 text"),
        (b"pl\x00anet", "is binary, not text"),
        (b"x" * 5_000_000, "a line must have at most 1,024 bytes"),
        ("a\x1b[31mb", "got "),
    ],
)
@pytest.mark.parametrize("number", [1, 3])
def test_what_is_no_word_is_one_line_that_names_file_and_line(
    tmp_path: Path, line: str | bytes, law: str, number: int
) -> None:
    lines = [b"planet", b"", b"orchard"]
    lines.insert(number - 1, line if isinstance(line, bytes) else line.encode())
    path = written(tmp_path, b"\n".join(lines))
    with pytest.raises(DataError, match=rf"line {number}: .*{law}") as caught:
        read_word_list(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line {number}: ")
    assert len(message.splitlines()) == 1
    assert "\x1b" not in message
    assert len(message) < len(str(path)) + 200


@pytest.mark.parametrize("content", ["", "\n\n \n", "# nothing\n", "#planet"])
def test_a_list_without_words_is_refused(tmp_path: Path, content: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(DataError, match="a word list needs at least one word, got none") as caught:
        read_word_list(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_list_names_its_neighbours(tmp_path: Path) -> None:
    written(tmp_path, "planet\n")
    with pytest.raises(NotFoundError, match=r"no such file; did you mean words\.txt"):
        read_word_list(tmp_path / "word.txt")
    with pytest.raises(UserError, match="is no file"):
        read_word_list(tmp_path)
