"""Who sends a request: whose API key it bears, or for whom the identity provider vouches.

Whoever cannot be told is refused with the same words, whatever is wrong; what was wrong with a token is in the
diagnostics. A token that held is known by its hash for `KNOWN_SECONDS`, so that a client costs one check of a signature
a minute and not one a request. Its end, its tenant and the issuer's keys are looked at every time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from hashlib import sha256
from typing import Final, NamedTuple

from tallystick.deployment import Deployment
from tallystick.errors import BusyError, DeniedError
from tallystick.govern.access import UNKNOWN, Principal, User
from tallystick.limits import TOKENS_KNOWN_MAX
from tallystick.serve.issuers import Issuer
from tallystick.serve.jwks import IssuerKeys
from tallystick.serve.oidc import OidcSettings
from tallystick.serve.tokens import TokenRefusedError, judge, read_head

KNOWN_SECONDS: Final = 60.0
TELL_SECONDS: Final = 1.0
"""How often a refused token is told of: whoever sends many does not fill the disk."""

_KEY_PREFIX: Final = "ts_"
_log: Final = logging.getLogger("tallystick.serve")


class _Known(NamedTuple):
    user: User
    until: float


class Authentication:
    """The two ways to be known to a service. `settle` is of the event loop; `principal` of any thread."""

    def __init__(self, deployment: Deployment, settings: OidcSettings | None = None) -> None:
        self.issuer: Final = None if settings is None else Issuer(settings)
        self._deployment: Final = deployment
        self._known: Final[OrderedDict[bytes, _Known]] = OrderedDict()
        self._known_by: IssuerKeys | None = None
        self._turn: Final = threading.Lock()
        self._told_at = float("-inf")
        self._untold = 0

    async def settle(self, text: str) -> None:
        """Have the issuer asked for the key of a token, if it is not held. Before `principal`, which never waits."""
        if self.issuer is None or text.startswith(_KEY_PREFIX):
            return
        try:
            head = read_head(text, self.issuer.settings)
        except TokenRefusedError:
            return  # which `principal` finds, too, and tells
        await self.issuer.seek(head.key_id)

    def principal(self, text: str, *, address: str | None) -> Principal:
        """Whose key or token it is. Raises `DeniedError`, and `BusyError` where the issuer's keys are not there."""
        if self.issuer is None or text.startswith(_KEY_PREFIX):
            return self._deployment.authenticate(text, address=address)
        try:
            user = self._user(text, self.issuer)
            if not self._deployment.is_in_force(user):
                raise TokenRefusedError(f"it is over, or there is no tenant {user.tenant[:60]!r} at work")
        except TokenRefusedError as error:
            self._tell(error)
            raise DeniedError(UNKNOWN) from None
        return user

    def _user(self, text: str, issuer: Issuer) -> User:
        settings, keys = issuer.settings, issuer.keys
        if keys is None:
            read_head(text, settings)  # what is no token is refused all the same
            raise BusyError("the identity provider does not answer: wait a moment, or come with a key")
        digest = sha256(text.encode()).digest()
        now = time.monotonic()
        with self._turn:
            if keys is not self._known_by:  # what an older key vouched for is judged again
                self._known.clear()
                self._known_by = keys
            known = self._known.get(digest)
        if known is not None and now < known.until:
            return known.user
        user = judge(text, keys, settings, now=self._deployment.clock())
        with self._turn:
            if keys is self._known_by:
                self._known[digest] = _Known(user, now + KNOWN_SECONDS)
                self._known.move_to_end(digest)
                while len(self._known) > TOKENS_KNOWN_MAX:
                    self._known.popitem(last=False)
        return user

    def _tell(self, error: TokenRefusedError) -> None:
        with self._turn:
            now = time.monotonic()
            if now - self._told_at < TELL_SECONDS:
                self._untold += 1
                return
            untold, self._untold, self._told_at = self._untold, 0, now
        _log.warning("a token was refused: %s%s", error, f" ({untold} more since the last line)" if untold else "")
