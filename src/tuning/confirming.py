"""The winners of a study once more, on fresh seeds: what choosing by luck added falls away.

The first of a ranking is first partly by the luck of its seeds. A confirmation trains it and the
default on seeds that chose nothing, as a study of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuning.errors import UserError
from tuning.files import sha256_of_json
from tuning.paths import ResultsRoot
from tuning.pruning import Pruning
from tuning.ranking import Contender
from tuning.records import TrialRecord
from tuning.search_space import SearchSpace, Strategy
from tuning.study import StudySpec, load_study, ranking, read_spec


class Confirmation(NamedTuple):
    """A study that confirms another one."""

    spec: StudySpec
    is_begun: bool
    """Whether its folder is there, so that running it goes on with it."""
    num_unfinished: int
    """Trials that the confirmed study has left: its winners may change."""


def confirmation(
    root: ResultsRoot, name: str, new_name: str, num_seeds: int, num_winners: int
) -> Confirmation:
    """Return the study that trains the winners of another one again, new or begun before.

    Args:
        root: All results hang off it.
        name: The study whose winners are trained again.
        new_name: The study that trains them.
        num_seeds: Fresh seeds of each winner, and of the default.
        num_winners: Configurations from the first of the ranking on.

    Raises:
        NotFoundError: There is no such study.
        ResultsError: A file of it is damaged.
        UserError: It is a confirmation itself, no trial of it has completed, or another study,
            or a confirmation of something else, has the new name.
    """
    spec, records = load_study(root, name)
    made = confirming(spec, records, new_name, num_seeds, num_winners)
    left = spec.plan().num_trials - len(records)
    folder = root.study(new_name)
    if not folder.spec.exists():
        return Confirmation(made, is_begun=False, num_unfinished=left)
    stored = read_spec(folder)
    _check_same(stored, made)
    return Confirmation(stored, is_begun=True, num_unfinished=left)


def confirming(
    spec: StudySpec,
    records: Sequence[TrialRecord],
    new_name: str,
    num_seeds: int,
    num_winners: int,
) -> StudySpec:
    """Return what a study is asked that trains the winners of another one again.

    Args:
        spec: The study whose winners are trained again.
        records: Of its finished trials.
        new_name: Name of the new study.
        num_seeds: Seeds of each winner and of the default; none was used in the study before.
        num_winners: Configurations from the first of the ranking on; the default is trained anyway.

    Raises:
        UserError: It is a confirmation itself, or no trial of it has completed.
    """
    if spec.confirms is not None:
        raise UserError(
            f"study {spec.name} confirms {spec.confirms} itself; confirm that one with more "
            f"--seeds, and --as another name"
        )
    ranked = ranking(spec, records)
    if not ranked:
        raise UserError(
            f"study {spec.name}: no trial has completed, so there is no winner to confirm"
        )
    winners = [r.contender.parameters for r in ranked[:num_winners] if not r.contender.is_default]
    used = max(spec.plan().last_seed, *(record.seed for record in records))
    return StudySpec(
        name=new_name,
        space=SearchSpace(
            strategy=Strategy.LISTED,
            configurations=[dict(parameters) for parameters in winners],
            replicates=num_seeds,
            replicates_of_default=num_seeds,
            pruning=Pruning.NONE,
            step_scale=spec.step_scale,
        ),
        base=spec.base,
        focus=spec.focus,
        step_scale=spec.step_scale,
        seed=used + 1,
        max_failures=spec.max_failures,
        num_threads=spec.num_threads,
        score_weights=spec.score_weights,
        confirms=spec.name,
    )


def says_winners(spec: StudySpec) -> str:
    """Return the configurations that a confirmation trains beside the default, in words."""
    labels = [_label(parameters) for parameters in spec.space.configurations]
    return "; ".join(labels) or "the default alone"


def _label(parameters: Mapping[str, Any]) -> str:
    return Contender(parameters=parameters, trial_ids=[], objectives=[]).label


def _identities(spec: StudySpec) -> set[str]:
    return {sha256_of_json(configuration) for configuration in spec.space.configurations}


def _check_same(stored: StudySpec, made: StudySpec) -> None:
    """Refuse to go on with a confirmation of something else.

    Raises:
        UserError: It is one.
    """
    name, of = stored.name, made.confirms
    if stored.confirms != of:
        raise UserError(f"study {name} exists and is no confirmation of {of}; choose another --as")
    instead = f"go on with it by tuning study resume {name}, or choose another name with --as"
    if _identities(stored) != _identities(made):
        raise UserError(
            f"study {name} confirms {says_winners(stored)}, but the first of study {of} now: "
            f"{says_winners(made)}; {instead}"
        )
    old, new = stored.space.replicates, made.space.replicates
    if old != new:
        raise UserError(f"study {name} began with --seeds {old}, got {new}; {instead}")
    for field in ("base", "focus", "step_scale", "seed", "score_weights"):
        if getattr(stored, field) != getattr(made, field):
            what = field.replace("_", " ")
            raise UserError(f"study {name} began when {of} had another {what}; {instead}")
