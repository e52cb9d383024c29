"""Stored answers: asked once, healed when damaged, with what was seen and how far a model moved."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
import pytest
import torch
from bench_support import adapters_in, bench_of, disturb
from table_model import bench_that_says

from tuning import files
from tuning.config import LoraConfig
from tuning.errors import ModelError
from tuning.evaluation.bench import Bench
from tuning.evaluation.one_pass import OnePassScorer
from tuning.evaluation.retention import retention, retention_text
from tuning.evaluation.stored import (
    SCORES,
    evaluate_adapter,
    evaluate_base,
    score,
    seen_tokens,
)
from tuning.measures import PREDICTIONS
from tuning.model.lora import fresh_adapter, stored_adapter
from tuning.paths import ResultsRoot, TrainingFolder
from tuning.tasks import position, spelling
from tuning.tasks.items import Item
from tuning.tasks.prompts import Prompting
from tuning.tasks.splits import Split
from tuning.tasks.suite import Suite, build_suite, facts_of


@pytest.fixture
def small_bench() -> Bench:
    return bench_of(12, 30)


@pytest.fixture
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapters_in(tmp_path_factory.getbasetemp() / "adapters")


class AskedAgainError(Exception):
    """The model was asked although the answers are on disk."""


class RefusingScorer(OnePassScorer):
    """A scorer that must not be used."""

    def score(self, *arguments: Any) -> NoReturn:
        raise AskedAgainError


def without_scoring(bench: Bench) -> Bench:
    scorer = bench.scorer
    return dataclasses.replace(
        bench, scorer=RefusingScorer(scorer.network, scorer.tokenizer, scorer.margin)
    )


@pytest.fixture
def root(tmp_path: Path) -> ResultsRoot:
    return ResultsRoot(tmp_path / "results")


def place_of(bench: Bench, root: ResultsRoot, key: str) -> Path:
    return root.training(bench.base.key).evaluation(key)


def with_free_items(bench: Bench, count: int) -> Bench:
    sizes = bench.sizes.model_copy(update={"num_generated_items": count})
    return dataclasses.replace(bench, sizes=sizes)


# --- asked once ---------------------------------------------------------------------------------


def test_the_second_call_reads_from_disk(small_bench: Bench, root: ResultsRoot) -> None:
    first = evaluate_base(small_bench, root)
    second = evaluate_base(without_scoring(small_bench), root)
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    assert dataclasses.replace(first, predictions=None) == dataclasses.replace(
        second, predictions=None
    )
    place = place_of(small_bench, root, first.key)
    assert sorted(p.name for p in place.iterdir()) == [PREDICTIONS, SCORES]


def test_adapters_are_asked_once_too(small_bench: Bench, root: ResultsRoot, adapters: Path) -> None:
    folder = root.training("0" * 20)
    first = evaluate_adapter(small_bench, adapters / "disturbed", folder, 3, frozenset({"parrot"}))
    asked = (adapters / "disturbed", folder, 3, frozenset({"parrot"}))
    second = evaluate_adapter(without_scoring(small_bench), *asked)
    pd.testing.assert_frame_equal(first.predictions, second.predictions)
    assert second.retention == first.retention


def test_another_question_is_asked_anew(
    small_bench: Bench, root: ResultsRoot, adapters: Path
) -> None:
    evaluate_base(small_bench, root)
    refusing = without_scoring(small_bench)
    shorter = dataclasses.replace(refusing, suite=refusing.suite.part(range(3)))
    folder = root.training("1" * 20)
    evaluate_adapter(small_bench, adapters / "zero", folder, 3)
    for bench, prompting in (
        (shorter, Prompting.ZERO_SHOT),
        (with_free_items(refusing, 29), Prompting.ZERO_SHOT),
        (refusing, Prompting.FOUR_SHOT),
        (refusing, Prompting.ORACLE),
    ):
        with pytest.raises(AskedAgainError):
            evaluate_base(bench, root, prompting)
    for step, words in ((4, None), (3, frozenset({"parrot"}))):
        with pytest.raises(AskedAgainError):
            evaluate_adapter(refusing, adapters / "zero", folder, step, words)


def test_an_adapter_of_another_shape_is_refused_and_leaves_nothing(
    small_bench: Bench, root: ResultsRoot, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no adapter"):
        evaluate_adapter(small_bench, tmp_path / "empty", root.training("2" * 20), 1)
    assert not root.root.exists()


# --- damaged answers ----------------------------------------------------------------------------

DAMAGES: dict[str, tuple[str, bytes | None]] = {
    "predictions missing": (PREDICTIONS, None),
    "predictions empty": (PREDICTIONS, b""),
    "predictions are no parquet": (PREDICTIONS, b"PAR1 or not"),
    "scores missing": (SCORES, None),
    "scores empty": (SCORES, b""),
    "scores torn": (SCORES, b'{"num_decoded": 3'),
    "scores are a list": (SCORES, b"[]"),
    "scores are binary": (SCORES, b"\xff\xfe"),
    "scores lack a key": (SCORES, b'{"num_decoded": 3}'),
    "retention is none": (
        SCORES,
        b'{"num_decoded": 3, "num_disagreements": 0, "retention": {"text": {"base_loss": "x"}}}',
    ),
}


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, ResultsRoot]:
    """Return a bench of three items with its answers on disk."""
    small_bench = bench_of(12, 30)
    few = dataclasses.replace(
        with_free_items(small_bench, 3), suite=small_bench.suite.part([0, 40, 80])
    )
    root = ResultsRoot(tmp_path_factory.mktemp("answered"))
    evaluate_base(few, root)
    return few, root


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_answers_are_asked_again(answered: tuple[Bench, ResultsRoot], damage: str) -> None:
    bench, root = answered
    whole = evaluate_base(without_scoring(bench), root)
    name, content = DAMAGES[damage]
    path = place_of(bench, root, whole.key) / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(AskedAgainError):
        evaluate_base(without_scoring(bench), root)
    healed = evaluate_base(bench, root)
    pd.testing.assert_frame_equal(healed.predictions, whole.predictions)
    pd.testing.assert_frame_equal(
        evaluate_base(without_scoring(bench), root).predictions, whole.predictions
    )


@pytest.mark.parametrize("place", [0.2, 0.5, 0.9])
def test_a_torn_table_is_asked_again(answered: tuple[Bench, ResultsRoot], place: float) -> None:
    bench, root = answered
    whole = evaluate_base(without_scoring(bench), root)
    path = place_of(bench, root, whole.key) / PREDICTIONS
    content = path.read_bytes()
    path.write_bytes(content[: int(place * len(content))])
    pd.testing.assert_frame_equal(evaluate_base(bench, root).predictions, whole.predictions)


# --- freely decoded items -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [30, 8, 0, 10**4])
def test_as_many_items_are_decoded_freely_as_asked_for_spread_over_tasks(
    small_bench: Bench, count: int
) -> None:
    predictions = score(with_free_items(small_bench, count), small_bench.suite)
    assert len(predictions) == len(small_bench.suite.items)
    assert predictions["prompt"].tolist() == [item.question for item in small_bench.suite.items]
    decoded = predictions[predictions["lenient_correct"].notna()]
    assert len(decoded) == min(count, len(predictions))
    if count < len(predictions):
        found = Counter(decoded["task"])
        shares = [found[task] for task in ("spelling", "position", "count")]
        assert max(shares) - min(shares) <= 1
    for column in ("text", "outcome"):
        assert list(predictions.index[predictions[column].notna()]) == list(decoded.index)
    spelled = decoded.index[decoded["task"] == "spelling"]
    for column in ("character_error_rate", "length_error"):
        assert list(predictions.index[predictions[column].notna()]) == list(spelled)
    readable = decoded.index[decoded["outcome"] != "unparseable"]
    assert list(predictions.index[predictions["extracted"].notna()]) == list(readable)


@pytest.mark.parametrize(
    ("num_words", "count"), [(30, 30), (100, 60), (1000, 300), (33, 200), (30, 250)]
)
def test_the_part_that_is_decoded_freely_has_every_template(
    small_bench: Bench, num_words: int, count: int
) -> None:
    """A stride that divides by the number of templates would always take the same one."""
    words = small_bench.words[Split.VALIDATION]
    suite = build_suite(words, num_words, small_bench.base.tokenizer.cut)
    chosen = suite.spread(count)
    assert len(chosen) == len(set(chosen)) == count
    templates = Counter((suite.items[i].task, suite.items[i].template) for i in chosen)
    assert templates.keys() == {(item.task, item.template) for item in suite.items}
    assert min(templates.values()) >= count / 9 / 2


def test_free_answers_confirm_one_pass(
    small_bench: Bench, root: ResultsRoot, adapters: Path
) -> None:
    base = evaluate_base(small_bench, root)
    tuned = evaluate_adapter(small_bench, adapters / "disturbed", root.training("3" * 20), 1)
    for evaluation in (base, tuned):
        assert evaluation.num_decoded == 30
        assert evaluation.num_disagreements == 0
        decoded = evaluation.predictions[evaluation.predictions["text"].notna()]
        assert ((decoded["text"] == decoded["gold"]) == decoded["strict_correct"]).all()
    assert tuned.predictions["strict_correct"].mean() < base.predictions["strict_correct"].mean()


def test_another_right_answer_is_no_disagreement(small_bench: Bench, root: ResultsRoot) -> None:
    suite = small_bench.suite.part(range(36, 48, 3))
    said = ["a", "b", "c", "d"]
    items = tuple(
        dataclasses.replace(item, answer="x", targets=(answer, "y"))
        for item, answer in zip(suite.items, said, strict=True)
    )
    suite = dataclasses.replace(suite, items=items)
    evaluation = evaluate_base(bench_that_says(small_bench, suite, said), root)
    assert evaluation.predictions["strict_correct"].all()
    assert evaluation.num_decoded == 4
    assert evaluation.num_disagreements == 0


def test_scores_beside_the_table_say_what_was_asked(small_bench: Bench, root: ResultsRoot) -> None:
    evaluation = evaluate_base(small_bench, root)
    scores = files.read_json(place_of(small_bench, root, evaluation.key) / SCORES)
    assert scores["weights"] == f"{small_bench.base.key}@0"
    assert scores["suite"] == small_bench.suite.key
    assert scores["mix"] == small_bench.suite.mix()
    assert scores["accuracy"].keys() == scores["baselines"].keys()
    rows = evaluation.predictions.groupby("task")["strict_correct"].mean()
    assert scores["accuracy"] == pytest.approx(rows.to_dict())


# --- what was seen in training ------------------------------------------------------------------

PIECES = {
    "moonlight": [" moon", "light"],
    "ballroom": [" ball", "room"],
    "starlight": [" star", "light"],
    "washroom": [" wash", "room"],
    "parrot": [" par", "rot"],
    "lightroom": [" light", "room"],
}


def suite_of(bench: Bench, items: list[Item]) -> Suite:
    pieces = bench.base.tokenizer.cut([item.word for item in items])
    facts = [facts_of(i, p, is_pseudo_word=False) for i, p in zip(items, pieces, strict=True)]
    return Suite(tuple(items), tuple(facts))


def test_tokens_of_a_word_were_all_or_in_part_or_never_seen(small_bench: Bench) -> None:
    assert small_bench.base.tokenizer.cut(list(PIECES)) == list(PIECES.values())
    suite = suite_of(small_bench, [spelling.plain_item(word) for word in PIECES])
    trained = frozenset({"moonlight", "ballroom"})
    # "light" within moonlight is another token than " light" at the head of a word.
    assert seen_tokens(small_bench, suite, trained) == [
        *("all", "all", "some", "some", "none", "some")
    ]
    assert seen_tokens(small_bench, suite, frozenset({"starlight"})) == [
        *("some", "none", "all", "none", "none", "none")
    ]
    assert seen_tokens(small_bench, suite, frozenset()) == ["none"] * 6


def test_what_was_seen_is_a_column_of_trained_models_alone(
    small_bench: Bench, root: ResultsRoot, adapters: Path
) -> None:
    items = [position.position_item(word, 1, position.TEMPLATES[0]) for word in PIECES]
    bench = dataclasses.replace(small_bench, suite=suite_of(small_bench, items))
    folder = root.training("4" * 20)
    trained = frozenset({"moonlight", "ballroom"})
    tuned = evaluate_adapter(bench, adapters / "zero", folder, 1, trained)
    assert tuned.predictions["seen_tokens"].tolist() == [
        *("all", "all", "some", "some", "none", "some")
    ]
    assert "seen_tokens" not in evaluate_base(bench, root).predictions
    assert "seen_tokens" not in evaluate_adapter(bench, adapters / "zero", folder, 1).predictions


# --- retention ----------------------------------------------------------------------------------


def held_out(bench: Bench) -> tuple[str, ...]:
    return bench.words[Split.VALIDATION].real


def test_an_untrained_adapter_has_moved_nothing(small_bench: Bench, adapters: Path) -> None:
    with stored_adapter(small_bench.base, adapters / "zero") as adapted:
        drift = retention(small_bench.base, adapted, held_out(small_bench))["replay"]
    assert drift.kl_divergence == pytest.approx(0, abs=1e-6)
    assert drift.tuned_loss == drift.base_loss
    assert drift.base_loss is not None
    assert 0 < drift.base_loss < 5
    assert drift.num_tokens > 120
    assert drift.reason is None


def test_drift_grows_with_the_disturbance(small_bench: Bench) -> None:
    divergences, losses = [], []
    for size in (0.002, 0.02):
        with fresh_adapter(small_bench.base, LoraConfig(dropout=0), 0) as adapted:
            disturb(adapted, size)
            drift = retention(small_bench.base, adapted, held_out(small_bench))["replay"]
        divergences.append(drift.kl_divergence or 0)
        losses.append((drift.base_loss, drift.tuned_loss))
    assert 0 < divergences[0] < divergences[1]
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] != losses[1][1]


def test_drift_is_that_of_the_definition(small_bench: Bench, adapters: Path) -> None:
    """Whole logits, one item at a time: loss and KL(untouched, tuned) of the answer tokens."""
    from tuning.evaluation.retention import NUM_REPLAY_ITEMS
    from tuning.tasks.replay import replay_item
    from tuning.tasks.suite import SUITE_SEED
    from tuning.tasks.words import keyed_rng

    base, words = small_bench.base, held_out(small_bench)
    rngs = (keyed_rng(SUITE_SEED, "retention", i) for i in range(NUM_REPLAY_ITEMS))
    rows = base.tokenizer.encode_items([replay_item(words, rng) for rng in rngs])
    sums, num_tokens = [0.0, 0.0, 0.0], 0
    with stored_adapter(base, adapters / "disturbed") as adapted, torch.inference_mode():
        measured = retention(base, adapted, words)["replay"]
        for row in rows:
            ids = torch.tensor([row.prompt + row.answer])
            places = range(len(row.prompt) - 1, ids.shape[1] - 1)
            after = adapted(ids).logits[0, places].double().log_softmax(-1)
            with adapted.disable_adapter():
                before = adapted(ids).logits[0, places].double().log_softmax(-1)
            gold = range(len(row.answer)), row.answer
            sums[0] -= float(before[gold].sum())
            sums[1] -= float(after[gold].sum())
            sums[2] += float((before.exp() * (before - after)).sum())
            num_tokens += len(row.answer)
    assert measured.num_tokens == num_tokens
    assert measured.base_loss == pytest.approx(sums[0] / num_tokens, rel=1e-4)
    assert measured.tuned_loss == pytest.approx(sums[1] / num_tokens, rel=1e-4)
    assert measured.kl_divergence == pytest.approx(sums[2] / num_tokens, rel=1e-3)


def test_tiny_has_no_tokens_for_the_text_and_says_so(small_bench: Bench, adapters: Path) -> None:
    assert len(retention_text()) > 500
    with stored_adapter(small_bench.base, adapters / "zero") as adapted:
        drift = retention(small_bench.base, adapted, held_out(small_bench))["text"]
    assert (drift.base_loss, drift.tuned_loss, drift.kl_divergence) == (None, None, None)
    assert drift.num_tokens == 0
    assert drift.reason == "tiny has no tokens for the text"


def test_retention_is_stored_with_a_tuned_model_and_never_with_the_untouched_one(
    small_bench: Bench, root: ResultsRoot, adapters: Path
) -> None:
    bench = dataclasses.replace(
        with_free_items(small_bench, 3), suite=small_bench.suite.part([0, 40, 80])
    )
    folder: TrainingFolder = root.training("5" * 20)
    assert evaluate_base(bench, root).retention == {}
    tuned = evaluate_adapter(bench, adapters / "disturbed", folder, 1)
    assert set(tuned.retention) == {"replay", "text"}
    assert (tuned.retention["replay"].kl_divergence or 0) > 1e-3
    stored = files.read_json(folder.evaluation(tuned.key) / SCORES)["retention"]
    assert stored["text"]["base_loss"] is None
    assert stored["text"]["reason"]
    assert stored["replay"]["kl_divergence"] == tuned.retention["replay"].kl_divergence
    assert evaluate_adapter(without_scoring(bench), adapters / "disturbed", folder, 1) is not None
