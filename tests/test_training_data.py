"""Laws of `tuning.training_data`: what a configuration trains on, and what was left out of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streams_support import words_by_split
from tuning.errors import DataError, LeakError, NotFoundError
from tuning.fingerprint import training_key
from tuning.model.base import encodable, tokenizer_of
from tuning.model.tiny import EXTRA_TEMPLATES, tiny_words
from tuning.tasks import count, position, replay, spelling
from tuning.tasks.difficulty import Band
from tuning.tasks.items import Task
from tuning.tasks.splits import Split, split_words
from tuning.tasks.stream import Arm, TrainingStream, read_training_text, words_in_band
from tuning.tasks.words import (
    benchmark_stems,
    benchmark_words,
    english_words,
    stems,
    without_benchmark_words,
)
from tuning.training_data import TrainingData, exclusion_report, training_data, wordings

TINY = tokenizer_of("tiny")


def data_of(small_config: Any, *overrides: str) -> TrainingData:
    return training_data(
        small_config(*overrides),
        words_by_split("tiny")[Split.TRAIN],
        TINY.count_tokens,
        lambda words: encodable(words, TINY),
    )


def listed(tmp_path: Path, words: Sequence[str]) -> str:
    path = tmp_path / "words.txt"
    path.write_text("".join(f"{w}\n" for w in words))
    return f"spelling_config.word_list={path}"


# --- our own words ----------------------------------------------------------------------------


@pytest.mark.parametrize("band", list(Band))
def test_by_default_all_training_words_of_a_band_are_trained(small_config: Any, band: Band) -> None:
    data = data_of(small_config, f"spelling_difficulty={band.value}", "spelling_augmentation=false")
    words = words_by_split("tiny")[Split.TRAIN].real
    assert data.stream.spelled_words == words_in_band(words, band, TINY.count_tokens)
    assert data.left_out == {}


def test_the_settings_reach_the_stream(small_config: Any) -> None:
    stream = data_of(
        small_config,
        "arm=format_control",
        "spelling_data_ratio=0.25",
        "spelling_augmentation=false",
        "training_config.seed=9",
    ).stream
    assert (stream.arm, stream.data_ratio, stream.augmentation, stream.seed) == (
        Arm.FORMAT_CONTROL,
        0.25,
        False,
        9,
    )
    assert isinstance(stream.replay, replay.ShippedReplay)
    assert stream.replay.words == words_by_split("tiny")[Split.TRAIN].real
    assert data_of(small_config).stream.arm is Arm.SPELLING


def test_examples_are_a_function_of_the_configuration(small_config: Any) -> None:
    first, again = (data_of(small_config).stream.step(0, 200) for _ in range(2))
    assert first == again


# --- a list of the user's own -----------------------------------------------------------------


def sorted_by_hand(words: Sequence[str], band: Band) -> tuple[tuple[str, ...], dict[str, int]]:
    """Say which words may be trained on and why the others may not, one word at a time."""
    counts = dict.fromkeys(
        (
            "benchmark words",
            "of a benchmark word's stem",
            "of the validation and test splits",
            "without tokens in this model",
            "of another band",
        ),
        0,
    )
    kept = []
    for word in dict.fromkeys(words):
        if word in benchmark_words():
            counts["benchmark words"] += 1
        elif stems([word])[0] in benchmark_stems():
            counts["of a benchmark word's stem"] += 1
        elif not split_words([word])[Split.TRAIN]:
            counts["of the validation and test splits"] += 1
        elif not encodable([word], TINY):
            counts["without tokens in this model"] += 1
        elif not words_in_band([word], band, TINY.count_tokens):
            counts["of another band"] += 1
        else:
            kept.append(word)
    return tuple(kept), counts


@pytest.mark.parametrize("band", list(Band))
def test_every_word_left_out_is_counted_by_its_reason(
    small_config: Any, tmp_path: Path, band: Band
) -> None:
    sample = [*english_words()[::700], *tiny_words().study[::100], *sorted(benchmark_words())[:9]]
    sample = [w for w in dict.fromkeys(sample) if w.isalpha() and 3 <= len(w) <= 15]
    data = data_of(small_config, listed(tmp_path, sample), f"spelling_difficulty={band.value}")
    kept, counts = sorted_by_hand(sample, band)
    assert data.stream.spelled_words == kept
    assert data.left_out == counts
    assert all(counts.values())
    assert len(kept) + sum(counts.values()) == len(sample)


@given(
    words=st.lists(
        st.sampled_from(english_words()[:5000] + tiny_words().study[:2000]), min_size=1, max_size=40
    )
)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_excluded_or_held_out_word_is_ever_trained(
    small_config: Any, tmp_path: Path, words: list[str]
) -> None:
    override = listed(tmp_path, words)
    kept, counts = sorted_by_hand(words, Band.MEDIUM)
    if not kept:
        with pytest.raises(DataError, match="no word is left to train on at difficulty medium"):
            data_of(small_config, override)
        return
    data = data_of(small_config, override)
    assert data.stream.spelled_words == kept
    assert data.left_out == counts
    assert set(split_words(kept)[Split.TRAIN]) == set(kept)
    assert without_benchmark_words(kept) == kept


def test_held_out_stems_are_left_out_in_every_form(small_config: Any, tmp_path: Path) -> None:
    held_out = split_words(tiny_words().study)
    forms = [w for split in (Split.VALIDATION, Split.TEST) for w in held_out[split][:200]]
    trained = list(held_out[Split.TRAIN][:300])
    data = data_of(small_config, listed(tmp_path, [*forms, *trained]))
    items = data.stream.step(0, 3000)
    spelled = {w for i in items if i.task is Task.SPELLING for w in i.subjects}
    assert spelled
    assert not set(stems(sorted(spelled))) & set(stems(forms))
    assert data.left_out["of the validation and test splits"] == 400


def test_the_words_of_a_list_are_spelled_and_ours_are_repeated(
    small_config: Any, tmp_path: Path
) -> None:
    own = words_in_band(
        split_words(tiny_words().study)[Split.TRAIN][:400], Band.MEDIUM, TINY.count_tokens
    )[:20]
    data = data_of(small_config, listed(tmp_path, own))
    items = data.stream.step(0, 1000)
    assert {i.word for i in items if i.task is Task.SPELLING} == set(own)
    repeated = {w for i in items if i.task is Task.REPLAY for w in i.subjects}
    assert len(repeated) > 100


def test_a_list_brings_no_made_up_words(small_config: Any, tmp_path: Path) -> None:
    own = [w for w in split_words(tiny_words().study)[Split.TRAIN] if len(w) >= 9][:50]
    data = data_of(small_config, listed(tmp_path, own), "spelling_difficulty=hard")
    assert set(data.stream.spelled_words) <= set(own)


def test_all_arms_train_on_the_words_of_a_list(small_config: Any, tmp_path: Path) -> None:
    own = split_words(tiny_words().study)[Split.TRAIN][:2000]
    words = {
        arm: data_of(small_config, listed(tmp_path, own), f"arm={arm.value}").stream.spelled_words
        for arm in Arm
    }
    assert words[Arm.SPELLING] == words[Arm.FORMAT_CONTROL] == words[Arm.DIRECT]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (sorted(benchmark_words())[:3], "3 benchmark words"),
        (["castle", "button", "chair"], "of the validation and test splits|benchmark"),
    ],
)
def test_a_list_of_which_nothing_is_left_says_why(
    small_config: Any, tmp_path: Path, words: list[str], reason: str
) -> None:
    words = [w for w in words if w.isalpha() and 3 <= len(w) <= 15]
    override = listed(tmp_path, words)
    with pytest.raises(DataError, match=f"left out: .*({reason})") as caught:
        data_of(small_config, override)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'words.txt'}: no word is left to train on")
    assert len(message.splitlines()) == 1
    assert " 0 " not in message


def test_a_list_of_another_band_says_so(small_config: Any, tmp_path: Path) -> None:
    words = split_words(tiny_words().study)[Split.TRAIN]
    hard = words_in_band(words, Band.HARD, TINY.count_tokens)[:7]
    override = listed(tmp_path, hard)
    with pytest.raises(DataError, match="at difficulty easy; left out: 7 of another band$"):
        data_of(small_config, override, "spelling_difficulty=easy")


def test_one_word_of_a_length_is_refused_for_the_format_control(
    small_config: Any, tmp_path: Path
) -> None:
    words = split_words(tiny_words().study)[Split.TRAIN]
    (first, *_) = words_in_band(words, Band.MEDIUM, TINY.count_tokens)
    override = listed(tmp_path, [first])
    assert data_of(small_config, override).stream.spelled_words == (first,)
    with pytest.raises(DataError, match=f"at least 2 words of each length.*{first}"):
        data_of(small_config, override, "arm=format_control")


def test_files_that_are_not_there_are_one_clear_line(small_config: Any, tmp_path: Path) -> None:
    for key in ("word_list", "replay_file"):
        override = f"spelling_config.{key}={tmp_path}/missing.txt"
        with pytest.raises(NotFoundError, match="missing.txt: no such file") as caught:
            data_of(small_config, override)
        assert len(str(caught.value).splitlines()) == 1


def test_a_broken_list_is_refused_before_anything_is_trained(
    small_config: Any, tmp_path: Path
) -> None:
    (tmp_path / "words.txt").write_text("planet\nPlanet\n")
    with pytest.raises(DataError, match="line 2: a word must be"):
        data_of(small_config, f"spelling_config.word_list={tmp_path / 'words.txt'}")


# --- replay of the user's own -----------------------------------------------------------------


def replayed(tmp_path: Path, *rows: Mapping[str, str]) -> str:
    path = tmp_path / "replay.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"spelling_config.replay_file={path}"


def test_a_replay_file_takes_the_place_of_ours(small_config: Any, tmp_path: Path) -> None:
    own = replayed(
        tmp_path,
        {"prompt": "Name a fruit.", "answer": "apple"},
        {"prompt": "What is 3 + 4?", "answer": "7"},
    )
    ours, theirs = data_of(small_config), data_of(small_config, own)
    assert theirs.stream.spelled_words == ours.stream.spelled_words
    assert theirs.left_out == {}
    pairs = zip(ours.stream.step(0, 600), theirs.stream.step(0, 600), strict=True)
    answers = set()
    for one, other in pairs:
        assert (one.task is Task.REPLAY) == (other.task is Task.REPLAY)
        if one.task is Task.REPLAY:
            answers.add(other.answer)
        else:
            assert one == other
    assert answers == {"apple", "7"}


def test_a_replay_file_that_leaks_is_refused(small_config: Any, tmp_path: Path) -> None:
    own = replayed(tmp_path, {"prompt": "How many letters are in planet?", "answer": "6"})
    for arm in Arm:
        with pytest.raises(LeakError, match="line 1: a training text must not teach"):
            data_of(small_config, own, f"arm={arm.value}")


def test_every_stream_of_a_configuration_passes_the_leak_scan(small_config: Any) -> None:
    for band in Band:
        for arm in (Arm.SPELLING, Arm.FORMAT_CONTROL):
            stream = data_of(
                small_config, f"spelling_difficulty={band.value}", f"arm={arm.value}"
            ).stream
            assert isinstance(stream, TrainingStream)
            assert read_training_text(stream, 1000).num_examples == 1000


def test_the_key_follows_the_content_of_the_list(small_config: Any, tmp_path: Path) -> None:
    override = listed(tmp_path, tiny_words().study[:50])
    first = training_key(small_config(override))
    listed(tmp_path, tiny_words().study[:51])
    assert training_key(small_config(override)) != first
    listed(tmp_path, tiny_words().study[:50])
    assert training_key(small_config(override)) == first


# --- what is never a subject ------------------------------------------------------------------


def test_the_report_counts_what_the_benchmark_list_takes_out() -> None:
    words = english_words()[:20_000]
    report = exclusion_report({"english": words, "few": words[:100]})
    assert report.num_benchmark_words == len(benchmark_words())
    assert list(report.lists) == ["english", "few"]
    for name, of_list in (("english", words), ("few", words[:100])):
        counts = report.lists[name]
        kept = without_benchmark_words(of_list)
        assert counts.num_words == len(of_list)
        assert counts.num_kept == len(kept)
        assert counts.num_listed == len(set(of_list) & benchmark_words())
        assert counts.num_listed + counts.num_same_stem + counts.num_kept == len(of_list)
    assert set(report.left_out) == set(words) - set(without_benchmark_words(words))
    assert len(set(report.left_out)) == len(report.left_out)


def test_the_report_names_benchmark_words_in_the_wording_of_templates() -> None:
    report = exclusion_report({"words": ("planet", "kettle")}, EXTRA_TEMPLATES)
    assert set(report.exempt) <= benchmark_words()
    assert list(report.exempt) == sorted(report.exempt)
    text = " ".join(wordings(EXTRA_TEMPLATES)).lower()
    assert all(word in text for word in report.exempt)
    by_hand = {
        w for w in benchmark_words() if w in text.replace(".", " ").replace("?", " ").split()
    }
    assert by_hand <= set(report.exempt)


def test_the_wordings_are_those_of_all_templates_without_blanks() -> None:
    texts = wordings(EXTRA_TEMPLATES)
    assert not any("{" in text or "}" in text for text in texts)
    templates = (
        *spelling.TEMPLATES,
        *spelling.INVERSE_TEMPLATES,
        *position.TEMPLATES,
        *count.TEMPLATES,
        *EXTRA_TEMPLATES,
    )
    together = " ".join(" ".join(texts).split())
    for template in templates:
        for part in template.text.replace("}", "{").split("{")[::2]:
            assert " ".join(part.split()) in together
    for fixed in (*replay.DAYS, *replay.MONTHS, "spaces", "commas", "lines", "dashes", "today"):
        assert fixed in together
