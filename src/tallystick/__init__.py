"""Tallystick: an event-sourced, tamper-evident audit log."""

from tallystick.core.event import Event
from tallystick.core.proof import Proof
from tallystick.core.record import Record
from tallystick.errors import (
    BusyError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    StoreError,
    TallystickError,
    TamperError,
)
from tallystick.evidence.findings import Finding, Report
from tallystick.evidence.verify import verify
from tallystick.ledger import Ledger
from tallystick.ledger import open_ledger as open
from tallystick.write.request import Sealed

__all__ = [
    "BusyError",
    "ConflictError",
    "DeniedError",
    "Event",
    "Finding",
    "Ledger",
    "NotFoundError",
    "Proof",
    "Record",
    "RejectedError",
    "Report",
    "Sealed",
    "StoreError",
    "TallystickError",
    "TamperError",
    "open",
    "verify",
]
