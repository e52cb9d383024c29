"""What processes of one run say to each other, in a real group of two."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tuning.model import processes

WORKER = """
import json, os, sys
import torch.distributed as dist
from tuning.model import processes
dist.init_process_group("gloo")
me = processes.process_index()
own = {0: [0.1, -1], 3: [float("inf"), 7]} if me == 0 else {1: [1 / 3, 2], 2: [0, 0]}
said = {
    "index": me,
    "count": processes.num_processes(),
    "first": processes.is_first(),
    "rows": processes.gathered(own, 4, 2).tolist(),
    "yes": processes.said_by_first(me == 0),
    "no": processes.said_by_first(me == 1),
}
try:
    processes.gathered({0: [1]} if me == 0 else {0: [1], 1: [1]}, 2, 1)
except RuntimeError as error:
    said["twice"] = str(error)
try:
    processes.gathered({0: [1]} if me == 0 else {}, 2, 1)
except RuntimeError as error:
    said["never"] = str(error)
dist.barrier()
dist.destroy_process_group()
open(sys.argv[1] + f"/{me}.json", "w").write(json.dumps(said))
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_two_processes_each_get_every_row_once(tmp_path: Path) -> None:
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)],
            env={**os.environ, **shared, "RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert [(s["index"], s["count"], s["first"]) for s in said] == [(0, 2, True), (1, 2, False)]
    for of in said:
        assert of["rows"] == [[0.1, -1], [1 / 3, 2], [0, 0], [float("inf"), 7]]
        assert (of["yes"], of["no"]) == (True, False)
        assert "row 0 came from 2 processes" in of["twice"]
        assert "row 1 came from 0 processes" in of["never"]


def test_one_process_is_a_group_of_one() -> None:
    assert (processes.num_processes(), processes.process_index(), processes.is_first()) == (1, 0, 1)
    assert processes.gathered({1: [2.0], 0: [1.0]}, 2, 1).tolist() == [[1.0], [2.0]]
    assert processes.said_by_first(True)
    assert not processes.said_by_first(False)
    assert processes.summed(torch.tensor([1.5])).tolist() == [1.5]
    with pytest.raises(RuntimeError, match="row 1 came from 0 processes"):
        processes.gathered({0: [1.0]}, 2, 1)
