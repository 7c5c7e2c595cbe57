"""The prune: what it removed, and what vouches for what is left (SPEC 9.3).

`tallystick.records.pruned` is committed before anything is removed, so that the signed remainder of the ledger
says which records are lawfully gone. Its payload is written and read here, strictly; whether it is true is for
the verification.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from tallystick.core import timestamp
from tallystick.core.custody import RECORDS_PRUNED, OwnEvent, exactly, own_payload, text_member
from tallystick.core.merkle import HASH_BYTES, NodeSource
from tallystick.core.record import Record
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError
from tallystick.limits import HOLDS_MAX, INTEGER_MAX


def frontier_at(size: int, *, node: NodeSource) -> tuple[bytes, ...]:
    """The roots of the perfect subtrees of the tree of the first `size` leaves, largest first."""
    roots, first = [], 0
    while first < size:
        level = (size - first).bit_length() - 1
        roots.append(node(level, first >> level))
        first += 1 << level
    return tuple(roots)


@dataclass(frozen=True, slots=True)
class Absent:
    """Which positions have no record any more: how many, and a digest over their maximal ranges."""

    count: int
    digest: bytes

    @classmethod
    def over(cls, ranges: Iterable[tuple[int, int]]) -> Absent:
        """Of half-open ranges, in order, none of which touches the next."""
        hasher, count = sha256(), 0
        for first, end in ranges:
            hasher.update(first.to_bytes(8, "big") + end.to_bytes(8, "big"))
            count += end - first
        return cls(count, hasher.digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsPruned:
    """What a prune is about to remove, and what vouches for the rest. Hashes are 32 bytes.

    `absent` is cumulative: the newest prune alone says exactly which positions below its `end` have no record.
    """

    first: int
    end: int
    count: int
    first_hash: bytes
    last_hash: bytes
    frontier_at_end: tuple[bytes, ...]
    checkpoint_at_prune: bytes
    policy_position: int
    holds_checked: tuple[int, ...]
    absent: Absent
    moment: int
    """As of when records had expired, in microseconds; it stands as the record's `occurred_at`."""

    def __post_init__(self) -> None:
        hashes = (self.first_hash, self.last_hash, self.absent.digest, *self.frontier_at_end)
        holds = self.holds_checked
        sound = (
            1 <= self.first < self.end <= INTEGER_MAX
            and 1 <= self.count <= self.end - self.first
            and self.count <= self.absent.count < self.end
            and len(self.frontier_at_end) == self.end.bit_count()
            and {len(one) for one in hashes} == {HASH_BYTES}
            and {type(position) for position in holds} <= {int}
            and all(position >= 0 for position in holds)
            and [*holds] == sorted({*holds})
            and len(holds) <= HOLDS_MAX
        )
        if not sound:
            raise RejectedError("the numbers and hashes of the prune do not fit each other", place="/payload")

    def payload(self) -> dict[str, Any]:
        return {
            "absent": {"count": self.absent.count, "digest": self.absent.digest.hex()},
            "checkpoint_at_prune": self.checkpoint_at_prune.decode(),
            "count": self.count,
            "end": self.end,
            "first": self.first,
            "first_hash": self.first_hash.hex(),
            "frontier_at_end": [render_base64(root) for root in self.frontier_at_end],
            "holds_checked": [*self.holds_checked],
            "last_hash": self.last_hash.hex(),
            "policy_position": self.policy_position,
        }

    def event(self, actor: Mapping[str, str] | None) -> OwnEvent:
        """The event that says so, ordered by `actor`."""
        return OwnEvent(RECORDS_PRUNED, self.payload(), actor, timestamp.render(self.moment))

    @classmethod
    def of(cls, record: Record) -> RecordsPruned:
        payload = own_payload(record, RECORDS_PRUNED)
        absent, holds, frontier = (payload.get(name) for name in ("absent", "holds_checked", "frontier_at_end"))
        if type(absent) is not dict or type(holds) is not list or type(frontier) is not list:
            raise RejectedError("a member of the prune has the wrong type", place="/payload")
        if {type(root) for root in frontier} != {str} or record.occurred_at is None:
            raise RejectedError("the prune has no frontier, or does not say as of when", place="/payload")
        pruned = cls(
            first=_count(payload, "first"),
            end=_count(payload, "end"),
            count=_count(payload, "count"),
            first_hash=_hash(payload, "first_hash"),
            last_hash=_hash(payload, "last_hash"),
            frontier_at_end=tuple(parse_base64(root, place="/payload/frontier_at_end") for root in frontier),
            checkpoint_at_prune=text_member(payload, "checkpoint_at_prune").encode(),
            policy_position=_count(payload, "policy_position"),
            holds_checked=tuple(holds),
            absent=Absent(_count(absent, "count"), _hash(absent, "digest")),
            moment=timestamp.parse(record.occurred_at),
        )
        return exactly(pruned, payload, RECORDS_PRUNED)


def _count(payload: dict[str, Any], name: str) -> int:
    value = payload.get(name)
    if type(value) is not int or value < 1:
        raise RejectedError("not an integer from 1", place=f"/payload/{name}")
    return value


def _hash(payload: dict[str, Any], name: str) -> bytes:
    text = text_member(payload, name)
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise RejectedError("not 64 lower-case hex digits", place=f"/payload/{name}")
    return bytes.fromhex(text)
