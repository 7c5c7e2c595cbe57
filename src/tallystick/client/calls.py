"""One call of the service: tried until it is answered, refused for good, or its time is over.

Network errors, cut connections and the statuses of `problems.AGAIN` are tried again, after waits as `tries` has them.
What may not be done twice is sent once: it is tried again only if it cannot have arrived. Answers are bounded before
they are read, and redirects are not followed. After a fork the child has connections and event ids of its own.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote

from tallystick.client.address import Address
from tallystick.client.problems import AGAIN, MEDIA_TYPE, PROBLEM_BYTES_MAX, read_problem
from tallystick.client.tries import FailedError, Failure, Tries, retry_after
from tallystick.clock import Clock
from tallystick.errors import RejectedError, StoreError
from tallystick.ids import IdMaker
from tallystick.limits import CLIENT_ANSWER_BYTES_MAX, QUERY_BYTES_MAX

if TYPE_CHECKING:
    import httpx2

    from tallystick.client.transport import Deadline

JSON: Final = "application/json"
NDJSON: Final = "application/x-ndjson"
TEXT: Final = "text/plain"
_CONNECT_SECONDS: Final = 10.0
_CLOSED: Final = "the client is closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked of the service."""

    method: str = "GET"
    path: str
    """Behind the service's URL, percent-encoded."""
    terms: tuple[str, ...] = ()
    """The query string, as its parts before they are encoded."""
    body: bytes | None = None
    content_type: str = JSON
    accept: str = JSON
    """The type of the answer; any other is not the service's."""
    headers: tuple[tuple[str, str], ...] = ()
    changes: bool = False
    """Whether it changes anything: then a lost answer leaves the outcome unknown."""
    repeatable: bool = True
    """Whether doing it twice is as good as once."""


class Answer(NamedTuple):
    """What came back, whole."""

    status: int
    body: bytes


class Opened:
    """An answer whose body has not been read yet."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response: Final = response
        self.status: Final = response.status_code

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes."""
        yield from self._response.iter_raw()

    def hang_up(self) -> None:
        """Have whoever waits for more, in whatever thread, wait no longer.

        Nothing is closed here: the number of a socket that is closed may be another one's before its reader notices.
        """
        stream = self._response.extensions.get("network_stream")
        connection = None if stream is None else stream.get_extra_info("socket")
        if connection is not None:
            with suppress(OSError):  # it is over already
                socket.socket.shutdown(connection, socket.SHUT_RDWR)  # TLS's own would forget that it is TLS


class _Home:
    """What belongs to one process: connections, which the last one who uses them closes, and event ids."""

    def __init__(self, http: httpx2.Client, deadline: Deadline) -> None:
        self.pid: Final = os.getpid()
        self.http: Final = http
        self.deadline: Final = deadline
        self.ids: Final = IdMaker()
        self._lock: Final = threading.Lock()
        self._opened: Final[set[Opened]] = set()
        self._users = 0
        self._is_over = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """While connections are in use."""
        with self._lock:
            if self._is_over:
                raise StoreError(_CLOSED)
            self._users += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def open(self, opened: Opened) -> Iterator[Opened]:
        """While an answer is read."""
        with self._lock:
            self._opened.add(opened)
            if self._is_over:
                opened.hang_up()
        try:
            yield opened
        finally:
            with self._lock:
                self._opened.discard(opened)

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._is_over and not self._users
        if is_last:
            self.http.close()

    def close(self) -> None:
        """Let go of connections as soon as nobody uses them, and have who reads wait no longer."""
        with self._lock:
            self._is_over = True
            for opened in self._opened:
                opened.hang_up()
            is_unused = not self._users
        if is_unused:
            self.http.close()


class Calls:
    """The way to one service. Safe for many threads."""

    def __init__(self, address: Address, *, seconds: float, clock: Clock) -> None:
        self._address: Final = address
        self.seconds: Final = checked_seconds(seconds)
        """How long one call may take, all its tries together."""
        self._clock: Final = clock
        self._closed: Final = threading.Event()
        self._moving: Final = threading.Lock()
        self._home = self._settle()

    @property
    def ids(self) -> IdMaker:
        """What makes event ids, in this process."""
        return self._at_home().ids

    def call(
        self,
        request: Request,
        *,
        seconds: float | None = None,
        unfinished: Callable[[Answer], str] = lambda _: "",
    ) -> Answer:
        """The answer, of a 2xx status. `unfinished` may say why an answer is to be asked for again.

        Raises the error that the service answered with; `BusyError` when the time is over, or `StoreError` if the
        request may have been carried out; and `StoreError` for an answer that is not the service's.
        """
        tries = self.tries(seconds)
        while True:
            try:
                answer = self._try(request, tries)
                why = unfinished(answer)
                if not why:
                    return answer
                raise FailedError(Failure(why, reached=True))
            except FailedError as error:
                tries.again_after(error.failure, request)

    def tries(self, seconds: float | None = None) -> Tries:
        """Tries that have so long, by default as long as any call."""
        given = self.seconds if seconds is None else checked_seconds(seconds)
        return Tries(given, closed=self._closed, host=self._address.url)

    @contextmanager
    def opened(self, request: Request, *, seconds: float, whole: bool = False) -> Iterator[Opened]:
        """One try: an answer of a 2xx status, to be read. Nothing is waited for longer than `seconds` at a time, and if
        `whole` not for longer in all.

        Raises `FailedError` if another try may do better, else the error for good.
        """
        import httpx2

        home = self._at_home()
        connect = min(seconds, _CONNECT_SECONDS)
        timeouts = httpx2.Timeout(seconds, connect=connect, pool=connect)
        headers = dict(request.headers) | {"Accept": f"{request.accept}, {MEDIA_TYPE}"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        built = home.http.build_request(
            request.method, self._url(request), content=request.body, headers=headers, timeout=timeouts
        )
        home.deadline.at = time.monotonic() + seconds if whole else None
        try:
            with home.used(), closing(home.http.send(built, stream=True)) as response:
                self._check(request, response)
                with home.open(Opened(response)) as opened:
                    yield opened
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            _check_certificate(error)
            raise FailedError(Failure(f"no connection: {_told(error)}", reached=False)) from error
        except httpx2.TransportError as error:
            unknown = request.changes
            raise FailedError(Failure(_told(error), reached=True, unknown=unknown)) from error
        finally:
            home.deadline.at = None

    def rest(self, seconds: float) -> None:
        """Wait, unless the client is closed by then, which is a `StoreError`."""
        if self._closed.wait(seconds):
            raise StoreError("the client was closed")

    def close(self) -> None:
        """Let go of connections. Who waits for another try waits no longer."""
        self._closed.set()
        self._home.close()

    # ------------------------------------------------------------------------------------------------ one try

    def _try(self, request: Request, tries: Tries) -> Answer:
        with self.opened(request, seconds=tries.seconds_for_one(), whole=True) as opened:
            found = bytearray()
            for chunk in opened.chunks():
                found += chunk
                if len(found) > CLIENT_ANSWER_BYTES_MAX:
                    raise StoreError(
                        f"{self._where(request)} answered with more than {CLIENT_ANSWER_BYTES_MAX:,} bytes"
                    )
            return Answer(opened.status, bytes(found))

    def _check(self, request: Request, response: httpx2.Response) -> None:
        """Raises unless the answer is one of the service's, of a 2xx status."""
        status = response.status_code
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if 300 <= status < 400:
            cure = "give the URL of the service itself: the key is not sent elsewhere"
            raise RejectedError(f"{self._where(request)} is answered from elsewhere ({status})", place="url", cure=cure)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise StoreError(f"{self._where(request)} was answered in an encoding that was not asked for")
        if 200 <= status < 300:
            if status != 204 and kind != request.accept:
                raise self._foreign(request, status, kind)
            return
        problem = read_problem(kind, _beginning(response))
        error = None if problem is None else problem.error(hiding=self._address.key)
        if status in AGAIN:
            unknown = request.changes and (isinstance(error, StoreError) if error else status != 429)
            after = retry_after(response.headers.get("Retry-After"), self._clock)
            why = f"{status}: {error or 'from something between us and the service'}"
            raise FailedError(Failure(why, reached=status != 429, unknown=unknown, after=after, error=error))
        raise error or self._foreign(request, status, kind)

    def _foreign(self, request: Request, status: int, kind: str) -> StoreError:
        what = ascii(kind[:60]) if kind else "no type"
        return StoreError(
            f"{self._where(request)} was answered with {status} and {what}, which the service does not write: "
            "check the URL, and what stands between"
        )

    def _where(self, request: Request) -> str:
        return f"{request.method} {self._address.url}{request.path[:200]}"

    def _url(self, request: Request) -> str:
        query = "&".join(quote(term, safe="=") for term in request.terms)
        if len(query) > QUERY_BYTES_MAX:
            problem = f"a query of {len(query)} characters; at most {QUERY_BYTES_MAX} are allowed"
            raise RejectedError(problem, cure="ask for less at once")
        return f"{self._address.url}{request.path}{'?' if query else ''}{query}"

    # --------------------------------------------------------------------------------------------- the process

    def _at_home(self) -> _Home:
        if self._closed.is_set():
            raise StoreError(_CLOSED)
        if self._home.pid != os.getpid():
            with self._moving:
                if self._home.pid != os.getpid():
                    self._home = self._settle()
        return self._home

    def _settle(self) -> _Home:
        import httpx2

        from tallystick.client.transport import Deadline, Transport

        address, deadline = self._address, Deadline()
        try:
            http = httpx2.Client(
                headers={
                    "Authorization": f"Bearer {address.key}",
                    "Accept-Encoding": "identity",
                    "User-Agent": "tallystick",
                },
                transport=Transport(deadline, tls=address.tls, proxy=address.proxy),
                trust_env=False,
                follow_redirects=False,
            )
            http.build_request("GET", address.url)
        except (httpx2.InvalidURL, ValueError, ImportError) as error:
            raise RejectedError("the URL or the proxy cannot be used", place="url", cure="check them") from error
        return _Home(http, deadline)


def checked_seconds(seconds: object) -> float:
    """A time that somebody may wait. Raises `RejectedError`."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 1e9:
        raise RejectedError(f"{seconds!r} is no time to wait", place="seconds", cure="give seconds, above 0")
    return float(seconds)


def _beginning(response: httpx2.Response) -> bytes:
    """What a problem may have, and a byte more."""
    found = bytearray()
    for chunk in response.iter_raw():
        found += chunk
        if len(found) > PROBLEM_BYTES_MAX:
            break
    return bytes(found)


def _told(error: Exception) -> str:
    return str(error)[:200] or type(error).__name__


def _check_certificate(error: BaseException) -> None:
    """A server that is not the right one is so however often it is tried. Raises `RejectedError`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            cure = "give the file of its authority as ca_file; or somebody stands between"
            raise RejectedError(f"its certificate does not hold: {cause.verify_message}", place="TLS", cure=cure)
        if isinstance(cause, ssl.SSLError) and cause.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
            raise RejectedError("it does not speak TLS", place="url", cure="check the port, and https or http")
        cause = cause.__cause__ or cause.__context__
