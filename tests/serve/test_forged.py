"""What somebody made up in a tenant's folder: a final error, the alarm, and nothing of another tenant in the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.canonical import decode, encode
from tests.forging import append_forged
from tests.serve.conftest import Running, running
from tests.tampering import edit, line_at, replace_record

EVIL: Final = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
EVENT: Final = {"event_type": "door.opened", "entity_id": "door-1"}
FORGED: Final = [{"event_type": "user.created", "entity_id": "mallory"}]
LEAVING: Final = (
    *("ledger", "checkpoint", "proofs/20", "events/20", "tile/0/000", "consistency/20"),
    *("controls/evidence?id=CC6.2&clock=occurred", "controls/evidence?id=CC6.2", "reports/access-review"),
)


def log_of(it: Running) -> Path:
    return it.deployment.folder / "tenants/acme/ledger.db"


def fill(it: Running, count: int) -> None:
    batch: Any = b"\n".join(encode(EVENT) for _ in range(count))
    headers = {"Content-Type": "application/x-ndjson"}
    done = it.call("POST", "/api/v1/events/batch", content=batch, headers=headers)
    assert done.status_code < 300, done.text


def check_alarm(it: Running, answer: httpx2.Response) -> None:
    assert answer.status_code == 500, answer.text
    assert answer.json()["family"] == "tamper"
    assert it.call("GET", "/health/ready?tenant=acme").status_code == 503
    told = [one for one in it.deployment.system.read() if one.event_type.startswith("verification.")]
    assert "tenant/acme" in {one.payload["ledger"] for one in told}


@pytest.mark.parametrize("path", LEAVING)
def test_nothing_leaves_of_a_made_up_head(tmp_path: Path, path: str) -> None:
    with running(tmp_path / "data") as it:
        fill(it, 300)
        append_forged(log_of(it), FORGED, EVIL)

        check_alarm(it, it.call("GET", f"/api/v1/{path}"))


def test_an_event_is_refused_by_a_made_up_head_for_good(tmp_path: Path) -> None:
    with running(tmp_path / "data") as it:
        fill(it, 30)
        append_forged(log_of(it), FORGED, EVIL)

        check_alarm(it, it.call("POST", "/api/v1/events", json=EVENT))


@pytest.mark.parametrize("path", ["proofs/20", "events/20"])
def test_an_altered_record_is_not_answered(tmp_path: Path, path: str) -> None:
    with running(tmp_path / "data") as it:
        fill(it, 300)
        log = log_of(it)
        replace_record(log, 20, encode({**decode(line_at(log, 20)), "payload": {"n": "FORGED"}}))

        check_alarm(it, it.call("GET", f"/api/v1/{path}"))


@pytest.mark.parametrize("path", ["proofs/20", "events/20", "tile/0/000", "consistency/20"])
def test_an_altered_tile_is_not_answered(tmp_path: Path, path: str) -> None:
    with running(tmp_path / "data") as it:
        fill(it, 300)
        edit(log_of(it), "UPDATE tile SET hashes = CAST(zeroblob(32) || substr(hashes, 33) AS BLOB) WHERE rowid = 0")

        check_alarm(it, it.call("GET", f"/api/v1/{path}"))


def test_a_folder_with_another_tenants_ledger_raises_the_alarm_and_names_nobody(tmp_path: Path) -> None:
    with running(tmp_path / "data") as it:
        keys = dict(it.keys)
        fill(it, 30)
        assert it.call("POST", "/api/v1/events", "other/Admin", json=EVENT).status_code == 201
    tenants = tmp_path / "data/tenants"
    for old, new in (("acme", "x"), ("other", "acme"), ("x", "other")):
        (tenants / old).rename(tenants / new)

    with running(tmp_path / "data") as it:
        it.keys.update(keys)
        for path in ("events/query?limit=1", "checkpoint", "ledger"):
            answer = it.call("GET", f"/api/v1/{path}")
            check_alarm(it, answer)
            assert str(tmp_path) not in answer.text
            assert "other" not in answer.json()["detail"].replace("another", "")
