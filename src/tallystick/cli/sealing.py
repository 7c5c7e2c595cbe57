"""Many events into a ledger: in batches, each bad one named by its place, and a summary at the end.

An item that cannot be taken stops the work with those before it sealed, or is reported and passed over; or
all are sealed as one, or none. An input that pauses has what it sent so far sealed at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import click

from tallystick.cli import failures
from tallystick.cli.options import Settings
from tallystick.cli.progress import Bar
from tallystick.cli.tally import Item, Tally, say_tally
from tallystick.errors import ConflictError, RejectedError
from tallystick.limits import BATCH_EVENTS_MAX

if TYPE_CHECKING:
    from tallystick import Ledger

BATCH_EVENTS: Final = 1_000
BATCH_BYTES: Final = 8_000_000
"""A batch is sealed at either: large events must not fill the memory."""

_EVENT_PLACE: Final = re.compile(r"event (\d+) ?(.*)", re.DOTALL)


class Mode(Enum):
    """What a bad event does to the others."""

    STOP = "stop"
    SKIP_BAD = "skip-bad"
    ATOMIC = "atomic"

    @classmethod
    def of(cls, *, atomic: bool, skip_bad: bool) -> Mode:
        """As given on the command line."""
        if atomic and skip_bad:
            raise click.UsageError("--atomic and --skip-bad contradict each other")
        return cls.ATOMIC if atomic else cls.SKIP_BAD if skip_bad else cls.STOP


class Sealer:
    """Seals items in batches and keeps the tally."""

    def __init__(self, ledger: Ledger, tally: Tally, *, skip: Callable[[Exception], None] | None) -> None:
        self._ledger: Final = ledger
        self._tally: Final = tally
        self._skip: Final = skip
        """What is told of a bad item; without it the first bad one ends the work."""

    def run(self, items: Iterable[Item | None]) -> None:
        """Seal all items; None among them marks a pause."""
        batch: list[Item] = []
        size = 0
        for item in items:
            if item is not None:
                self._tally.taken += 1
                self._tally.bytes += item.size
                if isinstance(item.event, RejectedError):
                    self._seal(batch)
                    batch, size = [], 0
                    self._refuse(item, item.event)
                    continue
                batch.append(item)
                size += item.size
            if batch and (item is None or len(batch) >= BATCH_EVENTS or size >= BATCH_BYTES):
                self._seal(batch)
                batch, size = [], 0
        self._seal(batch)

    def run_as_one(self, items: Iterable[Item | None]) -> None:
        """Seal all items as one commit, or none."""
        taken: list[Item] = []

        def events() -> Iterator[bytes | dict[str, Any]]:
            for item in items:
                if item is None:
                    continue
                self._tally.taken += 1
                self._tally.bytes += item.size
                taken[:] = (item._replace(event=b""),)  # only the place of the last: the ledger holds the rest
                if isinstance(item.event, RejectedError):
                    raise _placed(item.event, item, cure="none was sealed")
                yield item.event

        try:
            receipts = self._ledger.append_many(events())
        except RejectedError as error:
            if _EVENT_PLACE.fullmatch(error.place) and taken:
                raise _placed(error, taken[0], cure="none was sealed") from error
            if self._tally.taken > BATCH_EVENTS_MAX:
                raise RejectedError(
                    f"more than {BATCH_EVENTS_MAX:,} events cannot be sealed as one",
                    cure="leave --atomic out, or append them in parts; none was sealed",
                ) from error
            raise
        if receipts:
            self._tally.count(taken, receipts)

    def _seal(self, batch: list[Item]) -> None:
        while batch:
            try:
                receipts = self._ledger.append_many(_event(item) for item in batch)
            except RejectedError as error:
                match = _EVENT_PLACE.fullmatch(error.place)
                if match is None:
                    raise  # not about an event: the keys, for instance
                index = int(match[1])
                self._seal(batch[:index])
                self._refuse(batch[index], error)
                batch = batch[index + 1 :]
            except ConflictError:
                self._seal_singly(batch)
                return
            else:
                self._tally.count(batch, receipts)
                return

    def _seal_singly(self, batch: list[Item]) -> None:
        """The ledger does not say which event of several is in conflict: this finds it."""
        for item in batch:
            try:
                self._tally.count([item], self._ledger.append_many([_event(item)]))
            except ConflictError as error:
                self._refuse(item, error)

    def _refuse(self, item: Item, error: Exception) -> None:
        self._tally.bad += 1
        if self._skip is None:
            cure = f"nothing from there on was sealed: mend it, and go on from {item.unit} {item.number}"
            raise _placed(error, item, cure=cure) from error
        self._skip(_placed(error, item))


def seal_input(settings: Settings, items: Iterator[Item | None], mode: Mode, *, total: int | None) -> None:
    """Seal the items in the ledger and say what became of them. `total` is the input's bytes, if known."""

    def skip(error: Exception) -> None:
        failures.report(error, as_json=settings.json)

    with settings.open(readonly=False) as ledger, Bar("sealing", "bytes") as bar:
        tally = Tally()
        sealer = Sealer(ledger, tally, skip=skip if mode is Mode.SKIP_BAD else None)
        run = sealer.run_as_one if mode is Mode.ATOMIC else sealer.run
        done = False
        try:
            run(_watched(items, tally, bar=bar, total=total))
            done = True
        finally:
            bar.close()
            if done or tally.read or settings.json:
                say_tally(tally, ledger.size, as_json=settings.json)
    if tally.bad:
        raise click.exceptions.Exit(failures.WRONG_INPUT)


def _watched(items: Iterator[Item | None], tally: Tally, *, bar: Bar, total: int | None) -> Iterator[Item | None]:
    for item in items:
        yield item
        if tally.taken % 100 == 0:
            bar.update(tally.bytes, total)


def _event(item: Item) -> bytes | dict[str, Any]:
    assert not isinstance(item.event, RejectedError), "refused before"
    return item.event


def _placed(error: Exception, item: Item, *, cure: str = "") -> Exception:
    """The error with the item's place in the input in front."""
    if not isinstance(error, RejectedError):
        return type(error)(f"{item.place}: {error}{'; ' if cure else ''}{cure}")
    match = _EVENT_PLACE.fullmatch(error.place)
    pointer = match[2] if match else error.place
    # An item is one line here, and its number in the input is what helps.
    problem = error.problem.replace("not JSON at line 1, column", "not JSON at column")
    return RejectedError(
        problem,
        place=f"{item.place}, {pointer}" if pointer else item.place,
        cure="; ".join(filter(None, (error.cure, cure))),
    )
