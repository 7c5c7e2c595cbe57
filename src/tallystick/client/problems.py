"""Refusals of the service as the library's own errors: the same families, with place and cure.

What is no answer of the service's, such as a page that a proxy made, is told apart from its refusals, and never shown:
it may repeat what was sent to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tallystick.errors import (
    FAMILIES,
    BusyError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
)

MEDIA_TYPE: Final = "application/problem+json"
PROBLEM_BYTES_MAX: Final = 65_536
_TEXT_MAX: Final = 2_000

AGAIN: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses after which the same request may do better."""

_BY_STATUS: Final[Mapping[int, type[TallystickError]]] = {
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    408: BusyError,
    409: ConflictError,
    429: BusyError,
    503: BusyError,
}


class Problem(msgspec.Struct, frozen=True):
    """Problem details (RFC 9457), as far as the service has them."""

    status: int
    title: str = ""
    detail: str = ""
    place: str = ""
    cure: str = ""
    family: str = ""

    def error(self, *, hiding: str = "") -> TallystickError:
        """The error that it tells of; it shows nothing of the secret `hiding`, should somebody have put it there."""
        kind = FAMILIES.get(self.family) or _BY_STATUS.get(self.status)
        if kind is None:
            kind = RejectedError if 400 <= self.status < 500 else StoreError
        said = self.detail or self.title or f"status {self.status}"
        if issubclass(kind, RejectedError):
            cure = self.cure or ("" if self.family else self.title)
            return kind(_shown(said, hiding), place=_shown(self.place, hiding), cure=_shown(cure, hiding))
        return kind(_shown(said, hiding))


_decode: Final = msgspec.json.Decoder(Problem).decode


def read_problem(content_type: str, body: bytes) -> Problem | None:
    """The problem in an answer, or None if the service did not write it."""
    if content_type != MEDIA_TYPE or len(body) > PROBLEM_BYTES_MAX:
        return None
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def error_in(told: Any) -> TallystickError:
    """The error in a problem that is part of an answer. Raises `StoreError` for what is none."""
    try:
        return msgspec.convert(told, Problem).error()
    except msgspec.ValidationError as error:
        raise StoreError(f"the service told of a problem that cannot be read: {error}") from error


def _shown(text: str, hiding: str) -> str:
    return (text.replace(hiding, "***") if hiding else text)[:_TEXT_MAX]
