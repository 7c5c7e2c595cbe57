"""Ledgers of chance for the tests of the read side: few names, so that questions meet what is there."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

import tallystick
from tallystick.core.record import Record

ENTITIES: Final = ("user-1", "user-2", "ünal", "user", "9")
TYPES: Final = ("user.created", "user.role.changed", "user", "file.read", "users.x")
ACTORS: Final = ("jane", "raj", "ops")
LABELS: Final = ("phi", "pci", "phi2")
OCCURRED: Final = (
    "2026-03-15T10:30:00.123456789+01:30",
    "2026-03-15t09:00:00.5z",
    "2026-03-14 23:30:00-00:30",
    "1969-12-31T23:59:59.999999Z",
    "2026-03-15T09:00:00Z",
    "9999-12-31T23:59:59+00:00",
)

_SCALARS: Final = st.one_of(
    st.sampled_from(["admin", "Äpfel äpfel", 'a "b" \\ c', "10.0.1.42", "5", "tab\tnew\nline", "pay-roll", "", "x_y"]),
    st.sampled_from([5, 5.5, -3, 0, 2**53 - 1, 1e21, 1e-7, True, False, None]),
)
_VALUES: Final = st.one_of(_SCALARS, st.lists(_SCALARS, max_size=2), st.dictionaries(st.sampled_from("ab"), _SCALARS))
_DOCUMENTS: Final = st.dictionaries(st.sampled_from(["ip", "role", "a.b", "n", "tag s"]), _VALUES, max_size=3)


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """One event as a caller sends it."""
    event: dict[str, Any] = {
        "event_type": draw(st.sampled_from(TYPES)),
        "entity_id": draw(st.sampled_from(ENTITIES)),
        "payload": draw(_DOCUMENTS),
        "labels": draw(st.lists(st.sampled_from(LABELS), unique=True, max_size=2)),
    }
    if draw(st.booleans()):
        event["actor"] = draw(st.sampled_from(ACTORS))
    if draw(st.booleans()):
        event["occurred_at"] = draw(st.sampled_from(OCCURRED))
    if draw(st.booleans()):
        event["context"] = draw(_DOCUMENTS) | {"correlation_id": draw(st.sampled_from(["c-1", "c-2", "c"]))}
    return event


def terms_like(*, records: int = 40) -> st.SearchStrategy[list[str]]:
    """Queries as terms, about what `events` makes."""

    def one(name: str, *values: str) -> st.SearchStrategy[str]:
        return st.sampled_from(values).map(lambda value: f"{name}={value}")

    positions = st.integers(0, records + 2)
    term = st.one_of(
        one("entity_id", *ENTITIES, "nobody"),
        one("event_type", *TYPES, "user.*", "user.role.*", "tallystick.*", "nothing.*"),
        one("actor", *ACTORS, "nobody"),
        one("label", *LABELS, "none"),
        one("text", "admin", "ÄPFEL", "äpf*", "b c", "10 42", "new line", "roll pay", "x y", "true", "1e", "ip*"),
        one("correlation_id", "c-1", "c", "x"),
        one("occurred_after", "2026-03-15", "2026-03-15T09:00:00.123456Z", "1970-01-01"),
        one("occurred_before", "2026-03-15", "2026-03-15T09:00:00.123457Z", "2026-03-16"),
        st.sampled_from(
            [
                *("payload.ip", "!payload.role", "payload.role=admin", 'payload."a.b"=10.0.1.42', "payload.n=5"),
                *("payload.n>=5.5", "payload.n!=5", "payload.n=1e21", "payload.n=0.0000001", 'payload.role="5"'),
                *("context.role=admin", 'payload."tag s"<b', "payload.role.a=true", 'payload.ip="a \\"b\\" \\\\ c"'),
                *("payload.role=", "payload.n=null", "context.correlation_id=c-2", "payload.role=Äpfel äpfel"),
            ]
        ),
    )
    alone = st.one_of(positions.map(lambda at: f"first={at}"), positions.map(lambda at: f"end={at}"))
    return st.lists(term, max_size=3, unique_by=_once).flatmap(
        lambda terms: st.one_of(st.just(terms), alone.map(lambda more: [*terms, more]))
    )


def _once(term: str) -> str:
    """What may stand only once in a query, by name; anything else may repeat."""
    name = term.partition("=")[0]
    return name if name in ("occurred_after", "occurred_before", "correlation_id") else term


def positions(records: list[Record]) -> list[int]:
    return [record.position for record in records]


def all_of(ledger: tallystick.Ledger) -> list[Record]:
    return [*ledger.read()]
