"""The forms of values, of records and of the payloads that a verifier reads. A form tells whether a value fits."""

import base64
import re
import reprlib
from collections.abc import Callable
from datetime import UTC, datetime
from operator import call
from typing import Any, Final, TypeAlias

from tallystick_verify.canonical import INTEGER_MAX, RefusedError, need, parse, write
from tallystick_verify.ed25519 import is_public_key

LEDGER: Final = "tallystick.ledger"
Form: TypeAlias = Callable[[Any], bool]
Record: TypeAlias = dict[str, Any]
RECORD_BYTES_MAX: Final = 65_535
_CLOCK: Final = r"(?:[01]\d|2[0-3]):[0-5]\d"
_ALGORITHMS: Final = (
    '{"chain":"SHA-256","checkpoint":"Ed25519","encoding":"RFC 8785","event":"HMAC-SHA256","tree":"RFC 6962 SHA-256"}'
)


class Members:
    """The form of an object of exactly these members; `alike` has the names of those that have one form."""

    def __init__(self, alike: dict[Form, str], **forms: Form) -> None:
        forms |= {name: form for form, names in alike.items() for name in names.split()}
        self._forms = dict(sorted(forms.items()))  # as in what is canonical
        self._names = list(self._forms)

    def __call__(self, value: Any) -> bool:
        has_names = type(value) is dict and list(value) == self._names
        return has_names and all(map(call, self._forms.values(), value.values()))

    def require(self, value: Any) -> None:
        """Raises RefusedError with the members that are amiss."""
        if not self(value):
            said = value if type(value) is dict else {}
            amiss = [name for name, form in self._forms.items() if name not in said or not form(said[name])]
            seen = reprlib.repr({name: said.get(name) for name in [*amiss, *(said.keys() - self._forms.keys())]})
            raise RefusedError(f"members are missing, unknown or not of their form: {seen}")


def from_base64(text: str | bytes) -> bytes:
    """What standard, padded base64 in its one form stands for; nothing if it is not that."""
    try:
        decoded = base64.b64decode(text)
    except ValueError:
        return b""
    return decoded if text in (base64.b64encode(decoded), base64.b64encode(decoded).decode()) else b""


def is_object(value: Any) -> bool:
    return type(value) is dict


def whole(least: int = 0, most: int = INTEGER_MAX) -> Form:
    return lambda value: type(value) is int and least <= value <= most


def text(pattern: str) -> Form:
    match = re.compile(pattern, re.ASCII | re.DOTALL).fullmatch
    return lambda value: type(value) is str and match(value) is not None


def base64_of(least: int, most: int) -> Form:
    return lambda value: type(value) is str and least <= len(from_base64(value)) <= most


def array(form: Form, most: int = RECORD_BYTES_MAX, least: int = 0) -> Form:
    return lambda value: type(value) is list and least <= len(value) <= most and all(map(form, value))


def identifier(most: int) -> Form:
    """SPEC 3.4."""
    return text(rf"[^\x00-\x1f\x7f]{{1,{most}}}")


def is_key(value: Any) -> bool:
    """SPEC 5.8: an Ed25519 public key, in base64."""
    return is_root(value) and is_public_key(from_base64(value))


def maybe(form: Form) -> Form:
    return lambda value: value is None or form(value)


def moment(clock: str) -> Form:
    """A time of the form of a pattern that the calendar has, of the years 1 to 9999 in UTC."""
    is_written = text(r"\d{4}-\d\d-\d\d" + clock)
    return lambda value: is_written(value) and _is_real(value.upper())


def _is_real(value: str) -> bool:
    try:
        datetime.fromisoformat(value).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


is_time: Final = moment(rf"T{_CLOCK}:[0-5]\d\.\d{{6}}Z")  # SPEC 3.2
is_rfc3339: Final = moment(rf"[Tt ]{_CLOCK}:[0-5]\d(?:\.\d{{1,9}})?(?:[Zz]|[+-]{_CLOCK})")
is_hash, is_root, is_string = text("[0-9a-f]{64}"), base64_of(32, 32), text(".*")
is_name: Final = text(r"(?=.{1,200}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")  # SPEC 3.5
is_short, is_labels = identifier(512), array(identifier(100), 64)


def is_actor(value: Any) -> bool:
    is_known = is_object(value) and {"id"} <= value.keys() <= {"id", "type", "name", "identity_provider"}
    return value is None or (is_known and all(map(is_short, value.values())))


is_record: Final = Members(  # SPEC 3.1
    {is_object: "context payload", whole(1): "entity_version event_version", whole(): "epoch position"},
    actor=is_actor,
    entity_id=is_short,
    event_type=text(r"(?=.{1,200}\Z)[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*"),
    id=identifier(128),
    labels=lambda value: is_labels(value) and len(set(value)) == len(value),
    ledger=is_name,
    occurred_at=maybe(is_rfc3339),
    prev_hash=is_hash,
    recorded_at=is_time,
    signature=text("(?:[0-9a-f]{64}){1,2}"),
)
is_genesis: Final = Members(  # SPEC 4
    {is_name: "ledger origin", is_hash: "nonce", is_key: "root_key evidence_key", is_string: "checkpoint_key"},
    epoch=Members({whole(1): "records_max seconds_max"}),
    retention=lambda value: value is None,
    algorithms=lambda value: write(value) == _ALGORITHMS,
)
is_opening: Final = Members({whole(): "epoch", is_hash: "key_commitment"})  # SPEC 5.2
is_close: Final = Members({whole(): "count epoch first_position last_position"})
is_purpose, is_signature = text("checkpoint|evidence"), base64_of(64, 64)  # SPEC 5.4
is_rotation: Final = Members(
    {is_key: "new_key old_key", is_signature: "new_signature old_signature", is_purpose: "purpose"}
)
_is_correction: Final = Members({is_time: "corrected_at last_recorded_at"}, reason=text(".{1,1000}"))  # SPEC 5.9
is_prune: Final = Members(  # SPEC 9.4
    {whole(1): "count end first policy_position", is_hash: "first_hash last_hash"},
    frontier_at_end=array(is_root, 64),
    checkpoint_at_prune=is_string,
    holds_checked=lambda value: array(whole(), 1_000)(value) and value == sorted(set(value)),
    absent=Members({whole(1): "count", is_hash: "digest"}),
)


def record(line: bytes) -> Record:
    """The record that these bytes are (SPEC 2, 3.1); raises RefusedError."""
    need(len(line) <= RECORD_BYTES_MAX, "more than 65,535 bytes")
    value: Record = parse(line)
    is_record.require(value)
    need((len(value["signature"]) == 128) == (value["position"] == 0), "a signature of another length")
    return value


def is_own(record: Record) -> bool:
    """Whether a record is by the ledger itself (SPEC 5.5)."""
    return bool(record["entity_id"] == LEDGER and record["actor"] == {"id": "tallystick", "type": "system"})


def is_correction(record: Record) -> bool:
    """Whether a record says that the clock was corrected, to the time at which it was recorded (SPEC 5.9)."""
    is_one = record["event_type"] == "tallystick.clock.corrected" and record["entity_id"] == LEDGER
    payload = record["payload"]
    return bool(is_one and _is_correction(payload) and payload["corrected_at"] == record["recorded_at"])


def signed_part(line: bytes, record: Record) -> bytes:
    """A record without its `signature`, which sorts last (SPEC 3.3)."""
    return line[: -len(record["signature"]) - len(',"signature":""}')] + b"}"
