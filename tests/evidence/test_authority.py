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

    with pytest.raises(TamperError, match="does not hold"):
        check_timestamp(stamped.token, DATA, roots=stranger)
    with pytest.raises(TamperError, match="does not hold"):
        request_timestamp(authority.Authority(tsa.url, stranger), DATA)


def test_a_changed_token_does_not_hold(tsa: outside.Authority) -> None:
    token = bytearray(request_timestamp(asked(tsa), DATA).token)
    token[-20] ^= 1

    with pytest.raises(TamperError):
        check_timestamp(bytes(token), DATA, roots=tsa.root.read_bytes())


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
        ((200, "application/timestamp-reply", b"garbage"), TamperError, "does not hold"),
        ((200, "text/html", b"<html>"), TamperError, "does not hold"),
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
