"""SPEC 10's example is what the code makes, byte for byte: the worked example's event in a bundle of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tallystick.core import timestamp
from tallystick.core.manifest import EVENTS_FILE, MANIFEST_FILE, SEAL_FILE
from tallystick.core.note import VerifierKey
from tallystick.core.policy import Policy
from tallystick.core.selector import Selector
from tallystick.core.system import Genesis
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.evidence.bundle.delivery import Delivery
from tallystick.evidence.bundle.export import Selection, Source, export
from tallystick.ids import IdMaker
from tallystick.read.follower import Follower
from tallystick.read.own_records import FRAMING, Framing, OwnRecords
from tallystick.read.reader import Reader
from tallystick.read.sqlite_index import SqliteIndexFile
from tallystick.store.contract import Head
from tallystick.store.reading import read_record
from tallystick.write.moment import Moments
from tallystick.write.sealer import Sealer
from tests.sealing import sealing_index
from tests.test_spec import MOMENT, SPEC, example_keys, worked_example

CHANGES = Selector.of("permission changes", [["event_type=user.permission_changed"]], ["first=2", "end=3"])
LATER = MOMENT + 3_600 * timestamp.SECOND


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Position 2 of the worked example, exported an hour later by an auditor."""
    keys, store, ids = example_keys(), worked_example(), IdMaker(random=bytes)
    for _ in range(3):
        ids.next_counter()  # those of the worked example
    follower = Follower(store, SqliteIndexFile(None, store))
    turn = threading.Lock()
    genesis = Genesis.of(read_record(store, 0))
    sealer = Sealer(
        store,
        genesis=genesis,
        load_keys=lambda: keys,
        known=sealing_index(store, keys),
        moments=Moments(lambda: LATER),
        ids=ids,
        turn=turn,
    )
    reader = Reader(store, follower, turn=turn)

    def newest() -> Head:
        head = store.head()
        assert head is not None
        return head

    framing = OwnRecords(lambda first: (first, ()), types=FRAMING, keep=Framing.of)
    source = Source(
        store=store,
        genesis=genesis,
        framing=lambda: [*sealer.prove(framing.follow)],
        catch_up=reader.catch_up,
        change_epoch=sealer.change_epoch,
        load_keys=lambda: keys,
        seal_own=sealer.seal_own,
        head=newest,
        hand_out=lambda head: head,
        clock=lambda: LATER,
    )
    exported = export(
        source,
        Selection(first=2, end=3, selectors=(CHANGES,)),
        Delivery(tmp_path / "bundle"),
        actor={"id": "auditor-ann"},
        vouch=lambda note: (note, (), ()),
        progress=None,
    )
    (tmp_path / "record").write_bytes(read_record(store, exported.position).line)
    return exported.path


def test_the_example_of_a_bundle_is_what_the_code_makes(bundle: Path) -> None:
    spec = SPEC.read_text("utf-8")

    for name in (MANIFEST_FILE, EVENTS_FILE, SEAL_FILE):
        text = (bundle / name).read_text("utf-8")
        assert f"\n{text.removesuffix(chr(10))}\n" in spec, text
    record = (bundle.parent / "record").read_text("utf-8")
    assert f"\n{record}\n" in spec, record


def test_the_example_of_a_bundle_holds(bundle: Path) -> None:
    key = example_keys().checkpoint.public_key().public_bytes_raw()
    trust = Policy(logs=(VerifierKey("audit.example/acme", key),)).render()

    assert verify_bundle(bundle, trust=trust, clock=lambda: LATER).findings == ()
