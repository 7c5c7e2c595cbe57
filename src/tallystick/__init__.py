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
from tallystick.ledger import Ledger
from tallystick.ledger import open_ledger as open
from tallystick.write.request import Sealed

__all__ = [
    "BusyError",
    "ConflictError",
    "DeniedError",
    "Event",
    "Ledger",
    "NotFoundError",
    "Proof",
    "Record",
    "RejectedError",
    "Sealed",
    "StoreError",
    "TallystickError",
    "TamperError",
    "open",
]
