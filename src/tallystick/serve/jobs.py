"""Jobs: what takes longer than a request may, done one after another beside the service, with its progress told.

Each job has a folder, `<folder>/<tenant>/<id>/`, with `job.json` and, when it makes one, its file. What was done is
there after a restart; what was under way is then told as failed, since nobody works at it. All of it goes after a day.

`job.json` has a MAC, and names the digest of the file: a result that somebody else wrote is not returned.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias

import orjson

from tallystick.clock import Clock
from tallystick.core import timestamp
from tallystick.durable import replace
from tallystick.errors import BusyError, ConflictError, NotFoundError, StoreError, TallystickError, TamperError
from tallystick.ids import random_bytes
from tallystick.limits import JOBS_KEPT_MAX, JOBS_WAITING_MAX
from tallystick.plain_file import NotPlainError, check_folder, open_plain, read_plain, remove_folder
from tallystick.private_file import make_folder
from tallystick.serve import authentic
from tallystick.serve.authentic import Authenticate
from tallystick.serve.problems import problem

KEPT_SECONDS: Final = 86_400
"""How long a job and its file are kept once it is over."""

State: TypeAlias = Literal["waiting", "running", "done", "failed"]
Work: TypeAlias = Callable[["Job"], dict[str, Any]]
"""Does it, and gives its result; what it writes, it writes to the job's `file`, and says what it has `made`."""

_WORKERS: Final = 2
_LOOK_SECONDS: Final = 0.01
_ID_BYTES: Final = 12
_ID: Final = re.compile(r"[0-9a-f]{24}")
_TOLD: Final = "job.json"
_TOLD_BYTES_MAX: Final = 16 << 20
"""A verification's findings are in it."""

LISTED_BYTES_MAX: Final = 65_536
"""With more than this a job is listed without its result: there may be a hundred of them."""

_MICROSECONDS: Final = 1_000_000
_log: Final = logging.getLogger("tallystick.serve")


class _EndedError(Exception):
    """The job is not wanted any more."""


class Job:
    """One job. `progress` is told how far it is, and ends it when nobody wants it any more."""

    def __init__(
        self, folder: Path, *, tenant: str, kind: str, asked: dict[str, Any], created_at: str, by: str = ""
    ) -> None:
        self.folder: Final = folder
        self.tenant: Final = tenant
        self.kind: Final = kind
        self.asked: Final = asked
        self.created_at: Final = created_at
        self.by: Final = by
        """Who ordered it, where nobody but they and who may see all may have what it makes."""
        self.state: State = "waiting"
        self.done = 0
        self.of: int | None = None
        self.ended_at: str | None = None
        self.result: dict[str, Any] | None = None
        self.problem: dict[str, Any] | None = None
        self.file_sha256: str | None = None
        """Of the file, once it is whole."""
        self.file_bytes: int | None = None
        self.was_live = False
        """Whether it was not over when it was kept."""
        self.is_deleted = False
        self.unwanted = ""
        """Why it is not wanted any more."""

    @property
    def id(self) -> str:
        return self.folder.name

    @property
    def file(self) -> Path:
        """What it makes, for whoever asked."""
        return self.folder / "result.zip"

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed")

    def made(self, sha256: str, size: int) -> None:
        """The file is whole, and has that digest, in hex, and so many bytes: as it was written, and not as it is found
        by its name, where somebody may have put another one."""
        self.file_sha256, self.file_bytes = sha256, size

    def progress(self, done: int, of: int | None = None) -> None:
        """Say how far it is."""
        self.done, self.of = done, of
        if self.unwanted:
            raise _EndedError(self.unwanted)

    def to_json(self) -> dict[str, Any]:
        """As it is returned."""
        names = ("id", "kind", "state", "asked", "done", "of", "created_at", "ended_at", "result", "problem")
        return {name: getattr(self, name) for name in names}

    def open_file(self) -> IO[bytes]:
        """The file, open, at its beginning, and with the bytes that the job made.

        What is returned was checked, and not what has its name later. Raises `TamperError`, and `NotFoundError` when it
        is gone.
        """
        try:
            with ExitStack() as stack:
                file = stack.enter_context(open_plain(self.file, bytes_max=self.file_bytes or 0))
                if file_digest(file, "sha256").hexdigest() == self.file_sha256:
                    file.seek(0)
                    stack.pop_all()
                    return file
        except FileNotFoundError as error:
            raise NotFoundError("the file of this job is gone: have it made again") from error
        except OSError as error:
            raise StoreError(f"the file of this job cannot be read: {error.strerror or error}") from error
        except NotPlainError:
            pass  # a link, or a file that is longer
        raise TamperError("the file of this job is not what it made: find out who can write there; make it again")

    @classmethod
    def of_json(cls, folder: Path, tenant: str, said: dict[str, Any]) -> Job:
        """A job as it was kept. One that was not over is one that ended with its process."""
        given = {name: said[name] for name in ("kind", "asked", "created_at", "by")}
        job = cls(folder, tenant=tenant, **given)
        for name in ("state", "done", "of", "ended_at", "result", "problem", "file_sha256", "file_bytes"):
            setattr(job, name, said[name])
        if not job.is_over:
            job.was_live = True
            job.fail(StoreError("the service ended before it was done: ask for it again"), at=said["created_at"])
        return job

    def fail(self, error: TallystickError, *, at: str) -> None:
        """It came to nothing."""
        self.state, self.ended_at, self.problem = "failed", at, orjson.loads(problem(error)[2])


class Jobs:
    """The jobs of all tenants of one process. Safe for many threads."""

    def __init__(self, folder: Path, *, clock: Clock, authenticate: Authenticate) -> None:
        """`authenticate` gives the MAC of what is kept."""
        self._folder: Final = folder
        self._root: Final = folder.parent
        """Below it no folder is a link: else whoever can write there has us write, and remove, what is elsewhere."""
        self._clock: Final = clock
        self._authenticate: Final = authenticate
        self._lock: Final = threading.Lock()
        self._live: Final[dict[str, Job]] = {}
        """By id; what is over is read from its folder."""
        self._waiting: Final[dict[str, deque[tuple[Job, Work]]]] = {}
        """By tenant; in the order in which tenants have their turn."""
        self._busy: Final[set[str]] = set()
        """Tenants of which a job runs: one at a time, so that nobody's hold up those of all others."""
        self._executor: Final = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tallystick-job")
        self._closing = False

    @property
    def live(self) -> int:
        """How many wait or run."""
        return len(self._live)

    def begin(self, tenant: str, kind: str, asked: dict[str, Any], work: Work, *, by: str = "") -> Job:
        """Have something done. Raises `BusyError` when too much waits, `ConflictError` when too much is kept."""
        with self._lock:
            if self._closing or sum(job.tenant == tenant for job in self._live.values()) >= JOBS_WAITING_MAX:
                raise BusyError(f"{JOBS_WAITING_MAX} jobs wait or run already: wait until one is over")
            self._make_room(tenant)
            folder, now = self._folder / tenant / random_bytes(_ID_BYTES).hex(), timestamp.render(self._clock())
            job = Job(folder, tenant=tenant, kind=kind, asked=asked, created_at=now, by=by)
            try:
                make_folder(check_folder(folder, below=self._root), exist_ok=False)
                self._keep(job)
            except OSError as error:
                raise StoreError(f"a job could not be written: {error.strerror or error}") from error
            self._live[job.id] = job
            self._waiting.setdefault(tenant, deque()).append((job, work))
            self._go_on()
        return job

    def get(self, tenant: str, job_id: str, *, by: str | None = None) -> Job:
        """One job of a tenant; with `by` only one that they ordered for themselves. Raises `NotFoundError`."""
        with self._lock:
            job = self._live.get(job_id)
        if job is None or job.tenant != tenant:
            job = next(self._kept(tenant, job_id), None)
        if job is None or job.is_deleted or by not in (None, job.by):
            raise NotFoundError(f"there is no job {job_id[:60]!r}: those that are over are kept for a day")
        return job

    def all_of(self, tenant: str) -> list[Job]:
        """Those of a tenant, the newest first. Of one that came to much there is no result: ask for it alone."""
        with self._lock:
            live = {job.id: job for job in self._live.values() if job.tenant == tenant}
        jobs = {job.id: job for job in self._kept(tenant, result_bytes_max=LISTED_BYTES_MAX)} | live
        wanted = [job for job in jobs.values() if not job.is_deleted]
        return sorted(wanted, key=lambda job: (job.created_at, job.id), reverse=True)

    def delete(self, tenant: str, job_id: str) -> None:
        """Remove a job and its file; one that runs ends soon. Raises `NotFoundError`."""
        job = self.get(tenant, job_id)
        with self._lock:
            job.is_deleted, job.unwanted = True, "it was deleted"
            if job_id not in self._live:
                remove_folder(job.folder, below=self._root)

    def tidy(self) -> None:
        """Remove what has been over for a day."""
        before = timestamp.render(self._clock() - KEPT_SECONDS * _MICROSECONDS)
        for tenant in self._names(self._folder):
            for job in self._kept(tenant.name):
                is_live = job.id in self._live or job.was_live  # perhaps another process works at it
                if not is_live and (job.ended_at or job.created_at) < before:
                    remove_folder(job.folder, below=self._root)

    def close(self) -> None:
        """End what runs; it is told as failed."""
        with self._lock:
            self._closing = True
            for job in self._live.values():
                job.unwanted = job.unwanted or "the service was stopped before it was done: ask for it again"
        while self._live:  # each of them ends as soon as it looks
            time.sleep(_LOOK_SECONDS)
        self._executor.shutdown(wait=True)

    def _make_room(self, tenant: str) -> None:
        """Of jobs that made nothing the oldest go when there are too many; bundles stay. `ConflictError`."""
        kept = [job for job in self._kept(tenant, result_bytes_max=0) if job.id not in self._live]
        while len(kept) >= JOBS_KEPT_MAX:
            plain = [job for job in kept if not job.file.exists()]
            if not plain:
                raise ConflictError(f"{JOBS_KEPT_MAX} bundles are kept already: delete one of these jobs")
            oldest = min(plain, key=lambda job: job.created_at)
            remove_folder(oldest.folder, below=self._root)
            kept.remove(oldest)

    def _go_on(self) -> None:
        """Have the next ones run, as far as there are threads. With the lock held."""
        for tenant in [*self._waiting]:
            if len(self._busy) >= _WORKERS:
                return
            if tenant not in self._busy:
                waiting = self._waiting.pop(tenant)
                job, work = waiting.popleft()
                if waiting:
                    self._waiting[tenant] = waiting  # behind all others
                self._busy.add(tenant)
                self._executor.submit(self._run, job, work)

    def _run(self, job: Job, work: Work) -> None:
        try:
            job.state = "running"
            job.progress(0)
            check_folder(job.folder, below=self._root)  # the work writes there
            result = work(job)
            job.state, job.result, job.ended_at = "done", result, timestamp.render(self._clock())
        except _EndedError as ended:
            self._failed(job, ConflictError(str(ended)))
        except TallystickError as error:
            self._failed(job, error)
        except Exception as error:  # noqa: BLE001 - somebody asks what became of it, and the diagnostics have it
            _log.exception("the job %s (%s) failed", job.id, job.kind)
            self._failed(job, StoreError(f"a mistake of ours ({type(error).__name__}): it is in the diagnostics"))
        finally:
            self._finish(job)

    def _failed(self, job: Job, error: TallystickError) -> None:
        try:
            check_folder(job.folder, below=self._root)
            job.file.unlink(missing_ok=True)
        except (OSError, NotPlainError) as failed:
            _log.error("what the job %s made could not be removed: %s", job.id, failed)
        job.fail(error, at=timestamp.render(self._clock()))

    def _finish(self, job: Job) -> None:
        """Keep what it came to. A crash before leaves a job that was not over, which is told as failed."""
        with self._lock:
            try:
                if job.is_deleted:
                    remove_folder(job.folder, below=self._root)
                else:
                    self._keep(job)
            except (OSError, NotPlainError) as error:
                _log.error("the job %s could not be kept: %s", job.id, error)
            finally:
                del self._live[job.id]
                self._busy.discard(job.tenant)
                self._go_on()

    def _keep(self, job: Job) -> None:
        kept = {"file_sha256": job.file_sha256, "file_bytes": job.file_bytes, "by": job.by}
        data = orjson.dumps(job.to_json() | kept)
        check_folder(job.folder, below=self._root)
        about = _about(job.tenant, job.folder)
        replace(job.folder / _TOLD, authentic.render(data, self._authenticate, about=about))

    def _kept(self, tenant: str, job_id: str = "", *, result_bytes_max: int = _TOLD_BYTES_MAX) -> Iterator[Job]:
        """Those that are kept, or one of them; without a result that has more bytes."""
        for folder in self._folders(tenant):
            if job_id not in ("", folder.name):
                continue
            try:
                kept = read_plain(folder / _TOLD, bytes_max=_TOLD_BYTES_MAX)
            except OSError:
                continue  # it is being made, or removed
            except NotPlainError as error:
                _log.error("the job %s counts as none: %s", folder.name, error)
                continue
            data = authentic.parse(kept, self._authenticate, about=_about(tenant, folder))
            if data is None:
                _log.error("the job %s is not what was kept, and counts as none", folder.name)
                continue
            job = Job.of_json(folder, tenant, orjson.loads(data))
            if len(data) > result_bytes_max:
                job.result = None
            yield job

    def _folders(self, tenant: str) -> Iterator[Path]:
        """Those with names that we give; nobody has us look into, or remove, another folder."""
        return (folder for folder in self._names(self._folder / tenant) if _ID.fullmatch(folder.name))

    def _names(self, folder: Path) -> Iterator[Path]:
        """The folders in one, without links."""
        try:
            check_folder(folder, below=self._root)
            yield from sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())
        except FileNotFoundError:
            return
        except NotPlainError as error:
            _log.error("no jobs are read: %s", error)


def _about(tenant: str, folder: Path) -> bytes:
    """Which job of which tenant, so that none takes another's place."""
    return f"{tenant}/{folder.name}".encode() + b"\0"
