"""Signatures over whole files, as OpenSSH makes and checks them (OpenSSH `PROTOCOL.sshsig`; SPEC 10.6).

They are what `ssh-keygen -Y verify` reads, so that an auditor needs none of our software to check who signed. Only what
SPEC prints is written or read: Ed25519, SHA-512, lines of 70 characters. A signature has one text.
"""

from __future__ import annotations

import re
from hashlib import sha512
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tallystick.core.ed25519 import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, signature_holds
from tallystick.core.strict import parse_base64, render_base64
from tallystick.errors import RejectedError, TamperError
from tallystick.limits import SEAL_BYTES_MAX

BUNDLE_NAMESPACE: Final = "tallystick-bundle@v1"
VIEWS_NAMESPACE: Final = "tallystick-views@v1"
BACKUP_NAMESPACE: Final = "tallystick-backup@v1"

_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----\n"
_END: Final = "-----END SSH SIGNATURE-----\n"
_LINE_CHARACTERS: Final = 70
_MAGIC: Final = b"SSHSIG"
_KIND: Final = b"ssh-ed25519"
_HASH: Final = b"sha512"


def sign_file(data: bytes, key: Ed25519PrivateKey, *, namespace: str) -> bytes:
    """The armored signature of a file's bytes."""
    signature = key.sign(_message(data, namespace))
    return _render(key.public_key().public_bytes_raw(), namespace, signature)


def open_signature(armored: bytes, data: bytes, *, namespace: str) -> bytes:
    """The public key, 32 bytes, that signed a file's bytes; whether it is to be trusted is for the caller.

    Raises `RejectedError` for anything but what `sign_file` writes, `TamperError` when the signature is not of these
    bytes.
    """
    public_key, signature = _parse(armored, namespace)
    if not signature_holds(public_key, signature, _message(data, namespace)):
        raise TamperError("The signature is not over these bytes of the file.")
    return public_key


def public_key_line(public_key: bytes) -> str:
    """An Ed25519 public key as OpenSSH writes it in `authorized_keys` and `allowed_signers`, without a comment."""
    return f"{_KIND.decode()} {render_base64(_public_key_blob(public_key))}"


def _message(data: bytes, namespace: str) -> bytes:
    return _MAGIC + b"".join(map(_string, (namespace.encode(), b"", _HASH, sha512(data).digest())))


def _render(public_key: bytes, namespace: str, signature: bytes) -> bytes:
    parts = (_public_key_blob(public_key), namespace.encode(), b"", _HASH, _string(_KIND) + _string(signature))
    text = render_base64(_MAGIC + (1).to_bytes(4, "big") + b"".join(map(_string, parts)))
    lines = [text[at : at + _LINE_CHARACTERS] + "\n" for at in range(0, len(text), _LINE_CHARACTERS)]
    return "".join([_BEGIN, *lines, _END]).encode("ascii")


def _parse(armored: bytes, namespace: str) -> tuple[bytes, bytes]:
    """The public key and the raw signature. What is written anew from them must be the very same text."""
    if len(armored) > SEAL_BYTES_MAX:
        raise RejectedError(f"a signature of {len(armored)} bytes; at most {SEAL_BYTES_MAX} are allowed")
    lines = re.fullmatch(f"{_BEGIN}([A-Za-z0-9+/=\n]*){_END}", armored.decode("latin-1"))
    if lines is None:
        raise RejectedError("this is no SSH signature", cure="it begins with -----BEGIN SSH SIGNATURE-----")
    blob = parse_base64(lines[1].replace("\n", ""), place="signature")
    key_start = len(_MAGIC) + 4 + 4 + 4 + len(_KIND) + 4
    public_key, signature = blob[key_start : key_start + PUBLIC_KEY_BYTES], blob[-SIGNATURE_BYTES:]
    if len(public_key) != PUBLIC_KEY_BYTES or _render(public_key, namespace, signature) != armored:
        problem = f"this is not an Ed25519 signature in the namespace {namespace}, in its one form"
        raise RejectedError(problem, cure="take the file as it was exported")
    return public_key, signature


def _public_key_blob(public_key: bytes) -> bytes:
    return _string(_KIND) + _string(public_key)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
