"""What a user asks of a study, from options to a checked `StudySpec`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuning.cli import options
from tuning.errors import UserError, nearest, shown
from tuning.scoring import Focus

if TYPE_CHECKING:
    from tuning.config import ExperimentConfig
    from tuning.search_space import SearchSpace
    from tuning.study import StudySpec

ARMS = "arms"
"""The name of a study that has no space, only arms."""


@dataclass(frozen=True, kw_only=True)
class StudyRequest:
    """What a user asks of a study."""

    name: str
    space: str | SearchSpace | None
    """By name, or itself. None is the default alone, in the arms that are asked for."""
    arms: Sequence[str] | None = None
    replicates: int | None = None
    config: Path | None = None
    overrides: Sequence[str] = ()
    focus: Focus | None = None
    step_scale: float | None = None
    num_trials: int | None = None
    seed: int = 0
    max_failures: int = 5
    pruning: str | None = None
    deterministic: bool = False
    results_dir: Path = options.RESULTS_DIR
    config_dir: Path = options.CONFIG_DIR


def make_spec(request: StudyRequest) -> StudySpec:
    """Return what a study is asked to do, checked before anything heavy is loaded.

    Raises:
        UserError: The space, the configuration or the model's name cannot be used.
    """
    from tuning.cli.trial import check_model
    from tuning.composition import overridden
    from tuning.grid import load_space
    from tuning.model.hub import check_name
    from tuning.study import StudySpec
    from tuning.tasks.words import read_word_list

    if request.space is None:
        space = _default_alone(request)
    elif isinstance(request.space, str):
        space = load_space(request.space, [request.config_dir])
    else:
        space = request.space
    space = _with_options(space, request)
    base = overridden(
        _base(request, space),
        [*request.overrides, *options.focus_overrides(request.focus)],
        [request.config_dir],
    )
    check_model(base)
    _check_arms(request, base)
    spec = StudySpec(
        name=request.name,
        space=space,
        base=base,
        focus=request.focus or Focus.BALANCED,
        step_scale=space.step_scale if request.step_scale is None else request.step_scale,
        seed=request.seed,
        max_failures=request.max_failures,
        deterministic=request.deterministic,
    )
    plan = spec.plan()
    plan.check_sampler()
    for name in plan.varied("tokenizer_config.model_name"):
        check_name(name)
    for words in {base.spelling_config.word_list, *plan.varied("spelling_config.word_list")}:
        if words is not None:
            read_word_list(Path(words))
    return spec


def _default_alone(request: StudyRequest) -> SearchSpace:
    """Return the space of the default configuration alone.

    Raises:
        UserError: No arms were asked for, so there is nothing to compare.
    """
    from tuning.pruning import Pruning
    from tuning.search_space import SearchSpace, Strategy

    if request.arms is None:
        raise UserError(
            "study run needs --space NAME, what is varied, or --arms ARM,ARM, in which arms the "
            "default is trained"
        )
    return SearchSpace(strategy=Strategy.LISTED, pruning=Pruning.NONE)


def arms_of(text: str) -> list[str]:
    """Return the arms that a user names, separated by commas.

    Raises:
        UserError: There is no such arm, or one stands twice.
    """
    from tuning.tasks.stream import Arm

    named = [name.strip() for name in text.split(",")]
    for name in named:
        if name not in list(Arm):
            raise UserError(f"--arms: {shown(name)} is no arm; {nearest(name, Arm)}")
        if named.count(name) > 1:
            raise UserError(f"--arms: {name} stands twice, got {text}")
    return named


def _check_arms(request: StudyRequest, base: ExperimentConfig) -> None:
    """Refuse arms without the configuration's own, with which the others are compared."""
    own = base.spelling_config.arm.value
    if request.arms is not None and own not in request.arms:
        raise UserError(
            f"--arms must contain {own}, the arm of the configuration itself, got "
            f"{','.join(request.arms)}; the override arm=ARM gives it another"
        )


def _with_options(space: SearchSpace, request: StudyRequest) -> SearchSpace:
    from tuning.grid import parse_space

    raw = space.model_dump(mode="json", by_alias=True)
    if request.num_trials is not None:
        space = parse_space({**raw, "num_trials": request.num_trials}, lambda key: "--num-trials")
    if request.pruning is not None and request.pruning.replace("-", "_") != space.pruning:
        # Arguments belong to the pruner that the file names.
        chosen = {"pruning": request.pruning, "pruning_arguments": {}}
        raw = space.model_dump(mode="json", by_alias=True)
        space = parse_space({**raw, **chosen}, lambda key: "--pruning")
    changed: dict[str, Any] = {}
    if request.arms is not None:
        changed["arms"] = request.arms
    if request.replicates is not None:
        changed |= dict.fromkeys(("replicates", "replicates_of_default"), request.replicates)
    raw = space.model_dump(mode="json", by_alias=True)
    return parse_space({**raw, **changed}, lambda key: f"--{key[0]}")


def _base(request: StudyRequest, space: SearchSpace) -> ExperimentConfig:
    """Return the default configuration: the user's file, or the space's own."""
    from datetime import UTC, datetime

    from tuning.composition import load
    from tuning.config import build
    from tuning.grid import base_experiment
    from tuning.paths import ResultsRoot
    from tuning.study import existing_timestamp

    now = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    stamp = existing_timestamp(ResultsRoot(request.results_dir), request.name) or now
    if request.config is None:
        return base_experiment(space, request.name, stamp)
    loaded = load(request.config, (), [request.config_dir]).model_dump(mode="json")
    return build({**loaded, "experiment_name": request.name, "timestamp": stamp}, "--name")


def stopping_says(spec: StudySpec) -> str:
    """Return whether trials of a study are stopped early, and by how many words."""
    from tuning.pruning import Pruning

    pruning = spec.space.pruning
    if pruning is Pruning.NONE:
        return "no trial is stopped early"
    words = spec.base.evaluation_config.num_monitor_words
    says = (
        f"poor trials are stopped early ({pruning.value}, by a monitor of {words} words; never the "
        f"default): --pruning none lets all come to their end"
    )
    if words >= _FEW_WORDS:
        return says
    # Half the 95 % interval of a share of one half.
    unsure = 98 / words**0.5
    return f"{says}; one look at so few is unsure by {unsure:.0f} points, so luck decides much"


_FEW_WORDS = 50
