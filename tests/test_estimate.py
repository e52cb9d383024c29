"""Laws of `tuning.estimate`: what is there is not counted, what is equal is counted once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuning.config import ExperimentConfig
from tuning.estimate import Estimate, estimate, in_words
from tuning.fingerprint import training_key
from tuning.measures import Accuracy, Gain, TaskResult
from tuning.paths import ResultsRoot
from tuning.records import Execution, TrialRecord, TrialResult, TrialStatus, write_record

Make = Callable[..., ExperimentConfig]

ITEMS_OF_A_WORD = 3 * 3
"""Three templates, three tasks."""
TOKENS_OF_A_ROW = 21
"""Of tiny, as docs/log.md has it."""


@pytest.fixture
def root(tmp_path: Path) -> ResultsRoot:
    return ResultsRoot(tmp_path / "results")


def counts(found: Estimate) -> tuple[int, int]:
    return found.num_trainings_left, found.num_evaluations_left


def seconds(found: Estimate) -> float:
    assert found.seconds is not None
    return found.seconds


def finish(root: ResultsRoot, config: ExperimentConfig, steps: int | None = None) -> None:
    """Put the adapter there that a training of the configuration leaves behind."""
    folder = root.training(training_key(config))
    adapter = folder.adapter(steps or config.training_config.max_steps)
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")


def record_of(
    model: str = "tiny (0.91 M parameters)",
    tokens: int = 1000,
    train_seconds: float = 10.0,
    evaluation_seconds: float = 6.0,
    steps: int = 600,
) -> TrialRecord:
    rate = Accuracy(value=0.5, low=0.4, high=0.6, num_items=100, num_words=50)
    gain = Gain(value=0.1, low=0.0, high=0.2, num_better=4, num_worse=2, p_value=0.5)
    task = TaskResult(baseline=0.2, base=rate, tuned=rate, gain=gain)
    return TrialRecord(
        trial_id="0000-abc",
        parameters={},
        seed=0,
        result=TrialResult(
            status=TrialStatus.COMPLETED,
            training_key="k",
            weights_key=f"k@{steps}",
            step=steps,
            model=model,
            metrics={
                "spelling/accuracy": 0.5,
                "transfer/position/accuracy": 0.5,
                "transfer/count/accuracy": 0.5,
                "transfer_learning_score": 0.5,
            },
            tasks={name: task for name in ("spelling", "position", "count")},
        ),
        execution=Execution(
            started_at="2026-01-01T00:00:00+00:00",
            finished_at="2026-01-01T00:01:00+00:00",
            host="here",
            train_seconds=train_seconds,
            evaluation_seconds=evaluation_seconds,
            num_trained_tokens=tokens,
            peak_memory_bytes=2**30,
            num_threads=1,
            device="cpu",
            num_attempts=1,
        ),
    )


def remember(root: ResultsRoot, *records: TrialRecord) -> None:
    for number, record in enumerate(records):
        write_record(root.study("earlier").trial(f"{number:04d}-abc"), record)


# --- what is left -----------------------------------------------------------------------------


def test_a_training_that_is_not_there_is_to_be_made(root: ResultsRoot, small_config: Make) -> None:
    found = estimate([small_config()], root)
    assert counts(found) == (1, 1)
    assert seconds(found) > 0
    assert found.num_bytes
    assert found.says.startswith("1 training and 1 evaluation to make: about ")
    assert not root.root.exists()


def test_what_is_there_already_is_nothing_to_do(root: ResultsRoot, small_config: Make) -> None:
    configs = [small_config(), small_config("lora_r=4")]
    for config in configs:
        finish(root, config)
    found = estimate(configs, root)
    assert counts(found) == (0, 0)
    assert (found.seconds, found.num_bytes) == (0.0, 0)
    assert found.says == "nothing to do: everything is there already"


def test_a_folder_without_its_adapter_is_still_to_be_made(
    root: ResultsRoot, small_config: Make
) -> None:
    config = small_config()
    finish(root, config)
    folder = root.training(training_key(config)).adapter(12)
    (folder / "adapter_config.json").unlink()
    assert counts(estimate([config], root)) == (1, 1)


def test_equal_trainings_are_counted_once(root: ResultsRoot, small_config: Make) -> None:
    one = small_config()
    same = [small_config("gpu_tier=a100"), small_config("position_task_weight=0.7")]
    assert counts(estimate([one, *same, one], root)) == (1, 1)
    assert counts(estimate([one, small_config("lora_r=4")], root)) == (2, 2)
    assert counts(estimate([one, small_config("training_config.seed=1")], root)) == (2, 2)


def test_a_longer_run_covers_a_shorter_one(root: ResultsRoot, small_config: Make) -> None:
    short, long = small_config(), small_config("max_steps=24")
    remember(root, record_of())
    both = estimate([short, long], root)
    assert counts(both) == (1, 2)
    assert counts(estimate([long, short], root)) == (1, 2)
    assert seconds(both) < seconds(estimate([short], root)) + seconds(estimate([long], root))


def test_under_a_schedule_that_hangs_on_the_steps_it_does_not(
    root: ResultsRoot, small_config: Make
) -> None:
    linear = "training_config.schedule=linear"
    configs = [small_config(linear), small_config(linear, "max_steps=24")]
    assert counts(estimate(configs, root)) == (2, 2)


def test_only_what_is_missing_of_a_training_is_left(root: ResultsRoot, small_config: Make) -> None:
    short, long = small_config(), small_config("max_steps=24")
    finish(root, short)
    assert counts(estimate([short, long], root)) == (1, 1)
    finish(root, long)
    assert counts(estimate([short, long], root)) == (0, 0)


def test_trials_that_are_not_known_yet_cost_what_the_first_one_costs(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of())
    one = estimate([small_config()], root)
    found = estimate([small_config()], root, num_like_first=3)
    assert counts(found) == (4, 4)
    assert seconds(found) == pytest.approx(4 * seconds(one))
    assert found.num_bytes == 4 * (one.num_bytes or 0)
    finish(root, small_config())
    assert counts(estimate([small_config()], root, num_like_first=3)) == (3, 3)


# --- time ---------------------------------------------------------------------------------------


def test_earlier_trials_of_the_model_say_how_long_it_takes(
    root: ResultsRoot, small_config: Make
) -> None:
    # 10 s for 1000 tokens, 6 s for three tasks of 100 items.
    remember(root, record_of())
    found = estimate([small_config()], root)
    tokens = 12 * 8 * TOKENS_OF_A_ROW
    items = (30 + 3 * 6) * ITEMS_OF_A_WORD
    assert found.seconds == pytest.approx(tokens * 10 / 1000 + items * 6 / 300)
    assert found.basis == f"1 earlier trials of tiny in {root.root}"
    assert found.says.startswith("1 training and 1 evaluation to make: about 29 seconds ")
    assert found.says.endswith(f"(from 1 earlier trials of tiny in {root.root})")


def test_trials_of_a_few_steps_say_nothing_of_long_ones(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of(steps=10))
    assert "1 earlier trials" in estimate([small_config()], root).says
    assert "earlier trials" not in estimate([small_config("max_steps=150")], root).says


def test_earlier_trials_are_taken_together(root: ResultsRoot, small_config: Make) -> None:
    remember(root, record_of(tokens=1000), record_of(tokens=3000, evaluation_seconds=2.0))
    tokens = 12 * 8 * TOKENS_OF_A_ROW
    items = (30 + 3 * 6) * ITEMS_OF_A_WORD
    found = estimate([small_config()], root)
    assert found.seconds == pytest.approx(tokens * 20 / 4000 + items * 8 / 600)
    assert found.basis.startswith("2 earlier trials")


def test_a_training_that_another_trial_had_made_does_not_count_as_fast(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of())
    alone = estimate([small_config()], root)
    # Its evaluation was as fast; of its training nothing is known.
    remember(root, record_of(), record_of(train_seconds=0.0, tokens=10**9))
    assert seconds(estimate([small_config()], root)) == pytest.approx(seconds(alone))


def test_trials_of_other_models_failed_and_damaged_ones_say_nothing(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of(model="smollm2-135m (134.5 M parameters)"))
    failed = record_of()
    result = TrialResult(
        status=TrialStatus.FAILED,
        training_key="k",
        weights_key="k@1",
        step=0,
        model="tiny",
        error="out of memory",
    )
    study = root.study("other")
    write_record(study.trial("0000-abc"), dataclasses.replace(failed, result=result))
    damaged = study.trial("0001-abc")
    damaged.root.mkdir(parents=True)
    damaged.record.write_text("{")
    found = estimate([small_config()], root)
    assert "earlier trials" not in found.basis
    assert "rough" in found.basis


@pytest.mark.parametrize("is_measured", [True, False])
def test_more_takes_longer(root: ResultsRoot, small_config: Make, is_measured: bool) -> None:
    if is_measured:
        remember(root, record_of())

    def lasts(*overrides: str) -> float:
        return seconds(estimate([small_config(*overrides)], root))

    once = lasts()
    # Far more than the speed of this machine varies between two looks at it.
    assert lasts("max_steps=1200", "transfer_eval_frequency=1200") > 5 * once
    assert lasts("grad_accum_steps=200") > 5 * once
    assert lasts("evaluation_config.num_words=90000", "max_steps=12") > 5 * once


def test_evaluations_on_the_way_take_time(root: ResultsRoot, small_config: Make) -> None:
    remember(root, record_of())
    often, never = small_config(), small_config("transfer_eval_frequency=100")
    passed = 3 * 6 * ITEMS_OF_A_WORD * 6 / 300
    difference = seconds(estimate([often], root)) - seconds(estimate([never], root))
    assert difference == pytest.approx(passed)


def test_a_larger_model_takes_longer(root: ResultsRoot, small_config: Make) -> None:
    def lasts(name: str) -> float:
        return seconds(estimate([small_config(f"tokenizer_config.model_name={name}")], root))

    assert lasts("tiny") < lasts("qwen3-0.6b")
    assert lasts("smollm2-135m") < lasts("qwen3-4b")


def test_a_model_that_is_not_known_before_it_is_fetched_has_no_time(
    root: ResultsRoot, small_config: Make
) -> None:
    unknown = small_config("tokenizer_config.model_name=some-lab/other-model")
    found = estimate([unknown], root)
    assert counts(found) == (1, 1)
    assert (found.seconds, found.num_bytes) == (None, None)
    assert found.says == (
        "1 training and 1 evaluation to make; how long is not known before the model is fetched"
    )


def test_the_time_of_an_unknown_model_is_known_once_trials_of_it_were_run(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of(model="some-lab/other-model (1.5 B parameters)"))
    unknown = small_config("tokenizer_config.model_name=some-lab/other-model")
    found = estimate([unknown], root)
    assert seconds(found) > 0
    assert "not known" not in found.says
    assert "earlier trials of some-lab/other-model" in found.says


def test_a_folder_with_a_space_in_its_name_is_a_model_like_others(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of(model="my models/other (1.5 B parameters)"))
    found = estimate([small_config("tokenizer_config.model_name='my models/other'")], root)
    assert found.basis.startswith("1 earlier trials of my models/other")


def test_a_record_that_names_no_model_says_nothing(root: ResultsRoot, small_config: Make) -> None:
    remember(root, record_of(model=""), record_of())
    assert estimate([small_config()], root).basis.startswith("1 earlier trials of tiny")


# --- disk ---------------------------------------------------------------------------------------


def test_an_adapter_takes_four_bytes_a_weight_and_grows_with_r(
    root: ResultsRoot, small_config: Make
) -> None:
    def size(*overrides: str) -> int:
        return estimate([small_config(*overrides)], root).num_bytes or 0

    # Tiny, four attention layers: 4 blocks of 256 + 192 + 192 + 256, times r. One adapter, and a
    # checkpoint of three times that.
    weights = 4 * 4 * (256 + 192 + 192 + 256)
    assert size("lora_r=32") - size("lora_r=16") == 4 * 16 * weights
    assert size() > 4 * 16 * weights
    assert size("evaluation_config.num_words=10000") > size()


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (0, "0 seconds"),
        (59.6, "60 seconds"),
        (119, "119 seconds"),
        (120, "2 minutes"),
        (3600, "60 minutes"),
        (7199, "120 minutes"),
        (7200, "2 hours"),
        (36_000, "10 hours"),
        (172_799, "48 hours"),
        (172_800, "2 days"),
        (8_640_000, "100 days"),
    ],
)
def test_a_duration_is_said_as_a_person_would(duration: float, words: str) -> None:
    assert in_words(duration) == words


def test_what_is_left_is_said_in_one_sentence() -> None:
    found = Estimate(
        num_trainings_left=21,
        num_evaluations_left=24,
        seconds=5400.0,
        num_bytes=1500 * 2**20,
        basis="a guess",
    )
    assert found.says == (
        "21 trainings and 24 evaluations to make: about 90 minutes one after another and "
        "1,500 MiB on disk (from a guess)"
    )


def test_nothing_of_a_configuration_but_its_cost_is_read(
    root: ResultsRoot, small_config: Make
) -> None:
    remember(root, record_of())
    plain: Any = estimate([small_config()], root)
    renamed = estimate([small_config("experiment_name=other", "gpu_tier=t4")], root)
    assert renamed == plain
