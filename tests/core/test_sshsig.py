"""Signatures of files: what OpenSSH reads and writes, in one form, by one key, over one file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from tallystick.core.sshsig import BUNDLE_NAMESPACE, VIEWS_NAMESPACE, open_signature, public_key_line, sign_file
from tallystick.errors import RejectedError, TamperError

KEY = Ed25519PrivateKey.from_private_bytes(bytes([3]) * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
DATA = b'{"format":"tallystick-bundle/1"}'
SIGNED = sign_file(DATA, KEY, namespace=BUNDLE_NAMESPACE)


def test_a_signature_tells_who_signed() -> None:
    assert open_signature(SIGNED, DATA, namespace=BUNDLE_NAMESPACE) == PUBLIC


def test_a_signature_is_the_same_every_time() -> None:
    assert sign_file(DATA, KEY, namespace=BUNDLE_NAMESPACE) == SIGNED


def test_a_signature_is_over_one_file() -> None:
    with pytest.raises(TamperError, match="not over these bytes"):
        open_signature(SIGNED, DATA + b" ", namespace=BUNDLE_NAMESPACE)


def test_a_signature_is_good_in_its_namespace_alone() -> None:
    with pytest.raises(RejectedError, match="tallystick-views@v1"):
        open_signature(SIGNED, DATA, namespace=VIEWS_NAMESPACE)


@given(st.integers(0, len(SIGNED) - 1), st.integers(1, 255))
def test_a_signature_with_any_byte_changed_is_refused(at: int, flip: int) -> None:
    changed = bytearray(SIGNED)
    changed[at] ^= flip

    with pytest.raises((RejectedError, TamperError)):
        open_signature(bytes(changed), DATA, namespace=BUNDLE_NAMESPACE)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_signature_or_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        open_signature(data, DATA, namespace=BUNDLE_NAMESPACE)


def test_a_signature_that_is_too_long_is_refused_before_it_is_read() -> None:
    with pytest.raises(RejectedError, match="at most 4096"):
        open_signature(SIGNED * 20, DATA, namespace=BUNDLE_NAMESPACE)


@pytest.mark.ssh_keygen
def test_ssh_keygen_takes_our_signature_by_the_key_line_that_we_print(tmp_path: Path) -> None:
    (tmp_path / "signers").write_text(f"local/acme {public_key_line(PUBLIC)}\n")
    (tmp_path / "sig").write_bytes(SIGNED)
    command = ["ssh-keygen", "-Y", "verify", "-f", "signers", "-I", "local/acme", "-n", BUNDLE_NAMESPACE, "-s", "sig"]

    good = subprocess.run(command, cwd=tmp_path, input=DATA, capture_output=True, check=False)
    bad = subprocess.run(command, cwd=tmp_path, input=DATA + b"x", capture_output=True, check=False)

    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0


@pytest.mark.ssh_keygen
def test_ssh_keygen_makes_the_same_bytes(tmp_path: Path) -> None:
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / "key").write_bytes(pem)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "data").write_bytes(DATA)

    command = ["ssh-keygen", "-Y", "sign", "-f", "key", "-n", BUNDLE_NAMESPACE, "data"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    assert (tmp_path / "data.sig").read_bytes() == SIGNED
