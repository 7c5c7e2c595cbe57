"""`tallystick serve`, as a process: asked by curl, killed, and told to stop."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

import tallystick
from tests.serve.identity import AUDIENCE, IdentityProvider, answering

OIDC: Final = ("--oidc-issuer", "https://id.example", "--oidc-audience", "a")
EVENT: Final = {"event_type": "user.permission_changed", "entity_id": "user-456"}


@contextmanager
def serving(data: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """A service as a process, and what it said when it began."""
    command = [sys.executable, "-m", "tallystick", "serve", "--data", str(data), "--port", "0", "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield process, json.loads(line)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.curl
def test_curl_as_the_documents_show_it(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as (process, said):
        curl = ["curl", "-sS", "-f", "-H", f"Authorization: Bearer {said['first_key']}"]
        body = {**EVENT, "payload": {"field": "role", "old_value": "viewer", "new_value": "editor"}}
        post = ["-H", "Content-Type: application/json", "-d", json.dumps(body), f"{said['address']}/api/v1/events"]
        query = "entity_id=user-456&event_type=user.permission_changed&before=2196-03-16T00:00:00Z"

        sealed = json.loads(subprocess.run([*curl, *post], check=True, capture_output=True).stdout)
        found = subprocess.run(
            [*curl, f"{said['address']}/api/v1/events/query?{query}"], check=True, capture_output=True
        )

        assert [*sealed][:3] == ["id", "position", "recorded_at"]
        assert [one["hash"] for one in json.loads(found.stdout)["records"]] == [sealed["hash"]]
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    with serving(tmp_path / "data") as (_, said):
        assert said["first_key"] is None
    assert tallystick.verify(tmp_path / "data/tenants/default", keys=tmp_path / "data/keys/tenants/default").holds


@pytest.mark.openssl
def test_it_answers_over_tls(tmp_path: Path) -> None:
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*request, *subject, *files], check=True, capture_output=True)
    options = ["--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem")]

    with serving(tmp_path / "data", *options) as (_, said):
        address = said["address"].replace("127.0.0.1", "localhost")
        assert address.startswith("https://")
        ask = ["openssl", "s_client", "-CAfile", str(tmp_path / "cert.pem"), "-connect"]
        alive = subprocess.run([*ask, address.removeprefix("https://")], input=b"", capture_output=True, check=False)
        assert b"Verify return code: 0 (ok)" in alive.stdout


def test_it_believes_the_issuer_that_it_is_told_of(tmp_path: Path) -> None:
    with answering(IdentityProvider()) as provider:
        options = ["--oidc-issuer", provider.url, "--oidc-audience", AUDIENCE, "--oidc-algorithm", "ES256"]
        options += ["--oidc-role-claim", "groups", "--oidc-role", "a=b=Auditor", "--oidc-tenant", "default"]
        with serving(tmp_path / "data", *options) as (process, said):

            def asked(token: str) -> httpx2.Response:
                url = f"{said['address']}/api/v1/whoami"
                return httpx2.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=20)

            told = asked(provider.token("ec", groups=["a=b", "more"])).json()
            assert (told["role"], told["tenant"], told["issuer"]) == ("Auditor", "default", provider.url)
            assert asked(provider.token("rsa", groups=["a=b"])).status_code == 401
            assert asked(said["first_key"]).json()["role"] == "Admin"
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=20)
            assert (process.returncode, out) == (0, "")
            last = json.loads(err.splitlines()[-1])
            assert last["event"].startswith("a token was refused: the algorithm 'RS256' is none of ES256")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--tls-cert", __file__], "go together"),
        (["--tls-cert", __file__, "--tls-key", __file__], "certificate cannot be used"),
        (["--port", "99999"], "99999"),
        (["--host", "192.0.2.1"], "cannot listen at 192.0.2.1"),
        (["--deployment", "a b"], "not a ledger name"),
        (["--oidc-audience", "a"], "--oidc-audience goes with --oidc-issuer"),
        (["--oidc-role", "a=Admin"], "--oidc-role goes with --oidc-issuer"),
        (["--oidc-issuer", "https://id.example"], "audience: there is none"),
        (
            ["--oidc-issuer", "http://id.example", "--oidc-audience", "a"],
            "issuer: 'http://id.example' is not an issuer",
        ),
        ([*OIDC, "--oidc-algorithm", "none"], "algorithms: 'none' is no algorithm to believe; use RS256"),
        ([*OIDC, "--oidc-role", "a=Root"], "roles: there is no role 'Root'"),
        ([*OIDC, "--oidc-tenant", "a", "--oidc-tenant-claim", "b"], "tenant: there is a tenant and a claim"),
    ],
)
def test_wrong_use_is_one_clear_error(tmp_path: Path, options: list[str], problem: str) -> None:
    command = [sys.executable, "-m", "tallystick", "serve", "--data", str(tmp_path / "data"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert done.returncode == 2, done.stderr
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_key_is_not_lost_when_it_cannot_listen(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "tallystick", "serve", "--data", str(tmp_path / "data"), "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.returncode == 2
        assert "cannot listen" in done.stderr
    with serving(tmp_path / "data") as (_, said):
        assert said["first_key"]


def test_whoever_has_the_folder_makes_another_operators_key(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tallystick", "operator-key", "--data", str(tmp_path / "data"), "--json"]

    def made() -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
        key: str = json.loads(done.stdout)["key"]
        return key

    first = made()
    with serving(tmp_path / "data") as (_, said):
        assert said["first_key"] is None
        second = made()
        for key in (first, second):
            headers = {"Authorization": f"Bearer {key}"}
            told = httpx2.get(f"{said['address']}/api/v1/whoami", headers=headers, timeout=20).json()
            assert (told["role"], told["operator"]) == ("Admin", True)
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "data").rglob("*"))
