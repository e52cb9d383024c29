"""The loopback cloud, held by the vendor's own SDK."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lightning_server import KEY, OWNER, TEAMSPACE, USER, Cloud, serving


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with serving(tmp_path / "cloud") as cloud:
        yield cloud
        assert cloud.unknown == []


@pytest.fixture
def said_by(cloud: Cloud, tmp_path: Path) -> Callable[[str], str]:
    """Return a function that runs a script with the SDK and returns what it printed.

    A process of its own: the SDK reads its address once, and keeps much for as long as it lives.
    """

    def run(script: str) -> str:
        before = f"""
            from lightning_sdk import Job, Machine, Studio, Teamspace
            space = Teamspace("{OWNER}/{TEAMSPACE}")
        """
        env = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTNING_")}
        env |= {
            "LIGHTNING_CLOUD_URL": cloud.url,
            "LIGHTNING_API_KEY": KEY,
            "LIGHTNING_USER_ID": USER,
            "LIGHTNING_TEAMSPACE": f"{OWNER}/{TEAMSPACE}",
            "LIGHTNING_DISABLE_VERSION_CHECK": "1",
            "LIGHTNING_KEEPALIVE_FREQUENCY": "0.1",
            "NO_PROXY": "127.0.0.1",
            "HOME": str(tmp_path),
        }
        text = textwrap.dedent(before) + textwrap.dedent(script)
        done = subprocess.run(
            [sys.executable, "-c", text],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


def test_a_studio_from_processor_to_gpus_and_back(
    cloud: Cloud, said_by: Callable[[str], str]
) -> None:
    said = said_by(
        """
        studio = Studio("tuning-a", teamspace=space, create_ok=True)
        print(studio.status)
        studio.start(Machine.CPU)
        for machine in (Machine.T4, Machine.A100):
            studio.switch_machine(machine)
            print(studio.machine, studio.run("echo $LOOPBACK_MACHINE").strip())
        studio.set_env({"SHARED": "yes"})
        print(studio.run_with_exit_code("echo $SHARED; exit 3"))
        open("f.txt", "w").write("x")
        studio.upload_file("f.txt", "sub/f.txt", progress_bar=False)
        print(studio.run("cat sub/f.txt"))
        studio.auto_sleep_time = 900
        studio.stop()
        print(studio.status)
        studio.delete()
        """
    )
    assert said.splitlines() == [
        "Stopped",
        "T4 lit-t4-1",
        "A100 lit-a100-1",
        "('yes', 3)",
        "x",
        "Stopped",
    ]
    assert cloud.running_studios == []
    assert cloud.studios == {}


def test_jobs_run_for_real_and_what_they_made_is_fetched(
    cloud: Cloud, said_by: Callable[[str], str]
) -> None:
    cloud.max_running = 1
    said = said_by(
        """
        import pathlib
        studio = Studio("tuning-a", teamspace=space, create_ok=True)
        studio.start(Machine.CPU)
        make = "echo 7 > $LIGHTNING_ARTIFACTS_DIR/out.txt; echo 7 > $LOOPBACK_SHARED/kept; echo made"
        first = Job.run(name="one", machine=Machine.T4, command=make, studio=studio)
        second = Job.run(name="two", machine=Machine.T4, command="exit 4", studio=studio)
        third = Job.run(name="three", machine=Machine.A100, command="sleep 60", studio=studio)
        for job in (first, second):
            job.wait(interval=0.2)
            print(job.name, job.status, job.total_cost > 0, job.started_at is not None)
        while str(third.status) != "Running":
            pass
        third.stop()
        print(third.status, [job.name for job in space.list_jobs()])
        print("made" in first.logs())
        first.download_artifacts("fetched")
        print(pathlib.Path("fetched/out.txt").read_text().strip())
        studio.stop()
        """
    )
    assert said.splitlines()[:2] == ["one Completed True True", "two Failed True True"]
    assert said.splitlines()[2:4] == ["Stopped ['one', 'two', 'three']", "True"]
    assert said.splitlines()[-1] == "7"
    assert (cloud.shared / "kept").read_text().strip() == "7"
    assert cloud.running_jobs == []


def test_a_lost_reply_leaves_two_jobs_as_the_pitfalls_say(
    cloud: Cloud, said_by: Callable[[str], str]
) -> None:
    cloud.lost.append("POST /v1/projects/[^/]+/jobs$")
    said = said_by(
        """
        studio = Studio("tuning-a", teamspace=space, create_ok=True)
        studio.start(Machine.CPU)
        print(Job.run(name="once", machine=Machine.CPU, command="true", studio=studio).name)
        """
    )
    assert said.strip() == "once-2"
    assert sorted(job.name for job in cloud.jobs.values()) == ["once", "once-2"]


def test_no_machine_is_an_error_and_a_spot_machine_can_be_taken_away(
    cloud: Cloud, said_by: Callable[[str], str]
) -> None:
    cloud.out_of_capacity.add("lit-a100-1")
    said = said_by(
        """
        studio = Studio("tuning-a", teamspace=space, create_ok=True)
        studio.start(Machine.CPU)
        try:
            studio.switch_machine(Machine.A100)
        except Exception as error:
            print(type(error).__name__)
        print({m.name: m.cost for m in space.list_machines()}["lit-t4-1"])
        job = Job.run(name="spot", machine=Machine.T4, command="sleep 60", studio=studio, interruptible=True)
        print(job.status)
        """
    )
    assert said.splitlines()[1:] == ["0.98", "Running"]
    cloud.preempt("spot")
    (job,) = cloud.jobs.values()
    assert (job.state, job.message) == ("failed", "the spot instance was reclaimed")
