"""What holds for the whole test run: the tools that marked tests need, and Hypothesis' profiles.

A tool that is missing ends the run where `CI=true`. Elsewhere its tests are deselected, and the
last lines of the run say how many and why.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from typing import Any, Final

import pytest
from hypothesis import settings

TOOLS: Final = {
    "chromium": "chromium",
    "curl": "curl",
    "go": "go",
    "nginx": "nginx",
    "openssl": "openssl",
    "ssh_keygen": "ssh-keygen",
}
"""Marker → the program that must be on the PATH."""

IN_CI: Final = os.environ.get("CI") == "true"

DESELECTED: Final = pytest.StashKey[Counter[str]]()
WORKER_OUTPUT_KEY: Final = "tallystick_deselected"

settings.register_profile("ci", deadline=None, print_blob=True)
settings.register_profile(
    "dev", deadline=None, print_blob=True, max_examples=int(os.environ.get("TALLYSTICK_TEST_EXAMPLES", "50"))
)
settings.load_profile("ci" if IN_CI else "dev")


def program_of(marker: str) -> str | None:
    """Where the program of a marker is; servers lie where not everyone's PATH leads."""
    return shutil.which(TOOLS[marker], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def missing_tools() -> dict[str, str]:
    return {marker: program for marker, program in TOOLS.items() if program_of(marker) is None}


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is one of those that pytest-xdist started."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[DESELECTED] = Counter()
    missing = missing_tools()
    if IN_CI and missing and not is_worker(config):
        raise pytest.UsageError(
            f"CI=true, and these programs are not on the PATH: {', '.join(missing.values())}. "
            "Install them; CI runs every test."
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    missing = missing_tools()
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        marker = next((name for name in missing if item.get_closest_marker(name)), None)
        if marker is None:
            kept.append(item)
        else:
            dropped.append(item)
            config.stash[DESELECTED][marker] += 1
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = kept


def pytest_sessionfinish(session: pytest.Session) -> None:
    if is_worker(session.config):
        output: dict[str, Any] = getattr(session.config, "workeroutput")  # noqa: B009 - xdist's, not typed
        counts = session.config.stash[DESELECTED]
        output[WORKER_OUTPUT_KEY] = dict(counts)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over the counts of one worker; each worker collects, and deselects, the same tests."""
    counts = getattr(node, "workeroutput", {}).get(WORKER_OUTPUT_KEY, {})
    total: Counter[str] = node.config.stash[DESELECTED]
    total |= Counter(counts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for marker, count in config.stash[DESELECTED].items():
        terminalreporter.write_line(
            f"{count} tests marked '{marker}' were deselected: the program '{TOOLS[marker]}' is not on the PATH",
            yellow=True,
        )
