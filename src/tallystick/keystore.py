"""Where the secrets rest: a folder of files that only their owner can read.

`master.key` holds 32 bytes in hex; `root.key`, `checkpoint.key` and `evidence.key` hold Ed25519 private keys in
PKCS #8 PEM, as `openssl pkey` reads them. They are made on first use, all four at once. A file that others may
read is refused: a secret that was open is no secret, and going on would hide it. Its group may, if so configured.

A rotation writes `<purpose>.next-<first digits of the public key>.key` first, then the ledger's record, then
renames; whichever file fits the ledger after a crash is the one in force. A next key is never deleted: only the
ledger knows whether it came into force, and without it nothing more could be sealed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tallystick.core.keys import KEY_BYTES, LedgerKeys, PublicKeys
from tallystick.core.system import Purpose
from tallystick.durable import sync, sync_folder
from tallystick.errors import DeniedError, NotFoundError, RejectedError, StoreError, for_operators
from tallystick.ids import random_bytes
from tallystick.private_file import create, make_folder

SIGNING_KEYS: Final = ("root", "checkpoint", "evidence")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_BUT_GROUP: Final = _OTHERS & ~stat.S_IRGRP
"""The group may read, and not write: so container platforms mount secrets (0440 or 0640, owned by root)."""
_FILE_BYTES_MAX: Final = 4_096
_KEY: Final = re.compile(r"(?:master|root|checkpoint|evidence)(?:\.next-[0-9a-f]{16})?").fullmatch


class Keystore:
    """The keys of one deployment in `folder`, or, without a folder, in memory only.

    `group_readable` accepts files that their group may read. Those that are written here are their owner's alone.
    """

    def __init__(self, folder: Path | None, *, group_readable: bool = False) -> None:
        self.folder: Final = folder
        self._refused: Final = _OTHERS_BUT_GROUP if group_readable else _OTHERS
        self._secrets: dict[str, bytes] = {} if folder else _fresh()
        self._lock: Final = threading.Lock()

    def exists(self) -> bool:
        """Whether keys were made here; also when some of them are gone, which using them then tells."""
        return self.folder is None or any((self.folder / f"{name}.key").exists() for name in ("master", *SIGNING_KEYS))

    def make(self) -> None:
        """Make all keys, unless they are there. They appear together or not at all, also of two makers."""
        if self.folder is None or self.exists():
            return
        try:
            make_folder(self.folder.parent)
            scratch = Path(tempfile.mkdtemp(prefix=".keys-", dir=self.folder.parent))
            try:
                for name, secret in _fresh().items():
                    _write(scratch / f"{name}.key", secret)
                sync_folder(scratch)
                scratch.rename(self.folder)  # a crash before this leaves a folder that nothing looks at
                sync_folder(self.folder.parent)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            if not self.exists():
                raise StoreError(f"could not make the keys in {self.folder}: {error}") from error

    def make_key(self, name: str) -> None:
        """Make one Ed25519 key of another purpose, in a folder that may hold nothing else, unless it is there."""
        if self.folder is None:
            self._secrets.setdefault(name, _pem(Ed25519PrivateKey.generate()))
            return
        try:
            make_folder(self.folder)
            _write(self.folder / f"{name}.key", _pem(Ed25519PrivateKey.generate()))
            sync_folder(self.folder)
        except FileExistsError:
            return
        except OSError as error:
            raise StoreError(f"could not make the key {name} in {self.folder}: {error}") from error

    def ledger_keys(self, ledger: str) -> LedgerKeys:
        """The keys for sealing one ledger. Raises `NotFoundError`, `DeniedError` or `RejectedError`."""
        with for_operators():
            return LedgerKeys.derive(
                self._master(),
                ledger,
                root=self.signing_key("root"),
                checkpoint=self.signing_key("checkpoint"),
                evidence=self.signing_key("evidence"),
            )

    def signing_key(self, purpose: str) -> Ed25519PrivateKey:
        """One of `SIGNING_KEYS`."""
        try:
            key = load_pem_private_key(self._read(purpose), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise RejectedError(
                "not a private key in PKCS #8 PEM",
                place=self._place(purpose),
                cure="restore the file from a copy",
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise RejectedError("not an Ed25519 key", place=self._place(purpose), cure="restore the file from a copy")
        return key

    def public_keys(self) -> PublicKeys:
        """The public halves of the keys that are here, next ones too. Keys that cannot be read are left out."""
        found: dict[str, frozenset[bytes]] = {}
        for purpose in SIGNING_KEYS:
            keys: set[bytes] = set()
            for name in (purpose, *self._next_names(purpose)):
                with suppress(DeniedError, NotFoundError, RejectedError, StoreError):
                    keys.add(self.signing_key(name).public_key().public_bytes_raw())
            found[purpose] = frozenset(keys)
        return PublicKeys(next(iter(found["root"]), None), found["checkpoint"], found["evidence"])

    def is_rotating(self, purpose: Purpose) -> bool:
        """Whether a next key is here, which may have come into force."""
        return bool(self._next_names(purpose))

    def _next_names(self, purpose: str) -> list[str]:
        if self.folder is None:
            return [name for name in self._secrets if name.startswith(f"{purpose}.next-")]
        return sorted(path.stem for path in self.folder.glob(f"{purpose}.next-*.key") if _KEY(path.stem))

    def begin_rotation(self, purpose: Purpose) -> Ed25519PrivateKey:
        """Make the next key and keep it beside the present one, durably, before the ledger hears of it."""
        new = Ed25519PrivateKey.generate()
        name = f"{purpose}.next-{new.public_key().public_bytes_raw().hex()[:16]}"
        if self.folder is None:
            self._secrets[name] = _pem(new)
            return new
        try:
            _write(self.folder / f"{name}.key", _pem(new))
            sync_folder(self.folder)
        except OSError as error:
            raise StoreError(f"could not write the next {purpose} key in {self.folder}: {error}") from error
        return new

    def finish_rotation(self, purpose: Purpose, *, in_force: bytes) -> None:
        """Put the next key that is in force in the ledger, if there is one, in the place of the present one.

        `in_force` is the public key that the ledger names. Harmless when there is nothing to finish, and
        when another thread or process finishes it at the same time.
        """
        name = f"{purpose}.next-{in_force.hex()[:16]}"
        with self._lock:
            try:
                if self.signing_key(name).public_key().public_bytes_raw() != in_force:
                    return
                if self.folder is None:
                    self._secrets[purpose] = self._secrets.pop(name)
                else:
                    (self.folder / f"{name}.key").replace(self.folder / f"{purpose}.key")
                    sync_folder(self.folder)
            except (NotFoundError, FileNotFoundError):
                return
            except OSError as error:
                raise StoreError(f"could not put the next {purpose} key in force: {error}") from error

    def files(self) -> dict[str, bytes]:
        """All keys that are kept here, also next ones, by the names of their files; for a copy of them."""
        if self.folder is None:
            return {f"{name}.key": secret for name, secret in self._secrets.items()}
        names = sorted(path.stem for path in self.folder.glob("*.key") if _KEY(path.stem))
        return {f"{name}.key": self._read(name) for name in names}

    def _master(self) -> bytes:
        try:
            master = bytes.fromhex(self._read("master").decode("ascii").strip())
        except (UnicodeDecodeError, ValueError):
            master = b""
        if len(master) != KEY_BYTES:
            raise RejectedError(
                f"not {KEY_BYTES} bytes in hex",
                place=self._place("master"),
                cure="restore the file from a copy",
            )
        return master

    def _place(self, name: str) -> str:
        return str(self.folder / f"{name}.key") if self.folder else name

    def _read(self, name: str) -> bytes:
        if self.folder is None:
            if name not in self._secrets:
                raise NotFoundError(f"there is no key {name}")
            return self._secrets[name]
        path = self.folder / f"{name}.key"
        try:
            if path.is_fifo():  # opening it would wait for ever
                raise StoreError(f"could not read the key {path}: it is a pipe")
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                if os.name == "posix" and mode & self._refused:
                    raise DeniedError(_open_to_others(path, mode))
                return file.read(_FILE_BYTES_MAX)
        except FileNotFoundError as error:
            raise NotFoundError(f"there is no key {path}: give the folder that holds this ledger's keys") from error
        except OSError as error:
            raise StoreError(f"could not read the key {path}: {error}") from error


def _fresh() -> dict[str, bytes]:
    secrets = {name: _pem(Ed25519PrivateKey.generate()) for name in SIGNING_KEYS}
    return {"master": random_bytes(KEY_BYTES).hex().encode() + b"\n", **secrets}


def _open_to_others(path: Path, mode: int) -> str:
    seen = f"{path} may be read by others (mode {stat.S_IMODE(mode):04o})"
    cure = f"make new keys if anyone could have, else run: chmod 600 {path}"
    if mode & _OTHERS_BUT_GROUP:
        return f"{seen}: {cure}"
    return f"{seen}: {cure}. If its group is meant to read it, set TALLYSTICK_KEYS_GROUP_READABLE=true"


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, secret: bytes) -> None:
    with create(path) as file:
        file.write(secret)
        sync(file)
