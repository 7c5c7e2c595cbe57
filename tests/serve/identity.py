"""An identity provider that really answers: discovery, and a key set that changes, on this machine."""

from __future__ import annotations

import base64
import datetime
import hmac
import json
import ssl
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jwt
from joserfc.jwk import Key, generate_key
from joserfc.jws import JWSRegistry

from tallystick.serve.oidc import ALGORITHMS, OidcSettings

AUDIENCE: Final = "tallystick.example"
DISCOVERY: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"
KINDS: Final[dict[str, tuple[Any, Any]]] = {
    "rsa": ("RSA", 2_048),
    "ec": ("EC", "P-256"),
    "ed": ("OKP", "Ed25519"),
}

Answer = tuple[int, dict[str, str], bytes]


class IdentityProvider:
    """Its keys, what it publishes of them, and how often it was asked for what."""

    def __init__(self, url: str = "", *, clock: Callable[[], float] = time.time) -> None:
        self.url = url
        self._clock = clock
        self.keys: dict[str, Key] = {name: new_key(name) for name in KINDS}
        self.published: list[dict[str, Any]] = [public(key) for key in self.keys.values()]
        self.asked: Counter[str] = Counter()
        self.answers: dict[str, Callable[[BaseHTTPRequestHandler], Answer | None]] = {}
        """For a path, what is answered instead; None when it was done by hand."""
        self.cache_control = ""

    def settings(self, **given: Any) -> OidcSettings:
        return OidcSettings.of(issuer=self.url, audience=AUDIENCE, **given)

    def claims(self, **given: Any) -> dict[str, Any]:
        """The claims of a good token; one that is given as None is left out."""
        now = int(self._clock())
        usual = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "248289761001",
            "exp": now + 300,
            "iat": now,
            "preferred_username": "jane@example.com",
            "tallystick_role": "Developer",
            "tallystick_tenant": "acme",
        }
        return {name: value for name, value in {**usual, **given}.items() if value is not None}

    def token(self, key: str = "rsa", algorithm: str | None = None, /, **claims: Any) -> str:
        """A token as a provider makes it."""
        algorithm = algorithm or next(name for name, kind in ALGORITHMS.items() if kind[0] == self.keys[key].key_type)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the library's opinion on the name EdDSA
            header = {"alg": algorithm, "kid": key}
            return jwt.encode(header, self.claims(**claims), self.keys[key], algorithms=[algorithm])

    def forged(
        self,
        head: Mapping[str, Any] | bytes | None = None,
        claims: Mapping[str, Any] | bytes | None = None,
        *,
        key: Key | None = None,
        algorithm: str = "RS256",
    ) -> str:
        """A token with any head and claims, signed by some key; with HS256 by the public key as if it were a secret."""
        head = (
            {"alg": algorithm, "kid": "rsa", "typ": "JWT"} | dict(head or {}) if not isinstance(head, bytes) else head
        )
        claims = self.claims(**dict(claims or {})) if not isinstance(claims, bytes) else claims
        text = b".".join(b64(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (head, claims))
        key = key or self.keys["rsa"]
        signature = b""
        if algorithm == "HS256":
            signature = hmac.digest(key.as_pem(private=False), text, "sha256")  # type: ignore[union-attr]
        elif algorithm != "none":
            signature = JWSRegistry.algorithms[algorithm].sign(text, key)
        return (text + b"." + b64(signature)).decode()

    def rotate(self, name: str, *, kind: str = "rsa", keep: bool = False) -> None:
        """Sign with a new key from now on, and with `keep` go on publishing those before."""
        self.keys[name] = new_key(kind, name)
        self.published = [*(self.published if keep else []), public(self.keys[name])]

    def answer(self, handler: BaseHTTPRequestHandler) -> Answer | None:
        path = handler.path
        self.asked[path] += 1
        if path in self.answers:
            return self.answers[path](handler)
        if path == DISCOVERY:
            said: dict[str, Any] = {"issuer": self.url, "jwks_uri": f"{self.url}{KEYS}"}
        elif path == KEYS:
            said = {"keys": self.published}
        else:
            return 404, {}, b""
        headers = {"Cache-Control": self.cache_control} if path == KEYS and self.cache_control else {}
        return 200, {"Content-Type": "application/json", **headers}, json.dumps(said).encode()


@contextmanager
def answering(
    provider: IdentityProvider, port: int = 0, *, tls: ssl.SSLContext | None = None
) -> Iterator[IdentityProvider]:
    """Have a provider answer, until the block is left; it has its URL, if it had none, from here."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = provider.answer(self)
            if answer is None:
                return
            status, headers, data = answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def handle(self) -> None:
            with suppress(ssl.SSLError, ConnectionError):  # whoever does not believe our certificate hangs up
                super().handle()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    provider.url = provider.url or f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def certificate(folder: Path) -> Path:
    """A certificate for this machine that nobody vouches for, with its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a provider")])
    now = datetime.datetime.fromtimestamp(time.time(), datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / "provider.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM) + key.private_bytes(*plain))
    return path


def new_key(kind: str, name: str | None = None) -> Key:
    made: Key = generate_key(*KINDS[kind], {"kid": name or kind, "use": "sig"})
    return made


def public(key: Key, **more: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **more}


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
