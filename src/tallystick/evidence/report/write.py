"""Writing a report to a file, whole or not at all: HTML or PDF, as the file's name says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Literal

from tallystick.durable import replace
from tallystick.errors import RejectedError
from tallystick.evidence.report import html, pdf
from tallystick.evidence.report.blocks import Page

FORMATS: Final = (".html", ".pdf")


def check(path: Path) -> None:
    """Whether a report can be written under this name, before it is made. Raises `RejectedError`."""
    if path.suffix.lower() not in FORMATS:
        raise RejectedError("a report is HTML or PDF", place=str(path), cure="name it something.html or something.pdf")
    if path.suffix.lower() == ".pdf":
        pdf.check()
    if not path.parent.is_dir():
        raise RejectedError(f"there is no folder {path.parent}", place=str(path), cure="make it first")


def render(page: Page, kind: Literal["html", "pdf"]) -> bytes:
    """The bytes of the file."""
    return html.render(page).encode("utf-8") if kind == "html" else pdf.render(page)


def write(page: Page, path: str | os.PathLike[str]) -> int:
    """Write the report; how many bytes it has. A file of that name is replaced once the new one is whole."""
    path = Path(path)
    check(path)
    data = render(page, "pdf" if path.suffix.lower() == ".pdf" else "html")
    try:
        replace(path, data)
    except OSError as error:
        raise RejectedError(f"cannot be written: {error.strerror or error}", place=str(path)) from error
    return len(data)
