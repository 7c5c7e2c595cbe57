"""Timestamps by someone else: RFC 3161 tokens over the bytes of a checkpoint (SPEC 10.2).

A token says that these bytes, signature and all, were there at that time. Which authorities are believed is for whoever
verifies: their root certificates come from elsewhere, never with the token. Certificates that come along out of order,
as some authorities send them, are sorted before they are read: nothing signed covers their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509

from tallystick.core import timestamp
from tallystick.errors import BusyError, RejectedError, TamperError
from tallystick.evidence.others.post import SECONDS, post
from tallystick.limits import TIMESTAMP_BYTES_MAX

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = "application/timestamp-reply"
_CERTIFICATES: Final = 0xA0
"""The tag of the certificates in a SignedData (RFC 5652, 5.1)."""


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

    Raises `BusyError` when it does not answer in time, or with a timestamp in a form that cannot be read here;
    `TamperError` when what it answers is no timestamp over these bytes and this request, or with `authority.roots` is
    not by a certificate under them.
    """
    from rfc3161_client import HashAlgorithm, PKIStatus, TimestampRequestBuilder

    builder = TimestampRequestBuilder().data(data).hash_algorithm(HashAlgorithm.SHA256)
    request = builder.nonce(nonce=True).cert_request(cert_request=True).build()
    answer = post(authority.url, request.as_bytes(), content_type=_QUERY, accept=_REPLY, seconds=seconds)
    if answer.status != 200:
        raise TamperError(f"{authority.url} answered with the status {answer.status}, not with a timestamp")
    response = _read(answer.body)
    if response is None and _signed_data(answer.body):
        raise BusyError(f"{authority.url} answered with a timestamp that cannot be read here (it is not in DER)")
    if response is None:
        raise TamperError(f"{authority.url} answered with something that is no timestamp response")
    if PKIStatus(response.status) is not PKIStatus.GRANTED:
        said = ", ".join(response.status_string) or str(response.status)
        raise TamperError(f"{authority.url} did not grant a timestamp: {said[:200]!a}")
    if response.tst_info.nonce != request.nonce:
        raise TamperError(f"{authority.url} answered another request than this one")
    return _checked(response, data, roots=authority.roots, who=f"{authority.url} gave a timestamp that")


def check_timestamp(token: bytes, data: bytes, *, roots: bytes) -> Timestamped:
    """Check a token over these bytes, by a certificate under these roots.

    Raises `TamperError` when it does not hold.
    """
    granted = b"\x30\x03\x02\x01\x00"  # PKIStatusInfo: granted; a token by itself has left it behind
    response = _read(_sequence(granted + token))
    if response is None:
        raise TamperError("this is no timestamp that can be read")
    return _checked(response, data, roots=roots, who="the timestamp")


def load_roots(pem: bytes) -> list[x509.Certificate]:
    """The certificates of a PEM file. Raises `RejectedError`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise RejectedError(f"these are no certificates in PEM: {error}", place="roots") from error


def _read(reply: bytes) -> Any:
    """The response, None when it cannot be read."""
    from rfc3161_client import PKIStatus, decode_timestamp_response

    try:
        response = decode_timestamp_response(_in_order(reply))
        if response.status == PKIStatus.GRANTED:
            _ = response.tst_info, response.signed_data  # they are parsed when they are asked for, and fail then
        return response
    except ValueError:  # with the parser's own words, which tell nobody anything
        return None


def _checked(response: Any, data: bytes, *, roots: bytes, who: str) -> Timestamped:
    """What a response says, if it holds; `who` begins the sentence that says why it does not."""
    from rfc3161_client import VerificationError
    from rfc3161_client.verify import VerifierBuilder

    if response.tst_info.message_imprint.message != sha256(data).digest():
        raise TamperError(f"{who} is not over these bytes")
    if roots:
        # A fresh builder each time: it shares its lists with those made from it.
        verifier = VerifierBuilder(roots=load_roots(roots)).build()
        try:
            verifier.verify_message(response, data)
        except (ValueError, VerificationError) as error:
            raise TamperError(f"{who} {_why(str(error))}") from error
    token = response.time_stamp_token()
    if len(token) > TIMESTAMP_BYTES_MAX:
        raise TamperError(f"{who} is of {len(token)} bytes; at most {TIMESTAMP_BYTES_MAX} are taken")
    return Timestamped(token, _render(response.tst_info.gen_time), _signer(response))


def _why(said: str) -> str:
    """What the verifier said, without the words of OpenSSL."""
    if "certificate verify error" in said:
        return "is not by a certificate under the roots given"
    if said.startswith("Error while verifying"):
        return "does not hold: its signature is not that of its certificate over what it says"
    return f"does not hold: {said.rstrip('.')}"


def _render(moment: datetime) -> str:
    return timestamp.render(timestamp.parse_rfc3339(moment.isoformat()))


def _signer(response: Any) -> str:
    """Whose certificates came along, for people."""
    names = [x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in response.signed_data.certificates]
    return "; ".join(sorted(names)) or "a certificate that was not sent along"


def _in_order(reply: bytes) -> bytes:
    """The reply with the certificates of its SignedData in the order of DER, which the parser insists on."""
    for whole, content in _elements(reply, _signed_data(reply)):
        if reply[whole.start] == _CERTIFICATES:
            found = sorted(reply[each.start : each.stop] for each, _ in _elements(reply, content))
            if found:
                return reply[: content.start] + b"".join(found) + reply[content.stop :]
    return reply


def _signed_data(reply: bytes) -> range:
    """Where the members of the SignedData in a reply stand; empty when it has none."""
    place = range(len(reply))
    for number in (0, 1, 1, 0):  # TimeStampResp, its ContentInfo, that one's [0], SignedData
        found = _elements(reply, place)
        if len(found) <= number:
            return range(0)
        place = found[number][1]
    return place


def _elements(data: bytes, place: range) -> list[tuple[range, range]]:
    """The DER elements that fill a place, each as a whole and its content; none at all when they do not fill it."""
    found = []
    at = place.start
    while at < place.stop:
        if at + 2 > place.stop or data[at] & 31 == 31:
            return []
        long = data[at + 1] & 127 if data[at + 1] & 128 else 0
        begin = at + 2 + long
        if data[at + 1] == 128 or begin > place.stop:
            return []
        end = begin + (int.from_bytes(data[at + 2 : begin], "big") if long else data[at + 1])
        if end > place.stop:
            return []
        found.append((range(at, end), range(begin, end)))
        at = end
    return found


def _sequence(content: bytes) -> bytes:
    """A DER SEQUENCE."""
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8 or 1, "big")
    head = length if len(content) < 128 else bytes([128 | len(length)]) + length
    return b"\x30" + head + content
