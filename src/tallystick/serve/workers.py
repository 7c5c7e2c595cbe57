"""Several processes that answer at one address: begun, watched over, begun again, and ended together.

They are forks of one that has nothing open yet but the sockets, which it keeps: so what comes to one that has just
ended waits until it is there again. When that first one ends, in whatever way, so do they.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NoReturn

from tallystick.errors import StoreError, TallystickError
from tallystick.serve.peers import Peers

_BACKLOG: Final = 2_048
_QUICK_SECONDS: Final = 5.0
_QUICK_MAX: Final = 5
"""So many ends in a row of processes that lived no longer mean that it will not get better."""

_FAILED: Final = 3
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_log: Final = logging.getLogger("tallystick.workers")

Run = Callable[[Peers, socket.socket, Callable[[], None]], None]
"""Answers in one process, over its private socket too, until SIGTERM; the last is to be called once it listens."""


def serve_in_many(run: Run, count: int, *, ready: Callable[[], None]) -> None:
    """Have `count` processes answer, until SIGTERM or Ctrl-C. `ready` is called when all listen.

    Raises `StoreError` when they cannot even begin.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystick-")))  # for this user only
        paths = [str(folder / str(index)) for index in range(count)]
        private = []
        for path in paths:
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listening.bind(path)
            listening.listen(_BACKLOG)
            private.append(listening)
        crew = _Crew(run, paths, private)
        stack.callback(crew.close)
        crew.work(ready)


class _Crew:
    def __init__(self, run: Run, paths: list[str], private: list[socket.socket]) -> None:
        self._run: Final = run
        self._paths: Final = paths
        self._private: Final = private
        self._life: Final = os.pipe()
        """Nothing is ever written to it; its end of file tells the others that the first process has ended."""
        self._told: Final = os.pipe()
        """A byte from each process that listens."""
        self._living: Final[dict[int, tuple[int, float]]] = {}
        """Process → its index, and when it was begun."""
        self._stopping = False

    def work(self, ready: Callable[[], None]) -> None:
        before = {which: signal.signal(which, self._stop) for which in _SIGNALS}
        try:
            for index in range(len(self._paths)):
                self._begin(index)
            waiting = threading.Thread(target=self._wait_for_all, args=(ready,), daemon=True)
            waiting.start()
            self._watch()
        finally:
            for which, handler in before.items():
                signal.signal(which, handler)

    def close(self) -> None:
        for end in (*self._life, *self._told):
            with suppress(OSError):
                os.close(end)

    def _begin(self, index: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # else one of them could be the other's
        process = os.fork()
        if process:
            self._living[process] = (index, time.monotonic())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            if self._stopping:  # it was told to while this one was begun
                self._stop()
            return
        self._be(index)

    def _be(self, index: int) -> NoReturn:
        """The life of one of the processes."""
        code = _FAILED
        try:
            for which in _SIGNALS:
                signal.signal(which, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(self._life[1])
            threading.Thread(target=self._end_with_the_first, daemon=True).start()
            self._run(Peers(index, self._paths), self._private[index], self._tell)
            code = 0
        except TallystickError as error:
            _log.error("process %d cannot go on: %s", index, error)
        except BaseException:  # noqa: BLE001 - nothing of it may run on in what is a copy of the first process
            _log.exception("process %d failed", index)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _tell(self) -> None:
        os.write(self._told[1], b".")

    def _end_with_the_first(self) -> None:
        os.read(self._life[0], 1)
        os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self) -> None:
        """Wait for ends, and begin again what ended too early. Raises `StoreError` when that leads nowhere."""
        quick = 0
        while self._living:
            process, status = os.wait()
            index, begun = self._living.pop(process)
            if self._stopping:
                continue
            lived = time.monotonic() - begun
            quick = quick + 1 if lived < _QUICK_SECONDS else 0
            if quick >= _QUICK_MAX:
                self._stop()
                while self._living:
                    self._living.pop(os.wait()[0])
                raise StoreError("the processes of the service end as soon as they begin: its diagnostics say why")
            _log.error("process %d ended (%s) after %.0f s: it is begun again", index, _described(status), lived)
            self._begin(index)

    def _wait_for_all(self, ready: Callable[[], None]) -> None:
        count = 0
        while count < len(self._paths):
            try:
                count += len(os.read(self._told[0], 1))
            except OSError:
                return
        ready()

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for process in list(self._living):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)


def _described(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
