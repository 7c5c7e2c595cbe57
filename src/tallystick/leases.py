"""Leases: ledgers that are open because somebody uses them, or did a while ago; never more than a bound at once.

Opening and closing take time, and nobody waits for that but who wants the very ledger: the lock is held only to look
and to note down.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tallystick.errors import BusyError, DamagedError, DamagedIndexError, TallystickError, TamperError
from tallystick.ledger import Ledger
from tallystick.queueing import Pulse
from tallystick.store.contradiction import HaltedError, MarkProblem

_DRAIN_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.5
_log: Final = logging.getLogger("tallystick.deployment")


class Ledgers:
    """Open ledgers by name, the least lately used first. Safe for many threads."""

    def __init__(self, open_one: Callable[[str], Ledger], *, open_max: int, idle_seconds: float) -> None:
        self._open_one: Final = open_one
        self._open_max: Final = open_max
        self._idle_seconds: Final = idle_seconds
        self._known: Final[OrderedDict[str, _Open]] = OrderedDict()
        self._closing: Final[dict[str, threading.Event]] = {}
        """Those that are being closed: whoever wants one waits, as no ledger is open twice."""
        self._turn: Final = threading.Lock()
        self._halted: Final[dict[str, MarkProblem]] = {}
        self.on_damage: Callable[[str, TallystickError], None] = _log_damage
        """Called with a ledger's name and what was found to be wrong with it, in the thread that uses it."""
        self.keeps_idle: Callable[[], bool] = lambda: False
        """Whether idle ledgers stay open: on a full disk none can be opened, and those that are open can be read."""

    def __len__(self) -> int:
        return len(self._known)

    @contextmanager
    def lease(self, name: str, *, at_once: bool = False) -> Iterator[Ledger]:
        """A ledger, as by `take`, that is given back. One that turns out to be damaged is reported, and closed.

        One whose index was damaged or replaced is opened again first, which rebuilds that.
        """
        ledger = self._take_sound(name, at_once=at_once)
        try:
            yield ledger
        except (TamperError, DamagedError) as error:
            self._found(name, ledger, error)
            raise
        finally:
            self.give_back(name, ledger)

    def look(self) -> None:
        """Look whether the files of all that are open are there still, also of those that nobody uses. What is found is
        reported, and the ledger is closed."""
        for name, ledger in self._hold_opened():
            try:
                self._look(name, ledger)
            finally:
                self.give_back(name, ledger, was_used=False)

    def _look(self, name: str, ledger: Ledger) -> None:
        try:
            if not ledger.look(now=True):
                self.discard(name, ledger)
            problem = ledger.mark_problem
            if problem is not None and name not in self._halted:
                self._found(name, ledger, HaltedError(problem))
        except (TamperError, DamagedError) as error:
            self._found(name, ledger, error)
        except TallystickError as error:  # it was closed meanwhile, or the disk does not answer
            _log.warning("%s could not be looked at: %s", name, error)

    def _take_sound(self, name: str, *, at_once: bool) -> Ledger:
        """As `take`; with an index that is still there, as far as a look at it tells."""
        try:
            ledger = self.take(name, at_once=at_once)
        except (TamperError, DamagedError) as error:
            self.on_damage(name, error)
            raise
        try:
            if ledger.look():
                return ledger
            self.discard(name, ledger)
        except DamagedIndexError as error:
            self._found(name, ledger, error)
        except DamagedError as error:
            self._found(name, ledger, error)
            self.give_back(name, ledger)
            raise
        except TallystickError:
            return ledger  # it was closed meanwhile, which its use says
        self.give_back(name, ledger)
        return self.take(name, at_once=at_once)

    def _found(self, name: str, ledger: Ledger, error: TamperError | DamagedError) -> None:
        """It is damaged: close it, so that the next caller opens it again, and report it."""
        problem = ledger.mark_problem
        if problem is None or problem.kind == "unreadable":
            # What it has in memory is of files that are not there any more, or are not what they were.
            self.discard(name, ledger)
        # One that is halted stays open: it can be read and verified, and opened again it would be halted again.
        self.on_damage(name, error if problem is None else HaltedError(problem))

    def halt(self, name: str, problem: MarkProblem) -> None:
        """Have nothing added to a ledger any more, as it is not the newest, or another one, until `release`."""
        self._halted[name] = problem
        ledger = self.opened(name)
        if ledger is not None:
            ledger.halt(problem)

    def release(self, name: str) -> None:
        """Let a ledger go on that was halted: it was verified, and nothing was found."""
        self._halted.pop(name, None)
        ledger = self.opened(name)
        if ledger is not None and ledger.mark_problem is not None:
            self.discard(name, ledger)  # opened again it is compared with its head mark as that is now

    def take(self, name: str, *, at_once: bool = False) -> Ledger:
        """A ledger, opened if it is not, that stays open until it is given back. Raises `BusyError`.

        `at_once` it is only taken if it is open already, also with `BusyError`.
        """
        while True:
            with self._turn:
                closing = self._closing.get(name)
                found = self._known.get(name)
                if at_once and (found is None or found.ledger is None):
                    raise BusyError(f"{name} is not open")
                is_ours, victim = found is None and closing is None, None
                if is_ours:
                    victim = self._victim()
                    found = self._known[name] = _Open()
                if found is not None:
                    found.users += 1
                    self._known.move_to_end(name)
            if found is None:
                assert closing is not None, "else it would be ours"
                closing.wait()
                continue
            if is_ours:
                self._open(name, found, victim)
            found.opened.wait()
            if found.ledger is not None:
                return found.ledger
            # Whoever opened it could not, and was told why; we try by ourselves.

    def give_back(self, name: str, ledger: Ledger, *, was_used: bool = True) -> None:
        """It is not used any more by whoever took it."""
        with self._turn:
            found = self._known.get(name)
            if found is not None and found.ledger is ledger:  # else it was closed meanwhile, and maybe opened again
                found.users -= 1
                if was_used:
                    found.used_at = time.monotonic()

    def pulses(self) -> list[Pulse]:
        """How those stand that are open."""
        opened = self._hold_opened()
        try:
            return [pulse for pulse in map(_pulse, opened) if pulse is not None]
        finally:
            for name, ledger in opened:
                self.give_back(name, ledger, was_used=False)

    def _hold_opened(self) -> list[tuple[str, Ledger]]:
        """Those that are open, each to be given back."""
        with self._turn:
            opened = [(name, one.ledger) for name, one in self._known.items() if one.ledger is not None]
            for name, _ in opened:
                self._known[name].users += 1
        return opened

    def discard(self, name: str, ledger: Ledger) -> None:
        """Close a ledger that is damaged, also while others use it, so that the next caller opens it again.

        Does nothing when it is not the one that is open: another caller was first.
        """
        with self._turn:
            found = self._known.get(name)
            victim = self._pop(name) if found is not None and found.ledger is ledger else None
        if victim is not None:
            self._close(*victim)

    def opened(self, name: str) -> Ledger | None:
        """A ledger, if it is open now."""
        with self._turn:
            found = self._known.get(name)
            return None if found is None else found.ledger

    def tidy(self) -> None:
        """Close what nobody has used for a while."""
        if self.keeps_idle():
            return
        with self._turn:
            before = time.monotonic() - self._idle_seconds
            idle = [name for name, one in self._known.items() if one.is_free and one.used_at < before]
            victims = [self._pop(name) for name in idle]
        for name, ledger in victims:
            self._close(name, ledger)

    def close(self) -> None:
        """Close all, also those that are in use."""
        with self._turn:
            victims = [self._pop(name) for name in [*self._known] if self._known[name].ledger is not None]
        for name, ledger in victims:
            self._close(name, ledger)

    def _open(self, name: str, found: _Open, victim: tuple[str, Ledger] | None) -> None:
        """Open it, after what has to make room for it was closed."""
        try:
            if victim is not None:
                self._close(*victim)
            ledger = self._open_one(name)
            if name in self._halted:
                ledger.halt(self._halted[name])
            elif ledger.mark_problem is not None:
                self.on_damage(name, HaltedError(ledger.mark_problem))
            found.ledger = ledger
        except BaseException:
            with self._turn:
                self._known.pop(name, None)
            raise
        finally:
            found.opened.set()

    def _victim(self) -> tuple[str, Ledger] | None:
        """Which one makes room, if none is left. Raises `BusyError`."""
        if len(self._known) + len(self._closing) < self._open_max:
            return None
        for name, one in self._known.items():
            if one.is_free:
                return self._pop(name)
        raise BusyError(f"{self._open_max} ledgers are in use, and no more are opened: wait a moment, then repeat")

    def _pop(self, name: str) -> tuple[str, Ledger]:
        ledger = self._known.pop(name).ledger
        assert ledger is not None, "only what is open is closed"
        self._closing[name] = threading.Event()
        return name, ledger

    def _close(self, name: str, ledger: Ledger) -> None:
        """Close it. What went wrong is told in the diagnostics: whoever needs the room can do nothing about it."""
        try:
            ledger.close()
        except Exception:  # noqa: BLE001 - it is told, and nobody can do anything about it
            _log.exception("%s was not closed as it should", name)
        finally:
            with self._turn:
                self._closing.pop(name).set()


def _log_damage(name: str, error: TallystickError) -> None:
    _log.error("%s is damaged: %s", name, error)


def _pulse(opened: tuple[str, Ledger]) -> Pulse | None:
    """How a ledger stands; None when it cannot be asked, which its next use reports."""
    name, ledger = opened
    try:
        return ledger.pulse()
    except TallystickError as error:
        _log.warning("%s cannot say how it stands: %s", name, error)
        return None


class _Open:
    __slots__ = ("ledger", "opened", "used_at", "users")

    def __init__(self) -> None:
        self.ledger: Ledger | None = None
        self.opened = threading.Event()
        self.users = 0
        self.used_at = time.monotonic()

    @property
    def is_free(self) -> bool:
        return not self.users and self.ledger is not None


def drain(ledger: Ledger, stopped: Callable[[], bool]) -> None:
    """Wait until the queue of a ledger is empty, for so long at most. Raises as its `drain` does."""
    until = time.monotonic() + _DRAIN_SECONDS
    while True:
        try:
            ledger.queue.drain(seconds=_LOOK_SECONDS)
        except BusyError:
            if stopped() or time.monotonic() > until:
                raise
        else:
            return
