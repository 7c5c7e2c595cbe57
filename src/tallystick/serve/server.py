"""The service as a process: where it listens, how it begins, and how it ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tallystick.deployment import Deployment
from tallystick.errors import RejectedError
from tallystick.limits import LEDGERS_OPEN_MAX
from tallystick.serve.app import application
from tallystick.serve.crowd import Bounds, Crowd
from tallystick.serve.greeting import Greeting, Shared
from tallystick.serve.peers import PRIVATE, Peers
from tallystick.serve.protocol import BoundedProtocol
from tallystick.serve.service import Service
from tallystick.serve.settings import Settings
from tallystick.serve.websocket import BoundedWebSocket

_MESSAGE_BYTES_MAX: Final = 4_096
"""What a reader of a stream may say at once, to which nobody listens."""

_COLLECTING: Final = (20_000, 10, 10)
"""How many objects are made before cycles are looked for: of the usual 700 a loaded service makes as many in 10 ms."""

_M_ARENA_MAX: Final = -8
_M_MMAP_THRESHOLD: Final = -3
_MAPPED_BYTES: Final = 131_072
"""What glibc's malloc.h calls them, and the size from which a block is the system's again as soon as it is not used."""

_IDLE_SECONDS: Final = 75
_GRACE_SECONDS: Final = 30
_HANDLES_WANTED: Final = 16_384
_HANDLES_USUAL: Final = 512
_HANDLES_A_LEDGER: Final = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where to listen, and if over TLS with which files."""

    host: str = "127.0.0.1"
    port: int = 8080
    certificate: Path | None = None
    private_key: Path | None = None
    proxies: str = ""
    """Addresses of proxies, with commas between them, that are believed when they say for whom they ask."""

    @classmethod
    def of(cls, settings: Settings) -> Listening:
        """As the settings have it."""
        return cls(
            host=settings.host,
            port=settings.port,
            certificate=None if settings.tls_cert is None else Path(settings.tls_cert),
            private_key=None if settings.tls_key is None else Path(settings.tls_key),
            proxies=settings.trust_proxy,
        )

    @property
    def scheme(self) -> str:
        return "http" if self.certificate is None else "https"


class Server(uvicorn.Server):
    """uvicorn's, but it returns when it is told to stop, and does not wait for streams, which have no end."""

    def __init__(
        self,
        service: Service,
        at: Listening,
        *,
        private: socket.socket | None = None,
        listens: Callable[[], None] = lambda: None,
    ) -> None:
        """Raises `RejectedError` for a certificate that cannot be used.

        Over the socket `private` other processes of the service hand requests on. `listens` is called once it does.
        """
        bounds = Bounds.within(handles())
        super().__init__(_config(service, at, backlog=bounds.backlog))
        # TLS begins once a connection has its place: else those that never say a word of it would be counted nowhere.
        self._tls, self.config.ssl = self.config.ssl, None
        self._crowd: Final = Crowd(bounds, is_proxy=_trusted(at))
        self.server_state = Shared(self._crowd)
        self._service: Final = service
        self._private: Final = private
        self._listens: Final = listens

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer until it is told to stop."""
        return_memory()
        # What is there now stays, so the collector need not look at it again; and what requests leave goes by itself.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_COLLECTING)
        super().run(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is not None:
            self.config.http_protocol_class = partial(Greeting, self._tls)  # type: ignore[assignment]  # it makes them
        await super().startup(sockets)
        if self._private is not None:
            state = {**self.lifespan.state, PRIVATE: True}
            loop = asyncio.get_running_loop()
            handed_on = await loop.create_unix_server(
                lambda: BoundedProtocol(config=self.config, server_state=self.server_state, app_state=state),
                sock=self._private,
            )
            self.servers.append(handed_on)
        self._listens()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.streams.close()
        self._crowd.close_silent()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {which: signal.signal(which, self.handle_exit) for which in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)


def return_memory() -> None:
    """Have glibc give memory back to the system, where that is the C library: after a crowd of large requests it would
    keep twice as much as is in use, as each thread has a heap of its own (mallopt(3))."""
    with suppress(OSError, AttributeError):  # another C library, or another system
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def handles() -> int:
    """How many file handles the process may use now."""
    try:
        import resource  # noqa: PLC0415 - only where there is such a thing
    except ImportError:
        return _HANDLES_USUAL
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _HANDLES_WANTED if soft == resource.RLIM_INFINITY else soft


def raise_handles() -> int:
    """Have the process use as many file handles as it may, and say how many."""
    try:
        import resource  # noqa: PLC0415 - only where there is such a thing
    except ImportError:
        return _HANDLES_USUAL
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _HANDLES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _HANDLES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return handles()


def ledgers_within(handles: int) -> int:
    """How many ledgers may be open at once, when half of the handles are for connections."""
    return max(4, min(LEDGERS_OPEN_MAX, handles // 2 // _HANDLES_A_LEDGER))


def serve(
    settings: Settings,
    *,
    begin: Callable[[], Deployment],
    ready: Callable[[str, str | None], None] = lambda _, __: None,
) -> None:
    """Answer until the process is told to stop; what is under way is answered first, and the deployment closed.

    `begin` opens the deployment, in each of several processes. `ready` is told the address once they listen, and in a
    new deployment the operators' first key, which is made only then. Raises `RejectedError` if they cannot listen.
    """
    at = Listening.of(settings)
    _check_tls(at)
    try:
        listening = socket.create_server((at.host, at.port), backlog=Bounds.within(handles()).backlog)
    except OSError as error:
        cure = "choose another --host or --port, or stop what listens there"
        raise RejectedError(f"cannot listen at {at.host}:{at.port}: {error.strerror}", cure=cure) from error
    with listening:
        address = f"{at.scheme}://{at.host}:{listening.getsockname()[1]}"
        if settings.workers == 1:
            with begin() as deployment:
                server = Server(Service(deployment, settings), at)
                ready(address, deployment.begin())
                server.run(sockets=[listening])
            return
        from tallystick.serve.workers import serve_in_many  # noqa: PLC0415 - not every system has forks

        def run(peers: Peers, private: socket.socket, listens: Callable[[], None]) -> None:
            with begin() as deployment:
                Server(Service(deployment, settings, peers), at, private=private, listens=listens).run([listening])

        with begin() as deployment:  # and closed before there is another process
            first_key = deployment.begin()
        serve_in_many(run, settings.workers, ready=lambda: ready(address, first_key))


def check_listening(at: Listening, data: Path) -> None:
    """Whether a service could listen like this and keep its things there. Raises `RejectedError`; changes nothing."""
    _check_tls(at)
    place = next((folder for folder in (data, *data.absolute().parents) if folder.exists()), data)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        cure = "name a folder that this user may write"
        raise RejectedError(f"{place} cannot be written", place="data", cure=cure)


def _check_tls(at: Listening) -> None:
    if at.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(at.certificate, at.private_key)
    except (OSError, ValueError) as error:  # of OpenSSL's errors all are OSErrors
        cure = "give a certificate and its key, in PEM"
        raise RejectedError(f"the certificate cannot be used: {error}", place="TLS", cure=cure) from error


def _trusted(at: Listening) -> Callable[[str], bool]:
    """Whether an address is that of a proxy which is believed."""
    if not at.proxies:
        return lambda _: False
    return ProxyHeadersMiddleware(application, at.proxies).trusted_hosts.__contains__  # type: ignore[arg-type]  # never called


def _config(service: Service, at: Listening, *, backlog: int) -> uvicorn.Config:
    config = uvicorn.Config(
        application(service),
        log_config=None,
        loop="uvloop",
        http=BoundedProtocol,
        ws=BoundedWebSocket,
        ws_max_size=_MESSAGE_BYTES_MAX,
        ws_per_message_deflate=False,
        lifespan="on",
        backlog=backlog,
        access_log=False,
        server_header=False,
        proxy_headers=bool(at.proxies),
        forwarded_allow_ips=at.proxies or None,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        ssl_certfile=at.certificate,
        ssl_keyfile=at.private_key,
    )
    _check_tls(at)
    config.load()
    return config
