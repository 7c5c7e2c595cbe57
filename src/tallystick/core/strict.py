"""Strict readers of the two small texts inside checkpoints, keys and proofs: decimals and base64.

Python's own readers are lenient (`int` takes `4_2`, ` 42` and `+42`; base64 takes stray bits at the end),
and what two verifiers read differently is a way to deceive one of them. Here a value has one text, and any
other is a `RejectedError` at its `place`.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from tallystick.errors import RejectedError

_DECIMAL: Final = re.compile(r"0|[1-9][0-9]*")


def parse_decimal(text: str, *, maximum: int, place: str) -> int:
    """Read an ASCII decimal from 0 to `maximum`, without sign, separators or leading zeros."""
    # Bounded first: `int` takes quadratic time over long texts, and refuses very long ones in its own way.
    if len(text) <= len(str(maximum)) and _DECIMAL.fullmatch(text) and (number := int(text)) <= maximum:
        return number
    raise RejectedError(f"{_shown(text)} is not a decimal from 0 to {maximum} in its one form", place=place)


def render_base64(data: bytes) -> str:
    """Write bytes in standard, padded base64 (RFC 4648 section 4)."""
    return base64.b64encode(data).decode("ascii")


def parse_base64(text: str, *, place: str) -> bytes:
    """Read standard, padded base64, only in the form in which `render_base64` writes it."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = None
    if data is None or render_base64(data) != text:
        raise RejectedError(f"{_shown(text)} is not standard, padded base64 in its one form", place=place)
    return data


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 60 else text[:60] + "...")
