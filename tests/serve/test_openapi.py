"""The OpenAPI document is what the service does: requests made from it find no answer that is not in it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tallystick.serve import jobs
from tallystick.serve.problems import MEDIA_TYPE
from tallystick.serve.streaming import STREAM_PATH
from tests.serve.conftest import Running

pytestmark = pytest.mark.slow

CHECKS: Final = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
)


def test_thousands_of_requests_find_no_answer_that_is_not_in_the_document(
    it: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "JOBS_WAITING_MAX", 10_000)  # 503 is a right answer, and a fault to who counts those
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{it.url}/openapi.json"]
    options = ["--checks", ",".join(CHECKS), "--mode", "all", "--max-examples", "12", "--seed", "7", "--workers", "2"]
    options += ["--exclude-path", STREAM_PATH]  # it has no end, and tests of its own
    options += ["--suppress-health-check", "all", "--no-color", "--generation-database", "none"]
    headers = ["--header", f"Authorization: Bearer {it.keys['operator']}"]

    done = subprocess.run(
        [*command, *options, *headers], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300
    )

    assert done.returncode == 0, done.stdout[-8_000:]
    assert "Tested: " in done.stdout
    assert it.call("GET", "/health/ready", None).json()["status"] == "ready"


def test_every_operation_says_what_it_is_for_and_that_its_errors_are_problems(it: Running) -> None:
    document: dict[str, Any] = it.call("GET", "/openapi.json", None).json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation.get("description") or operation.get("summary"), where
            for status, answer in operation["responses"].items():
                if status >= "400":
                    assert [*answer["content"]] == [MEDIA_TYPE], where
            open_to_all = path.startswith("/health")
            assert bool(operation.get("security")) != open_to_all, where


def test_an_error_is_a_problem_with_a_cure(it: Running) -> None:
    """One for each way in which an error is made (RFC 9457)."""
    for method, path, who, body, status in (
        ("POST", "/api/v1/events", "acme/Admin", {"event_type": 7}, 400),
        ("POST", "/api/v1/keys", "acme/Admin", {"role": 7}, 400),
        ("GET", "/api/v1/events/query?after=never", "acme/Admin", None, 400),
        ("GET", "/api/v1/events/query?limit=0", "acme/Admin", None, 400),
        ("GET", "/api/v1/whoami", "nobody", None, 401),
        ("GET", "/api/v1/tenants", "acme/Admin", None, 403),
        ("GET", "/api/v1/nowhere", "acme/Admin", None, 404),
        ("GET", "/api/v1/events/nobody", "acme/Admin", None, 404),
        ("PATCH", "/api/v1/keys", "acme/Admin", None, 405),
        ("POST", "/api/v1/tenants", "operator", {"name": "acme"}, 409),
    ):
        answer = it.call(method, path, who, json=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == MEDIA_TYPE
        said = json.loads(answer.text)
        assert said["status"] == status
        assert said["title"]
        assert said["detail"]
        assert said["cure"], said


def test_the_page_for_people_has_every_route_and_needs_nothing_from_elsewhere(it: Running) -> None:
    answer = it.call("GET", "/docs", None)
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    for path, operations in it.call("GET", "/openapi.json", None).json()["paths"].items():
        assert f"<code>{path}</code>" in answer.text
        for method in operations:
            assert f'<b class="{method}">' in answer.text
    assert "<script" not in answer.text
    assert "://" not in answer.text
