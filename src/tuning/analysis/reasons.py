"""Why a run is recommended: one sentence from what the model expects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from tuning.analysis.evidence import MIN_CONFIGURATIONS, Evidence, Learned, Setting, Tried
from tuning.analysis.surrogate import Surrogate, noise_p_value, seeds_explain
from tuning.analysis.table import identity
from tuning.errors import numbered
from tuning.ranking import Contender, short


def reason_of(
    learned: Learned,
    tried: Sequence[Tried],
    best: Tried,
    surrogate: Surrogate,
    setting: Setting,
    num_seeds: int,
) -> str:
    """Return why a run of a setting is recommended.

    Args:
        learned: The hyperparameters of the study.
        tried: Everything with a result, and what was stopped early.
        best: The best of it, by the model.
        surrogate: The model.
        setting: What is recommended.
        num_seeds: Seeds of it that ended, are planned, or stand above it in the list.
    """
    own = next((t for t in tried if _same(t.setting, setting)), None)
    if own is not None:
        return _more_seeds(own, own is best, surrogate, num_seeds)
    if num_seeds:
        return "one run of it, recommended above, would leave luck open; a second seed tells"
    return _new(learned, tried, best, surrogate, setting)


def said(name: str, setting: Setting) -> str:
    """Return a hyperparameter and its value."""
    return f"{name} {short(setting[name])}"


def points(difference: float, digits: int = 1) -> str:
    """Return a difference of objectives in hundredths, with its sign."""
    text = f"{100 * difference:+.{digits}f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def _more_seeds(own: Tried, is_best: bool, surrogate: Surrogate, num_seeds: int) -> str:
    who = "expected to be the best so far" if is_best else "perhaps the best"
    spread = f"{100 * math.sqrt(surrogate.noise):.1f} points"
    if len(own.objectives) == 1 and num_seeds == 1:
        return f"{who}, but its single run may be luck: the spread over seeds is {spread}"
    runs = f"{num_seeds} seeds" if num_seeds > 1 else "1 seed"
    left = 100 * math.sqrt(surrogate.noise / num_seeds)
    return (
        f"{who}, but with a spread over seeds of {spread}, {runs} leave its mean open by "
        f"{left:.1f} points"
    )


def _new(
    learned: Learned,
    tried: Sequence[Tried],
    best: Tried,
    surrogate: Surrogate,
    setting: Setting,
) -> str:
    changed = [n for n in setting if identity(setting[n]) != identity(best.setting[n])]
    alone = [
        learned.full(learned.points.existing({**best.setting, name: setting[name]}))
        for name in changed
    ]
    posterior = surrogate.posterior([best.setting, *alone, setting])
    gains = posterior.mean_C[1:-1] - posterior.mean_C[0]
    first = int(gains.argmax())
    name, gain = changed[first], float(gains[first])
    total, spread = posterior.difference(len(changed) + 1, 0)
    if total <= 0:
        return (
            f"not expected to beat the best ({points(total)} points), but that is unsure by "
            f"{100 * spread:.1f} points, so that a run tells much"
        )
    if 100 * gain < 0.05:
        return (
            f"only together are {_listed(changed, setting)} expected to give {points(total)} points"
        )
    expected = f"{said(name, setting)} alone is expected to give {points(gain)} points"
    others = [n for n in changed if n != name and not _together(tried, setting, name, n)]
    if others:
        verb = "has" if len(others) == 1 else "have"
        return f"{expected}; {_listed(others, setting)} {verb} not been tried with it"
    if not any(identity(t.setting[name]) == identity(setting[name]) for t in tried):
        return f"{expected}; it has not been tried at all"
    return f"{expected}; it has not been tried with the other values of the best"


def _listed(names: Sequence[str], setting: Setting) -> str:
    shown = [said(name, setting) for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _together(tried: Sequence[Tried], setting: Setting, *names: str) -> bool:
    return any(all(identity(t.setting[n]) == identity(setting[n]) for n in names) for t in tried)


def _same(a: Setting, b: Setting) -> bool:
    return all(identity(a[name]) == identity(b[name]) for name in b)


# --- what to know before trusting it ------------------------------------------------------------


def notes(
    learned: Learned, evidence: Evidence, best: Tried, num_records: int, noise: float | None
) -> Iterator[str]:
    """Yield what a reader should know before trusting recommendations.

    Args:
        learned: The hyperparameters of the study.
        evidence: What was tried.
        best: The best of it, by the model.
        num_records: Trials of the study that ended.
        noise: Variance between seeds; None if nothing was repeated.
    """
    yield from _of_the_model(learned, evidence, best, noise)
    spec = learned.spec
    if (open_trials := spec.plan().num_trials - num_records) > 0:
        yield (
            f"Without a result yet: {numbered(open_trials, 'planned trial')}, none of which is "
            f"recommended: tuning study resume {spec.name}"
        )
    if evidence.pruned:
        yield (
            f"Stopped early for being poor, and taken for no better than the worst that was "
            f"completed: {numbered(len(evidence.pruned), 'configuration')}."
        )
    if evidence.num_followups:
        yield f"{numbered(evidence.num_followups, 'trial')} of recommended files counted too."
    if learned.left_out:
        yield f"Trains nothing, so stays at the default: {', '.join(learned.left_out)}."
    if spec.base.tokenizer_config.model_name == "tiny":
        yield (
            "All of this was measured on tiny, a model made to exercise the program: it is no "
            "evidence about Qwen3-4B or any other model."
        )


def _of_the_model(
    learned: Learned, evidence: Evidence, best: Tried, noise: float | None
) -> Iterator[str]:
    tried = evidence.completed
    p_value = noise_p_value(tried, noise)
    if evidence.is_too_little:
        yield (
            f"Too few results for a model: {len(tried)} of at least {MIN_CONFIGURATIONS} distinct "
            f"configurations have completed, so nothing is expected of the runs below."
        )
    elif evidence.is_flat:
        yield "All configurations have the same result, so there is nothing to model."
    elif seeds_explain(p_value):
        yield (
            f"Configurations differ no more than seeds alone could make them differ (F test, "
            f"p = {p_value:.2f}): more seeds come first, and the rest is exploration."
        )
    if (first := evidence.first) is not best:
        yield (
            f"{label_of(learned, first.setting)} has the best mean, on "
            f"{numbered(len(first.objectives), 'seed')}, but the model expects more of "
            f"{label_of(learned, best.setting)}."
        )
    if noise is None:
        yield (
            "No configuration was repeated, so the spread between seeds is a guess; repeat one to "
            "know it."
        )


def label_of(learned: Learned, setting: Setting) -> str:
    """Return a short name of a setting: what differs from the default."""
    parameters = learned.difference(setting)
    return Contender(parameters=parameters, trial_ids=[], objectives=[]).label
