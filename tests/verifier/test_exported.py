"""What the library exports holds for the verifier, which has never seen the library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tallystick_verify import judge_proof, verify_bundle, verify_pair

import tallystick
from tallystick.ledger import Ledger
from tallystick.read.query import parse_terms


@pytest.fixture
def trust(ledger: Ledger) -> bytes:
    return f"log {ledger.verifier_key.render()}\nquorum none\n".encode()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "ledger") as made:
        for day in range(4):
            made.append_many(
                [
                    {
                        "event_type": "door.opened",
                        "entity_id": f"door-{number % 3}",
                        "actor": ("jane", "raj")[number % 2],
                        "payload": {"day": day, "n": number / 4, "note": "\u2028<b>\U0001f600"},
                    }
                    for number in range(9)
                ]
            )
            if day in (1, 2):
                made.rotate_key("checkpoint" if day == 1 else "evidence")
        made.schemas.register("door.locked", 1, {"properties": {"by": {"x-personal": True}}}, actor="jane")
        made.schemas.enforce("warn", actor="jane", reason="a trial")
        yield made


def test_all_of_it_a_part_of_it_and_a_selection_of_it_hold(ledger: Ledger, trust: bytes, tmp_path: Path) -> None:
    kept = ledger.checkpoint()
    ledger.export(tmp_path / "all")
    ledger.export(tmp_path / "part.zip", first=5, end=20, as_zip=True)
    ledger.export(tmp_path / "some", [parse_terms(["actor=jane"])])
    ledger.append_many([{"event_type": "door.locked", "entity_id": "door-1", "payload": {}}])
    ledger.export(tmp_path / "since", since=kept)

    for name in ("all", "part.zip", "some", "since"):
        report = verify_bundle(tmp_path / name, trust=trust, known=kept if name in ("all", "since") else None)
        assert report.findings == [], name
    assert verify_pair((tmp_path / "all", tmp_path / "part.zip"), trust=trust)[2] == []


def test_a_proof_of_each_record_holds(ledger: Ledger, trust: bytes) -> None:
    for record in ledger.read(0, 20):
        assert judge_proof(ledger.prove(record.position).render(), record.line, trust) == []
