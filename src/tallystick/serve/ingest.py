"""The way in over HTTP: `POST /api/v1/events` and `/events/batch`, as bare ASGI, before any framework.

Bodies are bounded in bytes and time before anything reads them. An event is answered when it is durable (201; 200 for
the repeat of one), or with `?ack=queued` when the queue has it on disk (202). A batch says of each event what became of
it, or with `?atomic=true` takes all or none.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qsl, quote

import orjson

from tallystick.core import timestamp
from tallystick.errors import NotFoundError, RejectedError, TallystickError
from tallystick.limits import BODY_BYTES_MAX, EVENT_ID_CHARACTERS_MAX, INPUT_BYTES_MAX
from tallystick.serve.answering import ANSWERING, Answering
from tallystick.serve.body import AT_HAND_BYTES, LeftError, Receive, apart, read_body, split_body, wrong_type
from tallystick.serve.budget import Hold
from tallystick.serve.caller import Caller
from tallystick.serve.lanes import AT_HAND_EVENTS, Way
from tallystick.serve.problems import (
    MEDIA_TYPE,
    AnsweredError,
    OverQuotaError,
    PermissionDeniedError,
    Send,
    answer,
    problem,
    problem_of,
)
from tallystick.serve.service import Service, receipts
from tallystick.write.request import Submission

Scope: TypeAlias = MutableMapping[str, Any]

EVENTS_PATH: Final = "/api/v1/events"
BATCH_PATH: Final = "/api/v1/events/batch"
_JSON: Final = {"Content-Type": "application/json"}
_SHOWN: Final = 60
_TOLD_BYTES: Final = 320
"""What an answer has of each event of a batch, about: its receipt, or what is wrong with it."""

_log: Final = logging.getLogger("tallystick.serve")

_T = TypeVar("_T")


class _Asked(NamedTuple):
    """What the head of a request says."""

    content_type: str
    encoding: str
    key: str | None
    """`Idempotency-Key`."""
    is_queued: bool
    is_atomic: bool
    answering: Answering


class Ingest:
    """The two routes of one service; `takes` says whether a request is for them."""

    def __init__(self, service: Service) -> None:
        self._service: Final = service
        self._routes: Final = {EVENTS_PATH: self._one, BATCH_PATH: self._many}

    def takes(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["path"] in self._routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        if scope["method"] != "POST":
            said = problem_of(405, "The route has no such method", "POST events here; GET /api/v1/events/query reads")
            await answer(send, 405, {"Content-Type": MEDIA_TYPE, "Allow": "POST"}, orjson.dumps(said))
            return
        try:
            asked = _asked(scope)
            caller = self._service.caller_of(scope)
            self._service.permit(caller, "Write")
            self._service.check_reserve()
            with self._service.budget.hold(caller.tenant) as hold:
                status, body = await self._routes[scope["path"]](caller, asked, receive, hold)
            headers = _JSON
            self._service.metrics.seconds.observe(time.perf_counter() - began)
        except LeftError:
            return
        except (AnsweredError, TallystickError) as error:
            await self._service.note(error)
            if isinstance(error, OverQuotaError):
                self._service.metrics.over_quota.labels(error.bound).inc()
            status, headers, body = problem(error)
        except Exception as mistake:  # noqa: BLE001 - somebody waits for an answer, and the diagnostics have the mistake
            _log.exception("%s failed", scope["path"])
            self._service.note_fault(mistake)
            status, headers = 500, {"Content-Type": MEDIA_TYPE}
            body = orjson.dumps(problem_of(500, "A mistake of ours", "it is in the diagnostics of the service"))
        if status >= 400:
            self._service.metrics.refused.labels(str(status)).inc()
        await answer(send, status, headers, body)

    # ----------------------------------------------------------------------------------------------- one event

    async def _one(self, caller: Caller, asked: _Asked, receive: Receive, hold: Hold) -> tuple[int, bytes]:
        data = await read_body(receive, asked.encoding, most=INPUT_BYTES_MAX, hold=hold)
        if asked.content_type not in ("application/json", ""):
            raise wrong_type(asked.content_type, "application/json")
        key = asked.key
        if key is not None:
            data = await _near([data], lambda: _with_id(data, key))
        if not caller.principal.scope.is_whole:
            await _near([data], lambda: self._check_scope(caller, [data]))
        submission = Submission([data], caller.principal.actor)
        await self._take(caller, [data])
        if asked.is_queued:
            return 202, orjson.dumps(self._told(caller, await self._queue(caller, submission))[0])
        told = receipts(await self._submit(caller, submission))[0]
        self._service.metrics.appended.inc()
        return 200 if told["replayed"] else 201, orjson.dumps(told)

    async def _queue(self, caller: Caller, submission: Submission) -> Sequence[Any]:
        tickets = await self._submit(caller, submission, way="publish")
        self._service.metrics.queued.inc(len(tickets))
        return tickets

    def _told(self, caller: Caller, tickets: Sequence[Any]) -> list[dict[str, Any]]:
        if caller.principal.scope.is_whole:
            return _tickets(tickets)
        return _tickets([replace(one, proof=self._service.prove_ticket(caller, one.id)) for one in tickets])

    async def _take(self, caller: Caller, events: Sequence[bytes]) -> None:
        """Have the plan's room for these. What is all there already needs none: it is only answered again."""
        try:
            await self._service.quotas.take(caller.tenant, len(events))
        except OverQuotaError:
            if not await asyncio.to_thread(self._are_there, caller, events):
                raise
            self._service.quotas.owe(caller.tenant, len(events))

    def _are_there(self, caller: Caller, events: Sequence[bytes]) -> bool:
        """Whether all of these have ids by which they were sealed before."""
        with self._service.ledger_of(caller) as ledger:
            for data in events:
                if len(data) > INPUT_BYTES_MAX:
                    return False
                try:
                    said = orjson.loads(data)
                    ledger.get(said["id"] if isinstance(said["id"], str) else "")
                except (orjson.JSONDecodeError, NotFoundError, KeyError, TypeError):
                    return False
        return True

    async def _submit(self, caller: Caller, submission: Submission, *, way: Way = "append") -> Sequence[Any]:
        """Have events sealed or queued for which the plan had room; it gets back what came to nothing."""
        try:
            done = await self._service.lanes.submit(caller.ledger, submission, way=way)
        except TallystickError:
            self._service.quotas.give_back(caller.tenant, len(submission.events))
            raise
        replayed = sum(one.replayed for one in done) if way == "append" else 0
        if replayed:
            self._service.quotas.give_back(caller.tenant, replayed)
        return done

    def _check_scope(self, caller: Caller, events: Sequence[bytes]) -> None:
        """A key of some types and entities brings no others. What cannot be read is refused with its reason, later."""
        scope = caller.principal.scope
        if scope.is_whole:
            return
        for data in events:
            if len(data) > INPUT_BYTES_MAX:
                continue
            try:
                said = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
            kind, entity = (said.get("event_type"), said.get("entity_id")) if isinstance(said, dict) else (None, None)
            if isinstance(kind, str) and isinstance(entity, str) and not scope.takes(kind, entity):
                why = f"this key is not for {kind[:_SHOWN]} of {entity[:_SHOWN]}"
                raise PermissionDeniedError("Write", caller, why)

    # --------------------------------------------------------------------------------------------- many events

    async def _many(self, caller: Caller, asked: _Asked, receive: Receive, hold: Hold) -> tuple[int, bytes]:
        if asked.key is not None:
            cure = "give each event an id of its own"
            raise RejectedError("a batch has no Idempotency-Key", place="Idempotency-Key", cure=cure)
        data = await read_body(receive, asked.encoding, most=BODY_BYTES_MAX, hold=hold)
        events = await split_body(data, asked.content_type, hold=hold)
        hold.give_back(len(data))
        del data
        await _near(events, lambda: self._check_scope(caller, events))
        asked.answering.hold.take(len(events) * _TOLD_BYTES)  # before anything is done of which an answer tells
        await self._take(caller, events)
        if asked.is_queued:
            tickets = await self._queue(caller, Submission(events, caller.principal.actor))
            told = {"accepted": len(tickets)}
            return 202, await _near(events, lambda: orjson.dumps({**told, "events": self._told(caller, tickets)}))
        try:  # nearly always all are good, and one commit's worth
            sealed = await self._submit(caller, Submission(events, caller.principal.actor))
        except TallystickError as error:
            if asked.is_atomic or not _is_about_one(error):
                raise
            return await self._each(caller, events)
        self._service.metrics.appended.inc(len(sealed))
        told = {"sealed": len(sealed), "refused": 0}
        return 201, await _near(events, lambda: orjson.dumps({**told, "events": receipts(sealed)}))

    async def _each(self, caller: Caller, events: Sequence[bytes]) -> tuple[int, bytes]:
        """The answer with what became of each: its receipt, or the problem with it.

        All that can be sealed are sealed in order.
        """
        quotas, actor = self._service.quotas, caller.principal.actor
        await quotas.take(caller.tenant, len(events))  # which it has just got back
        try:
            outcomes = await self._service.lanes.submit_each(
                caller.ledger, await _near(events, lambda: [Submission([event], actor) for event in events])
            )
        except TallystickError:
            quotas.give_back(caller.tenant, len(events))
            raise
        refused = sum(isinstance(outcome, TallystickError) for outcome in outcomes)
        replayed = sum(outcome[0].replayed for outcome in outcomes if not isinstance(outcome, TallystickError))
        quotas.give_back(caller.tenant, refused + replayed)
        self._service.metrics.appended.inc(len(events) - refused)
        return 207 if refused else 201, await _near(events, lambda: _rendered(outcomes, refused))


def _is_about_one(error: TallystickError) -> bool:
    """Whether an error is about an event of the batch: the others may be good."""
    return problem(error)[0] in (400, 409)


async def _near(events: Sequence[bytes], work: Callable[[], _T]) -> _T:
    """Do what takes as long as there are events: of a few small ones at once, else by a thread."""
    is_little = len(events) <= AT_HAND_EVENTS and sum(map(len, events)) <= AT_HAND_BYTES
    return work() if is_little else await apart(work)


def _rendered(outcomes: Sequence[Any], refused: int) -> bytes:
    told: list[dict[str, Any]] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, TallystickError):
            told.append({"index": index, **orjson.loads(problem(outcome)[2])})
        else:
            told += receipts(outcome)
    return orjson.dumps({"sealed": len(told) - refused, "refused": refused, "events": told})


def _breach(one: Any) -> dict[str, str]:
    return {"breach": one.breach} if one.breach else {}


def _tickets(tickets: Sequence[Any]) -> list[dict[str, Any]]:
    return [
        {
            "ticket": one.id,
            "id": one.event_id,
            "accepted_at": timestamp.render(one.accepted_at),
            "status": f"/api/v1/tickets/{quote(one.id)}",
            **_breach(one),
        }
        for one in tickets
    ]


# ------------------------------------------------------------------------------------------------ the request


def _asked(scope: Scope) -> _Asked:
    said = {}
    for name, value in scope["headers"]:
        if name in said and name == b"idempotency-key":
            raise RejectedError("there is more than one", place="Idempotency-Key", cure="send one")
        if name in (b"content-type", b"content-encoding", b"idempotency-key"):
            said[name] = value.decode("latin-1")
    options = {}
    query: bytes = scope["query_string"]
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True) if query else ():
        if (name, value) not in (("ack", "queued"), ("ack", "durable"), ("atomic", "true"), ("atomic", "false")):
            cure = "use ack=queued or ack=durable, and atomic=true or atomic=false"
            raise RejectedError(f"{name[:_SHOWN]}={value[:_SHOWN]} is no option", place="query", cure=cure)
        options[name] = value
    key = said.get(b"idempotency-key")
    if key is not None and not (0 < len(key) <= EVENT_ID_CHARACTERS_MAX and key.isascii() and key.isprintable()):
        cure = f"send 1 to {EVENT_ID_CHARACTERS_MAX} printable characters"
        raise RejectedError("it cannot be an event's id", place="Idempotency-Key", cure=cure)
    return _Asked(
        content_type=said.get(b"content-type", "").partition(";")[0].strip().lower(),
        encoding=said.get(b"content-encoding", "identity").strip().lower(),
        key=key,
        is_queued=options.get("ack") == "queued",
        is_atomic=options.get("atomic") == "true",
        answering=scope["state"][ANSWERING],
    )


def _with_id(data: bytes, key: str) -> bytes:
    """The event with the key for its id, written in before its other members, which stay as they are."""
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        return data  # which is refused, with its reason, when it is accepted
    if not isinstance(said, dict) or not said:
        return data
    given = said.get("id", key)
    if given != key:
        cure = "send one of them, or twice the same"
        raise RejectedError("Idempotency-Key and the event's id are not the same", place="Idempotency-Key", cure=cure)
    return data if "id" in said else data.replace(b"{", b'{"id":%b,' % orjson.dumps(key), 1)
