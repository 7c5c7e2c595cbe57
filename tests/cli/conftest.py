"""What the tests of the command line share: a run of it, in this process or in one of its own, and a ledger.

The real CloudTrail records do not travel with the repository: where they are missing, the tests marked
`cloudtrail` are deselected, and the last lines of the run say so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

from tallystick.cli.program import program

ROOT: Final = Path(__file__).resolve().parent.parent.parent
CLOUDTRAIL: Final = ROOT.parent / "shared/data/cloudtrail/records.jsonl"
DESELECTED: Final = pytest.StashKey[int]()

Run = Callable[..., Result]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"cloudtrail: needs real CloudTrail records at {CLOUDTRAIL}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if CLOUDTRAIL.exists():
        return
    dropped = [item for item in items if item.get_closest_marker("cloudtrail")]
    if dropped:
        config.stash[DESELECTED] = len(dropped)
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(DESELECTED, 0)
    if count:
        terminalreporter.write_line(
            f"{count} tests marked 'cloudtrail' were deselected: {CLOUDTRAIL} is not there", yellow=True
        )


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, with no settings from outside."""
    monkeypatch.chdir(tmp_path)
    for name in ("TALLYSTICK_LEDGER", "TALLYSTICK_KEYS", "TALLYSTICK_DEPLOYMENT", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run() -> Run:
    """Runs the command line in this process: `run("log", "-n", "3")`, with `code` as the exit code wanted."""

    def call(*arguments: str, input: str | bytes | None = None, code: int = 0, **how: Any) -> Result:
        result = CliRunner().invoke(program, arguments, input=input, prog_name="tallystick", **how)
        assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
        return result

    return call


@pytest.fixture
def ledger(run: Run, tmp_path: Path) -> Path:
    """A ledger at ./audit with five events: positions 2 to 6."""
    run("init")
    run("append", input="".join(EVENTS))
    return tmp_path / "audit"


EVENTS: Final = (
    '{"id":"e-1","event_type":"user.created","entity_id":"user-1","actor":"jane","payload":{"role":"viewer"}}\n',
    '{"id":"e-2","event_type":"user.permission_changed","entity_id":"user-1","actor":"jane",'
    '"payload":{"field":"role","old_value":"viewer","new_value":"editor"},"occurred_at":"2026-03-01T10:00:00Z"}\n',
    '{"id":"e-3","event_type":"user.created","entity_id":"user-2","actor":"raj"}\n',
    '{"id":"e-4","event_type":"doc.viewed","entity_id":"doc-7","actor":"user-2","labels":["phi"]}\n',
    '{"id":"e-5","event_type":"doc.viewed","entity_id":"doc-7","actor":"user-1","payload":{"pages":3}}\n',
)


def command(*arguments: str) -> list[str]:
    """The command line as a process of its own."""
    return [sys.executable, "-m", "tallystick", *arguments]


def environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def start(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), env=environment(), **how)


def lines(arguments: Sequence[str]) -> bytes:
    """JSON lines as bytes."""
    return "".join(arguments).encode()
