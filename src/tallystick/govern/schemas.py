"""The schemas of one ledger: registered and enforced here, told by events of its own (SPEC 5.6).

A schema is named as the event type that it is for, and versioned as that is. A version that breaks the one before is
refused unless it says that it may. What is in force is `tallystick.govern.registry`; what holds events to it is the
way in, which asks that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from tallystick.core.canonical import decode
from tallystick.core.custody import OwnEvent
from tallystick.core.event import Event
from tallystick.core.moment import Moment
from tallystick.core.schema import (
    ENFORCEMENT_SET,
    SCHEMA_REGISTERED,
    Compatibility,
    Enforcement,
    EnforcementSet,
    Registration,
    Target,
)
from tallystick.errors import ConflictError, NotFoundError, RejectedError
from tallystick.govern.compatibility import Break, backward, forward
from tallystick.govern.document import Document, normal
from tallystick.govern.infer import infer
from tallystick.govern.orders import Actor, Guard, SealOwn
from tallystick.govern.registered import Enforced, InForce, RegisteredSchema
from tallystick.govern.registry import Registry
from tallystick.limits import SCHEMAS_BYTES_MAX, SCHEMAS_MAX
from tallystick.read.query import Query
from tallystick.read.search import Search
from tallystick.read.state import Held, held_anyhow
from tallystick.store.verified_reads import VerifiedReads

_ATTEMPTS_MAX: Final = 100
"""Changes by others that came first, in a row, before one gives up."""
_TOLD_MAX: Final = 5

_F = TypeVar("_F", RegisteredSchema, Enforced)

Take = Callable[[Event | Mapping[str, Any] | bytes], str]
"""Judges an event as the way in does, and seals nothing: what it breaks and is taken all the same, or the empty text;
raises `RejectedError`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What would become of an event if it came now."""

    index: int
    taken: bool
    problem: str = ""
    place: str = ""
    """A JSON pointer into the event."""
    cure: str = ""


class Schemas:
    """The schemas of one ledger. `catch_up` has the index answer for all there is, and says how much."""

    def __init__(
        self, registry: Registry, *, search: Search, catch_up: Callable[[], int], seal_own: SealOwn, take: Take
    ) -> None:
        self._registry: Final = registry
        self._search: Final = search
        self._catch_up: Final = catch_up
        self._seal_own: Final = seal_own
        self._take: Final = take

    def register(
        self,
        name: str,
        version: int | None,
        schema: Mapping[str, Any] | bytes,
        *,
        target: Target = "payload",
        compatibility: Compatibility | None = None,
        actor: Actor = None,
        reason: str | None = None,
    ) -> RegisteredSchema:
        """Register a version of the schema of the event type `name`; from now on its events are held to it.

        `schema` is a JSON Schema (2020-12) of the payload, or with the target `event` of the whole event. Versions
        count from 1; None is the next, or the newest if that says the same. `compatibility` is what it owes to the
        version before, by default what that one owed, at first `backward`. The same again changes nothing. Raises
        `RejectedError`, also for a version that breaks the one before, and `ConflictError` when the version is there
        and says something else.
        """
        document = normal(schema)
        read = _read(document)

        def make() -> OwnEvent | RegisteredSchema:
            versions = self._registry.find(name)
            last = versions.get(len(versions))
            wanted = Registration(
                name=name,
                version=_next_version(last, document, target) if version is None else version,
                schema=decode(document),
                target=target,
                compatibility=compatibility or (last.compatibility if last else "backward"),
                reason=reason,
            )
            there = versions.get(wanted.version)
            if there is not None:
                return _repeated(there, wanted, compatibility)
            self._check_next(wanted, last)
            if last is not None:
                _check_kept(last, wanted, read)
            return OwnEvent(SCHEMA_REGISTERED, wanted.payload(), _actor_of(actor))

        registered = self._order(make)
        if registered is not None:
            return registered
        versions = self._registry.find(name)
        return versions[len(versions) if version is None else version]

    def enforce(self, enforcement: Enforcement, *, actor: Actor = None, reason: str | None = None) -> Enforced:
        """Say how schemas are enforced from now on; the same again changes nothing.

        `strict` takes only types that have a schema, `registered` holds those that have one to it, and `warn` takes
        all and says what is wrong: in `Sealed.breach`, `Ticket.breach` and `breaches`. Raises `RejectedError`.
        """
        change = EnforcementSet(enforcement, reason)

        def make() -> OwnEvent | Enforced:
            changes = self._registry.snapshot().changes
            if changes and changes[-1].enforcement == enforcement:
                return changes[-1]
            return OwnEvent(ENFORCEMENT_SET, change.payload(), _actor_of(actor))

        return self._order(make) or self._registry.snapshot().changes[-1]

    def enforcement(self, as_of: datetime | str | None = None) -> Enforcement:
        """How schemas are enforced, now or at a moment of recorded time."""
        return self._in_force(as_of).enforcement

    def enforcements(self) -> list[Enforced]:
        """Every change of the enforcement, in order."""
        return self._in_force(None).changes

    def list(self, as_of: datetime | str | None = None) -> list[RegisteredSchema]:
        """The newest version of every schema, by name, now or at a moment of recorded time."""
        schemas = self._in_force(as_of).schemas
        return [schemas[name][len(schemas[name])] for name in sorted(schemas)]

    def get(self, name: str, version: int | None = None, *, as_of: datetime | str | None = None) -> RegisteredSchema:
        """One version of a schema, by default the newest. Raises `NotFoundError`."""
        versions = self._in_force(as_of).schemas.get(name, {})
        found = versions.get(len(versions) if version is None else version)
        if found is None:
            known = f"; there is {_range(len(versions))}" if versions else ""
            wanted = "schema" if version is None else f"version {version} of a schema"
            raise NotFoundError(f"there is no {wanted} for {name!r}{known}")
        return found

    def history(self, name: str) -> tuple[RegisteredSchema, ...]:
        """Every version of a schema, with when and by whom it was registered. Raises `NotFoundError`."""
        self.get(name)
        return tuple(self._registry.find(name).values())

    def breaks(
        self, name: str, schema: Mapping[str, Any] | bytes, compatibility: Compatibility | None = None
    ) -> tuple[Break, ...]:
        """What would break if `schema` were the next version; nothing is registered. Raises `NotFoundError`."""
        last = self.get(name)
        return tuple(_breaks(last.document, _read(normal(schema)), compatibility or last.compatibility))

    def breaches(self) -> dict[tuple[str, int], int]:
        """How many events this process took although they break a schema, by type and version."""
        return self._registry.breaches()

    def validate(self, events: Iterable[Event | Mapping[str, Any] | bytes]) -> Iterator[Verdict]:
        """What would become of events if they came now, each by itself; nothing is sealed.

        Whether an id was used before, or an expected version holds, is not looked at.
        """
        self._follow()
        for index, event in enumerate(events):
            try:
                breach = self._take(event)
            except RejectedError as error:
                yield Verdict(index=index, taken=False, problem=error.problem, place=error.place, cure=error.cure)
            else:
                yield Verdict(index=index, taken=True, problem=breach)

    def infer(
        self, name: str, *, version: int | None = None, enums: bool = False, held: Held = held_anyhow
    ) -> tuple[dict[str, Any], int]:
        """A schema that the payloads of all recorded events of a type fit, and of how many it was made.

        Of one `version` of the type, if it is given. Raises `NotFoundError` when there are none. `held` is told of the
        bytes that are held to make it, again and again, and may raise.
        """
        records = self._search.scan(Query(event_types=(name,)), end=self._catch_up())
        fitting = (one.payload for one in records if version in (None, one.members["event_version"]))
        schema, count = infer(fitting, enums=enums, held=held)
        if not count:
            raise NotFoundError(f"there is no event of the type {name!r}" + (f", version {version}" if version else ""))
        return schema, count

    # --------------------------------------------------------------------------------------------- in force, orders

    def _follow(self) -> None:
        self._registry.load(self._search, self._catch_up())

    def _in_force(self, as_of: datetime | str | None) -> InForce:
        self._follow()
        now = self._registry.snapshot()
        return now if as_of is None else now.as_of(Moment.of(as_of, place="as_of").end)

    def _order(self, make: Callable[[], OwnEvent | _F]) -> _F | None:
        """Seal one event that depends on what is in force; anew when another came first. What is there already is
        given back, and nothing sealed."""
        for _ in range(_ATTEMPTS_MAX):
            self._follow()
            generation = self._registry.generation
            event = make()
            if not isinstance(event, OwnEvent):
                return event
            try:
                self._seal_own([event], guard=self._guard(generation))
                return None
            except _OvertakenError:
                continue
        raise ConflictError(f"other schemas came first {_ATTEMPTS_MAX} times: wait a moment, then repeat")

    def _guard(self, generation: int) -> Guard:
        def guard(_: VerifiedReads) -> None:  # the sealer has the registry follow before it asks
            if self._registry.generation != generation:
                raise _OvertakenError

        return guard

    def _check_next(self, registration: Registration, last: RegisteredSchema | None) -> None:
        following = last.version + 1 if last else 1
        if registration.version != following:
            there = f"there is {_range(following - 1)}" if last else "there is none yet"
            problem = f"version {registration.version} of {registration.name} is not the next: {there}"
            raise RejectedError(problem, place="version", cure=f"register version {following}")
        in_force = self._registry.snapshot()
        if in_force.count >= SCHEMAS_MAX:
            raise RejectedError(f"{SCHEMAS_MAX} versions of schemas are registered, and no more can be", place="name")
        if in_force.bytes + len(registration.document) > SCHEMAS_BYTES_MAX:
            problem = f"all versions of all schemas have at most {SCHEMAS_BYTES_MAX >> 20} MiB, and it would be more"
            raise RejectedError(problem, place="schema", cure="describe less of the type")


class _OvertakenError(ConflictError):
    """Another schema, or another enforcement, was recorded in between."""


def _read(document: bytes) -> Document:
    try:
        read = Document.read(document)
        read.validator  # noqa: B018 - compiled here, to see that it can be before anyone relies on it
        return read
    except RejectedError as error:
        raise RejectedError(error.problem, place=f"/schema{error.place}", cure=error.cure) from error


def _next_version(last: RegisteredSchema | None, document: bytes, target: Target) -> int:
    if last is None:
        return 1
    same = (last.source, last.target) == (document, target)
    return last.version if same else last.version + 1


def _repeated(there: RegisteredSchema, wanted: Registration, compatibility: Compatibility | None) -> RegisteredSchema:
    """What is registered, if it is the same. Raises `ConflictError`."""
    other = (
        "document" if there.source != wanted.document
        else "target" if there.target != wanted.target
        else "compatibility" if compatibility not in (None, there.compatibility)
        else None
    )  # fmt: skip
    if other is not None:
        raise ConflictError(
            f"version {there.version} of {there.name} was registered at position {there.position} with another "
            f"{other}: a version is never changed; register the next"
        )
    return there


def _check_kept(last: RegisteredSchema, registration: Registration, read: Document) -> None:
    """Whether the next version keeps what it owes. Raises `RejectedError` with the changes that break."""
    owed = registration.compatibility
    if owed == "none":
        return
    cure = "keep what was, or register it with the compatibility none, which the ledger records"
    if registration.target != last.target:
        problem = f"version {last.version} is held against the {last.target}, and they cannot be compared"
        raise RejectedError(problem, place="target", cure=cure)
    found = _breaks(last.document, read, owed)
    if found:
        more = f"; and {len(found) - _TOLD_MAX} more" if len(found) > _TOLD_MAX else ""
        told = "; ".join(map(str, found[:_TOLD_MAX])) + more
        whole = f"version {registration.version} of {registration.name} breaks version {last.version} ({owed}): {told}"
        raise RejectedError(whole, place="/schema", cure=cure)


def _breaks(old: Document, new: Document, owed: Compatibility) -> list[Break]:
    found = backward(old.parts, new.parts) if owed in ("backward", "full") else []
    return [*found, *forward(old.parts, new.parts)] if owed in ("forward", "full") else found


def _range(last: int) -> str:
    return "version 1" if last == 1 else f"versions 1 to {last}"


def _actor_of(actor: Actor) -> Mapping[str, str] | None:
    return {"id": actor} if isinstance(actor, str) else actor
