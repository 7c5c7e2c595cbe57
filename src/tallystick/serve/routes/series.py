"""Routes of time series: how many there were when, and which series are stored so that they outlive their records."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

import orjson
from fastapi import APIRouter, Request, Response
from fastapi import Query as Asked
from pydantic import BaseModel, ConfigDict, Field

from tallystick.core import timestamp
from tallystick.limits import ANSWERED_POINTS_MAX, SERIES_BYTES_MAX
from tallystick.read.query import Query, parse_terms
from tallystick.read.shapes import extent_json, json_of, point_json, series_json
from tallystick.serve.calls import ManagingPipelines, MeasuringAll
from tallystick.serve.routes.answers import CSV, JSON, NOT_KEPT, WITH_TERMS, Room, csv_answer, query_of, wanted
from tallystick.serve.routes.rendered import Rendered, rendered

router: Final = APIRouter(prefix="/api/v1", route_class=Rendered)

_OWN: Final = ("width", "zone", "measure", "group", "fill", "time")
_COLUMNS: Final = ("start", "end", "label", "group", "value", "count")

Name = Annotated[str, Field(max_length=512)]
Clock = Annotated[Literal["recorded", "occurred"], Asked(description="By which of an event's two times.")]
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
def series_range(call: MeasuringAll, request: Request, time: Clock = "recorded") -> Response:
    """From when to when there are records that fit, and how many."""
    with call.ledger() as ledger:
        found = ledger.extent(query_of(request, ("time",)), time=time)
    return rendered(extent_json(found), headers=NOT_KEPT)


@router.get("/timeseries/query", openapi_extra=WITH_TERMS, responses={200: {"content": {CSV: {}}}})
def series_query(
    call: MeasuringAll,
    request: Request,
    *,
    width: Annotated[str, Asked(max_length=16, description="minute, hour, day, week, month, quarter or year.")] = "day",
    zone: Annotated[str, Asked(max_length=64)] = "UTC",
    measure: Annotated[str, Asked(max_length=512, description="count, distinct:actor, sum:payload.rows.")] = "count",
    group: Annotated[str | None, Asked(max_length=16, description="type, actor, entity or label.")] = None,
    fill: bool = False,
    time: Clock = "recorded",
) -> Response:
    """The records that fit, counted or measured by buckets of time, and by groups; as JSON or CSV."""
    query, window = _windowed(query_of(request, _OWN), time)
    cure = "ask for wider buckets, for less time, or for fewer groups"
    room = Room(call, place="width", cure=cure, most=SERIES_BYTES_MAX, times=1)
    with call.ledger() as ledger:
        found = ledger.series(
            query,
            width=width,
            zone=zone,
            measure=measure,
            group=group,
            fill=fill,
            time=time,
            points_max=ANSWERED_POINTS_MAX,
            held=room.hold,
            **window,
        )
    points = map(point_json, found.buckets)  # one by one: as values they take several times what they are in the end
    if wanted(request, (JSON, CSV)) == CSV:
        return csv_answer(_COLUMNS, ([point[name] for name in _COLUMNS] for point in points), NOT_KEPT)
    buckets = orjson.Fragment(b"[%b]" % b",".join(map(json_of, points)))
    told = {**series_json(replace(found, buckets=())), "buckets": buckets}
    return Response(json_of(told), media_type=JSON, headers=NOT_KEPT)


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


def _windowed(query: Query, time: Literal["recorded", "occurred"]) -> tuple[Query, dict[str, str | None]]:
    """The query without the time that is asked for, and that time as a series takes it: so `fill` fills all of it."""
    names = {end: end if time == "recorded" else f"occurred_{end}" for end in ("after", "before")}
    window = {}
    for end, name in names.items():
        moment = getattr(query, name)
        text = None if moment is None else timestamp.render(moment)
        window[end] = text[:10] if text and name in query.dates else text
    cleared: dict[str, Any] = dict.fromkeys(names.values())
    dates = tuple(name for name in query.dates if name not in cleared)
    return replace(query, **cleared, dates=dates), window
