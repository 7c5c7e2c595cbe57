"""Every command, and the service, under umask 000: what they write is for its owner alone, but what is published."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import click
import pytest

import tallystick
from tallystick.cli.program import program
from tallystick.serve.settings import Settings
from tests.cli.conftest import EVENTS, Run, environment, start
from tests.cli.test_queue import LEAVES, damage
from tests.cli.test_serve import serving
from tests.serve.conftest import running
from tests.test_head_mark import until

PUBLISHED: Final = "published"
YEARS: Final = "--from 2020-01-01 --to 2120-01-01"
RUNS: Final = f"""
init
init -l deep/er/other --keys secret/keys --marks marked/heads --name other --deployment example.org
append ../given/events.jsonl
append --type doc.viewed --entity doc-1 --actor jane -l deep/er/other --keys secret/keys --marks marked/heads
import jsonl ../given/events.jsonl
import cloudtrail ../given/trail.json
index rebuild
log
show 2
query event_type=user.*
state user-1
history user-1
diff user-1 2020-01-01 2100-01-01
series event_type=doc.* --per day --save docs
stats
checkpoint -o checkpoint
prove 2 -o proof --record record
check-proof proof --record record --vkey @../given/vkey
tiles {PUBLISHED}/tiles
export -o bundles/whole --view csv --view html
export event_type=doc.* -o bundles/docs.zip
check-bundle bundles/whole --trust ../given/trust
projection run ../given/mine.py
projection list
projection show roles
projection pause roles
projection resume roles
projection reset roles
schema infer user.created
schema register user.created ../given/role.json --compatibility none
schema list
schema show user.created
schema history user.created
schema validate ../given/events.jsonl
schema enforce registered
hold place h --reason r --entity user-1
hold list
hold release h --reason r
correct-clock "there is nothing to correct"
retention set 3650d --reason r
retention show
prune --yes
controls list
controls search who did what
controls explain CC7.2
controls check CC7.2 {YEARS}
evidence CC7.2 -o packs/pack {YEARS}
report list
report show access-review
report make access-review -o review.html {YEARS}
keys list
keys export
keys rotate checkpoint
keys rotate epoch
backup audit -o backups/ledger.tar --with-keys
backup audit -o backups/ledger --with-keys
restore backups/ledger.tar -o restored/ledger
restore backups/ledger --check
operator-key --data data --keys data-keys
backup data -o backups/data.tar --with-keys --keys data-keys
restore backups/data.tar -o restored/data
config check
verify
"""
"""In this order, in one directory."""
BELOW: Final = frozenset(
    (
        *("queue stats", "queue drain", "queue repair", "accept-loss", "serve"),
        *("witness make", "witness serve", "witness ask", "witness show"),
    )
)
"""These have tests of their own below."""
ASKING: Final = frozenset(("timestamp request", "timestamp check"))
"""These need an authority to ask. They write as `checkpoint -o` does, and beside it."""


@pytest.fixture(autouse=True)
def _umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory of its own for what is written, and the widest umask there is."""
    given = tmp_path / "given"
    given.mkdir()
    (given / "events.jsonl").write_text("".join(EVENTS))
    (given / "trail.json").write_text('{"Records":[]}')
    (given / "role.json").write_text("{}")
    (given / "mine.py").write_text("import tallystick\n\n@tallystick.projection('roles', initial={})\n" + ROLES)
    (tmp_path / "written").mkdir()
    monkeypatch.chdir(tmp_path / "written")
    before = os.umask(0)
    yield
    os.umask(before)


ROLES: Final = "def roles(state, record):\n    return state\n"


def leaves(command: click.Command, *path: str) -> Iterator[str]:
    """The names of all commands that are no groups."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, *path, name)
    else:
        yield " ".join(path)


def modes(folder: Path) -> Mapping[str, int]:
    """Every file and directory below, with its mode, where that is not what it should be."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink() and mode != (0o700 if path.is_dir() else 0o600):
            found[str(path.relative_to(folder))] = mode
    return found


def wrong(folder: Path) -> list[str]:
    """What is not for its owner alone, and is not published."""
    found = modes(folder)
    return [f"{mode:04o} {name}" for name, mode in found.items() if name != "." and not name.startswith(PUBLISHED)]


def test_the_table_has_every_command() -> None:
    lines = [f"{line} " for line in RUNS.split("\n") if line]
    missing = [name for name in leaves(program) if not any(line.startswith(f"{name} ") for line in lines)]

    assert set(missing) == BELOW | ASKING


@pytest.mark.slow
def test_what_commands_write_is_for_its_owner_alone(tmp_path: Path, run: Run) -> None:
    written = tmp_path / "written"

    for line in RUNS.strip().split("\n"):
        run(*shlex.split(line), code=1 if line.startswith("correct-clock") else 0)
        if line == "init":
            key = json.loads(run("keys", "export", "--json").stdout)["verifier_key"]
            (tmp_path / "given/vkey").write_text(key)
            (tmp_path / "given/trust").write_bytes(run("keys", "export", "--trust-file").stdout_bytes)

        assert wrong(written) == [], line

    assert len([*written.rglob("*")]) > 100  # of everything there is
    published = {stat.S_IMODE(path.stat().st_mode) for path in (written / PUBLISHED).rglob("*")}
    assert published == {0o777, 0o666}


@pytest.mark.slow
def test_what_a_queue_leaves_and_a_repair_makes_is_for_its_owner_alone(tmp_path: Path, run: Run) -> None:
    run("init")
    subprocess.run([sys.executable, "-c", LEAVES], env=environment(), check=False)
    run("queue", "stats")
    assert wrong(tmp_path / "written") == []
    damage(tmp_path / "written/audit/queue")

    run("queue", "repair", "--yes")
    run("queue", "drain")

    assert [*Path("audit/queue").glob("damaged-*")]
    assert wrong(tmp_path / "written") == []


@pytest.mark.slow
def test_what_the_acceptance_of_a_loss_writes_is_for_its_owner_alone(tmp_path: Path, run: Run) -> None:
    run("init")
    earlier = Path("audit/ledger.db").read_bytes()
    run("append", "../given/events.jsonl")
    Path("audit/ledger.db").write_bytes(earlier)
    for name in ("index.db", "sealing.db"):
        Path("audit", name).unlink()

    run("accept-loss", "the disk broke")

    assert wrong(tmp_path / "written") == []


@pytest.mark.slow
def test_what_a_witness_writes_is_for_its_owner_alone(tmp_path: Path, run: Run) -> None:
    run("init")
    policy = tmp_path / "given/policy"
    policy.write_bytes(run("keys", "export", "--trust-file").stdout_bytes)
    made = json.loads(run("witness", "make", "far/witness", "--name", "witness.example/w1", "--json").stdout)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with start("witness", "serve", "far/witness", "--trust", str(policy), "--port", str(port)) as process:
        try:
            until(partial(answers, port))
            trust = tmp_path / "given/trust"
            trust.write_text(f"witness w1 {made['witness_key']} http://127.0.0.1:{port}\nquorum w1\n")
            run("witness", "ask", "--trust", str(trust), "-o", "cosigned")
            run("witness", "show", "far/witness")

            assert Path("audit/cosigned.checkpoint").exists()
            assert wrong(tmp_path / "written") == []
        finally:
            process.terminate()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return not probe.connect_ex(("127.0.0.1", port))


@pytest.mark.slow
def test_what_a_service_writes_is_for_its_owner_alone(tmp_path: Path) -> None:
    options = ("--workers", "2", "--marks", "marks", "--keys", "far/keys")
    with serving(tmp_path / "written/data", *options) as (_, said):
        use(said["address"], said["first_key"])

        assert wrong(tmp_path / "written") == []


@pytest.mark.slow
def test_it_is_not_only_the_umask_of_the_command_that_keeps_it_so(tmp_path: Path) -> None:
    with running(tmp_path / "written/far/data", Settings()) as it:
        use(it.url, it.keys["operator"])

        assert wrong(tmp_path / "written") == []


def use(address: str, key: str) -> None:
    """Have a service write of every kind, and download a bundle from it."""
    with tallystick.Client(address, key) as client:
        client.append(event_type="a.b", entity_id="e")
        client.publish(event_type="a.b", entity_id="f")
        client.export("down/loaded")
        client.export("down/loaded.zip", as_zip=True)
        assert client.verify().holds
        client.query(event_type="a.b")


def test_keys_that_their_group_may_read_are_taken_when_a_setting_says_so(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    files = [*Path("audit/keys").glob("*.key")]
    for file in files:
        file.chmod(0o640)

    refused = run("append", "--type", "a.b", "--entity", "e", code=2).stderr
    assert "may be read by others (mode 0640)" in refused
    assert "TALLYSTICK_KEYS_GROUP_READABLE=true" in refused
    monkeypatch.setenv("TALLYSTICK_KEYS_GROUP_READABLE", "true")
    for mode in (0o640, 0o440):
        for file in files:
            file.chmod(mode)
        run("append", "--type", "a.b", "--entity", "e")
    run("verify")
    run("backup", "audit", "-o", "copy")
    for mode in (0o644, 0o660, 0o604, 0o444):
        for file in files:
            file.chmod(mode)
        assert f"mode {mode:04o}" in run("append", "--type", "a.b", "--entity", "e", code=2).stderr
    monkeypatch.setenv("TALLYSTICK_KEYS_GROUP_READABLE", "maybe")
    assert "'maybe' is neither true nor false" in run("log", code=2).stderr
