"""The record: the sealed canonical bytes of one event (SPEC 3). The bytes are the event.

A record has exactly sixteen members. Nine are the caller's content, seven the sealer's; in name order they
interleave, so content is encoded once at acceptance as three runs of bytes, and sealing is concatenation:

    {before,"entity_version":…,"epoch":…,middle,"ledger":…,after,"position":…,"prev_hash":…,"recorded_at":…,"signature":…}
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NoReturn

from tallystick.core import timestamp
from tallystick.core.canonical import decode_canonical
from tallystick.core.content import check_content
from tallystick.errors import RejectedError
from tallystick.limits import NAME_CHARACTERS_MAX, RECORD_BYTES_MAX

LEDGER_CREATED: Final = "tallystick.ledger.created"
EPOCH_OPENED: Final = "tallystick.epoch.opened"
EPOCH_CLOSED: Final = "tallystick.epoch.closed"
KEY_ROTATED: Final = "tallystick.key.rotated"

NO_HASH: Final = "0" * 64
"""The `prev_hash` of the genesis, which has no record before it."""

_NAMES: Final = (
    *("actor", "context", "entity_id", "entity_version", "epoch", "event_type", "event_version", "id"),
    *("labels", "ledger", "occurred_at", "payload", "position", "prev_hash", "recorded_at", "signature"),
)
"""The members of a record, in their order."""
_TEXTS: Final = ("ledger", "prev_hash", "recorded_at", "signature")

_SIGNATURE_START: Final = b',"signature":"'
SIGNATURE_BYTES: Final = len(_SIGNATURE_START) + 64 + len('"}')
"""What the signature takes at the end of every record but the genesis."""
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]|/(?=[A-Za-z0-9]))*")
_HEX_HASH: Final = re.compile(r"[0-9a-f]{64}").fullmatch
_HEX_GENESIS_SIGNATURE: Final = re.compile(r"[0-9a-f]{128}").fullmatch


def body_format(*, ledger: str, epoch: int, recorded_at: str) -> bytes:
    """A %-format of a record up to its signature, for (before, entity_version, middle, after, position, prev_hash).

    Sealing fills it once a record; the ledger name's alphabet has nothing to escape.
    """
    return (
        b'{%%b,"entity_version":%%d,"epoch":%d,%%b,"ledger":"%b",%%b,"position":%%d,"prev_hash":"%%b","recorded_at":"%b"'
        % (epoch, ledger.encode(), recorded_at.encode())
    )


def signed_part(body: bytes) -> bytes:
    """The canonical record without its `signature` (SPEC 3.3), from a filled `body_format`."""
    return body + b"}"


def with_signature(body: bytes, signature: bytes) -> bytes:
    """The record: the signature spliced in after a filled `body_format`, where its name sorts."""
    return b'%b,"signature":"%b"}' % (body, signature)


def record_hash(line: bytes) -> bytes:
    """SHA-256 of the record's bytes: what the next record's `prev_hash` names in hex."""
    return hashlib.sha256(line).digest()


def check_ledger_name(name: str, *, place: str = "") -> None:
    """A ledger's or deployment's name: letters, digits and `. _ - /`, so that it needs no escaping in
    JSON, in a signed note's key name, or in a URL. Raises `RejectedError`."""
    if len(name) > NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise RejectedError(
            f"{name[:60]!r} is not a ledger name",
            place=place,
            cure=f"use 1 to {NAME_CHARACTERS_MAX} letters, digits and . _ - / beginning with a letter or digit",
        )


def check_members(members: Any) -> None:
    """Hold a decoded record to SPEC 3.1: its names, types and bounds. Raises `RejectedError`.

    The form of the two hashes is for `check_hashes`: one that equals what is expected needs no other look.
    """
    if type(members) is not dict or tuple(members) != _NAMES:
        _refuse_names(members)
    check_content(members)
    version, epoch, position = members["entity_version"], members["epoch"], members["position"]
    if not type(version) is type(epoch) is type(position) is int or version < 1 or epoch < 0 or position < 0:
        _refuse_number(members)
    for name in _TEXTS:
        if type(members[name]) is not str:
            raise RejectedError("not a string", place=f"/{name}")
    _check_ledger(members["ledger"])
    _check_recorded_at(members["recorded_at"])


def check_hashes(members: dict[str, Any]) -> None:
    """Hold the `prev_hash` and the `signature` of a record to their forms. Raises `RejectedError`."""
    if not _HEX_HASH(members["prev_hash"]):
        raise RejectedError("not 64 lower-case hex digits", place="/prev_hash")
    if not (_HEX_GENESIS_SIGNATURE if members["position"] == 0 else _HEX_HASH)(members["signature"]):
        raise RejectedError("not 64 lower-case hex digits (128 in the genesis)", place="/signature")


@lru_cache(maxsize=64)
def _check_ledger(name: str) -> None:
    check_ledger_name(name, place="/ledger")


@lru_cache(maxsize=1024)
def _check_recorded_at(text: str) -> None:
    # Records sealed by one commit share their time, so most texts were checked just before.
    try:
        timestamp.parse(text)
    except RejectedError as error:
        raise RejectedError(error.problem, place="/recorded_at", cure=error.cure) from error


def _refuse_names(members: Any) -> NoReturn:
    if type(members) is not dict:
        raise RejectedError("a record is a JSON object")
    missing, unknown = sorted({*_NAMES} - members.keys()), sorted(members.keys() - {*_NAMES})
    if missing:
        raise RejectedError(f"the record lacks {', '.join(missing)}")
    raise RejectedError("a record has no such member", place=f"/{unknown[0][:60]}")


def _refuse_number(members: dict[str, Any]) -> NoReturn:
    for name, least in (("entity_version", 1), ("epoch", 0), ("position", 0)):
        if type(members[name]) is not int or members[name] < least:
            raise RejectedError(f"not an integer from {least}", place=f"/{name}")
    raise AssertionError("a number was refused, and all are right")


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read: its bytes, its hash, and its members as `decode` gives them.

    Made by `parse`; the bytes are canonical and the members have the right types and bounds. That says
    nothing of who wrote it: chain, signature and tree are for the verifier.
    """

    line: bytes
    members: dict[str, Any]

    @classmethod
    def parse(cls, line: bytes) -> Record:
        """Read one record, byte for byte as SPEC 3 has it. Raises `RejectedError` for anything else."""
        if len(line) > RECORD_BYTES_MAX:
            raise RejectedError(f"a record of {len(line)} bytes; at most {RECORD_BYTES_MAX} are allowed")
        members = decode_canonical(line)
        check_members(members)
        check_hashes(members)
        return cls(line, members)

    @property
    def hash(self) -> bytes:
        return record_hash(self.line)

    @property
    def position(self) -> int:
        return int(self.members["position"])

    @property
    def event_type(self) -> str:
        return str(self.members["event_type"])

    @property
    def entity_id(self) -> str:
        return str(self.members["entity_id"])

    @property
    def entity_version(self) -> int:
        return int(self.members["entity_version"])

    @property
    def event_version(self) -> int:
        return int(self.members["event_version"])

    @property
    def id(self) -> str:
        return str(self.members["id"])

    @property
    def recorded_at(self) -> str:
        return str(self.members["recorded_at"])

    @property
    def occurred_at(self) -> str | None:
        value = self.members["occurred_at"]
        return None if value is None else str(value)

    @property
    def actor(self) -> dict[str, str] | None:
        value: dict[str, str] | None = self.members["actor"]
        return value

    @property
    def context(self) -> dict[str, Any]:
        value: dict[str, Any] = self.members["context"]
        return value

    @property
    def labels(self) -> list[str]:
        value: list[str] = self.members["labels"]
        return value

    @property
    def payload(self) -> dict[str, Any]:
        value: dict[str, Any] = self.members["payload"]
        return value

    @property
    def signed_part(self) -> bytes:
        return split_signature(self.line)[0]


def split_signature(line: bytes) -> tuple[bytes, bytes]:
    """The signed part and the signature, as ASCII, of a record whose shape holds."""
    start = line.rindex(_SIGNATURE_START)
    return line[:start] + b"}", line[start + len(_SIGNATURE_START) : -2]
