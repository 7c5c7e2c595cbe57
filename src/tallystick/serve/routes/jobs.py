"""Routes of jobs: verifications, exports and prunes that are under way or over, and what they made."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask

from tallystick.errors import ConflictError, NotFoundError, RejectedError, TamperError
from tallystick.evidence.bundle.export import Exported
from tallystick.evidence.findings import Report
from tallystick.evidence.shapes import exported_json
from tallystick.ledger import Ledger
from tallystick.limits import (
    NOTE_BYTES_MAX,
    QUERY_TERM_CHARACTERS_MAX,
    QUERY_TERMS_MAX,
    SELECTORS_MAX,
    SIZE_MAX,
)
from tallystick.read.query import Query, parse_terms
from tallystick.read.signed import selectors_of
from tallystick.serve.calls import Call, Exporting, ExportingSome, Reading, ReadingAll
from tallystick.serve.jobs import Job
from tallystick.serve.routes.answers import NOT_KEPT
from tallystick.serve.routes.rendered import Rendered, rendered
from tallystick.serve.watch import verified

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

_CHUNK_BYTES: Final = 1 << 18

Checkpoint = Annotated[str, Field(max_length=NOTE_BYTES_MAX)]
Terms = Annotated[list[Annotated[str, Field(max_length=QUERY_TERM_CHARACTERS_MAX)]], Field(max_length=QUERY_TERMS_MAX)]
When = Annotated[str, Field(max_length=64)]
Position = Annotated[int, Field(ge=0, le=SIZE_MAX)]


class NewVerification(BaseModel):
    """What is to be verified."""

    model_config = ConfigDict(extra="forbid")

    first: Position = 0
    end: Position | None = None
    since: Checkpoint | None = None
    """A checkpoint that was kept: the ledger must still contain all that it covers."""


class NewExport(BaseModel):
    """What is to be exported: a range, whole, or of it the records that fit `terms`, or any of several `queries`."""

    model_config = ConfigDict(extra="forbid")

    terms: Terms = []
    queries: Annotated[list[Terms], Field(max_length=SELECTORS_MAX)] = []
    first: Position | None = None
    end: Position | None = None
    after: When | None = None
    before: When | None = None
    since: Checkpoint | None = None
    """A checkpoint that the receiver has: the bundle begins there, and is held against it."""


def accepted(job: Job) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The answer to whoever ordered a job: it, and where to ask what becomes of it."""
    return job.to_json(), 202, {"Location": f"/api/v1/jobs/{job.id}", "Retry-After": "1", **NOT_KEPT}


@router.post("/verify", status_code=202)
def verify(call: ReadingAll, new: NewVerification) -> Response:
    """Check every record, and the tree over all, as a job. Its result says whether the ledger holds, and each finding.

    This is the service's own word: an auditor verifies an export with a verifier that is not ours.
    """
    service, caller = call.service, call.caller
    is_ours = new == NewVerification()
    """Only what is held against our own checkpoint, and nothing that the caller chose, is remembered."""

    def work(job: Job) -> dict[str, Any]:
        def verify_one(ledger: Ledger) -> Report:
            if is_ours:
                return verified(ledger, since=service.watch.kept(caller.ledger), progress=job.progress)
            return ledger.verify(
                first=new.first,
                end=new.end,
                since=None if new.since is None else new.since.encode(),
                processes=1,  # beside it the service goes on
                apart=True,
                progress=job.progress,
            )

        report = service.long_work(caller, verify_one)
        if is_ours:
            service.watch.take(caller.ledger, report)
        return report.to_json()

    job = service.jobs.begin(caller.tenant, "verify", new.model_dump(), work)
    service.record(caller, "verification_ordered", {"job": job.id})
    return rendered(*accepted(job))


@contextmanager
def _checkpoint_of_caller(since: str | None) -> Iterator[None]:
    """A checkpoint that a caller sends may be of any ledger: what it contradicts is no damage of ours."""
    try:
        yield
    except TamperError as error:
        if since is None:
            raise
        raise RejectedError(str(error), place="since", cure="send a checkpoint of this ledger") from error


@router.post("/exports", status_code=202)
def export(call: ExportingSome, new: NewExport) -> Response:
    """Make an evidence bundle, as a job; then fetch it from `/api/v1/jobs/{id}/bundle`. The ledger records it.

    For a key with a scope it is a filtered one, of the records in the scope; the signed selectors say so.
    """
    if new.terms and new.queries:
        raise RejectedError("terms and queries are both given", place="terms", cure="give one of them")
    queries = [parse_terms(terms) for terms in ([new.terms] if new.terms else new.queries)]
    service, caller = call.service, call.caller
    scope = caller.principal.scope
    # What cannot be signed is refused here, and not by the job.
    selectors = selectors_of(queries or ([] if scope.is_whole else [Query()]), within=scope.terms)
    service.disk.check_large()

    def work(job: Job) -> dict[str, Any]:
        def export_one(ledger: Ledger) -> Exported:
            job.file.unlink(missing_ok=True)
            with _checkpoint_of_caller(new.since):
                return ledger.export(
                    job.file,
                    selectors=selectors,
                    filtered=bool(selectors),
                    first=new.first,
                    end=new.end,
                    after=new.after,
                    before=new.before,
                    since=None if new.since is None else new.since.encode(),
                    actor=caller.principal.actor,
                    as_zip=True,
                    progress=job.progress,
                )

        exported = service.long_work(caller, export_one)
        job.made(exported.zip_sha256, exported.zip_bytes)
        return exported_json(exported)

    asked = new.model_dump(exclude_defaults=True) | ({} if scope.is_whole else {"scope": [*scope.terms]})
    job = service.jobs.begin(caller.tenant, "export", asked, work, by=caller.principal.entity)
    service.record(caller, "export", {"job": job.id, "asked": job.asked})
    return rendered(*accepted(job))


@router.get("/verify")
def last_verification(call: ReadingAll) -> dict[str, Any]:
    """What the last verification of the whole ledger came to, ordered or by the service itself."""
    seen = call.service.watch.of(call.caller.ledger)
    return {"last": None if seen is None else seen.to_json()}


@router.get("/jobs")
def list_jobs(call: ReadingAll) -> dict[str, Any]:
    """The jobs of the caller's tenant that are under way, or were over less than a day ago; the newest first."""
    return {"jobs": [job.to_json() for job in call.service.jobs.all_of(call.caller.tenant)]}


def _job_of(call: Call, job_id: str) -> Job:
    """A job that the caller may see: with a scope only their own export. Raises `NotFoundError`, alike for all else."""
    principal = call.caller.principal
    return call.service.jobs.get(call.caller.tenant, job_id, by=None if principal.scope.is_whole else principal.entity)


@router.get("/jobs/{job_id}")
def job_progress(call: Reading, job_id: str) -> Response:
    """How far a job is, and when it is over its result or its problem. With a scope only of one's own exports."""
    return rendered(_job_of(call, job_id).to_json(), headers=NOT_KEPT)


@router.delete("/jobs/{job_id}", status_code=204)
def delete_job(call: Exporting, job_id: str) -> None:
    """Remove a job and what it made; one that is under way ends."""
    if call.service.jobs.get(call.caller.tenant, job_id).kind == "prune":
        call.service.permit(call.caller, "Erase")
    call.service.jobs.delete(call.caller.tenant, job_id)
    call.service.record(call.caller, "job_deleted", {"job": job_id[:64]})


@router.get("/jobs/{job_id}/bundle", response_class=StreamingResponse)
def bundle(call: ExportingSome, job_id: str) -> Response:
    """The bundle that an export made: a zip of three files, to be verified with `tallystick-verify`."""
    job = _job_of(call, job_id)
    if job.kind != "export":
        raise NotFoundError(f"the job {job_id[:60]!r} makes no bundle")
    if job.state != "done" or job.result is None:
        raise ConflictError(f"the export is {job.state}: there is a bundle once it is done")
    digest = job.result["manifest_sha256"]
    with ExitStack() as stack:
        file = stack.enter_context(job.open_file())
        call.service.record(call.caller, "export_fetched", {"job": job.id, "manifest_sha256": digest})
        stack.pop_all()  # it is closed when it was sent
    headers = {
        "ETag": f'"{digest}"',
        "Content-Length": str(os.fstat(file.fileno()).st_size),
        "Content-Disposition": f'attachment; filename="{call.caller.tenant}-{digest[:12]}.zip"',
    }
    chunks = iter(partial(file.read, _CHUNK_BYTES), b"")
    return StreamingResponse(
        chunks, media_type="application/zip", headers=headers, background=BackgroundTask(file.close)
    )
