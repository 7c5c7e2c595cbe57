"""A service that really listens, and callers of every role."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tallystick.clock import Clock, wall_clock
from tallystick.deployment import Deployment
from tallystick.govern.access import ROLES, Scope
from tallystick.serve.server import Listening, Server
from tallystick.serve.service import Service
from tallystick.serve.settings import Settings

ACTOR = {"id": "the-tests"}


@dataclass
class Running:
    """A service at work."""

    url: str
    deployment: Deployment
    service: Service
    keys: dict[str, str] = field(default_factory=dict)
    """A key of each role of the tenants `acme` and `other`, as `acme/Admin`; and `operator`."""

    def call(self, method: str, path: str, who: str | None = "acme/Admin", **given: Any) -> httpx2.Response:
        """Send a request with someone's key."""
        headers = dict(given.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(who, who)}"
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=20, **given)

    def key(self, tenant: str, role: str, **scope: Any) -> str:
        """The text of a new key."""
        _, text = self.deployment.create_key(tenant, role=role, name="test", actor=ACTOR, scope=Scope.of(**scope))
        return text


@contextmanager
def running(folder: Path, settings: Settings | None = None, *, clock: Clock = wall_clock) -> Iterator[Running]:
    """A service over a folder, with the tenants `acme` and `other`."""
    deployment = Deployment(folder, clock=clock)
    first = deployment.begin()
    service = Service(deployment, settings)
    server = Server(service, Listening())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        found = Running(f"http://127.0.0.1:{listening.getsockname()[1]}", deployment, service)
        if first is not None:
            found.keys["operator"] = first
            for tenant in ("acme", "other"):
                deployment.create_tenant(tenant, actor=ACTOR)
                for role in ROLES:
                    found.keys[f"{tenant}/{role}"] = found.key(tenant, role)
        while not server.started:
            thread.join(0.01)
        try:
            yield found
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for the tests of a module."""
    with running(tmp_path_factory.mktemp("service") / "data") as found:
        yield found
