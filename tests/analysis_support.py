"""Planted studies that tests of the analysis share, each written and analysed once a process."""

from __future__ import annotations

import atexit
import copy
import functools
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from conftest import SMALL
from planted_study import CONTROLS, Effect, EffectOf, always, write_planted_study
from tuning import measures
from tuning.analysis.configurations import ConfigurationSummary, TaskGain
from tuning.composition import overridden
from tuning.config import build
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, load_study
from tuning.transfer_analysis import StudyAnalysis, analyze

SIZES = {"num_words": 100, "num_monitor_words": 30, "num_generated_items": 90}
NAME = "planted"


class Planted(NamedTuple):
    """A study below a results root."""

    root: ResultsRoot
    spec: StudySpec
    analysis: StudyAnalysis

    def row(self, label: str) -> ConfigurationSummary:
        """Return the row of a configuration, ranked or control."""
        rows = (*self.analysis.configurations, *self.analysis.controls)
        (found,) = [row for row in rows if row.label == label]
        return found

    def gain(self, task: str, label: str = "default") -> TaskGain:
        """Return one configuration in one task."""
        return self.row(label).gains[task]

    @property
    def records(self) -> dict[str, TrialRecord]:
        """The records, by trial."""
        return {record.trial_id: record for record in load_study(self.root, self.spec.name)[1]}

    def answers(self, trial_id: str) -> pd.DataFrame:
        """Return the answers of a trial."""
        result = self.records[trial_id].result
        return self._answers(result.training_key, result.evaluation_key)

    def base_answers(self, trial_id: str) -> pd.DataFrame:
        """Return those of the untouched model."""
        result = self.records[trial_id].result
        return self._answers(result.base_key, result.base_evaluation_key)

    def _answers(self, key: str | None, evaluation_key: str | None) -> pd.DataFrame:
        place = self.root.training(key or "").evaluation(evaluation_key or "")
        return pd.read_parquet(place / measures.PREDICTIONS)


@functools.cache
def folder() -> Path:
    """Return a folder in memory that goes with the process."""
    memory = Path("/dev/shm")
    made = tempfile.mkdtemp(prefix="tuning-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return Path(made)


def spec_of(
    space: Mapping[str, Any], *overrides: str, name: str = NAME, **fields: Any
) -> StudySpec:
    """Return a study of the embedded model."""
    base = overridden(build(copy.deepcopy(SMALL), "test"), overrides)
    return StudySpec(name=name, space=SearchSpace.model_validate(space), base=base, **fields)


def plant(
    effect: Effect | EffectOf,
    space: Mapping[str, Any],
    *overrides: str,
    root: ResultsRoot | None = None,
    name: str = NAME,
    fields: Mapping[str, Any] | None = None,
    **options: Any,
) -> Planted:
    """Write a study and analyse it."""
    place = root or ResultsRoot(Path(tempfile.mkdtemp(dir=folder())))
    effect_of = always(effect) if isinstance(effect, Effect) else effect
    options = {**SIZES, "exact_intervals": False, **options}
    spec = spec_of(space, *overrides, name=name, **(fields or {}))
    spec = write_planted_study(place, spec, effect_of, **options)
    return Planted(place, spec, analyze(place, name))


def copy_of(planted: Planted, into: Path) -> ResultsRoot:
    """Return a copy of the folders, to be damaged."""
    shutil.copytree(planted.root.root, into, dirs_exist_ok=True)
    return ResultsRoot(into)


DEFAULT_ONLY = {"HPARAM_CANDIDATES": {"lora_r": [16]}, "replicates_of_default": 3}


@functools.cache
def control(name: str) -> Planted:
    """Return the default, three times, of one of the known controls."""
    wanted = CONTROLS[name]
    return plant(
        wanted.effect,
        DEFAULT_ONLY,
        base_rates=wanted.base_rates,
        base_answers=wanted.base_answers,
        num_words=150,
        seed_deviation=0.005,
    )


ARMS = {
    "HPARAM_CANDIDATES": {"arm": ["format_control", "direct"], "lora_r": [8]},
    "replicates_of_default": 3,
}


@functools.cache
def arms(control_gain: float, direct_gain: float, gain: float = 0.15) -> Planted:
    """Return a study with both control arms; gains of position, in both readings."""

    def effect_of(parameters: Mapping[str, Any], seed: int) -> Effect:
        position = {"format_control": control_gain, "direct": direct_gain}.get(
            parameters.get("arm", ""), gain
        )
        spelling = 0.0 if "arm" in parameters else 0.25
        return Effect(spelling=spelling, position=position)

    return plant(effect_of, ARMS, num_words=150, seed_deviation=0.005, word_seed_deviation=0.02)
