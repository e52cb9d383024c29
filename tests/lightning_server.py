"""A server on 127.0.0.1 that speaks as much of Lightning.AI's protocol as its real SDK uses.

Studios and jobs exist for real: a Studio has a folder in which commands run, and a job runs its command
in a process of its own. The server keeps everything that it receives, for assertions, and can be told
to misbehave: to lose a reply after acting, to refuse, to have no machine, to be slow, to die for a while.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import psutil

KEY, USER, OWNER, TEAMSPACE = "k" * 36, "u-1", "tester", "research"
PROJECT, CLOUD = "p-1", "cloud-1"
ENDED = ("completed", "failed", "stopped")
MACHINES: dict[str, tuple[int, float, float]] = {
    "cpu-4": (0, 0.40, 0.0),
    "lit-t4-1": (1, 0.98, 0.45),
    "lit-l4-1": (1, 1.58, 0.0),
    "lit-a100-1": (1, 5.68, 2.90),
    "lit-h100-1": (1, 4.50, 0.0),
}
"""Slug: GPUs, USD an hour, and as a spot machine (0: there is none)."""
FAMILY = {
    "cpu-4": "CPU",
    "lit-t4-1": "T4",
    "lit-l4-1": "L4",
    "lit-a100-1": "A100",
    "lit-h100-1": "H100",
}


@dataclass
class Instance:
    """A machine under a Studio."""

    number: int
    machine: str
    spot: bool
    ready_at: float

    def told(self, now: float) -> dict[str, Any]:
        ready = now >= self.ready_at
        phase = "RUNNING" if ready else "PENDING"
        return {
            "cloudSpaceInstanceId": f"i-{self.number}",
            "phase": f"CLOUD_SPACE_INSTANCE_STATE_{phase}",
            "computeConfig": {"name": self.machine, "spot": self.spot},
            "startupStatus": {"initialRestoreFinished": ready, "topUpRestoreFinished": ready},
        }


@dataclass
class Studio:
    id: str
    name: str
    cluster: str
    folder: Path
    env: list[dict[str, str]] = field(default_factory=list)
    in_use: Instance | None = None
    requested: Instance | None = None
    sleep: dict[str, Any] = field(
        default_factory=lambda: {"disableAutoShutdown": False, "idleShutdownSeconds": 600}
    )
    keep_alives: int = 0
    machines: list[str] = field(default_factory=list)
    """Every machine that it has had, in order; "stopped" where it had none."""

    def told(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "displayName": self.name,
            "clusterId": self.cluster,
            "projectId": PROJECT,
            "codeConfig": {**self.sleep},
            "env": self.env,
        }


@dataclass
class Job:
    id: str
    name: str
    spec: dict[str, Any]
    folder: Path
    created: float
    tags: list[str] = field(default_factory=list)
    state: str = "pending"
    process: subprocess.Popen[bytes] | None = None
    started: float | None = None
    ended: float | None = None
    message: str = ""

    @property
    def machine(self) -> str:
        return str(self.spec.get("instanceName", ""))

    def cost(self, now: float) -> float:
        if self.started is None:
            return 0.0
        _, price, spot = MACHINES.get(self.machine, (0, 0.0, 0.0))
        each = spot if self.spec.get("spot") and spot else price
        return ((self.ended or now) - self.started) * each / 3600

    def told(self, now: float) -> dict[str, Any]:
        spec = {"image": "", "env": [], **self.spec}
        return {
            "id": self.id,
            "name": self.name,
            "projectId": PROJECT,
            "state": self.state,
            "message": self.message,
            "totalCost": self.cost(now),
            "startedAt": stamp(self.started),
            "stoppedAt": stamp(self.ended),
            "createdAt": stamp(self.created),
            "spec": spec,
            "tags": [{"id": f"t-{tag}", "name": tag} for tag in self.tags],
        }


def stamp(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


@dataclass
class Cloud:
    """The service, and what it does wrong."""

    root: Path
    url: str = ""
    studios: dict[str, Studio] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    telemetry: list[bytes] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    out_of_capacity: set[str] = field(default_factory=set)
    come_up_as: dict[str, str] = field(default_factory=dict)
    """An unsupported machine silently comes up as another one."""
    ready_seconds: float = 0.0
    """A machine takes so long to be ready; inf for never."""
    queue_seconds: float = 0.0
    """A job waits so long for its machine."""
    taken_away: int = 0
    """So many jobs to come lose their machine as soon as they have it."""
    max_running: int = 10_000
    """Jobs at once; others stay pending."""
    status: Callable[[str, str], int | None] = lambda method, path: None
    """Given method and path, a status to answer with instead of acting."""
    lost: list[str] = field(default_factory=list)
    """Patterns of requests that are acted on once, and whose answer is a 502."""
    secrets: dict[str, str] = field(default_factory=dict)
    is_dead: bool = False
    """Connections are closed without an answer."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    _numbers: int = 0

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    # --- what is left running ---------------------------------------------------------------

    @property
    def running_studios(self) -> list[str]:
        return [s.name for s in self.studios.values() if s.in_use or s.requested]

    @property
    def running_jobs(self) -> list[str]:
        return [j.name for j in self.jobs.values() if j.state not in ENDED]

    # --- jobs ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Bring jobs forward: start those whose time has come, end those whose process has."""
        with self.lock:
            now = time.time()
            for job in self.jobs.values():
                if job.process is not None and job.state == "running":
                    code = job.process.poll()
                    if code is not None:
                        job.state = "completed" if code == 0 else "failed"
                        job.message = "" if code == 0 else f"exit code {code}"
                        job.ended = now
                        job.process = None
            at_work = sum(job.state == "running" for job in self.jobs.values())
            for job in self.jobs.values():
                waits = job.state == "pending" and now >= job.created + self.queue_seconds
                if waits and at_work < self.max_running and job.machine not in self.out_of_capacity:
                    self._start(job, now)
                    at_work += 1
                    if self.taken_away:
                        self.taken_away -= 1
                        self.kill(job, "failed", "the spot instance was reclaimed")

    def _start(self, job: Job, now: float) -> None:
        job.folder.mkdir(parents=True, exist_ok=True)
        artifacts = job.folder / "artifacts"
        artifacts.mkdir(exist_ok=True)
        own = {entry["name"]: entry["value"] for entry in job.spec.get("env") or []}
        machine = self.come_up_as.get(job.machine, job.machine)
        env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LIGHTNING_")},
            "LIGHTNING_ARTIFACTS_DIR": str(artifacts),
            **self.machine_env(machine),
            **own,
        }
        log = (job.folder / "log.txt").open("ab")
        job.process = subprocess.Popen(
            ["bash", "-c", job.spec.get("command") or "true"],
            cwd=job.folder,
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        job.state, job.started = "running", now

    def machine_env(self, machine: str) -> dict[str, str]:
        """Return what a process on a machine sees: its GPU's tool, and the drive."""
        tools = self.root / "tools" / machine
        tools.mkdir(parents=True, exist_ok=True)
        smi = tools / "nvidia-smi"
        if not smi.exists():
            name = {"T4": "Tesla T4", "A100": "NVIDIA A100-SXM4-80GB"}.get(FAMILY[machine], machine)
            says = "exit 9" if FAMILY[machine] == "CPU" else f"echo '{name}'"
            smi.write_text(f"#!/bin/sh\n{says}\n")
            smi.chmod(0o755)
        path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {"PATH": path, "LOOPBACK_MACHINE": machine, "LOOPBACK_SHARED": str(self.shared)}

    @property
    def shared(self) -> Path:
        """The teamspace's drive, which every Studio and job sees."""
        folder = self.root / "shared"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kill(self, job: Job, state: str, message: str = "") -> None:
        """End a job from outside: stopped by its owner, or preempted."""
        with self.lock:
            if job.process is not None:
                # A machine that is taken away takes everything on it along.
                with contextlib.suppress(psutil.NoSuchProcess):
                    family = psutil.Process(job.process.pid).children(recursive=True)
                    for process in [psutil.Process(job.process.pid), *family]:
                        with contextlib.suppress(psutil.NoSuchProcess):
                            process.kill()
                job.process.wait()
                job.process = None
            if job.state not in ENDED:
                job.state, job.ended, job.message = state, time.time(), message

    def preempt(self, name: str) -> None:
        """Take a spot machine away under a job."""
        self.kill(self._named(name), "failed", "the spot instance was reclaimed")

    def _named(self, name: str) -> Job:
        return next(job for job in self.jobs.values() if job.name == name)

    def close(self) -> None:
        for job in self.jobs.values():
            self.kill(job, "stopped")

    # --- requests -------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Any:
        """Return what a request is answered with; bytes are sent as they are, None is a 404."""
        self.look()
        inner = re.sub(rf"^/v1/projects/{PROJECT}", "P", path)
        for pattern, name in ROUTES:
            verb, _, shape = pattern.partition(" ")
            match = re.fullmatch(shape, inner)
            if verb == method and match:
                # Who waits for a command to end holds nobody else up.
                with contextlib.nullcontext() if name == "stream" else self.lock:
                    return getattr(self, f"_{name}")(query, body, *match.groups())
        self.unknown.append(f"{method} {path}")
        return None

    def _user(self, query: Any, body: Any) -> Any:
        return {"id": USER, "username": OWNER}

    def _whoami(self, query: Any, body: Any) -> Any:
        return {"userId": USER, "username": OWNER}

    def _nothing(self, query: Any, body: Any, *rest: str) -> Any:
        return {}

    def _no_jobs(self, query: Any, body: Any) -> Any:
        return {"multiMachineJobs": []}

    def _missing(self, query: Any, body: Any, *rest: str) -> Any:
        return NOT_FOUND

    def _memberships(self, query: Any, body: Any) -> Any:
        own = {"projectId": PROJECT, "name": TEAMSPACE, "displayName": TEAMSPACE, "ownerId": USER}
        return {"memberships": [own]}

    def _project(self, query: Any, body: Any) -> Any:
        settings = {"preferredCluster": CLOUD, "startStudioOnSpotInstance": False}
        return {
            "id": PROJECT,
            "name": TEAMSPACE,
            "ownerId": USER,
            "projectSettings": settings,
            "layoutConfig": [],
        }

    def _clusters(self, query: Any, body: Any) -> Any:
        return {
            "clusters": [{"id": CLOUD, "spec": {"clusterType": "CLUSTER_TYPE_GLOBAL", "awsV1": {}}}]
        }

    def _accelerators(self, query: Any, body: Any, *rest: str) -> Any:
        found = []
        for slug, (gpus, price, spot) in MACHINES.items():
            found.append(
                {
                    "slug": slug,
                    "slugMultiCloud": slug,
                    "instanceId": slug,
                    "secondaryInstanceId": "",
                    "family": FAMILY[slug],
                    "displayName": FAMILY[slug],
                    "acceleratorType": "GPU" if gpus else "CPU",
                    "resources": {"gpu": gpus, "cpu": 4},
                    "enabled": True,
                    "outOfCapacity": slug in self.out_of_capacity,
                    "cost": price,
                    "spotPrice": spot,
                    "availableInSeconds": "0",
                    "provider": "AWS",
                }
            )
        return {"accelerator": found}

    def _templates(self, query: Any, body: Any) -> Any:
        return {
            "templates": [
                {"id": "tpl", "name": "Default", "managedId": "default", "disabled": False}
            ]
        }

    # Studios

    def _find_studio(self, query: Any, body: Any) -> Any:
        named = [s.told() for s in self.studios.values() if query.get("name") in (None, s.name)]
        return {"cloudspaces": named}

    def _create_studio(self, query: Any, body: Any) -> Any:
        studio = Studio(
            f"s-{self.number()}",
            body.get("name") or body.get("displayName"),
            body.get("clusterId") or CLOUD,
            self.root / "studios" / f"{self._numbers}",
        )
        studio.folder.mkdir(parents=True)
        self.studios[studio.id] = studio
        return studio.told()

    def _studio(self, query: Any, body: Any, id: str) -> Any:
        studio = self.studios.get(id)
        return studio.told() if studio else NOT_FOUND

    def _change_studio(self, query: Any, body: Any, id: str) -> Any:
        studio = self.studios[id]
        if "env" in body:
            studio.env = body["env"]
        return studio.told()

    def _delete_studio(self, query: Any, body: Any, id: str) -> Any:
        self.studios.pop(id, None)
        return {}

    def _code_status(self, query: Any, body: Any, id: str) -> Any:
        studio, now = self.studios[id], time.time()
        told = {}
        if studio.in_use:
            told["inUse"] = studio.in_use.told(now)
        if studio.requested:
            told["requested"] = studio.requested.told(now)
        return told

    def _instance(self, config: dict[str, Any]) -> Instance:
        asked = config.get("name") or "cpu-4"
        machine = self.come_up_as.get(asked, asked)
        ready = time.time() + self.ready_seconds
        return Instance(self.number(), machine, bool(config.get("spot")), ready)

    def _start_studio(self, query: Any, body: Any, id: str) -> Any:
        config = body.get("computeConfig") or {}
        if config.get("name") in self.out_of_capacity:
            return refused(429, "no capacity for this machine")
        studio = self.studios[id]
        studio.in_use = self._instance(config)
        studio.machines.append(studio.in_use.machine)
        return {}

    def _code_config(self, query: Any, body: Any, id: str) -> Any:
        in_use = self.studios[id].in_use
        name = in_use.machine if in_use else "cpu-4"
        return {"computeConfig": {"name": name, "spot": bool(in_use and in_use.spot)}}

    def _request_switch(self, query: Any, body: Any, id: str) -> Any:
        config = body.get("computeConfig") or {}
        if config.get("name") in self.out_of_capacity:
            return refused(429, "no capacity for this machine")
        self.studios[id].requested = self._instance(config)
        return {}

    def _confirm_switch(self, query: Any, body: Any, id: str) -> Any:
        studio = self.studios[id]
        if studio.requested:
            studio.in_use, studio.requested = studio.requested, None
            studio.machines.append(studio.in_use.machine)
        return {}

    def _sleep(self, query: Any, body: Any, id: str) -> Any:
        self.studios[id].sleep |= body
        return {}

    def _stop_studio(self, query: Any, body: Any, id: str) -> Any:
        studio = self.studios[id]
        studio.in_use = studio.requested = None
        studio.machines.append("stopped")
        return {}

    def _keep_alive(self, query: Any, body: Any, id: str) -> Any:
        self.studios[id].keep_alives += 1
        return {}

    def _execute(self, query: Any, body: Any, id: str) -> Any:
        studio = self.studios[id]
        session = f"x-{self.number()}"
        own = {entry["name"]: entry["value"] for entry in studio.env}
        assert studio.in_use is not None
        env = {
            **os.environ,
            **own,
            **self.machine_env(studio.in_use.machine),
        }
        self._sessions[session] = subprocess.Popen(
            ["bash", "-c", body["command"]],
            cwd=studio.folder,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return {"sessionName": session}

    _sessions: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _outputs: dict[str, str] = field(default_factory=dict)

    def _stream(self, query: Any, body: Any, id: str, session: str) -> Any:
        process = self._sessions[session]
        if session not in self._outputs:
            self._outputs[session] = process.communicate()[0]
        output = self._outputs[session]
        line = {"result": {"output": output, "exitCode": process.returncode}}
        return json.dumps(line).encode()

    _sessions: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    _outputs: dict[str, str] = field(default_factory=dict)

    # Jobs

    def _create_job(self, query: Any, body: Any) -> Any:
        name = body["name"]
        taken = {job.name for job in self.jobs.values()}
        number = 2
        while name in taken:
            name, number = f"{body['name']}-{number}", number + 1
        tags = [
            tag if isinstance(tag, str) else tag.get("name", "") for tag in body.get("tags") or []
        ]
        job = Job(
            f"j-{self.number()}", name, body["spec"], self.root / "jobs" / name, time.time(), tags
        )
        self.jobs[job.id] = job
        self.look()
        return job.told(time.time())

    def _find_job(self, query: Any, body: Any) -> Any:
        for job in self.jobs.values():
            if job.name == query.get("name"):
                return job.told(time.time())
        return NOT_FOUND

    def _job(self, query: Any, body: Any, id: str) -> Any:
        return self.jobs[id].told(time.time()) if id in self.jobs else NOT_FOUND

    def _list_jobs(self, query: Any, body: Any) -> Any:
        return {"jobs": [job.told(time.time()) for job in self.jobs.values()]}

    def _change_job(self, query: Any, body: Any, id: str) -> Any:
        job = self.jobs[id]
        if body.get("state") in ("stop", "stopped"):
            self.kill(job, "stopped")
        return job.told(time.time())

    def _delete_job(self, query: Any, body: Any, id: str) -> Any:
        self.kill(self.jobs[id], "stopped")
        del self.jobs[id]
        return {}

    def _logs(self, query: Any, body: Any) -> Any:
        entries = []
        for job in self.jobs.values():
            path = job.folder / "log.txt"
            if job.id in query.get("jobIds", "").split(",") and path.exists():
                for number, line in enumerate(path.read_text(errors="replace").splitlines()):
                    entry = {
                        "line": number,
                        "message": line,
                        "timestamp": stamp(job.started),
                        "resourceId": job.id,
                        "severity": "INFO",
                    }
                    entries.append(entry)
        return {"entries": entries, "nextPageToken": "", "followUrl": ""}

    def _tags(self, query: Any, body: Any) -> Any:
        names = sorted({tag for job in self.jobs.values() for tag in job.tags})
        return {"tags": [{"id": f"t-{name}", "name": name} for name in names]}

    def _set_tags(self, query: Any, body: Any, id: str) -> Any:
        self.jobs[id].tags = [tag["name"] for tag in body.get("tags") or []]
        return {}

    def _secrets(self, query: Any, body: Any) -> Any:
        return {"secrets": [{"id": f"q-{n}", "name": n} for n in self.secrets]}

    def _set_secret(self, query: Any, body: Any) -> Any:
        self.secrets[body["name"]] = body["value"]
        return {"id": f"q-{body['name']}", "name": body["name"]}

    def _change_secret(self, query: Any, body: Any, id: str) -> Any:
        self.secrets[id.removeprefix("q-")] = body["value"]
        return {"id": id, "name": id.removeprefix("q-")}

    # Files: of the teamspace's drive, or of a Studio; jobs/NAME/ on the drive are artifacts of a job

    def _place(self, studio: str | None, path: str) -> Path:
        if studio:
            return self.studios[studio].folder / path
        found = re.match(r"jobs/([^/]+)/?(.*)", path)
        if found:
            return self.root / "jobs" / found[1] / "artifacts" / found[2]
        return self.shared / path

    def _upload(self, query: Any, body: Any, studio: str | None) -> Any:
        results = []
        for blob in body["blobs"]:
            where = f"{self.url}/put/{studio or '-'}/{blob['path']}"
            results.append({"urls": [{"url": where}], "complete_required": False})
        return {"results": results}

    def _put(self, query: Any, body: Any, studio: str, path: str) -> Any:
        place = self._place(None if studio == "-" else studio, unquote(path))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
        return b""

    def _tree(self, query: Any, body: Any, studio: str | None, path: str) -> Any:
        place = self._place(studio, unquote(path))
        files = [p for p in sorted(place.rglob("*")) if p.is_file()] if place.is_dir() else []
        tree = [
            {"path": str(p.relative_to(place)), "type": "blob", "size": p.stat().st_size}
            for p in files
        ]
        return {"tree": tree, "nextCursor": ""}

    def _blob(self, query: Any, body: Any, studio: str | None, path: str) -> Any:
        place = self._place(studio, unquote(path))
        return place.read_bytes() if place.is_file() else NOT_FOUND


class NotFound:
    """Stands for a 404."""


@dataclass(frozen=True)
class Refused:
    code: int
    message: str


def refused(code: int, message: str) -> Refused:
    return Refused(code, message)


NOT_FOUND = Refused(404, "not found")
S = "P/cloudspaces/([^/]+)"
FILES = "P/artifacts(?:/cloudspaces/([^/]+))?"
ROUTES = [
    ("GET /v1/auth/user", "user"),
    ("GET /v1/auth/whoami", "whoami"),
    ("GET /v1/orgs/?(.*)", "missing"),
    ("GET /v1/memberships", "memberships"),
    ("GET P", "project"),
    ("GET P/clusters", "clusters"),
    ("GET /v1/core/clusters", "clusters"),
    ("GET P/clusters/([^/]+)/accelerators", "accelerators"),
    ("GET /v1/core/accelerators", "accelerators"),
    ("GET /v1/cloudspaces/environment-templates/managed", "templates"),
    ("GET P/cloudspaces", "find_studio"),
    ("POST P/cloudspaces", "create_studio"),
    (f"POST {S}/runs", "nothing"),
    (f"GET {S}", "studio"),
    (f"PUT {S}", "change_studio"),
    (f"DELETE {S}", "delete_studio"),
    (f"GET {S}/codestatus", "code_status"),
    (f"POST {S}/start", "start_studio"),
    (f"GET {S}/codeconfig", "code_config"),
    (f"PUT {S}/codeconfig", "request_switch"),
    (f"POST {S}/switch-confirm", "confirm_switch"),
    (f"PUT {S}/sleepconfig", "sleep"),
    (f"POST {S}/stop", "stop_studio"),
    (f"POST {S}/keep-alive", "keep_alive"),
    (f"POST {S}/execute", "execute"),
    (f"GET {S}/execute/([^/]+)/stream", "stream"),
    ("POST P/jobs", "create_job"),
    ("GET P/jobs/find", "find_job"),
    ("GET P/jobs", "list_jobs"),
    ("GET P/jobs/([^/]+)", "job"),
    ("PUT P/jobs/([^/]+)", "change_job"),
    ("DELETE P/jobs/([^/]+)", "delete_job"),
    ("GET P/multi-machine-jobs", "no_jobs"),
    ("GET P/multi-machine-jobs/(.+)", "missing"),
    ("GET P/page-logs", "logs"),
    ("GET P/secrets", "secrets"),
    ("POST P/secrets", "set_secret"),
    ("PUT P/secrets/([^/]+)", "change_secret"),
    ("GET P/workload-tags", "tags"),
    ("PUT P/workloads/job/([^/]+)/tags", "set_tags"),
    (f"POST {FILES}/blobs", "upload"),
    (f"GET {FILES}/trees/(.*)", "tree"),
    (f"GET {FILES}/blobs/(.+)", "blob"),
    ("PUT /put/([^/]+)/(.+)", "put"),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cloud: Cloud

    def _serve(self) -> None:
        cloud, parts = self.cloud, urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if cloud.is_dead:
            self.close_connection = True
            return
        cloud.requests.append((self.command, parts.path))
        cloud.bodies.append(raw)
        if parts.path == "/v1/sdk-command-history":
            cloud.telemetry.append(raw)
            self._send(200, {})
            return
        code = cloud.status(self.command, parts.path)
        # Uploads go to addresses that are signed, here as there.
        if not parts.path.startswith("/put/") and not self._is_allowed():
            code = 401
        if code is not None:
            self._send(
                code, {"code": 13, "message": "the server was told to refuse", "details": []}
            )
            return
        is_json = raw and not parts.path.startswith("/put/")
        body = json.loads(raw) if is_json else raw or {}
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        answer = cloud.answer(self.command, parts.path, query, body)
        for pattern in list(cloud.lost):
            if re.search(pattern, f"{self.command} {parts.path}"):
                cloud.lost.remove(pattern)
                self._send(502, {"code": 13, "message": "bad gateway", "details": []})
                return
        if answer is None:
            answer = NOT_FOUND
        if isinstance(answer, Refused):
            self._send(answer.code, {"code": 5, "message": answer.message, "details": []})
        else:
            self._send(200, answer)

    def _is_allowed(self) -> bool:
        known = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        return self.headers.get("Authorization") in (f"Basic {known}", f"Bearer {KEY}")

    def _send(self, code: int, answer: Any) -> None:
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    disable_nagle_algorithm = True


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Cloud]:
    """Yield a cloud that listens on a free port of 127.0.0.1."""
    cloud = Cloud(root)
    handler = type("OwnHandler", (Handler,), {"cloud": cloud})
    server = QuietServer(("127.0.0.1", 0), handler)
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        cloud.close()


def main() -> None:
    """Serve a cloud until Ctrl-C; print the variables with which `tuning` finds it."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "loopback_cloud").absolute()
    with serving(root) as cloud:
        folder = root / "configs" / "lightning"
        folder.mkdir(parents=True, exist_ok=True)
        # A Studio here has the environment of this process: nothing is installed.
        settings = f"shared_folder: {cloud.shared}/tuning\ndrive_folder: tuning\nsetup: []\n"
        (folder / "studio.yaml").write_text(settings)
        (folder / "scheduler.yaml").write_text("poll_seconds: 1\npull_seconds: 2\nmax_jobs: 2\n")
        print(f"export LIGHTNING_CLOUD_URL={cloud.url} LIGHTNING_API_KEY={KEY}")
        print(f"export LIGHTNING_USER_ID={USER} LIGHTNING_TEAMSPACE={OWNER}/{TEAMSPACE}")
        print(f"# and with every command: --config-dir {root / 'configs'}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                cloud.look()
                time.sleep(0.2)


if __name__ == "__main__":
    main()
