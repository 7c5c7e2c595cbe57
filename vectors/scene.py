"""What the vectors are made of: one small ledger with fixed keys, and bundles of it, as its forger can make them.

Nothing here goes through the exporter: a forger does not ask it. Honest bundles come out as the exporter would make
them, which tests/evidence/test_vectors.py holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.corrected import CLOCK_CORRECTED
from tallystick.core.fold import Fold, recording
from tallystick.core.keys import epoch_key
from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.matcher import Matcher
from tallystick.core.merkle import leaf_hash, node_hash, range_root
from tallystick.core.note import Signer, VerifierKey
from tallystick.core.policy import Policy
from tallystick.core.record import KEY_ROTATED
from tallystick.core.selector import Selector
from tallystick.core.sshsig import BUNDLE_NAMESPACE, sign_file
from tallystick.core.strict import render_base64
from tallystick.core.system import KeyRotated
from tallystick.errors import RejectedError
from tests.evidence.forge import KEYS, ORIGIN, Insider, fixed_key, reseal

CREATED: Final = "2026-03-16T00:00:00.000000Z"
NOW: Final = "2026-03-16T00:01:00Z"
SECOND_KEY: Final = fixed_key(4)
"""The checkpoint key that the ledger rotates to."""


def vkey(key: Ed25519PrivateKey, name: str = ORIGIN) -> VerifierKey:
    return VerifierKey(name, key.public_key().public_bytes_raw())


TRUST: Final = Policy(logs=(vkey(KEYS.checkpoint),)).render()
"""The trust file of nearly all vectors: the ledger's first checkpoint key, which vouches for the second."""


def ledger(change: Callable[[Insider], None] | None = None) -> Insider:
    """The ledger: three epochs closed and one open, two keys for checkpoints, three entities.

    0 genesis, 1 opens epoch 0, 2-6 events, 7 closes it; 8 opens epoch 1, 9-12 events, 13 changes the key, 14 event, 15
    closes it; 16 opens epoch 2, 17-18 events, 19 closes it, 20 opens epoch 3.
    """
    insider = Insider()
    for number in range(5):
        event(insider, number)
    insider.close()
    insider.open(1)
    for number in range(5, 9):
        event(insider, number)
    rotate(insider, SECOND_KEY)
    event(insider, 9)
    insider.close()
    insider.open(2)
    event(insider, 10)
    event(insider, 11)
    insider.close()
    if change:
        change(insider)
    insider.open(3)
    return insider


def event(insider: Insider, number: int, **more: Any) -> int:
    """One sale, at one of three tills, a second after the last."""
    insider.moment += 1_000_000
    payload = {"n": number, "what": "Füße \u2028 A/B", **more.pop("payload", {})}
    content = {
        "actor": {"id": "jane"},
        "context": {},
        "entity_id": f"till-{number % 3}",
        "event_type": "shop.sold",
        "event_version": 1,
        "id": f"sale-{number}",
        "labels": ["pci"],
        "occurred_at": None,
        "payload": payload,
    }
    return insider.put({**content, **more})


def rotate(insider: Insider, new: Ed25519PrivateKey, *, old: Ed25519PrivateKey = KEYS.checkpoint) -> int:
    """Change the checkpoint key."""
    return insider.own(KEY_ROTATED, KeyRotated.sign("checkpoint", ledger="shop", old=old, new=new).payload())


def selector(name: str, *any_of: Sequence[str], within: Sequence[str] = ()) -> dict[str, Any]:
    """A selector as manifests have it, not counted yet."""
    return {"any_of": [[*terms] for terms in any_of], "count": 0, "name": name, "within": [*within]}


EVERYTHING: Final = selector("everything", [])


def counted(selectors: Iterable[dict[str, Any]], lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """The selectors with how many of the records fit them, as far as these are records and those selectors."""
    records = []
    for line in lines:
        with suppress(RejectedError):
            records.append(decode(line))
    out = []
    for one in selectors:
        count = one["count"]
        with suppress(RejectedError, TypeError, KeyError):
            matcher = Matcher([Selector.of(one["name"], one["any_of"], one["within"])])
            count = sum(bool(matcher.match(record)) for record in records)
        out.append({**one, "count": count})
    return out


class Hashes:
    """The tree over some records: any of its subtrees, and its root at any size."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self._leaves: Final = [leaf_hash(line) for line in lines]

    def node(self, level: int, index: int) -> bytes:
        if level == 0:
            return self._leaves[index]
        return node_hash(self.node(level - 1, 2 * index), self.node(level - 1, 2 * index + 1))

    def root(self, size: int) -> bytes:
        return range_root(0, size, node=self.node)


def signed(
    lines: Sequence[bytes], size: int | None = None, *, key: Ed25519PrivateKey | None = None, origin: str = ORIGIN
) -> bytes:
    """The checkpoint over the first `size` records, by the key in force in `ledger()`."""
    size = len(lines) if size is None else size
    key = key or (SECOND_KEY if size > 13 else KEYS.checkpoint)
    return sign_checkpoint(Checkpoint(origin, size, Hashes(lines).root(size)), Signer(origin, key))


@dataclass
class Bundle:
    """A bundle on its way: the manifest as a document, the lines, and who seals it. To be tampered with."""

    document: dict[str, Any]
    lines: list[bytes]
    raw_events: bytes | None = None
    """In place of the lines, to the byte."""
    evidence: Ed25519PrivateKey = KEYS.evidence
    namespace: str = BUNDLE_NAMESPACE
    raw_manifest: bytes | None = None
    raw_seal: bytes | None = None
    extra: dict[str, bytes] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def events(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines) if self.raw_events is None else self.raw_events

    def stated(self) -> Bundle:
        """Have the manifest say what the lines are now, as an insider would."""
        data = self.events
        self.document["events"] |= {"bytes": len(data), "sha256": sha256(data).hexdigest()}
        self.document["range"]["count"] = data.count(b"\n")
        self.document["selectors"] = counted(self.document["selectors"], self.lines)
        return self

    def files(self) -> dict[str, bytes]:
        """The three files, the manifest sealed as it now is."""
        manifest = encode(self.document) if self.raw_manifest is None else self.raw_manifest
        seal = sign_file(manifest, self.evidence, namespace=self.namespace) if self.raw_seal is None else self.raw_seal
        found = {MANIFEST_FILE: manifest, EVENTS_FILE: self.events, SEAL_FILE: seal, **self.extra}
        return {name: data for name, data in found.items() if name not in self.left_out}


def bundle(
    lines: Sequence[bytes],
    *,
    first: int = 0,
    end: int | None = None,
    only: Iterable[int] | None = None,
    size: int | None = None,
    start: bytes | None = None,
    gone: Sequence[tuple[int, int]] = (),
    checkpoint: bytes | None = None,
    beside: Iterable[int] | None = None,
    epochs: Iterable[int] | None = None,
    created: str = CREATED,
    selectors: Iterable[dict[str, Any]] | None = None,
) -> Bundle:
    """An honest bundle of these records, as far as they are."""
    size = len(lines) if size is None else size
    end = size if end is None else end
    taken = _taken(first, end, only, gone)
    members = _members(tuple(lines))
    found = sorted({members[at]["epoch"] for at in taken} if epochs is None else {*epochs})
    if beside is None:
        beside = _needed(members[:size], found, pruned=bool(gone))
    inside = {*taken} if only is not None else {*range(first, end)}
    beside = sorted({*beside} - inside - {0})
    hashes: list[bytes] = []
    cuts = (first, end) if start is None else (first, end, int(start.split(b"\n")[1]))
    fold = Fold(cuts=cuts, node=recording(Hashes(lines).node, hashes))
    for at in sorted({0, *beside, *taken}):
        fold.add(at, leaf_hash(lines[at]))
    fold.root(size)
    document = {
        "absent": [list(pair) for pair in gone],
        "created": created,
        "end": {"checkpoint": (checkpoint or signed(lines, size)).decode()},
        "events": {"bytes": 0, "file": EVENTS_FILE, "sha256": ""},
        "complete": only is None,
        "format": "tallystick-bundle/1",
        "genesis": lines[0].decode(),
        "hashes": [render_base64(one) for one in hashes],
        "ledger": {"id": sha256(lines[0]).hexdigest(), "name": "shop", "origin": ORIGIN},
        "mac_keys": [{"epoch": epoch, "key": epoch_key(KEYS.event_mac, epoch).hex()} for epoch in found],
        "range": {"count": 0, "end": end, "first": first, "prev_hash": members[taken[0]]["prev_hash"]},
        "records": [lines[at].decode() for at in beside],
        "selectors": [*(selectors if selectors is not None else [] if only is None else [EVERYTHING])],
        "start": {"checkpoint": None if start is None else start.decode()},
        "timestamps": [],
        "tool": "vectors",
    }
    return Bundle(document, [lines[at] for at in taken]).stated()


def _taken(first: int, end: int, only: Iterable[int] | None, gone: Sequence[tuple[int, int]]) -> list[int]:
    absent = {at for a, b in gone for at in range(a, b)}
    return sorted(only) if only is not None else [at for at in range(first, end) if at not in absent]


@lru_cache(maxsize=64)
def _members(lines: tuple[bytes, ...]) -> list[dict[str, Any]]:
    return [decode(line) if line else {"epoch": -1, "event_type": ""} for line in lines]


def _needed(members: Sequence[dict[str, Any]], epochs: Sequence[int], *, pruned: bool) -> list[int]:
    """The positions that SPEC 10.4 asks for."""
    edges = ("tallystick.epoch.opened", "tallystick.epoch.closed")
    wanted = []
    for at, one in enumerate(members):
        kind = one["event_type"]
        prune = pruned and kind == "tallystick.records.pruned"
        if kind in (KEY_ROTATED, CLOCK_CORRECTED) or prune or (kind in edges and one["payload"]["epoch"] in epochs):
            wanted.append(at)
    return wanted


def changed(line: bytes, **members: Any) -> bytes:
    """A record with other members, canonical, and otherwise as it was."""
    return encode({**decode(line), **members})


def signed_anew(line: bytes, *, epoch: int | None = None, **members: Any) -> bytes:
    """A record with other members, under the MAC key of its epoch or of another."""
    record = {**decode(line), **members}
    return reseal(record, mac_key=epoch_key(KEYS.event_mac, record["epoch"] if epoch is None else epoch))


def chained_anew(lines: Sequence[bytes], first: int) -> list[bytes]:
    """The records from `first` on with the `prev_hash` that fits what now stands before them, and right signatures."""
    out = [*lines]
    for at in range(first, len(out)):
        out[at] = signed_anew(out[at], prev_hash=sha256(out[at - 1]).hexdigest())
    return out
