"""What Lightning's command line says and keeps: errors in one line, no secrets, honest numbers."""

from __future__ import annotations

import argparse
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from tuning.errors import nearest, shown
from tuning.scoring import METRIC_PREFIX


def one_line(error: Exception, limit: int = 400) -> str:
    """Return an error's text on one line, cut off where it is long."""
    text = " ".join(str(error).split())
    return text if len(text) <= limit else f"{text[:limit]}..."


def told_plainly(error: argparse.ArgumentError) -> str:
    """Return what jsonargparse says of an argument, without its types, and the nearest name."""
    text = one_line(error, 10_000)
    unknown = re.search(r"[Uu]nrecognized arguments?:? (\S+)", text)
    if unknown:
        name = unknown[1].partition("=")[0].removeprefix("--")
        trainer = [f"trainer.{name}" for name in inspect.signature(pl.Trainer).parameters]
        return f"--{name}: no such option; {nearest(name, [*trainer, 'ckpt_path', 'print_config'])}"
    key = re.search(r'key "([^"]+)"', text)
    needs = re.search(r"following arguments are required: ([\w., ]+)", text)
    got = re.search(r"(?:Got value:|given class_path) '?([^\s':]+)", text)
    if key and needs:
        return f"--{key[1]}: it needs {needs[1].strip()}, given as --{key[1]}.NAME=VALUE"
    if key and got:
        return (
            f"--{key[1]}: {shown(got[1])} is none of its values; `fit --help` and Lightning's "
            f"documentation of its Trainer name them"
        )
    return one_line(error)


def plain(value: Any) -> Any:
    """Return arguments as JSON can hold them."""

    def of_object(value: Any) -> Any:
        return value.as_dict() if hasattr(value, "as_dict") else str(value)

    return json.loads(json.dumps(value, default=of_object))


def without_secrets(value: Any) -> Any:
    """Return arguments of which loggers' keys and passwords may not be kept."""
    if isinstance(value, list):
        return [without_secrets(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {
        name: "***" if inner and _SECRET.search(name) else without_secrets(inner)
        for name, inner in value.items()
    }


_SECRET = re.compile(r"key$|token$|password|secret", re.IGNORECASE)


def accuracy_table(how: str, says: str, metrics: Mapping[str, Any]) -> str:
    """Return what was measured, each accuracy with interval, n and baseline.

    Args:
        how: validate or test.
        says: What was measured.
        metrics: As the module logs them.
    """
    suite = "small suite" if how == "validate" else "final suite"
    lines = [f"{says}, {suite}, words of the validation split"]
    for task in METRIC_PREFIX.values():
        if f"{task}/accuracy" in metrics:
            of = {key: float(metrics[f"{task}/{key}"]) for key in _SHOWN}
            lines.append(
                f"{task:20} {of['accuracy']:6.1%} [{of['accuracy_low']:.1%}, "
                f"{of['accuracy_high']:.1%}], n = {of['num_items']:,.0f}; "
                f"a guesser that never looks at the word {of['baseline']:.1%}"
            )
    if says.startswith("tiny "):
        lines.append(
            "Measured on a model made to exercise the program: no evidence about Qwen3-4B."
        )
    return "\n".join(lines)


_SHOWN = ("accuracy", "accuracy_low", "accuracy_high", "num_items", "baseline")
