"""What someone does who can write a ledger's file, has no keys, and makes keys of his own."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import apsw
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.canonical import decode, encode
from tallystick.core.checkpoint import Checkpoint, sign_checkpoint
from tallystick.core.merkle import Tree, leaf_hash
from tallystick.core.note import Signer
from tallystick.core.record import KEY_ROTATED, record_hash
from tallystick.core.system import KeyRotated, Purpose, system_members
from tests.tampering import line_at, replace_record


def made_up_rotation(purpose: Purpose, ledger: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """The members of a rotation to a key, "signed" by that key twice, as no other agrees."""
    rotated = KeyRotated.sign(purpose, ledger=ledger, old=key, new=key)
    return system_members(KEY_ROTATED, rotated.payload(), event_id=secrets.token_hex(13))


def put_rotation(log: Path, position: int, purpose: Purpose, key: Ed25519PrivateKey) -> None:
    """Put a made-up rotation in the place of a record, with a fitted checksum."""
    members = decode(line_at(log, position))
    replace_record(log, position, encode({**members, **made_up_rotation(purpose, members["ledger"], key)}))


def append_forged(log: Path, events: Sequence[Mapping[str, Any]], key: Ed25519PrivateKey) -> bytes:
    """Append a made-up rotation and made-up events, under tiles, a root and a checkpoint that fit; the checkpoint."""
    connection = apsw.Connection(str(log))
    connection.set_busy_timeout(10_000)
    rows: Any = connection.execute("SELECT bytes FROM record ORDER BY position").fetchall()
    lines = [bytes(line) for (line,) in rows]
    size, last = len(lines), decode(lines[-1])
    origin = decode(lines[0])["payload"]["origin"]
    versions = {record["entity_id"]: record["entity_version"] for record in map(decode, lines)}
    for content in [made_up_rotation("checkpoint", last["ledger"], key), *events]:
        members = {**last, "id": secrets.token_hex(13), "actor": {"id": "ciso"}, "payload": {}, **content}
        entity = members["entity_id"]
        versions[entity] = members["entity_version"] = versions.get(entity, 0) + 1
        members |= {"position": len(lines), "prev_hash": record_hash(lines[-1]).hex(), "signature": "0" * 64}
        lines.append(encode(members))
    tree, tiles = Tree.empty().extend([leaf_hash(line) for line in lines])
    note = sign_checkpoint(Checkpoint(origin, tree.size, tree.root), Signer(origin, key))
    triggers: Any = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        connection.execute(f'DROP TRIGGER "{name}"')
    for position, line in enumerate(lines[size:], size):
        connection.execute("INSERT INTO record VALUES (?, ?, ?)", (position, line, crc32(line)))
    connection.execute("DELETE FROM tile")
    for tile in tiles:
        connection.execute("INSERT INTO tile VALUES (?, ?, ?)", (tile.level << 48 | tile.index, tile.hashes, tile.root))
    connection.execute("UPDATE head SET size = ?, checkpoint = ?, checkpoint_key_at = ?", (tree.size, note, size))
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.close()
    return note
