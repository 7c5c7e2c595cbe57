"""The time as another machine has it: real servers that say it, say something else, or say nothing."""

from __future__ import annotations

import datetime
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import tallystick
from tallystick import config
from tallystick.errors import RejectedError
from tallystick.time_source import TimeSource

THEN: Final = datetime.datetime(2031, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
HOUR: Final = 3_600_000_000


class Answering(BaseHTTPRequestHandler):
    """Says `date` of its server, if it has one."""

    def do_HEAD(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        self.send_response_only(204)
        date: str | None = self.server.date  # type: ignore[attr-defined]
        if date is not None:
            self.send_header("Date", date)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@contextmanager
def serving(date: str | None, context: ssl.SSLContext | None = None) -> Iterator[tuple[str, HTTPServer]]:
    server = HTTPServer(("localhost", 0), Answering)
    server.date, server.asked = date, 0  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_port}/x", server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def micros(moment: datetime.datetime) -> int:
    return round(moment.timestamp() * 1_000_000)


def test_it_is_what_the_server_says_and_goes_on_by_itself_for_an_hour() -> None:
    running = 0
    with serving(format_datetime(THEN, usegmt=True)) as (url, server):
        source = TimeSource(url, running=lambda: running)
        assert source.now() == micros(THEN)
        running = HOUR
        assert source.now() == micros(THEN) + HOUR
        assert server.asked == 1  # type: ignore[attr-defined]
        running += 1
        assert source.now() == micros(THEN)
        assert server.asked == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("date", [None, "soon", "Tue, 99 Foo 2031 07:08:09 GMT"])
def test_a_server_that_does_not_say_it_is_asked_again_after_a_minute(date: str | None) -> None:
    running = 0
    with serving(date) as (url, server):
        source = TimeSource(url, running=lambda: running)
        assert source.now() is None
        running = HOUR // 60
        assert source.now() is None
        assert server.asked == 1  # type: ignore[attr-defined]
        server.date = format_datetime(THEN, usegmt=True)  # type: ignore[attr-defined]
        running += 1
        assert source.now() == micros(THEN)


def test_nobody_there_is_no_answer() -> None:
    with serving(None) as (url, _):
        pass
    assert TimeSource(url).now() is None


@pytest.mark.parametrize("url", ["", "ftp://example.com", "https://", "time.example.com"])
def test_what_is_no_source_is_refused(url: str) -> None:
    with pytest.raises(RejectedError, match="no source of time"):
        TimeSource(url)


@pytest.mark.parametrize("years", [-20, 20])
def test_a_certificate_that_is_out_of_time_is_no_reason_not_to_know_the_time(
    years: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that is far off every certificate is."""
    context = certified(tmp_path, datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365 * years))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    with serving(format_datetime(THEN, usegmt=True), context) as (url, _):
        assert TimeSource(url, running=lambda: 0).now() == micros(THEN)


def test_a_certificate_of_somebody_else_is_one(tmp_path: Path) -> None:
    context = certified(tmp_path, datetime.datetime.now(datetime.UTC))
    with serving(format_datetime(THEN, usegmt=True), context) as (url, _):
        assert TimeSource(url).now() is None


def certified(folder: Path, middle: datetime.datetime) -> ssl.SSLContext:
    """A server's certificate by itself, good for two days around a moment."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(middle - day)
        .not_valid_after(middle + day)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_a_ledger_asks_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.datetime.now(datetime.UTC)
    with tallystick.open(tmp_path / "l") as ledger:
        ledger.append(event_type="a.b", entity_id="c")
    for date, is_taken in ((now - datetime.timedelta(days=2), False), (now, True)):
        with serving(format_datetime(date, usegmt=True)) as (url, _):
            monkeypatch.setenv(config.CLOCK_SOURCE_VARIABLE, url)
            with tallystick.open(tmp_path / "l") as ledger:
                monkeypatch.setattr(ledger._moments, "_clock", lambda: micros(now) + 30 * HOUR)
                if is_taken:
                    monkeypatch.setattr(ledger._moments, "_clock", lambda: micros(now))
                    assert ledger.append(event_type="a.b", entity_id="c").position == 3
                else:
                    with pytest.raises(RejectedError, match="the time source says"):
                        ledger.append(event_type="a.b", entity_id="c")
