"""Direct effects of a one-at-a-time design: each variation against the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuning.analysis.configurations import Standing, Table
from tuning.measures import STRICT
from tuning.mixed_effects import Estimate, difference
from tuning.ranking import Contender, short
from tuning.statistics import benjamini_hochberg
from tuning.study import contenders
from tuning.tasks.items import SCORED_TASKS


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectEffect:
    """What one changed value does, all others as in the default."""

    parameter: str
    value: str
    target: str
    """A task, whose strict accuracy is compared, or objective."""
    effect: Estimate
    q_value: float
    """Benjamini-Hochberg over all effects of the study."""


def direct_effects(table: Table) -> list[DirectEffect]:
    """Return the effects of all configurations that differ from the default in one value.

    Configurations that train the default's own weights have none.
    """
    standing = table.standing
    records = list(standing.records.values())
    by_id = {tuple(c.trial_ids): c for c in contenders(standing.spec, records)}
    default = table.default
    if default is None:
        return []
    base = by_id[tuple(default.trial_ids)]
    found = []
    for row in table.ranked:
        if len(row.parameters) != 1 or row.same_weights_as == default.label:
            continue
        ((name, value),) = row.parameters.items()
        other = by_id[tuple(row.trial_ids)]
        for target, effect in _effects(standing, other, base):
            found.append((name, short(value), target, effect))
    q_values = benjamini_hochberg([effect.p_value for *_, effect in found])
    return [
        DirectEffect(parameter=name, value=value, target=target, effect=effect, q_value=q_value)
        for (name, value, target, effect), q_value in zip(found, q_values, strict=True)
    ]


def _effects(
    standing: Standing, other: Contender, default: Contender
) -> Sequence[tuple[str, Estimate]]:
    effects = [
        (
            task.value,
            difference(
                standing.gains(other, task, STRICT),
                standing.gains(default, task, STRICT),
                standing.spread[f"{task}/{STRICT}"],
            ),
        )
        for task in SCORED_TASKS
    ]
    objective = difference(
        standing.objectives(other), standing.objectives(default), standing.spread["objective"]
    )
    return [*effects, ("objective", objective)]
