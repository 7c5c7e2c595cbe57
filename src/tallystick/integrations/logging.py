"""Log records as events: a handler of the standard library's `logging`.

For an application whose log already says who did what: each record becomes an event of a ledger, or of the service
through a `Client`. Whoever logs never waits and never gets an error; what the sending itself logs is not taken.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from tallystick.clock import Clock, wall_clock
from tallystick.core import timestamp
from tallystick.core.canonical import to_json
from tallystick.integrations.plain import cut, key, plain
from tallystick.integrations.sending import SECONDS, Destination, Sender, is_sending
from tallystick.limits import DRAFT_BYTES_MAX, LABELS_MAX, SENDING_BYTES_MAX, SENDING_EVENTS_MAX

EVENT_TYPE: Final = "log.recorded"

FromRecord: TypeAlias = str | Callable[[logging.LogRecord], str]
"""The same for all, or worked out from each record."""

_MESSAGE_BYTES_MAX: Final = 16_384
_TRACE_BYTES_MAX: Final = 16_384
_BARE_BYTES: Final = 1_024
_OURS: Final = ("event_type", "entity_id", "actor", "labels")
"""Attributes by which a record says what its event is."""
_STANDARD: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", *_OURS))


class LedgerHandler(logging.Handler):
    """Records log records as events of a destination, a `Ledger` or a `Client`, which stays the caller's to close.

    A record says by `extra=` what is its own: `actor` (an id, or an object), `entity_id`, `event_type`, `labels`; what
    else it brings there is in `payload.extra`. `sender` tells how it stands: what waits, what was dropped, and why.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        level: int | str = logging.NOTSET,
        event_type: FromRecord = EVENT_TYPE,
        entity_id: FromRecord | None = None,
        actor: str | Mapping[str, str] | None = None,
        events_max: int = SENDING_EVENTS_MAX,
        bytes_max: int = SENDING_BYTES_MAX,
        on_drop: Callable[[int], None] | None = None,
        seconds: float = SECONDS,
        clock: Clock = wall_clock,
    ) -> None:
        """`entity_id` is by default `log:` and the logger's name, `actor` who acts where a record does not say.

        Up to `events_max` events of `bytes_max` bytes wait; `flush` and `close` wait for them up to `seconds`.
        """
        super().__init__(level)
        self._event_type: Final = event_type
        self._entity_id: Final = entity_id
        self._actor: Final = actor
        self._seconds: Final = seconds
        self.sender: Final = Sender(
            destination, name="log", events_max=events_max, bytes_max=bytes_max, on_drop=on_drop, clock=clock
        )

    def handle(self, record: logging.LogRecord) -> bool:
        """As any handler does; what a sender logs is left out, before anything is locked."""
        return not is_sending() and bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record. What goes wrong is told on stderr, as `logging` does."""
        try:
            self.sender.put(self.event_of(record))
        except Exception:  # noqa: BLE001 - whoever logs must not be disturbed
            self.handleError(record)

    def event_of(self, record: logging.LogRecord) -> dict[str, Any]:
        """The event of a record, as members of `Event`."""
        said = vars(record)
        payload = {
            "level": cut(record.levelname, 64),
            "logger": cut(record.name, 512),
            "message": cut(record.getMessage(), _MESSAGE_BYTES_MAX),
        }
        if record.exc_info and record.exc_info[0] is not None:
            trace = (self.formatter or logging.Formatter()).formatException(record.exc_info)
            payload["exception"] = cut(trace[-_TRACE_BYTES_MAX:], _TRACE_BYTES_MAX)
        extra = {name: value for name, value in said.items() if name not in _STANDARD}
        event: dict[str, Any] = {
            "event_type": self._type_of(record),
            "entity_id": self._entity_of(record),
            "payload": {**payload, "extra": plain(extra)} if extra else payload,
            "occurred_at": timestamp.render(int(record.created * timestamp.SECOND)),
        }
        actor = said.get("actor") or self._actor
        if actor is not None:
            event["actor"] = _actor(actor)
        if isinstance(said.get("labels"), list | tuple | set | frozenset):
            event["labels"] = sorted({key(str(label))[:100] for label in said["labels"]})[:LABELS_MAX]
        if len(to_json(event)) > DRAFT_BYTES_MAX - 1_024:
            event["payload"] = {name: cut(value, _BARE_BYTES) for name, value in payload.items()} | {"cut": True}
        return event

    def flush(self) -> None:
        """Wait until all is sealed, up to the seconds that were given."""
        self.sender.flush(self._seconds)

    def close(self) -> None:
        """Take nothing more, and wait as `flush` does. `logging.shutdown` does so when the process ends."""
        self.sender.close(self._seconds)
        super().close()

    def _type_of(self, record: logging.LogRecord) -> str:
        told = getattr(record, "event_type", None)
        if isinstance(told, str):
            return told
        return self._event_type if isinstance(self._event_type, str) else self._event_type(record)

    def _entity_of(self, record: logging.LogRecord) -> str:
        told = getattr(record, "entity_id", None)
        if told is not None:
            return key(str(told))
        if self._entity_id is None:
            return key(f"log:{record.name}")
        return key(self._entity_id if isinstance(self._entity_id, str) else self._entity_id(record))


def _actor(actor: Any) -> Any:
    """An actor as an event has it; what is none of these is an id as text."""
    if isinstance(actor, Mapping):
        return {str(name): key(str(value)) for name, value in actor.items()}
    return key(str(actor))
