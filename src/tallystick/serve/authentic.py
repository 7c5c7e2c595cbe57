"""What the service keeps in files and obeys later: a MAC in the first line, in hex, and behind it the data."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import TypeAlias

Authenticate: TypeAlias = Callable[[bytes], bytes]
"""The MAC, 32 bytes, of data, under a key that only the service has."""


def render(data: bytes, authenticate: Authenticate, *, about: bytes = b"") -> bytes:
    """The bytes of such a file. `about` is under the MAC, too, and not in the file: what the file is of."""
    return authenticate(about + data).hex().encode() + b"\n" + data


def parse(kept: bytes, authenticate: Authenticate, *, about: bytes = b"") -> bytes | None:
    """The data in the bytes of such a file; None when the service did not write it, or not about this."""
    tag, _, data = kept.partition(b"\n")
    return data if hmac.compare_digest(tag, authenticate(about + data).hex().encode()) else None
