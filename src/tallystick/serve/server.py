"""The service as a process: where it listens, how it begins, and how it ends."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvicorn

from tallystick.deployment import Deployment
from tallystick.errors import RejectedError
from tallystick.serve.app import application
from tallystick.serve.protocol import BoundedProtocol
from tallystick.serve.service import Service, Settings

_IDLE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 30
_CONNECTIONS_MAX: Final = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, and if over TLS with which files."""

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    private_key: Path | None = None
    proxies: str = ""
    """Addresses of proxies, with commas between them, that are believed when they say for whom they ask."""

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


class _Server(uvicorn.Server):
    """uvicorn's, which for being told to stop ends as a process that was killed; this one returns."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {which: signal.signal(which, self.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


def serve(
    deployment: Deployment,
    at: Listening,
    settings: Settings | None = None,
    *,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Answer until the process is told to stop; what is under way is answered first, and the deployment closed.

    `ready` is told the address once it listens. Raises `RejectedError` if it cannot.
    """
    config = uvicorn.Config(
        application(Service(deployment, settings)),
        loop="uvloop",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(at.proxies),
        forwarded_allow_ips=at.proxies or None,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_CONNECTIONS_MAX,
        ssl_certfile=at.certificate,
        ssl_keyfile=at.private_key,
    )
    try:
        config.load()
    except (OSError, ValueError) as error:
        cure = "give a certificate and its key, in PEM"
        raise RejectedError(f"the certificate cannot be used: {error}", place="TLS", cure=cure) from error
    try:
        listening = socket.create_server((at.host, at.port), backlog=2_048)
    except OSError as error:
        cure = "choose another --host or --port, or stop what listens there"
        raise RejectedError(f"cannot listen at {at.host}:{at.port}: {error.strerror}", cure=cure) from error
    with listening:
        ready(f"{at.scheme}://{at.host}:{listening.getsockname()[1]}")
        _Server(config).run(sockets=[listening])
