"""Signing in with an identity provider: a real one, and a service that asks it."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tallystick.clock import wall_clock
from tallystick.core import timestamp
from tallystick.errors import BusyError, RejectedError
from tallystick.govern.access import ROLES, UNKNOWN, User
from tallystick.limits import ISSUER_ANSWER_BYTES_MAX, ISSUER_KEYS_MAX
from tallystick.serve import authentication, issuers, streams
from tallystick.serve.ingest import BATCH_PATH, EVENTS_PATH
from tallystick.serve.settings import Settings
from tallystick.serve.streaming import STREAM_PATH
from tallystick.serve.tokens import judge
from tests.serve.conftest import ACTOR, Running, running
from tests.serve.identity import (
    DISCOVERY,
    KEYS,
    KINDS,
    Answer,
    IdentityProvider,
    answering,
    certificate,
    new_key,
    public,
)
from tests.serve.test_access import EVENT, NEEDS, asked

WHOAMI: Final = "/api/v1/whoami"


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityProvider]:
    with answering(IdentityProvider()) as found:
        yield found


@pytest.fixture(scope="module")
def it(tmp_path_factory: pytest.TempPathFactory, provider: IdentityProvider) -> Iterator[Running]:
    """A service that believes the provider."""
    settings = Settings(oidc=provider.settings())
    with running(tmp_path_factory.mktemp("service") / "data", settings) as found:
        yield found


@contextmanager
def believing(folder: Path, provider: IdentityProvider, **given: Any) -> Iterator[Running]:
    """Another service that does, with settings of its own."""
    with running(folder / "data", Settings(oidc=provider.settings(**given))) as found:
        yield found


def until(holds: Callable[[], bool], *, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.02)


def status(it: Running, token: str, path: str = WHOAMI) -> int:
    return it.call("GET", path, token).status_code


# ---------------------------------------------------------------------------------------- who somebody is


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "EdDSA"])
def test_whoami_says_whose_token_it_is(it: Running, provider: IdentityProvider, algorithm: str) -> None:
    key = {"R": "rsa", "P": "rsa"}.get(algorithm[0], "ec" if algorithm == "ES256" else "ed")

    said = it.call("GET", WHOAMI, provider.token(key, algorithm, tallystick_role="Auditor")).json()

    assert said["expires_at"].endswith("Z")
    assert {name: said[name] for name in ("subject", "issuer", "name", "tenant", "role", "operator")} == {
        "subject": "248289761001",
        "issuer": provider.url,
        "name": "jane@example.com",
        "tenant": "acme",
        "role": "Auditor",
        "operator": False,
    }
    assert said["permissions"] == sorted(ROLES["Auditor"])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(("method", "path"), NEEDS)
def test_a_token_of_a_role_may_what_the_role_may(
    it: Running, provider: IdentityProvider, method: str, path: str, role: str
) -> None:
    token = provider.token(tallystick_role=role, sub=f"a-{role}")
    it.call("POST", EVENTS_PATH, token, json=EVENT)
    permission, body = NEEDS[method, path]
    may = permission in ROLES[role] and permission != "ManageTenants"  # no token is an operator's by itself

    answer = it.call(method, asked(path), token, json=body)

    assert answer.status_code not in (401, 500, 503), answer.text
    assert (answer.status_code != 403) == may, answer.text
    if not may:
        trail = it.call("GET", "/api/v1/access?event_type=access.denied&limit=1", "acme/Auditor").json()
        denied = trail["records"][0]
        assert (denied["entity_id"], denied["payload"]["role"]) == (f"user:a-{role}", role)
        assert denied["actor"]["identity_provider"] == provider.url


def test_what_somebody_writes_bears_their_name(it: Running, provider: IdentityProvider) -> None:
    position = it.call("POST", EVENTS_PATH, provider.token(), json=EVENT).json()["position"]
    many = it.call("POST", BATCH_PATH, provider.token(preferred_username=None), json=[EVENT]).json()

    actor = {"id": "248289761001", "type": "user", "identity_provider": provider.url}
    assert it.call("GET", f"/api/v1/events/{position}").json()["actor"] == {**actor, "name": "jane@example.com"}
    assert it.call("GET", f"/api/v1/events/{many['events'][0]['position']}").json()["actor"] == actor


def test_an_admin_by_token_looks_after_keys_and_is_in_both_books(it: Running, provider: IdentityProvider) -> None:
    token = provider.token(tallystick_role="Admin")

    made = it.call("POST", "/api/v1/keys", token, json={"name": "ci", "role": "ServiceAccount"}).json()

    assert made["id"] in [key["id"] for key in it.call("GET", "/api/v1/keys", token).json()["keys"]]
    assert it.call("GET", WHOAMI, made["key"]).json()["id"] == made["id"]
    for path, body in (
        ("/api/v1/keys", {"name": "n", "role": "Admin", "operator": True}),
        ("/api/v1/keys", {"name": "n", "role": "Admin", "tenant": "other"}),
        ("/api/v1/tenants", {"name": "mine"}),
    ):
        assert it.call("POST", path, token, json=body).status_code == 403
    record = [*it.deployment.system.read()][-1]
    assert json.loads(record.line)["actor"]["id"] == "248289761001"
    trail = it.call("GET", "/api/v1/access?event_type=access.key_created&limit=1", "acme/Auditor").json()
    assert trail["records"][0]["entity_id"] == "user:248289761001"


def test_an_operator_is_whom_a_value_of_the_claim_makes_one(tmp_path: Path, provider: IdentityProvider) -> None:
    given: dict[str, Any] = {"role_claim": "realm_access.roles", "roles": ["ops=operator", "staff=ReadOnly"]}
    with believing(tmp_path, provider, tenant="default", **given) as it:
        ops, staff, plain = (
            provider.token(realm_access={"roles": roles}, tallystick_role="Admin")
            for roles in (["ops", "offline_access"], ["staff"], ["Admin"])
        )

        assert it.call("POST", "/api/v1/tenants", ops, json={"name": "made"}).status_code == 201
        assert it.call("GET", WHOAMI, ops).json()["operator"] is True
        assert it.call("POST", "/api/v1/tenants", staff, json={"name": "more"}).status_code == 403
        assert it.call("GET", WHOAMI, staff).json()["tenant"] == "default"
        assert status(it, plain) == 401


# -------------------------------------------------------------------------------------------- who is not let in


STRANGER: Final = new_key("rsa", "rsa")

WRONG: Final[dict[str, Callable[[IdentityProvider], str]]] = {
    "no token": lambda _: "nonsense",
    "9 KB": lambda it: it.token(more="x" * 9_000),
    "60 KB": lambda it: it.token(more="x" * 45_000),
    "not signed": lambda it: it.forged({"alg": "none"}, algorithm="none"),
    "the public key as a secret": lambda it: it.forged({"alg": "HS256"}, algorithm="HS256"),
    "signed by another key": lambda it: it.forged(key=STRANGER),
    "an id that is not there": lambda it: it.forged({"kid": "gone"}),
    "another type of key": lambda it: it.forged({"alg": "ES256"}, key=it.keys["ec"], algorithm="ES256"),
    "an extension": lambda it: it.forged({"crit": ["exp"], "exp": 1}),
    "a member twice": lambda it: it.forged(b'{"alg":"none","alg":"RS256","kid":"rsa"}'),
    "a key that it brings": lambda it: it.forged({"jwk": public(STRANGER), "kid": "mine"}, key=STRANGER),
    "a key that it points to": lambda it: it.forged({"jku": f"{it.url}/evil", "kid": "mine"}, key=STRANGER),
    "a certificate that it points to": lambda it: it.forged({"x5u": f"{it.url}/evil"}, key=STRANGER),
    "another issuer": lambda it: it.token(iss="https://elsewhere.example"),
    "another audience": lambda it: it.token(aud="another"),
    "over": lambda it: it.token(exp=int(time.time()) - 1),
    "not yet": lambda it: it.token(nbf=int(time.time()) + 900),
    "no subject": lambda it: it.token(sub=None),
    "an unknown role": lambda it: it.token(tallystick_role="Root"),
    "two roles": lambda it: it.token(tallystick_role=["Admin", "Auditor"]),
    "an unknown tenant": lambda it: it.token(tallystick_tenant="nobody"),
    "a tenant that cannot be": lambda it: it.token(tallystick_tenant="../acme"),
    "a suspended tenant": lambda it: it.token(tallystick_tenant="away"),
}


@pytest.fixture(scope="module")
def away(it: Running) -> None:
    """A tenant that is suspended."""
    it.deployment.create_tenant("away", actor=ACTOR)
    it.deployment.suspend_tenant("away", actor=ACTOR)


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_token_is_answered_like_a_wrong_key_whatever_is_wrong(
    it: Running, provider: IdentityProvider, name: str
) -> None:
    token = WRONG[name](provider)
    wrong_key = it.call("GET", WHOAMI, "ts_" + "0" * 16 + "_" + "0" * 64)

    answers = [
        it.call("GET", WHOAMI, token),
        it.call("POST", EVENTS_PATH, token, json=EVENT),
        it.call("POST", "/api/v1/keys", token, json={"name": "n", "role": "Admin"}),
        it.call("GET", asked(STREAM_PATH), token),
    ]

    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {wrong_key.text}
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {'Bearer realm="tallystick"'}
    assert UNKNOWN in wrong_key.text
    assert provider.asked["/evil"] == 0


def test_what_was_wrong_is_in_our_own_diagnostics_and_not_once_for_each(
    it: Running, provider: IdentityProvider, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = provider.token(tallystick_role=["Admin", "Auditor"])
    monkeypatch.setattr(authentication, "TELL_SECONDS", 0.0)
    with caplog.at_level(logging.WARNING, "tallystick.serve"):
        status(it, token)
        monkeypatch.setattr(authentication, "TELL_SECONDS", 3_600.0)
        for _ in range(20):
            status(it, token)
        monkeypatch.setattr(authentication, "TELL_SECONDS", 0.0)
        status(it, token)

    told = [record.getMessage() for record in caplog.records if "a token was refused" in record.getMessage()]
    assert len(told) == 2
    assert "tallystick_role" in told[0]
    assert "Admin and Auditor, not for one role" in told[0]
    assert "20 more" in told[1]
    assert token.rpartition(".")[2] not in "".join(told)


def test_a_token_and_a_key_at_once_are_none(it: Running, provider: IdentityProvider) -> None:
    host, port = it.url.removeprefix("http://").split(":")
    for first, second in ((provider.token(), it.keys["acme/Admin"]), (it.keys["acme/Admin"], provider.token())):
        lines = [f"GET {WHOAMI} HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"Authorization: Bearer {first}", f"Authorization: Bearer {second}", "", ""]
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall("\r\n".join(lines).encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 401")


def test_a_service_that_believes_no_issuer_takes_no_token(tmp_path: Path, provider: IdentityProvider) -> None:
    before = provider.asked.total()
    with running(tmp_path / "data") as it:
        assert status(it, provider.token()) == 401
    assert provider.asked.total() == before


def test_a_tenant_that_is_suspended_ends_its_tokens_until_it_is_resumed(
    it: Running, provider: IdentityProvider
) -> None:
    it.deployment.create_tenant("brief", actor=ACTOR)
    token = provider.token(tallystick_tenant="brief")

    assert status(it, token) == 200
    it.deployment.suspend_tenant("brief", actor=ACTOR)
    assert status(it, token) == 401
    it.deployment.suspend_tenant("brief", actor=ACTOR, suspended=False)
    assert status(it, token) == 200


class Ahead:
    """A clock that may be set forward."""

    def __init__(self) -> None:
        self.seconds = 0

    def __call__(self) -> int:
        return wall_clock() + self.seconds * timestamp.SECOND


def test_a_token_is_over_at_its_end_also_when_it_is_known_and_so_is_its_stream(
    tmp_path: Path, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "BEAT_SECONDS", 0.05)
    clock, token = Ahead(), provider.token(exp=int(time.time()) + 1_000)
    headers = {"Authorization": f"Bearer {token}"}
    with (
        running(tmp_path / "data", Settings(oidc=provider.settings()), clock=clock) as it,
        httpx2.Client(timeout=20) as client,
        client.stream("GET", f"{it.url}{STREAM_PATH}?entity_id=nothing", headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        while next(lines) != ": beat":
            assert status(it, token) == 200
        clock.seconds = 1_000
        assert {*lines} <= {"", ": beat"}  # which has an end
        assert status(it, token) == 401


# -------------------------------------------------------------------------------------------------- their keys


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that were checked, and not merely known."""
    found: list[str] = []

    def counting(text: str, *given: Any, **named: Any) -> User:
        found.append(text)
        return judge(text, *given, **named)

    monkeypatch.setattr(authentication, "judge", counting)
    return found


def test_a_token_that_comes_a_thousand_times_is_checked_once(
    it: Running, provider: IdentityProvider, checked: list[str]
) -> None:
    token, before = provider.token(), provider.asked.total()

    with ThreadPoolExecutor(8) as pool, httpx2.Client(headers={"Authorization": f"Bearer {token}"}) as client:
        statuses = [*pool.map(lambda _: client.post(f"{it.url}{EVENTS_PATH}", json=EVENT).status_code, range(1_000))]

    assert {*statuses} == {201}
    assert len(checked) <= 8
    assert provider.asked.total() == before


def test_known_tokens_are_bounded_in_number_and_in_time(
    it: Running, provider: IdentityProvider, checked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "TOKENS_KNOWN_MAX", 2)
    tokens = [provider.token(sub=f"s-{number}") for number in range(3)]
    for token in [*tokens, tokens[2], tokens[1], tokens[0]]:
        assert status(it, token) == 200
    assert checked == [*tokens, tokens[0]]

    monkeypatch.setattr(authentication, "KNOWN_SECONDS", 0.0)
    brief = provider.token(sub="brief")
    assert [status(it, brief) for _ in range(2)] == [200, 200]
    assert checked.count(brief) >= 2, "at each request: before its body is read, and when it is acted on"


def test_keys_are_rotated_without_a_restart_and_a_withdrawn_one_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "SEEK_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "FRESH_SECONDS_MIN", 0.2)
    with answering(IdentityProvider()) as provider:
        provider.cache_control = "public, max-age=600"
        with believing(tmp_path, provider) as it:
            old = provider.token()
            assert status(it, old) == 200
            provider.rotate("new", keep=True)
            provider.cache_control = "max-age=0"
            assert [status(it, token) for token in (provider.token("new"), old)] == [200, 200]  # sought at once
            provider.rotate("newest")
            until(lambda: status(it, old) == 401)  # found out in the background, though the token was known
            assert [status(it, provider.token(name)) for name in ("rsa", "new", "newest")] == [401, 401, 200]


def test_a_service_begins_without_its_issuer_and_goes_on_when_that_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "SEEK_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    provider = IdentityProvider(f"http://127.0.0.1:{port}")
    with believing(tmp_path, provider) as it:
        answer = it.call("POST", EVENTS_PATH, provider.token(), json=EVENT)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "identity provider does not answer" in answer.text
        assert str(port) not in answer.text
        assert [status(it, token) for token in ("acme/Admin", "nonsense", provider.token()[:-9] + "+")] == [
            200,
            401,
            401,
        ]
        with answering(provider, port):
            until(lambda: status(it, provider.token()) == 200)


def test_while_the_issuer_is_down_its_keys_go_on_counting_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "SEEK_SECONDS", 0.05)
    monkeypatch.setattr(issuers, "FRESH_SECONDS", 0.1)
    monkeypatch.setattr(issuers, "RETRY_SECONDS", 0.1)
    with answering(IdentityProvider()) as provider, believing(tmp_path, provider) as it:
        known = provider.token()
        assert status(it, known) == 200
        down = [0]

        def fail(_: BaseHTTPRequestHandler) -> Answer:
            down[0] += 1
            return 500, {}, b""

        provider.answers[DISCOVERY] = fail
        until(lambda: down[0] > 3)
        assert [status(it, token) for token in (known, provider.token("ec"))] == [200, 200]
        assert status(it, provider.forged({"kid": "gone"})) == 401
        monkeypatch.setattr(issuers, "STALE_SECONDS", 0.0)
        assert [status(it, token) for token in (known, provider.token("ec"))] == [503, 503]
        monkeypatch.setattr(issuers, "STALE_SECONDS", 86_400.0)
        provider.answers.clear()
        until(lambda: status(it, known) == 200)


@pytest.mark.slow
def test_a_flood_of_made_up_key_ids_is_no_flood_of_fetches(it: Running, provider: IdentityProvider) -> None:
    before = provider.asked.copy()
    began = time.monotonic()
    tokens = [provider.forged({"kid": f"made-up-{number}"}) for number in range(200)]

    with ThreadPoolExecutor(16) as pool:
        statuses = [*pool.map(lambda token: it.call("POST", EVENTS_PATH, token, json=EVENT).status_code, tokens)]

    allowed = 1 + (time.monotonic() - began) // issuers.SEEK_SECONDS
    assert {*statuses} == {401}
    assert (provider.asked - before)[DISCOVERY] <= allowed + 1
    assert status(it, provider.token()) == 200


def test_nobody_else_waits_while_a_key_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "SEEK_SECONDS", 0.0)
    monkeypatch.setattr(issuers, "FETCH_SECONDS", 30.0)
    let_go, fetching = threading.Event(), threading.Event()
    with answering(IdentityProvider()) as provider, believing(tmp_path, provider) as it:
        assert status(it, provider.token()) == 200

        def wait(_: BaseHTTPRequestHandler) -> Answer:
            fetching.set()
            let_go.wait(20)
            return 503, {}, b""

        provider.answers[KEYS] = wait
        with ThreadPoolExecutor(1) as pool:
            sought = pool.submit(status, it, provider.forged({"kid": "gone"}))
            assert fetching.wait(10)
            for who in ("acme/Admin", provider.token()):
                assert it.call("POST", EVENTS_PATH, who, json=EVENT).status_code == 201
            assert not sought.done()
            let_go.set()
            assert sought.result() == 401
        assert provider.asked[KEYS] == 2


# ---------------------------------------------------------------------------------------- asking the issuer


def drip(handler: BaseHTTPRequestHandler) -> None:
    """A head that comes a letter at a time, for as long as somebody listens."""
    handler.close_connection = True
    try:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
        for _ in range(1_000):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        return


def said(document: Any, status: int = 200, **headers: str) -> Callable[[BaseHTTPRequestHandler], Answer]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return lambda _: (status, headers, data)


ODD: Final[dict[str, tuple[str, Callable[[str], Any], str]]] = {
    "another issuer": (DISCOVERY, lambda url: said({"issuer": f"{url}/", "jwks_uri": f"{url}{KEYS}"}), "is about"),
    "no object": (DISCOVERY, lambda _: said([]), "is about"),
    "no JSON": (DISCOVERY, lambda _: said(b"<html>"), "JSON"),
    "no place of the keys": (DISCOVERY, lambda url: said({"issuer": url}), "which is not asked"),
    "keys elsewhere in the clear": (
        DISCOVERY,
        lambda url: said({"issuer": url, "jwks_uri": "http://192.0.2.1/keys"}),
        "which is not asked",
    ),
    "keys in a file": (DISCOVERY, lambda url: said({"issuer": url, "jwks_uri": "file:///etc/x"}), "not asked"),
    "led elsewhere": (DISCOVERY, lambda url: said(b"", 302, Location=f"{url}/other"), "answered with 302"),
    "keys led elsewhere": (KEYS, lambda url: said(b"", 307, Location=f"{url}/other"), "answered with 307"),
    "not found": (KEYS, lambda _: said(b"", 404), "answered with 404"),
    "endless": (KEYS, lambda _: said(b"[" * (ISSUER_ANSWER_BYTES_MAX + 1)), "more than 262,144 bytes"),
    "deep": (KEYS, lambda _: said(b"[" * 100_000), "nested"),
    "too many keys": (KEYS, lambda _: said({"keys": [{}] * (ISSUER_KEYS_MAX + 1)}), "65 keys"),
    "slow": (KEYS, lambda _: drip, "whole within"),
}
"""What an issuer may do → where, and what we say of it."""


@pytest.mark.parametrize("name", ODD)
def test_an_odd_issuer_is_an_error_of_ours_in_time(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issuers, "FETCH_SECONDS", 1.0 if name == "slow" else 10.0)
    path, answer, why = ODD[name]
    with answering(IdentityProvider()) as provider:
        provider.answers[path] = answer(provider.url)
        began = time.monotonic()

        with pytest.raises((BusyError, RejectedError)) as failed:
            issuers.fetch(provider.settings())

        assert why in str(failed.value)
        assert time.monotonic() - began < 9
        assert provider.asked["/other"] == 0


def test_an_issuer_over_tls_is_believed_if_its_certificate_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(path)
    with answering(IdentityProvider(), tls=tls) as provider:
        with pytest.raises(BusyError, match="did not answer"):
            issuers.fetch(provider.settings())
        assert provider.asked.total() == 0

        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert len(issuers.fetch(provider.settings()).keys.keys) == len(KINDS)

        provider.answers[DISCOVERY] = said({"issuer": provider.url, "jwks_uri": "http://127.0.0.1:9/keys"})
        with pytest.raises(RejectedError, match="which is not asked"):
            issuers.fetch(provider.settings())


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [("", 300), ("no-store", 300), ("public, max-age=120", 120), ("MAX-AGE=1", 60), ("max-age=999999", 900)],
)
def test_keys_are_fresh_for_as_long_as_the_issuer_says_within_bounds(cache_control: str, seconds: int) -> None:
    with answering(IdentityProvider()) as provider:
        provider.cache_control = cache_control
        found = issuers.fetch(provider.settings())

        assert found.fresh_seconds == seconds
        assert [key.id for key in found.keys.keys] == [*KINDS]
