"""Views of exported records for people: a table in CSV, and a page in HTML. They prove nothing; the bundle does.

Written as the records stream by, and hashed as they are written. What events say is text and never markup: HTML is
escaped, and a cell that a spreadsheet would take for a formula begins with an apostrophe.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final, Protocol

from tallystick.core.canonical import encode
from tallystick.core.record import Record, record_hash
from tallystick.made_file import Made, NewFile

HTML_RECORDS_MAX: Final = 20_000
"""Records on one page: more than a browser shows with ease. The page says when there are more."""

CSV_COLUMNS: Final = (
    *("position", "recorded_at", "occurred_at", "event_type", "entity_id", "entity_version"),
    *("actor", "labels", "payload", "context", "id", "hash"),
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


class View(Protocol):
    """One view on its way to a file."""

    path: Path

    def add(self, lines: Sequence[bytes]) -> None:
        """The next records."""

    def finish(self) -> Made:
        """There are no more: what was made."""

    def close(self) -> None:
        """Let go of the file. Harmless when that is done."""


class CsvView:
    """All records, a row each, for a spreadsheet."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._made: Final = NewFile(path)
        self._file: Final = io.TextIOWrapper(self._made, encoding="utf-8", newline="")
        self._rows: Final = csv.writer(self._file, lineterminator="\r\n")
        self._rows.writerow(CSV_COLUMNS)

    def add(self, lines: Sequence[bytes]) -> None:
        self._rows.writerows(map(csv_row, lines))

    def finish(self) -> Made:
        self._file.flush()
        return self._made.finish()

    def close(self) -> None:
        self._file.close()


class HtmlView:
    """The first records, a row each, to be read in a browser or printed."""

    def __init__(self, path: Path) -> None:
        self.path: Final = path
        self._made: Final = NewFile(path)
        self._file: Final = io.TextIOWrapper(self._made, encoding="utf-8")
        self._count = 0
        self._file.write(_PAGE_HEAD)

    def add(self, lines: Sequence[bytes]) -> None:
        for line in lines[: max(0, HTML_RECORDS_MAX - self._count)]:
            self._file.write(_row(line))
        self._count += len(lines)

    def finish(self) -> Made:
        shown = min(self._count, HTML_RECORDS_MAX)
        more = "" if shown == self._count else f" Only the first {shown:,} are shown; the bundle has all of them."
        self._file.write(f"</tbody></table><p>{self._count:,} records.{more} This page proves nothing.")
        self._file.write(" The bundle that its signed manifest names does.</p></body></html>\n")
        self._file.flush()
        return self._made.finish()

    def close(self) -> None:
        self._file.close()


VIEWS: Final[Mapping[str, Any]] = {"csv": CsvView, "html": HtmlView}
"""Name, and ending of the file → the view."""


def csv_row(line: bytes) -> list[str]:
    """A record as a row under `CSV_COLUMNS`; no cell is a formula to a spreadsheet."""
    return [_no_formula(cell) for cell in _cells(line)]


def visible(text: str) -> str:
    """Text with what cannot be seen written out, so that nothing is hidden from whoever reads it."""
    return "".join(one if one.isprintable() or one == "\n" else f"\\u{ord(one):04x}" for one in text)


def _row(line: bytes) -> str:
    """One record as a row of the page: where, when, what, who, and what it says."""
    cells = dict(zip(CSV_COLUMNS, _cells(line), strict=True))
    text = {name: f"<bdi>{escape(visible(cell))}</bdi>" for name, cell in cells.items()}
    occurred = f"<small>occurred {text['occurred_at']}</small>" if cells["occurred_at"] else ""
    labels = f"<small>{text['labels']}</small>" if cells["labels"] else ""
    context = f"<small><code>{text['context']}</code></small>" if cells["context"] != "{}" else ""
    return (
        f"<tr><td>{text['position']}</td><td>{text['recorded_at']}{occurred}</td>"
        f"<td><b>{text['event_type']}</b><small>{text['entity_id']}, version {text['entity_version']}</small>"
        f"{labels}</td>"
        f"<td>{text['actor']}</td>"
        f"<td><code>{text['payload']}</code>{context}"
        f"<small>id {text['id']}<br>SHA-256 {text['hash']}</small></td></tr>\n"
    )


def _cells(line: bytes) -> list[str]:
    members = Record.parse(line).members
    actor = members["actor"]
    texts = {
        **{name: "" if value is None else str(value) for name, value in members.items()},
        "actor": "" if actor is None else str(actor["id"]),
        "labels": " ".join(members["labels"]),
        "payload": encode(members["payload"]).decode(),
        "context": encode(members["context"]).decode(),
        "hash": record_hash(line).hex(),
    }
    return [texts[name] for name in CSV_COLUMNS]


def _no_formula(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


_PAGE_HEAD: Final = """\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Exported records</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem; color: #1d2430; background: #fff }
h1 { font-size: 1.4rem }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th { position: sticky; top: 0; background: #eef1f5; text-align: left; font-weight: 600 }
th, td { padding: .45rem .6rem; border-bottom: 1px solid #dde2e9; vertical-align: top; overflow-wrap: anywhere }
th:nth-child(1) { width: 4.5rem } th:nth-child(2) { width: 15.5rem } th:nth-child(3) { width: 17rem }
th:nth-child(4) { width: 9rem }
td { font-variant-numeric: tabular-nums }
code { font: 12.5px/1.5 ui-monospace, monospace }
small { display: block; color: #5b6574; font-size: 12px }
@media print { body { margin: 0 } th { position: static } }
</style></head>
<body><h1>Exported records</h1><table>
<thead><tr><th>position</th><th>recorded</th><th>what</th><th>who</th><th>says</th></tr></thead><tbody>
"""
