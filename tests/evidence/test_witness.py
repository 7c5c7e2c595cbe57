"""Witnesses: ours watches others' ledgers, and ours are watched; nobody is believed, and nobody is waited for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tallystick
from tallystick.core.checkpoint import Checkpoint
from tallystick.core.merkle import EMPTY_ROOT
from tallystick.core.note import Note, Signer, sign_note
from tallystick.core.policy import Policy
from tallystick.core.policy import Witness as Known
from tallystick.core.strict import render_base64
from tallystick.errors import NotFoundError, RejectedError, TamperError
from tallystick.evidence.others.cosigning import cosign
from tallystick.evidence.others.vouching import Vouchers
from tallystick.evidence.others.witness import Witness, make_witness
from tallystick.keystore import Keystore
from tallystick.ledger import Ledger
from tests import outside

NAME = "witness.example/w1"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with tallystick.open(tmp_path / "ledger") as opened:
        grow(opened, 5)
        yield opened


@pytest.fixture
def witness(tmp_path: Path, ledger: Ledger) -> Iterator[Witness]:
    made = new_witness(tmp_path / "witness", ledger)
    yield made
    made.close()


def new_witness(folder: Path, *ledgers: Ledger, name: str = NAME) -> Witness:
    make_witness(folder, name=name)
    return Witness(folder, policy=Policy(logs=tuple(one.verifier_key for one in ledgers)))


def grow(ledger: Ledger, count: int) -> None:
    ledger.append_many([{"event_type": "a.b", "entity_id": "e", "payload": {"n": n}} for n in range(count)])


def request(ledger: Ledger, old: int) -> bytes:
    """What a client sends that knows of `old` records."""
    proof = "".join(f"{render_base64(one)}\n" for one in (ledger.prove_consistency(old) if old else ()))
    return f"old {old}\n{proof}\n".encode() + ledger.checkpoint()


@contextmanager
def running(witness: Witness) -> Iterator[str]:
    """The call of a witness behind HTTP; its prefix."""

    def answer(path: str, body: bytes) -> outside.Answer:
        assert path == "/add-checkpoint"
        reply = witness.add_checkpoint(body)
        return reply.status, reply.content_type, reply.body

    with outside.serving(answer) as url:
        yield url


def policy_of(*witnesses: tuple[Witness, str], quorum: str = "none") -> Policy:
    known = tuple(Known(f"w{n}", one.signer.witness_key, url) for n, (one, url) in enumerate(witnesses, start=1))
    return Policy(logs=(), witnesses=known, quorum=quorum)


# --------------------------------------------------------------------------------------------- being a witness


def test_the_first_checkpoint_is_cosigned_and_remembered(witness: Witness, ledger: Ledger) -> None:
    reply = witness.add_checkpoint(request(ledger, 0))

    assert reply.status == 200
    cosigned = Note.parse(ledger.checkpoint() + reply.body)
    assert witness.signer.witness_key.verify(cosigned.text, cosigned.signatures[-1]) is not None
    assert [(one.checkpoint.origin, one.checkpoint.size) for one in witness.watched()] == [(ledger.origin, ledger.size)]


def test_what_grew_from_it_is_cosigned_and_the_same_again_too(witness: Witness, ledger: Ledger) -> None:
    witness.add_checkpoint(request(ledger, 0))
    old = ledger.size
    grow(ledger, 20)

    assert witness.add_checkpoint(request(ledger, old)).status == 200
    assert witness.add_checkpoint(request(ledger, ledger.size)).status == 200
    assert witness.refused() == []


def test_who_does_not_know_the_size_is_told(witness: Witness, ledger: Ledger) -> None:
    witness.add_checkpoint(request(ledger, 0))
    size = ledger.size
    grow(ledger, 1)

    reply = witness.add_checkpoint(request(ledger, 0))

    assert (reply.status, reply.body, reply.content_type) == (409, f"{size}\n".encode(), "text/x.tlog.size")


def test_another_history_is_never_cosigned_and_is_kept_as_proof(witness: Witness, ledger: Ledger) -> None:
    witness.add_checkpoint(request(ledger, 0))
    size = ledger.size
    longer = forged(ledger, size + 7, b"\x02" * 32)
    same_size = forged(ledger, size, b"\x01" * 32)

    assert witness.add_checkpoint(f"old {size}\n\n".encode() + same_size).status == 409
    assert witness.add_checkpoint(f"old {size}\n{render_base64(bytes(32))}\n\n".encode() + longer).status == 422

    assert [one.why for one in witness.refused()] == [
        f"not proven to begin with the {size} records cosigned",
        f"another root of {size} records",
    ]
    assert witness.watched()[0].checkpoint.size == size


def forged(ledger: Ledger, size: int, root: bytes) -> bytes:
    """A checkpoint that the ledger's own key signs, of whatever it likes."""
    key = Keystore(ledger._keystore.folder).signing_key("checkpoint")
    return sign_note(Checkpoint(ledger.origin, size, root).render(), Signer(ledger.origin, key)).render()


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda _: b"", 400),
        (lambda _: b"old 0\n", 400),
        (lambda body: body.replace(b"old 0", b"old 00"), 400),
        (lambda body: body.replace(b"old 0", b"old -1"), 400),
        (lambda body: body.replace(b"old 0", b"old 999"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\nnot base64\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\nAAAA\n"), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\n" + (render_base64(bytes(32)).encode() + b"\n") * 64), 400),
        (lambda body: body.replace(b"old 0\n", b"old 0\n" + render_base64(bytes(32)).encode() + b"\n"), 422),
        (lambda body: body.replace(b"local/ledger", b"local/ledges"), 404),
        (lambda body: body.replace(b"\n7\n", b"\n8\n"), 403),
        (lambda body: body + b"x" * 100_000, 400),
        (lambda body: body[:-1], 400),
        (lambda body: body.replace(b"\n", b"\r\n"), 400),
    ],
)
def test_what_is_no_request_is_refused_and_nothing_is_remembered(
    witness: Witness, ledger: Ledger, change: Callable[[bytes], bytes], status: int
) -> None:
    assert witness.add_checkpoint(change(request(ledger, 0))).status == status
    assert witness.watched() == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
def test_any_bytes_get_an_answer(witness: Witness, data: bytes) -> None:
    assert witness.add_checkpoint(data).status in (400, 403, 404)


def test_a_witness_remembers_across_restarts(witness: Witness, ledger: Ledger, tmp_path: Path) -> None:
    witness.add_checkpoint(request(ledger, 0))
    size = ledger.size
    witness.close()

    again = new_witness(tmp_path / "witness", ledger)

    assert again.add_checkpoint(request(ledger, 0)).body == f"{size}\n".encode()
    again.close()


def test_a_witness_has_one_name_and_is_made_before_it_is_used(tmp_path: Path) -> None:
    first = make_witness(tmp_path / "w", name=NAME)

    assert make_witness(tmp_path / "w", name=NAME).witness_key == first.witness_key
    with pytest.raises(RejectedError, match=f"named {NAME}"):
        make_witness(tmp_path / "w", name="witness.example/other")
    with pytest.raises(NotFoundError, match="no witness"):
        Witness(tmp_path / "nowhere", policy=Policy(logs=()))
    assert (tmp_path / "w" / "witness.key").stat().st_mode & 0o077 == 0


def test_many_that_ask_at_once_never_get_two_histories(witness: Witness, ledger: Ledger) -> None:
    """The race that the specification warns of: the memory must not step back."""
    witness.add_checkpoint(request(ledger, 0))
    bodies = []
    for _ in range(12):
        old = ledger.size
        grow(ledger, 3)
        bodies.append(request(ledger, old))
    sizes = []

    def send(body: bytes) -> int:
        status = witness.add_checkpoint(body).status
        sizes.append(witness.watched()[0].checkpoint.size)
        return status

    with ThreadPoolExecutor(max_workers=8) as pool:
        for _ in range(20):
            [*pool.map(send, bodies)]

    assert witness.watched()[0].checkpoint.size == ledger.size
    assert witness.refused() == []


def test_the_empty_tree_may_be_watched_from_its_beginning(ledger: Ledger, witness: Witness) -> None:
    empty = forged(ledger, 0, EMPTY_ROOT)

    assert witness.add_checkpoint(b"old 0\n\n" + empty).status == 200
    assert witness.add_checkpoint(request(ledger, 0)).status == 200


KILLED = """
import os, signal, sys
from pathlib import Path
from tallystick.core.cosignature import WitnessSigner
from tallystick.core.policy import Policy
from tallystick.evidence.others.witness import Witness
WitnessSigner.cosign = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
folder, policy, body = sys.argv[1:]
Witness(Path(folder), policy=Policy.parse(Path(policy).read_bytes())).add_checkpoint(Path(body).read_bytes())
"""


def test_a_kill_before_the_answer_leaves_a_memory_that_answers_the_repeat(
    witness: Witness, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "policy").write_bytes(Policy(logs=(ledger.verifier_key,)).render())
    (tmp_path / "body").write_bytes(request(ledger, 0))

    command = [
        sys.executable,
        "-c",
        textwrap.dedent(KILLED),
        *(str(tmp_path / one) for one in ("witness", "policy", "body")),
    ]
    killed = subprocess.run(command, capture_output=True, check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert witness.add_checkpoint(request(ledger, 0)).status == 409
    assert witness.add_checkpoint(request(ledger, ledger.size)).status == 200


# ------------------------------------------------------------------------------------------------ being watched


def test_witnesses_cosign_what_grew_and_what_they_gave_is_kept(witness: Witness, ledger: Ledger) -> None:
    with running(witness) as url:
        policy = policy_of((witness, url), quorum="w1")
        first = ledger.cosign(policy)
        grow(ledger, 30)
        second = ledger.cosign(policy)

    assert first.problems == second.problems == {}
    assert policy.is_satisfied(policy.cosigned(Note.parse(second.checkpoint)))
    assert ledger._location.folder is not None
    assert (ledger._location.folder / "cosigned.checkpoint").read_bytes() == second.checkpoint


def test_a_lost_memory_of_ours_is_no_matter(witness: Witness, ledger: Ledger) -> None:
    with running(witness) as url:
        policy = policy_of((witness, url), quorum="w1")
        ledger.cosign(policy)
        assert ledger._location.folder is not None
        kept = ledger._location.folder / "cosigned.checkpoint"
        for damage in (kept.unlink, lambda: kept.write_bytes(b"garbage"), lambda: kept.write_bytes(b"\n\n" * 10)):
            damage()
            grow(ledger, 2)
            assert ledger.cosign(policy).problems == {}


def test_a_ledger_put_back_is_found_by_its_witness(witness: Witness, ledger: Ledger) -> None:
    with running(witness) as url:
        policy = policy_of((witness, url))
        ledger.cosign(policy)
        grow(ledger, 10)
        ledger.cosign(policy)
        behind = forged(ledger, 7, b"\x03" * 32)
        asked = cosign(behind, policy, consistency=lambda *_: [])

    assert isinstance(asked.problems["w1"], TamperError)
    assert "rolled back" in str(asked.problems["w1"])


def test_a_rewritten_ledger_is_found_by_its_witness(witness: Witness, ledger: Ledger) -> None:
    with running(witness) as url:
        policy = policy_of((witness, url))
        ledger.cosign(policy)
        other = cosign(forged(ledger, ledger.size + 5, b"\x03" * 32), policy, consistency=lambda *_: [bytes(32)])
        same = cosign(forged(ledger, ledger.size, b"\x03" * 32), policy, consistency=lambda *_: [])

    assert "rewritten" in str(other.problems["w1"])
    assert "rewritten" in str(same.problems["w1"])


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((200, "text/plain", b"garbage\n"), "did not answer with signature lines"),
        ((200, "text/plain", b""), "did not answer with signature lines"),
        ((200, "text/plain", b"\xff\n"), "did not answer with signature lines"),
        ((409, "text/plain", b"9\n"), "did not say which size"),
        ((409, "text/x.tlog.size", b"+9\n"), "did not say which size"),
        ((409, "text/x.tlog.size", b"3\n"), "refuses to go on from"),
        ((403, "text/plain", b""), "does not trust the key"),
        ((404, "text/plain", b""), "does not watch this ledger"),
        ((500, "text/plain", b"\x1b[31m"), "status 500"),
        ((302, "text/plain", b""), "status 302"),
    ],
)
def test_a_witness_that_lies_or_fails_is_a_problem_and_no_more(
    witness: Witness, ledger: Ledger, answer: outside.Answer, problem: str
) -> None:
    with outside.serving(lambda *_: answer) as url:
        asked = ledger.cosign(policy_of((witness, url)))

    assert asked.checkpoint == ledger.checkpoint()
    assert problem in str(asked.problems["w1"])
    assert "\x1b" not in str(asked.problems["w1"])


def test_a_cosignature_over_something_else_is_not_taken(witness: Witness, ledger: Ledger) -> None:
    line = witness.signer.cosign("another text\n", seconds=1).render().encode() + b"\n"

    with outside.serving(lambda *_: (200, "text/plain", line)) as url:
        asked = ledger.cosign(policy_of((witness, url)))

    assert isinstance(asked.problems["w1"], TamperError)
    assert asked.checkpoint == ledger.checkpoint()


def test_down_and_slow_witnesses_hold_nothing_up(witness: Witness, ledger: Ledger, tmp_path: Path) -> None:
    def slow(*_: object) -> outside.Answer:
        time.sleep(3)
        return 200, "text/plain", b""

    silent = socket.create_server(("127.0.0.1", 0))  # it takes connections, and never answers
    with running(witness) as good, outside.serving(slow) as late:
        known = (
            Known("w1", witness.signer.witness_key, good),
            Known("late", make_witness(tmp_path / "a", name="w.example/a").witness_key, late),
            Known("silent", make_witness(tmp_path / "b", name="w.example/b").witness_key,
                  f"http://127.0.0.1:{silent.getsockname()[1]}"),
            Known("down", make_witness(tmp_path / "c", name="w.example/c").witness_key, "http://127.0.0.1:9"),
        )  # fmt: skip
        started = time.monotonic()
        asked = ledger.cosign(Policy(logs=(), witnesses=known), seconds=0.5)
        took = time.monotonic() - started
        appended = ledger.append(event_type="a.b", entity_id="e", payload={})
    silent.close()

    assert took < 2.5
    assert sorted(asked.problems) == ["down", "late", "silent"]
    assert appended.position == ledger.size - 1


def test_an_append_does_not_wait_while_witnesses_are_asked(witness: Witness, ledger: Ledger) -> None:
    began, over = threading.Event(), threading.Event()

    def slow(*_: object) -> outside.Answer:
        began.set()
        over.wait(10)
        return 500, "text/plain", b""

    with outside.serving(slow) as url, ThreadPoolExecutor() as pool:
        asking = pool.submit(ledger.cosign, policy_of((witness, url)))
        assert began.wait(10)
        started = time.monotonic()
        ledger.append(event_type="a.b", entity_id="e", payload={})
        took = time.monotonic() - started
        over.set()
        asking.result()

    assert took < 1


def test_an_export_has_the_cosignatures_in_its_checkpoint(witness: Witness, ledger: Ledger, tmp_path: Path) -> None:
    with running(witness) as url:
        policy = policy_of((witness, url), quorum="w1")
        exported = ledger.export(tmp_path / "out", vouchers=Vouchers(policy=policy))
    trust = Policy(logs=(ledger.verifier_key,), witnesses=policy.witnesses, quorum="w1").render()

    assert exported.warnings == ()
    assert [*tallystick.verify_bundle(tmp_path / "out", trust=trust).cosigned] == ["w1"]
    grow(ledger, 1)
    ledger.export(tmp_path / "alone")
    (finding,) = tallystick.verify_bundle(tmp_path / "alone", trust=trust).findings
    assert finding.kind == "witness"


# ---------------------------------------------------------------------------- two deployments, over real HTTP


def test_two_deployments_watch_each_other(tmp_path: Path) -> None:
    """Each runs `tallystick witness serve`, and asks the other's witness for its own ledger."""
    with tallystick.open(tmp_path / "here") as here, tallystick.open(tmp_path / "there") as there:
        served = [
            Served(tmp_path / "w-here", watches=there, name="here.example/w"),
            Served(tmp_path / "w-there", watches=here, name="there.example/w"),
        ]
        try:
            for one in served:
                one.wait()
            for ledger, watched_by in ((here, served[1]), (there, served[0])):
                policy = Policy(logs=(), witnesses=(watched_by.known,), quorum="w")
                for _ in range(3):
                    grow(ledger, 4)
                    asked = ledger.cosign(policy)
                    assert asked.problems == {}
                    assert policy.is_satisfied(policy.cosigned(Note.parse(asked.checkpoint)))
            front = httpx2.get(served[0].url)
            assert there.origin in front.text
            assert httpx2.post(f"{served[0].url}/add-checkpoint", content=b"x" * 200_000).status_code == 413
            assert httpx2.get(f"{served[0].url}/add-checkpoint").status_code == 405
        finally:
            for one in served:
                one.stop()


class Served:
    """A witness as a process of its own."""

    def __init__(self, folder: Path, *, watches: Ledger, name: str) -> None:
        key = make_witness(folder, name=name).witness_key
        trust = folder / "trust.policy"
        trust.write_bytes(Policy(logs=(watches.verifier_key,)).render())
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.known = Known("w", key, self.url)
        command = [sys.executable, "-m", "tallystick", "witness", "serve", str(folder)]
        self.process = subprocess.Popen(
            [*command, "--trust", str(trust), "--port", str(port)], stderr=subprocess.PIPE, env={**os.environ}
        )

    def wait(self) -> None:
        for _ in range(200):
            try:
                httpx2.get(self.url)
                return
            except httpx2.HTTPError:
                assert self.process.poll() is None, self.process.communicate()
                time.sleep(0.05)
        raise AssertionError("the witness does not answer")

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=20)
