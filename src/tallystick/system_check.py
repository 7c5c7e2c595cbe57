"""Whether the system ledger of a deployment verifies. What it says of keys and tenants is obeyed only then."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from tallystick.errors import TamperError
from tallystick.evidence.findings import Kind
from tallystick.ledger import Ledger

_log: Final = logging.getLogger("tallystick.deployment")


def checked(system: Ledger, folder: Path) -> Ledger:
    """Verify all of the system ledger, and give it back. `TamperError` when it does not hold; it is closed then.

    A time that has not come yet is reported, and is no reason to stay down: a clock was put back.
    """
    findings = system.verify(processes=1, index=False).findings
    for found in findings:
        _log.error("the system ledger does not verify: %s at %s: %s", found.kind, found.place, found.seen)
    wrong = [found for found in findings if found.kind is not Kind.TIME]
    if wrong:
        system.close()
        raise TamperError(
            f"the system ledger does not verify, and what it says of keys and tenants is not obeyed: {wrong[0].seen} "
            f"({wrong[0].place}; {len(wrong)} findings). Run tallystick verify -l {folder}; restore it from a backup"
        )
    return system
