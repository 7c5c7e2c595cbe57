"""Connections on which nothing takes longer than one try may take in all.

Timeouts of sockets begin anew with every byte, so who sends a byte now and then could hold a caller for ever. Here each
wait is bounded by what the thread's try has left, too. Behind a proxy only the plain timeouts hold.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any, Final

import httpcore2
import httpx2

_KEPT_SECONDS: Final = 30.0
"""How long an idle connection is kept: less than the service does, and most of what stands between."""

_CONNECTIONS_MAX: Final = 100
_WRITTEN_BYTES: Final = 65_536


class Deadline(threading.local):
    """Until when the present thread waits."""

    at: float | None = None

    def within(self, timeout: float | None) -> float | None:
        """The timeout, or less. Raises `httpcore2.ReadTimeout` when the time is over."""
        if self.at is None:
            return timeout
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore2.ReadTimeout("the answer was too slow")
        return left if timeout is None else min(timeout, left)


class Transport(httpx2.HTTPTransport):
    """The connections of one client."""

    def __init__(self, deadline: Deadline, *, tls: ssl.SSLContext | None, proxy: str | None) -> None:
        verify = True if tls is None else tls
        limits = httpx2.Limits(max_connections=_CONNECTIONS_MAX, keepalive_expiry=_KEPT_SECONDS)
        super().__init__(verify=verify, trust_env=False, limits=limits, proxy=proxy)
        if proxy is None:
            self._pool = httpcore2.ConnectionPool(
                ssl_context=httpx2.create_ssl_context(verify=verify, trust_env=False),
                max_connections=_CONNECTIONS_MAX,
                keepalive_expiry=_KEPT_SECONDS,
                network_backend=_Backend(deadline),
            )


class _Backend(httpcore2.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline: Final = deadline
        self._backend: Final = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.NetworkStream:
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore2.NetworkStream):
    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream: Final = stream
        self._deadline: Final = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.within(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITTEN_BYTES):
            self._stream.write(buffer[start : start + _WRITTEN_BYTES], self._deadline.within(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
