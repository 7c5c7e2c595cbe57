"""Folds: how the state of an entity follows from its events, one after the other. Pure.

A fold says what an event changes in the state, a JSON object; it is chosen by the event's type. Where none was
registered the default holds: a change event (`field`, `new_value`) sets that member, any other payload is a JSON
merge patch (RFC 7396). In all of them but a Python fold's own result, null as a new value removes the member.

Beside the state stands where it comes from: the position of the record that last changed each top-level member.
States share what they have in common with one another and with the records; nothing that was given is changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import msgspec

from tallystick.core.canonical import decode_number, encode
from tallystick.core.content import CONTENT_MEMBERS, is_event_type
from tallystick.core.record import Record
from tallystick.core.upcast import (
    ABSENT,
    Kinds,
    check_children,
    check_names,
    check_room,
    compile_one,
    copied,
    declaration,
    is_same,
    member_at,
    member_parts,
    merge_patch,
    plain_object,
    shown,
    told,
    with_member,
    without_member,
)
from tallystick.errors import ConflictError, RejectedError
from tallystick.limits import INTEGER_MAX

FOLDS_MAX: Final = 1_000
"""Folds of one registry: about as many as there are event types that need one."""
_CHOSEN_MAX: Final = 4_096
_RECORD_MEMBERS: Final = CONTENT_MEMBERS | {"entity_version", "epoch", "ledger", "position", "recorded_at"}
"""What a fold may take out of a record: facts about the event, not the chain's hashes."""
_SNAPSHOT: Final = b'{"digest":"%b","snapshot":%b}'

StateValue = dict[str, Any]
FoldFunction = Callable[[StateValue, Record], StateValue]
"""From the state before an event to the state after it. It may change the state it is given, not the record."""

_Fold = Callable[[StateValue, Record], dict[str, Any]]
"""What an event changes: the new values of top-level members, `ABSENT` for those that it removes."""


@dataclass(frozen=True, slots=True)
class Folded:
    """A state, and for each of its top-level members the position of the record that last changed its value."""

    state: StateValue = field(default_factory=dict)
    made_by: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A state that was folded before: up to which version of its entity, and under which declarations."""

    entity_id: str
    version: int
    position: int
    folded: Folded
    fingerprint: str
    begins_at_version: int
    """The version of the first record that was folded."""
    events: int
    """How many were."""

    def to_bytes(self) -> bytes:
        """Canonical JSON with its own SHA-256, which tells damage."""
        members: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        out = encode({**members, "folded": {"made_by": self.folded.made_by, "state": self.folded.state}})
        return _SNAPSHOT % (hashlib.sha256(out).hexdigest().encode(), out)

    @classmethod
    def of_bytes(cls, data: bytes) -> Snapshot | None:
        """Read what `to_bytes` writes; None for anything else: what it says is then folded anew."""
        out = data[len(_SNAPSHOT % (b"0" * 64, b"")) - 1 : -1]
        try:
            is_whole = data == _SNAPSHOT % (hashlib.sha256(out).hexdigest().encode(), out)
            return _read_snapshot(out) if is_whole else None
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return None


_read_snapshot: Final = msgspec.json.Decoder(Snapshot, float_hook=decode_number).decode


class Changed(NamedTuple):
    """A top-level member that an event changed; `ABSENT` where it was not there, or is no longer."""

    member: str
    old: Any
    new: Any


class Folds:
    """Which fold an event type has: its own, else that of the longest `prefix.*`, else the default.

    Registered once, when an application starts; folding is safe for many threads.
    """

    def __init__(self) -> None:
        self._folds: Final[dict[str, _Fold]] = {}
        self.declared: Final[dict[str, Any]] = {}
        self._all_declared = True
        self._chosen: dict[str, _Fold] = {}

    def register(self, event_type: str, fold: FoldFunction) -> None:
        """Add a Python function as the fold of a type, or of all types below `prefix.*`. It must be pure.

        It is given a copy of the state, and returns an object that a payload may be: the whole new state, in which
        null is a value like any other. Raises `RejectedError`, or `ConflictError` when there is one.
        """
        if not callable(fold):
            raise RejectedError(f"a {type(fold).__name__} is not a function", place="fold")
        self._add(event_type, _of_function(fold))
        self._all_declared = False

    def declare(self, event_type: str, declared: dict[str, Any] | Sequence[dict[str, Any]]) -> None:
        """Add what JSON says as the fold of a type, or of all types below `prefix.*`: one of these, or a list.

        - `{"fold":"merge"}`: the payload is a merge patch; with `"from":"payload.changes"`, that member is.
        - `{"fold":"change"}`: `payload.field` names a top-level member, `payload.new_value` is its new value.
        - `{"fold":"set","members":{"role":"payload.new_role","by":"actor.id","kind":{"value":"person"}}}`: members of
          the state, and where in the record their values stand; or literal values.
        - `{"fold":"remove","members":["role"]}`.
        - `{"fold":"append","member":"notes","from":"payload.text"}`: one more element at the end of an array.
        - `{"fold":"count","member":"logins"}`: one more.
        - `{"fold":"clear"}`: nothing is left. `{"fold":"ignore"}`: nothing changes.

        Members are exact paths: they do not go through arrays. A member that the record does not have changes nothing,
        nor does a merge of what is no object. What has another type than it needs counts as absent: `append` begins
        a new array, `count` begins at 1, and a parent that is no object gives way to one.

        Raises `RejectedError` with the place in the declaration, or `ConflictError` when there is a fold.
        """
        plain = declaration(declared, place="fold")
        steps = enumerate(plain if type(plain) is list else [plain])
        compiled = [compile_one(step, f"fold/{index}", kind="fold", kinds=_DECLARED) for index, step in steps]
        self._add(event_type, _of_steps(compiled))
        self.declared[event_type] = plain

    def apply(self, folded: Folded, record: Record) -> Folded:
        """The state after one more event. Raises as `Folding.add` does."""
        folding = Folding(self, folded)
        folding.add(record)
        return folding.folded()

    @property
    def fingerprint(self) -> str | None:
        """SHA-256, in hex, of all that was declared, in whichever order. None when a Python function is among the
        folds: what it does today says nothing of what it did yesterday."""
        declared = b"tallystick/v1/folds\0" + encode(self.declared)
        return hashlib.sha256(declared).hexdigest() if self._all_declared else None

    def choose(self, event_type: str) -> _Fold:
        """The fold of an event type."""
        chosen = self._chosen
        fold = chosen.get(event_type)
        if fold is None:
            if len(chosen) >= _CHOSEN_MAX:
                chosen.clear()  # there may be any number of types
            fold = chosen[event_type] = self._search(event_type)
        return fold

    def _search(self, event_type: str) -> _Fold:
        pattern, prefix = event_type, event_type
        while pattern not in self._folds and prefix:
            prefix = prefix.rpartition(".")[0]
            pattern = f"{prefix}.*"
        return self._folds.get(pattern, _default)

    def _add(self, event_type: str, fold: _Fold) -> None:
        if type(event_type) is not str or not is_event_type(event_type.removesuffix(".*")):
            cure = "name one type, such as user.created, or all below a prefix, such as user.*"
            raise RejectedError(f"{shown(event_type)} names no event types", place="event_type", cure=cure)
        if event_type in self._folds:
            raise ConflictError(f"{event_type} has a fold already")
        if len(self._folds) >= FOLDS_MAX:
            raise RejectedError(f"there are {FOLDS_MAX} folds, which is the most", place="event_type")
        self._folds[event_type] = fold
        self._chosen = {}  # a new one: a thread that chose before this line keeps to the old


class Folding:
    """One run over the events of a stream: it owns its state, and changes it in place."""

    __slots__ = ("_folds", "made_by", "state")

    def __init__(self, folds: Folds, start: Folded | None = None) -> None:
        self._folds: Final = folds
        self.state: Final[StateValue] = dict(start.state) if start else {}
        self.made_by: Final[dict[str, int]] = dict(start.made_by) if start else {}

    def add(self, record: Record) -> list[Changed]:
        """Take in the next event; says what it changed.

        Raises `RejectedError` with the position when the fold fails, or the state grows past its bounds. The run then
        stands where it stood before.
        """
        state, made_by, position = self.state, self.made_by, record.members["position"]
        try:
            changes = self._folds.choose(record.members["event_type"])(state, record)
        except Exception as error:  # the function is the application's: whatever it raises is told
            problem = f"the fold of {record.event_type} failed: {told(error)}"
            cure = "mend the fold, so that it takes every event of that type"
            raise RejectedError(problem, place=f"position {position}", cure=cure) from error
        out = []
        for name, new in changes.items():
            old = state.get(name, ABSENT)
            if old is new or (old is not ABSENT and new is not ABSENT and is_same(old, new)):
                continue
            if new is ABSENT:
                del state[name]
                made_by.pop(name, None)
            else:
                state[name] = new
                made_by[name] = position
            out.append(Changed(name, old, new))
        return out

    def folded(self) -> Folded:
        """The state so far; what is added later does not change it."""
        return Folded(dict(self.state), dict(self.made_by))


def _default(state: StateValue, record: Record) -> dict[str, Any]:
    return _change(state, record) or _merged(state, record.members["payload"])


def _change(_: StateValue, record: Record) -> dict[str, Any]:
    payload = record.members["payload"]
    name, value = payload.get("field"), payload.get("new_value", ABSENT)
    return {name: ABSENT if value is None else value} if type(name) is str and value is not ABSENT else {}


def _merged(state: StateValue, patch: dict[str, Any]) -> dict[str, Any]:
    return {
        name: ABSENT if value is None else merge_patch(state.get(name), value) if type(value) is dict else value
        for name, value in patch.items()
    }


def _clear(state: StateValue, _: Record) -> dict[str, Any]:
    return dict.fromkeys(state, ABSENT)


def _of_function(function: FoldFunction) -> _Fold:
    def fold(state: StateValue, record: Record) -> dict[str, Any]:
        new, _ = plain_object(function(copied(state), record), "state")
        check_children(new)
        return {**_clear(state, record), **new}

    return fold


def _of_steps(steps: list[_Fold]) -> _Fold:
    if len(steps) == 1:
        return steps[0]

    def fold(state: StateValue, record: Record) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        working = dict(state)
        for step in steps:
            for name, value in step(working, record).items():
                changes[name] = value
                if value is ABSENT:
                    working.pop(name, None)
                else:
                    working[name] = value
        return changes

    return fold


# ---------------------------------------------------------------------------------------- declared folds


def _source(text: Any, place: str) -> tuple[str, ...]:
    parts = member_parts(text, place)
    if parts[0] not in _RECORD_MEMBERS:
        cure = f"begin the path with one of {', '.join(sorted(_RECORD_MEMBERS))}"
        raise RejectedError(f"a record has no member {shown(parts[0])} that a fold can use", place=place, cure=cure)
    return parts


def _put(state: StateValue, parts: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The change that puts a value at a path of the state; null removes what is there."""
    if value is None:
        return _take(state, parts)
    name = parts[0]
    return {name: with_member({name: state.get(name)}, parts, value)[name]}


def _take(state: StateValue, parts: tuple[str, ...]) -> dict[str, Any]:
    """The change that removes what is at a path of the state."""
    name = parts[0]
    return {name: without_member({name: state[name]}, parts).get(name, ABSENT)} if name in state else {}


def _merge(declared: dict[str, Any], place: str) -> _Fold:
    source = _source(declared.get("from", "payload"), f"{place}/from")

    def fold(state: StateValue, record: Record) -> dict[str, Any]:
        patch = member_at(record.members, source)
        return _merged(state, patch) if type(patch) is dict else {}

    return fold


def _set(declared: dict[str, Any], place: str) -> _Fold:
    members = declared["members"]
    if type(members) is not dict:
        raise RejectedError("not an object", place=f"{place}/members", cure='send {"role":"payload.new_role"}')
    return _of_steps([_set_one(text, source, f"{place}/members/{text[:60]}") for text, source in members.items()])


def _set_one(text: str, source: Any, place: str) -> _Fold:
    target = member_parts(text, place)
    if type(source) is dict:
        check_names(source, place, required=("value",))
        literal = source["value"]
        check_room(target, literal, place=place)
        return lambda state, _: _put(state, target, copied(literal))
    parts = _source(source, place)

    def fold(state: StateValue, record: Record) -> dict[str, Any]:
        value = member_at(record.members, parts)
        if value is ABSENT:
            return {}
        check_room(target, value)
        return _put(state, target, value)

    return fold


def _remove(declared: dict[str, Any], place: str) -> _Fold:
    members = declared["members"]
    if type(members) is not list:
        raise RejectedError("not an array", place=f"{place}/members", cure='send the members: ["role"]')
    return _of_steps([_remove_one(text, f"{place}/members/{index}") for index, text in enumerate(members)])


def _remove_one(text: Any, place: str) -> _Fold:
    parts = member_parts(text, place)
    return lambda state, _: _take(state, parts)


def _append(declared: dict[str, Any], place: str) -> _Fold:
    target = member_parts(declared["member"], f"{place}/member")
    source = _source(declared["from"], f"{place}/from")
    check_room((*target, "-"), None, place=f"{place}/member")

    def fold(state: StateValue, record: Record) -> dict[str, Any]:
        value = member_at(record.members, source)
        if value is ABSENT:
            return {}
        old = member_at(state, target)
        check_room((*target, "-"), value)
        new = [*old, value] if type(old) is list else [value]
        check_children(new)
        return _put(state, target, new)

    return fold


def _count(declared: dict[str, Any], place: str) -> _Fold:
    target = member_parts(declared["member"], f"{place}/member")

    def fold(state: StateValue, _: Record) -> dict[str, Any]:
        old = member_at(state, target)
        return _put(state, target, min(old + 1, INTEGER_MAX) if type(old) is int else 1)

    return fold


_DECLARED: Final[Kinds[_Fold]] = {
    "merge": ((), ("from",), _merge),
    "change": ((), (), lambda _, __: _change),
    "set": (("members",), (), _set),
    "remove": (("members",), (), _remove),
    "append": (("member", "from"), (), _append),
    "count": (("member",), (), _count),
    "clear": ((), (), lambda _, __: _clear),
    "ignore": ((), (), lambda _, __: _of_steps([])),
}
