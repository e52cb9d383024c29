"""One check: what was looked at, how it is, and what would mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How a thing is that was looked at."""

    OK = "ok"
    NOTE = "note"
    """Nothing is wrong; something more could be had."""
    WARNING = "warning"
    """Trials run here, but slower, or not as they did elsewhere."""
    FAILURE = "failure"
    """Trials on this machine do not run, or may lose results."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    says: str
    todo: str | None = None
    """What mends it, a command where there is one; None where nothing is to be done."""


def ok(name: str, says: str) -> Check:
    """Return that a thing is as it must be."""
    return Check(name=name, state=State.OK, says=says)


def note(name: str, says: str, todo: str) -> Check:
    """Return that something more could be had."""
    return Check(name=name, state=State.NOTE, says=says, todo=todo)


def warning(name: str, says: str, todo: str) -> Check:
    """Return that something makes trials worse."""
    return Check(name=name, state=State.WARNING, says=says, todo=todo)


def failure(name: str, says: str, todo: str) -> Check:
    """Return that trials do not run here."""
    return Check(name=name, state=State.FAILURE, says=says, todo=todo)


def looked(name: str, look: Callable[[], Check]) -> Check:
    """Return what a look finds; what stops the look is a failure like any other.

    Args:
        name: What is looked at.
        look: Looks.
    """
    try:
        return look()
    except ImportError as error:
        package = (error.name or "tuning").partition(".")[0]
        says = f"cannot be looked at: the package {package} is missing or broken"
        return failure(name, says, f"pip install --force-reinstall {package}")
    except (ValueError, OSError) as error:
        return failure(name, f"cannot be looked at: {error}", "mend what it says, look again")
