"""A service that asks witnesses: one that has seen more than the ledger has finds what the head mark cannot."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from tallystick.cli.program import program
from tallystick.core.checkpoint import Checkpoint
from tallystick.deployment import Deployment
from tallystick.serve.settings import Settings
from tests.serve.conftest import running
from tests.serve.test_damage import append
from tests.serve.test_watch import alarms, fill, until


def tallystick(*words: str | Path) -> str:
    done = CliRunner().invoke(program, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    return done.stdout


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@contextmanager
def witness(folder: Path, ledger: Path) -> Iterator[Path]:
    """A real `tallystick witness serve`; the trust file that names it."""
    watched = folder / "watched.policy"
    watched.write_text(tallystick("keys", "export", "--trust-file", "-l", ledger))
    made = tallystick("witness", "make", folder / "witness", "--name", "witness.example/w1", "--json")
    key = next(word for word in made.split('"') if word.startswith("witness.example/w1+"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tallystick", "witness", "serve", str(folder / "witness")]
    command += ["--trust", str(watched), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        until(partial(answers, port))
        trust = folder / "trust.policy"
        log = watched.read_text().splitlines()[0]
        trust.write_text(f"{log}\nwitness w1 {key} http://127.0.0.1:{port}\nquorum w1\n")
        yield trust
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A deployment with keys and marks within."""
    with Deployment(tmp_path / "data") as deployment:
        deployment.begin()
        fill(deployment, 5)
    return tmp_path / "data"


def test_a_witness_finds_that_everything_was_put_back_marks_included(tmp_path: Path, data: Path) -> None:
    ledger = data / "tenants/default"
    with witness(tmp_path, ledger) as trust:
        settings = Settings(verify_hours=0, witness_trust=str(trust), witness_seconds=1)
        with running(data, settings) as it:
            until((ledger / "cosigned.checkpoint").exists)
        shutil.copytree(data, tmp_path / "older")
        with running(data, settings) as it:
            _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
            for _ in range(5):
                assert append(it, key).status_code == 201
            until(lambda: Checkpoint.of_note((ledger / "cosigned.checkpoint").read_bytes()).size == 12)
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "older", data)

        with running(data, settings) as it:
            until(lambda: it.service.watch.stopped == ("rollback",))
            until(lambda: alarms(it.deployment) == ["verification.failed"])
            ready = it.call("GET", "/health/ready", None)
            assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
            _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
            answer = append(it, key)
            assert (answer.status_code, answer.json()["family"]) == (500, "tamper")
            assert "rolled back" in answer.text
        with running(data, Settings(verify_hours=0)) as it:
            assert append(it, key).status_code == 500, "it stays so after a restart, also without the witness"


def test_a_witness_that_does_not_answer_degrades_and_stops_nothing(tmp_path: Path, data: Path) -> None:
    with witness(tmp_path, data / "tenants/default") as trust:
        pass  # it is gone
    with running(data, Settings(verify_hours=0, witness_trust=str(trust), witness_seconds=1)) as it:
        until(lambda: it.service.witnessing is not None and it.service.witnessing.unanswered)
        _, key = it.deployment.create_key("default", role="Admin", name="k", actor={"id": "t"})
        assert append(it, key).status_code == 201
        ready = it.call("GET", "/health/ready", None)
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert alarms(it.deployment) == []
