"""The runs of one ledger together: looked into, added to, merged; each page proven before it is believed.

One thread looks, another adds: what is looked into is a tuple that adding replaces. Of several processes each finds
what the others did by the manifest, which is compared and swapped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from tallystick.errors import BusyError, ConflictError, TamperError
from tallystick.ids import random_bytes
from tallystick.write import runs as form
from tallystick.write.runs import Filter, Manifest, Run

PAGES_CACHED: Final = 1_024
"""Proven pages that are kept, some 3 KiB each."""

_PAGES_AT_ONCE: Final = 64
_ATTEMPTS_MAX: Final = 100


class RunFile(Protocol):
    """Where runs rest: bytes, of which nothing is believed. Every method raises `TamperError` for a damaged file."""

    def manifest(self) -> bytes | None:
        """The manifest; None when there is none yet."""

    def pages(self, run: int, first: int, end: int) -> list[bytes | None]:
        """The pages of a run numbered [first, end); None for those that are not there."""

    def replace(
        self,
        expected: bytes | None,
        manifest: Callable[[], bytes],
        *,
        pages: Iterable[tuple[int, int, bytes]],
        kept: Sequence[int],
    ) -> bool:
        """Put pages, as (run, number, bytes), and then a manifest in force, and remove all runs but those `kept`.

        `manifest` is asked when all pages are written. All or nothing. False, and nothing done, when the present
        manifest is not the expected one.
        """

    def discard(self) -> None:
        """Remove all there is; what comes next begins with nothing."""

    def close(self) -> None:
        """Let go of the file. What is asked later opens it again."""


class RunSet:
    """All runs in `file`, under `key`. See `tallystick.write.runs` for their form."""

    def __init__(
        self, file: RunFile, *, key: bytes, ledger_id: bytes, check: Callable[[Manifest], None] = lambda _: None
    ) -> None:
        """`check` raises for a manifest that another process wrote and that is not of this log: our key is on those of
        a history that was lost, too. It is called by whoever looks into the runs, before it does."""
        self._file: Final = file
        self._check: Final = check
        self._key: Final = key
        self._ledger_id: Final = ledger_id
        self._adding: Final = threading.Lock()
        """Held by whoever changes the manifest in this process."""
        self._read: tuple[bytes | None, Manifest] = (None, Manifest.empty(ledger_id, pruned_below=0, generation=b""))
        """The manifest, as it rests and as it reads: one assignment, so that whoever looks sees both of one time."""
        self._checked: bytes | None = None
        """The manifest that was written here, or was checked, as it rests."""
        self._filters: dict[bytes, Filter] = {}
        """By the nonce of their run: numbers begin again when the file is rebuilt."""
        self._pages: dict[tuple[bytes, int], bytes] = {}
        self._looked_into: tuple[tuple[Run, ...], list[tuple[Run, Filter]]] = ((), [])

    @property
    def manifest(self) -> Manifest:
        """What the runs cover, as last read or written here."""
        return self._read[1]

    def look(self) -> Manifest:
        """Read the manifest again, as other processes may have replaced it. `TamperError` for one that is not ours."""
        data = self._file.manifest()
        if data != self._read[0]:
            empty = Manifest.empty(self._ledger_id, pruned_below=0, generation=b"")
            manifest = empty if data is None else self._parse(data)
            self._read = (data, manifest)
        return self.manifest

    def trust(self) -> None:
        """What was looked at last is of this log, as the caller has found."""
        self._checked = self._read[0]

    def find(self, keys: Collection[bytes], *, covering: int, generation: bytes) -> dict[bytes, list[bytes]]:
        """All entries of these keys, by key; those that have none are left out.

        `TamperError` when a page that must be there is not, or was altered; `ConflictError` when the runs do not cover
        the records below `covering` any more, or are of another generation, so that what they say or lack says nothing.
        """
        manifest = self._checked_manifest()
        while True:
            if manifest.size < covering or manifest.generation != generation:
                raise ConflictError(f"sealing.db covers {manifest.size} records, and covered {covering} before")
            try:
                found: dict[bytes, list[bytes]] = {}
                for run, key in form.keys_that_pass(keys, self._filters_of(manifest.runs)):
                    entries = self._find_in(run, key)
                    if entries:
                        found.setdefault(key, []).extend(entries)
                return found
            except TamperError:
                # Runs that were merged meanwhile, here or by another process, are gone; then look into what is now.
                now = self.look()
                if now.runs == manifest.runs:
                    raise
                manifest = self._checked_manifest()

    def add(self, first: int, cover: Manifest, entries: list[bytes]) -> None:
        """Add what the records from `first` to the size in `cover` say, as sorted entries. Does nothing when another
        process did it. `ConflictError` when the runs do not reach up to `first` any more, or are another process' that
        nobody has checked here: nothing is added to those, as our key would then stand for them."""
        with self._adding:
            for _ in range(_ATTEMPTS_MAX):
                now = self.manifest
                if now.generation == cover.generation and now.size >= cover.size:
                    return
                if now.generation != cover.generation or now.size < first or self._checked != self._read[0]:
                    raise ConflictError("another process writes sealing.db, too")
                cover = msgspec.structs.replace(cover, next_run=now.next_run, runs=now.runs)
                if self._put(cover, len(entries), form.pages_of(entries, form.bits_for(len(entries))), now.runs):
                    self._merge()
                    return
                self.look()
        raise BusyError(f"other processes were first {_ATTEMPTS_MAX} times: wait a moment, then repeat")

    def check(self) -> Manifest:
        """Read all pages there are, and whether each is the one that was written. `TamperError` for the first that is
        not."""
        manifest = self.look()
        for run in manifest.runs:
            self._read_filter(run)
            count = sum(len(content) for content in self._contents(run)) // form.ENTRY_BYTES
            if count != run.count:
                raise TamperError(f"run {run.number} has {count} entries, and was made with {run.count}")
        return manifest

    def begin(self, cover: Manifest, *, discards: bool = True) -> None:
        """Begin with no runs at all. What is there is discarded, unless there is nothing: then another process may be
        about to begin as well, and of the two the first to write is the one that counts."""
        with self._adding:
            if discards:
                self._file.discard()
            self._filters, self._pages, self._looked_into = {}, {}, ((), [])
            self._read = (None, cover)
            self._checked = None

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _checked_manifest(self) -> Manifest:
        data, manifest = self._read
        if data != self._checked:
            self._check(manifest)
            self._checked = data
        return manifest

    def _parse(self, data: bytes) -> Manifest:
        manifest = form.parse_manifest(self._key, data)
        if manifest.ledger_id != self._ledger_id:
            raise TamperError("sealing.db is another ledger's")
        return manifest

    def _find_in(self, run: Run, key: bytes) -> list[bytes]:
        number = form.page_number(key, run.bits)
        content = self._pages.get((run.nonce, number))
        if content is None:
            [data] = self._file.pages(run.number, number, number + 1)
            content = form.open_page(self._key, run, number, data)
            if len(self._pages) >= PAGES_CACHED:
                self._pages.pop(next(iter(self._pages)))
            self._pages[run.nonce, number] = content
        return form.found_in(content, key)

    def _filters_of(self, runs: tuple[Run, ...]) -> list[tuple[Run, Filter]]:
        """The runs with their filters, which are read once, and then in memory."""
        known, found = self._looked_into
        if known is not runs:
            filters = {run.nonce: self._filters.get(run.nonce) or self._read_filter(run) for run in runs}
            found = [(run, filters[run.nonce]) for run in runs]
            self._filters = filters
            self._looked_into = (runs, found)
        return found

    def _read_filter(self, run: Run) -> Filter:
        first = 1 << run.bits
        numbers = range(first, first + run.filter_parts)
        parts = zip(numbers, self._file.pages(run.number, first, first + run.filter_parts), strict=True)
        return Filter.of(form.open_page(self._key, run, number, data) for number, data in parts)

    def _put(self, cover: Manifest, count: int, contents: Iterable[bytes], kept: Sequence[Run]) -> bool:
        """Write one run of at most `count` entries, whose pages are `contents`, beside those kept; `cover` is in force
        then, with these runs. False, and nothing done, when another process has replaced the manifest."""
        if not count:
            return self._publish(lambda: cover, (), kept=[run.number for run in kept])
        run = Run(cover.next_run, random_bytes(form.NONCE_BYTES), form.bits_for(count), 0, 0)
        made = Filter(count)
        counted = 0

        def pages() -> Iterator[tuple[int, int, bytes]]:
            nonlocal counted
            number = -1
            for number, content in enumerate(contents):
                counted += len(content) // form.ENTRY_BYTES
                made.add(form.split(content))
                yield run.number, number, form.seal_page(self._key, run, number, content)
            for part in made.parts():
                number += 1
                yield run.number, number, form.seal_page(self._key, run, number, part)

        def manifest() -> Manifest:
            whole = msgspec.structs.replace(run, count=counted, filter_parts=len(made.parts()))
            return msgspec.structs.replace(cover, next_run=run.number + 1, runs=(*kept, whole))

        if not self._publish(manifest, pages(), kept=[*(one.number for one in kept), run.number]):
            return False
        self._filters[run.nonce] = made
        return True

    def _publish(
        self, manifest: Callable[[], Manifest], pages: Iterable[tuple[int, int, bytes]], *, kept: Sequence[int]
    ) -> bool:
        published: list[tuple[bytes, Manifest]] = []

        def render() -> bytes:
            made = manifest()
            published.append((form.render_manifest(self._key, made), made))
            return published[0][0]

        if not self._file.replace(self._read[0], render, pages=pages, kept=kept):
            return False
        self._read = published[0]
        self._checked = published[0][0]
        return True

    def _merge(self) -> None:
        """Make one run of many small ones. When another process was first, it does it."""
        while True:
            manifest = self.manifest
            classes = [run.size_class for run in manifest.runs]
            due = [each for each in {*classes} if classes.count(each) >= form.MERGED_AT_ONCE]
            if not due:
                return
            # All that is no larger goes along, so that the runs of a ledger stay few.
            chosen = [run for run in manifest.runs if run.size_class <= max(due)]
            kept = [run for run in manifest.runs if run.size_class > max(due)]
            count = sum(run.count for run in chosen)
            if not self._put(manifest, count, self._merged(chosen, form.bits_for(count)), kept):
                self.look()
                return

    def _merged(self, chosen: Sequence[Run], bits: int) -> Iterator[bytes]:
        """The pages of the runs merged: each input page is read, and proven, once."""
        sources = [self._contents(run) for run in chosen]
        waiting: list[list[bytes]] = [[] for _ in chosen]
        done = [0] * len(chosen)
        for number in range(1 << bits):
            end = (number + 1) << (32 - bits)
            entries: list[bytes] = []
            for index, run in enumerate(chosen):
                while done[index] < 1 << run.bits and done[index] << (32 - run.bits) < end:
                    waiting[index] += form.split(next(sources[index]))
                    done[index] += 1
                entries += form.take_below(waiting[index], end)
            yield b"".join(form.merged(entries))

    def _contents(self, run: Run) -> Iterator[bytes]:
        """All pages of a run, in order, proven."""
        for first in range(0, 1 << run.bits, _PAGES_AT_ONCE):
            end = min(first + _PAGES_AT_ONCE, 1 << run.bits)
            for number, data in zip(range(first, end), self._file.pages(run.number, first, end), strict=True):
                yield form.open_page(self._key, run, number, data)
