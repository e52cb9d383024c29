"""From options to a place where trials run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tuning.cli import options
from tuning.errors import UserError

if TYPE_CHECKING:
    from tuning.jobs import Backend
    from tuning.paths import ResultsRoot
    from tuning.study import StudySpec


@contextlib.contextmanager
def open_backend(
    spec: StudySpec, root: ResultsRoot, resources: options.Resources
) -> Iterator[tuple[Backend, StudySpec]]:
    """Yield a backend, and the study with what its workers settle: their threads.

    Raises:
        UserError: The backend cannot be had.
    """
    from tuning.backends.local import environments_of, memory_limit, threads_of, visible_gpus
    from tuning.backends.process import Limits
    from tuning.study import read_spec

    folder = root.study(spec.name)
    stored = read_spec(folder) if folder.spec.exists() else spec
    fixed = stored.num_threads or spec.base.training_config.num_threads
    if fixed and resources.threads not in (None, fixed):
        raise UserError(
            f"--threads must be {fixed}, as study {spec.name} began, got {resources.threads}: "
            f"results depend on it"
        )
    environments = environments_of(
        spec.base, resources.workers, fixed or resources.threads, resources.per_gpu
    )
    settled = spec.model_copy(
        update={
            "num_threads": stored.num_threads or threads_of(environments[0]),
            "generation_size": stored.generation_size
            if folder.spec.exists()
            else len(environments),
        }
    )
    memory = resources.max_memory
    limit = int(memory * 2**30) if memory else memory_limit(len(environments))
    # A processor that waits for its GPU looks idle.
    idle = _IDLE_SECONDS_WITH_GPU if visible_gpus() else Limits().idle_seconds
    limits = Limits(memory_bytes=limit, idle_seconds=idle)
    if resources.backend is options.BackendName.RAY:
        from tuning.backends.ray import RayBackend

        backend: Backend = RayBackend(
            root,
            address=resources.ray_address or os.environ.get("RAY_ADDRESS") or None,
            num_workers=resources.workers,
            num_threads=settled.num_threads or 1,
            limits=limits,
        )
    else:
        from tuning.backends.local import LocalBackend
        from tuning.memory import check_fits, local_machine

        machine = local_machine()
        if machine is not None:
            check_fits(spec.base, machine)
        backend = LocalBackend(root, environments, limits)
    try:
        yield backend, settled
    finally:
        backend.close()


_IDLE_SECONDS_WITH_GPU = 600.0
