"""The forms of values, of records and of the payloads that a verifier reads. A form tells whether a value fits."""

import base64
import binascii
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeAlias

from tallystick_verify.canonical import INTEGER_MAX, RefusedError, parse, write

Form: TypeAlias = Callable[[Any], bool]
Record: TypeAlias = dict[str, Any]
RECORD_BYTES_MAX: Final = 65_535
_CLOCK: Final = r"(?:[01]\d|2[0-3]):[0-5]\d"
_ALGORITHMS: Final = (
    '{"chain":"SHA-256","checkpoint":"Ed25519","encoding":"RFC 8785","event":"HMAC-SHA256","tree":"RFC 6962 SHA-256"}'
)


def from_base64(text: str | bytes) -> bytes:
    """What standard, padded base64 in its one form stands for; nothing if it is not that."""
    data = text.encode() if isinstance(text, str) else text
    try:
        decoded = base64.b64decode(data)
    except binascii.Error:
        return b""
    return decoded if base64.b64encode(decoded) == data else b""


def whole(least: int = 0, most: int = INTEGER_MAX) -> Form:
    return lambda value: type(value) is int and least <= value <= most


def text(pattern: str) -> Form:
    match = re.compile(pattern, re.ASCII | re.DOTALL).fullmatch
    return lambda value: type(value) is str and match(value) is not None


def base64_of(least: int, most: int) -> Form:
    return lambda value: type(value) is str and least <= len(from_base64(value)) <= most


def faults(value: Any, forms: dict[str, Form]) -> list[str]:
    """Which members an object should have, should not have, or has in another form. A key of `forms` is some names."""
    every = {name: form for names, form in forms.items() for name in names.split()}
    if type(value) is not dict or value.keys() != every.keys():
        return sorted(every.keys() ^ value.keys()) if type(value) is dict else ["it is not an object"]
    return [name for name, form in every.items() if not form(value[name])]


def members(forms: dict[str, Form]) -> Form:
    """An object of exactly these members."""
    return lambda value: not faults(value, forms)


def array(form: Form, most: int = RECORD_BYTES_MAX, least: int = 0) -> Form:
    return lambda value: type(value) is list and least <= len(value) <= most and all(map(form, value))


def identifier(most: int) -> Form:
    """SPEC 3.4."""
    return text(rf"[^\x00-\x1f\x7f]{{1,{most}}}")


def maybe(form: Form) -> Form:
    return lambda value: value is None or form(value)


@lru_cache(4096)
def _is_date(value: str) -> bool:
    year, month, day = int(value[:4]), int(value[5:7]), int(value[8:])
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= month <= 12 and 1 <= day <= (31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


def _moment(pattern: str) -> Form:
    match = re.compile(r"\d{4}-\d\d-\d\d" + pattern, re.ASCII).fullmatch
    return lambda value: type(value) is str and match(value) is not None and _is_date(value[:10])


def is_object(value: Any) -> bool:
    return type(value) is dict


def _is_actor(value: Any) -> bool:
    return is_object(value) and {"id"} <= value.keys() <= _ACTOR and all(map(_is_member, value.values()))


_ACTOR: Final = {"id", "type", "name", "identity_provider"}
_is_member, _is_labels = identifier(512), array(identifier(100), 64)
is_time: Final = _moment(rf"T{_CLOCK}:[0-5]\d\.\d{{6}}Z")  # SPEC 3.2
is_rfc3339: Final = _moment(rf"[Tt]{_CLOCK}:(?:[0-5]\d|60)(?:\.\d+)?(?:[Zz]|[+-]{_CLOCK})")
is_hash, is_key, is_string = text("[0-9a-f]{64}"), base64_of(32, 32), text(".*")
is_name: Final = text(r"(?=.{1,200}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")  # SPEC 3.5
_RECORD: Final[dict[str, Form]] = {  # SPEC 3.1
    "actor": maybe(_is_actor),
    "context": is_object,
    "entity_id": identifier(512),
    "entity_version": whole(1),
    "epoch": whole(),
    "event_type": text(r"(?=.{1,200}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"),
    "event_version": whole(1),
    "id": identifier(128),
    "labels": lambda value: _is_labels(value) and len(set(value)) == len(value),
    "ledger": is_name,
    "occurred_at": maybe(is_rfc3339),
    "payload": is_object,
    "position": whole(),
    "prev_hash": is_hash,
    "recorded_at": is_time,
    "signature": text("(?:[0-9a-f]{64}){1,2}"),
}
_FORMS: Final = tuple(_RECORD.values())
_GENESIS: Final[dict[str, Form]] = {"ledger origin": is_name, "nonce": is_hash, "root_key evidence_key": is_key} | {
    "checkpoint_key": is_string,
    "epoch": members({"records_max seconds_max": whole(1)}),
    "retention": lambda value: value is None,
    "algorithms": lambda value: write(value) == _ALGORITHMS,
}
_ROTATION: Final = {"new_key old_key": is_key, "purpose": text("checkpoint|evidence")}
_PRUNE: Final[dict[str, Form]] = {"end first policy_position": whole(), "count": whole(1)} | {
    "first_hash last_hash": is_hash,
    "frontier_at_end": array(is_key, 64),
    "checkpoint_at_prune": is_string,
    "holds_checked": lambda value: array(whole())(value) and value == sorted(set(value)),
    "absent": members({"count": whole(1), "digest": is_hash}),
}
is_genesis, is_prune = members(_GENESIS), members(_PRUNE)  # SPEC 4, 9.4
is_rotation: Final = members({**_ROTATION, "new_signature old_signature": base64_of(64, 64)})  # SPEC 5.4
is_opening: Final = members({"epoch": whole(), "key_commitment": is_hash})  # SPEC 5.2
is_close: Final = members({"count epoch first_position last_position": whole()})


def record(line: bytes) -> Record:
    """The record that these bytes are (SPEC 2, 3.1); raises RefusedError."""
    if len(line) > RECORD_BYTES_MAX:
        raise RefusedError(f"more than {RECORD_BYTES_MAX:,} bytes")
    value: Record = parse(line)
    if type(value) is not dict or value.keys() != _RECORD.keys():
        raise RefusedError("not an object of the sixteen members of a record")
    for name, form, member in zip(_RECORD, _FORMS, value.values(), strict=True):  # both are sorted
        if not form(member):
            raise RefusedError(f"{name} is not as a record has it: {member!r}"[:200])
    if (len(value["signature"]) == 128) != (value["position"] == 0):
        raise RefusedError("a signature of that length is not of that position")
    return value


def signed_part(line: bytes, said: Record) -> bytes:
    """A record without its `signature`, which sorts last (SPEC 3.3)."""
    return line[: -len(said["signature"]) - len(',"signature":""}')] + b"}"
