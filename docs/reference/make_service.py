"""Make service.md from the code: routes, settings, errors, metrics. Run it after a change; a test holds them equal."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tallystick.deployment import Deployment
from tallystick.govern.access import ROLES
from tallystick.limits import BATCH_EVENTS_MAX, BODY_BYTES_MAX, INPUT_BYTES_MAX
from tallystick.serve import problems
from tallystick.serve.app import conventional
from tallystick.serve.metrics import Metrics
from tallystick.serve.service import Service
from tallystick.serve.settings import OPTIONS

HERE: Final = Path(__file__).parent
PAGE: Final = HERE / "service.md"

_HEAD: Final = """\
# The service

Made by `docs/reference/make_service.py` from the code. How to use it is told in [run it as a
service](../howto/serve.md); what each route takes and gives, in full, the service itself says at `/docs` and
`/openapi.json`.
"""
_OTHER_STATUSES: Final = (
    (401, "Send a key that is in force", "no key or token, or none that counts: always with the same words"),
    (405, "The route has no such method", ""),
    (408, "The request did not come whole in time", "the body took longer than 30 s"),
    (
        413,
        "The body is too large",
        f"one event has at most {INPUT_BYTES_MAX:,} bytes, a batch {BODY_BYTES_MAX >> 20} MiB and {BATCH_EVENTS_MAX:,} events",
    ),
    (415, "The content type or encoding is not known", "JSON or NDJSON, plain, gzip or zstd"),
    (429, "The plan has no room for it", "`bound` says which one, `reset_at` and `Retry-After` when to come again"),
)


def page() -> str:
    """The whole page."""
    parts = [_HEAD, _routes(), _roles(), _settings(), _errors(), _metrics()]
    return "\n".join(parts)


def _routes() -> str:
    lines = ["## Routes", ""]
    lines += ["*whole*: not for a key that is for some event types or entities only. `-` needs no key.", ""]
    lines += ["| route | needs | what it does |", "|---|---|---|"]
    for path, operations in _document()["paths"].items():
        for method, operation in operations.items():
            needs = operation.get("x-permission", "-")
            whole = ", whole" if operation.get("x-whole-scope") else ""
            what = _sentence(operation.get("description") or operation["summary"])
            lines.append(f"| `{method.upper()} {path}` | {needs}{whole} | {what} |")
    return "\n".join([*lines, ""])


def _roles() -> str:
    lines = ["## Roles", "", "| role | permissions |", "|---|---|"]
    lines += [f"| {role} | {', '.join(sorted(permissions))} |" for role, permissions in ROLES.items()]
    return "\n".join([*lines, "", "`ManageTenants` counts for operators' keys only.", ""])


def _settings() -> str:
    lines = ["## Settings", ""]
    lines += ["Given on the command line, in the environment, or in a file (TOML); the first of these that says", ""]
    lines[-2] += " something counts. `tallystick config check` prints what a service would run with."
    lines += ["| in a file | option | variable | default | what it says |", "|---|---|---|---|---|"]
    for one in OPTIONS:
        default = "" if one.default in (None, "", False) else f"`{one.default}`"
        lines.append(f"| `{one.name}` | `{one.flag}` | `{one.variable}` | {default} | {one.about} |")
    return "\n".join([*lines, ""])


def _errors() -> str:
    lines = ["## Errors", ""]
    lines += ["Every refusal is `application/problem+json` (RFC 9457): `title`, `status`, `detail`, and where they are"]
    lines[-1] += " known `place` and `cure`."
    lines += ["", "| status | title | when |", "|---|---|---|"]
    rows = [(status, title, f"`{kind.__name__}`") for kind, (status, title) in problems.STATUSES.items()]
    for status, title, when in sorted([*rows, *_OTHER_STATUSES]):
        lines.append(f"| {status} | {title} | {when} |")
    return "\n".join([*lines, ""])


def _metrics() -> str:
    lines = ["## Metrics", "", "`GET /metrics`, for operators; of several processes together.", ""]
    lines += ["| metric | kind | what it says |", "|---|---|---|"]
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        lines.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join([*lines, ""])


def _document() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder, Deployment(folder) as deployment:
        service = Service(deployment)
        try:
            return conventional(service).openapi()
        finally:
            service.close()


def _sentence(text: str) -> str:
    """The first sentence, on one line."""
    first = re.split(r"(?<=[.:])\s", " ".join(text.split()), maxsplit=1)[0]
    return first.rstrip(":.").replace("|", "\\|") + "."


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
