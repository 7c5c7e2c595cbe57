"""The program as a whole: its shared options, its exit codes, and how it ends when something ends it."""

from __future__ import annotations

import json
import os
import pty
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tallystick
from tallystick import config
from tallystick.cli import options, screen
from tallystick.cli.failures import describe
from tallystick.cli.program import COMMANDS
from tests.cli.conftest import ROOT, Run, command, environment, start
from tests.cli.test_append import GOOD


def test_help_names_every_command_and_exit_code(run: Run) -> None:
    out = run("--help").stdout

    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert "Exit codes:\n    0    done" in out
    for name in COMMANDS:
        assert run(name, "-h").stdout.startswith(f"Usage: tallystick {name}")


def test_version_is_printed(run: Run) -> None:
    assert run("--version").stdout.startswith("tallystick")


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run(command("--help"), env=environment(), capture_output=True, check=True)

    assert done.stdout.startswith(b"Usage: tallystick ")


def test_what_is_heavy_is_loaded_late() -> None:
    heavy = ("rich", "tallystick.evidence.tiles", "jinja2", "markdown_it", "nh3", "typst", "yaml")
    code = (
        "import sys, click; from tallystick.cli.program import program, COMMANDS\n"
        "[program.get_command(click.Context(program), name) for name in COMMANDS]\n"
        f"print(*(name for name in {heavy} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True)

    assert done.stdout == b"\n"


def test_shared_options_stand_before_or_after_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        run("init", "-l", name)

    def origin(*arguments: str) -> str:
        found: str = json.loads(run(*arguments).stdout)["origin"]
        return found

    assert origin("-l", "one", "--json", "checkpoint") == "local/one"
    assert origin("checkpoint", "-l", "one", "--json") == "local/one"
    monkeypatch.setenv("TALLYSTICK_LEDGER", "three")
    assert origin("checkpoint", "--json") == "local/three"
    assert origin("-l", "two", "checkpoint", "--json") == "local/two"
    assert origin("-l", "two", "checkpoint", "--json", "-l", "one") == "local/one"
    assert origin("--json", "keys", "export", "-l", "one") == "local/one"


def test_the_keys_may_be_named_by_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_KEYS", "safe")

    run("init")

    assert Path("safe/root.key").exists()
    assert options.KEYS_VARIABLE == config.KEYS_VARIABLE
    run("append", "--type", "a.b", "--entity", "e")


@pytest.mark.parametrize(
    ("error", "family", "code"),
    [
        (tallystick.RejectedError("p", place="here", cure="mend"), "rejected", 2),
        (tallystick.NotFoundError("p"), "not-found", 2),
        (tallystick.DeniedError("p"), "denied", 2),
        (tallystick.ConflictError("p"), "conflict", 1),
        (tallystick.TamperError("p"), "tamper", 1),
        (tallystick.BusyError("p"), "busy", 3),
        (tallystick.StoreError("p"), "store", 3),
        (OSError(28, "No space left on device"), "system", 3),
    ],
)
def test_every_family_of_errors_has_its_exit_code(error: Exception, family: str, code: int) -> None:
    failure = describe(error)

    assert (failure.family, failure.code) == (family, code)


def test_a_store_that_is_none_is_a_store_error(run: Run) -> None:
    Path("audit").mkdir()
    Path("audit/ledger.db").write_bytes(b"not a database" * 100)

    for arguments in (("log",), ("append", "--type", "a.b", "--entity", "e")):
        assert run(*arguments, code=3).stderr.startswith("error: ")
    assert json.loads(run("log", "--json", code=3).stderr)["error"]["family"] == "store"


def test_another_programs_database_is_left_alone(run: Run) -> None:
    Path("audit").mkdir()
    connection = sqlite3.connect("audit/ledger.db")
    connection.execute("CREATE TABLE mine (x)")
    connection.commit()
    connection.close()
    before = Path("audit/ledger.db").read_bytes()

    assert "not a Tallystick ledger" in run("init", code=3).stderr
    assert Path("audit/ledger.db").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("nonsense",), "error: No such command 'nonsense'; see tallystick --help\n"),
        (("log", "--frobnicate"), "error: No such option '--frobnicate'; see tallystick log --help\n"),
        (("log", "-n", "x"), "error: Invalid value for '-n' / '--number'"),
        (("log", "-n", "-1"), "error: Invalid value for '-n' / '--number'"),
        (("-l", "", "log"), "error: the ledger's path is empty; give a folder\n"),
        (("-l", "https://example.com/x", "log"), "error: there is no store for 'https://example.com/x'"),
        (("log", "--since", "soon\x1b[31m"), "error: --since: 'soon\\x1b[31m' is not a time with a zone"),
        (("show", "x\x1b[31m"), "error: there is no event with the id 'x\\x1b[31m'"),
        (("\x1b]0;x\x07",), "error: No such command '\\x1b]0;x\\x07'"),
    ],
)
@pytest.mark.usefixtures("ledger")
def test_wrong_usage_is_one_clear_line(arguments: tuple[str, ...], problem: str, run: Run) -> None:
    result = run(*arguments, code=2)

    assert result.stderr.startswith(problem)
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_wrong_usage_is_json_when_asked_for(run: Run) -> None:
    error = json.loads(run("log", "--frobnicate", "--json", code=2).stderr)["error"]

    assert error == {
        **{"family": "usage", "problem": "No such option '--frobnicate'", "place": ""},
        "cure": "see tallystick log --help",
    }


def test_a_group_without_a_command_shows_its_help(run: Run) -> None:
    assert "Commands:" in run("keys", code=2).stderr
    assert "Commands:" in run(code=2).stderr


@pytest.mark.usefixtures("ledger")
def test_a_defect_of_ours_does_not_pass_for_a_finding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options.Settings, "open", lambda *_, **__: 1 / 0)

    assert "this is a defect in tallystick itself" in run("log", code=70).stderr


@pytest.mark.parametrize("arguments", [("log", "--all"), ("log", "--all", "--json"), ("--help",)])
def test_a_closed_pipe_ends_the_program_quietly(arguments: tuple[str, ...], run: Run) -> None:
    run("init")
    run("append", input=GOOD * 2_000)
    reading, writing = os.pipe()
    process = start(*arguments, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    if arguments != ("--help",):
        os.read(reading, 10)
    os.close(reading)

    _, err = process.communicate(timeout=20)

    assert (process.returncode, err) == (141, b"")


def test_an_interrupt_says_what_was_sealed_and_exits_with_130(run: Run) -> None:
    run("init")
    process = start("append", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(GOOD.encode())
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while b"a.b" not in run("log").stdout_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)

    assert process.returncode == 130
    assert b"1 read, 1 new" in out
    assert err.strip() == b""


@pytest.mark.usefixtures("ledger")
def test_no_colour_is_used_where_nobody_looks(run: Run) -> None:
    for arguments in (("log",), ("verify",), ("show", "3"), ("keys", "list")):
        assert "\x1b" not in run(*arguments).stdout


@pytest.mark.usefixtures("ledger")
def test_colour_is_used_on_a_terminal_unless_it_is_unwanted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in run("verify", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run("verify", color=True).stdout


def test_unprintable_text_is_escaped_as_json_does() -> None:
    assert screen.clean("a\x1b\x9b\u202e\U000e0001\ud800\n") == r"a\u001b\u009b\u202e\udb40\udc01\ud800\n"
    assert screen.clean("plain → text 漢字 😀") == "plain → text 漢字 😀"


@pytest.mark.usefixtures("ledger")
def test_a_terminal_that_cannot_show_a_character_gets_an_escape() -> None:
    done = subprocess.run(
        command("log"), env={**environment(), "PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True
    )

    assert rb"role: viewer \u2192 editor" in done.stdout


@pytest.mark.parametrize("names", [("log",), ("verify",), ("keys", "list")])
@pytest.mark.usefixtures("ledger")
def test_tables_and_findings_fit_a_terminal(names: tuple[str, ...]) -> None:
    child, terminal = pty.openpty()
    process = subprocess.Popen(
        command(*names),
        env={**environment(), "TERM": "xterm", "COLUMNS": "100"},
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    out = b""
    while True:
        try:
            piece = os.read(child, 65_536)
        except OSError:
            break
        if not piece:
            break
        out += piece
    os.close(child)

    assert process.wait(timeout=20) == 0
    assert b"\x1b[" in out
    assert str(ROOT) not in out.decode()
