"""Upcasters: how an event sealed under an old version of its type is read as the newest one.

An upcaster leads from version n of an event type to n + 1. It is a Python function of the payload, or a list of
declared operations, which can be stored. Upcasting makes a new `Record`: the members are read anew, the stored
bytes stay what they are (I2), so nothing that an operation drops is lost.

Members are `MemberPath` texts from the payload inward, and exact: they do not go through arrays. How such a
member is read, set and taken away stands here too; documents are never changed, what differs is copied.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

from tallystick.core.canonical import SURROGATE, canonical, decode, decode_and_encode, encode, to_json
from tallystick.core.content import is_event_type
from tallystick.core.member import MemberPath
from tallystick.core.record import Record
from tallystick.errors import ConflictError, RejectedError
from tallystick.limits import DEPTH_MAX, INTEGER_MAX, RECORD_BYTES_MAX

STEPS_MAX: Final = 100
"""Upcasters of one event type: each is one more step for every old record that is read."""

DECLARATION_BYTES_MAX: Final = 65_536
"""The canonical JSON of one declaration: it is a few lines that a person wrote, and may be an event's payload."""

OPERATIONS_MAX: Final = 100
"""Operations in one declaration: each is done again for every record."""

CHILDREN_MAX: Final = 100_000
"""Members of one object, or elements of one array, in what is derived from events. Such a container is copied when
an event changes it, so this bounds the work of an event, to about a millisecond."""

Payload = dict[str, Any]
Step = Callable[[Payload], Payload]
"""From the payload of one version to that of the next. It may change what it is given, and must be pure."""

Compiled = TypeVar("Compiled")
Kinds: TypeAlias = dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[dict[str, Any], str], Compiled]]]
"""Kind of declared object → the members it must have, those it may have, and what makes something of it."""

ABSENT: Final[Any] = object()
"""What stands where a document has no such member; null is a value."""


class Upcasters:
    """Which steps there are: for every event type, at most one from each version to the next.

    Registered once, when an application starts; reading is safe for many threads.
    """

    def __init__(self) -> None:
        self._steps: Final[dict[str, dict[int, Step]]] = {}
        self.declared: Final[dict[str, dict[str, Any]]] = {}
        self._all_declared = True

    def register(self, event_type: str, from_version: int, step: Step) -> None:
        """Add a Python function as the step from `from_version`. It is given a deep copy of the payload.

        What it returns must be an object that a payload may be. Raises `RejectedError`, or `ConflictError` when
        there is such a step.
        """
        if not callable(step):
            raise RejectedError(f"a {type(step).__name__} is not a function", place="step")
        self._add(event_type, from_version, step=_checked(step))
        self._all_declared = False

    def declare(self, event_type: str, from_version: int, operations: Sequence[dict[str, Any]]) -> None:
        """Add a list of operations as the step from `from_version`. They are done in their order:

        - `{"op":"rename","member":"ip","to":"source_ip"}`: another name, in the same parent.
        - `{"op":"move","from":"user.name","to":"name"}`: taken out there, put in here. An object that is left
          without members stays.
        - `{"op":"default","member":"role","value":"viewer"}`: set if it is absent.
        - `{"op":"drop","member":"x"}`: taken out.
        - `{"op":"map","member":"role","values":{"1":"admin"},"otherwise":"viewer"}`: replaced by the value that
          stands for it. A string is looked up as it is; a number, true, false and null by their JSON text; an
          object or array is never found. What is not found becomes `otherwise`, or stays when that is not given.

        When the member is absent, all but `default` do nothing. `rename` and `move` replace a target that is there,
        and put an object in the place of a parent that is none. `default` replaces nothing: it makes parents that are
        absent, and does nothing when one is there and is no object.

        Raises `RejectedError` with the place in the list, or `ConflictError` when there is such a step.
        """
        plain = declaration(operations, place="operations")
        if type(plain) is not list:
            raise RejectedError("not a list", place="operations", cure='send [{"op":"drop","member":"x"}]')
        places = ((operation, f"operations/{index}") for index, operation in enumerate(plain))
        steps = [compile_one(operation, place, kind="op", kinds=_OPERATIONS) for operation, place in places]

        def step(payload: Payload) -> Payload:
            for change in steps:
                payload = change(payload)
            return payload

        self._add(event_type, from_version, step=step)
        self.declared.setdefault(event_type, {})[str(from_version)] = plain

    def upcast(self, record: Record) -> Record:
        """The record with its payload in the newest version that the steps lead to without a gap.

        A record that no step begins at comes back as it is. Raises `RejectedError` that names the type, the version
        and the position when a step fails, or returns what no payload may be.
        """
        steps = self._steps.get(record.members["event_type"], {})
        version: int = record.members["event_version"]
        if version not in steps:
            return record
        payload: Payload = record.members["payload"]
        while version in steps:
            try:
                payload = steps[version](payload)
            except Exception as error:  # the function is the application's: whatever it raises is told
                problem = f"the upcaster of {record.event_type} from version {version} failed: {told(error)}"
                cure = "mend the upcaster, so that it takes every payload of that version"
                raise RejectedError(problem, place=f"position {record.position}", cure=cure) from error
            version += 1
        return Record(record.line, {**record.members, "payload": payload, "event_version": version})

    @property
    def fingerprint(self) -> str | None:
        """SHA-256, in hex, of all that was declared, in whichever order. None when a Python function is among the
        steps: what it does today says nothing of what it did yesterday."""
        declared = b"tallystick/v1/upcasters\0" + encode(self.declared)
        return hashlib.sha256(declared).hexdigest() if self._all_declared else None

    def _add(self, event_type: str, from_version: int, *, step: Step) -> None:
        if type(event_type) is not str or not is_event_type(event_type):
            cure = "name one type, such as user.created"
            raise RejectedError(f"{shown(event_type)} is not an event type", place="event_type", cure=cure)
        if type(from_version) is not int or not 1 <= from_version < INTEGER_MAX:
            problem = f"{shown(from_version)} is not a version that another can follow"
            raise RejectedError(problem, place="from_version", cure="give an integer from 1")
        steps = self._steps.get(event_type, {})
        if from_version in steps:
            raise ConflictError(f"{event_type} has an upcaster from version {from_version} already")
        if len(steps) >= STEPS_MAX:
            raise RejectedError(f"{event_type} has {STEPS_MAX} upcasters, which is the most", place="from_version")
        self._steps[event_type] = {**steps, from_version: step}


def _checked(step: Step) -> Step:
    def checked(payload: Payload) -> Payload:
        value, size = plain_object(step(copied(payload)), "payload")
        if size > RECORD_BYTES_MAX:
            raise RejectedError(f"it gave a payload of {size} bytes; at most {RECORD_BYTES_MAX} are allowed")
        return value

    return checked


# ------------------------------------------------------------------------------------- declared operations


def _rename(operation: dict[str, Any], place: str) -> Step:
    source = member_parts(operation["member"], f"{place}/member")
    target = member_parts(operation["to"], f"{place}/to")
    if len(target) != 1:
        cure = "give one name, or use the operation move"
        raise RejectedError("a member is renamed within its parent", place=f"{place}/to", cure=cure)
    return _moving(source, (*source[:-1], *target), place=place)


def _move(operation: dict[str, Any], place: str) -> Step:
    source = member_parts(operation["from"], f"{place}/from")
    return _moving(source, member_parts(operation["to"], f"{place}/to"), place=place)


def _moving(source: tuple[str, ...], target: tuple[str, ...], *, place: str) -> Step:
    if source == target:
        raise RejectedError("the member would stay where it is", place=f"{place}/to", cure="give another target")

    def move(payload: Payload) -> Payload:
        value = member_at(payload, source)
        if value is ABSENT:
            return payload
        check_room(target, value)
        return with_member(without_member(payload, source), target, value)

    return move


def _default(operation: dict[str, Any], place: str) -> Step:
    parts, value = member_parts(operation["member"], f"{place}/member"), operation["value"]
    check_room(parts, value, place=f"{place}/value")

    def default(payload: Payload) -> Payload:
        for count in range(1, len(parts)):
            parent = member_at(payload, parts[:count])
            if parent is not ABSENT and type(parent) is not dict:
                return payload
        return with_member(payload, parts, copied(value)) if member_at(payload, parts) is ABSENT else payload

    return default


def _drop(operation: dict[str, Any], place: str) -> Step:
    parts = member_parts(operation["member"], f"{place}/member")
    return lambda payload: without_member(payload, parts)


def _map(operation: dict[str, Any], place: str) -> Step:
    parts, values = member_parts(operation["member"], f"{place}/member"), operation["values"]
    if type(values) is not dict:
        raise RejectedError("not an object", place=f"{place}/values", cure='send what stands for what: {"1":"admin"}')
    otherwise = operation.get("otherwise", ABSENT)
    for value in (*values.values(), otherwise):
        check_room(parts, value, place=place)

    def change(payload: Payload) -> Payload:
        old = member_at(payload, parts)
        if old is ABSENT:
            return payload
        new = otherwise if type(old) in (dict, list) else values.get(_key(old), otherwise)
        return payload if new is ABSENT else with_member(payload, parts, copied(new))

    return change


def _key(value: Any) -> str:
    return value if type(value) is str else encode(value).decode()


_OPERATIONS: Final[Kinds[Step]] = {
    "rename": (("member", "to"), (), _rename),
    "move": (("from", "to"), (), _move),
    "default": (("member", "value"), (), _default),
    "drop": (("member",), (), _drop),
    "map": (("member", "values"), ("otherwise",), _map),
}


# ------------------------------------------------------------------------------------ reading declarations


def declaration(value: Any, *, place: str) -> Any:
    """A declaration as plain JSON of its own, within the bounds. Raises `RejectedError`."""
    if isinstance(value, list | tuple) and len(value) > OPERATIONS_MAX:
        raise RejectedError(f"{len(value)} at once; at most {OPERATIONS_MAX} are allowed", place=place)
    try:
        out = canonical(value)
    except RejectedError as error:
        raise RejectedError(error.problem, place=f"{place}{error.place}", cure=error.cure) from error
    if len(out) > DECLARATION_BYTES_MAX:
        problem = f"a declaration of {len(out)} bytes; at most {DECLARATION_BYTES_MAX} are allowed"
        raise RejectedError(problem, place=place)
    return decode(out)


def compile_one(declared: Any, place: str, *, kind: str, kinds: Kinds[Compiled]) -> Compiled:
    """What is done for one declared object. Its member `kind` says which of `kinds`. Raises `RejectedError`."""
    name = declared.get(kind) if type(declared) is dict else None
    if type(name) is not str or name not in kinds:
        cure = f"use one of {', '.join(kinds)}"
        raise RejectedError(f"{shown(name)} is no {kind} that there is", place=f"{place}/{kind}", cure=cure)
    required, optional, compiler = kinds[name]
    check_names(declared, place, required=(kind, *required), optional=optional)
    return compiler(declared, place)


def check_names(value: dict[str, Any], place: str, *, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Hold an object of a declaration to its member names. Raises `RejectedError`."""
    for name in required:
        if name not in value:
            raise RejectedError(f"the member {name} is missing", place=place, cure=f"give {', '.join(required)}")
    for name in value:
        if name not in required and name not in optional:
            cure = f"give {', '.join((*required, *optional))} and nothing else"
            raise RejectedError("there is no such member here", place=f"{place}/{name[:60]}", cure=cure)


def member_parts(text: Any, place: str) -> tuple[str, ...]:
    """The parts of the path in a declaration. Raises `RejectedError`."""
    if type(text) is not str:
        raise RejectedError(f"{shown(text)} is not the path of a member", place=place, cure="send it as a string")
    parts = MemberPath.parse(text, place=place).parts
    if any(SURROGATE.search(part) for part in parts):
        raise RejectedError("the path has a lone surrogate, which no member's name can have", place=place)
    check_room(parts, None, place=place)
    return parts


def shown(value: object) -> str:
    """A value in an error, in short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def told(error: Exception) -> str:
    """What an exception says, in short: ours as they are, those of others with their kind."""
    text = str(error) if isinstance(error, RejectedError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= 300 else f"{text[:297]}..."


# ------------------------------------------------------------------------------------- members of documents


def member_at(document: Any, parts: Sequence[str]) -> Any:
    """The value at the end of the path, an array or object whole; `ABSENT` when there is none."""
    for part in parts:
        if type(document) is not dict or part not in document:
            return ABSENT
        document = document[part]
    return document


def with_member(document: dict[str, Any], parts: Sequence[str], value: Any) -> dict[str, Any]:
    """A document that has the value at the path. It shares with the old one all that the path does not touch.

    What stands in the way and is no object gives way to one. The caller sees to the depth (`check_room`).
    """
    out = dict(document)
    if len(parts) > 1:
        child = document.get(parts[0])
        value = with_member(child if type(child) is dict else {}, parts[1:], value)
    out[parts[0]] = value
    check_children(out)
    return out


def without_member(document: dict[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """A document without the member, sharing the rest; the same document when it has none."""
    if member_at(document, parts) is ABSENT:
        return document
    out = dict(document)
    if len(parts) > 1:
        out[parts[0]] = without_member(document[parts[0]], parts[1:])
    else:
        del out[parts[0]]
    return out


def is_same(old: Any, new: Any) -> bool:
    """Whether two JSON values are one: as Python compares them, but true is not 1."""
    if old is new:
        return True
    if old != new:
        return False
    if type(old) is dict:
        return all(is_same(value, new[name]) for name, value in old.items())
    return all(map(is_same, old, new)) if type(old) is list else (type(old) is bool) == (type(new) is bool)


def merge_patch(target: Any, patch: Any) -> Any:
    """The target after a JSON merge patch (RFC 7396 section 2). Neither is changed; the result shares with both."""
    if type(patch) is not dict:
        return patch
    out = dict(target) if type(target) is dict else {}
    for name, value in patch.items():
        if value is None:
            out.pop(name, None)
        elif type(value) is dict:
            out[name] = merge_patch(out.get(name), value)
        else:
            out[name] = value
    check_children(out)
    return out


def copied(value: Any) -> Any:
    """A deep copy of a JSON value, members in name order: all of it is the receiver's to change."""
    if type(value) is dict:
        return {name: copied(value[name]) for name in sorted(value)}
    return [copied(element) for element in value] if type(value) is list else value


def plain_object(value: Any, name: str) -> tuple[dict[str, Any], int]:
    """What a Python function gave, as a JSON object of our own with its canonical length in bytes.

    Raises `RejectedError` when a record's payload could not be it; `name` is what it is called there.
    """
    if not isinstance(value, Mapping):
        raise RejectedError(f"it gave a {type(value).__name__}, not an object", place=f"/{name}")
    plain, out = decode_and_encode(to_json({name: dict(value)}))
    return plain[name], len(out) - len(name) - len('{"":}')


def check_room(parts: Sequence[str], value: Any, *, place: str = "") -> None:
    """Hold a value at a path to the depth that a record's payload has. Raises `RejectedError`."""
    if len(parts) + _depth(value) >= DEPTH_MAX:
        raise RejectedError(f"nested deeper than {DEPTH_MAX - 1} levels", place=place, cure="flatten it")


def check_children(container: dict[str, Any] | list[Any]) -> None:
    """Bound one object or array of what is derived. Raises `RejectedError`."""
    if len(container) > CHILDREN_MAX:
        kind = "members in one object" if type(container) is dict else "elements in one array"
        raise RejectedError(f"more than {CHILDREN_MAX} {kind}", cure="keep less in one place")


def _depth(value: Any) -> int:
    if type(value) not in (dict, list):
        return 0
    return 1 + max(map(_depth, value.values() if type(value) is dict else value), default=0)
