"""Bodies of requests: bounded in bytes and in time, unpacked, and split into events, before anything reads them."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, TypeAlias

import msgspec
import zstandard

from tallystick.errors import BusyError, RejectedError
from tallystick.limits import BATCH_EVENTS_MAX, BODIES_BYTES_MAX
from tallystick.serve.problems import AnsweredError

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

BODY_SECONDS: Final = 30.0
"""How long a body may take to arrive: a slow sender holds nothing but its own connection, and not for ever."""

_NDJSON: Final = ("application/x-ndjson", "application/ndjson", "application/jsonl")
_SLICE_BYTES: Final = 256
"""What is given to zstd at once: at worst it makes eight megabytes of them."""

_TOO_LATE: Final = "the body is late"
_WINDOW_BYTES_MAX: Final = 2**23
_SHOWN: Final = 60
_split_array: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


class LeftError(Exception):
    """The sender is gone: there is nobody to answer."""


async def read_body(receive: Receive, encoding: str, *, most: int) -> bytes:
    """The body, unpacked, of at most `most` bytes. Raises `RejectedError`, `AnsweredError` and `LeftError`."""
    if encoding not in ("identity", "", "gzip", "zstd"):
        raise AnsweredError(415, "The encoding is not known", f"{encoding[:_SHOWN]!r}: use gzip, zstd or none")
    reading = asyncio.current_task()
    assert reading is not None, "it is awaited"
    too_late = asyncio.get_running_loop().call_later(BODY_SECONDS, reading.cancel, _TOO_LATE)  # a timeout costs more
    try:
        data = await _receive_all(receive, most)
    except asyncio.CancelledError as error:
        if error.args != (_TOO_LATE,):
            raise
        reading.uncancel()
        detail = f"the body did not arrive within {BODY_SECONDS:g} s"
        raise AnsweredError(408, "The request did not come whole in time", detail) from None
    finally:
        too_late.cancel()
    if encoding == "gzip":
        return await asyncio.to_thread(_gunzip, data, most)
    return await asyncio.to_thread(_unzstd, data, most) if encoding == "zstd" else data


async def _receive_all(receive: Receive, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise LeftError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            _arriving.bytes += len(parts[-1])
            if size > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return parts[0] if len(parts) == 1 else b"".join(parts)
            if _arriving.bytes > BODIES_BYTES_MAX:
                raise BusyError("too much arrives at once: wait a moment, then send the same again")
    finally:
        _arriving.bytes -= size


class _Arriving:
    """How much of bodies that are not whole yet is in memory; of the event loop of this process."""

    bytes = 0


_arriving: Final = _Arriving()


def split(data: bytes, content_type: str) -> list[bytes]:
    """The events of a batch, each as it was written. Raises `RejectedError` and `AnsweredError`."""
    if content_type in _NDJSON:
        events = [line for line in data.split(b"\n") if line.strip()]
    elif content_type in ("application/json", ""):
        try:
            events = [bytes(event) for event in _split_array(data)]
        except (msgspec.DecodeError, RecursionError) as error:
            cure = "send an array of events, or NDJSON as application/x-ndjson"
            raise RejectedError(f"it is no JSON array: {error}", place="body", cure=cure) from None
    else:
        raise wrong_type(content_type, "application/json or application/x-ndjson")
    if not 0 < len(events) <= BATCH_EVENTS_MAX:
        cure = f"send 1 to {BATCH_EVENTS_MAX:,} at once"
        raise RejectedError(f"a batch of {len(events):,} events", place="body", cure=cure)
    return events


def wrong_type(content_type: str, known: str) -> AnsweredError:
    """The answer to a body of another type."""
    return AnsweredError(415, "The content type is not known", f"{content_type[:_SHOWN]!r}: send {known}")


def _gunzip(data: bytes, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise RejectedError(f"it is not gzip: {error}", place="body") from None
    if len(unpacked) > most:
        raise _too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise RejectedError("it ends within the gzip stream, or goes on behind it", place="body", cure="send one whole")
    return unpacked


def _unzstd(data: bytes, most: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj()
    parts, size = [], 0
    try:
        for start in range(0, len(data), _SLICE_BYTES):
            if unpacker.eof:
                raise RejectedError("it goes on behind the zstd frame", place="body", cure="send one frame")
            parts.append(unpacker.decompress(data[start : start + _SLICE_BYTES]))
            size += len(parts[-1])
            if size > most:
                raise _too_large(most)
    except zstandard.ZstdError as error:
        raise RejectedError(f"it is not zstd: {error}", place="body") from None
    if not unpacker.eof or unpacker.unused_data:
        raise RejectedError("it ends within the zstd frame, or goes on behind it", place="body", cure="send one whole")
    return b"".join(parts)


def _too_large(most: int) -> AnsweredError:
    return AnsweredError(413, "The body is too large", f"more than {most:,} bytes; send it in parts")
