"""Tallystick: an event-sourced, tamper-evident audit log.

The public names, and nothing else. They are imported when they are first used, so that a command line
that only prints its help does not wait for the cryptography.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tallystick.backups.judging import BackupFinding
    from tallystick.backups.make import BackedUp, backup
    from tallystick.backups.restore import Restored, check_backup, restore
    from tallystick.client.appending import UnfinishedError
    from tallystick.client.client import Client
    from tallystick.core.checked_proof import CheckedProof, ProofFault, check_proof
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
    from tallystick.evidence.bundle.check import verify_bundle
    from tallystick.evidence.bundle.export import Exported
    from tallystick.evidence.bundle.pair import PairReport, verify_pair
    from tallystick.evidence.bundle.report import BundleFinding, BundleReport
    from tallystick.evidence.findings import Finding, Report
    from tallystick.evidence.verify import verify
    from tallystick.govern.schemas import Schemas
    from tallystick.ledger import Ledger
    from tallystick.opening import open_ledger as open
    from tallystick.opening import rebuild_index
    from tallystick.read.projection import Projection, projection
    from tallystick.read.query import Query
    from tallystick.read.search import Page
    from tallystick.read.state import Difference, State
    from tallystick.read.subscription import Subscription
    from tallystick.write.request import Sealed

__all__ = [
    "BackedUp",
    "BackupFinding",
    "BundleFinding",
    "BundleReport",
    "BusyError",
    "CheckedProof",
    "Client",
    "ConflictError",
    "DeniedError",
    "Difference",
    "Event",
    "Exported",
    "Finding",
    "Ledger",
    "NotFoundError",
    "Page",
    "PairReport",
    "Projection",
    "Proof",
    "ProofFault",
    "Query",
    "Record",
    "RejectedError",
    "Report",
    "Restored",
    "Schemas",
    "Sealed",
    "State",
    "StoreError",
    "Subscription",
    "TallystickError",
    "TamperError",
    "UnfinishedError",
    "backup",
    "check_backup",
    "check_proof",
    "open",
    "projection",
    "rebuild_index",
    "restore",
    "verify",
    "verify_bundle",
    "verify_pair",
]

_HOMES: Final = {
    "BackedUp": "backups.make",
    "BackupFinding": "backups.judging",
    "Restored": "backups.restore",
    "backup": "backups.make",
    "check_backup": "backups.restore",
    "restore": "backups.restore",
    "BundleFinding": "evidence.bundle.report",
    "BundleReport": "evidence.bundle.report",
    "Exported": "evidence.bundle.export",
    "PairReport": "evidence.bundle.pair",
    "verify_bundle": "evidence.bundle.check",
    "verify_pair": "evidence.bundle.pair",
    "Client": "client.client",
    "UnfinishedError": "client.appending",
    "Difference": "read.state",
    "Page": "read.search",
    "Projection": "read.projection",
    "Query": "read.query",
    "State": "read.state",
    "Subscription": "read.subscription",
    "projection": "read.projection",
    "CheckedProof": "core.checked_proof",
    "ProofFault": "core.checked_proof",
    "check_proof": "core.checked_proof",
    "Event": "core.event",
    "Finding": "evidence.findings",
    "Ledger": "ledger",
    "Proof": "core.proof",
    "Record": "core.record",
    "Report": "evidence.findings",
    "Schemas": "govern.schemas",
    "Sealed": "write.request",
    "open": "opening",
    "rebuild_index": "opening",
    "verify": "evidence.verify",
}
_OTHER_NAMES: Final = {"open": "open_ledger"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"tallystick.{_HOMES.get(name, 'errors')}")
    value = globals()[name] = getattr(module, _OTHER_NAMES.get(name, name))
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
