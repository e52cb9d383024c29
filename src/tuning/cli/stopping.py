"""Ctrl-C once: running trials finish their step and write a checkpoint. Twice: stop now."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from tuning.cli.progress import ERRORS


@contextlib.contextmanager
def graceful_stop() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the user, or the machine, has asked to stop.

    Raises:
        KeyboardInterrupt: It was asked twice.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if number == signal.SIGINT:
            ERRORS.print("\ntuning: stopping; press Ctrl-C again to stop now", highlight=False)

    if threading.current_thread() is not threading.main_thread():
        # Only there can signals be taken; whoever runs us in a thread has ways of its own.
        yield lambda: False
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def ending_tidily() -> Iterator[None]:
    """Have the end of a session, or a kill, run what Ctrl-C runs: machines are to be left.

    Raises:
        KeyboardInterrupt: It was asked to end.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
