"""The system ledger of a deployment: what it says of keys and tenants is obeyed, so it is verified when it is opened.

Its files may be damaged or replaced while it is open. It is opened again then, and verified again; as long as it does
not verify, everything that needs it is refused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tallystick.errors import DamagedError, ReplacedError, TallystickError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.ledger import Ledger
from tallystick.queueing import Pulse
from tallystick.store.contradiction import HaltedError

_RETRY_SECONDS: Final = 1.0
_REST: Final = 10.0
"""How many times longer than the last attempt took it is not tried again: a verification takes time."""

_log: Final = logging.getLogger("tallystick.deployment")


class SystemLedger:
    """The open system ledger. Safe for many threads."""

    def __init__(self, open_one: Callable[[], Ledger], folder: Path) -> None:
        """Open and verify it. Raises as `checked` does."""
        self._open_one: Final = open_one
        self._folder: Final = folder
        self._turn: Final = threading.Lock()
        self._opened: Ledger | None = checked(open_one(), folder)
        self._refusal: TamperError | DamagedError | None = None
        self._retry_at = 0.0
        self._untold: list[ReplacedError] = []
        self._seen: str = ""

    def current(self) -> Ledger:
        """The ledger, opened again if its files were damaged or replaced.

        Raises `TamperError` or `DamagedError` as long as it does not verify.
        """
        ledger = self._opened
        if ledger is not None:
            return ledger
        with self._turn:
            if self._opened is not None:
                return self._opened
            if self._refusal is not None and time.monotonic() < self._retry_at:
                raise type(self._refusal)(str(self._refusal))
            began = time.monotonic()
            try:
                self._opened = checked(self._open_one(), self._folder)
            except (TamperError, DamagedError) as error:
                kind = TamperError if isinstance(error, TamperError) else DamagedError
                self._refusal, now = kind(str(error)), time.monotonic()
                self._retry_at = now + max(_RETRY_SECONDS, (now - began) * _REST)
                _log.error("the system ledger is damaged, and nothing that needs it is done: %s", error)
                raise
            self._refusal = None
            if self._seen:
                self._untold.append(ReplacedError(f"{self._seen}; it was opened again, and verifies"))
            return self._opened

    @contextmanager
    def used(self) -> Iterator[Ledger]:
        """The ledger, for a while. If it turns out to be damaged, the next one who asks opens it again."""
        ledger = self.current()
        try:
            yield ledger
        except (TamperError, DamagedError) as error:
            if ledger.mark_problem is None or ledger.mark_problem.kind == "unreadable":
                self._discard(ledger, error)
            raise

    def look(self) -> list[TallystickError]:
        """Look whether its files are there still, and open it again if not; what was found and not yet told.

        Not told at once, as to tell it takes this very ledger.
        """
        told: list[TallystickError] = []
        try:
            with self.used() as ledger:
                if not ledger.look(now=True):
                    self._discard(ledger, None)
                elif ledger.mark_problem is not None:
                    raise HaltedError(ledger.mark_problem)
        except HaltedError as error:
            if error.problem.kind != "unreadable":  # else it is opened again
                told.append(error)
        except TallystickError as error:
            _log.warning("the system ledger could not be used: %s", error)
        try:
            self.current()
        except TallystickError:
            return []  # it was logged, and readiness says so
        while self._untold:
            told.append(self._untold.pop())
        return told

    def pulses(self) -> list[Pulse]:
        """How it stands, if it can be asked; if not, readiness says so."""
        try:
            with self.used() as ledger:
                return [ledger.pulse()]
        except TallystickError:
            return []

    def close(self) -> None:
        """Close it. Calling it twice does no harm."""
        ledger = self._opened
        if ledger is not None:
            ledger.close()

    def _discard(self, ledger: Ledger, error: TallystickError | None) -> None:
        """Close it, so that the next one who asks opens it again; unless somebody else did."""
        with self._turn:
            if self._opened is not ledger:
                return
            self._opened, self._seen = None, "" if error is None else str(error)
        _log.error("the system ledger is opened again: %s", error or "its index was rebuilt")
        try:
            ledger.close()
        except Exception:  # noqa: BLE001 - it is told, and nobody can do anything about it
            _log.exception("the system ledger was not closed as it should")


def checked(system: Ledger, folder: Path) -> Ledger:
    """Verify all of the system ledger, and give it back. `TamperError` when it does not hold; it is closed then.

    A time that has not come yet is reported, and is no reason to stay down: a clock was put back.
    """
    findings = system.verify(processes=1, index=False).findings
    for found in findings:
        _log.error("the system ledger does not verify: %s at %s: %s", found.kind, found.place, found.seen)
    wrong = [found for found in findings if found.kind is not Kind.TIME]
    if wrong:
        system.close()
        raise TamperError(
            f"the system ledger does not verify, and what it says of keys and tenants is not obeyed: {wrong[0].seen} "
            f"({wrong[0].place}; {len(wrong)} findings). Run tallystick verify -l {folder}; restore it from a backup"
        )
    return system
