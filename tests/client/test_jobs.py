"""What takes longer than a request: verifications and exports, ordered and fetched by a client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystick.client.client import Client
from tallystick.errors import BusyError, ConflictError, NotFoundError, RejectedError
from tallystick.evidence.bundle.check import verify_bundle
from tallystick.read.query import Query
from tests.serve.conftest import Running


def trust(it: Running) -> bytes:
    with it.deployment.ledger("acme") as ledger:
        return f"log {ledger.verifier_key.render()}\nquorum none\n".encode()


def test_a_verification_gives_the_report_of_the_service(client: Client) -> None:
    client.append(event_type="door.opened", entity_id="j-1")
    kept = client.checkpoint()
    client.append(event_type="door.opened", entity_id="j-1")
    told: list[tuple[int, int | None]] = []

    report = client.verify(since=kept, progress=lambda done, of: told.append((done, of)))

    assert report.holds
    assert report.since == report.size - 1
    assert report.checkpoint == client.checkpoint()
    part = client.verify(first=1, end=2)
    assert part.holds
    assert part.first <= 1
    assert part.end >= 2
    assert part.since is None
    with pytest.raises(RejectedError):
        client.verify(since=b"no checkpoint")


@pytest.mark.parametrize("as_zip", [False, True])
def test_an_export_arrives_as_the_ledger_recorded_it_and_verifies(
    it: Running, client: Client, tmp_path: Path, as_zip: bool
) -> None:
    for number in range(5):
        client.append(event_type="door.opened", entity_id=f"j-{number % 2}", payload={"n": number})
    target = tmp_path / ("bundle.zip" if as_zip else "bundle")

    exported = client.export(target, as_zip=as_zip)

    report = verify_bundle(target, trust=trust(it))
    assert report.findings == ()
    recorded = client.get(exported.position)
    assert recorded.event_type == "tallystick.evidence.exported"
    assert exported.manifest_sha256 in str(recorded.payload)
    with pytest.raises(ConflictError):
        client.export(target, as_zip=as_zip)


def test_an_export_of_several_queries_has_what_fits_any(it: Running, client: Client, tmp_path: Path) -> None:
    for entity in ("k-1", "k-2", "k-3"):
        client.append(event_type="door.opened", entity_id=entity)
    exported = client.export(tmp_path / "b", [Query.of(entity_id="k-1"), Query.of(entity_id="k-3")])
    assert exported.count == 2
    assert verify_bundle(tmp_path / "b", trust=trust(it)).findings == ()


def test_a_job_that_comes_to_nothing_raises_what_the_ledger_would(client: Client, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        client.export(tmp_path / "b", [Query.of(entity_id="nobody")])
    with pytest.raises(BusyError):
        client.export(tmp_path / "b", seconds=0.0)
    assert not (tmp_path / "b").exists()
