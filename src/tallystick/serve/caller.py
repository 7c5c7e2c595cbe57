"""Who calls, as a value."""

from __future__ import annotations

from typing import NamedTuple

from tallystick.govern.access import Principal


class Caller(NamedTuple):
    """Who calls, and by which route."""

    principal: Principal
    method: str
    path: str

    @property
    def tenant(self) -> str:
        """The tenant that the key or token is of: there is no other way to name one."""
        return self.principal.tenant

    @property
    def ledger(self) -> str:
        """The name of the ledger of the caller's tenant."""
        return f"tenant/{self.principal.tenant}"
