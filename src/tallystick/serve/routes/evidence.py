"""Routes of controls and reports: what frameworks ask for, what the ledger has of it, and documents made from it."""

from __future__ import annotations

import threading
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from tallystick.errors import BusyError, RejectedError
from tallystick.evidence.controls.assessment import Assessor
from tallystick.evidence.controls.catalogue import Control, load
from tallystick.evidence.controls.period import Period
from tallystick.evidence.controls.search import search
from tallystick.evidence.report import CELLS_MAX, PDF_CELLS_MAX, REPORT_BYTES_MAX, Page, make, shipped
from tallystick.evidence.report import load as load_document
from tallystick.evidence.report.write import render
from tallystick.evidence.shapes import assessments_json, catalogue_json, control_json, document_json, matches_json
from tallystick.serve.calls import Exporting, Reading
from tallystick.serve.routes.answers import NOT_KEPT, Room, wanted
from tallystick.serve.routes.rendered import Rendered, rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

_HTML: Final = "text/html"
_PDF: Final = "application/pdf"
_LAYING_OUT: Final = threading.BoundedSemaphore(2)
"""How many reports are laid out as PDF at once."""

_OWN: Final = ("from", "to", "clock")
_NAME_CHARACTERS_MAX: Final = 60

From = Annotated[str | None, Query(alias="from", max_length=64, description="The first day (UTC), or a time.")]
To = Annotated[str | None, Query(alias="to", max_length=64, description="The last day (UTC), or the end; else now.")]
Clock = Annotated[Literal["recorded", "occurred"], Query(description="By which of an event's two times.")]
Framework = Annotated[str | None, Query(max_length=64, description="Only this one, such as SOC2.")]
Ids = Annotated[list[str] | None, Query(alias="id", max_length=256, description="Controls, such as CC7.2.")]
Question = Annotated[str, Query(alias="q", min_length=1, max_length=1_000, description="In words.")]


@router.get("/controls")
def list_controls(_: Reading, framework: Framework = None) -> dict[str, Any]:
    """What frameworks ask for, in our words."""
    known = load()
    return catalogue_json(known, known.controls if framework is None else known.of(framework))


@router.get("/controls/search")
def search_controls(_: Reading, question: Question, limit: Annotated[int, Query(ge=1, le=100)] = 10) -> dict[str, Any]:
    """The controls that a question is about, the best first."""
    return matches_json(question, search(load(), question, limit=limit))


@router.get("/controls/evidence")
def assess_controls(
    call: Exporting,
    *,
    framework: Framework = None,
    ids: Ids = None,
    first: From = None,
    last: To = None,
    clock: Clock = "recorded",
) -> Response:
    """What the ledger has that shows controls: all, those of a framework, or those of some ids; and what is missing.

    That events were recorded does not say that a control is met: that is for people to judge.
    """
    known = load()
    wanted_: tuple[Control, ...] = known.controls if framework is None else known.of(framework)
    if ids:
        if framework is not None:
            raise RejectedError("ids and a framework are both given", place="id", cure="give one of them")
        wanted_ = tuple({control.key: control for control in map(known.find, ids)}.values())
    period = _period(first, last, clock)
    with call.ledger() as ledger:
        assessor = Assessor(ledger, period)
        told = {"size": assessor.size, "time": clock, **assessments_json(assessor.assess_all(wanted_))}
    call.service.record(call.caller, "evidence_read", {"controls": [control.key for control in wanted_[:64]]})
    return rendered(told, headers=NOT_KEPT)


@router.get("/controls/{control:path}")
def explain_control(_: Reading, control: str) -> dict[str, Any]:
    """What one control asks for, which events show it, and what it may mean when there are none."""
    return control_json(load().find(control))


@router.get("/reports")
def list_reports(_: Reading) -> dict[str, Any]:
    """The reports that can be made, and what each has to be told."""
    return {"reports": [*map(document_json, shipped())]}


@router.get("/reports/{name}", responses={200: {"content": {_HTML: {}, _PDF: {}}}}, response_class=Response)
def make_report(
    call: Exporting,
    request: Request,
    name: str,
    *,
    first: From = None,
    last: To = None,
    clock: Clock = "recorded",
) -> Response:
    """Make a report, as HTML or by `Accept` as PDF; the other terms of the query are what it has to be told.

    Every figure of it is of one size of the ledger, and its checkpoint stands below it.
    """
    if name.endswith(".md"):  # a file's name, to the command line
        raise RejectedError("a report is named without its ending", place="name", cure="see GET /api/v1/reports")
    document = load_document(name[:_NAME_CHARACTERS_MAX])
    given: dict[str, str] = {}
    for key, value in request.query_params.multi_items():
        if key in _OWN:
            continue
        if key in given:
            raise RejectedError(f"{key[:40]} is given twice", place=key[:40], cure="give it once")
        given[key] = value
    document.values(given)
    kind = wanted(request, (_HTML, _PDF))
    cure = "ask for less time, or make it with the command line"
    room = Room(call, place="name", cure=cure, most=2 * REPORT_BYTES_MAX, times=1)
    with call.ledger() as ledger:
        period = _period(first, last, clock)
        made = make(
            *(ledger, document),
            period=period,
            catalogue=load(),
            given=given,
            held=room.hold,
            cells_max=PDF_CELLS_MAX if kind == _PDF else CELLS_MAX,
        )
    data = room.take(_laid_out(made.page) if kind == _PDF else render(made.page, "html"))
    call.service.record(call.caller, "report_made", {"report": document.name, "size": made.size})
    policy = {"Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
    return Response(data, media_type=kind, headers={**NOT_KEPT, **policy})


def _laid_out(page: Page) -> bytes:
    """The page as PDF. Raises `BusyError` when others are made already."""
    if not _LAYING_OUT.acquire(blocking=False):
        raise BusyError("other reports are being laid out as PDF: wait a moment, then ask again")
    try:
        return render(page, "pdf")
    finally:
        _LAYING_OUT.release()


def _period(first: str | None, last: str | None, clock: str) -> Period:
    try:
        return Period.between(first, last, occurred=clock == "occurred")
    except RejectedError as error:
        raise RejectedError(error.problem, place=error.place.removeprefix("--"), cure=error.cure) from error
