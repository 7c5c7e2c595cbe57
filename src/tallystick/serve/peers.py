"""The processes of one service. Each ledger has one that writes it; what comes to another is handed on.

So queue, lanes, jobs and quotas of a tenant are in one process, as they are where there is only one, and no two race
for the head of a ledger. Reads are answered wherever they come. They talk HTTP over sockets of the system that only
the user of the service can reach, and that outlive each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Final
from zlib import crc32

import httpx2

from tallystick.errors import BusyError, StoreError
from tallystick.limits import BODY_BYTES_MAX
from tallystick.serve.body import LeftError, Receive, read_body
from tallystick.serve.budget import Hold
from tallystick.serve.problems import AnsweredError, Send, answer, problem
from tallystick.serve.protocol import REQUEST_ID, REQUEST_ID_HEADER

PRIVATE: Final = "tallystick.private"
"""In the state of requests that another process handed on."""

_FOR: Final = b"tallystick-for"
"""The header that says for which address, to the other process only."""

_OWN_READS: Final = ("/api/v1/queue/", "/api/v1/tickets/", "/api/v1/jobs", "/api/v1/usage")
"""Beside everything that changes something: what only the process knows that writes the ledger."""

_NOT_HANDED_ON: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"transfer-encoding",
        b"content-length",
        b"upgrade",
        b"te",
        b"trailer",
        b"expect",
        REQUEST_ID_HEADER,
        _FOR,
    )
)
_OF_THE_LINE: Final = (b"connection", b"date", b"server", b"transfer-encoding", REQUEST_ID_HEADER)
_CONNECT_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 90.0
_CONNECTIONS: Final = 512
_CHUNK_BYTES: Final = 65_536


class Peers:
    """All processes, as one of them sees them. `sockets` are the paths of all, its own at `index`."""

    def __init__(self, index: int, sockets: Sequence[str]) -> None:
        self.index: Final = index
        self._sockets: Final = tuple(sockets)
        self._clients: Final[dict[int, httpx2.AsyncClient]] = {}

    def owner(self, tenant: str) -> int:
        """The process that writes the ledger of a tenant."""
        return crc32(tenant.encode()) % len(self._sockets)

    def is_for_owner(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a request has to be where its tenant's ledger is written, and was not handed on already."""
        if scope["type"] != "http" or scope.get("state", {}).get(PRIVATE):
            return False
        return scope["method"] not in ("GET", "HEAD") or scope["path"].startswith(_OWN_READS)

    def take_over(self, scope: MutableMapping[str, Any]) -> None:
        """Of a request that was handed on: it is as if it came from where it first did."""
        if scope.get("state", {}).get(PRIVATE):
            found = [value for name, value in scope["headers"] if name == _FOR]
            scope["headers"] = [pair for pair in scope["headers"] if pair[0] != _FOR]
            scope["client"] = (found[0].decode("latin-1"), 0) if found and found[0] else None

    async def hand_on(
        self, owner: int, scope: MutableMapping[str, Any], receive: Receive, send: Send, *, hold: Hold
    ) -> None:
        """Have another process answer. The body is in memory here meanwhile, as `hold` says."""
        try:
            body = await read_body(receive, "", most=BODY_BYTES_MAX, hold=hold)
            await self._answer(owner, scope, body, send)
        except LeftError:
            return
        except (AnsweredError, BusyError) as error:
            await answer(send, *problem(error))

    def others(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> Iterable[bytes]:
        """What all other processes answer to a GET; of one that does not answer nothing. From any thread."""
        for index, socket in enumerate(self._sockets):
            if index == self.index:
                continue
            transport = httpx2.HTTPTransport(uds=socket)
            with httpx2.Client(transport=transport, timeout=_CONNECT_SECONDS, trust_env=False) as client:
                try:
                    found = client.get(f"http://peer{path}", headers=list(headers))
                except httpx2.TransportError:
                    continue
                if found.status_code == 200:
                    yield found.content

    async def close(self) -> None:
        """Let go of connections."""
        for client in self._clients.values():
            await client.aclose()

    async def _answer(self, owner: int, scope: MutableMapping[str, Any], body: bytes, send: Send) -> None:
        query = scope["query_string"]
        # As it came: what the other process reads must be what was asked for here. A URL would lose `..` and the like.
        target = scope["raw_path"] + (b"?" + query if query else b"")
        client = scope.get("client")
        headers = [pair for pair in scope["headers"] if pair[0] not in _NOT_HANDED_ON]
        headers.append((_FOR, (client[0] if client else "").encode("latin-1")))
        headers.append((REQUEST_ID_HEADER, scope["state"][REQUEST_ID].encode()))
        begun = False
        try:
            # The body is framed here, by its length: nothing that came says how.
            request = self._client(owner).build_request(
                scope["method"], "http://peer", headers=headers, content=body, extensions={"target": target}
            )
            found = await self._client(owner).send(request, stream=True)
            try:
                kept = [pair for pair in found.headers.raw if pair[0].lower() not in _OF_THE_LINE]
                await send({"type": "http.response.start", "status": found.status_code, "headers": kept})
                begun = True
                async for chunk in found.aiter_raw(_CHUNK_BYTES):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            finally:
                await found.aclose()
            await send({"type": "http.response.body", "body": b""})
        except httpx2.HTTPError as error:
            if begun:
                raise  # the connection is cut, so that half an answer is not taken for a whole one
            ended = StoreError(f"the process that writes this ledger did not answer ({type(error).__name__})")
            await answer(send, *problem(ended))

    def _client(self, owner: int) -> httpx2.AsyncClient:
        client = self._clients.get(owner)
        if client is None:
            transport = httpx2.AsyncHTTPTransport(
                uds=self._sockets[owner],
                limits=httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            )
            timeout = httpx2.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS)
            client = httpx2.AsyncClient(transport=transport, timeout=timeout, trust_env=False)
            self._clients[owner] = client
        return client
