"""Work done by many threads that start as one."""

from __future__ import annotations

import threading
from collections.abc import Callable

PATIENCE_SECONDS = 60


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work(number)` in threads; raise the first failure here. Fails when one waits for ever."""
    barrier = threading.Barrier(count)
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            barrier.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - it is raised below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "a thread waits for ever"
