"""Make library.md and findings.md from the code. Run it after changing a public name; a test holds them equal."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Final

import tallystick
from tallystick.evidence.findings import MEANING, Kind

HERE: Final = Path(__file__).parent


def library() -> str:
    """Every public name with its contract, as its docstring says it."""
    parts = ["# The library\n\nMade by `docs/reference/make_library.py` from the docstrings.\n"]
    for name in tallystick.__all__:
        value = getattr(tallystick, name)
        parts.append(f"## `tallystick.{name}`\n")
        if inspect.isclass(value):
            parts.append(f"{_doc(value)}\n")
            for member, function in sorted(_members(value).items()):
                if member.startswith("_") or not (callable(function) or isinstance(function, property)):
                    continue
                parts.append(f"### `{name}.{member}{_signature(function)}`\n\n{_doc(function)}\n")
        else:
            parts.append(f"```text\n{name}{_signature(value)}\n```\n\n{_doc(value)}\n")
    return "\n".join(parts)


def _members(value: type) -> dict[str, object]:
    """What a class has of ours: its own, and what it is put together from."""
    ours = [base for base in reversed(value.__mro__) if base.__module__.startswith("tallystick")]
    return {name: member for base in ours for name, member in vars(base).items()}


def findings() -> str:
    """Every kind of finding and what it means."""
    lines = [
        "# Findings\n\nMade by `docs/reference/make_library.py`. What `verify` can find, and what it means (SPEC 8).\n"
    ]
    lines += ["| kind | means |", "|---|---|", *(f"| `{kind}` | {MEANING[kind]} |" for kind in Kind)]
    return "\n".join(lines) + "\n"


def _members(value: type) -> dict[str, object]:
    """What a class has, and what it has of its other halves."""
    ours = [one for one in reversed(value.__mro__) if one.__module__.startswith("tallystick.")]
    return {name: member for one in ours for name, member in vars(one).items()}


def _doc(value: object) -> str:
    return inspect.getdoc(value) or ""


def _signature(value: object) -> str:
    if not callable(value):
        return ""
    text = str(inspect.signature(value)).replace("(self, ", "(").replace("(self)", "()")
    text = re.sub(r"<function (\w+) at 0x[0-9a-f]+>", r"\1", text)
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)


if __name__ == "__main__":
    for page, text in (("library.md", library()), ("findings.md", findings())):
        (HERE / page).write_text(text, "utf-8")
        sys.stdout.write(f"wrote {HERE / page}\n")
