"""The demo tells the truth: what it shows works, and the tampering is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).resolve().parent.parent


def test_the_demo_finds_the_changed_byte(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/demo.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    spoken_for = [line for line in done.stderr.split("\n") if line]
    assert done.returncode == 0
    assert len(spoken_for) == 3, "what is asked says for which ledger it is answered, and nothing else is said aside"
    assert all("of a ledger of 415 records" in line for line in spoken_for)
    assert "413 read, 413 new" in done.stdout
    assert "role: editor → admin" in done.stdout
    assert "role    admin         2026-03-12 17:51:00  admin-jane  user.permission_changed  160" in done.stdout
    assert "2026-03-17 02:00:00Z  55  ███" in done.stdout
    assert "PASS  the ledger northwind holds" in done.stdout
    assert "position 249  leaf" in done.stdout
    assert "Found, at position 249." in done.stdout
    assert [*tmp_path.iterdir()] == []
