"""The head mark: the newest checkpoint of a ledger, authenticated, and kept outside of the ledger's directory.

An attacker who can write the ledger's directory can put an older copy of all of it back, and the copy is consistent.
The mark is somewhere else, and names a checkpoint that the ledger had: a log that is shorter was rolled back, and one
with another root at that size was forked. A thread writes the mark at most `LATEST_SECONDS` after a commit, and it is
written before a checkpoint is handed out: so no checkpoint that others have seen is newer than the mark.
"""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tallystick.core.checkpoint import Checkpoint
from tallystick.durable import replace, sync_folder
from tallystick.errors import DamagedError, StoreError, TamperError
from tallystick.plain_file import open_lock
from tallystick.private_file import make_folder
from tallystick.store.contract import Head, Store
from tallystick.store.contradiction import HaltedError, MarkProblem, compare
from tallystick.store.mark_file import ForgedMarkError, mark_path, read_mark, render_mark

LATEST_SECONDS: Final = 2.0
"""How old the mark may be while a process writes. After a crash it is behind by what was committed since."""

_PAUSE_SECONDS: Final = 1.0
"""Between two writes of the thread: half of the above, so that the wait and a slow disk fit in."""

_IDLE_SECONDS: Final = 10.0
"""After so long without a commit the thread ends; the next commit starts another one."""

FIRST_COMMITS: Final = 2
"""Records of a ledger that was just created: its genesis, and the opening of its first epoch."""

_log: Final = logging.getLogger("tallystick.store")


class HeadMark:
    """The mark of one open ledger. Safe for many threads and beside other processes: the mark only grows.

    `key` gives the ledger's `head_mac` key, and is called when the mark is first read or written. `is_accepted` says
    whether the log records, proven, that what a checkpoint is of was lost.
    """

    def __init__(
        self,
        folder: Path,
        *,
        store: Store,
        ledger_id: bytes,
        key: Callable[[], bytes],
        is_accepted: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        self.path: Final = mark_path(folder, ledger_id)
        self.problem: MarkProblem | None = None
        """Why nothing may be added to this ledger."""
        self.failures = 0
        """How many writes failed."""
        self.failing: str | None = None
        """Why the last write failed, while no later one succeeded."""
        self._suspended = False
        """While the loss of what the mark names is being recorded."""
        self._store: Final = store
        self._id: Final = ledger_id
        self._load_key: Final = key
        self._is_accepted: Final = is_accepted
        self._key: bytes | None = None
        self._newest: bytes | None = None
        """The newest checkpoint that this process committed or read back."""
        self._kept: bytes | None = None
        """The mark as this process last read or wrote it."""
        self._given: tuple[bytes, frozenset[bytes]] | None = None
        """The newest checkpoint that was proven here for an answer, and what it was found to extend."""
        self._seen: tuple[int, int] | None = None
        """Which file that was: its inode and the time of its last change."""
        self._writing: Final = threading.Lock()
        """Held while the mark is compared and replaced."""
        self._starting: Final = threading.Lock()
        """Held to start or to end the thread, so that no commit is left without one."""
        self._wake: Final = threading.Event()
        self._stop: Final = threading.Event()
        self._thread: threading.Thread | None = None

    def inspect(self) -> None:
        """Compare the ledger with its mark, and remember what contradicts it. Raises `StoreError`: it is unreadable."""
        try:
            held = self._read()
        except ForgedMarkError as error:
            self._find(MarkProblem("forged", str(error)))
            return
        head = self._store.head()
        if held is None:
            if head is not None and head.size > FIRST_COMMITS:
                _log.warning("%s is missing: a rollback of the ledger before now would not be noticed", self.path)
            return
        self._compare(held)

    def check(self, *, read_back: bytes | None = None) -> None:
        """Raises `TamperError` when nothing may be added to the ledger.

        A mark that another process wrote since is read: the log may have been put back to what this process knows of
        it. `read_back` is the checkpoint of a state that was read from the store just now, and proven: then another
        process committed, or somebody replaced the log under us. What this process knows, and the mark, decide which.
        Raises `DamagedError` when others have accepted the loss of what this process knew: its memory is of that.
        """
        if self.problem is None and not self._suspended:
            if read_back is not None:
                self._check_newest()
            try:
                if self._stamp() != self._seen:
                    self.inspect()
            except StoreError as error:
                self._fail(error)  # a mark that cannot be read stops nothing but the handing out of checkpoints
            if read_back is not None and self.problem is None:
                self._newest = read_back
        if self.problem is not None:
            raise HaltedError(self.problem)

    def _check_newest(self) -> None:
        """Whether the log has what this process committed or read before."""
        newest = self._newest
        if newest is not None:
            problem = self._contradiction(newest, self._store.head())
            if problem is not None:
                self._find(problem)
                if problem.kind != "unreadable":
                    self._insist(newest)

    def _check_known(self, held: bytes, head: Head) -> None:
        """Raises `HaltedError` when the log, as of a head, does not extend what this process knows of it."""
        problem = self._contradiction(held, head)
        if problem is not None:
            self._find(problem)
            raise HaltedError(problem)

    def _contradiction(self, held: bytes, head: Head | None) -> MarkProblem | None:
        """How the log, as of a head, contradicts what this process knows of it, if its loss was not accepted."""
        problem = compare(self._store, held, head)
        # A tile that somebody altered for a moment, maybe, changes no mark, and tells of no loss.
        if problem is not None and problem.kind != "unreadable" and self._is_accepted(held):
            self._newest = self._kept = self._seen = self._given = None
            raise DamagedError(
                "the log was put back while it was open, and that loss was accepted elsewhere: open the ledger again"
            )
        return problem

    def is_changed(self) -> bool:
        """Whether the mark is another than the one that this process read or wrote last. Raises `StoreError`."""
        try:
            return self._stamp() != self._seen
        except StoreError as error:
            raise self._fail(error) from error

    def hold(self) -> tuple[Head, frozenset[bytes]]:
        """The newest commit, held against the mark as it was last read, and against what this process knows of the log;
        and what it extends.

        What an answer rests on is read once, here: a second look at the head may be shown another one. It is not proven
        yet; `give` takes note of it when it is. Raises `HaltedError` for a log that contradicts what is known, and
        `DamagedError` as `check` does.
        """
        self.check()
        known = frozenset(one for one in (self._newest, self._kept) if one is not None)
        given, suspended = self._given, self._suspended
        head = self._store.head()  # last: it can only be newer
        if head is None:
            raise DamagedError("the ledger has lost its head: run a verification")
        if suspended:
            return head, frozenset()
        before = known
        if given is not None:
            before = frozenset((given[0], *(known - given[1])))  # what it extends is extended by what extends it
        for held in before - {head.checkpoint}:
            self._check_known(held, head)
        return head, known

    def give(self, head: Head, extended: frozenset[bytes]) -> None:
        """Take note of what `hold` gave, and was proven then."""
        if not self._suspended:
            self._given = (head.checkpoint, extended)

    def halt(self, problem: MarkProblem) -> None:
        """Have nothing added any more: somebody else, such as a witness, knows that this ledger is not the newest."""
        self._find(problem)

    def committed(self, checkpoint: bytes) -> None:
        """A commit was made. Costs next to nothing: the thread writes the mark."""
        if self._suspended:
            return
        self._newest = checkpoint
        if not self._wake.is_set():
            self._wake.set()
        if self._thread is None:
            self._start()

    def keep(self, checkpoint: bytes) -> None:
        """Have the mark on the disk for this checkpoint, which is about to be handed out.

        Raises `StoreError` when the mark cannot be written, `TamperError` when the ledger contradicts it.
        """
        self.check()
        if checkpoint == self._kept:
            return
        try:
            with self._writing, self._alone():
                self._keep(checkpoint)
        except OSError as error:
            raise self._fail(error) from error
        except StoreError as error:
            raise self._fail(error) from error

    @contextmanager
    def accepting(self) -> Iterator[MarkProblem | None]:
        """Go on, within, in spite of what was found, which is given; then overwrite the mark with the newest commit.

        A crash within leaves the old mark, which the ledger still contradicts.
        """
        problem, self.problem, self._newest, self._given = self.problem, None, None, None
        self._suspended = True
        try:
            yield problem
            head = self._store.head()
            assert head is not None, "its loss was recorded"
            with self._writing, self._alone():
                self._write(head.checkpoint)
            self._newest = head.checkpoint
        except OSError as error:
            self.problem = problem
            raise self._fail(error) from error
        except BaseException:
            self.problem = problem
            raise
        finally:
            self._suspended = False

    def close(self) -> None:
        """Write the mark a last time, and end the thread. A failure is logged: the ledger is closed all the same."""
        self._stop.set()
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join()
        if self._is_newest_true:
            self._keep_newest()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stop.is_set():
                self._thread = threading.Thread(target=self._run, name="tallystick-head-mark", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self._wake.wait(_IDLE_SECONDS):
                with self._starting:
                    if not self._wake.is_set():  # else a commit came between: it found a thread, and started none
                        self._thread = None
                        return
            self._wake.clear()
            if self._stop.is_set() or not self._is_newest_true:
                return
            # First the mark: what was committed to a log that is gone is missed by it, and by nothing else.
            if not self._keep_newest():
                self._wake.set()  # try again after the pause: the disk may have room by then
            self._probe()
            self._stop.wait(_PAUSE_SECONDS)

    def _probe(self) -> None:
        """Look whether the log is on the disk still: a commit may succeed in memory on a file that was zeroed."""
        try:
            self._store.probe()
        except DamagedError as error:
            self._find(MarkProblem("unreadable", str(error)))
        except StoreError as error:
            _log.warning("the log could not be read from the disk: %s", error)

    @property
    def _is_newest_true(self) -> bool:
        """Whether the newest commit of this process counts: it does in spite of a log that cannot be read any more."""
        return self.problem is None or self.problem.kind == "unreadable"

    def _keep_newest(self) -> bool:
        """Write the mark for the newest commit. What goes wrong is logged: nobody waits for it."""
        newest = self._newest
        try:
            if newest is not None and newest != self._kept:
                with self._writing, self._alone():
                    self._keep(newest)
        except TamperError:
            return True  # it was logged, and the next append raises it
        except (OSError, StoreError) as error:
            self._fail(error)
            return False
        return True

    def _keep(self, checkpoint: bytes) -> None:
        """Compare and keep the larger. The caller holds the locks."""
        try:
            present = self._read()
        except ForgedMarkError as error:
            self._find(MarkProblem("forged", str(error)))
            raise
        if present is not None and (present != self._kept or _size(checkpoint) <= _size(present)):
            # Another process wrote it, of this ledger or of a second copy of it under the same keys. Or the log was put
            # back under us, and what it says now must not be handed out.
            self._compare(present)
            self.check()
        if present is None or _size(checkpoint) > _size(present):
            self._write(checkpoint)

    def _write(self, checkpoint: bytes) -> None:
        data = render_mark(checkpoint, key=self._secret(), ledger_id=self._id)
        # The bytes reach the disk before the name does, and a crash leaves the old mark or the new one. Without the
        # folder's fsync a crash of the machine could bring the old one back after the checkpoint was handed out.
        replace(self.path, data)
        sync_folder(self.path.parent)
        self._kept, self._seen, self.failing = checkpoint, self._stamp(), None

    def _read(self) -> bytes | None:
        self._seen = self._stamp()  # before it is read: if it is replaced in between, it is read once more
        if self._seen is None:
            return None  # the keys are not asked for: they may be wrong, which the first append says better
        return read_mark(self.path, key=self._secret(), ledger_id=self._id)

    def _compare(self, held: bytes) -> None:
        self._kept = held
        self._find_difference(held)

    def _insist(self, committed: bytes) -> None:
        """What this process committed, and was told to callers, is not in the log: let the next one find that, too.

        The mark may be larger by now. It stays where the log contradicts it as well; where the log extends it, whoever
        overwrote the log wrote it. Nothing is written if the log has all again: another one was shown for a moment.
        """
        try:
            with self._writing, self._alone():
                present, head = self._read(), self._store.head()
                is_shown = compare(self._store, committed, head) is None
                if is_shown or (present is not None and compare(self._store, present, head) is not None):
                    return
                self._write(committed)
        except ForgedMarkError:
            pass  # it is found by whoever reads it
        except (OSError, StoreError) as error:
            self._fail(error)

    def _find_difference(self, held: bytes) -> bool:
        """Whether the log contradicts a checkpoint that it had."""
        problem = compare(self._store, held, self._store.head())
        if problem is not None:
            self._find(problem)
        return problem is not None

    def _stamp(self) -> tuple[int, int] | None:
        try:
            found = self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"could not read the head mark {self.path}: {error.strerror or error}") from error
        return found.st_ino, found.st_mtime_ns

    def _secret(self) -> bytes:
        if self._key is None:
            self._key = self._load_key()
        return self._key

    def _find(self, problem: MarkProblem) -> None:
        if self.problem is None:
            self.problem = problem
            _log.error("nothing is added to the ledger any more: %s", problem.text)

    def _fail(self, error: Exception) -> StoreError:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        self.failures += 1
        if self.failing != reason:  # once for each reason, as the thread tries every second
            _log.error("the head mark %s cannot be kept: %s", self.path, reason)
        self.failing = reason
        return StoreError(f"the head mark {self.path} cannot be kept, so no checkpoint is handed out: {reason}")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """While no other process compares and replaces the mark: else a smaller one could replace a larger one."""
        make_folder(self.path.parent)
        with open_lock(self.path.with_suffix(".lock")) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # a crash releases it
            yield


def _size(checkpoint: bytes) -> int:
    return Checkpoint.of_note(checkpoint).size
