"""The verbs of a ledger, spoken to a service: the same values, the same errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tallystick
from tallystick.client.client import Client
from tallystick.core.checked_proof import check_proof
from tallystick.core.policy import Policy
from tallystick.errors import ConflictError, DeniedError, NotFoundError, RejectedError
from tallystick.ledger import Ledger
from tests.serve.conftest import Running


@pytest.fixture
def ledger(it: Running) -> Iterator[Ledger]:
    """The ledger behind the service, opened within it."""
    with it.deployment.lease("tenant/acme") as opened:
        yield opened


def change(entity: str, value: Any, **members: Any) -> dict[str, Any]:
    return {
        "event_type": "doc.changed",
        "entity_id": entity,
        "payload": {"field": "title", "new_value": value},
        **members,
    }


def test_a_sealed_event_is_read_back_as_the_ledger_has_it(client: Client, ledger: Ledger) -> None:
    sealed = client.append(event_type="doc.read", entity_id="v-1/ü", actor="jane", payload={"n": 1.5e30, "t": "☂"})

    assert sealed._replace(hash=b"") == (sealed.position, sealed.id, "v-1/ü", 1, sealed.recorded_at, b"", False, "")
    record = client.get(sealed.position)
    assert record == ledger.get(sealed.position) == client.get(sealed.id)
    assert (record.hash, record.actor) == (sealed.hash, {"id": "jane"})


def test_a_batch_is_sealed_whole_or_not_at_all(client: Client, ledger: Ledger) -> None:
    sealed = client.append_many([change("v-2", number) for number in range(5)])
    size = ledger.size

    with pytest.raises(RejectedError) as refused:
        client.append_many([change("v-2", 5), {"event_type": "", "entity_id": "v-2"}])

    assert [one.entity_version for one in sealed] == [1, 2, 3, 4, 5]
    assert (refused.value.place, ledger.size) == ("event 1 /event_type", size)
    assert client.append_many([]) == []


def test_of_each_for_itself_it_says_what_became_of_it_in_order(client: Client, ledger: Ledger) -> None:
    events: list[Any] = [change("v-3", number) for number in range(2_500)]
    events[3] = {"event_type": "doc.changed"}  # which the service refuses
    events[1_200] = b"{"  # which is not even sent
    events[2_000] = change("v-3", 0, expected_version="none")

    outcomes = client.append_many(iter(events), atomic=False)

    wrong = {index: one for index, one in enumerate(outcomes) if isinstance(one, Exception)}
    assert {index: type(one) for index, one in wrong.items()} == {
        3: RejectedError,
        1_200: RejectedError,
        2_000: ConflictError,
    }
    good = [event["payload"]["new_value"] for index, event in enumerate(events) if index not in wrong]
    assert [one.payload["new_value"] for one in ledger.records(entity_id="v-3")] == good
    sealed = [one for one in outcomes if isinstance(one, tallystick.Sealed)]
    assert [one.position for one in sealed] == sorted(one.position for one in sealed)
    assert [one.entity_version for one in sealed] == [*range(1, len(good) + 1)]


def test_more_than_fits_into_one_commit_is_refused_here(client: Client) -> None:
    with pytest.raises(RejectedError, match="atomic=False"):
        client.append_many(change("v-4", 1) for _ in range(10_001))
    with pytest.raises(RejectedError, match="16,777,216"):
        client.append_many(change("v-4", "x" * 60_000) for _ in range(600))


def test_the_same_id_is_the_same_event(client: Client) -> None:
    first = client.append(change("v-5", 1, id="v-5-once"))
    second = client.append(change("v-5", 1, id="v-5-once"))

    assert second == first._replace(replayed=True)
    with pytest.raises(ConflictError, match="other content"):
        client.append(change("v-5", 2, id="v-5-once"))


def test_what_is_published_has_a_ticket_and_is_sealed_soon(client: Client, ledger: Ledger) -> None:
    tickets = [client.publish(change("v-6", 0, id="a/b?c")), *client.publish_many([change("v-6", n) for n in (1, 2)])]

    for ticket in tickets:
        ledger.queue.wait(ticket, seconds=10)
    assert [client.progress(one) for one in tickets] == [ledger.queue.progress(one.id) for one in tickets]
    assert client.progress(tickets[0].id).state == "sealed"
    assert [one.payload["new_value"] for one in client.records(entity_id="v-6")] == [0, 1, 2]
    with pytest.raises(NotFoundError):
        client.progress("0.another")


def test_pages_lead_to_every_record_and_speak_for_one_size(client: Client, ledger: Ledger) -> None:
    client.append_many([change("v-7", number) for number in range(7)])

    first = client.query(entity_id="v-7", limit=3)
    client.append(change("v-7", 7))
    second = client.query(entity_id="v-7", limit=3, cursor=first.cursor)

    assert [one.payload["new_value"] for one in (*first.records, *second.records)] == [6, 5, 4, 3, 2, 1]
    assert first.size == second.size
    assert [*client.records(entity_id="v-7")] == [*ledger.records(entity_id="v-7")]
    assert client.count(entity_id="v-7") == 8
    asked = tallystick.Query.of(where="payload.new_value>=5", entity_id="v-7", text="title")
    assert client.query(asked).records == ledger.query(asked).records != ()


def test_states_differences_and_timelines_are_the_ledgers_own_values(client: Client, ledger: Ledger) -> None:
    entity = "v-8/../x"
    client.append_many(
        [change(entity, "a"), change(entity, "b"), change(entity, "c", occurred_at="2026-01-01T00:00:00Z")]
    )
    client.append(event_type="doc.read", entity_id=entity, payload={"page": 1.25})
    points: list[dict[str, Any]] = [{}, {"as_of": "v2"}, {"version": 3}, {"as_of": "2026-01-02", "clock": "occurred"}]

    for point in points:
        assert client.state(entity, **point) == ledger.state(entity, **point)
    for earlier, later in (("v1", None), ("v1", "v3"), ("@0", "2196-01-01")):
        assert client.diff(entity, earlier=earlier, later=later) == ledger.diff(entity, earlier=earlier, later=later)
    assert [*client.timeline(entity)] == [*ledger.timeline(entity)]
    assert [*client.timeline(entity, "title", as_of="v2")] == [*ledger.timeline(entity, "title", as_of="v2")]
    assert client.state(entity).events != ()


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"width": "hour", "group": "type", "fill": True},
        {"width": "month", "after": "2026-01-01", "before": "2026-06-01", "fill": True, "time": "occurred"},
        {"measure": "distinct:entity", "zone": "Europe/Berlin", "width": "minute"},
        {"after": "2026-01-01T00:00:00Z", "entity_id": "v-9"},
    ],
)
def test_series_are_the_ledgers_own_values(client: Client, ledger: Ledger, asked: dict[str, Any]) -> None:
    client.append(change("v-9", 1, occurred_at="2026-03-01T10:00:00Z"))

    assert client.series(**asked) == ledger.series(**asked)
    assert client.extent(event_type="doc.*") == ledger.extent(event_type="doc.*")


def test_what_proves_it_verifies_without_the_service(client: Client, ledger: Ledger) -> None:
    sealed = client.append(change("v-10", 1))

    record, proof = client.get(sealed.position), client.prove(sealed.position)

    assert check_proof(proof.render(), record.line, Policy(logs=(ledger.verifier_key,))).holds
    assert client.checkpoint() == ledger.checkpoint()
    assert client.tile(0, 0, 2) == ledger.tile(0, 0, 2)
    with pytest.raises(NotFoundError):
        client.prove(10**9)


def test_schemas_are_registered_asked_and_tried(client: Client, ledger: Ledger) -> None:
    registered = client.schemas.register("door.opened", None, {"type": "object", "required": ["by"]}, reason="because")
    verdicts = [*client.schemas.validate([{"event_type": "door.opened", "entity_id": "d"}, b"{", change("d", 1)])]

    assert registered == ledger.schemas.get("door.opened") == client.schemas.get("door.opened", 1)
    assert client.schemas.list() == ledger.schemas.list()
    assert client.schemas.history("door.opened") == ledger.schemas.history("door.opened")
    assert [(one.index, one.taken) for one in verdicts] == [(0, False), (1, False), (2, True)]
    assert client.schemas.enforcement() == "registered"
    assert client.schemas.infer("doc.changed") == ledger.schemas.infer("doc.changed")
    with pytest.raises(RejectedError) as refused:
        client.append(event_type="door.opened", entity_id="d")
    assert refused.value.place.startswith("/payload")
    with pytest.raises(NotFoundError):
        client.schemas.get("door.closed")


REFUSED: list[tuple[Callable[[Any], Any], type[Exception]]] = [
    (lambda it: it.get("no-such-id"), NotFoundError),
    (lambda it: it.get(10**9), NotFoundError),
    (lambda it: it.get(-1), NotFoundError),
    (lambda it: it.get(None), RejectedError),
    (lambda it: it.state("nobody-has-heard-of-it"), NotFoundError),
    (lambda it: it.state(""), RejectedError),
    (lambda it: it.state("v-1", "v1", version=2), RejectedError),
    (lambda it: it.query(nonsense=1), RejectedError),
    (lambda it: it.query(limit=0), RejectedError),
    (lambda it: it.query(cursor="x"), RejectedError),
    (lambda it: it.series(width="fortnight"), RejectedError),
    (lambda it: it.append(event_type="doc.read", entity_id=""), RejectedError),
    (lambda it: it.append(event_type="doc.read", entity_id="e", payload={"x": object()}), RejectedError),
    (lambda it: it.append(b'{"event_type":"doc.read","entity_id":"e","entity_id":"f"}'), RejectedError),
    (lambda it: it.append(b"[]"), RejectedError),
    (lambda it: it.append(b"x" * 300_000), RejectedError),
    (lambda it: it.append(event_type="doc.read", entity_id="e", expected_version=7), ConflictError),
    (lambda it: it.append_many([{"event_type": "doc.read", "entity_id": "e"}, 5]), RejectedError),
]


@pytest.mark.parametrize(("call", "family"), REFUSED)
def test_a_client_refuses_what_the_ledger_refuses_and_with_the_same_family(
    client: Client, ledger: Ledger, call: Callable[[Any], Any], family: type[Exception]
) -> None:
    size = ledger.size

    for one in (client, ledger):
        with pytest.raises(family):
            call(one)

    assert ledger.size == size


def test_a_key_may_what_it_may(it: Running) -> None:
    with Client(it.url, it.keys["acme/ReadOnly"]) as reader:
        assert reader.whoami()["role"] == "ReadOnly"
        with pytest.raises(DeniedError, match="Write"):
            reader.append(change("v-12", 1))
    with Client(it.url, "ts_" + "0" * 81) as nobody, pytest.raises(DeniedError):
        nobody.checkpoint()


def test_a_closed_client_says_so(it: Running) -> None:
    client = Client(it.url, it.keys["acme/Admin"])
    client.close()
    client.close()

    with pytest.raises(tallystick.StoreError, match="closed"):
        client.checkpoint()


def test_whoever_needs_no_client_does_not_load_what_calls() -> None:
    code = (
        "import sys, tallystick; tallystick.Client; tallystick.Ledger; assert 'httpx2' not in sys.modules;"
        "tallystick.Client('http://127.0.0.1:1', 'k'); assert 'httpx2' in sys.modules"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
