"""SPEC.md's worked example is what the code makes, byte for byte."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core import timestamp
from tallystick.core.keys import LedgerKeys
from tallystick.core.merkle import inclusion_path
from tallystick.core.proof import Proof
from tallystick.core.system import Genesis
from tallystick.core.tiles import TileNodes
from tallystick.ids import IdMaker
from tallystick.store.memory import MemoryStore
from tallystick.store.reading import tile_hashes
from tallystick.write.accept import Acceptor
from tallystick.write.moment import Moments
from tallystick.write.resume import create_ledger
from tallystick.write.sealer import Sealer
from tests.sealing import sealing_index

SPEC = Path(__file__).parent.parent / "SPEC.md"
INPUT = (
    b'{"event_type": "user.permission_changed", "entity_id": "user-456", "actor": "admin-jane", '
    b'"payload": {"field": "role", "old_value": "viewer", "new_value": "editor"}}'
)
MOMENT = timestamp.parse("2026-03-03T09:30:00.000000Z")


def example_keys() -> LedgerKeys:
    """The keys of SPEC 1: master secret 00..1f, signing keys from seeds 01…, 02…, 03…"""
    root, checkpoint, evidence = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
    return LedgerKeys.derive(bytes(range(32)), "acme", root=root, checkpoint=checkpoint, evidence=evidence)


def worked_example() -> MemoryStore:
    """The ledger of SPEC 1, with a nonce of zeros."""
    keys = example_keys()
    genesis = Genesis(
        ledger="acme",
        origin="audit.example/acme",
        nonce=bytes(32),
        root_key=keys.root.public_key().public_bytes_raw(),
        checkpoint_key=keys.checkpoint.public_key().public_bytes_raw(),
        evidence_key=keys.evidence.public_key().public_bytes_raw(),
        epoch_records_max=1_000_000,
        epoch_seconds_max=86_400,
    )
    store, ids = MemoryStore(), IdMaker(random=bytes)
    create_ledger(store, genesis=genesis, keys=keys, ids=ids, now=MOMENT)
    known = sealing_index(store, keys)
    sealer = Sealer(
        store, genesis=genesis, load_keys=lambda: keys, known=known, moments=Moments(lambda: MOMENT), ids=ids
    )
    sealer.seal([Acceptor(ids).accept(INPUT)])
    return store


def test_the_worked_example_is_what_the_code_makes() -> None:
    spec = SPEC.read_text("utf-8")
    store = worked_example()
    head = store.head()
    assert head is not None
    nodes = TileNodes(head.size, lambda level, index, width: tile_hashes(store, level, index, width))
    proof = Proof(2, tuple(inclusion_path(2, head.size, node=nodes)), head.checkpoint)
    assert f"\n{INPUT.decode()}\n" in spec
    for stored in store.read(0, head.size):
        assert f"\n{stored.line.decode()}\n" in spec, stored.line.decode()
    assert f"\n{head.checkpoint.decode()}" in spec, head.checkpoint.decode()
    assert f"\n{proof.render().decode()}" in spec, proof.render().decode()
