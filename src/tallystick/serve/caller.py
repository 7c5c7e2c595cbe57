"""Who calls, as a value."""

from __future__ import annotations

from typing import NamedTuple

from tallystick.govern.access import Key


class Caller(NamedTuple):
    """Who calls, and by which route."""

    key: Key
    method: str
    path: str

    @property
    def tenant(self) -> str:
        """The tenant that the key is of: there is no other way to name one."""
        return self.key.tenant

    @property
    def ledger(self) -> str:
        """The name of the ledger of the caller's tenant."""
        return f"tenant/{self.key.tenant}"
