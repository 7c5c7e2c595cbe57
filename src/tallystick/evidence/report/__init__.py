"""Reports: documents in Markdown with queries, series and states inside, made into HTML or PDF.

A document (`documents`) is filled in (`template`, `figures`) by one view of the ledger (`view`) and read as Markdown
(`prose`) into blocks (`blocks`), which `html` and `pdf` write. Event text goes into blocks and never through a parser.
`make` does all of it but the writing.
"""

from __future__ import annotations

from tallystick.evidence.report.allowance import CELLS_MAX, PDF_CELLS_MAX, REPORT_BYTES_MAX
from tallystick.evidence.report.blocks import Page
from tallystick.evidence.report.documents import Document, load, shipped
from tallystick.evidence.report.make import Made, make
from tallystick.evidence.report.write import render, write

__all__ = (
    "CELLS_MAX",
    "PDF_CELLS_MAX",
    "REPORT_BYTES_MAX",
    "Document",
    "Made",
    "Page",
    "load",
    "make",
    "render",
    "shipped",
    "write",
)
