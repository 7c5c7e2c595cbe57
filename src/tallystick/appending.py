"""The writing half of the front door: how events get into one ledger, at once or by its queue.

Nothing is taken that was not accepted whole; what is answered is durable (I1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tallystick.core.event import Event
from tallystick.errors import ConflictError, RejectedError
from tallystick.write.accept import Acceptor, Draft
from tallystick.write.queue import Queue, Ticket
from tallystick.write.request import Sealed, Submission
from tallystick.write.sealer import Sealer

EventLike = Event | Mapping[str, Any] | bytes
"""An `Event`, a mapping of its members, or one JSON document in UTF-8."""


class Appending(ABC):
    """What takes events in. Safe for many threads."""

    _acceptor: Acceptor
    _queue_acceptor: Acceptor

    @abstractmethod
    def _open_sealer(self) -> Sealer:
        """What seals."""

    @property
    @abstractmethod
    def queue(self) -> Queue:
        """The queue of what was published and is not sealed yet."""

    def append(self, event: EventLike | None = None, /, **members: Any) -> Sealed:
        """Seal one event, given whole or as members of `Event`. On return it is durable.

        Raises `RejectedError`, `ConflictError` (the expected version, or the id used for other content),
        `BusyError`, or `StoreError`, after which the outcome may be unknown: repeat it with the same id.
        """
        return self._open_sealer().seal([self._acceptor.accept(_one_event(event, members))])[0]

    def append_many(self, events: Iterable[EventLike]) -> Sequence[Sealed]:
        """Seal up to 10,000 events in their order and as one commit: all of them, or none.

        Raises as `append` does; a `RejectedError` names the event by its index among `events`.
        """
        drafts = self._acceptor.accept_all(events)
        return self._open_sealer().seal(drafts) if drafts else []

    def append_each(self, submissions: Sequence[Submission]) -> list[Sequence[Sealed] | RejectedError | ConflictError]:
        """Seal what many bring, each wholly or not at all, in their order and with as few commits as can be.

        Gives for each its receipts, or why it was refused. At most 10,000 events in all are worth one call. Raises
        `BusyError`, or `StoreError` when the outcome may be unknown; then all may be repeated.
        """
        taken, outcomes = _accept_each(submissions, self._acceptor)
        for place, sealed in zip(taken, self._open_sealer().seal_all([*taken.values()]) if taken else (), strict=True):
            outcomes[place] = sealed
        return [outcomes[place] for place in range(len(submissions))]

    def publish_each(self, submissions: Sequence[Submission]) -> list[list[Ticket] | RejectedError]:
        """Take in what many bring, as `publish_many` does, with one wait for the disk: tickets, or a refusal, of each.

        Raises `BusyError` when they do not all fit, and `StoreError`.
        """
        taken, refused = _accept_each(submissions, self._queue_acceptor)
        drafts = [draft for batch in taken.values() for draft in batch]
        tickets = iter(self.queue.accept(drafts) if drafts else ())
        given = {place: [next(tickets) for _ in batch] for place, batch in taken.items()}
        return [given[place] if place in given else refused[place] for place in range(len(submissions))]

    def publish(self, event: EventLike | None = None, /, **members: Any) -> Ticket:
        """Take an event in, as `append` does, without waiting for its turn: durable on return, and sealed soon after.

        What has become of it, says `queue.progress`. Raises `RejectedError`, `BusyError` when the queue is full, or
        `StoreError`, after which the outcome may be unknown: repeat it with the same id.
        """
        accepted = self._queue_acceptor.accept(_one_event(event, members))
        return self.queue.accept([accepted])[0]

    def publish_many(self, events: Iterable[EventLike]) -> list[Ticket]:
        """Take up to 10,000 events in, in their order and with one wait for the disk: all of them, or none.

        Raises as `publish` does; a `RejectedError` names the event by its index among `events`.
        """
        drafts = self._queue_acceptor.accept_all(events)
        return self.queue.accept(drafts) if drafts else []


def _one_event(event: EventLike | None, members: Mapping[str, Any]) -> EventLike:
    if event is None:
        return members
    if members:
        raise RejectedError("an event was given both whole and as members", cure="give one of them")
    return event


def _accept_each(
    submissions: Sequence[Submission], acceptor: Acceptor
) -> tuple[dict[int, list[Draft]], dict[int, Any]]:
    """By place the drafts of what can be taken, and why the others cannot."""
    taken: dict[int, list[Draft]] = {}
    refused: dict[int, Any] = {}
    for place, (events, principal) in enumerate(submissions):
        at_work = acceptor if principal is None else acceptor.acting_for(principal)
        try:
            taken[place] = [at_work.accept(events[0])] if len(events) == 1 else at_work.accept_all(events)
        except RejectedError as error:
            refused[place] = error
    return taken, refused
