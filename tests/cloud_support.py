"""A cloud on loopback for tests in this process: one server, whose contents each test replaces.

The SDK reads its address when it is imported, and keeps much for as long as its process lives. So a
process has one server, at one address, and a test gets it empty.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lightning_server import KEY, OWNER, TEAMSPACE, USER, Cloud, Handler, QuietServer
from tuning.cloud_settings import CloudSettings, read_settings


class Address:
    """The one server of this process; `holds` is what it serves now."""

    def __init__(self) -> None:
        self.handler = type("OwnHandler", (Handler,), {"cloud": Cloud(Path("/nonexistent"))})
        self.server = QuietServer(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @contextlib.contextmanager
    def holding(self, root: Path) -> Iterator[Cloud]:
        """Serve an empty cloud; what it runs is ended with it."""
        cloud = Cloud(root, self.url)
        self.handler.cloud = cloud  # type: ignore[attr-defined]
        try:
            yield cloud
        finally:
            cloud.close()


_address: list[Address] = []


def address() -> Address:
    """Return the server of this process."""
    if not _address:
        _address.append(Address())
    return _address[0]


def client_env(url: str, home: Path) -> dict[str, str]:
    """Return the variables with which the SDK talks to a cloud on loopback, and to no other."""
    return {
        "LIGHTNING_CLOUD_URL": url,
        "LIGHTNING_API_KEY": KEY,
        "LIGHTNING_USER_ID": USER,
        "LIGHTNING_TEAMSPACE": f"{OWNER}/{TEAMSPACE}",
        "LIGHTNING_DISABLE_VERSION_CHECK": "1",
        "LIGHTNING_KEEPALIVE_FREQUENCY": "0.1",
        "NO_PROXY": "127.0.0.1",
        "HOME": str(home),
    }


def write_settings(config_dir: Path, cloud: Cloud, **scheduler: Any) -> None:
    """Write the files of a cloud whose shared folder is the server's own."""
    folder = config_dir / "lightning"
    folder.mkdir(parents=True, exist_ok=True)
    studio = {
        "shared_folder": str(cloud.shared / "tuning"),
        "drive_folder": "tuning",
        "setup": ['{python} -c "import tuning"'],
        "deadlines": {"start": 0.2, "switch": 0.2, "stop": 0.2, "command": 2, "call": 0.5},
    }
    quick = {"poll_seconds": 0.2, "pull_seconds": 0.4, "capacity_minutes": 0.5}
    for name, content in {"studio": studio, "scheduler": {**quick, **scheduler}}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


def settings_for(config_dir: Path, cloud: Cloud, **scheduler: Any) -> CloudSettings:
    """Return the settings for a cloud on loopback."""
    write_settings(config_dir, cloud, **scheduler)
    return read_settings([config_dir])


@contextlib.contextmanager
def environment(env: Mapping[str, str]) -> Iterator[None]:
    """Have variables for a while."""
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
