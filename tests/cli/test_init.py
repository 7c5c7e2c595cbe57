"""`init` makes a ledger once, and says what it made."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from tests.cli.conftest import Run


def test_init_says_what_it_made_and_what_to_do_with_the_keys(run: Run, tmp_path: Path) -> None:
    out = run("init", "--name", "clinic", "--deployment", "acme.example").stdout

    assert "Made the ledger clinic at ./audit." in out
    assert "acme.example/clinic+" in out
    assert "Back up the keys" in out
    assert (tmp_path / "audit/ledger.db").exists()
    assert stat.S_IMODE((tmp_path / "audit/keys/root.key").stat().st_mode) == 0o600


def test_a_second_init_changes_nothing_and_is_no_error(run: Run) -> None:
    first = json.loads(run("init", "--json").stdout)
    second = json.loads(run("init", "--json").stdout)

    assert first.pop("created") is True
    assert second.pop("created") is False
    assert first == second
    assert "already there" in run("init", "--name", "audit").stdout


def test_a_ledger_of_another_name_or_deployment_is_refused(run: Run) -> None:
    run("init")

    assert "is named audit, not other" in run("init", "--name", "other", code=1).stderr
    assert "has the origin local/audit" in run("init", "--deployment", "acme", code=1).stderr


def test_a_name_that_cannot_stand_in_a_checkpoint_is_refused(run: Run) -> None:
    assert "is not a ledger name" in run("init", "--name", "a b", code=2).stderr


def test_the_keys_can_be_made_elsewhere(run: Run, tmp_path: Path) -> None:
    made = json.loads(run("init", "-l", "books", "--keys", "safe", "--json").stdout)

    assert made["keys"] == "safe"
    assert (tmp_path / "safe/master.key").exists()
    assert not (tmp_path / "books/keys").exists()
    run("append", "-l", "books", "--keys", "safe", "--type", "a.b", "--entity", "e")
    assert "there is no key" in run("append", "-l", "books", "--type", "a.b", "--entity", "e", code=2).stderr


def test_the_json_has_the_documented_keys(run: Run) -> None:
    made = json.loads(run("init", "--json").stdout)

    assert [*made] == ["created", "ledger", "name", "origin", "ledger_id", "verifier_key", "keys"]
    assert len(bytes.fromhex(made["ledger_id"])) == 32
