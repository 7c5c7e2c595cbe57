"""Answers as JSON has them: what the command line prints and the service sends. Their members do not change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from tallystick.core import timestamp
from tallystick.core.custody import RetentionPolicy
from tallystick.core.record import Record
from tallystick.read.compared import Compared
from tallystick.read.search import Page
from tallystick.read.state import Change, Difference, State, Turn
from tallystick.read.timeseries import Extent, Point, Series


def json_of(value: Any) -> bytes:
    """A value that has values of records in it, as JSON. Very small and very large numbers are of a type of their own
    there, which orjson does not know."""
    return orjson.dumps(value, default=float)


def record_json(record: Record) -> bytes:
    """The record's members as they were sealed, and its hash, as one JSON object."""
    return b'%b,"hash":"%b"}' % (record.line[:-1], record.hash.hex().encode())


def records_json(records: Iterable[Record], **members: Any) -> bytes:
    """An object of these members, and `records`."""
    listed = b",".join(map(record_json, records))
    head = orjson.dumps(members)
    return b'%b%b"records":[%b]}' % (head[:-1], b"," * bool(members), listed)


def page_json(page: Page) -> bytes:
    """A page."""
    verified = compared_json(page.index_verified)
    return records_json(
        page.records, assumptions=[*page.assumptions], cursor=page.cursor, index_verified=verified, size=page.size
    )


def compared_json(compared: Compared | None) -> dict[str, int | str] | None:
    """When the index that answered was last compared with the log, and up to where."""
    return None if compared is None else compared.to_json()


def whole_json(told: dict[str, Any], records: Iterable[Record]) -> bytes:
    """An answer, and with it in `whole` the records that it is about, so that who asked can make the answer anew."""
    head = json_of(told)
    return b'%b,"whole":[%b]}' % (head[:-1], b",".join(map(record_json, records)))


def state_whole(found: State) -> bytes:
    """What an entity was, with the events that made it."""
    told = {"folded": found.folded, "begins_at_version": found.begins_at_version}
    return whole_json({**state_json(found), **told}, found.events)


def difference_whole(found: Difference) -> bytes:
    """What became of an entity, with the records between and those that changes are by."""
    told = {"from_version": found.from_version, "to_version": found.to_version, "between": len(found.records)}
    between = {record.position for record in found.records}
    makers = [change.record for change in found.changes if change.record is not None]
    others = {record.position: record for record in makers if record.position not in between}
    return whole_json({**difference_json(found), **told}, [*found.records, *others.values()])


def state_json(found: State) -> dict[str, Any]:
    """What an entity was."""
    return {
        "entity_id": found.entity_id,
        "as_of": found.moment.described,
        "state": found.value,
        "version": found.version,
        "position": found.position,
        "made_by": found.made_by,
        "pruned": found.pruned,
        "events": [brief_json(record) for record in found.events],
        "size": found.size,
        "index_verified": compared_json(found.index_verified),
    }


def difference_json(found: Difference) -> dict[str, Any]:
    """What became of an entity."""
    return {
        "entity_id": found.entity_id,
        "from": found.earlier.described,
        "to": found.later.described,
        "changes": [change_json(change) for change in found.changes],
        "records": [brief_json(record) for record in found.records],
        "size": found.size,
    }


def turn_json(turn: Turn) -> dict[str, Any]:
    """A record, and what it changed."""
    return {**brief_json(turn.record), "changes": [change_json(change) for change in turn.changes]}


def series_json(series: Series) -> dict[str, Any]:
    """A series."""
    return {
        "buckets": [*map(point_json, series.buckets)],
        "width": series.width,
        "zone": series.zone,
        "measure": series.measure,
        "group": series.group,
        "time": series.time,
        "size": series.size,
        "source": series.source,
        "pruned_below": series.pruned_below,
        "assumptions": [*series.assumptions],
        "index_verified": compared_json(series.index_verified),
    }


def point_json(point: Point) -> dict[str, Any]:
    """A bucket of one group."""
    return {
        "start": _instant(point.start),
        "end": _instant(point.end),
        "label": point.label,
        "group": point.group,
        "value": point.value,
        "count": point.count,
    }


def extent_json(extent: Extent) -> dict[str, Any]:
    """From when to when, and how many."""
    first, last = (None if at is None else timestamp.render(at) for at in (extent.first, extent.last))
    return {"first": first, "last": last, "count": extent.count}


def policy_json(policy: RetentionPolicy | None, record: Record | None) -> dict[str, Any]:
    """For how long records are kept, and who set that; all None when nobody ever did."""
    return {
        "policy": policy and policy.to_json(),
        "text": policy and policy.text,
        "position": record and record.position,
        "recorded_at": record and record.recorded_at,
        "actor": record and record.actor,
        "reason": record and record.payload.get("reason"),
    }


def brief_json(record: Record) -> dict[str, Any]:
    """A record without its payload."""
    return {
        "position": record.position,
        "recorded_at": record.recorded_at,
        "occurred_at": record.occurred_at,
        "event_type": record.event_type,
        "actor": record.actor,
        "id": record.id,
    }


def change_json(change: Change) -> dict[str, Any]:
    """What became of a member."""
    position = None if change.record is None else change.record.position
    return {"member": change.member, "kind": change.kind, "old": change.old, "new": change.new, "position": position}


def _instant(moment: int) -> str | None:
    """An edge in UTC; None where it is outside of the years 1 to 9999."""
    try:
        return timestamp.render(moment)
    except OverflowError:
        return None
