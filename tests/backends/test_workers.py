"""How many workers a processor gets, and how many threads each of them."""

from __future__ import annotations

from typing import Any

import pytest

from tuning.backends import local


@pytest.mark.parametrize(
    ("model", "cores", "expected"),
    [
        ("tiny", 4, [1, 1, 1, 1]),
        ("smollm2-135m-q4", 2, [2]),
        ("smollm2-135m-q4", 4, [4]),
        ("smollm2-135m-q4", 7, [3, 3]),
        ("qwen3-4b", 16, [16]),
    ],
)
def test_a_larger_model_has_fewer_workers_of_more_threads(
    small_config: Any, monkeypatch: pytest.MonkeyPatch, model: str, cores: int, expected: list[int]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(local, "usable_cores", lambda: cores)
    monkeypatch.setattr(local, "visible_gpus", lambda: ())
    monkeypatch.setattr(local, "total_memory", lambda: 64 * 2**30)
    config = small_config(f"models={model}")
    found = local.environments_of(config, None, None)
    assert [local.threads_of(environment) for environment in found] == expected
    # What is asked for stands.
    assert len(local.environments_of(config, 3, 1)) == 3
