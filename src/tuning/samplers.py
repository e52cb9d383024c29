"""Who proposes points: independent draws, Sobol, Optuna's TPE and GP, or a class of the user's own.

A sampler holds nothing. What it proposes is a function of the space, the seed, the number of the
draw and what has been seen, so that a study goes on after any interruption as if there were none.
"""

from __future__ import annotations

import importlib
import itertools
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tuning.errors import ConfigError, NotFoundError, UserError, nearest, shown
from tuning.files import sha256_of_json
from tuning.points import Parameter, Point, Points, exists
from tuning.search_space import (
    SAMPLERS,
    GpArguments,
    SearchSpace,
    SobolArguments,
    TpeArguments,
    offered_samplers,
)


class Seen(NamedTuple):
    """A point that was proposed before."""

    point: Mapping[str, Any]
    objectives: tuple[float, ...] | None
    """One for each objective, higher is better; None if it was stopped, failed or still runs."""
    is_running: bool = False
    is_pruned: bool = False
    """Stopped early for being poor, so without objectives and yet no place to go back to."""


class Sampler(Protocol):
    """Proposes points; a class of the user's own needs this one method."""

    def propose(
        self, points: Points, index: int, seed: int, seen: Sequence[Seen]
    ) -> Mapping[str, Any]:
        """Return a point.

        Args:
            points: The space: `parameters`, `count`, `at(index)`, `from_units(...)`.
            index: Number of the draw, from 0.
            seed: A number of this draw's own; the same for the same study, seed and draw.
            seen: What was proposed before, in order. Empty where results do not matter.
        """


def sampler_of(space: SearchSpace) -> Sampler:
    """Return the sampler that a space names, other than uniform and sobol, which are sequences.

    Raises:
        NotFoundError: There is no such sampler.
        ConfigError: It cannot be made.
    """
    name, arguments = space.sampler_name, space.sampler_arguments
    if name in ("tpe", "gp"):
        settings = SAMPLERS[name].model_validate(arguments)
        assert isinstance(settings, TpeArguments | GpArguments)
        return _Optuna(settings, max(1, len(space.objectives)))
    made = _own_class(name)
    try:
        sampler = made(**arguments)
    except Exception as error:
        raise ConfigError(f"sampler {name} cannot be made: {_says(error)}") from error
    if not callable(getattr(sampler, "propose", None)):
        raise ConfigError(f"sampler {name} has no method propose(points, index, seed, seen)")
    return sampler  # type: ignore[no-any-return]


def _own_class(name: str) -> Any:
    offered = {point.name: point for point in offered_samplers()}
    try:
        if name in offered:
            return offered[name].load()
        module, separator, attribute = name.partition(":")
        if not separator:
            known = nearest(name, [*SAMPLERS, *offered])
            raise NotFoundError(
                f"sampler {shown(name)[1:-1]}: no such sampler; {known}, or module:name"
            )
        return getattr(importlib.import_module(module), attribute)
    except UserError:
        raise
    except Exception as error:
        raise ConfigError(f"sampler {name} cannot be imported: {_says(error)}") from error


def _says(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# --- proposing --------------------------------------------------------------------------------


def propose(
    sampler: Sampler, points: Points, index: int, seed: int, seen: Sequence[Seen], default: Point
) -> Point:
    """Return a point that is neither the default nor was proposed before.

    Args:
        sampler: Asked a few times, if need be; then a random new point is taken.
        points: The space.
        index: Number of the proposal, from 0.
        seed: Of the study.
        seen: What was proposed before, in order.
        default: The default configuration in the space's parameters.

    Raises:
        ConfigError: The sampler fails, its point is none of the space's, or no point is left.
    """
    taken = {_identity(default), *(_identity(s.point) for s in seen)}
    for attempt in range(_ATTEMPTS):
        own_seed = int(sha256_of_json([seed, index, attempt])[:8], 16)
        try:
            point = points.plain(sampler.propose(points, index, own_seed, seen))
        except Exception as error:
            name = type(sampler).__name__
            raise ConfigError(
                f"sampler {name} failed at proposal {index}: {_says(error)}"
            ) from error
        if _identity(point) not in taken:
            return point
    for point in itertools.islice(random_points(points, seed), _MAX_MISSES):
        if _identity(point) not in taken:
            return point
    raise ConfigError(f"all points of the space are used up after {index} proposals")


_ATTEMPTS = 10
_MAX_MISSES = 10_000
"""Draws without a new point after which there is none."""


def draws(space: SearchSpace, points: Points, seed: int, default: Point) -> Iterator[Point]:
    """Yield the points of a search that does not look at results: none twice, none the default.

    Raises:
        ConfigError: The user's own sampler fails, or no point is left.
    """
    if space.sampler_name == "uniform":
        candidates = random_points(points, seed)
    elif space.sampler_name == "sobol":
        settings = SobolArguments.model_validate(space.sampler_arguments)
        # Where points are few, a sequence comes back to the same ones; the rest is drawn.
        candidates = itertools.chain(
            _sobol_points(points, seed, settings), random_points(points, seed)
        )
    else:
        yield from _own_draws(sampler_of(space), points, seed, default)
        return
    taken = {_identity(default)}
    misses = 0
    for point in candidates:
        identity = _identity(point)
        if identity not in taken:
            taken.add(identity)
            misses = 0
            yield point
        elif (misses := misses + 1) == _MAX_MISSES:
            break
    if points.is_countable:
        raise ConfigError(f"all {points.count} points of the space are used up")
    raise ConfigError(
        f"no new point in {_MAX_MISSES:,} draws; real values are drawn with four digits, and those "
        f"of the space are used up"
    )


def _own_draws(sampler: Sampler, points: Points, seed: int, default: Point) -> Iterator[Point]:
    seen: list[Seen] = []
    while True:
        seen.append(Seen(propose(sampler, points, len(seen), seed, seen, default), None))
        yield dict(seen[-1].point)


def _identity(point: Mapping[str, Any]) -> str:
    return sha256_of_json(sorted(point.items()))


def random_points(points: Points, seed: int) -> Iterator[Point]:
    """Yield random points: all of them, each once, unless a range is uniform in its logarithm."""
    if points.is_countable and not any(p.is_log for p in points.parameters):
        for index in range(points.count):
            yield points.shuffled(index, seed)
        return
    most = 100 * points.count if points.is_countable else None
    index = 0
    while most is None or index < most:
        generator = random.Random(f"{seed}/{index}")
        yield points.from_units([generator.random() for _ in points.parameters])
        index += 1


def _sobol_points(points: Points, seed: int, settings: SobolArguments) -> Iterator[Point]:
    from scipy.stats import qmc

    engine = qmc.Sobol(len(points.parameters), scramble=settings.scramble, rng=seed)
    most = 100 * points.count if points.is_countable else None
    drawn = 0
    while most is None or drawn < most:
        # A power of two keeps the sequence balanced.
        for units in engine.random(_SOBOL_BLOCK):
            yield points.from_units([float(u) for u in units])
        drawn += _SOBOL_BLOCK


_SOBOL_BLOCK = 64


# --- Optuna -----------------------------------------------------------------------------------


class _Optuna:
    """Optuna as proposer only: a study in memory, made anew for every proposal."""

    def __init__(self, settings: TpeArguments | GpArguments, num_objectives: int) -> None:
        self._settings = settings
        self._num_objectives = num_objectives

    def propose(self, points: Points, index: int, seed: int, seen: Sequence[Seen]) -> Point:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = optuna.create_study(
                directions=["maximize"] * self._num_objectives,
                sampler=self._sampler(seed),
                pruner=optuna.pruners.NopPruner(),
            )
            known = [s._replace(objectives=_worst(seen)) if s.is_pruned else s for s in seen]
            study.add_trials([t for s in known if (t := self._trial(points, s)) is not None])
            trial = study.ask()
            found: Point = {}
            for parameter in points.parents_first:
                if exists(parameter, found):
                    found[parameter.name] = _suggested(trial, parameter)
        return {p.name: found[p.name] for p in points.parameters if p.name in found}

    def _sampler(self, seed: int) -> Any:
        import optuna

        settings = self._settings
        if isinstance(settings, GpArguments):
            return optuna.samplers.GPSampler(
                seed=seed,
                n_startup_trials=settings.num_startup_trials,
                deterministic_objective=settings.deterministic_objective,
            )
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=settings.num_startup_trials,
            n_ei_candidates=settings.num_ei_candidates,
            multivariate=settings.multivariate,
            group=settings.group and settings.multivariate,
            constant_liar=settings.constant_liar,
        )

    def _trial(self, points: Points, seen: Seen) -> Any:
        """Return what was seen as a trial of Optuna; None for what tells it nothing."""
        import optuna

        known = {n: v for n, v in seen.point.items() if points.by_name[n].holds(v)}
        if len(known) < len(seen.point) or not (seen.objectives or seen.is_running):
            return None
        state = optuna.trial.TrialState
        return optuna.trial.create_trial(
            state=state.RUNNING if seen.objectives is None else state.COMPLETE,
            values=seen.objectives,
            params={n: _inner(points.by_name[n], v) for n, v in known.items()},
            distributions={n: _distribution(points.by_name[n]) for n in known},
        )


def _worst(seen: Sequence[Seen]) -> tuple[float, ...] | None:
    """Return the lowest value of each objective: what a trial that was stopped early stands at.

    What it would have come to is not known; that it was behind the others is.
    """
    found = [s.objectives for s in seen if s.objectives]
    return tuple(map(min, zip(*found, strict=True))) if found else None


def _is_ordered(parameter: Parameter) -> bool:
    """Whether candidates are numbers that rise, so that a model may take them as a scale."""
    numbers = [v for v in parameter.values if isinstance(v, int | float) and v is not True]
    return len(numbers) == len(parameter.values) and numbers == sorted(numbers)


def _distribution(parameter: Parameter) -> Any:
    """Return what Optuna models: places in the list of candidates, or the range itself."""
    import optuna

    if parameter.values:
        last = len(parameter.values) - 1
        if _is_ordered(parameter):
            return optuna.distributions.IntDistribution(0, last)
        return optuna.distributions.CategoricalDistribution(tuple(range(last + 1)))
    low, high, is_log = parameter.low, parameter.high, parameter.is_log
    if parameter.is_integer:
        step = 1 if is_log else int(parameter.step or 1)
        return optuna.distributions.IntDistribution(int(low), int(high), log=is_log, step=step)
    width = None if is_log else parameter.step
    return optuna.distributions.FloatDistribution(low, high, log=is_log, step=width)


def _inner(parameter: Parameter, value: Any) -> Any:
    return parameter.index_of(value) if parameter.values else value


def _suggested(trial: Any, parameter: Parameter) -> Any:
    import optuna

    name, distribution = parameter.name, _distribution(parameter)
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return parameter.values[trial.suggest_categorical(name, distribution.choices)]
    low, high = distribution.low, distribution.high
    if isinstance(distribution, optuna.distributions.IntDistribution):
        number = trial.suggest_int(name, low, high, step=distribution.step, log=distribution.log)
        return parameter.values[number] if parameter.values else number
    value = trial.suggest_float(name, low, high, step=distribution.step, log=distribution.log)
    if parameter.step is None:
        return parameter.near(value)
    # Optuna counts steps in binary: 0.1 + 2 * 0.1 is 0.30000000000000004 there.
    return parameter.value(round((value - parameter.low) / parameter.step))
