"""Asking witnesses by the service: at its start, and every so often, for each of its ledgers.

A head mark is on the same machine, so an attacker who can put back everything there puts it back, too. A witness is
elsewhere: it has cosigned more than the ledger then has, and that is how it is noticed (docs/adr/0027).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tallystick.core.policy import Policy
from tallystick.deployment import Deployment
from tallystick.errors import RejectedError, StoreError, TallystickError, TamperError
from tallystick.evidence.findings import Kind
from tallystick.evidence.others.cosigning import ForkSeenError, RollbackSeenError
from tallystick.limits import POLICY_BYTES_MAX
from tallystick.serve.watch import Watch

_SECONDS: Final = 10.0
"""How long one witness is waited for; no request waits for it."""

_log: Final = logging.getLogger("tallystick.witness")


def read_policy(path: str) -> Policy:
    """A trust file with the URLs of witnesses. Raises `RejectedError`."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(POLICY_BYTES_MAX + 1)
    except OSError as error:
        raise RejectedError(f"cannot be read: {error.strerror or error}", place=path) from error
    return Policy.parse(data)


class Witnessing:
    """Asks in a thread of its own, once begun; what is found goes to the watch. Safe for many threads."""

    def __init__(
        self,
        deployment: Deployment,
        watch: Watch,
        *,
        policy: Policy,
        every_seconds: float,
        names: Callable[[], Iterable[str]],
    ) -> None:
        """`names` gives the ledgers of this process, by their own names."""
        self.unanswered: dict[str, str] = {}
        """Ledgers for which a witness did not answer, or not rightly, the last time; and why."""
        self._deployment: Final = deployment
        self._watch: Final = watch
        self._policy: Final = policy
        self._every_seconds: Final = every_seconds
        self._names: Final = names
        self._asked: Final[dict[str, int]] = {}
        """Ledger → the size for which witnesses were asked last."""
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Ask now, and then every so often."""
        self._thread = threading.Thread(target=self._run, name="tallystick-witnessing", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking, once the witness that is asked just now has answered, or not in its time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                for name in [*self._names()]:
                    if self._stop.is_set():
                        return
                    self._ask(name)
            except Exception:  # noqa: BLE001 - whatever it was, the next round is another one
                _log.exception("asking the witnesses was interrupted")
            if self._stop.wait(self._every_seconds):
                return

    def _ask(self, name: str) -> None:
        if name in self._asked and name != "system" and self._deployment.pool.opened(name) is None:
            return  # nobody has used it since, so there is nothing new to cosign
        try:
            with self._deployment.lease(name) as ledger:
                if self._asked.get(name) == ledger.size and name not in self.unanswered:
                    return
                size = ledger.size
                problems = ledger.cosign(self._policy, seconds=_SECONDS).problems
        except (StoreError, TamperError) as error:
            _log.warning("witnesses cannot be asked about %s: %s", name, error)
            return
        self._asked[name] = size
        self._take(name, problems.values())

    def _take(self, name: str, problems: Iterable[Exception]) -> None:
        why = ""
        for error in problems:
            if isinstance(error, RollbackSeenError | ForkSeenError):
                kind = Kind.ROLLBACK if isinstance(error, RollbackSeenError) else Kind.FORK
                self._watch.found(name, kind, str(error))
            elif isinstance(error, TallystickError):
                why = str(error)
        if why and self.unanswered.get(name) != why:
            _log.warning("%s: %s", name, why)
        if why:
            self.unanswered[name] = why
        else:
            self.unanswered.pop(name, None)
