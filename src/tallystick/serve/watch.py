"""Watching over the ledgers of a deployment: each is verified anew every so often, slowly, beside the service.

A ledger is compared with the checkpoint of its last verification, which is kept in `verified.json` under a MAC by the
system ledger's keys, and with its head mark. A finding, also one made by a request, is an event of the system ledger, a
line of the diagnostics and a metric, and the service is degraded. A ledger that was rolled back or forked takes no
events any more: what would be added to it contradicts what others have seen (docs/adr/0027).
"""

from __future__ import annotations

import fcntl
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import orjson

from tallystick import durable
from tallystick.core import timestamp
from tallystick.deployment import Deployment
from tallystick.errors import (
    DamagedError,
    DamagedIndexError,
    ReplacedError,
    StoreError,
    TallystickError,
    TamperError,
)
from tallystick.evidence.findings import Finding, Kind, Report
from tallystick.ledger import Ledger
from tallystick.limits import VERIFIED_BYTES_MAX
from tallystick.plain_file import NotPlainError, open_lock, read_plain
from tallystick.read.index import Progress
from tallystick.serve import authentic
from tallystick.store.contradiction import HaltedError, MarkProblem

FILE_NAME: Final = "verified.json"
_REST: Final = 3.0
"""How much longer it rests than it worked: three quarters of a core are for others."""

_PAUSE_SECONDS_MAX: Final = 5.0
_LOOK_SECONDS: Final = 5.0
_TOLD_MAX: Final = 20
"""Findings of one ledger that its event names; a verification lists them all."""

_HALTING: Final = frozenset({"rollback", "fork"})
"""Kinds of findings with which a ledger takes no events."""

_HEALED: Final = (DamagedIndexError, ReplacedError)
"""What was damaged, and is not any more: an alarm, and the ledger takes events."""

_KINDS: Final = {
    "rollback": Kind.ROLLBACK,
    "fork": Kind.FORK,
    "forged": Kind.STORE,
    "unreadable": Kind.UNREADABLE,
}
_PATH: Final = re.compile(r"(?:/[\w.+~-]+)+/([\w.+~-]+)")
_log: Final = logging.getLogger("tallystick.watch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the last whole verification of a ledger came to."""

    at: str
    size: int
    findings: tuple[dict[str, Any], ...]
    """The first of them, as reports print them."""
    count: int
    checkpoint: str
    """What the next one holds the ledger against: that of the last verification that found nothing."""

    @property
    def holds(self) -> bool:
        return not self.count

    @property
    def alarm(self) -> tuple[int, set[tuple[str, int | None]]]:
        """What a new alarm differs in: what was found where, and how much, if not all of it is here."""
        count = self.count if self.count > _TOLD_MAX else bool(self.count)
        return count, {(one["kind"], one["position"]) for one in self.findings}

    def to_json(self) -> dict[str, Any]:
        """As it is told of."""
        return {"at": self.at, "size": self.size, "holds": self.holds, "count": self.count, "findings": self.findings}


class _StoppedError(Exception):
    """The watch ends."""


class Watch:
    """Verifies in a thread of its own, once begun; what is known it tells at any time. Safe for many threads."""

    def __init__(
        self, deployment: Deployment, *, every_seconds: float, is_ours: Callable[[str], bool] = lambda _: True
    ) -> None:
        """With `every_seconds` of 0 it only remembers what others verified.

        Of several processes each watches over the tenants, by name, that are its own; the system ledger's name is "".
        """
        self._deployment: Final = deployment
        self._is_ours: Final = is_ours
        self._every_seconds: Final = every_seconds
        self._file: Final = deployment.folder / FILE_NAME
        deployment.pool.on_damage = self.damaged
        self._lock: Final = threading.Lock()
        self._read_at = -1
        self._seen: dict[str, Seen] = {}
        self._suspected: Final[set[str]] = set()
        """Ledgers that were damaged while they were used, and not verified since."""
        self._altered = False
        """Whether the file was not what was kept: readiness says so until this process ends, as nobody else can."""
        self._begun_at: Final = deployment.clock()
        self._here: Final[dict[str, Seen]] = {}
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to watch. What was found to be rolled back or forked before still takes no events."""
        for name, seen in self.all.items():
            if seen.count:
                self._halt(name, seen)
        if self._every_seconds:
            self._thread = threading.Thread(target=self._watch, name="tallystick-watch", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop watching. What was begun is begun again the next time."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def of(self, ledger: str) -> Seen | None:
        """The last verification of a ledger, if there was one."""
        return self.all.get(ledger)

    def kept(self, ledger: str) -> bytes | None:
        """The checkpoint that the next verification holds a ledger against."""
        seen = self.of(ledger)
        return seen.checkpoint.encode() if seen is not None and seen.checkpoint else None

    @property
    def all(self) -> dict[str, Seen]:
        """The last of every ledger that was ever verified, by whichever process."""
        with self._lock:
            return dict(self._fresh())

    def damaged(self, ledger: str, error: TallystickError) -> None:
        """Somebody used a ledger, and it is not what it was: an alarm, until a verification finds nothing, which begins
        as soon as it can be opened."""
        if isinstance(error, HaltedError):
            kind = _KINDS[error.problem.kind]
        else:
            kind = Kind.INDEX if isinstance(error, DamagedIndexError) else Kind.UNREADABLE
            self._suspected.add(ledger)
        # What was rebuilt from the log, or verified when it was opened again, is used further.
        self.found(ledger, kind, _without_paths(str(error)), stops=not isinstance(error, _HEALED))

    def found(self, ledger: str, kind: Kind, seen: str, *, stops: bool = True) -> None:
        """Remember one finding, and raise the alarm for it, once. One that `stops` the ledger fails readiness."""
        finding = {**Finding(kind, None, seen).to_json(), "stops": stops}
        try:
            before = self.of(ledger)
            known = () if before is None else before.findings
            if any(one["kind"] == kind and (_stops(one) or not stops) for one in known):
                return  # it stands already: the next one who uses the ledger does not make it worse
            size, count = (0, 0) if before is None else (before.size, before.count)
            self._keep(ledger, [finding, *known], size=size, checkpoint="", count=count + 1)
        except (OSError, TallystickError) as failed:
            _log.error("that %s is damaged could not be kept: %s; it is: %s", ledger, failed, seen)

    @property
    def was_altered(self) -> bool:
        """Whether what was kept of verifications had been altered or damaged since this process began."""
        return self._altered

    @property
    def stopped(self) -> tuple[str, ...]:
        """The kinds of findings for which ledgers take no events."""
        return tuple(sorted({one["kind"] for seen in self.all.values() for one in seen.findings if _stops(one)}))

    @property
    def stopped_ledgers(self) -> frozenset[str]:
        """The names of the ledgers that take no events."""
        return frozenset(name for name, seen in self.all.items() if any(map(_stops, seen.findings)))

    @property
    def findings(self) -> int:
        """How many findings stand, in all ledgers."""
        return sum(seen.count for seen in self.all.values())

    @property
    def oldest_seconds(self) -> float:
        """How long the ledger has waited that waits the longest; one that never was verified, since the start."""
        seen, now = self.all, self._deployment.clock()
        moments = [timestamp.parse(one.at) for one in seen.values()]
        if any(name not in seen for name in self.names()):
            moments.append(self._begun_at)
        return max(0, now - min(moments, default=now)) / timestamp.SECOND

    def take(self, ledger: str, report: Report) -> Seen:
        """Remember what a whole verification found; what is new is an event of the system ledger."""
        found = [finding.to_json() for finding in report.findings]
        return self._keep(ledger, found, size=report.size, checkpoint=report.checkpoint.decode("utf-8", "replace"))

    def _watch(self) -> None:
        while not self._stop.wait(min(_LOOK_SECONDS, self._every_seconds)):
            try:
                for name in [*self.names()]:
                    if self._is_due(name):
                        self._verify(name)
            except _StoppedError:
                return
            except Exception:  # noqa: BLE001 - whatever it was, a full disk or a mistake of ours: the watch goes on
                _log.exception("the watch was interrupted, and begins again")

    def names(self) -> Iterator[str]:
        """The ledgers that there are, the system's first."""
        if self._is_ours(""):
            yield "system"
        try:
            tenants = self._deployment.tenants()
        except TallystickError as error:
            _log.error("the tenants cannot be read: %s", error)
            return
        for tenant in filter(lambda one: self._is_ours(one.name), tenants):
            for name in (tenant.ledger, tenant.trail):
                if self._deployment.is_there(name):
                    yield name

    def _is_due(self, name: str) -> bool:
        seen = self.of(name)
        if seen is None or name in self._suspected:
            return True
        age = self._deployment.clock() - timestamp.parse(seen.at)
        return not 0 <= age < self._every_seconds * timestamp.SECOND  # a clock that was put back makes it due, too

    def _verify(self, name: str) -> None:
        try:
            with self._deployment.lease(name) as ledger:
                report = self._report(ledger, since=self.kept(name))
            self._suspected.discard(name)
            self.take(name, report)
        except (DamagedError, TamperError) as error:  # so damaged that it cannot even be opened
            self.damaged(name, error)
        except TallystickError as error:
            _log.warning("%s could not be verified: %s", name, error)

    def _report(self, ledger: Ledger, *, since: bytes | None) -> Report:
        """Verify all of it, with rests. Raises `_StoppedError` when the watch ends in between."""
        worked_at = time.monotonic()

        def rest(_: int, __: int | None) -> None:
            nonlocal worked_at
            worked = time.monotonic() - worked_at
            if self._stop.wait(min(worked * _REST, _PAUSE_SECONDS_MAX)):
                raise _StoppedError
            worked_at = time.monotonic()

        return verified(ledger, since=since, progress=rest)

    def _keep(
        self, ledger: str, found: list[dict[str, Any]], *, size: int, checkpoint: str, count: int | None = None
    ) -> Seen:
        with self._lock, self._alone():
            known = self._fresh()
            before = known.get(ledger)
            at = timestamp.render(self._deployment.clock())
            seen = Seen(
                at=at,
                size=size,
                findings=tuple(found[:_TOLD_MAX]),
                count=len(found) if count is None else count,
                checkpoint=checkpoint,
            )
            if found:
                seen = replace(seen, checkpoint=before.checkpoint if before is not None else "")
            known = known | {ledger: seen}
            # A crash before this loses only that it was verified.
            data = orjson.dumps({name: asdict(one) for name, one in known.items()})
            try:
                # In the place of a link, too.
                durable.replace(self._file, authentic.render(data, self._authenticate))
            except OSError as error:
                raise StoreError(f"{self._file} cannot be written: {error.strerror or error}") from error
            self._here[ledger] = seen
        self._halt(ledger, seen)
        self._tell(ledger, before, seen)
        return seen

    def _halt(self, ledger: str, seen: Seen) -> None:
        """Stop the writing of a ledger that is not the newest, or is another one; release one that was verified OK."""
        kind = next((one["kind"] for one in seen.findings if one["kind"] in _HALTING), None)
        if kind is not None:
            text = next(one["seen"] for one in seen.findings if one["kind"] == kind)
            problem = MarkProblem(kind, text)
            if ledger == "system":
                self._deployment.system.halt(problem)
            self._deployment.pool.halt(ledger, problem)
        elif not seen.count:
            self._deployment.pool.release(ledger)

    def _fresh(self) -> dict[str, Seen]:
        """What is kept, read again if another process has changed it, and the alarms that stand in the system ledger.

        A file put back to an earlier state has the right MAC, too; it calls off no alarm, nor what was found here.
        """
        try:
            written = self._file.lstat().st_mtime_ns
            if written != self._read_at:
                self._seen, self._read_at = self._read(), written
        except FileNotFoundError:
            self._seen = {}
        try:
            alarms = dict(self._deployment.directory().alarms)
        except TallystickError:
            alarms = {}  # the system ledger cannot be read, which readiness says
        seen = dict(self._seen)
        for ledger, here in self._here.items():
            if here.count and (ledger not in seen or (seen[ledger].holds and seen[ledger].at < here.at)):
                seen[ledger] = here
        for ledger, (at, said) in alarms.items():
            known = seen.get(ledger)
            if known is None or known.holds:
                kept, found = known.checkpoint if known is not None else "", tuple(said["findings"])
                seen[ledger] = Seen(at=at, size=said["size"], findings=found, count=said["count"], checkpoint=kept)
        return seen

    def _read(self) -> dict[str, Seen]:
        """What was kept. A file that is not what we wrote is reported, and all is verified again."""
        try:
            data = authentic.parse(read_plain(self._file, bytes_max=VERIFIED_BYTES_MAX), self._authenticate)
            if data is None:
                raise ValueError("its MAC is not by the keys of this deployment")
            kept = orjson.loads(data)
            return {name: Seen(**{**one, "findings": tuple(one["findings"])}) for name, one in kept.items()}
        except OSError as error:
            raise StoreError(f"{self._file} cannot be read: {error.strerror or error}") from error
        except (ValueError, TypeError, KeyError, AttributeError, NotPlainError) as error:
            _log.error("%s was altered or damaged, and all is verified again: %s", self._file, error)
            self._altered = True
            return {}

    def _authenticate(self, data: bytes) -> bytes:
        return self._deployment.system.authenticate("verified", data)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process changes the file."""
        with open_lock(self._file.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _tell(self, ledger: str, before: Seen | None, seen: Seen) -> None:
        """Raise the alarm for what is new, and once all holds again call it off."""
        if before is not None and before.count and before.alarm == seen.alarm:
            return
        if not seen.count:
            if before is None or not before.count:
                return
            what, said = "held", {"ledger": ledger, "size": seen.size}
        else:
            what, said = "failed", {"count": seen.count, "findings": [*seen.findings], "ledger": ledger}
            _log.error("%s does not hold: %d findings, the first: %s", ledger, seen.count, seen.findings[0]["seen"])
        try:
            self._deployment.note(f"verification.{what}", f"ledger:{ledger}", {**said, "size": seen.size})
        except TallystickError as error:  # it may be the very ledger that does not hold
            _log.error("the verification of %s could not be recorded: %s", ledger, error)


def verified(ledger: Ledger, *, since: bytes | None, progress: Progress) -> Report:
    """Verify all of a ledger by another process, against the checkpoint of its last verification.

    That may be a checkpoint of what was lost: then the ledger verifies without it, and records the accepted loss.
    """
    report = ledger.verify(since=since, processes=1, apart=True, progress=progress)
    if since is not None and {one.kind for one in report.findings} & {Kind.ROLLBACK, Kind.FORK}:
        without = ledger.verify(processes=1, apart=True, progress=progress)
        if without.holds and ledger.has_accepted_loss_of(since):
            return without
    return report


def _stops(finding: dict[str, Any]) -> bool:
    """Whether a ledger takes no events because of this."""
    return bool(finding.get("stops")) or finding["kind"] in _HALTING


def _without_paths(text: str) -> str:
    """Where things are on the machine is not for everyone who may read that something is wrong."""
    return _PATH.sub(r"\1", text)
