"""What a record takes in memory once it is parsed: bytes say little, as two of them may be an object."""

from __future__ import annotations

from typing import Final

_VALUE_BYTES: Final = 128
_TREE_BYTES: Final = 64


def weight_of(line: bytes) -> int:
    """About how many bytes the record of these bytes takes, with all of its values."""
    return 2 * len(line) + _VALUE_BYTES * line.count(b",") + _TREE_BYTES * (line.count(b"{") + line.count(b"["))
