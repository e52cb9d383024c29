"""Progress: a bar on a terminal, a line a trial elsewhere, nothing when quiet."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from tuning.grid import Proposal
    from tuning.records import TrialRecord

ERRORS = Console(stderr=True)


class TrialProgress:
    """Draws what a study, or a single trial, is doing."""

    def __init__(self, progress: Progress | None, *, quiet: bool) -> None:
        """Draw on `progress`, or print lines, or be quiet."""
        self.progress = progress
        self.quiet = quiet
        self.study_task = progress.add_task("study", total=None, state="") if progress else None
        self.trial_task = progress.add_task("trial", total=None, state="") if progress else None
        self.label = ""
        self.accuracies = ""

    def trial_started(self, proposal: Proposal, index: int, total: int) -> None:
        """Show the next trial."""
        from tuning.ranking import Contender

        label = Contender(parameters=proposal.parameters, trial_ids=[], objectives=[]).label
        self.label = f"{index}/{total} {label} (seed {proposal.seed})"
        self.accuracies = ""
        if self.progress and self.study_task is not None and self.trial_task is not None:
            steps = proposal.config.training_config.max_steps
            self.progress.update(
                self.study_task, total=total, completed=index - 1, description="study"
            )
            self.progress.reset(self.trial_task, total=steps, description=self.label, state="")

    def trial_moved(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the step, the loss, and the last measured accuracies."""
        if not self.progress or self.trial_task is None:
            return
        if "spelling/accuracy" in metrics:
            values = (
                metrics[f"{p}/accuracy"]
                for p in ("spelling", "transfer/position", "transfer/count")
            )
            self.accuracies = " ".join(
                f"{name} {100 * value:.0f} %"
                for name, value in zip(("spelling", "position", "count"), values, strict=True)
            )
        if "evaluated" in metrics:
            self.progress.update(
                self.trial_task, state=f"evaluating, {100 * metrics['evaluated']:.0f} %"
            )
            return
        loss = f"loss {metrics['loss']:.3f} " if "loss" in metrics else ""
        self.progress.update(self.trial_task, completed=step, state=loss + self.accuracies)

    def trial_finished(self, record: TrialRecord, *, was_there: bool) -> None:
        """Print what came out."""
        if self.progress and self.study_task is not None:
            self.progress.advance(self.study_task)
        if self.quiet:
            return
        print_line = self.progress.console.print if self.progress else ERRORS.print
        print_line(
            f"{self.label}: {summary(record)}{' (was there)' if was_there else ''}", highlight=False
        )


@contextlib.contextmanager
def item_progress(*, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Show how many items a model has answered; yields what to tell."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} items"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERRORS, transient=True) as progress:
        task = progress.add_task("loading", total=None)

        def on_progress(done: int, total: int) -> None:
            progress.update(task, description="scoring", completed=done, total=total)

        yield on_progress


@contextlib.contextmanager
def working(what: str, *, quiet: bool) -> Iterator[None]:
    """Show that something goes on whose end is not known."""
    with telling(quiet=quiet) as tell:
        tell(what)
        yield


@contextlib.contextmanager
def telling(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show what goes on, step by step; yields what to tell."""
    if quiet or not sys.stderr.isatty():
        yield lambda what: None
        return
    with ERRORS.status("") as status:
        yield status.update


def summary(record: TrialRecord) -> str:
    """Return one line on a trial."""
    if record.result.reason:
        return f"pruned: {record.result.reason}"
    if record.result.error:
        return f"failed with {record.result.error_type}: {record.result.error}"
    gains = (f"{task} {100 * r.gain.value:+.1f}" for task, r in record.result.tasks.items())
    return f"gains in points: {', '.join(gains)}; {record.execution.train_seconds:.0f} s"


@contextlib.contextmanager
def trial_progress(*, quiet: bool) -> Iterator[TrialProgress]:
    """Show progress for the time of the block; if it is stopped by Ctrl-C, say how to go on."""
    try:
        with _drawn(quiet=quiet) as progress:
            yield progress
    except KeyboardInterrupt:
        ERRORS.print("tuning: stopped; run the same command again to continue", highlight=False)
        raise


@contextlib.contextmanager
def _drawn(*, quiet: bool) -> Iterator[TrialProgress]:
    if quiet or not sys.stderr.isatty():
        yield TrialProgress(None, quiet=quiet)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=ERRORS) as progress:
        yield TrialProgress(progress, quiet=False)
