"""`tuning evaluate`: words and own suites, three readings, strata, files, certificates."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from cli_support import Program, TrainedAdapter, files_below, trained_adapter

from tuning.evaluation.bench import last_bench
from tuning.model.base import last_base

OWN: list[dict[str, Any]] = [
    {"task": "spelling", "word": "moonlight", "answer": "m o o n l i g h t"},
    {"task": "spelling", "word": "parrot", "answer": "p-a-r-r-o-t"},
    {"task": "position", "word": "moonlight", "position": 9, "answer": "t"},
    {"task": "position", "word": "parrot", "position": 1, "answer": "P"},
    {"task": "count", "word": "moonlight", "letter": "o", "answer": 2},
    {"task": "count", "word": "parrot", "letter": "r", "answer": "2"},
    {
        "task": "first letters",
        "word": "garfield",
        "prompt": "What is the first letter of garfield?",
        "answer": "x",
        "targets": ["y", "g"],
    },
    {"task": "first letters", "prompt": "What is the first letter of canals?", "answer": "c"},
]
SMALL = ("--num-words", "10", "--num-generated", "9", "--quiet")


def write_suite(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainedAdapter:
    return trained_adapter(tmp_path_factory.getbasetemp() / "trained")


@pytest.fixture
def own_suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path / "own.jsonl", OWN)


# --- one's own suite ----------------------------------------------------------------------------


def test_an_own_suite_is_scored_from_end_to_end(program: Program, own_suite: Path) -> None:
    done = program("evaluate", "--suite", own_suite, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["words"] == str(own_suite)
    assert list(answer["tasks"]) == ["spelling", "position", "count", "first letters"]
    for task, result in answer["tasks"].items():
        base = result["base"]
        assert (base["num_items"], base["num_words"]) == (2, 2)
        assert 0 <= base["low"] <= base["value"] <= base["high"] <= 1
        assert (result["choice_base"] is not None) == (task in ("position", "count"))
        assert result["lenient_base"]["num_items"] == 2
    assert answer["tasks"]["spelling"]["baseline"] == 0
    assert answer["tasks"]["first letters"]["baseline"] == 0.5
    assert answer["tasks"]["first letters"]["base"]["value"] == 1.0
    assert answer["num_decoded"] == 8
    predictions = pd.read_parquet(answer["predictions"])
    assert predictions["gold"].tolist() == [
        *("m o o n l i g h t", "p a r r o t", "t", "p", "2", "2", "x", "c")
    ]
    assert predictions["word"].tolist()[6:] == ["garfield", "What is the first letter of canals?"]


def test_all_freely_decoded_answers_of_an_own_suite_confirm_one_pass(
    program: Program, own_suite: Path
) -> None:
    answer = json.loads(program("evaluate", "--suite", own_suite, "--json").stdout)
    assert answer["num_disagreements"] == 0


def test_a_suite_in_the_layout_of_cute_is_scored(program: Program, tmp_path: Path) -> None:
    words = ("moonlight", "parrot", "garfield", "gorilla")
    rows = [f"{word}\t{' '.join(word)}" for word in words]
    (tmp_path / "spell.tsv").write_text("\n".join(["input1\tlabel", *rows, ""]))
    done = program("evaluate", "--suite", "spell.tsv", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["tasks"]["spelling"]["base"]["num_items"] == 4
    assert answer["mix"]["spelling"]["cute/spell"] == 4
    predictions = pd.read_parquet(answer["predictions"])
    assert predictions["gold"].tolist() == [" ".join(word) for word in words]
    assert predictions["prompt"][0] == "Spell the word moonlight, letters separated by spaces.\n"
    assert predictions["character_error_rate"].notna().all()


def test_another_task_of_cute_is_a_task_of_its_own(program: Program, tmp_path: Path) -> None:
    words = ("moonlight", "parrot", "garfield")
    rows = [f"{' '.join(word)}\t{word}" for word in words]
    (tmp_path / "spell_inverse.tsv").write_text("\n".join(["input1\tlabel", *rows]))
    done = program("evaluate", "--suite", "spell_inverse.tsv", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)["tasks"]["spell_inverse"]
    assert result["base"]["num_words"] == 3
    assert result["choice_base"] is None
    assert result["baseline"] == pytest.approx(1 / 3)


def test_a_model_is_asked_on_a_part_of_its_vocabulary(program: Program, tmp_path: Path) -> None:
    words = ("moonlight", "parrot", "garfield")
    rows = [f"{word}\t{' '.join(word)}" for word in words]
    (tmp_path / "spell.tsv").write_text("\n".join(["input1\tlabel", *rows, ""]))
    asked = ("evaluate", "--suite", "spell.tsv", "--json")
    whole, part = (
        json.loads(program(*asked, *more).stdout) for more in ((), ("--subset", "letters"))
    )
    assert "tokens: letters)" in part["model"]
    assert "tokens" not in whole["model"]
    assert part["predictions"] != whole["predictions"]
    done = program(*asked, "--subset", "leters")
    done.assert_one_clear_line("leters", "letters")


BAD_SUITES: dict[str, tuple[str, str | bytes | None, tuple[str, ...]]] = {
    "missing": ("a.jsonl", None, ("a.jsonl", "no such file")),
    "ending": ("a.txt", "x", ("a.txt", ".jsonl", ".tsv", ".txt")),
    "empty": ("a.jsonl", "\n\n", ("at least one item",)),
    "no json": ("a.jsonl", "{]\n", ("a.jsonl, line 1", "not JSON")),
    "list": ("a.jsonl", "[1]\n", ("line 1", "must be an object", "list")),
    "binary": ("a.jsonl", b"\x00\x01\x02", ("line 1", "binary")),
    "field": ("a.jsonl", '{"taks": "spelling"}\n', ("line 1", "taks", "did you mean task")),
    "no answer": ("a.jsonl", '{"task": "spelling", "word": "parrot"}\n', ("answer is missing",)),
    "wrong answer": (
        "a.jsonl",
        '\n{"task": "count", "word": "parrot", "letter": "r", "answer": 3}\n',
        ("line 2", "answer", "'2'", "'3'"),
    ),
    "position": (
        "a.jsonl",
        '{"task": "position", "word": "parrot", "position": 7, "answer": "t"}\n',
        ("line 1", "position", "1 to 6", "7"),
    ),
    "targets": (
        "a.jsonl",
        '{"task": "spelling", "word": "parrot", "answer": "parrot", "targets": "x"}\n',
        ("line 1", "targets", "list of texts"),
    ),
    "prompt needed": ("a.jsonl", '{"task": "rhyme", "answer": "a"}\n', ("'rhyme'", "prompt")),
    "one word": (
        "a.jsonl",
        '{"task": "spelling", "word": "parrot", "answer": "parrot"}\n',
        ("at least 2 words", "got 1 for spelling"),
    ),
    "tsv name": ("spel.tsv", "input1\tlabel\na\tb\n", ("'spel'", "did you mean spell")),
    "tsv columns": ("spell.tsv", "word\tlabel\na\tb\n", ("spell.tsv", "input1, label")),
    "tsv cells": ("spell.tsv", "input1\tlabel\nparrot\n", ("line 2", "2 cells")),
    "no token": (
        "a.jsonl",
        '{"task": "own", "prompt": "Is philosophy hard?", "answer": "yes"}\n'
        '{"task": "own", "prompt": "Is it?", "answer": "no"}\n',
        ("philosophy", "no row for the token"),
    ),
    "no token for cute": (
        "contains_char.tsv",
        "input1\tinput2\tlabel\np\tparrot\tYes\nx\tgarfield\tNo\n",
        ("no row for the token",),
    ),
}


@pytest.mark.parametrize("case", BAD_SUITES)
def test_a_bad_suite_is_one_clear_line_and_nothing_is_written(
    program: Program, tmp_path: Path, case: str
) -> None:
    name, content, words = BAD_SUITES[case]
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    before = files_below(tmp_path)
    program("evaluate", "--suite", name, "--output", "p.csv").assert_one_clear_line(*words)
    assert files_below(tmp_path) == before


def test_an_own_count_question_may_have_any_answer(program: Program, tmp_path: Path) -> None:
    rows = [
        {"task": "count", "word": word, "prompt": f"How often is z used in {word}?", "answer": "no"}
        for word in ("parrot", "garfield")
    ]
    done = program("evaluate", "--suite", write_suite(tmp_path / "a.jsonl", rows), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"]["count"]["base"]["value"] == 0


# --- put otherwise ------------------------------------------------------------------------------


def prompts(done: Any) -> pd.DataFrame:
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(json.loads(done.stdout)["predictions"])


def test_the_oracle_is_told_the_spelling(program: Program) -> None:
    told = prompts(program("evaluate", "--prompting", "oracle", "--json", *SMALL))
    plain = prompts(program("evaluate", "--json", *SMALL))
    for word, with_spelling, question in zip(
        told["word"], told["prompt"], plain["prompt"], strict=True
    ):
        assert with_spelling == f"{word} is spelled {' '.join(word)}.\n{question}"


def test_four_examples_stand_before_the_question_and_are_another_evaluation(
    program: Program,
) -> None:
    done = [program("evaluate", "--prompting", p, "--json", *SMALL) for p in ("four_shot",) * 2]
    shown, again = (json.loads(d.stdout) for d in done)
    plain = json.loads(program("evaluate", "--json", *SMALL).stdout)
    assert shown["prompting"] == "four_shot"
    assert shown == again
    assert shown["predictions"] != plain["predictions"]
    assert shown["mix"] == plain["mix"]
    assert shown["tasks"] != plain["tasks"]


@pytest.mark.parametrize("prompting", ["four_shot", "oracle"])
def test_only_the_untouched_model_is_asked_otherwise(
    program: Program, trained: TrainedAdapter, tmp_path: Path, prompting: str
) -> None:
    done = program("evaluate", "--prompting", prompting, "--adapter", trained.adapter)
    done.assert_one_clear_line(f"--prompting {prompting}", "leave out --adapter")
    assert files_below(tmp_path) == []


@pytest.mark.parametrize("prompting", ["four_shot", "oracle"])
def test_an_own_suite_put_otherwise_is_scored_or_refused_in_one_line(
    program: Program, own_suite: Path, prompting: str
) -> None:
    """There are no examples for questions of a user's own, and perhaps no word to spell."""
    done = program("evaluate", "--suite", own_suite, "--prompting", prompting)
    if done.returncode:
        done.assert_one_clear_line("--prompting")


# --- words, numbers and files -------------------------------------------------------------------


def test_json_has_n_interval_and_baseline_of_every_task_and_stratum(program: Program) -> None:
    done = program("evaluate", "--json", *SMALL)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer["tasks"]) == {"spelling", "position", "count"}
    results = [*answer["tasks"].values(), *(s["result"] for s in answer["strata"])]
    for result in results:
        base = result["base"]
        assert 0 <= base["low"] <= base["value"] <= base["high"] <= 1
        assert base["num_items"] >= base["num_words"] >= 2
        assert 0 <= result["baseline"] <= 1
    columns = {(s["task"], s["column"]) for s in answer["strata"]}
    assert {
        ("spelling", "band"),
        ("position", "stratum"),
        ("position", "letter_token_length"),
        ("position", "n"),
        ("count", "stratum"),
        ("count", "template"),
    } <= columns
    predictions = pd.read_parquet(answer["predictions"])
    for stratum in answer["strata"]:
        rows = predictions[
            (predictions["task"] == stratum["task"])
            & (predictions[stratum["column"]].astype(str) == stratum["value"])
        ]
        assert stratum["result"]["base"]["num_items"] == len(rows)
        assert stratum["result"]["base"]["value"] == rows["strict_correct"].mean()
    assert answer["num_disagreements"] == 0
    assert answer["num_decoded"] == 9
    assert answer["retention"] == {}
    for task, counts in answer["mix"].items():
        rows = predictions[predictions["task"] == task]
        by_template = Counter(rows["template"])
        assert {name: counts[name] for name in by_template} == by_template


def test_strata_are_shown_when_asked_for(program: Program) -> None:
    plain, shown = program("evaluate", *SMALL), program("evaluate", "--strata", *SMALL)
    assert plain.returncode == shown.returncode == 0
    assert "Strata" not in plain.stdout
    for words in ("Strata", "difficulty", "interior", "place, or length of word", "made-up word"):
        assert words in shown.stdout
    for done in (plain, shown):
        assert "one pass agrees with 9 freely decoded answers: 100.00 %" in done.stdout
        assert "tiny (1.38 M parameters)" in done.stdout


@pytest.mark.nightly
def test_a_certificate_of_our_own_items_has_as_many_as_asked_for(program: Program) -> None:
    done = program("evaluate", "--certify", "500", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert (certificate["num_items"], certificate["num_disagreements"]) == (500, 0)


@pytest.mark.nightly
@pytest.mark.parametrize("words", ["train", "pretraining"])
def test_other_words_than_held_out_ones_are_asked_on_demand(program: Program, words: str) -> None:
    from tuning.model.tiny import tiny_words
    from tuning.tasks.splits import Split, split_words

    predictions = prompts(program("evaluate", "--words", words, "--json", *SMALL))
    real = set(predictions[~predictions["is_pseudo_word"]]["word"])
    allowed = {
        "train": split_words(tiny_words().study)[Split.TRAIN],
        "pretraining": tiny_words().pretraining,
    }[words]
    assert real
    assert real <= set(allowed)


def test_only_tiny_says_what_it_was_pretrained_on(program: Program) -> None:
    done = program("evaluate", "--words", "pretraining", "--model", "qwen3-4b")
    done.assert_one_clear_line("only tiny", "qwen3-4b")


@pytest.mark.nightly
def test_fewer_words_than_asked_for_is_said(program: Program) -> None:
    done = program("evaluate", "--num-words", "5000", "--num-generated", "0")
    assert done.returncode == 0
    assert "asked for 5000 words a task; there are only 36" in done.stdout


def test_another_precision_is_another_evaluation(program: Program, own_suite: Path) -> None:
    answers = [
        json.loads(program("evaluate", "--suite", own_suite, "--json", *more).stdout)
        for more in ((), ("--precision", "bf16"), ("--precision", "32-true"))
    ]
    assert answers[0]["predictions"] == answers[2]["predictions"] != answers[1]["predictions"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_predictions_are_written_in_the_format_of_the_ending(
    program: Program, own_suite: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / "deep" / f"p{ending}"
    done = program("evaluate", "--suite", own_suite, "--output", output, "--json")
    assert done.returncode == 0, done.stderr
    stored = pd.read_parquet(json.loads(done.stdout)["predictions"])
    if ending == ".csv":
        read = pd.read_csv(output, dtype={"gold": str})
    elif ending == ".jsonl":
        read = pd.DataFrame([json.loads(line) for line in output.read_text().splitlines()])
    else:
        read = pd.read_parquet(output)
    assert list(read.columns) == list(stored.columns)
    for column in ("task", "word", "prompt", "gold", "text"):
        assert read[column].tolist() == stored[column].tolist()
    assert read["strict_correct"].tolist() == stored["strict_correct"].tolist()
    assert read["n"].isna().tolist() == stored["n"].isna().tolist()


@pytest.mark.parametrize("output", ["p.xlsx", "p", "p.csv.gz"])
def test_a_file_with_another_ending_is_refused_before_anything_is_asked(
    program: Program, tmp_path: Path, output: str
) -> None:
    done = program("evaluate", "--output", output)
    done.assert_one_clear_line("--output", ".parquet, .csv, .jsonl")
    assert files_below(tmp_path) == []


def test_an_output_that_cannot_be_written_is_one_clear_line(
    program: Program, own_suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    done = program("evaluate", "--suite", own_suite, "--output", "file/p.csv")
    done.assert_one_clear_line("cannot write", "file")


# --- with an adapter ----------------------------------------------------------------------------


def test_an_adapter_of_a_trial_is_read_from_the_trials_own_answers(
    program: Program, trained: TrainedAdapter
) -> None:
    before = files_below(trained.results)
    done = program(
        "evaluate", "--adapter", trained.adapter, "--results-dir", trained.results, "--json", *SMALL
    )
    assert done.returncode == 0, done.stderr
    assert files_below(trained.results) == before
    answer = json.loads(done.stdout)
    assert answer["num_decoded"] == 18
    assert answer["num_disagreements"] == 0
    assert answer["retention"]["replay"]["kl_divergence"] > 0
    assert answer["retention"]["text"]["reason"]
    predictions = pd.read_parquet(answer["predictions"])
    assert set(predictions["seen_tokens"]) <= {"all", "some", "none"}
    for result in answer["tasks"].values():
        gain = result["gain"]
        assert gain["low"] <= gain["value"] <= gain["high"]
        assert gain["value"] == pytest.approx(result["tuned"]["value"] - result["base"]["value"])


def test_an_adapter_from_elsewhere_is_named_by_its_weights(
    program: Program, trained: TrainedAdapter, own_suite: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained.adapter, tmp_path / "mine")
    done = program("evaluate", "--adapter", "mine", "--suite", own_suite)
    assert done.returncode == 0, done.stderr
    for words in ("adapter mine", "tuned", "gain, points", "retention, replay", "not measured"):
        assert words in done.stdout
    folders = {name.split("/")[4] for name in files_below(tmp_path) if "trainings/" in name}
    assert {name.split("_")[0] for name in folders} == {"base", "adapter"}


def test_a_folder_that_is_no_adapter_is_refused_before_anything_is_asked(
    program: Program, own_suite: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    for more in ((), ("--model", "tiny")):
        done = program("evaluate", "--adapter", "empty", "--suite", own_suite, *more)
        done.assert_one_clear_line("empty", "holds no adapter")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "own.jsonl"]


@pytest.fixture
def own_base() -> Iterator[None]:
    """Let a test have a model that no other test will be given."""
    for kept in (last_base, last_bench):
        kept.forget()
    yield
    for kept in (last_base, last_bench):
        kept.forget()


@pytest.mark.usefixtures("own_base")
def test_a_torn_adapter_is_one_clear_line_and_harms_no_other(
    program: Program, trained: TrainedAdapter, own_suite: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained.adapter, tmp_path / "torn")
    weights = tmp_path / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    done = program("evaluate", "--adapter", "torn", "--suite", own_suite)
    done.assert_one_clear_line("the adapter in torn does not fit tiny")
    done = program("evaluate", "--adapter", trained.adapter, "--suite", own_suite)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def edited(trained: TrainedAdapter, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that copies the adapter and changes what its settings say."""

    def edit(**settings: Any) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(trained.adapter, folder)
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
        return folder

    return edit


def test_an_adapter_of_another_base_is_measured_with_a_warning(
    program: Program, trained: TrainedAdapter, own_suite: Path, edited: Callable[..., Path]
) -> None:
    ask = ("evaluate", "--model", "tiny", "--suite", own_suite)
    assert "was made for" not in program(*ask, "--adapter", trained.adapter).stderr
    folder = edited(base_model_name_or_path="someone/other-model")
    done = program(*ask, "--adapter", folder)
    assert done.returncode == 0
    assert "made for someone/other-model, and is put on tiny" in done.stderr


@pytest.mark.usefixtures("own_base")
def test_an_adapter_of_other_shapes_is_one_short_line(
    program: Program, own_suite: Path, edited: Callable[..., Path]
) -> None:
    done = program("evaluate", "--adapter", edited(r=3), "--suite", own_suite)
    done.assert_one_clear_line(
        "does not fit tiny: model.layers.0.", "has the shape (", "and the model has room for (3, "
    )
    assert "size mismatch" not in done.stderr


# --- certificates -------------------------------------------------------------------------------


def test_a_certificate_is_stored_and_shown_with_the_model(
    program: Program, own_suite: Path
) -> None:
    none = program("models", "info", "tiny")
    assert "none yet: tuning evaluate --model tiny --certify 200" in none.stdout
    done = program("evaluate", "--suite", own_suite, "--certify", "99", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    certificate = json.loads(done.stdout)
    assert certificate["num_items"] == 8
    assert certificate["num_disagreements"] == 0
    assert certificate["agreement"] == 1.0
    assert certificate["weights"].endswith("@0")
    assert certificate["device"] in ("cpu", "cuda:0")
    assert 0 <= certificate["share_decoded"] <= 1
    assert certificate["margin"] > 0
    facts = json.loads(program("models", "info", "tiny", "--json").stdout)
    assert facts["certificates"] == [certificate]
    shown = program("models", "info", "tiny").stdout
    assert "agrees with greedy decoding on 100.00 % of 8 items" in shown
    assert "none yet" not in shown


def test_a_certificate_of_an_adapter_names_it(
    program: Program, trained: TrainedAdapter, own_suite: Path
) -> None:
    asked = ("--suite", own_suite, "--certify", "8", "--quiet")
    done = program("evaluate", "--adapter", trained.adapter, *asked)
    assert done.returncode == 0, done.stderr
    assert "agreement 100.00 % of 8 items (0 differ)" in done.stdout
    assert "times faster" in done.stdout
    (certificate,) = json.loads(program("models", "info", "tiny", "--json").stdout)["certificates"]
    assert certificate["weights"].startswith("adapter_")


def test_the_newest_certificate_replaces_the_one_before(program: Program, own_suite: Path) -> None:
    for count in ("3", "5"):
        assert program("evaluate", "--suite", own_suite, "--certify", count).returncode == 0
    certificates = json.loads(program("models", "info", "tiny", "--json").stdout)["certificates"]
    assert [c["num_items"] for c in certificates] == [5]
