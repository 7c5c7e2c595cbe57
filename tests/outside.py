"""What others run, run here for real: a timestamp authority by `openssl ts`, and servers that fail or lie."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

Answer = tuple[int, str, bytes]
"""Status, content type, body."""

_CONFIG = """
[ tsa ]
default_tsa = one
[ one ]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
accuracy = secs:1
ordering = yes
tsa_name = yes
ess_cert_id_chain = no
ess_cert_id_alg = sha256
"""
_EXTENSIONS = """
[ ca ]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[ tsa ]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


class Authority(NamedTuple):
    """A running timestamp authority: where, and its root certificate in PEM."""

    url: str
    root: Path


def make_authority(folder: Path, name: str = "tsa", *, sends_root: bool = False) -> Path:
    """A throw-away CA and a certificate for timestamps, by openssl. Gives the folder with `ca.pem`.

    One that sends its root along sends it after its own certificate, whatever the order of DER is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    certs = f"certs = {folder}/ca.pem\n" if sends_root else ""
    (folder / "ts.cnf").write_text(_CONFIG.format(folder=folder) + certs)
    (folder / "ext.cnf").write_text(_EXTENSIONS)
    (folder / "serial").write_text("01\n")
    new = ("req", "-new", "-newkey", "rsa:2048", "-nodes")
    sign = ("x509", "-req", "-days", "30", "-extfile", "ext.cnf", "-extensions")
    _openssl(folder, *new, "-keyout", "ca.key", "-out", "ca.csr", "-subj", f"/CN={name} root")
    _openssl(folder, *sign, "ca", "-in", "ca.csr", "-signkey", "ca.key", "-out", "ca.pem")
    _openssl(folder, *new, "-keyout", "tsa.key", "-out", "tsa.csr", "-subj", f"/CN={name}")
    by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
    _openssl(folder, *sign, "tsa", "-in", "tsa.csr", *by, "-out", "tsa.pem")
    return folder


def reply_to(folder: Path, query: bytes) -> bytes:
    """What `openssl ts` answers to a timestamp query."""
    (folder / "query.tsq").write_bytes(query)
    by = ("-inkey", "tsa.key", "-signer", "tsa.pem")
    _openssl(folder, "ts", "-reply", "-config", "ts.cnf", "-queryfile", "query.tsq", *by, "-out", "reply.tsr")
    return (folder / "reply.tsr").read_bytes()


@contextmanager
def serving(answer: Callable[[str, bytes], Answer]) -> Iterator[str]:
    """An HTTP server that answers a POST with what a function of path and body gives; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            status, content_type, data = answer(self.path, body)
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def authority(folder: Path, *, sends_root: bool = False) -> Iterator[Authority]:
    """A timestamp authority on this machine, until the block is left."""
    made = make_authority(folder, sends_root=sends_root)
    lock = threading.Lock()

    def answer(_: str, body: bytes) -> Answer:
        with lock:
            return 200, "application/timestamp-reply", reply_to(made, body)

    with serving(answer) as url:
        yield Authority(url, made / "ca.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)
