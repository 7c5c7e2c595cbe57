"""The documentation is true: its code runs, its links lead somewhere, its reference is complete."""

from __future__ import annotations

import contextlib
import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import tallystick
from tallystick import config

pytestmark = pytest.mark.slow

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PROSE: Final = sorted(
    [*PAGES, *(ROOT / name for name in ("SPEC.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"))]
)
_BLOCK: Final = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
SYSTEM_FOLDERS: Final = ("/srv", "/etc", "/var")
"""Where pages keep things that a test keeps in a folder of its own."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return [(kind, body) for _, kind, body in _BLOCK.findall(page.read_text("utf-8"))]


def runnable() -> list[Any]:
    """The pages with code, each marked by the tools that its code needs."""
    found = []
    for page in PAGES:
        codes = [body for kind, body in blocks(page) if kind in ("sh", "python", "json")]
        if codes:
            tools = (("ssh-keygen", pytest.mark.ssh_keygen), ("curl", pytest.mark.curl))
            marks = [mark for tool, mark in tools if any(tool in body for body in codes)]
            found.append(pytest.param(page, marks=marks, id=page.relative_to(ROOT).as_posix()))
    return found


@pytest.mark.parametrize("page", runnable())
def test_every_block_of_code_runs_as_it_stands(page: Path, tmp_path: Path) -> None:
    _prepare(tmp_path)
    with contextlib.ExitStack() as stack:
        service: dict[str, str] = {}
        if re.search(r'\$KEY|environ\["KEY"\]', page.read_text("utf-8")):
            service = stack.enter_context(_service(tmp_path / "service"))
        _run_blocks(page, tmp_path, service)


@contextlib.contextmanager
def _service(data: Path) -> Iterator[dict[str, str]]:
    """A service as the pages take it for granted: its address, and the operators' first key."""
    command = [sys.executable, "-m", "tallystick", "serve", "--data", str(data), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=_environment(data.parent)) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        try:
            yield {"address": said["address"], "key": said["first_key"]}
        finally:  # also when a page fails: else the test waits for the service, and nobody learns why
            process.terminate()


def _run_blocks(page: Path, tmp_path: Path, service: dict[str, str]) -> None:
    for kind, body in blocks(page):
        if kind == "json":
            json.loads(body)
            (tmp_path / "old-events.jsonl").write_text(body, "utf-8")
        elif kind == "python":
            text = body.replace("http://127.0.0.1:8080", service["address"]) if service else body
            _run([sys.executable, "-c", text], tmp_path, body, KEY=service.get("key", ""))
        elif kind == "sh" and re.search(r"^make ", body, re.MULTILINE):
            _check_targets(body)
        elif kind == "sh":
            text = body
            for folder in SYSTEM_FOLDERS:
                text = re.sub(rf"(?<=[ =]){folder}/", f"{tmp_path}{folder}/", text)
            if service:
                text = text.replace("http://127.0.0.1:8080", service["address"]).replace("curl ", "curl -sSf ")
                text = f"KEY={service['key']}\n{text}"
            _run(["bash", "-euo", "pipefail", "-c", text], tmp_path, body)


def _prepare(folder: Path) -> None:
    """What pages take for granted: the command, and some files of other systems."""
    (folder / "bin").mkdir()
    for name, module in (("tallystick", "tallystick"), ("tallystick-verify", "tallystick_verify.cli")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
        command.chmod(0o755)
    record = {
        "eventVersion": "1.08",
        "userIdentity": {"type": "IAMUser", "arn": "arn:aws:iam::1:user/jane", "userName": "jane"},
        "eventTime": "2026-03-01T08:00:00Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "ListBuckets",
        "eventID": "0b3f",
    }
    (folder / "AWSLogs").mkdir()
    (folder / "AWSLogs" / "one.json").write_text(json.dumps({"Records": [record]}))
    (folder / "more").mkdir()
    (folder / "more" / "records.json.gz").write_bytes(gzip.compress(json.dumps({"Records": [record]}).encode()))
    with tallystick.open(folder / "audit", keys=folder / "keys") as ledger:
        (folder / "kept.checkpoint").write_bytes(ledger.checkpoint())
        (folder / "verifier.key").write_text(ledger.verifier_key.render())
    (folder / "keys").rename(folder / "audit" / "keys")


def _environment(folder: Path) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK_")},
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT / 'verifier' / 'src'}",
    }


def _run(command: list[str], folder: Path, shown: str, **more: str) -> None:
    environment = _environment(folder) | more
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{shown}\n{done.stdout}\n{done.stderr}"


def _check_targets(body: str) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall(r"^make (\w+)", body, re.MULTILINE):
        assert re.search(rf"^{target}:.*##", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_reference_of_the_library_and_of_findings_is_what_the_code_says() -> None:
    maker = _load(ROOT / "docs" / "reference" / "make_library.py")
    assert (ROOT / "docs/reference/library.md").read_text("utf-8") == maker.library(), "run make_library.py"
    assert (ROOT / "docs/reference/findings.md").read_text("utf-8") == maker.findings(), "run make_library.py"


def test_the_reference_of_the_service_is_what_the_code_says() -> None:
    maker = _load(ROOT / "docs" / "reference" / "make_service.py")
    assert maker.PAGE.read_text("utf-8") == maker.page(), "run make_service.py"


def test_every_decision_is_in_the_index_of_decisions() -> None:
    index = (ROOT / "docs/adr/README.md").read_text("utf-8")
    for record in (ROOT / "docs" / "adr").glob("0*.md"):
        assert record.name in index


def test_every_setting_is_documented() -> None:
    told = "".join(page.read_text("utf-8") for page in PAGES)
    for name, value in vars(config).items():
        if name.endswith("_VARIABLE"):
            assert value in told, value


def test_every_page_of_the_documentation_is_reachable_from_its_front_page() -> None:
    front = (ROOT / "docs" / "README.md").read_text("utf-8")
    for page in (ROOT / "docs").glob("*/*.md"):
        if page.parent.name != "adr":
            assert page.relative_to(ROOT / "docs").as_posix() in front, page


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
