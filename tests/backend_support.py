"""Places where trials run, for tests: one warm real worker, and folders in memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuning.backends.local import LocalBackend
from tuning.grid import Proposal
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord


class _Outlived(LocalBackend):
    """A backend whose processes stay when its user closes it; a job that still runs does not."""

    def close(self) -> None:
        """End the jobs that run."""
        for worker in self._workers:
            if worker.job is not None:
                worker.close()

    def end(self) -> None:
        """End the processes."""
        super().close()


class WarmWorker:
    """One worker process that serves test after test: its libraries are loaded once.

    A worker is bound to one results root, so it is given a link that each test points elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare the link; the process starts with the first job."""
        self._link = folder / "results"
        self._backend = _Outlived(ResultsRoot(self._link), [{"OMP_NUM_THREADS": "1"}])

    def at(self, root: ResultsRoot) -> LocalBackend:
        """Return the backend, with `root` as its results."""
        assert not any(worker.job for worker in self._backend._workers), "a job was left behind"
        self._link.unlink(missing_ok=True)
        root.root.mkdir(parents=True, exist_ok=True)
        self._link.symlink_to(root.root.absolute())
        return self._backend

    @property
    def pid(self) -> int:
        """The process."""
        (pid,) = self._backend.pids
        return pid

    def serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the studies that the program runs in this process use the worker."""
        place = "tuning.backends.local.LocalBackend"
        monkeypatch.setattr(place, lambda root, *how: self.at(root))

    def close(self) -> None:
        """End the process."""
        self._backend.end()


class Remembers:
    """A watcher that only remembers."""

    def __init__(self) -> None:
        self.there: list[bool] = []
        self.finished: list[TrialRecord] = []
        self.messages: list[str] = []
        self.num_moves = 0

    def study_moved(self) -> None:
        self.num_moves += 1

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        assert proposal.trial_id == record.trial_id
        self.there.append(was_there)
        self.finished.append(record)

    def said(self, message: str) -> None:
        self.messages.append(message)


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """Yield an empty folder that needs no disk where that is possible: fsync is then free."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="tuning-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
