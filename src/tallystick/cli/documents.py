"""CloudTrail log files, `{"Records":[…]}`, cut into their records as they come: one in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tallystick.cli.lines import Chunk, too_long
from tallystick.errors import RejectedError
from tallystick.limits import INPUT_BYTES_MAX

_OPENING: Final = re.compile(rb'\s*\{\s*"Records"\s*:\s*\[')
_OPENING_BYTES: Final = 64
_TOKEN: Final = re.compile(rb'[^"{}\[\]]++|"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)
_CURE: Final = "send a CloudTrail log file as AWS delivers it"


def open_document(chunks: Iterator[Chunk]) -> tuple[Iterator[bytes] | None, Iterator[Chunk]]:
    """The records of a log file as it is written, or None and the chunks again when this is none."""
    start = b""
    for chunk in chunks:
        start += chunk or b""
        if len(start) >= _OPENING_BYTES:
            break
    opening = _OPENING.match(start)
    if opening is None:
        return None, _again(start, chunks)
    return _split(_Source(start[opening.end() :], chunks)), chunks


def _again(start: bytes, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    yield start
    yield from chunks


def _split(source: _Source) -> Iterator[bytes]:
    """The objects of the array that the source stands in, each as it is written. Raises `RejectedError`."""
    while source.peek() != b"]":
        yield source.take_object()
        if source.peek() == b",":
            source.skip()
            if source.peek() == b"]":
                raise RejectedError("there is no record behind the last comma", cure=_CURE)
        elif source.peek() != b"]":
            raise RejectedError("the records are not divided by commas", cure=_CURE)
    source.skip()
    if source.peek() != b"}":
        raise RejectedError("something follows the records", cure=_CURE)
    source.skip()
    if source.rest():
        raise RejectedError("something follows the document", cure=_CURE)


class _Source:
    """Bytes that are fetched when they are needed."""

    def __init__(self, data: bytes, chunks: Iterator[Chunk]) -> None:
        self._data = data
        self._chunks: Final = chunks

    def peek(self) -> bytes:
        """The next byte that is no white space."""
        while not (data := self._data.lstrip()):
            self._fetch()
        self._data = data
        return data[:1]

    def skip(self) -> None:
        """Go past one byte."""
        self._data = self._data[1:]

    def take_object(self) -> bytes:
        """The object that begins here."""
        if self.peek() != b"{":
            raise RejectedError("not an object", cure=_CURE)
        while (end := _object_end(self._data)) is None:
            if len(self._data) > INPUT_BYTES_MAX:
                raise too_long("record")
            self._fetch()
        taken, self._data = self._data[:end], self._data[end:]
        if end > INPUT_BYTES_MAX:
            raise too_long("record")
        return taken

    def rest(self) -> bool:
        """Whether anything but white space is left."""
        return bool(self._data.strip()) or any(chunk.strip() for chunk in self._chunks if chunk)

    def _fetch(self) -> None:
        chunk = next((chunk for chunk in self._chunks if chunk), None)
        if chunk is None:
            raise RejectedError("the document ends early", cure="fetch the file again")
        self._data += chunk


def _object_end(data: bytes) -> int | None:
    """Where the object at the beginning ends; None when it does not."""
    depth = at = 0
    while at < len(data):
        token = _TOKEN.match(data, at)
        if token is None:
            return None  # within a string
        at = token.end()
        if token[0] in (b"{", b"["):
            depth += 1
        elif token[0] in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return at
    return None
