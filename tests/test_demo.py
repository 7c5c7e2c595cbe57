"""The demo tells the truth: what it shows works, and the tampering is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent


def test_the_demo_finds_the_changed_byte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "413 read, 413 new" in done.stdout
    assert "role: editor → admin" in done.stdout
    assert "PASS  the ledger northwind holds" in done.stdout
    assert "position 249  leaf" in done.stdout
    assert "Found, at position 249." in done.stdout
    assert [*tmp_path.iterdir()] == []
