"""The time as another machine has it, by the `Date` of an HTTP answer: good to a second, which is enough here.

It is a second opinion against this machine's own clock, and nothing is ever sealed at it.
"""

from __future__ import annotations

import logging
import ssl
import threading
from email.utils import parsedate_to_datetime
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from tallystick.clock import Clock, running_clock
from tallystick.errors import RejectedError

_SECOND: Final = 1_000_000
_PATIENCE_SECONDS: Final = 3.0
_KEPT: Final = 3_600 * _SECOND
"""How long an answer serves: the running clock tells how much of it went by."""
_SILENT: Final = 60 * _SECOND
"""How long one that did not answer is not asked again, as callers wait for it."""
_OUT_OF_TIME: Final = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED

_log: Final = logging.getLogger("tallystick.clock")


class TimeSource:
    """Asks one server for the time, seldom. Safe for many threads."""

    def __init__(self, url: str, *, running: Clock = running_clock) -> None:
        """`url` is one of http or https; any path, any status. Raises `RejectedError` for another one."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RejectedError(f"{url[:100]!r} is no source of time", cure="give a URL such as https://example.com/")
        self._url: Final = url
        self._running: Final = running
        self._asking: Final = threading.Lock()
        self._told: int | None = None
        self._told_at: int | None = None

    def now(self) -> int | None:
        """The time, in microseconds since 1970; None when the server does not say it."""
        with self._asking:
            running = self._running()
            kept = _SILENT if self._told is None else _KEPT
            if self._told_at is None or running - self._told_at > kept:
                self._told, self._told_at = self._ask(), self._running()
            return None if self._told is None else self._told + self._running() - self._told_at

    def _ask(self) -> int | None:
        try:
            try:
                said = self._date(ssl.create_default_context())
            except ssl.SSLCertVerificationError as error:
                if error.verify_code not in _OUT_OF_TIME:
                    raise
                # By a clock that is far off every certificate is out of time, and this is when the answer is needed.
                # Whoever forges it has a right clock refused, or a wrong one not noticed, as without a source.
                said = self._date(ssl._create_unverified_context())
            return round(parsedate_to_datetime(said).timestamp() * _SECOND)
        except (OSError, HTTPException, ValueError, TypeError) as error:
            _log.warning("the time source %s does not say what time it is: %s", self._url, error)
            return None

    def _date(self, context: ssl.SSLContext) -> str:
        parts = urlsplit(self._url)
        assert parts.hostname is not None, "checked when it was set"
        server = (
            HTTPSConnection(parts.hostname, parts.port, timeout=_PATIENCE_SECONDS, context=context)
            if parts.scheme == "https"
            else HTTPConnection(parts.hostname, parts.port, timeout=_PATIENCE_SECONDS)
        )
        try:
            server.request("HEAD", parts.path or "/", headers={"Connection": "close"})
            return str(server.getresponse().headers["Date"])
        finally:
            server.close()
