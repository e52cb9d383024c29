"""What to try next: the runs that a model of the results expects to teach most about the best.

A Gaussian process over everything that a study has tried says what to expect of each setting; the
knowledge gradient says what one more run of it is worth. Settings that were tried compete too, so
"more seeds of the best" is an answer by the same measure.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from tuning import files
from tuning.analysis.candidates import candidates, key_of, neighbours
from tuning.analysis.evidence import (
    Evidence,
    Learned,
    Setting,
    Tried,
    experiment_name,
    read_evidence,
)
from tuning.analysis.reasons import label_of, notes, reason_of, said
from tuning.analysis.surrogate import (
    Encoding,
    Posterior,
    Surrogate,
    believed,
    knowledge_gradients,
    noise_p_value,
    pooled_noise,
    seeds_explain,
)
from tuning.analysis.table import identity
from tuning.config import ExperimentConfig, build
from tuning.errors import ResultsError, numbered
from tuning.paths import ResultsRoot
from tuning.scoring import Focus
from tuning.study import StudySpec, load_study


class Kind(StrEnum):
    """What a recommended run is for."""

    NEW = "new"
    """A configuration that has no result."""
    MORE_SEEDS = "more_seeds"
    """Another seed of one that has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """One run to make. Numbers are None where there are too few results for a model."""

    label: str
    parameters: dict[str, Any]
    """What differs from the study's default."""
    kind: Kind
    seed: int
    """That no run of this configuration had."""
    expected: float | None
    """Objective that the model expects, a mean over seeds."""
    expected_sd: float | None
    """Standard deviation of that mean, by the model."""
    gain: float | None
    """Expected objective minus that of the best configuration so far, by the model."""
    gain_sd: float | None
    low: float | None
    high: float | None
    """95 % interval of the gain."""
    probability: float | None
    """That its mean objective is above that of the best so far; None for the best itself."""
    value: float | None
    """Knowledge gradient: what the run is expected to add to the best mean that is known."""
    seconds: float | None
    """About how long it takes on the machine of the study; None if nothing is known."""
    reason: str
    """Why, in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendations:
    """What to try next in a study, and what that rests on."""

    study: str
    model: str
    """Name and size of the base model."""
    focus: str
    focus_says: str
    best: str
    """The best configuration so far: by the model, or by its mean where there is none."""
    num_configurations: int
    """Distinct ones with a result."""
    num_runs: int
    spread: float | None
    """Standard deviation between seeds of one configuration."""
    is_spread_known: bool
    """Whether something was repeated; else it is guessed from the fit."""
    num_candidates: int
    """Configurations that were compared."""
    notes: list[str]
    """What a reader should know before trusting the list."""
    recommendations: list[Recommendation]


def recommend(
    root: ResultsRoot, name: str, *, num: int = 5, focus: Focus | None = None
) -> Recommendations:
    """Return what to try next, best first; a pure function of the folders.

    Args:
        root: All results hang off it.
        name: Of the study.
        num: How many runs.
        focus: What is to be as high as possible; the study's if not given.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: A record is damaged, or no trial has completed.
    """
    spec, records = load_study(root, name)
    learned, focus = Learned(spec), focus or spec.focus
    evidence = read_evidence(root, learned, records, focus)
    if not evidence.completed:
        num_trials = spec.plan().num_trials
        again = " --retry-failed" if len(records) == num_trials else ""
        raise ResultsError(
            f"study {name}: no trial of {num_trials} has completed, so there is nothing to go by; "
            f"go on with: tuning study resume {name}{again}"
        )
    noise = pooled_noise(evidence.completed)
    if evidence.is_too_little or evidence.is_flat:
        found = list(itertools.islice(_without_model(learned, evidence), num))
        best, spread, num_candidates = evidence.first, noise, 0
    else:
        modelled = _with_model(learned, evidence, noise, num)
        found, best, spread, num_candidates = modelled
    model = next((r.result.model for r in records if r.result.metrics), "")
    return Recommendations(
        study=name,
        model=model,
        focus=focus.value,
        focus_says=focus.says,
        best=label_of(learned, best.setting),
        num_configurations=len(evidence.completed),
        num_runs=evidence.num_runs,
        spread=None if spread is None else math.sqrt(spread),
        is_spread_known=noise is not None,
        num_candidates=num_candidates,
        notes=list(notes(learned, evidence, best, len(records), noise)),
        recommendations=found,
    )


def config_of(spec: StudySpec, recommendation: Recommendation, place: int) -> ExperimentConfig:
    """Return the configuration that runs exactly the recommended trial, steps already scaled.

    Args:
        spec: The study.
        recommendation: One of its recommendations.
        place: Its place in the list, from 1; part of the name.

    Raises:
        ConfigError: The name would be too long, or a value breaks a law.
    """
    learned = Learned(spec)
    config = learned.config(learned.setting(recommendation.parameters), recommendation.seed)
    raw = config.model_dump(mode="json")
    raw["experiment_name"] = experiment_name(spec.name, place)
    raw["training_config"]["num_threads"] = config.training_config.num_threads or spec.num_threads
    return build(raw, f"recommendation {place}")


def write_recommendations(root: ResultsRoot, found: Recommendations) -> Path:
    """Write the list to `transfer/{study}_recommendations.json` and return the path.

    Raises:
        ResultsError: The disk refuses.
    """
    path = root.recommendations(found.study)
    files.write_json(path, dataclasses.asdict(found))
    return path


# --- with a model -------------------------------------------------------------------------------


class _Modelled(NamedTuple):
    recommendations: list[Recommendation]
    best: Tried
    noise: float
    num_candidates: int


def _with_model(learned: Learned, evidence: Evidence, noise: float | None, num: int) -> _Modelled:
    tried = evidence.completed
    settings = [*(t.setting for t in tried), *candidates(learned, evidence)]
    seen = [*tried, *evidence.pruned]
    encoding = Encoding(learned.parameters, [*settings, *(t.setting for t in evidence.pruned)])
    surrogate = Surrogate(encoding, seen)
    before = surrogate.posterior(settings)
    best = int(before.mean_C[: len(tried)].argmax())
    seeds = {index: list(t.seeds) for index, t in enumerate(tried)}
    is_noisy = seeds_explain(noise_p_value(tried, noise))
    found = []
    now = before
    for place in range(num):
        values_C = knowledge_gradients(now, surrogate.noise)
        if is_noisy and 2 * place < num:
            # Corners that were never tried would look better by being unknown alone.
            values_C[len(tried) :] = -1.0
        chosen = _most_worth(values_C, now, surrogate.noise)
        own = seeds.setdefault(chosen, [])
        seed = _fresh(learned.spec.seed, own)
        kind = Kind.MORE_SEEDS if own else Kind.NEW
        found.append(
            _recommendation(
                learned,
                evidence,
                settings[chosen],
                kind,
                seed,
                _Expected.of(before, chosen, best, float(values_C[chosen])),
                reason_of(learned, seen, tried[best], surrogate, settings[chosen], len(own)),
            )
        )
        own.append(seed)
        now = believed(now, chosen, surrogate.noise)
    return _Modelled(found, tried[best], surrogate.noise, len(settings))


def _most_worth(values_C: np.ndarray, posterior: Posterior, noise: float) -> int:
    """Return the run that is worth most; of equals, to a thousandth of the spread, the best."""
    worth_C = np.round(values_C / math.sqrt(noise), 3)
    return int(np.where(worth_C == worth_C.max(), posterior.mean_C, -np.inf).argmax())


class _Expected(NamedTuple):
    """What the model says of a setting."""

    expected: float | None = None
    expected_sd: float | None = None
    gain: float | None = None
    gain_sd: float | None = None
    low: float | None = None
    high: float | None = None
    probability: float | None = None
    value: float | None = None

    @classmethod
    def of(cls, posterior: Posterior, chosen: int, best: int, value: float) -> _Expected:
        gain, sd = posterior.difference(chosen, best)
        variance = float(posterior.covariance_CC[chosen, chosen])
        half = special.ndtri(0.975) * sd
        return cls(
            expected=float(posterior.mean_C[chosen]),
            expected_sd=math.sqrt(max(0.0, variance)),
            gain=gain,
            gain_sd=sd,
            low=float(gain - half),
            high=float(gain + half),
            probability=float(special.ndtr(gain / sd)) if chosen != best and sd > 0 else None,
            value=value,
        )


def _recommendation(
    learned: Learned,
    evidence: Evidence,
    setting: Setting,
    kind: Kind,
    seed: int,
    expected: _Expected,
    reason: str,
) -> Recommendation:
    seconds = evidence.seconds(learned.config(setting, seed))
    return Recommendation(
        label=label_of(learned, setting),
        parameters=learned.difference(setting),
        kind=kind,
        seed=seed,
        seconds=None if seconds is None else round(seconds, 1),
        reason=reason,
        **expected._asdict(),
    )


# --- without a model ----------------------------------------------------------------------------


def _without_model(learned: Learned, evidence: Evidence) -> Iterator[Recommendation]:
    """Yield more seeds of the best and of the default, then values that were never tried."""
    best = evidence.first
    default = next((t for t in evidence.completed if not learned.difference(t.setting)), best)
    for tried in (best,) if default is best else (best, default):
        seed = _fresh(learned.spec.seed, tried.seeds)
        which = "the best so far" if tried is best else "the default, which others are judged by"
        reason = f"{which}, on {numbered(len(tried.objectives), 'seed')}: one more tells how lucky"
        nothing = _Expected()
        yield _recommendation(
            learned, evidence, tried.setting, Kind.MORE_SEEDS, seed, nothing, reason
        )
    known = {key_of(t.setting) for t in (*evidence.completed, *evidence.open)}
    for setting in neighbours(learned, default.setting):
        if key_of(setting) in known or not learned.is_legal(setting):
            continue
        known.add(key_of(setting))
        seed = learned.spec.seed
        name = next(n for n in setting if identity(setting[n]) != identity(default.setting[n]))
        reason = f"{said(name, setting)} has not been tried"
        yield _recommendation(learned, evidence, setting, Kind.NEW, seed, _Expected(), reason)


def _fresh(first: int, used: Sequence[int]) -> int:
    return next(seed for seed in itertools.count(first) if seed not in used)
