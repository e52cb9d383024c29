"""A golden run: fails when the same configuration trains other weights than before.

If that was meant, raise TRAINING_VERSION in config.py and write the new losses here. The tolerance
covers other processors and thread counts, not another algorithm.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuning import files
from tuning.fingerprint import TRAINING_VERSION, training_key
from tuning.paths import ResultsRoot
from tuning.trial import TrialRequest, run_trial

GOLDEN_LOSSES: dict[int, dict[int, float]] = {6: {10: 1.030385, 20: 0.346115}}
"""Loss by optimizer step, by training version."""


def test_losses_are_those_of_this_training_version(small_config: Any, tmp_path: Path) -> None:
    config = small_config("max_steps=20", "transfer_eval_frequency=100")
    root = ResultsRoot(tmp_path)
    run_trial(TrialRequest(config=config, folder=root.study("s").trial("t"), trial_id="t"), root)
    lines = files.read_json_lines(root.training(training_key(config)).progress)
    losses = {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}
    assert losses == pytest.approx(GOLDEN_LOSSES[TRAINING_VERSION], rel=1e-3)
