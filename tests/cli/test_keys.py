"""`keys` shows, rotates and exports what a ledger stands on."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from tests.cli.conftest import Run


@pytest.mark.usefixtures("ledger")
def test_list_names_each_key_and_its_file(run: Run) -> None:
    out = run("keys", "list").stdout
    keys = json.loads(run("keys", "list", "--json").stdout)["keys"]

    assert [key["purpose"] for key in keys] == ["root", "checkpoint", "evidence"]
    assert [*keys[0]] == ["purpose", "public", "since", "file", "present"]
    for key in keys:
        assert key["public"] in out
        assert key["file"] in out
        assert key["since"] == 0
        assert key["present"] is True


@pytest.mark.usefixtures("ledger")
def test_a_missing_key_file_is_said_to_be_missing(run: Run) -> None:
    Path("audit/keys/root.key").unlink()

    assert "root.key (not here)" in run("keys", "list").stdout


@pytest.mark.parametrize("purpose", ["checkpoint", "evidence"])
@pytest.mark.usefixtures("ledger")
def test_a_rotated_key_is_in_force_from_its_position_on(purpose: str, run: Run) -> None:
    Path("before").write_text(run("keys", "export", "--json").stdout)
    run("checkpoint", "-o", "old")

    rotated = json.loads(run("keys", "rotate", purpose, "--json").stdout)

    keys = {key["purpose"]: key for key in json.loads(run("keys", "list", "--json").stdout)["keys"]}
    assert [*rotated] == ["purpose", "position", "public"]
    assert rotated["position"] == keys[purpose]["since"] == 7
    assert rotated["public"] == keys[purpose]["public"]
    assert rotated["public"] not in Path("before").read_text()
    run("append", "--type", "a.b", "--entity", "e")
    assert "PASS" in run("verify", "--since", "old").stdout
    assert "rotated the evidence key" in run("keys", "rotate", "evidence").stdout


@pytest.mark.usefixtures("ledger")
def test_an_epoch_is_rotated_as_well(run: Run) -> None:
    out = run("keys", "rotate", "epoch").stdout

    assert "rotated the epoch key, as recorded at position 8" in out
    assert json.loads(run("show", "8", "--json").stdout)["event_type"] == "tallystick.epoch.opened"
    assert "PASS" in run("verify").stdout


@pytest.mark.usefixtures("ledger")
def test_export_gives_what_an_auditor_needs(run: Run) -> None:
    facts = json.loads(run("keys", "export", "--json").stdout)

    assert [*facts] == [
        *("ledger_id", "origin", "verifier_key", "root_key", "evidence_key", "allowed_signers"),
    ]
    name, _, openssh = facts["allowed_signers"].partition(" ")
    key = load_ssh_public_key(openssh.encode())
    assert name == facts["origin"] == "local/audit"
    assert isinstance(key, Ed25519PublicKey)
    assert base64.b64encode(key.public_bytes_raw()).decode() == facts["evidence_key"]
    assert facts["allowed_signers"] in run("keys", "export").stdout


@pytest.mark.usefixtures("ledger")
def test_export_needs_no_private_keys_and_rotate_does(run: Run) -> None:
    Path("audit/keys").rename("away")

    run("keys", "export")
    run("keys", "list")
    assert "there is no key" in run("keys", "rotate", "checkpoint", code=2).stderr


@pytest.mark.usefixtures("ledger")
def test_keys_that_others_may_read_are_refused(run: Run) -> None:
    Path("audit/keys/master.key").chmod(0o644)

    result = run("append", "--json", "--type", "a.b", "--entity", "e", code=2)

    assert json.loads(result.stderr)["error"]["family"] == "denied"


@pytest.mark.usefixtures("ledger")
def test_only_known_keys_can_be_rotated(run: Run) -> None:
    assert "'root' is not one of" in run("keys", "rotate", "root", code=2).stderr
