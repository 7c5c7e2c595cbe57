"""The keys of an issuer, fetched from it and kept fresh: discovery, then its key set, over HTTP.

Whatever it does, nobody waits for it longer than `FETCH_SECONDS`, no more than one fetch is under way, and an answer is
bounded before it is read. It is asked again when its keys are due, and at once for a key that is not held, but then at
most every `SEEK_SECONDS`: a flood of made-up key ids is no flood of fetches. While it is down its keys go on counting,
for `STALE_SECONDS`.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from contextlib import suppress
from typing import Final, NamedTuple

import httpx2

from tallystick.core.canonical import decode
from tallystick.errors import BusyError, RejectedError, TallystickError
from tallystick.limits import ISSUER_ANSWER_BYTES_MAX
from tallystick.serve.jwks import IssuerKeys
from tallystick.serve.oidc import OidcSettings, is_url_to_ask

FETCH_SECONDS: Final = 5.0
"""Both requests together, whichever part of them is slow."""

SEEK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 15.0
"""When it is asked again that did not answer, or not sensibly."""

FRESH_SECONDS: Final = 300.0
"""How long keys are fresh of which the issuer does not say so itself."""

FRESH_SECONDS_MIN: Final = 60.0
FRESH_SECONDS_MAX: Final = 900.0
"""Within these it may say so: a key that it withdraws must end soon, and nobody is asked all the time."""

STALE_SECONDS: Final = 86_400.0

_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=\"?([0-9]{1,9})\"?(?:$|[\s,])", re.ASCII | re.IGNORECASE)
_log: Final = logging.getLogger("tallystick.serve")


class Fetched(NamedTuple):
    """What an issuer answered."""

    keys: IssuerKeys
    fresh_seconds: float


class Issuer:
    """One issuer, and what is held of it. To be used from one event loop; `keys` from any thread."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings: Final = settings
        self._keys: IssuerKeys | None = None
        self._got_at = 0.0
        self._asked_at = float("-inf")
        self._due_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._taken: Final = asyncio.Event()

    @property
    def keys(self) -> IssuerKeys | None:
        """Its keys: the same object as long as they are the same. None if it was never reached, or not for too long."""
        return None if time.monotonic() - self._got_at > STALE_SECONDS else self._keys

    async def seek(self, key_id: str | None) -> None:
        """Ask for a key that is not held, if it is time; without an id, for any at all. Never raises."""
        keys = self.keys
        if keys is not None and (key_id is None or keys.has(key_id)):
            return
        if self._fetching is not None or time.monotonic() - self._asked_at >= SEEK_SECONDS:
            await self._ask()

    async def keep_fresh(self) -> None:
        """Ask whenever the keys are due, until cancelled."""
        while True:
            if time.monotonic() >= self._due_at:
                await self._ask()
            self._taken.clear()
            with suppress(TimeoutError):  # or earlier, when somebody sought a key and it is due earlier now
                async with asyncio.timeout(max(self._due_at - time.monotonic(), 0.01)):
                    await self._taken.wait()

    async def _ask(self) -> None:
        """Wait for the fetch that is under way, or for a new one, but not for ever."""
        if self._fetching is None:
            self._asked_at = time.monotonic()
            self._due_at = self._asked_at + RETRY_SECONDS
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.wait([self._fetching], timeout=FETCH_SECONDS)  # whoever leaves does not end it for the others

    async def _fetch(self) -> None:
        try:
            found = await asyncio.to_thread(fetch, self.settings)
        except TallystickError as error:
            held = "its keys go on counting" if self.keys is not None else "no token counts until it does"
            _log.warning("the issuer %s gave no keys, and %s: %s", self.settings.issuer, held, error)
        except Exception:  # noqa: BLE001 - a mistake of ours, and the keys that are held go on counting
            _log.exception("fetching the keys of %s failed", self.settings.issuer)
        else:
            self._take(found)
        finally:
            self._fetching = None

    def _take(self, found: Fetched) -> None:
        now = time.monotonic()
        if found.keys != self._keys:
            self._keys = found.keys
            for why in found.keys.left_aside:
                _log.info("a key of %s is left aside: %s", self.settings.issuer, why)
            if not found.keys.keys:
                _log.warning("the issuer %s has no key that checks a token here", self.settings.issuer)
        self._got_at = now
        self._due_at = now + found.fresh_seconds
        self._taken.set()


def fetch(settings: OidcSettings) -> Fetched:
    """The present keys of an issuer. Blocks for at most about `FETCH_SECONDS`.

    Raises `BusyError` when it does not answer, `RejectedError` when its answer does not do.
    """
    return asyncio.run(_fetch(settings))  # a loop of its own: only there a deadline holds for all parts of a request


async def _fetch(settings: OidcSettings) -> Fetched:
    try:
        async with (
            asyncio.timeout(FETCH_SECONDS),
            httpx2.AsyncClient(timeout=FETCH_SECONDS, follow_redirects=False) as client,
        ):
            found, _ = await _get(client, settings.discovery_url)
            url = _keys_url(found, settings)
            found, cache_control = await _get(client, url)
            return Fetched(IssuerKeys.parse(found, settings.algorithms), _fresh_seconds(cache_control))
    except TimeoutError as error:
        raise BusyError(f"it did not answer whole within {FETCH_SECONDS:g} s") from error
    except httpx2.InvalidURL as error:
        raise RejectedError(f"it has a URL that is none: {error}") from error
    except httpx2.HTTPError as error:
        raise BusyError(f"it did not answer: {str(error) or type(error).__name__}") from error


async def _get(client: httpx2.AsyncClient, url: str) -> tuple[bytes, str]:
    """The body of an answer, and its `Cache-Control`."""
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != 200:
            raise BusyError(f"{url} answered with {response.status_code}")
        found = bytearray()
        async for chunk in response.aiter_raw():
            found += chunk
            if len(found) > ISSUER_ANSWER_BYTES_MAX:
                raise RejectedError(f"{url} sent more than {ISSUER_ANSWER_BYTES_MAX:,} bytes")
        return bytes(found), response.headers.get("Cache-Control", "")


def _keys_url(data: bytes, settings: OidcSettings) -> str:
    """Where the keys are, as the issuer's description of itself says (OpenID Connect Discovery 4.3)."""
    said = decode(data)
    if not isinstance(said, dict) or said.get("issuer") != settings.issuer:
        shown = said.get("issuer") if isinstance(said, dict) else None
        problem = f"{settings.discovery_url} is about the issuer {str(shown)[:120]!r}, not {settings.issuer!r}"
        raise RejectedError(problem, cure="give the issuer exactly as it names itself")
    url = said.get("jwks_uri")
    loopback = settings.issuer.startswith("http:")
    if not isinstance(url, str) or len(url) > 2_048 or not is_url_to_ask(url, loopback=loopback):
        raise RejectedError(f"its keys are at {str(url)[:120]!r}, which is not asked", cure="it takes https://")
    return url


def _fresh_seconds(cache_control: str) -> float:
    said = _MAX_AGE.search(cache_control[:1_000])
    return FRESH_SECONDS if said is None else min(max(float(said[1]), FRESH_SECONDS_MIN), FRESH_SECONDS_MAX)
