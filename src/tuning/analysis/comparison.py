"""Two studies side by side: what differs in what they were asked, and in what came out.

The studies are taken as independent samples. Where both asked the same words that is conservative:
words that are hard in one are hard in the other, and the true intervals are narrower.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuning.analysis.configurations import ConfigurationSummary
from tuning.analysis.verdict import interval_points
from tuning.mixed_effects import Estimate, independent_difference
from tuning.statistics import CONFIDENCE, holm
from tuning.tasks.items import SCORED_TASKS

if TYPE_CHECKING:
    from tuning.transfer_analysis import StudyAnalysis

OBJECTIVE = "objective"


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingDifference:
    """A setting that two studies do not share."""

    name: str
    a: str | None
    b: str | None
    """As JSON; None where a study does not have the setting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedQuantity:
    """One quantity in both studies."""

    quantity: str
    """A task, whose gain is compared, or objective."""
    reading: str
    """strict or choice; empty for the objective."""
    a: Estimate
    b: Estimate
    difference: Estimate
    """a minus b, as of independent samples (Welch)."""
    p_adjusted: float
    """Of the difference, Holm over all differences of the comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedPair:
    """A configuration of each study."""

    what: str
    """default or best."""
    label_a: str
    label_b: str
    quantities: Sequence[ComparedQuantity]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that is said of two studies together."""

    a: str
    b: str
    sentences: Sequence[str]
    settings: Sequence[SettingDifference]
    pairs: Sequence[ComparedPair]
    num_tests: int
    objectives_reason: str | None
    """Why objectives cannot be compared."""


def compare(a: StudyAnalysis, b: StudyAnalysis) -> Comparison:
    """Compare the defaults of two studies, and their best."""
    reason = _objectives_reason(a, b)
    pairs = _adjusted(
        [
            _pair(what, row_a, row_b, with_objective=reason is None)
            for what, row_a, row_b in (
                ("default", a.default, b.default),
                ("best", _best(a), _best(b)),
            )
            if row_a is not None and row_b is not None
        ]
    )
    bare = Comparison(
        a=a.study,
        b=b.study,
        sentences=(),
        settings=list(_differing(_settings(a), _settings(b))),
        pairs=pairs,
        num_tests=sum(len(pair.quantities) for pair in pairs),
        objectives_reason=reason,
    )
    return dataclasses.replace(bare, sentences=_sentences(a, b, bare))


def _best(analysis: StudyAnalysis) -> ConfigurationSummary | None:
    return next(iter(analysis.configurations), None)


def _objectives_reason(a: StudyAnalysis, b: StudyAnalysis) -> str | None:
    for what, of_a, of_b in (
        ("ranked by", a.focus_says, b.focus_says),
        ("weights", a.weights, b.weights),
        ("model", a.model, b.model),
    ):
        if of_a != of_b:
            of_a, of_b = (
                " and ".join(f"{x:g}" for x in v) if isinstance(v, tuple | list) else v
                for v in (of_a, of_b)
            )
            return f"objectives cannot be compared: {what} {of_a} in {a.study}, {of_b} in {b.study}"
    return None


# --- settings -----------------------------------------------------------------------------------

_OWN = ("experiment_name", "timestamp")
"""What no two studies share."""


def _settings(analysis: StudyAnalysis) -> dict[str, str]:
    config = analysis.provenance.get("default configuration", {})
    known = {
        "study: model": analysis.model,
        "study: space": analysis.strategy,
        "study: ranked by": analysis.focus_says,
        "study: weights of position and count": list(analysis.weights),
        "study: step scale": analysis.step_scale,
        "study: seed": analysis.provenance.get("seed"),
        "study: planned trials": analysis.num_planned,
        **{name: value for name, value in _flat(config, "") if name not in _OWN},
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in known.items()}


def _flat(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[SettingDifference]:
    for name in dict.fromkeys((*a, *b)):
        if a.get(name) != b.get(name):
            yield SettingDifference(name=name, a=a.get(name), b=b.get(name))


# --- results ------------------------------------------------------------------------------------


def _pair(
    what: str, a: ConfigurationSummary, b: ConfigurationSummary, *, with_objective: bool
) -> ComparedPair:
    found = []
    for task in SCORED_TASKS:
        gain_a, gain_b = a.gains[task.value], b.gains[task.value]
        found.append(_compared(task.value, "strict", gain_a.gain, gain_b.gain))
        if gain_a.choice is not None and gain_b.choice is not None:
            found.append(_compared(task.value, "choice", gain_a.choice, gain_b.choice))
    if with_objective:
        found.append(_compared(OBJECTIVE, "", a.objective, b.objective))
    return ComparedPair(what=what, label_a=a.label, label_b=b.label, quantities=found)


def _compared(quantity: str, reading: str, a: Estimate, b: Estimate) -> ComparedQuantity:
    return ComparedQuantity(
        quantity=quantity,
        reading=reading,
        a=a,
        b=b,
        difference=independent_difference(a, b),
        p_adjusted=1.0,
    )


def _adjusted(pairs: Sequence[ComparedPair]) -> list[ComparedPair]:
    adjusted = iter(holm([q.difference.p_value for pair in pairs for q in pair.quantities]))
    return [
        dataclasses.replace(
            pair,
            quantities=[dataclasses.replace(q, p_adjusted=next(adjusted)) for q in pair.quantities],
        )
        for pair in pairs
    ]


# --- in words -----------------------------------------------------------------------------------


def _sentences(a: StudyAnalysis, b: StudyAnalysis, found: Comparison) -> list[str]:
    empty = [x.study for x in (a, b) if not x.configurations]
    if empty:
        return [f"No trial of {' and '.join(empty)} completed: there is nothing to compare."]
    sentences = [_headline(found)]
    for pair in found.pairs:
        gains = ", ".join(
            f"{q.quantity} {interval_points(q.difference)}"
            for q in pair.quantities
            if q.reading == "strict"
        )
        sentences.append(
            f"{pair.what.capitalize()} of {a.study} ({pair.label_a}) minus {pair.what} of "
            f"{b.study} ({pair.label_b}), strict gains in points with 95 % intervals: {gains}."
        )
    if a.default is None or b.default is None:
        lacking = " and ".join(x.study for x in (a, b) if x.default is None)
        sentences.append(f"The default of {lacking} did not complete and is not compared.")
    sentences.append(
        "The studies are taken as independent (Welch). "
        + (
            "Both asked suites of one kind and size: where the words are the same, the true "
            "intervals are narrower than these."
            if _same_suite(a, b)
            else "They asked different suites: levels are not comparable, gains are each against "
            "their own untouched model."
        )
    )
    if a.model != b.model:
        sentences.append(f"They trained different models: {a.model}, and {b.model}.")
    sentences.append(
        "Each best was chosen on the words it is reported on, so both are flattered, and the one "
        "chosen among more is flattered more."
    )
    if found.objectives_reason is not None:
        sentences.append(f"{found.objectives_reason[:1].upper()}{found.objectives_reason[1:]}.")
    return sentences


def _headline(found: Comparison) -> str:
    told_apart = [
        f"{pair.what}, {q.quantity} ({q.reading or 'score'}): "
        f"{found.a if q.difference.value > 0 else found.b} is higher"
        for pair in found.pairs
        for q in pair.quantities
        if q.p_adjusted < 1 - CONFIDENCE
    ]
    tests = f"Holm over {found.num_tests} comparisons"
    if not told_apart:
        return f"{found.a} and {found.b} cannot be told apart in anything compared ({tests})."
    return f"{found.a} and {found.b} differ ({tests}): {'; '.join(told_apart)}."


def _same_suite(a: StudyAnalysis, b: StudyAnalysis) -> bool:
    sections = [
        x.provenance.get("default configuration", {}).get("evaluation_config") for x in (a, b)
    ]
    sizes = [
        {task: (found.base.num_items, found.base.num_words) for task, found in x.tasks.items()}
        for x in (a, b)
    ]
    return sections[0] == sections[1] and sizes[0] == sizes[1] and a.model == b.model
