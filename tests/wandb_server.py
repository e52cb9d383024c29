"""A server on 127.0.0.1 that speaks as much of W&B's protocol as its real client uses.

It keeps everything that it receives, for assertions, and can be told to misbehave.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

KEY = "a" * 40
ENTITY = "tester"


@dataclass
class Run:
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Rows by their line number in the server's history file."""
    summary: dict[str, Any] = field(default_factory=dict)
    is_complete: bool = False
    exit_code: int | None = None
    state: str | None = None
    """What the service says of it instead: crashed, when nothing was heard for a while."""

    @property
    def config(self) -> dict[str, Any]:
        raw = json.loads(self.fields.get("config") or "{}")
        return {k: v["value"] for k, v in raw.items() if isinstance(v, dict) and "value" in v}

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[line] for line in sorted(self.history)]


@dataclass
class Server:
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and path of every request."""
    bodies: list[bytes] = field(default_factory=list)
    operations: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    runs: dict[str, Run] = field(default_factory=dict)
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was committed, by id."""
    uploads: dict[str, bytes] = field(default_factory=dict)
    sweeps: dict[str, dict[str, Any]] = field(default_factory=dict)
    views: dict[str, dict[str, Any]] = field(default_factory=dict)
    commands: list[dict[str, Any]] = field(default_factory=list)
    """What an agent is told, one a heartbeat; then to exit."""
    status: Callable[[str], int | None] = lambda what: None
    """Given an operation or path, a status to answer with instead."""
    seconds: float = 0.0
    """By which every answer is delayed."""

    def answer(self, operation: str, variables: dict[str, Any]) -> Any:
        handler = getattr(self, f"_{operation}", None)
        if handler is None:
            self.unknown.append(operation)
            return None
        return handler(variables)

    # --- who and what -----------------------------------------------------------------------

    def _Viewer(self, v: dict[str, Any]) -> Any:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        return {
            "viewer": {
                "id": "1",
                "entity": ENTITY,
                "username": ENTITY,
                "email": "t@example.com",
                "flags": "{}",
                "teams": teams,
            }
        }

    _GetDefaultEntity = _GetViewer = _Viewer

    def _ServerFeaturesQuery(self, v: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _OrganizationCoreWeaveOrganizationID(self, v: dict[str, Any]) -> Any:
        return {"entity": {"organization": {"coreWeaveOrganizationId": ""}}}

    # --- runs -------------------------------------------------------------------------------

    def _project(self, name: str | None) -> dict[str, Any]:
        return {"id": "p", "name": name, "entity": {"id": "e", "name": ENTITY}}

    def _UpsertBucket(self, v: dict[str, Any]) -> Any:
        name = v.get("name") or v.get("id")
        is_new = name not in self.runs
        run = self.runs.setdefault(name, Run(name))
        run.fields |= {k: x for k, x in v.items() if x is not None}
        bucket = {
            "id": name,
            "name": name,
            "displayName": run.fields.get("displayName"),
            "description": "",
            "config": run.fields.get("config", "{}"),
            "sweepName": run.fields.get("sweep"),
            "historyLineCount": len(run.history),
            "project": self._project(v.get("project")),
        }
        return {"upsertBucket": {"inserted": is_new, "bucket": bucket}}

    def _bucket(self, run: Run) -> dict[str, Any]:
        last = run.rows[-1:]
        return {
            "id": run.name,
            "name": run.name,
            "displayName": run.fields.get("displayName"),
            "config": run.fields.get("config", "{}"),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in last]),
            "eventsTail": "[]",
            "tags": run.fields.get("tags") or [],
            "wandbConfig": '{"t": 1}',
            "state": run.state or ("finished" if run.is_complete else "running"),
            "sweepName": run.fields.get("sweep"),
            "group": run.fields.get("groupName"),
            "jobType": run.fields.get("jobType"),
            "createdAt": "2026-01-01T00:00:00",
            "heartbeatAt": "2026-01-01T00:00:00",
            "user": {"name": ENTITY, "username": ENTITY},
            "historyKeys": {"lastStep": len(run.history) - 1, "sets": [], "keys": {}},
            "projectId": "1",
            "readOnly": False,
            "commit": None,
            "notes": None,
            "host": "",
            "description": "",
        }

    def _RunResumeStatus(self, v: dict[str, Any]) -> Any:
        run = self.runs.get(v["name"])
        bucket = self._bucket(run) if run else None
        return {"model": {**self._project(v.get("project")), "bucket": bucket}}

    def _Run(self, v: dict[str, Any]) -> Any:
        run = self.runs.get(v["name"])
        bucket = self._bucket(run) if run else None
        return {"project": {"internalId": "1", "run": bucket}}

    def stream(self, name: str, body: dict[str, Any]) -> None:
        run = self.runs.setdefault(name, Run(name))
        files = body.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            for line, text in enumerate(history["content"], history["offset"]):
                run.history[line] = json.loads(text)
        summary = files.get("wandb-summary.json")
        if summary and summary["content"]:
            run.summary = json.loads(summary["content"][-1])
        if body.get("complete"):
            run.is_complete, run.exit_code, run.state = True, body.get("exitcode"), None

    # --- files and artifacts ----------------------------------------------------------------

    def _upload_url(self, name: str) -> str:
        return f"{self.url}/upload/{name}"

    def _CreateRunFiles(self, v: dict[str, Any]) -> Any:
        urls = [{"name": n, "uploadUrl": self._upload_url(f"{v['run']}/{n}")} for n in v["files"]]
        return {"createRunFiles": {"runID": v["run"], "uploadHeaders": [], "files": urls}}

    def _ArtifactType(self, v: dict[str, Any]) -> Any:
        return {"project": {"artifact": None}}

    def _CreateArtifact(self, v: dict[str, Any]) -> Any:
        given = v.get("input") or v
        name = f"artifact-{len(self.artifacts)}"
        self.artifacts[name] = {**given, "state": "PENDING"}
        sequence = {"id": f"s-{name}", "latestArtifact": None}
        artifact = {"id": name, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": artifact}}

    def _CreateArtifactManifest(self, v: dict[str, Any]) -> Any:
        given = v.get("input") or v
        name = f"manifest-{given.get('artifactID', '')}"
        file = {"id": name, "uploadUrl": self._upload_url(name), "uploadHeaders": []}
        return {"createArtifactManifest": {"artifactManifest": {"id": name, "file": file}}}

    _UpdateArtifactManifest = _CreateArtifactManifest

    def _CreateArtifactFiles(self, v: dict[str, Any]) -> Any:
        given = v.get("input") or v
        nodes = []
        for spec in given.get("artifactFiles") or given.get("storageFiles") or []:
            path = f"{spec['artifactID']}/{spec['name']}"
            nodes.append(
                {
                    "node": {
                        "storagePath": path,
                        "uploadUrl": self._upload_url(path),
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": spec["artifactID"]},
                    }
                }
            )
        return {"createArtifactFiles": {"files": {"edges": nodes}}}

    def _CommitArtifact(self, v: dict[str, Any]) -> Any:
        name = (v.get("input") or v)["artifactID"]
        self.artifacts[name]["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": name, "digest": "d"}}}

    # --- views ------------------------------------------------------------------------------

    def _UpsertView2(self, v: dict[str, Any]) -> Any:
        name = v.get("id") or f"view{len(self.views)}"
        is_new = name not in self.views
        self.views[name] = v
        return {"upsertView": {"view": {"id": name, "name": v["name"]}, "inserted": is_new}}

    # --- sweeps -----------------------------------------------------------------------------

    def _UpsertSweep(self, v: dict[str, Any]) -> Any:
        name = f"sweep{len(self.sweeps)}"
        self.sweeps[name] = v
        filters = json.loads(v.get("priorRunsFilters") or "{}")
        for wanted in filters.get("$or", []):
            self.runs[wanted["name"]].fields["sweep"] = name
        sweep = {"name": name, "id": name, "project": self._project(v.get("projectName"))}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _GetSweep(self, v: dict[str, Any]) -> Any:
        given = self.sweeps.get(v["name"])
        if given is None:
            return {"project": {"sweep": None}}
        sweep = {
            "id": v["name"],
            "name": v["name"],
            "displayName": None,
            "method": yaml.safe_load(given["config"])["method"],
            "state": "RUNNING",
            "description": None,
            "bestLoss": None,
            "config": given["config"],
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": None,
            "runCount": 0,
            "runCountExpected": None,
        }
        return {"project": {"sweep": sweep}}

    _GetSweepLegacy = _GetSweep

    def _CreateAgent(self, v: dict[str, Any]) -> Any:
        return {"createAgent": {"agent": {"id": "agent"}}}

    def _Heartbeat(self, v: dict[str, Any]) -> Any:
        if any(json.loads(v.get("runState") or "{}").values()):
            told = []
        else:
            told = [self.commands.pop(0)] if self.commands else [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "agent"}, "commands": json.dumps(told)}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def _handle(self) -> None:
        of: Server = self.server.state
        body = self._body()
        path = self.path
        of.requests.append((self.command, path))
        of.bodies.append(body)
        time.sleep(of.seconds)
        what = path
        if path == "/graphql":
            asked = json.loads(body)
            found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
            what = found.group(1) if found else "?"
            of.operations.append(what)
        refused = of.status(what)
        if refused is not None:
            self._reply({"error": "refused"}, refused)
        elif path == "/graphql":
            self._reply({"data": of.answer(what, asked.get("variables") or {})})
        elif "/file_stream" in path:
            of.stream(path.split("/")[-2], json.loads(body))
            self._reply({"exitcode": None, "limits": {}})
        elif path.startswith("/upload/"):
            of.uploads[path.removeprefix("/upload/")] = body
            self._reply({})
        else:
            self._reply({"error": "not found"}, 404)

    do_GET = do_POST = do_PUT = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, value: Any, status: int = 200) -> None:
        text = json.dumps(value).encode()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed hang up; that is no news."""


@contextlib.contextmanager
def loopback() -> Iterator[Server]:
    """Serve until the block ends."""
    state = Server()
    http = _Http(("127.0.0.1", 0), _Handler)
    http.state = state  # type: ignore[attr-defined]
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()
