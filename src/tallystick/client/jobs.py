"""What takes the service longer than an answer may take: a verification, an export. Ordered, watched, fetched.

A verification may be ordered twice. An export is sealed into the ledger, so its order is sent once; when its answer is
lost, that is said, and whoever orders again has two exports in the ledger, and one in hand.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import msgspec

from tallystick.client.answers import read
from tallystick.client.calls import Calls, Request
from tallystick.client.paths import quoted
from tallystick.client.problems import error_in
from tallystick.client.tries import FailedError, Failure
from tallystick.core.manifest import BUNDLE_FILES, EVENTS_FILE, MANIFEST_FILE
from tallystick.core.matcher import Match
from tallystick.durable import sync, sync_folder
from tallystick.errors import BusyError, ConflictError, StoreError, TamperError
from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.findings import Finding, Kind, LawfulPrune, Report
from tallystick.limits import BUNDLE_EVENTS_BYTES_MAX, BUNDLE_ZIP_BYTES_MAX, MANIFEST_BYTES_MAX
from tallystick.private_file import create, make_folder

JOBS: Final = "/api/v1/jobs"
_ZIP: Final = "application/zip"
_FIRST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 2.0
_READ_SECONDS: Final = 60.0

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much."""


class Job(msgspec.Struct, frozen=True):
    """A job, as the service tells of it."""

    id: str
    kind: str
    state: str
    done: int = 0
    of: int | None = None
    result: dict[str, Any] | None = None
    problem: dict[str, Any] | None = None


def run(calls: Calls, request: Request, *, seconds: float | None, progress: Progress | None) -> Job:
    """Order a job, and wait until it is done. Raises why it failed, and `BusyError` when the seconds are over."""
    job = read(calls.call(request).body, Job)
    deadline = None if seconds is None else time.monotonic() + seconds
    wait = _FIRST_SECONDS
    while True:
        if progress is not None and job.of is not None:
            progress(job.done, job.of)
        if job.state == "failed":
            raise error_in(job.problem) if job.problem else StoreError(f"the job {job.id} failed, and does not say why")
        if job.state == "done":
            return job
        if job.state not in ("waiting", "running"):
            raise StoreError(f"a job that is {job.state[:40]!a}: what that is, only a newer client knows")
        if deadline is not None and time.monotonic() + wait > deadline:
            raise BusyError(f"the job {job.id} is not done yet after {seconds:g} s: it goes on, ask again later")
        calls.rest(wait)
        wait = min(2 * wait, _LONGEST_SECONDS)
        job = read(calls.call(Request(path=f"{JOBS}/{quoted(job.id)}")).body, Job)


# --------------------------------------------------------------------------------------------- verifications


class _Finding(msgspec.Struct):
    kind: str
    position: int | None
    seen: str
    end: int | None = None


class _Prune(msgspec.Struct):
    first: int
    end: int
    count: int
    policy_position: int
    position: int
    finished: bool


class _Report(msgspec.Struct):
    ledger: str
    origin: str
    size: int
    first: int
    end: int
    findings: list[_Finding]
    signatures: int
    unclosed: int
    keys: bool
    proven: list[tuple[int, int]]
    pruned: list[_Prune]
    absent: int
    checkpoint: str
    since: int | None
    seconds: float
    index: int | None = None
    mark: int | None = None
    notes: list[str] = []  # msgspec copies an empty default
    warnings: list[str] = []


def report_of(job: Job) -> Report:
    """The report of a verification that is done. A finding of a kind that is not known here is a `StoreError`."""
    told = msgspec.structs.asdict(_converted(job, _Report))
    try:
        findings = tuple(Finding(Kind(one.kind), one.position, one.seen, one.end) for one in told["findings"])
    except ValueError as error:
        raise StoreError(f"the report has a finding of another kind: {error}; use a newer client") from error
    pruned = tuple(
        LawfulPrune(**{name: getattr(one, name) for name in _Prune.__struct_fields__}) for one in told["pruned"]
    )
    whole: dict[str, Any] = {"findings": findings, "pruned": pruned, "proven": tuple(told["proven"])}
    whole |= {name: (*told[name],) for name in ("notes", "warnings")}
    return Report(**told | whole | {"checkpoint": told["checkpoint"].encode()})


# --------------------------------------------------------------------------------------------------- exports


class _Selected(msgspec.Struct):
    name: str
    count: int


class _Exported(msgspec.Struct):
    manifest_sha256: str
    events_sha256: str
    count: int
    first: int
    end: int
    size: int
    complete: bool
    position: int
    selectors: list[_Selected] = []
    warnings: list[str] = []
    is_contradicted: bool = False


def fetch(calls: Calls, job: Job, target: Path, *, as_zip: bool) -> Exported:
    """Bring the bundle of an export that is done to its place: all of it, or nothing.

    What arrives is held against what the ledger recorded of it. Raises `ConflictError` when the target is there,
    `TamperError` when another bundle arrives, and `StoreError`.
    """
    facts = _converted(job, _Exported)
    check_free(target, as_zip=as_zip)
    with _scratch(target) as scratch:
        packed = scratch / "bundle.zip"
        _download(calls, f"{JOBS}/{quoted(job.id)}/bundle", packed)
        _unpack(packed, scratch / "bundle", facts)
        check_free(target, as_zip=as_zip)
        (packed if as_zip else scratch / "bundle").rename(target)
        sync_folder(target.parent)
    return Exported(
        path=target,
        views=None,
        warnings=tuple(facts.warnings),
        matches=tuple(Match(selector.name, selector.count, ()) for selector in facts.selectors),
        **{name: getattr(facts, name) for name in _Exported.__struct_fields__ if name not in ("selectors", "warnings")},
    )


def check_free(target: Path, *, as_zip: bool) -> None:
    """Raises `ConflictError` for a file that is there, or a folder with something in it."""
    if not (target.exists() or target.is_symlink()):
        return
    if as_zip or target.is_symlink() or not target.is_dir() or any(target.iterdir()):
        raise ConflictError(f"{target} is there already, and evidence is never replaced: name another place")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, removed in the end. A failing disk is a `StoreError`."""
    try:
        make_folder(target.parent)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise StoreError(f"could not write {target}: {error.strerror or error}") from error


def _download(calls: Calls, path: str, into: Path) -> None:
    request = Request(path=path, accept=_ZIP)
    tries = calls.tries()
    while True:
        try:
            size = 0
            into.unlink(missing_ok=True)  # what came before the connection was cut
            with calls.opened(request, seconds=_READ_SECONDS) as opened, create(into) as file:
                for chunk in opened.chunks():
                    size += len(chunk)
                    if size > BUNDLE_ZIP_BYTES_MAX:
                        raise StoreError(f"the bundle has more than {BUNDLE_ZIP_BYTES_MAX:,} bytes")
                    file.write(chunk)
                sync(file)
            return
        except FailedError as error:
            failure = error.failure
            if size:  # much had come: the time begins anew
                tries = calls.tries()
                failure = Failure(f"cut after {size:,} bytes: {failure.why}", reached=True)
            tries.again_after(failure, request)


def _unpack(packed: Path, folder: Path, facts: _Exported) -> None:
    """The three files of the bundle and no others, and that they are those of this export."""
    make_folder(folder, exist_ok=False)
    bounds = dict.fromkeys(BUNDLE_FILES, MANIFEST_BYTES_MAX) | {EVENTS_FILE: BUNDLE_EVENTS_BYTES_MAX}
    digests = {}
    try:
        with zipfile.ZipFile(packed) as archive:
            if sorted(info.filename for info in archive.infolist()) != sorted(BUNDLE_FILES):
                raise StoreError("what arrived is not the three files of a bundle")
            for name in BUNDLE_FILES:
                with archive.open(name) as source, create(folder / name) as file:
                    digests[name] = _copy(source, file, bounds[name])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise StoreError(f"what arrived is no bundle: {error}") from error
    if (digests[MANIFEST_FILE], digests[EVENTS_FILE]) != (facts.manifest_sha256, facts.events_sha256):
        raise TamperError("the bundle that arrived is not the one that the ledger recorded: its hashes are others")


def _copy(source: IO[bytes], file: IO[bytes], most: int) -> str:
    """Write a file out, of a bounded size; its SHA-256."""
    hasher, size = sha256(), 0
    for chunk in iter(lambda: source.read(1 << 20), b""):
        size += len(chunk)
        if size > most:
            raise StoreError(f"a file of the bundle has more than {most:,} bytes")
        hasher.update(chunk)
        file.write(chunk)
    sync(file)
    return hasher.hexdigest()


def _converted(job: Job, kind: Any) -> Any:
    if job.result is None:
        raise StoreError(f"the job {job.id} is done, and has no result")
    try:
        return msgspec.convert(job.result, kind)
    except msgspec.ValidationError as error:
        raise StoreError(f"the result of the job {job.id} cannot be read: {error}") from error
