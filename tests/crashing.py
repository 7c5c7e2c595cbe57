"""Leaving a ledger as a crash of its process would."""

from __future__ import annotations

from tallystick import Ledger


def abandon(ledger: Ledger) -> None:
    """Lose what the ledger holds in memory, and end its threads, which would go on with a store that is closed."""
    mark = ledger._mark
    if mark is not None:
        mark._stop.set()
        mark._wake.set()
        if mark._thread is not None:
            mark._thread.join()
    ledger._store.close()
