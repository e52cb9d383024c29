"""What a sweep of Weights & Biases may say, checked here before any call.

The service itself refuses some of this and takes the rest without a word. Its format is documented
at docs.wandb.ai under "sweep configuration".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from tuning.config import key_of
from tuning.errors import ConfigError, nearest, shown
from tuning.scoring import TRANSFER_SCORE


class Method(StrEnum):
    """How the server of a sweep chooses points."""

    GRID = "grid"
    RANDOM = "random"
    BAYES = "bayes"


STEP_SCALE = "step_scale"
"""A constant of a sweep that is no hyperparameter: what multiplies all step counts."""

_TOP = (
    *("name", "description", "method", "metric", "parameters", "early_terminate", "run_cap"),
    *("program", "command", "project", "entity"),
)
_OF_A_PARAMETER = (
    *("value", "values", "probabilities", "min", "max", "q", "mu", "sigma", "distribution"),
)
_DISTRIBUTIONS = (
    *("constant", "categorical"),
    *("int_uniform", "uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values"),
    *("inv_log_uniform_values", "normal", "q_normal", "log_normal", "q_log_normal"),
    *("beta", "q_beta"),
)
_HYPERBAND = ("type", "min_iter", "max_iter", "s", "eta", "strict")


def check_sweep(definition: Any) -> None:
    """Refuse what W&B would refuse, or take and then not do.

    Raises:
        ConfigError: All that is wrong, a line each.
    """
    problems = list(_problems(definition))
    if problems:
        raise ConfigError("\n".join(f"sweep: {problem}" for problem in problems))


def _problems(definition: Any) -> Iterator[str]:
    if not isinstance(definition, Mapping):
        yield f"must be a mapping with method, metric and parameters, got {shown(definition)}"
        return
    yield from _unknown(definition, _TOP)
    method = definition.get("method")
    if method not in list(Method):
        yield f"method must be one of {', '.join(Method)}, got {shown(method)}"
    yield from _metric_problems(definition.get("metric"))
    if definition.get("early_terminate") is not None:
        yield from _stopping_problems(definition["early_terminate"])
    cap = definition.get("run_cap", 1)
    if not (_is_whole(cap) and cap >= 1):
        yield f"run_cap must be a whole number of at least 1, got {shown(cap)}"
    parameters = definition.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        yield f"parameters must name at least one, got {shown(parameters)}"
        return
    for name, parameter in parameters.items():
        if name == STEP_SCALE and not (isinstance(parameter, Mapping) and "value" in parameter):
            yield f"parameters.{name} is a constant of the sweep, it needs a value"
        problems = itertools.chain(_name_problems(name), _parameter_problems(parameter, method))
        yield from (f"parameters.{name}: {problem}" for problem in problems)


def _unknown(given: Mapping[Any, Any], known: tuple[str, ...]) -> Iterator[str]:
    for key in given:
        if key not in known:
            yield f"{key}: no such key; {nearest(str(key), known)}"


def _name_problems(name: Any) -> Iterator[str]:
    try:
        if name != STEP_SCALE:
            key_of(str(name))
    except ConfigError as error:
        yield str(error)


def _metric_problems(metric: Any) -> Iterator[str]:
    if not isinstance(metric, Mapping):
        yield f"metric must have a name and a goal, got {shown(metric)}"
        return
    for key, wanted in (("name", TRANSFER_SCORE), ("goal", "maximize")):
        if metric.get(key) != wanted:
            yield f"metric.{key} must be {wanted}, got {shown(metric.get(key))}"


def _stopping_problems(stopping: Any) -> Iterator[str]:
    if not isinstance(stopping, Mapping) or stopping.get("type") != "hyperband":
        yield f"early_terminate.type must be hyperband, got {shown(stopping)}"
        return
    yield from (f"early_terminate.{problem}" for problem in _unknown(stopping, _HYPERBAND))
    for key in ("min_iter", "max_iter", "s", "eta"):
        value = stopping.get(key, 1)
        if not (_is_number(value) and value > 0):
            yield f"early_terminate.{key} must be a number above 0, got {shown(value)}"
    if ("min_iter" in stopping) == ("max_iter" in stopping):
        yield "early_terminate needs either min_iter, or max_iter with s"
    elif "max_iter" in stopping and "s" not in stopping:
        yield "early_terminate: max_iter needs s, the number of brackets"


def _parameter_problems(parameter: Any, method: Any) -> Iterator[str]:
    if not isinstance(parameter, Mapping):
        yield f"must have a value, values or a range, got {shown(parameter)}"
        return
    yield from _unknown(parameter, _OF_A_PARAMETER)
    distribution = parameter.get("distribution")
    if distribution is not None and distribution not in _DISTRIBUTIONS:
        yield f"distribution: no such distribution; {nearest(str(distribution), _DISTRIBUTIONS)}"
        return
    is_range = "min" in parameter or "max" in parameter
    kinds = [is_range, *(key in parameter for key in ("value", "values", "mu"))]
    if sum(kinds) != 1:
        yield f"must have one of value, values, or min with max, got {shown(dict(parameter))}"
    elif is_range:
        yield from _range_problems(parameter, method, distribution or "")
    elif "values" in parameter:
        yield from _values_problems(parameter["values"])


def _values_problems(values: Any) -> Iterator[str]:
    if not isinstance(values, list | tuple) or not values:
        yield f"values must be a list of at least one, got {shown(values)}"
    elif any(a == b and type(a) is type(b) for a, b in itertools.combinations(values, 2)):
        yield f"values must differ, got {shown(list(values))}"


def _range_problems(parameter: Mapping[str, Any], method: Any, distribution: str) -> Iterator[str]:
    low: Any = parameter.get("min")
    high: Any = parameter.get("max")
    if not (_is_number(low) and _is_number(high)):
        yield f"min and max must be numbers, got {shown(low)} and {shown(high)}"
        return
    if _is_whole(low) != _is_whole(high):
        yield f"min and max must both be whole or both be real, got {low!r} and {high!r}"
    elif distribution == "int_uniform" and not _is_whole(low):
        yield f"int_uniform needs whole bounds, got {low!r} and {high!r}"
    if not low < high:
        yield f"min must be less than max, got {low!r} and {high!r}"
    if "log" in distribution and low <= 0:
        yield f"{distribution} needs a min above 0, got {low!r}"
    step = parameter.get("q", 1)
    if not (_is_number(step) and step > 0):
        yield f"q must be a number above 0, got {shown(step)}"
    if method == Method.GRID and not _is_whole(low):
        yield f"a grid needs values, got the range from {low!r} to {high!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
