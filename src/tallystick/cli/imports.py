"""`import`: events from other systems' files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from tallystick.cli.append import append_lines, total_bytes
from tallystick.cli.documents import open_document
from tallystick.cli.lines import STANDARD_INPUT, Chunk, read_chunks, shown, split_lines, too_long
from tallystick.cli.options import Settings, batch_options, file_type, sealing_options
from tallystick.cli.sealing import Mode, seal_input
from tallystick.cli.tally import Item
from tallystick.errors import RejectedError

_SUFFIXES: Final = tuple(f"{kind}{packed}" for kind in (".json", ".jsonl", ".ndjson") for packed in ("", ".gz"))
_NOT_LOGS: Final = "CloudTrail-Digest"
"""AWS puts the digests of its log files beside them; they hold no records."""


@click.group("import")
def import_() -> None:
    """Seal events from the files of other systems."""


@import_.command()
@click.argument("files", nargs=-1, required=True, type=file_type())
@batch_options
@sealing_options
def jsonl(settings: Settings, files: tuple[str, ...], atomic: bool, skip_bad: bool) -> None:
    """Seal events in the product's own form.

    JSON lines, plain or gzip, as `append` takes them.

    JSON: read, sealed, already, bad, first, last, through, size, seconds.
    """
    append_lines(settings, files, Mode.of(atomic=atomic, skip_bad=skip_bad))


@import_.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True))
@batch_options
@sealing_options
def cloudtrail(settings: Settings, files: tuple[str, ...], atomic: bool, skip_bad: bool) -> None:
    """Seal AWS CloudTrail records, each whole.

    FILES are log files as AWS delivers them or JSON lines of records, plain or gzip, or folders of such
    files, which are searched to their depths. The ids are CloudTrail's own: a second import adds nothing.

    JSON: read, sealed, already, bad, first, last, through, size, seconds.
    """
    mode = Mode.of(atomic=atomic, skip_bad=skip_bad)
    found = tuple(path for file in files for path in _log_files(file))
    items = (item for file in found for item in cloudtrail_items(file))
    seal_input(settings, items, mode, total=total_bytes(found))


def cloudtrail_items(file: str) -> Iterator[Item | None]:
    """The records of a CloudTrail file, one log document or a record a line, as events."""
    documents, chunks = open_document(read_chunks(file))
    if documents is None:
        yield from _line_items(shown(file), chunks)
    else:
        yield from _document_items(shown(file), documents)


def _log_files(file: str) -> Iterator[str]:
    path = Path(file)
    if file == STANDARD_INPUT or not path.is_dir():
        yield file
        return
    found = [
        inner
        for inner in sorted(path.rglob("*"))
        if inner.name.endswith(_SUFFIXES) and inner.is_file() and _NOT_LOGS not in inner.parts
    ]
    if not found:
        cure = f"their names end in {', '.join(_SUFFIXES)}"
        raise RejectedError("there are no CloudTrail files in this folder", place=file, cure=cure)
    yield from map(str, found)


def _line_items(file: str, chunks: Iterator[Chunk]) -> Iterator[Item | None]:
    from tallystick.core.canonical import decode
    from tallystick.integrations.cloudtrail import records

    for line in split_lines(chunks):
        if line is None:
            yield None
        elif line.data is None:
            yield Item(file, "line", line.number, 0, too_long("line"))
        else:
            size = len(line.data)
            try:
                for record in records(decode(line.data)):
                    yield Item(file, "line", line.number, size, _event(record))
                    size = 0
            except RejectedError as error:
                yield Item(file, "line", line.number, size, error)


def _document_items(file: str, documents: Iterator[bytes]) -> Iterator[Item]:
    from tallystick.core.canonical import decode

    number = 0
    try:
        for data in documents:
            number += 1
            try:
                event = _event(decode(data))
            except RejectedError as error:
                event = error
            yield Item(file, "record", number, len(data), event)
    except RejectedError as error:
        # Where a record ends is not known any more: the rest of this document is lost.
        yield Item(file, "record", number + 1, 0, error)


def _event(record: dict[str, Any]) -> dict[str, Any] | RejectedError:
    from tallystick.integrations.cloudtrail import event_fields

    try:
        return event_fields(record)
    except RejectedError as error:
        return error
