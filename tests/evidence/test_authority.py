"""Timestamps by a real authority, `openssl ts`: what holds is told with its time, and what lies is found."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tallystick
from tallystick.core.policy import Policy
from tallystick.errors import BusyError, RejectedError, TamperError
from tallystick.evidence.others import authority
from tallystick.evidence.others.authority import check_timestamp, request_timestamp
from tallystick.evidence.others.vouching import Vouchers
from tests import outside

pytestmark = pytest.mark.openssl
DATA = b"local/acme\n3\n9AglJ0hBmrsqycSSWkuZdhZX6dqfEsZwP+zRJWVF5nU=\n"


@pytest.fixture(scope="module")
def tsa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[outside.Authority]:
    with outside.authority(tmp_path_factory.mktemp("tsa")) as running:
        yield running


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The root of another authority."""
    return (outside.make_authority(tmp_path_factory.mktemp("other"), "other") / "ca.pem").read_bytes()


def asked(tsa: outside.Authority, *, roots: bool = True) -> authority.Authority:
    return authority.Authority(tsa.url, tsa.root.read_bytes() if roots else b"")


def test_a_timestamp_is_given_and_holds_under_the_root(tsa: outside.Authority) -> None:
    stamped = request_timestamp(asked(tsa), DATA)

    again = check_timestamp(stamped.token, DATA, roots=tsa.root.read_bytes())
    assert again == stamped
    assert "CN=tsa" in stamped.by


def test_openssl_takes_the_token_that_was_kept(tsa: outside.Authority, tmp_path: Path) -> None:
    stamped = request_timestamp(asked(tsa), DATA)
    (tmp_path / "token").write_bytes(stamped.token)
    (tmp_path / "data").write_bytes(DATA)

    command = ["openssl", "ts", "-verify", "-token_in", "-in", "token", "-data", "data", "-CAfile", str(tsa.root)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert "Verification: OK" in done.stdout + done.stderr


def test_a_token_is_over_its_bytes_and_no_others(tsa: outside.Authority) -> None:
    stamped = request_timestamp(asked(tsa), DATA)

    with pytest.raises(TamperError, match="not over these bytes"):
        check_timestamp(stamped.token, DATA + b"x", roots=tsa.root.read_bytes())


def test_a_token_under_another_root_does_not_hold(tsa: outside.Authority, stranger: bytes) -> None:
    stamped = request_timestamp(asked(tsa, roots=False), DATA)

    with pytest.raises(TamperError) as kept:
        check_timestamp(stamped.token, DATA, roots=stranger)
    with pytest.raises(TamperError) as given:
        request_timestamp(authority.Authority(tsa.url, stranger), DATA)

    assert str(kept.value) == "the timestamp is not by a certificate under the roots given"
    assert str(given.value) == f"{tsa.url} gave a timestamp that is not by a certificate under the roots given"


def test_a_changed_token_does_not_hold(tsa: outside.Authority) -> None:
    token = bytearray(request_timestamp(asked(tsa), DATA).token)
    token[-20] ^= 1

    with pytest.raises(TamperError) as caught:
        check_timestamp(bytes(token), DATA, roots=tsa.root.read_bytes())

    assert str(caught.value) == (
        "the timestamp does not hold: its signature is not that of its certificate over what it says"
    )


def test_no_byte_of_a_token_can_be_changed_into_the_words_of_a_parser(tsa: outside.Authority) -> None:
    token = request_timestamp(asked(tsa), DATA).token

    said = set[str]()
    for place in range(0, len(token), 7):
        changed = token[:place] + bytes([token[place] ^ 0x55]) + token[place + 1 :]
        try:
            check_timestamp(changed, DATA, roots=tsa.root.read_bytes())
        except TamperError as error:
            said.add(str(error))

    assert len(said) > 3
    assert [each for each in said if any(word in each for word in ("{", "ASN.1", "Error", "code"))] == []


def test_certificates_that_come_along_out_of_order_are_read_all_the_same(tmp_path: Path) -> None:
    made = outside.make_authority(tmp_path, sends_root=True)
    roots = (made / "ca.pem").read_bytes()
    raw: list[bytes] = []

    def answer(_: str, body: bytes) -> outside.Answer:
        raw.append(outside.reply_to(made, body))
        return 200, "application/timestamp-reply", raw[-1]

    with outside.serving(answer) as url:
        stamped = request_timestamp(authority.Authority(url, roots), DATA)

    assert stamped.token not in raw[0]  # it was put in order
    assert check_timestamp(stamped.token, DATA, roots=roots) == stamped
    assert "CN=tsa root" in stamped.by


def test_a_token_kept_with_its_certificates_out_of_order_is_read_too(tmp_path: Path) -> None:
    made = outside.make_authority(tmp_path, sends_root=True)
    (tmp_path / "data").write_bytes(DATA)
    query = ["openssl", "ts", "-query", "-data", "data", "-sha256", "-cert", "-out", "query"]
    subprocess.run(query, cwd=tmp_path, check=True, capture_output=True)
    outside.reply_to(made, (tmp_path / "query").read_bytes())
    token = ["openssl", "ts", "-reply", "-in", "reply.tsr", "-token_out", "-out", "token"]
    subprocess.run(token, cwd=tmp_path, check=True, capture_output=True)

    assert check_timestamp((tmp_path / "token").read_bytes(), DATA, roots=(made / "ca.pem").read_bytes()).at


def test_a_timestamp_in_a_form_that_cannot_be_read_is_a_warning_and_no_finding(tmp_path: Path) -> None:
    made = outside.make_authority(tmp_path / "tsa")

    def answer(_: str, body: bytes) -> outside.Answer:
        reply = outside.reply_to(made, body)
        # The version of the SignedData is no integer then, though all else is in its place.
        return 200, "application/timestamp-reply", reply.replace(b"\x02\x01\x03\x31", b"\x01\x01\x03\x31", 1)

    with outside.serving(answer) as url:
        with pytest.raises(BusyError, match="that cannot be read here"):
            request_timestamp(authority.Authority(url), DATA)
        with tallystick.open(tmp_path / "ledger") as ledger:
            vouchers = Vouchers(authorities=(authority.Authority(url),), seconds=5)
            exported = ledger.export(tmp_path / "out", vouchers=vouchers)

    assert not exported.is_contradicted
    assert exported.warnings == (
        f"timestamp authority {url} answered with a timestamp that cannot be read here (it is not in DER)",
    )


def test_an_old_answer_is_not_one_to_this_request(tmp_path: Path) -> None:
    made = outside.make_authority(tmp_path / "replaying")
    kept: list[bytes] = []

    def answer(_: str, body: bytes) -> outside.Answer:
        kept.append(outside.reply_to(made, body))
        return 200, "application/timestamp-reply", kept[0]

    with outside.serving(answer) as url:
        lying = authority.Authority(url)
        request_timestamp(lying, DATA)
        with pytest.raises(TamperError, match="another request"):
            request_timestamp(lying, DATA)


@pytest.mark.parametrize(
    ("answer", "error", "problem"),
    [
        ((200, "application/timestamp-reply", b"garbage"), TamperError, "something that is no timestamp response$"),
        ((200, "text/html", b"<html>"), TamperError, "something that is no timestamp response$"),
        ((500, "text/plain", b"no"), TamperError, "status 500"),
        ((200, "application/timestamp-reply", b"x" * 300_000), BusyError, "sent more than"),
        ((302, "text/plain", b""), TamperError, "status 302"),
    ],
)
def test_what_is_no_timestamp_is_one_error(answer: outside.Answer, error: type[Exception], problem: str) -> None:
    with outside.serving(lambda *_: answer) as url, pytest.raises(error, match=problem):
        request_timestamp(authority.Authority(url), DATA)


def test_nobody_waits_for_a_slow_authority() -> None:
    def slow(*_: object) -> outside.Answer:
        time.sleep(3)
        return 200, "application/timestamp-reply", b""

    with outside.serving(slow) as url:
        started = time.monotonic()
        with pytest.raises(BusyError, match="did not answer"):
            request_timestamp(authority.Authority(url), DATA, seconds=0.3)
        assert time.monotonic() - started < 2


def test_a_url_that_is_none_is_refused() -> None:
    for url in ("", "ftp://x", "nonsense"):
        with pytest.raises((RejectedError, BusyError)):
            request_timestamp(authority.Authority(url), DATA, seconds=1)


def test_roots_that_are_none_are_refused() -> None:
    with pytest.raises(RejectedError, match="no certificates"):
        authority.load_roots(b"-----BEGIN NOTHING-----")


def test_an_export_carries_the_timestamp_and_goes_on_without_the_authority_that_is_down(
    tsa: outside.Authority, tmp_path: Path
) -> None:
    with tallystick.open(tmp_path / "ledger") as ledger:
        ledger.append(event_type="a.b", entity_id="e", payload={})
        vouchers = Vouchers(authorities=(asked(tsa), authority.Authority("http://127.0.0.1:9")), seconds=5)
        exported = ledger.export(tmp_path / "out", vouchers=vouchers)
        trust = Policy(logs=(ledger.verifier_key,)).render()

    report = tallystick.verify_bundle(tmp_path / "out", trust=trust)
    assert report.holds
    assert report.manifest is not None
    (token,) = report.manifest.tokens
    assert check_timestamp(token, report.manifest.checkpoint, roots=tsa.root.read_bytes()).at
    assert len(exported.warnings) == 1
    assert "127.0.0.1:9 did not answer" in exported.warnings[0]
