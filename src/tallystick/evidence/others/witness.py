"""A witness: it watches other people's ledgers grow, and cosigns what it saw (C2SP tlog-witness, tlog-cosignature).

It remembers one checkpoint a ledger, and cosigns the next only when that provably grew from it. The look at what it
remembers and the change of it are one transaction, on the disk before the answer leaves: so it never cosigns two
histories, also not across a crash, or in two processes. What was signed and does not fit is kept: that is proof.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tallystick.clock import Clock, wall_clock
from tallystick.config import open_keystore
from tallystick.core import timestamp
from tallystick.core.checkpoint import Checkpoint, open_checkpoint
from tallystick.core.cosignature import WitnessSigner
from tallystick.core.merkle import HASH_BYTES, verify_consistency
from tallystick.core.note import Note
from tallystick.core.policy import Policy
from tallystick.core.strict import parse_base64, parse_decimal
from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.limits import NOTE_BYTES_MAX, PROOF_HASHES_MAX, SIZE_MAX
from tallystick.sqlite_file import connect, query, run_script, transaction, translated

KEY_NAME: Final = "witness"
REQUEST_BYTES_MAX: Final = NOTE_BYTES_MAX + 4_096
"""A checkpoint, and before it at most 63 hashes in base64."""

_FILE_NAME: Final = "witness.db"
_SIZE_TYPE: Final = "text/x.tlog.size"
_TEXT_TYPE: Final = "text/plain; charset=utf-8"
_REFUSED_KEPT: Final = 1_000
_SCHEMA: Final = """
CREATE TABLE witness (name TEXT NOT NULL) STRICT;
CREATE TABLE checkpoint (origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note BLOB NOT NULL,
    at INTEGER NOT NULL) STRICT;
CREATE TABLE refused (id INTEGER PRIMARY KEY, origin TEXT NOT NULL, why TEXT NOT NULL, request BLOB NOT NULL,
    at INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes over HTTP."""

    status: int
    body: bytes
    content_type: str = _TEXT_TYPE


@dataclass(frozen=True, slots=True)
class Watched:
    """The newest checkpoint of a ledger that was cosigned, and when, in microseconds."""

    checkpoint: Checkpoint
    note: bytes
    at: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request with a good signature that did not fit what was cosigned before, and when, in microseconds."""

    origin: str
    why: str
    request: bytes
    at: int


class Witness:
    """One witness, its key and its memory in a folder. Safe for many threads and processes."""

    def __init__(self, folder: Path, *, policy: Policy, clock: Clock = wall_clock) -> None:
        """Watch the ledgers of a policy's `log` lines. Raises `NotFoundError` where `make_witness` made none."""
        if not (folder / _FILE_NAME).exists():
            raise NotFoundError(f"there is no witness at {folder}: make one first")
        self._policy: Final = policy
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        with translated("open the witness' memory"):
            self._connection: Final = connect(folder / _FILE_NAME, synchronous="full")
            name = str(query(self._connection, "SELECT name FROM witness")[0][0])
        self.signer: Final = WitnessSigner(name, open_keystore(folder).signing_key(KEY_NAME))

    def add_checkpoint(self, request: bytes) -> Reply:
        """The call of that name: 200 with a cosignature, or why not. Raises `StoreError` when it could not remember."""
        try:
            old, proof, note = _parse(request)
            text = Note.parse(note).text
            checkpoint = Checkpoint.parse(text)
        except RejectedError as error:
            return _reply(400, str(error))
        keys = [key for key in self._policy.logs if key.name == checkpoint.origin]
        if not keys:
            return _reply(404, f"the ledger {checkpoint.origin} is not watched here")
        try:
            open_checkpoint(note, keys, origin=checkpoint.origin)
        except TamperError as error:
            return _reply(403, str(error))
        if old > checkpoint.size:
            return _reply(400, "the old size is larger than the checkpoint's")
        with self._lock, translated("remember a checkpoint"), transaction(self._connection):
            refusal = self._refusal(old, checkpoint, proof, request)
            if refusal is not None:
                return refusal
            now = self._clock()
            self._connection.execute(
                "INSERT INTO checkpoint VALUES (?, ?, ?, ?, ?) ON CONFLICT (origin) DO UPDATE SET "
                "size = excluded.size, root = excluded.root, note = excluded.note, at = excluded.at",
                (checkpoint.origin, checkpoint.size, checkpoint.root, note, now),
            )
        # A crash from here on leaves a memory of what was not answered: the same request is then answered again.
        line = self.signer.cosign(text, seconds=now // timestamp.SECOND)
        return Reply(200, f"{line.render()}\n".encode())

    def watched(self) -> list[Watched]:
        """What was cosigned last, of each ledger."""
        with self._lock, translated("read the witness' memory"):
            rows = query(self._connection, "SELECT origin, size, root, note, at FROM checkpoint ORDER BY origin")
        return [Watched(Checkpoint(origin, size, root), note, at) for origin, size, root, note, at in rows]

    def refused(self) -> list[Refused]:
        """What a ledger's own key signed, and what did not fit what was cosigned before; the newest first."""
        with self._lock, translated("read the witness' memory"):
            rows = query(self._connection, "SELECT origin, why, request, at FROM refused ORDER BY id DESC")
        return [Refused(*row) for row in rows]

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            self._connection.close()

    def _refusal(self, old: int, checkpoint: Checkpoint, proof: list[bytes], request: bytes) -> Reply | None:
        """Why a checkpoint does not follow on the last one; in the transaction that remembers it."""
        rows = query(self._connection, "SELECT size, root FROM checkpoint WHERE origin = ?", (checkpoint.origin,))
        size, root = rows[0] if rows else (0, None)
        if old != size:
            return Reply(409, f"{size}\n".encode(), _SIZE_TYPE)
        if root is None:
            return None if not proof else _reply(422, "there is nothing to prove from size 0")
        if size == checkpoint.size and root != checkpoint.root:
            self._keep_refused(checkpoint.origin, f"another root of {size} records", request)
            return Reply(409, f"{size}\n".encode(), _SIZE_TYPE)
        if not verify_consistency(size, checkpoint.size, path=proof, old_root=root, root=checkpoint.root):
            self._keep_refused(checkpoint.origin, f"not proven to begin with the {size} records cosigned", request)
            return _reply(422, "the proof does not lead from the checkpoint that was cosigned to this one")
        return None

    def _keep_refused(self, origin: str, why: str, request: bytes) -> None:
        """Keep what may be proof of two histories, the newest thousand of them."""
        self._connection.execute("INSERT INTO refused VALUES (NULL, ?, ?, ?, ?)", (origin, why, request, self._clock()))
        self._connection.execute("DELETE FROM refused WHERE id <= (SELECT max(id) FROM refused) - ?", (_REFUSED_KEPT,))


def make_witness(folder: Path, *, name: str) -> WitnessSigner:
    """Make a witness' key and memory; where they are already, they stay. Raises `RejectedError` for another name."""
    keystore = open_keystore(folder)
    keystore.make_key(KEY_NAME)
    signer = WitnessSigner(name, keystore.signing_key(KEY_NAME))
    with translated("make the witness' memory"):
        connection = connect(folder / _FILE_NAME, synchronous="full")
        try:
            with transaction(connection):
                if not query(connection, "SELECT 1 FROM sqlite_schema LIMIT 1"):
                    run_script(connection, _SCHEMA)
                    connection.execute("INSERT INTO witness VALUES (?)", (name,))
                named = str(query(connection, "SELECT name FROM witness")[0][0])
        finally:
            connection.close()
    if named != name:
        raise RejectedError(f"the witness there is named {named}", place="name", cure="choose another folder")
    return signer


def _parse(request: bytes) -> tuple[int, list[bytes], bytes]:
    """The old size, the proof, and the signed checkpoint. Raises `RejectedError`."""
    if len(request) > REQUEST_BYTES_MAX:
        raise RejectedError(f"a request of more than {REQUEST_BYTES_MAX} bytes")
    above, divider, note = request.partition(b"\n\n")
    try:
        first, *lines = above.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise RejectedError("the lines above the checkpoint are not ASCII") from error
    if not divider or not first.startswith("old "):
        raise RejectedError("a request reads: old <size>, hashes, an empty line, a checkpoint")
    if len(lines) > PROOF_HASHES_MAX:
        raise RejectedError(f"more than {PROOF_HASHES_MAX} hashes")
    proof = [parse_base64(line, place="proof") for line in lines]
    if any(len(one) != HASH_BYTES for one in proof):
        raise RejectedError(f"a hash that is not of {HASH_BYTES} bytes", place="proof")
    return parse_decimal(first.removeprefix("old "), maximum=SIZE_MAX, place="old size"), proof, note


def _reply(status: int, why: str) -> Reply:
    return Reply(status, f"{why}\n".encode())
