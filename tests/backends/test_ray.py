"""Ray: the contract on a cluster of this machine, and two nodes that share no disk."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import test_contract
from places import RUNNER, SMALL_LIMITS
from test_contract import *  # noqa: F403 - every test of the contract runs here again
from test_contract import Scene

from backend_support import Remembers, WarmWorker
from tuning import files
from tuning.errors import UserError
from tuning.executor import run_study
from tuning.grid import Proposal
from tuning.jobs import Job
from tuning.paths import ResultsRoot
from tuning.records import TrialRecord
from tuning.search_space import SearchSpace
from tuning.study import StudySpec, ranking

pytest.importorskip("ray")
pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray")]

TESTS = Path(__file__).parents[1]


def workers_below(root: Path) -> list[psutil.Process]:
    """Return the worker processes whose results are in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if "tuning.backends.worker" in command and str(root) in " ".join(command):
            found.append(process)
    return found


class RayPlace:
    """Stations of a cluster on this machine that sees the driver's disk."""

    def __init__(self, root: ResultsRoot, num_slots: int) -> None:
        from tuning.backends.ray import RayBackend

        self.root = root
        self.numbers = itertools.count()
        self.backend = RayBackend(root, num_workers=num_slots, limits=SMALL_LIMITS, runner=RUNNER)
        while self.backend.num_slots < num_slots:
            self.backend.poll(0.1)

    def _holder(self, job: Job) -> psutil.Process:
        lock = str(self.root.training(job.training_key).lock)
        holders = [
            worker
            for worker in workers_below(self.root.root)
            if any(file.path == lock for file in worker.open_files())
        ]
        return holders[0]

    def kill(self, job: Job) -> None:
        self._holder(job).send_signal(signal.SIGKILL)

    def freeze(self, job: Job) -> None:
        self._holder(job).send_signal(signal.SIGSTOP)

    def is_anything_left(self) -> bool:
        left = workers_below(self.root.root)
        psutil.wait_procs(left, timeout=10)
        return any(worker.is_running() for worker in left)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all tests of the contract: starting one takes seconds."""
    import ray

    paths = os.pathsep.join([str(TESTS), str(TESTS / "backends")])
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def places(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RayPlace]]:
    """The place that tests share as long as none has closed it."""
    kept: list[RayPlace] = []
    yield kept
    for place in kept:
        place.backend.close()


@pytest.fixture
def scene(
    places: list[RayPlace],
    tmp_path_factory: pytest.TempPathFactory,
    small_config: Callable[..., Any],
) -> Iterator[Scene]:
    if not places:
        places.append(RayPlace(ResultsRoot(tmp_path_factory.mktemp("ray")), 2))
    place = places[0]
    scene = Scene(place, place.root, small_config)
    # Every test has trials of its own below the one root.
    scene._numbers = place.numbers
    yield scene
    if place.backend.num_slots == 0:
        places.clear()
        assert not place.is_anything_left()
        return
    left = [slot.job for slot in place.backend._slots if slot.job is not None]
    for job in left:
        place.backend.cancel(job)
    ended = 0
    while ended < len(left):
        ended += len(place.backend.poll(1.0))


# What a station's worker process does is tested where it runs without Ray. In every run one that is
# killed, and one that eats memory, tell that Ray passes on limits and ends.


@pytest.mark.nightly
def test_a_job_that_waits_for_ever_is_given_up(scene: Scene) -> None:
    test_contract.test_a_job_that_waits_for_ever_is_given_up(scene)


@pytest.mark.nightly
def test_a_stopped_process_is_given_up(scene: Scene) -> None:
    test_contract.test_a_stopped_process_is_given_up(scene)


@pytest.mark.nightly
def test_a_worker_that_dies_before_its_first_step_is_reported_every_time(scene: Scene) -> None:
    test_contract.test_a_worker_that_dies_before_its_first_step_is_reported_every_time(scene)


# --- two nodes ----------------------------------------------------------------------------------


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two nodes of one processor each, with results of their own, beside a head that runs nothing."""
    import ray
    from ray.cluster_utils import Cluster

    ray.shutdown()
    monkeypatch.setenv("TUNING_NODE_RESULTS", str(tmp_path / "nodes"))
    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    found.nodes_to_kill = [found.add_node(num_cpus=1) for _ in range(2)]
    yield found
    ray.shutdown()
    found.shutdown()


SPACE = {
    "replicates_of_default": 2,
    "pruning": "none",
    "HPARAM_CANDIDATES": {"lora_r": [4, 8], "max_steps": [8, 20], "learning_rate": [5e-4, 2e-3]},
}
FEW_ITEMS = tuple(
    f"evaluation_config.{name}"
    for name in ("num_words=10", "num_monitor_words=3", "num_generated_items=3")
)


class KillsANode(Remembers):
    """A watcher that kills a node when the first trial is finished, and every node has one."""

    def __init__(self, kill: Callable[[], None], after: int) -> None:
        super().__init__()
        self._kill, self._after = kill, after

    def trial_finished(self, proposal: Proposal, record: TrialRecord, *, was_there: bool) -> None:
        super().trial_finished(proposal, record, was_there=was_there)
        if len(self.finished) == self._after:
            self._kill()


@pytest.mark.nightly
def test_a_study_on_two_nodes_survives_the_death_of_one(
    two_nodes: Any, small_config: Callable[..., Any], tmp_path: Path, warm_worker: WarmWorker
) -> None:
    from tuning.backends.ray import RayBackend

    space = SearchSpace.model_validate(SPACE)
    base = small_config("max_steps=12", *FEW_ITEMS)
    spec = StudySpec(name="study", space=space, base=base, num_threads=1)
    here = ResultsRoot(tmp_path / "here")
    here.root.mkdir()
    backend = RayBackend(here, address=two_nodes.address, num_threads=1, may_share=False)
    used: set[str] = set()

    def kill() -> None:
        used.update(place["node"] for place in backend.places)
        two_nodes.remove_node(two_nodes.nodes_to_kill[1], allow_graceful=False)

    watcher = KillsANode(kill, after=2)
    records = run_study(spec, here, backend, watcher).records
    assert len(records) == 8
    assert len(used) == 2
    assert len({place["root"] for place in backend.places}) == 1
    backend.close()

    events = files.read_json_lines(here.study("study").events)
    lost = [e for e in events if e["event"] == "ended" and e["how"] == "killed"]
    assert lost
    assert all("is gone" in e["message"] for e in lost)
    completed = [e["trial_id"] for e in events if e["event"] == "completed"]
    assert len(completed) == len(set(completed)) == 8
    # Each node has worked below a root of its own, and all of it is here.
    assert len(list((tmp_path / "nodes").glob("*/data/trainings"))) == 2

    there = ResultsRoot(tmp_path / "there")
    expected = run_study(spec, there, warm_worker.at(there), Remembers()).records
    results = [dataclasses.asdict(record.result) for record in records]
    assert results == [dataclasses.asdict(record.result) for record in expected]
    assert ranking(spec, records) == ranking(spec, expected)
    for record in records:
        key, step = record.result.training_key, record.result.step
        adapter = "adapter_model.safetensors"
        fetched = here.training(key).adapter(step) / adapter
        assert fetched.read_bytes() == (there.training(key).adapter(step) / adapter).read_bytes()
        progress = files.read_json_lines(here.training(key).progress)
        assert progress == files.read_json_lines(there.training(key).progress)


def test_a_cluster_that_is_not_there_is_one_clear_line(tmp_path: Path) -> None:
    import ray

    from tuning.backends.ray import RayBackend

    ray.shutdown()
    with pytest.raises(UserError, match="no Ray cluster at 127.0.0.1:1"):
        RayBackend(ResultsRoot(tmp_path), address="127.0.0.1:1")
    assert threading.active_count() < 50


@pytest.mark.nightly
def test_without_an_address_no_other_cluster_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    from tuning.backends.ray import RayBackend

    ray.shutdown()
    # A test with a cluster of several nodes leaves this behind.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    backend = RayBackend(ResultsRoot(tmp_path), num_workers=2)
    assert ray.cluster_resources()["CPU"] == 2
    backend.close()
