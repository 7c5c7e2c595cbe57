"""The client: the verbs of a ledger, spoken to a service over HTTP.

Here its halves are put together, and how it reaches the service is settled. What it gives are the library's own values,
and what it raises are the library's own errors, so that code goes from a ledger to a client without change.
"""

from __future__ import annotations

import os
import ssl
from types import TracebackType
from typing import Final

from tallystick.client.address import Address
from tallystick.client.appending import Appending
from tallystick.client.asking import Asking
from tallystick.client.calls import Calls
from tallystick.client.proving import Proving
from tallystick.client.schemas import Schemas
from tallystick.clock import Clock, wall_clock

SECONDS: Final = 30.0
"""How long one call may take, all its tries together, when nothing else is said."""


class Client(Appending, Asking, Proving):
    """One ledger behind a service: that of the key's tenant. Safe for many threads, and after a fork.

    A context manager: leaving it closes the connections.
    """

    survives_fork: Final = True
    """A child of this process may go on with it: it gets connections and event ids of its own."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        seconds: float = SECONDS,
        ca_file: str | os.PathLike[str] | None = None,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
        insecure: bool = False,
        clock: Clock = wall_clock,
    ) -> None:
        """Nothing is sent yet.

        `seconds` is how long a call may take, with all its tries. Servers are known by the authorities that this
        machine trusts, by those in `ca_file`, or as `tls` says. `insecure` lets the key go in the clear to another
        machine. Proxies, certificates and passwords named by the environment are not used. Raises `RejectedError`.
        """
        address = Address.of(url, key, insecure=insecure, ca_file=ca_file, tls=tls, proxy=proxy)
        self.url: Final = address.url
        """The service."""
        self._calls = Calls(address, seconds=seconds, clock=clock)

    @property
    def schemas(self) -> Schemas:
        """What events have to look like, by type and version, and what becomes of those that do not."""
        return Schemas(self._calls)

    def close(self) -> None:
        """Let go of the connections. Closing twice is harmless."""
        self._calls.close()

    def __repr__(self) -> str:
        return f"<Client of {self.url}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
