"""The members that readers of a bundle know, with the form and the bound of each: the table of SPEC 12.1.

From it vectors are made (`vectors.cases_members`): for each member, as far as it can have one, a value at its bound and
one past it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tallystick.core.note import VerifierKey
from tallystick.core.strict import render_base64
from tests.evidence.forge import KEYS
from vectors.scene import CREATED, selector

NOTHING: Final = object()
"""There is no such value, or none that fits into a vector."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member: of what, its name, and what SPEC says of it; a value at the bound, and one past it."""

    of: str
    name: str
    form: str
    at: Any = NOTHING
    past: Any = NOTHING
    found: tuple[str, ...] = ()
    """What else is found where the value is at its bound, which then is not the true one."""

    @property
    def row(self) -> str:
        """The row of the table in SPEC."""
        return f"| {self.of} | `{self.name}` | {self.form} |".replace(" - ", " \N{MINUS SIGN} ")


HASH: Final = "64 hex digits"
ROOT: Final = "base64 of 32 bytes"
KEY: Final = "base64 of a public key (5.8)"
NAME: Final = "a name (3.5) of at most 200 characters"
TIME: Final = "a time (3.2)"
POSITION: Final = "an integer from 0 to 2^53 - 1"
COUNT: Final = "an integer from 1 to 2^53 - 1"
REASON: Final = "1 to 1,000 characters"
CHECKPOINT: Final = "a checkpoint, as below"
LARGEST: Final = 2**53 - 1

_TOKEN: Final = {"over": "end.checkpoint", "token": render_base64(b"not judged"), "type": "rfc3161"}
_KEY: Final = render_base64(KEYS.checkpoint.public_key().public_bytes_raw())
_NO_POINT: Final = render_base64(bytes(32))
"""A point of small order."""
_SHORT: Final = render_base64(bytes(31))
_VKEY: Final = VerifierKey("forge/shop", KEYS.checkpoint.public_key().public_bytes_raw()).render()
_LONG: Final = "f" * 195 + "/shop"


_WITHIN: Final = ("first=2", "end=8")


def _named(name: str) -> list[dict[str, Any]]:
    return [{**selector(name, [], within=_WITHIN), "count": 6}]


def _asking(*any_of: list[str], within: tuple[str, ...] = (), count: int = 0) -> list[dict[str, Any]]:
    return [{**selector("asked", *any_of, within=(*_WITHIN, *within)), "count": count}]


def _token(**members: str) -> list[dict[str, str]]:
    return [{**_TOKEN, **members}]


MANIFEST: Final = (
    ("format", "`tallystick-bundle/1`", NOTHING, "tallystick-bundle/10"),
    ("ledger.id", HASH, "0" * 64, "0" * 65, "genesis"),
    ("ledger.name", NAME, "n" * 200, "n" * 201, "manifest"),
    ("ledger.origin", NAME, _LONG, "f" + _LONG, "genesis", "checkpoint"),
    ("range.first", f"{POSITION}, below `range.end`", NOTHING, -1),
    ("range.end", "an integer from 1 to the size of `end.checkpoint`", NOTHING, 22),
    ("range.count", "an integer from 1 to 2^31, and to the positions of the range", NOTHING, 0),
    ("range.prev_hash", HASH, "0" * 64, "0" * 63, "chain 1"),
    ("complete", "true or false", NOTHING, 1),
    ("selectors", "an array of at most 256 objects of the next four", _named("n") * 256, _named("n") * 257),
    (
        "selectors[].name",
        "an identifier (3.4) of at most 100 characters; 32 KiB of all",
        _named("é" * 100),
        _named("é" * 101),
    ),
    (
        "selectors[].count",
        POSITION,
        _asking(["id=x"], count=0),
        _asking(["id=x"], count=-1),
    ),
    ("selectors[].any_of", "an array of 1 to 64 arrays of terms", _asking(*[["id=x"]] * 64), _asking(*[["id=x"]] * 65)),
    (
        *("selectors[].within", "an array of terms (10.9) of at most 4,096 characters; 10,000 in all, and 1,000 paths"),
        *(_asking([], within=(f"id={'x' * 4_093}",)), _asking([], within=(f"id={'x' * 4_094}",))),
    ),
    ("absent", "an array of at most 1,000,000 pairs of positions", NOTHING, [[3]]),
    ("start.checkpoint", f"null, or {CHECKPOINT}", NOTHING, ""),
    ("end.checkpoint", CHECKPOINT, NOTHING, None),
    ("genesis", "a record (3) at position 0", NOTHING, None),
    ("records", "an array of at most 100,000 records (3)", NOTHING, [1]),
    ("hashes", f"an array of at most 1,000,000, {ROOT}", NOTHING, [_SHORT]),
    ("mac_keys", "an array of at most 100,000 objects of the next two", NOTHING, [{"epoch": 0}]),
    ("mac_keys[].epoch", f"{POSITION}, ascending", NOTHING, [{"epoch": -1, "key": "0" * 64}]),
    ("mac_keys[].key", HASH, NOTHING, [{"epoch": 0, "key": "0" * 66}]),
    ("timestamps", "an array of at most 16 objects of the next three", [_TOKEN] * 16, [_TOKEN] * 17),
    ("timestamps[].over", "`end.checkpoint`", NOTHING, _token(over="start.checkpoint")),
    ("timestamps[].type", "`rfc3161`", NOTHING, _token(type="rfc31611")),
    (
        *("timestamps[].token", "base64 of 1 to 65,536 bytes"),
        *(_token(token=render_base64(bytes(65_536))), _token(token=render_base64(bytes(65_537)))),
    ),
    ("events.file", "`events.jsonl`", NOTHING, "events.json"),
    ("events.bytes", "an integer from 0 to 2^40", 2**40, 2**40 + 1, "events"),
    ("events.sha256", HASH, "0" * 64, "A" * 64, "events"),
    ("created", TIME, "9999-12-31T23:59:59.999999Z", "10000-01-01T00:00:00.000000Z", "clock"),
    ("tool", "at most 200 characters", "\U0001f600" * 200, "x" * 201),
)
NOTE: Final = (
    ("origin", "a key name: UTF-8, without white space or `+`, not empty", "é", ""),
    ("size", "a decimal from 0 to 2^63 - 1, without leading zeros", 2**63 - 1, 2**63),
    ("root", ROOT, bytes(32), bytes(33)),
    ("signatures", "1 to 100 lines", 100, 101),
    ("signature", "base64 of 5 bytes or more", 5, 4),
    ("note", "at most 65,536 bytes", 65_536, 65_537),
)
"""What is signed to be given at the bound; for the last three, how many."""
PROOF: Final = (
    ("extra", "if there is one, base64 of one byte or more", 1, 0),
    ("index", "a decimal from 0 to 2^63 - 2, without leading zeros", 2**63 - 2, 2**63 - 1, "misplaced", "root"),
    ("path", f"at most 63, {ROOT}", 63, 64, "root"),
    ("proof", "at most 131,072 bytes", 131_072, 131_073),
)
GENESIS: Final[tuple[tuple[Any, ...], ...]] = (
    ("ledger", NAME, NOTHING, "shop/"),
    ("origin", f"{NAME}, that ends in `/` and `ledger`", _LONG, "f" + _LONG),
    ("nonce", HASH, "f" * 64, "f" * 62),
    ("root_key", KEY, NOTHING, _NO_POINT),
    ("evidence_key", KEY, NOTHING, _NO_POINT),
    ("checkpoint_key", "a verifier key of the name `origin`", NOTHING, _VKEY + "="),
    ("epoch", "an object of the next two", NOTHING, {"records_max": 1}),
    ("epoch.records_max", COUNT, {"records_max": 1, "seconds_max": LARGEST}, {"records_max": 0, "seconds_max": 1}),
    ("epoch.seconds_max", COUNT, {"records_max": LARGEST, "seconds_max": 1}, {"records_max": 1, "seconds_max": 0}),
    ("retention", "null", NOTHING, {}),
    ("algorithms", "as in the example (1)", NOTHING, {}),
)
OPENED: Final = (
    ("epoch", f"{POSITION}, and that of the record", LARGEST, 2),
    ("key_commitment", HASH, NOTHING, "0" * 63),
)
CLOSED: Final = (
    ("count", POSITION, NOTHING, -1),
    ("epoch", f"{POSITION}, and that of the record", NOTHING, 2),
    ("first_position", POSITION, NOTHING, -1),
    ("last_position", POSITION, NOTHING, "15"),
)
ROTATED: Final = (
    ("new_key", KEY, NOTHING, _NO_POINT),
    ("old_key", KEY, NOTHING, _NO_POINT),
    ("new_signature", "base64 of 64 bytes", NOTHING, render_base64(bytes(65))),
    ("old_signature", "base64 of 64 bytes", NOTHING, render_base64(bytes(63))),
    ("purpose", "`checkpoint` or `evidence`", NOTHING, "checkpoints"),
)
PRUNED: Final = (
    ("end", f"{COUNT}, at most the record's own position", NOTHING, 9),
    ("first", f"{COUNT}, below `end`", NOTHING, 0),
    ("count", f"{COUNT}, at most `end` - `first`, and `absent.count`", 1, 0),
    ("first_hash", HASH, "0" * 64, "0" * 65),
    ("last_hash", HASH, "0" * 64, "0" * 63),
    ("frontier_at_end", f"an array, for each bit that is set in `end`, of {ROOT}", [_KEY], [_SHORT]),
    ("checkpoint_at_prune", CHECKPOINT, NOTHING, ""),
    ("policy_position", f"{COUNT}, below the record's own position", 1, 0),
    ("holds_checked", f"an array of at most 1,000 that ascend, each {POSITION}", [*range(1_000)], [*range(1_001)]),
    ("absent", "an object of the next two", NOTHING, {"count": 2}),
    ("absent.count", COUNT, NOTHING, {"count": 0, "digest": "0" * 64}),
    ("absent.digest", HASH, NOTHING, {"count": 2, "digest": "0" * 63}),
    ("occurred_at", f"{TIME}; of the record itself", "9999-12-31T23:59:59.999999Z", None),
)
CORRECTED: Final = (
    ("corrected_at", f"{TIME}, that of the record itself", NOTHING, "2026-03-15T13:00:00Z"),
    ("last_recorded_at", TIME, NOTHING, "2036-03-15T12:00:04Z"),
    ("reason", REASON, "\U0001f600" * 1_000, "r" * 1_001),
)
NOT_JUDGED: Final[tuple[tuple[Any, ...], ...]] = (
    ("restored", "backup_sha256", HASH, "0" * 64, "0" * 65),
    ("restored", "created", TIME, CREATED, "2026-03-16T00:00:00Z"),
    ("restored", "held_checkpoint", f"null, or {CHECKPOINT}, of a size above `size`", None, ""),
    ("restored", "reason", REASON, "r" * 1_000, "r" * 1_001),
    ("restored", "size", "an integer from 1 to 2^53 - 1", LARGEST, 0),
    ("schema", "name", "an event type (3.1), not of the ledger's own", "t" * 200, "t" * 201),
    ("schema", "version", COUNT, LARGEST, 0),
    ("schema", "schema", "an object", {}, []),
    ("schema", "target", "`payload` or `event`", "event", "events"),
    ("schema", "compatibility", "`none`, `backward`, `forward` or `full`", "full", "fully"),
    ("schema", "reason", f"{REASON}, or no such member", "r" * 1_000, "r" * 1_001),
    ("enforcement", "enforcement", "`strict`, `registered` or `warn`", "warn", "warned"),
    ("enforcement", "reason", f"{REASON}, or no such member", "r", ""),
    ("retention", "period_days", "null, or an integer from 1 to 36,600", 36_600, 36_601),
    (
        "retention",
        "labels",
        "an object of at most 256 labels, each of the same",
        {f"l{n}": 1 for n in range(256)},
        {f"l{n}": 1 for n in range(257)},
    ),
    ("retention", "reason", f"{REASON}, or no such member", "r" * 1_000, "r" * 1_001),
    ("hold", "name", "an identifier (3.4) of at most 100 characters", "n" * 100, "n" * 101),
    ("hold", "reason", REASON, "r" * 1_000, ""),
    ("hold", "entity", "an identifier (3.4) of at most 512 characters, or no such member", "e" * 512, "e" * 513),
    ("hold", "label", "an identifier (3.4) of at most 100 characters, or no such member", "l" * 100, "l" * 101),
    (
        "hold",
        "range",
        "a first position and one after the last, at most 2^53 - 1, or no such member",
        [0, LARGEST],
        [1, 1],
    ),
    ("release", "name", "an identifier (3.4) of at most 100 characters", "n" * 100, "n" * 101),
    ("release", "reason", REASON, "r" * 1_000, "r" * 1_001),
)
"""What a verifier of bundles checks as any other record. Whoever reads the payload is held to this."""

JUDGED: Final[dict[str, tuple[tuple[Any, ...], ...]]] = {
    "manifest": MANIFEST,
    "checkpoint": NOTE,
    "proof": PROOF,
    "genesis": GENESIS,
    "epoch opened": OPENED,
    "epoch closed": CLOSED,
    "key rotated": ROTATED,
    "records pruned": PRUNED,
    "clock corrected": CORRECTED,
}


def members() -> list[Member]:
    """All of them, in the order of the table."""
    found = []
    for of, rows in JUDGED.items():
        for name, form, at, past, *others in rows:
            found.append(Member(of, name, form, at, past, tuple(others)))
    return found + [Member(of, name, form, at, past) for of, name, form, at, past in NOT_JUDGED]
