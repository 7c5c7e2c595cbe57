"""Timestamps by someone else: RFC 3161 tokens over the bytes of a checkpoint (SPEC 10.2).

A token says that these bytes, signature and all, were there at that time. Which authorities are believed is for whoever
verifies: their root certificates come from elsewhere, never with the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509

from tallystick.core import timestamp
from tallystick.errors import RejectedError, TamperError
from tallystick.evidence.others.post import SECONDS, post
from tallystick.limits import TIMESTAMP_BYTES_MAX

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"


@dataclass(frozen=True, slots=True)
class Authority:
    """A timestamp authority: where to ask, and in PEM the root certificates that it is held to, if any are known."""

    url: str
    roots: bytes = b""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            cure = "give one with http:// or https://"
            raise RejectedError(f"{self.url!r} is not a URL to ask", place="timestamp authority", cure=cure)


@dataclass(frozen=True, slots=True)
class Timestamped:
    """A token that holds: DER, the time that it states, and the subject of the certificate that signed it."""

    token: bytes
    at: str
    by: str


def request_timestamp(authority: Authority, data: bytes, *, seconds: float = SECONDS) -> Timestamped:
    """Have an authority state that it saw these bytes.

    Raises `BusyError` when it does not answer in time, `TamperError` when what it answers is no timestamp over these
    bytes and this request, or with `authority.roots` is not by a certificate under them.
    """
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256)
    request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    answer = post(authority.url, request.as_bytes(), content_type=_QUERY, accept=_REPLY, seconds=seconds)
    if answer.status != 200:
        raise TamperError(f"{authority.url} answered with the status {answer.status}, not with a timestamp")
    return _checked(answer.body, data, roots=authority.roots, nonce=request.nonce, who=authority.url)


def check_timestamp(token: bytes, data: bytes, *, roots: bytes) -> Timestamped:
    """Check a token over these bytes, by a certificate under these roots.

    Raises `TamperError` when it does not hold.
    """
    granted = b"\x30\x03\x02\x01\x00"  # PKIStatusInfo: granted; a token by itself has left it behind
    return _checked(_sequence(granted + token), data, roots=roots, nonce=None, who="the timestamp")


def load_roots(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises `RejectedError`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise RejectedError(f"these are no certificates in PEM: {error}", place="roots") from error


def _checked(reply: bytes, data: bytes, *, roots: bytes, nonce: int | None, who: str) -> Timestamped:
    from rfc3161_client import PKIStatus, VerificationError, decode_timestamp_response
    from rfc3161_client.verify import VerifierBuilder

    try:
        response = decode_timestamp_response(reply)
        if PKIStatus(response.status) is not PKIStatus.GRANTED:
            said = ", ".join(response.status_string) or str(response.status)
            raise TamperError(f"{who} did not grant a timestamp: {said[:200]!a}")
        info = response.tst_info
        if info.message_imprint.message != sha256(data).digest():
            raise TamperError(f"{who} is not over these bytes")
        if nonce is not None and info.nonce != nonce:
            raise TamperError(f"{who} answered another request than this one")
        if roots:
            # A fresh builder each time: it shares its lists with those made from it.
            VerifierBuilder(roots=load_roots(roots), nonce=nonce).build().verify_message(response, data)
        token = response.time_stamp_token()
    except (ValueError, VerificationError) as error:
        raise TamperError(f"{who} does not hold: {error}") from error
    if len(token) > TIMESTAMP_BYTES_MAX:
        raise TamperError(f"{who} is of {len(token)} bytes; at most {TIMESTAMP_BYTES_MAX} are taken")
    return Timestamped(token, _render(info.gen_time), _signer(response))


def _render(moment: datetime) -> str:
    return timestamp.render(timestamp.parse_rfc3339(moment.isoformat()))


def _signer(response: Any) -> str:
    """Whose certificates came along, for people."""
    names = [x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in response.signed_data.certificates]
    return "; ".join(sorted(names)) or "a certificate that was not sent along"


def _sequence(content: bytes) -> bytes:
    """A DER SEQUENCE."""
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8 or 1, "big")
    head = length if len(content) < 128 else bytes([128 | len(length)]) + length
    return b"\x30" + head + content
