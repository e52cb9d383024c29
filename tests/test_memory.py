"""How much memory a configuration takes: parts add up, and what is proposed fits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.config import ExperimentConfig, build
from tuning.errors import ConfigError
from tuning.memory import MACHINES, check_fits, fitting, memory_of


def config(model: str = "Qwen/Qwen3-4B", **training: Any) -> ExperimentConfig:
    raw = {"experiment_name": "m", "tokenizer_config": {"model_name": model}}
    return build({**raw, "training_config": training}, "test")


def test_the_parts_of_qwen3_4b() -> None:
    found = memory_of(config(), MACHINES["a100"])
    assert found is not None
    # 4.02e9 weights of 2 bytes and 5 % lost between them; 151,936 x 2,560 of the head in fp32; 16 bytes a number trained.
    assert found.always["weights"] == pytest.approx(1.05 * 4.02e9 * 2, rel=0.01)
    assert found.always["head in fp32"] == 151_936 * 2560 * 4
    assert found.always["adapter and optimiser"] == 36 * 16 * 16 * sum(
        (2560 + 4096, 2560 + 1024) * 2
    )
    assert found.total == sum(found.always.values()) + max(
        sum(found.training.values()), sum(found.evaluation.values())
    )
    on_cpu = memory_of(config(), MACHINES["cpu"])
    assert on_cpu is not None
    assert on_cpu.always["weights"] == pytest.approx(2 * found.always["weights"])
    assert on_cpu.always["head in fp32"] == 0


def test_more_rows_take_more_and_recomputing_takes_less() -> None:
    def total(**training: Any) -> int:
        found = memory_of(config(**training), MACHINES["a100"])
        assert found is not None
        return sum(found.training.values())

    big, small = total(per_device_train_batch_size=256), total(per_device_train_batch_size=128)
    assert big > 1.5 * small
    assert total(per_device_train_batch_size=256, gradient_checkpointing=True) < 0.5 * big


def test_the_defaults_fit_where_they_are_meant_to_run() -> None:
    for name in ("t4", "a100", "l4", "h100"):
        check_fits(config(), MACHINES[name])
    for name in MACHINES:
        check_fits(config("tiny"), MACHINES[name])
    with pytest.raises(ConfigError, match="does not fit there at any batch size"):
        check_fits(config(), MACHINES["cpu"])  # 16 GB of weights in fp32


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["tiny", "smollm2-135m", "qwen3-0.6b", "qwen3-4b"]),
    st.sampled_from(sorted(MACHINES)),
    st.integers(1, 4096),
    st.integers(1, 64),
)
def test_what_is_refused_comes_with_what_fits(
    model: str, machine: str, size: int, accumulation: int
) -> None:
    asked = config(
        model, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation
    )
    where = MACHINES[machine]
    proposed = fitting(asked, where)
    found = memory_of(asked, where)
    assert found is not None
    if found.total <= where.usable_bytes:
        check_fits(asked, where)
        assert proposed == asked
        return
    with pytest.raises(ConfigError) as refused:
        check_fits(asked, where)
    if proposed is None:
        assert "does not fit there at any batch size" in str(refused.value)
        return
    training = proposed.training_config
    assert f"batch_size={training.per_device_train_batch_size} " in str(refused.value)
    assert training != asked.training_config
    check_fits(proposed, where)
    before, after = asked.training_config, proposed.training_config
    assert before.effective_batch_size == after.effective_batch_size


def test_a_model_of_unknown_shape_is_left_to_its_loader() -> None:
    assert memory_of(config("owner/model"), MACHINES["t4"]) is None
    check_fits(config("owner/model"), MACHINES["t4"])
