"""Routes of time series: how many there were when, and which series are stored so that they outlive their records."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from tallystick.read.query import parse_terms
from tallystick.read.shapes import extent_json, series_json
from tallystick.serve.calls import ManagingPipelines, MeasuringAll
from tallystick.serve.routes.answers import CSV, JSON, NOT_KEPT, WITH_TERMS, csv_answer, query_of, wanted

router: Final = APIRouter(prefix="/api/v1")

_OWN: Final = ("width", "zone", "measure", "group", "fill")
_COLUMNS: Final = ("start", "end", "label", "group", "value", "count")

Name = Annotated[str, Field(max_length=512)]
Terms = Annotated[list[Annotated[str, Field(max_length=2_048)]], Field(max_length=256)]


class NewRollup(BaseModel):
    """A series to be stored."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    terms: Terms = []
    width: Name = "day"
    zone: Name = "UTC"
    measures: Annotated[list[Name], Field(min_length=1, max_length=16)] = ["count"]
    group: Literal["type", "actor", "entity", "label"] | None = None
    time: Literal["recorded", "occurred"] = "recorded"


@router.get("/timeseries/range", openapi_extra=WITH_TERMS)
def series_range(call: MeasuringAll, request: Request) -> Response:
    """From when to when there are records that fit, and how many."""
    with call.ledger() as ledger:
        found = ledger.extent(query_of(request))
    return JSONResponse(extent_json(found), headers=NOT_KEPT)


@router.get("/timeseries/query", openapi_extra=WITH_TERMS, responses={200: {"content": {CSV: {}}}})
def series_query(
    call: MeasuringAll,
    request: Request,
    *,
    width: Annotated[str, Query(max_length=16, description="minute, hour, day, week, month, quarter or year.")] = "day",
    zone: Annotated[str, Query(max_length=64)] = "UTC",
    measure: Annotated[str, Query(max_length=512, description="count, distinct:actor, sum:payload.rows.")] = "count",
    group: Annotated[str | None, Query(max_length=16, description="type, actor, entity or label.")] = None,
    fill: bool = False,
) -> Response:
    """The records that fit, counted or measured by buckets of time, and by groups; as JSON or CSV."""
    with call.ledger() as ledger:
        found = ledger.series(query_of(request, _OWN), width=width, zone=zone, measure=measure, group=group, fill=fill)
    told = series_json(found)
    if wanted(request, (JSON, CSV)) == CSV:
        return csv_answer(_COLUMNS, ([bucket[name] for name in _COLUMNS] for bucket in told["buckets"]), NOT_KEPT)
    return JSONResponse(told, headers=NOT_KEPT)


@router.get("/timeseries/downsample")
def list_rollups(call: MeasuringAll) -> dict[str, Any]:
    """The series that are stored."""
    with call.ledger() as ledger:
        return {"rollups": [one.to_json() for one in ledger.rollups()]}


@router.post("/timeseries/downsample", status_code=201)
def downsample(call: ManagingPipelines, new: NewRollup) -> dict[str, Any]:
    """Have a series stored from now on, kept up as records come, also when they are pruned.

    A query that asks the same is answered from it. The same name again replaces it.
    """
    with call.ledger() as ledger:
        ledger.downsample(
            new.name,
            parse_terms(new.terms),
            width=new.width,
            zone=new.zone,
            measure=new.measures,
            group=new.group,
            time=new.time,
            actor=call.caller.principal.actor,
        )
    call.service.record(call.caller, "rollup_defined", {"name": new.name})
    return new.model_dump()
