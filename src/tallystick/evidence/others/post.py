"""Asking someone outside, over HTTP: one request, one answer, bounded in bytes and in time.

Witnesses and timestamp authorities may be down, slow, or lie. Nothing of ours waits for them longer than it was told
to, and no answer is believed for having arrived.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from tallystick.errors import BusyError, RejectedError

SECONDS: Final = 10.0
"""How long one request may take in all when nothing else is said."""

_ANSWER_BYTES_MAX: Final = 262_144


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    content_type: str
    body: bytes


def post(url: str, body: bytes, *, content_type: str, accept: str = "*/*", seconds: float = SECONDS) -> Answer:
    """Send a POST. Redirects are not followed.

    Raises `RejectedError` for a URL that is none, `BusyError` when there is no whole answer in time.
    """
    import httpx2

    headers = {"Content-Type": content_type, "Accept": accept, "Accept-Encoding": "identity"}
    deadline = time.monotonic() + seconds
    try:
        with (
            httpx2.Client(timeout=seconds, follow_redirects=False) as client,
            client.stream("POST", url, content=body, headers=headers) as response,
        ):
            found = bytearray()
            for chunk in response.iter_raw():
                found += chunk
                if len(found) > _ANSWER_BYTES_MAX:
                    raise BusyError(f"{url} sent more than {_ANSWER_BYTES_MAX} bytes")
                if time.monotonic() > deadline:
                    raise BusyError(f"{url} took longer than {seconds:g} s")
            return Answer(response.status_code, response.headers.get("Content-Type", ""), bytes(found))
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise RejectedError(
            f"{url!r} is not a URL to ask: {error}", cure="give one with http:// or https://"
        ) from error
    except httpx2.HTTPError as error:
        raise BusyError(f"{url} did not answer: {str(error) or type(error).__name__}") from error
