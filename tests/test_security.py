"""SECURITY.md says of every file of a deployment what whoever can write it alone can do."""

from __future__ import annotations

import fnmatch
import re
import time
from pathlib import Path
from typing import Final

import tallystick
from tallystick.evidence.others.cosigning import KEPT_FILE
from tallystick.serve.settings import Settings
from tests.serve.conftest import running

SECURITY: Final = Path(__file__).resolve().parent.parent / "SECURITY.md"

ROWS: Final = {
    "ledger.db": "`ledger.db`",
    "index.db": "`index.db`",
    "sealing.db": "`sealing.db`",
    "cursors.db": "`cursors.db`",
    "index.compared": "`index.compared`",
    "*-wal": "`*-wal`",
    "*-shm": "`*-shm`",
    "*.lock": "`*.lock`",
    "queue/lock": "`lock`",
    "queue/*": "`queue/`",
    "*.key": "key files",
    "*.head": "`<ledger id>.head`",
    "*.queue": "`<ledger id>.queue`",
    "verified.json": "`verified.json`",
    "job.json": "`jobs/…/job.json`",
    "result.zip": "`jobs/…/result.zip`",
    "restored.json": "`restored.json`",
    KEPT_FILE: f"`{KEPT_FILE}`",
}
"""Files by name, or by the end of their path, and how the table names them."""


def named_in_the_table() -> str:
    text = SECURITY.read_text("utf-8")
    table = text.partition("### The files of a deployment, one by one")[2].partition("\n### ")[0]
    return "\n".join(line.split("|")[1] for line in table.split("\n") if line.startswith("| "))


def row_of(path: Path) -> str | None:
    for pattern, row in ROWS.items():
        if any(fnmatch.fnmatch(name, pattern) for name in (path.name, "/".join(path.parts[-2:]))):
            return row
    return None


def test_every_file_that_a_deployment_makes_stands_in_the_table(tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    found: set[Path] = set()
    with running(data, Settings(verify_hours=1 / 3_600)) as it:
        it.call("POST", "/api/v1/events", json={"event_type": "a.b", "entity_id": "c"})
        it.call("POST", "/api/v1/events?durability=queued", json={"event_type": "a.b", "entity_id": "d"})
        with it.deployment.ledger("acme") as ledger, ledger.subscribe(name="siem") as subscription:
            subscription.acknowledge(next(iter(subscription)).position)
            ledger.publish(event_type="a.b", entity_id="e")
        for kind in ("exports", "verify"):
            where = it.call("POST", f"/api/v1/{kind}", json={}).headers["Location"]
            while it.call("GET", where).json()["state"] not in ("done", "failed"):
                time.sleep(0.02)
        until = time.monotonic() + 30
        while not (data / "verified.json").exists() and time.monotonic() < until:
            time.sleep(0.02)
        found |= {path.relative_to(tmp_path) for path in data.rglob("*") if path.is_file()}
    tallystick.backup(data, tmp_path / "backup")
    tallystick.restore(tmp_path / "backup", copy, keys=data / "keys")
    found |= {path.relative_to(tmp_path) for path in copy.rglob("*") if path.is_file()}

    names = {path.name for path in found}
    assert {"verified.json", "job.json", "result.zip", "restored.json", "cursors.db", "index.compared"} <= names
    assert any(path.parent.name == "queue" for path in found)
    table = re.sub(r"\s+", " ", named_in_the_table())
    unknown = sorted(str(path) for path in found if (row := row_of(path)) is None or row not in table)
    assert unknown == [], "these files stand in no row of SECURITY.md"
    assert all(row in table for row in ROWS.values())
