"""Who calls, as a value."""

from __future__ import annotations

from typing import NamedTuple

from tallystick.govern.access import Principal
from tallystick.read.query import Within


class Origin(NamedTuple):
    """Where a request comes from, as far as it says."""

    address: str | None = None
    user_agent: str = ""
    request_id: str = ""

    def to_json(self) -> dict[str, str]:
        """What is known of it."""
        said = {"address": self.address, "user_agent": self.user_agent, "request_id": self.request_id}
        return {name: value for name, value in said.items() if value}


class Caller(NamedTuple):
    """Who calls, by which route, and from where."""

    principal: Principal
    method: str
    path: str
    origin: Origin = Origin()

    @property
    def tenant(self) -> str:
        """The tenant that the key or token is of: there is no other way to name one."""
        return self.principal.tenant

    @property
    def within(self) -> Within:
        """What of the tenant's records the key or token is for."""
        return Within(self.principal.scope.event_types, self.principal.scope.entity_prefixes)

    @property
    def ledger(self) -> str:
        """The name of the ledger of the caller's tenant."""
        return f"tenant/{self.principal.tenant}"
