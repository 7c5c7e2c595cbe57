"""A ledger read the naive way: `json`, `hashlib` and the definitions, nothing of what is under test.

What the library says of a ledger is compared with what this says. It is slow, and means to be obvious.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 2.1.1, over leaf hashes."""
    if not leaves:
        return sha256(b"")
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + root(leaves[:split]) + root(leaves[split:]))


def roots(lines: Iterable[bytes], sizes: set[int]) -> dict[int, bytes]:
    """The root of the tree at each of `sizes`, in one pass with a stack of perfect subtrees."""
    found: dict[int, bytes] = {}
    stack: list[tuple[int, bytes]] = []
    for size, line in enumerate(lines, 1):
        height, node = 0, sha256(b"\x00" + line)
        while stack and stack[-1][0] == height:
            height, node = height + 1, sha256(b"\x01" + stack.pop()[1] + node)
        stack.append((height, node))
        if size in sizes:
            folded = stack[-1][1]
            for _, left in reversed(stack[:-1]):
                folded = sha256(b"\x01" + left + folded)
            found[size] = folded
    return found


def checkpoint_of(note: bytes) -> tuple[int, bytes]:
    """The size and the root that a checkpoint states; its signature is not looked at."""
    _, size, root_text = note.decode().split("\n")[:3]
    return int(size), base64.b64decode(root_text)


def read_chain(lines: Sequence[bytes]) -> list[dict[str, Any]]:
    """The members of every record; fails unless positions, chain, times and entity versions are in order."""
    records: list[dict[str, Any]] = []
    previous, recorded_at = "0" * 64, ""
    versions: dict[str, int] = {}
    for position, line in enumerate(lines):
        members: dict[str, Any] = json.loads(line)
        entity_id = members["entity_id"]
        versions[entity_id] = versions.get(entity_id, 0) + 1
        assert members["position"] == position
        assert members["prev_hash"] == previous
        assert members["recorded_at"] >= recorded_at
        assert members["entity_version"] == versions[entity_id]
        previous, recorded_at = sha256(line).hex(), members["recorded_at"]
        records.append(members)
    return records


def check_tree(lines: Sequence[bytes], checkpoints: Iterable[bytes]) -> None:
    """Fails unless every checkpoint names the root that the records have at its size."""
    stated = [checkpoint_of(note) for note in checkpoints]
    found = roots(lines, {size for size, _ in stated})
    for size, root_stated in stated:
        assert found[size] == root_stated, f"two roots at size {size}"
