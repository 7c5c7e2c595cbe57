"""Errors as HTTP tells them: problem details (RFC 9457), with the place and the cure. The one table of statuses."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeAlias

import orjson

from tallystick.errors import (
    BusyError,
    ConflictError,
    DamagedError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
    TamperError,
    family_of,
)
from tallystick.serve.caller import Caller

Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_PATH: Final = re.compile(r"(?:/[\w.+~-]+)+/([\w.+~-]+)")
MEDIA_TYPE: Final = "application/problem+json"
RETRY_SECONDS: Final = 1

_FOR_OPERATORS: Final = "the service is not set up as it should be, and its operators are told"
_FAULTS: Final = (StoreError, TamperError)

STATUSES: Final[Mapping[type[TallystickError], tuple[int, str]]] = {
    RejectedError: (400, "Mend the request, then send it again"),
    DeniedError: (403, "This key may not do that"),
    NotFoundError: (404, "There is no such thing here"),
    ConflictError: (409, "Someone else was first"),
    BusyError: (503, "Wait a moment, then send the same again"),
    DamagedError: (500, "The ledger's files are damaged: the operators have to look"),
    StoreError: (503, "The outcome is unknown: send the same again, with the same ids"),
    TamperError: (500, "The evidence does not hold: stop, and raise the alarm"),
}
"""Family of errors → status and title."""


CURES: Final[Mapping[int, str]] = {
    400: "see /docs",
    401: "send a key or token that is in force, as Authorization: Bearer ...",
    403: "use a key of a role that may do it, or ask an Admin",
    404: "check the address, and what is asked for",
    405: "see /docs for the methods of each route",
    408: "send the whole request without pauses",
    409: "read again, then decide",
    413: "send less at once",
    415: "see /docs for the types that are taken",
    429: "send the same again when it says",
    500: "tell the operators",
    503: "send the same again, with the same ids, after Retry-After",
}
"""What to do about an answer, where nothing closer is known."""


class UnknownCallerError(DeniedError):
    """There is no key or token with the request, or none that is in force: 401, where `DeniedError` is 403."""


class StrayKeyError(UnknownCallerError):
    """The key is in force, and not for the address that it came from. Whoever answers with it has it recorded, too.

    The answer is that to an unknown key: it does not tell a thief that the key is good.
    """

    def __init__(self, told: str, caller: Caller) -> None:
        self.caller = caller
        super().__init__(told)


class PermissionDeniedError(DeniedError):
    """The caller's key has not the permission. Whoever answers with it has it recorded, too."""

    def __init__(self, permission: str, caller: Caller, why: str = "") -> None:
        self.permission = permission
        self.caller = caller
        super().__init__(why or f"the permission {permission} is missing: use a key of a role that has it")


class OverQuotaError(BusyError):
    """The tenant's plan has no room for it: 429, with the time to come again."""

    def __init__(self, problem: str, *, bound: str, reset_at: str, retry_seconds: int) -> None:
        self.bound = bound
        """Which one: that of the `month` or that of the `second`."""
        self.reset_at = reset_at
        self.retry_seconds = retry_seconds
        super().__init__(f"{problem}: send the same again after {reset_at}")


class AnsweredError(Exception):
    """What is answered with a status that no family of errors has."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        self.status, self.title, self.detail = status, title, detail
        super().__init__(detail)


def problem(error: TallystickError | AnsweredError, *, reading: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an error; of one that came while `reading` no outcome is unknown."""
    if isinstance(error, AnsweredError):  # of the body there may be more to come, which nobody reads
        body = orjson.dumps(problem_of(error.status, error.title, error.detail))
        return error.status, {"Content-Type": MEDIA_TYPE, "Connection": "close"}, body
    if error.for_operators:  # whatever kind it is: no request is at fault, and none can mend it
        error = StoreError(_FOR_OPERATORS)
    if isinstance(error, UnknownCallerError):
        status, title = 401, "Send a key that is in force: Authorization: Bearer ts_..."
    elif isinstance(error, OverQuotaError):
        status, title = 429, "The plan has no room for it"
    else:
        status, title = next(told for kind, told in STATUSES.items() if isinstance(error, kind))
        if reading and isinstance(error, StoreError):
            title = "It cannot be read just now: ask again"
    text = str(error)
    if isinstance(error, StoreError | TamperError | BusyError):
        text = _PATH.sub(r"\1", text)  # where things lie on the machine is nobody's business
    said = problem_of(status, title, text) | {"family": family_of(error)}
    if isinstance(error, RejectedError):
        said |= {"detail": error.problem, "place": error.place, "cure": error.cure or said["cure"]}
    if isinstance(error, PermissionDeniedError):
        said["permission"] = error.permission
    headers = {"Content-Type": MEDIA_TYPE}
    if isinstance(error, OverQuotaError):
        said |= {"bound": error.bound, "reset_at": error.reset_at}
        headers["Retry-After"] = str(error.retry_seconds)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="tallystick"'
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    return status, headers, orjson.dumps(said)


def is_fault(error: TallystickError) -> bool:
    """Whether it is ours, and not that of whoever asks: it is answered with 5xx, and the operators have to know."""
    return error.for_operators or isinstance(error, _FAULTS)


async def answer(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Send a whole answer, as ASGI has it."""
    named = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    named.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


def problem_of(status: int, title: str, detail: str) -> dict[str, Any]:
    """The members that every problem has. Types have no page of their own, so the status says what it is."""
    cure = CURES.get(status, "see /docs")
    return {"type": "about:blank", "title": title, "status": status, "detail": detail, "cure": cure}
