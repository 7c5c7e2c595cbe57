"""Scanning in several processes: Python programs of their own, fed over pipes.

Not `multiprocessing`: its fresh processes import the caller's main module, which for a script without a
guard means running it again. Secrets travel over the pipe, never on a command line.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Final

from tallystick.config import Location
from tallystick.errors import StoreError
from tallystick.evidence.findings import Finding
from tallystick.evidence.verification.index import INDEX, IndexStep, index_steps
from tallystick.evidence.verification.scan import Scan, Task, Terms, scan
from tallystick.read.index import Progress
from tallystick.store.contract import Store

_BOOT: Final = (
    "import pickle,sys; sys.path[:]=pickle.load(sys.stdin.buffer);"
    "from tallystick.evidence.verification.workers import serve; serve()"
)
_AHEAD: Final = 2
"""Tasks handed to each process before the first result is taken; bounds what waits in memory."""


def scan_in_processes(location: Location, tasks: Sequence[Task], terms: Terms, *, processes: int) -> Iterator[Scan]:
    """Scan the tasks, task n in process n modulo `processes`, and give the results in order."""
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(location, terms)) for _ in range(processes)]
        # One thread a process: it only waits, while the process works.
        lanes = [stack.enter_context(ThreadPoolExecutor(1, "tallystick-scan")) for _ in workers]
        ahead = _AHEAD * processes
        pending = deque(
            lanes[n % processes].submit(workers[n % processes].scan, task) for n, task in enumerate(tasks[:ahead])
        )
        for number in range(len(tasks)):
            result = pending.popleft().result()
            following = number + ahead
            if following < len(tasks):
                lane = following % processes
                pending.append(lanes[lane].submit(workers[lane].scan, tasks[following]))
            yield result


def compare_index(
    location: Location, store: Store, *, apart: bool, progress: Progress | None
) -> tuple[int | None, tuple[Finding, ...]]:
    """Compare the index of a ledger with its log, if it has one: up to which position, and what was found."""
    head = store.head()
    size, step = head.size if head else 0, IndexStep(0, ())
    for step in _index_in_process(location) if apart else index_steps(location, store):
        if progress and step.position:
            progress(size + min(step.position, size), 2 * size)
    if progress:
        progress(2 * size, 2 * size)
    return step.position or None, step.faults or ()


def _index_in_process(location: Location) -> Iterator[IndexStep]:
    """As `index_steps`, by another process, which waits for the caller after every step."""
    with _Worker(location, None) as worker:
        while True:
            step = worker.ask(INDEX)
            assert isinstance(step, IndexStep), "what serve() answers"
            yield step
            if step.faults is not None:
                return


class _Worker:
    """One process, its pipes, and the questions put to it one at a time."""

    def __init__(self, location: Location, terms: Terms | None) -> None:
        self._process: Final = subprocess.Popen(
            [sys.executable, "-c", _BOOT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._send(sys.path)
        self._send((location, terms))

    def scan(self, task: Task) -> Scan:
        result = self.ask(task)
        assert isinstance(result, Scan), "what serve() answers"
        return result

    def ask(self, task: Task | str) -> object:
        self._send(task)
        assert self._process.stdout is not None, "opened with a pipe"
        try:
            result = pickle.load(self._process.stdout)  # our own process
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise StoreError("a scanning process ended early: run the verification again") from error
        if isinstance(result, BaseException):
            raise result
        return result

    def _send(self, value: object) -> None:
        assert self._process.stdin is not None, "opened with a pipe"
        try:
            pickle.dump(value, self._process.stdin)
            self._process.stdin.flush()
        except OSError as error:
            raise StoreError("a scanning process could not be started: run the verification with one") from error

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        # Killing is fine: a scan writes nothing.
        self._process.kill()
        self._process.communicate()


def serve() -> None:
    """The other end: answer tasks from standard input until it ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    location, terms = pickle.load(source)  # our own parent
    store = location.open_store(readonly=True)
    steps = index_steps(location, store)
    while True:
        try:
            task = pickle.load(source)
        except EOFError:
            return
        try:
            answer: Scan | IndexStep | BaseException = next(steps) if task == INDEX else scan(store, task, terms)
        except Exception as error:  # noqa: BLE001  it is raised again in the parent
            answer = error
        pickle.dump(answer, sink)
        sink.flush()
