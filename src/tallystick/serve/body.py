"""Bodies of requests: bounded in bytes and in time, unpacked, and split into events, before anything reads them.

What takes long for a large body is done by threads of its own: the event loop answers others meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import threading
import zlib
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import msgspec
import zstandard

from tallystick.errors import RejectedError
from tallystick.limits import BATCH_EVENTS_MAX, UNPACKED_AT_ONCE_BYTES
from tallystick.serve.budget import Hold
from tallystick.serve.problems import AnsweredError

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

BODY_SECONDS: Final = 30.0
"""How long a body may take to arrive: a slow sender holds nothing but its own connection, and not for ever."""

AT_HAND_BYTES: Final = 65_536
"""Bodies up to this are split in the event loop: at most a millisecond's work."""

_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_SLICE_BYTES: Final = 256
"""What is given to zstd at once: at worst it makes eight megabytes of them."""

_THREADS: Final = 2
"""Bodies that are unpacked or split at the same time."""

_TOO_LATE: Final = "the body is late"
_WINDOW_BYTES_MAX: Final = 2**23
_SHOWN: Final = 60
_PLAINLY_FEW: Final = 16 * BATCH_EVENTS_MAX
"""With no more commas, or ends of lines, than this a body is split at once: what that makes of it is small."""

_LINE: Final = re.compile(rb"\S[^\n]*")
_split_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_threads: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="tallystick-body")

_T = TypeVar("_T")


class LeftError(Exception):
    """The sender is gone: there is nobody to answer."""


async def read_body(receive: Receive, encoding: str, *, most: int, hold: Hold) -> bytes:
    """The body, unpacked, of at most `most` bytes, which `hold` has then.

    Raises `RejectedError`, `BusyError`, `AnsweredError` and `LeftError`.
    """
    if encoding not in ("identity", "", "gzip", "zstd"):
        raise AnsweredError(415, "The encoding is not known", f"{encoding[:_SHOWN]!r}: use gzip, zstd or none")
    reading = asyncio.current_task()
    assert reading is not None, "it is awaited"
    too_late = asyncio.get_running_loop().call_later(BODY_SECONDS, reading.cancel, _TOO_LATE)  # a timeout costs more
    try:
        data = await _receive_all(receive, most, hold)
    except asyncio.CancelledError as error:
        if error.args != (_TOO_LATE,):
            raise
        reading.uncancel()
        detail = f"the body did not arrive within {BODY_SECONDS:g} s"
        raise AnsweredError(408, "The request did not come whole in time", detail) from None
    finally:
        too_late.cancel()
    if encoding in ("identity", ""):
        return data
    unpack = _gunzip if encoding == "gzip" else _unzstd
    unpacked = await apart(lambda: _counted(unpack(data), most, hold))
    hold.give_back(len(data))
    return unpacked


async def apart(work: Callable[[], _T]) -> _T:
    """Do what takes long for a large body, in a thread for that.

    It is waited for to its end, also when the caller leaves: until then its bytes are in memory, and held.
    """
    doing = asyncio.get_running_loop().run_in_executor(_threads, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        with suppress(Exception):
            await doing
        raise
    finally:
        del doing  # an error leads to this frame, and from there to itself: what it leads to would stay for long


async def _receive_all(receive: Receive, most: int, hold: Hold) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise LeftError
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise _too_large(most)
        hold.take(len(part))
        parts.append(part)
        if not message.get("more_body"):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def split_body(data: bytes, content_type: str, *, hold: Hold) -> list[bytes]:
    """The events of a batch, each as it was written, which `hold` has beside the body. Raises as `split` does."""
    hold.take(len(data))  # the events are bytes of their own
    if len(data) <= AT_HAND_BYTES:
        return split(data, content_type)
    return await apart(lambda: split(data, content_type))


def split(data: bytes, content_type: str) -> list[bytes]:
    """The events of a batch, each as it was written. Raises `RejectedError` and `AnsweredError`.

    At one too many it stops: millions of tiny ones are never in memory.
    """
    if content_type in _NDJSON:
        events = _split_lines(data)
    elif content_type in ("application/json", ""):
        try:
            events = _split_elements(data)
        except (msgspec.DecodeError, RecursionError) as error:
            cure = "send an array of events, or NDJSON as application/x-ndjson"
            raise RejectedError(f"it is no JSON array of events: {error}", place="body", cure=cure) from None
    else:
        raise wrong_type(content_type, "application/json or application/x-ndjson")
    if not events:
        raise RejectedError("a batch without events", place="body", cure=f"send 1 to {BATCH_EVENTS_MAX:,} at once")
    if len(events) > BATCH_EVENTS_MAX:
        raise _too_many()
    return events


def _split_lines(data: bytes) -> list[bytes]:
    if data.count(b"\n") <= _PLAINLY_FEW:
        return [line for line in data.split(b"\n") if line.strip()]
    return [found.group() for found in islice(_LINE.finditer(data), BATCH_EVENTS_MAX + 1)]


def _split_elements(data: bytes) -> list[bytes]:
    if data.count(b",") > _PLAINLY_FEW:
        _check_count(data)
    return [bytes(event) for event in _split_array(data)]


class _Element(msgspec.Struct, gc=False):
    """An element of an array that is looked at, and not kept. With `_counting` held."""

    seen: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _Element.seen += 1
        if _Element.seen > BATCH_EVENTS_MAX:
            raise ValueError


_counting: Final = threading.Lock()
_look_at_all: Final = msgspec.json.Decoder(list[_Element]).decode


def _check_count(data: bytes) -> None:
    """Raises `RejectedError` at an element that is one too many, and a `DecodeError` at one that is no object."""
    with _counting:
        _Element.seen = 0
        try:
            _look_at_all(data)
        except msgspec.ValidationError:
            if _Element.seen > BATCH_EVENTS_MAX:
                raise _too_many() from None
            raise


def _too_many() -> RejectedError:
    cure = f"send 1 to {BATCH_EVENTS_MAX:,} at once"
    return RejectedError(f"a batch of more than {BATCH_EVENTS_MAX:,} events", place="body", cure=cure)


def wrong_type(content_type: str, known: str) -> AnsweredError:
    """The answer to a body of another type."""
    return AnsweredError(415, "The content type is not known", f"{content_type[:_SHOWN]!r}: send {known}")


def _counted(pieces: Iterator[bytes], most: int, hold: Hold) -> bytes:
    """What a body unpacks to, counted piece by piece."""
    parts: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > most:
                raise _too_large(most)
            hold.take(len(piece))
            parts.append(piece)
        return b"".join(parts)
    finally:
        parts.clear()  # an error leads here, and lives as long as its answer is on its way


def _gunzip(data: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(wbits=31)
    left = data
    try:
        while not unpacker.eof:
            piece = unpacker.decompress(left, UNPACKED_AT_ONCE_BYTES)
            left = unpacker.unconsumed_tail
            if not piece and not left:
                break
            yield piece
    except zlib.error as error:
        raise RejectedError(f"it is not gzip: {error}", place="body") from None
    if not unpacker.eof or unpacker.unused_data:
        raise RejectedError("it ends within the gzip stream, or goes on behind it", place="body", cure="send one whole")


def _unzstd(data: bytes) -> Iterator[bytes]:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj()
    try:
        for start in range(0, len(data), _SLICE_BYTES):
            if unpacker.eof:
                raise RejectedError("it goes on behind the zstd frame", place="body", cure="send one frame")
            yield unpacker.decompress(data[start : start + _SLICE_BYTES])
    except zstandard.ZstdError as error:
        raise RejectedError(f"it is not zstd: {error}", place="body") from None
    if not unpacker.eof or unpacker.unused_data:
        raise RejectedError("it ends within the zstd frame, or goes on behind it", place="body", cure="send one whole")


def _too_large(most: int) -> AnsweredError:
    return AnsweredError(413, "The body is too large", f"more than {most:,} bytes; send it in parts")
