"""What a trial is expected to teach about the best: for its place in a queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuning.analysis.candidates import key_of
from tuning.analysis.evidence import Learned, Setting, read_evidence
from tuning.analysis.surrogate import Encoding, Surrogate, knowledge_gradients
from tuning.paths import ResultsRoot
from tuning.study import load_study


class Impact(NamedTuple):
    """How much a trial is expected to be worth."""

    points: float
    """By how many points one run of it is expected to raise the best mean that is known."""
    why: str


def expected_impacts(
    root: ResultsRoot, study: str, asked: Sequence[Mapping[str, Any]]
) -> list[Impact] | None:
    """Return what each configuration is expected to be worth, by the results of a study.

    The worth is the knowledge gradient of the model that also recommends configurations.

    Args:
        root: All results hang off it.
        study: Whose results the model learns from.
        asked: What differs from the default in each configuration.

    Returns:
        None where the study has too few results for a model, or where they do not differ.

    Raises:
        UserError: There is no such study, or a record of it is damaged.
    """
    spec, records = load_study(root, study)
    learned = Learned(spec)
    evidence = read_evidence(root, learned, records, spec.focus)
    if not evidence.completed or evidence.is_too_little or evidence.is_flat:
        return None
    tried = evidence.completed
    asked_for: list[Setting] = [learned.setting(parameters) for parameters in asked]
    settings: dict[str, Setting] = {key_of(t.setting): t.setting for t in tried}
    for setting in asked_for:
        settings.setdefault(key_of(setting), setting)
    keys = list(settings)
    seen = [*tried, *evidence.pruned]
    encoding = Encoding(learned.parameters, [*settings.values(), *(t.setting for t in seen)])
    surrogate = Surrogate(encoding, seen)
    posterior = surrogate.posterior(list(settings.values()))
    values_C = knowledge_gradients(posterior, surrogate.noise)
    basis = f"{len(tried)} configurations of study {study}"
    found = []
    for setting in asked_for:
        points = 100 * float(values_C[keys.index(key_of(setting))])
        found.append(Impact(points, f"worth {points:.2f} points, by a model of {basis}"))
    return found
