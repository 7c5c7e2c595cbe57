"""The writing half of the client: events to the service, at once or by its queue, each exactly once.

Every event has an id before it is sent, and keeps it in every try; the service answers a repeat with the first record.
So a try whose answer was lost is repeated, and nothing is sealed twice. Batches go one after another, which keeps the
order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, overload

from tallystick.client.answers import outcomes_of, progress_of, sealed_of, ticket_of, tickets_of
from tallystick.client.calls import NDJSON, Answer, Calls, Request
from tallystick.client.paths import quoted
from tallystick.client.problems import AGAIN, error_in
from tallystick.core.canonical import decode, to_json
from tallystick.core.event import Event
from tallystick.errors import BusyError, RejectedError, StoreError, TallystickError
from tallystick.ids import spell
from tallystick.limits import BATCH_EVENTS_MAX, BODY_BYTES_MAX, INPUT_BYTES_MAX
from tallystick.write.queue import Progress, Ticket
from tallystick.write.request import Sealed

EventLike: TypeAlias = Event | Mapping[str, Any] | bytes
Outcome: TypeAlias = Sealed | TallystickError
"""What became of an event: its receipt, or why it was refused."""

_EVENTS: Final = "/api/v1/events"
_BATCH: Final = "/api/v1/events/batch"
_QUEUED: Final = ("ack=queued",)
_BATCH_EVENTS: Final = 1_000
"""Events sent at once where nothing asks for more together: what a lost answer has to repeat."""
_BATCH_BYTES: Final = 4_194_304


class UnfinishedError(StoreError):
    """The service gave no answer in time, and part of what was to be sent may be sealed.

    `outcomes` is what became of the events before, in their order; `left` are those that were sent without an answer,
    as JSON with the ids that they have. Sending `left`, and then what was to come behind, completes it: what was sealed
    already is answered with its record.
    """

    def __init__(self, problem: str, *, outcomes: Sequence[Outcome] = (), left: Sequence[bytes] = ()) -> None:
        self.outcomes: Final = tuple(outcomes)
        self.left: Final = tuple(left)
        super().__init__(problem)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_unfinished, (str(self), self.outcomes, self.left)


class _Outgoing(NamedTuple):
    """An event as it is sent, and whether its id was made here."""

    data: bytes
    is_made: bool


class Appending:
    """What takes events in. Safe for many threads."""

    _calls: Calls

    def append(self, event: EventLike | None = None, /, **members: Any) -> Sealed:
        """Seal one event, given whole or as members of `Event`. On return it is durable.

        Raises `RejectedError`, `ConflictError` (the expected version, or the id used for other content), `BusyError`,
        `DeniedError`, or `UnfinishedError`, after which the outcome is unknown: it has the event with its id.
        """
        going = self._outgoing(_one_event(event, members))
        try:
            answer = self._calls.call(_sending(_EVENTS, going.data))
        except StoreError as error:
            raise UnfinishedError(str(error), left=[going.data]) from error
        return _own(sealed_of(answer.body), going)

    @overload
    def append_many(self, events: Iterable[EventLike], *, atomic: Literal[True] = True) -> Sequence[Sealed]: ...

    @overload
    def append_many(self, events: Iterable[EventLike], *, atomic: bool) -> Sequence[Outcome]: ...

    def append_many(self, events: Iterable[EventLike], *, atomic: bool = True) -> Sequence[Outcome]:
        """Seal up to 10,000 events in their order and as one commit: all of them, or none.

        With `atomic=False` as many as there are, batch by batch and in their order, each for itself: what became of
        each is its receipt, or the `RejectedError` or `ConflictError` why it was not taken. Raises as `append` does; a
        `RejectedError` names the event by its index.
        """
        if not atomic:
            return self._append_each(events)
        going = []
        for index, event in enumerate(events):
            if index >= BATCH_EVENTS_MAX:
                cure = "give them in parts, or say atomic=False"
                raise RejectedError(f"more than {BATCH_EVENTS_MAX} events at once", cure=cure)
            going.append(self._numbered(event, index))
        if not going:
            return []
        body = _lines(going)
        if len(body) > BODY_BYTES_MAX:
            cure = "give them in parts, or say atomic=False"
            raise RejectedError(f"events of {len(body):,} bytes; at most {BODY_BYTES_MAX:,} go at once", cure=cure)
        try:
            answer = self._calls.call(_sending(_BATCH, body, ("atomic=true",), NDJSON))
        except StoreError as error:
            raise UnfinishedError(str(error), left=[one.data for one in going]) from error
        return [_sealed(outcome) for outcome in _outcomes(answer, going)]

    def append_in_batches(self, events: Iterable[EventLike]) -> Iterator[Outcome]:
        """As `append_many` with `atomic=False`, for any number of them: what became of each, as soon as it is known.

        The events are taken batch by batch, as the outcomes are. Raises `UnfinishedError` when the service gives no
        answer in time, and `DeniedError`; what was yielded before stands.
        """
        for batch in _batches(events, self._outgoing):
            going = [one for one in batch if isinstance(one, _Outgoing)]
            try:
                sealed = iter(self._send_each(going) if going else ())
            except (BusyError, StoreError) as error:
                raise UnfinishedError(str(error), left=[one.data for one in going]) from error
            for one in batch:
                yield next(sealed) if isinstance(one, _Outgoing) else one

    def _append_each(self, events: Iterable[EventLike]) -> list[Outcome]:
        done: list[Outcome] = []
        try:
            done.extend(self.append_in_batches(events))
        except UnfinishedError as error:
            problem = f"{error}; of {len(done):,} events before it is known what became of them"
            raise UnfinishedError(problem, outcomes=done, left=error.left) from error
        except TallystickError as error:
            error.add_note(f"of {len(done):,} events before it is known that they were answered")
            raise
        return done

    def publish(self, event: EventLike | None = None, /, **members: Any) -> Ticket:
        """Take an event in, as `append` does, without waiting for its turn: durable on return, and sealed soon after.

        What has become of it, says `progress`. Raises as `append` does, and `BusyError` when the queue is full.
        """
        going = self._outgoing(_one_event(event, members))
        try:
            answer = self._calls.call(_sending(_EVENTS, going.data, _QUEUED))
        except StoreError as error:
            raise UnfinishedError(str(error), left=[going.data]) from error
        return ticket_of(answer.body)

    def publish_many(self, events: Iterable[EventLike]) -> list[Ticket]:
        """Take up to 10,000 events in, in their order and with one wait for the disk: all of them, or none.

        Raises as `publish` does; a `RejectedError` names the event by its index among `events`.
        """
        going = [self._numbered(event, index) for index, event in enumerate(events)]
        if not going:
            return []
        body = _lines(going)
        if len(going) > BATCH_EVENTS_MAX or len(body) > BODY_BYTES_MAX:
            problem = f"{len(going):,} events of {len(body):,} bytes are too many at once"
            raise RejectedError(problem, cure="give them in parts")
        try:
            answer = self._calls.call(_sending(_BATCH, body, _QUEUED, NDJSON))
        except StoreError as error:
            raise UnfinishedError(str(error), left=[one.data for one in going]) from error
        tickets = tickets_of(answer.body)
        if len(tickets) != len(going):
            raise UnfinishedError("the answer has not a ticket for each event", left=[one.data for one in going])
        return tickets

    def progress(self, ticket: Ticket | str) -> Progress:
        """What has become of an event that was published. Raises `NotFoundError`."""
        text: object = ticket.id if isinstance(ticket, Ticket) else ticket
        if not isinstance(text, str) or not text:
            raise RejectedError(f"{ticket!r} is not a ticket", place="ticket", cure="send it as it was given")
        return progress_of(self._calls.call(Request(path=f"/api/v1/tickets/{quoted(text)}")).body)

    # --------------------------------------------------------------------------------------------- what is sent

    def _outgoing(self, event: object) -> _Outgoing:
        """The event as it is sent, with an id. Raises `RejectedError` for what no JSON can hold."""
        if isinstance(event, Event):
            members = event.members()
        elif isinstance(event, bytes):
            members = _read(event)
        elif isinstance(event, Mapping):
            members = dict(event)
        else:
            cure = "give an Event, a mapping, or JSON as bytes"
            raise RejectedError(f"a Python {type(event).__name__} is not an event", cure=cure)
        is_made = "id" not in members
        if is_made:
            ids = self._calls.ids
            members = {"id": spell(ids.prefix, ids.next_counter()), **members}
        data = to_json(members)
        if len(data) > INPUT_BYTES_MAX:
            raise RejectedError(f"an event of {len(data):,} bytes; at most {INPUT_BYTES_MAX:,} are allowed")
        return _Outgoing(data, is_made)

    def _numbered(self, event: EventLike, index: int) -> _Outgoing:
        try:
            return self._outgoing(event)
        except RejectedError as error:
            place = f"event {index}{' ' if error.place else ''}{error.place}"
            raise RejectedError(error.problem, place=place, cure=error.cure) from error

    def _send_each(self, going: Sequence[_Outgoing]) -> list[Outcome]:
        answer = self._calls.call(_sending(_BATCH, _lines(going), (), NDJSON), unfinished=_still_busy)
        return _outcomes(answer, going)


def _sending(path: str, body: bytes, terms: tuple[str, ...] = (), content_type: str = "application/json") -> Request:
    return Request(method="POST", path=path, body=body, terms=terms, content_type=content_type, changes=True)


def _one_event(event: EventLike | None, members: Mapping[str, Any]) -> EventLike:
    if event is None:
        return members
    if members:
        raise RejectedError("an event was given both whole and as members", cure="give one of them")
    return event


def _read(data: bytes) -> dict[str, Any]:
    if len(data) > INPUT_BYTES_MAX:
        raise RejectedError(f"an event of {len(data):,} bytes; at most {INPUT_BYTES_MAX:,} are allowed")
    members = decode(data)
    if not isinstance(members, dict):
        raise RejectedError("an event is a JSON object", cure='send one such as {"event_type":"user.created"}')
    return members


def _lines(going: Iterable[_Outgoing]) -> bytes:
    return b"\n".join(one.data for one in going)


def _batches(
    events: Iterable[EventLike], outgoing: Callable[[object], _Outgoing]
) -> Iterator[list[_Outgoing | RejectedError]]:
    """The events as they are sent, in batches; in the place of one that cannot be is why."""
    batch: list[_Outgoing | RejectedError] = []
    size = 0
    for event in events:
        try:
            one = outgoing(event)
            batch.append(one)
            size += len(one.data)
        except RejectedError as error:
            batch.append(error)
        if len(batch) >= _BATCH_EVENTS or size >= _BATCH_BYTES:  # at once: nothing is taken that is not sent
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _still_busy(answer: Answer) -> str:
    """Why a batch is to be sent again: some of it the service had no room for. The rest is answered as before."""
    for outcome in outcomes_of(answer.body) if b'"status"' in answer.body else ():
        if isinstance(outcome, dict) and outcome.get("status") in AGAIN:
            return str(error_in(outcome))
    return ""


def _outcomes(answer: Answer, going: Sequence[_Outgoing]) -> list[Outcome]:
    outcomes = outcomes_of(answer.body)
    if len(outcomes) != len(going):
        raise UnfinishedError("the answer does not say what became of each event", left=[one.data for one in going])
    return [
        _own(outcome, one) if isinstance(outcome, Sealed) else error_in(outcome)
        for outcome, one in zip(outcomes, going, strict=True)
    ]


def _own(sealed: Sealed, going: _Outgoing) -> Sealed:
    """The receipt; of an event whose id was made for this very call, a repeat is only our own."""
    return sealed._replace(replayed=False) if going.is_made and sealed.replayed else sealed


def _sealed(outcome: Outcome) -> Sealed:
    if not isinstance(outcome, Sealed):
        raise StoreError(f"a batch was taken in part, though it was to be all or none: {outcome}")
    return outcome


def _rebuild_unfinished(problem: str, outcomes: Sequence[Outcome], left: Sequence[bytes]) -> UnfinishedError:
    return UnfinishedError(problem, outcomes=outcomes, left=left)
