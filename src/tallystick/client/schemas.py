"""The schemas of the ledger behind the service: what events have to look like, asked and ordered over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, get_args

import msgspec
import orjson

from tallystick.client.answers import read, schema_of
from tallystick.client.calls import Calls, Request
from tallystick.client.paths import quoted
from tallystick.core.canonical import decode, to_json
from tallystick.core.event import Event
from tallystick.core.moment import Moment
from tallystick.core.schema import Compatibility, Enforcement, Target
from tallystick.errors import RejectedError, StoreError
from tallystick.govern.registered import RegisteredSchema
from tallystick.govern.schemas import Verdict
from tallystick.limits import INPUT_BYTES_MAX

_PATH: Final = "/api/v1/schemas"


class _Enforcement(msgspec.Struct):
    enforcement: str


class _Listed(msgspec.Struct):
    enforcement: str
    schemas: list[Any]


class _Versions(msgspec.Struct):
    versions: list[Any]


class _Inferred(msgspec.Struct):
    schema: dict[str, Any]
    events: int


class _Verdict(msgspec.Struct):
    taken: bool
    problem: str = ""
    place: str = ""
    cure: str = ""


class _Verdicts(msgspec.Struct):
    events: list[_Verdict]


class Schemas:
    """The schemas of one ledger, as `Ledger.schemas` has them. Who ordered what is the key that is sent."""

    def __init__(self, calls: Calls) -> None:
        self._calls: Final = calls

    def register(
        self,
        name: str,
        version: int | None,
        schema: Mapping[str, Any] | bytes,
        *,
        target: Target = "payload",
        compatibility: Compatibility | None = None,
        reason: str | None = None,
    ) -> RegisteredSchema:
        """Register a version of the schema of an event type; None is the next. The same again changes nothing.

        Raises `RejectedError`, also for a version that breaks the one before, and `ConflictError`.
        """
        document = decode(schema) if isinstance(schema, bytes) else schema
        said = {"name": name, "schema": document, "target": target}
        said |= {
            key: value
            for key, value in (("version", version), ("compatibility", compatibility), ("reason", reason))
            if value is not None
        }
        return schema_of(_object(self._send("POST", _PATH, to_json(said))))

    def enforce(self, enforcement: Enforcement, *, reason: str | None = None) -> Enforcement:
        """Say how schemas are enforced from now on; the same again changes nothing."""
        said = {"enforcement": enforcement} | ({} if reason is None else {"reason": reason})
        return _enforcement(read(self._send("PUT", f"{_PATH}/enforcement", to_json(said)), _Enforcement).enforcement)

    def enforcement(self, as_of: datetime | str | None = None) -> Enforcement:
        """How schemas are enforced, now or at a moment of recorded time."""
        return _enforcement(self._listed(as_of).enforcement)

    def list(self, as_of: datetime | str | None = None) -> Sequence[RegisteredSchema]:
        """The newest version of every schema, by name, now or at a moment of recorded time."""
        return [schema_of(one) for one in self._listed(as_of).schemas]

    def get(self, name: str, version: int | None = None, *, as_of: datetime | str | None = None) -> RegisteredSchema:
        """One version of a schema, by default the newest. Raises `NotFoundError`."""
        terms = _moment_terms(as_of) + (() if version is None else (f"version={version}",))
        return schema_of(_object(self._get(f"{_PATH}/{quoted(name)}", *terms)))

    def history(self, name: str) -> tuple[RegisteredSchema, ...]:
        """Every version of a schema, with when and by whom it was registered. Raises `NotFoundError`."""
        found = read(self._get(f"{_PATH}/{quoted(name)}/history"), _Versions)
        return tuple(schema_of(one) for one in found.versions)

    def validate(self, events: Iterable[Event | Mapping[str, Any] | bytes]) -> Iterator[Verdict]:
        """What would become of events if they came now, each by itself; nothing is sealed."""
        batch: list[bytes] = []
        index = 0
        for index, event in enumerate(events, 1):
            try:
                data = _event_json(event)
            except RejectedError as error:
                yield from self._verdicts(batch, index - 1 - len(batch))
                batch = []
                problem, place, cure = error.problem, error.place, error.cure
                yield Verdict(index=index - 1, taken=False, problem=problem, place=place, cure=cure)
                continue
            if sum(map(len, batch)) + len(batch) + len(data) + 2 > INPUT_BYTES_MAX:
                yield from self._verdicts(batch, index - 1 - len(batch))
                batch = []
            batch.append(data)
        yield from self._verdicts(batch, index - len(batch))

    def infer(self, name: str, *, enums: bool = False) -> tuple[dict[str, Any], int]:
        """A schema that the payloads of all recorded events of a type fit, and of how many it was made."""
        found = read(self._get(f"{_PATH}/{quoted(name)}/infer", f"enums={str(enums).lower()}"), _Inferred)
        return found.schema, found.events

    def _verdicts(self, batch: Sequence[bytes], first: int) -> Iterator[Verdict]:
        if not batch:
            return
        body = b"[%b]" % b",".join(batch)
        request = Request(method="POST", path=f"{_PATH}/validate", body=body)
        verdicts = read(self._calls.call(request).body, _Verdicts).events
        if len(verdicts) != len(batch):
            raise StoreError("the answer has not a verdict for each event")
        for index, one in enumerate(verdicts, first):
            yield Verdict(index=index, taken=one.taken, problem=one.problem, place=one.place, cure=one.cure)

    def _listed(self, as_of: datetime | str | None) -> _Listed:
        return read(self._get(_PATH, *_moment_terms(as_of)), _Listed)

    def _send(self, method: str, path: str, body: bytes) -> bytes:
        return self._calls.call(Request(method=method, path=path, body=body, changes=True)).body

    def _get(self, path: str, *terms: str) -> bytes:
        return self._calls.call(Request(path=path, terms=terms)).body


def _moment_terms(as_of: datetime | str | None) -> tuple[str, ...]:
    return () if as_of is None else (f"as_of={Moment.of(as_of, place='as_of').text}",)


def _event_json(event: Event | Mapping[str, Any] | bytes) -> bytes:
    """The event as it can stand in an array. Raises `RejectedError`."""
    if isinstance(event, bytes):
        if len(event) <= INPUT_BYTES_MAX - 2:
            decode(event)
        data = event
    else:
        data = to_json(event.members() if isinstance(event, Event) else dict(event))
    if len(data) > INPUT_BYTES_MAX - 2:
        raise RejectedError(f"an event of {len(data):,} bytes; at most {INPUT_BYTES_MAX:,} are allowed")
    return data


def _enforcement(text: str) -> Enforcement:
    for known in get_args(Enforcement):
        if text == known:
            word: Enforcement = known
            return word
    raise StoreError(f"an enforcement that is {text[:40]!a}: what that is, only a newer client knows")


def _object(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise StoreError(f"the answer cannot be read: {error}") from error
