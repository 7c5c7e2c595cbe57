"""The Go project's implementation of tiled logs verifies what `tallystick tiles` and `prove` write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import tallystick
from tallystick.evidence.tiles import Counts, write_tile_tree

pytestmark = pytest.mark.go

SOURCE = Path(__file__).parent / "tlogcheck"


@pytest.fixture(scope="module")
def tlogcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("go") / "tlogcheck"
    subprocess.run(["go", "build", "-o", os.fspath(program), "."], cwd=SOURCE, check=True)
    return program


def publish(ledger: tallystick.Ledger, folder: Path) -> Counts:
    """Bring the folder up to date, and keep each checkpoint beside the newest one."""
    counts = write_tile_tree(ledger, folder)
    (folder / f"checkpoint.{counts.size}").write_bytes(ledger.checkpoint())
    return counts


def test_go_verifies_a_published_ledger_as_it_grows(tlogcheck: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    sizes = (200, 256, 257, 3_000, 66_000)
    with tallystick.open(tmp_path / "audit") as ledger:
        folder.mkdir()
        (folder / "vkey").write_text(ledger.verifier_key.render() + "\n")
        for size in sizes:
            while ledger.size < size:
                count = min(size - ledger.size, 10_000)
                ledger.append_many({"event_type": "a.b", "entity_id": f"e-{n % 7}"} for n in range(count))
            publish(ledger, folder)
        for position in (0, 255, 256, 40_000, 65_999):
            (folder / f"{position}.tlog-proof").write_bytes(ledger.prove(position).render())
            (folder / f"{position}.record").write_bytes(ledger.get(position).line)

    result = subprocess.run([tlogcheck, folder], capture_output=True, text=True, check=False)

    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.startswith("local/audit: 66000 records, ")
    assert "5 earlier checkpoints, 5 inclusion proofs" in result.stdout
