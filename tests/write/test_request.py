"""Trying again, and expecting a version: what becomes of requests that meet in one commit, or meet the past."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import tallystick
from tallystick.errors import ConflictError
from tallystick.ids import spell, split_made
from tallystick.write.request import Request, Sealed
from tallystick.write.sealer import Sealer


@pytest.fixture
def ledger() -> Iterator[tallystick.Ledger]:
    with tallystick.open("memory:") as ledger:
        yield ledger


def event(entity_id: str = "e", **more: Any) -> dict[str, Any]:
    return {"event_type": "t.happened", "entity_id": entity_id, **more}


class Commit:
    """Requests that are settled together, as if their callers had waited for the same commit."""

    def __init__(self, ledger: tallystick.Ledger, *batches: list[dict[str, Any]]) -> None:
        self.size_before = ledger.size
        sealer: Sealer = ledger._open_sealer()
        accept = ledger._acceptor.accept
        self.requests = [Request([accept(event) for event in batch]) for batch in batches]
        sealer._settle(self.requests)
        self.added = [(record.id, record.entity_version) for record in ledger.read(self.size_before)]

    def sealed(self, number: int) -> list[Sealed]:
        request = self.requests[number]
        assert request.error is None
        assert request.sealed is not None
        return [*request.sealed]

    def error(self, number: int) -> BaseException | None:
        return self.requests[number].error


# ------------------------------------------------------------------------------------------ the same id again


def test_the_same_event_again_is_answered_with_the_first_record(ledger: tallystick.Ledger) -> None:
    first = ledger.append(event(id="x", payload={"n": 1.0, "m": 2}))
    ledger.append(event())

    again = ledger.append(event(payload={"m": 2, "n": 1}, id="x", labels=[]))

    assert again == first._replace(replayed=True)
    assert not first.replayed
    assert ledger.size == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"payload": {"n": 2}},
        {"entity_id": "other"},
        {"event_type": "t.other"},
        {"actor": "joe"},
        {"labels": ["phi"]},
        {"occurred_at": "2026-03-15T09:30:00Z"},
        {"context": {"ip": "10.0.0.1"}},
        {"event_version": 2},
    ],
)
def test_the_same_id_with_other_content_is_a_conflict_and_changes_nothing(
    ledger: tallystick.Ledger, changed: dict[str, Any]
) -> None:
    ledger.append(event(id="x", payload={"n": 1}))

    with pytest.raises(ConflictError, match="'x' was used before, for other content"):
        ledger.append({**event(id="x", payload={"n": 1}), **changed})
    with pytest.raises(ConflictError, match="'x' was used before"):
        ledger.append_many([event(id="new"), {**event(id="x", payload={"n": 1}), **changed}, event()])

    assert ledger.size == 3
    assert ledger.append(event(id="new")).position == 3


def test_the_same_id_twice_in_one_batch_is_sealed_once(ledger: tallystick.Ledger) -> None:
    receipts = ledger.append_many([event(id="x"), event(id="y"), event(id="x"), event(id="x")])

    assert [sealed.position for sealed in receipts] == [2, 3, 2, 2]
    assert [sealed.entity_version for sealed in receipts] == [1, 2, 1, 1]
    assert receipts[2] == receipts[0]._replace(replayed=receipts[2].replayed)
    assert [sealed.replayed for sealed in receipts[2:]] == [True, True]
    assert ledger.size == 4


def test_the_same_id_twice_in_one_batch_with_other_content_refuses_the_batch(
    ledger: tallystick.Ledger,
) -> None:
    with pytest.raises(ConflictError):
        ledger.append_many([event(), event(id="x", payload={"n": 1}), event(id="x", payload={"n": 2})])

    assert ledger.size == 2


def test_the_same_id_in_two_requests_of_one_commit_is_sealed_once(ledger: tallystick.Ledger) -> None:
    commit = Commit(ledger, [event(id="x")], [event(), event(id="x")], [event(id="x"), event(id="y")])

    (first,) = commit.sealed(0)
    assert not first.replayed
    assert commit.sealed(1)[1] == first._replace(replayed=True)
    assert commit.sealed(2)[0] == first._replace(replayed=True)
    assert [position for position, *_ in (*commit.sealed(1), *commit.sealed(2))] == [3, 2, 2, 4]
    assert len(commit.added) == 3


def test_a_request_that_conflicts_leaves_nothing_while_others_of_its_commit_go_through(
    ledger: tallystick.Ledger,
) -> None:
    ledger.append(event(id="old", payload={"n": 1}))

    commit = Commit(
        ledger,
        [event("a", id="1")],
        [event("a", id="2"), event("b"), event(id="old", payload={"n": 2}), event("c")],
        [event("a", id="3")],
        [event("a", id="1", payload={"other": True})],
        [event("a", id="2")],
    )

    assert [type(commit.error(number)) for number in range(5)] == [
        type(None),
        ConflictError,
        type(None),
        ConflictError,
        type(None),
    ]
    # The id 2 of the refused request is free, and entity versions know nothing of it.
    assert commit.added == [("1", 1), ("3", 2), ("2", 3)]
    assert ledger.append(event("b")).entity_version == 1


def test_a_batch_of_repetitions_only_commits_nothing(ledger: tallystick.Ledger) -> None:
    first = ledger.append_many([event(id="x"), event(id="y")])
    checkpoint = ledger.checkpoint()

    again = ledger.append_many([event(id="y"), event(id="x"), event(id="y")])

    assert again == [
        first[1]._replace(replayed=True),
        first[0]._replace(replayed=True),
        first[1]._replace(replayed=True),
    ]
    assert ledger.checkpoint() == checkpoint


def test_repetitions_and_new_events_mix_in_one_batch(ledger: tallystick.Ledger) -> None:
    first = ledger.append(event(id="x"))

    receipts = ledger.append_many([event(id="y"), event(id="x"), event(), event(id="z"), event(id="y")])

    assert [sealed.position for sealed in receipts] == [3, 2, 4, 5, 3]
    assert [sealed.replayed for sealed in receipts] == [False, True, False, False, True]
    assert receipts[1].hash == first.hash
    assert [sealed.entity_version for sealed in receipts] == [2, 1, 3, 4, 2]


def test_an_id_that_the_ledger_made_can_be_repeated_by_who_was_given_it(ledger: tallystick.Ledger) -> None:
    first = ledger.append(event(payload={"n": 1}))

    assert ledger.append(event(payload={"n": 1}, id=first.id)) == first._replace(replayed=True)
    with pytest.raises(ConflictError):
        ledger.append(event(payload={"n": 2}, id=first.id))


def test_an_id_that_the_ledger_would_make_next_cannot_be_brought(ledger: tallystick.Ledger) -> None:
    prefix, counter = split_made(ledger.append(event()).id) or ("", 0)

    for guessed in (counter + 1, counter + 2, counter + 50):
        with pytest.raises(ConflictError, match="the ledger's own to give"):
            ledger.append(event(id=spell(prefix, guessed)))
    ledger.append_many([event() for _ in range(60)])

    ids = [record.id for record in ledger.read()]
    assert len(set(ids)) == len(ids)


def test_an_id_of_the_ledgers_own_events_is_taken(ledger: tallystick.Ledger) -> None:
    genesis = ledger.get(0)

    with pytest.raises(ConflictError):
        ledger.append(event(id=genesis.id))


# ----------------------------------------------------------------------------------------- expected versions


@pytest.mark.parametrize(
    ("before", "expected", "holds"),
    [
        (0, "any", True),
        (2, "any", True),
        (0, "none", True),
        (1, "none", False),
        (0, "exists", False),
        (1, "exists", True),
        (0, 0, True),
        (1, 0, False),
        (2, 2, True),
        (2, 1, False),
        (2, 3, False),
    ],
)
def test_an_expected_version_is_that_before_the_event(
    ledger: tallystick.Ledger, before: int, expected: Any, holds: bool
) -> None:
    ledger.append_many([event() for _ in range(before)])

    if holds:
        assert ledger.append(event(expected_version=expected)).entity_version == before + 1
    else:
        with pytest.raises(ConflictError, match=f"at version {before}, and {expected!r} was expected"):
            ledger.append(event(expected_version=expected))
        assert ledger.size == 2 + before


def test_expected_versions_in_one_batch_count_what_comes_before_them_in_it(ledger: tallystick.Ledger) -> None:
    receipts = ledger.append_many(
        [
            event(expected_version="none"),
            event("other"),
            event(expected_version=1),
            event(expected_version="exists"),
            event(expected_version=3),
        ]
    )

    assert [sealed.entity_version for sealed in receipts] == [1, 1, 2, 3, 4]
    with pytest.raises(ConflictError):
        ledger.append_many([event("new", expected_version="none"), event("new", expected_version="none")])
    assert ledger.append(event("new", expected_version="none")).entity_version == 1


def test_of_two_requests_of_one_commit_that_expect_the_same_version_the_first_wins(
    ledger: tallystick.Ledger,
) -> None:
    ledger.append(event())

    commit = Commit(ledger, [event(expected_version=1, id="first")], [event(expected_version=1)], [event("other")])

    assert commit.sealed(0)[0].entity_version == 2
    assert isinstance(commit.error(1), ConflictError)
    assert commit.sealed(2)[0].entity_version == 1


def test_a_repetition_is_answered_whatever_version_it_expected(ledger: tallystick.Ledger) -> None:
    first = ledger.append(event(id="x", expected_version="none"))
    ledger.append(event())

    # The caller that tries again still expects what it expected the first time.
    assert ledger.append(event(id="x", expected_version="none")) == first._replace(replayed=True)
    assert ledger.append(event(id="x", expected_version=17)) == first._replace(replayed=True)


def test_a_repetition_does_not_count_towards_the_version_that_the_next_expects(
    ledger: tallystick.Ledger,
) -> None:
    ledger.append(event(id="x"))

    receipts = ledger.append_many([event(id="x"), event(id="y", expected_version=1), event(id="x"), event(id="y")])

    assert [(sealed.entity_version, sealed.replayed) for sealed in receipts] == [
        (1, True),
        (2, False),
        (1, True),
        (2, True),
    ]


def test_a_whole_batch_with_expected_versions_can_be_repeated(ledger: tallystick.Ledger) -> None:
    batch = [event(id="a", expected_version="none"), event(id="b", expected_version=1), event("f", id="c")]
    first = ledger.append_many(batch)
    ledger.append(event())

    again = ledger.append_many(batch)

    assert again == [sealed._replace(replayed=True) for sealed in first]
