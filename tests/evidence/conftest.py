"""What several tests of evidence need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

import tallystick
from tallystick import Ledger

EXAMPLE: Final = Path(__file__).parents[2] / "examples/events.jsonl"


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The ledger of the examples, which occurred from 2026-02-23 through 2026-04-05."""
    with tallystick.open(tmp_path_factory.mktemp("clinic") / "audit") as ledger:
        ledger.append_many([line for line in EXAMPLE.read_bytes().split(b"\n") if line])
        yield ledger
