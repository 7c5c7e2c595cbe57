"""What a ledger says when it was restored: what is written is read back, and nothing else is read as it."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.note import Signer
from tallystick.core.restored import LEDGER_RESTORED, LedgerRestored
from tallystick.errors import RejectedError
from tests.core.test_custody import record_of
from tests.evidence.forge import fixed_key

HELD: Final = sign_checkpoint(Checkpoint("a/b", 9, b"\1" * 32), Signer("a/b", fixed_key(2)))
RESTORED: Final = LedgerRestored(
    size=7,
    created="2026-03-15T12:00:00.000000Z",
    backup_sha256=b"\2" * 32,
    held_checkpoint=HELD,
    reason="the disk died",
)


@pytest.mark.parametrize("held", [HELD, None])
def test_it_is_read_as_it_was_written(held: bytes | None) -> None:
    restored = LedgerRestored(
        size=7, created=RESTORED.created, backup_sha256=b"\2" * 32, held_checkpoint=held, reason="the disk died"
    )

    assert LedgerRestored.of(record_of(LEDGER_RESTORED, restored.payload())) == restored


@pytest.mark.parametrize(
    "changed",
    [
        {"size": 0},
        {"size": True},
        {"size": "7"},
        {"size": 9},  # the checkpoint is of nothing that was lost
        {"created": "yesterday"},
        {"created": 1},
        {"backup_sha256": "00"},
        {"backup_sha256": "x" * 64},
        {"backup_sha256": "A" * 64},
        {"held_checkpoint": "x"},
        {"held_checkpoint": 1},
        {"reason": ""},
        {"reason": None},
        {"reason": "x" * 1_001},
        {"more": 1},
    ],
)
def test_nothing_else_is_read_as_it(changed: dict[str, Any]) -> None:
    with pytest.raises(RejectedError):
        LedgerRestored.of(record_of(LEDGER_RESTORED, {**RESTORED.payload(), **changed}))


@pytest.mark.parametrize("name", [*RESTORED.payload()])
def test_no_member_may_be_missing(name: str) -> None:
    payload = {key: value for key, value in RESTORED.payload().items() if key != name}

    with pytest.raises(RejectedError):
        LedgerRestored.of(record_of(LEDGER_RESTORED, payload))
