"""The key goes to one host, never in the clear beyond this machine, and only to a server that is the right one."""

from __future__ import annotations

import datetime
import ipaddress
import os
import pickle
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tallystick.client.address import Address
from tallystick.client.appending import UnfinishedError
from tallystick.client.calls import Calls, Request
from tallystick.client.client import Client
from tallystick.clock import wall_clock
from tallystick.deployment import Deployment
from tallystick.errors import RejectedError, StoreError
from tallystick.serve.server import Listening, Server
from tallystick.serve.service import Service
from tests.client.wire import answering, http, listening, read_request
from tests.serve.conftest import Running

KEY: Final = "ts_0123456789abcdef_" + "a1" * 32

REFUSED: Final[list[tuple[str, str, dict[str, Any], str]]] = [
    ("http://audit.example.com", KEY, {}, "url"),
    ("http://10.0.0.7:8080", KEY, {}, "url"),
    ("http://localhost.example.com", KEY, {}, "url"),
    ("ftp://127.0.0.1", KEY, {}, "url"),
    ("audit.example.com", KEY, {}, "url"),
    ("https://", KEY, {}, "url"),
    ("https://host:99999", KEY, {}, "url"),
    ("https://host:0", KEY, {}, "url"),
    ("https://[::1", KEY, {}, "url"),
    ("https://user:secret@host", KEY, {}, "url"),
    ("https://host/?q=1", KEY, {}, "url"),
    ("https://host/#x", KEY, {}, "url"),
    ("https://ho st", KEY, {}, "url"),
    ("https://host/a b", KEY, {}, "url"),
    ("https://host\r\nX: y", KEY, {}, "url"),
    ("https://host", "", {}, "key"),
    ("https://host", f"{KEY}\n", {}, "key"),
    ("https://host", f" {KEY}", {}, "key"),
    ("https://host", "k\r\nX: y", {}, "key"),
    ("https://host", "schlüssel", {}, "key"),
    ("https://host", "x" * 600, {}, "key"),
    ("https://host", KEY, {"ca_file": "/nowhere/ca.pem"}, "ca_file"),
    ("https://host", KEY, {"seconds": 0}, "seconds"),
    ("https://host", KEY, {"seconds": float("nan")}, "seconds"),
    ("https://host", KEY, {"seconds": True}, "seconds"),
    ("https://host", KEY, {"proxy": "nonsense"}, "proxy"),
    ("http://127.0.0.1", KEY, {"proxy": "http://10.0.0.1:3128"}, "proxy"),
    ("https://host", KEY, {"tls": ssl._create_unverified_context()}, "TLS"),
    ("https://host", KEY, {"tls": ssl.create_default_context(), "ca_file": "x"}, "TLS"),
]


@pytest.mark.parametrize(("url", "key", "options", "place"), REFUSED)
def test_what_would_give_the_key_away_is_refused_before_anything_is_sent(
    url: str, key: str, options: dict[str, Any], place: str
) -> None:
    with pytest.raises(RejectedError) as refused:
        Client(url, key, **options)

    assert refused.value.place == place
    assert KEY not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://localhost:1", "http://127.3.2.1", "http://[::1]:8080", "https://host/audit/"])
def test_what_is_safe_is_taken(url: str) -> None:
    with Client(url, KEY) as client:
        assert client.url == url.rstrip("/")


def test_whoever_says_so_may_send_it_in_the_clear() -> None:
    Client("http://audit.example.com", KEY, insecure=True).close()


def test_a_service_may_be_behind_a_path() -> None:
    with answering(http(200, b'{"role":"Admin"}')) as server, Client(f"{server.url}/audit/", KEY) as client:
        assert client.whoami() == {"role": "Admin"}

    assert server.requests[0].startswith(b"GET /audit/api/v1/whoami HTTP/1.1\r\n")


def test_a_proxy_of_the_environment_is_not_told_the_key(it: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(http(200, b"{}")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)

        with Client(it.url, it.keys["acme/Admin"]) as client:
            assert client.whoami()["tenant"] == "acme"
        assert proxy.requests == []


def test_a_proxy_that_is_named_is_asked(it: Running) -> None:
    """It has the request in the clear only because that was said."""
    with (
        answering(http(200, b'{"by":"the proxy"}')) as proxy,
        Client(it.url, it.keys["acme/Admin"], proxy=proxy.url, insecure=True) as client,
    ):
        assert client.whoami() == {"by": "the proxy"}

    assert proxy.requests[0].startswith(f"GET {it.url}/api/v1/whoami".encode())


# -------------------------------------------------------------------------------------------------------- TLS


def certificate(folder: Path, name: str, *addresses: str) -> tuple[Path, Path]:
    """A certificate that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / f"{name}.pem", folder / f"{name}.key"
    files[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path, Path]]:
    """A service over TLS: its URL, a key, the file of its authority, and that of another one."""
    folder = tmp_path_factory.mktemp("tls")
    cert, private = certificate(folder, "service.test", "127.0.0.1")
    other, _ = certificate(folder, "other.test", "127.0.0.1")
    deployment = Deployment(folder / "data")
    key = deployment.begin()
    assert key is not None
    server = Server(Service(deployment), Listening(certificate=cert, private_key=private))
    with socket.create_server(("127.0.0.1", 0)) as listens:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listens]}, daemon=True)
        thread.start()
        while not server.started:
            thread.join(0.01)
        yield f"https://127.0.0.1:{listens.getsockname()[1]}", key, cert, other
        server.should_exit = True
        thread.join(20)


def test_a_server_of_an_authority_of_ones_own_is_known_by_its_file(tls: tuple[str, str, Path, Path]) -> None:
    url, key, authority, _ = tls
    with Client(url, key, ca_file=authority) as client:
        sealed = client.append(event_type="doc.read", entity_id="tls")

        with client.subscribe(entity_id="tls") as subscription:
            record = subscription.take(10)
    assert record is not None
    assert record.position == sealed.position
    context = ssl.create_default_context(cafile=os.fspath(authority))
    with Client(url, key, tls=context) as client:
        assert client.get(sealed.position).hash == sealed.hash


def test_a_connection_that_is_read_is_closed_by_its_reader(tls: tuple[str, str, Path, Path]) -> None:
    """Else its number is another connection's before the reader notices, who then takes what is not his."""
    url, key, authority, _ = tls
    calls = Calls(Address.of(url, key, ca_file=authority), seconds=10, clock=wall_clock)
    request = Request(path="/api/v1/events/stream", accept="text/event-stream")
    with calls.opened(request, seconds=10) as opened:
        connection = opened._response.extensions["network_stream"].get_extra_info("socket")
        chunks = opened.chunks()
        assert next(chunks)

        calls.close()

        assert connection.fileno() != -1
        with suppress(httpx2.TransportError):
            assert [*chunks] == []  # it was hung up: nothing is waited for
    assert connection.fileno() == -1
    with pytest.raises(StoreError, match="closed"):
        calls.call(Request(path="/api/v1/whoami"))


def test_a_server_that_is_not_the_right_one_is_not_told_the_key(tls: tuple[str, str, Path, Path]) -> None:
    url, key, authority, other = tls
    began = time.monotonic()
    for options in ({}, {"ca_file": other}):
        with Client(url, key, **options) as client, pytest.raises(RejectedError) as refused:  # type: ignore[arg-type]
            client.append(event_type="doc.read", entity_id="tls")
        assert refused.value.place == "TLS"
    with (
        Client(url.replace("127.0.0.1", "localhost"), key, ca_file=authority) as client,
        pytest.raises(RejectedError, match="certificate"),
    ):
        client.checkpoint()
    assert time.monotonic() - began < 20  # it is not tried again


def test_a_server_without_tls_is_told_apart(it: Running) -> None:
    with Client(it.url.replace("http:", "https:"), KEY) as client, pytest.raises(RejectedError, match="TLS"):
        client.checkpoint()


# -------------------------------------------------------------------------------------------------- processes


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # that it has threads is the point
def test_a_child_of_the_process_goes_on_with_connections_and_ids_of_its_own(it: Running) -> None:
    with Client(it.url, it.keys["acme/Admin"]) as client:
        client.append(event_type="doc.read", entity_id="fork")
        children = []
        for child in range(2):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    for number in range(20):
                        client.append(event_type="doc.read", entity_id="fork", payload={"child": child, "n": number})
                    code = 0
                finally:
                    os._exit(code)
            children.append(pid)
        for number in range(20):
            client.append(event_type="doc.read", entity_id="fork", payload={"child": 2, "n": number})
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]

        records = [record for record in client.records(entity_id="fork") if record.payload]
    assert codes == [0, 0]
    assert sorted((one.payload["child"], one.payload["n"]) for one in records) == [
        (child, n) for child in range(3) for n in range(20)
    ]
    assert len({one.id for one in records}) == 60


def test_threads_share_a_client(it: Running) -> None:
    with Client(it.url, it.keys["acme/Admin"]) as client:
        sealed: list[int] = []

        def send(number: int) -> None:
            for step in range(25):
                event = {"event_type": "doc.read", "entity_id": f"thread-{number}", "payload": {"n": step}}
                sealed.append(client.append(event).position)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len({*sealed}) == 200
        for number in range(8):
            assert [one.payload["n"] for one in client.records(entity_id=f"thread-{number}")] == [*range(25)]


def test_what_was_left_goes_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(UnfinishedError("p", outcomes=[], left=[b"{}"])))

    assert (str(error), error.left, error.outcomes) == ("p", (b"{}",), ())


def test_a_path_is_sent_as_it_is_named() -> None:
    seen: list[bytes] = []

    def handle(connection: Any) -> None:
        seen.append((read_request(connection) or b"").split(b" ")[1])
        connection.sendall(http(404, b'{"status":404,"family":"not-found"}', kind="application/problem+json"))

    with listening(handle) as url, Client(url, KEY) as client:
        for entity in ("a/b", "..", "../x", "a?b#c", "ü %"):
            with pytest.raises(Exception, match="404"):
                client.state(entity)

    assert [path.partition(b"?")[0] for path in seen] == [
        b"/api/v1/entities/a%2Fb/state",
        b"/api/v1/entities/%2E%2E/state",
        b"/api/v1/entities/..%2Fx/state",
        b"/api/v1/entities/a%3Fb%23c/state",
        b"/api/v1/entities/%C3%BC%20%25/state",
    ]
