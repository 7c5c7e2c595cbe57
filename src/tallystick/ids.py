"""Event ids for those who bring none, and the only place that asks the system for randomness.

A made id is a UUID of version 8 (RFC 9562, 5.8: vendor-specific): 74 random bits drawn once for the maker,
then a 48-bit counter. Ids made one after another differ only in the counter, so the index keeps a whole
run of them as one row, and the sealer need not look them up: nobody else makes the same ones.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from typing import Final

_MADE: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-)([0-9a-f]{12})")


def random_bytes(size: int) -> bytes:
    """Bytes from the system's generator, fit for keys and nonces."""
    return os.urandom(size)


class IdMaker:
    """Makes event ids; safe for many threads. Two makers never make the same one."""

    def __init__(self, random: Callable[[int], bytes] = random_bytes) -> None:
        digits = random(10).hex()
        variant = "89ab"[int(digits[15], 16) % 4]
        self.prefix: Final = f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}-{variant}{digits[16:19]}-"
        self.next_counter: Final = itertools.count().__next__
        """Takes the next counter, from 0; one call cannot be interrupted by another thread."""


def spell(prefix: str, counter: int) -> str:
    """The made id of a maker's prefix and a counter below 2^48."""
    return f"{prefix}{counter:012x}"


def split_made(event_id: str) -> tuple[str, int] | None:
    """The prefix and counter of an id that has the form of a made one, else None."""
    if event_id[14:15] != "8":  # nearly all others: cheaper than the expression
        return None
    match = _MADE.fullmatch(event_id)
    return (match[1], int(match[2], 16)) if match else None
