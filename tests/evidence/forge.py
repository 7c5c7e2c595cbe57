"""Forging ledgers for the tests of verification: by an outsider with the files, and by an insider with the keys.

An outsider edits rows of a real ledger. An insider seals whatever he likes, correctly chained, signed and
under a signed root, so that only the rule he broke can give him away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core import timestamp
from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.keys import LedgerKeys, commitment, epoch_key, tagger
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer
from tallystick.core.record import EPOCH_CLOSED, EPOCH_OPENED, record_hash
from tallystick.core.system import EpochClosed, EpochOpened, Genesis, system_members
from tallystick.evidence.findings import Report
from tallystick.evidence.verify import verify_store
from tallystick.store.contract import Batch, Head
from tallystick.store.memory import MemoryStore

NOON = timestamp.parse("2026-03-15T12:00:00.000000Z")
ORIGIN = "forge/shop"


class StaticKeys:
    """A keystore that holds one set of keys."""

    def __init__(self, keys: LedgerKeys) -> None:
        self._keys = keys

    def ledger_keys(self, ledger: str) -> LedgerKeys:
        del ledger
        return self._keys


def fixed_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32)


KEYS = LedgerKeys.derive(bytes(range(32)), "shop", root=fixed_key(1), checkpoint=fixed_key(2), evidence=fixed_key(3))
GENESIS = Genesis(
    ledger="shop",
    origin=ORIGIN,
    nonce=bytes(32),
    root_key=KEYS.root.public_key().public_bytes_raw(),
    checkpoint_key=KEYS.checkpoint.public_key().public_bytes_raw(),
    evidence_key=KEYS.evidence.public_key().public_bytes_raw(),
    epoch_records_max=1_000,
    epoch_seconds_max=86_400,
)


def reseal(members: dict[str, Any], *, mac_key: bytes) -> bytes:
    """A record of these members, signed."""
    unsigned = {name: value for name, value in members.items() if name != "signature"}
    return encode({**unsigned, "signature": tagger(mac_key)(encode(unsigned)).decode()})


@dataclass
class Insider:
    """Builds a ledger record by record with all the keys in hand. `change` edits a record before it is signed."""

    epoch: int = 0
    lines: list[bytes] = field(default_factory=list)
    opened_at: int = 1
    moment: int = NOON
    versions: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.lines.append(GENESIS.seal(KEYS.root, event_id="genesis", recorded_at=timestamp.render(NOON)))
        self.versions["tallystick.ledger"] = 1
        self.open(0)

    def put(
        self,
        content: dict[str, Any],
        *,
        mac_epoch: int | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
    ) -> int:
        position = len(self.lines)
        entity_id = content["entity_id"]
        self.versions[entity_id] = self.versions.get(entity_id, 0) + 1
        members = {
            **content,
            "entity_version": self.versions[entity_id],
            "epoch": self.epoch,
            "ledger": "shop",
            "position": position,
            "prev_hash": record_hash(self.lines[-1]).hex(),
            "recorded_at": timestamp.render(self.moment),
        }
        if change:
            change(members)
        epoch = self.epoch if mac_epoch is None else mac_epoch
        self.lines.append(reseal(members, mac_key=epoch_key(KEYS.event_mac, epoch)))
        return position

    def event(self, number: int = 0, **options: Any) -> int:
        content = system_members("shop.sold", {"n": number}, event_id=f"e{len(self.lines)}")
        return self.put({**content, "entity_id": "till-1", "actor": None}, **options)

    def own(self, event_type: str, payload: dict[str, Any], **options: Any) -> int:
        return self.put(system_members(event_type, payload, event_id=f"s{len(self.lines)}"), **options)

    def open(self, epoch: int, *, key: bytes | None = None) -> int:
        self.epoch = epoch
        key = key or epoch_key(KEYS.event_mac, epoch)
        self.opened_at = len(self.lines)
        return self.own(EPOCH_OPENED, EpochOpened(epoch, commitment(key)).payload())

    def opening(self, epoch: int) -> dict[str, Any]:
        return EpochOpened(epoch, commitment(epoch_key(KEYS.event_mac, epoch))).payload()

    def close(self, **wrong: int) -> int:
        right = EpochClosed(self.epoch, self.opened_at, len(self.lines))
        return self.own(EPOCH_CLOSED, replace(right, **wrong).payload())

    def store(self, *, head: Callable[[Head], Head] | None = None) -> MemoryStore:
        """The ledger with its tree and a head signed over it."""
        tree, tiles = Tree.empty().extend([leaf_hash(line) for line in self.lines])
        note = sign_checkpoint(Checkpoint(ORIGIN, tree.size, tree.root), Signer(ORIGIN, KEYS.checkpoint))
        made = Head(len(self.lines), note, self.opened_at, 0, 0)
        store = MemoryStore()
        store.create(Batch(0, self.lines, tiles), made)
        if head:
            store._head = head(made)
        return store

    def verify(self, **options: Any) -> Report:
        return verify(self.store(), **options)


def verify(store: MemoryStore, **options: Any) -> Report:
    options.setdefault("clock", lambda: NOON + 3_600 * timestamp.SECOND)
    return verify_store(store, keystore=StaticKeys(KEYS), **options)  # type: ignore[arg-type]


def kinds(report: Report) -> list[tuple[str, int | None]]:
    """What was found, without the words."""
    return [(str(finding.kind), finding.position) for finding in report.findings]


def edited(line: bytes, **changes: Any) -> bytes:
    """A record with members replaced, canonical, but not signed anew."""
    return encode({**decode(line), **changes})


def rechained(lines: Sequence[bytes], first: int, mac_key: Callable[[int], bytes] | None) -> list[bytes]:
    """The records from `first` on, chained to what now stands before them; signed too, when a key is known."""
    out = list(lines)
    for position in range(first, len(out)):
        members = decode(out[position])
        members["prev_hash"] = record_hash(out[position - 1]).hex()
        out[position] = reseal(members, mac_key=mac_key(members["epoch"])) if mac_key else encode(members)
    return out
